"""Records: what is accepted, what is refused, and the tidy table."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from companion.evidence.records import COLUMNS, tidy
from lthlib import methods
from lthlib.errors import RecordError
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
        (at("config.settings", {"structure": {"a": 1}}), "config.settings.structure is .* a name"),
        (at("config.settings", {"density": "0.5"}), "config.settings.density is '0.5', expected a"),
        (at("config.settings", {"initial_gate": [0.1]}), "config.settings.initial_gate is"),
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
    found = [path for path in folder.rglob("*.py") if "\nMETHOD = " in path.read_text()]
    files = {path.parent.name if path.stem == "__init__" else path.stem for path in found}
    assert set(METHODS) == files == {one.name for one in methods.METHODS.values()}


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
