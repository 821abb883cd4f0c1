"""Randomising again: both answers of every user in a paired run, and the moments of thousands of
samples drawn from them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.products import matmul
from simulator.stats import moments
from simulator.stats.adjustment import stratified
from simulator.stats.moments import Floats, Moments
from simulator.stats.predictions import cross_fitted
from simulator.stats.unit_table import TableError, keys_of, levels
from simulator.stats.user_days import UserDays

CELLS = 4_000_000
"""Weights held at once (repetitions x users x arms)."""

MANY = 16
"""Users per cell from which counts are drawn as such (multinomial) and not user by user."""

ROOM = 4
"""Users, or fits, of the population for each one of a sample, where the analysis leans on a smooth
distribution.
"""

PERMUTED = 1 << 22
"""Users up to which a sample of them is the beginning of a permutation."""

Pair = tuple[Moments, Moments]
"""Moments of the same samples under the null (both arms answer alike) and under the effect (each as
it did).
"""


@dataclass(frozen=True)
class Rate:
    """A share of repetitions with its 95% Monte-Carlo interval (Clopper & Pearson 1934)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int) -> Rate:
        from scipy.special import betaincinv

        if total == 0:
            return cls(np.nan, np.nan, np.nan)
        low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, 0.025))
        high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 0.975))
        return cls(count / total, low, high)

    def near(self, nominal: float, total: int, further: float = 0.0) -> bool:
        """Whether the rate is within three standard errors of `nominal`: that of Monte Carlo, and
        a `further` one from what the samples were drawn from. A rate that does not exist is not
        off.
        """
        error = np.sqrt(nominal * (1.0 - nominal) / total + further**2)
        return bool(np.isnan(self.value) or abs(self.value - nominal) <= 3.0 * error)


@dataclass(frozen=True)
class Outcomes:
    """Both answers of every user to one metric, whole and by day.

    Attributes:
        control, treatment: variables by arm: numerator and, for ratio metrics, denominator,
            `[1 or 2][users]`.
        control_days, treatment_days: the same by day, `[1 or 2][users, days]`; days without any
            denominator are left out.
        before: pre-period value `[users]`, or None.
        strata: number of each user's stratum (activity before the test) `[users]`, or None.
        features: what is known of users before the test `[users, p]`; None where nothing is.
    """

    metric: str
    arm: str
    control: tuple[Floats, ...]
    treatment: tuple[Floats, ...]
    control_days: tuple[Floats, ...]
    treatment_days: tuple[Floats, ...]
    before: Floats | None
    strata: npt.NDArray[np.int64] | None = None
    features: Floats | None = None

    @property
    def means(self) -> tuple[float, float]:
        """The population's mean (or ratio of sums; NaN of nothing) under the control and the
        treatment.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            control, treatment = (
                float(v[0].sum() / (v[1].sum() if len(v) == 2 else len(v[0])))
                for v in (self.control, self.treatment)
            )
        return control, treatment

    @property
    def lift(self) -> float:
        """The true relative lift of the population."""
        return float(moments.relative(*self.means))

    def planted(self, lift: float) -> Outcomes:
        """The same users with treatment numerators scaled so that the true lift is exactly
        `lift`.
        """
        # Of a loss, a positive lift makes the treatment's mean smaller in size.
        sign = np.sign(self.means[0])
        scale = (1.0 + sign * lift) / (1.0 + sign * self.lift)
        whole, parts = ((v[0] * scale, *v[1:]) for v in (self.treatment, self.treatment_days))
        return replace(self, treatment=whole, treatment_days=parts)

    def winsorised(self, share: float) -> Outcomes:
        """The same users with the largest `share` of all sums of both arms cut to one bound."""
        both = np.concatenate((self.control[0], self.treatment[0]))
        at = len(both) - 1 - int(share * len(both))
        bound = np.partition(both, at)[at]
        cut = ((np.minimum(v[0], bound), *v[1:]) for v in (self.control, self.treatment))
        control, treatment = cut
        return replace(self, control=control, treatment=treatment)

    @property
    def bottom(self) -> int | None:
        """Column of the denominator."""
        return 1 if len(self.control) == 2 else None


def outcomes(days: UserDays, control: str, treatment: str, metric: str) -> Outcomes:
    """Both answers of every user.

    Raises:
        TableError: the run is not paired, or the metric has no data.
    """
    if days.assigned is not None or days.switched is not None:
        raise TableError(
            "an audit needs both answers of every user: run the scenario with `design: {kind:"
            " paired}`"
        )
    table, daily = days.by("user"), days.by("user-day")
    past = table.covariates.get(metric)
    whole, parts = {}, {}
    for arm in (control, treatment):
        whole[arm] = tuple(v for v in table.sums(metric, arm) if v is not None)
        parts[arm] = tuple(
            v.reshape(days.n_users, -1) for v in daily.sums(metric, arm) if v is not None
        )
    if len(parts[control]) == 2:
        some = (parts[control][1].sum(axis=0) > 0) | (parts[treatment][1].sum(axis=0) > 0)
        parts = {arm: tuple(v[:, some] for v in both) for arm, both in parts.items()}
    varied = past if past is not None and np.ptp(past) > 0 else None
    group = table.groups.get("activity")
    strata = None if group is None else levels(group)[1]
    pasts = [column for column in table.covariates.values() if np.ptp(column) > 0]
    return Outcomes(
        metric,
        treatment,
        whole[control],
        whole[treatment],
        parts[control],
        parts[treatment],
        varied,
        strata,
        np.column_stack(pasts) if pasts else None,
    )


def population(n_users: int, most: int, seed: int) -> npt.NDArray[np.int64]:
    """The users that samples are drawn from, ascending: all, or `most` of them, by chance.

    Of up to PERMUTED users they are the first ones of a permutation; of more, Floyd's algorithm
    draws them without a list of all (Bentley & Floyd, "Programming pearls: a sample of brilliance",
    Communications of the ACM 1987). Any `most` of the users are as likely by both.
    """
    if n_users <= most:
        return np.arange(n_users)
    generator = np.random.default_rng(seed)
    if n_users <= PERMUTED:
        return np.sort(generator.permutation(n_users)[:most])
    return np.sort(generator.choice(n_users, most, replace=False, shuffle=False))


def draws(
    n_users: int, size: int, repetitions: int, seed: int, share: float = 0.5
) -> Iterator[tuple[Floats, Floats]]:
    """Samples of `size` users with replacement, a coin for each: counts of heads and of tails, each
    `[R, n_users]`, in chunks of R. `share`: of tails.
    """
    generator = np.random.default_rng([seed, size])
    chunk = max(1, CELLS // (2 * n_users))
    for start in range(0, repetitions, chunk):
        rows = min(chunk, repetitions - start)
        if share != 0.5:
            yield _unequal(generator, n_users, size, rows, share)
            continue
        if size > MANY * 2 * n_users:
            counts = (
                generator.multinomial(size, np.full(2 * n_users, 0.5 / n_users), rows)
                .reshape(rows, 2, n_users)
                .astype(np.float64)
            )
            yield counts[:, 0], counts[:, 1]
            continue
        cell = generator.integers(0, 2 * n_users, (rows, size), dtype=np.int64)
        cell += np.arange(rows)[:, None] * (2 * n_users)
        counts = (
            np.bincount(cell.ravel(), minlength=rows * 2 * n_users)
            .reshape(rows, 2, n_users)
            .astype(np.float64)
        )
        yield counts[:, 0], counts[:, 1]


def _unequal(
    generator: np.random.Generator, n_users: int, size: int, rows: int, share: float
) -> tuple[Floats, Floats]:
    """`draws` of a coin that is not fair."""
    sides = np.repeat(np.array([1.0 - share, share]) / n_users, n_users)
    counts = generator.multinomial(size, sides / sides.sum(), rows).astype(np.float64)
    return counts[:, :n_users], counts[:, n_users:]


def split_pair(o: Outcomes, heads: Floats, tails: Floats, adjusted: bool = False) -> Pair:
    """Heads are in the control, tails in the treatment; under the null these answer as the
    control.
    """
    extra = (o.before,) if adjusted and o.before is not None else ()
    covariates = range(len(o.control), len(o.control) + len(extra))
    control = moments.weighted((*o.control, *extra), heads)
    others = (moments.weighted((*answers, *extra), tails) for answers in (o.control, o.treatment))
    null, effect = (
        moments.split_moments(control, other, 0, o.bottom, covariates) for other in others
    )
    return null, effect


def predicted_pair(o: Outcomes, heads: Floats, tails: Floats) -> Pair:
    """As `split_pair`, adjusted for predictions that are made anew in every sample
    (`predictions.cross_fitted`): users who are drawn several times are in one fold.
    """
    null, effect = [], []
    for up, down in zip(heads[:, None], tails[:, None], strict=True):
        null.append(_predicted(o, o.control, up, down))
        effect.append(_predicted(o, o.treatment, up, down))
    return _stacked(null), _stacked(effect)


def _predicted(o: Outcomes, answers: tuple[Floats, ...], heads: Floats, tails: Floats) -> Moments:
    """One sample whose tails give these answers; counts are `[1, users]`."""
    assert o.features is not None
    drawn = [np.flatnonzero(counts[0]) for counts in (heads, tails)]
    users = np.concatenate(drawn)
    weights = np.concatenate([c[0, at] for c, at in zip((heads, tails), drawn, strict=True)])
    features, keys = o.features[users], keys_of(map(str, users.tolist()))
    columns = []
    for own, other in zip(o.control, answers, strict=True):
        target = np.concatenate((own[drawn[0]], other[drawn[1]]))
        found = cross_fitted(features, [False] * features.shape[1], target, keys, weights)
        by_user = np.zeros(len(own))
        by_user[users] = found
        columns.append(by_user)
    k = len(columns)
    control, treatment = (
        moments.weighted((*values, *columns), counts)
        for values, counts in ((o.control, heads), (answers, tails))
    )
    return moments.interacted_moments(control, treatment, 0, o.bottom, range(k, 2 * k))


def _stacked(parts: list[Moments]) -> Moments:
    """Moments of several samples as those of all of them."""
    numbers: dict[str, Any] = {
        one.name: np.concatenate([np.atleast_1d(getattr(m, one.name)) for m in parts])
        for one in fields(Moments)
        if not isinstance(getattr(parts[0], one.name), bool | str)
    }
    return Moments(**numbers, paired=False)


def stratified_pair(o: Outcomes, heads: Floats, tails: Floats) -> Pair:
    """As `split_pair`, with each arm's mean put together from the strata."""
    assert o.strata is not None
    members = [np.flatnonzero(o.strata == s) for s in range(int(o.strata.max()) + 1)]
    control = [moments.weighted([v[m] for v in o.control], heads[:, m]) for m in members]
    others = (
        [moments.weighted([v[m] for v in answers], tails[:, m]) for m in members]
        for answers in (o.control, o.treatment)
    )
    null, effect = (stratified(control, other, o.bottom) for other in others)
    return null, effect


def paired_pair(o: Outcomes, heads: Floats, tails: Floats) -> Pair:
    """Every user is in both arms; under the null, tails exchange a user's two answers."""
    k = len(o.control)
    at = ((0, o.bottom), (k, None if o.bottom is None else k + 1))
    both = [np.concatenate((c, t)) for c, t in zip(o.control, o.treatment, strict=True)]
    exchanged = [np.concatenate((t, c)) for c, t in zip(o.control, o.treatment, strict=True)]
    null = moments.weighted((*both, *exchanged), np.concatenate((heads, tails), axis=1))
    effect = moments.weighted((*o.control, *o.treatment), heads + tails)
    return moments.paired_moments(null, *at), moments.paired_moments(effect, *at)


def day_pair(o: Outcomes, heads: Floats, tails: Floats) -> Pair:
    """The day x arm table of the paired samples: means per user of each day, paired by day."""
    everyone = heads + tails
    null = _days(
        [
            matmul(heads, c) + matmul(tails, t)
            for c, t in zip(o.control_days, o.treatment_days, strict=True)
        ],
        [
            matmul(heads, t) + matmul(tails, c)
            for c, t in zip(o.control_days, o.treatment_days, strict=True)
        ],
    )
    return null, _days(
        [matmul(everyone, c) for c in o.control_days],
        [matmul(everyone, t) for t in o.treatment_days],
    )


def split_day_pair(o: Outcomes, heads: Floats, tails: Floats) -> Pair:
    """The day x arm table of the split samples: means per user of each arm and day, paired by
    day.
    """
    n, m = heads.sum(axis=1, keepdims=True), tails.sum(axis=1, keepdims=True)
    control = [matmul(heads, v) / n for v in o.control_days]
    null, effect = (
        _days(control, [matmul(tails, v) / m for v in answers])
        for answers in (o.control_days, o.treatment_days)
    )
    return null, effect


def _days(control: list[Floats], treatment: list[Floats]) -> Moments:
    """Paired moments over the last axis (days) of `[R, days]` sums."""
    s = moments.stacked([*control, *treatment])
    k = len(control)
    bottom = 1 if k == 2 else None
    return moments.paired_moments(s, (0, bottom), (k, None if bottom is None else k + 1))
