"""A stranger's scores of all items get ranking and blocks of one shape for nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policies.base import Fitting, Scorer
from policies.blocks import ROWS
from policies.examples import mixed
from tests.worlds import CoClicks, broken_promises


def test_it_keeps_every_promise() -> None:
    assert broken_promises(CoClicks()) == {}
    assert isinstance(CoClicks(), Scorer)


def test_recall_is_the_best_of_the_scores_and_blocks_are_full() -> None:
    example = mixed(n_users=90)
    policy = CoClicks().fit(example.sequences, example.catalogue, Fitting())
    requests = example.requests()
    scores = policy.scores(requests)
    scores[:, 0] = -np.inf
    np.put_along_axis(scores, requests.seen, -np.inf, axis=1)
    policy.asked.clear()
    slates = policy.recall(requests, 5, 0)
    np.testing.assert_allclose(slates.scores, -np.sort(-scores, axis=1)[:, :5], rtol=1e-5)
    np.testing.assert_array_equal(policy.score(requests, slates.items), slates.scores)
    assert len(requests) > ROWS
    assert set(policy.asked) == {ROWS}
    assert policy.recall(requests.rows(slice(0, 0)), 5, 0).items.shape == (0, 5)


PLAIN = """
from policies.check import check_one
from tests import worlds

worlds.matmul = lambda rows, table: rows @ table
for name in ("batch_invariance", "permutation"):
    check_one(worlds.CoClicks(), name)
"""


def test_the_promises_see_a_plain_product_where_the_kernel_breaks_it() -> None:
    """OpenBLAS' float32 kernel for AVX2 takes the last rows of a block in another order than the
    first.
    """
    has = np.show_config(mode="dicts")["SIMD Extensions"]  # type: ignore[index]
    if not {"AVX2", "X86_V3"} & {*has["baseline"], *has.get("found", [])}:
        pytest.skip("this processor has no AVX2, and so not the kernel that is asked for")
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PLAIN],
        env=environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "BrokenPromise: batch_invariance" in done.stderr
