"""Launches: real tests beside the simulator's lifts, what they say of it, and forecasts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binomtest, linregress, multivariate_normal, norm, spearmanr, t

from simulator.cli import main
from simulator.log.eventlog import EventLog
from simulator.offpolicy.launch_page import document
from simulator.offpolicy.past_launches import (
    LEVEL,
    ArmForecast,
    LaunchPair,
    LaunchResult,
    MetricLaunches,
    PastTest,
    _hold_to_metrics,
    held_against,
    past_tests,
    simulated_lifts,
)
from simulator.offpolicy.settings import ReplayError
from simulator.page.markdown import markdown
from simulator.report.errors import ReportError
from simulator.scenario.model import Scenario
from simulator.stats import launches as module
from simulator.stats.launches import Calibrator, Estimated, Forecast, Launch, Relation
from simulator.stats.unit_table import TableError
from tests.worlds import hand_counted_log, tiny_scenario, write_scenario

NOISE = 0.01

KINDS = ("real", "simulated")

WIDE = 30.0
"""Standard deviation of a normal prior that is as good as flat."""


def drawn(
    rng: np.random.Generator, n: int, slope: float, spread: float
) -> tuple[list[Launch], float, float]:
    """`n` launches, and the measured simulated and the true real lift of one more policy."""
    simulated = 0.03 * rng.standard_normal(n + 1)
    real = 0.005 + slope * simulated + spread * rng.standard_normal(n + 1)
    seen = simulated + NOISE * rng.standard_normal(n + 1)
    measured = real + NOISE * rng.standard_normal(n + 1)
    tests = [Launch(str(i), measured[i], NOISE, seen[i], NOISE) for i in range(n)]
    return tests, float(seen[n]), float(real[n])


def launched(real: np.ndarray, simulated: np.ndarray) -> list[Launch]:
    """Launches with measured lifts, whose noise is NOISE."""
    pairs = zip(real, simulated, strict=True)
    return [Launch("", float(r), NOISE, float(m), NOISE) for r, m in pairs]


def held(launches: list[Launch]) -> Relation:
    return Calibrator(launches).relation()


def forecast(launches: list[Launch], simulated: float) -> Forecast:
    return Calibrator(launches).forecast(simulated, NOISE)


# --- the model


def test_weights_are_those_of_the_whole_normal_law_of_all_lifts():
    launches, _, _ = drawn(np.random.default_rng(1), 6, 0.7, 0.01)
    one = Calibrator(launches)
    z = np.array([[launch.simulated, launch.real] for launch in launches]).ravel()

    def log_weight(at: int) -> float:
        b, tau, omega = one._b[at], one._tau[at], one._omega[at]
        block = np.array([[omega**2, b * omega**2], [b * omega**2, (b * omega) ** 2 + tau**2]])
        block += NOISE**2 * np.eye(2)
        means = np.tile([[1.0, 0.0], [b, 1.0]], (6, 1))
        prior = WIDE**2 * np.eye(2)
        law = multivariate_normal(np.zeros(12), np.kron(np.eye(6), block) + means @ prior @ means.T)
        slope = 0.5 * ((b - 1) / one._b_prior) ** 2
        spreads = [0.5 * np.log(6 / (NOISE**2 + spread**2)) for spread in (tau, omega)]
        return float(law.logpdf(z)) - slope + sum(spreads)

    # In the second grid nodes lie evenly, so that inner ones stand for the same share.
    shape = (len(module.SLOPES), len(module.SPREADS), len(module.SPREADS))
    inner = [np.ravel_multi_index(at, shape) for at in [(20, 5, 9), (40, 12, 12), (60, 3, 20)]]
    ours = np.log(one._weight[inner])
    theirs = np.array([log_weight(at) for at in inner])
    assert np.allclose(ours - ours[0], theirs - theirs[0], atol=1e-6)


def by_algebra(one: Calibrator, at: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of (mu, a) at a node, by generalised least squares."""
    b, tau, omega = one._b[at], one._tau[at], one._omega[at]
    z = np.array([[launch.simulated, launch.real] for launch in one.launches]).ravel()
    block = np.array([[omega**2, b * omega**2], [b * omega**2, (b * omega) ** 2 + tau**2]])
    noise = [[x.simulated_error**2, x.real_error**2] for x in one.launches]
    whole = np.kron(np.eye(len(noise)), block) + np.diag(np.ravel(noise))
    design = np.tile([[1.0, 0.0], [b, 1.0]], (len(noise), 1))
    cov = np.linalg.inv(design.T @ np.linalg.solve(whole, design))
    return cov @ design.T @ np.linalg.solve(whole, z), cov


def unlike() -> Calibrator:
    """Launches whose noise differs from one to the next."""
    launches, _, _ = drawn(np.random.default_rng(4), 7, 0.8, 0.02)
    errors = np.linspace(0.005, 0.02, 7)
    return Calibrator(
        [
            replace(x, real_error=e, simulated_error=2 * e)
            for x, e in zip(launches, errors, strict=True)
        ]
    )


def test_means_given_the_rest_are_those_of_least_squares():
    one = unlike()
    for at in (5, 20_000, 25_312, 40_000, len(one._b) - 1):
        mean, cov = by_algebra(one, at)
        assert (one._mu[at], one._a[at]) == pytest.approx(tuple(mean), rel=1e-6)
        found = [one._v_mm[at], one._v_ma[at], one._v_aa[at]]
        assert found == pytest.approx([cov[0, 0], cov[0, 1], cov[1, 1]], rel=1e-6)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_a_forecast_is_the_mixture_of_what_each_node_foretells(level):
    """At a node M is known as its prior and its measurement say, and R = a + b M + e."""
    one, seen, error = unlike(), 0.05, 0.015
    heavy = np.flatnonzero(one._weight > 1e-5 * one._weight.max())[::7]
    means, variances = [], []
    for at in heavy:
        (mu, a), cov = by_algebra(one, int(at))
        b, tau, omega = one._b[at], one._tau[at], one._omega[at]
        known = omega**2 / (omega**2 + error**2)
        away = np.array([b * (1 - known), 1.0])
        means.append(a + b * (mu + known * (seen - mu)))
        variances.append(b**2 * omega**2 * (1 - known) + tau**2 + away @ cov @ away)
    one._weight = np.where(np.isin(np.arange(len(one._b)), heavy), one._weight, 0.0)
    weight = one._weight[heavy] / one._weight[heavy].sum()
    found = one.forecast(seen, error, level)
    law = norm(np.array(means), np.sqrt(variances))
    assert found.value == pytest.approx(weight @ np.array(means), rel=1e-6)
    assert found.better == pytest.approx(weight @ law.sf(0.0), rel=1e-6)
    for end, share in ((found.low, (1 - level) / 2), (found.high, (1 + level) / 2)):
        assert weight @ law.cdf(end) == pytest.approx(share, abs=1e-6)


def test_the_second_grid_is_where_the_first_one_has_weight(monkeypatch):
    launches = unlike().launches
    found = unlike()
    monkeypatch.setattr(Calibrator, "_left_of", lambda self, axis, i: axis)
    first = Calibrator(launches)
    shape = (81, 25, 25)
    real, simulated = (np.std([getattr(x, k) for x in launches], ddof=1) for k in KINDS)
    assert first._b_prior == pytest.approx(np.sqrt(1 + (real / simulated) ** 2))
    axes = (
        1 + np.linspace(-5, 5, 81) * first._b_prior,
        np.geomspace(0.01, 12, 25) * real,
        np.geomspace(0.01, 12, 25) * simulated,
    )
    for i, (axis, values, again) in enumerate(
        zip(
            axes,
            (first._b, first._tau, first._omega),
            (found._b, found._tau, found._omega),
            strict=True,
        )
    ):
        assert np.unique(values) == pytest.approx(axis)
        weight = np.moveaxis(first._weight.reshape(shape), i, 0).reshape(len(axis), -1).sum(axis=1)
        there = np.flatnonzero(weight > 1e-6 * weight.max())
        ends = axis[max(there[0] - 1, 0)], axis[min(there[-1] + 1, len(axis) - 1)]
        assert np.unique(again) == pytest.approx(np.linspace(*ends, len(axis)))


@pytest.mark.parametrize(
    ("slope", "skill", "verdict"),
    [
        ((-2.0, -0.1), (0.1, 0.4), "foretells the opposite"),
        ((-2.0, 0.0), (0.1, 0.9), "not known"),
        ((-2.0, 0.0), (0.1, 0.4), "wrong"),
        ((0.1, 0.9), (0.1, 0.49), "wrong"),
        ((0.1, 0.9), (0.1, 0.5), "foretells"),
        ((0.0, 0.9), (0.1, 0.5), "not known"),
    ],
)
def test_verdicts_on_both_sides_of_their_limits(slope, skill, verdict, monkeypatch):
    one = unlike()
    monkeypatch.setattr(one, "_quantiles", lambda values: Estimated(0.0, *slope))
    monkeypatch.setattr(one, "_skill", lambda: Estimated(0.0, *skill))
    found = one.relation()
    assert (found.verdict, found.launches) == (verdict, 7)


def test_a_simulator_that_exaggerates_twofold_is_halved():
    simulated = np.linspace(-0.05, 0.1, 20)
    launches = [Launch("", lift / 2, 1e-4, lift, 1e-4) for lift in simulated]
    relation = held(launches)
    assert relation.verdict == "foretells"
    assert relation.slope.value == pytest.approx(0.5, abs=0.01)
    assert relation.signs.value == 1.0
    assert relation.rank.value == pytest.approx(1.0)
    ahead = Calibrator(launches).forecast(0.08, 1e-4)
    assert ahead.value == pytest.approx(0.04, abs=0.001)
    assert ahead.low < 0.04 < ahead.high < 0.045
    assert ahead.better > 0.999


def test_a_noisy_simulated_lift_is_shrunk_towards_the_mean_of_all():
    launches, _, _ = drawn(np.random.default_rng(2), 30, 1.0, 0.003)
    one = Calibrator(launches)
    sharp, dull = one.forecast(0.08, 0.001), one.forecast(0.08, 0.2)
    assert sharp.value > 0.06
    assert abs(dull.value) < 0.02
    assert dull.high - dull.low > 2 * (sharp.high - sharp.low)


@pytest.mark.parametrize(
    ("n_launches", "slope", "spread"),
    [(5, 1.0, 0.01), (10, 1.0, 0.01), (10, 0.5, 0.02), (10, 0.0, 0.03), (30, 1.0, 0.01)],
)
def test_forecasts_hold_what_comes_as_often_as_they_say(n_launches, slope, spread):
    # Draws differ from case to case, so that one that is far off is not far off in all.
    rng, n = np.random.default_rng([7, n_launches, round(1000 * spread)]), 200
    inside = 0
    for _ in range(n):
        launches, simulated, real = drawn(rng, n_launches, slope, spread)
        ahead = forecast(launches, simulated)
        inside += ahead.low <= real <= ahead.high
    # 90 +- 4%; the standard error of a share of 200 is 2.1%.
    assert abs(inside / n - 0.9) < 0.065


def test_a_forecast_is_the_t_interval_of_a_regression_where_nothing_is_noisy():
    rng, n, tiny = np.random.default_rng(3), 10, 1e-6
    simulated = 0.03 * rng.standard_normal(n)
    real = 0.5 * simulated + 0.02 * rng.standard_normal(n)
    one = Calibrator([Launch("", real[i], tiny, simulated[i], tiny) for i in range(n)])
    ahead = one.forecast(0.03, tiny)
    line = linregress(simulated, real)
    rest = real - line.intercept - line.slope * simulated
    scale = np.sqrt((rest**2).sum() / (n - 2))
    off = (0.03 - simulated.mean()) ** 2 / ((simulated - simulated.mean()) ** 2).sum()
    reach = t.ppf(0.95, n - 2) * scale * np.sqrt(1 + 1 / n + off)
    # The prior of the slope shrinks it a little, and the grid is not fine.
    assert ahead.high - ahead.low == pytest.approx(2 * reach, rel=0.03)


def test_a_wrong_simulator_is_called_wrong_and_a_right_one_is_not():
    rng = np.random.default_rng(6)
    wrong = [held(drawn(rng, 30, 0.0, 0.02)[0]).verdict for _ in range(40)]
    right = [held(drawn(rng, 30, 1.0, 0.01)[0]).verdict for _ in range(40)]
    turned = [held(drawn(rng, 30, -1.0, 0.01)[0]).verdict for _ in range(10)]
    few = [held(drawn(rng, 5, 0.0, 0.03)[0]).verdict for _ in range(40)]
    assert wrong.count("wrong") >= 34
    assert wrong.count("foretells") <= 4
    assert right == ["foretells"] * 40
    assert turned == ["foretells the opposite"] * 10
    assert few.count("foretells") <= 4
    assert few.count("not known") >= 20


def test_a_simulator_that_says_that_all_do_alike_is_wrong_where_real_lifts_differ():
    rng = np.random.default_rng(8)
    verdicts = []
    for _ in range(40):
        simulated, noise = NOISE * rng.standard_normal((2, 10))
        real = 0.3 * rng.standard_normal(10) + noise
        verdicts.append(held(launched(real, simulated)).verdict)
    assert verdicts.count("wrong") >= 36
    # Where real lifts do not differ beyond their noise either, nothing is known.
    assert held(launched(*(NOISE * rng.standard_normal((2, 10))))).verdict == "not known"


def test_a_right_simulator_is_called_wrong_at_most_once_in_twenty():
    """The least that is right: it knows half of how real lifts vary."""
    rng = np.random.default_rng(9)
    verdicts = [held(drawn(rng, n, 1.0, 0.03)[0]).verdict for n in (8, 16, 30) * 100]
    assert verdicts.count("wrong") <= 0.05 * 300
    assert verdicts.count("foretells") >= 0.6 * 300


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_figures_of_a_relation_are_quantiles_of_the_law_that_is_held(level):
    """Against draws of the nodes by their weights, and by scipy what needs no law."""
    launches, _, _ = drawn(np.random.default_rng(11), 12, 0.8, 0.02)
    launches[3] = Launch("turned", -launches[3].simulated, NOISE, launches[3].simulated, NOISE)
    one = Calibrator(launches, level)
    found, tails = one.relation(), [(1 - level) / 2, (1 + level) / 2]
    at = np.random.default_rng(1).choice(len(one._weight), 200_000, p=one._weight)
    b, tau, omega = one._b[at], one._tau[at], one._omega[at]
    shrunk = np.clip(b, 0.0, 1.0)
    skill = 1 - (tau**2 + ((b - shrunk) * omega) ** 2) / (tau**2 + (b * omega) ** 2)
    for figure, law in ((found.slope, b), (found.spread, tau), (found.skill, skill)):
        wanted = np.quantile(law, [0.5, *tails])
        near = np.diff(np.unique(law)).max()  # as nodes of the grid are to each other
        assert [figure.value, figure.low, figure.high] == pytest.approx(wanted, abs=near)
    assert found.rises == pytest.approx((b > 0).mean(), abs=0.003)
    real, simulated = (np.array([getattr(x, kind) for x in launches]) for kind in KINDS)
    same = int((real * simulated > 0).sum())
    ends = binomtest(same, 12).proportion_ci(level)
    assert 0 < same < 12
    shares = [found.signs.value, found.signs.low, found.signs.high]
    assert shares == pytest.approx([same / 12, ends.low, ends.high])
    rho = spearmanr(real, simulated).statistic
    reach = norm.ppf(tails[1]) * np.sqrt((1 + rho**2 / 2) / 9)
    assert found.rank.value == pytest.approx(rho)
    assert [found.rank.low, found.rank.high] == pytest.approx(
        np.tanh([np.arctanh(rho) - reach, np.arctanh(rho) + reach])
    )


def test_signs_that_all_agree_or_all_differ_have_half_open_intervals():
    lifts = np.linspace(0.01, 0.1, 6)
    alike, unlike = held(launched(lifts, lifts[::-1])).signs, held(launched(-lifts, lifts)).signs
    assert (alike.value, alike.high, unlike.value, unlike.low) == (1.0, 1.0, 0.0, 0.0)
    assert alike.low == pytest.approx(0.025 ** (1 / 6)) == pytest.approx(1 - unlike.high)


def test_a_page_of_launches_prints_what_was_found():
    figure = Estimated(0.5, 0.25, 0.75)
    relation = Relation(
        12, Estimated(0.75, 0.428, 0.945), figure, Estimated(0.5, -0.1, 1.2),
        Estimated(0.0123, 0.01, 0.02), figure, 0.9, "not known",
    )  # fmt: skip
    pair = LaunchPair("one", "b", "a", Estimated(0.0123, -0.01, 0.05), Estimated(0.2, 0.1, 0.3))
    ahead = ArmForecast("c", Estimated(0.1, 0.0, 0.2), Forecast(0.0456, -0.02, 0.1, 0.876))
    known = MetricLaunches("click", (pair, pair), relation, "", (ahead,))
    unknown = MetricLaunches("like", (pair,), None, "too few", ())
    told = " ".join(markdown(document(LaunchResult("s", "a", (known, unknown)))).split())
    for words in (
        "Of 12 launches 75% (43% to 94%) have the same sign",
        "reality has 0.50% (-0.10 to 1.20); rank correlation 0.50 (0.25 to 0.75)",
        "It explains 50% (25% to 75%) of how real lifts vary; beyond that they vary by 1.2%.",
        "Like: too few.",
        "Not launched, over a",
        "90% interval",
    ):
        assert words in told, words
    for cells in (
        ["c", "+10.00%", "+4.56%", "-2.00% to +10.00%", "88%"],
        ["1", "one", "+1.23%", "-1.00% to +5.00%", "+20.00%", "+10.00% to +30.00%"],
        ["2", "one", "+1.23%", "-1.00% to +5.00%", "+20.00%", "+10.00% to +30.00%"],
    ):
        assert f"| {' | '.join(cells)} |" in told, cells


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"real_error": 0.0}, r"launch '0': lifts must be finite and standard errors above 0"),
        ({"simulated_error": 0.0}, r"launch '0': lifts must be finite and standard errors above 0"),
        ({"simulated_error": -1.0}, r"launch '0': lifts must be finite and standard errors above"),
        ({"real": float("inf")}, r"launch '0': lifts must be finite"),
        ({"simulated": float("nan")}, r"launch '0': lifts must be finite"),
    ],
)
def test_numbers_that_cannot_be_are_named(change, message):
    launches, _, _ = drawn(np.random.default_rng(1), 6, 1.0, 0.01)
    first = {**launches[0].__dict__, **change}
    with pytest.raises(TableError, match=message):
        Calibrator([Launch(**first), *launches[1:]])


def test_too_few_or_equal_launches_say_nothing():
    launches, _, _ = drawn(np.random.default_rng(1), 4, 1.0, 0.01)
    with pytest.raises(TableError, match="at least 5 launches are needed"):
        Calibrator(launches)
    with pytest.raises(TableError, match="the real lifts of all launches are the same"):
        Calibrator([Launch("", 0.01, 0.01, i / 100, 0.01) for i in range(6)])


# --- the file


def of_arms(*arms: str, **changes: object) -> Scenario:
    content = {arm: {"policy": "popularity", "params": {"half_life": i + 1.0}}
               for i, arm in enumerate(arms)}  # fmt: skip
    return Scenario.model_validate(tiny_scenario(content, **changes))


def read_tests(folder: Path, *lines: str) -> list[PastTest]:
    """Of a scenario with the arms a, b and c, a the control."""
    file = folder / "tests.csv"
    file.write_text("\n".join(lines) + "\n")
    return past_tests(file, of_arms("a", "b", "c"))


def test_a_row_is_a_test_with_its_lift_and_error(tmp_path):
    """Without a name it has that of its arm; without an arm its number; an error may stand as ends
    of an interval.
    """
    head = "test,arm,control,metric,lift,low,high,simulated,simulated_se"
    got = read_tests(
        tmp_path, head,
        "one,b,c,click,0.05,0.01,0.09,,",
        ",b,,click,0.02,-0.01,0.05,,",
        ",,,like,0.01,0,0.02,0.3,0.1",
    )  # fmt: skip
    width = 2 * norm.ppf(0.975)
    assert got == [
        PastTest("one", "click", "b", "c", (0.05, pytest.approx(0.08 / width)), None, "line 2"),
        PastTest("b", "click", "b", "a", (0.02, pytest.approx(0.06 / width)), None, "line 3"),
        PastTest("row 3", "like", "", "a", (0.01, pytest.approx(0.02 / width)), (0.3, 0.1),
                 "line 4"),
    ]  # fmt: skip
    bare = read_tests(tmp_path, "arm,metric,lift,se", "b,click,1,2")
    assert bare == [PastTest("b", "click", "b", "a", (1.0, 2.0), None, "line 2")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["arm,metric,lift,se", "x,click,1,1"],
         "line 2: column 'arm': no arm 'x' in the scenario; there is a, b, c; or give 'simulated'"
         " and 'simulated_se'"),
        (["arm,control,metric,lift,se", "b,x,click,1,1"],
         "line 2: column 'control': no arm 'x' in the scenario; there is a, b, c; or give"
         " 'simulated' and 'simulated_se'"),
        (["arm,metric,lift,se", "b,click,1,1", "a,click,1,1"],
         "line 3: arm and control are both 'a'"),
        (["arm,lift,se", "b,1,1"], "no column 'metric'; it has arm, lift, se"),
        (["arm,metric,lift,se", "b,click,1,1", "b,,1,1"], "line 3: column 'metric' has no value"),
        (["arm,metric,lift,se", "b,click,1,1", "b,click,1,0"],
         "line 3: column 'se' must be above 0"),
        (["arm,metric,lift,low,high", "b,click,1,0,1", "b,click,1,1,1"],
         "line 3: column 'high' must be above 'low'"),
        (["arm,metric,lift,low", "b,click,1,0"],
         "no column 'se', nor 'low' and 'high' of a 95% interval"),
        (["metric,lift,se,simulated,simulated_se", "click,1,1,1,0"],
         "line 2: column 'simulated_se' must be above 0 where 'simulated' is given; got 0.0"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named_by_its_line(lines, message, tmp_path):
    with pytest.raises(ReportError) as error:
        read_tests(tmp_path, *lines)
    file = tmp_path / "tests.csv"
    assert str(error.value) == f"{file}: {message} (docs/offpolicy.md has an example)"


def past(test: str, arm: str, lift: float, metric: str = "click", **more: object) -> PastTest:
    known = {"control": "a", "real": (lift, 0.01), "simulated": None, "place": "line 9"} | more
    return PastTest(test, metric, arm, **known)


def test_metrics_of_launches_are_the_scenarios():
    named = of_arms("a", "b", metrics=["click", {"watch_time": "lower"}])
    _hold_to_metrics([past("x", "b", 0.1), past("y", "b", 0.1, "watch_time")], named, Path("f.csv"))
    with pytest.raises(ReportError) as error:
        _hold_to_metrics([past("x", "b", 0.1, "clicks")], named, Path("f.csv"))
    assert str(error.value) == (
        "f.csv: line 9: no metric 'clicks' in the scenario; did you mean 'click'?"
    )


def test_launches_are_held_against_the_simulators_lifts_by_metric():
    """Five of clicks by two arms, of which one over another control; two of likes are too few. What
    the simulator cannot say is left out; arms that no launch has are forecast.
    """
    world = of_arms("a", "b", "c", "d", "e")
    tests = [
        past("one", "b", 0.02), past("two", "c", 0.03), past("three", "b", 0.01, control="c"),
        past("four", "", -0.02, simulated=(-0.01, 0.02)),
        past("five", "", 0.05, simulated=(0.06, 0.03)), past("six", "e", 0.5),
        past("seven", "b", 0.1, "like"), past("eight", "e", 0.1, "like"),
    ]  # fmt: skip
    lifts = {
        ("click", "b", "a"): (0.03, 0.01), ("click", "c", "a"): (0.05, 0.01),
        ("click", "b", "c"): (0.0, 0.02), ("click", "d", "a"): (0.04, 0.01),
        ("like", "b", "a"): (0.2, 0.1), ("like", "d", "a"): (0.3, 0.1),
    }  # fmt: skip
    found = held_against(world, tests, lifts)
    assert (found.scenario, found.control, found.level) == ("tiny", "a", LEVEL)
    clicks, likes = found.metrics
    assert [pair.test for pair in clicks.pairs] == ["one", "two", "three", "four", "five"]

    def of(lift: float, error: float) -> Estimated:
        half = norm.ppf(0.975) * error
        return Estimated(lift, pytest.approx(lift - half), pytest.approx(lift + half))

    assert clicks.pairs[2] == LaunchPair("three", "b", "c", of(0.01, 0.01), of(0.0, 0.02))
    simulated = [(0.03, 0.01), (0.05, 0.01), (0.0, 0.02), (-0.01, 0.02), (0.06, 0.03)]
    real = [(0.02, 0.01), (0.03, 0.01), (0.01, 0.01), (-0.02, 0.01), (0.05, 0.01)]
    names = [pair.test for pair in clicks.pairs]
    whole = Calibrator([Launch(n, *r, *m) for n, r, m in zip(names, real, simulated, strict=True)])
    assert (clicks.metric, clicks.why, clicks.relation) == ("click", "", whole.relation())
    ahead = ArmForecast("d", of(0.04, 0.01), whole.forecast(0.04, 0.01, level=0.9))
    assert clicks.forecasts == (ahead,)
    assert (likes.metric, likes.relation, likes.forecasts) == ("like", None, ())
    assert [pair.test for pair in likes.pairs] == ["seven"]
    assert likes.why.startswith("at least 5 launches are needed")
    with pytest.raises(ReplayError, match="tiny: no launch has a lift in the simulator: what its"):
        held_against(world, [past("six", "e", 0.5)], lifts)


def test_simulated_lifts_are_relative_over_each_control():
    log = hand_counted_log()
    found = simulated_lifts(log, ["a", "b"])
    controls = {control for _, _, control in found}
    assert controls == {"a", "b"}
    for (metric, arm, control), (lift, error) in found.items():
        assert arm != control
        assert error > 0
        back, other = found[metric, control, arm]
        assert 1 + lift == pytest.approx(1 / (1 + back))
        # The same difference, as a share of the other mean.
        assert error == pytest.approx(other * (1 + lift))


# --- the command


ARMS = {
    "popularity": {"policy": "popularity"},
    "itemknn": {"policy": "itemknn"},
    "random": {"policy": "random"},
    "recent": {"policy": "popularity", "params": {"half_life": 1}},
    "oracle": {"policy": "oracle"},
    "production": {"policy": "production"},
}

HEAD = "test,arm,control,metric,lift,se\n"
ROWS = (
    "one,itemknn,,click,0.05,0.01\n"
    "two,random,,click,-0.15,0.01\n"
    "three,recent,popularity,click,0.01,0.01\n"
    "four,production,itemknn,click,0.2,0.02\n"
    "five,random,production,click,-0.25,0.02\n"
)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launches")
    return write_scenario(folder, tiny_scenario(ARMS, metrics=["click", "watch_time"]))


@pytest.fixture(scope="module")
def ran(scenario: Path) -> Path:
    (scenario.parent / "tests.csv").write_text(HEAD + ROWS)
    done = CliRunner().invoke(main, invoked(scenario, "tests.csv"))
    assert done.exit_code == 0, done.output
    return scenario.parent / "out"


def invoked(scenario: Path, table: str, *more: str) -> list[str]:
    folder = scenario.parent
    launches = ["--launches", str(folder / table), "--out", str(folder / "out")]
    return ["fidelity", str(scenario), *launches, *more]


def test_launches_stand_beside_the_lifts_of_the_run(ran):
    content = json.loads((ran / "launches.json").read_text())
    (metric,) = content["metrics"]
    assert [pair["test"] for pair in metric["pairs"]] == ["one", "two", "three", "four", "five"]
    assert metric["pairs"][0]["real"]["value"] == 0.05
    half = 1.959964 * 0.01
    ends = [metric["pairs"][0]["real"][end] for end in ("low", "high")]
    assert ends == pytest.approx([0.05 - half, 0.05 + half])
    # A lift over another control than the scenario's, by hand from the users' sums.
    frame = EventLog.open(ran / "run" / "log").table.to_pandas()
    frame = frame[frame["t"] >= 0]
    arms = ("history", *sorted(ARMS))
    clicks = frame.groupby("arm")["click"].sum()
    by_hand = clicks[arms.index("production")] / clicks[arms.index("itemknn")] - 1
    assert metric["pairs"][3]["simulated"]["value"] == pytest.approx(by_hand, abs=1e-12)
    # Arms over the scenario's control that no launch has.
    assert [one["arm"] for one in metric["forecasts"]] == ["oracle", "production"]
    page = (ran / "launches.html").read_text()
    assert "Forecast of the real lift" in page
    assert (ran / "launches.md").is_file()


def test_a_test_whose_policies_are_not_at_hand_brings_the_simulators_lift(scenario, ran):
    table = scenario.parent / "labels.csv"
    rows = [f"t{i},,,click,{i / 100},{i / 100 - 0.02},{i / 50},0.01" for i in range(1, 7)]
    head = "test,arm,control,metric,lift,low,simulated,simulated_se"
    cells = [row.split(",") for row in rows]
    lines = [",".join([*row[:6], str(float(row[4]) + 0.02), *row[6:]]) for row in cells]
    table.write_text("\n".join([head.replace("low", "low,high"), *lines]))
    (first, *_) = past_tests(table, Scenario.load(scenario))
    assert first.simulated == (0.02, 0.01)
    assert first.real == pytest.approx((0.01, 0.02 / 1.96), rel=1e-4)
    done = CliRunner().invoke(main, invoked(scenario, "labels.csv", "--resume"))
    assert done.exit_code == 0, done.output
    (metric,) = json.loads((ran / "launches.json").read_text())["metrics"]
    assert metric["relation"]["launches"] == 6
    assert metric["relation"]["slope"]["value"] == pytest.approx(0.5, abs=0.1)


def test_too_few_launches_are_shown_without_a_verdict(scenario, ran):
    (scenario.parent / "few.csv").write_text(HEAD + ROWS.splitlines(keepends=True)[0])
    done = CliRunner().invoke(main, invoked(scenario, "few.csv", "--resume"))
    assert done.exit_code == 0, done.output
    assert "at least 5 launches are needed" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,itemkn,,click,0.1,0.1", "line 2: column 'arm': no arm 'itemkn' in the scenario; did"),
        ("x,random,popularty,click,0.1,0.1", "line 2: column 'control': no arm 'popularty' in"),
        ("x,popularity,,click,0.1,0.1", "line 2: arm and control are both 'popularity'"),
        ("x,random,,clicks,0.1,0.1", "line 2: no metric 'clicks' in the scenario; did you mean"),
        ("x,random,,,0.1,0.1", "line 2: column 'metric' has no value"),
        ("x,random,,click,,0.1", "line 2: column 'lift' has no finite number"),
        ("x,random,,click,0.1,0", "line 2: column 'se' must be above 0"),
    ],
)
def test_a_wrong_row_is_named_before_anything_runs(row, message, scenario):
    (scenario.parent / "wrong.csv").write_text(f"{HEAD}{row}\n")
    arguments = invoked(scenario, "wrong.csv")
    arguments[-1] = str(scenario.parent / "nowhere")
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (scenario.parent / "nowhere").exists()


def test_columns_that_are_missing_are_named(scenario, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("arm,metric,lift\nrandom,click,0.1\n")
    with pytest.raises(ReportError, match="no column 'se', nor 'low' and 'high'"):
        past_tests(table, Scenario.load(scenario))


def test_options_of_offline_figures_are_refused(scenario):
    done = CliRunner().invoke(main, invoked(scenario, "tests.csv", "--reward", "watch"))
    assert done.exit_code == 2
    assert "--reward is of offline figures; leave it out with --launches" in done.stderr
