"""Files of records: what was written is read, and what was changed since is refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from companion.published import LINE_LIMIT, load_results, load_study, published, study_names
from lthlib.errors import RecordError
from lthlib.files import sealed
from lthlib.records import validate
from tests.companion.evidence.test_records import Record, failed, record


def write(folder: Path, *records: Record, study: str = "digits") -> Path:
    path = folder / f"{study}.jsonl"
    path.write_bytes(published(records))
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    second = failed(run="aaaaaaaaaaaaaaaa")
    write(tmp_path, record(), second)
    write(tmp_path, record(study="another"), study="another")
    assert study_names(tmp_path) == ["another", "digits"]
    assert load_results(tmp_path) == [record(study="another"), record(), second]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"schema": 1, "schema": 1}', "a key occurs twice"),
        (b'{"schema": 1, "density": NaN}', "NaN is not allowed"),
        (b"[" * 200_000, "is not JSON"),
        (b" " * (LINE_LIMIT + 1), f"is longer than {LINE_LIMIT} bytes"),
        (b"[]", "has no digest"),
        (sealed({"schema": 2}), "schema is 2, expected 1"),
    ],
)
def test_a_wrong_line_is_refused_by_file_and_line(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = write(tmp_path, record())
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(RecordError, match=f"{path.name}, line 2: .*{message}"):
        load_results(tmp_path)


def test_a_cut_off_last_line_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, record())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RecordError, match="line 1: is not JSON"):
        load_results(tmp_path)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A file of three records."""
    return write(tmp_path, *(record(run=digit * 16) for digit in "abc"))


def test_a_line_is_its_record_and_a_digest(three: Path) -> None:
    first, *_, last = three.read_bytes().splitlines()
    text = json.dumps(record(run="a" * 16))[:-1]
    digest = hashlib.sha256(f"{text}}}".encode()).hexdigest()
    assert first.decode() == f'{text}, "digest": "{digest}"}}'
    assert list(json.loads(last))[-2:] == ["above", "digest"]
    for line in (first, last):
        validate(json.loads(line))
    with pytest.raises(RecordError, match="does not match its digest"):
        validate(json.loads(first) | {"label": "CS"})


def test_every_changed_digit_is_refused_by_file_and_line(three: Path) -> None:
    text = three.read_text()
    digits = [index for index, character in enumerate(text) if character.isdigit()]
    for index in digits[::7]:
        digit = "7" if text[index] != "7" else "3"
        three.write_text(text[:index] + digit + text[index + 1 :])
        line = text.count("\n", 0, index) + 1
        with pytest.raises(RecordError, match=f"{three.name}, line {line}: "):
            load_results(three.parent)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2]],
        lambda lines: lines[:2],
        lambda lines: [],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [lines[2], lines[0], lines[1]],
    ],
)
def test_lines_that_were_removed_or_moved_are_refused(
    three: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    lines = change(three.read_bytes().splitlines(keepends=True))
    three.write_bytes(b"".join(lines))
    with pytest.raises(RecordError, match=r"digits.jsonl: lines were removed.*`lth record digits"):
        load_results(three.parent)
    assert len(load_study(three.parent, "digits", whole=False)) == len(lines)


def test_a_line_that_was_added_is_refused(three: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    added = write(tmp_path / "other", record(run="d" * 16))
    three.write_bytes(three.read_bytes() + added.read_bytes())
    with pytest.raises(RecordError, match="lines were removed, added or moved"):
        load_results(tmp_path)


def test_a_file_without_digests_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "digits.jsonl").write_text(json.dumps(record()) + "\n")
    with pytest.raises(RecordError, match=r"line 1: has no digest.* with `lth record digits`"):
        load_results(tmp_path)


def test_nothing_and_what_is_not_valid_is_not_published() -> None:
    with pytest.raises(RecordError, match="there are no records to publish"):
        published([])
    with pytest.raises(RecordError, match="density is 2"):
        published([record(density=2)])


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "digits.jsonl"
    for make, reason in (
        (lambda: os.mkfifo(path), "is not a regular file"),
        (path.mkdir, "Is a directory"),
        (lambda: path.symlink_to("/nowhere"), "No such file"),
        (lambda: path.symlink_to("/dev/zero"), "is not a regular file"),
    ):
        make()
        with pytest.raises(RecordError, match=f"cannot read .*digits.jsonl: {reason}"):
            load_results(tmp_path)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_repeated_ticket_is_refused(tmp_path: Path) -> None:
    write(tmp_path, record(), record(judged="found"), record())
    with pytest.raises(RecordError, match=r"line 3: same run, .* as .*line 1; remove"):
        load_results(tmp_path)


def test_a_record_of_another_study_is_refused(tmp_path: Path) -> None:
    write(tmp_path, record(), study="cifar10")
    with pytest.raises(RecordError, match="study is 'digits', expected 'cifar10'"):
        load_results(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such folder"):
        load_results(tmp_path / "nowhere")
