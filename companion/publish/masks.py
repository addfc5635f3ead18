"""What a store knows of a study beyond its records: masks of its tickets, histories of its runs."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from companion.publish.results import results_folder
from companion.studies import Entry, Study
from companion.tickets import load_tickets
from lthlib.masks import Mask
from lthlib.methods import get_method
from lthlib.runs import Machine, RunConfig, RunResult, Store
from lthlib.runs.execution import build_trainer
from lthlib.training import Trainer


def histories(study: Study, store: Store) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return the history of each run that a store holds complete: (label, seed) -> its epochs."""
    complete = _complete(study, store)
    return {(entry.label, entry.config.seed): result.history for entry, result in complete}


def nearest(study: Study, table: pd.DataFrame, density: float) -> Study:
    """Return of each label and seed the run with the ticket nearest to a density, as a study.

    Args:
        study, table: the study, and its table from `ticket_table`.
        density: a kept fraction.
    """
    rows = table[table["status"] == "ok"]
    away = np.log(rows["density"] / density).abs()
    runs = {*rows.loc[away.groupby([rows["label"], rows["seed"]]).idxmin(), "run"]}
    return replace(study, entries=tuple(one for one in study.entries if one.config.id in runs))


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
        published = load_tickets(results_folder(parameters.results), study.name)
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


def states(
    config: RunConfig, store: Store, machine: Machine, group: str, layer: str
) -> list[tuple[int, Tensor]]:
    """Search again, and return what a layer's masks, scores or gates are after each epoch.

    Args:
        config: of a search whose parent the store holds.
        store, machine: where to find that, and where to compute.
        group: of the search's state: `masks`, `scores`, `gates`.
        layer: the name of its weights.

    Returns:
        (step, values) at the beginning, after each epoch, and when the first ticket is found.
    """
    trainer, seen = build_trainer(config, machine), []

    def look(trainer: Trainer) -> bool:
        if trainer.step % trainer.steps_per_epoch == 0:
            seen.append((trainer.step, trainer.group(group)[layer].detach().clone()))
        return False

    trainer.hooks.should_stop = look
    start = config.parent
    parent = store.ticket(start.config, start.point) if start else None
    next(get_method(config.method).search(trainer, config.settings, parent))
    return [*seen, (trainer.step, trainer.group(group)[layer].detach().clone())]


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
