"""The site that the tests look at, and the browser that they look with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from companion.publish.printed import find_browser
from lthlib.errors import PublishError
from tests.companion.publish.toys import REPOSITORY


def is_fresh(site: Path) -> bool:
    """Whether a site is there that is younger than all that it is made from."""
    sources = ("_config.yml", "book/*", "lthlib/**/*.py", "companion/**/*.py", "companion/**/*.csv")
    sources += ("companion/publish/assets/*", "notebooks/*", "results/**/*")
    index = site / "index.html"
    times = (path.stat().st_mtime for one in sources for path in REPOSITORY.glob(one))
    return index.exists() and index.stat().st_mtime > max(times)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site: of `make book` if nothing was changed since, else made here, once for
    all processes of a test run."""
    if is_fresh(built := REPOSITORY / "build" / "_build" / "html"):
        return built
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "site"
    html = folder / "build" / "_build" / "html"
    with FileLock(folder.with_suffix(".lock")):
        if not html.exists():
            folder.mkdir()
            command = [sys.executable, "-m", "tests.site.make", str(folder)]
            variables = {**os.environ, "MPLBACKEND": "agg", "IPYTHONDIR": str(folder)}
            made = subprocess.run(
                command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False
            )
            assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    return html


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, the one of this machine."""
    try:
        found = find_browser()
    except PublishError as error:
        pytest.skip(str(error))
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()
