"""The ranking stage between recall and the slate: a pointwise ranker fitted on the history, the
same for all arms.

It uses what a production ranker has: rates from the log and the user's recent impressions. It never
learns which policy recalled an item, and looks at no world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from policies.base import Catalogue, DoubleArray, FloatArray, Histories, IntArray, Sequences
from policies.elementary import exps, logs, logs1p
from policies.products import matmul, solve
from policies.stretches import collected, stretches

Array = npt.NDArray[Any]

STATIC = (
    "bias",
    "item click rate",
    "author click rate",
    "tag click rate",
    "item watch",
    "author watch",
    "item exposure",
    "duration",
    "duration^2",
)
"""Features of an item, from the log before; rates as log-odds, watch times as mean log(1 + s)."""

DYNAMIC = (
    "recent click rate",
    "tag affinity",
    "author affinity",
    "tag share",
    "since tag",
    "since author",
)
"""Features of a request and a candidate, from the request's own history."""

PRIOR = 20.0
"""Impressions' worth of the overall rate that smooth a rate (the posterior mean under a Beta prior
of this weight).
"""

RIDGE = 1.0
"""Ridge penalty on every coefficient but the bias."""

MAX_ROWS = 200_000
"""Impressions that coefficients are fitted on, at most: an even sample of the held-out part."""


@dataclass(frozen=True)
class Ranker:
    """Score = log P(click) + watch_weight * E[log(1 + watch)]: a weighted product of click
    probability and watch time.

    P(click) is a logistic regression, E[log(1 + watch)] a ridge regression, on the features of
    `STATIC` and `DYNAMIC`. The rates that enter the features are computed on the first two thirds
    of the history (by time) and the coefficients on the last third, so that an impression never
    explains itself; then the rates are computed again on all of it.

    Attributes:
        static: `[n_items + 1, len(STATIC)]`.
        author, tag: `[n_items + 1]` group of each item, 0 for padding.
        click, watch: `[len(STATIC) + len(DYNAMIC)]` coefficients.
        rate: the overall click rate.
        weight: of watch time against clicks.
        quality: `[2]` log loss of the held-out clicks, of the model and of the overall rate.
    """

    static: DoubleArray
    author: IntArray
    tag: IntArray
    click: DoubleArray
    watch: DoubleArray
    rate: float
    weight: float
    quality: DoubleArray

    @classmethod
    def fit(cls, history: Sequences, catalogue: Catalogue, window: int, weight: float) -> Self:
        """Fit on a logged history.

        Args:
            history: every user's impressions in time order; watch times in `columns["watch"]` where
                logged.
            catalogue: items' `duration`, `author` and `tag` as far as known.
            window: impressions of the past that a request brings (`serving.history`).
            weight: `serving.ranking.watch_weight`.
        """
        author, tag = (_groups(catalogue, name) for name in ("author", "tag"))
        cut = 0
        if len(history.t):
            times = collected(part.t for part in history.stretches())
            cut = np.quantile(times, 2 / 3, overwrite_input=True)
        is_early = collected(part.t < cut for part in history.stretches())
        early = _static(history.where(is_early), catalogue, author, tag)
        rate = _rate(history.clicked.sum(), len(history.clicked), 0.5)
        some = (rows for _, rows in stretches(history.offsets))
        rows = collected(rows.start + np.flatnonzero(~is_early[rows]) for rows in some)
        if len(rows) > MAX_ROWS:
            rows = rows[np.linspace(0, len(rows) - 1, MAX_ROWS).astype(np.int64)]
        x = _training_features(history, rows, window, early, author, tag, rate)
        y = history.clicked[rows].astype(np.float64)
        click = logistic(x, y)
        seconds = history.columns.get("watch")
        watch = np.zeros(x.shape[1])
        if seconds is not None and np.isfinite(seconds[rows]).any():
            known = np.isfinite(seconds[rows])
            watch = ridge(x[known], logs1p(seconds[rows][known].astype(np.float64)))
        elif weight > 0:
            weight = 0.0  # a log without watch times has nothing to weigh
        quality = np.array(
            [
                _log_loss(y, 1 / (1 + exps(-_times(x, click)))),
                _log_loss(y, np.full(len(y), y.mean() if len(y) else 0.5)),
            ]
        )
        return cls(
            _static(history, catalogue, author, tag),
            author,
            tag,
            click,
            watch,
            rate,
            weight,
            quality,
        )

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """Scores `[B, n]` of `items` `[B, n]`; -inf where there is none. Each row is computed on
        its own, in scalar code.
        """
        from simulator.serving import features

        out = np.full(items.shape, -np.inf, dtype=np.float32)
        coefficients = np.stack([self.click, self.watch])
        groups = np.stack([self.tag, self.author])
        features.score(
            histories.items,
            histories.clicked,
            items,
            self.static,
            groups,
            features.no_counts(groups),
            coefficients,
            self.rate,
            self.weight,
            out,
        )
        return out

    def state(self) -> dict[str, Array]:
        """All fields as arrays."""
        return {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def restore(cls, state: Mapping[str, Array]) -> Self:
        """The ranker whose `state` was given."""
        fields: dict[str, Any] = {name: np.array(state[name]) for name in cls.__dataclass_fields__}
        return cls(**{**fields, "rate": float(state["rate"]), "weight": float(state["weight"])})

    def figures(self) -> dict[str, float]:
        """Held-out log loss of clicks, and that of the overall rate."""
        return {"log loss": float(self.quality[0]), "base": float(self.quality[1])}


def impression_features(
    log: Sequences, rows: IntArray, before: Sequences, catalogue: Catalogue, window: int
) -> DoubleArray:
    """The features of logged impressions `[R, F]`, STATIC then DYNAMIC, each as it looked when its
    request came. The rates in them are of another log.

    Args:
        log: every user's impressions in time order.
        rows: `[R]` which of them.
        before: the log of the rates.
        catalogue: items' `duration`, `author` and `tag` as far as known.
        window: impressions of the past that a request brings.
    """
    author, tag = (_groups(catalogue, name) for name in ("author", "tag"))
    rate = _rate(before.clicked.sum(), len(before.clicked), 0.5)
    static = _static(before, catalogue, author, tag)
    return _training_features(log, rows, window, static, author, tag, rate)


def logistic(x: DoubleArray, y: DoubleArray) -> DoubleArray:
    """Ridge logistic regression by Newton's method (iteratively reweighted least squares; McCullagh
    & Nelder 1989, 2.5).

    Args:
        x: `[N, F]`, column 0 constant and not penalised.
        y: `[N]` 0 or 1.
    """
    beta = np.zeros(x.shape[1])
    penalty = np.full(x.shape[1], RIDGE)
    penalty[0] = 1e-6  # the level is free, and the matrix not singular where all answers are alike
    for _ in range(25):  # Newton takes six or so from 0; more where coefficients are huge
        p = 1 / (1 + exps(-np.clip(_times(x, beta), -30, 30)))
        gradient = _times(x.T, y - p) - penalty * beta
        hessian = _gram(x, p * (1 - p)) + np.diag(penalty)
        step = solve(hessian, gradient)
        beta = beta + step
        if np.abs(step).max() < 1e-8:
            break
    return beta


def ridge(x: DoubleArray, y: DoubleArray) -> DoubleArray:
    """Ridge regression (Hoerl & Kennard 1970); column 0 of `x` `[N, F]` is constant and not
    penalised.
    """
    penalty = np.full(x.shape[1], RIDGE)
    penalty[0] = 1e-6
    return solve(_gram(x, np.ones(len(x))) + np.diag(penalty), _times(x.T, y))


def _times(x: DoubleArray, v: DoubleArray) -> DoubleArray:
    """`x @ v`."""
    return matmul(x, v[:, None])[:, 0]


def _gram(x: DoubleArray, weight: DoubleArray) -> DoubleArray:
    """`x.T @ diag(weight) @ x`."""
    return matmul((x * weight[:, None]).T, x)


def _groups(catalogue: Catalogue, name: str) -> IntArray:
    """A per-item group as 0..n-1, `[n_items + 1]`; all the same where the catalogue lacks it."""
    column = catalogue.items.get(name)
    if column is None or np.ndim(column) != 1:
        return np.zeros(catalogue.n_items + 1, dtype=np.int64)
    return np.unique(np.asarray(column), return_inverse=True)[1].astype(np.int64)


def _rate(clicks: Any, shown: Any, prior: Any) -> Any:
    return (clicks + PRIOR * prior) / (shown + PRIOR)


def _static(log: Sequences, catalogue: Catalogue, author: IntArray, tag: IntArray) -> DoubleArray:
    """The STATIC features of every item, `[n_items + 1, len(STATIC)]`."""
    n = catalogue.n_items + 1
    shown, clicks, watched, watches = np.zeros((4, n))
    for part in log.stretches():
        shown += np.bincount(part.items, minlength=n)
        clicks += np.bincount(part.items[part.clicked], minlength=n)
        seconds = part.columns.get("watch")
        if seconds is not None:
            is_known = np.isfinite(seconds)
            items = part.items[is_known]
            np.add.at(watched, items, logs1p(seconds[is_known].astype(np.float64)))
            watches += np.bincount(items, minlength=n)
    overall = float(_rate(clicks.sum(), shown.sum(), 0.5))
    mean_watch = float(watched.sum() / max(watches.sum(), 1))
    by_author = _rate(_sum_by(author, clicks), _sum_by(author, shown), overall)
    by_tag = _rate(_sum_by(tag, clicks), _sum_by(tag, shown), overall)
    author_watch = _rate(_sum_by(author, watched), _sum_by(author, watches), mean_watch)
    item_rate = _rate(clicks, shown, by_author[author])
    duration = np.asarray(catalogue.items.get("duration", np.zeros(n)), dtype=np.float64)
    length = logs1p(np.maximum(duration, 0))
    columns = [
        np.ones(n),
        _logit(item_rate),
        _logit(by_author[author]),
        _logit(by_tag[tag]),
        _rate(watched, watches, author_watch[author]),
        author_watch[author],
        logs1p(shown) / 10,
        length,
        length**2 / 10,
    ]
    return np.stack(columns, axis=1)


def _sum_by(group: IntArray, values: Array) -> DoubleArray:
    return np.bincount(group, weights=values, minlength=int(group.max(initial=0)) + 1).astype(
        np.float64
    )


def _logit(p: DoubleArray) -> DoubleArray:
    result: DoubleArray = logs(p / (1 - p))
    return result


def _log_loss(y: DoubleArray, p: DoubleArray) -> float:
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return float(-(y * logs(p) + (1 - y) * logs(1 - p)).mean()) if len(y) else float("nan")


def _training_features(
    history: Sequences,
    rows: IntArray,
    window: int,
    static: DoubleArray,
    author: IntArray,
    tag: IntArray,
    rate: float,
) -> DoubleArray:
    """Features of the impressions `rows`, each as it looked when its request came: only impressions
    of earlier requests are past.
    """
    from simulator.serving import features

    starts = history.offsets[np.searchsorted(history.offsets, rows, side="right") - 1]
    out = np.empty((len(rows), len(STATIC) + len(DYNAMIC)))
    groups = np.stack([tag, author])
    features.logged(
        history.items,
        history.clicked,
        history.t,
        starts,
        rows,
        window,
        static,
        groups,
        features.no_counts(groups),
        rate,
        out,
    )
    return out
