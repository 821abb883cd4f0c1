"""The supply side: how an arm shares its impressions and clicks out among items and authors, and
what another arm does differently.

The units are authors, each with all of its items, or items where nobody says who made them. Every
one of them is there in every arm, so that arms are compared in pairs of the same author, whatever
the design of the users: a lift of the share of the catalogue that is shown rests on the means over
items of 1{shown in the arm} - 1{shown in the control}, summed by author. From there on everything
is as for users: moments of means and of ratios of sums, Fieller's interval, margins, families.

What is random. The interval is that of a bootstrap that draws authors with replacement, an item
that was shown being drawn as one that was shown. It holds what other users would have changed, and
more: a draw of users moves an item in and out of what is shown by at most the spread between items.
So it covers what the arms would do on this catalogue with other users in 95% or more of tests; of
other catalogues it covers somewhat less (`python -m benchmarks.supply` counts both), since authors
compete for the same slates. Items drawn one by one would not do, for those of one author are alike
in who likes them; nor would users: a bootstrap's samples have but 63% of them, who are shown less
of the catalogue than all.

Standard errors are those of the infinitesimal jackknife, which the bootstrap's become with many
resamples (Jaeckel 1972; Efron, "The jackknife, the bootstrap and other resampling plans", 1982,
chapter 6): of a share and of a ratio of sums the familiar ones, of the Gini coefficient those of
its linearisation (`gini_values`).

What is shown grows with who looks. Arms are therefore compared at the same number of users: where
the arms have users of their own, those of the larger arms are a draw (`Exposures.counted`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from policies.base import IntArray
from policies.products import matmul
from simulator.log.metadata import FITTED_ONCE, Metadata
from simulator.log.metrics import (
    SUPPLY_METRICS,
    Metric,
    MetricError,
    Supplied,
    chosen,
    metric,
)
from simulator.stats.contrasts import compare, influences, scaled_to_one
from simulator.stats.exposures import EVENTS, Counts, Exposures
from simulator.stats.intervals import quantile
from simulator.stats.methods import FitTables
from simulator.stats.moments import Floats, Moments
from simulator.stats.replication import Replicated
from simulator.stats.unit_table import UnitTable, mean_table

Values = tuple[Floats, Floats | None]
"""Numerators and denominators `[arms, fits, units]`; None: a mean over units."""

LEVEL = 0.95


def asked(meta: Metadata, also: Iterable[str] = ()) -> dict[str, Metric]:
    """The metrics of the supply side that a report of the log has: the usual ones, those that its
    scenario names, with what it declares of them, and those among the names `also`.
    """
    named = {m.name: m for m in chosen(meta.scenario.get("metrics", ())) if m.supply is not None}
    result = {**{name: named.get(name, one) for name, one in SUPPLY_METRICS.items()}, **named}
    for name in also:
        with suppress(MetricError):  # a name of no metric is refused by who declares it
            one = metric(name)
            if one.supply is not None:
                result.setdefault(name, one)
    return result


@dataclass(frozen=True)
class Level:
    """What an arm itself has of a metric.

    Attributes:
        metric, arm: of what.
        value: the share or coefficient; with several fits the mean over them.
        low, high: its interval (Student's, within 0 and 1), at 95% or the level that is chosen.
    """

    metric: str
    arm: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SupplySide:
    """The sums of a log by item and author, as tables that arms are compared by.

    Attributes:
        metrics: by name, those that were asked for.
        tables: by unit, what each item or author has in each arm with each fit.
        absent: by metric, why there is nothing to say.
        arms: names, in the order of the log.
        users: of each arm that are counted.
        n_items, n_authors: units; None: authors are not known.
        reason: why nothing is known, in words; None where something is.
    """

    metrics: Mapping[str, Metric]
    tables: Mapping[Supplied, FitTables]
    absent: Mapping[str, str]
    arms: tuple[str, ...]
    users: Mapping[str, int]
    n_items: int
    n_authors: int | None
    reason: str | None = None

    @classmethod
    def unknown(cls, metrics: Mapping[str, Metric], arms: Sequence[str], reason: str) -> SupplySide:
        """The supply side of a log that says nothing of it."""
        absent = dict.fromkeys(metrics, reason)
        return cls(metrics, {}, absent, tuple(arms), {}, 0, None, reason)

    def moments(self, metric: str, control: str, arm: str) -> Moments | None:
        """The comparison of an arm with the control on the models that were trained; None without
        data.
        """
        if metric in self.absent or metric not in self.metrics:
            return None
        return compare(self._table(metric).pooled, metric, control, arm)

    def replicated(self, metric: str, control: str, arm: str) -> Replicated | None:
        """The same, and that of the methods: fits are as random as authors; None without data."""
        if metric in self.absent or metric not in self.metrics:
            return None
        return self._table(metric).replicated(metric, control, arm)

    def correlations(self, comparisons: Sequence[tuple[str, str, str]]) -> Floats:
        """How the estimates of comparisons (metric, control, arm) go together, `[k, k]`: those of
        one catalogue, whose authors are drawn together for all of them. The covariance is that of
        the bootstrap of authors in the limit, as the standard errors are: of what each author moves
        (`contrasts.influences`).
        """
        moved = []
        for name, control, arm in comparisons:
            moved.append(influences(self._table(name).pooled, name, control, arm))
        n = max(map(len, moved))
        # Items of nobody known stand after the authors, who are the same in both tables.
        by_unit = np.stack([np.pad(values, (0, n - len(values))) for values in moved])
        return scaled_to_one(matmul(by_unit, np.ascontiguousarray(by_unit.T)))

    @property
    def unit(self) -> Supplied:
        """What the intervals draw."""
        return "item" if self.n_authors is None else "author"

    def level(self, metric: str, arm: str, level: float = LEVEL) -> Level | None:
        """What an arm itself has, with its interval at `level`; None without data."""
        m = self.moments(metric, arm, arm)
        if m is None:
            return None
        half = float(quantile(m.df, level) * np.sqrt(m.var_control))
        value = float(m.control)
        return Level(metric, arm, value, max(value - half, 0.0), min(value + half, 1.0))

    def _table(self, metric: str) -> FitTables:
        supply = self.metrics[metric].supply
        assert supply is not None
        return self.tables[supply.unit]


def supply_side(
    exposures: Exposures, metrics: Mapping[str, Metric] | None = None, arms: Sequence[str] = ()
) -> SupplySide:
    """The supply side of what was counted.

    Args:
        exposures: of the whole log.
        metrics: by name; the usual ones if left out.
        arms: those that are compared; all if left out.
    """
    meta, items = exposures.meta, exposures.items
    metrics = asked(meta) if metrics is None else dict(metrics)
    kept = [name for name in meta.compared if not arms or name in arms]
    index = [meta.compared.index(name) for name in kept]
    sums = {event: getattr(exposures, event)[index] for event in EVENTS}
    fresh = None
    if exposures.fresh is not None:
        fresh = {event: counts[index] for event, counts in exposures.fresh.items()}
    author = items.author
    n_authors = None if author is None else int(author.max()) + 1
    absent: dict[str, str] = {}
    columns: dict[Supplied, dict[str, Values]] = {"item": {}, "author": {}}
    for name, one in metrics.items():
        supply = one.supply
        assert supply is not None
        event = "clicked" if one.numerator.name == "click" else "shown"
        found: Values | str
        if event == "clicked" and not exposures.knows_clicks:
            found = "the log has no clicks"
        elif supply.asks in ("fresh", "cold"):
            young = None if fresh is None else fresh[event]
            found = _young(exposures, sums[event], young, supply.asks)
        elif supply.unit == "item":
            found = _of_sums(sums[event][..., 1:], supply.asks, supply.least, event)
        elif author is None:
            found = "no catalogue beside the log says who made an item"
        else:
            totals = _by_group(sums[event], author, int(author.max()) + 1)
            found = _of_sums(totals, supply.asks, supply.least, event)
        if isinstance(found, str):
            absent[name] = found
        else:
            columns[supply.unit][name] = found
    once = frozenset(meta.notes.get(FITTED_ONCE, ()))
    if author is not None:
        columns["item"] = {
            name: _clustered(top, bottom, author) for name, (top, bottom) in columns["item"].items()
        }
    tables: dict[Supplied, FitTables] = {}
    for unit, named in columns.items():
        if named:
            own = {n: m for n, m in metrics.items() if m.supply and m.supply.unit == unit}
            drawn: Supplied = "item" if author is None else "author"
            tables[unit] = _tables(drawn, tuple(kept), own, named, once)
    users = dict(zip(kept, exposures.users[index].tolist(), strict=True))
    return SupplySide(metrics, tables, absent, tuple(kept), users, meta.n_items, n_authors)


def _tables(
    unit: Supplied,
    arms: tuple[str, ...],
    metrics: Mapping[str, Metric],
    columns: Mapping[str, Values],
    once: frozenset[str],
) -> FitTables:
    """What each unit has with each fit; every unit is there in every arm and with every fit."""
    n_fits = next(iter(columns.values()))[0].shape[1]
    each = [
        UnitTable(
            unit,
            arms,
            metrics,
            {name: np.ascontiguousarray(top[:, fit]) for name, (top, _) in columns.items()},
            {
                name: np.ascontiguousarray(bottom[:, fit])
                for name, (_, bottom) in columns.items()
                if bottom is not None
            },
        )
        for fit in range(n_fits)
    ]
    pooled = each[0] if n_fits == 1 else mean_table(each)
    return FitTables(pooled, each, crossed=True, fitted_once=once)


def _clustered(top: Floats, bottom: Floats | None, author: IntArray) -> tuple[Floats, Floats]:
    """Sums of items' values `[arms, fits, n_items]` by author; a mean over items becomes a ratio of
    sums. An item of nobody known is alone.
    """
    own = author[1:].copy()
    alone = np.flatnonzero(own < 0)
    own[alone] = int(author.max()) + 1 + np.arange(len(alone))
    n = int(own.max()) + 1
    whole = np.ones_like(top) if bottom is None else bottom
    sums = [np.empty((*top.shape[:-1], n)) for _ in range(2)]
    for into, values in zip(sums, (top, whole), strict=True):
        for place in np.ndindex(*top.shape[:-1]):
            into[place] = np.bincount(own, values[place], minlength=n)
    return sums[0], sums[1]


def _by_group(sums: Counts, group: IntArray, n: int) -> Counts:
    """Sums `[..., n_items + 1]` by the group of each item, `[..., n]`; items of no known group are
    left out.
    """
    known = np.flatnonzero(group >= 0)
    totals = np.zeros((*sums.shape[:-1], n), dtype=np.int64)
    for place in np.ndindex(*sums.shape[:-1]):
        weights = sums[place][known].astype(np.float64)
        totals[place] = np.bincount(group[known], weights, minlength=n).astype(np.int64)
    return totals


def _of_sums(sums: Counts, asks: str, least: int, event: str) -> Values | str:
    """Values `[arms, fits, units]` whose mean over units is the share or the Gini coefficient of
    sums of that shape; why there are none, in words.
    """
    if asks == "share":
        return (sums >= least).astype(np.float64), None
    if (sums.sum(axis=-1) == 0).any():
        return f"nothing was {event} in one of the arms"
    values = np.empty(sums.shape)
    for place in np.ndindex(*sums.shape[:-1]):
        values[place] = gini_values(sums[place].astype(np.float64))
    return values, None


def _young(exposures: Exposures, sums: Counts, fresh: Counts | None, asks: str) -> Values | str:
    """Numerators and denominators `[arms, fits, items]` of a share of sums that young items have;
    why there are none, in words.
    """
    if asks == "fresh":
        if fresh is None:
            return "no catalogue beside the log says when items were uploaded"
        return fresh[..., 1:].astype(np.float64), sums[..., 1:].astype(np.float64)
    if not exposures.knows_history:
        return "the log has no history"
    is_cold = exposures.before[1:] == 0
    if not is_cold.any():
        return "the history shows every item of the catalogue"
    whole = sums[..., 1:].astype(np.float64)
    return whole * is_cold, whole


def gini(sums: Floats) -> float:
    """The Gini coefficient of sums `[n]` that are not negative: the mean absolute difference of two
    units (drawn with replacement) over twice the mean (Gini 1912). 0 where all have as many;
    1 - 1 / n where one has all; NaN where all are 0.
    """
    return float(gini_values(sums).mean())


def gini_values(sums: Floats) -> Floats:
    """Per-unit values `[n]` whose mean is the Gini coefficient G of sums `[n]`, and whose variance
    is that of G to first order: the linearised variable

        z_i = G + (h_i - D) / m - G (x_i - m) / m,

    h_i the mean absolute difference of unit i from all units, D the mean of the h_i, m that of the
    x_i (Langel & Tillé, "Variance estimation of the Gini index: revisiting a result several times
    published", JRSS A 2013). NaN where all are 0.
    """
    n, mean = len(sums), sums.mean()
    if not mean > 0:
        return np.full(n, np.nan)
    ordered = np.sort(sums)
    total = np.concatenate(([0.0], np.cumsum(ordered)))
    below = np.searchsorted(ordered, sums, side="right")
    away = (sums * (2.0 * below - n) - 2.0 * total[below] + total[-1]) / n
    spread = away.mean()
    coefficient = spread / (2.0 * mean)
    return np.asarray(
        coefficient + (away - spread) / mean - coefficient * (sums - mean) / mean,
        dtype=np.float64,
    )
