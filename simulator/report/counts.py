"""Plain counts of a log by arm and day (requests, impressions, feedback, recall channels, logged
answers) from its rows as they stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from policies.base import BoolArray, DoubleArray
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.schema import LogRows

Cells = DoubleArray


@dataclass(frozen=True)
class Counts:
    """What the A/B part of a log (t >= 0) holds, by arm and day.

    Attributes:
        days: number of days, at least 1; rows after the last day are counted on it.
        steps: by name, `[arms, days]`: `users` (distinct on that day), `sessions` and `requests`
            (on the day on which they begin), `impressions`, `play` (watch > 0), `watch_time` (s),
            `click` and each FEEDBACK kind that the log has.
        observed: by name, `[arms, days]`: on how many impressions click, watch_time and each kind
            were observed (not null).
        users: `[arms]` distinct users with an impression.
        channels: `[arms, channels + 1]` impressions by recall channel; column 0 is the tested
            policy.
        logged: `[arms]` impressions that a real log answered.
    """

    days: int
    steps: dict[str, Cells]
    observed: dict[str, Cells]
    users: Cells
    channels: Cells
    logged: Cells


class Counter:
    """Counts the stretches of a log in KEY order: memory does not grow with the log.

    Attributes:
        columns: of the log that `add` reads.
        counts: of all that was added.
    """

    def __init__(self, log: EventLog) -> None:
        meta = log.metadata
        n_arms, days, kinds = len(meta.arms), max(meta.days, 1), ("click", *log.kinds)
        visits = ("users", "sessions", "requests", "impressions", "play", "watch_time")
        self.counts = Counts(
            days,
            {name: np.zeros((n_arms, days)) for name in (*visits, *kinds)},
            {name: np.zeros((n_arms, days)) for name in ("watch_time", *kinds)},
            np.zeros(n_arms),
            np.zeros((n_arms, len(meta.channels) + 1)),
            np.zeros(n_arms),
        )
        self._kinds = kinds
        self.columns = (*meta.key, "t", "watch", "channel", "logged", *kinds)
        # What begins in a row is seen beside the row above it in the A/B.
        self._above: LogRows | None = None
        self._is_whole = True

    def add(self, rows: LogRows) -> None:
        """Count the stretch that follows the last one."""
        past = rows["t"] < 0
        was_whole, self._is_whole = self._is_whole, not past.any()
        if not self._is_whole:
            rows = LogRows(rows.batch.filter(pa.array(~past)), rows.key, self._above)
        elif not was_whole:
            rows = LogRows(rows.batch, rows.key, self._above)
        if not rows.n_rows:
            return
        counts, n_arms, above = self.counts, len(self.counts.users), self._above
        arm = rows["arm"].astype(np.int64)
        day = np.minimum(rows["t"] // DAY, counts.days - 1)
        cell = arm * counts.days + day
        begins_day = rows.begins["user"].copy()
        begins_day[1:] |= day[1:] != day[:-1]
        if above is not None:
            begins_day[0] |= day[0] != min(rows.value("t", -1) // DAY, counts.days - 1)
        self._above = rows

        def tally(of: BoolArray | None = None, weights: DoubleArray | None = None) -> Cells:
            at = cell if of is None else cell[of]
            found = np.bincount(at, weights, minlength=n_arms * counts.days)
            return found.reshape(n_arms, counts.days).astype(float)

        counts.users[:] += np.bincount(arm[rows.begins["user"]], minlength=n_arms)
        watch, impressions = rows["watch"], tally()
        steps = {
            "users": tally(begins_day),
            "sessions": tally(rows.begins["session"]),
            "requests": tally(rows.begins["request"]),
            "impressions": impressions,
            "play": tally(watch > 0),
            "watch_time": tally(weights=np.nan_to_num(watch.astype(np.float64))),
            **{name: tally(rows[name] == 1) for name in self._kinds},
        }
        for name, sums in steps.items():
            counts.steps[name][:] += sums
        for name in counts.observed:
            column = rows.batch.column("watch" if name == "watch_time" else name)
            is_whole = column.null_count == 0
            counts.observed[name][:] += (
                impressions if is_whole else tally(column.is_valid().to_numpy(zero_copy_only=False))
            )
        n_channels = counts.channels.shape[1]
        channel = np.minimum(rows["channel"], n_channels - 1)
        counts.channels[:] += np.bincount(
            arm * n_channels + channel, minlength=counts.channels.size
        ).reshape(counts.channels.shape)
        counts.logged[:] += np.bincount(arm[rows["logged"] == 1], minlength=n_arms)
