"""What tickets cost: beside what they reach, by how much is pruned, and the search for them."""

from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from companion.analysis.cost import UNITS, curve_costs
from companion.analysis.points import OUR_NAMES, in_order, pruned
from companion.analysis.words import described_curves, described_rows, short
from companion.evidence.costs import spent
from companion.evidence.reported import reported, reported_curve
from companion.evidence.statistics import estimates
from companion.figures.charts import curves, grid, key, labelled, single
from companion.figures.style import DASHED, INK, looks, scaled, styled


@styled
def cost_of_curves(table: pd.DataFrame, unit: str) -> Figure:
    """Draw what all tickets of a curve cost together, a bar a curve, dearest first.

    Args:
        table: from `ticket_table`.
        unit: one of `UNITS`.
    """
    bills = curve_costs(table, unit)
    costs = bills.sort_values("cost", ascending=False, ignore_index=True)
    fig, ax = single(6.4, 0.8 + 0.3 * len(costs))
    palette = {name: look.colour for name, look in looks(costs["curve"]).items()}
    bars: Any = {"hue": "curve", "palette": palette, "saturation": 1, "width": 0.62}
    sns.barplot(costs, x="cost", y="curve", ax=ax, **bars)
    for (bar,), row in zip(ax.containers, costs.to_dict("records"), strict=True):
        bar.set_alpha(0.45 if "," in row["curve"] else 0.9)
        text = f" {short(row['cost'])}, {row['tickets']} ticket{'s' * (row['tickets'] > 1)}"
        ax.text(row["cost"], bar.get_y() + bar.get_height() / 2, text, va="center", fontsize=9)
    sns.despine(ax=ax, bottom=True)
    ax.grid(False)
    ax.tick_params(left=False, bottom=False, labelbottom=False)
    ax.set(xlim=(0, 1.35 * costs["cost"].max()), ylabel="")
    ax.set_xlabel(f"cost of all tickets of one seed: {UNITS[unit]}")
    return labelled(fig, described_rows("Bars", bills, "{curve} {cost:.3g}"))


PUBLISHED = ("CIFAR-10", "ResNet-20")  # of the paper's Fig 1
_COLUMNS = ["curve", "pruned", "n", "accuracy", "low", "high", "cost"]
_TITLES = {"accuracy": "What the ticket reaches", "cost": "What it costs"}


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
    points = estimates(rows, ["curve", "point"], "test_accuracy", ["pruned", "cost"])
    points = in_order(points.rename(columns={"mean": "accuracy"}), rows["curve"], "pruned")
    return points[_COLUMNS].reset_index(drop=True)


def published_dilemma() -> pd.DataFrame:
    """Return the BiP paper's Fig 1 (CIFAR-10, ResNet-20), a row a point, columns as ours.

    Cost is in minutes. IMP, SNIP and SynFlow are read off Fig 1; OMP, GraSP and dense are those of
    Fig 3, which has the same network. Fig 1 has no BiP.
    """
    first, third = (
        reported_curve(*PUBLISHED, artefact=figure).rename(columns=OUR_NAMES)
        for figure in ("Fig 1", "Fig 3")
    )
    rows = pd.concat([first, third[~third["curve"].isin(first["curve"])]])
    minutes = reported()
    minutes = minutes[minutes["artefact"] == "Fig 1 runtime"].rename(columns=OUR_NAMES)
    at_any = minutes.groupby("curve")["accuracy"].agg(["first", "size"]).query("size == 1")["first"]
    by_ratio = minutes.set_index(["curve", "pruned"])["accuracy"].rename("cost")
    rows = rows.drop(columns="n", errors="ignore").join(by_ratio, ["curve", "pruned"])
    rows = rows.assign(cost=rows["cost"].fillna(rows["curve"].map(at_any)))
    order = ["dense", "IMP", "OMP", *minutes["curve"]]
    rows = in_order(rows[rows["curve"].isin(order)], order)
    return rows.reindex(columns=_COLUMNS).reset_index(drop=True)


@styled
def dilemma_figure(points: pd.DataFrame, unit: str, published: bool = False) -> Figure:
    """Draw accuracy and cost against the percentage pruned, one panel above the other.

    Lines join means; bands are 95 % t-intervals, from three seeds on; the dense network is dashed.

    Args:
        points: from `dilemma_points` or `published_dilemma`; with dense or without.
        unit: of the cost, one of `cost.UNITS`; or `minutes`.
        published: whether the points were read off a paper: markers are hollow then, lines thin.
    """
    is_dense = points["curve"] == "dense"
    tickets, dense = points[~is_dense], points[is_dense]
    curve_looks = looks(tickets["curve"])
    band = ["low", "high"]
    sure = tickets.assign(**{end: tickets[end].where(tickets["n"] >= 3) for end in band})
    thin: dict[str, Any] = {"linewidth": 1, "markerfacecolor": "white"} if published else {}
    gid = "published" if published else "mean"
    panels = pd.DataFrame({"panel": [*_TITLES]})
    fig, axes = grid(panels, 6.2, 5.4, _TITLES.__getitem__, row="panel", sharey=False)
    for column, ax in axes.items():
        reached = column == "accuracy"
        ends = band if reached else ()
        curves(ax, sure, "pruned", column, curve_looks, ends=ends, gid=gid, **thin)
        scaled(ax, "y", "error" if reached else "cost", points[column])
        for row in dense.to_dict("records"):
            ax.axhline(row[column], gid="dense", **DASHED)
            if reached and row["n"] >= 3:
                ax.axhspan(row["low"], row["high"], color=INK, alpha=0.10, linewidth=0)
        scaled(ax, "x", "error", [0, tickets["pruned"].max()])
    axes["accuracy"].set_ylabel("test accuracy (%)")
    axes["cost"].set_ylabel(f"cost ({'FLOPs' if unit == 'flops' else unit})")
    levels = {axes["cost"]: [("dense", float("nan"), cost, INK) for cost in dense["cost"]]}
    key(fig, curve_looks, 6, **thin)
    form = f"{{accuracy:.1f}} % for {{cost!k}} {unit} at {{pruned:.0f}} % pruned"
    text = described_curves("Test accuracy and cost by the percentage pruned", points, form)
    return labelled(fig, text, "pruned (%)", ends=levels)
