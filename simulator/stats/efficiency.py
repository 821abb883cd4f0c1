"""Designs beside one another: preference tests of interleaved slates, and how many users each
design needs on the same world.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice

import numpy as np
import numpy.typing as npt

from simulator.designs.interleave import Interleave
from simulator.designs.switchback import Switchback
from simulator.stats import moments, tests
from simulator.stats.contrasts import compare
from simulator.stats.power import MOST, Pilot, pilot, users_needed
from simulator.stats.randomise import Rate
from simulator.stats.unit_table import TableError, UnitTable
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import noncentrality

MOST_SWITCHES = 500
"""Day assignments of a switchback that are looked at."""


@dataclass(frozen=True)
class Preference:
    """Which of two interleaved arms the users prefer.

    Attributes:
        metric: what is credited to the arm whose item got it (clicks, as a rule).
        arm: the arm whose preference is given, against the control.
        preferring, against, tied: users who credited the arm more, less and equally (users without
            any credit are tied).
        share: (preferring + tied / 2) / users, less 1/2 (Chapelle, Joachims, Radlinski & Yue 2012,
            eq. 1): above 0 speaks for the arm.
        wins: share of preferring among users who are not tied, with its Clopper-Pearson interval.
        p_sign: binomial sign test of wins against 1/2.
        t, df, p: paired t test of credits per user (uses how much, not only which).
    """

    metric: str
    arm: str
    preferring: int
    against: int
    tied: int
    share: float
    wins: Rate
    p_sign: float
    t: float
    df: float
    p: float


def preference(table: UnitTable, metric: str, control: str, treatment: str) -> Preference:
    """The preference tests of team-draft interleaving (Radlinski, Kurup & Joachims, "How does
    clickthrough data reflect retrieval quality?", CIKM 2008): each credit goes to the arm that
    drafted the item; users are the units.

    Args:
        table: by user, where each arm's sums are those of the items that it drafted (the arm of a
            row is its drafter).
        metric: a mean metric that is credited.
        control: one arm.
        treatment: the other.

    Raises:
        TableError: a split table or a ratio metric.
    """
    from scipy.stats import binomtest

    if not table.paired:
        raise TableError("a preference test needs both arms in the same slates of the same users")
    if metric in table.denominators:
        raise TableError(f"a preference test credits sums; {metric!r} is a ratio")
    parts = table.mapped(partial(_preferring, metric, control, treatment), [metric])
    more, less = map(sum, zip(*parts, strict=True))
    n, tied = table.n_units, table.n_units - more - less
    sign = float(binomtest(more, more + less).pvalue) if more + less else float("nan")
    test = tests.t_test(compare(table, metric, control, treatment))
    share = (more + tied / 2) / n - 0.5 if n else float("nan")
    return Preference(
        metric,
        treatment,
        more,
        less,
        tied,
        share,
        Rate.of(more, more + less),
        sign,
        float(test.statistic),
        float(test.df),
        float(test.p),
    )


def _preferring(metric: str, control: str, treatment: str, table: UnitTable) -> tuple[int, int]:
    """How many users credited the treatment more, and how many less."""
    d = table.sums(metric, treatment)[0] - table.sums(metric, control)[0]
    return int(np.count_nonzero(d > 0)), int(np.count_nonzero(d < 0))


@dataclass(frozen=True)
class Sensitivity:
    """How many users one design needs to find, with power .8 at a stated level, what was there in
    this world.

    Attributes:
        metric, arm: of what.
        design: paired, split, cuped, switchback or interleave.
        effect: the effect on the design's own scale (relative lift; for interleaving the relative
            difference of credits).
        relative_error: standard error of that effect with the users of this run.
        users_needed: inf where more users cannot help.
        note: what to know of the figure, or "".
    """

    metric: str
    arm: str
    design: str
    effect: float
    relative_error: float
    users_needed: float
    note: str = ""


def sensitivity(
    days: UserDays,
    metric: str,
    control: str,
    treatment: str,
    interleaved: UserDays | None = None,
    *,
    level: float = 0.95,
) -> list[Sensitivity]:
    """The designs on one world: from a paired log's twins for paired, split, adjusted and
    switchback; from an interleaved log if there.

    `level`: of the two-sided test, by the rule of the verdict (1 - `tests.level_of_one`); .95 for
        one comparison.

    Raises:
        TableError: the log is not paired, or has no data for the metric.
    """
    if days.assigned is not None or days.switched is not None:
        raise TableError("designs are compared on a paired log: it has both answers of every user")
    table = days.by("user")
    p = pilot(table, metric, control, treatment)
    m = compare(table, metric, control, treatment)
    effect = float(m.lift)
    rows = []
    for design in p.designs:
        need = users_needed(p, effect, design, level=level) if effect else float("inf")
        rows.append(
            Sensitivity(
                metric, treatment, design, effect, p.relative_error(design, days.n_users), need
            )
        )
    if days.days > 1 and days.metrics[metric].denominator is None:
        rows.append(_switchback(days, metric, control, treatment, effect, level))
    if interleaved is not None:
        rows.append(interleaved_sensitivity(interleaved, metric, control, treatment, level))
    return rows


def _switchback(
    days: UserDays, metric: str, control: str, treatment: str, effect: float, level: float
) -> Sensitivity:
    """Everybody gets one arm a day, days assigned at random in equal numbers: what users and what
    days add to the variance.

    For each assignment the estimate is mean over treated days / mean over control days; its
    variance over users falls with their number, its variance over assignments does not (law of
    total variance; Bojinov, Simchi-Levi & Zhao, Management Science 2023, section 3). Twins carry
    nothing over from one day to another, real users do: this is the best that a switchback could
    do.
    """
    term = days.metrics[metric].numerator.name
    c, t = (
        days.terms[term][days.arms.index(arm)].astype(np.float64) for arm in (control, treatment)
    )
    own, estimates = [], []
    for treated in _assignments(days.days):
        m = moments.paired(c[:, ~treated].mean(axis=1), t[:, treated].mean(axis=1))
        if m.control != 0 and m.treatment != 0:
            own.append(m.variance / m.control**2)
            estimates.append(m.lift)
    if not own:
        return Sensitivity(
            metric,
            treatment,
            Switchback.kind,
            effect,
            float("nan"),
            float("inf"),
            "no day has any event",
        )
    by_users, by_days = float(np.mean(own)), float(np.var(estimates))
    by_days = max(by_days - by_users, 0.0)
    room = (effect / noncentrality(float(max(days.days - 2, 1)), level=level)) ** 2 - by_days
    need = by_users * days.n_users / room if room > 0 else float("inf")
    note = f"{days.days} days; at best, without carry-over" + (
        "; days differ too much for any number of users" if room <= 0 else ""
    )
    return Sensitivity(
        metric,
        treatment,
        Switchback.kind,
        effect,
        float(np.sqrt(by_users + by_days)),
        need if need <= MOST else float("inf"),
        note,
    )


def _assignments(n_days: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Masks `[days]` of treated days, half of them (rounded down), at most `MOST_SWITCHES`, spread
    over all.
    """
    every = list(islice(combinations(range(n_days), n_days // 2), 200_000))
    for chosen in every[:: max(1, len(every) // MOST_SWITCHES)]:
        mask = np.zeros(n_days, dtype=bool)
        mask[list(chosen)] = True
        yield mask


def interleaved_sensitivity(
    days: UserDays, metric: str, control: str, treatment: str, level: float = 0.95
) -> Sensitivity:
    """Of an interleaved log: the difference of credits per user, relative to the mean credit of an
    arm.
    """
    m = compare(days.by("user"), metric, control, treatment)
    middle = abs(m.control + m.treatment) / 2.0
    # Neither arm may have any credit: then there is no effect to speak of.
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = float(np.divide(m.difference, middle))
        error = float(np.divide(np.sqrt(m.variance), middle))
    alone = Pilot(
        metric, 1.0, 1.0, error * np.sqrt(days.n_users) if error > 0 else None, None, days.n_users
    )
    need = (
        users_needed(alone, effect, "paired", level=level) if error > 0 and effect else float("inf")
    )
    return Sensitivity(
        metric,
        treatment,
        Interleave.kind,
        effect,
        error,
        need,
        "a preference within one slate, not the lift of a whole feed",
    )
