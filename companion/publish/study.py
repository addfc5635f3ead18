"""What a notebook shows: the records of a study, published first, then stored, then computed."""

import contextlib
import io
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from IPython import get_ipython

from companion.analysis.points import ticket_table
from companion.analysis.words import duration
from companion.markdown import Markdown
from companion.publish.artefacts import Artefacts
from companion.publish.parameters import choice, declare, some
from companion.publish.results import results_folder
from companion.published import load_study
from companion.studies import CONTESTANTS, Study, ticket_study
from lthlib.errors import ConfigError, Paused, check_choice
from lthlib.methods import METHODS, get_method
from lthlib.recipes import Recipe, dense_run, load_recipe, recipe_names
from lthlib.recipes.recipe import SCALES
from lthlib.runs import Machine, Parent, RunConfig, Store, bar, execute_many, with_ancestors
from lthlib.settings import Count, Density, Length, NotNegative, Number, coerce

SOURCES = ("published", "local", "results")
GATED = tuple(name for name, method in METHODS.items() if method.has_gates)
# Where a run's records come from.
ORIGINS = ("read from the published record", "from the local store", "computed just now")
PUBLISHED, STORED, COMPUTED = ORIGINS


@dataclass(frozen=True)
class Gathered:
    """A study's records, and where they come from.

    Attributes:
        records: one per judged ticket or failed run.
        origins: run -> `PUBLISHED`, `STORED` or `COMPUTED`.
        stale: what differs between published runs that are shown and this version of lthlib.
    """

    records: list[dict[str, Any]]
    origins: Mapping[str, str]
    stale: tuple[str, ...] = ()

    @property
    def counts(self) -> Counter[str]:
        """How many of the runs come from where."""
        return Counter(self.origins[run] for run in {record["run"] for record in self.records})

    def _repr_markdown_(self) -> Markdown:
        failed = sum(record["status"] == "failed" for record in self.records)
        counts = self.counts + Counter(failed=failed)
        words = [f"{counts[name]} {name}" for name in (*ORIGINS, "failed") if counts[name]]
        text = Markdown("Runs: {}.").format(", ".join(words) or "none")
        if self.stale:
            text += Markdown("\n\n> **Stale:** {}. Run again with `source: local`.").format(
                "; ".join(self.stale)
            )
        return text


def begin(notebook: str, names: Mapping[str, Any], /, **kinds: Any) -> tuple[Any, Artefacts]:
    """Check the parameters of a notebook on a study, as `declare` does.

    What those may be that such notebooks share, `shared_parameters` says.

    Args:
        notebook: its name.
        names: its `globals()`.
        kinds: what its own parameters may be; one of the shared may be something else here.

    Returns:
        The parameters, and where the notebook's figures and tables go.

    Raises:
        ConfigError: as `declare` does.
    """
    shared = {name: kind for name, kind in shared_parameters().items() if name in names}
    parameters = declare(names, **shared | kinds)
    return parameters, Artefacts.of(notebook, parameters)


def shared_parameters() -> dict[str, Any]:
    """Return what the parameters may be that notebooks on a study share, by name."""
    datasets, architectures = map(set, zip(*recipe_pairs(), strict=True))
    return {
        "dataset": choice(*sorted(datasets)),
        "architecture": choice(*sorted(architectures)),
        **dict.fromkeys(("recipe", "results", "store", "data", "artefacts"), str | None),
        "methods": some(choice(*CONTESTANTS)) | None,
        "density": Density,
        "densities": some(Density) | None,
        **dict.fromkeys(("seeds", "dense_seeds", "rounds", "jobs"), Count | None),
        "initial_gates": some(Number) | None,
        "penalties": some(NotNegative) | None,
        **dict.fromkeys(("length", "rewind"), Length | None),
        "source": choice(*SOURCES),
        "device": str,
    }


def open_study(
    parameters: Any, study: Study | None = None, **changes: Any
) -> tuple[Study, Gathered, pd.DataFrame]:
    """Open the study that a notebook's parameters ask for; what is missing is computed.

    Args:
        parameters: what `begin` returned.
        study: another than `study_of` finds by them.
        changes: parameters with other values, or such as the notebook lacks.

    Returns:
        The study, its records, and their table from `ticket_table`.

    Raises:
        ConfigError: as `study_of` and `study_records` do.
    """
    values = {**parameters._asdict(), **changes}
    study = study or study_of(recipe_of(parameters), values)
    options = {name: values[name] for name in ("source", "results", "jobs") if name in values}
    gathered = study_records(study, Store(parameters.store), machine_of(parameters), **options)
    return study, gathered, ticket_table(gathered.records)


def study_of(recipe: Recipe, values: Mapping[str, Any]) -> Study:
    """Return the study of accuracy against density that a notebook's parameters ask for.

    Args:
        recipe: gives what they do not.
        values: theirs, by name; those that `ticket_study` does not take are passed over.

    Raises:
        ConfigError: as `ticket_study` does.
    """
    taken = ("methods", "densities", "seeds", "dense_seeds", "precisions")
    return ticket_study(recipe, **{name: values.get(name) for name in taken})


def machine_of(parameters: Any) -> Machine:
    """Return where a notebook's parameters let runs be computed."""
    return Machine(parameters.device, parameters.data)


def recipe_of(parameters: Any) -> Recipe:
    """Return the recipe for a data set and a network, with what a notebook's reader changed in it.

    Args:
        parameters: what `begin` returned. `dataset` and `architecture` name the recipe, unless
            `recipe` does; `initial_gates` and `penalties` are s0 and lambda of CS, one search for
            every pair of them; `rounds` those of every search with gates; `length` is that of a
            training, of which milestones and warm-up keep their share; `rewind` the step that
            tickets are retrained from.

    Raises:
        ConfigError: no recipe has this pair, and the message lists the pairs; or a value does not
            go with the recipe.
    """
    values = {name: value for name, value in parameters._asdict().items() if value is not None}
    pair, pairs = (values["dataset"], values["architecture"]), recipe_pairs()
    if "recipe" not in values and pair not in pairs:
        names = "; ".join(f"{data} with {network}" for data, network in pairs)
        raise ConfigError(f"no recipe trains {pair[1]} on {pair[0]}; there are: {names}")
    recipe = load_recipe(values.get("recipe") or pairs[pair])
    lists = {"initial_gate": "initial_gates", "penalty": "penalties"}
    methods: dict[str, Any] = {
        "cs": {name: list(values[many]) for name, many in lists.items() if many in values}
    }
    if "rounds" in values:
        methods = {name: {**methods.get(name, {}), "rounds": values["rounds"]} for name in GATED}
    changes: dict[str, Any] = {"methods": methods} if methods["cs"] else {}
    if "rewind" in values:
        changes["rewind"] = values["rewind"]
    if "length" in values:
        recipe = _of_length(recipe, values["length"])
        changes["training"] = {"length": values["length"]}
    return recipe.with_(**changes)


def _of_length(recipe: Recipe, length: str) -> Recipe:
    """The recipe with milestones and warm-up for a training of another length."""
    coerce(length, Length, "training.length")
    training = recipe.training
    if length[-2:] == training.length[-2:]:
        return recipe.stretched(float(length[:-2]) / float(training.length[:-2]))
    moved = f"milestones {', '.join(training.milestones)}" if training.milestones else ""
    moved = moved or (f"warm-up {training.warmup}" if training.warmup != "0it" else "")
    if moved:
        raise ConfigError(
            f"length: {length!r} has another unit than the {moved} of recipe {recipe.name}; give "
            f"it as in {training.length}"
        )
    return recipe


def recipe_pairs() -> dict[tuple[str, str], str]:
    """Return (data set, architecture) -> name of the recipe, of those that come with lthlib.

    Where several share a pair, it is the one at the smallest scale, then the first by name.
    """
    recipes = [load_recipe(name) for name in recipe_names()]
    recipes.sort(key=lambda recipe: (SCALES.index(recipe.scale), recipe.name), reverse=True)
    pairs = {
        (recipe.values["data"]["dataset"], recipe.values["model"]["architecture"]): recipe.name
        for recipe in recipes
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
        source: `published`, runs come from `results/STUDY.jsonl` where it holds them, the others
            from the store; `local`, all come from the store; `results`, the published record as it
            is, nothing is computed.
        results: folder of the published record, default as `results_folder` finds it.
        jobs: runs at once, default one a core, or one on a GPU.

    Raises:
        ConfigError: an unknown source, or `results` without a published record.
        RecordError: the published record is damaged or of another schema.
        Paused: computing was interrupted; its state is saved.
    """
    check_choice("source", source, SOURCES)
    folder = results_folder(results)
    published = [] if source == "local" else load_study(folder, study.name)
    runs = _by_run(published)
    if source == "results":
        if not published:
            raise ConfigError(
                f"{folder} holds no record of {study.name}: `lth record {study.name}`"
            )
        return Gathered(published, dict.fromkeys(runs, PUBLISHED), _stale(published))

    lacking = [config for config in study.configs if config.id not in runs]
    missing = [config for config in lacking if store.load(config) is None]
    if missing:
        due = [config for config in with_ancestors(missing) if store.load(config) is None]
        folders = f"{store.root}" if source == "local" else f"{folder} or {store.root}"
        with _echoed_outside():
            _announce(study.name, due, folders, machine, jobs)
            compute(study.name, missing, store, machine, jobs)
    return _gathered(study, store, runs, {config.id for config in missing})


def _announce(
    name: str, due: Sequence[RunConfig], folders: str, machine: Machine, jobs: int | None
) -> None:
    """Say what will be computed, and how long that takes; trying it out takes a few seconds."""
    from companion.forecast import estimate

    if os.getenv("LTHLIB_UNSEEN"):
        return
    expected = duration(estimate(due, machine, jobs).seconds)
    print(
        f"\n{name}: {len(due)} runs are not in {folders}; computing them takes about {expected} "
        "here. Ctrl-C stops; the next call goes on.",
        file=sys.stderr,
    )


@contextlib.contextmanager
def _echoed_outside() -> Iterator[None]:
    """What a notebook's cell writes to standard error goes to that of its kernel as well."""
    # Papermill shows nothing of a cell, and may run for hours.
    cell = sys.stderr
    if not hasattr(get_ipython(), "kernel"):
        yield
        return

    class Both(io.TextIOBase):
        def write(self, text: str) -> int:
            with contextlib.suppress(OSError):  # no such descriptor, or nobody listens
                os.write(self.fileno(), text.encode())
            return cell.write(text)

        def flush(self) -> None:
            cell.flush()

        def fileno(self) -> int:
            return cell.fileno()  # ipykernel's: what standard error was before it became a cell's

    with contextlib.redirect_stderr(Both()):
        yield


def topped_up(
    study: Study, store: Store, results: str | Path
) -> tuple[list[dict[str, Any]], list[RunConfig]]:
    """Return a study's records from what is published and a store, and what neither has.

    Args:
        study: which runs.
        store: of local runs.
        results: folder of the published record.

    Returns:
        The records in the study's order, as published unless another version of a method made them,
        else from the store; and the runs that are in neither.

    Raises:
        RecordError: the published record is damaged or of another schema.
    """
    runs = _by_run(load_study(results, study.name, whole=False))
    fresh = {run: records for run, records in runs.items() if not _stale(records)}
    gathered = _gathered(study, store, fresh)
    missing = [config for config in study.configs if config.id not in gathered.origins]
    return gathered.records, missing


def _gathered(
    study: Study,
    store: Store,
    published: Mapping[str, list[dict[str, Any]]],
    computed: Collection[str] = (),
) -> Gathered:
    """A study's records in its order, as published unless they are stale and the store has them."""
    records, origins = [], {}
    for entry in study.entries:
        run = entry.config.id
        recorded = [study.label(entry, record) for record in published.get(run, [])]
        local = []
        if not recorded or _stale(recorded):
            local = replace(study, entries=(entry,)).records(store)
        if local:
            origins[run] = COMPUTED if run in computed else STORED
        elif recorded:
            origins[run] = PUBLISHED
        records += local or recorded
    used = [record for record in records if origins[record["run"]] == PUBLISHED]
    return Gathered(records, origins, _stale(used))


def compute(
    name: str, configs: Sequence[RunConfig], store: Store, machine: Machine, jobs: int | None
) -> dict[str, str]:
    """Execute runs with a progress bar.

    Args:
        name: of their study.
        configs: the runs.
        store: where they and their ancestors are kept.
        machine: where to compute.
        jobs: runs at once, or None for one a core, or one on a GPU.

    Returns:
        Those that failed, id -> why.

    Raises:
        Paused: it was interrupted; the state is saved, and the next call goes on from there.
    """
    with bar(name) as report:
        swept = execute_many(configs, store, machine, jobs=jobs, report=report)
    if swept.unfinished:
        raise Paused(f"{name}: stopped with {swept.unfinished} runs to go, their state saved")
    return swept.failed


def base_settings(recipe: Recipe, method: str = "cs") -> dict[str, Any]:
    """Return all settings of a recipe's search; of a list its first value.

    Args:
        recipe: what the search takes its settings from.
        method: the name of the search.
    """
    return dict(_first_search(recipe, method, 0).to_json()["settings"])


def _first_search(recipe: Recipe, method: str, seed: int, **changes: float) -> RunConfig:
    settings = {
        name: value[0] if isinstance(value, list) else value
        for name, value in recipe.method(method).items()
    }
    if method in GATED:
        settings = {"rewind": recipe.rewind, **settings}
    starts = get_method(method).parent
    parent = Parent(dense_run(recipe, seed), "dense") if starts == "dense" else None
    return recipe.config(method, seed, parent, **settings | changes)


def _by_run(records: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        runs.setdefault(record["run"], []).append(record)
    return runs


def _stale(records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Say which published records another version of a method, or another run, has made."""
    reasons: Counter[str] = Counter()
    for record in records:
        now = get_method(record["method"]).version
        if record["method_version"] != now:
            recorded = record["method_version"]
            reasons[f"{record['method']} is at version {now}, recorded at {recorded}"] += 1
        elif RunConfig.from_json(record["config"]).id != record["run"]:
            reasons[f"the configuration of {record['method']} no longer has the recorded id"] += 1
    return tuple(f"{count} published records: {why}" for why, count in sorted(reasons.items()))
