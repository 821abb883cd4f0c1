"""Kernels are compiled once, by whichever process comes first."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from policies.calls import OutOfTime, within
from policies.clock import stopped

KERNEL = """
from policies.jit import njit

@njit()
def half(x):
    return x / 2

@njit(nogil=True)
def norm(x):
    total = 0.0
    for value in x:
        total += half(value) * value
    return total ** 0.5
"""

WORKER = """
import sys, time, pathlib
import numpy as np
import kernel
print("ready", flush=True)
sys.stdin.readline()
assert kernel.norm(np.full(4, 2.0)) == 8.0 ** 0.5
print(sum(kernel.norm.stats.cache_misses.values()), flush=True)
"""


def test_processes_that_come_together_compile_a_kernel_once(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(KERNEL)
    place = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=place,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:  # all at once, when all have imported it
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    compiled = [int(worker.communicate()[0]) for worker in workers]
    assert sorted(compiled) == [0, 0, 1]


def test_where_no_file_can_be_locked_everybody_compiles(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(KERNEL)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".kernel.norm.compiling").mkdir()  # no file
    place = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        env=place,
        input="go\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["ready", "1"]


def test_a_call_does_not_answer_for_kernels_that_are_compiled_meanwhile() -> None:
    with within(0.05), stopped():
        time.sleep(0.2)

    def late() -> None:
        with stopped():
            time.sleep(0.1)
        time.sleep(30)

    with pytest.raises(OutOfTime), within(0.05):
        late()
