"""Users, fits and worlds at the least CPU time: closed forms, and planned power realised."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from simulator.report.allocations import costs, method_plan
from simulator.stats import allocation, moments, replication, tests, units
from simulator.stats.allocation import Costs, Requirement, Spread
from simulator.stats.power import EQUAL_ARMS, Arms, PowerError
from simulator.stats.replication import Components, Dealing
from simulator.stats.user_days import UserDays


def spread(users: float, fits: float, interaction: float, worlds: float | None = None) -> Spread:
    """Components of a control whose mean is 1, from 500 users and 4 fits."""
    parts = Components(users, fits, interaction, n_users=500, n_fits=4)
    return Spread.of(parts, 1.0, worlds)


def test_components_are_relative_to_the_control_and_known_as_well_as_their_degrees_of_freedom() -> (
    None
):
    parts = Components(users=50.0, fits=2.0, interaction=100.0, n_users=500, n_fits=4)
    one = Spread.of(parts, -5.0)
    assert (one.users, one.fits, one.interaction) == (2.0, 0.08, 4.0)
    of_users = 100.0 / 500
    for end, tail in zip(one.fits_ends, (0.975, 0.025), strict=True):
        by_hand = (2.0 + of_users) * 3 / stats.chi2.ppf(tail, 3) - of_users
        assert end == pytest.approx(by_hand / 25)
    assert one.users_ends[0] < one.users < one.users_ends[1]
    below = Spread.of(Components(50.0, -2.0, math.nan, 500, 4), 5.0)
    assert below.fits == 0.0
    assert below.fits_ends[0] == 0.0
    assert below.dealings == ("divided",)
    with pytest.raises(PowerError, match="must be a number other than 0"):
        Spread.of(parts, 0.0)


def test_intervals_of_the_fits_variance_hold_it() -> None:
    rng = np.random.default_rng(1)
    held = []
    for _ in range(400):
        own = rng.normal(0, 0.5, 5)[:, None] + rng.normal(0, 2.0, (5, 100)) + 10.0
        parts = [moments.paired(np.full(100, 10.0), values) for values in own]
        pooled = moments.paired(np.full(500, 10.0), own.ravel())
        made_of = replication.divided(pooled, parts).components
        assert made_of is not None
        low, high = Spread.of(made_of, 10.0).fits_ends
        held.append(low <= 0.5**2 / 100 <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=4 * np.sqrt(0.05 * 0.95 / 400))


@pytest.mark.parametrize(("ratio", "lift"), [(4.0, 0.03), (100.0, 0.02), (2500.0, 0.02)])
def test_divided_users_per_fit_are_those_of_sampling_in_two_stages(
    ratio: float, lift: float
) -> None:
    """n / F = sqrt(A f / (B u)) where fits are many."""
    one = spread(1.0, 0.01, math.nan)
    plans = allocation.frontier(one, "divided", Costs(fit=ratio, user=1.0), Requirement(lift))
    best = allocation.cheapest(plans)
    assert best is not None
    assert best.n_fits > 40
    assert best.n_users / best.n_fits == pytest.approx(math.sqrt(ratio / 0.01), rel=0.15)
    assert best.seconds == pytest.approx(min(ratio * p.n_fits + p.n_users for p in plans))


def test_crossed_users_are_those_of_two_stages_where_users_alone_differ_in_nothing() -> None:
    """Without a user effect each fit has its own sample: n = sqrt(E f / (B u)) users of each."""
    one = spread(0.0, 0.01, 1.0)
    plans = allocation.frontier(one, "crossed", Costs(fit=16.0, user=1.0), Requirement(0.02))
    best = allocation.cheapest(plans)
    assert best is not None
    assert best.n_fits > 40
    assert best.n_users == pytest.approx(math.sqrt(16.0 / 0.01), rel=0.15)


@pytest.mark.parametrize("n_fits", [2, 3, 10])
def test_few_fits_are_judged_by_the_noncentral_t(n_fits: int) -> None:
    one = spread(1.0, 0.02, math.nan)
    shown = allocation.detectable(one, "divided", 400, n_fits, 1, Requirement(0.1, 0.8))
    shift = shown / math.sqrt(0.02 / n_fits + 1.0 / 400)
    bound = stats.t.ppf(0.975, n_fits - 1)
    assert stats.nct.sf(bound, n_fits - 1, shift) == pytest.approx(0.8, abs=1e-3)
    assert allocation.detectable(one, "divided", 400, 1, 1, Requirement(0.1)) == math.inf


@pytest.mark.parametrize("dealing", ["divided", "crossed"])
@pytest.mark.parametrize("n_fits", [4, 8])
def test_planned_power_is_realised(dealing: Dealing, n_fits: int) -> None:
    """Tests of the methods on data with the planned components, users and fits."""
    one = spread(0.6, 0.004, 0.5)
    lift = 0.2
    n = int(allocation.users_needed(one, dealing, n_fits, Requirement(lift)))
    n += -n % n_fits
    rng, repetitions = np.random.default_rng(n_fits), 800
    found = 0
    for _ in range(repetitions):
        y = (
            1.0
            + lift
            + rng.normal(0, math.sqrt(0.6), n)
            + rng.normal(0, math.sqrt(0.004), (n_fits, 1))
        )
        y = y + rng.normal(0, math.sqrt(0.5), (n_fits, n))
        base = np.ones(n)
        if dealing == "crossed":
            pooled = moments.paired(base, y.mean(axis=0))
            sample = moments.sample([base, *y])
            columns = [(1 + f, None) for f in range(n_fits)]
            result = replication.crossed_pairs(pooled, sample, [(0, None)] * n_fits, columns)
        else:
            own = y[np.arange(n) % n_fits, np.arange(n)].reshape(-1, n_fits)
            parts = [moments.paired(base[: len(own)], own[:, f]) for f in range(n_fits)]
            result = replication.divided(moments.paired(base, own.ravel()), parts)
        assert result.methods is not None
        found += tests.t_test(result.methods).p < 0.05
    assert found / repetitions == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / repetitions))


def test_users_needed_show_the_lift_and_fewer_do_not() -> None:
    one, goal = spread(1.0, 0.001, 0.5), Requirement(0.1, 0.9, 0.99)
    for dealing in one.dealings:
        for n_fits in (5, 12):
            n = allocation.users_needed(one, dealing, n_fits, goal)
            assert allocation.detectable(one, dealing, n, n_fits, 1, goal) <= 0.1
            assert allocation.detectable(one, dealing, 0.99 * n, n_fits, 1, goal) > 0.1
    assert allocation.users_needed(one, "divided", 2, goal) == math.inf
    hopeless = allocation.frontier(
        spread(1.0, 5.0, math.nan), "divided", Costs(1, 1), Requirement(1e-3)
    )
    assert hopeless == []


def test_a_plan_says_what_users_and_fits_would_do() -> None:
    """Where fits are nearly all, twice the users change little; fits that differ more cost more."""
    one = spread(0.1, 0.01, math.nan)
    planned = allocation.plan(one, "divided", Costs(10.0, 0.1), Requirement(0.1))
    assert planned.share_of_fits == pytest.approx(0.0025 / (0.0025 + 0.1 / 500))
    assert planned.with_fits < 0.75 * planned.shows
    assert 0.95 * planned.shows < planned.with_users < planned.shows
    assert planned.best is not None
    assert planned.cautious is not None
    assert planned.cautious.seconds > planned.best.seconds
    assert planned.cautious.n_fits > planned.best.n_fits


def test_over_worlds_fits_and_users_are_of_each_world() -> None:
    one, goal = spread(1.0, 0.01, math.nan, worlds=0.02), Requirement(0.2)
    shown = allocation.detectable(one, "divided", 200, 2, 6, goal)
    standard_error = math.sqrt((1 / 200 + 0.01 / 2 + 0.02) / 6)
    shift = shown / standard_error
    assert stats.nct.sf(stats.t.ppf(0.975, 5), 5, shift) == pytest.approx(0.8, abs=1e-3)
    cost = Costs(fit=3.0, user=0.5, world=7.0)
    assert cost.of("divided", 200, 2, 6) == 6 * (7 + 2 * 3 + 200 * 0.5)
    assert cost.of("crossed", 200, 2, 6) == 6 * (7 + 2 * 3 + 2 * 200 * 0.5)
    planned = allocation.plan(one, "divided", cost, goal)
    assert planned.over_worlds is not None
    best = planned.over_worlds
    sizes = best.n_users, best.n_fits, best.n_worlds
    assert allocation.detectable(one, "divided", *sizes, goal) <= 0.2
    for n_worlds in range(3, 60):
        plans = allocation.frontier(one, "divided", cost, goal, n_worlds)
        assert all(p.seconds >= best.seconds for p in plans)
    few = allocation.frontier(one, "divided", cost, goal, n_worlds=10)
    assert few[0].n_fits == 1
    assert all(p.n_worlds == 10 and 0 < p.share_of_fits < 1 for p in few)


@pytest.mark.parametrize("dealing", ["divided", "crossed"])
def test_worlds_of_one_seed_do_not_average_their_users_away(dealing: Dealing) -> None:
    """Their users' and fits' noise is one error: a thousand worlds show no more than one
    without any spread between them.
    """
    own = replace(spread(1.0, 0.01, 0.5), worlds=0.02)
    one, goal = replace(own, same_users=True), Requirement(0.2)
    alone = allocation.detectable(own, dealing, 200, 4, 1, goal)
    many = allocation.detectable(one, dealing, 200, 4, 1000, goal)
    assert alone < many < 1.01 * alone
    assert allocation.detectable(own, dealing, 200, 4, 1000, goal) < alone / 5
    assert allocation.detectable(one, dealing, 200, 1, 5, goal) == math.inf
    plans = [
        allocation.plan(each, dealing, Costs(3.0, 0.5, 7.0), goal).over_worlds
        for each in (own, one)
    ]
    assert all(plan is not None for plan in plans)
    apart, together = (plan for plan in plans if plan is not None)
    assert together.seconds > apart.seconds
    sizes = together.n_users, together.n_fits, together.n_worlds
    assert allocation.detectable(one, together.dealing, *sizes, goal) <= 0.2
    assert together.n_fits >= 2


@pytest.mark.parametrize("n_worlds", [4, 12])
def test_the_power_over_worlds_of_one_seed_is_realised(n_worlds: int) -> None:
    """On lifts with the planned parts: one error of users and fits, a draw for each world."""
    one = replace(spread(1.0, 0.004, math.nan), worlds=0.02, same_users=True)
    n_users, n_fits = 2000, 10
    lift = allocation.detectable(one, "divided", n_users, n_fits, n_worlds, Requirement(1.0))
    rng, repetitions = np.random.default_rng(n_worlds), 20_000
    noise = 1.0 / n_users + 0.004 / n_fits
    shared = rng.normal(lift, math.sqrt(noise), repetitions)
    seen = shared[:, None] + rng.normal(0, math.sqrt(0.02), (repetitions, n_worlds))
    between = seen.var(axis=1, ddof=1) / n_worlds
    known = noise * rng.chisquare(n_fits - 1, repetitions) / (n_fits - 1)
    df = n_worlds - 1, n_fits - 1
    bound = [replication.quantile(f, 0.95) for f in df]
    critical = (between * bound[0] + known * bound[1]) / (between + known)
    found = np.mean(np.abs(seen.mean(axis=1)) > critical * np.sqrt(between + known))
    assert found == pytest.approx(0.8, abs=0.03)


def test_costs_are_measured_by_the_run_or_given() -> None:
    metrics = {metric.name: metric for metric in units.chosen(["click"])}
    cube = {"click": np.ones((2, 50, 4))}
    days = UserDays(
        ("a", "b"), 50, 4, metrics, cube, {}, fits=(1, 5), fit_of_user=np.arange(50) % 5
    )
    runtime = {"fit CPU seconds": 30.0, "simulate CPU seconds": 100.0}
    assert costs(days, runtime) == Costs(fit=6.0, user=2.0)
    assert costs(days, runtime, fit_seconds=1.0) == Costs(fit=1.0, user=2.0)
    assert costs(days, runtime, user_day_seconds=0.1) == Costs(fit=6.0, user=0.4)
    assert costs(days, None) is None
    assert costs(days, None, 1.0, 0.1) == Costs(fit=1.0, user=0.4)
    crossed = replace(days, fit_of_user=None, lives=(days,) * 5)
    assert costs(crossed, runtime) == Costs(fit=6.0, user=2.0 / 5)
    once = replace(crossed, fitted_once=frozenset({"a"}))
    of_once = costs(once, runtime)
    assert of_once is not None
    assert of_once.user == pytest.approx(2.0 / 3)  # one life and five: three for each arm
    with pytest.raises(PowerError, match="seconds of a fit must be a number above 0"):
        Costs(0.0, 1.0)


def test_a_split_with_other_shares_is_planned_for_the_variance_that_it_has() -> None:
    """Users and fits drawn for the planned shares: what a user adds goes with 1 / share, what a fit
    adds does not. The pilot had halves, and three in four are planned for the control.
    """
    parts = Components(users=400.0, fits=0.5, interaction=math.nan, n_users=1_000, n_fits=5)
    pilot = Spread.of(parts, 10.0)
    arms = Arms(0.75, 0.25)
    planned = pilot.divided_by(arms, 500, 500, 1_000)
    assert planned.users == pytest.approx(pilot.users * (1 / 0.75 + 1 / 0.25) / 4)
    assert (planned.fits, planned.fits_ends) == (pilot.fits, pilot.fits_ends)
    assert pilot.divided_by(EQUAL_ARMS, 500, 500, 1_000).users == pilot.users
    goal = Requirement(0.15)
    n_users = allocation.users_needed(planned, "divided", 5, goal)
    assert n_users > allocation.users_needed(pilot, "divided", 5, goal)
    # Drawn: a unit of each arm has variance 100, the difference of a fit's arms .5, and 5 fits.
    rng = np.random.default_rng(4)
    n = np.array([0.75, 0.25]) * n_users
    of_users = math.sqrt(100.0 / n[0] + 100.0 / n[1])
    found = []
    for _ in range(2_000):
        fits = rng.normal(0.15 * 10.0, math.sqrt(0.5 + 5 * of_users**2), 5)
        found.append(stats.ttest_1samp(fits, 0.0).pvalue < 0.05)
    assert np.mean(found) == pytest.approx(goal.target, abs=4 * math.sqrt(0.16 / 2_000))


def test_the_plan_of_methods_of_a_split_run_divides_users_as_it_is_told() -> None:
    rng = np.random.default_rng(6)
    n, n_fits = 1_200, 4
    fit = np.arange(n) % n_fits
    assigned = (np.arange(n) // n_fits) % 2
    of_fit = rng.normal(0.0, 0.3, (2, n_fits))
    clicks = rng.normal(10.0, 2.0, (2, n)) + of_fit[:, fit]
    metrics = {m.name: m for m in units.chosen(["click"])}
    days = UserDays(
        ("a", "b"),
        n,
        1,
        metrics,
        {"click": clicks[..., None]},
        {},
        assigned=assigned,
        fits=(n_fits, n_fits),
        fit_of_user=fit,
    )
    goal, costs_of = Requirement(0.05), Costs(fit=10.0, user=0.01)
    halves = method_plan(days, "click", ("a", "b"), costs_of, goal)
    ninth = method_plan(days, "click", ("a", "b"), costs_of, goal, shares=Arms(0.9, 0.1))
    assert halves is not None
    assert ninth is not None
    assert ninth.spread.users / halves.spread.users == pytest.approx((1 / 0.9 + 1 / 0.1) / 4)
    assert ninth.spread.fits == halves.spread.fits
    assert ninth.best is not None
    assert halves.best is not None
    assert ninth.best.seconds > halves.best.seconds


DIVIDED = Spread(2.0, 0.08, math.nan, (1.8, 2.3), (0.01, 0.9), 400, 4)
CROSSED = Spread(2.0, 0.08, 1.5, (1.8, 2.3), (0.01, 0.9), 400, 4)


def test_a_spread_of_components_by_chi_square() -> None:
    parts = Components(users=50.0, fits=2.0, interaction=math.nan, n_users=500.4, n_fits=4)
    one = Spread.of(parts, 5.0, 0.3, True)
    of_users = 50 * 4 / 500.4
    users = tuple(50 * 499.4 / stats.chi2.ppf(tail, 499.4) / 25 for tail in (0.975, 0.025))
    fits = tuple(
        max((2 + of_users) * 3 / stats.chi2.ppf(tail, 3) - of_users, 0.0) / 25
        for tail in (0.975, 0.025)
    )
    assert (one.users, one.fits, one.n_users, one.n_fits) == (2.0, 0.08, 500, 4)
    assert math.isnan(one.interaction)
    assert one.users_ends == pytest.approx(users)
    assert one.fits_ends == pytest.approx(fits)
    assert (one.worlds, one.same_users) == (0.3, True)
    below = Spread.of(Components(-1.0, -2.0, -3.0, 500, 4), 5.0)
    assert (below.users, below.fits, below.interaction) == (0.0, 0.0, 0.0)
    for mean in (0.0, math.nan, math.inf):
        with pytest.raises(PowerError) as error:
            Spread.of(parts, mean)
        assert str(error.value) == f"the control's mean must be a number other than 0; got {mean}"


def test_other_shares_change_what_users_add() -> None:
    arms = Arms(0.1, 0.4)
    one = CROSSED.divided_by(arms, 120.0, 80.0, 900)
    factor = (10 + 2.5) / (200 * (1 / 120 + 1 / 80))
    assert one == replace(
        CROSSED, users=factor * 2, interaction=factor * 1.5,
        users_ends=(factor * 1.8, factor * 2.3), n_users=900,
    )  # fmt: skip


def test_ways_to_deal_and_what_users_bring() -> None:
    assert (DIVIDED.dealings, CROSSED.dealings) == (("divided",), ("divided", "crossed"))
    assert DIVIDED.of_users("divided", 5) == DIVIDED.of_users("crossed", 5) == 2.0
    assert (CROSSED.of_users("divided", 5), CROSSED.of_users("crossed", 5)) == (3.5, 2.3)


@pytest.mark.parametrize(
    ("spread", "dealing", "worlds", "parts", "df"),
    [
        (DIVIDED, "divided", 1, [2 / 100 + 0.08 / 5], [4]),
        (CROSSED, "divided", 1, [3.5 / 100 + 0.08 / 5], [4]),
        (CROSSED, "crossed", 1, [0.08 / 5, 2.3 / 100], [4, 99]),
        (replace(CROSSED, worlds=0.3), "crossed", 1, [0.08 / 5, 2.3 / 100], [4, 99]),
        (replace(CROSSED, worlds=0.3), "crossed", 3,
         [(0.08 / 5 + 2.3 / 100) / 3 + 0.1], [2]),
        (replace(CROSSED, worlds=0.3, same_users=True), "crossed", 3,
         [0.1, 0.08 / 5, 2.3 / 100], [2, 4, 99]),
        (replace(DIVIDED, worlds=0.3, same_users=True), "divided", 3,
         [0.1, 2 / 100 + 0.08 / 5], [2, 4]),
        (CROSSED, "divided", 3, [(3.5 / 100 + 0.08 / 5) / 3], [2]),
    ],
)  # fmt: skip
def test_the_parts_of_the_variance(
    spread: Spread, dealing: Dealing, worlds: int, parts: list[float], df: list[int]
) -> None:
    found, known = spread.parts(dealing, 100, 5, worlds)
    assert (found, known) == (pytest.approx(parts), df)


def test_users_are_known_as_well_as_fits_at_least() -> None:
    assert CROSSED.parts("crossed", 3, 5, 1)[1] == [4, 4]


def test_costs_by_hand() -> None:
    cost = Costs(fit=3.0, user=0.5)
    assert cost.of("divided", 200, 2) == 2 * 3 + 200 * 0.5
    for name, value in (("fit", 0.0), ("user", -1.0), ("fit", math.inf), ("user", math.nan)):
        given = {"fit": 1.0, "user": 1.0} | {name: value}
        with pytest.raises(PowerError) as error:
            Costs(**given)
        assert str(error.value) == f"the seconds of a {name} must be a number above 0; got {value}"


@pytest.mark.parametrize(("n_fits", "worlds", "known"), [(1, 1, False), (2, 1, True), (1, 2, True)])
def test_one_fit_in_one_world_shows_nothing(n_fits: int, worlds: int, known: bool) -> None:
    goal = Requirement(0.1, 0.7, 0.9)
    found = allocation.detectable(DIVIDED, "divided", 100, n_fits, worlds, goal)
    assert math.isfinite(found) == known
    if known:
        variance = (2 / 100 + 0.08 / n_fits) / worlds
        q = stats.t.ppf(0.95, 1)
        assert stats.nct.sf(q, 1, found / math.sqrt(variance)) == pytest.approx(0.7, abs=1e-4)
    seeds = replace(DIVIDED, same_users=True)
    assert allocation.detectable(seeds, "divided", 100, 1, 5, goal) == math.inf


@pytest.mark.parametrize(("dealing", "least"), [("divided", 40), ("crossed", 8)])
def test_eight_users_of_each_fit_are_the_fewest(dealing: Dealing, least: int) -> None:
    assert allocation.users_needed(CROSSED, dealing, 5, Requirement(1e3)) == least
    # The search ends within a ten thousandth, or one user.
    need = allocation.users_needed(CROSSED, dealing, 5, Requirement(-0.6))
    assert need == int(need) > least
    assert allocation.detectable(CROSSED, dealing, need, 5, 1, Requirement(0.6)) <= 0.6
    fewer = need - max(2.0, 3e-4 * need)
    assert allocation.detectable(CROSSED, dealing, fewer, 5, 1, Requirement(0.6)) > 0.6


def test_numbers_of_fits_are_tried_in_growing_steps() -> None:
    found = list(allocation._numbers(2))
    assert found[:19] == list(range(2, 21))
    assert found[19:24] == [22, 24, 26, 28, 30]
    assert found[24] == 33
    assert 900 < found[-1] <= 1000
    assert list(allocation._numbers(1000)) == [1000]
    assert list(allocation._numbers(1001)) == []


def test_a_frontier_has_the_fewest_users_for_each_number_of_fits() -> None:
    goal, cost = Requirement(0.4), Costs(40.0, 0.5)
    for one, worlds, first, averaged in (
        (DIVIDED, 1, 2, 1), (replace(DIVIDED, worlds=0.01), 5, 1, 5),
        (replace(DIVIDED, worlds=0.001, same_users=True), 9, 2, 1),
    ):  # fmt: skip
        found = allocation.frontier(one, "divided", cost, goal, worlds)
        assert found[0].n_fits >= first
        assert {plan.n_worlds for plan in found} == {worlds}
        for plan in found:
            need = allocation.users_needed(one, "divided", plan.n_fits, goal, worlds)
            assert plan.n_users == need
            assert plan.seconds == worlds * (40 * plan.n_fits + 0.5 * need)
            whole = sum(one.parts("divided", need, plan.n_fits, worlds)[0])
            assert plan.share_of_fits == pytest.approx(0.08 / plan.n_fits / averaged / whole)
        fits = [plan.n_fits for plan in found]
        tried = [n for n in allocation._numbers(first) if fits[0] <= n <= fits[-1]]
        assert fits == tried
        # The next number of fits alone would cost more than the cheapest plan.
        following = next(n for n in allocation._numbers(first) if n > fits[-1])
        least = min(plan.seconds for plan in found)
        assert worlds * 40 * following > least >= worlds * 40 * fits[-1]
        assert allocation.cheapest(found) == min(found, key=lambda plan: plan.seconds)
    assert allocation.cheapest([]) is None


def test_a_plan_by_its_parts() -> None:
    goal, cost = Requirement(0.4), Costs(40.0, 0.5)
    found = allocation.plan(CROSSED, "crossed", cost, goal)
    fits, users = 0.08 / 4, (2 + 1.5 / 4) / 400
    assert found.share_of_fits == pytest.approx(fits / (fits + users))
    for value, n, n_fits in (
        (found.shows, 400, 4),
        (found.with_users, 800, 4),
        (found.with_fits, 400, 7),
    ):
        assert value == allocation.detectable(CROSSED, "crossed", n, n_fits, 1, goal)
    plans = [
        p for way in ("divided", "crossed") for p in allocation.frontier(CROSSED, way, cost, goal)
    ]
    assert list(found.frontier) == plans
    assert found.best == min(plans, key=lambda plan: plan.seconds)
    wary = replace(CROSSED, fits=0.9)
    assert found.cautious == min(
        (p for way in ("divided", "crossed") for p in allocation.frontier(wary, way, cost, goal)),
        key=lambda plan: plan.seconds,
    )
    assert (found.spread, found.costs, found.over_worlds) == (CROSSED, cost, None)
    still = replace(DIVIDED, users=0.0, fits=0.0)
    nothing = allocation.plan(still, "divided", cost, goal)
    assert math.isnan(nothing.share_of_fits)
    assert nothing.best is not None
    assert (nothing.best.n_users, math.isnan(nothing.best.share_of_fits)) == (16, True)
