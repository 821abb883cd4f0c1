"""Training on similar items beside the true ones, for sparse logs: soft targets and swapped inputs.
No network lives here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policies.base import Catalogue, Fitting, Params, Sequences
from policies.transitions import Transitions


@dataclass
class Smoothing(Params):
    """How much is trained on items that share users with the true ones (cosine,
    `policies.transitions`).

    Attributes:
        targets: share of a target's probability that goes to its neighbours, in proportion to their
            similarity: label smoothing (Szegedy et al. 2016) towards similar items instead of all.
        inputs: chance that an input is swapped for a neighbour, drawn in proportion to similarity
            (as "substitute" in CoSeRec, Liu et al. 2021).
        neighbours: of each item.
    """

    targets: float = 0.0
    inputs: float = 0.0
    neighbours: int = 8

    def __post_init__(self) -> None:
        if not (0 <= self.targets < 1 and 0 <= self.inputs < 1 and self.neighbours >= 1):
            raise ValueError(
                "'targets' and 'inputs' of a smoothing must be within [0, 1), 'neighbours' at"
                f" least 1; got {self.targets}, {self.inputs}, {self.neighbours}"
            )


class Neighbours:
    """Each item's most similar items `[n_items + 1, N]` and their weights, which sum to 1, or to 0
    for an item without any.
    """

    def __init__(self, smoothing: Smoothing, known: Sequences, n_items: int, device: str) -> None:
        self.smoothing = smoothing
        n = smoothing.neighbours
        similar = Transitions(neighbours=n).fit(known, Catalogue(0, n_items), Fitting()).similar_
        row = np.repeat(np.arange(n_items + 1), np.diff(similar.indptr))
        column = np.arange(len(row)) - similar.indptr[row]
        ids, weights = (
            np.zeros((n_items + 1, n), dtype=np.int64),
            np.zeros((n_items + 1, n), dtype=np.float32),
        )
        ids[row, column], weights[row, column] = similar.indices, similar.data
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
        self.ids, self.weights = (
            torch.from_numpy(ids).to(device),
            torch.from_numpy(weights).to(device),
        )

    def swap(self, tokens: Tensor) -> Tensor:
        """`tokens` `[B, L]` with some swapped for a neighbour."""
        chosen = (torch.rand(tokens.shape, device=tokens.device) < self.smoothing.inputs) & (
            self.weights[tokens].sum(-1) > 0
        )
        swapped = tokens.clone()
        if chosen.any():
            old = tokens[chosen]
            swapped[chosen] = self.ids[old, torch.multinomial(self.weights[old], 1)[:, 0]]
        return swapped

    def penalty(self, hidden: Tensor, vectors: Tensor, target: Tensor) -> Tensor:
        """What soft targets add to a softmax loss over hard ones.

        Cross-entropy is linear in the target distribution: with the share a on the neighbours' mean
        vector v' it is log sum_j exp(h . v_j) - (1 - a) h . v - a h . v', which is the hard one
        plus a h . (v - v').
        """
        weight = self.weights[target]
        around = torch.einsum("pn,pnd->pd", weight, vectors[self.ids[target]])
        gap = (hidden * (vectors[target] * weight.sum(1, keepdim=True) - around)).sum(1)
        return self.smoothing.targets * gap.mean()
