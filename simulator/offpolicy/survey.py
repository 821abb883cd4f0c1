"""Survey: what one pass over the rounds says before any policy is asked, the reward model
included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from policies.base import Progress
from simulator.log.metadata import LogError, Propensity
from simulator.offpolicy.kind_table import KindTable
from simulator.offpolicy.reward_model import RewardTable
from simulator.offpolicy.rounds import Rounds, Stream
from simulator.offpolicy.settings import ReplayError, ReplaySettings


@dataclass(frozen=True)
class Survey:
    """What one pass over the rounds says before any policy is asked."""

    kind: Propensity
    length: int
    uniform: bool
    rounds: int
    impressions: int
    unobserved: int
    model: RewardTable
    kinds: Mapping[str, KindTable]


def observed(rounds: Iterable[Rounds]) -> Iterator[Rounds]:
    """The rounds whose rewards were all observed."""
    for chunk in rounds:
        known = np.isfinite(chunk.reward).all(axis=1)
        yield chunk if known.all() else chunk.rows(known)


def survey(
    rounds: Iterable[Rounds],
    n_items: int,
    settings: ReplaySettings,
    progress: Progress | None = None,
) -> Survey:
    """The first pass: kinds, lengths, whether slates are uniform, and the reward model.

    Raises:
        LogError: a broken row.
        ReplayError: no rounds.
    """
    model = RewardTable(n_items, settings.contexts, settings.folds, settings.seed)
    kinds = settings.kind_tables()
    kind: Propensity = "unknown"
    length = seen = impressions = lost = 0
    uniform = True
    for chunk in rounds:
        known = np.isfinite(chunk.reward).all(axis=1)
        lost += int((~known).sum())
        chunk = chunk if known.all() else chunk.rows(known)
        if not len(chunk):
            continue
        kind = chunk.kind
        if kind != "unknown":
            _complete(chunk, rounds)
        length = max(length, chunk.length)
        uniform = uniform and _uniform(chunk)
        seen, impressions = seen + len(chunk), impressions + chunk.item.size
        if settings.modelled:
            model.add(chunk)
        for one in kinds.values():
            one.add(chunk)
        if progress is not None:
            progress("survey", seen, 0, {})
    if not seen:
        raise ReplayError(
            "no rounds: the log has no request with an observed reward in the time asked for"
        )
    if settings.modelled:
        model.settle()
    for one in kinds.values():
        one.table.settle()
    return Survey(kind, length, uniform, seen, impressions, lost, model, kinds)


def _complete(chunk: Rounds, rounds: Iterable[Rounds]) -> None:
    """Raise LogError if an impression lacks the propensity that its log says it has."""
    lacks = np.isnan(chunk.propensity)
    if lacks.any():
        first, place = np.argwhere(lacks)[0]
        row = int(chunk.row[first] + place)
        where = rounds.log.place_of(row) if isinstance(rounds, Stream) else f"row {row}"
        raise LogError(
            f"{where}: propensity is null in a log that says its propensities are {chunk.kind};"
            " mark the log unknown or fill it"
        )


def _uniform(chunk: Rounds) -> bool:
    """Whether the propensities are those of a uniform draw without replacement: 1/m, 1/(m - 1), ...
    (marginal: all equal).
    """
    if chunk.kind == "unknown":
        return False
    candidates = 1.0 / chunk.propensity
    drop = np.arange(chunk.length) if chunk.kind == "conditional" else 0
    # Propensities are float32, so 1 / p is right to six digits; from 50,000 candidates on, every
    # number is whole within the tolerance.
    whole = bool(np.allclose(candidates[:, 0], np.rint(candidates[:, 0]), rtol=1e-5))
    return whole and bool(np.allclose(candidates + drop, candidates[:, :1], rtol=1e-5))
