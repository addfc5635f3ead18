"""Random masks: what pruning without any criterion achieves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch

from lthlib.data import generator
from lthlib.methods.base import Method
from lthlib.methods.retrain import train_from
from lthlib.settings import Density, Settings, one_of
from lthlib.tickets import Ticket
from lthlib.training import Trainer

LAYERS = ("global", "parent")


@dataclass(frozen=True)
class RandomSettings(Settings):
    """Settings of random masks.

    Attributes:
        density: kept fraction in (0, 1].
        layers: `global` draws the kept weights over all layers together; `parent` keeps as many in
            each layer as the parent ticket does, and ignores the density.
    """

    density: Density = 0.1
    layers: Annotated[str, one_of(LAYERS)] = "global"


def search(trainer: Trainer, settings: RandomSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket, trained from the parent's rewind point under a random mask."""
    assert parent is not None
    draw = generator(trainer.seed, "random mask")
    if settings.layers == "parent":
        mask = parent.mask.shuffled(draw)
    else:
        scores = {n: torch.rand(kept.shape, generator=draw) for n, kept in parent.mask.items()}
        mask = trainer.select(scores, settings.density)
    return train_from(trainer, parent, mask, mask.density)


def _work(settings: RandomSettings, steps: Callable[[str], int], start: int) -> int:
    return steps("") - start


METHOD = Method("random", "random", RandomSettings, search, _work, parent="ticket")
