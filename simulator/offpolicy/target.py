"""Target: what a target policy would do in given rounds, and how a recall policy is asked for
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from policies.base import DoubleArray, Expectant, Histories, IntArray, Policy, Stochastic
from policies.calls import Calls
from simulator.offpolicy.rounds import Rounds
from simulator.serving.desk import Channel, Desk

Above = Callable[[DoubleArray, IntArray], DoubleArray]
"""(values `[V, n_items + 1]`, row of it for each place `[R, K]`) -> mean value at each place after
the logged items above, `[R, K]`.
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What the target policy does in `R` rounds of length `K`.

    Attributes:
        probability: `[R, K]` with which the target puts the logged item at its place: given the
            logged items above it where the log's propensities are conditional (or unknown),
            whatever stands above where they are marginal.
        slates: `[R, D, K]` `D` slates drawn from the target, 0 = fewer candidates; one where it is
            deterministic.
        share: `[R, D]` probability of each of `slates` where they are all that the target can show;
            None: equal shares of a draw.
        given: `[R, K, n_items + 1]` the target's distribution at each place given the *logged*
            items above, or None: only small catalogues and policies that know it; nobody builds it
            from a slate.
        above: the same knowledge without the dense array: the mean of any value of items at each
            place, given the *logged* items above; None where the target does not know it.
        deterministic: the one slate is all that the target shows.
        recalled: `[R, M]` the candidates that a recall policy returned, best first, 0 = none; for
            matching within a set.
    """

    probability: DoubleArray
    slates: IntArray
    share: DoubleArray | None = None
    given: DoubleArray | None = None
    above: Above | None = None
    deterministic: bool = False
    recalled: IntArray | None = None

    def put_back(self, order: IntArray) -> Target:
        """The same of rounds that were asked about in another order: row r is of round `order[r]`.
        A target that a policy gives has neither `share` nor `given`.
        """
        back = np.argsort(order)
        above = self.above
        return Target(
            self.probability[back],
            self.slates[back],
            above=None if above is None else lambda values, rows: above(values, rows[order])[back],
            deterministic=self.deterministic,
            recalled=None if self.recalled is None else self.recalled[back],
        )

    @property
    def foretells(self) -> bool:
        """It can say what it expects at each place after the logged items above."""
        return self.deterministic or self.given is not None or self.above is not None

    def expects(self, values: DoubleArray, rows: IntArray) -> DoubleArray:
        """Mean of `values` `[V, n_items + 1]` in row `rows` `[R, K]` at each place after the logged
        items above, `[R, K]`.

        Of a deterministic target it is right below a matched prefix only: there its next item is
        the next of its slate.
        """
        if self.given is not None:
            exact: DoubleArray = np.einsum("rka,rka->rk", self.given, values[rows])
            return exact
        if self.above is not None:
            return self.above(values, rows)
        slate = self.slates[:, 0]
        return np.where(slate > 0, values[rows, slate], 0.0)


class Targets(Protocol):
    """Something that can say what a target policy does in rounds, chunk by chunk."""

    name: str

    def __call__(self, rounds: Rounds) -> Target: ...


def apart(seed: int) -> int:
    """The seed of a target's random numbers, of which a log written with `seed` used none.

    Random numbers are keyed by (user, step, item): with the log's own seed a stochastic target
    would repeat the log's draws, agree with it more often than its probabilities say, and be
    overrated by every figure that counts agreement.
    """
    return seed + 0x9E3779B9


def alone(name: str, policy: Policy, n_items: int, recall: int = 0, seed: int = 0) -> Desk:
    """A desk that shows what one policy recalls: no channels, no ranking, no A/B.

    Args:
        name: of the policy, for complaints.
        policy: fitted.
        n_items: items are 1..n_items.
        recall: candidates asked for; 0: as many as there are places.
        seed: of its random numbers.
    """
    return Desk("", Channel(name, policy, recall), (), None, n_items, seed)


@dataclass
class PolicyTargets:
    """A fitted recall policy as a target: what its desk serves, one item for each place of the
    logged slate.

    A policy with the ability `Stochastic` whose recall is shown as it is gives exact probabilities;
    its slates are `draws` draws. Any other is a pure function of the request and the seed: a
    deterministic target (for a policy with random numbers, that of this seed, whose value is the
    policy's on average).

    Attributes:
        name: of the policy, as it is reported.
        desk: asks the policy, the channels beside it and the ranking stage, as in a run. Its seed
            is not the one that the log was written with (`apart`). Where nothing stands behind
            recall, a quota below the number of places is raised to it.
        draws: slates drawn from a stochastic policy for the expectation of the reward model, and
            for its marginals.
        block: requests asked at once.
    """

    name: str
    desk: Desk
    draws: int = 1
    block: int = 4096

    @classmethod
    def of(
        cls, name: str, policy: Policy, n_items: int, recall: int = 0, seed: int = 0, draws: int = 1
    ) -> PolicyTargets:
        """A fitted policy whose recall is shown as it is.

        Args:
            name: as it is reported; of an arm in a log, the arm's.
            policy: fitted.
            n_items: items are 1..n_items.
            recall: candidates asked for; 0: as many as there are places.
            seed: of its random numbers: the one that it served with, to be asked about its own log.
            draws: slates drawn from a stochastic policy.
        """
        return cls(name, alone(name, policy, n_items, recall, seed), draws)

    @cached_property
    def _calls(self) -> Calls:
        return Calls(self.desk.recall.policy, self.name)

    def __call__(self, rounds: Rounds) -> Target:
        """What the policy does in `rounds`.

        Raises:
            ServingError, CallError: the policy raised or broke its contract.
        """
        parts = [
            self._ask(rounds.rows(slice(at, at + self.block)))
            for at in range(0, len(rounds), self.block)
        ]
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _ask(self, rounds: Rounds) -> Target:
        assert rounds.histories is not None, (
            "a policy can only be asked with histories: Stream(history=...)"
        )
        histories, k = rounds.histories, int(rounds.position.max()) + 1
        desk, own = self.desk.filling(k), self.desk.recall
        exact = desk.shows_recall and isinstance(own.policy, Stochastic)
        draws = self.draws if exact else 1
        served = [replace(desk, seed=desk.seed + d).serve(histories, k) for d in range(draws)]
        shown = [np.take_along_axis(one.slates.items, rounds.position, axis=1) for one in served]
        slates = np.stack(shown, axis=1)
        recalled = None
        if own.quota and served[0].recalled is not None:
            recalled = served[0].recalled.items
        if not exact:
            agree = (slates[:, 0] == rounds.item).astype(np.float64)
            return Target(agree, slates, deterministic=True, recalled=recalled)
        if rounds.kind == "marginal" and k > 1:
            often = (slates == rounds.item[:, None, :]).mean(axis=1)
            return Target(often, slates, recalled=recalled)
        chance = self._calls.slate_propensities(histories, rounds.item, desk.seed)
        above = self._above(rounds, histories) if isinstance(own.policy, Expectant) else None
        return Target(chance.astype(np.float64), slates, above=above, recalled=recalled)

    def _above(self, rounds: Rounds, histories: Histories) -> Above:
        """What the policy expects at each place of these rounds, asked when a model has values to
        expect.
        """
        calls, item, seed = self._calls, rounds.item, self.desk.seed
        return lambda values, rows: calls.slate_expectations(histories, item, values, rows, seed)


@dataclass
class FittedTargets:
    """A recall policy with several fits: each round is asked of the one that it belongs to
    (`Rounds.fit`).

    Attributes:
        name: of the policy, as it is reported.
        fits: the targets of each fit.
    """

    name: str
    fits: tuple[PolicyTargets, ...]

    def __call__(self, rounds: Rounds) -> Target:
        """What the fits do in `rounds`.

        Raises:
            ServingError, CallError: the policy raised or broke its contract.
        """
        mine = list(rounds.of_fits(len(self.fits)))
        parts = [self.fits[fit](rounds.rows(index)) for fit, index in mine]
        if len(parts) == 1:
            return parts[0]
        return _joined(parts).put_back(np.concatenate([index for _, index in mine]))


def _joined(parts: list[Target]) -> Target:
    """Targets of consecutive rounds as one."""
    recalled = [part.recalled for part in parts if part.recalled is not None]
    above = [part.above for part in parts if part.above is not None]
    cuts = np.cumsum([len(part.probability) for part in parts])[:-1]

    def joined(values: DoubleArray, rows: IntArray) -> DoubleArray:
        return np.concatenate(
            [one(values, here) for one, here in zip(above, np.split(rows, cuts), strict=True)]
        )

    return Target(
        np.concatenate([part.probability for part in parts]),
        np.concatenate([part.slates for part in parts]),
        above=joined if above else None,
        deterministic=parts[0].deterministic,
        recalled=np.concatenate(recalled) if recalled else None,
    )
