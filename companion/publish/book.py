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
from companion.analysis.words import duration
from companion.publish import freshness, stage
from companion.publish.artefacts import rerun_command
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

    Attributes:
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
        """Return what tells the notebook that it makes this page.

        Args:
            artefacts: the folder for what it shows.
            changes: parameters that have other values than the page's.
        """
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
    """Build the book in `root/build`; what is fresh is not made again.

    Args:
        root: the repository; nothing outside its `build` is written.
        notebooks: the notebooks to run, begun in this order.
        context: values and functions for the pages.
        environment: variables set for the notebooks.
        jobs: notebooks to run at once.
        say: is told what is done, a line at a time.

    Returns:
        The path of the page to open.

    Raises:
        PublishError: a notebook, a page or the site cannot be built; the previous site stays.
    """
    folder = root.resolve() / "build"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            finished = folder / "pages"
            due = {page.title: _key_if_due(root, page, finished, say) for page in notebooks}
            pages = [page for page in notebooks if due[page.title]]
            began = time.monotonic()
            _run_all(root, pages, due, finished, environment or {}, jobs)
            if pages:
                say(f"notebooks: took {duration(time.monotonic() - began)}")
            executed = {page.title: finished / page.title for page in notebooks}
            return _site(stage.mirror(root, executed, context), folder, say)
    except Timeout as error:
        raise PublishError(f"{folder}: another build is running here; wait for it") from error


def _key_if_due(
    root: Path, page: Page, finished: Path, say: Callable[[str], None]
) -> dict[str, str]:
    """Return the key under which a notebook is to run; nothing if it is fresh."""
    key = freshness.key(root / page.path, page.parameters, _PACKAGES, page.inputs)
    try:
        stamp = dict(load(finished / page.title / "key.json", from_json, "stamp"))
    except (ConfigError, TypeError, ValueError):
        stamp = {}
    changed = [name for name, digest in key.items() if stamp.get(name) != digest]
    if not changed:
        return {}
    reason = f"changed: {', '.join(changed)}" if stamp else "not run before"
    say(f"{page.path}: to run ({reason})")
    return key


def _run_all(
    root: Path,
    pages: Sequence[Page],
    keys: Mapping[str, Mapping[str, str]],
    finished: Path,
    environment: Mapping[str, str],
    jobs: int,
) -> None:
    """Run notebooks, several at once; each goes to `finished` when it is complete."""
    if not pages:
        return
    finished.mkdir(exist_ok=True)
    # Kernels that each take every core wait for one another, ten times as long.
    threads = os.getenv("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads, **environment}
    with (
        tempfile.TemporaryDirectory(dir=finished, prefix=".") as folder,
        ThreadPoolExecutor(jobs) as pool,
    ):

        def run(page: Page) -> None:
            new = Path(folder, page.title, "new")
            output = new / "notebook.ipynb"
            variables = {**environment, **page.environment(new / "artefacts", {})}
            run_notebook(root / page.path, output, page.parameters, root, variables)
            (new / "key.json").write_text(json.dumps(keys[page.title], indent=1), encoding="utf-8")
            _replace(new, finished / page.title)

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
    # The reference shows what docstrings say.
    code = {str(path): path.read_bytes() for folder in _PACKAGES for path in folder.rglob("*.py")}
    sources = sorted({**files, **code}.items())
    contents = {name: freshness.digest(content) for name, content in sources}
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

    Args:
        source: the folder of the mirror.
        output: the folder in which `_build` is made.
        log: the file for all that Jupyter Book prints.
        builder: its name.

    Raises:
        PublishError: there was a warning.
    """
    command = [sys.executable, "-c", _JUPYTER_BOOK, "build", str(source)]
    command += ["--config", str(source / "_config.yml"), "--toc", str(source / "book/_toc.yml")]
    command += ["--path-output", str(output), "--builder", builder, "-W", "-n", "--keep-going"]
    done = subprocess.run(
        command, encoding="utf-8", errors="replace", stdout=PIPE, stderr=STDOUT, check=False
    )
    printed = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)  # Jupyter Book forces colours
    log.write_text(printed, encoding="utf-8")
    if done.returncode:
        lines = printed.splitlines()
        warnings = [line for line in lines if "WARNING" in line or "ERROR" in line]
        reasons = "\n".join(dict.fromkeys(warnings or lines[-20:]))
        raise PublishError(f"the site was not built (all of its output: {log}):\n{reasons}")
