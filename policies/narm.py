"""NARM: neural attentive session-based recommendation (Li et al., CIKM 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policies.dropout import Dropout
from policies.layers import AdditiveAttention, Recurrent, initialise
from policies.operators import Linear
from policies.sequence import SequenceNetwork, SequencePolicy


class NARMNetwork(SequenceNetwork):
    """A recurrent global encoder, an attentive local one, and a bilinear decoder.

    c_t^g = h_t (Li et al. 2017, eq. 5); alpha_tj = v . s(A1 h_t + A2 h_j) (eq. 8), not normalised;
    c_t^l = sum_j alpha_tj h_j (eq. 6); c_t = [c_t^g; c_t^l] (eq. 9); S_i = emb_i^T B c_t (eq. 10).
    The two encoders share their units, as in the authors' code.
    """

    def __init__(self, n_items: int, policy: NARM) -> None:
        super().__init__(n_items, policy.width)
        self.dropout, self.joint_dropout = Dropout(policy.dropout), Dropout(policy.joint_dropout)
        self.recurrent = Recurrent(policy.width, policy.hidden, 1, 0.0)
        self.query = Linear(policy.hidden, policy.hidden, bias=False)
        self.attention = AdditiveAttention(policy.hidden, bias=False)
        self.decoder = Linear(2 * policy.hidden, policy.width, bias=False)
        initialise(self, std=policy.width**-0.5)

    def forward(self, items: Tensor, user: Tensor) -> Tensor:
        """As `SequenceNetwork.forward`; the user is not looked at."""
        states = self.recurrent(self.dropout(self.items(items)), items)
        local = self.attention(states, self.query(states), items)
        hidden: Tensor = self.decoder(self.joint_dropout(torch.cat([states, local], dim=-1)))
        return hidden


@dataclass
class NARM(SequencePolicy):
    """NARM: the next item from the state of recurrent units and an attention over all states before
    it.

    The paper trains by `softmax`; any loss may be chosen.

    Attributes:
        hidden: recurrent units.
        dropout: of the input vectors.
        joint_dropout: of the joint representation [c^g; c^l].
    """

    hidden: int = 100
    dropout: float = 0.25
    joint_dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "hidden")

    def network(self, n_users: int, n_items: int) -> NARMNetwork:
        """An untrained NARM network."""
        return NARMNetwork(n_items, self)
