"""From a name to a policy (`policies.plugins` with the group `abtest.policies`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policies.base import Policy
from policies.calls import CallError, PolicyError
from policies.context import wrong_context
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


def make(
    name: str, params: Mapping[str, Any] | None = None, folder: Path | str | None = None
) -> Policy:
    """A new policy with its hyper-parameters checked, and what it asks for of requests.

    Raises:
        PolicyError: as `Registry.make`; or its `context` is of another form.
    """
    policy = POLICIES.make(name, params, None if folder is None else Path(folder))
    why = wrong_context(policy.asks_for)
    if why is not None:
        raise PolicyError(f"policy {name!r}: {why}")
    return policy
