from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lthlib._torchvision import torchvision
from lthlib.data import (
    Batches,
    Dataset,
    DataSettings,
    EvaluationBatches,
    Images,
    StreamingPart,
    load_dataset,
)
from lthlib.data.streaming import random_box
from lthlib.errors import ConfigError, DataError

SMALL = DataSettings(dataset="folder", validation_images=4, padding=1, flip=True)
STANDARD = DataSettings(dataset="imagenet", validation_images=0, flip=True, image_size=224)
RESIZED = DataSettings(dataset="folder", validation_images=4, flip=True, image_size=6)


def load(root: Path, data: DataSettings = SMALL, memory_limit: int = 2**30) -> Dataset:
    return load_dataset("folder", root, settings=data, memory_limit=memory_limit)


def batches(dataset: Dataset, data: DataSettings, workers: int = 0) -> Batches:
    return Batches(dataset.train, data, 3, seed=0, stream="train", device="cpu", workers=workers)


def resize(file: Path, width: int, height: int) -> None:
    Image.open(file).resize((width, height)).save(file)


def test_small_folders_of_one_size_are_resident(folder_root: Path) -> None:
    dataset = load(folder_root)
    assert isinstance(dataset.train, Images)
    assert dataset.classes == ("ant", "bee")
    assert dataset.describe() == (
        "folder: 2 classes, 3 x 8 x 8, 8 training, 4 validation and 6 test inputs"
    )
    assert torch.bincount(dataset.validation.labels).tolist() == [2, 2]


def test_labels_follow_the_class_folder(folder_root: Path) -> None:
    dataset = load(folder_root)
    assert isinstance(dataset.test, Images)
    for image, label in zip(dataset.test.images, dataset.test.labels.tolist(), strict=True):
        folder = folder_root / "val" / dataset.classes[label]
        pictures = [np.asarray(Image.open(file)) for file in folder.iterdir()]
        assert any(np.array_equal(image.numpy(), pixels) for pixels in pictures)


def test_the_first_training_images_are_of_every_class(folder_root: Path) -> None:
    data = DataSettings(dataset="folder", train_images=6, validation_images=0)
    assert set(load(folder_root, data).train.labels.tolist()) == {0, 1}


def test_beyond_the_memory_limit_the_same_batches_stream(folder_root: Path) -> None:
    resident, streaming = load(folder_root), load(folder_root, memory_limit=10)
    assert isinstance(streaming.train, StreamingPart)
    assert streaming.image_shape == resident.image_shape
    streams = (batches(dataset, SMALL).stream(2) for dataset in (resident, streaming))
    for (images, labels), (streamed, same) in islice(zip(*streams, strict=True), 8):
        assert torch.equal(images, streamed)
        assert torch.equal(labels, same)
        assert streamed.is_contiguous(memory_format=torch.channels_last)
    judged = (
        torch.cat([images for images, _ in EvaluationBatches(d.test, SMALL, 4, device="cpu")])
        for d in (resident, streaming)
    )
    assert torch.equal(*judged)


def test_images_of_all_sizes_stream_through_random_crops(folder_root: Path) -> None:
    resize(folder_root / "train" / "ant" / "0.png", 20, 11)
    dataset = load(folder_root, RESIZED)
    assert dataset.image_shape == (3, 6, 6)
    stream = batches(dataset, RESIZED)
    whole = list(islice(stream.stream(), 9))
    resumed = list(islice(stream.stream(4), 5))
    for (images, labels), (repeated, same) in zip(whole[4:], resumed, strict=True):
        assert images.shape == (len(labels), 3, 6, 6)
        assert torch.equal(images, repeated)
        assert torch.equal(labels, same)


# A worker is a fork of this process; Python 3.12 warns of that wherever threads have run.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_yield_what_one_process_yields(folder_root: Path) -> None:
    dataset = load(folder_root, RESIZED)
    alone = batches(dataset, RESIZED).stream(1)
    helped = batches(dataset, RESIZED, workers=1).stream(1)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for (images, labels), (same, too) in islice(zip(alone, helped, strict=True), 5):
        assert torch.equal(images, same)
        assert torch.equal(labels, too)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_takes_the_centre(folder_root: Path) -> None:
    dataset = load(folder_root, RESIZED)
    part = dataset.test
    assert isinstance(part, StreamingPart)
    ((images, _),) = EvaluationBatches(part, RESIZED, device="cpu")
    transforms = torchvision.transforms
    expected = transforms.Compose(
        [transforms.Resize(7), transforms.CenterCrop(6), transforms.ToTensor()]
    )
    for file, image in zip(part.files, images, strict=True):
        assert torch.equal(image, expected(Image.open(file)))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 9))
def test_a_random_box_lies_inside_the_image(height: int, width: int, seed: int) -> None:
    top, left, h, w = random_box(height, width, torch.Generator().manual_seed(seed))
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert min(h, w) >= 1


def test_random_boxes_have_the_areas_and_shapes_of_random_resized_crop() -> None:
    draw = torch.Generator().manual_seed(0)
    boxes = torch.tensor([random_box(400, 400, draw) for _ in range(2000)], dtype=torch.float64)
    torch.manual_seed(0)
    params = torchvision.transforms.RandomResizedCrop.get_params
    image = torch.empty(3, 400, 400)
    theirs = torch.tensor(
        [params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)], dtype=torch.float64
    )
    points = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    for ours, reference in zip(boxes.T, theirs.T, strict=True):
        difference = torch.quantile(ours, points) - torch.quantile(reference, points)
        assert float(difference.abs().max()) < 20


def test_val_and_test_are_validation_and_test(folder_root: Path) -> None:
    shutil.copytree(folder_root / "val", folder_root / "test")
    (folder_root / "test" / "ant" / "0.png").unlink()
    dataset = load(folder_root)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (12, 6, 5)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_either_name_holds_the_test_images(folder_root: Path, name: str) -> None:
    (folder_root / "val").rename(folder_root / name)
    dataset = load(folder_root)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (8, 4, 6)


def test_only_training_images_are_refused(folder_root: Path) -> None:
    shutil.rmtree(folder_root / "val")
    with pytest.raises(DataError, match="no folder val, validation or test"):
        load(folder_root)


def test_a_root_without_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder train"):
        load(tmp_path)


def test_a_class_without_images_is_refused(folder_root: Path) -> None:
    (folder_root / "train" / "cat").mkdir()
    with pytest.raises(DataError, match=r"train/cat: no images"):
        load(folder_root)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_folder_without_images_is_refused(folder_root: Path, part: str) -> None:
    shutil.rmtree(folder_root / part)
    (folder_root / part).mkdir()
    with pytest.raises(DataError, match=f"{part}: no images"):
        load(folder_root)


def test_a_class_that_was_never_trained_is_refused(folder_root: Path) -> None:
    (folder_root / "val" / "bee").rename(folder_root / "val" / "wasp")
    with pytest.raises(DataError, match=r"val/wasp: a class that the training folder does not"):
        load(folder_root)


def test_hidden_files_and_folders_are_left_out(folder_root: Path) -> None:
    before = load(folder_root)
    for part in ("train", "val"):
        for name in (".ipynb_checkpoints/1.png", "ant/.thumbnails/1.png", "ant/._0.png"):
            hidden = folder_root / part / name
            hidden.parent.mkdir(exist_ok=True)
            hidden.write_bytes(b"no image")
    after = load(folder_root)
    assert after.classes == ("ant", "bee")
    assert isinstance(before.train, Images)
    assert isinstance(after.train, Images)
    assert torch.equal(before.train.images, after.train.images)


def listen(path: Path) -> None:
    # From where it lies: the whole path may be longer than a socket's can be.
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def to_itself(path: Path) -> None:
    path.symlink_to(path)


def to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def to_the_folder_above(path: Path) -> None:
    path.symlink_to("..")


def to_another_class(path: Path) -> None:
    path.symlink_to(path.parents[len(path.parts) - path.parts.index("train") - 2] / "ant")


PLACES = ["train/new.png", "train/bee/new.png", "train/bee/below/new"]


@pytest.mark.parametrize("data", [SMALL, RESIZED])
@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("make", [to_itself, to_nowhere, to_the_folder_above, to_another_class])
def test_a_link_that_leads_to_no_file_and_no_folder_of_its_own_is_named(
    folder_root: Path, data: DataSettings, name: str, make: Callable[[Path], None]
) -> None:
    (folder_root / "train/bee/below").mkdir()
    make(folder_root / name)
    with pytest.raises(DataError, match=rf"/{name}: (cannot be read|a link to a folder)"):
        load(folder_root, data)


@pytest.mark.parametrize("data", [SMALL, RESIZED])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("make", [os.mkfifo, listen, to_a_device])
def test_what_is_no_file_and_no_folder_is_left_out_with_one_warning(
    folder_root: Path,
    data: DataSettings,
    place: str,
    make: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = load(folder_root, data).describe()
    (folder_root / "train/bee/below").mkdir()
    make(folder_root / place)
    assert load(folder_root, data).describe() == before
    (record,) = caplog.records
    path = folder_root / place
    assert record.getMessage() == f"{path} is no file and no folder; it is left out"


def test_links_to_files_and_folders_elsewhere_are_followed(
    folder_root: Path, tmp_path: Path
) -> None:
    before = load(folder_root).describe()
    (folder_root / "train" / "ant").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "0.png").rename(tmp_path / "0.png")
    (tmp_path / "elsewhere" / "0.png").symlink_to(tmp_path / "0.png")
    (folder_root / "train" / "ant").symlink_to(tmp_path / "elsewhere")
    assert load(folder_root).describe() == before


@pytest.mark.parametrize("name", [b"\xff\xfe", "é".encode("latin1"), b"two\nlines", b"* [a] "])
def test_a_class_may_have_any_name(folder_root: Path, name: bytes) -> None:
    for part in ("train", "val"):
        (folder_root / part / "bee").rename(folder_root / part / os.fsdecode(name))
    for _ in range(2):  # the second time from the cache
        dataset = load(folder_root)
        assert sorted(dataset.classes) == sorted(["ant", os.fsdecode(name)])
        assert len(dataset.train) == 8
    assert len(load(folder_root, RESIZED).test) == 6


def test_a_folder_that_cannot_be_read_is_named(
    folder_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.scandir

    def denied(folder: Path) -> object:
        if Path(folder).name == "bee":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"train/bee: cannot be read \(Permission denied\)"):
        load(folder_root)


@pytest.mark.parametrize("memory_limit", [10, 2**30])
def test_another_size_without_image_size_names_the_file(
    folder_root: Path, memory_limit: int
) -> None:
    resize(folder_root / "val" / "ant" / "0.png", 9, 8)
    with pytest.raises(DataError, match=r"ant/0\.png: 8 x 9 pixels.*set image_size"):
        test = load(folder_root, memory_limit=memory_limit).test
        list(EvaluationBatches(test, SMALL, device="cpu"))


@pytest.mark.parametrize("data", [SMALL, RESIZED])
def test_a_damaged_image_is_named(folder_root: Path, data: DataSettings) -> None:
    (folder_root / "val" / "bee" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bee/1\.png: not a readable image"):
        list(EvaluationBatches(load(folder_root, data).test, data, device="cpu"))


def test_an_image_beyond_the_pixel_limit_is_not_decoded(
    folder_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(DataError, match=r"png: not a readable image"):
        load(folder_root)


def test_a_few_classes_are_no_imagenet_but_load_as_a_folder(
    write_imagenet: Callable[[int], Path],
) -> None:
    root = write_imagenet(3)
    with pytest.raises(DataError, match=r"train: 3 class folders.*1,000; use dataset: folder"):
        load_dataset("imagenet", root, settings=STANDARD)
    dataset = load(root, STANDARD)
    assert dataset.describe() == (
        "folder: 3 classes, 3 x 224 x 224, 3 training, 0 validation and 3 test inputs"
    )
    images, labels = next(batches(dataset, STANDARD).stream())
    assert images.shape == (3, 3, 224, 224)
    assert sorted(labels.tolist()) == [0, 1, 2]
    ((judged, _),) = EvaluationBatches(dataset.test, STANDARD, device="cpu")
    assert judged.shape == (3, 3, 224, 224)


@pytest.mark.parametrize("above", [False, True])
def test_a_thousand_classes_are_imagenet_in_their_root_or_above_it(
    write_imagenet: Callable[[int], Path], above: bool
) -> None:
    root = write_imagenet(1000)
    dataset = load_dataset("imagenet", root.parent if above else root, settings=STANDARD)
    assert (dataset.name, dataset.num_classes) == ("imagenet", 1000)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1000, 0, 3)
    images, _ = next(batches(dataset, STANDARD).stream())
    assert images.shape == (3, 3, 224, 224)


def test_imagenet_needs_an_image_size_whoever_names_it(tmp_path: Path) -> None:
    for chosen in (None, SMALL):
        with pytest.raises(ConfigError, match=r"set image_size; its standard is 224"):
            load_dataset("imagenet", tmp_path, settings=chosen)


def test_imagenet_without_training_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder train"):
        load_dataset("imagenet", tmp_path, settings=STANDARD)
