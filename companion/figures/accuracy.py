"""Test accuracy against density: seeds, mean, interval, dense, and the papers' values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.figures.points import curve_points
from companion.figures.style import (
    FAINT,
    INK,
    Look,
    accuracy_axis,
    dense_level,
    density_axis,
    in_percent,
    label_ends,
    looks,
    panels,
    styled,
)

_RING: dict[str, Any] = {"markersize": 8.0, "markeredgewidth": 0.8}
_METHODS = ("IMP, learning-rate rewinding",)  # a method, for all its comma


def accuracy_against_density(table: pd.DataFrame, reported: pd.DataFrame | None = None) -> Figure:
    """Draw test accuracy against density, one curve a method, in one panel.

    Seeds are dots, lines join means, bands are 95 % t-intervals (from three seeds on), dense is a
    horizontal line. A curve is broken where every seed failed; a cross marks failed runs, a ring
    tickets with a layer that keeps no weight.

    Args:
        table: from `ticket_table`.
        reported: from `evidence.reported_curve`: published values, drawn as open markers.
    """
    with styled():
        fig, (ax,) = panels(1, 1, 6.6, 4.2)
        _draw({ax: table}, reported)
    return fig


def accuracy_in_panels(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw test accuracy against density in a panel for each table, all to one scale.

    Args:
        tables: title of a panel -> what it shows, from `ticket_table`.
    """
    with styled():
        fig, axes = panels(len(tables), 1, 6.2, 0.5 + 2.2 * len(tables))
        for ax, title in zip(axes, tables, strict=True):
            ax.set_title(title)
        _draw(dict(zip(axes, tables.values(), strict=True)), None)
    return fig


def accuracy_of_variants(table: pd.DataFrame) -> Figure | None:
    """Draw each method that has variants in a panel of its own, beside dense.

    A variant's name adds something after a comma: `OMP, compute-matched`. None without variants.

    Args:
        table: from `ticket_table`.
    """
    curves = _curves(table)
    families = [name for name in curves if any(one.startswith(f"{name},") for one in curves)]
    if not families:
        return None
    own = table["curve"].str.partition(",")[0]
    dense = table["curve"] == "dense"
    return accuracy_in_panels({family: table[dense | (own == family)] for family in families})


def main_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the methods themselves, without their variants."""
    variant = table["curve"].str.contains(",", regex=False)
    return table[~variant | table["curve"].isin(_METHODS)]


def describe(table: pd.DataFrame) -> str:
    """Say in words, for those who cannot see it, what `accuracy_against_density` shows."""
    parts = []
    for curve in ["dense", *_curves(table)]:
        points = curve_points(table[table["curve"] == curve])
        if points.empty:
            continue
        ends = points.iloc[[0, -1]][["density", "mean"]].to_numpy()
        texts = [f"{mean:.1f} % at {in_percent(density)} density" for density, mean in ends]
        parts.append(f"{curve} {' to '.join(dict.fromkeys(texts))}")
    if hollow := list(dict.fromkeys(table.loc[_hollow(table), "curve"])):
        parts.append(f"rings mark tickets with an emptied layer, of {', '.join(hollow)}")
    return f"Test accuracy by density, dense to sparse: {'; '.join(parts)}."


def _curves(table: pd.DataFrame) -> list[str]:
    return [name for name in dict.fromkeys(table["curve"]) if name != "dense"]


def _draw(shown: Mapping[Axes, pd.DataFrame], reported: pd.DataFrame | None) -> None:
    """Draw a table in each panel, all panels to one scale."""
    table = pd.concat(shown.values())
    known = looks(_curves(table))
    values, densities = (table[name].dropna() for name in ("test_accuracy", "density"))
    if reported is not None:
        values = pd.concat([values, reported["value"]])
        densities = pd.concat([densities, reported["density"]])
    for ax, rows in shown.items():
        accuracy_axis(ax, float(values.min()), float(values.max()))
        density_axis(ax, 100 * float(densities.min()))
        ax.set_ylabel("test accuracy (%)")
        dense = (rows["curve"] == "dense") & (rows["status"] == "ok")
        dense_level(ax, rows.loc[dense, "test_accuracy"])
        if reported is not None:
            _papers(ax, reported)
        for curve in _curves(rows):
            _curve(ax, rows[rows["curve"] == curve], known[curve])
    ax.set_xlabel("kept weights (%), dense to sparse")
    _legend(next(iter(shown)), bool(_hollow(table).any()), reported is not None)
    for ax, rows in shown.items():
        label_ends(ax, _ends(rows, _curves(rows), known, ax.get_xlim()[1]))


def _curve(ax: Axes, rows: pd.DataFrame, look: Look) -> None:
    judged = rows[rows["status"] == "ok"]
    points = curve_points(rows)
    x = 100 * points["density"]
    seeds = judged[judged["point"].isin(points.loc[points["n"] > 1, "point"])]
    ax.plot(
        100 * seeds["density"],
        seeds["test_accuracy"],
        "o",
        color=look.colour,
        markersize=3,
        alpha=0.35,
        markeredgewidth=0,
        gid="seeds",
    )
    hollow = judged[_hollow(judged)]
    ax.plot(
        100 * hollow["density"],
        hollow["test_accuracy"],
        "o",
        markerfacecolor="none",
        markeredgecolor=look.colour,
        **_RING,
        gid="emptied",
    )
    line = pd.concat([points[["density", "mean"]], _all_failed(rows)])
    line = line.sort_values("density", ascending=False)
    ax.plot(
        100 * line["density"],
        line["mean"],
        color=look.colour,
        linestyle=look.dash,
        marker=look.marker,
        gid="mean",
    )
    failed = sorted(set(rows.loc[rows["status"] == "failed", "target_density"].dropna()))
    ax.plot(
        [100 * density for density in failed],
        [0.025] * len(failed),
        "x",
        color=look.colour,
        transform=ax.get_xaxis_transform(),
        gid="failed",
    )
    known = points["n"] >= 3
    if known.any():
        low, high = points["low"].where(known), points["high"].where(known).clip(upper=99.9)
        ax.fill_between(x, low.clip(lower=0), high, color=look.colour, alpha=0.09, linewidth=0)


def _all_failed(rows: pd.DataFrame) -> pd.DataFrame:
    """Densities asked for that no seed reached, without a mean: they break the line."""
    failed = set(rows.loc[rows["status"] == "failed", "target_density"].dropna())
    gaps = sorted(failed - set(rows.loc[rows["status"] == "ok", "target_density"].dropna()))
    return pd.DataFrame({"density": gaps, "mean": [float("nan")] * len(gaps)})


def _hollow(table: pd.DataFrame) -> pd.Series:
    """Which tickets keep no weight in some layer."""
    return (table["emptied"].fillna(0) > 0).astype(bool)


def _papers(ax: Axes, reported: pd.DataFrame) -> None:
    known = looks(list(dict.fromkeys(reported["method"])))
    for method, rows in reported.groupby("method", sort=False):
        look = known[str(method)]
        ax.plot(
            100 * rows["density"],
            rows["value"],
            look.marker,
            markerfacecolor="white",
            markeredgecolor=look.colour,
            markersize=4.5,
            alpha=0.8,
            gid="reported",
        )


def _legend(ax: Axes, rings: bool, papers: bool) -> None:
    handles = {}
    if papers:
        handles["as reported elsewhere"] = _open_marker(4.5, 1.0)
    if rings:
        handles["a layer keeps no weight"] = _open_marker(_RING["markersize"], 0.8)
    if handles:
        ax.legend([*handles.values()], [*handles], loc="best", frameon=False, fontsize=9)


def _open_marker(size: float, edge: float) -> Line2D:
    style: Any = {"marker": "o", "linestyle": "", "fillstyle": "none"}
    return Line2D([], [], color=FAINT, markersize=size, markeredgewidth=edge, **style)


def _ends(
    table: pd.DataFrame, curves: Sequence[str], known: dict[str, Look], right: float
) -> list[tuple[str, float, float, str]]:
    ends = []
    for curve in curves:
        points = curve_points(table[table["curve"] == curve])
        if len(points):
            last = points.iloc[-1]
            ends.append((curve, 100 * last["density"], last["mean"], known[curve].colour))
    dense = table[(table["curve"] == "dense") & (table["status"] == "ok")]
    if len(dense):
        ends.append(("dense", right, dense["test_accuracy"].mean(), INK))
    return ends
