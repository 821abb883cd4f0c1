"""check_users: the promises of users as named checks, for a stranger's user model as
`policies.check` is for a policy.

Each check lets a few users live through some requests, in one way and in another, and compares the
bytes of their answers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import Catalogue, IntArray, Slates
from policies.calls import OutOfTime, raised, within
from policies.streams import Purpose, uniform
from policies.subject import LIMIT, BrokenPromise, Result
from policies.time import DAY
from simulator.users.base import NEVER, Feedback, Source, UsersError
from simulator.users.plugins import Plugged, PluggedUsers, UserCallError, UserModel

N_USERS, N_ITEMS, K = 24, 60, 5
"""Of the world in which a user model is checked, where no log is given."""

DAYS, REQUESTS = 7, 40
"""How long each user lives in a check: so many days, and at most so many requests."""

Answers = dict[tuple[int, int], tuple[bytes, ...]]
"""What was answered, by (user, step): the bytes of the row of each array of a `Feedback`, and of
what is known of the request.
"""


@dataclass
class Life:
    """What has been lived.

    Attributes:
        next: `[n]` ms, when each user asks next.
        step: `[n]` requests made.
        answers: all that was answered.
        left: users who have ended a session.
    """

    next: IntArray
    step: IntArray
    answers: Answers
    left: set[int] = field(default_factory=set)


@dataclass
class UsersUnderCheck:
    """A user model under check.

    Attributes:
        model: unfitted.
        seed: of the world.
        source: of a real log; None: a synthetic world of N_USERS users and N_ITEMS items.
        limit: seconds that a check may take.
        folder: where its fits lie.
    """

    model: UserModel
    seed: int = 0
    source: Source | None = None
    limit: float = LIMIT
    folder: Path = field(default_factory=Path)

    @cached_property
    def plugged(self) -> Plugged:
        synthetic = self.source is None
        n_users, n_items = (N_USERS, N_ITEMS) if synthetic else (None, None)
        return Plugged(self.model, type(self.model).__name__, n_users, n_items)

    @cached_property
    def world(self) -> Source:
        """What its users are built from."""
        if self.source is not None:
            return self.source
        return self.plugged.source(self.seed)

    @property
    def catalogue(self) -> Catalogue:
        return self.world.catalogue

    @cached_property
    def fitted(self) -> Path:
        """The folder of its fit."""
        return self.fit("fit")

    def fit(self, name: str) -> Path:
        """Fit it into a folder of this name."""
        folder = self.folder / name
        self.plugged.fit(self.world, self.seed, folder)
        return folder

    def users(self, folder: Path | None = None, who: IntArray | None = None) -> PluggedUsers:
        """Fresh users; `who` of them, or all."""
        return self.plugged.build(self.world, self.seed, DAYS, folder or self.fitted, who)

    @property
    def everybody(self) -> IntArray:
        """The users that live: some of a large log."""
        return np.arange(min(self.catalogue.n_users, N_USERS), dtype=np.int64)

    def live(
        self,
        users: PluggedUsers,
        who: IntArray,
        *,
        batch: Callable[[IntArray], Iterable[IntArray]] = lambda who: [who],
        slates_of: int = 0,
        life: Life | None = None,
        requests: int = REQUESTS,
    ) -> Life:
        """Let users live.

        Args:
            users: who answers.
            who: the ids of those that live.
            batch: how those who ask next are cut into calls.
            slates_of: another number shows other items.
            life: to be continued; else from the beginning.
            requests: how many each may make.
        """
        if life is None:
            life = Life(users.first(who), np.zeros(len(who), dtype=np.int64), {})
        life = Life(life.next.copy(), life.step.copy(), dict(life.answers), set(life.left))
        while True:
            waiting = np.flatnonzero((life.next < DAYS * DAY) & (life.step < requests))
            if not len(waiting):
                return life
            for rows in batch(waiting):
                self._ask(users, who, rows, life, slates_of)

    def _ask(
        self, users: PluggedUsers, who: IntArray, rows: IntArray, life: Life, slates_of: int
    ) -> None:
        user, step, t = who[rows], life.step[rows], life.next[rows]
        sizes = users.slate_size(user, step)
        k = min(K if sizes is None else int(sizes.max(initial=1)), self.catalogue.n_items)
        items = self._slates(user, step, k, slates_of)
        if sizes is not None:
            items = np.where(np.arange(k) < sizes[:, None], items, 0)
        scores = np.broadcast_to(np.arange(k, 0, -1, dtype=np.float32), items.shape).copy()
        known = users.describe(user, step, t)
        answers = users.respond(user, step, t, Slates(items, scores))
        for row in range(len(rows)):
            told = tuple(known[name][row].tobytes() for name in users.features)
            life.answers[int(user[row]), int(step[row])] = _bytes(answers, row) + told
        life.next[rows] = answers.next
        life.step[rows] += 1
        life.left.update(user[answers.leaves].tolist())

    def _slates(self, user: IntArray, step: IntArray, k: int, slates_of: int) -> IntArray:
        """Distinct items for each request, the same whoever else asks."""
        n = self.catalogue.n_items
        key = uniform(
            self.seed + slates_of, Purpose.RECALL, user[:, None], step[:, None], np.arange(n)
        )
        return np.argsort(key, axis=1, kind="stable")[:, :k].astype(np.int64) + 1


def _bytes(answers: Feedback, row: int) -> tuple[bytes, ...]:
    columns: list[npt.NDArray[Any] | None] = [
        answers.click,
        answers.watch,
        answers.shown,
        answers.next,
        answers.leaves,
        answers.logged,
        *(answers.kinds[kind] for kind in sorted(answers.kinds)),
    ]
    return tuple(b"" if column is None else column[row].tobytes() for column in columns)


def _same(one: Answers, other: Answers, what: str) -> None:
    """Two lives have the same answers.

    Raises:
        BrokenPromise: with the first request, in the order of user and step, that was answered in
            another way.
    """
    for user, step in sorted(one.keys() | other.keys()):
        if one.get((user, step)) != other.get((user, step)):
            raise BrokenPromise(f"user {user} answers request {step} in another way {what}")


def protocol(subject: UsersUnderCheck) -> None:
    """first, slate_size and respond give arrays of the right types, shapes and ranges"""
    life = subject.live(subject.users(), subject.everybody)
    if not life.answers:
        rule = f"no user asks within {DAYS} days of their start: `first` gives ms"
        raise BrokenPromise(f"{rule}; got {life.next.min()} and later")


def determinism(subject: UsersUnderCheck) -> None:
    """users that are built twice from the same arguments give the same answers"""
    one = subject.live(subject.users(), subject.everybody)
    other = subject.live(subject.users(), subject.everybody)
    _same(one.answers, other.answers, "when they are built a second time")


def fit_again(subject: UsersUnderCheck) -> None:
    """two fits of the same data with the same seed give the same answers"""
    one = subject.live(subject.users(), subject.everybody)
    other = subject.live(subject.users(subject.fit("again")), subject.everybody)
    _same(one.answers, other.answers, "after a second fit")


def batch_invariance(subject: UsersUnderCheck) -> None:
    """users that ask together answer as each would alone, in whatever order"""
    whole = subject.live(subject.users(), subject.everybody)
    alone = subject.live(
        subject.users(), subject.everybody, batch=lambda rows: np.split(rows, len(rows))
    )
    _same(whole.answers, alone.answers, "when each is asked in a call of its own")
    turned = subject.live(subject.users(), subject.everybody, batch=lambda rows: [rows[::-1]])
    _same(whole.answers, turned.answers, "when the batch is in the opposite order")


def shard_invariance(subject: UsersUnderCheck) -> None:
    """users answer the same where only some of them live in a process"""
    whole = subject.live(subject.users(), subject.everybody)
    for half in np.array_split(subject.everybody, 2):
        part = subject.live(subject.users(who=half), half)
        expected = {key: row for key, row in whole.answers.items() if key[0] in set(half.tolist())}
        _same(expected, part.answers, f"where only users {half[0]} to {half[-1]} live")


def independence(subject: UsersUnderCheck) -> None:
    """what others are shown does not change what a user answers"""
    one, others = subject.everybody[::2], subject.everybody[1::2]
    expected = subject.live(subject.users(), one)
    users = subject.users()
    life = beside = None
    for request in range(1, REQUESTS + 1):
        life = subject.live(users, one, life=life, requests=request)
        beside = subject.live(users, others, life=beside, requests=request, slates_of=1)
    assert life is not None
    _same(expected.answers, life.answers, "when other users are shown other items")


def clock(subject: UsersUnderCheck) -> None:
    """sessions end: within the requests of a check some user leaves, or does not come back"""
    life = subject.live(subject.users(), subject.everybody)
    if not life.left and not (life.next == NEVER).any():
        rule = f"after {REQUESTS} requests no user has left (`leaves`) and none is gone for ever"
        raise BrokenPromise(f"{rule}: a log numbers the requests of a session in 16 bits")


def state_is_whole(subject: UsersUnderCheck) -> None:
    """state and restore: users who are built anew go on as if nothing had happened"""
    everybody = subject.everybody
    expected = subject.live(subject.users(), everybody)
    users = subject.users()
    half = subject.live(users, everybody, requests=REQUESTS // 2)
    kept = {name: column.copy() for name, column in users.state().items()}
    later = subject.users()
    later.restore(kept)
    rest = subject.live(later, everybody, life=half)
    _same(expected.answers, rest.answers, "after state and restore")


def state_by_user(subject: UsersUnderCheck) -> None:
    """the rows of some users in a state are enough for these users to go on"""
    some = subject.everybody[::2]
    expected = subject.live(subject.users(), some)
    users = subject.users()
    half = subject.live(users, some, requests=REQUESTS // 2)
    kept = users.state()
    later = subject.users()
    whole = {name: column.copy() for name, column in later.state().items()}
    if whole.keys() != kept.keys():
        rule = f"state must have the same arrays at any time: {sorted(whole)} at the start"
        raise BrokenPromise(f"{rule}; got {sorted(kept)} later")
    for name, column in whole.items():
        column[some] = kept[name][some]
    later.restore(whole)
    rest = subject.live(later, some, life=half)
    _same(expected.answers, rest.answers, "after only their own rows were restored")


def going_back(subject: UsersUnderCheck) -> None:
    """an instance that was used and takes back its first state answers as a new one"""
    users = subject.users()
    pristine = {name: column.copy() for name, column in users.state().items()}
    one = subject.live(users, subject.everybody)
    users.restore(pristine)
    again = subject.live(users, subject.everybody)
    _same(one.answers, again.answers, "after its first state was restored")


CHECKS: dict[str, Callable[[UsersUnderCheck], None]] = {
    check.__name__: check
    for check in (
        protocol,
        determinism,
        fit_again,
        batch_invariance,
        shard_invariance,
        independence,
        clock,
        state_is_whole,
        state_by_user,
        going_back,
    )
}
"""The promises by name, in the order in which they are checked."""


def check_users(
    model: UserModel,
    *,
    seed: int = 0,
    only: Iterable[str] | None = None,
    source: Source | None = None,
    limit: float = LIMIT,
) -> Iterator[Result]:
    """Run the checks one after another.

    Args:
        model: the user model.
        seed: of the world.
        only: names of `CHECKS`; None for all.
        source: of a real log, for a user model that lives on one; None: a synthetic world.
        limit: seconds that a check may take (in a main thread; native code is not interrupted).

    Yields:
        A `Result` for each check as soon as it is known. None comes after one that `stops`.
    """
    with tempfile.TemporaryDirectory() as folder:
        subject = UsersUnderCheck(model, seed, source, limit, Path(folder))
        for name in CHECKS if only is None else only:
            result = _run(subject, name)
            yield result
            if result.stops:
                return


def promise_of(name: str) -> str:
    """What a check holds a user model to, on one line."""
    return " ".join((CHECKS[name].__doc__ or "").split())


def _run(subject: UsersUnderCheck, name: str) -> Result:
    promise = promise_of(name)
    try:
        with within(subject.limit):
            CHECKS[name](subject)
    except BrokenPromise as broken:
        return Result(name, promise, False, detail=str(broken))
    except UserCallError as error:
        unbuilt = "fitted" not in vars(subject)
        crashed = unbuilt or error.kind in ("raised", "late")
        return Result(name, promise, False, detail=error.what, stops=True, crashed=crashed)
    except UsersError as error:  # of abtest's own users, which a model may stand on
        return Result(name, promise, False, detail=str(error), stops=True, crashed=True)
    except Exception as error:  # the model's own, outside its methods
        return Result(name, promise, False, detail=raised(error))
    except OutOfTime:
        text = f"took longer than the {subject.limit:g} s of a check"
        return Result(name, promise, False, detail=text, stops=True, crashed=True)
    return Result(name, promise, True)
