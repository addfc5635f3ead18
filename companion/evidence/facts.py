"""Facts: measurements that no record holds, in `facts.json` beside the records."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from os.path import lexists
from pathlib import Path
from typing import Any

from companion.evidence import packaged
from companion.published import read_published
from lthlib.errors import RecordError
from lthlib.files import sealed
from lthlib.records import COUNT, PROVENANCE, TEXT, Field, check, is_number

SCHEMA = 1
FILE = "facts.json"
_ROWS = packaged("facts.csv")
# What each fact is, and of which claim.
FACTS = {row["fact"]: f"{row['claim']}: {row['measured']}" for row in _ROWS}
# How each is measured, with what it is measured at in braces.
DEFINITIONS = {row["fact"]: row["definition"] for row in _ROWS}


@dataclass(frozen=True)
class Fact:
    """A measurement, and what made it.

    Attributes:
        value: mean or extreme of `values`, as `definition` says.
        definition: what was measured, and at what.
        seeds: distinct.
        values: one for each of `seeds`.
        provenance: as in a record.
    """

    value: float
    definition: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    provenance: Mapping[str, Any]


def _all_are(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(of, value))


_RULE = {
    "value": Field("a finite number", is_number),
    "definition": TEXT,
    "seeds": Field(
        "a list of distinct counts",
        lambda value: _all_are(value, COUNT.check) and 0 < len(value) == len(set(value)),
    ),
    "values": Field("a list of finite numbers", lambda value: _all_are(value, is_number)),
    "provenance": PROVENANCE,
}


def facts_of(claim: str) -> list[str]:
    """Return the names of the facts that a claim rests on or shows beside them."""
    return [row["fact"] for row in _ROWS if row["claim"] == claim]


def load_facts(folder: str | Path) -> dict[str, Fact]:
    """Read the facts published in `folder`; none if it has no `facts.json`.

    Returns:
        The facts by their names in `FACTS`.

    Raises:
        RecordError: the file is no valid record of facts; names file and field.
    """
    path = Path(folder) / FILE
    return _read_facts(read_published(path, "`lth facts`"), str(path)) if lexists(path) else {}


def facts_json(facts: Mapping[str, Fact]) -> str:
    """Return the content of `facts.json`.

    Raises:
        RecordError: it would not be read back.
    """
    fields = {name: asdict(fact) for name, fact in facts.items()}
    content = {"schema": SCHEMA, "facts": fields}
    _read_facts(json.loads(json.dumps(content)), "facts")
    return sealed(content, indent=1).decode() + "\n"


def _read_facts(content: Any, where: str) -> dict[str, Fact]:
    schema = content.get("schema") if isinstance(content, dict) else None
    if type(schema) is not int or schema != SCHEMA:
        raise RecordError(
            f"{where}: schema is {schema!r}, expected {SCHEMA}; `lth facts` writes it anew"
        )
    facts = Field("an object", lambda value: isinstance(value, dict))
    check(content, {"schema": COUNT, "facts": facts}, where)
    return {name: _read_fact(name, fields, where) for name, fields in content["facts"].items()}


def _read_fact(name: str, fields: Any, where: str) -> Fact:
    if name not in FACTS:
        raise RecordError(f"{where}: unknown fact {name!r}, expected one of {', '.join(FACTS)}")
    check(fields, _RULE, where, name)
    fact = Fact(**fields | {"seeds": tuple(fields["seeds"]), "values": tuple(fields["values"])})
    value, values, seeds = fact.value, fact.values, fact.seeds
    if len(values) != len(seeds):
        raise RecordError(
            f"{where}: {name} has {len(values)} values for {len(seeds)} seeds, expected one each"
        )
    # A mean of equal numbers may differ from them in the last bit.
    slack = 1e-12 * max(map(abs, values))
    if not min(values) - slack <= value <= max(values) + slack:
        raise RecordError(
            f"{where}: {name}.value is {value}, expected one between the least and the greatest "
            "of its values"
        )
    return fact
