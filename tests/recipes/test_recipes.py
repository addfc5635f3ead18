from __future__ import annotations

from pathlib import Path

import pytest

from lthlib.errors import ConfigError
from lthlib.recipes import CONTESTANTS, load_recipe, recipe_names, ticket_study
from lthlib.recipes.studies import dense_run
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
        ({"methods": ["bop"]}, "expected some of imp, imp-c"),
        ({"densities": [1.5]}, "density is 1.5"),
        ({"densities": []}, "at least one density"),
        ({"seeds": 0}, "at least one density and one seed"),
    ],
)
def test_a_senseless_study_is_refused(tiny_recipe: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ticket_study(load_recipe(tiny_recipe), **arguments)


def test_a_changed_value_is_marked_as_the_users(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe).with_(training={"length": "3it"})
    assert recipe.config("dense", 0).training.length == "3it"
    assert recipe.sources["training.length"] == "given by the user"


def test_contestants_are_named_as_the_documentation_names_them() -> None:
    assert list(CONTESTANTS) == [
        "imp", "imp-c", "imp-lr",
        "cs", "cs-fine-tuned", "l0-fine-tuned", "iss-fine-tuned", "cs-shuffled", "cs-fresh", "cs-variants",
        "l0", "l0-variants", "iss", "iss-variants",
        "bip", "bip-retrained", "omp", "omp-fine-tuned", "omp-matched", "gmp", "random",
        "bip-unclipped", "bip-release", "dense-equal", "dense-search",
    ]  # fmt: skip
