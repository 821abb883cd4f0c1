"""What a scenario says its world is held to: the targets of its calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from simulator.config.section import ConfigSection

FEEDS = ("logging", "clicks", "random", "catalogue", "gap")
"""What a marginal is measured on: the feed of the logging policy, the clicks in it, uniformly
random exposure, the catalogue; logging / random.
"""


def _as_target(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"value": value} if is_number else value


class TargetSpec(ConfigSection):
    """A figure that a marginal of the world is held to; a number alone is its value."""

    value: Annotated[float, Field(gt=0)] = Field(description="of the marginal")
    se: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="its standard error, where it was measured on a log"
    )


Targets = dict[
    Literal["logging", "clicks", "random", "catalogue", "gap"],
    dict[Annotated[str, Field(max_length=100)], Annotated[TargetSpec, BeforeValidator(_as_target)]],
]


def as_calibration(value: Any) -> Any:
    """A `calibration` section from a name of targets alone."""
    return {"targets": value} if isinstance(value, str) else value


class CalibrationSpec(ConfigSection):
    """What a world is held to: `kuaishou`, `none`, or a section.

    A report and `abtest calibrate` compare the world's marginals with the targets. `kuaishou` are
    the published figures of Kuaishou's logs; figures of its own are by feed and name, as `abtest
    world fit` measures them on a log.
    """

    targets: Literal["none", "kuaishou"] | Targets = Field(
        default="none",
        description="`none`, `kuaishou`, or by feed and marginal: `logging: {click: 0.31}`",
    )
    tolerance: Annotated[float, Field(gt=0, le=1000)] = Field(
        default=0.10, description="how far a marginal may be from its target, a fraction"
    )
    basis: Annotated[str, Field(max_length=1000)] = Field(
        default="", description="where targets of its own come from, in words"
    )
    not_measured: dict[str, str] = Field(
        default_factory=dict, description="what no target is given for, and why, in words"
    )

    @property
    def named(self) -> Mapping[str, Mapping[str, TargetSpec]]:
        """Targets of the scenario's own, by feed and name; {} of others."""
        if isinstance(self.targets, str):
            return {}
        return {str(feed): targets for feed, targets in self.targets.items()}
