"""What a ticket costs: accuracy against cumulative cost at given densities, and cost of a curve."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.evidence import mean_interval, on_grid
from companion.evidence.costs import spent_so_far
from companion.figures.style import (
    INK,
    Look,
    accuracy_axis,
    cost_axis,
    in_percent,
    looks,
    panels,
    short,
    styled,
)
from lthlib.errors import ConfigError

UNITS = {
    "epochs": "epochs",
    "passes": "images sent forward plus backward",
    "flops": "floating-point operations",
    "seconds": "seconds",
}


def costs_at(table: pd.DataFrame, densities: Sequence[float], unit: str) -> pd.DataFrame:
    """Return what each curve reaches at given densities and what its ticket cost, a row a point.

    Accuracy and cumulative cost (pretraining and search included) of each seed are interpolated in
    log density, never beyond the curve's ends; then averaged over seeds.

    Args:
        table: from `ticket_table`.
        densities: kept fractions.
        unit: one of `UNITS`; `passes` counts images sent forward and images sent backward.

    Returns:
        Columns curve, density, n, accuracy, low, high (95 % t-interval), cost.
    """
    rows = table[(table["status"] == "ok") & (table["curve"] != "dense")]
    found = []
    for curve, group in rows.groupby("curve", sort=False):
        accuracy, cost = on_grid(group, densities), on_grid(group, densities, unit)
        for density in densities:
            sample = mean_interval(accuracy[density])
            if sample.n:
                spent = float(cost[density].mean())
                numbers = (sample.n, sample.mean, sample.low, sample.high, spent)
                found.append((curve, density, *numbers))
    names = ["curve", "density", "n", "accuracy", "low", "high", "cost"]
    return pd.DataFrame(found, columns=names)


def curve_costs(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Return what all tickets of a curve cost together, mean over seeds: curve, tickets, n, cost.

    Each run counts once, with all it rests on: one IMP sequence yields all its densities, BiP
    repeats for each, and the dense network that they start from is trained once.
    """
    rows = table[table["status"] == "ok"]
    bill = spent_so_far(rows, unit).groupby([rows["curve"], rows["seed"]], sort=False).max()
    seeds = bill.groupby("curve", sort=False)
    tickets = rows.groupby(["curve", "seed"], sort=False).size().groupby("curve", sort=False).max()
    found = pd.DataFrame({"tickets": tickets, "n": seeds.size(), "cost": seeds.mean()})
    return found.reset_index()


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
    shown = [density for density in densities if (points["density"] == density).any()]
    if not shown:
        raise ConfigError(f"no curve reaches any of the densities {', '.join(map(str, densities))}")
    known = looks(list(dict.fromkeys(points["curve"])))
    dense = table[(table["curve"] == "dense") & (table["status"] == "ok")]
    with styled():
        rows, columns = -(-len(shown) // 2), min(2, len(shown))
        fig, axes = panels(rows, columns, 7.4, 1.1 + 2.6 * rows)
        for ax, density in zip(axes, shown, strict=False):
            ax.set_title(f"{in_percent(density)} of the weights kept")
            if len(dense):
                _dense(ax, dense, unit)
            for _, point in points[points["density"] == density].iterrows():
                _point(ax, point, known[point["curve"]])
        values = pd.concat([points["accuracy"], dense["test_accuracy"]])
        accuracy_axis(axes[0], float(values.min()), float(values.max()))
        cost_axis(axes[0])
        fig.supxlabel(f"cost of one ticket, from initialisation on: {UNITS[unit]}", fontsize=10)
        fig.supylabel("test accuracy (%)", fontsize=10)
        lines = {line.get_label(): line for ax in axes for line in ax.lines}
        names = ["dense", *known] if len(dense) else [*known]
        handles = [lines[name] for name in names]
        fig.legend(handles, names, loc="outside upper left", ncols=4, frameon=False, fontsize=9)
    return fig


def cost_of_curves(table: pd.DataFrame, unit: str) -> Figure:
    """Draw what all tickets of a curve cost together, a bar a curve, dearest first.

    Args:
        table: from `ticket_table`.
        unit: one of `UNITS`.
    """
    costs = curve_costs(table, unit).sort_values("cost", ignore_index=True)
    known = looks([*costs["curve"]])
    with styled():
        fig, (ax,) = panels(1, 1, 6.4, 0.8 + 0.3 * len(costs))
        bars = ax.barh(costs["curve"], costs["cost"], height=0.62)
        for bar, curve in zip(bars, costs["curve"], strict=True):
            bar.set_color(known[curve].colour)
            bar.set_alpha(0.45 if "," in curve else 0.9)
        words = [
            f" {short(cost)}, {_tickets(n)}"
            for cost, n in zip(costs["cost"], costs["tickets"], strict=True)
        ]
        ax.bar_label(bars, words, fontsize=9, color=INK)
        ax.set_xlim(0, 1.35 * costs["cost"].max())
        ax.grid(False)
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(left=False, bottom=False, labelbottom=False)
        ax.set_xlabel(f"cost of all tickets of one seed: {UNITS[unit]}")
    return fig


def describe_costs(points: pd.DataFrame, unit: str) -> str:
    """Say in words what `accuracy_against_cost` shows, from the table of `costs_at`."""
    parts = [
        f"{row['curve']} reaches {row['accuracy']:.1f} % for {short(row['cost'])} {unit}"
        f" at {in_percent(row['density'])} density"
        for _, row in points.iterrows()
    ]
    return f"Accuracy against cost: {'; '.join(parts)}."


def _point(ax: Axes, point: pd.Series, look: Look) -> None:
    half = [[point["accuracy"] - point["low"]], [min(point["high"], 99.9) - point["accuracy"]]]
    ax.errorbar(
        [point["cost"]],
        [point["accuracy"]],
        yerr=half if point["n"] >= 3 else None,
        fmt=look.marker,
        color=look.colour,
        fillstyle=look.fill,
        elinewidth=1,
        markersize=6.5,
    ).lines[0].set_label(point["curve"])


def _dense(ax: Axes, dense: pd.DataFrame, unit: str) -> None:
    mean = dense["test_accuracy"].mean()
    ax.axhline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    ax.plot([dense[unit].mean()], [mean], "*", color=INK, markersize=9, label="dense")


def _tickets(count: int) -> str:
    return f"{count} ticket{'s' if count > 1 else ''}"
