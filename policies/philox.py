"""Philox4x32-10 as compiled scalar functions, for loops that numba compiles; the same bits as
`policies.streams`.

Importing this module imports numba: do so inside the function that needs it. Call these functions
from your own `numba.njit(cache=True)` kernels; LLVM inlines them. Never compile with `fastmath`: it
would change the bits.

Example:
    >>> from numba import njit
    >>> from policies.philox import uniform
    >>> @njit(cache=True)
    ... def coins(seed, purpose, users, out):
    ...     for i in range(len(users)):
    ...         out[i] = uniform(seed, purpose, users[i], 0, 0) < 0.5
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from policies.jit import njit

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_S5, _S6, _S32 = np.uint64(5), np.uint64(6), np.uint64(32)


@njit()
def philox(
    seed: Any, c0: Any, c1: Any, c2: Any, c3: Any
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """The four 32-bit words of the counter (c0, c1, c2, c3) under the key `seed`, each in a uint64.

    Salmon, Moraes, Dror & Shaw (SC 2011), "Parallel random numbers: as easy as 1, 2, 3", section
    4.3.

    Args:
        seed: the 64-bit key (pass `numpy.uint64(seed)` for seeds of 2**63 and more).
        c0, c1, c2, c3: integers, of which the low 32 bits count.
    """
    key = np.uint64(seed)
    k0, k1 = key & _LOW, key >> _S32
    x0, x1, x2, x3 = (
        np.uint64(c0) & _LOW,
        np.uint64(c1) & _LOW,
        np.uint64(c2) & _LOW,
        np.uint64(c3) & _LOW,
    )
    for _ in range(10):
        p0, p1 = x0 * _M0, x2 * _M1
        x0, x1, x2, x3 = (p1 >> _S32) ^ x1 ^ k0, p1 & _LOW, (p0 >> _S32) ^ x3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return x0, x1, x2, x3


@njit()
def philox_words(
    seed: Any, counters: npt.NDArray[np.uint32], n: int, out: npt.NDArray[np.uint32]
) -> None:
    """`philox` of many counters, `[4, >= n]` uint32 in and out: LLVM computes many at a time, at a
    tenth of the cost of one.
    """
    key = np.uint64(seed)
    c0, c1, c2, c3 = counters[0], counters[1], counters[2], counters[3]
    for i in range(n):
        k0, k1 = key & _LOW, key >> _S32
        x0, x1, x2, x3 = np.uint64(c0[i]), np.uint64(c1[i]), np.uint64(c2[i]), np.uint64(c3[i])
        for _ in range(10):
            p0, p1 = x0 * _M0, x2 * _M1
            x0, x1, x2, x3 = (p1 >> _S32) ^ x1 ^ k0, p1 & _LOW, (p0 >> _S32) ^ x3 ^ k1, p0 & _LOW
            k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
        out[0, i], out[1, i], out[2, i], out[3, i] = x0, x1, x2, x3


@njit()
def unit(high: Any, low: Any) -> float:
    """A float64 in [0, 1) of 53 random bits out of two words of `philox`."""
    return (np.float64(high >> _S5) * 67108864.0 + np.float64(low >> _S6)) * (
        1.0 / 9007199254740992.0
    )


@njit()
def uniform(seed: Any, purpose: Any, user: Any, step: Any, lane: Any) -> float:
    """`policies.streams.uniform` for one counter: a float64 in [0, 1)."""
    high, low, _, _ = philox(seed, user, step, purpose, lane)
    return unit(high, low)


@njit()
def uniform2(seed: Any, purpose: Any, user: Any, step: Any, lane: Any) -> tuple[float, float]:
    """`policies.streams.uniform2` for one counter: two independent float64 in [0, 1) for the price
    of one.
    """
    w0, w1, w2, w3 = philox(seed, user, step, purpose, lane)
    return unit(w0, w1), unit(w2, w3)


@njit()
def fill(
    seed: Any, purpose: Any, user: Any, step: Any, lane: Any, out: npt.NDArray[np.float64]
) -> None:
    """`out[i] = uniform(seed, purpose, user[i], step[i], lane[i])`; arrays of one element stand for
    all.
    """
    du, ds, dl = int(len(user) > 1), int(len(step) > 1), int(len(lane) > 1)
    for i in range(len(out)):
        out[i] = uniform(seed, purpose, user[i * du], step[i * ds], lane[i * dl])


@njit()
def fill_rows(
    seed: Any, purpose: Any, user: Any, step: Any, lane: Any, out: npt.NDArray[np.float64]
) -> None:
    """`out[i, j] = uniform(seed, purpose, user[i], step[i], lane[j])`: a block of requests by a row
    of lanes.
    """
    ds, dl = int(len(step) > 1), int(len(lane) > 1)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = uniform(seed, purpose, user[i], step[i * ds], lane[j * dl])
