"""Re-randomising all users of a big run: each stretch of them says its sums under every draw where
it lies, and nothing else is needed of it.

A draw gives each user two counts, heads and tails, from independent Poisson laws of mean 1/2, which
for many users is the law of as many of them drawn with replacement, with a coin for each
(`randomise.draws`; Chamandy, Muralidharan, Najmi & Naidu, "Estimating uncertainty for massive data
streams", 2012). Draws are keyed by the number of a user, so that they do not depend on stretches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, Literal

import numpy as np

from policies.base import Progress
from policies.streams import Purpose
from simulator.stats import moments
from simulator.stats.accumulate import DRAWS, add_draws
from simulator.stats.moments import Floats, Sample
from simulator.stats.randomise import Pair
from simulator.stats.unit_table import Array, UnitTable, as_floats

HALF = (39750, 59624, 64593, 65421, 65525, 65535)
"""The chances that a Poisson number of mean 1/2 is at most 0, 1, ..., 5, in 1 / OUTCOMES."""

LANES = {"heads": 2, "tails": 3}
"""Of the draws; permutations and the bootstrap of a report have others."""

SLICE = 1 << 11
"""Users whose sums and products lie in the cache while all draws go by."""

How = Literal["twins", "halves", "adjusted"]
"""How moments follow from sums: of twins; of users in one arm each; of these, adjusted for their
past.
"""

Variable = tuple[str, str, int]
"""A half of a metric (or `covariates`), its name, and an arm (-1: of no arm)."""


@dataclass(frozen=True)
class DrawnSums:
    """Sums of some variables under every draw, values less their shift.

    Attributes:
        n: `[R]` users, each as often as it is drawn.
        shift: `[p]`.
        total: `[R, p]`.
        gram: `[R, p, p]` sums of products.
    """

    n: Floats
    shift: Floats
    total: Floats
    gram: Floats

    def pick(self, columns: Sequence[int]) -> DrawnSums:
        """Those of some variables, in the order given."""
        at = np.asarray(columns)
        gram = self.gram[:, at[:, None], at]
        return DrawnSums(self.n, self.shift[at], self.total[:, at], gram)

    def with_others(self, others: DrawnSums) -> DrawnSums:
        """Those of both; variables have the same shifts."""
        total, gram = self.total + others.total, self.gram + others.gram
        return DrawnSums(self.n + others.n, self.shift, total, gram)

    def sample(self) -> Sample:
        """Means and covariances of each draw."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self.shift + self.total / self.n[:, None]
            return Sample(self.n, mean, moments.covariances(self.n, self.total, self.gram))


@dataclass(frozen=True)
class Rerandomised:
    """One comparison in all draws.

    Attributes:
        metric, arm: what is compared with the control.
        lift: the true one, of all users.
        events: the share of users who have something of it under the control.
        is_ratio: whether it has a denominator.
        has_past: whether users' past differs.
        heads, tails: of the control's numerator (and denominator), the treatment's, and the past
            where it differs.
    """

    metric: str
    arm: str
    lift: float
    events: float
    is_ratio: bool
    has_past: bool
    heads: DrawnSums
    tails: DrawnSums

    def pair(self, how: How) -> Pair:
        """The moments of all draws, as `randomise.paired_pair` and `randomise.split_pair`."""
        k = 2 if self.is_ratio else 1
        bottom = 1 if self.is_ratio else None
        control, treatment = list(range(k)), list(range(k, 2 * k))
        if how == "twins":
            both, exchanged = control + treatment, treatment + control
            own = self.heads.pick(both)
            at = ((0, bottom), (k, None if bottom is None else k + 1))
            null, effect = (
                moments.paired_moments(own.with_others(self.tails.pick(order)).sample(), *at)
                for order in (exchanged, both)
            )
            return null, effect
        past = [2 * k] if how == "adjusted" else []
        covariates = range(k, k + len(past))
        heads = self.heads.pick(control + past).sample()
        null, effect = (
            moments.split_moments(
                heads, self.tails.pick(arm + past).sample(), 0, bottom, covariates
            )
            for arm in (control, treatment)
        )
        return null, effect


def rerandomised(
    table: UnitTable,
    control: str,
    treatments: Sequence[str],
    metrics: Sequence[str],
    *,
    repetitions: int,
    seed: int,
    progress: Progress | None = None,
) -> Iterator[Rerandomised]:
    """Each comparison with the control in every draw.

    Args:
        table: paired, by user; in two passes, the first of which says about what sums are taken.
        control: the control arm.
        treatments: the other arms.
        metrics: those that are means or ratios and have data.
        repetitions, seed: of the draws.
        progress: called as ("audit of all", users done, users, {}).
    """
    plan = _Plan.of(table, control, treatments, metrics)
    whole = _Extent.of(table, plan.variables)
    # Counts are summed as they are, exactly and without those that are 0; others about the
    # control's mean, so that nothing cancels.
    shift = np.where(whole.is_whole, 0.0, whole.total / max(whole.n, 1))[plan.base]
    drawn: dict[str, Floats] = {}
    done = 0
    for n, found in table.numbered(partial(_drawn, plan, shift, repetitions, seed)):
        drawn = {side: drawn.get(side, 0.0) + own for side, own in found.items()}
        done += n
        if progress is not None:
            progress("audit of all", done, whole.n, {})
    for (metric, arm), own in plan.comparisons.items():
        is_ratio = metric in table.denominators
        k = 2 if is_ratio else 1
        has_past = len(own) > 2 * k and bool(whole.low[own[-1]] < whole.high[own[-1]])
        at = list(own) if has_past else list(own[: 2 * k])
        means = whole.total[at] / whole.n
        below = (means[1], means[k + 1]) if is_ratio else (1.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            lift = moments.relative(means[0] / below[0], means[k] / below[1])
        sides = (plan.sums_of(drawn[side], at, shift[at], repetitions) for side in LANES)
        events = float(whole.events[at[0]]) / whole.n
        yield Rerandomised(metric, arm, float(lift), events, is_ratio, has_past, *sides)


@dataclass(frozen=True)
class _Plan:
    """What is summed.

    Attributes:
        variables: each once, however many metrics have it.
        base: `[variables]` of each, the same one of the control.
        products: pairs of variables.
        comparisons: by metric and arm, its variables.
    """

    variables: tuple[Variable, ...]
    base: Array
    products: Mapping[tuple[int, int], int]
    comparisons: Mapping[tuple[str, str], tuple[int, ...]]

    @classmethod
    def of(
        cls, table: UnitTable, control: str, treatments: Sequence[str], metrics: Sequence[str]
    ) -> _Plan:
        places: dict[tuple[str, float, int], int] = {}
        variables: list[Variable] = []
        base: list[int] = []

        def place(key: tuple[str, float], variable: Variable, own: int | None = None) -> int:
            full = (*key, variable[2])
            if full not in places:
                places[full] = len(variables)
                base.append(len(variables) if own is None else own)
                variables.append(variable)
            return places[full]

        comparisons = {}
        first = table.arm(control)
        for metric in metrics:
            one = table.metrics[metric]
            if one.denominator is None:
                # What is cut is a variable of its own.
                halves = [("numerators", (one.numerator.name, one.winsorise))]
            else:
                terms = ("numerators", one.numerator), ("denominators", one.denominator)
                halves = [(half, (term.name, 0.0)) for half, term in terms]
            own = [place(key, (half, metric, first)) for half, key in halves]
            for name in treatments:
                arm = table.arm(name)
                others = [
                    place(key, (half, metric, arm), at)
                    for (half, key), at in zip(halves, own, strict=True)
                ]
                some = [*own, *others]
                if metric in table.covariates:
                    past = f"{metric} before", 0.0
                    some.append(place(past, ("covariates", metric, -1)))
                comparisons[metric, name] = tuple(some)
        pairs = {
            (min(pair), max(pair)): None
            for own in comparisons.values()
            for pair in combinations_with_replacement(own, 2)
        }
        products = {pair: i for i, pair in enumerate(pairs)}
        return cls(tuple(variables), np.array(base), products, comparisons)

    def columns(self, table: UnitTable) -> list[Array]:
        """The variables of a stretch."""
        return [_column(table, variable) for variable in self.variables]

    def sums_of(
        self, drawn: Floats, at: Sequence[int], shift: Floats, repetitions: int
    ) -> DrawnSums:
        """Those of some variables, from the sums `[blocks, 1 + variables + products, DRAWS]`."""
        by_draw = drawn.transpose(0, 2, 1).reshape(-1, drawn.shape[1])[:repetitions]
        first = 1 + len(self.variables)
        places = [[first + self.products[min(i, j), max(i, j)] for j in at] for i in at]
        total = by_draw[:, [1 + i for i in at]]
        return DrawnSums(by_draw[:, 0], shift, total, by_draw[:, np.array(places)])


@dataclass(frozen=True)
class _Extent:
    """What all users have of each variable.

    Attributes:
        n: users.
        total: `[variables]`, as the others: sums.
        events: how many have something.
        low, high: the least and the largest value.
        is_whole: whether all are whole numbers.
    """

    n: int
    total: Floats
    events: Array
    low: Floats
    high: Floats
    is_whole: Array

    @classmethod
    def of(cls, table: UnitTable, variables: Sequence[Variable]) -> _Extent:
        found = list(table.mapped(partial(_extent, tuple(variables))))
        sizes, totals, events, low, high, whole = map(list, zip(*found, strict=True))
        return cls(
            sum(sizes),
            np.sum(totals, axis=0),
            np.sum(events, axis=0),
            np.min(low, axis=0),
            np.max(high, axis=0),
            np.all(whole, axis=0),
        )


def _extent(variables: Sequence[Variable], table: UnitTable) -> tuple[Any, ...]:
    columns = [as_floats(_column(table, variable)) for variable in variables]
    return (
        table.n_units,
        np.array([column.sum() for column in columns]),
        np.array([np.count_nonzero(column) for column in columns]),
        np.array([column.min(initial=np.inf) for column in columns]),
        np.array([column.max(initial=-np.inf) for column in columns]),
        np.array([(column == np.rint(column)).all() for column in columns]),
    )


def _column(table: UnitTable, variable: Variable) -> Array:
    half, name, arm = variable
    columns: Mapping[str, Array] = getattr(table, half)
    return columns[name] if arm < 0 else columns[name][arm]


def _drawn(
    plan: _Plan,
    shift: Floats,
    repetitions: int,
    seed: int,
    stretch: tuple[int, UnitTable],
) -> tuple[int, dict[str, Floats]]:
    """How many users a stretch has, and by side their sums `[blocks, 1 + variables + products,
    DRAWS]`.
    """
    first, table = stretch
    columns = plan.columns(table)
    k = len(columns)
    width, blocks = 1 + k + len(plan.products), -(-repetitions // DRAWS)
    sums = {side: np.zeros((blocks, 1, width, DRAWS)) for side in LANES}
    limits, key = np.array(HALF, dtype=np.int32), np.uint64(seed)
    for start in range(0, table.n_units, SLICE):
        n = min(SLICE, table.n_units - start)
        values = np.ones((n, width))
        for i, column in enumerate(columns):
            values[:, 1 + i] = column[start : start + n]
            values[:, 1 + i] -= shift[i]
        for (i, j), place in plan.products.items():
            values[:, 1 + k + place] = values[:, 1 + i] * values[:, 1 + j]
        everybody = np.zeros(n, dtype=np.int64)
        for side, lane in LANES.items():
            add_draws(
                values,
                everybody,
                first + start,
                key,
                int(Purpose.RESAMPLE),
                lane,
                limits,
                sums[side],
            )
    return table.n_units, {side: own[:, 0] for side, own in sums.items()}
