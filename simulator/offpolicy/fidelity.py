"""Does offline predict online? Every offline figure of many policies against the lift that the same
policies get in a simulated A/B.

The offline side sees the history log of the world and nothing else; the online side is the run's
own log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from policies.base import Catalogue, Fitting, Progress, silent
from policies.context import union
from policies.device import device
from policies.registry import make
from policies.time import DAY
from simulator.designs.paired import Paired
from simulator.log.eventlog import EventLog
from simulator.log.files import remove
from simulator.log.metadata import HISTORY
from simulator.log.workspace import Workspace, load_catalogue
from simulator.offpolicy.agreement import Agreement, agreement
from simulator.offpolicy.estimators import Gain, HitRate
from simulator.offpolicy.item_clusters import clusters_of
from simulator.offpolicy.jobs import target, training
from simulator.offpolicy.offline_figure import Figure, figures_of, reading
from simulator.offpolicy.online import Online, OnlinePolicy, best_of, online
from simulator.offpolicy.ranked import RankedClicks
from simulator.offpolicy.replay import ESTIMATORS, Evaluation, ReplayError, ReplaySettings, evaluate
from simulator.offpolicy.rollout import Rollout
from simulator.offpolicy.rounds import Stream
from simulator.offpolicy.scores import Ordering, orderings
from simulator.offpolicy.settings import RANKED, hold_still
from simulator.offpolicy.target_fits import Lesson, Wanted, served
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.scenario.parts import Arm
from simulator.stats.tests import adjust
from simulator.stats.winners import Winner

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
    out: Path | str,
    *,
    folder: Path | str = Path(),
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
        out: the run is written into its folder `run`, the fits of the offline side into `offline`.
        folder: where plug-in files are looked up.
        resume: take over the finished pieces of the run that is there, and these fits.
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
    out, folder = Path(out), Path(folder)
    wide = widened(scenario, policies)
    where = Workspace(out / "run")
    simulate(wide, where.root, folder=folder, resume=resume, progress=progress)
    log = EventLog.open(where.log)
    truth = online(log, wide.control, reward, resamples, wide.seed)
    how = settings(wide.seed, resamples, wide.serving.recall)
    kept = out / "offline"
    if not resume:
        remove(kept)
    ran = Ran(wide, log, load_catalogue(where.models / "catalogue.npz"), folder, kept)
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
    hold_still(scenario.name, scenario.resolved())
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
        found = figures_of(self.evaluations)
        for name in ("auc", "gauc", "ndcg"):
            pairs = [getattr(order, name) for order in self.orders]
            value = np.array([np.nan if pair is None else pair[0] for pair in pairs])
            error = np.array(
                [np.nan if pair is None else (pair[1].high - pair[1].low) / 3.92 for pair in pairs]
            )
            found.append(Figure(f"{name} of shown", value, error, ("",) * len(pairs), False))
        found = [figure for figure in found if np.isfinite(figure.value).sum() >= 3]
        both = reading(found)
        return found if both is None else [*found, both]


@dataclass(frozen=True)
class Ran:
    """A finished run: the scenario with all arms, its log and catalogue, the folder of plug-in
    files, and where the offline side keeps its fits (None: nowhere).
    """

    scenario: Scenario
    log: EventLog
    catalogue: Catalogue
    folder: Path
    kept: Path | None = None


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
    sequences = fits.lesson(scenario.seed, training(log, HISTORY, since, None), len(everybody))
    lessons = [
        Lesson(sequences, fits.training_seed(scenario.seed, fit)) for fit in range(fits.number)
    ]
    arms = [
        Wanted(name, arm.policy, arm.params, ran.folder, scenario.fits_of(name))
        for name, arm in scenario.arms.items()
    ]
    fitting = Fitting(scenario.seed, device(scenario.engine.device), progress)
    policies, desks = served(scenario, arms, lessons, catalogue, fitting, ran.kept)
    stream = replace(stream, context=union(desk.asks for own in desks for desk in own))
    if _CLUSTERS in catalogue.items:
        settings = replace(settings, clusters=clusters_of(catalogue, _CLUSTERS))
    if reward == "click":
        ranked = RankedClicks.of(desks[0][0].ranker, sequences, catalogue, serving.history)
        settings = settings.beside(RANKED, ranked)
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
        one.beside(rollout.estimates(one.policy, own, settings, progress))
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
