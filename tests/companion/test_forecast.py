"""What runs will cost, from a few real steps."""

from __future__ import annotations

from companion.forecast import estimate
from lthlib.runs import Machine
from tests.runs.toys import config

DENSE = config()


def test_an_estimate_counts_runs_passes_and_seconds() -> None:
    found = estimate([DENSE, config(seed=1)], Machine(), jobs=2)
    assert (found["runs"], found["passes"]) == (2, 2 * 192)
    assert 0 < found["busy_seconds"] / 2 < found["seconds"]
