"""Launches: what real tests of the past say of a simulator's lifts, and so of the next real lift.

The true lift R of a launch is a + b M + e, with M the simulator's true lift and e what the
simulator does not know, normal with standard deviation tau. Both lifts are measured with normal
noise of known size, and M is normal around mu with standard deviation omega (the structural model
of errors in both variables: Fuller, Measurement Error Models, 1987, section 1.3; with a prior it is
the hierarchical model of Gelman et al., Bayesian Data Analysis, 2013, chapter 5).

Given b, tau and omega everything is normal, and mu and a are integrated exactly; b, tau and omega
by a grid. So nothing is drawn, and the same launches give the same bytes.

Priors: mu and a are flat. A spread x, tau or omega, has the density sqrt(sum_i 1 / (s_i^2 + x^2)),
with the noise s_i of the lifts that it is beneath: flat where noise hides it, and 1 / x, Jeffreys',
where noise does not matter. A forecast then has the t quantiles with n - 2 degrees of freedom that
a regression's has where nothing is noisy, and those of Higgins, Thompson & Spiegelhalter (J. R.
Stat. Soc. A 172, 2009, section 4) and Partlett & Riley (Stat. Med. 36, 2017) where the simulator
says nothing. Bodnar et al. (Stat. Med. 36, 2017) derive the reference prior of one such spread,
which is x sqrt(sum_i 1 / (s_i^2 + x^2)^2): it is 0 at 0, and its intervals are too wide for a
simulator that knows nearly everything. b is normal around 1 with the standard deviation
sqrt(1 + (s_R / s_M)^2), s_R and s_M being the standard deviations of the measured lifts: the
simulator may be right, know nothing, exaggerate, or make everything small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import groupby
from typing import Literal

import numpy as np

from simulator.stats.moments import Floats
from simulator.stats.unit_table import TableError

FEWEST = 5
"""Fewer launches say nothing of a slope and of a spread about it."""

SLOPES = np.linspace(-5.0, 5.0, 81)
"""Nodes of (b - 1) in the first grid, in standard deviations of its prior."""

SPREADS = np.geomspace(0.01, 12.0, 25)
"""Nodes of tau / s_R and omega / s_M in it. The second grid has as many nodes, evenly over what the
launches leave of each parameter.
"""

LEFT = 1e-6
"""Of the largest weight of a node: what weighs less is not in the second grid."""

PROMISED = 0.5
"""The least skill of a simulator that is right: half of how real lifts vary."""

Verdict = Literal["foretells", "foretells the opposite", "wrong", "not known"]


@dataclass(frozen=True)
class Launch:
    """A test of the past, beside the same in the simulator.

    Attributes:
        name: of the test.
        real, real_error: its lift, a fraction, and its standard error.
        simulated, simulated_error: the simulator's lift of the same, and its standard error.
    """

    name: str
    real: float
    real_error: float
    simulated: float
    simulated_error: float


@dataclass(frozen=True)
class Estimated:
    """A figure with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """What the real lift will be, of which the simulator has measured its own.

    Attributes:
        value: the mean, shrunk by what the simulator has been worth.
        low, high: of the interval.
        better: the probability that the real lift is above 0.
    """

    value: float
    low: float
    high: float
    better: float


@dataclass(frozen=True)
class Relation:
    """What launches say of a simulator.

    Attributes:
        launches: how many.
        signs: share of launches whose measured lifts have the same sign (exact interval: Clopper &
            Pearson 1934).
        rank: Spearman's correlation of the measured lifts (interval: Bonett & Wright, Psychometrika
            2000).
        slope: b, real lift for each unit of simulated lift.
        spread: tau, what the simulator does not know of a real lift (a fraction).
        skill: the share of how real lifts vary that simulated ones explain, taken as they are or
            shrunk: the most of 1 - var(R - c M) / var(R) over c in 0..1, of true lifts (the skill
            score of Murphy, Mon. Weather Rev. 116, 1988, against one and the same lift for all).
            Lifts that must be enlarged count as they are: who says that all policies do alike
            where they differ has no skill.
        rises: the probability that b is above 0.
        verdict: `foretells the opposite` where the slope is shown to be below 0; else `wrong` where
            a skill of PROMISED is excluded; else `foretells` where the slope is shown to be above
            0; else `not known`.
    """

    launches: int
    signs: Estimated
    rank: Estimated
    slope: Estimated
    spread: Estimated
    skill: Estimated
    rises: float
    verdict: Verdict


class Calibrator:
    """A simulator that was held against launches.

    Args:
        launches: at least FEWEST, of one metric.
        level: of the intervals of the relation; `forecast` has its own.

    Raises:
        TableError: too few launches, a number that is not finite, a standard error that is not
            above 0, or lifts that are all the same.
    """

    def __init__(self, launches: Sequence[Launch], level: float = 0.95) -> None:
        self.launches, self.level = tuple(launches), level
        if len(launches) < FEWEST:
            rule = f"at least {FEWEST} launches are needed to say what the simulator is worth"
            raise TableError(f"{rule}; got {len(launches)}")
        for one in launches:
            numbers = one.real, one.simulated, one.real_error, one.simulated_error
            if not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
                rule = "lifts must be finite and standard errors above 0"
                raise TableError(f"launch {one.name!r}: {rule}; got {numbers}")
        self._real = np.array([one.real for one in launches])
        self._simulated = np.array([one.simulated for one in launches])
        self._real_noise = np.square([one.real_error for one in launches])
        self._simulated_noise = np.square([one.simulated_error for one in launches])
        spreads = self._real.std(ddof=1), self._simulated.std(ddof=1)
        for what, spread in zip(("real", "simulated"), spreads, strict=True):
            if not spread > 0:
                raise TableError(f"the {what} lifts of all launches are the same")
        self._s_real, self._s_simulated = map(float, spreads)
        self._b_prior = math.hypot(1.0, self._s_real / self._s_simulated)
        axes = 1.0 + SLOPES * self._b_prior, SPREADS * self._s_real, SPREADS * self._s_simulated
        self._fit(axes)
        self._fit(tuple(self._left_of(axis, i) for i, axis in enumerate(axes)))

    def _left_of(self, axis: Floats, i: int) -> Floats:
        """As many nodes, evenly over the part of the `i`-th axis of the grid that has weight."""
        others = tuple(j for j in range(3) if j != i)
        weight = self._weight.reshape(len(SLOPES), len(SPREADS), len(SPREADS)).sum(axis=others)
        heavy = np.flatnonzero(weight > LEFT * weight.max())
        low, high = axis[max(heavy[0] - 1, 0)], axis[min(heavy[-1] + 1, len(axis) - 1)]
        return np.linspace(low, high, len(axis))

    def _fit(self, axes: tuple[Floats, ...]) -> None:
        """The law of (b, tau, omega) on a grid, given the launches, and of (mu, a) given these."""
        b, tau, omega = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
        self._b, self._tau, self._omega = b, tau, omega
        priors = [-0.5 * np.square((axes[0] - 1.0) / self._b_prior)]
        for axis, noise in zip(axes[1:], (self._real_noise, self._simulated_noise), strict=True):
            priors.append(0.5 * np.log(sum(1.0 / (np.square(axis) + one) for one in noise)))
        # Nodes of a grid may lie unevenly: each stands for its own share.
        widths = [np.log(np.gradient(axis)) for axis in axes]
        log = (reduce(np.add, np.ix_(*priors)) + reduce(np.add, np.ix_(*widths))).ravel()
        # Sums over launches of the precisions V^-1 (2 x 2) and of V^-1 z, z = (simulated, real).
        p_mm, p_mr, p_rr, c_m, c_r = np.zeros((5, len(b)))
        of_simulated, v_mr = np.square(omega), b * np.square(omega)
        of_real = np.square(b * omega) + np.square(tau)
        launches = zip(
            self._simulated_noise, self._real_noise, self._simulated, self._real, strict=True
        )
        for (u, s), alike in groupby(launches, lambda launch: launch[:2]):
            v_mm, v_rr = of_simulated + u, of_real + s
            det = v_mm * v_rr - np.square(v_mr)
            log_det, i_mm, i_mr, i_rr = np.log(det), v_rr / det, -v_mr / det, v_mm / det
            for _, _, m, r in alike:
                log -= 0.5 * (log_det + i_mm * m**2 + 2.0 * i_mr * m * r + i_rr * r**2)
                p_mm += i_mm
                p_mr += i_mr
                p_rr += i_rr
                c_m += i_mm * m + i_mr * r
                c_r += i_mr * m + i_rr * r
        # The means are (mu, a + b mu): precision and right side of (mu, a).
        a_mm = p_mm + 2.0 * b * p_mr + np.square(b) * p_rr
        a_ma = p_mr + b * p_rr
        a_aa = p_rr
        d_m, d_a = c_m + b * c_r, c_r
        det = a_mm * a_aa - np.square(a_ma)
        self._v_mm, self._v_ma, self._v_aa = a_aa / det, -a_ma / det, a_mm / det
        self._mu = self._v_mm * d_m + self._v_ma * d_a
        self._a = self._v_ma * d_m + self._v_aa * d_a
        log += 0.5 * (d_m * self._mu + d_a * self._a - np.log(det))
        weight = np.exp(log - log.max())
        self._weight = weight / weight.sum()

    def relation(self) -> Relation:
        """What the launches say of the simulator."""
        slope, skill = self._quantiles(self._b), self._skill()
        verdict: Verdict = "not known"
        if slope.high < 0:
            verdict = "foretells the opposite"
        elif skill.high < PROMISED:
            verdict = "wrong"
        elif slope.low > 0:
            verdict = "foretells"
        return Relation(
            len(self.launches),
            self._signs,
            self._rank,
            slope,
            self._quantiles(self._tau),
            skill,
            float(self._weight[self._b > 0].sum()),
            verdict,
        )

    def forecast(self, simulated: float, error: float, level: float = 0.9) -> Forecast:
        """The real lift of a policy that was not launched.

        Args:
            simulated: its lift in the simulator, a fraction.
            error: its standard error there.
            level: of the interval.
        """
        # How much of a simulated lift is not noise.
        kept = np.square(self._omega) / (np.square(self._omega) + error**2)
        to_mu = self._b * (1.0 - kept)
        mean = self._a + self._b * kept * simulated + to_mu * self._mu
        variance = (
            np.square(self._b * self._omega) * (1.0 - kept)
            + np.square(self._tau)
            + np.square(to_mu) * self._v_mm
            + 2.0 * to_mu * self._v_ma
            + self._v_aa
        )
        return self._mixture(mean, np.sqrt(variance), level)

    def _mixture(self, mean: Floats, deviation: Floats, level: float) -> Forecast:
        """Of a mixture of normals with the weights of the grid."""
        from scipy.optimize import brentq
        from scipy.special import ndtr

        # What weighs nothing is left out: the sum is the same to 1e-12, and ten times as fast.
        heavy = self._weight > 1e-12 * self._weight.max()
        weight, mean, deviation = self._weight[heavy], mean[heavy], deviation[heavy]
        weight = weight / weight.sum()

        def below(x: float) -> float:
            return float((weight * ndtr((x - mean) / deviation)).sum())

        value = float((weight * mean).sum())
        reach = 12.0 * float(deviation.max()) + float(np.abs(mean - value).max())
        tail = (1.0 - level) / 2.0
        low, high = (
            float(brentq(lambda x, p=p: below(x) - p, value - reach, value + reach, xtol=1e-10))
            for p in (tail, 1.0 - tail)
        )
        return Forecast(value, low, high, 1.0 - below(0.0))

    def _quantiles(self, values: Floats) -> Estimated:
        """Median and interval of a parameter, whose density is straight between nodes."""
        nodes, place = np.unique(values, return_inverse=True)
        density = np.bincount(place, weights=self._weight) / np.gradient(nodes)
        pieces = np.diff(nodes) * (density[1:] + density[:-1]) / 2.0
        below = np.concatenate(([0.0], np.cumsum(pieces)))
        tail = (1.0 - self.level) / 2.0
        value, low, high = np.interp((0.5, tail, 1.0 - tail), below / below[-1], nodes)
        return Estimated(float(value), float(low), float(high))

    def _skill(self) -> Estimated:
        """Median and interval of the skill."""
        scale = np.clip(self._b, 0.0, 1.0)
        real = np.square(self._tau) + np.square(self._b * self._omega)
        missed = np.square(self._tau) + np.square((self._b - scale) * self._omega)
        skill = 1.0 - missed / real
        order = np.argsort(skill, kind="stable")
        below = np.cumsum(self._weight[order])
        tail = (1.0 - self.level) / 2.0
        at = np.searchsorted(below, np.array((0.5, tail, 1.0 - tail)) * below[-1])
        value, low, high = skill[order[at]]
        return Estimated(float(value), float(low), float(high))

    @cached_property
    def _signs(self) -> Estimated:
        from scipy.stats import beta

        n = len(self.launches)
        same = int((np.sign(self._real) == np.sign(self._simulated)).sum())
        tail = (1.0 - self.level) / 2.0
        low = float(beta.ppf(tail, same, n - same + 1)) if same else 0.0
        high = float(beta.ppf(1.0 - tail, same + 1, n - same)) if same < n else 1.0
        return Estimated(same / n, low, high)

    @cached_property
    def _rank(self) -> Estimated:
        from scipy.stats import norm, rankdata

        ranks = rankdata(self._real), rankdata(self._simulated)
        rho = float(np.corrcoef(*ranks)[0, 1])
        z = math.atanh(min(max(rho, -1 + 1e-12), 1 - 1e-12))
        reach = float(norm.ppf(0.5 + self.level / 2.0)) * math.sqrt(
            (1.0 + rho**2 / 2.0) / (len(self.launches) - 3)
        )
        return Estimated(rho, math.tanh(z - reach), math.tanh(z + reach))
