"""Small data on disk: Parquet shards in the Hub layout, and folders of class folders."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

CLASSES = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test here reads the user's data root or writes to the user's cache."""
    monkeypatch.delenv("LTHLIB_DATA", raising=False)
    monkeypatch.setenv("LTHLIB_CACHE", str(tmp_path / "cache"))


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def pixels_of(row: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture
def write_shard() -> Callable[..., Path]:
    """write_shard(path, labels, images=None, ...): image i shows pixels_of(i) unless given."""

    def write(
        path: Path,
        labels: list[int | None],
        images: dict[int, bytes | None] | None = None,
        *,
        image_column: str = "img",
        label_column: str = "label",
        metadata: dict[str, str] | None = None,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = [
            (images or {}).get(row, encode(pixels_of(row), ("PNG", "WEBP")[row % 2]))
            for row in range(len(labels))
        ]
        table = pa.table(
            {
                image_column: pa.array(
                    [{"bytes": content, "path": None} for content in encoded],
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                ),
                label_column: pa.array(labels, pa.int64()),
            }
        )
        names = {"classes": CLASSES} if metadata is None else metadata
        pq.write_table(table.replace_schema_metadata(names), path)
        return path

    return write


@pytest.fixture
def cifar_root(tmp_path: Path, write_shard: Callable[..., Path]) -> Path:
    """A data root with cifar10: 20 training images in two shards, 10 test images."""
    folder = tmp_path / "data" / "cifar10"
    write_shard(folder / "train-00000-of-00002.parquet", [*range(10)])
    write_shard(folder / "train-00001-of-00002.parquet", [9 - row for row in range(10)])
    write_shard(folder / "test-00000-of-00001.parquet", [*range(10)])
    return tmp_path / "data"


@pytest.fixture
def write_imagenet(tmp_path: Path) -> Callable[[int], Path]:
    """write_imagenet(classes): generated pictures in ImageNet's layout, two sizes, one JPEG a class
    under train and the first three classes under val; returns the folder with train and val."""

    def write(classes: int) -> Path:
        pictures = [encode(pixels_of(row, side), "JPEG") for row, side in enumerate((20, 300))]
        root = tmp_path / "data" / "imagenet"
        for part, count in (("train", classes), ("val", 3)):
            for row in range(count):
                name = f"n{1440764 + row:08d}"
                file = root / part / name / f"{name}_{row}.JPEG"
                file.parent.mkdir(parents=True)
                file.write_bytes(pictures[row % 2])
        return root

    return write


@pytest.fixture
def folder_root(tmp_path: Path) -> Path:
    """Two classes of 8 x 8 images: six each under train, three each under val."""
    for part, count in (("train", 6), ("val", 3)):
        for label, name in enumerate(("ant", "bee")):
            for row in range(count):
                file = tmp_path / "pictures" / part / name / f"{row}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encode(pixels_of(100 * label + row, side=8)))
    return tmp_path / "pictures"
