"""Plans of a test in words and tables: users, fits and days that each design needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simulator.page.blocks import Block, Cell, Heading, Table, Words, columns, plain
from simulator.page.words import interval, number, percent, title, two, whole
from simulator.report import allocations

if TYPE_CHECKING:
    from simulator.stats.allocation import MethodPlan

CURVE = (0.2, 0.5, 0.8, 0.9, 0.99)
"""Powers of the curve that the terminal shows."""


def name_of(plan: Mapping[str, Any]) -> str:
    """A metric, with its arm where a source has several."""
    return plan["metric"] if not plan.get("arm") else f"{plan['metric']} of {plan['arm']}"


def blocks(
    plans: Sequence[Mapping[str, Any]],
    target: float,
    ratio: Mapping[str, float] | None,
    methods: Mapping[str, MethodPlan],
    left_out: Mapping[str, Sequence[str]],
) -> Iterator[Block]:
    """The plans for a terminal.

    Args:
        plans: of the metrics, as `abtest power --json` has them.
        target: the wished power.
        ratio: shares of the arms in a split; even if None.
        methods: users, fits and worlds, by `name_of`.
        left_out: metrics that were not planned, by the reason.
    """
    from simulator.stats.allocation import Requirement

    users = "Users are users in all, of every arm; a twin pair is one user."
    if ratio is not None:
        shares = ", ".join(f"{arm} {number(share)}" for arm, share in ratio.items())
        users += f" Splits divide them by {shares}."
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
        name = title(name_of(plan) if several else plan["metric"])
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
        if plan.get("without_simulation"):
            yield Words(f"Not simulated: {plan['without_simulation']}.", note=True)
        for design, need in plan.get("days", {}).items():
            yield Words(f"{design} with {whole(plan['users'])} users: {_days_in_words(need)}")
        if plan.get("without_days"):
            yield Words(f"Days are not planned: {plan['without_days']}.", note=True)
        of_methods = methods.get(name_of(plan))
        if of_methods is not None:
            goal = Requirement(plan["lift"], plan["target"], plan["level"])
            yield from allocations.blocks(
                name_of(plan) if several else plan["metric"], of_methods, goal
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

    for why, names in left_out.items():
        yield Words(f"Not planned: {', '.join(map(title, names))}: {why}.")


def _days_in_words(need: Mapping[str, float | None]) -> str:
    """Days with their interval."""
    never = "no number of days is enough"
    low, high = (need[end] for end in ("low", "high"))
    if need["days"] is None:
        if low is None:
            return f"{never}, users differ too much"
        return f"{never} ({_some_days(low)}, at least), users differ too much"
    between = f"{whole(low or 1)} to {whole(high)}"
    if high is None:
        between = f"{whole(low or 1)}, or {never}"
    return f"{_some_days(need['days'])} ({between})"


def _some_days(days: float) -> str:
    return f"{whole(days)} {'day' if days == 1 else 'days'}"


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
    if not plans:
        return "No test is planned"
    one = plans[0]
    sides = {plan["side"] == "two-sided" for plan in plans}
    test = {True: "Two-sided test", False: "One-sided test"}[sides.pop()]
    if sides:
        test = "One-sided tests (two-sided of metrics whose direction is not known)"
    test = f"{test} at {100 * _alpha(one):.3g}%"
    if one["comparisons"] == 1 or one["correction"] == "none":
        return test
    names = {
        "holm": "Holm",
        "bonferroni": "Bonferroni",
        "hochberg": "Hochberg",
        "bh": "Benjamini-Hochberg",
        "dunnett": "Dunnett (planned as Bonferroni)",
    }
    return (
        f"{test} after {names[one['correction']]} over {one['comparisons']}"
        " comparisons (--comparisons)"
    )


def _alpha(plan: Mapping[str, Any]) -> float:
    """The error of the whole family, from the level of one test of it."""
    one = (1.0 - plan["level"]) / (1.0 if plan["side"] == "two-sided" else 2.0)
    return float(one * (1 if plan["correction"] == "none" else plan["comparisons"]))


def _test_of(plan: Mapping[str, Any]) -> str:
    """The test of a metric with a role."""
    one_side = percent((1 - plan["level"]) / 2, 1, sign=False)
    if plan.get("margin") is not None:
        return f"one-sided at {one_side} against its margin"
    if plan["side"] != "two-sided":
        return f"one-sided at {one_side}"
    return f"two-sided at {percent(1 - plan['level'], 1, sign=False)}"


def _count(n: float | None) -> str:
    return "more than 10^15" if n is None else whole(n)
