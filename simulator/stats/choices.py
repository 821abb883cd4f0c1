"""Choices: what a reader may decide about how a comparison is computed. Each is stated in the
report; none changes a default silently.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.stats.intervals import METHODS, Method
from simulator.stats.rule import STANDARD, Alternative, Rule
from simulator.stats.tests import CORRECTIONS, Correction
from simulator.stats.unit_table import TableError

MOST_RESAMPLES = 1_000_000
"""A p-value of 1e-6 is the least that so many permutations can show; more take hours."""


@dataclass(frozen=True)
class Choices:
    """How the lifts of a report are computed.

    Attributes:
        interval: of the relative lift in the verdict.
        correction: of p in the verdict, over all metrics of all treatment arms.
        winsorise: share of the largest sums that are cut in the comparison beside the verdict, in
            [0, 0.5).
        resamples: permutations and bootstrap samples of the comparison beside the verdict; 0:
            neither is made (they take time).
        seed: of these.
        level: of every interval; a test rejects below 1 - level.
        alternative: two-sided, or one-sided as `rule.Rule` says.
        pairs: whether every arm is compared with every other one, too, beside the verdict.
    """

    interval: Method = "fieller"
    correction: Correction = "holm"
    winsorise: float = 0.001
    resamples: int = 0
    seed: int = 0
    level: float = STANDARD.level
    alternative: Alternative = STANDARD.alternative
    pairs: bool = False

    @property
    def rule(self) -> Rule:
        """Level and alternative of every test."""
        return Rule(self.level, self.alternative)

    def __post_init__(self) -> None:
        _ = self.rule
        if self.interval not in METHODS:
            raise TableError(
                f"interval: must be one of {', '.join(METHODS)}; got {self.interval!r}"
            )
        if self.correction not in CORRECTIONS:
            raise TableError(
                f"correction: must be one of {', '.join(CORRECTIONS)}; got {self.correction!r}"
            )
        if not 0 <= self.winsorise < 0.5:
            raise TableError(f"winsorise: the share must be in [0, 0.5); got {self.winsorise:g}")
        if self.resamples and not 100 <= self.resamples <= MOST_RESAMPLES:
            raise TableError(
                f"resamples: from 100 to {MOST_RESAMPLES:,}, or 0 for none; got {self.resamples:,}"
            )
