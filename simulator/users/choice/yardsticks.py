"""The policies that may look into the synthetic world: its logging policy and its upper bound. No
policy under test lives here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from policies.base import (
    Catalogue,
    DoubleArray,
    Fitting,
    FloatArray,
    Histories,
    IntArray,
    Policy,
    Sequences,
    Slates,
)
from policies.streams import Purpose, uniform
from policies.time import DAY
from simulator.users.choice.people import People

_BOOST = 40
"""`step` of an item's boost under Purpose.WORLD."""

ESTIMATED = 64
"""Estimates that are made together; how many changes no bit."""


@dataclass
class Yardstick(Policy):
    """A policy that is bound to the users whose truth it reads; it learns nothing from a log."""

    draws_in_fit: ClassVar[bool] = False

    def inhabitants(self, user: IntArray) -> IntArray:
        """The rows of the users that are answered for: one who does not live here is taken for one
        who does.
        """
        who = self.bound().who
        row = np.searchsorted(who, user)
        lives = who.take(row, mode="clip") == user
        return np.where(lives, row, user % len(who))

    def bind(self, users: Any) -> None:
        """Take the users of the arm (`simulator.users.choice`) whose truth is read.

        Raises:
            ValueError: users of another kind.
        """
        if not isinstance(users, People):
            raise ValueError(
                f"policy {type(self).__name__} reads the truth of users of kind 'choice'; got"
                f" {type(users).__name__}"
            )
        self.users_ = users

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Nothing to learn."""
        return self

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> Self:
        """Recall available items only, new ones as any other: a yardstick knows them all."""
        self.withheld_ = catalogue.withheld
        return self

    @property
    def withheld(self) -> IntArray:
        """The items that may not be shown now; none where it was not told."""
        return getattr(self, "withheld_", np.zeros(0, dtype=np.int64))

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
            raise ValueError(
                f"policy {type(self).__name__} reads the truth of a synthetic world: it needs users"
                " of kind 'choice'"
            )
        return self.users_


@dataclass
class Oracle(Yardstick):
    """The upper bound: the items of greatest true expected value for the user as he is at this
    moment.

    Greedy per item: P(valid play | examined), or P(long view | examined), with today's interests,
    taste and satiation. One pass over the catalogue per request.
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
        for b, row in enumerate(self.inhabitants(histories.user)):
            kernel.expected(
                users.law,
                users.seed,
                users.truth,
                users.lives,
                users.who[row],
                row,
                self.value == "long_view",
                value,
            )
            value[histories.seen[b]] = 0.0
            value[self.withheld] = 0.0
            value[0] = -1.0
            best = np.argpartition(-value, n - 1)[:n]
            best = best[np.lexsort((best, -value[best]))]
            best = best[value[best] > 0.0]
            items[b, : len(best)], scores[b, : len(best)] = best, value[best]
        return Slates(items, scores)


@dataclass
class Production(Yardstick):
    """The app's existing recommender: the items of greatest *estimated* utility; within `explore`
    it logs the history.

    It knows the users' interests as they were at its last training (`refresh`), authors and
    qualities, but not the taste that is fixed per (user, video), nor today's satiation, and errs by
    `noise`; and it gives each video traffic of its own (`boost`: freshness, promotion, popularity),
    which is what concentrates exposure, and short ones more (`brevity`). Scores are logits: under
    `explore` with temperature T, a place of the slate is drawn in proportion to exp(score / T)
    among what is left.
    """

    noise: Annotated[float, Field(ge=0)] = 0.25
    """Sd of the error, fixed per (user, video), on the scale of the click's logit."""
    boost: Annotated[float, Field(ge=0)] = 1.9
    """Sd between videos of what is added for their own sake, on the same scale."""
    brevity: float = 0.15
    """What is taken per unit of ln(duration), on the same scale: the published play/duration
    quantiles need exposure to be shorter than the catalogue."""
    refresh: Annotated[int, Field(ge=1)] = 7
    """Days (of the user's age) between trainings."""
    freshness: Annotated[float, Field(ge=0)] = 0.0
    """How much of its own traffic a video in a catalogue that lives gets by its age, on the same
    scale: `freshness * (ln(a) + 1 - a)`, a being the age over that of the peak: the logarithm of
    a gamma density. The app first tries a video out, then promotes it, then lets it go."""
    peak: Annotated[float, Field(gt=0)] = 2.0
    """Age at which a video gets most traffic of its own: 1 is the day of its upload, 2 the next."""

    def bind(self, users: Any) -> None:
        """Take the users, and forget what was estimated of others."""
        from policies.elementary import logs, normal_quantiles

        super().bind(users)
        n_items = users.n_items
        z = normal_quantiles(
            uniform(int(users.seed), Purpose.WORLD, np.arange(1, n_items + 1), _BOOST) + 2.0**-54
        )
        self.boost_ = self.boost * z - self.brevity * logs(users.world.duration[1:])
        self._promote(self.boost_)

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> Self:
        """Estimate available videos only, by their ages at `t`, and as they suit now."""
        from policies.elementary import logs

        super().admit(catalogue, new, t)
        uploaded = np.asarray(catalogue.items["uploaded"], dtype=np.float64)[1:]
        is_there = np.isin(np.arange(1, catalogue.n_items + 1), self.withheld, invert=True)
        age = np.where(is_there, np.ceil(uploaded) + t // DAY + 1.0, 1.0) / self.peak
        by_age = self.freshness * (logs(np.maximum(age, 2.0**-20)) + 1.0 - age)
        self._promote(np.where(is_there, self.boost_ + by_age, -np.inf))
        return self

    def _promote(self, traffic: DoubleArray) -> None:
        """Let `traffic` `[n_items]` be added to what is estimated, and estimate anew."""
        users = self.bound()
        self.traffic_ = np.concatenate(([-np.inf], traffic))
        self.promoted_ = users.promoted(self.traffic_)
        self.estimates_ = _Estimates(users.n_known, 0)

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The `k` items of greatest estimated utility."""
        from simulator.users.choice import kernel

        users = self.bound()
        items = np.zeros((len(histories), k), dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        depth = min(k + histories.seen.shape[1], users.n_items)
        if self.estimates_.depth < depth:
            self.estimates_ = _Estimates(users.n_known, depth)
        kept = self.estimates_
        key, version = users.known(self.inhabitants(histories.user), self.refresh)
        missing = kept.outdated(key, version)
        for first in range(0, len(missing), ESTIMATED):
            some = missing[first : first + ESTIMATED]
            known = key[some], version[some]
            best = users.estimate(*known, self.noise, self.traffic_, self.promoted_, kept.depth)
            kept.keep(*known, *best)
        places = kept.place[key]
        kernel.best_unseen(
            kept.order, kept.value, places, histories.seen,
            np.full(users.n_items + 1, -1), items, scores,
        )  # fmt: skip
        return Slates(items, scores)


class _Estimates:
    """The best items of those who asked, by the estimate of one version each: memory grows with
    active users, not with users times items.

    Attributes:
        depth: items that are kept of each.
        place: where the estimate of a key (`People.known`) is kept, `[keys]`; -1: nowhere yet.
        version: of it, `[keys]`.
        order, value: its best items and their values, best first, `[places, depth]`.
    """

    def __init__(self, keys: int, depth: int) -> None:
        self.depth, self.n_kept = depth, 0
        self.place = np.full(keys, -1, dtype=np.int64)
        self.version = np.zeros(keys, dtype=np.int64)
        self.order = np.empty((0, depth), dtype=np.int32)
        self.value = np.empty((0, depth), dtype=np.float32)

    def outdated(self, key: IntArray, version: IntArray) -> IntArray:
        """Where in `key` `[B]` an estimate is missing or of another version; of equal keys the
        first.
        """
        wrong = np.flatnonzero((self.place[key] < 0) | (self.version[key] != version))
        return np.asarray(wrong[np.unique(key[wrong], return_index=True)[1]])

    def keep(
        self,
        key: IntArray,
        version: IntArray,
        items: npt.NDArray[np.int32],
        values: FloatArray,
    ) -> None:
        """Keep the best items `[B, depth]` of different keys in their versions `[B]`, and their
        values.
        """
        new = key[self.place[key] < 0]
        while self.n_kept + len(new) > len(self.order):
            self._grow()
        self.place[new] = np.arange(self.n_kept, self.n_kept + len(new))
        self.n_kept += len(new)
        self.version[key] = version
        self.order[self.place[key]], self.value[self.place[key]] = items, values

    def _grow(self) -> None:
        size = min(max(64, 2 * len(self.order)), len(self.place))
        order = np.empty((size, self.depth), dtype=np.int32)
        value = np.empty((size, self.depth), dtype=np.float32)
        order[: self.n_kept] = self.order[: self.n_kept]
        value[: self.n_kept] = self.value[: self.n_kept]
        self.order, self.value = order, value
