"""The audit of the decision: what is planted is there, promises are kept where they should be and
broken where the rule is, and report and page say what was counted.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.log.metrics import Declared, declared, metric
from simulator.report import audited
from simulator.report.stored import decode, encode
from simulator.stats import decision_audit as decisions
from simulator.stats import margins as bounds
from simulator.stats.decision import chance_of_false_harm
from simulator.stats.decision_audit import AuditedDecision, decision_audit
from simulator.stats.fit_audit import Assignment
from simulator.stats.margins import Margin
from simulator.stats.rule import Rule
from simulator.stats.user_days import UserDays

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
