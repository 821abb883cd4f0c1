"""Whether a fit went wrong: the fits of an arm beside one another, and beside the floor, on clicks
that none of them has seen (`log.fit_values`).

Two questions of each fit, both one-sided, since a fit that finds more than the others did not go
wrong:

- *Does it find less than the floor?* Student's paired t over users, against that policy of the
  floor which finds least: what trains and finds less than counting has not learned.
- *Does it fall out of the fits of its arm?* The studentised deviation of the lowest fit from the
  others (Grubbs, "Sample criteria for testing outlying observations", Annals of Mathematical
  Statistics 1950), then of the next lowest without it, and so on for less than half of the fits, so
  that two bad fits do not hide one another (Rosner, "Percentage points for a generalized ESD
  many-outlier procedure", Technometrics 1983). Good fits differ, too, so that their own spread is
  the measure and not the users' noise alone; this noise must be exceeded as well. It takes three
  fits.

`LEVEL` is the chance that anything is called wrong in a run of good fits: each question has half
of it, divided by the number of fits, or of arms and steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from simulator.log.fit_values import FitValues
from simulator.stats.checks import Check
from simulator.stats.moments import Floats

LEVEL = 0.05

FEWEST = 3
"""Fits of an arm among which one can fall out."""

CONFIDENCE = 0.95
"""With which failures of training are excluded that no fit has shown."""

Fault = Literal["", "below the floor", "outlier"]


@dataclass(frozen=True)
class FitFigure:
    """What one fit finds of the held-out clicks.

    Attributes:
        arm: whose fit it is; "" = a policy of the floor.
        policy: as the scenario calls it.
        fit: which of the arm's fits, from 0.
        hit_rate: share of the clicks that are among the candidates.
        ndcg: mean over clicks of 1 / log2(place + 2); 0 for those which are not found.
        se: standard error of `ndcg` over users.
        p_below: p-value that the fit finds at least as much as the floor; NaN for the floor itself.
        p_outlier: p-value that the fit is one of those of its arm, adjusted for their number; NaN
            where that is not tested: where there are fewer than three, and of the better half.
        fault: what is wrong with it; "" = nothing is seen.
    """

    arm: str
    policy: str
    fit: int
    hit_rate: float
    ndcg: float
    se: float
    p_below: float = math.nan
    p_outlier: float = math.nan
    fault: Fault = ""


def judge_fits(values: FitValues) -> list[FitFigure]:
    """Every fit beside the floor and beside the other fits of its arm; the floor's own figures come
    last.
    """
    total = float(values.clicks.sum())
    n_users = len(values.clicks)
    ndcg, hit_rate = values.gains.sum(axis=1) / total, values.hits.sum(axis=1) / total
    away = values.gains - ndcg[:, None] * values.clicks
    se = np.sqrt(np.square(away).sum(axis=1) * n_users / max(n_users - 1, 1)) / total
    names = zip(values.arm, values.policy, values.fit, strict=True)
    figures = [
        FitFigure(*name, float(hit_rate[i]), float(ndcg[i]), float(se[i]))
        for i, name in enumerate(names)
    ]
    floor = [i for i, arm in enumerate(values.arm) if not arm]
    lowest = min(floor, key=lambda i: ndcg[i])
    learned = [i for i, arm in enumerate(values.arm) if arm]
    for i in learned:
        p = _p_less(values.gains[i] - values.gains[lowest])
        fault: Fault = "below the floor" if p <= LEVEL / 2 / len(learned) else ""
        figures[i] = replace(figures[i], p_below=p, fault=fault)
    arms = {arm: [i for i in learned if values.arm[i] == arm] for arm in values.arm if arm}
    comparable = [members for members in arms.values() if len(members) >= FEWEST]
    for members in comparable:
        for i, p, is_outlier in _outliers(values.gains[members], LEVEL / 2 / len(comparable)):
            at = members[i]
            fault = figures[at].fault or ("outlier" if is_outlier else "")
            figures[at] = replace(figures[at], p_outlier=p, fault=fault)
    return figures


def _p_less(difference: Floats) -> float:
    """One-sided p-value that the mean of paired differences `[n]` is not below 0."""
    from scipy.stats import t

    n = len(difference)
    error = float(difference.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    if not error:
        return 1.0
    return float(t.cdf(float(difference.mean()) / error, n - 1))


def _outliers(gains: Floats, level: float) -> Iterator[tuple[int, float, bool]]:
    """Each fit of one arm: its row, the p-value of the step at which it is the lowest, and whether
    it is an outlier. Only less than half of the fits, the lowest ones, are tested.

    Args:
        gains: `[F, n]`, F at least `FEWEST`.
        level: the chance that any of F good fits is called an outlier.
    """
    from scipy.stats import t

    mean = gains.mean(axis=1)
    order = np.argsort(mean, kind="stable")
    steps = (len(order) - 1) // 2
    p_values: list[float] = []
    n_outliers = 0
    for step in range(steps):
        lowest, others = order[step], order[step + 1 :]
        n = len(others) + 1
        spread = float(mean[others].std(ddof=1)) * math.sqrt(n / (n - 1))
        gap = float(mean[others].mean() - mean[lowest])
        p = 1.0
        if gap > 0:
            p = min(n * float(t.sf(gap / spread, n - 2)), 1.0) if spread else 0.0
        beyond_noise = _p_less(gains[lowest] - gains[others].mean(axis=0)) <= level
        if p <= level / steps and beyond_noise:
            n_outliers = step + 1
        p_values.append(p)
    for step, p in enumerate(p_values):
        yield int(order[step]), p, step < n_outliers


def check_fits(figures: Sequence[FitFigure]) -> Check:
    """The check of all fits of a run: red where one went wrong."""
    name = "fits"
    learned = [one for one in figures if one.arm]
    floor = min((one for one in figures if not one.arm), key=lambda one: one.ndcg)
    wrong = [one for one in learned if one.fault]
    if wrong:
        value = "; ".join(_sentence(one, learned, floor) for one in wrong)
        meaning = (
            "A lift of such an arm shows a training that went wrong and not a method: do not act on"
            " it. Train the arm with more epochs or patience, or with another seed (fits.seed),"
            " and see what its losses do."
        )
        return Check(name, "red", value, meaning)
    arms = {one.arm for one in learned}
    several = {arm for arm in arms if fits_of(arm, learned) >= FEWEST}
    value = (
        f"{_count(len(learned), 'fit')} of {_count(len(arms), 'arm')}: none finds less of what"
        f" users click among random slates than {floor.policy} ({floor.ndcg:.4f} NDCG)"
    )
    if several == arms:
        value += ", and none falls out of the fits of its arm"
    elif several:
        value += f", and none of {', '.join(sorted(several))} falls out of its like"
    meaning = "No training went so wrong that its candidates show it."
    unseen = unseen_failures(figures)
    if unseen is not None:
        meaning += f" {unseen}"
    if several != arms:
        meaning += f" It takes {FEWEST} fits of an arm to see that one falls out of them."
    return Check(name, "green", value, meaning)


def fits_of(arm: str, figures: Sequence[FitFigure]) -> int:
    """How many fits of an arm there are."""
    return sum(one.arm == arm for one in figures)


def failures_not_excluded(n_fits: int) -> float:
    """The share of trainings that may fail though none of so many did: the upper end of the
    one-sided 95% interval (Clopper & Pearson, Biometrika 1934), 1 - .05^(1 / n).
    """
    return float(1.0 - (1.0 - CONFIDENCE) ** (1.0 / n_fits))


def unseen_failures(figures: Sequence[FitFigure]) -> str | None:
    """What sound fits cannot say of a method, in a sentence: no interval over a handful of fits
    holds the failures that it has not seen. None where a fit went wrong, or there is none.
    """
    learned = [one for one in figures if one.arm]
    if not learned or any(one.fault for one in learned):
        return None
    fewest = min(fits_of(one.arm, learned) for one in learned)
    verb = "exclude" if fewest > 1 else "excludes"
    return (
        f"No fit failed: {fewest} of an arm {verb}, with {CONFIDENCE:.0%}, only a training that"
        f" fails more often than in {failures_not_excluded(fewest):.0%}; what rarer failures cost"
        " is in no interval."
    )


def _sentence(one: FitFigure, learned: Sequence[FitFigure], floor: FitFigure) -> str:
    """What is wrong with a fit, with the figures that it is seen by."""
    n_fits = fits_of(one.arm, learned)
    whose = f"fit {one.fit} of {one.arm}" if n_fits > 1 else f"the fit of {one.arm}"
    if one.fault == "below the floor":
        return (
            f"{whose} finds less of what users click ({one.ndcg:.4f} NDCG) than {floor.policy},"
            f" which only counts ({floor.ndcg:.4f})"
        )
    others = [other.ndcg for other in learned if other.arm == one.arm and not other.fault]
    return (
        f"{whose} finds less of what users click ({one.ndcg:.4f} NDCG) than the other fits of its"
        f" arm ({min(others):.4f} to {max(others):.4f})"
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
