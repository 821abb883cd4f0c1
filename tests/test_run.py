"""A run from scenario to log: exact to the byte however it is computed, resumable after a kill, A/A
identical, bad input named.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from click.testing import CliRunner

from policies.registry import PolicyError
from simulator.cli import main
from simulator.log.eventlog import EventLog
from simulator.log.workspace import RunError
from simulator.run.pipeline import run, simulate
from simulator.scenario.model import Scenario
from simulator.serving.desk import ServingError
from tests.worlds import PLAIN_ARMS, log_digests, simulate_scenario, tiny_scenario, write_scenario

NEURAL: dict[str, Any] = {
    "comirec": {
        "policy": "comirec",
        "params": {"width": 8, "length": 8, "training": {"epochs": 1}},
    },
    "recgpt1": {
        "policy": "recgpt1",
        "params": {
            "shape": {"width": 8, "feedforward": 16, "heads": 1, "length": 8},
            "pretraining": {"epochs": 1},
            "tuning": {"epochs": 1},
        },
    },
}


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_scenario(tmp_path_factory.mktemp("plain"), tiny_scenario())


def test_the_log_keeps_its_rules_and_explains_itself(plain_run):
    log = EventLog.open(plain_run / "log")
    log.validate()
    assert log.metadata.arms == ("history", "a", "b", "c")
    assert log.metadata.control == "a"
    assert log.metadata.days == 2
    assert log.metadata.channels == ("new",)
    assert "engine" not in log.metadata.scenario
    table = log.table
    history = pc.equal(table["arm"], 0)
    t, days = table["t"], 86_400_000
    assert pc.min(t.filter(history)).as_py() >= -2 * days
    assert pc.max(t.filter(history)).as_py() < 0
    assert pc.min(t.filter(pc.invert(history))).as_py() >= 0
    assert pc.max(t).as_py() < 2 * days
    assert pc.sum(pc.is_null(table["propensity"].filter(history))).as_py() == 0
    assert set(table["channel"].filter(pc.invert(history)).to_pylist()) == {0, 1}
    assert sorted(p.name for p in plain_run.iterdir()) == [
        ".lock",
        "claim.json",
        "log",
        "models",
        "pieces.jsonl",
        "scenario.yaml",
        "sums",
    ]
    assert (
        Scenario.load(plain_run / "scenario.yaml").resolved()
        == Scenario.load(plain_run.parent / "scenario.yaml").resolved()
    )


def test_a_paired_a_a_gives_exactly_nothing(plain_run):
    """Arms a and c have the same policy under different names: every row but its arm is the
    same.
    """
    table = EventLog.open(plain_run / "log").table
    a, b, c = (table.filter(pc.equal(table["arm"], i)).drop_columns(["arm"]) for i in (1, 2, 3))
    assert a.equals(c)
    assert not a.equals(b)


def test_an_a_a_report_says_nothing(tmp_path):
    arms = {"a": PLAIN_ARMS["a"], "c": PLAIN_ARMS["c"]}
    outcome = run(
        Scenario.load(write_scenario(tmp_path, tiny_scenario(arms))),
        tmp_path / "out",
        folder=tmp_path,
    )
    report = json.loads((outcome.root / "report.json").read_text())
    same = [row for row in report["lifts"] if row["arm"] == "c"]
    assert same
    assert {row["lift"] for row in same if row["control_mean"]} == {0.0}


ENGINES = [
    {"executor": "serial", "tick": 60.0, "block": 7, "shards": 3},
    {"executor": "serial", "tick": 1e6, "block": 4096, "shards": 1},
    {"executor": "processes", "tick": 5000.0, "block": 33, "shards": 5},
]


@pytest.fixture(scope="module")
def neural_digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    torch.set_num_threads(3)  # a worker has one; the number must not matter
    return log_digests(simulate_scenario(tmp_path_factory.mktemp("neural"), tiny_scenario(NEURAL)))


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: "-".join(str(v) for v in e.values()))
def test_tick_block_shards_and_executor_change_no_byte(engine, neural_digests, tmp_path):
    assert (
        log_digests(simulate_scenario(tmp_path, tiny_scenario(NEURAL, engine=engine)))
        == neural_digests
    )


def test_the_order_of_arms_in_the_file_changes_no_byte(neural_digests, tmp_path):
    turned = tiny_scenario(
        dict(reversed(NEURAL.items())), design={"kind": "paired", "control": "comirec"}
    )
    assert log_digests(simulate_scenario(tmp_path, turned)) == neural_digests


def test_the_first_arm_of_the_file_is_the_control_whatever_its_name(tmp_path):
    arms = {"z": {"policy": "popularity"}, "a": {"policy": "random"}}
    root = simulate_scenario(tmp_path, tiny_scenario(arms, design={"kind": "paired"}))
    assert EventLog.open(root / "log").metadata.control == "z"
    turned = Scenario.load(
        write_scenario(tmp_path, tiny_scenario(dict(reversed(arms.items())), design={}))
    )
    with pytest.raises(RunError, match="control"):
        simulate(turned, root, folder=tmp_path, resume=True)


def test_another_seed_changes_the_log(plain_run, tmp_path):
    assert set(
        log_digests(simulate_scenario(tmp_path, tiny_scenario(seed=10))).values()
    ).isdisjoint(log_digests(plain_run).values())


def test_equal_fits_are_made_once(plain_run):
    assert sorted(
        p.name.rpartition("-")[0] for p in (plain_run / "models").iterdir() if p.is_dir()
    ) == ["popularity", "random"]


def test_a_split_gives_each_user_one_arm(tmp_path, plain_run):
    log = EventLog.open(
        simulate_scenario(tmp_path, tiny_scenario(design={"kind": "split", "control": "a"})) / "log"
    )
    arm = log.metadata.arm_of_user()
    assert arm is not None
    table = log.table.filter(pc.greater(log.table["arm"], 0))
    np.testing.assert_array_equal(table["arm"].to_numpy(), arm[table["user"].to_numpy()])
    paired = EventLog.open(plain_run / "log").table
    assert table.num_rows < paired.num_rows / 2
    mine = pc.equal(paired["arm"], 2)
    twin = paired.filter(
        pc.and_(
            mine,
            pc.is_in(
                paired["user"], value_set=pc.unique(table.filter(pc.equal(table["arm"], 2))["user"])
            ),
        )
    )
    assert table.filter(pc.equal(table["arm"], 2)).equals(twin), (
        "a user's life in an arm does not depend on the design"
    )


def test_a_run_killed_without_warning_ends_with_the_same_bytes(plain_run, tmp_path):
    """kill -9 as soon as the first day of the A/B is on disk, then --resume."""
    file = write_scenario(tmp_path, tiny_scenario())
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "simulator",
        "run",
        str(file),
        "--out",
        str(out),
        "--quiet",
        "--engine.block",
        "2",
    ]
    victim = subprocess.Popen(
        command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        deadline = time.monotonic() + 120
        while (
            not list(out.glob("work/[abc]/*/day-*.npz"))
            and victim.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.002)
        victim.send_signal(signal.SIGKILL)
    finally:
        victim.kill()
        _, said = victim.communicate()
    assert victim.returncode == -signal.SIGKILL, said.decode()
    assert not (out / "claim.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("models/*/state.npz")}
    assert kept
    resumed = CliRunner().invoke(main, ["run", str(file), "--out", str(out), "--quiet", "--resume"])
    assert resumed.exit_code == 0, resumed.output
    assert log_digests(out) == log_digests(plain_run)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, (
        "finished fits are not made again"
    )


def test_a_changed_scenario_is_not_resumed(plain_run, tmp_path):
    changed = Scenario.load(write_scenario(tmp_path, tiny_scenario(seed=11)))
    with pytest.raises(RunError, match=r"scenario\.seed: the run there has 9, now it is 11"):
        run(changed, plain_run, resume=True)


def test_a_finished_run_is_not_overwritten(plain_run):
    again = Scenario.load(plain_run.parent / "scenario.yaml")
    with pytest.raises(RunError, match="already holds a run"):
        run(again, plain_run)
    before = log_digests(plain_run)
    assert simulate(again, plain_run, resume=True).runtime == {}
    assert log_digests(plain_run) == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("my life")
    with pytest.raises(RunError, match="not empty"):
        simulate_scenario(tmp_path, tiny_scenario())
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


BROKEN = """
from dataclasses import dataclass
import numpy as np
from policies.base import Slates
from policies.popularity import Random

@dataclass
class Broken(Random):
    def recall(self, histories, k, seed):
        slates = super().recall(histories, k, seed)
        if (histories.step > 3).any():
            raise RuntimeError("the model server is gone")
        return slates
"""


def test_a_plug_in_that_raises_stops_the_run_or_only_its_arm(tmp_path):
    (tmp_path / "mine.py").write_text(BROKEN)
    arms = {**PLAIN_ARMS, "mine": {"policy": "mine.py:Broken"}}
    file = write_scenario(tmp_path, tiny_scenario(arms))
    stopped = CliRunner().invoke(
        main, ["run", str(file), "--out", str(tmp_path / "one"), "--quiet"]
    )
    assert stopped.exit_code == 2
    assert "arm 'mine'" in stopped.output
    assert "recall raised RuntimeError: the model server is gone at mine.py:12" in stopped.output
    assert "Traceback" not in stopped.output
    kept = CliRunner().invoke(
        main, ["run", str(file), "--out", str(tmp_path / "two"), "--quiet", "--keep-going"]
    )
    assert kept.exit_code == 1, kept.output
    assert "arm 'mine' was given up" in kept.output
    assert sorted(p.name for p in (tmp_path / "two" / "log").iterdir()) == [
        f"arm_name={name}" for name in [*"abc", "history"]
    ]
    report = json.loads((tmp_path / "two" / "report.json").read_text())
    assert {row["arm"] for row in report["lifts"]} == {"b", "c"}


def test_a_plug_in_whose_fit_raises_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(
        BROKEN.replace(
            "def recall(self, histories, k, seed):", "def fit(self, *args):\n        1 / 0"
        )
    )
    file = write_scenario(
        tmp_path, tiny_scenario({**PLAIN_ARMS, "mine": {"policy": "mine.py:Broken"}})
    )
    done = CliRunner().invoke(main, ["run", str(file), "--out", str(tmp_path / "out"), "--quiet"])
    assert done.exit_code == 2
    assert (
        "policy 'mine.py:Broken': fit raised ZeroDivisionError: division by zero at mine.py:10"
        in done.output
    )


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path, plain_run):
    """The key is pressed in the middle of the A/B."""
    (tmp_path / "mine.py").write_text(
        BROKEN.replace(
            'raise RuntimeError("the model server is gone")', "import os; os.kill(os.getpid(), 2)"
        )
    )
    file = write_scenario(
        tmp_path, tiny_scenario({**PLAIN_ARMS, "z": {"policy": "mine.py:Broken"}})
    )
    done = CliRunner().invoke(main, ["run", str(file), "--out", str(tmp_path / "out"), "--quiet"])
    assert done.exit_code == 130
    assert f"abtest run {file} --out {tmp_path / 'out'} --quiet --resume" in done.output
    assert not list((tmp_path / "out").rglob("*.part"))
    assert list((tmp_path / "out" / "work" / "a").glob("*/snapshot.npz"))


@pytest.mark.parametrize("control", ["mine", "b"])
def test_nothing_is_reported_without_the_control_or_of_one_arm(tmp_path, control):
    (tmp_path / "mine.py").write_text(BROKEN)
    arms = {"mine": {"policy": "mine.py:Broken"}, "b": PLAIN_ARMS["b"]}
    content = tiny_scenario(arms, design={"kind": "paired", "control": control})
    loaded = Scenario.load(write_scenario(tmp_path, content))
    with pytest.raises(RunError, match=r"nothing is left to compare[\s\S]*model server"):
        simulate(loaded, tmp_path / "out", folder=tmp_path, keep_going=True)


HANGS = "import pathlib, time; time.sleep(30); pathlib.Path({woken!r}).touch()"
SLEEPY = BROKEN.replace('raise RuntimeError("the model server is gone")', HANGS)
IDLE = BROKEN + f"    def fit(self, sequences, catalogue, fitting):\n        {HANGS}\n"


@pytest.mark.parametrize(
    ("text", "limit", "error", "message"),
    [
        (
            SLEEPY,
            {"time_limit": 2.0},
            ServingError,
            r", request of user \d+.*longer than engine\.time_limit \(2 s\) in one call",
        ),
        (
            IDLE,
            {"fit_limit": 1.0},
            PolicyError,
            r": fit took longer than engine\.fit_limit \(1 s\)",
        ),
    ],
)
def test_a_plug_in_that_hangs_is_stopped(tmp_path, plain_run, text, limit, error, message):
    woken = tmp_path / "woken"
    (tmp_path / "mine.py").write_text(text.replace("{woken!r}", repr(str(woken))))
    arms = {"a": PLAIN_ARMS["a"], "mine": {"policy": "mine.py:Broken"}}
    loaded = Scenario.load(
        write_scenario(tmp_path, tiny_scenario(arms, engine={"executor": "serial", **limit}))
    )
    with pytest.raises(error, match=f"policy 'mine.py:Broken'{message}"):
        simulate(loaded, tmp_path / "out", folder=tmp_path)
    assert not woken.exists(), "the call was waited for"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"serving": {"slate": 0}}, "serving.slate"),
        ({"arms": {"a": {"policy": "poplarity"}}}, "popularity"),
        (
            {
                "arms": {"history": {"policy": "random"}, "b": {"policy": "random"}},
                "design": {"control": "b"},
            },
            "history",
        ),
        ({"data": {"source": "log", "path": "nowhere.parquet"}}, "nowhere.parquet"),
        ({"arms": {"a": {"policy": "comirec", "params": {"wdith": 3}}}}, "width"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(change, message, tmp_path):
    file = write_scenario(
        tmp_path,
        {
            **tiny_scenario(),
            **change,
            **({} if "design" in change else {"design": {"control": "a"}}),
        },
    )
    done = CliRunner().invoke(main, ["run", str(file), "--out", str(tmp_path / "out"), "--quiet"])
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output


def test_resume_without_a_run_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        main, ["run", str(write_scenario(tmp_path, tiny_scenario())), "--resume"]
    )
    assert done.exit_code == 2
    assert "nothing to resume" in done.output
