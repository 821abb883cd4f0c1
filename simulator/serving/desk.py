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

from policies.base import (
    Admitting,
    BoolArray,
    Catalogue,
    FloatArray,
    Histories,
    IntArray,
    Policy,
    Slates,
)
from policies.calls import CallError, Calls, Limit
from policies.context import union
from policies.form import fault
from policies.withheld import recall_withholding
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
    """A source of candidates.

    Attributes:
        name: what to call it in a complaint.
        policy: fitted.
        quota: how many candidates it is asked for.
        told: `[n_items + 1]` the items that its fit was told of; None: all.
        barred: items that its requests may not get although it is not told so.
    """

    name: str
    policy: Policy
    quota: int
    told: BoolArray | None = None
    barred: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


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
    """What the engine asks of a desk, and the run that lets it know the catalogue."""

    def admitting(self, catalogue: Catalogue, t: int) -> Serves:
        """The same desk as from `t` (ms) on, when the catalogue is another."""

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
        available: `[n_items + 1]` what may be shown now; None: every item.
    """

    arm: str
    recall: Channel
    channels: tuple[Channel, ...]
    ranker: Ranks | None
    n_items: int
    seed: int
    time_limit: float = 0.0
    witness: Witness = field(default_factory=Witness, compare=False)
    available: BoolArray | None = None

    @classmethod
    def of_arm(
        cls,
        scenario: Scenario,
        name: str,
        policies: Sequence[Policy],
        ranker: Ranks | None,
        n_items: int,
        witness: Witness | None = None,
        told: Sequence[BoolArray | None] | None = None,
    ) -> Desk:
        """The desk of an arm as its scenario describes it.

        Args:
            scenario: quotas, seed and time limit.
            name: of the arm.
            policies: fitted: the arm's own, then those of the scenario's channels, in their order.
            ranker: the ranking stage, fitted; None: none.
            n_items: items are 1..n_items.
            witness: is told what it notices of the policies.
            told: the items that the fit of each policy was told of, as `Channel.told`.
        """
        serving = scenario.serving
        specs = [(scenario.arms[name].policy, serving.recall)]
        specs += [(channel.policy, channel.quota) for channel in serving.channels]
        asked = zip(specs, policies, told or [None] * len(policies), strict=True)
        own, *others = (
            Channel(policy_name, policy, quota, known)
            for (policy_name, quota), policy, known in asked
        )
        return cls(
            name,
            own,
            tuple(others),
            ranker,
            n_items,
            scenario.seed,
            scenario.engine.time_limit,
            witness or Witness(),
        )

    @property
    def asks(self) -> tuple[str, ...]:
        """The context that its policies ask for."""
        return union(one.policy.asked_context() for one in (self.recall, *self.channels))

    @property
    def shows_recall(self) -> bool:
        """What the arm's own policy recalls is shown as it is: nothing stands behind it."""
        return self.ranker is None and not self.channels

    def filling(self, k: int) -> Desk:
        """The same desk, asking for at least `k` candidates where nothing stands behind recall."""
        if not self.shows_recall or self.recall.quota >= k:
            return self
        return replace(self, recall=replace(self.recall, quota=k))

    def admitting(self, catalogue: Catalogue, t: int) -> Desk:
        """The same desk as from `t` (ms) on, when the catalogue is another: policies that can be
        told of it are.

        Raises:
            ServingError: one raised.
        """
        assert catalogue.available is not None
        return replace(
            self,
            recall=self._told(self.recall, catalogue, catalogue.available, t),
            channels=tuple(
                self._told(one, catalogue, catalogue.available, t) for one in self.channels
            ),
            available=catalogue.available,
        )

    def _told(
        self, channel: Channel, catalogue: Catalogue, available: BoolArray, t: int
    ) -> Channel:
        """A channel whose policy is told of the catalogue, or whose requests bar what it does not
        know of.
        """
        told = np.ones_like(available) if channel.told is None else channel.told
        if not isinstance(channel.policy, Admitting):
            return replace(channel, barred=np.flatnonzero(~(available & told)[1:]) + 1)
        try:
            self._calls(channel).admit(catalogue, np.flatnonzero(available & ~told), t)
        except CallError as error:
            raise ServingError(self._blames(channel, "told of new items", error.what)) from error
        return channel

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
        return recall_withholding(
            lambda asked: self._asked(channel, asked), histories, channel.barred
        )

    def _asked(self, channel: Channel, histories: Histories) -> Slates:
        """The candidates for requests that bar what the channel does not know of."""
        calls = self._calls(channel)
        try:
            slates = calls.recall(histories, channel.quota, self.seed)
            wrong = fault(slates, histories, self.n_items) or self._withheld(slates)
            if wrong is not None:
                raise ServingError(self._says(channel, histories, *wrong))
            self.witness.look(
                self.arm, calls, histories, slates, self.seed, self.n_items, self.available
            )
        except CallError as error:
            raise ServingError(self._says(channel, histories, 0, error.what)) from error
        return slates

    def _withheld(self, slates: Slates) -> tuple[int, str] | None:
        """The first item that may not be shown: its request's row and a sentence."""
        if self.available is None:
            return None
        wrong = (slates.items > 0) & ~self.available[slates.items]
        if not wrong.any():
            return None
        row, place = (int(i) for i in np.argwhere(wrong)[0])
        what = f"item {slates.items[row, place]} at place {place} is not available now"
        return row, f"{what}, as `admit` was told"

    def _calls(self, channel: Channel) -> Calls:
        """The policy of a channel as it is called."""
        rule = (
            f"engine.time_limit ({self.time_limit:g} s) in one call; a smaller engine.block or a"
            " higher limit may help"
        )
        warned = self.witness.warned(self.arm, channel.name)
        return Calls(channel.policy, channel.name, Limit(self.time_limit, rule), warned=warned)

    def _says(self, channel: Channel, histories: Histories, row: int, what: str) -> str:
        user, step = (
            (int(histories.user[row]), int(histories.step[row])) if len(histories) else (-1, -1)
        )
        request = f"request of user {user} at step {step} (block of {len(histories)})"
        return self._blames(channel, request, what)

    def _blames(self, channel: Channel, when: str, what: str) -> str:
        whose = f"arm {self.arm!r}: " if self.arm else ""
        return (
            f"{whose}policy {channel.name!r}, {when}: {what}. Run"
            f" `abtest policies check {channel.name}` to find the fault in isolation."
        )


def cut(candidates: Slates, k: int) -> tuple[Slates, IntArray]:
    """The slates `[B, k]` out of scored candidates `[B, n]`: those of highest score, best first,
    equal scores in the order of the candidates; and the column that each came from, -1 = none.

    This is the one place where slates are cut.
    """
    places = np.full((len(candidates), k), -1, dtype=np.int64)
    is_slate = kernels.best(candidates.items, candidates.scores, places)
    chances = candidates.propensities
    if is_slate:
        return Slates(candidates.items, candidates.scores, chances), places
    if chances is not None:
        chances = _taken(chances, places, np.nan)
    items, scores = _taken(candidates.items, places, 0), _taken(candidates.scores, places, -np.inf)
    return Slates(items, scores, chances), places


def _taken(values: Array, places: IntArray, empty: float) -> Array:
    """`values` `[B, n]` at the columns `places` `[B, k]`; `empty` where these are -1."""
    if not values.size:  # no candidate at all
        return np.full(places.shape, empty, dtype=values.dtype)
    first = np.arange(len(values))[:, None] * values.shape[1]
    taken: Array = np.take(values, first + places)
    taken[places < 0] = empty
    return taken
