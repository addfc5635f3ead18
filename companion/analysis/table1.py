"""Sparsest winning tickets, as the BiP paper's Table 1 defines them, ours beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.analysis.paper_panels import METHODS, panel_of
from companion.analysis.points import difference_to, judged_beside_dense
from companion.analysis.winners import STAR, d_star_in_words, whole_d_star
from companion.analysis.words import in_brackets
from companion.evidence.reported import plain_name, reported

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
    names = [*_ABOUT, "curve", "seeds", "chosen", *_JUDGED, *STAR]
    return pd.DataFrame(found, columns=names)


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
    titles = {", ".join(pair): pair for pair in pairs}
    rows = []
    for method, cells in papers.groupby("method", sort=False):
        named = cells.set_index(["dataset", "architecture"])
        theirs = {title: _paper(named.loc[pair]) for title, pair in titles.items()}
        ours = {title: _cell(winners, pair, str(method)) for title, pair in titles.items()}
        rows += [{"tickets": f"{method}, paper", **theirs}, {"tickets": f"{method}, ours", **ours}]
    return pd.DataFrame(rows)


def table1_in_words(winners: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `table1_winners` for readers, a row a curve.

    Each winner is the percentage pruned, and in brackets its accuracy minus dense in points.
    """
    by_choice = (winners[winners["chosen"] == how].to_dict("records") for how in (TEST, VALIDATION))
    rows = [
        {
            "study": f"{defined['study']} ({defined['scale']})",
            "tickets": defined["curve"],
            "seeds": defined["seeds"],
            "as defined": _ticket(defined),
            "on validation": _ticket(validated),
            "d*, kept (%)": d_star_in_words(defined),
        }
        for defined, validated in zip(*by_choice, strict=True)
    ]
    return pd.DataFrame(rows)


def _winners(table: pd.DataFrame, methods: Sequence[str]) -> Iterator[dict[Any, Any]]:
    tickets, dense = judged_beside_dense(table)
    for method in methods:
        rows = tickets[tickets["curve"] == method]
        if rows.empty:
            continue
        whole = rows[[*_ABOUT, "curve"]].iloc[0].to_dict() | whole_d_star(rows, dense)
        for chosen in (TEST, VALIDATION):
            won = _sparsest(rows, f"{chosen}_accuracy", dense)
            row = {**whole, "seeds": rows["seed"].nunique(), "chosen": chosen}
            yield {**row, **(_judged(won, dense) if len(won) else {})}


def _sparsest(rows: pd.DataFrame, value: str, dense: pd.DataFrame) -> pd.DataFrame:
    """The tickets of the sparsest point whose mean is no less than dense's."""
    points = rows.groupby("point", sort=False)
    won = points[value].mean() >= dense[value].mean()
    if not won.any():
        return rows.iloc[:0]
    return rows[rows["point"] == points["pruned"].mean()[won].idxmax()]


def _judged(won: pd.DataFrame, dense: pd.DataFrame) -> dict[str, float]:
    means = {name: won[name].mean() for name in ("pruned", "density")}
    accuracy = {"accuracy": won["test_accuracy"].mean(), "std": won["test_accuracy"].std()}
    return means | accuracy | difference_to(won, dense)


def _paper(row: pd.Series) -> str:
    if math.isnan(row["value"]):
        return "none"
    return f"{row['pruning_ratio_pct']:g} % ({row['value']:.2f} ± {row['std']:.2f})"


def _cell(winners: pd.DataFrame, pair: tuple[str, str], method: str) -> str:
    wanted = plain_name(pair[0]), plain_name(pair[1])
    named = zip(winners["dataset"], winners["architecture"], strict=True)
    own = winners[np.array([panel_of(*one) == wanted for one in named], bool)]
    own = own[(own["curve"] == method) & (own["chosen"] == TEST)]
    if own.empty:
        return "not run"
    row = own.iloc[0]
    about = f"n = {row['seeds']}" + ("" if row["scale"] == "paper" else f", {row['scale']}")
    if math.isnan(row["pruned"]):
        return f"none ({about})"
    return f"{row['pruned']:.3g} % ({row['difference']:+.2f} points, {about})"


def _ticket(row: Mapping[Any, Any]) -> str:
    if math.isnan(row["pruned"]):
        return "none"
    gap = in_brackets(row["difference"], row["low"], row["high"], "+.2f")
    return f"{row['pruned']:.3g} % ({gap})"
