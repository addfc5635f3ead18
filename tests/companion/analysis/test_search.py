"""What a search costs, worked out by hand: IMP 10 + 8 a round, CS 10 a round, retraining 8."""

from __future__ import annotations

import pandas as pd
import pytest

from companion.analysis.points import ticket_table
from companion.analysis.search import at_same_density, derived_epochs, search_costs, search_in_words
from tests.companion.figures.toys import record, searches

KEYS = ["curve", "arrangement", "tickets"]

EPOCHS = [
    f"epochs_{kind}" for kind in ("sequence", "total", "sequence_retrained", "total_retrained")
]


@pytest.fixture(scope="module")
def costs() -> pd.DataFrame:
    return search_costs(ticket_table(searches()))


@pytest.mark.parametrize(
    ("curve", "arrangement", "tickets", "epochs"),
    [
        # The k-th mask of IMP is known after k trainings; one more has its ticket trained.
        ("IMP", "one search", 1, [10, 10, 18, 18]),
        ("IMP", "one search", 3, [26, 26, 34, 34]),
        ("CS", "one search", 1, [10, 10, 18, 18]),
        # Both tickets of a search are retrained: 20 + 2 * 8 in total.
        ("CS", "one search", 2, [20, 20, 28, 36]),
        ("CS", "searches at once", 2, [10, 20, 18, 36]),
        ("CS", "searches at once", 4, [20, 40, 28, 72]),
    ],
)
def test_epochs_to_the_kth_ticket(
    costs: pd.DataFrame, curve: str, arrangement: str, tickets: int, epochs: list[float]
) -> None:
    row = costs.set_index(KEYS).loc[(curve, arrangement, tickets)]
    assert row[EPOCHS].tolist() == epochs
    assert row["n"] == 3
    assert row["passes_total"] == 2 * row["epochs_total"]


def test_nothing_else_is_counted(costs: pd.DataFrame) -> None:
    assert len(costs) == 3 + 2 + 2


def test_what_searches_rest_on_is_trained_once() -> None:
    dense = record("dense", "dense", 0, 1.0, 98.0, judged="found")
    rests = {"parent": dense["run"], "before": 10.0, "own": 20.0}
    base = {"config": dense["config"], "point": "dense"}
    records = [dense]
    for density in (0.5, 0.2):
        given = {"density": density, "source": base, **rests}
        records.append(record("BiP", "bip", 0, density, 97.0, judged="found", **given))
        records.append(record("OMP", "omp", 0, density, 97.0, **given))
    found = search_costs(ticket_table(records)).set_index(KEYS)
    both = found.xs("searches at once", level="arrangement")
    assert both.loc[("BiP", 2), EPOCHS[:2]].tolist() == [30, 50]
    assert both.loc[("BiP", 2), EPOCHS[2:]].isna().all()
    # One-shot masks are known once dense is trained; each is then trained by itself.
    assert both.loc[("OMP", 2), EPOCHS].tolist() == [10, 10, 30, 50]


def test_masks_of_imp_without_rewinding_are_known_before_they_are_trained() -> None:
    records = [record("dense", "dense", 0, 1.0, 98.0, judged="found")]
    for index in (1, 2):
        own = 10.0 * (index + 1)
        given = {"index": index, "own": own, "judged": "found"}
        found = record("IMP-C, as found", "imp", 0, 0.8**index, 97.0, **given)
        search = {"config": found["config"], "point": f"round-{index}"}
        again = {"index": index, "own": 8.0, "before": own, "parent": found["run"]}
        records += [found, record("IMP-C", "retrain", 0, 0.8**index, 97.0, source=search, **again)]
    row = search_costs(ticket_table(records)).set_index(KEYS).loc[("IMP-C", "one search", 2)]
    assert row[EPOCHS].tolist() == [20, 20, 28, 36]


def test_imp_is_stopped_where_it_is_as_sparse() -> None:
    same = at_same_density(ticket_table(searches(seeds=1)))
    assert same["curve"].tolist() == ["CS"] * 4
    assert same["density"].tolist() == pytest.approx([0.6, 0.42, 0.4, 0.28])
    first = same.iloc[0]
    assert first[["round", "epochs", "retrained"]].tolist() == [1, 10, 18]
    # 60 % lies between IMP's 64 % and 51.2 %: the third round.
    assert first[["imp_round", "imp_epochs", "imp_retrained"]].tolist() == [3, 26, 34]
    assert same.iloc[1:]["imp_round"].isna().all()


def test_the_papers_count_is_rounds_times_length() -> None:
    derived = derived_epochs(ticket_table(searches()), {"CS": 5, "IMP": 30}, 85.0)
    ours = derived.set_index("curve")
    assert ours["whole"].to_dict() == {"CS": 425, "IMP": 2550}
    assert ours["reported"].to_dict() == {"CS": 425, "IMP": 2550}
    assert ours.loc["CS", "derived"] == 425
    assert ours.loc["IMP", "derived"] == pytest.approx(8.5 * (10 + 29 * 8))
    assert ours.loc["IMP", ["recorded", "first", "later"]].tolist() == [3, 10, 8]


def test_the_words_for_it(costs: pd.DataFrame) -> None:
    words = search_in_words(costs).set_index(["search", "arrangement"])
    assert words.loc[("CS", "searches at once"), "epochs in total"] == "40 / 72"
    assert words.loc[("IMP", "one search"), "epochs in sequence"] == "26 / 34"
