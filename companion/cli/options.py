"""What commands about studies take, and what becomes of it."""

from __future__ import annotations

import functools
import inspect
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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


def expanded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Offer the fields of each dataclass that a command takes as options of that command."""
    groups: dict[str, Any] = {}
    options: list[inspect.Parameter] = []
    for one in inspect.signature(command, eval_str=True).parameters.values():
        if is_dataclass(one.annotation):
            groups[one.name] = one.annotation
            options += inspect.signature(groups[one.name], eval_str=True).parameters.values()
        else:
            options.append(one)

    @functools.wraps(command)
    def whole(**given: Any) -> Any:
        for name, kind in groups.items():
            given[name] = kind(**{own.name: given.pop(own.name) for own in fields(kind)})
        return command(**given)

    options = [one.replace(kind=one.KEYWORD_ONLY) for one in options]
    whole.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return whole


@dataclass(frozen=True)
class Excerpt:
    """Which runs of a study."""

    methods: Annotated[str | None, typer.Option(help="Only these, e.g. imp,cs,bip.")] = None
    densities: Annotated[str | None, typer.Option(help="Kept fractions, e.g. 0.2,0.05.")] = None
    seeds: Annotated[int | None, typer.Option(min=1, help="Replicates of each contestant.")] = None
    dense_seeds: Annotated[
        int | None, typer.Option(min=1, help="Replicates of the dense network.")
    ] = None

    def study(self, name: str, changes: Sequence[str] = ()) -> Study:
        """The study of a name or a recipe file, with the options' changes, and with changes of its
        recipe such as `rewind=1ep`. Raises ConfigError."""
        from companion.studies import ticket_study
        from lthlib.recipes import load_recipe

        recipe, parts = load_recipe(name), nested(changes)
        return ticket_study(
            recipe.with_(**parts) if parts else recipe,
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
    """When a budget such as 540s, 30m or 2h is used up, in seconds of `time.time()`: it counts from
    the command's start. Raises ConfigError."""
    if not budget:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not match:
        expected = "seconds, minutes or hours such as 540s, 30m or 2h"
        raise ConfigError(f"budget is {budget!r}; expected {expected}")
    return _STARTED + float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
