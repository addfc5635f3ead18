from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lthlib._torchvision import torchvision
from lthlib.data import DataSettings, Images, cifar, load_dataset
from lthlib.errors import ConfigError, DataError
from lthlib.files import remove_all

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
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    total = 2 * sum(int(pixels_of(row).sum()) for row in range(10))
    assert outputs == [f"{total} []\n"] * 2
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
        ([], {}, {}, "0 rows, expected 1 to 1000000"),
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


def test_one_image_repeated_takes_no_memory(
    cifar_root: Path, write_shard: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = cifar_root / "cifar10" / "test-00000-of-00001.parquet"
    write_shard(shard, ALL_TEN * 20, dict.fromkeys(range(200), bytes(1 << 20)))
    assert shard.stat().st_size < 1 << 17  # 200 MB once they are read
    monkeypatch.setattr("lthlib.data.cifar.COLUMN_LIMIT", 4 << 20)
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(DataError, match=r"row 0: img holds 1048576 bytes; .* at most 65536"):
        load(cifar_root)
    assert pa.default_memory_pool().max_memory() < before + (32 << 20)


def test_a_column_beyond_its_limit_is_not_read(
    cifar_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lthlib.data.cifar.COLUMN_LIMIT", 9_999)
    with pytest.raises(
        DataError, match=r"-of-00002\.parquet: a column of \d{5} bytes in one group"
    ):
        load(cifar_root)


def test_rows_are_counted_where_they_are_read_from(
    cifar_root: Path, write_shard: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = cifar_root / "cifar10" / "test-00000-of-00001.parquet"
    write_shard(shard, ALL_TEN * 20, dict.fromkeys(range(200), png()))
    data = shard.read_bytes()
    # The summary, whose length stands at the end, first says 200; it is to say 100.
    summary = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    start = data.index(b"\x16\x90\x03", summary)
    shard.write_bytes(data[:start] + b"\x16\xc8\x01" + data[start + 3 :])
    assert pq.ParquetFile(shard).metadata.num_rows == 100
    monkeypatch.setattr("lthlib.data.cifar.MOST_ROWS", 150)
    with pytest.raises(DataError, match="200 rows, expected 1 to 150"):
        load(cifar_root)


def test_rows_are_bounded_over_all_shards(
    cifar_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lthlib.data.cifar.MOST_ROWS", 19)
    with pytest.raises(DataError, match=r"train-00000.*: 20 rows in all, expected 19 at most"):
        load(cifar_root)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_no_shard(cifar_root: Path, make: Callable[[Path], None]) -> None:
    shard = cifar_root / "cifar10" / "test-00000-of-00001.parquet"
    shard.unlink()
    make(shard)
    with pytest.raises(DataError, match=r"test-00000.*: not a regular file"):
        load(cifar_root)


def test_a_shard_that_is_a_link_to_nowhere_is_named(cifar_root: Path) -> None:
    shard = cifar_root / "cifar10" / "test-00000-of-00001.parquet"
    for target in (shard.with_name("nowhere"), shard):
        shard.unlink()
        shard.symlink_to(target)
        with pytest.raises(DataError, match=r"test-00000.*cannot be read"):
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


def test_without_what_reads_parquet_it_says_what_to_install(
    cifar_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "pa", None)
    with pytest.raises(DataError, match=r"pip install 'lthlib\[parquet\]', or give torchvision's"):
        load_dataset("cifar10", cifar_root)


def test_a_missing_shard_is_missed(cifar_root: Path) -> None:
    (cifar_root / "cifar10" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="one of 2 shards, but there are 1"):
        load(cifar_root)
    (cifar_root / "cifar10" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"no shard train\*\.parquet"):
        load(cifar_root)


def test_no_data_says_where_it_looked_and_how_to_give_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--data \(a notebook: -p data\) or LTHLIB_DATA"):
        load_dataset("cifar10")
    with pytest.raises(DataError, match=r"nowhere does not exist.*-p data\) or LTHLIB_DATA"):
        load_dataset("cifar10", tmp_path / "nowhere")
    with pytest.raises(DataError, match=rf"no cifar10: looked for {tmp_path}.*download=True"):
        load_dataset("cifar10", tmp_path)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """published(name): torchvision's files of ten images in tmp_path / "batches", and its class of
    that name with their sums."""

    def write(name: str) -> Any:
        rows = np.stack([pixels_of(row).transpose(2, 0, 1).reshape(-1) for row in range(10)])
        original = getattr(torchvision.datasets, name)
        label = "labels" if name == "CIFAR10" else "fine_labels"
        contents = {
            "batch_1": {"data": rows[:6], label: ALL_TEN[:6]},
            "batch_2": {"data": rows[6:], label: ALL_TEN[6:]},
            "meta": {original.meta["key"]: [str(n) for n in ALL_TEN]},
        }
        folder = tmp_path / "batches"
        folder.mkdir()
        for file, content in contents.items():
            (folder / file).write_bytes(pickle.dumps(content))
        sums = {file: md5_of(folder / file) for file in contents}
        batches = [[file, sums[file]] for file in ("batch_1", "batch_2")]
        facts = {
            "base_folder": "batches",
            "url": "http://127.0.0.1:9/nothing-listens.tar",
            "filename": "batches.tar",
            "tgz_md5": "0" * 32,
            "train_list": batches,
            "test_list": batches,
            "meta": {**original.meta, "filename": "meta", "md5": sums["meta"]},
        }
        monkeypatch.setattr(torchvision.datasets, name, type(name, (original,), facts))
        return getattr(torchvision.datasets, name)

    return write


def md5_of(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_torchvision_s_files_are_read_where_there_are_no_shards(
    tmp_path: Path, name: str, published: Callable[[str], Any]
) -> None:
    published(name)
    dataset = load_dataset(name.lower(), tmp_path, settings=EVERYTHING)
    assert dataset.test.labels.tolist() == ALL_TEN
    assert dataset.classes == tuple(str(n) for n in ALL_TEN)
    assert dataset.image_shape == (3, 32, 32)
    assert np.array_equal(load(tmp_path, name.lower()).images[7].numpy(), pixels_of(7))


def test_torchvision_s_files_are_decoded_once(
    tmp_path: Path, published: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    described = published("CIFAR10")
    load(tmp_path)
    monkeypatch.setattr(described, "__init__", None)
    assert np.array_equal(load(tmp_path).images[7].numpy(), pixels_of(7))


@pytest.mark.parametrize("file", ["batch_2", "meta"])
def test_a_file_that_is_not_the_published_one_is_not_unpickled(
    tmp_path: Path, file: str, published: Callable[[str], Any]
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "made"),)

    published("CIFAR10")
    (tmp_path / "batches" / file).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match=r"batches: a file .* is not the published file; remove"):
        load(tmp_path)
    assert not (tmp_path / "made").exists()


def test_a_missing_file_of_torchvision_s_is_named(
    tmp_path: Path, published: Callable[[str], Any]
) -> None:
    published("CIFAR10")
    (tmp_path / "batches" / "batch_2").unlink()
    with pytest.raises(DataError, match=r"batch_2: cannot be read: No such file"):
        load(tmp_path)


@pytest.mark.parametrize("missing", ["batches", "batches/batch_2"])
def test_torchvision_fetches_what_is_missing(
    tmp_path: Path, missing: str, published: Callable[[str], Any]
) -> None:
    described = published("CIFAR10")
    described.tgz_md5 = pack(tmp_path)  # which torchvision need not fetch, but has to unpack
    remove_all(tmp_path / missing)
    with pytest.raises(DataError):
        load(tmp_path)
    dataset = load_dataset("cifar10", tmp_path, settings=EVERYTHING, download=True)
    assert dataset.test.labels.tolist() == ALL_TEN


def pack(root: Path) -> str:
    """Pack the folder "batches" and return the archive's sum."""
    with tarfile.open(root / "batches.tar", "w") as archive:
        archive.add(root / "batches", "batches")
    return md5_of(root / "batches.tar")


def test_a_download_that_fails_says_where_data_was_looked_for(
    tmp_path: Path, published: Callable[[str], Any]
) -> None:
    published("CIFAR10")
    remove_all(tmp_path / "batches")
    with pytest.raises(DataError, match=rf"no cifar10: looked for {tmp_path}.*refused"):
        load_dataset("cifar10", tmp_path, download=True)
