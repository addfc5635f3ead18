"""Recipes: YAML files whose every value stands beside its source.

A recipe may begin with `extends: NAME`: it then holds what differs from that one. A method that it
mentions keeps the base's values of the settings it does not mention.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lthlib.data import DataSettings
from lthlib.errors import ConfigError
from lthlib.files import read_bounded
from lthlib.models import ModelSettings
from lthlib.runs import Parent, RunConfig
from lthlib.runs.config import build
from lthlib.training import TrainingSettings

SCALES = ("embedded", "reduced", "paper")
_PARTS = {"name", "scale", "about", "data", "model", "training", "rewind", "methods", "study"}
_SETTINGS = {"data": DataSettings, "model": ModelSettings, "training": TrainingSettings}
_FILE_LIMIT = 1 << 20
_MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Recipe:
    """One setting to run all methods in.

    values: nested as in the file, without sources. sources: dotted name -> where the value comes
    from.
    """

    name: str
    scale: str
    about: str
    values: Mapping[str, Any]
    sources: Mapping[str, str] = field(repr=False)

    def config(
        self, method: str, seed: int, parent: Parent | None = None, **settings: Any
    ) -> RunConfig:
        """The run of a method under this recipe; `settings` are the method's own."""
        return RunConfig.from_json(
            {
                **{part: self.values[part] for part in ("data", "model", "training")},
                "method": method,
                "settings": settings,
                "seed": seed,
                "parent": parent,
            }
        )

    def method(self, name: str) -> dict[str, Any]:
        """The recipe's settings of a method."""
        return dict(self.values["methods"].get(name, {}))

    @property
    def rewind(self) -> str:
        """The step or epoch that tickets are retrained from."""
        return str(self.values["rewind"])

    def with_(self, **changes: Any) -> Recipe:
        """A copy with other values: `recipe.with_(training={'length': '8ep'}, rewind='1ep',
        methods={'cs': {'initial_gate': [0.0, -0.1]}})`.

        A recipe at paper scale that is changed is one at reduced scale.
        """
        values = dict(self.values)
        sources = dict(self.sources)
        for part, value in changes.items():
            values[part] = _merged(values.get(part), value)
            sources |= dict.fromkeys(_leaves(part, value), "given by the user")
        scale = "reduced" if self.scale == "paper" and values != self.values else self.scale
        return Recipe(self.name, scale, self.about, values, sources)


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(new, Mapping) or not isinstance(old, Mapping):
        return new
    return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}


def _leaves(name: str, value: Any) -> list[str]:
    if not isinstance(value, Mapping):
        return [name]
    return [leaf for key, inner in value.items() for leaf in _leaves(f"{name}.{key}", inner)]


def recipe_names() -> list[str]:
    """Names of the recipes that come with lthlib."""
    return sorted(
        Path(str(f)).stem
        for f in resources.files(__package__).iterdir()
        if f.name.endswith(".yaml")
    )


def dense_run(recipe: Recipe, seed: int) -> RunConfig:
    """The dense run of a seed: parent of all that starts from it."""
    return recipe.config("dense", seed, rewind=recipe.rewind)


def load_recipe(name: str | Path) -> Recipe:
    """A recipe by name, or from a YAML file of your own. Raises ConfigError, saying what is wrong
    with it.
    """
    path = Path(name)
    if path.suffix == ".yaml":
        try:
            text = read_bounded(path, _FILE_LIMIT).decode()
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read recipe file {path}: {error}") from None
    elif str(name) in recipe_names():
        text = resources.files(__package__).joinpath(f"{name}.yaml").read_text()
    else:
        raise ConfigError(
            f"recipe is {str(name)!r}; expected one of {', '.join(recipe_names())}, or a .yaml file"
        )
    return _parse(text, str(name))


class _Plain(yaml.SafeLoader):
    """YAML without aliases: a few of them stand for gigabytes, or for a circle."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("has an alias; write the value out")
        return super().compose_node(parent, index)


def _parse(text: str, where: str) -> Recipe:
    try:
        content = _Plain(text).get_single_data()
    # PyYAML raises whatever it stumbles on: ValueError, AttributeError, RecursionError, ...
    except Exception as error:
        raise ConfigError(f"recipe {where} is not YAML: {error}") from None
    base = content.pop("extends", None) if isinstance(content, dict) else None
    if base is not None:
        content = _merged(_raw(str(base)), content)
    if not isinstance(content, dict) or content.keys() != _PARTS:
        raise ConfigError(f"recipe {where} needs exactly the parts {', '.join(sorted(_PARTS))}")
    if content["scale"] not in SCALES:
        raise ConfigError(
            f"recipe {where}: scale is {content['scale']!r}; expected one of {', '.join(SCALES)}"
        )
    sources: dict[str, str] = {}
    values = {
        part: _strip(content[part], part, sources, where)
        for part in ("data", "model", "training", "rewind", "methods", "study")
    }
    _check(content, values, where)
    return Recipe(content["name"], content["scale"], content["about"], values, sources)


def _check(content: Mapping[str, Any], values: Mapping[str, Any], where: str) -> None:
    name, study = content["name"], values["study"]
    if not (isinstance(name, str) and re.fullmatch(r"\w[\w.-]{0,79}", name)):
        raise ConfigError(
            f"recipe {where}: name is {name!r}; expected letters, digits, '.', '_' and '-'"
        )
    for part, kind in _SETTINGS.items():
        build(kind, values[part], part)
    sections = {"study": study, "methods": values["methods"]}
    if isinstance(values["methods"], dict):
        sections |= {f"methods.{method}": own for method, own in values["methods"].items()}
    for section, settings in sections.items():
        if not isinstance(settings, dict):
            raise ConfigError(f"recipe {where}: {section} is one value; expected names with values")
    for own, (expected, is_right) in _STUDY.items():
        if not is_right(found := study.get(own)):
            raise ConfigError(
                f"recipe {where}: study.{own} is {repr(found)[:80]}; expected {expected}"
            )


def _are(value: Any, *kinds: type) -> bool:
    return isinstance(value, list) and all(type(one) in kinds for one in value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_SEEDS


_STUDY: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "densities": ("a list of kept fractions", lambda value: _are(value, int, float)),
    "methods": ("a list of names", lambda value: _are(value, str)),
    "seeds": (
        f"a number up to {_MOST_SEEDS}, or one by method, with a default",
        lambda value: (
            _is_count(value)
            or (
                isinstance(value, dict)
                and "default" in value
                and all(map(_is_count, value.values()))
            )
        ),
    ),
    "dense_seeds": (f"a number up to {_MOST_SEEDS}", _is_count),
    "precisions": ("a list of names", lambda value: value is None or _are(value, str)),
    "first_seed": ("a seed", lambda value: value is None or (type(value) is int and value >= 0)),
}


def _raw(name: str) -> dict[str, Any]:
    if name not in recipe_names():
        raise ConfigError(
            f"extends is {name!r}; expected a recipe that comes with lthlib: "
            f"{', '.join(recipe_names())}"
        )
    text = resources.files(__package__).joinpath(f"{name}.yaml").read_text()
    content: dict[str, Any] = yaml.safe_load(text)
    base = content.pop("extends", None)
    return _merged(_raw(base), content) if base else content


def _strip(node: Any, name: str, sources: dict[str, str], where: str) -> Any:
    if not isinstance(node, dict):
        raise ConfigError(
            f"recipe {where}: {name} is a bare value; write {{value: ..., source: ...}}"
        )
    if node.keys() == {"value", "source"}:
        sources[name] = str(node["source"])
        return node["value"]
    return {key: _strip(child, f"{name}.{key}", sources, where) for key, child in node.items()}
