"""One run over two ranks that torchrun starts: a sweep, a stop, a killed rank and its restart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from companion.studies import ticket_study
from lthlib.cli.options import COME_AGAIN
from lthlib.errors import ConfigError
from lthlib.recipes import load_recipe
from lthlib.runs import Machine, RunConfig, Store, execute
from tests.conftest import needs, write_tiny

ROOT = Path(__file__).parents[2]
STUDY = {"methods": ["imp", "cs", "bip"], "densities": [0.2], "seeds": 1, "dense_seeds": 1}


def torchrun(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def configs(recipe: Path, ranks: int) -> list[RunConfig]:
    shared = load_recipe(str(recipe)).with_(training={"ranks": ranks})
    return ticket_study(shared, **STUDY).configs


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def swept(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"))
    options = ["--methods=imp,cs,bip", "--densities=0.2", "--seeds=1", "--dense-seeds=1"]
    done = torchrun(
        *("-m", "lthlib", "sweep", recipe, *options, "--store", store.root, "--device=cpu")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("runs are in") == 1  # one rank speaks
    return store


@pytest.fixture
def imp(recipe: Path, tmp_path: Path) -> tuple[RunConfig, Path]:
    """The sweep's run of IMP, and a file that says so."""
    config = next(c for c in configs(recipe, 2) if c.method == "imp")
    path = tmp_path / "imp.json"
    path.write_text(json.dumps(config.to_json()))
    return config, path


def without_times(store: Store, config: RunConfig) -> list[dict[str, Any]]:
    result = store.load(config)
    assert result is not None
    records = json.loads(json.dumps(result.records))
    for record in records:
        del record["provenance"]["started"], record["provenance"]["finished"]
        for cost in record["cost"].values():
            del cost["seconds"]
    return records


def test_a_sweep_under_torchrun_shares_every_run(recipe: Path, swept: Store) -> None:
    by_two, by_one = configs(recipe, 2), configs(recipe, 1)
    assert {"dense", "imp", "cs", "bip", "retrain"} <= {config.method for config in by_two}
    for config in by_two:
        result = swept.load(config)
        assert result is not None
        assert result.failure is None
        assert all(record["accuracy"]["test"] > 15 for record in result.records)
    assert not any(swept.load(config) for config in by_one)
    assert {config.id for config in by_two}.isdisjoint(config.id for config in by_one)


@needs(signal.SIGTERM)
def test_a_stop_on_one_rank_and_a_killed_one_change_nothing(
    swept: Store, imp: tuple[RunConfig, Path], tmp_path: Path
) -> None:
    config, path = imp
    store = Store(tmp_path / "a störe")
    run = ("--config", path, "--store", store.root, "--device=cpu")
    asked = torchrun("-m", "tests.journeys.shared_run", "1", "SIGTERM", *run)
    assert asked.returncode == 1
    assert f"exitcode  : {COME_AGAIN}" in asked.stderr
    assert (store.folder(config) / "checkpoint.safetensors").exists()
    assert store.load(config) is None
    again = torchrun("--max-restarts=1", "-m", "tests.journeys.shared_run", "1", "SIGKILL", *run)
    assert again.returncode == 0, again.stderr
    assert "Signal 9 (SIGKILL)" in again.stderr or "exitcode: -9" in again.stderr
    assert without_times(store, config) == without_times(swept, config)


def test_another_number_of_ranks_is_refused_unless_the_run_is_complete(
    swept: Store, imp: tuple[RunConfig, Path], tmp_path: Path
) -> None:
    config, _ = imp
    with pytest.raises(ConfigError, match=r"training.ranks is 2, but 1 process"):
        execute(config, Store(tmp_path), Machine("cpu"))
    assert execute(config, swept, Machine("cpu")).failure is None
