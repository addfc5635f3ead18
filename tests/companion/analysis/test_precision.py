"""Which precisions may stand for one another, on made-up records."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from companion.analysis.precision import (
    TOGETHER,
    margin,
    precision_differences,
    precision_outcome,
    precision_table,
)
from companion.evidence.claims import Verdict, judge
from tests.companion.evidence.test_claims import B1 as CLAIM_B1
from tests.companion.figures.toys import Record, record

GAPS = (-0.3, 0.1, 0.2)  # of bf16, by seed: their mean is 0


def at(precision: str, label: str, method: str, seed: int, *given: Any, **more: Any) -> Record:
    made = record(f"{label}, {precision}", method, seed, *given, **more)
    made["config"]["training"]["precision"] = precision
    made["run"] += precision
    return made


def study(*more: str, seeds: int = 3) -> list[Record]:
    """Dense, BiP at a density, and CS, which keeps 2.5 % more weights in bf16."""
    records = []
    for precision in ("fp32", "bf16", *more):
        for seed in range(seeds):
            gap = GAPS[seed] if precision == "bf16" else 0.0
            beyond = 1.025 if precision == "bf16" else 1.0
            dense = at(precision, "dense", "dense", seed, 1.0, 98.0 + seed + gap, judged="found")
            base = {"parent": dense["run"], "source": {"config": dense["config"], "point": "dense"}}
            tests = 97.0 + seed + 2 * gap
            records += [
                dense,
                at(precision, "BiP", "bip", seed, 0.2, tests, density=0.2, **base),
                at(precision, "CS", "cs", seed, 0.1 * beyond, 97.0 + seed, penalty=1e-4),
            ]
    return records


def found(records: list[Record]) -> pd.DataFrame:
    return precision_differences(precision_table(records)).set_index("name")


def test_tickets_that_differ_in_precision_alone_share_curve_and_point() -> None:
    table = precision_table(study())
    assert table.groupby("point")["precision"].nunique().tolist() == [2, 2, 2]
    assert set(table["curve"]) == {"dense", "BiP", "CS"}


def test_differences_are_paired_by_seed() -> None:
    rows = found(study())
    assert list(rows.index) == ["dense", "BiP, 20 %", "CS, 10 %", TOGETHER]
    assert rows["n"].tolist() == [3] * 4
    assert rows["difference"].tolist() == pytest.approx([0, 0, 0, 0])
    # Three gaps of variance 0.07 around 0; 4.303 is the t quantile of two degrees of freedom.
    half = 4.303 * math.sqrt(0.07) / math.sqrt(3)
    assert rows.loc["dense", ["low", "high"]].tolist() == pytest.approx([-half, half], abs=1e-3)
    # Three kinds of ticket with gaps of once, twice and never as much: once as much on average.
    assert rows.loc[TOGETHER, "high"] == pytest.approx(half, abs=1e-3)


def test_a_method_with_a_count_keeps_it_and_another_is_measured() -> None:
    rows = found(study())
    assert rows["kept"].tolist()[:3] == pytest.approx([0, 0, 2.5])
    assert math.isnan(rows.loc[TOGETHER, "kept"])


def shifted(gap: float, spread: float, beyond: float = 0.0, scale: str = "reduced") -> str:
    """The outcome for CS whose accuracy in bf16 differs by gap - spread to gap + spread."""
    records = []
    for seed, sign in enumerate((-1, 0, 1)):
        for precision, test, density in (
            ("fp32", 90.0, 0.1),
            ("bf16", 90 + gap + sign * spread, 0.1 * (1 + (beyond + 0.001 * sign) / 100)),
        ):
            records.append(at(precision, "CS", "cs", seed, density, test) | {"scale": scale})
    (outcome,) = found(records)["outcome"]
    return str(outcome)


@pytest.mark.parametrize(
    ("gap", "spread", "beyond", "scale", "outcome"),
    [
        (0.1, 0.1, 0.0, "reduced", "interchangeable"),
        (0.1, 0.1, 0.0, "paper", "not shown"),
        (0.0, 1.0, 0.0, "reduced", "not shown"),
        (0.45, 0.1, 0.0, "reduced", "not shown"),
        (-2.0, 0.1, 0.0, "reduced", "differs"),
        (0.1, 0.1, 1.5, "reduced", "interchangeable"),
        (0.1, 0.1, 2.0, "reduced", "not shown"),
        (0.1, 0.1, -3.0, "reduced", "differs"),
    ],
)
def test_the_outcome_rests_on_both_intervals(
    gap: float, spread: float, beyond: float, scale: str, outcome: str
) -> None:
    assert shifted(gap, spread, beyond, scale) == outcome


def test_all_together_are_the_same_only_if_every_density_agrees() -> None:
    for beyond, outcome in ((1.0, "interchangeable"), (1.03, "differs")):
        records = []
        for seed in range(3):
            for precision, factor in (("fp32", 1.0), ("bf16", beyond)):
                cs = at(precision, "CS", "cs", seed, 0.1 * factor, 90.0)
                records += [at(precision, "dense", "dense", seed, 1.0, 90.0), cs]
        assert found(records)["outcome"].tolist() == ["interchangeable", outcome, outcome]


def test_the_margin_is_narrower_at_paper_scale() -> None:
    assert (margin("embedded"), margin("reduced"), margin("paper")) == (0.5, 0.5, 0.2)


def test_one_seed_shows_nothing() -> None:
    rows = found(study(seeds=1))
    assert rows["low"].isna().all()
    assert set(rows["outcome"]) == {"not shown"}
    words = precision_outcome(rows.reset_index(), 0.5)
    assert "accuracy differs by -0.30 points on average: **not shown**" in words


def test_a_failed_run_leaves_its_pair_out_here_and_over_all() -> None:
    records = study()
    (broken,) = (one for one in records if one["label"] == "BiP, bf16" and one["seed"] == 2)
    records.remove(broken)
    records.append(at("bf16", "BiP", "bip", 2, 0.2, None, density=0.2))
    rows = found(records)
    assert rows.loc[["dense", "BiP, 20 %", TOGETHER], "n"].tolist() == [3, 2, 2]


def test_without_pairs_there_is_nothing() -> None:
    assert found([one for one in study() if one["label"].endswith("fp32")]).empty


def test_the_words_for_it() -> None:
    rows = precision_differences(precision_table(study()))
    assert precision_outcome(rows, 0.5).startswith(
        "**bf16 against fp32:** of 3 kinds of ticket 1 differs, 2 not shown. Over all of them "
    )


def test_no_claim_uses_these_tickets() -> None:
    plain, nothing = CLAIM_B1["both lines"][0], CLAIM_B1["both lines"][0].iloc[:0]
    other = plain.assign(label=plain["label"] + ", bf16")
    used, unused, none = ([decided(one) for one in judge(t, {})] for t in (plain, other, nothing))
    assert used != none
    assert unused == none


def decided(verdict: Verdict) -> tuple[object, ...]:
    """A verdict without its text, which also names runs that are of no use to it."""
    return verdict.outcome, verdict.direction, verdict.effect, verdict.interval, verdict.n
