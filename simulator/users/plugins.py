"""User models of others: found by name, held to the protocol of `Users` at every call.

A user model is to users what a policy is to recall: a dataclass whose fields are its parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from policies.base import Catalogue, IntArray, Params, Progress, Slates, silent
from policies.calls import Limit, PluginCallError, PluginError, calling, describe
from policies.plugins import Registry
from policies.sources import sources
from simulator.log.kinds import FEEDBACK
from simulator.users.base import DescribesRequests, Feedback, Source, Users

LONGEST_SLATE = 10_000
"""Positions of a request that a user model may ask for."""


ANY_TIME = Limit()


@dataclass
class UserModel(Params, ABC):
    """Users of a scenario, written by somebody else than abtest.

    A subclass is a dataclass whose fields are its parameters, checked from YAML as a policy's are.
    """

    def catalogue(self, seed: int, n_users: int, n_items: int) -> Catalogue:
        """What policies and the log may know of the world where no real log says it: by default
        nothing but the numbers of users and items.
        """
        return Catalogue(n_users, n_items)

    def fit(self, source: Source, seed: int, folder: Path, progress: Progress) -> None:
        """What must be learned once, before anybody lives, kept in `folder`; by default nothing."""

    @abstractmethod
    def build(self, source: Source, seed: int, days: int, folder: Path) -> Users:
        """A fresh instance of the users, the same from the same arguments in every process.

        Args:
            source: catalogue and, on a real log, history and future. In a synthetic world the
                history is None when users are built who are to make it.
            seed: of the world: the only source of random numbers (`abtest.uniform`).
            days: length of the A/B.
            folder: what `fit` has left.
        """

    def build_some(
        self, source: Source, seed: int, days: int, folder: Path, who: IntArray
    ) -> Users | None:
        """As `build`, for the users `who` `[n]` (ids, ascending) and nobody else, so that a process
        holds those of its shard: `state` has a row for each of them. By default None: `build` makes
        all users, once in each process.
        """
        return None

    def files(self) -> tuple[Path, ...]:
        """Files, besides its source, that decide what users answer (a model file): a run is not
        continued after they changed.
        """
        return ()

    def parts(self) -> tuple[UserModel, ...]:
        """Other user models that this one is made of: their source counts, too."""
        return ()


class UserModelError(PluginError):
    """A user model that cannot be found, imported, configured, fitted or built."""

    noun = "user model"


class UserCallError(PluginCallError, UserModelError):
    """As `PluginCallError`, of a user model."""


USER_MODELS: Registry[UserModel] = Registry(
    group="abtest.users",
    base=UserModel,  # type: ignore[type-abstract]
    error=UserModelError,
    fault=UserCallError,
    plural="user models",
    parameter="parameter",
    listing="abtest users list",
)


@dataclass
class Plugged:
    """A user model as a scenario's population: a `Population` whose calls are guarded.

    Attributes:
        model: with its parameters.
        kind: its name in the scenario.
        n_users, n_items: of a synthetic world; None where the data says them.
        limit: of a call that answers.
    """

    model: UserModel
    kind: str
    n_users: int | None = None
    n_items: int | None = None
    limit: Limit = ANY_TIME
    _whole: tuple[PluggedUsers, dict[str, npt.NDArray[Any]]] | None = field(
        default=None, init=False, repr=False
    )
    """All users where the model cannot build some of them, and their state at the start."""

    @classmethod
    def of(
        cls,
        kind: str,
        params: Mapping[str, Any],
        folder: Path,
        n_users: int | None = None,
        n_items: int | None = None,
        limit: Limit = ANY_TIME,
    ) -> Self:
        """The user model called `kind`; plug-in files are looked up in `folder`.

        Raises:
            UserModelError: there is none, or it cannot be made of these parameters.
        """
        return cls(USER_MODELS.make(kind, params, folder), kind, n_users, n_items, limit)

    def sources(self) -> dict[str, str]:
        """Digests of the files behind it (`policies.sources`)."""
        return sources(self.model)

    def source(self, seed: int) -> Source:
        """What there is of a synthetic world before anybody lives: its catalogue.

        Raises:
            UserModelError: its code failed, or the catalogue is not of as many users and items.
        """
        assert self.n_users is not None
        assert self.n_items is not None
        with self._calling("catalogue"):
            catalogue = self.model.catalogue(seed, self.n_users, self.n_items)
        if not isinstance(catalogue, Catalogue):
            raise self._broken(
                "catalogue", f"must return abtest.Catalogue; got {describe(catalogue)}"
            )
        for what, given, wanted in (
            ("users", catalogue.n_users, self.n_users),
            ("items", catalogue.n_items, self.n_items),
        ):
            if given != wanted:
                raise self._broken("catalogue", f"must have {wanted} {what}; got {given}")
        return Source(catalogue)

    def fit(self, source: Source, seed: int, folder: Path, progress: Progress = silent) -> None:
        """Let it learn; as `Population.fit`."""
        folder.mkdir(parents=True, exist_ok=True)
        with self._calling("fit"):
            self.model.fit(source, seed, folder, progress)

    def build(
        self, source: Source, seed: int, days: int, folder: Path, who: IntArray | None = None
    ) -> PluggedUsers:
        """Fresh users; as `Population.build`. Where the model builds all users at once, those who
        were built for some before are taken back to their start.

        Raises:
            UserModelError: its code failed, or gave something else than users.
        """
        if who is None:
            with self._calling("build"):
                users = self.model.build(source, seed, days, folder)
            return self._held(users, source.catalogue)
        with self._calling("build_some"):
            some = self.model.build_some(source, seed, days, folder, who.copy())
        if some is not None:
            return self._held(some, source.catalogue, who)
        if self._whole is None:
            everybody = self.build(source, seed, days, folder)
            start = {name: column.copy() for name, column in everybody.state().items()}
            self._whole = everybody, start
        everybody, start = self._whole
        everybody.restore(start)
        return PluggedUsers(everybody.users, self.kind, self.limit, who)

    def _held(self, users: Any, catalogue: Catalogue, who: IntArray | None = None) -> PluggedUsers:
        """What the model has built, if it is users, with state of `who` alone; None: of all."""
        missing = [name for name in _PROTOCOL if not hasattr(users, name)]
        if missing:
            rule = f"must return users with {', '.join(missing)}"
            raise self._broken("build", f"{rule}; got {describe(users)}")
        for what in ("n_users", "n_items"):
            given, wanted = getattr(users, what), getattr(catalogue, what)
            if given != wanted:
                raise self._broken("build", f"users.{what} must be {wanted}; got {given!r}")
        kinds = users.kinds
        if not (isinstance(kinds, tuple) and set(kinds) <= set(FEEDBACK)):
            rule = f"users.kinds must be a tuple out of {', '.join(FEEDBACK)}"
            raise self._broken("build", f"{rule}; got {kinds!r}")
        features = users.features if isinstance(users, DescribesRequests) else ()
        if not (isinstance(features, tuple) and all(map(_is_name, features))):
            rule = "users.features must be a tuple of names (letters, digits, _)"
            raise self._broken("build", f"{rule}; got {features!r}")
        return PluggedUsers(users, self.kind, self.limit, who, has_all=who is None)

    def _calling(self, method: str) -> Any:
        return calling(self.kind, method, fault=UserCallError)

    def _broken(self, method: str, what: str) -> UserCallError:
        return UserCallError(self.kind, f"{method} {what}", "form")


class PluggedUsers:
    """Users of a user model, whose answers are copied and held to the form of the protocol.

    Raises:
        UserCallError: (every method) its code failed, or what it gave is of another form; the
            message names the method, the rule and the value.
    """

    def __init__(
        self,
        users: Users,
        name: str,
        limit: Limit,
        who: IntArray | None = None,
        *,
        has_all: bool = True,
    ) -> None:
        """Users whose `state` is that of `who` `[n]` (None: everybody); `has_all`: whether that of
        `users` themselves has a row for each user of the world.
        """
        self.users, self.name, self.limit = users, name, limit
        self.who, self.has_all = who, has_all
        self.n_users, self.n_items, self.kinds = users.n_users, users.n_items, users.kinds
        self.features = users.features if isinstance(users, DescribesRequests) else ()

    def first(self, user: IntArray) -> IntArray:
        """As `Users.first`."""
        with self._calling("first"):
            first = self.users.first(user.copy())
        first = self._array("first", "times", first, np.int64, user.shape)
        self._hold("first", "must not be before 0 ms", user, first, first >= 0)
        return first

    def slate_size(self, user: IntArray, step: IntArray) -> IntArray | None:
        """As `Users.slate_size`."""
        with self._calling("slate_size"):
            size = self.users.slate_size(user.copy(), step.copy())
        if size is None:
            return None
        size = self._array("slate_size", "sizes", size, np.int64, user.shape)
        rule = f"must be 1 to {LONGEST_SLATE:,} positions"
        self._hold("slate_size", rule, user, size, (size >= 1) & (size <= LONGEST_SLATE))
        return size

    def describe(self, user: IntArray, step: IntArray, t: IntArray) -> dict[str, npt.NDArray[Any]]:
        """As `DescribesRequests.describe`; nothing of users without that ability."""
        if not isinstance(self.users, DescribesRequests):
            return {}
        with self._calling("describe"):
            got = dict(self.users.describe(user.copy(), step.copy(), t.copy()))
        if sorted(got) != sorted(self.features):
            rule = f"must give {sorted(self.features)}, as users.features says"
            raise UserCallError(self.name, f"describe {rule}; got {sorted(got)}", "form")
        for name, column in got.items():
            is_array = type(column) is np.ndarray and column.dtype.kind in "iufb"
            if not is_array or column.shape != user.shape:
                rule = f"{name!r} must be a numpy array of numbers of shape {user.shape}"
                raise UserCallError(self.name, f"describe: {rule}; got {describe(column)}", "form")
        return {name: column.copy() for name, column in got.items()}

    def respond(self, user: IntArray, step: IntArray, t: IntArray, slates: Slates) -> Feedback:
        """As `Users.respond`."""
        lent = Slates(
            slates.items.copy(),
            slates.scores.copy(),
            None if slates.propensities is None else slates.propensities.copy(),
            None if slates.interest is None else slates.interest.copy(),
        )
        with self._calling("respond"):
            got: Any = self.users.respond(user.copy(), step.copy(), t.copy(), lent)
        if not isinstance(got, Feedback):
            rule = f"must return abtest.Feedback; got {describe(got)}"
            raise UserCallError(self.name, f"respond {rule}", "form")
        return self._checked(got, user, t, slates.items.shape)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """As `Users.state`."""
        with self._calling("state"):
            state = dict(self.users.state())
        n = self.n_users if self.who is None or self.has_all else len(self.who)
        for name, column in state.items():
            if isinstance(column, np.ndarray) and column.shape[:1] == (n,):
                continue
            rule = f"{name!r} must be an array with a row for each of the {n} users"
            raise UserCallError(self.name, f"state: {rule}; got {describe(column)}", "form")
        if self.who is None or not self.has_all:
            return state
        return {name: column[self.who] for name, column in state.items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """As `Users.restore`."""
        given = {name: column.copy() for name, column in state.items()}
        with self._calling("restore"):
            if self.who is not None and self.has_all:
                everybody = {name: column.copy() for name, column in self.users.state().items()}
                for name, column in everybody.items():
                    column[self.who] = given[name]
                given = everybody
            self.users.restore(given)

    def _checked(
        self, got: Feedback, user: IntArray, t: IntArray, shape: tuple[int, ...]
    ) -> Feedback:
        """The answers in arrays of the caller's own."""
        click = self._answers("click", got.click, user, shape)
        watch = self._array("respond", "watch", got.watch, np.float32, shape)
        rule = "watch must be seconds, at least 0, or NaN where it is not observed"
        self._hold("respond", rule, user, watch, np.isnan(watch) | ((watch >= 0) & (watch < 1e9)))
        shown = self._array("respond", "shown", got.shown, np.int64, user.shape)
        rule = f"shown must be 0 to {shape[1]} positions"
        self._hold("respond", rule, user, shown, (shown >= 0) & (shown <= shape[1]))
        following = self._array("respond", "next", got.next, np.int64, user.shape)
        rule = "next must be after the request (ms), or abtest.NEVER"
        self._hold("respond", rule, user, following, following > t)
        leaves = self._array("respond", "leaves", got.leaves, np.bool_, user.shape)
        if sorted(got.kinds) != sorted(self.kinds):
            rule = f"kinds must be {sorted(self.kinds)}, as users.kinds says"
            raise UserCallError(self.name, f"respond: {rule}; got {sorted(got.kinds)}", "form")
        kinds = {kind: self._answers(kind, got.kinds[kind], user, shape) for kind in self.kinds}
        logged = got.logged
        if logged is not None:
            logged = self._array("respond", "logged", logged, np.bool_, shape)
        return Feedback(click, watch, shown, following, leaves, kinds, logged)

    def _answers(
        self, name: str, got: Any, user: IntArray, shape: tuple[int, ...]
    ) -> npt.NDArray[np.int8]:
        answers = self._array("respond", name, got, np.int8, shape)
        rule = f"{name} must be 1, 0, or -1 where it is not observed"
        self._hold("respond", rule, user, answers, (answers >= -1) & (answers <= 1))
        return answers

    def _array(
        self, method: str, name: str, got: Any, dtype: type, shape: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """A copy of what must be a plain array of this type and shape."""
        if type(got) is np.ndarray and got.dtype == np.dtype(dtype) and got.shape == shape:
            return np.array(got, order="C")
        rule = f"{name} must be a numpy array of {np.dtype(dtype)} and shape {shape}"
        raise UserCallError(self.name, f"{method}: {rule}; got {describe(got)}", "form")

    def _hold(
        self,
        method: str,
        rule: str,
        user: IntArray,
        values: npt.NDArray[Any],
        kept: npt.NDArray[np.bool_],
    ) -> None:
        """Name the first user whose value does not keep a rule."""
        if kept.all():
            return
        place = tuple(np.argwhere(~kept)[0])
        position = f" at place {place[1]}" if len(place) > 1 else ""
        whose = f"user {user[place[0]]}{position}"
        raise UserCallError(self.name, f"{method}: {rule}; got {values[place]} for {whose}", "form")

    def _calling(self, method: str) -> Any:
        return calling(self.name, method, self.limit, fault=UserCallError)


def _is_name(feature: object) -> bool:
    return isinstance(feature, str) and feature.isidentifier()


_PROTOCOL = (
    "n_users",
    "n_items",
    "kinds",
    "first",
    "slate_size",
    "respond",
    "state",
    "restore",
)
"""What users must have (`simulator.users.base.Users`)."""
