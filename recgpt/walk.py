"""Autoregressive recall (4.4): from what a network reads of a history to the items of its
successive interests. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from policies.base import PADDING, FloatArray, Histories, IntArray, Slates
from policies.blocks import ROWS, fill, length_blocks, rows_on
from policies.continuation import CHUNK, Chosen, Continued, distribution
from policies.mixture import Mixture
from policies.retrieval import Exact, Index, Ranked, top_k, top_k_of
from policies.vectors import Begun
from recgpt.attention import State
from recgpt.model import GPT, REAL, Layer, Memory
from recgpt.one_block import OneBlock, Remembered

Reading = tuple[IntArray, IntArray]
"""What a network reads of a batch of histories: tokens and segments `[B, L]`, right-aligned."""

Merge = Literal["interest", "score", "pool"]


class Walk:
    """Autoregressive recall (4.4): recall a quota, append its best item as the next click, recall
    again.

    Histories are read in blocks of one length. After that all requests are alike, and walk on in
    full blocks.
    """

    def __init__(
        self,
        model: GPT,
        layer: Layer,
        segmented: bool,
        clicks: FloatArray,
        mixture: Mixture | None = None,
        continuation: Chosen | None = None,
    ) -> None:
        """A walk with a network as it is.

        Args:
            model: in evaluation mode whenever it is asked.
            layer: what items are ranked by.
            segmented: whether the network is told which tokens are prompts.
            clicks: `[n_items + 1]` clicks of each item; a user without any click gets the most
                clicked items.
            mixture: counts that are pooled with the network, or None.
            continuation: of a marginal second step; None: each step's best item is the next
                click.
        """
        self.model, self.layer, self.segmented = model, layer, segmented
        self.size = rows_on(model.items.weight.device)
        self.at_once = max(CHUNK, self.size)
        self.clicks, self.mixture, self.continuation = clicks, mixture, continuation

    def slates(
        self,
        index: Index,
        quotas: tuple[int, ...],
        reading: Reading,
        users: IntArray,
        seen: IntArray,
        merge: Merge = "interest",
    ) -> Slates:
        """The items of each step's quota in one slate, `[B, sum(quotas)]`.

        Args:
            index: of the item vectors.
            quotas: items of each step.
            reading: `[B, L]` tokens and segments.
            users: `[B]`, negative = unknown.
            seen: `[B, S]` items left out, 0 = none.
            merge: as the hyper-parameter of `PreTrain`.
        """
        tokens, segments = reading
        n_steps = max(i for i, quota in enumerate(quotas) if quota) + 1
        quotas = quotas[:n_steps]
        steps = self._steps
        if self.continuation is not None:
            beam = self.continuation.beam if n_steps == 1 else n_steps - 1
            steps = partial(self._expect, beam=beam)
            if merge != "interest":  # by the marginal, whoever brings an item
                quotas = (sum(quotas),)
        users = np.where(users >= 0, users, -1)
        items = np.zeros((len(tokens), sum(quotas)), dtype=np.int64)
        scores = np.full(items.shape, -np.inf, dtype=np.float32)
        for start in range(0, len(tokens), self.at_once):
            rows = slice(start, start + self.at_once)
            chunk = tokens[rows], segments[rows]
            items[rows], scores[rows] = steps(index, quotas, chunk, users[rows], seen[rows])
        slates = merge_steps(items, scores, np.repeat(np.arange(len(quotas)), quotas), merge)
        is_cold = ~tokens.any(axis=1)
        if is_cold.any():
            popular = np.broadcast_to(self.clicks, (int(is_cold.sum()), len(self.clicks)))
            best = top_k(popular, items.shape[1], seen[is_cold])
            slates.items[is_cold], slates.scores[is_cold] = best
            assert slates.interest is not None
            slates.interest[is_cold] = 0
        return slates

    def queries(self, reading: Reading, users: IntArray) -> FloatArray:
        """The query vector of the first step, `[B, d]`."""
        hidden = self._read(reading, users, 0).hidden
        return self.model.query(hidden, self.layer).float().cpu().numpy()[: len(users)]

    def _window(self, reading: Reading) -> Reading:
        """What is read as it is; where padding is read, with as much of it as in training."""
        tokens, segments = reading
        n_missing = self.model.shape.length - tokens.shape[1]
        if self.model.shape.masked or not n_missing:
            return reading
        left = ((0, 0), (n_missing, 0))
        return np.pad(tokens, left), np.pad(segments, left)

    def _read(self, reading: Reading, users: IntArray, n_further: int) -> Read:
        """Where the network stands after the histories, with room for `n_further` tokens; rows may
        be filled up to whole blocks.
        """
        tokens, segments = self._window(reading)
        if OneBlock.covers(self.model):
            block = OneBlock(self.model, self.segmented)
            return Read(*block.begin(tokens, segments, users, n_further))
        masked, (n, length) = self.model.shape.masked, tokens.shape
        n_rows = -(-n // self.size) * self.size
        room = n_further if masked else 0
        blocks: Iterable[tuple[IntArray, int]] = [(np.zeros(0, dtype=np.int64), length)]
        if n:
            blocks = length_blocks(tokens if masked else np.ones_like(tokens), self.size)
        whole: Read | None = None
        for rows, width in blocks:
            first = length - width
            token, segment, user = self._tensors(
                rows, tokens[:, first:], segments[:, first:], users
            )
            roles = segment if self.segmented else None
            hidden, memory = self.model.begin(token, user, roles, room, length)
            read = Read(hidden, memory if room else None)
            whole = read.room(n_rows) if whole is None else whole
            whole.put(torch.from_numpy(rows).to(hidden.device), read)
        assert whole is not None
        whole.rows(slice(n, n_rows)).each(Tensor.zero_)
        return whole

    def _tensors(self, rows: IntArray, *arrays: npt.NDArray[Any]) -> list[Tensor]:
        """A block of these rows on the network's device."""
        device = self.model.items.weight.device
        return [torch.from_numpy(fill(array, rows, self.size)).to(device) for array in arrays]

    def _steps(
        self,
        index: Index,
        quotas: tuple[int, ...],
        reading: Reading,
        users: IntArray,
        seen: IntArray,
    ) -> tuple[IntArray, FloatArray]:
        """Items and scores of each step's quota, `[B, sum(quotas)]`.

        All requests take a step before any takes the next, so that network and search each find
        what they need in the cache.
        """
        read = self._read(reading, users, len(quotas) - 1)
        tokens, segments = self._window(reading)
        blocks = [slice(start, start + self.size) for start in range(0, len(tokens), self.size)]
        hidden, states = read.hidden, [read.rows(block) for block in blocks]
        taken: list[IntArray] = []
        scores: list[FloatArray] = []
        for step, quota in enumerate(quotas, 1):
            query = self.model.query(hidden, self.layer).float().cpu().numpy()[: len(tokens)]
            left_out = np.concatenate([seen, *taken], axis=1)
            # A quota of 0 takes nothing, but its best item is the next click all the same
            k = max(quota, 1)
            items, inner = self._search(index, query, k, (tokens, segments), users, left_out)
            taken.append(items[:, :quota])
            scores.append(inner[:, :quota])
            if step < len(quotas):
                best = items[:, :1]
                tokens = np.append(tokens[:, 1:], best, axis=1)
                segments = np.append(segments[:, 1:], np.full_like(best, REAL), axis=1)
                further = [
                    self._step(state, (tokens[block], segments[block]), users[block])
                    for state, block in zip(states, blocks, strict=True)
                ]
                hidden = torch.cat(further)
        return np.concatenate(taken, axis=1), np.concatenate(scores, axis=1)

    def _expect(
        self,
        index: Index,
        quotas: tuple[int, ...],
        reading: Reading,
        users: IntArray,
        seen: IntArray,
        beam: int,
    ) -> tuple[IntArray, FloatArray]:
        """Items and log probabilities `[B, sum(quotas)]`: of one quota the best of the marginal; of
        several the best next items, then the best after each of the `beam` most likely ones.
        """
        assert self.continuation is not None
        n_candidates = max(min(self.continuation.candidates, index.n_items), sum(quotas))
        found = self.continued(index, reading, users, seen, n_candidates, beam)
        if len(quotas) == 1:
            parts = [found.marginal(beam, self.continuation.share)]
        else:
            parts = [found.first, *found.further.swapaxes(0, 1)]
        taken: list[IntArray] = []
        scores: list[FloatArray] = []
        for part, quota in zip(parts, quotas, strict=True):
            left_out = np.concatenate([seen, *taken], axis=1)
            with np.errstate(divide="ignore"):
                known = np.log(part)
            best = top_k_of(found.items, known, max(quota, 1), left_out, index.n_items)
            taken.append(best[0][:, :quota])
            scores.append(best[1][:, :quota])
        return np.concatenate(taken, axis=1), np.concatenate(scores, axis=1)

    def continued(
        self,
        index: Index,
        reading: Reading,
        users: IntArray,
        seen: IntArray,
        n_candidates: int,
        beam: int,
        clicked: IntArray | None = None,
    ) -> Continued:
        """As `policies.continuation.Continuing` of what was read; at least `beam` candidates, 0
        where there are fewer items.

        The network goes on from one memory of the history, again and again.
        """
        begun = self.begin(reading, users)
        tokens, segments = reading = self._window(reading)
        most = max(n_candidates, beam)
        items, scores = self._search(index, begun.queries[:, 0], most, reading, users, seen)
        # Padding where there are fewer candidates than the beam: it counts nothing later
        clicked = items[:, :beam] if clicked is None else clicked
        further = begun.after(clicked)[:, :, 0]
        # All queries of a request after one another, while its candidates are in the cache
        asked = np.repeat(items, clicked.shape[1], axis=0)
        inner = index.score(further.reshape(len(asked), further.shape[-1]), asked)
        inner = inner.reshape(*clicked.shape, most)
        if self.mixture is not None:
            for start in range(0, len(users), ROWS):
                rows = slice(start, start + ROWS)
                clicks = real_clicks(tokens[rows], segments[rows], users[rows])
                inner[rows] = self.mixture.continued(
                    inner[rows], clicks, items[rows], clicked[rows]
                )
        return Continued(items, distribution(scores), distribution(inner))

    def begin(self, reading: Reading, users: IntArray) -> Begun:
        """Where the network stands after what was read (I = 1), and after one click more."""
        read = self._read(reading, users, 1)
        tokens, segments = self._window(reading)
        n = len(users)

        def queries(hidden: Tensor, n_rows: int) -> FloatArray:
            made: FloatArray = self.model.query(hidden, self.layer).float().cpu().numpy()
            return made[:n_rows]

        def after(clicked: IntArray) -> FloatArray:
            out = np.empty((*clicked.shape, 1, first.shape[1]), dtype=np.float32)
            for start in range(0, n, self.size):
                rows = slice(start, start + self.size)
                stands = read.rows(rows)
                for b in range(clicked.shape[1]):
                    best = clicked[rows, b : b + 1]
                    longer = (
                        np.append(tokens[rows, 1:], best, axis=1),
                        np.append(segments[rows, 1:], np.full_like(best, REAL), axis=1),
                    )
                    again = stands.each(lambda tensor: tensor)
                    hidden = self._step(again, longer, users[rows])
                    out[rows, b, 0] = queries(hidden, len(best))
            return out

        first = queries(read.hidden, n)
        return Begun(first[:, None], after)

    def _step(self, read: Read, reading: Reading, users: IntArray) -> Tensor:
        """The hidden states `[size, d]` of a block after the last token of `reading`, which the
        network has not read yet.
        """
        tokens, segments = reading
        rows = np.arange(len(tokens))
        if isinstance(read.memory, Remembered):
            return read.memory.block.extend(tokens[:, -1], segments[:, -1], read.memory)
        if read.memory is not None:
            (best,) = self._tensors(rows, tokens[:, -1])
            return self.model.extend(best, read.memory, REAL if self.segmented else None)
        # Without a memory every token moves when one is appended, and all are read anew
        token, segment, user = self._tensors(rows, tokens, segments, users)
        return self.model.begin(token, user, segment if self.segmented else None)[0]

    def _search(
        self,
        index: Index,
        query: FloatArray,
        k: int,
        reading: Reading,
        users: IntArray,
        seen: IntArray,
    ) -> Ranked:
        """The k best items of queries `[B, d]`, which were made from `reading` `[B, L]`."""
        if self.mixture is None:
            return index.search(query, k, seen)
        assert isinstance(index, Exact)
        tokens, segments = reading
        items, scores = [], []
        for start in range(0, len(query), ROWS):
            rows = slice(start, start + ROWS)
            inner = index.scores(query[rows])
            clicks = real_clicks(tokens[rows], segments[rows], users[rows])
            pooled = self.mixture.scores(inner, clicks)
            best, best_scores = top_k(pooled, k, seen[rows])
            items.append(best)
            scores.append(best_scores)
        return np.concatenate(items), np.concatenate(scores)


@dataclass
class Read(State):
    """Where the network stands after the histories: its hidden states `[N, d]`, and the memory from
    which `extend` goes on, where there is a further step.
    """

    hidden: Tensor
    memory: Memory | Remembered | None


def real_clicks(tokens: IntArray, segments: IntArray, users: IntArray) -> Histories:
    """What is counted from: the real ones of the tokens `[B, L]` that a network reads, as clicks of
    the `users` `[B]`.
    """
    is_real = (tokens != PADDING) & (segments == REAL)
    return Histories(users, np.zeros_like(users), tokens, is_real, tokens)


def merge_steps(items: IntArray, scores: FloatArray, interest: IntArray, merge: Merge) -> Slates:
    """Each step's items `[B, k]` in one slate: zeros at the end, scores lowered to that of the item
    above where they would rise.
    """
    key = items == PADDING if merge == "interest" else -scores
    place = np.argsort(key, axis=1, kind="stable")
    items = np.take_along_axis(items, place, axis=1)
    scores = np.take_along_axis(scores, place, axis=1)
    source = np.where(items == PADDING, 0, interest[place])
    # A loop over places is twenty times faster than `accumulate` over rows
    for column in range(1, scores.shape[1]):
        np.minimum(scores[:, column], scores[:, column - 1], out=scores[:, column])
    return Slates(items, scores, interest=source)
