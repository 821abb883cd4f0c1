"""Reading a log once for all that a report says of it: the sums of users, the counts, the exposures
of items, and whether its rows keep the rules.
"""

from __future__ import annotations

from simulator.log.eventlog import EventLog
from simulator.report.counts import Counter, Counts
from simulator.stats.supply import Exposures
from simulator.stats.units import UserSums
from simulator.stats.user_days import UserDays


def read(
    log: EventLog, exposures: Exposures | None, *, inspect: bool = False
) -> tuple[UserDays, Counts]:
    """The sums and counts of a log, which is read once.

    Args:
        log: in KEY order.
        exposures: to be counted in the same pass; None: none.
        inspect: hold every row to the rules before it counts (a log that nobody has validated).

    Raises:
        LogError: a row that breaks a rule.
        TableError, MetricError: as `stats.units.UserSums`.
    """
    sums, counter = UserSums(log), Counter(log)
    readers: list[UserSums | Counter | Exposures] = [sums, counter]
    if exposures is not None:
        readers.append(exposures)
    columns = dict.fromkeys(name for one in readers for name in one.columns)
    for rows in log.inspected() if inspect else log.stretches(list(columns)):
        for one in readers:
            one.add(rows)
    return sums.user_days(), counter.counts
