"""Explore: any policy with scores, turned into a stochastic one whose slate probabilities are
exact. No model lives here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from policies.base import (
    Admitting,
    Catalogue,
    DoubleArray,
    Fitting,
    FloatArray,
    Histories,
    IntArray,
    Policy,
    Sequences,
    Slates,
    WorldBound,
)
from policies.withheld import recall_withholding, withholding


@dataclass
class Explore(Policy):
    """Plackett-Luce slates (Luce 1959; Plackett 1975) over the scores of another policy, mixed with
    uniform exploration.

    Each of the `pool` best items of the base policy weighs
    `(1 - epsilon) * softmax(score / temperature)`, and every item that may be recalled weighs
    `epsilon / N` more, `N` being their number. A slate is drawn without replacement: the item at a
    place is chosen with probability weight / (weight of all items not above it), which is the
    logged, *conditional* propensity.

    Drawn by the exponential race that is Gumbel top-k on another scale (Yellott 1977): item i
    arrives at `-log(u_i) / weight_i` and the first k to arrive are the slate. `u` is keyed by
    (user, step, item), so equal policies draw equal slates. Items outside the pool weigh the same
    and are raced as a group: their arrivals are the order statistics of exponentials (Renyi 1953),
    and which of them arrives is uniform. So a request costs O(pool + k), however many items there
    are.

    Attributes:
        policy: name of the base policy.
        policy_params: its hyper-parameters.
        temperature: of the softmax, > 0; higher explores more.
        epsilon: share of uniform exploration, 0..1.
        pool: how many of the base policy's best items carry the softmax.
    """

    serving_fields: ClassVar[frozenset[str]] = frozenset({"temperature", "epsilon", "pool"})
    learns: ClassVar[tuple[str, ...]] = ()

    policy: str = "popularity"
    policy_params: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    epsilon: float = 0.05
    pool: int = 100

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(
                f"hyper-parameter 'temperature' must be above 0. Got {self.temperature!r} instead."
            )
        if not 0 <= self.epsilon <= 1:
            raise ValueError(
                f"hyper-parameter 'epsilon' must be in 0..1. Got {self.epsilon!r} instead."
            )
        if self.pool < 1:
            raise ValueError(
                f"hyper-parameter 'pool' must be at least 1. Got {self.pool!r} instead."
            )
        self.base_: Policy | None = None
        self.n_items_ = 0
        self.withheld_, self.unknown_ = np.zeros((2, 0), dtype=np.int64)
        self._folder: Path | None = None

    def found_in(self, folder: Path) -> Self:
        """Look the base policy up from `folder` (that of the scenario) if it is a plug-in file."""
        self._folder = folder
        return self

    def over(self, base: Policy, n_items: int) -> Self:
        """Explore over a policy that is fitted already."""
        self.base_, self.n_items_ = base, n_items
        return self

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        return self.over(self._unfitted().fit(sequences, catalogue, fitting), catalogue.n_items)

    def parts(self) -> tuple[Policy, ...]:
        return (self._unfitted() if self.base_ is None else self.base_,)

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> Self:
        """Let the base policy recall available items only, and explore all of them, new ones
        too.
        """
        base: object = self._fitted()
        self.withheld_ = catalogue.withheld
        if isinstance(base, Admitting):
            base.admit(catalogue, new, t)
        else:
            self.unknown_ = np.union1d(self.withheld_, new)
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        return recall_withholding(
            lambda asked: self._drawn(asked, k, seed), histories, self.withheld_
        )

    def _drawn(self, histories: Histories, k: int, seed: int) -> Slates:
        """Slates of requests whose `seen` has what is withheld, too."""
        from policies.race import draw

        pool = self._pool(histories, k, seed)
        key = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
        slate = np.zeros((len(histories), k), dtype=np.int64)
        propensities = np.zeros((len(histories), k))
        draw(
            key,
            histories.user,
            histories.step,
            histories.seen,
            pool.items,
            pool.scores,
            self._shape,
            slate,
            propensities,
        )
        scores = np.where(slate > 0, -np.arange(k, dtype=np.float32), np.float32(-np.inf))
        return Slates(slate, scores, np.where(slate > 0, propensities, 1).astype(np.float32))

    def slate_propensities(self, histories: Histories, items: IntArray, seed: int) -> FloatArray:
        """Probability `[B, k]` of each of `items` at its place, given the items above it; 0 where
        it could not be there.
        """
        from policies.race import conditional

        histories = withholding(histories, self.withheld_)
        pool = self._pool(histories, items.shape[1], seed)
        out = np.zeros(items.shape)
        conditional(histories.seen, pool.items, pool.scores, self._shape, items, out)
        return out.astype(np.float32)

    def slate_expectations(
        self, histories: Histories, items: IntArray, values: DoubleArray, rows: IntArray, seed: int
    ) -> DoubleArray:
        """Mean `[B, k]` of `values` `[V, n_items + 1]`, row `rows` `[B, k]`, over the item at each
        place given those above it.
        """
        from policies.race import expected

        histories = withholding(histories, self.withheld_)
        pool = self._pool(histories, items.shape[1], seed)
        out = np.zeros(items.shape)
        expected(
            histories.seen,
            pool.items,
            pool.scores,
            self._shape,
            items,
            values,
            values[:, 1:].sum(axis=1),
            rows,
            out,
        )
        return out

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return {"explore.n_items": np.array(self.n_items_), **self._fitted().state()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        base = self._unfitted().restore(
            {name: values for name, values in state.items() if name != "explore.n_items"}
        )
        return self.over(base, int(state["explore.n_items"]))

    def bind(self, users: Any) -> None:
        """Let a base policy that looks into the world (a yardstick, the production policy) do
        so.
        """
        base: object = self.base_
        if isinstance(base, WorldBound):
            base.bind(users)

    @property
    def _shape(self) -> tuple[int, float, float]:
        return self.n_items_, float(self.temperature), float(self.epsilon)

    def _pool(self, histories: Histories, k: int, seed: int) -> Slates:
        """The base policy's best, of requests whose `seen` has what is withheld."""
        n_own = histories.seen.shape[1] - len(self.withheld_)
        own = replace(histories, seen=histories.seen[:, :n_own])
        return recall_withholding(
            lambda asked: self._fitted().recall(asked, max(self.pool, k), seed), own, self.unknown_
        )

    def _fitted(self) -> Policy:
        if self.base_ is None:
            raise RuntimeError("Explore is not fitted: call fit, restore, load or over first")
        return self.base_

    def _unfitted(self) -> Policy:
        from policies.registry import make

        return make(self.policy, self.policy_params, self._folder)
