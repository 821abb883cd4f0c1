"""Does offline predict online? Every offline figure of many policies against the lift that the same
policies get in a simulated A/B.

The offline side sees the history log of the world and nothing else; the online side is the run's
own log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from policies.base import Catalogue, DoubleArray, Fitting, Progress, silent
from policies.device import device
from policies.registry import make
from policies.time import DAY
from simulator.designs.paired import Paired
from simulator.log.eventlog import EventLog
from simulator.log.metadata import HISTORY
from simulator.log.workspace import Workspace, load_catalogue
from simulator.offpolicy.estimators import Gain, HitRate
from simulator.offpolicy.jobs import Lesson, Wanted, served, target, training
from simulator.offpolicy.kind_table import clusters_of
from simulator.offpolicy.ranked import RankedClicks
from simulator.offpolicy.replay import ESTIMATORS, Evaluation, ReplayError, ReplaySettings, evaluate
from simulator.offpolicy.rollout import Rollout
from simulator.offpolicy.rounds import Stream
from simulator.offpolicy.scores import Ordering, orderings
from simulator.offpolicy.uncertainty import Ratios, bootstrap
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.scenario.parts import Arm
from simulator.serving.ranking import Ranker
from simulator.stats.moments import relative
from simulator.stats.tests import adjust
from simulator.stats.winners import Race, Winner, corrected, winner

FEWEST = 8
"""Fewer policies say nothing of a rank correlation."""
POLICIES = 16
"""How many policies a scenario is filled up to, unless asked otherwise."""

_CLUSTERS = "tag"
"""The column of the catalogue by which `mips` and `lips` tell items apart."""


def _blurred(policy: str, epsilon: float, temperature: float) -> dict[str, Any]:
    return {
        "policy": "explore",
        "params": {"policy": policy, "temperature": temperature, "epsilon": epsilon},
    }


YARDSTICKS: dict[str, dict[str, Any]] = {
    "random": {"policy": "random"},
    "popularity": {"policy": "popularity"},
    "itemknn": {"policy": "itemknn"},
    "popularity, half uniform": _blurred("popularity", 0.5, 1.0),
    "itemknn, half uniform": _blurred("itemknn", 0.5, 0.1),
    "popularity of 2 days": {"policy": "popularity", "params": {"half_life": 2.0}},
    "bpr": {"policy": "bpr", "params": {"training": {"epochs": 10, "patience": 3}}},
    "sasrec": {"policy": "sasrec", "params": {"training": {"epochs": 4, "patience": 2}}},
    "itemknn, 20% uniform": _blurred("itemknn", 0.2, 0.1),
    "itemknn, 80% uniform": _blurred("itemknn", 0.8, 0.1),
    "popularity of half a day": {"policy": "popularity", "params": {"half_life": 0.5}},
    "itemknn, 10 neighbours": {"policy": "itemknn", "params": {"neighbours": 10}},
    "itemknn, hot": _blurred("itemknn", 0.05, 2.0),
    "popularity, 20% uniform": _blurred("popularity", 0.2, 0.1),
    "popularity, 80% uniform": _blurred("popularity", 0.8, 0.1),
    "itemknn, 3 neighbours": {"policy": "itemknn", "params": {"neighbours": 3}},
}
"""Arms that are added, in this order, to a scenario with too few: spread in quality, cheap to fit.
"""


@dataclass(frozen=True)
class Online:
    """What the simulated A/B says.

    Attributes:
        arms: names.
        value: `[A]` reward per request.
        lift: `[A]` of reward per user over the control, a fraction.
        resampled: `[A, B]` `lift` in resamples of users, the same for all arms.
        value_error: `[A]` standard error of `value`.
    """

    arms: tuple[str, ...]
    control: str
    value: DoubleArray
    value_error: DoubleArray
    lift: DoubleArray
    resampled: DoubleArray

    def of(self, arms: Sequence[str]) -> Online:
        """The same of these arms, in their order."""
        rows = [self.arms.index(arm) for arm in arms]
        return replace(
            self,
            arms=tuple(arms),
            value=self.value[rows],
            value_error=self.value_error[rows],
            lift=self.lift[rows],
            resampled=self.resampled[rows],
        )

    def policies(self) -> Iterator[OnlinePolicy]:
        """Each arm with its intervals."""
        low, high = np.nanquantile(self.resampled, [0.025, 0.975], axis=1)
        columns = (self.lift, low, high, self.value, self.value_error)
        for arm, *row in zip(self.arms, *columns, strict=True):
            yield OnlinePolicy(arm, *map(float, row))


@dataclass(frozen=True)
class Figure:
    """One offline figure of every policy.

    Attributes:
        name: of the estimator or the ranking figure.
        value: `[A]`, NaN where it could not be had.
        error: `[A]` standard error.
        verdict: `[A]` words.
        estimates: it claims to be the reward per request, so that it has an error against the
            truth.
        reasons: `[A]` why each verdict is no better.
        influence: `[A]` first-order effects of the same units on each value, by which values that
            share their luck are told apart; none: they are taken for independent.
    """

    name: str
    value: DoubleArray
    error: DoubleArray
    verdict: tuple[str, ...]
    estimates: bool
    reasons: tuple[tuple[str, ...], ...] = ()
    influence: tuple[DoubleArray, ...] = ()

    def tied(self, pick: int) -> list[int]:
        """Policies that the figure's own error does not let stand behind `pick`: the 95% interval
        of the difference holds 0.
        """
        units = {len(one) for one in self.influence}
        found = []
        for other in np.flatnonzero(np.isfinite(self.value)):
            if other == pick:
                continue
            error = float(np.hypot(self.error[pick], self.error[other]))
            if len(units) == 1 and min(units) > 1:
                together = self.influence[pick] - self.influence[other]
                error = float(np.sqrt(np.square(together).sum()))
            if self.value[pick] - self.value[other] <= 1.96 * error:
                found.append(int(other))
        return found


@dataclass(frozen=True)
class Agreement:
    """How well one offline figure foretells the online lift.

    Attributes:
        figure: its name.
        policies: for how many it could be had.
        usable: for how many of them its own verdict is not `unusable`.
        pairs: pairs of policies whose online difference is proven (95% interval of the difference,
            by user, without 0).
        ordered: share of these pairs that the figure puts in the right order, ties counting half; a
            coin gets one half.
        ordered_error: its standard error, each policy left out in turn (jackknife: pairs that share
            a policy are dependent).
        rho, low, high: Spearman's rank correlation with the true lift, and its 95% interval over
            the noise of both sides (users resampled online; the figure's own standard error
            offline). Of these policies, not of all there might be.
        new_low, new_high: 95% interval for policies of which these are a sample (Bonett & Wright,
            Psychometrika 2000: its width shrinks as 1 / sqrt(policies - 3)).
        p: two-sided, by permutations of the policies.
        kendall: tau-b.
        error: root mean squared relative error against the true reward per request; NaN where it
            does not claim to be that.
        covered: for how many policies the figure's interval held the truth.
        pick: the policy that the figure puts first.
        tied: those that its own error does not let stand behind `pick`.
        doubts: why its verdict on `pick` is no better.
        regret: online lift of the best policy less that of `pick`, a fraction, as measured: too
            high on average, since the best was chosen by its luck, too.
        lost, lost_low, lost_high: the same, corrected for that, with its 95% interval
            (`stats.winners`); not below 0.
        p_adjusted: `p` by Holm over all figures; NaN until they are put together.
        points: the figure of each policy, in the order of the policies.
    """

    figure: str
    policies: int
    usable: int
    pairs: int
    ordered: float
    ordered_error: float
    rho: float
    low: float
    high: float
    new_low: float
    new_high: float
    p: float
    kendall: float
    error: float
    covered: int | None
    pick: str
    tied: tuple[str, ...]
    doubts: tuple[str, ...]
    regret: float
    lost: float
    lost_low: float
    lost_high: float
    p_adjusted: float
    points: tuple[FigurePoint, ...]


@dataclass(frozen=True)
class FigurePoint:
    """An offline figure of one policy: value (NaN: it could not be had), standard error and the
    word of its verdict.
    """

    value: float
    error: float
    verdict: str


@dataclass(frozen=True)
class OnlinePolicy:
    """A policy in the simulated A/B.

    Attributes:
        policy: its name.
        lift, low, high: of reward per user over the control, a fraction, with its 95% interval.
        per_request, error: reward per request, with its standard error.
    """

    policy: str
    lift: float
    low: float
    high: float
    per_request: float
    error: float


@dataclass(frozen=True)
class FidelityResult:
    """How well offline figures foretell the lift online; the keys of fidelity.json.

    Attributes:
        scenario: its name.
        reward: what was counted on both sides.
        test_days: the last days of the history, which were the offline side.
        control: lifts are over it.
        policies: what each got online.
        best: the best of them online, corrected for having been chosen, and the chance of each;
            None where fewer than two differ from the control.
        figures: the offline figures, the best correlated first.
        logged: the log's own reward per request.
        rounds: requests of the offline side.
        fits: how often a policy that draws in training was fitted, on either side.
    """

    scenario: str
    reward: str
    test_days: int
    control: str
    policies: tuple[OnlinePolicy, ...]
    best: Winner | None
    figures: tuple[Agreement, ...]
    logged: float
    rounds: int
    fits: int = 1


def fidelity(
    scenario: Scenario,
    out: Path,
    *,
    folder: Path = Path(),
    resume: bool = False,
    reward: str = "click",
    policies: int = POLICIES,
    test_days: int = 2,
    resamples: int = 1000,
    progress: Progress = silent,
) -> FidelityResult:
    """Run a scenario's policies, filled up with cheap yardsticks, in the simulated A/B, and compare
    every offline figure of the same policies with their lifts.

    Args:
        scenario: of a synthetic world.
        out: the run is written into its folder `run`.
        folder: where plug-in files are looked up.
        resume: take over the finished pieces of the run that is there.
        reward: what is counted, online and offline.
        policies: yardsticks are added up to this many arms; at least FEWEST.
        test_days: the last days of the history, which are the offline side.
        resamples: of users, on both sides.
        progress: told of the run, the fits and the replay.

    Returns:
        What fidelity.json keeps (docs/offpolicy.md).

    Raises:
        ReplayError: too few policies, or none with a lift.
        RunError, ScenarioError, DataError, PolicyError: as `simulator.run.pipeline.run`.
    """
    wide = widened(scenario, policies)
    where = Workspace(out / "run")
    if not (resume and where.finished):
        simulate(wide, where.root, folder=folder, resume=resume, progress=progress)
    log = EventLog.open(where.log)
    truth = online(log, wide.control, reward, resamples, wide.seed)
    how = settings(wide.seed, resamples, wide.serving.recall)
    ran = Ran(wide, log, load_catalogue(where.models / "catalogue.npz"), folder)
    replayed = offline(ran, reward, how, test_days, progress)
    truth = truth.of([one.policy for one in replayed.evaluations])
    logged = replayed.evaluations[0]
    return FidelityResult(
        scenario=wide.name,
        reward=reward,
        test_days=test_days,
        control=truth.control,
        policies=tuple(truth.policies()),
        best=best_of(truth, reward),
        figures=tuple(agreements(truth, replayed, wide.seed)),
        logged=logged.logged.value,
        rounds=logged.weights.rounds,
        fits=wide.fits.number,
    )


def widened(scenario: Scenario, policies: int = POLICIES) -> Scenario:
    """The scenario with yardsticks added until it has `policies` arms; every user lives in every
    arm, so that lifts are sharp.

    A yardstick that an arm of the scenario is already, whatever its name, is left out: a policy
    that stands twice among the points would make every rank correlation surer than it is.

    Raises:
        ReplayError: fewer than FEWEST asked for, or more than there are.
    """
    if policies < FEWEST:
        raise ReplayError(
            f"--policies must be at least {FEWEST}: a rank correlation over fewer says nothing; got"
            f" {policies}"
        )
    arms = dict(scenario.arms)
    for name, spec in YARDSTICKS.items():
        arm = Arm.model_validate(spec)
        if (
            len(arms) < policies
            and name not in arms
            and not any(_same(arm, other) for other in scenario.arms.values())
        ):
            arms[name] = arm
    if len(arms) < policies:
        more = len(arms) - len(scenario.arms)
        raise ReplayError(
            f"--policies {policies}: {scenario.name} has {len(scenario.arms)} arms, and there are"
            f" {len(YARDSTICKS)} yardsticks, {more} of them other than these; write more arms, or"
            " ask for fewer policies"
        )
    paired = scenario.design.model_copy(update={"control": scenario.control, "kind": Paired.kind})
    return scenario.model_copy(update={"arms": arms, "design": paired})


def _same(yardstick: Arm, arm: Arm) -> bool:
    """Whether an arm is the policy of a yardstick, with the same hyper-parameters once defaults are
    filled in.
    """
    return arm.policy == yardstick.policy and make(arm.policy, arm.params) == make(
        yardstick.policy, yardstick.params
    )


def online(log: EventLog, control: str, reward: str, resamples: int, seed: int) -> Online:
    """Reward per request and lift per user of every arm, by the A/B's own log."""
    n = log.metadata.n_users
    arms = tuple(arm for arm in log.metadata.arms if arm != HISTORY)
    per_request, per_user = [], []
    for arm in arms:
        total, requests = np.zeros(n), np.zeros(n)
        for rounds in Stream(log, reward, arm):
            total += np.bincount(
                rounds.user, weights=np.nan_to_num(rounds.reward).sum(axis=1), minlength=n
            )
            requests += np.bincount(rounds.user, minlength=n)
        per_request.append(Ratios(total[:, None], requests[:, None]))
        per_user.append(Ratios(total[:, None], np.ones((n, 1))))
    base = arms.index(control)
    means = np.array([one.value for one in per_user])
    drawn = bootstrap(per_user, resamples, seed)
    errors = np.array([one.error() for one in per_request])
    if means[base] == 0:
        raise ReplayError(
            f"the control {control!r} got no {reward} in the simulated A/B, so there is no lift"
            " over it; take another reward"
        )
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may miss all of a rare reward
        lifts = relative(drawn[base], drawn)
    return Online(
        arms,
        control,
        np.array([o.value for o in per_request]),
        errors,
        relative(means[base], means),
        lifts,
    )


@dataclass(frozen=True)
class Offline:
    """What the history log says of every policy, fitted on all of it but the last days.

    Attributes:
        evaluations: of every off-policy estimator, for the slates that recall and ranking would
            show, and of the rollout.
        orders: of the scores of what was shown.
    """

    evaluations: tuple[Evaluation, ...]
    orders: tuple[Ordering, ...]

    def figures(self) -> list[Figure]:
        """Every offline figure that at least three policies have."""
        found = []
        for first in self.evaluations[0].estimates:
            estimates = [one[first.estimator] for one in self.evaluations]
            words = tuple(e.verdict.word if e.verdict else "" for e in estimates)
            value = np.array([e.value for e in estimates])
            error = np.array([e.error for e in estimates])
            reasons = tuple(e.reasons for e in estimates)
            moved = tuple(e.first_order[0].influence for e in estimates if e.first_order)
            if len(moved) < len(estimates):
                moved = ()
            claims = first.unit == "request"
            found.append(Figure(first.estimator, value, error, words, claims, reasons, moved))
        for name in ("auc", "gauc", "ndcg"):
            pairs = [getattr(order, name) for order in self.orders]
            value = np.array([np.nan if pair is None else pair[0] for pair in pairs])
            error = np.array(
                [np.nan if pair is None else (pair[1].high - pair[1].low) / 3.92 for pair in pairs]
            )
            found.append(Figure(f"{name} of shown", value, error, ("",) * len(pairs), False))
        return [figure for figure in found if np.isfinite(figure.value).sum() >= 3]


@dataclass(frozen=True)
class Ran:
    """A finished run: the scenario with all arms, its log and catalogue, and the folder of plug-in
    files.
    """

    scenario: Scenario
    log: EventLog
    catalogue: Catalogue
    folder: Path


def offline(
    ran: Ran, reward: str, settings: ReplaySettings, test_days: int, progress: Progress
) -> Offline:
    """Fit every arm's policy (and the ranking stage) on the history before its last `test_days`
    days, as often as the run does, and replay these; users are divided over fits as there.

    Args:
        ran: of its log only the arm `history` is read.
        reward: of the estimates; orderings are of clicks.
        settings: of the replay; of clicks, what the ranking stage expects stands beside it.
        test_days: the last days of the history, which are replayed.
        progress: told of every fit and of the replay.
    """
    scenario, log, catalogue = ran.scenario, ran.log, ran.catalogue
    since, serving = -test_days * DAY, scenario.serving
    fits, everybody = scenario.fits, np.arange(catalogue.n_users)
    stream = Stream(
        log,
        reward,
        HISTORY,
        since,
        serving.history,
        serving.seen or serving.history,
        contexts=settings.contexts,
        fit_of_user=fits.fit_of_user(scenario.seed, everybody, fits.number),
    )
    sequences = training(log, HISTORY, since, None)
    lessons = [
        Lesson(sequences, fits.training_seed(scenario.seed, fit)) for fit in range(fits.number)
    ]
    arms = [
        Wanted(name, arm.policy, arm.params, ran.folder, scenario.fits_of(name))
        for name, arm in scenario.arms.items()
    ]
    fitting = Fitting(scenario.seed, device(scenario.engine.device), progress)
    policies, desks = served(scenario, arms, lessons, catalogue, fitting)
    if _CLUSTERS in catalogue.items:
        settings = replace(settings, clusters=clusters_of(catalogue, _CLUSTERS))
    if reward == "click":
        ranker = desks[0][0].ranker
        if not isinstance(ranker, Ranker):  # recall is shown as it is
            ranker = Ranker.fit(sequences, catalogue, serving.history, 0.0)
        settings = settings.beside("ranked", RankedClicks.of(ranker))
    evaluations = evaluate(
        stream,
        [target(name, own) for (name, _), own in zip(policies, desks, strict=True)],
        catalogue.n_users,
        catalogue.n_items,
        settings,
        progress,
    )
    rollout = Rollout.of(stream, sequences, catalogue, scenario.seed, progress)
    evaluations = [
        replace(
            one, estimates=(*one.estimates, *rollout.estimates(one.policy, own, settings, progress))
        )
        for one, own in zip(evaluations, desks, strict=True)
    ]
    orders = orderings(
        replace(stream, reward="click", by="session", contexts=1), policies, catalogue.n_users
    )
    return Offline(tuple(evaluations), tuple(orders))


def settings(seed: int, resamples: int, recall: int) -> ReplaySettings:
    """Every off-policy estimator; HR and NDCG at 10, and HR at the length of recall."""
    ranked = {"hr@10": (HitRate(10),), "ndcg@10": (Gain(10),), f"hr@{recall}": (HitRate(recall),)}
    return ReplaySettings((*ranked, *ESTIMATORS), ranked, resamples, seed=seed, contexts=3)


def agreement(figure: Figure, truth: Online, covers: Iterable[bool | None], seed: int) -> Agreement:
    """One offline figure against the truth."""
    from scipy.stats import kendalltau

    have = np.isfinite(figure.value)
    value, lift, resampled = figure.value[have], truth.lift[have], truth.resampled[have]
    random = np.random.Generator(np.random.Philox(key=seed))
    noise = random.standard_normal((resampled.shape[1], len(value))) * np.nan_to_num(
        figure.error[have]
    )
    rhos = _spearman(value + noise, resampled.T)
    known = rhos[np.isfinite(rhos)]
    rho = float(_spearman(value[None], lift[None])[0])
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    new_low, new_high = for_new_policies(rho, len(value))
    # 5,000 permutations: among 30 figures Holm asks the best for a p of .0017, which is known to
    # within .0006.
    shuffled = random.permuted(np.broadcast_to(lift, (5000, len(lift))), axis=1)
    p = float("nan")
    if np.isfinite(rho):
        p = float((np.abs(_spearman(value[None], shuffled)) >= abs(rho) - 1e-12).mean())
    pairs, ordered, ordered_error = _order(value, lift, resampled)
    biases = relative(truth.value[have], value)
    held = [bool(c) for c, h in zip(covers, have, strict=True) if h and c is not None]
    pick = int(np.flatnonzero(have)[int(np.argmax(value))])
    return Agreement(
        figure=figure.name,
        policies=len(value),
        usable=sum(
            bool(h) and word != "unusable" for h, word in zip(have, figure.verdict, strict=True)
        ),
        pairs=pairs,
        ordered=ordered,
        ordered_error=ordered_error,
        rho=rho,
        low=float(low),
        high=float(high),
        new_low=new_low,
        new_high=new_high,
        p=p,
        kendall=(
            float(kendalltau(value, lift).statistic) if len(np.unique(value)) > 1 else float("nan")
        ),
        error=float(np.sqrt(np.square(biases).mean())) if figure.estimates else float("nan"),
        covered=sum(held) if figure.estimates else None,
        pick=truth.arms[pick],
        tied=tuple(truth.arms[other] for other in figure.tied(pick)),
        doubts=figure.reasons[pick] if figure.reasons else (),
        regret=float(np.nanmax(truth.lift) - truth.lift[pick]),
        **dict(zip(("lost", "lost_low", "lost_high"), lost_by(truth, pick), strict=True)),
        p_adjusted=float("nan"),
        points=tuple(
            FigurePoint(float(value), float(error), word)
            for value, error, word in zip(figure.value, figure.error, figure.verdict, strict=True)
        ),
    )


def race_from(truth: Online, base: int) -> Race | None:
    """All policies against one of them, by their lifts and the resamples; None where none differs
    from it.
    """
    others = np.delete(np.arange(len(truth.arms)), base)
    away = truth.resampled[others] - truth.resampled[base]
    away = away[:, np.isfinite(away).all(axis=0)]
    if away.shape[1] < 2:
        return None
    cov = np.atleast_2d(np.cov(away))
    # A policy that differs by nothing but rounding, the same for every user, is no rival.
    differs = np.diag(cov) > 1e-20
    if not differs.any():
        return None
    names = [truth.arms[place] for place in others[differs]]
    lifts = truth.lift[others[differs]] - truth.lift[base]
    return Race.of_lifts(names, lifts, cov[np.ix_(differs, differs)])


def best_of(truth: Online, reward: str) -> Winner | None:
    """The best policy online, corrected for having been chosen."""
    race = race_from(truth, truth.arms.index(truth.control))
    return None if race is None or len(race.arms) < 2 else winner(race, truth.control, reward)


def lost_by(truth: Online, pick: int) -> tuple[float, float, float]:
    """What `pick` loses against the best of the others, corrected for that one's having been
    chosen, with its 95% interval: 0 where it is not behind.
    """
    race = race_from(truth, pick)
    if race is None:  # no noise: the difference is what it is
        exact = max(0.0, float(np.nanmax(truth.lift) - truth.lift[pick]))
        return exact, exact, exact
    estimate, low, high = (max(0.0, float(value)) for value in corrected(race))
    return estimate, low, high


def for_new_policies(rho: float, n: int) -> tuple[float, float]:
    """95% interval of Spearman's correlation over `n` sampled policies (Bonett & Wright,
    Psychometrika 2000).
    """
    if n <= 3 or not np.isfinite(rho):
        return float("nan"), float("nan")
    half = 1.96 * np.sqrt((1 + rho**2 / 2) / (n - 3))
    # A perfect correlation would be infinite on Fisher's scale.
    z = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def _order(
    value: DoubleArray, lift: DoubleArray, resampled: DoubleArray
) -> tuple[int, float, float]:
    """Pairs whose online difference is proven, the share of them that `value` orders right, and its
    jackknife standard error.
    """
    n = len(value)
    low, high = np.nanquantile(resampled[:, None] - resampled[None, :], [0.025, 0.975], axis=2)
    proven = np.triu((low > 0) | (high < 0), 1)
    offline = np.sign(value[:, None] - value[None, :])
    online = np.sign(lift[:, None] - lift[None, :])
    right = np.where(proven, (offline == online) + 0.5 * (offline == 0), 0.0)
    count, total = int(proven.sum()), float(right.sum())
    if not count:
        return 0, float("nan"), float("nan")
    counts = count - proven.sum(axis=0) - proven.sum(axis=1)
    totals = total - right.sum(axis=0) - right.sum(axis=1)
    left_out = np.divide(totals, counts, out=np.full(n, np.nan), where=counts > 0)
    spread = np.nan
    if np.isfinite(left_out).any():
        spread = np.nansum(np.square(left_out - np.nanmean(left_out)))
    return count, total / count, float(np.sqrt((n - 1) / n * spread))


def _spearman(left: DoubleArray, right: DoubleArray) -> DoubleArray:
    """Spearman's rank correlation of each row of `left` with the same row of `right` (one row
    serves all), ties by mean ranks.
    """
    from scipy.stats import rankdata

    a, b = np.broadcast_arrays(rankdata(left, axis=1), rankdata(right, axis=1))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        out: DoubleArray = (a * b).sum(axis=1) / np.sqrt(
            np.square(a).sum(axis=1) * np.square(b).sum(axis=1)
        )
    return out


def agreements(truth: Online, replayed: Offline, seed: int) -> Iterator[Agreement]:
    """Every offline figure against the truth of the same policies, the best correlated first."""
    rows = []
    for figure in replayed.figures():
        covers = [
            _covers(one, figure.name, float(value))
            for one, value in zip(replayed.evaluations, truth.value, strict=True)
        ]
        rows.append(agreement(figure, truth, covers, seed))
    rows.sort(key=lambda row: -row.rho if np.isfinite(row.rho) else 2.0)
    for row, p in zip(rows, adjust(np.array([row.p for row in rows])), strict=True):
        yield replace(row, p_adjusted=float(p))


def _covers(one: Evaluation, figure: str, truth: float) -> bool | None:
    match = next((e for e in one.estimates if e.estimator == figure and e.intervals), None)
    return None if match is None else match.interval().covers(truth)
