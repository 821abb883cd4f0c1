"""Coverage of every printed interval over 300 synthetic logs whose truth is known, within
Monte-Carlo error of 95%.
"""

from __future__ import annotations

import numpy as np
import pytest

from simulator.offpolicy.replay import Evaluation, ReplaySettings, evaluate
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.target import Target

LOGS, ROUNDS, ACTIONS, USERS = 300, 3000, 10, 1000
SINGLE = ("ips", "clipped_ips", "snips", "dm", "dr", "sndr", "switch_dr", "shrunk_dr")
SLATE = ("ips", "snips", "rips", "cascade_dr")
PLACES = ("iips", "pseudo_inverse", "dm", "matching")


class SingleWorld:
    """Users of two kinds; the reward depends on the kind, the item and on nothing else; three
    rounds a user, which share a mood.
    """

    def __init__(self) -> None:
        random = np.random.Generator(np.random.Philox(key=99))
        self.reward = random.uniform(0.05, 0.6, (2, ACTIONS))
        self.logging = random.dirichlet(np.full(ACTIONS, 2.0), 2)
        self.law = random.dirichlet(np.full(ACTIONS, 1.0), 2)
        self.truth = float((self.law * self.reward).sum(axis=1).mean())

    def log(self, seed: int) -> Rounds:
        random = np.random.Generator(np.random.Philox(key=[7, seed]))
        user = np.repeat(np.arange(USERS), ROUNDS // USERS)
        kind = random.integers(0, 2, USERS)[user]
        action = (
            (random.uniform(size=(ROUNDS, 1)) > self.logging[kind].cumsum(axis=1))
            .sum(axis=1)
            .clip(max=ACTIONS - 1)
        )
        mood = random.uniform(-0.04, 0.04, USERS)[user]
        click = (random.uniform(size=ROUNDS) < self.reward[kind, action] + mood).astype(float)
        zero = np.zeros(ROUNDS, dtype=np.int64)
        propensity = self.logging[kind, action]
        row = np.arange(ROUNDS)
        return Rounds(
            user,
            zero,
            zero,
            row,
            zero[:, None],
            action[:, None] + 1,
            click[:, None],
            propensity[:, None],
            "marginal",
            kind,
        )

    name = "target"

    def __call__(self, rounds: Rounds) -> Target:
        law = np.concatenate((np.zeros((len(rounds), 1)), self.law[rounds.context]), axis=1)
        probability = np.take_along_axis(law, rounds.item, axis=1)
        return Target(probability, rounds.item[:, None, :], None, law[:, None, :])


class SlateWorld:
    """Plackett-Luce slates of 3 of 6 items under a cascade: a place is rewarded less after good
    items above.
    """

    length, items = 3, 6
    name = "target"

    def __init__(self) -> None:
        self.quality = np.array([0.0, 0.55, 0.2, 0.45, 0.3, 0.15, 0.4])
        self.logging = np.concatenate(([0.0], np.exp([0.2, 0.0, -0.3, 0.4, 0.1, 0.0])))
        self.wanted = np.concatenate(([0.0], np.exp([0.9, -0.3, 0.2, -0.2, -0.5, 0.6])))
        self.truth = self._exact()

    def conditional(self, strength: np.ndarray, slates: np.ndarray) -> np.ndarray:
        chosen = strength[slates]
        return chosen / (
            strength.sum()
            - np.concatenate((np.zeros((len(slates), 1)), chosen.cumsum(axis=1)[:, :-1]), axis=1)
        )

    def means(self, slates: np.ndarray) -> np.ndarray:
        own = self.quality[slates]
        above = np.concatenate((np.zeros((len(slates), 1)), own.cumsum(axis=1)[:, :-1]), axis=1)
        return own * (1 - 0.4 * above)

    def _exact(self) -> float:
        from itertools import permutations

        slates = np.array(list(permutations(range(1, self.items + 1), self.length)))
        return float(
            (
                self.conditional(self.wanted, slates).prod(axis=1) * self.means(slates).sum(axis=1)
            ).sum()
        )

    def draw(self, random: np.random.Generator, strength: np.ndarray, n: int) -> np.ndarray:
        arrival = random.exponential(size=(n, self.items)) / strength[1:]
        return arrival.argsort(axis=1)[:, : self.length] + 1

    def log(self, seed: int) -> Rounds:
        random = np.random.Generator(np.random.Philox(key=[8, seed]))
        slates = self.draw(random, self.logging, ROUNDS)
        click = (random.uniform(size=slates.shape) < self.means(slates)).astype(float)
        zero, row = np.zeros(ROUNDS, dtype=np.int64), np.arange(ROUNDS)
        place = np.tile(np.arange(self.length), (ROUNDS, 1))
        propensity = self.conditional(self.logging, slates)
        return Rounds(
            row % USERS, zero, zero, row, place, slates, click, propensity, "conditional", zero
        )

    def __call__(self, rounds: Rounds) -> Target:
        random = np.random.Generator(np.random.Philox(key=[9, int(rounds.reward.sum())]))
        left = np.tile(self.wanted, (len(rounds), self.length, 1))
        for place in range(1, self.length):
            left[np.arange(len(rounds))[:, None], place, rounds.item[:, :place]] = 0.0
        given = left / left.sum(axis=2, keepdims=True)
        slates = self.draw(random, self.wanted, len(rounds))[:, None, :]
        return Target(self.conditional(self.wanted, rounds.item), slates, None, given)


class PlacesWorld:
    """Three places filled independently and uniformly from six items; rewards of places add up; the
    log knows its marginals.
    """

    length, items = 3, 6
    name = "target"

    def __init__(self) -> None:
        random = np.random.Generator(np.random.Philox(key=98))
        self.reward = random.uniform(0.05, 0.6, (self.length, self.items))
        self.law = random.dirichlet(np.full(self.items, 0.7), self.length)
        self.truth = float((self.law * self.reward).sum())

    def log(self, seed: int) -> Rounds:
        random = np.random.Generator(np.random.Philox(key=[10, seed]))
        item = random.integers(0, self.items, (ROUNDS, self.length))
        place = np.tile(np.arange(self.length), (ROUNDS, 1))
        click = (random.uniform(size=item.shape) < self.reward[place, item]).astype(float)
        zero, row = np.zeros(ROUNDS, dtype=np.int64), np.arange(ROUNDS)
        return Rounds(
            row % USERS,
            zero,
            zero,
            row,
            place,
            item + 1,
            click,
            np.full(item.shape, 1 / self.items),
            "marginal",
            zero,
        )

    def __call__(self, rounds: Rounds) -> Target:
        random = np.random.Generator(np.random.Philox(key=[11, int(rounds.reward.sum())]))
        noise = random.uniform(size=(*rounds.item.shape, 1))
        drawn = (noise > self.law.cumsum(axis=1)).sum(axis=2).clip(max=self.items - 1) + 1
        return Target(self.law[rounds.position, rounds.item - 1], drawn[:, None, :])


World = SingleWorld | SlateWorld | PlacesWorld
WORLDS: dict[str, tuple[type[World], tuple[str, ...], int]] = {
    "single": (SingleWorld, SINGLE, ACTIONS),
    "slate": (SlateWorld, SLATE, SlateWorld.items),
    "places": (PlacesWorld, PLACES, PlacesWorld.items),
}


def _covered(world: World, settings: ReplaySettings, n_items: int) -> dict[tuple[str, str], float]:
    """How often each printed interval holds the truth (of a place, where a figure is per
    impression).
    """
    hits: dict[tuple[str, str], int] = {}
    for seed in range(LOGS):
        found: Evaluation
        (found,) = evaluate([world.log(seed)], [world], USERS, n_items, settings)
        for estimate in found.estimates:
            truth = world.truth if estimate.unit == "request" else world.truth / PlacesWorld.length
            for interval in estimate.intervals:
                key = (estimate.estimator, interval.method)
                hits[key] = hits.get(key, 0) + interval.covers(truth)
    return {key: count / LOGS for key, count in hits.items()}


@pytest.mark.parametrize("kind", WORLDS)
def test_every_printed_interval_covers_as_often_as_it_says(kind: str) -> None:
    make, names, n_items = WORLDS[kind]
    settings = ReplaySettings(names, resamples=300, contexts=2 if kind == "single" else 1)
    shares = _covered(make(), settings, n_items)
    assert {name for name, _ in shares} == set(names)
    error = float(np.sqrt(0.95 * 0.05 / LOGS))
    for (name, method), share in sorted(shares.items()):
        print(f"{name:12} {method:10} {share:.3f}")
        assert share >= 0.95 - 3 * error, (name, method, share)
        if method != "bernstein":  # which is wide by design
            assert share <= 0.95 + 3.1 * error, (name, method, share)
