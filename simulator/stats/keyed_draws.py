"""Permutations and the bootstrap of many units. What is drawn of a unit is keyed by its number, so
that each stretch of a table gives its sums under every draw where it lies, of all metrics in one
pass, and nothing depends on where stretches end.

The bootstrap draws how often a unit counts from a Poisson law of mean 1, which for many units is
the law of drawing with replacement (Hanley & MacGibbon, "Creating non-parametric bootstrap samples
using Poisson frequencies", 2006; Chamandy, Muralidharan, Najmi & Naidu, "Estimating uncertainty for
massive data streams", 2012).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from policies.streams import Purpose
from simulator.stats import moments, tests
from simulator.stats.accumulate import DRAWS, add_draws
from simulator.stats.contrasts import UnitInfluence
from simulator.stats.intervals import Interval
from simulator.stats.moments import Floats
from simulator.stats.resampling import accelerated, as_far, t_of_twins
from simulator.stats.unit_table import Array, UnitTable, as_floats

KEYED = 1 << 21
"""Units from which on draws are keyed by unit. Fewer are drawn in one go (`stats.resampling`), from
whole columns that are small.
"""

OUTCOMES = 1 << 16
"""Of the random bits of a draw."""

POISSON = (24109, 48219, 60273, 64292, 65296, 65497, 65531, 65535)
"""The chances that a Poisson number of mean 1 is at most 0, 1, ..., 7, in 1 / OUTCOMES."""

Columns = Callable[[UnitTable], "Drawable"]


class Drawable(NamedTuple):
    """What is summed of a stretch.

    Attributes:
        values: columns `[units]`.
        drawn: so many columns, the first ones, are summed under the draws, too.
        group: `[units]` of 0..groups-1, or -1 for a unit that is left out; None: all are in 0.
        groups: how many.
    """

    values: Sequence[Array]
    drawn: int
    group: Array | None = None
    groups: int = 1


class Resampled(NamedTuple):
    """What resampling says of a comparison.

    Attributes:
        p: of the randomisation test.
        lift: the relative lift.
        interval: of the lift, BCa.
    """

    p: float
    lift: float
    interval: Interval


@dataclass(frozen=True)
class KeyedDraws:
    """Draws of units.

    Attributes:
        seed: of them.
        repetitions: how many.
        lane: draws of another lane are independent.
        limits: of 16 random bits, by which a unit is counted (`accumulate.add_draws`).
    """

    seed: int
    repetitions: int
    lane: int
    limits: tuple[int, ...]

    def sums(self, table: UnitTable, columns: Columns) -> tuple[Floats, Floats]:
        """The number of units and the sums of columns, `[groups, 1 + columns]`, and under every
        draw, `[groups, 1 + drawn, R]`.
        """
        found = table.numbered(partial(_drawn_sums, self, columns))
        whole, drawn = next(found)
        for own, own_drawn in found:
            whole, drawn = whole + own, drawn + own_drawn
        blocks, groups, k, _ = drawn.shape
        by_draw = drawn.transpose(1, 2, 0, 3).reshape(groups, k, blocks * DRAWS)
        return whole, by_draw[:, :, : self.repetitions]


def _drawn_sums(
    draws: KeyedDraws, columns: Columns, stretch: tuple[int, UnitTable]
) -> tuple[Floats, Floats]:
    first, table = stretch
    values, n_drawn, group, groups = columns(table)
    matrix = np.column_stack([np.ones(table.n_units), *values])
    own = np.zeros(table.n_units, dtype=np.int64) if group is None else group.astype(np.int64)
    whole = np.stack([matrix[own == g].sum(axis=0) for g in range(groups)])
    drawn = np.zeros((-(-draws.repetitions // DRAWS), groups, 1 + n_drawn, DRAWS))
    seed, limits = np.uint64(draws.seed), np.array(draws.limits, dtype=np.int32)
    add_draws(matrix, own, first, seed, int(Purpose.RESAMPLE), draws.lane, limits, drawn)
    return whole, drawn


def resampled(
    table: UnitTable,
    control: str,
    treatments: Sequence[str],
    *,
    repetitions: int,
    seed: int,
    level: float = 0.95,
) -> dict[tuple[str, str], Resampled]:
    """A randomisation test and a BCa interval of each metric in each arm, as those of
    `stats.resampling`.

    Args:
        table: of many units.
        control: the control arm.
        treatments: the other arms.
        repetitions, seed: of the draws.
        level: of the intervals.
    """
    metrics = [name for name in table.numerators if not table.metrics[name].is_figure]
    means = _Means.of(table, metrics, KeyedDraws(seed, repetitions, 0, POISSON))
    influences = {
        (metric, arm): UnitInfluence(
            metric, {name: means.totals(metric, name) for name in (control, arm)}
        )
        for arm in treatments
        for metric in metrics
    }
    slopes = {key: means.slope(key[0], control, key[1]) for key in influences}
    powers: dict[tuple[str, str], tuple[float, float]] = dict.fromkeys(influences, (0.0, 0.0))
    for found in table.mapped(partial(_powers, influences, slopes), metrics):
        for key, (squares, cubes) in found.items():
            powers[key] = powers[key][0] + squares, powers[key][1] + cubes
    rows = {}
    for arm in treatments:
        p = _permutations(table, means, (control, arm), repetitions, seed)
        for metric in metrics:
            (c, drawn_c), (t, drawn_t) = (means.values(metric, name) for name in (control, arm))
            lift, interval = float(moments.relative(c, t)), Interval(np.nan, np.nan)
            if np.isfinite(lift) and powers[metric, arm][0] > 0:
                lifts = moments.relative(drawn_c, drawn_t)
                interval = accelerated(lift, lifts, powers[metric, arm], level)
            rows[metric, arm] = Resampled(p[metric], lift, interval)
    return rows


@dataclass(frozen=True)
class _Means:
    """The means of all arms, as they are and under draws.

    Attributes:
        arms: names.
        place: by metric, which variables are its numerator and its denominator (None: a mean).
        n: `[arms]` units.
        whole: `[arms, variables]`.
        drawn: `[arms, variables, R]`.
    """

    arms: tuple[str, ...]
    place: Mapping[str, tuple[int, int | None]]
    n: Floats
    whole: Floats
    drawn: Floats

    @classmethod
    def of(cls, table: UnitTable, metrics: Sequence[str], draws: KeyedDraws) -> _Means:
        place: dict[str, tuple[int, int | None]] = {}
        k = 0
        for name in metrics:
            is_ratio = name in table.denominators
            place[name] = (k, k + 1 if is_ratio else None)
            k += 1 + is_ratio
        sums, drawn = draws.sums(table, partial(_by_arm, metrics))
        with np.errstate(divide="ignore", invalid="ignore"):
            whole, each = sums[:, 1:] / sums[:, :1], drawn[:, 1:] / drawn[:, :1]
        shape = len(table.arms), k
        n = np.broadcast_to(sums[:, 0], shape[:1])
        return cls(table.arms, place, n, whole.reshape(shape), each.reshape(*shape, -1))

    def values(self, metric: str, arm: str) -> tuple[float, Floats]:
        """The mean or ratio of an arm, and `[R]` of its draws, a ratio linearised."""
        a, (top, bottom) = self.arms.index(arm), self.place[metric]
        whole, drawn = self.whole[a], self.drawn[a]
        if bottom is None:
            return float(whole[top]), drawn[top]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = whole[top] / whole[bottom]
            return float(ratio), ratio + (drawn[top] - ratio * drawn[bottom]) / whole[bottom]

    def totals(self, metric: str, arm: str) -> tuple[int, float, float]:
        """Units and the sums of their numerators and denominators (`contrasts.Totals`)."""
        a, (top, bottom) = self.arms.index(arm), self.place[metric]
        n = float(self.n[a])
        below = 0.0 if bottom is None else n * float(self.whole[a, bottom])
        return int(n), n * float(self.whole[a, top]), below

    def slope(self, metric: str, control: str, arm: str) -> float:
        """How much a lift falls with the control's mean, where it rises by 1 with the arm's."""
        (c, _), (t, _) = self.values(metric, control), self.values(metric, arm)
        return t / c if c else 0.0

    def shared(self, metric: str, arms: Sequence[str]) -> tuple[float, float]:
        """Of two arms together, the ratio by which a ratio metric is linearised
        (`moments.linearised_alike`; 0 of a mean), and the mean of these values.
        """
        n, top, bottom = map(sum, zip(*(self.totals(metric, arm) for arm in arms), strict=True))
        if self.place[metric][1] is None:
            return 0.0, top / n
        return (top / bottom, 0.0) if bottom else (np.nan, 0.0)


def _by_arm(metrics: Sequence[str], table: UnitTable) -> Drawable:
    """The variables of all arms."""
    halves = [(table.numerators[name], table.denominators.get(name)) for name in metrics]
    columns = [half for both in halves for half in both if half is not None]
    if not table.paired:
        return Drawable(columns, len(columns), table.assigned, len(table.arms))
    values = [column[arm] for arm in range(len(table.arms)) for column in columns]
    return Drawable(values, len(values))


def _powers(
    influences: Mapping[tuple[str, str], UnitInfluence],
    slopes: Mapping[tuple[str, str], float],
    table: UnitTable,
) -> dict[tuple[str, str], tuple[float, float]]:
    """Of each comparison, the sums of the squares and of the cubes of what units move its lift."""
    found = {}
    for key, influence in influences.items():
        base, other = influence.of_arms(table)
        base = slopes[key] * base
        moved = other - base if table.paired else np.concatenate((-base, other))
        squares = np.square(moved)
        found[key] = float(squares.sum()), float((squares * moved).sum())
    return found


def _permutations(
    table: UnitTable, means: _Means, arms: tuple[str, str], repetitions: int, seed: int
) -> dict[str, float]:
    """By metric, the p of a randomisation test of two arms with the t statistic
    (`resampling.permutation`).
    """
    shared = {name: means.shared(name, arms) for name in means.place}
    n = [means.totals(name, arm)[0] for name in list(shared)[:1] for arm in arms]
    share = 0.5 if table.paired else n[1] / sum(n)
    coins = KeyedDraws(seed, repetitions, 1, (round(OUTCOMES * (1.0 - share)),))
    whole, heads = coins.sums(table, partial(_alike, shared, arms))
    k, found = len(shared), {}
    for i, name in enumerate(shared, start=1):
        squares = float(whole[:, k + i].sum())
        if table.paired:
            units, total = int(whole[0, 0]), whole[:, i]
            spread = squares / units - np.square(total / units)
            observed = t_of_twins(total, squares, units) if spread > 1e-12 * squares else [np.nan]
            t = t_of_twins(total - 2.0 * heads[0, i], squares, units)
        else:
            both = (whole[1, [0, i, k + i]][:, None], heads.sum(axis=0)[[0, i, k + i]])
            observed, t = (_t_of_split(own, sum(n), squares) for own in both)
        p = (1.0 + as_far(t, observed[0])) / (1.0 + repetitions)
        found[name] = np.nan if np.isnan(observed[0]) else p
    return found


def _t_of_split(heads: Floats, units: int, squares: float) -> Floats:
    """Welch's t `[R]` where the heads, of whom there are so many with such sums and sums of
    squares `[3, R]`, are the treatment's.
    """
    m, sums, own_squares = heads
    both = np.stack((sums, own_squares, sums, own_squares), axis=1)
    return np.asarray(
        tests.t_test(moments.split_by_sums((0.0, 0.0), units, squares, m, both)).statistic
    )


def _alike(
    shared: Mapping[str, tuple[float, float]], arms: tuple[str, str], table: UnitTable
) -> Drawable:
    """Values that have one distribution where the arms do not differ (`contrasts.alike`), and their
    squares: of twins their differences, of others less the mean of both arms.
    """
    control, treatment = map(table.arm, arms)
    columns = []
    for name, (ratio, mean) in shared.items():
        values, bottom = as_floats(table.numerators[name]), table.denominators.get(name)
        if table.paired:
            values = values[treatment] - values[control]
            bottom = None if bottom is None else as_floats(bottom)[treatment] - bottom[control]
        else:
            values = values - mean
        columns.append(values if bottom is None else values - ratio * bottom)
    squares = [np.square(values) for values in columns]
    if table.assigned is None:
        return Drawable([*columns, *squares], len(columns))
    place = np.full(len(table.arms) + 1, -1)  # the last one: who is in no arm
    place[[control, treatment]] = 0, 1
    return Drawable([*columns, *squares], 2 * len(columns), place[table.assigned], 2)
