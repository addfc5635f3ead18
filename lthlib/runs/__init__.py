"""Runs: a configuration, its id, the store that keeps results, and executing one run or many."""

from lthlib.runs.config import Parent, RunConfig
from lthlib.runs.execute import Machine, execute
from lthlib.runs.many import (
    Progress,
    Swept,
    bar,
    default_jobs,
    execute_many,
    gpus,
    with_ancestors,
)
from lthlib.runs.store import RunResult, Store

__all__ = [
    "Machine",
    "Parent",
    "Progress",
    "RunConfig",
    "RunResult",
    "Store",
    "Swept",
    "bar",
    "default_jobs",
    "execute",
    "execute_many",
    "gpus",
    "with_ancestors",
]
