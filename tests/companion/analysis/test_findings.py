"""What a notebook's page begins with: its numbers are those of the rows, and change with them."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from companion.analysis.findings import (
    controls_tell,
    cost_most,
    departures_tell,
    finding,
    hypergradient_tells,
    match_dense,
    panels_tell,
    seeds_agree,
    settings_tell,
)
from companion.analysis.points import ticket_table
from companion.markdown import Markdown
from tests.companion.figures.toys import record

NONE = math.nan


def study(scale: str = "embedded", seeds: int = 3) -> pd.DataFrame:
    """Dense at 95 to 97 %; BiP falls with density, OMP sooner; each seed is a point better."""
    rows = []
    for seed in range(seeds):
        rows.append(record("dense", "dense", seed, 1.0, 95.0 + seed, judged="found"))
        for label, levels in {
            "BiP": (96, 95.5, 90),
            "OMP": (95, 94, 80),
            "random": (90,) * 3,
        }.items():
            for density, level in zip((0.5, 0.2, 0.05), levels, strict=True):
                rows.append(
                    record(label, label.lower(), seed, density, level + seed - 1, density=density)
                )
    return ticket_table([{**row, "scale": scale} for row in rows])


def gaps(*rows: tuple[Any, ...]) -> pd.DataFrame:
    columns = ["name", "series", "density", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ("embedded", "embedded scale, which feeds no verdict."),
        ("reduced", "reduced scale, which gives a direction at most."),
        ("paper", "paper scale."),
    ],
)
def test_a_finding_says_what_it_rests_on(scale: str, words: str) -> None:
    text = finding(Markdown("Found."), study(scale))
    assert text.startswith("**Found.** Resnet8 on digits; seeds: 3; ")
    assert text.endswith(words)


def test_seeds_are_those_of_the_curves_and_not_of_dense() -> None:
    table = study()
    table = table[(table["curve"] == "BiP") | (table["seed"] == 0) | (table["curve"] == "dense")]
    assert "seeds: 1 to 3; " in finding(Markdown("Found."), table)


def test_where_nothing_was_pruned_that_is_said() -> None:
    dense = study()[lambda rows: rows["curve"] == "dense"]
    text = finding(cost_most(dense.assign(cost=1.0), "epochs"), dense)
    assert text.startswith("**There is no ticket.** Resnet8 on digits; seeds: 3; ")


def test_the_sparsest_within_a_standard_deviation_of_dense() -> None:
    text = match_dense({"ticket": study()})
    assert text == (
        "The sparsest ticket within a standard deviation of dense keeps 20 % (BiP), 50 % (OMP); "
        "there is none of random."
    )


def test_without_dense_nothing_matches() -> None:
    table = study()
    assert match_dense({"ticket": table[table["curve"] != "dense"]}).startswith("There is no dense")


def test_costs_are_those_of_the_sparsest_and_equal_ones_stand_together() -> None:
    points = pd.DataFrame(
        [("dense", 5.0), ("IMP", 20.0), ("IMP", 90_000.0), ("CS", 10.0), ("OMP", 10.0)],
        columns=["curve", "cost"],
    )
    text = cost_most(points, "epochs")
    assert text == "The sparsest ticket of each costs 10 epochs (CS, OMP) and 90 k epochs (IMP)."


def test_seeds_agree_beside_chance() -> None:
    names = ["IMP", "CS"]
    overlap = pd.DataFrame([[0.5, 0.9], [0.9, NONE]], names, names)
    text = seeds_agree(overlap, overlap / 2)
    assert text.endswith("by chance: IMP 0.50 (0.25).")
    assert seeds_agree(pd.DataFrame(), pd.DataFrame()) == "No method has masks of two seeds here."


def test_departures_that_tell_are_those_whose_interval_leaves_out_zero() -> None:
    effects = gaps(
        ("all at once", "all at once", 0.05, -8.0, -9.0, -7.0),
        ("all at once", "all at once", 0.2, -0.01, -1.0, 1.0),
        ("aliased", "made", 0.05, -3.0, -4.0, -2.0),
        ("signed", "made", 0.05, -3.01, -4.0, -2.0),
        ("rate", "made", 0.05, -20.0, -50.0, 10.0),
        ("rate", "undone", 0.05, 5.0, NONE, NONE),
    )
    text = departures_tell(effects).replace("\\", "")
    assert text == (
        "The release less the paper's BiP is -8.0 [-9.0, -7.0] points at 5 % density and "
        "+0.0 [-1.0, 1.0] points at 20 % density. Alone, made, most comes "
        "from `aliased`, `signed`: -3.0 [-4.0, -2.0] points at 5 % density. "
        "No departure alone, undone, is told apart from none."
    )


def test_controls_stand_on_the_side_that_their_interval_lies() -> None:
    rows = gaps(
        ("BiP, shuffled", "", 0.05, -8.0, -9.0, -7.0),
        ("BiP, |theta|", "", 0.05, -0.5, -2.0, 1.0),
        ("BiP, longer", "", 0.05, 2.0, 1.0, 3.0),
        ("BiP, once", "", 0.05, 4.0, NONE, NONE),
        ("BiP, shuffled", "", 0.2, 0.0, -1.0, 1.0),
        ("OMP", "", 0.01, -9.0, -9.5, -8.5),
    )
    assert controls_tell(rows, "BiP").replace("\\", "") == (
        "Controls less BiP as found at 5 % density, in points. Lower: shuffled -8.0; "
        "higher: longer +2.0; not told apart: |theta| -0.5; "
        "with one seed, and so not told apart: once +4.0."
    )
    assert controls_tell(rows.iloc[:0], "BiP") == "No control of BiP was run."


def test_settings_that_move_most_and_least_in_the_sparsest_line() -> None:
    rows = [("round 1", "gate", "0.5", 0.5, 50.0), ("round 1", "gate", "1", 0.5, 99.0)]
    rows += [("round 2", "penalty", str(size), size, 90.0 - size) for size in (1, 2, 9)]
    rows += [("round 2", "gate_rate", str(size), 0.1, 90.0 + size) for size in (1, 2)]
    rows += [("round 2", "alone", "1", 0.1, 10.0)]
    means = pd.DataFrame(rows, columns=["line", "setting", "value", "density", "accuracy"])
    assert settings_tell(means.assign(density=0.1), "CS") == (
        "CS, round 2, moves most with penalty, by 8.0 points: 81.0 % at 9 (10 % kept), "
        "89.0 % at 1 (10 % kept). Least with gate rate, by 1.0 points: 91.0 % at 1 (10 % kept), "
        "92.0 % at 2 (10 % kept)."
    )
    one = means[means["setting"] == "alone"]
    assert settings_tell(one, "CS").startswith("No setting of CS has two values")


def test_panels_are_counted_by_whose_they_are() -> None:
    columns = ["panel", "whose", "scale", "ahead", "ratios"]
    rows = [("A", "paper", "paper", 3, 4), ("B", "paper", "paper", 5, 6)]
    pairs = pd.DataFrame([*rows, ("A", "ours", "reduced", 0, 3)], columns=columns)
    assert panels_tell(pairs) == (
        "BiP is ahead of IMP at 8 of 10 ratios in 2 of the paper's panels, "
        "at 0 of 3 ratios in 1 of our panels, reduced scale, which gives a direction at most."
    )
    assert panels_tell(pairs.iloc[:0]).startswith("No panel")


def test_the_hypergradient_s_cosines_are_those_of_the_network_where_there_is_a_minimum() -> None:
    columns = ["problem", "point", "gamma", "cosine", "implicit_cosine"]
    rows = [("quadratic", "solved", 1.0, 0.1, 0.1), ("network", "start", 0.1, NONE, NONE)]
    rows += [("network", "start", 100.0, 0.999, -0.004), ("network", "start", 1.0, 0.7, 0.05)]
    rows += [("network", "solved", 1.0, 0.99, -0.5), ("network", "solved", 100.0, 1.0, 1.0)]
    means = pd.DataFrame(rows, columns=columns)
    assert hypergradient_tells(means) == (
        "Cosine of the implicit term to the exact one, from γ = 1 to 100. Start: 0.05 to 0.00, "
        "of the whole 0.70 to 1.00; solved: -0.50 to 1.00, of the whole 0.99 to 1.00."
    )
    assert hypergradient_tells(means.iloc[:2]).endswith("has a minimum nowhere.")
