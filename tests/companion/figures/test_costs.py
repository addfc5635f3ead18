"""Bills, the dilemma and searches, drawn."""

from __future__ import annotations

import pandas as pd
import pytest

from companion.analysis.cost import costs_by_ratio
from companion.analysis.points import ticket_table
from companion.analysis.search import search_costs
from companion.figures.costs import (
    accuracy_against_cost,
    cost_against_ratio,
    cost_of_curves,
    dilemma_figure,
    dilemma_points,
    published_dilemma,
    search_figure,
)
from lthlib.errors import ConfigError
from tests.companion.figures.toys import bands, record, searches, study, table


def test_a_panel_a_density_and_a_name_a_curve() -> None:
    fig = accuracy_against_cost(table(), "passes", [0.5, 0.25, 0.01])
    assert [ax.get_title("left") for ax in fig.axes] == [
        "50 % of the weights kept",
        "25 % of the weights kept",
    ]
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert names == ["dense", "IMP", "BiP", "BiP, unclipped", "CS, as found", "CS"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_bars_are_named_and_numbered(seeds: int) -> None:
    (ax,) = cost_of_curves(table(seeds), "epochs").axes
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    words = [text.get_text() for text in ax.texts]
    assert dict(zip(names, words, strict=True)) == {
        "dense": " 10, 1 ticket",
        "CS, as found": " 20, 2 tickets",
        "IMP": " 30, 2 tickets",
        "CS": " 40, 2 tickets",
        "BiP": " 50, 2 tickets",
        "BiP, unclipped": " 50, 2 tickets",
    }


def test_one_row_is_enough() -> None:
    one = ticket_table([record("IMP", "imp", 0, 0.5, 97.0)])
    fig = accuracy_against_cost(one, "seconds", [0.5])
    assert len(fig.axes) == 1
    assert (
        fig.get_label()
        == "Accuracy against cost: IMP reaches 97.0 % for 10 seconds at 50 % density."
    )


def test_a_row_a_unit_and_a_line_a_curve() -> None:
    costs = costs_by_ratio(table(1))
    fig = cost_against_ratio(costs)
    assert len(fig.axes) == 8
    assert [len(ax.lines) for ax in fig.axes] == [5] * 8
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert names == ["IMP", "BiP", "BiP, unclipped", "CS, as found", "CS"]
    assert "BiP from 60 passes at 50 % pruned to 60 at 75 %, all tickets 100" in (
        cost_against_ratio(costs).get_label()
    )


def test_a_density_that_nothing_reaches_is_said() -> None:
    with pytest.raises(ConfigError, match=r"no curve reaches any of the densities 0\.01"):
        accuracy_against_cost(table(), "epochs", [0.01])


def test_a_point_has_its_accuracy_and_its_cost() -> None:
    points = dilemma_points(table(), "epochs").set_index(["curve", "pruned"])
    assert points.loc[("BiP", 75.0), ["n", "accuracy", "cost"]].tolist() == pytest.approx(
        [3, 96.3, 30.0]
    )
    assert points.loc[("IMP", 50.0), "cost"] == 20.0
    assert points.loc[("dense", 0.0), ["accuracy", "cost"]].tolist() == pytest.approx([98.1, 10.0])


def test_pretraining_may_be_left_out_of_tickets() -> None:
    points = dilemma_points(table(), "epochs", pretraining=False).set_index(["curve", "pruned"])
    assert points.loc[("BiP", 75.0), "cost"] == 20.0
    assert points.loc[("IMP", 50.0), "cost"] == 10.0
    assert points.loc[("dense", 0.0), "cost"] == 10.0


@pytest.mark.parametrize("seeds", [1, 3])
def test_two_panels_share_their_curves(seeds: int) -> None:
    fig = dilemma_figure(dilemma_points(table(seeds), "passes"), "passes")
    left, right = fig.axes
    drawn = [[line.get_gid() for line in ax.lines].count("mean") for ax in (left, right)]
    assert drawn == [5, 5]
    assert [ax.get_xlim() for ax in (left, right)] == [left.get_xlim()] * 2
    assert right.get_ylabel() == "cost (passes)"
    assert bands(left) == (5 if seeds == 3 else 0)


def test_one_row_without_dense_and_a_failed_run_are_enough() -> None:
    records = [record("IMP", "imp", 0, 0.5, 97.0), record("IMP", "imp", 1, 0.5, None)]
    points = dilemma_points(ticket_table(records), "seconds")
    assert len(points) == 1
    fig = dilemma_figure(points, "seconds")
    assert len(fig.axes) == 2
    assert fig.get_label() == (
        "Test accuracy and cost by the percentage pruned: IMP 97.0 % for 10 seconds at 50 % pruned."
    )


def test_structured_tickets_stand_at_their_share_of_filters() -> None:
    records = study(1)
    for one in records:
        if one["label"] == "BiP":
            one["config"]["settings"]["structure"] = "filter"
            one["ticket"]["target_density"] = one["density"] - 0.05
    points = dilemma_points(ticket_table(records), "epochs")
    assert points.loc[points["curve"] == "BiP", "pruned"].tolist() == pytest.approx([55.0, 80.0])


def test_the_papers_figure_is_drawn_from_what_it_reports() -> None:
    points = published_dilemma()
    assert set(points["curve"]) == {"dense", "IMP", "OMP", "GraSP", "SNIP", "SynFlow"}
    named = points.set_index(["curve", "pruned"])
    assert named.loc[("IMP", 97.7), ["accuracy", "cost"]].tolist() == [83.82, 17 * 39.0]
    assert named.loc[("OMP", 20.0), ["accuracy", "cost"]].tolist() == [91.54, 39.0]
    assert points["cost"].notna().all()
    left, right = dilemma_figure(points, "minutes", published=True).axes
    assert {line.get_gid() for line in left.lines} == {"published", "dense"}
    assert right.get_ylabel() == "cost (minutes)"


@pytest.fixture(scope="module")
def costs() -> pd.DataFrame:
    return search_costs(ticket_table(searches()))


def test_a_line_a_search_and_one_for_searches_at_once(costs: pd.DataFrame) -> None:
    fig = search_figure(costs)
    assert [ax.get_title("left") for ax in fig.axes] == ["One after the other", "All together"]
    for ax in fig.axes:
        names = sorted(text.get_text() for text in ax.texts)
        assert names == ["CS", "CS, searches at once", "IMP"]
        assert sorted(line.get_gid() for line in ax.lines) == ["found"] * 3 + ["retrained"] * 3
    words = "CS, searches at once: 4 tickets after 20 epochs in sequence, 40 in total"
    assert words in fig.get_label()
