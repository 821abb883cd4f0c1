"""Which estimators there are and how a replay is made. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from policies.base import IntArray
from simulator.offpolicy.abstractions import LatentIPS, MarginalIPS, OffCEM
from simulator.offpolicy.candidates import CandidateDR, CandidateIPS, CandidateSNIPS
from simulator.offpolicy.deterministic import ClickDR, ClickIPS
from simulator.offpolicy.estimators import (
    IPS,
    SNIPS,
    ClippedIPS,
    DirectMethod,
    DoublyRobust,
    Estimator,
    Matching,
    Recalled,
    SelfNormalisedDR,
    ShrunkDR,
    SwitchDR,
)
from simulator.offpolicy.kind_table import KindTable
from simulator.offpolicy.reward_model import FOLDS
from simulator.offpolicy.slates import (
    CascadeDR,
    IndependentIPS,
    PseudoInverse,
    RewardInteractionIPS,
)
from simulator.offpolicy.sums import UNITS
from simulator.offpolicy.uncertainty import RESAMPLES

THRESHOLDS = (1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 300.0, 1000.0, np.inf)
SHRINKAGE = (1.0, 10.0, 100.0, 1e3, 1e4, 1e6, np.inf)

ESTIMATORS: dict[str, tuple[Estimator, ...]] = {
    "matching": (Matching(),),
    "recalled": (Recalled(),),
    "ips": (IPS(),),
    "clipped_ips": tuple(ClippedIPS(threshold) for threshold in THRESHOLDS),
    "snips": (SNIPS(),),
    "dm": (DirectMethod(),),
    "dr": (DoublyRobust(),),
    "sndr": (SelfNormalisedDR(),),
    "switch_dr": tuple(SwitchDR(threshold) for threshold in THRESHOLDS),
    "shrunk_dr": tuple(ShrunkDR(threshold) for threshold in SHRINKAGE),
    "iips": (IndependentIPS(),),
    "rips": (RewardInteractionIPS(),),
    "cascade_dr": (CascadeDR(),),
    "pseudo_inverse": (PseudoInverse(),),
    "cips": (ClickIPS(),),
    "cdr": (ClickDR(), ClickDR(carried=True)),
    "candidate_ips": (CandidateIPS(),),
    "candidate_snips": (CandidateSNIPS(),),
    "candidate_dr": (CandidateDR(),),
    "mips": (MarginalIPS(),),
    "lips": (LatentIPS(),),
    "offcem": (OffCEM(),),
}
"""Name -> its members: one; or one for each threshold (the last, infinite one is unbiased and
judges the others); or, without thresholds, the estimate and another reading of the same log, whose
intervals are printed as one.
"""

RANKED, ROLLOUT, ROLLOUT_DR = "ranked", "rollout", "rollout_dr"

BY_SERVING = {
    RANKED: "Dudík et al. 2011, by the ranking stage",
    ROLLOUT: "Beygelzimer & Langford 2009, by simulation",
    ROLLOUT_DR: "Dudik et al. 2011; Des Raj 1956, by simulation",
}
"""Name -> paper of the estimators that rest on the serving: on what its ranking stage expects, or
on a course of the replayed days.
"""


class ReplayError(ValueError):
    """A replay that cannot be made; the message says what, the rule, the value and what to do."""


def hold_still(whose: str, scenario: Mapping[str, object]) -> None:
    """Refuse what has a catalogue that lives: which items a policy could have recalled for a
    request is in no log.

    Args:
        whose: for the message.
        scenario: resolved; that of a log may be empty.

    Raises:
        ReplayError: it has `items`.
    """
    if scenario.get("items") is not None:
        raise ReplayError(
            f"{whose}: its catalogue lives (`items`), and what was there to be recalled at each"
            " request is not logged; compare its arms by `abtest report`, or leave `items` out of"
            " the scenario"
        )


@dataclass(frozen=True)
class ReplaySettings:
    """How a replay is made; none of it changes what is estimated.

    Attributes:
        estimators: names of ESTIMATORS, in the order of print.
        members: estimators to use instead of those of ESTIMATORS under a name (a PseudoInverse with
            its logging law, other thresholds).
        resamples: of the bootstrap.
        level: of the intervals.
        seed: of folds and resamples.
        folds: of cross-fitting.
        contexts: of the reward model.
        clusters: `[n_items + 1]` of the items, 1, 2, ... (0 of no item); None: they have none.
    """

    estimators: tuple[str, ...] = tuple(ESTIMATORS)
    members: Mapping[str, tuple[Estimator, ...]] = field(default_factory=dict)
    resamples: int = RESAMPLES
    level: float = 0.95
    seed: int = 0
    folds: int = FOLDS
    contexts: int = 1
    units: int = UNITS
    clusters: IntArray | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        unknown = [
            name for name in self.estimators if name not in ESTIMATORS and name not in self.members
        ]
        if unknown:
            raise ReplayError(
                f"no estimator {unknown[0]!r}; there are {', '.join((*ESTIMATORS, *BY_SERVING))}"
            )

    @property
    def modelled(self) -> bool:
        """Whether any of the estimators uses the reward model, or what it knows of places."""
        return any(
            member.model or member.places
            for name in self.estimators
            for member in self.family(name)
        )

    def beside(self, name: str, estimator: Estimator) -> ReplaySettings:
        """With a further estimator, under a name of its own, after the others."""
        members = {**self.members, name: (estimator,)}
        return replace(self, estimators=(*self.estimators, name), members=members)

    def kind_tables(self) -> dict[str, KindTable]:
        """Empty tables of the kinds that the estimators rest on."""
        if self.clusters is None:
            return {}
        levels = [self.family(name)[0].level for name in self.estimators]
        return {
            level: KindTable(level, self.clusters, self.contexts, self.folds, self.seed)
            for level in levels
            if level is not None
        }

    def family(self, name: str) -> tuple[Estimator, ...]:
        return self.members[name] if name in self.members else ESTIMATORS[name]


DEFAULT = ReplaySettings()
"""Every estimator, 1,000 resamples, 3 folds, seed 0."""
