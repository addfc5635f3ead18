"""What tickets cost: by themselves, with all they rest on, without pretraining, and together."""

from itertools import pairwise

import pandas as pd

UNITS = ("epochs", "images", "passes", "flops", "seconds")


def with_costs(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of tickets with all that each cost, in every one of `UNITS`.

    UNIT is the cost from initialisation on; own_UNIT that of the ticket's own run; pretraining_UNIT
    the part of UNIT that is the training of the dense network which the ticket rests on. It is 0
    for what starts untrained, as dense networks do themselves. IMP's runs begin with that training:
    theirs is the mean over the study's dense networks, NaN without any, as it is for what rests on
    a run that the table lacks.

    Args:
        table: a row a judged ticket, with the costs of `lthlib.records.COSTS` and their `own_`.

    Returns:
        The table with the columns passes (images sent forward plus images sent backward),
        own_passes, pretraining_UNIT, and root, the first of the runs that a ticket rests on.
    """
    sums = {
        f"{prefix}passes": table[f"{prefix}forward_passes"] + table[f"{prefix}backward_passes"]
        for prefix in ("", "own_")
    }
    rows = table.assign(**sums)
    studies = [_pretraining_shares(study) for _, study in rows.groupby("study")]
    shares = pd.concat(studies) if studies else _pretraining_shares(rows)
    rows[shares.columns] = shares
    return rows


def spent(rows: pd.DataFrame, unit: str, pretraining: bool = True) -> pd.Series:
    """Return what each ticket cost from initialisation on, everybody's pretraining counted or not.

    Args:
        rows: of a table from `tidy`.
        unit: one of `UNITS`.
        pretraining: whether the training of the dense network counts, for all that rest on it.
    """
    return rows[unit] if pretraining else rows[unit] - rows[f"pretraining_{unit}"]


def bills(rows: pd.DataFrame, unit: str) -> pd.Series:
    """Return what all tickets of a curve and seed cost together: (curve, seed) -> cost.

    Each run counts once, with all it rests on: one IMP sequence yields all its tickets, BiP repeats
    for each, and the dense network that they start from is trained once.

    Args:
        rows: of a table from `ticket_table`.
        unit: one of `UNITS`.
    """
    before = (rows[unit] - rows[f"own_{unit}"]).groupby(rows["run"]).max()
    parents = rows.drop_duplicates("run").set_index("run")["parent"]
    paid = []
    for row in rows.to_dict("records"):
        line = _ancestry(row["run"], parents)
        below = [float(before.get(run, 0.0)) for run in line]
        amounts = [row[f"own_{unit}"], *(whole - inherited for whole, inherited in pairwise(below))]
        paid += [
            (row["curve"], row["seed"], *payment) for payment in zip(line, amounts, strict=True)
        ]
    keys = ["curve", "seed", "run"]
    runs = pd.DataFrame(paid, columns=[*keys, "cost"]).groupby(keys, sort=False)["cost"].max()
    return runs.groupby(keys[:2], sort=False).sum()


def _pretraining_shares(study: pd.DataFrame) -> pd.DataFrame:
    """What of the costs of one study's tickets is the training of the dense network."""
    runs = study.drop_duplicates("run").set_index("run")
    costs = runs[[f"own_{unit}" for unit in UNITS]].set_axis(list(UNITS), axis=1)
    plain = (runs["label"] == "dense") & (runs["status"] == "ok")
    nets = [runs["dataset"], runs["architecture"]]
    level = costs.where(plain).groupby(nets).transform("mean")
    trained, sequence = runs["method"] == "dense", runs["method"] == "imp"
    first = costs.where(trained, level.where(sequence, 0.0)).mask(runs["parent"].notna())
    lines = (_ancestry(str(run), runs["parent"]) for run in study["run"])
    roots = [[run for run in line if run in first.index][-1] for line in lines]
    shares = first.loc[roots].set_axis(study.index).add_prefix("pretraining_")
    return shares.where(study["method"] != "dense", 0.0).assign(root=roots)


def _ancestry(run: str, parents: pd.Series) -> list[str]:
    """A run and all it rests on; the last may be one that is not known."""
    line = [run]
    while isinstance(parent := parents.get(line[-1]), str):
        line.append(parent)
    return line
