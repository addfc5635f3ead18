"""The whole book in about a minute, from the published record: little is trained for it.

Notebooks run one after the other in this process. Those that train on every build do so for a few
steps; all others show what is published.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from companion.publish import book, site
from companion.publish.book import Page
from companion.publish.notebooks import code_cells, read_notebook, source, tags
from companion.published import load_study
from companion.studies import ticket_study
from lthlib.recipes import Recipe
from tests.companion.publish.toys import REPOSITORY
from tests.conftest import write_tiny

ROOT = Path(sys.argv[1])
TINY = {"recipe": str(write_tiny(ROOT)), "store": str(ROOT / "tiny"), "device": "cpu"}
TRAINING: dict[str, dict[str, Any]] = {
    "quickstart": {"length": "20it", "device": "cpu"},
    "inside": {**TINY, "density": 0.5, "seeds": 2, "jobs": 1},
    "bilevel": {**TINY, "quadratics": 1, "sizes": [10], "images": 64, "seeds": 1}
    | {"solver_steps": 10, "network_gammas": [1.0]},
}


def run_here(
    path: Path,
    output: Path,
    parameters: Mapping[str, Any],
    cwd: Path,
    environment: Mapping[str, str],
) -> None:
    """Run a notebook in this process, where everything is imported already."""
    os.environ |= environment
    shell = InteractiveShell.instance()
    shell.reset()
    shell.push({"__spec__": None})  # of `__main__`, which processes that are started from here read
    notebook = read_notebook(path)
    for cell in code_cells(notebook):
        with capture_output() as told:
            shell.run_cell(source(cell), store_history=True).raise_error()
        cell["execution_count"] = shell.execution_count
        cell["outputs"] = [
            {"output_type": "display_data", "data": one.data, "metadata": one.metadata}
            for one in told.outputs
        ]
        if "parameters" in tags(cell):
            shell.push(dict(parameters))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(notebook), encoding="utf-8")


def build(root: Path, *, notebooks: list[Page], **given: Any) -> Path:
    """Build with notebooks that take seconds."""
    small = [
        replace(
            page,
            parameters={**page.parameters, **TRAINING.get(page.notebook, {"source": "results"})},
        )
        for page in notebooks
    ]
    return book.build(root, notebooks=small, **given)


def published(recipe: Recipe, **given: Any) -> SimpleNamespace:
    """The study as it is published, in place of one that would be computed."""
    study = ticket_study(recipe, **given)
    runs = {entry.config.id for entry in study.entries}
    records = [one for one in load_study(ROOT / "results", study.name) if one["run"] in runs]
    return SimpleNamespace(
        name=study.name, entries=study.entries, missing=lambda _: [], records=lambda _: records
    )


if __name__ == "__main__":
    for name in ("_config.yml", "book", "companion", "lthlib", "notebooks", "results", "tests"):
        (ROOT / name).symlink_to(REPOSITORY / name)
    book.run_notebook = run_here
    site.ticket_study, site.build = published, build
    site.build_site(ROOT, ROOT / "store", jobs=1)
