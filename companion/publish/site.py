"""The book as `lth book` makes it: the embedded study first, then its notebooks, then the pages."""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from companion.analysis.points import curve_points, ticket_table
from companion.analysis.words import duration
from companion.evidence.facts import load_facts
from companion.publish.book import Page, build
from companion.publish.checks import load_reports
from companion.publish.context import page_context
from companion.publish.explorer import explorer
from companion.publish.freshness import digest, digests
from companion.publish.results import faults_of
from companion.publish.source import quoting
from companion.publish.study import compute
from companion.published import load_results, load_study, study_names
from companion.studies import ticket_study
from companion.tickets import tickets_file
from lthlib.recipes import load_recipe, recipe_names
from lthlib.runs import Machine, Store
from lthlib.runs.many import default_jobs

EMBEDDED = "digits"
# Computed of it while the book is made. Its variants, and more dense networks, would take half as
# long again: they are shown as published.
CONTESTANTS = ("imp", "cs", "bip", "bip-retrained", "omp", "random")
DENSE = 5
# Studies of trials: the notebook of the study that they tuned shows them.
TUNING = {
    "digits-pruning": "digits-tuning",
    "digits-head": "digits-head-tuning",
    "head-to-head": "head-to-head-tuning",
}
# Studies with notebooks of their own, and what those take besides the study. The first study of a
# notebook gives its page the notebook's name, another one adds its own.
OWN_NOTEBOOKS: dict[str, dict[str, dict[str, Any]]] = {
    "digits-pruning": {"pruning": {}},
    "digits-sensitivity": {"sensitivity": {}},
    "digits-bip": {"sensitivity": {"method": "bip"}, "controls": {}},
    "digits-release": {"release": {}},
    "digits-head": {"head-to-head": {}},
    "head-to-head": {"head-to-head": {}},
    "digits-precision": {},
    "cifar10-precision": {},
    "bip-cifar10-resnet20-study": {"sensitivity": {"method": "bip"}, "controls": {}},
    "bip-cifar10-resnet20-release": {"release": {}},
}


def build_site(
    root: Path,
    store: Path,
    *,
    jobs: int | None = None,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> Path:
    """Build the book; what is complete and fresh is not made again.

    The main contestants of the embedded study are computed into the store; all else is shown as
    `root/results` holds it, the embedded study too, under a name of its own. A run that fails is
    told and shown as a gap. What took how long is told at the end.

    Args:
        root: the repository.
        store: folder of local runs.
        jobs: runs at once, default one a core, or one on a GPU; and notebooks at once, default one
            a core and one more, since each waits for its kernel, but no more than 8.
        device: `cpu`, `cuda`, or `auto` for cuda if there is one.
        say: is told what is done, a line at a time.

    Returns:
        The path of the page to open.

    Raises:
        Paused: computing was interrupted; its state is saved.
        PublishError: a notebook, a page or the site cannot be built; the previous site stays.
        RecordError: what is published in `results` is malformed, or there is no such folder.
    """
    began = time.monotonic()
    runs = Store(store)
    study = ticket_study(load_recipe(EMBEDDED), **embedded())
    results = root / "results"
    # What was changed by hand is told before anything is computed, and shown nowhere.
    for error in faults_of(results):
        raise error
    facts = load_facts(results)
    reports = load_reports(results)
    published = load_results(results)
    machine = Machine(device)
    if missing := study.missing(runs):
        say(f"{study.name}: {len(missing)} of {len(study.entries)} runs to compute")
        past = {record["run"]: record["cost"]["own"]["seconds"] for record in published}
        if seconds := sum(past.get(config.id, 0.0) for config in missing):
            expected = duration(seconds / (jobs or default_jobs(machine)))
            say(f"that is {expected} by the times of the published record; then the notebooks")
        for run, reason in compute(study.name, missing, runs, machine, jobs).items():
            say(f"run {run} failed: {reason}")
        say(f"{study.name}: took {duration(time.monotonic() - began)}")
    records = study.records(runs)
    for record in published:
        if record["study"] == study.name:
            record["study"] = f"{study.name} as published"
    page = build(
        root,
        notebooks=[page for page in pages(results, study.name, records) if is_shown(root, page)],
        context={
            **page_context([*records, *published], facts, reports),
            **quoting(root),
            "explorer": partial(explorer, results),
        },
        # Named here, it stands in no command that a page shows.
        environment={"LTHLIB_STORE": str(runs.root.resolve())},
        jobs=jobs or min(1 + (os.cpu_count() or 1), 8),
        say=say,
    )
    say(f"all of it took {duration(time.monotonic() - began)}")
    return page


def embedded() -> dict[str, Any]:
    """Return what the book computes of the embedded study: `methods` and `dense_seeds`."""
    study = load_recipe(EMBEDDED).values["study"]
    methods = [method for method in study["methods"] if method in CONTESTANTS]
    return {"methods": methods, "dense_seeds": min(DENSE, study["dense_seeds"])}


def pages(results: Path, study: str, records: list[dict[str, Any]]) -> Iterator[Page]:
    """Yield the notebooks of the book.

    Args:
        results: the folder of what is published.
        study: the name of the embedded study.
        records: of it, from the local store.
    """
    # These train, and take longest.
    yield Page("bilevel", {"seeds": 2})
    yield Page("quickstart")
    yield Page("inside", {"dense_seeds": embedded()["dense_seeds"]})
    for name in ("tickets", "cost"):
        yield Page(name, {"source": "local", **embedded()}, {study: digest(records)})
    # Its masks are those that are published.
    yield Page("masks", {}, digests(_recorded(results, study)))
    published = digests(results.glob("*.jsonl"))
    yield Page("panels", {"structure": "unstructured"}, published)
    yield Page("panels", {"structure": "filter"}, published, "panels-filter")
    for name in study_names(results):
        if name in set(recipe_names()) - set(TUNING.values()):
            yield from recorded_pages(results, name)


def recorded_pages(results: Path, name: str) -> Iterator[Page]:
    """Yield what shows the published record of a study, nothing computed.

    Args:
        results: the folder of what is published.
        name: of the study.

    Yields:
        `tickets-STUDY`, `cost-STUDY`, `masks-STUDY`, or the pages of `OWN_NOTEBOOKS`.
    """
    recipe = load_recipe(name)
    parameters = {
        "dataset": recipe.values["data"]["dataset"],
        "architecture": recipe.values["model"]["architecture"],
        "recipe": name,
        "source": "results",
    }
    files = _recorded(results, name)
    for notebook, more in OWN_NOTEBOOKS.get(name, {}).items():
        if trials := TUNING.get(name):  # shown too, where they are recorded
            tuning = [path for path in [results / f"{trials}.jsonl"] if path.exists()]
            files = files + tuning
            more = {"tuning": trials if tuning else None}
        first = next(study for study, names in OWN_NOTEBOOKS.items() if notebook in names)
        title = notebook if name == first else f"{notebook}-{name}"
        yield Page(notebook, {**parameters, **more}, digests(files), title)
    if name not in OWN_NOTEBOOKS:
        yield Page("tickets", parameters, digests(files), f"tickets-{name}")
        yield Page("cost", parameters, digests(files), f"cost-{name}")
        density = next(_most_shared(load_study(results, name)), None)
        if density is not None:
            masks = {**parameters, "density": density}
            yield Page("masks", masks, digests(files), f"masks-{name}")


def _recorded(results: Path, study: str) -> list[Path]:
    """The files of what is published of a study, those that there are."""
    paths = [results / f"{study}.jsonl", tickets_file(results, study)]
    return [path for path in paths if path.exists()]


def is_shown(root: Path, page: Page) -> bool:
    """Return whether the table of contents lists a notebook, or a page shows its artefacts."""
    book = root / "book"
    mention = re.compile(rf"""artefact\(["']{page.title}/|notebooks/{page.title}(?![\w-])""")
    files = (*book.glob("*.md"), *book.glob("_toc.yml"))
    return not book.is_dir() or any(mention.search(path.read_text("utf-8")) for path in files)


def _most_shared(records: Iterable[Mapping[str, Any]]) -> Iterator[float]:
    """Densities of a study's tickets, first those that most curves have a ticket near."""
    points = curve_points(ticket_table(records))
    points = points[~points["curve"].str.startswith("dense")]
    densities = sorted({float(f"{density:.3g}") for density in points["density"]})

    def curves(density: float) -> int:
        near = (points["density"] / density).between(0.99, 1.01)  # as figures interpolate
        return int(points.loc[near, "curve"].nunique())

    return iter(sorted(densities, key=curves, reverse=True))
