"""CIFAR-10 and CIFAR-100: Parquet shards in the Hub layout, or torchvision's verified files.

torchvision's files are pickles. They are read only when their MD5 sums are the published ones, and
then by an unpickler that makes arrays and plain values: nothing in a file can call anything.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lthlib.data.cache import Decoded, cached
from lthlib.data.parts import check_labels
from lthlib.data.pictures import decode_all, open_rgb
from lthlib.errors import DataError

SIDE = 32
# In a file of a few bytes, a column may claim any number of rows.
MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class _Kind:
    name: str
    classes: int
    label: str
    torchvision: str


KINDS = {
    "cifar10": _Kind("cifar10", 10, "label", "CIFAR10"),
    "cifar100": _Kind("cifar100", 100, "fine_label", "CIFAR100"),
}


def read_cifar(
    name: str, root: Path, cache: str | Path | None, download: bool
) -> tuple[Decoded, Decoded]:
    """Training and test split of CIFAR, decoded at the first call and memory-mapped ever after.

    Looks for ROOT/NAME/*.parquet, then ROOT/*.parquet, then torchvision's files under ROOT.

    Arguments:
        name: "cifar10" or "cifar100".
        root: data root.
        cache: see `cache_folder`.
        download: let torchvision fetch its archive into `root` if nothing is there.
    Raises:
        DataError: nothing is found, or a file is malformed; the message names file and row.
    """
    kind = KINDS[name]
    for folder in (root / name, root):
        if any(folder.glob("*.parquet")):
            read = partial(_read_shards, kind, folder)
            break
    else:
        read = partial(_read_torchvision, kind, root, download)
    return read("train", cache), read("test", cache)


def _read_shards(kind: _Kind, folder: Path, split: str, cache: str | Path | None) -> Decoded:
    shards = _find_shards(folder, split)
    title = f"{kind.name}-{split}"
    return cached(title, shards, partial(_decode_shards, kind, shards, title), cache)


def _find_shards(folder: Path, split: str) -> list[Path]:
    shards = sorted(folder.glob(f"{split}*.parquet"))
    if not shards:
        raise DataError(f"{folder}: no shard {split}*.parquet; add it, or remove the other shards")
    for shard in shards:
        numbered = re.search(r"-of-(\d+)\.parquet$", shard.name)
        if numbered and int(numbered[1]) != len(shards):
            raise DataError(
                f"{shard}: one of {int(numbered[1])} shards, but there are {len(shards)}; "
                "add the missing ones"
            )
    return shards


def _decode_shards(kind: _Kind, shards: list[Path], title: str) -> Decoded:
    opened = [_open_shard(shard, kind) for shard in shards]
    classes = _class_names(opened[0].schema_arrow, kind, shards[0])
    rows = sum(shard.metadata.num_rows for shard in opened)
    labels = np.concatenate(
        [_read_labels(file, shard, kind) for file, shard in zip(shards, opened, strict=True)]
    )
    missing = [classes[label] for label in sorted(set(range(kind.classes)) - set(labels.tolist()))]
    if missing:
        raise DataError(
            f"{shards[0]} ...: no {title} image of {', '.join(missing)}; fetch it again"
        )
    images = np.empty((rows, SIDE, SIDE, 3), np.uint8)
    encoded = (row for file, s in zip(shards, opened, strict=True) for row in _read_bytes(file, s))
    decode_all(_decode_row, encoded, images, title)
    return Decoded(images, labels, classes)


def _open_shard(file: Path, kind: _Kind) -> pq.ParquetFile:
    with _reading(file):
        shard = pq.ParquetFile(file)
    schema = shard.schema_arrow
    image = schema.field("img").type if "img" in schema.names else None
    if not (image and pa.types.is_struct(image) and "bytes" in [child.name for child in image]):
        raise DataError(f"{file}: needs a column img of struct{{bytes, path}}, has {schema.names}")
    if kind.label not in schema.names or not pa.types.is_integer(schema.field(kind.label).type):
        raise DataError(f"{file}: needs an integer column {kind.label}, has {schema.names}")
    if not 0 < shard.metadata.num_rows <= MOST_ROWS:
        raise DataError(
            f"{file}: {shard.metadata.num_rows} rows, expected 1 to {MOST_ROWS}; fetch it again"
        )
    return shard


def _class_names(schema: pa.Schema, kind: _Kind, file: Path) -> tuple[str, ...]:
    metadata = schema.metadata or {}
    if b"classes" in metadata:
        names = metadata[b"classes"].decode().split(",")
    else:
        names = _hub_names(metadata, kind) or [f"class {i}" for i in range(kind.classes)]
    if len(names) != kind.classes:
        raise DataError(f"{file}: names {len(names)} classes, {kind.name} has {kind.classes}")
    return tuple(str(name).strip() for name in names)


def _hub_names(metadata: dict[bytes, bytes], kind: _Kind) -> list[str] | None:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return list(features[kind.label]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _read_labels(file: Path, shard: pq.ParquetFile, kind: _Kind) -> np.ndarray:
    with _reading(file):
        column = shard.read(columns=[kind.label]).column(0)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise DataError(f"{file}, row {row}: no {kind.label}; every row needs one")
        labels = column.cast(pa.int64()).to_numpy()
    check_labels(labels, kind.classes, str(file))
    return labels


def _read_bytes(file: Path, shard: pq.ParquetFile) -> Iterator[tuple[bytes | None, str]]:
    row = 0
    with _reading(file):
        for batch in shard.iter_batches(1024, columns=["img"]):
            for encoded in batch.column(0).to_pylist():
                yield (encoded or {}).get("bytes"), f"{file}, row {row}"
                row += 1


def _decode_row(row: tuple[bytes | None, str]) -> np.ndarray:
    encoded, where = row
    if not encoded:
        raise DataError(f"{where}: img holds no bytes; every row needs an encoded image")
    image = np.asarray(open_rgb(encoded, where))
    if image.shape != (SIDE, SIDE, 3):
        raise DataError(f"{where}: {image.shape[0]} x {image.shape[1]} pixels, not {SIDE} x {SIDE}")
    return image


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error}); fetch it again") from error


def _read_torchvision(
    kind: _Kind, root: Path, download: bool, split: str, cache: str | Path | None
) -> Decoded:
    from lthlib._torchvision import torchvision  # takes as long to import as torch

    reader = getattr(torchvision.datasets, kind.torchvision)
    folder = root / reader.base_folder
    try:
        if download and not folder.exists():
            torchvision.datasets.utils.download_and_extract_archive(
                reader.url, str(root), filename=reader.filename, md5=reader.tgz_md5
            )
        files = sorted(folder.glob("*"))
        decode = partial(_decode_batches, reader, folder, split)
        return cached(f"{kind.name}-{split}", files, decode, cache) if files else decode()
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"no {kind.name}: looked for {root / kind.name}/*.parquet, {root}/*.parquet and "
            f"torchvision's files in {root} ({error}). Give the data root by --data or "
            "LTHLIB_DATA, or allow the download with download=True"
        ) from error


def _decode_batches(reader: Any, folder: Path, split: str) -> Decoded:
    listed = reader.train_list if split == "train" else reader.test_list
    batches = [_read_batch(folder / name, md5) for name, md5 in listed]
    meta = _read_batch(folder / reader.meta["filename"], reader.meta["md5"])
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, SIDE, SIDE)
    labels = [label for b in batches for label in b["labels" if "labels" in b else "fine_labels"]]
    classes = tuple(meta[reader.meta["key"]])
    return Decoded(images.transpose(0, 2, 3, 1), np.array(labels), classes)


def _read_batch(file: Path, md5: str) -> dict[str, Any]:
    with file.open("rb") as opened:
        if hashlib.file_digest(opened, "md5").hexdigest() != md5:
            raise DataError(f"{file}: is not the published file; remove it and fetch it again")
        opened.seek(0)
        # Written by Python 2, whose texts are bytes.
        content: dict[str, Any] = _Arrays(opened, encoding="latin1").load()
        return content


class _Arrays(pickle.Unpickler):
    """Reads plain values and numpy arrays, and refuses whatever else a pickle names."""

    allowed = {  # noqa: RUF012
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        # As the files name it, and as numpy 2 does.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise DataError(f"a pickle names {module}.{name}; the published files hold only arrays")
        return self.allowed[module, name]
