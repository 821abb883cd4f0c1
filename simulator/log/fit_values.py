"""What the fits of a run find among clicks that none of them has seen: `fits.npz` in its folder.

Written before the A/B by `simulator.run.held_out_clicks`, judged by `simulator.stats.fit_checks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policies.base import DoubleArray
from simulator.log.files import load_arrays, save_arrays
from simulator.log.ledger import Ledger, present

FILE = "fits.npz"
"""In the folder of a run that has a policy which draws in training."""


@dataclass(frozen=True)
class FitValues:
    """By fit, what its candidates hold of each user's held-out clicks.

    Attributes:
        candidates: of a request (k).
        arm: `[F]` the arm of each fit; "" = the floor: what a policy that only counts finds.
        policy: `[F]` as the scenario calls it.
        fit: `[F]` which of the arm's fits, from 0.
        clicks: `[n]` held-out clicks of each user who has any.
        hits: `[F, n]` how many of them are among the k candidates of the user.
        gains: `[F, n]` the same, each worth 1 / log2(place + 2), places from 0: DCG at k.
    """

    candidates: int
    arm: tuple[str, ...]
    policy: tuple[str, ...]
    fit: tuple[int, ...]
    clicks: DoubleArray
    hits: DoubleArray
    gains: DoubleArray

    def save(self, folder: Path) -> None:
        """Write them into the folder of a run.

        Raises:
            FileError: they cannot be written.
        """
        arrays = {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}
        save_arrays(folder / FILE, arrays)

    @classmethod
    def load(cls, folder: Path) -> FitValues | None:
        """Those of the run in `folder`; None where there are none.

        Raises:
            FileError: the file is damaged, or not as the run has written it.
        """
        file = folder / FILE
        if not present(file):
            return None
        ledger = Ledger.around(file)
        if ledger is not None:
            ledger.check_one(file)
        stored = load_arrays(file, cls.__dataclass_fields__)
        return cls(
            int(stored["candidates"]),
            tuple(stored["arm"].tolist()),
            tuple(stored["policy"].tolist()),
            tuple(stored["fit"].tolist()),
            stored["clicks"],
            stored["hits"],
            stored["gains"],
        )
