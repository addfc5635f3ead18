"""Published records: what is accepted, what is refused, and the tidy table."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from companion.evidence.records import COLUMNS, tidy
from companion.published import LINE_LIMIT, load_results, load_study, published, study_names
from lthlib import methods
from lthlib.errors import RecordError
from lthlib.files import sealed
from lthlib.records import METHODS, make_record, validate, validate_unpublished
from tests.companion.evidence.toys import PROVENANCE

Record = dict[str, Any]
NAMED_LATER = ("study", "scale", "label")
FOLLOWS = ("schema", "config", "method", "seed", "status", "failure")
OF_A_RUN = ("run", "parent", "method_version", "cost", "provenance")


def config(method: str = "imp", parent: Record | None = None, **settings: Any) -> Record:
    return {
        "data": {"dataset": "digits", "split_seed": 0},
        "model": {"architecture": "resnet8", "width": 8},
        "training": {"length": "300it"},
        "method": method,
        "settings": settings,
        "seed": 0,
        "threads": 1,
        "parent": parent,
    }


def record(**changes: Any) -> Record:
    own = {"epochs": 4.0, "images": 300, "forward_passes": 300, "backward_passes": 200}
    own |= {"flops": 10, "seconds": 1.5}
    base: Record = {
        "schema": 1,
        "study": "digits",
        "scale": "embedded",
        "label": "IMP",
        "run": "0123456789abcdef",
        "parent": None,
        "config": config(),
        "method": "imp",
        "method_version": 1,
        "seed": 0,
        "ticket": {"index": 3, "point": "round-3", "sha256": "0" * 64, "target_density": 0.373},
        "judged": "retrained",
        "status": "ok",
        "failure": None,
        "density": 0.373,
        "kept": 7145,
        "total": 19144,
        "layers": {"stem.weight": [60, 72]},
        "accuracy": {"validation": 98.67, "test": 98.99},
        "cost": {"own": own, "cumulative": {name: 2 * value for name, value in own.items()}},
        "provenance": PROVENANCE,
    }
    return copy.deepcopy(base | changes)


def failed(**changes: Any) -> Record:
    nothing = dict.fromkeys(("ticket", "density", "kept", "total", "layers"))
    accuracy = {"validation": None, "test": None}
    why = "loss became NaN at step 120"
    return record(**nothing, accuracy=accuracy, status="failed", failure=why, **changes)


def retrained(method: str, judged: str = "retrained") -> Record:
    search = config(method, structure="filter")
    whole = config("retrain", {"config": search, "point": "round-0"})
    label = {"cs": "CS", "bip": "BiP"}[method]
    return record(
        label=label, method="retrain", config=whole, judged=judged, parent="fedcba9876543210"
    )


def write(folder: Path, *records: Record, study: str = "digits") -> Path:
    path = folder / f"{study}.jsonl"
    path.write_bytes(published(records))
    return path


def at(path: str, value: Any) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        *parents, last = path.split(".")
        for name in parents:
            record = record[name]
        record[last] = value

    return change


def without(path: str) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        *parents, last = path.split(".")
        for name in parents:
            record = record[name]
        del record[last]

    return change


def test_what_was_written_is_read(tmp_path: Path) -> None:
    second = failed(run="aaaaaaaaaaaaaaaa")
    write(tmp_path, record(), second)
    write(tmp_path, record(study="another"), study="another")
    assert study_names(tmp_path) == ["another", "digits"]
    assert load_results(tmp_path) == [record(study="another"), record(), second]


def test_a_failed_run_may_describe_an_empty_ticket() -> None:
    ticket = {"index": 0, "point": "none", "sha256": "", "target_density": None}
    validate(failed() | {"ticket": ticket, "layers": {}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (at("schema", 2), "schema is 2, expected 1"),
        (at("schema", True), "schema is True"),
        (without("label"), "lacks label"),
        (at("extra", 1), "has unknown extra"),
        (without("cost.own.flops"), "lacks cost.own.flops"),
        (at("ticket.colour", "red"), "has unknown ticket.colour"),
        (at("provenance.dirty", "no"), "provenance.dirty is 'no', expected true or false"),
        (at("provenance.started", "yesterday"), "expected an ISO 8601 time"),
        (at("scale", "huge"), "scale is 'huge', expected one of"),
        (at("scale", []), "scale is \\[\\], expected one of"),
        (at("method", "magic"), "method is 'magic'"),
        (at("method", "cs"), "method 'cs' differs from config.method"),
        (at("seed", 1), "seed 1 differs from config.seed"),
        (at("seed", True), "seed is True, expected a count"),
        (at("run", "xyz"), "run is 'xyz', expected 16 hexadecimal digits"),
        (at("density", 0.0), r"density is 0.0, expected a fraction in \(0, 1\]"),
        (at("density", 1.2), "density is 1.2"),
        (at("density", float("nan")), "JSON cannot carry"),
        (at("density", 0.5), r"density is 0.5, but kept / total is 0.373"),
        (at("kept", 20000), "kept is 20000 of 19144"),
        (at("kept", 0), "kept is 0 of 19144"),
        (at("layers", {"stem.weight": [73, 72]}), "layers is .* kept <= total"),
        (at("layers", {"stem.weight": [1]}), "layers is"),
        (
            at("accuracy.test", 100.5),
            r"accuracy.test is 100.5, expected a percentage in \[0, 100\]",
        ),
        (at("accuracy.test", "98"), "accuracy.test is '98'"),
        (at("cost.own.seconds", -1), "cost.own.seconds is -1, expected a finite number of 0"),
        (at("cost", None), "cost is None, expected an object"),
        (at("ticket", None), "ticket is None, expected an object"),
        (at("ticket.sha256", "0"), "ticket.sha256 is '0', expected 64 hexadecimal digits"),
        (at("failure", "broke"), "failure is 'broke', expected null"),
        (at("judged", "guessed"), "judged is 'guessed'"),
        (at("parent", 5), "parent is 5, expected 16 hexadecimal digits or null"),
        (at("config.data", {}), "config.data.dataset is None, expected a name"),
        (without("config.settings"), "lacks config.settings"),
        (at("config.parent", {"config": {}}), "lacks config.parent.point"),
        (at("config.parent", {"config": {}, "point": "x"}), "lacks config.parent.config.data"),
        (at("config.training", {"lr": float("inf")}), "JSON cannot carry"),
    ],
)
def test_a_wrong_record_is_refused_by_field(change: Callable[[Record], None], said: str) -> None:
    wrong = record()
    change(wrong)
    with pytest.raises(RecordError, match=f"^here: .*{said}"):
        validate(wrong, "here")


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_what_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(RecordError, match="schema is None"):
        validate(value)


def test_a_failed_run_must_say_why_and_have_no_numbers() -> None:
    with pytest.raises(RecordError, match="failure is None, expected a text"):
        validate(failed() | {"failure": None})
    with pytest.raises(RecordError, match=r"density is 0\.5, expected null"):
        validate(failed() | {"density": 0.5})
    with pytest.raises(RecordError, match=r"accuracy is .*, expected null"):
        validate(failed() | {"accuracy": {"validation": 1.0, "test": 1.0}})


def test_a_retraining_names_its_search_and_is_judged_retrained() -> None:
    validate(retrained("cs"))
    with pytest.raises(RecordError, match="judged is 'found', expected 'retrained'"):
        validate(retrained("cs", judged="found"))
    orphan = record(method="retrain", config=config("retrain"))
    with pytest.raises(RecordError, match=r"config\.parent is null, expected the search"):
        validate(orphan)


@pytest.mark.parametrize(
    ("line", "said"),
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
def test_a_wrong_line_is_refused_by_file_and_line(tmp_path: Path, line: bytes, said: str) -> None:
    path = write(tmp_path, record())
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(RecordError, match=f"{path.name}, line 2: .*{said}"):
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
    digits = [place for place, character in enumerate(text) if character.isdigit()]
    for place in digits[::7]:
        other = "7" if text[place] != "7" else "3"
        three.write_text(text[:place] + other + text[place + 1 :])
        line = text.count("\n", 0, place) + 1
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
    other = write(tmp_path / "other", record(run="d" * 16))
    three.write_bytes(three.read_bytes() + other.read_bytes())
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
    for make, said in (
        (lambda: os.mkfifo(path), "is not a regular file"),
        (path.mkdir, "Is a directory"),
        (lambda: path.symlink_to("/nowhere"), "No such file"),
        (lambda: path.symlink_to("/dev/zero"), "is not a regular file"),
    ):
        make()
        with pytest.raises(RecordError, match=f"cannot read .*digits.jsonl: {said}"):
            load_results(tmp_path)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_record_is_made_of_what_the_schema_asks_for() -> None:
    whole = record()
    rest = {name: whole[name] for name in whole if name not in NAMED_LATER}
    given = {name: rest[name] for name in rest if name not in FOLLOWS}
    made = make_record(whole["config"], **given)
    assert made == rest
    assert list(made)[:3] == ["schema", "run", "parent"]
    validate_unpublished(made, "here")
    named = {name: whole[name] for name in NAMED_LATER}
    broken = make_record(whole["config"], "why", **{n: given[n] for n in (*OF_A_RUN, "ticket")})
    validate(broken | named)
    assert (broken["status"], broken["failure"], broken["density"]) == ("failed", "why", None)
    with pytest.raises(KeyError, match="cost"):
        make_record(whole["config"], **{n: given[n] for n in given if n != "cost"})


def test_the_methods_are_those_that_have_a_file() -> None:
    folder = Path(methods.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if "\nMETHOD = " in path.read_text()}
    assert set(METHODS) == files == {one.name for one in methods.METHODS.values()}


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


def test_a_tidy_row_holds_what_the_record_says() -> None:
    row = tidy([record()]).iloc[0]
    assert row[["study", "dataset", "architecture", "structure"]].tolist() == [
        "digits",
        "digits",
        "resnet8",
        "unstructured",
    ]
    assert (row["method"], row["label"], row["judged"], row["round"]) == (
        "imp",
        "IMP",
        "retrained",
        3,
    )
    assert (row["density"], row["test_accuracy"], row["validation_accuracy"]) == (
        0.373,
        98.99,
        98.67,
    )
    assert (row["forward_passes"], row["own_forward_passes"], row["seconds"]) == (600, 300, 3.0)


def test_a_retraining_appears_under_its_search() -> None:
    table = tidy([retrained("cs"), retrained("bip"), failed()])
    assert table["method"].tolist() == ["cs", "bip", "imp"]
    assert table["judged"].tolist()[:2] == ["retrained", "retrained"]
    assert table["structure"].tolist() == ["filter", "filter", "unstructured"]


def test_a_failed_run_has_a_row_without_numbers() -> None:
    row = tidy([failed()]).iloc[0]
    assert row["status"] == "failed" and "NaN" in row["failure"]
    assert row[["density", "test_accuracy", "round"]].isna().all()


def test_no_records_give_an_empty_table() -> None:
    assert tidy([]).columns.tolist() == list(COLUMNS)
    assert tidy([]).empty
