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
    """Replace a file's content; see `replacing`."""
    with replacing(path, check) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path, check: Callable[[], object] = lambda: None) -> Iterator[BinaryIO]:
    """Write to a temporary file beside `path`, flush it to disk, then rename it into place.

    What a link names is replaced, and the link stays; so do owner and permissions. check: called
    right before the rename; what it raises leaves the old content. Raises OSError, which names
    `path`, when it cannot be written, or is something else than a file, such as a device.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = _about(path)
        target = Path(os.path.realpath(path))
        # TEMPORARY finds it. Cut, because the name may be as long as one can be.
        temporary = target.with_name(f".{target.name[:50]}.{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                if before is not None:
                    _give(temporary, before)
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
    """Call what renames or removes files again for a while where Windows refuses it: there, who
    reads a file, be it to look for viruses, keeps it in its place. Raises OSError."""
    for pause in _PAUSES:
        with contextlib.suppress(PermissionError):
            action(*arguments)
            return
        time.sleep(pause)
    action(*arguments)


def _about(path: Path) -> os.stat_result | None:
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file")
    return about


def _give(path: Path, before: os.stat_result) -> None:
    with contextlib.suppress(OSError, AttributeError):  # only root gives files away
        os.chown(path, before.st_uid, before.st_gid)
    os.chmod(path, stat.S_IMODE(before.st_mode))


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
    """Remove a file, a link, or a folder with all it holds, if it is there; never what a link
    names. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def open_regular(path: str | Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading. Raises OSError when that cannot be done, or it is something
    else than a file: a device never ends."""
    with open(path, "rb", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        yield file


def _at_once(path: str, flags: int) -> int:
    # A named pipe would wait for somebody who writes.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bounded(path: str | Path, limit: int) -> bytes:
    """Content of a regular file. Raises OSError when it cannot be read, is something else than a
    file, or is longer than `limit` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"is longer than {limit} bytes", str(path))
        return file.read(size)


def read_within(folder: str | Path, name: str, limit: int) -> bytes:
    """As `read_bounded`, for a file below a folder that nothing is to lead out of. Raises OSError
    also where the folder, or a part of `name`, is a symbolic link."""
    place = str(folder)
    for part in ("", *name.split("/")):
        place = f"{place}/{part}" if part else place
        if os.path.islink(place):
            raise OSError(errno.ELOOP, "is a symbolic link", place)
    return read_bounded(place, limit)


def load(
    path: Path,
    parse: Callable[[bytes], Any],
    what: str,
    error: type[LthlibError] = ConfigError,
    limit: int = FILE_LIMIT,
) -> Any:
    """What `parse`, such as `from_json`, makes of a file. what: how the user knows the file. Raises
    `error` where the file cannot be read, is longer than `limit` bytes, or makes no sense."""
    with refusal(error, f"cannot read {what} {path}", (OSError, ValueError)):
        return parse(read_bounded(path, limit))


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


def from_json(text: bytes | str) -> Any:
    """The value of a text of JSON. Raises ValueError for what is no JSON, is nested too deep, has a
    key twice, a number that is not finite, or half of a surrogate pair."""
    decoded = shallow(text.encode() if isinstance(text, str) else text)
    value = json.loads(
        decoded, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_mapping
    )
    if r"\u" in decoded:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def from_yaml(text: bytes | str) -> Any:
    """The value of a text of YAML that says what JSON could: texts, numbers as JSON writes them,
    true, false, null, lists, and mappings from texts. All else that is unquoted is text, such as
    12:30:00. Raises ValueError for what is no YAML, several documents, aliases, tags, and for what
    `from_json` refuses."""
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
                listed = isinstance(event, yaml.SequenceEndEvent)
                pairs = zip(items[::2], items[1::2], strict=True)
                open_[-1].append(items if listed else _mapping(list(pairs)))
    except yaml.YAMLError as error:
        why = str(error).replace('in "<unicode string>",', "at")
        raise ValueError(" ".join(why.split())) from None
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
    return _finite(text) if NUMBER.fullmatch(text) and set(text) & set(".eE") else text


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {shown(text)} is too large")
    return number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not allowed; write null for a missing value")


def _mapping(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError(f"the key {shown(key)} is no text; put it in quotes")
        if key in found:
            raise ValueError(f"a key occurs twice: {shown(key)}")
        found[key] = value
    return found
