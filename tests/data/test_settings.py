from __future__ import annotations

import pytest

from lthlib.data import DataSettings
from lthlib.errors import ConfigError


def test_values_are_coerced_to_the_type_of_the_field() -> None:
    settings = DataSettings(mean=[0, 1], std=[1, 2])  # type: ignore[arg-type]
    assert settings == DataSettings(mean=(0.0, 1.0), std=(1.0, 2.0))
    assert hash(settings) == hash(DataSettings(mean=(0.0, 1.0), std=(1.0, 2.0)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dataset", ""),
        ("train_images", 0),
        ("train_images", 2.5),
        ("validation_images", -1),
        ("validation_images", True),
        ("split_seed", "0"),
        ("padding", -1),
        ("flip", 1),
        ("mean", ()),
        ("mean", 0.5),
        ("mean", (float("nan"),)),
        ("mean", ("dark",)),
        ("std", (0.0,)),
        ("std", (-1.0,)),
        ("image_size", 0),
        ("official_validation", "half"),
    ],
)
def test_an_impossible_value_names_its_field(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        DataSettings(**{field: value})  # type: ignore[arg-type]


def test_imagenet_needs_an_image_size() -> None:
    with pytest.raises(ConfigError, match="set image_size; its standard is 224"):
        DataSettings(dataset="imagenet")
    assert DataSettings(dataset="imagenet", image_size=224).image_size == 224


def test_padding_and_image_size_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="padding and image_size"):
        DataSettings(padding=4, image_size=64)


def test_tiny_imagenet_takes_its_images_as_they_are() -> None:
    with pytest.raises(ConfigError, match=r"image_size is 32, .* tiny-imagenet .*leave it out"):
        DataSettings("tiny-imagenet", image_size=32)


def test_halves_are_of_tiny_imagenet_and_leave_the_training_images_alone() -> None:
    with pytest.raises(ConfigError, match="'halves', but cifar10 has no choice"):
        DataSettings("cifar10", official_validation="halves")
    with pytest.raises(
        ConfigError, match=r"validation_images is 300, .* set validation_images to 0"
    ):
        DataSettings("tiny-imagenet", official_validation="halves")
    halves = DataSettings("tiny-imagenet", validation_images=0, official_validation="halves")
    assert halves.official_validation == "halves"
