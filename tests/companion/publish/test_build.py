"""A small book, from notebook to site."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from companion.publish.book import Page, build
from lthlib.errors import PublishError

CURVE = Page("curve")


class Tags(HTMLParser):
    """All start tags of a page with their attributes, and its empty header cells."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))


def weight(page: Path) -> int:
    """The bytes of a page and of all that it loads, scripts and style sheets included."""
    seen, due = {page.resolve()}, [page]
    while due:
        one = due.pop()
        if one.suffix == ".html":
            named = [
                a.get("src") or a.get("href") or "" for t, a in Tags(one).tags if t in _LOADING
            ]
            named = [name for name in named if not name.endswith(".html")]
        else:
            named = re.findall(r"""(?:url\(|@import )["']?([^"')]+)""", one.read_text("utf-8"))
        found = {(one.parent / re.split("[?#]", name)[0]).resolve() for name in named}
        due += [path for path in found - seen if path.suffix == ".css"]
        seen |= {path for path in found if path.is_file()}
    return sum(path.stat().st_size for path in seen)


def make(root: Path, **settings) -> tuple[Path, list[str]]:
    said: list[str] = []
    given = {"notebooks": [CURVE], "context": {"best": 97.25}, **settings}
    return build(root, say=said.append, **given), [one for one in said if " took " not in one]


def test_a_small_book(toy: Path) -> None:
    before = {path for path in toy.rglob("*") if path.is_file()}
    index, said = make(toy)
    html = toy / "build" / "_build" / "html"

    assert index == html / "index.html"
    assert said == ["notebooks/curve.ipynb: to run (not run before)", "building the site"]
    outside = {p for p in toy.rglob("*") if p.is_file() and not p.is_relative_to(toy / "build")}
    assert outside == before

    page = re.sub(r"<[^>]*>", "", (html / "book" / "page.html").read_text())
    assert "Scale: embedded · seeds: 0–2 · device: cpu · date: 2026-11-21" in page
    assert "lth rerun curve\n" in page
    assert "Best: 97.25 %" in (html / "book" / "index.html").read_text()
    notebook = (html / "notebooks" / "curve.html").read_text()
    assert "Six dots, rising." in notebook
    assert "Mean accuracy." in notebook
    hrefs = [attrs.get("href") or "" for _, attrs in Tags(html / "notebooks" / "curve.html").tags]
    files = [html / "notebooks" / href for href in hrefs if "_downloads" in href]
    assert [path.name for path in files] == ["curve.svg", "curve.csv", "means.csv"]
    for path in files:
        made = toy / "build" / "pages" / "curve" / "artefacts" / path.name
        assert path.read_bytes() == made.read_bytes()

    pages = [html / "index.html", *html.glob("book/*.html"), *html.glob("notebooks/*.html")]
    assert len(pages) == 4
    for one in pages:
        tags = Tags(one).tags
        assert ("html", "en") in {(tag, attrs.get("lang")) for tag, attrs in tags}
        assert "title" in {tag for tag, _ in tags}
        assert all(attrs.get("alt") for tag, attrs in tags if tag == "img")
        assert "<th></th>" not in one.read_text()
        loaded = [a.get("src") or a.get("href") or "" for t, a in tags if t in _LOADING]
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)]
        for url in loaded:
            assert (one.parent / url.split("?")[0]).exists(), url

    assert "<math" in (html / "book" / "index.html").read_text()
    assert all(weight(one) < 1_000_000 for one in pages[1:])

    assert_second_build_does_nothing(toy)
    assert_editing_lthlib_is_seen(toy)
    assert_failure_keeps_the_site(toy)


_LOADING = ("script", "link", "img")


def assert_second_build_does_nothing(toy: Path) -> None:
    when = (toy / "build/_build/html/book/page.html").stat().st_mtime_ns
    assert make(toy)[1] == ["the book is up to date"]
    assert (toy / "build/_build/html/book/page.html").stat().st_mtime_ns == when


def assert_editing_lthlib_is_seen(toy: Path) -> None:
    path = toy / "build/pages/curve/key.json"
    key = json.loads(path.read_text())
    path.write_text(json.dumps({**key, "lthlib": "another"}))
    assert make(toy)[1] == [
        "notebooks/curve.ipynb: to run (changed: lthlib)",
        "the book is up to date",  # it drew the same figures, to the byte
    ]


def assert_failure_keeps_the_site(toy: Path) -> None:
    page = toy / "book" / "page.md"
    good = page.read_text()
    for bad, told in (("$\\nonsense$", "formula.*nonsense"), ("{ref}`nowhere`", "nowhere")):
        page.write_text(f"{good}\n{bad}\n")
        with pytest.raises(PublishError, match=rf"page\.md.*WARNING.*{told}"):
            make(toy)
    assert "nowhere" not in (toy / "build/_build/html/book/page.html").read_text()


def test_a_failing_notebook_keeps_what_was_good(toy: Path) -> None:
    good = toy / "build" / "pages" / "curve"
    (good / "artefacts").mkdir(parents=True)
    (good / "notebook.ipynb").write_text("good")
    (good / "key.json").write_text("{}")
    source = toy / "notebooks" / "curve.ipynb"
    source.write_text(source.read_text().replace("import pandas as pd", "1 / 0"))
    with pytest.raises(PublishError, match=r"curve\.ipynb, code cell 3: ZeroDivisionError"):
        make(toy)
    assert (good / "notebook.ipynb").read_text() == "good"
    assert sorted(os.listdir(good.parent)) == ["curve"]


def test_notebooks_run_at_once_and_one_that_fails_ends_the_build(toy: Path) -> None:
    pages = [Page(CURVE.notebook, name=name) for name in ("curve", "again")]
    _, said = make(toy, notebooks=pages, jobs=2)
    assert said.count("notebooks/curve.ipynb: to run (not run before)") == 2
    drawn = [toy / "build" / "pages" / page.title / "artefacts" for page in pages]
    assert sorted(os.listdir(drawn[0])) == sorted(os.listdir(drawn[1])) != []
    source = toy / "notebooks" / "curve.ipynb"
    source.write_text(source.read_text().replace("import pandas as pd", "1 / 0"))
    with pytest.raises(PublishError, match=r"curve\.ipynb, code cell 3: ZeroDivisionError"):
        make(toy, notebooks=pages, jobs=2)
    assert sorted(os.listdir(toy / "build" / "pages")) == ["again", "curve"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": 0.5}, "'seeds' is 0.5; expected a list of int"),
        ({"datset": "cifar10"}, r"unknown parameter 'datset' \(did you mean 'dataset'\?\)"),
    ],
)
def test_the_notebook_refuses_wrong_parameters(toy: Path, given: dict, message: str) -> None:
    with pytest.raises(PublishError, match=f"cell 2: ConfigError: .*{message}"):
        make(toy, notebooks=[Page(CURVE.notebook, given)])


def test_two_builds_at_once_are_refused(toy: Path) -> None:
    def build_again(line: str) -> None:
        make(toy)

    with pytest.raises(PublishError, match="another build is running"):
        build(toy, notebooks=[CURVE], context={}, say=build_again)
