"""A `choice` world for a log: a scenario with what the log says at once, its free parameters then
fitted to the log's own marginals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from policies.base import Progress, silent
from policies.time import DAY, HOUR
from simulator.calibration.log_targets import LogFigures
from simulator.calibration.marginals import Impressions, measure
from simulator.calibration.search import fit, stages
from simulator.calibration.targets import (
    CLICKS,
    LOGGING,
    TOLERANCE,
    TargetRow,
    compare,
    feeds_of,
    held_to,
    measured,
)
from simulator.log.kinds import FEEDBACK
from simulator.scenario.model import Scenario

ROUNDS = 2
"""How often all stages are gone through: what is fitted later moves earlier marginals a little."""

QUANTILES = (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 1.0)
"""At which the world's lengths of items are those of the log."""

ARMS: Mapping[str, Mapping[str, Any]] = {
    "popularity": {"policy": "popularity"},
    "itemknn": {"policy": "itemknn", "params": {"neighbours": 100}},
}
"""A control and an example of an arm, both without training."""

FREQUENT = 0.01
"""Rate from which on a kind of feedback becomes a metric: rarer ones decide nothing."""


@dataclass(frozen=True)
class ChoiceFit:
    """A world fitted to a log.

    Attributes:
        scenario: what runs.
        rows: its marginals beside the log's.
        moved: key -> (where the fit began, where it ended).
        simulations: how many worlds were tried.
    """

    scenario: Scenario
    rows: tuple[TargetRow, ...]
    moved: Mapping[str, tuple[float, float]]
    simulations: int


def fit_choice(
    figures: LogFigures, name: str, seed: int, basis: str, progress: Progress = silent
) -> ChoiceFit:
    """Fit a `choice` world to what a log says.

    Args:
        figures: of the log.
        name: of the scenario.
        seed: of the world.
        basis: where the targets come from, in words.
        progress: told of every simulation.
    """
    start = begin(figures, name, seed, basis)
    tried = 0
    at_most = _most_simulations(figures)

    def report(stage: str, values: Mapping[str, float], cost: float) -> None:
        nonlocal tried
        tried += 1
        progress("fit the world", min(tried, at_most), at_most, {"cost": cost})

    found = fit(start, report, ROUNDS)
    progress("fit the world", at_most, at_most, {})
    targets = held_to(found.calibration)
    rows = compare(measured(found, feeds_of(targets)), TOLERANCE, targets)
    before, after = start.resolved(), found.resolved()
    return ChoiceFit(found, tuple(rows), dict(_moved(before, after)), tried)


def _most_simulations(figures: LogFigures) -> int:
    """How many worlds a fit tries at most: every knob of a block once, then one for each step."""
    per_round = 0
    for stage in stages(figures.targets):
        knobs = max(len(block.knobs) for block in stage.blocks)
        per_round += stage.evaluations + knobs
    return ROUNDS * per_round


def _moved(before: Any, after: Any, key: str = "") -> Any:
    """The numbers that differ between two resolved scenarios, by dotted key."""
    if isinstance(before, Mapping):
        for name, value in before.items():
            yield from _moved(value, after[name], f"{key}.{name}" if key else str(name))
    elif before != after and isinstance(before, int | float):
        yield key, (float(before), float(after))


def begin(figures: LogFigures, name: str, seed: int, basis: str) -> Scenario:
    """The scenario before anything is fitted: sizes, lengths, hours, kinds of feedback and visits
    as the log has them, everything else as a world has it by default.
    """
    seen = figures.seen
    kinds = [kind for kind in FEEDBACK if kind in seen.kinds]
    frequent = [kind for kind in kinds if seen.kinds[kind].mean() >= FREQUENT]
    slate = _slate(seen)
    values: dict[str, Any] = {
        "name": name,
        "description": f"a world fitted to {basis}",
        "seed": seed,
        "data": {
            "source": "synthetic",
            "history_days": figures.whole.days,
            "logging": {
                "policy": "production",
                "temperature": 0.8,
                "epsilon": 0.02,
                "params": {"noise": 0.25, "boost": 1.0, "brevity": 0.1, "refresh": 7},
            },
        },
        "users": {
            "kind": "choice",
            "n_users": figures.world_users,
            "n_items": figures.world_items,
            **_videos(figures),
            **_visits(seen, slate),
            **_answers(figures),
            "affinity": _affinity(figures),
        },
        "days": 3,
        "serving": {"slate": slate, "recall": max(40, 10 * slate), "seen": _withheld(seen)},
        "metrics": ["click", *(["watch_time"] if seen.has_watch else []), *frequent],
        "arms": ARMS,
        "design": {"kind": "paired", "control": "popularity"},
        "calibration": section(figures, basis),
    }
    return Scenario.model_validate(values)


def section(figures: LogFigures, basis: str) -> dict[str, Any]:
    """The `calibration` section that holds a world to a log."""
    targets: dict[str, dict[str, Any]] = {}
    for target in figures.targets:
        value = float(f"{target.value:.6g}")
        error = float(f"{target.se:.3g}")
        spec = {"value": value, "se": error} if error else value
        targets.setdefault(target.feed, {})[target.name] = spec
    return {
        "targets": targets,
        "tolerance": TOLERANCE,
        "basis": basis,
        "not_measured": dict(figures.not_measured),
    }


def _slate(seen: Impressions) -> int:
    """How many items came together: the mean of the log's requests, at most 20."""
    together = np.unique(np.stack((seen.user, seen.t)), axis=1).shape[1]
    return int(np.clip(round(len(seen.user) / together), 1, 20))


REPEATED = 0.01
"""Share of impressions that a user has had before, from which on a log shows items again."""


def _withheld(seen: Impressions) -> int:
    """How many of a user's impressions are not shown again: many, but never so many that nothing is
    left, unless the log shows items again.
    """
    pairs = len(np.unique(seen.user * (seen.n_items + 1) + seen.item))
    return (
        1
        if len(seen.user) - pairs > REPEATED * len(seen.user)
        else max(1, min(512, seen.n_items // 2))
    )


def _videos(figures: LogFigures) -> dict[str, Any]:
    """Lengths of items as the log has them, and what they do to clicks, which is fitted."""
    n = figures.world_items
    videos: dict[str, Any] = {"authors": max(1, n // 5), "tags": min(40, n)}
    if len(figures.lengths):
        length = np.clip(np.quantile(figures.lengths, QUANTILES), 0.001, 86_400)
        videos["duration"] = {q: float(f"{x:.5g}") for q, x in zip(QUANTILES, length, strict=True)}
    return {"videos": videos}


BASE = -4.0
"""The logit from which a world that shows what suits is clicked about as often as not."""


def _affinity(figures: LogFigures) -> dict[str, Any]:
    """The level of clicks where the fit begins: as far from `BASE` as the log's from one half."""
    click = next((t.value for t in figures.targets if t[:2] == (LOGGING, "click")), 0.5)
    share = min(max(click, 0.001), 0.999)
    affinity: dict[str, Any] = {"base": round(BASE + float(np.log(share / (1.0 - share))), 2)}
    if not len(figures.lengths):
        affinity["duration"] = {10.0: 0.0}  # nothing is known to depend on unknown lengths
    return affinity


def _visits(seen: Impressions, slate: int) -> dict[str, Any]:
    """How often users come and how long they stay: the fit begins at the log's means."""
    arrival: dict[str, Any] = {"busiest": 1000.0}
    visits = {"arrival": arrival}
    marginals = measure(seen)
    a_visit = 1.0
    if seen.is_timed:
        of_day = marginals["visits of an active day"].value
        arrival["per_day"] = of_day * marginals["active user-days"].value
        a_visit = marginals["impressions of an active day"].value / of_day
        hours = np.bincount(seen.t % DAY // HOUR, minlength=24) / len(seen.t)
        visits["diurnal"] = {"hours": [float(f"{100 * share:.4g}") for share in hours]}
    else:
        a_visit = marginals["impressions of a user"].value / seen.days
        arrival["per_day"] = 1.0
        visits["diurnal"] = {"enabled": False}
    requests = max(a_visit / slate, 1.02)
    visits["patience"] = {"leave": float(f"{min(1.0 / requests, 0.97):.4g}")}
    arrival["per_day"] = float(f"{arrival['per_day']:.4g}")
    return visits


def _answers(figures: LogFigures) -> dict[str, Any]:
    """Kinds of feedback that the log lacks are never given; what is not watched is not looked
    past.
    """
    seen = figures.seen
    wanted = {target.name for target in figures.targets if target.feed in (LOGGING, CLICKS)}
    sections: dict[str, Any] = {"reactions": {}}
    for kind in FEEDBACK:
        if kind == "long_view":
            continue
        if kind not in seen.kinds or not seen.kinds[kind].any():
            sections["reactions"][kind] = {
                "enabled": False,
                "rate": 0.01,
                "affinity": 0.0,
                "unclicked": 0.0,
            }
    if not any(name.startswith("watch") for name in wanted):
        sections["examination"] = {"enabled": False}
    return sections


def learned_scenario(asked: Scenario, name: str, figures: LogFigures) -> Scenario:
    """A scenario of learned users on the log's own sessions.

    Args:
        asked: with the data, the days and the seed.
        name: of the scenario.
        figures: of the log.
    """
    slate = _slate(figures.seen)
    values = asked.resolved()
    values |= {
        "name": name,
        "serving": {"slate": slate, "recall": max(40, 10 * slate)},
        "metrics": ["click", *(["watch_time"] if figures.seen.has_watch else [])],
        "arms": ARMS,
        "design": {"kind": "paired", "control": "popularity"},
    }
    return Scenario.model_validate(values)


def yaml_of(scenario: Scenario) -> str:
    """The scenario as a file, without the keys of `engine`, which decide speed alone."""
    return yaml.safe_dump(scenario.identity(), sort_keys=False, allow_unicode=True, width=100)
