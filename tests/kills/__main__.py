"""`python -m tests.kills`: every kind of disturbance of a run."""

from __future__ import annotations

from tests.fuzz.driver import drive
from tests.kills import damage, deaths, lies
from tests.kills.deaths import Kind

KINDS = {
    "renames": Kind(deaths.at_rename, 96),
    "steps": Kind(deaths.at_step, 24),
    "moments": Kind(deaths.at_moment, 40),
    "disks": Kind(damage.full_disk, 16),
    "pieces": Kind(damage.pieces, 80),
    "clocks": Kind(damage.clock, 6),
    "plug-ins": Kind(lies.case, lies.COUNT),
}
"""Kind -> its cases, and how many seeds make a full run."""

if __name__ == "__main__":
    raise SystemExit(drive("tests.kills", KINDS, seconds=0))
