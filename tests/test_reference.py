"""Every public name says what it is, and the reference shows those that users need."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lthlib
from companion.publish.render import render
from companion.publish.source import quoting
from lthlib.methods import METHODS

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(lthlib.__path__, "lthlib.")
    if "__main__" not in module.name
)
PAGE = render("reference", (ROOT / "book" / "reference.md").read_text("utf-8"), quoting(ROOT))


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Functions and classes that a module defines, and what these have by `def`."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", "") != module.__name__ or name.startswith("_"):
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        for member, method in vars(value).items() if inspect.isclass(value) else ():
            defined = inspect.isroutine(method) or isinstance(method, property)
            if defined and not member.startswith("_") and "<lambda>" not in repr(method):
                yield f"{name}.{member}", getattr(value, member)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_docstring(name: str) -> None:
    undocumented = [
        member
        for member, value in public(import_module(name))
        if not (inspect.getdoc(value) or "").strip()
    ]
    assert undocumented == []


@pytest.mark.parametrize("name", ["find_tickets", "retrain", "evaluate", "load_dataset"])
def test_what_a_user_calls_explains_each_argument_and_what_it_returns_and_raises(name: str) -> None:
    function = getattr(lthlib, name)
    docstring = inspect.getdoc(function) or ""
    sections = re.split(r"^(Args|Returns|Raises):$", docstring, flags=re.MULTILINE)
    assert sections[1::2] == ["Args", "Returns", "Raises"]
    explained = re.findall(r"^    \*{0,2}(\w+):", sections[2], re.MULTILINE)
    assert explained == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", ["Ticket", "TrainingSettings"])
def test_what_a_user_makes_explains_each_field(name: str) -> None:
    kind = getattr(lthlib, name)
    explained = re.findall(r"^    (\w[\w, ]*):", inspect.getdoc(kind) or "", re.MULTILINE)
    names = [name for entry in explained for name in entry.split(", ")]
    assert [name for name in names if name.islower()] == [field.name for field in fields(kind)]


def referenced(kinds: str) -> set[str]:
    return set(re.findall(rf"^\.\. auto(?:{kinds}):: (\S+)$", PAGE, re.MULTILINE))


def test_the_reference_takes_no_property_s_first_words_for_its_type() -> None:
    classes = {name: named(name) for name in referenced("class")}
    first_lines = {
        f"{name}.{member}": (inspect.getdoc(value) or "").partition("\n")[0]
        for name, kind in classes.items()
        for member, value in vars(kind).items()
        if isinstance(value, property | cached_property)
    }
    assert "lthlib.Mask.kept" in first_lines
    assert [name for name, line in first_lines.items() if re.search(r": ?\S", line)] == []


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def test_the_reference_shows_what_the_package_offers() -> None:
    names = referenced("function|class")
    assert {f"lthlib.{name}" for name in lthlib.__all__ if name != "__version__"} <= names
    settings = {
        (kind := method.settings).__module__ + "." + kind.__name__ for method in METHODS.values()
    }
    assert settings <= names
    assert all(named(name).__doc__ for name in names)
