"""Our IMP beside independently published data: how far each falls from dense."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from companion.analysis.words import described_curves
from companion.evidence.reported import reported_curve
from companion.evidence.statistics import BAND, compare
from companion.figures.charts import curves, labelled, panels
from companion.figures.style import DASHED, FAINT, density_axis, look_of, styled

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


@styled()
def beside_published(gaps: pd.DataFrame) -> Figure:
    """Draw the differences of `imp_minus_dense`; the grey band is where the gate compares them.

    Args:
        gaps: from `imp_minus_dense`.
    """
    known = {"ours": look_of("IMP"), _THEIRS: look_of("IMP", colour=FAINT, fill="none")}
    shown = gaps.assign(kept=100 * gaps["density"])
    fig, (ax,) = panels(1, 6.2, 2.9)
    ax.axvspan(*(100 * BAND[[0, -1]]), color=FAINT, alpha=0.12, linewidth=0)
    ax.axhline(0, **DASHED)
    curves(ax, shown, "kept", "difference", known, "whose", ends=("low", "high"))
    density_axis(ax, float(shown["kept"].min()))
    ax.set(xlabel="kept weights (%), dense to sparse", ylabel="IMP minus dense (points)")
    handles = {"ours": known["ours"].handle, f"{_THEIRS}, median of 3": known[_THEIRS].handle}
    ax.legend([*handles.values()], [*handles], frameon=False, fontsize=9)
    form = "{difference:+.1f} points at {density!p} density"
    lead = "IMP minus dense, dense to sparse"
    return labelled(
        fig, described_curves(lead, gaps.sort_values("whose", kind="stable"), form, "whose")
    )
