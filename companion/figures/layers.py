"""Where methods keep their weights: density by layer, and overlap of masks."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.analysis.points import ticket_table
from companion.analysis.words import described_rows
from companion.figures.charts import cells, labelled
from companion.figures.style import styled
from lthlib.errors import ConfigError

_TOLERANCE = 0.25
_PALEST = 0.3  # percent


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
    records = list(records)
    table = ticket_table(records).assign(layers=[record["layers"] for record in records])
    table = table[(table["status"] == "ok") & (table["curve"] != "dense")]
    table["whole"] = table.groupby(["curve", "point"])["density"].transform("mean")
    table["away"] = np.log(table["whole"] / density).abs()
    near = table[table["away"] <= math.log1p(_TOLERANCE)]
    near = near[near["away"] == near.groupby("curve")["away"].transform("min")]
    by_curve: dict[str, pd.DataFrame] = {}
    # Methods come before their variants.
    for curve in sorted(dict.fromkeys(near["curve"]), key=lambda name: "," in name):
        rows = near[near["curve"] == curve]
        rows = rows[rows["point"] == rows["point"].iloc[0]]
        counts = np.array([[*layers.values()] for layers in rows["layers"]], float)
        shares = pd.DataFrame(
            {"curve": curve, "n": len(rows), "density": rows["whole"].iloc[0]}
            | {"layer": [*rows["layers"].iloc[0]], "weights": counts[0, :, 1].astype(int)}
            | {"kept": (counts[:, :, 0] / counts[:, :, 1]).mean(axis=0)}
        )
        method = by_curve.get(curve.partition(",")[0])
        if method is None or not np.array_equal(shares["kept"], method["kept"]):
            by_curve[curve] = shares
    if not by_curve:
        raise ConfigError(f"no curve has tickets within 25 % of density {density}")
    return pd.concat(by_curve.values(), ignore_index=True)


@styled
def layer_densities(table: pd.DataFrame) -> Figure:
    """Draw the kept fraction of every layer, a row a layer and a column a method, in percent.

    Colours follow the logarithm of the fraction. Layers come in the network's order from the top,
    each with its number of weights.

    Args:
        table: from `layer_table`.
    """
    names = list(dict.fromkeys(table["curve"]))
    weights = table.drop_duplicates("layer").set_index("layer")["weights"]
    shares = table.pivot(index="layer", columns="curve", values="kept")
    percent = 100 * shares.loc[weights.index, names]
    percent.index = [f"{str(name).removesuffix('.weight')}  ({n:,})" for name, n in weights.items()]
    texts = percent.map(lambda value: f"{value:.0f}" if value >= 9.95 else f"{value:.1f}")
    ends = math.log10(_PALEST), math.log10(100)
    shades = percent.clip(lower=_PALEST).map(math.log10, na_action="ignore")
    fig = cells(shades, texts, ends, 2.2 + 0.72 * len(names), 0.9 + 0.27 * len(percent))
    rows = table.sort_values("kept", kind="stable").groupby("curve", sort=False)["layer"]
    extremes = rows.agg(["first", "last"]).loc[names].reset_index()
    form = "{curve} keeps least of {first} and most of {last}"
    return labelled(fig, described_rows("Share of weights kept by layer", extremes, form))


@styled
def mask_overlap(overlap: pd.DataFrame, chance: pd.DataFrame) -> Figure:
    """Draw the overlap of masks: intersection over union of the kept weights, 0 to 1.

    The diagonal compares seeds of one method, the rest compares methods at one seed. Below each
    value, in brackets, stands what random masks with the same density in every layer would share.

    Args:
        overlap: square, by curve; NaN where there is nothing to compare.
        chance: of the same shape.
    """
    side = 0.82 * len(overlap)
    texts = overlap.map("{:.2f}".format) + chance.map("\n({:.2f})".format)
    fig = cells(overlap, texts, (0, 1), 1.6 + side, 0.9 + 0.75 * side)
    stacked = overlap.rename_axis(index="row", columns="column").stack()
    pairs = pd.DataFrame({"overlap": stacked}).dropna().reset_index()
    form = "{row} and {column}: {overlap:.2f}"
    return labelled(fig, described_rows("Overlap of masks", pairs, form))
