"""The statistics that verdicts rest on: intervals, differences, bands, the crossing density d*."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from lthlib.errors import ConfigError

LEVEL = 0.95
MARGIN = -0.2
Floats = NDArray[np.float64]
IMP_DENSITIES: Floats = np.power(0.8, np.arange(1, 31))
BAND = IMP_DENSITIES[2:9]
WIDE_BAND = IMP_DENSITIES[6:17]
# What the edge of a `Crossing` makes of its density, in words.
EDGES = {"below": "at most ", "above": "at least ", "": ""}
_CLOSE = 0.01
# The widest gap, in log density, that verdicts follow a curve across: one of IMP's rounds.
ROUND = math.log(1 / 0.8) + _CLOSE
# How near to a density that was fixed beforehand a ticket lies, relative.
NEAR = 0.1
_REPLICATE = ["study", "seed"]


@dataclass(frozen=True)
class Mean:
    """A sample's mean and 95 % t-interval.

    Attributes:
        n: how many values.
        mean: theirs.
        std: their standard deviation; NaN for a single value, as are `low` and `high`.
        low: the interval's lower end.
        high: its upper end.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A difference (or, from `ratio`, a ratio) of two samples' means.

    Bounds and `p` are NaN where there are too few values.

    Attributes:
        n: the number of pairs, or the smaller sample's size.
        paired: whether replicates were pairs.
        mean: the difference, or ratio.
        low: the lower end of the two-sided interval.
        high: its upper end.
        lower: the one-sided lower bound.
        upper: the one-sided upper bound.
        p: two-sided, of the limit that it is judged by, 'no difference' if none is given.
    """

    n: int
    paired: bool
    mean: float
    low: float = math.nan
    high: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
    p: float = math.nan


@dataclass(frozen=True)
class Crossing:
    """The density d* at which a curve falls below dense by the margin.

    Attributes:
        density: d*, or what bounds it.
        low: the lower end of its 95 % interval.
        high: its upper end.
        edge: `below` when the curve never falls that far (d* is at most `density`, the sparsest
            measured), `above` when it lies lower everywhere (d* is at least `density`, the
            densest), and empty otherwise.
        n: the number of seeds at the two densities that decide it.
        draws: the bootstrap's, [replicates, 2], as from `crossing`.
    """

    density: float
    low: float
    high: float
    edge: str
    n: int
    draws: Floats


def band(architecture: str) -> Floats:
    """Return the densities of the band over which methods are compared on a network.

    The densities of IMP's rounds at 20 % a round, from 51 to 13 %; for VGG-16 from 21 to 2 %.
    """
    return WIDE_BAND if architecture.lower().startswith("vgg") else BAND


def mean_interval(values: ArrayLike) -> Mean:
    """Return n, mean, standard deviation and 95 % t-interval of a sample; NaNs are left out."""
    sample = _finite(values)
    n, mean = len(sample), float(sample.mean()) if len(sample) else math.nan
    std, freedom = pooled_std([sample])
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * std / math.sqrt(n) if freedom else math.nan
    return Mean(n, mean, std, float(mean - half), float(mean + half))


def pooled_std(samples: Iterable[ArrayLike]) -> tuple[float, int]:
    """Return the std pooled over samples and its degrees of freedom; NaN and 0 if none."""
    repeated = [sample for sample in map(_finite, samples) if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in repeated)
    squares = sum(float(((sample - sample.mean()) ** 2).sum()) for sample in repeated)
    return (math.sqrt(squares / freedom) if freedom else math.nan), freedom


def welch_difference(
    ours: ArrayLike, theirs: ArrayLike, limit: float = 0.0, level: float = LEVEL
) -> Difference:
    """Return the difference of two means without assuming equal spread (Welch).

    Args:
        ours: a sample, [n]; NaNs are left out.
        theirs: the other, [m].
        limit: `p` is of 'the difference is `limit`'.
        level: of the interval and the one-sided bounds, here and below.
    """
    samples = [_finite(ours), _finite(theirs)]
    spreads = [pooled_std([sample]) for sample in samples]
    variances = [std**2 / len(sample) for sample, (std, _) in zip(samples, spreads, strict=True)]
    freedoms = [freedom for _, freedom in spreads]
    weighted = sum(variance**2 / n for variance, n in zip(variances, freedoms, strict=True) if n)
    joint = sum(variances) ** 2 / weighted if weighted else sum(freedoms)
    mean = float(samples[0].mean() - samples[1].mean())
    return _difference(mean, sum(variances), joint, min(map(len, samples)), limit, level)


def compare(
    ours: pd.Series, theirs: pd.Series, limit: float = 0.0, level: float = LEVEL
) -> Difference:
    """Return the difference of two per-replicate series, paired where replicates are equal.

    The index names the replicate, (study, seed): within a study a seed fixes the initialisation and
    the dense net, so equal entries are pairs. Where one series has a replicate that the other
    lacks, all of both count, as independent (Welch).
    """
    second = theirs.to_dict()
    if len(ours) < 2 or set(ours.index) != set(second):
        return welch_difference(ours, theirs, limit, level)
    gaps = [value - second[name] for name, value in ours.to_dict().items()]
    mean, variance = float(np.mean(gaps)), float(np.var(gaps, ddof=1))
    return _difference(mean, variance / len(gaps), len(gaps) - 1, len(gaps), limit, level, True)


def ratio(
    ours: pd.Series, theirs: pd.Series, limit: float = 1.0, level: float = LEVEL
) -> Difference:
    """Return the ratio of two positive series' geometric means: `compare` of their logarithms."""
    logs = compare(np.log(ours), np.log(theirs), math.log(limit), level)
    bounds = (logs.mean, logs.low, logs.high, logs.lower, logs.upper)
    mean, low, high, lower, upper = map(math.exp, bounds)
    return Difference(logs.n, logs.paired, mean, low, high, lower, upper, logs.p)


def spread_ratio(ours: ArrayLike, theirs: ArrayLike, level: float = LEVEL) -> Difference:
    """Return the ratio of two samples' standard deviations, with F-distributed intervals."""
    (first, n), (second, m) = pooled_std([ours]), pooled_std([theirs])
    if not (n and m and second > 0):
        return Difference(0, False, math.nan)
    value, tail = (first / second) ** 2, (1 - level) / 2
    quantiles = stats.f.ppf([1 - tail, tail, 1 - 2 * tail, 2 * tail], n, m)
    low, high, lower, upper = np.sqrt(value / quantiles).tolist()
    p = 2 * float(min(stats.f.sf(value, n, m), stats.f.cdf(value, n, m)))
    return Difference(min(n, m) + 1, False, math.sqrt(value), low, high, lower, upper, p)


def holm(p_values: ArrayLike) -> Floats:
    """Return Holm's step-down adjusted p-values, in the order given."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1)


def summarise(table: pd.DataFrame, by: Sequence[str], value: str = "test_accuracy") -> pd.DataFrame:
    """Return `by`, mean `density`, and n, mean, std, low, high of `value` for each group.

    Args:
        table: from `tidy`; failed runs are left out.
        by: columns to group by, for instance `["label", "target_density"]`.
        value: the column to summarise.
    """
    judged = table[table["status"] == "ok"].sort_values(list(by), kind="stable")
    return estimates(judged, by, value, ["density"])


def estimates(
    table: pd.DataFrame, by: Sequence[str], value: str, also: Sequence[str] = ()
) -> pd.DataFrame:
    """Return `by`, the means of the columns `also`, and n, mean, std, low, high of `value` for each
    group, in the order of their first rows."""
    rows = [
        (*key, *(group[name].mean() for name in also), *vars(mean_interval(group[value])).values())
        for key, group in table.groupby(list(by), dropna=False, sort=False)
    ]
    return pd.DataFrame(rows, columns=[*by, *also, *Mean.__dataclass_fields__])


def interpolate(
    densities: ArrayLike, values: ArrayLike, at: ArrayLike, widest: float = 1e9
) -> Floats:
    """Interpolate a curve linearly in log density; NaN outside its range (1 % is forgiven).

    Args:
        densities: the curve's densities in (0, 1], [n], in any order; equal ones are averaged.
        values: the curve's values, [n].
        at: densities asked for, [m].
        widest: the widest gap, in log density, to follow the curve across; NaN in wider ones, but
            within 1 % of their ends.

    Returns:
        Values, [m].
    """
    where, heights = np.log(np.asarray(densities, float)), np.asarray(values, float)
    finite = np.isfinite(where) & np.isfinite(heights)
    nodes, node = np.unique(where[finite], return_inverse=True)
    target = np.log(np.asarray(at, float))
    if nodes.size == 0:
        return np.full(target.shape, math.nan)
    means = np.bincount(node, heights[finite]) / np.bincount(node)
    ends, positions = np.array([-math.inf, *nodes, math.inf]), np.searchsorted(nodes, target)
    below, above = ends[positions], ends[positions + 1]
    near = np.minimum(target - below, above - target) <= _CLOSE
    return np.where(near | (above - below <= widest), np.interp(target, nodes, means), math.nan)


@dataclass(frozen=True, eq=False)
class Tickets:
    """The tickets of one curve as arrays, [n].

    Attributes:
        replicates: names (study, seed), in the order of their first tickets.
        replicate: whose ticket each is, an index of `replicates`.
        density: in (0, 1].
        value: what was measured; NaN where nothing was.
    """

    replicates: Sequence[tuple[str, int]]
    replicate: NDArray[np.intp]
    density: Floats
    value: Floats

    @classmethod
    def of(cls, rows: pd.DataFrame, value: str = "test_accuracy") -> Tickets:
        """Return the tickets of a table's rows, with one of its columns."""
        numbers: dict[tuple[str, int], int] = {}
        names = zip(*(rows[column].tolist() for column in _REPLICATE), strict=True)
        replicate = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.intp)
        density, values = (rows[column].to_numpy(float) for column in ("density", value))
        return cls(list(numbers), replicate, density, values)

    def where(self, mask: NDArray[np.bool_]) -> Tickets:
        """Return the tickets that a mask, [n], keeps."""
        replicate, density, value = self.replicate[mask], self.density[mask], self.value[mask]
        return Tickets(self.replicates, replicate, density, value)

    def by_replicate(self, numbers: Iterable[int], values: ArrayLike) -> pd.Series:
        """Return values of some replicates: (study, seed) -> value."""
        names = [self.replicates[number] for number in numbers]
        return pd.Series(values, pd.Index(names, tupleize_cols=False))

    def means(self) -> pd.Series:
        """Return the mean of each replicate that has tickets: (study, seed) -> value."""
        means = pd.Series(self.value).groupby(self.replicate).mean()
        return self.by_replicate(means.index, means.to_numpy())

    def curves(self, grid: ArrayLike, widest: float = 1e9) -> Floats:
        """Return each replicate's curve on a grid, [replicates, m]; see `interpolate`."""
        curves = [
            interpolate(self.density[tickets], self.value[tickets], grid, widest)
            for tickets in self._by_replicate()
        ]
        return np.array(curves).reshape(len(curves), np.size(grid))

    def in_band(self, grid: ArrayLike) -> NDArray[np.bool_]:
        """Return which tickets, [n], lie in a band, of replicates with three densities there that
        span half of it."""
        low, high = np.log([np.min(grid), np.max(grid)])
        logs = np.log(self.density)
        inside = (low - _CLOSE <= logs) & (logs <= high + _CLOSE)
        measured = [np.unique(logs[tickets & inside]) for tickets in self._by_replicate()]
        enough = [len(nodes) >= 3 and np.ptp(nodes) >= (high - low) / 2 for nodes in measured]
        return inside & np.array(enough, bool)[self.replicate]

    def seeds_in_band(self, grid: ArrayLike) -> set[int]:
        """Return the seeds that have tickets in a band; see `in_band`."""
        return {self.replicates[number][1] for number in set(self.replicate[self.in_band(grid)])}

    def _by_replicate(self) -> list[NDArray[np.bool_]]:
        return [self.replicate == number for number in range(len(self.replicates))]


def on_grid(
    rows: pd.DataFrame, grid: ArrayLike, value: str = "test_accuracy", **gap: float
) -> pd.DataFrame:
    """Return each replicate's curve on `grid`: [(study, seed), density]; see `interpolate`."""
    tickets = Tickets.of(rows, value)
    index = pd.MultiIndex.from_tuples(tickets.replicates, names=_REPLICATE)
    return pd.DataFrame(tickets.curves(grid, **gap), index, np.asarray(grid, float))


def by_replicate(rows: pd.DataFrame, value: str = "test_accuracy") -> pd.Series:
    """Return each replicate's mean over rows: (study, seed) -> value."""
    return rows.groupby(_REPLICATE)[value].mean()


def last_tickets(rows: pd.DataFrame) -> pd.DataFrame:
    """Return of each run the ticket of its last round."""
    return rows[rows["round"] == rows.groupby("run")["round"].transform("max")]


def at_densities(
    rows: pd.DataFrame, densities: Sequence[float], value: str = "test_accuracy"
) -> pd.Series:
    """Return each replicate's mean over fixed densities, of those that have a ticket within 10 % of
    every one: (study, seed) -> value. Of a run its last ticket counts."""
    last = last_tickets(rows)
    means = {
        density: by_replicate(last[(last["density"] / density - 1).abs() <= NEAR], value)
        for density in densities
    }
    return pd.DataFrame(means).dropna().mean(axis=1)


def shared_means(
    ours: Tickets, theirs: Tickets, grid: ArrayLike, fewest: int
) -> tuple[pd.Series, pd.Series]:
    """Return each replicate's mean of two curves over the densities that both measured in a band.

    These are one curve's own densities, where the other was measured too or has neighbours a round
    of IMP apart. A curve that finds its densities itself has others for each seed: each is then
    measured from the other's mean curve, so that no difference comes from where it was measured.

    Args:
        ours: one curve's tickets.
        theirs: the other's.
        grid: the band.
        fewest: how many replicates make a density known, and a mean.

    Returns:
        Both, empty where too little is shared; see `Tickets.in_band`.
    """
    for first, second in ((ours, theirs), (theirs, ours)):
        tickets = first.where(first.in_band(grid))
        curves = second.curves(tickets.density, widest=ROUND)
        shared = np.isfinite(curves).sum(axis=0) >= fewest
        shared[shared] = tickets.where(shared).in_band(grid)
        tickets, curves = tickets.where(shared), curves[:, shared]
        whole = np.isfinite(curves).all(axis=1)
        if min(len(np.unique(tickets.replicate)), whole.sum()) < fewest:
            continue
        level = curves[whole].mean(axis=0)
        gaps = replace(tickets, value=tickets.value - level).means()
        means_there = second.by_replicate(np.flatnonzero(whole), curves[whole].mean(axis=1))
        means = (gaps + level.mean(), means_there)
        return means if first is ours else means[::-1]
    return pd.Series(dtype=float), pd.Series(dtype=float)


def crossing(
    densities: ArrayLike, differences: ArrayLike, weights: ArrayLike, threshold: float = MARGIN
) -> Floats:
    """Return between which densities a monotone fit of the difference to dense crosses a threshold.

    The fit is the weighted isotonic regression, rising with density. Between densities a round of
    IMP apart it is linear in log density, and both are the same; of a wider gap only the ends are
    known. They are 0 and the sparsest density for a curve that never falls that far, the densest
    and infinity for one that lies lower everywhere.

    Args:
        densities: of the points, [n].
        differences: of one curve or of many, [..., n].
        weights: of the points, [n].
        threshold: that is crossed.

    Returns:
        The sparse and the dense end, [..., 2].
    """
    order = np.argsort(np.asarray(densities, float))
    where, gaps, counts = (
        np.asarray(array, float)[..., order] for array in (np.log(densities), differences, weights)
    )
    fit = _rising(gaps, counts)
    below = (fit < threshold).sum(axis=-1, keepdims=True)
    levels = np.take_along_axis(fit, np.clip(below - [1, 0], 0, len(where) - 1), -1)
    ends = np.array([-math.inf, *where, math.inf])[below + np.arange(2)]
    near = np.diff(ends) <= ROUND
    with np.errstate(invalid="ignore", divide="ignore"):
        at = ends[..., :1] + np.diff(ends) * (threshold - levels[..., :1]) / np.diff(levels)
    return np.exp(np.where(near, at, ends))


def _rising(values: Floats, weights: Floats) -> Floats:
    """The weighted isotonic regression, [..., n]."""
    # Of the means of all runs of points that hold one, the greatest over where they begin of the
    # least over where they end.
    sums, counts = (
        np.insert(np.cumsum(array, -1), 0, 0, -1) for array in (values * weights, weights)
    )
    runs = np.triu(np.ones((len(weights), len(weights)), bool))  # of a point and one that follows
    spans = np.where(runs, counts[1:] - counts[:-1, None], math.nan)
    means = (sums[..., None, 1:] - sums[..., :-1, None]) / spans
    minima = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
    return np.where(runs, minima, -math.inf).max(axis=-2)


def d_star(curve: pd.DataFrame, dense: ArrayLike, rng: np.random.Generator) -> Crossing | None:
    """Return d*, the density at which a method falls 0.2 points below dense, with its interval.

    The 95 % interval is a parametric bootstrap: means at each density and of dense are drawn from
    normal distributions with the pooled spread of the curve and of dense, and fitted again.

    Args:
        curve: the method's accuracies in percent from `on_grid`, [replicates, densities].
        dense: the dense nets' accuracies in percent, [n].
        rng: source of the bootstrap's draws.

    Returns:
        The crossing; None where no spread is known or fewer than two densities are covered.
    """
    curve, sample = curve.loc[:, curve.notna().any()], _finite(dense)
    spread, freedom = pooled_std(curve.to_numpy().T)
    dense_spread, dense_freedom = pooled_std([sample])
    if curve.shape[1] < 2 or freedom == 0 or dense_freedom == 0:
        return None
    where, counts = curve.columns.to_numpy(float), curve.notna().sum().to_numpy(float)
    gaps = curve.mean().to_numpy(float) - sample.mean()
    noise = rng.normal(size=(1000, len(gaps))) * spread / np.sqrt(counts)
    noise -= rng.normal(size=(len(noise), 1)) * dense_spread / math.sqrt(len(sample))
    ends, draws = (crossing(where, values, counts) for values in (gaps, gaps + noise))
    edge = "below" if ends[0] == 0 else "above" if math.isinf(ends[1]) else ""
    inside, drawn = (np.clip(values, where.min(), where.max()) for values in (ends, draws))
    density = float(np.sqrt(inside.prod()))
    low = float(np.quantile(drawn[:, 0], (1 - LEVEL) / 2))
    high = float(np.quantile(drawn[:, 1], (1 + LEVEL) / 2))
    nearest = np.argsort(np.abs(np.log(where / density)))[:2]
    return Crossing(density, low, high, edge, int(counts[nearest].min()), draws)


def sparsest_on_validation(rows: pd.DataFrame, target: float) -> pd.DataFrame:
    """Return each replicate's sparsest ticket whose validation accuracy reaches `target` percent.

    Choose `target` from dense's validation accuracies: their mean for winning tickets, one standard
    deviation less for matching ones. The row's `test_accuracy` is then free of the choice.
    """
    reached = rows[rows["validation_accuracy"] >= target]
    return reached.loc[reached.groupby(_REPLICATE)["density"].idxmin()]


def best_on_validation(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each replicate's ticket of highest validation accuracy, to report on test."""
    rated = rows.dropna(subset="validation_accuracy")
    return rated.loc[rated.groupby(_REPLICATE)["validation_accuracy"].idxmax()]


def tuning_score(
    rows: pd.DataFrame, densities: Sequence[float] = (0.5, 0.2, 0.1, 0.05), floor: float = 10.0
) -> float:
    """Return how good a trial of a method is on validation: one number for a curve of tickets.

    At each density the best validation accuracy among the tickets that are at least as sparse
    counts (to 1 %), then the mean over the densities. A trial that never gets that sparse has
    `floor` there. Over seeds: the mean.

    Args:
        rows: the trial's tickets, from `tidy`.
        densities: kept fractions.
        floor: percent; ten is chance with ten classes.

    Raises:
        ConfigError: no ticket of the trial has a validation accuracy.
    """
    rated = rows.dropna(subset="validation_accuracy")
    if rated.empty:
        raise ConfigError("a trial is scored on validation accuracies, and none is known")
    scores = [
        tickets.loc[tickets["density"] <= 1.01 * density, "validation_accuracy"].max()
        for _, tickets in rated.groupby(_REPLICATE)
        for density in densities
    ]
    return float(pd.Series(scores).fillna(floor).mean())


def _finite(values: ArrayLike) -> Floats:
    sample = np.asarray(values, float)
    return sample[np.isfinite(sample)]


def _difference(
    mean: float,
    variance: float,
    freedom: float,
    n: int,
    limit: float,
    level: float,
    paired: bool = False,
) -> Difference:
    if not (freedom > 0 and variance >= 0):
        return Difference(n, paired, mean)
    error = math.sqrt(variance)
    two_sided, one_sided = (stats.t.ppf([(1 + level) / 2, level], freedom) * error).tolist()
    apart = abs(mean - limit)
    p = 2 * float(stats.t.sf(apart / error, freedom)) if error else float(apart == 0)
    return Difference(
        n, paired, mean, mean - two_sided, mean + two_sided, mean - one_sided, mean + one_sided, p
    )
