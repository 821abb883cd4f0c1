"""`Choice`: the `users:` section of kind `choice`, which draws the world's catalogue and builds its
users.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from policies.base import Catalogue, Progress
from simulator.config.section import Section
from simulator.users.base import Source
from simulator.users.choice.parameters import (
    Affinity,
    Arrival,
    Cascade,
    Diurnal,
    Drift,
    Examination,
    Focus,
    Interests,
    Patience,
    Reactions,
    Returning,
    Satiation,
    Videos,
    Watch,
)
from simulator.users.choice.people import People
from simulator.users.choice.world import World


class Choice(Section):
    """A synthetic population: what it likes, how it looks, watches, reacts, tires, leaves and comes
    back.

    The world (catalogue, interests, qualities) is drawn from the scenario's seed alone; a policy
    under test sees what a real log
    has: durations, authors, tags, and what was shown and answered.
    """

    kind: Literal["choice"] = "choice"
    n_users: Annotated[int, Field(ge=1)] = 3000
    n_items: Annotated[int, Field(ge=1)] = 4000
    videos: Videos = Videos()
    interests: Interests = Interests()
    affinity: Affinity = Affinity()
    examination: Examination = Examination()
    cascade: Cascade = Cascade()
    watch: Watch = Watch()
    reactions: Reactions = Reactions()
    satiation: Satiation = Satiation()
    drift: Drift = Drift()
    focus: Focus = Focus()
    patience: Patience = Patience()
    arrival: Arrival = Arrival()
    diurnal: Diurnal = Diurnal()
    returning: Returning = Returning()

    def catalogue(self, seed: int) -> Catalogue:
        """What a real log would show of the world: `duration` (s), `author`, `tag` of each video;
        nothing latent.
        """
        return World.draw(self, seed).catalogue()

    def fit(self, source: Source, seed: int, folder: Path, progress: Progress) -> None:
        """Nothing to learn: the parameters are given."""

    def build(self, source: Source, seed: int, days: int, folder: Path) -> People:
        """Fresh users, who have not asked yet; the same from the same seed in every process."""
        return People(self, World.draw(self, seed), seed)
