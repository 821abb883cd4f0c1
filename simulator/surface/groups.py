"""Clusters of users by what they clicked: users who learn of the same items stand together."""

from __future__ import annotations

import numpy as np

from policies.base import Catalogue, DoubleArray, IntArray, Sequences
from policies.elementary import logs1p
from policies.products import matmul
from policies.streams import Purpose, uniform

ROUNDS = 20
"""Of k-means; it moves hardly a user in the last of them."""

FEATURES = ("tag", "author")
"""What clicks are counted by: the first that the catalogue has."""


def user_clusters(log: Sequences, catalogue: Catalogue, number: int, seed: int) -> IntArray | None:
    """The cluster of each user `[n_users]`, from 0 and none empty; None where nothing is known of
    the items that clicks could be counted by.

    Spherical k-means (Dhillon & Modha, Machine Learning 2001) of log(1 + clicks) by tag. Users
    without a click are dealt over the clusters.

    Args:
        log: every user's impressions before the A/B.
        catalogue: with a tag or author of each item.
        number: of clusters, at most.
        seed: of the first centres and of the dealing.
    """
    known = [name for name in FEATURES if np.ndim(catalogue.items.get(name, 0)) == 1]
    if not known:
        return None
    column = np.asarray(catalogue.items[known[0]])
    names, group = np.unique(column, return_inverse=True)
    clicks = log.clicks()
    user = np.repeat(np.arange(len(clicks)), np.diff(clicks.offsets))
    cell = user * len(names) + group[clicks.items]
    count = np.bincount(cell, minlength=len(clicks) * len(names)).reshape(len(clicks), -1)
    vectors = _unit(logs1p(count.astype(np.float64)))
    noise = uniform(seed, Purpose.ASSIGN, np.arange(len(clicks)), 3)
    cluster = np.argsort(np.argsort(noise, kind="stable")) % number
    who = np.flatnonzero(count.sum(axis=1))
    centres = vectors[who[np.argsort(noise[who], kind="stable")[:number]]]
    for _ in range(ROUNDS):
        if not len(who):
            break
        cluster[who] = matmul(vectors[who], centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, cluster[who], vectors[who])
        has_users = sums.any(axis=1, keepdims=True)
        centres = np.where(has_users, _unit(sums), centres)
    return np.unique(cluster, return_inverse=True)[1].astype(np.int64)


def _unit(vectors: DoubleArray) -> DoubleArray:
    length = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    out: DoubleArray = vectors / np.where(length > 0, length, 1.0)
    return out
