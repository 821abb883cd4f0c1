"""The designs by their kind, and the section of a scenario that chooses one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from simulator.config.section import ConfigSection
from simulator.designs.base import Design
from simulator.designs.interleave import Interleave
from simulator.designs.paired import Paired
from simulator.designs.split import Split
from simulator.designs.switchback import Switchback

Kind = Literal["paired", "split", "switchback", "interleave"]

DESIGNS: dict[str, type[Design]] = {
    design.kind: design for design in (Paired, Split, Switchback, Interleave)
}


class DesignSpec(ConfigSection):
    """Who gets which arm, and who is compared with whom."""

    kind: Kind = Field(
        default="paired", description="; ".join(design.words for design in DESIGNS.values())
    )
    control: str | None = Field(
        default=None, description="name of the control arm; the first arm if left out"
    )

    def over(self, arms: tuple[str, ...], seed: int | None, days: int) -> Design:
        """The design of these arms, in the order of the log."""
        return DESIGNS[self.kind](arms, seed, days)
