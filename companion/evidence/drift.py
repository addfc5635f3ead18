"""Whether a study that is computed again says what its record says: which numbers drifted.

Counts, costs and the set of tickets have to be equal. Accuracies, and the densities that a method
finds by itself, may differ by chance: another processor rounds otherwise, and training amplifies
it. Their means are tested, ticket by ticket and over each curve, all together by Holm.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from companion.evidence.records import seedless
from companion.evidence.retest import Retested, Spread, draw, retest, spread_of
from companion.evidence.statistics import Floats, holm
from lthlib.records import COSTS, validate

LEVEL = 0.001
ACCURACY, DENSITY = "test accuracy", "density"
# Smaller differences are no drift: points of accuracy; of a density, one part in a hundred.
TOLERANCE = {ACCURACY: 0.2, DENSITY: 0.01}
ALL = "all tickets together"
_COUNTED = tuple(name for name in COSTS if name != "seconds")
Record = Mapping[str, Any]
_Key = tuple[str, str, str]


@dataclass(frozen=True)
class Number:
    """A number of a study, as recorded and as computed again.

    Attributes:
        label: the curve.
        where: the ticket.
        quantity: what was compared.
        recorded: the number that was published.
        computed: the number found again.
        standard_errors: the difference, in its standard errors; None where the numbers have to be
            equal, NaN where no seeds show a spread.
        p: Holm's, for no difference beyond the tolerance; None and NaN likewise.
        runs: ids.
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

    Attributes:
        exact: how many numbers had to be equal.
        numbers: those of them that are not, then all that were tested.
        curves: by label, how many tickets both have, and how many of those are identical.
    """

    exact: int
    numbers: tuple[Number, ...]
    curves: Mapping[str, tuple[int, int]]

    @property
    def tickets(self) -> int:
        """How many tickets both have."""
        return sum(count for count, _ in self.curves.values())

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
    equal = [_presence_number(ours.get(key), theirs.get(key)) for key in (*due, *extra)]
    curves: dict[str, tuple[int, int]] = {}
    for key, again in shared.items():
        record = ours[key]
        equal += _exact_numbers(record, again, theirs)
        same = all(record[name] == again[name] for name in ("accuracy", "kept"))
        count, identical = curves.get(record["label"], (0, 0))
        curves[record["label"]] = (count + 1, identical + same)
    unequal = [number for number in equal if number.drifted]
    return Comparison(len(equal), (*unequal, *_tested_numbers(_tables(ours, shared))), curves)


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
    tables = _tables(ours, {key: theirs[key] for key in ours if key in theirs})
    drawn = [table.made_up(rng, simulations, shift or {}) for table in tables]
    alarms = 0
    for values in zip(*drawn, strict=True):
        tests = [table.test(simulated).p for table, simulated in zip(tables, values, strict=True)]
        p = np.concatenate(tests)
        p = p[np.isfinite(p)]
        alarms += bool(len(p) * p.min(initial=1.0) < LEVEL)  # Holm's first step
    return alarms / simulations


def _by_ticket(records: Iterable[Record]) -> dict[_Key, Record]:
    tickets = {}
    for record in records:
        point = record["ticket"]["point"] if record["status"] == "ok" else ""
        tickets[record["run"], point, record["judged"]] = record
    return tickets


def _presence_number(recorded: Record | None, computed: Record | None) -> Number:
    states = ["absent" if record is None else record["status"] for record in (recorded, computed)]
    return _exact_number(recorded or computed or {}, "ticket", *states)


def _exact_number(record: Record, quantity: str, recorded: Any, computed: Any) -> Number:
    density = record["density"]
    where = f"seed {record['seed']}" + (f", at {100 * density:.3g} %" if density else "")
    run = (str(record["run"]),)
    return Number(record["label"], where, quantity, recorded, computed, None, None, run)


def _exact_numbers(ours: Record, theirs: Record, computed: Mapping[_Key, Record]) -> list[Number]:
    """What has to be equal of a ticket that both have."""
    counts, again = _counted(ours), _counted(theirs)
    if ours["status"] == "ok" and counts["target density"] is None:
        del counts["kept weights"]  # chance decides, except of what is retrained
        parent = ours["config"]["parent"]
        search = computed.get((ours["parent"], parent["point"], "found")) if parent else None
        if ours["method"] == "retrain" and search is not None:
            counts["kept weights, as found"] = search["kept"]
            again["kept weights, as found"] = theirs["kept"]
    return [_exact_number(ours, name, value, again[name]) for name, value in counts.items()]


def _counted(record: Record) -> dict[str, Any]:
    counted = {
        name.replace("_", " "): record[name]
        for name in ("method", "method_version", "label", "scale", "total")
    }
    for span in ("own", "cumulative"):
        cost = record["cost"][span]
        counted |= {f"{span} {name.replace('_', ' ')}": cost[name] for name in _COUNTED}
    if record["status"] == "ok":
        counted["target density"] = record["ticket"]["target_density"]
        counted["kept weights"] = record["kept"]
    return counted


@dataclass(frozen=True)
class _Table:
    """All values of one quantity, [tickets, seeds], NaN where none is."""

    # A ticket's replicates differ in the seed alone; a curve is several tickets of one label.

    quantity: str
    recorded: Floats
    computed: Floats
    subjects: list[tuple[str, str, tuple[str, ...]]]  # label, place, runs: of tickets, then curves
    members: Floats  # whether a ticket belongs to a curve, [curves, tickets], 0 or 1
    spread: Spread  # of the recorded seeds

    def test(self, computed: Floats) -> Retested:
        """Test values against the recorded ones."""
        tolerance = TOLERANCE[self.quantity]
        return retest(self.recorded, computed, self.members, self.spread, tolerance)

    def made_up(
        self, rng: np.random.Generator, simulations: int, shift: Mapping[str, float]
    ) -> Floats:
        """Draw re-runs of what was computed again: [simulations, tickets, seeds]."""
        labels = np.array([label for label, *_ in self.subjects[: len(self.recorded)]], str)
        values = draw(self.recorded, labels, self.spread, rng, simulations)
        if self.quantity == ACCURACY:
            values += np.array([shift.get(label, 0.0) for label in labels.tolist()])[:, None]
            # As accuracies are: so many of a number of images.
            steps = np.diff(np.unique(self.recorded[np.isfinite(self.recorded)]))
            step = steps[steps > 1e-6].min(initial=100.0)
            values = np.clip(np.round(values / step) * step, 0, 100)
        return np.where(np.isfinite(self.computed), values, math.nan)


def _tables(ours: Mapping[_Key, Record], theirs: Mapping[_Key, Record]) -> list[_Table]:
    return [_table(quantity, ours, theirs) for quantity in TOLERANCE]


def _table(quantity: str, ours: Mapping[_Key, Record], theirs: Mapping[_Key, Record]) -> _Table:
    rows = []
    for key, record in ours.items():
        again = _value(theirs[key], quantity) if key in theirs else math.nan
        run = key[0] if key in theirs else None
        ticket = (_ticket_key(record), record["label"], record["seed"], record["density"], run)
        rows.append((*ticket, _value(record, quantity), again))
    names = ["ticket", "label", "seed", "density", "run", "recorded", "computed"]
    values = pd.DataFrame(rows, columns=names).dropna(subset="recorded")
    values = values.drop_duplicates(["ticket", "seed"], keep="last")
    groups = [group for _, group in values.groupby("ticket", sort=False)]
    recorded, computed = (
        values.pivot(index="ticket", columns="seed", values=side)
        .reindex(values["ticket"].unique())
        .to_numpy(float)
        for side in ("recorded", "computed")
    )
    tickets = [
        (
            group["label"].iloc[0],
            f"at {100 * group['density'].mean():.3g} %",
            (*group["run"].dropna(),),
        )
        for group in groups
    ]
    labels = np.array([label for label, *_ in tickets], str)
    curves, counts = np.unique(labels, return_counts=True)
    curves = curves[counts > 1]
    runs = {
        name: dict.fromkeys(run for label, _, runs in tickets if label == name for run in runs)
        for name in curves.tolist()
    }
    members = (curves[:, None] == labels).astype(float)
    # No less is believed than the variance of rounding to the tolerance.
    floor = TOLERANCE[quantity] ** 2 / 12
    spread = spread_of(recorded, members, floor, accuracies=quantity == ACCURACY)
    subjects = [*tickets, *((name, ALL, (*ids,)) for name, ids in runs.items())]
    return _Table(quantity, recorded, computed, subjects, members, spread)


def _value(record: Record, quantity: str) -> float:
    """A record's value, NaN where it has none or none that chance decides."""
    if record["status"] != "ok":
        return math.nan
    if quantity == ACCURACY:
        return float(record["accuracy"]["test"])
    # A method without a target finds its density; a retrained ticket has that of its search.
    chance = record["ticket"]["target_density"] is None and record["method"] != "retrain"
    return math.log(record["density"]) if chance else math.nan


def _ticket_key(record: Record) -> str:
    """The same for replicates alone."""
    point = record["ticket"]["point"] if record["status"] == "ok" else ""
    identity = (record["label"], record["judged"], point, seedless(record["config"]))
    return json.dumps(identity, sort_keys=True)


def _tested_numbers(tables: list[_Table]) -> Iterator[Number]:
    tests = [table.test(table.computed) for table in tables]
    p = np.concatenate([test.p for test in tests])
    finite = np.isfinite(p)
    p[finite] = holm(p[finite])
    for table, test in zip(tables, tests, strict=True):
        adjusted, p = np.split(p, [len(test.p)])
        recorded, computed = test.recorded, test.recorded + test.difference
        if table.quantity == DENSITY:
            recorded, computed = np.exp(recorded), np.exp(computed)
        columns = (recorded, computed, test.difference / test.error, adjusted)
        for (label, where, runs), *row in zip(table.subjects, *columns, strict=True):
            if runs:
                was, now, errors, chance = map(float, row)
                yield Number(label, where, table.quantity, was, now, errors, chance, runs)
