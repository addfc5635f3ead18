"""What a recipe says about its data: which set, how it is split, augmented and normalised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lthlib.errors import ConfigError, check_choice

OFFICIAL_VALIDATION = ("test", "halves")


@dataclass(frozen=True)
class DataSettings:
    """The data part of a configuration.

    Arguments:
        dataset: name of the data set, one of `lthlib.data.SUPPORTED`.
        train_images: use only the first n training images, before the split; None uses all.
        validation_images: images taken from the training set for validation, as many of each
            class; 0 trains on all of them.
        split_seed: seed of that split, independent of every other seed.
        padding: pixels of raw zeros on each side before a random crop of the original size.
        flip: mirror each training image left-right with probability 1/2.
        mean, std: normalisation constants per channel (or one for all), in units of pixel / 255.
        image_size: `folder` and `imagenet` only; train on RandomResizedCrop(image_size), evaluate
            on the centre. None takes the images at their own size, which must then be the same for
            all; `imagenet` needs a number, its standard being 224.
        official_validation: `tiny-imagenet` only, whose official test images have no labels. `test`
            judges on all official validation images. `halves`, as the BiP release, judges on the
            second half of each class; the first half is the validation part, so that
            `validation_images` is 0.

    Raises:
        ConfigError: a value makes no sense; the message names the field.
    """

    dataset: str = "digits"
    train_images: int | None = None
    validation_images: int = 300
    split_seed: int = 0
    padding: int = 0
    flip: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    image_size: int | None = None
    official_validation: str = "test"

    def __post_init__(self) -> None:
        if not isinstance(self.dataset, str) or not self.dataset:
            raise ConfigError(f"dataset must be the name of a data set, not {self.dataset!r}")
        if not isinstance(self.flip, bool):
            raise ConfigError(f"flip must be true or false, not {self.flip!r}")
        _check_integer("validation_images", self.validation_images, at_least=0)
        _check_integer("split_seed", self.split_seed)
        _check_integer("padding", self.padding, at_least=0)
        if self.train_images is not None:
            _check_integer("train_images", self.train_images, at_least=1)
        if self.image_size is not None:
            _check_integer("image_size", self.image_size, at_least=1)
            if self.padding:
                raise ConfigError(
                    "padding and image_size exclude each other: with image_size the random crop "
                    "is RandomResizedCrop, which has no padding; set one of the two"
                )
        if self.dataset == "imagenet" and self.image_size is None:
            raise ConfigError(
                "imagenet has images of all sizes: set image_size; its standard is 224"
            )
        if self.dataset == "tiny-imagenet" and self.image_size is not None:
            raise ConfigError(
                f"image_size is {self.image_size}, but the images of tiny-imagenet all have 64 x "
                "64 pixels and are taken as they are; leave it out"
            )
        self._check_official_validation()
        object.__setattr__(self, "mean", _numbers("mean", self.mean))
        object.__setattr__(self, "std", _numbers("std", self.std))
        if min(self.std) <= 0:
            raise ConfigError(f"std must hold numbers above 0, not {self.std}")

    def _check_official_validation(self) -> None:
        check_choice("official_validation", self.official_validation, OFFICIAL_VALIDATION)
        if self.official_validation == "test":
            return
        if self.dataset != "tiny-imagenet":
            raise ConfigError(
                f"official_validation is {self.official_validation!r}, but {self.dataset} has no "
                "choice of it: leave it out, or set dataset to tiny-imagenet"
            )
        if self.validation_images:
            raise ConfigError(
                f"validation_images is {self.validation_images}, but with official_validation: "
                "halves the validation part is half of the official validation images; set "
                "validation_images to 0"
            )

    def check_channels(self, channels: int) -> None:
        """Raise ConfigError unless mean and std hold one number or one per channel."""
        for field, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ConfigError(
                    f"{field} holds {len(values)} numbers, but the images have {channels} "
                    f"channels: give 1 or {channels}"
                )


def _check_integer(field: str, value: Any, at_least: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or (at_least is not None and value < at_least):
        bound = "" if at_least is None else f" of at least {at_least}"
        raise ConfigError(f"{field} must be an integer{bound}, not {value!r}")


def _numbers(field: str, values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"{field} must be a list of finite numbers, not {values!r}")
    return numbers
