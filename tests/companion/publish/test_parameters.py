"""What a notebook accepts as parameters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from companion.publish.parameters import choice, declare, some
from lthlib.errors import ConfigError
from lthlib.settings import Count, Density, Number, Seed

METHODS = some(choice("imp", "bip", "cs"))


def test_values_come_back_immutable() -> None:
    found = declare(
        {"dataset": "digits", "methods": ["imp"], "rate": 1},
        dataset=choice("digits", "cifar10"),
        methods=METHODS,
        rate=Density,
    )
    assert found == ("digits", ("imp",), 1.0)
    assert found.methods == ("imp",)
    with pytest.raises(AttributeError):
        found.methods = ()


def test_a_notebooks_other_names_are_no_parameters() -> None:
    names = {"_i": "x = 1", "In": [], "Out": {}, "Path": Path, "declare": declare, "seed": 0}
    assert declare(names, seed=Seed).seed == 0


@pytest.mark.parametrize("given", [["imp", "cs"], ("imp", "cs"), '["imp", "cs"]'])
def test_lists_also_as_json(given: object) -> None:
    assert declare({"methods": given}, methods=METHODS).methods == ("imp", "cs")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("mnist", choice("digits", "cifar10"), "one of digits, cifar10"),
        (["imp", "imp"], METHODS, "distinct values, one at least"),
        ([], METHODS, "distinct values, one at least"),
        ("imp", METHODS, "a list of str"),
        (["imp", "magic"], METHODS, "one of imp, bip, cs"),
        ("[1", some(Seed), "a list of int"),
        ([1, 0], some(Count), "at least 1 and at most 10,000"),
        ([[0]], some(Seed), "int"),
        ({"a": 1}, some(str) | None, "a list of str"),
        (0, Count, "at least 1"),
        (True, Count, "int"),
        (0.5, Count, "int"),
        (1.5, Density, "a kept fraction"),
        (float("nan"), Number, "at least"),
        ("yes", bool, "bool"),
        (3, str, "str"),
        (["a", 3], some(str), "str"),
        ("x", Count | None, "int"),
        (None, Count, "int"),
    ],
)
def test_wrong_values_are_refused(value: object, kind: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"parameter 'it' is .*; expected {expected}"):
        declare({"it": value}, it=kind)


def test_right_values_are_accepted() -> None:
    names = {"a": True, "b": "x", "c": None, "d": 3, "e": [2, 1], "f": '["x"]', "g": None}
    kinds = {"a": bool, "b": str, "c": Count | None, "d": Number, "e": some(Count)}
    found = declare(names, **kinds, f=some(str), g=some(str) | None)
    assert found == (True, "x", None, 3.0, (2, 1), ("x",), None)


def test_a_text_that_is_no_list_stays_a_text() -> None:
    assert declare({"recipe": "[1]"}, recipe=str | None).recipe == "[1]"


def test_a_typo_is_named_with_the_valid_names() -> None:
    with pytest.raises(ConfigError) as error:
        declare({"methods": ["imp"], "metods": ["cs"]}, methods=METHODS)
    assert str(error.value) == (
        "unknown parameter 'metods' (did you mean 'methods'?); this notebook takes: methods"
    )


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(ConfigError, match="'methods' has no value"):
        declare({}, methods=METHODS)


def test_declaring_parameters_does_not_import_torch() -> None:
    code = "import sys, companion.publish.parameters; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
