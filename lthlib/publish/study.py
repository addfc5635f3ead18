"""What a notebook shows: the records of a study, published first, then stored, then computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lthlib.errors import ConfigError, Paused
from lthlib.evidence import load_results
from lthlib.masks import Mask
from lthlib.methods import get_method
from lthlib.publish.parameters import Spec, choice, many, numbers, optional, text, whole
from lthlib.recipes import CONTESTANTS, Study, load_recipe, recipe_names, ticket_study
from lthlib.runs import Machine, RunConfig, Store, bar, execute_many

SOURCES = ("published", "local", "results")


@dataclass(frozen=True)
class Gathered:
    """A study's records, and where they come from.

    records: one per judged ticket or failed run. published, stored, computed: how many runs were
    read from the published record, found in the store, computed just now. stale: what differs
    between published runs that are shown and this version of lthlib.
    """

    records: list[dict[str, Any]]
    published: int
    stored: int
    computed: int
    stale: tuple[str, ...]

    def _repr_markdown_(self) -> str:
        failed = sum(record["status"] == "failed" for record in self.records)
        where = {
            "read from the published record": self.published,
            "from the local store": self.stored,
            "computed just now": self.computed,
            "failed": failed,
        }
        words = [f"{count} {what}" for what, count in where.items() if count]
        text = f"Runs: {', '.join(words) or 'none'}."
        if self.stale:
            text += f"\n\n> **Stale:** {'; '.join(self.stale)}. Run again with `source: local`."
        return text


def study_parameters() -> dict[str, Spec]:
    """Return what the parameters may be that all notebooks on a study share, for `declare`."""
    pairs = recipe_pairs()
    return {
        "dataset": choice(*sorted({dataset for dataset, _ in pairs})),
        "architecture": choice(*sorted({architecture for _, architecture in pairs})),
        "recipe": optional(text()),
        "methods": optional(many(*CONTESTANTS)),
        "densities": optional(numbers(0, 1)),
        "seeds": optional(whole(1)),
        "dense_seeds": optional(whole(1)),
        "source": choice(*SOURCES),
        "results": optional(text()),
        "store": optional(text()),
        "data": optional(text()),
        "device": text(),
        "jobs": optional(whole(1)),
        "artefacts": optional(text()),
    }


def choose_study(
    dataset: str,
    architecture: str,
    recipe: str | None = None,
    *,
    methods: Sequence[str] | None = None,
    densities: Sequence[float] | None = None,
    seeds: int | None = None,
    dense_seeds: int | None = None,
) -> Study:
    """Return the study of accuracy against density for a data set and a network.

    Args:
        dataset, architecture: of one of the recipes that come with lthlib.
        recipe: a recipe by name or a YAML file, in place of the two.
        methods, densities, seeds, dense_seeds: as `ticket_study` takes them; the recipe's if None.

    Raises:
        ConfigError: no recipe has this pair (the message lists the pairs), or a bad value.
    """
    pairs = recipe_pairs()
    if recipe is None and (dataset, architecture) not in pairs:
        known = "; ".join(f"{data} with {network}" for data, network in pairs)
        raise ConfigError(f"no recipe trains {architecture} on {dataset}; there are: {known}")
    return ticket_study(
        load_recipe(recipe or pairs[dataset, architecture]),
        methods=methods,
        densities=densities,
        seeds=seeds,
        dense_seeds=dense_seeds,
    )


def recipe_pairs() -> dict[tuple[str, str], str]:
    """Return (data set, architecture) -> name of the recipe, of those that come with lthlib."""
    recipes = [load_recipe(name) for name in recipe_names()]
    return {
        (one.values["data"]["dataset"], one.values["model"]["architecture"]): one.name
        for one in recipes
    }


def study_records(
    study: Study,
    store: Store,
    machine: Machine,
    *,
    source: str = "published",
    results: str | Path | None = None,
    jobs: int | None = None,
) -> Gathered:
    """Return a study's records; what is missing is computed into the store, with a progress bar.

    Args:
        study: which runs.
        store: of local runs.
        machine: where to compute.
        source: `published`: runs come from `results/STUDY.jsonl` where it holds them, the others
            from the store; `local`: all come from the store; `results`: the published record as it
            is, nothing is computed.
        results: folder of the published record, default `results`.
        jobs: runs at once, default one a core, or one on a GPU.

    Raises:
        ConfigError: an unknown source, or `results` without a published record.
        RecordError: the published record is damaged or of another schema.
        Paused: computing was interrupted; its state is saved.
    """
    if source not in SOURCES:
        raise ConfigError(f"source is {source!r}; expected one of {', '.join(SOURCES)}")
    folder = Path(results or "results")
    published = [] if source == "local" else _published(study, folder)
    if source == "results":
        if not published:
            raise ConfigError(
                f"{folder} holds no record of {study.name}: `lth record {study.name}`"
            )
        return Gathered(published, _runs(published), 0, 0, _stale(published))
    runs: dict[str, list[dict[str, Any]]] = {}
    for record in published:
        runs.setdefault(record["run"], []).append(record)
    outdated = {run for run, own in runs.items() if _stale(own)}

    def shown_as_published(config: RunConfig) -> bool:
        fresh = config.id in runs.keys() - outdated
        return fresh or (config.id in outdated and store.load(config) is None)

    taken = [entry for entry in study.entries if shown_as_published(entry.config)]
    local = Study(study.name, study.scale, tuple(one for one in study.entries if one not in taken))
    missing = local.missing(store)
    if missing:
        compute(study.name, missing, store, machine, jobs)
    used = [study.label(entry, record) for entry in taken for record in runs[entry.config.id]]
    stored = len(local.entries) - len(missing)
    records = [*used, *local.records(store)]
    return Gathered(records, len(taken), stored, len(missing), _stale(used))


def compute(
    name: str, configs: Sequence[RunConfig], store: Store, machine: Machine, jobs: int | None
) -> dict[str, str]:
    """Execute runs with a progress bar; returns those that failed, id -> why.

    Raises:
        Paused: it was interrupted; the state is saved, and the next call goes on from there.
    """
    with bar(name) as report:
        swept = execute_many(configs, store, machine, jobs=jobs, report=report)
    if swept.unfinished:
        raise Paused(f"{name}: stopped with {swept.unfinished} runs to go, their state saved")
    return swept.failed


def study_masks(
    study: Study, store: Store, table: pd.DataFrame, density: float
) -> dict[str, dict[int, Mask]]:
    """Return the masks of a study's tickets near a density: curve -> seed -> mask.

    Args:
        study: which runs.
        store: that holds their tickets; runs that it lacks (published ones) are left out.
        table: of the same study, from `figures.ticket_table`.
        density: a kept fraction; per seed the ticket nearest to it counts, if within 25 %.
    """
    configs = {entry.config.id: entry.config for entry in study.entries}
    rows = table[(table["status"] == "ok") & (table["curve"] != "dense")]
    near = rows[(rows["density"] / density).between(0.75, 1.25)]
    near = near.assign(distance=(near["density"] - density).abs()).sort_values("distance")
    found: dict[str, dict[int, Mask]] = {}
    chosen = near.drop_duplicates(["curve", "seed"]).sort_index()
    names = ["curve", "seed", "run", "round"]
    for curve, seed, run, index in chosen[names].astype(object).to_numpy().tolist():
        config = configs.get(run)
        result = store.load(config) if config else None
        if config is None or result is None:
            continue
        points = {one["ticket"]["index"]: one["ticket"]["point"] for one in result.records}
        found.setdefault(curve, {})[seed] = store.ticket(config, points[index]).mask
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


def _pairs(ours: Mapping[int, Mask], theirs: Mapping[int, Mask], same: bool) -> list[Any]:
    if same:
        return [(ours[a], ours[b]) for a in ours for b in ours if a < b]
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]


def _by_chance(one: Mask, other: Mask) -> float:
    theirs = other.layers()
    both = sum(kept * theirs[name][0] / total for name, (kept, total) in one.layers().items())
    return both / (one.kept + other.kept - both)


def _published(study: Study, folder: Path) -> list[dict[str, Any]]:
    records = load_results(folder) if folder.is_dir() else []
    return [record for record in records if record["study"] == study.name]


def _runs(records: Iterable[Mapping[str, Any]]) -> int:
    return len({record["run"] for record in records})


def _stale(records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Say which published records another version of a method, or another run, has made."""
    found: Counter[str] = Counter()
    for record in records:
        now = get_method(record["method"]).version
        if record["method_version"] != now:
            made = f"{record['method']} is at version {now}, recorded at {record['method_version']}"
            found[made] += 1
        elif RunConfig.from_json(record["config"]).id != record["run"]:
            found[f"the configuration of {record['method']} no longer has the recorded id"] += 1
    return tuple(f"{count} published records: {why}" for why, count in sorted(found.items()))
