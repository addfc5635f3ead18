"""The workflows of continuous integration: well formed, safe, and running what a person runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from lthlib.recipes import load_recipe

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
SCRIPTS = Path(sysconfig.get_path("scripts"))


def read(name: str) -> dict[str, Any]:
    # `on` is a word for true in YAML 1.1, which the parser follows.
    content = yaml.safe_load((FOLDER / name).read_text())
    return {"on" if key is True else key: value for key, value in content.items()}


def jobs() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.name}: {name}", job)
        for path in WORKFLOWS
        for name, job in read(path.name)["jobs"].items()
    ]


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def made(job: dict[str, Any]) -> list[str]:
    """The make targets that a job's steps run."""
    words = [shlex.split(one) for one in commands(job)]
    return [word for one in words if one[0] == "make" for word in one[1:] if "=" not in word]


@pytest.mark.parametrize(
    "linter",
    [
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS)],
        ["zizmor", "--offline", "--no-progress", "--persona", "pedantic", str(ROOT / ".github")],
    ],
    ids=["check-jsonschema", "zizmor"],
)
def test_linters_find_nothing(linter: list[str]) -> None:
    command = [str(SCRIPTS / linter[0]), *linter[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("workflow", "targets"),
    [
        ("tests.yml", ["test"]),
        ("book.yml", ["book"]),
        ("regenerate.yml", ["check-results"]),
        ("gpu.yml", ["test-gpu"]),
        ("results.yml", ["sweep"]),
    ],
)
def test_workflows_run_what_a_person_runs(workflow: str, targets: list[str]) -> None:
    assert [target for job in read(workflow)["jobs"].values() for target in made(job)] == targets
    rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(targets) <= set(rules)


def test_all_workflows_are_known_here() -> None:
    assert [path.stem for path in WORKFLOWS] == [
        *("book", "gpu", "regenerate", "release", "results", "tests")
    ]


def test_tests_run_on_every_python_that_is_supported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = [re.search(r":: (3\.\d+)$", one) for one in project["classifiers"]]
    versions = [version[1] for version in told if version]
    assert SpecifierSet(project["requires-python"]) == SpecifierSet(f">={versions[0]}")
    assert read("tests.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == versions


@pytest.mark.parametrize(("name", "job"), jobs(), ids=[name for name, _ in jobs()])
def test_jobs_end_and_may_do_only_what_they_need(name: str, job: dict[str, Any]) -> None:
    assert 0 < job["timeout-minutes"] <= 360
    writing = {scope for scope, access in job["permissions"].items() if access == "write"}
    allowed = {
        "book.yml: deploy": {"pages", "id-token"},
        "release.yml: publish": {"id-token"},
        "results.yml: propose": {"contents", "pull-requests"},
    }
    assert writing == allowed.get(name, set())


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_workflows_grant_nothing_by_default_and_never_run_twice_at_once(path: Path) -> None:
    content = read(path.name)
    assert content["permissions"] == {}
    assert content["concurrency"]["group"]


@pytest.mark.parametrize(("name", "job"), jobs(), ids=[name for name, _ in jobs()])
def test_actions_are_pinned(name: str, job: dict[str, Any]) -> None:
    for step in job["steps"]:
        if "uses" in step:
            own, pypi = r"actions/[\w-]+@v\d+\.\d+\.\d+", r"pypa/[\w-]+@[0-9a-f]{40}"
            assert re.fullmatch(f"{own}|{pypi}", step["uses"])
        if "cache" in step.get("with", {}):
            assert step["with"]["cache-dependency-path"] == "constraints.txt"


def test_the_same_action_has_the_same_version_everywhere() -> None:
    used = {step["uses"] for _, job in jobs() for step in job["steps"] if "uses" in step}
    assert len(used) == len({one.partition("@")[0] for one in used})


def test_regeneration_is_weekly_and_sees_the_whole_history() -> None:
    content = read("regenerate.yml")
    (schedule,) = content["on"]["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", schedule["cron"])
    checkout, *_, upload = content["jobs"]["check"]["steps"]
    assert checkout["with"]["fetch-depth"] == 0
    assert upload["if"] == "always()"  # a drift fails the step before
    assert upload["with"]["path"] == "build/check-results"


def test_studies_that_may_be_proposed_need_no_data_but_the_embedded() -> None:
    options = read("results.yml")["on"]["workflow_dispatch"]["inputs"]["study"]["options"]
    recipes = [load_recipe(name) for name in options]
    assert {recipe.values["data"]["dataset"] for recipe in recipes} == {"digits"}
    assert [recipe.name for recipe in recipes] == options
    published = {path.stem for path in (ROOT / "results").glob("digits*.jsonl")}
    assert set(options) == published
