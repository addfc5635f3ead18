"""What figures are made of: grids of panels, curves over seeds, rows with intervals, cells, keys.

seaborn draws what is statistical and lays out grids; the rest is matplotlib. A figure bears its
description, for those who cannot see it, as its label: `fig.get_label()`.
"""

import textwrap
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.evidence.statistics import mean_interval
from companion.figures.style import BLUES, DASHED, FAINT, INK, Look, label_ends

Ends = list[tuple[str, float, float, str]]
_ON_TOP = {"BiP": 2.6, "IMP": 2.5}  # where curves coincide


def grid(
    table: pd.DataFrame, width: float, height: float, title: Callable[[Any], str] = str, **by: Any
) -> tuple[Figure, dict[Any, Axes]]:
    """Return a figure with a panel for each value of a column, and value -> panel.

    Args:
        table: whose column it is.
        width: of the whole, in inches.
        height: of the whole, in inches.
        title: what a panel is called after its value, or its values of row and column.
        by: `row`, `col`, `col_order`, `sharey` and so on, as of seaborn's `FacetGrid`.
    """
    facets = sns.FacetGrid(table, **by)
    fig: Figure = facets.figure
    fig.set_size_inches(width, height)
    fig.set_layout_engine("constrained")
    for value, ax in facets.axes_dict.items():
        ax.set_title(title(value))
    return fig, facets.axes_dict or {"": facets.ax}


def single(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of one panel, of so many inches, and its panel."""
    fig, axes = grid(pd.DataFrame(), width, height)
    return fig, axes[""]


def labelled(
    fig: Figure, text: str, x: str = "", y: str = "", ends: Mapping[Axes, Ends] | None = None
) -> Figure:
    """Give a figure its description, its panels common labels, and lines their names at their ends.

    Args:
        fig: the figure, with axes scaled.
        text: what it shows, for those who cannot see it.
        x: the label of all horizontal axes, or none.
        y: the label of all vertical axes, or none.
        ends: of each panel, from `curves` and `level`.

    Returns:
        The figure.
    """
    if x:
        fig.supxlabel(x)
    if y:
        fig.supylabel(y)
    for ax, lines in (ends or {}).items():
        label_ends(ax, lines)
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
    looks: Mapping[Any, Look],
    by: str = "curve",
    ends: Sequence[str] = (),
    **style: Any,
) -> Ends:
    """Draw a curve for each name in a column, through the mean of the rows at each x.

    It is broken where no row has a value. Scale the axes afterwards: seaborn would average what it
    has scaled.

    Args:
        ax: the panel.
        table: rows in the order of their curve; several at one x are seeds.
        x: a column.
        y: a column.
        looks: the look of each curve.
        by: the column of names.
        ends: the columns that bound its band, where the rows are means already and know it.
        style: of the lines, in place of the look: `gid`, `errorbar` and so on.

    Returns:
        The last point of each curve, for `labelled`.
    """
    last: Ends = []
    pale: dict[str, Any] = {"alpha": 0.09, "linewidth": 0}
    for name, rows in table.reset_index(drop=True).groupby(by, sort=False):
        look = looks[name]
        plain: dict[str, Any] = {"errorbar": None, "zorder": _ON_TOP.get(str(name), 2), "gid": name}
        plain |= {"sort": False, "legend": False, "err_kws": pale, **look.line}
        missing = rows.groupby(x, sort=False)[y].transform("count") == 0
        for _, piece in rows[~missing].groupby(missing.cumsum()):  # seaborn would bridge a gap
            sns.lineplot(piece, x=x, y=y, ax=ax, **plain | style)
            last = [end for end in last if end[0] != name]
            end_x, end_y = np.asarray(ax.lines[-1].get_xydata())[-1].tolist()
            last.append((str(name), end_x, end_y, look.colour))
        if len(ends) and rows[ends[0]].notna().any():
            low, high = (rows[end] for end in ends)
            ax.fill_between(rows[x], low, high, color=look.colour, **pale)
    ax.set(xlabel="", ylabel="")
    return last


def dots(ax: Axes, x: pd.Series, y: pd.Series, colours: Any, gid: str = "seeds") -> None:
    """Draw a small pale dot for each seed."""
    ax.scatter(x, y, c=colours, s=9, alpha=0.35, linewidths=0, gid=gid)


def level(ax: Axes, values: pd.Series) -> Ends:
    """Draw the dense network's mean across a panel, with its 95 % t-interval from three seeds on.

    Args:
        ax: the panel.
        values: of its seeds.

    Returns:
        The end of the line, for `labelled`; none for no values.
    """
    mean = mean_interval(values)
    if not mean.n:
        return []
    ax.axhline(mean.mean, **DASHED, gid="dense")
    if mean.n >= 3:
        ax.axhspan(mean.low, mean.high, color=INK, alpha=0.10, linewidth=0)
    return [("dense", np.nan, mean.mean, INK)]


def forest(
    table: pd.DataFrame,
    values: Sequence[str],
    looks: Mapping[Any, Look],
    *,
    panel: str,
    by: str,
    width: float = 2.1,
    title: Callable[[Any], str] = str,
    order: Sequence[Any] | None = None,
    offsets: Mapping[Any, float] | None = None,
    total: Hashable = None,
    reference: float | None = 0,
    **shared: Any,
) -> tuple[Figure, dict[Any, Axes]]:
    """Draw an estimate with its interval in each row, in a panel for each value of a column.

    Args:
        table: name (of the row; from the top in their order), the estimates, and the columns below.
        values: the columns of the estimate and of the interval's two ends, or of the first alone.
        looks: look of each value of `by`.
        panel: the column that says in which panel a row is.
        by: the column that says how a row looks.
        width: of a panel, in inches.
        title: what a panel is called after its value.
        order: of the panels.
        offsets: how far rows of a value of `by` lie below their name.
        total: the name, first or last, of what sums up the others: a line sets it apart.
        reference: where to draw a line to compare with.
        shared: as of seaborn's `FacetGrid`.

    Returns:
        The figure, and value -> panel.
    """
    names = list(dict.fromkeys(table["name"]))
    panels = table[panel].nunique() if order is None else len(order)
    size = 2.2 + width * panels, 1.2 + 0.27 * len(names)
    fig, axes = grid(table, *size, title, col=panel, col_order=order, **shared)
    for ax in axes.values():
        if reference is not None:
            ax.axvline(reference, **DASHED)
        if total in names and len(names) > 1:
            ax.axhline(max(0.5, names.index(total) - 0.5), color=FAINT, linewidth=0.8)
        ax.tick_params(axis="y", length=0)
    for (where, kind), rows in table.dropna(subset=values[0]).groupby([panel, by], sort=False):
        at = rows["name"].map(names.index) + (offsets or {}).get(kind, 0.0)
        middle, *ends = (rows[name] for name in values)
        if ends:
            axes[where].hlines(at, *ends, color=looks[kind].colour, linewidth=1.2, alpha=0.55)
        axes[where].plot(middle, at, **looks[kind].line | {"linestyle": ""}, gid=str(kind))
    first = next(iter(axes.values()))
    first.set_ylim(len(names) - 0.5, -0.5)
    first.set_yticks(range(len(names)), names)
    return fig, axes


def cells(
    shades: pd.DataFrame, texts: pd.DataFrame, ends: Sequence[float], width: float, height: float
) -> Figure:
    """Draw a table of texts over shades of blue between two ends, names of columns above.

    Args:
        shades: one for each cell; cells without a shade stay white.
        texts: of the same shape.
        ends: the shade of the palest and of the darkest cell.
        width: of the figure, in inches.
        height: of the figure, in inches.
    """
    fig, ax = single(width, height)
    colours = {"cmap": BLUES.with_extremes(under="white"), "vmin": ends[0], "vmax": ends[1]}
    words: dict[str, Any] = {"annot": texts.where(shades.notna(), "–"), "fmt": ""}
    words["annot_kws"] = {"fontsize": 9}
    sns.heatmap(shades.fillna(ends[0] - 1), ax=ax, cbar=False, **colours, **words)
    names = ["\n".join(textwrap.wrap(name, 10)) for name in shades.columns]
    ax.set_xticks(ax.get_xticks(), names)
    ax.xaxis.tick_top()
    ax.set(xlabel="", ylabel="")
    ax.tick_params(length=0, rotation=0)
    return fig


def key(fig: Figure, marks: Mapping[Any, Any], columns: int, **style: Any) -> None:
    """Say above all panels what lines and marks mean.

    Args:
        fig: the figure.
        marks: name -> look, or what matplotlib is told of a line.
        columns: of names.
        style: of all lines, in place of their look.
    """
    lines = (mark.line if isinstance(mark, Look) else mark for mark in marks.values())
    handles = [Line2D([], [], **{**line, **style}) for line in lines]
    fig.legend(handles, [*marks], loc="outside upper left", ncols=columns)
