"""What tasks and executors promise one another. What a task does is not known here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from policies.base import Progress

Task = Callable[[Progress], Any]
"""Something picklable that is called with a progress callback; as text it says what it does
("fitting policy 'itemknn'"). One that is called twice, also at the same time, leaves what one call
leaves. It may have an attribute `needs`.
"""

Done = Callable[[int, Any], None]
"""Called in the main process with (index of the task, its result or the exception it raised), in
order of completion.
"""


@dataclass(frozen=True)
class Needs:
    """What a task needs of the machine that computes it.

    Attributes:
        memory: bytes; 0 = not known.
        gpus: how many it computes on, if there are any; below 1: what it takes of one.
        processors: how many it computes on.
    """

    memory: int = 0
    gpus: float = 0
    processors: int = 1


def needs_of(task: Task) -> Needs:
    """What a task says that it needs."""
    needs: Needs = getattr(task, "needs", Needs())
    return needs


class Executor(Protocol):
    """Runs tasks that do not depend on one another."""

    def run(self, tasks: Sequence[Task], done: Done) -> None:
        """Run all tasks; `done` is called once for each. What `done` raises ends the run: tasks
        under way are abandoned.
        """

    def here(self, tasks: Sequence[Task], done: Done) -> None:
        """As `run`, on the machine of the main process."""

    def prepare(self, files: Sequence[Path], look: Task) -> None:
        """Make sure that every machine has what the tasks from now on need.

        Args:
            files: are brought to all machines; a relative path leads to them there as it does
                here.
            look: is run on every machine before any other task there. What it raises ends the run.
        """


class WorkerError(ValueError):
    """A worker process that died, or a machine that cannot compute the tasks."""


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Variables of the environment that say with how many threads a library computes."""
