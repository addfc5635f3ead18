"""Test accuracy against density: seeds, mean, interval, dense, and the papers' values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.analysis.points import curve_points, in_order
from companion.analysis.words import described_curves
from companion.figures.charts import curves, grid, interval, labelled, panels, seeds
from companion.figures.style import (
    FAINT,
    INK,
    Look,
    accuracy_axis,
    dense_level,
    density_axis,
    label_ends,
    looks,
    styled,
)

_RING: dict[str, Any] = {"marker": "o", "linestyle": "", "markerfacecolor": "none"}
_RING |= {"markersize": 8.0, "markeredgewidth": 0.8}
_OPEN: dict[str, Any] = {"linestyle": "", "markersize": 4.5, "markerfacecolor": "white"}


@styled()
def accuracy_against_density(table: pd.DataFrame, reported: pd.DataFrame | None = None) -> Figure:
    """Draw test accuracy against density, one curve a method, in one panel.

    Seeds are dots, lines join means, bands are 95 % t-intervals (from three seeds on), dense is a
    horizontal line. A curve is broken where every seed failed; a cross marks failed runs, a ring
    tickets with a layer that keeps no weight.

    Args:
        table: from `ticket_table`.
        reported: from `evidence.reported_curve`: published values, drawn as open markers.
    """
    fig, (ax,) = panels(1, 6.6, 4.2)
    _draw({ax: table}, reported)
    return labelled(fig, _in_words(table))


@styled()
def accuracy_in_panels(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw test accuracy against density in a panel for each table, all to one scale.

    Args:
        tables: title of a panel -> what it shows, from `ticket_table`.
    """
    every = pd.concat([rows.assign(panel=title) for title, rows in tables.items()])
    fig, axes = grid(every, 6.2, 0.5 + 2.2 * len(tables), row="panel")
    _draw({axes[title]: rows for title, rows in tables.items()}, None)
    return labelled(fig, " ".join(f"{title}: {_in_words(own)}" for title, own in tables.items()))


def accuracy_of_variants(table: pd.DataFrame) -> Figure | None:
    """Draw each method that has variants in a panel of its own, beside dense.

    A variant's name adds something after a comma: `OMP, compute-matched`. None without variants.

    Args:
        table: from `ticket_table`.
    """
    names = _curves(table)
    families = [name for name in names if any(one.startswith(f"{name},") for one in names)]
    if not families:
        return None
    own = table["curve"].str.partition(",")[0]
    dense = table["curve"] == "dense"
    fig = accuracy_in_panels({family: table[dense | (own == family)] for family in families})
    return labelled(fig, _in_words(table))


def _in_words(table: pd.DataFrame) -> str:
    points = in_order(curve_points(table), ["dense", *_curves(table)])
    form = "{mean:.1f} % at {density!p} density"
    text = described_curves("Test accuracy by density, dense to sparse", points, form)
    hollow = ", ".join(dict.fromkeys(table.loc[_hollow(table), "curve"]))
    rings = f"; rings mark tickets with an emptied layer, of {hollow}" if hollow else ""
    return f"{text.removesuffix('.')}{rings}."


def _curves(table: pd.DataFrame) -> list[str]:
    return [name for name in dict.fromkeys(table["curve"]) if name != "dense"]


def _draw(shown: Mapping[Axes, pd.DataFrame], reported: pd.DataFrame | None) -> None:
    """Draw a table in each panel, all panels to one scale."""
    table = pd.concat(shown.values())
    known = looks(_curves(table))
    values, densities = (table[name] for name in ("test_accuracy", "density"))
    for ax, rows in shown.items():
        dense = (rows["curve"] == "dense") & (rows["status"] == "ok")
        dense_level(ax, rows.loc[dense, "test_accuracy"])
        if reported is not None:
            _papers(ax, reported)
        _tickets(ax, rows[rows["curve"] != "dense"], known)
    if reported is not None:
        values, densities = (
            pd.concat(pair)
            for pair in ((values, reported["value"]), (densities, reported["density"]))
        )
    for ax in shown:
        accuracy_axis(ax, values.dropna())
        density_axis(ax, 100 * float(densities.min()))
        ax.set(xlabel="", ylabel="test accuracy (%)")
    ax.set_xlabel("kept weights (%), dense to sparse")
    _legend(next(iter(shown)), bool(_hollow(table).any()), reported is not None)
    for ax, rows in shown.items():
        label_ends(ax, _ends(rows, known, ax.get_xlim()[1]))


def _tickets(ax: Axes, rows: pd.DataFrame, known: Mapping[str, Look]) -> None:
    judged = rows[rows["status"] == "ok"]
    points = judged.groupby(["curve", "point"])["density"]
    judged = judged.assign(kept=100 * points.transform("mean"), seeds=points.transform("size"))
    line = pd.concat([judged, _all_failed(rows)]).sort_values("kept", ascending=False)
    curves(
        ax, in_order(line, [*known]), "kept", "test_accuracy", known, errorbar=interval, gid="mean"
    )
    for name, look in known.items():
        own, failed = judged[judged["curve"] == name], rows[rows["curve"] == name]
        several, hollow = own[own["seeds"] > 1], own[_hollow(own)]
        seeds(ax, 100 * several["density"], several["test_accuracy"], look.colour)
        ring = {**_RING, "markeredgecolor": look.colour}
        ax.plot(100 * hollow["density"], hollow["test_accuracy"], **ring, gid="emptied")
        at = sorted(set(failed.loc[failed["status"] == "failed", "target_density"].dropna()))
        foot: Any = {"transform": ax.get_xaxis_transform(), "gid": "failed"}
        ax.plot([100 * one for one in at], [0.025] * len(at), "x", color=look.colour, **foot)


def _all_failed(rows: pd.DataFrame) -> pd.DataFrame:
    """Densities that no seed of a curve reached, without accuracy: they break the line."""
    failed, ok = (
        set(rows.loc[rows["status"] == state, ["curve", "target_density"]].itertuples(index=False))
        for state in ("failed", "ok")
    )
    gaps = pd.DataFrame(sorted(failed - ok), columns=["curve", "target_density"]).dropna()
    return gaps.assign(kept=100 * gaps["target_density"], test_accuracy=float("nan"))


def _hollow(table: pd.DataFrame) -> pd.Series:
    """Which tickets keep no weight in some layer."""
    return (table["emptied"].fillna(0) > 0).astype(bool)


def _papers(ax: Axes, reported: pd.DataFrame) -> None:
    known = looks(reported["method"])
    for method, rows in reported.groupby("method", sort=False):
        look = known[str(method)]
        mark = {**_OPEN, "marker": look.marker, "markeredgecolor": look.colour, "alpha": 0.8}
        ax.plot(100 * rows["density"], rows["value"], **mark, gid="reported")


def _legend(ax: Axes, rings: bool, papers: bool) -> None:
    handles = {}
    if papers:
        reported = Line2D([], [], marker="o", markeredgecolor=FAINT, **_OPEN)
        handles["as reported elsewhere"] = reported
    if rings:
        handles["a layer keeps no weight"] = Line2D([], [], markeredgecolor=FAINT, **_RING)
    if handles:
        ax.legend([*handles.values()], [*handles], loc="best", frameon=False, fontsize=9)


def _ends(
    table: pd.DataFrame, known: Mapping[str, Look], right: float
) -> list[tuple[str, float, float, str]]:
    points = curve_points(table[table["curve"] != "dense"]).drop_duplicates("curve", keep="last")
    ends = [
        (row["curve"], 100 * row["density"], row["mean"], known[row["curve"]].colour)
        for row in points.to_dict("records")
    ]
    dense = table[(table["curve"] == "dense") & (table["status"] == "ok")]
    if len(dense):
        ends.append(("dense", right, dense["test_accuracy"].mean(), INK))
    return ends
