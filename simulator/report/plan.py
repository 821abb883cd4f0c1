"""What another test would show: users needed for a lift, and how designs compare, from the spread
that this run has measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from simulator.report.content import DesignNeed, Need, Users
from simulator.stats.efficiency import (
    Preference,
    Sensitivity,
    interleaved_sensitivity,
    preference,
    sensitivity,
)
from simulator.stats.power import PowerError, pilot, users_needed
from simulator.stats.unit_table import UnitTable
from simulator.stats.user_days import UserDays

PILOTS = 5_000
"""Users, the first ones, whose twins are re-assigned to compare designs."""

ROUND = 0.01
"""The lift that every metric's need is given for, beside the published one."""


def needs(
    table: UnitTable,
    control: str,
    treatments: tuple[str, ...],
    published: Mapping[str, float],
    levels: Mapping[str, float],
) -> tuple[Need, ...]:
    """Users that each design needs to find a lift four times in five, at the level of the
    verdict's own rule.

    Designs: `paired` (twins count once), `split`, and `cuped` (split, adjusted for the pre-period).
    A metric that does not vary has no row.
    """
    rows = []
    for arm in treatments:
        for metric in table.numerators:
            try:
                spread = pilot(table, metric, control, arm)
            except PowerError:
                continue
            lifts = {ROUND: False} | ({published[metric]: True} if published.get(metric) else {})
            for lift, is_published in lifts.items():
                users: Users = {
                    design: whole_users(users_needed(spread, lift, design, level=levels[metric]))
                    for design in spread.designs
                }
                rows.append(Need(metric, arm, lift, is_published, users))
    return tuple(rows)


def whole_users(users: float) -> int | None:
    """Whole users; None beyond any number of them."""
    return int(users) if math.isfinite(users) else None


def compared_designs(
    days: UserDays, control: str, treatments: tuple[str, ...], levels: Mapping[str, float]
) -> tuple[DesignNeed, ...]:
    """How many users each design would need, with power .8, to find the lift that a paired log has
    found in its first PILOTS users.
    """
    k = min(days.n_users, PILOTS)
    few = days.users(np.arange(k))
    rows = []
    for arm in treatments:
        for metric in few.metrics:
            if metric in few.missing or few.metrics[metric].is_figure:
                continue
            try:
                designs = sensitivity(few, metric, control, arm, level=levels[metric])
            except PowerError:
                continue
            rows.append(_need(designs))
    return tuple(rows)


def interleaved_designs(
    days: UserDays, control: str, treatments: tuple[str, ...], levels: Mapping[str, float]
) -> tuple[DesignNeed, ...]:
    """The same of an interleaved log, with the one design; `lift` is the relative difference of
    credits.
    """
    rows = []
    for arm in treatments:
        for metric, kind in days.metrics.items():
            is_mean = kind.denominator is None and not kind.is_figure
            if metric not in days.missing and is_mean:
                rows.append(
                    _need([interleaved_sensitivity(days, metric, control, arm, levels[metric])])
                )
    return tuple(rows)


def _need(designs: Sequence[Sensitivity]) -> DesignNeed:
    """The row of one metric of one arm, from what each design would need."""
    first = designs[0]
    users: Users = {one.design: whole_users(one.users_needed) for one in designs}
    notes = {one.design: one.note for one in designs if one.note}
    return DesignNeed(first.metric, first.arm, first.effect, users, notes)


def preferences(
    table: UnitTable, control: str, treatments: tuple[str, ...]
) -> tuple[Preference, ...]:
    """The preference tests of interleaved slates; only of metrics that are credited to an item."""
    return tuple(
        preference(table, metric, control, arm)
        for arm in treatments
        for metric in table.numerators
        if metric not in table.denominators and metric != "sessions"
    )
