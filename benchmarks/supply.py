"""How often the intervals of the supply side cover: worlds whose truth is known by repetition.

    python -m benchmarks.supply --repetitions 2000

A world is a catalogue of videos whose appeal is partly their author's, and users with tastes of
their own; an arm recommends the videos that are best under the appeal, the taste and some noise, in
proportions of its own, so that one arm shows the few and another the many. Two truths are asked of
each interval of a lift: that of catalogues like this one with other users, and that of this
catalogue with other users. Printed: the share of the 95% intervals that cover, and of tests that
find a difference of equal arms.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.log.items import ItemFacts
from simulator.log.metadata import Metadata
from simulator.log.metrics import SUPPLY_METRICS, metric
from simulator.stats import intervals
from simulator.stats.exposures import Exposures
from simulator.stats.supply import SupplySide, supply_side
from simulator.stats.tests import t_test

Floats = npt.NDArray[np.float64]
LEAST = 20
METRICS = {
    name: metric(name)
    for name in (*SUPPLY_METRICS, f"authors_shown@{LEAST}")
    if not name.startswith("fresh") and "@100" not in name
}


@dataclass(frozen=True)
class World:
    """A small feed.

    Attributes:
        appeal: `[items]` of a video, its author's included.
        author: `[items]`.
        cold: `[items]` whether the history does not show it.
    """

    appeal: Floats
    author: npt.NDArray[np.int64]
    cold: npt.NDArray[np.bool_]

    @classmethod
    def draw(cls, n_items: int, n_authors: int, seed: int) -> World:
        """Authors of unequal size (Zipf) and appeal; half of a video's appeal is its author's."""
        random = np.random.default_rng([seed, 1])
        sizes = 1.0 / np.arange(1, n_authors + 1) ** 0.7
        author = random.choice(n_authors, n_items, p=sizes / sizes.sum())
        own = random.normal(0, 0.7, n_authors)[author] + random.normal(0, 0.7, n_items)
        return cls(own, author, random.random(n_items) < 0.2)

    def shown(
        self, n_users: int, slate: int, weight: float, random: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Impressions and clicks `[items]` of an arm that gives the appeal a `weight`."""
        taste = random.normal(0, 0.7, (n_users, len(self.appeal)))
        score = weight * self.appeal + taste + random.gumbel(0, 0.7, taste.shape)
        best = np.argpartition(-score, slate, axis=1)[:, :slate]
        liked = np.take_along_axis(taste + self.appeal, best, axis=1)
        click = random.random(best.shape) < 1 / (1 + np.exp(1.0 - liked))
        n = len(self.appeal)
        return np.bincount(best.ravel(), minlength=n), np.bincount(best[click], minlength=n)


def compared(world: World, n_users: int, weights: tuple[float, float], seed: int) -> SupplySide:
    """The supply side of a split test of two arms in a world."""
    n_items = len(world.appeal)
    meta = Metadata(("a", "b"), n_users, n_items, control="a", days=1)
    facts = ItemFacts(
        author=np.concatenate(([-1], np.unique(world.author, return_inverse=True)[1]))
    )
    sums = Exposures(meta, facts)
    for arm, weight in enumerate(weights):
        random = np.random.default_rng([seed, 2, arm])
        sums.shown[arm, 0, 1:], sums.clicked[arm, 0, 1:] = world.shown(n_users, 10, weight, random)
    sums.before[1:] = ~world.cold
    sums.answers[:] = 1
    return supply_side(sums, METRICS)


def lifts(
    repetitions: int,
    weights: tuple[float, float],
    *,
    same_catalogue: bool,
    first: int = 0,
    n_users: int = 300,
    n_items: int = 400,
    n_authors: int = 80,
) -> Iterator[dict[str, tuple[float, float, float, float]]]:
    """By metric, (lift, low, high, p) of each repetition."""
    for i in range(first, first + repetitions):
        world = World.draw(n_items, n_authors, 0 if same_catalogue else i)
        side = compared(world, n_users, weights, i)
        found = {}
        for name in METRICS:
            m = side.moments(name, "a", "b")
            if m is not None:
                low, high = intervals.fieller(m)
                found[name] = float(m.lift), float(low), float(high), float(t_test(m).p)
        yield found


def coverage(
    repetitions: int, weights: tuple[float, float], *, same_catalogue: bool
) -> dict[str, tuple[float, float, float]]:
    """By metric: the true lift, the share of intervals that cover it and the share of p below .05.

    The truth is the mean lift of as many other repetitions.
    """
    others = list(lifts(repetitions, weights, same_catalogue=same_catalogue, first=10_000_000))
    truth = {name: float(np.mean([row[name][0] for row in others])) for name in METRICS}
    rows = list(lifts(repetitions, weights, same_catalogue=same_catalogue))
    result = {}
    for name, true in truth.items():
        covers = np.mean([row[name][1] <= true <= row[name][2] for row in rows])
        result[name] = true, float(covers), float(np.mean([row[name][3] < 0.05 for row in rows]))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2000)
    wish = parser.parse_args()
    cases = {
        "other catalogue": ((0.6, 1.2), False),
        "this catalogue": ((0.6, 1.2), True),
        "equal arms": ((0.9, 0.9), True),
    }
    columns = {
        name: coverage(wish.repetitions, weights, same_catalogue=same)
        for name, (weights, same) in cases.items()
    }
    print(
        "| metric | true lift | covers: other catalogues | this one | equal arms found to differ |"
    )
    print("|---|---|---|---|---|")
    for name in METRICS:
        far, near, null = (column[name] for column in columns.values())
        print(f"| `{name}` | {far[0]:+.1%} | {far[1]:.1%} | {near[1]:.1%} | {null[2]:.1%} |")


if __name__ == "__main__":
    main()
