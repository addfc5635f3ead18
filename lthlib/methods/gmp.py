"""Gradual magnitude pruning (Zhu & Gupta, 2017): prune the smallest weights while training, first
fast, then slowly."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch

from lthlib.errors import ConfigError
from lthlib.masks import Mask, kept_count
from lthlib.methods.base import Method, make_ticket, rewind_step
from lthlib.methods.imp import prune_by_magnitude
from lthlib.settings import Density, Length, Settings, between
from lthlib.tickets import Ticket
from lthlib.training import Outcome, Step, Trainer


@dataclass(frozen=True)
class GMPSettings(Settings):
    """Settings of gradual magnitude pruning.

    Attributes:
        density: kept fraction in (0, 1] at the end.
        begin: share of training, in [0, 1), from which weights are pruned.
        end: share of training, in (0, 1], up to which they are.
        every: time between two prunings, such as `100it`, their frequency (Zhu & Gupta, 2017); a
            twentieth of the time in which weights are pruned where that is shorter.
        rewind: k, the point that the ticket can be retrained from, a length from the start.
    """

    density: Density = 0.1
    begin: Annotated[float, between(0, 1)] = 0.2
    end: Annotated[float, between(0, 1)] = 0.8
    every: Length = "100it"
    rewind: Length = "0it"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.begin < self.end:
            raise ConfigError(
                f"gmp.begin is {self.begin} and gmp.end {self.end}; expected 0 <= begin < end <= 1"
            )


def density_at(settings: GMPSettings, step: int, begin: int, end: int) -> float:
    """Kept fraction from a step on.

    Args:
        settings: with d, the density at the end.
        step: of the training, from 0.
        begin: the first step at which weights are pruned.
        end: the last, after `begin`.

    Returns:
        1 before `begin`, d from `end` on, and between them
        d + (1 - d) (1 - (step - begin) / (end - begin))^3.

    Source:
        Zhu & Gupta (2017).
    """
    remaining = min(1.0, max(0.0, 1 - (step - begin) / (end - begin)))
    return settings.density + (1 - settings.density) * remaining**3


def search(trainer: Trainer, settings: GMPSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket, judged as found: of one training, pruned on its way for good."""
    stop = trainer.steps()
    begin, end = round(settings.begin * stop), min(round(settings.end * stop), stop - 1)
    interval = trainer.steps(settings.every)
    if interval > end - begin:
        interval = max(1, (end - begin) // 20)
    if end <= begin or not interval:
        raise ConfigError(
            f"no step lies between steps {begin} and {end}, where weights are pruned; give a "
            "longer training.length, or gmp.every of at least '1it'"
        )
    k = rewind_step(trainer, "gmp.rewind", settings.rewind)
    masks = trainer.keep("masks", Mask.full(trainer.prunable_weights(), trainer.names))
    # One that keeps nothing is refused before training.
    kept_count(Mask(masks).total, settings.density)
    for _ in trainer.rounds(1):
        step = _make_step(trainer, settings, begin, end, interval)
        trainer.fit(step, stop=stop, snapshot_at=k, replays=False)
        yield make_ticket(trainer, Mask(masks), rewind_step=k, target_density=settings.density)


def _make_step(
    trainer: Trainer, settings: GMPSettings, begin: int, end: int, interval: int
) -> Step:
    weights, masks, stop = trainer.prunable_weights(), trainer.group("masks"), trainer.steps()
    masked = trainer.masked_step(Mask(masks), stop)

    def step(t: int, batch: tuple[torch.Tensor, torch.Tensor]) -> Outcome:
        nonlocal masked
        if t == end or (begin <= t < end and (t - begin) % interval == 0):
            mask = Mask(masks)
            count = kept_count(mask.total, density_at(settings, t, begin, end))
            mask = prune_by_magnitude(weights, mask, count)
            trainer.load("masks", mask)
            masked = trainer.masked_step(mask, stop)
        return masked(t, batch)

    return step


METHOD = Method("gmp", "GMP", GMPSettings, search)
