"""Who gets which arm: the assignment of users to arms, and its recovery from what a log says of
itself.

The assignment is a pure function of the scenario (kind of design, seed, names of the arms); nothing
here reads rows.
"""

from __future__ import annotations

import numpy as np

from policies.base import IntArray
from policies.streams import Purpose, uniform
from simulator.log.metadata import HISTORY, LogError, Metadata


def arm_names(names: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """The arms of a run's log: `history`, then the scenario's arms in the order of their *names*.

    Sorted, because the index of an arm is a column of the log and decides the order of its rows: if
    it followed the scenario file, exchanging two arms there would change every byte of a log in
    which nothing happened differently.

    Raises:
        LogError: an arm is called `history`.
    """
    if HISTORY in names:
        raise LogError(
            f"arms.{HISTORY}: this name is kept for what happened before the A/B; give the arm"
            " another name"
        )
    return (HISTORY, *sorted(names))


def assignment(seed: int, n_users: int, n_arms: int) -> IntArray:
    """Split by hash: arm 0..n_arms-1 of each user, `[n_users]`, equal shares, keyed by the user
    alone.

    A user's arm does not depend on how many users there are.
    """
    return (uniform(seed, Purpose.ASSIGN, np.arange(n_users)) * n_arms).astype(np.int64)


def switched(seed: int, n_days: int, n_arms: int) -> IntArray:
    """Switchback: the arm 0..n_arms-1 that everybody gets on each day, `[n_days]`.

    Days come in blocks of `n_arms`; each block is a random permutation of the arms, so that arms
    have equal numbers of days (to within one) and no fixed place in the week (randomised block
    design; Bojinov, Simchi-Levi & Zhao, Management Science 2023).
    """
    blocks = -(-n_days // n_arms)
    noise = uniform(seed, Purpose.ASSIGN, np.arange(blocks)[:, None], 1, np.arange(n_arms))
    return np.argsort(noise, axis=1, kind="stable").ravel()[:n_days].astype(np.int64)


def assigned(metadata: Metadata) -> IntArray | None:
    """The arm of each user, `[n_users]` index into `metadata.arms`, or None where every user was in
    every arm.

    None for paired logs, for switchback (every user is in every arm, on different days), for a log
    that no run wrote and for a pure history.

    Raises:
        LogError: the log says it was split but not by which seed.
    """
    if metadata.scenario.get("design", {}).get("kind", "paired") != "split":
        return None
    if "seed" not in metadata.scenario:
        raise LogError(
            "this log was split by users, but its metadata has no scenario.seed to recover the"
            " assignment from"
        )
    compared = [i for i, name in enumerate(metadata.arms) if name != HISTORY]
    if not compared:
        return None
    return np.asarray(compared, dtype=np.int64)[
        assignment(int(metadata.scenario["seed"]), metadata.n_users, len(compared))
    ]
