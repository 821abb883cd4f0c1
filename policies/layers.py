"""Neural blocks that several sequence models share. No whole model, no loss and no training lives
here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.base import PADDING, FloatArray, IntArray
from policies.blocks import widths
from policies.dropout import Dropout
from policies.operators import Embedding, Linear

if TYPE_CHECKING:
    from policies.unpadded import BlockReader

Activation = Literal["relu", "gelu"]
Norm = Literal["pre", "post"]


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Normal weights of standard deviation `std` for linear and embedding layers, zero biases; the
    vector of padding stays 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx].zero_()


def attention_mask(items: Tensor, *, causal: bool) -> Tensor:
    """Who may look at whom, `[B, 1, L, L]`: no padding is looked at; with `causal` no later place.

    Every place may look at itself, so that a padding row has a defined (and unused) result.
    """
    length = items.shape[1]
    allowed = (items != PADDING)[:, None, None, :].expand(-1, 1, length, -1)
    if causal:
        allowed = allowed & torch.ones(length, length, dtype=torch.bool, device=items.device).tril()
    return allowed | torch.eye(length, dtype=torch.bool, device=items.device)


def is_served_compiled(weight: Tensor) -> bool:
    """Whether a network with this weight is served by compiled loops (`policies.unpadded`,
    `policies.recurrence`), where it is of their form: on a CPU, in single precision.
    """
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def running_sum(x: Tensor) -> Tensor:
    """The sum of the places so far, `[..., L, d]` of `x` `[..., L, d]`; on a GPU as a matrix
    product, whose order of addition is fixed.
    """
    if x.is_cuda:
        return torch.ones(x.shape[-2], x.shape[-2], dtype=x.dtype, device=x.device).tril() @ x
    return x.cumsum(-2)


class Recurrent(nn.Module):
    """Gated recurrent units (Cho et al. 2014) over right-aligned histories; the state is zero
    before the first real item.

    Rows are turned so that they begin at the first place, and turned back: padding comes after what
    is real, and cannot reach it.
    """

    def __init__(self, width: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.units = nn.GRU(
            width, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0
        )

    def forward(self, x: Tensor, items: Tensor) -> Tensor:
        """`x` `[B, L, width]` of `items` `[B, L]` -> the state after each place
        `[B, L, hidden]`.
        """
        length = items.shape[1]
        start = (items == PADDING).sum(1, keepdim=True)
        place = torch.arange(length, device=items.device)
        ahead = ((place + start) % length)[:, :, None]
        back = ((place - start) % length)[:, :, None]
        states, _ = self.units(x.gather(1, ahead.expand(-1, -1, x.shape[2])))
        out: Tensor = states.gather(1, back.expand(-1, -1, states.shape[2]))
        return out

    def last(self, table: FloatArray, items: IntArray) -> FloatArray:
        """The state after the last place, for serving on a CPU: the same bytes for a row however
        rows are batched.

        Args:
            table: `[n_items + 1, width]` the input vectors of items.
            items: `[B, L]`, 0 = padding.

        Returns:
            `[N, hidden]`, the first B rows.

        Raises:
            IndexError: an item without a vector.
        """
        from policies.affine import Affine, room
        from policies.recurrence import run

        n, length = items.shape
        lengths = (items != PADDING).sum(axis=1)
        # A block that holds no item is read at its least width, as padding that counts
        lengths[lengths == 0] = widths(length)[0]
        order = np.argsort(-lengths, kind="stable")
        layers = []
        for of_input, of_state, input_bias, state_bias in self.units.all_weights:
            entering, state = Affine.of(of_input, input_bias), Affine.of(of_state, state_bias)
            layers.append((entering.panels, entering.bias, state.panels, state.bias))
        out = room(n, self.units.hidden_size)
        wrong = run(table, items, lengths, order, tuple(layers), out)
        if wrong >= 0:
            raise IndexError(
                f"items are 1..{len(table) - 1}, or 0 for none; got {items[wrong].tolist()}"
            )
        return out


class AdditiveAttention(nn.Module):
    """Weights w . s(A x_i + b_t) of every place i for every place t >= i, s the logistic function;
    they are not normalised.

    The attention of STAMP (Liu et al. 2018) and NARM (Li et al. 2017, eq. 7-8).
    """

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        self.keys = Linear(width, width, bias=bias)
        self.weights = Linear(width, 1, bias=False)

    def forward(self, x: Tensor, b: Tensor, items: Tensor) -> Tensor:
        """`x`, `b` `[B, L, width]`, `items` `[B, L]` -> sums over i <= t of weight times x_i,
        `[B, L, width]`.
        """
        length = items.shape[1]
        alpha = self.weights(torch.sigmoid(self.keys(x)[:, None] + b[:, :, None]))[..., 0]
        allowed = (items != PADDING)[:, None] & torch.ones(
            length, length, dtype=torch.bool, device=items.device
        ).tril()
        return torch.matmul(alpha * allowed, x)


class Places(nn.Module):
    """Learned position vectors of right-aligned sequences: the last place is always number
    `length - 1`, whatever the padding.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.length = length
        self.vectors = Embedding(length, width)

    def forward(self, columns: int) -> Tensor:
        """`[columns, width]`."""
        return self.vectors.weight[self.length - columns :]


class Attention(nn.Module):
    """Multi-head scaled dot-product attention, softmax(Q K^T / sqrt(d_head)) V (Vaswani et al.
    2017, eq. 1).
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"the width must be a multiple of the number of heads; got width {width} and"
                f" {heads} heads"
            )
        self.heads, self.dropout = heads, dropout
        self.inputs = Linear(width, 3 * width)
        self.output = Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` `[B, L, width]`, `mask` `[B, 1, L, L]` True where looking is allowed ->
        `[B, L, width]`.
        """
        b, length, width = x.shape
        parts = (
            self.inputs(x)
            .view(b, length, 3, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        query, key, value = parts.unbind(0)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(b, length, width))
        return out


class Block(nn.Module):
    """A transformer block: attention, then a position-wise network of two linear maps, each within
    a residual connection.

    `norm="pre"`: x + dropout(f(norm(x))) (Kang & McAuley 2018, section III.B); `norm="post"`:
    norm(x + dropout(f(x))) (Vaswani et al. 2017, section 3.1).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        *,
        dropout: float = 0.0,
        activation: Activation = "relu",
        norm: Norm = "pre",
    ) -> None:
        super().__init__()
        self.pre = norm == "pre"
        self.attention = Attention(width, heads, dropout)
        self.first, self.second = Linear(width, inner), nn.Linear(inner, width)
        self.attention_norm, self.inner_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.activation = functional.relu if activation == "relu" else functional.gelu
        self.dropout = Dropout(dropout)

    def reader(self) -> BlockReader:
        """The block as it is served, with the weights of now."""
        from policies.unpadded import BlockReader

        attention, norms = self.attention, (self.attention_norm, self.inner_norm)
        return BlockReader(
            attention.inputs,
            attention.output,
            self.first,
            self.second,
            norms,
            self.activation,
            attention.heads,
            self.pre,
        )

    def _network(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.activation(self.first(x)))
        return out

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` `[B, L, width]`, `mask` `[B, 1, L, L]` -> `[B, L, width]`."""
        if self.pre:
            x = x + self.dropout(self.attention(self.attention_norm(x), mask))
            x = x + self.dropout(self._network(self.inner_norm(x)))
            return x
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        out: Tensor = self.inner_norm(x + self.dropout(self._network(x)))
        return out
