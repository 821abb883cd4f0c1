"""What a report adds up from the rows of a log, kept for each part of a run's log: whoever asks for
no more reads no rows.

The file of a part has its path, below `sums/` in place of `log/`, so that `log/` holds nothing but
rows. All that it holds are sums: those of parts add up to those of the log, whatever the order, and
one file is in memory at a time. Counts are whole numbers, exact in any order; seconds of a user's
day are added as the rows stream, since no user's rows in an arm lie in two parts.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from simulator.log.eventlog import EventLog, seal_of
from simulator.log.files import FileError, load_arrays, save_arrays
from simulator.log.ledger import REMEDY
from simulator.log.schema import LogRows
from simulator.log.store import address_of, place
from simulator.log.workspace import Workspace

FORM = 1
"""To be raised where a sum of the same name becomes another one: sums of another form are not read,
rows are.
"""

ABOUT = "about"


class CellSums(NamedTuple):
    """The cells of a flat array of sums that may not be 0.

    Attributes:
        first: of them.
        sums: `[n]` from there on.
    """

    first: int
    sums: npt.NDArray[Any]

    @classmethod
    def of(cls, whole: npt.NDArray[Any]) -> CellSums:
        """The cells of an array of any shape, taken as flat, from the first that is not 0 to the
        last one.
        """
        flat = whole.reshape(-1)
        there = np.flatnonzero(flat)
        return (
            cls(int(there[0]), flat[there[0] : there[-1] + 1]) if len(there) else cls(0, flat[:0])
        )

    def add_to(self, whole: npt.NDArray[Any]) -> None:
        """Add them to an array of any shape, contiguous, whose type holds the sums."""
        whole.reshape(-1)[self.first : self.first + len(self.sums)] += self.sums


Sums = Mapping[str, CellSums]


@dataclasses.dataclass(frozen=True)
class KeptSums(Mapping[str, CellSums]):
    """The sums of a part of a log, where they lie: each is read when it is asked for.

    Attributes:
        file: that holds them.
        first: by name, the first cell.
    """

    file: Path
    first: Mapping[str, int]

    def __reduce__(self) -> tuple[Any, ...]:
        # The copy of a store lies elsewhere on another machine.
        return _kept_at, (address_of(self.file), dict(self.first))

    def __getitem__(self, name: str) -> CellSums:
        return self.some([name])[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.first)

    def __len__(self) -> int:
        return len(self.first)

    def some(self, names: Collection[str]) -> dict[str, CellSums]:
        """Several of them, by name.

        Raises:
            FileError: the file is damaged.
        """
        arrays = load_arrays(self.file, names)
        return {name: CellSums(self.first[name], arrays[name]) for name in names}


def _kept_at(address: str, first: Mapping[str, int]) -> KeptSums:
    return KeptSums(place(address), first)


def some(sums: Sums, names: Collection[str]) -> Sums:
    """Some of the sums of a part, read together where they lie in a file."""
    return sums.some(names) if isinstance(sums, KeptSums) else {n: sums[n] for n in names}


class Summing(Protocol):
    """Adds up what it knows of a log from its rows, or from the sums of its parts.

    Attributes:
        columns: of the log that `add` reads.
        names: of the sums that `take` reads.
    """

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def names(self) -> Collection[str]: ...

    def add(self, rows: LogRows) -> None:
        """Add the stretch that follows the last one, in KEY order."""

    def sums(self) -> Sums:
        """Of all that was added, by name."""

    def take(self, sums: Sums) -> None:
        """Add the sums of a part."""


class InArrays(ABC):
    """Sums that lie in arrays, any row of a log adding to some cells of them."""

    @abstractmethod
    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """By name; what is written into them counts."""

    @property
    def names(self) -> Collection[str]:
        """Of `sums`."""
        return self.arrays().keys()

    def sums(self) -> Sums:
        """Of all that was added, by name."""
        return {name: CellSums.of(array) for name, array in self.arrays().items()}

    def take(self, sums: Sums) -> None:
        """Add the sums of a part."""
        arrays = self.arrays()
        for name, cells in some(sums, arrays.keys()).items():
            cells.add_to(arrays[name])


def add_up(log: EventLog, summing: Sequence[Summing], *, inspect: bool = False) -> None:
    """Add a log up: from the sums of its parts, where its run has kept all that is asked for, else
    from its rows, which are read once.

    Args:
        log: in KEY order.
        summing: what is asked for.
        inspect: hold every row to the rules before it counts (a log that nobody has validated).
            Where sums are read, the ledger of the run vouches for its rows.

    Raises:
        LogError: a row that breaks a rule.
        FileError: sums of a part are missing or changed, or are those of another part.
    """
    kept = _kept(log, {name for one in summing for name in one.names})
    if kept is not None:
        for sums in kept:
            for one in summing:
                one.take(sums)
        return
    columns = list(dict.fromkeys(name for one in summing for name in one.columns))
    for rows in log.inspected() if inspect else log.stretches(columns):
        for one in summing:
            one.add(rows)


def keep(file: Path, part: Path, summing: Iterable[Summing]) -> None:
    """Write what was added up of a part of a run's log.

    Args:
        file: `Workspace.sums_of` the part.
        part: of the log.
        summing: what has added it up.

    Raises:
        FileError: it cannot be written.
    """
    first, arrays = {}, {}
    for one in summing:
        for name, cells in one.sums().items():
            first[name], arrays[name] = cells
    about = {"form": FORM, "seal": seal_of(part), "first": first}
    text = np.frombuffer(json.dumps(about, sort_keys=True).encode(), dtype=np.uint8)
    save_arrays(file, {ABOUT: text, **arrays})


def _kept(log: EventLog, names: Collection[str]) -> Iterator[KeptSums] | None:
    """The sums of each part of a log; None where they were not kept, or not all of `names`.

    Raises:
        FileError: one is missing or changed.
    """
    run = Workspace.of_log(log)
    if run is None or not run.ledger.file.is_file():
        return None
    if not all(part.resolve().is_relative_to(run.log) for part in log.parts):
        return None
    # Sums are of what the log said of itself when it was written; the control changes none.
    written = EventLog.open(log.parts[0]).metadata
    if dataclasses.replace(written, control=log.metadata.control) != log.metadata:
        return None
    files = {part: run.sums_of(part) for part in log.parts}
    listed = run.ledger.pieces()
    if not all(file.relative_to(run.root).as_posix() in listed for file in files.values()):
        return None
    run.ledger.hold(files.values())
    about = _about(load_arrays(next(iter(files.values())), [ABOUT]))
    if about["form"] != FORM or not set(names) <= set(about["first"]):
        return None
    return (_load(part, file) for part, file in files.items())


def _about(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(arrays[ABOUT].tobytes())
    return about


def _load(part: Path, file: Path) -> KeptSums:
    """
    Raises:
        FileError: they are those of another part.
    """
    about = _about(load_arrays(file, [ABOUT]))
    if about["seal"] != seal_of(part):
        raise FileError(f"{file} has the sums of another part than {part}. {REMEDY}")
    return KeptSums(file, about["first"])
