"""The analyses that an audit counts: how each makes its samples, how it reads them, and what the
truth is that it estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.stats import intervals, moments, ordered, quantiles, resampling, tests
from simulator.stats.intervals import Interval, opened
from simulator.stats.keyed_audit import How
from simulator.stats.moments import Floats, Moments, relative
from simulator.stats.predictions import FEWEST
from simulator.stats.randomise import (
    Outcomes,
    Pair,
    day_pair,
    paired_pair,
    predicted_pair,
    split_day_pair,
    split_pair,
    stratified_pair,
)
from simulator.stats.rule import OneTest

Array = npt.NDArray[Any]
Sampling = Literal["paired", "split", "day"]

SHARES: dict[Sampling, float] = {"paired": 1.0, "split": 0.5, "day": 1.0}
"""The share of a sample's users whose answers an arm has."""

CUT = 0.001
"""Share of the largest sums that the winsorised comparison cuts."""


def is_asked(name: str, analyses: Sequence[str]) -> bool:
    """Whether an analysis is to be counted: its name has one of these in it, or none is named."""
    return not analyses or any(part in name for part in analyses)


class Reading(NamedTuple):
    """What an analysis says of many samples, each `[R]`: whether it rejects, ends of the interval
    of the lift, control and treatment, and whether it could say anything."""

    rejected: Array
    low: Array
    high: Array
    control: Array
    treatment: Array
    defined: Array


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Attributes:
        name: as printed.
        design: of its samples.
        make: from both answers and the counts of heads and tails to what is read, under the null
            and under the effect.
        read: from what was made, and how the report tests the metric, to a `Reading`. Ranks and
            resampling stay two-sided, as in a report.
        slow: whether every sample must be put into order (ranks, quantiles).
        samples: how many samples it is counted on at most, where each is resampled itself; 0: all.
        smooth: whether it leans on a smooth distribution (quantiles): a population of n users is
            rough at the scale of its own gaps, and samples must be a good deal smaller for that not
            to matter (Silverman & Young, "The bootstrap: to smooth or not to smooth?", Biometrika
            1987).
        verdict: whether the verdict rests on it (others are printed beside it, or on request).
        prepare: what is done to the answers before samples are drawn (winsorising).
        truth: the lift that is estimated, or None where none is (ranks).
        fits: whether it can be applied to a metric with samples of so many users.
        sums: how its samples follow from sums over users, so that all users of a big run can be
            re-randomised (`keyed_audit`); None: they do not.
    """

    name: str
    design: Sampling
    make: Callable[[Outcomes, Floats, Floats], tuple[Any, Any]]
    read: Callable[[Any, OneTest], Reading]
    verdict: bool = False
    slow: bool = False
    smooth: bool = False
    prepare: Callable[[Outcomes], Outcomes] = lambda o: o
    truth: Callable[[Outcomes], float] | None = lambda o: o.lift
    fits: Callable[[Outcomes, int], bool] = lambda o, n: True
    samples: int = 0
    sums: How | None = None


def _by_t(m: Moments, test: OneTest) -> Reading:
    ends = opened(intervals.fieller(m, test.two_sided_level), test.side)
    with np.errstate(invalid="ignore"):
        return _reading(m, np.asarray(tests.t_test(m, test.side).p < test.alpha), ends)


def _by_interval(
    m: Moments, test: OneTest, method: Callable[[Moments, float], Interval]
) -> Reading:
    low, high = opened(method(m, test.two_sided_level), test.side)
    with np.errstate(invalid="ignore"):
        return _reading(m, np.asarray((low > 0) | (high < 0)), Interval(low, high))


def _reading(m: Moments, rejected: Array, interval: Interval) -> Reading:
    return Reading(
        rejected, interval.low, interval.high, m.control, m.treatment, np.asarray(m.variance > 0)
    )


def _by_z(z: Floats, test: OneTest) -> Reading:
    nothing = np.full(len(z), np.nan)
    with np.errstate(invalid="ignore"):
        return Reading(
            np.abs(z) > intervals.quantile(np.inf, test.level),
            nothing,
            nothing,
            nothing,
            nothing,
            ~np.isnan(z),
        )


def _signed_ranks(o: Outcomes, heads: Floats, tails: Floats) -> tuple[Floats, Floats]:
    if o.bottom is None:
        d = o.treatment[0] - o.control[0]
        return ordered.signed_rank_z(d, heads, tails), ordered.signed_rank_z(
            d, heads + tails, np.zeros_like(heads)
        )
    null, effect = [], []
    for up, down in zip(heads[:, None], tails[:, None], strict=True):
        counts = (up + down)[0]  # twins that change places leave the ratio of both arms as it is
        base, other = moments.linearised_alike(*_sides(o), (counts, counts))
        null.append(ordered.signed_rank_z(other - base, up, down))
        effect.append(ordered.signed_rank_z(other - base, up + down, np.zeros_like(up)))
    return np.concatenate(null), np.concatenate(effect)


def _rank_sums(o: Outcomes, heads: Floats, tails: Floats) -> tuple[Floats, Floats]:
    if o.bottom is None:
        null, effect = (
            ordered.rank_sum_z(o.control[0], heads, v, tails)
            for v in (o.control[0], o.treatment[0])
        )
        return null, effect
    nulls, effects = [], []
    own, other = _sides(o)
    for up, down in zip(heads[:, None], tails[:, None], strict=True):
        same, _ = moments.linearised_alike(own, own, (up[0], down[0]))
        nulls.append(ordered.rank_sum_z(same, up, same, down))
        base, changed = moments.linearised_alike(own, other, (up[0], down[0]))
        effects.append(ordered.rank_sum_z(base, up, changed, down))
    return np.concatenate(nulls), np.concatenate(effects)


def _sides(o: Outcomes) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Numerators and denominators of both answers to a ratio metric."""
    return (o.control[0], o.control[1]), (o.treatment[0], o.treatment[1])


def _quantile_lift(o: Outcomes, level: float) -> float:
    ones = np.ones((len(o.control[0]), 1))
    c, t = (
        float(quantiles.mid_quantile(v[0], ones, level).value[0]) for v in (o.control, o.treatment)
    )
    return float(relative(c, t))


def _is_mean(o: Outcomes, n: int) -> bool:
    return o.bottom is None


def _has_quantile(o: Outcomes, n: int, level: float, paired: bool) -> bool:
    """Whether the report would print the quantile."""
    return o.bottom is None and not quantiles.unfit(
        o.control[0], o.treatment[0], level, n if paired else n // 2
    )


def _has_strata(o: Outcomes, n: int) -> bool:
    """Whether every stratum of a sample will have users in both arms."""
    return o.strata is not None and np.bincount(o.strata).min() * n >= 30 * len(o.strata)


_adjusted: Callable[[Outcomes, Floats, Floats], Pair] = partial(split_pair, adjusted=True)


TWO_SAMPLES: tuple[tuple[Sampling, bool], ...] = (("paired", True), ("split", False))
"""How the samples of the two arms are drawn, and whether they are twins."""


def _around_quantile(level: float) -> tuple[Analysis, ...]:
    truth, name = partial(_quantile_lift, level=level), f"p{level:.0%}".rstrip("%")
    analyses = []
    for d, paired in TWO_SAMPLES:
        make = partial(quantiles.quantile_pair, level=level, paired=paired)
        fits = partial(_has_quantile, level=level, paired=paired)
        analyses.append(
            Analysis(f"{d}, {name}", d, make, _by_t, slow=True, smooth=True, truth=truth, fits=fits)
        )
    return tuple(analyses)


Drawn = list[tuple[Floats, Floats]]
"""Both arms' values of each sample, user by user."""


def _written_out(
    o: Outcomes, heads: Floats, tails: Floats, paired: bool, common: bool
) -> tuple[Drawn, Drawn]:
    """The samples as the plain functions take them, under the null and the effect.

    `common`: a ratio metric is linearised by the one ratio of both arms (permutations), else each
        arm by its own (bootstrap).
    """
    null, effect = [], []
    for up, down in zip(heads.astype(np.int64), tails.astype(np.int64), strict=True):
        h, d = np.repeat(np.arange(len(up)), up), np.repeat(np.arange(len(up)), down)
        (c_h, c_d), (t_h, t_d) = (
            [[v[rows] for v in answers] for rows in (h, d)] for answers in (o.control, o.treatment)
        )
        if paired:
            null.append(_values(_joined(c_h, t_d), _joined(t_h, c_d), common))
            effect.append(_values(_joined(c_h, c_d), _joined(t_h, t_d), common))
        else:
            null.append(_values(c_h, c_d, common))
            effect.append(_values(c_h, t_d, common))
    return null, effect


def _joined(one: list[Floats], other: list[Floats]) -> list[Floats]:
    return [np.concatenate(both) for both in zip(one, other, strict=True)]


def _values(control: list[Floats], treatment: list[Floats], common: bool) -> tuple[Floats, Floats]:
    """One value a user: sums, or linearised ratios."""
    if len(control) == 1:
        return control[0], treatment[0]
    (c, c_bottom), (t, t_bottom) = control, treatment
    if common:
        return moments.linearised_alike((c, c_bottom), (t, t_bottom))
    return moments.linearised(c, c_bottom), moments.linearised(t, t_bottom)


def _permuted(drawn: Drawn, test: OneTest, paired: bool, resamples: int) -> Reading:
    p = np.array(
        [
            resampling.permutation(c, t, paired=paired, repetitions=resamples, seed=i).p
            for i, (c, t) in enumerate(drawn)
        ]
    )
    nothing = np.full(len(p), np.nan)
    return Reading(p < test.alpha, nothing, nothing, nothing, nothing, ~np.isnan(p))


def _bootstrapped(drawn: Drawn, test: OneTest, paired: bool, resamples: int) -> Reading:
    ends = [
        resampling.bootstrap(c, t, paired=paired, repetitions=resamples, seed=i, level=test.level)
        for i, (c, t) in enumerate(drawn)
    ]
    low, high = (np.array(side, dtype=np.float64) for side in zip(*ends, strict=True))
    control, treatment = (np.array([pair[side].mean() for pair in drawn]) for side in (0, 1))
    with np.errstate(invalid="ignore"):
        return Reading((low > 0) | (high < 0), low, high, control, treatment, ~np.isnan(low))


def resampled(resamples: int, samples: int = 1000) -> tuple[Analysis, ...]:
    """Permutation test and BCa bootstrap, each sample resampled `resamples` times: what a report
    prints on request.
    """
    analyses = []
    for d, paired in TWO_SAMPLES:
        exchanged, own = (
            partial(_written_out, paired=paired, common=common) for common in (True, False)
        )
        test, ends = (
            partial(read, paired=paired, resamples=resamples) for read in (_permuted, _bootstrapped)
        )
        analyses.append(
            Analysis(
                f"{d}, permutation", d, exchanged, test, slow=True, samples=samples, truth=None
            )
        )
        analyses.append(Analysis(f"{d}, BCa bootstrap", d, own, ends, slow=True, samples=samples))
    return tuple(analyses)


def predicted(samples: int) -> tuple[Analysis, ...]:
    """Adjustment for predictions, whose models are fitted anew in every one of so many samples:
    what a report makes of a table on request.
    """
    return (
        Analysis(
            "MLRATE t, Fieller",
            "split",
            predicted_pair,
            _by_t,
            slow=True,
            samples=samples,
            fits=lambda o, n: o.features is not None and n >= FEWEST,
        ),
    )


ANALYSES: tuple[Analysis, ...] = (
    Analysis("paired t, Fieller", "paired", paired_pair, _by_t, verdict=True, sums="twins"),
    Analysis(
        "paired, log-delta",
        "paired",
        paired_pair,
        partial(_by_interval, method=intervals.log_delta),
        sums="twins",
    ),
    Analysis(
        "paired, delta",
        "paired",
        paired_pair,
        partial(_by_interval, method=intervals.delta),
        sums="twins",
    ),
    Analysis(
        "paired, winsorised",
        "paired",
        paired_pair,
        _by_t,
        prepare=lambda o: o.winsorised(CUT),
        fits=_is_mean,
    ),
    Analysis("Wilcoxon", "paired", _signed_ranks, _by_z, slow=True, truth=None),
    Analysis("Welch t, Fieller", "split", split_pair, _by_t, verdict=True, sums="halves"),
    Analysis(
        "Welch, log-delta",
        "split",
        split_pair,
        partial(_by_interval, method=intervals.log_delta),
        sums="halves",
    ),
    Analysis(
        "Welch, delta",
        "split",
        split_pair,
        partial(_by_interval, method=intervals.delta),
        sums="halves",
    ),
    Analysis(
        "Welch, winsorised",
        "split",
        split_pair,
        _by_t,
        prepare=lambda o: o.winsorised(CUT),
        fits=_is_mean,
    ),
    Analysis(
        "CUPED t, Fieller",
        "split",
        _adjusted,
        _by_t,
        verdict=True,
        fits=lambda o, n: o.before is not None,
        sums="adjusted",
    ),
    Analysis("Welch, post-stratified", "split", stratified_pair, _by_t, fits=_has_strata),
    Analysis("rank sum", "split", _rank_sums, _by_z, slow=True, truth=None),
    *_around_quantile(0.5),
    *_around_quantile(0.9),
    Analysis("paired t by day", "day", day_pair, _by_t),
    Analysis("paired t by day, split", "day", split_day_pair, _by_t),
)
"""Everything that a report prints unasked.

The table by day is printed because the paper has it; its units are the days, not the users who are
drawn here, and what differs between the days of this one run counts as noise in it: its intervals
are wide, and the verdict does not rest on them.
"""
