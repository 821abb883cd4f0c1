"""Adjustment, margins, quantiles, segments and resampling against scipy, statsmodels, brute force
and simulated truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from simulator.stats import (
    adjustment,
    intervals,
    margins,
    moments,
    quantiles,
    resampling,
    segments,
    tests,
    units,
    verdict,
)
from simulator.stats.clustering import clustered
from simulator.stats.contrasts import compare
from simulator.stats.frames import from_frame
from simulator.stats.randomise import Outcomes, draws
from simulator.stats.unit_table import TableError, UnitTable
from tests.worlds import paired_log


def split_frame(n: int = 600, seed: int = 0, lift: float = 0.1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    before = rng.gamma(2, 5, n)
    arm = rng.integers(0, 2, n)
    x = before * rng.normal(1, 0.3, n) * (1 + lift * arm) + rng.normal(0, 2, n)
    country = rng.choice(["x", "y", "z"], n, p=[0.5, 0.3, 0.2])
    x += np.select([country == "x", country == "y"], [0.0, 5.0], 12.0)
    other = rng.normal(0, 1, n) + 0.1 * x
    frame = pd.DataFrame(
        {
            "user": range(n),
            "arm": np.where(arm == 1, "b", "a"),
            "x": x,
            "x_before": before,
            "other_before": other,
            "country": country,
        }
    )
    return frame.sort_values("arm", kind="stable", ignore_index=True)


def test_cuped_with_several_covariates() -> None:
    """Means adjusted by hand, and (nearly) the regression on arm and covariates with robust
    errors.
    """
    frame = split_frame()
    m = compare(from_frame(frame), "x", "a", "b", ["x", "other"])
    x, past = frame["x"].to_numpy(), frame[["x_before", "other_before"]].to_numpy()
    arms = [(frame["arm"] == name).to_numpy() for name in "ab"]
    share = [a.mean() for a in arms]
    cov = sum(s * np.cov(np.column_stack([x, past])[a].T) for s, a in zip(share, arms, strict=True))
    adjusted = x - (past - past.mean(axis=0)) @ np.linalg.solve(cov[1:, 1:], cov[1:, 0])
    assert (m.control, m.treatment) == pytest.approx(tuple(adjusted[a].mean() for a in arms))
    design = sm.add_constant(np.column_stack([arms[1], past]).astype(float))
    ols = sm.OLS(x, design).fit(cov_type="HC1")
    assert m.difference == pytest.approx(ols.params[1], rel=0.005)
    assert np.sqrt(m.variance) == pytest.approx(ols.bse[1], rel=0.05)
    plain = compare(from_frame(frame), "x", "a", "b")
    assert m.variance < 0.8 * plain.variance


def test_cuped_holds_its_level_and_keeps_the_mean_lift() -> None:
    rejected, lifts, repetitions = 0, [], 1500
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        x = rng.gamma(2, 1, 300)
        y = x + rng.gamma(1, 1, 300)
        arms = [moments.sample([y[s], x[s]]) for s in (slice(0, 150), slice(150, 300))]
        m = moments.split_moments(arms[0], arms[1], 0, None, [1])
        rejected += bool(tests.t_test(m).p < 0.05)
        lifts.append(m.difference)
    assert rejected / repetitions == pytest.approx(
        0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / repetitions)
    )
    assert np.mean(lifts) == pytest.approx(0, abs=4 * np.std(lifts) / np.sqrt(repetitions))


@pytest.mark.parametrize("covariates", [1, 5])
def test_cuped_of_few_units_is_analysis_of_covariance(covariates: int) -> None:
    """With arms of one size the statistic is that of the regression on arm and covariates, whose t
    is exact.
    """
    rng = np.random.default_rng(4)
    x = rng.normal(size=(20, covariates))
    y = x.sum(axis=1) + rng.normal(size=20)
    arm = np.repeat([0.0, 1.0], 10)
    theirs = sm.OLS(y, sm.add_constant(np.column_stack([arm, x]))).fit()
    sides = [moments.sample([y[arm == side], *x[arm == side].T]) for side in (0, 1)]
    m = moments.split_moments(*sides, 0, None, range(1, covariates + 1))
    assert tests.t_test(m).statistic == pytest.approx(theirs.tvalues[1])
    assert m.difference == pytest.approx(theirs.params[1])
    assert m.df <= theirs.df_resid + 1e-9


def test_cuped_of_ten_units_an_arm_and_five_covariates_holds_its_level() -> None:
    rng = np.random.default_rng(5)
    repetitions = 4000
    x = rng.normal(size=(repetitions, 5, 20))
    y = 0.5 * x.sum(axis=1) + rng.normal(size=(repetitions, 20))
    columns = [y, *np.moveaxis(x, 1, 0)]
    sides = [
        moments.stacked([column[:, at] for column in columns])
        for at in (slice(0, 10), slice(10, 20))
    ]
    p = tests.t_test(moments.split_moments(*sides, 0, None, range(1, 6))).p
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / repetitions))


def test_more_covariates_than_units_can_bear_are_not_computable() -> None:
    rng = np.random.default_rng(6)
    few, enough = (
        [moments.sample(list(rng.normal(size=(6, n)))) for _ in range(2)] for n in (3, 20)
    )
    for sides, words in ((few, "not computable"), (enough, "undecided")):
        m = moments.split_moments(*sides, 0, None, range(1, 6))
        assert verdict.row(m, "x", "b", "user").words == words


def rejected_by_ranks(
    values: Callable[..., tuple[np.ndarray, np.ndarray]], *, paired: bool
) -> float:
    """False positives of the rank test on a ratio whose denominators vary, where the arms do not
    differ.
    """
    rng = np.random.default_rng(7)
    rejected, repetitions = 0, 1000
    for _ in range(repetitions):
        bottoms = rng.geometric(0.08, (2, 100)).astype(float)
        tops = rng.binomial(bottoms.astype(int), rng.beta(2, 2, (2, 100))).astype(float)
        control, treatment = values((tops[0], bottoms[0]), (tops[1], bottoms[1]))
        rejected += bool(
            (tests.wilcoxon if paired else tests.rank_sum)(control, treatment).p < 0.05
        )
    return rejected / repetitions


@pytest.mark.parametrize("paired", [True, False])
def test_ranks_of_a_ratio_hold_their_level_on_one_scale_only(paired: bool) -> None:
    within = 3.5 * np.sqrt(0.05 * 0.95 / 1000)
    assert rejected_by_ranks(moments.linearised_alike, paired=paired) == pytest.approx(
        0.05, abs=within
    )
    each_by_its_own = lambda c, t: (moments.linearised(*c), moments.linearised(*t))  # noqa: E731
    assert rejected_by_ranks(each_by_its_own, paired=paired) > 0.08


def test_covariates_are_refused_where_they_cancel_or_are_missing() -> None:
    frame = split_frame()
    with pytest.raises(TableError, match="no covariate 'y'"):
        compare(from_frame(frame), "x", "a", "b", ["y"])
    paired = pd.concat([frame.assign(arm="a"), frame.assign(arm="b")])
    with pytest.raises(TableError, match="cancels"):
        compare(from_frame(paired), "x", "a", "b", ["own"])


def test_winsorising_cuts_both_arms_at_one_bound() -> None:
    table = adjustment.winsorised(from_frame(split_frame()), 0.05)
    original = split_frame()["x"].to_numpy()
    bound = np.sort(original)[::-1][30]
    assert table.numerators["x"].max() == pytest.approx(bound)
    assert (table.numerators["x"][original <= bound] == original[original <= bound]).all()
    with pytest.raises(TableError, match="share"):
        adjustment.winsorised(table, 0.5)


def test_post_stratification_is_the_saturated_regression() -> None:
    """Its estimate is the average of stratum differences at the strata's shares: least squares with
    all interactions, centred.
    """
    frame = split_frame()
    m = adjustment.post_stratified(from_frame(frame), "x", "a", "b", "country")
    assert (m.n_control, m.n_treatment) == (
        (frame["arm"] == "a").sum(),
        (frame["arm"] == "b").sum(),
    )
    dummies = pd.get_dummies(frame["country"], drop_first=True).to_numpy(float)
    centred = dummies - dummies.mean(axis=0)
    arm = (frame["arm"] == "b").to_numpy(float)
    design = sm.add_constant(np.column_stack([arm, centred, centred * arm[:, None]]))
    ols = sm.OLS(frame["x"].to_numpy(), design).fit(cov_type="HC2")
    assert m.difference == pytest.approx(ols.params[1])
    assert np.sqrt(m.variance) == pytest.approx(ols.bse[1], rel=1e-6)
    assert m.variance < compare(from_frame(frame), "x", "a", "b").variance


def test_cluster_robust_is_statsmodels() -> None:
    """User-days clustered by user: the difference and its standard error as least squares with
    clustered covariance, up to its factor.
    """
    rng = np.random.default_rng(1)
    users, days = 80, 5
    y = np.repeat(rng.normal(10, 3, users), days) + rng.normal(0, 1, users * days)
    arm = np.repeat(np.arange(users) % 2, days)
    frame_metric = {"x": y}
    table = UnitTable(
        "user-day",
        ("a", "b"),
        {"x": from_frame(split_frame()).metrics["x"]},
        frame_metric,
        {},
        arm,
        np.repeat(np.arange(users), days),
    )
    m = compare(clustered(table), "x", "a", "b")
    ols = sm.OLS(y, sm.add_constant(arm.astype(float))).fit(
        cov_type="cluster",
        cov_kwds={"groups": np.repeat(np.arange(users), days), "use_correction": False},
    )
    assert m.difference == pytest.approx(ols.params[1])
    assert np.sqrt(m.variance) == pytest.approx(ols.bse[1] * np.sqrt(40 / 39), rel=1e-9)
    assert m.variance > 3 * compare(table, "x", "a", "b").variance
    with pytest.raises(TableError, match="independent"):
        clustered(from_frame(split_frame()))


def test_user_days_clustered_by_user_are_the_users() -> None:
    """Every user has all days of the test, so that the means of user-days, with users as clusters,
    have the users' lifts, t and p.
    """
    days = units.read(paired_log(n_users=60), ("click", "watch_time"))
    for source in (days, replace(days, assigned=np.arange(60) % 2)):
        by_user = verdict.lifts(source.by("user"), "a")
        by_cluster = verdict.lifts(clustered(source.by("user-day")), "a")
        for one, other in zip(by_user, by_cluster, strict=True):
            assert (other.lift, other.t, other.df, other.p) == pytest.approx(
                (one.lift, one.t, one.df, one.p), rel=1e-9
            )
            assert other.control_mean == pytest.approx(one.control_mean / days.days)


def test_one_sided_margins_invert_fieller() -> None:
    """A margin at an end of the 90% Fieller interval has a one-sided p of exactly 5%."""
    m = compare(from_frame(split_frame()), "x", "a", "b")
    low, high = intervals.fieller(m, 0.90)
    assert margins.one_sided(m, float(low), above=True) == pytest.approx(0.05)
    assert margins.one_sided(m, float(high), above=False) == pytest.approx(0.05)
    wide = max(abs(float(low)), abs(float(high)))
    assert margins.equivalence(m, wide * 1.001) < 0.05 < margins.equivalence(m, wide * 0.999)


def test_one_sided_zero_margin_is_half_of_the_t_test() -> None:
    m = compare(from_frame(split_frame()), "x", "a", "b")
    assert 2 * margins.one_sided(m, 0.0, above=True) == pytest.approx(float(tests.t_test(m).p))


def test_guardrails_answer() -> None:
    rng = np.random.default_rng(2)
    base = rng.gamma(9, 1, 4000)
    frame = pd.DataFrame({"user": np.tile(np.arange(4000), 2), "arm": np.repeat(["a", "b"], 4000)})
    frame["fine"] = np.tile(base, 2) + rng.normal(0, 0.2, 8000)
    frame["worse"] = np.concatenate((base, 0.9 * base))
    frame["noisy"] = rng.standard_cauchy(8000)
    frame["noisy"] -= frame["noisy"].min()
    more = dict.fromkeys(("fine", "worse", "noisy"), "higher")
    table = from_frame(frame, better=more)
    asked = margins.Margins(
        {"fine": 0.01, "worse": 0.01, "noisy": 0.0001}, {"fine": 0.01, "worse": 0.01}
    )
    found = {(g.kind, g.metric): g for g in margins.answer_margins(table, "a", asked)}
    assert {name: g.answer for (kind, name), g in found.items() if kind == "guardrail"} == {
        "fine": "safe", "worse": "harmed", "noisy": "not shown"
    }  # fmt: skip
    assert {name: g.answer for (kind, name), g in found.items() if kind == "equivalence"} == {
        "fine": "equivalent",
        "worse": "not shown",
    }
    guards = [found["guardrail", name] for name in asked.guardrails]
    assert [g.p_adjusted for g in guards] == [g.p for g in guards], "every one of them must hold"
    alike = [found["equivalence", name] for name in asked.equivalence]
    assert [g.p_adjusted for g in alike] == pytest.approx(
        tests.adjust(np.array([g.p for g in alike]))
    )
    twins = from_frame(frame.assign(fine=np.tile(base, 2)), better=more)
    same = margins.answer_margins(twins, "a", margins.Margins({"fine": 0.01}, {"fine": 0.01}))
    assert [one.answer for one in same] == ["safe", "equivalent"]
    for bad, rule in (({"fine": 0.0}, "margin"), ({"like": 0.01}, "no metric 'like'")):
        with pytest.raises(TableError, match=rule):
            margins.answer_margins(table, "a", margins.Margins(bad))


POPULATIONS = {
    "seconds": lambda rng: rng.lognormal(0, 1, 1500),
    "sessions": lambda rng: rng.poisson(2 * rng.gamma(2, 0.5, 1500)),
    "plays": lambda rng: rng.poisson(30 * rng.gamma(2, 0.5, 1500)),
    "half zeros": lambda rng: np.where(rng.random(1500) < 0.4, 0.0, rng.lognormal(0, 1, 1500)),
}


@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("kind", POPULATIONS)
def test_quantile_lifts_hold_their_level(level: float, paired: bool, kind: str) -> None:
    """2,000 samples of 1,500 users; the second answer of a twin is the first one's, or another
    user's.
    """
    rng = np.random.default_rng(3)
    base = np.asarray(POPULATIONS[kind](rng), dtype=np.float64)
    other = np.where(rng.random(1500) < 0.6, base, rng.permutation(base))
    o = Outcomes("x", "b", (base,), (other,), (base[:, None],), (other[:, None],), None)
    lift = float(np.divide(*(_mid(v, level) for v in (other, base)))) - 1.0
    rejected = covered = 0
    for heads, tails in draws(1500, 1500, 2000, 0):
        null, effect = quantiles.quantile_pair(o, heads, tails, level, paired=paired)
        low, high = intervals.fieller(effect)
        rejected += np.count_nonzero(tests.t_test(null).p < 0.05)
        covered += np.count_nonzero((low <= lift) & (lift <= high))
    assert rejected / 2000 == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / 2000))
    assert covered / 2000 == pytest.approx(0.95, abs=3.5 * np.sqrt(0.05 * 0.95 / 2000))


def _mid(values: np.ndarray, level: float) -> float:
    """The mid-quantile as Ma, Genton & Parzen (2011) draw it: linear between the points
    (mid-distribution, value).
    """
    distinct, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    return float(np.interp(level, np.cumsum(share) - share / 2, distinct))


def test_mid_quantiles_by_hand() -> None:
    values = np.repeat([0.0, 1.0, 2.0, 5.0], [10, 20, 10, 10])  # mid-distribution .1, .4, .7, .9
    for level, value in ((0.4, 1.0), (0.55, 1.5), (0.5, 4 / 3), (0.8, 3.5), (0.25, 0.5)):
        assert quantiles.quantile_moments(
            values, values, level, paired=False
        ).control == pytest.approx(value)
    rng = np.random.default_rng(8)
    weights = rng.integers(0, 3, (60, 40)) * rng.integers(
        0, 2, (60, 40)
    )  # many values are in no sample
    found = quantiles.mid_quantile(np.sort(rng.poisson(9, 60)).astype(float), weights, 0.5)
    many = np.sort(np.random.default_rng(9).normal(size=60))
    for r, value in enumerate(quantiles.mid_quantile(many, weights, 0.3).value):
        assert value == pytest.approx(_mid(np.repeat(many, weights[:, r]), 0.3))
    assert found.value.shape == (40,)


@pytest.mark.parametrize("level", [0.25, 0.5, 0.9])
def test_quantile_standard_errors_where_values_differ(level: float) -> None:
    """Against the known asymptotic error sqrt(q (1 - q) / n) / f(x_q), and scipy's by Maritz &
    Jarrett.
    """
    values = np.random.default_rng(10).lognormal(0, 1, 200_001)
    error = np.sqrt(
        quantiles.quantile_moments(values, values[:200], level, paired=False).var_control
    )
    law = stats.lognorm(1)
    assert error == pytest.approx(
        np.sqrt(level * (1 - level) / len(values)) / law.pdf(law.ppf(level)), rel=0.12
    )
    assert error == pytest.approx(stats.mstats.mjci(values, [level])[0], rel=0.12)


@pytest.mark.parametrize(("mean", "level"), [(0.8, 0.5), (2.0, 0.5), (2.0, 0.9), (12.0, 0.9)])
def test_quantile_standard_errors_of_counts_are_the_bootstraps(mean: float, level: float) -> None:
    values = np.random.default_rng(11).poisson(mean, 2000).astype(float)
    error = np.sqrt(quantiles.quantile_moments(values, values, level, paired=False).var_control)
    again = stats.bootstrap(
        (values,),
        lambda v: _mid(v, level),
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=0,
    )
    assert error == pytest.approx(again.standard_error, rel=0.1)


def test_a_quantile_is_not_given_where_it_has_no_normal_law() -> None:
    rng = np.random.default_rng(2)
    seconds, plays, likes = (
        rng.lognormal(0, 1, 4000),
        rng.poisson(60 * rng.gamma(1, 1, 4000)),
        rng.poisson(1.2 * rng.gamma(1, 1, 4000)),
    )
    assert [quantiles.unfit(seconds, seconds, level, 4000) for level in (0.5, 0.9)] == ["", ""]
    assert "have that one value" in quantiles.unfit(plays, plays, 0.5, 4000)
    assert "fewer than 50 users beyond it" in quantiles.unfit(seconds, seconds, 0.9, 400)
    assert "have that one value" in quantiles.unfit(likes, likes, 0.9, 4000)
    assert "no events" in quantiles.unfit(0 * likes, likes, 0.5, 4000)


def test_quantiles_of_ties_have_no_test() -> None:
    for paired in (False, True):
        m = quantiles.quantile_moments(np.zeros(100), np.zeros(100), 0.5, paired=paired)
        assert np.isnan(tests.t_test(m).p)
    assert np.isnan(
        quantiles.quantile_moments(np.arange(5.0), np.arange(5.0), 0.5, paired=False).variance
    )


def test_interaction_of_a_lift_in_one_country_only() -> None:
    rng = np.random.default_rng(4)
    frame = split_frame(6000, lift=0.0, seed=11)
    alike, _ = segments.segments(from_frame(frame), "a")
    assert {s.level for s in alike} == {"x", "y", "z"}
    frame.loc[(frame["country"] == "x") & (frame["arm"] == "b"), "x"] *= 1.3
    rows, between = segments.segments(
        from_frame(frame.sample(frac=1, random_state=rng.integers(100)).sort_values("arm")), "a"
    )
    assert {i.metric: i.p_adjusted < 0.05 for i in between} == {"x": True}
    assert {s.level: s.row.words for s in rows} == {"x": "up", "y": "undecided", "z": "undecided"}


def test_heterogeneity_is_calibrated() -> None:
    rng = np.random.default_rng(5)
    p = [
        segments.heterogeneity([moments.split(*rng.gamma(4, 1, (2, 100))) for _ in range(3)])[2]
        for _ in range(1500)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.001


@pytest.mark.parametrize("paired", [True, False])
def test_permutation_agrees_with_t_on_normal_data(paired: bool) -> None:
    rng = np.random.default_rng(6)
    control = rng.normal(10, 1, 200)
    treatment = control * 0.5 + rng.normal(5.12, 0.9, 200)
    theirs = (
        stats.ttest_rel(treatment, control)
        if paired
        else stats.ttest_ind(treatment, control, equal_var=False)
    )
    ours = resampling.permutation(control, treatment, paired=paired)
    assert ours.statistic == pytest.approx(theirs.statistic)
    assert ours.p == pytest.approx(theirs.pvalue, abs=4 * np.sqrt(theirs.pvalue / 10_000) + 0.003)


def test_permutation_by_full_enumeration() -> None:
    """Eight twins: all 256 exchanges by hand."""
    rng = np.random.default_rng(7)
    control, treatment = rng.normal(0, 1, 8), rng.normal(0.8, 1, 8)
    d = treatment - control
    t: Callable[[np.ndarray], float] = lambda x: abs(x.mean() / (x.std(ddof=1) / np.sqrt(8)))  # noqa: E731
    signs = 1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    exact = np.mean([t(s * d) >= t(d) - 1e-12 for s in signs])
    assert resampling.permutation(
        control, treatment, paired=True, repetitions=20_000
    ).p == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))


def test_no_variance_no_permutation() -> None:
    assert np.isnan(resampling.permutation(np.ones(5), np.ones(5), paired=True).p)


@pytest.mark.parametrize("paired", [True, False])
def test_bca_is_scipys(paired: bool) -> None:
    rng = np.random.default_rng(8)
    control = rng.exponential(1, 60)
    treatment = control * 0.6 + rng.exponential(0.5, 60)

    def lift(c: np.ndarray, t: np.ndarray, axis: int = -1) -> np.ndarray:
        return t.mean(axis=axis) / c.mean(axis=axis) - 1

    theirs = stats.bootstrap(
        (control, treatment),
        lift,
        paired=paired,
        method="BCa",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    )
    ours = resampling.bootstrap(control, treatment, paired=paired, repetitions=20_000)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.03 * width)


@pytest.mark.parametrize("outlier", [0, 19])
def test_every_unit_is_drawn(outlier: int) -> None:
    """One unit has nearly all of the sum: an interval that is as wide as it must be has drawn it,
    wherever it stands.
    """
    control = np.ones(20)
    treatment = np.ones(20)
    treatment[outlier] = 1000.0
    interval = resampling.bootstrap(control, treatment, paired=True, repetitions=2000)
    assert interval.high > 49  # drawn at least once, as in 64% of the samples
    assert interval == pytest.approx(
        resampling.bootstrap(control, treatment[::-1].copy(), paired=True, repetitions=2000),
        rel=0.2,
    )


def test_experiments_split_by_coins_are_the_plain_ones() -> None:
    rng = np.random.default_rng(9)
    control, treatment = rng.gamma(2, 1, (2, 50))
    (heads,) = list(resampling.coins(50, 20, 1))
    m = moments.split_by(control, treatment, heads)
    for r in range(20):
        one = moments.split(control[heads[r] == 0], treatment[heads[r] == 1])
        assert tests.t_test(m).p[r] == pytest.approx(tests.t_test(one).p)
        assert m.df[r] == pytest.approx(one.df)
    assert np.mean([h.mean() for h in resampling.coins(1000, 50, 2, 0.3)]) == pytest.approx(
        0.3, abs=0.01
    )


def test_winsorised_row_is_another_lift() -> None:
    table = from_frame(split_frame())
    plain, cut = (
        verdict.lifts(t, "a", metrics=["x"])[0] for t in (table, adjustment.winsorised(table, 0.05))
    )
    assert cut.control_mean < plain.control_mean
