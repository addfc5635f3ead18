"""Checking a notebook, and running it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from companion.publish.notebooks import check_notebook, check_parameters, fits, run_notebook
from lthlib.errors import PublishError
from tests.companion.publish.toys import REPOSITORY, notebook, write_notebook

SIMPLE = (
    'methods = ["imp"]\nrate: float = 0.1\nlimit: int | None = None',
    "print(methods, rate, limit)",
)


@pytest.fixture
def simple(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "simple.ipynb", *SIMPLE)


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("notebooks/*.ipynb")), ids=lambda p: p.stem)
def test_the_notebooks_of_the_book(path: Path) -> None:
    assert check_notebook(path)


def test_parameters_are_found_with_default_and_type(simple: Path) -> None:
    found = check_notebook(simple)
    assert {name: one.default for name, one in found.items()} == {
        "methods": ["imp"],
        "rate": 0.1,
        "limit": None,
    }
    assert found["methods"].kind == list[str]
    assert found["rate"].kind is float
    assert found["limit"].kind == int | None


def test_a_parameter_may_be_read_from_what_declare_returned(tmp_path: Path) -> None:
    cells = "seed = 0", "P = declare(globals(), seed=whole())", "print(P.seed)"
    assert list(check_notebook(write_notebook(tmp_path / "a.ipynb", *cells))) == ["seed"]


@pytest.mark.parametrize(
    ("cells", "tagged", "message"),
    [
        (("a = 1", "a"), (), "must be tagged 'parameters'; tagged are: none"),
        (("a = 1", "a"), (0, 1), r"tagged are: \[1, 2\]"),
        (("import os", "a = 1", "a"), (1,), r"tagged are: \[2\]"),
        (("a = 1", "b = 2"), (0,), "no cell reads parameter 'a'"),
        (("a = 1", "P = declare(globals(), a=whole())"), (0,), "no cell reads parameter 'a'"),
        (("a = 1", "a = 2"), (0,), "no cell reads parameter 'a'"),
        (("a = 1 + 1", "a"), (0,), "line 1: 'a' is not given a literal"),
        (("import os", "os"), (0,), "line 1: expected `name = literal`"),
        (("a = b = 1", "a, b"), (0,), "one name a line"),
        (("a: int", "a"), (0,), "one name a line"),
        (("a = None", "a"), (0,), "needs an annotation"),
        (("a: int = 0.5", "a"), (0,), "'a' is 0.5, not int"),
        (("a: set[int] = 1", "a"), (0,), r"cannot read the annotation 'set\[int\]'"),
        (("a = 1", "%time a"), (0,), "code cell 2, line 1: not plain Python"),
    ],
)
def test_malformed_notebooks_are_refused(tmp_path, cells, tagged, message) -> None:
    with pytest.raises(PublishError, match=message):
        check_notebook(write_notebook(tmp_path / "a.ipynb", *cells, tagged=tagged))


def test_outputs_are_refused(tmp_path: Path) -> None:
    content = notebook("a = 1", "a")
    content["cells"][1]["execution_count"] = 3
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(content))
    with pytest.raises(PublishError, match="code cell 2: holds outputs"):
        check_notebook(path)


@pytest.mark.parametrize("content", ["", "[]", '{"nbformat": 3}', "[" * 9999])
def test_what_is_no_notebook_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(content)
    with pytest.raises(PublishError, match=r"cannot read notebook|expected a notebook"):
        check_notebook(path)


@pytest.mark.parametrize(
    "cells", [None, 3, [[]], [{"cell_type": "code", "source": "", "metadata": {"tags": None}}]]
)
def test_cells_that_are_none_are_refused(tmp_path: Path, cells: object) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "cells": cells}))
    with pytest.raises(PublishError, match="its cells are not those of a notebook"):
        check_notebook(path)


def test_given_parameters_are_checked(simple: Path) -> None:
    given = {"methods": '["cs", "bip"]', "rate": 1, "limit": 5}
    assert check_parameters(simple, given) == {"methods": ["cs", "bip"], "rate": 1, "limit": 5}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metods": ["cs"]}, r"unknown parameter 'metods' \(did you mean 'methods'\?\); it takes:"),
        ({"methods": "cs"}, r"'methods' is 'cs'; expected list\[str\]"),
        ({"methods": [1]}, r"'methods' is \[1\]"),
        ({"rate": "fast"}, "'rate' is 'fast'; expected float"),
        ({"rate": True}, "'rate' is True; expected float"),
        ({"limit": 0.5}, r"'limit' is 0.5; expected int \| None"),
    ],
)
def test_wrong_parameters_are_refused(simple: Path, given: dict, message: str) -> None:
    with pytest.raises(PublishError, match=message):
        check_parameters(simple, given)


def test_a_bool_is_no_number() -> None:
    assert fits(True, bool)
    assert not fits(True, int)
    assert not fits([True], list[int])


def test_running_a_notebook_in_this_interpreter(tmp_path: Path) -> None:
    cells = (
        "rate = 0.1\nnames = ['a']",
        "import json, os, sys, lthlib\nfrom pathlib import Path",
        "told = [sys.executable, lthlib.__file__, rate, names, os.environ['COLOUR']]\n"
        "Path('told.json').write_text(json.dumps(told))",
    )
    path = write_notebook(tmp_path / "in" / "a.ipynb", *cells)
    work = tmp_path / "work"
    work.mkdir()
    output = tmp_path / "out" / "a.ipynb"
    given = check_parameters(path, {"rate": 1e-05, "names": '["b"]'})
    run_notebook(path, output, given, work, {"COLOUR": "red"})
    library = str(REPOSITORY / "lthlib" / "__init__.py")
    told = json.loads((work / "told.json").read_text())
    assert told == [sys.executable, library, 1e-05, ["b"], "red"]
    executed = json.loads(output.read_text())
    assert executed["metadata"]["kernelspec"]["name"] == "python3"
    assert [one.name for one in output.parent.iterdir()] == ["a.ipynb"]


def test_a_failure_names_the_cell_and_keeps_the_last_output(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "a.ipynb", "rate = 0.1", "rate", "{}['x']", "print(1)")
    output = tmp_path / "out.ipynb"
    output.write_text("the last good one")
    with pytest.raises(PublishError, match=r"a\.ipynb, code cell 3: KeyError: 'x'"):
        run_notebook(path, output, {"rate": 0.2}, tmp_path)
    assert output.read_text() == "the last good one"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.ipynb", "out.ipynb"]


def test_a_kernel_that_dies_is_a_failure(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "a.ipynb", "a = 1", "import os\nos._exit(a)")
    with pytest.raises(PublishError, match=r"a\.ipynb: was interrupted before its last cell"):
        run_notebook(path, tmp_path / "out.ipynb", {}, tmp_path)
    assert not (tmp_path / "out.ipynb").exists()
