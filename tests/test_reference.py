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
from lthlib.methods import METHODS

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    one.name
    for one in pkgutil.walk_packages(lthlib.__path__, "lthlib.")
    if "__main__" not in one.name
)
PAGE = (ROOT / "book" / "reference.md").read_text("utf-8")


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Functions and classes that a module defines, and what these have by `def`."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", "") != module.__name__ or name.startswith("_"):
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        for own, method in vars(value).items() if inspect.isclass(value) else ():
            defined = inspect.isroutine(method) or isinstance(method, property)
            if defined and not own.startswith("_") and "<lambda>" not in repr(method):
                yield f"{name}.{own}", getattr(value, own)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_docstring(name: str) -> None:
    module = import_module(name)
    assert [own for own, value in public(module) if not (inspect.getdoc(value) or "").strip()] == []


@pytest.mark.parametrize("name", ["find_tickets", "retrain", "evaluate", "load_dataset"])
def test_what_a_user_calls_explains_each_argument_and_what_it_returns_and_raises(name: str) -> None:
    function = getattr(lthlib, name)
    told = inspect.getdoc(function) or ""
    sections = re.split(r"^(Arg|Returns|Raises)(?:s|uments)?:$", told, flags=re.MULTILINE)
    assert sections[1::2] == ["Arg", "Returns", "Raises"]
    explained = re.findall(r"^    (\w[\w, ]*):", sections[2], re.MULTILINE)
    taken = list(inspect.signature(function).parameters)
    assert [own for names in explained for own in names.split(", ")] == taken


@pytest.mark.parametrize("name", ["Ticket", "TrainingSettings"])
def test_what_a_user_makes_explains_each_field(name: str) -> None:
    kind = getattr(lthlib, name)
    explained = re.findall(r"^    (\w[\w, ]*):", inspect.getdoc(kind) or "", re.MULTILINE)
    told = [own for names in explained for own in names.split(", ")]
    assert [own for own in told if not own[0].isupper()] == [one.name for one in fields(kind)]


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
    shown = referenced("function|class")
    assert {f"lthlib.{name}" for name in lthlib.__all__ if name != "__version__"} <= shown
    settings = {
        (kind := method.settings).__module__ + "." + kind.__name__ for method in METHODS.values()
    }
    assert settings <= shown
    assert all(named(name).__doc__ for name in shown)
