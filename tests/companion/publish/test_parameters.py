"""What a notebook accepts as parameters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from companion.publish import (
    choice,
    declare,
    flag,
    many,
    number,
    optional,
    text,
    texts,
    whole,
    wholes,
)
from lthlib.errors import PublishError

METHODS = many("imp", "bip", "cs")


def test_values_come_back_immutable() -> None:
    found = declare(
        {"dataset": "digits", "methods": ["imp"], "rate": 1},
        dataset=choice("digits", "cifar10"),
        methods=METHODS,
        rate=number(0, 1),
    )
    assert found == ("digits", ("imp",), 1.0)
    assert found.methods == ("imp",)
    with pytest.raises(AttributeError):
        found.methods = ()


def test_a_notebooks_other_names_are_no_parameters() -> None:
    names = {"_i": "x = 1", "In": [], "Out": {}, "Path": Path, "declare": declare, "seed": 0}
    assert declare(names, seed=whole()).seed == 0


@pytest.mark.parametrize("given", [["imp", "cs"], ("imp", "cs"), '["imp", "cs"]'])
def test_lists_also_as_json(given: object) -> None:
    assert declare({"methods": given}, methods=METHODS).methods == ("imp", "cs")


@pytest.mark.parametrize(
    ("value", "spec", "expected"),
    [
        ("mnist", choice("digits", "cifar10"), "one of digits, cifar10"),
        (["imp", "imp"], METHODS, "a list of distinct values, each one of imp, bip, cs"),
        ([], METHODS, "a list"),
        ("imp", METHODS, "a list"),
        ("[1", wholes(), "a list"),
        ([0, -1], wholes(0), "a list of distinct values, each a whole number of at least 0"),
        ([[0]], wholes(0), "a list"),
        (2, whole(0, 1), "a whole number from 0 to 1"),
        (True, whole(), "a whole number"),
        (0.5, whole(), "a whole number"),
        (1.5, number(high=1), "a number of at most 1"),
        (float("nan"), number(), "a number"),
        ("yes", flag(), "true or false"),
        (3, text(), "text"),
        (["a", 3], texts(), "a list of distinct values, each text"),
        ("x", optional(whole()), "a whole number, or None"),
        (None, whole(), "a whole number"),
    ],
)
def test_wrong_values_are_refused(value: object, spec, expected: str) -> None:
    with pytest.raises(PublishError, match=f"parameter 'it' is .*; expected {expected}"):
        declare({"it": value}, it=spec)


def test_right_values_are_accepted() -> None:
    names = {"a": True, "b": "x", "c": None, "d": 3, "e": [2, 1], "f": '["x"]'}
    specs = {"a": flag(), "b": text(), "c": optional(whole()), "d": number(), "e": wholes(1, 2)}
    assert declare(names, **specs, f=texts()) == (True, "x", None, 3.0, (2, 1), ("x",))


def test_a_typo_is_named_with_the_valid_names() -> None:
    with pytest.raises(PublishError) as error:
        declare({"methods": ["imp"], "metods": ["cs"]}, methods=METHODS)
    assert str(error.value) == (
        "unknown parameter 'metods' (did you mean 'methods'?); this notebook takes: "
        "methods: a list of distinct values, each one of imp, bip, cs"
    )


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(PublishError, match="'methods' has no value"):
        declare({}, methods=METHODS)


def test_declaring_parameters_does_not_import_torch() -> None:
    code = "import sys, companion.publish; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
