"""Decoded images on disk: a file for each split, checked, memory-mapped, atomic.

A file holds the length of its head, 8 bytes; the head, JSON that says what was decoded; images,
labels, and the SHA-256 of all that. It is compared when an entry is opened: 0.12 s for CIFAR-10's
training images, of which decoding takes 20.
"""

import hashlib
import json
import logging
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lthlib.data.parts import Images
from lthlib.errors import DataError, StoreError, refusal
from lthlib.files import open_regular, remove_all, replacing, shallow
from lthlib.leases import hold, making_room

_log = logging.getLogger("lthlib")
_SUFFIX = ".images"
# An entry, what is half-written of one, and folders that earlier versions kept instead.
_NAME = re.compile(r"\.?([a-z0-9-]+-[0-9a-f]{16})(-\w+|\.images(\.[0-9a-f]{32})?)?")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, eq=False)
class Decoded:
    """One split of a data set, decoded.

    Attributes:
        images: uint8 [n, height, width, channels].
        labels: int64 [n], class of each image.
        classes: class names in label order.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def part(self) -> Images:
        """The images as a part of a data set."""
        return Images(torch.from_numpy(self.images), torch.from_numpy(self.labels))


def cache_folder(cache: str | Path | None = None) -> Path:
    """Folder of decoded images.

    Args:
        cache: folder that holds it; None takes $LTHLIB_CACHE, else the user's cache folder.

    Returns:
        `decoded` in that folder, which need not be there yet.

    Raises:
        DataError: it is in the user's home, and nobody knows where that is.
    """
    chosen = cache or os.environ.get("LTHLIB_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.path.expanduser(chosen or os.path.join(user, "lthlib"))
    if os.fspath(folder).startswith("~"):
        raise DataError(f"there is no home folder to keep {folder} in; set LTHLIB_CACHE")
    return Path(folder) / "decoded"


def cached(
    name: str, files: Sequence[Path], decode: Callable[[], Decoded], cache: str | Path | None
) -> Decoded:
    """Return the split from the cache, decoding it first if it is not there or damaged.

    Args:
        name: what the entry is called, such as "cifar10-train".
        files: the files it is decoded from; a change of name, size or time makes a new entry.
        decode: decodes the split.
        cache: see `cache_folder`.

    Returns:
        The split, memory-mapped copy-on-write; changing it in memory leaves the file as it is.

    Raises:
        DataError: one of the files cannot be read or is none, `decode` raised it, or the cache
            folder cannot be written.
    """
    sources = [_identity(file) for file in files]
    entry = cache_folder(cache) / f"{name}-{_key(sources)}{_SUFFIX}"
    if os.path.lexists(entry):
        try:
            return _load(entry)
        except _DAMAGE as error:
            _log.warning("decoding %s again, its cache %s is damaged: %s", name, entry, error)
    decoded = decode()
    try:
        with hold(_lock(entry)):
            return _write(entry, decoded, sources)
    except (StoreError, *_DAMAGE) as error:
        raise DataError(
            f"decoded images cannot be kept in {entry.parent} ({error}); "
            "set LTHLIB_CACHE to a folder that can be written and has room"
        ) from error


def verify_cache(cache: str | Path | None = None, repair: bool = False) -> list[str]:
    """Compare all decoded images with their checksums.

    Args:
        cache: see `cache_folder`.
        repair: remove what is damaged; it is decoded again when it is next asked for.

    Returns:
        One sentence per fault.
    """
    problems = []
    for entry in _list_entries(cache):
        if entry.suffix != _SUFFIX or not (fault := _fault(entry)):
            continue
        problems.append(f"{entry}: {fault}")
        if repair:
            with making_room(_lock(entry)) as lease:
                if lease and _fault(entry):
                    remove_all(entry)
    return problems


def needless_entries(cache: str | Path | None = None) -> Iterator[tuple[str, Path]]:
    """What nothing in the cache needs.

    Args:
        cache: see `cache_folder`.

    Yields:
        What it is, and its path. Until the next one is asked for, nobody writes there.
    """
    for path in _list_entries(cache):
        if path.suffix != _SUFFIX:
            half = path.name.startswith(".")
            kind = "half-written decoded images" if half else "decoded images of an earlier version"
            with making_room(_lock(path)) as lease:
                if lease and os.path.lexists(path):
                    yield kind, path


def _list_entries(cache: str | Path | None) -> list[Path]:
    try:
        return sorted(path for path in cache_folder(cache).iterdir() if _NAME.fullmatch(path.name))
    except (DataError, OSError):
        return []  # there is no cache


def _lock(path: Path) -> Path:
    return path.parent.with_name("locks") / _NAME.sub(r"\1", path.name)


def _identity(file: Path) -> list[Any]:
    with refusal(DataError, f"{file}: cannot be read", OSError, "mend or remove it"):
        status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{file}: not a regular file; remove it")
    return [os.path.realpath(file), status.st_size, status.st_mtime_ns]


def _load(entry: Path) -> Decoded:
    with open_regular(entry) as file:
        content = np.memmap(file, np.uint8, "c")
    content, digest = np.split(content, [-hashlib.sha256().digest_size])
    if hashlib.sha256(content).digest() != digest.tobytes():
        raise ValueError("its checksum does not match its content")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    head = json.loads(shallow(content[8:start].tobytes()))
    if not entry.stem.endswith(_key(head["sources"])):
        raise ValueError("it belongs to another entry")
    images, labels = np.split(content[start:], [math.prod(head["shape"])])
    classes = tuple(head["classes"])
    return Decoded(images.reshape(head["shape"]), np.array(labels).view(np.int64), classes)


def _fault(entry: Path) -> str:
    try:
        _load(entry)
    except _DAMAGE as error:
        return str(error) or repr(error)
    return ""


def _write(entry: Path, decoded: Decoded, sources: list[list[Any]]) -> Decoded:
    """Write an entry as the only one who does, unless another process was first."""
    with suppress(*_DAMAGE):
        return _load(entry)
    for leftover in (entry, *entry.parent.glob(f".{entry.name}.*")):
        remove_all(leftover)
    description = {"sources": sources, "classes": decoded.classes, "shape": decoded.images.shape}
    head = json.dumps(description).encode()
    arrays: Any = decoded.images.ravel(), decoded.labels.ravel()
    digest = hashlib.sha256()
    with replacing(entry) as file:
        for block in (len(head).to_bytes(8, "little"), head, *arrays):
            digest.update(block)
            file.write(block)
        file.write(digest.digest())
    return _load(entry)


def _key(sources: list[list[Any]]) -> str:
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]
