"""Integer products: exact, whatever the shapes and up to the largest numbers."""

from __future__ import annotations

import numpy as np
import pytest

from policies.integers import GROUP, ROWS, grouped, multiply


@pytest.mark.parametrize(
    ("n", "d", "b", "shift"), [(1, 2, ROWS, 0), (GROUP, 6, 2 * ROWS, 3), (65 * GROUP + 5, 64, ROWS, 15), (100, 258, ROWS, 15)]
)
def test_products_are_those_of_numpy(n: int, d: int, b: int, shift: int) -> None:
    rng = np.random.default_rng(n)
    largest = int((2 ** (15 + shift) / d) ** 0.5) - 1
    queries, items = (rng.integers(-largest, largest + 1, (rows, d)).astype(np.int16) for rows in (b, n))
    queries[0], items[0] = largest, -largest
    groups = grouped(items)
    out = np.full((b, len(groups) * GROUP), 7, dtype=np.int16)
    multiply(queries, groups, shift, out)
    np.testing.assert_array_equal(out[:, :n], queries.astype(np.int64) @ items.T.astype(np.int64) >> shift)
    assert (out[:, n:] == 0).all()


def test_the_longest_vectors_do_not_overflow() -> None:
    queries, items = np.zeros((ROWS, 64), dtype=np.int16), np.zeros((2, 64), dtype=np.int16)
    queries[:, 5], items[0, 5], items[1, 5] = 2**15 - 1, 2**15 - 1, 1 - 2**15
    out = np.zeros((ROWS, GROUP), dtype=np.int16)
    multiply(queries, grouped(items), 15, out)
    assert (out[:, 0] == 2**15 - 2).all()
    assert (out[:, 1] == -((2**15 - 1) ** 2) >> 15).all()


def test_what_does_not_fit_is_said() -> None:
    items = grouped(np.ones((40, 4), dtype=np.int16))
    with pytest.raises(ValueError, match=r"queries \(3, 4\)"):
        multiply(np.ones((3, 4), dtype=np.int16), items, 0, np.zeros((3, 64), dtype=np.int16))
