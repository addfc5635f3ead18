from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lthlib import data
from lthlib.data import SUPPORTED, Dataset, DataSettings, Images, Tensors, load_dataset
from lthlib.data.streaming import StreamingPart
from lthlib.errors import ConfigError, DataError

DIGITS = Path(data.__file__).with_name("digits.npz")


def test_digits_need_no_files() -> None:
    digits = load_dataset("digits")
    assert (digits.name, digits.num_classes, digits.image_shape) == ("digits", 10, (1, 8, 8))
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1000, 300, 497)
    assert digits.classes == tuple("0123456789")


def test_data_say_in_a_line_what_they_hold() -> None:
    digits = load_dataset("digits")
    assert repr(digits) == f"<{digits.describe()}>"
    assert repr(digits.train) == "<1000 inputs of shape (1, 8, 8)>"
    assert repr(StreamingPart((Path("a.png"),), torch.zeros(1), None, 8)) == "<1 image files>"


def test_digits_are_scaled_by_exactly_15_and_used_once_each() -> None:
    digits = load_dataset("digits")
    parts = [digits.train, digits.validation, digits.test]
    assert all(isinstance(part, Images) for part in parts)
    ours = torch.cat([part.images.flatten(1) for part in parts])  # type: ignore[union-attr]
    with np.load(DIGITS) as source:
        images = torch.from_numpy(source["images"]).flatten(1).mul(15)
    assert int(ours.max()) == 240
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, images.tolist()))


def test_the_digits_are_those_that_scikit_learn_brings() -> None:
    with np.load(DIGITS) as source:
        images, labels = source["images"], source["labels"]
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    assert (images == theirs.images).all()
    assert (labels == theirs.target).all()


def test_digits_are_split_class_by_class() -> None:
    digits = load_dataset("digits")
    assert torch.bincount(digits.validation.labels).tolist() == [30] * 10
    assert set(torch.bincount(digits.test.labels).tolist()) == {49, 50}


def test_the_test_set_is_the_same_for_every_split() -> None:
    first, second = (
        load_dataset("digits", settings=DataSettings(split_seed=seed, validation_images=count))
        for seed, count in ((0, 300), (1, 100))
    )
    assert isinstance(first.test, Images)
    assert isinstance(second.test, Images)
    assert torch.equal(first.test.images, second.test.images)
    assert (len(second.train), len(second.validation)) == (1200, 100)


def test_more_validation_than_there_is_is_refused() -> None:
    with pytest.raises(ConfigError, match="1300 validation images cannot be taken"):
        load_dataset("digits", settings=DataSettings(validation_images=1300))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match=f"'mnist'; there are {', '.join(SUPPORTED)}"):
        load_dataset("mnist")


def test_a_folder_needs_a_root() -> None:
    with pytest.raises(DataError, match="no data root for folder"):
        load_dataset("folder")


def test_tensors_are_split_by_fraction() -> None:
    inputs, labels = torch.rand(40, 3, 5), torch.arange(40) % 4
    dataset = Dataset.from_tensors(inputs, labels, validation_fraction=0.2)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (32, 8, 0)
    assert (dataset.num_classes, dataset.image_shape) == (4, (3, 5))
    assert torch.bincount(dataset.validation.labels).tolist() == [2, 2, 2, 2]
    assert dataset.describe() == (
        "tensors: 4 classes, 3 x 5, 32 training, 8 validation and 0 test inputs"
    )


def test_tensors_given_for_every_part_are_taken_as_they_are() -> None:
    tokens, labels = torch.arange(12).view(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    dataset = Dataset.from_tensors(
        tokens, labels, validation=(tokens[:2], labels[:2]), test=(tokens[2:4], labels[2:4])
    )
    assert isinstance(dataset.train, Tensors)
    assert isinstance(dataset.test, Tensors)
    assert torch.equal(dataset.train.inputs, tokens)
    assert torch.equal(dataset.test.inputs, tokens[2:4])


def test_tensors_with_few_labels_may_say_how_many_classes_there_are() -> None:
    dataset = Dataset.from_tensors(
        torch.rand(4, 2), torch.tensor([0, 0, 1, 1], dtype=torch.int32), num_classes=7
    )
    assert dataset.num_classes == 7
    assert dataset.train.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("inputs", "labels", "options", "message"),
    [
        (torch.rand(0, 2), torch.zeros(0).long(), {}, "no training inputs"),
        (torch.rand(3, 2), torch.zeros(2).long(), {}, "3.* inputs, but 2 labels"),
        (torch.rand(3, 2), torch.zeros(()).long(), {}, r"\[3\] inputs, but 1 labels"),
        ((), torch.zeros(3).long(), {}, "inputs are none"),
        (torch.rand(3, 2), (torch.zeros(3),), {}, "labels are a tuple; expected one tensor"),
        (
            torch.rand(3, 2),
            torch.zeros(3),
            {"test": (torch.rand(1, 2), torch.zeros(1).long())},
            r"test labels are torch.int64 of shape \[1\], training torch.float32",
        ),
        (torch.ones(3, 2).bool(), torch.zeros(3).long(), {}, "integers or floats"),
        (torch.rand(3, 2), torch.tensor([0, 1, 2]), {"num_classes": 2}, "row 2: label 2"),
        (torch.rand(3, 2), torch.tensor([0, -1, 1]), {"validation_fraction": 0}, "row 1: label -1"),
        (
            torch.rand(3, 2),
            torch.zeros(3).long(),
            {"test": (torch.rand(1, 4), torch.zeros(1).long())},
            r"test inputs have shape \(4,\), training \(2,\)",
        ),
        (
            torch.rand(3, 2),
            torch.zeros(3).long(),
            {"test": (torch.rand(1, 2), torch.ones(1).long())},
            "test labels .*, row 0: label 1",
        ),
        (torch.rand(3, 2), torch.zeros(3).long(), {"test": torch.rand(3, 2)}, "test is a Tensor"),
        (torch.rand(3, 2), torch.zeros(3).long(), {"validation": (1, 2, 3)}, "is a tuple; .* pair"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    inputs: torch.Tensor, labels: torch.Tensor, options: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Dataset.from_tensors(inputs, labels, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"validation_fraction": 1.0},
        {"validation_fraction": "a tenth"},
        {"split_seed": 0.5},
        {"num_classes": "3"},
        {"num_classes": -1},
        {"num_classes": 10**9},
    ],
)
def test_a_number_outside_its_range_is_refused_by_name(options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=rf"^{name} is {value!r}; expected "):
        Dataset.from_tensors(torch.rand(3, 2), torch.zeros(3).long(), **options)


def test_labels_that_would_make_a_billion_classes_are_refused() -> None:
    labels = torch.tensor([0, 1, 10**12])
    with pytest.raises(
        ConfigError, match=r"largest label plus 1 is 1000000000001; .* at most 1,000,000"
    ):
        Dataset.from_tensors(torch.rand(3, 2), labels)
    assert not Dataset.from_tensors(torch.rand(3, 2), labels, num_classes=0).classes


def test_what_load_dataset_cannot_take_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data root 3 is no path"):
        load_dataset("cifar10", 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="settings is 'halves'; expected names with values"):
        load_dataset("digits", settings="halves")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="memory_limit is 'much'; expected int"):
        load_dataset("folder", tmp_path, memory_limit="much")  # type: ignore[arg-type]
    settings: Any = {"validation_images": 0}
    assert len(load_dataset("digits", settings=settings).train) == 1300


def test_images_must_be_bytes_in_rows_of_pixels() -> None:
    with pytest.raises(DataError, match="images must be uint8"):
        Images(torch.rand(2, 3, 3, 1), torch.zeros(2).long())


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (NAN, torch.float32, "nan"),
        (INFINITE, torch.float16, "inf"),
        (-INFINITE, torch.bfloat16, "-inf"),
        (1e39, torch.float64, r"1e\+39"),
    ],
)
@pytest.mark.parametrize("shape", [(2000,), (2000, 3), (2000, 2, 2)])
def test_the_first_row_that_is_not_finite_is_named(
    value: float, dtype: torch.dtype, text: str, shape: tuple[int, ...]
) -> None:
    inputs, labels = torch.zeros(shape, dtype=dtype), torch.arange(2000) % 2
    inputs[1500], inputs[1999] = value, NAN
    with pytest.raises(DataError, match=rf"^inputs, row 1500: .* float32 \({text}\)"):
        Tensors(inputs, labels)
    good = torch.zeros_like(inputs)
    for part in ("validation", "test"):
        with pytest.raises(DataError, match=rf"^{part} inputs, row 1500"):
            Dataset.from_tensors(good, labels, **{part: (inputs, labels)})  # type: ignore[arg-type]
