"""One-shot magnitude pruning: prune a trained dense network once, then train what is left."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from lthlib.masks import Structure
from lthlib.methods.base import Method
from lthlib.methods.retrain import STARTS, train_from
from lthlib.settings import Density, OwnLength, Settings, one_of
from lthlib.tickets import Ticket
from lthlib.training import Trainer


@dataclass(frozen=True)
class OMPSettings(Settings):
    """Settings of one-shot magnitude pruning.

    Attributes:
        density: kept fraction in (0, 1].
        start: what training goes on from: `rewind` (the dense run's rewind point and its place in
            the schedule), `own` (the pruned weights themselves, schedule from 0) or `fresh` (new
            initialisation).
        length: of the schedule, by default the recipe's; a longer one matches another method's
            compute.
        structure: `unstructured`, `filter` or `channel`, see `lthlib.masks.select`.
    """

    density: Density = 0.1
    start: Annotated[str, one_of(STARTS)] = "rewind"
    length: OwnLength = ""
    structure: Structure = "unstructured"


def search(trainer: Trainer, settings: OMPSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket of the trained dense parent, judged after training under its mask."""
    assert parent is not None and parent.weights is not None
    magnitudes = {name: parent.weights[name].abs() for name in trainer.names}
    mask = trainer.select(magnitudes, settings.density, settings.structure)
    return train_from(trainer, parent, mask, settings.density, settings.start, settings.length)


METHOD = Method("omp", "OMP", OMPSettings, search, parent="dense")
