"""Reports on studies that were computed again, and the command that makes them."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from companion.publish.checks import (
    DEFAULT,
    causes,
    commits_since,
    load_reports,
    markdown,
    report,
    sentence,
    table,
    write_report,
)
from companion.publish.context import page_context
from companion.published import load_results, published
from companion.studies import ticket_study
from lthlib.cli.command import app
from lthlib.errors import ConfigError, RecordError
from lthlib.files import is_sealed, sealed
from lthlib.recipes import load_recipe
from lthlib.runs import Machine, RunConfig, RunResult, Store, execute
from tests.companion.publish.records import write

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    own = [record for record in load_results(RESULTS) if record["study"] == "digits"]
    return [record for record in own if record["label"] in ("dense", "BiP", "random")]


def digits(recorded: list[dict[str, Any]], again: list[dict[str, Any]]) -> dict[str, Any]:
    command = "lth check-results digits"
    return report("digits", recorded, again, None, command=command, made_up=100)


@pytest.fixture(scope="module")
def drifted(recorded: list[dict[str, Any]]) -> dict[str, Any]:
    """One weight more in one ticket, on another PyTorch."""
    again = copy.deepcopy(recorded)
    chosen = next(record for record in again if record["label"] == "BiP")
    chosen["kept"] += 1
    chosen["provenance"]["torch"] = "9.9.9"
    return digits(recorded, again)


def test_a_report_says_what_passed(recorded: list[dict[str, Any]]) -> None:
    content = digits(recorded, recorded)
    assert content["passed"] is True
    assert content["tickets"] == content["identical"] == len(recorded)
    text = sentence(content)
    assert text.startswith("`lth check-results digits` **passed** on ")
    assert f"{len(recorded)} tickets, {len(recorded)} of them identical to the last digit" in text
    assert "alters what is computed" not in text
    heads, _, *rows = table(content).splitlines()
    assert heads.startswith("| curve | tickets | identical | largest difference | drifted |")
    assert [row.split(" | ")[0] for row in rows] == ["| dense", "| BiP", "| random"]
    assert rows[0].startswith("| dense | 10 | 10 | +0.0 standard errors | 0 | ")


def test_a_drift_is_named_with_candidates_for_its_cause(drifted: dict[str, Any]) -> None:
    assert drifted["passed"] is False
    (one,) = drifted["drifted"]
    assert (one["label"], one["quantity"]) == ("BiP", "kept weights")
    assert one["causes"][0] == "torch: 2.13.0 became 9.9.9"
    assert any("commit" in cause for cause in one["causes"][1:])
    text = markdown(drifted)
    assert "**drifted in 1 numbers**" in text
    assert f"is {one['computed']}, was {one['recorded']}. Runs {one['runs'][0]}." in text


def test_a_change_within_chance_on_the_same_machine_is_told(
    recorded: list[dict[str, Any]],
) -> None:
    again = copy.deepcopy(recorded)
    again[0]["accuracy"]["test"] += 0.1
    content = digits(recorded, again)
    assert content["passed"] is True
    assert content["identical"] == len(recorded) - 1
    assert "some change of the code alters what is computed" in sentence(content)
    again[0]["provenance"]["device_name"] = "another processor"
    assert "alters what is computed" not in sentence(digits(recorded, again))


def test_commits_that_touch_the_files_of_a_run_are_candidates(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=one", "-c", "user.email=one@example.org"]
        done = subprocess.run(
            ["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    for name, message in (("a", "first"), ("a", "changes a"), ("b", "changes b")):
        (tmp_path / name).write_text(message)
        git("add", ".")
        git("commit", "--quiet", "--message", message)
    first = git("rev-list", "--max-parents=0", "HEAD")
    (told,) = commits_since(first, [str(tmp_path / "a")], tmp_path)
    assert told.startswith("commit ") and told.endswith("changes a")
    (told,) = commits_since(git("rev-parse", "HEAD"), [str(tmp_path / "a")], tmp_path)
    assert told.startswith("no commit since")
    (told,) = commits_since("0" * 40, [str(tmp_path / "a")], tmp_path)
    assert told == "git does not know commit 0000000: fetch the whole history to see what changed"
    (told,) = commits_since("", [], tmp_path)
    assert told.startswith("the record names no commit")


def test_changes_that_are_not_committed_are_candidates(recorded: list[dict[str, Any]]) -> None:
    again = copy.deepcopy(recorded[:1])
    again[0]["provenance"]["dirty"] = True
    assert "computed again with changes that were not committed" in causes(recorded[:1], again)


def test_a_report_is_read_back_and_the_latest_counts(
    tmp_path: Path, drifted: dict[str, Any]
) -> None:
    folder = tmp_path / "checks"
    write_report({**drifted, "date": "2026-11-20T10:00:00+00:00", "tickets": 1}, folder)
    path = write_report({**drifted, "date": "2026-11-21T10:00:00+00:00"}, folder)
    assert path.name == "2026-11-21-digits.json"
    assert path.with_suffix(".md").read_text() == markdown(json.loads(path.read_text()))
    assert is_sealed(path.read_bytes().strip())
    assert load_reports(tmp_path)["digits"]["tickets"] == drifted["tickets"]
    assert load_reports(tmp_path / "nowhere") == {}
    path.write_bytes(sealed({**drifted, "curves": [{"label": 3}]}) + b"\n")
    with pytest.raises(RecordError, match=r"2026-11-21-digits.json: lacks curves\[0\]"):
        load_reports(tmp_path)
    path.write_text("no JSON")
    with pytest.raises(RecordError, match=r"is not JSON .* again with `lth check-results`"):
        load_reports(tmp_path)


def test_pages_show_reports(drifted: dict[str, Any]) -> None:
    context = page_context([], {}, {"digits": drifted})
    ((study, own),) = context["reports"]().items()
    assert study == "digits"
    assert context["check"](own) == sentence(drifted)
    assert context["check_table"](own) == table(drifted)


def test_published_reports_are_well_formed_and_passed() -> None:
    assert all(content["passed"] for content in load_reports(RESULTS).values())


def test_what_is_checked_by_default_is_published() -> None:
    for name, parts in DEFAULT.items():
        own = {**parts, "methods": parts["methods"].split(",")} if parts else {}
        wanted = {config.id for config in ticket_study(load_recipe(name), **own).configs}
        published = {record["run"] for record in load_results(RESULTS) if record["study"] == name}
        assert wanted <= published


@pytest.fixture
def stored(tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A part of a study, computed into a store and recorded; returns what names the part."""
    monkeypatch.chdir(tmp_path)
    study = ticket_study(
        load_recipe(tiny_recipe), methods=["bip"], densities=[0.5], seeds=1, dense_seeds=2
    )
    for config in study.configs:
        execute(config, Store("store"), Machine(device="cpu"))
    write(Path("results"), study, study.records(Store("store")))
    part = "--methods bip --densities 0.5 --seeds 1 --dense-seeds 2"
    return [str(tiny_recipe), *part.split(), "--device", "cpu"]


@pytest.fixture
def lth() -> Iterator[Callable[..., Result]]:
    """The command, in this process."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda *arguments: CliRunner().invoke(app, ["check-results", *arguments])
    signal.signal(signal.SIGTERM, before)


def test_a_study_is_computed_again_from_nothing(
    stored: list[str], lth: Callable[..., Result]
) -> None:
    done = lth(*stored, "--jobs", "1")
    assert done.exit_code == 0, done.output
    assert "`lth check-results tiny --methods bip --densities 0.5 --seeds 1 --d" in done.output
    (path,) = Path("build/check-results").glob("*-tiny.json")
    content = json.loads(path.read_text())
    assert content["passed"] is True
    assert content["tickets"] == content["identical"] == 3  # two dense, one of BiP
    assert content["recorded"] == content["computed"]


def test_a_number_that_drifted_ends_with_status_1(
    stored: list[str], lth: Callable[..., Result]
) -> None:
    lines = load_results("results")
    lines[-1]["cost"]["own"]["forward_passes"] += 1
    Path("results/tiny.jsonl").write_bytes(published(lines))
    done = lth(*stored, "--store", "store")
    assert done.exit_code == 1
    assert "own forward passes** is " in done.output
    assert f"Runs {lines[-1]['run']}. Candidates:" in done.output


def test_a_check_that_is_out_of_time_says_come_again(
    stored: list[str], lth: Callable[..., Result]
) -> None:
    done = lth(*stored, "--store", "new", "--budget", "0s")
    assert done.exit_code == 75
    assert not Path("build").exists()


def test_imported_runs_are_not_taken_for_computed_ones(
    stored: list[str], lth: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Store.load

    def imported(store: Store, config: RunConfig) -> RunResult | None:
        result = load(store, config)
        return result and replace(result, imported={"archive": "a stranger's"})

    monkeypatch.setattr(Store, "load", imported)
    done = lth(*stored, "--store", "store")
    assert isinstance(done.exception, ConfigError)
    assert "3 runs in store were imported, not computed" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits", "--budget", "9s"], "--budget stops and goes on from a store; name one with"),
        (["--dense-seeds", "1"], "--dense-seeds is about a study; name one"),
        (["digits-tuning", "--results", ".", "--store", "s"], ". has no record of digits-tuning"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_computed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lth: Callable[..., Result],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = lth(*arguments)
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
    assert list(tmp_path.iterdir()) == []
