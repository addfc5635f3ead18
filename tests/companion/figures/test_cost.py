"""The bill of a ticket and of a curve."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matplotlib import pyplot as plt

from companion.figures.cost import (
    accuracy_against_cost,
    cost_of_curves,
    costs_at,
    curve_costs,
)
from companion.figures.points import ticket_table
from lthlib.errors import ConfigError
from tests.companion.figures.toys import record, table


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_a_ticket_carries_the_whole_bill() -> None:
    reached = costs_at(table(), [0.5, 0.25], "epochs").set_index(["curve", "density"])
    assert reached.loc[("BiP", 0.5), "cost"] == 30.0
    assert reached.loc[("IMP", 0.25), "cost"] == pytest.approx(30.0)
    assert reached.loc[("CS", 0.5), "cost"] == pytest.approx(20.0)
    assert reached.loc[("IMP", 0.5), "accuracy"] == pytest.approx(97.2)


def test_passes_are_images_forward_plus_images_backward() -> None:
    reached = costs_at(table(), [0.5], "passes").set_index("curve")
    assert reached.loc["BiP", "cost"] == 60.0


def test_nothing_is_extrapolated() -> None:
    assert costs_at(table(), [0.01], "epochs").empty
    with pytest.raises(ConfigError, match=r"no curve reaches any of the densities 0\.01"):
        accuracy_against_cost(table(), "epochs", [0.01])


def test_a_run_that_several_tickets_rest_on_counts_once() -> None:
    bills = curve_costs(table(), "epochs").set_index("curve")
    assert bills.loc["dense", "cost"] == 10.0
    assert bills.loc["BiP", ["tickets", "n", "cost"]].tolist() == [2, 3, 50.0]
    assert bills.loc["IMP", ["tickets", "cost"]].tolist() == [2, 30.0]
    assert bills.loc["CS", "cost"] == 40.0


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


def test_failed_runs_cost_nothing_and_break_nothing() -> None:
    records = [record("BiP", "bip", 0, 0.2, 97.0, density=0.2)]
    records.append(record("BiP", "bip", 1, 0.2, None, density=0.2))
    assert curve_costs(ticket_table(records), "epochs")["n"].tolist() == [1]
