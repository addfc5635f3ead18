"""The dilemma: what a ticket reaches and what it costs, side by side, by how much is pruned."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from companion.analysis.points import in_order, pruned
from companion.analysis.words import described_curves
from companion.evidence.costs import spent
from companion.evidence.reported import reported, reported_curve
from companion.evidence.statistics import summarise
from companion.figures.charts import curves, key, labelled, panels
from companion.figures.style import (
    DASHED,
    INK,
    accuracy_axis,
    cost_axis,
    label_ends,
    looks,
    ratio_axis,
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
    points = in_order(points, rows["curve"], "pruned")
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


@styled()
def dilemma_figure(points: pd.DataFrame, unit: str, published: bool = False) -> Figure:
    """Draw accuracy and cost against the percentage pruned, two panels side by side.

    Lines join means; bands are 95 % t-intervals, from three seeds on; the dense network is dashed.

    Args:
        points: from `dilemma_points` or `published_dilemma`; with dense or without.
        unit: of the cost, one of `cost.UNITS`; or `minutes`.
        published: whether the points were read off a paper: markers are hollow then, lines thin.
    """
    tickets, dense = (points[(points["curve"] == "dense") == one] for one in (False, True))
    known = looks(tickets["curve"])
    ends = ["low", "high"]
    sure = tickets.assign(**{end: tickets[end].where(tickets["n"] >= 3) for end in ends})
    style: dict[str, Any] = {"gid": "mean"}
    if published:
        style = {"gid": "published", "linewidth": 1, "markerfacecolor": "white"}
    fig, (left, right) = panels(2, 7.6, 3.7, sharex=True)
    curves(left, sure, "pruned", "accuracy", known, ends=ends, **style)
    curves(right, sure, "pruned", "cost", known, **style)
    accuracy_axis(left, points["accuracy"])
    cost_axis(right, "y")
    ratio_axis(left, float(tickets["pruned"].max()))
    for row in dense.to_dict("records"):
        left.axhline(row["accuracy"], gid="dense", **DASHED)
        right.axhline(row["cost"], gid="dense", **DASHED)
        if row["n"] >= 3:
            left.axhspan(row["low"], row["high"], color=INK, alpha=0.10, linewidth=0)
        label_ends(right, [("dense", right.get_xlim()[1], row["cost"], INK)])
    left.set(title="What the ticket reaches", xlabel="", ylabel="test accuracy (%)")
    what = f"cost ({'FLOPs' if unit == 'flops' else unit})"
    right.set(title="What it costs", xlabel="", ylabel=what)
    lines = [line for line in left.lines if line.get_gid() == style["gid"]]
    key(fig, dict(zip(known, lines, strict=True)), 6)
    form = f"{{accuracy:.1f}} % for {{cost!k}} {unit} at {{pruned:.0f}} % pruned"
    text = described_curves("Test accuracy and cost by the percentage pruned", points, form)
    return labelled(fig, text, "pruned (%)")
