"""What a change is worth: differences to a base in points, seed by seed, in rows to be read across.

Behind two figures: BiP beside its controls, and each departure of its release from either end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from companion.evidence.statistics import compare
from companion.figures.style import FAINT, INK, in_percent, looks, panels, styled
from lthlib.errors import ConfigError

MADE, UNDONE, ALL = "made in the paper's BiP", "undone in the release", "all at once"
PAPER, RELEASE = "BiP", "BiP, as released"
COLUMNS = ("name", "series", "density", "n", "accuracy", "difference", "low", "high")
_LOOKS = {
    MADE: ("BiP", "D", "full"),
    UNDONE: ("CS", "s", "none"),
    ALL: ("dense", "o", "full"),
}
_TICKS = (1, 3, 10, 30, 90)
_NEAR = 0.05


def differences(table: pd.DataFrame, curves: Iterable[str], base: str) -> pd.DataFrame:
    """Return how far curves lie from a base at each of the base's densities, paired by seed.

    Args:
        table: from `ticket_table`, of one study.
        curves: in the order wanted; those that the table lacks are left out. One that keeps all
            weights stands at every density.
        base: the curve that the others are compared with.

    Returns:
        Columns `COLUMNS`: name (the curve), series (empty), density (of the base, a fraction), n
        (pairs of seeds), accuracy (percent), difference (points), low, high (95 %), dense to
        sparse; NaN for an interval of one seed. Empty where the base has no judged ticket.
    """
    rows = [row for name in curves for row in _compared(table, name, name, base, "", 1)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def departure_effects(table: pd.DataFrame, departures: Iterable[str]) -> pd.DataFrame:
    """Return what each departure of BiP's release is worth, from either end.

    Args:
        table: from `ticket_table`, of a study of departures.
        departures: their names.

    Returns:
        As `differences`, the largest first: name is the departure. series says which end: `MADE`,
        BiP with it less BiP; `UNDONE`, the release less the release without it; or `ALL`, the
        release less BiP.

    Raises:
        ConfigError: the table has no departure beside BiP or its release.
    """
    rows = _compared(table, ALL, RELEASE, PAPER, ALL, 1)
    for name in departures:
        rows += _compared(table, name, f"{PAPER}, {name}", PAPER, MADE, 1)
        rows += _compared(table, name, f"{RELEASE}, not {name}", RELEASE, UNDONE, -1)
    if not rows:
        raise ConfigError(f"no departure to compare with {PAPER!r} or {RELEASE!r}")
    effects = pd.DataFrame(rows, columns=list(COLUMNS))
    sizes = effects["difference"].abs().groupby(effects["name"]).mean()
    sizes[ALL] = np.inf
    order = effects["name"].map(sizes)
    return effects.assign(size=order).sort_values(
        "size", ascending=False, kind="stable", ignore_index=True
    )[list(COLUMNS)]


def effects_figure(effects: pd.DataFrame, what: str) -> Figure:
    """Draw differences, a row a name and a panel a density, with their 95 % intervals.

    The scale is linear up to one point to either side and logarithmic beyond.

    Args:
        effects: from `differences` or `departure_effects`; rows from the top in their order.
        what: the difference in words, for the axis.
    """
    names = list(dict.fromkeys(effects["name"]))
    series = list(dict.fromkeys(effects["series"]))
    densities = sorted(set(effects["density"]), reverse=True)
    with styled():
        height = 1.2 + 0.27 * len(names)
        fig, axes = panels(1, len(densities), 2.2 + 2.1 * len(densities), height)
        _points_axis(axes[0], effects)
        for ax, density in zip(axes, densities, strict=True):
            ax.set_title(f"{in_percent(density)} density")
            ax.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            for one in series:
                own = effects[(effects["density"] == density) & (effects["series"] == one)]
                _draw(ax, own, names, one, _shift(one, series))
            if ALL in names and len(names) > 1:
                ax.axhline(names.index(ALL) + 0.5, color=FAINT, linewidth=0.8)
        _rows_axis(axes[0], names)
        fig.supxlabel(what, fontsize=10)
        if any(series):
            _legend(fig, [one for one in series if one], columns=min(3, len(densities)))
    return fig


def describe_effects(effects: pd.DataFrame) -> str:
    """Say in words what `effects_figure` shows: every difference at the sparsest density."""
    sparse = effects[effects["density"] == effects["density"].min()]
    parts = []
    for name, rows in sparse.groupby("name", sort=False):
        values = zip(rows["difference"], rows["series"], strict=True)
        words = [f"{gap:+.1f} {end if end != ALL else ''}".strip() for gap, end in values]
        parts.append(f"{name} {' and '.join(words)}")
    where = in_percent(float(effects["density"].min()))
    return f"Differences in points at {where} density: {'; '.join(parts)}."


def effects_in_words(effects: pd.DataFrame, base: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return a table for readers, a row a name: accuracy and difference with interval by density.

    Args:
        effects: from `differences`.
        base: rows of the same kind that stand first, without a difference.
    """
    rows = effects if base is None else pd.concat([base, effects])
    cells = rows.assign(
        cell=[_in_words(row) for row in rows.to_dict("records")],
        column=rows["density"].map(in_percent),
    )
    wide = cells.pivot(index="name", columns="column", values="cell")
    order = rows.sort_values("density", ascending=False)["density"].map(in_percent)
    wide = wide.reindex(list(dict.fromkeys(rows["name"])))[list(dict.fromkeys(order))]
    return wide.rename_axis(columns=None).reset_index().fillna("–")


def base_rows(table: pd.DataFrame, base: str) -> pd.DataFrame:
    """Return the base itself as rows of the kind that `differences` returns, difference NaN."""
    rows = []
    for density, own in _by_density(_judged(table, base)):
        seeds = own.groupby("seed")["test_accuracy"].mean()
        rows.append((base, "", density, len(seeds), seeds.mean(), *[float("nan")] * 3))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _compared(
    table: pd.DataFrame, name: str, curve: str, base: str, series: str, sign: int
) -> list[tuple[object, ...]]:
    """Rows of one name: curve less base, or base less curve, at each density of the base."""
    ours, theirs = _judged(table, curve), _judged(table, base)
    rows: list[tuple[object, ...]] = []
    for density, reference in _by_density(theirs):
        near = ours[(np.log(ours["density"] / density).abs() < _NEAR) | (ours["density"] == 1)]
        if near.empty:
            continue
        pair = [own.groupby("seed")["test_accuracy"].mean() for own in (near, reference)]
        gap = compare(*pair[::sign])
        level = float(pair[0].mean())
        rows.append((name, series, density, gap.n, level, gap.mean, gap.low, gap.high))
    return rows


def _judged(table: pd.DataFrame, curve: str) -> pd.DataFrame:
    return table[(table["curve"] == curve) & (table["status"] == "ok")]


def _by_density(rows: pd.DataFrame) -> list[tuple[float, pd.DataFrame]]:
    """A curve's points by the density that was asked for, dense to sparse."""
    densities = sorted(set(rows["target_density"].dropna()), reverse=True)
    return [(float(density), rows[rows["target_density"] == density]) for density in densities]


def _draw(ax: Axes, rows: pd.DataFrame, names: list[str], series: str, shift: float) -> None:
    method, marker, fill = _LOOKS.get(series, _LOOKS[MADE])
    colour = looks([method])[method].colour
    at = rows["name"].map(names.index) + shift
    for y, low, high in zip(at, rows["low"], rows["high"], strict=True):
        ax.plot([low, high], [y, y], color=colour, linewidth=1.2, alpha=0.55, gid="interval")
    ax.plot(
        rows["difference"],
        at,
        marker,
        color=colour,
        markersize=5,
        fillstyle=fill,
        markerfacecoloralt="white",
        gid=series or "difference",
    )


def _shift(series: str, known: list[str]) -> float:
    """Two ends of one departure stand a little apart."""
    if series not in (MADE, UNDONE) or not {MADE, UNDONE} <= set(known):
        return 0.0
    return -0.16 if series == MADE else 0.16


def _points_axis(ax: Axes, effects: pd.DataFrame) -> None:
    ax.set_xscale("symlog", linthresh=1, linscale=0.7)
    known = effects[["difference", "low", "high"]]
    low, high = (min(-1.0, float(known.min().min())), max(1.0, float(known.max().max())))
    ax.set_xlim(max(1.5 * low, -130), min(1.5 * high, 130))
    ticks = [sign * tick for sign in (-1, 1) for tick in _TICKS]
    ax.xaxis.set_major_locator(FixedLocator([0, *ticks]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    ax.xaxis.set_tick_params(labelsize=8)


def _rows_axis(ax: Axes, names: list[str]) -> None:
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)


def _legend(fig: Figure, series: list[str], columns: int) -> None:
    handles = []
    for one in series:
        method, marker, fill = _LOOKS[one]
        colour = looks([method])[method].colour
        handles.append(
            Line2D([], [], color=colour, marker=marker, linestyle="", fillstyle=fill, markersize=5)
        )
    where = "outside upper left"
    fig.legend(handles, series, loc=where, ncols=columns, frameon=False, fontsize=9)


def _in_words(row: Mapping[Any, Any]) -> str:
    """`96.2 (-0.3 [-1.1, 0.5])`."""
    if np.isnan(row["difference"]):
        return f"{row['accuracy']:.1f}"
    interval = "" if np.isnan(row["low"]) else f" [{row['low']:.1f}, {row['high']:.1f}]"
    return f"{row['accuracy']:.1f} ({row['difference']:+.1f}{interval})"
