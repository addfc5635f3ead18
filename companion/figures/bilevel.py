"""BiP's Hessian-free hypergradient beside the exact one: errors, signs and angles against gamma."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from companion.figures.style import FAINT, INK, label_ends, styled

_KEYS = ["problem", "point", "size", "gamma"]
_MEANS = ["cosine", "implicit_cosine", "direct_cosine", "error", "implicit_error"]
_ERRORS = {"weight_error": ("dθ*/dm", INK), "error": ("hypergradient", "#0072B2")}
_SIGNS = {"weight_flips": ("dθ*/dm", INK), "flips": ("hypergradient", "#0072B2")}
_COSINES = {"cosine": ("hypergradient", "-"), "implicit_cosine": ("implicit term", (0, (4, 2)))}
_POINTS = {"start": "#0072B2", "trained": "#009E73", "solved": "#D55E00"}
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_ASKED = 0.5  # by claim B4


def bilevel_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds, a row a problem, point, size and gamma.

    Args:
        table: from `facts.quadratic_table` and `facts.network_table`, one or both.

    Returns:
        Columns problem, point, size, gamma, n (seeds that have a minimum there), of (seeds),
        cosine, implicit_cosine, direct_cosine, error, implicit_error, and the shares of wrong signs
        flips and weight_flips; NaN where no seed has a minimum.
    """
    values = [name for name in (*_MEANS, "weight_error", "weight_flips", "flips") if name in table]
    groups = table.groupby(_KEYS, sort=False)
    counts = pd.DataFrame({"n": groups["definite"].sum(), "of": groups.size()})
    return counts.join(groups[values].mean()).reset_index()


def error_slopes(quadratic: pd.DataFrame) -> dict[int, float]:
    """Return the slope of log error against log gamma between the two largest gammas, by size."""
    means, found = bilevel_means(quadratic), {}
    for size, rows in means.groupby("size"):
        last = rows.sort_values("gamma").tail(2)
        ends = np.log10(last[["gamma", "weight_error"]].to_numpy(float))
        found[int(str(size))] = float((ends[1, 1] - ends[0, 1]) / (ends[1, 0] - ends[0, 0]))
    return found


def flip_gamma(quadratic: pd.DataFrame) -> dict[int, float]:
    """Return the gamma below which most weights' derivatives have the wrong sign, by size.

    Between two gammas it is interpolated in their logarithm; NaN where the share does not cross a
    half.
    """
    means, found = bilevel_means(quadratic), {}
    for size, rows in means.groupby("size"):
        points = rows.sort_values("gamma")[["gamma", "weight_flips"]].to_numpy(float)
        crossings = [
            10 ** np.interp(0.5, (after, before), np.log10((high, low)))
            for (low, before), (high, after) in itertools.pairwise(points)
            if before > 0.5 >= after
        ]
        found[int(str(size))] = float(crossings[0]) if crossings else math.nan
    return found


def bilevel_figure(quadratic: pd.DataFrame, network: pd.DataFrame) -> Figure:
    """Draw four panels against gamma: on quadratics error, wrong signs and cosine; network cosine.

    A line stops where the lower level of some seed has no minimum to speak of.

    Args:
        quadratic: from `facts.quadratic_table`.
        network: from `facts.network_table`.
    """
    with styled():
        fig, grid = plt.subplots(2, 2, figsize=(8.6, 6.4), layout="constrained")
        errors, signs, left, right = (ax for ax in grid.flat)
        means = bilevel_means(quadratic)
        _by_size(errors, means, _ERRORS, 1)
        _guide(errors, means)
        errors.set(title="Quadratics: relative error", yscale="log")
        _by_size(signs, means, _SIGNS, 100)
        signs.set(title="Quadratics: wrong signs (%)", ylim=(-3, 103))
        for one, gamma in flip_gamma(quadratic).items():
            for ax in (errors, signs):
                if not math.isnan(gamma):
                    ax.axvline(gamma, color=FAINT, linewidth=1, linestyle=":", gid=f"flip {one}")
        _cosines(left, means, {"solved": INK})
        left.set_title("Quadratics: cosine")
        _cosines(right, bilevel_means(network), _POINTS)
        right.set_title("Network: cosine")
        legend = [Line2D([], [], color=INK, linestyle=dash) for _, dash in _COSINES.values()]
        right.legend(legend, [name for name, _ in _COSINES.values()], loc="lower right")
    return fig


def describe_bilevel(quadratic: pd.DataFrame, network: pd.DataFrame) -> str:
    """Say in words what `bilevel_figure` shows."""
    slopes = ", ".join(f"{slope:.2f} (n = {n})" for n, slope in error_slopes(quadratic).items())
    flips = ", ".join(
        f"{gamma:.2g} (n = {n})" if not math.isnan(gamma) else f"no gamma shown (n = {n})"
        for n, gamma in flip_gamma(quadratic).items()
    )
    parts = [
        "Four panels against gamma on a logarithmic scale. On quadratics the relative error of the "
        f"Hessian-free derivative of the weights ends with slope {slopes} in logarithms, and most "
        f"of its signs are wrong below gamma = {flips}"
    ]
    for title, table in (("quadratics", quadratic), ("the network", network)):
        for (point, size), rows in bilevel_means(table).groupby(["point", "size"], sort=False):
            where = f"n = {size}" if title == "quadratics" else point
            cosines = "; ".join(_cosine_in_words(row) for row in rows.to_dict("records"))
            parts.append(f"Cosine of whole and implicit term on {title}, {where}: {cosines}")
    return ". ".join(parts) + "."


def _cosine_in_words(row: dict[Any, Any]) -> str:
    if not row["n"]:
        return f"gamma {row['gamma']:g} no minimum"
    return f"gamma {row['gamma']:g} {row['cosine']:.2f} and {row['implicit_cosine']:.2f}"


def _by_size(
    ax: Axes, means: pd.DataFrame, columns: dict[str, tuple[str, str]], unit: float
) -> None:
    ends = []
    several = means["size"].nunique() > 1
    for (size, rows), dash in zip(
        means.groupby("size", sort=False), itertools.cycle(_DASHES), strict=False
    ):
        rows = rows.sort_values("gamma")
        for column, (name, colour) in columns.items():
            level = unit * rows[column]
            ax.plot(
                rows["gamma"], level, color=colour, linestyle=dash, marker="o", markersize=3,
                gid=column,
            )  # fmt: skip
            text = f"{name}, n = {size}" if several else name
            ends.append((text, float(rows["gamma"].iloc[-1]), float(level.iloc[-1]), colour))
    _gamma_axis(ax)
    label_ends(ax, ends)


def _guide(ax: Axes, means: pd.DataFrame) -> None:
    """A line of slope -1 through the mean error at the largest gamma."""
    gammas = np.sort(means["gamma"].unique())
    last = float(means.loc[means["gamma"] == gammas[-1], "weight_error"].mean())
    span = gammas[gammas >= gammas[-1] / 1e3]
    ax.plot(
        span, 0.4 * last * gammas[-1] / span, color=FAINT, linewidth=1.2, linestyle="--",
        gid="slope",
    )  # fmt: skip
    middle = len(span) // 2
    at = (span[middle], 0.4 * last * gammas[-1] / span[middle])
    ax.annotate(
        "slope −1", at, (-6, -10), textcoords="offset points", color=FAINT, ha="right", va="center"
    )


def _cosines(ax: Axes, means: pd.DataFrame, colours: dict[str, str]) -> None:
    """Solid lines of the whole, dashed ones of the implicit term, which bear the labels."""
    ends = []
    several = means["size"].nunique() > 1
    ax.axhline(0, color=FAINT, linewidth=0.8)
    ax.axhline(_ASKED, color=FAINT, linewidth=1, linestyle=":", gid="asked")
    for (point, size), rows in means.groupby(["point", "size"], sort=False):
        rows, colour = rows.sort_values("gamma"), colours[str(point)]
        # A mean over those seeds alone that have a minimum would be one over the easy ones.
        whole = rows.where(rows["n"] == rows["of"])
        for column, (_, dash) in _COSINES.items():
            ax.plot(
                rows["gamma"], whole[column], color=colour, linestyle=dash, marker="o",
                markersize=3, clip_on=False, gid=f"{point} {size} {column}",
            )  # fmt: skip
        level = float(whole["implicit_cosine"].iloc[-1])
        if not math.isnan(level):
            text = f"{point}, n = {size}" if several else str(point)
            ends.append((text, float(rows["gamma"].iloc[-1]), level, colour))
    ax.set_ylim(-1.03, 1.03)
    _gamma_axis(ax)
    if len(ends) > 1:
        label_ends(ax, ends)


def _gamma_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(numticks=12))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("γ")
