"""Integer products: exact, whatever the shapes and up to the largest numbers."""

from __future__ import annotations

import numpy as np
import pytest

from policies.integers import GROUP, ROWS, group_items, multiply


@pytest.mark.parametrize(
    ("n", "d", "shift"), [(1, 2, 0), (GROUP, 6, 3), (65 * GROUP + 5, 64, 15), (100, 258, 15)]
)
def test_products_are_those_of_numpy(n: int, d: int, shift: int) -> None:
    rng = np.random.default_rng(n)
    largest = int((2 ** (15 + shift) / d) ** 0.5) - 1
    queries, items = (
        rng.integers(-largest, largest + 1, (rows, d)).astype(np.int16) for rows in (ROWS, n)
    )
    queries[0], items[0] = largest, -largest
    groups = group_items(items)
    out = np.full((ROWS, len(groups) * GROUP), 7, dtype=np.int16)
    multiply(queries.view(np.int32), groups, 0, len(groups), shift, out)
    np.testing.assert_array_equal(
        out[:, :n], queries.astype(np.int64) @ items.T.astype(np.int64) >> shift
    )
    assert (out[:, n:] == 0).all()


def test_other_columns_stay_as_they_are() -> None:
    groups, out = (
        group_items(np.ones((3 * GROUP, 2), dtype=np.int16)),
        np.full((ROWS, 3 * GROUP), 7, dtype=np.int16),
    )
    multiply(np.ones((ROWS, 2), dtype=np.int16).view(np.int32), groups, 1, 2, 0, out)
    assert (out.reshape(ROWS, 3, GROUP) == np.array([7, 2, 7])[:, None]).all()


def test_the_longest_vectors_do_not_overflow() -> None:
    queries, items = np.zeros((ROWS, 64), dtype=np.int16), np.zeros((2, 64), dtype=np.int16)
    queries[:, 5], items[0, 5], items[1, 5] = 2**15 - 1, 2**15 - 1, 1 - 2**15
    out = np.zeros((ROWS, GROUP), dtype=np.int16)
    multiply(queries.view(np.int32), group_items(items), 0, 1, 15, out)
    assert (out[:, 0] == 2**15 - 2).all()
    assert (out[:, 1] == -((2**15 - 1) ** 2) >> 15).all()
