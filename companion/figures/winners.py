"""The two tickets that papers report of a curve, beside dense."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from companion.analysis.winners import BEST, GAP, SPARSEST
from companion.analysis.words import described_rows, in_percent
from companion.figures.charts import forest, grid, labelled, rows_axis
from companion.figures.style import DASHED, FAINT, INK, looks, styled


@styled()
def winners_figure(winners: pd.DataFrame) -> Figure:
    """Draw each curve's two tickets: test accuracy minus dense, with 95 % interval and density.

    Args:
        winners: from `winning_tickets`.
    """
    names = list(dict.fromkeys(winners["curve"]))
    fig, axes = grid(
        winners, 7.6, 1.0 + 0.27 * len(names), str.capitalize, col="choice",
        col_order=[SPARSEST, BEST],
    )  # fmt: skip
    for choice, ax in axes.items():
        ax.axvline(0, **DASHED)
        ax.grid(True, axis="x")
        ax.grid(False, axis="y")
        beside: Any = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 9}
        ax.text(1.02, -0.75, "kept", color=FAINT, **beside)
        for row in winners[winners["choice"] == choice].to_dict("records"):
            place, known = names.index(row["curve"]), row["n"] > 0
            text = in_percent(row["density"]) if known else "none"
            ax.text(1.02, place, text, color=INK if known else FAINT, **beside)
        for curve, look in looks(names).items():
            own = winners[(winners["choice"] == choice) & (winners["curve"] == curve)]
            own = own[own["n"] > 0]
            forest(ax, own, own["curve"].map(names.index), GAP, look, "ticket")
    rows_axis([*axes.values()], names)
    form = "{curve}, {choice}: {difference:+.1f} points at {density!p}"
    lead = "Test accuracy minus dense, and density"
    text = described_rows(lead, winners[winners["n"] > 0], form)
    return labelled(fig, text, "test accuracy minus dense (points)")
