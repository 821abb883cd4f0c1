"""The vectors of users: one for each, or hashed into a table whose size does not grow with the
users. No model lives here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from policies.operators import Embedding
from policies.streams import Purpose, uniform2


def user_vectors(n_users: int, width: int, rows: int) -> Embedding:
    """From user + 1 `[...]`, 0 = unknown, to vectors `[..., d]`, 0 for the unknown.

    Args:
        n_users: users are 0..n_users-1.
        width: d.
        rows: of the table into which users are hashed; 0: a vector of his own for each user.
    """
    if rows:
        return HashedUsers(n_users, width, rows)
    return Embedding(n_users + 1, width, padding_idx=0)


class HashedUsers(Embedding):
    """A user's vector is the sum of two rows of a table, chosen by two keyed hashes of his number.

    Hash embeddings with weights of 1 (Svenstrup, Hansen & Winther, NeurIPS 2017; the hashing trick:
    Weinberger et al., ICML 2009): two users share a row with probability 4 / rows, and both rows
    with 2 / rows^2. The key is drawn with the weights, so that other fits have other collisions,
    and is part of the state, as the number of users is.
    """

    def __init__(self, n_users: int, width: int, rows: int) -> None:
        super().__init__(rows + 1, width, padding_idx=0)
        self.register_buffer("key", torch.randint(2**62, ()))
        self.register_buffer("n_users", torch.tensor(n_users))
        self.key: Tensor

    def forward(self, index: Tensor) -> Tensor:
        """`[...]` -> `[..., d]`."""
        user = index.cpu().numpy()
        draws = np.stack(uniform2(int(self.key), Purpose.HASH, user))
        row = np.where(user > 0, 1 + (draws * (self.num_embeddings - 1)).astype(np.int64), 0)
        return super().forward(torch.from_numpy(row).to(index.device)).sum(0)
