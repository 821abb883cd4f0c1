"""A network of one block of softmax attention as it is served on a CPU: histories without padding,
token by token. Nothing is trained here and nothing is ranked.

`recgpt.model.GPT` defines the network, and serves every other form. In one block keys and values
are made of the embedded tokens alone, so that reading a history is one product, and its last token
is a step like those that follow it. A row's bytes do not depend on the other rows
(`policies.unpadded`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policies.base import FloatArray, IntArray
from policies.layers import is_served_compiled
from policies.unpadded import BlockReader, GainAndShift, embed
from recgpt.attention import State
from recgpt.model import GPT, RecGPTBlock


@dataclass
class Remembered(State):
    """What is remembered of histories, a row for each.

    Attributes:
        read: `[T, 2 d or more]` keys and values of all tokens but the last ones, history after
            history.
        first, end: `[B]` where each history's begin and end.
        further: `[B, n, 2 d]` keys and values of the last token and of those after it.
        used: how many of these there are so far.
        count: `[B]` the position of the next token.
        user: `[B]` rows of the users' vectors.
        block: what goes on from here.
    """

    read: FloatArray
    first: Tensor
    end: Tensor
    further: Tensor
    used: int
    count: Tensor
    user: Tensor
    block: OneBlock


class OneBlock:
    """The network's weights as they are read."""

    def __init__(self, model: GPT, segmented: bool) -> None:
        """A network that is covered, as it is now; `segmented`: whether segments count."""
        (block,) = model.blocks
        assert isinstance(block, RecGPTBlock)
        attention = block.attention
        norms = block.norm_attention, block.norm_feedforward
        self.reader = BlockReader(
            attention.qkv,
            attention.out,
            block.expand,
            block.contract,
            norms,
            block.activation,
            attention.heads,
            is_pre=False,
        )
        tables = [model.items.weight, model.positions.weight]
        if segmented:
            tables.append(model.segments.weight)
        if model.users is not None:
            tables.append(model.users.weight)
        self.tables = tuple(table.detach().numpy() for table in tables)
        self.norm = GainAndShift.of(model.norm) if model.shape.embedding_norm else None
        self.model, self.segmented = model, segmented

    @staticmethod
    def covers(model: GPT) -> bool:
        """Whether a network is of this form, on a CPU, and in single precision."""
        shape = model.shape
        is_softmax = shape.attention == "softmax" and shape.norm == "post"
        is_plain = shape.layers == 1 and shape.masked and is_softmax
        further = shape.relative or shape.trace or shape.user_rows
        return is_plain and not further and is_served_compiled(model.items.weight)

    def begin(
        self, tokens: IntArray, segments: IntArray, users: IntArray, room: int
    ) -> tuple[Tensor, Remembered]:
        """The hidden states `[B, d]` after histories `[B, L]`, 0 = padding, of `users` `[B]`, and
        the past from which `extend` takes up to `room` further tokens.
        """
        n, width = len(tokens), self.model.shape.width
        is_read = tokens != 0
        is_read[:, -1] = False
        lengths = is_read.sum(axis=1)
        end = np.cumsum(lengths)
        first = end - lengths
        user = self.model.user_rows(torch.from_numpy(users.copy()))[0].numpy()
        n_read = int(lengths.sum())
        place = np.arange(n_read) - np.repeat(first, lengths)
        x = self._embedded(tokens[is_read], place, segments[is_read], np.repeat(user, lengths))
        read = self.reader.read(x, n_read)
        rows = (torch.from_numpy(array) for array in (first, end, lengths, user))
        of_first, of_end, count, of_user = rows
        further = torch.empty(n, room + 1, 2 * width)
        past = Remembered(read, of_first, of_end, further, 0, count, of_user, self)
        return self.extend(tokens[:, -1], segments[:, -1], past), past

    def extend(self, token: IntArray, segment: IntArray, past: Remembered) -> Tensor:
        """Hidden states `[B, d]` after one further token `[B]` of each row; `past` takes it in."""
        n, width = len(token), self.model.shape.width
        x = self._embedded(token, past.count.numpy(), segment, past.user.numpy())
        projected = self.reader.project(x, n)
        further = past.further.numpy()
        further[:, past.used] = projected[:n, width : 3 * width]
        past.used, past.count = past.used + 1, past.count + 1
        first, end = past.first.numpy(), past.end.numpy()
        hidden = self.reader.newest(x, projected, past.read, first, end, further, past.used)
        return torch.from_numpy(hidden[:n])

    def _embedded(
        self, items: IntArray, place: IntArray, segment: IntArray, user: IntArray
    ) -> FloatArray:
        """What the tokens `[T]` begin as, `[N, d]`, the first T rows."""
        indices = [items, place]
        if self.segmented:
            indices.append(segment)
        if self.model.users is not None:
            indices.append(user)
        return embed(self.tables, np.stack(indices), self.norm)
