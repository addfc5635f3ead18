"""An extension of Sphinx: pages load no script in vain, and begin in a valid theme."""

from __future__ import annotations

from typing import Any

_NEEDLESS = ("THEBE_JS_URL", "sphinx-thebe")  # Jupyter Book adds both, the first one twice


def setup(app: Any) -> dict[str, bool]:
    """Connect to the making of each page."""
    app.connect("html-page-context", _lean, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _lean(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    for kind in ("script_files", "css_files"):
        files = context.get(kind, [])
        told = [f"{one} {getattr(one, 'attributes', '')}" for one in files]
        pairs = zip(files, told, strict=True)
        context[kind] = [one for one, text in pairs if not any(name in text for name in _NEEDLESS)]
    context["default_mode"] = context.get("default_mode") or "auto"
