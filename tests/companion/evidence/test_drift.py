"""What counts as drift: literal changes of a record first, then rates over simulated re-runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from companion.evidence.drift import Comparison, Number, alarm_rate, compare_records
from companion.evidence.retest import retest, spread_of
from companion.published import load_results
from lthlib.errors import RecordError

RESULTS = Path(__file__).parents[3] / "results"
Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def published() -> Records:
    return load_results(RESULTS)


@pytest.fixture(scope="module")
def digits(published: Records) -> Records:
    return [record for record in published if record["study"] == "digits"]


def changed(records: Records, change: Callable[[dict[str, Any]], None], **where: Any) -> Records:
    """A copy of records, those that match changed."""
    again = copy.deepcopy(records)
    matching = [one for one in again if all(one[name] == where[name] for name in where)]
    assert matching
    for one in matching:
        change(one)
    return again


def only(comparison: Comparison) -> Number:
    (number,) = comparison.drifted
    return number


def test_a_bit_identical_re_run_has_no_drift(digits: Records) -> None:
    found = compare_records(digits, copy.deepcopy(digits))
    assert found.drifted == []
    assert found.tickets == found.identical == len(digits)
    tested = [number for number in found.numbers if number.p is not None]
    assert {number.standard_errors for number in tested} == {0.0}
    assert {number.p for number in tested} == {1.0}


def test_where_and_when_it_was_computed_is_no_drift(digits: Records) -> None:
    def elsewhere(record: dict[str, Any]) -> None:
        record["provenance"] |= {"device_name": "another processor", "torch": "9.9.9"}
        record["cost"]["own"]["seconds"] *= 3
        record["ticket"]["sha256"] = "0" * 64

    found = compare_records(digits, changed(digits, elsewhere))
    assert found.drifted == []
    assert found.identical == len(digits)


@pytest.mark.parametrize(
    ("quantity", "change"),
    [
        ("kept weights", lambda one: one.update(kept=one["kept"] + 1)),
        ("own backward passes", lambda one: one["cost"]["own"].update(backward_passes=18769)),
        ("cumulative images", lambda one: one["cost"]["cumulative"].update(images=1)),
        ("method version", lambda one: one.update(method_version=99)),
        ("label", lambda one: one.update(label="BiP, new")),
        ("target density", lambda one: one["ticket"].update(target_density=0.5)),
    ],
)
def test_what_is_counted_has_to_be_equal(
    digits: Records, quantity: str, change: Callable[[dict[str, Any]], None]
) -> None:
    record = next(one for one in digits if one["label"] == "BiP" and one["density"] < 0.1)
    again = changed(digits, change, run=record["run"])
    number = only(compare_records(digits, again))
    assert (number.label, number.quantity, number.runs) == ("BiP", quantity, (record["run"],))
    assert number.standard_errors is None
    assert number.where == f"seed 0, at {100 * record['density']:.3g} %"


def test_a_ticket_that_is_missing_or_too_many_is_drift(digits: Records) -> None:
    number = only(compare_records(digits, digits[:-1]))
    assert (number.quantity, number.recorded, number.computed) == ("ticket", "ok", "absent")
    number = only(compare_records(digits[:-1], digits))
    assert (number.quantity, number.recorded, number.computed) == ("ticket", "absent", "ok")


def test_only_the_runs_that_were_to_be_computed_again_are_missed(digits: Records) -> None:
    runs = [record["run"] for record in digits if record["seed"] == 0]
    again = [record for record in digits if record["seed"] == 0]
    assert compare_records(digits, again, runs).drifted == []
    assert len(compare_records(digits, again).drifted) == len(digits) - len(again)


def failed(record: dict[str, Any]) -> None:
    record.update(status="failed", failure="loss is NaN at step 3", accuracy=None, layers={})
    record.update(density=None, kept=None, total=None)


def test_a_failure_stays_one_and_nothing_else_becomes_one(digits: Records) -> None:
    run = digits[-1]["run"]
    again = changed(digits, failed, run=run)
    states = {(one.recorded, one.computed) for one in compare_records(digits, again).drifted}
    assert states == {("ok", "absent"), ("absent", "failed")}
    assert compare_records(again, again).drifted == []


def test_a_malformed_record_is_refused(digits: Records) -> None:
    again = changed(digits, lambda one: one.update(extra=1), run=digits[-1]["run"])
    with pytest.raises(RecordError, match="has unknown extra"):
        compare_records(digits, again)


def test_the_density_that_cs_finds_may_vary_within_the_spread_of_its_seeds(
    digits: Records,
) -> None:
    def denser(factor: float) -> Callable[[dict[str, Any]], None]:
        def change(record: dict[str, Any]) -> None:
            if record["density"] < 0.5:  # of the six penalties
                record["density"] *= factor
                record["kept"] = round(record["total"] * record["density"])

        return change

    def found(factor: float) -> set[str]:
        again = changed(digits, denser(factor), label="CS, as found")
        again = changed(again, denser(factor), label="CS")
        return {one.quantity for one in compare_records(digits, again).drifted}

    assert found(1.01) == set()
    assert found(1.5) == {"density"}


def test_a_retrained_ticket_keeps_the_weights_of_its_search(digits: Records) -> None:
    def one_more(record: dict[str, Any]) -> None:
        record["kept"] += 1

    run = next(record["run"] for record in digits if record["label"] == "CS")
    number = only(compare_records(digits, changed(digits, one_more, run=run)))
    assert number.quantity == "kept weights, as found"
    assert number.computed == number.recorded + 1


def test_a_drift_names_its_number_and_its_standard_errors(digits: Records) -> None:
    def worse(record: dict[str, Any]) -> None:
        record["accuracy"]["test"] -= 5

    found = compare_records(digits, changed(digits, worse, label="BiP")).drifted
    assert {number.label for number in found} == {"BiP"}
    whole = next(number for number in found if number.where == "all tickets together")
    assert whole.computed == pytest.approx(whole.recorded - 5)
    assert whole.standard_errors is not None and whole.standard_errors < -5
    assert whole.p is not None and whole.p < 1e-3
    assert set(whole.runs) == {one["run"] for one in digits if one["label"] == "BiP"}


def test_without_replicates_nothing_is_said_about_chance(published: Records) -> None:
    single = [record for record in published if record["study"] == "imagenet-path"]
    numbers = [one for one in compare_records(single, single).numbers if one.p is not None]
    assert numbers and all(np.isnan(one.p) and not one.drifted for one in numbers)


def test_a_retest_on_paper() -> None:
    recorded = np.array([[90.0, 91, 92], [80, 82, 84]])
    curves = np.ones((1, 2))
    spread = spread_of(recorded, curves, 0.0, accuracies=False)
    # Equal degrees of freedom: the prior is near the geometric mean of variances 1 and 4, and worth
    # no more than all four degrees together.
    assert spread.tickets.freedom == 4
    assert spread.tickets.variance[0] == pytest.approx(spread.tickets.variance[1])
    found = retest(recorded, recorded + np.array([[1.0], [0.0]]), curves, spread, 0.2)
    assert found.difference[:2] == pytest.approx([1, 0])
    variance = (4 * spread.tickets.variance[0] + 2 + 2) / 8
    assert found.error[0] == pytest.approx(np.sqrt(variance * 2 / 3))
    weights = spread.weights / spread.weights.sum()
    assert found.difference[2] == pytest.approx(weights[0])
    assert found.recorded == pytest.approx([91, 82, weights @ [91, 82]])
    assert found.p[1] == 1


def again(records: Records, study: str, labels: set[str] | None = None) -> Records:
    """What a check would compute of a study: all of it, or the first seed of some curves."""
    own = [record for record in records if record["study"] == study]
    if labels is None:
        return own
    return [one for one in own if one["label"] in labels and one["seed"] == 0]


@pytest.mark.parametrize(
    ("study", "labels"),
    [
        *((study, None) for study in ("digits", "digits-bip", "digits-release")),
        ("cifar10-bip", None),
        ("cifar10-bip", {"dense", "BiP"}),
    ],
)
def test_honest_re_runs_pass_99_times_in_100(
    published: Records, study: str, labels: set[str] | None
) -> None:
    recorded = again(published, study)
    part = again(published, study, labels)
    assert alarm_rate(recorded, part, np.random.default_rng(0), 2000) <= 0.01


@pytest.mark.parametrize(
    ("label", "points"),
    [*((label, 2) for label in ("dense", "IMP", "BiP", "BiP, retrained")), ("OMP", 3), ("CS", 3)],
)
def test_a_drift_of_a_curve_is_found_nearly_always(
    digits: Records, label: str, points: float
) -> None:
    assert alarm_rate(digits, digits, np.random.default_rng(1), 200, {label: -points}) >= 0.95


def test_one_seed_shows_a_drift_of_many_points_only(published: Records) -> None:
    recorded = again(published, "cifar10-bip")
    part = again(published, "cifar10-bip", {"dense", "BiP"})
    rates = [
        alarm_rate(recorded, part, np.random.default_rng(1), 200, {"BiP": -points})
        for points in (2, 10)
    ]
    assert rates[0] < 0.5 < 0.95 < rates[1]
