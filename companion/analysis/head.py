"""Methods under one budget: what each spends, what its ticket reaches, and the trials behind it.

A method's ticket is the last of its search, trained from its rewind point; as found, none counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from companion.analysis.points import ticket_table
from companion.analysis.words import in_percent
from companion.evidence.records import search_config
from companion.evidence.statistics import (
    LEVEL,
    at_densities,
    by_replicate,
    compare,
    holm,
    interpolate,
    last_tickets,
    mean_interval,
)

PAIRS = (("CS", "IMP"), ("BiP", "IMP"), ("BiP", "CS"))
METHODS = ("IMP", "CS", "BiP")
WHOLE = "dense, whole budget"
BOTH = "mean of the densities"
TRAININGS = 4
# Settings that say where on a curve a ticket lies, not which trial it is of.
_TRACING = {"density", "fraction", "initial_gate"}


def tickets(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tickets that a budget buys, and the dense network that is trained for all of it.

    Args:
        table: from `ticket_table`.

    Returns:
        Method or control -> its rows, in the table's order.
    """
    good = table[table["status"] == "ok"]
    names = good["label"].str.removesuffix(", retrained").replace("dense, search epochs", WHOLE)
    retrained = (good["judged"] == "retrained") & (good["method"] != "dense")
    groups = good[retrained | (names == WHOLE)].groupby(names, sort=False)
    return {str(name): last_tickets(rows) for name, rows in groups}


def reached(table: pd.DataFrame, densities: Sequence[float]) -> pd.DataFrame:
    """Return the accuracy that each reaches, over the densities and at each.

    Args:
        table: from `ticket_table`.
        densities: kept fractions; a ticket counts where it lies within 10 % of one.

    Returns:
        Columns name, where (`BOTH`, or a density in percent), n, density (mean), accuracy, low,
        high (percent, 95 % t-interval).
    """
    rows = []
    for name, judged in tickets(table).items():
        for where, chosen in _density_groups(densities).items():
            level = mean_interval(_level(name, judged, chosen))
            density = _level(name, judged, chosen, "density").mean()
            rows.append((name, where, level.n, density, level.mean, level.low, level.high))
    return pd.DataFrame(rows, columns=["name", "where", "n", "density", "accuracy", "low", "high"])


def differences(table: pd.DataFrame, densities: Sequence[float]) -> pd.DataFrame:
    """Return the methods' differences to each other and to their controls, paired by seed.

    Args:
        table: from `ticket_table`.
        densities: kept fractions; a ticket counts where it lies within 10 % of one.

    Returns:
        Columns name, where, n (pairs), difference (points), low, high (95 %), p after Holm's
        correction, of the methods' differences over the densities; of all others NaN.
    """
    by_name = tickets(table)
    controls = [(method, f"{method}, layers shuffled") for method in METHODS]
    controls += [(method, control) for control in ("OMP", WHOLE) for method in METHODS]
    rows = []
    for ours, theirs in (*PAIRS, *controls):
        if ours not in by_name or theirs not in by_name:
            continue
        for where, chosen in _density_groups(densities).items():
            first, second = (_level(name, by_name[name], chosen) for name in (ours, theirs))
            gap = compare(first, second)
            decides = where == BOTH and (ours, theirs) in PAIRS
            p = gap.p if decides else float("nan")
            rows.append((f"{ours} - {theirs}", where, gap.n, gap.mean, gap.low, gap.high, p))
    gaps = pd.DataFrame(rows, columns=["name", "where", "n", "difference", "low", "high", "p"])
    decisive = gaps["p"].notna()
    if decisive.any():
        gaps.loc[decisive, "p"] = holm(gaps.loc[decisive, "p"])
    return gaps.dropna(subset="difference", ignore_index=True)


def outcome(gaps: pd.DataFrame) -> str:
    """Return in a sentence which methods' differences are told apart from none.

    Args:
        gaps: from `differences`.
    """
    rows = gaps.dropna(subset="p").to_dict("records")
    if not rows:
        return "Nothing to compare: no two methods have tickets at these densities with two seeds."
    texts = [
        f"{row['name'].replace(' - ', ' less ')} is {row['difference']:+.2f} points "
        f"(p = {row['p']:.2g}"
        f"{', told apart' if row['p'] < 1 - LEVEL else ', not told apart'})"
        for row in rows
    ]
    return f"Over both densities, after Holm's correction: {'; '.join(texts)}."


def budgets(table: pd.DataFrame) -> pd.DataFrame:
    """Return what a ticket of each cost, in images sent forward and backward.

    The budget is that of `TRAININGS` trainings of the dense network.

    Args:
        table: from `ticket_table`, with dense.

    Returns:
        Columns name, trainings (images forward and backward over those of one dense training), of
        them pretraining, forward, backward (images, with pretraining), share (percent of the
        budget): means over tickets.
    """
    dense = table[(table["label"] == "dense") & (table["status"] == "ok")]["passes"].mean()
    rows = [
        (
            name,
            *(costs[unit].mean() / dense for unit in ("passes", "pretraining_passes")),
            *(costs[f"{way}_passes"].mean() for way in ("forward", "backward")),
            100 * costs["passes"].mean() / (TRAININGS * dense),
        )
        for name, costs in tickets(table).items()
    ]
    columns = ["name", "trainings", "pretraining", "forward", "backward", "share"]
    return pd.DataFrame(rows, columns=columns)


def trials(records: Iterable[Mapping[str, Any]], densities: Sequence[float]) -> pd.DataFrame:
    """Return the trials of a tuning study, scored on validation.

    A trial's score is the mean over the densities of the validation accuracy of its tickets, which
    a line in log density joins; NaN where they do not reach so far.

    Args:
        records: of the tuning study.
        densities: kept fractions.

    Returns:
        Columns method, trial (the settings in which a method's trials differ), tickets, score
        (percent), chosen (whether it is the method's best, of equals the first).
    """
    records = list(records)
    table = ticket_table(records)
    searches = [search_config(record["config"])["settings"] for record in records]
    settings = pd.Series(searches, table.index, dtype=object)
    rows: list[tuple[object, ...]] = []
    for name, tried in tickets(table).items():
        if name not in METHODS:
            continue
        texts = _varied_settings(settings.loc[tried.index])
        for text, trial in tried.groupby(texts, sort=False):
            score = interpolate(trial["density"], trial["validation_accuracy"], densities).mean()
            rows.append((name, text, len(trial), round(score, 2)))
    scores = pd.DataFrame(rows, columns=["method", "trial", "tickets", "score"])
    best = scores.dropna(subset="score").groupby("method")["score"].idxmax()
    return scores.assign(chosen=scores.index.isin(best))


def _varied_settings(settings: pd.Series) -> pd.Series:
    """The settings in which trials differ, as a text each."""
    table = pd.DataFrame(list(settings), settings.index).drop(columns=_TRACING, errors="ignore")
    varied = table.loc[:, table.astype(str).nunique() > 1]
    pairs = varied.apply(
        lambda row: [f"{name.replace('_', ' ')} {value}" for name, value in row.items()], axis=1
    )
    return pairs.map(", ".join)


def _density_groups(densities: Sequence[float]) -> dict[str, list[float]]:
    singles = {f"{in_percent(density)} density": [density] for density in densities}
    return {BOTH: list(densities), **singles}


def _level(
    name: str, rows: pd.DataFrame, densities: Sequence[float], value: str = "test_accuracy"
) -> pd.Series:
    if name == WHOLE:
        return by_replicate(rows, value)
    return at_densities(rows, densities, value)
