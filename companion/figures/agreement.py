"""Which mask a variant of BiP finds: the paper's, the release's, or another."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.analysis.words import described_panels
from companion.figures.charts import forest, grid, key, labelled, rows_axis
from companion.figures.effects import ALL, LOOKS, MADE, PAPER, RELEASE, UNDONE
from companion.figures.style import FAINT, styled
from lthlib.errors import ConfigError

_REFERENCES = {PAPER: "the paper's", RELEASE: "the release's"}


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


@styled()
def agreement_figure(table: pd.DataFrame) -> Figure:
    """Draw the overlap with the mask of either end, a row a departure and a panel an end.

    A line joins the two overlaps of one mask; grey ticks are what chance gives.

    Args:
        table: from `agreement_table`.
    """
    names = list(dict.fromkeys(table["name"]))
    ends = [end for end in (MADE, UNDONE) if (table["series"] == end).any()]
    size = 2.2 + 2.6 * len(ends), 1.1 + 0.27 * len(names)
    fig, axes = grid(table, *size, col="series", col_order=ends, xlim=(-0.03, 1.03))
    known = dict(zip(_REFERENCES.values(), (LOOKS[MADE], LOOKS[UNDONE]), strict=True))
    for end, ax in axes.items():
        rows = table[table["series"] == end]
        span = rows.groupby("name", sort=False)["overlap"].agg(["min", "max"]).reset_index()
        ax.hlines(span["name"].map(names.index), span["min"], span["max"], color=FAINT, gid="span")
        ax.plot(
            rows["by_chance"], rows["name"].map(names.index), "|", color=FAINT, markersize=9,
            gid="chance",
        )  # fmt: skip
        for other, look in known.items():
            own = rows[rows["compared_with"] == other]
            forest(ax, own, own["name"].map(names.index), ["overlap"], look, f"with {other} mask")
    rows_axis([*axes.values()], names, rule=0.5)
    handles = {f"with {other} mask": look.handle for other, look in known.items()}
    chance = Line2D([], [], color=FAINT, marker="|", linestyle="", markersize=8)
    key(fig, {**handles, "by chance": chance}, 3)
    form = "{overlap:.2f} with {compared_with} mask"
    by = ["name", "series"]
    text = described_panels("Overlap of masks", table, form, by, "{name}, {series}: ", " and ")
    return labelled(fig, text, "overlap of the mask (intersection over union)")
