"""Sums over the parts of a log by the processes of an executor: Python's `map`, computed where the
parts lie. What is computed is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from policies.base import Progress, silent
from simulator.log.ledger import fetch_all
from simulator.log.remote import KEPT
from simulator.log.store import address_of, place
from simulator.run.contract import Executor
from simulator.run.executors import executor

if TYPE_CHECKING:
    from simulator.stats.streamed import Map, Piece


ROUND = 4
"""Tasks of a worker in a round: a task has a cost of its own, and few tasks of many parts leave
workers waiting for the last one.
"""


@dataclass(frozen=True)
class _Call:
    """A task: what a function says of each of some pieces.

    Attributes:
        function, pieces: of it.
        run: the run's folder, or its address.
        first: number of the first piece, from 1.
    """

    function: Callable[[Piece], Any]
    pieces: Sequence[Piece]
    run: str
    first: int

    def __str__(self) -> str:
        last = self.first + len(self.pieces) - 1
        which = f"part {last}" if last == self.first else f"parts {self.first} to {last}"
        return f"summing up {which} of the users of {self.run}"

    def __call__(self, progress: Progress) -> list[Any]:
        _know(self.run)
        return [self.function(piece) for piece in self.pieces]


@cache
def _know(run: str) -> None:
    """Let this process know the pieces of a run on a store."""
    fetch_all(place(run), KEPT)


@contextmanager
def parts_map(
    kind: Literal["serial", "processes", "ray"], workers: int, run: Path
) -> Iterator[Map]:
    """A `map` that an executor computes; its workers start when it is first called, and end with
    the context. What comes of it does not depend on how many they are.

    Args:
        kind: as `engine.executor` of a scenario.
        workers: that compute side by side at most.
        run: the folder of the run whose parts they are.
    """
    if kind == "serial" or workers == 1:
        yield map
        return
    with ExitStack() as stack:
        started: list[Executor] = []

        def mapped(function: Callable[[Piece], Any], pieces: Sequence[Piece]) -> Iterator[Any]:
            if not started:
                started.append(stack.enter_context(executor(kind, silent, workers)))
            found: dict[int, list[Any]] = {}

            def done(i: int, result: Any) -> None:
                if isinstance(result, BaseException):
                    raise result
                found[i] = result

            root = address_of(run)
            n = max(math.ceil(len(pieces) / (ROUND * workers)), 1)
            firsts = range(0, len(pieces), n)
            calls = [_Call(function, pieces[i : i + n], root, i + 1) for i in firsts]
            started[0].run(calls, done)
            return chain.from_iterable(found[i] for i in range(len(calls)))

        yield mapped
