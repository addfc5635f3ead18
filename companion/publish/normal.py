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
Asked = tuple[str, ...]  # data set, network, label, way of judging, what the search was asked for
Group = list[dict[str, Any]]  # replicates: rows of a table of tickets, each with its record


@dataclass(frozen=True, eq=False)
class Beside:
    """Means of mine beside what the seeds of a published study let expect.

    means: a row a quantity and ticket: quantity (`test accuracy`; `density` where the method finds
        it; both in percent), curve, density, n (my seeds), mine, seeds (the published ones),
        expected (their mean), low and high, between which a mean of n new seeds lies in 95 of 100
        cases, p, and lies: inside, outside, or no spread known.
    differences: between the runs that were compared: configurations, those of parents too, and what
        computed them.
    alone: what of mine the study does not have.
    """

    means: pd.DataFrame
    differences: list[str]
    alone: list[str]

    def __str__(self) -> str:
        known, outside = self.means["p"].count(), (self.means["lies"] == "outside").sum()
        return (
            f"{outside} of {known} means lie outside the interval that {100 * LEVEL:g} % of such "
            f"means lie in; by chance alone about {(1 - LEVEL) * known:.1f} would."
        )

    def table(self) -> Markdown:
        """All means, those first that are least to be expected."""
        heads = ("curve", "kept", "quantity", "mine (seeds)", "expected (seeds)", "it lies")
        rows = (
            (
                *(one["curve"], in_percent(one["density"]), one["quantity"]),
                f"{one['mine']:.2f} ({one['n']})",
                "–"
                if math.isnan(one["p"])
                else f"{one['low']:.2f} to {one['high']:.2f} ({one['seeds']})",
                f"{one['lies']} ({one['mine'] - one['expected']:+.2f})",
            )
            for one in self.means.sort_values("p", kind="stable").to_dict("records")
        )
        return markdown_table(heads, rows, {3, 4})


def beside(published: Sequence[Record], mine: Sequence[Record]) -> Beside:
    """Compare results with a published study.

    A ticket of mine is compared with the published one of its data set, network, label, way of
    judging, and density asked for, or initial gate and round where the method finds its density: of
    several, the one whose configuration differs least.

    Args:
        published, mine: records.

    Raises:
        ConfigError: nothing is in both.
    """
    ours, theirs = _tickets(published), _tickets(mine)
    pairs = [
        (own, known.get(ticket) or min(known.values(), key=lambda one: len(_differences(one, own))))
        for asked, tickets in theirs.items()
        if (known := ours.get(asked))
        for ticket, own in tickets.items()
    ]
    if not pairs:
        sides = ("; ".join(sorted({", ".join(one[:3]) for one in side})) for side in (theirs, ours))
        raise ConfigError("no ticket is in both. Yours: {}. The study's: {}".format(*sides))
    every = [group for tickets in ours.values() for group in tickets.values()]
    means = pd.concat((_means(one, every, pairs) for one in TOLERANCE), ignore_index=True)
    now, was = ([row for group in side for row in group] for side in zip(*pairs, strict=True))
    alone = [", ".join(asked[2:]) for asked in theirs if asked not in ours]
    return Beside(means, _differences(was, now), alone)


def _tickets(records: Sequence[Record]) -> dict[Asked, dict[str, Group]]:
    """What tickets are compared by -> configuration -> its replicates."""
    found: dict[Asked, dict[str, Group]] = {}
    table = ticket_table(records).assign(record=pd.Series([*records], dtype=object))
    rows: Any = table[table["status"] == "ok"].to_dict("records")
    for row in rows:
        target, dense = row["target_density"], row["method"] == "dense"
        if math.isnan(target) and not dense:
            aim = f"initial gate {row['initial_gate']:g}, round {row['round']}"
        else:
            aim = in_percent(row["density"] if dense else target)
        finds = math.isnan(target) and not dense and row["judged"] == "found"
        row["log_density"] = math.log(row["density"]) if finds else math.nan
        asked = (*(row[name] for name in ("dataset", "architecture", "label", "judged")), aim)
        found.setdefault(asked, {}).setdefault(row["point"], []).append(row)
    return found


def _differences(published: Group, mine: Group) -> list[str]:
    was, now = _values(published), _values(mine)
    said = {
        name: [", ".join(sorted(side.get(name, {"–"}))) for side in (was, now)]
        for name in dict.fromkeys((*was, *now))
    }
    return [f"{name}: {old}, yours {new}" for name, (old, new) in said.items() if old != new]


def _values(rows: Group) -> dict[str, set[str]]:
    """Which values records have of each setting, their parents' among them."""
    found: dict[str, set[str]] = {}

    def look(part: Mapping[str, Any], path: str = "") -> None:
        for name, value in part.items():
            if isinstance(value, Mapping):
                look(value["config"], path) if name == "parent" else look(value, f"{path}{name}.")
            elif value not in (None, ""):
                found.setdefault(path + name, set()).add(in_words(value))

    for record in (row["record"] for row in rows):
        look(RunConfig.from_json(record["config"]).to_json())  # with what older ones leave out
        look({name: record["provenance"][name] for name in (*ENVIRONMENT, "commit")})
        look({"version of the method": record["method_version"]})
    return found


def _means(
    quantity: str, every: Sequence[Group], pairs: Sequence[tuple[Group, Group]]
) -> pd.DataFrame:
    def values(groups: Iterable[Group]) -> pd.DataFrame:
        rows = ([row[_COLUMN[quantity]] for row in group] for group in groups)
        return pd.DataFrame(zip_longest(*rows, fillvalue=math.nan), dtype=float).T

    floor = TOLERANCE[quantity] ** 2 / 12
    learnt = expected(values(every).to_numpy(), floor, accuracies=quantity == ACCURACY)
    places = [next(n for n, one in enumerate(every) if one is known) for _, known in pairs]
    mean, seeds, variance, freedom = (part[places] for part in learnt)
    mine = values(own for own, _ in pairs)
    n, new = mine.count(axis=1), mine.mean(axis=1)
    error = np.sqrt(variance * (1 / seeds + 1 / n))
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * error
    shown = pd.DataFrame({"mine": new, "expected": mean, "low": mean - half, "high": mean + half})
    p = 2 * stats.t.sf(np.abs(new - mean) / error, freedom)
    lies = np.select([p < 1 - LEVEL, np.isfinite(p)], ["outside", "inside"], "no spread known")
    table = shown.transform(lambda one: 100 * np.exp(one)) if quantity == DENSITY else shown
    table["quantity"] = quantity
    table["curve"] = [known[0]["curve"] for _, known in pairs]
    table["density"] = [np.mean([row["density"] for row in own]) for own, _ in pairs]
    table = table.assign(**{"n": n, "seeds": seeds.astype(int), "p": p, "lies": lies})
    return table.dropna(subset=["mine", "expected"])
