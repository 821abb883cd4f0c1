"""The rule of a test: its level, and of which differences it asks.

Interval, p, decision, smallest detectable lift, power and audit follow from the one rule, so that
none of them can speak of another test than the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

from simulator.log.metrics import MetricRole
from simulator.stats.intervals import Side, two_sided
from simulator.stats.unit_table import TableError

Alternative = Literal["two-sided", "better"]
ALTERNATIVES: tuple[Alternative, ...] = get_args(Alternative)

HARMS: tuple[MetricRole, ...] = ("guardrail", "deterioration")
"""Roles of which a one-sided test asks whether they are worse."""


class Directed(Protocol):
    """What a rule must know of a metric (`log.metrics.Metric`)."""

    @property
    def role(self) -> MetricRole: ...
    @property
    def higher_is_better(self) -> bool | None: ...


class OneTest(NamedTuple):
    """How one metric is tested.

    Attributes:
        level: of its interval; a test rejects where p is below 1 - level.
        side: of which differences it asks.
    """

    level: float = 0.95
    side: Side = "two-sided"

    @property
    def alpha(self) -> float:
        """The error of the test."""
        return 1.0 - self.level

    @property
    def two_sided_level(self) -> float:
        """The level of the two-sided interval of which the test reads one end, or both."""
        return two_sided(self.level, self.side)


@dataclass(frozen=True)
class Rule:
    """How every test of a verdict is made.

    Attributes:
        level: of its intervals; a test rejects where p, corrected, is below 1 - level.
        alternative: `two-sided`; or `better`: one-sided, in the direction that the role of a metric
            asks about: is a success (or what has no role) better, is a guardrail or a deterioration
            metric worse? Quality metrics, and those whose direction is not known, stay two-sided.
    """

    level: float = 0.95
    alternative: Alternative = "two-sided"

    def __post_init__(self) -> None:
        if not 0.5 < self.level < 1.0:
            raise TableError(
                f"level: must be above 50% and below 100%, e.g. 95%; got {self.level:.6g}"
            )
        if self.alternative not in ALTERNATIVES:
            raise TableError(
                f"alternative: must be one of {', '.join(ALTERNATIVES)}; got {self.alternative!r}"
            )

    @property
    def alpha(self) -> float:
        """The error of one test."""
        return 1.0 - self.level

    def side(self, metric: Directed) -> Side:
        """Of which differences of a metric is asked."""
        is_open = metric.higher_is_better is None or metric.role == "quality"
        if self.alternative == "two-sided" or is_open:
            return "two-sided"
        asks_for_more = bool(metric.higher_is_better) != (metric.role in HARMS)
        return "greater" if asks_for_more else "less"

    def test(self, metric: Directed) -> OneTest:
        """How a metric is tested."""
        return OneTest(self.level, self.side(metric))


STANDARD = Rule()
"""Two-sided at 95%."""
