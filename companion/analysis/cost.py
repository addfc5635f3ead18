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
_WHO = ("both", "neither")


def curve_costs(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Return what all tickets of a curve cost together, mean over seeds: curve, tickets, n, cost.

    Each run counts once, with all it rests on: one IMP sequence yields all its densities, BiP
    repeats for each, and the dense network that they start from is trained once.
    """
    rows = table[table["status"] == "ok"]
    seeds = bills(rows, unit).groupby("curve", sort=False)
    tickets = rows.groupby(["curve", "seed"], sort=False).size().groupby("curve", sort=False).max()
    found = pd.DataFrame({"tickets": tickets, "n": seeds.size(), "cost": seeds.mean()})
    return found.reset_index()


def speed_up(table: pd.DataFrame, slow: str = "IMP", fast: str = "BiP") -> pd.DataFrame:
    """Return how many times more a ticket of one method costs than one of another, a row a density.

    Args:
        table: from `ticket_table`.
        slow, fast: curves; the densities are those of `fast`'s tickets, where `slow` reaches them
            (its cost is interpolated in log density between its tickets).

    Returns:
        Columns pruned (percent), density, n, difference, low, high (accuracy of `fast` less `slow`,
        points, 95 %), and for each unit of `UNITS` UNIT_both and UNIT_neither: the ratio of
        geometric means over seeds, with everybody's pretraining counted and with nobody's.
    """
    rows = judged(table)
    costs = {f"{unit}_{who}": spent(rows, unit, who == "both") for unit in UNITS for who in _WHO}
    rows = rows.assign(**costs)
    ours, theirs = (rows[rows["curve"] == curve] for curve in (fast, slow))
    found = []
    for _, point in ours.groupby("point", sort=False):
        density = float(point["density"].mean())
        accuracy = on_grid(theirs, [density])[density].dropna()
        if len(accuracy):
            gap = compare(by_replicate(point), accuracy)
            numbers = (point["pruned"].mean(), density, gap.n, gap.mean, gap.low, gap.high)
            found.append((*numbers, *(_times(theirs, point, density, name) for name in costs)))
    columns = ["pruned", "density", "n", "difference", "low", "high", *costs]
    return pd.DataFrame(found, columns=columns).sort_values("pruned", ignore_index=True)


def _times(slow: pd.DataFrame, fast: pd.DataFrame, density: float, cost: str) -> float:
    both = on_grid(slow, [density], cost)[density], by_replicate(fast, cost)
    dear, cheap = (each[each > 0].dropna() for each in both)
    return ratio(dear, cheap).mean if len(dear) and len(cheap) else math.nan


def speed_up_in_words(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `speed_up` for readers, the BiP paper's own minutes beside it.

    Each cell: with everybody's pretraining counted / with nobody's. A row is both ours and the
    paper's where what they keep agrees to about 1 %.

    Args:
        found: from `speed_up`.
    """
    papers = reported_speed_up().rename(columns={"pruning_ratio_pct": "pruned"})
    same = [[one for one in found["pruned"] if _same(one, other)] for other in papers["pruned"]]
    pairs = zip(same, papers["pruned"], strict=True)
    papers["pruned"] = [ours[0] if ours else theirs for ours, theirs in pairs]
    rows = found.merge(papers[["pruned", *_WHO]], on="pruned", how="outer")
    words = {
        "pruned (%)": rows["pruned"].map("{:.3g}".format),
        "accuracy (points)": column_in_brackets(rows, ["difference", "low", "high"], "+.1f"),
        **{head: _two(rows[[f"{unit}_{who}" for who in _WHO]]) for unit, head in _HEADS.items()},
        "paper, minutes": _two(rows[[*_WHO]]),
    }
    return pd.DataFrame(words)


def _same(one: float, other: float) -> bool:
    return abs(np.log((100 - one) / (100 - other))) < 0.012


def _two(ratios: pd.DataFrame) -> list[str]:
    pairs = ratios.itertuples(index=False, name=None)
    return ["–" if math.isnan(both) else f"{both:.1f} / {neither:.1f}" for both, neither in pairs]
