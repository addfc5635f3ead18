"""What a claim is judged on: the rows that may count, and comparisons with their sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from companion.evidence import statistics as stats
from companion.evidence.costs import spent
from companion.evidence.records import COLUMNS
from companion.evidence.reported import plain_name
from companion.evidence.statistics import Floats
from lthlib.errors import ConfigError

Side = Literal["for", "against", "undecided"]
Net = tuple[str, str]

DATASETS = ("cifar10", "cifar100", "tinyimagenet", "imagenet")
# The fewest seeds of a curve, of a dense reference, and at the two densities that decide d*; and
# the fewest networks of which 'most' can be said. At reduced scale one is enough.
_FEWEST = {"seeds": 3, "dense seeds": 10, "deciding seeds": 8, "networks": 3}
_WHERE = ["dataset", "architecture", "structure"]
_TINY = 1e-9


@dataclass(frozen=True)
class Curve:
    """A method's tickets as judged: a record's `label` and whether they were found or retrained.

    A label may say so itself: `CS, as found` is the same curve as `CS` judged as found.
    """

    label: str
    judged: str

    def __str__(self) -> str:
        return self.label if self.label.startswith("dense") else f"{self.label} {self.manner}"

    @property
    def manner(self) -> str:
        """How the tickets were judged, in words."""
        return "as found" if self.judged == "found" else self.judged


DENSE = Curve("dense", "found")


@dataclass(frozen=True)
class Part:
    """One comparison: the side of the claim it falls on, effect and interval, its sentence."""

    side: Side
    effect: float
    low: float
    high: float
    n: int
    text: str
    p: float = float("nan")


@dataclass(frozen=True)
class View:
    """The rows that may feed a verdict at one scale, and facts measured outside any record.

    Only runs that succeeded on the papers' data sets count: no digits, no generated image folders.
    `failed` is the number of runs that did not succeed.
    """

    rows: pd.DataFrame
    scale: str
    facts: Mapping[str, float]
    failed: int = 0
    structure: str = "unstructured"

    @classmethod
    def of(cls, table: pd.DataFrame, scale: str, facts: Mapping[str, float]) -> View:
        """Return the view of a tidy table at `paper` or `reduced` scale.

        Raises:
            ConfigError: the table lacks a column of `tidy`.
        """
        if missing := sorted(set(COLUMNS) - set(table.columns)):
            raise ConfigError(f"the table lacks columns {missing}; make it with tidy(records)")
        rows = table[table["scale"] == scale]
        names = {name: rows[name].map(plain_name) for name in ("dataset", "architecture")}
        rows = rows.assign(**names)
        rows = rows[rows["dataset"].isin(DATASETS)]
        good = rows["status"] == "ok"
        return cls(rows[good], scale, facts, int(rows.loc[~good, "run"].nunique()))

    def led_by(self, label: str) -> View:
        """Return the view of one study for each network and structure: the one with most tickets of
        this label.

        Studies train one network by different recipes; rows of two are never compared. The dense
        rows are those of the studies chosen. A network where no study has the label keeps all.
        """
        named = self.rows["label"].isin([label, f"{label}, as found"])  # and no precision of it
        counts = self.rows[named].groupby([*_WHERE, "study"]).size()
        # Of two with as many, the first by name.
        leads = [*counts.groupby(_WHERE).idxmax()]
        chosen = {tuple(where): study for *where, study in leads}

        def counts_here(data: str, network: str, structure: str, label: str, study: str) -> bool:
            own = {one for where, one in chosen.items() if where[:2] == (data, network)}
            if not label.startswith("dense") and (data, network, structure) in chosen:
                own = {chosen[data, network, structure]}
            return not own or study in own

        columns = [self.rows[name] for name in (*_WHERE, "label", "study")]
        kept = np.array([counts_here(*row) for row in zip(*columns, strict=True)], bool)
        rows = self.rows[kept].drop_duplicates(["label", "run", "round", "judged"])
        return replace(self, rows=rows)

    def fewest(self, what: str) -> int:
        """The fewest of something that decide: `seeds`, `dense seeds`, `networks`, ..."""
        return _FEWEST[what] if self.scale == "paper" else 1

    def select(self, net: Net, curve: Curve) -> pd.DataFrame:
        """Return the rows of one curve on one (data set, network)."""
        rows = self.rows[self.rows["label"].isin([curve.label, f"{curve.label}, {curve.manner}"])]
        rows = rows[(rows["dataset"] == net[0]) & (rows["architecture"] == net[1])]
        if curve == DENSE:
            return rows
        return rows[(rows["structure"] == self.structure) & (rows["judged"] == curve.judged)]

    def nets(self, *curves: Curve) -> list[Net]:
        """Return the (data set, network) pairs that hold all of the curves."""
        nets = sorted(set(zip(self.rows["dataset"], self.rows["architecture"], strict=True)))
        return [net for net in nets if all(len(self.select(net, curve)) for curve in curves)]

    def dense(self, net: Net, curve: Curve = DENSE) -> pd.Series | str:
        """Return dense test accuracies by replicate, or what is missing."""
        values = self.select(net, curve).groupby(["study", "seed"])["test_accuracy"].mean().dropna()
        fewest = self.fewest("dense seeds")
        return values if len(values) >= fewest else self.lacks(curve, net, fewest)

    def on_band(self, net: Net, curve: Curve, value: str = "test_accuracy") -> pd.Series | str:
        """Return band means by replicate, or what is missing."""
        grid, fewest = stats.band(net[1]), self.fewest("seeds")
        values = stats.band_means(self.select(net, curve), grid, value)
        return values if len(values) >= fewest else self.lacks(curve, net, fewest, grid)

    def title(self, net: Net) -> str:
        """Return a (data set, network) pair as a text, with the structure unless unstructured."""
        return " / ".join(net) + ("" if self.structure == "unstructured" else f", {self.structure}")

    def lacks(self, curve: Curve, net: Net, seeds: int, grid: Floats | None = None) -> str:
        """Say that a curve is missing or has too few seeds."""
        where = f" over {percent(grid)} density" if grid is not None else ""
        amount = f"{seeds} seeds or more at {self.scale} scale"
        return f"{curve} on {self.title(net)}{where} ({amount})"


def percent(grid: Floats) -> str:
    """Return a band's ends as a text, in percent."""
    return f"{100 * max(grid):.2g}-{100 * min(grid):.2g} %"


def split(results: Iterable[Part | str]) -> tuple[list[Part], list[str]]:
    """Separate comparisons that could be made from what the others lack."""
    made = list(results)
    return [one for one in made if isinstance(one, Part)], [
        one for one in made if isinstance(one, str)
    ]


def side_of(low: float, high: float, threshold: float = 0.0) -> Side:
    """Return `for` if an interval lies above a threshold, `against` if below, else `undecided`."""
    if low > threshold:
        return "for"
    return "against" if high < threshold else "undecided"


def below(low: float, high: float, threshold: float) -> Side:
    """Return `for` if an interval lies below a threshold, `against` if above, else `undecided`."""
    return side_of(-high, -low, -threshold)


def above_zero(gap: stats.Difference) -> Side:
    """Return the side of a claim that a difference is positive, by its two-sided interval."""
    return side_of(gap.low, gap.high)


def not_inferior(gap: stats.Difference) -> Side:
    """Return the side of a claim of non-inferiority, by the difference's one-sided bounds."""
    return side_of(gap.lower, gap.upper, stats.MARGIN)


def all_of(sides: Iterable[Side]) -> Side | None:
    """Return `for` if all are, `against` if any is, None if there are none, else `undecided`."""
    found = set(sides)
    if not found:
        return None
    if "against" in found:
        return "against"
    return "for" if found == {"for"} else "undecided"


def most_of(sides: Sequence[Side]) -> Side | None:
    """Return the side on which more than half lie, None if there are none, else `undecided`."""
    if not sides:
        return None
    common = max(set(sides), key=sides.count)
    return common if 2 * sides.count(common) > len(sides) else "undecided"


def part_of(side: Side, value: stats.Difference, what: str, unit: str, where: str) -> Part:
    """Return a comparison with its sentence, `what = effect unit [interval] where, n = ...`."""
    form = "+.2f" if unit else ".2f"
    interval = "without interval"
    if not np.isnan(value.low):
        interval = f"[{value.low:{form}}, {value.high:{form}}]"
    words = (what, "=", f"{value.mean:{form}}", *unit.split(), interval, f"{where},")
    text = " ".join((*words, f"n = {value.n}{' pairs' if value.paired else ''}"))
    return Part(side, value.mean, value.low, value.high, value.n, text, value.p)


def band_part(
    view: View,
    net: Net,
    ours: Curve,
    theirs: Curve,
    side: Callable[[stats.Difference], Side] = above_zero,
) -> Part | str:
    """Compare two curves by their band difference, in points; `side` judges it."""
    values = [view.on_band(net, curve) for curve in (ours, theirs)]
    if missing := [value for value in values if isinstance(value, str)]:
        return " and ".join(missing)
    gap = stats.compare(*(value for value in values if not isinstance(value, str)))
    where = f"over {percent(stats.band(net[1]))} density ({view.title(net)})"
    return part_of(side(gap), gap, f"{ours} - {theirs}", "points", where)


def cost_part(
    view: View,
    net: Net,
    ours: Curve,
    theirs: Curve,
    limit: float,
    worst: Callable[..., float],
    unit: str = "passes",
    pretraining: bool = True,
    densities: Sequence[float] | Floats = stats.IMP_DENSITIES,
) -> Part | str:
    """Compare the cost of reaching a ticket, as a ratio at the least favourable density.

    Args:
        ours, theirs: numerator and denominator.
        limit: the claimed ratio: at least this with `worst=min`, at most this with `worst=max`.
        worst: `min` or `max`, which picks the density reported.
        unit: `passes` (images forwarded plus backwarded) or `seconds`.
        pretraining: whether the dense net's training is counted, on both sides.
        densities: where to compare, as far as both curves reach.
    """
    if not pretraining and view.select(net, DENSE).empty:
        return view.lacks(DENSE, net, 1)
    curves = [view.select(net, curve) for curve in (ours, theirs)]
    if unit == "seconds" and pd.concat(curves)["device_name"].nunique() > 1:
        return f"{ours} and {theirs} on {view.title(net)} timed on one device"
    grid, fewest = np.asarray(densities, float), view.fewest("seeds")
    paid = [rows.assign(cost=spent(rows, unit, pretraining)) for rows in curves]
    costs = [stats.on_grid(rows[rows["cost"] > 0], grid, "cost") for rows in paid]
    enough = [cost.notna().sum() >= fewest for cost in costs]
    means = [np.log(cost.loc[:, enough[0] & enough[1]]).mean() for cost in costs]
    if means[0].empty:
        return " and ".join(view.lacks(curve, net, fewest, grid) for curve in (ours, theirs))
    gaps = (means[0] - means[1]).to_dict()
    density = worst(gaps, key=lambda one: gaps[one])
    value = stats.ratio(*(cost[density].dropna() for cost in costs))
    side = (
        side_of(value.low, value.high, limit - _TINY)
        if worst is min
        else below(value.low, value.high, limit + _TINY)
    )
    counted = "with" if pretraining else "without"
    where = f"at {100 * density:.2g} % density {counted} pretraining ({view.title(net)})"
    return part_of(side, value, f"{unit} of {ours} / {theirs}", "", where)


def growth_part(
    view: View, net: Net, curve: Curve, side: Callable[[float, float], Side]
) -> Part | str:
    """Judge a ticket's cost in passes at the band's sparse end, relative to its dense end."""
    ends = stats.band(net[1])[[-1, 0]]
    costs = stats.on_grid(view.select(net, curve), ends, "passes").dropna()
    if len(costs) < (fewest := view.fewest("seeds")):
        return view.lacks(curve, net, fewest, ends)
    value = stats.ratio(costs.iloc[:, 0], costs.iloc[:, 1])
    where = f"from {percent(ends)} density ({view.title(net)})"
    return part_of(side(value.low, value.high), value, f"passes of {curve}, growth", "", where)


def stars(view: View, net: Net, *curves: Curve) -> list[stats.Crossing] | str:
    """Return each curve's d*, or what is missing. The bootstrap's generator has a fixed seed."""
    dense = view.dense(net)
    if isinstance(dense, str):
        return dense
    found: list[stats.Crossing] = []
    for curve, rng in zip(curves, np.random.default_rng(0).spawn(len(curves)), strict=True):
        star = stats.d_star(stats.on_grid(view.select(net, curve), stats.IMP_DENSITIES), dense, rng)
        if star is None or star.n < view.fewest("deciding seeds"):
            return f"{view.lacks(curve, net, view.fewest('deciding seeds'))} around d*"
        found.append(star)
    return found


def star_part(view: View, net: Net, ours: Curve, theirs: Curve) -> Part | str:
    """Compare d* of two curves as a ratio, `for` when ours is sparser (below 1)."""
    found = stars(view, net, ours, theirs)
    if isinstance(found, str):
        return found
    return compare_stars(f"{ours} / {theirs}", view.title(net), *found)


def compare_stars(names: str, where: str, first: stats.Crossing, second: stats.Crossing) -> Part:
    """Return the ratio of two d*, `for` when the first is sparser."""
    low, high = map(float, np.quantile(first.draws / second.draws, [0.025, 0.975]))
    side = below(low, high, 1.0)
    # A curve that ends before it crosses bounds its d* on one side only.
    bounded = {"for": ("above", "below"), "against": ("below", "above")}.get(side)
    if bounded and (first.edge == bounded[0] or second.edge == bounded[1]):
        side = "undecided"
    value, n = first.density / second.density, min(first.n, second.n)
    text = (
        f"d* of {names} = {_star(first)} / {_star(second)} = {value:.2f} [{low:.2f}, {high:.2f}] "
        f"at {stats.MARGIN} points from dense ({where}), n = {n}"
    )
    return Part(side, value, low, high, n, text)


def _star(crossing: stats.Crossing) -> str:
    sign = {"below": "at most ", "above": "at least "}.get(crossing.edge, "")
    return f"{sign}{100 * crossing.density:.2g} %"
