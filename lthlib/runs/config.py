"""A run is its configuration; its id is a hash of what differs from the defaults."""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache, cached_property
from typing import Any

from lthlib.data import DataSettings
from lthlib.errors import ConfigError, MaskError, check_choice
from lthlib.masks import PRUNABLE
from lthlib.methods import get_method
from lthlib.models import ModelSettings
from lthlib.tickets import POINT
from lthlib.training import TrainingSettings


@dataclass(frozen=True)
class Parent:
    """The run that another starts from, and the ticket of it that is taken."""

    config: RunConfig
    point: str

    def __post_init__(self) -> None:
        if not POINT.fullmatch(self.point):
            raise ConfigError(
                f"point is {self.point!r}; expected a ticket's name, letters, digits, '.' and '-'"
            )


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result, and nothing else (the device and the place of files
    are not here).

    seed: initialisation, data order and the method's own draws. threads: intra-op threads; one and
    two give different sums. The default values are part of every id: they never change.
    """

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    method: str = "dense"
    settings: Any = None
    seed: int = 0
    threads: int = 1
    parent: Parent | None = None

    def __post_init__(self) -> None:
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
        check_choice("model.prunable", self.model.prunable, PRUNABLE)
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; expected at least 1")
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
        text = json.dumps(_differences(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

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


def describe(values: Mapping[str, Any]) -> str:
    """One line for people on a configuration of plain values."""
    method, parent = values["method"], values["parent"]
    usual = _usual(method)
    own = {name: value for name, value in values["settings"].items() if value != usual.get(name)}
    settings = ", ".join(f"{name}={value}" for name, value in own.items())
    point = ""
    if method == "retrain" and parent:
        point = f" of {parent['config']['method']} {parent['point']}"
    place = f"{values['data']['dataset']}/{values['model']['architecture']}"
    line = f"{method}{point} on {place} seed {values['seed']}"
    return f"{line} ({settings})" if settings else line


@cache
def _usual(method: str) -> dict[str, Any]:
    return typing.cast("dict[str, Any]", _plain(get_method(method).settings()))


def replace_fields(instance: Any, values: Mapping[str, Any], where: str) -> Any:
    """A copy of a settings dataclass with some values replaced, coerced to the fields' types."""
    return build(type(instance), {**_plain(instance), **values}, where)


def build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """A settings dataclass from plain values. Raises ConfigError for unknown names and values of
    the wrong type."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'configuration'} is {values!r}; expected names with values")
    hints = _hints(kind)
    known = [f.name for f in fields(kind)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ConfigError(
            f"unknown name {_dotted(where, unknown[0])!r}; expected one of {', '.join(known)}"
        )
    missing = [f.name for f in fields(kind) if f.name not in values and _default(f) is MISSING]
    if missing:
        raise ConfigError(f"{_dotted(where, missing[0])} is missing; give it a value")
    own = {name: coerce(value, hints[name], _dotted(where, name)) for name, value in values.items()}
    try:
        return kind(**own)
    except MaskError as error:
        raise ConfigError(f"{where}: {error}") from None


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def coerce(value: Any, kind: Any, where: str) -> Any:
    """A value as the annotated type: lists become tuples, whole numbers floats, numbers in text
    numbers."""
    if kind is Any:
        return value
    options = typing.get_args(kind)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        return coerce(value, next(option for option in options if option is not type(None)), where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} is {value!r}; expected a list of {options[0].__name__}")
        return tuple(coerce(item, options[0], where) for item in value)
    if is_dataclass(kind):
        settings = typing.cast(type, kind)
        return value if isinstance(value, settings) else build(settings, value, where)
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise ConfigError(f"{where} is {value!r}; expected {getattr(kind, '__name__', kind)}")


def _dotted(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def _differences(value: Any) -> dict[str, Any]:
    changed = {}
    for f in fields(value):
        own = getattr(value, f.name)
        if isinstance(own, Parent):
            changed[f.name] = {"run": own.config.id, "point": own.point}
        elif is_dataclass(own):
            if inner := _differences(own):
                changed[f.name] = inner
        elif own != _default(f):
            changed[f.name] = _plain(own)
    return changed


def _default(f: Any) -> Any:
    return (
        f.default
        if f.default is not MISSING
        else f.default_factory()
        if f.default_factory is not MISSING
        else MISSING
    )
