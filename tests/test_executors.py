"""Executors: results, errors and progress arrive, a dead worker is named, and nothing outlives the
main process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from policies.base import Progress
from simulator.run.executors import WorkerError, executor


@dataclass(frozen=True)
class Square:
    """A task for the tests."""

    n: int

    def __call__(self, progress: Progress) -> int:
        progress("square", 1, 1, {"n": float(self.n)})
        if self.n == 13:
            raise ValueError("thirteen")
        return self.n * self.n


@dataclass(frozen=True)
class Die:
    """A task whose process ends."""

    def __call__(self, progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Threads:
    """How many threads a worker's libraries were told to use."""

    def __call__(self, progress: Progress) -> str | None:
        return os.environ.get("OMP_NUM_THREADS")


def collect(
    kind: Literal["serial", "processes", "ray"], tasks: list[Any]
) -> tuple[dict[int, Any], list[tuple[str, Mapping[str, float]]]]:
    found: dict[int, Any] = {}
    news: list[tuple[str, Mapping[str, float]]] = []
    with executor(
        kind, lambda stage, done, total, figures: news.append((stage, figures)), 2
    ) as made:
        made.run(tasks, lambda i, result: found.__setitem__(i, result))
    return found, news


@pytest.mark.parametrize("kind", ["serial", "processes"])
def test_results_errors_and_progress_arrive(kind):
    found, news = collect(kind, [Square(2), Square(13), Square(5)])
    assert (found[0], found[2]) == (4, 25)
    assert isinstance(found[1], ValueError)
    assert str(found[1]) == "thirteen"
    assert sorted(figures["n"] for _, figures in news) == [2.0, 5.0, 13.0]


def test_workers_compute_with_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert collect("processes", [Threads()])[0] == {0: "1"}


def test_a_worker_that_dies_is_named():
    with pytest.raises(WorkerError, match=r"ended by SIGKILL while it was Die\(\)\..*--resume"):
        collect("processes", [Die()])


@dataclass(frozen=True)
class DieWriting:
    """A task that dies while it tells of its progress, in a policy's code or outside."""

    inside: bool

    def __call__(self, progress: Progress) -> None:
        from policies.calls import calling
        from simulator.run import executors

        executors._news._wlock.acquire()
        if not self.inside:
            os.kill(os.getpid(), signal.SIGKILL)
        with calling("mine.py:Mine", "fit"):
            os._exit(3)


MOURNER = """
import sys
from simulator.run.executors import WorkerError
from tests.test_executors import DieWriting, Square, collect
if __name__ == "__main__":
    for tasks in ([DieWriting(True), Square(2), Square(3)], [DieWriting(False)]):
        try:
            print(*map(str, collect("processes", tasks)[0].values()), sep=" / ")
        except WorkerError as error:
            print(error)
"""


def test_a_worker_that_dies_while_it_tells_of_its_progress_holds_nobody_up(tmp_path):
    """It keeps the lock of the queue that it wrote into: neither the next workers nor the end of
    the main process wait for it.
    """
    (tmp_path / "mourner.py").write_text(MOURNER)
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "mourner.py")],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    first, second = done.stdout.splitlines()
    assert sorted(first.split(" / "))[:2] == ["4", "9"]
    assert "ended its process (exit code 3)" in first
    assert "ended by SIGKILL while it was DieWriting(inside=False)" in second
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class DieInside:
    """A task that dies in a policy's code."""

    code: int

    def __call__(self, progress: Progress) -> None:
        from policies.calls import calling

        with calling("mine.py:Mine", "fit"):
            if self.code < 0:
                os.kill(os.getpid(), -self.code)
            os._exit(self.code)


@pytest.mark.parametrize(
    ("code", "how"),
    [(-11, "signal 11: segmentation fault"), (0, "exit code 0"), (3, "exit code 3")],
)
def test_a_policy_that_ends_its_process_is_named_and_the_other_tasks_go_on(code, how):
    found, _ = collect(
        "processes", [Square(2), DieInside(code), *(Square(n) for n in range(20, 28))]
    )
    assert {i: value for i, value in found.items() if i != 1} == {
        0: 4,
        **{i: (18 + i) ** 2 for i in range(2, 10)},
    }
    assert isinstance(found[1], WorkerError)
    assert f"policy 'mine.py:Mine': fit ended its process ({how})" in str(found[1])


def test_what_done_raises_ends_the_run():
    def done(i: int, result: Any) -> None:
        raise KeyError("enough")

    for kind in ("serial", "processes"):
        with pytest.raises(KeyError, match="enough"), executor(kind, lambda *news: None, 2) as made:
            made.run([Square(1), Square(2)], done)


ORPHAN = """
import os, sys, time
from simulator.run.executors import executor
from tests.test_executors import Sleep
if __name__ == "__main__":
    with executor("processes", lambda *news: None, 2) as made:
        made.run([Sleep(sys.argv[1])], lambda i, result: None)
"""


@dataclass(frozen=True)
class Sleep:
    """Writes its process id and sleeps."""

    file: str

    def __call__(self, progress: Progress) -> None:
        with open(self.file, "w") as stream:
            stream.write(str(os.getpid()))
        time.sleep(60)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_a_worker_does_not_outlive_a_killed_main_process(tmp_path):
    (tmp_path / "orphan.py").write_text(ORPHAN)
    file = tmp_path / "pid"
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    env = {**os.environ, "PYTHONPATH": root}
    main = subprocess.Popen(
        [sys.executable, str(tmp_path / "orphan.py"), str(file)], env=env, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = int(file.read_text())
    main.kill()
    main.wait()
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{worker}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the worker is still alive")


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WorkerError, match=r"abtest\[ray\]"), executor("ray", lambda *news: None, 1):
        pass
