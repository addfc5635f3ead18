"""Methods as pruners: nets as found, and fine-tuned under their mask; the tuning behind them."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from companion.analysis.points import curve_points, ticket_table
from companion.evidence.records import search_config
from companion.evidence.statistics import tuning_score
from lthlib.errors import ConfigError

FOUND, TUNED = "as found", "fine-tuned"
# Settings in which trials differ; further ones (the penalty) trace a trial's curve.
TRIED = ("gate_learning_rate", "initial_gate")
_IN_BOTH = ("GMP", "random")
_RETRAINED = ("IMP, learning-rate rewinding",)


def pruned_nets(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the pruned networks of a study, as found and fine-tuned, dense in both.

    GMP trains while it prunes, a random mask is trained: both stand in both. IMP with learning-rate
    rewinding trains its weights on and counts as fine-tuned. Retrained tickets are left out.

    Args:
        table: from `ticket_table`.

    Returns:
        `as found` and `fine-tuned` -> rows, curves named by method alone.

    Raises:
        ConfigError: the study has no network pruned either way.
    """
    curves, shared = table["curve"], table["curve"].isin(("dense", *_IN_BOTH))
    masks = {
        FOUND: shared | curves.str.endswith(f", {FOUND}") & ~curves.str.startswith("IMP"),
        TUNED: shared | curves.str.endswith(f", {TUNED}") | curves.isin(_RETRAINED),
    }
    nets = {
        name: table[mask].assign(curve=curves[mask].str.removesuffix(f", {name}"))
        for name, mask in masks.items()
        if (curves[mask] != "dense").any()
    }
    if not nets:
        raise ConfigError("no curve is as found or fine-tuned; choose methods such as cs, gmp")
    return nets


def pruned_points(nets: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the points of both.

    Args:
        nets: from `pruned_nets`.

    Returns:
        Columns net, curve, density, n, mean, std, low, high.
    """
    points = [curve_points(rows).assign(net=name) for name, rows in nets.items()]
    names = ["net", "curve", "density", "n", "mean", "std", "low", "high"]
    return pd.concat(points, ignore_index=True)[names]


def tuning_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the trials of a tuning study with their scores on validation, a row a trial.

    Tickets count as found. See `evidence.statistics.tuning_score`.

    Args:
        records: of the tuning study.

    Returns:
        Columns method, one per setting of `TRIED`, tickets, sparsest (density), score (percent),
        chosen (whether it is the method's best).
    """
    records = list(records)
    table = ticket_table(records)
    for name in TRIED:
        settings = [search_config(record["config"])["settings"].get(name) for record in records]
        table[name] = pd.Series(settings, dtype="float64")
    good = (table["status"] == "ok") & (table["judged"] == "found") & table["initial_gate"].notna()
    rows = []
    for (label, *values), trial in table[good].groupby(["curve", *TRIED], sort=False):
        method = str(label).removesuffix(f", {FOUND}")
        rows.append((method, *values, len(trial), trial["density"].min(), tuning_score(trial)))
    trials = pd.DataFrame(rows, columns=["method", *TRIED, "tickets", "sparsest", "score"])
    best = trials.groupby("method")["score"].transform("max")
    return trials.assign(chosen=trials["score"] == best)
