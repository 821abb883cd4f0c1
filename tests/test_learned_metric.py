"""Sensitivity of metrics: what decides soonest, the learned sum, and what judges it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from simulator.cli import main
from simulator.report.errors import ReportError
from simulator.report.metric_sensitivity import in_words, sensitivity
from simulator.stats.learned_metric import HOPELESS, LEARNED, SOUGHT, Judged, Trial, _row, judge
from simulator.stats.unit_table import TableError
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
