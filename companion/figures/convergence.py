"""When a mask settles: its overlap with the mask of one epoch before, epoch by epoch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from companion.analysis.words import described_rows
from companion.figures.charts import curves, label_curves, labelled, panels
from companion.figures.style import INK, accuracy_axis, looks, styled
from lthlib.errors import ConfigError

History = Sequence[Mapping[str, Any]]
_COLOURS = ("#009E73", "#0072B2", "#D55E00", INK, "#AA4499", "#E69F00")
_TOP = 99.9  # the scale is logarithmic in what is missing from 100


def convergence_table(histories: Mapping[tuple[str, int], History]) -> pd.DataFrame:
    """Return the overlap of successive masks, a row an epoch.

    Args:
        histories: (label, seed) -> history of a search; `overlap` is the intersection over union
            of the kept weights with those of one epoch before. Runs without it are left out.

    Returns:
        Columns tickets (the label), seed, epoch (from 1), density, overlap (0 to 1).

    Raises:
        ConfigError: no run says how its mask changed.
    """
    rows = [
        (label, seed, epoch, entry["density"], entry["overlap"])
        for (label, seed), history in histories.items()
        for epoch, entry in enumerate(history, start=1)
        if entry.get("overlap") is not None
    ]
    if not rows:
        raise ConfigError("no run has a history of its mask's overlap")
    return pd.DataFrame(rows, columns=["tickets", "seed", "epoch", "density", "overlap"])


def convergence_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return when each mask settles, a row a label.

    Returns:
        Columns tickets, first, half, last (overlap after the first epoch, half the epochs and the
        last, means over seeds), settled (the epoch from which 99 of 100 stay, of the slowest seed;
        None where the last epoch still changes more), epochs.
    """
    rows = []
    for curve, own in table.groupby("tickets", sort=False):
        epochs = int(own["epoch"].max())
        at = own.groupby("epoch")["overlap"].mean()
        moving = own.loc[own["overlap"] < 0.99, "epoch"]
        settled = 1 + int(moving.max()) if len(moving) else 1
        known = settled if settled <= epochs else None
        rows.append((curve, at[1], at[max(1, epochs // 2)], at[epochs], known, epochs))
    names = ["tickets", "first", "half", "last", "settled", "epochs"]
    return pd.DataFrame(rows, columns=names)


@styled()
def convergence_figure(table: pd.DataFrame) -> Figure:
    """Draw the overlap of each epoch's mask with the one before, in percent.

    The scale is logarithmic in what is missing from 100; masks that are equal stand at its top.

    Args:
        table: from `convergence_table`.
    """
    names = list(dict.fromkeys(table["tickets"]))
    colours = dict(zip(names, itertools.cycle(_COLOURS), strict=False))
    known = {name: replace(look, colour=colours[name]) for name, look in looks(names).items()}
    shown = table.assign(percent=(100 * table["overlap"]).clip(upper=_TOP))
    fig, (ax,) = panels(1, 6.2, 3.2)
    given: dict[str, Any] = {"markersize": 3.5, "clip_on": False}
    curves(ax, shown, "epoch", "percent", known, "tickets", units="seed", estimator=None, **given)
    accuracy_axis(ax, pd.concat([shown["percent"], pd.Series([_TOP])]))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="overlap with the epoch before (%)")
    label_curves(
        ax, shown.drop_duplicates(["tickets", "epoch"]), "epoch", "percent", known, "tickets"
    )
    form = "{tickets} {first:.2f} after the first epoch, {half:.2f} half-way, {last:.3f} at the end"
    text = described_rows("Overlap of successive masks", convergence_means(table), form)
    return labelled(fig, text)
