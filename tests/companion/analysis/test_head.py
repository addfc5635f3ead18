"""Methods under one budget: last tickets at fixed densities, Holm over three, costs, trials."""

from __future__ import annotations

import math
from typing import Any

import pytest

from companion.analysis.head import (
    BOTH,
    METHODS,
    WHOLE,
    budgets,
    differences,
    outcome,
    reached,
    trials,
)
from companion.analysis.points import ticket_table
from companion.evidence.statistics import at_densities, last_tickets
from companion.figures.effects import head_figure
from tests.companion.figures.toys import Record, config, record

DENSITIES = (0.2, 0.05)
LEVELS = {"IMP": 90.0, "CS": 91.0, "BiP": 95.0}


def study(seeds: int = 4, kept: float = 1.0) -> list[Record]:
    """Four trainings of 10 units each: tickets at both densities, CS's at `kept` times them."""
    found = []
    for seed in range(seeds):
        wave = (seed % 2) / 10
        found.append(record("dense", "dense", seed, 1.0, 96.0, judged="found"))
        found.append(
            record(
                "dense, search epochs",
                "dense",
                seed,
                1.0,
                97.0,
                judged="found",
                own=40.0,
                length="4",
            )
        )
        for density in DENSITIES:
            for r in (1, 2, 3):  # the rounds before the last do not count
                test = 50.0 if r < 3 else LEVELS["IMP"] + wave
                at, own = density ** (r / 3), 10.0 + 10 * r
                found.append(
                    record("IMP", "imp", seed, at, test, index=r, own=own, fraction=density)
                )
            for label, method in (("CS", "cs"), ("BiP, retrained", "bip")):
                how = {"initial_gate": density} if method == "cs" else {"density": density}
                search = record(
                    label.removesuffix(", retrained"), method, seed, density, 20.0, judged="found",
                    own=30.0, **how,
                )  # fmt: skip
                source = {"config": search["config"], "point": "ticket"}
                at = density * (kept if method == "cs" else 1)
                test = LEVELS[label.partition(",")[0]] - wave
                found += [search, record(
                    label, "retrain", seed, at, test, before=30.0, parent=search["run"],
                    source=source, at=density,
                )]  # fmt: skip
    return found


def test_the_last_ticket_of_a_run_counts_within_ten_percent() -> None:
    rows = ticket_table(study(kept=1.09))
    cs = rows[(rows["label"] == "CS") & (rows["judged"] == "retrained")]
    assert len(at_densities(cs, DENSITIES)) == 4
    assert at_densities(cs.assign(density=1.02 * cs["density"]), DENSITIES).empty
    imp = rows[rows["label"] == "IMP"]
    assert set(last_tickets(imp)["round"]) == {3} and at_densities(imp, DENSITIES).max() > 90


def test_what_each_reaches_over_the_densities_and_at_each() -> None:
    found = reached(ticket_table(study()), DENSITIES)
    assert list(dict.fromkeys(found["where"])) == [BOTH, "20 % density", "5 % density"]
    both = found[found["where"] == BOTH].set_index("name")
    assert both["accuracy"].to_dict() == pytest.approx(
        {WHOLE: 97.0, "IMP": 90.05, "CS": 90.95, "BiP": 94.95}
    )
    assert both.loc["BiP", "density"] == pytest.approx(0.125) and set(both["n"]) == {4}


def test_three_differences_decide_by_holm_and_controls_do_not() -> None:
    found = differences(ticket_table(study()), DENSITIES)
    both = found[found["where"] == BOTH].set_index("name")
    assert both["difference"].to_dict() == pytest.approx(
        {"CS - IMP": 0.9, "BiP - IMP": 4.9, "BiP - CS": 4.0}
        | {
            f"{name} - {WHOLE}": value
            for name, value in zip(METHODS, (-6.95, -6.05, -2.05), strict=True)
        }
    )
    assert list(both.index[both["p"].notna()]) == ["CS - IMP", "BiP - IMP", "BiP - CS"]
    assert found.loc[found["where"] != BOTH, "p"].isna().all()
    # The paired difference of CS and IMP is 1.0 or 0.8: t = 0.9 / 0.0577 on 3 degrees of freedom;
    # that of BiP and CS has no spread. Holm takes the least significant as it is.
    assert both.loc["CS - IMP", "p"] == pytest.approx(0.000577, rel=0.01)
    assert "CS less IMP is +0.90 points (p = 0.00057, told apart)" in outcome(found)
    figure = head_figure(found, found["p"].notna())
    assert "mean of the densities: CS - IMP +0.9" in figure.get_label()


@pytest.mark.parametrize("seeds", [0, 1])
def test_nothing_is_decided_without_two_seeds(seeds: int) -> None:
    rows = differences(ticket_table([*study(seeds), *study(1)[:2]]), DENSITIES)
    assert outcome(rows).startswith("Nothing to compare")


def test_a_budget_is_counted_in_trainings_of_the_dense_network() -> None:
    found = budgets(ticket_table(study())).set_index("name")
    assert found["trainings"].to_dict() == {WHOLE: 4, "IMP": 4, "CS": 4, "BiP": 4}
    assert found["share"].tolist() == [100] * 4
    assert found.loc["IMP", "pretraining"] == 1 and found.loc["CS", "pretraining"] == 0


def test_a_trial_is_scored_on_validation_where_its_tickets_reach() -> None:
    def trial(rate: float, at: float, level: float) -> list[Record]:
        own: dict[str, Any] = {"initial_gate": at, "gate_learning_rate": rate}
        source = {"config": config("cs", 100, **own), "point": "round-2"}
        one = record("CS", "retrain", 100, at, 10.0, source=source, x=f"{rate}{at}")
        return [one | {"accuracy": {"test": 10.0, "validation": level}}]

    records = [*trial(0.1, 0.2, 90), *trial(0.1, 0.05, 80), *trial(1.0, 0.2, 99)]
    records += [*trial(3.0, 0.4, 94), *trial(3.0, 0.025, 82)]
    found = trials(records, DENSITIES)
    assert found["trial"].tolist() == [f"gate learning rate {rate}" for rate in (0.1, 1.0, 3.0)]
    assert found["score"].tolist() == pytest.approx([85, math.nan, 88], nan_ok=True)
    assert found["chosen"].tolist() == [False, False, True] and found["tickets"].tolist() == [
        2,
        1,
        2,
    ]
