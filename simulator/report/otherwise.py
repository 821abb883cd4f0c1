"""The same comparison computed otherwise: other intervals, ranks, winsorised sums, quantiles,
strata, resampling.

It stands beside the verdict, to see whether that hangs on one method.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from policies.base import Progress
from simulator.report.content import Alternative
from simulator.stats import (
    contrasts,
    keyed_draws,
    quantiles,
    resampling,
    segments,
    tests,
    verdict,
)
from simulator.stats.adjustment import post_stratified, winsorised
from simulator.stats.choices import Choices
from simulator.stats.intervals import METHODS, TITLES, Side, is_proportion
from simulator.stats.keyed_draws import Resampled
from simulator.stats.moments import Floats, Moments, relative
from simulator.stats.unit_table import TableError, UnitTable

RANKED = 200_000
"""Units up to which ranks are computed: sorting a million users for every metric takes longer than
the report may.
"""

QUANTILES = {"median": 0.5, "ninth decile": 0.9}

STRATA = 50
"""Levels of a group beyond which it is not used for post-stratification."""


def compute_otherwise(
    table: UnitTable,
    rows: Sequence[verdict.Lift],
    control: str,
    treatments: tuple[str, ...],
    choices: Choices,
    progress: Progress | None = None,
) -> tuple[Alternative, ...]:
    """What every method says of each arm and metric with data, the verdict's own first.

    Args:
        table: by user.
        rows: the verdict on the table; where it is adjusted for the pre-period, the other methods
            are not.
        control: the control arm.
        treatments: the other arms.
        choices: how the verdict is computed; how much is winsorised; how often is resampled, if at
            all.
        progress: called as ("report: resampling", comparisons done, comparisons, {}) where one is
            made.
    """
    own = {(row.metric, row.arm): row for row in rows}
    cut = {
        (row.metric, row.arm): row
        for row in verdict.lifts(winsorised(table, choices.winsorise), control, rule=choices.rule)
    }
    strata = [
        name
        for name, p in segments.dependence(table).items()
        if p >= segments.DEPENDENT and _levels(table, name) > 1
    ]
    samples = contrasts.TableMoments(table, {})
    keyed: dict[tuple[str, str], Resampled] = {}
    if choices.resamples and table.n_units >= keyed_draws.KEYED:
        n, seed, level = choices.resamples, choices.seed, choices.level
        keyed = keyed_draws.resampled(
            table, control, treatments, repetitions=n, seed=seed, level=level
        )
    alternatives: list[Alternative] = []
    done, of = 0, len(treatments) * len(table.numerators)
    for arm in treatments:
        for metric in table.numerators:
            pair = _Pair(table, metric, control, arm, choices)
            alternatives.append(pair.of_row("as in the verdict", own[metric, arm]))
            alternatives += pair.intervals(samples.moments(metric, control, arm))
            if table.metrics[metric].is_figure:
                continue
            alternatives.append(pair.ranks())
            if metric not in table.denominators:
                name = f"winsorised {100 * choices.winsorise:g}%"
                alternatives.append(pair.of_row(name, cut[metric, arm]))
            alternatives += [pair.quantile(name, level) for name, level in QUANTILES.items()]
            alternatives += [pair.stratified(group) for group in strata]
            if choices.resamples:
                drawn = keyed[metric, arm] if keyed else pair.drawn()
                alternatives += pair.resampled(drawn)
                done += 1
                if progress is not None:
                    progress("report: resampling", done, of, {})
    return tuple(alternatives)


def _levels(table: UnitTable, group: str) -> int:
    return len(table.levels(group))


@dataclass(frozen=True)
class _Pair:
    """One metric of one arm against the control."""

    table: UnitTable
    metric: str
    control: str
    arm: str
    choices: Choices

    @property
    def side(self) -> Side:
        """Of which differences the verdict asks."""
        return self.choices.rule.side(self.table.metrics[self.metric])

    def by(
        self,
        method: str,
        lift: float | None = None,
        low: float | None = None,
        high: float | None = None,
        p: float | None = None,
        note: str = "",
    ) -> Alternative:
        """What a method says."""
        return Alternative(self.metric, self.arm, method, lift, low, high, p, note)

    def of_row(self, method: str, row: verdict.Lift) -> Alternative:
        return self.by(method, row.lift, row.low, row.high, row.p, row.note)

    def of_moments(self, method: str, m: Moments) -> Alternative:
        level, side = self.choices.level, self.side
        row = verdict.row(m, self.metric, self.arm, self.table.unit, "fieller", level, side)
        return self.of_row(method, row)

    def sizes(self) -> list[int]:
        """Units of both arms."""
        assigned, arms = self.table.assigned, (self.control, self.arm)
        if assigned is None:
            return [self.table.n_units] * 2
        return [int(np.count_nonzero(assigned == self.table.arm(arm))) for arm in arms]

    def alike(self) -> tuple[Floats, Floats]:
        return contrasts.alike(self.table, self.metric, self.control, self.arm)

    def values(self) -> tuple[Floats, Floats]:
        return contrasts.values(self.table, self.metric, self.control, self.arm)

    def intervals(self, m: Moments) -> Iterator[Alternative]:
        """The other intervals of the lift; the t test, and so p, is the same, but for Newcombe's,
        which is of proportions only.
        """
        for name in METHODS:
            if name == self.choices.interval or (name == "newcombe" and not is_proportion(m)):
                continue
            low, high = verdict.ends(m, name, self.choices.level, self.side)
            p = float(tests.score_test(m, self.side).p) if name == "newcombe" else None
            yield self.by(TITLES[name], float(m.lift), low, high, p)

    def ranks(self) -> Alternative:
        name = "Wilcoxon" if self.table.paired else "rank sum"
        if max(self.sizes()) > RANKED:
            return self.by(name, note=f"not made beyond {RANKED:,} users")
        base, other = self.alike()
        test = tests.wilcoxon if self.table.paired else tests.rank_sum
        return self.by(name, p=float(test(base, other).p), note=self.both_sides())

    def quantile(self, name: str, level: float) -> Alternative:
        """The lift of a quantile of users' sums, where there is one to speak of."""
        if self.metric in self.table.denominators:
            return self.by(name, note="a ratio metric has no quantiles of users")
        compared = self.table, self.metric, self.control, self.arm
        over = partial(self.table.mapped, metrics=[self.metric])
        values = contrasts.PairValues.of(*compared)
        why = quantiles.unfit_over(over, values, level, min(self.sizes()))
        if why:
            return self.by(name, note=why)
        paired = self.table.paired
        return self.of_moments(name, quantiles.moments_over(over, values, level, paired=paired))

    def stratified(self, group: str) -> Alternative:
        name = f"post-stratified by {group}"
        strata = _levels(self.table, group)
        if strata > STRATA:
            note = f"not made with more than {STRATA} strata; there are {strata:,}"
            return self.by(name, note=note)
        try:
            m = post_stratified(self.table, self.metric, self.control, self.arm, group)
        except TableError as error:
            return self.by(name, note=str(error).removeprefix("post-stratification: "))
        return self.of_moments(name, m)

    def both_sides(self) -> str:
        """A note where the verdict is one-sided, and a method beside it is not."""
        return "" if self.side == "two-sided" else "two-sided"

    def drawn(self) -> Resampled:
        """A randomisation test and a BCa interval."""
        base, other = self.values()
        paired, n, seed = self.table.paired, self.choices.resamples, self.choices.seed
        test = resampling.permutation(*self.alike(), paired=paired, repetitions=n, seed=seed)
        interval = resampling.bootstrap(
            base, other, paired=paired, repetitions=n, seed=seed, level=self.choices.level
        )
        lift = float(relative(base.mean(), other.mean())) if len(base) else math.nan
        return Resampled(float(test.p), lift, interval)

    def resampled(self, drawn: Resampled) -> Iterator[Alternative]:
        """What is drawn, in words."""
        n, also = self.choices.resamples, self.both_sides()
        beside = f", {also}" if also else ""
        yield self.by("permutation", p=drawn.p, note=f"{n:,} permutations{beside}")
        low, high = drawn.interval
        if low == high and drawn.lift != 0.0:  # each arm has one value: see `verdict.ends`
            low = high = math.nan
        yield self.by("BCa bootstrap", drawn.lift, low, high, note=f"{n:,} samples{beside}")
