"""Many runs: parents first, each once, stopped and continued, through any executor."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lthlib import turns
from lthlib.errors import Busy, ClusterError, DataError, OutOfMemory, Paused, StoreError
from lthlib.models import ARCHITECTURES
from lthlib.runs import (
    Machine,
    Progress,
    RunConfig,
    Store,
    execute,
    execute_many,
    with_ancestors,
)
from lthlib.runs.execution import expected_passes
from lthlib.runs.many import gpus, places, work
from lthlib.runs.upkeep import verify
from lthlib.workers import Workers
from tests.conftest import DEVICES
from tests.runs.toys import child, config

DENSE = config()
IMP = config("imp", settings={"rounds": 1, "fraction": 0.5, "rewind": "2it"})
STUDY = [
    child("omp", DENSE),
    child("retrain", IMP, "round-1", settings={"start": "own"}),
    DENSE,
    child("bip", DENSE, settings={"density": 0.2}),
    child("omp", DENSE, settings={"density": 0.5}),
]


class InPlace(Executor):
    """Runs what it is given at once, in this process; notes the order."""

    def __init__(self, stop_after: int = 1000) -> None:
        self.order: list[str] = []
        self.stop_after = stop_after

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if len(self.order) == self.stop_after:
            future.set_result(("paused", None))
            return future
        self.order.append(args[0].id)
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def plain(store: Store, runs: list[RunConfig]) -> list[Any]:
    """Records without clock and machine."""
    found = []
    for run in runs:
        result = store.load(run)
        assert result is not None
        records = json.loads(json.dumps(result.records))
        for record in records:
            del record["provenance"]
            for cost in record["cost"].values():
                del cost["seconds"]
        found.append(records)
    return found


def test_ancestors_come_first_and_once() -> None:
    retrained = child("retrain", STUDY[0], "ticket")
    ordered = with_ancestors([retrained, *STUDY, retrained])
    assert ordered == [DENSE, STUDY[0], retrained, IMP, STUDY[1], STUDY[3], STUDY[4]]


def test_parents_run_before_children_and_nothing_runs_twice(store: Store) -> None:
    executor = InPlace()
    told: list[Progress] = []
    swept = execute_many(STUDY, store, executor=executor, report=told.append)
    assert (swept.failed, swept.unfinished) == ({}, 0)
    assert len(executor.order) == len(set(executor.order)) == 6
    place = executor.order.index
    for run in STUDY:
        if run.parent is not None:
            assert place(run.parent.config.id) < place(run.id)
    assert (told[-1].runs, told[-1].total_runs) == (6, 6)
    assert told[-1].passes == told[-1].total_passes > 0
    again = InPlace()
    assert execute_many(STUDY, store, executor=again).unfinished == 0
    assert again.order == []


def test_the_expected_work_is_what_is_done(store: Store) -> None:
    runs = [*STUDY, child("bip", DENSE, settings={"variant": "release"})]
    runs += [config("cs", settings={"temperature_per": "step", "rewind": "1it", "rounds": 2})]
    runs += [child("random", DENSE), child("omp", DENSE, settings={"length": "9it"})]
    sizes = work(runs, Machine())
    for run in runs:
        records = execute(run, store).records
        # 160 images in 5 full batches: exact.
        assert records[-1]["cost"]["own"]["backward_passes"] == sizes[run.id]
    assert expected_passes(DENSE, 5) == 6 * 32


def test_a_sweep_that_is_stopped_goes_on_and_ends_as_if_it_had_not_been(
    store: Store, tmp_path: Path
) -> None:
    stopped = execute_many(STUDY, store, executor=InPlace(stop_after=2))
    assert stopped.unfinished == 4
    late = Machine(deadline=time.time() - 1)
    idle = InPlace()
    assert execute_many(STUDY, store, late, executor=idle).unfinished == 4
    assert idle.order == []
    assert execute_many(STUDY, store, executor=InPlace()).unfinished == 0
    other = Store(tmp_path / "other")
    execute_many(STUDY, other, executor=InPlace())
    everything = with_ancestors(STUDY)
    assert plain(store, everything) == plain(other, everything)
    assert list(verify(store)) == []


LONG = config(training={"length": "100000it"})


def test_an_interrupt_stops_real_processes_with_their_state_saved(store: Store) -> None:
    runs = [LONG.changed(seed=seed) for seed in range(6)]

    def interrupt(progress: Progress) -> None:
        if progress.passes > 0:
            raise KeyboardInterrupt

    swept = execute_many(runs, store, jobs=2, report=interrupt)
    assert (swept.failed, swept.unfinished) == ({}, 6)
    # Those that waited for a process have not begun.
    assert len(list(store.root.glob("runs/*/checkpoint.safetensors"))) in (1, 2)
    assert not list(store.root.glob(".stop-*"))


def test_a_deadline_within_a_run_saves_it(store: Store) -> None:
    with pytest.raises(Paused, match="the state is saved"):
        execute(LONG, store, Machine(deadline=time.time()))
    assert (store.folder(LONG) / "checkpoint.safetensors").exists()
    progress = json.loads((store.folder(LONG) / "progress.json").read_bytes())
    assert 0 < progress["done"] < progress["total"] == 100_000 * 32


def test_a_failed_run_does_not_stop_the_others(store: Store) -> None:
    wild = config(training={"learning_rate": 1e9, "schedule": "constant", "length": "11it"})
    runs = [child("omp", wild), *STUDY]
    # The second time the failures are read from the store, the third time beside a new run.
    for added in ([], [], [config(seed=7)]):
        swept = execute_many([*runs, *added], store, executor=InPlace())
        assert swept.unfinished == 0
        assert set(swept.failed) == {wild.id, runs[0].id}
        assert swept.failed[wild.id].startswith("the loss became NaN or infinite")
        assert swept.failed[runs[0].id].startswith(f"its parent {wild.id} failed")
    assert all(store.load(run) is not None for run in STUDY)


def raises(*arguments: object) -> None:
    raise StoreError("the disk is gone")


class Unlucky(ThreadPoolExecutor):
    """Two threads; the dense run meets an error that is not its own."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(raises if args[0].id == DENSE.id else fn, *args, **kwargs)


def test_an_error_that_is_no_run_s_own_is_raised_and_the_rest_is_stopped(store: Store) -> None:
    with Unlucky(2) as executor, pytest.raises(StoreError, match="the disk is gone"):
        execute_many([LONG, DENSE], store, executor=executor)
    assert not list(store.root.glob(".stop-*"))
    assert store.load(LONG) is None


class Dying(InPlace):
    """Loses the process of each run `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.lives: dict[str, int] = {}

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        run = args[0].id
        self.lives[run] = self.lives.get(run, 0) + 1
        if self.lives[run] > self.times:
            return super().submit(fn, *args, **kwargs)
        future: Future[Any] = Future()
        future.set_exception(BrokenExecutor())
        return future


def test_a_run_whose_process_dies_is_handed_out_again(store: Store) -> None:
    executor = Dying(times=1)
    swept = execute_many(STUDY, store, executor=executor)
    assert (swept.failed, swept.unfinished) == ({}, 0)
    assert set(executor.lives.values()) == {2}


def test_a_run_that_dies_again_and_gets_no_further_ends_the_sweep(store: Store) -> None:
    with pytest.raises(ClusterError, match=f"run {DENSE.id} .* lost its process twice"):
        execute_many([DENSE], store, executor=Dying(times=2))


@pytest.mark.parametrize("device", DEVICES)
def test_a_process_that_is_killed_takes_only_its_run_with_it(
    store: Store, tmp_path: Path, device: str
) -> None:
    machine = Machine(device, checkpoint_every=0, deterministic=True)
    runs = [config(seed=seed, training={"length": "60it"}) for seed in range(3)]
    killed: list[int] = []

    def kill_one(progress: Progress) -> None:
        workers = multiprocessing.active_children()
        if progress.passes > 0 and not killed and workers:
            killed.append(workers[0].pid or 0)
            os.kill(killed[0], signal.SIGKILL)

    swept = execute_many(runs, store, machine, jobs=2, report=kill_one)
    assert (swept.failed, swept.unfinished, len(killed)) == ({}, 0, 1)
    alone = Store(tmp_path / "alone")
    for run in runs:
        execute(run, alone, machine)
    assert plain(store, runs) == plain(alone, runs)


@pytest.mark.parametrize(
    ("device", "visible", "how", "found"),
    [
        ("cpu", "0,1", {"jobs": 2}, (["", ""], 1)),
        ("cpu", "0,1", {"per_device": 3}, (["", "", ""], 1)),
        ("cuda", "0,1", {}, (["0", "1"], 1)),
        ("cuda", "0,1", {"jobs": 3}, (["0", "1", "0"], 1)),
        ("cuda", "GPU-5,GPU-7", {"jobs": 9}, (["GPU-5", "GPU-7", "GPU-5", "GPU-7"], 1)),
        ("cuda", "2,3", {"jobs": 1}, (["2"], 1)),
        ("cuda", "2,3", {"per_device": 1}, (["2", "3"], 1)),
        ("cuda", "2,3", {"per_device": 9}, (["2", "3"], 2)),
        ("cuda:1", "2,3", {"per_device": 3}, ([""], 3)),
    ],
)
def test_where_four_runs_are_computed(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str, how: Any, found: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert places(Machine(device=device), 4, **how) == found


@pytest.mark.parametrize(
    ("device", "visible", "found"),
    [
        ("cpu", "0,1", []),
        ("auto", "", ["0", "1"]),
        ("cuda", "", ["0", "1"]),
        ("cuda", "5,GPU-7", ["5", "GPU-7"]),
        ("cuda:1", "0,1", []),
    ],
)
def test_the_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str, found: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus(Machine(device=device)) == found


def test_missing_data_are_an_error_before_anything_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LTHLIB_DATA", raising=False)
    executor = InPlace()
    with pytest.raises(DataError, match="no data root for cifar10"):
        execute_many([DENSE, config(data={"dataset": "cifar10"})], store, executor=executor)
    assert executor.order == []


DRAWN = [
    # Gates that are drawn, several rounds, another precision.
    *(
        config("l0", seed=s, training={"length": "12it"}, settings={"rewind": "1it"})
        for s in (0, 1)
    ),
    config("imp", settings={"rounds": 2, "fraction": 0.5, "rewind": "2it"}, seed=2),
    config(seed=3, training={"precision": "bf16"}),
]


@pytest.mark.parametrize("device", DEVICES)
def test_runs_in_one_process_find_what_each_finds_alone(
    store: Store, tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)
    machine, alone = Machine(device, deterministic=device == "cuda"), Store(tmp_path / "alone")
    runs = [*DRAWN, child("bip", DENSE, settings={"density": 0.2})]
    with ThreadPoolExecutor(4) as executor:
        swept = execute_many(runs, store, machine, executor=executor)
    assert (swept.failed, swept.unfinished) == ({}, 0)
    for run in runs:
        execute(run, alone, machine)
    assert plain(store, runs) == plain(alone, runs)
    assert list(verify(store)) == []


@pytest.mark.parametrize("device", DEVICES)
def test_runs_in_threads_of_a_process_fail_and_stop_each_for_itself(
    store: Store, device: str
) -> None:
    wild = config(training={"learning_rate": 1e9, "schedule": "constant", "length": "11it"})
    runs = [LONG, wild, DENSE, LONG.changed(seed=1)]

    def interrupt(progress: Progress) -> None:
        if progress.runs == 2 and progress.passes > 1000:
            raise KeyboardInterrupt

    with Workers(threads=3) as pool:
        swept = execute_many(
            runs, store, Machine(device), executor=pool, room=lambda: 3, report=interrupt
        )
        assert len(multiprocessing.active_children()) == 1
    assert swept.failed.keys() == {wild.id}
    assert swept.unfinished == 2
    assert store.load(DENSE) is not None
    assert len(list(store.root.glob("runs/*/checkpoint.safetensors"))) == 2
    assert list((store.root / "locks").iterdir()) == []


class Greedy(torch.nn.Module):
    """Needs more memory than there is, the first `times` times."""

    times = 1

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and Greedy.times > 0:
            Greedy.times -= 1
            torch.empty(1 << 60)
        return self.linear(x.flatten(1))  # type: ignore[no-any-return]


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    build = replace(
        ARCHITECTURES["vgg16"], build=lambda settings, classes, channels: Greedy(classes)
    )
    monkeypatch.setitem(ARCHITECTURES, "vgg16", build)
    return config(model={"architecture": "vgg16", "shortcut": "identity"})


def test_a_run_that_memory_does_not_hold_beside_others_is_tried_again_alone(
    store: Store, greedy: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Greedy, "times", 1)
    executor = InPlace()
    swept = execute_many([greedy, *STUDY], store, executor=executor)
    assert (swept.failed, swept.unfinished) == ({}, 0)
    assert [executor.order.index(greedy.id), executor.order[-1]] == [0, greedy.id]


def test_a_run_that_memory_does_not_hold_fails_unrecorded_and_the_others_go_on(
    store: Store, greedy: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Greedy, "times", 2)
    pruned = child("omp", greedy, model={"architecture": "vgg16", "shortcut": "identity"})
    swept = execute_many([pruned, DENSE], store, executor=InPlace())
    assert swept.unfinished == 0
    assert set(swept.failed) == {greedy.id, pruned.id}
    why = swept.failed[greedy.id]
    assert why.startswith("memory does not hold it (") and "smaller training.batch_size" in why
    assert swept.failed[pruned.id] == f"its parent {greedy.id} failed: {why}"
    assert store.load(DENSE) is not None
    assert store.load(greedy) is None
    # Nothing is known of it: with more memory it is computed.
    again = execute_many([pruned], store, executor=InPlace())
    assert (again.failed, again.unfinished) == ({}, 0)


def test_a_single_run_that_memory_does_not_hold_is_an_error(
    store: Store, greedy: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Greedy, "times", 1)
    with pytest.raises(OutOfMemory, match="memory does not hold it"):
        execute(greedy, store)
    assert list((store.root / "locks").iterdir()) == []
    assert execute(greedy, store).failure is None


def compute(root: str, barrier: Any) -> str:
    barrier.wait()
    result = execute(DENSE, Store(root))
    return str(result.records[0]["provenance"]["started"]) + str(result.records[0]["cost"])


def test_two_processes_on_one_store_compute_a_run_once(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(2, mp_context=context) as pool:
        barrier = manager.Barrier(2)
        futures = [pool.submit(compute, str(store.root), barrier) for _ in range(2)]
        first, second = (future.result(timeout=120) for future in futures)
    # The same seconds to the last digit: one of them read what the other wrote.
    assert first == second
    assert list(verify(store)) == []


def test_a_run_that_another_process_computes_is_left_to_it(store: Store) -> None:
    theirs, *free = (config(seed=seed) for seed in range(3))
    runs = [theirs, child("omp", theirs), *free, child("omp", free[1])]
    executor = InPlace()
    store.prepare()
    with contextlib.ExitStack() as lease:
        lease.enter_context(store.lock(theirs))

        def compute_it_when_nothing_else_is_left(progress: Progress) -> None:
            if progress.runs == 3:
                lease.close()
                execute(theirs, store)

        swept = execute_many(
            runs, store, executor=executor, report=compute_it_when_nothing_else_is_left
        )
    assert (swept.failed, swept.unfinished) == ({}, 0)
    assert [run for run in executor.order if run != theirs.id] == [
        *(run.id for run in free), runs[4].id, runs[1].id,
    ]  # fmt: skip
    # Once to find that it is taken, once to find its result.
    assert executor.order.count(theirs.id) == 2


@pytest.mark.parametrize("wait", [True, False])
def test_a_run_whose_parent_another_process_computes_can_be_waited_for_or_not(
    store: Store, wait: bool
) -> None:
    store.prepare()
    late = Machine(deadline=time.time() + 0.5 if wait else None)
    with store.lock(DENSE), pytest.raises(Paused if wait else Busy, match="another process"):
        execute(child("omp", DENSE), store, late, wait=wait)


def test_a_deadline_passes_while_others_compute_all_that_is_left(store: Store) -> None:
    store.prepare()
    with store.lock(DENSE):
        swept = execute_many(
            [DENSE, child("omp", DENSE)], store, Machine(deadline=time.time() + 1), jobs=1
        )
    assert (swept.failed, swept.unfinished) == ({}, 2)
