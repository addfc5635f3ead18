"""What the papers report: the packaged table, its types, and the curves taken from it."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from companion.evidence.reported import (
    plain_name,
    quoted,
    reported,
    reported_curve,
    reported_speed_up,
)


def test_every_published_value_is_there() -> None:
    table = reported()
    assert len(table) == 647
    assert table["paper"].value_counts().to_dict() == {"BiP": 603, "Renda et al. 2020": 42, "CS": 2}
    assert table[["pruning_ratio_pct", "value", "std", "density"]].dtypes.eq("float64").all()


def test_a_table_entry_without_a_ticket_has_no_value() -> None:
    table = reported()
    table = table[(table["artefact"] == "Table 1") & (table["dataset"] == "CIFAR-100")]
    cells = table[table["architecture"] == "ResNet-20"].set_index("method")
    assert cells.loc["IMP", ["value", "density"]].isna().all()
    assert cells.loc["BiP", ["value", "std"]].tolist() == [68.78, 0.1]
    assert cells.loc["BiP", "density"] == pytest.approx(0.51)


def test_a_curve_is_found_by_either_spelling_and_sorted() -> None:
    curve = reported_curve("cifar10", "resnet20", "IMP, weight rewinding")
    assert curve["value"].tolist()[:3] == [91.76, 91.76, 91.99]
    assert curve["density"].tolist()[:3] == pytest.approx([0.8, 0.64, 0.512])
    same = reported_curve("CIFAR-10", "ResNet-20", "IMP, weight rewinding")
    pd.testing.assert_frame_equal(curve, same)


def test_structure_and_artefact_select() -> None:
    filters = reported_curve("cifar100", "resnet20", "BiP", structure="filter")
    assert filters["value"].iloc[[0, -1]].tolist() == [68.8, 49.4]
    assert set(reported_curve("cifar10", "resnet20", artefact="Fig 1")["artefact"]) == {"Fig 1"}
    assert reported_curve("digits", "resnet8").empty


def test_the_papers_minutes_make_a_speed_up() -> None:
    ratios = reported_speed_up().set_index("pruning_ratio_pct")
    assert ratios.loc[36.0, "neither"] == pytest.approx(2 * 69 / 86)
    assert ratios.loc[89.3, "neither"] == pytest.approx(10 * 69 / 86)
    assert ratios.loc[[48.8, 86.6], "both"].tolist() == pytest.approx([4 * 69 / 168, 10 * 69 / 168])


def test_plain_names() -> None:
    assert plain_name("Tiny-ImageNet") == "tinyimagenet"
    assert plain_name("VGG-16") == plain_name("vgg16") == "vgg16"


def test_the_packaged_values_are_what_they_say() -> None:
    table = reported()
    accuracies = {"test_accuracy_pct", "sparsest_winning_ticket_accuracy_pct"}
    others = {"minutes_on_A6000", "epochs_in_sequence_for_the_tickets"}
    assert set(table["quantity"]) == accuracies | others
    known = table.loc[table["quantity"].isin(accuracies), "value"].dropna()
    assert known.between(0, 100).all()
    assert table["pruning_ratio_pct"].dropna().between(0, 99.99).all()
    names = ["paper", "artefact", "quantity", "precision"]
    assert (table[names] != "").all(axis=None) and table[names].notna().all(axis=None)


def test_evidence_never_imports_torch() -> None:
    code = (
        "import importlib, pkgutil, sys, companion.evidence as e\n"
        "for one in pkgutil.iter_modules(e.__path__):\n"
        "    importlib.import_module(f'companion.evidence.{one.name}')\n"
        "from companion.evidence import claims, records\n"
        "claims.judge(records.tidy([]))\n"
        "found = [name for name in sys.modules if name.split('.')[0] in ('torch', 'torchvision')]\n"
        "sys.exit(f'imported {found[:3]}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_quoted_result_names_its_method_accuracy_and_source() -> None:
    table = quoted()
    assert {"AMC", "network slimming", "DNW", "STR"} <= set(table["method"])
    assert table["source"].str.contains("commit").all()
    assert table[["method", "test_accuracy_pct"]].notna().all(axis=None)
    for column in ("sparsity_pct", "test_accuracy_pct", "dense_accuracy_pct"):
        assert table[column].dropna().between(0, 100).all()
    strict = table.set_index(["method", "sparsity_pct"])["test_accuracy_pct"]
    assert strict["STR", 90.23] == 74.31
    assert strict["RigL, ERK, 5x", 90.0] == 76.42
