"""Parameters of a notebook, checked inside the notebook: papermill itself checks nothing.

The cell after the one tagged `parameters` reads

    P = declare(globals(), dataset=choice("digits", "cifar10"), seeds=some(Seed))

and the rest of the notebook reads `P.dataset` and `P.seeds`. What a value may be is a type with
rules, as settings have them: see `lthlib.settings`.
"""

from collections import namedtuple
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Annotated, Any, get_args, get_origin

from lthlib.errors import ConfigError
from lthlib.files import from_json
from lthlib.settings import Field, coerce, one_of

_OF_IPYTHON = {"In", "Out"}
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
_DISTINCT = Field(
    "distinct values, one at least", lambda values: 0 < len(values) == len(set(values))
)


def declare(names: Mapping[str, Any], /, **kinds: Any) -> Any:
    """Check a notebook's parameters.

    Args:
        names: the notebook's `globals()`, called before it defines any other plain value.
        kinds: what each parameter may be: `Density`, `str | None`, `choice(...)`, `some(...)`, ...

    Returns:
        The parameters as an immutable namespace, lists as tuples.

    Raises:
        ConfigError: an unknown or missing parameter, or a value that does not fit.
    """
    values = {name for name, value in names.items() if _is_parameter(name, value)}
    for name in sorted(values - kinds.keys()):
        close = get_close_matches(name, kinds, n=1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(
            f"unknown parameter {name!r}{meant}; this notebook takes: {', '.join(kinds)}"
        )
    if missing := sorted(kinds.keys() - names.keys()):
        raise ConfigError(
            f"parameter {missing[0]!r} has no value: give it one in the cell tagged 'parameters'"
        )
    accepted = {name: _accepted(name, names[name], kind) for name, kind in kinds.items()}
    return namedtuple("Parameters", accepted)(**accepted)


def choice(*options: str) -> Any:
    """Return the type of a parameter that is one of the given words."""
    return Annotated[str, one_of(options)]


def some(kind: Any) -> Any:
    """Return the type of a parameter that is a list of distinct values of a kind, at least one."""
    listed: Any = tuple
    return Annotated[listed[kind, ...], _DISTINCT]


def _is_parameter(name: str, value: Any) -> bool:
    return not name.startswith("_") and name not in _OF_IPYTHON and isinstance(value, _PLAIN)


def _accepted(name: str, value: Any, kind: Any) -> Any:
    if isinstance(value, str) and _is_list(kind):
        with suppress(ValueError):  # `papermill -p` passes lists as text
            value = from_json(value)
    return coerce(value, kind, f"parameter {name!r}")


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple or any(map(_is_list, get_args(kind)))
