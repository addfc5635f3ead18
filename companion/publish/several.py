"""Several studies in one figure: those that join another, those of the BiP paper's panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from companion.analysis.paper_panels import panel_of, paper_panels
from companion.analysis.points import ticket_table
from companion.markdown import Markdown, code
from companion.publish.study import Gathered, machine_of, study_records, taken
from companion.published import load_results
from companion.studies import ticket_study
from lthlib.errors import ConfigError
from lthlib.methods import METHODS
from lthlib.recipes import Recipe, load_recipe, recipe_names
from lthlib.recipes.recipe import SCALES
from lthlib.runs import Machine, RunConfig, Store

STRUCTURES = ("unstructured", "filter", "channel")
LABELS = {name: METHODS[name].title for name in ("bip", "imp", "omp", "hydra", "grasp")}


@dataclass(frozen=True)
class PanelRecords:
    """Our side of the paper's panels.

    tables: study -> its tickets, from `ticket_table`. words: study -> its scale, and in what its
    recipe falls short of the paper's. about: study -> its recipe in a sentence. gathered: where the
    records come from.
    """

    tables: dict[str, pd.DataFrame]
    words: dict[str, str]
    about: dict[str, str]
    gathered: Gathered

    @property
    def table(self) -> pd.DataFrame:
        """All tickets together."""
        return ticket_table(self.gathered.records)

    def _repr_markdown_(self) -> Markdown:
        if not self.tables:
            return Markdown("No such study of ours is published: the paper stands alone.")
        item = Markdown("- {} ({}): {}").format
        shown = [item(code(name), self.words[name], about) for name, about in self.about.items()]
        return Markdown("\n").join([self.gathered._repr_markdown_(), "", *shown])


def joined(
    found: Gathered, also: Sequence[str] | None, results: str | Path | None = None
) -> Gathered:
    """Return a study's records and the curves that other published studies have beyond its own.

    Args:
        found: the study's records, with dense.
        also: names of published studies on the same data, network and training.
        results: folder of the published record, default `results`.

    Raises:
        ConfigError: such a study is not published, or trains otherwise.
    """
    if not also:
        return found
    folder = Path(results or "results")
    published = load_results(folder) if folder.is_dir() else []
    base = _set_up(found.records)
    records = list(found.records)
    used = 0
    for name in also:
        theirs = [record for record in published if record["study"] == name]
        if not theirs:
            raise ConfigError(f"also is {name!r}, and {folder} holds no record of it")
        if _set_up(theirs) != base:
            raise ConfigError(f"also is {name!r}, which has other data, network or training")
        known = {record["label"] for record in records}
        more = [record for record in theirs if record["label"] not in known]
        # One study, so that equal seeds count as pairs: they share split and initialisation.
        records += [{**record, "study": found.records[0]["study"]} for record in more]
        used += len({record["run"] for record in more})
    return Gathered(records, found.published + used, found.stored, found.computed, found.stale)


def open_panels(parameters: Any) -> PanelRecords:
    """Return `panel_records` by a notebook's parameters."""
    given = taken(parameters._asdict(), panel_records)
    return panel_records(store=Store(parameters.store), machine=machine_of(parameters), **given)


def shown_labels(methods: Sequence[str] | None) -> list[str]:
    """Return the labels of contestants of the panels, of all of them for None."""
    return [label for name, label in LABELS.items() if methods is None or name in methods]


def panel_records(
    structure: str,
    recipes: Sequence[str] | None,
    store: Store,
    machine: Machine,
    *,
    methods: Sequence[str] | None = None,
    densities: Sequence[float] | None = None,
    seeds: int | None = None,
    dense_seeds: int | None = None,
    source: str = "results",
    results: str | Path | None = None,
    jobs: int | None = None,
) -> PanelRecords:
    """Return our records for the panels of the paper's Fig 3, or of Fig 4 and its kin.

    Args:
        structure: one of `STRUCTURES`.
        recipes: of the studies to show, by name or YAML file; None: `published_panels`.
        store, machine, source, results, jobs: as `study_records` takes them.
        methods: contestants, some of `LABELS`.
        densities, seeds, dense_seeds: as `ticket_study` takes them; of no effect on what is read
            from a published record as it is.

    Raises:
        ConfigError: a recipe prunes another structure, or what `study_records` raises.
    """
    chosen = published_panels(structure, results) if recipes is None else recipes
    tables, words, about = {}, {}, {}
    parts = [Gathered([], 0, 0, 0, ())]
    for recipe in map(load_recipe, chosen):
        if structure_of(recipe) != structure:
            raise ConfigError(
                f"recipe {recipe.name} prunes {structure_of(recipe)}, and {structure} was asked "
                "for: change structure or recipes"
            )
        compared = [one for one in recipe.values["study"]["methods"] if one in LABELS]
        study = ticket_study(
            recipe,
            methods=compared if methods is None else methods,
            densities=densities,
            seeds=seeds,
            dense_seeds=dense_seeds,
        )
        found = study_records(study, store, machine, source=source, results=results, jobs=jobs)
        found = _only(found, {"dense", *(LABELS[one] for one in methods or LABELS)})
        tables[study.name] = ticket_table(found.records)
        words[study.name] = scale_in_words(recipe)
        about[study.name] = recipe.about
        parts.append(found)
    return PanelRecords(tables, words, about, _together(parts))


def published_panels(structure: str, results: str | Path | None = None) -> list[str]:
    """Return the names of published studies for the panels, one a data set and network.

    A study belongs there if it holds BiP, pruned in this structure, on a data set and network of
    the paper's panels; the embedded one has a panel of its own where the paper has none to spare,
    with filters and channels. Of several, that at the largest scale is shown; then one that has
    IMP; then the one with most tickets of BiP.

    Args:
        structure: one of `STRUCTURES`.
        results: folder of the published record, default `results`.
    """
    folder = Path(results or "results")
    records = load_results(folder) if folder.is_dir() else []
    pairs = paper_panels("unstructured" if structure == "unstructured" else "filter")
    ranked: dict[tuple[str, str], list[tuple[tuple[int, bool, int], str]]] = {}
    for name in sorted({record["study"] for record in records} & set(recipe_names())):
        recipe = load_recipe(name)
        labels = [one["label"] for one in records if one["study"] == name and one["status"] == "ok"]
        own = structure != "unstructured" and recipe.scale == "embedded"
        if "BiP" not in labels or structure_of(recipe) != structure:
            continue
        if _panel(recipe) in pairs or own:
            rank = (SCALES.index(recipe.scale), "IMP" in labels, labels.count("BiP"))
            ranked.setdefault(_panel(recipe), []).append((rank, name))
    return [max(found)[1] for found in ranked.values()]


def scale_in_words(recipe: Recipe) -> str:
    """Return a recipe's scale, and in what it falls short of the paper's recipe for its network:
    `reduced scale; width 8 of 16, 8 of 200 epochs`.
    """
    words = f"{recipe.scale} scale"
    if recipe.scale == "paper":
        return words
    for name in recipe_names():
        paper = load_recipe(name)
        alike = _panel(paper) == _panel(recipe) and structure_of(paper) == structure_of(recipe)
        if alike and paper.scale == "paper" and "bip" in paper.values["methods"]:
            lacks = ", ".join(_shortfalls(recipe.values, paper.values))
            return f"{words}; {lacks}" if lacks else words
    return words


def structure_of(recipe: Recipe) -> str:
    """Return what a recipe's BiP prunes: one of `STRUCTURES`."""
    return str(recipe.method("bip").get("structure", "unstructured"))


def _panel(recipe: Recipe) -> tuple[str, str]:
    return panel_of(recipe.values["data"]["dataset"], recipe.values["model"]["architecture"])


def _set_up(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    config = next(one["config"] for one in records if one["label"] == "dense")
    now = RunConfig.from_json(config).to_json()  # with the fields that it was recorded without
    return {part: now[part] for part in ("data", "model", "training")}


def _shortfalls(ours: Any, papers: Any) -> list[str]:
    found = []
    width, full = (one["model"].get("width") for one in (ours, papers))
    if width and full and width != full:
        found.append(f"width {width} of {full}")
    length, whole = (one["training"]["length"] for one in (ours, papers))
    if length.endswith("ep") and whole.endswith("ep") and length != whole:
        found.append(f"{length.removesuffix('ep')} of {whole.removesuffix('ep')} epochs")
    if images := ours["data"].get("train_images"):
        found.append(f"{images:,} images")
    return found


def _only(found: Gathered, labels: set[str]) -> Gathered:
    """What a published record holds beyond the curves that are shown is left out."""
    records = [record for record in found.records if record["label"] in labels]
    if found.stored or found.computed:
        return replace(found, records=records)
    return replace(found, records=records, published=len({record["run"] for record in records}))


def _together(parts: Sequence[Gathered]) -> Gathered:
    return Gathered(
        [record for part in parts for record in part.records],
        sum(part.published for part in parts),
        sum(part.stored for part in parts),
        sum(part.computed for part in parts),
        tuple(text for part in parts for text in part.stale),
    )
