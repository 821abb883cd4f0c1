"""The marginals of an event log - rates, quantiles, spreads, curves - each with its standard error;
no targets live here.

What a marginal is called says what it is: `click`, `long_view | click`, `watch p50`, `hour 07`,
`click 15-30 s`, ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from policies.elementary import logs
from policies.time import DAY, HOUR
from simulator.log.answered import answered
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
        watch: s; NaN throughout where the log knows none.
        duration: s; 0 or NaN where unknown.
        kinds: further feedback by name, bool.
        n_users: of the world.
        n_items: of the world.
        days: length of the log.
        uploaded: `[n_items + 1]` ms at which each video appeared, in a catalogue that lives; None:
            all are there always.
        is_timed: whether `t` is a time; else only its order, and that of days, says anything.
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
    is_timed: bool = True

    @cached_property
    def per_user(self) -> Floats:
        """Impressions of each user, `[n_users]`."""
        return np.bincount(self.user, minlength=self.n_users).astype(np.float64)

    @classmethod
    def of(cls, log: EventLog, arm: str | None = None) -> Self:
        """The impressions of one arm of a log, those whose answer was not observed left out
        (`simulator.log.answered`).
        """
        sequences = log.sequences(arm)
        columns = sequences.columns
        kept = answered(log, sequences)
        t = sequences.t[kept]
        days = int(t.max() // DAY - t.min() // DAY + 1) if len(t) else 0
        return cls(
            user=np.repeat(sequences.user, np.diff(sequences.offsets))[kept],
            item=sequences.items[kept],
            t=t,
            click=sequences.clicked[kept],
            watch=columns["watch"][kept].astype(np.float64),
            duration=columns["duration"][kept].astype(np.float64),
            kinds={kind: (columns[kind] == 1)[kept] for kind in FEEDBACK if kind in columns},
            n_users=log.metadata.n_users,
            n_items=log.metadata.n_items,
            days=days,
            uploaded=ItemFacts.of_log(log).uploaded if log.metadata.scenario.get("items") else None,
        )

    def where(self, kept: npt.NDArray[np.bool_]) -> Self:
        """The impressions where `kept` `[N]`; users, items and days stay those of the world."""
        columns = {
            name: getattr(self, name)[kept]
            for name in ("user", "item", "t", "click", "watch", "duration")
        }
        kinds = {kind: answers[kept] for kind, answers in self.kinds.items()}
        return replace(self, kinds=kinds, **columns)

    @property
    def has_watch(self) -> bool:
        """Whether any watch time is known."""
        return bool((~np.isnan(self.watch)).any())

    @property
    def has_duration(self) -> bool:
        """Whether the length of what is shown is known, of most impressions."""
        return bool((self.duration > 0).mean() > 0.5)


def measure(seen: Impressions) -> dict[str, Marginal]:
    """All marginals of these impressions by name, but those of columns that they do not have.

    Raises:
        ValueError: no impressions.
    """
    if not len(seen.user):
        raise ValueError("marginals: a log without impressions has none")
    return {
        **_rates(seen),
        **(_watching(seen) if seen.has_watch else {}),
        **_spreads(seen),
        **_exposure(seen),
        **(_visits(seen) if seen.is_timed else {}),
        **_curves(seen),
        **_life(seen),
    }


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
    if seen.has_duration:
        known = seen.where(seen.duration > 0)
        rows |= _quantiles("watch/duration", known.watch / known.duration, (50, 75, 90), known)
    return rows


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
        noise = click * (1.0 - click) / (n[n >= ENOUGH] - 1)
        enough = len(click) > 1
        sd = float(np.sqrt(max(click.var(ddof=1) - noise.mean(), 0.0))) if enough else np.nan
        rows[f"click sd of {name}s"] = Marginal(sd, np.nan)
        rows[f"click mean of {name}s"] = (
            Marginal(float(click.mean()), float(click.std() / np.sqrt(len(click))))
            if enough
            else _NONE
        )
        if not seen.has_watch:
            continue
        watch = np.bincount(index, seen.watch)[n >= ENOUGH] / n[n >= ENOUGH]
        rows[f"watch mean of {name}s"] = (
            Marginal(float(watch.mean()), float(watch.std() / np.sqrt(len(watch))))
            if enough
            else _NONE
        )
    return rows


_NONE = Marginal(float("nan"), float("nan"))


def _exposure(seen: Impressions) -> dict[str, Marginal]:
    """How concentrated exposure is, over the whole catalogue (as far as it has appeared) and over
    the users who came.
    """
    shown = np.bincount(seen.item, minlength=seen.n_items + 1)[1:]
    if seen.uploaded is not None:
        shown = shown[seen.uploaded[1:] <= seen.t.max()]
    shown = np.sort(shown)
    top = float(shown[len(shown) - len(shown) // 5 :].sum() / shown.sum())
    active = np.sort(seen.per_user[seen.per_user > 0])
    return {
        "exposure gini": Marginal(_gini(shown), np.nan),
        "exposure top 20%": Marginal(top, np.nan),
        "impressions of a user": Marginal(
            float(active.mean()), float(active.std() / np.sqrt(len(active)))
        ),
        "activity gini": Marginal(_gini(active), np.nan),
    }


def _gini(ascending: npt.NDArray[Any]) -> float:
    """The Gini coefficient of counts in ascending order."""
    n = len(ascending)
    rank = np.arange(1, n + 1)
    return float(((2 * rank - n - 1) @ ascending) / (n * ascending.sum()))


PAUSE = 1_800_000
"""ms: a longer pause of a user ends a visit, in a log and in a world alike."""


def _visits(seen: Impressions) -> dict[str, Marginal]:
    """How often users are there, how long, and whether they come back.

    A visit ends with a pause of more than `PAUSE`; it belongs to the day on which it begins.
    """
    order = np.lexsort((seen.t, seen.user))
    user, t = seen.user[order], seen.t[order]
    begins = np.ones(len(user), dtype=bool)
    begins[1:] = (user[1:] != user[:-1]) | (np.diff(t) > PAUSE)
    day = t // DAY - int(t.min()) // DAY
    key = np.unique(user * seen.days + day)
    who, when = key // seen.days, key % seen.days
    active = np.bincount(who, minlength=seen.n_users).astype(np.float64)
    visits = np.bincount(user[begins], minlength=seen.n_users).astype(np.float64)
    came = (active > 0).astype(np.float64)
    rows = {
        "active user-days": _ratio(active / seen.days, came),
        "impressions of an active day": _ratio(seen.per_user, active),
        "visits of an active day": _ratio(visits, active),
    }
    for days, name in RETURNS.items():
        early = when + days < seen.days
        following = np.searchsorted(key, key, side="right")
        following = np.minimum(following, len(key) - 1)
        again = (key[following] - key <= days) & (key[following] > key) & (who[following] == who)
        asked = np.bincount(who[early], minlength=seen.n_users).astype(np.float64)
        total = np.bincount(who[early & again], minlength=seen.n_users)
        rows[name] = _ratio(total, asked)
    return rows


RETURNS = {1: "back the next day", 3: "back within 3 days"}
"""Days after an active day within which a user comes back, and what the marginal is called."""


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
    rows = {}
    if seen.is_timed:
        rows = {f"hour {h:02d}": _ratio(by_hour[:, h], seen.per_user) for h in range(24)}
    for name, (low, high) in DURATIONS.items() if seen.has_duration else ():
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
