"""Which precisions may stand for one another: differences to fp32, ticket by ticket."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from companion.analysis.precision import BASE, DENSITY_MARGIN, TOGETHER
from companion.analysis.words import described_rows
from companion.figures.charts import forest, key, labelled, panels, rows_axis
from companion.figures.style import DASHED, look_of, styled

_PANELS = (("difference", "low", "high"), ("kept", "kept_low", "kept_high"))


_LOOKS = {"bf16": look_of("BiP"), "tf32": look_of("IMP")}


@styled()
def precision_figure(differences: pd.DataFrame, points: float) -> Figure:
    """Draw differences to fp32 in accuracy and in the weights kept, a row a ticket.

    Args:
        differences: from `precision_differences`.
        points: the margin in accuracy, drawn as a band; that in density is `DENSITY_MARGIN`.
    """
    names, precisions = (list(dict.fromkeys(differences[one])) for one in ("name", "precision"))
    height = 1.3 + 0.26 * len(names) * max(1, len(precisions))
    fig, axes = panels(2, 7.6, height, sharey=True)
    for ax, half, values in zip(axes, (points, DENSITY_MARGIN), _PANELS, strict=True):
        ax.axvspan(-half, half, color="#e6e6e6", linewidth=0, gid="margin")
        ax.axvline(0, **DASHED)
        ax.grid(False)
        for place, (precision, own) in enumerate(differences.groupby("precision", sort=False)):
            at = own["name"].map(names.index) + 0.3 * (place - (len(precisions) - 1) / 2)
            look = _LOOKS.get(str(precision), look_of("dense"))
            forest(ax, own, at, values, look, str(precision))
    rows_axis(axes, names, names.index(TOGETHER) - 0.5 if TOGETHER in names else None)
    axes[0].set_xlabel(f"test accuracy less {BASE}'s (points)")
    axes[1].set_xlabel(f"weights kept beyond {BASE}'s (%)")
    if len(precisions) > 1:
        known = {one: _LOOKS.get(one, look_of("dense")).handle for one in precisions}
        key(fig, known, 2)
    lead = f"Differences to {BASE} in points of accuracy"
    form = "{name} in {precision} {difference:+.2f}"
    return labelled(fig, described_rows(lead, differences, form))
