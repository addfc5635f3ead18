"""The panels of the BiP paper's Figs 3 and 4: its curves and ours, as differences to dense."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.analysis.paper_panels import FOREMOST, OURS, PAPER
from companion.analysis.words import described_curves
from companion.figures.charts import curves, grid, key, labelled
from companion.figures.style import DASHED, FAINT, INK, Look, looks, scaled, styled

_DASH = (0, (3, 2))
_STYLES: dict[str, dict[str, Any]] = {
    OURS: {"linestyle": "-", "fillstyle": "full", "markersize": 4.5, "zorder": 3},
    PAPER: {"linestyle": _DASH, "markerfacecolor": "white", "markersize": 3.5},
}


@styled
def panels_figure(gaps: pd.DataFrame, words: Mapping[str, str]) -> Figure:
    """Draw the differences of `panel_gaps`, a panel a data set and network, each to its own scale.

    The paper's curves are dashed with hollow markers, ours solid with filled ones; BiP and IMP
    stand out. Bands are 95 % intervals of ours. Ours may leave a panel.

    Args:
        gaps: from `panel_gaps`.
        words: study -> what to say of its scale, a line before and one after a semicolon: `reduced
            scale; 8 of 200 epochs`. A panel without ours says `not run`.
    """
    curve_looks = looks(gaps["curve"])
    count = gaps["panel"].nunique()
    columns = min(2, count)
    size = 2.4 + 2.6 * columns, 0.9 + 2.4 * -(-count // 2)
    fig, axes = grid(gaps, *size, col="panel", col_wrap=columns, sharey=False)
    for name, ax in axes.items():
        rows = gaps[gaps["panel"] == name]
        ax.axhline(0, **DASHED, gid="dense")
        for (side, curve), line in rows.groupby(["whose", "curve"], sort=False):
            strong = curve in FOREMOST
            style = {"linewidth": 1.7 if strong and side == OURS else 1, **_STYLES[side]}
            style |= {"alpha": 1 if strong else 0.45, "gid": side}
            ends = ("low", "high") if strong and side == OURS else ()
            curves(ax, line, "pruned", "difference", curve_looks, ends=ends, **style)
        lines = _write_levels(ax, rows, words)
        _set_limits(ax, rows, lines)
        scaled(ax, "x", "error", [0, gaps["pruned"].max()])
        ax.tick_params(labelbottom=True)
    marks = {name: Look(look.colour, look.marker) for name, look in curve_looks.items()}
    sides = {OURS: Look(INK, "o"), PAPER: Look(INK, "o", _DASH, "none")}
    marks |= {side: look for side, look in sides.items() if side in set(gaps["whose"])}
    key(fig, marks, 4 if columns == 1 else 7)
    return labelled(fig, _description(gaps), "pruned (%)", "test accuracy minus dense (points)")


def _description(gaps: pd.DataFrame) -> str:
    """The two ends of BiP's and IMP's curves in each panel."""
    rows = gaps[gaps["curve"].isin(FOREMOST)]
    names = rows["panel"] + ": " + rows["curve"] + " (" + rows["whose"] + ")"
    lead = "Test accuracy minus dense, in points, by the percentage pruned"
    form = "{difference:+.1f} at {pruned:.0f} %"
    text = described_curves(lead, rows.assign(name=names), form, "name")
    ours = set(gaps.loc[gaps["whose"] == OURS, "panel"])
    missing = [panel for panel in dict.fromkeys(gaps["panel"]) if panel not in ours]
    return text + (f" Ours not run: {'; '.join(missing)}." if missing else "")


def _set_limits(ax: Axes, rows: pd.DataFrame, lines: int) -> None:
    """Show the paper's curves, ours as far as those stay legible, and room for lines of text."""
    papers, ours = (rows.loc[rows["whose"] == side, "difference"] for side in (PAPER, OURS))
    low, high = rows["difference"].min(), rows["difference"].max()
    if len(papers) and len(ours):
        low = max(low, 2.5 * papers.min() - 1)
        high = min(high, papers.max() + 2.5 * (papers.max() - papers.min()))
    low, high = min(low, 0.0), max(high, 0.0)
    reach = max(high - low, 0.5)
    ax.set_ylim(low - (0.05 + 0.11 * lines) * reach, high + 0.08 * reach)


def _write_levels(ax: Axes, rows: pd.DataFrame, words: Mapping[str, str]) -> int:
    """Write the levels of dense and our scale at a panel's foot, and return how many lines."""
    firsts: dict[Any, Any] = rows.drop_duplicates("whose").set_index("whose").to_dict("index")
    lines = ["ours: not run"]
    if ours := firsts.get(OURS):
        scale = words[ours["study"]]
        lines = f"ours: dense {ours['dense']:.1f} %, {scale}".split("; ", 1)
    if paper := firsts.get(PAPER):
        lines.insert(0, f"paper: dense {paper['dense']:.2f} %")
    at: dict[str, Any] = {"transform": ax.transAxes, "fontsize": 8, "color": FAINT, "va": "bottom"}
    ax.text(0.02, 0.02, "\n".join(lines), **at)
    return len(lines)
