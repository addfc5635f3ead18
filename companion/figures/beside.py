"""Beside what it is measured against: tickets beside dense, precisions beside fp32, speeds beside
their reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from companion.analysis.precision import BASE, DENSITY_MARGIN, TOGETHER
from companion.analysis.winners import BEST, GAP, SPARSEST
from companion.analysis.words import described_rows, in_percent
from companion.figures.charts import forest, key, labelled
from companion.figures.style import FAINT, INK, look_of, looks, scaled, styled


@styled
def winners_figure(winners: pd.DataFrame) -> Figure:
    """Draw each curve's two tickets: test accuracy minus dense, with 95 % interval and density.

    Args:
        winners: from `winning_tickets`.
    """
    rows = winners.assign(name=winners["curve"])
    fig, axes = forest(
        rows, GAP, looks(rows["curve"]), panel="choice", by="curve", order=[SPARSEST, BEST],
        title=str.capitalize, width=2.7,
    )  # fmt: skip
    for choice, ax in axes.items():
        ax.grid(True, axis="x")
        ax.grid(False, axis="y")
        beside: Any = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 9}
        ax.text(1.02, -0.75, "kept", color=FAINT, **beside)
        own = rows[rows["choice"] == choice]
        for place, density in enumerate(own["density"]):
            text, colour = ("none", FAINT) if pd.isna(density) else (in_percent(density), INK)
            ax.text(1.02, place, text, color=colour, **beside)
    form = "{curve}, {choice}: {difference:+.1f} points at {density!p}"
    lead = "Test accuracy minus dense, and density"
    text = described_rows(lead, winners[winners["n"] > 0], form)
    return labelled(fig, text, "test accuracy minus dense (points)")


_ACCURACY, _KEPT = f"test accuracy less {BASE}'s (points)", f"weights kept beyond {BASE}'s (%)"
_GAP = ["difference", "low", "high"]


@styled
def precision_figure(differences: pd.DataFrame, points: float) -> Figure:
    """Draw differences to fp32 in accuracy and in the weights kept, a row a ticket.

    Args:
        differences: from `precision_differences`.
        points: the margin in accuracy, drawn as a band; that in density is `DENSITY_MARGIN`.
    """
    precisions = list(dict.fromkeys(differences["precision"]))
    methods = {"bf16": "BiP", "tf32": "IMP"}
    known = {one: look_of(methods.get(one, "dense")) for one in precisions}
    apart = {one: 0.3 * (n - (len(known) - 1) / 2) for n, one in enumerate(known)}
    kept = differences.drop(columns=_GAP).rename(
        columns=dict(zip(("kept", "kept_low", "kept_high"), _GAP, strict=True))
    )
    rows = pd.concat([differences.assign(panel=_ACCURACY), kept.assign(panel=_KEPT)])
    fig, axes = forest(
        rows, _GAP, known, panel="panel", by="precision", apart=apart, total=TOGETHER, width=2.7,
        title=lambda _: "", sharex=False,
    )  # fmt: skip
    for (what, ax), half in zip(axes.items(), (points, DENSITY_MARGIN), strict=True):
        ax.axvspan(-half, half, color="#e6e6e6", linewidth=0, gid="margin")
        ax.grid(False)
        ax.set_xlabel(what)
    if len(known) > 1:
        key(fig, known, 2, linestyle="")
    lead = f"Differences to {BASE} in points of accuracy"
    form = "{name} in {precision} {difference:+.2f}"
    return labelled(fig, described_rows(lead, differences, form))


MET, NOT_MET, NO_TARGET = "met", "not met", "no target"
_RATES = ("ms", "im/s")
_LOOKS = {MET: look_of("BiP"), NOT_MET: look_of("CS", fill="none"), NO_TARGET: look_of("dense")}
_TARGET = {"marker": "|", "color": INK, "linestyle": "", "markersize": 11, "markeredgewidth": 1.6}


def benchmark_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return benchmarks as a table: name, reference, ours, unit, ratio, target, met, note.

    Args:
        rows: of a file under `results/bench`. met is `MET`, `NOT_MET`, or empty without a target;
            numbers that a row lacks are NaN.
    """
    names = ["name", "reference", "ours", "unit", "ratio", "target", "met", "note"]
    table = pd.DataFrame([*rows], columns=names)
    numbers = table[["reference", "ours", "ratio"]].apply(pd.to_numeric)
    return table.assign(**numbers, met=table["met"].map({True: MET, False: NOT_MET}).fillna(""))


def benchmark_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that say how many times faster something is, with columns name, ratio,
    target (of the ratio; NaN without one) and outcome.

    Args:
        table: from `benchmark_table`.
    """
    rows = table[table["unit"].isin(_RATES) & table["ratio"].notna()]
    aims = rows["target"].str.extract(r">= ([\d.]+) x")[0].astype("float64")
    found = rows.assign(target=aims, outcome=rows["met"].replace("", NO_TARGET))
    return found[["name", "ratio", "target", "outcome"]].reset_index(drop=True)


@styled
def benchmark_figure(ratios: pd.DataFrame) -> Figure:
    """Draw how many times faster each benchmark is than its reference, and the target as a bar.

    Args:
        ratios: from `benchmark_ratios`; rows from the top in their order.
    """
    rows = ratios.assign(reference=1, panel="")
    fig, axes = forest(
        rows, ["ratio", "reference", "ratio"], _LOOKS, panel="panel", by="outcome", reference=1,
        width=6.0,
    )  # fmt: skip
    (ax,) = axes.values()
    ax.plot(ratios["target"], ratios.index, **_TARGET, gid="target")
    scaled(ax, "x", "log", [1, *ratios["ratio"], *ratios["target"]])
    ax.set_xlabel("times faster than the reference")
    key(fig, {"target": _TARGET, **_LOOKS}, 4, linestyle="")
    aims = ratios["target"].map(" of {:g} aimed at".format).where(ratios["target"].notna(), "")
    table, form = ratios.assign(aim=aims), "{name} {ratio:.1f}{aim}"
    return labelled(fig, described_rows("Times faster than the reference", table, form))
