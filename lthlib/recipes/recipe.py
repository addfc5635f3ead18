"""Recipes: YAML files whose every value stands beside its source.

A recipe may begin with `extends: NAME`: it then holds what differs from that one. A method that it
mentions keeps the base's values of the settings it does not mention.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from lthlib.data import DataSettings
from lthlib.errors import ConfigError, check_choice, refusal, shown
from lthlib.files import from_yaml, load
from lthlib.models import ARCHITECTURES, ModelSettings
from lthlib.runs import Parent, RunConfig
from lthlib.settings import Field, Length, Line, Name, Settings, between, build, coerce, one_of
from lthlib.training import TrainingSettings

SCALES = ("embedded", "reduced", "paper")
_ABOUT = ("name", "scale", "about")
_PARTS = ("data", "model", "training", "rewind", "methods", "study")
_USER = "given by the user"
_MOST_SEEDS = 10_000
_SEEDS = f"a number up to {_MOST_SEEDS}, or one by method, with a default"


def _are_seeds(value: Any) -> bool:
    counts = value.values() if isinstance(value, dict) and "default" in value else [value]
    return all(type(count) is int and 0 <= count <= _MOST_SEEDS for count in counts)


@dataclass(frozen=True)
class _Study(Settings, where="study."):
    """What a study holds, where whoever makes it does not say otherwise."""

    densities: tuple[float, ...]
    methods: tuple[Line, ...]
    seeds: Annotated[Any, Field(_SEEDS, _are_seeds)]
    dense_seeds: Annotated[int, between(0, _MOST_SEEDS)]
    precisions: tuple[Line, ...] | None = None
    first_seed: Annotated[int, between(0, 1 << 62)] | None = None


_SETTINGS = {"data": DataSettings, "model": ModelSettings, "training": TrainingSettings}


@dataclass(frozen=True)
class Recipe(Settings, where=""):
    """One setting to run all methods in.

    Attributes:
        name: of the recipe, and of its study.
        scale: embedded, reduced or paper.
        about: what it is, on one line.
        values: nested as in the file, without sources.
        sources: by dotted name, where the value comes from.

    Raises:
        ConfigError: a value makes no sense; the message names it.
    """

    name: Name
    scale: Annotated[str, one_of(SCALES)]
    about: Line
    values: Any
    sources: Any = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_values(self.values)

    def config(
        self, method: str, seed: int, parent: Parent | None = None, /, **settings: Any
    ) -> RunConfig:
        """The run of a method under this recipe.

        Args:
            method: its name.
            seed: of initialisation, data order and the method's own draws.
            parent: the run that it starts from, and the ticket.
            settings: the method's own; what is left out has the method's default, not the recipe's.

        Returns:
            The configuration.

        Raises:
            ConfigError: a value makes no sense, or the method needs another parent.
        """
        sections = {name: self.values[name] for name in _SETTINGS}
        return RunConfig.from_json(
            {**sections, "method": method, "settings": settings, "seed": seed, "parent": parent}
        )

    @property
    def training(self) -> TrainingSettings:
        """How networks are trained."""
        return build(TrainingSettings, self.values["training"], "training")

    def method(self, name: str) -> dict[str, Any]:
        """The recipe's settings of a method."""
        return dict(self.values["methods"].get(name, {}))

    @property
    def rewind(self) -> str:
        """The step or epoch that tickets are retrained from."""
        return str(self.values["rewind"])

    def with_(self, **changes: Any) -> Recipe:
        """A copy with other values.

        A recipe at paper scale that is changed is one at reduced scale. Of a network that the user
        chose, settings that it has no choice of give way, unless the user gave them too.

        Args:
            changes: by the recipe's part, nested: `training={"length": "8ep"}, rewind="1ep",
                methods={"cs": {"initial_gate": [0.0, -0.1]}}`.

        Returns:
            The copy.

        Raises:
            ConfigError: there is no such part, or a value makes no sense.
        """
        values = dict(self.values)
        sources = dict(self.sources)
        for part, value in changes.items():
            check_choice("part", part, _PARTS)
            values[part] = _merged(values.get(part), value)
            sources |= dict.fromkeys(_dotted_names(part, value), _USER)
        if isinstance(changes.get("model"), Mapping):
            fixed = {name for name in values["model"] if sources.get(f"model.{name}") == _USER}
            _fit_model(values["model"], sources, fixed)
        scale = "reduced" if self.scale == "paper" and values != self.values else self.scale
        return Recipe(self.name, scale, self.about, values, sources)

    def stretched(self, factor: float) -> Recipe:
        """A copy whose training is longer by a factor, milestones and warm-up in proportion."""
        training = self.training
        changes: dict[str, Any] = {"length": _times(training.length, factor)}
        if training.milestones:
            changes["milestones"] = [_times(length, factor) for length in training.milestones]
        if training.warmup != "0it":
            changes["warmup"] = _times(training.warmup, factor)
        return self.with_(training=changes)


def _times(length: str, factor: float) -> str:
    value = float(length[:-2]) * factor
    return f"{round(value)}it" if length.endswith("it") else f"{round(value, 6):g}ep"


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(new, Mapping) or not isinstance(old, Mapping):
        return new
    return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}


def _fit_model(model: dict[str, Any], sources: dict[str, str], fixed: Collection[str]) -> None:
    """Let settings that the network has no choice of give way, but those named in `fixed`."""
    architecture = ARCHITECTURES.get(str(model.get("architecture")))
    for name, value in architecture.fixed.items() if architecture else ():
        if name not in fixed and model.get(name) != value:
            model[name] = value
            sources[f"model.{name}"] = f"{model['architecture']} has no other"


def _dotted_names(name: str, value: Any) -> list[str]:
    if not isinstance(value, Mapping):
        return [name]
    return [leaf for key, inner in value.items() for leaf in _dotted_names(f"{name}.{key}", inner)]


def recipe_names() -> list[str]:
    """Names of the recipes that come with lthlib."""
    names = (file.name for file in resources.files(__package__).iterdir())
    return sorted(Path(name).stem for name in names if name.endswith(".yaml"))


def dense_run(recipe: Recipe, seed: int) -> RunConfig:
    """The dense run of a seed: parent of all that starts from it."""
    return recipe.config("dense", seed, rewind=recipe.rewind)


def load_recipe(name: str | Path) -> Recipe:
    """A recipe by name, or from a YAML file of your own.

    Args:
        name: one of `recipe_names`, or the path of a file that ends in .yaml.

    Returns:
        The recipe.

    Raises:
        ConfigError: there is none, or something is wrong with it; the message says what.
    """
    path = Path(name)
    if path.suffix == ".yaml":
        return _parsed(load(path, from_yaml, "recipe file"), str(name))
    if str(name) not in recipe_names():
        raise ConfigError(
            f"recipe is {shown(str(name))}; expected one of {', '.join(recipe_names())}, or a "
            ".yaml file"
        )
    return _parsed(_read_packaged(str(name)), str(name))


def _parsed(content: Any, where: str) -> Recipe:
    base = content.pop("extends", None) if isinstance(content, dict) else None
    model = content.get("model") if isinstance(content, dict) else None
    if base is not None:
        content = _merged(_read_packaged(base), content)
    if not isinstance(content, dict) or content.keys() != {*_ABOUT, *_PARTS}:
        raise ConfigError(f"recipe {where} needs exactly the parts {', '.join((*_ABOUT, *_PARTS))}")
    sources: dict[str, str] = {}
    values = {part: _strip_sources(content[part], part, sources, where) for part in _PARTS}
    if base is not None and isinstance(model, dict):
        _fit_model(values["model"], sources, model)
    with refusal(ConfigError, f"recipe {where}", ConfigError):
        return Recipe(content["name"], content["scale"], content["about"], values, sources)


def _read_packaged(name: str) -> dict[str, Any]:
    check_choice("extends", name, recipe_names())
    content = from_yaml(resources.files(__package__).joinpath(f"{name}.yaml").read_bytes())
    base = content.pop("extends", None)
    return _merged(_read_packaged(base), content) if base else content


def _check_values(values: Mapping[str, Any]) -> None:
    for part, kind in _SETTINGS.items():
        build(kind, values[part], part)
    build(_Study, values["study"], "study")
    coerce(values["rewind"], Length, "rewind")
    sections = {"methods": values["methods"]}
    if isinstance(values["methods"], dict):
        sections |= {f"methods.{name}": settings for name, settings in values["methods"].items()}
    for section, settings in sections.items():
        if not isinstance(settings, dict):
            raise ConfigError(f"{section} is one value; expected names with values")


def _strip_sources(node: Any, name: str, sources: dict[str, str], where: str) -> Any:
    if not isinstance(node, dict):
        raise ConfigError(f"recipe {where}: {name}: bare value; write {{value: ..., source: ...}}")
    if node.keys() == {"value", "source"}:
        sources[name] = str(node["source"])
        return node["value"]
    return {
        key: _strip_sources(child, f"{name}.{key}", sources, where) for key, child in node.items()
    }
