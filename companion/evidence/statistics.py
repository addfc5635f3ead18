"""The statistics that verdicts rest on: intervals, differences, bands, the crossing density d*."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests

from lthlib.errors import ConfigError

LEVEL = 0.95
MARGIN = -0.2
Floats = NDArray[np.float64]
IMP_DENSITIES: Floats = np.power(0.8, np.arange(1, 31))
BAND = IMP_DENSITIES[2:9]
WIDE_BAND = IMP_DENSITIES[6:17]
_CLOSE = 0.01


@dataclass(frozen=True)
class Mean:
    """A sample's mean and 95 % t-interval; `std`, `low` and `high` are NaN for a single value."""

    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A difference (or, from `ratio`, a ratio) of two samples' means.

    `n` is the number of pairs, or the smaller sample's size. `low`, `high` bound the two-sided 95 %
    interval; `lower`, `upper` are the one-sided 95 % bounds; `p` is the two-sided p-value of 'no
    difference'. Bounds and `p` are NaN where there are too few values.
    """

    n: int
    paired: bool
    mean: float
    low: float
    high: float
    lower: float
    upper: float
    p: float


@dataclass(frozen=True)
class Crossing:
    """The density d* at which a curve falls below dense by the margin.

    `edge` is `below` when the curve never falls that far (d* is at most `density`, the sparsest
    measured), `above` when it lies lower everywhere (d* is at least `density`, the densest), and
    empty otherwise. `n` is the number of seeds at the two densities that decide it; `draws` are the
    bootstrap's densities, [replicates].
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
    n = len(sample)
    mean = float(sample.mean()) if n else math.nan
    std = float(sample.std(ddof=1)) if n > 1 else math.nan
    half = _quantile((1 + LEVEL) / 2, n - 1) * std / math.sqrt(n) if n > 1 else math.nan
    return Mean(n, mean, std, mean - half, mean + half)


def pooled_std(samples: Sequence[ArrayLike]) -> tuple[float, int]:
    """Return the std pooled over samples and its degrees of freedom; NaN and 0 if none."""
    kept = [sample for sample in map(_finite, samples) if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in kept)
    if freedom == 0:
        return math.nan, 0
    squares = sum(float(((sample - sample.mean()) ** 2).sum()) for sample in kept)
    return math.sqrt(squares / freedom), freedom


def paired_difference(ours: ArrayLike, theirs: ArrayLike) -> Difference:
    """Return the mean of `ours - theirs`, paired entry by entry.

    Raises:
        ConfigError: the samples differ in length.
    """
    first, second = np.asarray(ours, float), np.asarray(theirs, float)
    if first.shape != second.shape:
        raise ConfigError(
            f"paired samples have shapes {first.shape} and {second.shape}; expected equal"
        )
    gaps = first - second
    spread = float(gaps.var(ddof=1)) / len(gaps) if len(gaps) > 1 else math.nan
    return _difference(float(gaps.mean()), spread, len(gaps) - 1, len(gaps), paired=True)


def welch_difference(
    ours: ArrayLike,
    theirs: ArrayLike,
    our_spread: tuple[float, int] | None = None,
    their_spread: tuple[float, int] | None = None,
) -> Difference:
    """Return the difference of two means without assuming equal spread (Welch).

    Args:
        ours, theirs: samples, [n] and [m].
        our_spread, their_spread: (standard deviation, degrees of freedom) to use instead of the
            sample's own, for instance `pooled_std` over the densities of its curve.
    """
    first, second = _finite(ours), _finite(theirs)
    parts = []
    for sample, spread in ((first, our_spread), (second, their_spread)):
        std, freedom = spread or pooled_std([sample])
        parts.append((std**2 / len(sample), freedom))
    total = sum(variance for variance, _ in parts)
    n = min(len(first), len(second))
    mean = float(first.mean() - second.mean())
    weighted = sum(variance**2 / freedom for variance, freedom in parts if freedom)
    joint = total**2 / weighted if weighted else sum(freedom for _, freedom in parts)
    return _difference(mean, total, joint, n, paired=False)


def compare(ours: pd.Series, theirs: pd.Series) -> Difference:
    """Return the difference of two per-replicate series, paired where their replicates are shared.

    The index names the replicate, (study, seed): within a study a seed fixes the initialisation and
    the dense net, so equal entries are pairs. Pairs are used when every replicate of the smaller
    series is in the larger and there are at least two; otherwise the series count as independent
    (Welch).
    """
    first, second = ours.to_dict(), theirs.to_dict()
    shared = [name for name in first if name in second]
    if len(shared) >= 2 and len(shared) == min(len(first), len(second)):
        return paired_difference(
            [first[name] for name in shared], [second[name] for name in shared]
        )
    return welch_difference(ours, theirs)


def ratio(ours: pd.Series, theirs: pd.Series) -> Difference:
    """Return the ratio of two positive series' geometric means: `compare` of their logarithms."""
    logs = compare(np.log(ours), np.log(theirs))
    names = ("mean", "low", "high", "lower", "upper")
    powers: dict[str, Any] = {name: math.exp(getattr(logs, name)) for name in names}
    return replace(logs, **powers)


def spread_ratio(ours: Sequence[ArrayLike], theirs: Sequence[ArrayLike]) -> Difference:
    """Return the ratio of two pooled standard deviations, with F-distributed intervals."""
    (first, n), (second, m) = pooled_std(ours), pooled_std(theirs)
    if not (n and m and second > 0):
        return Difference(0, False, *[math.nan] * 6)
    value, tail = (first / second) ** 2, (1 - LEVEL) / 2
    quantiles = stats.f.ppf([1 - tail, tail, 1 - 2 * tail, 2 * tail], n, m)
    low, high, lower, upper = np.sqrt(value / quantiles).tolist()
    p = 2 * float(min(stats.f.sf(value, n, m), stats.f.cdf(value, n, m)))
    replicates = min(len(_finite(sample)) for sample in (*ours, *theirs))
    return Difference(replicates, False, math.sqrt(value), low, high, lower, upper, p)


def holm(p_values: ArrayLike) -> Floats:
    """Return Holm's step-down adjusted p-values, in the order given."""
    adjusted: Floats = np.asarray(multipletests(p_values, method="holm")[1], float)
    return adjusted


def summarise(table: pd.DataFrame, by: Sequence[str], value: str = "test_accuracy") -> pd.DataFrame:
    """Return `by`, mean `density`, and n, mean, std, low, high of `value` for each group.

    Args:
        table: from `tidy`; failed runs are left out.
        by: columns to group by, for instance `["label", "target_density"]`.
        value: the column to summarise.
    """
    groups = table[table["status"] == "ok"].groupby(list(by), dropna=False, sort=True)
    rows: list[dict[str, Any]] = [
        dict(zip(by, key, strict=True))
        | {"density": group["density"].mean()}
        | vars(mean_interval(group[value]))
        for key, group in groups
    ]
    names = [*by, "density", *Mean.__dataclass_fields__]
    return pd.DataFrame(rows, columns=list(dict.fromkeys(names)))


def interpolate(densities: ArrayLike, values: ArrayLike, at: ArrayLike) -> Floats:
    """Interpolate a curve linearly in log density; NaN outside its range (1 % is forgiven).

    Args:
        densities: the curve's densities in (0, 1], [n], in any order; equal ones are averaged.
        values: the curve's values, [n].
        at: densities asked for, [m].

    Returns:
        Values, [m].
    """
    where, heights = np.log(np.asarray(densities, float)), np.asarray(values, float)
    known = np.isfinite(where) & np.isfinite(heights)
    nodes, place = np.unique(where[known], return_inverse=True)
    target = np.log(np.asarray(at, float))
    if nodes.size == 0:
        return np.full(target.shape, math.nan)
    means = np.bincount(place, heights[known]) / np.bincount(place)
    inside = (target >= nodes[0] - _CLOSE) & (target <= nodes[-1] + _CLOSE)
    return np.where(inside, np.interp(target, nodes, means), math.nan)


def on_grid(rows: pd.DataFrame, grid: ArrayLike, value: str = "test_accuracy") -> pd.DataFrame:
    """Return each replicate's curve on `grid`: [(study, seed), density], NaN outside its range."""
    at = np.asarray(grid, float)
    densities, values = rows["density"].to_numpy(float), rows[value].to_numpy(float)
    members: dict[Any, list[int]] = {}
    for place, replicate in enumerate(zip(rows["study"], rows["seed"], strict=True)):
        members.setdefault(replicate, []).append(place)
    curves = [interpolate(densities[places], values[places], at) for places in members.values()]
    index = pd.MultiIndex.from_tuples(list(members), names=["study", "seed"]) if members else None
    return pd.DataFrame(curves, index=index, columns=at, dtype=float)


def band_means(rows: pd.DataFrame, grid: ArrayLike, value: str = "test_accuracy") -> pd.Series:
    """Return each replicate's mean over a band, for the replicates whose curve covers all of it."""
    return on_grid(rows, grid, value).dropna().mean(axis=1)


def point_differences(curve: pd.DataFrame, reference: pd.DataFrame) -> dict[float, Difference]:
    """Return the difference to a reference at each density, with spread pooled over the densities.

    Args:
        curve: from `on_grid`, [replicates, densities].
        reference: likewise with the same densities, or one column (dense) that serves them all.
    """
    spreads = [pooled_std([part[name] for name in part]) for part in (curve, reference)]
    differences = {}
    for place, density in enumerate(curve.columns):
        other = reference.iloc[:, 0 if reference.shape[1] == 1 else place]
        if curve[density].notna().any() and other.notna().any():
            differences[float(density)] = welch_difference(curve[density], other, *spreads)
    return differences


def crossing_density(
    densities: ArrayLike, differences: ArrayLike, weights: ArrayLike, threshold: float = MARGIN
) -> tuple[float, str]:
    """Return where a monotone fit of the difference to dense crosses a threshold, and the edge.

    The fit is the weighted isotonic regression, rising with density; between densities it is linear
    in log density. See `Crossing` for the edges.
    """
    order = np.argsort(np.asarray(densities, float))
    where = np.log(np.asarray(densities, float)[order])
    fit = optimize.isotonic_regression(
        np.asarray(differences, float)[order], weights=np.asarray(weights, float)[order]
    ).x
    good = fit >= threshold
    if good.all():
        return float(np.exp(where[0])), "below"
    if not good.any():
        return float(np.exp(where[-1])), "above"
    first = int(good.argmax())
    share = (threshold - fit[first - 1]) / (fit[first] - fit[first - 1])
    return float(np.exp(where[first - 1] + share * (where[first] - where[first - 1]))), ""


def d_star(
    curve: pd.DataFrame,
    dense: ArrayLike,
    rng: np.random.Generator,
    threshold: float = MARGIN,
    replicates: int = 1000,
) -> Crossing | None:
    """Return d*, the density at which a method falls `threshold` points from dense, with interval.

    The 95 % interval is a parametric bootstrap: means at each density and of dense are drawn from
    normal distributions with the pooled spread of the curve and of dense, and fitted again.

    Args:
        curve: the method's accuracies in percent from `on_grid`, [replicates, densities].
        dense: the dense nets' accuracies in percent, [n].
        rng: source of the bootstrap's draws.
        threshold: points, negative.
        replicates: bootstrap size.

    Returns:
        The crossing; None where no spread is known or fewer than two densities are covered.
    """
    curve = curve.loc[:, curve.notna().any()]
    sample = _finite(dense)
    (spread, freedom), (dense_spread, dense_freedom) = (
        pooled_std([curve[name] for name in curve]),
        pooled_std([sample]),
    )
    if curve.shape[1] < 2 or freedom == 0 or dense_freedom == 0:
        return None
    where, counts = curve.columns.to_numpy(float), curve.notna().sum().to_numpy(float)
    gaps = curve.mean().to_numpy(float) - sample.mean()
    density, edge = crossing_density(where, gaps, counts, threshold)
    noise = rng.normal(size=(replicates, len(gaps))) * spread / np.sqrt(counts)
    shared = rng.normal(size=(replicates, 1)) * dense_spread / math.sqrt(len(sample))
    draws = np.array(
        [crossing_density(where, row, counts, threshold)[0] for row in gaps + noise - shared]
    )
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    nearest = np.argsort(np.abs(np.log(where / density)))[:2]
    return Crossing(density, float(low), float(high), edge, int(counts[nearest].min()), draws)


def winning_as_defined(ticket: ArrayLike, dense: ArrayLike) -> bool:
    """Return whether the mean is no less than dense's: BiP's 'winning ticket' (its Table 1)."""
    return mean_interval(ticket).mean >= mean_interval(dense).mean


def sparsest_on_validation(rows: pd.DataFrame, target: float) -> pd.DataFrame:
    """Return each replicate's sparsest ticket whose validation accuracy reaches `target` percent.

    Choose `target` from dense's validation accuracies: their mean for winning tickets, one standard
    deviation less for matching ones. The row's `test_accuracy` is then free of the choice.
    """
    reached = rows[rows["validation_accuracy"] >= target]
    return reached.loc[reached.groupby(["study", "seed"])["density"].idxmin()]


def best_on_validation(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each replicate's ticket of highest validation accuracy, to report on test."""
    rated = rows[rows["validation_accuracy"].notna()]
    return rated.loc[rated.groupby(["study", "seed"])["validation_accuracy"].idxmax()]


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
    rated = rows[rows["validation_accuracy"].notna()]
    if rated.empty:
        raise ConfigError("a trial is scored on validation accuracies, and none is known")
    scores = [
        own.loc[own["density"] <= 1.01 * density, "validation_accuracy"].max()
        for _, own in rated.groupby(["study", "seed"])
        for density in densities
    ]
    return float(pd.Series(scores).fillna(floor).mean())


def _finite(values: ArrayLike) -> Floats:
    sample = np.asarray(values, float)
    return sample[np.isfinite(sample)]


def _quantile(level: float, freedom: float) -> float:
    return float(stats.t.ppf(level, freedom))


def _difference(
    mean: float, variance: float, freedom: float, n: int, *, paired: bool
) -> Difference:
    if not (freedom > 0 and variance >= 0):
        return Difference(n, paired, mean, *[math.nan] * 5)
    error = math.sqrt(variance)
    two, one = (_quantile(level, freedom) * error for level in ((1 + LEVEL) / 2, LEVEL))
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom)) if error else float(mean == 0)
    return Difference(n, paired, mean, mean - two, mean + two, mean - one, mean + one, p)
