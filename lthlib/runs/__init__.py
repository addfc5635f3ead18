"""Runs: a configuration, its id, the store that keeps results, and executing one run or many.

The names below are loaded when first used, so that reading a store never imports torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lthlib.runs.config import Parent, RunConfig
    from lthlib.runs.execute import Machine, execute
    from lthlib.runs.many import Progress, Swept, bar, execute_many, with_ancestors
    from lthlib.runs.store import RunResult, Store

_NAMES = {
    "store": ("RunResult", "Store"),
    "config": ("Parent", "RunConfig"),
    "execute": ("Machine", "execute"),
    "many": ("Progress", "Swept", "bar", "execute_many", "with_ancestors"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


class _Runs(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Here `execute` is the function, also when its module is imported.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Runs


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
