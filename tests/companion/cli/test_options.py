"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from companion.cli.options import Excerpt, Selection, deadline
from companion.cli.sweeping import AtOnce, Placement
from lthlib.errors import ConfigError


def test_a_selection_is_a_study_of_a_changed_recipe(tiny_recipe: Path) -> None:
    chosen = Selection("omp", "0.5", 1, 2, ["training.length=7it"]).study(str(tiny_recipe))
    assert [entry.label for entry in chosen.entries] == ["dense", "dense", "OMP"]
    assert {config.training.length for config in chosen.configs} == {"7it"}
    assert Excerpt("omp", "0.5", 1, 2).study(str(tiny_recipe)).configs[0].training.length == "20it"
    with pytest.raises(ConfigError, match="'half' is not a number"):
        Excerpt(densities="half").study(str(tiny_recipe))


@pytest.mark.parametrize(
    ("options", "ranks", "said"),
    [
        ({"jobs": 2, "jobs_per_device": 2}, 1, "name one of them"),
        ({"jobs_per_device": 2, "scheduler": "tcp://a:1"}, 1, "leave out --jobs"),
        ({"executor": "ray"}, 1, "expected local or dask"),
        ({"executor": "local", "cluster": Path("x")}, 1, "leave out --executor local"),
        ({"scheduler": "tcp://a:1", "cluster": Path("x")}, 1, "name one of them"),
        ({"dry_run": True}, 1, "name its --cluster file"),
        ({"jobs": 2}, 2, "torchrun's ranks share each run"),
        ({"executor": "dask"}, 2, "torchrun's ranks share each run"),
    ],
)
def test_what_excludes_each_other_is_refused(options: dict, ranks: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Placement(**options).check(ranks)


def test_what_fits_together_is_not_refused() -> None:
    Placement().check(8)
    Placement(executor="dask", jobs=4).check(1)
    Placement(executor="local", jobs_per_device=4).check(1)
    AtOnce(jobs_per_device=4).check()


@pytest.mark.parametrize(("budget", "seconds"), [("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_a_budget_counts_from_the_start(budget: str, seconds: float) -> None:
    begun = deadline("0s")
    assert begun is not None
    assert deadline(budget) == pytest.approx(begun + seconds)
    assert deadline(None) is None
    with pytest.raises(ConfigError, match="budget is 'soon'; expected seconds, minutes or hours"):
        deadline("soon")


def test_a_study_may_take_seeds_of_its_own() -> None:
    study = Selection("omp", "0.1", 2, 2, ["study.first_seed=100"]).study("digits")
    assert {config.seed for config in study.configs} == {100, 101}
