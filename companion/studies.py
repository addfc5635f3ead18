"""Studies: grids of runs, each with the label that figures show. They name no figures."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lthlib.errors import ConfigError, check_choice, shown
from lthlib.files import from_yaml
from lthlib.methods import get_method
from lthlib.methods.bip import DEPARTURES
from lthlib.recipes import Recipe, dense_run
from lthlib.runs import Parent, RunConfig, Store
from lthlib.settings import Count, Density, coerce


@dataclass(frozen=True)
class Entry:
    """A run of a study, and the label under which its tickets are shown.

    Attributes:
        config: the run's.
        label: that figures show.
    """

    config: RunConfig
    label: str


MOST_RUNS = 20_000


@dataclass(frozen=True)
class Study:
    """A named grid of runs at one scale.

    Attributes:
        name: of its file in `results/`.
        scale: embedded, reduced or paper.
        entries: its runs.
    """

    name: str
    scale: str
    entries: tuple[Entry, ...]

    @property
    def configs(self) -> list[RunConfig]:
        """The runs, in order."""
        return [entry.config for entry in self.entries]

    def records(self, store: Store) -> list[dict[str, Any]]:
        """Records of the study's complete runs in a store, one per judged ticket."""
        return [
            self.label(entry, record)
            for entry in self.entries
            if (result := store.load(entry.config)) is not None
            for record in result.records
            # IMP's first training is the dense network, which the dense runs already stand for.
            if (record["method"], record["status"]) != ("imp", "ok") or record["ticket"]["index"]
        ]

    def label(self, entry: Entry, record: dict[str, Any]) -> dict[str, Any]:
        """A run's record as one of this study."""
        return {**record, "study": self.name, "scale": self.scale, "label": entry.label}

    def missing(self, store: Store) -> list[RunConfig]:
        """The runs that a store does not hold."""
        return [config for config in self.configs if store.load(config) is None]


def ticket_study(
    recipe: Recipe,
    *,
    methods: Sequence[str] | None = None,
    densities: Sequence[float] | None = None,
    seeds: int | None = None,
    dense_seeds: int | None = None,
    precisions: Sequence[str] | None = None,
) -> Study:
    """Return a study of accuracy against density: dense and every contestant, over seeds.

    Args:
        recipe: gives what is not given here.
        methods: contestants, see `CONTESTANTS`.
        densities: kept fractions in (0, 1].
        seeds: replicates of each contestant.
        dense_seeds: replicates of the dense network.
        precisions: the study is made once at each, and its labels say which, `BiP, bf16`; if empty,
            once, at that of `training`.

    Returns:
        The study.

    Raises:
        ConfigError: an unknown contestant or precision, an empty list of another kind, or a bad
            density.
    """
    choices = {
        "methods": methods,
        "densities": densities,
        "seeds": seeds,
        "dense_seeds": dense_seeds,
        "precisions": precisions,
    }
    choices = {name: value for name, value in choices.items() if value is not None}
    study = {**recipe.values["study"], **choices}
    names = study.get("precisions") or []
    entries = [] if names else _entries(recipe, study)
    for precision in dict.fromkeys(names):
        for entry in _entries(recipe.with_(training={"precision": precision}), study):
            entries.append(replace(entry, label=f"{entry.label}, {precision}"))
    # The scale is that of the recipe: at paper scale, a precision beside the paper's does not
    # change what the study is compared with.
    return Study(recipe.name, recipe.scale, tuple(entries))


def _entries(recipe: Recipe, study: Mapping[str, Any]) -> list[Entry]:
    methods, seeds = study["methods"], study["seeds"]
    seeds = {"default": seeds} if isinstance(seeds, int) else seeds
    for method in methods:
        check_choice("method", method, CONTESTANTS)
    replicates = {method: seeds.get(method, seeds["default"]) for method in methods}
    dense_seeds = max([study["dense_seeds"], *replicates.values()])
    if not study["densities"] or min([dense_seeds, *replicates.values()]) < 1:
        raise ConfigError("a study needs at least one density and one seed")
    densities = coerce(list(study["densities"]), tuple[Density, ...], "density")
    first = study.get("first_seed") or 0
    grid = itertools.chain(
        (Entry(dense_run(recipe, first + seed), "dense") for seed in range(dense_seeds)),
        (
            entry
            for method in methods
            for seed in range(replicates[method])
            for entry in CONTESTANTS[method](recipe, first + seed, densities)
        ),
    )
    entries = list(itertools.islice(grid, MOST_RUNS + 1))
    if len(entries) > MOST_RUNS:
        raise ConfigError(
            f"the study has more than {MOST_RUNS:,} runs; ask for fewer seeds, densities, rounds "
            "or values of a setting"
        )
    # Two contestants may share runs: CS's searches are the same whatever is done with the tickets.
    unique = {entry.config.id: entry for entry in reversed(entries)}
    return [entry for entry in entries if unique.pop(entry.config.id, None)]


@dataclass(frozen=True)
class Contestant:
    """Searches of one method, and which of their tickets a study shows.

    It is a line of `contestants.yaml`, where the fields are explained. A method with gates has a
    search for every combination of the recipe's lists, IMP one of as many rounds as the lowest
    density takes, any other method one for each density.
    """

    name: str
    label: str
    search: Mapping[str, Any] = field(default_factory=dict)
    shown: str = "found"
    training: Mapping[str, Any] = field(default_factory=dict)
    section: str = ""
    varied: bool = False
    last: bool = False
    needs: str = ""

    @property
    def method(self) -> str:
        """The method that searches."""
        return self.name.partition("-")[0]

    def __call__(self, recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[Entry]:
        """Yield the runs of a seed.

        Args:
            recipe: gives data, network, training and the methods' settings.
            seed: of initialisation, data order and the method's own draws.
            densities: kept fractions in (0, 1].

        Yields:
            Searches, retrained tickets, or both.

        Raises:
            ConfigError: the recipe does not fit.
        """
        section = self.section or self.name
        changes = recipe.method(section) if section != self.method else {}
        variants = [self]
        if self.varied:
            variants = [
                replace(self, label=f"{self.label}, {name} {value}", search={name: value})
                for name, value in _listed_values(recipe, section)
            ]
        elif self.shown == "found":
            variants = [replace(self, search={**self.search, **changes})]
        else:
            variants = [replace(self, training={**self.training, **changes})]
        for variant in variants:
            yield from variant._runs(recipe, seed, densities)

    def _runs(self, recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[Entry]:
        settings = {**recipe.method(self.method), **self.search}
        if self.needs and self.needs not in settings:
            raise ConfigError(
                f"recipe {recipe.name} gives no {self.name}.{self.needs}; leave out {self.name}"
            )
        # What IMP-C finds was trained without going back; its tickets are trained from k as well.
        shown = "both" if settings.get("rewinding") == "none" else self.shown
        searches = list(self._searches(recipe, seed, densities, settings))
        # With gates, each search stands beside its tickets.
        has_gates = get_method(self.method).has_gates
        for group in [[search] for search in searches] if has_gates else [searches]:
            if shown != "retrained":
                label = self.label if shown == "found" else f"{self.label}, as found"
                yield from (Entry(search, label) for search in group)
            if shown != "found":
                for search in group:
                    yield from self._tickets(recipe, search)

    def _searches(
        self, recipe: Recipe, seed: int, densities: Sequence[float], settings: dict[str, Any]
    ) -> Iterator[RunConfig]:
        method = get_method(self.method)
        if method.takes("rounds"):
            settings = {"rewind": recipe.rewind, **settings}
            if not method.has_gates and "rounds" not in settings:
                fraction = recipe.config(self.method, seed, **settings).settings.fraction
                rounds = round(math.log(min(densities)) / math.log(1 - fraction))
                settings = {"rounds": max(1, rounds), **settings}
            if empty := [f"{self.method}.{n}" for n, value in settings.items() if value == []]:
                raise ConfigError(f"{empty[0]} is an empty list; give at least one value")
            for choice in _combinations(settings):
                yield recipe.config(self.method, seed, **settings | choice)
            return
        fixed = "density" in CONTESTANTS[self.name].search
        if "density" in settings and not fixed:
            raise ConfigError(
                f"methods.{self.section or self.name}.density is given, but a study's densities "
                "say it; use --densities"
            )
        parent = Parent(dense_run(recipe, seed), "dense") if method.parent != "none" else None
        for density in [settings["density"]] if fixed else [d for d in densities if d < 1]:
            for choice in _combinations(recipe.method(self.method)):
                values = {**settings, **choice, **self.search, "density": density}
                yield recipe.config(self.method, seed, parent, **values)

    def _tickets(self, recipe: Recipe, search: RunConfig) -> Iterator[Entry]:
        method = get_method(self.method)
        points = ["ticket"]
        settings = dict(self.training)
        if method.takes("rounds"):
            first = 0 if method.has_gates else 1  # IMP's round 0 is the dense network
            points = [f"round-{r}" for r in range(first, search.settings.rounds + first)]
            points = points[-1:] if self.last else points
            scale = {"mask_value": search.settings.scale} if method.takes("scaled") else {}
            settings = {**scale, **recipe.method("retrain"), **settings}
        for choice in _combinations(settings):
            label = ", ".join([self.label, *(f"{name} {value}" for name, value in choice.items())])
            for point in points:
                parent = Parent(search, point)
                config = recipe.config("retrain", search.seed, parent, **settings | choice)
                yield Entry(config, label)


def _listed_values(recipe: Recipe, section: str) -> Iterator[tuple[str, Any]]:
    """The settings and values of a contestant that tries one after another."""
    for name, values in recipe.method(section).items():
        if not isinstance(values, list):
            raise ConfigError(
                f"methods.{section}.{name} is {shown(values)}; expected a list of values"
            )
        yield from ((name, value) for value in values)


def _combinations(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every choice of one value from each of the settings that are lists."""
    lists = {name: value for name, value in settings.items() if isinstance(value, list)}
    for chosen in itertools.product(*lists.values()):
        yield dict(zip(lists, chosen, strict=True))


@dataclass(frozen=True)
class Departures(Contestant):
    """What the BiP release does otherwise, one departure at a time from either end.

    It is made in the paper's variant, and undone in the release.
    """

    def __call__(self, recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[Entry]:
        """As `Contestant`."""
        release = CONTESTANTS["bip-release"]
        for name in [name for _, name in _listed_values(recipe, self.name)] or DEPARTURES:
            switched = {"switched": [name]}
            departing = Contestant("bip", f"{self.label}, {name}", switched)
            yield from departing(recipe, seed, densities)
            if name != "signed":  # undone alone, `aliased` brings it all the same
                label = f"{release.label}, not {name}"
                undone = replace(release, label=label, search={**release.search, **switched})
                yield from undone(recipe, seed, densities)


@dataclass(frozen=True)
class Longer(Contestant):
    """The dense network trained for longer, milestones and warm-up stretched with it.

    It is as long as a ticket that is retrained from scratch, k and the whole schedule again; or as
    CS's longest search, and a ticket of it after that.
    """

    def __call__(self, recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[Entry]:
        """As `Contestant`."""
        longer = recipe.stretched(self._factor(recipe))
        yield Entry(dense_run(longer, seed), self.label)

    def _factor(self, recipe: Recipe) -> float:
        if self.name == "dense-search":
            rounds = recipe.method("cs").get("rounds", 1)
            listed = rounds if isinstance(rounds, list) else [rounds]
            return 1 + max(coerce(listed, tuple[Count, ...], "cs.rounds"), default=1)
        length, rewind = recipe.training.length, recipe.rewind
        if length[-2:] != rewind[-2:]:
            raise ConfigError(
                f"cannot add {rewind} to {length}: give rewind and training.length in one unit, or "
                f"leave out {self.name}"
            )
        return 1 + float(rewind[:-2]) / float(length[:-2])


_KINDS = {"bip-departures": Departures, "dense-equal": Longer, "dense-search": Longer}
_CONTESTANTS = from_yaml(Path(__file__).with_name("contestants.yaml").read_bytes())
CONTESTANTS: dict[str, Contestant] = {
    name: _KINDS.get(name, Contestant)(name, **row) for name, row in _CONTESTANTS.items()
}
