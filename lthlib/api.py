"""Tickets of your own network, from Python, without a store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lthlib.data import Dataset, DataSettings, Images
from lthlib.errors import ConfigError, TicketError
from lthlib.masks import Mask
from lthlib.methods import get_method
from lthlib.runs.config import build
from lthlib.tickets import Ticket
from lthlib.training import Network, Trainer, TrainingSettings

Data = Dataset | tuple[Tensor, Tensor]


def find_tickets(
    model: nn.Module,
    data: Data,
    method: str = "imp",
    *,
    density: float | None = None,
    seed: int = 0,
    pretrained: bool = False,
    rewind: str = "0it",
    prunable: str | tuple[str, ...] = "conv+linear",
    training: TrainingSettings | None = None,
    augmentation: DataSettings | None = None,
    device: str = "auto",
    progress: bool = True,
    **settings: Any,
) -> list[Ticket]:
    """Find winning tickets of any network that maps inputs [b, ...] to logits [b, classes].

    model: left as it is. data: a `Dataset`, or (inputs [n, ...], integer labels [n]). method:
    `imp`, `cs`, `bip`, `omp`, `random` or `dense`. density: kept fraction in (0, 1] that the last
    ticket has; CS finds its own. pretrained: the model's weights are the trained dense network that
    BiP, OMP and random start from; otherwise it is trained first. rewind: the step k to retrain
    from, such as `2ep` (`0it`: initialisation). prunable: which weights (see
    `lthlib.masks.prunable_names`). training: length, batch size, learning rate and so on.
    augmentation: crop, flip and normalisation of image data. settings: the method's own, such as
    `rounds=5` (see its settings class).

    Returns the tickets in the order found; IMP and CS yield one a round, the others one. Raises
    ConfigError, MaskError or DataError for what makes no sense, Diverged when the loss stops being
    finite.
    """
    chosen = get_method(method)
    if method == "retrain":
        raise ConfigError("retrain takes a ticket: call lthlib.retrain(ticket, data)")
    if density is not None:
        settings |= _for_density(method, density, settings)
    if hasattr(chosen.settings, "rewind"):
        settings.setdefault("rewind", rewind)
    built = build(chosen.settings, settings, method)
    trainer = _trainer(model, data, seed, training, prunable, augmentation, device)
    parent = None
    if chosen.parent != "none":
        parent = _dense(trainer, pretrained, rewind, progress)
        trainer = _trainer(model, data, seed, training, prunable, augmentation, device)
    start = parent.rewind_step if parent else 0
    work = chosen.work(built, trainer.steps, start)
    with _bar(trainer, chosen.title, work, progress):
        tickets = list(chosen.search(trainer, built, parent))
    for ticket in tickets:
        ticket.info = {"method": method, "settings": _readable(settings), "seed": seed}
        ticket.model = model
        if ticket.rewind is None and parent is not None:
            ticket.rewind, ticket.rewind_step = parent.rewind, parent.rewind_step
    return tickets


def retrain(
    ticket: Ticket,
    data: Data,
    *,
    model: nn.Module | None = None,
    seed: int = 0,
    training: TrainingSettings | None = None,
    augmentation: DataSettings | None = None,
    device: str = "auto",
    progress: bool = True,
    **settings: Any,
) -> Ticket:
    """Train a ticket under its mask from its rewind point; returns it with the trained weights as
    its own.

    model: a network of the ticket's architecture; may be left out for a ticket that `find_tickets`
    just returned. settings: of `lthlib.methods.retrain.RetrainSettings`, such as `start="own"` to
    fine-tune. Raises TicketError when the ticket does not fit the network or lacks the weights to
    start from.
    """
    model = _model(ticket, model)
    chosen = get_method("retrain")
    built = build(chosen.settings, settings, "retrain")
    trainer = _trainer(model, data, seed, training, tuple(ticket.mask), augmentation, device)
    work = chosen.work(built, trainer.steps, ticket.rewind_step)
    with _bar(trainer, f"retraining {ticket.point}", work, progress):
        (trained,) = chosen.search(trainer, built, ticket)
    return replace(trained, info=ticket.info, rewind=ticket.rewind, model=model)


def evaluate(
    ticket: Ticket,
    data: Dataset,
    *,
    model: nn.Module | None = None,
    part: str = "test",
    augmentation: DataSettings | None = None,
    device: str = "auto",
) -> float:
    """Percent correct of the ticket's own weights on a part of the data (`test` or `validation`).

    Raises TicketError for a ticket without weights of its own, ConfigError for an empty part.
    """
    model = _model(ticket, model)
    if ticket.weights is None:
        raise TicketError(f"ticket {ticket.point!r} has no weights of its own; retrain it first")
    trainer = _trainer(model, data, 0, None, tuple(ticket.mask), augmentation, device)
    own = {name: tensor.to(trainer.network.device) for name, tensor in ticket.weights.items()}
    buffers = {name: own.pop(name) for name in trainer.group("buffers")}
    accuracy = trainer.evaluate(part, own, buffers)
    if accuracy is None:
        raise ConfigError(f"the data hold no {part} part")
    return accuracy


def _model(ticket: Ticket, model: nn.Module | None) -> nn.Module:
    model = model or ticket.model
    if model is None:
        raise TicketError("a ticket from a file does not hold the network's code; give model=...")
    ticket.check(model)
    return model


def _trainer(
    model: nn.Module,
    data: Data,
    seed: int,
    training: TrainingSettings | None,
    prunable: str | tuple[str, ...],
    augmentation: DataSettings | None,
    device: str,
) -> Trainer:
    dataset = data if isinstance(data, Dataset) else Dataset.from_tensors(*data)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if augmentation is None:
        augmentation = DataSettings(dataset.name)
        if isinstance(dataset.train, Images) and dataset.name == "digits":
            augmentation = DataSettings("digits", padding=1, mean=(0.3,), std=(0.37,))
    return Trainer(
        model, dataset, training or TrainingSettings(), augmentation, seed, prunable, device
    )


def _dense(trainer: Trainer, pretrained: bool, rewind: str, progress: bool) -> Ticket:
    if pretrained:
        network: Network = trainer.network
        weights = {n: t.cpu() for n, t in (network.weights() | network.buffers()).items()}
        return Ticket(Mask.full(weights, trainer.names), weights, weights, point="dense")
    method = get_method("dense")
    with _bar(trainer, "dense network", trainer.steps(), progress):
        (ticket,) = method.search(trainer, method.settings(rewind), None)
    return ticket


def _for_density(method: str, density: float, settings: dict[str, Any]) -> dict[str, Any]:
    if not 0 < density <= 1:
        raise ConfigError(f"density is {density}; expected a kept fraction in (0, 1]")
    if method == "cs":
        raise ConfigError(
            "CS finds its own density: a lower initial_gate (s0) or a higher penalty (lambda) "
            "gives sparser tickets"
        )
    if method == "dense":
        raise ConfigError("the dense network has density 1; leave density out")
    if method != "imp":
        return {"density": density}
    fraction = settings.get("fraction", 0.2)
    rounds = settings.get("rounds") or max(
        1, math.ceil(round(math.log(density) / math.log(1 - fraction), 6))
    )
    return {"rounds": rounds, "fraction": 1 - density ** (1 / rounds)}


def _readable(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, (int, float, bool)) else str(value)
        for name, value in settings.items()
    }


@contextmanager
def _bar(trainer: Trainer, title: str, work: int, shown: bool) -> Iterator[None]:
    with tqdm(
        total=work * trainer.settings.batch_size,
        desc=title,
        unit="img",
        unit_scale=True,
        disable=not shown,
    ) as bar:

        def tell(trainer: Trainer) -> bool:
            bar.update(trainer.passes - bar.n)
            return False

        trainer.hooks.should_stop = tell
        yield
        bar.update(trainer.passes - bar.n)
