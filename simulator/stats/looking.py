"""Looking every day, audited: how often each stopping rule rejects where both arms answer alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.stats import moments, sequential, spending
from simulator.stats.moments import Floats
from simulator.stats.randomise import Outcomes, Rate, draws, outcomes
from simulator.stats.user_days import UserDays

RULES = ("always_valid", "obrien_fleming", "pocock")


@dataclass(frozen=True)
class Looking:
    """False positives of one stopping rule with a look at the end of every day.

    Attributes:
        rule: always_valid, obrien_fleming, pocock (the columns of `sequential.Look`).
        metric: the metric looked at.
        design: paired or split.
        error: share of samples in which the rule stopped on some day, nominally at most alpha.
    """

    rule: str
    metric: str
    design: str
    error: Rate


def looking(
    days: UserDays, control: str, repetitions: int, seed: int, alpha: float = spending.ALPHA
) -> tuple[Looking, ...]:
    """Every rule on samples in which both arms answer alike, for each mean metric that has data.
    Looks are two-sided, as in a report.
    """
    if days.days < 2:
        return ()
    other = next(arm for arm in days.arms if arm != control)
    rates = []
    for name, metric in days.metrics.items():
        if name in days.missing or metric.denominator is not None or metric.is_figure:
            continue
        o = outcomes(days, control, other, name)
        counts = {(design, rule): 0 for design in ("paired", "split") for rule in RULES}
        for heads, tails in draws(days.n_users, days.n_users, repetitions, seed):
            for design, so_far in (
                ("paired", _paired(o, heads, tails)),
                ("split", _split(o, heads, tails)),
            ):
                for rule, stopped in _stopped(*so_far, alpha).items():
                    counts[design, rule] += stopped
        if np.ptp(o.control_days[0]) > 0:
            rates += [
                Looking(rule, name, design, Rate.of(count, repetitions))
                for (design, rule), count in counts.items()
            ]
    return tuple(rates)


def _split(o: Outcomes, heads: Floats, tails: Floats) -> tuple[Floats, Floats]:
    """Difference of the mean totals so far `[R, days]` and its covariance `[R, days, days]`: both
    arms answer as the control.
    """
    totals = list(np.cumsum(o.control_days[0], axis=1).T)
    control, treatment = (moments.weighted(totals, w) for w in (heads, tails))
    with np.errstate(divide="ignore", invalid="ignore"):
        cov = control.cov / control.n[:, None, None] + treatment.cov / treatment.n[:, None, None]
    return treatment.mean - control.mean, cov


def _paired(o: Outcomes, heads: Floats, tails: Floats) -> tuple[Floats, Floats]:
    """The same of twins; tails exchange their answers."""
    d = np.cumsum(o.treatment_days[0] - o.control_days[0], axis=1)
    s = moments.weighted(list(np.concatenate((d, -d)).T), np.concatenate((heads, tails), axis=1))
    return s.mean, s.cov / s.n[:, None, None]


def _stopped(difference: Floats, cov: Floats, alpha: float) -> dict[str, int]:
    """How many samples each rule stops on some day.

    The mixture boundary uses each sample's own correlations of successive looks, as the report
    does; the spending boundaries the median over the samples at hand (their integration is done
    once, not for every sample).
    """
    variance = np.diagonal(cov, axis1=1, axis2=2)
    varied = (variance > 0).all(axis=1)
    result = dict.fromkeys(RULES, 0)
    if not varied.any():
        return result
    error = np.sqrt(variance[varied])
    z, n = np.abs(difference[varied]) / error, error.shape[1]
    information = sequential.clock(
        np.diagonal(cov[varied], offset=1, axis1=1, axis2=2) / (error[:, :-1] * error[:, 1:])
    )
    result["always_valid"] = int(
        np.count_nonzero((z > sequential.mixture_boundary(information, 1.0, alpha)).any(axis=1))
    )
    typical, share = np.median(information, axis=0).tolist(), (np.arange(1, n + 1) / n).tolist()
    shapes: dict[str, spending.Shape] = {"obrien_fleming": "obrien-fleming", "pocock": "pocock"}
    for rule, shape in shapes.items():
        boundary = spending.boundaries(shape, share, typical, alpha)
        result[rule] = int(np.count_nonzero((z > boundary).any(axis=1)))
    return result
