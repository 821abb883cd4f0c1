"""A pass of training over the tokens of a batch alone: no padding, and after the last attention no
token that is not asked. Its gradient is written out.

`recgpt.model.GPT` defines the network. This is the same network on a CPU, in calls of products
(`policies.operators`) and compiled loops (`recgpt.kernels`), because a small network pays for calls
as much as for arithmetic: the module's own pass makes some 1,500 of them. Dropout draws other
random numbers than the module does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from policies.base import IntArray
from policies.dropout import level_of, random_bytes
from policies.operators import GRAIN, LARGE, outer_sum, product, sparse_rows
from recgpt.model import GPT, REAL, Shape

Array = npt.NDArray[np.float32]
Weights = dict[str, Tensor]


def is_covered(shape: Shape) -> bool:
    """Whether a network of this form has a pass here: softmax attention without dropout of its
    weights, norms after each part, no hashed users.
    """
    is_softmax = shape.attention == "softmax" and not shape.attention_dropout
    return is_softmax and shape.norm == "post" and not shape.user_rows


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch, window after window.

    Attributes:
        indices: `[4, T]` of each token its item, position, segment and user (+ 1; 0 = unknown).
        known: `[T]` 0 where the user's vector is left out, else 1.
        offsets: `[B + 1]` where windows begin.
        asked: `[P]` tokens whose hidden states are wanted, ascending.
        has_segments: whether segments count.
    """

    indices: IntArray
    known: Array
    offsets: IntArray
    asked: IntArray
    has_segments: bool

    @classmethod
    def of(
        cls, model: GPT, tokens: Tensor, users: Tensor, segments: Tensor | None, asked: Tensor
    ) -> Tokens:
        """Those of a padded batch: arguments as in `hidden_at`."""
        items = tokens.numpy()
        real = items != 0 if model.shape.masked else np.ones(items.shape, dtype=bool)
        lengths = real.sum(axis=1)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        user, known = (part.numpy() for part in model.user_rows(users))
        indices = np.zeros((4, offsets[-1]), dtype=np.int64)
        indices[0] = items[real]
        indices[1] = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        if segments is not None:
            indices[2] = segments.numpy()[real]
        indices[3] = np.repeat(user, lengths)
        wanted = np.flatnonzero(asked.numpy()[real])
        return cls(indices, np.repeat(known, lengths), offsets, wanted, segments is not None)


def hidden_at(
    model: GPT, tokens: Tensor, users: Tensor, segments: Tensor | None, asked: Tensor
) -> Tensor:
    """Hidden states after the asked tokens alone, for training.

    Args:
        model: by whose own pass they are computed where it is not covered, not on a CPU, or in
            evaluation mode.
        tokens, users, segments: as in `GPT.forward`.
        asked: `[B, L]` which tokens, never padding.

    Returns:
        `[P, d]`, the rows of `model(...)[asked]`.
    """
    is_on_cpu = model.items.weight.device.type == "cpu"
    if not (is_on_cpu and model.training and is_covered(model.shape)):
        whole: Tensor = model(tokens, users, segments)
        return whole[asked]
    batch = Tokens.of(model, tokens, users, segments, asked)
    names, weights = zip(*model.named_parameters(), strict=True)
    hidden: Tensor = _Pass.apply(model, batch, names, *weights)  # type: ignore[no-untyped-call]
    return hidden


class _Pass(torch.autograd.Function):
    """From the weights of a network to the hidden states of the asked tokens."""

    @staticmethod
    def forward(
        ctx: Any, model: GPT, batch: Tokens, names: tuple[str, ...], *tensors: Tensor
    ) -> Tensor:
        weights = {name: tensor.detach() for name, tensor in zip(names, tensors, strict=True)}
        embedding = _Embedding(model, batch, weights)
        start, blocks = embedding.forward(), []
        x = start
        everyone = np.arange(len(batch.known))
        for number in range(len(model.blocks)):
            is_last = number == len(model.blocks) - 1
            asked = batch.asked if is_last else everyone
            block = _Block(model, batch, f"blocks.{number}.", weights, asked)
            x = block.forward(x)
            blocks.append(block)
        trace = None
        if model.trace is not None:
            trace = _Trace(batch, weights)
            trace.add(start, x)
        ctx.parts, ctx.trace = (embedding, blocks), trace
        ctx.names, ctx.n_asked = names, len(batch.asked)
        return torch.from_numpy(x[: ctx.n_asked])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        grad = _rows(ctx.n_asked, grads[0].shape[1])
        grad[: ctx.n_asked] = grads[0].numpy()
        grad[ctx.n_asked :] = 0
        found: Weights = {}
        embedding, blocks = ctx.parts
        to_start = grad
        for block in reversed(blocks):
            to_start = block.backward(to_start, found)
        if ctx.trace is not None:
            ctx.trace.backward(grad, to_start, found)
        embedding.backward(to_start, found)
        return None, None, None, *(found.get(name) for name in ctx.names)


def _rows(n: int, width: int) -> Array:
    """Room for `n` rows and for those which fill the last `GRAIN` up."""
    return np.empty((n + -n % GRAIN, width), dtype=np.float32)


def _zeros(like: Tensor) -> Array:
    return np.zeros(like.shape, dtype=np.float32)


class _Embedding:
    """What every token begins as."""

    def __init__(self, model: GPT, batch: Tokens, weights: Weights) -> None:
        self.batch, self.level = batch, level_of(model.shape.embedding_dropout)
        width = model.shape.width
        self.norm = [np.zeros(0, dtype=np.float32)] * 2
        self.is_normed = isinstance(model.norm, nn.LayerNorm)
        if self.is_normed:
            self.norm = [weights[name].numpy() for name in ("norm.weight", "norm.bias")]
        nothing = np.zeros((1, width), dtype=np.float32)
        self.tables = [
            weights["items.weight"].numpy(),
            weights["positions.weight"].numpy(),
            weights["segments.weight"].numpy() if batch.has_segments else nothing,
            weights["users.weight"].numpy() if "users.weight" in weights else nothing,
        ]

    def forward(self) -> Array:
        """`[N, d]`, of which the first T rows are the tokens'."""
        from recgpt.kernels import embed

        batch, (n, width) = self.batch, (len(self.batch.known), self.tables[0].shape[1])
        self.bits = random_bytes(n, width) if self.level else np.zeros((n, width), dtype=np.uint8)
        out = _rows(n, width)
        out[n:] = 0
        self.whitened = np.empty((n if self.is_normed else 0, width), dtype=np.float32)
        self.inverse = embed(
            tuple(self.tables),
            batch.indices,
            batch.known,
            self.is_normed,
            self.bits,
            self.level,
            tuple(self.norm),
            self.whitened,
            out,
        )
        return out

    def backward(self, grad: Array, found: Weights) -> None:
        from recgpt.kernels import embed_backward

        indices, n_rows = self.batch.indices.copy(), [len(table) for table in self.tables]
        rows: dict[int, IntArray] = {}
        for number, table in enumerate(self.tables):
            if len(table) >= LARGE:
                rows[number], indices[number] = np.unique(indices[number], return_inverse=True)
                n_rows[number] = len(rows[number])
        to_tables = [np.zeros((n, grad.shape[1]), dtype=np.float32) for n in n_rows]
        to_norm = [np.zeros_like(part) for part in self.norm]
        embed_backward(
            grad,
            indices,
            self.batch.known,
            self.is_normed,
            self.bits,
            self.level,
            tuple(self.norm),
            self.whitened,
            self.inverse,
            tuple(to_tables),
            tuple(to_norm),
        )
        names = ["items.weight", "positions.weight", "segments.weight", "users.weight"]
        for number, name in enumerate(names):
            shape, sums = self.tables[number].shape, torch.from_numpy(to_tables[number])
            if number in rows:
                found[name] = sparse_rows(torch.from_numpy(rows[number]), sums, shape, 0)
            elif len(sums) > 1:
                found[name] = sums
        if 0 not in rows:
            found["items.weight"][0] = 0  # padding learns nothing
        if self.is_normed:
            found["norm.weight"], found["norm.bias"] = map(torch.from_numpy, to_norm)


class _AddAndNorm:
    """`LN(x + dropout(y))`."""

    def __init__(self, weights: Weights, name: str, level: int, n: int) -> None:
        self.name, self.level, self.n = name, level, n
        self.gain, self.shift = (weights[name + end].numpy() for end in (".weight", ".bias"))

    def forward(self, x: Array, y: Array) -> Array:
        from recgpt.kernels import add_and_norm

        n, width = self.n, x.shape[1]
        self.bits = random_bytes(n, width) if self.level else np.zeros((n, width), dtype=np.uint8)
        self.whitened, out = np.empty((n, width), dtype=np.float32), _rows(n, width)
        out[n:] = 0
        self.inverse = add_and_norm(
            x, y, n, self.bits, self.level, self.gain, self.shift, self.whitened, out
        )
        return out

    def backward(self, grad: Array, found: Weights) -> tuple[Array, Array, Array]:
        """The gradients of x and of y, and the sum of y's over rows."""
        from recgpt.kernels import add_and_norm_backward

        to_x, to_y = np.empty_like(grad), np.empty_like(grad)
        to_x[self.n :] = to_y[self.n :] = 0
        sums = np.zeros((3, grad.shape[1]), dtype=np.float32)
        add_and_norm_backward(
            grad,
            self.n,
            self.bits,
            self.level,
            self.gain,
            self.whitened,
            self.inverse,
            to_x,
            to_y,
            sums,
        )
        found[self.name + ".weight"] = torch.from_numpy(sums[0])
        found[self.name + ".bias"] = torch.from_numpy(sums[1])
        return to_x, to_y, sums[2]


class _Block:
    """A Transformer block (`recgpt.model.RecGPTBlock`) from all tokens to the asked ones."""

    def __init__(
        self, model: GPT, batch: Tokens, name: str, weights: Weights, asked: IntArray
    ) -> None:
        self.batch, self.name, self.asked = batch, name, asked
        self.asked_offsets = np.searchsorted(asked, batch.offsets)
        self.heads, self.is_gelu = model.shape.heads, model.shape.activation == "gelu"
        self.own = {
            key.removeprefix(name): part for key, part in weights.items() if key.startswith(name)
        }
        self.distance = np.zeros((self.heads, 0), dtype=np.float32)
        if model.shape.relative:
            self.distance = self.own["attention.distance"].flip(1).numpy()
        level = level_of(model.shape.dropout)
        self.norms = [
            _AddAndNorm(weights, name + part, level, len(asked))
            for part in ("norm_attention", "norm_feedforward")
        ]

    def forward(self, x: Array) -> Array:
        """`[N, d]` -> `[M, d]`, of which the first P rows are those of the asked tokens."""
        from recgpt.kernels import LANES, attend

        width, own, n = x.shape[1], self.own, len(self.asked)
        weight, bias = own["attention.qkv.weight"], own["attention.qkv.bias"]
        self.x = x
        self.asking = _rows(n, width)
        np.take(x, self.asked, axis=0, out=self.asking[:n])
        self.asking[n:] = 0
        self.queries = _times(self.asking, weight[:width], bias[:width])
        self.both = _times(x, weight[width:], bias[width:])
        self.mixed = np.zeros_like(self.asking)
        longest = int(np.diff(self.batch.offsets).max(initial=0))
        shape = self.heads, n, -(-longest // LANES) * LANES
        self.shares = np.empty(shape, dtype=np.float32)
        attend(
            self.queries,
            self.both,
            self.batch.offsets,
            self.asked,
            self.asked_offsets,
            self.heads,
            self.distance,
            self.shares,
            self.mixed,
        )
        joined = _times(self.mixed, own["attention.out.weight"], own["attention.out.bias"])
        self.middle = self.norms[0].forward(self.asking, joined)
        self.inner = product(
            torch.from_numpy(self.middle), own["expand.weight"], own["expand.bias"]
        )
        gate = nn.functional.gelu if self.is_gelu else nn.functional.relu
        self.active = gate(self.inner)
        y = product(self.active, own["contract.weight"], own["contract.bias"]).numpy()
        return self.norms[1].forward(self.middle, y)

    def backward(self, grad: Array, found: Weights) -> Array:
        """The gradient of what `forward` was given, by that of its result."""
        from recgpt.kernels import attend_backward

        own, name, width = self.own, self.name, grad.shape[1]
        to_middle, to_y, total = self.norms[1].backward(grad, found)
        found[name + "contract.bias"] = torch.from_numpy(total)
        found[name + "contract.weight"] = outer_sum(torch.from_numpy(to_y), self.active)
        to_active = product(torch.from_numpy(to_y), own["contract.weight"].T)
        if self.is_gelu:
            to_inner = torch.ops.aten.gelu_backward(to_active, self.inner)
        else:
            to_inner = to_active * (self.inner > 0)
        found[name + "expand.bias"] = to_inner.sum(0)
        found[name + "expand.weight"] = outer_sum(to_inner, torch.from_numpy(self.middle))
        to_middle += product(to_inner, own["expand.weight"].T).numpy()

        to_asking, to_joined, total = self.norms[0].backward(to_middle, found)
        found[name + "attention.out.bias"] = torch.from_numpy(total)
        found[name + "attention.out.weight"] = _outer(to_joined, self.mixed)
        to_mixed = _times(to_joined, own["attention.out.weight"].T)
        to_queries, to_both = np.zeros_like(self.queries), np.zeros_like(self.both)
        to_distance = np.zeros_like(self.distance)
        attend_backward(
            to_mixed,
            self.shares,
            self.queries,
            self.both,
            self.batch.offsets,
            self.asked,
            self.asked_offsets,
            to_queries,
            to_both,
            to_distance,
        )
        if self.distance.size:
            found[name + "attention.distance"] = torch.from_numpy(to_distance).flip(1)
        weight = own["attention.qkv.weight"]
        found[name + "attention.qkv.weight"] = torch.cat(
            [_outer(to_queries, self.asking), _outer(to_both, self.x)]
        )
        found[name + "attention.qkv.bias"] = torch.from_numpy(
            np.concatenate([to_queries.sum(axis=0), to_both.sum(axis=0)])
        )
        to_asking += _times(to_queries, weight[:width].T)
        to_x = _times(to_both, weight[width:].T)
        to_x[self.asked] += to_asking[: len(self.asked)]
        return to_x


class _Trace:
    """What is added to the last block's result: a decayed mean (`recgpt.model.Trace`)."""

    def __init__(self, batch: Tokens, weights: Weights) -> None:
        names = ("decay", "share", "norm.weight", "norm.bias")
        decay, share, gain, shift = (weights[f"trace.{name}"] for name in names)
        self.g, self.share = np.float32(decay.sigmoid()), np.float32(share.exp())
        self.norm = gain.numpy(), shift.numpy()
        is_click = batch.indices[2] == REAL
        asked_offsets = np.searchsorted(batch.asked, batch.offsets)
        self.places = is_click, batch.offsets, batch.asked, asked_offsets

    def add(self, x: Array, out: Array) -> None:
        """Of the tokens `x` `[N, d]`, to the first P rows of `out`, those of the asked ones."""
        from recgpt.kernels import add_trace

        self.x = x
        self.whitened = np.empty((len(self.places[2]), x.shape[1]), dtype=np.float32)
        self.inverse = add_trace(
            x, *self.places, self.g, self.share, *self.norm, self.whitened, out
        )

    def backward(self, grad: Array, to_x: Array, found: Weights) -> None:
        """Adds the gradient of the tokens to `to_x`, by that of what `add` made."""
        from recgpt.kernels import add_trace_backward

        to_norm = np.zeros((2, grad.shape[1]), dtype=np.float32)
        scalars = self.g, self.share, *self.norm
        kept = self.whitened, self.inverse
        to_g, to_share = add_trace_backward(
            grad, self.x, *self.places, *scalars, *kept, to_x, to_norm
        )
        found["trace.decay"] = torch.tensor(to_g * float(self.g) * (1 - float(self.g)))
        found["trace.share"] = torch.tensor(to_share * float(self.share))
        found["trace.norm.weight"], found["trace.norm.bias"] = map(torch.from_numpy, to_norm)


def _times(x: Array, weight: Tensor, bias: Tensor | None = None) -> Array:
    """`x W^T`, and the bias added to each row."""
    out: Array = product(torch.from_numpy(x), weight, bias).numpy()
    return out


def _outer(a: Array, b: Array) -> Tensor:
    """`a^T b`."""
    return outer_sum(torch.from_numpy(a), torch.from_numpy(b))
