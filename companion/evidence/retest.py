"""Tests of means that were computed again: of tickets with few seeds, and of curves of them.

Everywhere `values` are [tickets, seeds], NaN where there is none, and `curves` is [curves, tickets]
with 1 where a ticket belongs to a curve and 0 elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from companion.evidence.statistics import Floats


@dataclass(frozen=True)
class Prior:
    """Variances that were learnt from others.

    Attributes:
        variance: [n].
        freedom: the degrees of freedom that they are worth.
    """

    variance: Floats
    freedom: float

    def joined(self, squares: Floats, freedom: Floats) -> tuple[Floats, Floats]:
        """Variances and degrees of freedom, with the sums of squares of samples of one's own."""
        together = self.freedom + freedom
        return (self.freedom * self.variance + squares) / together, together


@dataclass(frozen=True)
class Spread:
    """How far a record's seeds spread.

    Attributes:
        tickets: theirs.
        curves: theirs, in units of independent tickets'.
        weights: of the tickets in the mean of their curve, the inverse of their variances.
    """

    tickets: Prior
    curves: Prior
    weights: Floats


@dataclass(frozen=True)
class Retested:
    """Tests of tickets, then of curves; NaN where nothing was computed again or no spread is known.

    Attributes:
        recorded: means as recorded.
        difference: of the computed means.
        error: its standard error.
        p: two-sided p-values.
    """

    recorded: Floats
    difference: Floats
    error: Floats
    p: Floats


def spread_of(values: Floats, curves: Floats, floor: float, *, accuracies: bool) -> Spread:
    """Return how far the seeds of a record spread.

    The variance of a ticket is drawn towards what the record's tickets have (Smyth 2004,
    doi:10.2202/1544-6115.1027, section 6.2): of accuracies, those of such accuracy.

    Args:
        values: of the record.
        curves: which tickets belong together; their values may rise and fall together with a seed.
        floor: the least variance that is believed.
        accuracies: values are in percent, and their variance follows a power of p (1 - p).
    """
    means, rests, freedom = _means_and_rests(values)
    share = np.clip(means / 100, 0.001, 0.999)
    trend = np.log(share * (1 - share)) if accuracies else None
    squares = np.maximum((rests**2).sum(axis=1), floor * freedom)
    tickets = _prior(squares, freedom, trend)
    weights = 1 / tickets.joined(squares, freedom)[0]
    squares, freedom = _squares_of_curves(rests, freedom, curves * weights)
    jointly = _prior(np.maximum(squares, 0.1 * freedom), freedom, None)
    # The variance of a mean of k tickets is known no better than k times that of one.
    limit = tickets.freedom * curves.sum(axis=1).mean() if len(curves) else 0.0
    return Spread(tickets, replace(jointly, freedom=min(jointly.freedom, limit)), weights)


def retest(
    recorded: Floats, computed: Floats, curves: Floats, spread: Spread, tolerance: float
) -> Retested:
    """Test whether means differ by more than a tolerance: moderated t-tests.

    Recorded and computed values of a seed count as independent, which they are at most.

    Args:
        recorded: values as recorded.
        computed: values as computed again; a mean is over the seeds that both have.
        curves: which tickets belong together; a curve's mean weighs its tickets.
        spread: of the record.
        tolerance: the difference that is none.
    """
    pairs = (np.isfinite(recorded) & np.isfinite(computed)).sum(axis=1)
    weights = curves * (pairs > 0) * spread.weights
    fewest = np.array([pairs[row > 0].min(initial=10**6) for row in weights])
    sides = [_means_and_rests(side) for side in (recorded, computed)]
    curve_sums = [
        _squares_of_curves(rests, freedom, curves * spread.weights) for _, rests, freedom in sides
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = np.sum([(rests**2).sum(axis=1) for _, rests, _ in sides], axis=0)
        variance, freedom = spread.tickets.joined(squares, np.sum([n for *_, n in sides], axis=0))
        ratio, together = spread.curves.joined(*np.sum(curve_sums, axis=0))
        gaps = np.where(pairs > 0, np.nansum(computed - recorded, axis=1) / pairs, math.nan)
        base = np.nansum(recorded + 0 * computed, axis=1) / pairs
        over_curves = [
            weights @ np.where(pairs > 0, values, 0) / weights.sum(axis=1)
            for values in (base, gaps)
        ]
        error = np.sqrt(2 * np.append(variance / pairs, ratio / weights.sum(axis=1) / fewest))
        difference = np.append(gaps, over_curves[1])
        excess = np.maximum(np.abs(difference) - tolerance, 0) / error
        p = np.minimum(2 * stats.t.sf(excess, np.append(freedom, together)), 1)
    return Retested(np.append(base, over_curves[0]), difference, error, p)


def expected(
    values: Floats, floor: float, *, accuracies: bool
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return what is to be expected of another seed, ticket by ticket: the mean, how many seeds it
    is known by, a seed's variance, and the degrees of freedom that it is known by.

    Args:
        values: of a record.
        floor: as of `spread_of`.
        accuracies: as of `spread_of`.
    """
    means, rests, freedom = _means_and_rests(values)
    alone = np.zeros((0, len(values)))
    prior = spread_of(values, alone, floor, accuracies=accuracies).tickets
    return means, freedom + 1, *prior.joined((rests**2).sum(axis=1), freedom)


def draw(
    recorded: Floats,
    labels: NDArray[np.str_],
    spread: Spread,
    rng: np.random.Generator,
    simulations: int,
) -> Floats:
    """Return made-up honest re-runs of a record: [simulations, tickets, seeds].

    Each has a true mean and a true variance of its own for every ticket, as the record leaves them
    uncertain; its seeds are normal and have nothing to do with the recorded ones. Within a curve
    tickets are correlated as their rests are in the record.

    Args:
        recorded: values.
        labels: of each ticket, its curve.
        spread: of the record.
        rng: source of the draws.
        simulations: how many.
    """
    means, rests, freedom = _means_and_rests(recorded)
    squares, seeds = (rests**2).sum(axis=1), recorded.shape[1]
    variance, dof = spread.tickets.joined(squares, freedom)
    # The last of the columns is the error of the recorded mean, which all seeds share.
    noise = rng.normal(size=(simulations, len(means), seeds + 1))
    for label in np.unique(labels):
        rows = np.flatnonzero((labels == label) & (squares > 0))
        # Sums of rests with normal weights have the correlation of the rests.
        mixed = rng.normal(size=(simulations, seeds, seeds + 1))
        noise[:, rows] = (rests[rows] / np.sqrt(squares[rows])[:, None]) @ mixed
    noise *= np.sqrt(variance * dof / rng.chisquare(dof, (simulations, len(dof))))[..., None]
    count = np.isfinite(recorded).sum(axis=1)
    return means[:, None] + noise[..., :-1] + noise[..., -1:] / np.sqrt(count)[:, None]


def _means_and_rests(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Means of tickets, what is left of their seeds with 0 for none, and degrees of freedom."""
    finite = np.isfinite(values)
    count = finite.sum(axis=1)
    with np.errstate(invalid="ignore"):
        means = np.where(finite, values, 0).sum(axis=1) / count
    rests = np.where(finite, values - means[:, None], 0)
    return means, rests, np.maximum(count - 1, 0).astype(float)


def _squares_of_curves(rests: Floats, freedom: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Sums of squares of the seeds' weighted means over curves, and degrees of freedom."""
    # In units of a mean of independent tickets: 1 for those, more as they rise and fall together.
    squares = ((weights @ rests) ** 2).sum(axis=1) / weights.sum(axis=1)
    return squares, np.where(weights > 0, freedom, 0).max(axis=1, initial=0)


def _prior(squares: Floats, freedom: Floats, trend: Floats | None) -> Prior:
    usable = freedom > 0
    if not usable.any():
        return Prior(np.full(len(freedom), math.nan), math.nan)
    half = freedom[usable] / 2
    logs = np.log(squares[usable] / freedom[usable]) - special.digamma(half) + np.log(half)
    design = np.ones((len(freedom), 1))
    if trend is not None and usable.sum() > 3 and np.ptp(trend[usable]) > 0:
        design = np.stack([design[:, 0], trend], axis=1)
    fitted = design @ np.linalg.lstsq(design[usable], logs, rcond=None)[0]
    spare = max(usable.sum() - design.shape[1], 1)
    # How much logarithms of variances differ beyond what few degrees of freedom explain.
    beyond = ((logs - fitted[usable]) ** 2).sum() / spare - special.polygamma(1, half).mean()
    weight = min(2 * _inverse_trigamma(beyond), float(freedom.sum()))
    return Prior(np.exp(fitted + special.digamma(weight / 2) - math.log(weight / 2)), weight)


def _inverse_trigamma(value: float) -> float:
    low, high = 1e-3, 1e6
    if value <= special.polygamma(1, high):
        return high
    if value >= special.polygamma(1, low):
        return low
    return float(optimize.brentq(lambda x: special.polygamma(1, x) - value, low, high))
