"""Recipes: YAML files whose every value stands beside its source.

A recipe may begin with `extends: NAME`: it then holds what differs from that one. A method that it
mentions keeps the base's values of the settings it does not mention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lthlib.errors import ConfigError
from lthlib.runs import Parent, RunConfig

SCALES = ("embedded", "reduced", "paper")
_PARTS = {"name", "scale", "about", "data", "model", "training", "rewind", "methods", "study"}


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


def load_recipe(name: str | Path) -> Recipe:
    """A recipe by name, or from a YAML file of your own. Raises ConfigError, saying what is wrong
    with it.
    """
    path = Path(name)
    if path.suffix == ".yaml":
        if not path.exists():
            raise ConfigError(f"there is no recipe file {path}")
        text = path.read_text()
    elif str(name) in recipe_names():
        text = resources.files(__package__).joinpath(f"{name}.yaml").read_text()
    else:
        raise ConfigError(
            f"recipe is {str(name)!r}; expected one of {', '.join(recipe_names())}, or a .yaml file"
        )
    return _parse(text, str(name))


def _parse(text: str, where: str) -> Recipe:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
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
    return Recipe(content["name"], content["scale"], content["about"], values, sources)


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
