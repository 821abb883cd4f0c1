"""What a log says of its users, as targets for a world: marginals of its training days, each with
its standard error; and what it does not say, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from policies.base import IntArray
from policies.streams import Purpose, uniform
from policies.time import DAY
from simulator.calibration.marginals import (
    DURATIONS,
    ENOUGH,
    Impressions,
    Marginal,
    catalogue,
    measure,
)
from simulator.calibration.targets import CATALOGUE, CLICKS, LOGGING, PublishedFigure
from simulator.log.eventlog import EventLog
from simulator.users.base import Source, UsersError
from simulator.users.choice.parameters import VALID_PLAY

WINDOW = 14
"""Days before the kept-back ones on which a log is measured, at most."""

FRAGMENT = 0.2
"""A first day with less than this share of a usual day's impressions is a fragment of a day."""

PRECISE = 0.05
"""Relative standard error above which a figure is not known well enough to be a target."""

MANY = 100
"""Users or items with at least `ENOUGH` impressions, below which their spread is not known."""

OF_SIZE = (
    *("exposure gini", "exposure top 20%"),
    *("click sd of videos", "click mean of videos", "watch mean of videos"),
)
"""Marginals that depend on how many users there are for the items: measured on as many users as the
world has.
"""


@dataclass(frozen=True)
class LogFigures:
    """What a log says of its users.

    Attributes:
        targets: for the world.
        not_measured: what the log does not know, and why.
        too_few: marginals that the log is too small for, and why.
        whole: the impressions of the training days that were measured.
        users: of the log on these days, `[n]` ids, ascending.
        world_users, world_items: how many the world is to have.
        seen: the impressions of as many users as the world has, renumbered.
        lengths: of the items that were shown, s; empty where none is known.
        is_implicit: whether every row of the log is a click.
    """

    targets: tuple[PublishedFigure, ...]
    not_measured: Mapping[str, str]
    too_few: Mapping[str, str]
    whole: Impressions
    users: IntArray
    world_users: int
    world_items: int
    seen: Impressions
    lengths: npt.NDArray[np.float64]
    is_implicit: bool


def measure_log(
    source: Source, most_users: int, seed: int, click_rate: float, no_days: str = ""
) -> LogFigures:
    """Measure the training days of a log.

    Args:
        source: with history (t < 0).
        most_users: of the world.
        seed: decides which users stand for all where a figure depends on their number.
        click_rate: assumed where every row is a click.
        no_days: why its days are no days; "" where they are.

    Raises:
        UsersError: no history with answers.
    """
    whole = _window(_impressions(source.history), is_timed=not no_days)
    is_implicit = bool(whole.click.all())
    n_items = int(whole.item.max())
    everybody = np.unique(whole.user)
    n_users = min(most_users, len(everybody))
    rank = np.argsort(uniform(seed, Purpose.RESAMPLE, everybody), kind="stable")
    sample = _of_users(whole, np.sort(everybody[rank[:n_users]]))
    figures, of_size = measure(whole), measure(sample)
    figures |= {name: of_size[name] for name in OF_SIZE if name in of_size}
    feed = CLICKS if is_implicit else LOGGING
    reasons = _reasons(whole, no_days, click_rate if is_implicit else None)
    targets, too_few = _targets(feed, figures, sample, reasons)
    if is_implicit:
        targets.insert(0, PublishedFigure(LOGGING, "click", click_rate))
    lengths = _durations(whole) if whole.has_duration else np.zeros(0)
    if len(lengths):
        of_items = catalogue(lengths)
        targets += [PublishedFigure(CATALOGUE, name, one.value) for name, one in of_items.items()]
    return LogFigures(
        tuple(targets),
        reasons,
        too_few,
        whole,
        everybody,
        n_users,
        n_items,
        sample,
        lengths,
        is_implicit,
    )


def share_of_returning(source: Source) -> float:
    """The share of a log's users, of those of its last days of training, who came on more than one
    of these.

    Raises:
        UsersError: no history with answers.
    """
    seen = _window(_impressions(source.history), is_timed=True)
    user_days = np.unique(seen.user * seen.days + seen.t // DAY + seen.days)
    days_of = np.bincount(user_days // seen.days)
    return float((days_of > 1).sum() / (days_of > 0).sum())


def _impressions(history: EventLog | None) -> Impressions:
    seen = Impressions.of(history) if history is not None else None
    if seen is None or not len(seen.user):
        raise UsersError(
            "a world needs a log with answers before its kept-back days; it has none there"
        )
    return seen


def _window(seen: Impressions, *, is_timed: bool) -> Impressions:
    """The last `WINDOW` days of a history, without a fragment of a day at its beginning; items that
    were shown there are numbered from 1.
    """
    day = seen.t // DAY
    first = max(int(day.min()), -WINDOW)
    per_day = np.bincount((day - first)[day >= first], minlength=-first)
    if is_timed and len(per_day) > 2 and per_day[0] < FRAGMENT * np.median(per_day):
        first += 1
    seen = seen.where(day >= first)
    _, item = np.unique(seen.item, return_inverse=True)
    n_items = int(item.max()) + 1
    return replace(seen, item=item + 1, n_items=n_items, days=-first, is_timed=is_timed)


def _of_users(seen: Impressions, users: IntArray) -> Impressions:
    """The impressions of some users `[n]`, ascending, renumbered from 0."""
    chosen = seen.where(np.isin(seen.user, users))
    user = np.searchsorted(users, chosen.user).astype(np.int64)
    return replace(chosen, user=user, n_users=len(users))


def _durations(seen: Impressions) -> npt.NDArray[np.float64]:
    """The longest length of each item that was shown, s."""
    longest = np.zeros(seen.n_items + 1)
    np.fmax.at(longest, seen.item, seen.duration)
    return longest[longest > 0]


def _targets(
    feed: str,
    figures: Mapping[str, Marginal],
    sample: Impressions,
    reasons: Mapping[str, str],
) -> tuple[list[PublishedFigure], dict[str, str]]:
    """The figures that are known well enough, and the others with the reason."""
    targets, unknown = [], {}
    for name, (value, error) in figures.items():
        se = float(np.nan_to_num(error))
        if _is_about(name, reasons):
            continue
        if not np.isfinite(value):
            unknown[name] = "too few impressions"
        elif value <= 0.0:
            unknown[name] = "0 in the log"
        elif se > PRECISE * value:
            unknown[name] = f"its standard error is {se / value:.0%} of it"
        elif not _has_many(name, sample):
            unknown[name] = f"fewer than {MANY} have {ENOUGH} impressions"
        else:
            targets.append(PublishedFigure(feed, name, float(value), se))
    return targets, unknown


def _has_many(name: str, seen: Impressions) -> bool:
    """Whether a figure of users or of videos is of many of them."""
    index = {" of users": seen.user, " of videos": seen.item}
    ids = next((ids for ending, ids in index.items() if name.endswith(ending)), None)
    if ids is None or name.startswith("click of "):
        return True
    return int((np.bincount(ids) >= ENOUGH).sum()) >= MANY


_ABOUT: Mapping[str, tuple[str, ...]] = {
    "click rates": ("click",),
    "watch time": ("watch",),
    "lengths of items": ("watch/duration", *(f"click {bucket}" for bucket in DURATIONS)),
    "days, hours and returns": ("hour", "back", "active user-days", "visits"),
}


def _is_about(name: str, reasons: Mapping[str, str]) -> bool:
    """Whether a marginal is of what the log does not know, or what the world cannot do."""
    return any(name.startswith(start) for what in reasons for start in _ABOUT.get(what, ()))


def _reasons(seen: Impressions, no_days: str, assumed: float | None) -> dict[str, str]:
    """What a log does not know, and why; `assumed` is the click rate of a log of clicks alone."""
    reasons = {"random exposure": "the log has no feed that was shown at random"}
    if assumed is not None:
        reasons["click rates"] = (
            "every row of the log is a click, and what was shown and not clicked is not there;"
            f" assumed is a click rate of {assumed:g} (--click-rate)"
        )
    if not seen.has_watch:
        reasons["watch time"] = "the log has none"
    elif assumed is None:
        agreed = _agreement(seen)
        if agreed < 0.9:
            reasons["watch time"] = (
                f"a click of the world is a play of {VALID_PLAY:g} s, or of the whole item, and in"
                f" the log this holds for {agreed:.0%} of impressions only"
            )
    if not seen.has_duration:
        reasons["lengths of items"] = "the log has none"
    if no_days:
        reasons["days, hours and returns"] = (
            f"{no_days}; parts of each user's rows, in their order, stand for days"
        )
    return reasons


def _agreement(seen: Impressions) -> float:
    """The share of impressions whose click is a play of `VALID_PLAY` or of the whole item."""
    length = np.where(seen.duration > 0, seen.duration, np.inf)
    # Lengths are rounded: what is watched to all but a tenth of a second is watched to the end.
    played = seen.watch >= np.minimum(VALID_PLAY, length - 0.1)
    return float((played == seen.click)[~np.isnan(seen.watch)].mean())
