"""Writing files so that a reader sees the old or the new content, never half of it; reading them
within bounds; sealing texts, so that what was changed since shows."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

DEPTH_LIMIT = 64
_SEAL = re.compile(rb',(\n?) "digest": "([0-9a-f]{64})"\1}')
# Texts, also one that never ends, and brackets; possessive, so that no input takes long.
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)


def write_atomically(
    path: Path, content: bytes, check: Callable[[], object] = lambda: None
) -> None:
    """Write to a temporary file beside `path`, flush it to disk, then rename it into place. check:
    called right before the rename; what it raises leaves the old content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        check()
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    # After a power loss the new name may be missing otherwise. Windows and some network file
    # systems cannot flush a folder.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def open_regular(path: str | Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading. Raises OSError when that cannot be done, or it is something
    else than a file: a device never ends."""
    # A named pipe would wait for somebody who writes.
    flag = getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | flag)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        yield file


def read_bounded(path: Path, limit: int) -> bytes:
    """Content of a regular file. Raises OSError when it cannot be read, is something else than a
    file, or is longer than `limit` bytes."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"is longer than {limit} bytes", str(path))
        return file.read(limit)


def shallow(text: bytes) -> str:
    """A text of JSON, decoded. Raises ValueError when it is nested more than `DEPTH_LIMIT` deep:
    nothing may recurse into what a stranger nested."""
    decoded = text.decode()
    steps = (1 if one in "[{" else -1 for one in _STRUCTURE.findall(decoded) if one[0] != '"')
    if max(itertools.accumulate(steps), default=0) > DEPTH_LIMIT:
        raise ValueError(f"nested more than {DEPTH_LIMIT} deep")
    return decoded


def sealed(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    """An object as JSON, with the SHA-256 of all that text as its last entry, `digest`. indent:
    1 for an entry a line."""
    text = json.dumps({n: own for n, own in value.items() if n != "digest"}, indent=indent)
    gap, digest = "\n" if indent else "", hashlib.sha256(text.encode()).hexdigest()
    return f'{text[: -1 - len(gap)]},{gap} "digest": "{digest}"{gap}}}'.encode()


def is_sealed(content: bytes) -> bool:
    """Whether a text is as `sealed` wrote it."""
    seal = _SEAL.fullmatch(content, max(content.rfind(b","), 0))
    rest = content[: seal.start()] + seal[1] + b"}" if seal else b""
    return seal is not None and hashlib.sha256(rest).hexdigest().encode() == seal[2]
