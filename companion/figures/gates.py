"""What gates do while they train: from soft to binary, and the gap between training and ticket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from companion.evidence import mean_interval
from companion.figures.layers import BLUES
from companion.figures.style import in_percent, label_ends, looks, panels, styled
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
    rows = []
    for (method, seed), history in histories.items():
        for epoch, entry in enumerate(history, start=1):
            counts = np.asarray(entry["gates"], float)
            shares = dict(zip(_ends(len(counts)), counts / counts.sum(), strict=True))
            head = {"method": method, "seed": seed, "round": entry["round"] + 1, "epoch": epoch}
            rows.append({**head, "density": entry["density"], **shares})
    if not rows:
        raise ConfigError("no search with gates has a history")
    return pd.DataFrame(rows)


def gap_table(
    histories: Mapping[tuple[str, int], History], records: Iterable[Mapping[str, Any]]
) -> pd.DataFrame:
    """Return how far a ticket's validation accuracy lies from that with the gates of training.

    The gates of training are soft (CS) or drawn (mean of five draws); the ticket's are binary.

    Args:
        histories: as for `gate_table`; the last entry of a round holds `gated_validation`.
        records: of the same searches, their `label` being the method.

    Returns:
        Columns method, round, n (seeds), density, gated, ticket (percent), gap (ticket minus
        gated, points), low, high (95 % t-interval of the gap), means over seeds.
    """
    gated = {
        (*key, entry["round"]): entry["gated_validation"]
        for key, history in histories.items()
        for entry in history
        if entry.get("gated_validation") is not None
    }
    rows = [
        (record["label"], record["ticket"]["index"] + 1, record["density"], trained, ticket)
        for record in records
        if record["status"] == "ok"
        and (ticket := record["accuracy"]["validation"]) is not None
        and (trained := gated.get((record["label"], record["seed"], record["ticket"]["index"])))
        is not None
    ]
    table = pd.DataFrame(rows, columns=["method", "round", "density", "gated", "ticket"])
    found = []
    for (method, number), own in table.groupby(["method", "round"], sort=False):
        gap = mean_interval(own["ticket"] - own["gated"])
        means = own[["density", "gated", "ticket"]].mean()
        found.append((method, number, gap.n, *means, gap.mean, gap.low, gap.high))
    names = ["method", "round", "n", "density", "gated", "ticket", "gap", "low", "high"]
    return pd.DataFrame(found, columns=names)


def gates_figure(table: pd.DataFrame) -> Figure:
    """Draw the share of gates by soft value after each epoch, a panel a method, of its first seed.

    Args:
        table: from `gate_table`.
    """
    methods = list(dict.fromkeys(table["method"]))
    bins = [name for name in table.columns if name.startswith("from_")]
    with styled():
        fig, axes = panels(1, len(methods), 1.2 + 2.2 * len(methods), 2.9)
        for ax, method in zip(axes, methods, strict=True):
            rows = table[table["method"] == method]
            rows = rows[rows["seed"] == rows["seed"].iloc[0]]
            shares = rows[bins].to_numpy(float).T
            edges = np.append(0, rows["epoch"]), np.linspace(0, 1, len(bins) + 1)
            drawn = ax.pcolormesh(
                *edges,
                np.maximum(shares, _SMALLEST),
                norm=LogNorm(_SMALLEST, 1),
                cmap=BLUES,
                rasterized=True,
            )
            ax.grid(False)
            ax.set_title(method)
            ax.set_xlabel("epoch")
        axes[0].set_ylabel("soft value of the gate")
        bar = fig.colorbar(drawn, ax=axes, label="share of the gates", pad=0.02)
        bar.outline.set_visible(False)
    return fig


def gate_density_figure(table: pd.DataFrame) -> Figure:
    """Draw the share of open gates after each epoch: the ticket's density if the search ended then.

    Args:
        table: from `gate_table`.
    """
    methods = list(dict.fromkeys(table["method"]))
    known = looks(methods)
    with styled():
        fig, (ax,) = panels(1, 1, 5.6, 2.9)
        ax.set_yscale("log")
        low = 80 * float(table["density"][table["density"] > 0].min())
        ax.set_ylim(low, 130)
        ticks = [one for one in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1) if one >= low]
        ax.yaxis.set_major_locator(FixedLocator(ticks))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ends: list[tuple[str, float, float, str]] = []
        for (method, _), rows in table.groupby(["method", "seed"], sort=False):
            colour = known[str(method)].colour
            ax.plot(rows["epoch"], 100 * rows["density"], color=colour, gid="density")
            last = rows.iloc[-1]
            if method not in [one[0] for one in ends]:
                ends.append((str(method), last["epoch"], 100 * last["density"], colour))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("epoch")
        ax.set_ylabel("open gates (%)")
        label_ends(ax, ends)
    return fig


def describe_gates(table: pd.DataFrame) -> str:
    """Say in words what `gates_figure` shows: how many gates are near 0 or 1 at the end."""
    ends = [name for name in table.columns if name.startswith("from_")]
    parts = []
    for method, rows in table.groupby("method", sort=False):
        last = rows.iloc[-1]
        settled = in_percent(float(last[ends[0]] + last[ends[-1]]))
        parts.append(f"{method}: {settled} of the gates in the outermost bins")
    return f"Soft values of the gates after the last epoch: {'; '.join(parts)}."


def describe_gate_density(table: pd.DataFrame) -> str:
    """Say in words what `gate_density_figure` shows."""
    parts = []
    for method, rows in table.groupby("method", sort=False):
        first, last = (in_percent(float(rows["density"].iloc[place])) for place in (0, -1))
        parts.append(f"{method} {first} after the first epoch, {last} after the last")
    return f"Open gates: {'; '.join(parts)}."


def _ends(count: int) -> list[str]:
    return [f"from_{place / count:.2f}" for place in range(count)]
