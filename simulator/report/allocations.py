"""Users, fits and CPU time of another test of the same methods, from a run with several fits: what
they cost, and the plan in words, tables and a picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simulator.page.blocks import Block, Cell, Table, Words, columns, plain
from simulator.page.figures import Point, Series, Whiskers, over_steps, picture
from simulator.page.words import number, percent, title, whole
from simulator.stats.allocation import (
    MORE,
    Allocation,
    Costs,
    MethodPlan,
    Requirement,
    Spread,
    plan,
)
from simulator.stats.methods import FitTables
from simulator.stats.power import EQUAL_ARMS, Arms
from simulator.stats.replication import Dealing
from simulator.stats.user_days import UserDays

FIT, SIMULATE = "fit CPU seconds", "simulate CPU seconds"
WORLD = ("users CPU seconds", "history CPU seconds")
"""What a report keeps of the run time, by the names of the stages; a world is made in the last
two.
"""

DEAREST = 4.0
"""Plans that cost so many times the cheapest are not shown."""


def costs(
    days: UserDays,
    runtime: Mapping[str, Any] | None,
    fit_seconds: float | None = None,
    user_day_seconds: float | None = None,
) -> Costs | None:
    """CPU seconds of a fit of every arm and of a user's whole test in all arms: as given, else as
    the run has measured; None where neither is known.
    """
    measured = runtime or {}
    n_fits = max(days.fits)
    # Where users live with every fit, an arm whose fits are all one is lived once.
    often = [n_fits if days.lives and arm not in days.fitted_once else 1 for arm in days.arms]
    lives = sum(often) / len(often)
    if fit_seconds is None and FIT in measured:
        fit_seconds = measured[FIT] / n_fits
    if user_day_seconds is None and SIMULATE in measured:
        user_day_seconds = measured[SIMULATE] / (days.n_users * days.days * lives)
    if not fit_seconds or not user_day_seconds:
        return None
    world = sum(float(measured.get(stage, 0.0)) for stage in WORLD)
    return Costs(fit_seconds, user_day_seconds * days.days, world)


def method_plan(
    days: UserDays,
    metric: str,
    arms: tuple[str, str],
    costs: Costs,
    goal: Requirement,
    between_worlds: float | None = None,
    shares: Arms = EQUAL_ARMS,
    *,
    same_users: bool = False,
) -> MethodPlan | None:
    """The plan for one metric of a run with several fits; None where the policies draw nothing, so
    that their models are their methods. `between_worlds` is the sd of the lift between worlds,
    which have the `same_users` where they have one seed; `shares`: of all users, those in the two
    arms of the test that is planned, if it is a split as the run is.
    """
    control, arm = arms
    if {control, arm} <= days.fitted_once:
        return None
    result = FitTables.read(days, "user").replicated(metric, control, arm)
    if result.components is None:
        return None
    worlds = None if between_worlds is None else between_worlds**2
    mean = float(result.models.control)
    spread = Spread.of(result.components, mean, worlds, same_users)
    if not result.models.paired:
        n_control, n_treatment = result.models.n_control, result.models.n_treatment
        spread = spread.divided_by(shares, n_control, n_treatment, days.n_users)
    return plan(spread, dealing_of(days), costs, goal)


def dealing_of(days: UserDays) -> Dealing:
    return "crossed" if days.lives else "divided"


def blocks(metric: str, planned: MethodPlan, goal: Requirement) -> Iterator[Block]:
    """The plan of one metric."""
    spread = planned.spread
    name = title(metric).lower()
    fits, users = whole(spread.n_fits), whole(spread.n_users)
    share = percent(planned.share_of_fits, 0, sign=False)
    helps = ": more users will not lessen it, more fits would"
    yield Words(
        f"The methods: {share} of what {fits} fits and {users} users do not tell of {name} is the"
        f" luck of training{helps if planned.share_of_fits >= 0.5 else ''}. They show a lift of"
        f" {_lift(planned.shows)}; twice the users would show {_lift(planned.with_users)}, {MORE}"
        f" more fits {_lift(planned.with_fits)}."
    )
    yield Words(
        f"Standard deviations in parts of the control's mean, with 95% intervals: a user"
        f" {_spread(spread.users, spread.users_ends)}, a fit"
        f" {_spread(spread.fits, spread.fits_ends)}. CPU seconds: {number(planned.costs.fit)} a fit"
        f" of every arm, {number(planned.costs.user)} a user in all arms.",
        note=True,
    )
    if planned.best is None:
        yield Words(
            f"No number of users and fits that was tried shows {percent(goal.lift)} of {name}."
        )
        return
    yield _table(planned)
    yield Words(f"At the least CPU time: {_in_words(planned.best)}.")
    if planned.cautious is not None and planned.cautious != planned.best:
        yield Words(
            f"If a fit varies by {percent(math.sqrt(spread.fits_ends[1]), 1, sign=False)}, the"
            f" upper end of its interval: {_in_words(planned.cautious)}."
        )
    if planned.over_worlds is not None and spread.worlds is not None:
        each = planned.over_worlds
        users = ""
        if spread.same_users:
            users = (
                " These worlds have one seed, and so the same users, whose noise more of them do"
            )
            users += " not average away: worlds with seeds of their own need fewer users in each."
        yield Words(
            f"On average over worlds, between which the lift varies by"
            f" {percent(math.sqrt(spread.worlds), 1, sign=False)}: {whole(each.n_worlds)} worlds,"
            f" in each {_in_words(each)} in all.{users}"
        )
    elif spread.same_users and spread.worlds is not None:
        yield Words(
            "On average over worlds of one seed no plan that was tried shows it: they have the same"
            " users, whose noise more worlds do not average away. Give worlds seeds of their own."
        )


def _lift(lift: float) -> str:
    return f"±{percent(lift, 2, sign=False)}"


def _spread(variance: float, ends: tuple[float, float]) -> str:
    """A standard deviation with its interval, from variances."""
    middle, low, high = (percent(math.sqrt(v), 1, sign=False) for v in (variance, *ends))
    return f"{middle} ({low} to {high})"


def _in_words(one: Allocation) -> str:
    how = "divided over" if one.dealing == "divided" else "each with every one of"
    fits = f"{how} {one.n_fits} fits" if one.n_fits > 1 else "with one fit"
    return f"{whole(one.n_users)} users {fits}, {number(one.seconds)} CPU s"


def _shown(planned: MethodPlan) -> list[Allocation]:
    """The part of the frontier near the cheapest."""
    assert planned.best is not None
    limit = DEAREST * planned.best.seconds
    return [one for one in planned.frontier if one.seconds <= limit]


def _table(planned: MethodPlan) -> Table:
    """Each way of dealing by number of fits: the cheapest, and those beside it."""
    lines = []
    for one in _some(_shown(planned), planned.best):
        best = one == planned.best
        lines.append(
            (
                plain(one.dealing),
                plain(whole(one.n_fits)),
                plain(whole(one.n_users)),
                plain(number(one.seconds)),
                plain(percent(one.share_of_fits, 0, sign=False)),
                Cell("least CPU time" if best else "", kind="good" if best else ""),
            )
        )
    heads = columns("users and fits", "fits", "users", "CPU s", "share of fits", "", text=1)
    return Table("Users and fits", heads, lines)


SHOWN = 8
"""Lines of a table for each way of dealing."""


def _some(shown: Sequence[Allocation], best: Allocation | None) -> list[Allocation]:
    """A few of the plans, evenly spaced, with the cheapest among them."""
    some: list[Allocation] = []
    for dealing in dict.fromkeys(one.dealing for one in shown):
        own = [one for one in shown if one.dealing == dealing]
        step = max(1, -(-len(own) // SHOWN))
        some += [one for i, one in enumerate(own) if i % step == 0 or one == best]
    return some


def drawn(plans: Mapping[str, MethodPlan], lifts: Mapping[str, float]) -> str:
    """CPU time by number of fits, a panel for each metric and way of dealing, as an SVG file."""
    panels = []
    for metric, planned in plans.items():
        if planned.best is None:
            continue
        shown = _shown(planned)
        for dealing in dict.fromkeys(one.dealing for one in shown):
            own = [one for one in shown if one.dealing == dealing]
            points = [
                Point(i, Whiskers(one.seconds, one.seconds, one.seconds), _in_words(one))
                for i, one in enumerate(own)
            ]
            cheapest = min(range(len(own)), key=lambda i: own[i].seconds)
            names = [str(one.n_fits) for one in own]
            heading = f"{title(metric)} {percent(lifts[metric])}: CPU s by fits, {dealing}"
            series = [Series(dealing, 1, points, large=cheapest)]
            panels.append((heading, over_steps(series, names, heading, band=True)))
    label = "CPU seconds of the cheapest test by its number of fits"
    return picture(panels, 2, (380, 170), label)
