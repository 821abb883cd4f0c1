"""Paired: every user lives in every arm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from simulator.designs.base import Design


@dataclass(frozen=True)
class Paired(Design):
    """Twins: each arm has all users, who begin in the same state and share their random numbers.
    Only a simulation can do this.
    """

    kind: ClassVar = "paired"
    titles: ClassVar = {"paired": "Paired"}
    words: ClassVar = "every user lives in every arm"
    has_twins: ClassVar = True
