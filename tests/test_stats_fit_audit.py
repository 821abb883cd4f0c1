"""The audit of the verdict on methods, on worlds whose fits and users are drawn from known laws."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.cli.audit import blocks, content
from simulator.report import audited
from simulator.stats import audit as audits
from simulator.stats import fit_audit, moments, units
from simulator.stats.fit_audit import AuditedMethods
from simulator.stats.replication import Dealing
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


@pytest.fixture(scope="module")
def spread_out() -> tuple[AuditedMethods, ...]:
    return fit_audit.fit_audit(lived(0.4), "a", repetitions=200, sizes=(3, 5), n=400, seed=2)


def test_methods_hold_their_level_and_cover_the_true_lift(
    spread_out: tuple[AuditedMethods, ...],
) -> None:
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


def test_these_models_are_told_apart_too_often(spread_out: tuple[AuditedMethods, ...]) -> None:
    """A fit's spread of .4 over 3 or 5 fits is a multiple of what 400 twins leave uncertain."""
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
