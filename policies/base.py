"""The recall-policy contract: what a policy is given, what it gives back, what it promises.

Nothing here knows a model, a world or a file format; a stranger's plug-in needs this module and no
other.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from policies.context import is_of_request, log_column, past_of, union
from policies.ranks import ALONE, RankGroup
from policies.staging import staging_of
from policies.stretches import Pile, stretches

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

PADDING = 0
"""The id that stands for "no item". Items are numbered 1..n_items."""


@dataclass(frozen=True, slots=True)
class Histories:
    """A batch of requests: who asks, and what each was shown before.

    Attributes:
        user: `[B]` user ids, 0..n_users-1 (a user unknown to `fit` is allowed: a cold user).
        step: `[B]` how many requests the user has made before this one; keys the random numbers of
            stochastic policies.
        items: `[B, L]` items shown, oldest first, right-aligned, 0 = padding on the left.
        clicked: `[B, L]` True where the item was clicked; False is an *unclick* (shown, not
            clicked) or padding.
        seen: `[B, S]` items that may not be recalled, in any order, 0 = none; usually the items of
            the history and more.

    The rest is context, which a policy is given as far as it asks for it (`Policy.asks_for`), and
    which is None otherwise. Times are on the clock of `Sequences.t`: ms from the start of the A/B,
    which is a midnight. Padding is 0 everywhere.

        time: `[B]` ms, when the request is made.
        times: `[B, L]` ms, when each of `items` was shown.
        watch: `[B, L]` s, how long each was watched, NaN = not observed.
        reactions: `[B, L]` int8 by kind of feedback (`like`, `follow`, ...): 1 = yes, 0 = no, -1 =
            not observed.
        features: `[B]` by name, what the service knows of the request: `tab` is the surface that it
            comes from, -1 = unknown.
    """

    user: IntArray
    step: IntArray
    items: IntArray
    clicked: BoolArray
    seen: IntArray
    time: IntArray | None = None
    times: IntArray | None = None
    watch: FloatArray | None = None
    reactions: Mapping[str, npt.NDArray[np.int8]] | None = None
    features: Mapping[str, npt.NDArray[Any]] | None = None

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, index: Any) -> Histories:
        """The requests at `index` (a slice, an index array or a mask)."""
        if not self.has_context:  # a request of two or three is served in microseconds
            bare = (self.user, self.step, self.items, self.clicked, self.seen)
            return Histories(*(array[index] for array in bare))
        return Histories.of({name: array[index] for name, array in self.arrays().items()})

    @property
    def has_context(self) -> bool:
        """Whether more is told than every policy is given."""
        return not (
            self.time is None
            and self.times is None
            and self.watch is None
            and self.reactions is None
            and self.features is None
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Every array by its path within the requests: `items`, `time`, `reactions.like`, ...;
        context that is not there has none.
        """
        found: dict[str, npt.NDArray[Any]] = {}
        for name in Histories.__slots__:
            value = getattr(self, name)
            if isinstance(value, Mapping):
                found |= {f"{name}.{key}": array for key, array in value.items()}
            elif value is not None:
                found[name] = value
        return found

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Histories:
        """The requests whose `arrays` these are."""
        values: dict[str, Any] = {}
        for path, array in arrays.items():
            name, _, key = path.partition(".")
            if key:
                values.setdefault(name, {})[key] = array
            else:
                values[name] = array
        return cls(**values)

    def with_context(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Histories:
        """The same requests with the context that is named by the paths of `arrays` in place of
        their own.
        """
        return Histories.of({name: getattr(self, name) for name in _BARE} | {**arrays})

    def context(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays of the context alone, by their paths."""
        arrays = self.arrays()
        return {path: arrays[path] for path in arrays.keys() - _BARE}

    def then(self, item: IntArray) -> Histories:
        """The requests after a further click on `item` `[B]`, 0 = none, at the time of the request.
        What else a context tells of an impression is not known of it.
        """
        is_none = item == PADDING

        def longer(column: npt.NDArray[Any], value: Any) -> npt.NDArray[Any]:
            """`value` behind each row; where there is no click, padding before it."""
            out = np.zeros((len(column), column.shape[1] + 1), dtype=column.dtype)
            out[:, :-1], out[:, -1] = column, value
            out[is_none, 1:], out[is_none, 0] = column[is_none], 0
            return out

        unknown: dict[str, Any] = {"watch": np.nan} if self.watch is not None else {}
        unknown |= {f"reactions.{kind}": -1 for kind in self.reactions or ()}
        if self.times is not None and self.time is not None:
            unknown["times"] = self.time
        behind = {"items": item, "clicked": True, **unknown}
        arrays = self.arrays()
        return Histories.of(
            arrays | {path: longer(arrays[path], value) for path, value in behind.items()}
        )

    def clicks(self, length: int) -> IntArray:
        """The last `length` clicked items of each history, `[B, length]`, right-aligned, 0 =
        padding.
        """
        return _compact(self.items, self.clicked & (self.items != PADDING), length)


_BARE = frozenset({"user", "step", "items", "clicked", "seen"})
"""The fields of `Histories` that every policy is given."""


def _compact(values: IntArray, keep: BoolArray, length: int) -> IntArray:
    """The last `length` kept values of each row, right-aligned `[B, length]`, in their order."""
    out = np.zeros((len(values), length), dtype=np.int64)
    from_right = keep[:, ::-1].cumsum(axis=1)[:, ::-1]
    row, column = np.nonzero(keep & (from_right <= length))
    out[row, length - from_right[row, column]] = values[row, column]
    return out


def right_aligned(
    flat: npt.NDArray[Any], end: IntArray, n: IntArray, width: int | None = None
) -> npt.NDArray[Any]:
    """Pieces of a flat array `[N]` as rows `[B, width]`: row i ends with the `n[i]` values before
    `end[i]` (the last `width` of them); 0 stands on the left. A width of None is max(n).
    """
    if width is None:
        width = int(n.max(initial=1))
    place = end[:, None] + np.arange(-width, 0)
    inside = place >= (end - n)[:, None]
    out = np.zeros(inside.shape, dtype=flat.dtype)
    out[inside] = flat[place[inside]]
    return out


@dataclass(frozen=True, slots=True)
class Slates:
    """What a policy recalls for each request, best first.

    Attributes:
        items: `[B, k]` distinct items of 1..n_items; 0 only at the end of a row that has fewer than
            k candidates.
        scores: `[B, k]` non-increasing; -inf where `items` is 0. Comparable within a row only.
        propensities: `[B, k]` probability of each item at its place *given the items above it*, or
            None where the policy is deterministic.
        interest: `[B, k]` which query vector of the policy recalled the item (0, 1, ...), or None.
    """

    items: IntArray
    scores: FloatArray
    propensities: FloatArray | None = None
    interest: IntArray | None = None

    def __len__(self) -> int:
        return len(self.items)

    def rows(self, index: Any) -> Slates:
        """The slates at `index` (a slice, an index array or a mask)."""
        propensities, interest = self.propensities, self.interest
        if propensities is not None:
            propensities = propensities[index]
        if interest is not None:
            interest = interest[index]
        return Slates(self.items[index], self.scores[index], propensities, interest)


@dataclass(frozen=True, slots=True)
class Sequences:
    """The log that a policy is fitted on: every user's impressions, ragged, in time order.

    The impressions of the i-th user are `offsets[i]:offsets[i + 1]` of the flat columns.

    Attributes:
        user: `[U]` user ids, ascending.
        offsets: `[U + 1]` int64.
        items: `[N]` items shown.
        clicked: `[N]` True = click, False = unclick (shown and not clicked).
        t: `[N]` ms.
        columns: further log columns by name, each `[N]`: `watch` (s), `propensity`, `like`,
            `request`, ... as far as logged.
    """

    user: IntArray
    offsets: IntArray
    items: IntArray
    clicked: BoolArray
    t: IntArray
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    def clicks(self) -> Sequences:
        """The clicked impressions only (the positive sequences of the field's papers)."""
        return self.where(self.clicked)

    def where(self, keep: BoolArray) -> Sequences:
        """The impressions where `keep` `[N]`; users keep their rows, also empty ones. Where these
        are many, they lie in files (`policies.stretches`).
        """
        flat = {"items": self.items, "clicked": self.clicked, "t": self.t}
        piles = {name: Pile() for name in (*flat, *self.columns)}
        offsets, n_kept = np.zeros_like(self.offsets), 0
        for users, rows in stretches(self.offsets):
            kept = np.flatnonzero(keep[rows])
            ends = self.offsets[users.start + 1 : users.stop + 1] - rows.start
            offsets[users.start + 1 : users.stop + 1] = n_kept + np.searchsorted(kept, ends)
            n_kept += len(kept)
            for name, column in (*flat.items(), *self.columns.items()):
                piles[name].add(column[rows][kept])
        columns = {name: pile.array() for name, pile in piles.items()}
        items, clicked, t = (columns.pop(name) for name in flat)
        return Sequences(self.user, offsets, items, clicked, t, columns)

    def stretches(self) -> Iterator[Sequences]:
        """The log some users at a time, as views: for counts over a log larger than memory."""
        for users, rows in stretches(self.offsets):
            yield Sequences(
                self.user[users],
                self.offsets[users.start : users.stop + 1] - rows.start,
                self.items[rows],
                self.clicked[rows],
                self.t[rows],
                {name: column[rows] for name, column in self.columns.items()},
            )

    def last(self, length: int, context: Iterable[str] = ()) -> Histories:
        """The last `length` impressions of each user as requests, `[U, length]`; `step` is 0.

        Args:
            length: impressions.
            context: what else of them is told (`Policy.asks_for`), as far as the log knows it. What
                belongs to the requests, their time and features, is not in the log: put it in with
                `dataclasses.replace`.
        """
        end, n = self.offsets[1:], np.diff(self.offsets)
        items = right_aligned(self.items, end, n, length)
        clicked = right_aligned(self.clicked, end, n, length)
        asked = Histories(self.user, np.zeros(len(self), dtype=np.int64), items, clicked, items)
        return asked.with_context(self.context_before(end, n, length, context))

    def context_before(
        self, end: IntArray, n: IntArray, width: int, context: Iterable[str]
    ) -> dict[str, npt.NDArray[Any]]:
        """What a context tells of the impressions before `B` requests, `[B, width]` by its paths,
        as far as the log knows it.

        Args:
            end: `[B]` where the impressions before each request end in the flat columns.
            n: `[B]` how many there are.
            width: columns of a row; of more impressions the last ones are told.
            context: what is asked for.
        """
        known = self._known(past_of(context))
        return {path: right_aligned(column, end, n, width) for path, column in known.items()}

    def context_at(self, row: IntArray, context: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
        """What a context tells of `B` requests themselves, `[B]` by its paths, as far as the log
        knows it; `row` `[B]` is an impression of each.
        """
        known = self._known(filter(is_of_request, context))
        return {path: column[row] for path, column in known.items()}

    def _known(self, paths: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
        """The columns behind paths, those that the log has."""
        found = {}
        for path in paths:
            name = log_column(path)
            column = self.t if name == "t" else self.columns.get(name)
            if column is not None:
                found[path] = column
        return found


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is known of users and items apart from the log.

    Attributes:
        n_users: users are 0..n_users-1.
        n_items: items are 1..n_items.
        items: per-item columns `[n_items + 1, ...]` by name (row 0 is padding): `duration` (s),
            `author`, `tag`, ...
        users: per-user columns `[n_users, ...]` by name.
        attributes: item -> attribute ids, ragged: (`offsets [n_items + 2]`, `ids [M]`), or None.
        available: `[n_items + 1]` whether an item may be shown now; None: all may. In a catalogue
            that lives (`items:` of a scenario) the columns of an item that nobody has uploaded yet
            are as those of padding.
    """

    n_users: int
    n_items: int
    items: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    users: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    attributes: tuple[IntArray, IntArray] | None = None
    available: BoolArray | None = None

    @property
    def withheld(self) -> IntArray:
        """The items `[G]` that may not be shown now, ascending."""
        if self.available is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(~self.available[1:]).astype(np.int64) + 1


Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""Called as (stage, done, total, figures), e.g. ("pre-train", 3, 40, {"loss": .61, "ndcg@10":
.031}).
"""


def silent(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    """The progress of what nobody watches."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """The circumstances of one fit; none of them is a hyper-parameter.

    Attributes:
        seed: decides every random number of the fit.
        device: torch device of neural policies ("cpu", "cuda").
        progress: called after every epoch.
        folder: where checkpoints may be written and found again, or None.
        resume: continue from a checkpoint in `folder` if there is one.
        identity: of what is fitted (a policy's `fit_key`); a checkpoint of anything else is
            refused.
        ranks: the processes that compute this fit together, each by a call of its own. All of them
            end with the same fit, and the first one's is kept.
    """

    seed: int = 0
    device: str = "cpu"
    progress: Progress = silent
    folder: Path | None = None
    resume: bool = False
    identity: str = ""
    ranks: RankGroup = ALONE


@dataclass
class Params:
    """Base of everything that is configured from YAML: unknown keys are errors, nested too
    (pydantic reads the config).
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "arbitrary_types_allowed": False}

    def misfits(self, n_items: int) -> list[tuple[tuple[str, ...], str]]:
        """What of these parameters, or of those within them, does not go with a catalogue of
        `n_items`: the keys that lead there, and the rule with what to do.
        """
        found = []
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Params):
                found += [((one.name, *keys), rule) for keys, rule in value.misfits(n_items)]
        return found


@dataclass
class Policy(Params, ABC):
    """A recall policy: fitted once on a log, then asked for slates.

    A subclass is a dataclass whose fields are its hyper-parameters (constructors only store). What
    `fit` learns is kept in attributes with a trailing underscore and given out by `state`.

    Promises, checked by `policies.check`:
        - `recall` never returns an item of `histories.seen`, a padding or an unknown id, nor one
            item twice;
        - `recall` is pure: the same arguments give the same bytes, whatever came before and however
            requests are batched;
        - all randomness comes from `seed`, `histories.user` and `histories.step` through
            `policies.streams`;
        - a cold user (unknown id or empty history) gets a slate like everybody else.
    """

    serving_fields: ClassVar[frozenset[str]] = frozenset()
    """Hyper-parameters that change `recall` but not `fit`: two policies that differ only in these
    share one fit.
    """

    fitted_as: ClassVar[str] = ""
    """`module:Class` whose fit this class takes over, where it is the same fit under another name;
    "" = its own.
    """

    learns: ClassVar[tuple[str, ...]] = ("checkerboard", "chain")
    """What the policy claims to learn, checked on `policies.examples`: who likes what
    (`checkerboard`), what follows what (`chain`), what nobody was shown yet by its features
    (`fresh`), what is clicked at which hour of the day (`hours`). A yardstick such as popularity
    claims nothing.
    """

    draws_in_fit: ClassVar[bool] = True
    """Whether `fit` draws random numbers. A policy that does not is fitted once, however many fits
    a scenario asks for.
    """

    trains_on_device: ClassVar[bool] = False
    """Whether `fit` computes on `fitting.device`. On a cluster with GPUs such a fit is given one,
    and any other sees none.
    """

    asks_for: ClassVar[tuple[str, ...]] = ()
    """What it reads of requests besides who asks, what was shown and clicked, and what was seen:
    `time`, `times`, `watch`, `reactions.KIND`, `features.NAME`, as they stand in `Histories`. What
    no policy of a scenario asks for is not kept.
    """

    on_examples: ClassVar[Mapping[str, Any]] = {}
    """Hyper-parameters that the learning checks change: defaults may be meant for far more data
    than `policies.examples`.
    """

    @property
    def is_seeded(self) -> bool:
        """Whether fits with other seeds are other models; of a policy that consists of others,
        whether those of any of them are.
        """
        parts = self.parts()
        return any(part.is_seeded for part in parts) if parts else self.draws_in_fit

    @property
    def uses_device(self) -> bool:
        """Whether its fit computes on `fitting.device`, or that of a policy it consists of."""
        return self.trains_on_device or any(part.uses_device for part in self.parts())

    @property
    def most_processes(self) -> int:
        """How many processes can compute one fit together: as many as there are micro-batches in a
        training among its parameters, or in one of a policy it consists of.
        """
        own = [getattr(value, "microbatches", 1) for value in self.params().values()]
        return max([1, *own, *(part.most_processes for part in self.parts())])

    def asked_context(self) -> tuple[str, ...]:
        """The context that it reads, and that any policy reads which it consists of."""
        return union([self.asks_for, *(part.asked_context() for part in self.parts())])

    @abstractmethod
    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Learn from a log.

        Args:
            sequences: the logged impressions of every user, in time order, clicks and unclicks.
            catalogue: number of users and items, and their features as far as the data has them.
            fitting: seed, device, progress callback, checkpoint folder.

        Returns:
            self.

        Raises:
            ValueError: a hyper-parameter out of range, or a loss that is not finite.
        """

    @abstractmethod
    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The `k` best candidates for each request.

        Args:
            histories: `B` requests.
            k: number of candidates, at least 1; may exceed the number of items (rows are then
                padded with 0).
            seed: decides the random numbers of a stochastic policy; a deterministic policy ignores
                it.

        Returns:
            `Slates` of shape `[B, k]`.
        """

    @abstractmethod
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What `fit` learned, as named arrays (no objects, no pickles)."""

    @abstractmethod
    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over what another instance's `state` gave; afterwards both recall the same bytes."""

    def params(self) -> dict[str, Any]:
        """The hyper-parameters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def fit_params(self) -> dict[str, Any]:
        """The hyper-parameters that `fit` depends on."""
        return {
            name: value for name, value in self.params().items() if name not in self.serving_fields
        }

    def files(self) -> tuple[Path, ...]:
        """Files, besides its source, that decide what it recalls (a model file): a run is not
        continued after they changed.
        """
        return ()

    def parts(self) -> tuple[Policy, ...]:
        """Other policies that this one is made of: their source decides what it recalls, too."""
        return ()

    def fit_key(self) -> str:
        """What decides a fit besides data and seed: policies of equal keys share one fit
        (`restore(other.state())`).
        """
        return json.dumps(
            [self.fitted_as or _name(type(self)), self.fit_params()], sort_keys=True, default=_plain
        )

    def save(self, folder: Path) -> None:
        """Write `policy.json` (name and hyper-parameters) and `state.npz` into `folder`, each by
        rename, after the files of `save_search`.

        Raises:
            TypeError: `state` gave something else than named arrays without objects.
        """
        state = _arrays(self.state())
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {"policy": _name(type(self)), "params": self.params()},
            indent=1,
            sort_keys=True,
            default=_plain,
        )
        self.save_search(folder)
        staging = staging_of(folder / "policy.json")
        staging.write_text(text + "\n")
        staging.rename(folder / "policy.json")
        arrays = staging_of(folder / "state.npz")
        with arrays.open("wb") as stream:
            np.savez(stream, **state)  # type: ignore[arg-type]
        arrays.rename(folder / "state.npz")

    def load(self, folder: Path) -> Self:
        """Take over the state that `save` wrote into `folder`, and its search index.

        Raises:
            FileNotFoundError: no `state.npz` there.
        """
        file = folder / "state.npz"
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            self.restore({name: stored[name] for name in stored.files})
        self.take_search(folder)
        return self

    def save_search(self, folder: Path) -> None:
        """Write into `folder`, beside the state, the search index that every process which serves
        would build of it anew, where that takes long. Policies that share a fit may have others.
        """
        for part in self.parts():
            part.save_search(folder)

    def take_search(self, folder: Path) -> None:
        """Serve by the index that `save_search` wrote into `folder`, if it did."""
        for part in self.parts():
            part.take_search(folder)

    def with_params(self, **changes: Any) -> Self:
        """A new, unfitted instance with some hyper-parameters changed."""
        return replace(self, **changes)


def _arrays(state: Any) -> dict[str, npt.NDArray[Any]]:
    """A state that can be stored without pickle."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state must give a dict of arrays by name; got {type(state).__name__}")
    for name, values in state.items():
        is_array = isinstance(values, np.ndarray)
        if not isinstance(name, str) or not is_array or values.dtype.hasobject:
            got = f"an array of {values.dtype}" if is_array else type(values).__name__
            raise TypeError(
                f"state must give numpy arrays without objects by name; got {got} under {name!r}"
            )
    return dict(state)


def _name(policy: type[Policy]) -> str:
    return f"{policy.__module__}:{policy.__qualname__}"


def _plain(value: Any) -> Any:
    if isinstance(value, Policy):
        return {"policy": _name(type(value)), "params": value.params()}
    if isinstance(value, Params):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    raise TypeError(
        f"{type(value).__name__} is not a hyper-parameter that can be saved: use numbers, strings,"
        " lists or Params"
    )


TUNED = "tuned"
"""In the state of a policy that was tuned from an earlier fit: the epochs of the tuning that its
weights are the mean of, `[n]`. 0 is the start, so that [0] says that tuning kept it.
"""


@runtime_checkable
class Scorer(Protocol):
    """Optional ability: scores of given items (ranking, grouped AUC, off-policy estimates of soft
    policies).
    """

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """Scores `[B, n]` of `items` `[B, n]`, higher is better, comparable within a row; seen
        items are scored as any other.
        """


@runtime_checkable
class Retriever(Protocol):
    """Optional ability: query vectors and item vectors, whose inner product orders the items."""

    def queries(self, histories: Histories) -> FloatArray:
        """Query vectors `[B, I, d]`, one for each of the policy's `I` interests."""

    def item_vectors(self) -> FloatArray:
        """Item vectors `[n_items + 1, d]`; row 0 is padding and never a candidate."""


@runtime_checkable
class Updatable(Protocol):
    """Optional ability: learning from feedback while serving (bandits)."""

    def update(self, histories: Histories, slates: Slates, clicked: BoolArray) -> None:
        """Learn from the answers `clicked` `[B, k]` to `slates` `[B, k]` that were served to
        `histories`.
        """


@runtime_checkable
class Admitting(Protocol):
    """Optional ability in a catalogue that lives: to be told which items there are now, between two
    fits.

    A policy without it is not asked for items that its fit was not told of; those that were removed
    stand in `Histories.seen` of its requests. One that has it must recall available items only,
    and its requests' `seen` are what the user has seen.
    """

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> Self:
        """Take over what may be recalled from `t` on.

        What is recalled afterwards depends on the fit and on these arguments alone, not on what was
        admitted before: a run that is resumed admits the present catalogue only.

        Args:
            catalogue: as it is now: `available`, and the columns of all items that have been
                uploaded so far, `uploaded` among them (days before the start of the A/B, negative
                after it, NaN where nobody has uploaded the item yet).
            new: `[m]` available items that the fit was not told of, ascending.
            t: ms.
        """


@runtime_checkable
class Stochastic(Protocol):
    """Optional ability: the probability of any slate, not only of the one drawn."""

    def slate_propensities(self, histories: Histories, items: IntArray, seed: int) -> FloatArray:
        """Probability `[B, k]` of each of `items` `[B, k]` at its place, given the items above
        it.
        """


@runtime_checkable
class Expectant(Protocol):
    """Optional ability of a stochastic policy: what it expects at a place, without a draw (cascade
    doubly robust needs it).
    """

    def slate_expectations(
        self, histories: Histories, items: IntArray, values: DoubleArray, rows: IntArray, seed: int
    ) -> DoubleArray:
        """Mean `[B, k]` of `values[rows[b, j]]` over the item that is put at place j, given the
        items above it in `items` `[B, k]`.

        `values` is `[V, n_items + 1]`, `rows` `[B, k]`. Anything where an item above could not be
        where it is.
        """


@runtime_checkable
class WorldBound(Protocol):
    """Optional ability of yardsticks only: to look into the simulated world (oracle bound,
    production logging policy).
    """

    def bind(self, users: Any) -> None:
        """Take the `simulator.users` object whose truth this policy may read. Never called for a
        policy under test.
        """
