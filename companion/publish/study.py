"""What a notebook shows: the records of a study, published first, then stored, then computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from companion.analysis.points import ticket_table
from companion.markdown import Markdown
from companion.publish.parameters import (
    Spec,
    choice,
    declare,
    many,
    numbers,
    optional,
    text,
    whole,
)
from companion.published import load_study
from companion.studies import CONTESTANTS, Entry, Study, ticket_study
from lthlib.errors import ConfigError, Paused, check_choice
from lthlib.masks import Mask
from lthlib.methods import METHODS, get_method
from lthlib.recipes import Recipe, dense_run, load_recipe, recipe_names
from lthlib.recipes.recipe import SCALES
from lthlib.runs import Machine, Parent, RunConfig, Store, bar, execute_many
from lthlib.training import steps_of

SOURCES = ("published", "local", "results")
GATED = tuple(name for name, method in METHODS.items() if method.has_gates)


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

    def _repr_markdown_(self) -> Markdown:
        failed = sum(record["status"] == "failed" for record in self.records)
        where = {
            "read from the published record": self.published,
            "from the local store": self.stored,
            "computed just now": self.computed,
            "failed": failed,
        }
        words = [f"{count} {what}" for what, count in where.items() if count]
        text = Markdown("Runs: {}.").format(", ".join(words) or "none")
        if self.stale:
            text += Markdown("\n\n> **Stale:** {}. Run again with `source: local`.").format(
                "; ".join(self.stale)
            )
        return text


def declare_study(names: Mapping[str, Any], /, **specs: Spec) -> Any:
    """Check the parameters of a notebook on a study, as `declare` does, which is told here what
    those may be that such notebooks share.

    Args:
        names: the notebook's `globals()`.
        specs: what its own parameters may be; one of the shared may be something else here.
    """
    shared = {name: spec for name, spec in shared_parameters().items() if name in names}
    return declare(names, **shared | specs)


def shared_parameters() -> dict[str, Spec]:
    """Return what the parameters may be that notebooks on a study share, by name."""
    pairs = recipe_pairs()
    return {
        "dataset": choice(*sorted({dataset for dataset, _ in pairs})),
        "architecture": choice(*sorted({architecture for _, architecture in pairs})),
        "recipe": optional(text()),
        "methods": optional(many(*CONTESTANTS)),
        "densities": optional(numbers(0, 1)),
        "seeds": optional(whole(1)),
        "dense_seeds": optional(whole(1)),
        "initial_gates": optional(numbers()),
        "penalties": optional(numbers(0)),
        "rounds": optional(whole(1)),
        "length": optional(text()),
        "rewind": optional(text()),
        "source": choice(*SOURCES),
        "results": optional(text()),
        "store": optional(text()),
        "data": optional(text()),
        "device": text(),
        "jobs": optional(whole(1)),
        "artefacts": optional(text()),
    }


def open_study(
    parameters: Any, study: Study | None = None, **changes: Any
) -> tuple[Study, Gathered, pd.DataFrame]:
    """Return the study that a notebook's parameters ask for, its records, and their table; what is
    missing is computed.

    Args:
        parameters: what `declare_study` returned.
        study: another than `choose_study` finds by them.
        changes: parameters with other values, or such as the notebook lacks.

    Raises:
        ConfigError: as `choose_study` and `study_records` do.
    """
    given = {**parameters._asdict(), **changes}
    if study is None:
        study = choose_study(**taken(given, choose_study, choose_recipe))
    how = taken(given, study_records)
    found = study_records(study, Store(parameters.store), machine_of(parameters), **how)
    return study, found, ticket_table(found.records)


def recipe_of(parameters: Any) -> Recipe:
    """Return the recipe that a notebook's parameters ask for; raises as `choose_recipe`."""
    return choose_recipe(**taken(parameters._asdict(), choose_recipe))


def machine_of(parameters: Any) -> Machine:
    """Return where a notebook's parameters let runs be computed."""
    return Machine(parameters.device, parameters.data)


def taken(given: Mapping[str, Any], *functions: Callable[..., Any]) -> dict[str, Any]:
    """Return what functions take of a notebook's parameters, but for the store, which is a path
    there."""
    names = {name for one in functions for name in signature(one).parameters} - {"store"}
    return {name: value for name, value in given.items() if name in names}


def choose_study(
    dataset: str,
    architecture: str,
    recipe: str | None = None,
    *,
    methods: Sequence[str] | None = None,
    densities: Sequence[float] | None = None,
    seeds: int | None = None,
    dense_seeds: int | None = None,
    precisions: Sequence[str] | None = None,
    **changes: Any,
) -> Study:
    """Return the study of accuracy against density for a data set and a network.

    Args:
        dataset, architecture: of one of the recipes that come with lthlib.
        recipe: a recipe by name or a YAML file, in place of the two.
        methods, densities, seeds, dense_seeds, precisions: as `ticket_study` takes them; the
            recipe's if None.
        changes: as `choose_recipe` takes them.

    Raises:
        ConfigError: no recipe has this pair (the message lists the pairs), or a bad value.
    """
    return ticket_study(
        choose_recipe(dataset, architecture, recipe, **changes),
        methods=methods,
        densities=densities,
        seeds=seeds,
        dense_seeds=dense_seeds,
        precisions=precisions,
    )


def choose_recipe(
    dataset: str,
    architecture: str,
    recipe: str | None = None,
    *,
    initial_gates: Sequence[float] | None = None,
    penalties: Sequence[float] | None = None,
    rounds: int | None = None,
    length: str | None = None,
    rewind: str | None = None,
) -> Recipe:
    """Return the recipe for a data set and a network, with what a notebook's reader changed in it.

    Args:
        dataset, architecture, recipe: as for `choose_study`.
        initial_gates, penalties: s0 and lambda of CS, one search for every pair of them.
        rounds: of every search with gates: CS, l0 and ISS.
        length: of a training, such as `8ep` or `300it`; milestones keep their share of it.
        rewind: the step k that tickets are retrained from, such as `1ep`.

    Raises:
        ConfigError: no recipe has this pair, or length and rewind are not of that form.
    """
    pairs = recipe_pairs()
    if recipe is None and (dataset, architecture) not in pairs:
        known = "; ".join(f"{data} with {network}" for data, network in pairs)
        raise ConfigError(f"no recipe trains {architecture} on {dataset}; there are: {known}")
    chosen = load_recipe(recipe or pairs[dataset, architecture])
    lists = {"initial_gate": initial_gates, "penalty": penalties}
    methods: dict[str, Any] = {
        "cs": {name: list(values) for name, values in lists.items() if values is not None}
    }
    if rounds is not None:
        methods = {name: {**methods.get(name, {}), "rounds": rounds} for name in GATED}
    changes: dict[str, Any] = {"methods": methods} if methods["cs"] else {}
    if length is not None:
        changes["training"] = _training(chosen, _checked("length", length))
    if rewind is not None:
        changes["rewind"] = _checked("rewind", rewind)
    return chosen.with_(**changes)


def _checked(name: str, length: str) -> str:
    try:
        steps_of(length, 1)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    return length


def _training(recipe: Recipe, length: str) -> dict[str, Any]:
    """A training of another length, the milestones moved with it."""
    before, milestones = (recipe.values["training"].get(n) for n in ("length", "milestones"))
    if not milestones:
        return {"length": length}
    if {one[-2:] for one in (before, *milestones)} != {length[-2:]}:
        raise ConfigError(
            f"length: {length!r} has another unit than the milestones {', '.join(milestones)} of "
            f"recipe {recipe.name}; give it as in {before}"
        )
    share = float(length[:-2]) / float(before[:-2])
    moved = [f"{round(share * float(one[:-2]), 6):g}{one[-2:]}" for one in milestones]
    return {"length": length, "milestones": moved}


def recipe_pairs() -> dict[tuple[str, str], str]:
    """Return (data set, architecture) -> name of the recipe, of those that come with lthlib.

    Where several share a pair: the one at the smallest scale, then the first by name.
    """
    recipes = [load_recipe(name) for name in recipe_names()]
    recipes.sort(key=lambda one: (SCALES.index(one.scale), one.name), reverse=True)
    pairs = {
        (one.values["data"]["dataset"], one.values["model"]["architecture"]): one.name
        for one in recipes
    }
    return dict(sorted(pairs.items()))


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
    check_choice("source", source, SOURCES)
    folder = Path(results or "results")
    published = [] if source == "local" else load_study(folder, study.name)
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


def topped_up(
    study: Study, store: Store, results: str | Path
) -> tuple[list[dict[str, Any]], list[RunConfig]]:
    """Return a study's records in its order, as published unless another version of a method made
    them, else from a store; and the runs that neither has.

    Args:
        study: which runs.
        store: of local runs.
        results: folder of the published record.

    Raises:
        RecordError: the published record is damaged or of another schema.
    """
    published: dict[str, list[dict[str, Any]]] = {}
    for record in load_study(results, study.name, whole=False):
        published.setdefault(record["run"], []).append(record)
    records: list[dict[str, Any]] = []
    missing = []
    for entry in study.entries:
        own = [study.label(entry, record) for record in published.get(entry.config.id, [])]
        if not own or _stale(own):
            own = replace(study, entries=(entry,)).records(store)
        records += own
        missing += [] if own else [entry.config]
    return records, missing


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
        table: of the same study, from `ticket_table`.
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


def gate_study(recipe: Recipe, penalties: Mapping[str, float], seeds: int = 1) -> Study:
    """Return one search with gates a method and seed, without retraining.

    Args:
        recipe: gives the methods' settings; of a list its first value.
        penalties: method (`cs`, `l0`, `iss`) -> lambda.
        seeds: replicates.

    Raises:
        ConfigError: a method without gates, or a bad value.
    """
    if unknown := [method for method in penalties if method not in GATED]:
        raise ConfigError(f"method is {unknown[0]!r}; expected some of {', '.join(GATED)}")
    first = recipe.values["study"].get("first_seed", 0)
    entries = []
    for method, penalty in penalties.items():
        settings = {
            "rewind": recipe.rewind,
            **_first_values(recipe.method(method)),
            "penalty": penalty,
        }
        for seed in range(first, first + seeds):
            config = recipe.config(method, seed, **settings)
            entries.append(Entry(config, get_method(method).title))
    return Study(recipe.name, recipe.scale, tuple(entries))


def base_settings(recipe: Recipe, method: str = "cs") -> dict[str, Any]:
    """Return all settings of a recipe's search; of a list its first value."""
    settings = _first_values(recipe.method(method))
    if method in GATED:
        settings = {"rewind": recipe.rewind, **settings}
    starts = get_method(method).parent
    parent = Parent(dense_run(recipe, 0), "dense") if starts == "dense" else None
    found: dict[str, Any] = recipe.config(method, 0, parent, **settings).to_json()["settings"]
    return found


def histories(study: Study, store: Store) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return the history of each run that a store holds complete: (label, seed) -> its epochs."""
    found = {}
    for entry in study.entries:
        result = store.load(entry.config)
        if result is not None and result.failure is None:
            found[entry.label, entry.config.seed] = result.history
    return found


def round_agreement(study: Study, store: Store) -> pd.DataFrame:
    """Return how far the masks of successive rounds of a search agree, a row a pair of rounds.

    Returns:
        Columns method, seed, round (the later one, from 1), density (of its mask, percent), again
        (percent of its kept weights that the round before kept too), chance (what masks drawn at
        random with the same counts in every layer would share).
    """
    rows = []
    for entry in study.entries:
        result = store.load(entry.config)
        if result is None or result.failure is not None:
            continue
        points = [record["ticket"]["point"] for record in result.records]
        masks = [store.ticket(entry.config, point).mask for point in points]
        for number, (one, other) in enumerate(pairwise(masks), start=2):
            before, after = one.layers(), other.layers()
            both = sum(int((one[name] & other[name]).sum()) for name in other)
            drawn = sum(after[name][0] * kept / total for name, (kept, total) in before.items())
            shares = (100 * part / other.kept for part in (both, drawn))
            rows.append((entry.label, entry.config.seed, number, 100 * other.density, *shares))
    names = ["method", "seed", "round", "density", "again", "chance"]
    return pd.DataFrame(rows, columns=names)


def _first_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value[0] if isinstance(value, list) else value for name, value in settings.items()
    }


def _pairs(ours: Mapping[int, Mask], theirs: Mapping[int, Mask], same: bool) -> list[Any]:
    if same:
        return [(ours[a], ours[b]) for a in ours for b in ours if a < b]
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]


def _by_chance(one: Mask, other: Mask) -> float:
    theirs = other.layers()
    both = sum(kept * theirs[name][0] / total for name, (kept, total) in one.layers().items())
    return both / (one.kept + other.kept - both)


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
