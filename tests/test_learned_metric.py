"""Sensitivity of metrics: what decides soonest, the learned sum, and what judges it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from simulator.cli import main
from simulator.report.errors import ReportError
from simulator.report.metric_sensitivity import in_words, sensitivity
from simulator.stats import learned_metric as module
from simulator.stats.frames import metric_of
from simulator.stats.learned_metric import (
    CRITICAL,
    HOPELESS,
    LEARNED,
    SOUGHT,
    Judged,
    Trial,
    _row,
    judge,
)
from simulator.stats.resampling import coins
from simulator.stats.unit_table import TableError, UnitTable
from tests.worlds import feedback_log, switchback_log, with_fits

NAMES = ("strong", "weak", "noise", "against")
EFFECTS = np.array([0.30, 0.06, 0.0, -0.05])


def trial(run: int, arm: str = "new", n: int = 400, seed: int = 0, sign: float = 1.0) -> Trial:
    """Users whose `strong` and `noise` share what varies: their difference tells most."""
    random = np.random.default_rng([seed, run, ord(arm[0])])
    shared = random.normal(0, 1.0, n)
    own = random.normal(0, 1.0, (4, n)) * np.array([0.4, 1.0, 0.4, 1.0])[:, None]
    loads = np.array([1.0, 0.0, 1.0, 0.0])[:, None]
    values = own + loads * shared + sign * EFFECTS[:, None]
    control = np.random.default_rng([seed, run]).normal(0, 1.0, (4, n))
    return Trial(f"run {run}", arm, n, values.mean(axis=1), np.cov(values) / n, control)


def rows(judged: Judged) -> dict[str, float]:
    return {row.metric: row.users for row in judged.rows}


def test_users_needed_are_those_of_the_effect() -> None:
    judged = judge([trial(run) for run in range(12)], NAMES, "strong")
    users = rows(judged)
    variance = 1.0 + 0.4**2
    assert users["strong"] == pytest.approx(variance * (SOUGHT / 0.30) ** 2, rel=0.25)
    assert users["against"] == math.inf
    assert judged.trials == judged.of == 12


def test_the_learned_sum_takes_out_what_metrics_share() -> None:
    judged = judge([trial(run) for run in range(12)], NAMES, "strong")
    users = rows(judged)
    assert users[LEARNED] < 0.6 * users["strong"]
    weights = {one.metric: one.weight for one in judged.weights}
    assert weights["strong"] > 0 > weights["noise"]
    assert sum(map(abs, weights.values())) == pytest.approx(1.0)


def test_a_learned_sum_is_judged_on_runs_that_it_has_not_seen() -> None:
    # Noise alone, with a declared outcome: in the runs that it learns from, a sum of 4 metrics
    # reaches a z of 2 by choice; in others it does not.
    names = NAMES
    z = []
    for seed in range(20):
        trials = [trial(run, seed=seed, sign=0.0) for run in range(3)]
        judged = judge(trials, names, "strong", {"new": 1})
        z.append(judged.rows[0].z)
    assert abs(np.mean(z)) < 4 / math.sqrt(60)


def test_errors_of_the_first_kind_are_five_percent() -> None:
    judged = judge([trial(run) for run in range(4)], NAMES, "strong")
    for row in judged.rows:
        assert 0.01 < row.false < 0.11, row.metric


def test_a_metric_that_points_the_wrong_way_is_counted_as_wrong() -> None:
    trials = [trial(run, n=4000) for run in range(4)]
    wrong = {row.metric: row.wrong for row in judge(trials, NAMES, "strong").rows}
    assert wrong["against"] > 0.5
    assert wrong["strong"] == 0.0
    # By the other reference it is the other way round.
    turned = {row.metric: row.wrong for row in judge(trials, NAMES, "against").rows}
    assert turned["strong"] == 1.0


def test_figures_of_a_metric_are_those_of_its_trials_z() -> None:
    """A trial's z is its rate times the root of its users; .8 power needs a z of SOUGHT."""
    z, sizes = np.array([3.0, 1.0, -2.5, np.nan]), np.array([10.0, 20.0, 10.0, 5.0])
    one = _row("m", z, sizes, 0.04, 500.0)
    rate = (0.3 + 0.05 - 0.25) / 3
    assert [one.z, one.z_low, one.z_high] == pytest.approx([0.5, -2.5, 3.0])
    assert [one.right, one.wrong, one.undecided] == pytest.approx([0.25, 0.25, 0.5])
    assert one.users == pytest.approx((SOUGHT / rate) ** 2)
    assert one.times == pytest.approx(one.users / 500)
    assert one.words == f"needs {one.times:.1f} times the users"
    assert _row("m", z, sizes, 0.04, one.users).words == "decides at this size"
    assert _row("m", z, sizes, 0.04, one.users / HOPELESS / 1.01).words == "hopeless at this size"
    assert (
        f"{_row('m', z, sizes, 0.04, one.users / HOPELESS * 1.01).times:.0f}" == f"{HOPELESS:.0f}"
    )
    assert "other way" in _row("m", -z, sizes, 0.04, 500.0).words
    still = _row("m", z * np.nan, sizes, 0.0, 500.0)
    assert (still.right, still.wrong, still.undecided, still.users) == (0.0, 0.0, 1.0, math.inf)
    assert still.words == "nothing varies"


def test_the_learned_sum_comes_first_then_metrics_by_the_users_that_they_need() -> None:
    turned = [
        replace(
            one,
            differences=one.differences[::-1],
            covariance=one.covariance[::-1, ::-1],
            control=one.control[::-1],
        )
        for one in map(trial, range(6))
    ]
    judged = judge(turned, NAMES[::-1], "strong")
    first, *others = judged.rows
    assert first.metric == LEARNED
    assert others[0].metric == "strong"
    assert [one.users for one in others] == sorted(one.users for one in others)
    needless = [one.z for one in others if math.isinf(one.users)]
    assert needless == sorted(needless, reverse=True)
    (known,) = judged.known
    difference = sum(one.differences[3] for one in turned)
    pooled = difference / math.sqrt(sum(one.covariance[3, 3] for one in turned))
    assert known.z == pytest.approx(pooled)
    assert (known.arm, known.outcome, known.trials) == ("new", 1, 6)


def test_what_nobody_knows_is_not_judged() -> None:
    quiet = [trial(run, sign=0.0, seed=9) for run in range(3)]
    with pytest.raises(TableError, match=r"declare an outcome"):
        judge(quiet, NAMES, "strong")
    with pytest.raises(TableError, match="at least two runs"):
        judge([trial(0)], NAMES, "strong")
    with pytest.raises(TableError, match="no metric 'other'"):
        judge([trial(0), trial(1)], NAMES, "other")


def test_runs_fits_and_the_command(tmp_path: Path) -> None:
    paths = []
    for seed in range(3):
        path = tmp_path / f"{seed}.parquet"
        feedback_log(200, days=2, arms=("a", "b", "c"), seed=seed).write(path)
        paths.append(path)
    judged = sensitivity(paths, reference="click")
    assert {one.arm: one.outcome for one in judged.known}["c"] == 1
    assert "Click decides soonest" in in_words(judged)[0]
    command = ["sensitivity", *map(str, paths), "--reference", "click", "--better", "c"]
    result = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "hopeless at this size" in result.output
    assert "as declared" in result.output
    stored = json.loads((tmp_path / "out/sensitivity.json").read_text())
    assert stored["rows"][0]["metric"] == LEARNED
    assert (tmp_path / "out/sensitivity.html").is_file()
    # The fits of one run are trials of their own.
    fitted = tmp_path / "fits.parquet"
    with_fits(feedback_log(600, days=2, arms=("a", "b")), 3).write(fitted)
    assert sensitivity([fitted], declared={"b": 1}, metrics=["click", "like"]).of == 3


def test_runs_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{name}.parquet" for name in "abc")
    feedback_log(40, days=2, arms=("a", "b")).write(first)
    feedback_log(40, days=2, arms=("a", "z")).write(second)
    switchback_log([0, 1], np.ones((3, 2), dtype=int)).write(third)
    with pytest.raises(ReportError, match="same arms"):
        sensitivity([first, second])
    with pytest.raises(ReportError, match="days are the units"):
        sensitivity([third])
    with pytest.raises(ReportError, match="items_shown is of the supply side"):
        sensitivity([first, second], metrics=["items_shown"])
    alone = tmp_path / "alone.parquet"
    feedback_log(40, days=2, arms=("a",)).write(alone)
    with pytest.raises(ReportError, match="has one arm, 'a', and nothing"):
        sensitivity([first, alone])
    with pytest.raises(ReportError, match="no treatment arm 'x'"):
        sensitivity([first], declared={"x": 1})
    result = CliRunner().invoke(main, ["sensitivity", str(first), "--better", "b", "--worse", "b"])
    assert result.exit_code == 2
    assert "cannot be both" in result.output


def test_limits_are_those_of_the_normal_law() -> None:
    decides, of_power = stats.norm.ppf([0.975, 0.8])
    assert pytest.approx(decides, rel=1e-12) == CRITICAL
    assert pytest.approx(decides + of_power, rel=1e-12) == SOUGHT


def test_a_trial_of_a_table_by_numpy() -> None:
    """In the direction that is better, of users in one arm each."""
    random = np.random.default_rng(3)
    values = {name: random.gamma(2.0, 1.0, 30) for name in ("up", "down", "spot")}
    metrics = {
        name: replace(metric_of(name, name), higher_is_better=higher)
        for name, higher in (("up", True), ("down", False), ("spot", None))
    }
    table = UnitTable("user", ("a", "b", "c"), metrics, values, assigned=np.arange(30) % 3)
    names = ("down", "up", "spot")
    found = Trial.of("r", table, "a", "c", names)
    own = {arm: np.stack([values[n][i::3] for n in names]) for i, arm in enumerate("abc")}
    signs = np.array([-1.0, 1.0, 1.0])
    assert (found.run, found.arm, found.n_units) == ("r", "c", 20)
    assert found.differences == pytest.approx(signs * (own["c"] - own["a"]).mean(axis=1))
    spread = sum(np.cov(own[arm]) / 10 * 9 / 10 for arm in "ac")
    assert found.covariance == pytest.approx(spread * np.outer(signs, signs))
    assert found.control == pytest.approx(signs[:, None] * own["a"])


def made(run: str, arm: str, differences: list[float], **more: object) -> Trial:
    """A trial of two metrics whose errors are 1 and 2, and go together by a half."""
    covariance = np.array([[1.0, 1.0], [1.0, 4.0]])
    control = np.random.default_rng(len(run)).normal(size=(2, 20))
    given = {"n_units": 100, "covariance": covariance, "control": control} | more
    return Trial(run=run, arm=arm, differences=np.array(differences), **given)  # type: ignore[arg-type]


def test_z_of_a_weighted_sum() -> None:
    one = made("r", "b", [3.0, 1.0])
    assert one.z(np.array([1.0, 0.0])) == 3.0
    assert one.z(np.array([2.0, -1.0])) == pytest.approx(5 / math.sqrt(4 - 4 + 4))
    assert math.isnan(one.z(np.zeros(2)))
    assert math.isnan(replace(one, covariance=np.zeros((2, 2))).z(np.ones(2)))


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [([2.0, 0.78], 1), ([2.0, 0.76], 0), ([-2.0, -0.78], -1), ([-2.0, -0.76], 0), ([0.0, 0.0], 0)],
)
def test_an_outcome_is_that_of_all_trials_of_the_arm(
    differences: list[float], outcome: int
) -> None:
    """Of errors 1 and 1 the sum must be beyond 1.96 times the root of 2."""
    unit = np.array([1.0, 0.0])
    trials = [made("r", "b", [differences[0], 9.0]), made("s", "b", [differences[1], 9.0]),
              made("s", "a", [-50.0, 0.0]), made("s", "c", [50.0, 0.0])]  # fmt: skip
    found, z = module._outcome(trials, "b", unit, {})
    assert (found, z) == (outcome, pytest.approx(sum(differences) / math.sqrt(2)))
    assert module._outcome(trials, "b", unit, {"b": -1})[0] == -1
    assert math.isnan(module._outcome(trials, "b", unit, {"b": -1})[1])
    nobody = module._outcome(trials, "z", unit, {})
    assert (nobody[0], math.isnan(nobody[1])) == (0, True)


def test_weights_are_those_of_shrunk_covariances() -> None:
    trials = [(made("r", "b", [3.0, 1.0]), 1), (made("s", "c", [-2.0, 2.0]), -1),
              (made("t", "d", [70.0, -90.0]), 0)]  # fmt: skip
    found = module._learn(trials)
    covariance = 2 * np.array([[1.0, 1.0], [1.0, 4.0]])
    shrunk = 0.9 * covariance + 0.1 * np.diag(np.diag(covariance))
    assert found == pytest.approx(np.linalg.solve(shrunk, [5.0, -1.0]))
    still = np.array([[0.0, 0.0], [0.0, 4.0]])
    some = module._learn([(replace(made("r", "b", [3.0, 1.0]), covariance=still), 1)])
    assert some is not None
    assert some.tolist() == [0.0, 0.25]
    none = replace(made("r", "b", [3.0, 1.0]), covariance=0 * still)
    assert module._learn([(none, 1)]) is None
    assert module._learn(trials[2:]) is None


def test_false_decisions_are_counted_over_halves_of_the_control() -> None:
    one, weights = made("r", "b", [3.0, 1.0]), np.array([1.0, 0.5])
    own = weights @ one.control
    decided = total = 0
    for heads in coins(20, 30, 5):
        for side in heads == 1:
            decided += bool(stats.ttest_ind(own[side], own[~side], equal_var=False).pvalue < 0.05)
            total += 1
    assert total == 30
    assert module._false(one, weights, 30, 5) == decided / 30


def test_two_runs_judge_each_other() -> None:
    """Two runs of two arms: what each says of the other, by hand."""
    trials = [
        made("r", "b", [3.0, 1.0], n_units=100), made("r", "c", [-4.0, -3.0], n_units=200),
        made("run s", "b", [5.0, 2.0], n_units=300), made("run s", "c", [-1.0, 0.5], n_units=400),
    ]  # fmt: skip
    told = []
    judged = judge(trials, ("x", "y"), "x", progress=lambda *done: told.append(done))
    assert told == [(0, 2), (1, 2), (2, 2)]
    # Run s does not know of c (z -1), so that of r only b is judged.
    assert (judged.reference, judged.trials, judged.of) == ("x", 3, 4)
    assert judged.users == pytest.approx((100 + 300 + 400) / 3)
    for known, (arm, outcome, z) in zip(
        judged.known, (("b", 1, 8 / math.sqrt(2)), ("c", -1, -5 / math.sqrt(2))), strict=True
    ):
        assert (known.arm, known.outcome, known.trials) == (arm, outcome, 2)
        assert known.z == pytest.approx(z)
    rows = {row.metric: row for row in judged.rows}
    z = np.array([3.0, 5.0, 1.0])
    sizes = np.sqrt([100, 300, 400])
    x = _row("x", z, sizes, rows["x"].false, judged.users)
    assert rows["x"] == x
    assert rows["y"].z == pytest.approx(np.mean([1 / 2, 2 / 2, -0.5 / 2]))
    first = module._learn([(trials[2], 1)])
    second = module._learn([(trials[0], 1), (trials[1], -1)])
    assert first is not None
    assert second is not None
    learned = [trials[0].z(first), trials[2].z(second), -trials[3].z(second)]
    assert rows[LEARNED].z == pytest.approx(np.mean(learned))
    eye = np.eye(2)
    for name, weights in (
        ("x", (eye[0], eye[0])),
        ("y", (eye[1], eye[1])),
        (LEARNED, (first, second)),
    ):
        false = [
            module._false(trials[at], one, 200, seed)
            for seed, (at, one) in enumerate(zip((0, 2), weights, strict=True))
        ]
        assert rows[name].false == pytest.approx(np.mean(false))
    every = module._learn([(t, 1 if t.arm == "b" else -1) for t in trials])
    spread = np.concatenate([t.control for t in trials], axis=1).std(axis=1)
    shares = np.array([w * spread / np.abs(w * spread).sum() for w in (every, first, second)])
    for weight in judged.weights:
        own = shares[:, ("x", "y").index(weight.metric)]
        assert (weight.weight, weight.low, weight.high) == pytest.approx(
            (own[0], own.min(), own.max())
        )
    assert [abs(w.weight) for w in judged.weights] == sorted(
        (abs(w.weight) for w in judged.weights), reverse=True
    )
    # What is declared goes before what is measured.
    turned = judge(trials, ("x", "y"), "x", {"c": 1})
    assert [(known.outcome, math.isnan(known.z)) for known in turned.known] == [
        (1, False),
        (1, True),
    ]
    assert turned.trials == 4


def test_halves_are_as_many_whatever_the_number_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        module, "_false", lambda trial, weights, n, seed: asked.append((trial.run, n, seed)) or 0.0
    )
    trials = [made(run, arm, [9.0, 1.0]) for run in ("r", "s", "t") for arm in "bc"]
    judge(trials, ("x", "y"), "x")
    expected = [(run, 134, seed) for seed, run in enumerate("rst") for _ in range(3)]
    assert asked == expected
    assert module.HALVES == 400


def test_nobody_knows_in_words() -> None:
    trials = [made(run, "b", [1.0, 1.0]) for run in ("r", "s")]
    with pytest.raises(TableError) as error:
        judge(trials, ("x", "y"), "y")
    assert str(error.value) == (
        "sensitivity: of no arm the other runs together know whether it is better in y (b: z 0.71;"
        " |z| of 1.96 is needed): give more runs, larger ones, another reference, or declare an"
        " outcome"
    )
    with pytest.raises(TableError) as error:
        judge(trials[:1] * 2, ("x", "y"), "y")
    assert str(error.value) == (
        "sensitivity: at least two runs, or a run with several fits, since a run may not judge"
        " itself; got 1"
    )


@pytest.mark.parametrize(
    ("rate", "words"),
    [(2.81, "decides at this size"), (2.79, "needs 1.0 times the users"),
     (0.63, "needs 19.8 times the users"), (0.62, "hopeless at this size"),
     (0.0, "points the other way, or nowhere"), (-0.1, "points the other way, or nowhere")],
)  # fmt: skip
def test_how_soon_a_metric_decides_in_words(rate: float, words: str) -> None:
    row = _row("x", np.array([rate]) * 10, np.array([10.0]), 0.05, 1.0)
    assert row.words == words
    assert row.users == (math.inf if rate <= 0 else pytest.approx((SOUGHT / rate) ** 2))
