"""Settings that check themselves: what a value may be is said once, beside its type."""

from __future__ import annotations

import operator
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any

import numpy as np

from lthlib.errors import ConfigError, shown
from lthlib.files import NUMBER

PRUNABLE = ("conv+linear", "conv", "conv>1x1")
LENGTH = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,20})?)ep|([0-9]{1,9})it")

# A ticket's name within its search. Ends up in the names of files.
POINT = re.compile(r"\w[\w.+-]{0,79}", re.ASCII)


@dataclass(frozen=True)
class Field:
    """What a value must be.

    Attributes:
        expected: that, in words, as an error says them.
        check: whether a value is so.
    """

    expected: str
    check: Callable[[Any], bool]

    def or_null(self) -> Field:
        """The same, or nothing at all."""
        return Field(f"{self.expected} or null", lambda value: value is None or self.check(value))


def one_of(choices: Collection[str]) -> Field:
    """One of some words."""
    return Field(f"one of {', '.join(choices)}", lambda value: value in choices)


def between(low: float, high: float) -> Field:
    """A number in [low, high]."""
    return Field(f"at least {low:,} and at most {high:,}", lambda value: low <= value <= high)


def above(low: float) -> Field:
    """A number in (low, 1e38]."""
    return Field(f"more than {low}, at most 1e38", lambda value: low < value <= _MOST)


def matching(pattern: str, expected: str) -> Field:
    """A text that a regular expression matches as a whole.

    Args:
        pattern: the expression, whose classes of characters are those of ASCII.
        expected: what it matches, in words.

    Returns:
        The rule. Its check takes any value.
    """
    regex = re.compile(pattern, re.ASCII)
    return Field(expected, lambda value: isinstance(value, str) and bool(regex.fullmatch(value)))


def _is_length(value: str) -> bool:
    return LENGTH.fullmatch(value) is not None


def _is_empty_or_positive(value: str) -> bool:
    return value == "" or (_is_length(value) and any(digit in value for digit in "123456789"))


# Bounds are far from what makes sense. Beyond them numbers overflow single precision, or a run
# would never end.
_MOST = 1e38
_LENGTHS = "epochs such as '85ep' or iterations such as '500it'"
# Without control characters and what Unicode breaks lines at.
_IN_ONE_LINE = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
Line = Annotated[str, matching(f"{_IN_ONE_LINE}{{0,2000}}", "one line of text")]
Name = Annotated[str, matching(r"\w[\w.-]{0,79}", "letters, digits, '.', '_' and '-', at most 80")]
Prunable = Annotated[str, one_of(PRUNABLE)]
filled = Field("something in it", bool)
Count = Annotated[int, between(1, 10_000)]
Images = Annotated[int, between(1, 1_000_000_000)]
Seed = Annotated[int, between(-(1 << 63), (1 << 63) - 1)]  # what torch's generators take
Number = Annotated[float, between(-_MOST, _MOST)]
Logit = Annotated[float, between(-80, 80)]
Positive = Annotated[float, Field("a positive number, at most 1e38", lambda v: 0 < v <= _MOST)]
NotNegative = Annotated[float, Field("0 or more, at most 1e38", lambda v: 0 <= v <= _MOST)]
Momentum = Annotated[float, Field("0 or more, below 1", lambda v: 0 <= v < 1)]
Share = Annotated[float, Field("a share in (0, 1), at least 1e-6", lambda v: 1e-6 <= v < 1)]
Density = Annotated[
    float, Field("a kept fraction in (0, 1], at least 1e-12", lambda v: 1e-12 <= v <= 1)
]
Length = Annotated[str, Field(_LENGTHS, _is_length)]
OwnRewind = Annotated[str, Field(f"{_LENGTHS}, or nothing", lambda v: v == "" or _is_length(v))]
OwnLength = Annotated[str, Field(f"{_LENGTHS}, not 0, or nothing", _is_empty_or_positive)]


class Settings:
    """Base of frozen dataclasses of settings, which check themselves.

    When one is made, each value becomes its field's type and is held against the rules in its
    annotation, such as `Annotated[int, between(1, 9)]`. A class may say by `where` what errors put
    before a field's name, by default its own name: `class Sweep(Settings, where="sweep.")`.

    Raises:
        ConfigError: a value does not fit; names the field and what was expected.
    """

    _where: str

    def __init_subclass__(cls, where: str | None = None) -> None:
        if where is None:
            where = cls.__name__.removesuffix("Settings").lower() + "."
        cls._where = where

    def __post_init__(self) -> None:
        for name, kind in _field_types(typing.cast(Any, type(self))).items():
            value = coerce(getattr(self, name), kind, self._where + name)
            object.__setattr__(self, name, value)


def build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """A settings dataclass from plain values.

    Args:
        kind: the dataclass.
        values: name of a field -> value; fields that have a default may be left out.
        where: how the user knows the values, such as `training`; empty where names stand alone.

    Returns:
        An object of that class.

    Raises:
        ConfigError: a name is unknown or missing, or a field's rule refuses its value.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where or 'configuration'} is {shown(values)}; expected names with values"
        )
    prefix = f"{where}." if where else ""
    defined = {field.name: field for field in fields(kind)}
    for name in values:
        if name not in defined:
            unknown = shown(f"{prefix}{name}")
            raise ConfigError(f"unknown name {unknown}; expected one of {', '.join(defined)}")
    for name, field in defined.items():
        required = field.default is MISSING and field.default_factory is MISSING
        if required and name not in values:
            raise ConfigError(f"{prefix}{name} is missing; give it a value")
    return kind(**values)


def coerce(value: Any, kind: Any, where: str) -> Any:
    """A value as the annotated type: lists as tuples, whole numbers as floats, texts as numbers.

    Args:
        value: any.
        kind: what it is to become, as a field of settings is annotated.
        where: how the user knows the value.

    Returns:
        The value, of that type.

    Raises:
        ConfigError: it does not fit, or a rule refuses it.
    """
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or (value is None and types.NoneType in options):
        return value
    if origin is Annotated:
        if options[0] is str and not isinstance(value, str):
            raise ConfigError(f"{where} is {shown(value)}; expected {options[1].expected}")
        value = coerce(value, options[0], where)
        for rule in options[1:]:
            if not rule.check(value):
                raise ConfigError(f"{where} is {shown(value)}; expected {rule.expected}")
        return value
    if origin is types.UnionType or origin is typing.Union:
        kinds = [option for option in options if option is not types.NoneType]
        # Of several types, what takes the value knows what it may be.
        return value if len(kinds) > 1 else coerce(value, kinds[0], where)
    if origin is Callable:
        if isinstance(value, type) or not callable(value):
            raise ConfigError(f"{where} is {shown(value)}; expected a function")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(
                f"{where} is {shown(value)}; expected a list of {_type_name(options[0])}"
            )
        return tuple(coerce(item, options[0], where) for item in value)
    if isinstance(kind, type) and issubclass(kind, Settings):
        return value if isinstance(value, kind) else build(kind, value, where)
    try:
        return _convert(value, kind)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{where} is {shown(value)}; expected {_type_name(kind)}") from None


def _convert(value: Any, kind: type) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) != (kind is bool):
        raise TypeError
    if kind is int:
        return operator.index(value)
    if kind is float and not isinstance(value, bytes):
        if isinstance(value, str) and not NUMBER.fullmatch(value):
            raise ValueError
        return float(value)
    if not isinstance(value, kind):
        raise TypeError
    return value


def _type_name(kind: Any) -> str:
    kind, *_ = typing.get_args(kind) or [kind]
    name = str(kind.__name__)
    return name if kind in (str, int, float, bool) else f"a {name}, made, not its class"


@cache
def _field_types(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in fields(kind)}
