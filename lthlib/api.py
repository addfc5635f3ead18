"""Tickets of your own network, from Python."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from torch import nn

from lthlib.bars import bar_of_images
from lthlib.boundary import checked, try_out
from lthlib.data import Dataset, DataSettings, Images, read_all
from lthlib.devices import chosen, explained, named
from lthlib.distributed import check_ranks
from lthlib.errors import ConfigError, MaskError, Paused, TicketError
from lthlib.masks import Mask, already_pruned, kept_count
from lthlib.methods import Method, get_method
from lthlib.methods.gates import bisect_initial_gate
from lthlib.methods.retrain import load_start
from lthlib.modules import copied, unwrapped
from lthlib.resuming import tickets_of
from lthlib.settings import Density, Length, Seed, build, one_of
from lthlib.signals import interruptions
from lthlib.tickets import Ticket
from lthlib.training import Objective, Trainer, TrainingSettings
from lthlib.turns import turn

_ADVICE = (
    "where gates move too little to tell weights apart, a longer training.length or a higher "
    "gate_learning_rate helps; else another penalty"
)
Watch = Callable[[dict[str, Any]], bool | None]
Data = Dataset | tuple[Any, Any] | Any


@explained()
@checked
def find_tickets(
    model: nn.Module,
    data: Data,
    method: str = "imp",
    *,
    density: Density | None = None,
    seed: Seed = 0,
    loss: Callable[[Any, Any], Any] | None = None,
    metric: Callable[[Any, Any], Any] | None = None,
    pretrained: bool = False,
    rewind: Length = "0it",
    prunable: str | tuple[str, ...] = "conv+linear",
    training: TrainingSettings | None = None,
    augmentation: DataSettings | None = None,
    device: Any = "auto",
    progress: bool = True,
    watch: Watch | None = None,
    store: str | Path | None = None,
    **settings: Any,
) -> list[Ticket]:
    """Find winning tickets of any network that maps inputs to outputs, such as logits.

    Inputs are of shape [b, ...], logits of shape [b, classes].

    Args:
        model: left as it is. It takes a tensor, or several by a tuple or a mapping, and gives
            logits, what has them as `logits`, or a tuple with them first; a loss of your own gets
            all else as it is.
        data: a `Dataset`; (inputs [n, ...], integer labels [n]), tensors or arrays; or a map-style
            torch data set (see `Dataset.from_torch`, and `Dataset.from_tensors` for targets of any
            kind).
        method: a name in `lthlib.methods.METHODS`.
        density: kept fraction in (0, 1] that the last ticket has; CS finds its own, so that up to
            eight searches look for the initial gate that gives it to within a tenth; l0 and ISS
            take none.
        seed: of the order of the data, and of whatever the method or the network draws.
        loss: a function of (output, target) of a batch that gives one number to make small, by
            default the cross-entropy.
        metric: what `evaluate` is to judge these tickets by, see there.
        pretrained: the model's weights are the trained dense network that BiP, OMP and random start
            from; otherwise it is trained first.
        rewind: the step k to retrain from, such as `2ep` (`0it`: initialisation).
        prunable: which weights (see `lthlib.masks.prunable_names`).
        training: length, batch size, learning rate and so on.
        augmentation: crop, flip and normalisation of image data.
        device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for cuda if there is one.
        progress: whether to show a bar, with the density by now where gates are trained.
        watch: called once an epoch with `round`, `step` and, where gates are trained, `density`
            (kept so far) and `gates` (how many have their soft value in each of 20 bins of [0, 1]);
            a true answer ends the search.
        store: a folder to save what is found and, now and then, the state in: called again with the
            same arguments, a search that was stopped or killed goes on from there.
        settings: the method's own, such as `rounds=5` (see its settings class).

    Returns:
        The tickets in the order found; IMP, CS, l0 and ISS yield one a round, the others one. A
        search that `watch` or Ctrl-C ends gives those found so far and, where gates are trained,
        the one they stand for by then, at point `stopped`. Searches in several threads take turns,
        and find what each finds alone.

    Raises:
        ConfigError: an argument makes no sense, or does not go with another.
        MaskError: no weight would be left.
        DataError: the data cannot be read or do not fit together.
        StoreError: the store cannot be read or written.
        RunDamaged: what the store holds was altered.
        Diverged: the loss stopped being finite.
        OutOfMemory: memory does not hold it.
        Paused: the search ended before it had any ticket.
    """
    algorithm = get_method(method)
    if method == "retrain":
        raise ConfigError("retrain takes a ticket: call lthlib.retrain(ticket, data)")
    if algorithm.takes("rewind"):
        settings.setdefault("rewind", rewind)
    objective = Objective(loss, metric)
    dataset = _as_dataset(data)

    def fresh() -> Trainer:
        trainer = _make_trainer(
            model, dataset, objective, seed, training, prunable, augmentation, device
        )
        if (mask := already_pruned(trainer.prunable_weights())) is not None:
            trainer.confine(mask)
        return trainer

    start = _try_network(fresh(), density)
    if density is not None:
        settings |= _settings_for(algorithm, density, start, settings)
    parent = None
    if algorithm.parent != "none":
        parent = _dense_parent(fresh(), pretrained, rewind, progress, store)

    def search(**more: Any) -> list[Ticket]:
        method_settings = build(algorithm.settings, settings | more, method)
        trainer = fresh()
        work = algorithm.work(method_settings, trainer.steps, parent.rewind_step if parent else 0)
        with _progress_bar(trainer, algorithm.title, work, progress, watch):
            yielded = tickets_of(trainer, algorithm, method_settings, parent, store)
            return _collect_until_stopped(trainer, yielded)

    tickets = search() if density is None or method != "cs" else _search_at_density(search, density)
    for ticket in tickets:
        ticket.info = {"method": method, "settings": _plain(settings), "seed": seed}
        ticket.model, ticket.objective = model, objective
        if ticket.rewind is None and parent is not None:
            ticket.rewind, ticket.rewind_step = parent.rewind, parent.rewind_step
    if algorithm.has_gates and tickets[-1].density == 1 and tickets[-1].point != "stopped":
        warnings.warn(
            f"{method} pruned nothing: its gates did not close in so short a training, or under so "
            "low a penalty; a longer training.length or a higher penalty (lambda) may help",
            stacklevel=4,  # where find_tickets was called, within `explained` and `checked`
        )
    return tickets


def _try_network(trainer: Trainer, density: float | None) -> float:
    """Try what is to be trained; return the density that it has before."""
    with turn(trainer.network.device):
        try_out(trainer)
    if density is not None:  # one that keeps nothing
        kept_count(len(trainer.prunable_weights().data), density)
    start = trainer.within.density if trainer.within else 1.0
    if start < 1:
        warnings.warn(
            f"of the prunable weights {start:.1%} are not 0; the rest stay pruned", stacklevel=5
        )
    if density is not None and density > start:
        raise ConfigError(f"density is {density}, but the network is pruned to {start:.4f} already")
    return start


def _collect_until_stopped(trainer: Trainer, search: Iterator[Ticket]) -> list[Ticket]:
    tickets: list[Ticket] = []
    try:
        tickets.extend(search)
    except Paused as stopped:
        standing = trainer.standing() if trainer.standing else None
        if standing is not None and standing.mask.kept:
            tickets.append(standing)
        if not tickets:
            raise Paused(f"{stopped}; there is no ticket yet") from None
    return tickets


def _search_at_density(search: Callable[..., list[Ticket]], density: float) -> list[Ticket]:
    """The tickets of the search that comes nearest to a density."""
    tickets: dict[float, list[Ticket]] = {}  # by initial gate

    def density_of(gate: float) -> float:
        try:
            tickets[gate] = search(initial_gate=gate)
        except MaskError:
            return 0.0  # no gate stayed open
        last = tickets[gate][-1]
        return density if last.point == "stopped" else last.density  # nobody wants another trial

    trials = bisect_initial_gate(density_of, density)
    if not tickets:
        tried = [gate for gate, _ in trials]
        raise MaskError(f"no search left a weight; tried s0 = {tried}; {_ADVICE}")
    nearest = min(tickets.values(), key=lambda trial: abs(math.log(trial[-1].density / density)))
    reached = nearest[-1].density
    if abs(reached / density - 1) > 0.1 and nearest[-1].point != "stopped":
        warnings.warn(
            f"no initial gate gave density {density}: the nearest is {reached:.4f}; {_ADVICE}",
            stacklevel=5,  # where find_tickets was called, within `explained` and `checked`
        )
    return nearest


@explained()
@checked
def retrain(
    ticket: Ticket,
    data: Data,
    *,
    model: nn.Module | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    seed: Seed = 0,
    training: TrainingSettings | None = None,
    augmentation: DataSettings | None = None,
    device: Any = "auto",
    progress: bool = True,
    store: str | Path | None = None,
    **settings: Any,
) -> Ticket:
    """Train a ticket under its mask from its rewind point.

    Args:
        ticket: with a rewind point, or with what `settings` start from.
        data: as `find_tickets` takes it.
        model: a network of the ticket's architecture; may be left out for a ticket that
            `find_tickets` just returned.
        loss: as `find_tickets` takes it; by default the one that this ticket was found with.
        seed: of the order of the data, and of what is drawn.
        training: length, batch size, learning rate and so on.
        augmentation: crop, flip and normalisation of image data.
        device: as `find_tickets` takes it.
        progress: whether to show a bar.
        store: a folder, as `find_tickets` takes it: the same call, with the same ticket, goes on
            where it was stopped or killed.
        settings: of `lthlib.methods.retrain.RetrainSettings`, such as `start="own"` to fine-tune.

    Returns:
        The ticket, with the trained weights as its own.

    Raises:
        TicketError: the ticket does not fit the network, or lacks the weights to start from.
        ConfigError: an argument makes no sense, or does not go with another.
        DataError: the data cannot be read or do not fit together.
        StoreError: the store cannot be read or written.
        RunDamaged: what the store holds was altered.
        Diverged: the loss stopped being finite.
        OutOfMemory: memory does not hold it.
        Paused: it was stopped by Ctrl-C.
    """
    model = _network_for(ticket, model)
    method = get_method("retrain")
    method_settings = build(method.settings, settings, "retrain")
    objective = _objective_for(ticket, loss)
    trainer = _make_trainer(
        model,
        _as_dataset(data),
        objective,
        seed,
        training,
        tuple(ticket.mask),
        augmentation,
        device,
    )
    _try_network(trainer, None)
    work = method.work(method_settings, trainer.steps, ticket.rewind_step)
    with _progress_bar(trainer, f"retraining {ticket.point}", work, progress):
        if method_settings.start != "fresh" and not method_settings.rewind:
            # So that a store knows it again, whatever the model holds.
            load_start(trainer, ticket, method_settings.start)
        (trained,) = tickets_of(trainer, method, method_settings, ticket, store)
    return replace(
        trained, info=ticket.info, rewind=ticket.rewind, model=model, objective=objective
    )


@explained()
@checked
def evaluate(
    ticket: Ticket,
    data: Data,
    *,
    model: nn.Module | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    metric: Callable[[Any, Any], Any] | None = None,
    part: Annotated[str, one_of(("train", "validation", "test"))] = "test",
    augmentation: DataSettings | None = None,
    device: Any = "auto",
) -> float:
    """How good a ticket's own weights are.

    Args:
        ticket: with weights of its own.
        data: a `Dataset`, or all that `find_tickets` takes.
        model: a network of the ticket's architecture; this, loss and metric may be left out for a
            ticket that `find_tickets` just returned.
        loss: as `find_tickets` takes it.
        metric: what to give instead of percent correct: a function of (outputs, targets) of the
            whole part, on the CPU, to one number.
        part: of a `Dataset`, `test`, `validation` or `train`; of other data all counts.
        augmentation: crop, flip and normalisation of image data.
        device: as `find_tickets` takes it.

    Returns:
        Percent correct; without a metric, and where targets are no classes, the mean loss.

    Raises:
        TicketError: the ticket has no weights of its own, or does not fit the network.
        ConfigError: the part is empty, or another argument makes no sense.
        DataError: the data cannot be read or do not fit together.
        OutOfMemory: memory does not hold it.
    """
    model = copied(_network_for(ticket, model))
    for parameter in model.parameters():  # frozen or not
        parameter.requires_grad_(parameter.is_floating_point())
    if ticket.weights is None:
        raise TicketError(f"ticket {ticket.point!r} has no weights of its own; retrain it first")
    if not isinstance(data, Dataset):
        data, part = _as_dataset(data, whole=True), "test"
    objective = _objective_for(ticket, loss, metric)
    trainer = _make_trainer(
        model, data, objective, 0, None, tuple(ticket.mask), augmentation, device
    )
    weights = {name: tensor.to(trainer.network.device) for name, tensor in ticket.weights.items()}
    with turn(trainer.network.device):
        value = trainer.evaluate(part, weights)
    if value is None:
        raise ConfigError(f"the data hold no {part} part")
    return value


def _network_for(ticket: Ticket, model: nn.Module | None) -> nn.Module:
    model = model or ticket.model
    if model is None:
        raise TicketError("a ticket from a file does not hold the network's code; give model=...")
    model = unwrapped(model)
    ticket.check(model)
    return model


def _objective_for(ticket: Ticket, loss: Any, metric: Any = None) -> Objective:
    earlier = ticket.objective or Objective()
    return Objective(loss or earlier.loss, metric or earlier.metric)


def _make_trainer(
    model: nn.Module,
    dataset: Dataset,
    objective: Objective,
    seed: int,
    training: TrainingSettings | None,
    prunable: str | tuple[str, ...],
    augmentation: DataSettings | None,
    device: Any,
) -> Trainer:
    target = chosen(device)
    if augmentation is None:
        augmentation = DataSettings(dataset.name)
        if isinstance(dataset.train, Images) and dataset.name == "digits":
            augmentation = DataSettings("digits", padding=1, mean=(0.3,), std=(0.37,))
    training = training or TrainingSettings()
    check_ranks(training.ranks, training.sync_batchnorm, target)
    return Trainer(
        model, dataset, training, augmentation, seed, prunable, target, objective=objective
    )


def _as_dataset(data: Any, whole: bool = False) -> Dataset:
    """The data as a `Dataset`, where `whole` with all of it as the test part."""
    if isinstance(data, Dataset):
        return data
    pair = data if isinstance(data, tuple | list) and len(data) == 2 else read_all(data)
    held_out: dict[str, Any] = {"test": pair, "validation_fraction": 0} if whole else {}
    return Dataset.from_tensors(*pair, **held_out)


def _dense_parent(
    trainer: Trainer, pretrained: bool, rewind: str, progress: bool, store: str | Path | None
) -> Ticket:
    if pretrained:
        state = trainer.group("weights") | trainer.group("buffers")
        weights = {name: tensor.cpu().clone() for name, tensor in state.items()}
        return Ticket(Mask.full(weights, trainer.names), weights, weights, point="dense")
    method = get_method("dense")
    with _progress_bar(trainer, "dense network", trainer.steps(), progress):
        (ticket,) = tickets_of(trainer, method, method.settings(rewind), None, store)
    return ticket


def _settings_for(
    method: Method, density: float, start: float, settings: dict[str, Any]
) -> dict[str, Any]:
    """What of a method's settings a density decides, in a network of density `start`."""
    if method.takes_density:
        return {"density": density}
    if method.name == "dense":
        raise ConfigError("the dense network has density 1; leave density out")
    if method.name == "cs":
        if "initial_gate" in settings:
            raise ConfigError("density sets initial_gate; give one of the two")
        return {}
    if method.has_gates:
        raise ConfigError(f"{method.name} finds its own density: a higher penalty prunes more")
    if method.name != "imp":
        raise ConfigError(f"{method.name} takes no density; leave it out")
    share = density / start
    if share > 1 - 1e-6:
        raise ConfigError(f"density {density}, at which imp prunes nothing; give less than {start}")
    if {"rounds", "fraction"} <= settings.keys():
        raise ConfigError("density and rounds set the fraction; give two of the three")
    fraction = settings.get("fraction", 0.2)
    needed = round(math.log(share) / math.log(1 - fraction), 6)
    rounds = settings.get("rounds") or max(1, math.ceil(needed))
    return {"rounds": rounds, "fraction": 1 - share ** (1 / rounds)}


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    plain = {n: v.item() if isinstance(v, np.generic) else v for n, v in settings.items()}
    return {n: v if isinstance(v, (int, float, bool)) else str(v) for n, v in plain.items()}


@contextmanager
def _progress_bar(
    trainer: Trainer, title: str, work: int, progress: bool, watch: Watch | None = None
) -> Iterator[None]:
    device = trainer.network.device
    total = work * trainer.settings.batch_size
    with (
        interruptions() as interrupted,
        turn(device) as pause,
        bar_of_images(f"{title} on {named(device)}", total, shown=progress) as bar,
    ):
        updated = 0.0
        stopped = False
        began: tuple[int, int] | None = None

        def ask(trainer: Trainer) -> bool:
            nonlocal updated, stopped, began
            now = trainer.round, trainer.step
            began = began or now  # what was watched before a search that goes on from there
            pause()
            bar.update(trainer.passes - bar.n)
            last = max(trainer.step - 1, 0)
            if progress and trainer.observe and time.monotonic() - updated > 1:
                bar.set_postfix_str(f"density {trainer.observe(last)['density']:.4f}")
                updated = time.monotonic()
            due = trainer.step and trainer.step % trainer.steps_per_epoch == 0 and now != began
            if watch is not None and due:
                readout = trainer.observe(last) if trainer.observe else {}
                stopped = bool(watch({"round": trainer.round, "step": trainer.step, **readout}))
            stopped = stopped or interrupted()
            return stopped

        trainer.hooks.should_stop = ask
        yield
        if not stopped:  # the last batch of an epoch may be shorter than the others
            bar.total = trainer.passes
        bar.update(trainer.passes - bar.n)
        bar.refresh()
