"""Pruned networks, as found and fine-tuned, and the tuning behind them."""

from __future__ import annotations

import pytest

from companion.analysis.points import ticket_table
from companion.analysis.pruning import pruned_nets, pruned_points, tuning_table
from lthlib.errors import ConfigError
from tests.companion.figures.toys import Record, record, searches


def study() -> list[Record]:
    names = ("CS, fine-tuned", "OMP, fine-tuned", "IMP, learning-rate rewinding", "GMP", "random")
    records = searches(seeds=1)
    for name in names:
        judged = "found" if name == "GMP" else "retrained"
        records.append(record(name, "omp", 0, 0.3, 97.0, judged=judged))
    return records


def test_each_network_stands_where_its_weights_come_from() -> None:
    parts = pruned_nets(ticket_table(study()))
    curves = {name: set(rows["curve"]) for name, rows in parts.items()}
    assert curves == {
        "as found": {"dense", "CS", "GMP", "random"},
        "fine-tuned": {"dense", "CS", "OMP", "IMP, learning-rate rewinding", "GMP", "random"},
    }
    tuned = parts["fine-tuned"]
    assert tuned.loc[tuned["curve"] == "CS", "label"].tolist() == ["CS, fine-tuned"]


def test_retrained_tickets_alone_are_no_pruned_networks() -> None:
    retrained = [one for one in searches(seeds=1) if one["label"] in ("dense", "CS")]
    with pytest.raises(ConfigError, match="no curve is as found or fine-tuned"):
        pruned_nets(ticket_table(retrained))


def test_the_points_of_both() -> None:
    parts = pruned_nets(ticket_table(study()))
    points = pruned_points(parts).set_index(["net", "curve"])
    assert points.loc[("fine-tuned", "CS"), "mean"] == 97.0
    assert points.loc[("as found", "CS"), "mean"].tolist() == [95.0, 94.0, 95.0, 94.0]


def trial(rate: float, density: float, validation: float, judged: str = "found") -> Record:
    settings = {"gate_learning_rate": rate, "initial_gate": 0.0, "penalty": density}
    label = "CS, as found" if judged == "found" else "CS"
    return record(label, "cs", 100, density, validation, judged=judged, **settings)


def test_the_best_trial_is_chosen_by_its_tickets_as_found() -> None:
    records = [
        trial(0.3, 0.5, 98.0),
        trial(0.3, 0.05, 94.0),
        trial(1.0, 0.5, 99.0),
        trial(3.0, 0.04, 99.0, judged="retrained"),
    ]
    trials = tuning_table(records)
    # 98 at half the weights, 94 at 20, 10 and 5 %; the other has nothing sparser than a half.
    assert trials["score"].tolist() == [95.0, pytest.approx((99 + 3 * 10) / 4)]
    assert trials["chosen"].tolist() == [True, False]
    assert trials["method"].tolist() == ["CS", "CS"]
    assert trials["tickets"].tolist() == [2, 1]
