"""The commands that the companion adds to `lth`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from companion.cli import publishing, sweeping

COMMANDS: dict[str, dict[str, Callable[..., Any]]] = {
    "Compute": {
        "studies": publishing.studies,
        "sweep": sweeping.sweep,
        "estimate": sweeping.estimate,
        "bisect": sweeping.bisect,
    },
    "Look after runs": {
        "verify": publishing.verify,
        "export": publishing.export,
        "import": publishing.import_,
    },
    "Publish": {
        "record": publishing.record,
        "tickets": publishing.tickets,
        "check-results": publishing.check_results,
        "compare": publishing.compare,
        "facts": publishing.facts,
        "rerun": publishing.rerun,
        "book": publishing.book,
    },
}
