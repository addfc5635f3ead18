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
    """Return the browser to print with.

    Raises:
        PublishError: none is found.
    """
    found = filter(None, map(shutil.which, BROWSERS))
    if browser := next(found, None):
        return browser
    raise PublishError(
        f"no browser prints the book: install Chromium, or put one of {', '.join(BROWSERS)} on "
        "the path"
    )


def print_book(root: Path, browser: str) -> Path:
    """Print the book that `build` staged, and return the PDF.

    Raises:
        PublishError: the pages cannot be joined, or the browser fails.
    """
    folder = root.resolve() / "build"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pdf-") as unfinished:
        made = Path(unfinished)
        jupyter_book(folder / "src", made, folder / "book.log", "singlehtml")
        # It stands beside what it shows, as its links have it, and not in the folder of its source.
        site = made / "_build" / "singlehtml"
        page = (site / "book" / "index.html").replace(site / "all.html")
        command = [browser, "--headless", "--no-sandbox", f"--user-data-dir={made / 'browser'}"]
        command += ["--no-pdf-header-footer", f"--print-to-pdf={made / 'book.pdf'}", page.as_uri()]
        done = subprocess.run(
            command, encoding="utf-8", errors="replace", stdout=PIPE, stderr=STDOUT, check=False
        )
        if done.returncode or not (made / "book.pdf").exists():
            raise PublishError(f"{browser} printed nothing: {done.stdout.strip()[-300:]}")
        target = folder / "winning-tickets.pdf"
        os.replace(made / "book.pdf", target)
    return target
