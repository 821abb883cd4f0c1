"""Who gets which arm: shares, stability, and recovery from the log alone."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.designs.assignment import arm_names, assigned, assignment, switched
from simulator.log.eventlog import LogError, Metadata


def metadata(kind: str, seed: int = 7, n_users: int = 5000) -> Metadata:
    return Metadata(
        ("history", "a", "b", "c"), n_users, 10, scenario={"seed": seed, "design": {"kind": kind}}
    )


def test_shares_are_equal_within_sampling_error():
    n, arms = 30_000, 3
    counts = np.bincount(assignment(5, n, arms), minlength=arms)
    assert np.abs(counts - n / arms).max() < 5 * (n / arms * (1 - 1 / arms)) ** 0.5


def test_a_users_arm_does_not_depend_on_who_else_is_there():
    np.testing.assert_array_equal(assignment(5, 100, 4), assignment(5, 100_000, 4)[:100])
    assert (assignment(5, 1000, 4) != assignment(6, 1000, 4)).any()


def test_a_split_is_recovered_from_the_metadata_alone():
    arm = assigned(metadata("split"))
    np.testing.assert_array_equal(arm, assignment(7, 5000, 3) + 1)


def test_paired_switchback_and_history_have_no_assignment():
    assert assigned(metadata("paired")) is None
    assert assigned(metadata("switchback")) is None
    assert (
        assigned(Metadata(("history",), 5, 5, scenario={"seed": 1, "design": {"kind": "split"}}))
        is None
    )


def test_a_split_without_its_seed_is_refused():
    with pytest.raises(LogError, match=r"scenario\.seed"):
        assigned(Metadata(("a", "b"), 5, 5, scenario={"design": {"kind": "split"}}))


def test_switchback_gives_every_arm_its_share_of_days():
    days = switched(3, 12, 3).reshape(4, 3)
    assert (np.sort(days, axis=1) == np.arange(3)).all()
    many = switched(3, 3000, 3).reshape(-1, 3)
    first = np.bincount(many[:, 0], minlength=3)
    assert np.abs(first - 1000 / 3).max() < 5 * (1000 * 2 / 9) ** 0.5


def test_arms_are_numbered_by_name_after_the_history():
    assert (
        arm_names(["recgpt", "comirec"])
        == ("history", "comirec", "recgpt")
        == arm_names(("comirec", "recgpt"))
    )
    with pytest.raises(LogError, match="history"):
        arm_names(["history", "b"])
