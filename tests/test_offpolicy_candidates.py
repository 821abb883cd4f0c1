"""Candidate-level estimators: exact by enumeration, and their intervals over 300 logs of a
two-stage recommender whose truth is known.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from simulator.offpolicy.candidates import CandidateIPS
from simulator.offpolicy.evidence import Evidence
from simulator.offpolicy.replay import Evaluation, ReplaySettings, evaluate
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.settings import ESTIMATORS
from simulator.offpolicy.target import Target

LOGS, ROUNDS, USERS = 300, 1000, 500
NAMES = ("candidate_ips", "candidate_snips", "candidate_dr")


class TwoStageWorld:
    """Slates of 3 of 8 items by Plackett-Luce; users of two kinds, whose items differ. The target's
    recall brings 5 of the items to a ranking stage, which shows the best 3 of them by its scores.
    An item's reward is its own, whatever stands around it.
    """

    name = "target"
    length, items = 3, 8

    def __init__(self, kind: str = "conditional") -> None:
        random = np.random.Generator(np.random.Philox(key=41))
        self.kind = kind
        self.reward = np.concatenate((np.zeros((2, 1)), random.uniform(0.05, 0.6, (2, 8))), axis=1)
        self.strength = np.concatenate((np.zeros((2, 1)), random.gamma(2.0, size=(2, 8))), axis=1)
        recalled = np.array([[1, 3, 4, 6, 8], [2, 3, 5, 7, 8]])
        score = np.take_along_axis(self.reward, recalled, 1) + random.normal(0, 0.2, (2, 5))
        best = np.argsort(-score, axis=1)[:, : self.length]
        self.slate = np.take_along_axis(recalled, best, axis=1)
        self.truth = float(np.take_along_axis(self.reward, self.slate, axis=1).sum(axis=1).mean())

    def conditional(self, kind: np.ndarray, slates: np.ndarray) -> np.ndarray:
        chosen = np.take_along_axis(self.strength[kind], slates, axis=1)
        above = np.concatenate((np.zeros((len(slates), 1)), chosen.cumsum(axis=1)[:, :-1]), axis=1)
        out: np.ndarray = chosen / (self.strength[kind].sum(axis=1)[:, None] - above)
        return out

    def log(self, seed: int) -> Rounds:
        random = np.random.Generator(np.random.Philox(key=[17, seed]))
        user = np.arange(ROUNDS) % USERS
        kind = random.integers(0, 2, USERS)[user]
        if self.kind == "conditional":
            arrival = random.exponential(size=(ROUNDS, self.items)) / self.strength[kind, 1:]
            slates = arrival.argsort(axis=1)[:, : self.length] + 1
            chance = self.conditional(kind, slates)
        else:
            law = self.strength[kind] / self.strength[kind].sum(axis=1)[:, None]
            noise = random.uniform(size=(ROUNDS, self.length, 1))
            slates = (noise > law.cumsum(axis=1)[:, None, :]).sum(axis=2).clip(1, self.items)
            chance = np.take_along_axis(law, slates, axis=1)
        mood = random.uniform(-0.04, 0.04, USERS)[user]
        means = np.take_along_axis(self.reward[kind], slates, axis=1) + mood[:, None]
        click = (random.uniform(size=slates.shape) < means).astype(float)
        return self.rounds(user, kind, slates, click, chance)

    def rounds(
        self,
        user: np.ndarray,
        kind: np.ndarray,
        slates: np.ndarray,
        reward: np.ndarray,
        chance: np.ndarray,
    ) -> Rounds:
        zero = np.zeros(len(user), dtype=np.int64)
        place = np.tile(np.arange(self.length), (len(user), 1))
        row = np.arange(len(user)) * self.length
        how = self.kind
        return Rounds(user, zero, zero, row, place, slates, reward, chance, how, kind)  # type: ignore[arg-type]

    def __call__(self, rounds: Rounds) -> Target:
        slate = self.slate[rounds.context]
        agree = (slate == rounds.item).astype(np.float64)
        return Target(agree, slate[:, None, :], deterministic=True)


def test_the_weights_are_unbiased_by_enumeration() -> None:
    """Over all 336 slates with their probabilities: the mean of the weighted rewards is the reward
    of the target's slate, whatever stands where.
    """
    world = TwoStageWorld()
    slates = np.array(list(permutations(range(1, world.items + 1), world.length)))
    for kind in (0, 1):
        kinds = np.full(len(slates), kind)
        chance = world.conditional(kinds, slates)
        reward = np.take_along_axis(world.reward[kinds], slates, axis=1)
        rounds = world.rounds(np.arange(len(slates)), kinds, slates, reward, chance)
        e = Evidence(rounds, world(rounds))
        ((above, below),) = CandidateIPS().ratios(e)
        assert below is None
        law = chance.prod(axis=1)
        assert law.sum() == pytest.approx(1.0)
        truth = world.reward[kind, world.slate[kind]].sum()
        assert (law * above).sum() == pytest.approx(truth, abs=1e-12)
        assert (law * e.mean_item_weight).sum() == pytest.approx(1.0, abs=1e-12)


def found(kind: str) -> list[Evaluation]:
    world = TwoStageWorld(kind)
    settings = ReplaySettings(NAMES, resamples=200, contexts=2)
    return [
        evaluate([world.log(seed)], [world], USERS, world.items, settings)[0]
        for seed in range(LOGS)
    ]


@pytest.mark.parametrize("kind", ["conditional", "marginal"])
def test_intervals_cover_the_truth_of_the_two_stages(kind: str) -> None:
    """95% within 4 standard errors of a count over 300 logs, no bias, and the doubly robust one is
    the sharpest.
    """
    truth, evaluations = TwoStageWorld(kind).truth, found(kind)
    widths = {}
    for name in NAMES:
        estimates = [one[name] for one in evaluations]
        values = np.array([one.value for one in estimates])
        assert values.mean() == pytest.approx(truth, abs=4 * values.std() / LOGS**0.5)
        for method in ("delta", "bootstrap"):
            held = np.mean([one.interval(method).covers(truth) for one in estimates])
            assert 0.91 <= held <= 0.985, (name, method)
        widths[name] = np.mean([one.interval().high - one.interval().low for one in estimates])
    assert widths["candidate_dr"] < widths["candidate_snips"] < widths["candidate_ips"]
    assert evaluations[0]["candidate_dr"].word == "trustworthy"


def test_whole_slates_would_be_far_wider() -> None:
    world = TwoStageWorld()
    names = ("rips", "candidate_ips")
    settings = ReplaySettings(names, resamples=200, contexts=2)
    (one,) = evaluate([world.log(1)], [world], USERS, world.items, settings)
    wide, sharp = (one[name].error for name in names)
    assert wide > 1.5 * sharp


def test_logs_that_are_not_right_are_refused() -> None:
    world = TwoStageWorld()
    rounds = world.log(0)
    single = Rounds(
        **{
            name: getattr(rounds, name)[:, :1]
            if name in ("position", "item", "reward", "propensity")
            else getattr(rounds, name)
            for name in ("user", "day", "t", "row", "position", "item", "reward", "propensity")
        },
        kind="marginal",
        context=rounds.context,
    )

    class First:
        name = "first"

        def __call__(self, rounds: Rounds) -> Target:
            slate = world.slate[rounds.context][:, :1]
            return Target((slate == rounds.item) * 1.0, slate[:, None, :], deterministic=True)

    (one,) = evaluate(
        [single], [First()], USERS, world.items, ReplaySettings(NAMES, resamples=50, contexts=2)
    )
    for name in NAMES:
        assert "every slate has one item: the same as" in (one[name].refused or "")
    assert set(NAMES) <= set(ESTIMATORS)
