"""Which mask a variant of BiP finds: the paper's, the release's, or another."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.figures.effects import ALL, MADE, PAPER, RELEASE, UNDONE
from companion.figures.style import FAINT, looks, panels, styled
from lthlib.errors import ConfigError

_REFERENCES = {PAPER: "the paper's", RELEASE: "the release's"}
_LOOKS = {PAPER: ("BiP", "D", "full"), RELEASE: ("CS", "s", "none")}


def agreement_table(
    overlap: pd.DataFrame, chance: pd.DataFrame, departures: Iterable[str]
) -> pd.DataFrame:
    """Return how far each variant's mask agrees with the paper's BiP's and with the release's.

    Args:
        overlap, chance: square, by curve: intersection over union of kept weights at one seed, and
            what masks with the same counts in every layer share by chance.
        departures: names of departures.

    Returns:
        Columns name (the departure, or `ALL` for the two ends themselves), series (`MADE` or
        `UNDONE`), compared_with, overlap, by_chance; the departures that move the mask most first.

    Raises:
        ConfigError: one of the two ends has no mask.
    """
    if missing := [name for name in _REFERENCES if name not in overlap.index]:
        raise ConfigError(f"no mask of {missing[0]!r} to compare with")
    curves = [(ALL, MADE, PAPER, RELEASE), (ALL, UNDONE, RELEASE, PAPER)]
    for name in departures:
        made, undone = f"{PAPER}, {name}", f"{RELEASE}, not {name}"
        curves += [(name, MADE, made, other) for other in _REFERENCES]
        curves += [(name, UNDONE, undone, other) for other in _REFERENCES]
    rows = [
        (name, end, _REFERENCES[other], overlap.loc[curve, other], chance.loc[curve, other])
        for name, end, curve, other in curves
        if curve in overlap.index
    ]
    names = ["name", "series", "compared_with", "overlap", "by_chance"]
    found = pd.DataFrame(rows, columns=names)
    own = found["series"].map({MADE: _REFERENCES[PAPER], UNDONE: _REFERENCES[RELEASE]})
    kept = found[found["compared_with"] == own].groupby("name")["overlap"].mean()
    kept[ALL] = -np.inf
    found["kept"] = found["name"].map(kept)
    return found.sort_values("kept", kind="stable", ignore_index=True)[names]


def agreement_figure(table: pd.DataFrame) -> Figure:
    """Draw the overlap with the mask of either end, a row a departure and a panel an end.

    A line joins the two overlaps of one mask; grey ticks are what chance gives.

    Args:
        table: from `agreement_table`.
    """
    names = list(dict.fromkeys(table["name"]))
    ends = [end for end in (MADE, UNDONE) if (table["series"] == end).any()]
    with styled():
        fig, axes = panels(1, len(ends), 2.2 + 2.6 * len(ends), 1.1 + 0.27 * len(names))
        for ax, end in zip(axes, ends, strict=True):
            ax.set_title(end)
            ax.set_xlim(-0.03, 1.03)
            _dumbbells(ax, table[table["series"] == end], names)
            ax.axhline(0.5, color=FAINT, linewidth=0.8)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].tick_params(axis="y", length=0)
        fig.supxlabel("overlap of the mask (intersection over union)", fontsize=10)
        handles = [_mark(name, "") for name in _REFERENCES]
        handles.append(Line2D([], [], color=FAINT, marker="|", linestyle="", markersize=8))
        titles = [f"with {name} mask" for name in _REFERENCES.values()]
        where = "outside upper left"
        fig.legend(handles, [*titles, "by chance"], loc=where, ncols=3, frameon=False, fontsize=9)
    return fig


def describe_agreement(table: pd.DataFrame) -> str:
    """Say in words what `agreement_figure` shows."""
    parts = []
    for (name, end), rows in table.groupby(["name", "series"], sort=False):
        words = [
            f"{overlap:.2f} with {other} mask"
            for overlap, other in zip(rows["overlap"], rows["compared_with"], strict=True)
        ]
        parts.append(f"{name}, {end}: {' and '.join(words)}")
    return f"Overlap of masks: {'; '.join(parts)}."


def _dumbbells(ax: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    for name, own in rows.groupby("name", sort=False):
        y = names.index(str(name))
        ax.plot(own["by_chance"], [y] * len(own), "|", color=FAINT, markersize=9, gid="chance")
        ax.plot(own["overlap"], [y] * len(own), color=FAINT, linewidth=1.2, gid="span")
        for curve, title in _REFERENCES.items():
            at = own.loc[own["compared_with"] == title, "overlap"]
            ax.add_line(_mark(curve, curve, list(at), [y] * len(at)))


def _mark(curve: str, gid: str, x: Iterable[float] = (), y: Iterable[float] = ()) -> Line2D:
    method, marker, fill = _LOOKS[curve]
    return Line2D(
        list(x), list(y), color=looks([method])[method].colour, marker=marker, linestyle="",
        fillstyle=fill, markersize=5.5, markerfacecoloralt="white", gid=gid,
    )  # fmt: skip
