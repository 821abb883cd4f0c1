"""Does the verdict on methods hold a planted lift, also of a method whose training fails at times?

python -m benchmarks.failing_fits --repetitions 2000

Users and fits are drawn, not simulated: a user's answer is 1 + N(0, 1) under the control, whose
fits are all alike; a fit of the treatment adds the planted lift of 5%, a luck of N(0, .02) that all
its users share, and for each of them N(0, .5). A training fails with the chance of the row and
takes another .15 off. The interval is that of the report (`stats.replication`, Fieller) for 1,000
twins, divided over fits or crossed with them. Counted is how often it holds the lift of the method,
failures included; and where no fit has failed, how often it holds that, and the lift of trainings
that do not fail. Last: how often the report's check of fits (`stats.fit_checks`) is red where a fit
has failed, if that fit finds half as much of what users click as the others, which differ by 5%,
and a fit of the floor less than any. Shares are of samples, with two binomial standard errors.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from simulator.log.fit_values import FitValues
from simulator.stats import intervals, moments, replication
from simulator.stats.fit_audit import DEALINGS
from simulator.stats.fit_checks import failures_not_excluded, judge_fits
from simulator.stats.moments import Floats
from simulator.stats.replication import Dealing, Replicated

LIFT, LUCK, OWN, LOSS = 0.05, 0.02, 0.5, 0.15
"""Of a sound fit, its sd between fits, that of a user with a fit, and what a failed fit loses."""

N_USERS = 1000

CLICKS = 5.0
"""Held-out clicks of a user."""


class Sample(NamedTuple):
    """What one run of the method shows: its interval, how many fits failed, whether it was seen."""

    low: float
    high: float
    failed: int
    red: bool


def replicated(random: np.random.Generator, lifts: Floats, dealing: Dealing) -> Replicated:
    """Both verdicts on twins who live with fits of these true lifts `[F]`."""
    n_fits = len(lifts)
    control = 1.0 + random.standard_normal(N_USERS)
    if dealing == "divided":
        fit = np.arange(N_USERS) % n_fits
        treatment = control + lifts[fit] + OWN * random.standard_normal(N_USERS)
        parts = [moments.paired(control[fit == f], treatment[fit == f]) for f in range(n_fits)]
        return replication.divided(moments.paired(control, treatment), parts)
    own = control + lifts[:, None] + OWN * random.standard_normal((n_fits, N_USERS))
    pooled = moments.paired(control, own.mean(axis=0))
    columns = [(0, None)] * n_fits, [(1 + f, None) for f in range(n_fits)]
    return replication.crossed_pairs(pooled, moments.sample([control, *own]), *columns)


def is_red(random: np.random.Generator, failed: Floats) -> bool:
    """Whether the check of fits calls any of them wrong."""
    n_fits, n_users = len(failed), 500
    quality = np.where(failed, 0.5, 1.0) * (1.0 + 0.05 * random.standard_normal(n_fits))
    share = random.beta(2.0, 6.0, n_users)
    found = np.append(quality, 0.3)[:, None] * share
    gains = CLICKS * found + 0.3 * random.standard_normal((n_fits + 1, n_users))
    arms = (*("treatment",) * n_fits, "")
    values = FitValues(
        10, arms, arms, (*range(n_fits), 0), np.full(n_users, CLICKS), gains > 0, gains
    )
    return any(one.fault for one in judge_fits(values))


def draw(random: np.random.Generator, n_fits: int, chance: float, dealing: Dealing) -> Sample:
    """One run of a method that fails with this chance in each training."""
    failed = random.random(n_fits) < chance
    lifts = LIFT + LUCK * random.standard_normal(n_fits) - LOSS * failed
    verdict = replicated(random, lifts, dealing).methods
    assert verdict is not None
    low, high = intervals.fieller(verdict, 0.95)
    return Sample(float(low), float(high), int(failed.sum()), is_red(random, failed))


def share(hits: list[bool]) -> str:
    """A share with two binomial standard errors; "n/a" of nothing."""
    if not hits:
        return "n/a"
    value = float(np.mean(hits))
    error = 2.0 * np.sqrt(max(value * (1.0 - value), 1e-4) / len(hits))
    return f"{100 * value:.1f} +- {100 * error:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2000, help="Runs of each row.")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(
        "fails  fits          holds it, %   none failed, %  then holds: the method  a sound one"
        "   red if one failed, %   not excluded"
    )
    for chance in (0.0, 1 / 6):
        for n_fits in (3, 5, 10):
            for dealing in DEALINGS:
                random = np.random.default_rng([asked.seed, n_fits])
                runs = [draw(random, n_fits, chance, dealing) for _ in range(asked.repetitions)]
                method, sound = LIFT - chance * LOSS, LIFT
                none = [run for run in runs if not run.failed]
                print(
                    f"{chance:5.2f}  {n_fits:2} {dealing:9}"
                    f"  {share([run.low <= method <= run.high for run in runs]):>13}"
                    f"  {share([not run.failed for run in runs]):>14}"
                    f"  {share([run.low <= method <= run.high for run in none]):>20}"
                    f"  {share([run.low <= sound <= run.high for run in none]):>13}"
                    f"  {share([run.red for run in runs if run.failed]):>19}"
                    f"  {failures_not_excluded(n_fits):13.0%}"
                )


if __name__ == "__main__":
    main()
