"""Order statistics of values that come in stretches, exact, in two passes: a sample brackets them,
and only the values between the brackets are kept (Floyd & Rivest, "Expected time bounds for
selection", Communications of the ACM 1975).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from simulator.stats.passes import Pass

SAMPLED = 1 << 16
"""Values of a column that bracket its order statistics."""

WIDTH = 5.0
"""Half of a bracket, in standard errors of the rank in the sample."""

Values = npt.NDArray[Any]
K = TypeVar("K", bound=Hashable)

Columns = Callable[[Any], Iterable[tuple[Any, Values]]]
"""The values of every column in a stretch, one column after the other."""


def rank(level: float, size: int) -> int:
    """The rank of the quantile at a level that is a value: the first one at or below which there
    are so many (NumPy's `inverted_cdf`).
    """
    return max(math.ceil(level * size - 1.0), 0)


def quantiles(over: Pass, column: Any, levels: Sequence[float], size: int) -> list[float]:
    """Quantiles of the `size` values of a column as NumPy has them by default, between two order
    statistics.
    """
    places = [level * (size - 1) for level in levels]
    ranks = [rank for place in places for rank in (int(place), min(int(place) + 1, size - 1))]
    found = order_statistics(over, partial(_alone, column), {0: ranks}, {0: size})[0]
    pairs = zip(found[::2], found[1::2], strict=True)
    return [
        float(np.quantile(pair, place - int(place)))
        for pair, place in zip(pairs, places, strict=True)
    ]


@dataclass
class _Bracket:
    """What is between two values: those at the ends are counted, those inside kept with counts."""

    low: float
    high: float
    below: int = 0
    at_low: int = 0
    at_high: int = 0
    inside: list[tuple[Values, Values]] = field(default_factory=list)

    def add(self, values: Values) -> None:
        self.below += int(np.count_nonzero(values < self.low))
        self.at_low += int(np.count_nonzero(values == self.low))
        if self.high > self.low:
            self.at_high += int(np.count_nonzero(values == self.high))
            between = values[(values > self.low) & (values < self.high)]
            self.inside.append(np.unique(between, return_counts=True))

    def join(self, other: _Bracket) -> None:
        """Add what another one of the same ends has."""
        self.below += other.below
        self.at_low += other.at_low
        self.at_high += other.at_high
        self.inside += other.inside

    def value(self, rank: int) -> float | None:
        """The value of this rank, from 0; None where it is beyond the ends."""
        inside = [np.concatenate(parts) for parts in zip(*self.inside, strict=True)]
        values, counts = inside if inside else (np.zeros(0), np.zeros(0, dtype=np.int64))
        order = np.argsort(values, kind="stable")
        every = np.concatenate(([self.low], values[order], [self.high]))
        ends = self.below + np.cumsum(
            np.concatenate(([self.at_low], counts[order], [self.at_high]))
        )
        if not self.below <= rank < ends[-1]:
            return None
        return float(every[np.searchsorted(ends, rank, side="right")])


def order_statistics(
    over: Pass, columns: Columns, ranks: Mapping[K, Sequence[int]], sizes: Mapping[K, int]
) -> dict[K, list[float]]:
    """The values of some `ranks` (from 0) of every column, of as many values as its size."""
    if not ranks:
        return {}
    steps = {key: -(-sizes[key] // SAMPLED) for key in ranks}
    parts = list(over(partial(_sampled, columns, steps)))
    samples = {
        key: np.sort(np.concatenate([part[key] for part in parts])).astype(np.float64)
        for key in ranks
    }
    found: dict[K, list[float | None]] = {key: [None] * len(own) for key, own in ranks.items()}
    width = WIDTH
    while wanted := [(k, i) for k, own in found.items() for i, v in enumerate(own) if v is None]:
        brackets = {
            (key, i): _bracket(samples[key], ranks[key][i] / sizes[key], width) for key, i in wanted
        }
        ends = {place: (bracket.low, bracket.high) for place, bracket in brackets.items()}
        for counted in over(partial(_counted, columns, ends)):
            for place, bracket in brackets.items():
                bracket.join(counted[place])
        for (key, i), bracket in brackets.items():
            found[key][i] = bracket.value(ranks[key][i])
        width *= 4.0
    return {key: [v for v in own if v is not None] for key, own in found.items()}


def _alone(column: Callable[[Any], Values], stretch: Any) -> list[tuple[int, Values]]:
    return [(0, column(stretch))]


def _sampled(columns: Columns, steps: Mapping[K, int], stretch: Any) -> dict[K, Values]:
    """Every so many of the values of a stretch."""
    return {key: values[:: steps[key]] for key, values in columns(stretch) if key in steps}


def _counted(
    columns: Columns, ends: Mapping[tuple[K, int], tuple[float, float]], stretch: Any
) -> dict[tuple[K, int], _Bracket]:
    """The values of a stretch by what brackets them."""
    found = {place: _Bracket(*both) for place, both in ends.items()}
    for key, values in columns(stretch):
        for place, bracket in found.items():
            if place[0] == key:
                bracket.add(values)
    return found


def _bracket(sample: Values, level: float, width: float) -> _Bracket:
    n = len(sample)
    half = 1.0 + width * np.sqrt(n * level * (1.0 - level))
    low, high = int(np.floor(level * n - half)), int(np.ceil(level * n + half))
    return _Bracket(
        float(sample[low]) if low >= 0 else -np.inf, float(sample[high]) if high < n else np.inf
    )
