"""The decision on rows and margins given by hand: every cause, and the users and fits that miss."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from simulator.log.metrics import Metric, metric
from simulator.stats import decision
from simulator.stats.decision import (
    ArmDecision,
    Decision,
    PlannedTest,
    Reason,
    chance_of_false_harm,
    decide,
    is_better,
    planned_tests,
    power_of_each,
)
from simulator.stats.margins import Margin
from simulator.stats.replication import Components
from simulator.stats.rule import Rule
from simulator.stats.verdict import Lift, noncentrality

NAN = math.nan


def of(name: str, role: str, **more: Any) -> Metric:
    return replace(metric("click"), name=name, role=role, **more)  # type: ignore[arg-type]


METRICS = {
    one.name: one
    for one in (
        of("watch", "success"),
        of("cost", "success", higher_is_better=False),
        of("returns", "guardrail", margin=0.1),
        of("latency", "guardrail", margin=0.2, higher_is_better=False),
        of("crashes", "deterioration", higher_is_better=False),
        of("logged", "quality", higher_is_better=None),
        of("seen", "exploratory"),
        of("odd", "exploratory", higher_is_better=None),
    )
}


def row(m: str, words: str = "undecided", arm: str = "new", **more: Any) -> Lift:
    """A row over a control of 10 with a difference of 1 and an error of .4."""
    p = 0.9 if words == "undecided" else 0.001
    treatment = 9.0 if words == "down" else 11.0
    one = Lift(m, arm, "user", 10.0, treatment, (treatment - 10) / 10, -1.0, 1.0, 2.0, 50.0, p, p,
               100, 0.1, 0.4, level_adjusted=0.975)  # fmt: skip
    assert one.words == words
    return replace(one, **more)


def margin(m: str, answer: str, arm: str = "new", **more: Any) -> Margin:
    one = Margin("guardrail", m, arm, 0.1, 0.0, 0.9, -1.0, 1.0, 0.5, 0.5, answer)  # type: ignore[arg-type]
    return replace(one, **more)


def reasons_of(rows: list[Lift], margins: list[Margin] = [], **more: Any) -> ArmDecision:  # noqa: B006
    made = decide(rows, margins, METRICS, **more)
    assert made is not None
    (arm,) = made.arms
    return arm


def causes(rows: list[Lift], margins: list[Margin] = [], **more: Any) -> tuple[str, list[str]]:  # noqa: B006
    arm = reasons_of(rows, margins, **more)
    return arm.answer, [f"{one.cause} {one.subject}" for one in arm.reasons]


def test_what_a_shown_difference_means_by_role_and_direction() -> None:
    silent = [("seen", "up"), ("seen", "down"), ("odd", "down"), ("crashes", "down"),
              ("returns", "up"), ("returns", "down"), ("crashes", "undecided"),
              ("logged", "undecided")]  # fmt: skip
    ship = ("ship", ["better watch"])
    better = row("watch", "up")
    assert causes([better]) == ship
    for m, words in silent:
        assert causes([better, row(m, words)]) == ship, (m, words)
    assert causes([row("cost", "down")]) == ("ship", ["better cost"])
    for m, words in (("watch", "down"), ("cost", "up"), ("crashes", "up")):
        answer, why = causes([row(m, words), row("watch", "up")])
        assert (answer, why[0]) == ("drop", f"worse {m}")
    for words in ("up", "down"):
        assert causes([better, row("logged", words)]) == (
            "hold",
            ["unsound logged", "better watch"],
        )
    assert is_better(row("odd", "up"), METRICS["odd"]) is None
    assert is_better(row("seen", "undecided"), METRICS["seen"]) is None
    assert [is_better(row("cost", words), METRICS["cost"]) for words in ("up", "down")] == [
        False, True
    ]  # fmt: skip


def test_what_a_guardrail_means() -> None:
    better, plain = row("watch", "up"), row("returns")
    assert causes([better, plain], [margin("returns", "safe")]) == ("ship", ["better watch"])
    within = causes([better, row("returns", "down")], [margin("returns", "safe")])
    assert within == ("hold", ["worse within returns", "better watch"])
    assert causes([better, row("latency", "up")], [margin("latency", "safe")]) == (
        "hold", ["worse within latency", "better watch"]
    )  # fmt: skip
    assert causes([better, row("returns", "up")], [margin("returns", "safe")])[0] == "ship"
    assert causes([better, plain], [margin("returns", "harmed")]) == (
        "drop", ["harmed returns", "better watch"]
    )  # fmt: skip
    for rows, answer in (([better, plain], "no data"), ([better], "safe"), ([better], "harmed")):
        assert causes(rows, [margin("returns", answer)]) == (
            "hold", ["unsafe returns", "better watch"]
        )  # fmt: skip
    # Of another arm, or an equivalence, nothing is asked here.
    for other in ({"arm": "other"}, {"kind": "equivalence"}):
        assert causes([better, plain], [margin("returns", "harmed", **other)])[0] == "ship"


def test_what_makes_a_test_unsound_comes_before_all() -> None:
    rows, lost = [row("watch", "down")], [margin("returns", "harmed")]
    assert causes(rows, lost, red=["ratio", "trend"]) == (
        "hold", ["red ratio", "red trend", "worse watch", "unsafe returns", "not better watch"]
    )  # fmt: skip
    assert causes(rows, unknown={"new": "one fit"})[0] == "hold"
    both = decide([row("watch", "up")], [], METRICS, unknown={"old": "one fit"}, on="methods")
    assert both == Decision("methods", (
        ArmDecision("new", "ship", (Reason("better", "watch"),)),
        ArmDecision("old", "hold", (Reason("unknown", "one fit"),)),
    ))  # fmt: skip
    assert decide([row("seen", "up")], [], {"seen": METRICS["seen"]}) is None


@pytest.mark.parametrize(
    ("answers", "whole"),
    [
        (("ship", "drop"), "ship"),
        (("drop", "drop"), "drop"),
        (("drop", "hold"), "hold"),
        (("hold",), "hold"),
    ],
)
def test_a_test_is_decided_by_its_arms(answers: tuple[str, ...], whole: str) -> None:
    arms = tuple(ArmDecision(str(i), one, ()) for i, one in enumerate(answers))  # type: ignore[arg-type]
    assert Decision("models", arms).answer == whole


def needed(distance: float, power: float, level: float, df: float = 50.0) -> float:
    return (distance / noncentrality(df, power, level)) ** 2


def test_the_users_that_a_success_misses_are_those_of_its_level_and_power() -> None:
    """One success alone, and one beside two guardrails, which each must be found."""
    for guardrails in (0, 2):
        metrics = {m: one for m, one in METRICS.items() if guardrails or one.role != "guardrail"}
        power = 1 - 0.2 / (guardrails + 1)
        made = decide([row("watch"), row("cost", difference_low=0.0)], [], metrics)
        assert made is not None
        more, hopeless = made.arms[0].reasons
        times = 0.4**2 / needed(1.0, power, 0.975)
        assert times > 1
        assert more == Reason("not better", "watch", float(math.ceil((times - 1) * 100)))
        # Of what is better low the measured difference of 1 speaks against.
        assert hopeless.subject == "cost"
        assert math.isnan(hopeless.users)
    down = row("cost", treatment_mean=9.0)
    assert reasons_of([down]).reasons[0].users > 0


def test_the_users_that_a_guardrail_misses_show_what_lies_within_its_margin() -> None:
    """Control 10 and difference 1: 2 within a margin of 10%, .5 within one of .5 in units."""
    power = power_of_each(2)
    for m, more, distance in (
        ("returns", {}, 2.0),
        ("returns", {"margin": 0.5, "absolute": True}, 1.5),
        ("latency", {"margin": 0.3}, 2.0),
        ("latency", {"margin": 1.25, "absolute": True}, 0.25),
    ):
        arm = reasons_of([row("watch", "up"), row(m, se=4.0)], [margin(m, "not shown", **more)])
        times = 16.0 / needed(distance, power, 0.9)
        users = math.ceil((times - 1) * 100) if times <= 100 else NAN
        assert arm.answer == "hold"
        assert repr(arm.reasons[0]) == repr(Reason("unsafe", m, users))
    # A control below 0 has its margin by size.
    arm = reasons_of([row("watch", "up"), row("returns", control_mean=-10.0, treatment_mean=-9.0,
                      se=4.0)], [margin("returns", "not shown")])  # fmt: skip
    assert arm.reasons[0].users == math.ceil((16 / needed(2.0, power, 0.9) - 1) * 100)


def missing(distance: float, components: Components | None = None, **more: Any) -> Reason:
    return decision._missing(
        "not better", row("watch", **more), distance, 0.8, 0.95, components
    )  # fmt: skip


def test_no_number_is_told_where_there_is_none() -> None:
    assert missing(1.0).users >= 0
    for distance, more in ((0.0, {}), (-1.0, {}), (1.0, {"se": 0.0}), (1.0, {"df": 0.5}),
                           (1.0, {"se": NAN}), (NAN, {})):  # fmt: skip
        assert repr(missing(distance, **more)) == repr(Reason("not better", "watch"))
    assert not math.isnan(missing(9.0, df=1.0).users)
    # 100 times the users there were are a number; more are none.
    at = 0.4 * noncentrality(50.0, 0.8, 0.95) / 10
    assert missing(at * 1.0001).users == pytest.approx(9900, abs=3)
    assert math.isnan(missing(at * 0.9999).users)
    # What is found already misses nobody.
    assert missing(5.0) == Reason("not better", "watch", 0.0)


def parts(users: float, fits: float, n_fits: int = 4) -> Components:
    """Of 100 users whose part of the mean's variance, and that of fits, is as given."""
    return Components(users * 100, fits * n_fits, NAN, 100.0, n_fits)


def by_search(of_users: float, of_fits: float, distance: float, n_fits: int) -> Reason:
    """Users alone, the fewest fits alone, or both, by trying every number of fits."""

    def times(n: int) -> float:
        df = 50.0 if n == n_fits else n - 1.0
        room = needed(distance, 0.8, 0.95, df) - of_fits * n_fits / n
        return of_users / room if room > 0 else math.inf

    alone = times(n_fits)
    users = max(math.ceil((alone - 1) * 100), 0.0) if alone <= 100 else NAN
    fewest = next((n for n in range(n_fits + 1, n_fits + 100) if times(n) <= 1.0), None)
    if not math.isnan(users) or fewest is not None:
        return Reason("not better", "watch", users, float(fewest - n_fits) if fewest else NAN)
    best = min(range(n_fits, n_fits + 100), key=lambda n: max(times(n), n / n_fits))
    if times(best) > 100:
        return Reason("not better", "watch")
    more = max(math.ceil((times(best) - 1) * 100), 0.0)
    return Reason("not better", "watch", more, float(best - n_fits), both=True)


@pytest.mark.parametrize("n_fits", [2, 4])
@pytest.mark.parametrize(
    ("of_users", "of_fits"),
    [(0.1, 0.01), (0.02, 0.2), (0.2, 0.2), (2.0, 2.0), (0.5, 3.0), (0.001, 9.0), (30.0, 30.0)],
)
def test_users_and_fits_that_miss_are_those_of_a_search(
    of_users: float, of_fits: float, n_fits: int
) -> None:
    for distance in (0.4, 1.0, 2.0):
        found = missing(distance, parts(of_users, of_fits, n_fits))
        assert repr(found) == repr(by_search(of_users, of_fits, distance, n_fits))


def test_fits_that_bring_nothing_or_are_one_are_not_asked_for() -> None:
    for components in (parts(0.5, 0.0), parts(0.5, 0.0, 1)):
        alone = missing(0.3, components, se=math.sqrt(0.5))
        assert math.isnan(alone.fits)
        assert repr(alone) == repr(missing(0.3, se=math.sqrt(0.5)))
    one = missing(0.5, parts(0.01, 0.5, 1))
    assert repr(one) == repr(Reason("not better", "watch"))


def test_decisions_hand_the_parts_of_an_arm_and_metric_on() -> None:
    own = {("new", "watch"): parts(0.02, 0.2), ("old", "watch"): parts(9.0, 9.0)}
    metrics = {"watch": METRICS["watch"], "returns": METRICS["returns"]}
    power = power_of_each(1)
    made = decide([row("watch"), row("returns")], [margin("returns", "not shown")], metrics,
                  components={**own, ("new", "returns"): parts(0.5, 0.3)})  # fmt: skip
    assert made is not None
    unsafe, not_better = made.arms[0].reasons
    assert repr(not_better) == repr(decision._missing(
        "not better", row("watch"), 1.0, power, 0.975, own["new", "watch"]))  # fmt: skip
    assert repr(unsafe) == repr(decision._missing(
        "unsafe", row("returns"), 2.0, power, 0.9, parts(0.5, 0.3)))  # fmt: skip


def test_the_chance_of_a_false_harm_is_that_of_every_other_test() -> None:
    """Families: two successes, two guardrails, and quality and deterioration together or apart as
    the verdict has them; of a two-sided test its worse side.
    """
    two = sum(
        0.05 * share / size
        for share, size in (
            (0.5, family("cost")), (0.5, family("returns")), (0.5, family("latency")),
            (0.5, family("crashes")), (1.0, family("logged")),
        )
    )  # fmt: skip
    assert chance_of_false_harm(METRICS, "watch") == pytest.approx(two)
    one_sided = sum(
        0.1 * share / size
        for share, size in (
            (0.0, 1), (1.0, family("returns")), (1.0, family("latency")),
            (1.0, family("crashes")), (1.0, family("logged")),
        )
    )  # fmt: skip
    assert chance_of_false_harm(METRICS, "watch", Rule(0.9, "better")) == pytest.approx(one_sided)
    assert chance_of_false_harm({"watch": METRICS["watch"]}, "watch") == 0.0


def family(name: str) -> int:
    own = decision.FAMILIES[METRICS[name].role]
    return sum(decision.FAMILIES[one.role] == own for one in METRICS.values())


def test_tests_are_planned_by_family_level_side_and_power() -> None:
    for alternative in ("two-sided", "better"):
        rule = Rule(0.9, alternative)  # type: ignore[arg-type]
        found = planned_tests(METRICS, 2, "bonferroni", 0.9, rule)
        assert list(found) == list(METRICS)
        each = 1 - 0.1 / 3
        for name, test in found.items():
            role = METRICS[name].role
            if role == "guardrail":
                side = "greater" if name == "returns" else "less"
                expected = PlannedTest(role, pytest.approx(0.8), pytest.approx(each), 1,
                                       METRICS[name].margin, side)  # fmt: skip
            else:
                side = rule.side(METRICS[name])
                tests = 2 * family(name)
                level = 1 - 0.1 / tests
                level = level if side == "two-sided" else 2 * level - 1
                power = each if role == "success" else 0.9
                expected = PlannedTest(role, pytest.approx(level), pytest.approx(power), tests,
                                       None, side)  # fmt: skip
            assert test == expected, name
    plain = planned_tests({"seen": METRICS["seen"], "returns": METRICS["returns"]}, 1)
    assert plain["returns"].power == pytest.approx(0.8), "without a success each is by itself"
    assert plain["seen"].level == pytest.approx(0.95)
    uncorrected = planned_tests({"seen": METRICS["seen"]}, 3, "none")
    assert (uncorrected["seen"].level, uncorrected["seen"].tests) == (pytest.approx(0.95), 3)
    assert [power_of_each(k) for k in (0, 1, 3)] == pytest.approx([0.8, 0.9, 0.95])
    assert power_of_each(1, 0.5) == 0.75
