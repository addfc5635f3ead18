"""Decoded images on disk: two arrays and a manifest per split, checked, memory-mapped, atomic."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lthlib.errors import DataError

_log = logging.getLogger(__name__)
_FORMAT = 1
_MANIFEST = "manifest.json"
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, SyntaxError)


@dataclass(frozen=True, eq=False)
class Decoded:
    """One split: images uint8 [n, h, w, c], labels int64 [n], and the class names."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def cache_folder(cache: str | Path | None = None) -> Path:
    """Folder of decoded images: `cache`, else $LTHLIB_CACHE, else the user's cache folder."""
    if chosen := cache or os.environ.get("LTHLIB_CACHE"):
        return Path(chosen).expanduser() / "decoded"
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(user).expanduser() / "lthlib" / "decoded"


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
        DataError: `decode` raised it, or the cache folder cannot be written.
    """
    sources = [
        [str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files
    ]
    entry = cache_folder(cache) / f"{name}-{_digest([_FORMAT, sources])[:16]}"
    if entry.exists():
        try:
            return _load(entry)
        except _DAMAGE as error:
            _log.info("decoding %s again, its cache %s is damaged: %s", name, entry, error)
            with _writing(entry):
                _discard(entry)
    decoded = decode()
    with _writing(entry):
        _write(entry, decoded, sources)
        return _load(entry)


def verify_cache(cache: str | Path | None = None) -> list[str]:
    """Compare every decoded array with its checksum, and remove entries that are damaged.

    Returns:
        One sentence per damaged entry; it is decoded again when it is next asked for.
    """
    folder = cache_folder(cache)
    problems = []
    for entry in sorted(folder.glob("[!.]*")):
        try:
            _load(entry)
            for file, expected in _read_manifest(entry)["arrays"].items():
                if _sha256(entry / file) != expected["sha256"]:
                    raise ValueError(f"the checksum of {file} does not match its content")
        except _DAMAGE as error:
            problems.append(f"{entry}: {error}")
            with _writing(entry):
                _discard(entry)
    return problems


@contextmanager
def _writing(entry: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"decoded images cannot be kept in {entry.parent} ({error}); "
            "set LTHLIB_CACHE to a folder that can be written and has room"
        ) from error


def _load(entry: Path) -> Decoded:
    manifest = _read_manifest(entry)
    arrays = []
    for file in ("images.npy", "labels.npy"):
        expected = manifest["arrays"][file]
        if (entry / file).stat().st_size != expected["bytes"]:
            raise ValueError(f"{file} does not have its {expected['bytes']} bytes")
        array = np.load(entry / file, mmap_mode="c", allow_pickle=False)
        if [str(array.dtype), *array.shape] != expected["array"]:
            raise ValueError(f"{file} does not hold {expected['array']}")
        arrays.append(array)
    return Decoded(arrays[0], arrays[1], tuple(manifest["classes"]))


def _read_manifest(entry: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
    if manifest.pop("sha256") != _digest(manifest):
        raise ValueError(f"the checksum of {_MANIFEST} does not match its content")
    return manifest


def _write(entry: Path, decoded: Decoded, sources: list[list[Any]]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        arrays = {}
        for file, array in (("images.npy", decoded.images), ("labels.npy", decoded.labels)):
            path = temporary / file
            np.save(path, array, allow_pickle=False)
            arrays[file] = {
                "array": [str(array.dtype), *array.shape],
                "bytes": path.stat().st_size,
                "sha256": _sha256(path),
            }
        manifest = {"classes": list(decoded.classes), "arrays": arrays, "sources": sources}
        text = json.dumps(manifest | {"sha256": _digest(manifest)}, indent=1)
        (temporary / _MANIFEST).write_text(text, encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        _publish(temporary, entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, entry: Path) -> None:
    try:
        temporary.rename(entry)
    except OSError:
        # Another process published the same entry first: its arrays are as good as ours.
        if not entry.exists():
            raise
    _flush(entry.parent)


def _discard(entry: Path) -> None:
    if not entry.exists():
        return
    # Renamed first, so that no other process ever sees half an entry.
    trash = Path(tempfile.mkdtemp(prefix=".discarded-", dir=entry.parent))
    try:
        entry.rename(trash / entry.name)
    except FileNotFoundError:
        _log.debug("another process has removed %s", entry)
    finally:
        shutil.rmtree(trash, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
