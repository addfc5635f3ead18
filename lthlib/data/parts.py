"""A data set and its parts: tensors that live on the device, or files that stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lthlib.data.items import read_all, rows_of, tensors_of
from lthlib.data.settings import DataSettings
from lthlib.data.splits import split_indices
from lthlib.data.streaming import StreamingPart
from lthlib.errors import ConfigError, DataError
from lthlib.settings import Field, Seed, between, coerce

_Classes = Annotated[int, between(0, 1_000_000)]
_Fraction = Annotated[float, Field("0 or more, below 1", lambda value: 0 <= value < 1)]


@dataclass(frozen=True, eq=False, repr=False)
class Tensors:
    """Inputs of any type and shape held in memory, with their labels; never augmented.

    Attributes:
        storage: [m, ...], integers or floats, which may be memory-mapped; or a tuple or mapping of
            such tensors, which a network takes together.
        labels: int64 [n], class of each input; or targets [n, ...] of any type.
        rows: int64 [n], the rows of `storage` that belong to this part; None takes all, m = n.

    Raises:
        DataError: the shapes or types do not fit together, or a row holds what is no number of
            float32, such as NaN.
    """

    storage: Any
    labels: Tensor
    rows: Tensor | None = None
    _copies: dict[torch.device, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (tensors := tree_leaves(self.storage)):
            raise DataError("inputs are none; expected at least one tensor")
        for tensor in tensors:
            if tensor.dtype.is_complex or (tensor is self.storage and tensor.dtype == torch.bool):
                raise DataError(f"inputs must be integers or floats, not {tensor.dtype}")
            inputs = tensor.shape[:1] if self.rows is None else self.rows.shape
            if not inputs or inputs != self.labels.shape[:1]:
                count = len(self.labels) if self.labels.ndim else 1
                raise DataError(f"{list(inputs)} inputs, but {count} labels")
            if self.rows is None and tensor.is_floating_point():
                _check_finite(tensor)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<{len(self)} inputs of shape {self.shape}>"

    @property
    def inputs(self) -> Any:
        """The inputs of this part, [n, ...], which is `storage` itself, or a copy of its rows."""
        return self.storage if self.rows is None else rows_of(self.storage, self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input as a network sees it; a tuple or mapping of them as of the inputs."""
        shape: tuple[int, ...] = tree_map(lambda tensor: tuple(tensor.shape[1:]), self.storage)
        return shape

    @property
    def numbers(self) -> int:
        """How many numbers one input has."""
        return sum(math.prod(tensor.shape[1:]) for tensor in tree_leaves(self.storage))

    def select(self, rows: Tensor) -> Tensors:
        """The part that holds these rows (int64 [k]) of this one, sharing its storage."""
        chosen = rows if self.rows is None else self.rows[rows]
        return replace(self, labels=self.labels[rows], rows=chosen)

    def gather(self, rows: Tensor) -> Any:
        """Inputs [k, ...] of these rows (int64 [k]), on the device of `rows`.

        Away from the CPU, the part is copied to that device once and stays there.
        """
        device = rows.device
        if device.type == "cpu":
            return rows_of(self.storage, rows if self.rows is None else self.rows[rows])
        if device not in self._copies:
            self._copies[device] = tree_map(lambda tensor: tensor.to(device), self.inputs)
        return rows_of(self._copies[device], rows)


class Images(Tensors):
    """Decoded images with their labels: made as `Tensors` are, of one tensor.

    Raises:
        DataError: `storage` is not uint8 [m, height, width, channels]; and all that `Tensors`
            raise.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.storage.dtype != torch.uint8 or self.storage.ndim != 4:
            raise DataError(
                "images must be uint8 [n, height, width, channels], "
                f"not {self.storage.dtype} of shape {list(self.storage.shape)}"
            )

    @property
    def images(self) -> Tensor:
        """The images of this part, uint8 [n, height, width, channels]."""
        return self.inputs

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        height, width, channels = self.storage.shape[1:]
        return (channels, height, width)


Part = Tensors | StreamingPart


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set in three parts; the validation part may be empty.

    Attributes:
        name: what figures and records call it.
        classes: class names in label order; none where targets are no classes.
        train: the part that is trained on.
        validation: the part by which is chosen.
        test: the part by which is judged.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part
    test: Part

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one input, which is (channels, height, width) for images."""
        return self.train.shape

    def __repr__(self) -> str:
        return f"<{self.describe()}>"

    def describe(self) -> str:
        """One line: name, classes, shape, and how many inputs each part holds."""
        single = isinstance(self.train, StreamingPart) or isinstance(self.train.storage, Tensor)
        shape = " x ".join(map(str, self.image_shape)) or "scalar" if single else self.image_shape
        return (
            f"{self.name}: {self.num_classes or 'no'} classes, {shape}, {len(self.train)} "
            f"training, {len(self.validation)} validation and {len(self.test)} test inputs"
        )

    @classmethod
    def split(
        cls, name: str, classes: tuple[str, ...], pool: Part, test: Part, settings: DataSettings
    ) -> Dataset:
        """A data set whose validation part is taken from all training images, as the settings say.

        Args:
            name: what figures and records call it.
            classes: class names in label order.
            pool: all training images.
            test: the test part.
            settings: how many training images are used, and how many of them for validation.

        Returns:
            The data set; its three parts have no image in common if `pool` and `test` have none.

        Raises:
            ConfigError: the settings ask for more images than there are.
        """
        count = settings.train_images or len(pool)
        if count > len(pool):
            raise ConfigError(f"train_images is {count}, but there are only {len(pool)}")
        labels = pool.labels[:count]
        train, held_out = split_indices(labels, settings.validation_images, settings.split_seed)
        return cls(name, classes, pool.select(train), pool.select(held_out), test)

    @classmethod
    def from_tensors(
        cls,
        inputs: Any,
        labels: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        test: tuple[Any, Any] | None = None,
        validation_fraction: float = 0.1,
        split_seed: int = 0,
        num_classes: int | None = None,
    ) -> Dataset:
        """A data set of tensors or arrays at hand: normalised images, token ids, features.

        Args:
            inputs: [n, ...], floats or integers, used as they are; a network that takes several
                inputs gets a tuple of such, or a mapping from the names of its arguments.
            labels: [n], integer classes from 0; or, for a loss of one's own, targets [n, ...] of
                any type.
            validation: (inputs, labels) of the validation part. Without it, a share of the inputs
                is set aside, balanced by class.
            test: (inputs, labels) of the test part, which is empty without it.
            validation_fraction: that share, from 0 to below 1.
            split_seed: seed of that split.
            num_classes: number of classes, a million at most; None takes the largest label plus 1,
                0 says that integers are no classes.

        Returns:
            The data set, called `tensors`, its classes by their numbers.

        Raises:
            DataError: lengths, types, shapes or labels do not fit together.
            ConfigError: a number is out of range, or the fraction leaves a class without training
                inputs.
        """
        validation_fraction = coerce(validation_fraction, _Fraction, "validation_fraction")
        split_seed = coerce(split_seed, Seed, "split_seed")
        num_classes = coerce(num_classes, _Classes | None, "num_classes")
        train = _tensors("training", (inputs, labels))
        if not len(train):
            raise DataError("there are no training inputs; give at least one")
        kind = train.labels.dtype, train.labels.shape[1:]
        if kind != (torch.int64, ()):
            num_classes = 0
        elif num_classes is None:
            largest = int(train.labels.max())
            num_classes = coerce(max(1, largest + 1), _Classes, "the largest label plus 1")
        empty = train.select(torch.empty(0, dtype=torch.int64))
        held_out = {"test": _tensors("test", test) if test is not None else empty}
        if validation is not None:
            held_out["validation"] = _tensors("validation", validation)
        for name, part in {"training": train, **held_out}.items():
            if (part.labels.dtype, part.labels.shape[1:]) != kind:
                raise DataError(
                    f"{name} labels are {part.labels.dtype} of shape {list(part.labels.shape)}, "
                    f"training {train.labels.dtype} of shape {list(train.labels.shape)}"
                )
            if num_classes:
                where = f"{name} labels (num_classes=0 if they are no classes)"
                check_labels(part.labels.numpy(), num_classes, where)
            if part.shape != train.shape:
                raise DataError(f"{name} inputs have shape {part.shape}, training {train.shape}")
        if validation is None:
            count = round(validation_fraction * len(train))
            labels = train.labels if num_classes else torch.zeros(len(train), dtype=torch.int64)
            train_rows, validation_rows = split_indices(labels, count, split_seed)
            held_out["validation"] = train.select(validation_rows)
            train = train.select(train_rows)
        classes = tuple(str(label) for label in range(num_classes))
        return cls("tensors", classes, train, **held_out)

    @classmethod
    def from_torch(
        cls, train: Any, *, validation: Any = None, test: Any = None, **options: Any
    ) -> Dataset:
        """A data set of map-style torch ones, each read once and held in memory.

        Args:
            train: with a length, and by index (input, target), (input, input, target) and so on, or
                a mapping in which the target is called as in `TARGETS`; of tensors, arrays or
                numbers.
            validation: the validation part, as `train`; without it, a share of the training items
                is set aside.
            test: the test part, as `train`; empty without it.
            **options: `validation_fraction`, `split_seed` and `num_classes`, as `from_tensors`
                takes them.

        Returns:
            The data set, called `tensors`.

        Raises:
            DataError: a part is no such data set, or its items do not fit together.
            ConfigError: as `from_tensors` raises it.
        """
        held_out = {"validation": validation, "test": test}
        parts: dict[str, Any] = {
            name: read_all(part, name) for name, part in held_out.items() if part is not None
        }
        inputs, labels = read_all(train)
        return cls.from_tensors(inputs, labels, **parts, **options)


@dataclass(frozen=True)
class Request:
    """What a reader of image files is asked for.

    Attributes:
        root: data root.
        settings: which data set, and how to split and augment it.
        cache: see `cache_folder`.
        memory_limit: bytes of decoded images beyond which they stream.
        download: let torchvision fetch its archive into `root` if nothing is there.
    """

    root: Path
    settings: DataSettings
    cache: str | Path | None
    memory_limit: int
    download: bool


def _check_finite(inputs: Tensor) -> None:
    rows = 1024  # at a time, because what is compared takes memory too
    for start, block in zip(range(0, len(inputs), rows), inputs.split(rows), strict=False):
        finite = block.float().isfinite()
        if not finite.all():
            row, *_ = (~finite).nonzero()[0].tolist()
            raise DataError(
                f"inputs, row {start + row}: a value that is not finite in float32 "
                f"({float(block[~finite][0])}); repair the row, or leave it out"
            )


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Refuse labels that are no classes.

    Args:
        labels: integers [n].
        classes: their number.
        where: how an error names the labels.

    Raises:
        DataError: a label is not in 0 ... classes - 1; names the first such row.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        row = wrong[0]
        raise DataError(f"{where}, row {row}: label {labels[row]}, expected 0 to {classes - 1}")


def _tensors(name: str, pair: Any) -> Tensors:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise DataError(f"{name} is a {type(pair).__name__}; expected a pair (inputs, labels)")
    inputs, labels = tensors_of(pair[0], f"{name} inputs"), tensors_of(pair[1], f"{name} labels")
    if not isinstance(labels, Tensor):
        raise DataError(f"{name} labels are a {type(labels).__name__}; expected one tensor")
    if not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool):
        labels = labels.to(torch.int64)
    try:
        return Tensors(inputs, labels)
    except DataError as error:
        raise DataError(f"{name} {error}") from None
