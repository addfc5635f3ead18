"""Pages load what they need."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from sphinx.builders.html._assets import _JavaScript

from companion.publish.sphinx_lean import setup


def test_scripts_that_no_page_uses_are_left_out_and_the_theme_is_valid() -> None:
    connected: dict[str, Callable[..., None]] = {}

    def connect(event: str, function: Callable[..., None], priority: int) -> None:
        connected[event] = function

    setup(SimpleNamespace(connect=connect))
    body = 'const THEBE_JS_URL = "https://unpkg.com/thebe"'
    scripts = [_JavaScript(None, body=body), _JavaScript("_static/sphinx-thebe.js")]
    own = _JavaScript("_static/sortable.js")
    context: dict[str, Any] = {"script_files": [*scripts, own], "default_mode": ""}
    connected["html-page-context"](None, "page", "page.html", context, None)
    assert context["script_files"] == [own]
    assert context["default_mode"] == "auto"
