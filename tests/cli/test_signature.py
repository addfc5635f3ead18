"""Functions as commands: what is an argument, an option or a flag, and what explains it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from lthlib.cli.command import app
from lthlib.cli.signature import as_command, documentation


@dataclass(frozen=True)
class Size:
    """How large it is.

    Attributes:
        wide: Columns.
    """

    wide: Annotated[int, typer.Option(min=1)] = 3


@dataclass(frozen=True)
class Area(Size):
    """How large it is, both ways.

    Attributes:
        high_up: Rows, as many as
            there are.
    """

    high_up: int | None = None


def draw(
    name: str,
    size: Area,
    sure: bool = False,
    framed: bool = True,
    set_: list[str] | None = None,
    ink: Annotated[str, typer.Option("--ink", "--pen", help="What it is drawn with.")] = "red",
) -> None:
    """Say what
    was given.

    One line.

    Args:
        name: What it is: a word.
        sure: Do not ask.
        framed: Draw a frame.
        set_: Change it.

    Returns:
        Nothing.
    """
    typer.echo(f"{name} {size.wide} {size.high_up} {sure} {framed} {set_} {ink}")


@pytest.fixture
def drawing() -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(as_command(draw))
    return app


def test_parameters_and_fields_are_arguments_options_and_flags(drawing: typer.Typer) -> None:
    for words, printed in (
        (["box"], "box 3 None False True None red"),
        (["--high-up", "2", "box", "--wide", "5"], "box 5 2 False True None red"),
        (["box", "--sure", "--no-framed", "--pen", "x"], "box 3 None True False None x"),
        (["box", "--set", "a", "--set", "b"], "box 3 None False True ['a', 'b'] red"),
    ):
        assert CliRunner().invoke(drawing, words).output.strip() == printed
    for words in ([], ["box", "--wide", "0"], ["box", "--no-sure"], ["box", "--set-", "a"]):
        assert CliRunner().invoke(drawing, words).exit_code == 2


def test_docstrings_are_the_help(drawing: typer.Typer) -> None:
    command = get_command(drawing)
    assert command.help == "Say what was given.\n\nOne line."
    assert {parameter.name: getattr(parameter, "help", "") for parameter in command.params} == {
        "name": "What it is: a word.",
        "wide": "Columns.",
        "high_up": "Rows, as many as there are.",
        "sure": "Do not ask.",
        "framed": "Draw a frame.",
        "set_": "Change it.",
        "ink": "What it is drawn with.",
    }


def test_a_function_stays_a_function() -> None:
    draw("box", Area(1, 2))
    assert documentation(draw)[1]["name"] == "What it is: a word."
    assert documentation(lambda: None) == ("", {})


def commands(command: object, name: str = "lth") -> Iterator[tuple[str, object]]:
    yield name, command
    for inner, its_command in getattr(command, "commands", {}).items():
        yield from commands(its_command, f"{name} {inner}")


@pytest.mark.parametrize(("name", "command"), list(commands(get_command(app))))
def test_every_command_and_option_is_explained(name: str, command: object) -> None:
    assert command.help, name  # type: ignore[attr-defined]
    parameters = command.params  # type: ignore[attr-defined]
    assert [option.name for option in parameters if not option.help] == []
