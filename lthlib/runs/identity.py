"""The names of a configuration of plain values: an id, which is a hash of what differs from the
defaults, and a line for people. Imports no torch: thousands of runs are to be listed at once."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lthlib.errors import ConfigError, check_choice, refusal

# Of all settings, as part of every id: they never change. More may be added.
DEFAULTS: dict[str, Any] = json.loads(Path(__file__).with_name("defaults.json").read_bytes())
_PARTS = ("data", "model", "training")
_MALFORMED = (LookupError, TypeError, AttributeError, ValueError, RecursionError)


def describe(values: Mapping[str, Any]) -> str:
    """One line for people on a configuration of plain values."""
    method, parent = values["method"], values["parent"]
    own = _changed(values["settings"], _settings(method))
    settings = ", ".join(f"{name}={value}" for name, value in own.items())
    point = ""
    if method == "retrain" and parent:
        point = f" of {parent['config']['method']} {parent['point']}"
    place = f"{values['data']['dataset']}/{values['model']['architecture']}"
    line = f"{method}{point} on {place} seed {values['seed']}"
    return f"{line} ({settings})" if settings else line


def differences(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for people on each of some configurations: its length, and the values in which those
    of one method, data set and architecture differ, as `--set` takes them. What `describe` tells is
    left out: the seed, and the method's own settings; so is what a parent has in common."""
    kinds = [(v["method"], v["data"]["dataset"], v["model"]["architecture"]) for v in configs]
    told = [dict(_told(values)) for values in configs]
    seen: dict[Any, set[str]] = {}
    for kind, own in zip(kinds, told, strict=True):
        for name, value in own.items():
            seen.setdefault((kind, name), set()).add(repr(value))
    return [
        ", ".join(
            f"{name}={value}"
            for name, value in own.items()
            if name == "training.length"
            or (len(seen[kind, name]) > 1 and not _inherited(own, name, value))
        )
        for kind, own in zip(kinds, told, strict=True)
    ]


def _inherited(own: Mapping[str, Any], name: str, value: Any) -> bool:
    below = name.removeprefix("parent.")
    return below != name and own.get(below) == value


def _told(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for part in ("training", "data", "model", *(["settings"] if above else [])):
        yield from ((f"{above}{part}.{name}", value) for name, value in values[part].items())
    if parent := values["parent"]:
        yield from _told(parent["config"], f"{above}parent.")


def identify(values: Mapping[str, Any]) -> str:
    """The id of a configuration of plain values, of which no more is looked at than that takes: a
    store asks for thousands. Raises ConfigError for what is no configuration."""
    with refusal(ConfigError, "not a configuration", _MALFORMED):
        text = json.dumps(_signature(values), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _signature(values: Mapping[str, Any]) -> dict[str, Any]:
    usual = {**{part: DEFAULTS[part] for part in _PARTS}, "settings": _settings(values["method"])}
    parts = {name: _changed(values[name], defaults) for name, defaults in usual.items()}
    changed = {name: part for name, part in parts.items() if part}
    changed |= _changed({n: v for n, v in values.items() if n not in usual}, DEFAULTS["run"])
    if (parent := values["parent"]) is not None:
        changed["parent"] = {"run": identify(parent["config"]), "point": parent["point"]}
    return changed


def _settings(method: str) -> dict[str, Any]:
    check_choice("method", method, DEFAULTS["settings"])
    return dict(DEFAULTS["settings"][method])


def _changed(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in values.items() if n not in usual or v != usual[n]}
