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

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

tools: Any = cgutils

LANES = 16
"""Items whose sums are in one vector of 32-bit integers."""

GROUP = 2 * LANES
"""Items whose sums are computed at once, and"""

ROWS = 8
"""queries for which they are: as many sums as AVX-512 has room for in registers, with the numbers
that they grow from.
"""

Words = npt.NDArray[np.int16]


def grouped(items: Words) -> Words:
    """`items` `[N, D]`, D even, in the order in which `multiply` reads,
    `[ceil(N / GROUP), D / 2, 2 GROUP]`; zeros fill the last group.
    """
    n, d = items.shape
    groups = np.zeros((-(-n // GROUP) * GROUP, d), dtype=np.int16)
    groups[:n] = items
    return np.ascontiguousarray(groups.reshape(-1, GROUP, d // 2, 2).transpose(0, 2, 1, 3)).reshape(
        -1, d // 2, 2 * GROUP
    )


def _tile(typing: Any, queries: Any, items: Any, out: Any, group: Any, shift: Any) -> Any:
    """`multiply` with one group of items."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        number, words = ir.IntType(32), ir.IntType(16)
        sums, halves = ir.VectorType(number, LANES), ir.VectorType(words, LANES)
        pairs, products = ir.VectorType(words, 2 * LANES), ir.VectorType(number, 2 * LANES)
        zero, nothing = ir.Constant(sums, None), ir.Constant(products, ir.Undefined)
        first, second = (ir.Constant(sums, list(range(start, 2 * LANES, 2))) for start in (0, 1))
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
            return builder.shuffle_vector(
                builder.insert_element(zero, value, ir.Constant(number, 0)), zero, zero
            )

        group, shift = values[3:]
        rows = [ir.Constant(group.type, i) for i in range(ROWS)]
        totals = [
            [tools.alloca_once(builder, sums) for _ in range(GROUP // LANES)] for _ in rows
        ]  # become registers
        for total in itertools.chain(*totals):
            builder.store(zero, total)
        with tools.for_range(builder, builder.extract_value(arrays[0].shape, 1)) as loop:
            start = place(1, group, loop.index, rows[0])
            x = [builder.sext(builder.load(at, align=2), products) for at in vectors(start, pairs)]
            for i, mine in zip(rows, totals, strict=True):
                q = builder.sext(
                    builder.bitcast(spread(builder.load(place(0, i, loop.index))), pairs), products
                )
                for total, some in zip(mine, x, strict=True):
                    product = builder.mul(q, some)
                    added = builder.add(
                        builder.shuffle_vector(product, nothing, first),
                        builder.shuffle_vector(product, nothing, second),
                    )
                    builder.store(builder.add(builder.load(total), added), total)
        column = builder.mul(group, ir.Constant(group.type, GROUP))
        for i, mine in zip(rows, totals, strict=True):
            for total, at in zip(mine, vectors(place(2, i, column), halves), strict=True):
                builder.store(
                    builder.trunc(builder.ashr(builder.load(total), spread(shift)), halves),
                    at,
                    align=2,
                )
        return context.get_dummy_value()

    return types.void(queries, items, out, types.intp, types.int32), generate


tile: Any = intrinsic(_tile)


@numba.njit(cache=True, nogil=True)
def multiply(queries: Any, items: Any, first: int, end: int, shift: int, out: Any) -> None:
    """Write `floor(q . x / 2^shift)` of `ROWS` queries and the groups of items `first` to `end`
    over their columns of `out`.

    Args:
        queries: `[ROWS, D / 2]`, 32-bit integers that are pairs of 16-bit ones. No sum of products
            may reach 2^31, nor a result 2^15; for the sums it is enough (Cauchy-Schwarz) that no
            vector's length reaches 2^15.
        items: as `grouped` lays them out.
        first, end: of the groups.
        shift: bits that are dropped.
        out: `[ROWS, N]` 16-bit integers, N the number of items filled up to whole groups.
    """
    for group in range(first, end):
        tile(queries, items, out, group, np.int32(shift))
