"""`python -m tests.fuzz`: every kind of input, mutated."""

from __future__ import annotations

from tests.fuzz import logs, readers, scenarios, tables
from tests.fuzz.driver import drive

KINDS = {"scenarios": scenarios, "logs": logs, "tables": tables, **readers.KINDS}
"""Kind -> the module (or object) that has its `case` and how many seeds make a full run, `COUNT`.
"""

if __name__ == "__main__":
    raise SystemExit(drive("tests.fuzz", KINDS))
