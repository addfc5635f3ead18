"""The methods by name: each a search that yields tickets, each in a file of its own."""

from __future__ import annotations

from lthlib.errors import check_choice
from lthlib.methods import (
    bip,
    cs,
    dense,
    gmp,
    grasp,
    hydra,
    imp,
    iss,
    l0,
    omp,
    random,
    retrain,
    snip,
    synflow,
)
from lthlib.methods.base import Method, make_ticket

METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD
    for module in (
        *(dense, imp, cs, bip, hydra, omp, snip, grasp, synflow, gmp, l0, iss, random, retrain),
    )
}

__all__ = ["METHODS", "Method", "get_method", "make_ticket"]


def get_method(name: str) -> Method:
    """The method of that name. Raises ConfigError, listing the names, for any other."""
    check_choice("method", name, METHODS)
    return METHODS[name]
