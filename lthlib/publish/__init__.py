"""From notebooks and records to the book.

A notebook declares its parameters (`declare`) and hands over its figures and tables (`Artefacts`);
`build` runs the notebooks that are not fresh, fills the pages in, and makes the site.
"""

from __future__ import annotations

from lthlib.publish.artefacts import Artefacts, papermill_command
from lthlib.publish.book import Page, build
from lthlib.publish.parameters import (
    choice,
    declare,
    flag,
    many,
    number,
    optional,
    text,
    whole,
    wholes,
)

__all__ = [
    "Artefacts",
    "Page",
    "build",
    "choice",
    "declare",
    "flag",
    "many",
    "number",
    "optional",
    "papermill_command",
    "text",
    "whole",
    "wholes",
]
