"""The table that figures draw: one row per judged ticket, replicates marked as such."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from lthlib.evidence import summarise, tidy
from lthlib.evidence.records import search_config


def ticket_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return `evidence.tidy(records)` with two more columns, `curve` and `point`.

    curve: the name under which a figure shows the ticket: its label, with `as found` added where
        the same label also has retrained tickets.
    point: the same for tickets of runs that differ in nothing but their seeds, and only for those:
        replicates of one point of a curve, also where a method finds its own density (CS).

    A failed run has neither density nor accuracy; its `target_density` is the one it was asked for.
    """
    kept = list(records)
    table = tidy(kept)
    table["point"] = [_point(record) for record in kept]
    asked = [search_config(record["config"])["settings"].get("density") for record in kept]
    table["target_density"] = table["target_density"].fillna(pd.Series(asked, dtype="float64"))
    ok = table[table["status"] == "ok"]  # a failed run does not say how it would have been judged
    retrained, found = (set(ok.loc[ok["judged"] == how, "label"]) for how in ("retrained", "found"))
    searched = pd.Series([record["config"]["method"] != "retrain" for record in kept], dtype=bool)
    twofold = searched & table["label"].isin(retrained & found)
    table["curve"] = table["label"].where(~twofold, table["label"] + ", as found")
    return table


def curve_points(table: pd.DataFrame, value: str = "test_accuracy") -> pd.DataFrame:
    """Return curve, point, mean density and n, mean, std, low, high of `value`, dense to sparse."""
    points = summarise(table, ["curve", "point"], value)
    return points.sort_values(["curve", "density"], ascending=[True, False], ignore_index=True)


def _point(record: Mapping[str, Any]) -> str:
    parts = [_without_seeds(record["config"]), (record["ticket"] or {}).get("index")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _without_seeds(config: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in config.items() if name != "seed"}
    parent = config["parent"]
    if parent is not None:
        rest["parent"] = {**parent, "config": _without_seeds(parent["config"])}
    return rest
