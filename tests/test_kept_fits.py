"""Fits of the offline side that are kept: taken over bit by bit for the same policy, seed and log,
made anew for any other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, Sequences
from policies.popularity import Popularity
from simulator.offpolicy.target_fits import Lesson, Wanted, fitted

ITEMS = 9


def lesson(seed: int, first: int = 1) -> Lesson:
    """Five users with six impressions each."""
    items = (np.arange(30) * 7 + first) % ITEMS + 1
    log = Sequences(
        np.arange(5), np.arange(0, 31, 6), items, items % 2 == 0, np.tile(np.arange(6), 5)
    )
    return Lesson(log, seed)


def test_a_kept_fit_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [Wanted("bpr", "bpr", {"width": 2, "training": {"epochs": 2, "patience": 0}})]
    wanted.append(Wanted("popularity", "popularity"))
    catalogue = Catalogue(5, ITEMS)
    made = fitted(wanted, [lesson(1)], catalogue, Fitting(1), tmp_path)
    kept = sorted(tmp_path.iterdir())
    assert [file.name.split("-")[0] for file in kept] == ["bpr", "popularity"]

    def nothing(*given: object) -> Popularity:
        raise AssertionError("fitted again")

    with monkeypatch.context() as patch:
        patch.setattr("policies.calls.Calls.fit", nothing)
        again = fitted(wanted, [lesson(1)], catalogue, Fitting(1), tmp_path)
        for (_, (one,)), (_, (other,)) in zip(made, again, strict=True):
            for name, values in one.state().items():
                np.testing.assert_array_equal(values, other.state()[name])
        for change in (lesson(2), lesson(1, first=2)):
            with pytest.raises(AssertionError, match="fitted again"):
                fitted(wanted, [change], catalogue, Fitting(1), tmp_path)
