"""What a ticket costs: accuracy against cost, cost of a curve, and cost by how much is pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.analysis.cost import UNITS, costs_at, curve_costs
from companion.analysis.words import described_rows, in_percent, short
from companion.figures.charts import curves, forest, grid, key, labelled, panels
from companion.figures.style import (
    DASHED,
    INK,
    Look,
    accuracy_axis,
    cost_axis,
    looks,
    ratio_axis,
    styled,
)
from lthlib.errors import ConfigError


@styled()
def accuracy_against_cost(table: pd.DataFrame, unit: str, densities: Sequence[float]) -> Figure:
    """Draw the accuracy reached against the cost of one ticket, a panel a density.

    Bars are 95 % t-intervals (from three seeds on); variants of a method have hollow or half-filled
    markers. The dense network stands in every panel: what rests on it includes its cost.

    Args:
        table: from `ticket_table`.
        unit: one of `UNITS`.
        densities: kept fractions, one panel each where any curve has it.

    Raises:
        ConfigError: no curve has any of them.
    """
    points = costs_at(table, densities, unit)
    if points.empty:
        raise ConfigError(f"no curve reaches any of the densities {', '.join(map(str, densities))}")
    shown = [one for one in densities if one in set(points["density"])]
    known: dict[Any, Look] = {**looks(points["curve"])}
    dense = table[(table["curve"] == "dense") & (table["status"] == "ok")]
    star: dict[str, Any] = {"color": INK, "marker": "*", "markersize": 9, "linestyle": ""}
    fig, axes = grid(
        points, 7.4, 1.1 + 2.6 * -(-len(shown) // 2),
        lambda density: f"{in_percent(density)} of the weights kept",
        col="density", col_order=shown, col_wrap=min(2, len(shown)),
    )  # fmt: skip
    for (density, curve), own in points.groupby(["density", "curve"], sort=False):
        few = own["n"] < 3
        bars = own.assign(low=own["low"].mask(few), high=own["high"].mask(few))
        values = ["accuracy", "low", "high"]
        mark = known[curve], str(curve)
        forest(axes[density], bars, own["cost"], values, *mark, upright=True, markersize=6.5)
    for ax in axes.values() if len(dense) else ():
        ax.axhline(dense["test_accuracy"].mean(), **DASHED)
        ax.plot([dense[unit].mean()], [dense["test_accuracy"].mean()], **star)
    first = axes[shown[0]]
    accuracy_axis(first, pd.concat([points["accuracy"], dense["test_accuracy"]]))
    cost_axis(first)
    marks = {"dense": Line2D([], [], **star)} if len(dense) else {}
    key(fig, marks | {name: look.handle for name, look in known.items()}, 4)
    form = f"{{curve}} reaches {{accuracy:.1f}} % for {{cost!k}} {unit} at {{density!p}} density"
    x = f"cost of one ticket, from initialisation on: {UNITS[unit]}"
    return labelled(
        fig, described_rows("Accuracy against cost", points, form), x, "test accuracy (%)"
    )


@styled()
def cost_of_curves(table: pd.DataFrame, unit: str) -> Figure:
    """Draw what all tickets of a curve cost together, a bar a curve, dearest first.

    Args:
        table: from `ticket_table`.
        unit: one of `UNITS`.
    """
    bills = curve_costs(table, unit)
    costs = bills.sort_values("cost", ascending=False, ignore_index=True)
    palette = {name: look.colour for name, look in looks([*costs["curve"]]).items()}
    fig, (ax,) = panels(1, 6.4, 0.8 + 0.3 * len(costs))
    sns.barplot(
        costs, x="cost", y="curve", hue="curve", palette=palette, saturation=1, width=0.62, ax=ax
    )
    bars: Any
    for bars, row in zip(ax.containers, costs.to_dict("records"), strict=True):
        text = f" {short(row['cost'])}, {row['tickets']} ticket{'s' * (row['tickets'] > 1)}"
        ax.bar_label(bars, [text], fontsize=9, color=INK)
        bars[0].set_alpha(0.45 if "," in row["curve"] else 0.9)
    ax.set_xlim(0, 1.35 * costs["cost"].max())
    ax.grid(False)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(left=False, bottom=False, labelbottom=False)
    ax.set(xlabel=f"cost of all tickets of one seed: {UNITS[unit]}", ylabel="")
    return labelled(fig, described_rows("Bars", bills, "{curve} {cost:.3g}"))


@styled()
def cost_against_ratio(costs: pd.DataFrame) -> Figure:
    """Draw cost against the percentage pruned, a row a unit: one ticket, and the curve so far.

    Args:
        costs: from `costs_by_ratio`.
    """
    known = looks(costs["curve"])
    kinds = {"": "One ticket", "_so_far": "All tickets down to it"}
    every = pd.DataFrame(
        [(unit, kind) for unit in UNITS for kind in kinds], columns=["unit", "kind"]
    )
    fig, axes = grid(every, 7.4, 8.4, row="unit", col="kind", sharey="row")
    for (unit, kind), ax in axes.items():
        curves(ax, costs, "pruned", f"{unit}{kind}", known, gid=f"{unit}{kind}")
        cost_axis(ax, "y")
        ratio_axis(ax, float(costs["pruned"].max()))
        title = kinds[kind] if unit == "epochs" else ""
        head = "FLOPs" if unit == "flops" else unit
        ax.set(title=title, xlabel="", ylabel="" if kind else head)
    key(fig, known, 5)
    groups = costs.groupby("curve", sort=False)
    ends = groups.first().add_suffix("_first").join(groups.last()).reset_index()
    form = "{curve} from {passes_first!k} passes at {pruned_first:.0f} % pruned to {passes!k} at "
    form += "{pruned:.0f} %, all tickets {passes_so_far!k}"
    text = described_rows("Cost against the percentage pruned", ends, form)
    return labelled(fig, text, "pruned (%)")
