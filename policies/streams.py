"""Counter-based random numbers: a number is obtained by saying what it decides, never by being next.

Philox4x32-10 (Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with
key = seed and counter = (user, step, purpose, lane).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt


class Purpose(IntEnum):
    """What a random number decides. Values are part of the log's reproducibility: never renumber, only append."""

    CLICK = 1
    WATCH = 2
    FEEDBACK = 3
    EXAMINE = 4
    LEAVE = 5
    DELAY = 6
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


_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)

Counter = npt.ArrayLike


def philox(seed: int, c0: Counter, c1: Counter, c2: Counter, c3: Counter) -> tuple[npt.NDArray[np.uint64], ...]:
    """The four 32-bit words of Philox4x32-10 for each counter, as uint64 arrays of the broadcast shape."""
    words = np.broadcast_arrays(*(np.asarray(c).astype(np.uint64) & _LOW for c in (c0, c1, c2, c3)))
    x0, x1, x2, x3 = words
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = x0 * _M0, x2 * _M1
        x0, x1, x2, x3 = (p1 >> _SHIFT) ^ x1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _SHIFT) ^ x3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return x0, x1, x2, x3


def uniform(seed: int, purpose: Purpose, user: Counter, step: Counter = 0, lane: Counter = 0) -> npt.NDArray[Any]:
    """Uniform float64 in [0, 1), 53 random bits, one for each (user, step, lane) of the broadcast shape."""
    high, low, _, _ = philox(seed, user, step, int(purpose), lane)
    return ((high >> np.uint64(5)) * 67108864.0 + (low >> np.uint64(6))) * (1.0 / 9007199254740992.0)
