"""What the papers report: published values as data, each with how exactly it is known."""

from functools import cache
from importlib.resources import files

import pandas as pd

_NO_NUMBER = {"pruning_ratio_pct": ["", "any"], "value": ["none"], "std": [""]}


def reported() -> pd.DataFrame:
    """Return every published value we know, one row each.

    Returns:
        Columns `paper`, `artefact` (figure or table), `dataset`, `architecture`, `structure`,
        `method`, `pruning_ratio_pct` (percent of the weights removed; NaN where a value holds at
        any ratio or no ticket exists), `quantity`, `value` (in the quantity's unit; NaN where the
        paper reports that no winning ticket was found), `std`, `precision` (`table`, `read-off`,
        `second-hand`, ...) and `density` = 1 - `pruning_ratio_pct` / 100.

    Source:
        BiP (2022) Table 1, Figs 1, 3, 4 and the runtime figure; CS (2020), second-hand; Renda et
        al. (2020), published data.
    """
    with (files(__package__) / "reported.csv").open(encoding="utf-8") as lines:
        table = pd.read_csv(lines, na_values=_NO_NUMBER, keep_default_na=False)
    return table.assign(density=1 - table["pruning_ratio_pct"] / 100)


def quoted() -> pd.DataFrame:
    """Return what others published of pruning methods that lthlib does not run, one row a result.

    Returns:
        Columns `method`, `dataset`, `architecture`, `sparsity_pct` (percent removed; NaN where it
        is not given), `unit` (of what: weights, channels, FLOPs), `test_accuracy_pct`,
        `dense_accuracy_pct` (NaN where not given), `source` (a file and the commit it was read at).
    """
    with (files(__package__) / "quoted.csv").open(encoding="utf-8") as lines:
        return pd.read_csv(lines)


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
    names = {"dataset": dataset, "architecture": architecture}
    chosen = table["quantity"] == "test_accuracy_pct"
    for column, name in names.items():
        chosen &= table[column].map(plain_name) == plain_name(name)
    for column, choice in {"structure": structure, "method": method, "artefact": artefact}.items():
        chosen &= (table[column] == choice) | (choice is None)
    rows = table[chosen]
    return rows.sort_values(["method", "density"], ascending=[True, False], ignore_index=True)


def reported_speed_up() -> pd.DataFrame:
    """Return how many times longer IMP takes than BiP, by the paper's own minutes.

    Derived from its runtime figure (CIFAR-10, ResNet-18). Whether its minutes of BiP hold the dense
    training that BiP starts from was not found; they are taken not to. IMP's first mask comes from
    a dense training too, which counts as long as one of its rounds.

    Returns:
        Columns pruning_ratio_pct, density, imp, bip, dense (minutes), neither (IMP / BiP with
        nobody's dense training counted), both (with everybody's), dense to sparse.
    """
    table = reported().query("artefact == 'runtime figure' and quantity == 'minutes_on_A6000'")
    at_any = table[table["density"].isna()].set_index("method")["value"]
    imp = table[table["method"] == "IMP"].sort_values("density", ascending=False, ignore_index=True)
    times = imp[["pruning_ratio_pct", "density"]].assign(imp=imp["value"])
    times = times.assign(bip=at_any["BiP"], dense=at_any["dense"])
    times["neither"] = times["imp"] / times["bip"]
    times["both"] = (times["imp"] + times["imp"].iloc[0]) / (times["bip"] + times["dense"])
    return times


@cache
def plain_name(name: str) -> str:
    """Return a data set's or network's name as the library spells it: `ResNet-20` -> `resnet20`."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
