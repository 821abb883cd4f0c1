"""`abtest power`: sample size, duration and smallest detectable lift, from a log, a per-user table
or figures given by hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.cli.failure import failures
from simulator.cli.options import (
    ALTERNATIVE,
    FILE,
    LEVEL,
    METRIC_FILE,
    SAMPLES,
    SOURCE,
    WORKERS,
    written,
)
from simulator.cli.say import say
from simulator.page.terminal import show

if TYPE_CHECKING:
    from policies.base import Progress
    from simulator.log.metrics import Metric
    from simulator.stats.allocation import Costs, MethodPlan
    from simulator.stats.decision import PlannedTest
    from simulator.stats.durations import DaysNeeded
    from simulator.stats.intervals import Side
    from simulator.stats.power import Pilot
    from simulator.stats.rule import Rule
    from simulator.stats.tests import Correction
    from simulator.stats.unit_table import UnitTable
    from simulator.stats.user_days import UserDays


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
    rule: Rule
    ratio: Mapping[str, float] | None = None
    correction: Correction = "holm"
    planned: PlannedTest | None = None

    @property
    def side(self) -> Side:
        """On which side the planned test looks; by hand on that of the lift."""
        if self.planned is not None:
            return self.planned.side
        if self.rule.alternative == "two-sided":
            return "two-sided"
        return "less" if self.lift is not None and self.lift < 0 else "greater"

    def level(self, comparisons: int = 1) -> float:
        """Level of the two-sided test of one true difference among the comparisons that are asked
        for, or that is planned for the metric, or of so many; of a one-sided test that of which it
        is one side.
        """
        from simulator.stats.intervals import two_sided
        from simulator.stats.tests import level_of_one

        if self.planned is not None and not self.comparisons:
            return self.planned.level
        alpha = level_of_one(self.comparisons or comparisons, self.correction, self.rule.alpha)
        return two_sided(1.0 - alpha, self.side)


@click.command()
@click.argument("source", metavar="[RUN|LOG|TABLE]", required=False, type=SOURCE)
@click.option(
    "--metric", "metrics", multiple=True, help="Metric; repeatable; all of the source if left out."
)
@METRIC_FILE
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
    type=SAMPLES,
    default=0,
    help=(
        "Also simulate the power curve with so many samples a point: on the users of the source (of"
        " millions on 65,536), or on gamma-distributed ones."
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
    type=click.Choice(["holm", "bonferroni", "hochberg", "bh", "dunnett", "none"]),
    default="holm",
    show_default=True,
    help="Of p, as in the report; dunnett is planned as bonferroni, which needs a few more users.",
)
@LEVEL
@ALTERNATIVE
@click.option(
    "--ratio",
    "ratios",
    multiple=True,
    metavar="ARM=9",
    help=(
        "Users meant for an arm of a split, as in `abtest report`; by default as many for each. By"
        " hand arms are called control and treatment. Twins are in every arm."
    ),
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
@WORKERS
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
    abtest power users.csv --control A --metrics metrics.yaml --level 99% --alternative better
    abtest power users.csv --control A --lift 1% --ratio A=9 --ratio B=1
    """
    from simulator.cli.pilot import ExplorationWish, exploration
    from simulator.log.files import json_text, write_text
    from simulator.report import ReportError, plan_words
    from simulator.report.user_table import weight
    from simulator.run.progress import board
    from simulator.stats.rule import Rule

    names = [name for name in ExplorationWish.__dataclass_fields__ if name != "control"]
    _only(of_replay, names)
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
                say(write_text(out, json_text(found)))
        return
    roles = {name: options.pop(name) for name in ("successes", "guardrails", "directions")}
    metric_file, ratios = options.pop("metric_file"), options.pop("ratios")
    seconds = {name: options.pop(name) for name in ("fit_seconds", "user_day_seconds")}
    rule, workers = Rule(options.pop("level"), options.pop("alternative")), options.pop("workers")
    kept = ("planned", "rule", "ratio")
    asked = {n: options.pop(n) for n in Wish.__dataclass_fields__ if n not in kept}
    with failures():
        wish = Wish(**asked, rule=rule, ratio=dict(map(weight, ratios)) or None)
        methods: dict[str, MethodPlan] = {}
        left_out: dict[str, list[str]] = {}
        with board() as progress, ExitStack() as kept_open:
            if source is None:
                if metric_file is not None:
                    raise ReportError(f"--metrics {metric_file}: for tables; name one, too")
                _without_workers("figures by hand are no users")
                plans = [_by_hand(wish, **options)]
            else:
                progress("read", 0, 1, {})
                read = _read(source, wish.control, metric_file, workers, kept_open)
                progress("read", 1, 1, {})
                plans = list(
                    _from(source, read, wish, options, seconds, roles, methods, left_out, progress)
                )
        show(plan_words.blocks(plans, wish.target, wish.ratio, methods, left_out))
        if picture is not None:
            say(write_text(picture, _picture(plans, methods)))
        if out is not None:
            say(write_text(out, json_text(plans)))


def _only(of_replay: bool, explored: Sequence[str]) -> None:
    """Refuse the options that belong to the other kind of plan: they would change nothing.

    Raises:
        click.UsageError: one was given.
    """
    context = click.get_current_context()
    both = {"source", "control", "out", "of_replay"}
    for option in context.command.params:
        name = option.name or ""
        if name in both or (name in explored) == of_replay:
            continue
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            where = "is not for plans with --replay" if of_replay else "is for --replay only"
            raise click.UsageError(f"{option.opts[0]} {where}: leave it out")


def _by_hand(
    wish: Wish, mean: float | None, sd: float | None, **more: float | None
) -> dict[str, Any]:
    """A plan from the figures of the command line."""
    from simulator.stats.power import Arms, Pilot, PowerError, imagined

    if mean is None or sd is None or wish.lift is None:
        raise PowerError(
            "give a run, log or table, or the figures by hand: --mean, --sd and --lift"
        )
    pilot = Pilot(
        (wish.metrics or ("metric",))[0],
        mean,
        sd,
        more["sd_difference"],
        more["correlation"],
        arms=Arms.of(("control", "treatment"), "control", "treatment", wish.ratio),
    )
    return _plan(
        pilot, wish.lift, wish, wish.comparisons or 1, imagined(pilot) if wish.simulate else None
    )


def _from(
    source: Path,
    read: tuple[UserDays | None, UnitTable, str],
    wish: Wish,
    hand: Mapping[str, float | None],
    seconds: Mapping[str, float | None],
    roles: Mapping[str, Sequence[str]],
    methods: dict[str, MethodPlan],
    left_out: dict[str, list[str]],
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """A plan for each metric of each treatment arm of a run, log or table; those of the methods
    come into `methods`, and by reason what is not planned into `left_out`.

    Each is planned for the test that the decision makes of the metric (`decision.planned_tests`).
    """
    from simulator.log.metrics import Absolute
    from simulator.report.allocations import method_plan
    from simulator.report.plan_words import name_of
    from simulator.report.stored import encode
    from simulator.stats import durations
    from simulator.stats import power as powers
    from simulator.stats.allocation import Requirement
    from simulator.stats.decision import planned_tests

    given = [f"--{name.replace('_', '-')}" for name, value in hand.items() if value is not None]
    if given:
        raise powers.PowerError(
            f"{', '.join(given)} cannot be given with {source}: its own figures are used"
        )
    days, table, control = read
    treatments = [arm for arm in table.arms if arm != control]
    metrics = {
        name: metric
        for name, metric in _with_roles(table, roles).items()
        if name in table.numerators
    }
    planned = planned_tests(metrics, len(treatments), wish.correction, wish.target, wish.rule)
    names = wish.metrics or tuple(table.metrics)
    pairs = [(arm, name) for arm in treatments for name in names]
    people = powers.at_hand(table) if wish.simulate else None
    for done, (other, name) in enumerate(pairs):
        progress("plan", done, len(pairs), {})
        try:
            pilot = powers.pilot(table, name, control, other)
        except powers.PowerError as error:
            if wish.metrics:
                raise
            who, _, reason = str(error).partition(": ")
            of_reason = left_out.setdefault(reason, [])
            if who not in of_reason:
                of_reason.append(who)
            continue
        pilot = replace(pilot, arms=powers.Arms.of(table.arms, control, other, wish.ratio))
        why, costs = _methods(source, days, (control, other), seconds)
        worlds, same_users = ({}, False) if costs is None else _between_worlds(source, other)
        test = planned[name]
        lift = wish.lift if wish.lift is not None else powers.PUBLISHED.get(name, 0.005)
        if test.margin is not None:
            absolute = isinstance(test.margin, Absolute)
            lift = test.margin / abs(pilot.mean) if absolute else test.margin
        elif test.side != "two-sided":
            # A one-sided test asks for lifts of one sign only: `--lift` says how large.
            lift = abs(lift) if test.side == "greater" else -abs(lift)
        here = replace(wish, users=wish.users or table.n_units, planned=test)
        if not wish.comparisons:
            here = replace(here, target=test.power)
        comparisons = wish.comparisons or test.tests
        drawn_from = None if people is None else powers.population(people, name, control, other)
        had_nothing = drawn_from is not None and 0.0 in drawn_from.means
        plan = _plan(pilot, lift, here, comparisons, None if had_nothing else drawn_from)
        if had_nothing:
            plan["without_simulation"] = "an arm of the users that it draws from had nothing of it"
        plan |= {"arm": other, "role": test.role, "margin": test.margin}
        if days is not None:
            why_no_days = durations.without_duration(days, name)
            if why_no_days:
                plan["without_days"] = why_no_days
            else:
                plan["days"] = _days(days, name, (control, other), pilot, lift, here, comparisons)
        if why is not None:
            plan["methods"] = why
        if days is not None and costs is not None:
            goal = Requirement(lift, here.target, here.level(comparisons))
            of_methods = method_plan(
                days,
                name,
                (control, other),
                costs,
                goal,
                worlds.get(name),
                pilot.arms,
                same_users=same_users,
            )
            if of_methods is not None:
                methods[name_of(plan)] = of_methods
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


def _between_worlds(source: Path, arm: str) -> tuple[dict[str, float], bool]:
    """By metric, the sd of an arm's lift between the drawn worlds of a run, if it has any; and
    whether these have the same users.
    """
    from simulator import report
    from simulator.report.drawn import have_one_seed

    home = report.find(source)[1]
    content = None if report.runtime(home) is None else report.load(home)
    if content is None or content.drawn is None:
        return {}, False
    between = {row.metric: row.between for row in content.drawn.rows if row.arm == arm}
    return between, have_one_seed(content.drawn.names, content.settings)


def _picture(plans: Sequence[Mapping[str, Any]], methods: Mapping[str, MethodPlan]) -> str:
    """The frontiers of all metrics as an SVG file.

    Raises:
        PowerError: there is none.
    """
    from simulator.report import plan_words
    from simulator.report.allocations import drawn
    from simulator.stats.power import PowerError

    if not any(one.best for one in methods.values()):
        raise PowerError("--picture draws users and fits of methods, and no plan of these was made")
    return drawn(methods, {plan_words.name_of(plan): plan["lift"] for plan in plans})


def _without_workers(why: str) -> None:
    """
    Raises:
        ReportError: `--workers` was given, where it would change nothing.
    """
    from simulator.report import ReportError

    if "workers" in written():
        raise ReportError(f"--workers: for runs; {why}: leave it out")


def _read(
    source: Path,
    control: str | None,
    metric_file: Path | None,
    workers: int,
    kept_open: ExitStack,
) -> tuple[UserDays | None, UnitTable, str]:
    from simulator.log.files import looked_up
    from simulator.log.workspace import Workspace
    from simulator.report import ReportError, find
    from simulator.report import user_table as tables
    from simulator.report.metric_file import read_metrics
    from simulator.report.sentences import uses
    from simulator.run.over_parts import parts_map
    from simulator.stats import frames, units

    if not source.exists():
        where = looked_up(source)
        raise ReportError(
            f"{source}: no such file or folder{where}; give a run's folder, an event log or a"
            " per-user table"
        )
    if not tables.is_log(source):
        _without_workers(f"{source} is a table, which one process reads")
        columns, entries = ({}, {}) if metric_file is None else read_metrics(metric_file)
        with tables.of(source):
            table = frames.from_frame(
                tables.read(source), metrics=columns or None, entries=entries or None
            )
        for line in uses(table.columns):
            say(line)
        return None, table, tables.named(table, control)
    if metric_file is not None:
        raise ReportError(
            f"--metrics: for tables; {source} is a log, whose scenario declares its metrics"
        )
    log, home = find(source, inspect=False)
    parts = kept_open.enter_context(parts_map("processes", workers, home))
    days = units.read(log, inspect=True, streamed=parts).in_order(Workspace(home).declared_arms)
    name = control or log.metadata.control or days.arms[0]
    days.by("day").arm(name)
    return days, days.by("user"), name


def _plan(
    pilot: Pilot, lift: float, wish: Wish, comparisons: int, population: Any = None
) -> dict[str, Any]:
    """Need and smallest detectable lift of every design whose variance is known, with its power
    curve, as JSON types.
    """
    from simulator.report.plan_words import CURVE
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
        "side": wish.side,
        "designs": {},
    }
    is_one_sided = wish.side != "two-sided"
    for design in pilot.designs:
        need = powers.users_needed(pilot, lift, design, wish.target, level)
        known = math.isfinite(need)
        drawn = (
            powers.curve(
                pilot,
                lift,
                design,
                level=level,
                population=population,
                repetitions=wish.simulate,
                one_sided=is_one_sided,
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
    days: UserDays,
    metric: str,
    arms: tuple[str, str],
    pilot: Pilot,
    lift: float,
    wish: Wish,
    comparisons: int,
) -> dict[str, dict[str, float | None]]:
    """Days needed with the wished number of users by each design whose variance by day is known,
    with their 95% interval; None where no number of days suffices.
    """
    from simulator.stats.durations import durations

    assert wish.users is not None
    return {
        design: _of_need(duration.needed(wish.users, lift, wish.target, wish.level(comparisons)))
        for design, duration in durations(days, metric, *arms, pilot.arms).items()
    }


def _of_need(need: DaysNeeded) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in asdict(need).items()}


def _finite(n: float) -> float | None:
    return n if math.isfinite(n) else None
