"""What another test would show: users needed for a lift, and how designs compare, from the spread
that this run has measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from simulator.report import finite
from simulator.stats.efficiency import interleaved_sensitivity, preference, sensitivity
from simulator.stats.power import PowerError, pilot, users_needed
from simulator.stats.units import UnitTable, UserDays

PILOTS = 5_000
"""Users, the first ones, whose twins are re-assigned to compare designs."""

ROUND = 0.01
"""The lift that every metric's need is given for, beside the published one."""


def needs(
    table: UnitTable,
    control: str,
    treatments: tuple[str, ...],
    published: Mapping[str, float],
    level: float,
) -> list[dict[str, Any]]:
    """Users that each design needs to find a lift four times in five, at the `level` of the
    verdict's own rule.

    Returns:
        Rows with `metric`, `arm`, `lift`, `published` (whether it is the published lift) and
        `users` by design (`paired`: twins count once; `split`; `cuped`: split, adjusted for the
        pre-period); None beyond any number of users. A metric that does not vary has no row.
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
                users = {
                    name: users_needed(known, lift, name, level=level) for name in known.designs
                }
                finite = {name: int(n) if math.isfinite(n) else None for name, n in users.items()}
                rows.append(
                    {
                        "metric": metric,
                        "arm": arm,
                        "lift": lift,
                        "published": is_published,
                        "users": finite,
                    }
                )
    return rows


def compared_designs(
    days: UserDays, control: str, treatments: tuple[str, ...], level: float
) -> list[dict[str, Any]]:
    """How many users each design would need, with power .8, to find the lift that a paired log has
    found in its first PILOTS users.

    Returns:
        Rows with `metric`, `arm`, `lift`, `users` by design (None: no number of users), and `notes`
        by design.
    """
    k = min(days.n_users, PILOTS)
    few = days.users(np.arange(k))
    rows = []
    for arm in treatments:
        for metric in few.metrics:
            if metric in few.missing:
                continue
            try:
                found = sensitivity(few, metric, control, arm, level=level)
            except PowerError:
                continue
            users = {
                one.design: int(one.users_needed) if math.isfinite(one.users_needed) else None
                for one in found
            }
            notes = {one.design: one.note for one in found if one.note}
            rows.append(
                {
                    "metric": metric,
                    "arm": arm,
                    "lift": found[0].effect,
                    "users": users,
                    "notes": notes,
                }
            )
    return rows


def interleaved_designs(
    days: UserDays, control: str, treatments: tuple[str, ...], level: float
) -> list[dict[str, Any]]:
    """The same of an interleaved log: rows as `compared_designs`, with the one design; `lift` is
    the relative difference of credits.
    """
    rows = []
    for arm in treatments:
        for metric, kind in days.metrics.items():
            if metric not in days.missing and kind.denominator is None:
                found = interleaved_sensitivity(days, metric, control, arm, level)
                users = {
                    found.design: (
                        int(found.users_needed) if math.isfinite(found.users_needed) else None
                    )
                }
                row = {
                    "metric": metric,
                    "arm": arm,
                    "lift": found.effect,
                    "users": users,
                    "notes": {found.design: found.note},
                }
                rows.append(row if math.isfinite(found.effect) else {**row, "lift": None})
    return rows


def preferences(
    table: UnitTable, control: str, treatments: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The preference tests of interleaved slates, as `stats.designs.Preference` has them; only
    metrics that are credited to an item.
    """
    rows = []
    for arm in treatments:
        for metric in table.numerators:
            if metric not in table.denominators and metric != "sessions":
                found = preference(table, metric, control, arm)
                rows.append(
                    {
                        **finite(dataclasses.asdict(found)),
                        "wins": finite(dataclasses.asdict(found.wins)),
                    }
                )
    return rows
