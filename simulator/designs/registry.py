"""The designs by their kind, and the section of a scenario that chooses one."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from simulator.config.section import ConfigSection
from simulator.designs.base import Design
from simulator.designs.clusters import Clusters
from simulator.designs.interleave import Interleave
from simulator.designs.paired import Paired
from simulator.designs.split import Split
from simulator.designs.switchback import Switchback

Kind = Literal["paired", "split", "clusters", "switchback", "interleave"]

DESIGNS: dict[str, type[Design]] = {
    design.kind: design for design in (Paired, Split, Clusters, Switchback, Interleave)
}


class DesignSpec(ConfigSection):
    """Who gets which arm, and who is compared with whom."""

    kind: Kind = Field(
        default="paired", description="; ".join(design.words for design in DESIGNS.values())
    )
    control: str | None = Field(
        default=None, description="name of the control arm; the first arm if left out"
    )
    clusters: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(), description="`clusters`: the cluster of each user, in the order of the users"
    )
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None = Field(
        default=None, description="of the assignment alone; the scenario's if left out"
    )

    @model_validator(mode="after")
    def _hold_clusters(self) -> Self:
        if self.clusters and self.kind != Clusters.kind:
            raise ValueError(f"clusters go with kind: {Clusters.kind} only; got kind: {self.kind}")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that say nothing are left out, so that older scenarios keep their bytes."""
        values: dict[str, Any] = handler(self)
        if not self.clusters:
            del values["clusters"]
        if self.seed is None:
            del values["seed"]
        return values

    def over(self, arms: tuple[str, ...], seed: int | None, days: int) -> Design:
        """The design of these arms, in the order of the log; `seed` is the scenario's."""
        own = seed if self.seed is None else self.seed
        if self.kind == Clusters.kind:
            return Clusters(arms, own, days, self.clusters)
        return DESIGNS[self.kind](arms, own, days)
