"""The pooled lift of policies that are known: its algebra by hand, its error rates where the truth
is known, and the command on a run.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.pooled import memoryless
from policies.base import Histories
from simulator.cli.pooled import pooled as command
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.offpolicy.pooled import (
    LEVELS,
    ArmSums,
    _Lives,
    carry_over,
    halves,
    pooled_audit,
    pooled_lift,
    pooled_moments,
)
from simulator.offpolicy.pooled_run import _check
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.settings import ReplayError
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.stats import moments

NAMES = "control", "treatment"


@pytest.fixture(scope="module")
def twins() -> tuple[ArmSums, ArmSums]:
    return memoryless(0.1, 400)


def test_the_difference_is_that_of_the_requests_in_which_the_policies_differ(
    twins: tuple[ArmSums, ArmSums],
) -> None:
    control, treatment = halves(*twins, seed=1)
    both = [moments.sample(arm.columns("slate")) for arm in (control, treatment)]
    plain = pooled_moments(*both, adjusted=False)
    differing = treatment.differing["slate"].mean() - control.differing["slate"].mean()
    assert plain.difference == pytest.approx(differing)
    assert plain.control == pytest.approx(control.reward.mean())
    # By hand: the variance of a difference of means, adjusted by the slope of both arms.
    ours = pooled_moments(*both)
    ys, ns = (
        [getattr(arm, name)["slate"] for arm in (control, treatment)]
        for name in ("differing", "decisions")
    )
    size = [len(y) for y in ys]
    slope = sum(np.cov(y, n)[0, 1] / k for y, n, k in zip(ys, ns, size, strict=True)) / sum(
        np.var(n, ddof=1) / k for n, k in zip(ns, size, strict=True)
    )
    left = [y - slope * n for y, n in zip(ys, ns, strict=True)]
    assert ours.difference == pytest.approx(left[1].mean() - left[0].mean())
    assert ours.variance == pytest.approx(
        sum(np.var(one, ddof=1) / k for one, k in zip(left, size, strict=True))
    )


def test_equal_policies_do_not_differ_at_all() -> None:
    same = memoryless(0.0, 50)
    lift = pooled_lift(NAMES, *halves(*same, seed=0), "life")
    assert (float(lift.moments.lift), lift.low, lift.high) == (0, 0, 0)
    assert np.isnan(lift.p)
    assert lift.sentence.startswith(
        "There is no difference at all: the policies decide alike in 100%"
    )


def test_answers_before_the_first_difference_of_a_life_cancel(
    twins: tuple[ArmSums, ArmSums],
) -> None:
    """Of deterministic policies a life counts from its first differing request on."""
    control, treatment = twins
    for arm in twins:
        assert (arm.differing["life"] <= arm.reward).all()
        assert (arm.decisions["slate"] <= arm.decisions["life"]).all()
    kept = [arm.reward - arm.differing["life"] for arm in (control, treatment)]
    assert kept[0] == pytest.approx(kept[1])


def test_chances_are_multiplied_along_each_life_in_the_order_of_steps() -> None:
    lives = _Lives()
    user, step = np.array([1, 0, 1, 0, 1]), np.array([5, 2, 3, 9, 4])
    first, second = np.array([0.5, 0.1, 0.2, 1.0, 1.0]), np.array([0.25, 0.2, 0.4, 0.5, 0.0])
    past = np.zeros((5, 1), dtype=np.int64)
    nothing = past > 0
    rounds = Rounds(
        user, past[:, 0], past[:, 0], past[:, 0], past, past, past.astype(float),
        past.astype(float), "unknown", past[:, 0], Histories(user, step, past, nothing, past),
    )  # fmt: skip
    lives.add(rounds, np.arange(5.0), first, second)
    got = {}
    for users, reward, one, other in lives.by_request():
        for i in range(len(users)):
            got[int(reward[i])] = other[i] / one[i]
    # User 0: steps 2, 9 (rows 1, 3); user 1: steps 3, 4, 5 (rows 2, 4, 0).
    assert got == pytest.approx({1: 2.0, 3: 1.0, 2: 2.0, 4: 0.0, 0: 0.0})


def test_error_rates_and_gain_where_nothing_that_was_shown_changes_anything(
    twins: tuple[ArmSums, ArmSums],
) -> None:
    for audit in pooled_audit(*twins, n=400, repetitions=600, levels=("life", "slate")):
        error = 3 * np.sqrt(0.95 * 0.05 / 600)
        print(audit)
        assert audit.error.value == pytest.approx(0.05, abs=error)
        assert audit.coverage.value == pytest.approx(0.95, abs=error)
        assert audit.gain > (1.05 if audit.level == "life" else 30)
    assert carry_over(*twins, "slate") > 0.01
    assert np.isnan(carry_over(*twins, "life"))
    with pytest.raises(ReplayError, match="needs twins"):
        list(pooled_audit(twins[0], twins[1].rows(np.arange(5)), 100))


def test_what_comes_later_is_found_out_and_other_models_are_named(
    twins: tuple[ArmSums, ArmSums],
) -> None:
    control, treatment = twins
    tired = replace(treatment, requests=treatment.requests * 0.9)
    found = pooled_lift(NAMES, control, tired, "slate")
    assert found.word == "unusable"
    assert "changes what comes later" in found.reasons[0]
    other = replace(control, own=control.own * 0.5)
    strange = pooled_lift(NAMES, other, treatment, "life")
    assert (
        "the policy of control would not have shown what the log says in 50%" in strange.reasons[0]
    )
    with pytest.raises(ReplayError, match="three users"):
        pooled_lift(NAMES, control.rows(np.arange(2)), treatment, "life")


def test_only_what_nothing_tests_is_held_against_an_estimate(
    twins: tuple[ArmSums, ArmSums], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.offpolicy.pooled.WORTH", 1.0)
    found = {level: pooled_lift(NAMES, *twins, level) for level in LEVELS}
    assert {level: lift.word for level, lift in found.items()} == {
        "life": "trustworthy",
        "slate": "trustworthy",
        "cascade": "weak",
        "place": "weak",
    }
    (why,) = found["place"].reasons
    assert why == "nothing here tests that an answer depends on no other item of the slate"


SMALL = {
    "name": "small",
    "seed": 4,
    "users": {"kind": "choice", "n_users": 40, "n_items": 60},
    "data": {"source": "synthetic", "history_days": 2},
    "days": 1,
    "serving": {"slate": 3, "recall": 20},
    "arms": {
        "near": {"policy": "itemknn", "params": {"neighbours": 20}},
        "base": {"policy": "itemknn", "params": {"neighbours": 30}},
    },
    "design": {"kind": "paired", "control": "base"},
}


@pytest.mark.parametrize("kind", ["paired", "split"])
def test_the_command_asks_the_models_of_a_run(tmp_path: Path, kind: str) -> None:
    scenario = {**SMALL, "design": {"kind": kind, "control": "base"}}
    root = tmp_path / "run"
    simulate(Scenario.model_validate(scenario), root, folder=tmp_path)
    arguments = [str(root), "--repetitions", "100", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    ((one,)) = json.loads((tmp_path / "out" / "pooled.json").read_text())
    assert [lift["level"] for lift in one["lifts"]] == list(LEVELS)
    # The saved models, rankers and histories show what the log says: nothing speaks of a stranger.
    assert not any("another version" in r for lift in one["lifts"] for r in lift["reasons"])
    assert (one["paired"]["lift"] is None) == (kind == "split")
    assert len(one["audits"]) == (0 if kind == "split" else len(LEVELS))
    again = CliRunner().invoke(command, [*arguments, "--quiet"])
    assert again.output.strip() == str(tmp_path / "out" / "pooled.html")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"serving": {"refit": "daily"}}, "serving.refit is daily"),
        ({"fits": 2}, "fits.number is 2"),
        ({"design": {"kind": "switchback"}, "days": 4}, "design.kind is switchback"),
        ({"design": {"kind": "interleave"}}, "design.kind is interleave"),
    ],
)
def test_a_run_whose_policies_or_users_change_is_refused(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ReplayError, match=message):
        _check(Scenario.model_validate({**SMALL, **change}))


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    log = EventLog.from_columns(
        {name: np.array([0]) for name in ("user", "session", "request", "position", "t")}
        | {"item": np.array([1]), "click": np.array([1], np.int8)},
        Metadata(("a",), 1, 1),
    )
    log.write(tmp_path / "log.parquet")
    done = CliRunner().invoke(command, [str(tmp_path / "log.parquet"), "--quiet"])
    assert done.exit_code == 2
    assert "give the folder of a finished run" in done.output


def test_a_run_of_one_arm_has_no_lift(tmp_path: Path) -> None:
    scenario = {**SMALL, "arms": {"base": SMALL["arms"]["base"]}}  # type: ignore[index]
    simulate(Scenario.model_validate(scenario), tmp_path / "run", folder=tmp_path)
    done = CliRunner().invoke(command, [str(tmp_path / "run")])
    assert done.exit_code == 2
    assert "has one arm, and a lift is over another" in done.output
