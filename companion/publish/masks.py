"""What a store knows of a study beyond its records: masks of its tickets, histories of its runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pandas as pd

from companion.studies import Entry, Study
from companion.tickets import load_tickets
from lthlib.masks import Mask
from lthlib.runs import RunResult, Store


def histories(study: Study, store: Store) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return the history of each run that a store holds complete: (label, seed) -> its epochs."""
    complete = _complete(study, store)
    return {(entry.label, entry.config.seed): result.history for entry, result in complete}


def study_masks(parameters: Any, study: Study, table: pd.DataFrame) -> dict[str, dict[int, Mask]]:
    """Return the masks of a study's tickets near a density: curve -> seed -> mask.

    Args:
        parameters: of the notebook. Per seed the ticket nearest to `density` counts, if within
            25 %. Masks are those that `results` publishes, unless `source` is `local`, then those
            in `store`; rows whose ticket is in neither are left out.
        study: which runs.
        table: of the same study, from `ticket_table`.
    """
    store, density = Store(parameters.store), parameters.density
    published = {}
    if parameters.source != "local":
        published = load_tickets(parameters.results or "results", study.name)
    known = {
        (entry.config.id, record["ticket"]["index"]): (entry.config, record["ticket"]["point"])
        for entry, result in _complete(study, store)
        for record in result.records
    }
    masks = {
        (name.partition("/")[0], ticket.index): ticket.mask for name, ticket in published.items()
    }
    keys = pd.Series(zip(table["run"], table["round"], strict=True), table.index, dtype=object)
    rows = table[keys.isin({*known, *masks}) & (table["curve"] != "dense")]
    near = rows[(rows["density"] / density).between(0.75, 1.25)]
    near = near.assign(distance=(near["density"] - density).abs()).sort_values("distance")
    found: dict[str, dict[int, Mask]] = {}
    for row in near.drop_duplicates(["curve", "seed"]).sort_index().to_dict("records"):
        key = (row["run"], row["round"])
        mask = masks[key] if key in masks else store.ticket(*known[key]).mask
        found.setdefault(row["curve"], {})[row["seed"]] = mask
    return found


def overlaps(masks: Mapping[str, Mapping[int, Mask]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return overlap and chance: mean intersection over union of kept weights, curve by curve.

    Off the diagonal two curves are compared at equal seeds, on it a curve's seeds with each other.
    Chance is what masks drawn at random with the same counts in every layer share on average
    (expected intersection over the union that goes with it). NaN where there is no pair.
    """
    names = list(masks)
    overlap, chance = (pd.DataFrame(float("nan"), names, names) for _ in range(2))
    for one in names:
        for other in names:
            pairs = _pairs(masks[one], masks[other], one == other)
            if pairs:
                overlap.loc[one, other] = sum(a.overlap(b) for a, b in pairs) / len(pairs)
                chance.loc[one, other] = sum(_by_chance(a, b) for a, b in pairs) / len(pairs)
    return overlap, chance


def round_agreement(study: Study, store: Store) -> pd.DataFrame:
    """Return how far the masks of successive rounds of a search agree, a row a pair of rounds.

    Returns:
        Columns method, seed, round (the later one, from 1), density (of its mask, percent), again
        (percent of its kept weights that the round before kept too), chance (what masks drawn at
        random with the same counts in every layer would share).
    """
    rows = []
    for entry, result in _complete(study, store):
        points = [record["ticket"]["point"] for record in result.records]
        masks = [store.ticket(entry.config, point).mask for point in points]
        for number, (one, other) in enumerate(pairwise(masks), start=2):
            both = sum(int((one[name] & other[name]).sum()) for name in other)
            shares = (100 * part / other.kept for part in (both, _shared_by_chance(one, other)))
            rows.append((entry.label, entry.config.seed, number, 100 * other.density, *shares))
    names = ["method", "seed", "round", "density", "again", "chance"]
    return pd.DataFrame(rows, columns=names)


def _complete(study: Study, store: Store) -> Iterator[tuple[Entry, RunResult]]:
    for entry in study.entries:
        result = store.load(entry.config)
        if result is not None and result.failure is None:
            yield entry, result


def _pairs(ours: Mapping[int, Mask], theirs: Mapping[int, Mask], same: bool) -> list[Any]:
    if same:
        return [(ours[a], ours[b]) for a in ours for b in ours if a < b]
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]


def _shared_by_chance(one: Mask, other: Mask) -> float:
    theirs = other.layers()
    return sum(kept * theirs[name][0] / total for name, (kept, total) in one.layers().items())


def _by_chance(one: Mask, other: Mask) -> float:
    both = _shared_by_chance(one, other)
    return both / (one.kept + other.kept - both)
