"""Studies: grids of runs, each with the label that figures show. They name no figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lthlib.errors import ConfigError
from lthlib.recipes.recipe import Recipe
from lthlib.runs import Parent, RunConfig, RunResult, Store


@dataclass(frozen=True)
class Entry:
    """A run of a study, and the label under which its tickets are shown."""

    config: RunConfig
    label: str


@dataclass(frozen=True)
class Study:
    """A named grid of runs at one scale."""

    name: str
    scale: str
    entries: tuple[Entry, ...]

    @property
    def configs(self) -> list[RunConfig]:
        """The runs, in order."""
        return [entry.config for entry in self.entries]

    def records(self, store: Store) -> list[dict[str, Any]]:
        """Records of the study's complete runs in a store, one per judged ticket."""
        found = []
        for entry in self.entries:
            result = store.load(entry.config)
            if result is not None:
                found += [self.label(entry, record) for record in _published(result)]
        return found

    def label(self, entry: Entry, record: dict[str, Any]) -> dict[str, Any]:
        """A run's record as one of this study."""
        return {**record, "study": self.name, "scale": self.scale, "label": entry.label}

    def missing(self, store: Store) -> list[RunConfig]:
        """The runs that a store does not hold."""
        return [config for config in self.configs if store.load(config) is None]


def _published(result: RunResult) -> Iterator[dict[str, Any]]:
    # IMP's first training is the dense network, which the dense runs already stand for.
    for record in result.records:
        if (
            record["method"] == "imp"
            and record["ticket"]["index"] == 0
            and record["status"] == "ok"
        ):
            continue
        yield record


def ticket_study(
    recipe: Recipe,
    *,
    methods: Sequence[str] | None = None,
    densities: Sequence[float] | None = None,
    seeds: int | None = None,
    dense_seeds: int | None = None,
    name: str | None = None,
) -> Study:
    """Accuracy against density: the dense reference and every contestant, over seeds.

    methods: contestants (see CONTESTANTS). densities: kept fractions in (0, 1]. seeds: replicates
    of each. Each default is the recipe's. Raises ConfigError for an unknown contestant, an empty
    list, or a bad density.
    """
    study = recipe.values["study"]
    methods = study["methods"] if methods is None else methods
    densities = study["densities"] if densities is None else densities
    seeds = study["seeds"] if seeds is None else seeds
    dense_seeds = study["dense_seeds"] if dense_seeds is None else dense_seeds
    unknown = [method for method in methods if method not in CONTESTANTS]
    if unknown:
        raise ConfigError(f"method is {unknown[0]!r}; expected some of {', '.join(CONTESTANTS)}")
    if not densities or seeds < 1:
        raise ConfigError("a study needs at least one density and one seed")
    for density in densities:
        if not 0 < density <= 1:
            raise ConfigError(f"density is {density}; expected a kept fraction in (0, 1]")
    entries = [Entry(dense_run(recipe, seed), "dense") for seed in range(max(seeds, dense_seeds))]
    for method in methods:
        for seed in range(seeds):
            entries += CONTESTANTS[method](recipe, seed, densities)
    return Study(name or recipe.name, recipe.scale, tuple(entries))


def dense_run(recipe: Recipe, seed: int) -> RunConfig:
    """The dense run of a seed: parent of all that starts from it."""
    return recipe.config("dense", seed, rewind=recipe.rewind)


def _parent(recipe: Recipe, seed: int) -> Parent:
    return Parent(dense_run(recipe, seed), "dense")


def _imp(recipe: Recipe, seed: int, densities: Sequence[float]) -> list[Entry]:
    settings = recipe.method("imp")
    fraction = settings["fraction"]
    rounds = settings.pop(
        "rounds", max(1, round(math.log(min(densities)) / math.log(1 - fraction)))
    )
    return [
        Entry(recipe.config("imp", seed, rounds=rounds, rewind=recipe.rewind, **settings), "IMP")
    ]


def _cs(recipe: Recipe, seed: int, densities: Sequence[float]) -> list[Entry]:
    settings = recipe.method("cs")
    entries = []
    for penalty in settings.pop("penalty"):
        search = recipe.config("cs", seed, penalty=penalty, rewind=recipe.rewind, **settings)
        entries.append(Entry(search, "CS, as found"))
        for r in range(search.settings.rounds):
            entries.append(
                Entry(recipe.config("retrain", seed, Parent(search, f"round-{r}")), "CS")
            )
    return entries


def _bip_retrained(recipe: Recipe, seed: int, densities: Sequence[float]) -> list[Entry]:
    found = CONTESTANTS["bip"](recipe, seed, densities)
    return [
        Entry(recipe.config("retrain", seed, Parent(entry.config, "ticket")), "BiP, retrained")
        for entry in found
    ]


def _per_density(
    method: str, label: str, contestant: str = "", **change: Any
) -> Callable[[Recipe, int, Sequence[float]], list[Entry]]:
    """One run a density. The recipe's settings of the method hold, then the variant's change, then
    what the recipe says under the contestant's own name."""

    def entries(recipe: Recipe, seed: int, densities: Sequence[float]) -> list[Entry]:
        settings = (
            recipe.method(method) | change | (recipe.method(contestant) if contestant else {})
        )
        if contestant == "omp-matched" and "length" not in settings:
            raise ConfigError(
                f"recipe {recipe.name} gives no omp-matched.length; leave out omp-matched"
            )
        return [
            Entry(
                recipe.config(method, seed, _parent(recipe, seed), density=density, **settings),
                label,
            )
            for density in densities
            if density < 1
        ]

    return entries


CONTESTANTS: dict[str, Callable[[Recipe, int, Sequence[float]], list[Entry]]] = {
    "imp": _imp,
    "cs": _cs,
    "bip": _per_density("bip", "BiP"),
    "bip-retrained": _bip_retrained,
    "omp": _per_density("omp", "OMP"),
    "omp-matched": _per_density("omp", "OMP, compute-matched", "omp-matched"),
    "random": _per_density("random", "random"),
    "bip-unclipped": _per_density("bip", "BiP, unclipped", "bip-unclipped", clip=0.0),
    "bip-release": _per_density("bip", "BiP, as released", "bip-release", variant="release"),
}
