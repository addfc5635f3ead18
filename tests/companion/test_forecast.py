"""What runs will cost, from a few real steps and from those that were measured on a GPU."""

from __future__ import annotations

import pytest

from companion.evidence.comparisons import DATASETS
from companion.evidence.reported import plain_name
from companion.forecast import SETS, bill, estimate, gpu_seconds
from companion.studies import ticket_study
from lthlib.data import SUPPORTED
from lthlib.errors import DataError
from lthlib.recipes import load_recipe
from lthlib.runs import Machine, RunConfig
from tests.runs.toys import child, config

DENSE = config()
# A batch of 128, and an image of ResNet-20 forward.
RESNET20, EPOCH = 81_000_000, 352 * 128


def of(precision: str, method: str = "dense", batch_size: int = 128) -> RunConfig:
    training = {"precision": precision, "batch_size": batch_size}
    dense = config(training=training)
    if method == "dense":
        return dense
    return (
        child(method, dense, training=training)
        if method == "bip"
        else config(method, training=training)
    )


def test_what_may_feed_a_verdict_has_a_size() -> None:
    assert sorted(map(plain_name, SETS)) == sorted(DATASETS)
    assert SETS.keys() <= set(SUPPORTED)


def test_an_estimate_counts_runs_passes_and_seconds() -> None:
    found = estimate([DENSE, config(seed=1)], Machine(device="cpu"), jobs=2)
    assert (found.passes, found.epochs, found.jobs) == (2 * 192, 2 * 6 / 5, 2)
    assert 0 < found.busy / 2 < found.seconds
    assert list(found.gpu) == [1, 8]
    assert 0 < found.gpu[8] <= found.gpu[1]


def test_a_bill_is_counted_without_data() -> None:
    """Ten dense networks of 85 epochs; a chain begins with one, and nine times goes on from the
    second epoch. An epoch of BiP counts two."""
    gate = bill(ticket_study(load_recipe("gate"), seeds=3).configs)
    assert gate.epochs == 10 * 85 + 3 * (85 + 9 * 83)
    assert gate.passes == gate.epochs * 352 * 128
    assert gate.gpu[8] < gate.gpu[1] < 0.77 * gate.epochs
    (found,) = (
        entry.config
        for entry in ticket_study(load_recipe("bip-core"), seeds=1, densities=[0.5]).entries
        if entry.label == "BiP"
    )
    assert bill([found], several=4).epochs == 200 and set(bill([found], 4).gpu) == {1, 4}
    with pytest.raises(DataError, match="the size of digits is not known; expected cifar10"):
        bill([DENSE])


def test_nothing_to_compute_costs_nothing() -> None:
    found = estimate([], Machine(device="cpu"), per_device=2)
    assert (found.passes, found.busy, found.seconds, found.gpu) == (0, 0, 0, {1: 0, 2: 0})


@pytest.mark.parametrize(
    ("precision", "method", "passes", "count", "seconds"),
    [
        # As measured.
        ("fp32", "dense", 1, 1, 1.40),
        ("bf16", "dense", 1, 1, 0.76),
        ("tf32", "cs", 1, 1, 1.07),
        ("bf16", "bip", 2, 1, 1.74),
        # In aggregate, several in one process: beside 0.72 alone.
        ("bf16", "dense", 1, 4, 0.76 * 0.38 / 0.72),
        ("bf16", "dense", 1, 6, 0.76 * 0.36 / 0.72),
        ("bf16", "dense", 1, 99, 0.76 * 0.33 / 0.72),
        # Not measured together.
        ("fp32", "dense", 1, 8, 1.40),
    ],
)
def test_a_gpu_takes_what_was_measured(
    precision: str, method: str, passes: int, count: int, seconds: float
) -> None:
    found = gpu_seconds(of(precision, method), RESNET20, passes * EPOCH, count)
    assert found == pytest.approx(seconds)


def test_larger_networks_take_longer_and_gain_nothing_together() -> None:
    # ResNet-18 has 3.33 GFLOP forward and backward; twice as many take twice as long.
    resnet18 = round(3.33e9 / 3)
    once, twice = (gpu_seconds(of("bf16"), size, EPOCH) for size in (resnet18, 2 * resnet18))
    assert (once, twice) == (pytest.approx(1.08), pytest.approx(2.16))
    assert gpu_seconds(of("bf16"), resnet18, EPOCH, 8) == pytest.approx(1.08)


def test_a_step_takes_no_less_for_a_smaller_batch() -> None:
    assert gpu_seconds(of("bf16", batch_size=64), RESNET20, EPOCH) == pytest.approx(2 * 0.76)
