"""The verdict over an ensemble of worlds: worlds are as random as users.

Worlds i = 1..k are draws of what the true world may be. In each a lift y_i is estimated, with the
standard error s_i that its users give it. The model is the normal-normal one of a random-effects
meta-analysis,

    y_i ~ N(theta_i, s_i^2),    theta_i ~ N(mu, tau^2),

with flat priors on mu and on tau (Gelman, "Prior distributions for variance parameters in
hierarchical models", Bayesian Analysis 2006; Roever, "Bayesian random-effects meta-analysis using
the bayesmeta R package", Journal of Statistical Software 2020). Given tau everything is normal, so
that the posterior is a sum over a grid of tau: exact up to the grid, and nothing is drawn.

Worlds of one seed have the same users, and so one error, not k: y_i = theta_i + e, e ~ N(0, s^2).
The spread of the y_i is then that of the worlds as it stands, and e is added once, to the mean and
so to one more world: many worlds of one seed do not average their users' noise away. (The errors of
worlds that differ are not quite equal; by what they differ counts as spread, on the safe side.)

Three questions have three answers: the mean over worlds (`mean_low`, `mean_high`), the lift in one
more world such as the real one (`low`, `high`: the prediction interval of Higgins, Thompson &
Spiegelhalter, JRSS A 2009), and in how many worlds the lift is above 0 (`up`). The usual plug-in
intervals (an estimate of tau, then Student's t) leave out that tau itself is hardly known: where it
is as large as s_i, theirs for one more world cover 85 to 88% with 5 to 10 worlds, these 96 to 99%.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.stats.moments import Floats
from simulator.stats.verdict import Lift

FEWEST = 3
"""Worlds below which the spread between them cannot be told: with two, the posterior of tau under a
flat prior has no end.
"""

N_TAU, N_MU = 96, 15
"""Nodes of the grid of tau, and of mu given tau. Ten times as many change no interval by more than
a thousandth of its length.
"""


@dataclass(frozen=True, slots=True)
class WorldsLift:
    """A lift over an ensemble of worlds.

    Attributes:
        metric, arm: of what.
        n_worlds: worlds in which the lift could be estimated.
        lift: posterior mean of mu: the lift on average over worlds.
        mean_low, mean_high: its 95% interval, which more worlds make shorter.
        low, high: the 95% interval for one more world, which they do not.
        up: expected share of the n_worlds in which the true lift is above 0, so that noise within
            worlds is not counted as sign.
        up_low, up_high: 95% interval of that share among all worlds like these.
        within: standard error of a lift by its users (root of the mean variance).
        between: sd of true lifts between worlds (posterior median of tau).
        between_low, between_high: its 95% interval.
    """

    metric: str
    arm: str
    n_worlds: int
    lift: float
    mean_low: float
    mean_high: float
    low: float
    high: float
    up: float
    up_low: float
    up_high: float
    within: float
    between: float
    between_low: float
    between_high: float

    @property
    def words(self) -> str:
        """What is known of the lift in one more world: `up`, `down` or `undecided`."""
        if self.low > 0:
            return "up"
        return "down" if self.high < 0 else "undecided"

    @property
    def share_of_worlds(self) -> float:
        """The share of the variance of a lift in one more world that its users do not bring."""
        total = self.within**2 + self.between**2
        return self.between**2 / total if total > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Posterior:
    """The posterior on the grid of tau: mu given tau is N(mu, var_mu).

    Attributes:
        lifts, variances: y and s^2 of the worlds, `[k]`.
        tau: nodes, `[N]`; `weight`: their posterior probabilities; `mu`, `var_mu`: given each.
        common: variance of the error that all worlds share; 0 where each has its own.
    """

    lifts: Floats
    variances: Floats
    tau: Floats
    weight: Floats
    mu: Floats
    var_mu: Floats
    common: float = 0.0

    @classmethod
    def of(cls, lifts: Floats, errors: Floats, same_users: bool = False) -> Posterior:
        """From the lifts of k >= 3 worlds and their standard errors, of which one is above 0; the
        errors are one and the same where all worlds have the same users.
        """
        k, variances, common = len(lifts), np.square(errors), 0.0
        if same_users:
            # A thousandth of the error stays each world's own: worlds may all show one lift.
            common, variances = float(variances.mean()), 1e-6 * variances
        # The posterior of tau falls as tau^(1 - k) above the spread that is seen.
        reach = 4.0 * np.sqrt(max(1.0, 20.0 / (k - 1)))
        highest = reach * np.sqrt(lifts.var(ddof=1) + variances.mean())
        tau = highest * (np.arange(N_TAU) + 0.5) / N_TAU
        precision = 1.0 / (variances + tau[:, None] ** 2)
        var_mu = 1.0 / precision.sum(axis=1)
        mu = var_mu * (precision * lifts).sum(axis=1)
        away = precision * np.square(lifts - mu[:, None])
        log_weight = 0.5 * (np.log(var_mu) + np.log(precision).sum(axis=1) - away.sum(axis=1))
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        return cls(lifts, variances, tau, weight, mu, var_mu + common, common)

    def quantile(self, share: float, variance: Floats) -> float:
        """Where the mixture over tau of N(mu, variance) has `share` of its mass below."""
        from scipy.optimize import brentq
        from scipy.special import ndtr

        sd = np.sqrt(variance)

        def excess(x: float) -> float:
            return float(self.weight @ ndtr((x - self.mu) / sd)) - share

        ends = float((self.mu - 9 * sd).min()), float((self.mu + 9 * sd).max())
        return float(brentq(excess, *ends, xtol=1e-12))

    def tau_at(self, share: float) -> float:
        """Quantile of tau; between the nodes the cumulative probability is a straight line."""
        edges = np.append(0.0, self.tau + self.tau[0])
        return float(np.interp(share, np.append(0.0, np.cumsum(self.weight)), edges))

    def up(self, level: float) -> tuple[float, float, float]:
        """Expected share of the worlds whose true lift is above 0, and an interval of that share
        among all worlds like these.

        Given tau and mu the theta_i are independent normals, pulled from y_i towards mu as far as
        s_i is large beside tau. The number of those above 0 has a mean and a variance over all
        nodes; the share among all worlds given that number n is Beta(n + 1/2, k - n + 1/2)
        (Jeffreys), and the interval is that of the Beta distribution with the moments of the
        mixture.
        """
        from scipy.special import betaincinv, ndtr

        k = len(self.lifts)
        nodes, chances = np.polynomial.hermite_e.hermegauss(N_MU)
        mu = self.mu[:, None] + np.sqrt(self.var_mu)[:, None] * nodes
        weight = self.weight[:, None] * (chances / chances.sum())
        pull = self.variances / (self.variances + self.tau[:, None] ** 2)
        shared = (np.sqrt(self.common) * nodes)[None, :, None]
        own = (1.0 - pull)[:, None, :] * (self.lifts + shared)
        centre = pull[:, None, :] * mu[:, :, None] + own
        sd = self.tau[:, None] * np.sqrt(pull)
        with np.errstate(divide="ignore"):  # a world without error is where it is seen
            above = ndtr(centre / sd[:, None, :])
        number = above.sum(axis=2)
        noise = (above * (1.0 - above)).sum(axis=2)
        mean = float((weight * number).sum())
        spread = float((weight * (noise + np.square(number - mean))).sum())
        share = (mean + 0.5) / (k + 1.0)
        square = spread + mean**2
        of_beta = ((k - mean + 0.5) * (mean + 0.5) - spread) / ((k + 1.0) ** 2 * (k + 2.0))
        variance = of_beta + (square - mean**2) / (k + 1.0) ** 2
        size = share * (1.0 - share) / variance - 1.0
        tails = (1 - level) / 2, (1 + level) / 2
        low, high = (float(betaincinv(share * size, (1 - share) * size, x)) for x in tails)
        return mean / k, low, high


def over_worlds(
    metric: str,
    arm: str,
    lifts: Sequence[float],
    errors: Sequence[float],
    level: float = 0.95,
    same_users: bool = False,
) -> WorldsLift | None:
    """The lift over worlds.

    Args:
        metric, arm: of what.
        lifts: of each world.
        errors: standard errors of the lifts, each within its world.
        level: of all intervals.
        same_users: all worlds have the same seed, and so the same users.

    Returns:
        None of fewer than three worlds.
    """
    if len(lifts) < FEWEST:
        return None
    estimates, variances = np.asarray(lifts, dtype=np.float64), np.square(errors)
    posterior = Posterior.of(estimates, np.asarray(errors, dtype=np.float64), same_users)
    new = posterior.var_mu + np.square(posterior.tau)
    tails = (1 - level) / 2, (1 + level) / 2
    mean_low, mean_high = (posterior.quantile(x, posterior.var_mu) for x in tails)
    low, high = (posterior.quantile(x, new) for x in tails)
    between = [posterior.tau_at(x) for x in (0.5, *tails)]
    return WorldsLift(
        metric,
        arm,
        len(estimates),
        float(posterior.weight @ posterior.mu),
        mean_low,
        mean_high,
        low,
        high,
        *posterior.up(level),
        float(np.sqrt(variances.mean())),
        *between,
    )


def estimate(row: Lift) -> tuple[float, float] | None:
    """A row of a verdict as (lift, standard error): the width of its 95% interval over that of
    Student's t. None where it has no finite interval.
    """
    from scipy.special import stdtrit

    width = row.high - row.low
    if not np.isfinite([row.lift, width, row.df]).all() or width <= 0:
        return None
    return row.lift, width / (2.0 * float(stdtrit(row.df, 0.975)))
