"""Where a notebook's records come from: the published record, the store, or a run right now."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lthlib.errors import ConfigError
from lthlib.figures import ticket_table
from lthlib.masks import Mask
from lthlib.publish.study import choose_study, overlaps, study_masks, study_records
from lthlib.recipes import Study, load_recipe, ticket_study
from lthlib.runs import Machine, Store
from tests.publish.records import published, write

CPU = Machine("cpu")


@pytest.fixture
def study(tiny_recipe: Path) -> Study:
    return ticket_study(load_recipe(tiny_recipe), methods=["bip"], seeds=1)


def test_a_pair_chooses_a_recipe() -> None:
    assert choose_study("digits", "resnet8", seeds=1).name == "digits"
    assert choose_study("cifar10", "resnet20").name == "cifar10-reduced"
    with pytest.raises(
        ConfigError, match="no recipe trains resnet8 on cifar10; there are: cifar10"
    ):
        choose_study("cifar10", "resnet8")


def test_what_is_missing_is_computed_once(study: Study, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = study_records(study, store, CPU, source="local", jobs=1)
    assert (first.published, first.stored, first.computed) == (0, 0, 4)
    again = study_records(study, store, CPU, source="local", jobs=1)
    assert (again.published, again.stored, again.computed) == (0, 4, 0)
    assert again.records == first.records
    assert again._repr_markdown_() == "Runs: 4 from the local store."


def test_published_runs_come_first_and_only_the_rest_is_computed(study, tmp_path: Path) -> None:
    records = published(study)
    write(tmp_path / "results", study, [one for one in records if one["method"] == "bip"])
    store = Store(tmp_path / "store")
    found = study_records(study, store, CPU, results=tmp_path / "results", jobs=1)
    assert (found.published, found.stored, found.computed) == (2, 0, 2)
    assert [r["accuracy"]["test"] for r in found.records if r["method"] == "bip"] == [90.0, 90.0]


def test_the_record_alone(study: Study, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(ConfigError, match=r"holds no record of tiny: `lth record tiny`"):
        study_records(study, store, CPU, source="results", results=tmp_path / "results")
    write(tmp_path / "results", study, published(study)[:1])
    found = study_records(study, store, CPU, source="results", results=tmp_path / "results")
    assert (found.published, found.computed) == (1, 0)
    assert not store.root.exists()


def test_a_record_of_an_older_method_is_shown_and_said_to_be_stale(study, tmp_path: Path) -> None:
    records = published(study)
    records[-1]["method_version"] = 99
    write(tmp_path / "results", study, records)
    found = study_records(study, Store(tmp_path / "store"), CPU, results=tmp_path / "results")
    assert len(found.records) == 4
    assert "**Stale:** 1 published records: bip is at version 1, recorded at 99" in (
        found._repr_markdown_()
    )


def test_an_unknown_source_is_refused(study: Study, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="source is 'web'; expected one of published, local"):
        study_records(study, Store(tmp_path), CPU, source="web")


def test_masks_near_a_density(study: Study, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    table = ticket_table(study_records(study, store, CPU, source="local", jobs=1).records)
    masks = study_masks(study, store, table, 0.22)
    assert list(masks) == ["BiP"]
    assert masks["BiP"][0].density == pytest.approx(0.2, abs=0.001)
    assert study_masks(study, Store(tmp_path / "other"), table, 0.2) == {}


def test_overlap_and_chance_of_small_masks() -> None:
    def mask(text: str) -> Mask:
        return Mask({"w": torch.tensor([letter == "1" for letter in text])})

    a, b = {0: mask("1100"), 1: mask("0011")}, {0: mask("1010")}
    overlap, chance = overlaps({"A": a, "B": b})
    assert overlap.loc["A", "A"] == 0.0  # the two seeds share nothing
    assert overlap.loc["A", "B"] == pytest.approx(1 / 3)
    assert overlap.loc["B", "B"] != overlap.loc["B", "B"]  # one seed: nothing to compare
    # Two of four weights each: one is shared on average, of three in the union.
    assert chance.loc["A", "B"] == pytest.approx(1 / 3)
