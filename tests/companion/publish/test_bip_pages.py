"""The pages on BiP read right without records, and with those of each study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from companion.publish.context import page_context
from companion.publish.render import render
from companion.publish.source import quoting
from companion.studies import ticket_study
from lthlib.recipes import load_recipe
from tests.companion.publish.records import published
from tests.companion.publish.toys import REPOSITORY

PAGES = ("bip", "bip-release")


def read(page: str, *studies: str, records: Sequence[Any] = ()) -> tuple[str, set[str]]:
    """A page as readers see it, of made-up records of studies and of others, and the artefacts that
    it shows."""
    records, shown = list(records), set()
    for name in studies:
        records += published(ticket_study(load_recipe(name), seeds=2, dense_seeds=2))

    def artefact(name: str) -> str:
        shown.add(name.partition("/")[0])
        return name

    context = {**page_context(records), **quoting(REPOSITORY), "artefact": artefact}
    source = (REPOSITORY / "book" / f"{page}.md").read_text(encoding="utf-8")
    return render(page, source, context), shown


@pytest.mark.parametrize("page", PAGES)
def test_without_records_only_what_the_book_computes_is_shown(page: str) -> None:
    text, shown = read(page)
    assert shown <= {"inside"}
    assert not re.search(r"\n{4}", text)


def test_records_of_digits_bring_their_sections() -> None:
    text, shown = read("bip", "digits-bip")
    assert shown == {"inside", "controls", "sensitivity-digits-bip"}
    assert "### What is left without" in text
    text, shown = read("bip-release", "digits-release")
    assert shown == {"release"}
    assert "## What each is worth" in text
    assert r"| points | +0.0 \[0.0, 0.0\] |" in text


def test_records_at_full_size_do_too() -> None:
    _, shown = read("bip", "bip-cifar10-resnet20-study")
    study = "bip-cifar10-resnet20-study"
    assert shown == {"inside", f"controls-{study}", f"sensitivity-{study}"}
    _, shown = read("bip-release", "bip-cifar10-resnet20-release")
    assert shown == {"release-bip-cifar10-resnet20-release"}
