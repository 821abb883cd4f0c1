"""Reading a log once for all that a report says of it: the sums of users, the counts, the exposures
of items, and whether its rows keep the rules.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

from simulator.log.eventlog import EventLog
from simulator.log.items import ItemFacts
from simulator.log.part_sums import Summing, add_up, keep
from simulator.log.workspace import Workspace
from simulator.report.counts import Counter, Counts
from simulator.stats.exposures import Exposures, unknown_supply
from simulator.stats.freshness import FreshSums
from simulator.stats.streamed import Map
from simulator.stats.units import UserSums
from simulator.stats.user_days import UserDays
from simulator.users.learned.support import SupportCounts, is_measured


def read(
    log: EventLog, exposures: Exposures | None, *, inspect: bool = False, parts: Map = map
) -> tuple[UserDays, Counts]:
    """The sums and counts of a log.

    Args:
        log: in KEY order.
        exposures: to be counted in the same pass; None: none.
        inspect: of `part_sums.add_up`.
        parts: computes what is said of the parts of the log, where they are many.

    Raises:
        LogError, FileError: as `part_sums.add_up`.
        TableError, MetricError: as `stats.units.UserSums`.
    """
    sums, counter = UserSums(log, streamed=parts), Counter(log)
    summing: list[Summing] = [sums, counter]
    if exposures is not None:
        summing.append(exposures)
    add_up(log, summing, inspect=inspect)
    return sums.user_days(), counter.counts


def keep_sums(run: Workspace, parts: Sequence[Path]) -> Iterator[int]:
    """Add up parts of a run's log for its report, and keep the sums of each; a stretch of rows is
    in memory at a time.

    Returns:
        After each part, how many are done.

    Raises:
        FileError: sums cannot be written.
        TableError, MetricError: as `stats.units.UserSums`.
    """
    if not parts:
        return
    log = EventLog.open(parts[0])
    meta, items = log.metadata, ItemFacts.of_log(log)
    nothing: list[Summing] = [UserSums(log, of_part=True), Counter(log)]
    if unknown_supply(meta) is None:
        nothing.append(Exposures(meta, items))
    if meta.scenario.get("items") is not None and items.uploaded is not None:
        nothing.append(FreshSums(meta, items.uploaded, of_part=True))
    if is_measured(meta):
        nothing.append(SupportCounts(meta))
    for done, part in enumerate(parts, start=1):
        summing = copy.deepcopy(nothing)  # what all parts share is drawn and read once
        add_up(EventLog.open(part), summing)
        keep(run.sums_of(part), part, summing)
        yield done
