"""CIFAR-10 and CIFAR-100: Parquet shards in the Hub layout, or torchvision's verified files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lthlib.data.cache import Decoded, cached
from lthlib.data.parts import Dataset, Request, check_labels
from lthlib.data.pictures import decode_all
from lthlib.errors import DataError, refusal
from lthlib.files import shallow

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ModuleNotFoundError:
    pa = None

SIDE = 32
# A file of a few bytes may claim any number of rows, and a column of it any size: what is repeated
# takes no room. CIFAR has 60,000 rows; an image takes 3,072 bytes before it is encoded.
MOST_ROWS = 1_000_000
COLUMN_LIMIT = 256 << 20
ROW_LIMIT = 64 << 10


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


def load_cifar(request: Request) -> Dataset:
    """CIFAR, decoded at the first call and memory-mapped ever after.

    Looks for ROOT/NAME/*.parquet, then ROOT/*.parquet, then torchvision's files under ROOT.

    Args:
        request: what was asked for.

    Returns:
        The data set, called `cifar10` or `cifar100`.

    Raises:
        DataError: nothing is found, or a file is malformed; the message names file and row.
    """
    kind, root = KINDS[request.settings.dataset], request.root
    read = partial(_read_torchvision, kind, request)
    for folder in (root, root / kind.name):
        if any(folder.glob("[!.]*.parquet")):
            if pa is None:
                raise DataError(
                    f"{folder}: Parquet shards are read by pyarrow, which is not installed: pip "
                    "install 'lthlib[parquet]', or give torchvision's files"
                )
            read = partial(_read_shards, kind, folder, request.cache)
    train, test = read("train"), read("test")
    return Dataset.split(kind.name, train.classes, train.part, test.part, request.settings)


def _read_shards(kind: _Kind, folder: Path, cache: str | Path | None, split: str) -> Decoded:
    shards = sorted(folder.glob(f"{split}*.parquet"))
    if not shards:
        raise DataError(f"{folder}: no shard {split}*.parquet; add it, or remove the other shards")
    for shard in shards:
        numbered = re.search(r"-of-(\d+)\.parquet$", shard.name)
        if numbered and int(numbered[1]) != len(shards):
            raise DataError(
                f"{shard}: one of {int(numbered[1])} shards, but there are {len(shards)}; add all"
            )
    title = f"{kind.name}-{split}"
    return cached(title, shards, partial(_decode_shards, kind, shards, title), cache)


def _decode_shards(kind: _Kind, shards: list[Path], title: str) -> Decoded:
    opened = {file: _open_shard(file, kind) for file in shards}
    total = sum(_claimed_size(shard)[0] for shard in opened.values())
    if total > MOST_ROWS:
        raise DataError(f"{shards[0]} ...: {total} rows in all, expected {MOST_ROWS} at most")
    classes = _class_names(opened[shards[0]].schema_arrow, kind, shards[0])
    labels = np.concatenate([_read_labels(file, shard, kind) for file, shard in opened.items()])
    missing = [classes[label] for label in sorted(set(range(kind.classes)) - set(labels.tolist()))]
    if missing:
        raise DataError(f"{shards[0]} ...: no {title} image of {', '.join(missing)}; fetch again")
    images = (image for file, shard in opened.items() for image in _read_bytes(file, shard))
    return Decoded(decode_all(images, len(labels), (SIDE, SIDE), title), labels, classes)


def _open_shard(file: Path, kind: _Kind) -> pq.ParquetFile:
    with _reading(file):
        # Not read ahead: nothing is taken in before it is checked.
        shard = pq.ParquetFile(file, pre_buffer=False)
        schema = shard.schema_arrow
        rows, largest = _claimed_size(shard)
    image, label = (schema.get_field_index(name) for name in ("img", kind.label))
    if image < 0 or not _holds_bytes(schema.types[image]):
        raise DataError(f"{file}: needs a column img of struct{{bytes, path}}, has {schema.names}")
    if label < 0 or not pa.types.is_integer(schema.types[label]):
        raise DataError(f"{file}: needs an integer column {kind.label}, has {schema.names}")
    if not 0 < rows <= MOST_ROWS:
        raise DataError(f"{file}: {rows} rows, expected 1 to {MOST_ROWS}; fetch it again")
    if largest > COLUMN_LIMIT:
        raise DataError(f"{file}: a column of {largest} bytes in one group; write smaller ones")
    return shard


def _holds_bytes(image: pa.DataType) -> bool:
    fields = [image.field(number) for number in range(image.num_fields)]
    return any(f.name == "bytes" and f.type in (pa.binary(), pa.large_binary()) for f in fields)


def _claimed_size(shard: pq.ParquetFile) -> tuple[int, int]:
    """Rows, and bytes of the largest column of a row group, once decompressed."""
    groups = [shard.metadata.row_group(number) for number in range(shard.num_row_groups)]
    sizes = [g.column(n).total_uncompressed_size for g in groups for n in range(g.num_columns)]
    return sum(group.num_rows for group in groups), max(sizes, default=0)


def _class_names(schema: pa.Schema, kind: _Kind, file: Path) -> tuple[str, ...]:
    metadata = schema.metadata or {}
    if b"classes" in metadata:
        names = metadata[b"classes"].decode(errors="replace").split(",")
    else:
        try:  # as the Hub has them
            features = json.loads(shallow(metadata[b"huggingface"]))["info"]["features"]
            names = list(features[kind.label]["names"])
        except (KeyError, TypeError, ValueError):
            names = [f"class {label}" for label in range(kind.classes)]
    if len(names) != kind.classes:
        raise DataError(f"{file}: names {len(names)} classes, {kind.name} has {kind.classes}")
    return tuple(str(name).strip() for name in names)


def _read_labels(file: Path, shard: pq.ParquetFile, kind: _Kind) -> np.ndarray:
    with _reading(file):
        column = shard.read(columns=[kind.label]).column(0)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise DataError(f"{file}, row {row}: no {kind.label}; every row needs one")
        labels = column.cast(pa.int64()).to_numpy()
    check_labels(labels, kind.classes, str(file))
    return labels


def _read_bytes(file: Path, shard: pq.ParquetFile) -> Iterator[tuple[bytes, str]]:
    row = 0
    with _reading(file):
        # However often the largest column repeats one image, a batch of it stays within bounds.
        batch_size = max(1, min(1024, COLUMN_LIMIT // max(_claimed_size(shard)[1], 1)))
        for batch in shard.iter_batches(batch_size, columns=["img.bytes"]):
            for encoded in batch.column(0).flatten()[0]:
                size = len(encoded.as_buffer() or b"")
                if not 0 < size <= ROW_LIMIT:
                    raise DataError(
                        f"{file}, row {row}: img holds {size or 'no'} bytes; every row needs an "
                        f"encoded image of at most {ROW_LIMIT}"
                    )
                yield encoded.as_py(), f"{file}, row {row}"
                row += 1


def _reading(file: Path) -> AbstractContextManager[None]:
    unfit = (pa.ArrowException, OSError)
    return refusal(DataError, f"{file}: not a readable Parquet file", unfit, "fetch it again")


def _read_torchvision(kind: _Kind, request: Request, split: str) -> Decoded:
    from lthlib._torchvision import torchvision  # takes as long to import as torch

    reader = getattr(torchvision.datasets, kind.torchvision)
    root = request.root
    batches = reader.train_list if split == "train" else reader.test_list
    folder = root / reader.base_folder
    files = [folder / name for name in (*dict(batches), reader.meta["filename"])]
    try:
        if request.download and not all(map(os.path.exists, files)):
            reader(root, download=True)
        folder.stat()
        decode = partial(_unpickle, reader, root, split)
        return cached(f"{kind.name}-{split}", files, decode, request.cache)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"no {kind.name}: looked for {root / kind.name}/*.parquet, {root}/*.parquet and "
            f"torchvision's files in {root} ({error}). Give the data root by --data "
            "(a notebook: -p data) or LTHLIB_DATA, or allow the download with download=True"
        ) from error


def _unpickle(reader: Any, root: Path, split: str) -> Decoded:
    # A pickle may call anything. torchvision compares each file with its published MD5 before it
    # unpickles any, and no other file with that MD5 can be made.
    try:
        data = reader(root, train=split == "train")
    except RuntimeError as error:
        raise DataError(
            f"{root / reader.base_folder}: a file is missing or is not the published file; remove "
            "the folder and fetch it again"
        ) from error
    return Decoded(data.data, np.array(data.targets, np.int64), tuple(data.classes))
