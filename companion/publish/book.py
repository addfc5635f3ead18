"""Build the book inside build/: run notebooks that are not fresh, stage, make the site."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

import companion
import lthlib
from companion.publish import freshness, stage
from companion.publish.artefacts import duration, rerun_command
from companion.publish.notebooks import run_notebook
from lthlib.errors import ConfigError, PublishError
from lthlib.files import from_json, load

_PACKAGES = [Path(package.__path__[0]) for package in (lthlib, companion)]
OFFLINE = "winning-tickets.zip"  # the site in the site, to take along
_TOOLS = ("jupyter-book", "sphinx", "sphinx-book-theme", "myst-nb")
_JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"  # it has no `python -m`


@dataclass(frozen=True)
class Page:
    """A notebook of the book.

    Args:
        notebook: its name: it is `notebooks/NAME.ipynb`.
        parameters: values for some of its parameters.
        inputs: name -> digest of what it reads (results files, records of the store).
        name: of the page and of the folder of its artefacts, default the notebook's; two pages may
            run one notebook.
    """

    notebook: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    @property
    def title(self) -> str:
        """The page's name."""
        return self.name or self.notebook

    @property
    def path(self) -> Path:
        """The notebook's path, relative to the repository."""
        return Path("notebooks", f"{self.notebook}.ipynb")

    def environment(self, artefacts: Path, changes: Mapping[str, Any]) -> dict[str, str]:
        """Return what tells the notebook that it makes this page, some parameters changed."""
        return {
            "LTHLIB_ARTEFACTS": str(artefacts),
            "LTHLIB_PAGE": self.title,
            "LTHLIB_COMMAND": rerun_command(self.title, changes),
        }


def build(
    root: Path,
    *,
    notebooks: Sequence[Page],
    context: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> Path:
    """Build the book in `root/build` and return the page to open; what is fresh is not made again.

    Args:
        root: the repository; nothing outside its `build` is written.
        notebooks: the notebooks to run, begun in this order.
        context: values and functions for the pages.
        environment: variables set for the notebooks.
        jobs: notebooks to run at once.
        say: is told what is done, a line at a time.

    Raises:
        PublishError: a notebook, a page or the site cannot be built; the previous site stays.
    """
    folder = root.resolve() / "build"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            place = folder / "pages"
            due = {page.title: _due(root, page, place, say) for page in notebooks}
            pages = [page for page in notebooks if due[page.title]]
            began = time.monotonic()
            _run_all(root, pages, due, place, environment or {}, jobs)
            if pages:
                say(f"notebooks: took {duration(time.monotonic() - began)}")
            executed = {page.title: place / page.title for page in notebooks}
            return _site(stage.mirror(root, executed, context), folder, say)
    except Timeout as error:
        raise PublishError(f"{folder}: another build is running here; wait for it") from error


def _due(root: Path, page: Page, place: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Return the key under which a notebook is to run; nothing if it is fresh."""
    key = freshness.key(root / page.path, page.parameters, _PACKAGES, page.inputs)
    try:
        found = dict(load(place / page.title / "key.json", from_json, "stamp"))
    except (ConfigError, TypeError, ValueError):
        found = {}
    changed = [part for part, digest in key.items() if found.get(part) != digest]
    if not changed:
        return {}
    why = f"changed: {', '.join(changed)}" if found else "not run before"
    say(f"{page.path}: to run ({why})")
    return key


def _run_all(
    root: Path,
    pages: Sequence[Page],
    keys: Mapping[str, Mapping[str, str]],
    place: Path,
    environment: Mapping[str, str],
    jobs: int,
) -> None:
    """Run notebooks, several at once; each takes its place when it is complete."""
    if not pages:
        return
    place.mkdir(exist_ok=True)
    # Kernels that each take every core wait for one another, ten times as long.
    threads = os.getenv("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads, **environment}
    with (
        tempfile.TemporaryDirectory(dir=place, prefix=".") as folder,
        ThreadPoolExecutor(jobs) as pool,
    ):

        def run(page: Page) -> None:
            new = Path(folder, page.title, "new")
            named = page.environment(new / "artefacts", {})
            output = new / "notebook.ipynb"
            run_notebook(root / page.path, output, page.parameters, root, {**environment, **named})
            (new / "key.json").write_text(json.dumps(keys[page.title], indent=1), encoding="utf-8")
            _replace(new, place / page.title)

        running = [pool.submit(run, page) for page in pages]
        # A terminal has a bar with the time left.
        bar = tqdm(
            as_completed(running), "notebooks", len(running), dynamic_ncols=True, disable=None
        )
        try:
            for done in bar:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _replace(new: Path, folder: Path) -> None:
    if folder.exists():
        os.replace(folder, new.with_name("old"))
    os.replace(new, folder)


def _site(files: stage.Mirror, build_dir: Path, say: Callable[[str], None]) -> Path:
    """Build the site anew unless the mirror is what it was; a warning of Sphinx is a failure."""
    index = build_dir / "_build" / "html" / "index.html"
    stamp = build_dir / "_build" / "mirror.json"
    code = {str(path): path.read_bytes() for one in _PACKAGES for path in one.rglob("*.py")}
    every = sorted({**files, **code}.items())  # the reference shows what docstrings say
    contents = {name: freshness.digest(content) for name, content in every}
    made_from = json.dumps({**contents, **{tool: metadata.version(tool) for tool in _TOOLS}})
    if index.exists() and stamp.exists() and stamp.read_text("utf-8") == made_from:
        say("the book is up to date")
        return index
    say("building the site")
    stage.write(build_dir / "src", files)
    with tempfile.TemporaryDirectory(dir=build_dir, prefix=".site-") as unfinished:
        jupyter_book(build_dir / "src", Path(unfinished), build_dir / "book.log")
        new = Path(unfinished, "_build")
        packed = shutil.make_archive(str(Path(unfinished, "packed")), "zip", new, "html")
        os.replace(packed, new / "html" / OFFLINE)
        (new / stamp.name).write_text(made_from, encoding="utf-8")
        _replace(new, build_dir / "_build")
    return index


def jupyter_book(source: Path, output: Path, log: Path, builder: str = "html") -> None:
    """Build a staged mirror with one of Jupyter Book's builders.

    Raises:
        PublishError: there was a warning.
    """
    command = [sys.executable, "-c", _JUPYTER_BOOK, "build", str(source)]
    command += ["--config", str(source / "_config.yml"), "--toc", str(source / "book/_toc.yml")]
    command += ["--path-output", str(output), "--builder", builder, "-W", "-n", "--keep-going"]
    done = subprocess.run(
        command, encoding="utf-8", errors="replace", stdout=PIPE, stderr=STDOUT, check=False
    )
    told = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)  # Jupyter Book forces colours
    log.write_text(told, encoding="utf-8")
    if done.returncode:
        lines = [line for line in told.splitlines() if "WARNING" in line or "ERROR" in line]
        shown = "\n".join(dict.fromkeys(lines or told.splitlines()[-20:]))
        raise PublishError(f"the site was not built (all of its output: {log}):\n{shown}")
