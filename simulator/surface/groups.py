"""Clusters of users by what they clicked: users who learn of the same items stand together."""

from __future__ import annotations

import numpy as np

from policies.base import Catalogue, IntArray, Sequences
from policies.clustering import spherical_clusters
from policies.elementary import logs1p
from policies.streams import Purpose, uniform

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
    vectors = logs1p(count.astype(np.float64))
    noise = uniform(seed, Purpose.ASSIGN, np.arange(len(clicks)), 3)
    cluster = np.argsort(np.argsort(noise, kind="stable")) % number
    who = np.flatnonzero(count.sum(axis=1))
    cluster[who] = spherical_clusters(vectors[who], number, noise[who])
    return np.unique(cluster, return_inverse=True)[1].astype(np.int64)
