"""Measuring the facts of claim B4, with a recipe of a few seconds."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from companion.bilevel import measured
from companion.bilevel.hypergradient import Point, Quadratic
from companion.evidence.facts import facts_of, load_facts
from companion.publish.artefacts import provenance
from lthlib.cli.command import app
from lthlib.errors import ConfigError, Unsolved
from lthlib.methods.bip import upper_gradient
from lthlib.recipes import Recipe, load_recipe
from lthlib.runs import Machine, Store
from tests.conftest import write_tiny

CPU = Machine(device="cpu")
B4 = set(facts_of("B4"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("facts")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Recipe:
    return load_recipe(write_tiny(folder))


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return Store(folder / "store")


@pytest.fixture(scope="module")
def network(recipe: Recipe, store: Store) -> pd.DataFrame:
    nets = measured.thinned(recipe, [0, 1], store, CPU, images=64)
    return measured.network_table(nets, [1e-4, 1.0, 100.0], solver_steps=40)


def test_random_masks_keep_what_is_asked() -> None:
    one, again, other = (measured.random_mask(10, seed, 0.3) for seed in (0, 0, 1))
    assert one.sum() == 3
    assert set(one.tolist()) == {0.0, 1.0}
    assert one.equal(again)
    assert not one.equal(other)


def test_quadratics_by_hand() -> None:
    table = measured.quadratic_table([0.5, 1e4], [6], [3], kept=0.5)
    assert table[["problem", "size", "seed"]].drop_duplicates().values.tolist() == [
        ["quadratic", 6, 3]
    ]
    problem, mask = Quadratic.random(6, 3), measured.random_mask(6, 3, 0.5)
    theta = problem.weights(mask, 0.5)
    gradient = problem.matrix @ (mask * theta - problem.target)
    estimate = upper_gradient(theta, gradient, mask, 2.0)
    exact, direct = problem.hypergradient(mask, 0.5), theta * gradient
    (row, late) = table.to_dict("records")
    similar = torch.nn.functional.cosine_similarity
    for name, one, two in (
        ("cosine", estimate, exact),
        ("implicit_cosine", estimate - direct, exact - direct),
        ("direct_cosine", direct, exact),
    ):
        assert row[name] == pytest.approx(float(similar(one, two, dim=0)), abs=1e-12)
    assert row["error"] == pytest.approx(float((estimate - exact).norm() / exact.norm()))
    kept = mask > 0
    wrong = (estimate[kept].sign() != exact[kept].sign()).double().mean()
    assert row["flips"] == pytest.approx(float(wrong))
    jacobian = problem.jacobian(mask, 0.5)
    guess = torch.diag(-2 * gradient)
    gap = (guess - jacobian)[kept].norm() / jacobian[kept].norm()
    assert row["weight_error"] == pytest.approx(float(gap))
    against = (guess.diagonal() * jacobian.diagonal())[kept] < 0
    assert row["weight_flips"] == pytest.approx(float(against.double().mean()))
    assert late["error"] < 1e-3 and late["weight_error"] < 1e-3
    assert late["flips"] == late["weight_flips"] == 0
    assert row["distance"] < 1e-12


def test_a_network_in_three_places(network: pd.DataFrame) -> None:
    assert len(network) == 2 * 3 * 3
    assert list(dict.fromkeys(network["point"])) == ["start", "trained", "solved"]
    late = network[network["gamma"] == 100.0].set_index(["point", "seed"])
    assert late["definite"].all()
    assert (late["cosine"] > 0.99).all()
    assert (late.loc["solved", "distance"] < 1e-4).all()
    assert (late.loc["start", "distance"] > 0.9).all()
    assert (late.loc["trained", "loss"] < late.loc["start", "loss"]).all()


def test_where_the_lower_level_has_no_minimum_there_is_no_number(network: pd.DataFrame) -> None:
    start = network[(network["gamma"] == 1e-4) & (network["point"] == "start")]
    assert not start["definite"].any()
    assert start[list(measured.MEASURES)].isna().all(axis=None)
    assert start[["loss", "distance"]].notna().all(axis=None)


def test_the_frozen_mask_is_the_magnitude_mask_and_stays(recipe: Recipe, store: Store) -> None:
    config, trainer, dense = measured.frozen(recipe, 0, 0.2, store, CPU)
    assert config.settings.upper_learning_rate == 0
    net = measured.thinned(recipe, [0], store, CPU, density=0.2, images=32)[0]
    assert dense.weights is not None
    flat = torch.cat([dense.weights[name].abs().reshape(-1) for name in trainer.names])
    smallest = flat.sort(descending=True).values[int(net.mask.sum()) - 1]
    assert net.mask.equal((flat >= smallest).double())
    assert net.mask.mean() == pytest.approx(0.2, abs=1e-3)
    moved = net.loss.flat(net.trained) - net.loss.flat(net.loss.tensors)
    assert moved[net.mask == 1].abs().min() > 0
    assert len(net.loss.y) == 32


@pytest.mark.parametrize("lower_steps", [1, 3])
def test_passes_are_counted_beyond_the_lower_steps(
    recipe: Recipe, store: Store, lower_steps: int
) -> None:
    changed = recipe.with_(methods={"bip": {"lower_steps": lower_steps}})
    assert measured.extra_passes(changed, 0, store, CPU) == 1


def test_an_unknown_point_is_refused() -> None:
    with pytest.raises(ConfigError, match="point is 'end'; expected some of start, trained"):
        measured.network_table({}, [1.0], points=["start", "end"])


def test_a_table_says_what_made_it(recipe: Recipe, network: pd.DataFrame) -> None:
    rows = measured.with_provenance(network, recipe, CPU, time.monotonic())
    line = provenance(rows)
    assert line.startswith("Scale: embedded · seeds: 0–1 · device: ")
    assert "runs: 2" in line
    assert rows["own_seconds"].nunique() == 1
    assert (rows["own_seconds"] >= 0).all()


@pytest.fixture
def small(folder: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe, batch and problems of the facts made small."""
    changes: dict[str, Any] = {"RECIPE": str(folder / "tiny.yaml"), "IMAGES": 64, "SEEDS": (0, 1)}
    for name, value in {**changes, "SIZE": 8, "QUADRATICS": (0, 1, 2)}.items():
        monkeypatch.setattr(measured, name, value)
    given = recipe.with_(methods={"bip": {"gamma": 50.0}})
    monkeypatch.setattr(measured, "load_recipe", lambda name: given)


@pytest.mark.usefixtures("small")
def test_facts_are_what_the_tables_say_at_the_recipes_gamma(recipe: Recipe, store: Store) -> None:
    found = measured.measure(store, CPU)
    assert set(found) == B4
    nets = measured.thinned(recipe, [0, 1], store, CPU, images=64)
    table = measured.network_table(nets, [50.0], points=["trained"])
    for name, column in (
        ("cosine_network", "cosine"),
        ("implicit_cosine_network", "implicit_cosine"),
        ("direct_cosine_network", "direct_cosine"),
        ("implicit_cosine_cifar10", "implicit_cosine"),  # here both are of one recipe
    ):
        assert found[name].values == pytest.approx(table[column].tolist(), abs=1e-6)
        assert found[name].value == pytest.approx(table[column].mean(), abs=1e-6)
        assert "gamma = 50, mean" in found[name].definition
    quadratic = measured.quadratic_table([50.0], [8], [0, 1, 2])
    assert found["cosine_quadratic"].values == pytest.approx(quadratic["cosine"].tolist())
    assert 0 < found["identity_error"].value < 1e-10
    assert found["identity_error"].value == max(found["identity_error"].values)
    assert found["extra_backward_passes"].values == (1.0, 1.0)


def unsolved(point: Point, gamma: float) -> Any:
    raise Unsolved("the lower level has no minimum here")


@pytest.mark.usefixtures("small")
def test_a_cosine_that_some_seed_lacks_is_left_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, calls = Point.exact, []

    def sometimes(point: Point, gamma: float) -> Any:
        calls.append(gamma)
        return exact(point, gamma) if len(calls) > 1 else unsolved(point, gamma)

    monkeypatch.setattr(Point, "exact", sometimes)
    found = measured.measure(store, CPU)
    assert B4 - set(found) == {
        *("cosine_network", "implicit_cosine_network", "direct_cosine_network")
    }


@pytest.mark.usefixtures("small")
def test_the_command_says_what_was_not_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Point, "exact", unsolved)
    arguments = ["facts", "--store", str(folder / "store"), "--results", str(tmp_path)]
    told = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert told.exit_code == 0
    assert "4 facts" in told.output
    assert "a lower level has no minimum: cosine_network, implicit_cosine_cifar10" in told.output
    assert "cosine_network" not in load_facts(tmp_path)


@pytest.mark.usefixtures("small")
def test_the_command_writes_them_and_again_the_same(folder: Path, tmp_path: Path) -> None:
    arguments = ["facts", "--store", str(folder / "store"), "--device", "cpu", "--results"]
    made = [CliRunner().invoke(app, [*arguments, str(tmp_path / name)]) for name in ("a", "b")]
    assert [one.exit_code for one in made] == [0, 0], made[0].output
    assert f"{len(B4)} facts" in made[0].output
    one, other = (load_facts(tmp_path / name) for name in ("a", "b"))
    assert set(one) == B4
    assert {name: fact.values for name, fact in one.items()} == {
        name: fact.values for name, fact in other.items()
    }
    said = one["cosine_network"].provenance
    assert (said["device"], said["threads"]) == ("cpu", 1)
    assert all(math.isfinite(fact.value) for fact in one.values())
