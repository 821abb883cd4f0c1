"""`abtest power --replay`: how much exploration an off-policy lift takes, from a pilot log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.page.blocks import Block, Cell, Heading, Table, Words, columns, plain
from simulator.page.words import number, percent, whole

if TYPE_CHECKING:
    from policies.base import Progress
    from simulator.offpolicy.exploration import ExplorationPilot, ExplorationPlan


@dataclass(frozen=True)
class ExplorationWish:
    """What is asked of `abtest power --replay`.

    Attributes:
        policy: whose lift is wanted.
        control: over whom; None: the policy that wrote the log.
        logging: other policies that could log.
        width: half-width of the 95% interval of the lift, a fraction.
        pilot_days: the last days of the log, which are the pilot.
        traffic: requests a day of all users; None: as many as the pilot has.
        reward: what is counted.
    """

    policy: str | None
    control: str | None
    logging: tuple[str, ...]
    width: float | None
    pilot_days: int
    traffic: float | None
    reward: str


def exploration(
    source: Path, wish: ExplorationWish, progress: Progress
) -> tuple[list[Block], dict[str, Any]]:
    """The plan as blocks of a document, and as JSON types.

    Raises:
        ReplayError: no policy or width is given, or the log cannot be planned from.
    """
    from simulator.offpolicy.exploration import explore_pilot
    from simulator.offpolicy.jobs import ReplayOptions, replay_log
    from simulator.offpolicy.settings import ReplayError
    from simulator.offpolicy.target_fits import Wanted
    from simulator.report import find
    from simulator.report.stored import encode

    if wish.policy is None or wish.width is None:
        raise ReplayError(
            "--replay: give --policy NAME, whose lift is wanted, and --width, half of its interval"
            " (2%)"
        )
    if not wish.width > 0:
        raise ReplayError(f"--width: must be above 0; got {wish.width:g}")
    named = [wish.policy, *([wish.control] if wish.control else []), *wish.logging]
    log, _ = find(source)
    options = ReplayOptions(wish.reward, test_days=wish.pilot_days, recall=0)
    job = replay_log(source.name, log, list(map(Wanted.parse, named)), options, progress)
    by_name = dict(zip(named, job.targets, strict=True))
    stored = job.stream.log.metadata
    pilot = explore_pilot(
        job.stream,
        by_name[wish.policy],
        by_name[wish.control] if wish.control else None,
        [by_name[name] for name in wish.logging],
        stored.n_users,
        stored.n_items,
    )
    plans = pilot.plans(wish.width, traffic=wish.traffic)
    found = {**encode(pilot), "half_width": wish.width, "plans": encode(plans)}
    return _blocks(pilot, plans, wish.width, wish.reward), found


def _blocks(
    pilot: ExplorationPilot, plans: Sequence[ExplorationPlan], width: float, reward: str
) -> list[Block]:
    blocks: list[Block] = [
        Heading(_answer(pilot, plans, width), loud=True),
        Words(
            f"Pilot: {pilot.rounds:,} requests of {pilot.days} days; the lift of {pilot.target}"
            f" over {pilot.control} by {pilot.estimator}.",
            note=True,
        ),
    ]
    options = [
        (
            plain(one.logging),
            Cell(percent(one.lift, 1), one.lift),
            Cell(f"±{percent(1.96 * one.error, 1, sign=False)}", one.error),
            Cell(number(one.value), one.value),
            Cell(number(one.control), one.control),
        )
        for one in pilot.options
        if not one.refused
    ]
    heads = ("Logging policy", "Lift", "In the pilot's size", f"{reward} a request", "Control")
    blocks.append(Table("Logging policies", columns(*heads), options))
    blocks += [
        Words(f"{one.logging}: not planned: {one.refused}.", note=True)
        for one in pilot.options
        if one.refused
    ]
    rows = [
        (
            plain(one.logging),
            plain(one.days, one.days),
            Cell(_share(one.share), one.share),
            Cell(whole(one.requests), one.requests),
            Cell(whole(one.cost), one.cost),
            Cell(percent(one.cost_share, 2, sign=False), one.cost_share),
        )
        for one in plans
    ]
    costs = (f"Cost, {reward}", "Of all")
    in_order = columns("Logging policy", "Days", "Share of traffic", "Requests", *costs)
    blocks.append(Table("Plans", in_order, rows))
    return blocks


def _share(share: float) -> str:
    return percent(share, 1, sign=False) if share <= 1.0 else "more than all"


def _answer(pilot: ExplorationPilot, plans: Sequence[ExplorationPlan], width: float) -> str:
    """The cheapest plan that there is traffic for."""
    wanted = f"A lift of {pilot.target} to within ±{percent(width, 1, sign=False)}"
    possible = [one for one in plans if one.share <= 1.0]
    if not possible:
        longest = min(plans, key=lambda one: one.share)
        return (
            f"{wanted}: not with all traffic of {longest.days} days; it would take"
            f" {longest.share:.1f} times as much."
        )
    best = min(possible, key=lambda one: (one.cost, one.days))
    return (
        f"{wanted} costs least with {best.logging} on {_share(best.share)} of the traffic for"
        f" {best.days} days: {whole(best.requests)} requests, {whole(best.cost)} rewards lost"
        f" ({percent(best.cost_share, 2, sign=False)} of all)."
    )
