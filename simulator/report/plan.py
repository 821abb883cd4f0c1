"""What a test of another size would show: users needed for a lift, by design, from the spread that this run has measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from simulator.stats.power import PowerError, pilot, users_needed
from simulator.stats.units import UnitTable

ROUND = 0.01
"""The lift that every metric's need is given for, beside the published one."""


def needs(table: UnitTable, control: str, treatments: tuple[str, ...], published: Mapping[str, float]) -> list[dict[str, Any]]:
    """Users that each design needs to find a lift four times in five.

    Returns:
        Rows with `metric`, `arm`, `lift`, `published` (whether it is the published lift) and `users` by design (`paired`: twins count once;
        `split`; `cuped`: split, adjusted for the pre-period); None beyond any number of users. A metric that does not vary has no row.
    """
    rows = []
    for arm in treatments:
        for metric in table.numerators:
            try:
                known = pilot(table, metric, control, arm)
            except PowerError:
                continue
            lifts = {ROUND: False} | ({published[metric]: True} if published.get(metric) else {})
            for lift, is_published in lifts.items():
                users = {name: users_needed(known, lift, name) for name in known.designs}
                finite = {name: int(n) if math.isfinite(n) else None for name, n in users.items()}
                rows.append({"metric": metric, "arm": arm, "lift": lift, "published": is_published, "users": finite})
    return rows
