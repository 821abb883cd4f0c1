"""How well an offline figure of many policies foretells the lift that the same policies get online:
order, correlation, error, and what is lost by taking its pick.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from policies.base import DoubleArray
from simulator.offpolicy.offline_figure import Figure
from simulator.offpolicy.online import Online, lost_by
from simulator.stats.moments import relative


@dataclass(frozen=True)
class FigurePoint:
    """An offline figure of one policy: value (NaN: it could not be had), standard error and the
    word of its verdict.
    """

    value: float
    error: float
    verdict: str


@dataclass(frozen=True)
class Agreement:
    """How well one offline figure foretells the online lift.

    Attributes:
        figure: its name.
        policies: for how many it could be had.
        usable: for how many of them its own verdict is not `unusable`.
        pairs: pairs of policies whose online difference is proven (95% interval of the difference,
            by user, without 0).
        ordered: share of these pairs that the figure puts in the right order, ties counting half; a
            coin gets one half.
        ordered_error: its standard error, each policy left out in turn (jackknife: pairs that share
            a policy are dependent).
        rho, low, high: Spearman's rank correlation with the true lift, and its 95% interval over
            the noise of both sides (users resampled online; the figure's own standard error
            offline). Of these policies, not of all there might be.
        new_low, new_high: 95% interval for policies of which these are a sample (Bonett & Wright,
            Psychometrika 2000: its width shrinks as 1 / sqrt(policies - 3)).
        p: two-sided, by permutations of the policies.
        kendall: tau-b.
        error: root mean squared relative error against the true reward per request; NaN where it
            does not claim to be that.
        covered: for how many policies the figure's interval held the truth.
        pick: the policy that the figure puts first.
        tied: those that its own error does not let stand behind `pick`.
        doubts: why its verdict on `pick` is no better.
        regret: online lift of the best policy less that of `pick`, a fraction, as measured: too
            high on average, since the best was chosen by its luck, too.
        lost, lost_low, lost_high: the same, corrected for that, with its 95% interval
            (`stats.winners`); not below 0.
        p_adjusted: `p` by Holm over all figures; NaN until they are put together.
        points: the figure of each policy, in the order of the policies.
    """

    figure: str
    policies: int
    usable: int
    pairs: int
    ordered: float
    ordered_error: float
    rho: float
    low: float
    high: float
    new_low: float
    new_high: float
    p: float
    kendall: float
    error: float
    covered: int | None
    pick: str
    tied: tuple[str, ...]
    doubts: tuple[str, ...]
    regret: float
    lost: float
    lost_low: float
    lost_high: float
    p_adjusted: float
    points: tuple[FigurePoint, ...]


def agreement(figure: Figure, truth: Online, covers: Iterable[bool | None], seed: int) -> Agreement:
    """One offline figure against the truth."""
    from scipy.stats import kendalltau

    have = np.isfinite(figure.value)
    value, lift, resampled = figure.value[have], truth.lift[have], truth.resampled[have]
    random = np.random.Generator(np.random.Philox(key=seed))
    noise = random.standard_normal((resampled.shape[1], len(value))) * np.nan_to_num(
        figure.error[have]
    )
    rhos = _spearman(value + noise, resampled.T)
    known = rhos[np.isfinite(rhos)]
    rho = float(_spearman(value[None], lift[None])[0])
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    new_low, new_high = for_new_policies(rho, len(value))
    # 5,000 permutations: among 30 figures Holm asks the best for a p of .0017, which is known to
    # within .0006.
    shuffled = random.permuted(np.broadcast_to(lift, (5000, len(lift))), axis=1)
    p = float("nan")
    if np.isfinite(rho):
        p = float((np.abs(_spearman(value[None], shuffled)) >= abs(rho) - 1e-12).mean())
    pairs, ordered, ordered_error = _order(value, lift, resampled)
    biases = relative(truth.value[have], value)
    held = [bool(c) for c, h in zip(covers, have, strict=True) if h and c is not None]
    pick = figure.best
    return Agreement(
        figure=figure.name,
        policies=len(value),
        usable=sum(
            bool(h) and word != "unusable" for h, word in zip(have, figure.verdict, strict=True)
        ),
        pairs=pairs,
        ordered=ordered,
        ordered_error=ordered_error,
        rho=rho,
        low=float(low),
        high=float(high),
        new_low=new_low,
        new_high=new_high,
        p=p,
        kendall=(
            float(kendalltau(value, lift).statistic) if len(np.unique(value)) > 1 else float("nan")
        ),
        error=float(np.sqrt(np.square(biases).mean())) if figure.estimates else float("nan"),
        covered=sum(held) if figure.estimates else None,
        pick=truth.arms[pick],
        tied=tuple(truth.arms[other] for other in figure.tied(pick)),
        doubts=figure.reasons[pick] if figure.reasons else (),
        regret=float(np.nanmax(truth.lift) - truth.lift[pick]),
        **dict(zip(("lost", "lost_low", "lost_high"), lost_by(truth, pick), strict=True)),
        p_adjusted=float("nan"),
        points=tuple(
            FigurePoint(float(value), float(error), word)
            for value, error, word in zip(figure.value, figure.error, figure.verdict, strict=True)
        ),
    )


def for_new_policies(rho: float, n: int) -> tuple[float, float]:
    """95% interval of Spearman's correlation over `n` sampled policies (Bonett & Wright,
    Psychometrika 2000).
    """
    if n <= 3 or not np.isfinite(rho):
        return float("nan"), float("nan")
    half = 1.96 * np.sqrt((1 + rho**2 / 2) / (n - 3))
    # A perfect correlation would be infinite on Fisher's scale.
    z = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def _order(
    value: DoubleArray, lift: DoubleArray, resampled: DoubleArray
) -> tuple[int, float, float]:
    """Pairs whose online difference is proven, the share of them that `value` orders right, and its
    jackknife standard error.
    """
    n = len(value)
    low, high = np.nanquantile(resampled[:, None] - resampled[None, :], [0.025, 0.975], axis=2)
    proven = np.triu((low > 0) | (high < 0), 1)
    offline = np.sign(value[:, None] - value[None, :])
    online = np.sign(lift[:, None] - lift[None, :])
    right = np.where(proven, (offline == online) + 0.5 * (offline == 0), 0.0)
    count, total = int(proven.sum()), float(right.sum())
    if not count:
        return 0, float("nan"), float("nan")
    counts = count - proven.sum(axis=0) - proven.sum(axis=1)
    totals = total - right.sum(axis=0) - right.sum(axis=1)
    left_out = np.divide(totals, counts, out=np.full(n, np.nan), where=counts > 0)
    spread = np.nan
    if np.isfinite(left_out).any():
        spread = np.nansum(np.square(left_out - np.nanmean(left_out)))
    return count, total / count, float(np.sqrt((n - 1) / n * spread))


def _spearman(left: DoubleArray, right: DoubleArray) -> DoubleArray:
    """Spearman's rank correlation of each row of `left` with the same row of `right` (one row
    serves all), ties by mean ranks.
    """
    from scipy.stats import rankdata

    a, b = np.broadcast_arrays(rankdata(left, axis=1), rankdata(right, axis=1))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        out: DoubleArray = (a * b).sum(axis=1) / np.sqrt(
            np.square(a).sum(axis=1) * np.square(b).sum(axis=1)
        )
    return out
