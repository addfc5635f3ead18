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
    """Return the tickets that a budget buys: method or control -> rows, in the table's order; and
    the dense network that is trained for all of it.

    Args:
        table: from `ticket_table`.
    """
    good = table[table["status"] == "ok"]
    names = good["label"].str.removesuffix(", retrained").replace("dense, search epochs", WHOLE)
    kept = ((good["judged"] == "retrained") & (good["method"] != "dense")) | (names == WHOLE)
    return {str(name): last_tickets(own) for name, own in good[kept].groupby(names, sort=False)}


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
    for name, own in tickets(table).items():
        for where, chosen in _places(densities).items():
            level = mean_interval(_level(name, own, chosen))
            kept = _level(name, own, chosen, "density").mean()
            rows.append((name, where, level.n, kept, level.mean, level.low, level.high))
    return pd.DataFrame(rows, columns=["name", "where", "n", "density", "accuracy", "low", "high"])


def differences(table: pd.DataFrame, densities: Sequence[float]) -> pd.DataFrame:
    """Return the methods' differences to each other and to their controls, paired by seed.

    Args:
        table, densities: as of `reached`.

    Returns:
        Columns name, where, n (pairs), difference (points), low, high (95 %), p after Holm's
        correction, of the methods' differences over the densities; of all others NaN.
    """
    known = tickets(table)
    controls = [(one, f"{one}, layers shuffled") for one in METHODS]
    controls += [(one, other) for other in ("OMP", WHOLE) for one in METHODS]
    rows = []
    for ours, theirs in (*PAIRS, *controls):
        for where, chosen in _places(densities).items():
            if ours in known and theirs in known:
                first, second = (_level(one, known[one], chosen) for one in (ours, theirs))
                gap = compare(first, second)
                decides = where == BOTH and (ours, theirs) in PAIRS
                own = (gap.n, gap.mean, gap.low, gap.high, gap.p if decides else float("nan"))
                rows.append((f"{ours} - {theirs}", where, *own))
    found = pd.DataFrame(rows, columns=["name", "where", "n", "difference", "low", "high", "p"])
    decisive = found["p"].notna()
    if decisive.any():
        found.loc[decisive, "p"] = holm(found.loc[decisive, "p"])
    return found.dropna(subset="difference", ignore_index=True)


def outcome(found: pd.DataFrame) -> str:
    """Return in a sentence which methods' differences are told apart from none.

    Args:
        found: from `differences`.
    """
    rows = found.dropna(subset="p").to_dict("records")
    if not rows:
        return "Nothing to compare: no two methods have tickets at these densities with two seeds."
    texts = [
        f"{row['name']} = {row['difference']:+.2f} points (p = {row['p']:.2g}"
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
            *(own[unit].mean() / dense for unit in ("passes", "pretraining_passes")),
            *(own[f"{way}_passes"].mean() for way in ("forward", "backward")),
            100 * own["passes"].mean() / (TRAININGS * dense),
        )
        for name, own in tickets(table).items()
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
    kept = list(records)
    table = ticket_table(kept)
    own = [search_config(record["config"])["settings"] for record in kept]
    settings = pd.Series(own, table.index, dtype=object)
    rows: list[tuple[object, ...]] = []
    for name, tried in tickets(table).items():
        if name not in METHODS:
            continue
        texts = _told_apart(settings.loc[tried.index])
        for text, trial in tried.groupby(texts, sort=False):
            score = interpolate(trial["density"], trial["validation_accuracy"], densities).mean()
            rows.append((name, text, len(trial), round(score, 2)))
    found = pd.DataFrame(rows, columns=["method", "trial", "tickets", "score"])
    best = found.dropna(subset="score").groupby("method")["score"].idxmax()
    return found.assign(chosen=found.index.isin(best))


def _told_apart(settings: pd.Series) -> pd.Series:
    """The settings in which trials differ, as a text each."""
    table = pd.DataFrame(list(settings), settings.index).drop(columns=_TRACING, errors="ignore")
    varied = table.loc[:, table.astype(str).nunique() > 1]
    pairs = varied.apply(
        lambda row: [f"{name.replace('_', ' ')} {value}" for name, value in row.items()], axis=1
    )
    return pairs.map(", ".join)


def _places(densities: Sequence[float]) -> dict[str, list[float]]:
    each = {f"{in_percent(one)} density": [one] for one in densities}
    return {BOTH: list(densities), **each}


def _level(
    name: str, rows: pd.DataFrame, densities: Sequence[float], value: str = "test_accuracy"
) -> pd.Series:
    if name == WHOLE:
        return by_replicate(rows, value)
    return at_densities(rows, densities, value)
