"""RewardTable: the cross-fitted reward model behind the direct method and the doubly robust
estimators.

One shrunken mean for each (context, position, item): it streams, its expectation under any slate is
a look-up, and its own sampling error has a closed form. It knows no policy and no estimator.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from policies.base import DoubleArray, IntArray
from policies.streams import Purpose, uniform
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.target import Target

FOLDS = 3
TURNS = 30
"""Turns by which the attention of places is known to four digits, where items move among them."""


@dataclass
class RewardTable:
    """Mean reward of each (context, position, item), one table for each fold of users, fitted on
    the *other* folds.

    The mean of a cell is shrunk to the mean of its (context, position) by empirical Bayes: with `n`
    impressions it is `(sum + kappa * prior) / (n + kappa)`, kappa = variance within cells /
    variance between cells (Robbins 1956; the method of moments of Morris, JASA 1983). Users are put
    into folds by a hash, so that a round is never judged by a table that has seen its user
    (cross-fitting: Chernozhukov et al., Econometrics Journal 2018).

    Life: `add` every chunk, `settle`, then `predict`, `expected`; both are pure.
    """

    n_items: int
    n_contexts: int = 1
    folds: int = FOLDS
    seed: int = 0

    def __post_init__(self) -> None:
        self.n_positions = 0
        self._count = self._sum = np.zeros((self.folds, self.n_contexts, 0, self.n_items + 1))
        self._squares = 0.0

    def fold(self, user: IntArray) -> IntArray:
        """Which fold each user is in, `[R]`."""
        return (uniform(self.seed, Purpose.SPLIT, user, 0, 0) * self.folds).astype(np.int64)

    def add(self, rounds: Rounds) -> None:
        """Count a chunk of rounds."""
        reach = int(rounds.position.max(initial=-1)) + 1
        if reach > self.n_positions:
            wider = ((0, 0), (0, 0), (0, reach - self.n_positions), (0, 0))
            self._count = np.pad(self._count, wider)
            self._sum = np.pad(self._sum, wider)
            self.n_positions = reach
        cell = self._cells(self.fold(rounds.user), rounds).ravel()
        shape, size = self._count.shape, self._count.size
        self._count += np.bincount(cell, minlength=size).reshape(shape)
        self._sum += _sums(cell, rounds.reward, size).reshape(shape)
        self._squares += float(np.square(rounds.reward).sum())

    def settle(self) -> None:
        """Fit each fold's table on the impressions of the other folds."""
        count = self._count.sum(axis=0) - self._count
        total = self._sum.sum(axis=0) - self._sum
        per_place = np.maximum(count.sum(axis=3, keepdims=True), 1.0)
        prior = total.sum(axis=3, keepdims=True) / per_place
        # Both variances stay above 0, so that their ratio is a number where rewards do not vary.
        within = max(
            self._squares / max(self._count.sum(), 1.0) - float(np.square(prior).mean()), 1e-12
        )
        spread = (np.square(total / np.maximum(count, 1.0) - prior) * count).sum(axis=(1, 2, 3))
        places = (count > 0).sum(axis=(1, 2, 3)) - (count.sum(axis=3) > 0).sum(axis=(1, 2))
        weighted = count.sum(axis=(1, 2, 3)) - (
            np.square(count).sum(axis=3, keepdims=True) / per_place
        ).sum(axis=(1, 2, 3))
        between = np.maximum((spread - places * within) / np.maximum(weighted, 1.0), within * 1e-6)
        self.kappa: DoubleArray = (within / between)[:, None, None, None]
        self.support: DoubleArray = count + self.kappa
        self.prior: DoubleArray = prior
        self.shown_at: DoubleArray = per_place
        self.table: DoubleArray = (total + self.kappa * prior) / self.support

    @cached_property
    def attention(self) -> DoubleArray:
        """How often each place is looked at, over the first, `[P]`, by the position-based model:
        the expected reward of an item at a place is the attention of the place times an appeal of
        the item (Richardson, Dominowska & Ragno, WWW 2007).

        Maximum likelihood of the two factors for counts (Poisson), by turns; it compares places by
        the items that stood on several of them, so that a place with better items is not taken for
        one that is looked at more. Each factor starts from one mean reward that agrees with the
        other, which keeps what was rarely shown near 1.
        """
        count, total = self._count.sum(axis=(0, 1)), self._sum.sum(axis=(0, 1))
        place = np.ones(len(count))
        mean = total.sum() / max(count.sum(), 1.0)
        if mean <= 0:
            return place
        for _ in range(TURNS):
            appeal = (total.sum(axis=0) + mean) / ((count * place[:, None]).sum(axis=0) + 1.0)
            place = (total.sum(axis=1) + mean) / ((count * appeal).sum(axis=1) + mean)
        first: DoubleArray = place / place[0]
        return first

    def predict(self, fold: IntArray, rounds: Rounds) -> DoubleArray:
        """Predicted reward of the logged impressions by the table that has not seen `fold`,
        `[R, K]`.
        """
        return self.table.reshape(-1)[self._cells(fold, rounds)]

    def expected(self, rounds: Rounds, target: Target) -> DoubleArray:
        """Predicted reward at each place under the target's own slates, `[R, K]`."""
        if target.foretells and rounds.length == 1:
            return self.given_above(rounds, target)
        cells = self._places(rounds)
        drawn = self.table.reshape(-1)[cells[:, None, :] * (self.n_items + 1) + target.slates]
        drawn = np.where(target.slates > 0, drawn, 0.0)
        share = (
            np.full(drawn.shape[:2], 1.0 / drawn.shape[1]) if target.share is None else target.share
        )
        mean: DoubleArray = np.einsum("rd,rdk->rk", share, drawn)
        return mean

    def at(self, rounds: Rounds, slate: IntArray) -> DoubleArray:
        """Predicted reward of each item of a slate `[R, K]` at its place; of no item (0), 0."""
        cells = self._places(rounds) * (self.n_items + 1) + slate
        return np.where(slate > 0, self.table.reshape(-1)[cells], 0.0)

    def given_above(self, rounds: Rounds, target: Target) -> DoubleArray:
        """Predicted reward at each place if the target chose it after the *logged* items above,
        `[R, K]`.
        """
        return target.expects(self.table.reshape(-1, self.n_items + 1), self._places(rounds))

    def mass(self, rounds: Rounds, target: Target) -> DoubleArray:
        """How much of the target's showing falls into each cell, summed over rounds: the shape of
        `table`.
        """
        cells = self._places(rounds)
        flat: DoubleArray = np.zeros((self.table.size // (self.n_items + 1), self.n_items + 1))
        if target.given is not None and rounds.length == 1:
            for place in np.unique(cells):
                flat[place] = target.given[:, 0][cells[:, 0] == place].sum(axis=0)
        else:
            if target.share is None:
                share = np.full(target.slates.shape[:2], 1.0 / target.slates.shape[1])
            else:
                share = target.share
            index = cells[:, None, :] * (self.n_items + 1) + target.slates
            weight = np.where(target.slates > 0, share[:, :, None], 0.0)
            flat = _sums(index, weight, flat.size).reshape(flat.shape)
        return flat.reshape(self.table.shape)

    def shown(self, rounds: Rounds, weight: DoubleArray) -> DoubleArray:
        """`weight` `[R, K]` of each logged impression summed over its cells: the shape of
        `table`.
        """
        cell = self._cells(self.fold(rounds.user), rounds).ravel()
        return _sums(cell, weight, self.table.size).reshape(self.table.shape)

    def influence(self, rounds: Rounds, gradient: DoubleArray) -> DoubleArray:
        """What each round adds to a sum of predictions by having been in the fit, `[R, ...]`.

        Args:
            rounds: the fitted impressions.
            gradient: `[..., *table.shape]` derivative of each sum of predictions with respect to
                each cell.

        First-order effect of a round's weight in the fit (infinitesimal jackknife: Jaeckel 1972;
        Efron, JASA 2014, eq. 3.3): one more impression of reward r in a cell moves its mean by
        `(r - mean) / (n + kappa)`, and the prior of its place, towards which all cells of the place
        are shrunk, by `(r - prior) / n_place`.
        """
        mine = self.fold(rounds.user)
        moved = gradient / self.support
        flat = moved.reshape(-1, self.table.size)
        common = ((moved * self.kappa).sum(axis=-1) / self.shown_at[..., 0]).reshape(len(flat), -1)
        out = np.zeros((len(flat), len(rounds)))
        for fold in range(self.folds):
            at = np.flatnonzero(mine != fold)
            here = rounds.rows(at)
            cell = self._cells(np.full(len(at), fold), here)
            place = cell // (self.n_items + 1)
            residual = here.reward - self.table.reshape(-1)[cell]
            surprise = here.reward - self.prior.reshape(-1)[place]
            for row, weights, shared in zip(out, flat, common, strict=True):
                row[at] += (weights[cell] * residual + shared[place] * surprise).sum(axis=1)
        return out.reshape(*gradient.shape[: gradient.ndim - self.table.ndim], len(rounds))

    def _places(self, rounds: Rounds) -> IntArray:
        """Row of the table flattened to `[F * C * P, n_items + 1]` of each place, `[R, K]`."""
        fold = self.fold(rounds.user)
        return ((fold * self.n_contexts + rounds.context) * self.n_positions)[
            :, None
        ] + rounds.position

    def _cells(self, fold: IntArray, rounds: Rounds) -> IntArray:
        place = ((fold * self.n_contexts + rounds.context) * self.n_positions)[
            :, None
        ] + rounds.position
        return place * (self.n_items + 1) + rounds.item


def _sums(cell: IntArray, weight: DoubleArray, size: int) -> DoubleArray:
    """`weight` summed over each cell, `[size]`."""
    total: DoubleArray = np.bincount(cell.ravel(), weights=weight.ravel(), minlength=size).astype(
        np.float64, copy=False
    )
    return total
