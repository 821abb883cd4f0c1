"""The best of several arms: its corrected interval covers, chances and regrets are those of closed
forms, priors are found again, and reports say so.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats

import abtest
from simulator.cli import main
from simulator.report import earlier
from simulator.stats import intervals, priors, winners
from simulator.stats.frames import from_frame
from simulator.stats.moments import Floats
from simulator.stats.priors import Prior
from simulator.stats.rule import Alternative
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
