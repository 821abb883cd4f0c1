"""The GPT over item ids (RecGPT section 4.2, eq. 2-3): embeddings, causal blocks, output layer. It
knows no loss, no data, no recall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from policies.base import Params
from policies.dropout import Dropout
from policies.operators import Embedding, Linear
from policies.users import user_vectors
from recgpt.attention import ATTENTION, AttentionLayer, State

Layer = Literal["items", "output"]
"""What a hidden state is compared with: the item embedding W_e, or the output layer W_l."""

REAL, GENERATED = 0, 1
"""Segments: what the user did, and what a prompt says (generated, or shown and not clicked)."""


@dataclass
class Shape(Params):
    """The size and form of the network. `written()` is the paper's, `released()` that of the
    authors' public code.

    Attributes:
        width: d, of item vectors and hidden states.
        feedforward: inner width of the feed-forward network.
        layers: N.
        heads: m.
        length: tokens of a history that are read.
        activation: of the feed-forward network.
        attention: `softmax` (eq. 2), or causal `flow` attention.
        relative: whether each head of softmax attention also learns a term for the distance of two
            tokens.
        norm: `post` or `pre`, see `RecGPTBlock`.
        embedding_norm: whether `h0` is normalised.
        embedding_dropout: of `h0`.
        attention_dropout: of the attention weights.
        dropout: of what attention and feed-forward network add.
        users: the user module: a `free` vector for each user (eq. 3), or `none`.
        user_rows: of the table into which these are hashed (`policies.users`); 0: as many as there
            are users.
        user_dropout: share of the training rows that do without their user vector.
        masked: whether padding is hidden from attention; else every history is padded to `length`
            and padding is attended to.
        output: the layer that tuning trains items by: the item embedding itself (`tied`), an own
            matrix (`untied`), and a bias (`biased`).
        trace: whether a decayed mean of the embedded tokens is added to the last block's result,
            see `Trace`.
    """

    width: int = 64
    feedforward: int = 256
    layers: int = 1
    heads: int = 2
    length: int = 50
    activation: Literal["relu", "gelu"] = "gelu"
    attention: Literal["softmax", "flow"] = "softmax"
    relative: bool = False
    norm: Literal["post", "pre"] = "post"
    embedding_norm: bool = True
    embedding_dropout: float = 0.2
    attention_dropout: float = 0.0
    dropout: float = 0.2
    users: Literal["none", "free"] = "free"
    user_rows: int = 0
    user_dropout: float = 0.5
    masked: bool = True
    output: Literal["tied", "untied", "biased"] = "tied"
    trace: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "feedforward", "layers", "heads", "length"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"the {name!r} of a shape must be at least 1; got {getattr(self, name)}"
                )
        for name in ("embedding_dropout", "attention_dropout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"the {name!r} of a shape must be within [0, 1); got {getattr(self, name)}"
                )
        if self.user_rows < 0 or (self.user_rows and self.users == "none"):
            raise ValueError(
                "the 'user_rows' of a shape must be at least 0, and 0 where 'users' is none; got"
                f" {self.user_rows} with users {self.users!r}"
            )
        if not 0 <= self.user_dropout <= 1:
            raise ValueError(
                f"the 'user_dropout' of a shape must be within 0..1; got {self.user_dropout}"
            )
        if self.width % self.heads:
            raise ValueError(
                f"the 'width' of a shape must be a multiple of its 'heads'; got {self.width} and"
                f" {self.heads}"
            )
        if self.relative and self.attention != "softmax":
            raise ValueError(
                f"'relative' terms are of softmax attention; got attention {self.attention!r}"
            )

    @classmethod
    def written(cls) -> Shape:
        """As written (section 5.1: d 64, 1 layer, 2 heads, length 50, ReLU); what the paper does
        not say is that of RecBole's SASRec.
        """
        return cls(
            activation="relu",
            embedding_dropout=0.5,
            attention_dropout=0.5,
            dropout=0.5,
            user_dropout=0.0,
            output="untied",
        )

    @classmethod
    def released(cls) -> Shape:
        """As released: width 256, GELU, causal flow attention over unmasked padding, residual
        dropout .1 only, no user module.
        """
        return cls(
            width=256,
            feedforward=512,
            attention="flow",
            embedding_norm=False,
            embedding_dropout=0.0,
            dropout=0.1,
            users="none",
            user_dropout=0.0,
            masked=False,
            output="biased",
        )


class RecGPTBlock(nn.Module):
    """A Transformer block: attention and a position-wise feed-forward network, each with dropout
    after it, a residual and a layer norm.

    `norm` "post" is `LN(x + f(x))` (Vaswani et al. 2017; torch's default), "pre" is `x + f(LN(x))`.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention: AttentionLayer = ATTENTION[shape.attention](
            shape.width, shape.heads, shape.attention_dropout, shape.length if shape.relative else 0
        )
        self.expand = Linear(shape.width, shape.feedforward)
        self.contract = Linear(shape.feedforward, shape.width)
        self.activation = nn.ReLU() if shape.activation == "relu" else nn.GELU()
        self.norm_attention = nn.LayerNorm(shape.width)
        self.norm_feedforward = nn.LayerNorm(shape.width)
        self.dropout = Dropout(shape.dropout)
        self.pre = shape.norm == "pre"

    def forward(
        self, x: Tensor, real: Tensor, keep: int, last: bool, width: int
    ) -> tuple[Tensor, State]:
        """`[B, L, d]` -> `[B, L, d]` (`[B, 1, d]` if only the `last` token is wanted), and the
        attention's state.
        """
        mixed, state = self.attention(
            self.norm_attention(x) if self.pre else x, real, keep, last, width
        )
        return self._rest(x[:, -1:] if last else x, mixed), state

    def step(self, x: Tensor, state: State) -> Tensor:
        """One further token, `[B, d]` -> `[B, d]`; `state` takes it in."""
        return self._rest(x, self.attention.step(self.norm_attention(x) if self.pre else x, state))

    def _rest(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(mixed)
        x = x if self.pre else self.norm_attention(x)
        y = self.contract(self.activation(self.expand(self.norm_feedforward(x) if self.pre else x)))
        x = x + self.dropout(y)
        return x if self.pre else self.norm_feedforward(x)


@dataclass
class Sums(State):
    """The decayed sums of the tokens so far: of their vectors `[B, d]`, and of their weights
    `[B, 1]`.
    """

    vectors: Tensor
    weights: Tensor


class Trace(nn.Module):
    """`exp(a) LN(sum_i g^(t - i) h0_i / sum_i g^(t - i))`, a decayed mean of the embedded real
    tokens up to t, with learned g and a.

    i and t count real tokens: a prompt is in no mean and ages none, so that the trace of a dialogue
    is that of its clicks.

    An exponential moving average is the simplest low-pass filter of a sequence; attention that has
    to find it in few data often does not, which is why layers that hold one do better there (for
    language: Ma et al., "Mega", ICLR 2023; for recommendation with a filter in the frequency
    domain: Shin et al., "BSARec", AAAI 2024). It is also the form of the training-free counts
    (`policies.transitions`), whose histories are weighted by `decay^(n - h)`.

    Args:
        width: d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.empty(()))
        self.share = nn.Parameter(torch.empty(()))
        self.norm = nn.LayerNorm(width)
        self.start()

    def start(self) -> None:
        """g = .82 and a = 0, from which both are learned."""
        with torch.no_grad():
            self.decay.fill_(1.5)
            self.share.zero_()

    def forward(self, x: Tensor, counted: Tensor) -> Tensor:
        """The trace after every token, `[B, L, d]`, of `x` `[B, L, d]` and which columns count
        `[B, L]`.
        """
        total, weight = self._sums(x, counted)
        return self._out(total, weight)

    def last(self, x: Tensor, counted: Tensor) -> tuple[Tensor, Sums]:
        """The trace after the last token, `[B, d]`, and the sums that `step` goes on from."""
        total, weight = self._sums(x, counted, slice(-1, None))
        return self._out(total, weight)[:, 0], Sums(total[:, 0], weight[:, 0])

    def step(self, x: Tensor, sums: Sums) -> Tensor:
        """The trace after one further real token `x` `[B, d]`; `sums` takes it in."""
        g = self.decay.sigmoid()
        sums.vectors, sums.weights = sums.vectors * g + x, sums.weights * g + 1
        return self.after(sums)

    def after(self, sums: Sums) -> Tensor:
        """The trace of the tokens so far, `[B, d]`."""
        return self._out(sums.vectors, sums.weights)

    def _sums(self, x: Tensor, counted: Tensor, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
        columns = torch.arange(x.shape[1], device=x.device)
        place = counted.cumsum(1)
        back = place[:, rows, None] - place[:, None]
        weights = (
            self.decay.sigmoid() ** back.clamp(min=0)
            * (columns[rows, None] >= columns)
            * counted[:, None]
        )
        return weights @ x, weights.sum(-1, keepdim=True)

    def _out(self, total: Tensor, weight: Tensor) -> Tensor:
        mean: Tensor = self.norm(total / weight.clamp(min=1e-6))
        return self.share.exp() * mean


def _clicked(real: Tensor, segments: Tensor | None) -> Tensor:
    """Which columns `[B, L]` hold a real item: no padding, no prompt."""
    return real if segments is None else real & (segments == REAL)


@dataclass
class Memory(State):
    """Where sequences stand: each layer's state, the trace's sums, the number of real tokens `[B]`,
    the users' vectors `[B, d]`.
    """

    states: list[State]
    sums: Sums | None
    count: Tensor
    user: Tensor | None


class GPT(nn.Module):
    """Next-item model: `h0 = u W_u + s W_e + W_p + W_s` (eq. 3, Algorithm 1 line 5), N causal
    blocks, output layer `W_l`.

    Sequences stand on the right, padding (0) on the left; a token's position is its place in its
    own sequence, so that appending a token moves no other one and keys and values can be kept.
    Scores of items are inner products with `items.weight` (eq. 6) or, through the output layer,
    with `W_l` (Algorithm 1 line 7); row 0 is never a candidate.

    The user module adds a free vector per user; user -1 (unknown) and a share `user_dropout` of the
    training rows add nothing, so that the network also learns to do without. W_s starts at zero: a
    model whose prompts are not tuned yet is the pre-trained one.

    Args:
        n_items: items are 1..n_items.
        n_users: users are 0..n_users-1.
        shape: the form of the network.
    """

    def __init__(self, n_items: int, n_users: int, shape: Shape) -> None:
        super().__init__()
        self.shape, self.n_users, self.n_items = shape, n_users, n_items
        self.items = Embedding(n_items + 1, shape.width, padding_idx=0)
        self.positions = Embedding(shape.length, shape.width)
        self.segments = Embedding(2, shape.width)
        self.users: Embedding | None = None
        if shape.users == "free":
            self.users = user_vectors(n_users, shape.width, shape.user_rows)
        self.norm = nn.LayerNorm(shape.width) if shape.embedding_norm else nn.Identity()
        self.dropout = Dropout(shape.embedding_dropout)
        self.blocks = nn.ModuleList(RecGPTBlock(shape) for _ in range(shape.layers))
        self.final = nn.LayerNorm(shape.width) if shape.norm == "pre" else nn.Identity()
        self.trace = Trace(shape.width) if shape.trace else None
        self.output = (
            None
            if shape.output == "tied"
            else Linear(shape.width, n_items + 1, bias=shape.output == "biased")
        )

    def initialise(self, generator: torch.Generator) -> GPT:
        """Draw all weights anew: normal(0, .02), biases and the segment embedding zero, the output
        layer equal to the item embedding.
        """
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    module.weight.normal_(0.0, 0.02, generator=generator)
                if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                    module.weight[module.padding_idx].zero_()
                if isinstance(module, nn.Linear) and module.bias is not None:
                    module.bias.zero_()
            self.segments.weight.zero_()
            for block in self.blocks:
                if isinstance(block, RecGPTBlock) and block.attention.distance is not None:
                    block.attention.distance.zero_()
            if self.trace is not None:
                self.trace.start()
        return self.start_output()

    def place(self, items: Tensor, vectors: Tensor) -> GPT:
        """Let `items` `[m]` start from `vectors` `[m, r]`, r at most d, instead of random draws."""
        with torch.no_grad():
            self.items.weight[items.to(self.items.weight.device), : vectors.shape[1]] = vectors.to(
                self.items.weight.device
            )
        return self.start_output()

    def start_output(self) -> GPT:
        """Let the output layer start as the item embedding, so that tuning starts where
        pre-training ended.
        """
        if self.output is not None:
            with torch.no_grad():
                self.output.weight.copy_(self.items.weight)
        return self

    def forward(self, tokens: Tensor, users: Tensor, segments: Tensor | None = None) -> Tensor:
        """Hidden states after every token.

        Args:
            tokens: `[B, L]` items, right-aligned, 0 = padding, L at most `shape.length`.
            users: `[B]`, -1 = unknown.
            segments: `[B, L]` REAL or GENERATED, or None before there are segments (pre-training).

        Returns:
            `[B, L, d]`.
        """
        start, real = self._embed(tokens, users, segments)
        x = start
        for block in self.blocks:
            x, _ = block(x, real, 0, False, 0)
        out: Tensor = self.final(x)
        return out if self.trace is None else out + self.trace(start, _clicked(real, segments))

    def begin(
        self,
        tokens: Tensor,
        users: Tensor,
        segments: Tensor | None = None,
        keep: int = 0,
        width: int = 0,
    ) -> tuple[Tensor, Memory]:
        """The hidden state `[B, d]` after the last token, and the memory from which `extend` takes
        up to `keep` further tokens.

        With a `width`, memories of shorter sequences have the shape of that many tokens, and go
        together.
        """
        start, real = self._embed(tokens, users, segments)
        x, states, sums = start, [], None
        for number, block in enumerate(self.blocks, 1):
            x, state = block(x, real, keep, number == len(self.blocks), width)
            states.append(state)
        hidden: Tensor = self.final(x[:, -1])
        if self.trace is not None:
            trace, sums = self.trace.last(start, _clicked(real, segments))
            hidden = hidden + trace
        return hidden, Memory(
            states, sums, real.sum(1), None if self.users is None else self._user(users)
        )

    def _embed(
        self, tokens: Tensor, users: Tensor, segments: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`h0` `[B, L, d]`, and which columns count `[B, L]`."""
        real = tokens != 0 if self.shape.masked else torch.ones_like(tokens, dtype=torch.bool)
        x: Tensor = self.items(tokens)
        x += self.positions((real.cumsum(1) - 1).clamp(min=0))
        if self.users is not None:
            x += self._user(users)[:, None]
        if segments is not None:
            x += self.segments(segments)
        return self.dropout(self.norm(x)), real

    def extend(self, token: Tensor, memory: Memory, segment: int | None = None) -> Tensor:
        """Hidden state `[B, d]` after one further `token` `[B]` of the given segment; `memory`
        takes it in.
        """
        x = self.items(token) + self.positions(memory.count)
        if memory.user is not None:
            x += memory.user
        if segment is not None:
            x += self.segments.weight[segment]
        x = start = self.dropout(self.norm(x))
        for block, state in zip(self.blocks, memory.states, strict=True):
            assert isinstance(block, RecGPTBlock)
            x = block.step(x, state)
        memory.count = memory.count + 1
        out: Tensor = self.final(x)
        if self.trace is not None:
            assert memory.sums is not None
            out = out + (
                self.trace.after(memory.sums)
                if segment == GENERATED
                else self.trace.step(start, memory.sums)
            )
        return out

    def _user(self, users: Tensor) -> Tensor:
        assert self.users is not None
        row, counts = self.user_rows(users)
        vectors: Tensor = self.users(row)
        return vectors * counts[:, None] if self.training else vectors

    def user_rows(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """The rows `[B]` of the users' vectors (0 = unknown), and 1 where the vector counts, 0
        where it is left out, as for a share `user_dropout` of the rows in training.
        """
        if self.users is None:
            return torch.zeros_like(users), torch.zeros(len(users), device=users.device)
        known = (users >= 0) & (users < self.n_users)
        counts = known.float()
        if self.training and self.shape.user_dropout:
            drawn = torch.rand(len(users), device=users.device)
            counts = counts * (drawn >= self.shape.user_dropout)
        return torch.where(known, users + 1, 0), counts

    def vectors(self, layer: Layer) -> Tensor:
        """What items are scored by, `[V + 1, d]`: the item embedding (eq. 6) or the output layer;
        with a bias one column more.
        """
        if layer == "items" or self.output is None:
            return self.items.weight
        return (
            self.output.weight
            if self.output.bias is None
            else torch.cat([self.output.weight, self.output.bias[:, None]], 1)
        )

    def query(self, hidden: Tensor, layer: Layer) -> Tensor:
        """What of a hidden state `[..., d]` is multiplied with `vectors(layer)`: itself; with a
        bias a 1 more.
        """
        if layer == "items" or self.output is None or self.output.bias is None:
            return hidden
        return torch.cat([hidden, torch.ones_like(hidden[..., :1])], -1)
