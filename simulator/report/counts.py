"""Plain counts of a log by arm and day (sessions, requests, impressions, feedback, recall channels,
logged answers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from policies.base import BoolArray, DoubleArray
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.part_sums import InArrays
from simulator.log.schema import LogRows

Cells = DoubleArray


@dataclass(frozen=True)
class Counts:
    """What the A/B part of a log (t >= 0) holds.

    Attributes:
        steps: by name, `[arms, days]`: `sessions` and `requests` (on the day on which they begin),
            `impressions`, `play` (watch > 0), `click` and each FEEDBACK kind that the log has; rows
            after the last day are counted on it.
        users: `[arms]` distinct users with an impression.
        channels: `[arms, channels + 1]` impressions by recall channel; column 0 is the tested
            policy.
        logged: `[arms]` impressions that a real log answered.
    """

    steps: dict[str, Cells]
    users: Cells
    channels: Cells
    logged: Cells


class Counter(InArrays):
    """Counts the stretches of a log in KEY order: memory does not grow with the log.

    Attributes:
        columns: of the log that `add` reads.
        counts: of all that was added.
    """

    def __init__(self, log: EventLog) -> None:
        meta = log.metadata
        n_arms, self._days, self._kinds = len(meta.arms), max(meta.days, 1), ("click", *log.kinds)
        steps = ("sessions", "requests", "impressions", "play", *self._kinds)
        self.counts = Counts(
            {name: np.zeros((n_arms, self._days)) for name in steps},
            np.zeros(n_arms),
            np.zeros((n_arms, len(meta.channels) + 1)),
            np.zeros(n_arms),
        )
        self.columns = (*meta.key, "t", "watch", "channel", "logged", *self._kinds)
        # What begins in a row is seen beside the row above it in the A/B.
        self._above: LogRows | None = None
        self._is_whole = True

    def arrays(self) -> dict[str, Cells]:
        """Those of `counts`, by name."""
        counts = self.counts
        steps = {f"step {name}": cells for name, cells in counts.steps.items()}
        return {
            **steps,
            "users": counts.users,
            "channels": counts.channels,
            "logged": counts.logged,
        }

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
        counts, n_arms, self._above = self.counts, len(self.counts.users), rows
        arm = rows["arm"].astype(np.int64)
        cell = arm * self._days + np.minimum(rows["t"] // DAY, self._days - 1)

        def tally(of: BoolArray | None = None) -> Cells:
            found = np.bincount(cell if of is None else cell[of], minlength=n_arms * self._days)
            return found.reshape(n_arms, self._days).astype(float)

        steps = {
            "sessions": tally(rows.begins["session"]),
            "requests": tally(rows.begins["request"]),
            "impressions": tally(),
            "play": tally(rows["watch"] > 0),
            **{name: tally(rows[name] == 1) for name in self._kinds},
        }
        for name, sums in steps.items():
            counts.steps[name][:] += sums
        counts.users[:] += np.bincount(arm[rows.begins["user"]], minlength=n_arms)
        n_channels = counts.channels.shape[1]
        channel = np.minimum(rows["channel"], n_channels - 1)
        counts.channels[:] += np.bincount(
            arm * n_channels + channel, minlength=counts.channels.size
        ).reshape(counts.channels.shape)
        counts.logged[:] += np.bincount(arm[rows["logged"] == 1], minlength=n_arms)
