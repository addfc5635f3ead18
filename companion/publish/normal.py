"""Whether results of one's own are as further seeds of a published study would have them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from companion.analysis.points import ticket_table
from companion.analysis.words import in_percent
from companion.evidence.drift import ACCURACY, DENSITY, TOLERANCE, Record
from companion.evidence.retest import expected
from companion.evidence.statistics import LEVEL
from companion.markdown import Markdown, in_words
from companion.markdown import table as markdown_table
from companion.publish.checks import ENVIRONMENT
from lthlib.errors import ConfigError
from lthlib.runs import RunConfig

_COLUMN = {ACCURACY: "test_accuracy", DENSITY: "log_density"}
Target = tuple[str, ...]  # data set, network, label, way of judging, what the search aimed at
Group = list[dict[str, Any]]  # replicates: rows of a table of tickets, each with its record


@dataclass(frozen=True, eq=False)
class Beside:
    """Means of mine beside what the seeds of a published study let expect.

    Attributes:
        means: a row a quantity and ticket: quantity (`test accuracy`; `density` where the method
            finds it; both in percent), curve, density, n (my seeds), mine, seeds (the published
            ones), expected (their mean), low and high, between which a mean of n new seeds lies in
            95 of 100 cases, p, and lies: inside, outside, or no spread known.
        differences: between the runs that were compared: configurations, those of parents too, and
            what computed them.
        alone: what of mine the study does not have.
    """

    means: pd.DataFrame
    differences: list[str]
    alone: list[str]

    def __str__(self) -> str:
        tested = self.means["p"].count()
        outside = (self.means["lies"] == "outside").sum()
        return (
            f"{outside} of {tested} means lie outside the interval that {100 * LEVEL:g} % of such "
            f"means lie in; by chance alone about {(1 - LEVEL) * tested:.1f} would."
        )

    def table(self) -> Markdown:
        """All means, those first that are least to be expected."""
        heads = ("curve", "kept", "quantity", "mine (seeds)", "expected (seeds)", "it lies")
        rows = self.means.sort_values("p", kind="stable").to_dict("records")
        return markdown_table(heads, map(_cells, rows), {3, 4})


def beside(published: Sequence[Record], mine: Sequence[Record]) -> Beside:
    """Compare results with a published study.

    A ticket of mine is compared with the published one of its data set, network, label, way of
    judging, and density asked for, or initial gate and round where the method finds its density: of
    several, the one whose configuration differs least.

    Args:
        published: records of the study.
        mine: records of mine, of the same tickets or some of them.

    Raises:
        ConfigError: nothing is in both.
    """
    theirs, ours = _tickets(published), _tickets(mine)
    pairs = [
        (group, _most_alike(point, group, theirs[target]))
        for target, points in ours.items()
        if target in theirs
        for point, group in points.items()
    ]
    if not pairs:
        networks = ("; ".join(sorted({", ".join(t[:3]) for t in side})) for side in (ours, theirs))
        raise ConfigError("no ticket is in both. Yours: {}. The study's: {}".format(*networks))
    groups = [group for points in theirs.values() for group in points.values()]
    means = [_means(quantity, groups, pairs) for quantity in TOLERANCE]
    mine, matched = ([row for group in side for row in group] for side in zip(*pairs, strict=True))
    alone = [", ".join(target[2:]) for target in ours if target not in theirs]
    return Beside(pd.concat(means, ignore_index=True), _differences(matched, mine), alone)


def _most_alike(point: str, group: Group, published: Mapping[str, Group]) -> Group:
    """The published replicates of the same configuration, or of the one that differs least."""
    if point in published:
        return published[point]
    return min(published.values(), key=lambda other: len(_differences(other, group)))


def _cells(row: Mapping[Any, Any]) -> list[str]:
    interval = f"{row['low']:.2f} to {row['high']:.2f} ({row['seeds']})"
    return [
        row["curve"],
        in_percent(row["density"]),
        row["quantity"],
        f"{row['mine']:.2f} ({row['n']})",
        "–" if math.isnan(row["p"]) else interval,
        f"{row['lies']} ({row['mine'] - row['expected']:+.2f})",
    ]


def _tickets(records: Sequence[Record]) -> dict[Target, dict[str, Group]]:
    """What tickets are compared by -> configuration -> its replicates."""
    tickets: dict[Target, dict[str, Group]] = {}
    table = ticket_table(records).assign(record=pd.Series([*records], dtype=object))
    rows: Any = table[table["status"] == "ok"].to_dict("records")
    for row in rows:
        dense = row["method"] == "dense"
        finds_density = math.isnan(row["target_density"]) and not dense
        if finds_density:
            aim = f"initial gate {row['initial_gate']:g}, round {row['round']}"
        else:
            aim = in_percent(row["density" if dense else "target_density"])
        is_known = finds_density and row["judged"] == "found"
        row["log_density"] = math.log(row["density"]) if is_known else math.nan
        key = (row["dataset"], row["architecture"], row["label"], row["judged"], aim)
        tickets.setdefault(key, {}).setdefault(row["point"], []).append(row)
    return tickets


def _differences(published: Group, mine: Group) -> list[str]:
    theirs, ours = _values(published), _values(mine)
    values = {
        name: [", ".join(sorted(side.get(name, {"–"}))) for side in (theirs, ours)]
        for name in dict.fromkeys((*theirs, *ours))
    }
    return [f"{name}: {old}, yours {new}" for name, (old, new) in values.items() if old != new]


def _values(rows: Group) -> dict[str, set[str]]:
    """Which values records have of each setting, their parents' among them."""
    values: dict[str, set[str]] = {}

    def collect(settings: Mapping[str, Any], prefix: str = "") -> None:
        for name, value in settings.items():
            if name == "parent" and value is not None:
                collect(value["config"], prefix)
            elif isinstance(value, Mapping):
                collect(value, f"{prefix}{name}.")
            elif value not in (None, ""):
                values.setdefault(prefix + name, set()).add(in_words(value))

    for record in (row["record"] for row in rows):
        collect(RunConfig.from_json(record["config"]).to_json())  # with what older ones leave out
        collect({name: record["provenance"][name] for name in (*ENVIRONMENT, "commit")})
        collect({"version of the method": record["method_version"]})
    return values


def _means(
    quantity: str, published: Sequence[Group], pairs: Sequence[tuple[Group, Group]]
) -> pd.DataFrame:
    """One row a pair of mine and published, in which the quantity is known."""

    def values(groups: Iterable[Group]) -> pd.DataFrame:
        rows = ([row[_COLUMN[quantity]] for row in group] for group in groups)
        return pd.DataFrame(zip_longest(*rows, fillvalue=math.nan), dtype=float).T

    floor = TOLERANCE[quantity] ** 2 / 12
    learnt = expected(values(published).to_numpy(), floor, accuracies=quantity == ACCURACY)
    index = {id(group): position for position, group in enumerate(published)}
    matched = [index[id(group)] for _, group in pairs]
    mean, seeds, variance, freedom = (column[matched] for column in learnt)
    mine = values(group for group, _ in pairs)
    n, new = mine.count(axis=1), mine.mean(axis=1)
    error = np.sqrt(variance * (1 / seeds + 1 / n))
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * error
    p = 2 * stats.t.sf(np.abs(new - mean) / error, freedom)
    lies = np.select([p < 1 - LEVEL, np.isfinite(p)], ["outside", "inside"], "no spread known")
    table = pd.DataFrame({"mine": new, "expected": mean, "low": mean - half, "high": mean + half})
    if quantity == DENSITY:
        table = 100 * table.apply(np.exp)
    table["quantity"] = quantity
    table["curve"] = [group[0]["curve"] for _, group in pairs]
    table["density"] = [np.mean([row["density"] for row in group]) for group, _ in pairs]
    table = table.assign(n=n, seeds=seeds.astype(int), p=p, lies=lies)
    return table.dropna(subset=["mine", "expected"])
