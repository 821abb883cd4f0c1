"""What there is to replay: from a log, a data set or a scenario to rounds and fitted target
policies. Nothing is estimated here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from policies.base import Catalogue, Fitting, IntArray, Policy, Progress, Sequences
from policies.context import union
from policies.device import device
from policies.time import DAY
from simulator.designs.fits import FitsSpec
from simulator.log.eventlog import EventLog, merge
from simulator.log.metadata import FIT, HISTORY
from simulator.offpolicy.item_clusters import clusters_by_vectors, clusters_of
from simulator.offpolicy.logging_policy import Published, PublishedTargets
from simulator.offpolicy.ranked import RankedClicks
from simulator.offpolicy.replay import ReplayError
from simulator.offpolicy.rounds import Stream, Uniform
from simulator.offpolicy.settings import hold_still
from simulator.offpolicy.target import FittedTargets, PolicyTargets, Targets, alone, apart
from simulator.offpolicy.target_fits import Lesson, Wanted, fitted, served
from simulator.offpolicy.uncertainty import EstimateInterval, Ratios, delta
from simulator.scenario.model import Scenario
from simulator.serving.desk import Desk

_TRAIN_COLUMNS = (
    "arm",
    "user",
    "session",
    "request",
    "position",
    "t",
    "item",
    "propensity",
    "click",
    "watch",
    "duration",
)


@dataclass(frozen=True)
class OwnLogTruth:
    """What a target really got, by its own log of the same time.

    Attributes:
        value: mean reward of its own rounds.
        error: standard error of that mean: the truth is a sample too.
        rounds: how many.
        interval: of the mean.
    """

    value: float
    error: float
    rounds: int
    interval: EstimateInterval

    @property
    def relative_error(self) -> float:
        """The standard error as a share of the value; NaN where that is 0."""
        return self.error / self.value if self.value else float("nan")


@dataclass(frozen=True)
class ReplayOptions:
    """How rounds are cut from a log.

    Attributes:
        reward: a reward column.
        arm: whose rounds; None: the only arm, or `history`.
        test_days: the last days of a pure history are the rounds; the days before are what policies
            are fitted on.
        fit_days: only this many days before the rounds are fitted on; None: all.
        history: impressions of the past that a policy is given.
        recall: candidates asked for, for matching within the set; 0: none.
        draws: of stochastic policies.
        contexts: of the reward model.
        seed: of fits and targets.
        chunk: impressions held at once.
        clusters: by what `mips`, `lips` and `offcem` tell items apart: a column of the catalogue,
            or `POLICY:number`, clusters by the item vectors of a policy that is fitted on what came
            before the rounds; None: they do not run.
        served: policies are asked through the serving of the scenario (its channels, quotas and
            ranking stage), and not alone.
    """

    reward: str = "click"
    arm: str | None = None
    test_days: int = 2
    fit_days: int | None = None
    history: int = 50
    recall: int = 100
    draws: int = 1
    contexts: int = 1
    seed: int = 0
    chunk: int = 1 << 18
    clusters: str | None = None
    served: bool = False


@dataclass(frozen=True)
class ServedCourse:
    """What policies need to serve the replayed days themselves.

    Attributes:
        desks: of each policy, in the order of the targets, one for each of its fits.
        past: every user's impressions before these days.
        catalogue: groups of items.
        seed: of the model of answers, and of the answers.
    """

    desks: tuple[tuple[Desk, ...], ...]
    past: Sequences
    catalogue: Catalogue
    seed: int

    def ranked(self, history: int) -> RankedClicks:
        """What the ranking stage expects, given so many impressions of the past."""
        return RankedClicks.of(self.desks[0][0].ranker, self.past, self.catalogue, history)


@dataclass(frozen=True)
class ReplayJob:
    """Rounds of one log and the policies to evaluate on them.

    Attributes:
        title: what is replayed, in words.
        stream: the rounds.
        targets: fitted.
        truths: by target, its own rounds of the same time, where the log has them.
        policies: the fits of each recall policy by target name (for scores of shown items).
        notes: what the reader of the data wants said.
        clusters: `[n_items + 1]` of the items, or None.
        course: by which the policies are rolled out; why they are not, in words.
    """

    title: str
    stream: Stream
    targets: tuple[Targets, ...]
    truths: Mapping[str, Stream] = field(default_factory=dict)
    policies: tuple[tuple[str, tuple[Policy, ...]], ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    clusters: IntArray | None = None
    course: ServedCourse | str = "policies are asked alone, not through a serving (--served)"

    def of(self, reward: str) -> ReplayJob:
        """The same replay of another reward; nothing is fitted again."""
        truths = {name: replace(stream, reward=reward) for name, stream in self.truths.items()}
        return replace(self, stream=replace(self.stream, reward=reward), truths=truths)


def ab_test(
    name: str, log: EventLog, catalogue: Catalogue, options: ReplayOptions, progress: Progress
) -> Iterator[ReplayJob]:
    """Every arm of a real A/B log with published propensities, evaluated from every other arm, with
    its own log as the truth.
    """
    arms = log.metadata.arms
    fitting = Fitting(options.seed, device("auto"), progress)
    laws = {arm: Published().fit(log.sequences(arm), catalogue, fitting) for arm in arms}
    for arm in arms:
        others = [other for other in arms if other != arm]
        stream = Stream(log, options.reward, arm, chunk=options.chunk)
        targets = tuple(PublishedTargets(other, laws[other], options.seed) for other in others)
        truths = {other: replace(stream, arm=other) for other in others}
        yield ReplayJob(
            f"{name}: {', '.join(others)} from the log of {arm}",
            stream,
            targets,
            truths,
            notes=log.metadata.notes,
            clusters=_clusters(catalogue, options.clusters),
        )


def truth(stream: Stream) -> OwnLogTruth:
    """The mean reward of a stream's own rounds, clustered by user."""
    n = stream.log.metadata.n_users
    total, count = np.zeros(n), np.zeros(n)
    for rounds in stream:
        total += np.bincount(
            rounds.user, weights=np.nan_to_num(rounds.reward).sum(axis=1), minlength=n
        )
        count += np.bincount(rounds.user, minlength=n)
    own = Ratios(total[count > 0, None], count[count > 0, None])
    return OwnLogTruth(own.value, own.error(), int(count.sum()), delta(own))


def replay_log(
    title: str,
    log: EventLog,
    wanted: Sequence[Wanted],
    options: ReplayOptions,
    progress: Progress,
    catalogue: Catalogue | None = None,
    scenario: Scenario | None = None,
) -> ReplayJob:
    """Policies fitted on a log's past, evaluated on its later requests.

    `scenario` says how requests are served where `options.served`; None: as the log's own does.

    Rounds are the requests from t = 0 on where the log has a history before it, else those of its
    last `test_days` days. Policies see nothing from then on but what was shown before each request.

    Raises:
        ReplayError: nothing to fit on, or no policy. PolicyError: a policy that cannot be made.
            LogError: a broken log.
    """
    if not wanted:
        raise ReplayError(
            "no policy to evaluate: give --policy NAME at least once (`abtest policies list`)"
        )
    hold_still(title, log.metadata.scenario)
    labels = [one.label for one in wanted]
    twice = next((label for i, label in enumerate(labels) if label in labels[:i]), None)
    if twice is not None:
        raise ReplayError(
            f"policy {twice!r} is there twice: give each once (a scenario's arms are replayed"
            " without being named)"
        )
    arm = options.arm or ("history" if "history" in log.metadata.arms else None)
    how = (scenario or _own_scenario(title, log)) if options.served else None
    probe = Stream(
        log,
        options.reward,
        arm,
        history=how.serving.history if how else options.history,
        seen=how.serving.seen if how else None,
        contexts=options.contexts,
        chunk=options.chunk,
    )
    since, drawn = _extent(title, log, arm, options.test_days)
    # A policy that draws nothing has no propensities, whatever the other arms of its log have.
    stream = replace(probe, since=since, propensity=None if drawn else "unknown")
    known = catalogue or Catalogue(log.metadata.n_users, log.metadata.n_items)
    lessons = list(_lessons(log, arm, since, options))
    if how is not None:
        lessons = [
            replace(one, sequences=how.fits.lesson(how.seed, one.sequences, known.n_users))
            for one in lessons
        ]
    if not all(len(lesson.sequences.items) for lesson in lessons):
        raise ReplayError(
            f"{title}: nothing to fit on before day {since // DAY}: make --test-days smaller"
        )
    fitting = Fitting(options.seed, device("auto"), progress)
    course = ReplayJob.course
    if how is not None:
        policies, desks = served(how, wanted, lessons, known, fitting)
        course = _course(log, arm, since, desks, known, options.seed)
    else:
        policies, seed = fitted(wanted, lessons, known, fitting), apart(options.seed)
        desks = [
            tuple(alone(name, one, known.n_items, options.recall, seed) for one in fits)
            for name, fits in policies
        ]
    asks = union(desk.asks for own in desks for desk in own)
    targets = tuple(
        target(name, own, options.draws) for (name, _), own in zip(policies, desks, strict=True)
    )
    notes = {**log.metadata.notes, **_of_lives(len(lessons))}
    return ReplayJob(
        title,
        replace(stream, context=asks),
        targets,
        policies=tuple(policies),
        notes=notes,
        clusters=_clusters(known, options.clusters, lessons[0], fitting),
        course=course,
    )


def _course(
    log: EventLog,
    arm: str | None,
    since: int,
    desks: Sequence[tuple[Desk, ...]],
    catalogue: Catalogue,
    seed: int,
) -> ServedCourse | str:
    """What rollouts need, or why there are none: users begin them with one past, all of which the
    arm's own rows have.
    """
    if arm not in (None, HISTORY):
        return f"the past of the users of {arm!r} begins in another arm of the log"
    return ServedCourse(tuple(desks), training(log, arm, since, None), catalogue, seed)


def _lessons(
    log: EventLog, arm: str | None, since: int, options: ReplayOptions
) -> Iterator[Lesson]:
    """What policies are fitted on. Users who live with every fit of an arm have left one log for
    each, and each is a lesson of its own: policies are fitted anew on it, and asked about the later
    rounds of the same lives.
    """
    fits = log.metadata.fits
    lives = fits.number if fits.crossed and arm not in (None, HISTORY) else 1
    for fit in range(lives):
        yield Lesson(
            training(log, arm, since, options.fit_days, fit if lives > 1 else None),
            FitsSpec(number=lives).training_seed(options.seed, fit),
        )


def _of_lives(number: int) -> dict[str, str]:
    """A note on a log in which every user has several lives; none on another."""
    if number == 1:
        return {}
    note = (
        f"every user lives with each of {number} fits of the policy that wrote this log: target"
        f" policies are fitted {number} times, each on the lives with one fit, and asked about the"
        " later requests of the same lives; a user is one unit, whatever its lives, and intervals"
        f" speak of these {number} models"
    )
    return {"fits": note}


def _clusters(
    catalogue: Catalogue,
    by: str | None,
    lesson: Lesson | None = None,
    fitting: Fitting | None = None,
) -> IntArray | None:
    """The clusters of the items; those of vectors are of a policy fitted on the lesson."""
    if by is None:
        return None
    vectors = re.fullmatch(r"(?P<policy>.+):(?P<number>\d+)", by)
    try:
        if vectors is None:
            return clusters_of(catalogue, by)
        if lesson is None or fitting is None:
            raise ValueError(
                f"--clusters {by}: no policy is fitted on a log of published propensities; name a"
                " column of the catalogue"
            )
        wanted = Wanted.parse(vectors["policy"])
        ((_, (policy,)),) = fitted([wanted], [lesson], catalogue, fitting)
        return clusters_by_vectors(wanted.label, policy, int(vectors["number"]), lesson.seed)
    except ValueError as error:
        raise ReplayError(str(error)) from error


def _own_scenario(title: str, log: EventLog) -> Scenario:
    """The scenario that a run wrote into its log."""
    if not log.metadata.scenario:
        raise ReplayError(
            f"--served: {title} does not say how requests are served; give the log of a run, or a"
            " scenario"
        )
    return Scenario.model_validate(dict(log.metadata.scenario))


def target(name: str, desks: Sequence[Desk], draws: int = 1) -> Targets:
    """A policy as a target: what its desks serve, one for each of its fits."""
    fits = tuple(PolicyTargets(name, desk, draws) for desk in desks)
    if len(fits) == 1:
        return fits[0]
    return FittedTargets(name, fits)


def exposures(job: ReplayJob, uniform: Uniform) -> ReplayJob | None:
    """The same policies over the uniformly drawn impressions only, whose propensities are known;
    None where there are none.
    """
    stream = replace(job.stream, uniform=uniform)
    if next(iter(stream), None) is None:
        return None
    notes = {
        **job.notes,
        "propensities": (
            f"1 of {uniform.pool:,}: these impressions were drawn uniformly from {uniform.pool:,}"
            " items"
        ),
    }
    title = f"{job.title}: uniformly drawn impressions"
    return ReplayJob(title, stream, job.targets, notes=notes, clusters=job.clusters)


def joined(history: EventLog | None, future: EventLog | None) -> EventLog:
    """The history and the future of a data set as one log.

    Raises:
        ReplayError: neither is there.
    """
    logs = [log for log in (history, future) if log is not None and log.n_rows]
    if not logs:
        raise ReplayError(
            "the data has no impressions: a synthetic world has no log before it is run (`abtest"
            " run`)"
        )
    return _renumbered(logs) if len(logs) > 1 else logs[0]


def _renumbered(logs: list[EventLog]) -> EventLog:
    """One log of logs that follow each other in time, each of which numbers its sessions from 0."""
    tables, base = [], np.zeros(logs[0].metadata.n_users, dtype=np.int64)
    for log in logs:
        table = log.table
        user, session = table["user"].to_numpy(), table["session"].to_numpy().astype(np.int64)
        at = table.schema.get_field_index("session")
        tables.append(
            table.set_column(
                at, table.schema.field("session"), pa.array(session + base[user], pa.uint32())
            )
        )
        np.maximum.at(base, user, session + base[user] + 1)
    return merge(
        [EventLog(log.metadata, table) for log, table in zip(logs, tables, strict=True)],
        logs[0].metadata,
    )


def training(
    log: EventLog, arm: str | None, before: int, days: int | None, fit: int | None = None
) -> Sequences:
    """What policies are fitted on: the arm's impressions of the last `days` days before `before`
    ms, in all lives or in those with one fit, read by batches.
    """
    index = 0 if arm is None else log.metadata.arms.index(arm)
    kept = []
    names = [*_TRAIN_COLUMNS, "channel", "logged", *log.kinds, *([] if fit is None else [FIT])]
    for batch in log.batches(names):
        mine = pc.and_(pc.equal(batch["arm"], index), pc.less(batch["t"], before))
        if fit is not None:
            mine = pc.and_(mine, pc.equal(batch[FIT], fit))
        if days is not None:
            mine = pc.and_(mine, pc.greater_equal(batch["t"], before - days * DAY))
        kept.append(pa.Table.from_batches([batch]).filter(mine))
    return EventLog(log.metadata, pa.concat_tables(kept)).sequences(arm)


def _extent(title: str, log: EventLog, arm: str | None, test_days: int) -> tuple[int, bool]:
    """Where the rounds begin, ms: at 0, or `test_days` days before the end of a log that has all
    its rows on one side of 0; and whether any impression of the arm has a propensity.
    """
    index = 0 if arm is None else log.metadata.arms.index(arm)
    low, high, drawn = np.iinfo(np.int64).max, np.iinfo(np.int64).min, False
    for batch in log.batches(["arm", "t", "propensity"]):
        mine = pc.equal(batch["arm"], index)
        t = batch["t"].filter(mine)
        if len(t):
            extremes = pc.min_max(t).as_py()
            low, high = min(low, extremes["min"]), max(high, extremes["max"])
            drawn = drawn or pc.count(batch["propensity"].filter(mine)).as_py() > 0
    if high < low:
        raise ReplayError(f"{title}: no impressions of arm {arm or log.metadata.arms[0]!r} there")
    if low < 0 <= high:
        return 0, drawn
    return int((high // DAY + 1 - test_days) * DAY), drawn
