"""How a network is trained: lengths, rates, precision."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from lthlib.errors import ConfigError
from lthlib.settings import (
    LENGTH,
    Count,
    Images,
    Length,
    Momentum,
    NotNegative,
    Positive,
    Settings,
    coerce,
    one_of,
)

SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("fp32", "tf32", "bf16")
OPTIMISERS = ("sgd", "adamw")


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """How a network is trained.

    Lengths are text with a unit: `85ep` (epochs) or `500it` (optimiser steps).

    Attributes:
        length: of the whole training.
        batch_size: images of a step, those of all ranks.
        learning_rate: its largest value.
        schedule: `cosine` (half a period, down to 0), `step` (divided by 10 at each milestone) or
            `constant`.
        milestones: of schedule `step`, lengths.
        warmup: a length, in which the rate rises linearly.
        momentum: of SGD, in [0, 1).
        nesterov: whether SGD's momentum is Nesterov's.
        weight_decay: added to the gradient by SGD, decoupled for AdamW; biases and BatchNorm too.
        precision: of products and convolutions, everything that is kept being in single precision:
            `fp32`, `bf16` (autocast), or `tf32` (10 bits of mantissa, on a GPU; as fp32 elsewhere).
        ranks: processes that share the run, see `lthlib.distributed`.
        sync_batchnorm: BatchNorm normalises over all ranks, on CUDA.
        optimiser: `sgd`, or `adamw`, whose learning rate is about a hundredth of SGD's. Gates and
            scores that a method trains beside the weights follow SGD, as its paper has it.
        betas: of AdamW, two in [0, 1).
        epsilon: of AdamW.

    Raises:
        ConfigError: a value makes no sense, or does not go with another.
    """

    length: Length = "20ep"
    batch_size: Images = 128
    learning_rate: Positive = 0.1
    schedule: Annotated[str, one_of(SCHEDULES)] = "cosine"
    milestones: tuple[Length, ...] = ()
    warmup: Length = "0it"
    momentum: Momentum = 0.9
    nesterov: bool = True
    weight_decay: NotNegative = 1e-4
    precision: Annotated[str, one_of(PRECISIONS)] = "fp32"
    ranks: Count = 1
    sync_batchnorm: bool = False
    optimiser: Annotated[str, one_of(OPTIMISERS)] = "sgd"
    betas: tuple[Momentum, ...] = (0.9, 0.999)
    epsilon: Positive = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not steps_of(self.length, 1_000_000):
            raise ConfigError(f"training.length is {self.length!r}; expected at least one step")
        if self.schedule == "step" and not self.milestones:
            raise ConfigError("training.schedule 'step' needs milestones such as ('56ep', '71ep')")
        if self.sync_batchnorm and self.ranks == 1:
            raise ConfigError("training.sync_batchnorm goes with training.ranks of 2 or more")
        if len(self.betas) != 2:
            raise ConfigError(f"training.betas is {self.betas}; expected two, such as (0.9, 0.999)")
        if self.optimiser == "adamw" and self.learning_rate > 0.05:
            raise ConfigError(
                f"training.learning_rate is {self.learning_rate}, as SGD takes it; expected at "
                "most 0.05 for adamw, such as 0.001"
            )


@cache  # asked for before each step
def steps_of(length: str, steps_per_epoch: int) -> int:
    """A length in optimiser steps.

    Args:
        length: `85ep` or `500it`.
        steps_per_epoch: optimiser steps of an epoch.

    Returns:
        Steps, rounded.

    Raises:
        ConfigError: the length has another form.
    """
    match = LENGTH.fullmatch(coerce(length, Length, "length"))
    assert match is not None
    if match[2]:
        return int(match[2])
    return round(float(match[1]) * steps_per_epoch)


def learning_rate(settings: TrainingSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """Learning rate of an optimiser step.

    Args:
        settings: with the largest rate, the schedule and its warmup.
        step: from 0.
        steps: of the whole training.
        steps_per_epoch: optimiser steps of an epoch.

    Returns:
        By `cosine` half a period from the full rate towards 0, by `step` the full rate divided by
        10 at each milestone; either rises linearly from 1/warmup of it over `warmup` steps.
    """
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps))
    elif settings.schedule == "step":
        rate *= 0.1 ** sum(step >= steps_of(m, steps_per_epoch) for m in settings.milestones)
    warmup = steps_of(settings.warmup, steps_per_epoch)
    return rate * min(1.0, (step + 1) / warmup) if warmup else rate
