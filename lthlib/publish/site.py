"""The book as `lth book` makes it: the embedded study first, then its notebooks, then the pages."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lthlib.evidence import load_results, study_names
from lthlib.figures import curve_points, ticket_table
from lthlib.publish.book import Page, build
from lthlib.publish.context import page_context
from lthlib.publish.freshness import digest, digests
from lthlib.publish.source import quoting
from lthlib.publish.study import compute
from lthlib.recipes import Study, load_recipe, recipe_names, ticket_study
from lthlib.runs import Machine, Store

EMBEDDED = "digits"
_PANELS = 4


def build_site(
    root: Path,
    store: Path,
    *,
    jobs: int | None = None,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> Path:
    """Build the book and return the page to open; what is complete and fresh is not made again.

    The embedded study is computed into the store; all other studies are shown as `root/results`
    holds them. A run that fails is told and shown as a gap.

    Args:
        root: the repository.
        store: folder of local runs.
        jobs: runs at once, default one a core, or one on a GPU.
        device: `cpu`, `cuda`, or `auto` for cuda if there is one.
        say: is told what is done, a line at a time.

    Raises:
        Paused: computing was interrupted; its state is saved.
        PublishError: a notebook, a page or the site cannot be built; the previous site stays.
    """
    runs, study = Store(store), ticket_study(load_recipe(EMBEDDED))
    missing = study.missing(runs)
    if missing:
        say(f"{study.name}: {len(missing)} of {len(study.entries)} runs to compute")
        for run, why in compute(study.name, missing, runs, Machine(device), jobs).items():
            say(f"run {run} failed: {why}")
    results = root / "results"
    pages = [Page(Path("notebooks/quickstart.ipynb")), *_embedded(study, runs)]
    pages += [page for name in _published(results) for page in _recorded(results, name)]

    def context() -> dict[str, Any]:
        others = load_results(results) if results.is_dir() else []
        shown = [record for record in others if record["study"] != study.name]
        return {**page_context([*study.records(runs), *shown]), **quoting(root)}

    with _notebooks_use(runs):
        return build(root, notebooks=pages, context_factory=context, say=say)


def _embedded(study: Study, store: Store) -> Iterator[Page]:
    def inputs() -> Mapping[str, str]:
        return {study.name: digest(json.dumps(study.records(store), sort_keys=True))}

    for name in ("tickets", "cost", "masks"):
        yield Page(Path(f"notebooks/{name}.ipynb"), {"source": "local"}, inputs)


def _published(results: Path) -> list[str]:
    names = study_names(results) if results.is_dir() else []
    return [name for name in names if name != EMBEDDED and name in recipe_names()]


def _recorded(results: Path, name: str) -> Iterator[Page]:
    """Pages `tickets-STUDY`, `cost-STUDY`, `masks-STUDY`: what is published, nothing computed."""
    recipe = load_recipe(name)
    shown = {
        "dataset": recipe.values["data"]["dataset"],
        "architecture": recipe.values["model"]["architecture"],
        "recipe": name,
        "source": "results",
    }
    densities = _most_shared([one for one in load_results(results) if one["study"] == name])
    special: dict[str, dict[str, Any]] = {"tickets": {}}
    if densities:
        special["cost"] = {"at": sorted(densities[:_PANELS], reverse=True)}
        special["masks"] = {"density": densities[0]}
    for notebook, parameters in special.items():
        yield Page(
            Path(f"notebooks/{notebook}.ipynb"),
            {**shown, **parameters},
            lambda: digests([results / f"{name}.jsonl"]),
            name=f"{notebook}-{name}",
        )


def _most_shared(records: Iterable[Mapping[str, Any]]) -> list[float]:
    """Densities of a study's tickets, first those that most curves have a ticket near; then sparse.

    Near: within 1 %, as figures interpolate.
    """
    points = curve_points(ticket_table(records))
    points = points[points["curve"] != "dense"]
    densities = sorted({float(f"{density:.3g}") for density in points["density"]})

    def curves(density: float) -> int:
        near = (points["density"] / density).between(0.99, 1.01)
        return int(points.loc[near, "curve"].nunique())

    return sorted(densities, key=curves, reverse=True)


@contextmanager
def _notebooks_use(store: Store) -> Iterator[None]:
    """Name the store in the environment that notebooks inherit: their pages then show no path."""
    before = os.environ.get("LTHLIB_STORE")
    os.environ["LTHLIB_STORE"] = str(store.root.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["LTHLIB_STORE"]
        else:
            os.environ["LTHLIB_STORE"] = before
