"""Plain counts of a log by arm and day (requests, impressions, feedback, recall channels, logged
answers) in one streaming pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from policies.base import BoolArray, DoubleArray, IntArray
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.stats.supply import Exposures

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


def count(log: EventLog, exposures: Exposures | None = None, rows: int = 1 << 20) -> Counts:
    """Count a log in KEY order, `rows` impressions at a time: memory does not grow with the log.
    `exposures` are counted in the same pass.
    """
    n_arms = len(log.metadata.arms)
    days = max(log.metadata.days, 1)
    n_channels = len(log.metadata.channels) + 1
    kinds = ("click", *log.kinds)
    steps = {
        name: np.zeros((n_arms, days))
        for name in ("users", "sessions", "requests", "impressions", "play", "watch_time", *kinds)
    }
    observed = {name: np.zeros((n_arms, days)) for name in ("watch_time", *kinds)}
    users, channels, logged = np.zeros(n_arms), np.zeros((n_arms, n_channels)), np.zeros(n_arms)

    def tally(index: IntArray) -> Cells:
        return np.bincount(index, minlength=n_arms * days).reshape(n_arms, days).astype(float)

    names = log.metadata.key[:-1]
    # What begins in a row is seen beside the row above, for the first one the last of its batch.
    above: list[int] | None = None
    wanted = [*names, "t", "watch", "channel", "logged", *kinds]
    if exposures is not None:
        wanted += [name for name in exposures.columns if name not in wanted]
    for batch in log.batches(wanted, rows):
        if exposures is not None and batch.num_rows:
            exposures.add(batch)
        past = batch["t"].to_numpy() < 0
        ab = batch.filter(pa.array(~past)) if past.any() else batch
        if not ab.num_rows:
            continue
        day = np.minimum(ab["t"].to_numpy() // DAY, days - 1)
        key = [*(ab[name].to_numpy().astype(np.int64) for name in names), day]
        cell = key[0] * days + day
        new_user, new_session, new_request, new_day = _begins(key, above)
        above = [int(column[-1]) for column in key]
        users += np.bincount(key[0][new_user], minlength=n_arms)
        steps["users"] += tally(cell[new_day])
        steps["sessions"] += tally(cell[new_session])
        steps["requests"] += tally(cell[new_request])
        _add_feedback(ab, cell, kinds, steps, observed)
        channel = np.minimum(ab["channel"].to_numpy(), n_channels - 1)
        channels += np.bincount(key[0] * n_channels + channel, minlength=channels.size).reshape(
            channels.shape
        )
        logged += np.bincount(
            key[0], weights=ab["logged"].cast(pa.uint8()).to_numpy(), minlength=n_arms
        )
    return Counts(days, steps, observed, users, channels, logged)


def _begins(key: list[IntArray], above: list[int] | None) -> tuple[BoolArray, ...]:
    """Where a user, a session, a request and a user's day begin, `[N]` each; `above` is the row
    before the first.
    """
    changed = [
        np.concatenate(([above is None or column[0] != above[i]], column[1:] != column[:-1]))
        for i, column in enumerate(key)
    ]
    *outer, session, request, day = changed
    user = np.logical_or.reduce(outer)
    session = user | session
    return user, session, session | request, user | day


def _add_feedback(
    batch: pa.RecordBatch,
    cell: IntArray,
    kinds: tuple[str, ...],
    steps: dict[str, Cells],
    observed: dict[str, Cells],
) -> None:
    """Add one batch's impressions, plays, seconds and feedback to their cells; one hash aggregation
    by Arrow for all columns.
    """
    columns = {
        "cell": pa.array(cell),
        "watch_time": batch["watch"].cast(pa.float64()),
        "play": pc.greater(batch["watch"], 0),
    }
    columns |= {name: batch[name] for name in kinds}
    wanted = [
        ("cell", "count"),
        ("play", "sum"),
        *((name, how) for name in ("watch_time", *kinds) for how in ("sum", "count")),
    ]
    sums = pa.table(columns).group_by("cell").aggregate(wanted)
    at = np.unravel_index(sums["cell"].to_numpy(), steps["impressions"].shape)
    steps["impressions"][at] += sums["cell_count"].to_numpy()
    for name in ("play", "watch_time", *kinds):
        steps[name][at] += pc.fill_null(sums[f"{name}_sum"], 0).to_numpy()
    for name in ("watch_time", *kinds):
        observed[name][at] += sums[f"{name}_count"].to_numpy()
