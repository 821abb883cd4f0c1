"""Which metric decides soonest, and which weighted sum of metrics would.

Every test (a run, or one fit of it, and an arm) has an outcome that is taken for known: whether the
arm is better in a *reference* metric, as all other runs together say. A metric is as good as its z
statistic in the direction of that outcome: users needed fall with its square.

The learned metric is the weighted sum of all metrics whose z over the tests is largest (Jeunen &
Ustimenko, "Learning metrics that maximise power for accelerated A/B-tests", KDD 2024). Of a sum
with weights w, a test with differences d, their covariances S and a known sign s has z = s w'd /
(w'Sw)^1/2; the z of all tests pooled is largest for w = (sum S)^-1 sum s d. The covariances are
shrunk towards their diagonal, since tests are few. Each test is judged with weights, and with a
known outcome, of other runs only.

Errors are counted as in that paper, at 5%, two-sided: of the first kind where control users are
divided into halves by a coin; of the second kind, no decision though there is a difference; of the
third kind (type S), a decision with the wrong sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.products import matmul, solve
from simulator.log.metrics import Metric
from simulator.stats import moments, tests
from simulator.stats.contrasts import compare, influences, values
from simulator.stats.moments import Floats
from simulator.stats.resampling import coins
from simulator.stats.unit_table import TableError, UnitTable

CRITICAL = 1.959963984540054
"""|z| from which a two-sided test at 5% decides."""

SOUGHT = CRITICAL + 0.8416212335729143
"""The mean z of a test that decides four times in five."""

SHRINKAGE = 0.1
"""Share of the diagonal in the covariances that weights are learned with."""

HOPELESS = 20.0
"""A metric that needs so many times the users is hopeless at this size."""

HALVES = 400
"""Divisions of control users into halves, over all runs, at least."""

LEARNED = "learned"

Outcome = int
"""1: the arm is better; -1: worse; 0: not known."""


@dataclass(frozen=True)
class Trial:
    """One arm against the control in one run, or in one fit of it.

    Attributes:
        run: whose: trials of one run are never judged by one another.
        arm: the arm.
        n_units: users.
        differences: `[M]` of the metrics, in the direction that is better.
        covariance: `[M, M]` of the differences.
        control: `[M, n]` per-user values of control users, in that direction.
    """

    run: str
    arm: str
    n_units: int
    differences: Floats
    covariance: Floats
    control: Floats

    @classmethod
    def of(cls, run: str, table: UnitTable, control: str, arm: str, names: Sequence[str]) -> Trial:
        """That of a table of users.

        Raises:
            TableError: no such arm, or a metric without data.
        """
        signs = np.array([_sign(table.metrics[name]) for name in names])
        found = [compare(table, name, control, arm) for name in names]
        moved = np.stack([influences(table, name, control, arm) for name in names])
        moved = signs[:, None] * moved
        own = np.stack([values(table, name, control, arm)[0] for name in names])
        return cls(
            run,
            arm,
            int(found[0].n_units),
            signs * np.array([float(m.difference) for m in found]),
            matmul(moved, moved.T),
            signs[:, None] * own,
        )

    def z(self, weights: Floats) -> float:
        """The z statistic of a weighted sum of the metrics; NaN without variance."""
        variance = float(matmul(weights, matmul(self.covariance, weights)))
        if not variance > 0:
            return math.nan
        return float(matmul(weights, self.differences)) / math.sqrt(variance)


def _sign(metric: Metric) -> float:
    return -1.0 if metric.higher_is_better is False else 1.0


@dataclass(frozen=True)
class MetricSensitivity:
    """How soon a metric decides.

    Attributes:
        metric: its name, or `learned`.
        z: mean over trials of its z in the direction of the known outcome.
        z_low, z_high: least and largest.
        right, wrong, undecided: shares of the trials: decided as the outcome is, against it (type
            S), not at all (type II).
        false: share of divisions of control users in which it decides (type I).
        users: that it needs to decide four times in five; infinite: it points nowhere, or the
            other way.
        times: these users over those that a trial had.
        words: the same in words.
    """

    metric: str
    z: float
    z_low: float
    z_high: float
    right: float
    wrong: float
    undecided: float
    false: float
    users: float
    times: float
    words: str


@dataclass(frozen=True)
class Weight:
    """A metric's part in the learned one.

    Attributes:
        metric: its name.
        weight: per standard deviation of a user's value, all weights' sizes adding up to 1; in the
            direction that is better.
        low, high: least and largest of those learned without one run.
    """

    metric: str
    weight: float
    low: float
    high: float


@dataclass(frozen=True)
class Known:
    """What the outcome of an arm is taken for.

    Attributes:
        arm: the arm.
        outcome: 1 better, -1 worse, 0 not known.
        z: of the reference metric over all runs pooled; NaN where the outcome was declared.
        trials: behind it.
    """

    arm: str
    outcome: Outcome
    z: float
    trials: int


@dataclass(frozen=True)
class Judged:
    """All that trials say of their metrics.

    Attributes:
        reference: the metric whose pooled sign is the known outcome.
        known: of each arm.
        rows: the learned metric first, then metrics by the users that they need.
        weights: of the learned metric, the largest first; () where it could not be learned.
        trials: that were judged, of `of`: with an outcome that other runs know.
        of: all trials.
        users: mean number of a trial.
    """

    reference: str
    known: tuple[Known, ...]
    rows: tuple[MetricSensitivity, ...]
    weights: tuple[Weight, ...]
    trials: int
    of: int
    users: float


def judge(
    trials: Sequence[Trial],
    names: Sequence[str],
    reference: str,
    declared: Mapping[str, Outcome] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Judged:
    """Judge every metric, and the learned one, by trials whose outcome other runs know.

    Args:
        trials: of two runs at least, with as many metrics each as `names`.
        names: of the metrics, in the order of the trials' columns.
        reference: the metric whose pooled sign is the outcome.
        declared: outcomes of arms that are known otherwise.
        progress: of (runs judged, runs).

    Raises:
        TableError: fewer than two runs, no such metric, or no arm whose outcome is known.
    """
    runs = list(dict.fromkeys(trial.run for trial in trials))
    if len(runs) < 2:
        raise TableError(
            "sensitivity: at least two runs, or a run with several fits, since a run may not judge"
            f" itself; got {len(runs)}"
        )
    if reference not in names:
        raise TableError(f"sensitivity: no metric {reference!r}; there are {list(names)}")
    outcomes = declared or {}
    unit = np.eye(len(names))[names.index(reference)]
    judged: list[tuple[Trial, Outcome]] = []
    zs: dict[str, list[float]] = {name: [] for name in (LEARNED, *names)}
    false: dict[str, list[float]] = {name: [] for name in (LEARNED, *names)}
    folds: list[Floats] = []
    for place, run in enumerate(runs):
        progress(place, len(runs))
        others = [trial for trial in trials if trial.run != run]
        own = [trial for trial in trials if trial.run == run]
        known = {arm: _outcome(others, arm, unit, outcomes)[0] for arm in {t.arm for t in own}}
        weights = _learn([(t, _outcome(others, t.arm, unit, outcomes)[0]) for t in others])
        if weights is None:
            continue
        folds.append(weights)
        for trial in own:
            sign = known[trial.arm]
            if sign == 0:
                continue
            judged.append((trial, sign))
            for name, one in zip((LEARNED, *names), (weights, *np.eye(len(names))), strict=True):
                zs[name].append(sign * trial.z(one))
        repetitions = -(-HALVES // len(runs))
        for name, one in zip((LEARNED, *names), (weights, *np.eye(len(names))), strict=True):
            false[name].append(_false(own[0], one, repetitions, seed=place))
    progress(len(runs), len(runs))
    known_arms = tuple(
        Known(arm, *_outcome(trials, arm, unit, outcomes), sum(t.arm == arm for t in trials))
        for arm in dict.fromkeys(trial.arm for trial in trials)
    )
    if not judged:
        told = ", ".join(f"{one.arm}: z {one.z:.2f}" for one in known_arms)
        raise TableError(
            f"sensitivity: of no arm the other runs together know whether it is better in"
            f" {reference} ({told}; |z| of {CRITICAL:.2f} is needed): give more runs, larger ones,"
            " another reference, or declare an outcome"
        )
    users = float(np.mean([trial.n_units for trial, _ in judged]))
    sizes = np.sqrt([float(trial.n_units) for trial, _ in judged])
    rows = [
        _row(name, np.array(zs[name]), sizes, float(np.mean(false[name])), users)
        for name in (LEARNED, *names)
    ]
    rows[1:] = sorted(rows[1:], key=lambda row: (row.users, -row.z if row.z == row.z else 0.0))
    return Judged(
        reference,
        known_arms,
        tuple(rows),
        tuple(_weights(trials, names, unit, outcomes, folds)),
        len(judged),
        len(trials),
        users,
    )


def _outcome(
    trials: Sequence[Trial], arm: str, reference: Floats, declared: Mapping[str, Outcome]
) -> tuple[Outcome, float]:
    """What trials say together of an arm, and the pooled z of the reference metric: their mean
    difference over its standard error.
    """
    if arm in declared:
        return declared[arm], math.nan
    own = [trial for trial in trials if trial.arm == arm]
    variance = sum(float(matmul(reference, matmul(t.covariance, reference))) for t in own)
    if not variance > 0:
        return 0, math.nan
    z = sum(float(matmul(reference, t.differences)) for t in own) / math.sqrt(variance)
    return (0 if abs(z) < CRITICAL else int(math.copysign(1, z))), z


def _learn(trials: Sequence[tuple[Trial, Outcome]]) -> Floats | None:
    """The weights whose pooled z over trials of known outcome is largest; None without any."""
    used = [(trial, sign) for trial, sign in trials if sign]
    if not used:
        return None
    covariance = np.sum([trial.covariance for trial, _ in used], axis=0)
    towards = np.sum([sign * trial.differences for trial, sign in used], axis=0)
    scale = np.sqrt(np.diag(covariance))
    varies = scale > 0
    if not varies.any():
        return None
    correlation = covariance[np.ix_(varies, varies)] / np.outer(scale[varies], scale[varies])
    shrunk = (1 - SHRINKAGE) * correlation + SHRINKAGE * np.eye(int(varies.sum()))
    weights = np.zeros(len(scale))
    weights[varies] = solve(shrunk, towards[varies] / scale[varies]) / scale[varies]
    return weights


def _false(trial: Trial, weights: Floats, repetitions: int, seed: int) -> float:
    """Share of divisions of the control's users into halves that a weighted sum calls different."""
    own = matmul(weights, trial.control)
    decided, total = 0, 0
    for heads in coins(len(own), repetitions, seed):
        p = tests.t_test(moments.split_by(own, own, heads)).p
        decided += int(np.count_nonzero(p < 0.05))
        total += len(heads)
    return decided / total


def _row(name: str, z: Floats, sizes: Floats, false: float, users: float) -> MetricSensitivity:
    """What a metric's z of each trial amount to; `sizes`: square roots of the trials' users."""
    if np.isnan(z).all():
        nan = math.nan
        words = "nothing varies"
        return MetricSensitivity(
            name, nan, nan, nan, 0.0, 0.0, 1.0, false, math.inf, math.inf, words
        )
    right, wrong = float(np.mean(z > CRITICAL)), float(np.mean(z < -CRITICAL))
    rate = float(np.nanmean(z / sizes))
    needed = (SOUGHT / rate) ** 2 if rate > 0 else math.inf
    times = needed / users
    if rate <= 0:
        words = "points the other way, or nowhere"
    elif times <= 1:
        words = "decides at this size"
    elif times <= HOPELESS:
        words = f"needs {times:.1f} times the users"
    else:
        words = "hopeless at this size"
    return MetricSensitivity(
        name,
        float(np.nanmean(z)),
        float(np.nanmin(z)),
        float(np.nanmax(z)),
        right,
        wrong,
        1.0 - right - wrong,
        false,
        needed,
        times,
        words,
    )


def _weights(
    trials: Sequence[Trial],
    names: Sequence[str],
    reference: Floats,
    declared: Mapping[str, Outcome],
    folds: Sequence[Floats],
) -> list[Weight]:
    """The weights learned of all trials, with those of the folds as their range."""
    every = _learn([(t, _outcome(trials, t.arm, reference, declared)[0]) for t in trials])
    if every is None:
        return []
    spread = np.std(np.concatenate([t.control for t in trials], axis=1), axis=1)
    learned = [_in_shares(weights * spread) for weights in (every, *folds)]
    rows = [
        Weight(name, *(float(v) for v in (learned[0][i], *_range([w[i] for w in learned]))))
        for i, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: -abs(row.weight))


def _in_shares(weights: Floats) -> Floats:
    return np.asarray(weights / np.abs(weights).sum())


def _range(found: Sequence[float]) -> tuple[float, float]:
    return min(found), max(found)
