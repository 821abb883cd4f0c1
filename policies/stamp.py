"""STAMP: short-term attention and memory priority (Liu et al., KDD 2018)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from policies.layers import AdditiveAttention, initialise, running_sum
from policies.operators import Linear
from policies.sequence import SequenceNetwork, SequencePolicy
from policies.train import Training


class STAMPNetwork(SequenceNetwork):
    """The session's memory under an attention that the last click drives, times the last click.

    Liu et al. 2018, "The STMP model": m_s = mean of x_1 .. x_t, m_t = x_t; h_s = tanh(W_s m_s +
    b_s), h_t = tanh(W_t m_t + b_t); the score is the trilinear product <h_s, h_t, x_i>, without the
    logistic function that the paper puts between it and the softmax. "The STAMP model" puts m_a =
    sum_i alpha_i x_i in the place of m_s in h_s, alpha_i = W0 s(W1 x_i + W2 x_t + W3 m_s + b_a),
    not normalised.
    """

    def __init__(self, n_items: int, policy: STAMP) -> None:
        super().__init__(n_items, policy.width)
        width = policy.width
        self.last_click = Linear(width, width, bias=False)
        self.memory = Linear(width, width, bias=False)
        self.attention = AdditiveAttention(width, bias=True)
        self.session, self.recent = Linear(width, width), nn.Linear(width, width)
        initialise(self, std=policy.std)

    def forward(self, items: Tensor, user: Tensor) -> Tensor:
        """As `SequenceNetwork.forward`; the user is not looked at."""
        x = self.items(items)
        mean = running_sum(x) / (items != 0).cumsum(1).clamp(min=1)[:, :, None]
        attended = self.attention(x, self.last_click(x) + self.memory(mean), items)
        return torch.tanh(self.session(attended)) * torch.tanh(self.recent(x))


@dataclass
class STAMP(SequencePolicy):
    """STAMP: the next item from the last click and an attention over the clicks before it.

    The paper trains by `softmax`; any loss may be chosen. It draws item vectors from N(0, .002^2)
    and weights from N(0, .05^2), as RecBole does; here all are drawn from N(0, .1^2), because a
    product of two tanh of such small vectors starts without a gradient to speak of. So drawn, STAMP
    reaches HR@10 .0274 on Beauty (three seeds, one-negative cross-entropy; docs/results.md) where
    the RecGPT paper's row has .0114; the paper's start was not measured.

    A product of two small factors starts slowly: where an epoch is a few batches, ten epochs
    without a better validation are the start itself. With 300 users a patience of 10 stopped both
    seeds at chance (NDCG@10 .007 and .010, chance .006); with 30, 400 users had .022 after thirty
    epochs and rose on. So it waits 30 epochs.

    Attributes:
        std: standard deviation of the initial item vectors and weights; the paper has two.
    """

    training: Training = field(default_factory=lambda: Training(patience=30))
    std: float = 0.1

    def network(self, n_users: int, n_items: int) -> STAMPNetwork:
        """An untrained STAMP network."""
        return STAMPNetwork(n_items, self)
