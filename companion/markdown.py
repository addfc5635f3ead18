"""Markdown of ours with text of others in it, which stays text: it is escaped where it enters."""

import re
from collections.abc import Collection, Iterable
from typing import Any, Self

from markupsafe import Markup

from lthlib.texts import visible

# What MyST or HTML would take for more than text: anywhere, and where a line begins.
_ANYWHERE = re.compile(r"[\\`*_{}\[\]<&|$~]")
_AT_START = re.compile(r"^( ?\d+(?=[.)](?!\d))| ?(?=[%(:=>#]|[-+](?!\d)))")


class Markdown(Markup):
    """Markdown to be shown as it is; a plain text put into it is escaped.

    `Markdown("**{}** {}").format(label, why)`, `+`, `%` and `join` escape their arguments unless
    they are Markdown themselves.
    """

    @classmethod
    def escape(cls, text: Any, /) -> Self:
        """Return Markdown that shows a text as it is, on one line; Markdown stays what it is."""
        if hasattr(text, "__html__"):
            return cls(text.__html__())
        return cls(_AT_START.sub(r"\1\\", _ANYWHERE.sub(r"\\\g<0>", _one_line(text))))

    def _repr_markdown_(self) -> str:
        return str(self)


def code(text: str) -> Markdown:
    """Return a span of code that holds a text."""
    one_line = _one_line(text)
    ticks = "`" * (1 + max(map(len, re.findall("`+", one_line)), default=0))
    space = " " if one_line.startswith("`") or one_line.endswith("`") else ""
    return Markdown(f"{ticks}{space}{one_line}{space}{ticks}")


def in_words(value: Any, form: str = "g") -> str:
    """Return a value as a text: a dash if it is missing, floats by a format, lists with commas."""
    if isinstance(value, (list, tuple)):
        return ", ".join(in_words(item, form) for item in value)
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format(value, form) if isinstance(value, float) else str(value)


def table(
    head: Iterable[Any], rows: Iterable[Iterable[Any]], numeric: Collection[int] = ()
) -> Markdown:
    """Return a table; its cells are texts, unless they are Markdown.

    Args:
        head: the names of the columns.
        rows: the cells of each row, one a column.
        numeric: the numbers of the columns, from 0, whose cells stand at the right.
    """
    names = list(head)
    rules = ["---:" if column in numeric else "---" for column in range(len(names))]
    lines = [map(_cell, names), rules, *(map(_cell, row) for row in rows)]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _cell(content: Any) -> str:
    # A bar ends a cell within code too, where nothing else is escaped.
    return re.sub(r"(?<!\\)\|", r"\|", _one_line(Markdown.escape(content)))


def _one_line(text: str) -> str:
    return visible(re.sub(r"[ \t\r\n]+", " ", str(text)))
