"""Checking a notebook, and running it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from companion.publish.notebooks import read_notebook, run_notebook
from lthlib.errors import PublishError
from tests.companion.publish.toys import REPOSITORY, notebook, write_notebook


@pytest.mark.parametrize("content", ["", "[]", '{"nbformat": 3}', "[" * 9999])
def test_what_is_no_notebook_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(content)
    with pytest.raises(PublishError, match=r"cannot read notebook|is no notebook of format 4.5"):
        read_notebook(path)


@pytest.mark.parametrize(
    "cells", [None, 3, [[]], [{"cell_type": "code", "source": "", "metadata": {"tags": None}}]]
)
def test_cells_that_are_none_are_refused(tmp_path: Path, cells: object) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({**notebook("a = 1"), "cells": cells}))
    with pytest.raises(PublishError, match=r"is no notebook of format 4.5: 'data.cells"):
        read_notebook(path)


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
    run_notebook(path, output, {"rate": 1e-05, "names": ["b"]}, work, {"COLOUR": "red"})
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
