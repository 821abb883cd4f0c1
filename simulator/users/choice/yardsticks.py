"""The policies that may look into the synthetic world: its logging policy and its upper bound. No policy under test lives here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from policies.base import Catalogue, Fitting, FloatArray, Histories, IntArray, Policy, Sequences, Slates
from policies.streams import Purpose, uniform
from simulator.users.choice.people import People

_BOOST = 40
"""`step` of an item's boost under Purpose.WORLD."""


@dataclass
class Yardstick(Policy):
    """A policy that is bound to the users whose truth it reads; it learns nothing from a log."""

    def bind(self, users: Any) -> None:
        """Take the users of the arm (`simulator.users.choice`) whose truth is read.

        Raises:
            ValueError: users of another kind.
        """
        if not isinstance(users, People):
            raise ValueError(f"policy {type(self).__name__}: needs users of kind 'choice', whose truth it reads; got {type(users).__name__}")
        self.users_ = users

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Nothing to learn."""
        return self

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Nothing was learned."""
        return {}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Nothing to take over."""
        return self

    def bound(self) -> People:
        """The users that `bind` gave.

        Raises:
            ValueError: not bound.
        """
        if not hasattr(self, "users_"):
            raise ValueError(f"policy {type(self).__name__} reads the truth of a synthetic world: it works only where `users.kind` is 'choice'")
        return self.users_


@dataclass
class Oracle(Yardstick):
    """The upper bound: the items of greatest true expected value for the user as he is at this moment.

    Greedy per item: P(valid play | examined), or P(long view | examined), with today's interests, taste and satiation. One pass over the
    catalogue per request.
    """

    value: Literal["click", "long_view"] = "click"

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The `k` items of greatest true value, equal ones in the order of ids."""
        from simulator.users.choice import kernel

        users = self.bound()
        value = np.empty(users.n_items + 1)
        items = np.zeros((len(histories), k), dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        n = min(k, users.n_items)
        for b, user in enumerate(histories.user):
            kernel.expected(users.law, users.seed, users.truth, users.lives, user, self.value == "long_view", value)
            value[histories.seen[b]] = 0.0
            value[0] = -1.0
            best = np.argpartition(-value, n - 1)[:n]
            best = best[np.lexsort((best, -value[best]))]
            best = best[value[best] > 0.0]
            items[b, : len(best)], scores[b, : len(best)] = best, value[best]
        return Slates(items, scores)


@dataclass
class Production(Yardstick):
    """The app's existing recommender, which logs the history: a stochastic slate over noisy utilities, with exact propensities.

    It knows the users' interests as they were at its last training (`refresh`), authors and qualities, but not the taste that is fixed per
    (user, video), and errs by `noise`; it gives each video a share of traffic of its own (`boost`: freshness, promotion, popularity), which
    is what concentrates exposure. A place of the slate is drawn in proportion to w = exp(sharpness * estimate + boost * z) + floor
    among what is left (Plackett-Luce: Luce 1959; Plackett 1975); `epsilon` is the share of the floor in the sum of all weights, so
    that every item has support.
    """

    sharpness: Annotated[float, Field(ge=0)] = 1.5
    noise: Annotated[float, Field(ge=0)] = 0.5
    boost: Annotated[float, Field(ge=0)] = 1.2
    epsilon: Annotated[float, Field(gt=0, le=1)] = 0.02
    refresh: Annotated[int, Field(ge=1)] = 7
    """Days (of the user's age) between trainings."""

    def bind(self, users: Any) -> None:
        """Take the users, and forget what was estimated of others."""
        super().bind(users)
        self.weights_: npt.NDArray[np.float64] = np.empty((users.n_users, users.n_items + 1))
        self.trained_ = np.full(users.n_users, -1, dtype=np.int64)
        self.begun_: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] = users.born()
        from scipy.special import ndtri

        z = ndtri(uniform(int(users.seed), Purpose.WORLD, np.arange(users.n_items + 1), _BOOST) + 2.0**-54)
        self.boost_: npt.NDArray[np.float64] = self.boost * z

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """A random slate; scores are -1, -2, ... in the order of drawing."""
        from simulator.users.choice import kernel

        b = len(histories)
        items, propensities = np.zeros((b, k), dtype=np.int64), np.zeros((b, k))
        for row, user in enumerate(histories.user):
            weight, key, step = self._weights(int(user)), np.uint64(seed), histories.step[row]
            kernel.luce(weight, histories.seen[row], key, user, step, items[row], propensities[row])
        scores = np.where(items > 0, -np.arange(1.0, k + 1), -np.inf).astype(np.float32)
        return Slates(items, scores, propensities.astype(np.float32))

    def slate_propensities(self, histories: Histories, items: IntArray, seed: int) -> FloatArray:
        """Probability `[B, k]` of each of `items` at its place, given the items above it."""
        from simulator.users.choice import kernel

        propensities = np.zeros(items.shape)
        for row, user in enumerate(histories.user):
            kernel.luce_given(self._weights(int(user)), histories.seen[row], np.asarray(items[row]), propensities[row])
        return propensities.astype(np.float32)

    def _weights(self, user: int) -> npt.NDArray[np.float64]:
        """`[n_items + 1]` weights of the slate's draw, a function of the user and the days since birth at the last training only."""
        from simulator.users.choice import kernel

        users = self.bound()
        trained = users.age(user) // self.refresh * self.refresh
        weight = self.weights_[user]
        if self.trained_[user] != trained:
            begun = (self.begun_[0][user].copy(), self.begun_[1][user].copy())
            kernel.estimates(users.law, users.seed, users.truth, begun, user, trained, self.noise, weight)
            weight *= self.sharpness
            weight += self.boost_
            np.exp(weight - weight[1:].max(), out=weight)
            if self.epsilon < 1.0:
                weight += self.epsilon / (1.0 - self.epsilon) * weight[1:].mean()
            else:
                weight[:] = 1.0
            weight[0] = 0.0
            self.trained_[user] = trained
        return weight
