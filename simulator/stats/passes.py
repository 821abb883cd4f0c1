"""Means and spreads of values that come in stretches, by passes over them: centred on the mean of
all, so that nothing cancels. Of one stretch they are what NumPy gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from simulator.stats.moments import Floats

Pass = Callable[[], Iterator[Sequence[Floats]]]
"""One more pass over some columns, a stretch at a time."""


@dataclass(frozen=True)
class ColumnSpread:
    """How the values of a column are spread.

    Attributes:
        n: values.
        mean: of them; NaN of none.
        squares: the sum of their squared distances from the mean.
        low, high: the least and the largest one.
    """

    n: int
    mean: float
    squares: float
    low: float
    high: float

    def deviation(self, ddof: int = 0) -> float:
        """The standard deviation with n - `ddof`; NaN where there are too few."""
        return math.sqrt(self.squares / (self.n - ddof)) if self.n > ddof else math.nan

    def standard(self, values: Floats) -> Floats:
        """Values of the column with mean 0 and standard deviation 1."""
        return np.asarray((values - self.mean) / self.deviation())


def spreads(stretches: Pass, k: int) -> list[ColumnSpread]:
    """The spread of each of `k` columns, in two passes."""
    sizes, sums, squares = np.zeros(k, dtype=np.int64), np.zeros(k), np.zeros(k)
    low, high = np.full(k, np.inf), np.full(k, -np.inf)
    for columns in stretches():
        for i, column in enumerate(columns):
            sizes[i] += len(column)
            sums[i] += column.sum()
            low[i] = column.min(initial=low[i])
            high[i] = column.max(initial=high[i])
    with np.errstate(invalid="ignore"):
        means = sums / sizes
    for columns in stretches():
        for i, column in enumerate(columns):
            squares[i] += np.square(column - means[i]).sum()
    found = zip(*(one.tolist() for one in (sizes, means, squares, low, high)), strict=True)
    return [ColumnSpread(*one) for one in found]
