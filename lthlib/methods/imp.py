"""Iterative magnitude pruning (Frankle & Carbin, 2019), with late rewinding.

Train, prune the smallest remaining weights over all layers together, go back to the weights of step
k, repeat (Frankle et al., 2020, Algorithm 2).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from lthlib.masks import Mask, Structure, top_k_global
from lthlib.methods.base import Method, make_ticket, rewind_step
from lthlib.settings import Count, Length, Settings, Share, one_of
from lthlib.tickets import Ticket
from lthlib.training import Trainer

REWINDING = ("weights", "learning-rate", "none")
OPTIMISER = ("fresh", "restored")


@dataclass(frozen=True)
class IMPSettings(Settings):
    """Settings of iterative magnitude pruning.

    Attributes:
        rounds: trainings after the first, dense one; each yields a ticket.
        fraction: p, the share of the remaining weights pruned a round, in (0, 1).
        rewind: k, the point to go back to, a length from the start.
        rewinding: what goes back: `weights` (with BatchNorm, schedule and data order), the
            `learning-rate` schedule alone (Renda et al., 2020), or `none` (IMP-C of the CS paper:
            weights carry on, the schedule restarts from 0).
        optimiser: momenta after a rewind are `fresh` zeros, as in open_lth, or `restored` from
            step k.
        structure: `unstructured`; or each whole `filter` or `channel` by the norm of their weights,
            the same share of each convolution (see `lthlib.masks.select`).
    """

    rounds: Count = 10
    fraction: Share = 0.2
    rewind: Length = "0it"
    rewinding: Annotated[str, one_of(REWINDING)] = "weights"
    optimiser: Annotated[str, one_of(OPTIMISER)] = "fresh"
    structure: Structure = "unstructured"


def prune_by_magnitude(weights: Mapping[str, Tensor], mask: Mask, count: int) -> Mask:
    """Keep the largest weights by magnitude; what was pruned stays pruned.

    Args:
        weights: by name.
        mask: of the same names and shapes.
        count: how many of the weights that it keeps are to be kept.

    Returns:
        A mask with `count` True, on the CPU.
    """
    scores = {
        name: torch.where(mask[name].cpu(), tensor.detach().cpu().abs(), -1.0)
        for name, tensor in weights.items()
    }
    return top_k_global(scores, count)


def search(trainer: Trainer, settings: IMPSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield the dense network (index 0) and one ticket a round, each after training under its mask.

    It is judged as retrained, or as found where nothing goes back.
    """
    k = rewind_step(trainer, "imp.rewind", settings.rewind, inside=True)
    total = trainer.steps()
    weights = trainer.prunable_weights()
    # A structure that it lacks is refused before training.
    trainer.select(weights, 1.0, settings.structure)
    masks = trainer.keep("masks", trainer.within or Mask.full(weights, trainer.names))
    start = 0 if settings.rewinding == "none" else k
    for r in trainer.rounds(settings.rounds + 1):
        mask = Mask(masks)
        streams = (f"round-{r}",) if r and settings.rewinding == "none" else ("train",)
        step = trainer.masked_step(mask, total)
        if r == 0:
            trainer.fit(step, stop=total, streams=streams, snapshot_at=k)
        else:
            trainer.fit(step, start=start, stop=total, streams=streams)
        target = _density_after(trainer, settings, r)
        judged = "retrained" if r and settings.rewinding != "none" else "found"
        yield make_ticket(
            trainer, mask, point=f"round-{r}", index=r, judged=judged, rewind_step=k,
            target_density=target,
        )  # fmt: skip
        trainer.load("masks", _prune(trainer, mask, settings, r + 1))
        if settings.rewinding == "weights":
            trainer.rewind(settings.optimiser)
        else:
            trainer.zero("momentum")


def go_on(trainer: Trainer, settings: IMPSettings, ticket: Ticket) -> bool:
    """Bring a trainer to the end of a ticket's round.

    Args:
        trainer: before its search.
        settings: of the search.
        ticket: of the same search with fewer rounds.

    Returns:
        False if that takes momenta, which tickets lack.
    """
    if settings.optimiser == "restored" or ticket.weights is None or ticket.rewind is None:
        return False
    trainer.round, trainer.step = ticket.index, trainer.steps()
    trainer.keep("masks", ticket.mask)
    for group in ("weights", "buffers"):
        for name, tensor in trainer.group(group).items():
            tensor.copy_(ticket.weights[name])
            trainer.state[f"rewind/{group}/{name}"] = ticket.rewind[name].to(tensor)
    return True


def _density_after(trainer: Trainer, settings: IMPSettings, r: int) -> float:
    start = trainer.within.density if trainer.within else 1.0
    return start * (1 - settings.fraction) ** r


def _prune(trainer: Trainer, mask: Mask, settings: IMPSettings, r: int) -> Mask:
    """The mask of round r."""
    weights = trainer.prunable_weights()
    density = _density_after(trainer, settings, r)
    if settings.structure == "unstructured":
        return prune_by_magnitude(weights, mask, max(1, round(mask.total * density)))
    magnitudes = {name: weight.detach().abs() for name, weight in weights.items()}
    return trainer.select(magnitudes, density, settings.structure, within=mask)


def _work(settings: IMPSettings, steps: Callable[[str], int], start: int) -> int:
    skipped = 0 if settings.rewinding == "none" else steps(settings.rewind)
    return steps("") + settings.rounds * (steps("") - skipped)


METHOD = Method("imp", "IMP", IMPSettings, search, _work, go_on)
