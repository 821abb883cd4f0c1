"""Ranks and quantiles of thousands of weighted samples at once: what `tests` and `quantiles` compute for one sample, on counts."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from simulator.stats.moments import Floats, Moments
from simulator.stats.quantiles import TIED
from simulator.stats.randomise import Outcomes


def merged(values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Distinct values `[k]`, ascending, and their counts `[R, k]` in every sample."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return ordered[first], np.add.reduceat(weights[:, order], first, axis=1)


def rank_sum_z(control: Floats, heads: Floats, treatment: Floats, tails: Floats) -> Floats:
    """z of the rank-sum test (Mann & Whitney 1947, corrected for ties): `heads` `[R, n]` of `control`, `tails` of `treatment`."""
    values = np.concatenate((control, treatment))
    nothing = np.zeros_like(heads)
    _, ours = merged(values, np.concatenate((nothing, tails), axis=1))
    _, theirs = merged(values, np.concatenate((heads, nothing), axis=1))
    both = ours + theirs
    rank = np.cumsum(both, axis=1) - (both - 1.0) / 2.0
    m, n = ours.sum(axis=1), theirs.sum(axis=1)
    total = m + n
    tied = (both**3 - both).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = m * n / 12.0 * (total + 1.0 - tied / (total * (total - 1.0)))
        z = ((ours * rank).sum(axis=1) - m * (total + 1.0) / 2.0) / np.sqrt(variance)
        return np.asarray(np.where(variance > 0, z, np.nan))


def signed_rank_z(differences: Floats, weights: Floats) -> Floats:
    """z of the signed-rank test (Wilcoxon 1945; zeros as in Pratt 1959, corrected for ties): `weights` `[R, n]` of `differences`."""
    size = np.abs(differences)
    values, both = merged(size, weights)
    _, positive = merged(size, weights * (differences > 0))
    rank = np.cumsum(both, axis=1) - (both - 1.0) / 2.0
    n = both.sum(axis=1)
    zeros = both[:, 0] if len(values) and values[0] == 0 else np.zeros(len(n))
    nonzero = both[:, 1:] if len(values) and values[0] == 0 else both
    mean = (n * (n + 1.0) - zeros * (zeros + 1.0)) / 4.0
    variance = (n * (n + 1.0) * (2.0 * n + 1.0) - zeros * (zeros + 1.0) * (2.0 * zeros + 1.0)) / 24.0
    variance = variance - (nonzero**3 - nonzero).sum(axis=1) / 48.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(variance > 0, ((positive * rank).sum(axis=1) - mean) / np.sqrt(variance), np.nan))


def quantiles(values: Floats, weights: Floats, level: float) -> tuple[Floats, Floats]:
    """The `level` quantile and its Maritz-Jarrett standard error in every sample, `[R]` and `[R]`; NaN where a side has fewer than 10."""
    distinct, counts = merged(values, weights)
    below = np.cumsum(counts, axis=1).astype(np.int64)
    n = below[:, -1]
    found, error = np.full(len(n), np.nan), np.full(len(n), np.nan)
    for size in np.unique(n[n * min(level, 1.0 - level) >= 10]).tolist():
        rows = np.flatnonzero(n == size)
        cumulative = below[rows]
        at = level * (size - 1)
        lower, upper = ((cumulative <= int(edge)).sum(axis=1) for edge in (np.floor(at), np.ceil(at)))
        share = at - np.floor(at)
        found[rows] = distinct[lower] * (1.0 - share) + distinct[upper] * share
        mass = np.diff(_beta_steps(size, level)[cumulative], axis=1, prepend=0.0)
        away = distinct - np.quantile(distinct, level)
        mean = mass @ away
        error[rows] = np.sqrt(np.maximum(mass @ np.square(away) - np.square(mean), 0.0))
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
    if not paired:
        base = quantiles(c, heads, level)
        null, effect = (_independent(base, quantiles(v, tails, level)) for v in (c, t))
        return null, effect
    crossed, straight = (np.concatenate((c, t)), np.concatenate((t, c))), (c, t)
    return (
        _twins(crossed[0], crossed[1], np.concatenate((heads, tails), axis=1), level),
        _twins(straight[0], straight[1], heads + tails, level),
    )


def _independent(control: tuple[Floats, Floats], treatment: tuple[Floats, Floats]) -> Moments:
    n = np.full(len(control[0]), np.inf)
    return Moments(control[0], treatment[0], np.square(control[1]), np.square(treatment[1]), 0.0, np.inf, n, n, False)


def _twins(control: Floats, treatment: Floats, weights: Floats, level: float) -> Moments:
    (c, se_c), (t, se_t) = quantiles(control, weights, level), quantiles(treatment, weights, level)
    n = weights.sum(axis=1)
    low_c, low_t = control[None, :] <= c[:, None], treatment[None, :] <= t[:, None]
    p_c, p_t, both = ((weights * low).sum(axis=1) / n for low in (low_c, low_t, low_c & low_t))
    spread = np.sqrt(p_c * (1 - p_c) * p_t * (1 - p_t))
    with np.errstate(divide="ignore", invalid="ignore"):
        tied = [(weights * (v[None, :] == q[:, None])).sum(axis=1) / n for v, q in ((control, c), (treatment, t))]
        correlation = np.where((spread > 0) & (np.maximum(*tied) <= TIED), np.clip((both - p_c * p_t) / spread, -1.0, 1.0), 0.0)
    return Moments(c, t, np.square(se_c), np.square(se_t), correlation * se_c * se_t, np.inf, n, n, True)
