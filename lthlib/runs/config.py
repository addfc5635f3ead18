"""A run is its configuration; its id is a hash of what differs from the defaults."""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache, cached_property
from typing import Annotated, Any

from lthlib.data import DataSettings
from lthlib.errors import ConfigError
from lthlib.methods import METHODS, get_method
from lthlib.models import ModelSettings
from lthlib.settings import Seed, Settings, between, build, matching, one_of
from lthlib.tickets import POINT
from lthlib.training import TrainingSettings


@dataclass(frozen=True)
class Parent(Settings, where="parent."):
    """The run that another starts from, and the ticket of it that is taken."""

    config: RunConfig
    point: Annotated[str, matching(POINT.pattern, "a ticket's name, letters, digits, '.' and '-'")]


@dataclass(frozen=True)
class RunConfig(Settings, where=""):
    """Everything that decides a run's result, and nothing else (the device and the place of files
    are not here).

    seed: initialisation, data order and the method's own draws. threads: intra-op threads; one and
    two give different sums. The default values are part of every id: they never change.
    """

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    method: Annotated[str, one_of(METHODS)] = "dense"
    settings: Any = None
    seed: Seed = 0
    threads: Annotated[int, between(1, 1024)] = 1
    parent: Parent | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        method = get_method(self.method)
        if self.settings is None:
            object.__setattr__(self, "settings", method.settings())
        elif isinstance(self.settings, Mapping):
            object.__setattr__(self, "settings", build(method.settings, self.settings, "settings"))
        elif type(self.settings) is not method.settings:
            raise ConfigError(
                f"settings are {type(self.settings).__name__}; "
                f"{self.method} takes {method.settings.__name__}"
            )
        if method.parent == "none" and self.parent is not None:
            raise ConfigError(f"{self.method} starts from scratch and takes no parent")
        if method.parent != "none" and self.parent is None:
            raise ConfigError(f"{self.method} starts from a {method.parent} run; give it a parent")
        if method.parent == "dense" and self.parent and self.parent.config.method != "dense":
            raise ConfigError(
                f"{self.method} starts from a dense run; its parent is {self.parent.config.method}"
            )

    @cached_property  # a sweep asks for it again and again
    def id(self) -> str:
        """16 hexadecimal digits; equal configurations, and only they, share it."""
        return identify(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The full configuration as plain JSON values; `RunConfig.from_json` reads it back."""
        return typing.cast("dict[str, Any]", _plain(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunConfig:
        """Build a configuration, coercing values to the fields' types. Raises ConfigError naming
        the field."""
        return typing.cast("RunConfig", build(cls, values, ""))

    def changed(self, **values: Any) -> RunConfig:
        """A copy with other values; a dotted name such as `training.length` is given as
        `training={'length': ...}`."""
        merged = {
            name: replace_fields(getattr(self, name), value, name)
            if isinstance(value, Mapping)
            else value
            for name, value in values.items()
        }
        return replace(self, **merged)

    def describe(self) -> str:
        """One line for people."""
        return describe(self.to_json())


_PARTS = {"data": DataSettings, "model": ModelSettings, "training": TrainingSettings}


def describe(values: Mapping[str, Any]) -> str:
    """One line for people on a configuration of plain values."""
    method, parent = values["method"], values["parent"]
    usual = _usual(get_method(method).settings)
    own = {name: value for name, value in values["settings"].items() if value != usual.get(name)}
    settings = ", ".join(f"{name}={value}" for name, value in own.items())
    point = ""
    if method == "retrain" and parent:
        point = f" of {parent['config']['method']} {parent['point']}"
    place = f"{values['data']['dataset']}/{values['model']['architecture']}"
    line = f"{method}{point} on {place} seed {values['seed']}"
    return f"{line} ({settings})" if settings else line


def replace_fields(instance: Any, values: Mapping[str, Any], where: str) -> Any:
    """A copy of a settings dataclass with some values replaced, coerced to the fields' types."""
    return build(type(instance), {**_plain(instance), **values}, where)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def identify(values: Mapping[str, Any]) -> str:
    """The id of a configuration of plain values, of which no more is looked at than that takes: a
    store asks for thousands. Raises ConfigError for what is no configuration."""
    try:
        text = json.dumps(_signature(values), sort_keys=True, separators=(",", ":"))
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ConfigError(f"not a configuration ({type(error).__name__}: {error})") from None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _signature(values: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {**_PARTS, "settings": get_method(values["method"]).settings}
    parts = {name: _changed(values[name], kind) for name, kind in kinds.items()}
    changed = {name: part for name, part in parts.items() if part}
    changed |= _changed({n: v for n, v in values.items() if n not in kinds}, RunConfig)
    if (parent := values["parent"]) is not None:
        changed["parent"] = {"run": identify(parent["config"]), "point": parent["point"]}
    return changed


def _differences(value: Any) -> dict[str, Any]:
    return _changed(_plain(value), type(value))


def _changed(values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    usual = _usual(kind)
    return {
        name: value for name, value in values.items() if name not in usual or value != usual[name]
    }


@cache
def _usual(kind: type) -> dict[str, Any]:
    return {f.name: _plain(d) for f in fields(kind) if (d := _default(f)) is not MISSING}


def _default(f: Any) -> Any:
    return (
        f.default
        if f.default is not MISSING
        else f.default_factory()
        if f.default_factory is not MISSING
        else MISSING
    )
