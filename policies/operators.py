"""The operators of which training takes most of its time, with gradients that are written out.
No network and no loss lives here.

On an x86-64 processor products are made by oneDNN, which torch brings: it compiles a kernel for
the processor and the shapes, where MKL uses AVX-512 only on Intel's. On a Zen 5 core the products
of a small network take half the time (230 GFLOP/s against 105). Elsewhere, on a GPU and in float64
they are torch's own.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


@cache
def _has_one_dnn() -> bool:
    """Whether this torch makes products by oneDNN for this processor."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return (
        is_x86
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


GRAIN = 128
"""Rows come in multiples of this: oneDNN compiles a kernel for each number of rows, in the time of
two or three products. Fewer rows than this are left to torch.
"""


def _is_fast(a: Tensor) -> bool:
    is_large = len(a) >= GRAIN
    return is_large and a.device.type == "cpu" and a.dtype == torch.float32 and _has_one_dnn()


def _whole(a: Tensor) -> Tensor:
    """`a` `[n, k]` with rows of zeros at the end, up to a multiple of `GRAIN`."""
    missing = -len(a) % GRAIN
    return functional.pad(a, (0, 0, 0, missing)) if missing else a


def _multiply(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return out


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """`a b^T`, and `bias` added to each row, without a gradient.

    Args:
        a: `[n, k]`.
        b: `[m, k]`.
        bias: `[m]`.

    Returns:
        `[n, m]`.
    """
    if _is_fast(a):
        return _multiply(_whole(a), b, bias)[: len(a)]
    return functional.linear(a, b, bias)


def outer_sum(a: Tensor, b: Tensor) -> Tensor:
    """`a^T b`, the sum over rows of their outer products, without a gradient.

    Args:
        a: `[n, p]`.
        b: `[n, q]`.

    Returns:
        `[p, q]`.
    """
    if not _is_fast(a):
        return a.T @ b
    a, b = _whole(a), _whole(b)
    # oneDNN takes a third less time where the first operand has the fewer columns
    if a.shape[1] <= b.shape[1]:
        return _multiply(a.T, b.T, None)
    return _multiply(b.T, a.T, None).T


class _Linear(torch.autograd.Function):
    """y = x W^T + b; the gradients are g W of x, g^T x of W, and the sum of g of b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(rows, weight)
        ctx.shape, ctx.has_bias = x.shape, bias is not None
        return product(rows, weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        rows, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        to_x = product(grad, weight.T).view(ctx.shape) if ctx.needs_input_grad[0] else None
        to_weight = outer_sum(grad, rows) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, grad.sum(0) if ctx.has_bias else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x W^T + b` of `x` `[..., p]`, `weight` `[q, p]` and `bias` `[q]`, `[..., q]`.

    Without a gradient it is torch's own, whose bits are those of serving.
    """
    if x.device.type != "cpu" or not torch.is_grad_enabled():
        return functional.linear(x, weight, bias)
    out: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


class Linear(nn.Linear):
    """torch's linear layer, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """`[..., p]` -> `[..., q]`."""
        return linear(x, self.weight, self.bias)


LARGE = 100_000
"""Rows from which on a table of vectors is *large*: its gradient is kept by the rows that a batch
has, and Adam moves these alone (`policies.adam`); no loss is taken over all its items
(`policies.losses`). The gradient of a million rows of 64 numbers takes 256 MB, of which a batch has
a few thousand rows.
"""


def is_large(table: Tensor) -> bool:
    """Whether a gradient of the parameter `table` is kept by rows."""
    return table.is_leaf and len(table) >= LARGE


def sparse_rows(
    rows: Tensor, values: Tensor, shape: tuple[int, ...], padding: int | None
) -> Tensor:
    """The sparse gradient of a large table: `values` `[r, d]` of its `rows` `[r]`, ascending, and 0
    of all others and of the row of `padding`.
    """
    if padding is not None:
        is_row = rows != padding
        rows, values = rows[is_row], values[is_row]
    return torch.sparse_coo_tensor(
        rows[None], values, shape, check_invariants=False, is_coalesced=True
    )


class _Lookup(torch.autograd.Function):
    """Rows of a table; the gradient of a row is the sum over all places where it stands, but 0 of
    the row of padding.
    """

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, index: Tensor, padding: int | None, is_sparse: bool
    ) -> Tensor:
        places = index.reshape(-1)
        ctx.save_for_backward(places)
        ctx.shape, ctx.padding, ctx.is_sparse = table.shape, padding, is_sparse
        # No view: it could not be added to in place
        out = table.new_empty(*index.shape, table.shape[1])
        torch.index_select(table, 0, places, out=out.view(len(places), -1))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        (places,) = ctx.saved_tensors
        grad = grads[0].reshape(len(places), -1)
        if ctx.is_sparse:
            rows, place = places.unique(return_inverse=True)
            sums = grad.new_zeros(len(rows), grad.shape[1]).index_add_(0, place, grad)
            return sparse_rows(rows, sums, ctx.shape, ctx.padding), None, None, None
        to_table = grad.new_zeros(ctx.shape).index_add_(0, places, grad)
        if ctx.padding is not None:
            to_table[ctx.padding] = 0
        return to_table, None, None, None


def lookup(table: Tensor, index: Tensor, padding: int | None = None) -> Tensor:
    """The rows `index` `[...]` of `table` `[n, d]`, `[..., d]`. No gradient reaches the row
    `padding`; that of a large table is sparse.
    """
    if table.device.type != "cpu" or not torch.is_grad_enabled():
        return functional.embedding(index, table, padding, sparse=is_large(table))
    out: Tensor = _Lookup.apply(table, index, padding, is_large(table))  # type: ignore[no-untyped-call]
    return out


class Embedding(nn.Embedding):
    """torch's embedding, computed by `lookup`."""

    def forward(self, index: Tensor) -> Tensor:
        """`[...]` -> `[..., d]`."""
        return lookup(self.weight, index, self.padding_idx)
