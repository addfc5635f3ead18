"""Image files that stay on disk: decoded, cropped and resized batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from lthlib.data.pictures import open_rgb
from lthlib.data.splits import generator


@dataclass(frozen=True, eq=False, repr=False)
class StreamingPart:
    """Image files that stay encoded on disk and are decoded batch by batch, in worker processes.

    Attributes:
        files: path of each of n images.
        labels: int64 [n], class of each image.
        native: (height, width) that every file has, or None where sizes vary.
        image_size: side in pixels to which images are cropped and resized; None keeps `native`.
    """

    files: tuple[Path, ...]
    labels: Tensor
    native: tuple[int, int] | None
    image_size: int | None

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"<{len(self)} image files>"

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of the images as they are yielded."""
        if self.image_size is not None:
            return (3, self.image_size, self.image_size)
        assert self.native is not None
        return (3, *self.native)

    def select(self, rows: Tensor) -> StreamingPart:
        """The part that holds these rows (int64 [k]) of this one."""
        files = tuple(self.files[row] for row in rows.tolist())
        return replace(self, files=files, labels=self.labels[rows])

    def decode(self, row: int, rng: torch.Generator | None) -> np.ndarray:
        """Decode one image.

        Args:
            row: which one, from 0.
            rng: with `image_size`, what RandomResizedCrop (area 8-100 %, aspect 3/4-4/3) is drawn
                from; None takes the centre of the image resized to 256/224 of that size. Without
                `image_size`, nothing is drawn.

        Returns:
            uint8 [height, width, 3].

        Raises:
            DataError: the file cannot be decoded, or has another size than the others.
        """
        file = self.files[row]
        if self.image_size is None:
            return np.array(open_rgb(file, str(file), self.native))
        image = open_rgb(file, str(file))
        size = [self.image_size, self.image_size]
        functional = _transforms()
        if rng is None:
            image = functional.resize(image, round(self.image_size * 256 / 224))
            return np.array(functional.center_crop(image, size))
        box = random_box(image.height, image.width, rng)
        return np.array(functional.resized_crop(image, *box, size))

    def read(
        self, keys: Iterable[tuple[int, Tensor]], address: tuple[int, str] | None, workers: int
    ) -> Iterator[Tensor]:
        """Decode batch after batch.

        Args:
            keys: epoch and rows (int64 [k]) of each batch; may be endless.
            address: (seed, stream) from which each image's crop is drawn; None takes the centre.
            workers: decoding processes; 0 decodes in this one.

        Returns:
            An iterator over batches, uint8 [k, height, width, 3]. It raises DataError where an
            image cannot be decoded.
        """
        if self.image_size is not None:
            _transforms()  # once here, and not in each worker
        loader = DataLoader(
            _BatchReader(self, address),
            batch_size=None,
            sampler=keys,
            num_workers=workers,
            # The loader draws a seed for its workers: not from the global generator.
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )
        return iter(loader)


@cache
def _transforms() -> Any:
    from lthlib._torchvision import torchvision  # takes as long to import as torch

    return torchvision.transforms.functional


class _BatchReader(TorchDataset[Tensor]):
    def __init__(self, part: StreamingPart, address: tuple[int, str] | None) -> None:
        self.part, self.address = part, address

    def __getitem__(self, key: tuple[int, Tensor]) -> Tensor:
        epoch, rows = key
        images = [self.part.decode(row, self._generator(epoch, row)) for row in rows.tolist()]
        return torch.from_numpy(np.stack(images))

    def _generator(self, epoch: int, row: int) -> torch.Generator | None:
        return None if self.address is None else generator(*self.address, epoch, row)


def random_box(height: int, width: int, rng: torch.Generator) -> tuple[int, int, int, int]:
    """Draw RandomResizedCrop's box from an image.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        rng: what is drawn from.

    Returns:
        (top, left, height, width) of the box, in pixels.

    Source:
        torchvision.transforms.RandomResizedCrop.get_params, drawn from a generator of our own.
    """
    for _ in range(10):
        area, aspect = torch.rand(2, generator=rng).tolist()
        pixels = height * width * (0.08 + 0.92 * area)
        ratio = math.exp((2 * aspect - 1) * math.log(4 / 3))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(height - h + 1, (), generator=rng))
            left = int(torch.randint(width - w + 1, (), generator=rng))
            return top, left, h, w
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w
