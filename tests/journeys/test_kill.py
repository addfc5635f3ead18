"""A sweep that is killed at any instant goes on, and ends with what it would have had anyway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from companion.studies import ticket_study
from lthlib.recipes import load_recipe
from lthlib.runs import Machine, Store, execute
from lthlib.runs.upkeep import verify
from tests.conftest import needs

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills and forks as POSIX does")
ROOT = Path(__file__).parents[2]


def told(mode: str, folder: Path) -> dict[str, Any]:
    """What `tests.journeys.forks` says of a journey."""
    command = [sys.executable, "-m", "tests.journeys.forks", mode, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_sweep_killed_at_twenty_instants(tmp_path: Path) -> None:
    report = told("kill", tmp_path)
    assert report["kills"] == 20
    assert report["differ"] == []
    # Dense, IMP, CS and BiP; some kills came in the first run, some in the last.
    assert sum(name.endswith("run.json") for name in report["files"]) == 4
    assert {"round-3", "round-2", "ticket", "dense"} <= {Path(n).stem for n in report["files"]}
    assert len(set(report["unfinished"])) > 2


def test_processes_share_a_store(tmp_path: Path) -> None:
    report = told("share", tmp_path)
    assert (report["kills"], report["complete"]) == (8, 40)
    assert report["reads"] > 40
    assert report["wrong"] == []
    assert report["same"]
    assert report["locks"] == []
    # A process that was killed right after it completed a run could not write that down.
    assert len(report["finished"]) == len(set(report["finished"])) >= 40 - report["kills"]
    assert set(report["finished"]) <= set(report["runs"])


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGTERM, marks=needs(signal.SIGTERM)),
        pytest.param(signal.SIGHUP, marks=needs(signal.SIGHUP)),
        signal.SIGKILL,
        None,
    ],
)
def test_the_whole_process_group_is_told_to_go(
    tiny_recipe: Path, tmp_path: Path, how: signal.Signals | None
) -> None:
    """As Slurm does: SIGTERM to each process of a job, and after a while SIGKILL; SIGHUP as a
    terminal that is closed. None: only the sweep is killed, and its processes follow."""
    store = Store(tmp_path / "a störe")
    command = ["sweep", str(tiny_recipe), "--methods", "imp,bip", "--densities", "0.5"]
    command += ["--jobs", "1", "--store", str(store.root), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from lthlib.cli import main; main()", *command],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    limit = time.monotonic() + 240
    while not list(store.root.glob("runs/*/run.json")) and time.monotonic() < limit:
        time.sleep(0.02)
    if how is None:
        process.kill()
    else:
        os.killpg(process.pid, how)
    said = process.communicate(timeout=240)[1]
    if how in (signal.SIGTERM, signal.SIGHUP):
        assert process.returncode == 75, said
        assert "goes on from there" in said
    study = ticket_study(load_recipe(str(tiny_recipe)), methods=["imp", "bip"], densities=[0.5])
    assert study.missing(store)
    for config in study.configs:
        execute(config, store, Machine("cpu"))
    assert not study.missing(store)
    store.prepare()
    assert sorted(p.name for p in store.root.iterdir()) == [".writable", "locks", "runs"]
    assert list(verify(store)) == list((store.root / "locks").iterdir()) == []
