"""A function as a command: its parameters are the options, its docstring is the help."""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin

import typer

_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Source):\n", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", re.MULTILINE)


def as_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a command for typer of a function and its docstring.

    A parameter without default is an argument, another an option `--its-name`; a `bool` that is
    False by default is a flag without a `--no-`. The fields of a dataclass are options of the
    command. What `Annotated[..., typer.Option(...)]` says of a parameter comes before all this.

    Args:
        function: the text above the sections of its docstring is the help of the command; each
            entry of `Args:`, and of `Attributes:` of a dataclass it takes, that of an option.

    Returns:
        A function of keyword arguments, with the signature and the docstring that typer reads.
    """
    text, helps = documentation(function)
    groups: dict[str, Any] = {}
    options: list[inspect.Parameter] = []
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            options += _field_options(groups[parameter.name])
        else:
            options.append(_option(parameter, helps))

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return function(**values)

    command.__doc__ = text
    command.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return command


def documentation(documented: object) -> tuple[str, dict[str, str]]:
    """Split a docstring into the text above its sections, and what `Args:` or `Attributes:` says.

    Args:
        documented: a function or a class.

    Returns:
        The text, a line for each paragraph, and the explanations by the name of what they explain.
    """
    text, *sections = _SECTION.split(inspect.cleandoc(documented.__doc__ or ""))
    entries: dict[str, str] = {}
    for title, content in zip(sections[::2], sections[1::2], strict=True):
        if title in ("Args", "Attributes"):
            entries = {name: _unwrapped(entry) for name, entry in _ENTRY.findall(content)}
    return "\n\n".join(map(_unwrapped, text.strip().split("\n\n"))), entries


def _field_options(group: type) -> list[inspect.Parameter]:
    helps: dict[str, str] = {}
    for owner in reversed(group.__mro__):  # a field is explained by the class that adds it
        helps |= documentation(owner)[1]
    parameters = inspect.signature(group, eval_str=True).parameters.values()
    return [_option(parameter, helps) for parameter in parameters]


def _option(parameter: inspect.Parameter, helps: dict[str, str]) -> inspect.Parameter:
    kind, *declared = (
        get_args(parameter.annotation)
        if get_origin(parameter.annotation) is Annotated
        else [parameter.annotation]
    )
    if kind is typer.Context:
        return parameter.replace(kind=parameter.KEYWORD_ONLY)
    info = copy.copy(declared[0]) if declared else _declaration(parameter)
    info.help = info.help or helps.get(parameter.name)
    return parameter.replace(annotation=Annotated[kind, info], kind=parameter.KEYWORD_ONLY)


def _declaration(parameter: inspect.Parameter) -> Any:
    if parameter.default is parameter.empty:
        return typer.Argument()
    if parameter.default is True:
        return typer.Option()  # --name and --no-name
    return typer.Option("--" + parameter.name.strip("_").replace("_", "-"))


def _unwrapped(text: str) -> str:
    return " ".join(text.split())
