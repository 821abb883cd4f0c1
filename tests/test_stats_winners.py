"""The best of several arms: its corrected interval covers, chances and regrets are those of closed
forms, priors are found again, and reports say so.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import optimize, stats

import abtest
from simulator.cli import main
from simulator.report import earlier
from simulator.stats import intervals, moments, priors, winners
from simulator.stats.frames import from_frame, metric_of
from simulator.stats.moments import Floats
from simulator.stats.priors import Prior
from simulator.stats.rule import Alternative, Rule
from simulator.stats.unit_table import TableError
from simulator.stats.winners import Race, corrected


def race(control: float, treatment: Floats, cov: Floats, df: float = 1e6) -> Race:
    """Of means with covariances `[1 + K, 1 + K]`, the control's first."""
    k = len(treatment)
    return Race(
        tuple(f"new{i}" for i in range(k)),
        np.full(k, control),
        treatment,
        np.full(k, cov[0, 0]),
        cov[0, 1:],
        cov[1:, 1:],
        np.full(k, df),
    )


def covered(lifts: Floats, repetitions: int, shared: float = 0.0) -> tuple[float, float, float]:
    """Of arms whose means have standard errors of 2% and correlations `shared`: how often the
    winner's corrected interval holds its true lift, how often the ordinary one does, and how often
    its estimate is below the truth.
    """
    random = np.random.default_rng(3)
    k = len(lifts)
    cov = 0.02**2 * (shared + (1 - shared) * np.eye(1 + k))
    means = random.multivariate_normal(1.0 + np.append(0.0, lifts), cov, repetitions)
    holds = np.zeros((repetitions, 3))
    for r, mean in enumerate(means):
        one = race(mean[0], mean[1:], cov)
        estimate, low, high = corrected(one)
        truth = lifts[one.best]
        plain = intervals.fieller(winners._own(one, one.best))
        holds[r] = (low <= truth <= high, plain.low <= truth <= plain.high, estimate < truth)
    return tuple(map(float, holds.mean(axis=0)))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("lifts", "shared"),
    [(np.zeros(10), 0.0), (np.linspace(0.0, 0.04, 5), 0.8), (np.array([0.0, 0.01]), 0.0)],
)
def test_the_interval_of_the_winner_covers(lifts: Floats, shared: float) -> None:
    """700 samples: three standard errors are 2.5%."""
    interval, _, below = covered(lifts, 700, shared)
    assert interval == pytest.approx(0.9525, abs=0.0265)
    assert below == pytest.approx(0.5, abs=0.06), "median unbiased"


def test_the_ordinary_interval_of_the_best_of_ten_does_not() -> None:
    _, plain, _ = covered(np.zeros(10), 600)
    assert plain < 0.90


def test_few_degrees_of_freedom_make_the_interval_cautious() -> None:
    """Three fits: covariances are known by two degrees of freedom."""
    random = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        fits = 1.0 + 0.02 * random.standard_normal((3, 4))
        one = race(fits[:, 0].mean(), fits[:, 1:].mean(axis=0), np.cov(fits.T) / 3, 2.0)
        estimate, low, high = corrected(one)
        held += low <= 0.0 <= high
        assert low <= estimate <= high or math.isnan(estimate)
    assert held >= 0.93 * 400


def test_who_wins_by_far_has_the_ordinary_interval_almost() -> None:
    cov = 0.01**2 * np.eye(4)
    one = race(1.0, np.array([1.0, 1.5, 1.01]), cov)
    plain = intervals.fieller(winners._own(one, 1))
    estimate, low, high = corrected(one)
    assert estimate == pytest.approx(0.5, abs=1e-6)
    assert (high - low) / (plain.high - plain.low) == pytest.approx(1.0, abs=0.02)


def test_lower_is_better_is_the_mirror_image() -> None:
    cov = 0.02**2 * (0.3 + 0.7 * np.eye(4))
    up = Race.of_lifts(("a", "b", "c"), np.array([0.01, 0.03, 0.02]), cov[1:, 1:])
    down = replace(up, treatment=2.0 - up.treatment, sign=-1.0)
    assert up.best == down.best == 1
    assert corrected(down) == pytest.approx([-corrected(up)[i] for i in (0, 2, 1)])
    ours, theirs = (winners.chances(one, "old") for one in (up, down))
    assert [c.best for c in ours] == pytest.approx([c.best for c in theirs], abs=0.01)


def test_a_negative_control_wins_by_its_difference() -> None:
    cov = 0.02**2 * np.eye(3)
    estimate, low, high = corrected(race(-1.0, np.array([-0.9, -0.6]), cov))
    assert low < 0.4 < high
    assert estimate == pytest.approx(0.4, abs=0.01)


def test_no_bounded_interval_where_the_control_may_be_0() -> None:
    estimate, low, high = corrected(race(0.01, np.array([0.02, 0.03]), np.eye(3)))
    assert math.isnan(estimate)
    assert (low, high) == (-math.inf, math.inf)


def test_chances_and_regrets_of_one_rival_are_those_of_the_normal_law() -> None:
    """Lifts of +1% and far below: the first is the best with Phi(1), and the regret of each is a
    mean of a truncated normal.
    """
    one = Race.of_lifts(("a", "far"), np.array([0.01, -1.0]), np.diag([0.01**2, 1e-6]))
    control, a, far = winners.chances(one, "old")
    assert a.best == pytest.approx(stats.norm.cdf(1.0), abs=0.005)
    assert control.best == pytest.approx(1 - stats.norm.cdf(1.0), abs=0.005)
    assert far.best == 0.0
    loss = 0.01 * (stats.norm.pdf(1.0) - (1 - stats.norm.cdf(1.0)))
    assert a.regret == pytest.approx(loss, rel=0.02)
    assert control.regret == pytest.approx(0.01 + loss, rel=0.02)
    said = winners.winner(one, "old", "click")
    assert said.top_two == ("a", "old")
    assert said.top_two_best == pytest.approx(1.0)


def test_a_regret_without_a_mean_is_not_given() -> None:
    one = Race.of_lifts(("a", "b"), np.array([0.01, 0.02]), 1e-4 * np.eye(2), 1.0)
    assert all(math.isnan(chance.regret) for chance in winners.chances(one, "old"))


def test_a_normal_prior_is_the_conjugate_posterior() -> None:
    cov = 0.02**2 * (0.5 + 0.5 * np.eye(3))
    lifts = np.array([0.05, 0.01, -0.02])
    one = Race.of_lifts(("a", "b", "c"), lifts, cov)
    prior = Prior(0.005, 0.01)
    draws = winners.draws_of(one, prior)
    gain = cov @ np.linalg.inv(cov + 0.01**2 * np.eye(3))
    mean = lifts + gain @ (0.005 - lifts)
    spread = cov - gain @ cov
    assert draws.mean(axis=0) == pytest.approx(mean, abs=3e-4)
    reach = 1.96 * np.sqrt(np.diag(spread))
    for i, chance in enumerate(winners.chances(one, "old", prior)[1:]):
        ends = (mean[i] - reach[i], mean[i] + reach[i])
        assert (chance.shrunk_low, chance.shrunk_high) == pytest.approx(ends, abs=1e-3)
    assert np.cov(draws.T) == pytest.approx(spread, abs=3e-6)


def test_fat_tails_leave_a_large_lift_alone_and_shrink_a_small_one() -> None:
    """Against quadrature of a Student prior times a normal likelihood, arm by arm."""
    lifts, error = np.array([0.002, 0.10]), 0.01
    one = Race.of_lifts(("small", "large"), lifts, error**2 * np.eye(2))
    prior = Prior(0.0, 0.003, 2.0)
    shrunk = winners.draws_of(one, prior).mean(axis=0)
    grid = np.linspace(-0.3, 0.4, 200_001)
    for lift, ours in zip(lifts, shrunk, strict=True):
        weight = stats.t.pdf(grid / 0.003, 2.0) * stats.norm.pdf(lift, grid, error)
        assert ours == pytest.approx((grid * weight).sum() / weight.sum(), abs=4e-4)
    assert shrunk[0] < 0.6 * lifts[0]
    assert shrunk[1] > 0.9 * lifts[1]


def test_a_triangle_is_that_of_cholesky_and_takes_rank_defects() -> None:
    random = np.random.default_rng(1)
    a = random.standard_normal((4, 4))
    assert priors.triangle(a @ a.T) == pytest.approx(np.linalg.cholesky(a @ a.T))
    flat = np.ones((3, 3))
    lower = priors.triangle(flat)
    assert lower @ lower.T == pytest.approx(flat)


@pytest.mark.parametrize(("scale", "df"), [(0.02, math.inf), (0.01, 3.0)])
def test_a_prior_is_found_again(scale: float, df: float) -> None:
    random = np.random.default_rng(3)
    errors = random.uniform(0.002, 0.02, 160)
    law = stats.norm(0.004, scale) if math.isinf(df) else stats.t(df, 0.004, scale)
    lifts = law.rvs(160, random_state=random) + errors * random.standard_normal(160)
    fitted = priors.fit(lifts, errors)
    assert fitted.scale_low <= scale <= fitted.scale_high
    assert fitted.prior.mean == pytest.approx(0.004, abs=0.004)
    assert (fitted.prior.df <= 5.0) == (df == 3.0)


def test_noise_alone_has_no_scale() -> None:
    random = np.random.default_rng(6)
    errors = np.full(50, 0.01)
    fitted = priors.fit(errors * random.standard_normal(50), errors)
    assert fitted.scale_low == 0.0


def test_the_likelihood_is_the_convolution() -> None:
    grid = np.linspace(-2.0, 2.0, 400_001)
    density = stats.t.pdf((grid - 0.01) / 0.05, 3.0) / 0.05 * stats.norm.pdf(0.2, grid, 0.03)
    area = float(density.sum() * (grid[1] - grid[0]))
    one = priors.log_likelihood(np.array([0.2]), np.array([0.03]), Prior(0.01, 0.05, 3.0))
    assert one == pytest.approx(math.log(area), abs=1e-3)


@pytest.mark.parametrize(
    ("lifts", "errors", "rule"),
    [([0.1] * 3, [0.1] * 3, "at least 8"), ([0.1] * 9, [0.0] * 9, "standard error above 0")],
)
def test_lifts_that_tell_nothing_are_refused(
    lifts: list[float], errors: list[float], rule: str
) -> None:
    with pytest.raises(TableError, match=rule):
        priors.fit(lifts, errors)


def users(arms: int, lifts: Mapping[int, float], n: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(7)
    arm = np.arange(n * arms) % arms
    minutes = random.gamma(4.0, 5.0, n * arms) * (1.0 + np.array([lifts.get(a, 0.0) for a in arm]))
    names = np.array(["control", *(f"new{i}" for i in range(1, arms))])
    return pd.DataFrame({"user": np.arange(n * arms), "arm": names[arm], "minutes": minutes})


def test_split_arms_share_their_control() -> None:
    """The covariance of two lifts is the control's variance, as relative lifts have it."""
    table = from_frame(users(3, {}))
    from simulator.stats.contrasts import compare

    one = Race.read(
        lambda base, arm: compare(table, "minutes", base, arm), "control", ["new1", "new2"]
    )
    assert one is not None
    c, v = one.control[0], one.var_control[0]
    expected = one.treatment[0] * one.treatment[1] / c**4 * v
    assert one.lift_cov[0, 1] == pytest.approx(expected)
    assert one.lift_cov[0, 0] == pytest.approx(
        float(intervals.lift_variance(compare(table, "minutes", "control", "new1")))
    )


def test_tables_have_winners_in_python() -> None:
    frame = users(4, {2: 0.2})
    found = abtest.winners(frame, better={"minutes": "higher"})
    assert list(found.arm) == ["control", "new1", "new2", "new3"]
    first = found[found.arm == "new2"].iloc[0]
    assert first.best > 0.99
    assert first.low < 0.2 < first.high
    assert found[found.arm != "new2"].estimate.isna().all()
    shrunk = abtest.winners(
        frame, better={"minutes": "higher"}, priors={"minutes": abtest.Prior(0.0, 0.001)}
    )
    assert abs(shrunk[shrunk.arm == "new2"].iloc[0].shrunk) < 0.01
    assert abtest.winners(users(2, {}), better={"minutes": "higher"}).empty
    assert abtest.winners(frame.rename(columns={"minutes": "thing"})).empty, (
        "nobody knows what is better"
    )


def test_a_report_says_who_won(tmp_path: Path) -> None:
    table = tmp_path / "users.csv"
    users(4, {2: 0.1}).to_csv(table, index=False)
    prior = tmp_path / "prior.yaml"
    prior.write_text("prior:\n  minutes: {mean: 0.0, scale: 0.05, df: 3}\n", encoding="utf-8")
    arguments = ["report", str(table), "--better", "minutes=higher", "--success", "minutes"]
    done = CliRunner().invoke(main, [*arguments, "--prior", str(prior)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "corrected for the arm's having been chosen" in done.output.replace("\n", " ")
    content = abtest.load_report(tmp_path / "report")
    (winner,) = content.winners
    assert (winner.arm, winner.prior, winner.on) == ("new2", True, "models")
    assert winner.low < winner.estimate < winner.high
    assert winner.estimate < winner.lift + 1e-9
    text = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert "new2 is the best-looking of 3 arms against control" in text
    assert "Shrunk" in text
    assert "The best of several arms" in (tmp_path / "report/report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("prior:\n  minutes: {mean: 0.0, scale: -1}\n", "prior.yaml:2: prior.minutes.scale"),
        ("prior:\n  minutes: {mean: 0.0}\n", "must be given"),
        ("priors: {}\n", "key `prior` alone"),
        ("prior: {}\n", "has no metric"),
        ("prior:\n  seconds: {scale: 0.1}\n", "none of the metrics"),
    ],
)
def test_priors_that_cannot_be_are_refused(tmp_path: Path, text: str, rule: str) -> None:
    table, prior = tmp_path / "users.csv", tmp_path / "prior.yaml"
    users(3, {}).to_csv(table, index=False)
    prior.write_text(text, encoding="utf-8")
    arguments = ["report", str(table), "--better", "minutes=higher", "--prior", str(prior)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert rule in done.output, done.output


def test_the_command_fits_tables_and_reports(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    frame = pd.DataFrame({"metric": "minutes", "lift": random.normal(0.0, 0.05, 60), "se": 0.01})
    frame.to_csv(tmp_path / "lifts.csv", index=False)
    users(4, {1: 0.02}).to_csv(tmp_path / "users.csv", index=False)
    runner, out = CliRunner(), str(tmp_path / "prior.yaml")
    runner.invoke(main, ["report", str(tmp_path / "users.csv"), "--quiet"], catch_exceptions=False)
    sources = [str(tmp_path / "lifts.csv"), str(tmp_path / "report")]
    done = runner.invoke(main, ["prior", *sources, "--out", out], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = earlier.read_priors(Path(out))["minutes"]
    assert found.scale == pytest.approx(0.05, rel=0.3)
    assert "Earlier lifts: minutes 63" in Path(out).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("metric,lift\nx,0.1\n", "no column 'se'"),
        ("metric,lift,se\nx,0.1,0.1\n", "at least 8 earlier lifts; got 1"),
        ("metric,lift,se\nx,0.1,\n", "line 2: column 'se'"),
    ],
)
def test_earlier_lifts_that_cannot_be_are_refused(tmp_path: Path, text: str, rule: str) -> None:
    file = tmp_path / "lifts.csv"
    file.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(main, ["prior", str(file), "--out", str(tmp_path / "p.yaml")])
    assert done.exit_code == 2
    assert rule in done.output, done.output
    assert not (tmp_path / "p.yaml").exists()


def asos() -> Path | None:
    roots = [Path(os.environ.get("ABTEST_DATA", "")), Path(__file__).parents[2] / "shared/data"]
    files = [root / "asos/asos_digital_experiments.parquet" for root in roots]
    return next((file for file in files if file.is_file()), None)


@pytest.mark.parametrize("far", [1e7, 1e200])
def test_a_lift_that_is_none_is_refused(far: float) -> None:
    with pytest.raises(TableError, match="number 3 has lift"):
        priors.fit([0.0, 0.01, far, *[0.0] * 6], [0.01] * 9)


@pytest.mark.skipif(asos() is None, reason="needs the aggregates of ASOS (docs/data.md)")
def test_priors_of_real_tests_have_fat_tails() -> None:
    lifts, errors = asos_lifts(pd.read_parquet(asos()), metric=1)
    assert len(lifts) >= 40
    fitted = priors.fit(lifts, errors)
    normal, _ = priors._fit_at(lifts, errors, math.inf)
    assert fitted.prior.df <= 3.0
    assert priors.log_likelihood(lifts, errors, fitted.prior) > normal + 3.0
    assert 0.0003 < fitted.scale_low < fitted.prior.scale < fitted.scale_high < 0.006


def asos_lifts(frame: pd.DataFrame, metric: int) -> tuple[Floats, Floats]:
    """The last look of every experiment and variant: relative lifts and standard errors."""
    rows = frame[frame.metric_id == metric].sort_values("time_since_start")
    last = rows.groupby(["experiment_id", "variant_id"]).last()
    ratio = last.mean_t / last.mean_c
    of_t, of_c = last.variance_t / last.count_t, last.variance_c / last.count_c
    errors = np.sqrt(of_t + ratio**2 * of_c) / last.mean_c.abs()
    return (ratio - 1.0).to_numpy(), errors.to_numpy()


def test_the_winner_has_the_level_and_the_side_of_the_rule() -> None:
    """At 99% the interval holds that of 95%; a one-sided one at 95% is an end of that at 90%."""
    random = np.random.default_rng(1)
    users = pd.DataFrame(
        {
            "user": range(900),
            "arm": np.array(["control", "b", "c"])[np.arange(900) % 3],
            "revenue": random.gamma(2.0, 3.0, 900),
        }
    )

    def ends(level: float, alternative: Alternative = "two-sided") -> tuple[float, float]:
        choices = abtest.Choices(level=level, alternative=alternative)
        rows = abtest.winners(users, choices=choices).dropna(subset="estimate")
        return float(rows.low.iloc[0]), float(rows.high.iloc[0])

    low, high = ends(0.95)
    assert ends(0.99)[0] < low < high < ends(0.99)[1]
    assert ends(0.95, "better") == (pytest.approx(ends(0.9)[0], rel=1e-9), math.inf)


def test_a_notebook_shows_a_decision() -> None:
    random = np.random.default_rng(1)
    users = pd.DataFrame(
        {
            "user": range(400),
            "arm": ["control", "<b>"] * 200,
            "revenue": random.gamma(2.0, 3.0, 400),
        }
    )
    decision = abtest.decide(users, roles={"revenue": "success"})
    assert decision is not None
    shown = decision._repr_html_()  # type: ignore[attr-defined]
    assert "hold" in shown
    assert "is not shown to be better" in shown
    assert "<b>" not in shown, "names of others are escaped"


COV = np.array([
    [0.010, 0.002, 0.003, 0.001],
    [0.002, 0.020, 0.004, 0.003],
    [0.003, 0.004, 0.008, 0.007],
    [0.001, 0.003, 0.007, 0.030],
])  # fmt: skip
"""Of the means of a control and three arms."""


def by_algebra(
    control: float, treatment: Floats, cov: Floats, df: float, level: float, sign: float = 1.0
) -> tuple[float, float, float]:
    """The hybrid interval from the covariances of all means: W and the leads are sums of means."""
    arms = np.eye(1 + len(treatment))
    k = int(np.argmax(sign * (treatment / control - 1) * np.sign(control)))
    alpha, beta = 1 - level, 0.1 * (1 - level)
    law = stats.t(df)
    bound = float(law.ppf(1 - beta / len(treatment) / 2))
    means = np.append(control, treatment)

    def share(lift: float) -> float:
        w = arms[1 + k] - (1 + np.sign(control) * lift) * arms[0]
        variance, here = w @ cov @ w, w @ means
        low, high = -bound, bound
        for j in range(len(treatment)):
            lead = sign * (arms[1 + k] - arms[1 + j])
            slope = lead @ cov @ w / variance
            # With what does not depend on W as it is, the lead is 0 where W is here:
            at = (here - lead @ means / slope) / np.sqrt(variance) if j != k else 0.0
            low = max(low, at) if j != k and slope > 0 else low
            high = min(high, at) if j != k and slope < 0 else high
        z = np.clip(here / np.sqrt(variance), low, high)
        return float((law.cdf(z) - law.cdf(low)) / (law.cdf(high) - law.cdf(low)))

    own = winners._own(race(control, treatment, cov, df), k)
    low, high = map(float, intervals.fieller(own, critical=bound))
    rest = (alpha - beta) / (1 - beta)

    def at(target: float) -> float:
        if share(low) <= target:
            return low
        return (
            high
            if share(high) >= target
            else float(optimize.brentq(lambda lift: share(lift) - target, low, high))
        )

    return at(0.5), at(1 - rest / 2), at(rest / 2)


@pytest.mark.parametrize("df", [4.0, 30.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("control", "treatment"),
    [(2.0, [2.3, 2.25, 2.1]), (2.0, [1.9, 2.32, 2.4]), (2.0, [2.1, 2.5, 2.48]),
     (-2.0, [-2.3, -2.25, -2.1]), (2.0, [2.0, 3.4, 2.1])],
)  # fmt: skip
def test_the_winners_interval_by_the_algebra_of_means(
    control: float, treatment: list[float], sign: float, df: float
) -> None:
    one = replace(race(control, np.array(treatment), COV, df), sign=sign)
    for level in (0.9, 0.95):
        expected = by_algebra(control, np.array(treatment), COV, df, level, sign)
        assert corrected(one, level) == pytest.approx(expected, abs=1e-6)


def test_few_degrees_of_freedom_have_the_interval_of_all_arms() -> None:
    one = race(2.0, np.array([2.3, 2.25, 2.1]), COV, 3.99)
    estimate, low, high = corrected(one, 0.9)
    bound = stats.t.ppf(1 - 0.1 / 3 / 2, 3.99)
    assert (low, high) == pytest.approx(
        tuple(map(float, intervals.fieller(winners._own(one, 0), critical=bound)))
    )
    assert low < estimate < high
    endless = corrected(race(0.1, np.array([2.3, 2.25, 2.1]), COV))
    assert np.isnan(endless[0])
    assert endless[1:] == (-math.inf, math.inf)


def test_the_covariance_of_lifts_is_the_delta_methods() -> None:
    treatment = np.array([2.3, 2.25, 2.1])
    for control in (2.0, -2.0):
        one = race(control, treatment, COV)
        gradient = np.zeros((3, 4))
        gradient[:, 0] = -treatment / control**2 * np.sign(control)
        gradient[:, 1:] = np.eye(3) / abs(control)
        assert one.lift_cov == pytest.approx(gradient @ COV @ gradient.T)
        assert one.lifts == pytest.approx((treatment - control) / abs(control))
    assert (one.best, replace(one, sign=-1.0).best) == (0, 2)


def compared(one: str, other: str) -> moments.Moments | None:
    """Control c, arms t, u and v; v has no variance, and of x there is no data."""
    if "x" in (one, other):
        return None
    means = {"c": 10.0, "t": 11.0, "u": 12.0, "v": 13.0}
    still = "v" in (one, other)
    return moments.Moments(
        means[one], means[other], 0.1, 0.0 if still else means[other] / 100,
        0.05 if still else 0.01, 7.0 if other == "t" else 9.0, 5, 5, True,
    )  # fmt: skip


def test_a_race_is_read_of_the_arms_that_can_be_compared() -> None:
    one = Race.read(compared, "c", ["t", "v", "u", "x"])
    assert one is not None
    assert (one.arms, one.sign) == (("t", "u"), 1.0)
    for found, expected in (
        (one.control, [10, 10]), (one.treatment, [11, 12]), (one.var_control, [0.1, 0.1]),
        (one.with_control, [0.01, 0.01]), (one.cov, [[0.11, 0.01], [0.01, 0.12]]), (one.df, [7, 9]),
    ):  # fmt: skip
        assert found.tolist() == expected
    lower = Race.read(compared, "c", ["t", "u"], False)
    assert lower is not None
    assert lower.sign == -1.0
    assert Race.read(compared, "c", ["t", "v", "x"]) is None
    apart = Race.read(lambda a, b: compared(a, b) if a == "c" else None, "c", ["t", "u"])
    assert apart is not None
    assert apart.cov.tolist() == [[0.11, 0.0], [0.0, 0.12]]
    lifts = Race.of_lifts(["t", "u"], np.array([0.1, 0.2]), np.eye(2), 5.0)
    assert lifts.lifts == pytest.approx([0.1, 0.2])
    assert lifts.lift_cov.tolist() == np.eye(2).tolist()
    assert (lifts.df.tolist(), Race.of_lifts(["t"], np.ones(1), np.eye(1)).df[0]) == (
        [5, 5],
        np.inf,
    )


@pytest.mark.parametrize(
    ("change", "known"),
    [({}, True), ({"df": 1.0}, True), ({"df": 0.9}, False), ({"control": 0.0}, False),
     ({"var_control": 0.02, "var_treatment": 0.0}, False)],
)  # fmt: skip
def test_an_arm_can_race_with_a_variance_and_a_control(
    change: dict[str, float], known: bool
) -> None:
    m = compared("c", "t")
    assert m is not None
    assert winners._is_known(replace(m, **change)) == known


def drawn(one: Race) -> Floats:
    """The draws of the posterior: the same random numbers up and down, and Student's scale."""
    generator = np.random.default_rng(0)
    root = np.linalg.cholesky(one.lift_cov)
    normal = generator.standard_normal((20_000, len(one.arms))) @ root.T
    scale = stats.chi2.isf((generator.permutation(20_000) + 0.5) / 20_000, one.df.min())
    away = normal * np.sqrt(one.df.min() / scale)[:, None]
    return np.concatenate((one.lifts + away, one.lifts - away))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_chances_and_regrets_are_counted_in_the_draws(sign: float) -> None:
    one = replace(race(2.0, np.array([2.3, 2.25, 1.8]), COV, 6.0), sign=sign)
    one = replace(one, df=np.array([6.0, 5.0, 9.0]))
    draws = drawn(one)
    assert winners.draws_of(one) == pytest.approx(draws)
    worth = sign * np.column_stack((np.zeros(40_000), draws))
    found = winners.chances(one, "c")
    assert [c.arm for c in found] == ["c", "new0", "new1", "new2"]
    assert [c.lift for c in found] == pytest.approx([0.0, 0.15, 0.125, -0.1])
    best = [(worth.argmax(axis=1) == i).mean() for i in range(4)]
    assert [c.best for c in found] == pytest.approx(best, abs=1e-4)
    regret = [(worth.max(axis=1) - worth[:, i]).mean() for i in range(4)]
    assert [c.regret for c in found] == pytest.approx(regret)
    assert np.isnan([(c.shrunk, c.shrunk_low, c.shrunk_high) for c in found]).all()
    for df, known in ((1.0, False), (1.01, True)):
        few = winners.chances(replace(one, df=np.array([9.0, df, 9.0])), "c")
        assert np.isfinite([c.regret for c in few]).all() == known


def test_with_a_prior_lifts_are_shrunk_and_have_its_interval() -> None:
    one = race(2.0, np.array([2.3, 2.25, 1.8]), COV, 6.0)
    prior = Prior(0.05, 4.0)
    draws = winners.draws_of(one, prior)
    for level in (0.5, 0.95):
        found = winners.chances(one, "c", prior, level)
        for place, chance in enumerate(found):
            own = draws[:, place - 1]
            expected = [own.mean(), *np.quantile(own, [(1 - level) / 2, (1 + level) / 2])]
            shrunk = (chance.shrunk, chance.shrunk_low, chance.shrunk_high)
            assert shrunk == pytest.approx(tuple(expected) if place else (np.nan,) * 3, nan_ok=True)
    one = replace(one, df=np.ones(3))
    assert np.isfinite([c.regret for c in winners.chances(one, "c", prior)]).all()


@pytest.mark.parametrize("prior", [None, Prior(0.05, 4.0)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_winner_by_its_parts(prior: Prior | None, sign: float) -> None:
    one = replace(race(2.0, np.array([2.3, 2.25, 1.8]), COV, 6.0), sign=sign)
    found = winners.winner(one, "c", "x", "methods", prior, 0.9, "greater")
    arms = winners.chances(one, "c", prior, 0.9)
    estimate, low, _ = corrected(one, 0.8)
    lifts = [0.0, *[a.shrunk if prior else a.lift for a in arms[1:]]]
    order = np.argsort(-sign * np.array(lifts), kind="stable")[:2]
    best = 0 if sign > 0 else 2
    assert found == winners.Winner(
        "x", "methods", f"new{best}", float(one.lifts[best]), estimate, low, math.inf,
        tuple(arms[i].arm for i in order), sum(arms[i].best for i in order), prior is not None,
        arms, 0.9,
    )  # fmt: skip


def test_only_metrics_with_a_direction_and_data_have_winners() -> None:
    up, down, none = (
        replace(metric_of(name, name), higher_is_better=higher)
        for name, higher in (("up", True), ("down", False), ("none", None))
    )
    gone = replace(up, name="gone")
    metrics = {one.name: one for one in (gone, none, up, down)}

    def comparer(metric: str) -> winners.PairMoments | None:
        return None if metric == "gone" else compared

    rule = Rule(0.9, "better")
    priors_of = {"down": Prior(0.05, 4.0)}
    found = winners.best_of_arms(comparer, metrics, "tcu", "c", "methods", priors_of, rule)
    assert [(w.metric, w.arm, w.on, w.prior, w.level) for w in found] == [
        ("up", "u", "methods", False, 0.9), ("down", "t", "methods", True, 0.9),
    ]  # fmt: skip
    assert (found[0].high, found[1].low) == (math.inf, -math.inf)
    assert [chance.arm for chance in found[0].arms] == ["c", "t", "u"]
    assert winners.best_of_arms(comparer, metrics, "tc", "c") == []


def test_shares_at_the_ends_of_what_is_possible() -> None:
    """Where the two bounds have met, half of nothing is below."""
    one = Race.of_lifts(["t", "u"], np.array([0.2, 0.1]), np.diag([0.01, 0.01]))
    leads = np.array([0.0, 0.1])
    w = stats.norm

    def share(lift: float, bound: float) -> float:
        return winners._share_below(one, 0, leads.copy(), lift, bound)

    low = max(-2.0, (0.2 - 0.15 - 0.1) / 0.1)
    assert share(0.15, 2.0) == pytest.approx(
        (w.cdf(0.5) - w.cdf(low)) / (w.cdf(2.0) - w.cdf(low)), abs=1e-6
    )
    assert share(0.2 + 0.1 * 2.0, 2.0) == pytest.approx(0.0, abs=1e-9)
    # Far out the law has no mass that numbers could hold: shares are those of the length.
    far = share(-4.0, 42.5)
    first = max(-42.5, (4.2 - 0.1) / 0.1)
    assert far == pytest.approx((42.0 - first) / (42.5 - first))
    assert share(-4.3, 42.0) in (0.5, 1.0)


def test_methods_of_arms_with_several_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arm w has one fit, and so no lift of a method; the control is there without being asked."""
    up = replace(metric_of("up", "up"), higher_is_better=True)
    days = SimpleNamespace(
        arms=("t", "c", "w", "u"), metrics={"gone": up, "up": up}, missing=("gone",)
    )
    one_fit = {"c", "w"}
    monkeypatch.setattr(
        winners, "unknown", lambda days, control, arm: "one fit" if arm in one_fit else None
    )
    read = []

    def fit_tables(*given: Any) -> Any:
        read.append(given)
        return SimpleNamespace(
            replicated=lambda metric, base, arm: SimpleNamespace(methods=compared(base, arm))
        )

    monkeypatch.setattr(winners.FitTables, "read", fit_tables)
    (found,) = winners.of_methods(days, "c", {"up": Prior(0.05, 4.0)}, "day", Rule(0.9))  # type: ignore[arg-type]
    assert read == [(days, "day")]
    assert (found.metric, found.on, found.arm, found.prior, found.level) == (
        "up", "methods", "u", True, 0.9,
    )  # fmt: skip
    assert [chance.arm for chance in found.arms] == ["c", "t", "u"]
    one_fit.add("t")
    assert winners.of_methods(days, "c") == []  # type: ignore[arg-type]
    assert len(read) == 1
