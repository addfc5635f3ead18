"""The mirror that Jupyter Book builds from: pages filled in, notebooks, artefacts, assets."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from companion.markdown import Markdown
from companion.publish.artefacts import TAG
from companion.publish.notebooks import read_notebook, source, tags
from companion.publish.render import render
from lthlib.errors import PublishError

Mirror = dict[str, bytes]
_CONTENTS = "book/_toc.yml"
_ENTRY = re.compile(rb"^ *- file: (notebooks/\S+)(\n|\Z)", re.MULTILINE)
_QUOTED = re.compile(rb"^```\{literalinclude\} /(\S+\.py)$", re.MULTILINE)


def mirror(root: Path, executed: Mapping[str, Path], context: Mapping[str, Any]) -> Mirror:
    """Return what the site is built from: path inside the mirror -> content.

    Args:
        root: the repository, with `_config.yml`, `book/` and `results/`.
        executed: notebook name -> folder with its `notebook.ipynb` and `artefacts/`.
        context: values and functions for the pages; `artefact("NOTEBOOK/NAME")` is added to them.

    Raises:
        PublishError: a page cannot be filled in.
    """
    files = {"_config.yml": (root / "_config.yml").read_bytes(), **_assets()}
    for name, folder in executed.items():
        files[f"notebooks/{name}.ipynb"] = publishable(folder)
        for path in _files(folder / "artefacts"):
            files[f"artefacts/{name}/{path.name}"] = path.read_bytes()
    for path in _files(root / "results"):
        if path.suffix in (".json", ".jsonl"):  # no page that Sphinx would read
            files[path.relative_to(root).as_posix()] = path.read_bytes()
    complete = {**context, "artefact": _including(files)}
    for path in _files(root / "book"):
        page, content = path.relative_to(root).as_posix(), path.read_bytes()
        if path.suffix == ".md":
            content = render(page, content.decode(), complete).encode()
            quoted = {name.decode() for name in _QUOTED.findall(content)}
            files |= {name: (root / name).read_bytes() for name in quoted if (root / name).exists()}
        files[page] = content
    return files | {_CONTENTS: contents(root, files)}


def contents(root: Path, files: Mirror) -> bytes:
    """Return the table of contents without those notebooks of the repository that were not run.

    A study may have no record yet. A name that is nobody's stays, for the build to fail on.

    Args:
        root: the repository.
        files: the mirror; its table of contents has an entry a line.
    """

    def if_run(entry: re.Match[bytes]) -> bytes:
        path = f"{entry[1].decode()}.ipynb"
        return b"" if path not in files and (root / path).exists() else entry[0]

    return _ENTRY.sub(if_run, files[_CONTENTS])


def publishable(folder: Path) -> bytes:
    """Return an executed notebook for the site.

    Its artefacts are blocks, code that is folded away is in one piece, traces of the run are
    removed.

    Args:
        folder: with its `notebook.ipynb` and `artefacts/`.

    Raises:
        PublishError: the notebook shows an artefact without a block.
    """
    content = read_notebook(folder / "notebook.ipynb")
    content["metadata"].pop("papermill", None)
    cells: list[dict[str, Any]] = []
    for cell in content["cells"]:
        injected = "injected-parameters" in tags(cell)
        # No times, no paths.
        cell["metadata"] = {"tags": ["hide-input"] if injected else tags(cell)}
        outputs = cell.get("outputs", [])
        artefacts = dict.fromkeys(filter(None, map(_artefact, outputs)))
        if outputs:
            cell["outputs"] = [
                output
                for output in outputs
                if output.get("name") != "stderr" and not _artefact(output)
            ]
        if _folded(cell) and cells and _folded(cells[-1]) and not cells[-1]["outputs"]:
            cell["source"] = f"{source(cells.pop())}\n\n{source(cell)}"  # one bar to open for both
        cells += [cell, *(_block(folder, name) for name in artefacts)]
    return json.dumps({**content, "cells": cells}, indent=1).encode()


def write(folder: Path, files: Mirror) -> None:
    """Write a mirror to an empty folder, replacing what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _files(folder: Path) -> Iterable[Path]:
    visible = (path for path in folder.rglob("*") if not path.name.startswith("."))
    return sorted(path for path in visible if path.is_file())


def _including(files: Collection[str]) -> Callable[[str], Markdown]:
    paths = [re.fullmatch(r"artefacts/(.*)\.md", file) for file in files]
    names = [path[1] for path in paths if path]

    def artefact(name: str) -> Markdown:
        if name not in names:
            raise PublishError(f"unknown artefact {name!r}; known: {', '.join(names) or 'none'}")
        return Markdown(f"```{{include}} /artefacts/{name}.md\n```")

    return artefact


def _artefact(output: Mapping[str, Any]) -> str | None:
    return output.get("metadata", {}).get(TAG)


def _folded(cell: Mapping[str, Any]) -> bool:
    return "hide-input" in tags(cell)


def _block(folder: Path, name: str) -> dict[str, Any]:
    block = folder / "artefacts" / f"{name}.md"
    if not block.exists():
        raise PublishError(f"{folder}: shows {name!r}, but there is no {name}.md beside it")
    cell = {"cell_type": "markdown", "id": f"artefact-{name}", "metadata": {}}
    return {**cell, "source": block.read_text("utf-8")}


def _assets() -> Mirror:
    """Jupyter Book loads all of `_static` on every page."""
    assets = resources.files("companion.publish") / "assets"
    return {f"_static/{file.name}": file.read_bytes() for file in assets.iterdir()}
