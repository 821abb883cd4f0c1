"""How a metric is spread over the units of each arm: quantiles, mean, share of zeros. What a mean
does not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from simulator.report.content import Distribution
from simulator.stats import selection
from simulator.stats.unit_table import Floats, UnitTable

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def distributions(table: UnitTable, arms: Sequence[str]) -> tuple[Distribution, ...]:
    """One row for each metric with data and arm that has units.

    A ratio metric's values are each unit's own ratio, of the units that have a denominator.
    """
    rows: list[Distribution] = []
    for name in table.metrics:
        if name in table.numerators:
            rows += _of_metric(table, name, arms)
    return tuple(rows)


def _of_metric(table: UnitTable, name: str, arms: Sequence[str]) -> Iterator[Distribution]:
    def stretches() -> Iterator[dict[str, Floats]]:
        for block in table.blocks([name]):
            sums = {arm: block.sums(name, arm) for arm in arms}
            yield {
                arm: top if bottom is None else top[bottom > 0] / bottom[bottom > 0]
                for arm, (top, bottom) in sums.items()
            }

    n, zeros = dict.fromkeys(arms, 0), dict.fromkeys(arms, 0)
    total, largest = dict.fromkeys(arms, 0.0), dict.fromkeys(arms, -np.inf)
    for stretch in stretches():
        for arm, values in stretch.items():
            n[arm] += len(values)
            zeros[arm] += int(np.count_nonzero(values == 0))
            total[arm] += float(values.sum())
            largest[arm] = float(values.max(initial=largest[arm]))
    sizes = {arm: n[arm] for arm in arms if n[arm]}
    ranks = {
        arm: [selection.rank(level, size) for level in QUANTILES] for arm, size in sizes.items()
    }
    found = selection.order_statistics(stretches, ranks, sizes)
    for arm, size in sizes.items():
        mean, share = total[arm] / size, zeros[arm] / size
        yield Distribution(name, arm, size, mean, share, tuple(found[arm]), largest[arm])
