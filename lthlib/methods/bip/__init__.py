"""Bi-level pruning: the paper's alternation, and that of its released code."""

from collections.abc import Callable, Iterator
from typing import Any

from lthlib.errors import MaskError
from lthlib.masks import Mask, pack, unpack
from lthlib.methods.base import Method, make_ticket
from lthlib.methods.bip.paper import DEPARTURES, Alternation, BiPSettings, clip_norm, upper_gradient
from lthlib.methods.bip.release import ReleasedAlternation, batchnorm_names
from lthlib.methods.retrain import load_start
from lthlib.tickets import Ticket
from lthlib.training import Trainer


def search(trainer: Trainer, settings: BiPSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket, judged as found: m * theta at the end, from the trained dense parent."""
    assert parent is not None and parent.weights is not None
    steps = trainer.steps(settings.length)
    if trainer.round == 0:
        load_start(trainer, parent, "own")
    kind = ReleasedAlternation if settings.departures else Alternation
    alternation = kind(trainer, settings, steps)
    masks = trainer.group("masks")
    trainer.keep("earlier_masks", {name: pack(mask) for name, mask in masks.items()})
    trainer.observe = _make_readout(trainer, steps)
    lower = tuple(f"lower-{i}" for i in range(settings.lower_steps))
    for _ in trainer.rounds(1):
        trainer.fit(alternation, stop=steps, streams=(*lower, "upper"))
        yield make_ticket(trainer, Mask(masks), target_density=settings.density)


def _make_readout(trainer: Trainer, steps: int) -> Callable[[int], dict[str, Any]]:
    """Density of the mask, and its overlap with the mask of one epoch before."""
    masks, earlier = trainer.group("masks"), trainer.group("earlier_masks")

    def observe(step: int) -> dict[str, Any]:
        mask = Mask(masks).to("cpu")
        if mask.kept == 0:  # on a GPU, where the ranking does not look for them
            raise MaskError("the scores hold NaN; a smaller upper_learning_rate may help")
        before = Mask({n: unpack(earlier[n].cpu(), kept.shape) for n, kept in mask.items()})
        if (step + 1) % trainer.steps_per_epoch == 0 or step + 1 == steps:
            trainer.load("earlier_masks", {name: pack(kept) for name, kept in mask.items()})
        return {"density": mask.density, "overlap": mask.overlap(before)}

    return observe


def _work(settings: BiPSettings, steps: Callable[[str], int], start: int) -> int:
    passes = settings.lower_steps + 1 + ("squared" in settings.departures)
    return passes * steps(settings.length)


METHOD = Method("bip", "BiP", BiPSettings, search, _work, version=2, parent="dense")
