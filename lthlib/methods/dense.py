"""The dense network: what every ticket is judged against, and the parent of what starts from it."""

from collections.abc import Iterator
from dataclasses import dataclass

from lthlib.masks import Mask
from lthlib.methods.base import Method, make_ticket, rewind_step
from lthlib.settings import Length, Settings
from lthlib.tickets import Ticket
from lthlib.training import Trainer


@dataclass(frozen=True)
class DenseSettings(Settings):
    """Settings of the dense network.

    Attributes:
        rewind: k, the point kept for children to retrain from, a length from the start (`0it` is
            initialisation).
    """

    rewind: Length = "0it"


def search(trainer: Trainer, settings: DenseSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Train without a mask; yields one ticket of density 1."""
    k = rewind_step(trainer, "dense.rewind", settings.rewind)
    steps = trainer.steps()
    mask = Mask.full(trainer.group("weights"), trainer.names)
    for _ in trainer.rounds(1):
        trainer.fit(trainer.masked_step(mask, steps), stop=steps, snapshot_at=k)
        yield make_ticket(trainer, mask, point="dense", rewind_step=k, target_density=1.0)


METHOD = Method("dense", "dense", DenseSettings, search)
