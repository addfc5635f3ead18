"""Batches: shuffled, augmented and normalised on the device, the same from wherever one starts."""

import os
from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_map

from lthlib.data.items import rows_of
from lthlib.data.parts import Images, Part
from lthlib.data.settings import DataSettings
from lthlib.data.splits import generator
from lthlib.data.streaming import StreamingPart
from lthlib.errors import ConfigError

Batch = tuple[Any, Tensor]  # inputs, one tensor or more, and targets
# Bytes of inputs that are made at once: small batches are made ahead.
AT_ONCE = 1 << 20


def crop_and_flip(images: Tensor, padding: int, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
    """Pad with raw zeros, crop each image at its own offset, and mirror those that are flipped.

    Args:
        images: uint8 [b, height, width, channels].
        padding: pixels added on each side.
        top: int64 [b], first line of each crop, 0 ... 2 * padding.
        left: int64 [b], first column of each crop, 0 ... 2 * padding.
        flip: bool [b], which crops to mirror left-right.

    Returns:
        uint8 [b, height, width, channels].
    """
    batch, height, width, channels = images.shape
    padded = functional.pad(images, (0, 0, padding, padding, padding, padding))
    across = torch.arange(width, device=images.device)
    columns = left[:, None] + torch.where(flip[:, None], width - 1 - across, across)
    image = torch.arange(batch, device=images.device)[:, None] * (height + 2 * padding)
    lines = image + top[:, None] + torch.arange(height, device=images.device)
    pixels = lines[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    # One gather of whole pixels: three times as fast as indexing image, row and column.
    cropped = padded.view(-1, channels).index_select(0, pixels.view(-1))
    return cropped.view(batch, height, width, channels)


def normalise(images: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (pixel / 255 - mean) / std, as a network takes it.

    Args:
        images: uint8 [b, height, width, channels].
        mean: [channels] or [1], in units of pixel / 255; its type is computed in.
        std: as `mean`, and of its type.
        dtype: floating-point type of the result.

    Returns:
        [b, channels, height, width] in channels_last memory format.
    """
    batch, height, width, channels = images.shape
    # One constant per value of a line: arithmetic over 3 channels at a time does not vectorise.
    line_mean, line_std = (v.expand(width, channels).reshape(-1) for v in (mean, std))
    lines = images.reshape(batch, height, width * channels).to(mean.dtype)
    lines.div_(255).sub_(line_mean).div_(line_std)
    return lines.to(dtype).view(images.shape).permute(0, 3, 1, 2)


class _OnDevice:
    """What training and evaluation share: gathered inputs and their rows become a batch."""

    def __init__(
        self,
        part: Part,
        settings: DataSettings,
        batch_size: int = 1000,
        *,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        workers: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
        self.part, self.settings, self.batch_size = part, settings, batch_size
        self.device, self.dtype, self.workers = torch.device(device), dtype, _worker_count(workers)
        self._rank, self._ranks = share
        wide = torch.promote_types(dtype, torch.float32)
        real_labels = part.labels.is_floating_point()
        self._labels = part.labels.to(self.device, wide if real_labels else None)
        self._are_images = isinstance(part, Images | StreamingPart)
        if self._are_images:
            settings.check_channels(part.shape[0])
        self._mean = torch.tensor(settings.mean, dtype=wide, device=self.device)
        self._std = torch.tensor(settings.std, dtype=wide, device=self.device)

    def _finish(self, inputs: Any, rows: Tensor) -> Batch:
        if self._are_images:
            inputs = normalise(inputs, self._mean, self._std, self.dtype)
        else:
            inputs = tree_map(lambda x: x.to(self.dtype if x.is_floating_point() else None), inputs)
        return inputs, self._labels[rows]


class Batches(_OnDevice):
    """Endless training batches, addressed by their global step.

    The permutation and the augmentation of an epoch are drawn on the CPU from
    generator(seed, stream, epoch), so that every device and every resumed run sees the same. Ranks
    that share a run draw the same too, and each takes, and reads, its own rows of every batch.

    Args:
        part: training images; plain tensors are shuffled only, whatever the settings say.
        settings: padding, flip and normalisation.
        batch_size: images per batch, of all ranks together; the last one of an epoch may be
            shorter.
        seed: seed of order and augmentation.
        stream: name that tells several streams of one run apart.
        whole: leave out that shorter batch.
        **placement: `device`, where batches are put; `dtype`, floating-point type of the inputs, by
            default float32; `workers`, decoding processes of a streaming part, by default chosen by
            the number of cores; `share`, (rank, ranks): every ranks-th image of a batch from `rank`
            on, by default all.

    Attributes:
        name: the stream's.
        steps_per_epoch: batches of an epoch.
        resident: whether the images lie in memory; others are decoded as they are asked for.

    Raises:
        ConfigError: the part holds no batch, or one with fewer images than ranks, or the constants
            do not fit its channels.
    """

    def __init__(
        self,
        part: Part,
        settings: DataSettings,
        batch_size: int,
        *,
        seed: int,
        stream: str,
        whole: bool = False,
        **placement: Any,
    ) -> None:
        super().__init__(part, settings, batch_size, **placement)
        if not len(part):
            raise ConfigError(f"0 images give no batch of {batch_size}; give at least one")
        self.steps_per_epoch = len(part) // batch_size if whole else -(-len(part) // batch_size)
        smallest = len(part) - (self.steps_per_epoch - 1) * batch_size
        if smallest < self._ranks:
            raise ConfigError(
                f"{len(part)} images in batches of {batch_size} leave {smallest} for the last "
                f"one, and {self._ranks} ranks share it; use another batch_size"
            )
        self.name, self._address = stream, (seed, stream)
        self._padding = settings.padding if self._are_images else 0
        self._augments = self._are_images and (settings.padding > 0 or settings.flip)
        self.resident = not isinstance(part, StreamingPart)
        self._epoch = -1
        home = self.device if self.resident else "cpu"
        self._plan = torch.empty(4, len(part), dtype=torch.int64, device=home)
        self._ready: tuple[range, Batch] | None = None
        self._reader: tuple[int, Iterator[Tensor]] | None = None

    def stream(self, start: int = 0) -> Iterator[Batch]:
        """Yield batches without end, from global step `start` on; see `batch`."""
        return map(self.batch, count(start))

    def batch(self, step: int) -> Batch:
        """The batch of a global step.

        Steps may be asked for in any order; those that follow one another are faster.

        Args:
            step: from 0.

        Returns:
            Inputs [b, ...], of images [b, channels, height, width] in channels_last, and labels
            int64 [b] or targets [b, ...], both on the device; b is this rank's share.

        Raises:
            DataError: a streamed image cannot be decoded.
        """
        if not self.resident:
            return self._read_batch(step)
        if self._ready is None or step not in self._ready[0]:
            self._ready = self._cut_ahead(step)
        steps, (inputs, labels) = self._ready
        full_size = len(range(self._rank, self.batch_size, self._ranks))
        start = (step - steps.start) * full_size
        rows = slice(start, start + self.size(step))
        return rows_of(inputs, rows), labels[rows]

    def size(self, step: int) -> int:
        """Images in the batch of a global step, this rank's share."""
        return len(range(*self._rows(step).indices(len(self.part))))

    def draw(self, epoch: int) -> Tensor:
        """The plan of an epoch, at one place in memory whatever the epoch.

        Args:
            epoch: from 0.

        Returns:
            Row, top and left of the crop, and whether it is flipped (1), of image after image,
            int64 [4, n].
        """
        if epoch != self._epoch:
            self._plan.copy_(self._draw_plan(epoch))
            self._epoch = epoch
        return self._plan

    def cut(self, columns: Tensor) -> Batch:
        """The batch of these columns of a plan, int64 [4, b]. Not for what streams."""
        assert not isinstance(self.part, StreamingPart)
        return self._make_batch(self.part.gather(columns[0]), columns)

    def _rows(self, step: int) -> slice:
        begin = step % self.steps_per_epoch * self.batch_size
        end = min(begin + self.batch_size, len(self.part))
        return slice(begin + self._rank, end, self._ranks)

    def _cut_ahead(self, step: int) -> tuple[range, Batch]:
        """As many batches of an epoch as are made at once, from one step on."""
        assert not isinstance(self.part, StreamingPart)
        plan = self.draw(step // self.steps_per_epoch)
        rows = self._rows(step)
        remaining = self.steps_per_epoch - step % self.steps_per_epoch
        even = self.batch_size % self._ranks == 0  # a rank's images then lie evenly in all batches
        batch_bytes = max(1, self.batch_size * self.part.numbers * self.dtype.itemsize)
        steps = max(1, min(remaining, AT_ONCE // batch_bytes)) if even else 1
        stop = min(rows.stop + (steps - 1) * self.batch_size, len(self.part))
        return range(step, step + steps), self.cut(plan[:, slice(rows.start, stop, rows.step)])

    def _read_batch(self, step: int) -> Batch:
        if self._reader is None or self._reader[0] != step:
            assert isinstance(self.part, StreamingPart)
            self._reader = step, self.part.read(self._keys(step), self._address, self.workers)
        images = next(self._reader[1])
        self._reader = step + 1, self._reader[1]
        columns = self.draw(step // self.steps_per_epoch)[:, self._rows(step)].to(self.device)
        return self._make_batch(images.to(self.device, non_blocking=True), columns)

    def _keys(self, start: int) -> Iterator[tuple[int, Tensor]]:
        # Drawn a second time, because the loader reads ahead of the batches that are asked for.
        epoch, order = -1, torch.empty(0)
        for step in count(start):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self._draw_plan(epoch)[0]
            yield epoch, order[self._rows(step)]

    def _make_batch(self, inputs: Any, columns: Tensor) -> Batch:
        rows, top, left, flip = columns
        if self._augments:
            inputs = crop_and_flip(inputs, self._padding, top, left, flip > 0)
        return self._finish(inputs, rows)

    def _draw_plan(self, epoch: int) -> Tensor:
        rng = generator(*self._address, epoch)
        n = len(self.part)
        order = torch.randperm(n, generator=rng)
        corners = torch.randint(2 * self._padding + 1, (2, n), generator=rng)
        flip = torch.rand(n, generator=rng) < (0.5 if self.settings.flip else 0.0)
        return torch.stack([order, *corners, flip.long()])


class EvaluationBatches(_OnDevice):
    """Every input of a part, or of a rank's share of it, once, in order and without augmentation.

    May be iterated again. It is made as `Batches` are, without seed and stream, by default of 1,000
    inputs, and its batches are as theirs.
    """

    @property
    def images(self) -> int:
        """Number of inputs in all batches."""
        return len(range(self._rank, len(self.part), self._ranks))

    def __len__(self) -> int:
        return -(-self.images // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = torch.arange(len(self.part))[self._rank :: self._ranks]
        pieces = order.to(self.device).split(self.batch_size) if self.images else ()
        if not isinstance(self.part, StreamingPart):
            yield from (self._finish(self.part.gather(rows), rows) for rows in pieces)
            return
        keys = ((0, rows) for rows in order.split(self.batch_size))
        decoded = self.part.read(keys, None, self.workers)
        for rows, images in zip(pieces, decoded, strict=False):
            yield self._finish(images.to(self.device, non_blocking=True), rows)


def _worker_count(workers: int | None) -> int:
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # The ranks that torchrun starts on a host share its cores.
    cores = (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return 0 if cores <= 2 else min(cores - 1, 8)
