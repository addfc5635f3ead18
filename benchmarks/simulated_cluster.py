"""What a cluster costs beside training: Dask's overhead with runs that sleep, the store's, a plan.

`python -m benchmarks.simulated_cluster` writes results/bench/DATE-cluster.json. Sleeping is real
time; 64 workers live in this process, and so share its few cores with the scheduler and the sweep,
which real ones do not.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.report import report
from benchmarks.timing import Row, row
from companion.cluster import DaskExecutor
from companion.forecast import SETS, bill, size_of
from companion.studies import ticket_study
from lthlib.masks import Mask, prunable_names
from lthlib.models import build_model
from lthlib.recipes import load_recipe
from lthlib.runs import Machine, Parent, RunConfig, Store, execute, execute_many, with_ancestors
from lthlib.runs.execution import expected_passes
from lthlib.runs.many import work
from lthlib.tickets import Ticket

# Assumed of an H100 and not measured here: what one training step of a small network takes, and
# the rate of floating-point operations that larger ones sustain.
H100_STEP = 2e-3
H100_RATE = {"fp32": 3e13, "tf32": 1e14, "bf16": 1.5e14}
WORKERS = 64
GPUS = (1, 8, 64)
STUDIES = ("bip-cifar10-resnet20", "cs-resnet20", "bip-tiny-resnet18", "bip-imagenet")
DENSE = RunConfig.from_json(
    {
        "data": {"dataset": "digits", "train_images": 200, "validation_images": 40},
        "model": {"architecture": "resnet8", "width": 2, "shortcut": "projection"},
        "training": {"length": "6it", "batch_size": 32},
    }
)


class Asleep(Executor):
    """Sends naps to a Dask cluster in the place of runs. seconds: how long a run's nap is."""

    def __init__(self, client: Any, seconds: Callable[[RunConfig], float]):
        self.room = DaskExecutor(client).room
        self._inner = client.get_executor(pure=False)
        self._seconds = seconds

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._inner.submit(nap, self._seconds(args[0]), *args)


def nap(seconds: float, *run: object) -> tuple[str, None]:
    """What a worker does for a run: sleep."""
    time.sleep(seconds)
    return "done", None


def replicates(count: int) -> list[RunConfig]:
    """Runs that differ by their seeds alone."""
    return [DENSE.changed(seed=seed) for seed in range(count)]


def slept(
    runs: Sequence[RunConfig], seconds: Callable[[RunConfig], float], workers: int
) -> tuple[float, float, int]:
    """Seconds of a sweep of naps, from its call to its return: on the wall, and of computing in
    this process, workers included. And the runs in it."""
    import dask
    from distributed import Client, LocalCluster

    # What workers do to watch themselves, real ones do on cores of their own.
    quiet = {"distributed.worker.profile.enabled": False}
    quiet |= {"distributed.admin.system-monitor.interval": "1h"}
    options: dict[str, Any] = {"processes": False, "protocol": "tcp://", "memory_limit": 0}
    options |= {"threads_per_worker": 1, "dashboard_address": None}
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(quiet),
        LocalCluster(n_workers=workers, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        pool = Asleep(client, seconds)
        start, computed = time.perf_counter(), time.process_time()
        swept = execute_many(runs, Store(folder), executor=pool, room=pool.room)
        wall, computed = time.perf_counter() - start, time.process_time() - computed
    assert (swept.failed, swept.unfinished) == ({}, 0)
    return wall, computed, len(with_ancestors(runs))


def dask_rows(nap_seconds: float, rounds: int, many: int, mean: float) -> Iterator[Row]:
    """Efficiency of naps of one length, overhead of naps of none, and a study's graph."""
    runs = replicates(WORKERS * rounds)
    wall, _, count = slept(runs, lambda run: nap_seconds, WORKERS)
    efficiency = 100 * count * nap_seconds / (WORKERS * wall)
    note = f"{count} naps of {nap_seconds:g} s on {WORKERS} workers: {wall:.1f} s"
    aim: dict[str, Any] = {"target": ">= 90 %", "met": efficiency >= 90, "note": note}
    yield row("efficiency", efficiency, "%", **aim)
    wall, computed, count = slept(replicates(many), lambda run: 0.0, WORKERS)
    note = f"{count} runs of no length on {WORKERS} workers: {wall:.1f} s, {computed:.1f} computing"
    yield row("overhead of a run", 1000 * computed / count, "ms", note=note)
    yield graph_row(mean)


def graph_row(mean: float) -> Row:
    """The embedded study's graph, asleep: what the model predicts (reference) and what it took."""
    runs = with_ancestors(ticket_study(load_recipe("digits")).configs)
    sizes = work(runs, Machine(device="cpu"))
    scale = mean * len(runs) / sum(sizes.values())
    seconds = {run: scale * size for run, size in sizes.items()}
    predicted = makespan(runs, seconds, WORKERS)
    wall, _, count = slept(runs, lambda run: seconds[run.id], WORKERS)
    note = f"{count} runs, {mean:g} s on average, on {WORKERS} workers; reference: predicted"
    return row("study's graph", wall, "s", predicted, note=note)


def makespan(runs: Sequence[RunConfig], seconds: Mapping[str, float], workers: int) -> float:
    """Seconds until all runs are done: a free worker takes the run that has been ready longest, and
    a run is ready when its parent is done. seconds: by run id."""
    children: defaultdict[str, list[str]] = defaultdict(list)
    for run in runs:
        children[run.parent.config.id if run.parent else ""].append(run.id)
    ready = deque(children[""])
    busy: list[tuple[float, str]] = []
    now = 0.0
    while ready or busy:
        while ready and len(busy) < workers:
            run_id = ready.popleft()
            heapq.heappush(busy, (now + seconds[run_id], run_id))
        now, done = heapq.heappop(busy)
        ready += children[done]
    return now


class Instant(Executor):
    """Runs nothing and says that it is done."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(("done", None))
        return future


def bookkeeping_row(count: int) -> Row:
    """What a sweep itself takes a run: ids, looking into the store, order, counting."""
    runs = replicates(count)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        execute_many(runs, Store(folder), executor=Instant(), room=lambda: 2 * WORKERS)
        wall = time.perf_counter() - start
    note = f"{count} runs, none of them computed: {wall:.1f} s"
    return row("bookkeeping of a run", 1000 * wall / count, "ms", note=note)


def store_rows() -> Iterator[Row]:
    """Operations on the store, and bytes in it, of a run that trains and of one that prunes it."""
    omp = DENSE.changed(method="omp", settings=None, parent=Parent(DENSE, "dense"))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder).resolve())
        counts = watched(store.root)
        for run in (DENSE, omp):
            counts.clear()
            execute(run, store, Machine(device="cpu"))
            note = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
            yield row(f"store operations of {run.method}", counts.total(), "", note=note)
            size = (store.folder(run) / "run.json").stat().st_size
            yield row(f"record of {run.method}", size / 2**10, "KiB")


def watched(root: Path) -> Counter[str]:
    """Counts what this process does below a folder from now on; asking for a file's state is not
    among what Python tells."""
    counts: Counter[str] = Counter()
    names = {"os.rename": "renames", "os.remove": "removals", "os.mkdir": "folders made"}
    names |= {"os.rmdir": "folders removed", "os.listdir": "listings", "os.scandir": "listings"}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if (event != "open" and event not in names) or not str(arguments[0]).startswith(str(root)):
            return
        opened = "writes" if event == "open" and arguments[2] & 3 else "reads"
        counts[names.get(event, opened)] += 1

    sys.addaudithook(hook)
    return counts


def ticket_rows() -> Iterator[Row]:
    """Bytes of a ticket with its own weights; the rewind point, one for all tickets of a run, takes
    as many again."""
    for study in STUDIES:
        run = ticket_study(load_recipe(study)).configs[0]
        network = build_model(run.model, SETS[run.data.dataset][1], 3, 0)
        state = dict(network.state_dict())
        mask = Mask.full(state, prunable_names(network, run.model.prunable))
        yield row(f"{study}: ticket", len(Ticket(mask, weights=state).to_bytes()) / 2**20, "MiB")


def plan_rows(study: str) -> Iterator[Row]:
    """What a study at a paper's scale is, and the days it takes on H100s at assumed speeds."""
    runs = with_ancestors(ticket_study(load_recipe(study)).configs)
    passes = {run.id: expected_passes(run, size_of(run)[0]) for run in runs}
    flops = sum(3 * passes[run.id] * size_of(run)[1] for run in runs)
    yield row(f"{study}: runs", len(runs), "")
    yield row(f"{study}: epochs", bill(runs).epochs, "")
    yield row(f"{study}: operations", flops / 1e18, "EFLOP")
    seconds = {run.id: passes[run.id] * seconds_per_image(run) for run in runs}
    for workers in GPUS:
        yield row(f"{study}: {_gpus(workers)}", makespan(runs, seconds, workers) / 3600, "h")


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def seconds_per_image(run: RunConfig) -> float:
    """Forward and backward on an H100, at the speeds assumed above."""
    computing = 3 * size_of(run)[1]
    rate = H100_RATE[run.training.precision]
    return max(H100_STEP / run.training.batch_size, computing / rate)


def many_rows(measured: Sequence[Row], count: int = 100_000) -> Iterator[Row]:
    """What follows for very many runs of a minute each, on the GPUs and in the store."""
    found = {line["name"]: line["ours"] for line in measured}
    group = f"{count:,} runs of a minute"
    for workers in GPUS:
        yield row(f"{group}: {_gpus(workers)}", count / 60 / workers, "h")
    # A sweep's own process and Dask's scheduler hand out one run after another.
    overhead = found["overhead of a run"] / 1000
    yield row(f"{group}: overhead", count * overhead / 60, "min")
    yield row("workers fed with runs of a minute", 60 / overhead, "")
    yield row(
        f"{group}: store operations", count * found["store operations of dense"] / 1e6, "million"
    )
    yield row(f"{group}: records", count * found["record of dense"] / 2**20, "GiB")


def main() -> None:
    """Measure and write results/bench/DATE-cluster.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulated_cluster")
    parser.add_argument("--tiny", action="store_true", help="short naps and few, to see it runs")
    parser.add_argument("--output", type=Path, help="file to write")
    options = parser.parse_args()
    report(all_rows(options.tiny), "cluster", options.output)


def all_rows(tiny: bool) -> Iterator[Row]:
    """All that is measured or planned; what follows for many runs comes last."""
    extent = (0.05, 1, 64, 0.02) if tiny else (60.0, 3, 5_000, 20.0)
    plans = map(plan_rows, STUDIES[:1] if tiny else STUDIES)
    first = [bookkeeping_row(100 if tiny else 100_000)]
    rows = []
    for one in chain(first, store_rows(), *plans, ticket_rows(), dask_rows(*extent)):
        rows.append(one)
        yield one
    yield from many_rows(rows)


if __name__ == "__main__":
    main()
