"""Every page in a browser: in light, in dark, and on a phone."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.companion.publish.toys import REPOSITORY

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SHOTS = REPOSITORY / "build" / "screenshots"  # kept by the workflow that runs the tests
SHOWN = ("index", "digits", "cs", "bip", "claims", "cost")
KINDS = ("console", "requests", "hosts", "axe", "figures", "tables", "phone")

# Themes fade and slide, and what is looked at is to stand still.
STILL = "*, *::before, *::after { transition: none !important; animation: none !important }"
# Tables of more columns scroll by themselves.
TOO_WIDE = """() => [...document.querySelectorAll("article table")]
  .filter(one => one.rows[0].cells.length <= 12)
  .filter(one => one.getBoundingClientRect().width > one.parentElement.clientWidth + 1)
  .map(one => one.textContent.trim().replace(/\\s+/g, " ").slice(0, 80))"""
SIDEWAYS = """() => {
  const { clientWidth: width, scrollWidth: needed } = document.documentElement;
  const wide = [...document.querySelectorAll("article :not(table *)")]
    .filter(one => Math.max(one.scrollWidth, one.getBoundingClientRect().right) > width)
    .map(one => one.tagName + " " + one.textContent.trim().slice(0, 60));
  return needed > width ? [`${needed} wide, see ${wide.slice(-3).join("; ")}`] : [];
}"""
EVERYTHING = {"resultTypes": ["violations"], "preload": False}  # preload: files: may not be read
IN_DARK = {**EVERYTHING, "runOnly": ["color-contrast"]}


@pytest.fixture(scope="module")
def faults(site: Path, browser: Any) -> dict[str, list[str]]:
    """What is wrong with pages, by kind; each is loaded once."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found: dict[str, list[str]] = defaultdict(list)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport=DESK, color_scheme="light")
    name = ""

    def tell(kind: str, what: str) -> None:
        found[kind].append(f"{name}: {what}")

    def hear(message: Any) -> None:
        if message.type in ("error", "warning"):
            tell("console", message.text)

    def follow(request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            tell("hosts", request.url)

    page.on("console", hear)
    page.on("pageerror", lambda error: tell("console", str(error)))
    page.on("request", follow)
    page.on("requestfailed", lambda request: tell("requests", request.url))
    for path in sorted(site.glob("[bn]*/*.html")):
        name = path.relative_to(site).as_posix()
        page.goto(path.as_uri())
        page.add_style_tag(content=STILL)
        look(page, path.stem, axe, tell)
        page.set_viewport_size(DESK)
    page.close()
    return found


def look(page: Any, name: str, axe: Any, tell: Callable[[str, str], None]) -> None:
    """Tell what is wrong with an open page in light, in dark, and on a phone."""
    for theme, options in (("light", EVERYTHING), ("dark", IN_DARK)):
        page.emulate_media(color_scheme=theme)
        if name in SHOWN:
            page.screenshot(path=SHOTS / f"{name}-{theme}.png", full_page=True)
        elif theme == "dark":  # colours are the same on all pages, and to measure them takes long
            continue
        for one in axe.run(page, options=options).response["violations"]:
            if one["impact"] in ("serious", "critical"):
                for node in one["nodes"]:
                    tell("axe", f"{theme}: {one['id']}: {node['html']} {node['failureSummary']}")
    for picture in page.query_selector_all("article figure img"):
        if (ratio := contrast(picture.screenshot())) < 4.5:
            tell("figures", f"{picture.get_attribute('src')}: {ratio:.1f} in dark")
    for table in page.evaluate(TOO_WIDE):
        tell("tables", table)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(PHONE)
    if name in SHOWN:
        page.screenshot(path=SHOTS / f"{name}-phone.png", full_page=True)
    for one in page.evaluate(SIDEWAYS):
        tell("phone", one)


def contrast(png: bytes) -> float:
    """How far the ink of a picture is from its paper, which has to be dark: else 1."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3) / 255
    linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    luminance = (linear @ [0.2126, 0.7152, 0.0722]).round(3)
    values, counts = np.unique(luminance, return_counts=True)
    paper, ink = values[counts.argmax()], np.quantile(luminance, 0.995)
    return 1.0 if paper > 0.1 else float((ink + 0.05) / (paper + 0.05))


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_is_at_fault(kind: str, faults: dict[str, list[str]]) -> None:
    assert not faults[kind], "\n".join(faults[kind])


@pytest.mark.parametrize(
    ("paper", "ink", "legible"), [(20, 220, True), (20, 70, False), (255, 0, False)]
)
def test_what_is_legible_in_dark(paper: int, ink: int, legible: bool) -> None:
    picture = Image.new("L", (100, 100), paper)
    picture.paste(ink, (0, 0, 30, 30))
    file = io.BytesIO()
    picture.save(file, "PNG")
    assert (contrast(file.getvalue()) >= 4.5) == legible


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """An empty page of the size of a desk."""
    opened = browser.new_page(viewport=DESK)
    yield opened
    opened.close()


def test_search_finds_a_word_with_a_hyphen(page: Any, site: Path) -> None:
    page.goto(f"{(site / 'search.html').as_uri()}?q=bi-level")
    page.wait_for_selector("#search-results li a")
    links = page.query_selector_all("#search-results li a")
    assert any("book/bip.html" in link.get_attribute("href") for link in links)


def test_a_table_sorts_by_a_click_and_what_is_missing_comes_last(page: Any, site: Path) -> None:
    page.goto((site / "book" / "digits.html").as_uri())
    table = page.locator("table.sortable").first
    button = table.locator("thead th:nth-child(2) button")
    cells = table.locator("tbody tr td:nth-child(2)")

    def clicked() -> list[str]:
        button.click()
        return [text.split()[0] for text in cells.all_inner_texts()]

    for turn in (1, -1):
        column = clicked()
        numbers = [turn * float(text) for text in column if text != "–"]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 1
        assert column[len(numbers) :] == ["–"] * (len(column) - len(numbers))


SCRIPT = REPOSITORY / "companion" / "publish" / "assets" / "lthlib.js"
ROWS = "<tbody>" + "".join(f"<tr><td>{one}</td><td>{one}</td></tr>" for one in "bac") + "</tbody>"


@pytest.mark.parametrize(
    ("names", "shown", "buttons"), [(["", ""], False, []), (["", "share"], True, ["share"])]
)
def test_a_column_without_a_name_does_not_sort(
    names: list[str], shown: bool, buttons: list[str], page: Any, tmp_path: Path
) -> None:
    heads = "".join(f"<th><p>{name}</p></th>" for name in names)
    text = f"<table class='table'><thead><tr>{heads}</tr></thead>{ROWS}</table>"
    text += "<p class='online'>Take it along.</p>"
    text += (
        f"<script>DOCUMENTATION_OPTIONS = {{}}</script><script src='{SCRIPT.as_uri()}'></script>"
    )
    file = tmp_path / "page.html"
    file.write_text(f"<!doctype html><title>x</title><article>{text}</article>", encoding="utf-8")
    page.goto(file.as_uri())
    assert page.locator("thead").is_visible() == shown
    assert page.locator("thead button").all_inner_texts() == buttons
    assert not page.locator(".online").is_visible()  # a page from the file system
    for button in page.locator("thead button").all():
        button.click()
        assert page.locator("tbody td:last-child").all_inner_texts() == ["a", "b", "c"]
