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
    (tmp_path / "cache" / ".kernel.norm.kernel.compiling").mkdir()  # no file
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


WHOLE = """
import part
from policies.jit import njit
from part import SCALE, Shape, one, scaled

@njit()
def total(x):
    out = 0.0
    for value in x:
        out += scaled(value) + SCALE + part.OTHER
    return out + 5.0 + one() if Shape.SIDES == 3 else out
"""

PART = """
from enum import IntEnum
from numba import types
from numba.extending import intrinsic
from policies.jit import njit

SCALE, OTHER = 2.0, 5.0
FACTOR = 1.0

class Shape(IntEnum):
    SIDES = 3

def unit():
    return 1.0

@intrinsic
def one(typing):
    def generate(context, builder, signature, values):
        return context.get_constant(types.float64, unit())
    return types.float64(), generate

@njit()
def scaled(x):
    return x * FACTOR
"""

USE = """
import numpy as np
import whole
print(whole.total(np.full(2, 10.0)), *(sum(whole.total.stats[i].values()) for i in (1, 2)))
"""


def test_a_kernel_is_compiled_anew_when_what_it_is_made_of_changes_in_another_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "whole.py").write_text(WHOLE)
    place = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}

    def use(part: str, whole: str = WHOLE) -> list[float]:
        (tmp_path / "part.py").write_text(part)
        (tmp_path / "whole.py").write_text(whole)
        command = [sys.executable, "-B", "-c", USE]
        done = subprocess.run(command, env=place, capture_output=True, text=True, check=True)
        return [float(word) for word in done.stdout.split()]

    assert use(PART) == [40.0, 0, 1]  # result, found in the cache, compiled
    assert use(PART) == [40.0, 1, 0]
    assert use(PART.replace("x * FACTOR", "x - FACTOR")) == [38.0, 0, 1]
    assert use(PART.replace("FACTOR = 1.0", "FACTOR = 2.0")) == [60.0, 0, 1]
    assert use(PART.replace("SCALE, OTHER = 2.0", "SCALE, OTHER = 3.0")) == [42.0, 0, 1]
    assert use(PART.replace("5.0", "6.0")) == [42.0, 0, 1]
    assert use(PART.replace("SIDES = 3", "SIDES = 4")) == [34.0, 0, 1]
    assert use(PART.replace("return 1.0", "return 4.0")) == [43.0, 0, 1]
    fast = PART.replace("@njit()", "@njit(error_model='python')")
    assert use(fast) == [40.0, 0, 1]
    # Nothing of it has changed: other lines of the two files have.
    assert use(f"{fast}\nUNUSED = 1\n", f"# a line more\n{WHOLE}") == [40.0, 1, 0]


def test_a_kernel_answers_python_and_other_kernels_alike(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(KERNEL)
    place = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    use = "import kernel, numpy as np; print(kernel.norm(np.full(4, 2.0))**2, kernel.half(8.0))"
    for _ in range(2):  # compiled, and read from the cache
        command = [sys.executable, "-c", use]
        done = subprocess.run(command, env=place, capture_output=True, text=True, check=True)
        norm, half = map(float, done.stdout.split())
        assert abs(norm - 8.0) < 1e-12
        assert half == 4.0


NAMED = """
from typing import NamedTuple
import numpy as np
from policies.jit import njit

class Pair(NamedTuple):
    one: np.ndarray
    two: np.ndarray

@njit()
def both(pair):
    return pair.one[0] + pair.two[0]

print(both(Pair(np.ones(1), np.ones(1))), sum(both.stats.cache_hits.values()))
"""


def test_a_kernel_of_an_argument_whose_class_has_another_name_now_is_compiled_anew(
    tmp_path: Path,
) -> None:
    place = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}

    def use(named: str) -> str:
        (tmp_path / "named.py").write_text(named)
        command = [sys.executable, "-B", "-c", "import named"]
        return subprocess.run(
            command, env=place, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert use(NAMED) == "2.0 0"
    assert use(NAMED) == "2.0 1"
    assert use(NAMED.replace("Pair", "Two").replace("[0] +", "[0] * 3 +")) == "4.0 0"


TWO = """
from policies.jit import njit

@njit()
def rest(x, y):
    if x < 0:
        raise ValueError("negative", x)
    return (x + y) - x

@njit()
def middle(x, y):
    return rest(x, y)

@njit(fastmath=True)
def fast(x, y):
    return middle(x, y)

@njit()
def exact(x, y):
    return middle(x, y)
"""

CALL = """
import sys
import two
print(getattr(two, sys.argv[1])(1e16, 1.0))
stats = two.middle.get_overload.__self__.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
try:
    getattr(two, sys.argv[1])(-1.0, 0.0)
except ValueError as error:
    print(error.args)
"""


def test_a_part_is_compiled_once_for_all_kernels_and_takes_no_option_over_from_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "two.py").write_text(TWO)
    place = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}

    def call(name: str) -> list[str]:
        command = [sys.executable, "-c", CALL, name]
        done = subprocess.run(command, env=place, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    # Of 1e16 + 1 the 1 is lost, also where it is added up for a kernel with fast math.
    assert call("fast") == ["0.0", "0 1", "('negative', -1.0)"]
    assert call("exact") == ["0.0", "1 0", "('negative', -1.0)"]
    assert call("exact") == ["0.0", "0 0", "('negative', -1.0)"]


def test_a_call_does_not_answer_for_kernels_that_are_compiled_meanwhile() -> None:
    with within(0.05), stopped():
        time.sleep(0.2)

    def late() -> None:
        with stopped():
            time.sleep(0.1)
        time.sleep(30)

    with pytest.raises(OutOfTime), within(0.05):
        late()
