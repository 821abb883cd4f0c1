"""Intervals of lifts and differences from moments given by hand, at their limits and past them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from simulator.stats import intervals
from simulator.stats.intervals import Interval
from simulator.stats.moments import Moments, split

INF, NAN = np.inf, np.nan
WELL = Moments(10.0, 12.0, 0.25, 0.36, 0.1, 20.0, 50, 50, True)
"""Means 10 and 12, far from 0."""


def lines(m: Moments, critical: float) -> np.ndarray:
    """Fieller's ends: the roots of (t - theta c)^2 = q^2 (v_t - 2 theta cov + theta^2 v_c)."""
    q2 = critical**2
    return np.sort(
        np.roots(
            [
                m.control**2 - q2 * m.var_control,
                -2 * (m.control * m.treatment - q2 * m.cov),
                m.treatment**2 - q2 * m.var_treatment,
            ]
        )
    )


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_fiellers_ends_are_the_roots_of_its_conic(level: float) -> None:
    q = stats.t.ppf(0.5 + level / 2, 20)
    assert intervals.fieller(WELL, level) == pytest.approx(tuple(lines(WELL, q) - 1))
    assert intervals.fieller(WELL, 0.5, critical=q) == pytest.approx(tuple(lines(WELL, q) - 1))
    # A control below 0: the same ratios, and lifts with the sign of the difference.
    lost = replace(WELL, control=-10.0, treatment=-12.0)
    assert intervals.fieller(lost, level) == pytest.approx(tuple(1 - lines(WELL, q)[::-1]))


def test_defaults_are_95_percent() -> None:
    for of in (intervals.fieller, intervals.delta, intervals.log_delta, intervals.difference):
        assert of(WELL) == of(WELL, 0.95)
    flags = proportions(3, 10, 7, 12)
    assert intervals.newcombe(flags) == intervals.newcombe(flags, 0.95)
    assert intervals.difference_by(flags, "newcombe") == intervals.difference_by(
        flags, "newcombe", 0.95
    )
    assert intervals.unbounded(replace(WELL, control=1.0)) == intervals.unbounded(
        replace(WELL, control=1.0), 0.95
    )


def test_fieller_is_unbounded_where_the_control_may_be_0_and_nan_without_data() -> None:
    q = stats.t.ppf(0.975, 20)
    at = q * 0.5  # the control's mean is q standard errors away from 0
    for control, ends in ((at * 0.999, (-INF, INF)), (at * 1.001, None)):
        found = intervals.fieller(replace(WELL, control=control))
        assert found == ends if ends else np.isfinite(found).all()
    for missing in ({"control": NAN}, {"treatment": NAN}, {"cov": NAN}, {"var_control": NAN}):
        assert np.isnan(intervals.fieller(replace(WELL, **missing))).all()
    # The roots are there, and the set lies outside of them: still all that is known.
    assert intervals.fieller(replace(WELL, control=0.1)) == (-INF, INF)


def test_the_width_of_fiellers_set_keeps_its_digits_with_millions_of_units() -> None:
    control, treatment, var_c, var_t, cov, q = 25.91, 26.15, 2.3e-7, 2.5e-7, 1.1e-7, 1.96
    m = replace(
        WELL, control=control, treatment=treatment, var_control=var_c, var_treatment=var_t, cov=cov
    )
    with localcontext() as context:
        context.prec = 60
        c, t, vc, vt, k, z = map(Decimal, (control, treatment, var_c, var_t, cov, q))
        a, b, e = c * c - z * z * vc, c * t - z * z * k, t * t - z * z * vt
        root = (b * b - a * e).sqrt()
        ends = [float((b - root) / a - 1), float((b + root) / a - 1)]
    found = intervals.fieller(m, critical=q)
    assert found.high - found.low == pytest.approx(ends[1] - ends[0], rel=2e-11)
    assert found == pytest.approx(ends, abs=1e-15)


def test_a_quantile_of_next_to_no_degree_of_freedom_bounds_nothing() -> None:
    """Warnings are errors here: products of its squares overflow."""
    m = split(np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.0, 5.0]))
    with np.errstate(over="raise"):
        assert intervals.fieller(m, critical=1e100) == (-np.inf, np.inf)


def test_many_comparisons_at_once_are_each_by_itself() -> None:
    controls = np.array([10.0, -10.0, 0.1, NAN, 3.0])
    many = replace(WELL, control=controls)
    for of in (intervals.fieller, intervals.delta, intervals.log_delta, intervals.newcombe):
        low, high = of(many, 0.9)
        for place, control in enumerate(controls):
            one = of(replace(WELL, control=control), 0.9)
            assert (low[place], high[place]) == pytest.approx(one, nan_ok=True)


def test_one_sided_ends_open_the_side_that_nothing_is_asked_of() -> None:
    ends = Interval(-0.1, 0.3)
    assert intervals.opened(ends, "two-sided") == (-0.1, 0.3)
    assert intervals.opened(ends, "greater") == (-0.1, INF)
    assert intervals.opened(ends, "less") == (-INF, 0.3)
    nothing = Interval(NAN, NAN)
    for side in ("greater", "less"):
        assert np.isnan(intervals.opened(nothing, side)).all()  # type: ignore[arg-type]
    assert intervals.two_sided(0.95, "two-sided") == 0.95
    assert intervals.two_sided(0.95, "greater") == intervals.two_sided(0.95, "less")
    assert intervals.two_sided(0.95, "less") == pytest.approx(0.9)


def proportions(x: int, n: int, y: int, m: int) -> Moments:
    c, t = np.zeros(n), np.zeros(m)
    c[:x] = t[:y] = 1.0
    return split(c, t)


@pytest.mark.parametrize("counts", [(3, 10, 9, 12), (0, 10, 4, 8), (5, 5, 0, 9), (40, 80, 50, 60)])
@pytest.mark.parametrize("level", [0.8, 0.99])
def test_newcombes_difference_is_statsmodels(counts: tuple[int, ...], level: float) -> None:
    x, n, y, m = counts
    theirs = confint_proportions_2indep(y, m, x, n, method="newcomb", alpha=1 - level)
    found = intervals.difference_by(proportions(*counts), "newcombe", level)
    assert found == pytest.approx(theirs, abs=1e-9)


def test_other_methods_and_other_means_have_students_difference() -> None:
    flags = proportions(3, 10, 9, 12)
    student = intervals.difference(flags, 0.9)
    half = stats.t.ppf(0.95, flags.df) * np.sqrt(flags.variance)
    assert student == pytest.approx((flags.difference - half, flags.difference + half))
    for method in ("fieller", "log", "delta"):
        assert intervals.difference_by(flags, method, 0.9) == student  # type: ignore[arg-type]
    assert intervals.difference_by(WELL, "newcombe", 0.9) == intervals.difference(WELL, 0.9)
    assert intervals.newcombe(WELL, 0.9) == intervals.fieller(WELL, 0.9)


def test_newcombes_z_is_where_its_interval_begins_to_hold_0() -> None:
    for counts, sign in (((3, 10, 9, 12), 1), ((9, 12, 3, 10), -1)):
        flags = proportions(*counts)
        z = float(intervals.newcombe_z(flags))
        assert np.sign(z) == sign
        at = intervals.newcombe_difference(flags, abs(z))
        assert (at.low if sign > 0 else at.high) == pytest.approx(0.0, abs=1e-12)
    assert intervals.newcombe_z(proportions(3, 10, 3, 10)) == 0.0
    # So far apart that no quantile of a double is enough.
    assert intervals.newcombe_z(proportions(0, 9000, 9000, 9000)) == pytest.approx(38.0)
    assert intervals.newcombe_z(proportions(9000, 9000, 0, 9000)) == pytest.approx(-38.0)


def test_newcombes_lift_has_an_upper_end_where_the_controls_lower_end_is_above_0() -> None:
    assert intervals.newcombe(proportions(0, 10, 0, 10)) == (-INF, INF)
    for x, n, m in ((1, 10, 10), (3, 7, 11), (29, 30, 17)):
        low, high = intervals.newcombe(proportions(x, n, 0, m))
        assert low == pytest.approx(-1.0), "of a treatment of zeros all may be lost"
        assert -1.0 < high < 10.0
    both = intervals.newcombe(proportions(10, 10, 10, 10))
    wilson = stats.norm.ppf(0.975) ** 2 / 10
    end = 1 / (1 + wilson)  # Wilson's lower end of 10 of 10
    assert both == pytest.approx((end - 1, 1 / end - 1))


def test_flags_are_known_by_their_variance_within_rounding() -> None:
    """p (1 - p) / (n - 1) is the variance of the mean; 1e-9 of it is rounding, 1e-6 is not."""
    p, n = 0.3, 10
    variance = p * (1 - p) / (n - 1)
    flags = Moments(p, p, variance, variance, 0.0, 18.0, n, n, False)
    assert intervals.is_proportion(flags)
    for side in ("var_control", "var_treatment"):
        assert intervals.is_proportion(replace(flags, **{side: variance * (1 + 5e-10)}))
        for factor in (1 + 1e-6, 1 - 1e-6, 2.0, 0.5):
            assert not intervals.is_proportion(replace(flags, **{side: variance * factor}))
    # At 0 and at 1 there is no variance; beyond them p (1 - p) is below 0.
    for p in (0.0, 1.0):
        assert intervals.is_proportion(Moments(p, p, 0.0, 0.0, 0.0, 18.0, n, n, False))
    for p in (-0.5, 1.5):
        beyond = Moments(p, p, p * (1 - p) / 9, p * (1 - p) / 9, 0.0, 18.0, n, n, False)
        assert not intervals.is_proportion(beyond)
        for side in ("control", "treatment"):
            assert not intervals.is_proportion(
                replace(flags, **{side: p, f"var_{side}": p * (1 - p) / 9})
            )
    assert not intervals.is_proportion(replace(flags, control=NAN))


def test_a_log_interval_needs_means_of_one_sign() -> None:
    for control, treatment in (
        (10.0, -12.0),
        (10.0, -5.0),
        (0.0, 12.0),
        (10.0, 0.0),
        (-10.0, 12.0),
    ):
        found = intervals.log_delta(replace(WELL, control=control, treatment=treatment))
        assert np.isnan(found).all()


WHY = (
    "the control's mean is not distinguishable from 0 at 95%, so no bounded interval of the"
    " relative lift exists"
)


def test_what_an_unbounded_set_excludes_is_said() -> None:
    assert intervals.unbounded(WELL) is None
    assert intervals.unbounded(replace(WELL, control=NAN)) is None
    # A treatment far from 0 over a control near 0: some ratios are left out, by either sign.
    m = Moments(0.1, 12.0, 0.25, 0.36, 0.0, INF, 50, 50, False)
    q = stats.norm.ppf(0.975)
    low, high = lines(m, q) - 1
    gap = min(high, -low)
    assert intervals.unbounded(m) == (
        f"{WHY}: only lifts between {-gap:+.1%} and {gap:+.1%} are excluded"
    )
    # The same with the signs turned, and the narrower side from above and from below.
    for turned in (replace(m, control=-0.1), replace(m, treatment=-12.0)):
        low, high = lines(turned, q) - 1
        gap = min(high, -low)
        assert f"between {-gap:+.1%} and {gap:+.1%} are" in str(intervals.unbounded(turned))
    # The gap does not reach 0 from both sides, or there is none.
    none = f"{WHY}: every lift is compatible with the data"
    assert intervals.unbounded(replace(m, treatment=1.2)) == none
    assert intervals.unbounded(replace(m, treatment=0.1)) == none
    assert intervals.unbounded(m, 0.5) is not None
    assert "at 50%" in str(intervals.unbounded(m, 0.5))


def test_a_control_that_is_just_q_errors_from_0_is_unbounded() -> None:
    """a = 0: one root, and no gap."""
    q = float(intervals.quantile(INF, 0.95))
    m = Moments(q, 12.0, 1.0, 0.36, 0.0, INF, 50, 50, False)
    assert intervals.unbounded(m) == f"{WHY}: every lift is compatible with the data"
    assert intervals.fieller(m) == (-INF, INF)


def test_variances_of_lifts_by_hand() -> None:
    # (.36 - 2 1.2 .1 + 1.44 .25) / 100, and .36 / 144 + .25 / 100 - 2 .1 / 120.
    assert intervals.lift_variance(WELL) == pytest.approx(0.0048)
    assert intervals.log_variance(WELL) == pytest.approx(0.0025 + 0.0025 - 1 / 600)
    # Where rounding makes it less than 0 the interval is the lift itself.
    twins = replace(WELL, treatment=10.0, var_treatment=0.25, cov=0.25 * (1 + 1e-9))
    assert intervals.delta(twins) == (0.0, 0.0)
    assert intervals.log_delta(twins) == (0.0, 0.0)


def test_every_method_has_its_title_and_its_ground() -> None:
    assert {
        "fieller": intervals.fieller,
        "log": intervals.log_delta,
        "delta": intervals.delta,
        "newcombe": intervals.newcombe,
    } == intervals.METHODS
    assert intervals.TITLES.keys() == intervals.GROUNDS.keys() == intervals.METHODS.keys()
