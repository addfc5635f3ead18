"""Where a notebook's records come from: the published record, the store, or a run right now."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from companion.analysis.points import ticket_table
from companion.publish.masks import histories, nearest, overlaps, states, study_masks
from companion.publish.study import (
    COMPUTED,
    PUBLISHED,
    STORED,
    base_settings,
    begin,
    recipe_of,
    recipe_pairs,
    study_of,
    study_records,
    topped_up,
)
from companion.published import published as lines
from companion.studies import Study, ticket_study
from companion.tickets import published_tickets, tickets_file
from lthlib.errors import ConfigError
from lthlib.masks import Mask
from lthlib.recipes import Recipe, load_recipe
from lthlib.runs import Machine, Store, execute
from tests.companion.publish.records import published, write

CPU = Machine("cpu")


@pytest.fixture
def study(tiny_recipe: Path) -> Study:
    return ticket_study(load_recipe(tiny_recipe), methods=["bip"], seeds=1)


def choose_recipe(dataset: str, architecture: str, recipe: str | None = None, **changes) -> Recipe:
    given = {"dataset": dataset, "architecture": architecture, "recipe": recipe, **changes}
    return recipe_of(namedtuple("Parameters", given)(**given))


def choose_study(dataset: str, architecture: str, **given) -> Study:
    return study_of(choose_recipe(dataset, architecture, **given), given)


def test_a_pair_chooses_a_recipe() -> None:
    assert choose_study("digits", "resnet8", seeds=1).name == "digits"
    assert choose_study("cifar10", "resnet20").name == "cifar10-bip"
    with pytest.raises(
        ConfigError, match="no recipe trains resnet8 on cifar10; there are: cifar10"
    ):
        choose_study("cifar10", "resnet8")


def test_of_several_recipes_the_smallest_scale_counts_then_the_name() -> None:
    pairs = recipe_pairs()
    assert pairs["digits", "resnet8"] == "digits"
    assert pairs["cifar10", "resnet20"] == "cifar10-bip"  # not cs-resnet20
    assert pairs["cifar10", "resnet18"] == "bip-cifar10-resnet18"
    assert pairs["cifar10", "vgg16"] == "cs-vgg16"
    assert list(pairs) == sorted(pairs)


def searches(study: Study) -> list[tuple[float, float, int, str, str]]:
    found = [one.config for one in study.entries if one.config.method == "cs"]
    return [
        (own.initial_gate, own.penalty, own.rounds, own.rewind, one.training.length)
        for one in found
        for own in (one.settings,)
    ]


def test_a_reader_sets_gates_penalties_rounds_length_and_rewind() -> None:
    changes = {"initial_gates": [0.1, -0.1], "penalties": [1e-4], "rounds": 2}
    changed = choose_study(
        *("digits", "resnet8"), methods=["cs"], seeds=1, length="30it", rewind="3it", **changes
    )
    assert searches(changed) == [
        (0.1, 1e-4, 2, "3it", "30it"),
        (-0.1, 1e-4, 2, "3it", "30it"),
    ]
    dense = changed.entries[0].config
    assert (dense.training.length, dense.settings.rewind) == ("30it", "3it")
    plain = choose_study("digits", "resnet8", methods=["cs"], seeds=1)
    assert len(searches(plain)) == 6


def test_rounds_hold_for_every_search_with_gates() -> None:
    recipe = choose_recipe("digits", "resnet8", "digits-pruning", rounds=3)
    assert {recipe.method(name)["rounds"] for name in ("cs", "l0", "iss")} == {3}
    assert recipe.method("l0")["gate_learning_rate"] == 30.0


def test_milestones_keep_their_share_of_the_length() -> None:
    training = choose_recipe("cifar10", "resnet20", "cs-resnet20", length="17ep").values["training"]
    assert (training["length"], training["milestones"]) == ("17ep", ["11.2ep", "14.2ep"])


def test_so_does_the_warm_up() -> None:
    training = choose_recipe("cifar10", "resnet20", "cifar10-length", length="10ep").training
    assert (training.length, training.warmup, training.milestones) == ("10ep", "3ep", ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial_gates": []}, "cs.initial_gate is an empty list; give at least one value"),
        ({"rounds": 0}, "cs.rounds is 0; expected at least 1"),
        ({"length": "8"}, "training.length is '8'; expected epochs such as '85ep' or iterations"),
        ({"rewind": ""}, "rewind is ''; expected epochs such as '85ep' or iterations"),
        (
            {"recipe": "cs-resnet20", "length": "300it"},
            "'300it' has another unit than the milestones 56ep, 71ep of recipe cs-resnet20",
        ),
        (
            {"recipe": "cifar10-length", "length": "300it"},
            "'300it' has another unit than the warm-up 18ep of recipe cifar10-length; give it as",
        ),
        ({"recipe": "cs-resnet20", "length": "8"}, "training.length is '8'; expected epochs such"),
        ({"recipe": "cs-resnet20", "length": "0ep"}, "training.length is '0ep'; expected at least"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_study("digits", "resnet8", methods=["cs"], seeds=1, **changes)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("initial_gates", [], "distinct values, one at least"),
        ("penalties", [-1e-4], "0 or more"),
        ("rounds", 0, "at least 1"),
        ("length", "8", "epochs such as '85ep'"),
    ],
)
def test_a_notebook_refuses_them_with_what_it_expects(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"parameter '{name}' is .*; expected {expected}"):
        begin("tickets", {name: value})


def test_a_notebook_begins_with_its_parameters_and_where_its_figures_go(tmp_path: Path) -> None:
    names = {"density": 0.5, "seeds": None, "own": "x", "artefacts": str(tmp_path)}
    parameters, made = begin("tickets", names, own=str)
    assert (parameters.density, parameters.seeds, parameters.own) == (0.5, None, "x")
    assert (made.notebook, made.folder) == ("tickets", str(tmp_path))
    assert made.command == "lth rerun tickets --set density=0.5 --set own=x"


def test_the_base_of_a_comparison_has_the_first_value_of_every_list() -> None:
    base = base_settings(choose_recipe("digits", "resnet8", initial_gates=[0.2, 0.3]))
    assert (base["initial_gate"], base["penalty"], base["rewind"]) == (0.2, 0.0, "15it")
    assert base["reset"] == "formula"  # a default is among them


def test_the_base_of_bip_is_what_its_recipe_says() -> None:
    base = base_settings(choose_recipe("digits", "resnet8"), "bip")
    assert (base["gamma"], base["lower_steps"], base["implicit"]) == (1.0, 1, True)
    assert "rewind" not in base


def test_a_search_is_seen_from_within(tiny_recipe: Path, tmp_path: Path) -> None:
    study, store = ticket_study(load_recipe(tiny_recipe), methods=["cs"]), Store(tmp_path / "store")
    search = next(one.config for one in study.entries if one.config.method == "cs")
    execute(search, store, CPU)
    layer = "stem.weight"
    seen = states(search, store, CPU, "gates", layer)
    steps = [step for step, _ in seen]
    assert steps[0] == 0
    assert steps == sorted(steps)
    assert (seen[0][1] == search.settings.initial_gate).all()
    # What it ends with is the ticket that the store has.
    assert torch.equal(seen[-1][1] > 0, store.ticket(search, "round-0").mask[layer])
    assert sum(histories(study, store)["CS, as found", search.seed][-1]["gates"]) > 0


def test_of_each_label_and_seed_the_nearest_run_is_taken(study: Study, tmp_path: Path) -> None:
    found = study_records(study, Store(tmp_path / "store"), CPU, source="local", jobs=1)
    table = ticket_table(found.records)
    bip = table[table["label"] == "BiP"]
    assert len(bip) > 1
    sparse = bip.loc[bip["density"].idxmin()]
    chosen = nearest(study, table, sparse["density"] / 2)
    assert [one.config.id for one in chosen.entries if one.label == "BiP"] == [sparse["run"]]


def test_what_is_missing_is_computed_once(study: Study, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = study_records(study, store, CPU, source="local", jobs=1)
    assert first.counts == {COMPUTED: 4}
    again = study_records(study, store, CPU, source="local", jobs=1)
    assert again.counts == {STORED: 4}
    assert again.records == first.records
    assert again._repr_markdown_() == "Runs: 4 from the local store."


def test_published_runs_come_first_and_only_the_rest_is_computed(study, tmp_path: Path) -> None:
    records = published(study)
    write(tmp_path / "results", study, [one for one in records if one["method"] == "bip"])
    store = Store(tmp_path / "store")
    found = study_records(study, store, CPU, results=tmp_path / "results", jobs=1)
    assert found.counts == {PUBLISHED: 2, COMPUTED: 2}
    assert [r["accuracy"]["test"] for r in found.records if r["method"] == "bip"] == [90.0, 90.0]


def test_a_record_is_topped_up_from_a_store(study: Study, tmp_path: Path) -> None:
    dense, *rest = published(study)
    store, results = Store(tmp_path / "store"), tmp_path / "results"
    write(results, study, [dense, {**rest[-1], "method_version": 99}])
    assert topped_up(study, store, results) == ([dense], [e.config for e in study.entries[1:]])
    for entry in study.entries:
        execute(entry.config, store, CPU)
    records, missing = topped_up(study, store, results)
    assert records == [dense, *study.records(store)[1:]]
    assert missing == []


def test_the_record_alone(study: Study, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(ConfigError, match=r"holds no record of tiny: `lth record tiny`"):
        study_records(study, store, CPU, source="results", results=tmp_path / "results")
    write(tmp_path / "results", study, published(study)[:1])
    found = study_records(study, store, CPU, source="results", results=tmp_path / "results")
    assert found.counts == {PUBLISHED: 1}
    assert not store.root.exists()


def test_a_record_of_an_older_method_is_shown_and_said_to_be_stale(study, tmp_path: Path) -> None:
    records = published(study)
    records[-1]["method_version"] = 99
    write(tmp_path / "results", study, records)
    found = study_records(study, Store(tmp_path / "store"), CPU, results=tmp_path / "results")
    assert len(found.records) == 4
    assert "**Stale:** 1 published records: bip is at version 2, recorded at 99" in (
        found._repr_markdown_()
    )


def test_an_unknown_source_is_refused(study: Study, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="source is 'web'; expected one of published, local"):
        study_records(study, Store(tmp_path), CPU, source="web")


def test_masks_near_a_density_are_those_published_or_stored(study: Study, tmp_path: Path) -> None:
    store, results = Store(tmp_path / "store"), tmp_path / "results"
    records = study_records(study, store, CPU, source="local", jobs=1).records
    table = ticket_table(records)

    def masks(**given: Any) -> dict[str, dict[int, Mask]]:
        base = {"density": 0.22, "source": "published", "results": str(results)}
        given = {**base, "store": str(tmp_path / "empty"), **given}
        return study_masks(namedtuple("Parameters", given)(**given), study, table)

    assert masks() == {}
    stored = masks(store=str(store.root))
    assert list(stored) == ["BiP"]
    assert stored["BiP"][0].density == pytest.approx(0.2, abs=0.001)
    tickets_file(results, study.name).parent.mkdir(parents=True)
    tickets_file(results, study.name).write_bytes(published_tickets(records, store))
    (results / f"{study.name}.jsonl").write_bytes(lines(records))
    assert masks()["BiP"][0].overlap(stored["BiP"][0]) == 1
    assert masks(source="local") == {} and masks(density=0.05) == {}


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
