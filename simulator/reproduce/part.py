"""A policy that is fitted on the training part only, for systems that hold nothing out themselves.
No model lives here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from policies.base import Catalogue, Fitting, Histories, Policy, Sequences, Slates
from policies.registry import make


@dataclass
class TrainingPart(Policy):
    """Another policy, fitted without each user's last click: the validation item, which no model
    learns from.

    Attributes:
        policy: registered name.
        settings: its hyper-parameters.
    """

    policy: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._inner = make(self.policy, self.settings)

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Fit on all but each user's last click and what follows it."""
        at = np.flatnonzero(sequences.clicked)
        user = np.searchsorted(sequences.offsets, at, side="right") - 1
        last = sequences.offsets[1:].copy()
        last[user] = at  # the last one of a user stands
        known = sequences.where(
            np.arange(len(sequences.items)) < np.repeat(last, np.diff(sequences.offsets))
        )
        self._inner.fit(known, catalogue, fitting)
        return self

    def fit_params(self) -> dict[str, Any]:
        """Those of the inner policy, with their defaults."""
        return {"policy": self.policy, "settings": self._inner.params()}

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """As the inner policy: from the whole history."""
        return self._inner.recall(histories, k, seed)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The inner policy's."""
        return self._inner.state()

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """To the inner policy."""
        self._inner.restore(state)
        return self
