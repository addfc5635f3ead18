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
    """Return `ticket_table` with a column `precision`; tickets that differ in it alone have one
    `curve` and one `point`.

    Args:
        records: of a study that was made at several precisions.
    """
    kept = [(one, str(one["config"]["training"]["precision"])) for one in records]
    alike = [
        {**one, "label": one["label"].removesuffix(f", {own}"), "config": _at_base(one["config"])}
        for one, own in kept
    ]
    return ticket_table(alike).assign(precision=[own for _, own in kept])


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
        points = [own for _, own in pairs.groupby("point", sort=False)]
        agree = [_density(own["kept"]) for own in points]
        for own, density in zip(points, agree, strict=True):
            name, base = own["curve"].iloc[0], own["density_base"]
            name += f", {in_percent(base.mean())}" if (base != 1).any() else ""
            rows.append(_row(name, precision, own["gap"], own["kept"].mean(), [density], half))
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
    for precision, own in differences.groupby("precision", sort=False):
        each = own[own["name"] != TOGETHER]
        counts = each["outcome"].value_counts()
        found = ", ".join(f"{counts[one]} {one}" for one in OUTCOMES if one in counts)
        sentence = Markdown("**{} against {}:** of {} kinds of ticket {}.").format(
            precision, BASE, len(each), found
        )
        for row in own[own["name"] == TOGETHER].to_dict("records"):
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
    name: str, precision: object, gaps: pd.Series, kept: float, densities: list[str], half: float
) -> tuple[object, ...]:
    gap = mean_interval(gaps)
    found = {_outcome(gap.low, gap.high, half), *densities}
    outcome = next(one for one in (DIFFERS, OPEN, SAME) if one in found)
    return (name, precision, gap.n, gap.mean, gap.low, gap.high, kept, outcome)


def _density(kept: pd.Series) -> str:
    gap = mean_interval(kept)
    return SAME if (kept == 0).all() else _outcome(gap.low, gap.high, DENSITY_MARGIN)


def _outcome(low: float, high: float, half: float) -> str:
    """NaN, the interval of one pair, shows nothing."""
    if low >= -half and high <= half:
        return SAME
    return DIFFERS if low > half or high < -half else OPEN
