"""Runs that are killed, in a process of its own, which imports the library once, forks each attempt
and kills it, and says in JSON what came of it.

    python -m tests.journeys.forks kill FOLDER
    python -m tests.journeys.forks share FOLDER
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lthlib.runs import Machine, RunConfig, RunResult, Store, execute
from lthlib.runs.execution import now, provenance
from lthlib.runs.store import source
from tests.runs.toys import child, config

MACHINE = Machine("cpu", checkpoint_every=0)
LENGTH = {"length": "14it"}
DENSE = config(training=LENGTH)
IMP = config("imp", training=LENGTH, settings={"rounds": 3, "fraction": 0.5, "rewind": "2it"})
CS = config(
    "cs",
    training=LENGTH,
    settings={"rounds": 3, "gate_learning_rate": 1.0, "temperature_per": "step", "rewind": "2it"},
)
BIP = child("bip", DENSE, training=LENGTH, settings={"length": "20it", "clip": 1.0})
SWEEP = [DENSE, IMP, CS, BIP]
CALLS = ("replace", "fsync", "rename", "unlink")


def fork(work: Callable[[], object]) -> int:
    """A process group of its own that does the work; 0 is how it ends well."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    try:
        work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def killed(pid: int, after: float | None = None) -> bool:
    """Whether a process died by SIGKILL: its own, or ours after so many seconds."""
    if after is not None:
        time.sleep(after)
        os.killpg(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    if os.WEXITSTATUS(status):
        raise SystemExit(f"an attempt ended with {os.WEXITSTATUS(status)}")
    return False


def sweep(store: Store, configs: Sequence[RunConfig] = SWEEP) -> None:
    store.prepare()
    for one in configs:
        execute(one, store, MACHINE)


def dying(name: str, count: int, when: str) -> None:
    """Kill this process group at the count-th call of os.NAME: before it, after it, or before it
    and with only half of a file on disk."""
    call = getattr(os, name)
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and when == "half" and name == "fsync":
            os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
        if calls == count and when != "after":
            os.killpg(0, signal.SIGKILL)
        result = call(*args, **kwargs)
        if calls == count:
            os.killpg(0, signal.SIGKILL)
        return result

    setattr(os, name, counted)


def counted_calls(store: Store, folder: Path) -> dict[str, int]:
    """How often an uninterrupted sweep makes each call; the sweep is the one to compare with."""
    counts = dict.fromkeys(CALLS, 0)

    def watch(name: str) -> None:
        call = getattr(os, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return call(*args, **kwargs)

        setattr(os, name, counted)

    def work() -> None:
        for name in CALLS:
            watch(name)
        sweep(store)
        (folder / "counts.json").write_text(json.dumps(counts))

    assert not killed(fork(work))
    return dict(json.loads((folder / "counts.json").read_text()))


def found(store: Store) -> dict[str, Any]:
    """All that a store holds, without times: files byte for byte, records and histories."""
    held: dict[str, Any] = {}
    for path in sorted(p for p in store.root.rglob("*") if p.is_file()):
        content: Any = path.read_bytes()
        if path.name == "run.json":
            content = json.loads(content)
            del content["digest"]
            for record in content["records"]:
                for name in ("started", "finished"):
                    del record["provenance"][name]
                for cost in record["cost"].values():
                    del cost["seconds"]
            for entry in content["history"]:
                del entry["seconds"]
        held[str(path.relative_to(store.root))] = content
    return held


def attempts(calls: dict[str, int], seconds: float) -> Iterator[dict[str, Any]]:
    """Where to kill: half of the draws at a random time, half at a random call."""
    draw = random.Random(6)
    for number in itertools.count():
        if number % 2:
            yield {"after": draw.uniform(0, 0.9 * seconds)}
        else:
            name = draw.choice(CALLS)
            moment = {"fsync": ["half", "before"], "unlink": ["after"]}.get(
                name, ["before", "after"]
            )
            yield {
                "name": name,
                "count": draw.randint(1, calls[name]),
                "when": draw.choice(moment),
            }


def kill(folder: Path, kills: int = 20) -> dict[str, Any]:
    """Kill a sweep at random instants, a store each; what differs from an uninterrupted one once
    it has been resumed."""
    whole = Store(folder / "whole")
    begun = time.monotonic()
    calls = counted_calls(whole, folder)
    seconds = time.monotonic() - begun
    expected = found(whole)
    report: dict[str, Any] = {"calls": calls, "seconds": seconds, "kills": 0, "differ": []}
    report["files"] = sorted(expected)
    report["unfinished"] = []
    for number, where in enumerate(attempts(calls, seconds)):
        if report["kills"] == kills:
            break
        store = Store(folder / f"store {number}")

        def attempt(store: Store = store, where: dict[str, Any] = where) -> None:
            if "name" in where:
                dying(**where)
            sweep(store)

        report["kills"] += killed(fork(attempt), where.get("after"))
        report["unfinished"].append(sum(store.load(one) is None for one in SWEEP))
        assert not killed(fork(lambda store=store: sweep(store)))  # type: ignore[misc]
        store.prepare()
        differs = found(store)
        names = expected.keys() | differs.keys()
        wrong = sorted(n for n in names if expected.get(n) != differs.get(n))
        if wrong or list((store.root / "locks").iterdir()):
            report["differ"].append({"where": where, "files": wrong})
    return report


def crowd(count: int = 40) -> list[RunConfig]:
    """Tiny runs: half of them dense, half start from one of these."""
    training = {"length": "8it"}
    dense = [config(seed=seed, training=training) for seed in range(count // 2)]
    settings = {"density": 0.5}
    return [*dense, *(child("omp", one, training=training, settings=settings) for one in dense)]


def worker(root: Path, seed: int) -> None:
    """Do all runs, in an order of its own, and write down each that it completes."""
    replace = os.replace

    def noting(source: Path, target: Path) -> None:
        replace(source, target)
        if Path(target).name == "run.json":
            with (root.parent / "finished").open("a") as log:
                log.write(f"{Path(target).parent.name} {os.getpid()}\n")

    os.replace = noting  # type: ignore[assignment]
    configs = crowd()
    random.Random(seed).shuffle(configs)
    sweep(Store(root), configs)


def share(folder: Path, processes: int = 4, kills: int = 8) -> dict[str, Any]:
    """Let processes share a store, kill and replace some, and read the store all the while."""
    whole, store = Store(folder / "whole"), Store(folder / "shared")
    configs = crowd()
    assert not killed(fork(lambda: sweep(whole, configs)))
    expected = {one.id: comparable(whole.load(one)) for one in configs}
    draw = random.Random(7)
    start = itertools.count()
    live = {fork(lambda: worker(store.root, next(start))) for _ in range(processes)}
    report: dict[str, Any] = {"kills": 0, "reads": 0, "wrong": []}
    due = time.monotonic()
    while live:
        for one in configs:
            result = store.load(one)
            report["reads"] += 1
            if result is not None and comparable(result) != expected[one.id]:
                report["wrong"].append(one.id)
        list(store.load_each())
        for pid in list(live):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                assert status == 0, f"a process ended with {status}"
                live.remove(pid)
        if live and report["kills"] < kills and time.monotonic() > due:
            pid = draw.choice(sorted(live))
            live.remove(pid)
            report["kills"] += killed(pid, after=0)
            live.add(fork(lambda: worker(store.root, next(start))))
            due = time.monotonic() + draw.uniform(0, 0.5)
    store.prepare()
    report["finished"] = [
        line.split()[0] for line in (folder / "finished").read_text().splitlines()
    ]
    report["runs"] = [one.id for one in configs]
    report["complete"] = sum(store.load(one) is not None for one in configs)
    report["same"] = found(store) == found(whole)
    report["locks"] = [p.name for p in (store.root / "locks").iterdir()]
    return report


def comparable(result: RunResult | None) -> Any:
    assert result is not None
    return [
        (r["status"], r["ticket"], r["accuracy"], r["layers"], r["cost"]["own"]["images"])
        for r in result.records
    ]


if __name__ == "__main__":
    mode, place = sys.argv[1], Path(sys.argv[2])
    provenance(DENSE, MACHINE.torch_device(), now())  # asks git once
    for one in [*SWEEP, crowd()[-1]]:
        source(one.to_json())  # and the same while somebody edits the library
    print(json.dumps({"kill": kill, "share": share}[mode](place)))
