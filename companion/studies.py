"""Studies: grids of runs, each with the label that figures show. They name no figures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lthlib.errors import ConfigError, check_choice, shown
from lthlib.methods import get_method
from lthlib.methods.bip import DEPARTURES
from lthlib.recipes import Recipe, dense_run
from lthlib.runs import Parent, RunConfig, RunResult, Store
from lthlib.settings import Count, Density, coerce


@dataclass(frozen=True)
class Entry:
    """A run of a study, and the label under which its tickets are shown."""

    config: RunConfig
    label: str


Entries = Callable[[Recipe, int, Sequence[float]], Iterable[Entry]]
MOST_RUNS = 20_000


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


def _published(result: RunResult) -> list[dict[str, Any]]:
    # IMP's first training is the dense network, which the dense runs already stand for.
    return [
        record
        for record in result.records
        if (record["method"], record["status"]) != ("imp", "ok") or record["ticket"]["index"] > 0
    ]


def ticket_study(
    recipe: Recipe,
    *,
    methods: Sequence[str] | None = None,
    densities: Sequence[float] | None = None,
    seeds: int | None = None,
    dense_seeds: int | None = None,
    precisions: Sequence[str] | None = None,
    name: str | None = None,
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
        name: of the study, default the recipe's.

    Raises:
        ConfigError: an unknown contestant or precision, an empty list of another kind, or a bad
            density.
    """
    given = {"methods": methods, "densities": densities, "seeds": seeds}
    given |= {"dense_seeds": dense_seeds, "precisions": precisions}
    asked = {name: value for name, value in given.items() if value is not None}
    study = {**recipe.values["study"], **asked}
    names = study.get("precisions") or []
    entries = [] if names else _entries(recipe, study)
    for one in dict.fromkeys(names):
        own = _entries(recipe.with_(training={"precision": one}), study)
        entries += [replace(entry, label=f"{entry.label}, {one}") for entry in own]
    # The scale is that of the recipe: at paper scale, a precision beside the paper's does not
    # change what the study is compared with.
    return Study(name or recipe.name, recipe.scale, tuple(entries))


def _entries(recipe: Recipe, study: Mapping[str, Any]) -> list[Entry]:
    methods, seeds = study["methods"], study["seeds"]
    for method in methods:
        check_choice("method", method, CONTESTANTS)
    replicates = {
        method: seeds if isinstance(seeds, int) else seeds.get(method, seeds["default"])
        for method in methods
    }
    most = max([study["dense_seeds"], *replicates.values()])
    if not study["densities"] or min([most, *replicates.values()]) < 1:
        raise ConfigError("a study needs at least one density and one seed")
    densities = coerce(list(study["densities"]), tuple[Density, ...], "density")
    first = study.get("first_seed") or 0
    dense = (Entry(dense_run(recipe, first + seed), "dense") for seed in range(most))
    others = (
        CONTESTANTS[method](recipe, first + seed, densities)
        for method in methods
        for seed in range(replicates[method])
    )
    made = itertools.chain(dense, itertools.chain.from_iterable(others))
    entries = list(itertools.islice(made, MOST_RUNS + 1))
    if len(entries) > MOST_RUNS:
        raise ConfigError(
            f"the study has more than {MOST_RUNS:,} runs; ask for fewer seeds, densities, rounds "
            "or values of a setting"
        )
    # Two contestants may share runs: CS's searches are the same whatever is done with the tickets.
    unique = {entry.config.id: entry for entry in reversed(entries)}
    return [entry for entry in entries if unique.pop(entry.config.id, None)]


def _parent(recipe: Recipe, seed: int) -> Parent:
    return Parent(dense_run(recipe, seed), "dense")


def _imp(label: str, **change: Any) -> Entries:
    def entries(recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[Entry]:
        settings = {"rewind": recipe.rewind, **recipe.method("imp"), **change}
        fraction = recipe.config("imp", seed, **settings).settings.fraction
        target = math.log(min(densities)) / math.log(1 - fraction)
        settings.setdefault("rounds", max(1, round(target)))
        search = recipe.config("imp", seed, **settings)
        if search.settings.rewinding != "none":
            yield Entry(search, label)
            return
        # What IMP-C finds was trained without going back; its tickets are trained from k as well.
        yield Entry(search, f"{label}, as found")
        for r in range(1, search.settings.rounds + 1):
            yield _retrained(recipe, search, f"round-{r}", label, recipe.method("retrain"))

    return entries


def _retrained(
    recipe: Recipe, search: RunConfig, point: str, label: str, how: Mapping[str, Any]
) -> Entry:
    """A search's ticket trained under its mask."""
    return Entry(recipe.config("retrain", search.seed, Parent(search, point), **how), label)


def _listed(recipe: Recipe, section: str) -> Iterator[tuple[str, Any]]:
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
class Contestant:
    """Searches of one method, and which of their tickets a study shows.

    A method with gates has a search for every combination of the recipe's lists, any other one for
    each density.

    method: of the search. label: that figures show. search: settings that are changed. shown: the
    tickets as `found`, `retrained`, or `both`. training: how a retrained ticket is trained, beyond
    the recipe's `retrain`. section: the part of the recipe's `methods` that changes more: of the
    training if tickets are retrained, else of the search. A list there is a run for each value,
    whose label names it. varied: the section maps settings of the search to lists of values, of
    which one is changed at a time.
    """

    method: str
    label: str
    section: str = ""
    shown: str = "found"
    search: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    varied: bool = False

    def __call__(self, recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[Entry]:
        """Yield the runs of a seed."""
        own = recipe.method(self.section) if self.section else {}
        variants = [self]
        if self.varied:
            variants = [
                replace(self, label=f"{self.label}, {name} {value}", search={name: value})
                for name, value in _listed(recipe, self.section)
            ]
        elif self.shown == "found":
            variants = [replace(self, search={**self.search, **own})]
        else:
            variants = [replace(self, training={**self.training, **own})]
        for one in variants:
            yield from one._runs(recipe, seed, densities)

    def _runs(self, recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[Entry]:
        if get_method(self.method).has_gates:  # each search stands beside its tickets
            groups: Iterable[Iterable[RunConfig]] = ([one] for one in self._gated(recipe, seed))
        else:
            groups = [list(self._at(recipe, seed, densities))]
        for group in groups:
            if self.shown != "retrained":
                label = self.label if self.shown == "found" else f"{self.label}, as found"
                yield from (Entry(search, label) for search in group)
            if self.shown != "found":
                for search in group:
                    yield from self._tickets(recipe, search)

    def _gated(self, recipe: Recipe, seed: int) -> Iterator[RunConfig]:
        settings = {"rewind": recipe.rewind, **recipe.method(self.method), **self.search}
        if empty := [name for name, value in settings.items() if value == []]:
            raise ConfigError(f"{self.method}.{empty[0]} is an empty list; give at least one value")
        for one in _combinations(settings):
            yield recipe.config(self.method, seed, **settings | one)

    def _at(self, recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[RunConfig]:
        settings = {**recipe.method(self.method), **self.search}
        if self.section == "omp-matched" and "length" not in settings:
            raise ConfigError(
                f"recipe {recipe.name} gives no omp-matched.length; leave out omp-matched"
            )
        if "density" in settings:
            raise ConfigError(
                f"methods.{self.section or self.method}.density is given, but the study's "
                "densities say it; change those, with --densities"
            )
        parent = None if get_method(self.method).parent == "none" else _parent(recipe, seed)
        for density in densities:
            if density < 1:
                yield recipe.config(self.method, seed, parent, **settings, density=density)

    def _tickets(self, recipe: Recipe, search: RunConfig) -> Iterator[Entry]:
        points, how = ["ticket"], dict(self.training)
        if get_method(self.method).has_gates:
            points = [f"round-{r}" for r in range(search.settings.rounds)]
            has_scale = hasattr(search.settings, "scale")
            scale = {"mask_value": search.settings.scale} if has_scale else {}
            how = {**scale, **recipe.method("retrain"), **how}
        for one in _combinations(how):
            label = ", ".join([self.label, *(f"{name} {value}" for name, value in one.items())])
            for point in points:
                yield _retrained(recipe, search, point, label, how | one)


def _dense_longer(label: str, length: Callable[[Recipe], str]) -> Entries:
    """The dense network trained for longer, milestones stretched with it."""

    def entries(recipe: Recipe, seed: int, densities: Sequence[float]) -> list[Entry]:
        before, now = recipe.training.length, length(recipe)
        milestones = [_times(one, _ratio(now, before)) for one in recipe.training.milestones]
        training = {"length": now} | ({"milestones": milestones} if milestones else {})
        return [Entry(dense_run(recipe.with_(training=training), seed), label)]

    return entries


def _ticket_length(recipe: Recipe) -> str:
    """Training of a ticket that is retrained from scratch: k and the whole schedule again."""
    return _plus(recipe.training.length, recipe.rewind)


def _search_length(recipe: Recipe) -> str:
    """Training of CS's longest search, and of a ticket of it after that."""
    rounds = recipe.method("cs").get("rounds", 1)
    listed = rounds if isinstance(rounds, list) else [rounds]
    longest = max(coerce(listed, tuple[Count, ...], "cs.rounds"), default=1)
    return _times(recipe.training.length, longest + 1)


def _split(length: str) -> tuple[float, str]:
    return float(length[:-2]), length[-2:]


def _times(length: str, factor: float) -> str:
    amount, unit = _split(length)
    return f"{round(amount * factor, 6):g}{unit}"


def _ratio(length: str, other: str) -> float:
    return _split(length)[0] / _split(other)[0]


def _plus(length: str, other: str) -> str:
    (amount, unit), (more, its) = _split(length), _split(other)
    if unit != its:
        raise ConfigError(
            f"cannot add {other} to {length}: give the recipe's rewind and training.length in one "
            "unit, or leave out dense-equal"
        )
    return f"{amount + more:g}{unit}"


def _departures(recipe: Recipe, seed: int, densities: Sequence[float]) -> list[Entry]:
    """What the BiP release does otherwise, one departure at a time from either end: made in the
    paper's variant, undone in the release."""
    made: list[Entry] = []
    for name in [name for _, name in _listed(recipe, "bip-departures")] or DEPARTURES:
        paper = Contestant("bip", f"BiP, {name}", search={"switched": [name]})
        made += paper(recipe, seed, densities)
        if name != "signed":  # undone alone, `aliased` brings it all the same
            label, change = f"BiP, as released, not {name}", {**_RELEASE, "switched": [name]}
            made += Contestant("bip", label, "bip-release", search=change)(recipe, seed, densities)
    return made


def _bip_dense(recipe: Recipe, seed: int, densities: Sequence[float]) -> list[Entry]:
    """BiP at density 1: the dense network trained for as long as BiP alternates."""
    run = recipe.config(
        "bip", seed, _parent(recipe, seed), **{**recipe.method("bip"), "density": 1.0}
    )
    return [Entry(run, "dense, BiP's epochs")]


_RELEASE: dict[str, Any] = {"variant": "release", "clip": 0.0}
_RETHRESHOLDED: dict[str, Any] = {"switched": ["aliased"], "upper_learning_rate": 0.0}


def _control(section: str, label: str, **training: Any) -> Contestant:
    """A method's tickets with one thing changed in how they are trained."""
    method = section.partition("-")[0]
    return Contestant(method, label, section, shown="retrained", training=training)


def _change(section: str, label: str, **search: Any) -> Contestant:
    """A method with its search changed."""
    return Contestant(section.partition("-")[0], label, section, search=search)


def _variants(method: str, label: str, shown: str = "both") -> Contestant:
    """A method with one setting changed at a time, by the recipe's lists."""
    return Contestant(method, label, f"{method}-variants", shown, varied=True)


def _hydra(label: str, **search: Any) -> Contestant:
    tuned = {"start": "own"}
    return Contestant("hydra", label, "hydra-fine-tuned", "both", search, tuned)


CONTESTANTS: dict[str, Entries] = {
    "imp": _imp("IMP"),
    "imp-c": _imp("IMP-C", rewinding="none"),
    "imp-lr": _imp("IMP, learning-rate rewinding", rewinding="learning-rate"),
    "cs": Contestant("cs", "CS", shown="both"),
    "cs-fine-tuned": _control("cs-fine-tuned", "CS, fine-tuned", start="own", mask_value=1.0),
    "l0-fine-tuned": _control("l0-fine-tuned", "l0, fine-tuned", start="own"),
    "iss-fine-tuned": _control("iss-fine-tuned", "ISS, fine-tuned", start="own"),
    "cs-shuffled": _control("cs-shuffled", "CS, layers shuffled", mask="shuffled"),
    "cs-fresh": _control("cs-fresh", "CS, fresh initialisation", start="fresh"),
    "cs-variants": _variants("cs", "CS"),
    "l0": Contestant("l0", "l0", shown="both"),
    "l0-variants": _variants("l0", "l0"),
    "iss": Contestant("iss", "ISS", shown="both"),
    "iss-variants": _variants("iss", "ISS"),
    "bip": Contestant("bip", "BiP"),
    "bip-retrained": _control("bip-retrained", "BiP, retrained"),
    "bip-rewound": _control("bip-rewound", "BiP", schedule="restart"),
    "bip-shuffled": _control("bip-shuffled", "BiP, layers shuffled", mask="shuffled"),
    "bip-fresh": _control("bip-fresh", "BiP, fresh initialisation", start="fresh"),
    "bip-explicit": _change("bip-explicit", "BiP, implicit term off", implicit=False),
    "bip-frozen": _change("bip-frozen", "BiP, mask frozen", upper_learning_rate=0.0),
    "bip-magnitude": _change("bip-magnitude", "BiP, |theta| re-thresholded", **_RETHRESHOLDED),
    "bip-dense": _bip_dense,
    "bip-variants": _variants("bip", "BiP", "found"),
    "bip-departures": _departures,
    "hydra": _hydra("Hydra"),
    "hydra-release": _hydra("Hydra, as released", initial="weights", aliased=True),
    "snip": Contestant("snip", "SNIP"),
    "grasp": Contestant("grasp", "GraSP"),
    "synflow": Contestant("synflow", "SynFlow"),
    "omp": Contestant("omp", "OMP"),
    "omp-fine-tuned": _change("omp-fine-tuned", "OMP, fine-tuned", start="own"),
    "omp-matched": _change("omp-matched", "OMP, compute-matched"),
    "gmp": Contestant("gmp", "GMP"),
    "random": Contestant("random", "random"),
    "bip-unclipped": _change("bip-unclipped", "BiP, unclipped", clip=0.0),
    "bip-release": _change("bip-release", "BiP, as released", **_RELEASE),
    "dense-equal": _dense_longer("dense, equal training", _ticket_length),
    "dense-search": _dense_longer("dense, search epochs", _search_length),
}
