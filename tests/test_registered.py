"""Every policy that abtest registers keeps the promises of the contract: the same checks as for a
stranger's.
"""

from __future__ import annotations

from typing import Any

import pytest

from policies.base import Policy, WorldBound
from policies.check import CHECKS, check_policy
from policies.registry import available, make
from simulator.reproduce.gallery import BRINGS_A_MODEL

NAMES = sorted(
    entry.name
    for entry in available().values()
    if entry.distribution == "abtest" and entry.name not in BRINGS_A_MODEL
)


def world() -> Any:
    """A small synthetic world for the yardsticks that look into one."""
    from simulator.users.choice import Choice

    population = Choice(n_users=60, n_items=50)
    return population, population.source(1)


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_its_promises(name: str, tmp_path: Any) -> None:
    policy: Policy = make(name)
    bound = None
    if isinstance(policy, WorldBound):
        population, source = world()
        bound = population.build(source, 1, 5, tmp_path)
    results = list(check_policy(policy, world=bound))
    assert [r.name for r in results] == list(CHECKS)
    assert {r.name: r.detail for r in results if not (r.kept or r.skipped)} == {}
