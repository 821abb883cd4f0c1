"""A short run of every kind of fuzz (`make fuzz` is the long one): nothing ends wrongly, and both
ends are met.
"""

from __future__ import annotations

import pytest

from tests.fuzz import harness
from tests.fuzz.__main__ import KINDS

SEEDS = {"scenarios": 20, "logs": 60, "tables": 10}
"""How many of a kind, by how long they take; 30 of every other."""


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_input_is_refused_or_right(kind):
    found = harness.run(kind, KINDS[kind].case, range(SEEDS.get(kind, 30)))
    assert not found.wrong, "\n".join(
        f"python -m tests.fuzz --kind {kind} --seed {seed}\n{text}"
        for seed, text in found.wrong.items()
    )
    refused = sum(count for end, count in found.ends.items() if "refused" in end)
    assert 0 < refused < sum(found.ends.values()), found.ends
