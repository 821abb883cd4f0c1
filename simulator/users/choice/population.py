"""`Choice`: the `users:` section of kind `choice`, which draws the world's catalogue and builds its
users.
"""

from __future__ import annotations

from pathlib import Path

from policies.base import IntArray, Progress
from simulator.users.base import Source
from simulator.users.choice.parameters import ChoiceParameters
from simulator.users.choice.people import People
from simulator.users.choice.world import World


class Choice(ChoiceParameters):
    """A synthetic population: what it likes, how it looks, watches, reacts, tires, leaves and comes
    back.

    The world (catalogue, interests, qualities) is drawn from the scenario's seed alone; a policy
    under test sees what a real log
    has: durations, authors, tags, and what was shown and answered.
    """

    def draw(self, seed: int) -> World:
        """The world, drawn anew."""
        return World.draw(self, seed)

    def source(self, seed: int) -> Source:
        """What there is before anybody lives: the world, and what a real log would show of it:
        `duration` (s), `author`, `tag` of each video; nothing latent.
        """
        world = self.draw(seed)
        return Source(world.catalogue(self.n_users), truth=world.truth())

    def fit(self, source: Source, seed: int, folder: Path, progress: Progress) -> None:
        """Nothing to learn: the parameters are given."""

    def build(
        self, source: Source, seed: int, days: int, folder: Path, who: IntArray | None = None
    ) -> People:
        """Fresh users, who have not asked yet; the same from the same seed in every process. The
        world is that of `source`; where that has none, it is drawn.
        """
        world = World(**source.truth) if source.truth else self.draw(seed)
        return self.people(world, seed, who)

    def people(self, world: World, seed: int, who: IntArray | None) -> People:
        """Users of a world."""
        return People(self, world, seed, who)
