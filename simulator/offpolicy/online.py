"""What policies got in a simulated A/B, by the run's own log: the truth that offline figures are
held to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policies.base import DoubleArray
from simulator.log.eventlog import EventLog
from simulator.log.metadata import HISTORY
from simulator.offpolicy.rounds import Stream
from simulator.offpolicy.settings import ReplayError
from simulator.offpolicy.uncertainty import Ratios, bootstrap
from simulator.stats.moments import relative
from simulator.stats.winners import Race, Winner, corrected, winner


@dataclass(frozen=True)
class OnlinePolicy:
    """A policy in the simulated A/B.

    Attributes:
        policy: its name.
        lift, low, high: of reward per user over the control, a fraction, with its 95% interval.
        per_request, error: reward per request, with its standard error.
    """

    policy: str
    lift: float
    low: float
    high: float
    per_request: float
    error: float


@dataclass(frozen=True)
class Online:
    """What the simulated A/B says.

    Attributes:
        arms: names.
        value: `[A]` reward per request.
        lift: `[A]` of reward per user over the control, a fraction.
        resampled: `[A, B]` `lift` in resamples of users, the same for all arms.
        value_error: `[A]` standard error of `value`.
    """

    arms: tuple[str, ...]
    control: str
    value: DoubleArray
    value_error: DoubleArray
    lift: DoubleArray
    resampled: DoubleArray

    def of(self, arms: Sequence[str]) -> Online:
        """The same of these arms, in their order."""
        rows = [self.arms.index(arm) for arm in arms]
        return replace(
            self,
            arms=tuple(arms),
            value=self.value[rows],
            value_error=self.value_error[rows],
            lift=self.lift[rows],
            resampled=self.resampled[rows],
        )

    def policies(self) -> Iterator[OnlinePolicy]:
        """Each arm with its intervals."""
        low, high = np.nanquantile(self.resampled, [0.025, 0.975], axis=1)
        columns = (self.lift, low, high, self.value, self.value_error)
        for arm, *row in zip(self.arms, *columns, strict=True):
            yield OnlinePolicy(arm, *map(float, row))


def online(log: EventLog, control: str, reward: str, resamples: int, seed: int) -> Online:
    """Reward per request and lift per user of every arm, by the A/B's own log."""
    n = log.metadata.n_users
    arms = tuple(arm for arm in log.metadata.arms if arm != HISTORY)
    per_request, per_user = [], []
    for arm in arms:
        total, requests = np.zeros(n), np.zeros(n)
        for rounds in Stream(log, reward, arm):
            total += np.bincount(
                rounds.user, weights=np.nan_to_num(rounds.reward).sum(axis=1), minlength=n
            )
            requests += np.bincount(rounds.user, minlength=n)
        per_request.append(Ratios(total[:, None], requests[:, None]))
        per_user.append(Ratios(total[:, None], np.ones((n, 1))))
    base = arms.index(control)
    means = np.array([one.value for one in per_user])
    drawn = bootstrap(per_user, resamples, seed)
    errors = np.array([one.error() for one in per_request])
    if means[base] == 0:
        raise ReplayError(
            f"the control {control!r} got no {reward} in the simulated A/B, so there is no lift"
            " over it; take another reward"
        )
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may miss all of a rare reward
        lifts = relative(drawn[base], drawn)
    return Online(
        arms,
        control,
        np.array([o.value for o in per_request]),
        errors,
        relative(means[base], means),
        lifts,
    )


def race_from(truth: Online, base: int) -> Race | None:
    """All policies against one of them, by their lifts and the resamples; None where none differs
    from it.
    """
    others = np.delete(np.arange(len(truth.arms)), base)
    away = truth.resampled[others] - truth.resampled[base]
    away = away[:, np.isfinite(away).all(axis=0)]
    if away.shape[1] < 2:
        return None
    cov = np.atleast_2d(np.cov(away))
    # A policy that differs by nothing but rounding, the same for every user, is no rival.
    differs = np.diag(cov) > 1e-20
    if not differs.any():
        return None
    names = [truth.arms[place] for place in others[differs]]
    lifts = truth.lift[others[differs]] - truth.lift[base]
    return Race.of_lifts(names, lifts, cov[np.ix_(differs, differs)])


def best_of(truth: Online, reward: str) -> Winner | None:
    """The best policy online, corrected for having been chosen."""
    race = race_from(truth, truth.arms.index(truth.control))
    return None if race is None or len(race.arms) < 2 else winner(race, truth.control, reward)


def lost_by(truth: Online, pick: int) -> tuple[float, float, float]:
    """What `pick` loses against the best of the others, corrected for that one's having been
    chosen, with its 95% interval: 0 where it is not behind.
    """
    race = race_from(truth, pick)
    if race is None:  # no noise: the difference is what it is
        exact = max(0.0, float(np.nanmax(truth.lift) - truth.lift[pick]))
        return exact, exact, exact
    estimate, low, high = (max(0.0, float(value)) for value in corrected(race))
    return estimate, low, high
