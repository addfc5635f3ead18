"""What commands about studies take, and what becomes of it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lthlib.cli.options import SetOption, nested
from lthlib.errors import ConfigError

if TYPE_CHECKING:
    from companion.studies import Study

_STARTED = time.time()

StudyArgument = Annotated[str, typer.Argument(help="A study (see `lth studies`) or a recipe.yaml.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of the published record.")]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs", "--workers", min=1, help="Runs at once.", show_default="one a core or GPU"
    ),
]
PerDeviceOption = Annotated[
    int | None,
    typer.Option("--jobs-per-device", min=1, help="Runs at once on each GPU, in one process."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Stop cleanly this long after the command's start (540s, 30m, 2h), to within a "
        "training step or the judging of a ticket, and a checkpoint; the same command goes on.",
    ),
]


@dataclass(frozen=True)
class Excerpt:
    """Which runs of a study.

    Attributes:
        methods: Only these, e.g. imp,cs,bip.
        densities: Kept fractions, e.g. 0.2,0.05.
        seeds: Replicates of each contestant.
        dense_seeds: Replicates of the dense network.
    """

    methods: str | None = None
    densities: str | None = None
    seeds: Annotated[int | None, typer.Option(min=1)] = None
    dense_seeds: Annotated[int | None, typer.Option(min=1)] = None

    def study(self, name: str, changes: Sequence[str] = ()) -> Study:
        """The study of a name or a recipe file, with the options' changes.

        Args:
            name: of a recipe, or the path of a recipe.yaml.
            changes: of its recipe, such as `rewind=1ep`.

        Returns:
            The study.

        Raises:
            ConfigError: there is no such recipe, or an option or a change does not fit it.
        """
        from companion.studies import ticket_study
        from lthlib.recipes import load_recipe

        recipe = load_recipe(name)
        if values := nested(changes):
            recipe = recipe.with_(**values)
        return ticket_study(
            recipe,
            methods=self.methods.split(",") if self.methods else None,
            densities=list(map(_number, self.densities.split(","))) if self.densities else None,
            seeds=self.seeds,
            dense_seeds=self.dense_seeds,
        )


@dataclass(frozen=True)
class Selection(Excerpt):
    """Which runs of a study, its recipe changed."""

    set_: SetOption = None

    def study(self, name: str, changes: Sequence[str] = ()) -> Study:
        """As `Excerpt.study`; the options' changes come last."""
        return super().study(name, [*changes, *(self.set_ or [])])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a number") from None


def deadline(budget: str | None) -> float | None:
    """When a budget is used up; it counts from the command's start.

    Args:
        budget: such as 540s, 30m or 2h; None or empty: there is none.

    Returns:
        Seconds of `time.time()`.

    Raises:
        ConfigError: the budget is something else.
    """
    if not budget:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not match:
        raise ConfigError(
            f"budget is {budget!r}; expected seconds, minutes or hours such as 540s, 30m or 2h"
        )
    return _STARTED + float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
