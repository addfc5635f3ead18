"""What a ticket costs by how much is pruned, and how many times faster one method is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.analysis.cost import UNITS
from companion.analysis.points import pruned
from companion.analysis.words import in_brackets
from companion.evidence.costs import spent
from companion.evidence.reported import reported_speed_up
from companion.evidence.statistics import compare, on_grid, ratio

_HEADS = {"epochs": "epochs", "passes": "passes", "flops": "FLOPs", "seconds": "seconds"}


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
    rows = table[table["status"] == "ok"]
    rows = rows.assign(pruned=pruned(rows))
    ours, theirs = (rows[rows["curve"] == curve] for curve in (fast, slow))
    names = [f"{unit}_{counted}" for unit in UNITS for counted in ("both", "neither")]
    columns = ["pruned", "density", "n", "difference", "low", "high", *names]
    found = []
    for _, point in ours.groupby("point", sort=False):
        density = float(point["density"].mean())
        if on_grid(theirs, [density])[density].notna().any():
            compared = _compared(rows, point, theirs, density)
            found.append((point["pruned"].mean(), density, *compared))
    return pd.DataFrame(found, columns=columns).sort_values("pruned", ignore_index=True)


def speed_up_in_words(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `speed_up` for readers, the BiP paper's own minutes beside it.

    Each cell: with everybody's pretraining counted / with nobody's. A row is both ours and the
    paper's where what they keep agrees to about 1 %.

    Args:
        found: from `speed_up`.
    """
    papers = reported_speed_up()
    rows = [
        {"pruned": row["pruned"], **_cells(row), "paper": _paper(papers, row["pruned"])}
        for row in found.to_dict("records")
    ]
    shown = [row["pruned"] for row in rows]
    for row in papers.to_dict("records"):
        if not any(_same(row["pruning_ratio_pct"], one) for one in shown):
            blank = dict.fromkeys(["accuracy", *_HEADS.values()], "–")
            rows.append({"pruned": row["pruning_ratio_pct"], **blank, "paper": _two(row)})
    rows.sort(key=lambda row: float(row["pruned"]))
    table = pd.DataFrame(rows)
    table["pruned"] = table["pruned"].map("{:.3g}".format)
    names = {"pruned": "pruned (%)", "accuracy": "accuracy (points)", "paper": "paper, minutes"}
    return table.rename(columns=names)


def _compared(
    rows: pd.DataFrame, ours: pd.DataFrame, theirs: pd.DataFrame, density: float
) -> Iterator[float]:
    """n, the difference of accuracies with its interval, then the ratios of costs."""
    keys = ["study", "seed"]
    accuracy = on_grid(theirs, [density])[density].dropna()
    gap = compare(ours.groupby(keys)["test_accuracy"].mean(), accuracy)
    yield from (gap.n, gap.mean, gap.low, gap.high)
    for unit in UNITS:
        for counted in (True, False):
            cost = spent(rows, unit, counted)
            fast = cost[ours.index].groupby([ours[key] for key in keys]).mean()
            slow = on_grid(theirs.assign(cost=cost[theirs.index]), [density], "cost")[density]
            slow, fast = (each[each > 0].dropna() for each in (slow, fast))
            yield ratio(slow, fast).mean if len(slow) and len(fast) else math.nan


def _cells(row: Mapping[Any, Any]) -> dict[str, str]:
    pairs = {
        head: _two({name: row[f"{unit}_{name}"] for name in ("both", "neither")})
        for unit, head in _HEADS.items()
    }
    gap = in_brackets(row["difference"], row["low"], row["high"], "+.1f")
    return {"accuracy": gap, **pairs}


def _paper(papers: pd.DataFrame, percent: float) -> str:
    same = [row for row in papers.to_dict("records") if _same(row["pruning_ratio_pct"], percent)]
    return _two(same[0]) if same else "–"


def _same(one: float, other: float) -> bool:
    return abs(np.log((100 - one) / (100 - other))) < 0.012


def _two(row: Mapping[Any, Any]) -> str:
    return f"{row['both']:.1f} / {row['neither']:.1f}"
