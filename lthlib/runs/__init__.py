"""Runs: a configuration, its id, the store that keeps results, and executing one run or many.

The names below are loaded when first used, so that reading a store never imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lthlib.runs.config import Parent, RunConfig
    from lthlib.runs.execution import Machine, execute
    from lthlib.runs.many import Progress, Swept, bar, execute_many, with_ancestors
    from lthlib.runs.store import RunResult, Store

_NAMES = {
    "store": ("RunResult", "Store"),
    "config": ("Parent", "RunConfig"),
    "execution": ("Machine", "execute"),
    "many": ("Progress", "Swept", "bar", "execute_many", "with_ancestors"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
