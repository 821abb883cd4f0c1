"""The pooled lift of a finished run: its saved models are asked about every request of its log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policies.base import Progress, silent
from policies.context import union
from simulator.log.eventlog import EventLog
from simulator.offpolicy.pooled import (
    LEVELS,
    ArmSums,
    PooledAudit,
    PooledLift,
    arm_sums,
    carry_over,
    halves,
    pooled_audit,
    pooled_lift,
)
from simulator.offpolicy.rounds import Stream
from simulator.offpolicy.settings import ReplayError, hold_still
from simulator.offpolicy.target import PolicyTargets
from simulator.page import saved
from simulator.page.blocks import (
    Block,
    Cell,
    Document,
    Facts,
    Heading,
    Points,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.words import interval, percent, probability, two, whole
from simulator.report.stored import encode
from simulator.run.context import Context, Job
from simulator.scenario.model import Scenario
from simulator.serving.desk import Desk
from simulator.serving.promises import Witness
from simulator.stats import intervals, moments


@dataclass(frozen=True)
class PooledComparison:
    """A treatment arm of a run against the control.

    Attributes:
        reward: what is counted, per user.
        lifts: by each of LEVELS.
        paired, paired_low, paired_high: the lift of twins, who live in both arms; NaN where each
            user is in one.
        audits: of twins, by each of LEVELS; () where there are none.
    """

    control: str
    treatment: str
    reward: str
    lifts: tuple[PooledLift, ...]
    paired: float
    paired_low: float
    paired_high: float
    audits: tuple[PooledAudit, ...]


def pooled(
    log: EventLog,
    root: Path,
    *,
    rewards: Sequence[str] = ("click",),
    repetitions: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> list[PooledComparison]:
    """The pooled lift of every treatment arm of a run over its control.

    Users of a paired run are given an arm by a coin, as a split test would; as twins they are the
    truth, and the estimator is audited on them.

    Args:
        log: of the run.
        root: the run's folder, with its scenario and its models.
        rewards: columns of feedback.
        repetitions: samples of the audit of twins; 0: none.
        seed: of coins and samples.
        progress: told of the requests that policies are asked about.

    Raises:
        ReplayError: a run whose policies are not known in every request, or that shares users.
    """
    if not (root / "scenario.yaml").is_file() or not (root / "models").is_dir():
        raise ReplayError(
            f"{root}: a pooled lift asks the policies of a run; give the folder of a finished run,"
            " with scenario.yaml and models/"
        )
    scenario = Scenario.load(root / "scenario.yaml")
    hold_still(str(root), scenario.resolved())
    job = Job(
        str(root.resolve()), str(root.resolve()), json.dumps(scenario.resolved(), sort_keys=True)
    )
    context = Context(job)
    _check(scenario)
    users = context.users(np.arange(log.metadata.n_users))
    desks: dict[str, Desk] = {}
    for arm in scenario.arms:
        (lane,) = context.lanes_called(scenario.assignment.rows_of(arm).lane)
        served = context.desk(lane, 0, users, Witness())
        assert isinstance(served, Desk)
        desks[arm] = served
    found = []
    for reward in rewards:
        for treatment in scenario.arms:
            if treatment != scenario.control:
                names = scenario.control, treatment
                sums = _sums(log, scenario, names, desks, reward, progress)
                found.append(_compared(names, reward, *sums, repetitions, seed))
    return found


def _check(scenario: Scenario) -> None:
    """Whether the policies of a run can be asked about all of its requests.

    Raises:
        ReplayError: they cannot; the message names the key.
    """
    design = scenario.assignment
    why = None
    if len(scenario.arms) < 2:
        why = "has one arm, and a lift is over another"
    elif scenario.fits.number > 1:
        why = f"fits.number is {scenario.fits.number}: users live with different models of an arm"
    elif scenario.serving.refit != "never":
        why = f"serving.refit is {scenario.serving.refit}: the policies change from day to day"
    elif design.shares_slates or design.unit != "user":
        why = f"design.kind is {design.kind}: an arm's users are not its own"
    if why is not None:
        raise ReplayError(
            f"{scenario.name}: {why}; a pooled lift takes arms that are one policy each, and users"
            " who live in one arm, or twins"
        )


def _sums(
    log: EventLog,
    scenario: Scenario,
    names: tuple[str, str],
    desks: dict[str, Desk],
    reward: str,
    progress: Progress,
) -> tuple[ArmSums, ArmSums]:
    """The sums of both arms' users; the arms have equal shares."""
    serving, design, n = scenario.serving, scenario.assignment, log.metadata.n_users
    assigned = design.arm_of_user(n)
    targets = [PolicyTargets(name, desks[name]) for name in names]
    sums = []
    for name in names:
        users = np.arange(n)
        if assigned is not None:
            users = np.flatnonzero(assigned == design.arms.index(name))
        stream = Stream(
            log,
            reward,
            name,
            history=serving.history,
            seen=serving.seen,
            propensity="unknown",
            context=union(desks[one].asks for one in names),
        )
        sums.append(arm_sums(stream, targets[0], targets[1], (0.5, 0.5), users, progress))
    return sums[0], sums[1]


def _compared(
    names: tuple[str, str],
    reward: str,
    control: ArmSums,
    treatment: ArmSums,
    repetitions: int,
    seed: int,
) -> PooledComparison:
    """One comparison at every level; twins are split by a coin, and audited."""
    twins = np.array_equal(control.users, treatment.users)
    lift, low, high = (float("nan"),) * 3
    audits: tuple[PooledAudit, ...] = ()
    arms = control, treatment
    if twins:
        paired = moments.paired(control.reward, treatment.reward)
        lift, (low, high) = float(paired.lift), intervals.fieller(paired)
        arms = halves(control, treatment, seed)
        if repetitions:
            audits = tuple(pooled_audit(control, treatment, len(control.users), repetitions, seed))
    lifts = tuple(
        pooled_lift(names, *arms, level, carry_over(control, treatment, level)) for level in LEVELS
    )
    return PooledComparison(*names, reward, lifts, lift, float(low), float(high), audits)


def as_json(found: Sequence[PooledComparison]) -> list[dict[str, Any]]:
    """What pooled.json keeps: lifts without their moments; NaN and infinity are null."""
    return [
        {
            "control": one.control,
            "treatment": one.treatment,
            "reward": one.reward,
            "paired": encode({"lift": one.paired, "low": one.paired_low, "high": one.paired_high}),
            "lifts": [
                encode(
                    {
                        "level": lift.level,
                        "lift": float(lift.moments.lift),
                        "low": lift.low,
                        "high": lift.high,
                        "p": lift.p,
                        "split": float(lift.split.lift),
                        "split_low": lift.split_low,
                        "split_high": lift.split_high,
                        "gain": lift.gain,
                        "alike": lift.alike,
                        "variation": lift.variation,
                        "carry": lift.carry,
                    }
                )
                | {"verdict": lift.word, "reasons": list(lift.reasons), "sentence": lift.sentence}
                for lift in one.lifts
            ],
            "audits": [{**encode(asdict(audit)), "level": audit.level} for audit in one.audits],
        }
        for one in found
    ]


def document(title: str, found: Sequence[PooledComparison]) -> Document:
    """The page: a section for each treatment and reward."""
    return Document(
        title=f"Pooled lift: {title}",
        kicker="Pooled lift",
        heading=title,
        about=(
            "Both policies were asked about every request: where they would have shown the same,"
            " nothing can differ."
        ),
        facts=Facts([]),
        gates=[],
        sections=[
            Section(
                f"pooled-{i}",
                f"{one.treatment} against {one.control} ({one.reward})",
                list(_blocks(one)),
                one.treatment,
                len(found) == 1,
            )
            for i, one in enumerate(found, 1)
        ],
    )


def _blocks(one: PooledComparison) -> Iterator[Block]:
    rows = []
    if np.isfinite(one.paired):
        rows.append(
            (
                plain("paired (twins)"),
                numeric(percent, one.paired, 2),
                plain(interval(one.paired_low, one.paired_high, 2)),
                *[plain("")] * 5,
            )
        )
    first = one.lifts[0]
    rows.append(
        (
            plain("split"),
            numeric(percent, float(first.split.lift), 2),
            plain(interval(first.split_low, first.split_high, 2)),
            *[plain("")] * 5,
        )
    )
    rows += [
        (
            plain(f"pooled, {lift.level}"),
            numeric(percent, float(lift.moments.lift), 2),
            plain(interval(lift.low, lift.high, 2)),
            numeric(two, lift.gain),
            numeric(two, lift.alike),
            numeric(percent, 1 - lift.variation, 1, False),
            numeric(probability, lift.carry),
            Cell(lift.word, hint="; ".join(lift.reasons)),
        )
        for lift in one.lifts
    ]
    heads = columns(
        "Estimate",
        "Lift",
        "95% interval",
        "Gain",
        "by alike",
        "Decide alike",
        "Carry-over p",
        "Believe it?",
    )
    yield Table("Lifts", heads, rows, caption=f"{one.reward} per user", sortable=False)
    believed = [lift for lift in one.lifts if lift.word != "unusable"]
    best = max(believed, key=lambda lift: lift.alike, default=None)
    if best is None:
        yield Words("No pooled estimate may be believed; read the split estimate.")
    else:
        yield Words(best.sentence)
    yield Points(
        [
            (
                lift.level,
                "; ".join((f"assumes {LEVELS[lift.level]}", *lift.reasons)) + ".",
            )
            for lift in one.lifts
        ]
    )
    if one.audits:
        yield Heading("Audit")
        yield _audits(one.audits)


def _audits(audits: Sequence[PooledAudit]) -> Table:
    """Error rates of the pooled and of the split estimator, on twins whose truth is known."""
    rows = [
        (
            plain(audit.level),
            numeric(percent, audit.error.value, 1, False),
            numeric(percent, audit.split_error.value, 1, False),
            numeric(percent, audit.coverage.value, 1, False),
            numeric(percent, audit.split_coverage.value, 1, False),
            numeric(percent, audit.bias, 2),
            numeric(two, audit.gain),
            numeric(two, audit.alike),
        )
        for audit in audits
    ]
    heads = columns(
        "Pooled by",
        "False positives",
        "of split",
        "Coverage",
        "of split",
        "Bias",
        "Gain",
        "by alike",
    )
    first = audits[0]
    caption = (
        f"{whole(first.repetitions)} re-randomised tests of {whole(first.n)} users, drawn from the"
        f" twins; true lift {percent(first.lift, 2)}"
    )
    return Table("Audit", heads, rows, caption=caption, sortable=False)


def save(title: str, found: Sequence[PooledComparison], folder: Path) -> Path:
    """Write pooled.json, pooled.md and pooled.html; returns the page."""
    return saved.save(folder, "pooled", as_json(found), document(title, found))
