"""What gates do while they train: from soft to binary, and the gap between training and ticket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from companion.analysis.words import described_curves, described_rows
from companion.evidence.statistics import mean_interval
from companion.figures.charts import curves, grid, label_curves, labelled, panels
from companion.figures.style import BLUES, kept_axis, looks, styled
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


@styled()
def gates_figure(table: pd.DataFrame) -> Figure:
    """Draw the share of gates by soft value after each epoch, a panel a method, of its first seed.

    Args:
        table: from `gate_table`.
    """
    bins = [name for name in table.columns if name.startswith("from_")]
    methods = table["method"].nunique()
    fig, axes = grid(table, 1.2 + 2.2 * methods, 2.9, col="method")
    for method, ax in axes.items():
        rows = table[table["method"] == method]
        rows = rows[rows["seed"] == rows["seed"].iloc[0]]
        shares = np.maximum(rows[bins].to_numpy(float).T, _SMALLEST)
        edges = np.append(0, rows["epoch"]), np.linspace(0, 1, len(bins) + 1)
        norm = LogNorm(_SMALLEST, 1)
        drawn = ax.pcolormesh(*edges, shares, norm=norm, cmap=BLUES, rasterized=True)
        ax.grid(False)
        ax.set_xlabel("epoch")
    next(iter(axes.values())).set_ylabel("soft value of the gate")
    bar = fig.colorbar(drawn, ax=[*axes.values()], label="share of the gates", pad=0.02)
    bar.outline.set_visible(False)
    last = table.drop_duplicates("method", keep="last")
    last = last.assign(settled=last[bins[0]] + last[bins[-1]])
    lead = "Soft values of the gates after the last epoch"
    form = "{method}: {settled!p} of the gates in the outermost bins"
    return labelled(fig, described_rows(lead, last, form))


@styled()
def gate_density_figure(table: pd.DataFrame) -> Figure:
    """Draw the share of open gates after each epoch: the ticket's density if the search ended then.

    Args:
        table: from `gate_table`.
    """
    known = looks(table["method"])
    shown = table.assign(open=100 * table["density"])
    fig, (ax,) = panels(1, 5.6, 2.9)
    seeds: Any = {"units": "seed", "estimator": None, "marker": "", "gid": "density"}
    curves(ax, shown, "epoch", "open", known, "method", **seeds)
    kept_axis(ax, shown.loc[shown["open"] > 0, "open"])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="open gates (%)")
    first = shown.drop_duplicates(["method", "epoch"])
    label_curves(ax, first, "epoch", "open", known, "method")
    ends = "{density!p} after epoch {epoch}"
    return labelled(fig, described_curves("Open gates", table, ends, "method"))


def _ends(count: int) -> list[str]:
    return [f"from_{place / count:.2f}" for place in range(count)]
