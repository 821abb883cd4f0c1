"""Which impressions of a log have an answer that was observed."""

from __future__ import annotations

import numpy as np

from policies.base import BoolArray, Sequences
from simulator.log.eventlog import EventLog


def has_watch(sequences: Sequences) -> bool:
    """Whether a log knows any watch time."""
    watch = sequences.columns["watch"]
    return bool((~np.isnan(watch)).any())


def answered(log: EventLog, sequences: Sequences) -> BoolArray:
    """The impressions whose answer is complete, `[N]`: click and watch time observed; of a log that
    knows no watch time, the click alone.

    Args:
        log: of one arm.
        sequences: its impressions (`EventLog.sequences`).
    """
    if has_watch(sequences) or not len(sequences.items):
        return np.asarray(~np.isnan(sequences.columns["watch"]))
    table = log.table
    order = np.lexsort((np.arange(table.num_rows), table["t"].to_numpy(), table["user"].to_numpy()))
    return np.asarray(table["click"].is_valid().to_numpy()[order])
