"""Means and spreads of values that come in stretches, by passes over them: centred on the mean of
all, so that nothing cancels. Of one stretch they are what NumPy gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from simulator.stats.moments import Floats

Pass = Callable[[Callable[[Any], Any]], Iterator[Any]]
"""One more pass over some units: what a function that can be pickled says of each stretch of them
(`UnitTable.mapped`).
"""

Columns = Callable[[Any], Sequence[Floats]]
"""Some columns of a stretch."""


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


def spreads(over: Pass, columns: Columns, k: int) -> list[ColumnSpread]:
    """The spread of each of `k` columns, in two passes."""
    sizes, sums, squares = np.zeros(k, dtype=np.int64), np.zeros(k), np.zeros(k)
    low, high = np.full(k, np.inf), np.full(k, -np.inf)
    for n, total, least, most in over(partial(_extent, columns)) if k else ():
        sizes += n
        sums += total
        low, high = np.minimum(low, least), np.maximum(high, most)
    with np.errstate(invalid="ignore"):
        means = sums / sizes
    for found in over(partial(_squares, columns, means)) if k else ():
        squares += found
    found = zip(*(one.tolist() for one in (sizes, means, squares, low, high)), strict=True)
    return [ColumnSpread(*one) for one in found]


def _extent(columns: Columns, stretch: Any) -> tuple[Any, ...]:
    """Of each column how many values, their sum, the least and the largest one."""
    own = columns(stretch)
    return (
        np.array([len(column) for column in own], dtype=np.int64),
        np.array([column.sum() for column in own], dtype=np.float64),
        np.array([column.min(initial=np.inf) for column in own]),
        np.array([column.max(initial=-np.inf) for column in own]),
    )


def _squares(columns: Columns, means: Floats, stretch: Any) -> Floats:
    pairs = zip(columns(stretch), means, strict=True)
    return np.array([np.square(column - mean).sum() for column, mean in pairs])
