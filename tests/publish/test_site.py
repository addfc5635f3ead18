"""`lth book`: the embedded study is computed, every notebook gets parameters it takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lthlib.publish import site
from lthlib.publish.book import Page, build
from lthlib.publish.notebooks import check_parameters
from lthlib.recipes import load_recipe, ticket_study
from tests.conftest import write_tiny
from tests.publish.records import published, write
from tests.publish.toys import REPOSITORY


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What `build` is called with, for a tiny study in place of the embedded one."""
    root = tmp_path_factory.mktemp("repository")
    seen: dict[str, Any] = {"root": root, "told": []}

    def build(root: Path, **given: Any) -> Path:
        seen.update(given, store=os.environ["LTHLIB_STORE"])
        return root / "index.html"

    reduced = ticket_study(load_recipe("cifar10-reduced"))
    write(root / "results", reduced, published(reduced))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LTHLIB_STORE", raising=False)
        patch.setattr(site, "EMBEDDED", write_tiny(root))
        patch.setattr(site, "build", build)
        told = seen["told"].append
        page = site.build_site(root, root / "runs", jobs=1, device="cpu", say=told)
        assert page == root / "index.html"
        assert "LTHLIB_STORE" not in os.environ
        yield seen


def test_the_embedded_study_is_computed_first(built: dict[str, Any]) -> None:
    assert built["told"] == ["tiny: 9 of 9 runs to compute"]
    assert len(list(built["root"].glob("runs/runs/*/run.json"))) == 9


def test_notebooks_find_the_store(built: dict[str, Any]) -> None:
    assert built["store"] == str(built["root"] / "runs")


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


def test_two_pages_may_run_one_notebook(toy: Path) -> None:
    curve = Path("notebooks/curve.ipynb")
    pages = [Page(curve), Page(curve, {"seeds": [7]}, name="curve-again")]
    with (toy / "book" / "page.md").open("a") as page:
        page.write('\n[= artefact("curve-again/means") =]\n')
    index = build(toy, notebooks=pages, context_factory=lambda: {"best": 97.0}, say=lambda _: None)
    text = (index.parent / "book" / "page.html").read_text()
    assert "seeds: 0–2" in text
    assert "seeds: 7" in text
    names = sorted(path.name for path in (index.parent / "_downloads").rglob("*.csv"))
    assert names == ["curve.csv", "means.csv", "means.csv"]
