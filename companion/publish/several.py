"""Several studies in one figure: those that join another, those of the BiP paper's panels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from companion.analysis.paper_panels import panel_of, paper_panels
from companion.analysis.points import ticket_table
from companion.markdown import Markdown, code
from companion.publish.results import results_folder
from companion.publish.study import Gathered, open_study, study_of
from companion.published import load_results
from lthlib.errors import ConfigError
from lthlib.methods import METHODS
from lthlib.recipes import Recipe, load_recipe, recipe_names
from lthlib.recipes.recipe import SCALES

STRUCTURES = ("unstructured", "filter", "channel")
LABELS = {name: METHODS[name].title for name in ("bip", "imp", "omp", "hydra", "grasp")}


@dataclass(frozen=True)
class PanelRecords:
    """Our side of the paper's panels.

    Attributes:
        tables: study -> its tickets, from `ticket_table`.
        recipes: study -> its recipe.
        gathered: the records, and where they come from.
    """

    tables: Mapping[str, pd.DataFrame]
    recipes: Mapping[str, Recipe]
    gathered: Gathered

    @property
    def words(self) -> dict[str, str]:
        """Study -> its scale, and in what its recipe falls short of the paper's."""
        return {name: scale_in_words(recipe) for name, recipe in self.recipes.items()}

    @property
    def table(self) -> pd.DataFrame:
        """All tickets together."""
        return ticket_table(self.gathered.records)

    def _repr_markdown_(self) -> Markdown:
        if not self.tables:
            return Markdown("No such study of ours is published: the paper stands alone.")
        item = Markdown("- {} ({}): {}").format
        studies = [
            item(code(name), scale, self.recipes[name].about) for name, scale in self.words.items()
        ]
        return Markdown("\n").join([self.gathered._repr_markdown_(), "", *studies])


def shown_labels(methods: Sequence[str] | None) -> list[str]:
    """Return the labels of contestants of the panels.

    Args:
        methods: their names, or None for all.
    """
    return [LABELS[name] for name in LABELS if methods is None or name in methods]


def open_panels(parameters: Any) -> PanelRecords:
    """Return our records for the panels of the paper's Fig 3, or of Fig 4 and its kin.

    Args:
        parameters: what `begin` returned. `structure` is one of `STRUCTURES`; `recipes` those of
            the studies to show, by name or YAML file, or None for `published_panels`; `methods`
            some of `LABELS`, or None for those of each recipe; the rest as `study_of` and
            `open_study` take it.

    Raises:
        ConfigError: a recipe prunes another structure, or what `open_study` raises.
    """
    structure = parameters.structure
    labels = {"dense", *shown_labels(parameters.methods)}
    recipes, gathered = {}, {}
    for name in parameters.recipes or published_panels(structure, parameters.results):
        recipe = load_recipe(name)
        if structure_of(recipe) != structure:
            raise ConfigError(
                f"recipe {recipe.name} prunes {structure_of(recipe)}, and {structure} was asked "
                "for: change structure or recipes"
            )
        compared = [method for method in recipe.values["study"]["methods"] if method in LABELS]
        methods = parameters.methods or compared
        study = study_of(recipe, {**parameters._asdict(), "methods": methods})
        _, opened, _ = open_study(parameters, study)
        # What a published record holds beyond the curves that are shown is left out.
        records = [record for record in opened.records if record["label"] in labels]
        recipes[study.name] = recipe
        gathered[study.name] = replace(opened, records=records)
    tables = {name: ticket_table(study.records) for name, study in gathered.items()}
    return PanelRecords(tables, recipes, _joined(list(gathered.values())))


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
    records = [record for record in _published(results) if record["status"] == "ok"]
    pairs = paper_panels("unstructured" if structure == "unstructured" else "filter")
    ranked: dict[tuple[str, str], list[tuple[tuple[int, bool, int], str]]] = {}
    for name in sorted({record["study"] for record in records} & set(recipe_names())):
        recipe = load_recipe(name)
        labels = [record["label"] for record in records if record["study"] == name]
        embedded = structure != "unstructured" and recipe.scale == "embedded"
        fits = structure_of(recipe) == structure and (embedded or _panel(recipe) in pairs)
        if "BiP" in labels and fits:
            rank = (SCALES.index(recipe.scale), "IMP" in labels, labels.count("BiP"))
            ranked.setdefault(_panel(recipe), []).append((rank, name))
    return [max(studies)[1] for studies in ranked.values()]


def scale_in_words(recipe: Recipe) -> str:
    """Return a recipe's scale, and in what it falls short of the paper's for its network.

    `reduced scale; width 8 of 16, 8 of 200 epochs`
    """
    lacks: list[str] = []
    for paper in map(load_recipe, recipe_names() if recipe.scale != "paper" else ()):
        alike = _panel(paper) == _panel(recipe) and structure_of(paper) == structure_of(recipe)
        if alike and paper.scale == "paper" and "bip" in paper.values["methods"]:
            lacks = list(_shortfalls(recipe.values, paper.values))
            break
    return "; ".join(filter(None, [f"{recipe.scale} scale", ", ".join(lacks)]))


def structure_of(recipe: Recipe) -> str:
    """Return what a recipe's BiP prunes: one of `STRUCTURES`."""
    return str(recipe.method("bip").get("structure", "unstructured"))


def _panel(recipe: Recipe) -> tuple[str, str]:
    return panel_of(recipe.values["data"]["dataset"], recipe.values["model"]["architecture"])


def _published(results: str | Path | None) -> list[dict[str, Any]]:
    folder = results_folder(results)
    return load_results(folder) if folder.is_dir() else []


def _shortfalls(ours: Any, papers: Any) -> Iterator[str]:
    width, full = (values["model"].get("width") for values in (ours, papers))
    if width and full and width != full:
        yield f"width {width} of {full}"
    length, whole = (values["training"]["length"] for values in (ours, papers))
    if length.endswith("ep") and whole.endswith("ep") and length != whole:
        yield f"{length.removesuffix('ep')} of {whole.removesuffix('ep')} epochs"
    if images := ours["data"].get("train_images"):
        yield f"{images:,} images"


def _joined(studies: Sequence[Gathered]) -> Gathered:
    return Gathered(
        [record for study in studies for record in study.records],
        {run: origin for study in studies for run, origin in study.origins.items()},
        tuple(reason for study in studies for reason in study.stale),
    )
