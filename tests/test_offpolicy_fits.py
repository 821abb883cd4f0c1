"""Replays of a policy with several fits: the lives with each fit are a log of their own, and each
round is asked of the fit that it belongs to.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner

from policies.base import Catalogue, Fitting, silent
from simulator.cli import main
from simulator.designs.fits import FitsSpec
from simulator.log.eventlog import EventLog
from simulator.log.metadata import FIT
from simulator.offpolicy.jobs import ReplayJob, ReplayOptions, replay_log, target, training
from simulator.offpolicy.replay import Evaluation, ReplaySettings, evaluate
from simulator.offpolicy.rounds import Stream
from simulator.offpolicy.scores import orderings
from simulator.offpolicy.target import FittedTargets, PolicyTargets, alone
from simulator.offpolicy.target_fits import Lesson, Wanted, fitted
from tests.worlds import simulate_scenario, tiny_scenario

BPR: dict[str, Any] = {"policy": "bpr", "params": {"width": 8, "training": {"epochs": 1}}}
ARMS: dict[str, Any] = {"counts": {"policy": "itemknn"}, "network": BPR}
NETWORK = "bpr:{width: 8, training: {epochs: 1}}"
SETTINGS = ReplaySettings(("matching", "recalled"), resamples=50)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = tiny_scenario(ARMS, fits={"number": 3, "design": "crossed"})
    return simulate_scenario(tmp_path_factory.mktemp("crossed"), content)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_scenario(tmp_path_factory.mktemp("single"), tiny_scenario(ARMS))


def job_of(log: EventLog, arm: str, policies: list[str], seed: int = 4) -> ReplayJob:
    options = ReplayOptions(arm=arm, test_days=1, history=16, recall=12, seed=seed)
    return replay_log("made", log, [Wanted.parse(name) for name in policies], options, silent)


def evaluated(job: ReplayJob) -> list[Evaluation]:
    meta = job.stream.log.metadata
    return evaluate(job.stream, job.targets, meta.n_users, meta.n_items, SETTINGS)


def of_one_fit(log: EventLog, fit: int) -> EventLog:
    """The lives with one fit (and the history), as the log of a run that has no other."""
    table = log.table
    mine = pc.or_(pc.equal(table[FIT], fit), pc.equal(table["arm"], 0))
    scenario = {**log.metadata.scenario, "fits": {"number": 1}}
    metadata = dataclasses.replace(log.metadata, scenario=scenario)
    return EventLog(metadata, table.filter(mine).drop_columns([FIT]))


def test_a_replay_of_every_fit_is_the_sum_of_the_replays_of_each(crossed: Path) -> None:
    """Policies learn from the lives with one fit, and are asked about the rest of these lives."""
    log, policies = EventLog.open(crossed / "log"), ["popularity", NETWORK]
    whole = job_of(log, "network", policies)
    pooled = evaluated(whole)
    ordered = orderings(
        dataclasses.replace(whole.stream, by="session"), whole.policies, log.metadata.n_users
    )
    above, below = np.zeros((2, 2)), np.zeros((2, 2))
    sessions = np.zeros(2)
    for fit in range(3):
        seed = FitsSpec(number=3).training_seed(4, fit)
        job = job_of(of_one_fit(log, fit), "network", policies, seed)
        for place, one in enumerate(evaluated(job)):
            for at, name in enumerate(SETTINGS.estimators):
                above[place, at] += np.nan_to_num(one[name].value) * one[name].count
                below[place, at] += one[name].count
        order = orderings(
            dataclasses.replace(job.stream, by="session"), job.policies, log.metadata.n_users
        )
        sessions += [one.sessions for one in order]
    for place, one in enumerate(pooled):
        for at, name in enumerate(SETTINGS.estimators):
            assert one[name].count == below[place, at]
            assert one[name].value == pytest.approx(above[place, at] / below[place, at])
    assert [one.sessions for one in ordered] == sessions.tolist()


def test_lives_that_are_the_same_make_no_estimate_surer(crossed: Path, single: Path) -> None:
    """What counts serve is the same in every fit, and a user is one unit whatever its lives: value
    and standard error are those of one life.
    """
    found = [
        evaluated(job_of(EventLog.open(root / "log"), "counts", ["popularity"]))[0]
        for root in (crossed, single)
    ]
    for name in SETTINGS.estimators:
        many, one = (each[name] for each in found)
        assert many.count == 3 * one.count > 0
        assert many.value == pytest.approx(one.value)
        assert many.error == pytest.approx(one.error)
    assert found[0].logged.value == pytest.approx(found[1].logged.value)


@pytest.mark.parametrize("draws", [1, 2])
def test_each_round_is_asked_of_its_own_fit(crossed: Path, draws: int) -> None:
    """Also of a policy that explores, whose expectations are asked for later."""
    log = EventLog.open(crossed / "log")
    n_users, n_items = log.metadata.n_users, log.metadata.n_items
    fit_of_user = FitsSpec(number=3).fit_of_user(9, np.arange(n_users), 3)
    stream = Stream(log, "click", "history", history=16, fit_of_user=fit_of_user)
    rounds = max(stream, key=len)
    np.testing.assert_array_equal(rounds.fit, fit_of_user[rounds.user])
    past = training(log, "history", 0, None)
    params = {"policy": "bpr", "policy_params": BPR["params"], "pool": 20}
    wanted = [Wanted("blurred", "explore", params), Wanted("counts", "itemknn")]
    lessons = [Lesson(past, seed) for seed in (3, 4, 5)]
    (_, fits), (_, counts) = fitted(wanted, lessons, Catalogue(n_users, n_items), Fitting())
    assert (len(fits), len(counts)) == (3, 1)
    desks = [alone("blurred", one, n_items, 12, 7) for one in fits]
    whole = target("blurred", desks, draws)
    assert isinstance(whole, FittedTargets)
    found = whole(rounds)
    values = np.random.default_rng(0).uniform(size=(2, n_items + 1))
    rows = rounds.position % 2
    assert found.above is not None
    expected = found.above(values, rows)
    for fit, desk in enumerate(desks):
        mine = rounds.fit == fit
        alone_there = PolicyTargets("blurred", desk, draws)(rounds.rows(mine))
        np.testing.assert_array_equal(found.slates[mine], alone_there.slates)
        np.testing.assert_array_equal(found.probability[mine], alone_there.probability)
        np.testing.assert_array_equal(found.recalled[mine], alone_there.recalled)
        assert alone_there.above is not None
        np.testing.assert_allclose(expected[mine], alone_there.above(values, rows[mine]))


def test_the_command_replays_an_arm_that_users_live_with_every_fit_of(
    crossed: Path, tmp_path: Path
) -> None:
    """And says what its lives are; the policy that wrote the log may be asked about them, too."""
    asked = ["--arm", "network", "--test-days", "1", "--policy", "popularity", "--resamples", "100"]
    out = tmp_path / "replay"
    result = CliRunner().invoke(main, ["replay", str(crossed), *asked, "--out", str(out)])
    assert result.exit_code == 0, result.output
    (stored,) = json.loads((out / "replay.json").read_text())
    assert "each of 3 fits of the policy that wrote this log" in stored["notes"]["fits"]
    assert stored["notes"]["fits"] in (out / "replay.md").read_text()
