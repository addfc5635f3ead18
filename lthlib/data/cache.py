"""Decoded images on disk: two arrays and a manifest per split, checked, memory-mapped, atomic.

A checksum of every byte is compared when an entry is opened: 0.12 s for CIFAR-10's training images,
of which decoding takes 20.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lthlib.data.parts import Images
from lthlib.errors import DataError, StoreError
from lthlib.files import open_regular, patiently, read_bounded, remove_all, replacing, shallow
from lthlib.leases import hold, making_room

_log = logging.getLogger("lthlib")
_FORMAT = 2
_MANIFEST = "manifest.json"
_MANIFEST_LIMIT = 1 << 30
_ARRAYS = ("images.npy", "labels.npy")
_ENTRY = re.compile(r"[a-z0-9-]+-[0-9a-f]{16}")
# What is being written, or was when its writer died.
_UNFINISHED = re.compile(r"\.(discarded|[a-z0-9-]+-[0-9a-f]{16})-\w+")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, SyntaxError)


@dataclass(frozen=True, eq=False)
class Decoded:
    """One split: images uint8 [n, h, w, c], labels int64 [n], and the class names."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def part(self) -> Images:
        """The images as a part of a data set."""
        return Images(torch.from_numpy(self.images), torch.from_numpy(self.labels))


def cache_folder(cache: str | Path | None = None) -> Path:
    """Folder of decoded images: `cache`, else $LTHLIB_CACHE, else the user's cache folder.

    Raises:
        DataError: it is in the user's home, and nobody knows where that is.
    """
    chosen = cache or os.environ.get("LTHLIB_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.path.expanduser(chosen or os.path.join(user, "lthlib"))
    if os.fspath(folder).startswith("~"):
        raise DataError(
            f"decoded images are to be kept in {folder}, but there is no home folder "
            "of that name; set LTHLIB_CACHE to a folder that can be written"
        )
    return Path(folder) / "decoded"


def cached(
    name: str, files: Sequence[Path], decode: Callable[[], Decoded], cache: str | Path | None
) -> Decoded:
    """Return the split from the cache, decoding it first if it is not there or damaged.

    Arguments:
        name: what the entry is called, such as "cifar10-train".
        files: the files it is decoded from; a change of name, size or time makes a new entry.
        decode: decodes the split.
        cache: see `cache_folder`.
    Returns:
        The split, memory-mapped copy-on-write: changing it in memory leaves the file as it is.
    Raises:
        DataError: one of the files cannot be read or is none, `decode` raised it, or the cache
            folder cannot be written.
    """
    sources = [_identity(file) for file in files]
    entry = cache_folder(cache) / f"{name}-{_key(_FORMAT, sources)}"
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

    Arguments:
        cache: see `cache_folder`.
        repair: remove what is damaged; it is decoded again when it is next asked for.
    Returns:
        One sentence per fault.
    """
    problems = []
    for entry in _listed(cache, _ENTRY):
        faults = [*_faults(entry)]
        problems += [f"{entry}: {fault}" for fault in faults]
        if faults and repair:
            with making_room(_lock(entry)) as lease:
                if lease and [*_faults(entry)]:
                    remove_all(entry)
    return problems


def needless_entries(cache: str | Path | None = None) -> Iterator[tuple[str, Path]]:
    """What nothing in the cache needs: why, and where it is. Until the next one is asked for,
    nobody writes there."""
    for path in _listed(cache, _UNFINISHED):
        with making_room(_lock(path.with_name(path.name[1:].rpartition("-")[0]))) as lease:
            if lease and path.exists():
                yield "half-written decoded images", path
    for entry in _listed(cache, _ENTRY):
        with making_room(_lock(entry)) as lease, suppress(*_DAMAGE):  # what `verify` is about
            if lease and _read_manifest(entry).get("format", 1) != _FORMAT:
                yield "decoded images of an earlier version", entry


def _listed(cache: str | Path | None, names: re.Pattern[str]) -> list[Path]:
    try:
        return sorted(path for path in cache_folder(cache).iterdir() if names.fullmatch(path.name))
    except (DataError, OSError):
        return []  # there is no cache


def _lock(entry: Path) -> Path:
    return entry.parent.with_name("locks") / entry.name


def _identity(file: Path) -> list[Any]:
    try:
        about = file.stat()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); mend or remove it") from error
    if not stat.S_ISREG(about.st_mode):
        raise DataError(f"{file}: not a regular file; remove it")
    return [os.path.realpath(file), about.st_size, about.st_mtime_ns]


def _load(entry: Path) -> Decoded:
    for fault in _faults(entry):
        raise ValueError(fault)
    images, labels = (np.load(entry / name, mmap_mode="c", allow_pickle=False) for name in _ARRAYS)
    return Decoded(images, labels, tuple(_read_manifest(entry)["classes"]))


def _faults(entry: Path) -> Iterator[str]:
    try:
        checksums = _read_manifest(entry)["arrays"]
    except _DAMAGE as error:
        yield f"{_MANIFEST}: {error}"
        return
    for name in _ARRAYS:
        try:
            if _sha256(entry / name) != checksums[name]["sha256"]:
                raise ValueError("its checksum does not match its content")
        except _DAMAGE as error:
            yield f"{name}: {error}"


def _read_manifest(entry: Path) -> dict[str, Any]:
    text = shallow(read_bounded(entry / _MANIFEST, _MANIFEST_LIMIT))
    manifest: dict[str, Any] = json.loads(text)
    if manifest.pop("sha256") != _digest(manifest):
        raise ValueError(f"the checksum of {_MANIFEST} does not match its content")
    if not entry.name.endswith(_key(manifest.get("format", 1), manifest["sources"])):
        raise ValueError(f"{_MANIFEST} belongs to another entry")
    return manifest


def _write(entry: Path, decoded: Decoded, sources: list[list[Any]]) -> Decoded:
    """Write an entry as the only one who does, unless another process was first."""
    with suppress(*_DAMAGE):
        return _load(entry)
    entry.parent.mkdir(parents=True, exist_ok=True)
    for left in (entry, *entry.parent.glob(f".{entry.name}-*")):
        remove_all(left)
    temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        for name, array in zip(_ARRAYS, (decoded.images, decoded.labels), strict=True):
            with replacing(temporary / name) as file:
                np.save(file, array, allow_pickle=False)
        arrays = {name: {"sha256": _sha256(temporary / name)} for name in _ARRAYS}
        about = {"format": _FORMAT, "classes": list(decoded.classes), "sources": sources}
        manifest = {**about, "arrays": arrays}
        text = json.dumps(manifest | {"sha256": _digest(manifest)}, indent=1)
        with replacing(temporary / _MANIFEST) as file:
            file.write(text.encode())
        patiently(os.rename, temporary, entry)
        return _load(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _key(version: int, sources: list[list[Any]]) -> str:
    return _digest([version, sources])[:16]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
