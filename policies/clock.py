"""Wall time for which the call that spends it does not answer: kernels compiled at their first
use.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_spent = 0.0
_since: float | None = None


def off_the_clock() -> float:
    """Seconds of this process so far that were `stopped`, those of now included."""
    return _spent + (0.0 if _since is None else time.monotonic() - _since)


@contextmanager
def stopped() -> Iterator[None]:
    """What happens inside counts towards no call's time."""
    global _spent, _since
    if _since is not None:
        yield
        return
    _since = time.monotonic()
    try:
        yield
    finally:
        _spent, _since = off_the_clock(), None
