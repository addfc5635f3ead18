"""What a ticket costs: accuracy against cumulative cost at given densities, and cost of a curve."""

from __future__ import annotations

import pandas as pd

from companion.evidence.costs import spent_so_far

UNITS = {
    "epochs": "epochs",
    "passes": "images sent forward plus backward",
    "flops": "floating-point operations",
    "seconds": "seconds",
}


def curve_costs(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Return what all tickets of a curve cost together, mean over seeds: curve, tickets, n, cost.

    Each run counts once, with all it rests on: one IMP sequence yields all its densities, BiP
    repeats for each, and the dense network that they start from is trained once.
    """
    rows = table[table["status"] == "ok"]
    bill = spent_so_far(rows, unit).groupby([rows["curve"], rows["seed"]], sort=False).max()
    seeds = bill.groupby("curve", sort=False)
    tickets = rows.groupby(["curve", "seed"], sort=False).size().groupby("curve", sort=False).max()
    found = pd.DataFrame({"tickets": tickets, "n": seeds.size(), "cost": seeds.mean()})
    return found.reset_index()
