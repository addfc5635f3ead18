"""The README and the pages: the Python runs, paths exist, no result is typed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.pycode import ModuleAnalyzer

from companion.evidence.claims import CLAIMS
from companion.publish.book import Page
from companion.publish.site import is_shown
from companion.publish.source import quoting
from lthlib.data import SUPPORTED
from lthlib.methods import METHODS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.DOTALL | re.MULTILINE)
TEMPLATE = re.compile(r"\[=.*?=\]|\[%.*?%\]|\[##.*?##\]", re.DOTALL)
TYPED_RESULT = re.compile(r"\d+\.\d+ ?(?:\\?%|percent)|\d ± \d")
FOLDERS = ("book", "lthlib", "companion", "notebooks", "results", "tests", "benchmarks")
MADE_BY_READERS = {"results/", "notebooks/NAME.ipynb"}


def prose(page: Path) -> str:
    return TEMPLATE.sub("", CODE.sub("", page.read_text(encoding="utf-8")))


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found, retrained = ran.stdout.splitlines()
    assert "density 0.1000" in found
    assert (tmp_path / "ticket.safetensors").stat().st_size > 0
    density, accuracy = map(float, retrained.split())
    assert density == pytest.approx(0.1, abs=1e-3)
    assert accuracy > 85


@pytest.mark.parametrize(
    ("sentence", "methods"),
    [
        (r"The methods are (.*?)\.", METHODS.keys() - {"retrain"}),
        (
            r"([^.]*) also prune whole filters",
            {name for name, method in METHODS.items() if method.takes("structure")},
        ),
    ],
)
def test_the_readme_names_every_method(sentence: str, methods: set[str]) -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    (named,) = re.findall(sentence, readme)
    assert set(re.findall(r"`(\w+)`", named)) == methods


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", CODE.sub("", page.read_text(encoding="utf-8")))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_in_code_style_exist(page: Path) -> None:
    spans = re.findall(r"`([\w./-]+)`", prose(page))
    paths = [span for span in spans if span.split("/")[0] in FOLDERS and "/" in span]
    placeholders = [span for span in paths if re.search(r"\b[A-Z]+\b", span)]
    missing = [span for span in paths if not (ROOT / span).exists()]
    assert [span for span in missing if span not in {*placeholders, *MADE_BY_READERS}] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_result_is_typed(page: Path) -> None:
    assert TYPED_RESULT.findall(prose(page)) == []


def test_the_search_for_typed_results_finds_them() -> None:
    assert TYPED_RESULT.findall("BiP reaches 98.4 % here, 98.4 ± 0.2, 98.4% there") != []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_tests_and_settings_that_a_page_quotes_exist(page: Path) -> None:
    known = quoting(ROOT)
    calls = re.findall(r"(\w+)\(([^()]*)\)", " ".join(TEMPLATE.findall(page.read_text("utf-8"))))
    for function, arguments in calls:
        if function in known and not arguments.isidentifier():  # a loop's variable
            told = known[function](*ast.literal_eval(f"({arguments},)" if arguments else "()"))
            if quoted := re.match(r"```\{literalinclude\} /(\S+)\n:pyobject: (\S+)", str(told)):
                defined = ModuleAnalyzer.for_file(ROOT / quoted[1], quoted[1]).find_tags()
                assert quoted[2] in defined


def test_the_page_of_claims_has_a_place_and_a_note_for_each() -> None:
    page = (ROOT / "book/claims.md").read_text("utf-8")
    sections = " ".join(re.findall(r'^  \(".*?", \[(.*)\]\),$', page, re.MULTILINE))
    (notes,) = re.findall(r"set notes = \{\n(.*?)^\} %\]", page, re.DOTALL | re.MULTILINE)
    _, *ids = [claim.id for claim in CLAIMS]  # the gate has a section of its own
    assert sorted(re.findall(r'"(\w+)"', sections)) == sorted(ids)
    assert sorted(re.findall(r'^  "(\w+)":', notes, re.MULTILINE)) == sorted(ids)


def test_the_table_of_data_sets_has_each() -> None:
    page = (ROOT / "book/rerun.md").read_text("utf-8")
    cells = re.findall(r"^\| (`.*?) \|", page.partition("## Data sets")[2], re.MULTILINE)
    assert set(SUPPORTED) <= {named.strip("`") for cell in cells for named in cell.split(", ")}


def test_every_page_is_in_the_table_of_contents_and_every_notebook_is_shown() -> None:
    listed = re.findall(r"(?:root|file): (\S+)", (ROOT / "book/_toc.yml").read_text("utf-8"))
    pages = {f"book/{page.stem}" for page in (ROOT / "book").glob("*.md")}
    notebook_files = [*(ROOT / "notebooks").glob("*.ipynb")]
    notebooks = {f"notebooks/{path.stem}" for path in notebook_files}
    assert len(listed) == len(set(listed))
    assert pages <= set(listed) <= pages | notebooks
    assert [path.stem for path in notebook_files if not is_shown(ROOT, Page(path.stem))] == []
