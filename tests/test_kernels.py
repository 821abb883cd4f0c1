"""The driver of `make kernels`: what it covers, and that it says so where a kernel does not run or
a result differs.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests import kernels
from tests.kernels import (
    BLAS,
    NUMPY,
    THREADS,
    TORCH,
    Kernels,
    available,
    covering,
    product,
    skipped,
    verdicts,
)

RUNNING: dict[str, Any] = {
    "blas": "Katmai",
    "torch": "default",
    "numpy": [],
    "threads": [1, 1],
    "libm": "",
}
OLD = Kernels("Prescott", "default", "baseline", 1)


def test_every_kernel_of_this_processor_is_covered_and_the_others_are_named() -> None:
    some, everything = covering(), product()
    assert {one.blas for one in some} == {one.blas for one in everything} == set(available(BLAS))
    assert {one.torch for one in some} == {one.torch for one in everything} == set(available(TORCH))
    assert {one.numpy for one in some} == {one.numpy for one in everything} == set(available(NUMPY))
    assert len(some) < 2 or {one.threads for one in some} == set(THREADS)
    assert (
        len(everything)
        == len(set(everything))
        == 4 * len(available(BLAS)) * len(available(TORCH)) * len(available(NUMPY))
    )
    assert set(some) <= set(everything)
    known = len(BLAS) + len(TORCH) + len(NUMPY)
    assert known - len(skipped()) == len(available(BLAS)) + len(available(TORCH)) + len(
        available(NUMPY)
    )


def test_a_processor_without_avx_gets_the_oldest_kernels_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "features", lambda: ({"SSE3": True}, []))
    assert covering() == [Kernels("Prescott", "default", "baseline", 1, fused=False)]
    assert "skip  OpenBLAS Haswell: this processor lacks AVX2, FMA3" in skipped()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blas": "SkylakeX"}, "OpenBLAS runs its kernels for SkylakeX, not for Prescott"),
        ({"torch": "avx2"}, "ATen runs its kernels for avx2, not for default"),
        ({"threads": [2, 2]}, "OpenBLAS runs 2 threads, not 1"),
    ],
)
def test_a_kernel_that_does_not_run_is_no_check(change: dict[str, Any], message: str) -> None:
    assert list(OLD.not_running(RUNNING)) == []
    assert list(OLD.not_running({**RUNNING, **change})) == [message]


def test_what_differs_between_kernels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([("a", []), ("b", []), ("a", ["sasrec breaks purity"])])

    def ask(combination: Kernels, every: bool) -> tuple[dict[str, Any], float]:
        value, wrong = next(answers)
        return {"running": RUNNING, "wrong": wrong, "same": {"log of choice": value}}, 2.0

    monkeypatch.setattr(kernels, "ask", ask)
    (good, _), (other, differs), (broken, said) = verdicts([OLD] * 3, False)
    assert (good, other, broken) == (True, False, False)
    assert "log of choice differs from that under OpenBLAS Prescott" in differs
    assert said.startswith("FAIL")
    assert said.endswith("sasrec breaks purity")


def test_a_child_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.sys, "executable", "false")
    ((good, line),) = verdicts([OLD], False)
    assert not good
    assert "the process ended with 1" in line
