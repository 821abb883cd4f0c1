"""Which early metric foretells the late lift, over many pairs of policies.

Each pair of arms of a run is a case: what a metric said of the two after the first days, and what
the target metric said of them over the last ones. Policies are what is random. They are drawn, and
a pair is two of them, so pairs are not independent: an interval is that of a jackknife which leaves
one policy out, with all its pairs (Arvesen, "Jackknifing U-statistics", Annals of Mathematical
Statistics 1969; the share of pairs with the same sign is one, (1 + Kendall's tau) / 2). Where no
policy that is left out changes anything the jackknife has no width, though a further policy might;
so an interval holds at least what one further policy could make of the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from policies.base import DoubleArray, Progress, silent
from policies.elementary import logs
from simulator.log.eventlog import EventLog
from simulator.log.metrics import METRICS, chosen
from simulator.page.words import listed
from simulator.report import check_distinct, find
from simulator.report.catalogues import Lived
from simulator.report.errors import ReportError
from simulator.stats import units
from simulator.stats.freshness import Freshness
from simulator.stats.intervals import quantile
from simulator.stats.user_days import UserDays

HORIZONS = (1, 3, 7, 14, 28)
"""Days after which is looked, where nothing else is asked for."""

EARLY = ("watch_time", "click", "return", "sessions", "click_rate", "impressions")
"""Metrics of users that are looked at besides those of the scenario."""

FRESH, CREATORS = "fresh share", "creators left"
"""What a catalogue that lives adds to the metrics of users."""

ITSELF = "other users"
"""In the place of an early metric: the late lift of one half of the users, to foretell that of the
other half, which is what can be known of it at all."""

LEAST_PAIRS = 3
"""Pairs of policies without which nothing is said (three policies)."""

LEVEL = 0.95


@dataclass(frozen=True)
class Foresight:
    """How well one early figure foretells the late lift.

    Attributes:
        metric: its name, or ITSELF.
        day: after how many days; of ITSELF, all.
        agreement: share of pairs whose early and late lift have the same sign; a tie is half one.
        agreement_low, agreement_high: its 95% interval over policies.
        rank: Spearman's correlation of early and late lifts over pairs, each taken both ways round.
        rank_low, rank_high: its 95% interval over policies.
        pairs: that have both lifts.
    """

    metric: str
    day: int
    agreement: float
    agreement_low: float
    agreement_high: float
    rank: float
    rank_low: float
    rank_high: float
    pairs: int


@dataclass(frozen=True)
class PairLifts:
    """A pair of policies.

    Attributes:
        run: in which they were.
        arm, control: their names.
        late: the lift of arm over control in the target metric over the last days.
        early: its lift in the best early figure.
    """

    run: str
    arm: str
    control: str
    late: float
    early: float


@dataclass(frozen=True)
class Foretold:
    """The content of foretell.json (docs/living.md).

    Attributes:
        target: the metric whose late lift is foretold.
        first, last: the days of it, from 1.
        runs: their folders.
        policies: how many there are, those of different runs counted apart.
        pairs: of policies within a run.
        rows: every early figure, by metric and day, then ITSELF.
        best: metric and day of the figure of greatest rank correlation.
        lifts: every pair, with the lifts of the target and of the best figure.
    """

    target: str
    first: int
    last: int
    runs: tuple[str, ...]
    policies: int
    pairs: int
    rows: tuple[Foresight, ...]
    best: tuple[str, int]
    lifts: tuple[PairLifts, ...]

    @property
    def best_row(self) -> Foresight:
        """The early figure of greatest rank correlation."""
        return next(row for row in self.rows if (row.metric, row.day) == self.best)


def foretell(
    paths: Sequence[Path],
    *,
    target: str | None = None,
    metrics: Sequence[str] = (),
    horizons: Sequence[int] = (),
    window: int = 7,
    progress: Progress = silent,
) -> Foretold:
    """Which early metric foretells the late lift over all pairs of arms of some runs.

    Args:
        paths: finished runs of the same length.
        target: the metric of the late lift; the first success of the first run's scenario if left
            out, else watch time, else clicks.
        metrics: early ones; those of the scenario and EARLY if left out. What a living catalogue
            adds is always looked at.
        horizons: days after which is looked; of HORIZONS those that end before the last days.
        window: how many last days the late lift is of.
        progress: of reading.

    Raises:
        ReportError: runs of different lengths or too short, too few pairs, a horizon that reaches
            into the last days, a target that is missing or of the supply side.
        MetricError: there is no such metric.
    """
    check_distinct(paths)
    for name in [*metrics, *([] if target is None else [target])]:
        if chosen((name,))[0].supply is not None:
            raise ReportError(f"foretell: {name!r} is of the supply side; give metrics of users")
    measured: list[_Measured] = []
    for i, path in enumerate(paths):
        progress("read the runs", i, len(paths), {})
        measured.append(_Measured.of(path, target, metrics, window, horizons))
        target = measured[0].target
        if measured[i].days != measured[0].days:
            raise ReportError(
                f"{path}: has {measured[i].days} days, {paths[0]} has {measured[0].days}; foretell"
                " compares the same days: give runs of one length"
            )
    progress("read the runs", len(paths), len(paths), {})
    late = [one.late for one in measured]
    n_pairs = sum(len(values) * (len(values) - 1) // 2 for values in late)
    if n_pairs < LEAST_PAIRS:
        raise ReportError(
            f"foretell: needs at least {LEAST_PAIRS} pairs of arms; {listed([*map(str, paths)])}"
            f" have {n_pairs}: give a run of three arms or more, or further runs"
        )
    names = [key for key in measured[0].early if all(key in one.early for one in measured)]
    rows = [_foresight(*key, [one.early[key] for one in measured], late) for key in names]
    halves = [[one.halves[i] for one in measured] for i in (0, 1)]
    rows.append(_foresight(ITSELF, measured[0].days, *halves))
    best = max(rows[:-1], key=lambda row: (np.nan_to_num(row.rank, nan=-2.0), -row.day))
    key = best.metric, best.day
    pairs = [
        PairLifts(
            str(path),
            one.arms[b],
            one.arms[a],
            float(np.expm1(one.late[b] - one.late[a])),
            float(np.expm1(one.early[key][b] - one.early[key][a])),
        )
        for path, one in zip(paths, measured, strict=True)
        for a, b in combinations(range(len(one.arms)), 2)
    ]
    days = measured[0].days
    return Foretold(
        str(target),
        days - window + 1,
        days,
        tuple(map(str, paths)),
        sum(map(len, late)),
        n_pairs,
        tuple(rows),
        key,
        tuple(pairs),
    )


@dataclass(frozen=True)
class _Measured:
    """A run as it is looked at: logarithms of what each arm has, so that a lift is a difference.

    Attributes:
        arms: names.
        days: of the A/B.
        target: metric of the late lift.
        early: by metric and day, `[arms]`.
        late: `[arms]` of all users; `halves`: of every second one, and of the others.
    """

    arms: tuple[str, ...]
    days: int
    target: str
    early: Mapping[tuple[str, int], DoubleArray]
    late: DoubleArray
    halves: tuple[DoubleArray, DoubleArray]

    @classmethod
    def of(
        cls,
        path: Path,
        target: str | None,
        metrics: Sequence[str],
        window: int,
        horizons: Sequence[int],
    ) -> _Measured:
        log, _ = find(path)
        meta = log.metadata
        if meta.design.unit != "user" or meta.design.shares_slates:
            raise ReportError(
                f"{path}: in a {meta.design.kind} design arms are not served to users of their own"
                " on every day; foretell needs paired, split or clusters"
            )
        own = [m.name for m in chosen(meta.scenario.get("metrics", ())) if m.supply is None]
        asked = list(
            dict.fromkeys([*(metrics or [*own, *EARLY]), *own, *([target] if target else [])])
        )
        days = units.read(log, asked)
        if target is None:
            target = _default_target(days)
        if target in days.missing or target not in days.metrics:
            raise ReportError(f"{path}: its log has no data for the target {target!r}")
        until = days.days - window
        looked = [day for day in horizons or HORIZONS if horizons or day <= until]
        beyond = [day for day in looked if day > until]
        if not looked or beyond:
            said = f"--day {beyond[0]}" if beyond else f"a look after day {HORIZONS[0]}"
            raise ReportError(
                f"{path}: has {days.days} days, of which the last {window} are the late ones"
                f" (--window): {said} must end by day {max(until, 0)}; give a longer run, or a"
                " smaller window"
            )
        shown = [name for name in metrics or asked if name not in days.missing]
        early = {
            (name, day): _level(days, name, 0, day) for name in shown for day in sorted(looked)
        }
        early |= _of_catalogue(log, sorted(looked), days)
        everybody, odd = np.ones(days.n_users, dtype=bool), np.arange(days.n_users) % 2 == 1
        late, *halves = (
            _level(days, target, until, days.days, who) for who in (everybody, odd, ~odd)
        )
        return cls(days.arms, days.days, target, early, late, (halves[0], halves[1]))


def _default_target(days: UserDays) -> str:
    """The first success of a scenario, else watch time, else clicks."""
    roles = [name for name, metric in days.metrics.items() if metric.role == "success"]
    known = [*roles, "watch_time", "click"]
    return next((name for name in known if name not in days.missing), "click")


def _level(
    days: UserDays, name: str, first: int, until: int, who: np.ndarray | None = None
) -> DoubleArray:
    """The logarithm of a metric of each arm over some days, `[arms]`: a ratio of sums, or a sum
    over the users of the arm; NaN where it is 0.
    """
    metric = days.metrics[name] if name in days.metrics else METRICS[name]
    kept = slice(None) if who is None else who
    sums = []
    for term in metric.terms:
        values = days.terms[term.name][:, kept, first:until]
        values = values if term.days is None else term.days(values)
        sums.append(values.sum(axis=(1, 2), dtype=np.float64))
    if len(sums) == 1:
        counted = np.arange(days.n_users)[kept]
        n = np.full(len(days.arms), len(counted), dtype=np.float64)
        if days.assigned is not None:
            n = np.bincount(days.assigned[counted], minlength=len(days.arms)).astype(np.float64)
        sums.append(n)
    with np.errstate(invalid="ignore", divide="ignore"):
        level = sums[0] / sums[1]
    return _logarithms(level)


def _logarithms(level: DoubleArray) -> DoubleArray:
    out = np.full(len(level), np.nan)
    is_there = level > 0
    out[is_there] = logs(level[is_there])
    return out


def _of_catalogue(
    log: EventLog, horizons: Sequence[int], days: UserDays
) -> dict[tuple[str, int], DoubleArray]:
    """Fresh share and creators left of each arm at each horizon; {} where no catalogue lives."""
    lived = Lived.of_log(log)
    if lived is None:
        return {}
    freshness = Freshness.of(log, lived.uploaded)
    place = [log.metadata.compared.index(arm) for arm in days.arms]
    found: dict[tuple[str, int], DoubleArray] = {}
    for day in horizons:
        fresh = np.array([freshness.share(arm, 0, day)[0] for arm in place])
        left = np.array([lived.active(arm, day).mean() for arm in days.arms])
        found[FRESH, day], found[CREATORS, day] = _logarithms(fresh), _logarithms(left)
    return found


def _foresight(
    metric: str, day: int, early: Sequence[DoubleArray], late: Sequence[DoubleArray]
) -> Foresight:
    """How well early levels foretell late ones, by run `[arms]` each."""
    n_policies = sum(map(len, late))
    whole = _agreement(early, late), _rank(early, late)
    without: list[tuple[float, float]] = []
    for run in range(len(late)):
        for arm in range(len(late[run])):
            some = [
                [np.delete(x, arm) if i == run else x for i, x in enumerate(levels)]
                for levels in (early, late)
            ]
            without.append((_agreement(*some), _rank(*some)))
    agreement = _interval(whole[0], [one for one, _ in without], n_policies, (0.0, 1.0))
    rank = _interval(whole[1], [one for _, one in without], n_policies, (-1.0, 1.0))
    pairs = sum(map(len, _differences(early, late)[0]))
    return Foresight(metric, day, whole[0], *agreement, whole[1], *rank, pairs)


def _differences(
    early: Sequence[DoubleArray], late: Sequence[DoubleArray]
) -> tuple[list[DoubleArray], list[DoubleArray]]:
    """The early and late lifts (logarithms) of all pairs that have both, by run."""
    result: tuple[list[DoubleArray], list[DoubleArray]] = ([], [])
    for x, y in zip(early, late, strict=True):
        a, b = np.triu_indices(len(x), 1)
        dx, dy = x[b] - x[a], y[b] - y[a]
        known = np.isfinite(dx) & np.isfinite(dy)
        result[0].append(dx[known])
        result[1].append(dy[known])
    return result


def _agreement(early: Sequence[DoubleArray], late: Sequence[DoubleArray]) -> float:
    """The share of pairs whose lifts have the same sign; a lift of 0 is half of it."""
    x, y = (np.concatenate(one) for one in _differences(early, late))
    if not len(x):
        return float("nan")
    return float((0.5 + 0.5 * np.sign(x) * np.sign(y)).mean())


def _rank(early: Sequence[DoubleArray], late: Sequence[DoubleArray]) -> float:
    """Spearman's correlation over pairs, each taken both ways round."""
    x, y = (np.concatenate(one) for one in _differences(early, late))
    if not (x.any() and y.any()):
        return float("nan")
    from scipy.stats import rankdata

    both = [rankdata(np.concatenate([one, -one])) for one in (x, y)]
    rx, ry = (ranks - ranks.mean() for ranks in both)
    return float((rx * ry).sum() / np.sqrt((rx * rx).sum() * (ry * ry).sum()))


def _interval(
    whole: float, without: Sequence[float], n: int, ends: tuple[float, float]
) -> tuple[float, float]:
    """The jackknife's interval of a figure of pairs of `n` policies, with Student's law; at least
    what one policy more could make of it, whose pairs are 2 / (n + 1) of all.
    """
    values = np.array(without)
    if not np.isfinite(whole) or not np.isfinite(values).all():
        return float("nan"), float("nan")
    error = float(np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum()))
    half = quantile(n - 1, LEVEL) * error
    share = 2.0 / (n + 1)
    low = min(whole - half, (1.0 - share) * whole + share * ends[0])
    high = max(whole + half, (1.0 - share) * whole + share * ends[1])
    return max(low, ends[0]), min(high, ends[1])
