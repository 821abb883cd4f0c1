"""Fixed shapes: a row's result is the same bytes however rows are batched. No model and no ranking
lives here.

A library's matrix product adds the terms of an output element in an order that depends on the
shapes of the operands. So every block has `ROWS` rows (short ones are padded with zeros), and a
row's width comes from its own history only. Is a row's result then the same at every place of the
block? Measured on x86-64 with equal rows at all places (`tests/kernels.py` measures it again):

- torch 2.13 (MKL, oneDNN): yes, under every kernel, once MKL is told to round alike wherever an
  operand begins in memory (conditional numerical reproducibility, `MKL_CBWR`, set in `policies`).
  Otherwise products of 2 to 11 columns differ.
- numpy 2.4 (OpenBLAS): no. The kernels for AVX2 (Haswell, Zen) take the last rows of a block in
  another order than the first, in float32; those for AVX-512 do so in float64. So a product of
  numpy arrays is `policies.products.matmul`, whose order is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from policies.base import PADDING, IntArray

if TYPE_CHECKING:
    import torch

ROWS = 64
"""Rows of a block. Larger blocks are no faster; smaller ones waste time in calls."""

ROWS_ELSEWHERE = 1024
"""The same on a GPU, where a call takes as long with 64 rows as with a thousand."""

Array = npt.NDArray[Any]


def by_rows(compute: Callable[..., Array], *arrays: Array) -> Array:
    """`compute` applied to blocks of exactly `ROWS` rows, the results joined.

    Args:
        compute: from arrays `[ROWS, ...]` to an array `[ROWS, ...]`, row by row.
        arrays: `[B, ...]` each; `B` may be 0.

    Returns:
        `[B, ...]`.
    """
    n = len(arrays[0])
    results = []
    for start in range(0, max(n, 1), ROWS):
        rows = min(n - start, ROWS)
        block = [array[start : start + ROWS] for array in arrays]
        if rows < ROWS:
            block = [
                np.concatenate([array, np.zeros((ROWS - rows, *array.shape[1:]), array.dtype)])
                for array in block
            ]
        results.append(compute(*block)[:rows])
    return np.concatenate(results)


def widths(length: int) -> tuple[int, ...]:
    """The widths that histories of at most `length` items are computed in: 4, 8, 16, ... and
    `length` itself.
    """
    powers = []
    width = 4
    while width < length:
        powers.append(width)
        width *= 2
    return (*powers, length)


def rows_on(device: torch.device) -> int:
    """Rows of a block that is computed there."""
    return ROWS if device.type == "cpu" else ROWS_ELSEWHERE


def length_blocks(items: IntArray, size: int = ROWS) -> Iterator[tuple[IntArray, int]]:
    """The rows of histories in blocks of at most `size` of one width, which depends on the row's
    own history only.

    Args:
        items: `[B, L]` right-aligned histories, 0 = padding on the left.
        size: rows of a block.

    Yields:
        Indices of a block's rows, and how many of the last columns hold all that is in them.
    """
    longest = items.shape[1]
    used = np.where(items != PADDING, longest - np.arange(longest), 0).max(axis=1, initial=0)
    steps = np.asarray(widths(longest))
    choice = np.searchsorted(steps, used)
    for place in np.unique(choice):
        index = np.flatnonzero(choice == place)
        for start in range(0, len(index), size):
            yield index[start : start + size], int(steps[place])


def fill(array: Array, index: IntArray, size: int = ROWS) -> Array:
    """A block of `size` rows: those of `array` at `index`, then zeros."""
    block = np.zeros((size, *array.shape[1:]), array.dtype)
    block[: len(index)] = array[index]
    return block


def by_length(
    compute: Callable[..., Array], items: IntArray, *arrays: Array, size: int = ROWS
) -> Array:
    """`compute` applied to the blocks of `length_blocks`.

    Args:
        compute: from items `[size, width]` (right-aligned, 0 = padding) and arrays `[size, ...]` to
            `[size, ...]`, row by row.
        items: `[B, L]` right-aligned histories, 0 = padding on the left; `B` may be 0.
        arrays: `[B, ...]` each.
        size: rows of a block.

    Returns:
        `[B, ...]`.
    """
    result: Array | None = None
    blocks: Iterable[tuple[IntArray, int]] = [(np.zeros(0, dtype=np.int64), items.shape[1])]
    if len(items):
        blocks = length_blocks(items, size)
    for index, width in blocks:
        part = compute(
            fill(items[:, items.shape[1] - width :], index, size),
            *(fill(array, index, size) for array in arrays),
        )
        if result is None:
            result = np.empty((len(items), *part.shape[1:]), part.dtype)
        result[index] = part[: len(index)]
    assert result is not None
    return result


@contextmanager
def one_thread() -> Iterator[None]:
    """torch with one thread: its reductions depend on the number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


CHUNK = 32
"""Batches whose rows are sorted by length together."""


def length_batches(
    lengths: IntArray,
    size: int,
    generator: np.random.Generator,
    *,
    targets: IntArray | None = None,
) -> Sequence[IntArray]:
    """A random partition into batches of rows of similar length and about the same number of
    targets, in random order.

    Rows are shuffled, cut into chunks of CHUNK batches, and sorted by length within a chunk:
    batches stay random, padding stays small. A step takes the mean over a batch's targets; with as
    many targets in a batch of short rows as in one of long rows, every target counts the same.

    Args:
        lengths: `[N]` length of each row.
        size: rows of a batch on average.
        generator: decides the partition.
        targets: `[N]` what each row has to predict; None: one each, so every batch but a chunk's
            last has `size` rows.
    """
    order = generator.permutation(len(lengths))
    counts = np.ones(len(lengths), dtype=np.int64) if targets is None else np.maximum(targets, 1)
    full = size * counts.mean() if len(counts) else 1.0
    batches: list[IntArray] = []
    for start in range(0, len(order), size * CHUNK):
        part = order[start : start + size * CHUNK]
        part = part[np.argsort(lengths[part], kind="stable")]
        before = np.cumsum(counts[part]) - counts[part]
        batches += np.split(part, np.flatnonzero(np.diff(before // full)) + 1)
    return [batches[i] for i in generator.permutation(len(batches))]
