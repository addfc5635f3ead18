"""How fast training steps are: each benchmark's ratio to its reference, and what was aimed at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from companion.analysis.words import described_rows
from companion.figures.charts import forest, labelled, panels, rows_axis
from companion.figures.style import DASHED, INK, look_of, styled

MET, NOT_MET, NO_TARGET = "met", "not met", "no target"
_RATES = ("ms", "im/s")
_LOOKS = {MET: look_of("BiP"), NOT_MET: look_of("CS", fill="none"), NO_TARGET: look_of("dense")}


def benchmark_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return benchmarks as a table: name, reference, ours, unit, ratio, target, met, note.

    Args:
        rows: of a file under `results/bench`. met is `MET`, `NOT_MET`, or empty without a target;
            numbers that a row lacks are NaN.
    """
    names = ["name", "reference", "ours", "unit", "ratio", "target", "met", "note"]
    table = pd.DataFrame([dict(row) for row in rows], columns=names)
    numbers = {name: pd.to_numeric(table[name]) for name in ("reference", "ours", "ratio")}
    return table.assign(**numbers, met=table["met"].map({True: MET, False: NOT_MET}).fillna(""))


def benchmark_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that say how many times faster something is, with columns name, ratio,
    target (of the ratio; NaN without one) and outcome.

    Args:
        table: from `benchmark_table`.
    """
    rows = table[table["unit"].isin(_RATES) & table["ratio"].notna()]
    aims = rows["target"].str.extract(re.compile(r">= ([\d.]+) x"))[0].astype("float64")
    outcome = rows["met"].replace("", NO_TARGET)
    return pd.DataFrame(
        {"name": rows["name"], "ratio": rows["ratio"], "target": aims, "outcome": outcome}
    ).reset_index(drop=True)


@styled()
def benchmark_figure(ratios: pd.DataFrame) -> Figure:
    """Draw how many times faster each benchmark is than its reference, and the target as a bar.

    Args:
        ratios: from `benchmark_ratios`; rows from the top in their order.
    """
    fig, (ax,) = panels(1, 8.2, 1.3 + 0.25 * len(ratios))
    ax.axvline(1, **DASHED)
    ax.plot(
        ratios["target"], ratios.index, "|", color=INK, markersize=11, markeredgewidth=1.6,
        label="target", gid="target",
    )  # fmt: skip
    for outcome, look in _LOOKS.items():
        own = ratios[ratios["outcome"] == outcome].assign(reference=1)
        forest(ax, own, own.index, ["ratio", "reference", "ratio"], look, outcome)
    ax.set(xscale="log", xlabel="times faster than the reference")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    rows_axis([ax], ratios["name"])
    fig.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9)
    aims = ratios["target"].map(" of {:g} aimed at".format).where(ratios["target"].notna(), "")
    table, form = ratios.assign(aim=aims), "{name} {ratio:.1f}{aim}"
    return labelled(fig, described_rows("Times faster than the reference", table, form))
