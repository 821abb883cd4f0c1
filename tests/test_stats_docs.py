"""docs/statistics.md: it names every check, key and published boundary that the code has."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from simulator.log.metrics import METRICS
from simulator.stats import checks, spending, units
from simulator.stats.verdict import Lift
from tests.worlds import paired_log

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "statistics.md").read_text()


def test_every_key_metric_and_check_is_explained() -> None:
    for field in fields(Lift):
        if field.name not in {"metric", "arm", "unit"}:
            assert f"`{field.name}`" in TEXT, field.name
    for name in METRICS:
        assert f"`{name}`" in TEXT, name
    for check in checks.checks(units.read(paired_log(n_users=60), ("click",)), "a"):
        assert f"| {check.name} |" in TEXT, check.name


def test_published_boundaries_are_ours() -> None:
    for shape in ("obrien-fleming", "pocock"):
        for bound in spending.boundaries(shape, [0.2, 0.4, 0.6, 0.8, 1.0]):  # type: ignore[arg-type]
            assert f"{bound:.3f}" in re.findall(r"\d\.\d{3}", TEXT)
