"""What a run's catalogue says of items beyond their ids: who made each, when it was uploaded, what
it is about. The log has only ids; the catalogue lies in the folder of its run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from policies.base import Catalogue, DoubleArray, IntArray
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.ledger import present
from simulator.log.metadata import Metadata
from simulator.log.workspace import Workspace, load_catalogue

SYNTHETIC = "synthetic"
"""The source of data whose groups are numbered from 0; those of real data are numbered from 1, and
0 is not known (`datasets.delimited.feature`)."""


@dataclass(frozen=True)
class ItemFacts:
    """What is known of each item, row 0 (padding) included; None: nothing is.

    Attributes:
        author: `[n_items + 1]` 0, 1, ...; -1 = not known.
        tag: `[n_items + 1]` its category, in the same way.
        uploaded: `[n_items + 1]` ms from the start of the A/B, NaN = not known.
        ids: `[n_items + 1]` what the items are called in the data that they come from, as text.
    """

    author: IntArray | None = None
    tag: IntArray | None = None
    uploaded: DoubleArray | None = None
    ids: npt.NDArray[np.str_] | None = None

    @classmethod
    def of(cls, catalogue: Catalogue, *, first: int = 0) -> ItemFacts:
        """What a catalogue says: its columns `author`, `tag`, `uploaded` (days before the start)
        and `id`.

        Args:
            catalogue: of the run.
            first: the least number of a group; below it the group is not known.
        """
        days = catalogue.items.get("uploaded")
        uploaded = None
        if days is not None and np.isfinite(np.asarray(days, dtype=np.float64)[1:]).any():
            uploaded = -np.asarray(days, dtype=np.float64) * DAY
        ids = catalogue.items.get("id")
        return cls(
            _groups(catalogue, "author", first),
            _groups(catalogue, "tag", first),
            uploaded,
            None if ids is None else np.asarray(ids).astype(np.str_),
        )

    @classmethod
    def of_log(cls, log: EventLog) -> ItemFacts:
        """Those of the run whose log it is; nothing is known of a log that lies alone.

        Raises:
            FileError: as `beside`.
        """
        run = Workspace.of_log(log)
        return cls.beside(None if run is None else run.root, log.metadata)

    @classmethod
    def beside(cls, home: Path | None, meta: Metadata) -> ItemFacts:
        """Those of the run in the folder `home`; nothing is known where there is no catalogue.

        Raises:
            FileError: the catalogue is damaged, or not as the run has written it.
        """
        file = None if home is None else Workspace(home).models / "catalogue.npz"
        if file is None or not present(file):
            return cls()
        catalogue = load_catalogue(file)
        if catalogue.n_items != meta.n_items:
            return cls()
        source = meta.scenario.get("data", {}).get("source", SYNTHETIC)
        return cls.of(catalogue, first=0 if source == SYNTHETIC else 1)


def _groups(catalogue: Catalogue, name: str, first: int) -> IntArray | None:
    """A column of groups as 0, 1, ..., and -1 where it is below `first`; None where it is not there
    or says nothing.
    """
    column = catalogue.items.get(name)
    if column is None or np.ndim(column) != 1:
        return None
    values = np.asarray(column)
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, first - 1).astype(np.int64)
    is_known = values >= first if values.dtype.kind in "iu" else values != ""
    is_known = np.asarray(is_known & (np.arange(len(values)) > 0))
    if not is_known.any():
        return None
    groups = np.full(len(values), -1, dtype=np.int64)
    groups[is_known] = np.unique(values[is_known], return_inverse=True)[1]
    return groups
