"""Moments, tests, intervals and the verdict against scipy, statsmodels, closed forms and simulated
truth.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from simulator.report.stored import encode
from simulator.stats import intervals, moments, tests, verdict
from simulator.stats.frames import from_frame
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
