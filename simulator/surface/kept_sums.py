"""The sums of a run, kept in the place of its log: what a lift is computed from is some thousandth
of what users were shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simulator.log.files import load_arrays, save_arrays
from simulator.log.metrics import chosen
from simulator.stats.user_days import UserDays

ABOUT = "about"
PLACES = ("assigned", "switched", "cluster")
"""Who had which arm: arrays of `UserDays` that a design may not have."""


def slim(days: UserDays) -> UserDays:
    """The sums without what a lift of models does not need: what was before the test."""
    return replace(days, before={})


def keep(days: UserDays, identity: Mapping[str, Any], file: Path) -> None:
    """Write the sums of a run with one fit of each arm.

    Args:
        days: `slim`.
        identity: of the scenario of the run (`Scenario.identity`).
        file: is written by rename.
    """
    about = {
        "identity": identity,
        "arms": days.arms,
        "users": days.n_users,
        "days": days.days,
        "metrics": list(days.metrics),
    }
    arrays = {f"term {name}": sums for name, sums in days.terms.items()}
    arrays |= {name: one for name in PLACES if (one := getattr(days, name)) is not None}
    text = np.frombuffer(json.dumps(about, sort_keys=True).encode(), dtype=np.uint8)
    save_arrays(file, {**arrays, ABOUT: text})


def load(file: Path) -> tuple[UserDays, dict[str, Any]]:
    """The sums that `keep` wrote, and the identity of their scenario.

    Raises:
        FileError: the file is missing or damaged.
    """
    arrays = load_arrays(file)
    about = json.loads(arrays[ABOUT].tobytes())
    days = UserDays(
        tuple(about["arms"]),
        about["users"],
        about["days"],
        {metric.name: metric for metric in chosen(about["metrics"])},
        {
            name.removeprefix("term "): sums
            for name, sums in arrays.items()
            if name.startswith("term ")
        },
        before={},
        assigned=arrays.get("assigned"),
        switched=arrays.get("switched"),
        cluster=arrays.get("cluster"),
    )
    return days, about["identity"]
