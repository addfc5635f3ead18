"""The book as one PDF, by a browser that prints all pages as one."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from subprocess import PIPE, STDOUT

from companion.publish.book import jupyter_book
from lthlib.errors import PublishError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")


def find_browser() -> str:
    """Return the path of a browser to print with.

    Raises:
        PublishError: none is found.
    """
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise PublishError(
        f"no browser prints the book: install Chromium, or put one of {', '.join(BROWSERS)} on "
        "the path"
    )


def print_book(root: Path, browser: str) -> Path:
    """Print the book that `build` staged.

    Args:
        root: the repository.
        browser: from `find_browser`.

    Returns:
        The path of the PDF.

    Raises:
        PublishError: the pages cannot be joined, or the browser fails.
    """
    folder = root.resolve() / "build"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pdf-") as unfinished:
        output = Path(unfinished)
        printed = output / "book.pdf"
        jupyter_book(folder / "src", output, folder / "book.log", "singlehtml")
        # It stands beside what it shows, as its links have it, and not in the folder of its source.
        site = output / "_build" / "singlehtml"
        page = (site / "book" / "index.html").replace(site / "all.html")
        command = [browser, "--headless", "--no-sandbox", f"--user-data-dir={output / 'browser'}"]
        command += ["--no-pdf-header-footer", f"--print-to-pdf={printed}", page.as_uri()]
        done = subprocess.run(
            command, encoding="utf-8", errors="replace", stdout=PIPE, stderr=STDOUT, check=False
        )
        if done.returncode or not printed.exists():
            raise PublishError(f"{browser} printed nothing: {done.stdout.strip()[-300:]}")
        target = folder / "winning-tickets.pdf"
        os.replace(printed, target)
    return target
