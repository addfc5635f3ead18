"""The mask explorer: what the page carries are the published masks, and what it counts is true."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from companion.publish.explorer import explorer
from companion.publish.masks import overlaps
from companion.publish.render import render
from companion.tickets import load_tickets
from lthlib.errors import PublishError
from lthlib.masks import Mask
from tests.companion.publish.toys import REPOSITORY

RESULTS = REPOSITORY / "results"
ASSETS = REPOSITORY / "companion" / "publish" / "assets"
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def page() -> str:
    """The page's HTML, with its style and script, as it opens from a folder."""
    text = (REPOSITORY / "book" / "explorer.md").read_text("utf-8")
    filled = render("explorer", text, {"explorer": partial(explorer, RESULTS)})
    blocks = re.findall(r"^```\{raw\} html\n(.*?)^```$", filled, re.MULTILINE | re.DOTALL)
    script, style = (ASSETS / name for name in ("explorer.js", "lthlib.css"))
    head = f"<style>{style.read_text('utf-8')}</style><script>{script.read_text('utf-8')}</script>"
    return f'<!DOCTYPE html><html lang="en"><meta charset="utf-8">{head}{"".join(blocks)}</html>'


def masks_near(study: str, label: str, density: float) -> dict[int, Mask]:
    """Of each seed the published mask of a label that is nearest to a density."""
    own = [one for one in load_tickets(RESULTS, study).values() if one.info["label"] == label]
    own.sort(key=lambda one: -abs(np.log(one.density / density)))
    return {one.info["seed"]: one.mask for one in own}


def test_the_page_carries_each_published_mask_once(page: str) -> None:
    (data,) = re.findall(r'id="explorer-masks">(.*)</script>', page)
    for name, study in json.loads(data).items():
        tickets = list(load_tickets(RESULTS, name).values())
        sizes = [int(np.prod(shape)) for _, shape in study["layers"]]
        bits = np.frombuffer(zlib.decompress(base64.b64decode(study["bits"])), np.uint8)
        rows = np.unpackbits(bits.reshape(len(study["masks"]), -1), axis=1, count=sum(sizes))
        carried = set()
        for (_, seed, density, _), row in zip(study["masks"], rows, strict=True):
            assert row.mean() == density
            parts = np.split(row, np.cumsum(sizes)[:-1])
            carried.add((seed, *(part.tobytes() for part in parts)))
        assert len(carried) == len(rows)
        names = [layer for layer, _ in study["layers"]]
        published = {
            (one.info["seed"], *(one.mask[layer].numpy().tobytes() for layer in names))
            for one in tickets
        }
        assert carried == published


def test_the_page_is_light(page: str) -> None:
    assert len(page.encode()) < 450_000  # the theme takes as much; a page may take a megabyte


def test_what_is_not_published_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="toy has no published masks; `lth record toy"):
        explorer(tmp_path, "toy")


def test_what_the_page_says_of_seeds_and_methods() -> None:
    ratios = []
    for density in (0.5, 0.2, 0.1, 0.05, 0.02):
        near = {one: masks_near("digits", one, density) for one in ("IMP", "CS", "BiP", "OMP")}
        overlap, chance = overlaps(near)
        ratio = (overlap / chance).to_numpy()
        seeds, methods = np.diag(ratio), ratio[~np.eye(len(near), dtype=bool)]
        assert np.all((seeds > 0.9) & (seeds < 1.1))
        assert np.all(methods > 1.25)
        ratios.append(methods.mean())
    assert ratios == sorted(ratios)
    released = masks_near("digits", "BiP, as released", 0.02)
    assert not any(mask["linear.weight"].any() for mask in released.values())
    one, other = (ticket.mask for ticket in load_tickets(RESULTS, "cs-resnet20").values())
    overlap, chance = (
        table.iloc[0, 1] for table in overlaps({"one": {0: one}, "other": {0: other}})
    )
    assert overlap == pytest.approx(chance, rel=0.1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any, page: str, tmp_path: Path) -> Iterator[Any]:
    """The page in a browser; it asks for nothing else, and reports no error."""
    (tmp_path / "explorer.html").write_text(page, encoding="utf-8")
    tab, errors, asked = browser.new_page(), [], []
    tab.on("pageerror", lambda error: errors.append(error))
    tab.on("console", lambda message: errors.append(message.text))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(f"file://{tmp_path}/explorer.html")
    tab.locator("#explorer tbody tr").first.wait_for()
    yield tab
    assert not errors
    assert len(asked) == 1
    tab.close()


def choose(tab: Any, **given: str) -> None:
    for name, label in given.items():
        label = label.replace(" %", "\N{NO-BREAK SPACE}%")
        tab.select_option(f"select[name={name.replace('_', '-')}]", label=label)


def cells(tab: Any, row: str) -> list[float]:
    """Weights; kept by the first, the second, both; percent in common, and by chance."""
    line = tab.locator(f"#explorer tbody tr:has(th:text-is('{row}'))")
    texts = line.locator("td").all_inner_texts()
    return [float(text.replace(",", "").removesuffix("\N{NO-BREAK SPACE}%")) for text in texts]


@pytest.mark.parametrize(
    ("study", "one", "other", "density"),
    [("digits", ("IMP", 0), ("IMP", 2), 0.1), ("digits", ("BiP", 1), ("OMP", 1), 0.02)],
)
def test_the_numbers_are_those_that_python_counts(
    opened: Any, study: str, one: tuple[str, int], other: tuple[str, int], density: float
) -> None:
    curves = {
        f"{label} {seed}": {0: masks_near(study, label, density)[seed]}
        for label, seed in (one, other)
    }
    (a, b) = (masks[0] for masks in curves.values())
    choose(opened, study=study, first_method=one[0], second_method=other[0])
    choose(opened, first_seed=str(one[1]), second_seed=str(other[1]))
    choose(opened, first_density=f"{100 * a.density:#.3g} %")
    for layer in a:
        both = int((a[layer] & b[layer]).sum())
        counts = [a[layer].numel(), int(a[layer].sum()), int(b[layer].sum()), both]
        assert cells(opened, layer)[:4] == counts
    overlap, chance = (table.iloc[0, 1] for table in overlaps(curves))
    assert cells(opened, "all layers")[4:] == pytest.approx(
        [100 * overlap, 100 * chance], abs=0.051
    )


def test_the_picture_has_a_cell_for_each_weight(opened: Any) -> None:
    choose(opened, study="cs-resnet20", layer="stage3.2.conv2.weight")
    choose(opened, first_density="37.7 %", second_density="13.3 %")
    colours = """([picture]) => {
        const { width, height } = picture, found = {};
        const data = picture.getContext("2d").getImageData(0, 0, width, height).data;
        for (let at = 0; at < data.length; at += 4) {
            const name = data.slice(at, at + 4).join();
            found[name] = (found[name] || 0) + 1;
        }
        return found;
    }"""
    found = opened.locator("#explorer canvas").evaluate_all(colours)
    _, first, second, both, *_ = cells(opened, "stage3.2.conv2.weight")
    shown = {"17,24,39,255": both, "0,114,178,255": first - both, "213,94,0,255": second - both}
    assert len({found[colour] / weights for colour, weights in shown.items()}) == 1


def test_arrow_keys_move_through_densities_and_layers(opened: Any) -> None:
    choose(opened, first_method="IMP", second_method="CS", layer="stem.weight")
    choose(opened, first_density="10.0 %")
    picture, status = opened.locator("#explorer .pictures"), opened.locator("[role=status]")
    assert "IMP, seed 0, at 10.0\N{NO-BREAK SPACE}%" in status.inner_text()
    picture.focus()
    picture.press("ArrowRight")
    assert "IMP, seed 0, at 7.22" in status.inner_text()
    assert "CS, seed 0, at 5.95" in status.inner_text()  # the nearest that it has
    picture.press("ArrowLeft")
    picture.press("ArrowDown")
    assert status.inner_text().startswith(
        "stage1.0.conv1.weight, 576 weights. IMP, seed 0, at 10.0"
    )
    for _ in range(30):
        picture.press("ArrowUp")
    assert status.inner_text().startswith("stem.weight")


def test_side_by_side_and_the_dark_theme(opened: Any) -> None:
    second = opened.locator("#explorer canvas").nth(1)
    assert not second.is_visible()
    choose(opened, view="side by side")
    assert second.is_visible()
    shot = second.screenshot()
    opened.evaluate("document.documentElement.dataset.theme = 'dark'")
    opened.wait_for_timeout(100)
    assert second.screenshot() != shot
