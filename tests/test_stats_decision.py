"""Ship, hold or drop: the rule holds the error rates that it promises, intervals agree with
verdicts, and what is missing would be enough.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from simulator.log.metrics import Absolute, Declared, MetricError, declared, metric
from simulator.report.sentences import in_words
from simulator.stats import tests
from simulator.stats.decision import Answer, Decision, decide, evidence, power_of_each
from simulator.stats.frames import from_frame
from simulator.stats.joint import JointLaw
from simulator.stats.margins import Margins, answer_margins, planned
from simulator.stats.moments import Moments
from simulator.stats.replication import Components
from simulator.stats.tests import Correction
from simulator.stats.unit_table import UnitTable
from simulator.stats.verdict import Lift, Uncorrected, in_family, lifts, noncentrality

N = 400
"""Users an arm of the simulated tests."""

ROLES = {
    "watch": Declared("higher", "success"),
    "clicks": Declared("higher", "success"),
    "latency": Declared("lower", "guardrail", 0.05),
    "returns": Declared("higher", "guardrail", 0.05),
    "crashes": Declared("lower", "deterioration"),
    "logged": Declared(None, "quality"),
}
SPREAD = {
    "watch": 0.5, "clicks": 0.5, "latency": 0.2, "returns": 0.2, "crashes": 0.5, "logged": 0.5
}  # fmt: skip
"""Standard deviations of metrics whose mean is 1."""

ERROR = 0.2 * math.sqrt(2 / N)
"""Standard error of the lift of a guardrail: its margin is 3.5 of it."""


def split(frame: pd.DataFrame, roles: Mapping[str, Declared]) -> UnitTable:
    table = from_frame(frame)
    return replace(table, metrics=declared(table.metrics, roles))


def draw(
    repetitions: int, moved: Mapping[str, float], arms: int = 1, seed: int = 8
) -> Iterator[UnitTable]:
    """Tests of normal metrics, of mean 1 in the control and 1 + moved in every treatment."""
    random = np.random.default_rng(seed)
    names = ("control", *(f"new{i}" for i in range(1, arms + 1)))
    n = N * len(names)
    assigned = np.arange(n) % len(names)
    frame = pd.DataFrame({"user": np.arange(n), "arm": np.array(names)[assigned]})
    base = split(frame.assign(**dict.fromkeys(ROLES, 1.0)), ROLES)
    for _ in range(repetitions):
        columns = {
            name: random.normal(1.0 + moved.get(name, 0.0) * (assigned > 0), SPREAD[name])
            for name in ROLES
        }
        yield replace(base, numerators=columns)


def decide_table(table: UnitTable, red: Sequence[str] = ()) -> Decision | None:
    return decide(*evidence(table, "control"), red=red)


def count_answers(tables: Iterable[UnitTable]) -> dict[str, Counter[Answer]]:
    """How often each arm is shipped, held and dropped."""
    counts: dict[str, Counter[Answer]] = defaultdict(Counter)
    for table in tables:
        decision = decide_table(table)
        assert decision is not None
        for one in decision.arms:
            counts[one.arm][one.answer] += 1
    return counts


def at_most(count: int, repetitions: int, share: float) -> bool:
    """Whether a count is within the Monte-Carlo error of a share that it should not exceed."""
    return count <= stats.binom.ppf(0.9999, repetitions, share)


@pytest.mark.parametrize("arms", [1, 2])
def test_where_nothing_differs_hardly_an_arm_ships(arms: int) -> None:
    repetitions = 400 // arms
    counts = count_answers(draw(repetitions, {}, arms))
    assert at_most(sum(own["ship"] for own in counts.values()), repetitions, 0.025)
    assert at_most(sum(own["drop"] for own in counts.values()), repetitions, 0.05)


@pytest.mark.parametrize(("harmed", "by"), [("returns", -0.05), ("latency", 0.05)])
def test_a_guardrail_that_loses_its_margin_ships_in_five_of_a_hundred(
    harmed: str, by: float
) -> None:
    """The successes are certain: without the guardrail the arm would always ship."""
    counts = count_answers(draw(400, {"watch": 0.5, "clicks": 0.5, harmed: by}))
    assert at_most(counts["new1"]["ship"], 400, 0.05)
    assert not at_most(counts["new1"]["ship"], 400, 0.001), "the level is used"
    assert counts["new1"]["drop"] < 400 * 0.1


def test_a_success_at_its_detectable_lift_ships_with_the_promised_power() -> None:
    """Each of the success and the two guardrails has the power that `power_of_each` asks for."""
    each = power_of_each(2)
    assert each == pytest.approx(1 - 0.2 / 3)
    error = 0.5 * math.sqrt(2 / N)
    lift = noncentrality(2.0 * N - 2, each, 1 - 0.05 / 2) * error
    assert noncentrality(2.0 * N - 2, each, 0.9) * ERROR < 0.05
    counts = count_answers(draw(400, {"watch": lift}))
    assert not at_most(counts["new1"]["ship"], 400, 0.7)
    assert at_most(400 - counts["new1"]["ship"], 400, 0.2 + 0.025)


@pytest.mark.parametrize(
    ("moved", "answer", "cause"),
    [
        ({"watch": 0.5}, "ship", "better"),
        ({"watch": 0.5, "latency": 0.2}, "drop", "harmed"),
        ({"watch": 0.5, "latency": -0.2}, "ship", "better"),
        ({"watch": 0.5, "crashes": 0.5}, "drop", "worse"),
        ({"watch": 0.5, "crashes": -0.5}, "ship", "better"),
        ({"watch": 0.5, "clicks": -0.5}, "drop", "worse"),
        ({"watch": 0.5, "logged": 0.5}, "hold", "unsound"),
        ({"watch": 0.5, "logged": -0.5, "latency": 0.2}, "hold", "unsound"),
        ({"watch": 0.5, "returns": -0.05}, "hold", "unsafe"),
        ({}, "hold", "not better"),
    ],
)
def test_every_cause_has_its_answer(moved: dict[str, float], answer: Answer, cause: str) -> None:
    decision = decide_table(next(draw(1, moved)))
    assert decision is not None
    (arm,) = decision.arms
    assert (arm.answer, arm.reasons[0].cause, decision.answer) == (answer, cause, answer)


def test_an_arm_answers_for_its_own_guardrails_alone() -> None:
    table = next(draw(1, {"watch": 0.5}, 2))
    latency = table.numerators["latency"] + 0.2 * (table.assigned == 2)
    decision = decide_table(replace(table, numerators={**table.numerators, "latency": latency}))
    assert decision is not None
    assert [arm.answer for arm in decision.arms] == ["ship", "drop"]


def test_no_lift_is_acted_upon_where_the_test_is_unsound_or_methods_are_not_known() -> None:
    table = next(draw(1, {"watch": 0.5, "latency": 0.2}))
    red = decide_table(table, ["sample ratio"])
    assert red is not None
    assert (red.answer, red.arms[0].reasons[0].subject) == ("hold", "sample ratio")
    methods = decide([], [], table.metrics, on="methods", unknown={"new1": "one fit"})
    assert methods is not None
    assert (methods.answer, methods.arms[0].reasons[0].subject) == ("hold", "one fit")
    plain = declared(table.metrics, {})
    undeclared = {name: replace(m, role="exploratory", margin=None) for name, m in plain.items()}
    assert decide_table(replace(table, metrics=undeclared)) is None


def test_one_success_is_not_charged_for_what_is_looked_at_besides() -> None:
    table = next(draw(1, {"watch": 0.1}))
    alone = declared(table.metrics, {})
    metrics = {
        name: replace(m, role="success" if name == "watch" else "exploratory", margin=None)
        for name, m in alone.items()
    }
    by_role = {row.metric: row for row in lifts(replace(table, metrics=metrics), "control")}
    watch = by_role.pop("watch")
    assert (watch.p_adjusted, watch.level_adjusted) == (watch.p, 0.95)
    assert (watch.low_adjusted, watch.high_adjusted) == (watch.low, watch.high)
    rest = [row.p for row in by_role.values()]
    adjusted = [row.p_adjusted for row in by_role.values()]
    assert adjusted == pytest.approx(tests.adjust(np.array(rest)))


@pytest.mark.parametrize("correction", tests.CORRECTIONS)
def test_a_threshold_is_where_the_corrected_test_turns(correction: Correction) -> None:
    """Just below it a p is rejected among the others, just above it is not."""
    random = np.random.default_rng(5)
    for _ in range(30):
        p = random.uniform(size=random.integers(1, 9)) ** random.integers(1, 6)
        p[random.random(len(p)) < 0.1] = np.nan
        law = JointLaw.of(np.eye(len(p)), 20.0, ["two-sided"] * len(p))
        thresholds = tests.thresholds(p, correction, law=law)
        assert (np.isnan(thresholds) == np.isnan(p)).all()
        for i in np.flatnonzero(~np.isnan(p)):
            for factor, is_rejected in ((0.9999, True), (1.0001, False)):
                moved = p.copy()
                moved[i] = factor * thresholds[i]
                assert (tests.adjust(moved, correction, law)[i] < 0.05) == is_rejected


def excludes_zero(low: float, high: float) -> bool:
    return low > 0 or high < 0


@pytest.mark.parametrize("correction", tests.CORRECTIONS)
def test_interval_and_verdict_agree(correction: Correction) -> None:
    """Over random tables of up to 12 rows, some of which cannot be tested."""
    random = np.random.default_rng(11)
    decided = 0
    for _ in range(40):
        comparisons = []
        for i in range(random.integers(1, 13)):
            t = random.normal(0.0, 1.0) * random.choice([1.0, 4.0])
            sign, error = random.choice([-1.0, 1.0]), random.choice([0.0, 0.1], p=[0.1, 0.9])
            half = 0.5 * error**2
            mean = sign * 5.0
            m = Moments(mean, mean + t * error, half, half, 0.0, 200.0, 101, 101, False)
            comparisons.append(Uncorrected(f"m{i}", "new", "user", m))
        rows = in_family(
            comparisons, correction=correction, correlations=lambda some: np.eye(len(some))
        )
        for row in rows:
            is_decided = row.words in ("up", "down")
            decided += is_decided
            assert excludes_zero(row.low_adjusted, row.high_adjusted) == is_decided
            ends = row.difference_low_adjusted, row.difference_high_adjusted
            assert excludes_zero(*ends) == is_decided
            assert row.low_adjusted <= row.low
            assert row.high_adjusted >= row.high
    assert decided > 20


def test_bonferroni_intervals_cover_all_at_once() -> None:
    """Where every true lift is another one, 95 of 100 tables are covered whole."""
    covered, repetitions = 0, 400
    true = np.linspace(-0.2, 0.2, 6)
    moved = dict(zip(ROLES, true, strict=True))
    for table in draw(repetitions, moved):
        metrics = {n: replace(m, role="exploratory", margin=None) for n, m in table.metrics.items()}
        rows = lifts(replace(table, metrics=metrics), "control", correction="bonferroni")
        covered += all(row.low_adjusted <= moved[row.metric] <= row.high_adjusted for row in rows)
    assert at_most(repetitions - covered, repetitions, 0.05)


def test_the_users_that_are_missing_would_be_enough() -> None:
    """With them the standard error is what the power of the rule asks for."""
    table = next(draw(1, {}))
    watch, new = table.numerators["watch"], table.assigned == 1
    moved = watch + (0.05 + watch[~new].mean() - watch[new].mean()) * new
    table = replace(table, numerators={**table.numerators, "watch": moved})
    metrics = declared(table.metrics, {})
    metrics["clicks"] = replace(metrics["clicks"], role="exploratory")
    decision = decide_table(replace(table, metrics=metrics))
    assert decision is not None
    (reason,) = [r for r in decision.arms[0].reasons if r.cause == "not better"]
    row = next(r for r in lifts(replace(table, metrics=metrics), "control") if r.metric == "watch")
    se = row.se * math.sqrt(row.n_units / (row.n_units + reason.users))
    asked = noncentrality(row.df, power_of_each(2), 0.95)
    assert row.difference / se == pytest.approx(asked, rel=0.001)
    assert math.isnan(reason.fits), "fits are not the question"


def test_methods_may_miss_fits_that_no_number_of_users_replaces() -> None:
    nan = math.nan
    rows = [
        Lift(
            "watch",
            "new",
            "user",
            1.0,
            1.1,
            0.1,
            nan,
            nan,
            1.9,
            3.0,
            0.15,
            0.15,
            1000,
            nan,
            se=0.1 / 1.9,
            level_adjusted=0.95,
        )
    ]
    metrics = declared({"watch": replace(metric("click"), name="watch")}, {"watch": ROLES["watch"]})
    variance = rows[0].se ** 2
    for share, has_users in ((0.01, True), (0.99, False)):
        parts = Components(
            users=variance * (1 - share) * 1000, fits=variance * share * 4, interaction=nan,
            n_users=1000.0, n_fits=4,
        )  # fmt: skip
        decision = decide(rows, [], metrics, on="methods", components={("new", "watch"): parts})
        assert decision is not None
        (reason,) = decision.arms[0].reasons
        assert math.isfinite(reason.users) == has_users
        if not has_users:
            fits = 4 + reason.fits
            of_fits = variance * share * 4 / fits
            se = math.sqrt(variance * (1 - share) + of_fits)
            assert 0.1 / se >= noncentrality(fits - 1, 0.8, 0.95)
            worse = math.sqrt(variance * (1 - share) + variance * share * 4 / (fits - 1))
            assert 0.1 / worse < noncentrality(fits - 2, 0.8, 0.95), "no fit too many"


def test_methods_may_miss_users_and_fits_together() -> None:
    nan = math.nan
    row = Lift(
        *("watch", "new", "user"), 1.0, 1.1, 0.1, nan, nan, 1.0, 3.0, 0.39, 0.39, 1000, nan,
        se=0.1, level_adjusted=0.95,
    )  # fmt: skip
    metrics = declared({"watch": replace(metric("click"), name="watch")}, {"watch": ROLES["watch"]})
    parts = Components(users=0.5e-2 * 1000, fits=2e-2, interaction=nan, n_users=1000.0, n_fits=4)
    decision = decide([row], [], metrics, on="methods", components={("new", "watch"): parts})
    assert decision is not None
    (reason,) = decision.arms[0].reasons
    assert reason.both

    def is_found(users: float, fits: float) -> bool:
        se = math.sqrt(0.5e-2 * 1000 / (1000 + users) + 2e-2 / (4 + fits))
        return bool(0.1 / se >= noncentrality(3.0 + fits, 0.8, 0.95))

    assert is_found(reason.users, reason.fits)
    assert not is_found(reason.users - 2, reason.fits)
    assert not is_found(0, 98), "fits alone do not"
    assert not is_found(1e9, 0), "nor do users"
    worded = in_words(decision, [row], [])
    assert worded is not None
    said = worded.arms[0].sentence
    assert f"{reason.users:,.0f} more users and {reason.fits:.0f} more fits" in said


def test_a_margin_in_units_is_a_t_test_of_the_difference() -> None:
    table = next(draw(1, {"returns": -0.02}))
    old, new = (table.numerators["returns"][table.assigned == i] for i in (0, 1))
    (guard,) = answer_margins(table, "control", Margins({"returns": Absolute(0.05)}))
    theirs = stats.ttest_ind(new, old - 0.05, equal_var=False, alternative="greater")
    assert guard.p == pytest.approx(theirs.pvalue)
    assert (guard.absolute, guard.lift) == (True, pytest.approx(new.mean() - old.mean()))
    assert (guard.low > -0.05) == (guard.answer == "safe")
    (relative,) = answer_margins(table, "control", Margins({"returns": 0.05}))
    assert relative.absolute is False


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({"x": Declared(role="success")}, "is more of 'x' better, or less"),
        ({"x": Declared("lower", "guardrail")}, "by how much may 'x' get worse"),
        ({"x": Declared("lower", "guardrail", 0.0)}, "above 0 and below 100%"),
        ({"x": Declared("lower", "guardrail", 2.0)}, "above 0 and below 100%"),
        ({"x": Declared("lower", "success", 0.1)}, "margin: for guardrails"),
        ({"y": Declared(role="success")}, "no metric 'y'"),
        ({"x": Declared("lower", "winner")}, "must be one of"),  # type: ignore[arg-type]
    ],
)
def test_roles_that_cannot_be_are_refused(entry: dict[str, Declared], rule: str) -> None:
    x = replace(metric("click"), name="x", higher_is_better=None)
    with pytest.raises(MetricError, match=rule):
        declared({"x": x}, entry)


def test_guardrails_and_roles_say_the_same() -> None:
    metrics, asked = planned({"hate": metric("hate")}, Margins({"hate": 0.02}))
    assert (metrics["hate"].role, metrics["hate"].margin) == ("guardrail", 0.02)
    again, same = planned(metrics, None)
    assert (again, same.guardrails) == (metrics, asked.guardrails)
    success = declared({"click": metric("click")}, {"click": Declared(role="success")})
    with pytest.raises(MetricError, match="declared success and guardrail"):
        planned(success, Margins({"click": 0.02}))
