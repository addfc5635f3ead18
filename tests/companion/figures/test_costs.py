"""Bills, the dilemma and searches, drawn."""

from __future__ import annotations

import pytest

from companion.analysis.points import ticket_table
from companion.figures.costs import (
    cost_of_curves,
    dilemma_figure,
    dilemma_points,
    published_dilemma,
)
from tests.companion.figures.toys import bands, record, study, table


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
