"""How a network is trained: lengths, rates, precision."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lthlib.errors import ConfigError, check_choice

SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained. Lengths are text with a unit: `85ep` (epochs) or `500it` (optimiser
    steps).

    precision: of products and convolutions, everything that is kept being in single precision:
    `fp32`, `bf16` (autocast), or `tf32` (10 bits of mantissa, on a GPU; as fp32 elsewhere).
    ranks: processes that share the run, see `lthlib.distributed`; `batch_size` counts the images of
    all. sync_batchnorm: BatchNorm normalises over all ranks, on CUDA.
    """

    length: str = "20ep"
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: str = "cosine"
    milestones: tuple[str, ...] = ()
    warmup: str = "0it"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    precision: str = "fp32"
    ranks: int = 1
    sync_batchnorm: bool = False

    def __post_init__(self) -> None:
        check_choice("training.schedule", self.schedule, SCHEDULES)
        check_choice("training.precision", self.precision, PRECISIONS)
        if self.batch_size < 1:
            raise ConfigError(f"training.batch_size is {self.batch_size}; expected at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(
                f"training.learning_rate is {self.learning_rate}; expected a positive number"
            )
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"training.momentum is {self.momentum}; expected 0 or more, below 1")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(
                f"training.weight_decay is {self.weight_decay}; expected a finite number, 0 or more"
            )
        if self.schedule == "step" and not self.milestones:
            raise ConfigError("training.schedule 'step' needs milestones such as ('56ep', '71ep')")
        if self.ranks < 1:
            raise ConfigError(f"training.ranks is {self.ranks}; expected at least 1")
        if self.sync_batchnorm and self.ranks == 1:
            raise ConfigError("training.sync_batchnorm goes with training.ranks of 2 or more")
        for text in (self.length, self.warmup, *self.milestones):
            steps_of(text, 1)


def steps_of(length: str, steps_per_epoch: int) -> int:
    """`85ep` or `500it` -> optimiser steps. Raises ConfigError for any other form."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)ep|(\d+)it", length)
    if not match:
        raise ConfigError(
            f"length {length!r}; expected epochs such as '85ep' or iterations such as '500it'"
        )
    if match[2]:
        return int(match[2])
    return round(float(match[1]) * steps_per_epoch)


def learning_rate(settings: TrainingSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """Learning rate of optimiser step `step` (from 0) in a training of `steps`.

    cosine: half a period from the full rate towards 0. step: divided by 10 at each milestone. Both
    rise linearly from 1/warmup of their value over `warmup` steps.
    """
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps))
    elif settings.schedule == "step":
        rate *= 0.1 ** sum(step >= steps_of(m, steps_per_epoch) for m in settings.milestones)
    warmup = steps_of(settings.warmup, steps_per_epoch)
    return rate * min(1.0, (step + 1) / warmup) if warmup else rate
