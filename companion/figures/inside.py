"""Masks of one layer as pictures: how a search comes to them, and whether two agree."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from companion.figures.charts import grid, labelled, single
from companion.figures.style import BLUES, FAINT, look_of, styled

Pictures = Mapping[str, Sequence[tuple[str, Any]]]  # row -> (caption, [h, w])
# Codes of `compared`: in neither mask, in both, in the second alone, in the first alone.
_COLOURS = ("white", "#4a5568", look_of("BiP").colour, look_of("CS").colour)


def tiled(layer: Any) -> Any:
    """Return a layer's weights as one picture, a tile for each kernel.

    Args:
        layer: [out, in, h, w], or [out, in] of a linear layer.

    Returns:
        [out h, in w], in float64.
    """
    outs, ins, *kernel = layer.shape
    high, wide = kernel or (1, 1)
    tiles = np.asarray(layer, float).reshape(outs, ins, high, wide)
    return tiles.transpose(0, 2, 1, 3).reshape(outs * high, ins * wide)


def compared(first: Any, second: Any) -> Any:
    """Return two masks as one picture of codes.

    Args:
        first: a mask, [h, w].
        second: another of the same shape.

    Returns:
        Codes [h, w], 0 in neither, 1 in both, 2 in the second alone, 3 in the first alone.
    """
    ours, theirs = np.asarray(first, bool), np.asarray(second, bool)
    return np.select([ours & theirs, theirs, ours], [1, 2, 3], 0)


@styled
def pictures(rows: Pictures, words: str, meaning: Sequence[str] = ()) -> Figure:
    """Draw pictures of one layer, a row each of `rows`.

    Args:
        rows: title of the row -> (caption, picture): shares from 0 to 1, dark for 1, or codes of
            `compared`.
        words: what is shown, for those who cannot see it.
        meaning: of the codes 1 to 3, where there are any.
    """
    columns = max(map(len, rows.values()))
    panels = [(row, column) for row in rows for column in range(columns)]
    table = pd.DataFrame(panels, columns=["row", "column"])
    size = 1.75 * columns, 0.4 + 1.95 * len(rows)
    fig, axes = grid(table, *size, lambda _: "", row="row", col="column", despine=False)
    colours: dict[str, Any] = {"cmap": BLUES, "vmin": 0, "vmax": 1}
    codes: dict[str, Any] = {"cmap": ListedColormap(_COLOURS), "vmin": 0, "vmax": 3}
    for (row, column), ax in axes.items():
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        if column >= len(rows[row]):
            ax.set_axis_off()
            continue
        caption, picture = rows[row][column]
        scale = codes if picture.dtype.kind == "i" else colours
        ax.imshow(picture, interpolation="nearest", **scale)
        ax.set_title(caption, fontsize=9)
        for edge in ax.spines.values():
            edge.set(visible=True, color=FAINT, linewidth=0.5)
        if column == 0:
            ax.set_ylabel(row)
    if meaning:
        pairs = zip(meaning, _COLOURS[1:], strict=True)
        handles = [Patch(facecolor=colour, label=name) for name, colour in pairs]
        fig.legend(handles=handles, loc="outside upper left", ncols=3)
    captions = [
        f"{row}, {caption}".replace("\n", " ")
        for row, pictures_of_row in rows.items()
        for caption, _ in pictures_of_row
    ]
    return labelled(fig, f"{words}: {'; '.join(captions)}.")


@styled
def sigmoid_figure(temperatures: Sequence[float]) -> Figure:
    """Draw the soft mask of CS against its gate, a curve a temperature: a step in the limit."""
    gates = np.linspace(-1, 1, 401)
    fig, ax = single(4.6, 2.6)
    shades = BLUES(np.linspace(0.35, 1, len(temperatures)))
    for beta, shade in zip(temperatures, shades, strict=True):
        ax.plot(gates, 1 / (1 + np.exp(-beta * gates)), color=shade, label=f"β = {beta:g}")
    ax.set(xlabel="gate s", ylabel="soft mask σ(βs)")
    ax.legend(loc="upper left")
    return labelled(fig, "The sigmoid of CS's gates, ever steeper as its temperature rises.")
