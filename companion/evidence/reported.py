"""What the papers report: published values as data, each with how exactly it is known."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

from lthlib.errors import RecordError

COLUMNS = (
    "paper",
    "artefact",
    "dataset",
    "architecture",
    "structure",
    "method",
    "pruning_ratio_pct",
    "quantity",
    "value",
    "std",
    "precision",
)
ACCURACIES = ("test_accuracy_pct", "sparsest_winning_ticket_accuracy_pct")
QUANTITIES = (*ACCURACIES, "minutes_on_A6000", "epochs_in_sequence_for_the_tickets")
QUOTED = (
    *("method", "dataset", "architecture", "sparsity_pct", "unit"),
    *("test_accuracy_pct", "dense_accuracy_pct", "source"),
)
_NUMBERS = {"pruning_ratio_pct": ("", "any"), "value": ("none",), "std": ("",)}


def reported() -> pd.DataFrame:
    """Return every published value we know, one row each.

    Returns:
        Columns `paper`, `artefact` (figure or table), `dataset`, `architecture`, `structure`,
        `method`, `pruning_ratio_pct` (percent of the weights removed; NaN where a value holds at
        any ratio or no ticket exists), `quantity`, `value` (in the quantity's unit; NaN where the
        paper reports that no winning ticket was found), `std`, `precision` (`table`, `read-off`,
        `second-hand`, ...) and `density` = 1 - `pruning_ratio_pct` / 100.

    Raises:
        RecordError: the packaged table is damaged.

    Source: BiP (2022) Table 1, Figs 1, 3, 4 and the runtime figure; CS (2020), second-hand; Renda
    et al. (2020), published data.
    """
    return _typed(_read())


def quoted() -> pd.DataFrame:
    """Return what others published of pruning methods that lthlib does not run, one row a result.

    Returns:
        Columns `method`, `dataset`, `architecture`, `sparsity_pct` (percent removed; NaN where it
        is not given), `unit` (of what: weights, channels, FLOPs), `test_accuracy_pct`,
        `dense_accuracy_pct` (NaN where not given), `source` (a file and the commit it was read at).

    Raises:
        RecordError: the packaged table is damaged.
    """
    with (files(__package__) / "quoted.csv").open(encoding="utf-8") as lines:
        table = pd.read_csv(lines)
    if tuple(table.columns) != QUOTED:
        raise RecordError(f"quoted.csv has columns {list(table.columns)}; install lthlib again")
    for column in ("sparsity_pct", "test_accuracy_pct", "dense_accuracy_pct"):
        if not table[column].dropna().between(0, 100).all():
            raise RecordError(f"quoted.csv: {column} holds what is no percentage")
    if table[["method", "test_accuracy_pct", "source"]].isna().any().any():
        raise RecordError("quoted.csv: a row lacks its method, accuracy or source")
    return table


def reported_curve(
    dataset: str,
    architecture: str,
    method: str | None = None,
    structure: str = "unstructured",
    artefact: str | None = None,
) -> pd.DataFrame:
    """Return published test accuracies against density for one data set and network.

    Args:
        dataset: `cifar10` and `CIFAR-10` mean the same, as do `resnet20` and `ResNet-20` below.
        architecture: the network.
        method: as the paper names it (`BiP`, `IMP, weight rewinding`); all methods when None.
        structure: `unstructured` or `filter`.
        artefact: `Fig 3`, `published data`, ...; all when None, so a density may then occur twice.

    Returns:
        Rows of `reported()` sorted by method, then falling density; empty where none was published.
    """
    table = reported()
    chosen = (
        (table["quantity"] == "test_accuracy_pct")
        & (table["dataset"].map(plain_name) == plain_name(dataset))
        & (table["architecture"].map(plain_name) == plain_name(architecture))
        & (table["structure"] == structure)
    )
    if method is not None:
        chosen &= table["method"] == method
    if artefact is not None:
        chosen &= table["artefact"] == artefact
    curve = table[chosen]
    return curve.sort_values(["method", "density"], ascending=[True, False], ignore_index=True)


def reported_speed_up() -> pd.DataFrame:
    """Return how many times longer IMP takes than BiP, by the paper's own minutes.

    Derived from its runtime figure (CIFAR-10, ResNet-18). Whether its minutes of BiP hold the dense
    training that BiP starts from was not found; they are taken not to. IMP's first mask comes from
    a dense training too, which counts as long as one of its rounds.

    Returns:
        Columns pruning_ratio_pct, density, imp, bip, dense (minutes), neither (IMP / BiP with
        nobody's dense training counted), both (with everybody's), dense to sparse.
    """
    table = reported()
    table = table[
        (table["artefact"] == "runtime figure") & (table["quantity"] == "minutes_on_A6000")
    ]
    at_any = table[table["density"].isna()].set_index("method")["value"]
    imp = table[table["method"] == "IMP"].sort_values("density", ascending=False)
    found = imp[["pruning_ratio_pct", "density"]].assign(imp=imp["value"])
    found = found.assign(bip=at_any["BiP"], dense=at_any["dense"]).reset_index(drop=True)
    found["neither"] = found["imp"] / found["bip"]
    found["both"] = (found["imp"] + found["imp"].iloc[0]) / (found["bip"] + found["dense"])
    return found


def plain_name(name: str) -> str:
    """Return a data set's or network's name as the library spells it: `ResNet-20` -> `resnet20`."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _read() -> pd.DataFrame:
    with (files(__package__) / "reported.csv").open(encoding="utf-8") as lines:
        return pd.read_csv(lines, dtype=str, keep_default_na=False)


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    if tuple(table.columns) != COLUMNS:
        raise RecordError(
            f"reported.csv has columns {list(table.columns)}, expected {list(COLUMNS)}; "
            "install lthlib again"
        )
    typed = table.copy()
    for column, blanks in _NUMBERS.items():
        known = table[column].where(~table[column].isin(blanks))
        typed[column] = pd.to_numeric(known, errors="coerce").astype(float)
        _refuse(typed[column].isna() & known.notna(), column, "a number", table)
    accuracy = typed["quantity"].isin(ACCURACIES) & typed["value"].notna()
    _refuse(~typed["quantity"].isin(QUANTITIES), "quantity", f"one of {list(QUANTITIES)}", table)
    _refuse(
        ~typed["pruning_ratio_pct"].fillna(0).between(0, 99.99),
        "pruning_ratio_pct",
        "[0, 100)",
        table,
    )
    _refuse(accuracy & ~typed["value"].between(0, 100), "value", "a percentage in [0, 100]", table)
    typed["density"] = 1 - typed["pruning_ratio_pct"] / 100
    return typed


def _refuse(wrong: pd.Series, column: str, expected: str, table: pd.DataFrame) -> None:
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise RecordError(
            f"reported.csv, line {row + 2}: {column} is {table[column].iloc[row]!r}, "
            f"expected {expected}"
        )
