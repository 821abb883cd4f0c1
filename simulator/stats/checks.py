"""Design checks: what must be true before a lift may be believed, each with a colour, a value and
what it means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from policies.elementary import exp, logs
from simulator.stats import moments, passes, segments, tests, verdict
from simulator.stats.adjustment import pre_periods
from simulator.stats.contrasts import PairValues, TableMoments
from simulator.stats.moments import Floats, Moments, Sample
from simulator.stats.randomise import Rate, draws, outcomes, split_pair
from simulator.stats.unit_table import Array, TableError, UnitTable
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import Lift

Status = Literal["green", "amber", "red"]

RARE = 100
"""Users with events in an arm below which a t test of a rare metric is not to be trusted unaudited.
"""
TOP = 10
"""How many of the most influential users are left out, one at a time."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: short.
        status: green: nothing found; amber: read the meaning before the lifts; red: do not believe
            the lifts.
        value: the figure it rests on, in words.
        meaning: what the status means here, and what to do.
    """

    name: str
    status: Status
    value: str
    meaning: str


def checks(
    source: UserDays | UnitTable,
    control: str,
    *,
    scenario: Mapping[str, Any] | None = None,
    shares: Mapping[str, float] | None = None,
    rows: Sequence[Lift] | None = None,
    new: Floats | None = None,
) -> list[Check]:
    """Every check that the source allows: a log's sums by user and day allow all, a plain per-user
    table those without time.

    `shares`: of users that were meant for each arm, up to a common factor; equal if left out.
    `rows`: of the verdict by user; computed if left out. `new`: of a table by user and day, users
    who are new on each, `[arms, days]`.

    Raises:
        TableError: shares that are not one positive number for each arm.
    """
    if isinstance(source, UserDays):
        table, past = source.by("user"), {}
    else:
        table, past = source, pre_periods(source)
    ratio, before = sample_ratio(table, intended(table.arms, shares)), balance(table, control)
    events, influence = rare_events(table), outliers(table, control, rows, past)
    if not isinstance(source, UserDays):
        segmented = table.assigned is not None and table.groups
        groups = [segment_balance(table)] if segmented else []
        by_day = []
        if new is not None:
            meant = intended(table.arms, shares) or np.full(len(table.arms), 1 / len(table.arms))
            by_day = [sample_ratio_of_new(new, np.asarray(meant))]
        return [ratio, *by_day, before, *groups, events, influence]
    several = [fits_ratio(source)] if max(source.fits, default=1) > 1 else []
    return [
        ratio,
        sequential_sample_ratio(source),
        *several,
        before,
        events,
        influence,
        a_a(source, control),
        novelty(source, control),
        carry_over(source, before),
        interference(scenario or {}),
    ]


def intended(arms: Sequence[str], shares: Mapping[str, float] | None) -> list[float] | None:
    """The shares of the arms, in their order, with sum 1; None: equal ones.

    Raises:
        TableError: there is not one positive number for each arm.
    """
    if shares is None:
        return None
    if set(shares) != set(arms) or not all(0.0 < w < np.inf for w in shares.values()):
        raise TableError(
            f"sample ratio: give one positive number for each of the arms {list(arms)}; got"
            f" {dict(shares)}"
        )
    return [shares[arm] / sum(shares.values()) for arm in arms]


def sample_ratio(table: UnitTable, shares: Sequence[float] | None = None) -> Check:
    """Users per arm against the intended `shares` (equal if left out): Pearson's chi-square
    (Fabijan et al., KDD 2019).
    """
    if table.assigned is None:
        return Check(
            "sample ratio",
            "green",
            f"{table.n_units:,} users in every arm",
            "paired: every user lives in every arm",
        )
    return ratio_of(
        np.bincount(table.assigned[table.assigned >= 0], minlength=len(table.arms)), shares
    )


def ratio_of(counts: npt.NDArray[Any], shares: Sequence[float] | None = None) -> Check:
    """The same of the numbers of users in the arms `[arms]`."""
    from scipy.stats import chisquare

    expected = counts.sum() * (
        np.full(len(counts), 1 / len(counts)) if shares is None else np.asarray(shares)
    )
    p = float(chisquare(counts, expected).pvalue) if counts.sum() else float("nan")
    value = f"{' : '.join(f'{c:,}' for c in counts)}, chi-square p = {p:.3g}"
    return Check("sample ratio", _status(p, 0.01, 0.001), value, _ratio_meaning(p))


def fits_ratio(days: UserDays) -> Check:
    """Users who came, by fit, in each arm with several: whether a user comes at all does not depend
    on the fit, so their shares are equal but for chance (Pearson's chi-square, Bonferroni over the
    arms).
    """
    from scipy.stats import chi2_contingency

    name = "users by fit"
    smallest = 1.0
    texts = []
    arms = [i for i, number in enumerate(days.fits) if number > 1]
    for arm in arms:
        came, users = _users_by_fit(days, arm)
        texts.append(f"{' : '.join(f'{n:,.0f}' for n in came)} in {days.arms[arm]}")
        table = np.stack([came, users - came])
        if (table.sum(axis=1) > 0).all():
            smallest = min(smallest, float(chi2_contingency(table).pvalue))
    p = min(smallest * len(arms), 1.0)
    value = f"who came: {', '.join(texts)}; chi-square p = {p:.3g}"
    meaning = "as many users have come to each fit as were dealt to it, but for chance"
    if p < 0.01:
        meaning = (
            "users of a fit are missing: find where their rows were lost before you read a lift,"
            " most of all one of a method"
        )
    return Check(name, _status(p, 0.01, 0.001), value, meaning)


def _users_by_fit(days: UserDays, arm: int) -> tuple[Floats, Floats]:
    """Of each fit of an arm, how many users have impressions, and how many live with it."""
    n_fits = len(days.lives) or max(days.fits)
    parts = days.mapped(partial(_came_and_users, arm, n_fits), ["impressions"])
    came, users = sum(parts, np.zeros((2, n_fits)))
    dealt = users > 0
    return came[dealt], users[dealt]


def _came_and_users(arm: int, n_fits: int, days: UserDays) -> Array:
    here = np.ones(days.n_users, bool) if days.assigned is None else days.assigned == arm
    if days.lives:
        seen = [life.terms["impressions"][arm, here].any(axis=1).sum() for life in days.lives]
        return np.array([seen, [here.sum()] * len(seen)])
    assert days.fit_of_user is not None
    fit = days.fit_of_user[here]
    came = days.terms["impressions"][arm, here].any(axis=1)
    return np.array([np.bincount(own, minlength=n_fits) for own in (fit[came], fit)])


def _ratio_meaning(p: float) -> str:
    if p < 0.001:
        return (
            "the arms' sizes are not those intended: users were lost or assigned wrongly; believe"
            " no lift before that is found"
        )
    if p >= 0.01:
        return "the arms' sizes fit the intended ratio"
    return "the arms' sizes are unlikely but possible: look for users lost in one arm"


CONCENTRATION = 100.0
"""Of the Dirichlet mixture around the intended shares, in users."""


def sequential_sample_ratio(days: UserDays) -> Check:
    """The sample ratio of *new* users, day by day, valid whenever one looks.

    The Bayes factor of a Dirichlet mixture around the intended shares against the shares themselves
    is a martingale; p is the inverse of its maximum so far (Lindon & Malek, "Anytime-valid
    inference for multinomial count data", NeurIPS 2022).
    """
    name = "sample ratio by day"
    if days.assigned is None or "impressions" not in days.terms:
        return Check(name, "green", "not applicable", "every user lives in every arm")
    k = len(days.arms)
    new = sum(days.mapped(_new_users, ["impressions"]), np.zeros((k, days.days)))
    return sample_ratio_of_new(new, np.full(k, 1.0 / k))


def _new_users(days: UserDays) -> Array:
    """How many users come for the first time on each day, `[arms, days]`."""
    active = days.terms["impressions"] > 0
    first = np.where(active.any(axis=2), active.argmax(axis=2), days.days)
    return np.array([np.bincount(of_arm, minlength=days.days + 1)[: days.days] for of_arm in first])


def sample_ratio_of_new(new: Floats, shares: Floats) -> Check:
    """`sequential_sample_ratio` of users who are new on each day `[k, days]`, of which `shares`
    `[k]` were meant for each arm.
    """
    name = "sample ratio by day"
    factors = log_bayes_factor(np.cumsum(new, axis=1), CONCENTRATION, shares)
    p = 1.0 / max(1.0, float(exp(np.max(factors))))
    value = f"new users by day, always-valid p = {p:.3g}"
    meaning = "arrivals left the intended ratio on some day"
    if p >= 0.01:
        meaning = "on no day did the arrivals in the arms leave the intended ratio"
    return Check(
        name,
        _status(p, 0.01, 0.001),
        value,
        f"{meaning} (users who come at all; a policy that brings people back changes it too)",
    )


def log_bayes_factor(counts: Floats, prior: float, shares: Floats | None = None) -> Floats:
    """Log Bayes factor `[...]` of counts `[k, ...]`: Dirichlet(prior times the shares)-multinomial
    against the `shares` `[k]` themselves; equal ones if left out.
    """
    from scipy.special import gammaln

    k, n = len(counts), counts.sum(axis=0)
    meant = np.full(k, 1.0 / k) if shares is None else shares
    meant = meant.reshape(-1, *[1] * (counts.ndim - 1))
    a = prior * meant
    mixture = gammaln(prior) - gammaln(prior + n) + (gammaln(a + counts) - gammaln(a)).sum(axis=0)
    return np.asarray(mixture - (counts * logs(meant)).sum(axis=0))


def balance(table: UnitTable, control: str) -> Check:
    """Pre-period covariates between the arms: Welch tests, Holm over all of them, and the largest
    standardised difference.
    """
    name = "covariate balance"
    if table.assigned is None:
        return Check(
            name, "green", "same users", "paired: both arms have the same users with the same past"
        )
    names, over = list(table.covariates), partial(table.mapped, metrics=())
    found = list(over(_pasts))
    sides = {
        (name, arm): moments.together(one[name, arm] for one in found)
        for name in names
        for arm in table.arms
    }
    spreads = passes.spreads(over, _covariates, len(names))
    pasts = []
    for covariate, spread in zip(names, spreads, strict=True):
        for arm in table.arms:
            if arm != control:
                both = sides[covariate, control], sides[covariate, arm]
                m = moments.split_moments(*both, 0, None)
                pasts.append((f"{covariate} in {arm}", m, spread.deviation()))
    return balance_of(pasts)


def _pasts(table: UnitTable) -> dict[tuple[str, str], Sample]:
    """The sample of each pre-period column in each arm."""
    return {
        (name, arm): moments.sample([column[table.assigned == table.arm(arm)]])
        for name, column in table.covariates.items()
        for arm in table.arms
    }


def _covariates(table: UnitTable) -> list[Floats]:
    return list(table.covariates.values())


def balance_of(pasts: Sequence[tuple[str, Moments, float]]) -> Check:
    """The same of comparisons of the pre-period: name, moments, standard deviation of users."""
    name = "covariate balance"
    if not pasts:
        return Check(
            name,
            "amber",
            "no pre-period",
            "nothing is known of the users before the test: balance cannot be checked",
        )
    rows = [
        (float(tests.t_test(m).p), abs(float(m.difference)) / spread if spread > 0 else 0.0, what)
        for what, m, spread in pasts
    ]
    p = tests.adjust(np.array([r[0] for r in rows]))
    least = float(np.nanmin(p)) if np.isfinite(p).any() else float("nan")
    _, size, where = max(rows, key=lambda r: r[1])
    value = f"largest standardised difference {size:.3f} ({where}), smallest Holm p = {least:.3g}"
    fine = "the arms were alike before the test (an A/A comparison of the pre-period)"
    off = (
        "the arms differed before the test: use the adjusted (CUPED) lifts, and look at how users"
        " were assigned"
    )
    return Check(name, _status(least, 0.05, 0.001), value, off if least < 0.05 else fine)


def segment_balance(table: UnitTable) -> Check:
    """Segments between the arms: is any of them an outcome of the test?"""
    name = "segment balance"
    by_group = segments.dependence(table)
    odd = [group for group, p in by_group.items() if p < segments.DEPENDENT]
    least = min(by_group, key=by_group.__getitem__)
    value = (
        f"smallest Holm p of a segment's independence of the arm: {by_group[least]:.3g} ({least})"
    )
    if odd:
        meaning = (
            f"the arms differ in {', '.join(odd)}: an outcome of the test, or users were not"
            " assigned at random; nothing is post-stratified by it, and lifts within its levels"
            " compare unlike users"
        )
        return Check(name, "amber", value, meaning)
    return Check(
        name,
        "green",
        value,
        "the arms have the same segments, as properties from before the test must",
    )


def rare_events(table: UnitTable) -> Check:
    """Metrics with too few users with events for a t test to be taken on trust."""
    found = list(table.mapped(_with_events))
    counts = {name: np.sum([one[name] for one in found], axis=0) for name in table.numerators}
    few = [f"{metric} ({n.min()})" for metric, n in counts.items() if n.min() < RARE]
    if not few:
        return Check(
            "rare events",
            "green",
            f"at least {RARE} users with events in every arm and metric",
            "normal approximations are safe",
        )
    meaning = (
        "so few users have any event there that the t test may reject too seldom and intervals are"
        " rough: see `abtest audit`"
    )
    return Check(
        "rare events", "amber", f"fewer than {RARE} users with events: {', '.join(few)}", meaning
    )


def _with_events(table: UnitTable) -> dict[str, Array]:
    """By metric, units with any event in each arm."""
    return {
        metric: np.array([np.count_nonzero(table.sums(metric, arm)[0]) for arm in table.arms])
        for metric in table.numerators
    }


def outliers(
    table: UnitTable,
    control: str,
    rows: Sequence[Lift] | None = None,
    covariates: Mapping[str, Sequence[str]] | None = None,
) -> Check:
    """Whether one user decides: each of the most influential users left out in turn, for every
    metric and arm, and the p that the verdict rests on held against what the correction asks of it.

    `rows`: the verdict by user, adjusted for the `covariates`; computed if left out.
    """
    turned, largest, where = [], 0.0, ""
    past = covariates or {}
    if rows is None:
        rows = verdict.lifts(table, control, covariates=past)
    for row in rows:
        if np.isnan(row.p) or table.metrics[row.metric].is_figure:
            continue
        ends = [end for end in (row.low, row.high) if np.isfinite(end)]
        # A one-sided interval is half of one.
        width = sum(abs(end - row.lift) for end in ends) * (2.0 if len(ends) == 1 else 1.0)
        for lift, p in _without_one(table, row, control, past.get(row.metric, ())):
            shift = abs(lift - row.lift) / max(width, 1e-300) if ends else 0.0
            if shift > largest:
                largest, where = shift, f"{row.metric} in {row.arm}"
            if (p < 1.0 - row.level_adjusted) != (row.p < 1.0 - row.level_adjusted):
                turned.append(f"{row.metric} in {row.arm}")
    value = f"largest shift of a lift by one user: {largest:.0%} of its interval's width" + (
        f" ({where})" if where else ""
    )
    if turned:
        names = ", ".join(dict.fromkeys(turned))
        return Check(
            "outlier influence",
            "amber",
            value,
            f"one user decides whether p is as small as the verdict asks: {names}; winsorise and"
            " compare",
        )
    return Check(
        "outlier influence",
        "green",
        value,
        f"leaving out any one of the {TOP} most influential users changes no verdict",
    )


def _without_one(
    table: UnitTable, row: Lift, control: str, covariates: Sequence[str]
) -> Iterator[tuple[float, float]]:
    """(lift, p) of a row without each of the most influential units in turn, by updating the
    moments.
    """
    metric, arm = row.metric, row.arm
    sides = _Sides(PairValues.of(table, metric, control, arm), tuple(covariates))
    over = partial(table.mapped, metrics=[metric])
    centres = passes.spreads(over, sides.scored, 1 if table.paired else 2)
    found = list(over(partial(_most_influential, sides, [centre.mean for centre in centres])))
    parts = [[one[side] for one in found] for side in range(len(centres))]
    samples = [moments.together(sample for sample, _ in own) for own in parts]
    most = [np.concatenate([units for _, units in own]) for own in parts]
    worst = [(side, own[i, :-1]) for side, own in enumerate(most) for i in _largest(own[:, -1])]
    for side, unit in worst:
        left = list(samples)
        left[side] = samples[side].without(unit)
        if table.paired:
            m = moments.paired_moments(left[0], (0, None), (1, None))
        else:
            m = moments.split_moments(left[0], left[1], 0, None, range(1, 1 + len(covariates)))
        yield float(m.lift), float(tests.t_test(m, row.alternative).p)


@dataclass(frozen=True)
class _Sides:
    """The columns of the samples of a comparison in a stretch of a table: of the twins, or of each
    arm.

    Attributes:
        values: that are compared.
        covariates: that they are adjusted for.
    """

    values: PairValues
    covariates: tuple[str, ...]

    def __call__(self, table: UnitTable) -> list[list[Floats]]:
        """The last column of a sample is that by which a unit's influence is told."""
        c, t = self.values(table)
        if table.paired:
            return [[c, t, t - c]]
        here = [table.assigned == table.arm(name) for name in self.values.arms]
        return [
            [v, *(table.covariates[one][own] for one in self.covariates), v]
            for v, own in zip((c, t), here, strict=True)
        ]

    def scored(self, table: UnitTable) -> list[Floats]:
        """The last columns."""
        return [side[-1] for side in self(table)]


def _most_influential(
    sides: _Sides, centres: Sequence[float], table: UnitTable
) -> list[tuple[Sample, Floats]]:
    """Each sample of a stretch, and of its most influential units the columns and how far they are
    from the centre, `[k, columns + 1]`.
    """
    found = []
    for columns, centre in zip(sides(table), centres, strict=True):
        score = np.abs(columns[-1] - centre)
        at = np.argpartition(score, -TOP)[-TOP:] if len(score) > TOP else slice(None)
        units = np.column_stack([*(column[at] for column in columns[:-1]), score[at]])
        found.append((moments.sample(columns[:-1]), units))
    return found


def _largest(score: Floats) -> list[int]:
    k = min(TOP, len(score))
    return np.argpartition(score, -k)[-k:].tolist() if len(score) > 3 else []


DRAWS, DRAWN = 400, 5_000
"""Assignments of the control against itself, and users of which they are drawn, at most."""


def a_a(days: UserDays, control: str) -> Check:
    """The control against itself: users of the run drawn and assigned anew, the share of p below 5%
    per metric.

    In a split log only the control's own users are drawn.
    """
    name = "A/A"
    if days.assigned is None:
        members = np.arange(days.n_users)
    else:
        members = np.flatnonzero(days.assigned == days.arms.index(control))
    members = members[:DRAWN]
    chosen = _served_by(days.users(members), control)
    twice = {name: cube[[days.arms.index(control)] * 2] for name, cube in chosen.terms.items()}
    alike = replace(chosen.pooled(twice), arms=(control, "again"), assigned=None, switched=None)
    rates = {}
    for metric in alike.metrics:
        if metric in alike.missing or len(members) < 50:
            continue
        o = outcomes(alike, control, "again", metric)
        rejected = 0
        units = len(o.control[0])
        for heads, tails in draws(units, units, DRAWS, 0):
            rejected += int(
                np.count_nonzero(np.asarray(tests.t_test(split_pair(o, heads, tails)[0]).p) < 0.05)
            )
        rates[metric] = Rate.of(rejected, DRAWS)
    if not rates:
        return Check(
            name,
            "amber",
            "too few users",
            "the control has too few users to be compared with itself",
        )
    off = {
        m: r for m, r in rates.items() if abs(r.value - 0.05) > 3.5 * np.sqrt(0.05 * 0.95 / DRAWS)
    }
    worst = max(rates, key=lambda m: abs(rates[m].value - 0.05))
    value = (
        f"{DRAWS} A/A tests a metric; false positives furthest from 5%: {worst}"
        f" {rates[worst].value:.1%}"
    )
    if off:
        return Check(
            name,
            "amber",
            value,
            f"the test does not hold its 5% here on {', '.join(off)}: read its p with care, run"
            " `abtest audit`",
        )
    return Check(
        name,
        "green",
        value,
        "the control compared with itself is found different about as often as it should be",
    )


def _served_by(days: UserDays, arm: str) -> UserDays:
    """Of a switchback the days of one arm, without the metrics that need the day after; any other
    log as it is.
    """
    if days.switched is None:
        return days
    at = np.flatnonzero(days.switched == days.arms.index(arm))
    kept = {name: m for name, m in days.metrics.items() if all(t.days is None for t in m.terms)}
    served = {n: cube[:, :, at] for n, cube in days.terms.items()}
    return replace(days.pooled(served), days=len(at), metrics=kept, switched=None)


def novelty(days: UserDays, control: str) -> Check:
    """Whether the lift changes over the days: a straight-line contrast of each user's days, tested
    as any metric; Holm over all.
    """
    name = "novelty"
    if days.days < 3:
        return Check(name, "green", f"{days.days} days", "too few days to see a trend")
    if days.switched is not None:
        return Check(
            name,
            "green",
            "not applicable",
            "no arm is served every day, so its days show no trend of the lift",
        )
    line = np.arange(days.days) - (days.days - 1) / 2.0
    sums = {
        metric: m
        for metric, m in days.metrics.items()
        if metric not in days.missing and m.denominator is None and m.numerator.days is None
    }
    names = {m.numerator.name for m in sums.values()}
    tilted = TableMoments(replace(days.tilted(names, line), metrics=sums).by("user"), {})
    whole = TableMoments(days.by("user"), {})
    trends = []
    for metric in sums:
        for arm in days.arms:
            if arm != control:
                slope = tilted.moments(metric, control, arm)
                difference = whole.moments(metric, control, arm).difference
                grows = float(slope.difference * difference) > 0  # both up, or both down
                trends.append((float(tests.t_test(slope).p), grows, f"{metric} in {arm}"))
    p = tests.adjust(np.array([trend[0] for trend in trends]))
    if not np.isfinite(p).any():
        return Check(name, "green", "no variation", "the difference does not vary over the days")
    at = int(np.nanargmin(p))
    _, grows, where = trends[at]
    direction = "grows" if grows else "fades"
    value = f"strongest trend: {where}, Holm p = {p[at]:.3g}"
    if p[at] < 0.05:
        meaning = (
            f"the effect {direction} over the days: the mean over the test will not last; look at"
            " the lift by day, run longer"
        )
        return Check(name, "amber", value, meaning)
    return Check(
        name,
        "green",
        value,
        "no trend of the lift over the days can be seen (a short test sees only strong ones)",
    )


def carry_over(days: UserDays, before: Check) -> Check:
    """Whether what was before leaks into an arm: users' state for twins, the pre-period for splits
    (`before`: their `balance`), the day before for switchbacks.
    """
    name = "carry-over"
    if days.switched is not None:
        meaning = (
            "users take their memory of yesterday's arm along: days after a switch mix both"
            " policies, and lifts are drawn towards 0"
        )
        return Check(name, "amber", "arms alternate on the same users", meaning)
    if days.assigned is None:
        return Check(
            name,
            "green",
            "same state at the start",
            "every arm begins with the same users in the same state",
        )
    if before.status == "green":
        meaning = "no difference between the arms was there before the start"
    else:
        meaning = before.meaning
    return Check(name, before.status, before.value, meaning)


def interference(scenario: Mapping[str, Any]) -> Check:
    """Whether the arms can influence one another through what they learn from."""
    serving = scenario.get("serving", {})
    if serving.get("refit", "never") != "never" and serving.get("refit_on", "own") == "pooled":
        meaning = (
            "every arm is retrained on the clicks of all: a good arm teaches the others, and lifts"
            " are not the arms' own"
        )
        return Check("interference", "amber", "arms share training data", meaning)
    learns = "each arm is retrained on its own log only"
    if serving.get("refit", "never") == "never":
        learns = "no arm is retrained"
    return Check(
        "interference",
        "green",
        learns,
        "arms share no training data and users do not meet: one arm cannot influence another",
    )


def _status(p: float, amber: float, red: float) -> Status:
    if np.isnan(p) or p >= amber:
        return "green"
    return "red" if p < red else "amber"
