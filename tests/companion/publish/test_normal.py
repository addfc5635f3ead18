"""Results beside a published study's: what is expected of new seeds, and what differs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from companion.evidence.retest import expected
from companion.publish.normal import Beside, beside
from companion.published import load_study, published
from lthlib.cli.command import app
from lthlib.errors import ConfigError, LthlibError
from lthlib.files import sealed
from tests.companion.publish.toys import REPOSITORY

RESULTS = REPOSITORY / "results"
Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def digits() -> Records:
    return load_study(RESULTS, "digits")


def mine(records: Records, *labels: str, seed: int = 0) -> Records:
    """A copy of the records of some labels and a seed."""
    return [copy.deepcopy(one) for one in records if one["label"] in labels and one["seed"] == seed]


def row(found: Beside, curve: str, kept: float, quantity: str = "test accuracy") -> Any:
    means = found.means
    near = (means["density"] / kept).between(0.9, 1.1) & (means["curve"] == curve)
    (one,) = means[near & (means["quantity"] == quantity)].itertuples()
    return one


def test_with_many_seeds_it_is_the_usual_prediction_interval() -> None:
    values = np.random.default_rng(0).normal(90, 2, (1, 400))
    mean, seeds, variance, freedom = (part[0] for part in expected(values, 1e-6, accuracies=True))
    assert (mean, seeds) == (values.mean(), 400)
    assert variance == pytest.approx(values.var(ddof=1))
    assert freedom >= 399


def test_new_seeds_lie_inside_as_often_as_they_should() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(rng.uniform(60, 95, (300, 1)), 1.5, (300, 3))
    mean, seeds, variance, freedom = expected(values, 1e-6, accuracies=False)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance * (1 / seeds + 1 / 2))
    truth = values.mean(axis=1)  # a new mean of two seeds has this error and that of the record
    new = truth + rng.normal(0, 1.5, (2000, 300)) * np.sqrt(1 / 3 + 1 / 2)
    assert 0.93 < (np.abs(new - mean) < half).mean() < 0.97


def test_equal_results_lie_inside_and_differ_in_nothing(digits: Records) -> None:
    found = beside(digits, copy.deepcopy(digits))
    assert set(found.means["lies"]) == {"inside"}
    assert list(found.means["mine"]) == pytest.approx(list(found.means["expected"]))
    assert found.differences == []
    assert found.alone == []
    assert str(found).startswith(f"0 of {len(found.means)} means lie outside")


def test_a_lower_accuracy_lies_outside_by_as_much_as_it_is_lower(digits: Records) -> None:
    own = mine(digits, "BiP", "OMP")
    for one in own:
        if one["label"] == "BiP" and one["ticket"]["target_density"] == 0.1:
            one["accuracy"]["test"] -= 8
    found = beside(digits, own)
    lower, usual = row(found, "BiP", 0.1), row(found, "OMP", 0.1)
    assert (lower.lies, usual.lies) == ("outside", "inside")
    assert lower.mine < lower.low < lower.expected < lower.high
    assert "outside (-" in found.table().split("\n")[2]  # it stands first


def test_more_seeds_narrow_the_interval(digits: Records) -> None:
    one, three = (
        beside(digits, [own for seed in seeds for own in mine(digits, "BiP", seed=seed)])
        for seeds in ((0,), (0, 1, 2))
    )
    alone, together = (row(found, "BiP", 0.1) for found in (one, three))
    assert (alone.n, together.n, alone.seeds) == (1, 3, 3)
    assert together.high - together.low < 0.8 * (alone.high - alone.low)


def test_a_density_that_is_found_is_compared_as_well(digits: Records) -> None:
    own = mine(digits, "CS, as found")
    for one in own:
        one["density"] *= 1.5
    found = beside(digits, own)
    rows = found.means[found.means["quantity"] == "density"]
    assert set(rows["lies"]) == {"outside"}
    assert np.all(rows["mine"] > rows["high"])


def test_what_differs_is_named_with_both_values(digits: Records) -> None:
    own = mine(digits, "BiP", seed=1)
    for one in own:
        one["seed"] = one["config"]["seed"] = 7
        for config in (one["config"], one["config"]["parent"]["config"]):
            config["training"]["precision"] = "bf16"
        one["config"]["settings"]["gamma"] = 2.0
        one["provenance"]["torch"] = "9.9.9"
    said = beside(digits, own).differences
    assert "training.precision: fp32, yours bf16" in said
    assert "torch: 2.13.0, yours 9.9.9" in said
    assert any(line.startswith("settings.gamma: ") and line.endswith("yours 2") for line in said)
    assert not any("device" in line or "momentum" in line for line in said)


def test_of_several_configurations_the_nearest_is_compared() -> None:
    tuning = load_study(RESULTS, "digits-tuning")
    trials = [one for one in tuning if one["label"] == "CS, as found" and one["status"] == "ok"]
    for one in trials[:10]:
        own = copy.deepcopy(one)
        own["config"]["training"]["weight_decay"] = 0.5
        found = beside(tuning, [own])
        assert found.means["mine"].iloc[0] == found.means["expected"].iloc[0]
        assert [line.partition(":")[0] for line in found.differences] == ["training.weight_decay"]


def test_one_seed_shows_no_spread() -> None:
    tuning = load_study(RESULTS, "digits-tuning")
    found = beside(tuning, copy.deepcopy(tuning))
    assert set(found.means["lies"]) == {"no spread known"}
    assert "nan" not in found.table()
    assert str(found).startswith("0 of 0 means")


def test_what_the_study_lacks_is_left_out_and_told(digits: Records) -> None:
    own = mine(digits, "BiP", "OMP")
    for one in own:
        if one["label"] == "OMP":
            one["label"] = "mine"
    found = beside(digits, own)
    assert set(found.means["curve"]) == {"BiP"}
    assert found.alone[:2] == ["mine, retrained, 50 %", "mine, retrained, 20 %"]
    assert len(found.alone) == 6


def test_a_label_of_somebody_is_text(digits: Records) -> None:
    own = mine(digits, "BiP")
    for one in own:
        one["label"] = "<b>|x"
    assert "| \\<b>\\|x |" in beside(own, own).table()


def test_nothing_in_common_is_an_error_that_says_what_each_has(digits: Records) -> None:
    own = mine(digits, "BiP")
    for one in own:
        one["config"]["data"]["dataset"] = "cifar10"
    with pytest.raises(ConfigError, match=r"Yours: cifar10, resnet8, BiP\. The study's: digits"):
        beside(digits, own)


def test_failed_runs_are_no_results(digits: Records) -> None:
    own = mine(digits, "BiP")
    own[0] |= {"status": "failed", "failure": "the loss is not finite", "density": None}
    own[0] |= {"kept": None, "total": None, "layers": {}, "accuracy": None}
    found = beside(digits, own)
    assert len(found.means) == len(own) - 1


def test_somewhat_fewer_seeds_that_are_held_out_lie_inside_than_should(digits: Records) -> None:
    lies: list[str] = []
    for seed in range(10):
        rest, own = ([r for r in digits if (r["seed"] == seed) is out] for out in (False, True))
        lies += beside(rest, own).means["lies"].tolist()
    assert len(lies) > 200
    assert 0.9 < lies.count("inside") / len(lies) < 0.95


@pytest.fixture
def compare(digits: Records, tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "mine.jsonl").write_bytes(published(mine(digits, "BiP", seed=1)))
    runner = CliRunner()
    return lambda one="mine.jsonl", other="digits", results=RESULTS: runner.invoke(
        app, ["compare", str(tmp_path / one), other, "--results", str(results)]
    )


def test_the_command_says_all_of_it(compare: Callable[..., Any]) -> None:
    done = compare()
    assert done.exit_code == 0
    assert "mine.jsonl beside digits: 0 of 6 means lie outside" in done.output
    assert "| BiP | 10 % | test accuracy |" in done.output
    assert "may be the cause:\n- seed: 0, 1, 2, yours 1\n" in done.output
    assert compare(other=str(RESULTS / "digits.jsonl")).output.count("inside") == 6


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"one": "none.jsonl"}, "none.jsonl: No such file"),
        ({"other": "moon"}, "has no record of 'moon'; it has cifar10-bip, "),
        ({"other": "cifar10-bip"}, "no ticket is in both. Yours: digits, resnet8, BiP. "),
        ({"one": "empty.jsonl"}, "empty.jsonl"),
        ({"one": "old.jsonl"}, "schema is 0, expected 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    asked: dict[str, str], said: str, compare: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "old.jsonl").write_bytes(sealed({"schema": 0}) + b"\n")
    error = compare(**asked).exception
    assert isinstance(error, LthlibError)
    assert said in str(error)
