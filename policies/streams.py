"""Counter-based random numbers: a number is obtained by saying what it decides, never by being
next.

Philox4x32-10 (Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
with key = seed and counter = (user, step, purpose, lane).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt


class Purpose(IntEnum):
    """What a random number decides. Values are part of the log's reproducibility: never renumber,
    only append (6 was one that nothing used).
    """

    CLICK = 1
    WATCH = 2
    FEEDBACK = 3
    EXAMINE = 4
    LEAVE = 5
    RETURN = 7
    ARRIVE = 8
    DRIFT = 9
    WORLD = 10
    EXPLORE = 11
    ASSIGN = 12
    RECALL = 13
    TIES = 14
    INTERLEAVE = 15
    RESAMPLE = 16
    SPLIT = 17
    RESPONSE = 18
    FIT = 19
    WEIGHT = 20
    UPLOAD = 21
    LEARN = 22
    HASH = 23


_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)

Counter = npt.ArrayLike


def philox(
    seed: int, c0: Counter, c1: Counter, c2: Counter, c3: Counter
) -> tuple[npt.NDArray[np.uint64], ...]:
    """The four 32-bit words of Philox4x32-10 for each counter, as uint64 arrays of the broadcast
    shape.
    """
    words = np.broadcast_arrays(*(np.asarray(c).astype(np.uint64) & _LOW for c in (c0, c1, c2, c3)))
    x0, x1, x2, x3 = words
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = x0 * _M0, x2 * _M1
        x0 = (p1 >> _SHIFT) ^ x1 ^ np.uint64(k0)
        x1 = p1 & _LOW
        x2 = (p0 >> _SHIFT) ^ x3 ^ np.uint64(k1)
        x3 = p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return x0, x1, x2, x3


COMPILED_FROM = 4096
"""From this many numbers on, `uniform` takes the compiled loop (importing numba costs more than a
small call saves).
"""


def unit(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> npt.NDArray[Any]:
    """Float64 in [0, 1) of 53 random bits out of two words of `philox`."""
    return ((high >> np.uint64(5)) * 67108864.0 + (low >> np.uint64(6))) * (
        1.0 / 9007199254740992.0
    )


def uniform(
    seed: int, purpose: Purpose, user: Counter, step: Counter = 0, lane: Counter = 0
) -> npt.NDArray[Any]:
    """Uniform float64 in [0, 1), 53 random bits, one for each (user, step, lane) of the broadcast
    shape.
    """
    counters = [np.asarray(c) for c in (user, step, lane)]
    shape = np.broadcast_shapes(*(c.shape for c in counters))
    if np.prod(shape) < COMPILED_FROM:
        high, low, _, _ = philox(seed, counters[0], counters[1], int(purpose), counters[2])
        return unit(high, low)
    return _compiled(seed, purpose, counters, shape)


def uniform2(
    seed: int, purpose: Purpose, user: Counter, step: Counter = 0, lane: Counter = 0
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Two independent uniforms for each (user, step, lane): the first is `uniform`'s, the second
    comes from the other two words.
    """
    w0, w1, w2, w3 = philox(seed, user, step, int(purpose), lane)
    return unit(w0, w1), unit(w2, w3)


def _compiled(
    seed: int, purpose: Purpose, counters: list[npt.NDArray[Any]], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    from policies.philox import fill, fill_rows

    key, out = np.uint64(seed & 0xFFFFFFFFFFFFFFFF), np.empty(shape)
    user, step, lane = (c.astype(np.int64) for c in counters)
    columns = [c.shape == (shape[0], 1) for c in (user, step)] if len(shape) == 2 else []
    if (
        columns
        and columns[0]
        and (columns[1] or step.size == 1)
        and (lane.size == 1 or lane.shape in ((shape[1],), (1, shape[1])))
    ):
        fill_rows(key, int(purpose), user.ravel(), step.ravel(), lane.ravel(), out)
        return out
    flat = [
        np.broadcast_to(c, shape).ravel() if c.size > 1 else c.ravel() for c in (user, step, lane)
    ]
    fill(key, int(purpose), flat[0], flat[1], flat[2], out.reshape(-1))
    return out
