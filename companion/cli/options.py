"""What commands about studies take, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lthlib.cli.options import nested
from lthlib.errors import ConfigError

if TYPE_CHECKING:
    from companion.studies import Study

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
