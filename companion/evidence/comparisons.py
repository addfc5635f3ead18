"""What a claim is judged on: the rows that may count, and comparisons with their sentences.

A comparison is a function that `criteria.csv` names: it takes a `Case` and returns a `Part`, or
raises `Lacking` with what is missing for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from companion.evidence import statistics as stats
from companion.evidence.costs import UNITS, spent
from companion.evidence.facts import FACTS
from companion.evidence.records import COLUMNS
from companion.evidence.reported import plain_name, reported_curve
from companion.evidence.scales import departures
from companion.evidence.statistics import Crossing, Difference, Floats
from lthlib.errors import ConfigError

Side = Literal["for", "against", "undecided"]

# What may feed a verdict, by the names in a table of `View.of`.
DATASETS = tuple(map(plain_name, ("cifar10", "cifar100", "tiny-imagenet", "imagenet")))
# The fewest seeds of a dense reference and at the two densities that decide d*, and the fewest
# networks of which 'most' can be said; of a curve, as many as the look has. One is enough where
# nothing is decided.
_FEWEST = {"dense seeds": 10, "deciding seeds": 10, "networks": 3}
_OTHERS = ("GMP", "IMP", "IMP-C", "OMP", "BiP", "Hydra", "SNIP", "GraSP", "SynFlow")
_WHERE = ["dataset", "architecture", "structure"]
_REPLICATE = ["study", "seed"]
# What is read of a table from `tidy`.
_READ = (
    *("study", "scale", *_WHERE, "label", "seed", "judged", "round", "rounds", "density"),
    *("test_accuracy", "validation_accuracy", "status", "device_name", "run", "root", "setup"),
    *(*UNITS, *(f"pretraining_{unit}" for unit in UNITS), "own_epochs"),
)
_TINY = 1e-9
COUNTING = "counting"


class Lacking(Exception):
    """What a comparison cannot be made without, a text each."""


@dataclass(frozen=True)
class Look:
    """When a comparison is decided.

    Attributes:
        n: a number of seeds.
        alpha: the two-sided level of significance.
    """

    n: int
    alpha: float

    @classmethod
    def read(cls, text: str) -> tuple[Look, ...]:
        """Return the looks that a text names: `5:0.0052|10:0.048`."""
        pairs = (pair.split(":") for pair in text.split("|"))
        return tuple(cls(int(n), float(alpha)) for n, alpha in pairs)


_COUNTED = Look(1, 1 - stats.LEVEL)


@dataclass(frozen=True)
class Part:
    """One comparison: the side of the claim it falls on, what was found, its sentence.

    Attributes:
        side: of the claim, as of `side_of`.
        value: what was found.
        text: the sentence.
        look: at which it was decided; None where that takes more seeds.
        open: whether a later look may change it.
        lean: the side if the mean stays what it is.
        unit: of the value; none of a ratio.
    """

    side: Side
    value: Difference
    text: str
    look: Look | None = None
    open: bool = False
    lean: Side = "undecided"
    unit: str = ""

    @property
    def alpha(self) -> float:
        """The level of significance it is judged at."""
        return self.look.alpha if self.look else 1 - stats.LEVEL


@dataclass(frozen=True)
class View:
    """The rows that may feed a verdict at one scale, and facts measured outside any record.

    Only runs that succeeded on the papers' data sets count: no digits, no generated image folders.

    A network is named with its data set, `cifar10 / resnet20`, and with the structure of its
    tickets if they have one: `cifar10 / resnet20, filter`. A curve is named by a record's label and
    by how its tickets were judged: `BiP as found`, `BiP retrained`; a dense network by its label.

    Attributes:
        rows: of a table from `tidy`, what of it is read.
        scale: `paper`, `reduced` or `counting`.
        facts: by name.
        failed: the number of runs that did not succeed.
        looks: when comparisons are decided; none where they only show a direction.
        apart: runs that were said to be at the papers' scale and are not, in studies that could be
            judged, with the reason, a text each.
        counted: the view of what methods declare to cost.
        waiting: the studies that are to be judged in place of another once they have the seeds, a
            text each.
    """

    rows: pd.DataFrame
    scale: str
    facts: Mapping[str, float]
    failed: int = 0
    looks: tuple[Look, ...] = ()
    apart: tuple[str, ...] = ()
    counted: View | None = None
    waiting: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        table: pd.DataFrame,
        scale: str,
        facts: Mapping[str, float],
        families: str,
        lead: str = "",
    ) -> View:
        """Return the view of a tidy table at `paper` or `reduced` scale, or of `counting`.

        Args:
            table: from `tidy`.
            scale: one of these.
            facts: measured outside any record.
            families: whose protocols a run has to follow to be at paper scale, with `|` between
                them. One that does not is at reduced scale, whatever its recipe says.
            lead: the label whose studies are told of, if they are not at paper scale.

        Raises:
            ConfigError: the table lacks a column of `tidy`.
        """
        if missing := sorted(set(COLUMNS) - set(table.columns)):
            raise ConfigError(f"the table lacks columns {missing}; make it with tidy(records)")
        scales = ["paper", "reduced"] if scale == "reduced" else [scale]
        rows = table.loc[table["scale"].isin(scales), list(_READ)]
        names = {name: rows[name].map(plain_name) for name in ("dataset", "architecture")}
        # Of a search with gates the last round's ticket counts: rounds differ in how long was
        # searched, and are no curve.
        last = ~(rows["round"] < rows["rounds"] - 1).fillna(False).astype(bool)
        rows = rows.assign(**names)[names["dataset"].isin(DATASETS) & last]
        setups = rows[["scale", "setup", "dataset", "architecture", "label"]]
        reasons = [
            departures(setup, families, *net, label.startswith("dense, ")) * (stated == "paper")
            for stated, setup, *net, label in setups.itertuples(index=False)
        ]
        rows = rows.assign(reason=np.array(reasons, object))
        of_lead = rows["study"].isin(rows.loc[_has_label(rows, lead), "study"])
        off = rows[of_lead & (rows["reason"] != "")].groupby("reason")["run"].nunique()
        apart = tuple(f"{count} runs ({reason})" for reason, count in off.items())
        rows = rows[(rows["scale"] != scale) == (rows["reason"] != "")]
        good = rows["status"] == "ok"
        return cls(rows[good], scale, facts, int(rows.loc[~good, "run"].nunique()), apart=apart)

    def led_by(self, label: str, studies: Sequence[str] = ()) -> View:
        """Return the view of one study for each network and structure: the first of `studies` that
        has tickets of this label, then the first other by name.

        Studies train one network by different recipes; rows of two are never compared. One that
        has too few seeds of the label for the first look comes after all that have them. The dense
        rows are those of the studies chosen. A network where no study has the label keeps all.
        """
        seeds = (
            self.rows[_has_label(self.rows, label)].groupby([*_WHERE, "study"])["seed"].nunique()
        )
        first = self.looks[0].n if self.looks else 1

        ranks: dict[tuple[str, ...], list[tuple[bool, int, str, int]]] = {}
        for *where, study, count in seeds.reset_index().itertuples(index=False):
            listed = studies.index(study) if study in studies else len(studies)
            ranks.setdefault(tuple(where), []).append((count < first, listed, study, count))
        leads = {where: min(ranking)[2] for where, ranking in ranks.items()}
        waiting = tuple(
            f"{study} takes the place of {leads[where]} at {first} seeds of {label}; it has {count}"
            for where, ranking in ranks.items()
            for few, *listed, count in ranking
            if (study := listed[1]) and listed < list(min(ranking)[1:3])
        )
        mask = []
        for *where, name, study in self.rows[[*_WHERE, "label", "study"]].itertuples(index=False):
            allowed = {lead for led, lead in leads.items() if led[:2] == tuple(where[:2])}
            if tuple(where) in leads and not name.startswith("dense"):
                allowed = {leads[tuple(where)]}
            mask.append(not allowed or study in allowed)
        rows = self.rows[np.array(mask, bool)]
        rows = rows.drop_duplicates(["label", "run", "round", "judged"])
        return replace(self, rows=rows, waiting=waiting)

    @property
    def networks(self) -> int:
        """The fewest networks of which 'most' can be said."""
        return _FEWEST["networks"] if self.looks else 1

    def select(self, net: str, curve: str, seeds: int | None = None) -> pd.DataFrame:
        """Return the rows of one curve on one network, of its first seeds if not of all;
        `replicate` counts its seeds in order."""
        key = net, curve, seeds
        if key not in self._selected:
            rows = self._select(net, curve) if seeds is None else self.select(net, curve)
            if seeds is not None and len(rows):
                rows = rows[rows["replicate"] < seeds]
            self._selected[key] = rows
        return self._selected[key]

    def tickets(self, net: str, curve: str, seeds: int | None, value: str) -> stats.Tickets:
        """Return the same as arrays, with one of the columns."""
        key = net, curve, seeds, value
        if key not in self._tickets:
            self._tickets[key] = stats.Tickets.of(self.select(net, curve, seeds), value)
        return self._tickets[key]

    def _select(self, net: str, curve: str) -> pd.DataFrame:
        where, _, structure = net.partition(", ")
        dataset, architecture = where.split(" / ")
        label, manner = (*re.split(r" (as found|retrained)$", curve), "")[:2]
        judged = manner.removeprefix("as ") or "found"
        key = (dataset, architecture, structure if structure and manner else "unstructured", judged)
        # A label may say so itself: `CS, as found` is the same curve as `CS` judged as found.
        keys = [(*key, label), (*key, f"{label}, {manner}")]
        groups = [self._curves[key] for key in keys if key in self._curves]
        if not groups:
            return self._nothing
        rows = pd.concat(groups) if len(groups) > 1 else groups[0]
        return rows.assign(replicate=rows[_REPLICATE].groupby(_REPLICATE).ngroup())

    @cached_property
    def _nothing(self) -> pd.DataFrame:
        return self.rows[:0].assign(replicate=0)

    @cached_property
    def _selected(self) -> dict[tuple[str, str, int | None], pd.DataFrame]:
        return {}

    @cached_property
    def _tickets(self) -> dict[tuple[str, str, int | None, str], stats.Tickets]:
        return {}

    @cached_property
    def _curves(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.rows.groupby([*_WHERE, "judged", "label"])))

    def nets(self, *curves: str) -> list[str]:
        """Return the networks that hold all of the curves, unstructured."""
        names = sorted(set(zip(self.rows["dataset"], self.rows["architecture"], strict=True)))
        nets = map(" / ".join, names)
        return [net for net in nets if all(len(self.select(net, curve)) for curve in curves)]


@dataclass(frozen=True)
class Case:
    """Two curves on a network, to be compared over a view.

    Attributes:
        view: what it is compared over.
        net: the network, as a `View` names it.
        ours: one curve.
        theirs: the other; empty where there is none.
        stands: for which values the claim stands, as for `side_of`.
        of: what else the comparison needs.
        compare: the comparison's name.
        look: at which it is to be decided; None to see how it stands with the seeds there are.
        first: how many of each curve's seeds count, in their order; all if None.
    """

    view: View
    net: str
    ours: str
    theirs: str
    stands: str
    of: str
    compare: str
    look: Look | None = None
    first: int | None = None

    @property
    def level(self) -> float:
        """Of the intervals: that of the look, or of the first there will be."""
        look = self.look or next(iter(self.view.looks), None)
        return 1 - look.alpha if look else stats.LEVEL

    def fewest(self, kind: str) -> int:
        """The fewest of something that decide: `seeds`, `dense seeds`, `networks`, ..."""
        if self.look is None or kind == "any":
            return 1
        return max(self.look.n, _FEWEST.get(kind, 0))

    @property
    def band(self) -> Floats:
        """The densities over which methods are compared on this network."""
        return stats.band(self.net.partition(" / ")[2])

    def rows(self, curve: str) -> pd.DataFrame:
        """The rows of a curve, of its first seeds; of a dense network, of as many as it needs."""
        return self.view.select(self.net, curve, self._seeds_of(curve))

    def tickets(self, curve: str, value: str) -> stats.Tickets:
        """The same as arrays, with one of the columns."""
        return self.view.tickets(self.net, curve, self._seeds_of(curve), value)

    def _seeds_of(self, curve: str) -> int | None:
        if self.first is None:
            return None
        return max(self.first, _FEWEST["dense seeds"] * curve.startswith("dense"))

    @property
    def limit(self) -> float:
        """The value at which the claim begins or ends to stand."""
        return float(self.stands.rpartition(" ")[2])

    def on_grid(self, curve: str, grid: Floats, value: str = "test_accuracy") -> pd.DataFrame:
        """A curve's replicates on densities, followed across no more than a round of IMP."""
        return stats.on_grid(self.rows(curve), grid, value, widest=stats.ROUND)

    def densities(self, name: str) -> Floats:
        """The band, or only its `dense end`, `middle` or `sparse end`."""
        indices = {"dense end": 0, "middle": len(self.band) // 2, "sparse end": -1}
        return self.band[[indices[name]]] if name else self.band

    def shared(self, value: str = "test_accuracy") -> tuple[pd.Series, pd.Series]:
        """Both curves' means by replicate over the densities of the band that both measured."""
        ours, theirs = (self.tickets(curve, value) for curve in (self.ours, self.theirs))
        seeds = [tickets.seeds_in_band(self.band) for tickets in (ours, theirs)]
        self.demand({self.ours: seeds[0], self.theirs: seeds[1]}, self.band)
        means = stats.shared_means(ours, theirs, self.band, self.fewest("seeds"))
        if means[0].empty:
            where = f"on {self.net} at densities in common over {_percent(self.band)}"
            raise Lacking(f"{self.ours} and {self.theirs} {where}")
        return means

    def seeds(self) -> int:
        """How many replicates the longer of both curves has."""
        curves = (self.ours, self.theirs) if self.net else ()
        counts = (self.rows(curve)["replicate"].max() + 1 for curve in curves)
        return int(np.nanmax([0, *counts]))

    def short(
        self, samples: Mapping[str, Sized], grid: Floats | None = None, kind: str = "seeds"
    ) -> list[str]:
        """Name the curves of which there are too few replicates."""
        fewest, where = self.fewest(kind), ""
        if grid is not None:
            where = f" over {_percent(grid)} density"
        amount = f"({fewest} seed{'s' * (fewest > 1)} or more at {self.view.scale} scale)"
        few = [curve for curve, sample in samples.items() if len(sample) < fewest]
        return [f"{curve} on {self.net}{where} {amount}" for curve in few]

    def demand(
        self, samples: Mapping[str, Sized], grid: Floats | None = None, kind: str = "seeds"
    ) -> None:
        """Raise `Lacking` for the curves of which there are too few replicates."""
        if few := self.short(samples, grid, kind):
            raise Lacking(" and ".join(few))

    def part(self, value: Difference, name: str, unit: str, where: str, stands: str = "") -> Part:
        """Return a comparison with its sentence, `what = effect unit [interval] where, n = ...`."""
        form = "+.2f" if unit else ".2f"
        words = [name, "=", f"{value.mean:{form}}", *unit.split()]
        if self.view.scale == COUNTING:
            value = exact(value.mean)
            return Part(side_of(value, self.stands), value, " ".join((*words, where)), _COUNTED)
        interval = "without interval"
        if value.high - value.low <= _TINY * abs(value.mean):
            interval = "in every seed,"
        elif not math.isnan(value.low):
            interval = f"[{value.low:{form}}, {value.high:{form}}]"
        text = " ".join((*words, interval, f"{where}, n = {value.n}{' pairs' * value.paired}"))
        return Part(side_of(value, stands or self.stands), value, text, unit=unit)


def _has_label(rows: pd.DataFrame, label: str) -> pd.Series:
    """Which are tickets of a label, and not of a precision of it."""
    return rows["label"].isin([label, f"{label}, as found"])


def exact(value: float) -> Difference:
    """Return a value without doubt, as a count is."""
    return Difference(1, False, value, value, value, value, value, 0.0)


def side_of(value: Difference, stands: str) -> Side:
    """Return the side on which a value's interval lies, `undecided` if on neither.

    Args:
        value: what was found.
        stands: for which values the claim does: `above 0`, `below 1.1`, `at least 2`, `at most 1.5`
            by the two-sided interval; `not below -0.2`, `within 0.5` by the one-sided bounds.
    """
    relation, _, number = stands.rpartition(" ")
    limit = float(number)
    if relation == "within":
        ends = {side_of(value, f"not below {-limit}"), side_of(value, f"not above {limit}")}
        return "against" if "against" in ends else "for" if ends == {"for"} else "undecided"
    low, high = (
        (value.lower, value.upper) if relation.startswith("not") else (value.low, value.high)
    )
    if relation in ("below", "at most", "not above"):
        low, high, limit = -high, -low, -limit
    if relation.startswith("at "):
        limit -= _TINY
    if low > limit:
        return "for"
    return "against" if high < limit else "undecided"


def all_of(parts: Sequence[Part]) -> Side | None:
    """Return `for` if all are, `against` if one is, None if there are none, else `undecided`.

    By Bonferroni's correction: one of many is against by chance more often than one alone.
    """
    if not parts:
        return None
    against = [part for part in parts if part.side == "against"]
    if any(not len(parts) * part.value.p / 2 > part.alpha for part in against):
        return "against"
    return "for" if {part.side for part in parts} == {"for"} else "undecided"


def most_of(sides: Sequence[Side], fewest: int = 1) -> Side | None:
    """Return the side on which more than half lie, None if there are none, else `undecided`, as
    fewer are than it takes."""
    if len(sides) < fewest:
        return "undecided" if sides else None
    common = max(set(sides), key=sides.count)
    return common if 2 * sides.count(common) > len(sides) else "undecided"


def band(case: Case) -> Part:
    """Compare two curves by the difference of their means over the band, in points.

    Seeds are pairs where the tickets of both curves rest on the same runs.
    """
    ours, theirs = case.shared()
    roots = [set(case.rows(curve)["root"]) for curve in (case.ours, case.theirs)]
    compare = stats.compare if roots[0] == roots[1] else stats.welch_difference
    where = f"over {_percent(case.band)} density ({case.net})"
    gap = compare(ours, theirs, case.limit, case.level)
    return case.part(gap, f"{case.ours} - {case.theirs}", "points", where)


def best_other(case: Case) -> Part:
    """Compare with the other method that is best over the band on validation.

    `theirs` is how its tickets are judged.
    """
    gains = {}
    for label in _OTHERS:
        with suppress(Lacking):
            against = replace(case, theirs=f"{label} {case.theirs}")
            ours, theirs = against.shared("validation_accuracy")
            gains[label] = theirs.mean() - ours.mean()
    best = max(gains, key=lambda label: gains[label], default="another pruner")
    return band(replace(case, theirs=f"{best} {case.theirs}"))


def point(case: Case) -> Part:
    """Compare two curves at one place of the band, which `of` names."""
    (density,) = grid = case.densities(case.of)
    ours, theirs = (
        case.on_grid(curve, grid)[density].dropna() for curve in (case.ours, case.theirs)
    )
    case.demand({case.ours: ours, case.theirs: theirs}, grid)
    gap = stats.welch_difference(ours, theirs, case.limit, case.level)
    where = f"at {_percent(grid)} density ({case.net})"
    return case.part(gap, f"{case.ours} - {case.theirs}", "points", where)


def ends(case: Case) -> Part:
    """Compare what two searches end with, by the means over some densities, which `of` names."""
    grid = np.array(case.of.split(), float)
    ours, theirs = (
        stats.at_densities(case.rows(curve), grid.tolist()) for curve in (case.ours, case.theirs)
    )
    case.demand({case.ours: ours, case.theirs: theirs}, grid)
    gap = stats.compare(ours, theirs, case.limit, case.level)
    where = f"over {_percent(grid)} density ({case.net})"
    return case.part(gap, f"{case.ours} - {case.theirs}", "points", where)


def level(case: Case) -> Part:
    """Compare with dense at the middle of the band, or up to a round sparser: of each seed the
    densest ticket there."""
    dense, rows = _dense_accuracies(case), case.rows(case.ours)
    middle = float(case.band[len(case.band) // 2])
    near = rows[rows["density"].between(0.79 * middle, 1.01 * middle)]
    tickets = near.loc[near.groupby(_REPLICATE)["density"].idxmax(), "test_accuracy"]
    case.demand({case.ours: tickets}, np.array([middle, 0.8 * middle]))
    where = f"at {100 * middle:.2g} % density ({case.net})"
    gap = stats.welch_difference(tickets, dense, case.limit, case.level)
    return case.part(gap, f"{case.ours} - dense", "points", where)


def gain(case: Case) -> Part:
    """Compare the ticket chosen on validation with dense.

    `of` is the gain that was claimed, and the most that a ticket may keep if not all: `0.8, 50 %`.
    The claim stands where there is a gain, and falls where none as large can be.
    """
    claimed, _, densest = case.of.partition(", ")
    reference, rows = _dense_accuracies(case), case.rows(case.ours)
    sparse = rows[100 * rows["density"] <= float(densest.removesuffix(" %") or 100)]
    chosen = stats.best_on_validation(sparse).set_index(_REPLICATE)
    if few := case.short({case.ours: chosen}):
        raise Lacking(f"{few[0]}, with validation accuracy")
    gap = stats.compare(chosen["test_accuracy"], reference, float(claimed), case.level)
    name = f"validation-chosen {case.ours} - {case.theirs}"
    stands = case.stands if gap.lower > 0 else f"above {claimed}"
    return case.part(gap, name, "points", f"({case.net})", stands)


def whole_gain(case: Case) -> Part:
    """The same, by its mean: whether it is all that was claimed."""
    part = gain(case)
    claimed = float(case.of.partition(", ")[0])
    return replace(part, side="for" if part.value.mean >= claimed else "undecided")


def gate(case: Case) -> Part:
    """Compare what a method loses against dense with independently published data."""
    curve, dense = (
        case.on_grid(case.ours, case.band).dropna().mean(axis=1),
        _accuracies_of_theirs(case),
    )
    few = case.short({case.ours: curve}, case.band)
    if few := [*few, *case.short({case.theirs: dense}, kind="dense seeds")]:
        raise Lacking(*few)
    dataset, architecture = case.net.split(" / ")
    theirs = reported_curve(dataset, architecture, artefact="published data").set_index("method")
    imp = theirs.loc["IMP, weight rewinding"]
    published = stats.interpolate(imp["density"], imp["value"], case.band).mean()
    expected = float(published - theirs.loc[["dense"], "value"].iloc[0])
    gap = stats.welch_difference(curve - expected, dense, level=case.level)
    where = f"from Renda et al.'s {expected:+.2f} over {_percent(case.band)} density"
    return case.part(gap, "our IMP - dense, apart", "points", where)


def cost(case: Case) -> Part:
    """Compare what a ticket costs, as a ratio, where it is greatest over the band.

    `of` is the unit and what is counted: `passes with pretraining`, `seconds without pretraining`,
    and if one is meant the place in the band. Passes are images sent forward plus images sent
    backward.
    """
    amount, _, position = case.of.partition(", ")
    unit, counted = amount.split(" ", 1)
    pretraining, grid = counted.startswith("with "), case.densities(position)
    names = (case.ours, case.theirs)
    if not pretraining and (few := case.short({"dense": case.rows("dense")}, kind="any")):
        raise Lacking(*few)
    curves = [case.rows(curve) for curve in names]
    if unit == "seconds" and pd.concat(curves)["device_name"].nunique() > 1:
        raise Lacking(f"{case.ours} and {case.theirs} on {case.net} timed on one device")
    paid = [rows.assign(cost=spent(rows, unit, pretraining)) for rows in curves]
    costs = [
        stats.on_grid(rows[rows["cost"] > 0], grid, "cost", widest=stats.ROUND) for rows in paid
    ]
    enough = [curve.notna().sum() >= case.fewest("seeds") for curve in costs]
    logs = [np.log(curve.loc[:, enough[0] & enough[1]]).mean() for curve in costs]
    if logs[0].empty:
        case.demand(dict.fromkeys(names, ()), grid)
    density = (logs[0] - logs[1]).idxmax()
    ours, theirs = (curve[density].dropna() for curve in costs)
    value = stats.ratio(ours, theirs, case.limit, case.level)
    where = f"at {100 * density:.2g} % density {counted} ({case.net})"
    return case.part(value, f"{unit} of {case.ours} / {case.theirs}", "", where)


def growth(case: Case) -> Part:
    """A ticket's cost in passes at the band's sparse end, relative to its dense end."""
    ends = case.band[[-1, 0]]
    costs = case.on_grid(case.ours, ends, "passes").dropna()
    case.demand({case.ours: costs}, ends)
    value = stats.ratio(costs.iloc[:, 0], costs.iloc[:, 1], case.limit, case.level)
    where = f"from {_percent(ends)} density ({case.net})"
    return case.part(value, f"passes of {case.ours}, growth", "", where)


def star(case: Case) -> Part:
    """Compare d* of two curves as a ratio: below 1 where ours is sparser."""
    return _compare_stars(case, *_stars(case))


def star_in_equal_time(case: Case) -> Part:
    """The same; a win over fewer epochs, or a defeat by more, decides nothing."""
    crossings = _stars(case)
    part = _compare_stars(case, *crossings)
    ours, theirs = (
        float(case.on_grid(curve, np.array([crossing.density]), "epochs").mean().iloc[0])
        for curve, crossing in zip((case.ours, case.theirs), crossings, strict=True)
    )
    unfair = {"for": theirs < 0.9 * ours, "against": theirs > 1.1 * ours}
    side = "undecided" if unfair.get(part.side) else part.side
    return replace(part, side=side, text=f"{part.text}, {ours:.0f} against {theirs:.0f} epochs")


def _stars(case: Case) -> list[Crossing]:
    """d* of both curves. The bootstrap's generator has a fixed seed."""
    dense = _dense_accuracies(replace(case, theirs="dense"))
    crossings = []
    for curve, rng in zip((case.ours, case.theirs), np.random.default_rng(0).spawn(2), strict=True):
        crossing = stats.d_star(case.on_grid(curve, stats.IMP_DENSITIES), dense, rng)
        if crossing is None or crossing.n < case.fewest("deciding seeds"):
            raise Lacking(f"{case.short({curve: ()}, kind='deciding seeds')[0]} around d*")
        crossings.append(crossing)
    return crossings


def _compare_stars(case: Case, first: Crossing, second: Crossing) -> Part:
    # The least and the most that the ratio can be: a curve that ends before it crosses, or crosses
    # where nothing was measured, bounds its d*.
    with np.errstate(divide="ignore"):
        smallest = first.draws[:, 0] / second.draws[:, 1]
        greatest = first.draws[:, 1] / second.draws[:, 0]
    smallest, greatest = np.sort(smallest), np.sort(greatest)
    tails = [int((1 - case.level) * share * smallest.size) for share in (0.5, 1)]
    (low, lower), (high, upper) = (
        [float(end[i]) for i in tails] for end in (smallest, greatest[::-1])
    )
    ratio, n = first.density / second.density, min(first.n, second.n)
    p = float(2 * min((smallest <= case.limit).mean(), (greatest >= case.limit).mean()))
    value = Difference(n, False, ratio, low, high, lower, upper, p)
    stars = " / ".join(map(_density_in_words, (first, second)))
    text = (
        f"d* of {case.ours} / {case.theirs} = {stars} = "
        f"{ratio:.2f} [{low:.2f}, {high:.2f}] at {stats.MARGIN} points from dense ({case.net}), "
        f"n = {n}"
    )
    return Part(side_of(value, case.stands), value, text)


def sequence(case: Case) -> Part:
    """Epochs in sequence: IMP's 30 rounds against the longest search, searches in parallel."""
    search, imp = case.rows(case.ours), case.rows(case.theirs)
    if imp["density"].min() > 1.02 * stats.IMP_DENSITIES[-1]:
        raise Lacking(f"IMP on {case.net} for 30 rounds")
    theirs, ours = (rows.groupby(_REPLICATE)["epochs"].max() for rows in (imp, search))
    case.demand({case.ours: min(ours, theirs, key=len)})
    value = stats.ratio(theirs, ours, case.limit, case.level)
    return case.part(value, "epochs in sequence of IMP / CS", "", f"({case.net})")


def spread(case: Case) -> Part:
    """Compare how far seeds' means over the band spread, as a ratio of standard deviations."""
    where = f"over {_percent(case.band)} density ({case.net})"
    name = f"spread over seeds of {case.ours} / {case.theirs}".replace(" as found", "")
    return case.part(stats.spread_ratio(*case.shared(), case.level), name, "", where)


def fact(case: Case) -> Part:
    """A fact; `of` says it, with {} for its value."""
    if case.ours not in case.view.facts:
        raise Lacking(f"fact {case.ours}: {FACTS[case.ours]}")
    value = exact(case.view.facts[case.ours])
    return Part(side_of(value, case.stands), value, case.of.format(value.mean), _COUNTED)


def searches(case: Case) -> Part:
    """How many searches of a seed a method was given, to be no fewer than another's."""
    curves = [case.rows(curve).groupby(_REPLICATE) for curve in (case.ours, case.theirs)]
    ours, theirs = (replicates["run"].nunique().max() for replicates in curves)
    if not ours >= theirs:  # nor where one of them was not run
        raise Lacking(f"{case.ours} on {case.net}, as many searches a seed as {case.theirs}")
    text = f"{ours} searches a seed of {case.ours}, {theirs} of {case.theirs} ({case.net})"
    return Part("for", exact(ours / theirs), text, _COUNTED)


def enough_networks(case: Case) -> None:
    """Nothing to compare, but enough networks of which 'most' can be said; `of` names them."""
    if len(case.view.nets(case.ours, case.theirs)) < case.view.networks:
        raise Lacking(case.of)


def _accuracies_of_theirs(case: Case) -> pd.Series:
    """Test accuracies of the dense network that is compared with, by replicate."""
    return case.tickets(case.theirs, "test_accuracy").means().dropna()


def _dense_accuracies(case: Case) -> pd.Series:
    values = _accuracies_of_theirs(case)
    case.demand({case.theirs: values}, kind="dense seeds")
    return values


def _percent(grid: Floats) -> str:
    return "-".join(dict.fromkeys(f"{100 * end:.2g}" for end in (max(grid), min(grid)))) + " %"


def _density_in_words(crossing: Crossing) -> str:
    return f"{stats.EDGES[crossing.edge]}{100 * crossing.density:.2g} %"
