"""Runs that take a fraction of a second."""

from __future__ import annotations

from typing import Any

from lthlib.runs import Parent, RunConfig

BASE: dict[str, Any] = {
    "data": {"dataset": "digits", "train_images": 200, "validation_images": 40},
    "model": {"architecture": "resnet8", "width": 2, "shortcut": "projection"},
    "training": {"length": "6it", "batch_size": 32},
}


def config(method: str = "dense", parent: Parent | None = None, **changes: Any) -> RunConfig:
    """A tiny run; `training={...}` and the like are merged into the tiny values."""
    values = {
        name: {**BASE[name], **changes.pop(name)} if name in BASE and name in changes else value
        for name, value in BASE.items()
    }
    settings = changes.pop("settings", {"rewind": "2it"} if method == "dense" else {})
    return RunConfig.from_json(
        {**values, "method": method, "settings": settings, "parent": parent, **changes}
    )


def child(method: str, parent: RunConfig, point: str = "dense", **changes: Any) -> RunConfig:
    return config(method, Parent(parent, point), seed=parent.seed, **changes)
