"""Ranks and quantiles of thousands of weighted samples at once: what `tests` and `quantiles` compute for one sample, on counts."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from simulator.stats.moments import Floats, Moments
from simulator.stats.quantiles import TIED
from simulator.stats.randomise import Outcomes

Counts = npt.NDArray[np.float32]
"""Counts of units in samples `[n, R]`: small whole numbers, so that half the memory suffices."""


def _by_unit(weights: Floats) -> Counts:
    return np.ascontiguousarray(weights.T, dtype=np.float32)


def merged(values: Floats, weights: Counts) -> tuple[Floats, Counts]:
    """Distinct values `[k]`, ascending, and their counts `[k, R]`, from `weights` `[n, R]`; samples are the last axis."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    sorted_weights = weights[order]
    return ordered[first], sorted_weights if len(first) == len(values) else np.add.reduceat(sorted_weights, first, axis=0)


def rank_sum_z(control: Floats, heads: Floats, treatment: Floats, tails: Floats) -> Floats:
    """z of the rank-sum test (Mann & Whitney 1947, corrected for ties): `heads` `[R, n]` of `control`, `tails` of `treatment`.

    Where both are the same answers, `control` may be `treatment`: then half of the work is saved.
    """
    ours, theirs = _by_unit(tails), _by_unit(heads)
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
    up, down = _by_unit(positive), _by_unit(negative)
    sign = (differences > 0)[:, None]
    values, both = merged(np.abs(differences), up + down)
    _, above = merged(np.abs(differences), np.where(sign, up, np.where((differences < 0)[:, None], down, 0.0)))
    rank = np.cumsum(both, axis=0)
    rank -= (both - 1.0) / 2.0
    n = both.sum(axis=0, dtype=np.float64)
    start = int(len(values) > 0 and values[0] == 0)
    zeros = both[0].astype(np.float64) if start else np.zeros(len(n))
    rest = both[start:]
    mean = (n * (n + 1.0) - zeros * (zeros + 1.0)) / 4.0
    variance = (n * (n + 1.0) * (2.0 * n + 1.0) - zeros * (zeros + 1.0) * (2.0 * zeros + 1.0)) / 24.0
    variance = variance - (np.einsum("kr,kr,kr->r", rest, rest, rest) - rest.sum(axis=0)) / 48.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(variance > 0, (np.einsum("kr,kr->r", above, rank) - mean) / np.sqrt(variance), np.nan))


def quantiles(values: Floats, weights: Counts, level: float) -> tuple[Floats, Floats]:
    """The `level` quantile and its Maritz-Jarrett error in every sample `[R]` of `weights` `[n, R]`; NaN with fewer than 10 a side."""
    distinct, counts = merged(values, weights)
    below = np.cumsum(counts, axis=0).astype(np.int32)
    n = below[-1]
    away = distinct - np.quantile(distinct, level)
    found, error = np.full(len(n), np.nan), np.full(len(n), np.nan)
    known = np.flatnonzero(n * min(level, 1.0 - level) >= 10)
    if not len(known):
        return found, error
    below, sizes = below[:, known], n[known]
    at = level * (sizes - 1.0)
    lower, upper = ((below <= edge.astype(np.int32)).sum(axis=0) for edge in (np.floor(at), np.ceil(at)))
    share = at - np.floor(at)
    found[known] = distinct[lower] * (1.0 - share) + distinct[upper] * share
    steps = np.stack([np.pad(_beta_steps(int(size), level), (0, int(sizes.max() - size)), mode="edge") for size in np.unique(sizes)])
    mass = np.diff(steps[np.searchsorted(np.unique(sizes), sizes), below], axis=0, prepend=0.0)
    mean = away @ mass
    error[known] = np.sqrt(np.maximum(np.square(away) @ mass - np.square(mean), 0.0))
    return found, error


@lru_cache(maxsize=1024)
def _beta_steps(n: int, level: float) -> npt.NDArray[np.float64]:
    """Distribution function of Beta(m, n - m + 1) at i / n, i = 0..n, m = n level + 1/2 rounded down (as in `quantiles`)."""
    from scipy.special import betainc

    m = int(n * level + 0.5)
    return np.asarray(betainc(m, n - m + 1, np.arange(n + 1) / n))


def quantile_pair(o: Outcomes, heads: Floats, tails: Floats, level: float, *, paired: bool) -> tuple[Moments, Moments]:
    """Moments of a quantile under the null and the effect, as `randomise.split_pair` and `paired_pair` make those of means."""
    c, t = o.control[0], o.treatment[0]
    up, down = _by_unit(heads), _by_unit(tails)
    if not paired:
        base = quantiles(c, up, level)
        null, effect = (_independent(base, quantiles(v, down, level)) for v in (c, t))
        return null, effect
    exchanged = np.concatenate((c, t)), np.concatenate((t, c))
    return _twins(*exchanged, np.concatenate((up, down)), level), _twins(c, t, up + down, level)


def _independent(control: tuple[Floats, Floats], treatment: tuple[Floats, Floats]) -> Moments:
    n = np.full(len(control[0]), np.inf)
    return Moments(control[0], treatment[0], np.square(control[1]), np.square(treatment[1]), 0.0, np.inf, n, n, False)


def _twins(control: Floats, treatment: Floats, weights: Counts, level: float) -> Moments:
    """Both quantiles of `weights` `[n, R]` twins, with the covariance that `simulator.stats.quantiles` describes."""
    (c, se_c), (t, se_t) = quantiles(control, weights, level), quantiles(treatment, weights, level)
    n = weights.sum(axis=0, dtype=np.float64)
    low_c, low_t = control[:, None] <= c, treatment[:, None] <= t
    p_c, p_t, both = (np.einsum("nr,nr->r", weights, low) / n for low in (low_c, low_t, low_c & low_t))
    tied = [np.einsum("nr,nr->r", weights, v[:, None] == q) / n for v, q in ((control, c), (treatment, t))]
    spread = np.sqrt(p_c * (1 - p_c) * p_t * (1 - p_t))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.clip((both - p_c * p_t) / spread, -1.0, 1.0)
        correlation = np.where((spread > 0) & (np.maximum(*tied) <= TIED), correlation, 0.0)
    return Moments(c, t, np.square(se_c), np.square(se_t), correlation * se_c * se_t, np.inf, n, n, True)
