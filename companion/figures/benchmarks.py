"""How fast training steps are: each benchmark's ratio to its reference, and what was aimed at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from companion.figures.style import FAINT, INK, looks, panels, styled

MET, NOT_MET, NO_TARGET = "met", "not met", "no target"
_RATES = ("ms", "im/s")
_LOOKS = {MET: ("BiP", "full"), NOT_MET: ("CS", "none"), NO_TARGET: ("dense", "full")}


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


def benchmark_figure(ratios: pd.DataFrame) -> Figure:
    """Draw how many times faster each benchmark is than its reference, and the target as a bar.

    Args:
        ratios: from `benchmark_ratios`; rows from the top in their order.
    """
    with styled():
        fig, (ax,) = panels(1, 1, 8.2, 1.3 + 0.25 * len(ratios))
        ax.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        ax.plot(
            ratios["target"], ratios.index, "|", color=INK, markersize=11, markeredgewidth=1.6,
            label="target", gid="target",
        )  # fmt: skip
        for outcome, (method, fill) in _LOOKS.items():
            own = ratios[ratios["outcome"] == outcome]
            look = looks([method])[method]
            ax.hlines(own.index, 1, own["ratio"], color=FAINT, linewidth=0.8)
            ax.plot(
                own["ratio"], own.index, look.marker, color=look.colour, fillstyle=fill,
                label=outcome, gid=outcome,
            )  # fmt: skip
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set(xlabel="times faster than the reference", ylim=(len(ratios) - 0.5, -0.5))
        ax.set_yticks(range(len(ratios)), ratios["name"])
        ax.tick_params(axis="y", length=0)
        fig.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9)
    return fig


def describe_benchmarks(ratios: pd.DataFrame) -> str:
    """Say in words what `benchmark_figure` shows."""
    words = []
    for row in ratios.to_dict("records"):
        aim = "" if pd.isna(row["target"]) else f" of {row['target']:g} aimed at"
        words.append(f"{row['name']} {row['ratio']:.1f}{aim}")
    return f"Times faster than the reference: {'; '.join(words)}."
