"""The marginals of an event log - rates, quantiles, spreads, curves - each with its standard error;
no targets live here.

What a marginal is called says what it is: `click`, `long_view | click`, `watch p50`, `hour 07`,
`click 15-30 s`, ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from policies.elementary import logs
from policies.time import DAY, HOUR
from simulator.log.eventlog import EventLog
from simulator.log.items import ItemFacts
from simulator.log.kinds import FEEDBACK

Floats = npt.NDArray[np.float64]

QUANTILES = (10, 25, 50, 75, 90, 99)
"""Per cent."""

DURATIONS = {
    "0-15 s": (0.0, 15.0),
    "15-30 s": (15.0, 30.0),
    "30-60 s": (30.0, 60.0),
    "60-120 s": (60.0, 120.0),
    ">120 s": (120.0, np.inf),
}
"""Buckets of a video's duration."""

ACTIVITY = {
    "full-active": (0.0, 0.658),
    "high": (0.658, 0.884),
    "middle": (0.884, 0.962),
    "low": (0.962, 1.0),
}
"""Classes of users by rank of activity, from the busiest: the shares of KuaiRand-Pure's
`user_active_degree`.
"""

ENOUGH = 20
"""Impressions that a user or a video must have to count in a spread: below that the noise's
variance is badly known.
"""


class Marginal(NamedTuple):
    """A figure of a log and its standard error (users are the clusters; NaN where no error is
    given).
    """

    value: float
    se: float


@dataclass(frozen=True)
class Impressions:
    """The columns that marginals are measured on, each `[N]`; several logs of one world may be put
    together.

    Attributes:
        user: ids 0..n_users-1.
        item: ids 1..n_items.
        t: ms.
        click: bool.
        watch: s.
        duration: s.
        kinds: further feedback by name, bool.
        n_users: of the world.
        n_items: of the world.
        days: length of the log.
        uploaded: `[n_items + 1]` ms at which each video appeared, in a catalogue that lives; None:
            all are there always.
    """

    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    t: npt.NDArray[np.int64]
    click: npt.NDArray[np.bool_]
    watch: Floats
    duration: Floats
    kinds: Mapping[str, npt.NDArray[np.bool_]]
    n_users: int
    n_items: int
    days: int
    uploaded: Floats | None = None

    @cached_property
    def per_user(self) -> Floats:
        """Impressions of each user, `[n_users]`."""
        return np.bincount(self.user, minlength=self.n_users).astype(np.float64)

    @classmethod
    def of(cls, log: EventLog, arm: str | None = None) -> Self:
        """The impressions of one arm of a log, those without an observed click or watch time left
        out.
        """
        sequences = log.sequences(arm)
        columns = sequences.columns
        has_watch = ~np.isnan(columns["watch"])
        t = sequences.t[has_watch]
        days = int(t.max() // DAY - t.min() // DAY + 1) if len(t) else 0
        return cls(
            user=np.repeat(sequences.user, np.diff(sequences.offsets))[has_watch],
            item=sequences.items[has_watch],
            t=t,
            click=sequences.clicked[has_watch],
            watch=columns["watch"][has_watch].astype(np.float64),
            duration=columns["duration"][has_watch].astype(np.float64),
            kinds={kind: (columns[kind] == 1)[has_watch] for kind in FEEDBACK if kind in columns},
            n_users=log.metadata.n_users,
            n_items=log.metadata.n_items,
            days=days,
            uploaded=ItemFacts.of_log(log).uploaded if log.metadata.scenario.get("items") else None,
        )


def measure(seen: Impressions) -> dict[str, Marginal]:
    """All marginals of these impressions by name.

    Raises:
        ValueError: no impressions.
    """
    if not len(seen.user):
        raise ValueError("marginals: a log without impressions has none")
    alike = {**_rates(seen), **_watching(seen), **_spreads(seen), **_exposure(seen)}
    return {**alike, **_curves(seen), **_life(seen)}


def catalogue(duration: Floats) -> dict[str, Marginal]:
    """The marginals of the videos' durations `[n_items]` (s), whatever is exposed."""
    lengths = logs(duration)
    rows = {
        f"catalogue duration p{q}": Marginal(float(np.percentile(duration, q)), np.nan)
        for q in QUANTILES[:5]
    }
    rows["catalogue ln duration mean"] = Marginal(float(lengths.mean()), np.nan)
    rows["catalogue ln duration sd"] = Marginal(float(lengths.std()), np.nan)
    return rows


def _mean(
    values: npt.NDArray[Any], seen: Impressions, among: npt.NDArray[np.bool_] | None = None
) -> Marginal:
    """The mean over the impressions `among`, with the standard error of a ratio of users' sums
    (linearisation).
    """
    if among is None:
        return _ratio(np.bincount(seen.user, values, minlength=seen.n_users), seen.per_user)
    user = seen.user[among]
    n = np.bincount(user, minlength=seen.n_users).astype(np.float64)
    return _ratio(np.bincount(user, values[among], minlength=seen.n_users), n)


def _ratio(total: npt.NDArray[Any], n: Floats) -> Marginal:
    """The ratio of the sums of `total` and `n`, both by user, `[n_users]`."""
    if n.sum() == 0:
        return Marginal(float("nan"), float("nan"))
    mean = total.sum() / n.sum()
    residual = total - mean * n
    return Marginal(float(mean), float(np.sqrt((residual**2).sum()) / n.sum()))


def _rates(seen: Impressions) -> dict[str, Marginal]:
    rows = {"click": _mean(seen.click, seen)}
    for kind, answers in seen.kinds.items():
        rows[kind] = _mean(answers, seen)
        rows[f"{kind} | click"] = _mean(answers, seen, seen.click)
        rows[f"{kind} | no click"] = _mean(answers, seen, ~seen.click)
    return rows


def _watching(seen: Impressions) -> dict[str, Marginal]:
    watched = seen.watch
    rows = _quantiles("watch", watched, QUANTILES, seen)
    rows["watch mean"] = _mean(watched, seen)
    rows["watch zero"] = _mean(watched == 0.0, seen)
    clicked = _quantiles("watch", watched, (50,), seen, seen.click) if seen.click.any() else {}
    rows["watch p50 | click"] = clicked.get("watch p50", _NONE)
    rows["watch mean | click"] = _mean(watched, seen, seen.click)
    return rows | _quantiles("watch/duration", watched / seen.duration, (50, 75, 90), seen)


def _quantiles(
    name: str,
    values: Floats,
    levels: Sequence[int],
    seen: Impressions,
    among: npt.NDArray[np.bool_] | None = None,
) -> dict[str, Marginal]:
    """Quantiles at some levels (%) over the impressions `among`. The standard error of a quantile
    is half the way between those one standard error of the share below it to either side (Woodruff,
    "Confidence intervals for medians and other position measures", JASA 1952): where few values
    lie, as just above the mass at 0 s, it is large.
    """
    ordered = np.sort(values if among is None else values[among])
    rows = {}
    for level in levels:
        value = float(np.percentile(ordered, level))
        error = 100.0 * _mean(values <= value, seen, among).se
        ends = np.clip([level - error, level + error], 0.0, 100.0)
        low, high = np.percentile(ordered, ends)
        rows[f"{name} p{level}"] = Marginal(value, float(high - low) / 2.0)
    return rows


def _spreads(seen: Impressions) -> dict[str, Marginal]:
    """Standard deviations of true click rates: the binomial noise is taken out of the observed
    variance.
    """
    rows = {}
    for name, index in (("user", seen.user), ("video", seen.item)):
        n = np.bincount(index)
        click = np.bincount(index, seen.click)[n >= ENOUGH] / n[n >= ENOUGH]
        watch = np.bincount(index, seen.watch)[n >= ENOUGH] / n[n >= ENOUGH]
        noise = click * (1.0 - click) / (n[n >= ENOUGH] - 1)
        enough = len(click) > 1
        sd = float(np.sqrt(max(click.var(ddof=1) - noise.mean(), 0.0))) if enough else np.nan
        rows[f"click sd of {name}s"] = Marginal(sd, np.nan)
        rows[f"click mean of {name}s"] = (
            Marginal(float(click.mean()), float(click.std() / np.sqrt(len(click))))
            if enough
            else _NONE
        )
        rows[f"watch mean of {name}s"] = (
            Marginal(float(watch.mean()), float(watch.std() / np.sqrt(len(watch))))
            if enough
            else _NONE
        )
    return rows


_NONE = Marginal(float("nan"), float("nan"))


def _exposure(seen: Impressions) -> dict[str, Marginal]:
    """How concentrated exposure is over the whole catalogue (as far as it has appeared), and how
    often users are there.
    """
    shown = np.bincount(seen.item, minlength=seen.n_items + 1)[1:]
    if seen.uploaded is not None:
        shown = shown[seen.uploaded[1:] <= seen.t.max()]
    shown = np.sort(shown)
    rank = np.arange(1, len(shown) + 1)
    gini = float(((2 * rank - len(shown) - 1) @ shown) / (len(shown) * shown.sum()))
    top = float(shown[len(shown) - len(shown) // 5 :].sum() / shown.sum())
    day = seen.t // DAY
    active_days = len(np.unique(seen.user * (day.max() - day.min() + 1) + day - day.min()))
    share = active_days / (len(np.unique(seen.user)) * seen.days)
    return {
        "exposure gini": Marginal(gini, np.nan),
        "exposure top 20%": Marginal(top, np.nan),
        "active user-days": Marginal(share, np.nan),
    }


WEEK = 7
"""Days after its upload at which a video's impressions are compared with those of its best day."""


def _life(seen: Impressions) -> dict[str, Marginal]:
    """When the videos of a catalogue that lives are shown most, in days of which the first is that
    of the upload, and what is left of it a week after the upload; of those whose first days are all
    in the log. The best day is the vertex of the parabola through the logarithms of the greatest
    day and the two beside it; errors are those of users' sums (delta method).
    """
    if seen.uploaded is None:
        return {}
    born = np.floor(seen.uploaded / DAY).astype(np.int64)
    day = seen.t // DAY
    is_whole = (born >= day.min()) & (born + WEEK <= day.max())
    age = day - born[seen.item]
    counts = is_whole[seen.item] & (age <= WEEK)
    cell = seen.user[counts] * (WEEK + 1) + age[counts]
    n = np.bincount(cell, minlength=seen.n_users * (WEEK + 1)).reshape(-1, WEEK + 1)
    total = n.sum(axis=0).astype(np.float64)
    if not total.any():  # the log is too short
        return {"life best day": _NONE, "life day 8 / best day": _NONE}
    best = int(total.argmax())
    left = _ratio(n[:, WEEK], n[:, best].astype(np.float64))
    peak = Marginal(float(best + 1), np.nan)
    around = [best - 1, best, best + 1]
    if 0 < best < WEEK and total[around].all():
        low, top, high = logs(total[around])
        bend, slope = low - 2.0 * top + high, low - high
        moved = n[:, around] / total[around]
        by = np.array([1.0, 0.0, -1.0]) / (2.0 * bend)
        by -= np.array([1.0, -2.0, 1.0]) * slope / (2.0 * bend**2)
        error = float(np.sqrt(((moved * by).sum(axis=1) ** 2).sum()))
        peak = Marginal(float(best + 1 + slope / (2.0 * bend)), error)
    return {"life best day": peak, "life day 8 / best day": left}


def _curves(seen: Impressions) -> dict[str, Marginal]:
    hour = seen.t % DAY // HOUR
    by_hour = np.bincount(seen.user * 24 + hour, minlength=seen.n_users * 24).reshape(-1, 24)
    rows = {f"hour {h:02d}": _ratio(by_hour[:, h], seen.per_user) for h in range(24)}
    for name, (low, high) in DURATIONS.items():
        rows[f"click {name}"] = _mean(
            seen.click, seen, (seen.duration > low) & (seen.duration <= high)
        )
    n = np.bincount(seen.user, minlength=seen.n_users)
    users = np.argsort(-n, kind="stable")[: int((n > 0).sum())]
    rate = np.bincount(seen.user, seen.click, minlength=seen.n_users)[users] / n[users]
    for name, (first, last) in ACTIVITY.items():
        group = rate[round(first * len(users)) : round(last * len(users))]
        rows[f"click of {name} users"] = (
            Marginal(float(group.mean()), float(group.std() / np.sqrt(len(group))))
            if len(group)
            else _NONE
        )
    return rows
