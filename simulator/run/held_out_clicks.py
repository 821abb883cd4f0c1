"""What each fit finds among clicks that no fit has seen, measured before the A/B begins.

The clicks are those of lives that are lived for this alone: from t = 0 on, some of the users are
shown slates drawn uniformly from all items, and answer as they would in the A/B. So every item is
as likely to be shown as any other, and the clicks that a policy's candidates hold estimate, up to
one factor for all policies, how often these candidates would be clicked if they were shown: no
policy is favoured because it resembles the one that has written the history. Nothing of these lives
reaches the log, a fit or the A/B.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import Fitting, Histories, IntArray, Policy, Progress
from policies.calls import Calls
from policies.explore import Explore
from policies.registry import make
from policies.time import DAY
from simulator.engine import tape
from simulator.engine.lives import Engine, ShardLives, Span
from simulator.log.files import load_arrays, save_arrays
from simulator.log.fit_values import FitValues
from simulator.log.ledger import present
from simulator.log.metadata import HISTORY
from simulator.log.workspace import Lane, Workspace, file_name
from simulator.run.context import Context, Job, OfRun, begin, share_of_gpu
from simulator.run.contract import Needs
from simulator.run.tasks import lives_at_start
from simulator.scenario.parts import PolicySpec
from simulator.serving.desk import Channel, Desk, Serves
from simulator.users.base import NEVER, Users, described
from simulator.users.held_out import HeldOut

FLOOR = (PolicySpec(policy="popularity"), PolicySpec(policy="itemknn"))
"""Policies that count: what a policy that trains must not fall below."""

USERS = 2000
"""Users whose clicks are looked for, at most; they are spread evenly over all ids."""

DAYS = 7
"""Days that they live for it, at most."""

REQUESTS = 5
"""Requests of a user whose clicks are looked for: the first ones, since policies are asked once for
each user, before them, and some users' tastes depend on what they have just seen.
"""


@dataclass(frozen=True)
class LearnedArms:
    """The arms whose policies draw in training, and are judged by their fits: none where users
    click held-out items only, for there the run itself is this measurement.
    """

    job: Job

    def __str__(self) -> str:
        return "importing the policies of the arms"

    def __call__(self, progress: Progress) -> list[str]:
        run = begin(self.job)
        if isinstance(run.scenario.users, HeldOut):
            return []
        return [arm for arm, spec in run.scenario.arms.items() if run.policy(spec).is_seeded]


@dataclass(frozen=True)
class RandomLives(OfRun):
    """Let some users live among random slates, and keep what they have seen before and their first
    clicks.
    """

    job: Job

    def __str__(self) -> str:
        return "simulating users among random slates"

    def __call__(self, progress: Progress) -> dict[str, float]:
        run = begin(self.job)
        file = _place(run.workspace) / "clicks.npz"
        if present(file):
            return {"seconds": 0.0}
        start = time.process_time()
        serving, n_users = run.scenario.serving, run.catalogue.n_users
        sample = np.unique(np.linspace(0, n_users, USERS, endpoint=False).astype(np.int64))
        lives, users = _at_start(run, sample)
        block, seen = run.scenario.engine.block, serving.seen or serving.history
        asked = _first_requests(run, users, lives, seen)
        policy = make("random", {}, run.folder)
        Calls(policy, "random").fit(run.lesson, run.catalogue_of(None), Fitting(run.seed))
        desk = _desk(run, "", "random", policy, serving.slate)
        end = min(run.scenario.days, DAYS) * DAY
        span = Span(0, end, DAY, block, serving.slate, serving.history, seen, run.asks)
        engine = Engine(lives, users, desk, tape.Tape(run.kinds), span)
        engine.run()
        row, item = _first_clicks(engine.tape.columns(), asked.user)
        save_arrays(file, {**asked.arrays(), "row": row, "item": item})
        return {"seconds": time.process_time() - start, "impressions": float(engine.tape.n_rows)}


def _at_start(run: Context, who: IntArray) -> tuple[ShardLives, Users]:
    """The lives of users `who` at t = 0, of whatever shards, and these users."""
    parts = []
    for first, last in run.shards:
        here = who[(first <= who) & (who < last)]
        if len(here):
            lives, users = lives_at_start(run, (first, last), here)
            parts.append((lives, users.state()))
    users = run.users(who)
    users.restore(
        {name: np.concatenate([state[name] for _, state in parts]) for name in parts[0][1]}
    )
    return ShardLives.joined([lives for lives, _ in parts]), users


def _first_requests(run: Context, users: Users, lives: ShardLives, seen: int) -> Histories:
    """The first request of each life, `[n]`; that of a user who never comes is at 0 and without
    features, and nobody looks for its clicks.
    """
    comes = np.flatnonzero(lives.next < NEVER)
    known = described(users, lives.user[comes], lives.step[comes], lives.next[comes], run.asks)
    request = {}
    for path, values in known.items():
        request[path] = np.zeros(len(lives.user), dtype=values.dtype)
        request[path][comes] = values
    everyone = np.arange(len(lives.user))
    return lives.histories(everyone, run.scenario.serving.history, seen, request)


def _first_clicks(
    served: Mapping[str, npt.NDArray[Any]], user: IntArray
) -> tuple[IntArray, IntArray]:
    """The clicks of each user's first REQUESTS requests out of the columns of a tape: rows of
    `user` `[n]` (ascending ids), and items, `[m]` each.
    """
    asked_by = served["user"].astype(np.int64)
    order = np.argsort(asked_by, kind="stable")
    at, first = np.arange(len(order)), np.searchsorted(asked_by[order], asked_by[order])
    rank = np.empty_like(order)
    rank[order] = at - first
    request = np.repeat(np.arange(len(order)), served["shown"].astype(np.int64))
    kept = (rank[request] < REQUESTS) & (served["click"] == 1)
    row = np.searchsorted(user, asked_by[request[kept]])
    return row, served["item"][kept].astype(np.int64)


@dataclass(frozen=True)
class Find(OfRun):
    """What the candidates of one policy hold of the first clicks among random slates.

    Attributes:
        job: the run.
        spec: the policy.
        arm: whose it is; "" = the floor, which is fitted here.
        fit: which of its fits; None where there is but one.
    """

    job: Job
    spec: PolicySpec
    arm: str = ""
    fit: int | None = None

    def __str__(self) -> str:
        which = "" if self.fit is None else f" (fit {self.fit})"
        return f"looking for held-out clicks with policy {self.spec.policy!r}{which}"

    @property
    def needs(self) -> Needs:
        """As a process of the run; a share of a GPU where the policy answers on one."""
        return replace(super().needs, gpus=share_of_gpu(self.spec))

    def place(self, workspace: Workspace) -> Path:
        """Where it keeps what it finds."""
        name = file_name(self.arm) if self.arm else f"floor~{self.spec.policy}"
        fit = "" if self.fit is None else f"~fit-{self.fit}"
        return _place(workspace) / "found" / f"{name}{fit}.npz"

    def __call__(self, progress: Progress) -> dict[str, float]:
        run = begin(self.job)
        file = self.place(run.workspace)
        if present(file):
            return {"seconds": 0.0}
        start = time.process_time()
        stored = load_arrays(_place(run.workspace) / "clicks.npz")
        row, item = stored.pop("row"), stored.pop("item")
        asked = Histories.of(stored)
        k, block = run.scenario.serving.recall, run.scenario.engine.block
        desk = _desk(run, self.arm, self.spec.policy, self._policy(run), k)
        gain = np.zeros(len(row))
        for first in range(0, len(asked), block):
            candidates = desk.serve(asked.rows(slice(first, first + block)), k).slates.items
            here = np.flatnonzero((first <= row) & (row < first + block))
            at, rank = np.nonzero(candidates[row[here] - first] == item[here, None])
            gain[here[at]] = 1.0 / np.log2(rank + 2.0)
        sums = {"clicks": np.ones(len(row)), "hits": gain > 0, "gains": gain}
        n = len(asked)
        save_arrays(file, {name: np.bincount(row, each, n) for name, each in sums.items()})
        return {"seconds": time.process_time() - start}

    def _policy(self, run: Context) -> Policy:
        policy = run.policy(self.spec)
        calls = Calls(policy, self.spec.policy)
        if self.arm:
            run.load_fit(calls, self.fit)
        else:
            seed = run.training_seed(policy, None)
            calls.fit(run.lesson, run.catalogue_of(None), Fitting(seed))
        if isinstance(policy, Explore):  # its fit is that of the policy which it explores over
            (policy,) = policy.parts()
        return policy


def collect(workspace: Workspace, pieces: Sequence[Find], candidates: int) -> None:
    """Put what all fits have found into one file of the run's folder; where nobody has clicked
    anything there is nothing to be found, and no file.
    """
    stored = [load_arrays(piece.place(workspace)) for piece in pieces]
    came = stored[0]["clicks"] > 0
    if not came.any():
        return
    FitValues(
        candidates,
        tuple(piece.arm for piece in pieces),
        tuple(piece.spec.policy for piece in pieces),
        tuple(piece.fit or 0 for piece in pieces),
        stored[0]["clicks"][came],
        np.stack([one["hits"][came] for one in stored]),
        np.stack([one["gains"][came] for one in stored]),
    ).save(workspace.root)


def _place(workspace: Workspace) -> Path:
    return workspace.work / "held-out~clicks"


def _desk(run: Context, arm: str, name: str, policy: Policy, k: int) -> Serves:
    """A desk with nothing behind the recall of a policy, and the catalogue as it is at t = 0."""
    limit = run.scenario.engine.time_limit
    channel = Channel(name, policy, k)
    desk = Desk(arm, channel, (), None, run.catalogue.n_items, run.seed, limit)
    life = run.life(Lane(HISTORY), 0)
    return desk if life is None else run.admitting(desk, life, 0)
