"""Inner products of 16-bit integers with all items, as fast as the processor multiplies anything.
No rounding and no ranking lives here.

The order of additions is of no matter to integers: the results are the same on every processor. Two
products and their sum are one instruction of most processors (`pmaddwd` since SSE2, `vpdpwssd`),
but no loop in Python is compiled to it, so the innermost one is written in LLVM's own language, in
terms that name no processor.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from policies.jit import njit

tools: Any = cgutils

LANES = 16
"""Items whose sums are in one vector of 32-bit integers: the width of AVX-512."""

# Sums that are computed at once are GROUP items for ROWS queries: 16 vectors of sums, for which
# AVX-512 has registers, together with the numbers that they grow from.

GROUP = 2 * LANES
"""Items whose sums are computed at once."""

ROWS = 8
"""Queries whose sums are computed at once."""

Words = npt.NDArray[np.int16]


def group_items(items: Words) -> Words:
    """`items` `[N, D]`, D even, in the order in which `multiply` reads them:
    `[ceil(N / GROUP), D / 2, 2 GROUP]`. Zeros fill the last group.
    """
    n, d = items.shape
    padded = np.zeros((-(-n // GROUP) * GROUP, d), dtype=np.int16)
    padded[:n] = items
    pairs = padded.reshape(-1, GROUP, d // 2, 2).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(pairs).reshape(-1, d // 2, 2 * GROUP)


def _tile(typing: Any, queries: Any, items: Any, out: Any, group: Any, shift: Any) -> Any:
    """`multiply` with one group of items."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        number, word = ir.IntType(32), ir.IntType(16)
        sums, halves = ir.VectorType(number, LANES), ir.VectorType(word, LANES)
        pairs, products = ir.VectorType(word, 2 * LANES), ir.VectorType(number, 2 * LANES)
        zero, nothing = ir.Constant(sums, None), ir.Constant(products, ir.Undefined)
        even = ir.Constant(sums, list(range(0, 2 * LANES, 2)))
        odd = ir.Constant(sums, list(range(1, 2 * LANES, 2)))
        arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:3], values[:3], strict=True)
        ]

        def place(array: int, *index: Any) -> Any:
            return tools.get_item_pointer(
                context, builder, signature.args[array], arrays[array], list(index)
            )

        def vectors(pointer: Any, kind: ir.VectorType) -> list[Any]:
            """The places of a group's vectors, of which the first number is at `pointer`."""
            start = builder.bitcast(pointer, kind.as_pointer())
            return [builder.gep(start, [ir.Constant(number, i)]) for i in range(GROUP // LANES)]

        def spread(value: Any) -> Any:
            """A number in all lanes."""
            first = builder.insert_element(zero, value, ir.Constant(number, 0))
            return builder.shuffle_vector(first, zero, zero)

        group, shift = values[3:]
        rows = [ir.Constant(group.type, i) for i in range(ROWS)]
        # One place in memory for each vector of sums; LLVM makes registers of them.
        totals = [[tools.alloca_once(builder, sums) for _ in range(GROUP // LANES)] for _ in rows]
        for total in itertools.chain(*totals):
            builder.store(zero, total)
        with tools.for_range(builder, builder.extract_value(arrays[0].shape, 1)) as loop:
            start = vectors(place(1, group, loop.index, rows[0]), pairs)
            x = [builder.sext(builder.load(at, align=2), products) for at in start]
            for row, row_totals in zip(rows, totals, strict=True):
                query = builder.bitcast(spread(builder.load(place(0, row, loop.index))), pairs)
                q = builder.sext(query, products)
                for total, items_of_vector in zip(row_totals, x, strict=True):
                    # Products of neighbouring lanes are added: the shape that LLVM knows as pmaddwd
                    product = builder.mul(q, items_of_vector)
                    left = builder.shuffle_vector(product, nothing, even)
                    right = builder.shuffle_vector(product, nothing, odd)
                    added = builder.add(left, right)
                    builder.store(builder.add(builder.load(total), added), total)
        column = builder.mul(group, ir.Constant(group.type, GROUP))
        for row, row_totals in zip(rows, totals, strict=True):
            for total, at in zip(row_totals, vectors(place(2, row, column), halves), strict=True):
                shifted = builder.ashr(builder.load(total), spread(shift))
                builder.store(builder.trunc(shifted, halves), at, align=2)
        return context.get_dummy_value()

    return types.void(queries, items, out, types.intp, types.int32), generate


tile: Any = intrinsic(_tile)


@njit()
def multiply(queries: Any, items: Any, first: int, end: int, shift: int, out: Any) -> None:
    """Write `floor(q . x / 2^shift)` of `ROWS` queries and the groups of items `first` to `end`
    over their columns of `out`.

    Args:
        queries: `[ROWS, D / 2]`, 32-bit integers that are pairs of 16-bit ones. No sum of products
            may reach 2^31, and no result 2^15; for the sums it is enough (Cauchy-Schwarz) that no
            vector's length reaches 2^15.
        items: as `group_items` lays them out.
        first, end: the groups that are multiplied, without `end`.
        shift: lower bits of a sum that are dropped.
        out: `[ROWS, N]` 16-bit integers, N the number of items filled up to whole groups.
    """
    for group in range(first, end):
        tile(queries, items, out, group, np.int32(shift))
