"""`Choice`: the `users:` section of kind `choice`, which draws the world's catalogue and builds its
users.
"""

from __future__ import annotations

from pathlib import Path

from policies.base import Catalogue, IntArray, Progress
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

    def catalogue(self, seed: int) -> Catalogue:
        """What a real log would show of the world: `duration` (s), `author`, `tag` of each video;
        nothing latent.
        """
        return World.draw(self, seed).catalogue()

    def fit(self, source: Source, seed: int, folder: Path, progress: Progress) -> None:
        """Nothing to learn: the parameters are given."""

    def build(
        self, source: Source, seed: int, days: int, folder: Path, who: IntArray | None = None
    ) -> People:
        """Fresh users, who have not asked yet; the same from the same seed in every process."""
        return People(self, World.draw(self, seed), seed, who)
