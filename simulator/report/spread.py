"""How a metric is spread over the units of each arm: quantiles, mean, share of zeros. What a mean
does not show.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.report.content import Distribution
from simulator.stats.unit_table import UnitTable

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def distributions(table: UnitTable, arms: Sequence[str]) -> tuple[Distribution, ...]:
    """One row for each metric with data and arm that has units.

    A ratio metric's values are each unit's own ratio, of the units that have a denominator.
    """
    rows = []
    for name in table.metrics:
        if name not in table.numerators:
            continue
        for arm in arms:
            top, bottom = table.sums(name, arm)
            values = top if bottom is None else top[bottom > 0] / bottom[bottom > 0]
            if len(values):
                quantiles = np.quantile(values, QUANTILES, method="inverted_cdf").tolist()
                zeros = float((values == 0).mean())
                mean, largest = float(values.mean()), float(values.max())
                rows.append(
                    Distribution(name, arm, len(values), mean, zeros, tuple(quantiles), largest)
                )
    return tuple(rows)
