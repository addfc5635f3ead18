"""What the search for tickets costs: in sequence, in total, with and without retraining."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from companion.analysis.points import main_curves, round_numbers
from companion.evidence.reported import reported

ONE, AT_ONCE = "one search", "searches at once"

SEARCH_UNITS = ("epochs", "passes", "seconds")

_KINDS = ("sequence", "total", "sequence_retrained", "total_retrained")


def search_costs(table: pd.DataFrame) -> pd.DataFrame:
    """Return what it takes to have the first k tickets of a method, a row for each k.

    A ticket counts as found when its mask is known: IMP's k-th after k trainings, of which the
    first is the dense one; that of a search with gates after its round; OMP's after the dense
    training. `retrained` adds the tickets' training from the rewind point: in IMP each is part of
    the search for the next ticket, elsewhere they can run at once.

    Args:
        table: from `ticket_table`.

    Returns:
        Columns curve, arrangement (`one search`, its rounds in sequence; `searches at once`, where
        a seed has several searches), tickets (k), n (seeds), and for each unit of `SEARCH_UNITS`
        UNIT_sequence, UNIT_total, UNIT_sequence_retrained, UNIT_total_retrained. Sequence is what
        has to happen one after the other, total all that is done; means over seeds, NaN where
        tickets were not retrained.
    """
    found = []
    for (curve, _), rows in _tickets(table).groupby(["curve", "seed"], sort=False):
        for arrangement, states in ((ONE, _one_search(rows)), (AT_ONCE, _at_once(rows))):
            named = {"curve": curve, "arrangement": arrangement, "n": 1}
            found += [{**named, "tickets": tickets, **costs} for tickets, costs in states]
    names = [f"{unit}_{kind}" for unit in SEARCH_UNITS for kind in _KINDS]
    keys = ["curve", "arrangement", "tickets"]
    every = pd.DataFrame(found, columns=[*keys, "n", *names])
    how: dict[str, Any] = {"n": "sum", **dict.fromkeys(names, "mean")}
    return every.groupby(keys, sort=False, as_index=False).agg(how)


def at_same_density(table: pd.DataFrame) -> pd.DataFrame:
    """Return the epochs to each ticket of a search with gates, and to IMP's at its density.

    IMP is stopped at its first ticket that is as sparse, to 1 %.

    Args:
        table: from `ticket_table`.

    Returns:
        Columns curve, round, density, epochs, retrained, and imp_round, imp_density, imp_epochs,
        imp_retrained: in sequence from initialisation on, means over seeds. NaN where IMP's search
        ends at a higher density.
    """
    tickets = _tickets(table)
    names = ["number", "density", "found_epochs", "ready_epochs", "gated"]
    means = tickets.groupby(["curve", "point"], sort=False)[names].mean().reset_index("curve")
    means = means.sort_values(["curve", "density"], ascending=[True, False])
    ladder = means.loc[means["curve"] == "IMP", names[:4]].to_numpy(float)
    rows = []
    gated = means[means["gated"] == 1]
    for curve, own in zip(gated["curve"], gated[names[:4]].to_numpy(float), strict=True):
        reached = [step for step in ladder if step[1] <= 1.01 * own[1]]
        rows.append((curve, *own, *(reached[0] if reached else [float("nan")] * 4)))
    columns = ["round", "density", "epochs", "retrained"]
    return pd.DataFrame(rows, columns=["curve", *columns, *(f"imp_{one}" for one in columns)])


def derived_epochs(table: pd.DataFrame, rounds: Mapping[str, int], length: float) -> pd.DataFrame:
    """Return what the recorded epochs a round make of a search of other rounds and length.

    Args:
        table: from `ticket_table`.
        rounds: curve -> rounds of the search asked about.
        length: epochs of one of its trainings.

    Returns:
        Columns curve, recorded (rounds), first and later (recorded epochs of the first and of a
        later round), training (recorded epochs of the dense training), rounds, whole (rounds times
        length), derived (the recorded rounds stretched to that length), reported (by the CS paper).
    """
    tickets = _tickets(table)
    training = table.loc[table["curve"] == "dense", "own_epochs"].mean()
    papers = reported()
    told = papers[papers["quantity"] == "epochs_in_sequence_for_the_tickets"]
    rows = []
    for curve, asked in rounds.items():
        own = tickets[tickets["curve"] == curve]
        if own.empty:
            continue
        epochs = own.groupby("k")["found_epochs"].mean()
        first = float(epochs.iloc[0])
        later = float(epochs.diff().mean()) if len(epochs) > 1 else first
        derived = length / training * (first + (asked - 1) * later)
        known = told.loc[told["method"] == curve, "value"]
        value = float(known.iloc[0]) if len(known) else float("nan")
        counts = (len(epochs), first, later, training, asked, asked * length, derived, value)
        rows.append((curve, *counts))
    names = ["curve", "recorded", "first", "later", "training", "rounds", "whole", "derived"]
    return pd.DataFrame(rows, columns=[*names, "reported"])


def search_in_words(costs: pd.DataFrame) -> pd.DataFrame:
    """Return, for readers, what all tickets of a search cost: `found / retrained` in each cell.

    Args:
        costs: from `search_costs`.
    """
    last = costs.groupby(["curve", "arrangement"], sort=False).tail(1).reset_index(drop=True)
    words = last[["curve", "arrangement", "tickets"]].rename(columns={"curve": "search"})
    for unit, kind in (("epochs", 0), ("epochs", 1), ("passes", 1), ("seconds", 0)):
        name = f"{unit} in {_KINDS[kind]}"
        pairs = zip(last[f"{unit}_{_KINDS[kind]}"], last[f"{unit}_{_KINDS[kind + 2]}"], strict=True)
        words[name] = [" / ".join(map(_amount, pair)) for pair in pairs]
    return words


def _tickets(table: pd.DataFrame) -> pd.DataFrame:
    """Every ticket of a search that is no variant, with what it and its retraining cost.

    Beside the table's columns: k (rank in its run), number (round), gated, and for each unit
    before_ (what the run rests on), found_, again_ (its retraining), ready_ (found and retrained).
    """
    good = table[table["status"] == "ok"]
    good = good.assign(shown=good["curve"], curve=good["curve"].str.removesuffix(", as found"))
    good = good.assign(number=round_numbers(good), gated=1.0 * good["initial_gate"].notna())
    nets, tickets = (
        good[good["curve"].str.startswith("dense") == dense] for dense in (True, False)
    )
    again = tickets["parent"].isin(set(tickets["run"]))
    found = main_curves(tickets[~again])
    found = found.assign(k=found.groupby("run")["round"].rank().astype(int))
    joined = _with_retraining(found, tickets[again & (tickets["shown"] == tickets["curve"])])
    dense = nets[nets["curve"] == "dense"].groupby("seed")
    trains = joined["judged"] == "retrained"  # the search itself trains each ticket
    by_rank = joined.sort_values("k").groupby("run")
    for unit in SEARCH_UNITS:
        own = joined[f"own_{unit}"]
        first = joined["seed"].map(dense[f"own_{unit}"].mean())
        previous = by_rank[f"own_{unit}"].shift().reindex(joined.index).fillna(first)
        known = own.mask(trains, 0.0).mask(joined["method"] == "imp", previous)
        before = joined[unit] - own
        joined[f"before_{unit}"] = before
        joined[f"again_{unit}"] = joined[f"again_{unit}"].mask(trains, own - known)
        joined[f"found_{unit}"] = before + known
        joined[f"ready_{unit}"] = before + known + joined[f"again_{unit}"]
    return joined


def _with_retraining(found: pd.DataFrame, retrained: pd.DataFrame) -> pd.DataFrame:
    """Add what each ticket's retraining cost by itself, again_UNIT; NaN where there is none."""
    plain = retrained["curve"].str.removesuffix(", retrained")
    names = {f"own_{unit}": f"again_{unit}" for unit in SEARCH_UNITS}
    costs = retrained.assign(curve=plain).rename(columns={"parent": "search"} | names)
    costs = costs.drop_duplicates(["search", "round", "curve"])
    costs = costs[["search", "round", "curve", *names.values()]]
    return found.merge(
        costs, how="left", left_on=["run", "round", "curve"], right_on=["search", "round", "curve"]
    )


def _one_search(rows: pd.DataFrame) -> Iterator[tuple[int, dict[str, float]]]:
    """Costs after each round of one search, the mean over a seed's searches."""
    for k in sorted(set(rows["k"])):
        own = rows[rows["k"] == k]
        upto = rows[(rows["k"] <= k) & rows["run"].isin(own["run"])]
        costs = {}
        for unit in SEARCH_UNITS:
            found = own[f"found_{unit}"].mean()
            costs[f"{unit}_sequence"] = costs[f"{unit}_total"] = found
            costs[f"{unit}_sequence_retrained"] = own[f"ready_{unit}"].mean()
            costs[f"{unit}_total_retrained"] = found + _retraining(upto, unit) / len(own)
        yield int(k), costs


def _at_once(rows: pd.DataFrame) -> Iterator[tuple[int, dict[str, float]]]:
    """Costs after each round of a seed's searches together; what they rest on is trained once."""
    if rows["run"].nunique() < 2:
        return
    for k in sorted(set(rows["k"])):
        upto = rows[rows["k"] <= k]
        last = upto.loc[upto.groupby("run")["k"].idxmax()]
        costs = {}
        for unit in SEARCH_UNITS:
            own = (last[f"found_{unit}"] - last[f"before_{unit}"]).sum()
            shared = last.drop_duplicates("parent")[f"before_{unit}"].sum()
            costs[f"{unit}_sequence"] = last[f"found_{unit}"].max()
            costs[f"{unit}_total"] = own + shared
            costs[f"{unit}_sequence_retrained"] = upto[f"ready_{unit}"].max(skipna=False)
            costs[f"{unit}_total_retrained"] = own + shared + _retraining(upto, unit)
        yield len(upto), costs


def _retraining(rows: pd.DataFrame, unit: str) -> float:
    """All retrainings of some searches' tickets; of those of IMP the last is not in `found`."""
    inside = (rows["method"] == "imp") & (rows["judged"] == "retrained")
    last = rows.groupby("run")["k"].transform("max") == rows["k"]
    return float(rows.loc[~inside | last, f"again_{unit}"].sum(skipna=False))


def _amount(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
