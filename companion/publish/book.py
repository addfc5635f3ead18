"""Build the book inside build/: run notebooks that are not fresh, stage, make the site."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import yaml
from filelock import FileLock, Timeout
from tqdm import tqdm

import companion
import lthlib
from companion.publish import freshness, stage
from companion.publish.notebooks import check_parameters, run_notebook
from lthlib.errors import ConfigError, PublishError
from lthlib.files import from_json, load

_PACKAGES = [Path(package.__path__[0]) for package in (lthlib, companion)]
_TOOLS = ("jupyter-book", "sphinx", "sphinx-book-theme", "myst-nb")
_JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"  # it has no `python -m`
_REDIRECT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta http-equiv="refresh" content="0; url={page}">
</head>
<body><p><a href="{page}">{title}</a></p></body>
</html>
"""


@dataclass(frozen=True)
class Page:
    """A notebook of the book.

    Args:
        notebook: its path, relative to the repository.
        parameters: values for some of its parameters.
        name: of the page and of the folder of its artefacts, default the notebook's; two pages may
            run one notebook.
        inputs: returns name -> digest of what the notebook reads (results files, the store); called
            again after the run, which may have added to the store.
    """

    notebook: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Callable[[], Mapping[str, str]] = dict
    name: str = ""

    @property
    def title(self) -> str:
        """The page's name."""
        return self.name or self.notebook.stem


def build(
    root: Path,
    *,
    notebooks: Sequence[Page],
    context_factory: Callable[[], Mapping[str, Any]],
    build_dir: Path | None = None,
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> Path:
    """Build the book and return the page to open; what is fresh is not made again.

    Args:
        root: the repository.
        notebooks: the notebooks to run, begun in this order.
        context_factory: called after they ran; returns values and functions for the pages.
        build_dir: default `root/build`; nothing outside it is written.
        jobs: notebooks to run at once.
        say: is told what is done, a line at a time.

    Raises:
        PublishError: a notebook, a page or the site cannot be built; the previous site stays.
    """
    build_dir = (build_dir or root / "build").resolve()
    build_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(build_dir / ".lock", timeout=0):
            # All of them first: a wrong name is refused before anything runs.
            for page in notebooks:
                check_parameters(root / page.notebook, page.parameters)
            executed = _refresh(root, notebooks, build_dir, jobs, say)
            files = stage.mirror(root, executed, context_factory())
            return _site(files, build_dir, say)
    except Timeout as error:
        raise PublishError(f"{build_dir}: another build is running here; wait for it") from error


def _refresh(
    root: Path,
    pages: Sequence[Page],
    build_dir: Path,
    jobs: int,
    say: Callable[[str], None],
) -> dict[str, Path]:
    """Return title -> folder of the executed notebook, run now unless its key is what it was."""
    folders = {page.title: build_dir / "pages" / page.title for page in pages}
    stale: dict[str, tuple[Page, dict[str, str]]] = {}
    for page in pages:
        wanted = _key(root, page)
        if changed := _changed(folders[page.title] / "key.json", wanted):
            say(f"{page.notebook}: to run ({changed})")
            stale[page.title] = page, wanted
    waiting = [page for page, _ in stale.values()]
    for title, unfinished in _run_all(root, waiting, build_dir, jobs):
        page, wanted = stale[title]
        key = {**wanted, "inputs": _key(root, page)["inputs"]}
        (unfinished / "key.json").write_text(json.dumps(key, indent=1), encoding="utf-8")
        _replace(unfinished, folders[title])
    return folders


def _key(root: Path, page: Page) -> dict[str, str]:
    return freshness.key(root / page.notebook, page.parameters, _PACKAGES, page.inputs())


def _run_all(
    root: Path,
    pages: Sequence[Page],
    build_dir: Path,
    jobs: int,
) -> Iterator[tuple[str, Path]]:
    """Run notebooks, several at once; yield title and folder of each when it is complete."""
    if not pages:
        return
    (build_dir / "pages").mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=build_dir / "pages", prefix=".") as folder,
        ThreadPoolExecutor(jobs) as pool,
        # A terminal has a bar with the time left.
        tqdm(desc="notebooks", total=len(pages), dynamic_ncols=True, disable=None) as bar,
    ):

        def run(page: Page) -> tuple[str, Path]:
            new = Path(folder, page.title, "new")
            where = {"LTHLIB_ARTEFACTS": str(new / "artefacts"), "LTHLIB_PAGE": page.title}
            run_notebook(root / page.notebook, new / "notebook.ipynb", page.parameters, root, where)
            return page.title, new

        try:
            for done in as_completed([pool.submit(run, page) for page in pages]):
                yield done.result()
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _changed(path: Path, wanted: Mapping[str, str]) -> str:
    """Return in words why a page is not fresh; nothing if it is."""
    try:
        found = dict(load(path, from_json, "stamp"))
    except (ConfigError, TypeError, ValueError):
        return "not run before"
    changed = [part for part, digest in wanted.items() if found.get(part) != digest]
    return f"changed: {', '.join(changed)}" if changed else ""


def _replace(new: Path, folder: Path) -> None:
    if folder.exists():
        os.replace(folder, new.with_name("old"))
    os.replace(new, folder)


def _site(files: stage.Mirror, build_dir: Path, say: Callable[[str], None]) -> Path:
    """Build the site anew unless the mirror is what it was; a warning of Sphinx is a failure."""
    index = build_dir / "_build" / "html" / "index.html"
    stamp = build_dir / "_build" / "mirror.json"
    contents = {name: freshness.digest(content) for name, content in sorted(files.items())}
    made_from = json.dumps({**contents, **{tool: metadata.version(tool) for tool in _TOOLS}})
    if index.exists() and stamp.exists() and stamp.read_text("utf-8") == made_from:
        say("the book is up to date")
        return index
    say("building the site")
    source = build_dir / "src"
    stage.write(source, files)
    with tempfile.TemporaryDirectory(dir=build_dir, prefix=".site-") as unfinished:
        new = Path(unfinished, "_build")
        _jupyter_book(source, Path(unfinished), build_dir / "book.log")
        _write_redirect(source, new / "html" / "index.html")
        (new / stamp.name).write_text(made_from, encoding="utf-8")
        _replace(new, build_dir / "_build")
    return index


def _jupyter_book(source: Path, output: Path, log: Path) -> None:
    command = [sys.executable, "-c", _JUPYTER_BOOK, "build", str(source)]
    command += ["--config", str(source / "_config.yml"), "--toc", str(source / "book/_toc.yml")]
    command += ["--path-output", str(output), "-W", "-n", "--keep-going"]
    done = subprocess.run(command, text=True, stdout=PIPE, stderr=STDOUT, check=False)
    told = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)  # Jupyter Book forces colours
    log.write_text(told, encoding="utf-8")
    if done.returncode:
        lines = [line for line in told.splitlines() if "WARNING" in line or "ERROR" in line]
        shown = "\n".join(dict.fromkeys(lines or told.splitlines()[-20:]))
        raise PublishError(f"the site was not built (all of its output: {log}):\n{shown}")


def _write_redirect(source: Path, index: Path) -> None:
    """Jupyter Book's own redirect has no title."""
    title = yaml.safe_load((source / "_config.yml").read_text("utf-8"))["title"]
    page = yaml.safe_load((source / "book/_toc.yml").read_text("utf-8"))["root"]
    index.write_text(_REDIRECT.format(title=title, page=f"{page}.html"), encoding="utf-8")
