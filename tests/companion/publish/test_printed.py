"""The book to take along: a zip that opens from the file system, and a PDF."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from companion.publish.book import OFFLINE, Page, build
from companion.publish.printed import BROWSERS, find_browser, print_book
from lthlib.cli.command import app
from lthlib.errors import PublishError


def test_the_book_is_one_file(toy: Path, tmp_path: Path) -> None:
    index = build(toy, notebooks=[Page("curve")], context={"best": 97.25}, say=lambda _: None)
    with zipfile.ZipFile(index.parent / OFFLINE) as packed:
        packed.extractall(tmp_path / "elsewhere")
    html = tmp_path / "elsewhere" / "html"
    built = {path.relative_to(index.parent) for path in index.parent.rglob("*") if path.is_file()}
    taken = {path.relative_to(html) for path in html.rglob("*") if path.is_file()}
    assert built - taken == {Path(OFFLINE)} and taken <= built
    assert "<math" in (html / "book" / "index.html").read_text()

    try:
        browser = find_browser()
    except PublishError as error:
        pytest.skip(str(error))
    assert_it_is_searched_without_a_server(browser, html)
    printed = print_book(toy, browser)
    assert printed == toy / "build" / "winning-tickets.pdf"
    assert printed.read_bytes().startswith(b"%PDF-")


def assert_it_is_searched_without_a_server(browser: str, html: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page()
        page.goto((html / "search.html").as_uri() + "?q=accuracy")
        found = page.locator("#search-results li a")
        found.first.wait_for()
        assert "Curves" in found.all_inner_texts()
        opened.close()


def test_without_a_browser_nothing_is_begun(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(toy)
    done = CliRunner().invoke(app, ["book", "--pdf"])
    assert isinstance(done.exception, PublishError)
    assert all(name in str(done.exception) for name in ("install Chromium", *BROWSERS))
    assert not (toy / "build").exists()
