"""Valid records for runs that nobody executed: what a published study looks like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from companion.published import published as lines
from companion.studies import Entry, Study
from lthlib.methods import get_method
from tests.companion.evidence.toys import PROVENANCE

COST = {"epochs": 2.0, "images": 100, "forward_passes": 100, "backward_passes": 100}
COST |= {"flops": 1000, "seconds": 1.5}


def published(study: Study) -> list[dict[str, Any]]:
    """One record a run: the ticket of a search's last round, of accuracy 90 %."""
    return [_record(study, entry) for entry in study.entries]


def write(folder: Path, study: Study, records: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{study.name}.jsonl"
    path.write_bytes(lines(records))
    return path


def _record(study: Study, entry: Entry) -> dict[str, Any]:
    config = entry.config
    search = config
    while config.method == "retrain" and search.parent and not hasattr(search.settings, "density"):
        search = search.parent.config
    density = 1.0 if config.method == "dense" else getattr(search.settings, "density", 0.5)
    kept = round(1000 * density)
    return {
        "schema": 1,
        "study": study.name,
        "scale": study.scale,
        "label": entry.label,
        "run": config.id,
        "parent": config.parent.config.id if config.parent else None,
        "config": config.to_json(),
        "method": config.method,
        "method_version": get_method(config.method).version,
        "seed": config.seed,
        "ticket": {"index": 1, "point": "ticket", "sha256": "0" * 64, "target_density": None},
        "judged": "found" if config.method in ("dense", "bip", "cs") else "retrained",
        "status": "ok",
        "failure": None,
        "density": kept / 1000,
        "kept": kept,
        "total": 1000,
        "layers": {"conv1.weight": [kept, 1000]},
        "accuracy": {"validation": 89.0, "test": 90.0},
        "cost": {"own": COST, "cumulative": COST},
        "provenance": PROVENANCE | {"commit": None},
    }
