"""What happens while a mask is searched for: when it settles, and what gates do until they are
binary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from companion.analysis.words import described_curves, described_rows
from companion.figures.charts import curves, grid, labelled, single
from companion.figures.style import BLUES, looks, scaled, styled
from lthlib.errors import ConfigError

History = Sequence[Mapping[str, Any]]
_SMALLEST = 1e-4


def gate_table(histories: Mapping[tuple[str, int], History]) -> pd.DataFrame:
    """Return the soft values of the gates after each epoch, a row an epoch.

    Args:
        histories: (method, seed) -> history of a search with gates: `density` is the share of open
            gates, `gates` how many have their soft value in each of equal bins of [0, 1].

    Returns:
        Columns method, seed, round (from 1), epoch (from 1, over all rounds), density, and for each
        bin the share of gates in it, named by the bin's lower end.

    Raises:
        ConfigError: there is no history.
    """
    rows = [
        {"method": method, "seed": seed, "round": entry["round"] + 1, "epoch": epoch}
        | {"density": entry["density"]}
        | {
            f"from_{number / len(entry['gates']):.2f}": count / sum(entry["gates"])
            for number, count in enumerate(entry["gates"])
        }
        for (method, seed), history in histories.items()
        for epoch, entry in enumerate(history, start=1)
    ]
    if not rows:
        raise ConfigError("no search with gates has a history")
    return pd.DataFrame(rows)


@styled
def gates_figure(table: pd.DataFrame) -> Figure:
    """Draw the share of gates by soft value after each epoch, a panel a method, of its first seed.

    Args:
        table: from `gate_table`.
    """
    bins = [name for name in table.columns if name.startswith("from_")]
    fig, axes = grid(table, 1.2 + 2.2 * table["method"].nunique(), 2.9, col="method")
    for method, ax in axes.items():
        rows = table[table["method"] == method]
        rows = rows[rows["seed"] == rows["seed"].iloc[0]]
        shares = np.maximum(rows[bins].to_numpy(float).T, _SMALLEST)
        edges = np.append(0, rows["epoch"]), np.linspace(0, 1, len(bins) + 1)
        shades: Any = {"norm": LogNorm(_SMALLEST, 1), "cmap": BLUES, "rasterized": True}
        drawn = ax.pcolormesh(*edges, shares, **shades)
        ax.grid(False)
        ax.set_xlabel("epoch")
    next(iter(axes.values())).set_ylabel("soft value of the gate")
    bar = fig.colorbar(drawn, ax=[*axes.values()], label="share of the gates", pad=0.02)
    bar.formatter = FuncFormatter(lambda share, _: f"{share:g}")
    bar.outline.set_visible(False)
    last = table.drop_duplicates("method", keep="last")
    last = last.assign(settled=last[bins[0]] + last[bins[-1]])
    lead = "Soft values of the gates after the last epoch"
    form = "{method}: {settled!p} of the gates in the outermost bins"
    return labelled(fig, described_rows(lead, last, form))


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


@styled
def convergence_figure(table: pd.DataFrame) -> Figure:
    """Draw the overlap of each epoch's mask with the one before, in percent.

    The scale is logarithmic in what is missing from 100; masks that are equal stand at its top.

    Args:
        table: from `convergence_table`.
    """
    ticket_looks = looks(table["tickets"])
    points = table.assign(percent=(100 * table["overlap"]).clip(upper=_TOP))
    fig, ax = single(6.2, 3.2)
    seeds: Any = {"units": "seed", "estimator": None, "markersize": 3.5, "clip_on": False}
    ends = curves(ax, points, "epoch", "percent", ticket_looks, "tickets", **seeds)
    scaled(ax, "y", "error", [*points["percent"], _TOP])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="overlap with the epoch before (%)")
    means = table.groupby(["tickets", "epoch"], sort=False)["overlap"].mean().reset_index()
    lead, form = "Overlap of successive masks", "{overlap:.3f} after epoch {epoch}"
    return labelled(fig, described_curves(lead, means, form, "tickets"), ends={ax: ends})
