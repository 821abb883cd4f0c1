"""Which clusters items are told apart by: a column of the catalogue, or item vectors that a policy
has learned from a log.
"""

from __future__ import annotations

import numpy as np

from policies.base import Catalogue, IntArray, Policy, Retriever
from policies.clustering import spherical_clusters
from policies.streams import Purpose, uniform


def clusters_of(catalogue: Catalogue, name: str) -> IntArray:
    """Clusters `[n_items + 1]` of the items by a column of the catalogue: 1, 2, ...; 0 of no item.

    Raises:
        ValueError: no such column, or one that is no category.
    """
    there = sorted(
        key
        for key, column in catalogue.items.items()
        if column.ndim == 1 and column.dtype.kind in "iu"
    )
    if name not in there:
        has = f"the catalogue has {', '.join(there)}" if there else "the catalogue has none"
        raise ValueError(
            f"--clusters {name}: it must be a column of whole numbers of the items; {has}"
        )
    clusters = np.unique(catalogue.items[name], return_inverse=True)[1].astype(np.int64) + 1
    clusters[0] = 0
    return clusters


def clusters_by_vectors(name: str, policy: Policy, number: int, seed: int) -> IntArray:
    """Clusters `[n_items + 1]` of the items by what a policy has learned of them: spherical k-means
    of its item vectors; 1, 2, ..., none empty; 0 of no item.

    Args:
        name: of the policy, for complaints.
        policy: fitted.
        number: of clusters, at most.
        seed: of the first centres.

    Raises:
        ValueError: a policy without item vectors, or no cluster.
    """
    if number < 1:
        raise ValueError(f"--clusters {name}:{number}: the number of clusters must be 1 or more")
    if not isinstance(policy, Retriever):
        raise ValueError(
            f"--clusters {name}:{number}: the policy {name!r} has no item vectors (it is no"
            " `Retriever`); take one that has, such as bpr, or a column of the catalogue"
        )
    vectors = policy.item_vectors()[1:].astype(np.float64)
    noise = uniform(seed, Purpose.SPLIT, np.arange(len(vectors)), number)
    cluster = spherical_clusters(vectors, number, noise)
    known = np.unique(cluster, return_inverse=True)[1].astype(np.int64) + 1
    return np.concatenate(([0], known))
