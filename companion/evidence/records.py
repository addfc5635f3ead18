"""The tidy table of records: one row per judged ticket."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from companion.evidence.costs import UNITS, with_costs
from companion.evidence.scales import setup
from lthlib.records import COSTS, emptied

_COPIED = ("study", "scale", "label", "seed", "judged", "density", "status", "failure", "run")
_FROM_PROVENANCE = ("device", "device_name", "commit", "dirty", "started", "finished")
_COSTS = (*COSTS, *(f"own_{name}" for name in COSTS))
_READ = (
    *("study", "scale", "dataset", "architecture", "structure", "method", "label", "seed"),
    *("judged", "round", "rounds", "target_density", "density", "emptied"),
    *("test_accuracy", "validation_accuracy", "status", "failure"),
    *(*_COSTS, *_FROM_PROVENANCE, "run", "parent", "setup"),
)
COLUMNS = (*_READ, "passes", "own_passes", *(f"pretraining_{unit}" for unit in UNITS), "root")


def tidy(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per judged ticket, with the columns every figure and claim reads.

    `method` is the search's method: a `retrain` record appears under the method that found its
    mask. Densities are fractions in (0, 1], accuracies percent, costs as of `with_costs`;
    `round` is the ticket's index in its search, `rounds` how many that has if it trains gates,
    `emptied` the number of layers that keep no weight, `setup` what decides a run's scale.
    A failed run has no density and no accuracy.

    Args:
        records: valid records, from `load_results` or a local store.

    Returns:
        A table with columns `COLUMNS`, empty for no records.
    """
    types: dict[str, Any] = {"seed": "int64", "dirty": "bool"}
    types |= dict.fromkeys(("round", "rounds", "emptied"), "Int64")
    accuracies = ("test_accuracy", "validation_accuracy")
    types |= dict.fromkeys((*accuracies, "target_density", "density", *_COSTS), "float64")
    return with_costs(pd.DataFrame(map(_row, records), columns=list(_READ)).astype(types))


def search_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of the search behind a run: its nearest one that is no `retrain`."""
    while config["method"] == "retrain":
        config = config["parent"]["config"]
    return config


def seedless(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without its seeds: the same for runs that are replicates."""
    plain = {name: value for name, value in config.items() if name != "seed"}
    if (parent := config["parent"]) is not None:
        plain["parent"] = {**parent, "config": seedless(parent["config"])}
    return plain


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    ok, search = record["status"] == "ok", search_config(record["config"])
    ticket, accuracy = record["ticket"] if ok else {}, record["accuracy"] or {}
    settings = search["settings"]
    return {
        **{name: record[name] for name in (*_COPIED, "parent")},
        "dataset": record["config"]["data"]["dataset"],
        "architecture": record["config"]["model"]["architecture"],
        "structure": settings.get("structure", "unstructured"),
        "method": search["method"],
        "judged": "retrained" if record["method"] == "retrain" else record["judged"],
        "round": ticket.get("index"),
        "rounds": settings.get("rounds") if "initial_gate" in settings else None,
        "target_density": ticket.get("target_density"),
        "emptied": len(emptied(record)) if ok else None,
        "setup": setup(record["config"]),
        "test_accuracy": accuracy.get("test"),
        "validation_accuracy": accuracy.get("validation"),
        **record["cost"]["cumulative"],
        **{f"own_{name}": record["cost"]["own"][name] for name in COSTS},
        **{name: record["provenance"][name] for name in _FROM_PROVENANCE},
    }
