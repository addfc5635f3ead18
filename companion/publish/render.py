"""Fill results into the text of a page: `[= value =]`, `[% for ... %]`, `[## a comment ##]`.

A value is text and is shown as it is, unless a function returned Markdown or the page says so:
`[= words|safe =]`. In a span of code it is `[= value|code =]`.

The delimiters are Jinja's in square brackets: `{{`, `{%`, `{#` mean something to MyST or LaTeX.
"""

import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError, TemplateSyntaxError

from companion.markdown import Markdown, code
from lthlib.errors import PublishError


def _escaped(value: Any) -> Any:
    """A value as Markdown; a missing one is refused."""
    if value is None or value != value:
        raise PublishError("the value is missing (None or NaN): no record holds it")
    return Markdown.escape(value)


_ENVIRONMENT = Environment(
    variable_start_string="[=",
    variable_end_string="=]",
    block_start_string="[%",
    block_end_string="%]",
    comment_start_string="[##",
    comment_end_string="##]",
    undefined=StrictUndefined,
    finalize=_escaped,
    keep_trailing_newline=True,
    trim_blocks=True,
    autoescape=False,
)
_ENVIRONMENT.filters["code"] = code


def render(page: str, source: str, context: Mapping[str, Any]) -> str:
    """Return a page's text with every expression replaced by its value.

    Args:
        page: its name, for messages.
        source: its text.
        context: the values and functions that expressions may use.

    Raises:
        PublishError: naming page and line: bad syntax, an unknown name, a function that fails, a
            value that is None or NaN.
    """
    try:
        return _ENVIRONMENT.from_string(source).render(context)
    except TemplateSyntaxError as error:
        raise PublishError(f"{page}, line {error.lineno}: {error.message}") from error
    except Exception as error:  # whatever a function raises belongs to a line of the page
        names = f"; known: {', '.join(sorted(context))}" if isinstance(error, TemplateError) else ""
        line = _line_of_page(error.__traceback__)
        kind = "" if isinstance(error, PublishError) else f"{type(error).__name__}: "
        raise PublishError(f"{page}, line {line}: {kind}{error}{names}") from error


def _line_of_page(trace: TracebackType | None) -> int:
    frames = traceback.walk_tb(trace)
    lines = [line for frame, line in frames if frame.f_code.co_filename == "<template>"]
    return lines[-1] if lines else 0
