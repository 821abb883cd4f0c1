"""From a name to a policy (`policies.plugins` with the group `abtest.policies`)."""

from __future__ import annotations

from policies.base import Policy
from policies.calls import CallError, PolicyError
from policies.plugins import Entry, Registry

__all__ = [
    "Entry",
    "PolicyError",
    "available",
    "file_of",
    "is_built_in",
    "locate",
    "make",
    "resolve",
]

POLICIES: Registry[Policy] = Registry(
    group="abtest.policies",
    base=Policy,  # type: ignore[type-abstract]
    error=PolicyError,
    fault=CallError,
    plural="policies",
    parameter="hyper-parameter",
    listing="abtest policies list",
)

available = POLICIES.available
locate = POLICIES.locate
is_built_in = POLICIES.is_built_in
file_of = POLICIES.file_of
resolve = POLICIES.resolve
make = POLICIES.make
