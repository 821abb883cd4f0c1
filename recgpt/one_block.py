"""A network of one block of softmax attention as it is served on a CPU: histories without padding,
token by token. Nothing is trained and nothing is ranked here.

`recgpt.model.GPT` defines the network, and serves every other form. In one block keys and values
are made of the embedded tokens alone, so that reading a history is one product, and its last token
is a step like those that follow it. A row's bytes do not depend on the other rows: products have
fixed shapes (`policies.blocks`), and the compiled loops (`recgpt.kernels`) go row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import linear

from policies.base import IntArray
from policies.blocks import ROWS
from recgpt.attention import State
from recgpt.model import GPT, RecGPTBlock

Array = npt.NDArray[np.float32]

CHUNK = 4 * ROWS
"""Tokens of a product of keys and values."""


@dataclass
class Remembered(State):
    """What is remembered of histories, a row for each.

    Attributes:
        read: `[T, 2 d]` keys and values of all tokens but the last ones, history after history.
        first, end: `[B]` where each history's begin and end.
        further: `[B, n, 2 d]` keys and values of the last token and of those after it.
        used: how many of these there are so far.
        count: `[B]` the position of the next token.
        user: `[B]` rows of the users' vectors.
        block: what goes on from here.
    """

    read: Array
    first: Tensor
    end: Tensor
    further: Tensor
    used: int
    count: Tensor
    user: Tensor
    block: OneBlock


class OneBlock:
    """The network's weights, and room for what a block computes."""

    def __init__(self, model: GPT, segmented: bool) -> None:
        """A network that is covered, as it is now; `segmented`: whether segments count."""
        nothing = torch.zeros(1, model.shape.width)
        (block,) = model.blocks
        assert isinstance(block, RecGPTBlock)
        self.model, self.block = model, block
        tables = [model.items.weight, model.positions.weight, nothing, nothing]
        if segmented:
            tables[2] = model.segments.weight
        if model.users is not None:
            tables[3] = model.users.weight
        self.tables = tuple(table.detach().numpy() for table in tables)
        self.segmented, self.is_normed = segmented, model.shape.embedding_norm
        self.norm = _norm(model.norm) if self.is_normed else (np.zeros(0, dtype=np.float32),) * 2
        self.norm_attention = _norm(block.norm_attention)
        self.norm_feedforward = _norm(block.norm_feedforward)
        self.kept = np.zeros((CHUNK, model.shape.width), dtype=np.uint8)  # nothing is dropped
        self.known = np.ones(CHUNK, dtype=np.float32)  # what is known counts
        self.whitened = np.empty(self.kept.shape, dtype=np.float32)

    @staticmethod
    def covers(model: GPT) -> bool:
        """Whether a network is of this form, on a CPU, and in single precision."""
        shape = model.shape
        is_softmax = shape.attention == "softmax" and shape.norm == "post"
        is_plain = shape.layers == 1 and shape.masked and is_softmax
        further = shape.relative or shape.trace or shape.user_rows
        weight = model.items.weight
        is_here = weight.device.type == "cpu" and weight.dtype == torch.float32
        return is_plain and not further and is_here

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
        indices = np.zeros((4, int(lengths.sum())), dtype=np.int64)
        indices[0] = tokens[is_read]
        indices[1] = np.arange(indices.shape[1]) - np.repeat(first, lengths)
        if self.segmented:
            indices[2] = segments[is_read]
        if self.model.users is not None:
            indices[3] = np.repeat(user, lengths)
        qkv = self.block.attention.qkv
        weight, bias = qkv.weight[width:], qkv.bias[width:]
        read = np.empty((indices.shape[1], 2 * width), dtype=np.float32)
        for start in range(0, len(read), CHUNK):
            part = read[start : start + CHUNK]
            embedded = self._embedded(indices[:, start : start + CHUNK], CHUNK)
            part[:] = linear(embedded, weight, bias).numpy()[: len(part)]
        rows = (torch.from_numpy(array) for array in (first, end, lengths, user))
        of_first, of_end, count, of_user = rows
        further = torch.empty(n, room + 1, 2 * width)
        past = Remembered(read, of_first, of_end, further, 0, count, of_user, self)
        hidden = torch.empty(n, width)
        for start in range(0, n, ROWS):
            block = slice(start, start + ROWS)
            hidden[block] = self.extend(tokens[block, -1], segments[block, -1], past.rows(block))
        past.used, past.count = 1, past.count + 1
        return hidden, past

    def extend(self, token: IntArray, segment: IntArray, past: Remembered) -> Tensor:
        """Hidden states `[B, d]` after one further token `[B]` of each row, B at most `ROWS`;
        `past` takes it in.
        """
        from recgpt.kernels import attend_newest

        n, width, attention = len(token), self.model.shape.width, self.block.attention
        indices = np.zeros((4, n), dtype=np.int64)
        indices[0], indices[1] = token, past.count.numpy()
        if self.segmented:
            indices[2] = segment
        if self.model.users is not None:
            indices[3] = past.user.numpy()
        x = self._embedded(indices, ROWS)
        projected = linear(x, attention.qkv.weight, attention.qkv.bias)
        past.further[:, past.used] = projected[:n, width:]
        past.used, past.count = past.used + 1, past.count + 1
        mixed = torch.zeros(ROWS, width)
        attend_newest(
            projected.numpy(),
            past.read,
            past.first.numpy(),
            past.end.numpy(),
            past.further.numpy(),
            past.used,
            attention.heads,
            mixed.numpy(),
        )
        joined = linear(mixed, attention.out.weight, attention.out.bias)
        middle = self._add_and_norm(x, joined, n, self.norm_attention)
        inner = linear(middle, self.block.expand.weight, self.block.expand.bias)
        inner[:n] = self.block.activation(inner[:n])
        y = linear(inner, self.block.contract.weight, self.block.contract.bias)
        return self._add_and_norm(middle, y, n, self.norm_feedforward)[:n]

    def _embedded(self, indices: IntArray, n_rows: int) -> Tensor:
        """The tokens at the rows `indices` `[4, n]` of the tables, and zeros, `[n_rows, d]`."""
        from recgpt.kernels import embed

        n = indices.shape[1]
        out = np.zeros((n_rows, self.model.shape.width), dtype=np.float32)
        given = np.ascontiguousarray(indices), self.known[:n], self.is_normed, self.kept, 0
        embed(self.tables, *given, self.norm, self.whitened, out)
        return torch.from_numpy(out)

    def _add_and_norm(self, x: Tensor, y: Tensor, n: int, norm: tuple[Array, Array]) -> Tensor:
        """`LN(x + y)` of the first `n` rows, and zeros."""
        from recgpt.kernels import add_and_norm

        out = torch.zeros_like(x)
        add_and_norm(x.numpy(), y.numpy(), n, self.kept, 0, *norm, self.whitened, out.numpy())
        return out


def _norm(norm: Any) -> tuple[Array, Array]:
    """The gain and shift of a layer norm."""
    return norm.weight.detach().numpy(), norm.bias.detach().numpy()
