"""Executing one run: its parent first, then train from the last checkpoint, judge, record."""

import contextlib
import datetime
import json
import math
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from lthlib._version import __version__
from lthlib.checkpoints import load_checkpoint, save_checkpoint
from lthlib.data import Dataset, DataSettings, generator, load_dataset
from lthlib.devices import chosen, explained
from lthlib.distributed import check_ranks, current
from lthlib.errors import Busy, Diverged, LeaseLost, MaskError, RunDamaged, TicketError
from lthlib.leases import Lease
from lthlib.masks import prunable_names
from lthlib.methods import get_method
from lthlib.models import build_model
from lthlib.records import make_record
from lthlib.runs.config import RunConfig
from lthlib.runs.process import set_up
from lthlib.runs.store import CHECKPOINT, PROGRESS, RunResult, Store, owner_of
from lthlib.signals import interruptions
from lthlib.source import fingerprint
from lthlib.texts import visible
from lthlib.tickets import Ticket
from lthlib.training import Cost, Hooks, Trainer, steps_of
from lthlib.turns import turn
from lthlib.workers import asked_to_stop


@dataclass
class Machine:
    """Where and until when runs are executed; none of it changes a result's meaning.

    Attributes:
        device: `cuda`, `cpu`, `mps`, or `auto` for cuda if there is one.
        data_root: folder with the data sets; None: the digits need none.
        deadline: seconds of `time.time()` at which to stop.
        stop_file: stop when it exists.
        checkpoint_every: seconds.
        deterministic: on a GPU, only kernels that give the same bits each time; slower.
    """

    device: str = "auto"
    data_root: str | None = None
    deadline: float | None = None
    stop_file: str | None = None
    checkpoint_every: float = 60.0
    deterministic: bool = False

    def torch_device(self) -> torch.device:
        """The device by name; see `lthlib.devices.chosen`."""
        return chosen(self.device)

    def asks_to_stop(self) -> bool:
        """Whether the deadline has passed or the stop file is there."""
        return asked_to_stop(self.deadline, self.stop_file)


@lru_cache(maxsize=2)
def _dataset(settings: DataSettings, root: str | None) -> Dataset:
    return load_dataset(settings.dataset, root, settings=settings)


def steps_per_epoch(config: RunConfig, machine: Machine) -> int:
    """Optimiser steps in an epoch of a run; reads the data, builds no network."""
    images = len(_dataset(config.data, machine.data_root).train)
    return math.ceil(images / config.training.batch_size)


def build_trainer(config: RunConfig, machine: Machine) -> Trainer:
    """A trainer at the beginning of a run: data loaded, network initialised from the run's seed."""
    dataset = _dataset(config.data, machine.data_root)
    # A control that trains from a fresh initialisation must not get its parent's again.
    fresh = get_method(config.method).takes("start") and config.settings.start == "fresh"
    address = "fresh" if fresh else "initialisation"
    seed = generator(config.seed, address).initial_seed() % (1 << 62)
    model = build_model(config.model, dataset.num_classes, dataset.image_shape[0], seed)
    device = machine.torch_device()
    return Trainer(
        model, dataset, config.training, config.data, config.seed, config.model.prunable, device
    )


def execute(
    config: RunConfig, store: Store, machine: Machine | None = None, *, wait: bool = True
) -> RunResult:
    """The result of a run: stored if it is complete and fresh, else computed.

    It goes on from its last checkpoint if it has one. A parent is obtained first; one that turns
    out to be damaged is computed again. A run whose numbers go wrong, that empties its mask, or
    whose ticket misfits its network is recorded as failed, after what it had already judged. Ranks
    that share the run all call this; only rank 0 touches the store. Threads of a process that call
    it take turns.

    Args:
        config: the run's.
        store: where its files are kept.
        machine: where and until when it is executed; by default on cuda if there is one, else on
            the CPU, until it is done.
        wait: wait for the result where another process computes the run, or took it over.

    Returns:
        The complete run; one that failed has a `failure`.

    Raises:
        Busy: another process computes the run, and `wait` is false.
        Paused: asked to stop; the state is saved.
        StoreError: the store cannot be used.
        DataError: the data cannot.
        ConfigError: the device does not exist, or there is another number of ranks.
        OutOfMemory: memory does not hold the run.
    """
    machine = machine or Machine()
    ranks = current()
    while True:
        result = ranks.first(lambda: store.load(config))
        if result is not None:
            return result
        training = config.training
        check_ranks(training.ranks, training.sync_batchnorm, machine.torch_device())
        ranks.first(store.prepare)
        parent = execute(config.parent.config, store, machine, wait=wait) if config.parent else None
        with (
            contextlib.suppress(LeaseLost, RunDamaged),
            interruptions() as stopped,
            _leased(config, store, lambda: stopped() or machine.asks_to_stop(), wait) as lease,
            turn(machine.torch_device()) as pause,
            explained(),
        ):
            result = ranks.first(lambda: store.load(config))
            return result or _Execution(config, store, machine, parent, lease, stopped, pause).run()


@contextmanager
def _leased(
    config: RunConfig, store: Store, stop: Callable[[], bool], wait: bool
) -> Iterator[Lease]:
    """The run's lease, which rank 0 holds for all."""

    def stop_waiting() -> bool:
        if stop():
            return True
        if not wait:
            raise Busy(f"another process computes run {config.id}")
        return False

    with contextlib.ExitStack() as stack:
        held: list[Lease] = []
        current().first(lambda: held.append(stack.enter_context(store.lock(config, stop_waiting))))
        yield held[0] if held else Lease(store.root)


@dataclass
class _Execution:
    config: RunConfig
    store: Store
    machine: Machine
    parent: RunResult | None
    lease: Lease
    stopped: Callable[[], bool]
    pause: Callable[[], None]
    started: str = field(default_factory=lambda: now())
    saved: str = "none"

    def __post_init__(self) -> None:
        self.ranks = current()
        self.device = self.machine.torch_device()
        self.folder = self.store.folder(self.config)
        self.checkpoint = self.folder / CHECKPOINT
        self.owner = owner_of(self.config, self.device.type)

    def run(self) -> RunResult:
        set_up(self.config.threads, self.machine.deterministic)
        trainer = failure = None
        try:
            self._check_parent()
            trainer = self._resume()
            self._search(trainer)
        except (Diverged, MaskError, TicketError) as error:
            failure = visible(str(error))
        return self.ranks.first(lambda: self._finish(trainer, failure))

    def _check_parent(self) -> None:
        """A parent that failed may have come as far as the ticket that this run starts from."""
        parent, result = self.config.parent, self.parent
        if parent is None or result is None or result.failure is None:
            return
        points = [r["ticket"]["point"] for r in result.records if r["status"] == "ok"]
        if parent.point not in points:
            raise TicketError(f"its parent {parent.config.id} failed: {result.failure}")

    def _finish(self, trainer: Trainer | None, failure: str | None) -> RunResult:
        judged = trainer.records.values() if trainer else []
        records = sorted(judged, key=lambda record: record["ticket"]["index"])
        if failure is not None:
            if trainer is not None:
                failure += (
                    f" (round {trainer.round}, by step {trainer.step}; "
                    f"last good checkpoint: {self.saved})"
                )
            ticket = {
                "index": trainer.round if trainer else 0,
                "point": "none",
                "sha256": "",
                "target_density": None,
            }
            cost = trainer.spent if trainer else Cost()
            records.append(self._make_record(cost, failure=failure, ticket=ticket))
        return self.store.finish(
            self.config,
            self.lease,
            trainer.files if trainer else {},
            records=records,
            history=trainer.history if trainer else [],
            failure=failure,
        )

    def _resume(self) -> Trainer:
        first = self.ranks.first
        trainer = build_trainer(self.config, self.machine)
        discard = partial(self.store.discard, self.config)
        if first((self.folder / "run.json").exists):
            first(discard)  # it is stale
        try:
            resumed = load_checkpoint(trainer, self.checkpoint, self.owner)
            first(partial(self.store.check_files, self.folder, trainer.files))
        except RunDamaged as error:
            first(partial(self.store.set_aside, self.folder, str(error), self.lease))
            trainer = build_trainer(self.config, self.machine)
            resumed = False
        if not resumed:
            first(discard)
            self._go_on_from_shorter(trainer)
        else:
            self.saved = f"round {trainer.round}, step {trainer.step}"
        trainer.hooks = self._hooks(trainer)
        return trainer

    def _go_on_from_shorter(self, trainer: Trainer) -> None:
        # Begin where the longest complete run ended that differs in having fewer rounds. Its
        # tickets become this run's; the last of them is judged again.
        first = self.ranks.first
        go_on = get_method(self.config.method).go_on
        if go_on is None or (shorter := first(self._shorter_run)) is None:
            return
        *earlier, last = shorter.records
        origin = {"run": self.config.id, "config": self.config.to_json()}
        ticket_of = partial(self.store.ticket, shorter.config)
        ticket = first(partial(ticket_of, last["ticket"]["point"]))
        if not go_on(trainer, self.config.settings, ticket):
            return
        for record in earlier:
            point = record["ticket"]["point"]
            ticket = first(partial(ticket_of, point))
            ticket.info |= origin
            entry = {**record["ticket"], "sha256": self._save_ticket(trainer, ticket)}
            trainer.records[point] = {**record, **origin, "ticket": entry}
        trainer.history = shorter.history
        trainer.cost = Cost(**last["cost"]["own"])

    def _shorter_run(self) -> RunResult | None:
        for rounds in range(self.config.settings.rounds - 1, 0, -1):
            result = self.store.load(self.config.changed(settings={"rounds": rounds}))
            if result is None or result.failure:
                continue
            if result.records[-1]["provenance"]["device"] == self.device.type:
                return result
        return None

    def _save_ticket(self, trainer: Trainer, ticket: Ticket) -> str:
        save = partial(self.store.save_ticket, self.config, ticket, self.lease, trainer.files)
        return self.ranks.first(save)

    def _hooks(self, trainer: Trainer) -> Hooks:
        written = reported = time.monotonic()
        total = expected_passes(self.config, trainer.steps_per_epoch)

        def due() -> bool:
            return time.monotonic() - written > self.machine.checkpoint_every

        def save(trainer: Trainer) -> None:
            nonlocal written
            _check_finite(trainer.state, ("weights/", "buffers/", "momentum/"))
            write = partial(self.store.write, lease=self.lease)
            save_checkpoint(trainer, self.checkpoint, self.owner, write)
            written = time.monotonic()
            self.saved = f"round {trainer.round}, step {trainer.step}"

        def should_stop(trainer: Trainer) -> bool:
            nonlocal reported
            self.pause()
            if self.stopped() or self.lease.lost:  # then saving raises LeaseLost, on all ranks
                return True
            now = time.monotonic()
            if now - reported < 0.5:
                return False
            reported = now
            progress = {"done": trainer.passes, "total": total}
            with contextlib.suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / PROGRESS).write_text(json.dumps(progress), "utf-8")
            return self.machine.asks_to_stop()

        ranks = trainer.ranks
        stops_here = should_stop if ranks.rank == 0 else lambda trainer: self.stopped()
        return Hooks(
            lambda trainer: ranks.any(stops_here(trainer)),
            lambda: ranks.first(due),
            lambda trainer: ranks.first(lambda: save(trainer)),
            "the state is saved",
        )

    def _search(self, trainer: Trainer) -> None:
        config = self.config
        parent = None
        if config.parent:
            load = partial(self.store.ticket, config.parent.config, config.parent.point)
            parent = self.ranks.first(load)
        for ticket in get_method(config.method).search(trainer, config.settings, parent):
            # Without the times, which the record has: the same ticket has the same checksum.
            origin = provenance(config, self.device, self.started)
            del origin["started"], origin["finished"]
            ticket.info = {"run": config.id, "config": config.to_json(), "provenance": origin}
            _check_finite(ticket.weights or {})
            # Kept in the checkpoints, and so sealed from now on.
            trainer.records[ticket.point] = self._judge(trainer, ticket)

    def _judge(self, trainer: Trainer, ticket: Ticket) -> dict[str, Any]:
        assert ticket.weights is not None
        trained = {name: tensor.to(self.device) for name, tensor in ticket.weights.items()}
        weights = trainer.group("weights")
        names = prunable_names(trainer.model, "conv+linear")
        mask = ticket.mask.extended({name: weights[name].shape for name in names})
        return self._make_record(
            trainer.cost,
            ticket={
                "index": ticket.index,
                "point": ticket.point,
                "sha256": self._save_ticket(trainer, ticket),
                "target_density": ticket.target_density,
            },
            judged=ticket.judged,
            density=mask.density,
            kept=mask.kept,
            total=mask.total,
            layers={name: list(counts) for name, counts in mask.layers().items()},
            accuracy={split: trainer.evaluate(split, trained) for split in ("validation", "test")},
        )

    def _make_record(self, cost: Cost, **fields: Any) -> dict[str, Any]:
        config = self.config
        return make_record(
            config.to_json(),
            run=config.id,
            parent=config.parent.config.id if config.parent else None,
            method_version=get_method(config.method).version,
            cost={"own": asdict(cost), "cumulative": asdict(cost + self._inherited_cost())},
            provenance=provenance(config, self.device, self.started),
            **fields,
        )

    def _inherited_cost(self) -> Cost:
        """Cost of everything the run rests on, up to the ticket it starts from."""
        if self.parent is None or self.config.parent is None:
            return Cost()
        point = self.config.parent.point
        for record in self.parent.records:
            if record["ticket"]["point"] == point:
                return Cost(**record["cost"]["cumulative"])
        return Cost()


def _check_finite(tensors: Mapping[str, torch.Tensor], groups: tuple[str, ...] = ("",)) -> None:
    """BatchNorm's statistics may explode while the loss, which does not see them, stays finite."""
    for name, tensor in tensors.items():
        if name.startswith(groups) and not bool(tensor.isfinite().all()):
            raise Diverged(f"{name} holds NaN or infinity; a smaller learning rate may help")


def provenance(config: RunConfig, device: torch.device, started: str) -> dict[str, Any]:
    """Where and with what a run was computed, as its records hold it.

    Args:
        config: the run's.
        device: on which it is computed.
        started: when, from `now()`.

    Returns:
        Names and values; `finished` is now.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "device_name": name,
        "threads": config.threads,
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
        "lthlib": __version__,
        **_commit(),
        "source": fingerprint(config.method),
        "started": started,
        "finished": now(),
    }


def expected_passes(config: RunConfig, steps_per_epoch: int) -> int:
    """Images a run will send backward, its ancestors not counted."""
    start = 0
    if config.parent is not None:
        ancestor = config.parent.config
        while ancestor.parent is not None and not get_method(ancestor.method).takes("rewind"):
            ancestor = ancestor.parent.config
        start = steps_of(getattr(ancestor.settings, "rewind", "0it"), steps_per_epoch)

    def steps(length: str) -> int:
        return steps_of(length or config.training.length, steps_per_epoch)

    batches = get_method(config.method).work(config.settings, steps, start)
    return batches * config.training.batch_size


def now() -> str:
    """The time in UTC, as records hold it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def _commit() -> dict[str, Any]:
    command = ["git", "status", "--porcelain=v2", "--branch", "--", "."]
    folder = Path(__file__).parents[1]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": False}
    commit = re.match(r"# branch\.oid ([0-9a-f]+)\n", done.stdout)
    dirty = re.search(r"^[^#]", done.stdout, re.MULTILINE) is not None
    return {"commit": commit and commit[1], "dirty": dirty}
