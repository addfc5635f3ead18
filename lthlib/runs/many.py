"""Executing many runs: each once, parents first, through any `concurrent.futures.Executor`."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from lthlib.errors import Paused
from lthlib.runs.config import RunConfig
from lthlib.runs.execute import Machine, build_trainer, execute, expected_passes
from lthlib.runs.store import Store


@dataclass
class Progress:
    """How far a set of runs has come: runs and passes (images sent backward), done and in all."""

    runs: int
    total_runs: int
    passes: int
    total_passes: int


@dataclass
class Swept:
    """What a sweep left: ids of runs that failed, now or before, with the reason, and how many
    were not finished."""

    failed: dict[str, str]
    unfinished: int


def with_ancestors(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """The runs and all they rest on, each once, parents before children."""
    ordered: dict[str, RunConfig] = {}

    def add(config: RunConfig) -> None:
        if config.id not in ordered:
            if config.parent is not None:
                add(config.parent.config)
            ordered[config.id] = config

    for config in configs:
        add(config)
    return list(ordered.values())


def steps_per_epoch(config: RunConfig, machine: Machine) -> int:
    """Optimiser steps in one epoch of a run, from its data."""
    return build_trainer(config, machine).steps_per_epoch


def work(configs: Sequence[RunConfig], machine: Machine) -> dict[str, int]:
    """Images each run will send backward, by id."""
    known: dict[str, int] = {}
    found = {}
    for config in configs:
        key = repr((config.data, config.training.batch_size))
        if key not in known:
            known[key] = steps_per_epoch(config, machine)
        found[config.id] = expected_passes(config, known[key])
    return found


def execute_many(
    configs: Iterable[RunConfig],
    store: Store,
    machine: Machine | None = None,
    *,
    executor: Executor | None = None,
    jobs: int | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Swept:
    """Execute runs that are not complete, several at once.

    executor: where they run; by default `jobs` processes on this machine (one a core; one
    on a GPU). report: called about twice a second. Stops cleanly at the machine's deadline and on
    Ctrl-C: what was under way is saved, and the next call goes on from there. Raises the first
    error that is not a run's own failure.
    """
    machine = machine or Machine()
    store.prepare()
    stored = [(config, store.load(config)) for config in with_ancestors(configs)]
    missing = [config for config, result in stored if result is None]
    failed = {config.id: result.failure for config, result in stored if result and result.failure}
    sizes = work(missing, machine)
    sweep = _Sweep(store, missing, sizes, report)
    machine = replace(machine, stop_file=str(store.root / f".stop-{uuid.uuid4().hex[:8]}"))
    if not missing:
        return Swept(failed, 0)
    with contextlib.ExitStack() as stack:
        stack.callback(Path(str(machine.stop_file)).unlink, missing_ok=True)
        if executor is None:
            executor = stack.enter_context(_pool(min(jobs or machine.default_jobs(), len(missing))))
        try:
            sweep.run(executor, machine)
        except KeyboardInterrupt:
            Path(str(machine.stop_file)).touch()
            sweep.drain()
        except BaseException:
            Path(str(machine.stop_file)).touch()
            wait(sweep.running)
            raise
    return Swept(failed | sweep.failed, len(missing) - sweep.finished)


def _pool(jobs: int) -> ProcessPoolExecutor:
    # Ctrl-C reaches every process of the terminal; workers leave it to the sweep, which asks them
    # to stop.
    return ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )


class _Sweep:
    def __init__(
        self,
        store: Store,
        missing: list[RunConfig],
        sizes: dict[str, int],
        report: Callable[[Progress], None],
    ):
        self.store = store
        self.sizes = sizes
        self.report = report
        self.waiting = {config.id: config for config in missing}
        self.running: dict[Future[tuple[str, str | None]], RunConfig] = {}
        self.failed: dict[str, str] = {}
        self.finished = 0
        self.total = len(missing)
        self.done_passes = 0
        self.paused = False

    def run(self, executor: Executor, machine: Machine) -> None:
        while self.running or (self.waiting and not self.paused):
            if machine.deadline is not None and time.time() > machine.deadline:
                self.paused = True
            for config in self._ready():
                del self.waiting[config.id]
                future = executor.submit(_work, config, str(self.store.root), machine)
                self.running[future] = config
            done, _ = wait(self.running, timeout=0.5, return_when=FIRST_COMPLETED)
            self._collect(done)
            self._tell()

    def drain(self) -> None:
        """Wait for what is running to save its state."""
        self.paused = True
        self._collect(wait(self.running).done)

    def _ready(self) -> list[RunConfig]:
        if self.paused:
            return []
        pending = self.waiting.keys() | {config.id for config in self.running.values()}
        return [
            c
            for c in self.waiting.values()
            if c.parent is None or c.parent.config.id not in pending
        ]

    def _collect(self, done: Iterable[Future[tuple[str, str | None]]]) -> None:
        for future in done:
            config = self.running.pop(future)
            status, failure = future.result()
            if status == "paused":
                self.paused = True
                continue
            self.finished += 1
            self.done_passes += self.sizes[config.id]
            if failure:
                self.failed[config.id] = failure

    def _tell(self) -> None:
        under_way = sum(self._partial(config) for config in self.running.values())
        self.report(
            Progress(
                self.finished, self.total, self.done_passes + under_way, sum(self.sizes.values())
            )
        )

    def _partial(self, config: RunConfig) -> int:
        try:
            return int(
                json.loads((self.store.folder(config) / "progress.json").read_bytes())["done"]
            )
        except (OSError, ValueError, KeyError):
            return 0


def _work(config: RunConfig, root: str, machine: Machine) -> tuple[str, str | None]:
    if machine.asks_to_stop():
        return "paused", None
    try:
        return "done", execute(config, Store(root), machine).failure
    except Paused:
        return "paused", None


@contextlib.contextmanager
def bar(description: str) -> Iterator[Callable[[Progress], None]]:
    """A progress bar over passes, with the time left; give what it yields as `report`."""
    with tqdm(
        desc=description, unit="img", unit_scale=True, dynamic_ncols=True, leave=True
    ) as shown:

        def report(progress: Progress) -> None:
            shown.total = progress.total_passes
            shown.set_postfix_str(f"{progress.runs}/{progress.total_runs} runs", refresh=False)
            shown.update(progress.passes - shown.n)

        yield report


# Assumed of an H100 and not measured here: what launching one eager training step of a small
# network takes, and the rate of floating-point operations that larger ones sustain.
_H100_STEP = 5e-3
_H100_RATE = {"fp32": 6e13, "bf16": 1.5e14}


def estimate(
    configs: Sequence[RunConfig], machine: Machine, jobs: int, steps: int = 8
) -> dict[str, float]:
    """Predict the cost of runs on this machine from a few real training steps of each kind of
    network, and on an H100 from assumed speeds.

    Returns `passes` (images sent backward), `core_seconds`, `seconds` with `jobs` runs at once, and
    `h100_seconds`, one run at a time. Raises what the data raise.
    """
    sizes = work(configs, machine)
    rates: dict[str, tuple[float, float]] = {}
    seconds = assumed = 0.0
    for config in configs:
        key = repr((config.data, config.model, config.training, config.threads))
        if key not in rates:
            rates[key] = _seconds_per_image(config, machine, steps)
        here, there = rates[key]
        seconds += sizes[config.id] * here
        assumed += sizes[config.id] * there
    return {
        "runs": len(configs),
        "passes": sum(sizes.values()),
        "core_seconds": seconds,
        "seconds": seconds / max(1, min(jobs, len(configs) or 1)),
        "h100_seconds": assumed,
    }


def _seconds_per_image(config: RunConfig, machine: Machine, steps: int) -> tuple[float, float]:
    import torch

    from lthlib.masks import Mask

    torch.set_num_threads(config.threads)
    trainer = build_trainer(config, machine)
    step = trainer.masked_step(Mask.full(trainer.group("weights"), trainer.names), trainer.steps())
    trainer.fit(step, stop=2)
    trainer.step, before = 0, trainer.cost.seconds
    images = trainer.cost.images
    trainer.fit(step, stop=steps)
    here = (trainer.cost.seconds - before) / (trainer.cost.images - images)
    computing = 3 * trainer.flops_per_image() / _H100_RATE[config.training.precision]
    return here, max(_H100_STEP / config.training.batch_size, computing)
