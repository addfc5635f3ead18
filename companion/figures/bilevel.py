"""BiP's Hessian-free hypergradient beside the exact one: errors, signs and angles against gamma."""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.analysis.words import described_panels
from companion.figures.charts import curves, grid, labelled
from companion.figures.style import FAINT, INK, VARIANTS, Look, scaled, styled

_KEYS = ["problem", "point", "size", "gamma"]
_ERRORS, _SIGNS = ["weight_error", "error"], ["weight_flips", "flips"]
_COSINES = ["cosine", "implicit_cosine"]
_VALUES = [*_COSINES, "direct_cosine", "error", "implicit_error", "weight_error", *_SIGNS]
_PANELS = {
    "Quadratics: relative error": _ERRORS,
    "Quadratics: wrong signs (%)": _SIGNS,
    "Quadratics: cosine": _COSINES,
    "Network: cosine": _COSINES,
}
_WHOLE = ("hypergradient", "#0072B2")
_NAMES = dict.fromkeys(("weight_error", "weight_flips"), ("dθ*/dm", INK))
_NAMES["implicit_cosine"] = ("implicit term", "#D55E00")
_POINTS = {"solved": "#D55E00", "start": "#0072B2", "trained": "#009E73"}
_THRESHOLD = 0.5  # of claim B4


def bilevel_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds, a row a problem, point, size and gamma.

    Args:
        table: from `measured.quadratic_table` and `measured.network_table`, one or both.

    Returns:
        Columns problem, point, size, gamma, n (seeds that have a minimum there), of (seeds),
        cosine, implicit_cosine, direct_cosine, error, implicit_error, and the shares of wrong signs
        flips and weight_flips; NaN where no seed has a minimum.
    """
    values = [name for name in _VALUES if name in table]
    groups = table.groupby(_KEYS, sort=False)
    counts = pd.DataFrame({"n": groups["definite"].sum(), "of": groups.size()})
    return counts.join(groups[values].mean()).reset_index()


def error_slopes(quadratic: pd.DataFrame) -> dict[int, float]:
    """Return the slope of log error against log gamma between the two largest gammas.

    Args:
        quadratic: from `measured.quadratic_table`.

    Returns:
        Number of weights -> slope; NaN where there is one gamma.
    """
    slopes = {}
    for size, points in _by_size(quadratic, "weight_error"):
        logs = np.log10(points[-2:])
        run, rise = (logs[-1] - logs[0]).tolist()
        slopes[size] = rise / run if run else math.nan
    return slopes


def flip_gamma(quadratic: pd.DataFrame) -> dict[int, float]:
    """Return the gamma below which most weights' derivatives have the wrong sign.

    Args:
        quadratic: from `measured.quadratic_table`.

    Returns:
        Number of weights -> gamma, between two of the table's interpolated in their logarithm; NaN
        where the share does not cross a half.
    """
    gammas = {}
    for size, points in _by_size(quadratic, "weight_flips"):
        crossings = [
            10 ** float(np.interp(0.5, (after, before), np.log10((high, low))))
            for (low, before), (high, after) in itertools.pairwise(points)
            if before > 0.5 >= after
        ]
        gammas[size] = crossings[0] if crossings else math.nan
    return gammas


def _by_size(quadratic: pd.DataFrame, column: str) -> Iterator[tuple[int, list[list[float]]]]:
    """Each number of weights with its rising gammas and the means of a column: pairs."""
    for size, rows in bilevel_means(quadratic).sort_values("gamma").groupby("size"):
        yield int(str(size)), rows[["gamma", column]].to_numpy(float).tolist()


@styled
def bilevel_figure(quadratic: pd.DataFrame, network: pd.DataFrame) -> Figure:
    """Draw four panels against gamma: on quadratics error, wrong signs and cosine; network cosine.

    A line stops where the lower level of some seed has no minimum to speak of.

    Args:
        quadratic: from `measured.quadratic_table`.
        network: from `measured.network_table`.
    """
    titles = pd.DataFrame({"panel": [*_PANELS]})
    fig, axes = grid(titles, 8.6, 6.4, col="panel", col_wrap=2, sharex=False, sharey=False)
    ends = {}
    for (title, ax), columns in zip(axes.items(), _PANELS.values(), strict=True):
        means = bilevel_means(network if title.startswith("Network") else quadratic)
        lines, line_looks = _panel_lines(means, columns)
        if columns is _ERRORS:
            _draw_slope(ax, means)
        style: Any = {"markersize": 3, "clip_on": False}
        ends[ax] = curves(ax, lines, "gamma", "value", line_looks, "line", **style)
        if columns is _COSINES:
            ax.axhline(0, color=FAINT, linewidth=0.8)
            ax.axhline(_THRESHOLD, color=FAINT, linewidth=1, linestyle=":", gid="asked")
        for gamma in () if columns is _COSINES else flip_gamma(quadratic).values():
            ax.axvline(gamma, color=FAINT, linewidth=1, linestyle=":", gid="flip")
        if columns is _ERRORS:
            scaled(ax, "y", "log", lines["value"])
        else:
            ax.set_ylim((-1.03, 1.03) if columns is _COSINES else (-3, 103))
        scaled(ax, "x", "log", means["gamma"])
        ax.set_xlabel("γ")
    return labelled(fig, _description(quadratic, network), ends=ends)


def _panel_lines(
    means: pd.DataFrame, columns: Iterable[str]
) -> tuple[pd.DataFrame, dict[str, Look]]:
    """The lines of a panel, with columns line, gamma and value, and how each is drawn."""
    lines, line_looks = [], {}
    sizes = list(dict.fromkeys(means["size"]))
    by_gamma = means.sort_values("gamma", kind="stable")
    for (problem, point, size), rows in by_gamma.groupby(["problem", "point", "size"], sort=False):
        for column in columns:
            name, colour = _NAMES.get(column, _WHOLE)
            dash = VARIANTS[sizes.index(size) % len(VARIANTS)][0]
            if problem == "network":
                name = str(point) if column == "cosine" else f"{point}, {name}"
                colour, dash = _POINTS[str(point)], VARIANTS[column != "cosine"][0]
            name += f", n = {size}" if len(sizes) > 1 else ""
            line_looks[name] = Look(colour, "o", dash)
            # A mean over those seeds alone that have a minimum would be one over the easy ones.
            sure = rows[column].where(rows["n"] == rows["of"])
            lines.append(rows.assign(line=name, value=sure * (100 if column in _SIGNS else 1)))
    return pd.concat(lines), line_looks


def _draw_slope(ax: Axes, means: pd.DataFrame) -> None:
    """A line of slope -1 through the mean error at the largest gamma."""
    gammas = np.sort(means["gamma"].unique())
    last = float(means.loc[means["gamma"] == gammas[-1], "weight_error"].mean())
    span = gammas[gammas >= gammas[-1] / 1e3]
    slope = 0.4 * last * gammas[-1] / span
    ax.plot(span, slope, color=FAINT, linewidth=1.2, linestyle="--", gid="slope")
    middle = span[len(span) // 2], slope[len(span) // 2]
    beside: Any = {"textcoords": "offset points", "ha": "right", "va": "center"}
    ax.annotate("slope −1", middle, (-6, -10), color=FAINT, **beside)


def _description(quadratic: pd.DataFrame, network: pd.DataFrame) -> str:
    slopes = ", ".join(f"{slope:.2f} (n = {n})" for n, slope in error_slopes(quadratic).items())
    flips = ", ".join(
        f"{'no gamma shown' if math.isnan(gamma) else f'{gamma:.2g}'} (n = {n})"
        for n, gamma in flip_gamma(quadratic).items()
    )
    means = bilevel_means(pd.concat([quadratic, network]))
    sizes = "quadratics, n = " + means["size"].astype(str)
    where = sizes.where(means["problem"] == "quadratic", "the network, " + means["point"])
    whole = means["cosine"].map("{:.2f}".format)
    pairs = whole + means["implicit_cosine"].map(" and {:.2f}".format)
    rows = means.assign(where=where, pair=pairs.where(means["n"] > 0, "no minimum"))
    lead = "Cosine of whole and implicit term"
    cosines = described_panels(lead, rows, "gamma {gamma:g} {pair}", "where", "{where}: ")
    return (
        "Four panels against gamma on a logarithmic scale. On quadratics the relative error of the "
        f"Hessian-free derivative of the weights ends with slope {slopes} in logarithms, and most "
        f"of its signs are wrong below gamma = {flips}. {cosines}"
    )
