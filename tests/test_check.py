"""Each check catches its own fault and only its own; every registered policy keeps its promises."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from policies import check
from policies.base import PADDING, Catalogue, Fitting, Histories, Policy, Sequences, Slates
from policies.check import CHECKS, BrokenPromise, check_one, check_policy
from policies.streams import Purpose, uniform
from policies.time import DAY, HOUR


@dataclass
class Neighbours(Policy):
    """A small honest policy: item-to-item transition counts, both ways, then popularity."""

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        n = catalogue.n_items + 1
        self.next_ = np.zeros((n, n))
        clicks = sequences.clicks()
        for i in range(len(clicks)):
            row = clicks.items[clicks.offsets[i] : clicks.offsets[i + 1]]
            np.add.at(self.next_, (row[:-1], row[1:]), 100.0)
            self.next_[np.ix_(row, row)] += 1.0
        self.popular_ = np.bincount(clicks.items, minlength=n) / 1e4
        return self

    def scores(self, histories: Histories, seed: int) -> np.ndarray:
        scores = np.empty((len(histories), len(self.popular_)))
        for i in range(len(histories)):
            clicks = histories.items[i][histories.clicked[i]]
            last = self.next_[clicks[-1]] if len(clicks) else 0.0
            scores[i] = (
                self.popular_
                + last
                + 0.9 * self.next_[clicks].sum(axis=0) / 50
                - np.arange(len(self.popular_)) * 1e-7
            )
        return scores

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        return rank(self.scores(histories, seed), histories, k)

    def state(self) -> dict[str, np.ndarray]:
        return {"next": self.next_, "popular": self.popular_}

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        self.next_, self.popular_ = state["next"], state["popular"]
        return self


def rank(scores: np.ndarray, histories: Histories, k: int) -> Slates:
    scores = scores.copy()
    scores[:, PADDING] = -np.inf
    np.put_along_axis(scores, histories.seen, -np.inf, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    items = np.zeros((len(scores), k), dtype=np.int64)
    best = np.full((len(scores), k), -np.inf, dtype=np.float32)
    items[:, : order.shape[1]], best[:, : order.shape[1]] = (
        order,
        np.take_along_axis(scores, order, axis=1),
    )
    items[np.isneginf(best)] = PADDING
    return Slates(items, best)


@dataclass
class WrongType(Neighbours):
    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        slates = super().recall(histories, k, seed)
        return replace(slates, scores=slates.scores.astype(np.float64))


@dataclass
class WritesWhereItReads(Neighbours):
    """Puts the padding of what it is given out of its way."""

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        slates = super().recall(histories, k, seed)
        histories.items[histories.items == PADDING] = -1
        return slates


@dataclass
class ForgetsSeen(Neighbours):
    """Masks what stands in the history, but not the rest of `seen`."""

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        slates = rank(self.scores(histories, seed), replace(histories, seen=histories.items), k)
        enough = rank(self.scores(histories, seed), histories, k)
        return slates if k <= 10 else enough


@dataclass
class UnseededFit(Neighbours):
    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        super().fit(sequences, catalogue, fitting)
        self.popular_ = self.popular_ + np.random.default_rng().random(len(self.popular_)) * 1e-5
        return self


@dataclass
class Counting(Neighbours):
    """Counts its larger batches of late users, and shifts all scores by the count."""

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        slates = super().recall(histories, k, seed)
        count = self.__dict__.setdefault("count_", 0)
        self.count_ = count + (len(histories) > 1 and int(histories.user.min()) >= 30)
        return replace(slates, scores=slates.scores + np.float32(count))


@dataclass
class AloneIsDifferent(Neighbours):
    """Scores a lone request on another scale, as a squeezed dimension or another kernel would."""

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        return rank(
            self.scores(histories, seed) * (1.0 if len(histories) > 1 else 1.0000001), histories, k
        )


@dataclass
class OrderMatters(Neighbours):
    """Adds the number of descents in the batch's user ids."""

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        return rank(
            self.scores(histories, seed) + float((np.diff(histories.user) < -1).sum() > 1),
            histories,
            k,
        )


@dataclass
class NothingForStrangers(Neighbours):
    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        self.known_ = np.ones(catalogue.n_users)
        return super().fit(sequences, catalogue, fitting)

    def state(self) -> dict[str, np.ndarray]:
        return {**super().state(), "known": self.known_}

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        self.known_ = state["known"]
        return super().restore(state)

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        slates = super().recall(histories, k, seed)
        cold = (histories.user >= len(self.known_))[:, None]
        return Slates(
            np.where(cold, 0, slates.items), np.where(cold, np.float32(-np.inf), slates.scores)
        )


@dataclass
class CutsK(Neighbours):
    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        return super().recall(histories, min(k, 40), seed)


@dataclass
class ForgetsState(Neighbours):
    def state(self) -> dict[str, np.ndarray]:
        return {"next": np.round(self.next_ / 3), "popular": self.popular_}


@dataclass
class HonestDraw(Neighbours):
    """A random order with exact conditional propensities."""

    learns: ClassVar[tuple[str, ...]] = ()
    claim = 1.0

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        n = len(self.popular_)
        keys = uniform(
            seed,
            Purpose.EXPLORE,
            histories.user[:, None],
            histories.step[:, None],
            np.arange(n)[None, :],
        )
        slates = rank(keys, histories, k)
        left = np.array([n - 1 - len(set(row.tolist()) - {0}) for row in histories.seen])[
            :, None
        ] - np.arange(k)
        chance = np.where(slates.items != PADDING, 1.0 / np.maximum(left, 1) ** self.claim, 1.0)
        return replace(slates, propensities=chance.astype(np.float32))


@dataclass
class DishonestDraw(HonestDraw):
    claim = 0.9


@dataclass
class Popular(Neighbours):
    """Personalises nothing, but claims to."""

    def scores(self, histories: Histories, seed: int) -> np.ndarray:
        return np.repeat(self.popular_[None], len(histories), axis=0)


@dataclass
class NoOrder(Neighbours):
    """Knows who likes what, not what follows what: goes backwards."""

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        super().fit(sequences, catalogue, fitting)
        self.next_ = np.where(self.next_ >= 100, self.next_ % 100, self.next_)
        for item in range(len(self.next_)):
            self.next_[item, item] = 0
        order = self.next_ @ self.next_
        self.next_ = self.next_ + 1e-3 * order
        return self

    def scores(self, histories: Histories, seed: int) -> np.ndarray:
        scores = np.empty((len(histories), len(self.popular_)))
        for i in range(len(histories)):
            clicks = histories.items[i][histories.clicked[i]]
            scores[i] = (
                self.popular_
                + self.next_[clicks].sum(axis=0)
                - 100 * self.next_[clicks[-1:]].sum(axis=0) * (len(clicks) > 9)
            )
        return scores


@dataclass
class RemembersLongest(Neighbours):
    """Keeps each user's longest history and answers from it."""

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        memory = self.__dict__.setdefault("memory_", {})
        bonus = np.zeros(len(histories))
        for i, user in enumerate(histories.user.tolist()):
            length = int((histories.items[i] != PADDING).sum())
            memory[user] = max(length, memory.get(user, 0))
        for i, user in enumerate(histories.user.tolist()):
            bonus[i] = memory[user] - int((histories.items[i] != PADDING).sum())
        return rank(self.scores(histories, seed) + bonus[:, None], histories, k)


@dataclass
class Slow(Neighbours):
    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        if len(histories) == 256:
            np.ones((len(histories), 9 << 20), dtype=np.int8)
        return super().recall(histories, k, seed)


@dataclass
class DrawsUnsaid(Neighbours):
    """Breaks ties by its seed, and says that it draws nothing."""

    draws_in_fit: ClassVar[bool] = False

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        super().fit(sequences, catalogue, fitting)
        self.popular_ = self.popular_ + 1e-6 * np.random.default_rng(fitting.seed).random(
            len(self.popular_)
        )
        return self


@dataclass
class ClaimsFresh(Neighbours):
    """It knows items by who clicked them, and so nothing of one that nobody was shown."""

    learns: ClassVar[tuple[str, ...]] = ("fresh",)


@dataclass
class ShowsWhatIsGone(Neighbours):
    """It is told of removed items, and goes on."""

    def admit(self, catalogue: Catalogue, new: np.ndarray, t: int) -> Self:
        return self


@dataclass
class ByTag(Neighbours):
    """Items of the tag of which the user clicked most."""

    learns: ClassVar[tuple[str, ...]] = ("checkerboard", "fresh")
    draws_in_fit: ClassVar[bool] = False

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        self.tag_ = np.asarray(catalogue.items["tag"])
        return self

    def scores(self, histories: Histories, seed: int) -> np.ndarray:
        own = histories.clicks(20)
        of_tag = [((self.tag_[own] == tag) & (own > 0)).sum(axis=1) for tag in (0, 1)]
        scores: np.ndarray = np.stack(of_tag, axis=1)[:, self.tag_].astype(np.float64)
        return scores

    def state(self) -> dict[str, np.ndarray]:
        return {"tag": self.tag_}

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        self.tag_ = state["tag"]
        return self


@dataclass
class ClaimsHours(Neighbours):
    """It is told the hour, and does not look at it."""

    learns: ClassVar[tuple[str, ...]] = ("hours",)
    asks_for: ClassVar[tuple[str, ...]] = ("time",)


@dataclass
class ByHour(Neighbours):
    """The most clicked at this hour of the day; asks for all else that it might be told, too."""

    learns: ClassVar[tuple[str, ...]] = ("hours",)
    draws_in_fit: ClassVar[bool] = False
    asks_for: ClassVar[tuple[str, ...]] = (
        "time",
        "times",
        "watch",
        "reactions.like",
        "features.tab",
    )

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        assert {"like", "tab", "watch"} <= sequences.columns.keys()
        self.clicks_ = np.zeros((24, catalogue.n_items + 1))
        clicks = sequences.clicks()
        np.add.at(self.clicks_, (clicks.t % DAY // HOUR, clicks.items), 1.0)
        return self

    def scores(self, histories: Histories, seed: int) -> np.ndarray:
        told = histories.context()
        assert sorted(told) == sorted(self.asks_for)
        shape = histories.items.shape
        assert all(told[path].shape == shape for path in ("times", "watch", "reactions.like"))
        assert histories.time is not None
        # What is told counts, so that a call which hands on other context gives other slates.
        liked = told["watch"].sum(axis=1) + told["reactions.like"].sum(axis=1)
        more = (told["times"].sum(axis=1) % 1000 + liked + told["features.tab"]) % 3
        scores = self.clicks_[histories.time % DAY // HOUR] + 0.01 * more[:, None]
        return np.asarray(scores)

    def state(self) -> dict[str, np.ndarray]:
        return {"clicks": self.clicks_}

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        self.clicks_ = state["clicks"]
        return self


@dataclass
class ClaimsTooMuch(ByTag):
    learns: ClassVar[tuple[str, ...]] = ("everything",)


FAULTS: dict[str, type[Policy]] = {
    "shapes": WrongType,
    "leaves_inputs": WritesWhereItReads,
    "seen_items": ForgetsSeen,
    "determinism": UnseededFit,
    "seedless_fit": DrawsUnsaid,
    "purity": Counting,
    "batch_invariance": AloneIsDifferent,
    "permutation": OrderMatters,
    "cold_users": NothingForStrangers,
    "k_too_large": CutsK,
    "save_load": ForgetsState,
    "propensities": DishonestDraw,
    "learns_checkerboard": Popular,
    "learns_chain": NoOrder,
    "learns_fresh": ClaimsFresh,
    "learns_hours": ClaimsHours,
    "admits": ShowsWhatIsGone,
    "no_look_ahead": RemembersLongest,
    "cost": Slow,
}


def test_every_check_has_its_fault() -> None:
    assert list(FAULTS) == list(CHECKS)


@pytest.mark.parametrize(
    "policy", [Neighbours(), HonestDraw(), ByTag(), ByHour()], ids=lambda p: type(p).__name__
)
def test_an_honest_policy_keeps_every_promise(policy: Policy) -> None:
    broken = {r.name: r.detail for r in check_policy(policy) if not r.kept and not r.skipped}
    assert broken == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_its_own_check_and_no_other(fault: str) -> None:
    results = list(check_policy(FAULTS[fault]()))
    expected = (
        [fault, "learns_chain"] if FAULTS[fault] is Popular else [fault]
    )  # who personalises nothing learns no chain either
    assert [r.name for r in results if not r.kept and not r.skipped] == expected
    assert all(r.detail for r in results if not r.kept)


def test_a_claim_that_no_example_asks_for_is_named() -> None:
    (result,) = check_policy(ClaimsTooMuch(), only=["learns_chain"])
    assert result.detail == (
        "claims to learn 'everything'; there is checkerboard, chain, fresh, hours"
    )


def test_check_one_raises_with_the_example() -> None:
    with pytest.raises(BrokenPromise, match=r"(?s)seen_items.*request: user=\d+ .*answer: items="):
        check_one(ForgetsSeen(), "seen_items")
    check_one(Neighbours(), "seen_items")


def test_what_a_policy_raises_is_named_with_its_line() -> None:
    @dataclass
    class Raises(Neighbours):
        def recall(self, histories: Histories, k: int, seed: int) -> Any:
            raise RuntimeError("out of cheese")

    (result,) = check_policy(Raises(), only=["shapes"])
    assert not result.kept
    assert "RuntimeError: out of cheese" in result.detail
    assert "at test_check.py:" in result.detail


def test_a_costly_policy_is_not_asked_for_the_large_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Costly(Neighbours):
        def recall(self, histories: Histories, k: int, seed: int) -> Slates:
            assert len(histories) <= 60
            np.ones(1 << 20, dtype=np.int8)
            return super().recall(histories, k, seed)

    monkeypatch.setattr(check, "BYTES_PER_REQUEST", 1 << 11)
    (result,) = check_policy(Costly(), only=["cost"])
    assert not result.kept
    assert "1 MiB in a batch of 8; at most" in result.detail


def test_a_check_has_a_limit_and_the_last_one_that_is_done_is_the_one_that_took_too_long() -> None:
    @dataclass
    class SlowAlone(Neighbours):
        def recall(self, histories: Histories, k: int, seed: int) -> Slates:
            if len(histories) == 1:
                time.sleep(60)
            return super().recall(histories, k, seed)

    results = list(
        check_policy(SlowAlone(), only=["shapes", "batch_invariance", "permutation"], limit=1.0)
    )
    assert [(r.name, r.kept, r.stops) for r in results] == [
        ("shapes", True, False),
        ("batch_invariance", False, True),
    ]
    assert results[1].detail == "recall took longer than the 1 s of a check"


def test_slates_of_a_wrong_form_are_one_line() -> None:
    @dataclass
    class Lists(Neighbours):
        def recall(self, histories: Histories, k: int, seed: int) -> Any:
            return [[1] * k for _ in range(len(histories))]

    (result,) = check_policy(Lists())
    assert result.stops
    assert result.detail == "recall must return policies.base.Slates; got list"
