"""Bills, drawn."""

from __future__ import annotations

import pytest

from companion.analysis.cost import costs_by_ratio
from companion.analysis.points import ticket_table
from companion.figures.cost import accuracy_against_cost, cost_against_ratio, cost_of_curves
from lthlib.errors import ConfigError
from tests.companion.figures.toys import record, table


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
