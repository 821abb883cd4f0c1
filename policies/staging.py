"""Temporary names: a file is written under one and then renamed, so that it is whole or not there.

Every call gives another name. Two processes may write the same file at the same time: on a cluster,
a node that only lost its network goes on with what another node was given meanwhile.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

PART = ".part"
"""Ending of temporary names."""

_TEMPORARY = re.compile(rf"(.+)\.[0-9a-f]{{12}}{re.escape(PART)}")


def staging_of(path: Path) -> Path:
    """A temporary name, in the same folder, of what will stand at `path`."""
    return path.with_name(f"{path.name}.{secrets.token_hex(6)}{PART}")


def place_of(staging: Path) -> Path | None:
    """The path that `staging_of` made a temporary name of; None where it did not."""
    found = _TEMPORARY.fullmatch(staging.name)
    return None if found is None else staging.with_name(found[1])
