"""Moments, tests, intervals and the verdict against scipy, statsmodels, closed forms and simulated
truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from simulator.log.metrics import Metric
from simulator.report.stored import encode
from simulator.stats import intervals, moments, tests, verdict
from simulator.stats.contrasts import TableMoments
from simulator.stats.frames import from_frame, metric_of
from simulator.stats.joint import JointLaw
from simulator.stats.rule import Rule
from simulator.stats.unit_table import TableError, UnitTable
from tests.worlds import hand_counted_log

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def two_samples() -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(1)
    control = rng.gamma(2.0, 3.0, 400)
    return control, control * rng.normal(1.03, 0.2, 400)


def table(control: np.ndarray, treatment: np.ndarray) -> UnitTable:
    user = np.arange(len(control))
    frame = pd.DataFrame(
        {
            "user": np.tile(user, 2),
            "arm": np.repeat(["a", "b"], len(user)),
            "x": np.concatenate((control, treatment)),
        }
    )
    return from_frame(frame)


def test_paired_t_is_scipys(two_samples: tuple[np.ndarray, np.ndarray]) -> None:
    ours, theirs = (
        tests.t_test(moments.paired(*two_samples)),
        stats.ttest_rel(two_samples[1], two_samples[0]),
    )
    assert ours == pytest.approx((theirs.statistic, theirs.df, theirs.pvalue))


def test_welch_t_is_scipys(two_samples: tuple[np.ndarray, np.ndarray]) -> None:
    ours, theirs = (
        tests.t_test(moments.split(two_samples[0], two_samples[1][:150])),
        stats.ttest_ind(two_samples[1][:150], two_samples[0], equal_var=False),
    )
    assert ours == pytest.approx((theirs.statistic, theirs.df, theirs.pvalue))


def test_difference_interval_is_scipys(two_samples: tuple[np.ndarray, np.ndarray]) -> None:
    theirs = stats.ttest_ind(two_samples[1], two_samples[0], equal_var=False).confidence_interval(
        0.9
    )
    assert intervals.difference(moments.split(*two_samples), 0.9) == pytest.approx(tuple(theirs))


def test_ranks_are_scipys(two_samples: tuple[np.ndarray, np.ndarray]) -> None:
    control, treatment = (np.round(v) for v in two_samples)
    theirs = stats.wilcoxon(treatment - control, zero_method="pratt", method="approx")
    assert tests.wilcoxon(control, treatment).p == pytest.approx(theirs.pvalue)
    assert tests.rank_sum(control, treatment).p == pytest.approx(
        stats.mannwhitneyu(treatment, control).pvalue
    )


@pytest.mark.parametrize("same", [True, False])
def test_fieller_is_the_inversion_of_the_t_test(
    two_samples: tuple[np.ndarray, np.ndarray], same: bool
) -> None:
    """The ends are the ratios theta at which a t test of treatment - theta control = 0 has |t| =
    its quantile (numerically solved).
    """
    m = (moments.paired if same else moments.split)(*two_samples)
    q = stats.t.ppf(0.975, m.df)

    def excess(theta: float) -> float:
        return (m.treatment - theta * m.control) ** 2 - q**2 * (
            m.var_treatment - 2 * theta * m.cov + theta**2 * m.var_control
        )

    middle = m.treatment / m.control
    ends = [
        optimize.brentq(excess, *sorted((middle, middle + d)), xtol=1e-14) - 1 for d in (-0.5, 0.5)
    ]
    assert intervals.fieller(m) == pytest.approx(tuple(ends))


def test_paired_fieller_excludes_zero_exactly_where_the_t_test_rejects() -> None:
    rng = RNG(2)
    for _ in range(200):
        c = rng.exponential(1.0, 8)
        m = moments.paired(c, c + rng.normal(0.3, 0.5, 8))
        low, high = intervals.fieller(m)
        if np.isfinite(low):
            assert (low > 0 or high < 0) == (tests.t_test(m).p < 0.05)


def test_delta_and_log_by_numerical_derivatives(two_samples: tuple[np.ndarray, np.ndarray]) -> None:
    m = moments.paired(*two_samples)
    cov = np.array([[m.var_control, m.cov], [m.cov, m.var_treatment]])
    at, q = np.array([m.control, m.treatment]), stats.t.ppf(0.975, m.df)
    for ours, f, back in (
        (intervals.delta(m), lambda v: v[1] / v[0], lambda v: v - 1),
        (intervals.log_delta(m), lambda v: np.log(v[1] / v[0]), lambda v: np.exp(v) - 1),
    ):
        gradient = optimize.approx_fprime(at, f, 1e-7)
        half = q * np.sqrt(gradient @ cov @ gradient)
        assert ours == pytest.approx((back(f(at) - half), back(f(at) + half)), rel=1e-4)


def test_an_unbounded_fieller_set_is_said_in_words() -> None:
    whole = moments.Moments(0.1, 0.1, 1.0, 1.0, 0.0, 20.0, 11, 11, False)
    assert intervals.fieller(whole) == (-np.inf, np.inf)
    assert "every lift is compatible" in (intervals.unbounded(whole) or "")
    rays = moments.Moments(0.1, 9.0, 1.0, 1.0, 0.0, 20.0, 11, 11, False)
    assert intervals.fieller(rays) == (-np.inf, np.inf)
    assert "are excluded" in (intervals.unbounded(rays) or "")
    assert (
        intervals.unbounded(moments.Moments(9.0, 9.0, 1.0, 1.0, 0.0, 20.0, 11, 11, False)) is None
    )


def test_linearised_ratio_is_the_delta_method() -> None:
    """Mean = ratio of sums; its standard error = the classical ratio estimator's (Cochran 1977,
    6.4), written out.
    """
    rng = RNG(3)
    d = rng.poisson(9, 300).astype(float) + 1
    n = rng.binomial(d.astype(int), 0.3).astype(float)
    z = moments.linearised(n, d)
    ratio = n.sum() / d.sum()
    residual = n - ratio * d
    assert z.mean() == pytest.approx(ratio)
    assert z.var(ddof=1) / 300 == pytest.approx(residual.var(ddof=1) / 300 / d.mean() ** 2)
    assert np.isnan(moments.linearised(n, np.zeros(300))).all()


def test_corrections_are_those_of_statsmodels_and_ignore_missing_tests() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.5])
    known = ~np.isnan(p)
    for ours, theirs in (("holm", "holm"), ("hochberg", "simes-hochberg"), ("bh", "fdr_bh")):
        adjusted = tests.adjust(p, ours)  # type: ignore[arg-type]
        assert np.isnan(adjusted[1])
        assert adjusted[known] == pytest.approx(multipletests(p[known], method=theirs)[1])
    assert tests.adjust(p, "holm")[0] == pytest.approx(4 * 0.01)
    assert tests.adjust(np.array([np.nan]), "holm").tolist() == pytest.approx([np.nan], nan_ok=True)


@pytest.mark.parametrize("df", [2, 4, 10, 400])
def test_smallest_detectable_is_statsmodels(df: int) -> None:
    theirs = float(
        np.squeeze(TTestPower().solve_power(nobs=df + 1, alpha=0.05, power=0.8))
    ) * np.sqrt(df + 1)
    assert verdict.noncentrality(df) == pytest.approx(theirs, rel=1e-4)


def test_smallest_detectable_lift_is_detected_eight_times_in_ten() -> None:
    rng = RNG(4)
    control = rng.normal(10, 2, (4000, 50))
    noise = rng.normal(0, 1, (4000, 50))
    true = verdict.noncentrality(49.0) * 1.0 / np.sqrt(50)
    rejected = sum(stats.ttest_1samp(d, 0).pvalue < 0.05 for d in noise + true) / 4000
    assert rejected == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / 4000))
    one = verdict.lift(table(control[0], control[0] + noise[0] + true), "x", "a", "b")
    assert one.mde == pytest.approx(true * np.std(noise[0], ddof=1) / control[0].mean())


def test_a_row_has_exactly_the_keys_of_the_report(
    two_samples: tuple[np.ndarray, np.ndarray],
) -> None:
    (row,) = verdict.lifts(table(*two_samples), "a")
    keys = (
        "metric arm unit control_mean treatment_mean lift low high t df p p_adjusted n_units mde"
        " se difference_low difference_high level_adjusted low_adjusted high_adjusted"
        " difference_low_adjusted difference_high_adjusted confidence alternative difference"
    )
    assert list(verdict.ROW) == list(encode(row)) == keys.split()
    assert row.lift == pytest.approx(two_samples[1].mean() / two_samples[0].mean() - 1)
    assert (row.unit, row.arm, row.n_units, row.words) == ("user", "b", 400, "up")


def test_identical_arms_are_said_to_be_identical(
    two_samples: tuple[np.ndarray, np.ndarray],
) -> None:
    (row,) = verdict.lifts(table(two_samples[0], two_samples[0]), "a")
    assert (row.words, row.lift, row.low, row.high) == ("identical", 0.0, 0.0, 0.0)
    assert np.isnan([row.t, row.p, row.p_adjusted, row.mde]).all()
    assert encode(row)["p"] is None


def test_what_is_detected_is_what_the_corrected_verdict_would_call() -> None:
    """Of 14 comparisons, one with a true difference of the size that is told: the verdict finds it
    four times in five.
    """
    rng = np.random.default_rng(3)
    n, k, repetitions = 40, 14, 600
    found = 0
    for _ in range(repetitions):
        noise = rng.normal(0.0, 1.0, (k, n))
        true = verdict.noncentrality(n - 1.0, 0.8, 1 - 0.05 / k) / np.sqrt(n)
        p = np.array(
            [
                tests.t_test(moments.paired(np.zeros(n), d + (true if i == 0 else 0.0))).p
                for i, d in enumerate(noise)
            ]
        )
        found += bool(tests.adjust(p)[0] < 0.05)
    assert found / repetitions == pytest.approx(0.8, abs=3.5 * np.sqrt(0.8 * 0.2 / repetitions))


def test_the_smallest_lift_is_told_for_the_family() -> None:
    rng = np.random.default_rng(4)
    noise = {f"m{i}": rng.gamma(2, 5, 80) for i in range(9)}
    frame = pd.concat(
        [
            pd.DataFrame(
                {
                    "user": range(80),
                    "arm": arm,
                    **{m: v + i * rng.normal(1, 1, 80) for m, v in noise.items()},
                }
            )
            for i, arm in enumerate("ab")
        ]
    )
    whole = verdict.lifts(from_frame(frame), "a")
    alone = verdict.lifts(from_frame(frame), "a", metrics=["m3"])
    plain = verdict.lifts(from_frame(frame), "a", correction="none")
    assert [row.mde for row in plain if row.metric == "m3"] == pytest.approx([alone[0].mde])
    for row, one in zip(whole, plain, strict=True):
        theirs = TTestPower().solve_power(
            nobs=one.df + 1, alpha=0.05 / 9, power=0.8, alternative="two-sided"
        )
        ours = TTestPower().solve_power(
            nobs=one.df + 1, alpha=0.05, power=0.8, alternative="two-sided"
        )
        assert row.mde / one.mde == pytest.approx(theirs / ours, rel=1e-3)


def test_no_p_is_zero() -> None:
    control = np.linspace(1.0, 1.0 + 1e-9, 1000)
    (row,) = verdict.lifts(table(control, control * 1.5 + 1e-3 * np.arange(1000) * 1e-6), "a")
    assert row.p == tests.LEAST
    assert 0 < row.p <= row.p_adjusted


def test_one_unit_an_arm_is_not_identical() -> None:
    frame = pd.DataFrame({"user": [1, 2], "arm": ["a", "b"], "x": [3.0, 3.0]})
    (row,) = verdict.lifts(from_frame(frame), "a")
    assert (row.words, row.n_units) == ("not computable", 2)
    same = pd.DataFrame({"user": range(4), "arm": ["a", "b"] * 2, "x": [3.0] * 4})
    assert verdict.lifts(from_frame(same), "a")[0].words == "identical"


def test_a_constant_difference_has_no_test() -> None:
    control = np.array([1.0, 2.0, 3.0])
    (row,) = verdict.lifts(table(control, control + 1), "a")
    assert (row.words, row.n_units) == ("not computable", 3)
    assert np.isnan(row.p)
    assert row.lift == 0.5


def test_no_data_is_nan_with_its_count() -> None:
    from simulator.stats.units import read

    rows = {
        r.metric: r
        for r in verdict.verdict(read(hand_counted_log(), ("like", "click")), "a", units=("user",))
    }
    assert (rows["like"].words, rows["like"].n_units) == ("no data", 0)
    assert np.isnan(rows["like"].lift)
    assert rows["click"].n_units == 3
    assert rows["click"].p_adjusted == rows["click"].p


def test_one_unit_has_no_test() -> None:
    (row,) = verdict.lifts(table(np.array([1.0]), np.array([2.0])), "a")
    assert (row.n_units, row.lift) == (1, 1.0)
    assert np.isnan([row.p, row.low, row.high]).all()


def test_the_papers_day_table() -> None:
    from simulator.stats.units import read

    days = read(hand_counted_log(), ("watch_time",))
    row = verdict.lifts(days.by("day"), "a")[0]
    theirs = stats.ttest_rel([0.0, 4 / 3], [1.5, 2.5 / 3])
    assert (row.t, row.df, row.p) == pytest.approx((theirs.statistic, 1, theirs.pvalue))


def test_split_tables_use_welch(two_samples: tuple[np.ndarray, np.ndarray]) -> None:
    control, treatment = two_samples[0], two_samples[1][:100]
    frame = pd.DataFrame(
        {
            "user": range(500),
            "arm": ["a"] * 400 + ["b"] * 100,
            "x": np.concatenate((control, treatment)),
            "x_before": 1.0,
        }
    )
    split = from_frame(frame)
    (row,) = verdict.lifts(split, "a")
    assert not split.paired
    assert split.covariates["x"].shape == (500,)
    assert row.n_units == 500
    assert row.p == pytest.approx(stats.ttest_ind(treatment, control, equal_var=False).pvalue)


def test_frames_round_trip_and_ratio_columns() -> None:
    frame = pd.DataFrame(
        {
            "user": [1, 2, 1, 2],
            "arm": ["b", "a", "a", "b"],
            "clicks": [1, 2, 3, 4],
            "shown": [5, 5, 6, 6],
            "country": list("xyxy"),
        }
    )
    paired = from_frame(frame, metrics={"rate": ("clicks", "shown"), "clicks": "clicks"})
    assert paired.arms == ("b", "a")
    assert paired.numerators["rate"].tolist() == [[1, 4], [3, 2]]
    assert paired.denominators["rate"].tolist() == [[5, 6], [6, 5]]
    assert paired.groups["country"].tolist() == ["x", "y"]
    back = paired.frame()
    assert from_frame(back, user="unit", metrics={"clicks": "clicks"}).numerators[
        "clicks"
    ].tolist() == [[1, 4], [3, 2]]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"arm": ["a", "b"], "x": [1, 2]}, "no column 'user'"),
        ({"user": [1, 2], "arm": ["a", "a"], "x": [1, 2]}, "at least two"),
        ({"user": [1, 1, 2], "arm": ["a", "b", "a"], "x": [1, 2, 3]}, "user 1 has several rows"),
        ({"user": [1, 2], "arm": ["a", "b"], "x": [1, np.nan]}, "row 1: column 'x' has no value"),
        ({"user": [1, 2], "arm": ["a", None], "x": [1, 2]}, "row 1: column 'arm' has no value"),
        ({"user": [1, 2], "arm": ["a", "b"]}, "no metric"),
    ],
)
def test_frames_that_cannot_be_compared(frame: dict[str, list[object]], message: str) -> None:
    with pytest.raises(TableError, match=message):
        from_frame(pd.DataFrame(frame))


def test_coverage_on_zero_inflated_counts() -> None:
    """Zero-inflated comments, 50 users an arm: Fieller holds 95% where the delta interval does not
    (4,000 repetitions).
    """
    rng = RNG(5)
    repetitions, n = 4000, 50

    def draw() -> np.ndarray:
        return rng.binomial(1, 0.15, (repetitions, n)) * rng.geometric(
            0.4, (repetitions, n)
        ).astype(float)

    covered = dict.fromkeys(intervals.METHODS, 0)
    for control, treatment in zip(draw(), draw(), strict=True):
        m = moments.split(control, treatment)
        for name, method in intervals.METHODS.items():
            low, high = method(m)
            covered[name] += bool(low <= 0.0 <= high)
    rate = {name: count / repetitions for name, count in covered.items()}
    assert rate["fieller"] == pytest.approx(0.96, abs=0.015)
    assert rate["delta"] < 0.92


@pytest.mark.parametrize("same", [True, False])
def test_coverage_of_a_ratio_lift(same: bool) -> None:
    """Clicks per impression with user-specific rates, 200 users, true lift 10%: Fieller within
    Monte-Carlo error of 95%.
    """
    rng = RNG(6)
    repetitions, hits = 2000, 0
    for _ in range(repetitions):
        rate = rng.beta(2, 8, 400) * 0.9
        shown = rng.poisson(20, (2, 400)) + 1
        clicks = rng.binomial(shown, [rate, 1.1 * rate]).astype(float)
        users = (slice(0, 200), slice(0, 200) if same else slice(200, 400))
        arms = [
            moments.linearised(clicks[arm][at], shown[arm][at].astype(float))
            for arm, at in enumerate(users)
        ]
        low, high = intervals.fieller((moments.paired if same else moments.split)(*arms))
        hits += bool(low <= 0.1 <= high)
    assert hits / repetitions == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / repetitions))


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (1e305, "refused"),
        (1e300, "refused"),
        (1e61, "refused"),
        (1e-200, "refused"),
        (1e58, "up"),
        (1e-58, "up"),
    ],
)
def test_figures_beyond_double_precision_are_refused_and_others_have_their_verdict(
    scale: float, words: str
) -> None:
    rng = np.random.default_rng(9)
    frame = pd.DataFrame(
        {"user": range(200), "arm": ["a", "b"] * 100, "x": rng.gamma(2, 5, 200) + [0.0, 5.0] * 100}
    )
    (plain,) = verdict.lifts(from_frame(frame), "a")
    frame["x"] *= scale
    if words == "refused":
        with pytest.raises(
            TableError,
            match=(
                r"column 'x' is .*the largest figure of a column must be between 1e-60 and 1e\+60"
            ),
        ):
            from_frame(frame)
        return
    (row,) = verdict.lifts(from_frame(frame), "a")
    assert row.words == plain.words == words
    assert (row.lift, row.low, row.high, row.p) == pytest.approx(
        (plain.lift, plain.low, plain.high, plain.p)
    )


ONE = moments.Moments(10.0, 11.0, 0.04, 0.05, 0.01, 30.0, 31, 31, True)
"""A difference of 1 with a variance of .07."""


def p_of(m: moments.Moments, side: intervals.Side = "two-sided") -> float:
    t = m.difference / np.sqrt(m.variance)
    law = stats.t(m.df)
    both = {"two-sided": 2 * law.sf(abs(t)), "greater": law.sf(t), "less": law.cdf(t)}
    return float(both[side])


def size(df: float, level: float, power: float = 0.8) -> float:
    """By how many standard errors a difference must be off for a t test at `level` to find it."""
    q = stats.t.ppf(0.5 + level / 2, df)
    return float(optimize.brentq(lambda nc: stats.nct.sf(q, df, nc) - power, 0.1, 90))


@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_a_row_by_hand(side: intervals.Side, level: float) -> None:
    row = verdict.row(ONE, "x", "b", "day", "fieller", level, side)
    both = level if side == "two-sided" else 2 * level - 1
    se = np.sqrt(0.07)
    half = stats.t.ppf(0.5 + both / 2, 30) * se
    low, high = intervals.fieller(ONE, both)
    open_low, open_high = side == "less", side == "greater"
    ends = (-np.inf if open_low else low, np.inf if open_high else high)
    differences = (-np.inf if open_low else 1 - half, np.inf if open_high else 1 + half)
    expected = verdict.Lift(
        "x", "b", "day", 10.0, 11.0, 0.1, *ends, 1 / se, 30.0, p_of(ONE, side), p_of(ONE, side),
        31, size(30, both) * se / 10, se, *differences, level, *ends, *differences, level, side, "",
    )  # fmt: skip
    for name in (field.name for field in fields(verdict.Lift)):
        value = getattr(expected, name)
        known = value if isinstance(value, str) else pytest.approx(value, rel=1e-6)
        assert getattr(row, name) == known, name
    assert row.difference == 1.0
    assert row.two_sided_level == pytest.approx(both)


def lift_of(**figures: Any) -> verdict.Lift:
    row = verdict.row(ONE, "x", "b", "user")
    return replace(row, **figures)


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"n_units": 0, "p_adjusted": 0.01}, "no data"),
        ({"n_units": 1, "p_adjusted": 0.01}, "up"),
        ({"low": 0.0, "high": 0.0, "p": np.nan, "p_adjusted": np.nan}, "identical"),
        ({"low": 0.0, "high": 0.0, "p": 0.01, "p_adjusted": 0.01}, "up"),
        ({"low": -0.1, "high": 0.0, "p": np.nan, "p_adjusted": np.nan}, "not computable"),
        ({"low": 0.0, "high": 0.1, "p": np.nan, "p_adjusted": np.nan}, "not computable"),
        ({"p_adjusted": np.nan}, "not computable"),
        ({"p_adjusted": 0.25, "confidence": 0.75}, "undecided"),
        ({"p_adjusted": 0.2499, "confidence": 0.75}, "up"),
        ({"p_adjusted": 0.3, "confidence": 0.75}, "undecided"),
        ({"p_adjusted": 0.01, "treatment_mean": 9.0}, "down"),
    ],
)
def test_the_words_of_a_row(figures: dict[str, Any], words: str) -> None:
    assert lift_of(**figures).words == words


@pytest.mark.parametrize(
    ("change", "ends", "p_is_known"),
    [
        # Nobody differs; each arm has one value of its own; arms differ, but nothing varies.
        ({"treatment": 10.0, "var_control": 0.0, "var_treatment": 0.0, "cov": 0.0}, 0.0, False),
        ({"var_control": 0.0, "var_treatment": 0.0, "cov": 0.0}, np.nan, False),
        ({"treatment": 10.0}, None, True),
    ],
)
def test_ends_where_nothing_varies(
    change: dict[str, float], ends: float | None, p_is_known: bool
) -> None:
    row = verdict.row(replace(ONE, **change), "x", "b", "user")
    found = (row.low, row.high, row.difference_low, row.difference_high)
    if ends is not None:
        assert found == pytest.approx((ends,) * 4, nan_ok=True)
        assert np.isnan(row.mde)
    assert np.isnan(row.p) != p_is_known
    assert row.identical == (ends == 0.0)
    assert row.lift == pytest.approx(0.0 if change.get("treatment") else 0.1)


def test_a_ratio_of_which_one_arm_is_known_has_its_units() -> None:
    for control, treatment, units in ((np.nan, np.nan, 0), (np.nan, 1.0, 31), (1.0, np.nan, 31)):
        m = replace(ONE, control=control, treatment=treatment)
        assert verdict.row(m, "x", "b", "user").n_units == units


@pytest.mark.parametrize(
    ("change", "known"),
    [({}, True), ({"df": 1.0}, True), ({"df": 0.99}, False), ({"control": 0.0}, False),
     ({"control": -10.0}, True), ({"cov": 0.045}, False), ({"var_control": np.nan}, False)],
)  # fmt: skip
def test_the_smallest_lift_that_can_be_told(change: dict[str, float], known: bool) -> None:
    m = replace(ONE, **change)
    found = verdict.smallest_detectable(m, 0.9)
    assert np.isnan(found) != known
    if known:
        assert found == pytest.approx(size(float(m.df), 0.9) * np.sqrt(0.07) / 10, rel=1e-4)


def test_notes_say_why_an_interval_is_none() -> None:
    def note(method: intervals.Method = "fieller", **change: Any) -> str:
        return verdict.row(replace(ONE, **change), "x", "b", "user", method).note

    assert note() == note("log") == note("delta") == ""
    for control in (-10.0, 0.0):
        assert note("log", control=control) == (
            "the means do not have one sign, so the logarithm of their ratio, and an interval by"
            " it, does not exist"
        )
    assert note("log", control=-10.0, treatment=-11.0) == ""
    wide = {"var_control": 90.0, "var_treatment": 90.0}
    assert note(**wide) == intervals.unbounded(replace(ONE, **wide), 0.95) != ""
    assert note("delta", **wide) == ""
    still = {"var_control": 0.0, "var_treatment": 0.0, "cov": 0.0}
    assert note(**still, note="too few") == "too few"
    assert note(note="too few") == ""
    # What holds at 95% may not at the level that the correction asks for.
    unsure = replace(ONE, var_control=20.0, var_treatment=20.0, cov=0.0)
    rows = verdict.in_family([one("x", unsure)] * 9, correction="bonferroni")
    assert intervals.unbounded(unsure, 0.95) is None
    assert rows[0].note == intervals.unbounded(unsure, 1 - 0.05 / 9)


def one(metric: str, m: moments.Moments | None, arm: str = "b") -> verdict.Uncorrected:
    return verdict.Uncorrected(metric, arm, "user", m, "a")


@pytest.mark.parametrize("side", ["two-sided", "less"])
def test_a_family_by_hand(side: intervals.Side) -> None:
    """Three comparisons, one of them without data; Bonferroni divides by the two that are."""
    other = replace(ONE, treatment=10.2)
    rows = verdict.in_family(
        [one("x", ONE), one("y", None), one("z", other)], "delta", "bonferroni", 0.9, [side] * 3
    )
    assert [row.metric for row in rows] == ["x", "y", "z"]
    both = 0.95 if side == "two-sided" else 0.9
    for row, m in ((rows[0], ONE), (rows[2], other)):
        plain = verdict.row(m, row.metric, "b", "user", "delta", 0.9, side)
        p = p_of(m, side)
        assert row.p_adjusted == pytest.approx(min(2 * p, 1.0))
        assert row.level_adjusted == pytest.approx(0.95)
        low, high = intervals.opened(intervals.delta(m, both), side)
        assert (row.low_adjusted, row.high_adjusted) == pytest.approx((low, high))
        low, high = intervals.opened(intervals.difference(m, both), side)
        assert (row.difference_low_adjusted, row.difference_high_adjusted) == pytest.approx(
            (low, high)
        )
        assert (row.low, row.high, row.confidence) == (plain.low, plain.high, 0.9)
        assert row.mde == pytest.approx(size(30, both) * np.sqrt(0.07) / 10, rel=1e-5)
    assert (rows[1].words, rows[1].n_units) == ("no data", 0)
    assert np.isnan([rows[1].p_adjusted, rows[1].mde, rows[1].low_adjusted]).all()
    assert np.isnan([rows[1].control_mean, rows[1].lift, rows[1].p]).all()


def test_corrections_of_families() -> None:
    expected = {
        "none": ("none", "none", "none"),
        "dunnett": ("dunnett", "dunnett", "dunnett"),
        "holm": ("bonferroni", "bonferroni", "holm"),
        "bh": ("bonferroni", "bonferroni", "bh"),
    }
    for correction, kept in expected.items():
        found = tuple(
            verdict.correction_in(family, correction)  # type: ignore[arg-type]
            for family in ("success", "safety", "exploratory")
        )
        assert found == kept


def roles(**of: str) -> dict[str, Metric]:
    plain = metric_of("x", "x")
    return {name: replace(plain, name=name, role=role) for name, role in of.items()}  # type: ignore[arg-type]


def test_what_is_for_something_else_is_corrected_by_itself() -> None:
    metrics = roles(s="success", g="guardrail", d="deterioration", q="quality", x="exploratory",
                    y="exploratory")  # fmt: skip
    comparisons = [
        one(name, replace(ONE, treatment=10.4 + i / 10)) for i, name in enumerate("xsgydq")
    ]
    rows = verdict.in_families(comparisons, metrics, "fieller", "holm")
    assert [row.metric for row in rows] == list("xsgydq")
    factor = {row.metric: row.p_adjusted / row.p for row in rows}
    assert factor == pytest.approx({"x": 1, "s": 1, "g": 3, "d": 3, "q": 3, "y": 2})
    one_sided = verdict.in_families(
        comparisons, {n: replace(m, higher_is_better=True) for n, m in metrics.items()},
        rule=Rule(0.9, "better"),
    )  # fmt: skip
    assert {row.metric: row.alternative for row in one_sided} == {
        "s": "greater", "x": "greater", "y": "greater", "g": "less", "d": "less", "q": "two-sided",
    }  # fmt: skip
    assert {row.confidence for row in one_sided} == {0.9}


def three_arms() -> UnitTable:
    random = RNG(5)
    numerators = {name: random.gamma(3.0, 1.0, (3, 40)) for name in ("x", "y")}
    metrics = {name: metric_of(name, name) for name in ("x", "y", "nothing")}
    return UnitTable("user", ("b", "a", "c"), metrics, numerators)


def test_rows_are_by_arm_then_metric_and_pairs_once() -> None:
    table = three_arms()
    rows = verdict.lifts(table, "a")
    order = [(arm, name) for arm in "bc" for name in ("x", "y", "nothing")]
    assert [(row.arm, row.metric) for row in rows] == order
    assert [row.n_units for row in rows] == [40, 40, 0] * 2
    assert [row.metric for row in verdict.lifts(table, "a", metrics=["y"])] == ["y", "y"]
    pairs = verdict.pairs(table, "a", correction="bonferroni")
    assert [(first, row.arm, row.metric) for first, row in pairs] == [
        (first, then, name)
        for first, then in (("a", "b"), ("a", "c"), ("b", "c"))
        for name in ("x", "y", "nothing")
    ]
    for first, row in pairs:
        if row.metric != "nothing":
            alone = verdict.lift(table, row.metric, first, row.arm)
            assert (row.lift, row.p_adjusted) == pytest.approx((alone.lift, min(6 * alone.p, 1)))
    assert verdict.lift(table, "nothing", "a", "b").words == "no data"
    with pytest.raises(TableError, match="no arm 'z'"):
        verdict.pairs(table, "z")


@dataclass
class Authors:
    """Comparisons by other units, of which one has a role."""

    metrics: dict[str, Metric]
    unit: str = "author"

    def moments(self, metric: str, control: str, arm: str) -> moments.Moments:
        return replace(ONE, treatment=10.5 if arm == "b" else 10.7)

    def correlations(self, comparisons: Sequence[tuple[str, str, str]]) -> np.ndarray:
        assert comparisons == [("shown", "a", "b"), ("shown", "a", "c")]
        return np.array([[1.0, 0.25], [0.25, 1.0]])


def test_users_and_other_units_are_taken_as_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    table = three_arms()
    table = replace(
        table, metrics={n: replace(m, role="success") for n, m in table.metrics.items()}
    )
    further = Authors(roles(shown="success", other="exploratory"))
    laws = []
    plain = JointLaw.of
    monkeypatch.setattr(verdict.JointLaw, "of", lambda *given: laws.append(given) or plain(*given))
    rows = verdict.lifts(table, "a", correction="dunnett", further=further)  # type: ignore[arg-type]
    assert [(row.arm, row.metric) for row in rows[6:]] == [("b", "shown"), ("c", "shown")]
    assert {row.unit for row in rows[6:]} == {"author"}
    ((joint, df, sides),) = laws
    tested = [("x", "a", "b"), ("y", "a", "b"), ("x", "a", "c"), ("y", "a", "c")]
    assert joint[:4, :4] == pytest.approx(TableMoments(table, {}).correlations(tested))
    assert joint[4:, 4:].tolist() == [[1.0, 0.25], [0.25, 1.0]]
    assert (joint[:4, 4:] == 0).all()
    assert (joint[4:, :4] == 0).all()
    assert (df, sides) == (30.0, ["two-sided"] * 6)
    law = plain(joint, 30.0, sides)
    assert rows[6].p_adjusted == pytest.approx(
        law.adjusted(np.array([r.p for r in rows if r.p > 0]))[4]
    )
    assert rows[6].level_adjusted == pytest.approx(1 - law.threshold(0.05))
    assert rows[6].mde == pytest.approx(
        size(30, 1 - law.threshold(0.05)) * np.sqrt(0.07) / 10, rel=1e-5
    )


def test_other_units_are_compared_with_or_without_a_role() -> None:
    further = Authors(roles(shown="success", other="exploratory"))
    for with_role, metric in ((True, "shown"), (False, "other")):
        found = verdict.compared_further(further, "a", ["b", "c"], with_role=with_role)  # type: ignore[arg-type]
        assert [(one.metric, one.arm, one.unit, one.control) for one in found] == [
            (metric, "b", "author", "a"), (metric, "c", "author", "a"),
        ]  # fmt: skip
        assert found[0].moments == replace(ONE, treatment=10.5)


def test_days_alone_and_units_of_a_log() -> None:
    from simulator.stats.units import read

    days = read(hand_counted_log(), ("watch_time", "click"))
    alone = list(verdict.by_day(days, "a", rule=Rule(0.9)))
    assert [day for day, _ in alone] == [0, 1]
    for day, rows in alone:
        table = days.by("user", first=day, until=day + 1)
        assert rows == verdict.lifts(table, "a", rule=Rule(0.9))
        assert {row.confidence for row in rows} == {0.9}
    both = verdict.verdict(days, "a", method="delta", correction="none", rule=Rule(0.9))
    assert [(row.unit, row.metric) for row in both] == [
        (unit, name) for unit in ("user", "day") for name in ("watch_time", "click")
    ]
    assert both[2] == verdict.lifts(
        days.by("day"), "a", method="delta", correction="none", rule=Rule(0.9)
    )[0]  # fmt: skip
