"""The network's probabilities mixed with those of counted transitions. No network and no recall lives here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from policies.base import Catalogue, Fitting, FloatArray, Histories, IntArray, Params, Sequences
from policies.transitions import Transitions
from recgpt.model import REAL

WEIGHTS = tuple(round(0.1 * i, 1) for i in range(10))
"""The weights of the counts that validation chooses from."""


@dataclass
class Counts(Params):
    """The counts that are mixed in, as in `policies.transitions`.

    Attributes:
        neighbours: similar items kept for each item.
        decay: weight of a click relative to the next one.
        markov: weight of the transitions against the similarities.
        shrink: how many users speak against a count of few.
    """

    neighbours: int = 200
    decay: float = 0.8
    markov: float = 6.0
    shrink: float = 10.0


class Mixture:
    """p(j | history) = (1 - w) softmax(h . v)_j + w c_j / sum(c), with c the counted scores of the history.

    Linear interpolation of a smooth model with counts (Jelinek & Mercer 1980, for language): where the counts are silent, the
    network speaks alone. w is chosen on the validation clicks.

    Attributes:
        weight: w; 0 = the network alone.
    """

    def __init__(self, counts: Counts, weight: float = 0.0) -> None:
        self._transitions = Transitions(counts.neighbours, 50, counts.decay, counts.markov, counts.shrink)
        self.weight = weight

    def fit(self, known: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Count."""
        self._transitions.fit(known, catalogue, fitting)
        return self

    def scores(self, inner: FloatArray, tokens: IntArray, segments: IntArray, users: IntArray, weight: float | None = None) -> FloatArray:
        """log p `[B, n_items + 1]` from inner products `[B, n_items + 1]` and the tokens `[B, L]` read so far.

        Args:
            inner: of the network's query with all item vectors.
            tokens: right-aligned; only real ones are counted from.
            segments: `[B, L]`.
            users: `[B]`.
            weight: instead of the chosen one.
        """
        w = self.weight if weight is None else weight
        inner = inner.copy()
        inner[:, 0] = -np.inf
        inner -= inner.max(axis=1, keepdims=True)
        share = np.exp(inner)
        share /= share.sum(axis=1, keepdims=True)
        real = (tokens != 0) & (segments == REAL)
        counted = self._transitions._scores(Histories(users, np.zeros_like(users), tokens, real, tokens))
        total = counted.sum(axis=1, keepdims=True)
        counted /= np.where(total > 0, total, 1)
        mixed = np.where(total > 0, (1 - w) * share + w * counted, share)
        return np.log(np.maximum(mixed, np.finfo(np.float32).tiny), dtype=np.float32)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The counts and the weight."""
        return {**self._transitions.state(), "weight": np.asarray(self.weight)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over what another instance's `state` gave."""
        self._transitions.restore(state)
        self.weight = float(state["weight"])
        return self
