"""BERT4Rec: bidirectional transformers trained to fill gaps (Sun et al., CIKM 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.base import Sequences
from policies.dropout import Dropout
from policies.layers import Block, Places, attention_mask, initialise
from policies.losses import Loss, Objective
from policies.operators import Linear
from policies.sequence import SequencePolicy, Windows
from policies.train import Training
from policies.vectors import Batch, Network


class BERT4RecNetwork(Network):
    """Item and position vectors (Sun et al. 2019, section 3.4), bidirectional blocks with
    normalisation after each sublayer (section 3.3), and the output GELU(h W^P + b^P) E^T + b^O (eq.
    7), E being the input item vectors.

    Item n_items + 1 is the mask.
    """

    def __init__(self, n_items: int, policy: BERT4Rec) -> None:
        super().__init__(n_items + 1, policy.width)
        self.mask = n_items + 1
        self.places = Places(policy.length, policy.width)
        self.dropout = Dropout(policy.dropout)
        self.norm = nn.LayerNorm(policy.width)
        self.blocks = nn.ModuleList(
            Block(
                policy.width,
                policy.heads,
                4 * policy.width,
                dropout=policy.dropout,
                activation="gelu",
                norm="post",
            )
            for _ in range(policy.blocks)
        )
        self.output = Linear(policy.width, policy.width)
        self.output_norm = nn.LayerNorm(policy.width)
        self.bias = nn.Parameter(torch.zeros(n_items + 1, 1))
        initialise(self)

    def forward(self, items: Tensor) -> Tensor:
        """Query vectors at every place, `[B, L, d + 1]`, of `items` `[B, L]` that may hold the
        mask; all places see each other.
        """
        x = self.dropout(self.norm(self.items(items) + self.places(items.shape[1])))
        mask = attention_mask(items, causal=False)
        for block in self.blocks:
            x = block(x, mask)
        return functional.pad(self.output_norm(functional.gelu(self.output(x))), (0, 1), value=1.0)

    def last(self, items: Tensor, user: Tensor) -> Tensor:
        """As `Network.last`: what stands at a mask after the last click (section 3.6)."""
        masked = functional.pad(items, (0, 1), value=self.mask)
        hidden: Tensor = self(masked)
        return hidden[:, -1:]

    def vectors(self) -> Tensor:
        """The items' vectors and biases, `[n_items + 1, d + 1]`; the mask is no item."""
        return torch.cat([self.items.weight[: self.mask], self.bias], dim=1)


@dataclass
class BERT4Rec(SequencePolicy):
    """BERT4Rec: the next item is the gap after the last click.

    Trained on the Cloze task (section 3.6, eq. 8): clicks are replaced by the mask at random, the
    loss is that of the replaced ones only; some sequences have only their last click replaced, as
    at serving. Needs many epochs (Petrov & Macdonald 2022).

    Attributes:
        length: places, one of them for the mask.
        blocks: of the transformer.
        heads: of a block.
        dropout: of embeddings, attention and networks.
        masked: share of the clicks that are replaced.
        last_only: share of the sequences with only the last click replaced (the authors' code: 1
            copy in 11).
    """

    loss: Loss = field(default_factory=lambda: Loss("softmax"))
    training: Training = field(default_factory=lambda: Training(epochs=300, patience=20))
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.2
    masked: float = 0.4
    last_only: float = 0.1

    on_examples: ClassVar[Mapping[str, Any]] = {
        "training": Training(epochs=100, patience=0, batch=32, rate=0.003)
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(2, "length")
        self.at_least(1, "blocks", "heads")
        if not 0 < self.masked < 1 or not 0 <= self.last_only <= 1:
            raise ValueError(
                "'masked' of BERT4Rec must be within (0, 1), 'last_only' within 0..1; got"
                f" {self.masked}, {self.last_only}"
            )

    def network(self, n_users: int, n_items: int) -> BERT4RecNetwork:
        """An untrained BERT4Rec network."""
        return BERT4RecNetwork(n_items, self)

    def reads(self) -> int:
        """All places but the mask's."""
        return self.length - 1

    def samples(self, log: Sequences) -> Windows:
        """Windows whose inputs and last target together fill the places."""
        return Windows(log, self.length - 1, self.windows)

    def batch_loss(self, network: BERT4RecNetwork, batch: Batch, objective: Objective) -> Tensor:
        """The loss of the replaced clicks; every sequence has at least one."""
        items = torch.cat([batch.items, batch.targets[:, -1:]], dim=1)
        at_last = torch.zeros_like(items, dtype=torch.bool)
        at_last[:, -1] = True
        gaps = (torch.rand(items.shape, device=items.device) < self.masked) & (items != 0)
        only = (torch.rand(len(items), 1, device=items.device) < self.last_only) | ~gaps.any(
            1, keepdim=True
        )
        gaps = torch.where(only, at_last, gaps)
        hidden = network(items.masked_fill(gaps, network.mask))[gaps]
        return objective(
            hidden, network.vectors(), items[gaps], batch.row[:, None].expand_as(items)[gaps]
        )
