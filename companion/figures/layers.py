"""Where methods keep their weights: density by layer, and overlap of masks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.analysis.points import ticket_table
from companion.analysis.words import described_rows
from companion.figures.charts import labelled, panels
from companion.figures.style import BLUES, styled
from lthlib.errors import ConfigError

_TOLERANCE = 0.25


def layer_table(records: Iterable[Mapping[str, Any]], density: float) -> pd.DataFrame:
    """Return each curve's mean density by layer, at its point nearest to a density.

    Args:
        records: valid records.
        density: a kept fraction; curves without a point within 25 % of it are left out, and so are
            variants that keep just what another curve keeps (they differ in training alone).

    Returns:
        Columns curve, n (seeds), density (of the whole network), layer, weights, kept (fraction),
        layers in the network's order.

    Raises:
        ConfigError: no curve comes near.
    """
    kept = list(records)
    table = ticket_table(kept)
    table = table[(table["status"] == "ok") & (table["curve"] != "dense")]
    curves = list(dict.fromkeys(table["curve"]))
    found: dict[str, pd.DataFrame] = {}
    for curve in sorted(curves, key=lambda name: "," in name):
        rows = table[table["curve"] == curve]
        means = rows.groupby("point")["density"].mean()
        distance = np.log(means / density).abs()
        if distance.min() > math.log1p(_TOLERANCE):
            continue
        near = rows.index[rows["point"] == distance.idxmin()]
        own = _mean_layers([kept[row]["layers"] for row in near])
        original = found.get(curve.partition(",")[0])
        if original is None or not np.array_equal(own["kept"], original["kept"]):
            whole = float(means[distance.idxmin()])
            found[curve] = own.assign(curve=curve, n=len(near), density=whole)
    if not found:
        raise ConfigError(f"no curve has tickets within 25 % of density {density}")
    return pd.concat(found.values(), ignore_index=True)[
        ["curve", "n", "density", "layer", "weights", "kept"]
    ]


def _mean_layers(layers: Sequence[Mapping[str, Sequence[int]]]) -> pd.DataFrame:
    fractions = pd.DataFrame([{name: k / n for name, (k, n) in one.items()} for one in layers])
    return pd.DataFrame(
        {
            "layer": list(layers[0]),
            "weights": [total for _, total in layers[0].values()],
            "kept": fractions.mean().to_numpy(),
        }
    )


@styled()
def layer_densities(table: pd.DataFrame) -> Figure:
    """Draw the kept fraction of every layer, a row a layer and a column a method, in percent.

    Colours follow the logarithm of the fraction. Layers come in the network's order from the top,
    each with its number of weights.

    Args:
        table: from `layer_table`.
    """
    layers, names = (list(dict.fromkeys(table[one])) for one in ("layer", "curve"))
    percent = 100 * table.pivot(index="layer", columns="curve", values="kept").loc[layers, names]
    weights = table.drop_duplicates("layer")
    sizes = weights["weights"].map("  ({:,})".format)
    percent.index = pd.Index(weights["layer"].str.removesuffix(".weight") + sizes)
    texts = percent.map(lambda value: f"{value:.0f}" if value >= 9.95 else f"{value:.1f}")
    fig, (ax,) = panels(1, 2.2 + 0.72 * len(names), 0.9 + 0.27 * len(layers))
    shades = percent.clip(lower=0.3).map(math.log10)
    _cells(ax, shades, texts.where(percent.notna(), "–"), math.log10(0.3), 2)
    rows = table.sort_values("kept", kind="stable").groupby("curve", sort=False)["layer"]
    ends = rows.agg(["first", "last"]).loc[names].reset_index()
    form = "{curve} keeps least of {first} and most of {last}"
    return labelled(fig, described_rows("Share of weights kept by layer", ends, form))


@styled()
def mask_overlap(overlap: pd.DataFrame, chance: pd.DataFrame) -> Figure:
    """Draw the overlap of masks: intersection over union of the kept weights, 0 to 1.

    The diagonal compares seeds of one method, the rest compares methods at one seed. Below each
    value, in brackets, stands what random masks with the same density in every layer would share.

    Args:
        overlap, chance: square, equal index and columns; NaN where there is nothing to compare.
    """
    side = 0.82 * len(overlap)
    fig, (ax,) = panels(1, 1.6 + side, 0.9 + 0.75 * side)
    texts = overlap.map("{:.2f}".format) + chance.map("\n({:.2f})".format)
    _cells(ax, overlap, texts.where(overlap.notna(), "–"), 0, 1)
    names = overlap.index
    pairs = pd.DataFrame(
        [(one, other, overlap.loc[one, other]) for one in names for other in names],
        columns=["one", "other", "overlap"],
    ).dropna()
    form = "{one} and {other}: {overlap:.2f}"
    return labelled(fig, described_rows("Overlap of masks", pairs, form))


def _cells(ax: Axes, shades: pd.DataFrame, texts: pd.DataFrame, least: float, most: float) -> None:
    given: dict[str, Any] = {"annot": texts, "fmt": "", "annot_kws": {"fontsize": 9}}
    given |= {"cmap": BLUES.with_extremes(under="white"), "vmin": least, "vmax": most}
    sns.heatmap(shades.fillna(least - 1), ax=ax, cbar=False, **given)
    ax.set_xticks(ax.get_xticks(), ["\n".join(textwrap.wrap(one, 10)) for one in shades.columns])
    ax.xaxis.tick_top()
    ax.set(xlabel="", ylabel="")
    ax.tick_params(length=0, rotation=0)
