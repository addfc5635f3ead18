"""What a training costs: sums over its steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from lthlib.distributed import Ranks
from lthlib.errors import Diverged


@dataclass
class Cost:
    """What was spent. Passes are counted in images: a batch of b forwarded once is b forward
    passes.

    epochs: optimiser steps over steps an epoch. images: images drawn. flops: floating-point
    operations of the dense network, a backward pass counted as two forward ones; masks save none.
    seconds: training alone, no evaluation.
    """

    epochs: float = 0.0
    images: int = 0
    forward_passes: int = 0
    backward_passes: int = 0
    flops: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


@dataclass
class Outcome:
    """What one step reports: mean loss and correct predictions of the `images` it drew, as tensors
    on the device, and its passes."""

    loss: Tensor
    correct: Tensor
    images: int
    forward_passes: int
    backward_passes: int


Step = Callable[..., Outcome]  # step(t, *batches)


class Meter:
    """What steps report: kept on the device, at each step's place in its epoch, and read once an
    epoch.

    length: steps of an epoch. dtype: of losses.
    """

    def __init__(self, length: int, device: torch.device, dtype: torch.dtype):
        self.device = device
        self.losses = torch.zeros(length, dtype=dtype, device=device)
        self.hits = torch.zeros(length, dtype=torch.int64, device=device)
        self.places = torch.arange(length, device=device)
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.first = 0
        self.steps = self.images = self.forward_passes = self.backward_passes = 0
        self.started = time.perf_counter()

    def note(self, place: int | Tensor, outcome: Outcome) -> None:
        """What is done on the device, and may be recorded. place: in the epoch, or int64 [1]."""
        for kept, found in ((self.losses, outcome.loss), (self.hits, outcome.correct)):
            if isinstance(place, int):
                kept[place] = found
            else:  # where kernels are to be deterministic, kept[place] = found waits for the device
                kept.copy_(torch.where(self.places == place, found, kept))

    def count(self, outcome: Outcome, step: int) -> None:
        """What is done for each step, replayed or not."""
        self.first = self.first if self.steps else step
        self.steps += 1
        self.images += outcome.images
        self.forward_passes += outcome.forward_passes
        self.backward_passes += outcome.backward_passes

    def gather(self, ranks: Ranks) -> None:
        """Count the images of all ranks; loss and correct predictions are already those of all."""
        self.images, self.forward_passes, self.backward_passes = ranks.total(
            self.images, self.forward_passes, self.backward_passes
        )

    def read(self) -> dict[str, float]:
        """Mean loss and percent correct since the reset. Raises Diverged for a loss that is not
        finite."""
        start = self.first % len(self.losses)
        places = slice(start, start + self.steps)
        losses = self.losses[places].cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(losses))
        if bad.size:
            raise Diverged(
                f"the loss became NaN or infinite at step {self.first + bad[0]}; a smaller "
                "learning rate may help"
            )
        return {
            # One after another, as published records sum them.
            "loss": float(losses.cumsum()[-1]) / self.steps,
            "train_accuracy": 100 * int(self.hits[places].sum()) / self.images,
            "seconds": time.perf_counter() - self.started,
        }
