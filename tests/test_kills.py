"""A few deaths, damages and lies (`make kills` is the long run): whatever is done to a run, it is
resumed right or named.
"""

from __future__ import annotations

import pytest

from tests.fuzz import harness
from tests.kills.__main__ import KINDS

FEW = {
    "renames": [24],
    "steps": [3],
    "moments": [27],
    "disks": [1],
    "pieces": [0, 8],
    "clocks": [4],
    "plug-ins": [26],
}
"""Kind -> seeds; few of them under processes, which take longest to start."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_disturbed_run_ends_right(kind):
    found = harness.run(kind, KINDS[kind].case, FEW[kind], seconds=0)
    assert not found.wrong, "\n".join(
        f"python -m tests.kills --kind {kind} --seed {seed}\n{text}"
        for seed, text in found.wrong.items()
    )
