"""Users that others write: found by name, held to the protocol, exact to the byte like abtest's
own.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from simulator.calibration.draws import draw
from simulator.calibration.search import fit
from simulator.calibration.targets import CalibrationError
from simulator.cli import main
from simulator.log.eventlog import EventLog
from simulator.log.workspace import RunError
from simulator.scenario.model import Scenario, ScenarioError
from simulator.users.base import NEVER, Feedback
from simulator.users.check import CHECKS, UsersUnderCheck, check_users
from simulator.users.plugins import UserCallError
from tests import tiring_users
from tests.tiring_users import Tired, Tiring
from tests.worlds import log_digests, silent, simulate_scenario, tiny_scenario, write_scenario

FILE = Path(tiring_users.__file__).read_text(encoding="utf-8")
"""Somebody's plug-in file."""


def scenario(folder: Path, **changes: Any) -> dict[str, Any]:
    (folder / "mine.py").write_text(FILE, encoding="utf-8")
    return tiny_scenario(
        users={"kind": "mine.py:Tiring", "n_users": 60, "n_items": 120},
        data={"source": "synthetic", "history_days": 2, "logging": {"policy": "random"}},
        **changes,
    )


# --- a run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("users")
    return simulate_scenario(folder, scenario(folder))


def test_a_run_has_what_they_answer(whole):
    log = EventLog.open(whole / "log")
    log.validate()
    assert log.kinds == ("like",)
    table = log.table.to_pandas()
    # The click is drawn below liking / (1 + .1 clicks), and a like is the lowest tenth of the luck.
    assert set(table["watch"]) == {1.0, 20.0}
    assert (table["watch"] == 20.0).equals(table["click"] == 1)
    assert 0 < table["like"].sum() < table["click"].sum()
    early = table[table["t"] < 0]
    first = early.groupby("user").head(4)  # the first slate of each: nobody is tired
    assert abs(first["click"].mean() - 0.5) < 5 * (0.25 / len(first)) ** 0.5


@pytest.mark.parametrize(
    "engine",
    [
        {"executor": "serial", "tick": 60.0, "block": 7, "shards": 3},
        {"executor": "processes", "tick": 5000.0, "block": 33, "shards": 5},
    ],
)
def test_how_a_run_is_cut_changes_no_byte(engine, whole, tmp_path):
    root = simulate_scenario(tmp_path, scenario(tmp_path, engine=engine))
    assert log_digests(root) == log_digests(whole)


def test_users_of_a_shard_alone_answer_the_same(whole, tmp_path):
    content = scenario(tmp_path, engine={"executor": "serial", "shards": 4})
    content["users"]["params"] = {"by_shard": True}
    log = EventLog.open(simulate_scenario(tmp_path, content) / "log")
    assert log.table.equals(EventLog.open(whole / "log").table)


def test_a_state_of_others_than_the_shard_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(Tired, "state", lambda self: {"clicks": np.zeros(self.n_users)})
    subject = UsersUnderCheck(Tiring(by_shard=True), folder=tmp_path)
    users = subject.users(who=subject.everybody[:5])
    with pytest.raises(
        UserCallError, match="'clicks' must be an array with a row for each of the 5"
    ):
        users.state()


def test_parameters_reach_the_users(whole, tmp_path):
    content = scenario(tmp_path)
    content["users"]["params"] = {"liking": 0.0}
    table = EventLog.open(simulate_scenario(tmp_path, content) / "log").table.to_pandas()
    assert table["click"].sum() == 0


def test_a_run_is_not_resumed_after_their_file_changed(tmp_path):
    content = scenario(tmp_path)
    simulate_scenario(tmp_path, content)
    (tmp_path / "mine.py").write_text(FILE + "\nCHANGED = True\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"mine\.py"):
        simulate_scenario(tmp_path, content, resume=True)


def test_what_they_break_ends_the_run_in_one_message(tmp_path):
    content = scenario(tmp_path)
    broken = FILE.replace("t + pause", "t - pause")
    (tmp_path / "mine.py").write_text(broken, encoding="utf-8")
    path = write_scenario(tmp_path, content)
    done = CliRunner().invoke(main, ["run", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "user model 'mine.py:Tiring': respond: next must be after the request" in done.stderr
    assert "for user" in done.stderr


# --- the scenario


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_users": None}, "users.n_users: must be given where data.source is synthetic"),
        ({"kind": "mine.py:Tirring"}, "users.kind: plug-in file .*mine.py has no class 'Tirring'"),
        ({"kind": "chioce"}, "users.kind: no kind 'chioce'; did you mean 'choice'?"),
        ({"params": {"a": float("inf")}}, "finite"),
    ],
)
def test_a_scenario_says_what_is_wrong_with_its_users(change, message, tmp_path):
    content = scenario(tmp_path)
    content["users"] = {k: v for k, v in {**content["users"], **change}.items() if v is not None}
    with pytest.raises(ScenarioError, match=message.replace("?", r"\?")):
        Scenario.load(write_scenario(tmp_path, content))


def test_sizes_are_said_once(tmp_path):
    content = scenario(tmp_path)
    content["data"] = {"source": "table", "path": "x.csv", "columns": {"user": "u", "item": "i"}}
    with pytest.raises(ScenarioError, match=r"users.n_users: must be left out: data.source table"):
        Scenario.load(write_scenario(tmp_path, content))


def test_a_policy_that_reads_the_truth_cannot_log_them(tmp_path):
    content = scenario(tmp_path)
    del content["data"]["logging"]
    with pytest.raises(ScenarioError, match=r"data.logging.policy: 'production' reads the truth"):
        Scenario.load(write_scenario(tmp_path, content))


def test_wrong_parameters_are_named_before_anything_is_written(tmp_path):
    content = scenario(tmp_path)
    content["users"]["params"] = {"likng": 0.1}
    path = write_scenario(tmp_path, content)
    done = CliRunner().invoke(main, ["run", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "users.params.likng: user model 'mine.py:Tiring': no parameter 'likng'" in done.stderr
    assert "did you mean 'liking'?" in done.stderr
    assert not (tmp_path / "out").exists()


def test_their_parameters_are_neither_fitted_nor_drawn(tmp_path):
    loaded = Scenario.load(write_scenario(tmp_path, scenario(tmp_path)))
    for search in (lambda: fit(loaded, silent), lambda: draw(loaded, 2)):
        with pytest.raises(CalibrationError, match=r"users.kind: parameters of choice and markov"):
            search()


# --- the checks


def test_users_that_keep_all_promises():
    results = list(check_users(Tiring()))
    assert [result.name for result in results] == list(CHECKS)
    assert {result.name: result.detail for result in results if not result.kept} == {}


class CountsTheBatch(Tired):
    def respond(self, user, step, t, slates):
        answers = super().respond(user, step, t, slates)
        return replace(answers, watch=answers.watch + np.float32(len(user)))


class HasARandomStateOfItsOwn(Tired):
    random = np.random.default_rng(0)

    def respond(self, user, step, t, slates):
        answers = super().respond(user, step, t, slates)
        luck = self.random.random(slates.items.shape)
        return replace(answers, click=(luck < 0.5).astype(np.int8))


class LearnsFromOthers(Tired):
    """A user whom another one's click tires, too."""

    def respond(self, user, step, t, slates):
        answers = super().respond(user, step, t, slates)
        for one, clicks in zip(user.tolist(), answers.click.sum(axis=1).tolist(), strict=True):
            self.clicks[one - one % 2] += clicks * (one % 2)
        return answers


class NeverLeaves(Tired):
    def respond(self, user, step, t, slates):
        answers = super().respond(user, step, t, slates)
        return replace(answers, leaves=np.zeros(len(user), dtype=bool))


class AnswersByItsRow(Tired):
    def respond(self, user, step, t, slates):
        answers = super().respond(user, step, t, slates)
        row = (user - self.who[0])[:, None]
        return replace(answers, watch=answers.watch + (row % 7).astype(np.float32))


class Forgets(Tired):
    def state(self):
        return {}

    def restore(self, state):
        return None


class KeepsAMeanOfAll(Tired):
    """What a user likes depends on a number that is in no row of the state."""

    total = 0

    def respond(self, user, step, t, slates):
        answers = super().respond(user, step, t, slates)
        self.total += 1
        watch = answers.watch + np.float32(self.total % 7)
        return replace(answers, watch=watch)


@pytest.mark.parametrize(
    ("users", "broken"),
    [
        (CountsTheBatch, "batch_invariance"),
        (HasARandomStateOfItsOwn, "determinism"),
        (LearnsFromOthers, "independence"),
        (NeverLeaves, "clock"),
        (Forgets, "state_is_whole"),
        (Forgets, "going_back"),
        (KeepsAMeanOfAll, "state_by_user"),
    ],
)
def test_a_broken_promise_is_found_by_its_check(users, broken, monkeypatch):
    monkeypatch.setattr(Tiring, "build", lambda self, source, *_: users(self, source.catalogue, 1))
    (result,) = check_users(Tiring(), only=[broken])
    assert not result.kept
    assert "user" in result.detail


def test_users_whose_answers_depend_on_the_shard_are_found(monkeypatch):
    def build_some(model, source, seed, days, folder, who=None):
        return AnswersByItsRow(model, source.catalogue, 1, who)

    monkeypatch.setattr(Tiring, "build", build_some)
    monkeypatch.setattr(Tiring, "build_some", build_some)
    (result,) = check_users(Tiring(), only=["shard_invariance"])
    assert "where only users 12 to 23 live" in result.detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"click": np.zeros((24, 5))}, r"click must be a numpy array of int8 and shape \(24, 5\)"),
        ({"click": np.full((24, 5), 2, np.int8)}, "click must be 1, 0, or -1.*; got 2 for user 0"),
        ({"watch": np.full((24, 5), -1, np.float32)}, "watch must be seconds, at least 0"),
        ({"watch": np.full((24, 5), np.inf, np.float32)}, "watch must be seconds, at least 0"),
        ({"shown": np.full(24, 6)}, "shown must be 0 to 5 positions; got 6"),
        ({"next": np.zeros(24, np.int64)}, "next must be after the request"),
        ({"leaves": [True] * 24}, "leaves must be a numpy array of bool"),
        ({"kinds": {}}, r"kinds must be \['like'\], as users.kinds says; got \[\]"),
    ],
)
def test_answers_of_another_form_are_named(change, message, monkeypatch, tmp_path):
    whole = Tired.respond

    def respond(self: Any, *arguments: Any) -> Feedback:
        return replace(whole(self, *arguments), **change)

    monkeypatch.setattr(Tired, "respond", respond)
    subject = UsersUnderCheck(Tiring(), folder=tmp_path)
    with pytest.raises(UserCallError, match=message):
        subject.live(subject.users(), subject.everybody, requests=1)


def test_users_that_are_none_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(Tiring, "build", lambda self, *_: "nobody")
    subject = UsersUnderCheck(Tiring(), folder=tmp_path)
    with pytest.raises(UserCallError, match="build must return users with n_users, n_items, kinds"):
        subject.users()


def test_who_never_comes_breaks_the_protocol(monkeypatch):
    monkeypatch.setattr(Tired, "first", lambda self, user: np.full(len(user), NEVER))
    (result,) = check_users(Tiring(), only=["protocol"])
    assert "no user asks within 7 days" in result.detail


# --- the command


def test_the_command_ends_with_what_it_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FILE, encoding="utf-8")
    (tmp_path / "dies.py").write_text(
        FILE.replace("return Tired(", "import os; os._exit(3); return Tired("), encoding="utf-8"
    )
    check = ["users", "check", "--only", "protocol"]
    kept = CliRunner().invoke(main, [*check, "mine.py:Tiring", "--param", "liking=0.2"])
    assert (kept.exit_code, kept.stdout.split()[:2]) == (0, ["ok", "protocol"])
    dead = CliRunner().invoke(main, [*check, "dies.py:Tiring"])
    assert dead.exit_code == 2
    assert "build ended its process (exit code 3)" in dead.stderr
    wrong = CliRunner().invoke(main, ["users", "check", "mine.py:Tiring", "--param", "liking=x"])
    assert wrong.exit_code == 2
    assert "user model 'mine.py:Tiring': parameter 'liking'" in wrong.stderr


def test_a_package_registers_users(tmp_path):
    (tmp_path / "somebody.py").write_text(FILE, encoding="utf-8")
    info = tmp_path / "somebody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[abtest.users]\ntired = somebody:Tiring\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from simulator.users.plugins import USER_MODELS\n"
        "from simulator.scenario.populations import population\n"
        "assert 'somebody' not in sys.modules\n"
        "print(population({'kind': 'tired'}).kind, USER_MODELS.make('tired'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "tired Tiring(liking=0.5, by_shard=False)\n"
