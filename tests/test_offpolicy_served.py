"""Replay through the serving of a run: histories are the scenario's, and policies are rolled out as
`abtest fidelity` rolls them out; elsewhere it says why not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from policies.base import silent
from simulator.cli.replay import replay as command
from simulator.log.eventlog import EventLog
from simulator.log.workspace import Workspace, load_catalogue
from simulator.offpolicy.jobs import ReplayOptions, ServedCourse, replay_log, training
from simulator.offpolicy.replay import ReplaySettings
from simulator.offpolicy.rollout import Rollout
from simulator.offpolicy.settings import BY_SERVING, ROLLOUT, ROLLOUT_DR
from simulator.offpolicy.target_fits import Wanted
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario

WORLD = """
name: served
seed: 8
data:
  source: synthetic
  history_days: 5
  logging: {policy: production, temperature: 1.0, epsilon: 0.3}
users: {kind: choice, n_users: 80, n_items: 120}
days: 2
serving: {slate: 4, recall: 20, history: 30, seen: 90}
engine: {executor: serial, shards: 1}
arms: {popularity: {policy: popularity}, itemknn: {policy: itemknn}}
design: {kind: paired, control: popularity}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "served.yaml").write_text(WORLD)
    simulate(Scenario.load(folder / "served.yaml"), folder / "run")
    return folder / "run"


def replayed(run: Path, out: Path, *more: str) -> Any:
    """What replay.json says of each policy's estimates by name."""
    asked = ["--policy", "itemknn", "--policy", "popularity", "--resamples", "100", "--quiet"]
    done = CliRunner().invoke(command, [str(run), *asked, "--out", str(out), *more])
    assert done.exit_code == 0, done.output
    (result,) = json.loads((out / "replay.json").read_text())
    return result


def test_policies_are_rolled_out_through_the_serving_of_the_run(run: Path, tmp_path: Path) -> None:
    """The same bits as by the parts that `abtest fidelity` puts together."""
    result = replayed(run, tmp_path, "--served", "--control", "popularity")
    where = Workspace(run)
    log, catalogue = EventLog.open(where.log), load_catalogue(where.models / "catalogue.npz")
    wanted = [Wanted("itemknn", "itemknn"), Wanted("popularity", "popularity")]
    job = replay_log("log", log, wanted, ReplayOptions(served=True), silent, catalogue)
    assert (job.stream.history, job.stream.seen) == (30, 90)
    assert isinstance(job.course, ServedCourse)
    past = training(log, "history", job.stream.since or 0, None)
    rollout = Rollout.of(job.stream, past, catalogue, 0, silent)
    settings = ReplaySettings(("recalled",), resamples=100)
    for policy, desks in zip(result["policies"], job.course.desks, strict=True):
        said = {one["estimator"]: one for one in policy["estimates"]}
        own = rollout.estimates(policy["policy"], desks, settings)
        assert [one.estimator for one in own] == [ROLLOUT, ROLLOUT_DR]
        for one in own:
            kept = said[one.estimator]
            assert (kept["value"], kept["error"]) == (one.value, one.error)
            assert kept["verdict"] == one.word
    lifts = {one["estimator"]: one for one in result["lifts"]}
    for name in BY_SERVING:
        assert lifts[name]["refused"] is None
        assert lifts[name]["low"] < lifts[name]["lift"] < lifts[name]["high"]
    read = result["reading"]
    ranked = {
        policy["policy"]: one["value"]
        for policy in result["policies"]
        for one in policy["estimates"]
        if one["estimator"] == "ranked"
    }
    assert sorted(read["order"]) == sorted(ranked) == ["itemknn", "popularity"]
    assert read["pick"] == max(read["leaders"], key=lambda name: ranked[name])
    assert f"Test {read['pick']} first." in (tmp_path / "replay.md").read_text()


def test_a_rollout_is_not_held_against_the_logs_own_value(run: Path, tmp_path: Path) -> None:
    result = replayed(run, tmp_path, "--served", "--estimators", "recalled,rollout")
    assert [one["estimator"] for one in result["policies"][0]["estimates"]] == [
        "recalled",
        "rollout",
    ]
    by_rollout = [one for one in result["lifts"] if one["estimator"] == "rollout"]
    assert ["give --control" in one["refused"] for one in by_rollout] == [True, True]


def test_where_there_is_no_course_it_says_why(run: Path, tmp_path: Path) -> None:
    asked = ("--estimators", "recalled,ranked,rollout,rollout_dr")
    for more, why in (
        ((), "not through a serving (--served)"),
        (("--served", "--arm", "itemknn", "--test-days", "1"), "begins in another arm of the log"),
    ):
        result = replayed(run, tmp_path, *asked, *more)
        for policy in result["policies"]:
            refusals = {one["estimator"]: one["refused"] for one in policy["estimates"]}
            assert [why in refusals[name] for name in BY_SERVING] == [True] * 3
            assert refusals["recalled"] is None
        assert result["reading"] is None


def test_what_the_serving_says_is_not_said_twice(run: Path) -> None:
    for source, option, why in (
        ([str(run), "--served"], "--history", "the scenario's serving says it with --served"),
        ([str(run), "--served"], "--recall", "the scenario's serving says it with --served"),
        (["scenarios/replay_kuairand.yaml"], "--recall", "the scenario says it itself"),
        (["scenarios/replay_kuairand.yaml"], "--seed", "the scenario says it itself"),
    ):
        done = CliRunner().invoke(command, [*source, "--policy", "itemknn", option, "9"])
        assert done.exit_code == 2
        assert f"{option}: {why}; leave it out" in " ".join(done.output.split())
