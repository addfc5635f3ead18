"""The mirror that Jupyter Book builds from: pages filled in, notebooks, artefacts, assets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import yaml

from companion.markdown import Markdown
from companion.publish.artefacts import TAG
from companion.publish.notebooks import read_notebook
from companion.publish.render import render
from lthlib.errors import PublishError

Mirror = dict[str, bytes]
_MATHJAX = "static/mathjax/tex-svg-full.js"  # one file: no fonts, no extensions to fetch


def mirror(root: Path, executed: Mapping[str, Path], context: Mapping[str, Any]) -> Mirror:
    """Return what the site is built from: path inside the mirror -> content.

    Args:
        root: the repository, with `_config.yml`, `book/` and `results/`.
        executed: notebook name -> folder with its `notebook.ipynb` and `artefacts/`.
        context: values and functions for the pages; `artefact("NOTEBOOK/NAME")` is added to them.

    Raises:
        PublishError: a page cannot be filled in.
    """
    files: Mirror = {"_config.yml": (root / "_config.yml").read_bytes()}
    for name, folder in executed.items():
        blocks = {path.stem: path.read_text("utf-8") for path in folder.glob("artefacts/*.md")}
        files[f"notebooks/{name}.ipynb"] = publishable(folder / "notebook.ipynb", blocks)
        for path in _files(folder / "artefacts"):
            files[f"artefacts/{name}/{path.name}"] = path.read_bytes()
    for path in _files(root / "results"):
        if path.suffix in (".json", ".jsonl"):  # no page that Sphinx would read
            files[path.relative_to(root).as_posix()] = path.read_bytes()
    complete = {**context, "artefact": _including(files)}
    for path in _files(root / "book"):
        page = path.relative_to(root).as_posix()
        content = path.read_bytes()
        filled = path.suffix == ".md"
        files[page] = render(page, content.decode(), complete).encode() if filled else content
    return files | _contents(root, files) | _assets()


def _contents(root: Path, files: Mirror) -> Mirror:
    """The table of contents without those notebooks of the repository that were not run: a study
    may have no record yet."""
    page = "book/_toc.yml"
    if page not in files:
        return {}

    def kept(entry: Mapping[str, Any]) -> bool:
        path = f"{entry.get('file', '')}.ipynb"
        return path in files or not (path.startswith("notebooks/") and (root / path).exists())

    def without(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: without(value) for name, value in node.items()}
        if isinstance(node, list):
            return [without(one) for one in node if not isinstance(one, dict) or kept(one)]
        return node

    contents = yaml.safe_load(files[page])
    return {page: yaml.safe_dump(without(contents), sort_keys=False).encode()}


def publishable(notebook: Path, blocks: Mapping[str, str]) -> bytes:
    """Return an executed notebook for the site: artefacts as blocks, traces of the run removed.

    Raises:
        PublishError: the notebook shows an artefact without a block.
    """
    content = read_notebook(notebook)
    content["metadata"].pop("papermill", None)
    cells = []
    for cell in content["cells"]:
        cell["metadata"] = {"tags": cell["metadata"].get("tags", [])}  # no times, no paths
        cells.append(cell)
        outputs = cell.get("outputs", [])
        shown = dict.fromkeys(filter(None, map(_artefact, outputs)))
        cells += [_markdown_cell(notebook, name, blocks) for name in shown]
        if outputs:
            cell["outputs"] = [one for one in outputs if not _artefact(one) and not _stderr(one)]
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


def _including(files: Mirror) -> Callable[[str], Markdown]:
    prefix, suffix = "artefacts/", ".md"
    known = [name.removeprefix(prefix).removesuffix(suffix) for name in files]
    known = [name for name in known if f"{prefix}{name}{suffix}" in files]

    def artefact(name: str) -> Markdown:
        if name not in known:
            raise PublishError(f"unknown artefact {name!r}; known: {', '.join(known) or 'none'}")
        return Markdown(f"```{{include}} /{prefix}{name}{suffix}\n```")

    return artefact


def _artefact(output: Mapping[str, Any]) -> str | None:
    return output.get("metadata", {}).get(TAG)


def _stderr(output: Mapping[str, Any]) -> bool:
    return output.get("name") == "stderr"


def _markdown_cell(notebook: Path, name: str, blocks: Mapping[str, str]) -> dict[str, Any]:
    if name not in blocks:
        raise PublishError(f"{notebook}: shows {name!r}, but there is no {name}.md beside it")
    return {
        "cell_type": "markdown",
        "id": f"artefact-{name}",
        "metadata": {},
        "source": blocks[name],
    }


def _assets() -> Mirror:
    """Jupyter Book loads all of `_static` on every page: style and script, but not MathJax."""
    assets = resources.files("companion.publish") / "assets"
    files = {f"_static/{one.name}": one.read_bytes() for one in assets.iterdir()}
    for path in metadata.files("sphinx-mathjax-offline") or []:
        if path.as_posix().endswith(_MATHJAX):
            files["_extra/mathjax/tex-svg-full.js"] = path.read_binary()
            return files
    raise PublishError("MathJax is missing: install lthlib[book] (package sphinx-mathjax-offline)")
