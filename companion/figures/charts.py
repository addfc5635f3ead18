"""What figures are made of: curves over seeds, rows with intervals, grids of panels, their key.

seaborn draws what is statistical and lays out grids; the rest is matplotlib. A figure bears its
description, for those who cannot see it, as its label: `fig.get_label()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.evidence.statistics import mean_interval
from companion.figures.style import FAINT, Look, label_ends, on_top

_FAINT_BAND: dict[str, Any] = {"alpha": 0.09, "linewidth": 0}


def panels(columns: int, width: float, height: float, **given: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side; sizes of the whole in inches."""
    size = (width, height)
    fig, axes = plt.subplots(1, columns, figsize=size, squeeze=False, layout="constrained", **given)
    return fig, [*axes.flat]


def grid(
    table: pd.DataFrame,
    width: float,
    height: float,
    title: Callable[[Any], str] = str,
    **by: Any,
) -> tuple[Figure, dict[Any, Axes]]:
    """Return a figure with a panel for each value of a column, and value -> panel.

    Args:
        table: whose column it is.
        width, height: of the whole, in inches.
        title: what a panel is called after its value, or its values of row and column.
        by: `row`, `col`, `col_order`, `sharey` and so on, as of seaborn's `FacetGrid`.
    """
    facets = sns.FacetGrid(table, **by)
    fig: Figure = facets.figure
    fig.set_size_inches(width, height)
    fig.set_layout_engine("constrained")
    for value, ax in facets.axes_dict.items():
        ax.set_title(title(value))
    return fig, facets.axes_dict


def labelled(fig: Figure, text: str, x: str = "", y: str = "") -> Figure:
    """Give a figure its description in words, and its panels a common label of either axis."""
    if x:
        fig.supxlabel(x, fontsize=10)
    if y:
        fig.supylabel(y, fontsize=10)
    fig.set_label(text)
    return fig


def interval(values: pd.Series, seeds: int = 3) -> tuple[float, float]:
    """Return the 95 % t-interval of a mean, for seaborn; NaN for fewer values than `seeds`."""
    mean = mean_interval(values)
    return (mean.low, mean.high) if mean.n >= seeds else (np.nan, np.nan)


def curves(
    ax: Axes,
    table: pd.DataFrame,
    x: str,
    y: str,
    known: Mapping[Any, Look],
    by: str = "curve",
    ends: Sequence[str] = (),
    **given: Any,
) -> None:
    """Draw a curve for each name in a column, through the mean of the rows at each x; it is broken
    where no row has a value.

    Scale the axes afterwards: seaborn would average what it has scaled.

    Args:
        ax: the panel.
        table: rows in the order of their curve; several at one x are seeds.
        x, y: columns.
        known: the look of each curve.
        by: the column of names.
        ends: the columns that bound its band, where the rows are means already and know it.
        given: of the lines, in place of the look: `gid`, `errorbar` and so on.
    """
    for name, rows in table.reset_index(drop=True).groupby(by, sort=False):
        look = known[str(name)]
        plain: dict[str, Any] = {"errorbar": None, "zorder": on_top(str(name)), "gid": name}
        plain |= {"sort": False, "legend": False, "err_kws": _FAINT_BAND, **look.line}
        unknown = rows.groupby(x, sort=False)[y].transform("count") == 0
        for _, piece in rows[~unknown].groupby(unknown.cumsum()):  # seaborn would bridge a gap
            sns.lineplot(piece, x=x, y=y, ax=ax, **plain | given)
        if ends:
            band(ax, rows, x, ends, look.colour)


def band(ax: Axes, rows: pd.DataFrame, x: str, ends: Sequence[str], colour: str) -> None:
    """Shade what lies between two columns, where both are known."""
    low, high = (rows[end] for end in ends)
    if low.notna().any():
        ax.fill_between(rows[x], low, high, color=colour, **_FAINT_BAND)


def seeds(ax: Axes, x: pd.Series, y: pd.Series, colour: str, gid: str = "seeds") -> None:
    """Draw a small pale dot for each seed."""
    ax.plot(x, y, "o", color=colour, markersize=3, alpha=0.35, markeredgewidth=0, gid=gid)


def forest(
    ax: Axes,
    rows: pd.DataFrame,
    at: Any,
    values: Sequence[str],
    look: Look,
    gid: str,
    upright: bool = False,
    **given: Any,
) -> None:
    """Draw a mark in each row, and through it its interval.

    Args:
        ax: the panel.
        rows: the table; NaN where an interval is not known.
        at: the place of each row.
        values: the columns of the estimate and of the interval's two ends, or of the first alone.
        look: of the marks.
        gid: what the marks stand for, in the key and in an SVG.
        upright: whether intervals stand upright and rows are columns.
        given: of the marks, in place of the look.
    """
    middle, *ends = (rows[name] for name in values)
    if ends:
        line = ax.vlines if upright else ax.hlines
        line(at, *ends, color=look.colour, linewidth=1.2, alpha=0.55)
    ax.plot(*((at, middle) if upright else (middle, at)), **look.mark | given, label=gid, gid=gid)


def rows_axis(axes: Sequence[Axes], names: Iterable[str], rule: float | None = None) -> None:
    """Name the rows of a forest, from the top down, left of its panels; rule: a line across."""
    texts = [*names]
    axes[0].set_ylim(len(texts) - 0.5, -0.5)
    axes[0].set_yticks(range(len(texts)), texts)
    for ax in axes:
        ax.tick_params(axis="y", length=0)
        if rule is not None:
            ax.axhline(rule, color=FAINT, linewidth=0.8)


def key(fig: Figure, marks: Mapping[str, Look | Line2D], columns: int) -> None:
    """Say above all panels what marks mean."""
    handles = [
        Line2D([], [], **mark.line) if isinstance(mark, Look) else mark for mark in marks.values()
    ]
    where = "outside upper left"
    fig.legend(handles, [*marks], loc=where, ncols=columns, frameon=False, fontsize=9)


def label_curves(
    ax: Axes, table: pd.DataFrame, x: str, y: str, known: Mapping[Any, Look], by: str = "curve"
) -> None:
    """Write each curve's name right of the panel, level with its last row; scale the axes first."""
    last = table.drop_duplicates(by, keep="last")
    ends = zip(last[by], last[x], last[y], strict=True)
    label_ends(ax, [(name, right, level, known[name].colour) for name, right, level in ends])
