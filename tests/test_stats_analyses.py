"""What an audit counts: each analysis reads its samples as the report would."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from simulator.stats import analyses, intervals, moments, ordered, randomise, resampling, tests
from simulator.stats.analyses import ANALYSES, Analysis, Reading
from simulator.stats.moments import Moments
from simulator.stats.randomise import Outcomes
from simulator.stats.rule import OneTest

M = Moments(
    np.array([10.0, 10, 10, 10]), np.array([11.0, 10.4, 9.2, 11]), np.array([0.05, 0.05, 0.05, 0]),
    np.array([0.05, 0.05, 0.05, 0]), 0.0, 30.0, 31, 31, True,
)  # fmt: skip
"""Four samples: t is 3.2, 1.3, -2.5, and the last has no variance."""


@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_t_tests_and_intervals_are_read_as_in_the_verdict(
    side: intervals.Side, level: float
) -> None:
    asked = OneTest(level, side)
    found = analyses._by_t(M, asked)
    p = np.asarray(tests.t_test(M, side).p)
    assert found.rejected.tolist() == [bool(one < 1 - level) for one in p]
    both = level if side == "two-sided" else 2 * level - 1
    for reading, method in (
        (found, intervals.fieller),
        (analyses._by_interval(M, asked, intervals.delta), intervals.delta),
    ):
        low, high = intervals.opened(method(M, both), side)
        assert np.array_equal(reading.low, low, equal_nan=True)
        assert np.array_equal(reading.high, high, equal_nan=True)
        assert reading.control is M.control
        assert reading.treatment is M.treatment
        assert reading.defined.tolist() == [True, True, True, False]
    by_ends = analyses._by_interval(M, asked, intervals.delta)
    low, high = intervals.opened(intervals.delta(M, both), side)
    assert by_ends.rejected.tolist() == [
        bool(a > 0 or b < 0) for a, b in zip(low, high, strict=True)
    ]


def test_an_interval_that_ends_at_zero_rejects_nothing() -> None:
    ends = {"at": intervals.Interval(np.array([0.0, -1.0, 0.1, -1]), np.array([1.0, 0.0, 1, -0.1]))}
    found = analyses._by_interval(M, OneTest(), lambda m, level: ends["at"])
    assert found.rejected.tolist() == [False, False, True, True]


def test_ranks_reject_beyond_the_normal_quantile() -> None:
    z = np.array([1.95, 1.97, -1.97, np.nan])
    found = analyses._by_z(z, OneTest(0.95, "greater"))
    assert (found.rejected.tolist(), found.defined.tolist()) == (
        [False, True, True, False], [True, True, True, False],
    )  # fmt: skip
    assert np.isnan([found.low, found.high, found.control, found.treatment]).all()
    assert len(found.low) == 4
    assert analyses._by_z(np.array([1.3]), OneTest(0.8)).rejected.tolist() == [True]


def of(ratio: bool, **more: Any) -> Outcomes:
    """Both answers of twelve users."""
    random = np.random.default_rng(3)
    c, t = random.gamma(2.0, 1.0, (2, 12))
    below = random.integers(1, 4, (2, 12)).astype(float)
    sides = ((c, below[0]), (t, below[1])) if ratio else ((c,), (t,))
    days = [tuple(v[:, None] for v in side) for side in sides]
    return Outcomes("x", "b", *sides, *days, None, **more)


def samples() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    heads, tails = random.integers(0, 3, (2, 3, 12)).astype(float)
    return heads, tails


@pytest.mark.parametrize("ratio", [False, True])
def test_signed_ranks_of_samples(ratio: bool) -> None:
    """Of a ratio N - R D, with the one ratio of everybody who was drawn in both arms."""
    o = of(ratio)
    heads, tails = samples()
    null, effect = analyses._signed_ranks(o, heads, tails)
    for r, (up, down) in enumerate(zip(heads, tails, strict=True)):
        d = o.treatment[0] - o.control[0]
        if ratio:
            n = up + down
            shared = (n @ (o.control[0] + o.treatment[0])) / (n @ (o.control[1] + o.treatment[1]))
            d = d - shared * (o.treatment[1] - o.control[1])
        drawn = np.concatenate((np.repeat(d, up.astype(int)), -np.repeat(d, down.astype(int))))
        plain = np.repeat(d, (up + down).astype(int))
        for found, values in ((null[r], drawn), (effect[r], plain)):
            ones = np.ones((1, len(values)))
            assert found == pytest.approx(ordered.signed_rank_z(values, ones, 0 * ones)[0])


@pytest.mark.parametrize("ratio", [False, True])
def test_rank_sums_of_samples(ratio: bool) -> None:
    o = of(ratio)
    heads, tails = samples()
    pair = analyses._rank_sums(o, heads, tails)
    for found, answers in zip(pair, (o.control, o.treatment), strict=True):
        for r, (up, down) in enumerate(zip(heads, tails, strict=True)):
            first = [np.repeat(v, up.astype(int)) for v in o.control]
            then = [np.repeat(v, down.astype(int)) for v in answers]
            if ratio:
                shared = (first[0].sum() + then[0].sum()) / (first[1].sum() + then[1].sum())
                first[0] = first[0] - shared * first[1]
                then[0] = then[0] - shared * then[1]
            theirs = stats.mannwhitneyu(
                then[0], first[0], use_continuity=False, method="asymptotic"
            )
            sign = np.sign(theirs.statistic - len(first[0]) * len(then[0]) / 2)
            assert found[r] == pytest.approx(sign * stats.norm.isf(theirs.pvalue / 2))


@pytest.mark.parametrize("paired", [True, False])
def test_permutations_and_bootstraps_of_each_sample(paired: bool) -> None:
    drawn = [
        (
            np.random.default_rng(i).gamma(2.0, 1.0, 12),
            np.random.default_rng(9 + i).gamma(2.6, 1.0, 12),
        )
        for i in range(3)
    ]
    asked = OneTest(0.8, "greater")
    p = [
        resampling.permutation(c, t, paired=paired, repetitions=99, seed=i).p
        for i, (c, t) in enumerate(drawn)
    ]
    found = analyses._permuted(drawn, asked, paired, 99)
    assert found.rejected.tolist() == [one < 1 - 0.8 for one in p]
    assert (found.defined.tolist(), np.isnan(found.low).all(), len(found.high)) == (
        [True] * 3,
        True,
        3,
    )
    booted = analyses._bootstrapped(drawn, asked, paired, 99)
    for i, (c, t) in enumerate(drawn):
        low, high = resampling.bootstrap(c, t, paired=paired, repetitions=99, seed=i, level=0.8)
        assert (booted.low[i], booted.high[i]) == (low, high)
        assert booted.rejected[i] == (low > 0 or high < 0)
        assert (booted.control[i], booted.treatment[i]) == (c.mean(), t.mean())
    assert booted.defined.tolist() == [True] * 3


def named(name: str, among: tuple[Analysis, ...] = ANALYSES) -> Analysis:
    (found,) = [one for one in among if one.name == name]
    return found


def test_every_analysis_is_called_what_it_is() -> None:
    assert [(one.name, one.design) for one in ANALYSES if one.verdict] == [
        ("paired t, Fieller", "paired"), ("Welch t, Fieller", "split"),
        ("CUPED t, Fieller", "split"),
    ]  # fmt: skip
    slow = [one.name for one in ANALYSES if one.slow]
    assert slow == [
        "Wilcoxon",
        "rank sum",
        "paired, p50",
        "split, p50",
        "paired, p90",
        "split, p90",
    ]
    assert [one.name for one in ANALYSES if one.smooth] == slow[2:]
    assert [one.name for one in ANALYSES if one.truth is None] == slow[:2]
    assert {one.design: analyses.SHARES[one.design] for one in ANALYSES} == {
        "paired": 1.0, "split": 0.5, "day": 1.0,
    }  # fmt: skip
    for one in ANALYSES:
        assert one.name.startswith(one.design) or one.design == "day" or one.name[0] in "WCr"
        assert one.samples == 0
    assert len({one.name for one in ANALYSES}) == 18


def test_which_analyses_are_asked_for() -> None:
    assert analyses.is_asked("paired, p50", [])
    assert analyses.is_asked("paired, p50", ["zzz", "p5"])
    assert not analyses.is_asked("paired, p50", ["p9"])


def test_analyses_fit_what_they_can_say() -> None:
    mean, ratio = of(False), of(True)
    for name in ("paired, winsorised", "Welch, winsorised"):
        assert named(name).fits(mean, 10)
        assert not named(name).fits(ratio, 10)
    assert named("Welch t, Fieller").fits(ratio, 1)
    cuped = named("CUPED t, Fieller")
    assert (cuped.fits(mean, 9), cuped.fits(replace(mean, before=np.ones(12)), 9)) == (False, True)
    strata = named("Welch, post-stratified")
    assert not strata.fits(mean, 10**6)
    # A stratum of three among twelve needs 120 users for its 30.
    some = replace(mean, strata=np.repeat([0, 1], [3, 9]))
    assert (strata.fits(some, 120), strata.fits(some, 119)) == (True, False)
    (learned,) = analyses.predicted(7)
    features = replace(mean, features=np.ones((12, 1)))
    assert learned.fits(features, analyses.FEWEST)
    assert not learned.fits(features, analyses.FEWEST - 1)
    assert not learned.fits(mean, analyses.FEWEST)
    assert (learned.name, learned.design, learned.slow, learned.samples) == (
        "MLRATE t, Fieller", "split", True, 7,
    )  # fmt: skip


def test_quantiles_fit_where_the_report_would_print_them() -> None:
    values = np.arange(1.0, 3001.0)
    o = Outcomes("x", "b", (values,), (values + 1,), (values[:, None],), (values[:, None],), None)
    assert named("paired, p50").fits(o, 100)
    assert not named("paired, p50").fits(o, 99)
    assert named("split, p50").fits(o, 200)
    assert not named("split, p50").fits(o, 199)
    assert not named("paired, p50").fits(replace(o, control=(values, values)), 100)
    truth = named("split, p50").truth
    assert truth is not None
    assert truth(replace(o, treatment=(values * 1.25,))) == pytest.approx(0.25)
    ninth = named("split, p90").truth
    assert ninth is not None
    assert ninth(replace(o, treatment=(values + 270.05,))) == pytest.approx(270.05 / 2700.5)


def test_the_largest_sums_are_cut_before_samples_are_drawn() -> None:
    values = np.arange(2000.0)
    o = Outcomes("x", "b", (values,), (values,), (values[:, None],), (values[:, None],), None)
    for name in ("paired, winsorised", "Welch, winsorised"):
        cut = named(name).prepare(o)
        assert cut.control[0].max() == cut.treatment[0].max() == 1997.0
    plain = named("Welch t, Fieller")
    assert plain.prepare(o) is o
    assert plain.truth is not None
    assert plain.truth(replace(o, treatment=(values * 1.5,))) == pytest.approx(0.5)


def test_samples_are_made_by_their_design() -> None:
    o = replace(of(False), before=np.arange(12.0), strata=np.repeat([0, 1], 6))
    heads, tails = (np.maximum(counts, 1) for counts in samples())
    for name, make in (
        ("paired t, Fieller", randomise.paired_pair),
        ("Welch, delta", randomise.split_pair),
        ("Welch, post-stratified", randomise.stratified_pair),
        ("CUPED t, Fieller", lambda *given: randomise.split_pair(*given, adjusted=True)),
        ("paired t by day", randomise.day_pair),
        ("paired t by day, split", randomise.split_day_pair),
    ):
        for found, expected in zip(
            named(name).make(o, heads, tails), make(o, heads, tails), strict=True
        ):
            assert np.array_equal(found.treatment, expected.treatment)
            assert np.array_equal(found.variance, expected.variance, equal_nan=True)
    for name, method in (("log-delta", intervals.log_delta), ("delta", intervals.delta)):
        for design in ("paired", "Welch"):
            one = named(f"{design}, {name}")
            _, m = one.make(o, heads, tails)
            reading: Reading = one.read(m, OneTest())
            assert np.array_equal(reading.low, method(m, 0.95).low)


def test_what_is_resampled_on_request() -> None:
    found = analyses.resampled(99, 7)
    assert [(one.name, one.design, one.slow, one.samples, one.truth is None) for one in found] == [
        ("paired, permutation", "paired", True, 7, True),
        ("paired, BCa bootstrap", "paired", True, 7, False),
        ("split, permutation", "split", True, 7, True),
        ("split, BCa bootstrap", "split", True, 7, False),
    ]
    assert analyses.resampled(99)[0].samples == 1000
    o = of(True)
    heads, tails = samples()
    for one, paired in zip(found, (True, True, False, False), strict=True):
        common = "permutation" in one.name
        made = one.make(o, heads, tails)
        expected = analyses._written_out(o, heads, tails, paired, common)
        for drawn, plain in zip(made, expected, strict=True):
            assert [[v.tolist() for v in s] for s in drawn] == [
                [v.tolist() for v in s] for s in plain
            ]
        read = analyses._permuted if common else analyses._bootstrapped
        reading, same = one.read(made[1], OneTest()), read(made[1], OneTest(), paired, 99)
        assert np.array_equal(reading.rejected, same.rejected)


def test_ratios_are_written_out_by_one_ratio_or_by_each() -> None:
    o = of(True)
    heads, tails = samples()
    up, down = (np.repeat(np.arange(12), counts[0].astype(int)) for counts in (heads, tails))
    for common in (True, False):
        null, effect = analyses._written_out(o, heads, tails, False, common)
        for drawn, answers in ((null, o.control), (effect, o.treatment)):
            c, t = ([v[up] for v in o.control], [v[down] for v in answers])
            if common:
                expected = moments.linearised_alike((c[0], c[1]), (t[0], t[1]))
            else:
                expected = moments.linearised(*c), moments.linearised(*t)
            assert [v.tolist() for v in drawn[0]] == [v.tolist() for v in expected]
