"""Several studies in one figure: those that join another, those of the paper's panels."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from companion.publish.several import (
    PanelRecords,
    open_panels,
    published_panels,
    scale_in_words,
    structure_of,
)
from companion.publish.study import PUBLISHED, Gathered
from companion.studies import ticket_study
from lthlib.errors import ConfigError
from lthlib.recipes import load_recipe
from tests.companion.publish.records import published, write


def panels(structure: str, folder: Path, **given: object) -> PanelRecords:
    names = {"recipes": None, "methods": None, "source": "results", "results": str(folder)}
    names |= {"store": str(folder / "store"), "data": None, "device": "cpu"}
    names |= {"structure": structure, **given}
    return open_panels(namedtuple("Parameters", names)(**names))


def publish(folder: Path, name: str, **given: object) -> Gathered:
    given = {"seeds": 1, "dense_seeds": 1, **given}
    study = ticket_study(load_recipe(name), **given)  # type: ignore[arg-type]
    records = published(study)
    write(folder, study, records)
    return Gathered(records, {record["run"]: PUBLISHED for record in records})


def test_a_panel_shows_a_study_that_has_bip(tmp_path: Path) -> None:
    publish(tmp_path, "cifar10-cs", methods=["imp"])
    assert published_panels("unstructured", tmp_path) == []
    publish(tmp_path, "cifar10-bip", methods=["bip", "imp"])
    publish(tmp_path, "digits", methods=["bip"])
    publish(tmp_path, "digits-filter", methods=["bip"])
    assert published_panels("unstructured", tmp_path) == ["cifar10-bip"]
    assert published_panels("filter", tmp_path) == ["digits-filter"]
    assert published_panels("channel", tmp_path) == []


def test_of_several_the_largest_scale_counts_then_imp(tmp_path: Path) -> None:
    publish(tmp_path, "cifar10-bip", methods=["bip", "imp"])
    publish(tmp_path, "bip-cifar10-resnet20-study", methods=["bip"])
    assert published_panels("unstructured", tmp_path) == ["bip-cifar10-resnet20-study"]
    publish(tmp_path, "bip-cifar10-resnet20", methods=["bip", "imp"])
    assert published_panels("unstructured", tmp_path) == ["bip-cifar10-resnet20"]


def test_without_records_the_paper_stands_alone(tmp_path: Path) -> None:
    found = panels("unstructured", tmp_path / "none")
    assert found.tables == {}
    assert found.table.empty
    assert "the paper stands alone" in found._repr_markdown_()


def test_what_is_published_is_shown_with_its_scale(tmp_path: Path) -> None:
    publish(tmp_path, "digits-filter")
    found = panels("filter", tmp_path)
    (table,) = found.tables.values()
    assert set(table["label"]) == {"dense", "BiP", "IMP", "OMP", "Hydra", "GraSP"}
    assert found.words == {"digits-filter": "embedded scale"}
    told = found._repr_markdown_()
    runs = table["run"].nunique()
    assert f"Runs: {runs} read from the published record." in told
    assert "- `digits-filter` (embedded scale): Pruning whole filters" in told


def test_some_methods_may_be_asked_for(tmp_path: Path) -> None:
    publish(tmp_path, "digits-filter")
    found = panels("filter", tmp_path, methods=("bip",))
    assert set(found.table["label"]) == {"dense", "BiP"}


def test_a_recipe_of_another_structure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="digits prunes unstructured, and filter was asked"):
        panels("filter", tmp_path, recipes=("digits",))


def test_what_a_reduced_recipe_lacks_is_said() -> None:
    paper = load_recipe("bip-cifar10-resnet20")
    assert scale_in_words(paper) == "paper scale"
    short = paper.with_(training={"length": "8ep"}, model={"width": 4}, data={"train_images": 5000})
    assert scale_in_words(short) == "reduced scale; width 4 of 16, 8 of 200 epochs, 5,000 images"
    assert scale_in_words(load_recipe("digits-channel")) == "embedded scale"
    assert structure_of(load_recipe("digits-channel")) == "channel"
