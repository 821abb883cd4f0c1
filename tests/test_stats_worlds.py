"""The verdict over worlds on a few worlds, its integrals done again on a fine grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from simulator.stats.ensemble import FEWEST, Posterior, WorldsLift, estimate, over_worlds
from simulator.stats.verdict import Lift

LIFTS = np.array([0.03, -0.01, 0.06, 0.01, 0.02])
ERRORS = np.array([0.01, 0.02, 0.015, 0.03, 0.01])


def fine(lifts: np.ndarray, variances: np.ndarray, common: float, nodes: int = 1500) -> tuple:
    """Weights, tau, mu and its variance on a fine grid of tau, from the model's formulas."""
    k = len(lifts)
    reach = 4 * np.sqrt(max(1.0, 20 / (k - 1)))
    tau = (
        reach * np.sqrt(np.var(lifts, ddof=1) + variances.mean()) * (np.arange(nodes) + 0.5) / nodes
    )
    log_weight, mus, spreads = [], [], []
    for t in tau:
        own = variances + t**2
        mu = np.sum(lifts / own) / np.sum(1 / own)
        spread = 1 / np.sum(1 / own)
        # The likelihood with mu integrated out, over a flat prior.
        log_weight.append(
            stats.norm.logpdf(lifts, mu, np.sqrt(own)).sum() + 0.5 * np.log(2 * np.pi * spread)
        )
        mus.append(mu)
        spreads.append(spread + common)
    weight = np.exp(np.array(log_weight) - max(log_weight))
    return weight / weight.sum(), tau, np.array(mus), np.array(spreads)


@pytest.mark.parametrize("same_users", [False, True])
def test_every_figure_is_that_of_a_fine_grid(same_users: bool) -> None:
    errors = np.full(5, 0.02) if same_users else ERRORS
    found = over_worlds("click", "new", LIFTS, errors, 0.9, same_users)
    assert found is not None
    common = 0.02**2 if same_users else 0.0
    variances = errors**2 * (1e-6 if same_users else 1.0)
    weight, tau, mu, var_mu = fine(LIFTS, variances, common)

    def at(share: float, variance: np.ndarray) -> float:
        return brentq(
            lambda x: weight @ stats.norm.cdf((x - mu) / np.sqrt(variance)) - share,
            -3,
            3,
            xtol=1e-12,
        )

    def middle(share: float) -> float:
        return float(np.interp(share, np.cumsum(weight) - weight / 2, tau))

    close = {"rel": 2e-3, "abs": 1e-5}
    assert (found.metric, found.arm, found.n_worlds) == ("click", "new", 5)
    assert found.lift == pytest.approx(weight @ mu, **close)
    assert found.mean_low == pytest.approx(at(0.05, var_mu), **close)
    assert found.mean_high == pytest.approx(at(0.95, var_mu), **close)
    assert found.low == pytest.approx(at(0.05, var_mu + tau**2), **close)
    assert found.high == pytest.approx(at(0.95, var_mu + tau**2), **close)
    assert found.within == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert found.between == pytest.approx(middle(0.5), rel=0.01)
    assert found.between_low == pytest.approx(middle(0.05), rel=0.05)
    assert found.between_high == pytest.approx(middle(0.95), rel=0.02)


def test_shares_above_0_are_those_of_the_laws_moments() -> None:
    """The number of worlds above 0 given tau and mu, by a fine sum over both; the interval is that
    of the Beta law with the moments of Beta(n + 1/2, k - n + 1/2).
    """
    posterior = Posterior.of(LIFTS, ERRORS)
    share, low, high = posterior.up(0.9)
    x = np.linspace(-6, 6, 241)
    chance = posterior.weight[:, None] * stats.norm.pdf(x) / stats.norm.pdf(x).sum()
    mu = posterior.mu[:, None] + np.sqrt(posterior.var_mu)[:, None] * x
    tau = posterior.tau[:, None, None]
    pull = ERRORS**2 / (ERRORS**2 + tau**2)
    above = stats.norm.cdf((pull * mu[:, :, None] + (1 - pull) * LIFTS) / (tau * np.sqrt(pull)))
    number = above.sum(axis=2)
    mean, square = (chance * number).sum(), (chance * number**2).sum()
    noise = (chance * (above * (1 - above)).sum(axis=2)).sum()
    second = square + noise  # of the number
    assert share == pytest.approx(mean / 5, rel=1e-3)
    expected = (mean + 0.5) / 6
    # E[x (1 - x)] / 7 of Beta(n + .5, 5.5 - n), and the variance of its mean.
    inner = ((second * -1 + 5 * mean) + 0.5 * 5 + 0.25) / 36 / 7
    variance = inner + (second - mean**2) / 36
    size = expected * (1 - expected) / variance - 1
    law = stats.beta(expected * size, (1 - expected) * size)
    assert (low, high) == pytest.approx((law.ppf(0.05), law.ppf(0.95)), rel=2e-3)


def test_three_worlds_are_the_fewest() -> None:
    assert FEWEST == 3
    assert over_worlds("m", "a", [0.1, 0.2], [0.1, 0.1]) is None
    three = over_worlds("m", "a", [0.1, 0.2, 0.3], [0.1, 0.1, 0.1])
    assert three == over_worlds("m", "a", [0.1, 0.2, 0.3], [0.1, 0.1, 0.1], 0.95, False)
    assert three is not None
    assert three.lift == pytest.approx(0.2)


def test_a_grid_of_tau_reaches_as_far_as_the_posterior_falls() -> None:
    """4 spreads times sqrt(20 / (k - 1)), and 4 from 21 worlds on; 96 middles of equal steps."""
    for k, factor in ((3, 4 * np.sqrt(10)), (21, 4.0), (30, 4.0)):
        lifts = np.linspace(-1, 1, k)
        errors = np.full(k, 0.5)
        tau = Posterior.of(lifts, errors).tau
        highest = factor * np.sqrt(lifts.var(ddof=1) + 0.25)
        assert tau == pytest.approx(highest * (np.arange(96) + 0.5) / 96)


def test_quantiles_of_tau_run_straight_between_the_edges_of_its_nodes() -> None:
    one = replace(
        Posterior.of(LIFTS, ERRORS),
        tau=np.array([0.5, 1.5, 2.5]),
        weight=np.array([0.2, 0.5, 0.3]),
    )
    for share, tau in ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.45, 1.5), (0.7, 2.0), (1.0, 3.0)):
        assert one.tau_at(share) == pytest.approx(tau)


def test_a_quantile_of_a_mixture_may_lie_far_out() -> None:
    one = replace(
        Posterior.of(LIFTS, ERRORS), weight=np.array([0.999, 0.001]), mu=np.array([0.0, 50.0])
    )
    for share in (1e-6, 0.5, 0.9995):
        x = one.quantile(share, np.array([1.0, 4.0]))
        mass = 0.999 * stats.norm.cdf(x) + 0.001 * stats.norm.cdf((x - 50) / 2)
        assert mass == pytest.approx(share, abs=1e-9)


def worlds(**changes: float) -> WorldsLift:
    figures = dict.fromkeys(WorldsLift.__slots__, 0.0) | {"metric": "m", "arm": "a"} | changes
    return WorldsLift(**figures)  # type: ignore[arg-type]


def test_words_and_shares_at_their_limits() -> None:
    assert worlds(low=0.01, high=0.02).words == "up"
    assert worlds(low=-0.02, high=-0.01).words == "down"
    assert worlds(low=0.0, high=0.02).words == worlds(low=-1.0, high=0.0).words == "undecided"
    assert worlds(within=3.0, between=4.0).share_of_worlds == pytest.approx(16 / 25)
    assert worlds().share_of_worlds == 0.0


def test_a_rows_error_is_its_width_over_students() -> None:
    nan = np.nan
    row = Lift("m", "a", "user", 1.0, 1.1, 0.1, 0.0, 0.3, nan, 9.0, nan, nan, 10, nan)
    assert estimate(row) == (0.1, pytest.approx(0.3 / 2 / stats.t.ppf(0.975, 9)))
    for none in ({"low": -np.inf}, {"lift": nan}, {"df": nan}, {"low": 0.3}, {"low": 0.4}):
        assert estimate(replace(row, **none)) is None
