"""A page's command, typed where the reader happens to be."""

from __future__ import annotations

import re
import shlex
import shutil
from html import unescape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from companion.publish.book import Page, build
from companion.publish.results import checkout, results_folder
from lthlib.cli.command import app
from tests.companion.publish.toys import REPOSITORY


@pytest.fixture
def somewhere(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder inside a small repository that has a page of a known name."""
    shutil.copy(toy / "notebooks" / "curve.ipynb", toy / "notebooks" / "quickstart.ipynb")
    folder = toy / "book" / "images"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_commands_of_a_page_make_its_files_again(toy: Path, somewhere: Path) -> None:
    pages = [Page("curve"), Page("quickstart", {"seeds": [4]})]
    with (toy / "book" / "page.md").open("a") as page:
        page.write('\n[= artefact("quickstart/curve") =]\n\n[= artefact("quickstart/means") =]\n')
    index = build(toy, notebooks=pages, context={"best": 97.0}, say=lambda _: None)
    text = unescape(re.sub(r"<[^>]*>", "", (index.parent / "book" / "page.html").read_text()))
    commands = re.findall(r"^lth (rerun quickstart.*)$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in set(commands):
        done = CliRunner().invoke(app, [*shlex.split(command), "--set", "seeds=[4]"])
        assert done.exit_code == 0, done.exception
    again, made = somewhere / "quickstart-again", toy / "build" / "pages" / "quickstart"
    names = ["curve.csv", "curve.md", "curve.svg", "means.csv", "means.md", "quickstart.ipynb"]
    assert sorted(path.name for path in again.iterdir()) == names
    for name in ("curve.svg", "curve.csv", "means.csv"):
        assert (again / name).read_bytes() == (made / "artefacts" / name).read_bytes()
    assert "lth rerun quickstart --set 'seeds=[4]'" in (again / "curve.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("quikstart", "no page is called 'quikstart' (did you mean quickstart?); there are: "),
        ("quickstart --set seeds", "--set 'seeds'; expected NAME=VALUE such as seeds=3"),
        ("quickstart --set seeds=[3", "--set 'seeds=[3': "),
        ("quickstart --set seeds=no --set artefacts=3", "parameter 'seeds' is 'no'; expected"),
        ("quickstart --set seedz=3", "unknown parameter 'seedz' (did you mean 'seeds'?)"),
    ],
)
def test_what_makes_no_sense_is_refused(somewhere: Path, words: str, message: str) -> None:
    done = CliRunner().invoke(app, ["rerun", *shlex.split(words)])
    assert message in str(done.exception)
    assert not list(somewhere.rglob("*.svg"))


def test_the_record_is_found_from_anywhere(
    somewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = somewhere.parents[1]
    assert checkout() == toy
    assert results_folder() == toy / "results"
    monkeypatch.chdir(tmp_path)
    assert results_folder() == REPOSITORY / "results"
    assert results_folder("mine") == Path("mine")
    (tmp_path / "results").mkdir()
    assert results_folder() == Path("results")
