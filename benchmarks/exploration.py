"""Planned against realised: does the exploration that `abtest power --replay` plans give an
off-policy lift the wanted width?

    python -m benchmarks.exploration [--logs 60]

A pilot of 1,500 users is planned from; then logs of the planned size are drawn, by the pilot's
logging policy and by two others, over as long as the pilot and over three times as long, and the
lift is estimated on each. Single items, and slates of three of six items (Plackett-Luce); a user's
rounds share a mood.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from simulator.offpolicy.exploration import OWN, explore_pilot
from simulator.offpolicy.lifts import off_policy_lifts
from simulator.offpolicy.replay import ReplaySettings, evaluate
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.target import Target

USERS, PER_USER, DAYS = 1500, 4, 2
WIDTHS = (0.01, 0.02)
"""Half-widths that are planned for."""
WITHIN = 0.15


@dataclass(frozen=True)
class PlackettLuce:
    """A policy over slates drawn without replacement by the strengths `[kinds, items + 1]` of the
    items for each kind of user (column 0 is no item).
    """

    name: str
    strength: np.ndarray

    def chance(self, kind: np.ndarray, slates: np.ndarray) -> np.ndarray:
        chosen = np.take_along_axis(self.strength[kind], slates, axis=1)
        above = np.concatenate((np.zeros((len(slates), 1)), chosen.cumsum(axis=1)[:, :-1]), axis=1)
        out: np.ndarray = chosen / (self.strength[kind].sum(axis=1)[:, None] - above)
        return out

    def __call__(self, rounds: Rounds) -> Target:
        return Target(self.chance(rounds.context, rounds.item), rounds.item[:, None, :])


class ExplorationWorld:
    """Users of two kinds; slates of `length` of six items whose rewards are their own.

    Attributes:
        target, control: the lift that is wanted.
        loggings: the pilot's first.
    """

    items = 6

    def __init__(self, length: int) -> None:
        random = np.random.Generator(np.random.Philox(key=[23, length]))
        self.length = length
        self.reward = np.concatenate((np.zeros((2, 1)), random.uniform(0.1, 0.6, (2, 6))), axis=1)
        taste = random.normal(size=(2, 6))

        def policy(name: str, sharpness: float, own: float) -> PlackettLuce:
            score = sharpness * taste + own * 3.0 * self.reward[:, 1:]
            return PlackettLuce(name, np.concatenate((np.zeros((2, 1)), np.exp(score)), axis=1))

        self.control, self.target = policy("control", 0.8, 0.0), policy("target", 0.6, 0.4)
        self.loggings = (
            policy("pilot", 0.5, 0.0),
            policy("uniform", 0.0, 0.0),
            policy("greedier", 0.7, 0.1),
        )

    def log(self, logging: PlackettLuce, users: int, per_user: int, days: int, seed: int) -> Rounds:
        """Rounds of some users, `per_user` each, over some days."""
        random = np.random.Generator(np.random.Philox(key=[31, seed]))
        n = users * per_user
        user = np.repeat(np.arange(users), per_user)
        kind = random.integers(0, 2, users)[user]
        arrival = random.exponential(size=(n, self.items)) / logging.strength[kind, 1:]
        slates = arrival.argsort(axis=1)[:, : self.length] + 1
        mood = random.uniform(-0.1, 0.1, users)[user]
        means = np.take_along_axis(self.reward[kind], slates, axis=1) + mood[:, None]
        click = (random.uniform(size=slates.shape) < means).astype(float)
        day = np.tile(np.arange(per_user), users) * days // per_user
        place = np.tile(np.arange(self.length), (n, 1))
        chance = logging.chance(kind, slates)
        row = np.arange(n) * self.length
        return Rounds(user, day, day, row, place, slates, click, chance, "conditional", kind)


def realised(
    world: ExplorationWorld, logging: PlackettLuce, requests: float, days: int, logs: int
) -> tuple[float, float]:
    """Mean half-width of the printed intervals, and 1.96 standard deviations of the lifts."""
    per_user = PER_USER * days // DAYS
    users = max(round(requests / per_user), 10)
    name = "snips" if world.length == 1 else "rips"
    halves, lifts = [], []
    for seed in range(logs):
        rounds = world.log(logging, users, per_user, days, 1000 + seed)
        settings = ReplaySettings((name,), resamples=20)
        both = evaluate([rounds], [world.target, world.control], users, world.items, settings)
        (lift,) = off_policy_lifts(both, "control")
        halves.append((lift.high - lift.low) / 2)
        lifts.append(lift.lift)
    return float(np.mean(halves)), 1.96 * float(np.std(lifts, ddof=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", type=int, default=60, help="of each planned size")
    given = parser.parse_args()
    print("| | logging policy | days | planned | requests | printed | 1.96 sd | within 15% |")
    print("|---|---|---:|---:|---:|---:|---:|---|")
    held = total = 0
    for length in (1, 3):
        world = ExplorationWorld(length)
        pilot = explore_pilot(
            [world.log(world.loggings[0], USERS, PER_USER, DAYS, 7)],
            world.target,
            world.control,
            world.loggings[1:],
            USERS,
            world.items,
        )
        by_name = {OWN: world.loggings[0], **{one.name: one for one in world.loggings[1:]}}
        for half in WIDTHS:
            for plan in pilot.plans(half, (DAYS, 3 * DAYS)):
                logging = by_name[plan.logging]
                printed, spread = realised(world, logging, plan.requests, plan.days, given.logs)
                good = abs(printed / half - 1) <= WITHIN
                held, total = held + good, total + 1
                kind = "single items" if length == 1 else "slates of 3"
                print(
                    f"| {kind} | {plan.logging} | {plan.days} | ±{half:.0%} |"
                    f" {plan.requests:,.0f} | ±{printed:.2%} | ±{spread:.2%} |"
                    f" {'yes' if good else 'no'} |",
                    flush=True,
                )
    print(f"\n{held} of {total} within 15%")


if __name__ == "__main__":
    main()
