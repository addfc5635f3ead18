"""What a change is worth, seed by seed: BiP beside its controls, and each departure of its release
from either end; and whose mask a departure finds.
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
    rows = [row for name in curves for row in _compared(table, name, name, base)]
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
    rows = _compared(table, ALL, RELEASE, PAPER, ALL)
    for name in departures:
        made, undone = variants(name)
        rows += _compared(table, name, made, PAPER, MADE)
        rows += _compared(table, name, undone, RELEASE, UNDONE, -1)
    if not rows:
        raise ConfigError(f"no departure to compare with {PAPER!r} or {RELEASE!r}")
    effects = pd.DataFrame(rows, columns=list(COLUMNS))
    sizes = effects["difference"].abs().groupby(effects["name"]).mean()
    sizes[ALL] = np.inf
    order = (-effects["name"].map(sizes)).sort_values(kind="stable").index
    return effects.loc[order].reset_index(drop=True)


@styled
def effects_figure(effects: pd.DataFrame, what: str) -> Figure:
    """Draw differences, a row a name and a panel a density, with their 95 % intervals.

    The scale is linear up to one point to either side and logarithmic beyond.

    Args:
        effects: from `differences` or `departure_effects`; rows from the top in their order.
        what: the difference in words, for the axis.
    """
    series = [one for one in dict.fromkeys(effects["series"]) if one]
    densities = sorted(set(effects["density"]), reverse=True)
    apart = {MADE: -0.16, UNDONE: 0.16} if {MADE, UNDONE} <= set(series) else {}
    fig, axes = forest(
        effects, _GAP, LOOKS, panel="density", by="series", order=densities, apart=apart, total=ALL,
        title=lambda value: f"{in_percent(value)} density",
    )  # fmt: skip
    seen = effects[_GAP].clip(-100, 100).to_numpy().ravel()
    scaled(axes[densities[0]], "x", "points", [-1, 1, *seen])
    if series:
        key(fig, {one: LOOKS[one] for one in series}, min(3, len(densities)), linestyle="")
    sparse = effects[effects["density"] == densities[-1]]
    where = sparse["series"].where(sparse["series"] != ALL, "")
    lead = f"Differences in points at {in_percent(densities[-1])} density"
    words = sparse.assign(where=(" " + where).str.rstrip())
    form = "{difference:+.1f}{where}"
    return labelled(fig, described_panels(lead, words, form, "name", "{name} ", " and "), what)


@styled
def head_figure(found: pd.DataFrame, methods: pd.Series) -> Figure:
    """Draw differences under one budget, a panel for the mean over densities and for each.

    Args:
        found: from `analysis.head.differences`.
        methods: which rows are of methods, from the top; the others are of controls.
    """
    rows = found.assign(series="")
    places = list(dict.fromkeys(rows["where"]))
    fig, axes = forest(rows, _GAP, LOOKS, panel="where", by="series", order=places)
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
    """
    gaps = pd.Series(column_in_brackets(effects, _GAP, "+.1f"), effects.index)
    gaps = (" (" + gaps + ")").mask(effects["name"] == base, "")
    cells = effects["accuracy"].map("{:.1f}".format) + gaps
    rows = effects.assign(cell=cells, column=effects["density"].map(in_percent))
    order = effects.sort_values("density", ascending=False)["density"].map(in_percent)
    wide = rows.pivot(index="name", columns="column", values="cell")
    wide = wide.loc[rows["name"].unique(), order.unique()].fillna("–")
    return wide.rename_axis(columns=None).reset_index()


def _compared(
    table: pd.DataFrame, name: str, curve: str, base: str, series: str = "", sign: int = 1
) -> list[tuple[object, ...]]:
    """Rows of one name: curve less base, or base less curve, at each density of the base."""
    judged = table[table["status"] == "ok"]
    ours, theirs = (judged[judged["curve"] == one] for one in (curve, base))
    rows: list[tuple[object, ...]] = []
    for density in sorted(set(theirs["target_density"].dropna()), reverse=True):
        reference = theirs[theirs["target_density"] == density]
        near = ours[(np.log(ours["density"] / density).abs() < _NEAR) | (ours["density"] == 1)]
        if near.empty:
            continue
        pair = [own.groupby("seed")["test_accuracy"].mean() for own in (near, reference)]
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
        overlap, chance: square, by curve: intersection over union of kept weights at one seed, and
            what masks with the same counts in every layer share by chance.
        departures: names of departures.

    Returns:
        Columns name (the departure, or `ALL` for the two ends themselves), series (`MADE` or
        `UNDONE`), compared_with, overlap, by_chance; the departures that move the mask most first.

    Raises:
        ConfigError: one of the two ends has no mask.
    """
    if missing := [name for name in _REFERENCES if name not in overlap.index]:
        raise ConfigError(f"no mask of {missing[0]!r} to compare with")
    known = {PAPER: (ALL, MADE), RELEASE: (ALL, UNDONE)}
    for name in departures:
        known |= dict(zip(variants(name), ((name, MADE), (name, UNDONE)), strict=True))
    rows = [
        (*known[curve], words, overlap.loc[curve, other], chance.loc[curve, other])
        for curve in known
        for other, words in _REFERENCES.items()
        if curve in overlap.index and curve != other
    ]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    own = table["series"].map(dict(zip((MADE, UNDONE), _REFERENCES.values(), strict=True)))
    kept = table["overlap"].where(table["compared_with"] == own).groupby(table["name"])
    order = kept.transform("mean").fillna(-1).sort_values(kind="stable").index
    return table.loc[order].reset_index(drop=True)


@styled
def agreement_figure(table: pd.DataFrame) -> Figure:
    """Draw the overlap with the mask of either end, a row a departure and a panel an end.

    A line joins the two overlaps of one mask; grey ticks are what chance gives.

    Args:
        table: from `agreement_table`.
    """
    ends = [end for end in (MADE, UNDONE) if (table["series"] == end).any()]
    known = {"the paper's": LOOKS[MADE], "the release's": LOOKS[UNDONE]}
    fig, axes = forest(
        table, ["overlap"], known, panel="series", by="compared_with", order=ends, width=2.6,
        total=ALL, reference=None,
    )  # fmt: skip
    names = list(dict.fromkeys(table["name"]))
    chance = {"marker": "|", "color": FAINT, "linestyle": "", "markersize": 9}
    for end, ax in axes.items():
        own = table[table["series"] == end]
        span = own.groupby("name", sort=False)["overlap"].agg(["min", "max"])
        ax.hlines(span.index.map(names.index), span["min"], span["max"], color=FAINT, gid="span")
        ax.plot(own["by_chance"], own["name"].map(names.index), **chance, gid="chance")
        ax.set_xlim(-0.03, 1.03)
    legend = {f"with {other} mask": look for other, look in known.items()}
    key(fig, {**legend, "by chance": chance}, 3, linestyle="")
    form = "{overlap:.2f} with {compared_with} mask"
    by = ["name", "series"]
    text = described_panels("Overlap of masks", table, form, by, "{name}, {series}: ", " and ")
    return labelled(fig, text, "overlap of the mask (intersection over union)")
