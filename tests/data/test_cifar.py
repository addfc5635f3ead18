from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lthlib._torchvision import torchvision
from lthlib.data import DataSettings, Images, load_dataset
from lthlib.data.pictures import open_rgb
from lthlib.errors import ConfigError, DataError

Write = Callable[..., Path]
ALL_TEN = list(range(10))
EVERYTHING = DataSettings(dataset="cifar10", validation_images=0)


def load(root: Path, name: str = "cifar10", data: DataSettings = EVERYTHING) -> Images:
    part = load_dataset(name, root, settings=data).train
    assert isinstance(part, Images)
    return part


def pixels_of(row: int) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def png(side: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def test_shards_are_read_in_order_pixel_by_pixel(cifar_root: Path) -> None:
    dataset = load_dataset("cifar10", cifar_root, settings=EVERYTHING)
    assert dataset.classes[:2] == ("airplane", "automobile")
    assert (dataset.num_classes, dataset.image_shape) == (10, (3, 32, 32))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (20, 0, 10)
    assert dataset.train.labels.tolist() == ALL_TEN + ALL_TEN[::-1]
    assert dataset.describe() == (
        "cifar10: 10 classes, 3 x 32 x 32, 20 training, 0 validation and 10 test inputs"
    )
    images = load(cifar_root).images
    assert images.dtype == torch.uint8
    for row in (0, 1, 13):
        assert np.array_equal(images[row].numpy(), pixels_of(row % 10))


def test_the_shards_may_lie_in_the_root_itself(cifar_root: Path) -> None:
    assert len(load(cifar_root / "cifar10")) == 20


def test_the_root_may_come_from_the_environment(
    cifar_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTHLIB_DATA", str(cifar_root))
    assert len(load_dataset("cifar10", settings=EVERYTHING).train) == 20


def test_validation_is_balanced_and_training_the_rest(cifar_root: Path) -> None:
    data = DataSettings(dataset="cifar10", validation_images=10)
    dataset = load_dataset("cifar10", cifar_root, settings=data)
    assert sorted(dataset.train.labels.tolist()) == ALL_TEN
    assert sorted(dataset.validation.labels.tolist()) == ALL_TEN


def test_the_first_training_images_are_taken_before_the_split(cifar_root: Path) -> None:
    data = DataSettings(dataset="cifar10", train_images=12, validation_images=0)
    assert load(cifar_root, data=data).labels.tolist() == [*ALL_TEN, 9, 8]
    with pytest.raises(ConfigError, match="train_images is 21, but there are only 20"):
        load(cifar_root, data=DataSettings(train_images=21, validation_images=0))


def test_nothing_is_written_to_the_data_root(cifar_root: Path) -> None:
    before = sorted(cifar_root.rglob("*"))
    folders = [cifar_root, cifar_root / "cifar10"]
    for folder in folders:
        folder.chmod(0o555)
    try:
        load(cifar_root)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert sorted(cifar_root.rglob("*")) == before


def test_the_second_load_decodes_nothing(cifar_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(cifar_root)
    monkeypatch.setattr("lthlib.data.cifar.decode_all", None)
    assert np.array_equal(load(cifar_root).images[3].numpy(), pixels_of(3))


def test_two_processes_may_decode_at_once(cifar_root: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from lthlib.data import *; s = DataSettings(validation_images=0);"
        "d = load_dataset('cifar10', sys.argv[1], settings=s);"
        "print(int(d.train.images.long().sum()), verify_cache())"
    )
    command = [sys.executable, "-c", code, str(cifar_root)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    total = 2 * sum(int(pixels_of(row).sum()) for row in range(10))
    assert said == [f"{total} []\n"] * 2
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 2


def test_cifar100_reads_its_fine_label(tmp_path: Path, write_shard: Write) -> None:
    features = {"fine_label": {"names": [f"kind {label}" for label in range(100)]}}
    hub = {"huggingface": json.dumps({"info": {"features": features}})}
    images = dict.fromkeys(range(100), png())
    for split in ("train", "test"):
        write_shard(
            tmp_path / f"{split}.parquet",
            list(range(100)),
            images,
            label_column="fine_label",
            metadata=hub,
        )
    dataset = load_dataset("cifar100", tmp_path, settings=DataSettings(validation_images=0))
    assert dataset.classes[99] == "kind 99"


@pytest.mark.parametrize("metadata", [{}, {"huggingface": "{"}, {"huggingface": "[]"}])
def test_classes_without_names_are_numbered(
    tmp_path: Path, write_shard: Write, metadata: dict[str, str]
) -> None:
    for split in ("train", "test"):
        write_shard(tmp_path / f"{split}.parquet", ALL_TEN, metadata=metadata)
    assert load_dataset("cifar10", tmp_path, settings=EVERYTHING).classes[3] == "class 3"


@pytest.mark.parametrize(
    ("labels", "images", "options", "message"),
    [
        (ALL_TEN, {}, {"image_column": "image"}, r"needs a column img.*\['image', 'label'\]"),
        (ALL_TEN, {}, {"label_column": "fine_label"}, "needs an integer column label"),
        (ALL_TEN, {4: b"no image"}, {}, "row 4: not a readable image"),
        (ALL_TEN, {4: png()[:60]}, {}, "row 4: not a readable image"),
        (ALL_TEN, {4: None}, {}, "row 4: img holds no bytes"),
        (ALL_TEN, {4: png(31)}, {}, "row 4: 31 x 31 pixels, not 32 x 32"),
        ([*ALL_TEN, 10], {}, {}, "row 10: label 10, expected 0 to 9"),
        ([*ALL_TEN, -1], {}, {}, "row 10: label -1, expected 0 to 9"),
        ([*ALL_TEN, None], {}, {}, "row 10: no label"),
        ([0, 1, 2, 3, 5, 6, 8, 9], {}, {}, "no cifar10-train image of deer, horse"),
        ([], {}, {}, "holds no rows"),
        (ALL_TEN, {}, {"metadata": {"classes": "ant,bee"}}, "names 2 classes, cifar10 has 10"),
    ],
)
def test_a_malformed_shard_is_named_with_its_row(
    cifar_root: Path,
    write_shard: Write,
    labels: list[int | None],
    images: dict[int, bytes | None],
    options: dict[str, object],
    message: str,
) -> None:
    shard = cifar_root / "cifar10" / "train-00000-of-00002.parquet"
    shard.with_name("train-00001-of-00002.parquet").unlink()
    alone = shard.rename(shard.with_name("train-00000-of-00001.parquet"))
    write_shard(alone, labels, images, **options)
    with pytest.raises(DataError, match=rf"train-00000-of-00001\.parquet.*{message}"):
        load(cifar_root)


def test_a_truncated_shard_is_named(cifar_root: Path) -> None:
    shard = cifar_root / "cifar10" / "test-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"test-00000.*not a readable Parquet file"):
        load(cifar_root)


def test_a_damaged_page_of_a_shard_is_named(cifar_root: Path) -> None:
    shard = cifar_root / "cifar10" / "test-00000-of-00001.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:4] + b"\xff" * 3000 + content[3004:])
    with pytest.raises(DataError, match="test-00000"):
        load(cifar_root)


def test_a_missing_shard_is_missed(cifar_root: Path) -> None:
    (cifar_root / "cifar10" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="one of 2 shards, but there are 1"):
        load(cifar_root)
    (cifar_root / "cifar10" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"no shard train\*\.parquet"):
        load(cifar_root)


def test_no_data_says_where_it_looked_and_how_to_give_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"LTHLIB_DATA"):
        load_dataset("cifar10")
    with pytest.raises(DataError, match=r"nowhere does not exist.*--data or LTHLIB_DATA"):
        load_dataset("cifar10", tmp_path / "nowhere")
    with pytest.raises(DataError, match=rf"no cifar10: looked for {tmp_path}.*download=True"):
        load_dataset("cifar10", tmp_path)


def test_torchvision_reads_what_is_not_in_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Reader:
        base_folder = "batches"

        def __init__(self, root: str, train: bool, download: bool) -> None:
            asked.append((train, download))
            Path(root, "batches").mkdir(exist_ok=True)
            if not Path(root, "batches", "batch_1").exists():
                Path(root, "batches", "batch_1").write_bytes(b"checked")
            self.data = np.stack([pixels_of(row) for row in range(10)])
            self.targets, self.classes = ALL_TEN, [str(label) for label in ALL_TEN]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Reader)
    dataset = load_dataset("cifar10", tmp_path, settings=EVERYTHING, download=True)
    assert asked == [(True, True), (False, True)]
    assert dataset.test.labels.tolist() == ALL_TEN
    assert dataset.image_shape == (3, 32, 32)

    load(tmp_path)
    asked.clear()
    assert np.array_equal(load(tmp_path).images[3].numpy(), pixels_of(3))
    assert asked == []


@given(st.integers(0, 60), st.integers(1, 255))
@settings(deadline=None, max_examples=60)
def test_a_changed_byte_is_an_image_or_a_data_error(position: int, change: int) -> None:
    content = bytearray(png())
    content[position % len(content)] ^= change
    try:
        assert open_rgb(bytes(content), "row 0").mode == "RGB"
    except DataError as error:
        assert str(error).startswith("row 0: not a readable image")
