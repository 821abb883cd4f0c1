"""Interleave: two policies share each slate by team draft."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from simulator.designs.base import ArmRows, OneLane


@dataclass(frozen=True)
class Interleave(OneLane):
    """One life for each user; two arms draft each slate (`serving.draft`), and what an item gets is
    credited to the arm that drafted it.
    """

    kind: ClassVar = "interleave"
    titles: ClassVar = {"interleave": "Interleaved"}
    words: ClassVar = "two policies share each slate by team draft"
    shares_slates: ClassVar = True

    def disagreements(self) -> Iterator[tuple[str, str]]:
        if len(self.arms) != 2:
            names = ", ".join(self.arms)
            rule = "interleave mixes exactly 2 arms in one slate"
            yield "kind", f"{rule}; got {len(self.arms)}: {names}"

    def served_by(self, lane: str, day: int) -> tuple[str, ...]:
        return self.arms

    def rows_of(self, arm: str) -> ArmRows:
        return ArmRows(self.kind, team=self.arms.index(arm))
