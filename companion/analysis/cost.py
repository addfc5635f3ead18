"""What a ticket costs: accuracy against cumulative cost at given densities, and cost of a curve."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from companion.analysis.points import in_order, judged
from companion.evidence.costs import spent, spent_so_far
from companion.evidence.statistics import mean_interval, on_grid

UNITS = {
    "epochs": "epochs",
    "passes": "images sent forward plus backward",
    "flops": "floating-point operations",
    "seconds": "seconds",
}


def costs_at(table: pd.DataFrame, densities: Sequence[float], unit: str) -> pd.DataFrame:
    """Return what each curve reaches at given densities and what its ticket cost, a row a point.

    Accuracy and cumulative cost (pretraining and search included) of each seed are interpolated in
    log density, never beyond the curve's ends; then averaged over seeds.

    Args:
        table: from `ticket_table`.
        densities: kept fractions.
        unit: one of `UNITS`; `passes` counts images sent forward and images sent backward.

    Returns:
        Columns curve, density, n, accuracy, low, high (95 % t-interval), cost.
    """
    rows = table[(table["status"] == "ok") & (table["curve"] != "dense")]
    found = []
    for curve, own in rows.groupby("curve", sort=False):
        accuracy, costs = (on_grid(own, densities, name) for name in ("test_accuracy", unit))
        for density in densities:
            level, cost = mean_interval(accuracy[density]), costs[density].mean()
            if level.n:
                found.append((curve, density, level.n, level.mean, level.low, level.high, cost))
    return pd.DataFrame(found, columns=["curve", "density", "n", "accuracy", "low", "high", "cost"])


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


def costs_by_ratio(table: pd.DataFrame, pretraining: bool = True) -> pd.DataFrame:
    """Return what each ticket costs, and with it all tickets of its curve that keep more.

    The first is a ticket's own bill. The second is the bill of the curve down to that ticket, each
    run counted once: one IMP sequence yields all its tickets, BiP repeats for each, and the dense
    network that they start from is trained once.

    Args:
        table: from `ticket_table`.
        pretraining: as of `spent`.

    Returns:
        Columns curve, density, pruned (percent), n (seeds), and for each unit of `UNITS` UNIT and
        UNIT_so_far: means over seeds.
    """
    rows = judged(table)
    above = rows.sort_values("pruned", kind="stable")
    so_far = {f"{unit}_so_far": spent_so_far(above, unit, pretraining) for unit in UNITS}
    rows = rows.assign(**{unit: spent(rows, unit, pretraining) for unit in UNITS}, **so_far)
    tickets = rows[~rows["curve"].str.startswith("dense")]
    columns = ["density", "pruned", *UNITS, *so_far]
    points = tickets.groupby(["curve", "point"], sort=False)
    means = points[columns].mean().assign(n=points["seed"].nunique()).reset_index()
    means = in_order(means, means["curve"], "pruned")
    return means[["curve", "density", "pruned", "n", *UNITS, *so_far]].reset_index(drop=True)
