"""The bill of a ticket and of a curve."""

from __future__ import annotations

from companion.analysis.cost import curve_costs
from companion.analysis.points import ticket_table
from tests.companion.figures.toys import record, table


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
