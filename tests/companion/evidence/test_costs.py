"""What tickets cost: one table, of which every figure and verdict reads columns."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from companion.evidence.comparisons import COUNTING, Case, View, cost
from companion.evidence.costs import UNITS, bills, spent, with_costs
from companion.evidence.records import COLUMNS, tidy
from lthlib.records import COSTS
from tests.companion.figures.toys import study, table


def row(label: str, method: str, run: str, parent: str | None, own: float, total: float) -> dict:
    return (
        {"study": "s", "label": label, "method": method, "run": run, "parent": parent, "seed": 0}
        | {"dataset": "cifar10", "architecture": "resnet20", "status": "ok", "scale": "paper"}
        | {"structure": "unstructured", "density": 0.5, "curve": label}
        | {"judged": "found" if method == "dense" else "retrained"}
        | dict.fromkeys(COSTS, total)
        | {f"own_{name}": own for name in COSTS}
    )


def chain() -> pd.DataFrame:
    """Dense of 8; a search of 16 from it, retrained for 4; a search of 12 that starts untrained,
    retrained for 4; IMP, which trains 8 and twice 6."""
    rows = [
        row("dense", "dense", "d", None, 8, 8),
        row("BiP, as found", "bip", "b", "d", 16, 24),
        row("BiP", "bip", "br", "b", 4, 28),
        row("CS, as found", "cs", "c", None, 12, 12),
        row("CS", "cs", "cr", "c", 4, 16),
        row("IMP", "imp", "i", None, 20, 20),
    ]
    return with_costs(pd.DataFrame(rows))


@pytest.mark.parametrize(("unit", "times"), [("epochs", 1), ("passes", 2), ("seconds", 1)])
def test_only_the_dense_training_is_left_out_of_what_a_ticket_cost(unit: str, times: int) -> None:
    rows = chain()
    whole = [8, 24, 28, 12, 16, 20]
    assert spent(rows, unit).tolist() == [times * one for one in whole]
    # A search and its retraining stay; a dense network is no pretraining of itself.
    without = [8, 16, 20, 12, 16, 12]
    assert spent(rows, unit, pretraining=False).tolist() == [times * one for one in without]


def test_a_bill_counts_each_run_once() -> None:
    rows = chain().assign(curve="all")
    found = [bills(rows.head(count), "epochs") for count in range(1, 7)]
    assert [bill["all", 0] for bill in found] == [8, 24, 28, 40, 44, 64]


def test_of_a_dense_network_that_is_not_known_nothing_is_claimed() -> None:
    left = with_costs(chain().query("label != 'dense'"))
    found = spent(left, "epochs", pretraining=False)
    assert [math.isnan(one) for one in found] == [True, True, False, False, True]


def test_failed_dense_runs_do_not_lower_what_imp_began_with() -> None:
    failed = row("dense", "dense", "f", None, 1, 1) | {"status": "failed"}
    rows = with_costs(pd.concat([chain(), pd.DataFrame([failed])], ignore_index=True))
    assert rows.set_index("run").loc["i", "pretraining_epochs"] == 8


def test_retrained_cs_keeps_its_search_when_pretraining_is_left_out() -> None:
    rows = pd.concat([chain().assign(seed=seed) for seed in range(3)], ignore_index=True)
    rows["run"] += rows["seed"].astype(str)
    rows["device_name"] = "A"
    rows["density"] = rows["density"].where(rows["label"] == "dense", 0.512)
    rows = rows.assign(scale=COUNTING, setup=[()] * len(rows))
    view = View.of(rows.reindex(columns=list(COLUMNS)), COUNTING, {}, "cs")
    curves = ("IMP retrained", "CS retrained")
    of = "passes without pretraining"
    case = Case(view, "cifar10 / resnet20", *curves, "at least 1", of, "cost")
    assert cost(case).value.mean == pytest.approx(12 / 16)


def test_the_tidy_table_holds_all_costs() -> None:
    assert {f"{kind}{unit}" for kind in ("", "own_", "pretraining_") for unit in UNITS} <= set(
        tidy(study(1)).columns
    )
    whole = table()
    bip = whole[whole["curve"] == "BiP"]
    assert (bip["pretraining_epochs"] == 10).all()
