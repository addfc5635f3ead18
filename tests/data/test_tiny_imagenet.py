"""Tiny-ImageNet in its archive's layout: drawn images under the real names, and what goes wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from companion.generated import write_tiny_imagenet
from companion.studies import ticket_study
from lthlib.data import (
    Batches,
    Dataset,
    DataSettings,
    EvaluationBatches,
    Images,
    StreamingPart,
    load_dataset,
)
from lthlib.errors import DataError
from lthlib.recipes import load_recipe
from lthlib.runs import Machine, Store, execute
from tests.conftest import with_sources

WHOLE = DataSettings("tiny-imagenet", validation_images=200)
HALVES = DataSettings("tiny-imagenet", validation_images=0, official_validation="halves")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 200 classes of two training and three validation images; read only."""
    return write_tiny_imagenet(tmp_path_factory.mktemp("drawn"), train=2, held_out=3)


@pytest.fixture
def root(drawn: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return shutil.copytree(drawn, tmp_path / "data")


def load(root: Path, data: DataSettings = WHOLE, memory_limit: int = 2**30) -> Dataset:
    return load_dataset("tiny-imagenet", root, settings=data, memory_limit=memory_limit)


def images_of(part: object) -> np.ndarray:
    assert isinstance(part, Images)
    return part.images.numpy()


def annotated(root: Path) -> dict[str, str]:
    """Class of each validation image, in the order of the images' names as text."""
    lines = (root / "tiny-imagenet-200/val/val_annotations.txt").read_text().splitlines()
    return dict(sorted(line.split("\t")[:2] for line in lines))


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_it_has_200_classes_of_64_x_64_pixels(drawn: Path) -> None:
    dataset = load(drawn)
    assert dataset.describe() == (
        "tiny-imagenet: 200 classes, 3 x 64 x 64, 200 training, 200 validation and 600 test inputs"
    )
    assert isinstance(dataset.train, Images)
    assert torch.bincount(dataset.train.labels).tolist() == [1] * 200
    assert torch.bincount(dataset.validation.labels).tolist() == [1] * 200


def test_classes_are_in_alphabetical_order_whatever_wnids_says(drawn: Path) -> None:
    listed = (drawn / "tiny-imagenet-200/wnids.txt").read_text().split()
    assert listed != sorted(listed)
    assert load(drawn).classes == tuple(sorted(listed))


def test_training_labels_follow_the_class_folder(drawn: Path) -> None:
    dataset = load(drawn, DataSettings("tiny-imagenet", validation_images=0))
    assert sorted(dataset.train.labels.tolist()) == sorted([*range(200)] * 2)
    for row in (0, 1, 199, 399):
        name = dataset.classes[int(dataset.train.labels[row])]
        files = (drawn / "tiny-imagenet-200/train" / name / "images").iterdir()
        image = images_of(dataset.train)[row]
        assert any(np.array_equal(image, pixels(file)) for file in files)


def test_test_labels_follow_the_annotations(drawn: Path) -> None:
    dataset = load(drawn)
    classes = annotated(drawn)
    assert [dataset.classes[label] for label in dataset.test.labels.tolist()] == [*classes.values()]
    for image, name in zip(images_of(dataset.test), classes, strict=True):
        assert np.array_equal(image, pixels(drawn / "tiny-imagenet-200/val/images" / name))


def test_halves_judge_on_the_second_half_of_each_class_by_name(drawn: Path) -> None:
    dataset = load(drawn, HALVES)
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [400, 200, 400]
    class_of = annotated(drawn)
    of_class: dict[str, list[str]] = {}
    for name, kind in class_of.items():
        of_class.setdefault(kind, []).append(name)
    # Of three images, the first is for validation. Both parts keep the order of the names.
    expected = {
        "validation": sorted(names[0] for names in of_class.values()),
        "test": sorted(name for names in of_class.values() for name in names[1:]),
    }
    for part, names in expected.items():
        held = getattr(dataset, part)
        assert [dataset.classes[label] for label in held.labels] == [class_of[n] for n in names]
        for image, name in zip(images_of(held), names, strict=True):
            assert np.array_equal(image, pixels(drawn / "tiny-imagenet-200/val/images" / name))


def test_the_first_training_images_are_of_many_classes(drawn: Path) -> None:
    data = DataSettings("tiny-imagenet", train_images=100, validation_images=0)
    train = load(drawn, data).train
    assert len(train) == 100
    assert len(set(train.labels.tolist())) > 60


def test_the_root_may_be_the_unpacked_folder_itself(drawn: Path) -> None:
    assert len(load(drawn / "tiny-imagenet-200").test) == 600


def test_the_second_load_decodes_nothing_but_reads_the_annotations_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(root).test.labels
    monkeypatch.setattr("lthlib.data.folders.decode_all", None)
    names = list(annotated(root))
    kinds = annotated(root)
    unlike = next(name for name in names if kinds[name] != kinds[names[0]])
    file = root / "tiny-imagenet-200/val/val_annotations.txt"
    change(file, f"{names[0]}\t{kinds[names[0]]}", f"{names[0]}\t{kinds[unlike]}")
    after = load(root).test.labels
    assert (before != after).nonzero().tolist() == [[0]]
    assert after[0] == before[names.index(unlike)]


def test_beyond_the_memory_limit_the_same_augmented_batches_stream(drawn: Path) -> None:
    data = DataSettings("tiny-imagenet", validation_images=0, padding=4, flip=True)
    fits = (400 + 600) * 64 * 64 * 3
    resident, streaming = load(drawn, data, fits), load(drawn, data, fits - 1)
    assert isinstance(resident.train, Images)
    assert isinstance(streaming.train, StreamingPart)
    assert streaming.image_shape == resident.image_shape == (3, 64, 64)
    streams = (
        Batches(d.train, data, 8, seed=0, stream="train", device="cpu", workers=0).stream()
        for d in (resident, streaming)
    )
    for (images, labels), (streamed, same) in islice(zip(*streams, strict=True), 3):
        assert images.shape == (8, 3, 64, 64)
        assert torch.equal(images, streamed)
        assert torch.equal(labels, same)
    first, _ = next(iter(EvaluationBatches(streaming.test, data, 50, device="cpu", workers=0)))
    judged = first.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(judged, images_of(resident.test)[:50])


def test_grey_images_have_three_channels(root: Path) -> None:
    file = root / "tiny-imagenet-200/val/images" / next(iter(annotated(root)))
    Image.open(file).convert("L").save(file)
    image = images_of(load(root).test)[0]
    assert image.shape == (64, 64, 3)
    assert np.array_equal(image[..., 0], image[..., 2])


def unlink_wnids(folder: Path) -> None:
    (folder / "wnids.txt").unlink()


def drop_a_class(folder: Path) -> None:
    lines = (folder / "wnids.txt").read_text().splitlines(keepends=True)
    (folder / "wnids.txt").write_text("".join(lines[1:]))


def name_a_class_twice(folder: Path) -> None:
    lines = (folder / "wnids.txt").read_text().splitlines(keepends=True)
    (folder / "wnids.txt").write_text("".join([lines[1], *lines[1:]]))


def write_bytes_that_are_no_text(folder: Path) -> None:
    (folder / "val/val_annotations.txt").write_bytes(b"val_0.JPEG\t\xff\xfe\n")


def remove_training(folder: Path) -> None:
    shutil.rmtree(folder / "train")


def empty_a_class(folder: Path) -> None:
    shutil.rmtree(folder / "train/n99000007/images")
    (folder / "train/n99000007/images").mkdir()


def lose_a_class_folder(folder: Path) -> None:
    shutil.rmtree(folder / "train/n99000007")


def add_a_class_folder(folder: Path) -> None:
    (folder / "train/n00000000").mkdir()


def unlink_annotations(folder: Path) -> None:
    (folder / "val/val_annotations.txt").unlink()


def move_validation_into_class_folders(folder: Path) -> None:
    (folder / "val/images").rename(folder / "val/n99000000")


def unlink_an_image(folder: Path) -> None:
    (folder / "val/images/val_5.JPEG").unlink()


def add_an_image(folder: Path) -> None:
    shutil.copy(folder / "val/images/val_5.JPEG", folder / "val/images/val_600.JPEG")


def name_another_class(folder: Path) -> None:
    file = folder / "val/val_annotations.txt"
    lines = file.read_text().splitlines(keepends=True)
    lines[2] = "val_2.JPEG\tn00000000\t0\t0\t63\t63\n"
    file.write_text("".join(lines))


def name_an_image_twice(folder: Path) -> None:
    file = folder / "val/val_annotations.txt"
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")


def break_a_line(folder: Path) -> None:
    file = folder / "val/val_annotations.txt"
    file.write_text(file.read_text().replace("\t", " "))


def leave_a_class_without_validation(folder: Path) -> None:
    file = folder / "val/val_annotations.txt"
    file.write_text(file.read_text().replace("n99000007", "n99000008"))


def shrink_an_image(folder: Path) -> None:
    file = folder / "val/images/val_5.JPEG"
    Image.open(file).resize((60, 64)).save(file)


def truncate_an_image(folder: Path) -> None:
    file = folder / "train/n99000007/images/n99000007_1.JPEG"
    file.write_bytes(file.read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (unlink_wnids, r"no tiny-imagenet: looked for wnids\.txt.*use dataset: folder"),
        (drop_a_class, r"wnids\.txt: 199 classes in 199 lines.*200.*use dataset: folder"),
        (name_a_class_twice, r"wnids\.txt: 199 classes in 200 lines.*each named once"),
        (write_bytes_that_are_no_text, r"val_annotations\.txt: not readable text"),
        (remove_training, r"train: cannot be read \(No such file .*; .* fetch the data again"),
        (empty_a_class, r"train/n99000007: no images"),
        (lose_a_class_folder, r"train/n99000007: no images"),
        (add_a_class_folder, r"train/n00000000: a class that wnids\.txt does not name"),
        (unlink_annotations, r"val: needs val_annotations\.txt and the folder images"),
        (move_validation_into_class_folders, r"val: needs .*moved the images.*dataset: folder"),
        (unlink_an_image, r"names val_5\.JPEG, which is not in .*val/images; unpack"),
        (add_an_image, r"val_annotations\.txt does not name val_600\.JPEG, which is in"),
        (name_another_class, r"line 3: class 'n00000000', which wnids\.txt does not name"),
        (name_an_image_twice, r"line 601: val_0\.JPEG a second time"),
        (break_a_line, r"line 1: 'val_0\.JPEG n99.*'; expected an image, its class and its box"),
        (leave_a_class_without_validation, r"val_annotations\.txt: no image of n99000007"),
        (shrink_an_image, r"val_5\.JPEG: 64 x 60 pixels"),
        (truncate_an_image, r"n99000007_1\.JPEG: not a readable image"),
    ],
)
def test_what_does_not_fit_is_named(
    root: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(root / "tiny-imagenet-200")
    with pytest.raises(DataError, match=message):
        load(root)


def test_another_folder_is_not_tiny_imagenet(folder_root: Path) -> None:
    with pytest.raises(DataError, match=rf"looked for wnids\.txt in {folder_root}/tiny-imagenet"):
        load(folder_root)


RECIPE = {
    "data": {
        "dataset": "tiny-imagenet",
        "validation_images": 0,
        "official_validation": "halves",
        "padding": 4,
        "flip": True,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "model": {"architecture": "resnet18", "width": 8},
    "training": {"length": "2it", "batch_size": 32},
    "rewind": "1it",
    "study": {"densities": [0.5], "methods": [], "seeds": 1, "dense_seeds": 1},
}


def test_a_recipe_trains_on_it(drawn: Path, tmp_path: Path) -> None:
    recipe: dict[str, object] = {
        "name": "drawn",
        "scale": "embedded",
        "about": "two steps",
        "methods": {},
    }
    recipe |= {key: with_sources(value) for key, value in RECIPE.items()}
    (tmp_path / "drawn.yaml").write_text(yaml.safe_dump(recipe))
    (config,) = ticket_study(load_recipe(tmp_path / "drawn.yaml")).configs
    assert config.data.official_validation == "halves"
    result = execute(config, Store(tmp_path / "store"), Machine("cpu", str(drawn)))
    (record,) = result.records
    assert record["status"] == "ok"
    assert record["cost"]["own"]["backward_passes"] == 2 * 32
    assert record["accuracy"]["validation"] is not None
