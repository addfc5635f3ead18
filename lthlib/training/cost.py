"""What a training costs: sums over its steps."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

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


class Meter:
    """Sums over steps, kept on the device and read once an epoch."""

    def __init__(self, device: torch.device):
        self.device = device
        self.reset()

    def reset(self) -> None:
        self.loss = torch.zeros((), device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=self.device)
        self.steps = self.images = self.forward_passes = self.backward_passes = 0
        self.started = time.perf_counter()

    def add(self, outcome: Outcome, step: int) -> None:
        self.loss += outcome.loss
        self.correct += outcome.correct
        bad = ~torch.isfinite(outcome.loss) & (self.first_bad < 0)
        self.first_bad = torch.where(bad, step, self.first_bad)
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
        bad = int(self.first_bad)
        if bad >= 0:
            raise Diverged(
                f"the loss became NaN or infinite at step {bad}; a smaller learning rate may help"
            )
        return {
            "loss": float(self.loss) / self.steps,
            "train_accuracy": 100 * int(self.correct) / self.images,
            "seconds": time.perf_counter() - self.started,
        }
