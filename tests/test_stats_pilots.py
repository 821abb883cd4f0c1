"""Pilots and the plans that follow from them, by hand, by numpy and by the noncentral t."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from simulator.stats import power
from simulator.stats.frames import metric_of
from simulator.stats.quantities import Quantity
from simulator.stats.randomise import Rate, draws, split_pair
from simulator.stats.unit_table import UnitTable

ONE = power.Pilot("x", 4.0, 8.0, 3.0, 0.6)
"""A pilot by hand: of users of both arms sd 8, of twins' differences 3."""


def test_shares_of_two_arms_of_a_test() -> None:
    assert (power.EQUAL_ARMS.control, power.EQUAL_ARMS.treatment) == (0.5, 0.5)
    assert power.Arms.of(["a", "b", "c"], "a", "c", None) == power.Arms(1 / 3, 1 / 3)
    given = {"a": 2.0, "b": 1.0, "c": 5.0}
    arms = power.Arms.of(["a", "b", "c"], "b", "c", given)
    assert arms == power.Arms(0.125, 0.625)
    assert (arms.factor, arms.step) == (8 + 1.6, 1)
    assert (power.Arms(1 / 3, 1 / 3).step, power.Arms(0.25, 0.25).step) == (3, 4)


def test_degrees_of_freedom_are_welchs() -> None:
    assert power.EQUAL_ARMS.df(10) == 8.0
    assert power.Arms(0.25, 0.25).df(40) == 18.0
    arms = power.Arms(0.2, 0.6)
    v, w = 1 / 8, 1 / 24
    assert arms.df(40) == pytest.approx((v + w) ** 2 / (v**2 / 7 + w**2 / 23))
    assert arms.df(5) == power.Arms(0.6, 0.2).df(5) == 0.0, "one user in an arm"
    assert arms.df(5.01) > 0.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0.0, 1.0), "mean must be a number other than 0 to speak of a relative lift; got 0.0"),
        ((np.inf, 1.0), "mean must be a number other than 0 to speak of a relative lift; got inf"),
        ((1.0, 0.0), "standard deviation must be above 0; got 0.0"),
        ((1.0, np.nan), "standard deviation must be above 0; got nan"),
        ((1.0, 1.0, None, 1.0), "correlation with the pre-period must be in (-1, 1); got 1.0"),
        ((1.0, 1.0, None, -1.0), "correlation with the pre-period must be in (-1, 1); got -1.0"),
    ],
)
def test_pilots_that_cannot_be_are_named(given: tuple[float, ...], message: str) -> None:
    with pytest.raises(power.PowerError) as error:
        power.Pilot("x", *given)  # type: ignore[arg-type]
    assert str(error.value) == f"x: the {message}"
    assert power.Pilot("x", -1.0, 1e-9, None, -0.999).designs == ("split", "cuped")


def test_errors_of_designs_by_hand() -> None:
    assert ONE.designs == ("paired", "split", "cuped")
    assert ONE.relative_error("paired", 25) == pytest.approx(3 / 4 / 5)
    assert ONE.relative_error("split", 25) == pytest.approx(16 / 4 / 5)
    assert ONE.relative_error("cuped", 25) == pytest.approx(16 * 0.8 / 4 / 5)
    far = replace(ONE, mean=-4.0, sd_difference=20.0)
    assert far.relative_error("split", 25) == far.relative_error("cuped", 25) == 1.0
    unequal = replace(ONE, arms=power.Arms(0.1, 0.4))
    assert unequal.relative_error("split", 25) == pytest.approx(np.sqrt(12.5) * 8 / 4 / 5)
    for pilot, design, why in (
        (replace(ONE, sd_difference=None), "paired",
         "x: without twins the paired design's variance is not known"),
        (replace(ONE, correlation=None), "cuped",
         "x: without a pre-period the adjusted design's variance is not known"),
    ):  # fmt: skip
        with pytest.raises(power.PowerError) as error:
            pilot.relative_error(design, 25)  # type: ignore[arg-type]
        assert str(error.value) == why
        assert design not in pilot.designs


def test_plans_have_their_degrees_of_freedom() -> None:
    arms = power.Arms(0.25, 0.25)
    found = {name: (p.df(40, arms), p.step(arms), p.divides) for name, p in power.PLANS.items()}
    assert found == {"paired": (39, 1, False), "split": (18, 4, True), "cuped": (17, 4, True)}
    assert [plan.df(2, power.EQUAL_ARMS) for plan in power.PLANS.values()] == [1, 1, 1]


def exact_power(pilot: power.Pilot, lift: float, n: int, design: Any, level: float) -> float:
    df = power.PLANS[design].df(n, pilot.arms)
    shift, q = lift / pilot.relative_error(design, n), stats.t.ppf(0.5 + level / 2, df)
    return float(stats.nct.sf(q, df, shift) + stats.nct.cdf(-q, df, shift))


@pytest.mark.parametrize("design", ["paired", "split", "cuped"])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_power_is_that_of_the_noncentral_t(design: Any, level: float) -> None:
    found = power.power(ONE, 0.3, 40, design, level)
    assert found == pytest.approx(exact_power(ONE, 0.3, 40, design, level), rel=1e-5)
    assert power.power(ONE, -0.3, 40, design, level) == found
    # One side has what both have less the wrong one, which a small lift shows.
    df = power.PLANS[design].df(40, ONE.arms)
    q, shift = stats.t.ppf(0.5 + level / 2, df), 0.02 / ONE.relative_error(design, 40)
    one = power.power(ONE, 0.02, 40, design, level, one_sided=True)
    assert one == pytest.approx(stats.nct.sf(q, df, shift), rel=1e-5)


@pytest.mark.parametrize("lift", [0.05, -0.3, 2.0, 4.0])
@pytest.mark.parametrize("design", ["paired", "split"])
def test_users_needed_are_the_fewest(lift: float, design: Any) -> None:
    """In multiples of the arms; twins one by one."""
    for pilot in (ONE, replace(ONE, arms=power.Arms(0.25, 0.25))):
        step = power.PLANS[design].step(pilot.arms)
        need = power.users_needed(pilot, lift, design, 0.7, 0.9)
        assert need % step == 0
        assert power.detectable(pilot, int(need), design, 0.7, 0.9) <= abs(lift)
        if need > 8:
            fewer = int(need) - step
            assert power.detectable(pilot, fewer, design, 0.7, 0.9) > abs(lift)


def test_no_number_of_users_finds_nothing() -> None:
    with pytest.raises(power.PowerError) as error:
        power.users_needed(ONE, 0.0, "split")
    assert str(error.value) == "x: a lift of 0 cannot be found by any number of users"
    # What 2^49 users show is within a million billions; what 2^50 show is beyond.
    within, beyond = (power.detectable(ONE, 2**k, "split") for k in (49, 50))
    assert power.users_needed(ONE, within * 1.0001, "split") == pytest.approx(2**49, rel=1e-3)
    assert power.users_needed(ONE, within * 0.9999, "split") == np.inf
    assert power.users_needed(ONE, beyond, "split") == np.inf


def past_table(paired: bool, **covariates: np.ndarray) -> UnitTable:
    """Forty units whose values have something to do with their past."""
    random = np.random.default_rng(6)
    x = random.gamma(2.0, 3.0, (2, 40))
    metrics = {name: metric_of(name, name) for name in ("x", "y")}
    pasts = {"x": x[0] + random.normal(0, 2, 40), "other": random.normal(size=40), **covariates}
    if paired:
        return UnitTable("user", ("a", "b"), metrics, {"x": x, "y": x + 1}, covariates=pasts)
    arm = np.arange(40) % 2
    tops = {"x": x[0], "y": x[1]}
    return UnitTable("user", ("a", "b"), metrics, tops, assigned=arm, covariates=pasts)


def test_a_pilot_of_twins_by_numpy() -> None:
    table = past_table(True)
    a, b = table.numerators["x"]
    found = power.pilot(table, "x", "a")
    past = table.covariates["x"]
    r = np.corrcoef(a, past)[0, 1]
    assert (found.mean, found.sd, found.sd_difference, found.correlation) == pytest.approx(
        (a.mean(), a.std(ddof=1), (b - a).std(ddof=1), r)
    )
    assert (found.metric, found.n_users) == ("x", 40)

    def error(spread: np.ndarray) -> float:
        own = np.square(spread) / np.square(spread).mean() - 1 - 2 * (a - a.mean()) / a.mean()
        return float(own.std(ddof=1) / np.sqrt(40))

    z, w = (a - a.mean()) / a.std(), (past - past.mean()) / past.std()
    assert found.log_errors == pytest.approx(
        {
            "split": error(a - a.mean()),
            "paired": error(b - a - (b - a).mean()),
            "cuped": error(z - r * w),
        }
    )
    assert power.pilot(table, "y", "b").mean == pytest.approx(table.numerators["y"][1].mean())


def test_a_pilot_of_a_split_is_of_its_control() -> None:
    table = past_table(False)
    for arm, index in (("a", 0), ("b", 1)):
        own = table.assigned == index
        x = table.numerators["x"][own]
        found = power.pilot(table, "x", arm)
        pasts = np.column_stack([table.covariates[name][own] for name in ("x", "other")])
        fit = sm.OLS(x, sm.add_constant(pasts)).fit()
        assert (found.mean, found.sd, found.sd_difference, found.n_users) == pytest.approx(
            (x.mean(), x.std(ddof=1), None, 20)
        )
        assert found.correlation == pytest.approx(np.sqrt(fit.rsquared))
        assert set(found.log_errors) == {"split", "cuped"}


def test_a_past_that_tells_nothing_is_none() -> None:
    base = past_table(True).numerators["x"][0]

    def past(table: UnitTable, metric: str = "x") -> np.ndarray | None:
        found = power.past_of(table, metric, "a", table.mapped, lambda _: base)
        return None if found is None else found(table)

    for covariates in ({"x": np.ones(40)}, {"x": np.ones(40), "other": np.ones(40)}):
        flat = past_table(True, **covariates)
        assert past(flat) is None
        assert power.pilot(flat, "x", "a").correlation is None
    declared = past_table(True)
    metric = replace(declared.metrics["x"], covariates=("other", "gone"))
    declared = replace(declared, metrics={**declared.metrics, "x": metric})
    found = past(declared)
    assert found is not None
    assert found.tolist() == declared.covariates["other"].tolist()
    nothing = replace(metric, covariates=())
    none = replace(declared, metrics={**declared.metrics, "x": nothing})
    assert past(none) is None
    assert past(past_table(True), "y") is None
    # A past that is the value itself leaves a little for a plan to divide by.
    same = power.pilot(past_table(True, x=base), "x", "a")
    assert same.correlation == 0.999999
    assert power.pilot(past_table(True, x=-base), "x", "a").correlation == -0.999999


def test_what_cannot_be_planned_is_named() -> None:
    table = past_table(True)
    p90 = replace(metric_of("p90", "x"), name="p90", quantile=0.9)
    figure = metric_of("q", Quantity(np.max, "x"))
    table = replace(
        table, metrics={**table.metrics, "p90": p90, "q": figure, "z": metric_of("z", "z")}
    )
    for metric, message in (
        ("gone", "gone: no such metric; there are x, y, p90, q, z"),
        ("p90", "p90: tests are planned for means and ratios; it is a quantile"),
        ("q", "q: tests are planned for means and ratios; it is a figure of choice"),
        ("z", "z: no data"),
    ):
        with pytest.raises(power.PowerError) as error:
            power.pilot(table, metric, "a")
        assert str(error.value) == message


def test_samples_are_of_the_users_of_the_two_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of n users in all those of other arms are not drawn, and tails are the treatment's share."""
    o = power.population(past_table(True), "x", "a", "b")
    asked = []

    def drawn(*given: Any) -> Any:
        asked.append(given)
        return iter([])

    monkeypatch.setattr(power, "draws", drawn)
    arms = power.Arms(0.1, 0.3)
    power.simulate(o, 0.1, 101, "split", 7, 3, arms=arms)
    power.simulate(o, 0.1, 101, "paired", 7, 3, arms=arms)
    assert asked == [(40, 40, 7, 3, pytest.approx(0.75)), (40, 101, 7, 3, 0.5)]


@pytest.mark.parametrize(("lift", "one_sided"), [(0.3, False), (0.3, True), (-0.3, True)])
def test_simulated_tests_are_counted(lift: float, one_sided: bool) -> None:
    o = power.population(past_table(True), "x", "a", "b")
    rate = power.simulate(o, lift, 30, "split", 50, 3, 0.8, one_sided=one_sided)
    ((heads, tails),) = draws(40, 30, 50, 3)
    m = split_pair(o.planted(lift), heads, tails)[1]
    t = (m.treatment - m.control) / np.sqrt(m.var_control + m.var_treatment)
    tail = stats.t.sf(np.abs(t) if not one_sided else np.sign(lift) * t, m.df)
    assert rate == Rate.of(int((tail < 0.1).sum()), 50)


def test_the_users_of_a_split_are_the_controls() -> None:
    table = past_table(False)
    o = power.population(table, "x", "b", "a")
    own = table.numerators["x"][table.assigned == 1]
    assert (o.metric, o.arm) == ("x", "a")
    assert o.control[0].tolist() == o.treatment[0].tolist() == own.tolist()
    assert o.control_days[0].tolist() == own[:, None].tolist()
    twins = power.population(past_table(True), "x", "b", "a")
    assert twins.treatment[0].tolist() == past_table(True).numerators["x"][0].tolist()
    assert twins.before is not None
    assert twins.before.tolist() == past_table(True).covariates["x"].tolist()


def test_a_curve_has_twenty_five_sizes_around_the_need() -> None:
    need = power.users_needed(ONE, 0.1, "split")
    curve = power.curve(ONE, 0.1, "split")
    assert (len(curve.users), curve.design, curve.simulated) == (25, "split", ())
    assert (curve.users[0], curve.users[-1]) == (int(need / 20), pytest.approx(need * 4, abs=1))
    steps = np.diff(np.log(curve.users))
    assert steps == pytest.approx(np.full(24, np.log(80) / 24), abs=0.01)
    assert curve.formula == pytest.approx([power.power(ONE, 0.1, n, "split") for n in curve.users])
    few = power.curve(ONE, 50.0, "paired")
    assert min(few.users) == 8
    assert power.curve(ONE, 1e-12, "split").users[-1] == 4 * 10**15


def test_imagined_users_are_skewed_as_gamma_and_the_rest_is_noise() -> None:
    for pilot in (ONE, replace(ONE, mean=-4.0), power.Pilot("y", 2.0, 1.0)):
        o = power.imagined(pilot)
        value, twin = o.control[0], o.treatment[0]
        assert (len(value), o.metric, o.arm) == (2000, pilot.metric, "treatment")
        assert (value.mean(), value.std()) == pytest.approx((pilot.mean, pilot.sd))
        ranks = (np.arange(2000) + 0.5) / 2000
        law = stats.gamma.ppf(ranks, (pilot.mean / pilot.sd) ** 2)
        shape = (law - law.mean()) / law.std()
        assert np.sort((value - pilot.mean) / pilot.sd * np.sign(pilot.mean)) == pytest.approx(
            shape
        )
        if pilot.sd_difference is None:
            assert (twin == value).all()
            assert o.before is None
            continue
        gap = twin - value
        assert (gap.mean(), gap.std()) == pytest.approx((0.0, 3.0), abs=1e-9)
        assert o.before is not None
        together = np.corrcoef([value, o.before, gap])
        sign = np.sign(pilot.mean)
        assert together[0, 1] == pytest.approx(0.6 * sign)
        assert (together[0, 2], together[1, 2]) == pytest.approx((0.0, 0.0), abs=1e-9)
        assert o.before.std() == pytest.approx(1.0)


def test_plans_are_for_eight_in_ten_at_95_percent_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert power.users_needed(ONE, 0.3, "split") == power.users_needed(ONE, 0.3, "split", 0.8, 0.95)
    assert power.detectable(ONE, 50, "split") == power.detectable(ONE, 50, "split", 0.8, 0.95)
    assert power.power(ONE, 0.3, 50, "split") == power.power(ONE, 0.3, 50, "split", 0.95)
    o = power.population(past_table(True), "x", "a", "b")
    asked = []
    plain = power.simulate
    monkeypatch.setattr(power, "draws", lambda *given: asked.append(given) or iter([]))
    power.simulate(o, 0.3, 40, "split")
    assert asked == [(40, 40, 2000, 0, 0.5)]

    def simulated(*given: Any, **more: Any) -> Rate:
        asked.append((given[1:], more))
        return plain(*given, **more)

    monkeypatch.setattr(power, "simulate", simulated)
    need = power.users_needed(ONE, 0.3, "split")
    curve = power.curve(ONE, 0.3, "split", population=o)
    sizes = [max(int(need * share), 8) for share in (0.25, 0.5, 1.0)]
    assert [n for n, _ in curve.simulated] == sizes
    more = {"level": 0.95, "arms": power.EQUAL_ARMS, "one_sided": False}
    assert [one for one in asked if len(one) == 2] == [
        ((0.3, n, "split", 1000), more) for n in sizes
    ]


def test_a_proportion_goes_with_its_past() -> None:
    table = past_table(True)
    bought = (table.numerators["x"] > 5).astype(float)
    found = power.pilot(replace(table, numerators={"x": bought}), "x", "a")
    assert found.correlation == pytest.approx(np.corrcoef(bought[0], table.covariates["x"])[0, 1])
    one = replace(table, numerators={"x": np.ones((2, 40))})
    with pytest.raises(power.PowerError, match="standard deviation must be above 0"):
        power.pilot(one, "x", "a")


def test_published_lifts_are_those_of_the_paper() -> None:
    """arXiv 2404.08675, section 5.5."""
    published = {"comment": 0.772, "forward": 0.336, "play": 0.143, "follow": 0.027,
                 "watch_time": 0.017}  # fmt: skip
    known = {name: share * 100 for name, share in power.PUBLISHED.items()}
    assert known == pytest.approx(published)
