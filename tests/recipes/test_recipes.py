from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from companion.evidence.statistics import BAND
from companion.studies import CONTESTANTS, ticket_study
from lthlib.errors import ConfigError
from lthlib.methods import METHODS
from lthlib.recipes import dense_run, load_recipe, recipe_names
from lthlib.runs import with_ancestors


@pytest.mark.parametrize("name", recipe_names())
def test_every_value_of_every_recipe_has_a_source_and_makes_valid_runs(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.sources and all(source.strip() for source in recipe.sources.values())
    study = ticket_study(recipe)
    assert len({config.id for config in study.configs}) == len(study.configs)


def test_a_bare_value_in_a_recipe_is_refused(tiny_recipe: Path) -> None:
    text = tiny_recipe.read_text().replace("source: a test", "sauce: a test", 1)
    tiny_recipe.write_text(text)
    with pytest.raises(ConfigError, match="bare value; write"):
        load_recipe(tiny_recipe)


@pytest.mark.parametrize("name", ["nonsense", "nowhere.yaml"])
def test_an_unknown_recipe_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="recipe"):
        load_recipe(name)


def test_the_study_holds_what_was_asked_for(tiny_recipe: Path) -> None:
    study = ticket_study(
        load_recipe(tiny_recipe), methods=["bip", "imp"], densities=[0.5, 0.1], seeds=2
    )
    labels = [entry.label for entry in study.entries]
    assert labels == ["dense", "dense", "BiP", "BiP", "BiP", "BiP", "IMP", "IMP"]
    assert [entry.config.settings.density for entry in study.entries[2:4]] == [0.5, 0.1]
    # Three halvings come nearest to 10 %: 12.5 %.
    assert study.entries[-1].config.settings.rounds == 3


def test_runs_that_start_from_a_dense_net_share_it(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    study = ticket_study(recipe, methods=["bip", "omp"], seeds=1, dense_seeds=1)
    ordered = with_ancestors(study.configs)
    assert len(ordered) == 1 + 2 + 2
    assert ordered[0] == dense_run(recipe, 0)
    assert all(config.parent and config.parent.config == ordered[0] for config in ordered[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ["bop"]}, "expected one of imp, imp-c"),
        ({"densities": [1.5]}, "density is 1.5"),
        ({"densities": []}, "at least one density"),
        ({"seeds": 0}, "at least one density and one seed"),
        ({"dense_seeds": 10**9}, "more than 20,000 runs; ask for fewer seeds"),
        ({"densities": [1e-300]}, "density is 1e-300; expected a kept fraction"),
        ({"densities": [float("nan")]}, "density is nan"),
        ({"methods": [[]]}, r"method is \[\]; expected one of imp"),
    ],
)
def test_a_senseless_study_is_refused(tiny_recipe: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ticket_study(load_recipe(tiny_recipe), **arguments)


def test_a_changed_value_is_marked_as_the_users(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe).with_(training={"length": "3it"})
    assert recipe.config("dense", 0).training.length == "3it"
    assert recipe.sources["training.length"] == "given by the user"


def test_every_method_is_a_contestant() -> None:
    assert set(METHODS) - {"dense", "retrain"} <= set(CONTESTANTS)


def test_a_recipe_that_extends_another_holds_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nextends: digits\nabout: shorter\n"
        "training: {length: {value: 50it, source: a test}}\n"
        "methods: {cs: {rounds: {value: 2, source: a test}}}\n"
    )
    mine, base = load_recipe(file), load_recipe("digits")
    assert (mine.name, mine.scale) == ("mine", base.scale)
    assert mine.values["training"] == base.values["training"] | {"length": "50it"}
    assert mine.method("cs") == base.method("cs") | {"rounds": 2}
    assert mine.sources["training.length"] == "a test"
    assert mine.sources["data.padding"] == base.sources["data.padding"]


def test_a_recipe_that_extends_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nextends: nonsense\n")
    with pytest.raises(ConfigError, match="extends is 'nonsense'; expected one of bip-cifar10"):
        load_recipe(file)


def test_a_paper_recipe_that_is_changed_is_no_longer_at_paper_scale() -> None:
    recipe = load_recipe("cs-resnet20")
    assert recipe.scale == "paper"
    assert recipe.with_(training={"length": "85ep"}).scale == "paper"
    changed = recipe.with_(training={"length": "8ep"}, methods={"cs": {"initial_gate": [0.0]}})
    assert changed.scale == "reduced"
    assert changed.method("cs")["initial_gate"] == [0.0]
    assert changed.method("cs")["penalty"] == recipe.method("cs")["penalty"]


def test_bip_at_paper_scale_has_the_paper_s_rates_and_its_release_its_own() -> None:
    study = ticket_study(load_recipe("bip-cifar10-resnet20-release"), seeds=1)
    found = {
        (e.label, e.config.settings.lower_learning_rate, e.config.settings.upper_learning_rate)
        for e in study.entries
        if e.config.method == "bip" and e.config.settings.upper_learning_rate
    }
    assert {("BiP", 0.01, 0.1), ("BiP, as released", 0.1, 0.1)} < found
    assert {rate for label, rate, _ in found if label.startswith("BiP, as released")} == {0.1}
    assert {rate for label, rate, _ in found if not label.startswith("BiP, as released")} == {0.01}


@pytest.mark.parametrize("name", ["gate", "bip-core", "cs-core"])
def test_what_decides_first_is_at_paper_scale_over_the_band(name: str) -> None:
    study = ticket_study(load_recipe(name))
    counts = labels(study)
    imp = next(entry.config for entry in study.entries if entry.label == "IMP")
    assert study.scale == "paper" and (counts["dense"], counts["IMP"]) == (10, 5)
    assert imp.settings.rounds == 9 and BAND[-1] * 1.001 > 0.8**9


def test_the_gate_s_runs_are_the_first_of_what_decides_on_cs() -> None:
    gate, core = (
        {config.id for config in ticket_study(load_recipe(name)).configs}
        for name in ("gate", "cs-core")
    )
    assert len(gate) == 15 and gate < core


def labels(study) -> dict[str, int]:
    return dict(Counter(entry.label for entry in study.entries))


def test_gates_span_a_grid_and_every_round_is_retrained(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe).with_(
        methods={"cs": {"initial_gate": [0.0, -0.1], "penalty": [0.0, 1e-4], "rounds": 3}}
    )
    study = ticket_study(recipe, methods=["cs"], dense_seeds=1)
    assert labels(study) == {"dense": 1, "CS, as found": 4, "CS": 12}
    found = {
        (entry.config.settings.initial_gate, entry.config.settings.penalty)
        for entry in study.entries
        if entry.label == "CS, as found"
    }
    assert found == {(0.0, 0.0), (0.0, 1e-4), (-0.1, 0.0), (-0.1, 1e-4)}


def test_contestants_that_start_from_the_same_searches_share_them(tiny_recipe: Path) -> None:
    methods = ["cs", "cs-fine-tuned", "cs-shuffled", "cs-fresh"]
    study = ticket_study(load_recipe(tiny_recipe), methods=methods, dense_seeds=1)
    assert labels(study) == {
        "dense": 1, "CS, as found": 1, "CS": 1, "CS, fine-tuned": 1, "CS, layers shuffled": 1,
        "CS, fresh initialisation": 1,
    }  # fmt: skip
    settings = {e.label: e.config.settings for e in study.entries if e.config.method == "retrain"}
    assert settings["CS, fine-tuned"].start == "own"
    assert settings["CS, layers shuffled"].mask == "shuffled"
    assert settings["CS, fresh initialisation"].start == "fresh"
    assert len(with_ancestors(study.configs)) == len(study.configs)


def test_tickets_of_the_last_round_alone(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe).with_(methods={"cs": {"rounds": 3}})
    every, last = (
        ticket_study(recipe, methods=[name], dense_seeds=1).entries for name in ("cs", "cs-last")
    )
    assert {entry.config.id for entry in last} < {entry.config.id for entry in every}
    assert [e.config.parent.point for e in last if e.config.parent] == ["round-2"]


def test_variants_change_one_setting_of_the_method_each(tiny_recipe: Path) -> None:
    changes = {"penalty": [0.0, 1e-4], "reset": ["formula", "release"], "scaled": [True]}
    recipe = load_recipe(tiny_recipe).with_(methods={"cs-variants": changes})
    study = ticket_study(recipe, methods=["cs-variants"], dense_seeds=1)
    searches = [e.config.settings for e in study.entries if e.config.method == "cs"]
    base = recipe.config("cs", 0, **recipe.method("cs") | {"penalty": 1e-4, "rewind": "2it"})
    differing = [
        [f.name for f in fields(one) if getattr(one, f.name) != getattr(base.settings, f.name)]
        for one in searches
    ]
    # The base itself is among the penalties and among the resets, and is run once.
    assert sorted(differing) == [[], ["penalty"], ["reset"], ["scaled"]]


def test_a_scaled_ticket_is_retrained_with_its_scale(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe).with_(methods={"cs": {"scaled": True, "initial_gate": 0.0}})
    study = ticket_study(recipe, methods=["cs"], dense_seeds=1)
    assert [e.config.settings.mask_value for e in study.entries if e.label == "CS"] == [2.0]


def test_seeds_may_be_given_for_each_contestant(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe).with_(study={"seeds": {"default": 1, "omp": 2}})
    study = ticket_study(recipe, methods=["bip", "omp"], densities=[0.5], dense_seeds=1)
    assert labels(study) == {"dense": 2, "BiP": 1, "OMP": 2}
    everywhere = ticket_study(recipe, methods=["bip", "omp"], densities=[0.5], seeds=3)
    assert labels(everywhere) == {"dense": 3, "BiP": 3, "OMP": 3}


def test_dense_nets_are_trained_as_long_as_a_ticket_and_as_a_search(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe).with_(methods={"cs": {"rounds": 3}})
    study = ticket_study(recipe, methods=["dense-equal", "dense-search"], dense_seeds=1)
    lengths = {entry.label: entry.config.training.length for entry in study.entries}
    assert lengths == {
        "dense": "20it", "dense, equal training": "22it", "dense, search epochs": "80it",
    }  # fmt: skip
    warm = ticket_study(recipe.with_(training={"warmup": "6it"}), methods=["dense-search"])
    assert {entry.config.training.warmup for entry in warm.entries} == {"6it", "24it"}
    with pytest.raises(ConfigError, match="cannot add 1ep to 20it"):
        ticket_study(recipe.with_(rewind="1ep"), methods=["dense-equal"])


def test_a_training_is_stretched_in_whole_steps(tiny_recipe: Path) -> None:
    step = {"schedule": "step", "milestones": ["9it", "1.5ep"], "warmup": "3it"}
    training = load_recipe(tiny_recipe).with_(training=step).stretched(1.1).training
    assert (training.length, training.warmup) == ("22it", "3it")
    assert training.milestones == ("10it", "1.65ep")


def test_a_list_makes_a_search_of_each_value_whatever_the_method(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe).with_(
        methods={
            "bip": {"gamma": [1.0, 9.0], "implicit": True},
            "imp": {"fraction": [0.3, 0.6], "rounds": 2},
        }
    )
    study = ticket_study(recipe, methods=["imp", "bip", "bip-explicit"], dense_seeds=1)
    assert labels(study) == {"dense": 1, "IMP": 2, "BiP": 4, "BiP, implicit term off": 4}
    own = [entry.config.settings for entry in study.entries if entry.label == "IMP"]
    assert [(one.fraction, one.rounds) for one in own] == [(0.3, 2), (0.6, 2)]
    off = {e.config.settings.gamma for e in study.entries if "off" in e.label}
    assert off == {1.0, 9.0}


def test_imp_c_is_judged_as_found_and_retrained_and_imp_lr_once(tiny_recipe: Path) -> None:
    study = ticket_study(load_recipe(tiny_recipe), methods=["imp-c", "imp-lr"], dense_seeds=1)
    assert labels(study) == {
        "dense": 1, "IMP-C, as found": 1, "IMP-C": 2, "IMP, learning-rate rewinding": 1,
    }  # fmt: skip
    rewinding = {
        e.label: e.config.settings.rewinding for e in study.entries if e.config.method == "imp"
    }
    assert rewinding == {
        "IMP-C, as found": "none", "IMP, learning-rate rewinding": "learning-rate",
    }  # fmt: skip


def test_an_empty_list_of_initial_gates_is_refused(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe).with_(methods={"cs": {"initial_gate": []}})
    with pytest.raises(ConfigError, match=r"cs\.initial_gate is an empty list"):
        ticket_study(recipe, methods=["cs"])


def test_a_study_is_made_once_at_each_precision(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe).with_(study={"precisions": ["fp32", "bf16"]})
    study = ticket_study(recipe, methods=["cs", "bip"], densities=[0.5], dense_seeds=1)
    assert labels(study) == {
        "dense, fp32": 1, "CS, as found, fp32": 1, "CS, fp32": 1, "BiP, fp32": 1,
        "dense, bf16": 1, "CS, as found, bf16": 1, "CS, bf16": 1, "BiP, bf16": 1,
    }  # fmt: skip
    for config in with_ancestors(study.configs):
        own = {one.training.precision for one in with_ancestors([config])}
        assert len(own) == 1
    once = ticket_study(recipe, methods=["cs", "bip"], densities=[0.5], precisions=[])
    assert {entry.label for entry in once.entries} == {"dense", "CS, as found", "CS", "BiP"}


def test_a_run_at_a_precision_is_that_of_the_plain_study(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    plain, twofold = (ticket_study(recipe, precisions=one) for one in ([], ["fp32", "bf16"]))
    assert [entry.config.id for entry in twofold.entries][: len(plain.entries)] == [
        entry.config.id for entry in plain.entries
    ]


def test_precisions_do_not_take_a_study_from_its_scale() -> None:
    study = ticket_study(load_recipe("cs-resnet20"), precisions=["fp32", "bf16"], seeds=1)
    assert study.scale == "paper"


@pytest.mark.parametrize(
    ("value", "message"),
    [("fp16", "precision is 'fp16'; expected one of fp32, tf32, bf16"), (16, "precisions")],
)
def test_an_unknown_precision_is_refused(tmp_path: Path, value: object, message: str) -> None:
    file = tmp_path / "mine.yaml"
    listed = f"[{value}]"
    file.write_text(
        "name: mine\nextends: digits\nabout: other numbers\n"
        f"study: {{precisions: {{value: {listed}, source: a test}}}}\n"
    )
    with pytest.raises(ConfigError, match=message):
        ticket_study(load_recipe(file))


@pytest.mark.parametrize(
    ("network", "fitted"),
    [
        ("vgg16", {"shortcut": "identity", "width": 8}),
        ("resnet18", {"shortcut": "identity", "width": 8}),
        ("resnet50", {"shortcut": "identity", "width": 64}),
        ("resnet56", {"shortcut": "projection", "width": 8}),
    ],
)
def test_what_a_chosen_network_has_no_choice_of_gives_way(network: str, fitted: dict) -> None:
    recipe = load_recipe("digits").with_(model={"architecture": network})
    assert {name: recipe.values["model"][name] for name in fitted} == fitted
    assert recipe.config("dense", 0).model.architecture == network
    own = load_recipe("digits").sources["model.shortcut"]
    known = own if network == "resnet56" else f"{network} has no other"
    assert recipe.sources["model.shortcut"] == known


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"architecture": "vgg16", "shortcut": "projection"}, "model.shortcut is 'projection'"),
        ({"architecture": "resnet50", "width": 8}, "model.width is 8, but resnet50"),
    ],
)
def test_what_the_user_gave_a_network_that_lacks_it_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=f"{message}.* has no choice of"):
        load_recipe("digits").with_(model=given)
    earlier = load_recipe("digits").with_(model={"shortcut": "projection", "width": 8})
    with pytest.raises(ConfigError, match="has no choice of"):
        earlier.with_(model={"architecture": given["architecture"]})
    with pytest.raises(ConfigError, match="architecture"):
        earlier.with_(model={"architecture": [given["architecture"]]})


def test_a_recipe_of_another_network_need_not_mend_what_it_extends(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = "name: mine\nextends: digits\nabout: V\nmodel: {architecture: {value: vgg16, source: a}"
    file.write_text(f"{text}}}\n")
    assert load_recipe(file).config("dense", 0).model.shortcut == "identity"
    file.write_text(f"{text}, shortcut: {{value: projection, source: a test}}}}\n")
    with pytest.raises(ConfigError, match=r"model.shortcut is 'projection', but vgg16"):
        load_recipe(file)
