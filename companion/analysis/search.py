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
_COSTS = [f"{unit}_{kind}" for unit in SEARCH_UNITS for kind in _KINDS]


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
    keys = ["curve", "arrangement", "tickets"]
    states: list[dict[Any, Any]] = []
    for (curve, _), rows in _tickets(table).groupby(["curve", "seed"], sort=False):
        one = rows.rename(columns={"k": "tickets"}).groupby("tickets", as_index=False)[_COSTS]
        searches = {ONE: one.agg(pd.Series.mean, skipna=False).to_dict("records")}
        if rows["run"].nunique() > 1:
            searches[AT_ONCE] = list(_at_once(rows))
        for arrangement, costs in searches.items():
            states += [{"curve": curve, "arrangement": arrangement, **state} for state in costs]
    seeds = pd.DataFrame(states, columns=[*keys, *_COSTS]).groupby(keys, sort=False)
    return pd.concat([seeds.size().rename("n"), seeds.mean()], axis=1).reset_index()


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
    names = ["number", "density", "epochs_sequence", "epochs_sequence_retrained", "gated"]
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
    told = reported().query("quantity == 'epochs_in_sequence_for_the_tickets'")
    rows = []
    for curve, asked in rounds.items():
        own = tickets[tickets["curve"] == curve]
        if own.empty:
            continue
        epochs = own.groupby("k")["epochs_sequence"].mean()
        first = float(epochs.iloc[0])
        later = float(epochs.diff().mean()) if len(epochs) > 1 else first
        derived = length / training * (first + (asked - 1) * later)
        value = told.loc[told["method"] == curve, "value"].mean()
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
    for cost in ("epochs_sequence", "epochs_total", "passes_total", "seconds_sequence"):
        found, retrained = (last[name].map(_amount) for name in (cost, f"{cost}_retrained"))
        words[cost.replace("_", " in ")] = found + " / " + retrained
    return words


def _tickets(table: pd.DataFrame) -> pd.DataFrame:
    """Every ticket of a search that is no variant, with what it and its retraining cost.

    Beside the table's columns: k (rank in its run), number (round), gated, and for each unit
    UNIT_before (what the run rests on) and the costs of `search_costs` after this ticket.
    """
    good = table[table["status"] == "ok"]
    good = good.assign(shown=good["curve"], curve=good["curve"].str.removesuffix(", as found"))
    good = good.assign(number=round_numbers(good), gated=1.0 * good["initial_gate"].notna())
    dense, tickets = good[good["curve"] == "dense"], good[~good["curve"].str.startswith("dense")]
    again = tickets["parent"].isin(set(tickets["run"]))
    found = main_curves(tickets[~again])
    found = found.assign(k=found.groupby("run")["round"].rank().astype(int)).sort_values(
        "k", kind="stable"
    )
    rows = _with_retraining(found, tickets[again & (tickets["shown"] == tickets["curve"])])
    trains = rows["judged"] == "retrained"  # the search itself trains each ticket
    sequence = trains & (rows["method"] == "imp")  # and goes on from where that ends
    runs = rows.groupby("run")
    for unit in SEARCH_UNITS:
        own = rows[f"own_{unit}"]
        first = rows["seed"].map(dense.groupby("seed")[f"own_{unit}"].mean())
        known = own.mask(trains, 0.0)
        known = known.mask(rows["method"] == "imp", runs[f"own_{unit}"].shift().fillna(first))
        retraining = rows[f"again_{unit}"].mask(trains, own - known)
        every = retraining.groupby(rows["run"]).cumsum(skipna=False)
        rows[f"{unit}_before"] = rows[unit] - own
        rows[f"{unit}_sequence"] = rows[f"{unit}_total"] = rows[f"{unit}_before"] + known
        rows[f"{unit}_sequence_retrained"] = rows[f"{unit}_sequence"] + retraining
        rows[f"{unit}_total_retrained"] = rows[f"{unit}_total"] + every.mask(sequence, retraining)
    return rows


def _with_retraining(found: pd.DataFrame, retrained: pd.DataFrame) -> pd.DataFrame:
    """Add what each ticket's retraining cost by itself, again_UNIT; NaN where there is none."""
    names = {f"own_{unit}": f"again_{unit}" for unit in SEARCH_UNITS}
    costs = retrained[["parent", "round", "curve", *names]].rename(
        columns={"parent": "run"} | names
    )
    costs["curve"] = costs["curve"].str.removesuffix(", retrained")
    keys = ["run", "round", "curve"]
    return found.merge(costs.drop_duplicates(keys), how="left", on=keys)


def _at_once(rows: pd.DataFrame) -> Iterator[dict[Any, Any]]:
    """Costs after each round of a seed's searches together; what they rest on is trained once."""
    for k in sorted(set(rows["k"])):
        upto = rows[rows["k"] <= k]
        last = upto.loc[upto.groupby("run")["k"].idxmax()]
        state: dict[Any, Any] = {"tickets": len(upto)}
        for unit in SEARCH_UNITS:
            twice = last.loc[last["parent"].duplicated(), f"{unit}_before"].sum()
            for kind in _KINDS:
                cost = f"{unit}_{kind}"
                total = last[cost].sum(skipna=False) - twice
                state[cost] = total if "total" in kind else upto[cost].max(skipna=False)
        yield state


def _amount(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
