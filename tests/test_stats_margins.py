"""Margins on moments given by hand: every p by scipy, answers on both sides of each limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from simulator.log.metrics import Absolute, MetricError, metric
from simulator.stats import intervals, margins
from simulator.stats.margins import Margin, Margins, answer_compared, one_sided
from simulator.stats.moments import Moments
from simulator.stats.unit_table import TableError

ONE = Moments(10.0, 10.5, 0.04, 0.05, 0.01, 30.0, 40, 40, True)
MORE = metric("click")
LESS = metric("hate")


def p_of(m: Moments, theta: float, shift: float = 0.0) -> float:
    """p of treatment - theta control against its being above `shift`."""
    variance = m.var_treatment - 2 * theta * m.cov + theta**2 * m.var_control
    return float(stats.t.sf((m.treatment - theta * m.control - shift) / np.sqrt(variance), m.df))


def test_one_sided_p_is_that_of_a_combination_of_the_means() -> None:
    for bound in (-0.1, 0.0, 0.08):
        above = p_of(ONE, 1 + bound)
        assert one_sided(ONE, bound, above=True) == pytest.approx(above)
        assert one_sided(ONE, bound, above=False) == pytest.approx(1 - above)
        # Of a control below 0 the bound is a share of its size.
        lost = replace(ONE, control=-10.0)
        assert one_sided(lost, bound, above=True) == pytest.approx(p_of(lost, 1 - bound))
    shifted = p_of(ONE, 1.0, 0.3)
    assert one_sided(ONE, Absolute(0.3), above=True) == pytest.approx(shifted)
    assert one_sided(ONE, Absolute(0.3), above=False) == pytest.approx(1 - shifted)


def test_of_a_control_that_may_be_0_the_larger_p_of_both_signs_counts() -> None:
    """It may be where the interval beside the answer (1 - 2 alpha) holds 0."""
    for alpha in (0.05, 0.2):
        at = stats.t.ppf(1 - alpha, 30) * 0.2
        for control, signs in ((at * 1.001, (1,)), (at * 0.999, (1, -1)), (-at * 1.001, (-1,))):
            m = replace(ONE, control=control)
            expected = max(p_of(m, 1 + sign * 0.4) for sign in signs)
            assert one_sided(m, 0.4, above=True, alpha=alpha) == pytest.approx(expected)
    near = replace(ONE, control=-stats.t.ppf(0.95, 30) * 0.2 * 0.999, treatment=0.2)
    assert one_sided(near, -0.4, above=True) == one_sided(near, -0.4, above=True, alpha=0.05)
    assert one_sided(near, -0.4, above=True) > one_sided(near, -0.4, above=True, alpha=0.2)


def test_without_variance_there_is_no_p() -> None:
    still = replace(ONE, var_control=0.0, var_treatment=0.0, cov=0.0)
    assert np.isnan(one_sided(still, 0.1, above=True))
    # Of two variances that cancel 1e-12 is rounding.
    for rest, is_none in ((0.5e-12, True), (4e-12, False)):
        m = replace(ONE, var_control=1.0, var_treatment=1.0, cov=1.0 - rest)
        assert bool(np.isnan(one_sided(m, Absolute(0.1), above=True))) is is_none


def test_kinds_of_margins_are_their_one_sided_tests() -> None:
    m, alpha = ONE, 0.2
    below, above = 1 - p_of(m, 1.1), p_of(m, 0.9)
    assert margins.equivalence(m, 0.1) == pytest.approx(max(below, above))
    assert margins.equivalence(replace(m, treatment=9.2), 0.1) == pytest.approx(
        p_of(replace(m, treatment=9.2), 0.9)
    )
    in_units = max(1 - p_of(m, 1.0, 0.6), p_of(m, 1.0, -0.6))
    assert margins.equivalence(m, Absolute(0.6), alpha) == pytest.approx(in_units)
    assert margins.non_inferiority(m, 0.02) == pytest.approx(p_of(m, 0.98))
    assert margins.non_inferiority(m, Absolute(0.3)) == pytest.approx(p_of(m, 1.0, -0.3))
    assert margins.non_inferiority(m, 0.02, False) == pytest.approx(1 - p_of(m, 1.02))
    assert margins.harm(m, 0.02) == pytest.approx(1 - p_of(m, 0.98))
    assert margins.harm(m, 0.02, False) == pytest.approx(p_of(m, 1.02))
    # By alpha the sign of a control near 0 is known or not.
    near = [replace(m, control=control, treatment=0.2) for control in (0.3, -0.3)]
    for of in (margins.equivalence, margins.non_inferiority, margins.harm):
        for one in near:
            assert of(one, 0.4) == of(one, 0.4, alpha=0.05)
        if of is not margins.harm:  # whose larger p is that of the sign which is there
            assert any(of(one, 0.4, alpha=0.3) < of(one, 0.4) for one in near)
    named = {"equivalence": margins.equivalence, "non-inferiority": margins.non_inferiority}
    for name, of in named.items():
        for bad in (0.0, -0.1):
            with pytest.raises(TableError, match=f"^{name}: the margin must be above 0; got {bad}"):
                of(m, bad)
    assert margins.shown(0.05) == pytest.approx(0.9)
    assert (margins.side(MORE), margins.side(LESS)) == ("greater", "less")


def answers(m: Moments | None, asked: Margins, alpha: float = 0.05) -> list[Margin]:
    return answer_compared(lambda *_: m, ["new"], {"click": MORE, "hate": LESS}, asked, alpha)


@pytest.mark.parametrize("name", ["click", "hate"])
def test_a_guardrail_turns_where_its_tests_do(name: str) -> None:
    """Its margin at either end of the interval beside it."""
    sign = 1 if name == "click" else -1
    for alpha in (0.05, 0.2):
        low, high = (float(x) for x in intervals.fieller(ONE, 1 - 2 * alpha))
        # A margin is positive: what loses is a treatment below (or, of what is hated, above).
        m = replace(ONE, treatment=9.5 if sign > 0 else 10.5)
        low, high = (float(x) for x in intervals.fieller(m, 1 - 2 * alpha))
        safe, harmed = (-low, -high) if sign > 0 else (high, low)
        for margin, answer in (
            (safe * 1.001, "safe"), (safe * 0.999, "not shown"), (harmed * 1.001, "not shown"),
            (harmed * 0.999, "harmed"),
        ):  # fmt: skip
            (one,) = answers(m, Margins({name: margin}), alpha)
            assert one == Margin(
                "guardrail", name, "new", margin, float(m.lift), 1 - 2 * alpha, low, high,
                margins.non_inferiority(m, margin, sign > 0, alpha), one.p, answer,
            )  # fmt: skip


def test_equivalences_are_corrected_by_holm_over_all_of_them() -> None:
    wide = float(max(abs(x) for x in intervals.fieller(ONE, 0.9)))
    asked = Margins({}, {"click": wide * 1.0001, "hate": 0.5})
    first, second = answers(ONE, asked)
    p = [margins.equivalence(ONE, one) for one in asked.equivalence.values()]
    assert p[0] < 0.05
    holm = multipletests(p, method="holm")[1]
    assert [one.p for one in (first, second)] == pytest.approx(p)
    assert [one.p_adjusted for one in (first, second)] == pytest.approx(holm)
    assert (first.answer, second.answer) == ("equivalent", "equivalent")
    half = answers(ONE, Margins({}, {"click": wide * 1.0001, "hate": wide * 0.9}))
    assert [one.answer for one in half] == ["not shown", "not shown"], "p of .05 is doubled"
    (alone,) = answers(ONE, Margins({}, {"click": wide * 0.9999}))
    assert alone.answer == "not shown"
    (alone,) = answers(ONE, Margins({}, {"click": wide * 1.0001}))
    assert (alone.answer, alone.kind, alone.level) == ("equivalent", "equivalence", 0.9)


def test_margins_in_units_have_students_interval_and_no_note() -> None:
    unclear = replace(ONE, control=0.1)
    one, two = answers(unclear, Margins({"click": Absolute(0.5)}, {"hate": 0.5}))
    low, high = intervals.difference(unclear, 0.9)
    assert (one.absolute, one.low, one.high, one.note) == (True, low, high, "")
    assert one.lift == pytest.approx(10.4)
    assert (two.absolute, two.low, two.high) == (False, -np.inf, np.inf)
    assert two.note == intervals.unbounded(unclear, 0.9)
    assert two.note


def test_no_data_and_arms_that_are_identical_have_their_answers_without_p() -> None:
    asked = Margins({"click": 0.1}, {"hate": 0.1})
    nothing = replace(ONE, control=np.nan, treatment=np.nan)
    for m in (None, nothing):
        for one in answers(m, asked):
            assert one.answer == "no data"
            assert np.isnan([one.lift, one.low, one.high, one.p, one.p_adjusted]).all()
    (half, _) = answers(replace(ONE, control=np.nan), asked)
    assert half.answer == "not shown"
    same = Moments(3.0, 3.0, 0.0, 0.0, 0.0, 9.0, 10, 10, True)
    guard, alike = answers(same, asked)
    assert (guard.answer, alike.answer) == ("safe", "equivalent")
    for one in (guard, alike):
        assert (one.lift, one.low, one.high, one.note) == (0.0, 0.0, 0.0, "")
        assert np.isnan([one.p, one.p_adjusted]).all()
    (moved, _) = answers(replace(same, treatment=4.0), asked)
    assert moved.answer == "not shown"
    (varied, _) = answers(replace(same, var_control=0.1), asked)
    assert not np.isnan(varied.p)


def test_guardrails_come_first_arm_by_arm() -> None:
    asked = Margins({"click": 0.1, "hate": 0.2}, {"click": 0.3})
    found = answer_compared(lambda m, arm: ONE if arm == "x" else None, ["x", "y"],
                            {"click": MORE, "hate": LESS}, asked)  # fmt: skip
    told = [(one.kind, one.arm, one.metric, one.margin, one.answer == "no data") for one in found]
    assert told == [
        ("guardrail", "x", "click", 0.1, False),
        ("guardrail", "x", "hate", 0.2, False),
        ("guardrail", "y", "click", 0.1, True),
        ("guardrail", "y", "hate", 0.2, True),
        ("equivalence", "x", "click", 0.3, False),
        ("equivalence", "y", "click", 0.3, True),
    ]
    for bad in (Margins({"no": 0.1}), Margins({}, {"no": 0.1})):
        with pytest.raises(TableError) as refusal:
            answers(ONE, bad)
        assert str(refusal.value) == "margin: no metric 'no'; there are ['click', 'hate']"
    unknown = replace(MORE, higher_is_better=None)
    with pytest.raises(TableError, match="guardrail: "):
        answer_compared(lambda *_: ONE, ["x"], {"click": unknown}, Margins({"click": 0.1}))
    assert answer_compared(lambda *_: ONE, ["x"], {"click": unknown}, Margins({}, {"click": 0.1}))


def test_margins_and_roles_are_made_to_say_the_same() -> None:
    metrics = {"click": MORE, "hate": replace(LESS, role="guardrail", margin=0.3)}
    planned, asked = margins.planned(metrics, Margins({"click": 0.1}, {"hate": 0.2}))
    assert (planned["click"].role, planned["click"].margin) == ("guardrail", 0.1)
    assert asked == Margins({"click": 0.1, "hate": 0.3}, {"hate": 0.2})
    assert margins.planned(metrics, None)[1] == Margins({"hate": 0.3}, {})
    for bad in (0.0, 1.5):
        with pytest.raises(MetricError) as refusal:
            margins.planned(metrics, Margins({}, {"hate": bad}))
        assert str(refusal.value).startswith("equivalence: the margin of 'hate' must be ")
        assert str(refusal.value).endswith(f"; got {bad:g}")
