"""UnitSums: what is left of a stream of rounds: sums per unit, of any number of columns. No
estimator, no interval.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import DoubleArray, IntArray

UNITS = 8192
"""Most units kept apart. More users are folded into this many groups by a hash of the user: groups
of whole users are as independent as users are, so intervals stay right, and memory does not grow
with the log."""


class UnitSums:
    """Sums of named columns over the rounds of each unit, `[U, S]`; a unit is a user, or a group of
    users where there are many.

    Life: `add` chunk after chunk in any order; then `matrix` is read.
    """

    def __init__(self, n_users: int, units: int = UNITS) -> None:
        self.n_units = min(n_users, units)
        self._folded = n_users > units
        self._sums: dict[Hashable, DoubleArray] = {}

    def unit(self, user: IntArray) -> IntArray:
        """The unit of each user, `[R]`."""
        if not self._folded:
            return user
        high = _mixed(user) >> np.uint64(32)
        return (high * np.uint64(self.n_units) >> np.uint64(32)).astype(np.int64)

    def add(self, unit: IntArray, columns: Mapping[Any, DoubleArray]) -> None:
        """Add the columns `[R]` of rounds whose units are `unit` `[R]`."""
        for name, values in columns.items():
            total: DoubleArray = np.bincount(unit, weights=values, minlength=self.n_units).astype(
                np.float64
            )
            if name in self._sums:
                self._sums[name] += total
            else:
                self._sums[name] = total

    def __getitem__(self, name: Hashable) -> DoubleArray:
        """A column, `[U]`."""
        return self._sums[name]

    def __contains__(self, name: Hashable) -> bool:
        return name in self._sums


def _mixed(values: IntArray) -> npt.NDArray[np.uint64]:
    """A hash of each value: the finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014, figure
    17).
    """
    z = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return out
