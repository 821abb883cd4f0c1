"""An offline figure of many policies: what it puts first, what its own error does not tell from
that, and a second figure that decides among these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from policies.base import DoubleArray
from simulator.offpolicy.replay import Estimate, Evaluation
from simulator.offpolicy.settings import RANKED, ROLLOUT

READING = f"{ROLLOUT}, ties by {RANKED}"
"""The name of what to choose among policies by (`reading`)."""


@dataclass(frozen=True)
class Figure:
    """One offline figure of every policy.

    Attributes:
        name: of the estimator or the ranking figure.
        value: `[A]`, NaN where it could not be had.
        error: `[A]` standard error.
        verdict: `[A]` words.
        estimates: it claims to be the reward per request, so that it has an error against the
            truth.
        reasons: `[A]` why each verdict is no better.
        influence: `[A]` first-order effects of the same units on each value, by which values that
            share their luck are told apart; none: they are taken for independent.
    """

    name: str
    value: DoubleArray
    error: DoubleArray
    verdict: tuple[str, ...]
    estimates: bool
    reasons: tuple[tuple[str, ...], ...] = ()
    influence: tuple[DoubleArray, ...] = ()

    @classmethod
    def of(cls, estimates: Sequence[Estimate]) -> Self:
        """One estimator's answer for every policy."""
        moved = tuple(one.first_order[0].influence for one in estimates if one.first_order)
        return cls(
            estimates[0].estimator,
            np.array([one.value for one in estimates]),
            np.array([one.error for one in estimates]),
            tuple(one.word or "" for one in estimates),
            estimates[0].unit == "request",
            tuple(one.reasons for one in estimates),
            moved if len(moved) == len(estimates) else (),
        )

    @property
    def best(self) -> int:
        """Place of the policy that the figure puts first."""
        return int(np.nanargmax(self.value))

    def tied(self, pick: int) -> list[int]:
        """Policies that the figure's own error does not let stand behind `pick`: the 95% interval
        of the difference holds 0.
        """
        units = {len(one) for one in self.influence}
        found = []
        for other in np.flatnonzero(np.isfinite(self.value)):
            if other == pick:
                continue
            error = float(np.hypot(self.error[pick], self.error[other]))
            if len(units) == 1 and min(units) > 1:
                together = self.influence[pick] - self.influence[other]
                error = float(np.sqrt(np.square(together).sum()))
            if self.value[pick] - self.value[other] <= 1.96 * error:
                found.append(int(other))
        return found


@dataclass(frozen=True)
class TieBroken(Figure):
    """A figure whose ties for the first place a second one breaks.

    The policies that its own error does not let stand behind its best one are a subset that holds
    the best (Gupta, Technometrics 1965): which of them it puts first is luck. So the first of them
    is that of a figure with errors of another kind. All else is in the figure's own order.

    Attributes:
        leaders: places of the figure's own best policy and of those tied with it, in this order.
        second: the figure that decides among them.
    """

    leaders: tuple[int, ...] = field(kw_only=True)
    second: Figure = field(kw_only=True)

    def tied(self, pick: int) -> list[int]:
        """Leaders that the second figure does not let stand behind `pick` either."""
        return [other for other in self.second.tied(pick) if other in self.leaders]


def figures_of(evaluations: Sequence[Evaluation]) -> list[Figure]:
    """Every estimator's answer for every policy of one replay."""
    return [
        Figure.of([one[first.estimator] for one in evaluations])
        for first in evaluations[0].estimates
    ]


def reading(figures: Iterable[Figure]) -> TieBroken | None:
    """What to choose among policies by: the order of `rollout`, the first of its ties by `ranked`;
    None where one of the two is not usable for a policy.

    The first rests on a model of answers over the policy's own histories, the second on the ranking
    stage over the log's: what the one misses the other need not.
    """
    named = {
        one.name: one
        for one in figures
        if np.isfinite(one.value).all() and "unusable" not in one.verdict
    }
    if ROLLOUT not in named or RANKED not in named:
        return None
    first, second = named[ROLLOUT], named[RANKED]
    leaders = first.best, *first.tied(first.best)
    pick = max(leaders, key=lambda place: float(second.value[place]))
    value = first.value.copy()
    if pick != first.best:
        value[pick] = np.nextafter(first.value[first.best], np.inf)
    own = value, first.error, first.verdict, False, first.reasons
    return TieBroken(READING, *own, leaders=leaders, second=second)
