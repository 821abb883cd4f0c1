"""Off-policy lifts on logs whose truth is known: how often their 95% intervals cover it, how wide
they are, and what choosing among many policies does.

    python -m benchmarks.lifts [--logs 1500]

Two worlds: single items drawn with known probabilities by users of two kinds, three rounds each;
and slates of three of six items (Plackett-Luce) under a cascade. The truth is enumerated.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from simulator.offpolicy.choice import choose
from simulator.offpolicy.lifts import LOGGING, OffPolicyLift, off_policy_lifts
from simulator.offpolicy.replay import Evaluation, ReplaySettings, evaluate
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.target import Target

ROUNDS, USERS = 3000, 1000


@dataclass(frozen=True)
class Law:
    """A policy over single items: the probability of each item for each kind of user,
    `[kinds, items]`.
    """

    name: str
    law: np.ndarray

    def __call__(self, rounds: Rounds) -> Target:
        law = np.concatenate((np.zeros((len(rounds), 1)), self.law[rounds.context]), axis=1)
        probability = np.take_along_axis(law, rounds.item, axis=1)
        return Target(probability, rounds.item[:, None, :], None, law[:, None, :])


class Singles:
    """Single items; the reward depends on the kind of the user and the item, and a user's three
    rounds share a mood.
    """

    items, contexts = 10, 2
    estimators = ("ips", "snips", "dr", "sndr", "clipped_ips", "shrunk_dr")

    def __init__(self, policies: int = 3) -> None:
        random = np.random.Generator(np.random.Philox(key=99))
        self.reward = random.uniform(0.05, 0.6, (2, self.items))
        self.logging = random.dirichlet(np.full(self.items, 2.0), 2)
        wish = random.dirichlet(np.full(self.items, 1.0), 2)
        further = (random.dirichlet(np.full(self.items, 1.0), 2) for _ in range(policies - 1))
        laws = [wish, *(0.7 * wish + 0.3 * other for other in further)]
        self.policies = tuple(Law(f"policy {i}", law) for i, law in enumerate(laws))
        self.truth = {one.name: self._value(one.law) for one in self.policies}
        self.truth[LOGGING] = self._value(self.logging)

    def _value(self, law: np.ndarray) -> float:
        return float((law * self.reward).sum(axis=1).mean())

    def log(self, seed: int) -> Rounds:
        random = np.random.Generator(np.random.Philox(key=[7, seed]))
        user = np.repeat(np.arange(USERS), ROUNDS // USERS)
        kind = random.integers(0, 2, USERS)[user]
        above = random.uniform(size=(ROUNDS, 1)) > self.logging[kind].cumsum(axis=1)
        item = above.sum(axis=1).clip(max=self.items - 1)
        mood = random.uniform(-0.04, 0.04, USERS)[user]
        click = (random.uniform(size=ROUNDS) < self.reward[kind, item] + mood).astype(float)
        return _rounds(
            user, item[:, None] + 1, click[:, None], self.logging[kind, item][:, None], kind
        )


@dataclass(frozen=True)
class PlackettLuce:
    """A policy over slates: items are drawn one after another without replacement, in proportion to
    their `strength` `[items + 1]`.
    """

    name: str
    strength: np.ndarray
    length: int

    def __call__(self, rounds: Rounds) -> Target:
        left = np.tile(self.strength, (len(rounds), self.length, 1))
        for place in range(1, self.length):
            left[np.arange(len(rounds))[:, None], place, rounds.item[:, :place]] = 0.0
        given = left / left.sum(axis=2, keepdims=True)
        random = np.random.Generator(np.random.Philox(key=[9, int(rounds.reward.sum())]))
        slates = self.draw(random, len(rounds))[:, None, :]
        return Target(self.conditional(rounds.item), slates, None, given)

    def conditional(self, slates: np.ndarray) -> np.ndarray:
        """The probability of each item after those above it, `[S, K]`."""
        chosen = self.strength[slates]
        above = np.concatenate((np.zeros((len(slates), 1)), chosen.cumsum(axis=1)[:, :-1]), axis=1)
        return chosen / (self.strength.sum() - above)

    def draw(self, random: np.random.Generator, n: int) -> np.ndarray:
        arrival = random.exponential(size=(n, len(self.strength) - 1)) / self.strength[1:]
        return arrival.argsort(axis=1)[:, : self.length] + 1


class Cascades:
    """Slates of three of six items; a place is rewarded less after good items above."""

    items, length, contexts = 6, 3, 1
    estimators = ("ips", "snips", "rips", "cascade_dr")

    def __init__(self) -> None:
        self.quality = np.array([0.0, 0.55, 0.2, 0.45, 0.3, 0.15, 0.4])
        strengths = {
            "logging": [0.2, 0.0, -0.3, 0.4, 0.1, 0.0],
            "policy 0": [0.9, -0.3, 0.2, -0.2, -0.5, 0.6],
            "policy 1": [0.7, -0.2, 0.4, -0.1, -0.5, 0.3],
        }
        made = {
            name: PlackettLuce(name, np.concatenate(([0.0], np.exp(wish))), self.length)
            for name, wish in strengths.items()
        }
        self.logging = made.pop("logging")
        self.policies = tuple(made.values())
        self.truth = {one.name: self._value(one) for one in self.policies}
        self.truth[LOGGING] = self._value(self.logging)

    def means(self, slates: np.ndarray) -> np.ndarray:
        own = self.quality[slates]
        above = np.concatenate((np.zeros((len(slates), 1)), own.cumsum(axis=1)[:, :-1]), axis=1)
        return own * (1 - 0.4 * above)

    def _value(self, policy: PlackettLuce) -> float:
        slates = np.array(list(permutations(range(1, self.items + 1), self.length)))
        chance = policy.conditional(slates).prod(axis=1)
        return float((chance * self.means(slates).sum(axis=1)).sum())

    def log(self, seed: int) -> Rounds:
        random = np.random.Generator(np.random.Philox(key=[8, seed]))
        slates = self.logging.draw(random, ROUNDS)
        click = (random.uniform(size=slates.shape) < self.means(slates)).astype(float)
        user, kind = np.arange(ROUNDS) % USERS, np.zeros(ROUNDS, dtype=np.int64)
        return _rounds(user, slates, click, self.logging.conditional(slates), kind, "conditional")


World = Singles | Cascades


def _rounds(
    user: np.ndarray,
    item: np.ndarray,
    click: np.ndarray,
    propensity: np.ndarray,
    kind: np.ndarray,
    means: str = "marginal",
) -> Rounds:
    zero, row = np.zeros(len(user), dtype=np.int64), np.arange(len(user))
    place = np.tile(np.arange(item.shape[1]), (len(user), 1))
    return Rounds(user, zero, zero, row, place, item, click, propensity, means, kind)  # type: ignore[arg-type]


def logs(world: World, count: int, estimators: Sequence[str]) -> Iterator[list[Evaluation]]:
    """The evaluations of the world's policies on `count` logs."""
    settings = ReplaySettings(tuple(estimators), resamples=2, contexts=world.contexts)
    for seed in range(count):
        yield evaluate([world.log(seed)], list(world.policies), USERS, world.items, settings)


@dataclass
class Tally:
    """What the lifts of one estimator over one control were, log after log.

    Attributes:
        covered: intervals that held the true lift.
        wider: intervals of the difference wider than that of two separate estimates.
        total: lifts counted.
        gains: `OffPolicyLift.gain` of each.
    """

    covered: int = 0
    wider: int = 0
    total: int = 0
    gains: list[float] = field(default_factory=list)

    def add(self, lift: OffPolicyLift, truth: float) -> None:
        self.total += 1
        self.covered += lift.low <= truth <= lift.high
        self.wider += lift.gain < 1.0
        self.gains.append(lift.gain)


def coverage(
    world: World, count: int, estimators: Sequence[str] = ()
) -> dict[tuple[str, str], Tally]:
    """By estimator and control: how often the interval of the lift of each policy covers it."""
    tallies: dict[tuple[str, str], Tally] = {}
    for found in logs(world, count, estimators or world.estimators):
        for control in (None, world.policies[-1].name):
            for lift in off_policy_lifts(found, control):
                truth = world.truth[lift.policy] / world.truth[lift.control] - 1
                key = lift.estimator, lift.control
                tallies.setdefault(key, Tally()).add(lift, truth)
    return tallies


@dataclass
class Chosen:
    """What one way of choosing among many policies did, log after log.

    Attributes:
        taken: how often it took a policy.
        worse: how often that was worse than the policy that wrote the log.
        broken: how often it promised more than the truth.
        truth: true lift of what it took (0 where it took none), summed.
        promise: the lift that it promised, summed over those taken.
    """

    taken: int = 0
    worse: int = 0
    broken: int = 0
    truth: float = 0.0
    promise: float = 0.0

    def add(self, promise: float, truth: float) -> None:
        self.taken += 1
        self.worse += truth < 0
        self.broken += promise > truth
        self.truth += truth
        self.promise += promise


def choices(policies: int, count: int) -> dict[str, Chosen]:
    """Choosing among `policies` by the largest estimate and by the largest bound."""
    world = Singles(policies)
    by = {"largest estimate": Chosen(), "largest bound": Chosen()}
    for found in logs(world, count, ("ips",)):
        lifts = off_policy_lifts(found)
        truth = {one: value / world.truth[LOGGING] - 1 for one, value in world.truth.items()}
        best = max(lifts, key=lambda lift: lift.lift)
        by["largest estimate"].add(best.lift, truth[best.policy])
        choice = choose(lifts, resamples=2000)
        if choice.pick is not None:
            by["largest bound"].add(choice[choice.pick].bound, truth[choice.pick])
    return by


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", type=int, default=1500, help="synthetic logs of each world")
    count = parser.parse_args().logs
    print(f"{count} logs of {ROUNDS:,} rounds of {USERS:,} users; 95% intervals of the lift")
    print(f"{'world':9} {'estimator':12} {'over':19} {'covered':>8} {'lifts':>6}  ", end="")
    print(f"{'gain: median':>12} {'least':>6} {'wider than separate':>20}")
    for world in (Singles(), Cascades()):
        for (estimator, control), one in coverage(world, count).items():
            name = type(world).__name__.lower()
            print(f"{name:9} {estimator:12} {control:19} {one.covered / one.total:8.1%}", end="")
            gains = np.median(one.gains), np.min(one.gains)
            print(f" {one.total:6}  {gains[0]:12.2f} {gains[1]:6.2f} {one.wider:20}", flush=True)
    print("\nchoosing among policies of the world of single items, by ips")
    print(f"{'policies':>8} {'by':17} {'taken':>6} {'worse':>6} {'true lift':>10} ", end="")
    print(f"{'promised':>9} {'more than true':>15}")
    for policies in (4, 16):
        for by, one in choices(policies, count).items():
            print(f"{policies:8} {by:17} {one.taken / count:6.1%} {one.worse / count:6.1%}", end="")
            print(f" {one.truth / count:+10.2%} {one.promise / one.taken:+9.2%}", end="")
            print(f" {one.broken / count:15.1%}", flush=True)


if __name__ == "__main__":
    main()
