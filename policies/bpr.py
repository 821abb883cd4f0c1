"""BPR: matrix factorisation by Bayesian personalised ranking (Rendle et al., UAI 2009)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from policies.base import IntArray, Sequences
from policies.layers import initialise
from policies.losses import Loss, Objective
from policies.train import Training
from policies.users import user_vectors
from policies.vectors import Batch, Network, VectorPolicy


class BPRNetwork(Network):
    """x_ui = <w_u, h_i> + b_i (Rendle et al. 2009, eq. of section 4.3.1, with an item bias);
    unknown users have w = 0.
    """

    def __init__(self, n_users: int, n_items: int, width: int, user_rows: int = 0) -> None:
        super().__init__(n_items, width)
        self.users = user_vectors(n_users, width, user_rows)
        self.bias = nn.Parameter(torch.zeros(n_items + 1, 1))
        initialise(self, std=0.1)

    def last(self, items: Tensor, user: Tensor) -> Tensor:
        """The user's vector and a 1 for the bias, `[B, 1, d + 1]`; the history is not looked at."""
        return nn.functional.pad(self.users(user), (0, 1), value=1.0)[:, None]

    def vectors(self) -> Tensor:
        """The items' vectors and biases, `[n_items + 1, d + 1]`."""
        return torch.cat([self.items.weight, self.bias], dim=1)


class Clicks:
    """Every click is a sample: its user and its item (the triples' positive pairs; LearnBPR draws
    the negatives).
    """

    def __init__(self, clicks: Sequences) -> None:
        self.lengths = self.targets = np.ones(len(clicks.items), dtype=np.int64)
        self._clicks = clicks

    def batch(self, index: IntArray, device: str) -> Batch:
        """The clicks at `index`; `targets` is `[B, 1]`."""
        row = np.searchsorted(self._clicks.offsets, index, side="right") - 1
        arrays = (
            np.zeros((len(index), 0), dtype=np.int64),
            self._clicks.items[index][:, None],
            row,
            self._clicks.user[row] + 1,
        )
        return Batch(*(torch.from_numpy(array).to(device) for array in arrays))


@dataclass
class BPR(VectorPolicy):
    """BPR-MF: a vector for each user and item; a user's click should score higher than what the
    user never clicked.

    Maximises sum ln s(x_ui - x_uj) - lambda |Theta|^2 (BPR-Opt, section 4.1) over clicks (u, i)
    with items j drawn uniformly outside the user's own (LearnBPR, section 4.2), by Adam in place of
    plain gradient steps. lambda is `training.decay`, which is 0 unless it is set: by default
    nothing but early stopping holds Theta back. The order of clicks is not looked at; a user
    unknown to the log gets the items of largest bias.

    Attributes:
        user_rows: of the table into which users' vectors are hashed (`policies.users`); 0: a vector
            of each user's own.
    """

    user_rows: int = 0
    loss: Loss = field(default_factory=lambda: Loss("bpr"))
    training: Training = field(default_factory=lambda: Training(batch=2048, epochs=200))

    on_examples: ClassVar[Mapping[str, Any]] = {
        "training": Training(epochs=200, patience=0, rate=0.01)
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(0, "user_rows")

    def network(self, n_users: int, n_items: int) -> BPRNetwork:
        """Untrained user and item vectors."""
        return BPRNetwork(n_users, n_items, self.width, self.user_rows)

    def reads(self) -> int:
        """No clicks: the user alone counts."""
        return 0

    def samples(self, log: Sequences) -> Clicks:
        """All clicks."""
        return Clicks(log)

    def batch_loss(self, network: BPRNetwork, batch: Batch, objective: Objective) -> Tensor:
        """The loss of the users' clicks."""
        return objective(
            network.last(batch.items, batch.user)[:, 0],
            network.vectors(),
            batch.targets[:, 0],
            batch.row,
        )
