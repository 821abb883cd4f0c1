"""From unit sums to an estimate with its intervals: delta method, bootstrap by unit, empirical
Bernstein. No estimator is known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from policies import elementary
from policies.base import DoubleArray
from policies.products import matmul

RESAMPLES = 1000
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class EstimateInterval:
    """An interval and how it was made: `delta`, `bootstrap` or `bernstein`."""

    method: str
    low: float
    high: float

    def covers(self, value: float) -> bool:
        return self.low <= value <= self.high

    def hull(self, other: EstimateInterval) -> EstimateInterval:
        """The smallest interval that holds both."""
        return EstimateInterval(self.method, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class FirstOrder:
    """An estimate to first order: covariances of estimates over the same units are made of it.

    Attributes:
        value: the estimate.
        influence: `[U]` effect of each unit's weight on it, adding to 0.
    """

    value: float
    influence: DoubleArray


@dataclass(frozen=True)
class Ratios:
    """An estimate as a sum of ratios of sums over units.

    Attributes:
        numerators, denominators: `[U, T]` sums of each unit.
        shift: `[U]` first-order effect of each unit on the numerators' total through a fitted
            model, 0 where there is none; it moves intervals, not the estimate.
    """

    numerators: DoubleArray
    denominators: DoubleArray
    shift: DoubleArray | None = None

    @property
    def value(self) -> float:
        """The estimate; NaN where a denominator is 0."""
        below = self.denominators.sum(axis=0)
        if (below == 0).any():
            return float("nan")
        return float((self.numerators.sum(axis=0) / below).sum())

    def influence(self) -> DoubleArray:
        """First-order effect of each unit's weight on the estimate, `[U]`, adding to 0
        (infinitesimal jackknife); NaN where it is NaN.
        """
        below = self.denominators.sum(axis=0)
        if (below == 0).any():
            return np.full(len(self.numerators), np.nan)
        each = self.numerators.sum(axis=0) / below
        moved = ((self.numerators - each * self.denominators) / below).sum(axis=1)
        if self.shift is not None:
            moved = moved + (self.shift - self.shift.mean()) / below[0]
        out: DoubleArray = moved
        return out

    def first_order(self) -> FirstOrder:
        """The estimate with its influences."""
        return FirstOrder(self.value, self.influence())

    def error(self) -> float:
        """Standard error of the estimate, clustered by unit."""
        units = len(self.numerators)
        if units > 1:
            return float(np.sqrt(np.square(self.influence()).sum() * units / (units - 1)))
        return float("nan")

    def distance_error(self, other: Ratios) -> float:
        """Standard error of the distance to another estimate over the same units."""
        units = len(self.numerators)
        if units > 1:
            return float(
                np.sqrt(np.square(self.influence() - other.influence()).sum() * units / (units - 1))
            )
        return float("nan")

    def columns(self) -> DoubleArray:
        """What a resample sums: numerators (the model's effect added to the first) and
        denominators, `[U, 2 T]`.
        """
        above = self.numerators
        if self.shift is not None:
            above = above.copy()
            above[:, 0] += self.shift - self.shift.mean()
        return np.concatenate((above, self.denominators), axis=1)


def delta(estimate: Ratios, level: float = 0.95) -> EstimateInterval:
    """Normal interval by the delta method (Cochran, Sampling Techniques, 1977, eq. 6.13 for
    ratios), clustered by unit.

    Student's quantile with units - 1 degrees of freedom.
    """
    from scipy.special import stdtrit

    units = len(estimate.numerators)
    half = float(stdtrit(max(units - 1, 1), (1 + level) / 2)) * estimate.error()
    return EstimateInterval("delta", estimate.value - half, estimate.value + half)


def bernstein(estimate: Ratios, level: float = 0.95) -> EstimateInterval:
    """Empirical Bernstein interval (Maurer & Pontil, COLT 2009, theorem 4, both sides) over units.

    Holds for any number of units if no unit's part can be larger than the largest one seen; wide by
    design.
    """
    moved = estimate.influence() * len(estimate.numerators)
    units = len(moved)
    log = elementary.log(4 / (1 - level))
    spread = float(moved.max() - moved.min())
    half = float(np.sqrt(2 * moved.var(ddof=1) * log / units)) + 7 * spread * float(log) / (
        3 * (units - 1)
    )
    return EstimateInterval("bernstein", estimate.value - half, estimate.value + half)


def bootstrap(estimates: Sequence[Ratios], resamples: int, seed: int) -> DoubleArray:
    """Every estimate in every resample of units with replacement (Efron 1979; Field & Welsh, JRSS B
    2007 for clusters), `[E, B]`.

    A resample is a row of multinomial counts; all resamples of all estimates are one matrix product
    on sums of units. The same resamples serve all estimates, so that differences of estimates are
    paired.

    Args:
        estimates: over the same units.
        resamples: how many, `B`.
        seed: of the draws.
    """
    units = len(estimates[0].numerators)
    columns = np.concatenate([estimate.columns() for estimate in estimates], axis=1)
    totals = np.concatenate([matmul(block, columns) for block in _counts(units, resamples, seed)])
    out, start = np.empty((len(estimates), resamples)), 0
    for row, estimate in zip(out, estimates, strict=True):
        terms = estimate.numerators.shape[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            row[:] = (
                totals[:, start : start + terms] / totals[:, start + terms : start + 2 * terms]
            ).sum(axis=1)
        start += 2 * terms
    return out


def multipliers(influences: DoubleArray, draws: int, seed: int) -> DoubleArray:
    """Sums of `influences` `[U, E]`, each unit's times a standard normal number of its own,
    `[draws, E]`: errors of estimates over the same units, with their covariances.

    Such sums are normal with the covariance `influences' influences`, so they are drawn from it
    and not unit by unit.
    """
    root = _root(matmul(influences.T, influences))
    random = np.random.Generator(np.random.Philox(key=seed))
    return matmul(random.standard_normal((draws, len(root))), root.T)


def _root(cov: DoubleArray) -> DoubleArray:
    """Lower triangle `[E, E]` whose product with its transpose is `cov` (Cholesky), in a fixed
    order; an estimate that follows from those before it adds nothing of its own.
    """
    root = np.zeros_like(cov)
    for j in range(len(cov)):
        left = cov[j:, j] - matmul(root[j:, :j], root[j, :j]) if j else cov[:, 0]
        if left[0] > 1e-12 * cov[j, j]:
            root[j:, j] = left / np.sqrt(left[0])
    return root


def percentile(resampled: DoubleArray, level: float = 0.95) -> EstimateInterval:
    """Percentile interval from resamples `[B]`; NaN where more than a tenth of them had an empty
    denominator.
    """
    known = resampled[np.isfinite(resampled)]
    if len(known) < 0.9 * len(resampled):
        return EstimateInterval("bootstrap", float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return EstimateInterval("bootstrap", float(low), float(high))


def _counts(units: int, resamples: int, seed: int) -> Iterator[DoubleArray]:
    """How often each unit is drawn in each resample, in blocks `[<= 64, U]`."""
    random = np.random.Generator(np.random.Philox(key=seed))
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        drawn = (
            random.integers(0, units, (size, units), dtype=np.int32)
            + np.arange(0, size * units, units, dtype=np.int32)[:, None]
        )
        yield (
            np.bincount(drawn.ravel(), minlength=size * units)
            .reshape(size, units)
            .astype(np.float64)
        )
