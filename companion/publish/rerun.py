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

_PATHS, _VARIABLES = ("results", "store", "data"), ("LTHLIB_STORE", "LTHLIB_DATA")


def rerun(name: str, changes: Mapping[str, Any], folder: Path) -> list[Path]:
    """Run the notebook of a page again; return it, executed, and the files of what it shows.

    It works in the checkout, so that it finds what is published and stored there.

    Args:
        name: of the page.
        changes: parameters of the notebook with other values; paths are taken from here.
        folder: where all goes.

    Raises:
        ConfigError: there is no such page, or no checkout.
        PublishError: the notebook cannot be run, or refuses a parameter.
    """
    root = checkout()
    if not (root / "notebooks").is_dir():
        raise ConfigError(f"no checkout of lthlib holds {Path.cwd()}: go into one and try again")
    every = pages(root / "results", EMBEDDED, [])
    known = {page.title: page for page in every}
    if name not in known:
        close = get_close_matches(name, known, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(f"no page is called {name!r}{meant}; there are: {', '.join(known)}")
    page, here = known[name], folder.absolute()
    given = {
        key: os.path.abspath(value) if _is_path(key, value) else value
        for key, value in changes.items()
    }
    places = {key: os.path.abspath(os.environ[key]) for key in _VARIABLES if os.getenv(key)}
    output, parameters = here / f"{name}.ipynb", {**page.parameters, **given}
    environment = {**places, **page.environment(here, changes)}
    run_notebook(root / page.path, output, parameters, root, environment, progress=True)
    return [output, *sorted(here.glob("*.svg")), *sorted(here.glob("*.csv"))]


def _is_path(name: str, value: Any) -> bool:
    return isinstance(value, str) and (name in _PATHS or value.endswith(".yaml"))
