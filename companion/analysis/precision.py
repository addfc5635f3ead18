"""Which precisions may stand for one another: the same seeds trained in each, ticket by ticket.

Fixed before any of it was run: two precisions are interchangeable where the 95 % interval of the
paired difference in accuracy lies within a margin, and where their tickets keep equally many
weights. A method that is given a count keeps it exactly; of one that finds its density the interval
of the difference lies within `DENSITY_MARGIN`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from companion.analysis.points import ticket_table
from companion.analysis.words import in_brackets, in_percent
from companion.evidence.statistics import MARGIN, mean_interval
from companion.markdown import Markdown

BASE = "fp32"
TOGETHER = "all together"
OUTCOMES = SAME, DIFFERS, OPEN = ("interchangeable", "differs", "not shown")
DENSITY_MARGIN = 2.0  # percent of the weights kept in the base's precision
_SMALL_SCALE_MARGIN = 0.5
_COLUMNS = ["name", "precision", "n", "difference", "low", "high", "kept", "outcome"]


def margin(scale: str) -> float:
    """Return the points of accuracy within which a difference counts as none, at a scale."""
    return -MARGIN if scale == "paper" else _SMALL_SCALE_MARGIN


def precision_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return `ticket_table` with a column `precision`.

    Tickets that differ in it alone have one `curve` and one `point`.

    Args:
        records: of a study that was made at several precisions.
    """
    precisions, alike = [], []
    for record in records:
        precision = str(record["config"]["training"]["precision"])
        label = record["label"].removesuffix(f", {precision}")
        alike.append({**record, "label": label, "config": _at_base(record["config"])})
        precisions.append(precision)
    return ticket_table(alike).assign(precision=precisions)


def precision_differences(table: pd.DataFrame) -> pd.DataFrame:
    """Return how far tickets in each precision lie from the same seed's in fp32.

    Args:
        table: from `precision_table`, of one study.

    Returns:
        A row a point and precision, and one for all points `TOGETHER`, the mean over the points of
        each seed that has them all, whose outcome asks for every density to agree. Columns: name
        (curve and mean density in fp32), precision, n (pairs of seeds), difference (points), low,
        high (95 %), kept (percent that the density is above fp32's), outcome (one of `OUTCOMES`).
        The interval is NaN for one seed, kept for `TOGETHER`. Empty without a pair.
    """
    half = margin("" if table.empty else str(table["scale"].iloc[0]))
    rows = []
    for precision, pairs in _pairs(table[table["status"] == "ok"]).groupby("precision", sort=False):
        points = [point for _, point in pairs.groupby("point", sort=False)]
        agree = [_density_outcome(point["kept"]) for point in points]
        for point, density in zip(points, agree, strict=True):
            name, base = point["curve"].iloc[0], point["density_base"]
            name += f", {in_percent(base.mean())}" if (base != 1).any() else ""
            rows.append(_row(name, precision, point["gap"], point["kept"].mean(), [density], half))
        seeds = pairs.groupby("seed")["gap"]
        whole = seeds.mean()[seeds.size() == len(points)]
        if len(points) > 1 and len(whole):
            rows.append(_row(TOGETHER, precision, whole, float("nan"), agree, half))
    return pd.DataFrame(rows, columns=_COLUMNS)


def precision_outcome(differences: pd.DataFrame, points: float) -> Markdown:
    """Return what follows for each precision, in a few sentences.

    Args:
        differences: from `precision_differences`.
        points: the margin in accuracy that outcomes were found with.
    """
    sentences = []
    for precision, rows in differences.groupby("precision", sort=False):
        together = rows["name"] == TOGETHER
        counts = rows.loc[~together, "outcome"].value_counts()
        outcomes = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if name in counts)
        sentence = Markdown("**{} against {}:** of {} kinds of ticket {}.").format(
            precision, BASE, (~together).sum(), outcomes
        )
        for row in rows[together].to_dict("records"):
            gap = in_brackets(row["difference"], row["low"], row["high"], "+.2f")
            sentence += Markdown(
                " Over all of them accuracy differs by {} points on average: "
                "**{}** at a margin of {:g} points, {} seeds."
            ).format(gap, row["outcome"], points, row["n"])
        sentences.append(sentence)
    return Markdown("\n\n").join(sentences)


def _at_base(config: Mapping[str, Any]) -> dict[str, Any]:
    parent = config["parent"]
    if parent is not None:
        parent = {**parent, "config": _at_base(parent["config"])}
    return {**config, "training": {**config["training"], "precision": BASE}, "parent": parent}


def _pairs(ok: pd.DataFrame) -> pd.DataFrame:
    """Seeds of a point that a precision and the base have: how far they are apart."""
    keys = ["precision", "curve", "point", "seed"]
    seeds = ok.groupby(keys, sort=False)[["test_accuracy", "density"]].mean().reset_index()
    base = seeds[seeds["precision"] == BASE].drop(columns=["precision", "curve"])
    pairs = seeds[seeds["precision"] != BASE].merge(base, on=keys[2:], suffixes=("", "_base"))
    gap = pairs["test_accuracy"] - pairs["test_accuracy_base"]
    return pairs.assign(gap=gap, kept=100 * (pairs["density"] / pairs["density_base"] - 1))


def _row(
    name: str, precision: object, gaps: pd.Series, above: float, densities: list[str], half: float
) -> tuple[object, ...]:
    gap = mean_interval(gaps)
    outcomes = {_outcome(gap.low, gap.high, half), *densities}
    outcome = next(worst for worst in (DIFFERS, OPEN, SAME) if worst in outcomes)
    return (name, precision, gap.n, gap.mean, gap.low, gap.high, above, outcome)


def _density_outcome(above: pd.Series) -> str:
    gap = mean_interval(above)
    return SAME if (above == 0).all() else _outcome(gap.low, gap.high, DENSITY_MARGIN)


def _outcome(low: float, high: float, half: float) -> str:
    """NaN, the interval of one pair, shows nothing."""
    if low >= -half and high <= half:
        return SAME
    return DIFFERS if low > half or high < -half else OPEN
