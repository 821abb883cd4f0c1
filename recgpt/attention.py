"""Causal self-attention, whole sequences at once or one token at a time from a state. No
embeddings, no blocks, no training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from policies.dropout import Dropout
from policies.layers import running_sum
from policies.operators import Linear, linear

EPS = 1e-6


@dataclass
class State:
    """What a part of the network remembers of the tokens so far: enough to go on from the next one
    without looking at them again.

    Its tensors, and those of the states in it, have a row for each sequence.
    """

    def each(self, act: Callable[[Tensor], Tensor]) -> Self:
        """The state of `act` of every tensor."""
        return replace(
            self, **{part.name: _each(getattr(self, part.name), act) for part in fields(self)}
        )

    def rows(self, index: slice) -> Self:
        """The sequences at `index`, as a view."""
        return self.each(lambda tensor: tensor[index])

    def room(self, n: int) -> Self:
        """A state of the same kind for `n` sequences, that says nothing yet."""
        return self.each(lambda tensor: tensor.new_empty(n, *tensor.shape[1:]))

    def put(self, index: Tensor, state: Self) -> None:
        """Take over the first sequences of `state` as those at `index`."""
        for mine, given in zip(self._tensors(), state._tensors(), strict=True):
            mine[index] = given[: len(index)]

    def _tensors(self) -> list[Tensor]:
        found: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.each(note)
        return found


def _each(value: Any, act: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return act(value)
    if isinstance(value, list):
        return [_each(one, act) for one in value]
    return value.each(act) if isinstance(value, State) else value


class AttentionLayer(nn.Module, ABC):
    """Base: `m` heads of width `d/m`, joint projection of queries, keys and values, output
    projection `W^S` (eq. 2).

    Both forms of a layer give the same numbers: `forward` over a sequence, and `step` token by
    token from the state that `forward` left behind. Padding stands on the left (`real` False) and
    is neither attended to nor counted.

    Args:
        width: d.
        heads: m.
        dropout: of the attention weights.
        reach: distances for which each head of softmax attention learns a term of its scores, 0 =
            none: recency, without positions that move when a token is appended (Raffel et al. 2020,
            section 2.1).
    """

    def __init__(self, width: int, heads: int, dropout: float, reach: int = 0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"width must be a multiple of heads. Got width={width}, heads={heads}."
            )
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.dropout = Dropout(dropout)
        self.distance = nn.Parameter(torch.zeros(heads, reach)) if reach else None

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values `[B, m, L, d/m]` of `x` `[B, L, d]`."""
        q, k, v = self._heads(self.qkv(x), 3)
        return q, k, v

    def _heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """`[B, L, parts * d]` -> `parts` times `[B, m, L, d/m]`."""
        batch, length, width = projected.shape
        return (
            projected.view(batch, length, parts, self.heads, width // parts // self.heads)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )

    def _rows(self, first: int, end: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of the parts `first` to `end` of the joint projection: 0 queries, 1 keys,
        2 values.
        """
        width = self.qkv.in_features
        return (
            self.qkv.weight[first * width : end * width],
            self.qkv.bias[first * width : end * width],
        )

    def join(self, heads: Tensor) -> Tensor:
        """`[B, m, L, d/m]` -> `[B, L, d]`, through the output projection."""
        batch, _, length, _ = heads.shape
        joined: Tensor = self.out(heads.transpose(1, 2).reshape(batch, length, -1))
        return joined

    @abstractmethod
    def forward(
        self, x: Tensor, real: Tensor, keep: int = 0, last: bool = False, width: int = 0
    ) -> tuple[Tensor, State]:
        """Attend over whole sequences.

        Args:
            x: `[B, L, d]`.
            real: `[B, L]` False on padding.
            keep: how many further tokens the state must have room for.
            last: whether only the last token's result is wanted.
            width: columns that the state looks back on, at least; the result does not depend on it.

        Returns:
            `[B, L, d]` (`[B, 1, d]` if `last`), and the state after the last token.
        """

    @abstractmethod
    def step(self, x: Tensor, state: State) -> Tensor:
        """Attend from one further token `x` `[B, d]`, which is added to `state`; returns
        `[B, d]`.
        """


@dataclass
class Cache(State):
    """Keys and values `[B, m, T, d/m]` of `used` tokens, with room for more, and which are real
    `[B, T]`.
    """

    keys: Tensor
    values: Tensor
    real: Tensor
    used: int


class SoftmaxAttention(AttentionLayer):
    """Scaled dot-product attention (Vaswani et al. 2017; RecGPT eq. 2).

    Eq. 2 prints `sqrt(d)` under the scores of a head; here it is the head's own width, `sqrt(d/m)`,
    as in Vaswani et al. and in every implementation that the paper's figures can have come from:
    with `sqrt(d)` the variance of the scores of a head would shrink with the number of heads.
    """

    def forward(
        self, x: Tensor, real: Tensor, keep: int = 0, last: bool = False, width: int = 0
    ) -> tuple[Tensor, State]:
        if last:  # of the other tokens only keys and values are wanted
            k, v = self._heads(linear(x, *self._rows(1, 3)), 2)
            (q,) = self._heads(linear(x[:, -1:], *self._rows(0, 1)), 1)
            cache = self._cache(k, v, real, keep, width)
            return self._newest(q, cache, x.shape[1]), cache
        q, k, v = self.project(x)
        columns = torch.arange(x.shape[1], device=x.device)
        # A padding row sees itself, so that no softmax is over nothing; nobody reads its result.
        visible = (columns[:, None] >= columns) & real[:, None, :] | (columns[:, None] == columns)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if self.distance is not None:
            scores = scores + self.distance[:, (columns[:, None] - columns).clamp(min=0)]
        scores = scores.masked_fill(~visible[:, None], -torch.inf)
        mixed = self.join(self.dropout(scores.softmax(-1)) @ v)
        return mixed, (
            self._cache(k, v, real, keep, width)
            if keep
            else Cache(k[:, :, :0], v[:, :, :0], real[:, :0], 0)
        )

    def step(self, x: Tensor, state: State) -> Tensor:
        assert isinstance(state, Cache)
        q, k, v = self.project(x[:, None])
        state.keys[:, :, state.used], state.values[:, :, state.used] = k[:, :, 0], v[:, :, 0]
        state.used += 1
        return self._newest(q, state, state.used)[:, 0]

    @staticmethod
    def _cache(k: Tensor, v: Tensor, real: Tensor, keep: int, width: int) -> Cache:
        """Of keys and values `[B, m, L, d/m]`, padded on the left to `width`, with room for `keep`
        tokens that are real.
        """
        length = k.shape[2]
        before, used = max(width - length, 0), max(width, length)
        keys, values = (
            given.new_empty(*given.shape[:2], used + keep, given.shape[3]) for given in (k, v)
        )
        for room, given in ((keys, k), (values, v)):
            # Padding has weight 0, which not every number survives.
            room[:, :, :before] = 0
            room[:, :, before:used] = given
        return Cache(
            keys,
            values,
            nn.functional.pad(nn.functional.pad(real, (before, 0)), (0, keep), value=True),
            used,
        )

    def _newest(self, q: Tensor, cache: Cache, length: int) -> Tensor:
        """What the newest token, of queries `[B, m, 1, d/m]`, sees in the last `length` tokens of
        the cache, itself included, `[B, 1, d]`.

        The transposed keys are not copied: of columns in memory each score is one inner product,
        whose bits do not depend on where in the batch it stands. For that, batch and heads are one
        dimension.
        """
        seen = slice(cache.used - length, cache.used)
        keys, values = cache.keys.flatten(0, 1)[:, seen], cache.values.flatten(0, 1)[:, seen]
        scores = (
            torch.bmm(q.flatten(0, 1), keys.transpose(1, 2)).view(*q.shape[:3], -1)
            * q.shape[-1] ** -0.5
        )
        if self.distance is not None:
            scores = scores + self.distance[:, :length].flip(1)[:, None]
        hidden = ~cache.real[:, seen]
        hidden[:, -1] = False
        scores = scores.masked_fill(hidden[:, None, None], -torch.inf)
        return self.join(
            torch.bmm(self.dropout(scores.softmax(-1)).flatten(0, 1), values).view(q.shape)
        )


@dataclass
class Flows(State):
    """The running sums of causal flow attention: over keys, queries, refined keys and queries,
    exponentials, key x value.
    """

    keys: Tensor
    queries: Tensor
    keys_out: Tensor
    queries_in: Tensor
    exponentials: Tensor
    memory: Tensor
    count: Tensor


SUMS = ("keys", "queries", "keys_out", "queries_in", "exponentials")


class FlowAttention(AttentionLayer):
    """Flow attention (Wu et al., "Flowformer", ICML 2022) in its causal form: every sum runs over
    the tokens so far.

    With phi = sigmoid and n tokens so far: incoming flow `I = phi(q) . sum phi(k)`, outgoing
    `O = phi(k) . sum phi(q)`; conserved `I' = phi(q) . sum phi(k) n / O / n`,
    `O' = phi(k) . sum phi(q) n / I / n`; sources compete by a running softmax of `O'`, sinks
    allocate by `sigmoid(I')`: `r = sigmoid(I') phi(q) / I . sum phi(k) softmax(O') n v`. The cost
    of a token does not grow with the history: the state is a matrix per head.
    """

    def forward(
        self, x: Tensor, real: Tensor, keep: int = 0, last: bool = False, width: int = 0
    ) -> tuple[Tensor, State]:
        q, k, v = self.project(x)
        mask = real[:, None, :, None].to(x.dtype)
        q, k = q.sigmoid() * mask, k.sigmoid() * mask
        n = real.cumsum(1)[:, None].to(x.dtype)
        count = n.clamp(min=1)
        keys, queries = running_sum(k), running_sum(q)
        incoming = ((q + EPS) * (keys + EPS)).sum(-1)
        outgoing = ((k + EPS) * (queries + EPS)).sum(-1)
        keys_out = running_sum(k * (count / outgoing)[..., None])
        queries_in = running_sum(q * (count / incoming)[..., None])
        allocation = (((q + EPS) * (keys_out + EPS)).sum(-1) / count).sigmoid()
        source = (((k + EPS) * (queries_in + EPS)).sum(-1) / count).clamp(-1, 1).exp() * mask[
            ..., 0
        ]
        exponentials = running_sum(source[..., None])[..., 0]
        competition = source / exponentials.clamp(min=EPS) * count
        carried = v * competition[..., None]
        scores = (q / incoming[..., None]) @ k.transpose(-1, -2)
        ends = dict(
            zip(
                SUMS,
                (t[:, :, -1] for t in (keys, queries, keys_out, queries_in, exponentials)),
                strict=True,
            )
        )
        state = Flows(**ends, memory=k.transpose(-1, -2) @ carried, count=n[:, :, -1])
        scores = scores.tril()
        if last:
            scores, allocation = scores[:, :, -1:], allocation[:, :, -1:]
        return self.join(self.dropout(scores) @ carried * allocation[..., None]), state

    def step(self, x: Tensor, state: State) -> Tensor:
        assert isinstance(state, Flows)
        q, k, v = (t[:, :, 0] for t in self.project(x[:, None]))
        q, k = q.sigmoid(), k.sigmoid()
        state.count = count = state.count + 1
        state.keys, state.queries = state.keys + k, state.queries + q
        incoming = ((q + EPS) * (state.keys + EPS)).sum(-1)
        outgoing = ((k + EPS) * (state.queries + EPS)).sum(-1)
        state.keys_out = state.keys_out + k * (count / outgoing)[..., None]
        state.queries_in = state.queries_in + q * (count / incoming)[..., None]
        allocation = (((q + EPS) * (state.keys_out + EPS)).sum(-1) / count).sigmoid()
        source = (((k + EPS) * (state.queries_in + EPS)).sum(-1) / count).clamp(-1, 1).exp()
        state.exponentials = state.exponentials + source
        carried = v * (source / state.exponentials * count)[..., None]
        state.memory = state.memory + k[..., None] * carried[..., None, :]
        mixed = ((q / incoming[..., None])[..., None, :] @ state.memory) * allocation[
            ..., None, None
        ]
        return self.join(mixed)[:, 0]


ATTENTION: dict[str, type[AttentionLayer]] = {"softmax": SoftmaxAttention, "flow": FlowAttention}
