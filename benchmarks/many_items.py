"""Off-policy estimates where a log has many items: what clusters of items are worth.

    python -m benchmarks.many_items [--logs 100]

Single items of a catalogue of 1,000, in 20 clusters. Users are of five kinds, which like clusters
differently; log and target know the kind, the estimators do not (one context). The log draws by a
softmax over what it believes of kind and item, the target shows each kind the items that are best
by another belief. In the first world items of a cluster are worth the same to a kind; in the second
they differ by a quality of their own, which the log and the target see and a table of ten rounds an
item does not. The truth is enumerated. For each estimator: bias and root mean squared error over
the logs, relative to the truth, how often its 95% interval held it, and how many logs it called
itself unusable on. `learned` are clusters by k-means of the vectors of items that a truncated
singular value decomposition of another such log gives, `shuffled` are the true ones dealt anew.
"""

from __future__ import annotations

import argparse

import numpy as np

from policies.base import DoubleArray, IntArray
from policies.clustering import spherical_clusters
from simulator.offpolicy.replay import Estimate, ReplaySettings, evaluate
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.target import Target

ITEMS, CLUSTERS, KINDS = 1000, 20, 5
ROUNDS, USERS, SHOWN = 10_000, 2_000, 10
NAMES = ("dm", "ips", "snips", "dr", "mips", "offcem")


class World:
    """Who likes what, and who shows what.

    Attributes:
        reward: `[KINDS, ITEMS + 1]` click probability.
        law: of the log, the same shape.
        wanted: of the target: SHOWN items of each kind, equally likely.
    """

    name = "target"

    def __init__(self, quality: float) -> None:
        random = np.random.Generator(np.random.Philox(key=51))
        self.cluster = np.concatenate(([0], 1 + np.arange(ITEMS) % CLUSTERS))
        taste = random.normal(0, 1.0, (KINDS, CLUSTERS + 1))[:, self.cluster]
        logit = -2.0 + taste + quality * random.normal(0, 1.0, ITEMS + 1)
        self.reward = 1 / (1 + np.exp(-logit))
        believed = logit + random.normal(0, 1.0, logit.shape)
        weight = np.exp(0.8 * believed)
        weight[:, 0] = 0.0
        self.law = weight / weight.sum(axis=1, keepdims=True)
        score = logit + random.normal(0, 1.0, logit.shape)
        score[:, 0] = -np.inf
        self.best = np.argsort(-score, axis=1)[:, :SHOWN]
        self.wanted = np.zeros_like(self.law)
        np.put_along_axis(self.wanted, self.best, 1 / SHOWN, axis=1)
        self.truth = float((self.wanted * self.reward).sum(axis=1).mean())

    def __call__(self, rounds: Rounds) -> Target:
        kind = rounds.day
        chance = self.wanted[kind[:, None], rounds.item]
        share = np.full((len(rounds), SHOWN), 1 / SHOWN)
        given = self.wanted[kind][:, None]
        return Target(chance, self.best[kind][:, :, None], share, given)

    def log(self, seed: int) -> Rounds:
        """Users' rounds; `day` is their kind, of which estimators know nothing."""
        random = np.random.Generator(np.random.Philox(key=[52, seed]))
        user = np.arange(ROUNDS) % USERS
        kind = user % KINDS
        item = np.empty(ROUNDS, dtype=np.int64)
        for one in range(KINDS):
            mine = kind == one
            item[mine] = random.choice(ITEMS + 1, mine.sum(), p=self.law[one])
        click = random.uniform(size=ROUNDS) < self.reward[kind, item]
        zero = np.zeros(ROUNDS, dtype=np.int64)
        return Rounds(
            user, kind, zero, np.arange(ROUNDS), zero[:, None], item[:, None],
            click[:, None] * 1.0, self.law[kind, item][:, None], "marginal", zero,
        )  # fmt: skip

    def learned(self) -> IntArray:
        """Clusters by who clicked on what in a log of its own."""
        rounds = self.log(10_000)
        clicks = np.zeros((USERS, ITEMS))
        np.add.at(clicks, (rounds.user, rounds.item[:, 0] - 1), rounds.reward[:, 0])
        known = clicks.sum(axis=0) > 0
        scaled = clicks / np.sqrt(np.maximum(clicks.sum(axis=1, keepdims=True), 1))
        _, strength, right = np.linalg.svd(scaled, full_matrices=False)
        vectors: DoubleArray = (right[:16] * strength[:16, None]).T
        random = np.random.Generator(np.random.Philox(key=53))
        out = np.zeros(ITEMS + 1, dtype=np.int64)
        out[1:][known] = 1 + spherical_clusters(
            vectors[known], CLUSTERS, random.uniform(size=known.sum())
        )
        out[1:][~known] = CLUSTERS + 1
        return out


def line(name: str, found: list[Estimate], truth: float) -> str:
    """What there is to say of one estimator."""
    off = np.array([one.value for one in found]) / truth - 1
    held = np.mean([one.interval().covers(truth) for one in found])
    unusable = sum(one.word == "unusable" for one in found)
    return (
        f"{name:18} bias {off.mean():+7.1%}  rmse {np.sqrt(np.square(off).mean()):6.1%}"
        f"  covered {held:4.0%}  unusable {unusable}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", type=int, default=100, help="seeds 0, 1, ...")
    given = parser.parse_args()
    for title, quality in (("items alike", 0.0), ("items of their own", 0.5)):
        world = World(quality)
        random = np.random.Generator(np.random.Philox(key=54))
        shuffled = np.concatenate(([0], random.permutation(world.cluster[1:])))
        kinds = {"": world.cluster, ", learned": world.learned(), ", shuffled": shuffled}
        print(f"{title}: truth {world.truth:.4f}; {given.logs} logs of {ROUNDS:,} rounds")
        for label, clusters in kinds.items():
            names = NAMES if not label else ("mips", "offcem")
            settings = ReplaySettings(names, resamples=200, clusters=clusters)
            found = [
                evaluate([world.log(seed)], [world], USERS, ITEMS, settings)[0]
                for seed in range(given.logs)
            ]
            for name in names:
                print(line(name + label, [one[name] for one in found], world.truth), flush=True)


if __name__ == "__main__":
    main()
