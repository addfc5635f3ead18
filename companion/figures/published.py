"""Our IMP beside independently published data: how far each falls from dense."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from companion.evidence import reported_curve
from companion.evidence.statistics import BAND, compare
from companion.figures.style import FAINT, INK, density_axis, in_percent, looks, panels, styled

_THEIRS = "Renda et al. (2020)"


def imp_minus_dense(table: pd.DataFrame) -> pd.DataFrame:
    """Return IMP's test accuracy minus dense's by density, ours and published, a row a point.

    Args:
        table: from `ticket_table`, of one data set and network.

    Returns:
        Columns whose, density, n, difference, low, high (95 %), in points; empty unless both sides
        have IMP and dense.
    """
    network = table["dataset"].iloc[0], table["architecture"].iloc[0]
    reported = reported_curve(*network, artefact="published data")
    theirs = reported[reported["method"] == "IMP, weight rewinding"]
    level = reported.loc[reported["method"] == "dense", "value"]
    good = table[table["status"] == "ok"]
    ours, dense = (good[good["curve"] == name] for name in ("IMP", "dense"))
    names = ["whose", "density", "n", "difference", "low", "high"]
    if ours.empty or dense.empty or theirs.empty or level.empty:
        return pd.DataFrame(columns=names)
    reference = dense.groupby(["study", "seed"])["test_accuracy"].mean()
    found = []
    for _, rows in ours.groupby("point", sort=False):
        gap = compare(rows.groupby(["study", "seed"])["test_accuracy"].mean(), reference)
        found.append(("ours", rows["density"].mean(), gap.n, gap.mean, gap.low, gap.high))
    for density, value in theirs[["density", "value"]].to_numpy(float).tolist():
        unknown = float("nan")
        found.append((_THEIRS, density, 3, value - float(level.iloc[0]), unknown, unknown))
    gaps = pd.DataFrame(found, columns=names)
    return gaps.sort_values(["whose", "density"], ascending=[True, False], ignore_index=True)


def beside_published(gaps: pd.DataFrame) -> Figure:
    """Draw the differences of `imp_minus_dense`; the grey band is where the gate compares them.

    Args:
        gaps: from `imp_minus_dense`.
    """
    look = looks(["IMP"])["IMP"]
    ends = 100 * BAND[[0, -1]]
    with styled():
        fig, (ax,) = panels(1, 1, 6.2, 2.9)
        density_axis(ax, 100 * float(gaps["density"].min()))
        ax.axvspan(*ends, color=FAINT, alpha=0.12, linewidth=0)
        ax.axhline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        for whose, rows in gaps.groupby("whose", sort=True):
            x = 100 * rows["density"]
            published = whose == _THEIRS
            ax.plot(
                x,
                rows["difference"],
                marker=look.marker,
                color=FAINT if published else look.colour,
                markerfacecolor="white" if published else look.colour,
                label=f"{whose}, median of 3" if published else str(whose),
                gid="theirs" if published else "ours",
            )
            ax.fill_between(x, rows["low"], rows["high"], color=look.colour, alpha=0.12, lw=0)
        ax.set_xlabel("kept weights (%), dense to sparse")
        ax.set_ylabel("IMP minus dense (points)")
        ax.legend(frameon=False, fontsize=9)
    return fig


def describe_published(gaps: pd.DataFrame) -> str:
    """Say in words what `beside_published` shows."""
    parts = []
    for whose, rows in gaps.groupby("whose", sort=True):
        ends = rows.iloc[[0, -1]][["density", "difference"]].to_numpy()
        words = [f"{gap:+.1f} points at {in_percent(density)} density" for density, gap in ends]
        parts.append(f"{whose} {' to '.join(dict.fromkeys(words))}")
    return f"IMP minus dense, dense to sparse: {'; '.join(parts)}."
