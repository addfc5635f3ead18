"""The book as `lth book` makes it: the embedded study first, then its notebooks, then the pages."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from companion.analysis.points import curve_points, ticket_table
from companion.evidence.facts import load_facts
from companion.publish.book import Page, build
from companion.publish.checks import load_reports
from companion.publish.context import page_context
from companion.publish.freshness import digest, digests
from companion.publish.results import faults_of
from companion.publish.several import STRUCTURES
from companion.publish.source import bench_files, quoting
from companion.publish.study import compute
from companion.published import load_results, load_study, study_names
from companion.studies import Study, ticket_study
from lthlib.recipes import load_recipe, recipe_names
from lthlib.runs import Machine, Store

EMBEDDED = "digits"
TUNING = "digits-tuning"
# Studies with notebooks of their own, and what those take besides the study. The first study of a
# notebook gives its page the notebook's name, another one adds its own.
OWN_NOTEBOOKS: dict[str, dict[str, dict[str, Any]]] = {
    "digits-pruning": {"pruning": {}},
    "digits-sensitivity": {"sensitivity": {}},
    "digits-bip": {"sensitivity": {"method": "bip"}, "controls": {}},
    "digits-release": {"release": {}},
    "digits-precision": {"precision": {}},
    "cifar10-precision": {"precision": {}},
    "bip-cifar10-resnet20-study": {"sensitivity": {"method": "bip"}, "controls": {}},
    "bip-cifar10-resnet20-release": {"release": {"mask_seeds": None}},
}
_COMPARED = {"CS", "IMP"}
_DILEMMA = {"BiP", "IMP"}
_JOINING = ("digits-bip",)  # the embedded study's network, with more methods
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
        jobs: runs at once, default one a core, or one on a GPU; and notebooks at once, default one
            a core but no more than 8.
        device: `cpu`, `cuda`, or `auto` for cuda if there is one.
        say: is told what is done, a line at a time.

    Raises:
        Paused: computing was interrupted; its state is saved.
        PublishError: a notebook, a page or the site cannot be built; the previous site stays.
        RecordError: what is published in `results` is malformed.
    """
    runs, study = Store(store), ticket_study(load_recipe(EMBEDDED))
    results = root / "results"
    # What was changed by hand is told before anything is computed, and shown nowhere.
    for error in faults_of(results) if results.is_dir() else ():
        raise error
    facts, reports = load_facts(results), load_reports(results)
    missing = study.missing(runs)
    if missing:
        say(f"{study.name}: {len(missing)} of {len(study.entries)} runs to compute")
        for run, why in compute(study.name, missing, runs, Machine(device), jobs).items():
            say(f"run {run} failed: {why}")
    pages = [Page(Path("notebooks/quickstart.ipynb")), *_embedded(study, runs)]
    pages += [_dilemma(study, runs, results), *_of_the_paper(results), *_speed(results)]
    pages += [page for name in _published(results) for page in _recorded(results, name)]
    pages = [page for page in pages if _shown(root / "book", page.title)]

    def context() -> dict[str, Any]:
        others = load_results(results) if results.is_dir() else []
        shown = [record for record in others if record["study"] != study.name]
        return {**page_context([*study.records(runs), *shown], facts, reports), **quoting(root)}

    with _notebooks_use(runs):
        at_once = jobs or min(os.cpu_count() or 1, 8)
        return build(root, notebooks=pages, context_factory=context, jobs=at_once, say=say)


def _embedded(study: Study, store: Store) -> Iterator[Page]:
    def inputs() -> Mapping[str, str]:
        return _local(study, store)

    for name in ("tickets", "cost", "masks", "winners", "search-cost"):
        yield Page(Path(f"notebooks/{name}.ipynb"), {"source": "local"}, inputs)
    for name in ("gates", "convergence", "bilevel"):
        yield Page(Path(f"notebooks/{name}.ipynb"))


def _local(study: Study, store: Store) -> Mapping[str, str]:
    return {study.name: digest(json.dumps(study.records(store), sort_keys=True))}


def _dilemma(study: Study, store: Store, results: Path) -> Page:
    """The embedded study's page on accuracy and cost; curves of studies that go on from it join."""
    files = [results / f"{name}.jsonl" for name in _JOINING]
    files = [path for path in files if path.exists()]

    def inputs() -> Mapping[str, str]:
        return {**_local(study, store), **digests(files)}

    also = {"also": [path.stem for path in files]} if files else {}
    return Page(Path("notebooks/dilemma.ipynb"), {"source": "local", **also}, inputs)


def _of_the_paper(results: Path) -> Iterator[Page]:
    """Pages of the BiP paper's panels and of its Table 1, with what is published of ours."""

    def inputs() -> Mapping[str, str]:
        return digests(results.glob("*.jsonl"))

    for structure in STRUCTURES:
        name = "panels" if structure == STRUCTURES[0] else f"panels-{structure}"
        yield Page(Path("notebooks/panels.ipynb"), {"structure": structure}, inputs, name=name)
    yield Page(Path("notebooks/table1.ipynb"), {}, inputs)


def _speed(results: Path) -> Iterator[Page]:
    """A page of each benchmark that was recorded."""
    for part, name in (("cpu", "speed"), ("cuda", "speed-cuda")):
        if files := bench_files(results, part):
            yield Page(
                Path("notebooks/speed.ipynb"),
                {"part": part},
                partial(digests, files[-1:]),
                name=name,
            )


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
        for notebook, more in OWN_NOTEBOOKS[name].items():
            yield _own_page(results, name, notebook, {**shown, **more})
        return
    records = load_study(results, name)
    densities = _most_shared(records)
    special: dict[str, dict[str, Any]] = {"tickets": {}}
    if {record["label"] for record in records} >= _COMPARED:
        special |= {"winners": {}, "search-cost": {}}
    if {record["label"] for record in records} >= _DILEMMA:
        special["dilemma"] = {}
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


def _own_page(results: Path, name: str, notebook: str, shown: Mapping[str, Any]) -> Page:
    """A page of a study's own; pruning shows the tuning too, where it is recorded."""
    files = [results / f"{name}.jsonl"]
    more: dict[str, Any] = {}
    if notebook == "pruning":
        tuning = results / f"{TUNING}.jsonl"
        more["tuning"] = TUNING if tuning.exists() else None
        files += [tuning] if tuning.exists() else []
    first = next(study for study, own in OWN_NOTEBOOKS.items() if notebook in own)
    return Page(
        Path(f"notebooks/{notebook}.ipynb"),
        {**shown, **more},
        lambda: digests(files),
        name=notebook if name == first else f"{notebook}-{name}",
    )


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
