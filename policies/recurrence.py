"""Gated recurrent units as they are served on a CPU, step by step over the histories that are long
enough. Nothing is trained here.

torch's own pass takes ten calls of operators a step, on rows that are no whole vectors. Loops may
add in any order (`FAST`): their last bits are those of a kind of processor. Importing this module
imports numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.affine import multiply
from policies.compiled import FAST, LEAST, LOG2_E, ONE, factor
from policies.jit import njit

TOGETHER = 64
"""Histories that take a step together: what it computes stays in the cache."""


@njit(fastmath=FAST, forceinline=True)
def _sigmoid(x: Any, n: int, powers: Any, factors: Any) -> None:
    """`1 / (1 + exp(-x[:n]))` in place; `powers` and `factors` as in `compiled.exponentials`."""
    for j in range(n):
        x[j] = factor(min(max(-x[j] * LOG2_E, LEAST), -LEAST), powers, j)
    for j in range(n):
        x[j] = ONE / (ONE + x[j] * factors[j])


@njit(fastmath=FAST, forceinline=True)
def _recur(a: Any, b: Any, gates: Any, new: Any, powers: Any, factors: Any, state: Any) -> None:
    """One step of one row, as torch's GRU has it: r = s(a_r + b_r), z = s(a_z + b_z),
    n = tanh(a_n + r b_n), h' = (1 - z) n + z h.

    Args:
        a, b: `[3 d or more]` the maps of the input and of the state, with their biases.
        gates, new, powers, factors: room for `2 d`, `d`, `2 d` and `2 d` numbers.
        state: `[d]` h, which becomes h'.
    """
    d = len(state)
    for c in range(2 * d):
        gates[c] = a[c] + b[c]
    _sigmoid(gates, 2 * d, powers, factors)
    # tanh(x) = 2 s(2 x) - 1
    for c in range(d):
        new[c] = np.float32(2) * (a[2 * d + c] + gates[c] * b[2 * d + c])
    _sigmoid(new, d, powers, factors)
    for c in range(d):
        candidate = np.float32(2) * new[c] - ONE
        state[c] = candidate + gates[d + c] * (state[c] - candidate)


@njit(fastmath=FAST)
def run(table: Any, items: Any, lengths: Any, order: Any, layers: Any, out: Any) -> int:
    """The states of the last layer after the last `lengths` items of each history, from zeros on.

    Args:
        table: `[n_items + 1, width]` input vectors.
        items: `[B, L]`.
        lengths: `[B]`, at most L.
        order: `[B]` the histories, the longest first.
        layers: panels and bias of the input's map, and of the state's (`policies.affine`), of each.
        out: `[N, d]` output, the first B rows.

    Returns:
        A history with an item that has no vector, or -1: then all is written.
    """
    d, columns = out.shape[1], len(layers[0][1])
    entering = np.zeros((TOGETHER, table.shape[1]), dtype=np.float32)
    of_input = np.empty((TOGETHER, columns), dtype=np.float32)
    of_state = np.empty((TOGETHER, columns), dtype=np.float32)
    states = np.empty((len(layers), TOGETHER, d), dtype=np.float32)
    gates, new = np.empty(2 * d, dtype=np.float32), np.empty(d, dtype=np.float32)
    powers = np.empty(2 * d, dtype=np.int32)
    factors = powers.view(np.float32)
    for first in range(0, len(order), TOGETHER):
        rows = order[first : first + TOGETHER]
        states[:] = np.float32(0)
        n = len(rows)
        for t in range(lengths[rows[0]]):
            while lengths[rows[n - 1]] <= t:
                n -= 1
            for i in range(n):
                row = rows[i]
                item = items[row, items.shape[1] - lengths[row] + t]
                if not 0 <= item < len(table):
                    return int(row)
                vector = table[item]
                for c in range(len(vector)):
                    entering[i, c] = vector[c]
            for layer in range(len(layers)):
                input_panels, input_bias, state_panels, state_bias = layers[layer]
                x = entering if layer == 0 else states[layer - 1]
                multiply(x, input_panels, input_bias, n, of_input)
                multiply(states[layer], state_panels, state_bias, n, of_state)
                for i in range(n):
                    state = states[layer, i]
                    _recur(of_input[i], of_state[i], gates, new, powers, factors, state)
        for i in range(len(rows)):
            for c in range(d):
                out[rows[i], c] = states[-1, i, c]
    return -1
