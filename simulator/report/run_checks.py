"""Checks that belong to a report and not to statistics: whether the world is calibrated, whether
everything is there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from policies.base import DoubleArray
from simulator.calibration.targets import is_beyond
from simulator.log.notices import Notice
from simulator.report.content import Calibration, WorldMarginal
from simulator.stats.checks import Check
from simulator.stats.user_days import UserDays

CALIBRATION = "calibration of the world"
"""Name of the calibration gate."""


def calibrated(calibration: Calibration | None) -> Check:
    """The calibration gate: red where a marginal is out of tolerance beyond its sampling error,
    amber where it may be; green where the scenario names no targets, which is then said.
    """
    name = CALIBRATION
    if calibration is None:
        value = "Not measured: the log says nothing of how close its users are to real ones."
        return Check(name, "amber", value, "The lifts are statements about these users only.")
    if not calibration.rows and not calibration.basis:
        value = "Not measured: the scenario names no targets (`calibration`)."
        meaning = "These users are held to nobody's figures; the lifts are statements about them."
        return Check(name, "green", value, meaning)
    rows, tolerance, basis = calibration.rows, calibration.tolerance, calibration.basis
    if not rows:
        value = f"Not measured: no target of the scenario is a figure of its history ({basis})."
        return Check(name, "amber", value, "The lifts are statements about these users only.")
    outside = [row for row in rows if not row.within]
    if not outside:
        value = f"All {len(rows)} marginals are within {tolerance:.0%} of their targets ({basis})."
        meaning = "The world behaves like its data in everything that was measured."
        return Check(name, "green", value, meaning)
    surely = [row for row in outside if is_beyond(row, tolerance)]
    worst = sorted(surely or outside, key=_closeness)[:3]
    some = ", ".join(f"{row.name} {row.ratio:.2f} times its target" for row in worst)
    if surely:
        value = (
            f"{len(surely)} of {len(rows)} marginals are more than {tolerance:.0%} off: {some}"
            f" ({basis})."
        )
        meaning = "Do not act on these lifts: they are statements about users unlike the real ones."
        return Check(name, "red", value, meaning)
    value = (
        f"{len(outside)} of {len(rows)} marginals are more than {tolerance:.0%} off, but within"
        f" their sampling error: {some} ({basis})."
    )
    return Check(name, "amber", value, "The history is too short to tell; a longer one would.")


def _closeness(row: WorldMarginal) -> float:
    """How near a marginal is to its target, on the scale of logarithms: the furthest is least."""
    ratio = 0.0 if math.isnan(row.ratio) else row.ratio
    return -abs(math.log(max(ratio, 1e-9)))


def complete(sums: UserDays, silent: Sequence[str], shown: DoubleArray) -> list[Check]:
    """Whether everything that was to be compared is there.

    Args:
        sums: of users and days.
        silent: arms without a single impression.
        shown: `[days]` impressions of all arms.
    """
    checks = []
    empty = [str(day + 1) for day in np.flatnonzero(shown == 0)]
    if empty:
        value = (
            f"Nothing was shown on {len(empty)} of {len(shown)} days:"
            f" {', '.join(empty[:10])}{', ...' if empty[10:] else ''}."
        )
        meaning = (
            "The test ended early, or the log counts t in another unit than ms (s, say: then all of"
            " it lies on the first day)."
        )
        checks.append(Check("days", "amber", value, meaning))
    if silent:
        value = f"Without a single impression, and left out: {', '.join(silent)}."
        checks.append(
            Check(
                "arms", "red", value, "An arm that was given up or never served cannot be compared."
            )
        )
    if sums.missing:
        value = f"The log has no data for {', '.join(sums.missing)}."
        checks.append(Check("metrics", "amber", value, "These rows of the verdict are empty."))
    return checks


def promises(notices: Counter[Notice]) -> Check:
    """What the run has noticed of its policies."""
    shown = "; ".join(str(notice) for notice in sorted(notices))
    meaning = (
        "`abtest policies check` on the policy looks closer: what it recalls may depend on more"
        " than the request."
    )
    return Check("promises of policies", "amber", shown, meaning)
