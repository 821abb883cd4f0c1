"""Looking every day, audited: how often each stopping rule rejects where both arms answer alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.stats import moments, sequential, tests
from simulator.stats.moments import Floats, Moments
from simulator.stats.randomise import Outcomes, Rate, draws, outcomes
from simulator.stats.units import UserDays

RULES = ("always_valid", "obrien_fleming", "pocock")


@dataclass(frozen=True)
class Looking:
    """False positives of one stopping rule with a look at the end of every day.

    Attributes:
        rule: always_valid, obrien_fleming, pocock (the columns of `sequential.Look`).
        metric: the metric looked at.
        design: paired or split.
        error: share of samples in which the rule stopped on some day, nominally at most 5%.
    """

    rule: str
    metric: str
    design: str
    error: Rate


def looking(days: UserDays, control: str, repetitions: int, seed: int) -> tuple[Looking, ...]:
    """Every rule on samples in which both arms answer alike, for each mean metric that has data."""
    if days.days < 2:
        return ()
    other = next(arm for arm in days.arms if arm != control)
    found = []
    for name, metric in days.metrics.items():
        if name in days.missing or metric.denominator is not None:
            continue
        o = outcomes(days, control, other, name)
        counts = {(design, rule): 0 for design in ("paired", "split") for rule in RULES}
        for heads, tails in draws(days.n_users, days.n_users, repetitions, seed):
            for design, so_far in (("paired", _paired(o, heads, tails)), ("split", _split(o, heads, tails))):
                for rule, stopped in _stopped(so_far).items():
                    counts[design, rule] += stopped
        if np.ptp(o.control_days[0]) > 0:
            found += [Looking(rule, name, design, Rate.of(count, repetitions)) for (design, rule), count in counts.items()]
    return tuple(found)


def _split(o: Outcomes, heads: Floats, tails: Floats) -> list[Moments]:
    """The totals so far at the end of each day: heads in one arm, tails in the other, both answering as the control."""
    totals = np.cumsum(o.control_days[0], axis=1)
    return [moments.split_moments(moments.weighted([total], heads), moments.weighted([total], tails), 0, None) for total in totals.T.copy()]


def _paired(o: Outcomes, heads: Floats, tails: Floats) -> list[Moments]:
    """The same of twins; tails exchange their answers."""
    control, treatment = (np.cumsum(v[0], axis=1).T.copy() for v in (o.control_days, o.treatment_days))
    weights = np.concatenate((heads, tails), axis=1)
    samples = (moments.weighted([np.concatenate((c, t)), np.concatenate((t, c))], weights) for c, t in zip(control, treatment, strict=True))
    return [moments.paired_moments(s, (0, None), (1, None)) for s in samples]


def _stopped(so_far: list[Moments]) -> dict[str, int]:
    """How many samples each rule stops on some day.

    The mixture boundary uses each sample's own information, as the report does; the spending boundaries that of the average sample (their
    integration is done once, not for every sample).
    """
    n = len(so_far)
    day = np.arange(1, n + 1)
    z = np.abs(np.stack([np.nan_to_num(tests.t_test(m).statistic) for m in so_far], axis=1))
    variance = np.stack([m.variance for m in so_far], axis=1)
    with np.errstate(divide="ignore"):
        information = np.maximum.accumulate(np.where(variance > 0, np.square(day) / variance, 0.0), axis=1)
    known = information[:, -1] > 0
    result = dict.fromkeys(RULES, 0)
    if not known.any():
        return result
    z, information = z[known], np.maximum(information[known], 1e-12 * information[known][:, -1:])
    relative = information / information[:, -1:]
    result["always_valid"] = int(np.count_nonzero((z > sequential.mixture_boundary(relative, 1.0)).any(axis=1)))
    clock, share = np.median(relative, axis=0).tolist(), (day / n).tolist()
    shapes: dict[str, sequential.Shape] = {"obrien_fleming": "obrien-fleming", "pocock": "pocock"}
    for rule, shape in shapes.items():
        result[rule] = int(np.count_nonzero((z > sequential.boundaries(shape, share, clock)).any(axis=1)))
    return result
