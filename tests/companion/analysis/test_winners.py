"""Sparsest matching and best performing tickets."""

from __future__ import annotations

import pytest

from companion.analysis.points import ticket_table
from companion.analysis.winners import winners_in_words, winning_tickets
from lthlib.errors import ConfigError
from tests.companion.figures.toys import Record, record, searches

CHOICE = ["choice", "curve"]


def judged(seed: int, index: int, density: float, validation: float, test: float) -> Record:
    one = record("IMP", "imp", seed, density, test, index=index)
    one["accuracy"]["validation"] = validation
    return one


def dense() -> list[Record]:
    # Mean 98 and standard deviation 1: what matches has 97 or more on validation.
    return [record("dense", "dense", seed, 1.0, 97.0 + seed, judged="found") for seed in range(3)]


def test_tickets_are_chosen_on_validation_and_judged_on_test() -> None:
    records = [
        *dense(),
        judged(0, 1, 0.8, 99.0, 90.0),
        judged(0, 2, 0.6, 97.0, 91.0),
        judged(0, 3, 0.4, 96.9, 99.0),
        judged(1, 1, 0.8, 97.5, 92.0),
        judged(1, 2, 0.5, 97.2, 93.0),
    ]
    winners = winning_tickets(ticket_table(records)).set_index(CHOICE)
    sparsest = winners.loc[("sparsest matching", "IMP")]
    assert sparsest[["n", "seeds", "round"]].tolist() == [2, 2, 2]
    assert sparsest[["density", "accuracy"]].tolist() == pytest.approx([0.55, 92.0])
    best = winners.loc[("best performing", "IMP")]
    assert best[["round", "density", "accuracy"]].tolist() == pytest.approx([1, 0.8, 91.0])
    # All three dense nets count: 91 - 98.
    assert best["difference"] == pytest.approx(-7.0)


def test_where_nothing_matches_there_is_no_sparsest_ticket() -> None:
    winners = winning_tickets(ticket_table([*dense(), judged(0, 1, 0.8, 50.0, 99.0)]))
    words = winners_in_words(winners).set_index("choice")
    assert words.loc["sparsest matching", "seeds"] == "0 of 1"
    assert words.loc["sparsest matching", "accuracy (%)"] == "–"
    assert words.loc["best performing", "accuracy (%)"] == "99.0"


def test_one_seed_has_no_d_star() -> None:
    winners = winning_tickets(ticket_table(searches(seeds=1)))
    assert winners["d_star"].isna().all()
    assert set(winners_in_words(winners)["d* (%)"]) == {"–"}


def test_d_star_has_an_interval_and_an_edge() -> None:
    winners = winning_tickets(ticket_table(searches())).set_index(CHOICE)
    imp = winners.loc[("best performing", "IMP")]
    # IMP lies 0.5 points below dense at its densest ticket already.
    assert (imp["d_star"], imp["edge"]) == (pytest.approx(0.8), "above")
    words = winners_in_words(winners.reset_index()).set_index(["choice", "tickets"])
    assert words.loc[("best performing", "IMP"), "d* (%)"] == "at least 80 [80, 80]"


def test_dense_is_needed_and_is_no_ticket() -> None:
    with pytest.raises(ConfigError, match="judged against dense networks, and the table has none"):
        winning_tickets(ticket_table([judged(0, 1, 0.8, 90.0, 90.0)]))
    longer = record("dense, equal training", "dense", 0, 1.0, 99.0, judged="found")
    curves = winning_tickets(ticket_table([*searches(seeds=1), longer]))["curve"]
    assert set(curves) == {"IMP", "CS", "CS, as found"}
