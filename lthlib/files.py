"""Writing files so that a reader sees the old or the new content, never half of it; sealing texts,
so that what was changed since shows; and the door through which the words of others come in:
bounded, and of JSON and YAML only plain values."""

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import yaml

from lthlib.errors import ConfigError, LthlibError, refusal, shown

DEPTH_LIMIT = 64
FILE_LIMIT = 1 << 20
TICKET_LIMIT = 4 << 30
# Names that `replacing` gives to its temporary files.
TEMPORARY = re.compile(r"\..{1,50}\.[0-9a-f]{32}", re.DOTALL)
_PAUSES = (0.01, 0.03, 0.1, 0.3, 1.0) if os.name == "nt" else ()  # seconds
_SEAL = re.compile(rb',(\n?) "digest": "([0-9a-f]{64})"\1}')
# Texts, also one that never ends, and brackets; possessive, so that no input takes long.
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)


def write_atomically(
    path: Path, content: bytes, check: Callable[[], object] = lambda: None
) -> None:
    """Replace a file's content; arguments and errors as those of `replacing`."""
    with replacing(path, check) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path, check: Callable[[], object] = lambda: None) -> Iterator[BinaryIO]:
    """Write to a temporary file beside `path`, flush it to disk, then rename it into place.

    What a link names is replaced, and the link stays; so do owner and permissions. Folders on the
    way are made.

    Args:
        path: of the file, which need not be there yet.
        check: called right before the rename; what it raises leaves the old content.

    Yields:
        The temporary file, open for writing. What the body raises leaves the old content.

    Raises:
        OSError: the file cannot be written, or is something else than a file, such as a device;
            names `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = _status(path)
        target = Path(os.path.realpath(path))
        # TEMPORARY finds it. Cut, because the name may be as long as one can be.
        temporary = target.with_name(f".{target.name[:50]}.{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                if before is not None:
                    _copy_owner(before, temporary)
                yield file
                file.flush()
                os.fsync(file.fileno())
            check()
            patiently(os.replace, temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    _flush_folder(target.parent)


def patiently(action: Callable[..., object], *arguments: Any) -> None:
    """Call what renames or removes files again for a while where Windows refuses it.

    There, who reads a file, be it to look for viruses, keeps it in its place.

    Args:
        action: what renames or removes.
        *arguments: what it is called with.

    Raises:
        OSError: as the last call of `action` raises it.
    """
    for pause in _PAUSES:
        with contextlib.suppress(PermissionError):
            action(*arguments)
            return
        time.sleep(pause)
    action(*arguments)


def _status(path: Path) -> os.stat_result | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file")
    return status


def _copy_owner(source: os.stat_result, path: Path) -> None:
    with contextlib.suppress(OSError, AttributeError):  # only root gives files away
        os.chown(path, source.st_uid, source.st_gid)
    os.chmod(path, stat.S_IMODE(source.st_mode))


def _flush_folder(folder: Path) -> None:
    # After a power loss the new name may be missing otherwise. Windows and some network file
    # systems cannot flush a folder.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_all(path: Path) -> None:
    """Remove a file, a link, or a folder with all it holds, if it is there.

    What a link names is never removed.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def open_regular(path: str | Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading.

    Args:
        path: of the file.

    Yields:
        The open file.

    Raises:
        OSError: that cannot be done, or it is something else than a file: a device never ends.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        yield file


def _open_without_waiting(path: str, flags: int) -> int:
    # A named pipe would wait for somebody who writes.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bounded(path: str | Path, limit: int) -> bytes:
    """Read a regular file.

    Args:
        path: of the file.
        limit: the most bytes that it may have.

    Returns:
        All of its content.

    Raises:
        OSError: it cannot be read, is something else than a file, or is longer than `limit`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"is longer than {limit} bytes", str(path))
        return file.read(size)


def read_within(folder: str | Path, name: str, limit: int) -> bytes:
    """Read a file below a folder that nothing is to lead out of.

    Args:
        folder: which is no symbolic link itself.
        name: path of the file below the folder, its steps divided by `/`.
        limit: the most bytes that it may have.

    Returns:
        All of its content.

    Raises:
        OSError: as `read_bounded` raises it, and where the folder, or a step of `name`, is a
            symbolic link.
    """
    path = str(folder)
    for step in ("", *name.split("/")):
        path = f"{path}/{step}" if step else path
        if os.path.islink(path):
            raise OSError(errno.ELOOP, "is a symbolic link", path)
    return read_bounded(path, limit)


def load(
    path: Path,
    parse: Callable[[bytes], Any],
    title: str,
    error: type[LthlibError] = ConfigError,
    limit: int = FILE_LIMIT,
) -> Any:
    """Read and parse a file.

    Args:
        path: of the file.
        parse: what makes a value of its content, such as `from_json`.
        title: how the user knows the file.
        error: what is raised.
        limit: the most bytes that the file may have.

    Returns:
        What `parse` returns.

    Raises:
        LthlibError: an `error`, where the file cannot be read, is too long, or makes no sense.
    """
    with refusal(error, f"cannot read {title} {path}", (OSError, ValueError)):
        return parse(read_bounded(path, limit))


def shallow(text: bytes) -> str:
    """Decode a text of JSON: nothing may recurse into what a stranger nested.

    Args:
        text: in UTF-8.

    Returns:
        The text.

    Raises:
        ValueError: it is nested more than `DEPTH_LIMIT` deep, or no UTF-8.
    """
    decoded = text.decode()
    brackets = (token for token in _STRUCTURE.findall(decoded) if token[0] != '"')
    steps = (1 if bracket in "[{" else -1 for bracket in brackets)
    if max(itertools.accumulate(steps), default=0) > DEPTH_LIMIT:
        raise ValueError(f"nested more than {DEPTH_LIMIT} deep")
    return decoded


def sealed(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Write an object as JSON that shows whether it was changed since.

    Args:
        value: not empty; an entry `digest` is left out.
        indent: 1 for an entry a line.

    Returns:
        JSON with the SHA-256 of all that text as its last entry, `digest`.
    """
    entries = {name: entry for name, entry in value.items() if name != "digest"}
    text = json.dumps(entries, indent=indent)
    digest = hashlib.sha256(text.encode()).hexdigest()
    gap = "\n" if indent else ""
    return f'{text[: -1 - len(gap)]},{gap} "digest": "{digest}"{gap}}}'.encode()


def is_sealed(content: bytes) -> bool:
    """Whether a text is as `sealed` wrote it."""
    seal = _SEAL.fullmatch(content, max(content.rfind(b","), 0))
    if seal is None:
        return False
    text = content[: seal.start()] + seal[1] + b"}"
    return hashlib.sha256(text).hexdigest().encode() == seal[2]


def from_json(text: bytes | str) -> Any:
    """The value of a text of JSON.

    Args:
        text: decoded, or in UTF-8.

    Returns:
        Plain values.

    Raises:
        ValueError: it is no JSON, is nested too deep, has a key twice, a number that is not finite,
            or half of a surrogate pair.
    """
    decoded = shallow(text.encode() if isinstance(text, str) else text)
    value = json.loads(
        decoded,
        parse_constant=_refuse_constant,
        parse_float=_finite_float,
        object_pairs_hook=_mapping,
    )
    if r"\u" in decoded:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def from_yaml(text: bytes | str) -> Any:
    """The value of a text of YAML that says what JSON could.

    That is texts, numbers as JSON writes them, true, false, null, lists, and mappings from texts.
    All else that is unquoted is text, such as 12:30:00.

    Args:
        text: decoded, or in UTF-8.

    Returns:
        Plain values; None for an empty text.

    Raises:
        ValueError: it is no YAML, holds several documents, aliases or tags, or what `from_json`
            refuses.
    """
    decoded = text.decode() if isinstance(text, bytes) else text
    open_: list[list[Any]] = [[]]  # the items of what is not closed yet, the document first
    try:
        for event in yaml.parse(decoded, Loader=_YAML):
            if getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise ValueError("has an anchor, an alias or a tag; write the value out")
            if isinstance(event, yaml.ScalarEvent):
                event.value.encode()  # refuses half of a surrogate pair
                open_[-1].append(_scalar(event.value) if event.implicit[0] else event.value)
            elif isinstance(event, yaml.CollectionStartEvent):
                open_.append([])
                if len(open_) > DEPTH_LIMIT + 1:
                    raise ValueError(f"nested more than {DEPTH_LIMIT} deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                items = open_.pop()
                if isinstance(event, yaml.MappingEndEvent):
                    open_[-1].append(_mapping(list(zip(items[::2], items[1::2], strict=True))))
                else:
                    open_[-1].append(items)
    except yaml.YAMLError as error:
        reason = str(error).replace('in "<unicode string>",', "at")
        raise ValueError(" ".join(reason.split())) from None
    if len(open_[0]) > 1:
        raise ValueError("holds several documents; write one")
    return open_[0][0] if open_[0] else None


# Only the parser of PyYAML: it decides what a value is, and must not build any.
_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def _scalar(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _WHOLE.fullmatch(text):
        return int(text)
    return _finite_float(text) if NUMBER.fullmatch(text) and set(text) & set(".eE") else text


def _finite_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {shown(text)} is too large")
    return number


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not allowed; write null for a missing value")


def _mapping(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError(f"the key {shown(key)} is no text; put it in quotes")
        if key in mapping:
            raise ValueError(f"a key occurs twice: {shown(key)}")
        mapping[key] = value
    return mapping
