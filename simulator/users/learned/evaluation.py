"""How good a response model is on days that it has not seen. Nothing is fitted here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from policies.base import BoolArray, DoubleArray, FloatArray, IntArray
from policies.streams import Purpose, uniform
from simulator.log.answered import answered
from simulator.users.base import Source, UsersError
from simulator.users.learned.inputs import AnsweredImpressions
from simulator.users.learned.response import Response

TOLERANCE = 0.1
"""Relative: how far an unseen day's total may be from the real one before a report warns."""
BINS = 15
"""Bins of the reliability plot, with equally many impressions each."""
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
DRAWS = 8
"""Complete answers drawn for each impression where further feedback is averaged over clicks and
watch times.
"""


@dataclass(frozen=True)
class Head:
    """One kind of answer: how well it is ranked, and how much better than its base rate in the
    history it is foretold.

    Attributes:
        name: `click`, or a kind of further feedback given the real click and watch time.
        occurred: how often it did.
        auc: area under the ROC curve; NaN where it always or never occurred.
        log_loss: nats per impression.
        base_log_loss: of the history's rate as the prediction.
    """

    name: str
    occurred: int
    auc: float
    log_loss: float
    base_log_loss: float


@dataclass(frozen=True)
class Total:
    """A sum over a group of impressions, foretold and real.

    Attributes:
        group: `day 1`, `user history 1-5`, ...
        what: `click`, `watch` (s), or a kind of further feedback.
        impressions: in the group.
        predicted: expected sum.
        actual: real sum.
        error: predicted / actual - 1; NaN where nothing occurred.
        noise: standard error of `actual` as a share of it: what no model could foretell.
    """

    group: str
    what: str
    impressions: int
    predicted: float
    actual: float
    error: float
    noise: float


@dataclass(frozen=True)
class ResponseEvaluation:
    """A response model against the answers of later days.

    Attributes:
        impressions: evaluated.
        heads: click first.
        calibration_error: expected calibration error of the click: the mean over BINS bins with
            equally many impressions of
            |mean predicted - share clicked| (Naeini, Cooper & Hauskrecht 2015, with bins of
            equal mass).
        calibration_noise: what a perfectly calibrated model would show on so few impressions (mean
            of simulated clicks).
        reliability: of each bin (mean predicted, share clicked, impressions).
        coverage: level -> share of watch times below the predicted quantile, ties at zero broken at
            random; ideally the level; {} where the log knows no watch time.
        totals: by day, and by how much of the user's past the model had seen.
    """

    impressions: int
    heads: tuple[Head, ...]
    calibration_error: float
    calibration_noise: float
    reliability: tuple[tuple[float, float, int], ...]
    coverage: dict[float, float]
    totals: tuple[Total, ...]

    def calibration(self) -> dict[str, Any]:
        """What a report says of the world: every kind of answer on each unseen day, per impression,
        foretold against real.

        Kinds that never occurred on a day have no ratio, and no row.
        """
        rows = []
        for total in self.totals:
            if total.group.startswith("day ") and total.actual > 0:
                target = total.actual / total.impressions
                simulated = total.predicted / total.impressions
                rows.append(
                    {
                        "name": f"{total.what}, {total.group}",
                        "target": target,
                        "simulated": simulated,
                        "se": total.noise * target,
                        "ratio": simulated / target,
                        "within": abs(total.error) <= TOLERANCE,
                    }
                )
        days = len({total.group for total in self.totals if total.group.startswith("day ")})
        basis = (
            f"{self.impressions:,} real impressions of the {days} days after the history, which the"
            " response model was not fitted on"
        )
        return {"basis": basis, "tolerance": TOLERANCE, "rows": rows}


def evaluate(response: Response, source: Source, seed: int = 0) -> ResponseEvaluation:
    """Hold `response`, fitted on `source.history`, against `source.future`.

    Raises:
        UsersError: the data has no future with answers.
    """
    if source.history is None or source.future is None:
        raise UsersError(
            "held-out evaluation needs a log with history and future: data.source must be table,"
            " kuairand or log"
        )
    past, future = source.history.sequences("history"), source.future.sequences("history")
    duration = response.duration
    earlier = AnsweredImpressions.of(past, answered(source.history, past), duration)
    answers = AnsweredImpressions.of(future, answered(source.future, future), duration)
    if not len(answers):
        raise UsersError("held-out evaluation: no impression of the future has a complete answer")
    rows = (answers.user, answers.item, answers.tab, answers.hour, answers.position)
    click, bins = response.predict(*rows)
    real = answers.click.astype(np.float64)
    given = response.kind_probabilities(*rows, answers.click.astype(np.int8), answers.watch)
    heads = [_head("click", click, real, float(earlier.click.mean()))]
    for i, name in enumerate(response.names):
        known = answers.kinds[name] >= 0
        base = float((earlier.kinds[name][earlier.kinds[name] >= 0] == 1).mean())
        heads.append(
            _head(name, given[known, i], answers.kinds[name][known].astype(np.float64), base)
        )
    expected, actual = {"click": click}, {"click": real}
    if response.has_watch:
        expected["watch"] = response.mean_watch(bins)
        actual["watch"] = answers.watch.astype(np.float64)
    expected |= _expected_kinds(response, answers, seed)
    actual |= {name: (answers.kinds[name] == 1).astype(np.float64) for name in response.names}
    drawn = uniform(seed, Purpose.RESAMPLE, np.arange(len(real)))
    groups = [*_days(answers), *_pasts(answers, earlier)]
    return ResponseEvaluation(
        len(real),
        tuple(heads),
        _calibration_error(click, real),
        _calibration_error(click, (drawn < click).astype(np.float64)),
        tuple(
            (float(click[part].mean()), float(real[part].mean()), len(part))
            for part in _bins(click)
        ),
        _coverage(response, bins, answers.watch, drawn) if response.has_watch else {},
        tuple(
            _total(group, what, mask, expected[what], actual[what])
            for group, mask in groups
            for what in expected
        ),
    )


def auc(score: DoubleArray, y: DoubleArray) -> float:
    """P(a random 1 scores above a random 0), ties counted half (Mann & Whitney 1947); NaN without
    both.
    """
    from scipy.stats import rankdata

    ones = float(y.sum())
    if ones in (0.0, float(len(y))):
        return float("nan")
    return float((rankdata(score)[y == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(y) - ones)))


def _head(name: str, p: DoubleArray, y: DoubleArray, base: float) -> Head:
    limited = np.clip(base, 1e-6, 1 - 1e-6)
    loss = float(-np.log(np.clip(np.where(y == 1, p, 1 - p), 1e-12, 1)).mean())
    return Head(
        name,
        int(y.sum()),
        auc(p, y),
        loss,
        float(-(y.mean() * np.log(limited) + (1 - y.mean()) * np.log(1 - limited))),
    )


def _bins(p: DoubleArray) -> list[IntArray]:
    return [part for part in np.array_split(np.argsort(p, kind="stable"), BINS) if len(part)]


def _calibration_error(p: DoubleArray, y: DoubleArray) -> float:
    return float(sum(abs(p[part].sum() - y[part].sum()) for part in _bins(p)) / len(p))


def _coverage(
    response: Response, bins: DoubleArray, watch: FloatArray, drawn: DoubleArray
) -> dict[float, float]:
    """Share of watch times below each predicted quantile, by the randomised probability integral
    transform (zero is a point mass).
    """
    edges = response.edges.astype(np.float64)
    place = np.where(watch > 0, np.searchsorted(edges[1:-1], watch, side="left") + 1, 0)
    row = np.arange(len(watch))
    below = np.cumsum(bins, axis=1)[row, place] - bins[row, place]
    low, high = edges[np.maximum(place - 1, 0)], edges[place]
    share = np.where(place > 0, np.clip((watch - low) / np.maximum(high - low, 1e-9), 0, 1), drawn)
    reached = below + share * bins[row, place]
    return {level: float((reached <= level).mean()) for level in LEVELS}


def _expected_kinds(
    response: Response, answers: AnsweredImpressions, seed: int
) -> dict[str, DoubleArray]:
    """P(kind) of each impression by the whole chain, click and watch time drawn DRAWS times."""
    rows = (answers.user, answers.item, answers.tab, answers.hour, answers.position)
    total = np.zeros((len(answers), len(response.names)))
    zero = np.zeros((len(answers), 1), dtype=np.int64)
    for draw in range(DRAWS):
        step = np.arange(len(answers)) * DRAWS + draw
        drawn, watch, _ = response.answer(
            seed, answers.user, step, answers.item[:, None] + zero, answers.tab, answers.hour
        )
        total += response.kind_probabilities(*rows, drawn[:, 0], watch[:, 0])
    return {name: total[:, i] / DRAWS for i, name in enumerate(response.names)}


def _days(answers: AnsweredImpressions) -> Iterator[tuple[str, BoolArray]]:
    for day in np.unique(answers.day):
        yield f"day {day + 1}", answers.day == day


def _pasts(
    answers: AnsweredImpressions, earlier: AnsweredImpressions
) -> Iterator[tuple[str, BoolArray]]:
    """Users by how many of their impressions the model was fitted on."""
    top = int(max(answers.user.max(), earlier.user.max())) + 1
    past = np.bincount(earlier.user, minlength=top)[answers.user]
    for low, high in ((0, 0), (1, 5), (6, 15), (16, None)):
        mask = (past >= low) & (past <= (np.inf if high is None else high))
        if mask.any():
            yield (
                "user history "
                + ("none" if high == 0 else f"{low}+" if high is None else f"{low}-{high}"),
                mask,
            )


def _total(
    group: str, what: str, mask: BoolArray, predicted: DoubleArray, actual: DoubleArray
) -> Total:
    p, a = float(predicted[mask].sum()), float(actual[mask].sum())
    n = int(mask.sum())
    noise = float(actual[mask].std() * n**0.5 / a) if a else float("nan")
    return Total(group, what, n, p, a, p / a - 1 if a else float("nan"), noise)
