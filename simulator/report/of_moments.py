"""Gathering the report of a table of moments, and of many published tests at once: what sums and
products tell is told as of the users' rows, and what they do not tell is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np

from simulator.designs.paired import Paired
from simulator.designs.split import Split
from simulator.log import workspace
from simulator.page.blocks import Block, Table, Words, columns, plain
from simulator.page.words import percent, whole
from simulator.report.content import (
    AdjustmentGain,
    Alternative,
    Beside,
    BoundedMargin,
    Content,
    Need,
    Segments,
    Size,
    Users,
)
from simulator.report.gather import (
    Comparison,
    described,
    family_of,
    gains_of,
    headlines,
    in_order,
    known_priors,
    levels_of_one,
    verdicts,
)
from simulator.report.plan import ROUND, whole_users
from simulator.report.sections.over_days import RULES
from simulator.report.sentences import margin_sentence
from simulator.stats import segments, verdict
from simulator.stats.aggregates import Aggregates
from simulator.stats.checks import Check, balance_of, intended, ratio_of
from simulator.stats.choices import Choices
from simulator.stats.intervals import METHODS, TITLES, is_proportion, opened, two_sided
from simulator.stats.margins import Margins, answer_compared, planned
from simulator.stats.moments import Moments
from simulator.stats.power import Pilot, PowerError, users_needed
from simulator.stats.priors import Prior
from simulator.stats.unit_table import TableError
from simulator.stats.verdict import Lift, Uncorrected
from simulator.stats.winners import PairMoments, best_of_arms

if TYPE_CHECKING:
    import pandas as pd

UNTOLD = Check(
    "single users",
    "green",
    "not looked for",
    "moments do not tell rare events, single users who decide, quantiles or ranks: of a metric that"
    " few users have, or with a long tail, ask the rows",
)


def lifts(
    table: Aggregates, control: str, choices: Choices, *, adjusted: bool = True
) -> list[Lift]:
    """The rows of the verdict of a table of moments (`verdict.lifts`)."""
    comparisons = [
        Uncorrected(metric, arm, "user", table.moments(metric, control, arm, adjusted=adjusted))
        for arm, metric in product(table.arms, table.metrics)
        if arm != control
    ]
    return verdict.in_families(
        comparisons, table.metrics, choices.interval, choices.correction, choices.rule
    )


def gather_moments(
    table: Aggregates,
    control: str,
    name: str,
    margins: Margins | None = None,
    choices: Choices | None = None,
    *,
    shares: Mapping[str, float] | None = None,
    command: str | None = None,
    priors: Mapping[str, Prior] | None = None,
) -> Content:
    """Everything that the report says of a table of moments.

    Args:
        table: of a split test, or of twins, whose products between arms it has.
        control: the control arm.
        name: title of the report.
        margins: guardrails and equivalences that were planned.
        choices: how the lifts are computed.
        shares: of users that were meant for each arm, up to a common factor.
        command: that makes this report.
        priors: by metric, what earlier tests say of its lift.
    """
    choices = choices or Choices()
    if choices.pairs:
        raise TableError("pairs: every pair of arms is compared from rows; leave --pairs out")
    metrics, margins = planned(table.metrics, margins)
    table = dataclasses.replace(table, metrics=metrics)
    arms = (control, *(arm for arm in table.arms if arm != control))
    who = Comparison(arms, control, tuple(table.arms.index(arm) for arm in arms))
    rows = lifts(table, control, choices)
    beside, gains = None, list[AdjustmentGain]()
    if table.covariates:
        plain_rows = lifts(table, control, choices, adjusted=False)
        beside = Beside("Without adjustment", tuple(plain_rows))
        gains = gains_of(plain_rows, rows, table.covariates, "CUPED")
    users = table.n_users
    return Content(
        control=control,
        arms=arms,
        unit="user",
        lifts=tuple(rows),
        verdicts=verdicts(rows, control, metrics),
        headlines=headlines(rows, who, "user", metrics),
        winners=tuple(
            best_of_arms(
                partial(_all_pairs, table, control),
                metrics,
                table.arms,
                control,
                priors=known_priors(priors, metrics),
                rule=choices.rule,
            )
        ),
        metrics=described(metrics, {name: tuple(own) for name, own in table.covariates.items()}),
        family=family_of(metrics),
        choices=choices,
        scenario=name,
        design=Paired.kind if table.paired else Split.kind,
        checks=in_order(*_checked(table, control, shares), *_looked(table), UNTOLD),
        paired=table.paired,
        margins=_margins(table, control, margins, choices),
        adjusted=tuple(sorted(table.covariates)),
        gains=tuple(gains),
        columns=table.columns,
        command=command,
        beside=beside,
        size=Size(users[control] if table.paired else sum(users.values())),
        units={arm: users[arm] for arm in arms},
        sequential=tuple(table.peeks(control, choices.rule.alpha)),
        distributions=(),
        segments=_segments(table, control, choices),
        otherwise=tuple(_otherwise(table, control, rows, choices)),
        power=tuple(_needs(table, control, levels_of_one(rows, metrics, choices))),
        versions=workspace.versions(),
    )


def _checked(
    table: Aggregates, control: str, shares: Mapping[str, float] | None
) -> Iterator[Check]:
    """Whether the arms were assigned as they were meant to be; twins are in all of them."""
    if table.paired:
        return
    users = np.array([table.n_users[arm] for arm in table.arms])
    yield ratio_of(users, intended(table.arms, shares))
    yield balance_of(_pasts(table, control))


def _all_pairs(table: Aggregates, control: str, metric: str) -> PairMoments | None:
    """How any two arms compare in a metric; None where products between two treatments of twins
    are not there, without which nobody can say how their lifts go together.
    """
    others = [arm for arm in table.arms if arm != control]
    compare = partial(table.moments, metric, adjusted=True)
    known = all(compare(*pair) is not None for pair in combinations(others, 2))
    return compare if known or not table.paired else None


def _pasts(table: Aggregates, control: str) -> list[tuple[str, Moments, float]]:
    """Comparisons of the covariates between the arms, with the standard deviation of users."""
    used = dict.fromkeys(past for names in table.covariates.values() for past in names)
    found = []
    for past, arm in product(used, table.arms):
        if arm == control:
            continue
        own = dataclasses.replace(table, parts={past: (past, None)})
        m = own.moments(past, control, arm)
        at = table.variables.index(past)
        spread = float(np.sqrt(table.cells.cov[:, -1, at, at].mean()))
        if m is not None:
            found.append((f"{past} in {arm}", m, spread))
    return found


def _looked(table: Aggregates) -> Iterator[Check]:
    """How looks go together, where there are several."""
    if len(table.looks) < 2:
        return
    if table.paired:
        yield Check(
            "looks",
            "amber",
            f"{len(table.looks)} looks at twins",
            "it is presumed that a look is the one before and something independent of it: how"
            " twins' days go together is told by rows only",
        )
        return
    name, crossed = "looks", [metric for metric, known in table.crossed.items() if known]
    if len(crossed) == len(table.metrics):
        yield Check(
            name,
            "green",
            f"{len(table.looks)} looks, with the products of each with the one before",
            "how the lift so far goes with that of the look before is measured, as on rows",
        )
        return
    yield Check(
        name,
        "amber",
        f"{len(table.looks)} looks; products with the look before of {len(crossed)} of"
        f" {len(table.metrics)} metrics",
        "of the others it is presumed that a look is the one before and something independent of it"
        " (users who have come since): where users' days go together otherwise, 5% can be 6 or 7%;"
        " export the product of each user's total with that at the look before",
    )


def _margins(
    table: Aggregates, control: str, margins: Margins, choices: Choices
) -> tuple[BoundedMargin, ...]:
    answers = answer_compared(
        lambda metric, arm: table.moments(metric, control, arm, adjusted=True),
        [arm for arm in table.arms if arm != control],
        table.metrics,
        margins,
        choices.rule.alpha,
    )
    return tuple(
        BoundedMargin(
            **vars(answer),
            sentence=margin_sentence(
                answer, control, table.metrics[answer.metric].higher_is_better
            ),
        )
        for answer in answers
    )


def _segments(table: Aggregates, control: str, choices: Choices) -> Segments | None:
    """Lifts in segments, as `segments.segments` has them from rows."""
    comparisons = []
    for group, levels in table.groups.items():
        shown = {level: cells for level, cells in levels.items() if cells.n.min() >= segments.LEAST}
        for arm, metric in product(table.arms, table.metrics):
            if arm == control or len(shown) < 2:
                continue
            found = {level: table.in_segment(group, level, metric, control, arm) for level in shown}
            known = {level: m for level, m in found.items() if m is not None}
            comparisons.append((group, metric, arm, known))
    rows, interactions = segments.of_comparisons(comparisons, "user", choices.level)
    return Segments(segments.WARNING, tuple(rows), tuple(interactions)) if rows else None


def _otherwise(
    table: Aggregates, control: str, rows: list[Lift], choices: Choices
) -> Iterator[Alternative]:
    """The other intervals of each lift, not adjusted."""
    for row in rows:
        m = table.moments(row.metric, control, row.arm)
        if m is None:
            continue
        own = (row.lift, row.low, row.high, row.p, row.note)
        yield Alternative(row.metric, row.arm, "as in the verdict", *own)
        for name, method in METHODS.items():
            if name == choices.interval or (name == "newcombe" and not is_proportion(m)):
                continue
            level = two_sided(choices.level, row.alternative)
            low, high = opened(method(m, level), row.alternative)
            lift = float(m.lift)
            yield Alternative(row.metric, row.arm, TITLES[name], lift, float(low), float(high))


def _needs(table: Aggregates, control: str, levels: Mapping[str, float]) -> Iterator[Need]:
    """Users needed for a round lift, from the control's own moments."""
    for arm, metric in product(table.arms, table.metrics):
        m = table.moments(metric, control, arm)
        if arm == control or m is None:
            continue
        try:
            apart = float(np.sqrt(m.variance * m.n_control)) if table.paired else 0.0
            sd = float(np.sqrt(m.var_control * m.n_control))
            past = table.correlation(metric, control)
            spread = Pilot(metric, float(m.control), sd, apart or None, past)
        except PowerError:
            continue
        users: Users = {
            design: whole_users(users_needed(spread, ROUND, design, level=levels[metric]))
            for design in spread.designs
        }
        yield Need(metric, arm, ROUND, False, users)


def stopped_blocks(stops: pd.DataFrame) -> Iterator[Block]:
    """What each rule would have done with many tests, by metric."""
    sound = stops[stops.fault == ""]
    yield Words(
        f"{whole(stops.experiment.nunique())} experiments, {whole(len(stops))} series of a variant"
        f" and a metric, {whole(int(stops.looks.sum()))} looks."
    )
    lines = []
    for metric, own in sound.groupby("metric", sort=True):
        shares = (own[rule].notna().mean() for rule in RULES)
        lines.append(
            (
                plain(str(metric)),
                plain(whole(len(own))),
                *(plain(percent(float(share), 1, sign=False)) for share in shares),
                plain(percent(float((own.p < 0.05).mean()), 1, sign=False)),
            )
        )
    heads = columns("metric", "series", *(rule.lower() for rule in RULES.values()), "p < .05")
    yield Table("Series that each rule stops", heads, lines)
    yield Words(
        "Share of the series that each rule, fixed beforehand, stops with a difference shown"
        " (level 5%, a look whenever there is one); p < .05: at the last look, as if it were the"
        " only one.",
        note=True,
    )
    for fault, own in stops[stops.fault != ""].groupby("fault", sort=False):
        first = own.iloc[0]
        named = f"experiment {first.experiment}, variant {first.variant}, metric {first.metric}"
        more = f" and {len(own) - 1} more" if len(own) > 1 else ""
        yield Words(f"Left out: {named}{more}: {fault}.", note=True)
