"""`abtest power`: sample size, duration and smallest detectable lift, from a log, a per-user table
or figures given by hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.cli.failure import failures
from simulator.cli.options import FILE, SOURCE
from simulator.cli.say import say
from simulator.page.blocks import Block, Cell, Heading, Table, Words, columns, plain
from simulator.page.terminal import show
from simulator.page.words import interval, number, percent, title, two, whole

if TYPE_CHECKING:
    from policies.base import Progress
    from simulator.log.metrics import Metric
    from simulator.stats.allocation import Costs, MethodPlan
    from simulator.stats.decision import PlannedTest
    from simulator.stats.power import Pilot
    from simulator.stats.tests import Correction
    from simulator.stats.units import UnitTable, UserDays


CURVE = (0.2, 0.5, 0.8, 0.9, 0.99)
"""Powers of the curve that the terminal shows."""


class Percent(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A fraction, written 0.017% or 0.00017."""

    name = "lift"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            text = str(value).strip()
            fraction = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"a lift is written 0.5% or 0.005; got {value!r}", param, ctx)
        if not math.isfinite(fraction) or fraction == 0:
            self.fail(f"a lift must be a number other than 0; got {value!r}", param, ctx)
        return fraction


@dataclass(frozen=True)
class Wish:
    """What is asked for, whatever the source."""

    metrics: tuple[str, ...]
    lift: float | None
    users: int | None
    target: float
    simulate: int
    control: str | None
    comparisons: int | None
    correction: Correction = "holm"
    planned: PlannedTest | None = None

    def level(self, comparisons: int = 1) -> float:
        """Level of the two-sided test of one true difference among the comparisons that are asked
        for, or that is planned for the metric, or of so many.
        """
        from simulator.stats.tests import level_of_one

        if self.planned is not None and not self.comparisons:
            return self.planned.level
        return 1.0 - level_of_one(self.comparisons or comparisons, self.correction)


@click.command()
@click.argument("source", metavar="[RUN|LOG|TABLE]", required=False, type=SOURCE)
@click.option(
    "--metric", "metrics", multiple=True, help="Metric; repeatable; all of the source if left out."
)
@click.option(
    "--lift",
    type=Percent(),
    help="Relative lift to be found, e.g. 0.5%; the published one of each metric if left out.",
)
@click.option(
    "--users",
    type=click.IntRange(8),
    help="Users for the smallest detectable lift; those of the source if left out.",
)
@click.option(
    "--target", type=click.FloatRange(0.5, 0.999), default=0.8, show_default=True, help="Power."
)
@click.option(
    "--simulate",
    type=click.IntRange(0),
    default=0,
    help=(
        "Also simulate the power curve with so many samples a point: on the users of the source, or"
        " on gamma-distributed ones."
    ),
)
@click.option("--mean", type=float, help="By hand: control mean per user.")
@click.option("--sd", type=float, help="By hand: standard deviation of a user's value.")
@click.option(
    "--sd-difference",
    type=float,
    help="By hand: standard deviation of the difference of a user's twins.",
)
@click.option(
    "--correlation", type=float, help="By hand: correlation of a user's value with the pre-period."
)
@click.option("--control", help="Control arm; as the source says if left out.")
@click.option(
    "--comparisons",
    type=click.IntRange(1),
    help=(
        "Metrics times treatment arms that the verdict will be corrected for; those of the source,"
        " 1 by hand."
    ),
)
@click.option(
    "--correction",
    type=click.Choice(["holm", "hochberg", "bh", "none"]),
    default="holm",
    show_default=True,
    help="Of p, as in the report.",
)
@click.option(
    "--success",
    "successes",
    multiple=True,
    metavar="METRIC",
    help="What the change is made for, as in `abtest report`; by default as a log says.",
)
@click.option(
    "--guardrail",
    "guardrails",
    multiple=True,
    metavar="METRIC=1%",
    help="A metric that must be shown not to get worse by so much (20abs: in its own units).",
)
@click.option(
    "--better",
    "directions",
    multiple=True,
    metavar="METRIC=lower",
    help="Is lower or higher better? As in `abtest report`.",
)
@click.option(
    "--fit-seconds",
    type=click.FloatRange(0, min_open=True),
    help="CPU seconds of one more fit of every arm; measured by the run if left out.",
)
@click.option(
    "--user-day-seconds",
    type=click.FloatRange(0, min_open=True),
    help="CPU seconds of one user's day in all arms; measured by the run if left out.",
)
@click.option(
    "--picture",
    type=FILE,
    help="Of a run with several fits: CPU time by number of fits, as an SVG file.",
)
@click.option(
    "--out",
    type=FILE,
    help="Write figures and power curves as JSON.",
)
@click.option(
    "--replay",
    "of_replay",
    is_flag=True,
    help="Plan exploration for an off-policy lift, from LOG as a pilot with known propensities.",
)
@click.option("--policy", metavar="NAME[:params]", help="With --replay: whose lift is wanted.")
@click.option(
    "--logging",
    multiple=True,
    metavar="NAME[:params]",
    help="With --replay: another policy that could log, such as `explore:{...}`; repeatable.",
)
@click.option("--width", type=Percent(), help="With --replay: half of the lift's interval, as 2%.")
@click.option(
    "--pilot-days",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="With --replay: the last days of LOG, which are the pilot.",
)
@click.option(
    "--traffic",
    type=click.FloatRange(0, min_open=True),
    help="With --replay: requests a day of all users; those of the pilot if left out.",
)
@click.option(
    "--reward", default="click", show_default=True, help="With --replay: what is counted."
)
def power(
    source: Path | None,
    picture: Path | None,
    out: Path | None,
    of_replay: bool,
    **options: Any,
) -> None:
    """How many users or days a lift needs, and the smallest lift that given users can show, for
    twins, splits and adjusted splits. From a run with several fits also: how many users and fits
    show a lift of the methods at the least CPU time. With --replay: which share of traffic, for how
    many days, under which logging policy gives an off-policy lift of a wanted width, and its cost.

    \b
    abtest power runs/kuaishou_like/latest --lift 0.5%
    abtest power --mean 7500 --sd 6000 --correlation 0.7 --lift 0.017%
    abtest power --mean 7500 --sd 6000 --lift 0.5% --comparisons 9
    abtest power users.csv --control A --success revenue --guardrail latency=2% --lift 1%
    abtest power runs/pilot --replay --policy explore:policy=itemknn --width 2%
    """
    from simulator.cli.pilot import ExplorationWish, exploration
    from simulator.log.files import write_text
    from simulator.run.progress import board

    names = [name for name in ExplorationWish.__dataclass_fields__ if name != "control"]
    explored = {name: options.pop(name) for name in names}
    if of_replay:
        wanted = ExplorationWish(control=options["control"], **explored)
        with failures():
            if source is None:
                raise click.UsageError("--replay: give a LOG, which is the pilot")
            with board() as progress:
                shown, found = exploration(source, wanted, progress)
            show(shown)
            if out is not None:
                say(write_text(out, json.dumps(found, indent=1) + "\n"))
        return
    roles = {name: options.pop(name) for name in ("successes", "guardrails", "directions")}
    asked = (name for name in Wish.__dataclass_fields__ if name != "planned")
    wish = Wish(**{name: options.pop(name) for name in asked})
    seconds = {name: options.pop(name) for name in ("fit_seconds", "user_day_seconds")}
    with failures():
        methods: dict[str, MethodPlan] = {}
        with board() as progress:
            if source is None:
                plans = [_by_hand(wish, **options)]
            else:
                plans = list(_from(source, wish, options, seconds, roles, methods, progress))
        show(blocks(plans, wish, methods))
        if picture is not None:
            say(write_text(picture, _picture(plans, methods)))
        if out is not None:
            say(write_text(out, json.dumps(plans, indent=1, allow_nan=False) + "\n"))


def _by_hand(
    wish: Wish, mean: float | None, sd: float | None, **more: float | None
) -> dict[str, Any]:
    """A plan from the figures of the command line."""
    from simulator.stats.power import Pilot, PowerError, imagined

    if mean is None or sd is None or wish.lift is None:
        raise PowerError(
            "give a run, log or table, or the figures by hand: --mean, --sd and --lift"
        )
    pilot = Pilot(
        (wish.metrics or ("metric",))[0], mean, sd, more["sd_difference"], more["correlation"]
    )
    return _plan(
        pilot, wish.lift, wish, wish.comparisons or 1, imagined(pilot) if wish.simulate else None
    )


def _from(
    source: Path,
    wish: Wish,
    hand: Mapping[str, float | None],
    seconds: Mapping[str, float | None],
    roles: Mapping[str, Sequence[str]],
    methods: dict[str, MethodPlan],
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """A plan for each metric of each treatment arm of a run, log or table; those of the methods
    come into `methods`.

    Each is planned for the test that the decision makes of the metric (`decision.planned_tests`).
    """
    from simulator.log.metrics import Absolute
    from simulator.report.allocations import method_plan
    from simulator.report.stored import encode
    from simulator.stats import power as powers
    from simulator.stats.allocation import Requirement
    from simulator.stats.decision import planned_tests

    given = [f"--{name.replace('_', '-')}" for name, value in hand.items() if value is not None]
    if given:
        raise powers.PowerError(
            f"{', '.join(given)} cannot be given with {source}: its own figures are used"
        )
    progress("read", 0, 1, {})
    days, table, control = _read(source, wish.control)
    progress("read", 1, 1, {})
    treatments = [arm for arm in table.arms if arm != control]
    metrics = {
        name: metric
        for name, metric in _with_roles(table, roles).items()
        if name in table.numerators
    }
    planned = planned_tests(metrics, len(treatments), wish.correction, wish.target)
    names = wish.metrics or tuple(table.numerators)
    pairs = [(arm, name) for arm in treatments for name in names]
    for done, (other, name) in enumerate(pairs):
        progress("plan", done, len(pairs), {})
        try:
            pilot = powers.pilot(table, name, control, other)
        except powers.PowerError:
            if wish.metrics:
                raise
            continue
        why, costs = _methods(source, days, (control, other), seconds)
        worlds = {} if costs is None else _between_worlds(source, other)
        test = planned[name]
        lift = wish.lift if wish.lift is not None else powers.PUBLISHED.get(name, 0.005)
        if test.margin is not None:
            absolute = isinstance(test.margin, Absolute)
            lift = test.margin / abs(pilot.mean) if absolute else test.margin
        here = replace(wish, users=wish.users or table.n_units, planned=test)
        if not wish.comparisons:
            here = replace(here, target=test.power)
        comparisons = wish.comparisons or test.tests
        plan = _plan(
            pilot,
            lift,
            here,
            comparisons,
            powers.population(table, name, control, other) if wish.simulate else None,
        )
        plan |= {"arm": other, "role": test.role, "margin": test.margin}
        if days is not None and days.switched is None:
            plan["days"] = _days(days, name, (control, other), lift, here, comparisons)
        if why is not None:
            plan["methods"] = why
        if days is not None and costs is not None:
            goal = Requirement(lift, here.target, here.level(comparisons))
            of_methods = method_plan(days, name, (control, other), costs, goal, worlds.get(name))
            if of_methods is not None:
                methods[_of(plan)] = of_methods
                plan["methods"] = encode(of_methods)
        yield plan
    progress("plan", len(pairs), len(pairs), {})


def _with_roles(table: UnitTable, roles: Mapping[str, Sequence[str]]) -> Mapping[str, Metric]:
    """The metrics of a source with the roles of the command line.

    Raises:
        ReportError, MetricError: a role that cannot be.
    """
    from simulator.log.metrics import declarations, declared
    from simulator.report import user_table as tables
    from simulator.stats.margins import Margins
    from simulator.stats.margins import planned as with_margins

    better = tables.by_name("--better", roles["directions"], tables.direction)
    successes = tables.by_role({"success": roles["successes"]})
    metrics = declared(table.metrics, declarations(better, successes))
    margins = Margins(tables.by_name("--guardrail", roles["guardrails"], tables.bound))
    return with_margins(metrics, margins)[0]


def _of(plan: Mapping[str, Any]) -> str:
    """A metric, with its arm where a source has several."""
    return plan["metric"] if not plan.get("arm") else f"{plan['metric']} of {plan['arm']}"


def _methods(
    source: Path,
    days: UserDays | None,
    arms: tuple[str, str],
    seconds: Mapping[str, float | None],
) -> tuple[str | None, Costs | None]:
    """Why no plan of the methods can be made, in words; or what fits and users cost. Neither of a
    table, which knows no fits.
    """
    from simulator.report import allocations, find, runtime
    from simulator.stats.methods import unknown

    if days is None or days.switched is not None:
        return None, None
    why = unknown(days, *arms)
    if why is not None:
        return f"not known: {why}; `fits: 4` in the scenario tells what training brings", None
    if set(arms) <= days.fitted_once or not days.fits:
        return None, None
    costs = allocations.costs(days, runtime(find(source)[1]), **seconds)
    if costs is None:
        return (
            "not planned: the run's report.json does not say what a fit and a user's day cost; give"
            " --fit-seconds and --user-day-seconds"
        ), None
    return None, costs


def _between_worlds(source: Path, arm: str) -> dict[str, float]:
    """By metric, the sd of an arm's lift between the drawn worlds of a run, if it has any."""
    from simulator import report

    home = report.find(source)[1]
    if report.runtime(home) is None:
        return {}
    drawn = report.load(home).drawn
    rows = () if drawn is None else drawn.rows
    return {row.metric: row.between for row in rows if row.arm == arm}


def _picture(plans: Sequence[Mapping[str, Any]], methods: Mapping[str, MethodPlan]) -> str:
    """The frontiers of all metrics as an SVG file.

    Raises:
        PowerError: there is none.
    """
    from simulator.report.allocations import drawn
    from simulator.stats.power import PowerError

    if not any(one.best for one in methods.values()):
        raise PowerError("--picture draws users and fits of methods, and no plan of these was made")
    return drawn(methods, {_of(plan): plan["lift"] for plan in plans})


def _read(source: Path, control: str | None) -> tuple[UserDays | None, UnitTable, str]:
    from simulator.log.files import looked_up
    from simulator.log.workspace import Workspace
    from simulator.report import ReportError, find
    from simulator.report import user_table as tables
    from simulator.report.sentences import uses
    from simulator.stats import frames, units

    if not source.exists():
        where = looked_up(source)
        raise ReportError(
            f"{source}: no such file or folder{where}; give a run's folder, an event log or a"
            " per-user table"
        )
    if not tables.is_log(source):
        with tables.of(source):
            table = frames.from_frame(tables.read(source))
        for line in uses(table.columns):
            say(line)
        return None, table, tables.named(table, control)
    log, home = find(source)
    days = units.read(log).in_order(Workspace(home).declared_arms)
    name = control or log.metadata.control or days.arms[0]
    days.by("day").arm(name)
    return days, days.by("user"), name


def _plan(
    pilot: Pilot, lift: float, wish: Wish, comparisons: int, population: Any = None
) -> dict[str, Any]:
    """Need and smallest detectable lift of every design whose variance is known, with its power
    curve, as JSON types.
    """
    from simulator.stats import power as powers

    published, level = powers.PUBLISHED.get(pilot.metric) == lift, wish.level(comparisons)
    found: dict[str, Any] = {
        **asdict(pilot),
        "lift": lift,
        "published": published,
        "users": wish.users,
        "target": wish.target,
    }
    found |= {
        "comparisons": comparisons,
        "correction": wish.correction,
        "level": level,
        "designs": {},
    }
    for design in pilot.designs:
        need = powers.users_needed(pilot, lift, design, wish.target, level)
        known = math.isfinite(need)
        drawn = (
            powers.curve(
                pilot, lift, design, level=level, population=population, repetitions=wish.simulate
            )
            if known
            else None
        )
        found["designs"][design] = {
            "users_needed": need if known else None,
            "users_needed_ends": _ends(need, pilot.log_errors.get(design)) if known else None,
            "by_power": (
                {
                    f"{t:g}": _finite(powers.users_needed(pilot, lift, design, t, level))
                    for t in CURVE
                }
                if known
                else None
            ),
            "detectable": (
                powers.detectable(pilot, wish.users, design, wish.target, level)
                if wish.users
                else None
            ),
            "curve": None if drawn is None else asdict(drawn),
        }
    return found


def _ends(need: float, log_error: float | None) -> tuple[float, float] | None:
    """The 95% interval of the users needed, as far as the pilot's users leave it open."""
    if log_error is None:
        return None
    factor = math.exp(1.959963984540054 * log_error)
    return need / factor, need * factor


def _days(
    days: UserDays, metric: str, arms: tuple[str, str], lift: float, wish: Wish, comparisons: int
) -> dict[str, float | None]:
    """Days needed with the wished number of users, twins and split; None where no number of days
    suffices or nothing can be said.

    Where nothing lasts but noise, a component is 0 by chance. A split needs at least what twins
    need, since (t - c)^2 <= 2 (t^2 + c^2): so its components are no less than theirs.
    """
    from simulator.stats import power as powers

    found: dict[str, float | None] = {}
    designs: dict[str, str | None] = (
        {"paired": arms[1], "split": None} if days.assigned is None else {"split": None}
    )
    of_twins = powers.Days(0.0, 0.0)
    for design, treatment in designs.items():
        parts = powers.days_components(days, metric, arms[0], treatment)
        if parts is not None and wish.users is not None:
            parts = of_twins = parts.at_least(of_twins)
            need = parts.needed(wish.users, lift, wish.target, wish.level(comparisons))
            found[design] = need if math.isfinite(need) else None
    return found


def blocks(
    plans: Sequence[Mapping[str, Any]], wish: Wish, methods: Mapping[str, MethodPlan]
) -> Iterator[Block]:
    """The plans for a terminal."""
    from simulator.report import allocations
    from simulator.stats.allocation import Requirement

    target = wish.target
    users = "Users are users in all; a twin pair is one user."
    if any(plan.get("role", "exploratory") != "exploratory" for plan in plans):
        yield Words(
            "Each metric is planned for the test that the decision makes of it, with the power that"
            f" it needs for a decision with power {percent(target, 0, sign=False)}. {users}"
        )
    else:
        yield Words(f"{_rule(plans)}, power {percent(target, 0, sign=False)}. {users}")
    for plan in plans:
        what = f"a lift of {percent(plan['lift'])}"
        if plan.get("margin") is not None:
            what = f"a loss of {percent(plan['lift'], sign=False)} excluded"
        several = len({one.get("arm") for one in plans}) > 1
        name = title(_of(plan) if several else plan["metric"])
        yield Heading(f"{name}: {what}")
        if plan.get("role", "exploratory") != "exploratory":
            yield Words(
                f"{plan['role']}: {_test_of(plan)}, power {percent(plan['target'], 1, sign=False)}",
                note=True,
            )
        known = [f"mean {number(plan['mean'])}", f"sd {number(plan['sd'])}"]
        if plan["sd_difference"] is not None:
            known.append(f"sd of twins' difference {number(plan['sd_difference'])}")
        if plan["correlation"] is not None:
            known.append(f"correlation with the pre-period {two(plan['correlation'])}")
        yield Words(", ".join(known), note=True)
        yield _needs(plan)
        simulated = [
            (
                plain(design),
                plain(whole(n)),
                plain(percent(rate["value"], 1, sign=False)),
                plain(interval(rate["low"], rate["high"], 1, sign=False)),
            )
            for design, figures in plan["designs"].items()
            for n, rate in (figures["curve"] or {}).get("simulated", ())
        ]
        if simulated:
            heads = columns("simulated", "users", "power", "95% interval")
            yield Table("Simulated power", heads, simulated)
        for design, need in plan.get("days", {}).items():
            days = "no number of days is enough, users differ too much"
            if need is not None:
                days = f"{whole(need)} {'day' if need == 1 else 'days'}"
            yield Words(f"{design} with {whole(plan['users'])} users: {days}")
        of_methods = methods.get(_of(plan))
        if of_methods is not None:
            goal = Requirement(plan["lift"], plan["target"], plan["level"])
            yield from allocations.blocks(
                _of(plan) if several else plan["metric"], of_methods, goal
            )
        elif plan.get("methods"):
            yield Words(f"Of the methods: {plan['methods']}.")
        if plan["published"]:
            needs = " or ".join(
                f"{_count(f['users_needed'])} ({d})" for d, f in plan["designs"].items()
            )
            yield Words(
                f"To see the paper's {percent(plan['lift'])} {title(plan['metric']).lower()} you"
                f" would need {needs} users."
            )


def _needs(plan: Mapping[str, Any]) -> Table:
    """The users that each design needs, at the wished power and at others, and the smallest lift
    that given users show.
    """
    from simulator.stats.power import PLANS

    designs = plan["designs"]
    shows = any(figures["detectable"] is not None for figures in designs.values())
    heads = ["design", "users needed", *(f"at {percent(power, 0, sign=False)}" for power in CURVE)]
    if shows:
        heads.append(f"{whole(plan['users'])} users show")
    rows = []
    for design, figures in designs.items():
        by_power = figures["by_power"] or {}
        ends = figures["users_needed_ends"]
        between = "" if ends is None else f" ({_count(ends[0])} to {_count(ends[1])})"
        cells = [_count(figures["users_needed"]) + between]
        cells += [_count(by_power.get(f"{power:g}")) for power in CURVE]
        if shows:
            cells.append(percent(figures["detectable"], 2, sign=False))
        name = Cell(design, under=PLANS[design].words)
        rows.append((name, *map(plain, cells)))
    return Table("Users needed", columns(*heads), rows)


def _rule(plans: Sequence[Mapping[str, Any]]) -> str:
    """The test that is planned for, as the verdict of a report makes it."""
    if not plans or plans[0]["comparisons"] == 1 or plans[0]["correction"] == "none":
        return "Two-sided test at 5%"
    one = plans[0]
    names = {"holm": "Holm", "hochberg": "Hochberg", "bh": "Benjamini-Hochberg"}
    return (
        f"Two-sided test at 5% after {names[one['correction']]} over {one['comparisons']}"
        " comparisons (--comparisons)"
    )


def _test_of(plan: Mapping[str, Any]) -> str:
    """The test of a metric with a role."""
    if plan.get("margin") is not None:
        return f"one-sided at {percent((1 - plan['level']) / 2, 1, sign=False)} against its margin"
    return f"two-sided at {percent(1 - plan['level'], 1, sign=False)}"


def _finite(n: float) -> float | None:
    return n if math.isfinite(n) else None


def _count(n: float | None) -> str:
    return "more than 10^15" if n is None else whole(n)
