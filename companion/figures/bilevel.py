"""BiP's Hessian-free hypergradient beside the exact one: errors, signs and angles against gamma."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from companion.analysis.words import described_panels
from companion.figures.charts import curves, labelled
from companion.figures.style import DASHES, FAINT, INK, Look, in_powers, label_ends, styled

_KEYS = ["problem", "point", "size", "gamma"]
_MEANS = ["cosine", "implicit_cosine", "direct_cosine", "error", "implicit_error"]
_WEIGHTS, _WHOLE = ("dθ*/dm", INK), ("hypergradient", "#0072B2")
_POINTS = {"solved": "#D55E00", "start": "#0072B2", "trained": "#009E73"}
_TERMS = {"cosine": "-", "implicit_cosine": (0, (4, 2))}
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


@styled()
def bilevel_figure(quadratic: pd.DataFrame, network: pd.DataFrame) -> Figure:
    """Draw four panels against gamma: on quadratics error, wrong signs and cosine; network cosine.

    A line stops where the lower level of some seed has no minimum to speak of.

    Args:
        quadratic: from `facts.quadratic_table`.
        network: from `facts.network_table`.
    """
    fig, grid = plt.subplots(2, 2, figsize=(8.6, 6.4), layout="constrained")
    errors, signs, left, right = grid.flat
    means = bilevel_means(quadratic)
    for size, gamma in flip_gamma(quadratic).items():
        for ax in (errors, signs):
            ax.axvline(gamma, color=FAINT, linewidth=1, linestyle=":", gid=f"flip {size}")
    for ax in (left, right):
        ax.axhline(0, color=FAINT, linewidth=0.8)
        ax.axhline(_ASKED, color=FAINT, linewidth=1, linestyle=":", gid="asked")
    _guide(errors, means)
    errors.set(title="Quadratics: relative error", yscale="log")
    in_powers(errors.yaxis)
    _lines(errors, _by_size(means, {"weight_error": _WEIGHTS, "error": _WHOLE}))
    signs.set(title="Quadratics: wrong signs (%)", ylim=(-3, 103))
    shares = means.assign(**{name: 100 * means[name] for name in ("weight_flips", "flips")})
    _lines(signs, _by_size(shares, {"weight_flips": _WEIGHTS, "flips": _WHOLE}))
    left.set(title="Quadratics: cosine", ylim=(-1.03, 1.03))
    _lines(left, _by_point(means, {"solved": INK}))
    right.set(title="Network: cosine", ylim=(-1.03, 1.03))
    _lines(right, _by_point(bilevel_means(network), _POINTS))
    terms = [Line2D([], [], color=INK, linestyle=dash) for dash in _TERMS.values()]
    right.legend(terms, ["hypergradient", "implicit term"], loc="lower right")
    return labelled(fig, _in_words(quadratic, network))


def _in_words(quadratic: pd.DataFrame, network: pd.DataFrame) -> str:
    slopes = ", ".join(f"{slope:.2f} (n = {n})" for n, slope in error_slopes(quadratic).items())
    flips = ", ".join(
        f"{gamma:.2g} (n = {n})" if not math.isnan(gamma) else f"no gamma shown (n = {n})"
        for n, gamma in flip_gamma(quadratic).items()
    )
    means = bilevel_means(pd.concat([quadratic, network]))
    sizes = "quadratics, n = " + means["size"].astype(str)
    where = sizes.where(means["problem"] == "quadratic", "the network, " + means["point"])
    pairs = means.assign(where=where, both=[_pair(row) for row in means.to_dict("records")])
    lead = "Cosine of whole and implicit term"
    cosines = described_panels(lead, pairs, "gamma {gamma:g} {both}", "where", "{where}: ")
    return (
        "Four panels against gamma on a logarithmic scale. On quadratics the relative error of the "
        f"Hessian-free derivative of the weights ends with slope {slopes} in logarithms, and most "
        f"of its signs are wrong below gamma = {flips}. {cosines}"
    )


def _pair(row: Mapping[Any, Any]) -> str:
    if not row["n"]:
        return "no minimum"
    return f"{row['cosine']:.2f} and {row['implicit_cosine']:.2f}"


def _by_size(
    means: pd.DataFrame, columns: Mapping[str, tuple[str, str]]
) -> Iterator[tuple[str, str, Look, pd.DataFrame]]:
    several = means["size"].nunique() > 1
    for (size, rows), dash in zip(
        means.groupby("size", sort=False), itertools.cycle(DASHES), strict=False
    ):
        for column, (name, colour) in columns.items():
            text = f"{name}, n = {size}" if several else name
            yield f"{column} {size}", text, Look(colour, "o", dash), rows.assign(y=rows[column])


def _by_point(
    means: pd.DataFrame, colours: Mapping[str, str]
) -> Iterator[tuple[str, str, Look, pd.DataFrame]]:
    """Solid lines of the whole, dashed ones of the implicit term, which bear the labels."""
    groups = means.groupby(["point", "size"], sort=False)
    for (point, size), rows in groups:
        text = f"{point}, n = {size}" if means["size"].nunique() > 1 else str(point)
        for column, dash in _TERMS.items():
            # A mean over those seeds alone that have a minimum would be one over the easy ones.
            known = rows.assign(y=rows[column].where(rows["n"] == rows["of"]))
            label = text if column == "implicit_cosine" and len(groups) > 1 else ""
            yield f"{point} {size} {column}", label, Look(colours[str(point)], "o", dash), known


def _lines(ax: Axes, lines: Iterable[tuple[str, str, Look, pd.DataFrame]]) -> None:
    parts, known, ends = [], {}, []
    for name, text, look, rows in lines:
        own = rows.sort_values("gamma").assign(curve=name)
        parts.append(own)
        known[name] = look
        gamma, level = own[["gamma", "y"]].iloc[-1]
        if text and not math.isnan(level):
            ends.append((text, gamma, level, look.colour))
    table = pd.concat(parts)
    curves(ax, table, "gamma", "y", known, markersize=3, clip_on=False)
    ax.set(xlim=(0.8 * table["gamma"].min(), 1.25 * table["gamma"].max()), xscale="log")
    ax.set(xlabel="γ", ylabel="")
    ax.xaxis.set_major_locator(LogLocator(numticks=12))
    in_powers(ax.xaxis)
    label_ends(ax, ends)


def _guide(ax: Axes, means: pd.DataFrame) -> None:
    """A line of slope -1 through the mean error at the largest gamma."""
    gammas = np.sort(means["gamma"].unique())
    last = float(means.loc[means["gamma"] == gammas[-1], "weight_error"].mean())
    span = gammas[gammas >= gammas[-1] / 1e3]
    level = 0.4 * last * gammas[-1] / span
    ax.plot(span, level, color=FAINT, linewidth=1.2, linestyle="--", gid="slope")
    at = span[len(span) // 2], level[len(span) // 2]
    place: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "center"}
    ax.annotate("slope −1", at, (-6, -10), color=FAINT, **place)
