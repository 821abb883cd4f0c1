"""Wrong analyses and daily looks counted on a few samples, each sample written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from simulator.log.metrics import chosen
from simulator.stats import looking, sequential, spending, wrong
from simulator.stats.randomise import Outcomes, Rate, draws, outcomes
from simulator.stats.user_days import UserDays

N, DAYS = 24, 3


def user_days(n_days: int = DAYS, metrics: tuple[str, ...] = ("click", "watch_time")) -> UserDays:
    """Users of three arms: what lasts differs between them, and days add to it."""
    random = np.random.default_rng(7)
    own = random.gamma(3.0, 2.0, (1, N, 1))
    terms = {
        "click": random.poisson(own, (3, N, n_days)),
        "watch": own * random.gamma(2.0, 1.0, (3, N, n_days)),
        "impressions": random.poisson(3 * own, (3, N, n_days)) + 1,
        "like": np.zeros((3, N, n_days)),
    }
    of = {m.name: m for m in chosen(metrics)}
    terms["watch_time"] = terms["watch"]
    return UserDays(("old", "new", "newer"), N, n_days, of, terms, {})


def counts(repetitions: int, seed: int = 2) -> list[tuple[np.ndarray, np.ndarray]]:
    """Heads and tails `[users]` of each sample."""
    return [
        pair
        for chunk in draws(N, N, repetitions, seed)
        for pair in zip(*(side.astype(int) for side in chunk), strict=True)
    ]


def t_of(sides: list[np.ndarray]) -> float:
    a, b = sides
    return (b.mean() - a.mean()) / np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))


def by_hand(days: UserDays, case: str, alpha: float, repetitions: int, name: str) -> int:
    """How many samples a wrong analysis rejects."""
    o = outcomes(days, "old", "new", name)
    c, t = o.control_days[0], o.treatment_days[0]
    z, n_days, rejected = stats.norm.isf(alpha / 2), c.shape[1], 0
    for heads, tails in counts(repetitions):
        if "with z" in case:
            one, other = heads @ c + tails @ t, heads @ t + tails @ c
            found = stats.ttest_rel(other, one).statistic
            rejected += abs(found) > z
        elif "user-days" in case:
            sides = [np.repeat(c, w, axis=0).ravel() for w in (heads, tails)]
            means = [side.mean() for side in sides]
            # The variance of a mean of independent user-days.
            error = sum(side.var(ddof=1) / len(side) for side in sides)
            rejected += abs(means[1] - means[0]) > z * np.sqrt(error)
        else:
            so_far = np.cumsum(c, axis=1)
            sides = [np.repeat(so_far, w, axis=0) for w in (heads, tails)]
            rejected += any(
                stats.ttest_ind(sides[1][:, d], sides[0][:, d], equal_var=False).pvalue < alpha
                for d in range(n_days)
            )
    return rejected


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_each_wrong_analysis_rejects_the_samples_that_it_would(alpha: float) -> None:
    days, repetitions = user_days(), 40
    found = wrong.wrong_analyses(days, "old", repetitions, 2, alpha)
    assert [(one.analysis, one.metric) for one in found] == [
        *((case, name) for name in ("watch_time", "click") for case in (
            "3 days with z", "user-days as independent", "3 peeks")),
        ("impressions as independent", "click_rate"),
    ]  # fmt: skip
    for one in found[:-1]:
        count = by_hand(days, one.analysis, alpha, repetitions, one.metric)
        assert 0 < count < repetitions, one
        assert one.error == Rate.of(count, repetitions), one
    clicks, shown = (days.terms[name][0].sum(axis=1) for name in ("click", "impressions"))
    z, count = stats.norm.isf(alpha / 2), 0
    for heads, tails in counts(repetitions):
        a, b, n, m = heads @ clicks, tails @ clicks, heads @ shown, tails @ shown
        p = (a + b) / (n + m)
        count += abs(b / m - a / n) > z * np.sqrt(p * (1 - p) / n + p * (1 - p) / m)
    assert 0 < count < repetitions
    assert found[-1].error == Rate.of(count, repetitions)
    assert found[2].why == f"stopping at the first daily p < {alpha:g}"
    if alpha == 0.05:
        assert found == wrong.wrong_analyses(days, "old", repetitions, 2)


def test_on_one_day_and_of_what_is_missing_there_is_no_wrong_analysis() -> None:
    one_day = wrong.wrong_analyses(user_days(1), "old", 20, 0)
    assert [one.analysis for one in one_day] == ["impressions as independent"]
    days = user_days()
    no_watch = {name: cube for name, cube in days.terms.items() if "watch" not in name}
    without = UserDays(days.arms, N, DAYS, days.metrics, no_watch, {})
    assert {one.metric for one in wrong.wrong_analyses(without, "old", 20, 0)} == {
        "click", "click_rate"
    }  # fmt: skip
    del no_watch["impressions"]
    assert {one.metric for one in wrong.wrong_analyses(without, "old", 20, 0)} == {"click"}


def covariance_of_looks(
    o: Outcomes, heads: np.ndarray, tails: np.ndarray, paired: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Difference of means so far `[days]` and its covariance, of one sample."""
    c, t = np.cumsum(o.control_days[0], axis=1), np.cumsum(o.treatment_days[0], axis=1)
    if paired:
        d = np.concatenate((np.repeat(t - c, heads, axis=0), np.repeat(c - t, tails, axis=0)))
        return d.mean(axis=0), np.cov(d.T) / len(d)
    sides = [np.repeat(c, w, axis=0) for w in (heads, tails)]
    difference = sides[1].mean(axis=0) - sides[0].mean(axis=0)
    return difference, sum(np.cov(side.T) / len(side) for side in sides)


@pytest.mark.parametrize("alpha", [0.05, 0.4])
def test_each_rule_stops_the_samples_that_it_would(alpha: float) -> None:
    days, repetitions = user_days(metrics=("click", "like", "click_rate")), 80
    found = looking.looking(days, "old", repetitions, 2, alpha)
    assert [(one.rule, one.metric, one.design) for one in found] == [
        (rule, "click", design) for design in ("paired", "split") for rule in looking.RULES
    ], "what does not vary and ratios are left out"
    o = outcomes(days, "old", "new", "click")
    for design in ("paired", "split"):
        z, information = [], []
        for heads, tails in counts(repetitions):
            difference, cov = covariance_of_looks(o, heads, tails, design == "paired")
            sd = np.sqrt(np.diag(cov))
            z.append(np.abs(difference) / sd)
            r = np.diag(cov, 1) / (sd[1:] * sd[:-1])
            information.append(sequential.clock(r))
        typical = np.median(information, axis=0).tolist()
        share = [1 / 3, 2 / 3, 1.0]
        bounds = {
            "always_valid": sequential.mixture_boundary(np.array(information), 1.0, alpha),
            "obrien_fleming": spending.boundaries("obrien-fleming", share, typical, alpha),
            "pocock": spending.boundaries("pocock", share, typical, alpha),
        }
        for one in (one for one in found if one.design == design):
            count = int((np.array(z) > bounds[one.rule]).any(axis=1).sum())
            assert one.error == Rate.of(count, repetitions), one
            assert count > 0 or alpha == 0.05
    if alpha == 0.05:
        assert found == looking.looking(days, "old", repetitions, 2)


def test_one_day_is_no_series_of_looks_and_what_is_missing_is_not_looked_at() -> None:
    assert looking.looking(user_days(1), "old", 5, 0) == ()
    days = user_days(2)
    assert {one.metric for one in looking.looking(days, "old", 5, 0)} == {"click", "watch_time"}
    without = UserDays(
        days.arms, N, 2, days.metrics, {"click": days.terms["click"]}, {}
    )  # fmt: skip
    assert {one.metric for one in looking.looking(without, "old", 5, 0)} == {"click"}


def test_samples_in_which_a_look_says_nothing_stop_nowhere() -> None:
    cov = np.stack([np.eye(2), np.diag([0.0, 1.0])])
    difference = np.array([[9.0, 9.0], [9.0, 9.0]])
    assert looking._stopped(difference, cov, 0.05) == dict.fromkeys(looking.RULES, 1)
    assert looking._stopped(difference[1:], cov[1:], 0.05) == dict.fromkeys(looking.RULES, 0)
