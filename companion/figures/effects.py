"""What a change is worth, seed by seed, and whose mask it finds.

BiP stands beside its controls, and each departure of its release is seen from either end.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.analysis.words import column_in_brackets, described_panels, in_percent
from companion.evidence.statistics import compare
from companion.figures.charts import forest, key, labelled
from companion.figures.style import FAINT, look_of, scaled, styled
from lthlib.errors import ConfigError

MADE, UNDONE, ALL = "made in the paper's BiP", "undone in the release", "all at once"
PAPER, RELEASE = "BiP", "BiP, as released"
COLUMNS = ("name", "series", "density", "n", "accuracy", "difference", "low", "high")
LOOKS = {"": look_of("BiP"), MADE: look_of("BiP"), UNDONE: look_of("CS", fill="none")}
LOOKS[ALL] = look_of("dense")
_GAP = ["difference", "low", "high"]
_NEAR = 0.05


def variants(departure: str) -> tuple[str, str]:
    """Return the curves of a departure: the paper's BiP with it, the release without it."""
    return f"{PAPER}, {departure}", f"{RELEASE}, not {departure}"


def differences(table: pd.DataFrame, curves: Iterable[str], base: str) -> pd.DataFrame:
    """Return how far curves lie from a base at each of the base's densities, paired by seed.

    Args:
        table: from `ticket_table`, of one study.
        curves: in the order wanted; those that the table lacks are left out. One that keeps all
            weights stands at every density.
        base: the curve that the others are compared with.

    Returns:
        Columns `COLUMNS`, that is name (the curve), series (empty), density (of the base, a
        fraction), n (pairs of seeds), accuracy (percent), difference (points), low, high (95 %),
        dense to sparse; NaN for an interval of one seed. Empty where the base has no judged ticket.
    """
    rows = [row for name in curves for row in _difference_rows(table, name, name, base)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def departure_effects(table: pd.DataFrame, departures: Iterable[str]) -> pd.DataFrame:
    """Return what each departure of BiP's release is worth, from either end.

    Args:
        table: from `ticket_table`, of a study of departures.
        departures: their names.

    Returns:
        As `differences`, the largest first; name is the departure, and series the end, one of
        `MADE` (BiP with it less BiP), `UNDONE` (the release less the release without it) and `ALL`
        (the release less BiP).

    Raises:
        ConfigError: the table has no departure beside BiP or its release.
    """
    rows = _difference_rows(table, ALL, RELEASE, PAPER, ALL)
    for name in departures:
        with_it, without_it = variants(name)
        rows += _difference_rows(table, name, with_it, PAPER, MADE)
        rows += _difference_rows(table, name, without_it, RELEASE, UNDONE, -1)
    if not rows:
        raise ConfigError(f"no departure to compare with {PAPER!r} or {RELEASE!r}")
    effects = pd.DataFrame(rows, columns=list(COLUMNS))
    sizes = effects["difference"].abs().groupby(effects["name"]).mean()
    sizes[ALL] = np.inf
    order = (-effects["name"].map(sizes)).sort_values(kind="stable").index
    return effects.loc[order].reset_index(drop=True)


@styled
def effects_figure(effects: pd.DataFrame, label: str) -> Figure:
    """Draw differences, a row a name and a panel a density, with their 95 % intervals.

    The scale is linear up to one point to either side and logarithmic beyond.

    Args:
        effects: from `differences` or `departure_effects`; rows from the top in their order.
        label: the difference in words, for the axis.
    """
    series = [name for name in dict.fromkeys(effects["series"]) if name]
    densities = sorted(set(effects["density"]), reverse=True)
    offsets = {MADE: -0.16, UNDONE: 0.16} if {MADE, UNDONE} <= set(series) else {}
    fig, axes = forest(
        effects, _GAP, LOOKS, panel="density", by="series", order=densities, offsets=offsets,
        total=ALL, title=lambda value: f"{in_percent(value)} density",
    )  # fmt: skip
    points = effects[_GAP].clip(-100, 100).to_numpy().ravel()
    scaled(axes[densities[0]], "x", "points", [-1, 1, *points])
    if series:
        key(fig, {name: LOOKS[name] for name in series}, min(3, len(densities)), linestyle="")
    sparse = effects[effects["density"] == densities[-1]]
    where = sparse["series"].where(sparse["series"] != ALL, "")
    lead = f"Differences in points at {in_percent(densities[-1])} density"
    words = sparse.assign(where=(" " + where).str.rstrip())
    form = "{difference:+.1f}{where}"
    return labelled(fig, described_panels(lead, words, form, "name", "{name} ", " and "), label)


@styled
def head_figure(gaps: pd.DataFrame, methods: pd.Series) -> Figure:
    """Draw differences under one budget, a panel for the mean over densities and for each.

    Args:
        gaps: from `analysis.head.differences`.
        methods: which rows are of methods, from the top; the others are of controls.
    """
    rows = gaps.assign(series="")
    panels = list(dict.fromkeys(rows["where"]))
    fig, axes = forest(rows, _GAP, LOOKS, panel="where", by="series", order=panels)
    for ax in axes.values():
        ax.axhline(rows.loc[methods, "name"].nunique() - 0.5, color=FAINT, linewidth=0.8)
    form = "{name} {difference:+.1f}"
    text = described_panels("Differences in points", rows, form, "where", "{where}: ", ", ")
    return labelled(fig, text, "test accuracy, difference (points)")


def effects_in_words(effects: pd.DataFrame, base: str = "") -> pd.DataFrame:
    """Return a table for readers, a row a name: accuracy and difference with interval by density.

    Args:
        effects: from `differences`.
        base: the name whose difference to itself is left out.

    Returns:
        Columns name, and one for each density in percent, dense to sparse; cells are texts.
    """
    gaps = pd.Series(column_in_brackets(effects, _GAP, "+.1f"), effects.index)
    gaps = (" (" + gaps + ")").mask(effects["name"] == base, "")
    cells = effects["accuracy"].map("{:.1f}".format) + gaps
    rows = effects.assign(cell=cells, column=effects["density"].map(in_percent))
    order = effects.sort_values("density", ascending=False)["density"].map(in_percent)
    wide = rows.pivot(index="name", columns="column", values="cell")
    wide = wide.loc[rows["name"].unique(), order.unique()].fillna("–")
    return wide.rename_axis(columns=None).reset_index()


def _difference_rows(
    table: pd.DataFrame, name: str, curve: str, base: str, series: str = "", sign: int = 1
) -> list[tuple[object, ...]]:
    """Rows of one name: curve less base, or base less curve, at each density of the base."""
    judged = table[table["status"] == "ok"]
    ours, theirs = (judged[judged["curve"] == name] for name in (curve, base))
    rows: list[tuple[object, ...]] = []
    for density in sorted(set(theirs["target_density"].dropna()), reverse=True):
        reference = theirs[theirs["target_density"] == density]
        near = ours[(np.log(ours["density"] / density).abs() < _NEAR) | (ours["density"] == 1)]
        if near.empty:
            continue
        pair = [side.groupby("seed")["test_accuracy"].mean() for side in (near, reference)]
        gap = compare(*pair[::sign])
        level = float(pair[0].mean())
        rows.append((name, series, density, gap.n, level, gap.mean, gap.low, gap.high))
    return rows


_REFERENCES = {PAPER: "the paper's", RELEASE: "the release's"}
_COLUMNS = ["name", "series", "compared_with", "overlap", "by_chance"]


def agreement_table(
    overlap: pd.DataFrame, chance: pd.DataFrame, departures: Iterable[str]
) -> pd.DataFrame:
    """Return how far each variant's mask agrees with the paper's BiP's and with the release's.

    Args:
        overlap: square, by curve: intersection over union of kept weights at one seed.
        chance: of the same shape: what masks with the same counts in every layer share by chance.
        departures: names of departures.

    Returns:
        Columns name (the departure, or `ALL` for the two ends themselves), series (`MADE` or
        `UNDONE`), compared_with, overlap, by_chance; the departures that move the mask most first.

    Raises:
        ConfigError: one of the two ends has no mask.
    """
    if missing := [name for name in _REFERENCES if name not in overlap.index]:
        raise ConfigError(f"no mask of {missing[0]!r} to compare with")
    names = {PAPER: (ALL, MADE), RELEASE: (ALL, UNDONE)}
    for name in departures:
        with_it, without_it = variants(name)
        names |= {with_it: (name, MADE), without_it: (name, UNDONE)}
    rows = [
        (*names[curve], words, overlap.loc[curve, end], chance.loc[curve, end])
        for curve in names
        for end, words in _REFERENCES.items()
        if curve in overlap.index and curve != end
    ]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    start = table["series"].map({MADE: _REFERENCES[PAPER], UNDONE: _REFERENCES[RELEASE]})
    shared = table["overlap"].where(table["compared_with"] == start).groupby(table["name"])
    order = shared.transform("mean").fillna(-1).sort_values(kind="stable").index
    return table.loc[order].reset_index(drop=True)


@styled
def agreement_figure(table: pd.DataFrame) -> Figure:
    """Draw the overlap with the mask of either end, a row a departure and a panel an end.

    A line joins the two overlaps of one mask; grey ticks are what chance gives.

    Args:
        table: from `agreement_table`.
    """
    ends = [end for end in (MADE, UNDONE) if (table["series"] == end).any()]
    masks = {_REFERENCES[PAPER]: LOOKS[MADE], _REFERENCES[RELEASE]: LOOKS[UNDONE]}
    fig, axes = forest(
        table, ["overlap"], masks, panel="series", by="compared_with", order=ends, width=2.6,
        total=ALL, reference=None,
    )  # fmt: skip
    names = list(dict.fromkeys(table["name"]))
    chance = {"marker": "|", "color": FAINT, "linestyle": "", "markersize": 9}
    for end, ax in axes.items():
        rows = table[table["series"] == end]
        span = rows.groupby("name", sort=False)["overlap"].agg(["min", "max"])
        ax.hlines(span.index.map(names.index), span["min"], span["max"], color=FAINT, gid="span")
        ax.plot(rows["by_chance"], rows["name"].map(names.index), **chance, gid="chance")
        ax.set_xlim(-0.03, 1.03)
    legend = {f"with {owner} mask": look for owner, look in masks.items()}
    key(fig, {**legend, "by chance": chance}, 3, linestyle="")
    form = "{overlap:.2f} with {compared_with} mask"
    by = ["name", "series"]
    text = described_panels("Overlap of masks", table, form, by, "{name}, {series}: ", " and ")
    return labelled(fig, text, "overlap of the mask (intersection over union)")
