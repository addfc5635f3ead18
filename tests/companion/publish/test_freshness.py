"""When a notebook runs again."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from companion.publish.freshness import digests, key
from lthlib.source import imported
from tests.companion.publish.toys import REPOSITORY, write_notebook

FILES = {
    "__init__.py": "",
    "masks.py": "def top(): return 1\n",
    "training.py": "from lib.masks import top\n",
    "methods/__init__.py": "from lib.methods.imp import search\n",
    "methods/imp.py": "from lib.training import loop\ndef search():\n    from lib import errors\n",
    "errors.py": "",
    "figures/__init__.py": "",
    "figures/style.mplstyle": "lines.linewidth: 1\n",
    "cli.py": "import lib.methods.imp\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "lib"


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import numpy", []),
        ("from lib.masks import top", ["masks.py"]),
        ("from lib import masks", ["masks.py"]),
        ("import lib.training as t", ["masks.py", "training.py"]),
        (
            "from lib.methods import search",
            ["errors.py", "masks.py", "methods/__init__.py", "methods/imp.py", "training.py"],
        ),
        ("from lib import find_tickets", [name for name in FILES if name.endswith(".py")]),
        ("import lib", [name for name in FILES if name.endswith(".py")]),
    ],
)
def test_modules_used(package: Path, code: str, modules: list[str]) -> None:
    found = {path.relative_to(package).as_posix() for path in imported([package], ast.parse(code))}
    assert found == set(modules)


def changed(
    package: Path, tmp_path: Path, change, cells=("a = 1", "from lib import methods, figures\na")
):
    path = write_notebook(tmp_path / "a.ipynb", *cells)
    before = key(path, {"a": 1}, [package], {"digits.jsonl": "0"})
    given = change(path) or {}
    after = key(
        path,
        given.get("parameters", {"a": 1}),
        [package],
        given.get("inputs", {"digits.jsonl": "0"}),
    )
    return [part for part in before if before[part] != after[part]]


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("masks.py", "def top(): return 2\n", ["lthlib"]),
        ("masks.py", '"""Masks."""\ndef top():\n    "Top."\n    return 1  # one\n', []),
        ("figures/style.mplstyle", "lines.linewidth: 2\n", ["lthlib"]),
        ("cli.py", "pass\n", []),
    ],
)
def test_only_code_that_is_used_counts(package, tmp_path, file, text, expected) -> None:
    assert (
        changed(package, tmp_path, lambda _: (package / file).write_text(text) and None) == expected
    )


def test_changing_how_the_site_is_built_runs_no_notebook() -> None:
    found = imported(
        [REPOSITORY / "lthlib", REPOSITORY / "companion"],
        ast.parse("from companion.publish import artefacts, parameters"),
    )
    names = {path.relative_to(REPOSITORY).as_posix() for path in found}
    assert names == {
        "lthlib/errors.py",
        "lthlib/files.py",
        "lthlib/settings.py",
        "lthlib/texts.py",
        "companion/analysis/__init__.py",
        "companion/analysis/words.py",
        "companion/markdown.py",
        "companion/publish/__init__.py",
        "companion/publish/artefacts.py",
        "companion/publish/parameters.py",
    }


def test_source_parameters_and_inputs_count(package: Path, tmp_path: Path) -> None:
    def edit(path: Path) -> None:
        path.write_text(path.read_text().replace("a = 1", "a = 2"))

    assert changed(package, tmp_path, lambda _: None) == []
    assert changed(package, tmp_path, edit) == ["notebook"]
    assert changed(package, tmp_path, lambda _: {"parameters": {"a": 2}}) == ["parameters"]
    assert changed(package, tmp_path, lambda _: {"inputs": {"digits.jsonl": "1"}}) == ["inputs"]


def test_digests_of_files(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(b"abc")
    assert digests(tmp_path.glob("*.jsonl")) == {
        "b.jsonl": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }
