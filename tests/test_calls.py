"""A policy that lies, breaks or dies cannot falsify a test: it is named, with its method and what
to do, wherever it is called.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from policies.calls import CallError, Limit, calling
from policies.check import check_policy
from policies.sources import ABSENT, sources
from simulator.cli import main
from simulator.log.eventlog import EventLog
from simulator.log.workspace import RunError
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario

HEAD = """
import ctypes, os, sys, time, warnings
from dataclasses import dataclass
import numpy as np
from policies.base import Policy, Slates
from policies.popularity import Popularity

@dataclass
class Mine(Popularity):
"""


def plug_in(body: str) -> str:
    """A popularity policy with some methods of its own."""
    return HEAD + "".join(f"    {line}\n" for line in body.splitlines())


def scenario(
    folder: Path, executor: str = "serial", policy: str = "mine.py:Mine", **changes: Any
) -> Path:
    content = {
        "name": "tiny",
        "seed": 9,
        "data": {"source": "synthetic", "history_days": 2},
        "users": {"kind": "choice", "n_users": 60, "n_items": 120},
        "days": 2,
        "serving": {"slate": 4, "recall": 12, "history": 16},
        "arms": {"a": {"policy": "random"}, "b": {"policy": policy}},
        "design": {"kind": "paired", "control": "a"},
        "engine": {"executor": executor},
        **changes,
    }
    file = folder / "scenario.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def run(folder: Path, *options: str, out: str = "out") -> Any:
    return CliRunner().invoke(
        main,
        ["run", str(folder / "scenario.yaml"), "--out", str(folder / out), "--quiet", *options],
    )


def run_alone(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command as a user starts it in `folder`: in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "simulator", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


def of_policies(said: str) -> list[str]:
    """The lines that a run writes, without what it says of red checks: so small a world is not
    calibrated.
    """
    return [line for line in said.splitlines() if not line.startswith("abtest: red: ")]


# --- what is lent
# ------------------------------------------------------------------------------


WRITES = {
    "fit: a column": (
        "fit",
        "def fit(self, s, c, f):\n    s.clicked[:] = True\n    return super().fit(s, c, f)",
    ),
    "fit: a further column": (
        "fit",
        "def fit(self, s, c, f):\n    s.columns['watch'] *= 2\n    return super().fit(s, c, f)",
    ),
    "fit: the catalogue": (
        "fit",
        "def fit(self, s, c, f):\n    c.items['duration'].fill(1)\n    return super().fit(s, c, f)",
    ),
    "fit: sorts in place": (
        "fit",
        "def fit(self, s, c, f):\n    s.items.sort()\n    return super().fit(s, c, f)",
    ),
    "recall: items": (
        "recall",
        "def recall(self, h, k, s):\n    h.items[:] = 0\n    return super().recall(h, k, s)",
    ),
    "recall: seen": (
        "recall",
        "def recall(self, h, k, s):\n    h.seen.fill(0)\n    return super().recall(h, k, s)",
    ),
    "recall: users": (
        "recall",
        "def recall(self, h, k, s):\n    h.user += 1\n    return super().recall(h, k, s)",
    ),
    "recall: steps, by out=": (
        "recall",
        (
            "def recall(self, h, k, s):\n    np.add(h.step, 1, out=h.step)\n    return"
            " super().recall(h, k, s)"
        ),
    ),
    "recall: the flag": (
        "recall",
        (
            "def recall(self, h, k, s):\n    h.items.setflags(write=True)\n    return"
            " super().recall(h, k, s)"
        ),
    ),
    "recall: a pointer": (
        "recall",
        (
            "def recall(self, h, k, s):\n    ctypes.memset(h.seen.ctypes.data, 0, 8)\n    return"
            " super().recall(h, k, s)"
        ),
    ),
    "score: candidates": (
        "score",
        "def score(self, h, i):\n    i.sort()\n    return np.zeros(i.shape, np.float32)",
    ),
    "update: slates": ("update", "def update(self, h, s, c):\n    s.items[:] = 1"),
    "update: answers": ("update", "def update(self, h, s, c):\n    c[:] = True"),
    "slate_propensities": (
        "slate_propensities",
        (
            "def slate_propensities(self, h, i, s):\n    i += 1\n    return np.ones(i.shape,"
            " np.float32)"
        ),
    ),
    "slate_expectations": (
        "slate_expectations",
        "def slate_expectations(self, h, i, v, r, s):\n    v[:] = 0\n    return np.zeros(i.shape)",
    ),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_write_into_any_argument_breaks_its_own_promise(what: str, tmp_path: Path) -> None:
    from policies.registry import make

    method, body = WRITES[what]
    (tmp_path / "mine.py").write_text(plug_in(body))
    (result,) = check_policy(make("mine.py:Mine", {}, tmp_path), only=["leaves_inputs"])
    assert not result.kept
    assert not result.skipped
    assert result.detail.startswith(method)
    assert "work on a copy" in result.detail


@pytest.mark.parametrize("what", ["recall: items", "recall: a pointer", "fit: a column"])
def test_a_write_ends_a_run_and_changes_nothing_of_it(what: str, tmp_path: Path) -> None:
    """The same run without the writer's arm has the same bytes as one beside it."""
    (tmp_path / "mine.py").write_text(plug_in(WRITES[what][1]))
    three = {
        "a": {"policy": "random"},
        "b": {"policy": "mine.py:Mine"},
        "c": {"policy": "popularity"},
    }
    scenario(tmp_path, arms=three)
    done = run(tmp_path)
    assert done.exit_code == 2, done.output
    assert "'mine.py:Mine'" in done.output
    assert what.partition(":")[0] in done.output
    assert "work on a copy" in done.output
    kept = run(tmp_path, "--keep-going", out="kept")
    assert kept.exit_code == 1
    scenario(tmp_path, arms={name: arm for name, arm in three.items() if name != "b"})
    assert run(tmp_path, out="without").exit_code == 0
    one, other = (EventLog.open(tmp_path / out / "log") for out in ("kept", "without"))
    columns = [name for name in one.table.column_names if name != "arm"]
    assert one.table.select(columns).equals(other.table.select(columns))


# --- whatever its code does
# ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            SystemExit(3),
            (
                r"fit called for the end of the process \(SystemExit: 3\) at test_calls.py:\d+;"
                r" raise an exception instead"
            ),
        ),
        (KeyboardInterrupt(), "fit raised KeyboardInterrupt at test_calls.py"),
        (MemoryError(), "fit raised MemoryError at test_calls.py"),
        (RecursionError("too deep"), "fit raised RecursionError: too deep"),
        (GeneratorExit(), "fit raised GeneratorExit"),
    ],
)
def test_whatever_is_raised_is_one_error(error: BaseException, message: str) -> None:
    with pytest.raises(CallError, match=f"policy 'mine': {message}"), calling("mine", "fit"):
        raise error


def test_an_error_whose_text_cannot_be_made_is_named() -> None:
    class Evil(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise TypeError("no")

    with pytest.raises(CallError, match="fit raised Evil"), calling("mine", "fit"):
        raise Evil


def sleep_after(what: Callable[[], object]) -> None:
    what()
    time.sleep(20)


def test_out_of_time_and_ctrl_c_are_told_apart_from_errors() -> None:
    with (
        pytest.raises(CallError, match="recall took longer than the limit") as caught,
        calling("mine", "recall", Limit(0.05, "the limit")),
    ):
        sleep_after(lambda: None)
    assert caught.value.kind == "late"
    with pytest.raises(KeyboardInterrupt), calling("mine", "recall"):
        sleep_after(lambda: os.kill(os.getpid(), 2))


BROKEN = {
    "exit in fit": (
        "def fit(self, *a): sys.exit(0)",
        "fit called for the end of the process (SystemExit: 0)",
    ),
    "exit in recall": (
        "def recall(self, *a): sys.exit(5)",
        "recall called for the end of the process (SystemExit: 5)",
    ),
    "fit gives None": ("def fit(self, *a): super().fit(*a)", "fit must return self; got None"),
    "Ctrl-C of its own": (
        "def fit(self, *a): raise KeyboardInterrupt",
        "fit raised KeyboardInterrupt",
    ),
    "recursion": ("def fit(self, *a): return self.fit(*a)", "fit raised RecursionError"),
    "memory": ("def recall(self, *a): raise MemoryError", "recall raised MemoryError"),
    "objects in state": (
        "def state(self): return {'x': np.array([{}], object)}",
        "state raised TypeError: state must give numpy arrays",
    ),
    "a list of slates": (
        "def recall(self, h, k, s): return [[1] * k] * len(h)",
        "recall must return policies.base.Slates; got list",
    ),
    "floats as items": (
        (
            "def recall(self, *a):\n    r = super().recall(*a)\n    return"
            " Slates(r.items.astype(float), r.scores)"
        ),
        "recall: items must be a numpy array of int64",
    ),
    "a warning that is an error": (
        "def fit(self, *a):\n    warnings.simplefilter('error')\n    warnings.warn('odd')",
        "fit raised UserWarning: odd",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_breaks_is_one_message_in_a_run(what: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(plug_in(BROKEN[what][0]))
    scenario(tmp_path)
    done = run(tmp_path)
    assert done.exit_code == 2, done.output
    assert done.output.count("\n") == 1
    assert (
        f"policy 'mine.py:Mine'{', request of user' if 'recall' in BROKEN[what][1] else ''}"
        in done.output
    )
    assert BROKEN[what][1] in done.output


CLOSED = {
    "stdout": ("sys.__stdout__.close()", "stdout"),
    "stderr": ("sys.stderr.close()", "stderr"),
    "the descriptor of stderr": ("os.close(2)", "stderr"),
    "both descriptors": ("os.close(1); os.close(2)", "stdout and stderr"),
    "stderr, detached": ("sys.stderr.detach()", "stderr"),
    "another file in its place": ("os.dup2(os.open(os.devnull, os.O_WRONLY), 2)", "stderr"),
}


def closing(code: str) -> str:
    return plug_in(f"def fit(self, *a):\n    {code}\n    return self")


@pytest.mark.parametrize("what", CLOSED)
def test_a_closed_stream_is_one_message(what: str, tmp_path: Path) -> None:
    code, words = CLOSED[what]
    (tmp_path / "mine.py").write_text(closing(code))
    scenario(tmp_path)
    done = run_alone(tmp_path, "run", "scenario.yaml", "--out", "out")
    rule = f"policy 'mine.py:Mine': fit closed {words}, which belongs to the whole process"
    assert (done.returncode, done.stderr.count(rule)) == (2, 1), done
    assert "Traceback" not in done.stderr


def test_streams_closed_in_workers_are_a_message_each(tmp_path: Path) -> None:
    """A worker has its streams again for the next arm."""
    arms = {"a": {"policy": "random"}, "c": {"policy": "popularity"}}
    for i, (code, _) in enumerate(CLOSED.values()):
        (tmp_path / f"mine{i}.py").write_text(closing(code))
        arms[f"b{i}"] = {"policy": f"mine{i}.py:Mine"}
    scenario(tmp_path, "processes", arms=arms)
    done = run_alone(tmp_path, "run", "scenario.yaml", "--out", "out", "--keep-going")
    for i, (_, words) in enumerate(CLOSED.values()):
        rule = f"policy 'mine{i}.py:Mine': fit closed {words}, which belongs to the whole process"
        assert done.stderr.count(rule) == 1, done
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


DEATHS = {
    "os._exit in fit": ("def fit(self, *a): os._exit(0)", "fit ended its process (exit code 0)"),
    "a segfault in recall": (
        "def recall(self, *a): ctypes.string_at(0)",
        "recall ended its process (signal 11: segmentation fault)",
    ),
}


@pytest.mark.parametrize("what", [*DEATHS, "exit in fit", "memory", "floats as items"])
def test_what_breaks_or_dies_in_a_worker_is_one_message(what: str, tmp_path: Path) -> None:
    """Under the executor that a scenario has where it says nothing."""
    body, message = {**BROKEN, **DEATHS}[what]
    (tmp_path / "mine.py").write_text(plug_in(body))
    scenario(tmp_path, "processes")
    done = run_alone(tmp_path, "run", "scenario.yaml", "--out", "out", "--quiet")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "policy 'mine.py:Mine'" in done.stderr
    assert message in done.stderr


def test_an_arm_that_dies_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(plug_in(DEATHS["a segfault in recall"][0]))
    arms = {
        "a": {"policy": "random"},
        "b": {"policy": "mine.py:Mine"},
        "c": {"policy": "popularity"},
    }
    loaded = Scenario.load(scenario(tmp_path, "processes", arms=arms))
    outcome = simulate(loaded, tmp_path / "out", folder=tmp_path, keep_going=True)
    assert list(outcome.failed) == ["b"]
    assert "recall ended its process" in outcome.failed["b"]
    assert EventLog.open(tmp_path / "out" / "log").n_rows > 0


CHECKED = {
    "exit in fit": (*BROKEN["exit in fit"], 2),
    "a list of slates": (*BROKEN["a list of slates"], 1),
    **{name: (body, message, 2) for name, (body, message) in DEATHS.items()},
    "hangs": (
        "def recall(self, *a): time.sleep(1000)",
        "recall took longer than the 1 s of a check",
        2,
    ),
}


@pytest.mark.parametrize("what", CHECKED)
def test_what_breaks_dies_or_hangs_is_one_message_in_the_checks(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, message, code = CHECKED[what]
    (tmp_path / "mine.py").write_text(plug_in(body))
    monkeypatch.chdir(tmp_path)
    limit = "1" if what == "hangs" else "100"
    done = CliRunner().invoke(main, ["policies", "check", "mine.py:Mine", "--limit", limit])
    assert done.exit_code == code, done.output
    assert message in done.output
    assert "not checked: leaves_inputs, seen_items" in done.output
    assert done.output.count("\n") == (1 if code == 2 else 3)


@pytest.mark.parametrize("what", [name for name in BROKEN if name != "objects in state"])
def test_the_checks_end_where_nothing_more_can_be_said(what: str, tmp_path: Path) -> None:
    from policies.registry import make

    body, message = BROKEN[what]
    (tmp_path / "mine.py").write_text(plug_in(body))
    (result,) = check_policy(make("mine.py:Mine", {}, tmp_path))
    assert (result.name, result.kept, result.stops) == ("shapes", False, True)
    assert message in result.detail


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import sys; sys.exit(3)\nclass Mine: ...",
            "importing 'mine.py' called for the end of the process (SystemExit: 3)",
        ),
        (
            "import os; os._exit(0)\nclass Mine: ...",
            "importing 'mine.py' ended its process (exit code 0)",
        ),
        (
            "import not_there\nclass Mine: ...",
            (
                "importing 'mine.py' raised ModuleNotFoundError: No module named 'not_there' at"
                " mine.py:1"
            ),
        ),
        ("class Mine(:", "plug-in file mine.py:1: not Python"),
        pytest.param(
            f"x = [{'1,' * 600_000}]\nclass Mine: ...",
            "plug-in file mine.py has more than 1,048,576 bytes",
            id="a file of a MiB",
        ),
        ("class Mine: ...", "'Mine' must be a subclass of policies.base.Policy"),
        (
            HEAD.replace("(Popularity)", "(Policy)") + "    def fit(self, *a): ...",
            "does not have all methods of a policy; write recall, restore, state",
        ),
        (
            HEAD.replace("@dataclass", "") + "    depth: int = 3",
            "must be a dataclass, else nobody can set depth",
        ),
        (
            plug_in("def __post_init__(self): sys.exit(1)"),
            "making Mine called for the end of the process",
        ),
        (
            plug_in("def __post_init__(self): raise ValueError('depth must be odd')"),
            "policy 'mine.py:Mine': depth must be odd",
        ),
    ],
)
def test_what_cannot_be_made_is_one_message(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    scenario(tmp_path)
    command = (
        ["policies", "check", "mine.py:Mine"]
        if "_exit" in text
        else ["run", "scenario.yaml", "--quiet"]
    )
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert done.output.count("\n") == 1


@pytest.mark.parametrize("name", ["array", "numpy"])
def test_a_plug_in_may_be_called_as_a_module_of_others(name: str, tmp_path: Path) -> None:
    """Neither abtest nor its workers take it for Python's, numpy's, ... although it lies in the
    working directory.
    """
    (tmp_path / f"{name}.py").write_text(plug_in("pass"))
    scenario(tmp_path, "processes", policy=f"{name}.py:Mine")
    for command in (
        ["policies", "check", f"{name}.py:Mine", "--only", "shapes"],
        ["run", "scenario.yaml", "--out", "out", "--quiet"],
    ):
        done = run_alone(tmp_path, *command)
        assert done.returncode == 0, done.stderr
        assert of_policies(done.stderr) == []


def test_files_of_one_name_and_files_that_change_are_different_policies(tmp_path: Path) -> None:
    from policies.registry import make

    for folder, boost in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(plug_in(f"depth: int = {boost}"))
    one, two = (make("mine.py:Mine", {}, tmp_path / folder) for folder in ("one", "two"))
    assert (one.params()["depth"], two.params()["depth"]) == (1, 2)
    assert one.fit_key() != two.fit_key()
    (tmp_path / "one" / "mine.py").write_text(plug_in("depth: int = 3"))
    assert make("mine.py:Mine", {}, tmp_path / "one").params()["depth"] == 3


# --- what does not stop a run
# ------------------------------------------------------------------------------

IMPURE = plug_in("""def recall(self, h, k, s):
    print("a word on stdout")
    warnings.warn("an odd thing")
    r = super().recall(h, k, s)
    return Slates(r.items, r.scores + np.float32(len(h) % 2), r.propensities)""")


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_promises_that_a_run_sees_broken_are_said_at_its_end_and_in_its_report(
    executor: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(IMPURE)
    scenario(tmp_path, executor)
    command = ["run", "scenario.yaml", "--out", "out", "--quiet"]
    done = run_alone(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out/report.html\n"
    said = [line for line in of_policies(done.stderr) if line.startswith("abtest: ")]
    assert any(
        "arm 'b': policy 'mine.py:Mine': asked for again alone, a request got another answer: other"
        " scores" in line
        for line in said
    )
    assert any(
        "recall warned of UserWarning: an odd thing" in line
        and "at mine.py:12" in line
        and "times]" in line
        for line in said
    )
    assert said[-1] == "abtest: `abtest policies check mine.py:Mine` looks closer"
    (check,) = [
        row
        for row in json.loads((tmp_path / "out" / "report.json").read_text())["checks"]
        if row["name"] == "Promises of policies"
    ]
    assert check["status"] == "amber"
    assert "asked for again alone" in check["value"]
    again = run_alone(tmp_path, *command, "--resume")
    assert again.returncode == 0
    assert [line for line in of_policies(again.stderr) if line.startswith("abtest: ")] == said


def test_a_run_of_honest_policies_has_nothing_to_say(tmp_path: Path) -> None:
    scenario(tmp_path, policy="popularity")
    done = run(tmp_path)
    assert of_policies(done.output) == [f"{tmp_path}/out/report.html"]
    assert not list((tmp_path / "out").rglob("notices.json"))


def test_empty_places_are_noticed(tmp_path: Path) -> None:
    short = (
        "r = super().recall(h, k, s)\n    r.items[:, 2:] = 0\n    r.scores[:, 2:] = -np.inf\n   "
        " return r"
    )
    body = f"def recall(self, h, k, s):\n    {short}"
    (tmp_path / "mine.py").write_text(plug_in(body))
    scenario(
        tmp_path, serving={"slate": 4, "recall": 12, "history": 16, "ranking": {"kind": "recall"}}
    )
    done = run(tmp_path)
    assert done.exit_code == 0
    assert (
        "arm 'b': policy 'mine.py:Mine': left places empty although unseen items were left"
        in done.output
    )


# --- resuming
# ------------------------------------------------------------------------------

STOPS = plug_in("""def recall(self, h, k, s):
    if os.environ.get("STOP_HERE") and (h.step > 6).any():
        os.kill(os.getpid(), 2)
    return super().recall(h, k, s)""")


def interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str = STOPS, **changes: Any
) -> Scenario:
    """A run of the plug-in that is interrupted in the middle."""
    (folder / "mine.py").write_text(text)
    loaded = Scenario.load(scenario(folder, **changes))
    with monkeypatch.context() as patch:
        patch.setenv("STOP_HERE", "1")
        with pytest.raises(KeyboardInterrupt):
            simulate(loaded, folder / "out", folder=folder)
    return loaded


def test_a_run_is_not_resumed_with_another_plug_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = interrupted(tmp_path, monkeypatch)
    (tmp_path / "mine.py").write_text(STOPS + "\n# another one\n")
    with pytest.raises(
        RunError,
        match=r"cannot be resumed:\n  policy 'mine.py:Mine': mine.py has changed\nUndo the change",
    ):
        simulate(loaded, tmp_path / "out", folder=tmp_path, resume=True)
    (tmp_path / "mine.py").write_text(STOPS)
    simulate(loaded, tmp_path / "out", folder=tmp_path, resume=True)


def test_nor_with_another_module_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "h3_helper.py").write_text("from h3_deeper import weight\n")
    (tmp_path / "h3_deeper.py").write_text("weight = 1\n")
    loaded = interrupted(tmp_path, monkeypatch, STOPS + "\nfrom h3_helper import weight\n")
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    (tmp_path / "h3_deeper.py").write_text("weight = 2\n")
    with pytest.raises(
        RunError, match=r"\n  policy 'mine.py:Mine': h3_deeper.py has changed\nUndo"
    ):
        simulate(loaded, tmp_path / "out", folder=tmp_path, resume=True)


def test_nor_with_another_abtest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simulator.run import pipeline as runs

    loaded = interrupted(tmp_path, monkeypatch)
    monkeypatch.setattr(runs, "package", lambda name: f"another {name}")
    with pytest.raises(RunError, match="abtest's package policies has changed"):
        simulate(loaded, tmp_path / "out", folder=tmp_path, resume=True)


def test_nor_with_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        f"{user} {' '.join(str(1 + (user + i) % 9) for i in range(8))}" for user in range(1, 13)
    ]
    (tmp_path / "data.txt").write_text("\n".join(lines) + "\n")
    changes = {
        "data": {"source": "s3rec", "path": "data.txt"},
        "users": {"kind": "held_out"},
        "days": 1,
    }
    (tmp_path / "mine.py").write_text(plug_in("pass"))
    loaded = Scenario.load(scenario(tmp_path, **changes))
    simulate(loaded, tmp_path / "out", folder=tmp_path)
    simulate(loaded, tmp_path / "out", folder=tmp_path, resume=True)
    (tmp_path / "data.txt").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(RunError, match=r"data file data\.txt has changed"):
        simulate(loaded, tmp_path / "out", folder=tmp_path, resume=True)


def test_the_name_of_a_fit_holds_what_is_behind_its_policy(tmp_path: Path) -> None:
    from policies.exported import Exported
    from policies.popularity import Popularity
    from policies.registry import make
    from simulator.run.context import fit_name

    names = set()
    for weight in (1, 2):
        (tmp_path / "mine.py").write_text(plug_in(f"WEIGHT = {weight}"))
        names.add(fit_name(make("mine.py:Mine", {}, tmp_path), 1))
    assert len(names) == 2
    model = tmp_path / "model.onnx"
    policy = Exported(file=str(model))
    assert sources(policy) == {str(model): ABSENT}
    model.write_bytes(b"one")
    before = fit_name(policy, 1), sources(policy)
    model.write_bytes(b"two")
    assert (fit_name(policy, 1), sources(policy)) != before
    assert sources(Popularity()) == {}


def test_a_policy_within_another_counts(tmp_path: Path) -> None:
    from policies.explore import Explore

    (tmp_path / "mine.py").write_text(plug_in("pass"))
    assert list(sources(Explore("mine.py:Mine").found_in(tmp_path))) == ["mine.py"]


def test_an_installed_package_counts_by_its_record_and_any_other_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from policies import sources as module
    from policies.registry import make

    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "h3_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text(plug_in("pass"))
    policy = make("h3_package.models:Mine")
    assert list(sources(policy)) == ["h3_package/__init__.py", "h3_package/models.py"]
    info = tmp_path / "h3_package-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: h3-package\nVersion: 1.2\n")
    (info / "RECORD").write_text(
        "h3_package/__init__.py,sha256=x,0\nh3_package/models.py,sha256=y,1\n"
    )
    module._distributions.cache_clear()
    try:
        assert list(sources(policy)) == ["h3-package 1.2"]
    finally:
        module._distributions.cache_clear()


def test_settings_of_the_process_are_what_they_were_before() -> None:
    import torch

    before = torch.get_default_dtype(), torch.is_grad_enabled(), np.geterr()
    with calling("x", "fit"):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        np.seterr(all="raise")
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), np.geterr()) == before


def test_torch_that_a_policy_imports_keeps_its_own_settings() -> None:
    """In a process of its own, which has no torch before the policy imports it."""
    code = """
import sys
from policies.calls import calling
assert "torch" not in sys.modules
with calling("x", "fit"):
    import torch
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
assert torch.get_default_dtype() == torch.float32
assert torch.is_grad_enabled()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
