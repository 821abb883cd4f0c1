"""The audit of the verdict on methods, on worlds whose fits and users are drawn from known laws."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.cli.audit import blocks, content
from simulator.report import audited
from simulator.stats import audit as audits
from simulator.stats import fit_audit, intervals, moments, tests, units
from simulator.stats.randomise import Rate
from simulator.stats.replication import Dealing
from simulator.stats.rule import OneTest, Rule
from simulator.stats.unit_table import TableError
from simulator.stats.user_days import UserDays

N_USERS, N_FITS, LIFT = 300, 40, 0.05


def lived(
    fit_spread: float, *, n_fits: int = N_FITS, metrics: tuple[str, ...] = ("click",)
) -> UserDays:
    """Twins who live with every fit: clicks of 10 a user, and `LIFT` more in the treatment; ten
    impressions or so for each.
    """
    rng = np.random.default_rng(3)
    shape = (2, n_fits, N_USERS, 1)
    users = rng.gamma(4.0, 2.0, (N_USERS, 1)) + 2.0 + rng.normal(0.0, 1.0, (2, 1, N_USERS, 1))
    fits = rng.normal(0.0, fit_spread, (2, n_fits, 1, 1))
    # An interaction that did not add up to 0 over the users would be one more effect of the fit.
    interaction = rng.normal(0.0, 0.5, shape)
    interaction -= interaction.mean(axis=2, keepdims=True)
    click = (users + fits + interaction) * np.array([1, 1 + LIFT]).reshape(2, 1, 1, 1)
    terms = {"click": click, "impressions": 10.0 * users + rng.normal(0.0, 1.0, shape)}
    wanted = {metric.name: metric for metric in units.chosen(list(metrics))}
    lives = tuple(
        UserDays(("a", "b"), N_USERS, 1, wanted, {name: v[:, f] for name, v in terms.items()}, {})
        for f in range(n_fits)
    )
    means = {name: v.mean(axis=1) for name, v in terms.items()}
    return UserDays(("a", "b"), N_USERS, 1, wanted, means, {}, fits=(n_fits, n_fits), lives=lives)


def test_methods_hold_their_level_where_these_models_are_told_apart_too_often() -> None:
    """A fit's spread of .4 over 3 or 5 fits is a multiple of what 400 twins leave uncertain."""
    spread_out = fit_audit.fit_audit(lived(0.4), "a", repetitions=200, sizes=(3, 5), n=400, seed=2)
    kinds = {(r.assignment, r.dealing, r.n_fits) for r in spread_out}
    assert len(kinds) == 8
    assert [r.arm for r in spread_out] == ["a"] * 8 + ["b"] * 8
    for row in spread_out:
        assert row.error.value < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200), row
        assert row.holds == (row.warning is None)
        if row.arm == "b":
            assert row.lift == pytest.approx(LIFT, abs=0.03)
            assert row.coverage.value > 0.95 - 4 * np.sqrt(0.05 * 0.95 / 200), row
        else:
            assert np.isnan([row.lift, row.power.value, row.coverage.value]).all()
    naive = {(r.assignment, r.dealing, r.n_fits, r.arm): r.models_error for r in spread_out}
    assert naive["paired", "crossed", 3, "a"].low > 0.4
    assert naive["paired", "divided", 3, "a"].low > 0.25
    assert naive["split", "divided", 5, "a"].value < naive["paired", "divided", 5, "a"].value


def test_without_differences_of_fits_both_verdicts_hold() -> None:
    rows = fit_audit.fit_audit(
        lived(0.0), "a", arms=("b",), repetitions=200, sizes=(3,), n=400, analyses=("divided",)
    )
    assert {row.dealing for row in rows} == {"divided"}
    for row in rows:
        assert row.models_error.value < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200)
        assert row.holds


@pytest.mark.parametrize("dealing", ["divided", "crossed"])
@pytest.mark.parametrize("assignment", ["paired", "split"])
def test_tables_of_a_sample_are_those_of_the_users_and_fits_drawn(
    dealing: Dealing, assignment: fit_audit.Assignment
) -> None:
    days = lived(0.4, metrics=("click", "click_rate"))
    people = fit_audit.FitPopulation(days)
    generator = np.random.default_rng(1)
    sample = fit_audit.draw_sample(people, generator, 3, 50, dealing, assignment)
    tables = sample.tables(("a", "b"), sample.fits)
    by_fit = np.stack([life.terms["click"][..., 0] for life in days.lives])
    shown = np.stack([life.terms["impressions"][..., 0] for life in days.lives])
    for arm in (0, 1):
        for user in range(50):
            if sample.assigned is not None and sample.assigned[user] != arm:
                continue
            slots = range(3) if sample.slot is None else [sample.slot[user]]
            fits, who = [sample.fits[arm, s] for s in slots], sample.users[user]
            place = (arm, user) if sample.assigned is None else user
            assert tables.pooled.numerators["click"][place] == pytest.approx(
                by_fit[fits, arm, who].mean()
            )
            assert tables.pooled.denominators["click_rate"][place] == pytest.approx(
                shown[fits, arm, who].mean()
            )
    if sample.slot is not None:
        assert [t.n_units for t in tables.each] == np.bincount(sample.slot, minlength=3).tolist()
    names = (dealing,)
    rows = fit_audit.fit_audit(
        days, "a", arms=("b",), repetitions=50, sizes=(3,), n=200, analyses=names
    )
    assert {row.metric for row in rows} == {"click", "click_rate"}
    assert all(row.undefined == 0 for row in rows)


def test_the_true_lift_is_that_of_all_fits_and_users() -> None:
    days = lived(0.4, metrics=("click", "click_rate"))
    people = fit_audit.FitPopulation(days)
    table = days.by("user")
    for metric in ("click", "click_rate"):
        sums = [table.sums(metric, arm) for arm in ("a", "b")]
        means = [t.sum() / (len(t) if b is None else b.sum()) for t, b in sums]
        assert people.lift(metric, "a", "b") == pytest.approx(moments.relative(*means))


def test_the_error_from_the_choice_of_fits() -> None:
    """A share that is a mean of values of the fits, of which each sample holds one: its standard
    error is that of a mean, and nothing is left where samples do not depend on fits.
    """
    rng = np.random.default_rng(0)
    repetitions, k = 200_000, 20
    fit = rng.integers(0, k, repetitions)
    absent = np.ones((repetitions, k), dtype=bool)
    absent[np.arange(repetitions), fit] = False
    share = rng.random(k)
    counted = rng.random(repetitions) < share[fit]
    by_hand = share.std(ddof=1) / np.sqrt(k)
    assert fit_audit.between_fits(counted, absent) == pytest.approx(by_hand, rel=0.05)
    assert fit_audit.between_fits(rng.random(repetitions) < 0.3, absent) < 0.1 * by_hand
    absent[:, 0] = False
    assert np.isnan(fit_audit.between_fits(counted, absent))


def test_a_handful_of_fits_is_no_population() -> None:
    few = lived(0.4, n_fits=11)
    assert fit_audit.audited_arms(few) == ()
    assert fit_audit.fit_audit(few, "a", repetitions=100) == ()
    some = fit_audit.fit_audit(lived(0.4, n_fits=12), "a", repetitions=100, n=100)
    assert {row.n_fits for row in some} == {3}
    with pytest.raises(TableError, match=r"drawn from 12 or more, and this run has 11\. Run"):
        audits.audit(few, "a", analyses=["methods"])
    assert fit_audit.audited_arms(few, (2,)) == ("a", "b")
    assert fit_audit.fit_audit(few, "a", repetitions=100, n=100, sizes=(2,))


def test_what_cannot_be_audited_of_the_methods_is_said_with_what_to_do() -> None:
    every = lived(0.4, n_fits=4)
    one = replace(every, fits=(), lives=())
    divided = replace(every, lives=(), fit_of_user=np.arange(N_USERS) % 4)
    counts = replace(every, fitted_once=frozenset({"a", "b"}))
    remedy = "Run the scenario with `fits: {number: 12, design: crossed}` or more."
    for days, why in (
        (one, f"This run has one fit of each policy.* {remedy}"),
        (divided, f"The users of this run are divided over its 4 fits, .* {remedy}"),
        (every, f"this run has 4. {remedy}"),
        (counts, "their models are their methods"),
    ):
        with pytest.raises(TableError, match=why.replace("{", r"\{")):
            audits.audit(days, "a", analyses=["methods"])
        whole = audits.audit(days, "a", repetitions=100, sizes=(50,))
        text = " ".join(str(block) for block in blocks(whole))
        assert "The verdict on methods" in text
        assert f"Not audited. {whole.without_methods}" in text
        assert not audits.audit(days, "a", repetitions=100, analyses=["Welch"]).without_methods


def test_the_audit_of_methods_lies_beside_the_report(tmp_path: Path) -> None:
    result = audits.audit(
        lived(0.4), "a", repetitions=100, sizes=(200,), fits=(3,), fit_repetitions=100
    )
    assert result.methods
    stored = content(result)
    assert stored["methods"][0].keys() >= {"error", "models_error", "between_fits", "holds"}
    (tmp_path / "audit.json").write_text(json.dumps(stored))
    summary = audited.beside(tmp_path)
    assert summary is not None
    assert len(summary.methods) == len(result.methods)
    assert summary.methods[-1].error == result.methods[-1].error
    for shown in (list(blocks(result)), audited.of_methods(summary.methods)):
        text = " ".join(str(block) for block in shown)
        assert "The verdict on methods may call them different in 5%" in text
        assert "3 crossed" in text
    only = audits.audit(
        lived(0.4), "a", fits=(3,), fit_repetitions=100, analyses=["methods, split"]
    )
    assert not only.rows
    assert {row.assignment for row in only.methods} == {"split"}


def methods_row(**changes: Any) -> fit_audit.AuditedMethods:
    good, nothing = Rate.of(20, 400), Rate.of(0, 0)
    row = fit_audit.AuditedMethods(
        "click", "b", fit_audit.Assignment.SPLIT, "divided", 3, 100, 400, good, good, 0.0, nothing,
        nothing, 0.1, 0.0,
    )  # fmt: skip
    return replace(row, **changes)


def share(value: float) -> Rate:
    return Rate(value, 0.0, 1.0)


def test_methods_hold_within_three_errors_of_both_kinds_and_on_one_side() -> None:
    """Of 400 samples 5% and 95% have an error of .0109; with a further .02 of fits, .0228."""
    assert methods_row().analysis == "methods, split, 3 fits divided"
    for of_fits, error in ((0.0, np.sqrt(0.05 * 0.95 / 400)), (0.02, 0.0227761)):
        for off, holds in ((2.99 * error, True), (3.01 * error, False)):
            for changes in ({"error": share(0.05 + off)}, {"coverage": share(0.95 - off)}):
                row = methods_row(between_fits=of_fits, **changes)
                assert (row.holds, row.warning is None) == (holds, holds)
    # Cautious tests and long intervals keep their promise.
    for changes in ({"error": share(0.0)}, {"coverage": share(1.0)}):
        assert methods_row(**changes).holds
    lost = methods_row(error=share(0.2), coverage=share(0.7))
    assert lost.faults == [
        "false positives 20.0% instead of 5%", "coverage 70.0% instead of 95%"
    ]  # fmt: skip
    assert lost.warning == (
        "click, methods, split, 3 fits divided, 100 users: false positives 20.0% instead of 5%,"
        " coverage 70.0% instead of 95%"
    )
    assert methods_row(error=share(0.2), undefined=1.0).holds
    assert not methods_row(error=share(0.2), undefined=0.99).holds
    other = methods_row(error=share(0.2), level=0.9)
    assert other.faults == ["false positives 20.0% instead of 10%"]
    assert not methods_row(coverage=share(0.95), level=0.999).holds


@pytest.mark.parametrize("dealing", ["divided", "crossed"])
def test_counts_are_those_of_each_samples_verdicts(dealing: Dealing) -> None:
    """Every sample is drawn again and judged by itself, at 70%, one-sided for a metric that has a
    direction.
    """
    days = lived(0.4, n_fits=8, metrics=("click", "click_rate"))
    rule, repetitions = Rule(0.7, "better"), 6
    calls: list[Any] = []
    rows = fit_audit.fit_audit(
        days, "a", repetitions=repetitions, sizes=(2, 3), n=40, seed=3, analyses=[dealing],
        rule=rule, progress=lambda *one: calls.append(one),
    )  # fmt: skip
    kinds = [(arm, kind) for arm in ("a", "b") for kind in fit_audit.Assignment]
    assert [(row.arm, row.assignment, row.metric) for row in rows] == [
        (*kind, m) for kind in kinds for m in ("click", "click_rate")
    ]
    assert {(row.n_fits, row.n, row.repetitions, row.dealing) for row in rows} == {
        (2, 40, repetitions, dealing)
    }
    assert calls == [("methods", i, 24, {}) for i in range(1, 25)]
    people = fit_audit.FitPopulation(days)
    for row in rows:
        generator = np.random.default_rng([3, 2, 40])
        test = rule.test(people.metrics[row.metric])
        counts = dict.fromkeys(("error", "models", "power", "covered", "undefined"), 0)
        absent = np.ones((repetitions, 8), dtype=bool)
        rejected = []
        for r in range(repetitions):
            sample = fit_audit.draw_sample(people, generator, 2, 40, dealing, row.assignment)
            absent[r, sample.fits.ravel()] = False
            null = sample.tables((row.arm, row.arm), sample.fits).replicated(
                row.metric, "control", "treatment"
            )
            same = np.stack([sample.fits[0], sample.fits[0]])
            effect = sample.tables(("a", row.arm), same).replicated(
                row.metric, "control", "treatment"
            )
            p = tests.t_test(null.methods, test.side).p
            rejected.append(p < 1 - 0.7)
            counts["error"] += p < 0.3
            counts["models"] += tests.t_test(null.models, test.side).p < 0.3
            counts["power"] += tests.t_test(effect.methods, test.side).p < 0.3
            low, high = intervals.opened(intervals.fieller(effect.methods, 2 * 0.7 - 1), test.side)
            counts["covered"] += low <= people.lift(row.metric, "a", row.arm) <= high
        assert test.side == "greater"
        assert (row.level, row.alternative, row.undefined) == (0.7, "greater", 0.0)
        assert row.error == Rate.of(counts["error"], repetitions)
        assert row.models_error == Rate.of(counts["models"], repetitions)
        noise = fit_audit.between_fits(np.array(rejected), absent)
        assert row.between_fits == pytest.approx(noise, nan_ok=True)
        if row.arm == "b":
            assert row.power == Rate.of(counts["power"], repetitions)
            assert row.coverage == Rate.of(counts["covered"], repetitions)
            assert row.lift == people.lift(row.metric, "a", "b")
        else:
            assert np.isnan([row.power.value, row.coverage.value, row.lift]).all()
    assert 0 < sum(row.error.value for row in rows) < len(rows)
    alone = fit_audit.fit_audit(days, "a", arms=("b",), repetitions=3, sizes=(2,), n=20)
    assert {row.arm for row in alone} == {"b"}
    assert fit_audit.fit_audit(days, "a", arms=("c",), repetitions=3, sizes=(2,), n=20) == ()


def test_a_sample_draws_users_then_fits_then_slots_then_arms() -> None:
    people = fit_audit.FitPopulation(lived(0.4, n_fits=5))
    for dealing, assignment in (
        ("divided", fit_audit.Assignment.PAIRED),
        ("crossed", fit_audit.Assignment.SPLIT),
    ):
        sample = fit_audit.draw_sample(people, np.random.default_rng(2), 3, 9, dealing, assignment)  # type: ignore[arg-type]
        generator = np.random.default_rng(2)
        assert (sample.users == generator.integers(0, people.n_users, 9)).all()
        assert (sample.fits == generator.integers(0, 5, (2, 3))).all()
        slot, coin = generator.integers(0, 3, 9), generator.integers(0, 2, 9)
        if dealing == "divided":
            assert sample.assigned is None
            assert (sample.slot == slot).all()
        else:
            assert sample.slot is None
            assert (sample.assigned == coin).all()


def test_a_sample_in_which_nothing_varies_says_nothing() -> None:
    still = moments.paired(np.ones(5), np.ones(5))
    sound = moments.paired(np.arange(5.0), np.arange(5.0)[::-1] + np.array([0, 0, 3.0, 0, 0]))
    verdicts = fit_audit._Verdicts([still, sound, sound, still], [still, sound, still, still])
    kind = (fit_audit.Assignment.PAIRED, "crossed", 2, 5)
    absent = np.array([[True, False], [False, True], [True, False], [True, True]])
    row = fit_audit._row("m", "b", kind, verdicts, None, 0.5, absent, OneTest())  # type: ignore[arg-type]
    assert (row.undefined, row.repetitions, row.n_fits, row.n) == (0.75, 4, 2, 5)
    assert row.error == Rate.of(0, 4)


def test_the_jackknife_over_fits_by_hand() -> None:
    """Three fits: shares without each in turn, less what Monte Carlo brings."""
    absent = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], bool)
    counted = np.array([1, 1, 0, 0, 0, 1], bool)
    shares = np.array([3 / 3, 1 / 3, 1 / 3])
    spread = ((shares - shares.mean()) ** 2).sum()
    noise = 0.25 * 3 * (1 / 3 - 1 / 6)
    expected = np.sqrt((spread - noise) * 2 / 3)
    assert fit_audit.between_fits(counted, absent) == pytest.approx(expected)
    assert fit_audit.between_fits(np.ones(6, dtype=bool), absent) == 0.0


def test_arms_are_audited_whose_fits_are_twelve_and_not_all_the_same() -> None:
    many = lived(0.4, n_fits=12)
    assert fit_audit.audited_arms(many) == ("a", "b")
    assert fit_audit.audited_arms(many, (4, 3, 10)) == ("a", "b")
    assert fit_audit.audited_arms(many, (4,)) == ()
    assert fit_audit.audited_arms(replace(many, fits=(12, 11))) == ("a",)
    assert fit_audit.audited_arms(replace(many, fitted_once=frozenset({"a"}))) == ("b",)
    for none in (
        replace(many, lives=()),
        replace(many, assigned=np.zeros(N_USERS, dtype=int)),
        replace(many, switched=np.zeros(1, dtype=int)),
    ):
        assert fit_audit.audited_arms(none) == ()
    assert fit_audit.why_not(many) == ""
    assert fit_audit.why_not(many, (4,)) == (
        "Samples of 4 fits are drawn from 16 or more, and this run has 12. Run the scenario with"
        " `fits: {number: 16, design: crossed}` or more."
    )
    assert fit_audit.why_not(replace(many, fits=(2, 1), lives=())).startswith(
        "The users of this run are divided over its 2 fits"
    )
    assert fit_audit.why_not(replace(many, fits=(1, 1))).startswith("This run has one fit")
    assert fit_audit.is_methods_asked(["split, 5 fits"])
    assert fit_audit.is_methods_asked([])
    assert not fit_audit.is_methods_asked(["split, 4 fits"])
    assert fit_audit.is_methods_asked(["split, 4 fits"], (4,))
