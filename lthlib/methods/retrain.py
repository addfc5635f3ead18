"""Judge a ticket by training it under its mask; controls change its mask or its weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

from lthlib.data import generator
from lthlib.errors import ConfigError, TicketError
from lthlib.masks import Mask
from lthlib.methods.base import Method, make_ticket, rewind_step
from lthlib.settings import OwnLength, OwnRewind, Positive, Settings, one_of
from lthlib.tickets import Ticket
from lthlib.training import Trainer

STARTS = ("rewind", "own", "fresh")
MASKS = ("found", "shuffled")
SCHEDULES = ("continue", "restart")


@dataclass(frozen=True)
class RetrainSettings(Settings):
    """Settings of retraining a ticket.

    Attributes:
        start: weights to train: the ticket's `rewind` point, its `own` (fine-tuning) or a `fresh`
            initialisation.
        mask: as `found`, or `shuffled` within each layer.
        schedule: with `start: rewind`, `continue` from the rewind step, or `restart` from 0 for
            the full length, as the CS release does (main.py:119-123).
        length: of the schedule, by default the recipe's.
        mask_value: of the mask where it keeps; the network uses mask_value * weight. The CS release
            keeps its 1/sigma(s0) here.
        rewind: k, with `start: rewind` another point to start from than the parent's own: the
            network is trained dense up to that step first, as its dense run was.
    """

    start: Annotated[str, one_of(STARTS)] = "rewind"
    mask: Annotated[str, one_of(MASKS)] = "found"
    schedule: Annotated[str, one_of(SCHEDULES)] = "continue"
    length: OwnLength = ""
    mask_value: Positive = 1.0
    rewind: OwnRewind = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start == "own" and self.mask_value != 1:
            raise ConfigError("retrain.mask_value goes with other weights than the ticket's own")
        if self.rewind and self.start != "rewind":
            raise ConfigError("retrain.rewind goes with start: rewind")


def load_start(trainer: Trainer, parent: Ticket, start: str) -> int:
    """Put the starting weights into the state of a run that has not begun.

    A resumed run's state is left alone.

    Args:
        trainer: of the run.
        parent: the ticket to start from.
        start: as in `RetrainSettings`.

    Returns:
        The step of the schedule to begin at.

    Raises:
        TicketError: the parent lacks the weights asked for, or does not fit the network.
    """
    source = {"rewind": parent.rewind, "own": parent.weights, "fresh": {}}[start]
    if source is None:
        raise TicketError(f"ticket {parent.point!r} holds no {start} weights to start from")
    parent.check(trainer.model)
    if trainer.step == 0:
        buffers = trainer.group("buffers")
        trainer.load("weights", {name: t for name, t in source.items() if name not in buffers})
        trainer.load("buffers", {name: t for name, t in source.items() if name in buffers})
        trainer.zero("momentum")
    return parent.rewind_step if start == "rewind" else 0


def check_start(start: int, stop: int) -> None:
    """Refuse a training that has no step left.

    Args:
        start: the step of the schedule to begin at.
        stop: the step at which it ends.

    Raises:
        ConfigError: the start is not before the end.
    """
    if start >= stop:
        raise ConfigError(
            f"the rewind point is at step {start}, not before the end of training ({stop} steps)"
        )


def train_from(
    trainer: Trainer,
    parent: Ticket,
    mask: Mask,
    density: float,
    start: str = "rewind",
    length: str = "",
) -> Iterator[Ticket]:
    """Train a parent's weights under a mask.

    Args:
        trainer: of the run.
        parent: the ticket whose weights are trained.
        mask: of the prunable weights.
        density: what the mask was to have, in (0, 1].
        start: as in `RetrainSettings`.
        length: as in `RetrainSettings`.

    Yields:
        One ticket.
    """
    stop = trainer.steps(length)
    for _ in trainer.rounds(1):
        begin = load_start(trainer, parent, start)
        check_start(begin, stop)
        trainer.fit(trainer.masked_step(mask, stop), start=begin, stop=stop)
        k = parent.rewind_step
        yield make_ticket(trainer, mask, judged="retrained", rewind_step=k, target_density=density)


def search(trainer: Trainer, settings: RetrainSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield the parent's ticket once more, with weights trained under its mask."""
    assert parent is not None
    mask = parent.mask
    if settings.mask == "shuffled":
        mask = mask.shuffled(generator(trainer.seed, "shuffled mask"))
    stop = trainer.steps(settings.length)
    for r in trainer.rounds(2 if settings.rewind else 1):
        if settings.rewind and r == 0:  # the dense network, up to there
            k = rewind_step(trainer, "retrain.rewind", settings.rewind)
            full = Mask.full(trainer.group("weights"), trainer.names)
            trainer.fit(trainer.masked_step(full, trainer.steps()), stop=k)
            trainer.zero("momentum")
            continue
        if settings.rewind:
            start = trainer.steps(settings.rewind)
        else:
            start = load_start(trainer, parent, settings.start)
        if settings.schedule == "restart":
            start = 0
        check_start(start, stop)
        trainer.fit(trainer.masked_step(mask, stop, settings.mask_value), start=start, stop=stop)
        weights = trainer.prunable_weights()
        yield make_ticket(
            trainer, mask, {name: weights[name] * settings.mask_value for name in mask},
            point=parent.point, index=parent.index, judged="retrained",
            rewind_step=parent.rewind_step, target_density=parent.target_density,
        )  # fmt: skip


def _work(settings: RetrainSettings, steps: Callable[[str], int], start: int) -> int:
    if settings.rewind:
        again = settings.schedule == "restart"
        return steps(settings.length) + (steps(settings.rewind) if again else 0)
    skips = settings.start == "rewind" and settings.schedule == "continue"
    return steps(settings.length) - (start if skips else 0)


METHOD = Method("retrain", "retrained", RetrainSettings, search, _work, parent="ticket")
