"""Autoregressive recall (4.4): from what is read of a history to the items of its successive
interests. Nothing is trained here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from policies.base import PADDING, FloatArray, IntArray, Slates
from policies.blocks import ROWS, filled, length_blocks
from policies.retrieval import Exact, Index, top_k
from recgpt.attention import State
from recgpt.mixture import Mixture
from recgpt.model import GPT, REAL, Layer, Memory

Reading = tuple[IntArray, IntArray]
"""What a network reads of a batch of histories: tokens and segments `[B, L]`, right-aligned."""


class Walk:
    """Autoregressive recall (4.4): recall a quota, append its best item as the next click, recall
    again.

    Histories are read in blocks of one length; from then on all are alike, and walk on in full
    blocks.
    """

    CHUNK = 1024
    """Requests that are remembered at once."""

    def __init__(
        self,
        model: GPT,
        index: Index | None,
        quotas: tuple[int, ...],
        layer: Layer,
        segmented: bool,
        mixture: Mixture | None = None,
    ) -> None:
        self.model, self.index, self.quotas, self.layer, self.segmented, self.mixture = (
            model,
            index,
            quotas,
            layer,
            segmented,
            mixture,
        )
        self.device = model.items.weight.device

    def __call__(
        self, tokens: IntArray, segments: IntArray, users: IntArray, seen: IntArray
    ) -> tuple[IntArray, FloatArray]:
        """Items and scores of each step's quota, `[B, k]` both.

        Args:
            tokens, segments: `[B, L]` right-aligned.
            users: `[B]`, -1 = unknown.
            seen: `[B, S]` items left out, 0 = none.
        """
        k = sum(self.quotas)
        items, scores = (
            np.zeros((len(tokens), k), dtype=np.int64),
            np.full((len(tokens), k), -np.inf, dtype=np.float32),
        )
        for start in range(0, len(tokens), self.CHUNK):
            some = slice(start, start + self.CHUNK)
            items[some], scores[some] = self._go(
                tokens[some], segments[some], users[some], seen[some]
            )
        return items, scores

    def queries(self, tokens: IntArray, segments: IntArray, users: IntArray) -> FloatArray:
        """The query vector of the first step, `[B, d]`."""
        hidden = self._read(tokens, segments, users).hidden
        return self.model.query(hidden, self.layer).float().cpu().numpy()[: len(tokens)]

    def _window(self, tokens: IntArray, segments: IntArray) -> Reading:
        """Both as they are; where padding is read, with as much of it as in training."""
        lack = 0 if self.model.shape.masked else self.model.shape.length - tokens.shape[1]
        return (
            (np.pad(tokens, ((0, 0), (lack, 0))), np.pad(segments, ((0, 0), (lack, 0))))
            if lack
            else (tokens, segments)
        )

    def _read(self, tokens: IntArray, segments: IntArray, users: IntArray) -> Read:
        """Where the network stands after the histories; rows are filled up to whole blocks."""
        masked = self.model.shape.masked
        tokens, segments = self._window(tokens, segments)
        n, length = -(-len(tokens) // ROWS) * ROWS, tokens.shape[1]
        used = tokens if masked else np.ones_like(tokens)
        keep = len(self.quotas) - 1 if masked else 0
        every: Read | None = None
        for index, width in (
            length_blocks(used) if len(tokens) else [(np.zeros(0, dtype=np.int64), length)]
        ):
            token, segment, user = self._tensors(
                index, tokens[:, length - width :], segments[:, length - width :], users
            )
            hidden, memory = self.model.begin(
                token, user, segment if self.segmented else None, keep, length
            )
            read = Read(hidden, memory if keep else None)
            every = read.room(n) if every is None else every
            every.put(torch.from_numpy(index).to(self.device), read)
        assert every is not None
        every.rows(slice(len(tokens), n)).each(Tensor.zero_)
        return every

    def _tensors(self, index: IntArray, *arrays: npt.NDArray[Any]) -> list[Tensor]:
        """A block of the rows at `index`."""
        return [torch.from_numpy(filled(array, index)).to(self.device) for array in arrays]

    def _go(
        self, tokens: IntArray, segments: IntArray, users: IntArray, seen: IntArray
    ) -> tuple[IntArray, FloatArray]:
        """The steps of some requests: all take one before any takes the next, so that network and
        search find their own in the cache.
        """
        read = self._read(tokens, segments, users)
        rows = [slice(start, start + ROWS) for start in range(0, len(tokens), ROWS)]
        hidden, blocks = read.hidden, [read.rows(some) for some in rows]
        tokens, segments = self._window(tokens, segments)
        taken: list[IntArray] = []
        scores: list[FloatArray] = []
        for step, quota in enumerate(self.quotas, 1):
            query = self.model.query(hidden, self.layer).float().cpu().numpy()[: len(tokens)]
            found, inner = self._search(
                query,
                max(quota, 1),
                tokens,
                segments,
                users,
                np.concatenate([seen, *taken], axis=1),
            )
            taken.append(found[:, :quota])
            scores.append(inner[:, :quota])
            if step < len(self.quotas):
                tokens, segments = (
                    np.append(tokens[:, 1:], found[:, :1], axis=1),
                    np.append(segments[:, 1:], 0 * found[:, :1], axis=1),
                )
                hidden = torch.cat(
                    [
                        self._step(block, tokens[some], segments[some], users[some])
                        for block, some in zip(blocks, rows, strict=True)
                    ]
                )
        return np.concatenate(taken, axis=1), np.concatenate(scores, axis=1)

    def _step(self, read: Read, tokens: IntArray, segments: IntArray, users: IntArray) -> Tensor:
        """The hidden states `[ROWS, d]` of a block after the last of `tokens` `[n, L]`, which it
        has not read yet.
        """
        every = np.arange(len(tokens))
        if read.memory is not None:
            (best,) = self._tensors(every, tokens[:, -1])
            return self.model.extend(best, read.memory, REAL if self.segmented else None)
        token, segment, user = self._tensors(
            every, tokens, segments, users
        )  # a token more moves all that is read
        return self.model.begin(token, user, segment if self.segmented else None)[0]

    def _search(
        self,
        query: FloatArray,
        k: int,
        tokens: IntArray,
        segments: IntArray,
        users: IntArray,
        seen: IntArray,
    ) -> tuple[IntArray, FloatArray]:
        """The k best items of queries `[B, d]`, made from `tokens` `[B, L]`."""
        assert self.index is not None
        if self.mixture is None:
            return self.index.search(query, k, seen)
        assert isinstance(self.index, Exact)
        found = []
        for some in (slice(start, start + ROWS) for start in range(0, len(query), ROWS)):
            mixed = self.mixture.scores(
                self.index.scores(query[some]), tokens[some], segments[some], users[some]
            )
            found.append(top_k(mixed, k, seen[some]))
        items, scores = zip(*found, strict=True)
        return np.concatenate(items), np.concatenate(scores)


@dataclass
class Read(State):
    """Where the network stands after the histories: its hidden states `[N, d]`, and what `extend`
    goes on from, if it does.
    """

    hidden: Tensor
    memory: Memory | None


def merged(items: IntArray, scores: FloatArray, interest: IntArray, merge: str) -> Slates:
    """Each step's items in one slate; zeros to the end, scores made non-increasing."""
    key = items == PADDING if merge == "interest" else -scores
    place = np.argsort(key, axis=1, kind="stable")
    items, scores = (
        np.take_along_axis(items, place, axis=1),
        np.take_along_axis(scores, place, axis=1),
    )
    source = np.where(items == PADDING, 0, interest[place])
    for column in range(
        1, scores.shape[1]
    ):  # a loop over places is twenty times faster than `accumulate` over rows
        np.minimum(scores[:, column], scores[:, column - 1], out=scores[:, column])
    return Slates(items, scores, interest=source)
