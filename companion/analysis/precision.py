"""Which precisions may stand for one another: the same seeds trained in each, ticket by ticket.

Fixed before any of it was run: two precisions are interchangeable where the 95 % interval of the
paired difference in accuracy lies within a margin, and where their tickets keep equally many
weights. A method that is given a count keeps it exactly; of one that finds its density the interval
of the difference lies within `DENSITY_MARGIN`.
"""

from __future__ import annotations

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

_COLUMNS = (
    *("name", "precision", "n", "accuracy", "difference", "low", "high"),
    *("kept", "kept_low", "kept_high", "outcome"),
)


def margin(scale: str) -> float:
    """Return the points of accuracy within which a difference counts as none, at a scale."""
    return -MARGIN if scale == "paper" else _SMALL_SCALE_MARGIN


def precision_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return `ticket_table` with a column `precision`; tickets that differ in it alone have one
    `curve` and one `point`.

    Args:
        records: of a study that was made at several precisions.
    """
    kept = list(records)
    precisions = [str(one["config"]["training"]["precision"]) for one in kept]
    alike = [
        {**one, "label": one["label"].removesuffix(f", {own}"), "config": _at_base(one["config"])}
        for one, own in zip(kept, precisions, strict=True)
    ]
    return ticket_table(alike).assign(precision=precisions)


def precision_differences(table: pd.DataFrame) -> pd.DataFrame:
    """Return how far tickets in each precision lie from the same seed's in fp32.

    Args:
        table: from `precision_table`, of one study.

    Returns:
        A row a point and precision, and one for all points `TOGETHER`: the mean over the points of
        each seed that has them all, whose outcome asks for every density to agree. Columns: name
        (curve and mean density in fp32), precision, n (pairs of seeds), accuracy (percent, in this
        precision), difference (points), low, high (95 %), kept (percent that the density is above
        fp32's), kept_low, kept_high, outcome (one of `OUTCOMES`). Intervals are NaN for one seed,
        densities for `TOGETHER`. Empty without a pair.
    """
    ok = table[table["status"] == "ok"]
    half = margin("" if table.empty else str(table["scale"].iloc[0]))
    rows = []
    for precision in [one for one in dict.fromkeys(ok["precision"]) if one != BASE]:
        gaps: list[pd.DataFrame] = []
        for point in dict.fromkeys(ok["point"]):
            own = ok[ok["point"] == point]
            pairs = _pairs(own, precision)
            if len(pairs):
                curve, density = own["curve"].iloc[0], in_percent(pairs["density_base"].mean())
                name = curve if pairs["density_base"].eq(1).all() else f"{curve}, {density}"
                gaps.append(pairs)
                rows.append(_row(name, precision, pairs, [_density(pairs)], half))
        if len(gaps) > 1 and len(together := _mean_of(gaps)):
            densities = [_density(pairs) for pairs in gaps]
            rows.append(_row(TOGETHER, precision, together, densities, half))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


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


def _pairs(point: pd.DataFrame, precision: str) -> pd.DataFrame:
    """Seeds of a point that both precisions have: accuracy and density in each, and the gaps."""
    names = ["test_accuracy", "density"]
    ours, base = (
        point[point["precision"] == one].groupby("seed")[names].mean() for one in (precision, BASE)
    )
    pairs = ours.join(base.add_suffix("_base"), how="inner")
    gap = pairs["test_accuracy"] - pairs["test_accuracy_base"]
    return pairs.assign(gap=gap, kept=100 * (pairs["density"] / pairs["density_base"] - 1))


def _mean_of(gaps: list[pd.DataFrame]) -> pd.DataFrame:
    rows = pd.concat([pairs[["test_accuracy", "gap"]] for pairs in gaps])
    seeds = rows.groupby("seed")
    return seeds.mean()[seeds.size() == len(gaps)].assign(kept=float("nan"))


def _row(
    name: str, precision: str, pairs: pd.DataFrame, densities: list[str], half: float
) -> tuple[object, ...]:
    gap, kept = mean_interval(pairs["gap"]), mean_interval(pairs["kept"])
    found = {_outcome(gap.low, gap.high, half), *densities}
    outcome = next(one for one in (DIFFERS, OPEN, SAME) if one in found)
    level = pairs["test_accuracy"].mean()
    accuracy = (gap.n, level, gap.mean, gap.low, gap.high)
    return (name, precision, *accuracy, kept.mean, kept.low, kept.high, outcome)


def _density(pairs: pd.DataFrame) -> str:
    kept = mean_interval(pairs["kept"])
    if (pairs["kept"] == 0).all():
        return SAME
    return _outcome(kept.low, kept.high, DENSITY_MARGIN)


def _outcome(low: float, high: float, half: float) -> str:
    """NaN, the interval of one pair, shows nothing."""
    if low >= -half and high <= half:
        return SAME
    return DIFFERS if low > half or high < -half else OPEN
