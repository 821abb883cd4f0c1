"""What a report says of catalogues that live: how fresh each arm's slates were, and how many of its
creators still upload, by day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import DoubleArray
from simulator.living.life import NEVER, PRESENT, REMOVED, UPLOADED
from simulator.log.eventlog import EventLog
from simulator.log.files import load_arrays
from simulator.log.items import ItemFacts
from simulator.log.metrics import FRESH_DAYS
from simulator.log.workspace import Workspace
from simulator.stats.freshness import Freshness, ShareEstimate


@dataclass(frozen=True)
class CatalogueDay:
    """An arm's catalogue on a day.

    Attributes:
        arm, day: whose and when; days count from 0.
        fresh: share of the day's impressions whose item was fresh, with its interval by user.
        creators: share of the creators who had not stopped at the day's end, with its interval by
            creator.
        uploaded, removed: items that appeared on the day, and that were removed at its beginning.
        present: items that could be shown at its end.
    """

    arm: str
    day: int
    fresh: ShareEstimate
    creators: ShareEstimate
    uploaded: float
    removed: float
    present: float


@dataclass(frozen=True)
class CatalogueArm:
    """An arm's catalogue over the whole test.

    Attributes:
        arm: whose.
        fresh: share of its impressions whose item was fresh, with its interval by user.
        fresh_difference: from the control's share, with its interval by user; None: the control.
        creators: share of the creators who had not stopped at the end, with its interval by
            creator.
        creators_difference: from the control's share, with its interval by creator; None: the
            control.
    """

    arm: str
    fresh: ShareEstimate
    fresh_difference: ShareEstimate | None
    creators: ShareEstimate
    creators_difference: ShareEstimate | None


@dataclass(frozen=True)
class Catalogues:
    """The catalogues of a run, where they live.

    Attributes:
        fresh_days: an item is fresh for so long after its upload.
        creators: authors with at least one item that might have been uploaded.
        level: of the intervals.
        arms: the control first.
        days: of every arm.
    """

    fresh_days: int
    creators: int
    level: float
    arms: tuple[CatalogueArm, ...]
    days: tuple[CatalogueDay, ...]


def catalogues(log: EventLog, arms: Sequence[str], level: float) -> Catalogues | None:
    """What became of the catalogues of a run; None where the log is not that of a run whose
    catalogues live.

    Args:
        log: of the run.
        arms: the compared arms, the control first.
        level: of the intervals.

    Raises:
        FileError: a file of the run is damaged.
    """
    lived = Lived.of_log(log)
    if lived is None:
        return None
    freshness = Freshness.of(log, lived.uploaded)
    order = [log.metadata.compared.index(arm) for arm in arms]
    whole = log.metadata.days or 1
    shares = [freshness.share(arm, 0, whole) for arm in order]
    active = [lived.active(arm, whole) for arm in arms]
    rows = []
    for i, arm in enumerate(arms):
        differs = i > 0
        rows.append(
            CatalogueArm(
                arm,
                ShareEstimate.of(*shares[i], level),
                _difference(shares[i], shares[0], level) if differs else None,
                ShareEstimate.of(*_mean(active[i]), level),
                _difference(_mean(active[i]), _mean(active[0]), level) if differs else None,
            )
        )
    days = [
        CatalogueDay(
            arm,
            day,
            ShareEstimate.of(*freshness.share(index, day, day + 1), level),
            ShareEstimate.of(*_mean(lived.active(arm, day + 1)), level),
            *(lived.counts(arm, column, day) for column in (UPLOADED, REMOVED, PRESENT)),
        )
        for arm, index in zip(arms, order, strict=True)
        for day in range(whole)
    ]
    return Catalogues(FRESH_DAYS, int(lived.is_creator.sum()), level, tuple(rows), tuple(days))


@dataclass(frozen=True)
class Lived:
    """What a run has kept of its catalogues.

    Attributes:
        uploaded: `[n_items + 1]` ms from the start of the A/B.
        is_creator: `[creators]`.
        stopped_on: by arm, `[fits, creators]` day.
        record: by arm, `[fits, days, 4]` counts (`simulator.living.life`) from `first_day` on.
        first_day: of the history.
    """

    uploaded: DoubleArray
    is_creator: npt.NDArray[np.bool_]
    stopped_on: Mapping[str, npt.NDArray[np.int64]]
    record: Mapping[str, npt.NDArray[np.int64]]
    first_day: int

    @classmethod
    def of_log(cls, log: EventLog) -> Lived | None:
        """What lies in the folder of the finished run whose log it is; None where that is no run,
        or its catalogue does not live.

        Raises:
            FileError: it is missing or damaged.
        """
        uploaded, run = ItemFacts.of_log(log).uploaded, Workspace.of_log(log)
        if log.metadata.scenario.get("items") is None or uploaded is None or run is None:
            return None
        run.ledger.check_one(run.lived)
        arrays = load_arrays(run.lived)

        def by_arm(name: str) -> dict[str, Any]:
            stem = f"{name}."
            return {k.removeprefix(stem): v for k, v in arrays.items() if k.startswith(stem)}

        first_day = int(arrays["first_day"])
        return cls(
            uploaded, arrays["is_creator"], by_arm("stopped_on"), by_arm("record"), first_day
        )

    def active(self, arm: str, day: int) -> npt.NDArray[np.float64]:
        """`[creators]` the share of the fits in which each has not stopped by the beginning of
        `day`.
        """
        there: npt.NDArray[np.float64] = (self.stopped_on[arm] > min(day, NEVER)).mean(axis=0)
        return there[self.is_creator]

    def counts(self, arm: str, column: int, day: int) -> float:
        """A count of a day of the A/B, the mean over fits."""
        return float(self.record[arm][:, day - self.first_day, column].mean())


def _mean(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
    """A mean, and what each value adds to its error."""
    mean = float(values.mean())
    return mean, (values - mean) / len(values)


def _difference(
    one: tuple[float, npt.NDArray[np.float64]],
    other: tuple[float, npt.NDArray[np.float64]],
    level: float,
) -> ShareEstimate:
    """The difference of two figures of the same units."""
    return ShareEstimate.of(one[0] - other[0], one[1] - other[1], level)
