"""The serving desk: from requests to slates. Recall of the arm, the other channels, ranking, slate; every policy is held to its contract.

The desk knows no time and no users; it is a pure function of the requests, so blocks may be cut anywhere.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from policies.base import FloatArray, Histories, IntArray, Policy, Slates
from simulator import kernels


class ServingError(ValueError):
    """A policy that raised or broke its contract while serving: which arm, which policy, which request, what to do."""


class Ranks(Protocol):
    """What the desk asks of a ranking stage."""

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """Scores `[B, n]` of candidates `[B, n]` (0 = none), higher is better, each row independent of the others."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A source of candidates: a fitted policy, how many candidates it gives, and what to call it in a complaint."""

    name: str
    policy: Policy
    quota: int


@dataclass(frozen=True, slots=True)
class Served:
    """What a desk gives to a block of requests.

    Attributes:
        slates: `[B, k]`.
        channel: `[B, k]` index of the recall channel of each item, or None: the arm's own policy everywhere.
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
        ranker: the ranking stage, or None: the recall order as it is, the arm's own candidates first.
        n_items: items are 1..n_items.
        seed: of stochastic policies; the same in all arms, so that equal arms serve equal slates.
        time_limit: seconds that one call of a policy may take; 0 = any.
    """

    arm: str
    recall: Channel
    channels: tuple[Channel, ...]
    ranker: Ranks | None
    n_items: int
    seed: int
    time_limit: float = 0.0

    def serve(self, histories: Histories, k: int) -> Served:
        """The slates `[B, k]` of `B` requests, and the channel that each item came from.

        Raises:
            ServingError: a policy raised or broke its contract.
        """
        own = self._ask(self.recall, histories)
        if self.ranker is None and not self.channels:
            return Served(_first(own, k))
        lists = [own.items, *(self._ask(channel, histories).items for channel in self.channels)]
        items, channel = np.zeros((2, len(histories), sum(part.shape[1] for part in lists)), dtype=np.int64)
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
        try:
            with within(self.time_limit):
                slates = channel.policy.recall(histories, channel.quota, self.seed)
        except OutOfTime as error:
            rule = f"one call took longer than engine.time_limit ({self.time_limit:g} s); a smaller engine.block or a higher limit may help"
            raise ServingError(self._says(channel, histories, 0, rule)) from error
        except Exception as error:  # a plug-in may raise anything
            raise ServingError(self._says(channel, histories, 0, f"recall {raised(error)}")) from error
        self._inspect(channel, histories, slates)
        return slates

    def _inspect(self, channel: Channel, histories: Histories, slates: Any) -> None:
        expected = (len(histories), channel.quota)
        if not isinstance(slates, Slates):
            raise ServingError(self._says(channel, histories, 0, f"must return policies.base.Slates; got {type(slates).__name__}"))
        for name in ("items", "scores", "propensities", "interest"):
            values = getattr(slates, name)
            optional = name in ("propensities", "interest")
            if values is None and optional:
                continue
            if not isinstance(values, np.ndarray) or values.shape != expected:
                shape = getattr(values, "shape", type(values).__name__)
                raise ServingError(self._says(channel, histories, 0, f"{name} must have shape [B, k] = {expected}; got {shape}"))
        if slates.items.dtype.kind != "i":
            raise ServingError(self._says(channel, histories, 0, f"items must be integers; got {slates.items.dtype}"))
        what, row, column = kernels.inspect(slates.items, slates.scores, histories.seen, self.n_items)
        if what != kernels.FINE:
            item, score = slates.items[row, column], slates.scores[row, column]
            rule = _RULES[what].format(item=item, score=score, n_items=self.n_items, place=column)
            raise ServingError(self._says(channel, histories, row, rule))
        if slates.propensities is not None:
            row, column = kernels.improper(slates.items, slates.propensities)
            if row >= 0:
                rule = f"the propensity at place {column} must be in (0, 1]; got {slates.propensities[row, column]}"
                raise ServingError(self._says(channel, histories, row, rule))

    def _says(self, channel: Channel, histories: Histories, row: int, what: str) -> str:
        user, step = (int(histories.user[row]), int(histories.step[row])) if len(histories) else (-1, -1)
        return (
            f"arm {self.arm!r}: policy {channel.name!r}, request of user {user} at step {step} (block of {len(histories)}): {what}. "
            f"Run `abtest policies check {channel.name}` to find the fault in isolation."
        )


def raised(error: BaseException) -> str:
    """What a plug-in raised, and where: `raised ValueError: ... at mine.py:12`."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"raised {type(error).__name__}: {error}{place}"


_RULES = {
    kernels.UNKNOWN_ITEM: "items must be 0 or of 1..{n_items}; got {item} at place {place}",
    kernels.SEEN_ITEM: "item {item} at place {place} is in histories.seen and must not be recalled",
    kernels.REPEATED_ITEM: "item {item} at place {place} stands in the row twice",
    kernels.GAP: "0 may only stand at the end of a row; item {item} at place {place} follows one",
    kernels.NOT_A_NUMBER: "the score of item {item} at place {place} is NaN",
    kernels.NOT_SORTED: "scores must not increase along a row; the score {score} at place {place} is above the one before it",
}


class OutOfTime(BaseException):
    """Not an Exception, so that a plug-in's own `except Exception` does not swallow it."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Interrupt what is inside after `seconds`: in a main thread, where Python gets control again (not within one native call)."""
    if seconds <= 0 or threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def alarm(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
