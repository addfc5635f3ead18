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
    """What was spent.

    Passes are counted in images: a batch of b forwarded once is b forward passes.

    Attributes:
        epochs: optimiser steps over steps an epoch.
        images: images drawn.
        forward_passes: images sent forward.
        backward_passes: images sent backward.
        flops: floating-point operations of the dense network, a backward pass counted as two
            forward ones; masks save none.
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
    """What one step reports.

    Attributes:
        loss: mean over the images drawn, a scalar on the device.
        correct: how many of them are predicted correctly, a scalar on the device.
        images: how many it drew.
        forward_passes: images sent forward.
        backward_passes: images sent backward.
    """

    loss: Tensor
    correct: Tensor
    images: int
    forward_passes: int
    backward_passes: int


Step = Callable[..., Outcome]  # step(t, *batches)


class Meter:
    """What steps report, kept on the device by their positions in the epoch, read once an epoch.

    Args:
        length: steps of an epoch.
        device: where steps compute.
        dtype: of losses.
    """

    def __init__(self, length: int, device: torch.device, dtype: torch.dtype):
        self.device = device
        self.losses = torch.zeros(length, dtype=dtype, device=device)
        self.hits = torch.zeros(length, dtype=torch.int64, device=device)
        self.positions = torch.arange(length, device=device)
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.first = 0
        self.steps = self.images = self.forward_passes = self.backward_passes = 0
        self.started = time.perf_counter()

    def note(self, position: int | Tensor, outcome: Outcome) -> None:
        """Keep loss and hits of a step; it is done on the device, and may be recorded.

        Args:
            position: of the step in its epoch, a number or int64 [1].
            outcome: of the step.
        """
        for values, value in ((self.losses, outcome.loss), (self.hits, outcome.correct)):
            if isinstance(position, int):
                values[position] = value
            else:  # assigned by index it would wait for the device where kernels are deterministic
                values.copy_(torch.where(self.positions == position, value, values))

    def count(self, outcome: Outcome, step: int) -> None:
        """Count the passes of a step, replayed or not."""
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
        """The epoch so far.

        Returns:
            Mean `loss`, `train_accuracy` in percent, and `seconds`, since the reset.

        Raises:
            Diverged: a loss is not finite.
        """
        start = self.first % len(self.losses)
        steps = slice(start, start + self.steps)
        losses = self.losses[steps].cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(losses))
        if bad.size:
            raise Diverged(
                f"the loss became NaN or infinite at step {self.first + bad[0]}; a smaller "
                "learning rate may help"
            )
        return {
            # One after another, as published records sum them.
            "loss": float(losses.cumsum()[-1]) / self.steps,
            "train_accuracy": 100 * int(self.hits[steps].sum()) / self.images,
            "seconds": time.perf_counter() - self.started,
        }
