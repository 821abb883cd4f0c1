"""Rollouts of policies from logs whose truth is known: how often their intervals hold it.

    python -m benchmarks.rollouts [--logs 300]

Users of four kinds like the tags of a small catalogue differently, which the logging policy knows
and its log does not say. A feed shows nothing twice. Each log has ten requests of each user, drawn
by Plackett-Luce with known propensities; the last four are replayed. One target shows the items
that were clicked most; the other turns to the tags that the user has clicked, so that its own
slates decide what it shows next. The truth is the mean over many users who lived through the same
ten requests, the last four with the target.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from policies.base import (
    Catalogue,
    DoubleArray,
    Fitting,
    Histories,
    IntArray,
    Policy,
    Sequences,
    Slates,
    silent,
)
from policies.retrieval import top_k
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.offpolicy.replay import Estimate, ReplaySettings
from simulator.offpolicy.rollout import Rollout
from simulator.offpolicy.rounds import Stream
from simulator.offpolicy.target import alone

KINDS, TAGS, ITEMS, SLATE = 4, 5, 60, 3
BEFORE, REPLAYED = 6, 4
EPSILON = 0.4
"""Share of uniform exploration in the log."""


@dataclass
class TagFeed(Policy):
    """Ranks by a fixed score of each item and by how often the history clicked on its tag.

    Attributes:
        turning: what a click of the history adds to all items of its tag.
    """

    turning: float = 0.0
    scores: tuple[float, ...] = ()
    tags: tuple[int, ...] = ()

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> TagFeed:
        """Nothing is learned."""
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The items of largest score that were not seen."""
        tag = np.array(self.tags)
        clicks = np.zeros((len(histories), max(self.tags) + 1))
        row, at = np.nonzero(histories.clicked & (histories.items > 0))
        np.add.at(clicks, (row, tag[histories.items[row, at]]), 1.0)
        score = np.array(self.scores) + self.turning * clicks[:, tag]
        return Slates(*top_k(score.astype(np.float32), k, histories.seen))

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> TagFeed:
        """Nothing."""
        return self


class Feed:
    """The world: who likes what, and the law of its log."""

    def __init__(self) -> None:
        random = np.random.Generator(np.random.Philox(key=61))
        self.tag = np.concatenate(([0], random.integers(0, TAGS, ITEMS)))
        quality = np.concatenate(([0.0], random.normal(0, 0.6, ITEMS)))
        self.logit = -1.3 + quality + random.normal(0, 0.9, (KINDS, TAGS))[:, self.tag]
        self.quality = quality
        self.catalogue = Catalogue(0, ITEMS, {"tag": self.tag})

    def targets(self) -> list[tuple[str, TagFeed]]:
        """The policies whose values are asked for."""
        scores, tags = tuple(self.quality.tolist()), tuple(self.tag.tolist())
        return [
            ("the best items", TagFeed(0.0, scores, tags)),
            ("tags that were clicked", TagFeed(0.4, scores, tags)),
        ]

    def lives(
        self, random: np.random.Generator, n_users: int, target: TagFeed | None
    ) -> tuple[IntArray, IntArray, DoubleArray]:
        """Items, clicks and propensities `[n_users, requests, SLATE]`; the last REPLAYED requests
        are the target's, or the log's where there is none.
        """
        kind = random.integers(0, KINDS, n_users)
        level = random.normal(0, 0.5, n_users)
        shape = n_users, BEFORE + REPLAYED, SLATE
        items, clicks, chance = np.zeros(shape, int), np.zeros(shape, int), np.ones(shape)
        strength = np.exp(1.2 * self.logit[kind])
        strength[:, 0] = 0.0
        for turn in range(shape[1]):
            past = items[:, :turn].reshape(n_users, -1)
            if target is not None and turn >= BEFORE:
                clicked = clicks[:, :turn].reshape(n_users, -1) > 0
                user = np.arange(n_users)
                asked = Histories(user, np.full(n_users, turn), past, clicked, past)
                items[:, turn] = target.recall(asked, SLATE, 0).items
            else:
                self._draw(random, strength, past, items[:, turn], chance[:, turn])
            logit = np.take_along_axis(self.logit[kind], items[:, turn], axis=1)
            p = 1 / (1 + np.exp(-logit - level[:, None]))
            clicks[:, turn] = random.uniform(size=p.shape) < p
        return items, clicks, chance

    @staticmethod
    def _draw(
        random: np.random.Generator,
        strength: DoubleArray,
        past: IntArray,
        items: IntArray,
        chance: DoubleArray,
    ) -> None:
        """Fill a slate and its conditional propensities."""
        left, every = strength.copy(), np.arange(len(strength))
        free = np.ones_like(left)
        free[:, 0] = 0.0
        np.put_along_axis(free, past, 0.0, axis=1)
        free[:, 0] = 0.0
        left *= free
        law = (1 - EPSILON) * left / left.sum(axis=1, keepdims=True)
        law += EPSILON * free / free.sum(axis=1, keepdims=True)
        for place in range(SLATE):
            law /= law.sum(axis=1, keepdims=True)
            drawn = (random.uniform(size=(len(law), 1)) > law.cumsum(axis=1)).sum(axis=1)
            items[:, place] = np.minimum(drawn, ITEMS)
            chance[:, place] = law[every, items[:, place]]
            law[every, items[:, place]] = 0.0

    def log(self, seed: int, n_users: int) -> EventLog:
        """A log of the logging policy; the replayed requests have t >= 0."""
        random = np.random.Generator(np.random.Philox(key=[62, seed]))
        items, clicks, chance = self.lives(random, n_users, None)
        user, turn, place = np.indices(items.shape)
        columns = {
            "user": user,
            "session": turn,
            "request": np.zeros_like(user),
            "position": place,
            "t": (turn - BEFORE) * DAY // 2,
            "item": items,
            "click": clicks.astype(np.int8),
            "propensity": chance.astype(np.float32),
        }
        flat = {name: column.ravel() for name, column in columns.items()}
        metadata = Metadata(("history",), n_users, ITEMS, propensity="conditional")
        return EventLog.from_columns(flat, metadata)

    def truth(self, target: TagFeed, n_users: int = 200_000) -> float:
        """Clicks per request of the target."""
        random = np.random.Generator(np.random.Philox(key=63))
        total = 0
        for _ in range(0, n_users, 10_000):
            _, clicks, _ = self.lives(random, 10_000, target)
            total += clicks[:, BEFORE:].sum()
        return float(total / n_users / REPLAYED)


def estimates(feed: Feed, seed: int, n_users: int) -> Iterator[Estimate]:
    """The rollouts of each target from one log."""
    log = feed.log(seed, n_users)
    catalogue = Catalogue(n_users, ITEMS, feed.catalogue.items)
    past = log.sequences(before=0)
    memory = (BEFORE + REPLAYED) * SLATE
    stream = Stream(log, "click", "history", 0, memory)
    rollout = Rollout.of(stream, past, catalogue, seed, silent)
    settings = ReplaySettings((), resamples=200, seed=seed)
    for name, target in feed.targets():
        yield from rollout.estimates(name, [alone(name, target, ITEMS)], settings)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", type=int, default=300, help="seeds 0, 1, ...")
    parser.add_argument("--users", type=int, default=400)
    given = parser.parse_args()
    feed = Feed()
    truth = {name: feed.truth(target) for name, target in feed.targets()}
    found = [list(estimates(feed, seed, given.users)) for seed in range(given.logs)]
    print(f"{given.logs} logs of {given.users} users, {BEFORE + REPLAYED} slates of {SLATE} each")
    for ones in zip(*found, strict=True):
        name, estimator = ones[0].policy, ones[0].estimator
        value, error = (np.array([getattr(one, k) for one in ones]) for k in ("value", "error"))
        held = [
            np.mean([one.interval(method).covers(truth[name]) for one in ones])
            for method in ("delta", "bootstrap")
        ]
        print(
            f"{name:24} {estimator:10} truth {truth[name]:.4f}  mean {value.mean():.4f}"
            f" ({value.mean() / truth[name] - 1:+.2%})  sd {value.std():.4f}"
            f"  error {error.mean():.4f}  covered: delta {held[0]:.1%}, bootstrap {held[1]:.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
