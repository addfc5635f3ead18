"""The dilemma: what a ticket reaches and what it costs, side by side, by how much is pruned."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.evidence import reported, reported_curve
from companion.evidence.costs import spent
from companion.evidence.statistics import summarise
from companion.figures.points import pruned
from companion.figures.style import (
    INK,
    accuracy_axis,
    cost_axis,
    label_ends,
    looks,
    on_top,
    panels,
    ratio_axis,
    short,
    styled,
)

PUBLISHED = ("CIFAR-10", "ResNet-20")  # of the paper's Fig 1
_COLUMNS = ["curve", "pruned", "n", "accuracy", "low", "high", "cost"]


def dilemma_points(table: pd.DataFrame, unit: str, pretraining: bool = True) -> pd.DataFrame:
    """Return what each ticket reaches and what it cost, a row a point, sparse last.

    Args:
        table: from `ticket_table`.
        unit: one of `cost.UNITS`.
        pretraining: whether the training of the dense network counts, for all that rest on it.

    Returns:
        Columns curve, pruned (percent), n, accuracy, low, high (test, percent, 95 % t-interval),
        cost: means over seeds. Dense is a row of its own, at 0 % pruned.
    """
    rows = table[table["status"] == "ok"]
    rows = rows.assign(pruned=pruned(rows), cost=spent(rows, unit, pretraining))
    points = summarise(rows, ["curve", "point"])
    keys = pd.MultiIndex.from_frame(points[["curve", "point"]])
    means = rows.groupby(["curve", "point"])[["pruned", "cost"]].mean().reindex(keys)
    points = points.assign(pruned=means["pruned"].to_numpy(), cost=means["cost"].to_numpy())
    order = {curve: place for place, curve in enumerate(dict.fromkeys(rows["curve"]))}
    points = points.assign(place=points["curve"].map(order)).sort_values(["place", "pruned"])
    return points.rename(columns={"mean": "accuracy"})[_COLUMNS].reset_index(drop=True)


def published_dilemma() -> pd.DataFrame:
    """Return the BiP paper's Fig 1 (CIFAR-10, ResNet-20), a row a point, columns as ours.

    Cost is in minutes. IMP, SNIP and SynFlow are read off Fig 1; OMP, GraSP and dense are those of
    Fig 3, which has the same network. Fig 1 has no BiP.
    """
    minutes = reported()
    minutes = minutes[minutes["artefact"] == "Fig 1 runtime"].set_index("method")
    accuracies = pd.concat(
        [reported_curve(*PUBLISHED, artefact=artefact) for artefact in ("Fig 1", "Fig 3")]
    )
    in_fig_1 = set(accuracies.loc[accuracies["artefact"] == "Fig 1", "method"])
    rows: list[dict[str, Any]] = []
    for method in dict.fromkeys(["dense", "IMP", "OMP", *minutes.index]):
        own = minutes.loc[[method]].set_index("pruning_ratio_pct")["value"]
        for row in accuracies[accuracies["method"] == method].to_dict("records"):
            if row["artefact"] == "Fig 3" and method in in_fig_1:
                continue
            share = row["pruning_ratio_pct"]
            cost = own.get(share, own.iloc[0] if len(own) == 1 else float("nan"))
            rows.append({"curve": method, "pruned": share, "accuracy": row["value"], "cost": cost})
    return pd.DataFrame(rows).reindex(columns=_COLUMNS)


def dilemma_figure(points: pd.DataFrame, unit: str, published: bool = False) -> Figure:
    """Draw accuracy and cost against the percentage pruned, two panels side by side.

    Lines join means; bands are 95 % t-intervals, from three seeds on; the dense network is dashed.

    Args:
        points: from `dilemma_points` or `published_dilemma`; with dense or without.
        unit: of the cost, one of `cost.UNITS`; or `minutes`.
        published: whether the points were read off a paper: markers are hollow then, lines thin.
    """
    tickets = points[points["curve"] != "dense"]
    dense = points[points["curve"] == "dense"]
    known = looks(list(dict.fromkeys(tickets["curve"])))
    style: dict[str, Any] = {"gid": "mean"}
    if published:
        style = {"gid": "published", "linewidth": 1, "markerfacecolor": "white"}
    with styled():
        fig, (left, right) = panels(1, 2, 7.6, 3.7, scales="none")
        for curve, own in tickets.groupby("curve", sort=False):
            look = known[str(curve)]
            looked = {"color": look.colour, "marker": look.marker, "linestyle": look.dash, **style}
            looked["zorder"] = on_top(str(curve))
            left.plot(own["pruned"], own["accuracy"], **looked)
            right.plot(own["pruned"], own["cost"], **looked)
            sure = own["n"] >= 3
            if sure.any():
                low, high = (own[end].where(sure).clip(0, 99.9) for end in ("low", "high"))
                left.fill_between(own["pruned"], low, high, color=look.colour, alpha=0.09, lw=0)
        accuracy_axis(left, float(points["accuracy"].min()), float(points["accuracy"].max()))
        cost_axis(right, "y")
        ratio_axis(left, float(tickets["pruned"].max()))
        if len(dense):
            _dense(left, right, dense.iloc[0])
        left.set_title("What the ticket reaches")
        left.set_ylabel("test accuracy (%)")
        right.set_title("What it costs")
        right.set_ylabel(f"cost ({'FLOPs' if unit == 'flops' else unit})")
        fig.supxlabel("pruned (%)", fontsize=10)
        lines = [line for line in left.lines if line.get_gid() == style["gid"]]
        fig.legend(lines, [*known], loc="outside upper left", ncols=6, frameon=False, fontsize=9)
    return fig


def describe_dilemma(points: pd.DataFrame, unit: str) -> str:
    """Say in words what `dilemma_figure` shows: the two ends of each curve."""
    parts = []
    for curve, own in points.groupby("curve", sort=False):
        ends = own.iloc[[0, -1]][["pruned", "accuracy", "cost"]].to_numpy(float)
        texts = [
            f"{accuracy:.1f} % for {short(cost)} {unit} at {share:.0f} % pruned"
            for share, accuracy, cost in ends
        ]
        parts.append(f"{curve} {' to '.join(dict.fromkeys(texts))}")
    return f"Test accuracy and cost by the percentage pruned: {'; '.join(parts)}."


def _dense(left: Axes, right: Axes, dense: pd.Series) -> None:
    dash: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": (0, (4, 3))}
    left.axhline(dense["accuracy"], gid="dense", **dash)
    right.axhline(dense["cost"], gid="dense", **dash)
    if dense["n"] >= 3:
        left.axhspan(dense["low"], min(dense["high"], 99.9), color=INK, alpha=0.10, linewidth=0)
    label_ends(right, [("dense", right.get_xlim()[1], dense["cost"], INK)])
