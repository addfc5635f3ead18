"""What a store knows of a study beyond its records: masks of its tickets, histories of its runs."""

import itertools
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
    """Return, as a study, of each label and seed the run with the ticket nearest to a density.

    Args:
        study: which runs.
        table: of the same study, from `ticket_table`.
        density: a kept fraction.
    """
    rows = table[table["status"] == "ok"]
    away = np.log(rows["density"] / density).abs()
    runs = {*rows.loc[away.groupby([rows["label"], rows["seed"]]).idxmin(), "run"]}
    entries = tuple(entry for entry in study.entries if entry.config.id in runs)
    return replace(study, entries=entries)


def study_masks(parameters: Any, study: Study, table: pd.DataFrame) -> dict[str, dict[int, Mask]]:
    """Return the masks of a study's tickets near a density: curve -> seed -> mask.

    Args:
        parameters: of the notebook. Per seed the ticket nearest to `density` counts, if within
            25 %. Masks are those that `results` publishes, unless `source` is `local`, then those
            in `store`; rows whose ticket is in neither are left out.
        study: which runs.
        table: of the same study, from `ticket_table`.
    """
    store = Store(parameters.store)
    published = {}
    if parameters.source != "local":
        published = load_tickets(results_folder(parameters.results), study.name)
    stored = {
        (entry.config.id, record["ticket"]["index"]): (entry.config, record["ticket"]["point"])
        for entry, result in _complete(study, store)
        for record in result.records
    }
    masks = {
        (name.partition("/")[0], ticket.index): ticket.mask for name, ticket in published.items()
    }
    keys = pd.Series(zip(table["run"], table["round"], strict=True), table.index, dtype=object)
    rows = table[keys.isin({*stored, *masks}) & (table["curve"] != "dense")]
    near = rows[(rows["density"] / parameters.density).between(0.75, 1.25)]
    distance = (near["density"] - parameters.density).abs()
    near = near.assign(distance=distance).sort_values("distance")
    curves: dict[str, dict[int, Mask]] = {}
    for row in near.drop_duplicates(["curve", "seed"]).sort_index().to_dict("records"):
        key = (row["run"], row["round"])
        mask = masks[key] if key in masks else store.ticket(*stored[key]).mask
        curves.setdefault(row["curve"], {})[row["seed"]] = mask
    return curves


def overlaps(masks: Mapping[str, Mapping[int, Mask]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return overlap and chance: mean intersection over union of kept weights, curve by curve.

    Off the diagonal two curves are compared at equal seeds, on it a curve's seeds with each other.
    Chance is what masks drawn at random with the same counts in every layer share on average
    (expected intersection over the union that goes with it).

    Args:
        masks: curve -> seed -> mask, from `study_masks`.

    Returns:
        Two tables, curves by curves; NaN where there is no pair.
    """
    curves = list(masks)
    overlap, chance = (pd.DataFrame(float("nan"), curves, curves) for _ in range(2))
    for row, column in itertools.product(curves, repeat=2):
        pairs = _pairs(masks[row], masks[column], row == column)
        if pairs:
            overlap.loc[row, column] = sum(a.overlap(b) for a, b in pairs) / len(pairs)
            chance.loc[row, column] = sum(_by_chance(a, b) for a, b in pairs) / len(pairs)
    return overlap, chance


def states(
    config: RunConfig, store: Store, machine: Machine, group: str, layer: str
) -> list[tuple[int, Tensor]]:
    """Search again, and return what a layer's masks, scores or gates are after each epoch.

    Args:
        config: of a search whose parent the store holds.
        store: where to find that.
        machine: where to compute.
        group: of the search's state: `masks`, `scores`, `gates`.
        layer: the name of its weights.

    Returns:
        (step, values) at the beginning, after each epoch, and when the first ticket is found.
    """
    trainer = build_trainer(config, machine)
    history = []

    def watch(trainer: Trainer) -> bool:
        if trainer.step % trainer.steps_per_epoch == 0:
            history.append((trainer.step, trainer.group(group)[layer].detach().clone()))
        return False

    trainer.hooks.should_stop = watch
    start = config.parent
    parent = store.ticket(start.config, start.point) if start else None
    next(get_method(config.method).search(trainer, config.settings, parent))
    return [*history, (trainer.step, trainer.group(group)[layer].detach().clone())]


def _complete(study: Study, store: Store) -> Iterator[tuple[Entry, RunResult]]:
    for entry in study.entries:
        result = store.load(entry.config)
        if result is not None and result.failure is None:
            yield entry, result


def _pairs(ours: Mapping[int, Mask], theirs: Mapping[int, Mask], same: bool) -> list[Any]:
    if same:
        return [(ours[a], ours[b]) for a in ours for b in ours if a < b]
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]


def _by_chance(a: Mask, b: Mask) -> float:
    theirs = b.layers()
    shared = sum(count * theirs[name][0] / total for name, (count, total) in a.layers().items())
    return shared / (a.kept + b.kept - shared)
