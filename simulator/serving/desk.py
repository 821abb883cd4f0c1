"""The serving desk: from requests to slates. Recall of the arm, the other channels, ranking, slate;
every policy is held to its contract.

The desk knows no time and no users; it is a pure function of the requests, so blocks may be cut
anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from policies.base import FloatArray, Histories, IntArray, Policy, Slates
from policies.calls import CallError, Calls, Limit
from policies.form import fault
from simulator.serving import kernels
from simulator.serving.promises import Witness


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
    """A source of candidates: a fitted policy, how many candidates it gives, and what to call it in
    a complaint.
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
    """

    slates: Slates
    channel: npt.NDArray[np.uint8] | None = None
    team: npt.NDArray[np.uint8] | None = None


class Serves(Protocol):
    """What the engine asks of a desk."""

    def serve(self, histories: Histories, k: int) -> Served:
        """Slates of `k` places for the requests; a pure function of them."""


@dataclass(frozen=True)
class Desk:
    """Serves the requests of one arm.

    Attributes:
        arm: name, for complaints.
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

    def serve(self, histories: Histories, k: int) -> Served:
        """The slates `[B, k]` of `B` requests, and the channel that each item came from.

        Raises:
            ServingError: a policy raised or broke its contract.
        """
        own = self._ask(self.recall, histories)
        if self.ranker is None and not self.channels:
            return Served(_first(own, k))
        lists = [own.items, *(self._ask(channel, histories).items for channel in self.channels)]
        items, channel = np.zeros(
            (2, len(histories), sum(part.shape[1] for part in lists)), dtype=np.int64
        )
        quotas = np.array([part.shape[1] for part in lists])
        kernels.unite(np.concatenate(lists, axis=1), quotas, self.n_items, items, channel)
        if self.ranker is None:
            place = np.arange(items.shape[1])
            scores = np.where(items > 0, -place, -np.inf).astype(np.float32)
        else:
            scores = self.ranker.score(histories, items)
        top = np.zeros((len(histories), k), dtype=np.int64)
        top_scores = np.full(top.shape, -np.inf, dtype=np.float32)
        top_channel = np.zeros(top.shape, dtype=np.uint8)
        kernels.best(items, scores, channel, top, top_scores, top_channel)
        return Served(Slates(top, top_scores), top_channel)

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
        return (
            f"arm {self.arm!r}: policy {channel.name!r}, request of user {user} at step {step}"
            f" (block of {len(histories)}): {what}. Run `abtest policies check {channel.name}` to"
            " find the fault in isolation."
        )


def _first(slates: Slates, k: int) -> Slates:
    """The first `k` places; narrower recall is padded with no items."""
    missing = k - slates.items.shape[1]
    if missing > 0:
        pad = ((0, 0), (0, missing))
        p = slates.propensities
        return Slates(
            np.pad(slates.items, pad),
            np.pad(slates.scores, pad, constant_values=-np.inf),
            None if p is None else np.pad(p, pad, constant_values=np.nan),
        )
    p = slates.propensities
    return Slates(slates.items[:, :k], slates.scores[:, :k], None if p is None else p[:, :k])
