"""Where methods keep their weights: density by layer, and overlap of masks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from companion.figures.points import ticket_table
from companion.figures.style import INK, panels, styled
from lthlib.errors import ConfigError

BLUES = LinearSegmentedColormap.from_list("ink", ["#f4f7fb", "#9ecae1", "#3182bd", "#08306b"])
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


def layer_densities(table: pd.DataFrame) -> Figure:
    """Draw the kept fraction of every layer, a row a layer and a column a method, in percent.

    Colours follow the logarithm of the fraction. Layers come in the network's order from the top,
    each with its number of weights.

    Args:
        table: from `layer_table`.
    """
    values = table.pivot(index="layer", columns="curve", values="kept")
    values = values.loc[list(dict.fromkeys(table["layer"])), list(dict.fromkeys(table["curve"]))]
    weights = table.drop_duplicates("layer").set_index("layer")["weights"]
    sizes = [f"{name.removesuffix('.weight')}  ({weights[name]:,})" for name in values.index]
    with styled():
        height = 0.9 + 0.27 * len(values)
        fig, (ax,) = panels(1, 1, 2.2 + 0.72 * len(values.columns), height)
        percent = 100 * values.to_numpy(float)
        shades = np.log10(np.maximum(percent, 0.3))
        ax.imshow(shades, cmap=BLUES, vmin=np.log10(0.3), vmax=2, aspect="auto")
        texts = [[_digits(value) for value in row] for row in percent]
        _cells(ax, texts, shades > 1.1)
        ax.set_yticks(range(len(values)), sizes)
        _columns(ax, list(values.columns))
    return fig


def describe_layers(table: pd.DataFrame) -> str:
    """Say in words what `layer_densities` shows, from the table of `layer_table`."""
    parts = []
    for curve, rows in table.groupby("curve", sort=False):
        in_order = rows.sort_values("kept", kind="stable")["layer"].tolist()
        parts.append(f"{curve} keeps least of {in_order[0]} and most of {in_order[-1]}")
    return f"Share of weights kept by layer: {'; '.join(parts)}."


def mask_overlap(overlap: pd.DataFrame, chance: pd.DataFrame) -> Figure:
    """Draw the overlap of masks: intersection over union of the kept weights, 0 to 1.

    The diagonal compares seeds of one method, the rest compares methods at one seed. Below each
    value, in brackets, stands what random masks with the same density in every layer would share.

    Args:
        overlap, chance: square, equal index and columns; NaN where there is nothing to compare.
    """
    names = [str(name) for name in overlap.index]
    values, expected = overlap.to_numpy(float), chance.to_numpy(float)
    with styled():
        side = 0.82 * len(names)
        fig, (ax,) = panels(1, 1, 1.6 + side, 0.9 + 0.75 * side)
        ax.imshow(values, cmap=BLUES, vmin=0, vmax=1, aspect="auto")
        pairs = zip(values, expected, strict=True)
        texts = [[_overlap(*pair) for pair in zip(*rows, strict=True)] for rows in pairs]
        _cells(ax, texts, values > 0.55)
        ax.set_yticks(range(len(names)), names)
        _columns(ax, names)
    return fig


def _cells(ax: Axes, texts: list[list[str]], dark: Any) -> None:
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            colour = "white" if dark[row][column] else INK
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def _columns(ax: Axes, names: Sequence[str]) -> None:
    wrapped = ["\n".join(textwrap.wrap(name, 10)) for name in names]
    ax.set_xticks(range(len(names)), wrapped)
    ax.xaxis.tick_top()


def _digits(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def _overlap(value: float, expected: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}\n({expected:.2f})"
