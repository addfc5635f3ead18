"""CIFAR-10 and CIFAR-100: Parquet shards in the Hub layout, or torchvision's verified files.

torchvision's files are pickles. They are read only when their MD5 sums are the published ones, and
then by an unpickler that makes arrays and plain values: nothing in a file can call anything.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
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
from lthlib.data.pictures import FILE_LIMIT, decode_all
from lthlib.errors import DataError, refusal
from lthlib.files import read_bounded, shallow

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
    total = sum(_claims(shard)[0] for shard in opened.values())
    if total > MOST_ROWS:
        raise DataError(f"{shards[0]} ...: {total} rows in all, expected {MOST_ROWS} at most")
    classes = _class_names(opened[shards[0]].schema_arrow, kind, shards[0])
    labels = np.concatenate([_read_labels(*one, kind) for one in opened.items()])
    missing = [classes[label] for label in sorted(set(range(kind.classes)) - set(labels.tolist()))]
    if missing:
        raise DataError(f"{shards[0]} ...: no {title} image of {', '.join(missing)}; fetch again")
    rows = (row for one in opened.items() for row in _read_bytes(*one))
    return Decoded(decode_all(rows, len(labels), (SIDE, SIDE), title), labels, classes)


def _open_shard(file: Path, kind: _Kind) -> pq.ParquetFile:
    with _reading(file):
        # Not read ahead: nothing is taken in before it is checked.
        shard = pq.ParquetFile(file, pre_buffer=False)
        schema = shard.schema_arrow
        rows, largest = _claims(shard)
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


def _claims(shard: pq.ParquetFile) -> tuple[int, int]:
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
        batch_size = max(1, min(1024, COLUMN_LIMIT // max(_claims(shard)[1], 1)))
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

    root, reader = request.root, getattr(torchvision.datasets, kind.torchvision)
    folder = root / reader.base_folder
    listed = reader.train_list if split == "train" else reader.test_list
    sums = {folder / name: md5 for name, md5 in listed}
    sums[folder / reader.meta["filename"]] = reader.meta["md5"]
    try:
        if request.download and not folder.exists():
            torchvision.datasets.utils.download_and_extract_archive(
                reader.url, str(root), filename=reader.filename, md5=reader.tgz_md5
            )
        folder.stat()
        decode = partial(_decode_batches, sums, reader.meta["key"])
        return cached(f"{kind.name}-{split}", list(sums), decode, request.cache)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"no {kind.name}: looked for {root / kind.name}/*.parquet, {root}/*.parquet and "
            f"torchvision's files in {root} ({error}). Give the data root by --data "
            "(a notebook: -p data) or LTHLIB_DATA, or allow the download with download=True"
        ) from error


def _decode_batches(sums: dict[Path, str], key: str) -> Decoded:
    *batches, meta = (_read_batch(file, md5) for file, md5 in sums.items())
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, SIDE, SIDE)
    labels = [label for b in batches for label in b["labels" if "labels" in b else "fine_labels"]]
    return Decoded(images.transpose(0, 2, 3, 1), np.array(labels), tuple(meta[key]))


def _read_batch(file: Path, md5: str) -> dict[str, Any]:
    encoded = read_bounded(file, FILE_LIMIT)
    if hashlib.md5(encoded, usedforsecurity=False).hexdigest() != md5:
        raise DataError(f"{file}: is not the published file; remove it and fetch it again")
    # Written by Python 2, whose texts are bytes.
    content: dict[str, Any] = _Arrays(io.BytesIO(encoded), encoding="latin1").load()
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
