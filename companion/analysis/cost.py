"""What a ticket costs: that of all tickets of a curve, and how many times faster one method is."""

import math

import numpy as np
import pandas as pd

from companion.analysis.points import judged
from companion.analysis.words import column_in_brackets
from companion.evidence.costs import bills, spent
from companion.evidence.reported import reported_speed_up
from companion.evidence.statistics import by_replicate, compare, on_grid, ratio

UNITS = {
    "epochs": "epochs",
    "passes": "images sent forward plus backward",
    "flops": "floating-point operations",
    "seconds": "seconds",
}
_HEADS = {unit: unit for unit in UNITS} | {"flops": "FLOPs"}
# Whose training of the dense network counts: that of both methods, or of neither.
_COUNTED = ("both", "neither")


def curve_costs(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Return what all tickets of a curve cost together, mean over seeds.

    Each run counts once, with all it rests on: one IMP sequence yields all its densities, BiP
    repeats for each, and the dense network that they start from is trained once.

    Args:
        table: from `ticket_table`.
        unit: one of `UNITS`.

    Returns:
        Columns curve, tickets (of one seed), n (seeds), cost.
    """
    rows = table[table["status"] == "ok"]
    seeds = bills(rows, unit).groupby("curve", sort=False)
    tickets = rows.groupby(["curve", "seed"], sort=False).size().groupby("curve", sort=False).max()
    costs = {"tickets": tickets, "n": seeds.size(), "cost": seeds.mean()}
    return pd.DataFrame(costs).reset_index()


def speed_up(table: pd.DataFrame, slow: str = "IMP", fast: str = "BiP") -> pd.DataFrame:
    """Return how many times more a ticket of one method costs than one of another, a row a density.

    Args:
        table: from `ticket_table`.
        slow: a curve; its cost is interpolated in log density between its tickets.
        fast: a curve; the densities are those of its tickets, where `slow` reaches them.

    Returns:
        Columns pruned (percent), density, n, difference, low, high (accuracy of `fast` less `slow`,
        points, 95 %), and for each unit of `UNITS` UNIT_both and UNIT_neither: the ratio of
        geometric means over seeds, with everybody's pretraining counted and with nobody's.
    """
    rows = judged(table)
    costs = {
        f"{unit}_{counted}": spent(rows, unit, pretraining=counted == "both")
        for unit in UNITS
        for counted in _COUNTED
    }
    rows = rows.assign(**costs)
    ours, theirs = (rows[rows["curve"] == curve] for curve in (fast, slow))
    ratios = []
    for _, point in ours.groupby("point", sort=False):
        density = float(point["density"].mean())
        accuracy = on_grid(theirs, [density])[density].dropna()
        if len(accuracy):
            gap = compare(by_replicate(point), accuracy)
            numbers = (point["pruned"].mean(), density, gap.n, gap.mean, gap.low, gap.high)
            times = (_cost_ratio(theirs, point, density, name) for name in costs)
            ratios.append((*numbers, *times))
    columns = ["pruned", "density", "n", "difference", "low", "high", *costs]
    return pd.DataFrame(ratios, columns=columns).sort_values("pruned", ignore_index=True)


def _cost_ratio(slow: pd.DataFrame, fast: pd.DataFrame, density: float, cost: str) -> float:
    dear = on_grid(slow, [density], cost)[density]
    cheap = by_replicate(fast, cost)
    dear, cheap = (costs[costs > 0].dropna() for costs in (dear, cheap))
    return ratio(dear, cheap).mean if len(dear) and len(cheap) else math.nan


def speed_up_in_words(ratios: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `speed_up` for readers, the BiP paper's own minutes beside it.

    Each cell: with everybody's pretraining counted / with nobody's. A row is both ours and the
    paper's where what they keep agrees to about 1 %.

    Args:
        ratios: from `speed_up`.

    Returns:
        Columns of texts, by what stands above them.
    """
    papers = reported_speed_up().rename(columns={"pruning_ratio_pct": "pruned"})
    papers["pruned"] = [
        next((percent for percent in ratios["pruned"] if _keeps_as_much(percent, theirs)), theirs)
        for theirs in papers["pruned"]
    ]
    rows = ratios.merge(papers[["pruned", *_COUNTED]], on="pruned", how="outer")
    words = {
        "pruned (%)": rows["pruned"].map("{:.3g}".format),
        "accuracy (points)": column_in_brackets(rows, ["difference", "low", "high"], "+.1f"),
        **{head: _ratio_pairs(rows, f"{unit}_") for unit, head in _HEADS.items()},
        "paper, minutes": _ratio_pairs(rows, ""),
    }
    return pd.DataFrame(words)


def _keeps_as_much(pruned: float, theirs: float) -> bool:
    return abs(np.log((100 - pruned) / (100 - theirs))) < 0.012


def _ratio_pairs(rows: pd.DataFrame, unit: str) -> list[str]:
    pairs = zip(*(rows[f"{unit}{counted}"] for counted in _COUNTED), strict=True)
    return ["–" if math.isnan(whole) else f"{whole:.1f} / {bare:.1f}" for whole, bare in pairs]
