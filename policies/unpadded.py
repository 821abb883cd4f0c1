"""Transformer blocks as they are served on a CPU: the tokens of histories one after another,
without padding; of the last block the newest token alone. Nothing is trained here.

The modules of a network define it (`policies.layers`, `recgpt.model`), and are what training and a
GPU use. Here a row's bytes do not depend on the other rows: products go row by row
(`policies.affine`), and so do the compiled loops. These may add in any order (`FAST`), so that they
are vectors: their last bits are those of a kind of processor. Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policies.affine import PANEL, ROWS, Affine, multiply, room
from policies.base import FloatArray, IntArray
from policies.compiled import FAST, ONE, ZERO, softmax
from policies.jit import njit

EPSILON = np.float32(1e-5)
"""Of a layer norm, as torch's."""

LANES = 16
"""Numbers of a vector: so many sums are computed apart from one another."""


@dataclass(frozen=True)
class GainAndShift:
    """A layer norm, by its gain and shift `[d]`."""

    gain: FloatArray
    shift: FloatArray

    @classmethod
    def of(cls, layer: Any) -> GainAndShift:
        """Those of `layer` as it is now."""
        return cls(layer.weight.detach().numpy(), layer.bias.detach().numpy())

    def __call__(self, x: FloatArray, n: int) -> FloatArray:
        """The norm of the first `n` rows of `x` `[N, d]`, in `room`."""
        out = room(n, x.shape[1])
        _norm_rows(x, n, self.gain, self.shift, out)
        return out


class BlockReader:
    """One block: attention and a position-wise network, each within a residual connection with a
    layer norm before it (`is_pre`) or after the sum.
    """

    def __init__(
        self,
        qkv: Any,
        out: Any,
        first: Any,
        second: Any,
        norms: tuple[Any, Any],
        activation: Callable[[Tensor], Tensor],
        heads: int,
        is_pre: bool,
    ) -> None:
        """The block of these layers of torch as they are now, on a CPU: queries, keys and values;
        the output of attention; the two maps of the network; the norms of attention and network.
        """
        self.width = width = qkv.in_features
        self.qkv = Affine.of(qkv.weight, qkv.bias)
        self.keys_and_values = Affine.of(qkv.weight[width:], qkv.bias[width:])
        self.out = Affine.of(out.weight, out.bias)
        self.first = Affine.of(first.weight, first.bias)
        self.second = Affine.of(second.weight, second.bias)
        self.norms = GainAndShift.of(norms[0]), GainAndShift.of(norms[1])
        self.activation, self.heads, self.is_pre = activation, heads, is_pre

    def project(self, x: FloatArray, n: int) -> FloatArray:
        """Queries, keys and values of the first `n` rows of `x` `[N, d]`: `[N, 3 d or more]`."""
        return self.qkv(self.norms[0](x, n) if self.is_pre else x, n)

    def read(self, x: FloatArray, n: int) -> FloatArray:
        """Keys and values of the first `n` rows of `x` `[N, d]`: `[N, 2 d or more]`, bit for bit
        those of `project`.
        """
        return self.keys_and_values(self.norms[0](x, n) if self.is_pre else x, n)

    def whole(self, x: FloatArray, offsets: IntArray) -> FloatArray:
        """All tokens of histories, each seeing those of its own up to itself.

        Args:
            x: `[N, d]` in `room`, history after history.
            offsets: `[B + 1]` where these begin; none is empty.

        Returns:
            As `x`.
        """
        n = int(offsets[-1])
        mixed = room(n, self.width)
        _attend_whole(self.project(x, n), offsets, self.heads, mixed)
        return self.rest(x, mixed, n)

    def newest(
        self,
        x: FloatArray,
        projected: FloatArray,
        read: FloatArray,
        first: IntArray,
        end: IntArray,
        further: FloatArray,
        used: int,
    ) -> FloatArray:
        """The newest tokens of histories.

        Args:
            x: `[N, d]` in `room`, of which the first B rows are the tokens'.
            projected: of `x`, as `project` gives it.
            read: `[T, 2 d or more]` what `read` gave of tokens before.
            first, end: `[B]` which of them are each row's.
            further: `[B, n, 2 d]` keys and values of each row's tokens after these.
            used: how many of these there are, the newest one included.

        Returns:
            As `x`.
        """
        mixed = room(len(first), self.width)
        _attend_newest(projected, read, first, end, further, used, self.heads, mixed)
        return self.rest(x, mixed, len(first))

    def last(self, x: FloatArray, offsets: IntArray) -> FloatArray:
        """The last tokens of histories, `[N, d]`, the first B rows; arguments as in `whole`."""
        n, end = len(offsets) - 1, offsets[1:] - 1
        newest = room(n, self.width)
        newest[:n] = x[end]
        projected = self.project(newest, n)
        further = np.ascontiguousarray(projected[:n, None, self.width : 3 * self.width])
        read = self.read(x, int(offsets[-1]))
        return self.newest(newest, projected, read, offsets[:-1], end, further, 1)

    def rest(self, x: FloatArray, mixed: FloatArray, n: int) -> FloatArray:
        """What follows the attention's weighted means `mixed` `[N, d]` of the first `n` of the
        tokens `x` `[N, d]`.
        """
        joined = self.out(mixed, n)
        if self.is_pre:
            x = _sum(x, joined)
            return _sum(x, self._network(self.norms[1](x, n), n))
        x = self.norms[0](_sum(x, joined), n)
        return self.norms[1](_sum(x, self._network(x, n)), n)

    def _network(self, x: FloatArray, n: int) -> FloatArray:
        inner = self.activation(torch.from_numpy(self.first(x, n)))
        return self.second(inner.numpy(), n)


def _sum(x: FloatArray, y: FloatArray) -> FloatArray:
    """`x` `[N, d]` + the first columns of `y` `[N, d or more]`."""
    total: FloatArray = x + y[:, : x.shape[1]]
    return total


def embed(
    tables: tuple[FloatArray, ...], indices: IntArray, norm: GainAndShift | None
) -> FloatArray:
    """The sum of a row of each table for every token, and its norm, in `room`.

    Args:
        tables: K times `[., d]`.
        indices: `[K, T]` rows of them.
        norm: None: the sum itself.

    Returns:
        `[N, d]`, the first T rows.

    Raises:
        IndexError: a table has no such row.
    """
    out = room(indices.shape[1], tables[0].shape[1])
    wrong = _embed(tables, indices, out)
    if wrong >= 0:
        sizes = [len(table) for table in tables]
        raise IndexError(
            f"tables of {sizes} vectors have no rows {indices[:, wrong].tolist()}, as token"
            f" {wrong} asks for"
        )
    return out if norm is None else norm(out, indices.shape[1])


@njit()
def _embed(tables: Any, indices: Any, out: Any) -> int:
    """Write the sums over the first rows of `out`; the first token that asks for what is in no
    table, or -1.
    """
    for i in range(indices.shape[1]):
        row = out[i]
        for c in range(len(row)):
            row[c] = ZERO
        for k in range(len(tables)):
            at = indices[k, i]
            if not 0 <= at < len(tables[k]):
                return i
            vector = tables[k][at]
            for c in range(len(row)):
                row[c] += vector[c]
    return -1


@njit(fastmath=FAST)
def _norm_rows(x: Any, n: int, gain: Any, shift: Any, out: Any) -> None:
    part = ONE / np.float32(x.shape[1])
    for i in range(n):
        row, result = x[i], out[i]
        mean, square = ZERO, ZERO
        for c in range(len(row)):
            mean += row[c] * part
        for c in range(len(row)):
            square += (row[c] - mean) * (row[c] - mean)
        inverse = ONE / np.sqrt(square * part + EPSILON)
        for c in range(len(row)):
            result[c] = (row[c] - mean) * inverse * gain[c] + shift[c]


@njit(fastmath=FAST)
def _attend_whole(projected: Any, offsets: Any, heads: int, out: Any) -> None:
    """Causal softmax attention of all tokens within their history: scores and means are products of
    whole histories, in which later tokens have weight 0.

    Args:
        projected: `[N, 3 d or more]` queries, keys and values, the first T rows.
        offsets: `[B + 1]` where histories begin.
        heads: m.
        out: `[N, d]` output, the first T rows.
    """
    width = out.shape[1]
    own = width // heads
    scale = np.float32(1.0 / np.sqrt(own))
    longest = 0
    for b in range(len(offsets) - 1):
        longest = max(longest, offsets[b + 1] - offsets[b])
    n_rows = (longest + ROWS - 1) // ROWS * ROWS
    n_panels, n_own = (longest + PANEL - 1) // PANEL, (own + PANEL - 1) // PANEL
    nothing = np.zeros(max(n_panels, n_own) * PANEL, dtype=np.float32)
    # What stands beyond the own columns and tokens is read, but no result depends on it
    queries = np.zeros((n_rows, own), dtype=np.float32)
    keys = np.zeros((n_panels, own, PANEL), dtype=np.float32)
    values = np.zeros((n_own, longest, PANEL), dtype=np.float32)
    scores = np.zeros((n_rows, n_panels * PANEL), dtype=np.float32)
    mixed = np.empty((n_rows, n_own * PANEL), dtype=np.float32)
    powers = np.empty(n_panels * PANEL, dtype=np.int32)
    factors = powers.view(np.float32)
    for b in range(len(offsets) - 1):
        begin, n = offsets[b], offsets[b + 1] - offsets[b]
        for h in range(heads):
            query, key, value = h * own, width + h * own, 2 * width + h * own
            for j in range(n):
                row, panel, column = projected[begin + j], j // PANEL, j % PANEL
                for c in range(own):
                    queries[j, c] = row[query + c] * scale
                for c in range(own):
                    keys[panel, c, column] = row[key + c]
                for panel in range(n_own):
                    first = panel * PANEL
                    for c in range(min(PANEL, own - first)):
                        values[panel, j, c] = row[value + first + c]
            multiply(queries, keys[: (n + PANEL - 1) // PANEL], nothing, n, scores)
            for j in range(n):
                row, seen = scores[j], j + 1
                wide = (seen + LANES - 1) // LANES * LANES
                for i in range(seen, wide):
                    row[i] = np.float32(-np.inf)
                softmax(row, wide, powers, factors)
                for i in range(seen, n):
                    row[i] = ZERO
            multiply(scores, values[:, :n], nothing, n, mixed)
            for j in range(n):
                for c in range(own):
                    out[begin + j, query + c] = mixed[j, c]


@njit(fastmath={"contract"}, forceinline=True)
def _products(
    query: Any, rows: Any, begin: int, n: int, first: int, own: int, sums: Any, out: Any
) -> None:
    """`out[j]` = the inner product of the columns `first` to `first + own` of `query` and of the
    row `begin + j`, for j below `n`.

    Args:
        sums: `[n, LANES]` room: each lane's sums, of which a tree is made for all rows at once.
    """
    query = query[first : first + own]
    for j in range(n):
        row, lanes = rows[begin + j, first : first + own], sums[j]
        for c in range(LANES):
            lanes[c] = ZERO
        for i in range(0, own, LANES):
            x, y = query[i : i + LANES], row[i : i + LANES]
            for c in range(len(x)):
                lanes[c] += x[c] * y[c]
        for c in range(LANES // 2):
            lanes[c] += lanes[c + LANES // 2]
    for j in range(n):
        t = sums[j]
        out[j] = ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]))


@njit(fastmath=FAST, forceinline=True)
def _add_weighted(
    weight: Any, rows: Any, begin: int, n: int, first: int, own: int, out: Any
) -> None:
    """`out[:own]` += the sum of `weight[j]` times the columns `first` to `first + own` of the row
    `begin + j`, for j below `n`.
    """
    end = first + own
    j = 0
    while j + 4 <= n:
        k = begin + j
        a, b, c, d = weight[j], weight[j + 1], weight[j + 2], weight[j + 3]
        w, x, y, z = (
            rows[k, first:end],
            rows[k + 1, first:end],
            rows[k + 2, first:end],
            rows[k + 3, first:end],
        )
        for i in range(own):
            out[i] += (a * w[i] + b * x[i]) + (c * y[i] + d * z[i])
        j += 4
    while j < n:
        a, w = weight[j], rows[begin + j, first:end]
        for i in range(own):
            out[i] += a * w[i]
        j += 1


@njit(fastmath=FAST)
def _attend_newest(
    projected: Any,
    read: Any,
    first: Any,
    end: Any,
    further: Any,
    used: int,
    heads: int,
    out: Any,
) -> None:
    """Softmax attention of each row's newest token over all its tokens; arguments as in
    `BlockReader.newest`, `out` `[N, d]`, of which the first B rows are written.
    """
    width = out.shape[1]
    own = width // heads
    scale = np.float32(1.0 / np.sqrt(own))
    longest = used
    for i in range(len(first)):
        longest = max(longest, end[i] - first[i] + used)
    scores = np.empty(longest, dtype=np.float32)
    powers = np.empty(longest, dtype=np.int32)
    factors = powers.view(np.float32)
    query = np.empty(width, dtype=np.float32)
    sums = np.empty((longest, LANES), dtype=np.float32)
    for i in range(len(first)):
        n = end[i] - first[i]
        for c in range(width):
            query[c] = projected[i, c] * scale
            out[i, c] = ZERO
        for h in range(heads):
            column, own_value = h * own, width + h * own
            for is_further in range(2):
                rows = further[i] if is_further else read
                begin, count = (0, used) if is_further else (first[i], n)
                its_scores = scores[n * is_further :]
                _products(query, rows, begin, count, column, own, sums, its_scores)
            softmax(scores, n + used, powers, factors)
            mixed = out[i, column : column + own]
            for is_further in range(2):
                rows = further[i] if is_further else read
                begin, count = (0, used) if is_further else (first[i], n)
                _add_weighted(scores[n * is_further :], rows, begin, count, own_value, own, mixed)
