"""The two tickets that papers report of a curve: sparsest matching, and best performing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.analysis.points import difference_to, judged_beside_dense, round_numbers
from companion.analysis.words import column_in_brackets, in_brackets
from companion.evidence.statistics import (
    EDGES,
    IMP_DENSITIES,
    best_on_validation,
    d_star,
    mean_interval,
    on_grid,
    sparsest_on_validation,
)

GAP = ["difference", "difference_low", "difference_high"]

STAR = ["d_star", "d_star_low", "d_star_high", "edge"]

SPARSEST, BEST = "sparsest matching", "best performing"


def winning_tickets(table: pd.DataFrame) -> pd.DataFrame:
    """Return, of each curve, the sparsest matching and the best performing ticket, a row each.

    Each seed's ticket is chosen on validation images and judged on test images. Matching:
    validation accuracy no more than one standard deviation below the dense mean.

    Args:
        table: from `ticket_table`, with dense.

    Returns:
        Columns choice, curve, n (seeds that have such a ticket), seeds, round (from 1) and density
        (medians over them), accuracy, low, high (test, percent, 95 % t-interval), difference,
        difference_low, difference_high (to dense, points), and of the whole curve d_star,
        d_star_low, d_star_high (95 % bootstrap), edge: see `evidence.statistics.Crossing`. NaN
        where there is no such ticket, or too few seeds.

    Raises:
        ConfigError: the table has no dense network.
    """
    tickets, dense = judged_beside_dense(table)
    level = mean_interval(dense["validation_accuracy"])
    target = level.mean - (0.0 if math.isnan(level.std) else level.std)
    found: list[dict[str, Any]] = []
    for curve, rows in tickets.groupby("curve", sort=False):
        stars = whole_d_star(rows, dense)
        whole = {"curve": curve, "seeds": rows["seed"].nunique(), **stars}
        chosen = {SPARSEST: sparsest_on_validation(rows, target), BEST: best_on_validation(rows)}
        found += [{"choice": name, **whole, **_judged(own, dense)} for name, own in chosen.items()]
    columns = ["choice", "curve", "n", "seeds", "round", "density", "accuracy", "low", "high"]
    winners = pd.DataFrame(found, columns=[*columns, *GAP, *STAR])
    return winners.sort_values("choice", ascending=False, kind="stable", ignore_index=True)


def winners_in_words(winners: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `winning_tickets` for readers: a text a cell, intervals in brackets."""
    rows = winners.to_dict("records")
    return pd.DataFrame(
        {
            "choice": winners["choice"],
            "tickets": winners["curve"],
            "seeds": [f"{row['n']} of {row['seeds']}" for row in rows],
            "round": [_text(row["round"], "g") for row in rows],
            "kept (%)": [_text(100 * row["density"], ".3g") for row in rows],
            "accuracy (%)": column_in_brackets(winners, ["accuracy", "low", "high"], ".1f"),
            "minus dense (points)": column_in_brackets(winners, GAP, "+.1f"),
            "d* (%)": [d_star_in_words(row) for row in rows],
        }
    )


def whole_d_star(rows: pd.DataFrame, dense: pd.DataFrame) -> dict[str, Any]:
    """Return d_star, d_star_low, d_star_high and edge of a curve; no d_star where none is known.

    Args:
        rows: of one curve, from `ticket_table`.
        dense: those of the dense networks.
    """
    curve = on_grid(rows, IMP_DENSITIES)
    star = d_star(curve, dense["test_accuracy"], np.random.default_rng(0))
    if star is None:
        return {"edge": ""}
    return dict(zip(STAR, (star.density, star.low, star.high, star.edge), strict=True))


def _judged(rows: pd.DataFrame, dense: pd.DataFrame) -> dict[str, Any]:
    if rows.empty:
        return {"n": 0}
    level, gap = mean_interval(rows["test_accuracy"]), difference_to(rows, dense)
    return {
        "n": len(rows),
        "round": float(round_numbers(rows).median()),
        "density": float(rows["density"].median()),
        **{"accuracy": level.mean, "low": level.low, "high": level.high},
        **dict(zip(GAP, gap.values(), strict=True)),
    }


def d_star_in_words(row: Mapping[Any, Any]) -> str:
    """Return d* of a row, in percent with its interval: `at most 5.5 [4.9, 6.1]`."""
    star, low, high = (100 * row[name] for name in STAR[:3])
    return EDGES[row["edge"]] + in_brackets(star, low, high, ".2g")


def _text(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
