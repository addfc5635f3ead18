"""Executing one run: obtain its parent, train from the last checkpoint, judge each ticket,
record."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lthlib._version import __version__
from lthlib.checkpoints import load_checkpoint, save_checkpoint
from lthlib.data import Dataset, DataSettings, generator, load_dataset
from lthlib.errors import ConfigError, Diverged, MaskError, StoreError
from lthlib.files import write_atomically
from lthlib.masks import prunable_names
from lthlib.methods import get_method
from lthlib.models import build_model
from lthlib.runs.config import RunConfig
from lthlib.runs.store import RunResult, Store, fingerprint, source
from lthlib.tickets import Ticket
from lthlib.training import Cost, Hooks, Trainer, steps_of


@dataclass
class Machine:
    """Where and until when runs are executed; none of it changes a result's meaning.

    device: `cuda`, `cpu`, or `auto` for cuda if there is one. data_root: folder with the data sets.
    deadline: seconds of `time.time()` at which to stop. stop_file: stop when it exists.
    checkpoint_every: seconds.
    """

    device: str = "auto"
    data_root: str | None = None
    deadline: float | None = None
    stop_file: str | None = None
    checkpoint_every: float = 60.0

    def default_jobs(self) -> int:
        """Runs at once where nobody says: one on a GPU, one a core on a CPU."""
        return 1 if self.torch_device().type == "cuda" else os.cpu_count() or 1

    def torch_device(self) -> torch.device:
        """The device by name. Raises ConfigError when there is no such device."""
        cuda = torch.cuda.is_available()
        if self.device == "auto":
            return torch.device("cuda" if cuda else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise ConfigError(
                f"device is {self.device!r}; expected auto, cuda, cuda:0 or cpu"
            ) from None
        if device.type == "cuda" and not cuda:
            raise ConfigError(f"device is {self.device!r}, but torch finds no GPU; use cpu or auto")
        return device

    def asks_to_stop(self) -> bool:
        """Whether the deadline has passed or the stop file is there."""
        late = self.deadline is not None and time.time() > self.deadline
        return late or (self.stop_file is not None and os.path.exists(self.stop_file))


@lru_cache(maxsize=2)
def _dataset(settings: DataSettings, root: str | None) -> Dataset:
    return load_dataset(settings.dataset, root, settings=settings)


def build_trainer(config: RunConfig, machine: Machine, hooks: Hooks | None = None) -> Trainer:
    """A trainer at the beginning of a run: data loaded, network initialised from the run's seed."""
    dataset = _dataset(config.data, machine.data_root)
    # A control that trains from a fresh initialisation must not get its parent's again.
    address = "fresh" if getattr(config.settings, "start", "") == "fresh" else "initialisation"
    seed = generator(config.seed, address).initial_seed() % (1 << 62)
    model = build_model(config.model, dataset.num_classes, dataset.image_shape[0], seed)
    return Trainer(
        model,
        dataset,
        config.training,
        config.data,
        config.seed,
        config.model.prunable,
        machine.torch_device(),
        hooks or Hooks(),
    )


def execute(config: RunConfig, store: Store, machine: Machine | None = None) -> RunResult:
    """The result of a run: stored if it is complete and fresh, else computed, from its last
    checkpoint if it has one.

    A parent is obtained first. A run that diverges or empties a mask is recorded as failed. Raises
    Paused when asked to stop (the state is saved), StoreError when the store cannot be used,
    DataError when the data cannot, ConfigError for a device that does not exist.
    """
    machine = machine or Machine()
    found = store.load(config)
    if found is not None:
        return found
    store.prepare()
    parent = execute(config.parent.config, store, machine) if config.parent else None
    with store.lock(config):
        return store.load(config) or _Execution(config, store, machine, parent).run()


@dataclass
class _Execution:
    config: RunConfig
    store: Store
    machine: Machine
    parent: RunResult | None
    started: str = field(default_factory=lambda: _now())

    def run(self) -> RunResult:
        torch.set_num_threads(self.config.threads)
        if self.parent is not None and self.parent.failure:
            return self._fail(f"its parent {self.parent.config.id} failed: {self.parent.failure}")
        try:
            with interruptions() as stopped:
                trainer = self._resume(stopped)
                self._search(trainer)
        except (Diverged, MaskError) as error:
            return self._fail(str(error))
        records = [
            json.loads(p.read_bytes()) for p in sorted((self.folder / "judged").glob("*.json"))
        ]
        records.sort(key=lambda record: record["ticket"]["index"])
        return self.store.finish(
            self.config, records=records, history=trainer.history, failure=None
        )

    @property
    def folder(self) -> Path:
        return self.store.folder(self.config)

    @property
    def owner(self) -> str:
        return f"{self.config.id}/{source(self.config)}/{self.machine.torch_device().type}"

    def _resume(self, stopped: Callable[[], bool]) -> Trainer:
        trainer = build_trainer(self.config, self.machine)
        path = self.folder / "checkpoint.safetensors"
        try:
            resumed = load_checkpoint(trainer, path, self.owner)
        except StoreError as error:
            self.store.set_aside(self.folder, str(error))
            trainer, resumed = build_trainer(self.config, self.machine), False
        if not resumed:
            self.store.discard(self.config)
        trainer.hooks = self._hooks(trainer, stopped)
        return trainer

    def _hooks(self, trainer: Trainer, stopped: Callable[[], bool]) -> Hooks:
        saved = told = time.monotonic()
        total = expected_passes(self.config, trainer.steps_per_epoch)

        def due() -> bool:
            return time.monotonic() - saved > self.machine.checkpoint_every

        def save(trainer: Trainer) -> None:
            nonlocal saved
            save_checkpoint(trainer, self.folder / "checkpoint.safetensors", self.owner)
            saved = time.monotonic()

        def should_stop(trainer: Trainer) -> bool:
            nonlocal told
            if stopped():
                return True
            now = time.monotonic()
            if now - told < 0.5:
                return False
            told = now
            progress = {"done": trainer.passes, "total": total}
            (self.folder / "progress.json").parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "progress.json").write_text(json.dumps(progress))
            return self.machine.asks_to_stop()

        return Hooks(should_stop, due, save)

    def _search(self, trainer: Trainer) -> None:
        config = self.config
        method = get_method(config.method)
        parent = (
            self.store.ticket(config.parent.config, config.parent.point) if config.parent else None
        )
        for ticket in method.search(trainer, config.settings, parent):
            # Without the times, which the record has: the same ticket has the same checksum.
            provenance = self._provenance(trainer)
            del provenance["started"], provenance["finished"]
            ticket.info = {
                "run": config.id,
                "config": config.to_json(),
                "provenance": provenance,
            }
            content = self.store.save_ticket(config, ticket)
            record = self._judge(trainer, ticket, hashlib.sha256(content).hexdigest())
            path = self.folder / "judged" / f"{ticket.index:04d}-{ticket.point}.json"
            write_atomically(path, json.dumps(record).encode())

    def _judge(self, trainer: Trainer, ticket: Ticket, digest: str) -> dict[str, Any]:
        assert ticket.weights is not None
        own = {name: tensor.to(trainer.network.device) for name, tensor in ticket.weights.items()}
        buffers = {name: own.pop(name) for name in trainer.group("buffers")}
        base = ticket.mask.extended(_base_shapes(trainer))
        return self._record(
            trainer.cost,
            trainer,
            ticket={
                "index": ticket.index,
                "point": ticket.point,
                "sha256": digest,
                "target_density": ticket.target_density,
            },
            judged=ticket.judged,
            density=base.density,
            kept=base.kept,
            total=base.total,
            layers={name: list(counts) for name, counts in base.layers().items()},
            accuracy={
                part: trainer.evaluate(part, own, buffers) for part in ("validation", "test")
            },
        )

    def _record(self, cost: Cost, trainer: Trainer | None, **parts: Any) -> dict[str, Any]:
        config = self.config
        return {
            "schema": 1,
            "run": config.id,
            "parent": config.parent.config.id if config.parent else None,
            "config": config.to_json(),
            "method": config.method,
            "method_version": get_method(config.method).version,
            "seed": config.seed,
            "status": "ok",
            "failure": None,
            **parts,
            "cost": {"own": asdict(cost), "cumulative": asdict(cost + self._inherited())},
            "provenance": self._provenance(trainer),
        }

    def _inherited(self) -> Cost:
        """Cost of everything the run rests on, up to the ticket it starts from."""
        if self.parent is None or self.config.parent is None:
            return Cost()
        point = self.config.parent.point
        for record in self.parent.records:
            if record["ticket"]["point"] == point:
                return Cost(**record["cost"]["cumulative"])
        return Cost()

    def _provenance(self, trainer: Trainer | None) -> dict[str, Any]:
        device = trainer.network.device if trainer else self.machine.torch_device()
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
        return {
            "device": device.type,
            "device_name": name,
            "threads": self.config.threads,
            "torch": torch.__version__.partition("+")[0],
            "python": platform.python_version(),
            "lthlib": __version__,
            **_commit(),
            "source": fingerprint(self.config.method),
            "started": self.started,
            "finished": _now(),
        }

    def _fail(self, why: str) -> RunResult:
        record = self._record(
            Cost(), None, status="failed", failure=why, judged="found",
            ticket={"index": 0, "point": "none", "sha256": "", "target_density": None},
            density=None, kept=None, total=None, layers={},
            accuracy={"validation": None, "test": None},
        )  # fmt: skip
        return self.store.finish(self.config, records=[record], history=[], failure=why)


def _base_shapes(trainer: Trainer) -> dict[str, torch.Size]:
    weights = trainer.group("weights")
    return {name: weights[name].shape for name in prunable_names(trainer.model, "conv+linear")}


def expected_passes(config: RunConfig, steps_per_epoch: int) -> int:
    """Images a run will send backward, its ancestors not counted."""
    start = 0
    if config.parent is not None:
        ancestor = config.parent.config
        while ancestor.parent is not None and not hasattr(ancestor.settings, "rewind"):
            ancestor = ancestor.parent.config
        start = steps_of(getattr(ancestor.settings, "rewind", "0it"), steps_per_epoch)

    def steps(length: str) -> int:
        return steps_of(length or config.training.length, steps_per_epoch)

    return (
        get_method(config.method).work(config.settings, steps, start) * config.training.batch_size
    )


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM, unless ignored, into a question that the loop asks before each
    step."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []
    heeded = [
        s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN
    ]
    previous = {s: signal.signal(s, lambda number, frame: received.append(number)) for s in heeded}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def _commit() -> dict[str, Any]:
    folder = Path(__file__).parents[1]
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
        status = subprocess.run(
            ["git", "status", "--porcelain", "--", "."],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": False}
    return {"commit": commit, "dirty": bool(status)}
