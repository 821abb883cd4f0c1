"""Resampling: randomisation tests and bootstrap intervals, for those who would rather not lean on
normal theory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from policies.elementary import power
from policies.products import matmul
from simulator.stats import moments, tests
from simulator.stats.intervals import Interval
from simulator.stats.moments import Floats
from simulator.stats.randomise import CELLS
from simulator.stats.tests import Test

Bits = npt.NDArray[np.uint8]


def coins(units: int, repetitions: int, seed: int, share: float = 0.5) -> Iterator[Bits]:
    """Assignments `[R, units]` of 1 (treatment) with chance `share`, in chunks of R, as a split by
    hash makes them.
    """
    generator = np.random.default_rng([seed, units])
    chunk = max(8, CELLS // units)
    for start in range(0, repetitions, chunk):
        rows = min(chunk, repetitions - start)
        if share == 0.5:
            packed = generator.integers(0, 256, (rows, -(-units // 8)), dtype=np.uint8)
            yield np.unpackbits(packed, axis=1, count=units)
        else:
            yield (generator.random((rows, units), dtype=np.float32) < share).view(np.uint8)


def permutation(
    control: Floats, treatment: Floats, *, paired: bool, repetitions: int = 9999, seed: int = 0
) -> Test:
    """A randomisation test of no effect on any unit, with the t statistic (Fisher 1935;
    studentised, so that it also holds for equal means with unequal variances: Chung & Romano,
    "Exact and asymptotically robust permutation tests", 2013).

    Twins exchange answers by a coin; split units are assigned anew with the observed share. p = (1
    + exceedances) / (1 + repetitions).
    """
    m = (moments.paired if paired else moments.split)(control, treatment)
    observed = float(tests.t_test(m).statistic)
    if np.isnan(observed):
        return Test(np.nan, np.nan, np.nan)
    pooled = np.concatenate((control, treatment))
    n, share = (len(control), 0.5) if paired else (len(pooled), len(treatment) / len(pooled))
    count = 0
    for heads in coins(n, repetitions, seed, share):
        if paired:
            d = treatment - control
            t = t_of_twins(matmul(1.0 - 2.0 * heads, d), np.square(d).sum(), n)
        else:
            t = tests.t_test(moments.split_by(pooled, pooled, heads)).statistic
        count += as_far(t, observed)
    return Test(observed, np.nan, (1.0 + count) / (1.0 + repetitions))


def t_of_twins(sums: Floats, squares: float, n: int) -> Floats:
    """Student's t of `n` differences with random signs, from their sum `[R]` under each assignment
    and the sum of their squares, which is the same under all.
    """
    mean = sums / n
    return np.asarray(
        mean / np.sqrt(np.maximum((squares / n - np.square(mean)) / (n - 1.0), 1e-300))
    )


def as_far(t: Floats, observed: float) -> int:
    """How many of the statistics are at least as far out as the observed one."""
    with np.errstate(invalid="ignore"):
        return int(np.count_nonzero(np.abs(t) >= abs(observed) * (1.0 - 1e-12)))


def bootstrap(
    control: Floats,
    treatment: Floats,
    *,
    paired: bool,
    level: float = 0.95,
    repetitions: int = 4000,
    seed: int = 0,
) -> Interval:
    """The bias-corrected and accelerated interval of the relative lift, units drawn with
    replacement (Efron 1987; DiCiccio & Efron 1996).

    Split arms are drawn separately; the acceleration is then that of all units' influences
    together. NaN where the lift is not defined or does not vary.
    """
    if min(len(control), len(treatment)) < 2 or control.mean() == 0:
        return Interval(np.nan, np.nan)
    observed = moments.relative(control.mean(), treatment.mean())
    lifts = _bootstrapped(control, treatment, paired, repetitions, seed)
    influence = _jackknife(control, treatment, paired)
    powers = np.square(influence).sum(), (influence * influence * influence).sum()
    return accelerated(observed, lifts, powers, level)


def accelerated(
    observed: float, lifts: Floats, influences: tuple[float, float], level: float
) -> Interval:
    """The BCa interval of a lift.

    Args:
        observed: the lift.
        lifts: `[R]` of the resamples.
        influences: of all units on the lift, the sums of their squares and of their cubes; any
            scale will do.
        level: of the interval.
    """
    from scipy.special import ndtr, ndtri

    lifts = lifts[np.isfinite(lifts)]
    if not len(lifts) or np.ptp(lifts) == 0:
        return Interval(np.nan, np.nan)
    below = (np.count_nonzero(lifts < observed) + 0.5 * np.count_nonzero(lifts == observed)) / len(
        lifts
    )
    bias = ndtri(np.clip(below, 0.5 / len(lifts), 1 - 0.5 / len(lifts)))
    squares, cubes = influences
    acceleration = cubes / (6.0 * power(float(squares), 1.5))
    z = bias + ndtri(np.array([0.5 - level / 2.0, 0.5 + level / 2.0]))
    low, high = np.quantile(lifts, ndtr(bias + z / (1.0 - acceleration * z)))
    return Interval(float(low), float(high))


def _bootstrapped(
    control: Floats, treatment: Floats, paired: bool, repetitions: int, seed: int
) -> Floats:
    """Lifts of resampled units, `[repetitions]`."""
    generator = np.random.default_rng([seed, len(control)])
    lifts = []
    chunk = max(1, CELLS // max(len(control), len(treatment)))
    for start in range(0, repetitions, chunk):
        rows = min(chunk, repetitions - start)
        pick = generator.integers(0, len(control), (rows, len(control)))
        other = pick if paired else generator.integers(0, len(treatment), (rows, len(treatment)))
        lifts.append(moments.relative(control[pick].mean(axis=1), treatment[other].mean(axis=1)))
    return np.concatenate(lifts)


def _jackknife(control: Floats, treatment: Floats, paired: bool) -> Floats:
    """Influences (mean less value) of the lift without each unit in turn; split arms one after the
    other, each weighted by its size.
    """
    c, t = _without_each(control), _without_each(treatment)
    with np.errstate(divide="ignore", invalid="ignore"):
        if paired:
            lifts = np.sign(c) * (t / c)
            return np.asarray((lifts.mean() - lifts) * (len(c) - 1.0))
        by_control, by_treatment = np.sign(c) * (treatment.mean() / c), t / np.abs(control.mean())
    sides = [(v.mean() - v) * (len(v) - 1.0) / len(v) for v in (by_control, by_treatment)]
    return np.concatenate(sides)


def _without_each(values: Floats) -> Floats:
    return np.asarray((values.sum() - values) / (len(values) - 1.0))
