"""From notebooks and records to the book.

Here stands what a notebook needs: it declares its parameters (`declare`) and hands over its figures
and tables (`Artefacts`). `companion.publish.book.build` runs notebooks that are not fresh, fills
the pages in and makes the site; it is not imported here, so that changing it runs no notebook
again.
"""

from __future__ import annotations

from companion.publish.artefacts import Artefacts, papermill_command
from companion.publish.parameters import (
    choice,
    declare,
    flag,
    many,
    number,
    numbers,
    optional,
    text,
    texts,
    whole,
    wholes,
)

__all__ = [
    "Artefacts",
    "choice",
    "declare",
    "flag",
    "many",
    "number",
    "numbers",
    "optional",
    "papermill_command",
    "text",
    "texts",
    "whole",
    "wholes",
]
