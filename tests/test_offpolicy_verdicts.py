"""What is said of an estimate: how far it is to be trusted, and between which ends it lies."""

from __future__ import annotations

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from scipy import stats

from simulator.offpolicy.diagnostics import Findings, Weights, matched, modelled, weighted
from simulator.offpolicy.evidence import ReplayFacts
from simulator.offpolicy.jobs import OwnLogTruth
from simulator.offpolicy.replay import (
    Estimate,
)
from simulator.offpolicy.replay_page import _scale
from simulator.offpolicy.uncertainty import (
    EstimateInterval,
    Ratios,
    _counts,
    bernstein,
    bootstrap,
    delta,
    percentile,
)

SOUND = EstimateInterval("delta", 0.9, 1.1)


def findings(
    weights: dict[str, object] | None = None, **more: EstimateInterval | float
) -> Findings:
    """Of 1,000 rounds that nothing is to be said against, but for what is given."""
    summary = Weights(1)
    summary.shown[1] = True
    summary.wanted[1] = 1.0
    sound = {"rounds": 1000, "matched_rounds": 900, "events": 30, "total": 1000.0}
    for name, value in {**sound, "squares": 2000.0, **(weights or {})}.items():
        setattr(summary, name, value)
    facts = ReplayFacts("conditional", 1)
    zero = EstimateInterval("delta", -0.1, 0.1)
    known = {"mean_weight": SOUND, "residual": zero, "own": SOUND, "count": 50.0, **more}
    return Findings(facts, summary, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "more", "word", "reason"),
    [
        ({}, {}, "trustworthy", ""),
        ({"matched_rounds": 0}, {}, "unusable", "0 logged rounds agree with the target"),
        ({"squares": 1e6 / 49.9}, {}, "unusable", "effective sample size 49.9 of 1,000 rounds"),
        ({"squares": 1e6 / 50.1}, {}, "weak", "effective sample size 50 of 1,000 rounds"),
        ({"squares": 1e6 / 499}, {}, "weak", "effective sample size 499 of 1,000 rounds"),
        ({"squares": 1e6 / 501}, {}, "trustworthy", ""),
        ({"largest": [(51.0, 7)]}, {}, "weak", "row 7 alone carries 5% of the weight"),
        ({"largest": [(50.0, 7)]}, {}, "trustworthy", ""),
        ({"events": 29}, {}, "weak", "only 29 rounds with a reward carry it"),
        ({"shown": np.array([False, False])}, {}, "weak", "the log shows only 0% of what"),
        ({}, {"own": EstimateInterval("delta", 1, 1)}, "unusable", "every unit says the same"),
        ({}, {"own": EstimateInterval("delta", 0.66, 1.34)}, "weak", "the interval is 34% of"),
        ({}, {"own": EstimateInterval("delta", -1.34, -0.66)}, "weak", "the interval is 34% of"),
        ({}, {"own": EstimateInterval("delta", 0.67, 1.33)}, "trustworthy", ""),
        (
            {"days": {0: np.array([100, 10, 10, 1, 1]), 1: np.array([100, 90, 90, 1, 1])}},
            {},
            "weak",
            "the log's daily reward drifts (chi-square 352.0, p = 2e-78)",
        ),
    ],
)
def test_an_estimate_by_weights_is_judged_by_the_first_thing_that_is_off(
    weights: dict[str, object],
    more: dict[str, EstimateInterval],
    word: str,
    reason: str,
) -> None:
    told = weighted(findings(weights, **more), self_normalised=False)
    assert told.word == word
    assert len(told.reasons) == bool(reason)
    assert str(told).startswith(f"{word}: {reason}" if reason else word)


def test_a_mean_weight_off_one_counts_less_where_it_cancels_or_is_near() -> None:
    off = {"mean_weight": EstimateInterval("delta", 1.05, 1.3)}
    far, near = {"total": 1150.0, "squares": 2500.0}, {"total": 1090.0}
    assert weighted(findings(far, **off), self_normalised=False).word == "unusable"
    told = weighted(findings(far, **off), self_normalised=True)
    expected = "mean weight 1.15, 95% interval [1.05, 1.3], should be 1"
    assert (told.word, told.reasons) == ("weak", (expected,))
    assert weighted(findings(near, **off), self_normalised=False).word == "weak"
    below = {"total": 880.0}, {"mean_weight": EstimateInterval("delta", 0.8, 0.95)}
    assert weighted(findings(below[0], **below[1]), self_normalised=False).word == "unusable"


def test_a_model_and_what_matches_are_judged_by_what_they_rest_on() -> None:
    def residual(low: float, high: float) -> dict[str, EstimateInterval]:
        return {"residual": EstimateInterval("delta", low, high)}

    for weights, more, word, reason in (
        ({}, {}, "weak", "the log does not contradict it"),
        ({}, residual(math.nan, math.nan), "weak", "no weighted residual"),
        ({}, residual(0.1, 0.25), "unusable", "mean weighted residual is in [0.1, 0.25]"),
        ({}, residual(-0.2, -0.1), "unusable", "mean weighted residual is in [-0.2, -0.1]"),
        ({"squares": 1e6 / 49}, {}, "weak", "size 49.0: the log cannot contradict it"),
    ):
        told = modelled(findings(weights, **more))
        assert told.word == word
        (one,) = told.reasons
        assert reason in one
    hidden = modelled(findings({"shown": np.array([True, False])}))
    assert hidden.reasons[-1] == "the log shows only 0% of what the target shows"
    assert matched(findings(count=50.0), fair=True).word == "trustworthy"
    assert matched(findings(count=50.0), fair=False).word == "weak"
    few = matched(findings(count=49.0), fair=True)
    assert (few.word, few.reasons) == ("unusable", ("only 49 impressions matched",))
    none = matched(findings(count=0.0), fair=False)
    assert none.reasons == ("0 logged impressions agree with the target",)
    assert none.word == "unusable"


@pytest.mark.parametrize("units", [0, 1])
def test_fewer_than_two_units_say_nothing_of_the_error(units: int) -> None:
    few = Ratios(np.zeros((units, 1)), np.ones((units, 1)))
    assert math.isnan(few.error())
    assert math.isnan(few.distance_error(few))


def test_errors_of_ratios_are_those_of_the_jackknife_and_of_resamples() -> None:
    """Two ratios of sums, of which one is a model's: units are left out, weighed up and drawn."""
    random = np.random.default_rng(5)
    one = Ratios(random.gamma(2.0, 1.0, (40, 2)), random.gamma(3.0, 1.0, (40, 2)))
    other = Ratios(random.gamma(2.0, 1.0, (40, 1)), random.gamma(3.0, 1.0, (40, 1)))
    above, below = one.numerators.sum(axis=0), one.denominators.sum(axis=0)
    assert one.value == pytest.approx((above / below).sum())
    step = 1e-6
    heavier = [
        ((above + step * a) / (below + step * b)).sum()
        for a, b in zip(one.numerators, one.denominators, strict=True)
    ]
    moved = (np.array(heavier) - one.value) / step
    assert one.influence() == pytest.approx(moved, abs=1e-5)
    assert one.error() == pytest.approx(np.sqrt((moved**2).sum() * 40 / 39), rel=1e-4)
    apart = one.influence() - other.influence()
    assert one.distance_error(other) == pytest.approx(np.sqrt((apart**2).sum() * 40 / 39))
    shift = random.normal(0.0, 1.0, 40)
    fitted = replace(one, shift=shift)
    assert fitted.value == one.value
    assert fitted.influence() == pytest.approx(one.influence() + (shift - shift.mean()) / below[0])
    drawn = bootstrap([one, other, fitted], 4000, seed=1)
    assert drawn.shape == (3, 4000)
    for row, estimate in zip(drawn, (one, other, fitted), strict=True):
        assert row.mean() == pytest.approx(estimate.value, abs=4 * estimate.error() / 60 + 0.01)
        assert row.std() == pytest.approx(estimate.error(), rel=0.06)
    # The same units are drawn for all.
    assert (drawn[0] - drawn[1]).std() == pytest.approx(one.distance_error(other), rel=0.06)
    counts = next(_counts(40, 64, 1))
    assert counts.sum(axis=1).tolist() == [40.0] * 64
    first = (counts[3] @ one.numerators / (counts[3] @ one.denominators)).sum()
    assert drawn[0, 3] == pytest.approx(first)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_intervals_of_an_estimate_are_those_of_their_formulas(level: float) -> None:
    """A mean of ten numbers: Student's interval, and Maurer & Pontil's bound of both sides."""
    values = np.array([0.0, 1, 1, 0, 3, 2, 0, 0, 1, 5])
    one = Ratios(values[:, None], np.ones((10, 1)))
    mean, error = values.mean(), stats.sem(values)
    ends = stats.t.interval(level, 9, mean, error)
    assert astuple(delta(one, level))[1:] == pytest.approx(ends)
    log = math.log(4 / (1 - level))
    half = math.sqrt(2 * values.var(ddof=1) * log / 10) + 7 * 5.0 * log / (3 * 9)
    assert astuple(bernstein(one, level))[1:] == pytest.approx((mean - half, mean + half))
    assert delta(one, level).method == "delta"
    assert bernstein(one, level).method == "bernstein"
    both = delta(one, level).hull(EstimateInterval("x", -9.0, 1.5))
    assert (both.low, both.high) == (-9.0, ends[1])
    assert (percentile(np.arange(1001.0), 0.9).low, percentile(np.arange(1001.0), 0.9).high) == (
        pytest.approx((50, 950))
    )


def test_a_percentile_interval_allows_a_tenth_to_be_undefined() -> None:
    interval = percentile(np.arange(1001.0))
    assert (interval.low, interval.high) == pytest.approx((25, 975))
    undefined = np.full(10, np.nan)
    assert percentile(np.concatenate((np.arange(90.0), undefined))).high > 80
    assert math.isnan(percentile(np.concatenate((np.arange(89.0), undefined))).high)


def test_the_scale_of_the_intervals_leaves_out_the_widest() -> None:
    """Eight estimators, 24 ends: the three outermost of each side are left out, 8% is added to each
    side.
    """

    def estimate(low: float, high: float) -> Estimate:
        ends = EstimateInterval("bootstrap", low, high)
        return Estimate("policy", "name", "", "request", value=5.0, intervals=(ends,))

    wild = [estimate(-1e6 + i, 1e6 + i) for i in range(3)]
    calm = [estimate(1.0 + i, 11.0 - i) for i in range(5)]
    scale = _scale([*wild, *calm], None, 5.0)
    assert (scale.low, scale.high) == pytest.approx((1.0 - 0.8, 11.0 + 0.8))
    truth = OwnLogTruth(-0.5, 1.0, 9, EstimateInterval("delta", -3.0, 2.0))
    assert _scale([*wild, *calm], truth, 17.0).low == pytest.approx(-3.0 - 1.6)
