"""`lth book`: the embedded study is computed, every notebook gets parameters it takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lthlib.publish import site
from lthlib.publish.notebooks import check_parameters
from lthlib.recipes import load_recipe, ticket_study
from tests.publish.records import published, write
from tests.publish.toys import REPOSITORY


@pytest.fixture
def built(tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `build` is called with, for a tiny study in place of the embedded one."""
    seen: dict[str, Any] = {}

    def build(root: Path, **given: Any) -> Path:
        seen.update(given, store=os.environ["LTHLIB_STORE"])
        return root / "index.html"

    reduced = ticket_study(load_recipe("cifar10-reduced"))
    write(tmp_path / "results", reduced, published(reduced))
    monkeypatch.delenv("LTHLIB_STORE", raising=False)
    monkeypatch.setattr(site, "EMBEDDED", tiny_recipe)
    monkeypatch.setattr(site, "build", build)
    seen["told"] = []
    page = site.build_site(
        tmp_path, tmp_path / "runs", jobs=1, device="cpu", say=seen["told"].append
    )
    assert page == tmp_path / "index.html"
    return seen


def test_the_embedded_study_is_computed_first(built: dict[str, Any], tmp_path: Path) -> None:
    assert built["told"] == ["tiny: 7 of 7 runs to compute"]
    assert len(list(tmp_path.glob("runs/runs/*/run.json"))) == 7


def test_notebooks_find_the_store_and_nothing_is_left_behind(built, tmp_path: Path) -> None:
    assert built["store"] == str(tmp_path / "runs")
    assert "LTHLIB_STORE" not in os.environ


def test_published_studies_have_pages_of_their_own(built: dict[str, Any]) -> None:
    assert [page.title for page in built["notebooks"]] == [
        "quickstart",
        "tickets",
        "cost",
        "masks",
        "tickets-cifar10-reduced",
        "cost-cifar10-reduced",
        "masks-cifar10-reduced",
    ]


def test_every_page_gives_its_notebook_what_it_takes(built: dict[str, Any]) -> None:
    for page in built["notebooks"]:
        check_parameters(REPOSITORY / page.notebook, page.parameters)
        assert page.inputs() == page.inputs()


def test_pages_speak_of_local_and_published_studies(built: dict[str, Any]) -> None:
    context = built["context_factory"]()
    assert context["n_seeds"]("tiny", "dense") == 2
    assert context["dense_accuracy"]("cifar10-reduced") == "90.0"
    assert "source" in context
