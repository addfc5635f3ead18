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

from companion.analysis.words import described_panels, in_brackets, in_percent
from companion.evidence.statistics import compare
from companion.figures.charts import forest, grid, key, labelled, rows_axis
from companion.figures.style import DASHED, look_of, styled, ticks
from lthlib.errors import ConfigError

MADE, UNDONE, ALL = "made in the paper's BiP", "undone in the release", "all at once"
PAPER, RELEASE = "BiP", "BiP, as released"
COLUMNS = ("name", "series", "density", "n", "accuracy", "difference", "low", "high")
LOOKS = {MADE: look_of("BiP"), UNDONE: look_of("CS", fill="none"), ALL: look_of("dense")}
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


@styled()
def effects_figure(effects: pd.DataFrame, what: str) -> Figure:
    """Draw differences, a row a name and a panel a density, with their 95 % intervals.

    The scale is linear up to one point to either side and logarithmic beyond.

    Args:
        effects: from `differences` or `departure_effects`; rows from the top in their order.
        what: the difference in words, for the axis.
    """
    names = list(dict.fromkeys(effects["name"]))
    series = [one for one in dict.fromkeys(effects["series"]) if one]
    densities = sorted(set(effects["density"]), reverse=True)
    size = 2.2 + 2.1 * len(densities), 1.2 + 0.27 * len(names)
    fig, axes = grid(
        effects, *size, lambda value: f"{in_percent(value)} density", col="density",
        col_order=densities,
    )  # fmt: skip
    for ax in axes.values():
        ax.axvline(0, **DASHED)
    apart = {MADE: -0.16, UNDONE: 0.16} if {MADE, UNDONE} <= set(series) else {}
    values = ["difference", "low", "high"]
    for (density, one), rows in effects.groupby(["density", "series"], sort=False):
        end = str(one) or "difference"
        at = rows["name"].map(names.index) + apart.get(end, 0.0)
        forest(axes[density], rows, at, values, LOOKS.get(end, LOOKS[MADE]), end)
    rule = names.index(ALL) + 0.5 if ALL in names and len(names) > 1 else None
    rows_axis([*axes.values()], names, rule)
    _points_axis(axes[densities[0]], effects[values])
    if series:
        key(fig, {one: LOOKS[one].handle for one in series}, min(3, len(densities)))
    sparse = effects[effects["density"] == densities[-1]]
    where = sparse["series"].where(sparse["series"] != ALL, "")
    lead = f"Differences in points at {in_percent(densities[-1])} density"
    words = sparse.assign(where=(" " + where).str.rstrip())
    form = "{difference:+.1f}{where}"
    return labelled(fig, described_panels(lead, words, form, "name", "{name} ", " and "), what)


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


def _points_axis(ax: Axes, values: pd.DataFrame) -> None:
    ax.set_xscale("symlog", linthresh=1, linscale=0.7)
    low, high = min(-1.0, float(values.min().min())), max(1.0, float(values.max().max()))
    ax.set_xlim(max(1.5 * low, -130), min(1.5 * high, 130))
    ticks(ax.xaxis, [-one for one in _TICKS] + [0, *_TICKS], "+g")
    ax.xaxis.set_tick_params(labelsize=8)


def _in_words(row: Mapping[Any, Any]) -> str:
    """`96.2 (-0.3 [-1.1, 0.5])`."""
    gap = in_brackets(row["difference"], row["low"], row["high"], "+.1f")
    return f"{row['accuracy']:.1f}" + ("" if gap == "–" else f" ({gap})")
