"""What happens while a mask is searched for: when it settles, and what gates do until they are
binary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from companion.analysis.words import described_curves, described_rows
from companion.evidence.records import tidy
from companion.evidence.statistics import estimates
from companion.figures.charts import curves, grid, labelled
from companion.figures.style import BLUES, INK, looks, scaled, styled
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
            f"from_{place / len(entry['gates']):.2f}": count / sum(entry["gates"])
            for place, count in enumerate(entry["gates"])
        }
        for (method, seed), history in histories.items()
        for epoch, entry in enumerate(history, start=1)
    ]
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
    rows = [
        (method, seed, entry["round"], entry.get("gated_validation"))
        for (method, seed), history in histories.items()
        for entry in history
    ]
    gated = pd.DataFrame(rows, columns=["label", "seed", "round", "gated"])
    tickets = tidy(records).rename(columns={"validation_accuracy": "ticket"})
    pairs = tickets.merge(gated, on=["label", "seed", "round"]).dropna(subset=["gated", "ticket"])
    pairs = pairs.assign(gap=pairs["ticket"] - pairs["gated"], round=pairs["round"] + 1)
    means = ["density", "gated", "ticket"]
    found = estimates(pairs, ["label", "round"], "gap", means)
    found = found.rename(columns={"label": "method", "mean": "gap"})
    return found[["method", "round", "n", *means, "gap", "low", "high"]]


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


@styled
def gate_density_figure(table: pd.DataFrame) -> Figure:
    """Draw the share of open gates after each epoch: the ticket's density if the search ended then.

    Args:
        table: from `gate_table`.
    """
    shown = table.assign(open=100 * table["density"])
    fig, axes = grid(shown, 5.6, 2.9)
    (ax,) = axes.values()
    seeds: Any = {"units": "seed", "estimator": None, "marker": "", "gid": "density"}
    ends = curves(ax, shown, "epoch", "open", looks(table["method"]), "method", **seeds)
    scaled(ax, "y", "log", shown.loc[shown["open"] > 0, "open"])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="open gates (%)")
    form = "{density!p} after epoch {epoch}"
    text = described_curves("Open gates", table, form, "method")
    return labelled(fig, text, ends={ax: ends})


_COLOURS = ("#009E73", "#0072B2", "#D55E00", INK, "#AA4499", "#E69F00")
_TOP = 99.9  # the scale is logarithmic in what is missing from 100


def convergence_table(
    histories: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]],
) -> pd.DataFrame:
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
    for label, own in table.groupby("tickets", sort=False):
        at = own.groupby("epoch")["overlap"].mean()
        epochs = int(at.index.max())
        settled = 1 + max([0, *own.loc[own["overlap"] < 0.99, "epoch"]])
        known = settled if settled <= epochs else None
        rows.append((label, at[1], at[max(1, epochs // 2)], at[epochs], known, epochs))
    return pd.DataFrame(rows, columns=["tickets", "first", "half", "last", "settled", "epochs"])


@styled
def convergence_figure(table: pd.DataFrame) -> Figure:
    """Draw the overlap of each epoch's mask with the one before, in percent.

    The scale is logarithmic in what is missing from 100; masks that are equal stand at its top.

    Args:
        table: from `convergence_table`.
    """
    known = looks(table["tickets"])
    for place, (name, look) in enumerate(known.items()):
        known[name] = replace(look, colour=_COLOURS[place % len(_COLOURS)])
    shown = table.assign(percent=(100 * table["overlap"]).clip(upper=_TOP))
    fig, axes = grid(shown, 6.2, 3.2)
    (ax,) = axes.values()
    seeds: Any = {"units": "seed", "estimator": None, "markersize": 3.5, "clip_on": False}
    ends = curves(ax, shown, "epoch", "percent", known, "tickets", **seeds)
    scaled(ax, "y", "error", [*shown["percent"], _TOP])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="overlap with the epoch before (%)")
    form = "{tickets} {first:.2f} after the first epoch, {half:.2f} half-way, {last:.3f} at the end"
    text = described_rows("Overlap of successive masks", convergence_means(table), form)
    return labelled(fig, text, ends={ax: ends})
