"""Order statistics of values that come in stretches, exact, in two passes: a sample brackets them,
and only the values between the brackets are kept (Floyd & Rivest, "Expected time bounds for
selection", Communications of the ACM 1975).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

SAMPLED = 1 << 16
"""Values of a column that bracket its order statistics."""

WIDTH = 5.0
"""Half of a bracket, in standard errors of the rank in the sample."""

Values = npt.NDArray[Any]
K = TypeVar("K", bound=Hashable)

Pass = Callable[[], Iterator[Mapping[Any, Values]]]
"""One more pass over the values of every column, a stretch at a time."""


def rank(level: float, size: int) -> int:
    """The rank of the quantile at a level that is a value: the first one at or below which there
    are so many (NumPy's `inverted_cdf`).
    """
    return max(math.ceil(level * size - 1.0), 0)


def quantiles(
    stretches: Callable[[], Iterator[Values]], levels: Sequence[float], size: int
) -> list[float]:
    """Quantiles of `size` values as NumPy has them by default, between two order statistics."""
    places = [level * (size - 1) for level in levels]
    ranks = [rank for place in places for rank in (int(place), min(int(place) + 1, size - 1))]
    found = order_statistics(lambda: ({0: one} for one in stretches()), {0: ranks}, {0: size})[0]
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
    stretches: Pass, ranks: Mapping[K, Sequence[int]], sizes: Mapping[K, int]
) -> dict[K, list[float]]:
    """The values of some `ranks` (from 0) of every column, of as many values as its size."""
    sampled: dict[K, list[Values]] = {key: [] for key in ranks}
    passed = dict.fromkeys(ranks, 0)
    for stretch in stretches():
        for key in ranks:
            step = -(-sizes[key] // SAMPLED)
            sampled[key].append(stretch[key][-passed[key] % step :: step])
            passed[key] += len(stretch[key])
    samples = {
        key: np.sort(np.concatenate(parts)).astype(np.float64) for key, parts in sampled.items()
    }
    found: dict[K, list[float | None]] = {key: [None] * len(own) for key, own in ranks.items()}
    width = WIDTH
    while wanted := [(k, i) for k, own in found.items() for i, v in enumerate(own) if v is None]:
        brackets = {
            (key, i): _bracket(samples[key], ranks[key][i] / sizes[key], width) for key, i in wanted
        }
        for stretch in stretches():
            for (key, _), bracket in brackets.items():
                bracket.add(stretch[key])
        for (key, i), bracket in brackets.items():
            found[key][i] = bracket.value(ranks[key][i])
        width *= 4.0
    return {key: [v for v in own if v is not None] for key, own in found.items()}


def _bracket(sample: Values, level: float, width: float) -> _Bracket:
    n = len(sample)
    half = 1.0 + width * np.sqrt(n * level * (1.0 - level))
    low, high = int(np.floor(level * n - half)), int(np.ceil(level * n + half))
    return _Bracket(
        float(sample[low]) if low >= 0 else -np.inf, float(sample[high]) if high < n else np.inf
    )
