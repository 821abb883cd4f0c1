"""AnswerModel: what any user would answer to any item, learned from a log in two steps, one for
sharpness and one against bias.

A recommender shows what it thinks will please, and it knows more than its log says: whatever is
learned of shown impressions promises too much of others. So all impressions teach a score, and only
their weights by propensity say what a score is worth. It knows no policy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from policies.base import BoolArray, Catalogue, DoubleArray, IntArray, Progress, silent
from policies.elementary import exps, logs, logs1p
from policies.products import matmul, solve
from policies.streams import Purpose, uniform
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.uncertainty import Ratios

FOLDS = 5
"""Groups of requests: what is predicted of one is learned from the others, and what leaving one out
moves is the model's error.
"""

FACTORS = 16
EPOCHS = 5
OTHERS = 4
"""Items drawn at random for each that was rewarded."""

RATE = 0.2
"""Of AdaGrad's steps; on the last days of a synthetic log twice and half of it are within .3% of
the same log loss.
"""

MEAN_PRIOR, NEAR_PRIOR = 20.0, 5.0
"""Impressions' worth of the mean that smooth an item's mean reward, and of 0 that smooth a surplus.
"""

NEAR = 0.5, 48.0, np.inf
"""Hours within which the weight of an impression of the same user falls to 1 / e: of one session,
of some days, of always.
"""

SPREAD = 0.1
"""Standard deviation of the factors before the fit."""

OF_USER, OF_ITEM = (4.0, 8.0), (2.0, 4.0)
"""Penalties (of the bias, of each factor) of a user and of an item or a group of items: that of
normal priors of variance 1 / penalty.
"""


@dataclass(frozen=True)
class AnswerRows:
    """Logged impressions, in the order of the log.

    Attributes:
        user, step, t, item, place: `[N]` who, the number of the request, when (ms), what, where.
        reward: `[N]`, not below 0.
        weight: `[N]` 1 / propensity; 1 where propensities are unknown.
        drawn: propensities are known.
    """

    user: IntArray
    step: IntArray
    t: IntArray
    item: IntArray
    place: IntArray
    reward: DoubleArray
    weight: DoubleArray
    drawn: bool

    @classmethod
    def of(cls, chunks: Iterable[Rounds]) -> AnswerRows:
        """The impressions of rounds with histories whose rewards were observed."""
        parts, known = [], False
        for rounds in chunks:
            assert rounds.histories is not None, "rounds with histories: Stream(history=...)"
            known = rounds.kind != "unknown"
            weight = 1.0 / rounds.propensity if known else np.ones(rounds.item.shape)
            length = rounds.length
            columns = (
                np.repeat(rounds.user, length),
                np.repeat(rounds.histories.step, length),
                np.repeat(rounds.t, length),
                rounds.item.ravel(),
                rounds.position.ravel(),
                rounds.reward.ravel(),
                weight.ravel(),
            )
            seen = np.isfinite(columns[5])
            parts.append([column[seen] for column in columns])
        user, step, t, item, place, reward, weight = map(np.concatenate, zip(*parts, strict=True))
        return cls(user, step, t, item, place, reward, weight, known)

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class _Factors:
    """A factorised logistic regression (`factors.fit`): `[n_users, F]`, `[T, F]`, `[K]`."""

    users: DoubleArray
    items: DoubleArray
    places: DoubleArray


class _Scores(NamedTuple):
    """The first step without one fold: what is rewarded once shown, and what comes to be shown and
    rewarded at all.
    """

    answered: _Factors
    chosen: _Factors


@dataclass(frozen=True)
class _Logged:
    """The impressions of every user, to be looked up by user.

    Attributes:
        begin: `[n_users + 1]` where the impressions of each user begin.
        t, item, fold: `[N]` when (ms), what, and the fold of its request.
        surplus: `[N]` reward above the mean of the item.
    """

    begin: IntArray
    t: IntArray
    item: IntArray
    fold: IntArray
    surplus: DoubleArray

    @classmethod
    def of(
        cls, rows: AnswerRows, reward: DoubleArray, fold: IntArray, catalogue: Catalogue
    ) -> _Logged:
        """Of logged impressions."""
        size = catalogue.n_items + 1
        often = np.bincount(rows.item, minlength=size)
        mean = np.bincount(rows.item, weights=reward, minlength=size) + MEAN_PRIOR * reward.mean()
        surplus = reward - (mean / (often + MEAN_PRIOR))[rows.item]
        order = np.argsort(rows.user, kind="stable")
        begin = np.searchsorted(rows.user[order], np.arange(catalogue.n_users + 1))
        return cls(begin, rows.t[order], rows.item[order], fold[order], surplus[order])


@dataclass(frozen=True)
class ModelEvidence:
    """What a log says of a model that was fitted to it.

    Attributes:
        drawn: the impressions had propensities.
        effective: how many of equal weight they are worth (Kong 1992).
        error: mean weighted residual over the mean prediction, of impressions whose reward was
            predicted without their fold, among the tenth of the weight with the highest
            predictions: what policies look for.
        deviation: its standard error, by user.
        shown: `[n_items + 1]` whether the log has each item.
    """

    drawn: bool
    effective: float
    error: float
    deviation: float
    shown: BoolArray

    @classmethod
    def of(
        cls, rows: AnswerRows, reward: DoubleArray, predicted: DoubleArray, n_items: int
    ) -> ModelEvidence:
        """Of the model without the fold of each row."""
        order = np.argsort(-predicted, kind="stable")
        reached = np.cumsum(rows.weight[order])
        best = order[: int(np.searchsorted(reached, reached[-1] / 10)) + 1]
        user, promised = rows.user[best], rows.weight[best] * predicted[best]
        missed = rows.weight[best] * reward[best] - promised
        error = Ratios(_by_user(user, missed), _by_user(user, promised))
        return cls(
            rows.drawn,
            float(rows.weight.sum() ** 2 / np.square(rows.weight).sum()),
            error.value,
            error.error(),
            np.bincount(rows.item, minlength=n_items + 1) > 0,
        )


class Expected(NamedTuple):
    """What a model expects of slates.

    Attributes:
        reward: `[B, K]`.
        without: `[folds, B, K]` the same by the model without each fold.
        plain: `[B, K]` the same by the scores alone, without the impressions near the request.
    """

    reward: DoubleArray
    without: DoubleArray
    plain: DoubleArray


@dataclass
class AnswerModel:
    """Expected reward of any (user, item, place), by a score and its calibration.

    The *score* is a logistic regression with factors of users and items, where an item is its own
    and its groups' (author, tag: the integer columns of the catalogue), fitted on all impressions
    alike (a factorisation machine: Rendle, ICDM 2010). The *calibration* is a logistic regression
    of the reward on the parts of the score that the other folds have learned, and on how often the
    item and the user were logged, each impression weighted by 1 / propensity: it says what a score
    is worth of an item that is not chosen for what the logging policy knew (Horvitz & Thompson,
    JASA 1952), and how much of the promise of an item that was seldom shown is luck. It also knows
    what the user answered to items like it, and at about that time (`_near`). A beta calibration of
    what is so predicted of folds that were left out takes back what is promised too much at the
    ends. Rewards above
    1 are divided by the largest (fractional logit: Papke & Wooldridge, Journal of Applied
    Econometrics 1996).

    Life: `fit` once; then `expect` is pure.

    Attributes:
        catalogue: whose integer columns are groups.
        seed: of folds and starting factors.
        folds: groups of requests.
        scale: what predictions are multiplied by.
        evidence: what the log says of the fitted model.
    """

    catalogue: Catalogue
    seed: int = 0
    folds: int = FOLDS
    scale: float = 1.0
    _scores: list[_Scores] = field(default_factory=list)
    _bends: list[DoubleArray] = field(default_factory=list)

    def fit(self, rows: AnswerRows, progress: Progress = silent) -> AnswerModel:
        """Learn from logged impressions.

        Raises:
            ValueError: a reward below 0.
        """
        if rows.reward.min(initial=0.0) < 0:
            raise ValueError(
                f"rewards must be 0 or more for a model of answers; got {rows.reward.min():g}"
            )
        self._groups, self._size = _groups(self.catalogue)
        self.scale = max(1.0, float(rows.reward.max(initial=0.0)))
        reward = rows.reward / self.scale
        often = self.catalogue.n_users, self.catalogue.n_items + 1
        self._often_user = logs1p(np.bincount(rows.user, minlength=often[0]) * 1.0)
        self._often_item = logs1p(np.bincount(rows.item, minlength=often[1]) * 1.0)
        self._middle = self._often_user[rows.user].mean(), self._often_item[rows.item].mean()
        fold = self.fold(rows.user, rows.step)
        self._logged = _Logged.of(rows, reward, fold, self.catalogue)
        near = 2 * len(NEAR) * (len(self._groups) + len(_Scores._fields))
        inputs = np.empty((len(rows), INPUTS + near))
        for out in range(self.folds):
            self._scores.append(self._score(rows, reward, np.flatnonzero(fold != out), out))
            progress("model of answers", out + 1, self.folds, {})
            held = fold == out
            asked = rows.user[held], rows.item[held], rows.place[held], rows.t[held]
            inputs[held] = self._inputs(out, *asked)
        weight = rows.weight * (rows.weight.sum() / np.square(rows.weight).sum())
        self._worth = _logistic(inputs, reward, weight)
        self._plain_worth = _logistic(inputs[:, :INPUTS], reward, weight)
        self._without = [
            _logistic(inputs, reward, np.where(fold == out, 0.0, weight), self._worth)
            for out in range(self.folds)
        ]
        held_out = np.empty(len(rows))
        for out, worth in enumerate(self._without):
            held_out[fold == out] = _times(inputs[fold == out], worth)
        ends = _ends(held_out)
        self._bend = _logistic(ends, reward, weight)
        for out in range(self.folds):
            bend = _logistic(ends, reward, np.where(fold == out, 0.0, weight), self._bend)
            held_out[fold == out] = _sigmoid(_times(ends[fold == out], bend))
            self._bends.append(bend)
        self.evidence = ModelEvidence.of(rows, reward, held_out, self.catalogue.n_items)
        return self

    def fold(self, user: IntArray, step: IntArray) -> IntArray:
        """The fold of each request."""
        drawn = uniform(self.seed, Purpose.SPLIT, user, step)
        return (drawn * self.folds).astype(np.int64)

    def expect_logged(self, rounds: Rounds) -> DoubleArray:
        """Expected reward `[R, K]` of logged impressions, by the model without their folds."""
        assert rounds.histories is not None, "rounds with histories: Stream(history=...)"
        fold = self.fold(rounds.user, rounds.histories.step)
        out = np.empty(rounds.item.shape)
        for one in range(self.folds):
            at = fold == one
            user, t = (np.repeat(of[at], rounds.length) for of in (rounds.user, rounds.t))
            inputs = self._inputs(
                one, user, rounds.item[at].ravel(), rounds.position[at].ravel(), t
            )
            out[at] = _sigmoid(_times(inputs, self._without[one])).reshape(-1, rounds.length)
        return self.scale * out

    def expect(self, user: IntArray, items: IntArray, t: IntArray) -> Expected:
        """What users answer to slates.

        Args:
            user: `[B]`.
            items: `[B, K]`, 0 = none, whose reward is 0.
            t: `[B]` ms, when.
        """
        batch, k = items.shape
        place = np.tile(np.arange(k), batch)
        who, what, when = np.repeat(user, k), items.ravel(), np.repeat(t, k)
        whole, plain = np.zeros((2, batch * k))
        without = np.empty((self.folds, batch * k))
        for out in range(self.folds):
            inputs = self._inputs(out, who, what, place, when)
            whole += _bent(_times(inputs, self._worth), self._bend) / self.folds
            plain += _sigmoid(_times(inputs[:, :INPUTS], self._plain_worth)) / self.folds
            without[out] = _bent(_times(inputs, self._without[out]), self._bends[out])
        shown = np.where(items > 0, self.scale, 0.0)
        whole, plain = (one.reshape(batch, k) * shown for one in (whole, plain))
        return Expected(whole, without.reshape(-1, batch, k) * shown, plain)

    def _score(self, rows: AnswerRows, reward: DoubleArray, kept: IntArray, fold: int) -> _Scores:
        """Both scores of the impressions `kept`."""
        random = np.random.Generator(np.random.Philox(key=[self.seed & (2**64 - 1), fold]))
        answered = self._fitted(
            random, rows.user[kept], rows.item[kept], rows.place[kept], reward[kept]
        )
        liked = kept[reward[kept] > 0]
        others = random.integers(1, self.catalogue.n_items + 1, OTHERS * len(liked))
        user = np.concatenate((rows.user[liked], np.repeat(rows.user[liked], OTHERS)))
        item = np.concatenate((rows.item[liked], others))
        is_liked = (np.arange(len(user)) < len(liked)).astype(np.float64)
        chosen = self._fitted(random, user, item, np.zeros_like(user), is_liked)
        return _Scores(answered, chosen)

    def _fitted(
        self,
        random: np.random.Generator,
        user: IntArray,
        item: IntArray,
        place: IntArray,
        reward: DoubleArray,
    ) -> _Factors:
        from simulator.offpolicy import factors

        users = SPREAD * random.standard_normal((self.catalogue.n_users, FACTORS + 1))
        items = SPREAD * random.standard_normal((self._size, FACTORS + 1))
        users[:, 0] = items[:, 0] = 0.0
        mean = (reward.sum() + 0.5) / (len(reward) + 1.0)
        places = np.full(int(place.max(initial=0)) + 1, logs(mean / (1.0 - mean)))
        squares = tuple(np.ones(array.shape) for array in (users, items, places))
        of_user = np.bincount(user, minlength=len(users))
        of_item = np.bincount(item, minlength=len(items))
        for group in self._groups:
            of_item += np.bincount(group[item], minlength=len(items))
        ridge = tuple(
            np.array(penalty) / np.maximum(count, 1)[:, None]
            for penalty, count in ((OF_USER, of_user), (OF_ITEM, of_item))
        )
        for _ in range(EPOCHS):
            order, tables = random.permutation(len(user)), (self._groups, ridge)
            factors.fit(
                order, user, item, place, reward, *tables, RATE, users, items, places, squares
            )
        return _Factors(users, items, places)

    def _inputs(
        self, fold: int, user: IntArray, item: IntArray, place: IntArray, t: IntArray
    ) -> DoubleArray:
        """What the calibration knows of impressions by all folds but one: INPUTS columns of the
        scores, and those of `_near`.
        """
        from simulator.offpolicy import factors

        learned = self._scores[fold]

        parts = np.empty((2, len(user), factors.PARTS))
        for one, out in zip(learned, parts, strict=True):
            factors.parts(user, item, self._groups, one.users, one.items, out)
        (match, of_user, of_item), (drawn, _, drawn_item) = parts[0].T, parts[1].T
        shown = (self._often_item[item] - self._middle[1]) / 2
        asked = self._often_user[user] - self._middle[0]
        places = learned.answered.places
        columns = [
            np.ones(len(user)),
            places[np.minimum(place, len(places) - 1)] - places.mean(),
            match,
            of_user,
            of_item,
            shown,
            asked,
            match * match,
            match * of_user,
            match * of_item,
            match * shown,
            of_item * shown,
            of_user * asked,
            drawn,
            drawn_item,
            drawn * drawn,
            drawn * match,
            drawn * shown,
            drawn * of_user,
            drawn * of_item,
        ]
        return np.column_stack((*columns, self._near(fold, user, item, t)))

    def _near(self, fold: int, user: IntArray, item: IntArray, t: IntArray) -> DoubleArray:
        """What the log says of a user's answers to items like these, and at about this time: for
        each likeness and each reach of NEAR the mean surplus, shrunk to 0 by NEAR_PRIOR
        impressions, and the logarithm of how much was shown (which says what the logging policy
        knew).

        Items are alike by a group that they share, and by the squared cosine of their factors in
        each score, where it is above 0: who likes two kinds of items need not like what lies
        between them, which no product of a user's factors with an item's can say (Weston, Weiss &
        Yee, RecSys 2013). The logged impressions lie before and after the request: what a user
        liked then is asked, and not what a policy could have known.
        """
        from simulator.offpolicy import factors

        of = self._logged
        vectors = np.stack([self._directions(one.items) for one in self._scores[fold]])
        rates = 1.0 / (3.6e6 * np.array(NEAR))
        kinds = len(self._groups) + len(vectors)
        sums = np.zeros((len(user), kinds, len(NEAR), 2))
        logged = of.begin, of.t, of.item, of.fold, of.surplus
        factors.nearby(user, item, t, fold, logged, self._groups, vectors, rates, sums)
        surplus, shown = sums.reshape(len(user), kinds * len(NEAR), 2).transpose(2, 0, 1)
        return np.concatenate((surplus / (shown + NEAR_PRIOR), logs1p(shown)), axis=1)

    def _directions(self, items: DoubleArray) -> DoubleArray:
        """Factors of each item with those of its groups, of length 1; `[n_items + 1, FACTORS]`."""
        whole = items[: self.catalogue.n_items + 1, 1:].copy()
        for group in self._groups:
            whole += items[group, 1:]
        whole[0] = 0.0
        length = np.sqrt(np.square(whole).sum(axis=1, keepdims=True))
        directions: DoubleArray = whole / np.maximum(length, 1e-12)
        return directions


INPUTS = 20
"""Numbers by which the calibration knows an impression by its scores."""


def _by_user(user: IntArray, values: DoubleArray) -> DoubleArray:
    """Sums `[U, 1]` of each user that is there."""
    _, unit = np.unique(user, return_inverse=True)
    sums: DoubleArray = np.bincount(unit, weights=values)[:, None].astype(np.float64)
    return sums


def _groups(catalogue: Catalogue) -> tuple[IntArray, int]:
    """Rows `[G, n_items + 1]` of the items' groups in one table whose first `n_items + 1` rows are
    the items' own, and the rows of the table.
    """
    size, groups = catalogue.n_items + 1, []
    for _, column in sorted(catalogue.items.items()):
        if column.ndim == 1 and column.dtype.kind in "iu":
            codes = np.unique(column, return_inverse=True)[1].astype(np.int64)
            groups.append(codes + size)
            size += int(codes.max(initial=0)) + 1
    if not groups:
        return np.zeros((0, catalogue.n_items + 1), dtype=np.int64), size
    return np.stack(groups), size


def _logistic(
    x: DoubleArray, y: DoubleArray, weight: DoubleArray, start: DoubleArray | None = None
) -> DoubleArray:
    """Coefficients `[F]` of a weighted logistic regression with a penalty of 1 on all but the first
    (Newton's method).
    """
    beta = np.zeros(x.shape[1]) if start is None else start.copy()
    penalty = np.ones(x.shape[1])
    penalty[0] = 1e-6  # the level is free, and the matrix not singular where all answers are alike
    for _ in range(25):
        p = _sigmoid(_times(x, beta))
        gradient = _times(x.T, weight * (y - p)) - penalty * beta
        hessian = matmul((x * (weight * p * (1 - p))[:, None]).T, x) + np.diag(penalty)
        step = solve(hessian, gradient)
        beta = beta + step
        if np.abs(step).max() < 1e-8:
            break
    return beta


def _ends(z: DoubleArray) -> DoubleArray:
    """`[N, 3]` of log-odds `z`: 1, log p and log(1 - p), by which beta calibration bends the two
    ends apart (Kull, Silva Filho & Flach, AISTATS 2017).
    """
    p = _sigmoid(z)
    return np.stack((np.ones(len(z)), logs(p), logs(1.0 - p)), axis=1)


def _bent(z: DoubleArray, bend: DoubleArray) -> DoubleArray:
    """Probabilities of log-odds by a beta calibration."""
    return _sigmoid(_times(_ends(z), bend))


def _times(x: DoubleArray, v: DoubleArray) -> DoubleArray:
    """`x @ v`."""
    return matmul(x, v[:, None])[:, 0]


def _sigmoid(z: DoubleArray) -> DoubleArray:
    p: DoubleArray = 1.0 / (1.0 + exps(-np.clip(z, -30.0, 30.0)))
    return p
