"""Spherical k-means: directions that point the same way stand together."""

from __future__ import annotations

import numpy as np

from policies.base import DoubleArray, IntArray
from policies.products import matmul

ROUNDS = 20
"""Of the algorithm; it moves hardly a vector in the last of them."""


def spherical_clusters(vectors: DoubleArray, number: int, noise: DoubleArray) -> IntArray:
    """Spherical k-means (Dhillon & Modha, Machine Learning 2001): each vector joins the centre of
    least angle, and a centre is the direction of the sum of its vectors.

    Args:
        vectors: `[N, D]`; their lengths do not matter, and none is 0.
        number: of clusters, at most.
        noise: `[N]`, by which the first centres are drawn: the vectors where it is least.

    Returns:
        The cluster of each vector `[N]`, from 0; one may be empty.
    """
    rows = _units(vectors)
    centres = rows[np.argsort(noise, kind="stable")[:number]]
    cluster = np.zeros(len(rows), dtype=np.int64)
    for _ in range(ROUNDS if len(rows) else 0):
        cluster = matmul(rows, centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, cluster, rows)
        has_any = sums.any(axis=1, keepdims=True)
        centres = np.where(has_any, _units(sums), centres)
    return cluster


def _units(vectors: DoubleArray) -> DoubleArray:
    """The vectors `[N, D]` with length 1; 0 stays 0."""
    length = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    out: DoubleArray = vectors / np.where(length > 0, length, 1.0)
    return out
