"""GRU4Rec: recurrent session-based recommendation (Hidasi et al., ICLR 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from policies.affine import Affine
from policies.base import FloatArray, IntArray
from policies.dropout import Dropout
from policies.layers import Recurrent, initialise, is_served_compiled
from policies.operators import Embedding, Linear
from policies.sequence import SequenceNetwork, SequencePolicy


class GRU4RecNetwork(SequenceNetwork):
    """Item vectors, gated recurrent units, an output layer.

    h_t = (1 - z_t) h_(t-1) + z_t g_t with update gate z_t = s(W_z x_t + U_z h_(t-1)) (Hidasi et al.
    2016, eq. 2-3), candidate g_t = tanh(W x_t + U (r_t h_(t-1))) (eq. 4) and reset gate r_t = s(W_r
    x_t + U_r h_(t-1)) (eq. 5); here as torch's GRU, which applies r_t after U and has biases.
    """

    def __init__(self, n_items: int, policy: GRU4Rec) -> None:
        super().__init__(n_items, policy.width)
        self.dropout = Dropout(policy.dropout)
        self.recurrent = Recurrent(policy.width, policy.hidden, policy.layers, policy.dropout)
        self.output = Linear(policy.hidden, policy.width)
        self.outputs = None if policy.tied else Embedding(n_items + 1, policy.width, padding_idx=0)
        initialise(self, std=policy.width**-0.5)

    def forward(self, items: Tensor, user: Tensor) -> Tensor:
        """As `SequenceNetwork.forward`; the user is not looked at."""
        hidden: Tensor = self.output(self.recurrent(self.dropout(self.items(items)), items))
        return hidden

    def queries(self, items: IntArray, user: IntArray) -> FloatArray:
        """As `Network.queries`; on a CPU step by step, without padding."""
        if not is_served_compiled(self.items.weight):
            return super().queries(items, user)
        state = self.recurrent.last(self.items.weight.detach().numpy(), items)
        hidden = Affine.of(self.output.weight, self.output.bias)(state, len(items))
        return np.ascontiguousarray(hidden[: len(items), None, : self.output.out_features])

    def vectors(self) -> Tensor:
        """The input item vectors, or those of the output layer."""
        return self.items.weight if self.outputs is None else self.outputs.weight


@dataclass
class GRU4Rec(SequencePolicy):
    """GRU4Rec: the next item from the state of gated recurrent units.

    The paper trains by `top1` or `bpr` with negatives of the same batch; any loss may be chosen,
    negatives are drawn uniformly.

    Attributes:
        hidden: units of a layer.
        layers: of recurrent units.
        dropout: of the input vectors, and between layers.
        tied: score by the input item vectors; False: by those of an output layer of their own, as
            in the paper.
    """

    hidden: int = 100
    layers: int = 1
    dropout: float = 0.25
    tied: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "hidden", "layers")

    def network(self, n_users: int, n_items: int) -> GRU4RecNetwork:
        """An untrained GRU4Rec network."""
        return GRU4RecNetwork(n_items, self)
