"""The bill of a ticket and of a curve, and how many times faster BiP is than IMP."""

from __future__ import annotations

import math

import pytest

from companion.analysis.cost import curve_costs, speed_up, speed_up_in_words
from companion.analysis.points import ticket_table
from companion.evidence.costs import spent
from tests.companion.figures.toys import record, study, table


def test_a_run_that_several_tickets_rest_on_counts_once() -> None:
    bills = curve_costs(table(), "epochs").set_index("curve")
    assert bills.loc["dense", "cost"] == 10.0
    assert bills.loc["BiP", ["tickets", "n", "cost"]].tolist() == [2, 3, 50.0]
    assert bills.loc["IMP", ["tickets", "cost"]].tolist() == [2, 30.0]
    assert bills.loc["CS", "cost"] == 40.0


def test_failed_runs_cost_nothing_and_break_nothing() -> None:
    records = [record("BiP", "bip", 0, 0.2, 97.0, density=0.2)]
    records.append(record("BiP", "bip", 1, 0.2, None, density=0.2))
    assert curve_costs(ticket_table(records), "epochs")["n"].tolist() == [1]


def test_pretraining_is_left_out_for_everybody_or_for_nobody() -> None:
    shown = table()
    own = {name: shown["curve"] == name for name in ("IMP", "BiP", "CS, as found")}
    bills = [spent(shown, "epochs", pretraining=False)[rows].tolist() for rows in own.values()]
    # IMP's own run begins with the dense training; CS starts untrained and has none.
    assert bills == [[10.0, 20.0] * 3, [20.0] * 6, [10.0] * 6]


def test_imp_over_bip_at_bips_densities() -> None:
    found = speed_up(table()).set_index("pruned")
    assert found.loc[50.0, ["epochs_both", "epochs_neither"]].tolist() == pytest.approx(
        [20 / 30, 10 / 20]
    )
    assert found.loc[75.0, ["passes_both", "passes_neither"]].tolist() == pytest.approx(
        [60 / 60, 40 / 40]
    )
    # BiP: 97 + 0.3 seed; IMP: 97 + 0.2 seed.
    assert found.loc[50.0, ["n", "difference"]].tolist() == pytest.approx([3, 0.1])


def test_the_papers_ratios_stand_beside_ours_where_the_percentages_are_one() -> None:
    records = [one for one in study() if one["density"] != 0.5]
    for one in records:
        if one["label"] in ("BiP", "IMP"):
            one["density"] = 0.512 if one["density"] == 0.25 else one["density"]
    words = speed_up_in_words(speed_up(ticket_table(records))).set_index("pruned (%)")
    assert words.loc["48.8", "paper, minutes"] == "1.6 / 2.4"
    assert words.loc["48.8", "epochs"] == "1.0 / 1.0"
    assert words.loc["89.3", ["epochs", "paper, minutes"]].tolist() == ["–", "4.5 / 8.0"]


def test_where_imp_does_not_reach_there_is_no_ratio() -> None:
    alone = ticket_table([record("BiP", "bip", 0, 0.1, 97.0, judged="found", density=0.1)])
    assert speed_up(alone).empty
    # One seed has no interval, and no dense network to leave out.
    sparse = [record("IMP", "imp", 0, d, 97.0, index=n) for n, d in ((1, 0.5), (2, 0.1))]
    found = speed_up(ticket_table([*sparse, record("BiP", "bip", 0, 0.2, 97.0, density=0.2)]))
    assert math.isnan(found["low"].iloc[0])
    assert found["epochs_both"].iloc[0] == pytest.approx(1.0)
