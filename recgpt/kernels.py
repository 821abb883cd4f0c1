"""Compiled parts of a pass over the tokens of a batch (`recgpt.rows`): attention, layer norms with
what is added before them, the embedding, and the trace, each with its gradient. No product of
matrices with weights lives here.

Loops may add in any order (`FAST`), so that they are vectors: their last bits are those of a kind
of processor, as those of torch's own kernels are. Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.compiled import FAST, ONE, ZERO, softmax
from policies.jit import njit

EPSILON = np.float32(1e-5)
"""Of a layer norm, as torch's."""

LEAST_WEIGHT = np.float32(1e-6)
"""Of a trace, by which its sums are divided at least: where there is nothing in the mean."""

LANES = 16
"""Attention computes so many keys at once: the last ones of a row may be none."""


@njit(fastmath=FAST)
def _combine(weight: Any, first: int, rows: Any, n: int, width: int, out: Any) -> None:
    """`out[j] = sum_i weight[first + i] rows[i, j]` over `n` rows, for j below `width`."""
    for j in range(width):
        out[j] = ZERO
    i = 0
    while i + 8 <= n:
        k = first + i
        a, b, c, d = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        e, f, g, h = weight[k + 4], weight[k + 5], weight[k + 6], weight[k + 7]
        for j in range(width):
            out[j] += (
                (a * rows[i, j] + b * rows[i + 1, j])
                + (c * rows[i + 2, j] + d * rows[i + 3, j])
                + (e * rows[i + 4, j] + f * rows[i + 5, j])
                + (g * rows[i + 6, j] + h * rows[i + 7, j])
            )
        i += 8
    while i < n:
        a = weight[first + i]
        for j in range(width):
            out[j] += a * rows[i, j]
        i += 1


@njit(fastmath=FAST)
def attend(
    queries: Any,
    both: Any,
    offsets: Any,
    asked: Any,
    asked_offsets: Any,
    heads: int,
    distance: Any,
    shares: Any,
    out: Any,
) -> None:
    """Causal softmax attention of the asked tokens over all tokens of their own window.

    Args:
        queries: `[P, d]`, of the asked tokens.
        both: `[T, 2 d]` keys and values of all tokens.
        offsets: `[B + 1]` where windows begin among the tokens.
        asked: `[P]` which tokens ask, ascending.
        asked_offsets: `[B + 1]` where windows begin among the asked.
        heads: m.
        distance: `[m, R]` what is added to the score of a token so far back, the farthest first; R
            is at least the longest window, or 0: nothing is added.
        shares: `[m, P, W]` output, the weights of the tokens of the window from its first on; W is
            the longest window, filled up to `LANES`.
        out: `[P, d]` output.
    """
    width, reach = queries.shape[1], distance.shape[1]
    own, longest = width // heads, shares.shape[2]
    scale = np.float32(1.0 / np.sqrt(own))
    keys = np.empty((own, longest), dtype=np.float32)  # what is not filled counts for nothing
    values = np.empty((longest, own), dtype=np.float32)
    powers = np.empty(longest, dtype=np.int32)
    factors = powers.view(np.float32)
    query, mixed = np.empty(own, dtype=np.float32), np.empty(own, dtype=np.float32)
    for b in range(len(offsets) - 1):
        begin, n = offsets[b], offsets[b + 1] - offsets[b]
        for h in range(heads):
            first = h * own
            for j in range(n):
                for c in range(own):
                    keys[c, j] = both[begin + j, first + c]
                    values[j, c] = both[begin + j, width + first + c]
            for p in range(asked_offsets[b], asked_offsets[b + 1]):
                seen = asked[p] - begin + 1
                wide = (seen + LANES - 1) // LANES * LANES
                scores = shares[h, p]
                for c in range(own):
                    query[c] = queries[p, first + c] * scale
                _combine(query, 0, keys, own, wide, scores)
                if reach > 0:
                    terms = distance[h, reach - seen :]
                    for j in range(seen):
                        scores[j] += terms[j]
                for j in range(seen, wide):
                    scores[j] = np.float32(-np.inf)
                softmax(scores, wide, powers, factors)
                for j in range(seen, wide):
                    scores[j] = ZERO
                _combine(scores, 0, values, seen, own, mixed)
                for c in range(own):
                    out[p, first + c] = mixed[c]


@njit(fastmath=FAST)
def attend_backward(
    grad: Any,
    shares: Any,
    queries: Any,
    both: Any,
    offsets: Any,
    asked: Any,
    asked_offsets: Any,
    to_queries: Any,
    to_both: Any,
    to_distance: Any,
) -> None:
    """The gradient of `attend`, whose arguments these are, by the gradient `grad`
    `[P, d]` of its output: that of the queries `[P, d]`, of keys and values `[T, 2 d]`, and what
    is added to that of the distances `[m, R]`.
    """
    heads, width, reach = len(shares), queries.shape[1], to_distance.shape[1]
    own, longest = width // heads, shares.shape[2]
    scale = np.float32(1.0 / np.sqrt(own))
    values = np.empty((own, longest), dtype=np.float32)
    for c in range(own):
        for j in range(longest):
            values[c, j] = ZERO
    keys = np.empty((longest, own), dtype=np.float32)
    to_keys = np.empty((longest, own), dtype=np.float32)
    to_values = np.empty((longest, own), dtype=np.float32)
    slope = np.empty(longest, dtype=np.float32)
    given, query = np.empty(own, dtype=np.float32), np.empty(own, dtype=np.float32)
    mixed = np.empty(own, dtype=np.float32)
    for b in range(len(offsets) - 1):
        begin, n = offsets[b], offsets[b + 1] - offsets[b]
        for h in range(heads):
            first = h * own
            for j in range(n):
                for c in range(own):
                    keys[j, c] = both[begin + j, first + c]
                    values[c, j] = both[begin + j, width + first + c]
                    to_keys[j, c] = ZERO
                    to_values[j, c] = ZERO
            for p in range(asked_offsets[b], asked_offsets[b + 1]):
                seen = asked[p] - begin + 1
                wide = (seen + LANES - 1) // LANES * LANES
                share = shares[h, p]
                for c in range(own):
                    given[c] = grad[p, first + c]
                    query[c] = queries[p, first + c] * scale
                _combine(given, 0, values, own, wide, slope)
                mean = ZERO
                for j in range(wide):
                    mean += share[j] * slope[j]
                for j in range(wide):
                    slope[j] = share[j] * (slope[j] - mean)
                if reach > 0:
                    to_terms = to_distance[h, reach - seen :]
                    for j in range(seen):
                        to_terms[j] += slope[j]
                _combine(slope, 0, keys, seen, own, mixed)
                for c in range(own):
                    to_queries[p, first + c] = mixed[c] * scale
                for j in range(seen):
                    of_key, of_value = slope[j], share[j]
                    for c in range(own):
                        to_keys[j, c] += of_key * query[c]
                    for c in range(own):
                        to_values[j, c] += of_value * given[c]
            for j in range(n):
                for c in range(own):
                    to_both[begin + j, first + c] = to_keys[j, c]
                    to_both[begin + j, width + first + c] = to_values[j, c]


@njit(fastmath=FAST, forceinline=True)
def _normalise(row: Any, gain: Any, shift: Any, whitened: Any, out: Any) -> Any:
    """A layer norm of one row, `whitened` times `gain` plus `shift`; 1 over its deviation."""
    d = len(row)
    mean = ZERO
    for c in range(d):
        mean += row[c]
    mean /= np.float32(d)
    square = ZERO
    for c in range(d):
        square += (row[c] - mean) * (row[c] - mean)
    inverse = ONE / np.sqrt(square / np.float32(d) + EPSILON)
    for c in range(d):
        whitened[c] = (row[c] - mean) * inverse
        out[c] = whitened[c] * gain[c] + shift[c]
    return inverse


@njit(fastmath=FAST, forceinline=True)
def _normalise_backward(
    grad: Any, gain: Any, whitened: Any, inverse: Any, to_gain: Any, to_shift: Any, out: Any
) -> None:
    """The gradient of the row that `_normalise` was given; those of gain and shift are added to."""
    d = len(grad)
    mean, slope = ZERO, ZERO
    for c in range(d):
        to_gain[c] += grad[c] * whitened[c]
        to_shift[c] += grad[c]
        mean += grad[c] * gain[c]
        slope += grad[c] * gain[c] * whitened[c]
    mean /= np.float32(d)
    slope /= np.float32(d)
    for c in range(d):
        out[c] = inverse * (grad[c] * gain[c] - mean - whitened[c] * slope)


@njit(fastmath=FAST)
def add_and_norm(
    x: Any, y: Any, n: int, bits: Any, level: int, gain: Any, shift: Any, whitened: Any, out: Any
) -> Any:
    """`LN(x + dropout(y))` of the first `n` rows `[N, d]`.

    Args:
        x, y: `[N, d]`.
        n: rows that count.
        bits: `[N, d]` random bytes; what is below `level` drops its element.
        level: of 256; 0 drops nothing.
        gain, shift: `[d]`.
        whitened, out: `[N, d]` outputs, the first without gain and shift.

    Returns:
        1 over the deviation of each row, `[N]`.
    """
    d = x.shape[1]
    scale = np.float32(256.0 / (256.0 - level))
    row = np.empty(d, dtype=np.float32)
    inverse = np.empty(len(x), dtype=np.float32)
    for i in range(n):
        for c in range(d):
            kept = scale if bits[i, c] >= level else ZERO
            row[c] = x[i, c] + y[i, c] * kept
        inverse[i] = _normalise(row, gain, shift, whitened[i], out[i])
    return inverse


@njit(fastmath=FAST)
def add_and_norm_backward(
    grad: Any,
    n: int,
    bits: Any,
    level: int,
    gain: Any,
    whitened: Any,
    inverse: Any,
    to_x: Any,
    to_y: Any,
    sums: Any,
) -> None:
    """The gradient of `add_and_norm` by that of its output, `grad` `[N, d]`.

    Writes those of x and y, and adds those of gain and shift, and the sum of y's over rows, to
    `sums` `[3, d]`.
    """
    d = grad.shape[1]
    scale = np.float32(256.0 / (256.0 - level))
    for i in range(n):
        _normalise_backward(grad[i], gain, whitened[i], inverse[i], sums[0], sums[1], to_x[i])
        for c in range(d):
            kept = scale if bits[i, c] >= level else ZERO
            to_y[i, c] = to_x[i, c] * kept
            sums[2, c] += to_y[i, c]


@njit(fastmath=FAST)
def embed(
    tables: Any,
    indices: Any,
    known: Any,
    is_normed: bool,
    bits: Any,
    level: int,
    norm: Any,
    whitened: Any,
    out: Any,
) -> Any:
    """`dropout(LN(item + position + segment + user))` of every token.

    Args:
        tables: items, positions, segments and users, `[., d]` each; of one that does not count the
            first row is zeros, and indices are 0.
        indices: `[4, T]` rows of the tables.
        known: `[T]` by what the user's vector is multiplied, 1 or 0.
        is_normed: whether there is a layer norm.
        bits, level: as in `add_and_norm`.
        norm: its gain and shift.
        whitened, out: `[N, d]` outputs, N at least T.

    Returns:
        1 over the deviation of each row, `[T]`.
    """
    items, positions, segments, users = tables
    d = items.shape[1]
    scale = np.float32(256.0 / (256.0 - level))
    row = np.empty(d, dtype=np.float32)
    inverse = np.empty(indices.shape[1], dtype=np.float32)
    for i in range(indices.shape[1]):
        item, position, segment, user = indices[0, i], indices[1, i], indices[2, i], indices[3, i]
        for c in range(d):
            row[c] = (
                items[item, c]
                + positions[position, c]
                + segments[segment, c]
                + users[user, c] * known[i]
            )
        if is_normed:
            inverse[i] = _normalise(row, norm[0], norm[1], whitened[i], out[i])
        else:
            for c in range(d):
                out[i, c] = row[c]
        for c in range(d):
            kept = scale if bits[i, c] >= level else ZERO
            out[i, c] *= kept
    return inverse


@njit(fastmath=FAST)
def embed_backward(
    grad: Any,
    indices: Any,
    known: Any,
    is_normed: bool,
    bits: Any,
    level: int,
    norm: Any,
    whitened: Any,
    inverse: Any,
    to_tables: Any,
    to_norm: Any,
) -> None:
    """The gradient of `embed` by that of its output: added to those of the tables, and of gain and
    shift.
    """
    to_items, to_positions, to_segments, to_users = to_tables
    d = to_items.shape[1]
    scale = np.float32(256.0 / (256.0 - level))
    row, to_row = np.empty(d, dtype=np.float32), np.empty(d, dtype=np.float32)
    for i in range(indices.shape[1]):
        item, position, segment, user = indices[0, i], indices[1, i], indices[2, i], indices[3, i]
        for c in range(d):
            kept = scale if bits[i, c] >= level else ZERO
            row[c] = grad[i, c] * kept
        if is_normed:
            _normalise_backward(
                row, norm[0], whitened[i], inverse[i], to_norm[0], to_norm[1], to_row
            )
        else:
            for c in range(d):
                to_row[c] = row[c]
        for c in range(d):
            to_items[item, c] += to_row[c]
            to_positions[position, c] += to_row[c]
            to_segments[segment, c] += to_row[c]
            to_users[user, c] += to_row[c] * known[i]


@njit(fastmath=FAST, forceinline=True)
def _decayed_sums(rows: Any, counted: Any, g: Any, sums: Any, weights: Any) -> None:
    """The sums and weights of a trace after each token of a window: `sums` `[1 + n, d]` and
    `weights` `[1 + n]`, which begin with zeros.
    """
    for i in range(len(rows)):
        if counted[i]:
            for c in range(rows.shape[1]):
                sums[i + 1, c] = g * sums[i, c] + rows[i, c]
            weights[i + 1] = g * weights[i] + ONE
        else:
            for c in range(rows.shape[1]):
                sums[i + 1, c] = sums[i, c]
            weights[i + 1] = weights[i]


@njit()
def _longest(offsets: Any) -> int:
    """The most tokens that a window has."""
    longest = 0
    for b in range(len(offsets) - 1):
        longest = max(longest, offsets[b + 1] - offsets[b])
    return longest


@njit(fastmath=FAST)
def add_trace(
    x: Any,
    counted: Any,
    offsets: Any,
    asked: Any,
    asked_offsets: Any,
    g: Any,
    share: Any,
    gain: Any,
    shift: Any,
    whitened: Any,
    out: Any,
) -> Any:
    """Adds the trace (`recgpt.model.Trace`) of the asked tokens to `out`.

    Args:
        x: `[N, d]` what tokens begin as.
        counted: `[T]` whether they are in the mean.
        offsets, asked, asked_offsets: as in `attend`.
        g: decay.
        share: by which the norm's result is multiplied.
        gain, shift: `[d]` of the norm.
        whitened: `[P, d]` output.
        out: `[., d]` whose first P rows are those of the asked tokens.

    Returns:
        1 over the deviation of each mean, `[P]`.
    """
    n, d = _longest(offsets), x.shape[1]
    sums, weights = np.zeros((n + 1, d), dtype=np.float32), np.zeros(n + 1, dtype=np.float32)
    mean, trace = np.empty(d, dtype=np.float32), np.empty(d, dtype=np.float32)
    inverse = np.empty(len(asked), dtype=np.float32)
    for b in range(len(offsets) - 1):
        begin, end = offsets[b], offsets[b + 1]
        _decayed_sums(x[begin:end], counted[begin:end], g, sums, weights)
        for p in range(asked_offsets[b], asked_offsets[b + 1]):
            at = asked[p] - begin + 1
            weight = max(weights[at], LEAST_WEIGHT)
            for c in range(d):
                mean[c] = sums[at, c] / weight
            inverse[p] = _normalise(mean, gain, shift, whitened[p], trace)
            for c in range(d):
                out[p, c] += share * trace[c]
    return inverse


@njit(fastmath=FAST)
def add_trace_backward(
    grad: Any,
    x: Any,
    counted: Any,
    offsets: Any,
    asked: Any,
    asked_offsets: Any,
    g: Any,
    share: Any,
    gain: Any,
    shift: Any,
    whitened: Any,
    inverse: Any,
    to_x: Any,
    to_norm: Any,
) -> Any:
    """The gradient of `add_trace`, whose arguments and result these are, by the gradient `grad`
    `[., d]` of its output: added to that of the tokens `[N, d]`, and to those of gain and shift
    `[2, d]`. Returns those of `g` and of `share`.
    """
    n, d = _longest(offsets), x.shape[1]
    sums, weights = np.zeros((n + 1, d), dtype=np.float32), np.zeros(n + 1, dtype=np.float32)
    row, to_mean = np.empty(d, dtype=np.float32), np.empty(d, dtype=np.float32)
    to_sum = np.empty(d, dtype=np.float32)
    to_g, to_share = 0.0, 0.0
    for b in range(len(offsets) - 1):
        begin, end = offsets[b], offsets[b + 1]
        _decayed_sums(x[begin:end], counted[begin:end], g, sums, weights)
        to_sum[:] = ZERO
        to_weight = ZERO
        p = asked_offsets[b + 1] - 1
        for i in range(end - 1, begin - 1, -1):
            at = i - begin + 1
            if p >= asked_offsets[b] and asked[p] == i:
                total = ZERO
                for c in range(d):
                    total += grad[p, c] * (whitened[p, c] * gain[c] + shift[c])
                    row[c] = grad[p, c] * share
                to_share += float(total)
                _normalise_backward(
                    row, gain, whitened[p], inverse[p], to_norm[0], to_norm[1], to_mean
                )
                if weights[at] > LEAST_WEIGHT:
                    one_over = ONE / weights[at]
                    along = ZERO
                    for c in range(d):
                        to_sum[c] += to_mean[c] * one_over
                        along += to_mean[c] * sums[at, c]
                    to_weight -= along * one_over * one_over
                p -= 1
            if counted[i]:
                along = to_weight * weights[at - 1]
                for c in range(d):
                    to_x[i, c] += to_sum[c]
                    along += to_sum[c] * sums[at - 1, c]
                    to_sum[c] *= g
                to_weight *= g
                to_g += float(along)
    return to_g, to_share
