"""Test accuracy against density: every method, dense, and what others published."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.analysis.points import curve_points, in_order
from companion.analysis.words import described_curves
from companion.evidence.reported import reported_curve
from companion.evidence.statistics import BAND, by_replicate, compare
from companion.figures.charts import (
    Ends,
    curves,
    dots,
    grid,
    interval,
    key,
    labelled,
    level,
    single,
)
from companion.figures.style import DASHED, FAINT, Look, look_of, looks, scaled, styled

_RING: dict[str, Any] = {"marker": "o", "markeredgecolor": FAINT, "linestyle": ""}
_MARKS = {
    "a layer keeps no weight": {**_RING, "markersize": 8, "markerfacecolor": "none"},
    "as reported elsewhere": {**_RING, "markersize": 4.5, "markerfacecolor": "white"},
}


@styled
def accuracy_against_density(
    tables: pd.DataFrame | Mapping[str, pd.DataFrame], reported: pd.DataFrame | None = None
) -> Figure:
    """Draw test accuracy against density, one curve a method, in a panel for each table.

    Seeds are dots, lines join means, bands are 95 % t-intervals (from three seeds on), dense is a
    horizontal line. A curve is broken where every seed failed; a cross marks failed runs, a ring
    tickets with a layer that keeps no weight. All panels have one scale.

    Args:
        tables: from `ticket_table`; several by the titles of their panels.
        reported: from `evidence.reported_curve`: published values, drawn as open markers.
    """
    panels = {"": tables} if isinstance(tables, pd.DataFrame) else tables
    tickets = pd.concat([rows.assign(panel=title) for title, rows in panels.items()])
    papers = pd.DataFrame() if reported is None else reported.rename(columns={"method": "curve"})
    curve_looks = looks(pd.concat([tickets, papers])["curve"])
    size = (6.6, 4.2) if len(panels) == 1 else (6.2, 0.5 + 2.2 * len(panels))
    fig, axes = grid(tickets, *size, row="panel")
    ends = {axes[title]: _draw(axes[title], panels[title], papers, curve_looks) for title in panels}
    points = pd.concat([tickets, papers.rename(columns={"value": "test_accuracy"})])
    for ax in ends:
        scaled(ax, "y", "error", points["test_accuracy"])
        scaled(ax, "x", "log", [100, 100 * points["density"].min()], falling=True)
        ax.set_ylabel("test accuracy (%)")
    ax.set_xlabel("kept weights (%), dense to sparse")
    drawn = (_is_emptied(tickets).any(), len(papers))
    marks = {name: _MARKS[name] for name, any_ in zip(_MARKS, drawn, strict=True) if any_}
    if marks:
        key(fig, marks, 2)
    texts = [f"{title}: {_description(rows)}".removeprefix(": ") for title, rows in panels.items()]
    return labelled(fig, " ".join(texts), ends=ends)


def accuracy_of_variants(table: pd.DataFrame) -> Figure | None:
    """Draw each method that has variants in a panel of its own, beside dense.

    A variant's name adds something after a comma: `OMP, compute-matched`.

    Args:
        table: from `ticket_table`.

    Returns:
        The figure; None without variants.
    """
    family = table["curve"].str.partition(",")[0]
    dense, variant = table["curve"] == "dense", table["curve"].str.contains(",")
    families = set(table["curve"]) & set(family[variant]) - {"dense"}
    methods = [name for name in dict.fromkeys(table["curve"]) if name in families]
    if not methods:
        return None
    return accuracy_against_density({name: table[dense | (family == name)] for name in methods})


def _description(table: pd.DataFrame) -> str:
    points = in_order(curve_points(table), ["dense", *table["curve"]])
    form = "{mean:.1f} % at {density!p} density"
    text = described_curves("Test accuracy by density, dense to sparse", points, form)
    emptied = ", ".join(dict.fromkeys(table.loc[_is_emptied(table), "curve"]))
    rings = f"; rings mark tickets with an emptied layer, of {emptied}" if emptied else ""
    return f"{text.removesuffix('.')}{rings}."


def _draw(
    ax: Axes, table: pd.DataFrame, papers: pd.DataFrame, curve_looks: Mapping[Any, Look]
) -> Ends:
    good = table[table["status"] == "ok"]
    is_dense = good["curve"] == "dense"
    dense, tickets = good[is_dense], good[~is_dense]
    ends = level(ax, dense["test_accuracy"])
    for row in papers.to_dict("records"):
        look = curve_looks[row["curve"]]
        style = {**_MARKS["as reported elsewhere"], "marker": look.marker, "alpha": 0.8}
        style["markeredgecolor"] = look.colour
        ax.plot(100 * row["density"], row["value"], **style, gid="reported")
    points = tickets.groupby(["curve", "point"])["density"]
    tickets = tickets.assign(kept=100 * points.transform("mean"), seeds=points.transform("size"))
    failed = table[table["status"] == "failed"].dropna(subset="target_density")
    failed = failed.assign(kept=100 * failed["target_density"])
    reached = set(zip(tickets["curve"], tickets["target_density"], strict=True))
    targets = zip(failed["curve"], failed["target_density"], strict=True)
    # Where no seed got through there is no accuracy: the line breaks.
    line = pd.concat([tickets, failed[[target not in reached for target in targets]]])
    line = in_order(line.sort_values("kept", ascending=False), table["curve"])
    ends += curves(ax, line, "kept", "test_accuracy", curve_looks, errorbar=interval, gid="mean")
    colours = {name: look.colour for name, look in curve_looks.items()}
    seeds = tickets[tickets["seeds"] > 1]
    dots(ax, 100 * seeds["density"], seeds["test_accuracy"], seeds["curve"].map(colours))
    emptied = tickets[_is_emptied(tickets)]
    ring: Any = {"s": 64, "facecolors": "none", "linewidths": 0.8, "gid": "emptied"}
    ring["edgecolors"] = emptied["curve"].map(colours)
    ax.scatter(100 * emptied["density"], emptied["test_accuracy"], **ring)
    cross: Any = {"transform": ax.get_xaxis_transform(), "marker": "x", "gid": "failed"}
    ax.scatter(failed["kept"], [0.025] * len(failed), c=failed["curve"].map(colours), **cross)
    return ends


def _is_emptied(table: pd.DataFrame) -> pd.Series:
    """Which tickets keep no weight in some layer."""
    return (table["emptied"].fillna(0) > 0).astype(bool)


_THEIRS = "Renda et al. (2020)"


def imp_minus_dense(table: pd.DataFrame) -> pd.DataFrame:
    """Return IMP's test accuracy minus dense's by density, ours and published, a row a point.

    Args:
        table: from `ticket_table`, of one data set and network.

    Returns:
        Columns whose, density, n, difference, low, high (95 %), in points; empty unless both sides
        have IMP and dense.
    """
    network = table["dataset"].iloc[0], table["architecture"].iloc[0]
    reported = reported_curve(*network, artefact="published data")
    theirs = reported[reported["method"] == "IMP, weight rewinding"]
    level = reported.loc[reported["method"] == "dense", "value"]
    good = table[table["status"] == "ok"]
    ours, dense = (good[good["curve"] == name] for name in ("IMP", "dense"))
    names = ["whose", "density", "n", "difference", "low", "high"]
    if ours.empty or dense.empty or theirs.empty or level.empty:
        return pd.DataFrame(columns=names)
    points = []
    for _, rows in ours.groupby("point", sort=False):
        gap = compare(by_replicate(rows), by_replicate(dense))
        points.append(("ours", rows["density"].mean(), gap.n, gap.mean, gap.low, gap.high))
    published = theirs.assign(whose=_THEIRS, n=3, difference=theirs["value"] - level.iloc[0])
    gaps = pd.concat([pd.DataFrame(points, columns=names), published.reindex(columns=names)])
    return gaps.sort_values(["whose", "density"], ascending=[True, False], ignore_index=True)


@styled
def beside_published(gaps: pd.DataFrame) -> Figure:
    """Draw the differences of `imp_minus_dense`; the grey band is where the gate compares them.

    Args:
        gaps: from `imp_minus_dense`.
    """
    sides = {"ours": look_of("IMP"), _THEIRS: look_of("IMP", colour=FAINT, fill="none")}
    points = gaps.assign(kept=100 * gaps["density"])
    fig, ax = single(6.2, 2.9)
    ax.axvspan(*(100 * BAND[[0, -1]]), color=FAINT, alpha=0.12, linewidth=0)
    ax.axhline(0, **DASHED)
    curves(ax, points, "kept", "difference", sides, "whose", ends=("low", "high"))
    scaled(ax, "x", "log", [100, points["kept"].min()], falling=True)
    ax.set(xlabel="kept weights (%), dense to sparse", ylabel="IMP minus dense (points)")
    key(fig, {"ours": sides["ours"], f"{_THEIRS}, median of 3": sides[_THEIRS]}, 2)
    form = "{difference:+.1f} points at {density!p} density"
    ordered, lead = gaps.sort_values("whose", kind="stable"), "IMP minus dense, dense to sparse"
    return labelled(fig, described_curves(lead, ordered, form, "whose"))
