"""Sparsest winning tickets, as the BiP paper's Table 1 defines them, ours beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.analysis.paper_panels import METHODS, panel_of
from companion.analysis.points import pruned
from companion.analysis.winners import d_star_in_words, whole_d_star
from companion.analysis.words import in_brackets
from companion.evidence.reported import plain_name, reported
from companion.evidence.statistics import compare
from lthlib.errors import ConfigError

TEST, VALIDATION = "test", "validation"
_ABOUT = ("study", "scale", "dataset", "architecture")
_JUDGED = ("pruned", "density", "accuracy", "std", "difference", "low", "high")


def table1_winners(
    tables: Mapping[str, pd.DataFrame], methods: Sequence[str] = METHODS
) -> pd.DataFrame:
    """Return each method's sparsest winning ticket: its mean accuracy is no less than dense's.

    Args:
        tables: study -> its tickets with dense, from `ticket_table`; there may be none.
        methods: curves to judge; those that a table lacks are left out.

    Returns:
        Columns study, scale, dataset, architecture, curve, seeds, chosen (`test`: means of test
        accuracy decide, as in the paper; `validation`: means of validation accuracy do), pruned
        (percent), density, accuracy, std (test, percent), difference, low, high (test, to dense,
        points, 95 %), and of the whole curve d_star, d_star_low, d_star_high, edge: see
        `evidence.statistics.Crossing`. NaN where no ticket wins or too few seeds are known.

    Raises:
        ConfigError: a table has no dense network.
    """
    found = [row for table in tables.values() for row in _winners(table, methods)]
    names = [*_ABOUT, "curve", "seeds", "chosen", *_JUDGED]
    return pd.DataFrame(found, columns=[*names, "d_star", "d_star_low", "d_star_high", "edge"])


def winners_beside_paper(winners: pd.DataFrame) -> pd.DataFrame:
    """Return Table 1 with ours below each of its rows: a column a data set and network.

    Cells of ours: `not run` where no study was; `none` where no ticket wins; the percentage pruned
    by means on test, as the paper chooses, with accuracy minus dense and the number of seeds.

    Args:
        winners: from `table1_winners`, of any number of studies; the first of a network counts.
    """
    papers = reported()
    papers = papers[papers["artefact"] == "Table 1"]
    pairs = dict.fromkeys(zip(papers["dataset"], papers["architecture"], strict=True))
    rows = []
    for method, cells in papers.groupby("method", sort=False):
        named = cells.set_index(["dataset", "architecture"])
        theirs = {_title(pair): _paper(named.loc[pair]) for pair in pairs}
        ours = {_title(pair): _cell(winners, pair, str(method)) for pair in pairs}
        rows += [{"tickets": f"{method}, paper", **theirs}, {"tickets": f"{method}, ours", **ours}]
    return pd.DataFrame(rows)


def table1_in_words(winners: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `table1_winners` for readers, a row a curve.

    Each winner is the percentage pruned, and in brackets its accuracy minus dense in points.
    """
    rows = []
    for _, own in winners.groupby(["study", "curve"], sort=False):
        by_choice: dict[Any, Any] = {row["chosen"]: row for row in own.to_dict("records")}
        whole = by_choice[TEST]
        rows.append(
            {
                "study": f"{whole['study']} ({whole['scale']})",
                "tickets": whole["curve"],
                "seeds": whole["seeds"],
                "as defined": _ticket(whole),
                "on validation": _ticket(by_choice[VALIDATION]),
                "d*, kept (%)": d_star_in_words(whole),
            }
        )
    return pd.DataFrame(rows)


def _winners(table: pd.DataFrame, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    good = table[table["status"] == "ok"]
    good = good.assign(pruned=pruned(good))
    dense = good[good["curve"] == "dense"]
    if dense.empty:
        raise ConfigError("tickets are judged against dense networks, and the table has none")
    about = good[[*_ABOUT]].iloc[0].to_dict()
    for method in methods:
        rows = good[good["curve"] == method]
        if rows.empty:
            continue
        stars = whole_d_star(rows, dense["test_accuracy"])
        whole: dict[Any, Any] = {**about, "curve": method, "seeds": rows["seed"].nunique(), **stars}
        for chosen in (TEST, VALIDATION):
            won = _sparsest(rows, dense, f"{chosen}_accuracy")
            yield {**whole, "chosen": chosen, **_judged(won, dense)}


def _sparsest(rows: pd.DataFrame, dense: pd.DataFrame, value: str) -> pd.DataFrame:
    """The tickets of the sparsest point that wins by a mean."""
    points = [own for _, own in rows.groupby("point", sort=False) if own[value].notna().any()]
    won = [own for own in points if own[value].mean() >= dense[value].mean()]
    return max(won, key=lambda own: float(own["pruned"].mean()), default=rows.iloc[:0])


def _judged(won: pd.DataFrame, dense: pd.DataFrame) -> dict[str, Any]:
    if won.empty:
        return dict.fromkeys(_JUDGED, math.nan)
    gap = compare(
        *(rows.groupby(["study", "seed"])["test_accuracy"].mean() for rows in (won, dense))
    )
    return {
        "pruned": float(won["pruned"].mean()),
        "density": float(won["density"].mean()),
        "accuracy": float(won["test_accuracy"].mean()),
        "std": float(won["test_accuracy"].std()),
        "difference": gap.mean,
        "low": gap.low,
        "high": gap.high,
    }


def _title(pair: tuple[str, str]) -> str:
    return ", ".join(pair)


def _paper(row: pd.Series) -> str:
    if math.isnan(row["value"]):
        return "none"
    return f"{row['pruning_ratio_pct']:g} % ({row['value']:.2f} ± {row['std']:.2f})"


def _cell(winners: pd.DataFrame, pair: tuple[str, str], method: str) -> str:
    named = zip(winners["dataset"], winners["architecture"], strict=True)
    wanted = plain_name(pair[0]), plain_name(pair[1])
    same = [panel_of(*one) == wanted for one in named]
    own = winners[np.array(same, bool)]
    own = own[(own["curve"] == method) & (own["chosen"] == TEST)]
    if own.empty:
        return "not run"
    row: Mapping[Any, Any] = own.iloc[0].to_dict()
    scale = "" if row["scale"] == "paper" else f", {row['scale']}"
    if math.isnan(row["pruned"]):
        return f"none (n = {row['seeds']}{scale})"
    gap = f"{row['difference']:+.2f} points"
    return f"{row['pruned']:.3g} % ({gap}, n = {row['seeds']}{scale})"


def _ticket(row: Mapping[Any, Any]) -> str:
    if math.isnan(row["pruned"]):
        return "none"
    gap = in_brackets(row["difference"], row["low"], row["high"], "+.2f")
    return f"{row['pruned']:.3g} % ({gap})"
