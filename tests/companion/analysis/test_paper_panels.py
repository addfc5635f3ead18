"""The paper's panels with ours beside, as differences to dense."""

from __future__ import annotations

import pandas as pd
import pytest

from companion.analysis.paper_panels import (
    bip_minus_imp,
    bip_minus_imp_in_words,
    panel_gaps,
    panel_of,
    paper_panels,
)
from companion.analysis.points import ticket_table
from tests.companion.figures.toys import Record, record, study

C10_RN20 = "CIFAR-10, ResNet-20"

DIGITS = "digits, resnet8 (embedded)"


def on_cifar(records: list[Record], scale: str = "reduced") -> pd.DataFrame:
    for one in records:
        one["scale"] = scale
        one["config"]["data"]["dataset"] = "cifar10"
        one["config"]["model"]["architecture"] = "resnet20"
    return ticket_table(records)


def test_the_papers_panels_are_eight_and_four() -> None:
    assert len(paper_panels("unstructured")) == 8
    assert list(paper_panels("filter").values()) == [
        "CIFAR-10, ResNet-18",
        "CIFAR-10, ResNet-20",
        "CIFAR-100, ResNet-18",
        "CIFAR-100, ResNet-20",
    ]
    assert paper_panels("channel") == {}


def test_networks_are_found_by_the_librarys_names() -> None:
    panels = paper_panels("unstructured")
    assert panels[panel_of("tiny-imagenet", "resnet18")] == "Tiny-ImageNet, ResNet-18"
    assert panels[panel_of("cifar10", "vgg16-fc")] == "CIFAR-10, VGG-16"
    assert panel_of("cifar10", "vgg16") not in panels


def test_every_curve_is_a_distance_from_its_own_dense_network() -> None:
    gaps = panel_gaps("unstructured", {"toy": on_cifar(study())})
    own = gaps[gaps["panel"] == C10_RN20].set_index(["whose", "curve"])
    papers = own.loc[("paper", "BiP")].set_index("pruned")
    assert papers.loc[20.0, "difference"] == pytest.approx(92.37 - 92.12)
    ours = own.loc[("ours", "BiP")].set_index("pruned")
    # Seeds paired: BiP 97 + 0.3 seed, dense 98 + 0.1 seed.
    assert ours.loc[50.0, ["n", "difference"]].tolist() == pytest.approx([3, -0.8])
    assert ours.loc[50.0, "dense"] == pytest.approx(98.1)
    assert set(own.loc["ours"].index) == {"BiP", "IMP"}


def test_one_ticket_and_failed_runs_are_enough() -> None:
    records = [
        record("dense", "dense", 0, 1.0, 98.0, judged="found"),
        record("BiP", "bip", 0, 0.5, 97.0, judged="found", density=0.5),
        record("BiP", "bip", 1, 0.5, None, density=0.5),
    ]
    tables = {"toy": ticket_table(records)}
    gaps = panel_gaps("channel", tables)
    assert gaps["difference"].tolist() == [-1.0]
    assert bip_minus_imp(gaps, tables).empty
    assert panel_gaps("channel", {}).empty


def test_how_far_bip_is_ahead_of_imp() -> None:
    tables = {"toy": on_cifar(study())}
    pairs = bip_minus_imp(panel_gaps("unstructured", tables), tables)
    words = bip_minus_imp_in_words(pairs).set_index(["panel", "whose"])
    assert words.loc[(C10_RN20, "ours, reduced"), "BiP ahead at"] == "2 of 2"
    assert words.loc[("ImageNet, ResNet-50", "paper"), "pruned (%)"] == "20–86.6"
    pairs = pairs.set_index(["panel", "whose"])
    ours = pairs.loc[(C10_RN20, "ours")]
    # At 50 and at 75 % pruned: 0.1 seed.
    assert ours[["seeds", "ratios", "ahead"]].tolist() == [3, 2, 2]
    assert ours["difference"] == pytest.approx(0.1)
    papers = pairs.loc[("ImageNet, ResNet-50", "paper")]
    assert papers[["first", "last", "ratios", "ahead"]].tolist() == [20.0, 86.6, 8, 4]
