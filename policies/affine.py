"""Linear maps `x W^T + b` of served networks: a row's bytes depend on the row and the map alone,
whatever stands beside it and however many there are. Nothing is trained here.

A library's product adds in an order that depends on the number of rows, so that whoever calls it
fills up blocks (`policies.blocks`). Here the terms of an element are added from the bias on, one
after the other, each with its product in one rounding where the processor can. No loop in Python is
compiled to a product that is as fast as a library's, so the innermost one is written in LLVM's own
language, in terms that name no processor. Importing this module imports numba.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from policies.base import FloatArray
from policies.jit import njit

tools: Any = cgutils

LANES = 16
"""Numbers of a vector: the width of AVX-512."""

PANEL = 2 * LANES
"""Columns whose sums are computed at once; a map's columns are filled up to a multiple of it."""

ROWS = 8
"""Rows whose sums are computed at once. With those of a panel's columns they are 16 vectors, for
which AVX-512 has registers, together with the numbers that they grow from.
"""


def _at_once(context: Any) -> tuple[int, int]:
    """Of how many rows and vectors sums are kept in registers: AVX-512 has 32 that hold a vector
    each, AVX2 16 that hold half of one. No sum depends on it.
    """
    _, _, features = context.codegen().magic_tuple()
    return (ROWS, PANEL // LANES) if "+avx512f" in features else (ROWS // 2, 1)


def _tile(typing: Any, rows: Any, panels: Any, bias: Any, out: Any, first: Any, panel: Any) -> Any:
    """`multiply` of `ROWS` rows and one panel."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        lane, number = ir.IntType(32), ir.FloatType()
        vector = ir.VectorType(number, LANES)
        nothing = ir.Constant(vector, ir.Undefined)
        spread = ir.Constant(ir.VectorType(lane, LANES), [0] * LANES)
        arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:4], values[:4], strict=True)
        ]

        def place(array: int, *index: Any) -> Any:
            return tools.get_item_pointer(
                context, builder, signature.args[array], arrays[array], list(index)
            )

        def vectors(pointer: Any) -> list[Any]:
            """The places of a panel's vectors, of which the first number is at `pointer`."""
            start = builder.bitcast(pointer, vector.as_pointer())
            return [builder.gep(start, [ir.Constant(lane, i)]) for i in range(PANEL // LANES)]

        first, panel = values[4:]
        rows_at_once, vectors_at_once = _at_once(context)
        column = builder.mul(panel, ir.Constant(panel.type, PANEL))
        for start, part in itertools.product(
            range(0, ROWS, rows_at_once), range(0, PANEL // LANES, vectors_at_once)
        ):
            parts = slice(part, part + vectors_at_once)
            row = [
                builder.add(first, ir.Constant(first.type, start + i)) for i in range(rows_at_once)
            ]
            begin = [builder.load(at, align=4) for at in vectors(place(2, column))[parts]]
            # One place in memory for each vector of sums; LLVM makes registers of them.
            totals = [[tools.alloca_once(builder, vector) for _ in begin] for _ in row]
            for row_totals in totals:
                for total, value in zip(row_totals, begin, strict=True):
                    builder.store(value, total)
            with tools.for_range(builder, builder.extract_value(arrays[1].shape, 1)) as loop:
                of_term = place(1, panel, loop.index, ir.Constant(loop.index.type, 0))
                table = [builder.load(at, align=4) for at in vectors(of_term)[parts]]
                for at_row, row_totals in zip(row, totals, strict=True):
                    value = builder.load(place(0, at_row, loop.index))
                    one = builder.insert_element(nothing, value, ir.Constant(lane, 0))
                    x = builder.shuffle_vector(one, nothing, spread)
                    for total, columns in zip(row_totals, table, strict=True):
                        product = builder.fmul(x, columns, flags=["contract"])
                        grown = builder.fadd(product, builder.load(total), flags=["contract"])
                        builder.store(grown, total)
            for at_row, row_totals in zip(row, totals, strict=True):
                places = vectors(place(3, at_row, column))[parts]
                for total, at in zip(row_totals, places, strict=True):
                    builder.store(builder.load(total), at, align=4)
        return context.get_dummy_value()

    return types.void(rows, panels, bias, out, types.intp, types.intp), generate


tile: Any = intrinsic(_tile)


@njit()
def multiply(rows: Any, panels: Any, bias: Any, n: int, out: Any) -> None:
    """Write `rows[:n] W^T + b` over the first rows of `out`.

    Args:
        rows: `[N, p or more]`; those up to the next multiple of `ROWS` are read and written, too.
        panels, bias: of an `Affine`.
        n: rows that count.
        out: `[N, q filled up to whole panels]`.
    """
    for panel in range(len(panels)):
        for first in range(0, n, ROWS):
            tile(rows, panels, bias, out, first, panel)


@njit()
def lay_out(table: Any, n: int, panels: Any) -> None:
    """Write the first `n` rows of `table` `[N, q or more]` into `panels` `[G, p or more, PANEL]`, a
    column after the other; what fills up the last panel is 0.
    """
    width = table.shape[1]
    for panel in range(len(panels)):
        first = panel * PANEL
        for i in range(n):
            for c in range(PANEL):
                inside = first + c < width
                panels[panel, i, c] = table[i, first + c] if inside else np.float32(0)


def room(n: int, columns: int) -> FloatArray:
    """Room for `n` rows `[n filled up to a multiple of ROWS, columns]`; those which fill it up are
    zeros.
    """
    out = np.empty((-(-n // ROWS) * ROWS, columns), dtype=np.float32)
    out[n:] = 0
    return out


@dataclass(frozen=True)
class Affine:
    """A map as `multiply` reads it.

    Attributes:
        panels: `[G, p, PANEL]` the transposed weight, `PANEL` columns after one another.
        bias: `[G PANEL]`.
    """

    panels: FloatArray
    bias: FloatArray

    @classmethod
    def of(cls, weight: Any, bias: Any) -> Self:
        """That of torch's `weight` `[q, p]` and `bias` `[q]` as they are now, on a CPU."""
        weight = weight.detach().numpy()
        columns, terms = weight.shape
        n_panels = -(-columns // PANEL)
        panels = np.empty((n_panels, terms, PANEL), dtype=np.float32)
        lay_out(np.ascontiguousarray(weight.T), terms, panels)
        shift = np.zeros(n_panels * PANEL, dtype=np.float32)
        shift[:columns] = bias.detach().numpy()
        return cls(panels, shift)

    def __call__(self, rows: FloatArray, n: int) -> FloatArray:
        """`rows[:n] W^T + b` in `room`, `[N, G PANEL]`, of `rows` `[N, p or more]` in `room`."""
        out = room(n, len(self.bias))
        multiply(rows, self.panels, self.bias, n, out)
        return out
