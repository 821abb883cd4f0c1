"""The audit of the decision: what is planted is there, promises are kept where they should be and
broken where the rule is, and report and page say what was counted.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from math import inf, nan, sqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from simulator.log.metrics import Absolute, Declared, declared, metric
from simulator.report import audited
from simulator.report.stored import decode, encode
from simulator.stats import decision_audit as decisions
from simulator.stats import margins as bounds
from simulator.stats.choices import Choices
from simulator.stats.decision import Decision, chance_of_false_harm, decide, evidence
from simulator.stats.decision_audit import AuditedDecision, PlantedTruth, decision_audit
from simulator.stats.fit_audit import Assignment, FitPopulation, draw_sample
from simulator.stats.margins import Margin
from simulator.stats.randomise import Rate
from simulator.stats.rule import Rule
from simulator.stats.unit_table import UnitTable
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import Lift, noncentrality

ARMS = ("old", "new", "newer")
ROLES = {
    "watch_time": Declared(role="success"),
    "click": Declared(role="guardrail", margin=0.1),
    "hate": Declared(role="deterioration"),
}


def days(roles: Mapping[str, Declared] = ROLES, fits: int = 0, n: int = 400) -> UserDays:
    """Twins in three arms: tastes of users, noise of arms; with `fits`, who live with each."""
    random = np.random.default_rng(5)
    metrics = declared({m: metric(m) for m in ("watch_time", "click", "hate", "like")}, roles)
    # In a fixed order: the draws that follow are by it.
    terms = dict.fromkeys(t.name for m in metrics.values() for t in m.terms)
    taste = random.gamma(8.0, 1.0, n)

    def life(shift: float) -> UserDays:
        def one() -> np.ndarray:
            noise = random.gamma(20.0, 0.05, (len(ARMS), n))
            return (taste * noise * (1.0 + shift))[..., None]

        return UserDays(ARMS, n, 1, metrics, {name: one() for name in terms}, {})

    if not fits:
        return life(0.0)
    lives = tuple(life(0.02 * random.standard_normal()) for _ in range(fits))
    terms_of = {name: np.mean([one.terms[name] for one in lives], axis=0) for name in terms}
    return dataclasses.replace(lives[0], terms=terms_of, lives=lives, fits=(fits,) * len(ARMS))


def by_truth(rows: tuple[AuditedDecision, ...]) -> dict[str, list[AuditedDecision]]:
    return {t: [row for row in rows if row.truth == t] for t in ("equal", "harmed", "better")}


def test_the_rule_holds_what_it_promises() -> None:
    rows = decision_audit(days(), "old", repetitions=200, n=300)
    found = by_truth(rows)
    assert {row.assignment for row in rows} == set(Assignment)
    assert [row.arm for row in found["equal"]] == ["any", "any"]
    promised = [row.promise for row in found["equal"] + found["harmed"]]
    assert promised == pytest.approx([0.025] * 2 + [0.05] * 4)
    assert all(row.holds for row in rows), [row for row in rows if not row.holds]
    # Twins of this size find every guardrail safe, so that only the success is a matter of luck.
    better = [row for row in found["better"] if row.assignment is Assignment.PAIRED]
    assert all(0.76 < row.promise <= 0.775 for row in better)
    assert all(0.7 < row.ship.value < 0.9 for row in better), "its power is .8"
    for row in rows:
        assert row.ship.value + row.hold.value + row.drop.value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("rule", "any_ships"),
    [(Rule(0.8), 0.1), (Rule(0.9, "better"), 0.1), (Rule(0.99, "better"), 0.01)],
)
def test_any_level_and_one_sided_tests_hold_what_they_promise(rule: Rule, any_ships: float) -> None:
    """A one-sided test of a success has all of its error on the side that ships."""
    rows = decision_audit(days(), "old", repetitions=300, n=300, rule=rule)
    found = by_truth(rows)
    assert [row.promise for row in found["equal"]] == pytest.approx([any_ships] * 2)
    assert [row.promise for row in found["harmed"]] == pytest.approx([rule.alpha] * 4)
    assert all(row.holds for row in rows), [row for row in rows if not row.holds]
    ships = [row.ship.value for row in found["equal"] if row.assignment is Assignment.SPLIT]
    assert ships[0] == pytest.approx(any_ships, abs=4 * np.sqrt(any_ships * (1 - any_ships) / 300))
    for row in (one for one in found["better"] if one.assignment is Assignment.PAIRED):
        assert 0.8 - 4 * np.sqrt(0.16 / 300) - rule.alpha < row.ship.value < 0.88


def test_a_harm_that_is_not_there_keeps_an_arm_in_its_share_of_tests() -> None:
    """Of two successes, a guardrail and a quality metric, as the rows are corrected."""
    roles = {
        "watch_time": Declared(role="success"),
        "like": Declared(role="success"),
        "click": Declared(role="guardrail", margin=0.1),
        "hate": Declared(role="quality"),
    }
    metrics = days(roles).metrics
    two_sided = chance_of_false_harm(metrics, "like")
    # The other success and the guardrail are worse in .05 / 2 / 2 each, quality differs in .05 / 2.
    assert two_sided == pytest.approx(0.0125 + 0.0125 + 0.025)
    one_sided = chance_of_false_harm(metrics, "like", Rule(0.95, "better"))
    assert one_sided == pytest.approx(0.025 + 0.025)


def test_the_harm_itself_is_what_keeps_an_arm_from_shipping() -> None:
    """Without it, the arms ship: successes are there, and only the harm is counted."""
    samples = decisions._Models(
        days().by("user"), dict(list(days().metrics.items())[:3]), ARMS, Assignment.PAIRED, 400, 1
    )
    (harmed,) = [t for t in decisions._truths(samples, samples.metrics) if t.truth == "harmed"]
    assert harmed.differences is not None
    mild = dict(harmed.differences) | {"click": 0.0}
    ships = {
        name: np.mean(
            [
                one.answer == "ship"
                for decision in samples.decisions(truth, 60)
                for one in decision.arms
            ]
        )
        for name, truth in {
            "harmed": harmed,
            "mild": dataclasses.replace(harmed, differences=mild),
        }.items()
    }
    assert ships["harmed"] < 0.15
    assert ships["mild"] > 0.9


def test_a_rule_that_guards_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guardrails tested at 50% call a harm of the margin safe half the time, one so small that it
    is not shown to be worse either.
    """
    answered = bounds.answer_margins

    def careless(*args: Any, alpha: float, **how: Any) -> list[Margin]:
        return answered(*args, alpha=10 * alpha, **how)

    monkeypatch.setattr(bounds, "answer_margins", careless)
    small = ROLES | {"click": Declared(role="guardrail", margin=0.02)}
    rows = decision_audit(days(small), "old", repetitions=100, n=300)
    monkeypatch.undo()
    harmed = [dataclasses.replace(row, promise=0.05) for row in by_truth(rows)["harmed"]]
    assert not any(row.holds for row in harmed)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_lift_is_planted_exactly(share: float) -> None:
    """Scaled, so that zeros stay zeros; shifted where values have both signs."""
    random = np.random.default_rng(1)
    top = random.gamma(2.0, 1.0, 200) * (random.random(200) < 0.7) - share
    moved = decisions._moved(top, None, 1.5)
    assert moved.mean() == pytest.approx(1.5)
    if share == 0.0:
        assert (moved[top == 0] == 0).all()
    bottom = random.integers(1, 5, 200).astype(float)
    again = decisions._moved(top, bottom, 0.3)
    assert again.sum() / bottom.sum() == pytest.approx(0.3)


def test_methods_are_decided_too() -> None:
    rows = decision_audit(
        days(fits=12, n=120), "old", arms=["new"], repetitions=100, n=100, fits=[3], fit_n=60
    )
    of_methods = [row for row in rows if row.on == "methods"]
    assert {row.fits for row in of_methods} == {"3 fits divided", "3 fits crossed"}
    assert {row.truth for row in of_methods} == {"equal", "harmed", "better"}
    assert all(row.holds for row in of_methods), of_methods


def test_without_a_success_nothing_is_decided() -> None:
    assert decision_audit(days({}), "old") == ()


def test_the_audit_of_a_decision_is_read_back_and_said() -> None:
    rows = decision_audit(days(), "old", repetitions=100, n=100)
    again = decode(tuple[AuditedDecision, ...], json.loads(json.dumps(encode(rows))))  # type: ignore[arg-type]
    assert again[0].ship == rows[0].ship
    sentence = audited.decision_errors(rows)
    assert sentence.startswith("It ships ")
    for words in ("where no arm differs", "click is harmed by its margin", "watch time is better"):
        assert words in sentence
    table = audited.of_decisions(rows)[1]
    assert len(table.rows) == len(rows)  # type: ignore[union-attr]


def test_an_older_audit_has_no_decisions(tmp_path: Path) -> None:
    old = {"repetitions": 1, "n_users": 1, "rows": [], "wrong": [], "looking": []}
    (tmp_path / "audit.json").write_text(json.dumps(old), encoding="utf-8")
    summary = audited.beside(tmp_path)
    assert summary is not None
    assert summary.decisions == ()


def audited_row(ship: float, promise: float, *, at_least: bool, n: int = 400) -> AuditedDecision:
    rate = Rate(ship, 0.0, 1.0)
    return AuditedDecision("equal", "", "any", "models", Assignment.PAIRED, "", 100, n, nan, rate,
                           rate, rate, promise, at_least)  # fmt: skip


def test_a_promise_is_kept_within_three_errors_and_on_one_side() -> None:
    """Of 400 samples a share of .1 has an error of .015."""
    assert audited_row(0.1, 0.3, at_least=False).error == pytest.approx(0.015)
    for off, holds in ((0.0449, True), (0.0451, False)):
        assert audited_row(0.1 + off, 0.1, at_least=False).holds is holds
        assert audited_row(0.1 - off, 0.1, at_least=True).holds is holds
    assert audited_row(0.0, 0.1, at_least=False).holds
    assert audited_row(1.0, 0.1, at_least=True).holds


def test_means_are_moved_by_scaling_or_by_a_shift_of_every_unit() -> None:
    top, bottom = np.array([0.0, 1.0, 5.0]), np.array([1.0, 1.0, 2.0])
    moved = decisions._moved
    assert moved(top, None, 3.0).tolist() == [0.0, 1.5, 7.5]
    assert moved(top, bottom, 3.0).tolist() == [0.0, 2.0, 10.0]
    for wished in (0.0, -1.0):
        assert moved(top, None, wished).tolist() == [wished - 2, wished - 1, wished + 3]
    assert moved(top, bottom, -0.5).tolist() == [-2.0, -1.0, 1.0]
    assert moved(np.zeros(3), None, 2.0).tolist() == [2.0, 2.0, 2.0]
    assert moved(np.array([-1.0, 4.0, 3.0]), None, 3.0).tolist() == [0.0, 5.0, 4.0]
    assert moved(np.array([-3.0, -1.0, -2.0]), None, -1.0).tolist() == [-2.0, 0.0, -1.0]


def known(**roles: Declared) -> dict[str, Any]:
    return dict(declared({m: metric(m) for m in roles}, roles))


METRICS = known(
    click=Declared(role="success"),
    hate=Declared(role="success", better="lower"),
    like=Declared(role="guardrail", margin=0.1),
    follow=Declared(role="guardrail", margin=Absolute(0.5)),
    comment=Declared(role="guardrail", margin=0.2, better="lower"),
    forward=Declared(role="success"),
    sessions=Declared(role="deterioration"),
)
MEANS = {"click": 4.0, "hate": -2.0, "like": -3.0, "follow": 9.0, "comment": 5.0, "forward": 0.0}


def test_truths_are_planted_for_every_guardrail_and_every_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples = SimpleNamespace(means=lambda: MEANS)
    found = dict.fromkeys(METRICS, 7.0) | {"click": 0.5, "hate": 0.25, "forward": 0.125}
    monkeypatch.setattr(decisions, "_detectable", lambda _: found)
    best = {"click": 1.5, "hate": -0.75, "forward": 0.375}
    expected = [
        PlantedTruth("equal"),
        PlantedTruth("harmed", "like", {**best, "like": -0.1 * 3.0}, -0.1),
        PlantedTruth("harmed", "follow", {**best, "follow": -0.5}, -0.5),
        PlantedTruth("harmed", "comment", {**best, "comment": 1.0}, 0.2),
        PlantedTruth("better", "click", {"click": 0.5}, 0.125),
        PlantedTruth("better", "hate", {"hate": -0.25}, -0.125),
    ]
    truths = list(decisions._truths(samples, METRICS))  # type: ignore[arg-type]
    assert truths[1].differences == pytest.approx(expected[1].differences)
    assert [truths[0], *truths[2:-1]] == [expected[0], *expected[2:]]
    last = truths[-1]
    assert (last.metric, last.differences) == ("forward", {"forward": 0.125})
    assert np.isnan(last.lift), "of a mean of 0 there is no share"
    # A success that nothing can show is not planted.
    found["click"] = inf
    truths = list(decisions._truths(samples, METRICS))  # type: ignore[arg-type]
    assert [t.metric for t in truths] == ["", "like", "follow", "comment", "hate", "forward"]
    assert "click" not in truths[1].differences  # type: ignore[operator]


def lift_row(m: str, arm: str, se: float, df: float, level: float = 0.99) -> Lift:
    return Lift(m, arm, "user", 1.0, 1.0, 0.0, nan, nan, nan, df, nan, nan, 9, nan, se,
                level_adjusted=level)  # fmt: skip


def pilots(rows: list[list[Lift]], **more: Any) -> Any:
    """Samples whose pilot has these rows; what is asked of them is noted."""
    asked: list[Any] = []

    def found(truth: PlantedTruth, repetitions: int) -> list[Any]:
        asked.append((truth, repetitions))
        return [(one, []) for one in rows]

    metrics = {m: METRICS[m] for m in ("click", "like", "follow", "comment", "sessions")}
    return SimpleNamespace(evidence=found, asked=asked, metrics=metrics, means=lambda: MEANS,
                           rule=Rule(0.9), **more)  # fmt: skip


ROWS = [
    [lift_row("click", "a", 3.0, 10.0), lift_row("click", "b", 4.0, 30.0, 0.95),
     lift_row("like", "a", 0.1, 20.0)],
    [lift_row("click", "a", 0.0, nan), lift_row("click", "b", 12.0, 50.0),
     lift_row("like", "a", 0.1, 40.0), lift_row("follow", "a", 0.2, 8.0),
     lift_row("comment", "a", nan, nan)],
]  # fmt: skip


def test_a_pilot_tells_the_errors_where_nothing_differs() -> None:
    samples = pilots(ROWS)
    # Of 3, 4 and 12 the root mean square; of 10, 30 and 50 the median; the first row's level.
    assert decisions._pilot(samples) == {
        "click": (pytest.approx(sqrt(169 / 3)), 30.0, 0.99),
        "like": (pytest.approx(0.1), 30.0, 0.99),
        "follow": (pytest.approx(0.2), 8.0, 0.99),
    }
    ((truth, repetitions),) = samples.asked
    assert (truth.truth, truth.differences, repetitions) == ("better", {}, 40)
    detectable = decisions._detectable(samples)
    assert detectable == {
        "click": pytest.approx(sqrt(169 / 3) * noncentrality(30.0, 0.8, 0.99)),
        "like": pytest.approx(0.1 * noncentrality(30.0, 0.8, 0.99)),
        "follow": pytest.approx(0.2 * noncentrality(8.0, 0.8, 0.99)),
        "comment": inf,
        "sessions": inf,
    }


def test_guardrails_are_safe_as_often_as_the_noncentral_t_says() -> None:
    """Relative margins of a mean of -3, and .5 in units; at 90% one-sided tests of 10%."""
    samples = pilots(ROWS)
    missed = [
        stats.nct.cdf(stats.t.ppf(0.9, df), df, size / se)
        for size, se, df in ((0.3, 0.1, 30.0), (0.5, 0.2, 8.0))
    ]
    assert min(missed) > 0.04
    assert decisions._power_of_safety(samples) == pytest.approx(1 - sum(missed))
    hopeless = [[lift_row(m, "a", 100.0, 20.0) for m in ("like", "follow")]]
    assert decisions._power_of_safety(pilots(hopeless)) == 0.0
    assert decisions._power_of_safety(pilots([[lift_row("click", "a", 1.0, 9.0)]])) == 1.0


def decision(*answers: str) -> Decision:
    arms = tuple(SimpleNamespace(answer=answer) for answer in answers)
    return Decision("models", arms)  # type: ignore[arg-type]


@pytest.mark.parametrize("alternative", ["two-sided", "better"])
def test_a_tally_counts_arms_each_and_where_all_are_equal_the_test(
    alternative: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = Rule(0.9, alternative)  # type: ignore[arg-type]
    samples: Any = SimpleNamespace(
        metrics=METRICS, treatments=("a", "b"), rule=rule, on="models", n=77, fits="3 fits",
        assignment=Assignment.SPLIT,
    )  # fmt: skip
    answers = [("ship", "hold"), ("drop", "drop"), ("hold", "drop"), ("drop", "ship"),
               ("hold", "hold")]  # fmt: skip

    def rows(truth: PlantedTruth) -> list[AuditedDecision]:
        tally = decisions._Tally(samples, truth)
        for one in answers:
            tally.add(decision(*one))
        return list(tally.rows())

    def row(
        truth: PlantedTruth, arm: str, ship: int, hold: int, drop: int, promise: float
    ) -> AuditedDecision:
        counts = (Rate.of(n, 5) for n in (ship, hold, drop))
        return AuditedDecision(
            truth.truth, truth.metric, arm, "models", Assignment.SPLIT, "3 fits", 77, 5,
            truth.lift, *counts, promise, truth.truth == "better",
        )  # fmt: skip

    equal = PlantedTruth("equal", lift=0.0)
    one_side = pytest.approx(0.1 if alternative == "better" else 0.05)
    assert rows(equal) == [row(equal, "any", 2, 2, 1, one_side)]
    harmed = PlantedTruth("harmed", "like", lift=-0.1)
    expected = [("a", 1, 2, 2), ("b", 1, 2, 2)]
    assert rows(harmed) == [row(harmed, *one, pytest.approx(0.1)) for one in expected]
    better = PlantedTruth("better", "click", lift=0.2)
    for safety, least in ((0.95, None), (0.1, 0.0)):
        monkeypatch.setattr(decisions, "_power_of_safety", lambda _, safety=safety: safety)
        harm = chance_of_false_harm(METRICS, "click", rule)
        assert harm > 0
        promise = least if least is not None else pytest.approx(0.8 - 0.05 - harm)
        assert rows(better) == [row(better, *one, promise) for one in expected]


@pytest.mark.parametrize("assignment", list(Assignment))
def test_samples_of_models_are_those_of_their_draws(assignment: Assignment) -> None:
    """Drawn again from the same generator, user by user, and put through the report's functions."""
    table = days(ROLES | {"click_rate": Declared()}, n=30).by("user")
    metrics = {m: one for m, one in table.metrics.items() if m != "like"}
    arms = ("newer", "old")
    rule = Rule(0.8, "better")
    samples = decisions._Models(table, metrics, arms, assignment, 25, 6, rule)
    assert (samples.treatments, samples.on, samples.fits, samples.n) == (
        ("old",), "models", "", 25
    )  # fmt: skip
    places = [2, 0]
    assert samples.means() == {m: pytest.approx(table.numerators[m][2].mean()) for m in metrics}
    planted = PlantedTruth("better", "click", {"click": 0.5}, 0.1)
    for truth in (PlantedTruth("equal"), planted):
        own = {m: table.numerators[m][places].copy() for m in metrics}
        if truth is planted:
            for m in metrics:
                wished = own[m][0].mean() + (0.5 if m == "click" else 0.0)
                own[m][1] *= wished / own[m][1].mean()
        generator = np.random.default_rng([6, 25, 2])
        for rows, margins in samples.evidence(truth, 3):
            users = generator.integers(0, 30, 25)
            assigned = None
            if assignment is Assignment.SPLIT:
                assigned = generator.integers(0, 2, 25)
                which = np.zeros(25, dtype=int) if truth is not planted else assigned
                values = {m: np.array([own[m][a, u] for a, u in zip(which, users, strict=True)])
                          for m in metrics}  # fmt: skip
            else:
                order = np.tile([[0], [1]], 25)
                if truth is not planted:
                    order = generator.permuted(order, axis=0)
                values = {m: np.stack([own[m][order[side], users] for side in (0, 1)])
                          for m in metrics}  # fmt: skip
            one = UnitTable("user", arms, metrics, values, assigned=assigned)
            expected = evidence(one, "newer", choices=Choices(level=0.8, alternative="better"))
            assert [repr(row) for row in rows] == [repr(row) for row in expected[0]]
            assert margins == expected[1]
        (decided,) = samples.decisions(truth, 1)
        rows, margins = next(samples.evidence(truth, 1))
        assert decided == decide(rows, margins, metrics, on="models")


def test_ratios_keep_their_denominators_when_a_lift_is_planted() -> None:
    random = np.random.default_rng(2)
    top, bottom = random.gamma(2.0, 1.0, (2, 9)), random.gamma(5.0, 1.0, (2, 9))
    metrics = {"click_rate": metric("click_rate")}
    table = UnitTable("user", ("a", "b"), metrics, {"click_rate": top}, {"click_rate": bottom})
    samples = decisions._Models(table, metrics, ("b", "a"), Assignment.PAIRED, 5, 1)
    assert samples.rule == Rule()
    mean = top[1].sum() / bottom[1].sum()
    assert samples.means() == {"click_rate": pytest.approx(mean)}
    moved, below = samples.planted(PlantedTruth("better", differences={"click_rate": 0.2}))[
        "click_rate"
    ]
    assert (below == bottom[[1, 0]]).all()  # type: ignore[operator]
    assert (moved[0] == top[1]).all()
    assert moved[1] == pytest.approx(top[0] * (mean + 0.2) * bottom[0].sum() / top[0].sum())
    rows, _ = next(samples.evidence(PlantedTruth("equal"), 1))
    assert rows[0].n_units == 5


@pytest.mark.parametrize("dealing", ["divided", "crossed"])
def test_samples_of_methods_are_those_of_their_draws(dealing: Any) -> None:
    """Both arms have fits of one method; a lift multiplies what the treatment has."""
    source = days(fits=6, n=20)
    population = FitPopulation(source)
    metrics = {m: one for m, one in source.metrics.items() if m != "like"}
    rule = Rule(0.9)
    samples = decisions._Methods(population, metrics, "new", dealing, 3, 15, 4, rule)
    assert (samples.treatments, samples.fits, samples.on) == (
        ("new",), f"3 fits {dealing}", "methods"
    )  # fmt: skip
    mean = np.mean([life.by("user").numerators["click"][1].mean() for life in source.lives])
    assert samples.means()["click"] == pytest.approx(mean)
    truth = PlantedTruth("better", "click", {"click": 0.3 * mean}, 0.3)
    generator = np.random.default_rng([4, 3, 15])
    for rows, margins in samples.evidence(truth, 2):
        drawn = draw_sample(population, generator, 3, 15, dealing, Assignment.PAIRED)
        tables = drawn.tables(("new", "new"), drawn.fits)
        for row in rows:
            plain = tables.replicated(row.metric, "control", "treatment").methods
            factor = 1.3 if row.metric == "click" else 1.0
            assert plain is not None
            assert row.control_mean == pytest.approx(plain.control)
            assert row.treatment_mean == pytest.approx(factor * plain.treatment)
            variance = plain.var_control + factor**2 * plain.var_treatment - 2 * factor * plain.cov
            assert row.se == pytest.approx(sqrt(variance))
            assert (row.arm, row.unit, row.confidence) == ("treatment", "user", 0.9)
        assert [row.metric for row in rows] == list(metrics)
        assert [(one.metric, one.arm, one.level) for one in margins] == [
            ("click", "treatment", pytest.approx(0.8))
        ]
        assert margins[0].lift == pytest.approx(
            next(row.lift for row in rows if row.metric == "click")
        )


def test_progress_counts_the_samples_of_every_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal, one harmed guardrail and one success, of twins and of a split, 3 samples each."""
    calls: list[Any] = []
    monkeypatch.setattr(decisions, "PILOT", 3)
    rows = decision_audit(days(n=40), "old", arms=["newer"], repetitions=3, n=30,
                          progress=lambda *one: calls.append(one))  # fmt: skip
    assert calls == [("decisions", i, 18, {}) for i in range(1, 19)]
    assert [(row.truth, row.metric, row.arm, row.assignment.value) for row in rows] == [
        (truth, m, arm, assignment)
        for assignment in ("paired", "split")
        for truth, m, arm in (
            ("equal", "", "any"), ("harmed", "click", "newer"), ("better", "watch_time", "newer")
        )
    ]  # fmt: skip
    assert {(row.n, row.repetitions, row.on) for row in rows} == {(30, 3, "models")}


def test_methods_are_decided_where_fits_leave_room(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Samples:
        def __init__(self, population: Any, metrics: Any, arm: str, dealing: str, size: int,
                     n: int, seed: int, rule: Rule) -> None:  # fmt: skip
            made.append((arm, dealing, size, n, seed, rule))

    monkeypatch.setattr(decisions, "_Methods", Samples)
    monkeypatch.setattr(decisions, "_truths", lambda *_: iter(()))
    source, rule = days(fits=12, n=20), Rule(0.9)
    for arms, who in (((), ("new", "newer")), (("newer",), ("newer",))):
        made.clear()
        decision_audit(source, "old", arms=arms, fits=[2, 3, 4], fit_n=9, seed=5, rule=rule)
        # 12 fits are 4 for each of 3, and not of 4.
        assert made == [
            (arm, dealing, size, 9, 5, rule)
            for arm in who for size in (2, 3) for dealing in ("divided", "crossed")
        ]  # fmt: skip
