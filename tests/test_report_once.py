"""A report computes each thing once: every unit table is built once, every table is read once, and
there is one verdict on each arm, metric and unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulator import report
from simulator.report import user_table
from simulator.stats import moments, verdict
from simulator.stats.unit_table import UnitTable
from simulator.stats.user_days import UserDays
from tests.worlds import feedback_log


class Counted:
    """What a report builds, reads and decides, by what makes each of them distinct.

    Everything counted is kept alive, so that no two of them have one id.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tables: Counter[tuple[int, str, int, int]] = Counter()
        self.samples: Counter[tuple[int, ...]] = Counter()
        self.verdicts: Counter[tuple[int, tuple[str, ...]]] = Counter()
        self._alive: list[object] = []
        self._patch(monkeypatch)

    def _patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        build, add, lifts = UserDays._build, moments.Sampler.add, verdict.lifts

        def counted_build(days: UserDays, unit: Any, span: slice) -> UnitTable:
            self._alive.append(days)
            self.tables[id(days), unit, span.start, span.stop] += 1
            return build(days, unit, span)

        def counted_add(sampler: moments.Sampler, columns: Iterable[Any], *group: Any) -> None:
            columns = list(columns)
            self._alive += columns
            # Rows of a table are views: what they are of and where they begin makes them distinct.
            self.samples[tuple(column.ctypes.data for column in columns)] += 1
            add(sampler, columns, *group)

        def counted_lifts(table: UnitTable, *args: Any, **how: Any) -> list[verdict.Lift]:
            self._alive.append(table)
            adjusted: Mapping[str, Any] = how.get("covariates") or {}
            self.verdicts[id(table), tuple(adjusted)] += 1
            return lifts(table, *args, **how)

        monkeypatch.setattr(UserDays, "_build", counted_build)
        monkeypatch.setattr(moments.Sampler, "add", counted_add)
        monkeypatch.setattr(verdict, "lifts", counted_lifts)


def test_a_paired_report_computes_everything_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = 4
    counted = Counted(monkeypatch)
    report.write(feedback_log(n_users=120, days=days), tmp_path)
    assert set(counted.tables.values()) == {1}
    assert set(counted.samples.values()) == {1}
    assert set(counted.verdicts.values()) == {1}
    # The run by user and by day, each of its days alone and all days up to each, and one table each
    # for novelty, the A/A (by user and by user-day) and the designs.
    assert len(counted.tables) <= 2 + (days - 1) + (days - 2) + 1 + 4
    # By user, by day, each day alone, and winsorised.
    assert len(counted.verdicts) == 2 + days + 1


def test_a_split_table_is_compared_once_with_and_once_without_its_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(4)
    before = random.gamma(2.0, 3.0, 600)
    frame = pd.DataFrame(
        {
            "user": range(600),
            "arm": random.choice(["control", "new"], 600),
            "money": before + random.gamma(2.0, 1.0, 600),
            "money_before": before,
        }
    )
    counted = Counted(monkeypatch)
    user_table.write(frame, tmp_path)
    assert set(counted.samples.values()) == {1}
    assert set(counted.verdicts.values()) == {1}
    # Adjusted, plain, and winsorised.
    assert len(counted.verdicts) == 3
