"""Totals of the days of a log that were kept back, as worlds fitted to the days before foretell
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from policies.time import DAY
from simulator.calibration.log_targets import LogFigures
from simulator.calibration.marginals import Impressions
from simulator.calibration.targets import LOGGING, world_log
from simulator.scenario.model import Scenario
from simulator.users.base import Source
from simulator.users.learned.evaluation import Total

Floats = npt.NDArray[np.float64]

TOLERANCE = 0.05
"""Relative: how far a day's total may be from the real one."""

CLICKS, WATCH, IMPRESSIONS, ACTIVE = "clicks", "watch time", "impressions", "active users"


@dataclass(frozen=True)
class DayForecast:
    """A day's total as it was foretold, and as it was.

    Attributes:
        by: which world foretells it: `learned` answers what the log has shown on that day, to whom
            it was shown; `choice` foretells visits, too, of users who are known from the days
            before.
        day: 1 = the first that was kept back.
        what: clicks, watch time (s), impressions, active users.
        forecast, actual: totals.
        error: forecast / actual - 1; there is no row where nothing occurred.
        noise: standard error of the truth as a share of it: of `learned`, of the answers; of
            `choice`, of users, and what days of training differed by.
        within: whether the error is within the tolerance, or not more than two standard errors
            beyond.
    """

    by: Literal["learned", "choice"]
    day: int
    what: str
    forecast: float
    actual: float
    error: float
    noise: float
    within: bool


def _row(
    by: Literal["learned", "choice"],
    day: int,
    what: str,
    forecast: float,
    actual: float,
    noise: float,
) -> DayForecast:
    error = float(forecast / actual - 1.0)
    within = bool(abs(error) <= TOLERANCE + 2.0 * np.nan_to_num(noise))
    return DayForecast(by, day, what, float(forecast), float(actual), error, noise, within)


def of_learned(totals: Sequence[Total]) -> list[DayForecast]:
    """Clicks and watch time of each kept-back day, from the evaluation of a response model."""
    names = {"click": CLICKS, "watch": WATCH}
    rows = []
    for total in totals:
        day = total.group.removeprefix("day ")
        if day != total.group and total.what in names and total.actual > 0:
            what = names[total.what]
            row = _row("learned", int(day), what, total.predicted, total.actual, total.noise)
            rows.append(row)
    return rows


def of_choice(
    figures: LogFigures, scenario: Scenario, source: Source, days: int
) -> list[DayForecast]:
    """What a `choice` world, fitted to the days before, foretells of kept-back days: it goes on
    living, and each of its users stands for as many of the log's as there are for one of them.

    Args:
        figures: of the training days.
        scenario: the fitted world.
        source: with the future.
        days: that were kept back.
    """
    world = world_log(scenario, scenario.seed, LOGGING, Path(), ahead=days)
    # The world's clock ends at 0; its history ended `days` days before.
    history = world.t < -days * DAY
    per_user = len(figures.users) / len(np.unique(world.user[history]))
    assert source.future is not None
    real = Impressions.of(source.future)
    known = real.where(np.isin(real.user, figures.users))
    simulated = _by_day(world, -days, days)
    actual = _by_day(known, 0, days)
    noise = _noise(figures, known, days)
    wanted = [CLICKS] if figures.is_implicit else [CLICKS, IMPRESSIONS]
    if "watch time" not in figures.not_measured:
        wanted.append(WATCH)
    if figures.whole.is_timed and not figures.is_implicit:
        wanted.append(ACTIVE)
    return [
        _row("choice", d + 1, what, per_user * simulated[what][d], actual[what][d], noise[what][d])
        for d in range(days)
        for what in wanted
        if actual[what][d] > 0
    ]


def _by_day(seen: Impressions, first: int, days: int) -> Mapping[str, Floats]:
    """Totals of each of some days from `first` on, `[days]`."""
    day = seen.t // DAY - first
    kept = (day >= 0) & (day < days)
    day, user = day[kept], seen.user[kept]
    active = np.unique(user * days + day) % days
    watch = np.nan_to_num(seen.watch[kept])
    return {
        CLICKS: np.bincount(day, seen.click[kept], minlength=days).astype(np.float64),
        WATCH: np.bincount(day, watch, minlength=days).astype(np.float64),
        IMPRESSIONS: np.bincount(day, minlength=days).astype(np.float64),
        ACTIVE: np.bincount(active, minlength=days).astype(np.float64),
    }


def _noise(figures: LogFigures, real: Impressions, days: int) -> Mapping[str, Floats]:
    """Relative standard errors of the real totals `[days]`: users are drawn, and days differ by
    more than that, as the days of training did.
    """
    whole = figures.whole
    trained = _by_day(whole, -whole.days, whole.days)
    noise = {}
    for what in (CLICKS, WATCH, IMPRESSIONS, ACTIVE):
        errors = np.array([_error_by_users(real, day, what) for day in range(days)])
        totals = trained[what]
        if whole.is_timed and whole.days > 2 and totals.mean() > 0:
            errors = np.hypot(errors, totals.std(ddof=1) / totals.mean())
        noise[what] = errors
    return noise


def _error_by_users(real: Impressions, day: int, what: str) -> float:
    """Relative standard error of a day's total between users."""
    here = real.t // DAY == day
    weights = {CLICKS: real.click, WATCH: np.nan_to_num(real.watch)}.get(what)
    values = None if weights is None else weights[here]
    sums = np.bincount(real.user[here], values)
    if what == ACTIVE:
        sums = (sums > 0).astype(np.float64)
    total = float(sums.sum())
    return float(np.sqrt(np.square(sums).sum())) / total if total > 0 else float("nan")
