"""Executing many runs: each once, parents first, through any `concurrent.futures.Executor`."""

import contextlib
import json
import logging
import math
import os
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import InitVar, dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from lthlib.bars import bar_of_images
from lthlib.devices import named
from lthlib.distributed import current
from lthlib.errors import Busy, ClusterError, OutOfMemory, Paused
from lthlib.leases import Watch
from lthlib.runs.config import RunConfig
from lthlib.runs.execution import Machine, execute, expected_passes, steps_per_epoch
from lthlib.runs.store import PROGRESS, Store
from lthlib.workers import Workers, begun

log = logging.getLogger(__name__)
_INTERVAL = 0.5  # seconds between looks at what others do


@dataclass
class Progress:
    """How far a set of runs has come.

    Attributes:
        runs: that are done.
        total_runs: in all.
        passes: images that were sent backward.
        total_passes: in all.
    """

    runs: int
    total_runs: int
    passes: int
    total_passes: int


@dataclass
class Swept:
    """What a sweep left.

    Attributes:
        failed: the reason, by id of the runs that failed, now or before. Those that memory did not
            hold are among them, but not recorded: the next sweep tries them again.
        unfinished: how many runs were not finished.
    """

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


def work(configs: Sequence[RunConfig], machine: Machine) -> dict[str, int]:
    """Count the images that each run will send backward.

    No GPU is needed: the one who hands out runs need not have any.

    Args:
        configs: of the runs.
        machine: says where the data are.

    Returns:
        Images by the run's id; ancestors are not counted.
    """
    steps: dict[str, int] = {}
    passes = {}
    for config in configs:
        key = repr((config.data, config.training.batch_size))
        if key not in steps:
            steps[key] = steps_per_epoch(config, machine)
        passes[config.id] = expected_passes(config, steps[key])
    return passes


def execute_many(
    configs: Iterable[RunConfig],
    store: Store,
    machine: Machine | None = None,
    *,
    executor: Executor | None = None,
    jobs: int | None = None,
    per_device: int | None = None,
    room: Callable[[], int] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Swept:
    """Execute runs that are not complete, several at once.

    Stops cleanly at the machine's deadline and on Ctrl-C: what was under way is saved, and the next
    call goes on from there. A run that another process computes is left to it, and what is free is
    taken first. A run whose process died is handed out again and goes on from its checkpoint; one
    that memory did not hold is tried again when it is alone. Where torchrun started several ranks,
    each run is shared by all of them, and runs follow one another.

    Args:
        configs: of the runs; their ancestors are executed first.
        store: where they are kept.
        machine: where and until when they are executed; see `execute`.
        executor: where they run; by default in processes of this machine, one a GPU or one a core.
        jobs: as many processes instead, spread over the GPUs there are.
        per_device: runs at once on each GPU, in threads of one process; on a CPU, in processes.
        room: how many runs an executor of yours may hold at once; by default all that can begin.
        report: called about twice a second.

    Returns:
        Which runs failed, and how many are not finished.

    Raises:
        ClusterError: a process died again, and its run had got no further.
        Exception: the first error that is not a run's own failure; what was under way is saved.
    """
    machine = machine or Machine()
    if current().world > 1:
        return _execute_together(with_ancestors(configs), store, machine, report)
    stored = [(config, store.load(config)) for config in with_ancestors(configs)]
    missing = [config for config, result in stored if result is None]
    failed = {config.id: result.failure for config, result in stored if result and result.failure}
    if not missing or machine.asks_to_stop():
        return Swept(failed, len(missing))
    store.prepare()
    sizes = work(missing, machine)
    root = store.root.resolve()  # workers may stand in other folders
    data_root = str(Path(machine.data_root).resolve()) if machine.data_root else None
    stop_file = str(root / f".stop-{uuid.uuid4().hex[:8]}")
    machine = replace(machine, stop_file=stop_file, data_root=data_root)
    with contextlib.ExitStack() as stack:
        stack.callback(Path(str(machine.stop_file)).unlink, missing_ok=True)
        if executor is None:
            devices, threads = places(machine, len(missing), jobs, per_device)
            at_once = len(devices) * threads
            _log_devices(machine, len(set(devices)), f"{at_once} at once")
            if machine.torch_device().type == "cpu":
                machine = replace(machine, device="cpu")  # not each process tells why
            workers = Workers(devices, threads, machine.deadline, machine.stop_file)
            executor, room = stack.enter_context(workers), lambda: at_once
        sweep = _Sweep(Store(root), missing, sizes, room or (lambda: len(missing)), report)
        try:
            sweep.run(executor, machine)
        except KeyboardInterrupt:
            _ask_to_stop(machine)
            sweep.paused = True
            sweep._collect_results(wait(sweep.running).done)
        except BaseException:
            _ask_to_stop(machine)
            wait(sweep.running)
            raise
    return Swept(failed | sweep.failed, len(missing) - sweep.finished)


def _execute_together(
    configs: list[RunConfig], store: Store, machine: Machine, report: Callable[[Progress], None]
) -> Swept:
    ranks = current()
    # Rank 0 decides what is missing: others may read the store a moment later.
    failures = ranks.first(lambda: {c.id: r.failure for c in configs if (r := store.load(c))})
    missing = [config for config in configs if config.id not in failures]
    _log_devices(machine, ranks.world, f"{ranks.world} ranks")
    sweep = _Sweep(store, missing, work(missing, machine), lambda: 1, report)
    waiting = deque(missing)
    skipped = 0
    while waiting and not ranks.any(machine.asks_to_stop()):
        config = waiting.popleft()
        future: Future[tuple[str, str | None]] = Future()
        sweep.running[future] = config
        try:
            with sweep.reporting():
                # Where others compute all that is left, the first of it is waited for.
                result = execute(config, store, machine, wait=skipped > len(waiting))
        except Busy:
            del sweep.running[future]
            waiting.append(config)
            skipped += 1
            continue
        except Paused:
            break
        skipped = 0
        future.set_result(("done", result.failure))
        sweep._collect_results([future])
        sweep._report_progress()
    failed = {run_id: reason for run_id, reason in failures.items() if reason}
    return Swept(failed | sweep.failed, len(missing) - sweep.finished)


def gpus(machine: Machine) -> list[str]:
    """The GPUs that runs may be spread over, as CUDA_VISIBLE_DEVICES names them.

    Args:
        machine: where runs are executed.

    Returns:
        Names; none on a CPU, and none where the machine names one GPU.
    """
    if str(machine.torch_device()) != "cuda":
        return []
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return visible.split(",")[:count]


def default_jobs(machine: Machine) -> int:
    """Runs at once where nobody says: one a GPU, or one a core of a CPU."""
    on_gpu = machine.torch_device().type != "cpu"
    return len(gpus(machine)) or (1 if on_gpu else os.cpu_count() or 1)


def places(
    machine: Machine, runs: int, jobs: int | None = None, per_device: int | None = None
) -> tuple[list[str], int]:
    """Where `execute_many` computes so many runs.

    Args:
        machine: where runs are executed.
        runs: how many there are.
        jobs: as of `execute_many`.
        per_device: as of `execute_many`.

    Returns:
        The GPU that each of its processes sees, empty for none in particular, and the number of
        threads of each.
    """
    devices = gpus(machine)
    count = jobs or per_device or default_jobs(machine)
    shared = per_device if machine.torch_device().type == "cuda" else None
    if shared:
        count = len(devices) or 1
    taken = list(islice(cycle(devices or [""]), min(count, runs)))
    return taken, min(shared or 1, math.ceil(runs / len(taken)))


def _log_devices(machine: Machine, devices: int, sharing: str) -> None:
    device = machine.torch_device()
    more = f" and {devices - 1} more" if device.type == "cuda" and devices > 1 else ""
    log.info("on %s%s, %s", named(device), more, sharing)


def _ask_to_stop(machine: Machine) -> None:
    with contextlib.suppress(OSError):  # such as a full disk, which stops the others as well
        Path(str(machine.stop_file)).touch()


@dataclass
class _Sweep:
    store: Store
    missing: InitVar[list[RunConfig]]
    sizes: dict[str, int]
    room: Callable[[], int]
    report: Callable[[Progress], None]
    ready: deque[RunConfig] = field(default_factory=deque)
    children: defaultdict[str, list[RunConfig]] = field(default_factory=lambda: defaultdict(list))
    running: dict[Future[tuple[str, str | None]], RunConfig] = field(default_factory=dict)
    elsewhere: dict[str, tuple[RunConfig, Watch]] = field(default_factory=dict)
    looked: float = 0.0
    lost: dict[str, int] = field(default_factory=dict)
    crowded: deque[RunConfig] = field(default_factory=deque)
    failed: dict[str, str] = field(default_factory=dict)
    finished: int = 0
    done_passes: int = 0
    reported: float = 0.0
    paused: bool = False

    def __post_init__(self, missing: list[RunConfig]) -> None:
        for config in missing:
            parent = config.parent.config.id if config.parent else ""
            (self.children[parent] if parent in self.sizes else self.ready).append(config)

    def run(self, executor: Executor, machine: Machine) -> None:
        while self.running or ((self.ready or self.elsewhere or self.crowded) and not self.paused):
            if machine.deadline is not None and time.time() > machine.deadline:
                self.paused = True
            self._take_up_again()
            if self.crowded and not (self.running or self.ready):
                self.ready.append(self.crowded.popleft())
            free = 0 if self.paused else self.room() - len(self.running)
            for _ in range(min(free, len(self.ready))):
                config = self.ready.popleft()
                future = executor.submit(_execute_one, config, str(self.store.root), machine)
                self.running[future] = config
            if self.running:
                self._collect_results(wait(self.running, _INTERVAL, FIRST_COMPLETED).done)
            elif not self.paused:
                time.sleep(_INTERVAL)  # all that is left is computed elsewhere
            self._report_progress()

    def _take_up_again(self) -> None:
        """Take up again what others computed, or gave up."""
        if time.monotonic() - self.looked < _INTERVAL:
            return
        for config, watch in list(self.elsewhere.values()):
            if not watch.held():
                del self.elsewhere[config.id]
                self.ready.appendleft(config)
        self.looked = time.monotonic()

    def _collect_results(self, done: Iterable[Future[tuple[str, str | None]]]) -> None:
        for future in done:
            config = self.running.pop(future)
            try:
                status, failure = future.result()
            except BrokenExecutor as error:
                if not self.paused:
                    self._hand_out_again(config, error)
                continue
            if status == "paused":
                self.paused = True
                continue
            if status == "busy":
                self.elsewhere[config.id] = config, self.store.watch(config)
                continue
            if status == "memory":
                self._try_alone(config, str(failure))
                continue
            self.finished += 1
            self.done_passes += self.sizes[config.id]
            self.ready += self.children[config.id]
            if failure:
                self.failed[config.id] = failure

    def _try_alone(self, config: RunConfig, reason: str) -> None:
        """Try it again when it is alone; after that, neither it nor its children can be had."""
        if config.id not in self.lost:
            self.lost[config.id] = self._passes_so_far(config)
            self.crowded.append(config)
            return
        waiting = deque([(config, reason)])
        while waiting:
            config, reason = waiting.popleft()
            self.finished += 1
            self.failed[config.id] = reason
            reason = f"its parent {config.id} failed: {reason}"
            waiting += [(child, reason) for child in self.children[config.id]]

    def _hand_out_again(self, config: RunConfig, error: BrokenExecutor) -> None:
        passes = self._passes_so_far(config)
        if passes <= self.lost.get(config.id, -1):
            raise ClusterError(
                f"run {config.id} ({config.describe()}) lost its process twice and got no further; "
                "run fewer at once, or look for who kills them. The same command goes on from there"
            ) from error
        self.lost[config.id] = passes
        self.ready.appendleft(config)

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """Report meanwhile from a thread, where a run takes this one."""
        done = threading.Event()

        def report_until_done() -> None:
            while not done.wait(_INTERVAL):
                self._report_progress()

        thread = threading.Thread(target=report_until_done, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _report_progress(self) -> None:
        # Each run under way is a file to read.
        if self.running and time.monotonic() - self.reported < _INTERVAL:
            return
        passes = self.done_passes + sum(map(self._passes_so_far, self.running.values()))
        total = sum(self.sizes.values())
        self.report(Progress(self.finished, len(self.sizes), passes, total))
        self.reported = time.monotonic()

    def _passes_so_far(self, config: RunConfig) -> int:
        try:
            return int(json.loads((self.store.folder(config) / PROGRESS).read_bytes())["done"])
        except (OSError, ValueError, KeyError):
            return 0


def _execute_one(config: RunConfig, root: str, machine: Machine) -> tuple[str, str | None]:
    begun.set()
    if machine.asks_to_stop():
        return "paused", None
    try:
        return "done", execute(config, Store(root), machine, wait=False).failure
    except Busy:
        return "busy", None
    except OutOfMemory as error:
        return "memory", str(error)
    except Paused:
        return "paused", None


@contextlib.contextmanager
def bar(description: str) -> Iterator[Callable[[Progress], None]]:
    """A progress bar over passes, with the time left; what lthlib logs meanwhile stands above it.

    Args:
        description: stands before the bar.

    Yields:
        What `execute_many` takes as `report`.
    """
    logger = logging.getLogger("lthlib")
    logger.setLevel(logger.level or logging.INFO)
    with logging_redirect_tqdm([logger]), bar_of_images(description) as images:

        def report(progress: Progress) -> None:
            images.total = progress.total_passes
            images.set_postfix_str(f"{progress.runs}/{progress.total_runs} runs", refresh=False)
            images.update(progress.passes - images.n)

        yield report
