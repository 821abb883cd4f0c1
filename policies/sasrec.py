"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from policies.base import PADDING, FloatArray, IntArray
from policies.dropout import Dropout
from policies.layers import (
    Activation,
    Block,
    Norm,
    Places,
    attention_mask,
    initialise,
    is_served_compiled,
)
from policies.sequence import SequenceNetwork, SequencePolicy
from policies.train import Training
from policies.unpadded import GainAndShift, embed

TOGETHER = 32
"""Histories that are read together when served: their tokens stay in the cache."""


class SASRecNetwork(SequenceNetwork):
    """Item and position vectors, causal self-attention blocks, the hidden vector after each place.

    E_i = M_i + P_i (eq. 1), S = softmax(Q K^T / sqrt(d)) V (eq. 2), F = ReLU(S W1 + b1) W2 + b2
    (eq. 4), within g'(x) = x + dropout(g(norm(x))) (section III.B); r_i = F . M_i with item vectors
    shared with the input (eq. 6).
    """

    def __init__(self, n_items: int, policy: SASRec) -> None:
        super().__init__(n_items, policy.width)
        self.places = Places(policy.length, policy.width)
        inner = policy.inner or policy.width
        self.blocks = nn.ModuleList(
            Block(
                policy.width,
                policy.heads,
                inner,
                dropout=policy.dropout,
                activation=policy.activation,
                norm=policy.norm,
            )
            for _ in range(policy.blocks)
        )
        self.norm = nn.LayerNorm(policy.width)
        self.norm_first = policy.norm == "post"
        self.dropout = Dropout(policy.dropout)
        initialise(self)

    def forward(self, items: Tensor, user: Tensor) -> Tensor:
        """As `SequenceNetwork.forward`; the user is not looked at."""
        return self.encode(items, causal=True)

    def encode(
        self, items: Tensor, *, causal: bool, instead: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Hidden vectors `[B, L, d]` of `items` `[B, L]`.

        Args:
            items: right-aligned, 0 = padding.
            causal: no place sees a later one; else every place sees all.
            instead: (`[B, L]` bool, `[d]`): places whose item is replaced by a vector; or None.
        """
        x = self.items(items)
        if instead is not None:
            x = torch.where(instead[0][:, :, None], instead[1], x)
        x = x + self.places(items.shape[1])
        x = self.dropout(self.norm(x) if self.norm_first else x)
        mask = attention_mask(items, causal=causal)
        for block in self.blocks:
            x = block(x, mask)
        hidden: Tensor = x if self.norm_first else self.norm(x)
        return hidden

    def queries(self, items: IntArray, user: IntArray) -> FloatArray:
        """As `Network.queries`; on a CPU without padding, and of the last block the last place
        alone.
        """
        if not is_served_compiled(self.items.weight):
            return super().queries(items, user)
        n, length = items.shape
        norm = GainAndShift.of(self.norm)
        tables = tuple(t.weight.detach().numpy() for t in (self.items, self.places.vectors))
        readers = []
        for block in self.blocks:
            assert isinstance(block, Block)
            readers.append(block.reader())
        is_read = items != PADDING
        is_read[:, -1] = True  # an empty history is padding at the last place
        offsets = np.concatenate(([0], is_read.sum(axis=1).cumsum()))
        column = np.nonzero(is_read)[1] + self.places.length - length
        indices = np.stack([items[is_read], column])
        hidden = np.empty((n, 1, self.norm.normalized_shape[0]), dtype=np.float32)
        for start in range(0, n, TOGETHER):
            begins = offsets[start : start + TOGETHER + 1]
            tokens = np.ascontiguousarray(indices[:, begins[0] : begins[-1]])
            begins = begins - begins[0]
            x = embed(tables, tokens, norm if self.norm_first else None)
            for reader in readers[:-1]:
                x = reader.whole(x, begins)
            rows = len(begins) - 1
            x = readers[-1].last(x, begins)
            x = x if self.norm_first else norm(x, rows)
            hidden[start : start + rows, 0] = x[:rows]
        return hidden


@dataclass
class SASRec(SequencePolicy):
    """SASRec: the next item from causal self-attention over the clicks.

    Defaults are the paper's (two blocks, one head, dropout .5, binary cross-entropy with one
    negative at every position); the width is that of the RecGPT tables.

    A small log has few batches in an epoch, and an epoch then adds less to the validation than the
    validation's own noise. With 1,000 users (four batches) a patience of 10 stopped one seed of
    four at HR@10 .195 and one at .257, where all 100 epochs reach .300 and .308. So it waits 20
    epochs.

    Attributes:
        blocks: attention blocks.
        heads: of a block.
        inner: width of a block's position-wise network; 0 = `width`.
        dropout: of embeddings, attention and networks.
        activation: of the position-wise network.
        norm: `pre`, normalise what enters a sublayer and the end (the paper); `post`, normalise the
            embedding and what leaves a sublayer (as in S3-Rec's and RecBole's SASRec).
    """

    training: Training = field(default_factory=lambda: Training(patience=20))
    blocks: int = 2
    heads: int = 1
    inner: int = 0
    dropout: float = 0.5
    activation: Activation = "relu"
    norm: Norm = "pre"

    def network(self, n_users: int, n_items: int) -> SASRecNetwork:
        """An untrained SASRec network."""
        return SASRecNetwork(n_items, self)
