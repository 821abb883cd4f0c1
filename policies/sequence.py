"""The base of all next-item models: clicks as training windows, a hidden vector after each place,
every target in one pass.

What holds for all policies of query and item vectors is in `vectors`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from policies.base import IntArray, Sequences, right_aligned
from policies.losses import Objective
from policies.vectors import Batch, Network, VectorPolicy


class SequenceNetwork(Network):
    """A network with a hidden vector after each place of a history; the last one is the query
    vector.
    """

    @abstractmethod
    def forward(self, items: Tensor, user: Tensor) -> Tensor:
        """The hidden vector after each place, seeing no later one.

        Args:
            items: `[B, L]` right-aligned, 0 = padding.
            user: `[B]` user id + 1, 0 = unknown.

        Returns:
            `[B, L, d]`; what stands at padding is never used.
        """

    def last(self, items: Tensor, user: Tensor) -> Tensor:
        """As `Network.last`, `[B, 1, d]`."""
        hidden: Tensor = self(items, user)
        return hidden[:, -1:]


def pieces(
    n: IntArray, length: int, cut: Literal["last", "all"]
) -> tuple[IntArray, IntArray, IntArray]:
    """Rows of `n` `[U]` places cut into pieces of at most `length`, counted from the end.

    Args:
        n: may be 0.
        length: of a piece, at least 1.
        cut: `last`: a row's last piece. `all`: consecutive pieces, the last one first.

    Returns:
        Of each piece `[P]` its row, how many places of the row come after it, and how long it is.
    """
    count = -(-n // length) if cut == "all" else np.minimum(n, 1)
    row = np.repeat(np.arange(len(n)), count)
    after = length * (np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count))
    return row, after, np.minimum(n[row] - after, length)


class Windows:
    """Pieces of the users' click sequences, of at most `length` inputs and as many targets.

    `last`: each user's last `length + 1` clicks. `all`: consecutive pieces, cut from the end, so
    that every click but a user's first is a target once.
    """

    def __init__(self, clicks: Sequences, length: int, cut: Literal["last", "all"]) -> None:
        targets = np.maximum(np.diff(clicks.offsets) - 1, 0)
        self.row, after, self.lengths = pieces(targets, length, cut)
        self.end, self.targets = clicks.offsets[1:][self.row] - after, self.lengths
        self._clicks = clicks

    def batch(self, index: IntArray, device: str, width: int | None = None) -> Batch:
        """The windows at `index`, padded to the longest of them or to `width`."""
        items, end, n = self._clicks.items, self.end[index], self.lengths[index]
        row = self.row[index]
        arrays = (
            right_aligned(items, end - 1, n, width),
            right_aligned(items, end, n, width),
            row,
            self._clicks.user[row] + 1,
        )
        return Batch(*(torch.from_numpy(array).to(device) for array in arrays))


@dataclass
class SequencePolicy(VectorPolicy):
    """A policy that reads the clicks of a history one after another and predicts the next one.

    Attributes:
        length: clicks of a history that are read.
        windows: what of a longer sequence is trained on: the `last` clicks, or `all` in pieces.
    """

    length: int = 50
    windows: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "length")

    def reads(self) -> int:
        """`length` clicks."""
        return self.length

    def samples(self, log: Sequences) -> Windows:
        """Windows of the click sequences."""
        return Windows(log, self.length, self.windows)

    def batch_loss(self, network: Any, batch: Batch, objective: Objective) -> Tensor:
        """Every real target is predicted from the hidden vector before it; padding is never
        multiplied with item vectors.
        """
        valid = batch.targets != 0
        hidden = network(batch.items, batch.user)[valid]
        row = batch.row[:, None].expand_as(batch.targets)[valid]
        return objective(hidden, network.vectors(), batch.targets[valid], row)
