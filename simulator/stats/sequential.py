"""Sequential inference: boundaries and intervals that stay honest when one looks every day, and the
day on which one could have stopped.

Looks are daily, at the users' totals so far. How Z at one look goes with Z at the next is measured
on the users themselves, and read as the information that has come in between (`clock`): nothing is
presumed of how a user's days depend on one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np

from policies.elementary import exps, logs, logs1p
from policies.products import matmul
from simulator.stats import intervals, tests
from simulator.stats.contrasts import TableMoments, UnitInfluence, influences
from simulator.stats.moments import Floats, Moments, Number
from simulator.stats.spending import ALPHA, boundaries
from simulator.stats.unit_table import UnitTable, mapped_together
from simulator.stats.user_days import UserDays

Rule = Literal["always_valid", "obrien_fleming", "pocock"]

FRESH = 0.02
"""Correlation of successive looks below which they are taken as independent."""


def mixture_boundary(information: Number, planned: float, alpha: float = ALPHA) -> Number:
    """The always-valid boundary of |Z|: crossing it on whatever day has probability at most `alpha`
    without an effect.

    Normal mixture sequential ratio test (Robbins 1970; Johari, Koomen, Pekelis & Walsh, "Always
    valid inference", Operations Research 2022): sqrt((1 + r / I) (log(1 + I / r) + 2 log(1 /
    alpha))), valid asymptotically for means (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Annals
    of Statistics 2024, theorem 2.2). r is chosen to be tightest at `planned` information (ibid.,
    section 2.5).
    """
    r = _mixing(planned, alpha)
    return np.sqrt((1.0 + r / information) * (logs1p(information / r) - 2.0 * logs(alpha)))


def always_valid_p(z: Floats, information: Floats, planned: float, alpha: float = ALPHA) -> Floats:
    """p values `[looks]` that may be read at any look: the running minimum of the inverse mixture
    likelihood ratio (same mixture).
    """
    return np.asarray(
        np.minimum.accumulate(inverse_likelihood_ratio(z, information, planned, alpha))
    )


def inverse_likelihood_ratio(
    z: Floats, information: Floats, planned: float, alpha: float = ALPHA
) -> Floats:
    """What a look by itself says: the inverse mixture likelihood ratio, at most 1."""
    r = _mixing(planned, alpha)
    log_ratio = 0.5 * logs(r / (information + r)) + 0.5 * np.square(z) * information / (
        information + r
    )
    return np.asarray(np.minimum(exps(-log_ratio), 1.0))


def _mixing(planned: float, alpha: float) -> float:
    return float(planned / (-2.0 * logs(alpha) + logs1p(-2.0 * logs(alpha))))


def clock(correlations: Floats) -> Floats:
    """Information at each look `[..., looks]`, the last one 1, from the correlations of Z at
    successive looks `[..., looks - 1]`.

    With information I, Z at two looks i < j has correlation sqrt(I_i / I_j) (Jennison & Turnbull
    2000, section 3.1), so that each step multiplies the information by 1 / correlation^2. That is
    exact for Gaussian Z in which what comes next depends on what is known by the last look only; 1
    / variance, the usual information, presumes more (alike days), and is off where yesterday's
    users differ from today's: on twins by enough to make 5% into 6 or 7%.
    """
    steps = np.square(np.clip(correlations, FRESH, 1.0))
    return np.concatenate(
        (np.cumprod(steps[..., ::-1], axis=-1)[..., ::-1], np.ones((*steps.shape[:-1], 1))), axis=-1
    )


@dataclass(frozen=True)
class Look:
    """What one would have seen at the end of a day.

    Attributes:
        day: days so far, from 1.
        lift: relative lift of the totals so far.
        low, high: 95% interval as if this were the only look.
        sequence_low, sequence_high: 95% confidence sequence: may be looked at every day.
        t: t statistic of the totals so far.
        p: always-valid p value so far.
        always_valid, obrien_fleming, pocock: boundaries of |t| on this day.
    """

    day: int
    lift: float
    low: float
    high: float
    sequence_low: float
    sequence_high: float
    t: float
    p: float
    always_valid: float
    obrien_fleming: float
    pocock: float


@dataclass(frozen=True)
class Peeks:
    """Every day's look at one metric of one arm, and the first day (from 1) on which each rule
    would have stopped, or None.
    """

    metric: str
    arm: str
    looks: tuple[Look, ...]

    def stop(self, rule: Rule) -> int | None:
        """The first day on which |t| is beyond the rule's boundary."""
        return next((look.day for look in self.looks if abs(look.t) > getattr(look, rule)), None)


def peeks(days: UserDays, control: str, alpha: float = ALPHA) -> list[Peeks]:
    """Daily looks at every metric with data of every arm, planned for all days of the test;
    two-sided.
    """
    tables = [days.by("user", until=d) for d in range(1, days.days + 1)]
    return peeks_at(tables, control, alpha)


def peeks_at(tables: Sequence[UnitTable], control: str, alpha: float = ALPHA) -> list[Peeks]:
    """The same of the sums so far, one table for each look: the same units in all of them, who have
    zeros before they come.
    """
    so_far = [TableMoments(table, {}) for table in tables]
    return [
        Peeks(
            metric,
            arm,
            looks(
                [s.moments(metric, control, arm) for s in so_far],
                successive(tables, metric, control, arm),
                alpha=alpha,
            ),
        )
        for arm in tables[-1].arms
        for metric in tables[-1].numerators
        if arm != control
    ]


def successive(tables: Sequence[UnitTable], metric: str, control: str, treatment: str) -> Floats:
    """Correlations `[looks - 1]` of a comparison's estimate at successive looks, from the same
    units' values; NaN without variance.
    """
    compared = metric, control, treatment
    if tables[0].metrics[metric].is_figure:
        found = iter([_products([influences(table, *compared) for table in tables])])
    else:
        moved = UnitInfluence.of(tables, *compared)
        found = mapped_together(tables, partial(_moved_products, moved), [metric])
    own, both = np.zeros(len(tables)), np.zeros(max(len(tables) - 1, 0))
    for squares, products in found:
        own += squares
        both += products
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(both / np.sqrt(own[:-1] * own[1:]))


def _products(of_looks: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Sums over units of the squares of their influence at each look, and of the products of those
    at successive looks.
    """
    squares = [matmul(here, here) for here in of_looks]
    products = [matmul(before, here) for before, here in pairwise(of_looks)]
    return np.array(squares, dtype=np.float64), np.array(products, dtype=np.float64)


def _moved_products(
    moved: Sequence[UnitInfluence], tables: Sequence[UnitTable]
) -> tuple[Floats, Floats]:
    return _products([one(table) for one, table in zip(moved, tables, strict=True)])


def looks(
    moments: Sequence[Moments],
    correlations: Floats,
    shares: Floats | None = None,
    alpha: float = ALPHA,
) -> tuple[Look, ...]:
    """A look for each of `moments`, planned for all; those before the first with a variance know
    nothing.

    Args:
        moments: of a comparison at each look.
        correlations: `[looks - 1]` of its estimate at successive looks.
        shares: `[looks]` of the planned test; equal steps if left out.
    """
    n = len(moments)
    steps = np.arange(1, n + 1) / n if shares is None else shares
    z = np.array([tests.t_test(m).statistic for m in moments], dtype=np.float64)
    defined = np.isfinite(z)
    defined[: n - int(defined[::-1].cumprod().sum())] = (
        False  # from the first look after which all have a variance
    )
    mixture, obrien_fleming, pocock = (np.full(n, np.inf) for _ in range(3))
    p = np.full(n, np.nan)
    if defined.any():
        information = clock(correlations[defined[:-1]])
        share = steps[defined].tolist()
        mixture[defined] = mixture_boundary(information, 1.0, alpha)
        obrien_fleming[defined] = boundaries("obrien-fleming", share, information.tolist(), alpha)
        pocock[defined] = boundaries("pocock", share, information.tolist(), alpha)
        p[defined] = always_valid_p(z[defined], information, 1.0, alpha)
    return tuple(
        Look(
            i + 1,
            *_lift(m, float(mixture[i]), 1.0 - alpha),
            float(z[i]),
            float(p[i]),
            float(mixture[i]),
            float(obrien_fleming[i]),
            float(pocock[i]),
        )
        for i, m in enumerate(moments)
    )


def _lift(m: Moments, critical: float, level: float) -> tuple[float, float, float, float, float]:
    """Lift, its interval for a single look, and its interval for all looks together."""
    if m.variance == 0 and m.control == m.treatment:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    low, high = intervals.fieller(m, level)
    wide_low, wide_high = (
        intervals.fieller(m, critical=critical) if np.isfinite(critical) else (-np.inf, np.inf)
    )
    return float(m.lift), float(low), float(high), float(wide_low), float(wide_high)
