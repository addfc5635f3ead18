"""Every statistic against values worked out by hand or by another formula."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.evidence import statistics as stats
from lthlib.errors import ConfigError

# Student's t at 0.975 and 0.95, from printed tables.
T975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
T95 = {2: 2.920, 4: 2.132}


def rows(label: str, values: dict[int, dict[float, float]], study: str = "s") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"study": study, "seed": seed, "label": label, "density": density, "status": "ok"}
            | {"test_accuracy": accuracy, "validation_accuracy": accuracy}
            for seed, curve in values.items()
            for density, accuracy in curve.items()
        ]
    )


def tickets(label: str, values: dict[int, dict[float, float]]) -> stats.Tickets:
    return stats.Tickets.of(rows(label, values))


def series(values: dict[int, float], study: str = "s") -> pd.Series:
    index = pd.MultiIndex.from_tuples([(study, seed) for seed in values], names=["study", "seed"])
    return pd.Series(list(values.values()), index=index)


def test_mean_interval_of_three() -> None:
    mean = stats.mean_interval([91.0, 92.0, 93.0])
    half = T975[2] / math.sqrt(3)
    assert (mean.n, mean.mean, mean.std) == (3, 92.0, 1.0)
    assert (mean.low, mean.high) == pytest.approx((92 - half, 92 + half), abs=1e-3)


def test_three_seeds_of_spread_a_fifth_give_half_a_point() -> None:
    mean = stats.mean_interval([91.8, 92.0, 92.2])
    assert mean.high - mean.mean == pytest.approx(0.497, abs=1e-3)


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    one = stats.mean_interval([5.0, math.nan])
    assert (one.n, one.mean) == (1, 5.0)
    assert math.isnan(one.std) and math.isnan(one.low) and math.isnan(one.high)
    assert math.isnan(stats.mean_interval([]).mean)


def test_pooled_std() -> None:
    # Sums of squares 2 and 8 over 2 + 1 degrees of freedom.
    assert stats.pooled_std([[1, 2, 3], [0, 4], [7]]) == (pytest.approx(math.sqrt(10 / 3)), 3)
    std, freedom = stats.pooled_std([[1.0], []])
    assert math.isnan(std) and freedom == 0


def test_paired_difference() -> None:
    gap = stats.compare(series({0: 92, 1: 93, 2: 95}), series({0: 91, 1: 91, 2: 92}))
    error = 1 / math.sqrt(3)
    assert (gap.mean, gap.n, gap.paired) == (2.0, 3, True)
    assert (gap.low, gap.high) == pytest.approx(
        (2 - T975[2] * error, 2 + T975[2] * error), abs=1e-3
    )
    assert (gap.lower, gap.upper) == pytest.approx(
        (2 - T95[2] * error, 2 + T95[2] * error), abs=1e-3
    )
    assert gap.p == pytest.approx(0.0742, abs=1e-4)


def test_welch_difference_of_equal_spread_and_size() -> None:
    # Equal variances 1 and n = 3 on both sides: standard error sqrt(2/3), 4 degrees of freedom.
    gap = stats.welch_difference([1, 2, 3], [4, 5, 6])
    error = math.sqrt(2 / 3)
    assert (gap.mean, gap.n, gap.paired) == (-3.0, 3, False)
    assert (gap.low, gap.lower) == pytest.approx(
        (-3 - T975[4] * error, -3 - T95[4] * error), abs=1e-3
    )


def test_welch_degrees_of_freedom_follow_the_wider_sample() -> None:
    # A constant sample adds nothing: the interval is the other sample's own.
    gap = stats.welch_difference([1, 2, 3], [5, 5, 5, 5])
    assert gap.high - gap.mean == pytest.approx(T975[2] / math.sqrt(3), abs=1e-3)


def test_equal_constants_differ_by_nothing_for_certain() -> None:
    gap = stats.welch_difference([2, 2], [2, 2])
    assert (gap.low, gap.high, gap.p) == (0, 0, 1)


def test_one_seed_gives_a_difference_without_interval() -> None:
    one = series({0: 3.0})
    for gap in (stats.compare(one, series({0: 1.0})), stats.welch_difference([3], [1, 2])):
        assert gap.n == 1 and math.isnan(gap.low) and math.isnan(gap.p)


def test_compare_pairs_equal_replicates_and_uses_all_of_others() -> None:
    ours, theirs = series({0: 2.0, 1: 4.0}), series({1: 3.0, 0: 1.0})
    gap = stats.compare(ours, theirs)
    assert (gap.paired, gap.n, gap.mean, gap.low, gap.high) == (True, 2, 1.0, 1.0, 1.0)
    more = series({1: 3.0, 0: 1.0, 2: 5.0})
    assert stats.compare(ours, more) == stats.welch_difference([2, 4], [1, 3, 5])
    assert not stats.compare(ours, series({0: 1.0, 1: 3.0}, study="t")).paired
    assert not stats.compare(ours, series({1: 3.0, 2: 1.0})).paired


def test_p_is_of_the_limit_that_is_asked_about() -> None:
    # A difference of 1 with standard error 1 / sqrt(3), from 0 and from 1.
    gap = stats.compare(*(series(dict(enumerate(values))) for values in ([1, 2, 3], [1, 1, 1])))
    again = stats.compare(
        *(series(dict(enumerate(values))) for values in ([1, 2, 3], [1, 1, 1])), limit=1.0
    )
    assert gap.p == pytest.approx(0.2254, abs=1e-4) and again.p == 1.0
    assert stats.ratio(series({0: 2.0, 1: 8.0}), series({0: 1.0, 1: 1.0}), limit=4.0).p > 0.999


def test_ratio_of_counts_is_exact() -> None:
    value = stats.ratio(series({0: 414.0, 1: 414.0}), series({0: 86.0, 1: 86.0}))
    assert (value.mean, value.low, value.high) == pytest.approx((414 / 86,) * 3)


def test_ratio_of_geometric_means() -> None:
    value = stats.ratio(series({0: 2.0, 1: 8.0}), series({0: 1.0, 1: 1.0}))
    half = T975[1] * math.log(2)
    assert value.mean == pytest.approx(4.0)
    assert math.log(value.high / value.mean) == pytest.approx(half, abs=1e-3)


def test_spread_ratio() -> None:
    # Variances 1 and 4 with 2 and 2 degrees of freedom; the 0.975 quantile of F(2, 2) is 39.
    value = stats.spread_ratio([1, 2, 3], [2, 4, 6])
    assert (value.mean, value.n) == (pytest.approx(0.5), 3)
    assert (value.low, value.high) == pytest.approx((0.5 / math.sqrt(39), 0.5 * math.sqrt(39)))
    assert (value.lower, value.upper) == pytest.approx((0.5 / math.sqrt(19), 0.5 * math.sqrt(19)))
    assert math.isnan(stats.spread_ratio([1, 2], [3, 3]).mean)


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_lowers(values: list[float]) -> None:
    adjusted = stats.holm(values)
    assert (adjusted >= np.asarray(values) - 1e-12).all() and (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(values, kind="stable")]) >= -1e-12).all()


def test_bands_are_imps_densities() -> None:
    assert stats.band("resnet20")[[0, -1]] == pytest.approx([0.512, 0.134218], abs=1e-6)
    assert stats.band("vgg16")[[0, -1]] == pytest.approx([0.209715, 0.022518], abs=1e-6)


def test_interpolation_is_linear_in_log_density() -> None:
    assert stats.interpolate([0.1, 0.4], [90, 92], [0.2]) == pytest.approx([91])
    assert np.isnan(stats.interpolate([0.1, 0.4], [90, 92], [0.05, 0.5])).all()
    assert stats.interpolate([0.1, 0.1, 0.4], [89, 91, 92], [0.1]) == pytest.approx([90])
    assert np.isnan(stats.interpolate([], [], [0.3])).all()
    assert stats.interpolate([0.1342, 0.5], [7, 9], [0.134]) == pytest.approx([7])


def test_a_curve_is_not_followed_across_more_than_it_is_said() -> None:
    middle = math.sqrt(0.1 * 0.125)
    assert stats.interpolate([0.1, 0.125], [90, 92], [middle], stats.ROUND) == pytest.approx([91])
    assert np.isnan(stats.interpolate([0.1, 0.13], [90, 92], [0.115], stats.ROUND)).all()
    # Within 1 % of a density that was measured it is known even so.
    at = stats.interpolate([0.1, 0.4], [90, 92], [0.1009, 0.1011, 0.3991], stats.ROUND)
    assert np.isnan(at).tolist() == [False, True, False]
    assert at[[0, 2]] == pytest.approx([90, 92], abs=0.02)


@given(
    st.dictionaries(st.integers(1, 100), st.floats(0, 100), min_size=1, max_size=12),
)
def test_interpolation_is_exact_at_its_nodes(curve: dict[int, float]) -> None:
    densities = [percent / 100 for percent in curve]
    values = list(curve.values())
    assert stats.interpolate(densities, values, densities) == pytest.approx(values)


def test_on_grid_has_one_row_per_replicate() -> None:
    table = rows("A", {0: {0.1: 90, 0.4: 92}, 1: {0.1: 80}})
    grid = stats.on_grid(table, [0.2, 0.1])
    assert grid.index.tolist() == [("s", 0), ("s", 1)]
    assert grid[0.2].tolist()[0] == pytest.approx(91) and math.isnan(grid[0.2].tolist()[1])
    assert stats.on_grid(table, [0.2, 0.1], widest=stats.ROUND)[0.2].isna().all()
    assert stats.on_grid(table[:0], [0.2]).shape == (0, 1)


BAND = [0.4, 0.2, 0.1]


def test_a_band_takes_three_densities_that_span_half_of_it() -> None:
    wide, narrow = {0.5: 1.0, 0.4: 2.0, 0.3: 3.0, 0.2: 4.0}, {0.4: 1.0, 0.35: 2.0, 0.3: 3.0}
    table = rows("A", {0: wide, 1: narrow, 2: {0.4: 1.0, 0.1: 2.0}})
    curve = stats.Tickets.of(table)
    assert curve.where(curve.in_band(BAND)).density.tolist() == [0.4, 0.3, 0.2]
    assert curve.seeds_in_band(BAND) == {0}


def test_shared_means_by_hand() -> None:
    # Ours is known at three densities, theirs at a fourth too, which does not count.
    ours = tickets("A", {s: {0.4: 93 + s, 0.2: 92 + s, 0.1: 91 + s} for s in (0, 1)})
    theirs = tickets("B", {s: {0.4: 92, 0.3: 50, 0.2: 91, 0.1: 90} for s in (0, 1)})
    for first, second, sign in ((ours, theirs, 1), (theirs, ours, -1)):
        gap = stats.compare(*stats.shared_means(first, second, BAND, 2))
        assert gap.paired and gap.mean == pytest.approx(1.5 * sign)
        assert gap.high == pytest.approx(1.5 * sign + T975[1] / 2, abs=1e-2)


def test_what_one_replicate_alone_measured_is_not_shared() -> None:
    curve = {0.4: 92.0, 0.2: 91.0, 0.1: 90.0}
    ours = tickets("A", {0: curve, 1: curve, 2: {0.4: 92, 0.2: 91}})
    theirs = tickets("B", {0: curve, 1: curve | {0.3: 95}})
    first, second = stats.shared_means(ours, theirs, BAND, 2)
    assert (first.index.tolist(), second.index.tolist()) == ([("s", 0), ("s", 1)],) * 2
    assert first.tolist() == second.tolist() == [91, 91]
    few = tickets("B", {0: {0.4: 1.0, 0.1: 2.0}, 1: {0.4: 1.0, 0.1: 2.0}})
    assert all(means.empty for means in stats.shared_means(ours, few, BAND, 2))
    none = ours.where(np.zeros(8, bool))
    assert all(means.empty for means in stats.shared_means(ours, none, BAND, 2))


def test_densities_of_ones_own_make_no_difference() -> None:
    """A falling line in log density, measured by each seed elsewhere: no difference, no spread."""
    rounds = [0.5, 0.4, 0.32, 0.256, 0.2048]
    theirs = tickets("B", {s: {d: 90 + math.log(d) for d in rounds} for s in (0, 1)})
    ours = {
        s: {d * x: 90 + math.log(d * x) for d in (0.49, 0.3, 0.22)} for s, x in enumerate((1, 0.95))
    }
    gap = stats.welch_difference(*stats.shared_means(tickets("A", ours), theirs, [0.5, 0.2], 2))
    assert (gap.mean, gap.low, gap.high) == pytest.approx((0, 0, 0), abs=1e-9)


def test_summarise_by_hand() -> None:
    table = rows("A", {0: {0.1: 90.0}, 1: {0.1: 92.0}, 2: {0.1: 94.0}})
    table.loc[2, "status"] = "failed"
    summary = stats.summarise(table, ["label"])
    assert summary[["label", "density", "n", "mean", "std"]].iloc[0].tolist() == [
        "A",
        0.1,
        2,
        91.0,
        pytest.approx(math.sqrt(2)),
    ]
    assert stats.summarise(table[:0], ["label"]).empty


def test_crossing_by_hand() -> None:
    # Midway between -0.4 at 20 % and 0 at 25 %, in log density.
    middle = math.sqrt(0.2 * 0.25)
    assert stats.crossing([0.25, 0.2], [0.0, -0.4], [1, 1]) == pytest.approx((middle, middle))
    assert stats.crossing([0.4, 0.1], [0.0, -0.4], [1, 1]) == pytest.approx((0.1, 0.4))
    assert stats.crossing([0.4, 0.1], [0.0, 0.1], [1, 1]) == pytest.approx((0.0, 0.1))
    assert stats.crossing([0.4, 0.1], [-1, -2], [1, 1]) == pytest.approx((0.4, math.inf))


def test_the_fit_is_monotone_before_it_crosses() -> None:
    # The dip at 20 % and the bump at 16 % are pooled to (3 * -0.4 + 0.8) / 4 = -0.1.
    densities, gaps = [0.25, 0.2, 0.16, 0.128], [0.1, -0.4, 0.8, -0.3]
    found = stats.crossing(densities, gaps, [1, 3, 1, 1])
    assert found == pytest.approx([math.exp(math.log(0.128) + 0.5 * math.log(1.25))] * 2)


@given(st.lists(st.floats(-3, 1), min_size=2, max_size=10), st.floats(0, 2), st.floats(-1.0, -0.05))
def test_a_worse_curve_never_crosses_at_a_sparser_density(
    gaps: list[float], loss: float, threshold: float
) -> None:
    densities, weights = stats.IMP_DENSITIES[: len(gaps)], np.ones(len(gaps))
    better = stats.crossing(densities, gaps, weights, threshold)
    worse = stats.crossing(densities, np.asarray(gaps) - loss, weights, threshold)
    lenient = stats.crossing(densities, gaps, weights, threshold - 0.5)
    for end in (0, 1):
        assert lenient[end] - 1e-9 <= better[end] <= worse[end] + 1e-9


def test_d_star_brackets_the_truth_and_repeats_with_its_generator() -> None:
    noise = np.random.default_rng(3).normal(scale=0.1, size=(8, 10))
    grid = stats.IMP_DENSITIES[:10]
    truth = 0.3
    gaps = 0.5 * np.log(grid / truth) - 0.2
    curve = pd.DataFrame(92 + gaps + noise, columns=grid)
    star = stats.d_star(curve, [91.9, 92.0, 92.1], np.random.default_rng(0))
    assert star is not None
    assert star.low < truth < star.high and star.low <= star.density <= star.high
    assert star.n == 8 and star.edge == "" and star.draws.shape == (1000, 2)
    again = stats.d_star(curve, [91.9, 92.0, 92.1], np.random.default_rng(0))
    assert again is not None and (again.low, again.high) == (star.low, star.high)


def test_d_star_needs_a_spread_and_two_densities() -> None:
    rng = np.random.default_rng(0)
    one = pd.DataFrame([[92.0, 91.0]], columns=[0.4, 0.1])
    assert stats.d_star(one, [92, 93], rng) is None
    two = pd.DataFrame([[92.0, math.nan], [91.0, math.nan]], columns=[0.4, 0.1])
    assert stats.d_star(two, [92, 93], rng) is None


def test_tickets_are_chosen_on_validation_and_reported_on_test() -> None:
    table = rows("A", {0: {0.4: 92.5, 0.2: 92.1, 0.1: 90}, 1: {0.4: 91, 0.2: 90, 0.1: 89}})
    table["test_accuracy"] = [1.0, 2, 3, 4, 5, 6]
    sparsest = stats.sparsest_on_validation(table, 92)
    assert sparsest[["seed", "density", "test_accuracy"]].values.tolist() == [[0, 0.2, 2.0]]
    best = stats.best_on_validation(table)
    assert best["test_accuracy"].tolist() == [1.0, 4.0]
    assert stats.best_on_validation(table.assign(validation_accuracy=math.nan)).empty


def test_a_trial_is_scored_by_its_best_ticket_that_is_sparse_enough() -> None:
    trial = rows("CS", {0: {0.6: 99.0, 0.3: 97.0, 0.15: 98.0, 0.08: 90.0}})
    # At 50 and 20 % the ticket of 15 % is the best; at 10 % one is left; at 5 % none.
    assert stats.tuning_score(trial) == (98 + 98 + 90 + 10) / 4
    assert stats.tuning_score(trial, floor=0.1) == pytest.approx((98 + 98 + 90 + 0.1) / 4)
    assert stats.tuning_score(trial, densities=[0.6]) == 99


def test_seeds_of_a_trial_are_averaged() -> None:
    trial = rows("CS", {0: {0.5: 99.0}, 1: {0.5: 97.0}})
    assert stats.tuning_score(trial, densities=[0.5]) == 98


def test_a_trial_without_validation_has_no_score() -> None:
    trial = rows("CS", {0: {0.5: math.nan}})
    with pytest.raises(ConfigError, match="scored on validation accuracies, and none is known"):
        stats.tuning_score(trial)
