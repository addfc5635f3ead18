"""What runs cost by what their methods declare, before any has run: what follows from counting, and
what a claim's verdict still takes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from companion.evidence.claims import Claim
from companion.evidence.comparisons import COUNTING, Look
from companion.evidence.costs import with_costs
from companion.evidence.records import COLUMNS, search_config
from companion.evidence.reported import plain_name
from companion.evidence.statistics import BAND, IMP_DENSITIES
from companion.forecast import MANY, bill, size_of
from companion.markdown import Markdown, table
from companion.studies import Entry, ticket_study
from lthlib.recipes import load_recipe
from lthlib.records import COSTS
from lthlib.runs import RunConfig
from lthlib.runs.execution import expected_passes

# What is counted: of which recipe, which contestants, at which densities.
_COUNTED = {
    "bip-cifar10-resnet20": ("bip,imp,omp,hydra,snip,grasp,synflow", BAND),
    "cs-resnet20": ("cs,imp", IMP_DENSITIES[-1:]),
}
# Methods whose tickets are trained under their mask before they are judged.
RETRAINED = ("imp", "omp", "snip", "grasp", "synflow", "random", "retrain")


def passes(config: RunConfig) -> int:
    """Images that a run sends backward, its ancestors not counted."""
    return expected_passes(config, size_of(config)[0])


def counted() -> pd.DataFrame:
    """Return tickets of the papers' recipes as `tidy` does, at the scale of counting: one for each
    density of the band, and at the end of IMP's longest chain, with what they will have cost.

    What scores are computed from, a few images once, is not counted.
    """
    rows = [
        _row(name, entry, float(density))
        for name, (methods, densities) in _COUNTED.items()
        for density in densities
        for entry in _entries(name, methods, [float(density)], 1, 1)
    ]
    return with_costs(pd.DataFrame(rows).drop_duplicates("run"))[list(COLUMNS)]


def _row(study: str, entry: Entry, density: float) -> dict[str, object]:
    config, line = entry.config, [entry.config]
    while (parent := line[-1].parent) is not None:
        line.append(parent.config)
    backward, total = passes(config), sum(map(passes, line))
    names = ("images", "forward_passes", "backward_passes", "flops")
    units = dict.fromkeys(names, float(backward))
    epoch = size_of(config)[0] * config.training.batch_size
    whole = dict.fromkeys(units, float(total)) | {"epochs": total / epoch, "seconds": math.nan}
    units |= {"epochs": backward / epoch, "seconds": math.nan}
    judged = "retrained" if config.method in RETRAINED else "found"
    return {
        **dict.fromkeys(COLUMNS),
        **{name: whole[name] for name in COSTS},
        **{f"own_{name}": units[name] for name in COSTS},
        **{"study": study, "scale": COUNTING, "label": entry.label, "seed": 0, "judged": judged},
        **{"dataset": config.data.dataset, "architecture": config.model.architecture},
        **{"structure": "unstructured", "method": line[0].method, "status": "ok"},
        **{"density": 1.0 if config.method == "dense" else density, "run": config.id},
        **{"parent": config.parent and config.parent.config.id, "setup": ()},
    }


def counted_table(rows: pd.DataFrame) -> Markdown:
    """Return what `counted` rests on: what a ticket costs, in epochs of one training, with the
    dense network that it starts from."""
    epoch = rows["passes"] / rows["epochs"]
    epochs = rows.assign(before=rows["pretraining_passes"] / epoch, whole=rows["passes"] / epoch)
    lines = []
    groups = epochs[epochs["label"] != "dense"].groupby(["study", "label"], sort=False)
    for (study, label), tickets in groups:
        ends = tickets.sort_values("density", ascending=False, kind="stable").iloc[[0, -1]]
        texts = [f"{row.whole:.0f}" for row in ends.itertuples()]
        lines.append([study, label, f"{tickets['before'].iloc[0]:.0f}", *texts])
    heads = ("recipe", "tickets", "dense network", "densest ticket, in all", "sparsest, in all")
    return table(heads, lines, {2, 3, 4})


def _entries(
    name: str, methods: str, densities: list[float], seeds: int, dense: int
) -> tuple[Entry, ...]:
    """The runs of a recipe's contestants."""
    # IMP's chain ends at the sparsest density, where the recipe has one and not one a density.
    recipe, chain = load_recipe(name), {}
    fraction = recipe.method("imp").get("fraction", 0.2)
    if "imp" in methods and not isinstance(fraction, list):
        rounds = round(math.log(min(densities)) / math.log(1 - fraction))
        chain = {"imp": {"rounds": rounds}}
    study = ticket_study(
        recipe.with_(methods=chain),
        methods=methods.split(","),
        densities=densities,
        seeds=seeds,
        dense_seeds=dense,
    )
    return study.entries


def smallest(claim: Claim) -> list[Entry]:
    """Return the fewest runs that decide a claim: those of its `minimal`, each once, with as many
    dense networks as its last look has seeds."""
    entries_by_id: dict[str, Entry] = {}
    for runs in claim.minimal.split("|") if claim.minimal != "none" else ():
        name, _, choices = runs.partition(": ")
        methods, densities, seeds = choices.split("; ")
        grid = [float(density) for density in densities.split(",")]
        entries = _entries(name, methods, grid, int(seeds), Look.read(claim.looks)[-1].n)
        entries_by_id |= {entry.config.id: entry for entry in entries}
    return list(entries_by_id.values())


@dataclass(frozen=True)
class Missing:
    """What a claim's smallest set lacks.

    Attributes:
        runs: how many.
        minutes: on one GPU of `forecast.GPU`, `forecast.MANY` at once.
    """

    runs: int
    minutes: float


def missing(claim: Claim, rows: pd.DataFrame) -> Missing:
    """Count what a claim still lacks of the fewest runs that decide it.

    A run is there if a ticket with its label and seed is, at its density where it is asked for one;
    of searches that find their own, as many count as there are.

    Args:
        claim: whose `minimal` it is about.
        rows: that are at paper scale, of the claim's view.
    """
    names = ["dataset", "architecture", "structure", "label", "seed", "run", "density"]
    tickets = list(rows[names].itertuples(index=False, name=None))
    at = {(*key, _nearest_round(density)) for *key, _, density in tickets}
    unused = Counter(tuple(key) for *key, _ in {row[:-1] for row in tickets})
    lacking = []
    for entry in smallest(claim):
        config, density = entry.config, _density_asked(entry.config)
        settings = search_config(config.to_json())["settings"]
        nets = map(plain_name, (config.data.dataset, config.model.architecture))
        key = (*nets, settings.get("structure", "unstructured"), entry.label, config.seed)
        unused[key] -= density is None
        if unused[key] < 0 if density is None else (*key, _nearest_round(density)) not in at:
            lacking.append(config)
    return Missing(len(lacking), bill(lacking).gpu[MANY] / 60)


def _density_asked(config: RunConfig) -> float | None:
    """The density that a run's search is asked for."""
    while config.method == "retrain" and config.parent:
        config = config.parent.config
    if config.method == "imp":
        return float((1 - config.settings.fraction) ** config.settings.rounds)
    return getattr(config.settings, "density", None)


def _nearest_round(density: float) -> int:
    """The round of IMP that is nearest to a density."""
    return round(math.log(density) / math.log(0.8))
