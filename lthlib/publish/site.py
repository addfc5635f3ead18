"""The book as `lth book` makes it: the embedded study first, then its notebooks, then the pages."""

from __future__ import annotations

import json
import os
import re
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
TUNING = "digits-tuning"
# Studies with a notebook of their own.
OWN_NOTEBOOKS = {"digits-pruning": "pruning", "digits-sensitivity": "sensitivity"}
_COMPARED = {"CS", "IMP"}
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
    pages = [page for page in pages if _shown(root / "book", page.title)]

    def context() -> dict[str, Any]:
        others = load_results(results) if results.is_dir() else []
        shown = [record for record in others if record["study"] != study.name]
        return {**page_context([*study.records(runs), *shown]), **quoting(root)}

    with _notebooks_use(runs):
        return build(root, notebooks=pages, context_factory=context, say=say)


def _embedded(study: Study, store: Store) -> Iterator[Page]:
    def inputs() -> Mapping[str, str]:
        return {study.name: digest(json.dumps(study.records(store), sort_keys=True))}

    for name in ("tickets", "cost", "masks", "winners", "search-cost"):
        yield Page(Path(f"notebooks/{name}.ipynb"), {"source": "local"}, inputs)
    yield Page(Path("notebooks/gates.ipynb"))


def _published(results: Path) -> list[str]:
    names = study_names(results) if results.is_dir() else []
    known = set(recipe_names()) - {EMBEDDED, TUNING}
    return [name for name in names if name in known]


def _shown(book: Path, title: str) -> bool:
    """Whether the table of contents lists a notebook, or a page shows one of its artefacts."""
    if not book.is_dir():
        return True
    mention = re.compile(rf"""artefact\(["']{title}/|notebooks/{title}(?![\w-])""")
    pages = (*book.glob("*.md"), *book.glob("_toc.yml"))
    return any(mention.search(page.read_text(encoding="utf-8")) for page in pages)


def _recorded(results: Path, name: str) -> Iterator[Page]:
    """Pages `tickets-STUDY`, `cost-STUDY`, ...: what is published, nothing computed."""
    recipe = load_recipe(name)
    shown = {
        "dataset": recipe.values["data"]["dataset"],
        "architecture": recipe.values["model"]["architecture"],
        "recipe": name,
        "source": "results",
    }
    if name in OWN_NOTEBOOKS:
        yield _own_page(results, name, shown)
        return
    records = [one for one in load_results(results) if one["study"] == name]
    densities = _most_shared(records)
    special: dict[str, dict[str, Any]] = {"tickets": {}}
    if {record["label"] for record in records} >= _COMPARED:
        special |= {"winners": {}, "search-cost": {}}
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


def _own_page(results: Path, name: str, shown: Mapping[str, Any]) -> Page:
    """The page of a study's own notebook; pruning shows the tuning too, where it is recorded."""
    notebook, files = OWN_NOTEBOOKS[name], [results / f"{name}.jsonl"]
    more: dict[str, Any] = {}
    if notebook == "pruning":
        tuning = results / f"{TUNING}.jsonl"
        more["tuning"] = TUNING if tuning.exists() else None
        files += [tuning] if tuning.exists() else []
    return Page(Path(f"notebooks/{notebook}.ipynb"), {**shown, **more}, lambda: digests(files))


def _most_shared(records: Iterable[Mapping[str, Any]]) -> list[float]:
    """Densities of a study's tickets, first those that most curves have a ticket near; then sparse.

    Near: within 1 %, as figures interpolate.
    """
    points = curve_points(ticket_table(records))
    points = points[~points["curve"].str.startswith("dense")]
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
