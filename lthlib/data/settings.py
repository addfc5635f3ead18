"""What a recipe says about its data: which set, how it is split, augmented and normalised."""

from dataclasses import dataclass
from typing import Annotated

from lthlib.errors import ConfigError
from lthlib.settings import Images, Line, Number, Positive, Seed, Settings, between, filled, one_of

OFFICIAL_VALIDATION = ("test", "halves")


@dataclass(frozen=True)
class DataSettings(Settings):
    """The data part of a configuration.

    Attributes:
        dataset: name of the data set, one of `lthlib.data.SUPPORTED`.
        train_images: use only the first n training images, before the split; None uses all.
        validation_images: images taken from the training set for validation, as many of each
            class; 0 trains on all of them.
        split_seed: seed of that split, independent of every other seed.
        padding: pixels of raw zeros on each side before a random crop of the original size.
        flip: mirror each training image left-right with probability 1/2.
        mean: subtracted from each channel, one number a channel or one for all, in units of
            pixel / 255.
        std: what each channel is then divided by, as `mean`.
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

    dataset: Annotated[Line, filled] = "digits"
    train_images: Images | None = None
    validation_images: Annotated[int, between(0, 1_000_000_000)] = 300
    split_seed: Seed = 0
    padding: Annotated[int, between(0, 1024)] = 0
    flip: bool = False
    mean: Annotated[tuple[Number, ...], filled] = (0.0,)
    std: Annotated[tuple[Positive, ...], filled] = (1.0,)
    image_size: Annotated[int, between(1, 8192)] | None = None
    official_validation: Annotated[str, one_of(OFFICIAL_VALIDATION)] = "test"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size is not None and self.padding:
            raise ConfigError("padding and image_size exclude each other: set one of the two")
        if self.dataset == "imagenet" and self.image_size is None:
            raise ConfigError("imagenet has all sizes: set image_size; its standard is 224")
        if self.dataset == "tiny-imagenet" and self.image_size is not None:
            raise ConfigError(
                f"image_size is {self.image_size}, but tiny-imagenet has 64 x 64 pixels; leave it "
                "out"
            )
        halves = self.official_validation == "halves"
        if halves and self.dataset != "tiny-imagenet":
            raise ConfigError(
                f"official_validation is 'halves', but {self.dataset} has no choice of it: leave "
                "it out, or set dataset to tiny-imagenet"
            )
        if halves and self.validation_images:
            raise ConfigError(
                f"validation_images is {self.validation_images}, but the official ones are halved; "
                "set validation_images to 0"
            )

    def check_channels(self, channels: int) -> None:
        """Raise ConfigError unless mean and std hold one number or one per channel."""
        for field, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ConfigError(
                    f"{field} holds {len(values)} numbers, but the images have {channels} "
                    f"channels: give 1 or {channels}"
                )
