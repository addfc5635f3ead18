"""A run's configuration, and the id that follows from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthlib.errors import ConfigError
from lthlib.methods import METHODS
from lthlib.records import DEFAULTS
from lthlib.runs import Parent, RunConfig
from lthlib.runs.identity import _changed_values, differences, identify
from lthlib.settings import build

RESULTS = Path(__file__).parents[2] / "results"

# These values are part of every id and never change; a new setting is a new line here.
IDS = {
    "imp": "06a130f1181bfdba",
    "cs": "cd33b8cbdb297131",
    "bip": "6a09df07bc334479",
    "omp": "2fd38feb971f5e25",
    "snip": "7da0138596aabe4b",
    "grasp": "b9ac732c1bd2097a",
    "synflow": "cde6f30e8f4fcc55",
    "random": "962dcd11e542dfd3",
    "retrain": "3d2ce571cc30fb92",
    "gmp": "90141427df97be52",
    "hydra": "f3a0aa697f98b5d0",
    "l0": "20f7331c4a50535b",
    "iss": "82d2584e29d7a34c",
}
DENSE = RunConfig()


def default(method: str) -> RunConfig:
    alone = METHODS[method].parent == "none"
    return RunConfig(method=method, parent=None if alone else Parent(DENSE, "dense"))


def test_the_defaults_are_those_that_ids_are_made_with() -> None:
    plain = RunConfig().to_json()
    assert {name: plain[name] for name in ("data", "model", "training")} | {
        "run": {name: plain[name] for name in ("method", "seed", "threads", "parent")},
        "settings": {method: default(method).to_json()["settings"] for method in METHODS},
    } == DEFAULTS


def test_ids_are_pinned() -> None:
    assert IDS.keys() == METHODS.keys() - {"dense"}
    assert RunConfig().id == "44136fa355b3678a"
    assert {method: default(method).id for method in IDS} == IDS
    embedded = RunConfig.from_json(
        {
            "data": {"padding": 1, "mean": [0.3], "std": [0.37]},
            "model": {"width": 8, "shortcut": "projection"},
            "training": {"length": "300it", "batch_size": 64},
            "method": "imp",
            "settings": {"rounds": 14, "fraction": 0.28, "rewind": "15it"},
            "seed": 2,
        }
    )
    assert embedded.id == "b97a3974cb4f175c"


@pytest.mark.parametrize("method", ["dense", *IDS])
def test_a_configuration_comes_back_from_json(method: str) -> None:
    config = default(method)
    assert RunConfig.from_json(config.to_json()) == config
    assert RunConfig.from_json(config.to_json()).id == config.id


CHANGES: list[dict[str, Any]] = [
    *({"data": {n: v}} for n, v in {
        "dataset": "cifar10", "train_images": 100, "validation_images": 10, "split_seed": 1,
        "padding": 4, "flip": True, "mean": [0.5], "std": [0.5], "image_size": 64,
    }.items()),
    {"data": {
        "dataset": "tiny-imagenet", "validation_images": 0, "official_validation": "halves",
    }},
    *({"model": {n: v}} for n, v in {
        "architecture": "resnet20", "width": 8, "shortcut": "projection", "prunable": "conv",
        "initialisation": "xavier",
    }.items()),
    *({"training": {n: v}} for n, v in {
        "length": "21ep", "batch_size": 64, "learning_rate": 0.2, "schedule": "constant",
        "milestones": ["1ep"], "warmup": "1it", "momentum": 0.8, "nesterov": False,
        "weight_decay": 0.0, "precision": "bf16", "ranks": 2,
    }.items()),
    {"training": {"ranks": 2, "sync_batchnorm": True}},
    {"training": {"optimiser": "adamw", "learning_rate": 0.01}},
    {"training": {"betas": [0.9, 0.99]}}, {"training": {"epsilon": 1e-6}},
    {"settings": {"rewind": "1it"}}, {"seed": 1}, {"threads": 2}, {"method": "imp"},
]  # fmt: skip


def test_every_change_gives_another_id() -> None:
    plain = RunConfig().to_json()
    changed = [{**plain, "settings": {}} | {n: v} for c in CHANGES for n, v in c.items()]
    ids = [RunConfig.from_json(values).id for values in changed]
    assert len({RunConfig().id, *ids}) == len(CHANGES) + 1
    covered = {
        (part, n) for c in CHANGES for part, v in c.items() if isinstance(v, dict) for n in v
    }
    parts = ("data", "model", "training", "settings")
    assert covered == {(part, name) for part in parts for name in plain[part]}


def test_the_parent_is_part_of_the_id() -> None:
    def omp(parent: RunConfig) -> RunConfig:
        return RunConfig(method="omp", parent=Parent(parent, "dense"))

    assert omp(DENSE).id != omp(RunConfig(seed=1)).id
    search = RunConfig(method="imp")
    retrained = [RunConfig(method="retrain", parent=Parent(search, f"round-{r}")) for r in (1, 2)]
    assert retrained[0].id != retrained[1].id


def test_the_id_does_not_depend_on_how_defaults_are_written() -> None:
    assert RunConfig.from_json(RunConfig().to_json()).id == RunConfig.from_json({}).id
    assert RunConfig.from_json({"training": {"learning_rate": "1e-1"}}).id == RunConfig().id
    assert RunConfig.from_json({"training": {"weight_decay": 0}}).id == (
        RunConfig.from_json({"training": {"weight_decay": 0.0}}).id
    )


@given(st.integers(-3, 3), st.lists(st.sampled_from(["x", "y"]), max_size=2), st.integers(-3, 3))
def test_a_new_field_at_its_default_changes_no_id(a: int, b: list[str], added: int) -> None:
    usual: dict[str, Any] = {"a": 1, "b": []}
    new = _changed_values({"a": a, "b": b, "new": added}, usual | {"new": 0})
    assert (new == _changed_values({"a": a, "b": b}, usual)) == (added == 0)


@pytest.mark.parametrize(
    ("values", "path", "expected"),
    [
        ({"training": {"learning_rate": "1e-2"}}, "training.learning_rate", 0.01),
        ({"training": {"learning_rate": 1}}, "training.learning_rate", 1.0),
        (
            {"training": {"schedule": "step", "milestones": ["1ep"]}},
            "training.milestones",
            ("1ep",),
        ),
        ({"data": {"mean": [0, 1, 0.5]}}, "data.mean", (0.0, 1.0, 0.5)),
        ({"data": {"train_images": None}}, "data.train_images", None),
        ({"data": {"train_images": 7}}, "data.train_images", 7),
        ({"method": "cs", "settings": {"penalty": "3e-4"}}, "settings.penalty", 3e-4),
    ],
)
def test_values_are_coerced_to_the_type_of_their_field(
    values: dict[str, Any], path: str, expected: Any
) -> None:
    part, name = path.split(".")
    found = getattr(getattr(RunConfig.from_json(values), part), name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sed": 1}, r"unknown name 'sed'; expected one of data, model, training, method"),
        ({"training": {"lr": 1}}, r"unknown name 'training.lr'; expected one of length, batch"),
        ({"settings": {"density": 1}}, r"unknown name 'settings.density'; expected one of rewind"),
        ({"training": 3}, r"training is 3; expected names with values"),
        ({"training": {"batch_size": "64"}}, r"training.batch_size is '64'; expected int"),
        ({"training": {"batch_size": True}}, r"training.batch_size is True; expected int"),
        ({"training": {"batch_size": 6.5}}, r"training.batch_size is 6.5; expected int"),
        ({"training": {"nesterov": 1}}, r"training.nesterov is 1; expected bool"),
        ({"training": {"learning_rate": "fast"}}, r"training.learning_rate is 'fast'; expected fl"),
        ({"training": {"learning_rate": True}}, r"training.learning_rate is True; expected float"),
        (
            {"training": {"milestones": "1ep"}},
            r"training.milestones is '1ep'; expected a list of str",
        ),
        ({"model": {"architecture": "vgg"}}, r"model.architecture is 'vgg'; expected one of resn"),
        ({"method": "sgd"}, r"method is 'sgd'; expected one of dense, imp, cs, bip, hydra, omp"),
        ({"seed": None}, r"seed is None; expected int"),
        ({"threads": 0}, r"threads is 0; expected at least 1"),
        ({"settings": [1]}, r"settings is \[1\]; expected names with values"),
        ({"method": "omp"}, r"omp starts from a dense run; give it a parent"),
        ({"parent": {"config": {}, "point": "dense"}}, r"dense starts from scratch"),
        ({"parent": {"config": {"sed": 1}, "point": "x"}}, r"unknown name 'parent.config.sed'"),
        (
            {"method": "bip", "parent": {"config": {"method": "imp"}, "point": "round-1"}},
            r"bip starts from a dense run; its parent is imp",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_was_expected(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_json(values)


def test_a_configuration_is_a_mapping() -> None:
    with pytest.raises(ConfigError, match=r"configuration is \[1\]; expected names with values"):
        build(RunConfig, [1], "")  # type: ignore[arg-type]


def test_a_changed_copy() -> None:
    config = RunConfig(method="imp")
    changed = config.changed(seed=3, training={"length": "5it"}, settings={"rounds": 2})
    assert (changed.seed, changed.training.length, changed.settings.rounds) == (3, "5it", 2)
    assert changed.training.batch_size == config.training.batch_size
    assert changed.settings.fraction == 0.2
    with pytest.raises(ConfigError, match=r"unknown name 'training\.lengthh'"):
        config.changed(training={"lengthh": "5it"})


def test_a_line_for_people() -> None:
    config = RunConfig(method="imp", settings={"rounds": 2}, seed=4)  # type: ignore[arg-type]
    assert config.describe() == "imp on digits/resnet8 seed 4 (rounds=2)"
    retrained = RunConfig(method="retrain", parent=Parent(config, "round-1"))
    assert retrained.describe() == "retrain of imp round-1 on digits/resnet8 seed 0"


def test_what_runs_of_one_kind_differ_in_is_told_beside_their_length() -> None:
    first = RunConfig(method="imp")
    other = first.changed(seed=1, training={"batch_size": 32}, settings={"rounds": 2})
    long = RunConfig(training={"length": "40ep"})  # type: ignore[arg-type]
    last = [RunConfig(method="retrain", parent=Parent(one, "round-1")) for one in (first, other)]
    configs = [first, other, long, *last]
    assert differences([config.to_json() for config in configs]) == [
        "training.length=20ep, training.batch_size=128",
        "training.length=20ep, training.batch_size=32",
        "training.length=40ep",
        "training.length=20ep, parent.settings.rounds=10",
        "training.length=20ep, parent.training.batch_size=32, parent.settings.rounds=2",
    ]
    same = last[1].changed(training={"batch_size": 32})  # as its parent has it
    assert differences([last[0].to_json(), same.to_json()]) == [
        "training.length=20ep, training.batch_size=128, parent.settings.rounds=10",
        "training.length=20ep, training.batch_size=32, parent.settings.rounds=2",
    ]
    assert differences([]) == []


def test_published_runs_have_the_ids_of_their_configurations() -> None:
    lines = [line for path in RESULTS.glob("*.jsonl") for line in path.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    assert len({record["method"] for record in records}) > 8
    for record in records:
        config = record["config"]
        assert identify(config) == record["run"]
        assert (config["parent"] and identify(config["parent"]["config"])) == record["parent"]


@pytest.mark.parametrize("values", [{}, [], None, {"method": "dense"}, {"method": ["dense"]}])
def test_what_is_no_configuration_has_no_id(values: Any) -> None:
    with pytest.raises(ConfigError):
        identify(values)
