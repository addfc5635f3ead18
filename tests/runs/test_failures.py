"""Runs whose numbers go wrong are recorded as failed; what they had found by then is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from companion.analysis.points import ticket_table
from companion.published import load_results, published
from companion.studies import Entry, Study
from lthlib.checkpoints import load_checkpoint
from lthlib.errors import ConfigError
from lthlib.runs import Machine, RunConfig, Store, execute
from lthlib.runs.execution import _Execution, build_trainer
from lthlib.runs.store import source
from lthlib.runs.upkeep import verify
from lthlib.training import Trainer, TrainingSettings
from tests.runs.toys import child, config

OFTEN = Machine("cpu", checkpoint_every=0)
IMP = config(
    "imp", training={"length": "12it"}, settings={"rounds": 3, "fraction": 0.5, "rewind": "2it"}
)
CS = config(
    "cs",
    training={"length": "12it"},
    settings={"rounds": 3, "gate_learning_rate": 1.0, "temperature_per": "step", "rewind": "2it"},
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def spoil(monkeypatch: pytest.MonkeyPatch, place: tuple[int, int], tensor: str) -> None:
    """Put NaN into a tensor of the state just before a step, (round, step), of every run."""
    original: Callable[..., Any] = _Execution._hooks

    def hooks(self: Any, trainer: Trainer) -> Any:
        found = original(self, trainer)

        def should_stop(trainer: Trainer) -> bool:
            if (trainer.round, trainer.step) == place:
                trainer.state[tensor].fill_(float("nan"))
            return False

        found.should_stop = should_stop
        return found

    monkeypatch.setattr(_Execution, "_hooks", hooks)


def test_a_run_that_diverges_is_recorded_and_its_children_fail_with_it(store: Store) -> None:
    wild = config(training={"learning_rate": 1e9, "schedule": "constant", "length": "11it"})
    result = execute(wild, store)
    assert result.failure is not None
    assert result.failure.startswith("the loss became NaN or infinite at step ")
    (record,) = result.records
    assert (record["status"], record["failure"]) == ("failed", result.failure)
    assert record["density"] is record["kept"] is record["accuracy"]["test"] is None
    failed = execute(child("omp", wild), store)
    assert failed.failure == f"its parent {wild.id} failed: {result.failure}"
    assert store.load(wild) is not None
    assert list(verify(store)) == []


def test_an_emptied_mask_is_a_failure_too(store: Store) -> None:
    settings = {
        "penalty": 1e3,
        "gate_learning_rate": 1.0,
        "temperature_per": "step",
        "rewind": "0it",
    }
    result = execute(config("cs", settings=settings), store)
    assert result.failure is not None
    assert "the mask is empty" in result.failure
    assert "(round 0, by step 6; last good checkpoint: none)" in result.failure


def test_a_parent_of_another_width_is_a_failure(store: Store) -> None:
    result = execute(child("omp", config(), model={"width": 3}), store)
    assert result.failure is not None
    assert "does not fit this network" in result.failure
    assert result.records[0]["cost"]["own"]["images"] == 0


@pytest.mark.parametrize("run", [IMP, CS])
def test_rounds_before_the_failure_are_kept(
    store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = execute(run, Store(store.root / "whole"), OFTEN)
    spoil(monkeypatch, (2, 8), "weights/linear.weight")
    result = execute(run, store, OFTEN)
    assert result.failure == (
        "the loss became NaN or infinite at step 8; a smaller learning rate may help "
        "(round 2, by step 10; last good checkpoint: round 2, step 5)"
    )
    *kept, failed = result.records
    assert [r["ticket"] for r in kept] == [r["ticket"] for r in whole.records[:2]]
    assert [r["status"] for r in result.records] == ["ok", "ok", "failed"]
    assert failed["ticket"]["index"] == 2
    assert [entry["round"] for entry in result.history] == [0, 0, 0, 1, 1, 1, 2]
    assert list(verify(store)) == []


def test_the_record_of_a_failure_carries_what_was_spent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, (2, 8), "weights/linear.weight")
    before, failed = (r["cost"]["own"] for r in execute(CS, store, OFTEN).records[1:])
    # 200 images, 40 of them for validation: 5 steps an epoch, and found at the end of one.
    assert before["epochs"] == 24 / 5
    assert failed["epochs"] == 34 / 5
    assert failed["images"] == before["images"] + 10 * 32
    assert failed["seconds"] > before["seconds"]


def test_the_last_good_checkpoint_is_kept_and_can_be_loaded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, (2, 8), "weights/linear.weight")
    execute(IMP, store, OFTEN)
    trainer = build_trainer(IMP, OFTEN)
    path = store.folder(IMP) / "checkpoint.safetensors"
    assert load_checkpoint(trainer, path, f"{IMP.id}/{source(IMP.to_json())}/cpu")
    assert (trainer.round, trainer.step) == (2, 5)
    assert all(bool(tensor.isfinite().all()) for tensor in trainer.state.values())
    with store.lock(IMP):
        assert path.exists()


def test_children_of_what_a_failed_run_had_found_go_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, (2, 8), "weights/linear.weight")
        failure = execute(IMP, store, OFTEN).failure
    good, bad = child("retrain", IMP, "round-1"), child("retrain", IMP, "round-2")
    assert execute(bad, store).failure == f"its parent {IMP.id} failed: {failure}"
    assert execute(good, store).records[0]["status"] == "ok"


@pytest.mark.parametrize(
    ("place", "saved"), [((0, 11), "round 0, step 10"), ((1, 3), "round 1, step 0")]
)
def test_statistics_that_explode_are_a_failure_though_the_loss_is_finite(
    store: Store, place: tuple[int, int], saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(n for n in build_trainer(IMP, OFTEN).state if n.endswith("running_var"))
    spoil(monkeypatch, place, name)
    result = execute(IMP, store, OFTEN)
    assert result.failure is not None
    assert f"{name.removeprefix('buffers/')} holds NaN or infinity; a smaller" in result.failure
    assert f"last good checkpoint: {saved}" in result.failure


def test_a_failure_beside_good_rounds_in_records_and_tables(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `lth record` writes them and the book reads them."""
    spoil(monkeypatch, (2, 8), "weights/linear.weight")
    execute(IMP, store, OFTEN)
    execute(CS, store, OFTEN)
    study = Study("toy", "embedded", (Entry(IMP, "IMP"), Entry(CS, "CS")))
    records = study.records(store)
    (tmp_path / "toy.jsonl").write_bytes(published(records))
    assert load_results(tmp_path) == records
    table = ticket_table(records)
    assert table[["curve", "status"]].to_numpy().tolist() == [
        ["IMP", "ok"], ["IMP", "failed"], ["CS", "ok"], ["CS", "ok"], ["CS", "failed"],
    ]  # fmt: skip
    # IMP's gap has its place in a figure; CS asks for no density.
    assert table.loc[1, "target_density"] == 0.25
    assert table.loc[4, ["target_density", "density"]].isna().all()


def test_single_layers_that_are_emptied_are_recorded_and_no_failure(store: Store) -> None:
    dense = config()
    execute(dense, store)
    run = child("omp", dense, settings={"density": 0.01})
    (record,) = execute(run, store).records
    assert record["status"] == "ok"
    assert any(kept == 0 for kept, _ in record["layers"].values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("momentum", value) for value in (-0.1, 1.0, float("nan"), float("inf"))),
        *(("weight_decay", value) for value in (-1e-4, float("nan"), float("inf"))),
        *(("learning_rate", value) for value in (0.0, float("nan"), float("inf"))),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"training.{name} is"):
        TrainingSettings(**{name: value})  # type: ignore[arg-type]
