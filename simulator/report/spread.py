"""How a metric is spread over the units of each arm: quantiles, mean, share of zeros. What a mean
does not show.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

import numpy as np

from simulator.report.content import Distribution
from simulator.stats import selection
from simulator.stats.unit_table import Floats, UnitTable

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def distributions(table: UnitTable, arms: Sequence[str]) -> tuple[Distribution, ...]:
    """One row for each metric with data and arm that has units.

    A ratio metric's values are each unit's own ratio, of the units that have a denominator.
    """
    names = [name for name in table.metrics if name in table.numerators]
    over, columns = partial(table.mapped, metrics=names), partial(_values, names, arms)
    n: Counter[Key] = Counter()
    zeros: Counter[Key] = Counter()
    total, largest = defaultdict[Key, float](float), dict[Key, float]()
    for stretch in over(partial(_figures, columns)):
        for key, (size, none, whole, most) in stretch.items():
            n[key] += size
            zeros[key] += none
            total[key] += whole
            largest[key] = max(largest.get(key, -math.inf), most)
    sizes = {key: size for key, size in n.items() if size}
    ranks = {
        key: [selection.rank(level, size) for level in QUANTILES] for key, size in sizes.items()
    }
    found = selection.order_statistics(over, columns, ranks, sizes)
    return tuple(
        Distribution(
            *key, size, total[key] / size, zeros[key] / size, tuple(found[key]), largest[key]
        )
        for key, size in sizes.items()
    )


Key = tuple[str, str]
"""A metric and an arm."""


def _values(
    names: Sequence[str], arms: Sequence[str], table: UnitTable
) -> Iterator[tuple[Key, Floats]]:
    for key in product(names, arms):
        top, bottom = table.sums(*key)
        yield key, top if bottom is None else top[bottom > 0] / bottom[bottom > 0]


def _figures(
    columns: Callable[[UnitTable], Iterator[tuple[Key, Floats]]], table: UnitTable
) -> dict[Key, tuple[int, int, float, float]]:
    """How many values there are, how many of them are 0, their sum, and the largest one."""
    return {
        key: (
            len(values),
            int(np.count_nonzero(values == 0)),
            float(values.sum()),
            float(values.max(initial=-math.inf)),
        )
        for key, values in columns(table)
    }
