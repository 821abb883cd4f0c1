"""Products: one order of addition everywhere, and a rough product whose error is within its
bound.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.integers import GROUP, ROWS, multiply
from policies.products import Rough, _round, matmul, pad, pseudo_inverse, score_items, solve
from policies.retrieval import Exact, top_k


@pytest.mark.parametrize("width", [1, 7, 8, 17, 64, 65])
def test_a_score_is_the_same_bits_alone_and_among_all(width: int) -> None:
    rng = np.random.default_rng(width)
    vectors = pad(rng.standard_normal((2500, width)))
    queries = pad(rng.standard_normal((9, width)))
    scores = matmul(queries, np.ascontiguousarray(vectors.T))
    ids = rng.integers(0, 2500, (9, 40))
    np.testing.assert_array_equal(
        score_items(queries, vectors, ids),
        np.where(ids > 0, np.take_along_axis(scores, ids, 1), -np.inf),
    )
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    bound = (
        width
        * 2.0**-24
        * (np.abs(queries.astype(np.float64)) @ np.abs(vectors.T.astype(np.float64)))
    )  # Higham 2002, eq. 3.5
    assert (np.abs(scores - exact) <= 1.01 * bound).all()


def test_the_order_of_addition_is_the_one_that_is_written() -> None:
    one = np.float32
    q, x = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)
    p = q * x
    total = one(0)
    for i in (0, 8):
        total += ((p[i] + p[i + 1]) + (p[i + 2] + p[i + 3])) + (
            (p[i + 4] + p[i + 5]) + (p[i + 6] + p[i + 7])
        )
    assert score_items(q[None], np.stack([0 * x, x]), np.array([[1]]))[0, 0] == total


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.sampled_from([1, 8, 50, 64, 257]),
    st.integers(-20, 20),
    st.sampled_from([0, 0.1, 1]),
)
def test_the_rough_product_is_within_its_bound_and_misses_nothing(
    seed: int, k: int, width: int, scale: int, spread: float
) -> None:
    """Lengths spread over factors of e^3 or not at all, near-duplicates far closer than the
    rounding, and signs that cancel.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((3000, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors *= np.exp(rng.normal(0, spread, (3000, 1))) * 2.0**scale
    vectors[600:700] = vectors[:100] * (1 + 1e-6 * rng.standard_normal((100, 1)))
    queries = pad(rng.standard_normal((5, width)))
    seen = rng.integers(0, 3000, (5, 30))
    index, items = Exact(vectors), pad(vectors)
    scores = matmul(queries, np.ascontiguousarray(items.T))
    rough = index._rough
    assert rough is not None
    length = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
    words = np.pad(_round(queries, rough._scale / length[:, 0]), ((0, ROWS - 5), (0, 0)))
    near = np.empty((ROWS, len(rough._groups) * GROUP), dtype=np.int16)
    multiply(words.view(np.int32), rough._groups, 0, len(rough._groups), 15, near)
    off = near[:5, : len(rough._ids)] - scores[:, rough._ids] * (
        rough._scale**2 / 2**15 / rough.longest / length
    )
    assert (np.abs(off) <= rough.error).all()
    assert (np.abs(near[:5, : len(rough._ids)]) <= rough._largest).all()
    assert (np.diff(rough._largest) <= 0).all()
    found, best = index.search(queries[:, :width], k, seen)
    expected, expected_best = top_k(scores, k, seen)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(best, expected_best)


@pytest.mark.parametrize("width", [16, 64, 256])
def test_rounding_that_is_as_bad_as_can_be_hides_no_best_item(width: int) -> None:
    """Every number of the best item is rounded down by nearly a half, every number but one of a
    slightly worse item is rounded up: in the rough product the worse one is far ahead.
    """
    length = 2.0**15 - 1 - width**0.5 / 2
    number = int(0.97 * length / width**0.5)
    vectors = np.random.default_rng(0).normal(0, 5, (1001, width))
    vectors[1, :2] = np.array([1, -1]) * length / 2**0.5  # the longest, so the others keep scale 1
    best, worse = 2, 3
    vectors[best] = number + 0.48
    vectors[worse] = number + 0.52
    vectors[worse, -1] = number + 0.48 - 0.04 * (width - 1) - 0.5
    query = np.ones((1, width))
    assert (1 + np.argsort(-(vectors[1:] @ query[0])))[:2].tolist() == [best, worse]
    rough = Rough(pad(vectors))
    candidates, certain = rough.shortlist(pad(query), 1, np.zeros((1, 0), dtype=np.int64))
    assert certain.all()
    assert best in candidates


def test_the_best_item_may_be_shorter_than_all_that_were_multiplied_first() -> None:
    """1024 items are of length 1, one of them with a score of .9. The next one is of length .9002
    and lies in the direction of the query: how near its rough score may come to the bound is within
    the error.
    """
    width, n, best = 64, 1500, 1025
    query = np.eye(width)[:1]
    vectors = np.zeros((n + 1, width))
    across = np.random.default_rng(0).standard_normal((n, width - 1))
    vectors[1:, 1:] = across / np.linalg.norm(across, axis=1, keepdims=True)
    vectors[7] *= np.sqrt(1 - 0.9**2)
    vectors[7, 0] = 0.9
    vectors[best] = query[0] * 0.9002
    vectors[best + 1 :] *= 0.1
    candidates, certain = Rough(pad(vectors)).shortlist(
        pad(query), 1, np.zeros((1, 0), dtype=np.int64)
    )
    assert certain.all()
    assert best in candidates


def test_most_items_are_left_out() -> None:
    rng = np.random.default_rng(1)
    rough = Rough(pad(rng.standard_normal((6001, 64))))
    ids, certain = rough.shortlist(
        pad(rng.standard_normal((100, 64))), 10, np.zeros((100, 0), dtype=np.int64)
    )
    assert certain.all()
    assert (ids > 0).sum(axis=1).mean() < 15


@pytest.mark.parametrize(
    "case", ["all alike", "zeros", "tiny", "huge", "all seen but two", "not finite"]
)
def test_what_no_shortlist_can_tell_is_looked_at_in_full(case: str) -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((1001, 16)).astype(np.float32)
    queries, seen = (
        rng.standard_normal((3, 16)).astype(np.float32),
        np.zeros((3, 1), dtype=np.int64),
    )
    if case == "all alike":
        vectors[:] = vectors[0]
    elif case == "zeros":
        queries[1] = 0
    elif case == "tiny":
        queries *= 1e-30
        vectors *= 1e-12
    elif case == "huge":
        queries *= 1e30
        vectors *= 1e6
    elif case == "all seen but two":
        seen = np.tile(np.arange(1, 999), (3, 1))
    else:
        vectors[5, 3] = np.inf
        queries = np.abs(queries)
    index = Exact(vectors)
    items, scores = index.search(queries, 10, seen)
    expected, expected_scores = top_k(matmul(queries, np.ascontiguousarray(vectors.T)), 10, seen)
    np.testing.assert_array_equal(items, expected)
    np.testing.assert_array_equal(scores, expected_scores)
    if case == "all seen but two":
        assert (items[:, 2:] == 0).all()
    with pytest.raises(ValueError, match="holds NaN"):
        index.search(np.where([[False], [True], [False]], np.nan, queries), 10, seen)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("width", "n"), [(1, 1), (7, 8), (8, 51), (50, 64), (64, 401), (129, 1030)]
)
def test_matmul_gives_a_row_the_same_bits_at_every_place_and_in_every_batch(
    dtype: type, width: int, n: int
) -> None:
    rng = np.random.default_rng(n)
    row, table = (
        rng.standard_normal(width).astype(dtype),
        rng.standard_normal((width, n)).astype(dtype),
    )
    many = rng.standard_normal((150, width)).astype(dtype)
    expected = matmul(row[None], table)[0]
    assert expected.dtype == dtype
    np.testing.assert_allclose(
        expected, row.astype(np.float64) @ table, rtol=1e-4 if dtype is np.float32 else 1e-11
    )
    for place in (0, 1, 5, 12, 59, 60, 63, 64, 149):
        rows = many.copy()
        rows[place] = row
        np.testing.assert_array_equal(matmul(rows, table)[place], expected)
        np.testing.assert_array_equal(
            matmul(np.asfortranarray(rows), np.asfortranarray(table))[place], expected
        )
        np.testing.assert_array_equal(matmul(rows[place:], table)[0], expected)


def test_matmul_takes_operands_that_fit_and_computes_whole_numbers_in_double() -> None:
    with pytest.raises(ValueError, match=r"got shapes \(2, 3\) and \(4, 5\)"):
        matmul(np.ones((2, 3)), np.ones((4, 5)))
    with pytest.raises(ValueError, match="or vectors"):
        matmul(np.ones((1, 2, 3)), np.ones((3, 5)))
    assert matmul(np.array([[2**40, 1]]), np.array([[1], [1]])).tolist() == [[2.0**40 + 1]]
    assert matmul(np.ones((0, 3), np.float32), np.ones((3, 2), np.float32)).shape == (0, 2)
    assert matmul(np.ones((2, 0)), np.ones((0, 3))).tolist() == [[0.0] * 3] * 2


def test_solve_is_the_solution_and_refuses_what_has_no_cholesky_factor() -> None:
    rng = np.random.default_rng(0)
    half = rng.standard_normal((9, 12))
    matrix, right = half @ half.T, rng.standard_normal(9)
    kept = matrix.copy(), right.copy()
    np.testing.assert_allclose(solve(matrix, right), np.linalg.solve(matrix, right), rtol=1e-9)
    np.testing.assert_array_equal(matrix, kept[0])
    np.testing.assert_array_equal(right, kept[1])
    for bad in (-matrix, np.zeros((9, 9)), np.full((9, 9), np.nan)):
        with pytest.raises(ValueError, match="not positive definite"):
            solve(bad, right)


def test_mkl_is_told_to_round_alike_wherever_an_operand_lies() -> None:
    """Without it, products of torch with few columns differ between the places of a block
    (`make kernels` measures them).
    """
    code = "import os, policies; print(os.environ['MKL_CBWR'])"
    plain = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    for environment, expected in (
        (plain, "AUTO"),
        ({**plain, "MKL_CBWR": "COMPATIBLE"}, "COMPATIBLE"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_matmul_of_vectors_is_that_of_their_rows_and_columns() -> None:
    rng = np.random.default_rng(3)
    rows, table = rng.standard_normal((5, 21)), rng.standard_normal((21, 4))
    whole = matmul(rows, table)
    assert matmul(rows[0], table[:, 0]) == whole[0, 0]
    np.testing.assert_array_equal(matmul(rows[1], table), whole[1])
    np.testing.assert_array_equal(matmul(rows, table[:, 2]), whole[:, 2])


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_a_pseudo_inverse_is_numpys_and_that_of_nan_is_nan(n: int) -> None:
    half = np.random.default_rng(n).standard_normal((2, 3, n, max(n - 2, 1)))
    matrices = half @ np.swapaxes(half, -1, -2)
    np.testing.assert_allclose(
        pseudo_inverse(matrices),
        np.linalg.pinv(matrices, rcond=1e-13, hermitian=True),
        rtol=1e-6,
        atol=1e-9,
    )
    matrices[1, 0, 0, n - 1] = np.nan
    inverses = pseudo_inverse(matrices)
    assert np.isnan(inverses[1, 0]).all()
    assert np.isfinite(inverses[0]).all()
    assert (pseudo_inverse(np.zeros((n, n))) == 0).all()
