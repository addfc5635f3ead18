"""All that is published is as it was written: `lth verify` says what is not, the build stops."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from companion.cli.publishing import _refuse_loss
from companion.publish.results import faults_of
from companion.publish.site import build_site
from companion.published import runs_in
from lthlib.cli.command import app
from lthlib.errors import ConfigError, RecordError

REPOSITORY = Path(__file__).parents[3]
FILES = ("cs-resnet20.jsonl", "facts.json", "checks/2026-11-21-digits.json")
FILES = (*FILES, "bench/2026-11-21-cpu.json")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        target = tmp_path / "results" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / "results" / name, target)
    return tmp_path


def verify(root: Path) -> Result:
    return CliRunner().invoke(
        app, ["verify", "--results", str(root / "results"), "--store", str(root / "store")]
    )


def change_a_digit(path: Path, seed: int) -> int:
    """Returns the line."""
    text, draw = path.read_text(), random.Random(seed)
    place = draw.choice([i for i, character in enumerate(text) if character.isdigit()])
    other = draw.choice([digit for digit in "0123456789" if digit != text[place]])
    path.write_text(text[:place] + other + text[place + 1 :])
    return text.count("\n", 0, place) + 1


def test_what_is_published_is_as_it_was_written() -> None:
    assert list(faults_of(REPOSITORY / "results")) == []


def test_verify_counts_what_is_well_formed(root: Path) -> None:
    done = verify(root)
    assert done.exit_code == 0, done.output
    assert "6 published records and 7 facts are well formed" in done.output


@pytest.mark.parametrize("name", FILES)
def test_every_changed_digit_shows(root: Path, name: str) -> None:
    path = root / "results" / name
    whole = path.read_bytes()
    for seed in range(40):
        path.write_bytes(whole)
        line = change_a_digit(path, seed)
        (error,) = faults_of(root / "results")
        where = f"{path}, line {line}" if path.suffix == ".jsonl" else str(path)
        assert str(error).startswith(f"{where}: "), error


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + b"\n",
        lambda text: b" " + text,
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b": ", b":  ", 1),
        lambda text: text[: text.rindex(b'"')].upper() + text[text.rindex(b'"') :],
    ],
)
def test_every_byte_counts(root: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    path = root / "results" / name
    path.write_bytes(change(path.read_bytes()))
    (error,) = faults_of(root / "results")
    assert str(error).startswith(str(path))


def test_a_damaged_line_does_not_free_the_others_to_be_replaced(root: Path) -> None:
    path = root / "results" / FILES[0]
    whole = runs_in(root / "results", path.stem)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7', 1))
    left = runs_in(root / "results", path.stem)
    assert len(whole) == 6 and left < whole and len(left) == 5
    with pytest.raises(ConfigError, match="holds 5 runs that are not among the 1 to be recorded"):
        _refuse_loss(path.stem, root / "results", whole - left)
    _refuse_loss(path.stem, root / "results", whole)
    assert runs_in(root / "results", "none") == set()


def test_a_report_under_another_name_is_refused(root: Path) -> None:
    path = root / "results" / "checks" / "2026-11-21-digits.json"
    for name in ("2027-01-01-digits.json", "2026-11-21-cifar10-bip.json"):
        path = path.rename(path.with_name(name))
        (error,) = faults_of(root / "results")
        assert "written as 2026-11-21-digits.json" in str(error)


def test_verify_names_every_file_that_is_not(root: Path) -> None:
    for seed, name in enumerate(FILES):
        change_a_digit(root / "results" / name, seed)
    done = verify(root)
    assert done.exit_code == 1
    for name in FILES:
        assert f"results/{name}" in done.output
    assert "4 files in " in done.output and "are not as they were written" in done.output


def test_a_changed_digit_stops_the_build_before_anything_is_computed(root: Path) -> None:
    for name in FILES:
        content = (root / "results" / name).read_bytes()
        change_a_digit(root / "results" / name, 3)
        with pytest.raises(RecordError, match=name):
            build_site(root, root / "runs", jobs=1, device="cpu", say=print)
        (root / "results" / name).write_bytes(content)
    assert not (root / "runs").exists()


@pytest.mark.parametrize("name", FILES)
def test_what_cannot_be_read_is_said_in_a_line(root: Path, name: str) -> None:
    path = root / "results" / name
    path.unlink()
    os.mkfifo(path)
    done = verify(root)
    assert isinstance(done.exception, RecordError)
    assert str(done.exception) == f"cannot read {path}: is not a regular file"


def test_results_that_are_no_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    assert "no such folder" in str(verify(tmp_path).exception)
