"""Item vectors before training from the spectrum of the log: a truncated singular value
decomposition. No network lives here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from policies.base import Sequences
from policies.blocks import one_thread
from policies.train import seeded

SHRINK = 3.0
"""What is added to the square root of an item's users: how much rare items are held back."""

STD = 0.02
"""Standard deviation of all entries, that of the normal start which this one replaces."""


def spectral(known: Sequences, n_items: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """`V S` of the truncated singular value decomposition `U S V'` of who clicked what, as the
    vectors that training starts from.

    The matrix is `1 / sqrt(n_u) / (sqrt(n_i) + SHRINK)` where user u clicked item i. Its Gram
    matrix has `sum over shared users of 1 / n_u, over (sqrt(n_i) + SHRINK) (sqrt(n_j) + SHRINK)`:
    item-kNN's cosine (Deshpande & Karypis 2004), but that users of many clicks count less and
    SHRINK holds rare items back. So items that share users start side by side (latent semantic
    analysis: Deerwester et al. 1990; for recommendation PureSVD: Cremonesi et al., RecSys 2010). On
    few clicks an item's network would need many epochs to find its neighbours. The decomposition is
    randomised (Halko et al. 2011, algorithm 4.4), with one thread, so that it is the same
    everywhere.

    Args:
        known: whose clicks are looked at.
        n_items: items are 1..n_items.
        width: d.
        seed: of the randomised decomposition.

    Returns:
        The items that have a vector `[m]`, and their vectors `[m, min(d, m, users)]`. The others
        were not clicked.
    """
    clicks = known.clicks()
    row = np.repeat(np.arange(len(clicks)), np.diff(clicks.offsets))
    pair = np.unique(row * (n_items + 1) + clicks.items)
    user, item = pair // (n_items + 1), pair % (n_items + 1)
    users, items = np.unique(user, return_inverse=True)[1], np.unique(item)
    column = np.searchsorted(items, item)
    value = 1 / np.sqrt(np.bincount(users)[users]) / (np.sqrt(np.bincount(column)[column]) + SHRINK)
    shape = (int(users.max(initial=-1)) + 1, len(items))
    rank = min(width, *shape)
    if rank == 0:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0)
    place = torch.from_numpy(np.stack([users, column]))
    matrix = torch.sparse_coo_tensor(
        place, torch.from_numpy(value), shape, check_invariants=True
    ).coalesce()
    with one_thread(), seeded(seed, "spectral"):
        _, strength, right = torch.svd_lowrank(matrix, min(rank + 16, *shape), niter=6)
    vectors = right[:, :rank] * strength[:rank]
    return torch.from_numpy(items), (vectors / vectors.std().clamp(min=1e-12) * STD).float()
