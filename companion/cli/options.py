"""What commands about studies take, and what becomes of it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lthlib.cli.options import nested
from lthlib.errors import ConfigError

if TYPE_CHECKING:
    from companion.studies import Study

_STARTED = time.time()

StudyArgument = Annotated[
    str,
    typer.Argument(help="A study that comes with lthlib (see `lth studies`), or a recipe.yaml."),
]
MethodsOption = Annotated[
    str | None, typer.Option("--methods", help="Only these contestants, e.g. imp,cs,bip.")
]
DensitiesOption = Annotated[
    str | None, typer.Option("--densities", help="Kept fractions, e.g. 0.2,0.05.")
]
SeedsOption = Annotated[
    int | None, typer.Option("--seeds", min=1, help="Replicates of each contestant.")
]
DenseOption = Annotated[
    int | None, typer.Option("--dense-seeds", min=1, help="Replicates of the dense network.")
]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of the published record.")]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Runs at once.", show_default="one a core, or one on a GPU"),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Stop cleanly this long after the command's start (540s, 30m, 2h), to within a "
        "training step or the judging of a ticket, and a checkpoint; the same command goes on.",
    ),
]


def study_of(
    name: str,
    methods: str | None,
    densities: str | None,
    seeds: int | None,
    dense_seeds: int | None,
    changes: Sequence[str] | None,
) -> Study:
    """The study of a name or a recipe file, with the options' changes. Raises ConfigError."""
    from companion.studies import ticket_study
    from lthlib.recipes import load_recipe

    recipe = load_recipe(name)
    parts = nested(changes or [])
    if parts:
        recipe = recipe.with_(**parts)
    return ticket_study(
        recipe,
        methods=methods.split(",") if methods else None,
        densities=[_number(d) for d in densities.split(",")] if densities else None,
        seeds=seeds,
        dense_seeds=dense_seeds,
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a number") from None


def _in_seconds(text: str) -> float:
    """A budget such as 540s, 30m or 2h. Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise ConfigError(
            f"budget is {text!r}; expected seconds, minutes or hours such as 540s, 30m or 2h"
        )
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def deadline(budget: str | None) -> float | None:
    """When a budget is used up, in seconds of `time.time()`: it counts from the command's start."""
    return _STARTED + _in_seconds(budget) if budget else None
