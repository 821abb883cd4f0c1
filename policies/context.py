"""The context of a request by its paths within `policies.base.Histories`: `time`, `times`, `watch`,
`reactions.KIND`, `features.NAME`. What each path belongs to, and where a log has it.

A policy names the paths that it reads (`Policy.asks_for`); lives, logs and replays keep what is
asked for, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

_DTYPES: dict[str, Any] = {"times": np.int64, "watch": np.float32, "reactions": np.int8}
"""Of what is told of each impression of the past."""


def is_of_request(path: str) -> bool:
    """Whether it is told of the request itself, and not of each impression before it."""
    return path == "time" or path.startswith("features.")


def union(asks: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """What several policies ask for, each path once."""
    return tuple(sorted({path for one in asks for path in one}))


def log_column(path: str) -> str:
    """The column of a log that says it: of the request, or of the impressions before it."""
    return "t" if path in ("time", "times") else path.rpartition(".")[2]


def past_of(context: Iterable[str]) -> tuple[str, ...]:
    """Those of the paths that are told of impressions: what a memory must keep."""
    return tuple(path for path in context if not is_of_request(path))


def dtype_of(path: str) -> npt.DTypeLike:
    """The type of what is told of impressions."""
    dtype: npt.DTypeLike = _DTYPES[path.partition(".")[0]]
    return dtype


def unknown(path: str) -> float:
    """What stands for an impression of which it was not observed; times always are."""
    return {"watch": np.nan, "reactions": -1}.get(path.partition(".")[0], 0)


def not_known(asks: Iterable[str], known: Iterable[str]) -> str | None:
    """What a policy asks for and cannot be given, as a sentence about it; None where all is
    known.
    """
    known = sorted(known)
    for path in asks:
        if path not in known:
            return (
                f"asks for {path!r} of each request (asks_for), which is not known here; known:"
                f" {', '.join(known) or 'nothing'}"
            )
    return None


def wrong_context(context: Any) -> str | None:
    """What is wrong with what a policy asks for; None where it is of the right form."""
    rule = (
        "asks_for must be a tuple out of 'time', 'times', 'watch', 'reactions.KIND' and"
        " 'features.NAME'"
    )
    if not isinstance(context, tuple):
        return f"{rule}; got {context!r}"
    for path in context:
        if path in ("time", "times", "watch"):
            continue
        name, _, key = path.partition(".") if isinstance(path, str) else ("", "", "")
        if name not in ("reactions", "features") or not key.isidentifier():
            return f"{rule}; got {path!r}"
    return None
