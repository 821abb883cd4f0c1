"""How much exploration an off-policy lift takes: from a pilot log, the share of traffic and the
days that make its interval as narrow as wanted, for the policy that wrote the log and for other
logging policies, and what each costs in rewards while it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policies.base import DoubleArray
from policies.products import matmul, pseudo_inverse
from simulator.offpolicy.estimators import Estimator
from simulator.offpolicy.evidence import Evidence
from simulator.offpolicy.replay import ReplaySettings
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.settings import ESTIMATORS, ReplayError
from simulator.offpolicy.sums import UnitSums
from simulator.offpolicy.survey import Survey, observed, survey
from simulator.offpolicy.target import Target, Targets

OWN = "the log's own"
"""What the policy that wrote the pilot is called."""
DAYS = (1, 2, 4, 7, 14, 28)
"""For which lengths a plan says the share of traffic."""
NORMAL = 1.959963984540054
COLUMNS = 8
"""Of a round, that second moments are kept of."""
LEAST = 200
"""Rounds that an option must be worth: a variance from fewer is not known to within 10%."""


@dataclass(frozen=True)
class ExplorationOption:
    """A logging policy, as far as the pilot can tell.

    Attributes:
        logging: its name; OWN for the one that wrote the pilot.
        lift: of the target over the control, a fraction, and `error` its standard error in the
            pilot's own size under this policy.
        value: rewards per request while it logs.
        control: rewards per request under the control.
        variance: of the lift, times rounds, if rounds were independent.
        dependence: correlation of the rounds of one user; 0 where there is none.
        effective: rounds of its own that the pilot's are worth (Kong 1992).
        refused: why it cannot be planned with, or "".
    """

    logging: str
    lift: float = float("nan")
    error: float = float("nan")
    value: float = float("nan")
    control: float = float("nan")
    variance: float = float("nan")
    dependence: float = 0.0
    effective: float = 0.0
    refused: str = ""


@dataclass(frozen=True)
class ExplorationPlan:
    """What one logging policy takes in so many days.

    Attributes:
        logging: its name.
        days: that it runs.
        share: of all traffic; above 1: not to be had in these days.
        requests: that it serves.
        cost: rewards lost against the control in all, where it is worse (below 0: won).
        cost_share: of all rewards of these days.
    """

    logging: str
    days: int
    share: float
    requests: float
    cost: float
    cost_share: float


@dataclass(frozen=True)
class ExplorationPilot:
    """What a pilot log says: the options, and the traffic.

    Attributes:
        target, control: names.
        estimator: that the lift will be estimated by.
        rounds, days: of the pilot.
        per_user: rounds of a user, weighted by them: what a clustered variance depends on.
        options: the log's own policy first.
    """

    target: str
    control: str
    estimator: str
    rounds: int
    days: int
    per_user: float
    options: tuple[ExplorationOption, ...]

    def plans(
        self, half_width: float, days: Sequence[int] = DAYS, traffic: float | None = None
    ) -> list[ExplorationPlan]:
        """The share of traffic that gives the lift a 95% interval of `half_width` to either side.

        The variance of the lift over n rounds of users with m rounds each is
        variance (1 + (m - 1) dependence) / n (Kish, "Survey Sampling", 1965), and a user's rounds
        grow with the days: who is in the share is so for all of them.

        Args:
            half_width: a fraction.
            days: for which to plan.
            traffic: requests a day of all users; None: those of the pilot.
        """
        a_day = traffic if traffic is not None else self.rounds / self.days
        out = []
        for option in self.options:
            if option.refused:
                continue
            for n_days in days:
                # The pilot's rounds of a user come to (m - 1) besides any one of them.
                m = 1.0 + (self.per_user - 1.0) * n_days / self.days
                variance = option.variance * (1.0 + (m - 1.0) * option.dependence)
                requests = variance * (NORMAL / half_width) ** 2
                lost = requests * (option.control - option.value)
                everything = a_day * n_days * option.control
                share = requests / (a_day * n_days)
                out.append(
                    ExplorationPlan(
                        option.logging, n_days, share, requests, lost, lost / everything
                    )
                )
        return out


class LoggedTargets:
    """The policy that wrote the log, as a target."""

    name = OWN

    def __call__(self, rounds: Rounds) -> Target:
        return Target(rounds.propensity, rounds.item[:, None, :])


def explore_pilot(
    rounds: Iterable[Rounds],
    target: Targets,
    control: Targets | None,
    loggings: Sequence[Targets],
    n_users: int,
    n_items: int,
) -> ExplorationPilot:
    """What a pilot log says of the exploration that an off-policy lift takes.

    Under another logging policy a round would have had the weight w' = target / other, and would
    have come with other / pilot times its frequency; so second moments of the lift under it are
    means over the pilot with that weight (importance sampling of the design, as of the logging
    policy in arXiv 2605.15108). Lifts are estimated by `snips` (single items), `rips` (slates with
    conditional propensities) or `iips` (marginal).

    Args:
        rounds: can be iterated more than once.
        target: whose lift is wanted.
        control: over whom, and what serves where nothing is explored; None: the policy that wrote
            the pilot.
        loggings: other policies that could log; they must give probabilities of slates.
        n_users: users are 0..n_users-1.
        n_items: items are 1..n_items.

    Raises:
        ReplayError: unknown propensities; or a target that the pilot says nothing of.
    """
    known = survey(rounds, n_items, ReplaySettings(("ips",)))
    name = _estimator(known)
    base = LoggedTargets() if control is None else control
    counts = [
        _Moments(ESTIMATORS[name][0], target, base, logging, n_users)
        for logging in (None, *loggings)
    ]
    first, last = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    for chunk in observed(rounds):
        if len(chunk):
            first, last = min(first, int(chunk.day.min())), max(last, int(chunk.day.max()))
            for one in counts:
                one.add(chunk)
    own = counts[0]
    per_user = own.per_user()
    options = [one.option(own.dependence(per_user), known.rounds) for one in counts]
    if options[0].refused:
        raise ReplayError(f"{target.name}: {options[0].refused}")
    days = last - first + 1
    return ExplorationPilot(
        target.name, base.name, name, known.rounds, days, per_user, tuple(options)
    )


def _estimator(known: Survey) -> str:
    if known.kind == "unknown":
        raise ReplayError(
            "the log's propensities are unknown: a pilot of exploration must say with which"
            " probability it showed what it showed"
        )
    if known.length == 1:
        return "snips"
    return "rips" if known.kind == "conditional" else "iips"


class _Moments:
    """Sums of what the lift is made of under one logging policy, of each round [target above,
    below, control above, below, reward of the log, control variates of both, 1]; the sums of its
    products, and the sums by user.
    """

    def __init__(
        self,
        estimator: Estimator,
        target: Targets,
        control: Targets,
        logging: Targets | None,
        n_users: int,
    ) -> None:
        self.estimator, self.sides, self.logging = estimator, (target, control), logging
        self.total, self.products = np.zeros(COLUMNS), np.zeros((COLUMNS, COLUMNS))
        self.weight = self.squares = 0.0
        self.by_user = UnitSums(n_users)

    def add(self, chunk: Rounds) -> None:
        """Take in a chunk."""
        n = len(chunk)
        logged, come = chunk, np.ones(n)
        if self.logging is not None:
            chance = self.logging(chunk).probability
            # What the other policy could not have shown does not come: any number above 0 will do.
            shown = np.where(chance > 0, chance, 1.0)
            ratio = chance / chunk.propensity
            by_place = chunk.kind == "marginal" and chunk.length > 1
            come = ratio.mean(axis=1) if by_place else ratio.prod(axis=1)
            logged = replace(chunk, propensity=shown)
        columns, variates = [], []
        for side in self.sides:
            e = Evidence(logged, side(chunk))
            ((above, below),) = self.estimator.ratios(e)
            columns += [above, np.ones(n) if below is None else below]
            variate = self.estimator.control_variate(e)
            variates.append(np.ones(n) if variate is None else variate)
        z = np.stack([*columns, chunk.reward.sum(axis=1), *variates, np.ones(n)], axis=1)
        weighted = z * come[:, None]
        self.total += weighted.sum(axis=0)
        self.products += matmul(weighted.T, z)
        self.weight += float(come.sum())
        self.squares += float(np.square(come).sum())
        unit = self.by_user.unit(chunk.user)
        sums = {i: weighted[:, i] for i in range(z.shape[1])}
        self.by_user.add(unit, {**sums, "rounds": np.ones(n)})

    def _gradient(self) -> DoubleArray:
        """What each column of a round adds to the lift at first order, `[COLUMNS]`: its derivative
        with respect to the means, less the best linear control variate, as lifts are printed
        (`offpolicy.lifts`).
        """
        mean = self.total / self.weight
        ta, tb, ca, cb = mean[:4]
        value, base = ta / tb, ca / cb
        g = np.zeros(COLUMNS)
        g[:2] = np.array([1.0, -value]) / (tb * base)
        g[2:4] = -np.array([1.0, -base]) / cb * value / base**2
        centred = self.products / self.weight - mean[:, None] * mean
        variates = slice(5, 7)
        with_lift = matmul(centred[variates], g[:, None])
        best = matmul(pseudo_inverse(centred[variates, variates]), with_lift)[:, 0]
        g[variates] -= best
        g[7] += float((best * mean[variates]).sum())
        return g

    def per_user(self) -> float:
        """Rounds of a user, weighted by them."""
        rounds = self.by_user["rounds"]
        return float(np.square(rounds).sum() / rounds.sum())

    def dependence(self, per_user: float) -> float:
        """Correlation of the lift's rounds of one user: how much larger its variance by user is
        than that of independent rounds.
        """
        if per_user <= 1.0 or self._refusal():
            return 0.0
        columns = np.stack([self.by_user[i] for i in range(COLUMNS)], axis=1)
        moved = matmul(columns, self._gradient()[:, None])[:, 0]
        clustered = float(np.square(moved).sum())
        alone = float(self._variance() * self.weight)
        return max(clustered / alone - 1.0, 0.0) / (per_user - 1.0) if alone > 0 else 0.0

    def _variance(self) -> float:
        """Of one round's part of the lift; the gradient is orthogonal to the means."""
        g = self._gradient()
        raw = matmul(matmul(g[None], self.products / self.weight), g[:, None])[0, 0]
        return max(float(raw), 0.0)  # rounding may leave less where nothing varies

    def _refusal(self) -> str:
        ta, tb, ca, cb = self.total[:4]
        if not (tb > 0 and cb > 0):
            return "no logged round agrees with it and with the control"
        if ca == 0 or ta == 0:
            return "no logged reward agrees with it and with the control"
        if self.weight**2 / self.squares < LEAST:
            worth = self.weight**2 / self.squares
            return f"the pilot is worth {worth:.0f} of its rounds; at least {LEAST} are needed"
        return ""

    def option(self, dependence: float, rounds: int) -> ExplorationOption:
        """What is known of the logging policy; `rounds` are the pilot's."""
        name = OWN if self.logging is None else self.logging.name
        if self.weight == 0.0:
            return ExplorationOption(name, refused="the pilot has nothing that it would show")
        why = self._refusal()
        if why:
            return ExplorationOption(name, refused=why)
        ta, tb, ca, cb, reward = self.total[:5] / self.weight
        variance = self._variance()
        m = self.per_user()
        error = float(np.sqrt(variance * (1.0 + (m - 1.0) * dependence) / rounds))
        effective = self.weight**2 / self.squares
        return ExplorationOption(
            name,
            float(ta / tb / (ca / cb) - 1.0),
            error,
            float(reward),
            float(ca / cb),
            variance,
            dependence,
            float(effective),
        )
