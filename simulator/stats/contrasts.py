"""Comparing two arms of a table: from its columns to moments, and to the per-unit values that ranks
and resampling need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from simulator.log.metrics import Metric
from simulator.stats import moments, quantiles, quantities
from simulator.stats.moments import Floats, Moments, Sample, Sampler
from simulator.stats.quantities import ArmFigure
from simulator.stats.replication import Replicated
from simulator.stats.unit_table import Array, TableError, Unit, UnitTable, mapped_together


class Further(Protocol):
    """Comparisons of the same arms by units of another kind (`stats.supply`). Those whose metrics
    have a role join the families of the users' metrics: a decision rests on both.
    """

    @property
    def metrics(self) -> Mapping[str, Metric]: ...
    @property
    def unit(self) -> Unit:
        """What is drawn."""

    def moments(self, metric: str, control: str, arm: str) -> Moments | None:
        """A comparison on the models; None without data."""

    def replicated(self, metric: str, control: str, arm: str) -> Replicated | None:
        """The same on the methods, too."""

    def correlations(self, comparisons: Sequence[tuple[str, str, str]]) -> Floats:
        """How the estimates of comparisons (metric, control, arm) go together, `[k, k]`."""


def compare(
    table: UnitTable, metric: str, control: str, treatment: str, covariates: Sequence[str] = ()
) -> Moments:
    """The moments of one comparison, paired or split as the table is."""
    return TableMoments(table, {metric: covariates}).moments(metric, control, treatment)


def values(table: UnitTable, metric: str, control: str, treatment: str) -> tuple[Floats, Floats]:
    """Per-unit values of both arms whose means are compared: sums, or ratios linearised by each
    arm's own (for the bootstrap, plans).
    """
    (top_c, bottom_c), (top_t, bottom_t) = (
        table.sums(metric, control),
        table.sums(metric, treatment),
    )
    if bottom_c is None or bottom_t is None:
        return top_c, top_t
    return moments.linearised(top_c, bottom_c), moments.linearised(top_t, bottom_t)


Totals = tuple[int, float, float]
"""Units of an arm, and the sums of their numerators and denominators (0 for a mean)."""


@dataclass(frozen=True)
class PairValues:
    """The same values of the units of a stretch of a table.

    Attributes:
        metric: by name.
        arms: the two.
        means: of a ratio metric, by arm, of all units' numerators and denominators.
    """

    metric: str
    arms: tuple[str, str]
    means: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, table: UnitTable, metric: str, control: str, treatment: str) -> PairValues:
        """Those of a table."""
        arms = (control, treatment)
        if metric not in table.denominators:
            return cls(metric, arms, ())
        (totals,) = _totals([table], metric, arms)
        means = ((above / max(n, 1), below / max(n, 1)) for n, above, below in totals.values())
        return cls(metric, arms, tuple(means))

    def __call__(self, stretch: UnitTable) -> tuple[Floats, Floats]:
        base, other = (self._of_arm(stretch, side) for side in (0, 1))
        return base, other

    def _of_arm(self, stretch: UnitTable, side: int) -> Floats:
        top, bottom = stretch.sums(self.metric, self.arms[side])
        return top if bottom is None else moments.linearised_by(top, bottom, *self.means[side])


def alike(table: UnitTable, metric: str, control: str, treatment: str) -> tuple[Floats, Floats]:
    """Per-unit values of both arms that have one distribution where the arms do not differ: for
    ranks and permutations.

    Sums; of a ratio metric N - R D with the one ratio R of both arms together
    (`moments.linearised_alike`).
    """
    (top_c, bottom_c), (top_t, bottom_t) = (
        table.sums(metric, control),
        table.sums(metric, treatment),
    )
    if bottom_c is None or bottom_t is None:
        return top_c, top_t
    return moments.linearised_alike((top_c, bottom_c), (top_t, bottom_t))


def influences(table: UnitTable, metric: str, control: str, treatment: str) -> Floats:
    """The influences of all units (`UnitInfluence`), one after another; of a figure that is no
    mean, what its units or groups of them move.
    """
    if table.metrics[metric].is_figure:
        base, other = (estimate(table, metric, arm).influence for arm in (control, treatment))
        return other - base if table.paired else np.concatenate((-base, other))
    (influence,) = UnitInfluence.of([table], metric, control, treatment)
    return np.concatenate(list(table.mapped(influence, [metric])))


@dataclass(frozen=True)
class UnitInfluence:
    """How much each unit of both arms moves the difference of their means or ratios, to first
    order: their squares add up to its variance.

    (N_i - R D_i) / sum D, D_i = 1 for a mean (the gradient of `moments.ratio`): of twins the
    difference `[n]`, else both arms' units, the control's with a minus. Units of the same arms in
    the same order give comparable vectors at every look.

    Attributes:
        metric: by name.
        totals: by arm, units and their sums (`_totals`); of the control first.
    """

    metric: str
    totals: Mapping[str, Totals]

    @classmethod
    def of(
        cls, tables: Sequence[UnitTable], metric: str, control: str, treatment: str
    ) -> list[UnitInfluence]:
        """Those of each of some tables of the same units."""
        return [cls(metric, totals) for totals in _totals(tables, metric, (control, treatment))]

    def __call__(self, stretch: UnitTable) -> Floats:
        base, other = self.of_arms(stretch)
        return other - base if stretch.paired else np.concatenate((-base, other))

    def of_arms(self, stretch: UnitTable) -> tuple[Floats, Floats]:
        """How much each unit of either arm moves that arm's own mean or ratio."""
        base, other = (
            _influence(*stretch.sums(self.metric, arm), totals)
            for arm, totals in self.totals.items()
        )
        return base, other


def estimate(table: UnitTable, metric: str, arm: str) -> ArmFigure:
    """A figure of one arm that is no mean: a quantile, or a quantity of choice."""
    one, details = table.metrics[metric], table.details_of(metric)
    if one.quantity is not None:
        return quantities.estimated(details, table.arm(arm), one.quantity)
    assert one.quantile is not None
    (values,), units = details.of_arm(table.arm(arm))
    return quantiles.estimated(values, one.quantile, units)


def _totals(
    tables: Sequence[UnitTable], metric: str, arms: Sequence[str]
) -> list[dict[str, Totals]]:
    """By table and arm, what all stretches have together."""
    found = list(mapped_together(tables, partial(_totals_of, metric, arms), [metric]))
    return [
        {arm: _added(totals[arm] for totals in of_table) for arm in arms}
        for of_table in zip(*found, strict=True)
    ]


def _totals_of(
    metric: str, arms: Sequence[str], tables: Sequence[UnitTable]
) -> list[dict[str, Totals]]:
    return [{arm: _totals_in(*table.sums(metric, arm)) for arm in arms} for table in tables]


def _totals_in(top: Floats, bottom: Floats | None) -> Totals:
    return len(top), float(top.sum()), 0.0 if bottom is None else float(bottom.sum())


def _added(totals: Iterable[Totals]) -> Totals:
    n, above, below = (sum(one) for one in zip(*totals, strict=True))
    return int(n), float(above), float(below)


def _influence(top: Floats, bottom: Floats | None, totals: Totals) -> Floats:
    n, above, below = totals
    if bottom is None:
        return np.asarray((top - above / n) / n) if n else top
    return (top - above / below * bottom) / below if below != 0 else np.zeros(len(top))


def scaled_to_one(covariance: Floats) -> Floats:
    """The correlations of a covariance matrix `[k, k]`; what does not vary goes with nothing."""
    spread = np.sqrt(np.diag(covariance))
    spread = np.where(spread > 0, spread, 1.0)
    correlation = np.asarray(covariance / spread[:, None] / spread)
    np.fill_diagonal(correlation, 1.0)
    return correlation


class TableMoments:
    """The second moments behind all comparisons of a table: each column of each arm is read once,
    however many comparisons use it, and whoever asks (the table keeps what was read).
    """

    def __init__(self, table: UnitTable, covariates: Mapping[str, Sequence[str]]) -> None:
        """`covariates`: by metric, names of pre-period columns; `own` stands for the metric's own.

        Raises:
            TableError: a covariate that the table does not have, or one in a paired table.
        """
        self._table = table
        self._covariates = {
            m: tuple(m if c == "own" else c for c in names)
            for m, names in covariates.items()
            if names
        }
        used = sorted({c for names in self._covariates.values() for c in names})
        for name in used:
            if table.paired:
                raise TableError(
                    f"covariate {name!r}: a paired table needs none, twins have the same past and"
                    " it cancels"
                )
            if name not in table.covariates:
                raise TableError(
                    f"no covariate {name!r} in this table; it has {list(table.covariates)}"
                )
        names = [(m, half) for m in table.numerators for half in ("numerator", "denominator")]
        names = [(m, half) for m, half in names if half == "numerator" or m in table.denominators]
        # What is the same array is the same variable.
        outline = table.outline
        arrays = {
            key: id(_column(outline, key)) for key in [*names, *((c, "covariate") for c in used)]
        }
        keys: dict[int, tuple[str, str]] = {}
        for key, array in arrays.items():
            keys.setdefault(array, key)
        self._variables = list(keys.values())
        place = {array: i for i, array in enumerate(keys)}
        self._columns = {key: place[array] for key, array in arrays.items()}
        self._read = table.samples.setdefault(tuple(used), {})

    def moments(self, metric: str, control: str, treatment: str) -> Moments:
        """The moments of one comparison; covariates as given for the metric.

        A user without a denominator is a unit like any other: what such a user has in the numerator
        counts, as in sums over sums, and leaving users out would select them by an outcome. A day
        on which nobody has a denominator is no unit (the last day of `return`).
        """
        if self._table.metrics[metric].is_figure:
            sides = (estimate(self._table, metric, arm) for arm in (control, treatment))
            return quantities.moments_of(*sides, paired=self._table.paired)
        if self._table.unit == "day" and metric in self._table.denominators:
            some = self._table.denominators[metric] != 0
            if self._table.paired:
                some = some[[self._table.arm(control), self._table.arm(treatment)]].any(axis=0)
            if not some.all():
                return compare(self._table.where(some), metric, control, treatment)
        columns = self._columns
        top, bottom = columns[metric, "numerator"], columns.get((metric, "denominator"))
        if not self._table.paired:
            names = self._covariates.get(metric, ())
            adjust = [columns[c, "covariate"] for c in names]
            is_predicted = names and names == self._table.predicted.get(metric)
            compared = moments.interacted_moments if is_predicted else moments.split_moments
            return compared(self._arm(control), self._arm(treatment), top, bottom, adjust)
        both, width = self._pair(), len(self._variables)
        c, t = (self._table.arm(arm) * width for arm in (control, treatment))
        return moments.paired_moments(
            both,
            (c + top, None if bottom is None else c + bottom),
            (t + top, None if bottom is None else t + bottom),
        )

    def correlations(self, comparisons: Sequence[tuple[str, str, str]]) -> Floats:
        """How the estimates of some comparisons (metric, control, treatment) go together, `[k,
        k]`: by their shared arms, and as the metrics go together on the same units.

        Figures that are no means are taken as independent of all others, which is on the safe side
        for the smallest of their p values (Sidak, JASA 1967).
        """
        blocks = self._blocks()
        weights = [self._weights(*one) for one in comparisons]
        k = len(weights)
        joint = np.eye(k)
        for i in range(k):
            for j in range(i + 1):
                shared = weights[i].keys() & weights[j].keys()
                parts = (
                    blocks[arm].covariance(weights[i][arm], weights[j][arm])
                    for arm in sorted(shared)
                )
                joint[i, j] = joint[j, i] = sum(parts)
        return scaled_to_one(joint)

    def _blocks(self) -> dict[str, Sample]:
        """Samples of units that are independent of one another: arms, or all twins."""
        if self._table.paired:
            return {"": self._pair()}
        return {arm: self._arm(arm) for arm in self._table.arms}

    def _weights(self, metric: str, control: str, treatment: str) -> dict[str, Floats]:
        """By block, how much each variable's mean moves the estimate of a comparison."""
        if metric not in self._table.numerators or self._table.metrics[metric].is_figure:
            return {}
        top = self._columns[metric, "numerator"]
        bottom = self._columns.get((metric, "denominator"))
        if not self._table.paired:
            adjust = [self._columns[c, "covariate"] for c in self._covariates.get(metric, ())]
            sides = self._arm(control), self._arm(treatment)
            at_c, at_t = moments.split_gradients(*sides, top, bottom, adjust)
            return {control: -at_c, treatment: at_t}
        width, both = len(self._variables), self._pair()
        weights = np.zeros(both.mean.shape)
        for arm, sign in ((control, -1.0), (treatment, 1.0)):
            at = self._table.arm(arm) * width
            columns = (at + top, None if bottom is None else at + bottom)
            weights += sign * moments.ratio(both.mean, *columns)[1]
        return {"": weights}

    def _arm(self, arm: str) -> Sample:
        table = self._table
        if not self._read:
            found = list(table.mapped(partial(_by_arm, self._variables)))
            samples = map(moments.together, zip(*found, strict=True))
            self._read.update(zip(table.arms, samples, strict=True))
        return self._read[arm]

    def _pair(self) -> Sample:
        """All arms of a paired table as one sample: the variables of the first arm, then those of
        the second, ...
        """
        if "" not in self._read:
            found = self._table.mapped(partial(_of_all_arms, self._variables))
            self._read[""] = moments.together(found)
        return self._read[""]


def _by_arm(variables: Sequence[tuple[str, str]], stretch: UnitTable) -> list[Sample]:
    sampler = Sampler(len(variables), len(stretch.arms))
    sampler.add([_column(stretch, key) for key in variables], stretch.assigned)
    return sampler.samples()


def _of_all_arms(variables: Sequence[tuple[str, str]], stretch: UnitTable) -> Sample:
    columns = [_column(stretch, key) for key in variables]
    return moments.sample([column[arm] for arm in range(len(stretch.arms)) for column in columns])


def _column(table: UnitTable, key: tuple[str, str]) -> Array:
    """A variable of a table: a name, and `numerator`, `denominator` or `covariate`."""
    name, half = key
    columns: Mapping[str, Array] = getattr(table, f"{half}s")
    return columns[name]
