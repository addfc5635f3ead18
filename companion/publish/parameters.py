"""Parameters of a notebook, checked inside the notebook: papermill itself checks nothing.

The cell after the one tagged `parameters` reads

    P = declare(globals(), dataset=choice("digits", "cifar10"), seeds=wholes(0))

and the rest of the notebook reads `P.dataset` and `P.seeds`.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lthlib.errors import PublishError, shown
from lthlib.files import from_json

_OF_IPYTHON = {"In", "Out"}
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


@dataclass(frozen=True)
class Spec:
    """What a parameter may be, in words; `accept` returns the value or raises ValueError."""

    expected: str
    accept: Callable[[Any], Any]


def declare(names: Mapping[str, Any], /, **specs: Spec) -> Any:
    """Check a notebook's parameters; return them as an immutable namespace, lists as tuples.

    Args:
        names: the notebook's `globals()`, called before it defines any other plain value.
        specs: what each parameter may be: `choice(...)`, `many(...)`, `whole(...)`, ...

    Raises:
        PublishError: an unknown or missing parameter, or a value that does not fit.
    """
    found = {name for name, value in names.items() if _is_parameter(name, value)}
    if unknown := sorted(found - specs.keys()):
        raise PublishError(
            f"unknown parameter {unknown[0]!r}{nearest(unknown[0], specs)}; "
            f"this notebook takes: {_listed(specs)}"
        )
    if missing := sorted(specs.keys() - names.keys()):
        raise PublishError(
            f"parameter {missing[0]!r} has no value: give it one in the cell tagged 'parameters'"
        )
    values = {name: _accepted(name, names[name], spec) for name, spec in specs.items()}
    return namedtuple("Parameters", values)(**values)


def choice(*options: str) -> Spec:
    """One of the given words."""
    return Spec(f"one of {', '.join(options)}", lambda value: _one_of(value, options))


def many(*options: str) -> Spec:
    """A list of some of the given words, each at most once; also as a JSON string."""
    return _listing(choice(*options))


def whole(low: int | None = None, high: int | None = None) -> Spec:
    """A whole number from `low` to `high`, both included."""
    return Spec(f"a whole number{_range(low, high)}", lambda value: _within(value, int, low, high))


def wholes(low: int | None = None, high: int | None = None) -> Spec:
    """A list of whole numbers from `low` to `high`, each at most once; also as a JSON string."""
    return _listing(whole(low, high))


def number(low: float | None = None, high: float | None = None) -> Spec:
    """A number from `low` to `high`, both included."""
    return Spec(
        f"a number{_range(low, high)}", lambda value: float(_within(value, float, low, high))
    )


def numbers(low: float | None = None, high: float | None = None) -> Spec:
    """A list of numbers from `low` to `high`, each at most once; also as a JSON string."""
    return _listing(number(low, high))


def flag() -> Spec:
    """True or False."""
    return Spec("true or false", lambda value: _typed(value, bool))


def text() -> Spec:
    """Any text."""
    return Spec("text", lambda value: _typed(value, str))


def texts() -> Spec:
    """A list of texts, each at most once; also as a JSON string."""
    return _listing(text())


def optional(spec: Spec) -> Spec:
    """What `spec` takes, or None."""
    return Spec(
        f"{spec.expected}, or None", lambda value: None if value is None else spec.accept(value)
    )


def _is_parameter(name: str, value: Any) -> bool:
    return not name.startswith("_") and name not in _OF_IPYTHON and isinstance(value, _PLAIN)


def nearest(name: str, known: Mapping[str, Any]) -> str:
    """Return ` (did you mean 'x'?)` for a name that looks like a known one, else nothing."""
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _listed(specs: Mapping[str, Spec]) -> str:
    return "; ".join(f"{name}: {spec.expected}" for name, spec in specs.items())


def _accepted(name: str, value: Any, spec: Spec) -> Any:
    try:
        return spec.accept(value)
    except (TypeError, ValueError, OverflowError):
        raise PublishError(
            f"parameter {name!r} is {shown(value)}; expected {spec.expected}"
        ) from None


def _listing(item: Spec) -> Spec:
    def accept(value: Any) -> tuple[Any, ...]:
        items = tuple(item.accept(one) for one in decoded(value))
        if not items or len(set(items)) != len(items):
            raise ValueError("empty or repeated")
        return items

    return Spec(f"a list of distinct values, each {item.expected}", accept)


def decoded(value: Any) -> list[Any] | tuple[Any, ...]:
    """Return a list as it is, or read it from JSON: `papermill -p` passes lists as text.

    Raises:
        ValueError: the value is neither a list nor the JSON text of one.
    """
    if isinstance(value, str):
        value = from_json(value)
    return _typed(value, (list, tuple))


def _one_of(value: Any, options: tuple[str, ...]) -> str:
    if value not in options:
        raise ValueError(value)
    return str(value)


def _typed(value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise ValueError(value)
    return value


def _within(value: Any, kind: type[float], low: float | None, high: float | None) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | kind) or value != value:
        raise ValueError(value)
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(value)
    return value


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f" of at least {low}"
    return f" of at most {high}" if low is None else f" from {low} to {high}"
