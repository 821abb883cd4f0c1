"""May I believe this? What a weighted log says of itself, and the verdict on an estimate with its
reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from policies.base import DoubleArray, IntArray
from simulator.offpolicy.evidence import Evidence, ReplayFacts
from simulator.offpolicy.uncertainty import EstimateInterval
from simulator.stats.pooling import fixed_effect

Word = Literal["trustworthy", "weak", "unusable"]

LEAST_SAMPLE = 50.0
"""Below this effective sample size an estimate is unusable: its own standard error is not known to
within 10%.
"""
ENOUGH_SAMPLE = 500.0
"""Below this effective sample size an estimate is weak."""
LARGEST_SHARE = 0.05
"""One round that carries more than this share of all weight makes an estimate weak."""
CALIBRATION = 0.10
"""A mean weight that is farther from 1 than this, with 1 outside its interval, makes an estimate
unusable.
"""
COVERAGE = 0.95
"""A target that shows items which the log never shows, more than 1 - COVERAGE of the time, makes an
estimate weak.
"""
EVENTS = 30
"""Fewer rounds with a reward under the estimate than this make it weak: the normal approximation is
not to be relied on.
"""
WIDTH = 1 / 3
"""An interval whose half-width is more than this share of the estimate makes it weak."""
DRIFT = 0.001
"""A heterogeneity of the log's daily mean reward with a p-value below this is named as drift."""
KEEP = 10


@dataclass(frozen=True)
class WeightsOfDay:
    """One day of a replay.

    Attributes:
        day: of the log.
        rounds: how many.
        logged: mean reward of the log.
        mean_weight: of whole slates; NaN where propensities are unknown.
        snips: the day's self-normalised estimate; NaN where no round has a weight.
    """

    day: int
    rounds: int
    logged: float
    mean_weight: float
    snips: float


@dataclass
class Weights:
    """Running summary of the weights of one policy's rounds; chunk after chunk.

    Attributes:
        rounds, impressions: how many.
        matched_impressions: impressions whose item the target puts at the same place.
        matched_rounds: rounds whose whole slate the target can show.
        events: rounds with a positive weight and a reward that is not 0.
        total, squares: of the weights of whole slates.
        places: `[K, 2]` sums of the running weight and of its square, down to each place.
        largest: the KEEP largest weights and the rows of the log they belong to.
        days: by day: rounds, sum of reward, of its square, sum of weight, of weight * reward.
        shown, wanted: `[n_items + 1]` whether the log has each item, and how often the target shows
            it.
    """

    n_items: int
    rounds: int = 0
    impressions: int = 0
    matched_impressions: float = 0.0
    matched_rounds: int = 0
    events: int = 0
    total: float = 0.0
    squares: float = 0.0
    places: DoubleArray = field(default_factory=lambda: np.zeros((0, 2)))
    largest: list[tuple[float, int]] = field(default_factory=list)
    days: dict[int, DoubleArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shown = np.zeros(self.n_items + 1, dtype=bool)
        self.wanted = np.zeros(self.n_items + 1)

    def add(self, e: Evidence, weight: DoubleArray) -> None:
        """Take in a chunk; `weight` `[R]` is that of the whole slate (NaN where propensities are
        unknown).
        """
        r = e.rounds
        self.rounds += len(r)
        self.impressions += r.item.size
        agree = (e.target.slates == r.item[:, None, :]) * e.share[:, :, None]
        self.matched_impressions += float(agree.sum())
        self.shown[r.item.ravel()] = True
        often = np.broadcast_to(e.share[:, :, None], e.target.slates.shape)
        self.wanted += np.bincount(
            e.target.slates.ravel(), weights=often.ravel(), minlength=self.n_items + 1
        )
        known = np.nan_to_num(weight, nan=0.0)
        self.matched_rounds += int((known > 0).sum())
        self.events += int(((known > 0) & (e.total != 0)).sum())
        self.total += float(known.sum())
        self.squares += float(np.square(known).sum())
        if r.kind == "conditional":
            reach = max(len(self.places), r.length)
            self.places = np.pad(self.places, ((0, reach - len(self.places)), (0, 0)))
            self.places[: r.length] += np.stack(
                (e.running.sum(axis=0), np.square(e.running).sum(axis=0)), axis=1
            )
        top = np.argsort(-known, kind="stable")[:KEEP]
        self.largest = sorted(
            [*self.largest, *((float(known[i]), int(r.row[i])) for i in top)],
            key=lambda pair: -pair[0],
        )[:KEEP]
        self._by_day(r.day, e.total, weight)

    def _by_day(self, day: IntArray, reward: DoubleArray, weight: DoubleArray) -> None:
        days, index = np.unique(day, return_inverse=True)
        columns = np.stack(
            [np.ones_like(reward), reward, np.square(reward), weight, weight * reward]
        )
        for i, one in enumerate(days):
            sums = columns[:, index == i].sum(axis=1)
            self.days[int(one)] = self.days.get(int(one), np.zeros(5)) + sums

    @property
    def effective(self) -> float:
        """Effective sample size (Kong 1992): `(sum of weights)^2 / sum of squared weights`."""
        return self.total**2 / self.squares if self.squares > 0 else 0.0

    @property
    def effective_share(self) -> float:
        """Effective sample size as a share of the rounds."""
        return self.effective / max(self.rounds, 1)

    @property
    def effective_by_place(self) -> list[float]:
        """Effective sample size of the running weight, down to each place."""
        return [total**2 / squares if squares > 0 else 0.0 for total, squares in self.places]

    @property
    def mean(self) -> float:
        """Mean weight of whole slates; 1 is expected."""
        return self.total / max(self.rounds, 1)

    @property
    def share_of_rounds_matched(self) -> float:
        return self.matched_rounds / max(self.rounds, 1)

    @property
    def share_of_impressions_matched(self) -> float:
        return self.matched_impressions / max(self.impressions, 1)

    @property
    def coverage(self) -> float:
        """Share of what the target shows that the log shows at all; NaN where the target shows
        nothing.
        """
        wanted = self.wanted[1:].sum()
        return float(self.wanted[1:][self.shown[1:]].sum() / wanted) if wanted > 0 else float("nan")

    def by_day(self) -> Iterator[WeightsOfDay]:
        """Each day with rounds, in order."""
        for day, (n, reward, _, weight, weighted) in sorted(self.days.items()):
            snips = weighted / weight if weight > 0 else float("nan")
            yield WeightsOfDay(day, int(n), reward / n, weight / n, snips)

    def drift(self) -> tuple[float, float]:
        """Heterogeneity of the log's daily mean reward: chi-square and p (Cochran 1954); NaN with
        fewer than two days.
        """
        table = np.array([d for d in self.days.values() if d[0] > 1])
        if len(table) < 2:
            return float("nan"), float("nan")
        mean = table[:, 1] / table[:, 0]
        variance = (table[:, 2] / table[:, 0] - np.square(mean)) / (table[:, 0] - 1)
        use = variance > 0
        if use.sum() < 2:
            return float("nan"), float("nan")
        together = fixed_effect(mean[use], variance[use])
        return together.q, together.p


@dataclass(frozen=True, slots=True)
class EstimateVerdict:
    """`trustworthy`, `weak` or `unusable`, and every reason for it."""

    word: Word
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.word}: {'; '.join(self.reasons)}" if self.reasons else self.word


@dataclass(frozen=True)
class Findings:
    """What is known of an estimate when its estimator judges it.

    Attributes:
        facts: of the log and the target.
        weights: summary of the target's weights.
        mean_weight: interval of the mean weight of whole slates, which should hold 1.
        residual: interval of the mean weighted residual of the reward model, which should hold 0;
            NaN where there is none.
        own: the estimate's own interval.
        count: sum of the estimate's denominators (matched impressions, clicks, rounds).
        checks: `[U]` sums by unit of the columns that the estimator asked for (`Estimator.checks`).
    """

    facts: ReplayFacts
    weights: Weights
    mean_weight: EstimateInterval
    residual: EstimateInterval
    own: EstimateInterval
    count: float
    checks: Mapping[str, DoubleArray] = field(default_factory=dict)


def weighted(findings: Findings, *, self_normalised: bool) -> EstimateVerdict:
    """The verdict on an estimate that rests on weights."""
    summary, mean_weight = findings.weights, findings.mean_weight
    bad, poor = [], []
    mean = summary.mean
    if summary.matched_rounds == 0:
        return EstimateVerdict("unusable", ("0 logged rounds agree with the target",))
    if summary.effective < LEAST_SAMPLE:
        bad.append(f"effective sample size {summary.effective:.1f} of {summary.rounds:,} rounds")
    elif summary.effective < ENOUGH_SAMPLE:
        poor.append(f"effective sample size {summary.effective:.0f} of {summary.rounds:,} rounds")
    if not mean_weight.covers(1.0):
        text = (
            f"mean weight {mean:.3g}, 95% interval [{mean_weight.low:.3g}, {mean_weight.high:.3g}],"
            " should be 1"
        )
        (poor if abs(mean - 1) <= CALIBRATION or self_normalised else bad).append(text)
    if (
        summary.largest
        and summary.total > 0
        and summary.largest[0][0] / summary.total > LARGEST_SHARE
    ):
        poor.append(
            f"row {summary.largest[0][1]} alone carries {summary.largest[0][0] / summary.total:.0%}"
            " of the weight"
        )
    if summary.events < EVENTS:
        poor.append(f"only {summary.events} rounds with a reward carry it")
    if summary.coverage < COVERAGE:
        poor.append(f"the log shows only {summary.coverage:.0%} of what the target shows")
    return finished(findings, bad, poor)


def modelled(findings: Findings) -> EstimateVerdict:
    """The verdict on an estimate that rests on the reward model alone."""
    summary, residual = findings.weights, findings.residual
    bad, poor = [], []
    if not np.isfinite(residual.low):
        poor.append("no weighted residual to hold the reward model against")
    elif not residual.covers(0.0):
        bad.append(
            "the reward model is contradicted: its mean weighted residual is in"
            f" [{residual.low:.3g}, {residual.high:.3g}]"
        )
    elif summary.effective < LEAST_SAMPLE:
        poor.append(
            "valid only as far as the reward model is right; effective sample size"
            f" {summary.effective:.1f}: the log cannot contradict it"
        )
    else:
        poor.append(
            "valid only as far as the reward model is right; the log does not contradict it"
        )
    if summary.coverage < COVERAGE:
        poor.append(f"the log shows only {summary.coverage:.0%} of what the target shows")
    return finished(findings, bad, poor)


def matched(findings: Findings, *, fair: bool) -> EstimateVerdict:
    """The verdict on an estimate from what the log and the target agree on; `fair`: the log chose
    uniformly at random.
    """
    count = findings.count
    bad, poor = [], []
    if count == 0:
        return EstimateVerdict("unusable", ("0 logged impressions agree with the target",))
    if count < LEAST_SAMPLE:
        bad.append(f"only {count:.0f} impressions matched")
    if not fair:
        poor.append(
            "the log did not choose uniformly at random: the figure inherits the logging policy's"
            " bias"
        )
    return finished(findings, bad, poor)


def finished(findings: Findings, bad: list[str], poor: list[str]) -> EstimateVerdict:
    """What any estimate is held to: an interval with a width, not too wide, and a log that does not
    drift.
    """
    own = findings.own
    if own.low == own.high:
        bad.append("every unit says the same: nothing is known of its error")
    middle = (own.low + own.high) / 2
    if own.high - own.low > 2 * WIDTH * abs(middle):
        poor.append(
            f"the interval is {abs((own.high - own.low) / 2 / middle):.0%} of the estimate to"
            " either side"
        )
    chi, p = findings.weights.drift()
    if p < DRIFT:
        poor.append(f"the log's daily reward drifts (chi-square {chi:.1f}, p = {p:.1g})")
    word: Word = "trustworthy"
    if bad or poor:
        word = "unusable" if bad else "weak"
    return EstimateVerdict(word, (*bad, *poor))
