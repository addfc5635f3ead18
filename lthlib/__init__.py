"""Winning tickets by bi-level pruning, continuous sparsification and magnitude pruning.

The names below are loaded when first used, so that reading results or printing help never imports
torch.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from lthlib._version import __version__
from lthlib.texts import visible

_NAMES = {
    "lthlib.api": ("evaluate", "find_tickets", "retrain"),
    "lthlib.data": ("Dataset", "load_dataset"),
    "lthlib.errors": ("LthlibError",),
    "lthlib.masks": ("Mask",),
    "lthlib.tickets": ("Ticket",),
    "lthlib.training": ("TrainingSettings",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from lthlib.api import evaluate, find_tickets, retrain
    from lthlib.data import Dataset, load_dataset
    from lthlib.errors import LthlibError
    from lthlib.masks import Mask
    from lthlib.tickets import Ticket
    from lthlib.training import TrainingSettings


def _make_visible(record: logging.LogRecord) -> bool:
    record.msg, record.args = visible(record.getMessage()), ()
    return True


logging.getLogger("lthlib").addFilter(_make_visible)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lthlib' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
