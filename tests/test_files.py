"""The door: JSON and YAML of strangers, of which only plain values come in."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from companion.cluster import load_cluster
from lthlib.cli.options import nested
from lthlib.errors import ConfigError, RecordError
from lthlib.files import from_json, from_yaml, load
from lthlib.recipes import load_recipe
from tests.conftest import TINY, with_sources

bounded = settings(
    max_examples=100, deadline=None, derandomize=True, phases=set(Phase) - {Phase.shrink}
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("[true, False, null]", [True, False, None]),
        ("[1, -2, +3, 0]", [1, -2, 3, 0]),
        ("[1.5, .5, 5., 1e-4, -1.0e+3]", [1.5, 0.5, 5.0, 1e-4, -1000.0]),
        # What YAML 1.1 takes for a date, minutes, an octal number, a truth, and others.
        ("2001-12-14", "2001-12-14"),
        ("12:30:00", "12:30:00"),
        (
            "[010, 1_000, 0x1f, 0b1, yes, no, .inf, =]",
            ["010", "1_000", "0x1f", "0b1", "yes", "no", ".inf", "="],
        ),
        ("'5'", "5"),
        ('a: "b: c"', {"a": "b: c"}),
        ("a:\n- {b: [c]}\n-", {"a": [{"b": ["c"]}, None]}),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_yaml_says_what_json_could(text: str, value: Any) -> None:
    parsed = from_yaml(text)
    assert (parsed, repr(parsed)) == (value, repr(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "did not find expected node"),
        ("a:\n\t- b", "cannot start any token"),
        ("a: 1\n---\nb", "several documents"),
        ("a: &x 1", "has an anchor"),
        ("!!binary aGk=", "has an anchor, an alias or a tag"),
        ("!!set {a, b}", "a tag"),
        ("! 5", "a tag"),
        ("{a: 1, a: 2}", "a key occurs twice: 'a'"),
        ("1: a", "the key 1 is no text; put it in quotes"),
        ("[a]: b", r"the key \['a'\] is no text"),
        ("1e400", "the number '1e400' is too large"),
        ("9" * 5000, "4300"),
        ("- " * 65 + "a", "nested more than 64 deep"),
        ("'\ud800'", "surrogates"),
        (b"\xff", "utf-8"),
    ],
)
def test_yaml_that_says_more_or_nothing_is_refused(text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_yaml(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1e999]", "too large"),
        ("[NaN]", "NaN is not allowed"),
        ("[" * 65 + "]" * 65, "nested more than 64 deep"),
        ('{"a": 1, "a": 1}', "a key occurs twice"),
        (r'"\ud800"', "surrogates"),
        ("9" * 5000, "4300"),
        (b"\xff", "utf-8"),
    ],
)
def test_json_that_holds_no_plain_value_is_refused(text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(text)


def test_json_may_write_a_character_as_a_pair() -> None:
    assert from_json(r'["\ud83c\udfb2"]') == ["\N{GAME DIE}"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, Path.touch, lambda path: None])
def test_a_file_that_cannot_be_read_is_an_error_of_ours(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "x")
    with pytest.raises(RecordError, match=r"^cannot read recipe .*x: "):
        load(tmp_path / "x", from_json, "recipe", RecordError)


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str)


SYNTAX = st.text(st.sampled_from("[]{}:,!&*-?|>%@`'\"\\#~<=\n\t ab01.e_\ud800é"), max_size=40)


@bounded
@given(SYNTAX | st.text() | st.binary())
@example("a: &a [*a]")
@example("{" * 5000)
@example("? " * 5000)
def test_whatever_comes_is_plain_or_refused(text: Any) -> None:
    for door in (from_yaml, from_json):
        try:
            value = door(text)
        except ValueError:
            continue
        assert _plain(value)
        assert from_json(json.dumps(value)) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ODD = JSON | st.sampled_from(
    ["9" * 400 + "ep", "x\ny", "../x", 10**400, -1, [[]], {"default": "x"}]
)
NAMES = ["data.mean", "model.width", "training.length", "training.batch_size", "settings.x"]
NAMES += ["methods.imp.fraction", "methods.cs.penalty", "rewind", "nothing"]
NAMES += ["study.precisions", "study.first_seed"]


def _paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else ()
    return [path, *(inner for key, value in items for inner in _paths(value, (*path, key)))]


PARTS = {key: TINY[key] for key in ("name", "scale", "about")}
RECIPE = PARTS | {key: with_sources(TINY[key]) for key in TINY if key not in PARTS}


@bounded
@given(st.sampled_from(_paths(RECIPE)[1:]), ODD)
def test_an_odd_recipe_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, keys: tuple[Any, ...], value: Any
) -> None:
    changed = json.loads(json.dumps(RECIPE))
    *above, last = keys
    inner = changed
    for key in above:
        inner = inner[key]
    inner[last] = value
    path = tmp_path_factory.getbasetemp() / "odd.yaml"
    path.write_text(yaml.safe_dump(changed))
    try:
        load_recipe(path)
    except ConfigError as error:
        assert len(str(error)) < 1500


@bounded
@given(st.sampled_from(NAMES), SYNTAX)
def test_an_odd_set_is_read_or_refused(name: str, value: str) -> None:
    try:
        load_recipe("digits").with_(**nested([f"{name}={value}"]))
    except ConfigError as error:
        assert len(str(error)) < 1500


@bounded
@given(st.sampled_from(["queue", "account", "interface", "memory", "walltime"]), st.text(), SYNTAX)
def test_a_word_of_a_cluster_file_is_no_shell(
    tmp_path_factory: pytest.TempPathFactory, name: str, text: str, syntax: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "cluster.yaml"
    for value in (text, syntax, f"a{syntax}", f"a;{text}", f"lo\n{text}"):
        path.write_text(yaml.safe_dump({name: value}), errors="surrogatepass")
        try:
            word = getattr(load_cluster(path), name)
        except ConfigError:
            continue
        assert not set(word) & set("\n\r;&|<>$`\\\"'()*?[]#~!{}")
