"""A world held to its targets: published figures or a log's own, rows of (target, simulated,
within), and cheap exposure of a world.

A simulator that is not held to its marginals proves nothing; what is measured here is what a report
shows on its first screen.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from policies.base import Catalogue, Histories, IntArray, Progress, silent
from policies.calls import Calls
from policies.time import DAY
from simulator.calibration.marginals import Impressions, Marginal, catalogue, measure
from simulator.calibration.scenes import LivingScene, Scene
from simulator.config.document import Keys, dotted, near
from simulator.living.life import Uploads
from simulator.log.kinds import FEEDBACK
from simulator.scenario.held_to import FEEDS, CalibrationSpec
from simulator.scenario.populations import behind, synthetic_source
from simulator.users.base import Users

if TYPE_CHECKING:
    from simulator.scenario.model import Scenario

TOLERANCE = 0.10
"""Relative: how far a marginal may be from its target."""

LOGGING, CLICKS, RANDOM, CATALOGUE, GAP = FEEDS

_PURE = "KuaiRand-Pure"
# Kind: standard feed, random exposure, their published ratio; all of KuaiRand-Pure, so that both
# are of the same videos.
_TABLE = {
    "click": (0.4597, 0.1762, 2.6),
    "long_view": (0.3318, 0.0850, 3.9),
    "like": (0.01848, 0.00480, 3.9),
    "comment": (0.00255, 0.00035, 7.4),
    "follow": (0.00107, 0.00026, 4.1),
    "forward": (0.00096, 0.00034, 2.8),
    "hate": (0.00049, 0.00114, 0.43),
    "profile_enter": (0.0240, 0.00556, 4.3),
}
_HOURS = (
    *(3.65, 2.28, 1.48, 0.94, 0.78, 0.98, 1.77, 2.66, 3.38, 4.02, 4.60, 5.15),
    *(5.86, 5.59, 5.08, 5.24, 5.57, 5.99, 5.62, 5.47, 5.65, 6.06, 6.41, 5.78),
)
_DURATION_CLICKS = {
    "0-15 s": (0.407, 0.177),
    "15-30 s": (0.456, 0.182),
    "30-60 s": (0.485, 0.186),
    "60-120 s": (0.487, 0.190),
    ">120 s": (0.436, 0.167),
}


class PublishedFigure(NamedTuple):
    """A published figure, or one that was measured on a log.

    Attributes:
        feed: what it is measured on, one of `FEEDS`.
        name: of the marginal (`simulator.calibration.marginals`).
        value: of it.
        se: standard error of a measured one; 0 where none is known.
    """

    feed: str
    name: str
    value: float
    se: float = 0.0


def _targets() -> Iterable[PublishedFigure]:
    for name, (standard, random, gap) in _TABLE.items():
        yield PublishedFigure(LOGGING, name, standard)
        yield PublishedFigure(RANDOM, name, random)
        yield PublishedFigure(GAP, name, gap)
    conditional = {
        "long_view": 0.719,
        "like": 0.0340,
        "comment": 0.0054,
        "follow": 0.0021,
        "forward": 0.0019,
    }
    yield from (
        PublishedFigure(LOGGING, f"{name} | click", value) for name, value in conditional.items()
    )
    yield PublishedFigure(LOGGING, "like | no click", 0.0053)
    watch = {
        "p10": 0.23,
        "p25": 1.54,
        "p50": 4.6,
        "p75": 21.7,
        "p90": 62.0,
        "p99": 209.0,
        "mean": 21.5,
        "zero": 0.098,
    }
    watch |= {"p50 | click": 25.9, "mean | click": 45.8}
    yield from (PublishedFigure(LOGGING, f"watch {name}", value) for name, value in watch.items())
    yield from (
        PublishedFigure(LOGGING, f"watch/duration {name}", value)
        for name, value in (("p50", 0.092), ("p75", 0.55), ("p90", 1.03))
    )
    same = {"click mean of videos": (0.389, 0.193), "watch mean of videos": (19.7, 7.8)}
    same |= {"click mean of users": (0.452, 0.162), "watch mean of users": (23.6, 6.5)}
    for name, (standard, random) in {
        **same,
        **{f"click {k}": v for k, v in _DURATION_CLICKS.items()},
    }.items():
        yield PublishedFigure(LOGGING, name, standard)
        yield PublishedFigure(RANDOM, name, random)
    yield from (
        PublishedFigure(LOGGING, f"click sd of {name}", value)
        for name, value in (("users", 0.19), ("videos", 0.16))
    )
    activity = {"full-active": 0.42, "high": 0.50, "middle": 0.53, "low": 0.57}
    yield from (
        PublishedFigure(LOGGING, f"click of {name} users", value)
        for name, value in activity.items()
    )
    yield PublishedFigure(LOGGING, "exposure gini", 0.75)
    yield PublishedFigure(LOGGING, "exposure top 20%", 0.785)
    yield PublishedFigure(LOGGING, "active user-days", 0.592)
    yield from (
        PublishedFigure(LOGGING, f"hour {h:02d}", share / 100.0) for h, share in enumerate(_HOURS)
    )
    yield PublishedFigure(LOGGING, "life best day", 2.5)
    yield PublishedFigure(LOGGING, "life day 8 / best day", 0.09)
    durations = {"p10": 14.6, "p25": 32.0, "p50": 81.0, "p75": 148.0, "p90": 238.0}
    yield from (
        PublishedFigure(CATALOGUE, f"catalogue duration {name}", value)
        for name, value in durations.items()
    )
    yield PublishedFigure(CATALOGUE, "catalogue ln duration mean", 4.23)
    yield PublishedFigure(CATALOGUE, "catalogue ln duration sd", 1.03)


TARGETS: tuple[PublishedFigure, ...] = tuple(_targets())
"""Published figures of Kuaishou's logs: KuaiRand-Pure (Gao et al., CIKM 2022); active user-days:
Kuaishou's DAU/MAU of 2022 Q2.
"""


class TargetRow(NamedTuple):
    """A marginal beside its target.

    Attributes:
        feed: one of `FEEDS`.
        name: of the marginal.
        target: published, or measured on a log.
        simulated: measured.
        se: standard error of `simulated` (NaN: none is given), and of a target that was measured.
        ratio: simulated / target.
        within: |ratio - 1| <= tolerance.
    """

    feed: str
    name: str
    target: float
    simulated: float
    se: float
    ratio: float
    within: bool


def held_to(section: CalibrationSpec) -> tuple[PublishedFigure, ...]:
    """The targets that a scenario names; () where it names none.

    Raises:
        CalibrationError: a target of a marginal that there is not.
    """
    if section.targets == "kuaishou":
        return TARGETS
    for keys, rule in unknown_targets(section):
        raise CalibrationError(f"{dotted(keys)}: {rule}")
    return tuple(
        PublishedFigure(feed, name, target.value, target.se or 0.0)
        for feed, targets in section.named.items()
        for name, target in targets.items()
    )


def unknown_targets(section: CalibrationSpec) -> Iterator[tuple[Keys, str]]:
    """Targets of marginals that there are not: their keys, and the rule."""
    known = known_names()
    for feed, targets in section.named.items():
        for name in targets:
            if name not in known[feed]:
                yield (
                    ("calibration", "targets", feed, name),
                    f"no such marginal; {near(name, known[feed])}",
                )


def feeds_of(targets: Iterable[PublishedFigure]) -> frozenset[str]:
    """The feeds that must be measured to compare these."""
    feeds = {target.feed for target in targets}
    return frozenset(feeds | {LOGGING, RANDOM} if GAP in feeds else feeds)


@cache
def known_names() -> Mapping[str, frozenset[str]]:
    """The marginals that can be measured, by feed."""
    one = np.zeros(1, dtype=np.int64)
    seconds = np.ones(1)
    answers = dict.fromkeys(FEEDBACK, one == 1)
    uploaded = np.zeros(6)
    seen = Impressions(one, one + 1, one, one == 0, seconds, seconds, answers, 1, 5, 1, uploaded)
    of_feeds = frozenset(measure(seen))
    names = dict.fromkeys((LOGGING, CLICKS, RANDOM, GAP), of_feeds)
    return {**names, CATALOGUE: frozenset(catalogue(seconds))}


class IsCompared(Protocol):
    """A marginal beside its target."""

    @property
    def target(self) -> float: ...
    @property
    def simulated(self) -> float: ...
    @property
    def se(self) -> float: ...


def is_beyond(row: IsCompared, tolerance: float = TOLERANCE) -> bool:
    """Whether a marginal is out of tolerance by more than two of its standard errors."""
    excess = abs(row.simulated - row.target) - tolerance * abs(row.target)
    error = 0.0 if math.isnan(row.se) else row.se
    return not excess <= 2 * error


def compare(
    measured: Mapping[str, Mapping[str, Marginal]],
    tolerance: float = TOLERANCE,
    targets: Sequence[PublishedFigure] = TARGETS,
) -> list[TargetRow]:
    """The rows of all targets whose feed was measured, in their order.

    Args:
        measured: marginals by feed, then by name.
        tolerance: relative.
        targets: what to compare with.
    """
    if LOGGING in measured and RANDOM in measured:
        measured = {**measured, GAP: _gaps(measured[LOGGING], measured[RANDOM])}
    rows = []
    for target in targets:
        marginal = measured.get(target.feed, {}).get(target.name)
        if marginal is None:
            continue
        ratio = marginal.value / target.value
        rows.append(
            TargetRow(
                *target[:2],
                target.value,
                marginal.value,
                float(np.hypot(marginal.se, target.se)),
                ratio,
                bool(abs(ratio - 1.0) <= tolerance),
            )
        )
    return rows


def _gaps(logging: Mapping[str, Marginal], random: Mapping[str, Marginal]) -> dict[str, Marginal]:
    """The ratio of each marginal of the two feeds, with its standard error by the delta method."""
    gaps = {}
    for name in logging.keys() & random.keys():
        (over, se_over), (under, se_under) = logging[name], random[name]
        if over > 0 and under > 0:
            gaps[name] = Marginal(
                over / under, over / under * float(np.hypot(se_over / over, se_under / under))
            )
    return gaps


class CalibrationError(ValueError):
    """A scenario whose world cannot be held to targets; the message says which key and why."""


def expose(
    users: Users, scene: Scene, days: int, slate: int, durations: Any, memory: int
) -> Impressions:
    """What users answer when one policy alone fills their slates for `days` days from t = -days: a
    world without a desk.

    Users are independent, so they are served in waves (everybody's next request), not in the order
    of time; the answers are those that the engine would log.

    Args:
        users: fresh.
        scene: what may be shown, and who recalls it, for requests whose histories hold the last
            `memory` impressions as `seen` and nothing else.
        days: length.
        slate: positions.
        durations: `[n_items + 1]` s.
        memory: impressions of a user that may not be shown again.
    """
    everybody = np.arange(users.n_users)
    clock = users.first(everybody)
    clock = np.where(clock > days * DAY, 0, clock - days * DAY)
    step = np.zeros(users.n_users, dtype=np.int64)
    seen = np.zeros((users.n_users, memory), dtype=np.int64)
    count = np.zeros(users.n_users, dtype=np.int64)
    waves: list[tuple[Any, ...]] = []
    for end in scene.ends():
        first = len(waves)
        while len(user := np.flatnonzero(clock < end)):
            # As wide from the first wave on: a policy that orders as many of a user's items as
            # `seen` may hide would do so anew for every width (2.9 s in place of .8 for 1,000
            # users).
            slates = scene.recall(_request(user, step[user], seen[user], clock[user]), slate)
            answer = users.respond(user, step[user], clock[user], slates)
            row, place = np.nonzero(np.arange(slate) < answer.shown[:, None])
            item = slates.items[row, place]
            kinds = [answer.kinds[kind][row, place] == 1 for kind in users.kinds]
            waves.append(
                (
                    user[row],
                    item,
                    clock[user][row],
                    answer.click[row, place] == 1,
                    answer.watch[row, place],
                    *kinds,
                )
            )
            seen[user[row], (count[user][row] + place) % memory] = item
            count[user] += answer.shown
            clock[user], step[user] = answer.next, step[user] + 1
        for _, item, _, click, *_ in waves[first:]:
            scene.take(item, item[click])
    user, item, t, click, watch, *kinds = (
        np.concatenate(column) for column in zip(*waves, strict=True)
    )
    return Impressions(
        user,
        item,
        t,
        click,
        watch.astype(np.float64),
        np.asarray(durations, dtype=np.float64)[item],
        dict(zip(users.kinds, kinds, strict=True)),
        users.n_users,
        users.n_items,
        days,
        scene.uploaded,
    )


def _request(user: IntArray, step: IntArray, seen: IntArray, t: IntArray) -> Histories:
    nothing = np.zeros((len(user), 1), dtype=np.int64)
    return Histories(user, step, nothing, nothing.astype(bool), seen, time=t)


Measured = dict[str, dict[str, Marginal]]
"""Marginals by feed, then by name."""


def measured(
    scenario: Scenario,
    feeds: Collection[str] = (LOGGING, RANDOM, CATALOGUE),
    replications: int = 1,
    progress: Progress = silent,
    folder: Path | None = None,
) -> Measured:
    """The marginals of a synthetic scenario by feed: its history, the clicks in it, the same users
    under random exposure, its videos.

    Args:
        scenario: synthetic.
        feeds: which to measure; a gap follows from its two feeds.
        replications: how many worlds are drawn from the scenario's parameters, under its seed and
            the seeds after it; of several, the mean of each marginal and its standard error between
            worlds. One world is what a run makes; several say whether its parameters fit, where one
            history is too short for what is rare.
        progress: told of each feed of each world.
        folder: that of the scenario, where plug-in files are looked up.

    Raises:
        CalibrationError: the data is not synthetic.
    """
    if scenario.data.source != "synthetic":
        raise CalibrationError(
            "data.source must be 'synthetic': a real log is what it is; got"
            f" {scenario.data.source!r}"
        )
    exposures = [feed for feed in (LOGGING, RANDOM, CATALOGUE) if feed in feeds]
    if CLICKS in feeds and LOGGING not in feeds:
        exposures.insert(0, LOGGING)
    n = replications * len(exposures)
    worlds: list[Measured] = []
    for r in range(replications):
        worlds.append({})
        for i, feed in enumerate(exposures):
            progress("measure the world", r * len(exposures) + i, n, {})
            seed = (scenario.seed + r) % 2**64
            worlds[r] |= _marginals(scenario, seed, feed, folder or Path(), CLICKS in feeds)
    progress("measure the world", n, n, {})
    return {
        feed: {name: _mean([world[feed][name] for world in worlds]) for name in worlds[0][feed]}
        for feed in worlds[0]
        if all(feed in world for world in worlds)
    }


def _mean(marginals: Sequence[Marginal]) -> Marginal:
    if len(marginals) == 1:
        return marginals[0]
    values = np.array([marginal.value for marginal in marginals])
    return Marginal(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def _marginals(scenario: Scenario, seed: int, feed: str, folder: Path, clicks: bool) -> Measured:
    """The marginals of one feed of the world of this seed; with those of the clicks in the logging
    policy's, where these are asked for.
    """
    if feed == CATALOGUE:
        known = synthetic_source(scenario.users, folder, seed).catalogue
        return {feed: catalogue(np.asarray(_durations(scenario, known)[1:], dtype=np.float64))}
    seen = world_log(scenario, seed, feed, folder)
    return by_feed(seen, clicks=clicks) if feed == LOGGING else {feed: measure(seen)}


def by_feed(seen: Impressions, *, clicks: bool) -> Measured:
    """The marginals of what a logging policy showed and, where they are asked for and there are
    any, of the clicks alone.
    """
    measured = {LOGGING: measure(seen)}
    if clicks and seen.click.any():
        measured[CLICKS] = measure(seen.where(seen.click))
    return measured


def world_log(
    scenario: Scenario, seed: int, feed: str, folder: Path, ahead: int = 0
) -> Impressions:
    """What the users of a synthetic scenario see and answer in its history.

    Args:
        scenario: synthetic.
        seed: of the world.
        feed: LOGGING, or RANDOM for uniformly random exposure.
        folder: that of the scenario, where plug-in files are looked up.
        ahead: further days that the logging policy goes on for.

    Raises:
        CalibrationError: the catalogue has no durations.
    """
    population = behind(scenario.users, folder)
    source = synthetic_source(scenario.users, folder, seed)
    durations = _durations(scenario, source.catalogue)
    users: Users = population.build(source, seed, scenario.days, Path())
    calls = None
    if feed == LOGGING:
        calls = _logging(scenario, source.catalogue, users, seed, folder)
    serving, days = scenario.serving, scenario.data.history_days + ahead
    scene = Scene(calls, seed, source.catalogue.n_items)
    if scenario.items is not None:
        uploads = Uploads.draw(scenario.items, source.catalogue.items["author"], seed, -days)
        people: Any = users  # of the kinds that `items` goes with
        scene = LivingScene(calls, seed, source.catalogue, uploads, people)
    memory = serving.seen or serving.history
    return expose(users, scene, days, serving.slate, durations, memory)


def _durations(scenario: Scenario, known: Catalogue) -> Any:
    durations = known.items.get("duration")
    if durations is None:
        rule = "a world is held to durations, too: its catalogue must have items['duration'] (s)"
        raise CalibrationError(f"{scenario.where(('users', 'kind'))}: {rule}")
    return durations


def _logging(scenario: Scenario, known: Catalogue, users: Users, seed: int, folder: Path) -> Calls:
    """The scenario's logging policy, as the engine serves it."""
    from simulator.serving.history import logging_policy

    logging = scenario.data.logging
    return Calls(logging_policy(logging, known, users, seed, folder), logging.policy)
