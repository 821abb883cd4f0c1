"""Ranks of thousands of weighted samples at once: what `tests` computes for one sample, on
counts.
"""

from __future__ import annotations

import numpy as np

from simulator.stats.moments import Floats
from simulator.stats.quantiles import by_unit, merged


def rank_sum_z(control: Floats, heads: Floats, treatment: Floats, tails: Floats) -> Floats:
    """z of the rank-sum test (Mann & Whitney 1947, corrected for ties): `heads` `[R, n]` of
    `control`, `tails` of `treatment`.

    Where both are the same answers, `control` may be `treatment`: then half of the work is saved.
    """
    ours, theirs = by_unit(tails), by_unit(heads)
    if control is treatment:
        values = control
    else:
        values, nothing = np.concatenate((control, treatment)), np.zeros_like(ours)
        ours, theirs = np.concatenate((nothing, ours)), np.concatenate((theirs, nothing))
    ours, theirs = merged(values, ours)[1], merged(values, theirs)[1]
    both = ours + theirs
    rank = np.cumsum(both, axis=0)
    rank -= (both - 1.0) / 2.0
    m, n = ours.sum(axis=0, dtype=np.float64), theirs.sum(axis=0, dtype=np.float64)
    total = m + n
    tied = np.einsum("kr,kr,kr->r", both, both, both) - total
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = m * n / 12.0 * (total + 1.0 - tied / (total * (total - 1.0)))
        z = (np.einsum("kr,kr->r", ours, rank) - m * (total + 1.0) / 2.0) / np.sqrt(variance)
        return np.asarray(np.where(variance > 0, z, np.nan))


def signed_rank_z(differences: Floats, positive: Floats, negative: Floats) -> Floats:
    """z of the signed-rank test (Wilcoxon 1945; zeros as in Pratt 1959, corrected for ties).

    `positive` `[R, n]` counts `differences` as they are, `negative` with their signs turned.
    """
    up, down = by_unit(positive), by_unit(negative)
    sign = (differences > 0)[:, None]
    values, both = merged(np.abs(differences), up + down)
    _, above = merged(
        np.abs(differences), np.where(sign, up, np.where((differences < 0)[:, None], down, 0.0))
    )
    rank = np.cumsum(both, axis=0)
    rank -= (both - 1.0) / 2.0
    n = both.sum(axis=0, dtype=np.float64)
    start = int(len(values) > 0 and values[0] == 0)
    zeros = both[0].astype(np.float64) if start else np.zeros(len(n))
    rest = both[start:]
    mean = (n * (n + 1.0) - zeros * (zeros + 1.0)) / 4.0
    variance = (
        n * (n + 1.0) * (2.0 * n + 1.0) - zeros * (zeros + 1.0) * (2.0 * zeros + 1.0)
    ) / 24.0
    variance = variance - (np.einsum("kr,kr,kr->r", rest, rest, rest) - rest.sum(axis=0)) / 48.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(
            np.where(
                variance > 0,
                (np.einsum("kr,kr->r", above, rank) - mean) / np.sqrt(variance),
                np.nan,
            )
        )
