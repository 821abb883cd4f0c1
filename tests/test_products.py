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

from policies import products
from policies.integers import GROUP, ROWS, multiply
from policies.products import (
    TINY,
    Rough,
    _diagonalise,
    _kth_largest,
    _lengths,
    _round,
    _solve,
    matmul,
    pad,
    pseudo_inverse,
    score_items,
    solve,
)
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


def literal_shortlist(
    rough: Rough, queries: np.ndarray, k: int, seen: np.ndarray, first_step: int = 1024
) -> list[list]:
    """The candidates of each of a tile of `ROWS` queries, item after item in plain Python: steps of
    1024 items, then of half as many as there were, in whole rounds of the buckets.
    """
    n, width = len(rough._ids), queries.shape[1]
    buckets, margin = rough._n_buckets(k), int(np.ceil(2 * (width**0.5 + width / 256 + 1)))
    words = _round(queries, (2**15 - 1 - width**0.5 / 2) / _lengths(queries))
    words = np.pad(words, ((0, ROWS - len(words)), (0, 0)))
    near = np.empty((ROWS, len(rough._groups) * GROUP), dtype=np.int16)
    multiply(words.view(np.int32), rough._groups, 0, len(rough._groups), 15, near)
    rows = range(len(queries))
    for row in rows:
        near[row, rough._places[seen[row][seen[row] > 0]]] = -(2**15)
    best = np.full((len(queries), buckets), -(2**15), dtype=int)
    bound = [-(2**15)] * len(queries)
    end = multiplied = 0
    while end < n:
        start, step = end, max(first_step, end // 2)
        end = min(start + max(step // buckets, 1) * buckets, n)
        if rough._largest[start] < min(bound) - margin:
            continue
        multiplied = end
        for row in rows:
            for place in range(start, end):
                bucket = (place - start) % buckets
                best[row, bucket] = max(best[row, bucket], near[row, place])
            bound[row] = max(bound[row], sorted(best[row])[-k])
    out = []
    for row in rows:
        lowest = max(bound[row] - margin, -(2**15) + 1)
        places = [
            place
            for bucket in range(buckets)
            for place in range(bucket, multiplied, buckets)
            if near[row, place] >= lowest
        ]
        out.append(rough._ids[places].tolist())
    return out


@pytest.mark.parametrize(("k", "spread"), [(3, 0.0), (3, 0.5), (150, 0.2)])
def test_a_shortlist_is_the_literal_one(k: int, spread: float) -> None:
    """Of 35 queries, more than one block; the last tile is not full."""
    rng = np.random.default_rng(k)
    n, n_queries = 5000, 35
    vectors = rng.standard_normal((n + 1, 8))
    vectors *= np.exp(rng.normal(0, spread, (n + 1, 1)))
    rough, queries = Rough(pad(vectors)), pad(rng.standard_normal((n_queries, 8)))
    seen = rng.integers(0, n + 1, (n_queries, 20))
    got, certain = rough.shortlist(queries, k, seen)
    want = [
        one
        for at in range(0, n_queries, ROWS)
        for one in literal_shortlist(rough, queries[at : at + ROWS], k, seen[at : at + ROWS])
    ]
    most = 3 * k + 64
    assert got.shape[1] == min(max(map(len, want)), most)
    assert certain.tolist() == [len(one) <= most for one in want]
    for mine, theirs in zip(got, want, strict=True):
        assert mine[mine > 0].tolist() == theirs[:most]


def test_what_is_prepared_of_vectors_by_hand() -> None:
    """Lengths 5, 13 and 0: the longest first; of equal ones the first."""
    vectors = pad(np.array([[9, 9], [3, 4], [5, 12], [0, 0], [-4, 3]]))
    rough = Rough(vectors)
    assert vectors.shape == (5, 8)
    scale = 2**15 - 1 - 8**0.5 / 2
    assert rough.longest == 13.0
    assert rough._ids.tolist() == [2, 1, 4, 3]
    assert rough._places.tolist() == [-1, 1, 0, 3, 2]
    largest = [scale, scale * 5 / 13, scale * 5 / 13, 0]
    assert rough._largest.tolist() == [np.ceil(one + 8**0.5 / 2) for one in largest]
    words = rough._groups.reshape(1, 4, GROUP, 2)[0].transpose(1, 0, 2).reshape(GROUP, 8)
    assert words[:4, :2].tolist() == np.rint(scale / 13 * vectors[[2, 1, 4, 3], :2]).tolist()
    assert not words[4:].any()
    assert rough.error == 8**0.5 + 8 / 256 + 1
    again = Rough.of(8, rough.arrays())
    assert vars(again).keys() == vars(rough).keys()
    for name, value in vars(rough).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    nothing = Rough(pad(np.zeros((3, 2))))
    assert nothing.longest == 0.0
    assert nothing._largest.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("k", "buckets"), [(1, 256), (128, 256), (129, 288), (144, 288), (145, 320), (1000, 2016)]
)
def test_buckets_are_twice_the_wanted_in_whole_groups_and_two_items_each(
    k: int, buckets: int
) -> None:
    assert Rough._n_buckets(k) == buckets
    for n, fits in ((2 * buckets - 1, False), (2 * buckets, True)):
        assert Rough(np.ones((n + 1, 8), np.float32)).fits(k) is fits


@pytest.mark.parametrize("length", [2.0**-41, 2.0**-40, 2.0**40, 2.0**41])
def test_a_bound_holds_of_lengths_up_to_2_to_the_40_and_no_shorter_than_its_inverse(
    length: float,
) -> None:
    """Of queries, of items, and of one row among others."""
    holds = 2.0**-40 <= length <= 2.0**40
    assert TINY == 2.0**-40
    none = np.zeros((2, 0), dtype=np.int64)
    units = np.eye(8, dtype=np.float32)
    candidates, certain = Rough(units).shortlist(units[1:3] * [[1], [length]], 2, none)
    assert certain.tolist() == [True, holds]
    assert 1 in candidates[0]
    _, certain = Rough(units * np.float32(length)).shortlist(units[1:3], 2, none)
    assert certain.tolist() == [holds, holds]


def test_the_k_th_largest_is_that_of_a_sort_or_the_floor() -> None:
    random = np.random.default_rng(7)
    for _ in range(60):
        n = int(random.integers(1, 12))
        values = random.integers(-4, 5, n).astype(np.int16)
        if random.random() < 0.3:
            values = random.integers(-(2**15), 2**15, n).astype(np.int16)
        k = int(random.integers(1, n + 3))
        for floor in (-(2**15), -2, 0, 2):
            kth = sorted(values.tolist(), reverse=True)[k - 1] if k <= n else floor
            assert _kth_largest(values, k, floor) == max(kth, floor)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("width", "n"), [(16, 5), (11, 5), (16, 1), (11, 1)])
def test_products_are_added_as_a_tree_of_eight_whatever_is_missing(
    dtype: type, width: int, n: int
) -> None:
    """Of a table and of one column; bit for bit."""
    rng = np.random.default_rng(width)
    rows = rng.standard_normal((3, width)).astype(dtype)
    table = rng.standard_normal((width, n)).astype(dtype)
    left = np.pad(rows, ((0, 0), (0, 16 - width)))
    right = np.pad(table, ((0, 16 - width), (0, 0)))
    p = left[:, :, None] * right
    total = np.zeros((3, n), dtype)
    for i in (0, 8):
        low = (p[:, i] + p[:, i + 1]) + (p[:, i + 2] + p[:, i + 3])
        high = (p[:, i + 4] + p[:, i + 5]) + (p[:, i + 6] + p[:, i + 7])
        total += low + high
    np.testing.assert_array_equal(matmul(rows, table), total)
    assert matmul(rows, table).dtype == dtype


def test_a_product_of_mixed_kinds_is_double_and_of_ill_shaped_ones_refused() -> None:
    single, double = np.ones((1, 3), np.float32), np.ones((3, 1))
    assert matmul(single, double).dtype == matmul(double.T, single.T).dtype == np.float64
    assert matmul(single[0], single[0]).shape == ()
    for rows, table in (
        (np.float64(1), np.ones(1)),
        (np.ones(1), np.float64(1)),
        (np.ones((1, 1, 3)), np.ones(3)),
        (np.ones(3), np.ones((3, 1, 1))),
        (np.ones(3), np.ones(2)),
    ):
        with pytest.raises(ValueError, match="matmul takes"):
            matmul(rows, table)


def test_a_factor_is_choleskys_and_a_matrix_on_the_edge_has_none() -> None:
    matrix, right = np.array([[4.0, 9, 9], [2, 5, 9], [6, 7, 22]]), np.array([2.0, 7, 1])
    whole = np.tril(matrix) + np.tril(matrix, -1).T
    factor, x = matrix.copy(), right.copy()
    assert _solve(factor, x)
    np.testing.assert_allclose(np.tril(factor), np.linalg.cholesky(whole), rtol=1e-12)
    np.testing.assert_allclose(x, np.linalg.solve(whole, right), rtol=1e-10)
    assert not _solve(np.array([[1.0, 0], [1, 1]]), np.ones(2))  # its last pivot is 0


def test_rotations_find_eigenvalues_and_vectors() -> None:
    """Of signs and sizes of all kinds, and of a matrix that is diagonal already."""
    half = np.random.default_rng(6).standard_normal((7, 7))
    for matrix in (half + half.T, np.diag([3.0, -1, 2]), np.zeros((2, 2))):
        a, v = matrix.copy(), np.eye(len(matrix))
        _diagonalise(a, v)
        np.testing.assert_allclose(v @ np.diag(np.diag(a)) @ v.T, matrix, atol=1e-12)
        np.testing.assert_allclose(v.T @ v, np.eye(len(matrix)), atol=1e-12)
        np.testing.assert_allclose(a, np.diag(np.diag(a)), atol=1e-15)
    # The smaller of both angles: what is nearly diagonal hardly turns.
    a, v = np.array([[2.0, 1e-3], [1e-3, 1.0]]), np.eye(2)
    _diagonalise(a, v)
    assert v[0, 0] > 0.99
    a, v = np.array([[1.0, 1.0], [1.0, 1.0]]), np.eye(2)
    _diagonalise(a, v)
    np.testing.assert_allclose(np.diag(a), [0, 2], atol=1e-15)


def test_eigenvalues_of_a_thousandth_of_a_millionth_of_a_millionth_count_as_0() -> None:
    """1e-15 of the largest, of either sign; the next larger one counts."""
    for small, inverse in ((1e-15, 0.0), (1.01e-15, 1 / 1.01e-15), (-2e-15, -5e14)):
        got = pseudo_inverse(np.diag([1.0, small]))
        np.testing.assert_allclose(got, np.diag([1.0, inverse]), rtol=1e-12)
    got = pseudo_inverse(np.diag([-1.0, 1e-15]))
    np.testing.assert_array_equal(got, np.diag([-1.0, 0.0]))


def test_padding_fills_up_to_whole_lanes() -> None:
    for width, filled in ((0, 0), (1, 8), (7, 8), (8, 8), (9, 16)):
        got = pad(np.ones((2, width)))
        assert got.shape == (2, filled)
        assert got.dtype == np.float32
        assert got.sum() == 2 * width


# The kernels as Python runs them: what is compiled is tested above, and these need no compiler.


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kernel in vars(products).copy().items():
        if hasattr(kernel, "py_func") and kernel.__module__ == "policies.products":
            monkeypatch.setattr(products, name, kernel.py_func)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_in_tiles_are_those_of_rows_and_columns(
    dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles of two rows and three columns, of which the last ones are not full."""
    monkeypatch.setattr(products, "TILE_COLUMNS", 3)
    monkeypatch.setattr(products, "TILE_ROWS", 2)
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((5, 19)).astype(dtype)
    table = rng.standard_normal((19, 7)).astype(dtype)
    p = np.zeros((5, 24, 7), dtype)
    p[:, :19] = rows[:, :, None] * table
    total = np.zeros((5, 7), dtype)
    for i in (0, 8, 16):
        low = (p[:, i] + p[:, i + 1]) + (p[:, i + 2] + p[:, i + 3])
        high = (p[:, i + 4] + p[:, i + 5]) + (p[:, i + 6] + p[:, i + 7])
        total += low + high
    np.testing.assert_array_equal(matmul(rows, table), total)
    for column in (0, 6):
        np.testing.assert_array_equal(matmul(rows, table[:, column]), total[:, column])
    if dtype is np.float32:
        ids = np.array([[1, 0, 2], [3, 3, 0], [0, 0, 0], [4, 6, 5], [2, 0, 1]])
        got = score_items(pad(rows), pad(table.T), ids)
        want = np.take_along_axis(total, ids, axis=1)
        np.testing.assert_array_equal(got, np.where(ids > 0, want, -np.inf))


@pytest.mark.usefixtures("interpreted")
@np.errstate(over="ignore")  # the square of a huge cotangent; its rotation is none
def test_solutions_and_inverses_of_small_matrices() -> None:
    half = np.random.default_rng(2).standard_normal((4, 4))
    whole, right = half @ half.T, np.array([1.0, -2, 3, 0.5])
    np.testing.assert_allclose(solve(whole, right), np.linalg.solve(whole, right), rtol=1e-9)
    for bad in (np.array([[1.0, 0], [1, 1]]), np.array([[-1.0]]), np.zeros((1, 1))):
        with pytest.raises(ValueError, match="not positive definite"):
            solve(bad, np.ones(len(bad)))
    low = half[:, :2] @ half[:, :2].T
    every = np.stack([whole, low, half + half.T, np.diag([1.0, 1e-15, 2e-15, -3])])
    want = np.linalg.pinv(every[:3], rcond=1e-13, hermitian=True)
    got = products.pseudo_inverse(every)
    np.testing.assert_allclose(got[:3], want, rtol=1e-6, atol=1e-10)
    cut = np.diag([1.0, 0, 0, -1 / 3])
    np.testing.assert_allclose(got[3], cut, atol=1e-15)  # both are below 1e-15 of 3
    every[1, 2, 0] = np.inf
    assert np.isnan(products.pseudo_inverse(every)[1]).all()
    a, v = half + half.T, np.eye(4)
    products._diagonalise(a, v)
    np.testing.assert_allclose(v @ np.diag(np.diag(a)) @ v.T, half + half.T, atol=1e-13)
    np.testing.assert_allclose(a, np.diag(np.diag(a)), atol=1e-14)
    a, v = np.array([[2.0, 1e-3], [1e-3, 1.0]]), np.eye(2)
    products._diagonalise(a, v)
    assert v[0, 0] > 0.99  # what is nearly diagonal hardly turns
    a, v = np.array([[1.0, 2e-19], [2e-19, 1.0]]), np.eye(2)
    products._diagonalise(a, v)
    assert a[0, 1] == 2e-19  # rounding is left as it is
    # One rotation by the smaller angle, whose cotangent of the double is tau.
    for first, last in ((1.0, 2.0), (2.0, 1.0), (1.0, 1.0), (0.0, 5.0)):
        a, v = np.array([[first, 1.0], [1.0, last]]), np.eye(2)
        products._diagonalise(a, v)
        angle = np.arctan2(1.0, (last - first) / 2) / 2
        angle -= np.pi / 2 * (angle > np.pi / 4 + 1e-9)
        turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        np.testing.assert_allclose(v, turn, atol=1e-12)


@pytest.mark.usefixtures("interpreted")
def test_a_k_th_largest_is_found_by_halving() -> None:
    random = np.random.default_rng(8)
    for n in (1, 2, 5, 9):
        for _ in range(6):
            values = random.integers(-6, 7, n).astype(np.int16)
            for k in range(1, n + 2):
                for floor in (-(2**15), -3, 0):
                    kth = sorted(values.tolist())[-k] if k <= n else floor
                    assert products._kth_largest(values, k, floor) == max(kth, floor)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("spread", [0.0, 0.6])
def test_a_shortlist_of_few_items_is_the_literal_one(
    spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 11 queries in blocks of eight, and steps of 256 items."""
    monkeypatch.setattr(products, "FIRST_STEP", 256)
    monkeypatch.setattr(products, "BLOCK", ROWS)
    rng = np.random.default_rng(9)
    vectors = rng.standard_normal((901, 8)) * np.exp(rng.normal(0, spread, (901, 1)))
    rough, queries = Rough(pad(vectors)), pad(rng.standard_normal((11, 8)))
    best = np.argsort(-(queries @ pad(vectors)[1:].T), axis=1) + 1
    seen = np.concatenate((best[:, :2], np.zeros((11, 1), int), best[:, 400:402]), axis=1)
    got, certain = rough.shortlist(queries, 3, seen)
    want = literal_shortlist(rough, queries[:8], 3, seen[:8], 256)
    want += literal_shortlist(rough, queries[8:], 3, seen[8:], 256)
    assert certain.all()
    for row, (mine, theirs) in enumerate(zip(got, want, strict=True)):
        assert mine[mine > 0].tolist() == theirs
        assert set(best[row, 2:5]) <= set(theirs)
        assert not set(seen[row]) & set(theirs)
    tied = Rough(np.ones((901, 8), np.float32))
    _, certain = tied.shortlist(np.ones((2, 8), np.float32), 3, np.zeros((2, 0), dtype=np.int64))
    assert not certain.any()


def test_steps_and_tiles_are_as_they_were_measured() -> None:
    sizes = products.FIRST_STEP, products.BLOCK, products.TILE_COLUMNS, products.LANES
    assert sizes == (1024, 32, 512, 8)
    assert np.iinfo(np.int16).min == products.LOWEST
