"""A page's notebook run again, with other parameters if wanted: what `lth rerun` does."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from companion.publish.notebooks import run_notebook
from companion.publish.results import checkout
from companion.publish.site import EMBEDDED, pages
from lthlib.errors import ConfigError

# Parameters and variables that name paths.
_PARAMETERS = ("results", "store", "data")
_VARIABLES = ("LTHLIB_STORE", "LTHLIB_DATA")


def rerun(name: str, changes: Mapping[str, Any], folder: Path) -> list[Path]:
    """Run the notebook of a page again.

    It works in the checkout, so that it finds what is published and stored there.

    Args:
        name: of the page.
        changes: parameters of the notebook with other values; paths are taken from the working
            folder.
        folder: where all goes.

    Returns:
        The executed notebook, and the figures and tables that it shows, as SVG and CSV.

    Raises:
        ConfigError: there is no such page, or no checkout.
        PublishError: the notebook cannot be run, or refuses a parameter.
    """
    root = checkout()
    if not (root / "notebooks").is_dir():
        raise ConfigError(f"no checkout of lthlib holds {Path.cwd()}: go into one and try again")
    by_title = {page.title: page for page in pages(root / "results", EMBEDDED, [])}
    if name not in by_title:
        close = get_close_matches(name, by_title, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(f"no page is called {name!r}{meant}; there are: {', '.join(by_title)}")
    page = by_title[name]
    folder = folder.absolute()
    parameters = dict(page.parameters)
    for key, value in changes.items():
        parameters[key] = os.path.abspath(value) if _is_path(key, value) else value
    environment = page.environment(folder, changes)
    for key in filter(os.getenv, _VARIABLES):
        environment[key] = os.path.abspath(os.environ[key])
    output = folder / f"{name}.ipynb"
    run_notebook(root / page.path, output, parameters, root, environment, progress=True)
    return [output, *sorted(folder.glob("*.svg")), *sorted(folder.glob("*.csv"))]


def _is_path(name: str, value: Any) -> bool:
    return isinstance(value, str) and (name in _PARAMETERS or value.endswith(".yaml"))
