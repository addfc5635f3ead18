"""Records: one JSON object per judged ticket, its schema, and a strict check of it."""

import json
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lthlib.errors import RecordError, refusal
from lthlib.files import is_sealed
from lthlib.settings import POINT, Field, matching, one_of
from lthlib.texts import visible

SCHEMA = 1
_MOST = sys.float_info.max
# Of all settings, as part of every run's id: they never change. More may be added.
DEFAULTS: dict[str, Any] = json.loads(Path(__file__).with_name("defaults.json").read_bytes())
# Each is a module of `lthlib.methods`, which imports torch; nothing in this file does.
METHODS = tuple(DEFAULTS["settings"])
REWIND = "rewind.safetensors"
# What belongs to a run beside its records.
FILE_NAME = re.compile(rf"{re.escape(REWIND)}|tickets/{POINT.pattern}\.safetensors", re.ASCII)
COSTS = ("epochs", "images", "forward_passes", "backward_passes", "flops", "seconds")
_SEALS = ("above", "digest")


def bare(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without what a published line adds to it."""
    return {name: value for name, value in record.items() if name not in _SEALS}


def make_record(
    config: Mapping[str, Any], failure: str | None = None, **fields: Any
) -> dict[str, Any]:
    """Return the record of a judged ticket or, with `failure`, of a run that failed.

    Args:
        config: the run's configuration, as plain values.
        failure: why the run failed.
        **fields: what the schema asks for beside what follows from these, and beside `study`,
            `scale` and `label`, which a record gets when it is published.

    Returns:
        The record, its fields in the order of the schema.
    """
    no_ticket = {
        "judged": "found",
        **dict.fromkeys(("density", "kept", "total")),
        "layers": {},
        "accuracy": {"validation": None, "test": None},
    }
    record = {
        "schema": SCHEMA,
        "config": config,
        **{name: config[name] for name in ("method", "seed")},
        "status": "ok" if failure is None else "failed",
        "failure": failure,
        **({} if failure is None else no_ticket),
        **fields,
    }
    return {name: record[name] for name in _SUCCEEDED if name not in _PUBLISHED_AS}


def validate_unpublished(record: Any, where: str) -> None:
    """Check, as `validate` does, a record that `make_record` returned."""
    validate(_PUBLISHED_AS | record if isinstance(record, dict) else record, where)


def validate(record: Any, where: str = "record") -> None:
    """Check one record against the schema: keys, types, ranges, and fields that must agree.

    Of a published line, the digest is checked too.

    Args:
        record: a record as read from JSON.
        where: how to name it in an error, for instance `results/digits.jsonl, line 3`.

    Raises:
        RecordError: names the field, its value and what was expected.
    """
    schema = record.get("schema") if isinstance(record, dict) else None
    if type(schema) is not int or schema != SCHEMA:
        raise RecordError(f"{where}: schema is {schema!r}, expected {SCHEMA}; record it again")
    unfit = (TypeError, ValueError, RecursionError)
    with refusal(RecordError, f"{where}: holds what JSON cannot carry", unfit):
        text = json.dumps(record, allow_nan=False)
    if "digest" in record and not is_sealed(text.encode()):
        raise RecordError(f"{where}: does not match its digest; it was changed by hand")
    record = bare(record)
    failed = record.get("status") == "failed"
    check(record, _FAILED if failed else _SUCCEEDED, where)
    _check_config(record["config"], where, "config.")
    for name in ("method", "seed"):
        if record[name] != record["config"][name]:
            raise RecordError(f"{where}: {name} {record[name]!r} differs from config.{name}")
    if not failed:
        _check_counts(record, where)
        if record["method"] == "retrain" and record["judged"] != "retrained":
            raise RecordError(f"{where}: judged is {record['judged']!r}, expected 'retrained'")


def emptied(record: Mapping[str, Any]) -> list[str]:
    """Return the names of the layers in which a record's ticket keeps no weight."""
    return [name for name, (kept, _) in (record["layers"] or {}).items() if kept == 0]


def is_number(value: Any) -> bool:
    """Whether a value is a number that JSON can hold, and no truth value."""
    # Not math.isfinite, which cannot take every whole number.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST


def _is_time(value: Any) -> bool:
    try:
        return bool(datetime.fromisoformat(value))
    except (TypeError, ValueError):
        return False


def _are_checksums(value: Any) -> bool:
    return isinstance(value, dict) and all(
        FILE_NAME.fullmatch(name) and SHA256.check(digest) for name, digest in value.items()
    )


COUNT = Field("a count of 0 or more", lambda value: type(value) is int and 0 <= value < 1 << 63)


def _are_layers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(layer, list)
        and len(layer) == 2
        and all(map(COUNT.check, layer))
        # A layer may be emptied, but cannot keep more than it has.
        and layer[0] <= layer[1]
        for layer in value.values()
    )


TEXT = Field("a text", lambda value: isinstance(value, str) and value != "")
NAME = matching(r"\w[\w.+-]{0,79}", "a name of letters, digits, '.', '_', '+' and '-'")
LABEL = matching(
    r"[^\W_|][\w ,.;:'()\[\]|+=/%-]{0,199}",
    "a label of letters, digits, spaces and ,.;:'()[]|+=/%_-, 200 at most",
)
ID = matching(r"[0-9a-f]{16}", "16 hexadecimal digits")
SHA256 = matching(r"[0-9a-f]{64}", "64 hexadecimal digits")
_AMOUNT = Field("a finite number of 0 or more", lambda value: is_number(value) and value >= 0)
DENSITY = Field("a fraction in (0, 1]", lambda value: is_number(value) and 0 < value <= 1)
_PERCENT = Field("a percentage in [0, 100]", lambda value: is_number(value) and 0 <= value <= 100)
OBJECT = Field("an object", lambda value: isinstance(value, dict))
_NULL = Field("null", lambda value: value is None)
_METHOD = one_of(METHODS)
TRUTH = Field("true or false", lambda value: isinstance(value, bool))
FILES = Field(f"the SHA-256 of tickets and {REWIND}", _are_checksums)
COST = dict.fromkeys(COSTS, _AMOUNT)
PROVENANCE = {
    **dict.fromkeys(("device", "device_name", "torch", "python", "lthlib", "source"), TEXT),
    "threads": COUNT,
    "commit": TEXT.or_null(),
    "dirty": TRUTH,
    **dict.fromkeys(("started", "finished"), Field("an ISO 8601 time", _is_time)),
}
# In the order of a record's fields.
_SUCCEEDED: dict[str, Any] = {
    "schema": COUNT,
    "run": ID,
    "parent": ID.or_null(),
    "config": OBJECT,
    "method": _METHOD,
    "method_version": COUNT,
    "seed": COUNT,
    "status": one_of(("ok", "failed")),
    "failure": _NULL,
    "ticket": {
        "index": COUNT,
        "point": NAME,
        "sha256": SHA256,
        "target_density": DENSITY.or_null(),
    },
    "judged": one_of(("found", "retrained")),
    "density": DENSITY,
    **dict.fromkeys(("kept", "total"), COUNT),
    "layers": Field("[kept, total] by parameter, kept <= total", _are_layers),
    "accuracy": dict.fromkeys(("validation", "test"), _PERCENT.or_null()),
    "cost": {"own": COST, "cumulative": COST},
    "provenance": PROVENANCE,
    "study": NAME,
    "scale": one_of(("embedded", "reduced", "paper")),
    "label": LABEL,
}
_FAILED: dict[str, Any] = {
    **_SUCCEEDED,
    "failure": TEXT,
    **dict.fromkeys(("density", "kept", "total"), _NULL),
    # A run that failed has no ticket: what is said of one is ignored.
    "ticket": OBJECT.or_null(),
    "layers": Field("empty or null", lambda value: not value),
    "accuracy": Field("null", lambda value: value in (None, {"validation": None, "test": None})),
}
# A run's record gets the names it is published under when it is.
_PUBLISHED_AS = {"study": "none", "scale": "embedded", "label": "none"}
_NUMBER = Field("a finite number", is_number).or_null()
# Of a method's settings, those by which tickets are told apart.
_SETTINGS = {"structure": NAME, **dict.fromkeys(("density", "fraction", "initial_gate"), _NUMBER)}
_CONFIG = {
    **dict.fromkeys(("data", "model", "training", "settings"), OBJECT),
    "method": _METHOD,
    "seed": COUNT,
    "parent": OBJECT.or_null(),
}


def check(value: Any, rule: Any, where: str, path: str = "") -> None:
    """Check a value by a `Field`, or an object by the rules of its keys, all of them and no other.

    No text in it, key or value, may hold a character that is not seen.

    Args:
        value: as read from JSON.
        rule: a `Field`, or name -> rule.
        where: how an error names what the value is of, such as a file and its line.
        path: how it then names the value; empty for the whole.

    Raises:
        RecordError: names the field, its value and what was expected.
    """
    check_texts(value, where)
    check_fields(value, rule, where, path)


def check_fields(value: Any, rule: Any, where: str, path: str = "") -> None:
    """Check a value as `check` does, whatever its texts hold."""
    if isinstance(rule, Field):
        if not rule.check(value):
            text = repr(value)[:80]
            raise RecordError(f"{where}: {path} is {text}, expected {rule.expected}")
        return
    check_fields(value, OBJECT, where, path)
    prefix = f"{path}." if path else ""
    for fault, names in ("lacks", rule.keys() - value), ("has unknown", value.keys() - rule):
        if names:
            paths = ", ".join(prefix + name for name in sorted(names))
            raise RecordError(f"{where}: {fault} {paths}")
    for name, inner in rule.items():
        check_fields(value[name], inner, where, prefix + name)


def check_texts(value: Any, where: str) -> None:
    """Raise RecordError where a text in a value, key or value, has a character that is not seen."""
    if isinstance(value, str) and visible(value) != value:
        raise RecordError(f"{where}: the text {value[:80]!a} has a character that is not seen")
    items = [*value, *value.values()] if isinstance(value, dict) else value
    for item in items if isinstance(items, list) else ():
        check_texts(item, where)


def _check_config(config: Any, where: str, prefix: str) -> None:
    """Check what the tidy table reads; the rest of a configuration grows with the library."""
    checked = {name: config[name] for name in _CONFIG if name in config}
    check_fields(checked, _CONFIG, where, prefix[:-1])
    for name in _SETTINGS.keys() & config["settings"].keys():
        check_fields(config["settings"][name], _SETTINGS[name], where, f"{prefix}settings.{name}")
    check_fields(config["data"].get("dataset"), NAME, where, f"{prefix}data.dataset")
    check_fields(config["model"].get("architecture"), NAME, where, f"{prefix}model.architecture")
    parent = config["parent"]
    if parent is not None:
        check_fields(parent, {"config": OBJECT, "point": NAME}, where, f"{prefix}parent")
        _check_config(parent["config"], where, f"{prefix}parent.config.")
    elif config["method"] == "retrain":
        raise RecordError(f"{where}: {prefix}parent is null, expected the search it retrains")


def _check_counts(record: Mapping[str, Any], where: str) -> None:
    kept, total, density = record["kept"], record["total"], record["density"]
    if not 0 < kept <= total:
        raise RecordError(f"{where}: kept is {kept} of {total}, expected 0 < kept <= total")
    if abs(density - kept / total) > 1e-3:
        raise RecordError(f"{where}: density is {density}, but kept / total is {kept / total:.6f}")
