"""What the search for tickets costs: in sequence and in total."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from companion.analysis.search import ONE
from companion.analysis.words import described_rows
from companion.figures.charts import curves, grid, label_curves, labelled
from companion.figures.style import look_of, styled

_TITLES = {"sequence": "One after the other", "total": "All together"}


@styled()
def search_figure(costs: pd.DataFrame) -> Figure:
    """Draw epochs against the number of tickets, in sequence and in total.

    Filled markers: masks found; hollow ones, dotted: their tickets retrained as well.

    Args:
        costs: from `search_costs`; what yields a single ticket and random masks are left out.
    """
    names = costs["curve"] + (", " + costs["arrangement"]).where(costs["arrangement"] != ONE, "")
    lines = costs.assign(name=names)
    most = lines.groupby("name")["tickets"].transform("max")
    lines = lines[(most > 1) & (lines["curve"] != "random")]
    known = {
        name: look_of(name.partition(",")[0], dash="-" if how == ONE else (0, (5, 2)))
        for name, how in zip(lines["name"], lines["arrangement"], strict=True)
    }
    kinds = pd.DataFrame({"kind": [*_TITLES]})
    fig, axes = grid(kinds, 6.2, 5.6, _TITLES.__getitem__, row="kind", sharey=True)
    again: dict[str, Any] = {"linestyle": (0, (1, 2)), "linewidth": 1, "markerfacecolor": "white"}
    for kind, ax in axes.items():
        curves(ax, lines, "tickets", f"epochs_{kind}", known, "name", gid="found")
        later = f"epochs_{kind}_retrained"
        curves(ax, lines, "tickets", later, known, "name", gid="retrained", **again)
        ax.set(xlabel="", ylabel="epochs", xlim=(0, None))
    axes["total"].set(xlabel="tickets", ylim=(0, None))
    for kind, ax in axes.items():
        label_curves(ax, lines, "tickets", f"epochs_{kind}", known, "name")
    last = costs.groupby(["curve", "arrangement"], sort=False).tail(1)
    form = (
        "{curve}, {arrangement}: {tickets} tickets after {epochs_sequence:.3g} epochs in sequence"
    )
    form += ", {epochs_total:.3g} in total"
    return labelled(fig, described_rows("Epochs to the tickets", last, form))
