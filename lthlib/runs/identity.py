"""The names of a configuration of plain values: an id, and a line for people.

The id is a hash of what differs from the defaults. This imports no torch: thousands of runs are to
be listed at once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lthlib.errors import ConfigError, check_choice, refusal
from lthlib.records import DEFAULTS

_SECTIONS = ("data", "model", "training")
_MALFORMED = (LookupError, TypeError, AttributeError, ValueError, RecursionError)


def describe(values: Mapping[str, Any]) -> str:
    """One line for people on a configuration of plain values."""
    method, parent = values["method"], values["parent"]
    changed = _changed_values(values["settings"], _default_settings(method))
    settings = ", ".join(f"{name}={value}" for name, value in changed.items())
    point = ""
    if method == "retrain" and parent:
        point = f" of {parent['config']['method']} {parent['point']}"
    task = f"{values['data']['dataset']}/{values['model']['architecture']}"
    line = f"{method}{point} on {task} seed {values['seed']}"
    return f"{line} ({settings})" if settings else line


def differences(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say of each of some configurations its length, and in which values they differ.

    Those of one method, data set and architecture are compared. What `describe` tells is left out,
    the seed and the method's own settings; so is what a parent has in common.

    Args:
        configs: of plain values.

    Returns:
        A line for people on each, with names and values as `--set` takes them.
    """
    kinds = [(v["method"], v["data"]["dataset"], v["model"]["architecture"]) for v in configs]
    flat = [dict(_dotted(values)) for values in configs]
    variants: dict[Any, set[str]] = {}
    for kind, values in zip(kinds, flat, strict=True):
        for name, value in values.items():
            variants.setdefault((kind, name), set()).add(repr(value))
    return [
        ", ".join(
            f"{name}={value}"
            for name, value in values.items()
            if name == "training.length"
            or (len(variants[kind, name]) > 1 and not _is_inherited(values, name, value))
        )
        for kind, values in zip(kinds, flat, strict=True)
    ]


def _is_inherited(values: Mapping[str, Any], name: str, value: Any) -> bool:
    child_name = name.removeprefix("parent.")
    return child_name != name and values.get(child_name) == value


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for section in ("training", "data", "model", *(["settings"] if prefix else [])):
        for name, value in values[section].items():
            yield f"{prefix}{section}.{name}", value
    if parent := values["parent"]:
        yield from _dotted(parent["config"], f"{prefix}parent.")


def identify(values: Mapping[str, Any]) -> str:
    """The id of a configuration of plain values.

    No more of them is looked at than that takes: a store asks for thousands.

    Args:
        values: a whole configuration.

    Returns:
        16 hexadecimal digits.

    Raises:
        ConfigError: this is no configuration.
    """
    with refusal(ConfigError, "not a configuration", _MALFORMED):
        text = json.dumps(_signature(values), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _signature(values: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {name: DEFAULTS[name] for name in _SECTIONS}
    defaults["settings"] = _default_settings(values["method"])
    changed = {}
    for name, usual in defaults.items():
        if section := _changed_values(values[name], usual):
            changed[name] = section
    changed |= _changed_values(
        {n: v for n, v in values.items() if n not in defaults}, DEFAULTS["run"]
    )
    if (parent := values["parent"]) is not None:
        changed["parent"] = {"run": identify(parent["config"]), "point": parent["point"]}
    return changed


def _default_settings(method: str) -> dict[str, Any]:
    check_choice("method", method, DEFAULTS["settings"])
    return dict(DEFAULTS["settings"][method])


def _changed_values(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in values.items() if n not in usual or v != usual[n]}
