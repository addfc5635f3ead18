"""What is counted before anything runs agrees with what runs."""

from __future__ import annotations

import pytest

from companion.counting import RETRAINED
from lthlib.methods import METHODS
from tests.methods.test_trajectories import last_ticket


@pytest.mark.parametrize("name", METHODS)
def test_tickets_are_counted_as_they_are_judged(name: str) -> None:
    dense = last_ticket("dense", None)
    parent = {"none": None, "dense": dense, "ticket": dense}[METHODS[name].parent]
    assert last_ticket(name, parent).judged == ("retrained" if name in RETRAINED else "found")
