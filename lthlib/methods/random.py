"""Random masks: what pruning without any criterion achieves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from lthlib.data import generator
from lthlib.masks import kept_count, random_mask
from lthlib.methods.base import Method, make_ticket
from lthlib.methods.retrain import check_start, load_start
from lthlib.settings import Density, Settings, one_of
from lthlib.tickets import Ticket
from lthlib.training import Trainer

LAYERS = ("global", "parent")


@dataclass(frozen=True)
class RandomSettings(Settings):
    """layers: `global` draws the kept weights over all layers together at `density` in (0, 1];
    `parent` keeps as many in each layer as the parent ticket does, and ignores `density`.
    """

    density: Density = 0.1
    layers: Annotated[str, one_of(LAYERS)] = "global"


def search(trainer: Trainer, settings: RandomSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket, trained from the parent's rewind point under a random mask."""
    assert parent is not None
    shapes = {name: parent.mask[name].shape for name in parent.mask}
    kept: int | dict[str, int] = kept_count(parent.mask.total, settings.density)
    if settings.layers == "parent":
        kept = {name: count for name, (count, _) in parent.mask.layers().items()}
    mask = random_mask(shapes, kept, generator(trainer.seed, "random mask"))
    stop = trainer.steps()
    for _ in trainer.rounds(1):
        start = load_start(trainer, parent, "rewind")
        check_start(start, stop)
        trainer.fit(trainer.masked_step(mask, stop), start=start, stop=stop)
        yield make_ticket(
            trainer, mask, trainer.group("weights"), point="ticket", index=0, judged="retrained",
            rewind_step=parent.rewind_step, target_density=mask.density,
        )  # fmt: skip


METHOD = Method(
    "random",
    "random",
    RandomSettings,
    search,
    lambda settings, steps, start: steps("") - start,
    parent="ticket",
)
