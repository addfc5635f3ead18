"""Facts: what is read back, what is refused, and that they reach the board."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from companion.evidence.claims import judge
from companion.evidence.facts import FACTS, Fact, facts_json, load_facts
from companion.evidence.records import tidy
from lthlib.errors import RecordError
from lthlib.files import sealed
from tests.companion.evidence.toys import PROVENANCE, facts


def write(folder: Path, content: Any) -> Path:
    path = folder / "facts.json"
    path.write_bytes(content.encode() if isinstance(content, str) else sealed(content) + b"\n")
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    found = facts()
    write(tmp_path, facts_json(found))
    again = load_facts(tmp_path)
    assert again == found
    assert again["cosine_network"].seeds == (0, 1, 2)
    assert again["cosine_network"].provenance["commit"] == "0123456789abcdef"


def test_equal_facts_are_equal_bytes() -> None:
    assert facts_json(facts()) == facts_json(facts())
    assert facts_json(facts()).endswith("}\n")


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert load_facts(tmp_path) == {}
    assert load_facts(tmp_path / "nowhere") == {}


def test_a_claim_is_judged_by_them(tmp_path: Path) -> None:
    write(tmp_path, facts_json(facts()))
    values = {name: fact.value for name, fact in load_facts(tmp_path).items()}
    verdicts = {one.claim: one for one in judge(tidy([]), values)}
    assert verdicts["B4"].outcome == "not run"  # these are premises, and say so
    assert "Premises: bilinear identities hold" in verdicts["B4"].because
    assert verdicts["A3"].outcome == "not run"


def test_every_fact_can_be_recorded() -> None:
    every = {name: Fact(0.5, "a test", (3,), (0.5,), PROVENANCE) for name in FACTS}
    assert json.loads(facts_json(every))["schema"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not JSON"),
        ('{"schema": 1', "is not JSON"),
        ('{"schema": 1, "schema": 1, "facts": {}}', "a key occurs twice"),
        ('{"schema": 1, "facts": NaN}', "NaN is not allowed"),
        ("[]", "has no digest: .* or write it again with `lth facts`"),
        ('{"schema": 1, "facts": {}}', "has no digest"),
        ({"schema": 2, "facts": {}}, "schema is 2, expected 1"),
        ({"schema": True, "facts": {}}, "schema is True, expected 1"),
        ({"schema": 1}, "lacks facts"),
        ({"schema": 1, "facts": []}, r"facts is \[\], expected an object"),
        ({"schema": 1, "facts": {}, "more": 1}, "has unknown more"),
        ({"schema": 1, "facts": {"speed": {}}}, "unknown fact 'speed', expected one of identity"),
        (
            {"schema": 1, "facts": {"direct_cosine_network": 3}},
            "direct_cosine_network is 3, expected an object",
        ),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: Any, said: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(RecordError, match=said) as told:
        load_facts(tmp_path)
    assert str(path) in str(told.value)


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    content = copy.deepcopy(json.loads(facts_json(facts())))
    change(content["facts"]["cosine_network"])
    return content


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one.pop("value"), "lacks cosine_network.value"),
        (lambda one: one.update(value="0.9"), "cosine_network.value is '0.9', expected a finite"),
        (lambda one: one.update(value=True), "cosine_network.value is True"),
        (lambda one: one.update(definition=""), "cosine_network.definition is '', expected a text"),
        (lambda one: one.update(seeds=[]), r"cosine_network.seeds is \[\]"),
        (lambda one: one.update(seeds=[0, 0, 1]), "expected a list of distinct counts"),
        (lambda one: one.update(seeds=[0, 1, -2]), "expected a list of distinct counts"),
        (lambda one: one.update(seeds=[0, 1]), "cosine_network has 3 values for 2 seeds"),
        (lambda one: one.update(values=[0.8, 0.9, None]), "expected a list of finite numbers"),
        (lambda one: one.update(value=0.99), "is 0.99, expected one between the least and"),
        (lambda one: one.update(values=[0.1, 0.2, 0.3]), "is 0.85, expected one between"),
        (lambda one: one.update(more=1), "has unknown cosine_network.more"),
        (lambda one: one["provenance"].pop("dirty"), "lacks cosine_network.provenance.dirty"),
        (lambda one: one["provenance"].update(finished="today"), "provenance.finished is 'today'"),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    write(tmp_path, changed(change))
    with pytest.raises(RecordError, match=said):
        load_facts(tmp_path)


def test_what_would_not_be_read_back_is_not_written() -> None:
    wrong = {"cosine_network": Fact(0.9, "a test", (0,), (0.8,), PROVENANCE)}
    with pytest.raises(RecordError, match="expected one between"):
        facts_json(wrong)


def test_a_mean_may_differ_in_its_last_bit(tmp_path: Path) -> None:
    values = (0.1, 0.1, 0.1)
    mean = sum(values) / 3
    assert mean != 0.1
    write(
        tmp_path,
        facts_json({"direct_cosine_network": Fact(mean, "a test", (0, 1, 2), values, PROVENANCE)}),
    )
    assert load_facts(tmp_path)["direct_cosine_network"].value == mean
