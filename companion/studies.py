"""Studies: grids of runs, each with the label that figures show. They name no figures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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


Contestant = Callable[[Recipe, int, Sequence[float]], Iterable[Entry]]
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
    precisions: Sequence[str] | None = None,
    name: str | None = None,
) -> Study:
    """Accuracy against density: the dense reference and every contestant, over seeds.

    methods: contestants (see CONTESTANTS). densities: kept fractions in (0, 1]. seeds: replicates
    of each. precisions: the study is made once at each, and its labels say which, `BiP, bf16`; if
    empty, once, at that of `training`. Each default is the recipe's. Raises ConfigError for an
    unknown contestant or precision, an empty list of another kind, or a bad density.
    """
    study = recipe.values["study"]
    if precisions is None:
        precisions = study.get("precisions") or []
    if precisions:
        given = {"methods": methods, "densities": densities, "seeds": seeds}
        return _at_each(recipe, precisions, name=name, dense_seeds=dense_seeds, **given)
    methods = study["methods"] if methods is None else methods
    densities = study["densities"] if densities is None else densities
    dense_seeds = study["dense_seeds"] if dense_seeds is None else dense_seeds
    for method in methods:
        check_choice("method", method, CONTESTANTS)
    replicates = {method: _seeds(study["seeds"], method, seeds) for method in methods}
    most = max([dense_seeds, *replicates.values()])
    if not densities or min([most, *replicates.values()]) < 1:
        raise ConfigError("a study needs at least one density and one seed")
    densities = coerce(list(densities), tuple[Density, ...], "density")
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
    kept = tuple(entry for entry in entries if unique.pop(entry.config.id, None))
    return Study(name or recipe.name, recipe.scale, kept)


def _at_each(recipe: Recipe, precisions: Sequence[str], name: str | None, **given: Any) -> Study:
    entries = [
        replace(entry, label=f"{entry.label}, {one}")
        for one in dict.fromkeys(precisions)
        for entry in ticket_study(
            recipe.with_(training={"precision": one}), precisions=[], **given
        ).entries
    ]
    # The scale is that of the recipe: at paper scale, a precision beside the paper's does not
    # change what the study is compared with.
    return Study(name or recipe.name, recipe.scale, tuple(entries))


def _seeds(own: int | Mapping[str, int], method: str, given: int | None) -> int:
    """Replicates of a contestant: what was asked for, else its own in the recipe, else the
    recipe's default."""
    if given is not None or isinstance(own, int):
        return own if given is None else given  # type: ignore[return-value]
    return own.get(method, own["default"])


def _parent(recipe: Recipe, seed: int) -> Parent:
    return Parent(dense_run(recipe, seed), "dense")


def _imp(label: str, **change: Any) -> Contestant:
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
        yield from _retrained(recipe, search, label, range(1, search.settings.rounds + 1))

    return entries


def _retrained(
    recipe: Recipe,
    search: RunConfig,
    label: str,
    rounds: Iterable[int] | None = None,
    **change: Any,
) -> Iterator[Entry]:
    """A search's tickets trained under their masks, one run a round; as the recipe says, then as
    the change does."""
    own = {"mask_value": search.settings.scale} if hasattr(search.settings, "scale") else {}
    settings = {**own, **recipe.method("retrain"), **change}
    for r in rounds or range(search.settings.rounds):
        parent = Parent(search, f"round-{r}")
        yield Entry(recipe.config("retrain", search.seed, parent, **settings), label)


def _searches(recipe: Recipe, method: str, seed: int) -> Iterator[RunConfig]:
    """The searches of a method with gates: one for every combination of the recipe's lists."""
    settings = {"rewind": recipe.rewind, **recipe.method(method)}
    lists = {name: value for name, value in settings.items() if isinstance(value, list)}
    if empty := [name for name, value in lists.items() if not value]:
        raise ConfigError(f"{method}.{empty[0]} is an empty list; give at least one value")
    for chosen in itertools.product(*lists.values()):
        yield recipe.config(method, seed, **settings | dict(zip(lists, chosen, strict=True)))


def _listed(recipe: Recipe, contestant: str) -> Iterator[tuple[str, Any]]:
    """The settings and values of a contestant that tries one after another."""
    for name, values in recipe.method(contestant).items():
        if not isinstance(values, list):
            raise ConfigError(
                f"methods.{contestant}.{name} is {shown(values)}; expected a list of values"
            )
        yield from ((name, value) for value in values)


def _gated(method: str, label: str) -> Contestant:
    """Searches with gates, each ticket judged as found and retrained."""

    def entries(recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[Entry]:
        for search in _searches(recipe, method, seed):
            yield Entry(search, f"{label}, as found")
            yield from _retrained(recipe, search, label)

    return entries


def _control(method: str, label: str, contestant: str, **change: Any) -> Contestant:
    """A method's tickets with one thing changed in how they are trained; `methods.CONTESTANT` of
    the recipe may change more."""

    def entries(recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[Entry]:
        settings = change | recipe.method(contestant)
        for search in _searches(recipe, method, seed):
            yield from _retrained(recipe, search, label, **settings)

    return entries


def _variants(method: str, label: str, contestant: str) -> Contestant:
    """A method with one setting changed at a time: `methods.CONTESTANT` of the recipe maps settings
    to lists of values. Every variant is judged as found and retrained."""

    def entries(recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[Entry]:
        for name, value in _listed(recipe, contestant):
            changed = recipe.with_(methods={method: {name: value}})
            title = f"{label}, {name} {value}"
            yield from _gated(method, title)(changed, seed, densities)

    return entries


def _dense_longer(label: str, length: Callable[[Recipe], str]) -> Contestant:
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


def _per_density(method: str, label: str, contestant: str = "", **change: Any) -> Contestant:
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
        if "density" in settings:
            raise ConfigError(
                f"methods.{contestant or method}.density is given, but the study's densities say "
                "it; change those, with --densities"
            )
        parent = None if get_method(method).parent == "none" else _parent(recipe, seed)
        return [
            Entry(recipe.config(method, seed, parent, density=density, **settings), label)
            for density in densities
            if density < 1
        ]

    return entries


def _trained(method: str, label: str, contestant: str, **change: Any) -> Contestant:
    """Tickets that a method finds, one a density, trained under their masks; the change, and what
    the recipe says under the contestant's own name, say how. A list there is a run for each value,
    whose label names it."""

    def entries(recipe: Recipe, seed: int, densities: Sequence[float]) -> Iterator[Entry]:
        settings = change | recipe.method(contestant)
        lists = {name: value for name, value in settings.items() if isinstance(value, list)}
        for found in CONTESTANTS[method](recipe, seed, densities):
            for chosen in itertools.product(*lists.values()):
                one = dict(zip(lists, chosen, strict=True))
                title = ", ".join([label, *(f"{name} {value}" for name, value in one.items())])
                parent = Parent(found.config, "ticket")
                run = recipe.config("retrain", seed, parent, **settings | one)
                yield Entry(run, title)

    return entries


def _found_and_tuned(method: str, label: str, contestant: str, **change: Any) -> Contestant:
    """A method that is given its density, each ticket judged as found and fine-tuned."""

    def entries(recipe: Recipe, seed: int, densities: Sequence[float]) -> list[Entry]:
        found = _per_density(method, f"{label}, as found", **change)(recipe, seed, densities)
        settings = {"start": "own"} | recipe.method(contestant)
        tuned = [
            Entry(recipe.config("retrain", seed, Parent(one.config, "ticket"), **settings), label)
            for one in found
        ]
        return [*found, *tuned]

    return entries


def _density_variants(method: str, label: str, contestant: str) -> Contestant:
    """As `_variants`, for a method that is given its density; judged as found."""

    def entries(recipe: Recipe, seed: int, densities: Sequence[float]) -> list[Entry]:
        return [
            entry
            for name, value in _listed(recipe, contestant)
            for entry in _per_density(method, f"{label}, {name} {value}", **{name: value})(
                recipe, seed, densities
            )
        ]

    return entries


def _departures(recipe: Recipe, seed: int, densities: Sequence[float]) -> list[Entry]:
    """What the BiP release does otherwise, one departure at a time from either end: made in the
    paper's variant, undone in the release."""
    made: list[Entry] = []
    listed = [name for _, name in _listed(recipe, "bip-departures")] or list(DEPARTURES)
    for name in listed:
        made += _per_density("bip", f"BiP, {name}", switched=[name])(recipe, seed, densities)
        if name != "signed":  # undone alone, `aliased` brings it all the same
            label, change = f"BiP, as released, not {name}", {**_RELEASE, "switched": [name]}
            made += _per_density("bip", label, "bip-release", **change)(recipe, seed, densities)
    return made


def _bip_dense(recipe: Recipe, seed: int, densities: Sequence[float]) -> list[Entry]:
    """BiP at density 1: the dense network trained for as long as BiP alternates."""
    run = recipe.config(
        "bip", seed, _parent(recipe, seed), **{**recipe.method("bip"), "density": 1.0}
    )
    return [Entry(run, "dense, BiP's epochs")]


_RELEASE: dict[str, Any] = {"variant": "release", "clip": 0.0}
_RETHRESHOLDED: dict[str, Any] = {"switched": ["aliased"], "upper_learning_rate": 0.0}

CONTESTANTS: dict[str, Contestant] = {
    "imp": _imp("IMP"),
    "imp-c": _imp("IMP-C", rewinding="none"),
    "imp-lr": _imp("IMP, learning-rate rewinding", rewinding="learning-rate"),
    "cs": _gated("cs", "CS"),
    "cs-fine-tuned": _control("cs", "CS, fine-tuned", "cs-fine-tuned", start="own", mask_value=1.0),
    "l0-fine-tuned": _control("l0", "l0, fine-tuned", "l0-fine-tuned", start="own"),
    "iss-fine-tuned": _control("iss", "ISS, fine-tuned", "iss-fine-tuned", start="own"),
    "cs-shuffled": _control("cs", "CS, layers shuffled", "cs-shuffled", mask="shuffled"),
    "cs-fresh": _control("cs", "CS, fresh initialisation", "cs-fresh", start="fresh"),
    "cs-variants": _variants("cs", "CS", "cs-variants"),
    "l0": _gated("l0", "l0"),
    "l0-variants": _variants("l0", "l0", "l0-variants"),
    "iss": _gated("iss", "ISS"),
    "iss-variants": _variants("iss", "ISS", "iss-variants"),
    "bip": _per_density("bip", "BiP"),
    "bip-retrained": _trained("bip", "BiP, retrained", "bip-retrained"),
    "bip-rewound": _trained("bip", "BiP", "bip-rewound", schedule="restart"),
    "bip-shuffled": _trained("bip", "BiP, layers shuffled", "bip-shuffled", mask="shuffled"),
    "bip-fresh": _trained("bip", "BiP, fresh initialisation", "bip-fresh", start="fresh"),
    "bip-explicit": _per_density("bip", "BiP, implicit term off", "bip-explicit", implicit=False),
    "bip-frozen": _per_density("bip", "BiP, mask frozen", "bip-frozen", upper_learning_rate=0.0),
    "bip-magnitude": _per_density(
        "bip", "BiP, |theta| re-thresholded", "bip-magnitude", **_RETHRESHOLDED
    ),
    "bip-dense": _bip_dense,
    "bip-variants": _density_variants("bip", "BiP", "bip-variants"),
    "bip-departures": _departures,
    "hydra": _found_and_tuned("hydra", "Hydra", "hydra-fine-tuned"),
    "hydra-release": _found_and_tuned(
        "hydra", "Hydra, as released", "hydra-fine-tuned", initial="weights", aliased=True
    ),
    "snip": _per_density("snip", "SNIP"),
    "grasp": _per_density("grasp", "GraSP"),
    "synflow": _per_density("synflow", "SynFlow"),
    "omp": _per_density("omp", "OMP"),
    "omp-fine-tuned": _per_density("omp", "OMP, fine-tuned", "omp-fine-tuned", start="own"),
    "omp-matched": _per_density("omp", "OMP, compute-matched", "omp-matched"),
    "gmp": _per_density("gmp", "GMP"),
    "random": _per_density("random", "random"),
    "bip-unclipped": _per_density("bip", "BiP, unclipped", "bip-unclipped", clip=0.0),
    "bip-release": _per_density("bip", "BiP, as released", "bip-release", **_RELEASE),
    "dense-equal": _dense_longer("dense, equal training", _ticket_length),
    "dense-search": _dense_longer("dense, search epochs", _search_length),
}
