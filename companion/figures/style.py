"""One look for all figures: safe for colour-blind readers, round ticks, labels at the data.

What is the same everywhere is in `book.mplstyle`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from scipy.optimize import isotonic_regression

from companion.analysis.words import short

_STYLE = rc_params_from_file(Path(__file__).with_name("book.mplstyle"), use_default_template=False)
INK, FAINT = _STYLE["text.color"], _STYLE["axes.edgecolor"]
styled = rc_context(_STYLE)  # decorates what draws in the style of this book
DASHED: Any = {"color": INK, "linewidth": 1, "linestyle": (0, (4, 3))}  # a level to compare with
BLUES = LinearSegmentedColormap.from_list("ink", ["#f4f7fb", "#9ecae1", "#3182bd", "#08306b"])
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
_SPARE_COLOURS = ("#44AA99", "#661100", "#DDCC77", "#117733", "#888800")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
VARIANTS = tuple(zip(_DASHES, ("full", "none", "left", "top"), strict=True))
_SMALLEST = 1e-9


@dataclass(frozen=True)
class Look:
    """How a curve is drawn.

    Attributes:
        colour: of line and marker.
        marker: as of matplotlib's lines, like all below.
        dash: the style of the line.
        fill: of the marker; `none` is white inside.
    """

    colour: str
    marker: str
    dash: Any = "-"
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


def looks(names: Iterable[str]) -> dict[Any, Look]:
    """Return each curve's look: colour and marker by method, dash and fill by variant.

    The method is what stands before the first comma: `OMP, compute-matched` has OMP's colour.

    Args:
        names: of curves; one may come again. Methods that have no colour here get a spare one.
    """
    curves = list(dict.fromkeys(names))
    families = [curve.partition(",")[0] for curve in curves]
    unknown = sorted(set(families) - _LOOKS.keys())
    spare = {name: (_SPARE_COLOURS[n % len(_SPARE_COLOURS)], "P") for n, name in enumerate(unknown)}
    by_curve = {}
    for curve, family in zip(curves, families, strict=True):
        variants = ["", *sorted({name for name in curves if name.startswith(f"{family},")})]
        number = variants.index(curve) if curve in variants else 0
        by_curve[curve] = Look(*(_LOOKS | spare)[family], *VARIANTS[number % len(VARIANTS)])
    return by_curve


def look_of(curve: str, **changes: Any) -> Look:
    """Return the look of one curve by itself, with some fields changed."""
    return replace(looks([curve])[curve], **changes)


@dataclass(frozen=True)
class Scale:
    """How numbers lie along an axis.

    Attributes:
        stretch: from numbers to where they lie.
        shrink: back.
        rounds: the numbers to mark, in groups, of which a later one is used where the earlier leave
            few.
        text: how a number is written.
    """

    stretch: Callable[[Any], Any]
    shrink: Callable[[Any], Any]
    rounds: Sequence[Sequence[float]]
    text: Callable[[float], str] = "{:g}".format


def _log(values: Any) -> Any:
    return np.log10(np.maximum(values, _SMALLEST))


def _power(values: Any) -> Any:
    return 10.0 ** np.asarray(values)


_ONES, _HALVES, _FIFTHS = ([digit * 10.0**power for power in range(-9, 19)] for digit in (1, 5, 2))
_DECADES = [_ONES, _HALVES + _FIFTHS]
_SIGNED = [0, -1, 1, -10, 10, -100, 100, -3, 3, -30, 30]
SCALES = {
    "log": Scale(_log, _power, _DECADES),
    "cost": Scale(_log, _power, _DECADES, short),
    # Percentages by the logarithm of what is missing from 100: near it differences show, and so
    # does collapse.
    "error": Scale(
        lambda values: -_log(np.maximum(100 - np.asarray(values, float), 0.1)),
        lambda values: np.minimum(100 - _power(-np.asarray(values, float)), 99.9),
        [[90, 50, 99, 0, 80, 95, 98, 99.8, 99.5, 20, 70]],
    ),
    # Differences of either sign: linear up to a third, logarithmic beyond.
    "points": Scale(
        lambda values: np.arcsinh(3 * values),
        lambda values: np.sinh(values) / 3,
        [_SIGNED],
        lambda value: f"{value:+g}" if value else "0",
    ),
}


def scaled(ax: Axes, which: str, kind: str, values: Iterable[float], falling: bool = False) -> None:
    """Scale an axis so that all values are seen, and mark it at round numbers that stand clear.

    Scale an axis after drawing: seaborn averages what it has scaled.

    Args:
        ax: the panel, or one of those that share the axis.
        which: `x` or `y`.
        kind: one of `SCALES`.
        values: all that are to be seen; without one the axis stays as it is.
        falling: whether numbers fall from left to right.
    """
    scale, axis = SCALES[kind], getattr(ax, f"{which}axis")
    numbers = np.array([*values], float)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return
    ends = scale.stretch(np.array([numbers.min(), numbers.max()]))
    margin = max(0.05 * (ends[1] - ends[0]), 0.02)
    low, high = scale.shrink(ends + np.array([-margin, margin])).tolist()
    getattr(ax, f"set_{which}scale")("function", functions=(scale.stretch, scale.shrink))
    getattr(ax, f"set_{which}lim")(*((high, low) if falling else (low, high)))
    box = ax.get_window_extent()
    room = (box.width / 24 if which == "x" else box.height / 14) / ax.figure.dpi * 72
    axis.set_major_locator(FixedLocator(_round_numbers(scale, low, high, 1 / room)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: scale.text(value)))


def _round_numbers(scale: Scale, low: float, high: float, gap: float) -> list[float]:
    """The roundest numbers that stand a gap apart; where these are few, numbers evenly spaced."""
    start, end = scale.stretch(np.array([low, high]))
    shares: dict[float, float] = {}  # number -> where it lies between the ends, 0 to 1
    for group in scale.rounds:
        for value in group if len(shares) < 5 else ():
            share = float((scale.stretch(value) - start) / (end - start))
            if 0 <= share <= 1 and all(abs(share - taken) > gap for taken in shares.values()):
                shares[value] = share
    if len(shares) > 2:
        return sorted(shares)
    even = MaxNLocator(max(2, min(7, int(1 / gap))), steps=(1, 2, 5, 10)).tick_values(low, high)
    return [float(value) for value in even if low <= value <= high]


def label_ends(ax: Axes, ends: Iterable[tuple[str, float, float, str]]) -> None:
    """Write labels right of the axes, each level with its curve's end and clear of the others.

    Args:
        ax: the panel, scaled.
        ends: (text, x, y, colour) of each curve's last point, in data coordinates; x is NaN of a
            line that runs through.
    """
    ax.figure.canvas.draw()
    to_axes = ax.transData + ax.transAxes.inverted()
    gap = 12.5 / (ax.get_window_extent().height / ax.figure.dpi * 72)
    placed = []
    for text, x, y, colour in ends:
        at = to_axes.transform((ax.get_xlim()[1] if np.isnan(x) else x, y))
        placed.append((np.clip(at, 0, 1).tolist(), text, colour))
    placed.sort(key=lambda end: end[0][1])
    levels = spread([at[1] for at, _, _ in placed], gap)
    beside: Any = {"xycoords": "axes fraction", "annotation_clip": False, "va": "center"}
    for (at, text, colour), level in zip(placed, levels, strict=True):
        line = {"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.5, "shrinkA": 1}
        dark = 0.55 * np.array(to_rgb(colour)) + 0.45 * np.array(to_rgb(INK))  # text is thinner
        ax.annotate(text, at, (1.03, level), color=dark, arrowprops=line, **beside)


def spread(levels: Sequence[float], gap: float) -> list[float]:
    """Move rising levels as little as needed, in squares, for each to lie `gap` above the last."""
    if not levels:
        return []
    steps = gap * np.arange(len(levels))
    moved: list[float] = (isotonic_regression(levels - steps).x + steps).tolist()
    return moved
