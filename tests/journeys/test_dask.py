"""A sweep on Dask whose worker is killed ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from companion.cluster import DaskExecutor, dask_executor
from lthlib.runs import Machine, Progress, RunConfig, Store, execute, execute_many, with_ancestors
from lthlib.tickets import unseal
from tests.runs.toys import child, config

IMP = config("imp", settings={"rounds": 3, "rewind": "2it"}, training={"length": "150it"})
DENSE = config()
STUDY = [
    child("retrain", IMP, "round-1", settings={"start": "own"}),
    child("retrain", IMP, "round-3"),
    child("bip", DENSE, settings={"density": 0.2}),
    child("omp", DENSE),
]


def timeless(record: Any) -> Any:
    """A record without clock."""
    if isinstance(record, dict):
        kept = record.keys() - {"seconds", "started", "finished"}
        return {key: timeless(record[key]) for key in kept}
    return record


def tickets(store: Store, run: RunConfig) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.folder(run).glob("tickets/*")}


def judged_before(checkpoint: Path) -> list[Any]:
    """Records of the tickets that were judged before a checkpoint, in order."""
    try:
        _, text = unseal(checkpoint.read_bytes(), "checkpoint")
    except FileNotFoundError:
        return []
    return sorted(json.loads(text)["records"].values(), key=lambda r: r["ticket"]["index"])


def kill_the_worker_of(run: RunConfig, store: Store, pool: DaskExecutor, seen: list[Any]) -> None:
    """Once it has judged its first ticket and saved its state."""
    pids = pool.client.run(os.getpid)
    deadline = time.monotonic() + 120
    while not (found := judged_before(store.folder(run) / "checkpoint.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    seen.append(found[0])
    for address, keys in pool.client.processing().items():
        if any(run.id in key for key in keys):
            os.kill(pids[address], signal.SIGKILL)
            seen.append(address)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "ein Speicher, ünïcode")


@pytest.fixture(scope="module")
def pool() -> Iterator[DaskExecutor]:
    """Two worker processes."""
    with dask_executor(Machine(device="cpu"), workers=2) as started:
        assert started.dashboard.startswith("http://127.0.0.1:")
        yield started


def test_an_interrupt_stops_the_workers_of_a_cluster_that_was_joined(
    store: Store, pool: DaskExecutor
) -> None:
    runs = [config(seed=seed, training={"length": "100000it"}) for seed in range(6)]

    def interrupt(progress: Progress) -> None:
        if progress.passes > 0:
            raise KeyboardInterrupt

    address = pool.client.scheduler.address
    with dask_executor(Machine(device="cpu"), scheduler=address) as joined:
        swept = execute_many(runs, store, executor=joined, room=joined.room, report=interrupt)
    assert (swept.failed, swept.unfinished) == ({}, 6)
    assert len(list(store.root.glob("runs/*/checkpoint.safetensors"))) in (1, 2)
    assert not list(store.root.glob(".stop-*"))


def test_a_killed_worker_s_run_is_picked_up_by_another(
    store: Store, pool: DaskExecutor, tmp_path: Path
) -> None:
    machine = Machine(device="cpu", checkpoint_every=0.05)
    seen: list[Any] = []
    told: list[Progress] = []
    killer = Thread(target=kill_the_worker_of, args=(IMP, store, pool, seen))
    killer.start()
    swept = execute_many(STUDY, store, machine, executor=pool, room=pool.room, report=told.append)
    killer.join()
    assert (swept.failed, swept.unfinished) == ({}, 0)
    assert (told[-1].runs, told[-1].passes) == (6, told[-1].total_passes)
    judged, _ = seen
    resumed = store.load(IMP)
    assert resumed is not None
    # To the last digit of its seconds: what the killed worker had judged was not computed again.
    assert resumed.records[0] == judged

    alone = Store(tmp_path / "alone")
    for run in with_ancestors(STUDY):
        expected, found = execute(run, alone, Machine(device="cpu")), store.load(run)
        assert found is not None
        assert list(map(timeless, found.records)) == list(map(timeless, expected.records))
        assert tickets(store, run) == tickets(alone, run) != {}


def test_a_worker_that_is_told_to_close_saves_its_run_first(
    store: Store, pool: DaskExecutor
) -> None:
    machine = Machine(device="cpu", checkpoint_every=1e9)
    long = config(training={"length": "100000it"})
    checkpoint = store.folder(long) / "checkpoint.safetensors"
    closed: list[bool] = []

    def close_its_worker(progress: Progress) -> None:
        if progress.passes > 0 and not closed:
            (address,) = (a for a, keys in pool.client.processing().items() if keys)
            pool.client.retire_workers([address])
            deadline = time.monotonic() + 60
            while not checkpoint.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            closed.append(checkpoint.exists())
            raise KeyboardInterrupt

    execute_many([long], store, machine, executor=pool, room=pool.room, report=close_its_worker)
    assert closed == [True]
