"""Target: what a target policy would do in given rounds, and how a recall policy is asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from policies.base import IntArray
from simulator.offpolicy.rounds import Float, Rounds


@dataclass(frozen=True, slots=True)
class Target:
    """What the target policy does in `R` rounds of length `K`.

    Attributes:
        probability: `[R, K]` with which the target puts the logged item at its place: given the logged items above it where
            the log's propensities are conditional (or unknown), whatever stands above where they are marginal.
        slates: `[R, D, K]` `D` slates drawn from the target, 0 = fewer candidates; one where it is deterministic.
        share: `[R, D]` probability of each of `slates` where they are all that the target can show; None: equal shares of a draw.
        given: `[R, K, n_items + 1]` the target's distribution at each place given the *logged* items above, or None: only
            small catalogues and policies that know it; nobody builds it from a slate.
        deterministic: the one slate is all that the target shows.
        recalled: `[R, M]` the candidates that a recall policy returned, best first, 0 = none; for matching within a set.
    """

    probability: Float
    slates: IntArray
    share: Float | None = None
    given: Float | None = None
    deterministic: bool = False
    recalled: IntArray | None = None


class Targets(Protocol):
    """Something that can say what a target policy does in rounds, chunk by chunk."""

    name: str

    def __call__(self, rounds: Rounds) -> Target: ...
