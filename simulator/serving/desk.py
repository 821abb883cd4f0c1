"""The serving desk: from requests to slates. Recall of the arm, the other channels, ranking, the
cut to a slate; every policy is held to its contract.

A run, an interleaved draft, a replay and `abtest fidelity` ask a desk: nobody else ranks
candidates or cuts slates. The desk knows no time and no users; it is a pure function of the
requests, so blocks may be split anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from policies.base import FloatArray, Histories, IntArray, Policy, Slates
from policies.calls import CallError, Calls, Limit
from policies.form import fault
from simulator.serving import kernels
from simulator.serving.promises import Witness

if TYPE_CHECKING:
    from simulator.scenario.model import Scenario

Array = npt.NDArray[Any]


class ServingError(ValueError):
    """A policy that raised or broke its contract while serving: which arm, which policy, which
    request, what to do.
    """


class Ranks(Protocol):
    """What the desk asks of a ranking stage."""

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """Scores `[B, n]` of candidates `[B, n]` (0 = none), higher is better, each row independent
        of the others.
        """


@dataclass(frozen=True, slots=True)
class Channel:
    """A source of candidates: a fitted policy, how many candidates it is asked for (`quota`), and
    what to call it in a complaint.
    """

    name: str
    policy: Policy
    quota: int


@dataclass(frozen=True, slots=True)
class Served:
    """What a desk gives to a block of requests.

    Attributes:
        slates: `[B, k]`.
        channel: `[B, k]` index of the recall channel of each item, or None: the arm's own policy
            everywhere.
        team: `[B, k]` which of two interleaved arms drafted each item, or None: there is but one.
        recalled: the candidates of the arm's own policy, or None: two arms share the slates.
    """

    slates: Slates
    channel: npt.NDArray[np.uint8] | None = None
    team: npt.NDArray[np.uint8] | None = None
    recalled: Slates | None = None


class Serves(Protocol):
    """What the engine asks of a desk."""

    def serve(self, histories: Histories, k: int) -> Served:
        """Slates of `k` places for the requests; a pure function of them."""


@dataclass(frozen=True)
class Desk:
    """Serves the requests of one arm.

    Attributes:
        arm: name, for complaints; "" where a policy is asked outside an A/B.
        recall: the policy under test.
        channels: recall channels besides it, the same for all arms.
        ranker: the ranking stage, or None: the recall order as it is, the arm's own candidates
            first.
        n_items: items are 1..n_items.
        seed: of stochastic policies; the same in all arms, so that equal arms serve equal slates.
        time_limit: seconds that one call of a policy may take; 0 = any.
        witness: notices what breaks a promise without breaking the form.
    """

    arm: str
    recall: Channel
    channels: tuple[Channel, ...]
    ranker: Ranks | None
    n_items: int
    seed: int
    time_limit: float = 0.0
    witness: Witness = field(default_factory=Witness, compare=False)

    @classmethod
    def of_arm(
        cls,
        scenario: Scenario,
        name: str,
        policies: Sequence[Policy],
        ranker: Ranks | None,
        n_items: int,
        witness: Witness | None = None,
    ) -> Desk:
        """The desk of an arm as its scenario describes it.

        Args:
            scenario: quotas, seed and time limit.
            name: of the arm.
            policies: fitted: the arm's own, then those of the scenario's channels, in their order.
            ranker: the ranking stage, fitted; None: none.
            n_items: items are 1..n_items.
            witness: is told what it notices of the policies.
        """
        own, *others = policies
        serving = scenario.serving
        channels = zip(serving.channels, others, strict=True)
        return cls(
            name,
            Channel(scenario.arms[name].policy, own, serving.recall),
            tuple(Channel(spec.policy, policy, spec.quota) for spec, policy in channels),
            ranker,
            n_items,
            scenario.seed,
            scenario.engine.time_limit,
            witness or Witness(),
        )

    @property
    def shows_recall(self) -> bool:
        """What the arm's own policy recalls is shown as it is: nothing stands behind it."""
        return self.ranker is None and not self.channels

    def filling(self, k: int) -> Desk:
        """The same desk, asking for at least `k` candidates where nothing stands behind recall."""
        if not self.shows_recall or self.recall.quota >= k:
            return self
        return replace(self, recall=replace(self.recall, quota=k))

    def serve(self, histories: Histories, k: int) -> Served:
        """The slates `[B, k]` of `B` requests, and the channel that each item came from.

        Raises:
            ServingError: a policy raised or broke its contract.
        """
        recalled = self._ask(self.recall, histories)
        if self.shows_recall:
            return Served(cut(recalled, k)[0], recalled=recalled)
        lists = [recalled.items, *(self._ask(one, histories).items for one in self.channels)]
        quotas = np.array([part.shape[1] for part in lists])
        items, channel = np.zeros((2, len(histories), quotas.sum()), dtype=np.int64)
        kernels.unite(np.concatenate(lists, axis=1), quotas, self.n_items, items, channel)
        if self.ranker is None:
            place = np.arange(items.shape[1])
            scores = np.where(items > 0, -place, -np.inf).astype(np.float32)
        else:
            scores = self.ranker.score(histories, items)
        slates, places = cut(Slates(items, scores), k)
        return Served(slates, _taken(channel, places, 0).astype(np.uint8), recalled=recalled)

    def _ask(self, channel: Channel, histories: Histories) -> Slates:
        """The candidates of a channel, held to the contract."""
        rule = (
            f"engine.time_limit ({self.time_limit:g} s) in one call; a smaller engine.block or a"
            " higher limit may help"
        )
        warned = self.witness.warned(self.arm, channel.name)
        calls = Calls(channel.policy, channel.name, Limit(self.time_limit, rule), warned=warned)
        try:
            slates = calls.recall(histories, channel.quota, self.seed)
            wrong = fault(slates, histories, self.n_items)
            if wrong is not None:
                raise ServingError(self._says(channel, histories, *wrong))
            self.witness.look(self.arm, calls, histories, slates, self.seed, self.n_items)
        except CallError as error:
            raise ServingError(self._says(channel, histories, 0, error.what)) from error
        return slates

    def _says(self, channel: Channel, histories: Histories, row: int, what: str) -> str:
        user, step = (
            (int(histories.user[row]), int(histories.step[row])) if len(histories) else (-1, -1)
        )
        whose = f"arm {self.arm!r}: " if self.arm else ""
        return (
            f"{whose}policy {channel.name!r}, request of user {user} at step {step}"
            f" (block of {len(histories)}): {what}. Run `abtest policies check {channel.name}` to"
            " find the fault in isolation."
        )


def cut(candidates: Slates, k: int) -> tuple[Slates, IntArray]:
    """The slates `[B, k]` out of scored candidates `[B, n]`: those of highest score, best first,
    equal scores in the order of the candidates; and the column that each came from, -1 = none.

    This is the one place where slates are cut.
    """
    places = np.full((len(candidates), k), -1, dtype=np.int64)
    kernels.best(candidates.items, candidates.scores, places)
    chances = candidates.propensities
    if chances is not None:
        chances = _taken(chances, places, np.nan)
    items, scores = _taken(candidates.items, places, 0), _taken(candidates.scores, places, -np.inf)
    return Slates(items, scores, chances), places


def _taken(values: Array, places: IntArray, empty: float) -> Array:
    """`values` `[B, n]` at the columns `places` `[B, k]`; `empty` where these are -1."""
    taken = np.take_along_axis(values, np.maximum(places, 0), axis=1)
    taken[places < 0] = empty
    return taken
