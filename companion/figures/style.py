"""One look for all figures: safe for colour-blind readers, white paper, labels at the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    NullFormatter,
    NullLocator,
)
from scipy.optimize import isotonic_regression

from companion.evidence.statistics import mean_interval

INK, FAINT = "#262626", "#8c8c8c"
DASHED: Any = {"color": INK, "linewidth": 1, "linestyle": (0, (4, 3))}  # a level to compare with
# Colours that differ for every kind of colour vision (Okabe and Ito), each with its marker.
_LOOKS = {
    "dense": (INK, "o"),
    "IMP": ("#0072B2", "o"),
    "IMP-C": ("#56B4E9", "o"),
    "CS": ("#D55E00", "s"),
    "BiP": ("#009E73", "D"),
    "Hydra": ("#7A5C00", "p"),
    "OMP": ("#AA4499", "^"),
    "l0": ("#E69F00", "<"),
    "ISS": ("#882255", ">"),
    "GMP": ("#332288", "P"),
    "GraSP": ("#CC6677", "X"),
    "SNIP": ("#999933", "h"),
    "SynFlow": ("#6699CC", "d"),
    "random": (FAINT, "v"),
}
_OTHERS = ("#44AA99", "#661100", "#DDCC77", "#117733", "#888800")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
FILLS = ("full", "none", "left", "top")
_ACCURACIES = (10, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.8)
DENSITIES = (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1)
_RATIOS = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)
_LOW_RATIOS = (0, 20, 40, 60, 70, 80, 90)
_SMALLEST_ERROR = 0.1

BLUES = LinearSegmentedColormap.from_list("ink", ["#f4f7fb", "#9ecae1", "#3182bd", "#08306b"])

_BESIDE: Any = {
    **{"xycoords": "axes fraction", "textcoords": "axes fraction", "annotation_clip": False},
    **{"va": "center", "ha": "left", "fontsize": 10},
}

STYLE: Any = {
    "text.parse_math": False,  # a label is text, whatever it holds
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Look:
    """How a curve is drawn."""

    colour: str
    marker: str
    dash: Any = "-"  # as of matplotlib's lines
    fill: str = "full"

    @property
    def line(self) -> dict[str, Any]:
        """What matplotlib and seaborn are told to draw a line so."""
        hollow = self.fill == "none"
        inside = "white" if hollow else self.colour
        marker = {"marker": self.marker, "fillstyle": "full" if hollow else self.fill}
        face = {"markerfacecolor": inside, "markerfacecoloralt": "white"}
        edge = {"markeredgecolor": self.colour, "markeredgewidth": 1}
        return {"color": self.colour, "linestyle": self.dash, **marker, **face, **edge}

    @property
    def mark(self) -> dict[str, Any]:
        """The same without the line."""
        return {**self.line, "linestyle": ""}

    @property
    def handle(self) -> Line2D:
        """A mark for a key."""
        return Line2D([], [], markersize=5, **self.mark)


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Return each curve's look: colour and marker by method, dash and fill by variant.

    The method is what stands before the first comma: `OMP, compute-matched` has OMP's colour.
    """
    curves = list(dict.fromkeys(names))
    families = [curve.partition(",")[0] for curve in curves]
    unknown = sorted(set(families) - _LOOKS.keys())
    spare = {name: (_OTHERS[n % len(_OTHERS)], "P") for n, name in enumerate(unknown)}
    found = {}
    for curve, family in zip(curves, families, strict=True):
        variants = sorted({one for one in curves if one.startswith(f"{family},")})
        place = 1 + variants.index(curve) if curve in variants else 0
        place %= len(DASHES)
        found[curve] = Look(*(_LOOKS | spare)[family], DASHES[place], FILLS[place])
    return found


def look_of(curve: str, **other: Any) -> Look:
    """Return the look of one curve by itself, with something else in its place."""
    return replace(looks([curve])[curve], **other)


def on_top(curve: str) -> float:
    """Return the height to draw a curve at where curves coincide: BiP on top, then IMP."""
    return {"BiP": 2.6, "IMP": 2.5}.get(curve, 2.0)


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of this book."""
    with rc_context(STYLE):
        yield


def _stretch(values: np.ndarray) -> np.ndarray:
    return -np.log10(np.maximum(100 - np.asarray(values, float), _SMALLEST_ERROR))


def _shrink(values: np.ndarray) -> np.ndarray:
    return 100 - 10 ** -np.asarray(values, float)


def ticks(axis: Axis, places: Iterable[float], form: str = "g") -> None:
    """Mark an axis at these places and no other."""
    axis.set_major_locator(FixedLocator([*places]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:{form}}" if value else "0"))


def accuracy_axis(ax: Axes, values: pd.Series) -> None:
    """Scale y by the logarithm of the error: differences near dense and collapse both show.

    Args:
        ax: whose y data are percentages, drawn already.
        values: all that are to be seen.
    """
    ax.set_yscale("function", functions=(_stretch, _shrink))
    ends = _stretch(np.array([values.min(), values.max()]))
    margin = 0.06 * max(ends[1] - ends[0], 0.1)
    bottom, top = _shrink(ends + np.array([-margin, margin])).tolist()
    ax.set_ylim(max(bottom, 0.0), min(top, 100 - _SMALLEST_ERROR))
    bottom, top = ax.get_ylim()
    places: list[float] = [tick for tick in _ACCURACIES if bottom <= tick <= top]
    if len(places) < 3:
        whole: list[float] = [tick for tick in range(100) if bottom <= tick <= top]
        places = whole[:: 1 + len(whole) // 8]
    ticks(ax.yaxis, places)


def density_axis(ax: Axes, smallest: float) -> None:
    """Scale x by the logarithm of the kept weights in percent, dense on the left."""
    ax.set_xscale("log")
    ax.set_xlim(115, 0.87 * smallest)
    ticks(ax.xaxis, (one for one in DENSITIES if one >= 0.87 * smallest))


def kept_axis(ax: Axes, values: pd.Series) -> None:
    """Scale y by the logarithm of the kept weights in percent, from the least to the most."""
    ax.set_yscale("log")
    low, high = 0.85 * float(values.min()), 1.18 * float(values.max())
    ax.set_ylim(low, high)
    ticks(ax.yaxis, (one for one in DENSITIES if low <= one <= high))


def ratio_axis(ax: Axes, largest: float) -> None:
    """Scale x by the logarithm of what is kept and label it by what is pruned, in percent.

    Equal steps are equal shares of what is left: IMP's rounds stand evenly.

    Args:
        ax: whose x data are percentages pruned.
        largest: the highest percentage to show.
    """
    kept = 100 - max(largest, 10)
    ax.set_xscale("function", functions=(_stretch, _shrink))
    ax.set_xlim(100 - 100 * (kept / 100) ** -0.05, 100 - kept * (kept / 100) ** 0.05)
    places = _LOW_RATIOS if largest < 92 else (0, 20, *_RATIOS[1:]) if largest < 96 else _RATIOS
    ticks(ax.xaxis, (one for one in places if one <= ax.get_xlim()[1]))


def cost_axis(ax: Axes, which: str = "x") -> None:
    """Scale an axis by the logarithm, numbers with a prefix: 20 k, 50 k."""
    ax.set(**{f"{which}scale": "log"})
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(EngFormatter(sep="\N{NO-BREAK SPACE}"))


def in_powers(axis: Axis) -> None:
    """Write the powers of ten of a logarithmic axis as text, 10⁻², not as mathematics."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

    def written(value: float, _: int | None) -> str:
        return f"10{str(round(np.log10(value))).translate(raised)}"

    axis.set_major_formatter(FuncFormatter(written))
    axis.set_minor_formatter(NullFormatter())


def dense_level(ax: Axes, accuracies: pd.Series) -> None:
    """Draw the dense network's mean accuracy across the axes, with its 95 % t-interval from three
    seeds on. accuracies: percent, one a seed; nothing is drawn for none."""
    level = mean_interval(accuracies)
    if level.n:
        ax.axhline(level.mean, **DASHED, gid="dense")
    if level.n >= 3:
        ax.axhspan(level.low, level.high, color=INK, alpha=0.10, linewidth=0)


def label_ends(ax: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Write labels right of the axes, each level with its curve's end and clear of the others.

    ends: (text, x, y, colour) of each curve's last point, in data coordinates.
    """
    ax.figure.canvas.draw()
    to_axes = ax.transData + ax.transAxes.inverted()
    gap = 12.5 / (ax.get_window_extent().height / ax.figure.dpi * 72)
    placed = sorted(((*to_axes.transform(end[1:3]), *end) for end in ends), key=lambda one: one[1])
    levels = _apart([place[1] for place in placed], gap)
    for (x, y, text, *_, colour), level in zip(placed, levels, strict=True):
        line = {"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.5, "shrinkA": 1}
        ax.annotate(text, (x, y), (1.03, level), color=colour, arrowprops=line, **_BESIDE)


def _apart(levels: Sequence[float], gap: float) -> list[float]:
    """Move rising levels as little as needed, in squares, for each to lie `gap` above the last."""
    if not levels:
        return []
    steps = gap * np.arange(len(levels))
    moved: list[float] = (isotonic_regression(levels - steps).x + steps).tolist()
    return moved
