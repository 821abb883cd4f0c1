"""Quantiles: lifts of a metric's median or ninth decile over users, as moments like any other, of
one sample or of thousands at once.

They are *mid-quantiles*, which are the ordinary ones where values differ, and move smoothly where
many users have the same value (counts): there an ordinary quantile stays at one whole number or
jumps to the next, and no normal theory holds for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.elementary import exps
from policies.products import matmul
from simulator.stats import selection
from simulator.stats.moments import Floats, Moments
from simulator.stats.passes import Pass
from simulator.stats.quantities import ArmFigure
from simulator.stats.randomise import Outcomes

Weights = npt.NDArray[Any]
"""Counts of units in samples `[n, R]`."""

LEAST = 10
"""Units that a sample must have on the thinner side of a quantile for its spread to be told at all.
"""

ENOUGH = 50
"""Units that it must have there for its lift to be given: audited with half as many, the test
rejects too seldom.
"""

TIED = 0.1
"""Share of other units with the value at a quantile, in standard errors of the level, up to which
its lift is given.

Counts are beyond it: not all of them held their level when they were audited, seconds did.
"""

NODES = np.linspace(-2.5, 2.5, 26)
"""Where the mid-quantile is looked at to tell its spread, in standard errors of the level."""

MASS = exps(-0.5 * np.square(NODES)) / exps(-0.5 * np.square(NODES)).sum()
"""The normal law's mass at each of them."""


def merged(values: Floats, weights: Weights) -> tuple[Floats, Weights]:
    """Distinct values `[k]`, ascending, and their counts `[k, R]`, from `weights` `[n, R]`; samples
    are the last axis.
    """
    if weights.shape[1] == 1 and (weights == 1).all():  # one whole sample: nothing to reorder
        distinct, counts = np.unique(values, return_counts=True)
        return distinct, counts[:, None].astype(weights.dtype)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    sorted_weights = weights[order]
    return ordered[first], (
        sorted_weights
        if len(first) == len(values)
        else np.add.reduceat(sorted_weights, first, axis=0)
    )


@dataclass(frozen=True)
class MidQuantile:
    """One quantile in each of R samples, all fields `[R]`.

    With distinct values x_1 < x_2 < ..., shares p_j and mid-distribution pi_j = p_1 + ... + p_(j-1)
    + p_j / 2, the mid-quantile at level q between pi_j and pi_(j+1) is (1 - share) x_j + share
    x_(j+1), share = (q - pi_j) / (pi_(j+1) - pi_j) (Ma, Genton & Parzen, "Asymptotic properties of
    sample quantiles of discrete distributions", Annals of the Institute of Statistical Mathematics
    2011, eq. 3).

    Attributes:
        value: the mid-quantile.
        lower, upper: x_j and x_(j+1).
        share: between them.
        slope: units of value per unit of level around it; NaN where the sample cannot say.
        variance: of the mean score (see `scores`) of the sample, `[R]`.
        n: units.
    """

    value: Floats
    lower: Floats
    upper: Floats
    share: Floats
    slope: Floats
    variance: Floats
    n: Floats

    def scores(self, values: Floats) -> Floats:
        """How much each unit counts as below the quantile, `[n, R]`: their mean is the level.

        (1 - share) m_j + share m_(j+1) with m_j = 1(x < x_j) + 1(x = x_j) / 2: the mid-quantile
        moves by -slope times the mean score.
        """
        return _scores(values, self.lower, self.upper, self.share)


def _scores(values: Floats, lower: Floats, upper: Floats, share: Floats) -> Floats:
    x = values[:, None]
    return np.asarray(
        (x < lower) + (x == lower) * ((1.0 + share) / 2.0) + (x == upper) * (share / 2.0)
    )


def _clustered_variance(score: Floats, units: npt.NDArray[np.int64]) -> float:
    """Variance of the mean of scores around 0 `[rows]` of rows that belong to `units`: that of a
    ratio of sums over units.
    """
    sums = np.bincount(units, score)
    n = len(sums)
    return float(n / (n - 1.0) * matmul(sums, sums) / len(score) ** 2)


def mid_quantile(
    values: Floats,
    weights: Weights,
    level: float,
    units: npt.NDArray[np.int64] | None = None,
) -> MidQuantile:
    """The mid-quantile at `level` in every sample.

    Its slope is that of a line with the same spread: sd of the mid-quantile at level + e over sd of
    e, with e as the mean score varies, normal. That is the spread of the quantile under resampling,
    as Maritz & Jarrett have it for order statistics ("A note on estimating the variance of the
    sample median", JASA 1978), exact where all the levels that matter lie between the same two
    values. NaN with fewer than LEAST units on the thinner side, or where those levels leave the
    sample.

    Args:
        values: `[n]`.
        weights: `[n, R]` counts of the units in each sample.
        level: in (0, 1).
        units: `[n]` to which unit each value belongs, where these are not independent; then every
            value counts once in one sample.
    """
    curve = _Curve(*merged(values, weights))
    lower, upper, share = curve.around(np.full(curve.n.shape, level))
    below, at, above = curve.shares(lower), curve.share_at(lower), curve.share_at(upper)
    with np.errstate(divide="ignore", invalid="ignore"):
        square = below + at * np.square((1.0 + share) / 2.0) + above * np.square(share / 2.0)
        variance = np.maximum(square - level**2, 0.0) / (curve.n - 1.0)
        if units is not None:
            ends = curve.distinct[lower], curve.distinct[np.minimum(upper, len(curve.distinct) - 1)]
            score = _scores(values, *ends, share)[:, 0] - level
            variance = np.array([_clustered_variance(score, units)])
        error = np.sqrt(variance)
        nearby = np.stack([curve.value(level + z * error) for z in NODES])
        slope = (
            np.sqrt(
                matmul(MASS, np.square(nearby - matmul(MASS, nearby)))
                / matmul(MASS, np.square(NODES))
            )
            / error
        )
    enough = (curve.n * min(level, 1.0 - level) >= LEAST) & (variance > 0)
    x_lower = curve.distinct[lower]
    x_upper = curve.distinct[np.minimum(upper, len(curve.distinct) - 1)]
    value = x_lower + share * (x_upper - x_lower)
    return MidQuantile(
        value, x_lower, x_upper, share, np.where(enough, slope, np.nan), variance, curve.n
    )


def unfit(control: Floats, treatment: Floats, level: float, n: int) -> str:
    """Why no lift of a quantile of samples of `n` units an arm can be given, in words; "" where it
    can.

    A quantile has a normal law where the distribution is smooth on the scale of its error. Where
    many users share one value (counts of few events) it stays there or jumps to the next; audited,
    tests and intervals then err either way.
    """
    return unfit_over(lambda function: iter([function((control, treatment))]), tuple, level, n)


def unfit_over(
    over: Pass, values: Callable[[Any], tuple[Floats, Floats]], level: float, n: int
) -> str:
    """The same of the `values` of both arms in stretches of the units."""
    if n * min(level, 1.0 - level) < ENOUGH:
        return f"fewer than {ENOUGH} users beyond it"
    error = np.sqrt(level * (1.0 - level) / n)
    sizes = np.sum(list(over(partial(_sizes, values))), axis=0).tolist()
    found = selection.order_statistics(
        over,
        partial(_by_side, values),
        {side: [selection.rank(level, size)] for side, size in enumerate(sizes)},
        dict(enumerate(sizes)),
    )
    heres = [found[side][0] for side in range(len(sizes))]
    ties = np.sum(list(over(partial(_ties, values, heres))), axis=0).tolist()
    for here, same, size in zip(heres, ties, sizes, strict=True):
        if here == 0:
            return "that quantile of users has no events"
        tied = (same - 1) / size
        if tied > TIED * error:
            return f"too many users ({tied:.1%}) have that one value"
    return ""


class _Curve:
    """The mid-distribution functions of R samples over their common distinct values."""

    def __init__(self, distinct: Floats, counts: Weights) -> None:
        self.distinct, self.counts = distinct, counts
        self.below = np.cumsum(counts, axis=0)
        self.n = self.below[-1].astype(np.float64)
        self.sample = np.arange(counts.shape[1])

    def share_at(self, index: npt.NDArray[np.int64]) -> Floats:
        """Share of the units at the value of this index; 0 beyond the last."""
        inside = index < len(self.distinct)
        return np.asarray(
            np.where(
                inside, self.counts[np.minimum(index, len(self.distinct) - 1), self.sample], 0.0
            )
            / self.n
        )

    def shares(self, index: npt.NDArray[np.int64]) -> Floats:
        """Share of the units below the value of this index."""
        return np.asarray(self.below[index, self.sample] / self.n - self.share_at(index))

    def around(self, level: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
        """Indices of the values that the samples have on both sides of `level` `[R]`, and its share
        of the way between; NaN outside.
        """
        k = len(self.distinct)
        low, high = np.zeros(len(self.n), dtype=np.int64), np.full(len(self.n), k)
        while (low < high).any():  # the first value whose mid-distribution is above the level
            middle = np.minimum((low + high) // 2, k - 1)
            up = self._mid(middle) <= level
            low, high = (
                np.where((low < high) & up, middle + 1, low),
                np.where((low < high) & ~up, middle, high),
            )
        upper = self._present(low, 1)
        lower = self._present(low - 1, -1)
        outside = (lower < 0) | (upper >= k)
        lower = np.maximum(lower, 0)
        left, right = self._mid(lower), self._mid(np.minimum(upper, k - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return lower, upper, np.where(outside, np.nan, (level - left) / (right - left))

    def value(self, level: Floats) -> Floats:
        """The mid-quantile at `level` `[R]`."""
        lower, upper, share = self.around(level)
        ends = self.distinct[lower], self.distinct[np.minimum(upper, len(self.distinct) - 1)]
        return np.asarray(ends[0] + share * (ends[1] - ends[0]))

    def _mid(self, index: npt.NDArray[np.int64]) -> Floats:
        return np.asarray(
            (self.below[index, self.sample] - self.counts[index, self.sample] / 2.0) / self.n
        )

    def _present(self, index: npt.NDArray[np.int64], step: int) -> npt.NDArray[np.int64]:
        """The next index in the direction of `step` whose value the sample has; beyond the ends
        where there is none.
        """
        k, index = len(self.distinct), index.copy()
        while True:
            inside = (index >= 0) & (index < k)
            missing = inside & (self.counts[np.clip(index, 0, k - 1), self.sample] == 0)
            if not missing.any():
                return index
            index[missing] += step


def _sizes(values: Callable[[Any], tuple[Floats, Floats]], stretch: Any) -> list[int]:
    return [len(side) for side in values(stretch)]


def _by_side(
    values: Callable[[Any], tuple[Floats, Floats]], stretch: Any
) -> list[tuple[int, Floats]]:
    return list(enumerate(values(stretch)))


def _ties(
    values: Callable[[Any], tuple[Floats, Floats]], heres: Sequence[float], stretch: Any
) -> list[int]:
    """How many units of each arm have one value."""
    pairs = zip(values(stretch), heres, strict=True)
    return [int(np.count_nonzero(side == here)) for side, here in pairs]


def quantile_moments(control: Floats, treatment: Floats, level: float, *, paired: bool) -> Moments:
    """Moments of the `level` mid-quantile of users in both arms; variance NaN where a sample has no
    spread there. df are infinite.
    """
    both = (control, treatment)
    return moments_over(lambda function: iter([function(both)]), tuple, level, paired=paired)


def moments_over(
    over: Pass, values: Callable[[Any], tuple[Floats, Floats]], level: float, *, paired: bool
) -> Moments:
    """The same of the `values` of both arms in stretches of the units. The mid-quantile and its
    spread rest on the values around it alone: no others are put together.
    """
    sizes = np.sum(list(over(partial(_sizes, values))), axis=0).tolist()
    ends = _ends_around(over, values, level, sizes)
    found = list(over(partial(_near, values, ends)))
    sides = []
    for side in range(len(sizes)):
        near, counts = map(np.concatenate, zip(*(one[side] for one in found), strict=True))
        distinct, index = np.unique(near, return_inverse=True)
        weights = np.bincount(index, counts, len(distinct))
        sides.append(mid_quantile(distinct, weights[:, None], level))
    many = _independent(*sides)
    if paired:
        products = np.sum(list(over(partial(_products_of_scores, values, sides))), axis=0)
        many = _of_twins(sides[0], sides[1], products, level)
    c, t, var_c, var_t, cov = (
        float(np.ravel(v)[0])
        for v in (many.control, many.treatment, many.var_control, many.var_treatment, many.cov)
    )
    return Moments(c, t, var_c, var_t, cov, np.inf, sizes[0], sizes[1], paired)


def _ends_around(
    over: Pass,
    values: Callable[[Any], tuple[Floats, Floats]],
    level: float,
    sizes: Sequence[int],
) -> list[tuple[float, float]]:
    """Of each arm the ends of the values at whose levels `mid_quantile` looks: the variance of a
    score with mean q is q (1 - q) at most.
    """
    ranks = {}
    for side, n in enumerate(sizes):
        reach = -NODES[0] * np.sqrt(level * (1.0 - level) / max(n - 1, 1)) * n + 1.0
        low, high = np.floor(level * n - reach), np.ceil(level * n + reach)
        ranks[side] = np.clip([low, high], 0, n - 1).astype(np.int64).tolist() if n else []
    found = selection.order_statistics(
        over, partial(_by_side, values), ranks, dict(enumerate(sizes))
    )
    return [(own[0], own[1]) if own else (np.nan, np.nan) for own in found.values()]


def _near(
    values: Callable[[Any], tuple[Floats, Floats]],
    ends: Sequence[tuple[float, float]],
    stretch: Any,
) -> list[tuple[Floats, Floats]]:
    """Of each arm the values between the ends and the next one on each side, with their counts;
    those beyond count as infinite.
    """
    found = []
    for side, (low, high) in zip(values(stretch), ends, strict=True):
        first = side[side < low].max(initial=-np.inf)
        last = side[side > high].min(initial=np.inf)
        inside = side[(side >= first) & (side <= last)]
        near, counts = np.unique(inside, return_counts=True)
        beyond = np.array([np.count_nonzero(side < first), np.count_nonzero(side > last)])
        every = np.concatenate((near, [-np.inf, np.inf])), np.concatenate((counts, beyond))
        some = every[1] > 0
        found.append((every[0][some], every[1][some].astype(np.float64)))
    return found


def _products_of_scores(
    values: Callable[[Any], tuple[Floats, Floats]], sides: Sequence[MidQuantile], stretch: Any
) -> Floats:
    own = [one.scores(side) for one, side in zip(sides, values(stretch), strict=True)]
    return np.asarray(np.einsum("nr,nr,nr->r", np.ones(own[0].shape), *own))


def estimated(
    values: Floats, level: float, units: npt.NDArray[np.int64] | None = None
) -> ArmFigure:
    """The mid-quantile of one arm, of rows that are independent or that units have several of
    (page loads of users).

    The mean score is then a ratio of sums over units, with the cluster-robust variance of one
    (Deng, Knoblich & Lu, KDD 2018, section 4: a quantile of events whose users are the units of
    randomisation), and the slope is that at its error. df are infinite.

    Args:
        values: `[rows]`.
        level: in (0, 1).
        units: `[rows]` the unit of each row, 0..n-1; None: each row its own.
    """
    n = len(values) if units is None else int(units.max(initial=-1)) + 1
    here = float(np.quantile(values, level, method="inverted_cdf")) if n else np.nan
    unknown = np.full(n, np.nan)
    beyond = values > here if level >= 0.5 else values < here
    if (np.count_nonzero(beyond) if units is None else len(np.unique(units[beyond]))) < ENOUGH:
        return ArmFigure(here, unknown, np.inf, n, f"fewer than {ENOUGH} units beyond the quantile")
    q = mid_quantile(values, np.ones((len(values), 1)), level, units)
    tied = (np.count_nonzero(values == here) - 1) / len(values)
    if tied > TIED * float(np.sqrt(q.variance[0])):
        why = f"too many values ({tied:.1%}) are {here:g}, where the quantile is"
        return ArmFigure(float(q.value[0]), unknown, np.inf, n, why)
    score = q.scores(values)[:, 0] - level
    sums = score if units is None else np.bincount(units, score, n)
    return ArmFigure(float(q.value[0]), -float(q.slope[0]) * sums / len(values), np.inf, n)


def quantile_pair(
    o: Outcomes, heads: Floats, tails: Floats, level: float, *, paired: bool
) -> tuple[Moments, Moments]:
    """Moments of a quantile under the null and the effect, as `randomise.split_pair` and
    `paired_pair` make those of means.
    """
    c, t = o.control[0], o.treatment[0]
    up, down = by_unit(heads), by_unit(tails)
    if not paired:
        base = mid_quantile(c, up, level)
        null, effect = (_independent(base, mid_quantile(v, down, level)) for v in (c, t))
        return null, effect
    exchanged = np.concatenate((c, t)), np.concatenate((t, c))
    return _twins(*exchanged, np.concatenate((up, down)), level), _twins(c, t, up + down, level)


def by_unit(weights: Floats) -> npt.NDArray[np.float32]:
    """Counts `[R, n]` as `[n, R]`: small whole numbers, so that half the memory suffices."""
    return np.ascontiguousarray(weights.T, dtype=np.float32)


def _independent(control: MidQuantile, treatment: MidQuantile) -> Moments:
    var_c, var_t = (np.square(m.slope) * m.variance for m in (control, treatment))
    return Moments(
        control.value, treatment.value, var_c, var_t, 0.0, np.inf, control.n, treatment.n, False
    )


def _twins(control: Floats, treatment: Floats, weights: Weights, level: float) -> Moments:
    """Both mid-quantiles of `weights` `[n, R]` twins, with the covariance of their scores (as Babu
    & Rao, "Joint asymptotic distribution of marginal quantiles", Journal of Multivariate Analysis
    1988, for values that differ)."""
    c, t = (mid_quantile(v, weights, level) for v in (control, treatment))
    products = np.einsum("nr,nr,nr->r", weights, c.scores(control), t.scores(treatment))
    return _of_twins(c, t, products, level)


def _of_twins(c: MidQuantile, t: MidQuantile, products: Floats, level: float) -> Moments:
    """The same of the sums `[R]` of the products of twins' scores."""
    together = products / c.n - level**2
    with np.errstate(invalid="ignore"):
        cov = c.slope * t.slope * together / (c.n - 1.0)
        var_c, var_t = (np.square(m.slope) * m.variance for m in (c, t))
    return Moments(c.value, t.value, var_c, var_t, cov, np.inf, c.n, c.n, True)
