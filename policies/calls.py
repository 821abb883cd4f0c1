"""Calls of a policy's code, ours or a stranger's: whatever happens inside becomes one message that
names policy, method and what to do.

The engine, the replay and the checks call policies through `Calls`; imports and constructors go
through `calling`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Literal, TextIO

import numpy as np
import numpy.typing as npt

from policies.base import (
    Admitting,
    BoolArray,
    Catalogue,
    DoubleArray,
    Expectant,
    Fitting,
    FloatArray,
    Histories,
    IntArray,
    Policy,
    Scorer,
    Sequences,
    Slates,
    Stochastic,
    Updatable,
    WorldBound,
)
from policies.clock import off_the_clock
from policies.context import not_known
from policies.lending import Frozen, Given, Lending, Shared

Complaint = tuple[tuple[str | int, ...], str]
"""Where in the hyper-parameters, and what is wrong there."""


class PluginError(ValueError):
    """A plug-in that cannot be found, imported, configured or used; the message says what, whose,
    the rule, the value, what to do.

    Attributes:
        noun: what such a plug-in is called.
        complaints: about single parameters, each with its key path; empty where the plug-in itself
            is at fault.
    """

    noun: ClassVar[str] = "plug-in"

    def __init__(self, message: str, complaints: tuple[Complaint, ...] = ()) -> None:
        super().__init__(message, complaints)
        self.message, self.complaints = message, complaints

    def __str__(self) -> str:
        return self.message


Kind = Literal["form", "write", "late", "raised"]


class PolicyError(PluginError):
    """A policy that cannot be found, imported, configured or fitted."""

    noun = "policy"


class PluginCallError(PluginError):
    """A method of a plug-in that raised, took too long, wrote into what it was lent, or gave back
    something of another form.

    Attributes:
        what: the sentence without the plug-in's name.
        kind: `form` of what it gave back, `write` into what it was lent, `late`, or `raised`.
    """

    def __init__(self, name: str, what: str, kind: Kind) -> None:
        super().__init__(f"{self.noun} {name!r}: {what}")
        self.name, self.what, self.kind = name, what, kind
        # What an error is made of again, by pickle and by simpy.
        self.args = name, what, kind


class CallError(PluginCallError, PolicyError):
    """As `PluginCallError`, of a policy."""


class OutOfTime(BaseException):
    """Not an Exception, so that a plug-in's own `except Exception` does not swallow it."""


@dataclass(frozen=True)
class Limit:
    """How long a call may take.

    Attributes:
        seconds: 0 = any.
        rule: where the limit comes from, for the message.
    """

    seconds: float = 0.0
    rule: str = "the time limit"


class Warned:
    """What a policy's code warned of: for each place the first text, since texts may hold figures,
    and how often.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[str, str, int, str], tuple[str, int]] = {}

    def add(self, method: str, caught: Iterable[warnings.WarningMessage]) -> None:
        """Count warnings of a call."""
        for one in caught:
            kind, file = one.category.__name__, Path(one.filename).name
            text = f"{method} warned of {kind}: {_text_of(one.message)} at {file}:{one.lineno}"
            place = method, file, one.lineno, kind
            first, n = self._places.get(place, (text, 0))
            self._places[place] = first, n + 1

    def counts(self) -> Counter[str]:
        """How often by sentence."""
        return Counter(dict(self._places.values()))


@dataclass
class Calls:
    """A policy as its user calls it.

    Attributes:
        policy: called.
        name: of the policy, for messages.
        limit: of each call.
        own: lend copies that the policy may write into; False: what is lent is read-only, and a
            write is an error.
        warned: what the policy's code warned of, and how often.
    """

    policy: Policy
    name: str
    limit: Limit = Limit()
    own: bool = False
    warned: Warned = field(default_factory=Warned)

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> None:
        """Fit the policy. Raises `CallError`, as every method here."""
        lend = self._lending(Shared)
        log, lent_catalogue = lend(sequences), lend(catalogue)
        with self._calling("fit", lend):
            fitted = self.policy.fit(log, lent_catalogue, fitting)
        if fitted is not self.policy:
            raise CallError(self.name, f"fit must return self; got {describe(fitted)}", "form")

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """Slates `[B, k]` of the right form in arrays of the caller's own; what they hold is
        checked by `policies.form.fault`.
        """
        lend = self._lending(Frozen)
        requests = lend(self._asked(histories))
        with self._calling("recall", lend):
            slates = self.policy.recall(requests, k, seed)
        if not isinstance(slates, Slates):
            raise CallError(
                self.name,
                f"recall must return policies.base.Slates; got {describe(slates)}",
                "form",
            )
        shape, propensities, interest = (len(histories), k), slates.propensities, slates.interest
        items = self._copy("recall", "items", slates.items, np.int64, shape)
        scores = self._copy("recall", "scores", slates.scores, np.float32, shape)
        if propensities is not None:
            propensities = self._copy("recall", "propensities", propensities, np.float32, shape)
        if interest is not None:
            interest = self._copy("recall", "interest", interest, np.int64, shape)
        return Slates(items, scores, propensities, interest)

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """Scores `[B, n]` of a `Scorer`; none is NaN."""
        assert isinstance(self.policy, Scorer)
        lend = self._lending(Frozen)
        requests, candidates = lend(self._asked(histories)), lend(items)
        with self._calling("score", lend):
            scores = self.policy.score(requests, candidates)
        return self._numbers("score", "scores", scores, np.float32, items.shape)

    def update(self, histories: Histories, slates: Slates, clicked: BoolArray) -> None:
        """Let an `Updatable` learn from answers."""
        assert isinstance(self.policy, Updatable)
        lend = self._lending(Frozen)
        arguments = lend(self._asked(histories)), lend(slates), lend(clicked)
        with self._calling("update", lend):
            self.policy.update(*arguments)

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> None:
        """Tell an `Admitting` policy what may be recalled from `t` on."""
        assert isinstance(self.policy, Admitting)
        lend = self._lending(Shared)
        arguments = lend(catalogue), lend(new)
        with self._calling("admit", lend):
            admitted = self.policy.admit(*arguments, t)
        if admitted is not self.policy:
            raise CallError(self.name, f"admit must return self; got {describe(admitted)}", "form")

    def slate_propensities(self, histories: Histories, items: IntArray, seed: int) -> FloatArray:
        """Probabilities `[B, k]` of a `Stochastic` policy."""
        assert isinstance(self.policy, Stochastic)
        lend = self._lending(Frozen)
        requests, shown = lend(self._asked(histories)), lend(items)
        method = "slate_propensities"
        with self._calling(method, lend):
            chances = self.policy.slate_propensities(requests, shown, seed)
        chances = self._numbers(method, "probabilities", chances, np.float32, items.shape)
        if chances.size and not (chances.min() >= 0 and chances.max() <= _LARGEST_CHANCE):
            rule = f"probabilities must be in [0, 1]; got {chances.min()}..{chances.max()}"
            raise CallError(self.name, f"{method}: {rule}", "form")
        return chances

    def slate_expectations(
        self, histories: Histories, items: IntArray, values: DoubleArray, rows: IntArray, seed: int
    ) -> DoubleArray:
        """Expectations `[B, k]` of an `Expectant` policy."""
        assert isinstance(self.policy, Expectant)
        lend = self._lending(Frozen)
        arguments = lend(self._asked(histories)), lend(items), lend(values), lend(rows)
        with self._calling("slate_expectations", lend):
            means = self.policy.slate_expectations(*arguments, seed)
        return self._copy("slate_expectations", "means", means, np.float64, items.shape)

    def save(self, folder: Path) -> None:
        """Write the policy into `folder`."""
        with self._calling("state"):
            self.policy.save(folder)

    def load(self, folder: Path) -> None:
        """Take over what `save` wrote."""
        with self._calling(f"loading the fit in {folder}"):
            self.policy.load(folder)

    def save_search(self, folder: Path) -> None:
        """Write the search index by which the policy serves beside the fit in `folder`."""
        with self._calling("building the search index"):
            self.policy.save_search(folder)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What the policy learned."""
        with self._calling("state"):
            return self.policy.state()

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over what another policy's `state` gave."""
        with self._calling("restore"):
            self.policy.restore(state)

    def bind(self, users: Any) -> None:
        """Give a yardstick its world."""
        assert isinstance(self.policy, WorldBound)
        with self._calling("bind"):
            self.policy.bind(users)

    def _asked(self, histories: Histories) -> Histories:
        """The requests with the context that the policy asks for, and none that others ask for."""
        asks = self.policy.asked_context()
        if not asks and not histories.has_context:
            return histories
        context = histories.context()
        why = not_known(asks, context)
        if why is not None:
            raise CallError(self.name, why, "form")
        if len(asks) == len(context):
            return histories
        return histories.with_context({path: context[path] for path in asks})

    def _lending(self, kind: type[Frozen] | type[Shared]) -> Lending:
        return Given() if self.own else kind()

    @contextmanager
    def _calling(self, method: str, lend: Lending | None = None) -> Iterator[None]:
        with calling(self.name, method, self.limit, self.warned):
            yield
        changed = lend.changed() if lend is not None else None
        if changed is not None:
            raise CallError(self.name, f"{method} wrote into {changed}; {_READ_ONLY}", "write")

    def _copy(
        self, method: str, name: str, got: Any, dtype: type, shape: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """A copy of an array that a policy gave back, which must be a plain numpy array of this
        type and shape.
        """
        if type(got) is np.ndarray and got.dtype == np.dtype(dtype) and got.shape == shape:
            return np.array(got, order="C")
        rule = f"{name} must be a numpy array of {np.dtype(dtype)} and shape {shape}"
        raise CallError(self.name, f"{method}: {rule}; got {describe(got)}", "form")

    def _numbers(
        self, method: str, name: str, got: Any, dtype: type, shape: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """As `_copy`, and none of the values is NaN."""
        copy = self._copy(method, name, got, dtype, shape)
        if np.isnan(copy).any():
            row, column = np.argwhere(np.isnan(copy))[0]
            rule = f"{name} must be numbers; got NaN for request {row} at place {column}"
            raise CallError(self.name, f"{method}: {rule}", "form")
        return copy


_LARGEST_CHANCE = 1.000001
"""The largest probability that is accepted: 1, and the rounding of float32."""

_READ_ONLY = "what a policy is handed belongs to the test: work on a copy (`array.copy()`)"


def describe(got: Any) -> str:
    """What a plug-in gave back, in a few words."""
    if isinstance(got, np.ndarray):
        kind = "" if type(got) is np.ndarray else f"{type(got).__name__} of "
        return f"{kind}{got.dtype} {got.shape}"
    kind = f"{type(got).__module__}.{type(got).__qualname__}".removeprefix("builtins.")
    return "None" if got is None else kind


@contextmanager
def calling(
    name: str,
    method: str,
    limit: Limit = Limit(),
    warned: Warned | None = None,
    fault: type[PluginCallError] = CallError,
) -> Iterator[None]:
    """Code of the plug-in `name` runs inside, a policy's or, as `fault` says, another's.

    What it prints goes to stderr (stdout is for results), and its warnings are counted in `warned`
    instead of shown. How NumPy treats overflow and the like, torch's settings for the whole
    process, and stdout and stderr are after it what they were before: the next arm's policy may run
    in this process, too.

    Raises:
        PluginCallError: (`fault`) whatever was raised inside, `SystemExit`, `MemoryError` and the
            like too, or out of time; or stdout or stderr was closed. Ctrl-C passes.
    """
    tell(f"{fault.noun} {name!r}: {method}")
    try:
        with (
            _streams(name, method, fault),
            warnings.catch_warnings(record=True) as caught,
            redirect_stdout(sys.stderr),
            np.errstate(),
            _torch_settings(),
            _interrupts() as interrupted,
        ):
            try:
                with within(limit.seconds):
                    yield
            except PluginCallError:  # of a call within this one
                raise
            except OutOfTime as error:
                raise fault(name, f"{method} took longer than {limit.rule}", "late") from error
            except BaseException as error:  # a plug-in may raise anything
                if isinstance(error, KeyboardInterrupt) and interrupted():
                    raise
                kind: Kind = "write" if _is_write(error) else "raised"
                raise fault(name, f"{method} {raised(error)}", kind) from error
            finally:
                if warned is not None:
                    warned.add(method, caught)
    finally:
        tell("")


def raised(error: BaseException) -> str:
    """What a plug-in raised, where, and what to do: `raised ValueError: ... at mine.py:12`."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    if isinstance(error, SystemExit):
        return (
            f"called for the end of the process (SystemExit: {_text_of(error)}){place}; raise an"
            " exception instead"
        )
    text = _text_of(error)
    advice = f"; {_READ_ONLY}" if _is_write(error) else ""
    return f"raised {type(error).__name__}{': ' if text else ''}{text}{place}{advice}"


LONGEST = 2000
"""Characters of what a plug-in says that are shown."""


def _text_of(error: object) -> str:
    """What an exception or a warning says, its beginning if that is long; a stranger's may have no
    words at all.
    """
    try:
        text = str(error)
    except Exception as second:
        return f"its text cannot be made: {type(second).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text):,} characters)"


def _is_write(error: BaseException) -> bool:
    """An attempt to write into what was lent, in the words of numpy and numba."""
    text = _text_of(error)
    return any(
        words in text for words in ("read-only", "readonly array", "cannot set WRITEABLE flag")
    )


@contextmanager
def _streams(name: str, method: str, fault: type[PluginCallError]) -> Iterator[None]:
    """Stdout and stderr of the process, put back afterwards: without them no message can name the
    plug-in.

    Raises:
        PluginCallError: one was closed, or its descriptor became that of something else.
    """
    streams = (1, "stdout", sys.stdout), (2, "stderr", sys.stderr)
    copies = {number: _duplicate(number) for number, _, _ in streams}
    lost = []
    try:
        yield
    finally:
        for number, word, stream in streams:
            copy, usable = copies[number], stream
            if copy is not None:
                if not _is_same(number, copy):
                    os.dup2(copy, number)
                    lost.append(word)
                os.close(copy)
            if stream is not None and _is_closed(stream):
                usable = os.fdopen(
                    number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False
                )
                lost.append(word)
            setattr(sys, word, usable)
    if lost:
        closed = " and ".join(dict.fromkeys(lost))
        rule = f"{method} closed {closed}, which belongs to the whole process: leave it open"
        raise fault(name, rule, "raised")


def _duplicate(number: int) -> int | None:
    """A second descriptor of the same file; None where there is none, as after `2>&-`."""
    try:
        return os.dup(number)
    except OSError:
        return None


def _is_same(number: int, copy: int) -> bool:
    """Whether a descriptor is still that of the file of its copy."""
    try:
        return os.path.sameopenfile(number, copy)
    except OSError:  # closed
        return False


def _is_closed(stream: TextIO) -> bool:
    try:
        return getattr(stream, "closed", False)  # what stands in for a stream may only write
    except ValueError:  # its buffer was detached
        return True


@contextmanager
def _torch_settings() -> Iterator[None]:
    """Torch's default type of numbers and whether it keeps gradients, put back afterwards; torch is
    not imported for it.
    """
    torch: Any = sys.modules.get("torch")
    kept = (torch.get_default_dtype(), torch.is_grad_enabled()) if torch is not None else None
    try:
        yield
    finally:
        torch = sys.modules.get("torch")
        if torch is not None:
            dtype, gradients = kept or (torch.float32, True)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(gradients)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether a KeyboardInterrupt inside is Ctrl-C (or SIGTERM taken for it); if not, the plug-in
    raised it itself.
    """
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def noted(number: int, frame: FrameType | None) -> None:
        came.append(number)
        before[signal.Signals(number)](number, frame)

    watched = [number for number, handler in before.items() if callable(handler)]
    for number in watched:
        signal.signal(number, noted)
    try:
        yield lambda: bool(came)
    finally:
        for number in watched:
            signal.signal(number, before[number])


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Interrupt what is inside after `seconds`: in a main thread, where Python gets control again
    (not within one native call). Kernels that are compiled meanwhile do not count.
    """
    if (
        seconds <= 0
        or threading.current_thread() is not threading.main_thread()
        or not hasattr(signal, "setitimer")
    ):
        yield
        return

    allowed = off_the_clock()

    def alarm(number: int, frame: FrameType | None) -> None:
        nonlocal allowed
        more = off_the_clock() - allowed
        if more <= 0:
            raise OutOfTime
        allowed += more
        signal.setitimer(signal.ITIMER_REAL, max(more, 1e-3))  # 0 would be none

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tell(text: str) -> None:
    """Note what this process is doing where another one can read it, should this one die."""
    if _note is not None:
        _note.value = text.encode(errors="replace")[: len(_note) - 1]


def note_in(place: Any) -> None:
    """Keep the notes of `tell` in a shared `multiprocessing.RawArray` of characters."""
    global _note
    _note = place


_note: Any = None
