"""Item-kNN and first-order Markov counts: the training-free floor that stands beside every table of
learned models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from policies.base import (
    PADDING,
    Catalogue,
    Fitting,
    FloatArray,
    Histories,
    IntArray,
    Sequences,
    Slates,
)
from policies.blocks import ROWS
from policies.elementary import powers
from policies.heap import before, offer
from policies.jit import njit
from policies.retrieval import check_wanted, ties, top_k_of
from policies.scored import Scored
from policies.withheld import authors_others

PARTS = ("data", "indices", "indptr")
"""The arrays of a sparse matrix, in the order in which scipy takes them."""


FAR = 6
"""A catalogue is large that has more items than this for each one that clicks lead to: adding up
these takes as long as looking at so many.
"""


@dataclass
class Transitions(Scored):
    """Scores are counts: which items share users with those of the history, and which item came
    after the last one.

    score(j | i_1 .. i_n) = sum_h decay^(n - h) sim(i_h, j) + markov * P(j | i_n), with the cosine
    sim(i, j) = c_ij / (sqrt(c_i c_j) + shrink) (item-kNN: Sarwar et al., WWW 2001; Deshpande &
    Karypis 2004) and the smoothed transition frequency P(j | i) = n_ij / (n_i + shrink) (Markov
    chain of first order, as FPMC's: Rendle et al., WWW 2010).
    c_i: users of item i, c_ij: users of both, n_ij: clicks of j right after i.

    Attributes:
        neighbours: most similar items kept for each item; 0 = all.
        length: clicks of a history that are read.
        decay: weight of a click relative to the next one.
        markov: weight of the transitions; 0 = item-kNN alone.
        shrink: how many users speak against a similarity of few.
    """

    draws_in_fit: ClassVar[bool] = False

    neighbours: int = 200
    length: int = 50
    decay: float = 0.7
    markov: float = 1.0
    shrink: float = 10.0

    def __post_init__(self) -> None:
        if self.neighbours < 0 or self.length < 1:
            raise ValueError(
                "'neighbours' of Transitions must be at least 0, 'length' at least 1; got"
                f" {self.neighbours}, {self.length}"
            )
        if not 0 < self.decay <= 1 or not self.markov >= 0 or not self.shrink >= 0:
            raise ValueError(
                "'decay' of Transitions must be within (0, 1], 'markov' and 'shrink' at least 0"
            )

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Count pairs of items of one user, and pairs of neighbouring clicks."""
        from scipy import sparse

        size = catalogue.n_items + 1
        together = moves = sparse.csr_array((size, size), dtype=np.float32)
        n_before = np.zeros(size, dtype=np.int64)
        for part in sequences.stretches():
            clicks = part.clicks()
            row = np.repeat(np.arange(len(clicks)), np.diff(clicks.offsets))
            owns = sparse.csr_array(
                (np.ones(len(row), np.float32), (row, clicks.items)),
                shape=(max(len(clicks), 1), size),
            )
            owns.data[:] = 1
            together = together + sparse.csr_array(owns.T @ owns)
            follows = row[1:] == row[:-1]
            before, after = clicks.items[:-1][follows], clicks.items[1:][follows]
            ones = np.ones(len(before), np.float32)
            moves = moves + sparse.csr_array((ones, (before, after)), shape=(size, size))
            n_before += np.bincount(before, minlength=size)
        users = together.diagonal()
        together.setdiag(0)
        together.eliminate_zeros()
        left = np.repeat(np.arange(size), np.diff(together.indptr))
        together.data /= np.sqrt(users[left] * users[together.indices]) + self.shrink
        of_each = np.repeat(n_before, np.diff(moves.indptr)).astype(np.float32)
        moves.data /= of_each + self.shrink
        self._take(_strongest(together, self.neighbours), moves)
        return self

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> Self:
        """Recall available items only; one that nobody was shown yet scores as its author's others
        do on the mean.
        """
        from scipy import sparse

        super().admit(catalogue, new, t)
        self.alike_: tuple[IntArray, Any] | None = None
        others = authors_others(catalogue, new)
        if others is None:
            return self
        groups, old = others
        number = np.bincount(groups[old], minlength=groups.max() + 1)
        share = (1.0 / np.maximum(number, 1)).astype(np.float32)
        size = (catalogue.n_items + 1, groups.max() + 1)
        theirs = sparse.csr_array((share[groups[old]], (old, groups[old])), shape=size)
        self.alike_ = new, sparse.csr_array(theirs[:, groups[new]])
        return self

    def _take(self, similar: Any, moves: Any) -> None:
        self.alike_ = None
        self.similar_, self.moves_ = similar, moves
        self._similar_rows, self._moves_rows = _rows(similar), _rows(moves)

    def scores(self, histories: Histories) -> FloatArray:
        """Scores of all items, `[B, n_items + 1]`, each with the terms of its own history in the
        order of its clicks.
        """
        items = histories.clicks(self.length)
        weights = powers(self.decay, np.arange(self.length - 1, -1, -1)).astype(np.float32)
        out = np.zeros((len(items), self.similar_.shape[0]), dtype=np.float32)
        rows = self._similar_rows, self._moves_rows
        _add_terms(items, weights, np.float32(self.markov), *rows, out)
        if self.alike_ is not None:
            new, alike = self.alike_
            out[:, new] = (alike.T @ out.T).T
        return out

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """As of every `Scored` policy. In a large catalogue, to the same bytes, without looking at
        the items to which no click of a history leads: all of these score 0.
        """
        if self.alike_ is not None:
            return super().recall(histories, k, seed)
        size = self.similar_.shape[0]
        rows = self._similar_rows, self._moves_rows
        weights = powers(self.decay, np.arange(self.length - 1, -1, -1)).astype(np.float32)
        left_out = np.zeros(size, dtype=np.bool_)
        left_out[PADDING] = True
        left_out[np.asarray(getattr(self, "withheld_", ()), dtype=np.int64)] = True
        place, taken = np.full(size, -1, dtype=np.int32), left_out.copy()
        items, scores = [], []
        for start in range(0, max(len(histories), 1), ROWS):
            asked = histories.rows(slice(start, start + ROWS))
            check_wanted(k, asked.seen, size - 1)
            clicks = asked.clicks(self.length)
            most = _most_terms(clicks, self._similar_rows[2], self._moves_rows[2])
            if size < FAR * most:
                slates = super().recall(asked, k, seed)
                items.append(slates.items)
                scores.append(slates.scores)
                continue
            ids = np.zeros((len(clicks), most), dtype=np.int64)
            sums = np.zeros(ids.shape, dtype=np.float32)
            markov = np.float32(self.markov)
            found = _reach(clicks, weights, markov, *rows, left_out, place, ids, sums)
            best = top_k_of(ids[:, :found], sums[:, :found], k, asked.seen, size - 1)
            _fill_up(asked.seen, ids[:, :found], left_out, taken, ties(size - 1)[1], *best)
            items.append(best[0])
            scores.append(best[1])
        return Slates(np.concatenate(items), np.concatenate(scores))

    def continued(
        self, histories: Histories, items: IntArray, clicked: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Scores of some items after each of others was clicked.

        Args:
            histories: `B` requests.
            items: `[B, C]` distinct items, 0 = none at the end.
            clicked: `[B, W]` items that are clicked, each by itself; 0 = none, whose scores are 0.

        Returns:
            `[B, W, C]` scores of `items` after the w-th click, and `[B, W]` the sums over all
            items; both those of `scores` for the longer history, but for the order of addition.
        """
        scores = np.zeros((*clicked.shape, items.shape[1]), dtype=np.float32)
        totals = np.zeros(scores.shape[:2], dtype=np.float32)
        clicks = histories.clicks(self.length)[:, 1:]  # the item that comes takes a place
        weight = powers(self.decay, np.arange(self.length - 1, 0, -1)).astype(np.float32)
        rows = self._similar_rows, self._moves_rows
        _continue(clicks, weight, items, clicked, np.float32(self.markov), *rows, scores, totals)
        return scores, totals

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The two sparse matrices."""
        named = {"similar": self.similar_, "moves": self.moves_}
        arrays = {}
        for name, matrix in named.items():
            for part in PARTS:
                arrays[f"{name}_{part}"] = getattr(matrix, part)
        return arrays

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over the two sparse matrices."""
        from scipy import sparse

        size = len(state["similar_indptr"]) - 1
        matrices = []
        for name in ("similar", "moves"):
            parts = tuple(state[f"{name}_{part}"] for part in PARTS)
            matrices.append(sparse.csr_array(parts, shape=(size, size)))
        self._take(*matrices)
        return self


def _rows(matrix: Any) -> tuple[npt.NDArray[Any], ...]:
    """Values, columns and row starts of a sparse matrix, and the sums of its rows."""
    parts = (np.ascontiguousarray(getattr(matrix, part)) for part in PARTS)
    return (*parts, np.asarray(matrix.sum(axis=1), dtype=np.float32))


@njit()
def _continue(
    clicks: Any,
    weight: Any,
    items: Any,
    clicked: Any,
    markov: Any,
    similar: Any,
    moves: Any,
    scores: Any,
    totals: Any,
) -> None:
    """As `Transitions.continued`; the two matrices as `_rows`."""
    value, to, start, sums = similar
    move, move_to, move_start, move_sums = moves
    own = np.zeros(items.shape[1], dtype=np.float32)  # what the history gives to each candidate
    place = np.full(len(sums), -1, dtype=np.int64)
    for row in range(len(items)):
        for c in range(items.shape[1]):
            if items[row, c] > 0:
                place[items[row, c]] = c
        own[:] = 0
        total = np.float32(0)
        for h in range(clicks.shape[1]):
            click = clicks[row, h]
            if click == 0:
                continue
            total += weight[h] * sums[click]
            for at in range(start[click], start[click + 1]):
                c = place[to[at]]
                if c >= 0:
                    own[c] += weight[h] * value[at]
        for b in range(scores.shape[1]):
            click = clicked[row, b]
            if click == 0:
                continue
            out = scores[row, b]
            for c in range(len(own)):
                out[c] = own[c]
            for at in range(start[click], start[click + 1]):
                c = place[to[at]]
                if c >= 0:
                    out[c] += value[at]
            for at in range(move_start[click], move_start[click + 1]):
                c = place[move_to[at]]
                if c >= 0:
                    out[c] += markov * move[at]
            totals[row, b] = total + sums[click] + markov * move_sums[click]
        for c in range(items.shape[1]):
            if items[row, c] > 0:
                place[items[row, c]] = -1


@njit()
def _add_terms(items: Any, weights: Any, markov: Any, similar: Any, moves: Any, out: Any) -> None:
    """Add to `out` `[B, n_items + 1]` the rows of `similar` of all clicks `items` `[B, L]`, times
    `weights` `[L]`, then that of `moves` of the last click, times `markov`; the two matrices as
    `_rows`.

    A product by scipy makes a sparse matrix first, and takes two passes and three times as long.
    """
    value, to, start, _ = similar
    move, move_to, move_start, _ = moves
    for b in range(len(items)):
        for h in range(items.shape[1]):
            click = items[b, h]
            if click == PADDING:
                continue
            for at in range(start[click], start[click + 1]):
                out[b, to[at]] += weights[h] * value[at]
        click = items[b, -1]
        if click != PADDING:
            for at in range(move_start[click], move_start[click + 1]):
                out[b, move_to[at]] += markov * move[at]


@njit()
def _most_terms(items: Any, start: Any, move_start: Any) -> int:
    """The most items that the clicks of a row of `items` `[B, L]` lead to, each counted as often as
    it is reached; at least 1. `start`, `move_start`: of the two matrices' `_rows`.
    """
    most = 1
    for b in range(len(items)):
        click = items[b, -1]
        terms = move_start[click + 1] - move_start[click] if click != PADDING else 0
        for h in range(items.shape[1]):
            click = items[b, h]
            if click != PADDING:
                terms += start[click + 1] - start[click]
        most = max(most, terms)
    return most


@njit()
def _reach(
    items: Any,
    weights: Any,
    markov: Any,
    similar: Any,
    moves: Any,
    left_out: Any,
    place: Any,
    ids: Any,
    sums: Any,
) -> int:
    """What `_add_terms` adds up, of the items alone that a row's clicks lead to and that are not
    `left_out` `[n_items + 1]`: these `ids` `[B, C]`, 0 at the end, and their `sums` `[B, C]`. The
    most items of a row, at least 1. `place` `[n_items + 1]` is -1, before and after.

    A sum that is too small for a float is that of an item to which nothing leads.
    """
    most = 1
    value, to, start, _ = similar
    move, move_to, move_start, _ = moves
    for b in range(len(items)):
        found = 0
        for h in range(items.shape[1] + 1):
            is_move = h == items.shape[1]
            click = items[b, -1] if is_move else items[b, h]
            if click == PADDING:
                continue
            first = move_start[click] if is_move else start[click]
            last = move_start[click + 1] if is_move else start[click + 1]
            for at in range(first, last):
                item = move_to[at] if is_move else to[at]
                if left_out[item]:
                    continue
                term = markov * move[at] if is_move else weights[h] * value[at]
                c = place[item]
                if c < 0:
                    place[item] = found
                    ids[b, found], sums[b, found] = item, np.float32(0) + term
                    found += 1
                else:
                    sums[b, c] += term
        kept = 0
        for c in range(found):
            item, total = ids[b, c], sums[b, c]
            place[item] = -1
            if total > 0:
                ids[b, kept], sums[b, kept] = item, total
                kept += 1
        for c in range(kept, found):
            ids[b, c], sums[b, c] = 0, 0
        most = max(most, kept)
    return most


@njit()
def _fill_up(
    seen: Any, ids: Any, left_out: Any, taken: Any, of_rank: Any, items: Any, best: Any
) -> None:
    """Let the places of `items` `[B, k]` that are left have the first items `of_rank` that are
    neither `seen` `[B, S]`, nor among `ids` `[B, C]`, nor `left_out`; they score 0 in `best`.
    `taken` is `left_out`, before and after.
    """
    for b in range(len(items)):
        found = 0
        while found < items.shape[1] and items[b, found] != 0:
            found += 1
        if found == items.shape[1]:
            continue
        for c in range(seen.shape[1]):
            taken[seen[b, c]] = True
        for c in range(ids.shape[1]):
            taken[ids[b, c]] = True
        for rank in range(len(of_rank)):
            item = of_rank[rank]
            if found == items.shape[1]:
                break
            if not taken[item]:
                items[b, found], best[b, found] = item, 0
                found += 1
        for c in range(seen.shape[1]):
            taken[seen[b, c]] = left_out[seen[b, c]]
        for c in range(ids.shape[1]):
            taken[ids[b, c]] = left_out[ids[b, c]]


def _strongest(matrix: Any, most: int) -> Any:
    """A sparse matrix with only the `most` largest entries of each row (lower columns first among
    equals); all of them where `most` is 0.
    """
    from scipy import sparse

    keep = np.ones(len(matrix.data), dtype=np.bool_)
    if most:
        _mark_strongest(matrix.indptr, matrix.indices, matrix.data, most, keep)
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return sparse.csr_array(
        (matrix.data[keep], (row[keep], matrix.indices[keep])), shape=matrix.shape
    )


@njit()
def _mark_strongest(pointer: Any, columns: Any, values: Any, most: int, keep: Any) -> None:
    """Set `keep` to False for all but the `most` largest entries of each compressed row."""
    strongest, place = np.empty(most), np.empty(most, dtype=np.int64)
    for row in range(len(pointer) - 1):
        if pointer[row + 1] - pointer[row] <= most:
            continue
        found = 0
        for entry in range(pointer[row], pointer[row + 1]):
            value: Any = np.float64(values[entry])  # of which kinds the heap is compiled already
            column: Any = np.int64(columns[entry])
            found = offer(strongest, place, found, value, column)
        for entry in range(pointer[row], pointer[row + 1]):
            value, column = np.float64(values[entry]), np.int64(columns[entry])
            keep[entry] = not before(strongest[0], place[0], value, column)
