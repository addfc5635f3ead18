"""What a method is: a search that yields tickets."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from lthlib.errors import ConfigError, MaskError
from lthlib.flat import Named
from lthlib.masks import Mask
from lthlib.tickets import Ticket
from lthlib.training import Trainer


def one_training(settings: Any, steps: Callable[[str], int], start: int) -> int:
    """How many batches one training a round sends backward.

    Args:
        settings: of a method; `rounds`, `length` and `start` count where it has them.
        steps: optimiser steps of a length, by default of the recipe's.
        start: the parent's rewind step.

    Returns:
        Batches of all rounds.
    """
    skipped = start if getattr(settings, "start", "") == "rewind" else 0
    return getattr(settings, "rounds", 1) * (steps(getattr(settings, "length", "")) - skipped)


Search = Callable[[Trainer, Any, Ticket | None], Iterator[Ticket]]


@dataclass(frozen=True)
class Method:
    """A method: what it is called, and what it does.

    Attributes:
        name: by which it is asked for.
        title: what figures call it.
        settings: frozen dataclass of its settings.
        search: `search(trainer, settings, parent)` yields tickets; stopping the iteration stops
            the search.
        work: `work(settings, steps, start)` is the number of batches it sends backward, with
            `steps(length)` optimiser steps and `start` the parent's rewind step; by default
            `one_training`.
        go_on: `go_on(trainer, settings, ticket)` brings a trainer to the end of the round that
            yielded a ticket of the same search with fewer rounds; False where that takes more than
            the ticket.
        version: raised whenever results change.
        parent: what it starts from: `none`, `dense` (a trained dense network), or `ticket` (any
            ticket with a rewind point).
    """

    name: str
    title: str
    settings: type
    search: Search
    work: Callable[[Any, Callable[[str], int], int], int] = one_training
    go_on: Callable[[Trainer, Any, Ticket], bool] | None = None
    version: int = 1
    parent: str = "none"

    @property
    def takes_density(self) -> bool:
        """Whether a search is asked for a density."""
        return self.takes("density")

    @property
    def has_gates(self) -> bool:
        """Whether it trains gates, whose penalty decides what density is found."""
        return self.takes("initial_gate")

    def takes(self, setting: str) -> bool:
        """Whether it has a setting of that name, such as `rewind` or `rounds`."""
        return setting in {field.name for field in fields(self.settings)}


def rewind_step(trainer: Trainer, where: str, length: str, *, inside: bool = False) -> int:
    """A length as the step of a rewind point.

    Args:
        trainer: of the training that has the point.
        where: how the user knows the length, such as `imp.rewind`.
        length: from the start.
        inside: whether the end of training itself is refused.

    Returns:
        k, in optimiser steps.

    Raises:
        ConfigError: it is after the end of training.
    """
    k, end = trainer.steps(length), trainer.steps()
    if k > end - inside:
        late = "not before" if inside else "after"
        raise ConfigError(f"{where} {length} is {late} the end of training ({end} steps)")
    return k


def steps_by_sgd(trainer: Trainer, variables: str) -> dict[str, Any]:
    """The options of `sgd_step` of a method that prescribes it.

    A warning says so where the recipe asks for another optimiser.

    Args:
        trainer: with the recipe.
        variables: what the method steps, in words.

    Returns:
        The recipe's momentum, nesterov and weight_decay.
    """
    if trainer.settings.optimiser != "sgd":
        warnings.warn(
            f"{variables} are stepped by SGD, as the paper prescribes, not by "
            f"{trainer.settings.optimiser}",
            stacklevel=2,
        )
    return trainer.optimiser_options()


def make_ticket(
    trainer: Trainer, mask: Mask, changed: Named | None = None, **ticket_fields: Any
) -> Ticket:
    """A ticket whose own weights are the trainer's weights and buffers under a mask.

    Args:
        trainer: after training; its rewind point becomes the ticket's.
        mask: of the prunable weights; what a pruned network was confined to stays.
        changed: tensors by name, in place of the trainer's.
        ticket_fields: other fields of `Ticket`, such as `point`.

    Returns:
        A ticket, all of it copied to the CPU.

    Raises:
        MaskError: the mask keeps no weight.
    """
    if trainer.within is not None:
        inside = trainer.within.items()
        mask = Mask({name: mask[name] & kept.to(mask[name].device) for name, kept in inside})
    if mask.kept == 0:
        raise MaskError(f"the mask of {ticket_fields.get('point', Ticket.point)} keeps no weight")
    tensors = trainer.group("buffers") | trainer.group("weights") | dict(changed or {})
    weights = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for name, kept in mask.items():
        weights[name].mul_(kept.to(weights[name].device))
    rewind = trainer.group("rewind/weights") | trainer.group("rewind/buffers")
    return Ticket(
        Mask({name: kept.to("cpu", copy=True) for name, kept in mask.items()}),
        {name: tensor.cpu() for name, tensor in weights.items()},
        {name: tensor.detach().clone().cpu() for name, tensor in rewind.items()} or None,
        **ticket_fields,
    )
