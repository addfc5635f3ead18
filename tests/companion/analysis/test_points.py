"""Which tickets are replicates of each other, and under which name they are shown."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from companion.analysis.points import (
    by_initial_gate,
    curve_points,
    main_curves,
    pruned,
    ticket_table,
)
from tests.companion.figures.toys import record, searches, study, table


def test_replicates_differ_in_their_seeds_alone() -> None:
    points = curve_points(table(seeds=3))
    assert set(points["n"]) == {3}
    assert points.groupby("curve").size().to_dict() == {
        "BiP": 2,
        "BiP, unclipped": 2,
        "CS": 2,
        "CS, as found": 2,
        "IMP": 2,
        "dense": 1,
    }


def test_densities_that_a_method_finds_itself_are_averaged() -> None:
    points = curve_points(table(seeds=3))
    cs = points[points["curve"] == "CS"]
    assert cs["density"].round(4).tolist() == [0.53, 0.25]
    assert cs["mean"].tolist() == [97.0, 97.0]


def test_as_found_is_said_only_where_the_same_label_was_also_retrained() -> None:
    records = study(seeds=1)
    assert set(ticket_table(records)["curve"]) > {"CS", "CS, as found", "BiP"}
    found = [one for one in records if one["judged"] == "found"]
    assert set(ticket_table(found)["curve"]) == {"dense", "BiP", "BiP, unclipped", "CS"}


def test_a_failed_run_keeps_the_density_it_was_asked_for() -> None:
    failed = record("BiP", "bip", 0, 0.1, None, density=0.1)
    row = ticket_table([failed]).iloc[0]
    assert row["target_density"] == 0.1
    assert pd.isna(row["density"])


def test_a_failed_run_stays_with_its_curve() -> None:
    failed = [record("IMP", "imp", 3, 0.5, None, judged="found")]
    failed.append(record("CS", "cs", 3, 0.5, None, judged="found"))
    curves = ticket_table([*study(seeds=1), *failed])["curve"].tolist()
    assert curves[-2:] == ["IMP", "CS, as found"]


@pytest.mark.parametrize(
    ("package", "forbidden"), [("analysis", "matplotlib"), ("figures", "torch")]
)
def test_it_does_not_import(package: str, forbidden: str) -> None:
    code = f"import sys, pkgutil, companion.{package} as package\n"
    code += "names = [one.name for one in pkgutil.iter_modules(package.__path__)]\n"
    code += "assert len(names) > 5\n"
    code += f"for name in names: __import__('companion.{package}.' + name)\n"
    code += f"sys.exit('{forbidden}' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_several_initial_gates_are_several_curves() -> None:
    split = by_initial_gate(ticket_table(searches(seeds=1)))
    assert list(dict.fromkeys(split["curve"])) == [
        "dense",
        "IMP",
        "CS, as found, s0 = 0",
        "CS, s0 = 0",
        "CS, as found, s0 = -0.1",
        "CS, s0 = -0.1",
    ]


def test_one_initial_gate_is_one_curve() -> None:
    split = by_initial_gate(ticket_table(searches(seeds=1, gates=(0.0,))))
    assert set(split["curve"]) == {"dense", "IMP", "CS, as found", "CS"}


def test_the_methods_alone_are_shown_unless_there_are_variants_alone() -> None:
    rows = [record(label, "omp", 0, 0.5, 97.0) for label in ("OMP", "OMP, fp32", "dense")]
    whole = ticket_table(rows)
    assert set(main_curves(whole)["curve"]) == {"OMP", "dense"}
    variants = ticket_table([record(f"OMP, {name}", "omp", 0, 0.5, 97.0) for name in ("a", "b")])
    assert set(main_curves(by_initial_gate(variants))["curve"]) == {"OMP, a", "OMP, b"}


def test_pruned_is_the_share_of_weights_or_of_what_was_asked_for() -> None:
    records = [
        record("IMP", "imp", 0, 0.25, 97.0),
        record("BiP", "bip", 0, 0.63, 97.0, density=0.6, structure="filter"),
    ]
    assert pruned(ticket_table(records)).tolist() == pytest.approx([75.0, 40.0])
