"""Whether a study that is computed again says what its record says: which numbers drifted.

Counts, costs and the set of tickets have to be equal. Accuracies, and the densities that a method
finds by itself, may differ by chance: another processor rounds otherwise, and training amplifies
it. Their means are tested, ticket by ticket and over each curve, all together by Holm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion.evidence.records import seedless
from companion.evidence.retest import Retested, Spread, draw, retest, spread_of
from companion.evidence.statistics import Floats, holm
from lthlib.records import COSTS, validate

LEVEL = 0.001
ACCURACY, DENSITY = "test accuracy", "density"
# Smaller differences are no drift: points of accuracy; of a density, one part in a hundred.
TOLERANCE = {ACCURACY: 0.2, DENSITY: 0.01}
ALL = "all tickets together"
_EQUAL = ("method", "method_version", "label", "scale", "total")
_COUNTED = tuple(name for name in COSTS if name != "seconds")
Record = Mapping[str, Any]
_Key = tuple[str, str, str]


@dataclass(frozen=True)
class Number:
    """A number of a study, as recorded and as computed again.

    label: the curve. where: the ticket. quantity: what was compared. standard_errors: the
    difference, in its standard errors. p: Holm's, for no difference beyond the tolerance. Both are
    None where the numbers have to be equal, and NaN where no seeds show a spread. runs: ids.
    """

    label: str
    where: str
    quantity: str
    recorded: Any
    computed: Any
    standard_errors: float | None
    p: float | None
    runs: tuple[str, ...]

    @property
    def drifted(self) -> bool:
        """Whether it is another number: unequal, or beyond tolerance and chance."""
        return self.recorded != self.computed if self.p is None else self.p < LEVEL


@dataclass(frozen=True)
class Comparison:
    """What comparing a record with its recomputation found.

    exact: how many numbers had to be equal. numbers: those of them that are not, then all that were
    tested. curves: by label, how many tickets both have, and how many of those are identical.
    """

    exact: int
    numbers: tuple[Number, ...]
    curves: Mapping[str, tuple[int, int]]

    @property
    def tickets(self) -> int:
        """How many tickets both have."""
        return sum(both for both, _ in self.curves.values())

    @property
    def identical(self) -> int:
        """How many of them agree in accuracies and kept weights to the last digit."""
        return sum(same for _, same in self.curves.values())

    @property
    def drifted(self) -> list[Number]:
        """The numbers that drifted."""
        return [number for number in self.numbers if number.drifted]


def compare_records(
    recorded: Iterable[Record], computed: Iterable[Record], runs: Iterable[str] | None = None
) -> Comparison:
    """Compare a study's published records with records computed again.

    Args:
        recorded: all published records of the study; those that were not computed again still show
            how far seeds spread.
        computed: the new records.
        runs: ids of the runs that were to be computed again, default all recorded ones.

    Raises:
        RecordError: a computed record does not follow the schema.
    """
    ours, theirs = _by_ticket(recorded), _by_ticket(computed)
    for record in theirs.values():
        validate(record, f"{record['label']}, run {record['run']}, computed again")
    chosen = {key[0] for key in ours} if runs is None else set(runs)
    due = [key for key in ours if key[0] in chosen]
    shared = {key: theirs[key] for key in due if key in theirs}
    extra = [key for key in theirs if key not in ours]
    equal = [_presence(ours.get(key), theirs.get(key)) for key in (*due, *extra)]
    curves: dict[str, tuple[int, int]] = {}
    for key in shared:
        equal += _equal(ours[key], theirs[key], theirs)
        label = ours[key]["label"]
        both, same = curves.get(label, (0, 0))
        curves[label] = (both + 1, same + (_outcome(ours[key]) == _outcome(theirs[key])))
    unequal = [number for number in equal if number.drifted]
    tested = _tested([_table(name, ours, shared) for name in TOLERANCE])
    return Comparison(len(equal), (*unequal, *tested), curves)


def alarm_rate(
    recorded: Iterable[Record],
    computed: Iterable[Record],
    rng: np.random.Generator,
    simulations: int = 2000,
    shift: Mapping[str, float] | None = None,
) -> float:
    """Return how often made-up re-runs would be said to have drifted, by the numbers tested.

    They have new seeds, spread as the record's spread and its means known no better than it knows
    them (`retest.draw`), rounded as accuracies are. Real re-runs share their seeds: they differ
    less.

    Args:
        recorded: all published records of the study.
        computed: what was computed again; only its runs are read.
        rng: source of the draws.
        simulations: how many.
        shift: points by which the accuracies of a curve, by label, drift; none if left out.
    """
    ours, theirs = _by_ticket(recorded), _by_ticket(computed)
    shared = {key: theirs[key] for key in ours if key in theirs}
    tables = [_table(name, ours, shared) for name in TOLERANCE]
    drawn = [_made_up(table, rng, simulations, shift or {}) for table in tables]
    alarms = 0
    for values in zip(*drawn, strict=True):
        tests = [table.test(one).p for table, one in zip(tables, values, strict=True)]
        p = np.concatenate(tests)
        p = p[np.isfinite(p)]
        alarms += bool(len(p) * p.min(initial=1.0) < LEVEL)  # Holm's first step
    return alarms / simulations


def _made_up(
    table: _Table, rng: np.random.Generator, simulations: int, shift: Mapping[str, float]
) -> Floats:
    values = draw(table.recorded, table.labels, table.spread, rng, simulations)
    if table.quantity == ACCURACY:
        values += np.array([shift.get(str(label), 0.0) for label in table.labels])[:, None]
        # As accuracies are: so many of a number of images.
        steps = np.diff(np.unique(table.recorded[np.isfinite(table.recorded)]))
        step = steps[steps > 1e-6].min(initial=100.0)
        values = np.clip(np.round(values / step) * step, 0, 100)
    return np.where(np.isfinite(table.computed), values, math.nan)


def _by_ticket(records: Iterable[Record]) -> dict[_Key, Record]:
    found = {}
    for record in records:
        point = record["ticket"]["point"] if record["status"] == "ok" else ""
        found[record["run"], point, record["judged"]] = record
    return found


def _outcome(record: Record) -> tuple[Any, Any]:
    return record["accuracy"], record["kept"]


def _presence(recorded: Record | None, computed: Record | None) -> Number:
    known = recorded or computed
    assert known is not None
    states = ["absent" if one is None else one["status"] for one in (recorded, computed)]
    return _exact(known, "ticket", *states)


def _exact(record: Record, quantity: str, recorded: Any, computed: Any) -> Number:
    density = record["density"]
    where = f"seed {record['seed']}" + (f", at {100 * density:.3g} %" if density else "")
    run = (str(record["run"]),)
    return Number(record["label"], where, quantity, recorded, computed, None, None, run)


def _equal(ours: Record, theirs: Record, others: Mapping[_Key, Record]) -> Iterator[Number]:
    """What has to be equal of a ticket that both have."""
    for name in _EQUAL:
        yield _exact(ours, name.replace("_", " "), ours[name], theirs[name])
    for span in ("own", "cumulative"):
        for name in _COUNTED:
            costs = [one["cost"][span][name] for one in (ours, theirs)]
            yield _exact(ours, f"{span} {name.replace('_', ' ')}", *costs)
    if ours["status"] != "ok":
        return
    targets = [one["ticket"]["target_density"] for one in (ours, theirs)]
    yield _exact(ours, "target density", *targets)
    if targets[0] is not None:
        yield _exact(ours, "kept weights", ours["kept"], theirs["kept"])
    elif ours["method"] == "retrain":
        parent = others.get((ours["parent"], ours["config"]["parent"]["point"], "found"))
        if parent is not None:
            yield _exact(ours, "kept weights, as found", parent["kept"], theirs["kept"])


@dataclass(frozen=True)
class _Table:
    """All values of one quantity: [tickets, seeds], NaN where none is.

    labels, densities, runs: of each ticket; a ticket's replicates differ in the seed alone.
    """

    quantity: str
    recorded: Floats
    computed: Floats
    labels: NDArray[np.str_]
    densities: list[float]
    runs: list[tuple[str, ...]]

    @cached_property
    def curves(self) -> list[str]:
        """Labels of several tickets."""
        names, counts = np.unique(self.labels, return_counts=True)
        return [str(name) for name in names[counts > 1]]

    @cached_property
    def members(self) -> Floats:
        """Whether a ticket belongs to a curve, [curves, tickets], 0 or 1."""
        belong = [self.labels == name for name in self.curves]
        return np.array(belong, float).reshape(len(belong), len(self.labels))

    @cached_property
    def spread(self) -> Spread:
        """How far the recorded seeds spread."""
        # No less is believed than the variance of rounding to the tolerance.
        floor = TOLERANCE[self.quantity] ** 2 / 12
        return spread_of(self.recorded, self.members, floor, accuracies=self.quantity == ACCURACY)

    def test(self, computed: Floats) -> Retested:
        """Test values against the recorded ones."""
        tolerance = TOLERANCE[self.quantity]
        return retest(self.recorded, computed, self.members, self.spread, tolerance)

    @property
    def subjects(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Label, place and runs of each ticket, then of each curve."""
        places = [f"at {100 * density:.3g} %" for density in self.densities]
        tickets = list(zip(self.labels.tolist(), places, self.runs, strict=True))
        curves = [
            (
                name,
                ALL,
                tuple({run: None for label, _, runs in tickets if label == name for run in runs}),
            )
            for name in self.curves
        ]
        return [*tickets, *curves]


def _table(quantity: str, ours: Mapping[_Key, Record], theirs: Mapping[_Key, Record]) -> _Table:
    tickets: dict[tuple[str, ...], dict[int, _Key]] = {}
    for key, record in ours.items():
        if _value(record, quantity) is not None:
            tickets.setdefault(_ticket(record), {})[record["seed"]] = key
    seeds = sorted({seed for replicates in tickets.values() for seed in replicates})
    values = np.full((2, len(tickets), len(seeds)), math.nan)
    for side, records in enumerate((ours, theirs)):
        for place, replicates in enumerate(tickets.values()):
            for seed, key in replicates.items():
                if key in records:
                    values[side, place, seeds.index(seed)] = _value(records[key], quantity)
    keys = [list(replicates.values()) for replicates in tickets.values()]
    return _Table(
        quantity,
        values[0],
        values[1],
        np.array([ticket[0] for ticket in tickets], str),
        [float(np.mean([ours[key]["density"] for key in own])) for own in keys],
        [tuple(key[0] for key in own if key in theirs) for own in keys],
    )


def _value(record: Record, quantity: str) -> float | None:
    if record["status"] != "ok":
        return None
    if quantity == ACCURACY:
        found: float | None = record["accuracy"]["test"]
        return found
    # A method without a target finds its density; a retrained ticket has that of its search.
    found = record["ticket"]["target_density"] is None and record["method"] != "retrain"
    return math.log(record["density"]) if found else None


def _ticket(record: Record) -> tuple[str, ...]:
    config = json.dumps(seedless(record["config"]), sort_keys=True)
    return record["label"], record["judged"], record["ticket"]["point"], config


def _tested(tables: Sequence[_Table]) -> list[Number]:
    tests = [table.test(table.computed) for table in tables]
    p = np.concatenate([test.p for test in tests])
    known = np.isfinite(p)
    p[known] = holm(p[known])
    numbers = []
    for table, test in zip(tables, tests, strict=True):
        own, p = np.split(p, [len(test.p)])
        recorded, computed = test.recorded, test.recorded + test.difference
        if table.quantity == DENSITY:
            recorded, computed = np.exp(recorded), np.exp(computed)
        columns = (recorded, computed, test.difference / test.error, own)
        for (label, where, runs), *row in zip(table.subjects, *columns, strict=True):
            if runs:
                was, now, errors, chance = (float(value) for value in row)
                numbers.append(Number(label, where, table.quantity, was, now, errors, chance, runs))
    return numbers
