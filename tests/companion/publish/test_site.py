"""`lth book`: the embedded study is computed, every notebook gets parameters it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from companion.evidence.facts import facts_json
from companion.publish import site, stage
from companion.publish.book import Page, build
from companion.publish.notebooks import code_cells, read_notebook, source
from companion.publish.source import quoting
from companion.studies import ticket_study
from lthlib.errors import PublishError, RecordError
from lthlib.files import sealed
from lthlib.recipes import load_recipe
from tests.companion.evidence.toys import facts
from tests.companion.publish.records import published, write
from tests.companion.publish.toys import REPOSITORY, notebook
from tests.conftest import write_tiny


def takes(page: Page) -> set[str]:
    """The names of the parameters of a page's notebook."""
    first = code_cells(read_notebook(REPOSITORY / page.path))[0]
    return {line.partition(":")[0] for line in source(first).splitlines()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What `build` is called with, for a tiny study in place of the embedded one."""
    root = tmp_path_factory.mktemp("repository")
    seen: dict[str, Any] = {"root": root, "told": []}

    def build(root: Path, **given: Any) -> Path:
        seen.update(given)
        return root / "index.html"

    for name in ("cifar10-cs", "digits-pruning", "digits-tuning"):
        study = ticket_study(load_recipe(name), seeds=1, dense_seeds=1)
        write(root / "results", study, published(study))
    tiny = ticket_study(load_recipe(write_tiny(root)), methods=["bip-release", "imp"])
    write(root / "results", tiny, published(tiny))
    (root / "results" / "facts.json").write_text(facts_json(facts()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "EMBEDDED", write_tiny(root))
        patch.setattr(site, "build", build)
        told = seen["told"].append
        page = site.build_site(root, root / "runs", jobs=1, device="cpu", say=told)
        assert page == root / "index.html"
        yield seen


def test_the_embedded_study_is_computed_first(built: dict[str, Any]) -> None:
    first, expected, took, whole = built["told"]
    assert re.fullmatch(r"that is [\d.]+ s by the times of the published record; .*", expected)
    assert first == "tiny: 9 of 9 runs to compute"
    assert re.fullmatch(r"tiny: took [\d.]+ s", took)
    assert re.fullmatch(r"all of it took [\d.]+ s", whole)
    assert len(list(built["root"].glob("runs/runs/*/run.json"))) == 9


def test_notebooks_find_the_store(built: dict[str, Any]) -> None:
    assert built["environment"] == {"LTHLIB_STORE": str(built["root"] / "runs")}


def test_published_studies_have_pages_of_their_own(built: dict[str, Any]) -> None:
    assert [page.title for page in built["notebooks"]] == [
        "bilevel",
        "quickstart",
        "inside",
        "tickets",
        "cost",
        "masks",
        "panels",
        "panels-filter",
        "tickets-cifar10-cs",
        "cost-cifar10-cs",
        "masks-cifar10-cs",
        "pruning",
    ]


def test_every_page_gives_its_notebook_what_it_takes(built: dict[str, Any]) -> None:
    for page in built["notebooks"]:
        assert takes(page) >= set(page.parameters)


def test_the_page_on_pruning_reads_two_records(built: dict[str, Any]) -> None:
    (page,) = (page for page in built["notebooks"] if page.title == "pruning")
    assert page.parameters["recipe"] == "digits-pruning"
    assert page.parameters["tuning"] == "digits-tuning"
    assert sorted(page.inputs) == ["digits-pruning.jsonl", "digits-tuning.jsonl"]


def test_without_a_record_of_the_tuning_there_is_none(tmp_path: Path) -> None:
    study = ticket_study(load_recipe("digits-pruning"), seeds=1, dense_seeds=1)
    write(tmp_path, study, published(study))
    (page,) = site.recorded_pages(tmp_path, "digits-pruning")
    assert page.parameters["tuning"] is None
    assert takes(page) >= set(page.parameters)
    assert list(page.inputs) == ["digits-pruning.jsonl"]


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("digits-sensitivity", ["sensitivity"]),
        ("digits-bip", ["sensitivity-digits-bip", "controls"]),
        ("digits-release", ["release"]),
        ("digits-head", ["head-to-head"]),
        ("digits-precision", []),
        ("bip-cifar10-resnet20-release", ["release-bip-cifar10-resnet20-release"]),
    ],
)
def test_a_study_with_notebooks_of_its_own(name: str, titles: list[str], tmp_path: Path) -> None:
    study = ticket_study(load_recipe(name), seeds=1, dense_seeds=1)
    write(tmp_path, study, published(study))
    pages = list(site.recorded_pages(tmp_path, name))
    assert [page.title for page in pages] == titles
    for page in pages:
        assert takes(page) >= set(page.parameters)
        assert page.parameters["recipe"] == name


def test_a_search_alone_has_no_page_of_comparisons(tmp_path: Path) -> None:
    study = ticket_study(load_recipe("cifar10-cs"), methods=["imp"])
    write(tmp_path, study, published(study))
    titles = [page.title for page in site.recorded_pages(tmp_path, "cifar10-cs")]
    assert titles == [f"{name}-cifar10-cs" for name in ("tickets", "cost", "masks")]


def test_only_what_the_book_shows_is_run(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").write_text(
        "- file: notebooks/cost\n- file: notebooks/masks-big\n"
    )
    (tmp_path / "book" / "page.md").write_text('[= artefact("tickets-big/points") =]\n')
    names = ("cost", "masks-big", "tickets-big", "masks", "tickets", "cost-big")
    assert [name for name in names if site.is_shown(tmp_path, Page(name))] == [
        "cost",
        "masks-big",
        "tickets-big",
    ]


def test_contents_leave_out_notebooks_that_were_not_run(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "other.ipynb").touch()
    lines = ["root: book/index", "chapters:", "- file: book/page", "- file: notebooks/curve"]
    lines += ["- file: notebooks/other", "- file: notebooks/mistyped", ""]
    files = {"book/_toc.yml": "\n".join(lines).encode(), "notebooks/curve.ipynb": b"{}"}
    made = stage.contents(tmp_path, files).decode()
    # A name that is nobody's stays, for the build to fail on.
    lines.remove("- file: notebooks/other")
    assert made == "\n".join(lines)


def test_the_mirror_holds_the_code_that_pages_quote(toy: Path) -> None:
    (toy / "lthlib").mkdir()
    for name in ("quoted", "other"):
        (toy / "lthlib" / f"{name}.py").write_text("def one(): ...\n")
    (toy / "book" / "page.md").write_text('[= source("lthlib.quoted", "one") =]\n')
    files = stage.mirror(toy, {}, {"best": 1, **quoting(toy)})
    assert files["lthlib/quoted.py"] == b"def one(): ...\n"
    assert "lthlib/other.py" not in files
    assert b"{literalinclude} /lthlib/quoted.py\n:pyobject: one\n" in files["book/page.md"]


def test_code_that_shows_nothing_is_folded_away_with_what_follows(tmp_path: Path) -> None:
    content = notebook("one = 1", "one = 2", "print(one)", "print(3)")
    for cell, tag in zip(content["cells"], ("hide-input", "injected-parameters"), strict=False):
        cell["metadata"]["tags"] = [tag]
    for cell in content["cells"][2:]:
        cell["metadata"]["tags"] = ["hide-input"]
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "2"}]
    (tmp_path / "notebook.ipynb").write_text(json.dumps(content))
    cells = json.loads(stage.publishable(tmp_path))["cells"]
    assert [cell["source"] for cell in cells] == ["one = 1\n\none = 2\n\nprint(one)", "print(3)"]


def test_pages_speak_of_local_and_published_studies(built: dict[str, Any]) -> None:
    context = built["context"]
    assert context["n_seeds"]("tiny", "dense") == 2
    assert context["dense_accuracy"]("cifar10-cs") == "90.0"
    assert "source" in context


def test_variants_of_the_embedded_study_are_shown_as_published(built: dict[str, Any]) -> None:
    of = built["context"]["n_seeds"]
    assert of("tiny as published", "BiP, as released") == 1
    with pytest.raises(PublishError, match="BiP, as released"):
        of("tiny", "BiP, as released")


def test_facts_reach_the_pages(built: dict[str, Any]) -> None:
    context = built["context"]
    assert context["fact"]("cosine_network")["value"] == "0.85"
    assert "bilinear identities hold" in context["claim"]("B4")["verdict"]
    assert "bilevel" in [page.title for page in built["notebooks"]]


def test_damaged_facts_stop_the_build_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "EMBEDDED", write_tiny(tmp_path))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "facts.json").write_bytes(
        sealed({"schema": 1, "facts": {"speed": {}}}) + b"\n"
    )
    with pytest.raises(RecordError, match=r"results/facts.json: unknown fact 'speed'"):
        site.build_site(tmp_path, tmp_path / "runs", jobs=1, device="cpu", say=print)
    assert not (tmp_path / "runs").exists()


def test_two_pages_may_run_one_notebook(toy: Path) -> None:
    pages = [Page("curve"), Page("curve", {"seeds": [7]}, name="curve-again")]
    with (toy / "book" / "page.md").open("a") as page:
        page.write('\n[= artefact("curve-again/means") =]\n')
    index = build(toy, notebooks=pages, context={"best": 97.0}, say=lambda _: None)
    text = (index.parent / "book" / "page.html").read_text()
    assert "seeds: 0–2" in text
    assert "seeds: 7" in text
    shown = json.loads(stage.publishable(toy / "build" / "pages" / "curve-again"))
    first, second = shown["cells"][1:3]
    assert "dataset: str" in first["source"] and first["source"].endswith("seeds = [7]\n")
    assert "declare(" in source(second)
    names = sorted(path.name for path in (index.parent / "_downloads").rglob("*.csv"))
    assert names == ["curve.csv", "means.csv", "means.csv"]
