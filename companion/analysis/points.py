"""The table that figures draw: one row per judged ticket, replicates marked as such."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from companion.evidence.records import search_config, seedless, tidy
from companion.evidence.statistics import summarise

# Columns of published values, as they are called beside ours.
OUR_NAMES = {"method": "curve", "pruning_ratio_pct": "pruned", "value": "accuracy"}
_METHODS = ("IMP, learning-rate rewinding",)  # a method, for all its comma


def ticket_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return `tidy(records)` with three more columns, `curve`, `point`, `initial_gate`.

    A failed run has neither density nor accuracy; its `target_density` is the one it was asked for,
    and of IMP that of the round it failed in.

    Args:
        records: valid records.

    Returns:
        A row a judged ticket, with the columns of `tidy` and
        curve: the name under which a figure shows the ticket: its label, with `as found` added
            where the same label also has retrained tickets.
        point: the same for tickets of runs that differ in nothing but their seeds, and only for
            those: replicates of one point of a curve, also where a method finds its own density
            (CS).
        initial_gate: s0 of the search, where its method has gates.
    """
    records = list(records)
    table = tidy(records)
    table["point"] = [_point(record) for record in records]
    searches = [search_config(record["config"])["settings"] for record in records]
    gates = [settings.get("initial_gate") for settings in searches]
    targets = pd.Series([*map(_target_density, records, searches)], dtype="float64")
    table["target_density"] = table["target_density"].fillna(targets)
    table["initial_gate"] = pd.Series(gates, dtype="float64")
    ok = table[table["status"] == "ok"]  # a failed run does not say how it would have been judged
    retrained, as_found = (
        set(ok.loc[ok["judged"] == way, "label"]) for way in ("retrained", "found")
    )
    searched = pd.Series(
        [record["config"]["method"] != "retrain" for record in records], dtype=bool
    )
    twofold = searched & table["label"].isin(retrained & as_found)
    table["curve"] = table["label"].where(~twofold, table["label"] + ", as found")
    return table


def _target_density(record: Mapping[str, Any], settings: Mapping[str, Any]) -> float | None:
    failed = record["status"] == "failed" and record["ticket"]
    if failed and record["method"] == "imp":
        return float((1 - settings["fraction"]) ** failed["index"])
    return settings.get("density")


def main_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the methods themselves, without their variants.

    Args:
        table: from `ticket_table`; where all its curves are variants, as in a study of precisions,
            it is returned whole.
    """
    variant = table["curve"].str.contains(",", regex=False)
    methods = ~variant | table["curve"].isin(_METHODS)
    return table[methods] if methods.any() else table


def by_initial_gate(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a curve for each s0, `CS, s0 = -0.1`, where a curve has several.

    Args:
        table: from `ticket_table`.
    """
    counts = table.groupby("curve")["initial_gate"].nunique()
    varied = table["curve"].isin(counts.index[counts > 1])
    names = table["curve"] + ", s0 = " + table["initial_gate"].map("{:g}".format).astype(str)
    return table.assign(curve=table["curve"].where(~varied, names))


def pruned(table: pd.DataFrame) -> pd.Series:
    """Return the percentage pruned of each ticket: the pruning ratio of the BiP paper.

    Of a structured ticket it is the share of filters or channels taken from every layer, as asked
    for; of any other the share of weights.

    Args:
        table: from `ticket_table`.
    """
    unstructured = table["structure"] == "unstructured"
    targets = table["target_density"].fillna(table["density"])
    return 100 * (1 - table["density"].where(unstructured, targets))


def curve_points(table: pd.DataFrame, value: str = "test_accuracy") -> pd.DataFrame:
    """Return the means over seeds of each point of each curve, dense to sparse.

    Args:
        table: from `ticket_table`.
        value: the column that is averaged.

    Returns:
        Columns curve, point, density (mean), and n, mean, std, low, high of the value.
    """
    points = summarise(table, ["curve", "point"], value)
    return points.sort_values(["curve", "density"], ascending=[True, False], ignore_index=True)


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs that succeeded, with `pruned`."""
    good = table[table["status"] == "ok"]
    return good.assign(pruned=pruned(good))


def in_order(table: pd.DataFrame, names: Iterable[str], *then: str) -> pd.DataFrame:
    """Return the rows in the order in which names first name their curves, then by columns.

    Args:
        table: rows with a column `curve`.
        names: of curves; a name may come again.
        then: columns, each in rising order.
    """
    ranks = {name: rank for rank, name in enumerate(dict.fromkeys(names))}
    rows = table.assign(rank=table["curve"].map(ranks))
    return rows.sort_values(["rank", *then], kind="stable").drop(columns="rank")


def _point(record: Mapping[str, Any]) -> str:
    key = [seedless(record["config"]), (record["ticket"] or {}).get("index")]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
