"""The audit against brute force: its samples drawn out and put through the plain analyses, and its
rates on worlds with known answers.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from simulator.cli import main
from simulator.cli.audit import audit as command
from simulator.cli.audit import blocks, content
from simulator.log.metrics import Declared, declared
from simulator.page.blocks import Heading
from simulator.report import audited
from simulator.stats import (
    adjustment,
    moments,
    ordered,
    quantiles,
    randomise,
    tests,
    units,
    verdict,
    wrong,
)
from simulator.stats import audit as audits
from simulator.stats.analyses import ANALYSES, Analysis, Reading, _values, _written_out
from simulator.stats.randomise import Outcomes, Rate, draws
from simulator.stats.rule import OneTest, Rule
from simulator.stats.unit_table import TableError, UnitTable
from simulator.stats.user_days import UserDays
from tests.worlds import paired_log


@pytest.fixture(scope="module")
def paired_days() -> UserDays:
    return units.read(paired_log(), ("watch_time", "click", "click_rate", "like"))


@pytest.fixture(scope="module")
def audit_of_log(paired_days: UserDays) -> audits.Audit:
    return audits.audit(paired_days, "a", repetitions=2000, sizes=(400,), seed=1)


def test_draws_have_the_size_and_do_not_depend_on_the_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads, tails = (np.concatenate(part) for part in zip(*draws(30, 50, 200, 3), strict=True))
    assert ((heads + tails).sum(axis=1) == 50).all()
    assert heads.mean() == pytest.approx(50 / 60, abs=0.05)
    monkeypatch.setattr(randomise, "CELLS", 600)
    again = np.concatenate([h for h, _ in draws(30, 50, 200, 3)])
    assert np.array_equal(heads, again)


@pytest.mark.parametrize("metric", ["watch_time", "click_rate"])
def test_moments_of_samples_are_those_of_the_users_drawn(
    paired_days: UserDays, metric: str
) -> None:
    """Each sample is written out user by user and given to the plain analyses."""
    o = randomise.outcomes(paired_days, "a", "b", metric)
    heads, tails = next(draws(paired_days.n_users, 120, 3, 0))
    (s_null, s_effect), (p_null, p_effect) = (
        randomise.split_pair(o, heads, tails),
        randomise.paired_pair(o, heads, tails),
    )
    d_null, d_effect = randomise.day_pair(o, heads, tails)

    def z(answers: tuple[np.ndarray, ...]) -> np.ndarray:
        return answers[0] if len(answers) == 1 else moments.linearised(*answers)

    for r in range(3):
        h, t = (np.repeat(np.arange(paired_days.n_users), w[r].astype(int)) for w in (heads, tails))
        both = np.concatenate((h, t))
        take = lambda v, at: tuple(x[at] for x in v)  # noqa: E731
        crossed = [
            tuple(np.concatenate((x[h], y[t])) for x, y in zip(*pair, strict=True))
            for pair in ((o.control, o.treatment), (o.treatment, o.control))
        ]
        plain = {
            "split null": (s_null, moments.split(z(take(o.control, h)), z(take(o.control, t)))),
            "split effect": (
                s_effect,
                moments.split(z(take(o.control, h)), z(take(o.treatment, t))),
            ),
            "paired effect": (
                p_effect,
                moments.paired(z(take(o.control, both)), z(take(o.treatment, both))),
            ),
            "paired null": (p_null, moments.paired(*(z(c) for c in crossed))),
            "day effect": (
                d_effect,
                moments.paired(
                    *(
                        z(tuple(v[both].sum(axis=0) for v in d))
                        for d in (o.control_days, o.treatment_days)
                    )
                ),
            ),
        }
        for name, (many, one) in plain.items():
            many_t, one_t = np.asarray(tests.t_test(many).statistic)[r], tests.t_test(one).statistic
            assert many_t == pytest.approx(one_t, rel=1e-8), name
            ratio = np.asarray(many.treatment)[r] / np.asarray(many.control)[r]
            assert ratio == pytest.approx(one.treatment / one.control, rel=1e-10), name
    assert d_null.df[0] == paired_days.days - 1


@pytest.mark.parametrize("metric", ["click", "watch_time"])
def test_ranks_and_quantiles_of_samples_are_those_of_the_users_drawn(
    paired_days: UserDays, metric: str
) -> None:
    o = randomise.outcomes(paired_days, "a", "b", metric)
    heads, tails = next(draws(paired_days.n_users, 300, 4, 5))
    ranks, nobody = (
        ordered.rank_sum_z(o.control[0], heads, o.treatment[0], tails),
        np.zeros_like(heads),
    )
    signed = ordered.signed_rank_z(o.treatment[0] - o.control[0], heads, nobody)
    assert ordered.signed_rank_z(o.treatment[0] - o.control[0], nobody, heads) == pytest.approx(
        -signed
    )
    assert ordered.rank_sum_z(o.control[0], heads, o.control[0], tails) == pytest.approx(
        ordered.rank_sum_z(o.control[0], heads, o.control[0].copy(), tails)
    )
    _, split = quantiles.quantile_pair(o, heads, tails, 0.5, paired=False)
    _, twins = quantiles.quantile_pair(o, heads, tails, 0.9, paired=True)
    for r in range(4):
        h, t = (np.repeat(np.arange(paired_days.n_users), w[r].astype(int)) for w in (heads, tails))
        p = stats.mannwhitneyu(
            o.treatment[0][t], o.control[0][h], use_continuity=False, method="asymptotic"
        ).pvalue
        assert 2 * stats.norm.sf(abs(ranks[r])) == pytest.approx(p)
        assert 2 * stats.norm.sf(abs(signed[r])) == pytest.approx(
            tests.wilcoxon(o.control[0][h], o.treatment[0][h]).p
        )
        both = np.concatenate((h, t))
        for many, one in (
            (
                split,
                quantiles.quantile_moments(o.control[0][h], o.treatment[0][t], 0.5, paired=False),
            ),
            (
                twins,
                quantiles.quantile_moments(
                    o.control[0][both], o.treatment[0][both], 0.9, paired=True
                ),
            ),
        ):
            assert (many.control[r], many.treatment[r]) == pytest.approx(
                (one.control, one.treatment)
            )
            assert np.sqrt(many.variance[r]) == pytest.approx(np.sqrt(one.variance), rel=1e-6)


def test_ranks_of_a_ratio_are_those_that_the_report_prints(paired_days: UserDays) -> None:
    """Each sample written out user by user, on the one scale of both arms; the null of twins leaves
    ranks as the swap does.
    """
    o = randomise.outcomes(paired_days, "a", "b", "click_rate")
    heads, tails = next(draws(paired_days.n_users, 300, 3, 5))
    by_name = {a.name: a for a in ANALYSES}
    sums = by_name["rank sum"].make(o, heads, tails)[1]
    null, signed = by_name["Wilcoxon"].make(o, heads, tails)
    for r in range(3):
        h, t = (np.repeat(np.arange(paired_days.n_users), w[r].astype(int)) for w in (heads, tails))
        control, treatment = (
            tuple(v[rows] for v in side) for side, rows in ((o.control, h), (o.treatment, t))
        )
        values = moments.linearised_alike(control, treatment)
        p = stats.mannwhitneyu(
            values[1], values[0], use_continuity=False, method="asymptotic"
        ).pvalue
        assert 2 * stats.norm.sf(abs(sums[r])) == pytest.approx(p)
        both = np.concatenate((h, t))
        twins = moments.linearised_alike(
            tuple(v[both] for v in o.control), tuple(v[both] for v in o.treatment)
        )
        assert 2 * stats.norm.sf(abs(signed[r])) == pytest.approx(tests.wilcoxon(*twins).p)
        swap = np.arange(len(both)) >= len(h)
        swapped = np.where(swap, twins[1], twins[0]), np.where(swap, twins[0], twins[1])
        assert 2 * stats.norm.sf(abs(null[r])) == pytest.approx(tests.wilcoxon(*swapped).p)


def test_what_is_printed_beside_the_verdict_is_audited(audit_of_log: audits.Audit) -> None:
    rows = {(row.metric, row.analysis): row for row in audit_of_log.rows}
    known = {a.name for a in ANALYSES}
    few = {
        "split, p90",
        "paired, p90",
        "Welch, post-stratified",
    }  # 400 users have too few beyond that quantile, and in one stratum
    assert {a for m, a in rows if m == "watch_time"} == known - few
    for name in ("Wilcoxon", "rank sum", "paired, winsorised", "Welch, winsorised"):
        assert rows["click", name].error.value == pytest.approx(0.05, abs=0.02), name
    for name in ("Wilcoxon", "rank sum"):
        assert rows["click_rate", name].error.value == pytest.approx(0.05, abs=0.02), name
    for name in ("split, p50", "paired, p50"):
        assert rows["watch_time", name].error.value < 0.07, name
    assert np.isnan(rows["click", "Wilcoxon"].coverage.value)


def test_defaults_hold_on_a_well_behaved_world(audit_of_log: audits.Audit) -> None:
    for row in audit_of_log.rows:
        if row.default:
            assert row.holds, row.warning
            assert row.error.low < 0.05 < row.error.high or row.holds
            assert abs(row.bias) < 0.02
    assert {row.metric for row in audit_of_log.rows} == {"watch_time", "click", "click_rate"}


@pytest.mark.parametrize("rule", [Rule(0.8), Rule(0.9, "better"), Rule(0.99, "better")])
def test_any_level_and_one_sided_tests_are_counted_as_the_report_makes_them(
    paired_days: UserDays, rule: Rule
) -> None:
    """Size and coverage are those of the rule, and a sample is read as the report's row."""
    guarded = {"click": Declared(role="deterioration")}  # asked whether it is worse
    days = replace(paired_days, metrics=declared(paired_days.metrics, guarded))
    found = audits.audit(days, "a", repetitions=2000, sizes=(400,), seed=1, rule=rule)
    sides = {"watch_time": "greater", "click": "less", "click_rate": "greater"}
    for row in found.rows:
        wished = sides[row.metric] if rule.alternative == "better" else "two-sided"
        assert (row.level, row.alternative) == (rule.level, wished)
        if row.default:
            assert row.holds, row.warning
            assert row.error.near(rule.alpha, 2000)
            assert row.coverage.near(rule.level, 2000)
    for look in found.looking:
        slack = 4 * np.sqrt(rule.alpha * rule.level / 2000)
        assert look.error.value < rule.alpha + slack, look
    heads, tails = next(draws(days.n_users, 300, 1, 5))
    for analysis in (one for one in ANALYSES if one.name == "paired t, Fieller"):
        for name, metric in days.metrics.items():
            if name in days.missing:
                continue
            _, effect = analysis.make(randomise.outcomes(days, "a", "b", name), heads, tails)
            read = analysis.read(effect, rule.test(metric))
            again = np.repeat(np.arange(days.n_users), (heads + tails)[0].astype(int))
            (lift,) = verdict.lifts(
                days.users(again).by("user"), "a", metrics=[name], correction="none", rule=rule
            )
            assert (read.low[0], read.high[0]) == pytest.approx((lift.low, lift.high))
            assert bool(read.rejected[0]) == (lift.p < rule.alpha)


def test_a_report_by_another_rule_than_its_audit_says_so(
    audit_of_log: audits.Audit, tmp_path: Path
) -> None:
    (tmp_path / "audit.json").write_text(json.dumps(content(audit_of_log)), encoding="utf-8")
    summary = audited.beside(tmp_path)
    assert summary is not None
    assert summary.rule == Rule()
    assert audited.check(summary, Rule()).status == "green"
    check = audited.check(summary, Rule(0.99, "better"))
    assert check.status == "amber"
    for words in ("95%, two-sided", "99%, one-sided", "--level 99% --alternative better"):
        assert words in check.meaning


def test_twins_are_more_powerful_and_cuped_helps(audit_of_log: audits.Audit) -> None:
    power = {(row.metric, row.analysis): row.power.value for row in audit_of_log.rows}
    for metric in ("watch_time", "click"):
        assert (
            power[metric, "paired t, Fieller"]
            > power[metric, "CUPED t, Fieller"]
            > power[metric, "Welch t, Fieller"]
        )


def test_a_planted_lift_is_recovered(audit_of_log: audits.Audit) -> None:
    assert len(audit_of_log.planted) == 6
    for p in audit_of_log.planted:
        assert p.pooled == pytest.approx(0.005, abs=4 * p.error)
        assert p.coverage.near(0.95, 2000)
    assert min(p.error for p in audit_of_log.planted) < 0.0005


def test_wrong_analyses_are_wrong(audit_of_log: audits.Audit) -> None:
    rate = {(w.analysis, w.metric): w.error for w in audit_of_log.wrong}
    assert rate["user-days as independent", "click"].low > 0.15
    assert rate["impressions as independent", "click_rate"].low > 0.15
    assert rate["5 peeks", "click"].low > 0.055


def test_five_independent_days_with_z_reject_12_percent() -> None:
    """Differences that are independent from day to day: P(|t(4)| > 1.96) = 12.2%."""
    rng = np.random.default_rng(0)
    n, zero = 3000, np.zeros(3000)
    control, treatment = rng.normal(10, 1, (2, n, 5))
    o = Outcomes("x", "b", (zero,), (zero,), (control,), (treatment,), None)
    rejects = wrong._days_with_z(o, 1.96)
    count = sum(np.count_nonzero(rejects(h, t)) for h, t in draws(n, n, 1000, 0))
    assert count / 1000 == pytest.approx(0.1216, abs=4 * np.sqrt(0.1216 * 0.8784 / 1000))


def test_five_peeks_at_independent_increments_reject_14_percent() -> None:
    """Users whose days are independent: the classical 14.2% of five equally spaced looks (Armitage,
    McPherson & Rowe 1969).
    """
    rng = np.random.default_rng(0)
    n, zero = 2000, np.zeros(2000)
    o = Outcomes("x", "b", (zero,), (zero,), (rng.normal(10, 1, (n, 5)),), (zero[:, None],), None)
    rejects = wrong._peeks(o, 0.05)
    count = sum(np.count_nonzero(rejects(h, t)) for h, t in draws(n, n, 2000, 0))
    assert count / 2000 == pytest.approx(0.142, abs=4 * np.sqrt(0.142 * 0.858 / 2000))


def test_an_arm_without_an_impression_is_no_warning() -> None:
    """It is drawn where most users never come; the suite turns warnings into errors."""
    days = units.read(paired_log(n_users=4))
    none = {
        name: np.where(np.arange(4)[None, :, None] == 0, one, 0) for name, one in days.terms.items()
    }
    (found,) = (
        one
        for one in wrong.wrong_analyses(replace(days, terms=none), "a", 100, 0)
        if one.metric == "click_rate"
    )
    assert 0.0 <= found.error.value <= 1.0


def test_impressions_that_are_independent_are_rightly_taken_for_independent() -> None:
    """Every impression is clicked with the same chance, whoever sees it: the test that is wrong for
    people is right here, and rejects 5%.
    """
    rng = np.random.default_rng(0)
    shown = rng.poisson(8, (1, 400, 1)) + 1.0
    metrics = {metric.name: metric for metric in units.chosen(["click_rate"])}
    terms = {"click": rng.binomial(shown.astype(int), 0.3).astype(float), "impressions": shown}
    alike = {name: np.repeat(cube, 2, axis=0) for name, cube in terms.items()}
    days = UserDays(("a", "b"), 400, 1, metrics, alike, {})
    (one,) = wrong.wrong_analyses(days, "a", 2000, 3)
    assert one.analysis == "impressions as independent"
    assert one.error.value == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 2000))


def test_stacked_samples_are_numpys_means_and_covariances() -> None:
    columns = np.random.default_rng(0).normal(size=(2, 3, 5))
    sample = moments.stacked(list(columns))
    for i in range(3):
        assert sample.n[i] == 5
        assert sample.mean[i] == pytest.approx(columns[:, i].mean(axis=-1))
        assert sample.cov[i] == pytest.approx(np.cov(columns[:, i]))


def test_events_are_the_users_of_an_arm_that_have_any(
    audit_of_log: audits.Audit, paired_days: UserDays
) -> None:
    by_user = paired_days.by("user").numerators
    for row in audit_of_log.rows:
        share = (by_user[row.metric][0] != 0).mean()
        users = row.n / 2 if row.design == "split" else row.n
        assert row.events == pytest.approx(share * users)
        assert row.undefined == 0


def test_looking_every_day_is_honest_on_the_run(audit_of_log: audits.Audit) -> None:
    assert {(look.metric, look.design) for look in audit_of_log.looking} == {
        (m, d) for m in ("watch_time", "click") for d in ("paired", "split")
    }
    for look in audit_of_log.looking:
        assert look.error.low < 0.05, look
    strict = [look.error.value for look in audit_of_log.looking if look.rule == "always_valid"]
    assert max(strict) < 0.05


def test_a_ratio_is_permuted_on_one_scale_and_bootstrapped_on_each_arms_own() -> None:
    random = np.random.default_rng(2)
    control, treatment = (list(random.gamma(2.0, 1.0, (2, 9))) for _ in range(2))
    together = moments.linearised_alike(tuple(control), tuple(treatment))
    apart = moments.linearised(*control), moments.linearised(*treatment)
    for common, expected in ((True, together), (False, apart)):
        found = _values(control, treatment, common)
        assert [one.tolist() for one in found] == [one.tolist() for one in expected]
    assert together[0].tolist() != apart[0].tolist()
    found = _values(control[:1], treatment[:1], True)
    assert [one.tolist() for one in found] == [control[0].tolist(), treatment[0].tolist()]


@pytest.mark.parametrize("paired", [True, False])
def test_samples_are_written_out_user_by_user(paired: bool) -> None:
    """Heads keep their arm; under the null tails change places (twins) or are the control's own."""
    control, treatment = (np.array([1.0, 2, 3]),), (np.array([10.0, 20, 30]),)
    o = Outcomes("x", "b", control, treatment, control, treatment, None)
    heads, tails = np.array([[2.0, 0, 1]]), np.array([[0.0, 1, 1]])
    (null,), (effect,) = _written_out(o, heads, tails, paired=paired, common=False)
    if paired:
        assert [one.tolist() for one in null] == [[1, 1, 3, 20, 30], [10, 10, 30, 2, 3]]
        assert [one.tolist() for one in effect] == [[1, 1, 3, 2, 3], [10, 10, 30, 20, 30]]
    else:
        assert [one.tolist() for one in null] == [[1, 1, 3], [2, 3]]
        assert [one.tolist() for one in effect] == [[1, 1, 3], [20, 30]]


def test_resampling_is_audited_on_request(paired_days: UserDays) -> None:
    found = audits.audit(
        paired_days,
        "a",
        repetitions=200,
        sizes=(60,),
        resamples=199,
        analyses=["permutation", "BCa"],
        seed=2,
    )
    assert {row.analysis for row in found.rows} == {
        f"{d}, {name}" for d in ("paired", "split") for name in ("permutation", "BCa bootstrap")
    }
    for row in found.rows:
        assert row.repetitions == 200
        exact = "permutation" in row.analysis  # a BCa interval of 30 users an arm is a little short
        assert abs(row.error.value - 0.05) < (4 if exact else 6) * np.sqrt(0.05 * 0.95 / 200), row
        assert exact or row.coverage.value > 0.86
    assert (found.planted, found.wrong, found.looking) == ((), (), ())
    with pytest.raises(
        TableError, match="no analysis is called 'zzz'; there are 'paired t, Fieller', "
    ):
        audits.audit(paired_days, "a", analyses=["zzz"])


def test_post_stratified_samples_are_those_of_the_users_drawn(paired_days: UserDays) -> None:
    o = randomise.outcomes(paired_days, "a", "b", "watch_time")
    assert o.strata is not None
    o = replace(o, strata=o.strata % 2)
    assert o.strata is not None
    heads, tails = next(draws(paired_days.n_users, 300, 3, 5))
    _, effect = randomise.stratified_pair(o, heads, tails)
    for r in range(3):
        h, t = (np.repeat(np.arange(paired_days.n_users), w[r].astype(int)) for w in (heads, tails))
        table = UnitTable(
            "user",
            ("a", "b"),
            {"watch_time": paired_days.metrics["watch_time"]},
            {"watch_time": np.concatenate((o.control[0][h], o.treatment[0][t]))},
            assigned=np.repeat([0, 1], [len(h), len(t)]),
            groups={"g": np.concatenate((o.strata[h], o.strata[t]))},
        )
        one = adjustment.post_stratified(table, "watch_time", "a", "b", "g")
        assert (effect.control[r], effect.treatment[r]) == pytest.approx(
            (one.control, one.treatment)
        )
        assert (effect.variance[r], effect.df[r]) == pytest.approx((one.variance, one.df))


def test_a_large_run_is_audited_on_some_of_its_users(paired_days: UserDays) -> None:
    found = audits.audit(paired_days, "a", repetitions=100, sizes=(50,), most=150)
    assert found.n_users == 150
    some = paired_days.users(np.array([3, 1]))
    assert np.array_equal(some.terms["click"], paired_days.terms["click"][:, [3, 1]])
    assert some.before["click"].tolist() == paired_days.before["click"][[3, 1]].tolist()


def test_a_split_run_cannot_be_audited(paired_days: UserDays) -> None:
    with pytest.raises(TableError, match="both answers"):
        audits.audit(replace(paired_days, assigned=np.zeros(paired_days.n_users, dtype=int)), "a")


def test_a_run_of_which_nothing_can_be_audited_is_refused(paired_days: UserDays) -> None:
    with pytest.raises(TableError, match="no other arm"):
        audits.audit(paired_days.of_arms(np.array([0])), "a", repetitions=100)
    with pytest.raises(TableError, match="takes 20 of them or more; this run has 19"):
        audits.audit(paired_days.users(np.arange(19)), "a", repetitions=100)


def test_identical_arms_are_not_said_to_hold(paired_days: UserDays) -> None:
    same = paired_days.of_arms(np.array([0, 0]))
    found = audits.audit(
        replace(same, arms=("a", "b")), "a", repetitions=100, sizes=(50,), decision_repetitions=100
    )
    (said,) = (
        block.text
        for block in blocks(found)
        if isinstance(block, Heading) and block.text.startswith("Every default")
    )
    of_twins = [row for row in found.rows if row.default and row.design == "paired"]
    assert of_twins
    assert all(row.undefined == 1.0 for row in of_twins)
    assert f"that could be audited holds; {len(of_twins)} of" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", ".", "--resamples", "5"],
        ["audit", ".", "--predictions", "5"],
        ["pooled", ".", "--repetitions", "5"],
        ["power", ".", "--simulate", "5"],
    ],
)
def test_so_few_samples_that_they_say_nothing_are_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert f"'{arguments[2]}': at least 100, or 0 for none; got 5" in result.output


def test_command(tmp_path: Path) -> None:
    paired_log(n_users=60).write(tmp_path / "log" / "part.parquet")
    result = CliRunner().invoke(
        command, [str(tmp_path), "--repetitions", "100", "--sizes", "20,60"]
    )
    assert result.exit_code == 0, result.output
    stored = json.loads((tmp_path / "audit.json").read_text())
    assert stored["repetitions"] == 100
    assert {row["n"] for row in stored["rows"]} == {20, 60}
    assert "identical" not in result.output or "paired" in result.output
    chosen = ["--level", "90%", "--alternative", "better", "--analysis", "paired t, Fieller"]
    one_sided = CliRunner().invoke(
        command, [str(tmp_path), "--repetitions", "100", "--sizes", "60", *chosen]
    )
    assert one_sided.exit_code == 0, one_sided.output
    assert "tests at 90%, one-sided" in " ".join(one_sided.output.split())
    part = json.loads((tmp_path / "audit-part.json").read_text())
    assert part["rule"] == {"level": 0.9, "alternative": "better"}
    assert {(row["level"], row["alternative"]) for row in part["rows"]} >= {(0.9, "greater")}
    asked = ["--metric", "click", "--repetitions", "100", "--sizes", "20"]
    one = CliRunner().invoke(command, [str(tmp_path), *asked])
    assert one.exit_code == 0, one.output
    part = json.loads((tmp_path / "audit-part.json").read_text())
    assert {row["metric"] for row in part["rows"]} == {"click"}
    none = CliRunner().invoke(command, [str(tmp_path), "--metric", "clicks"])
    assert none.exit_code == 2
    assert "no metric 'clicks'; there are" in " ".join(none.output.split())
    bad = CliRunner().invoke(command, [str(tmp_path), "--sizes", "x"])
    assert bad.exit_code == 2
    missing = CliRunner().invoke(command, [str(tmp_path / "nowhere")])
    assert missing.exit_code == 2


def analysis_row(**changes: Any) -> audits.AuditedAnalysis:
    error, power, coverage = (Rate(x, 0.0, 1.0) for x in (0.05, 0.5, 0.95))
    row = audits.AuditedAnalysis("click", "b", "split", "Welch t", 500, 400, error, power, coverage,
                                 0.0, 0.0, 0.1, 0.0, 250.0, True)  # fmt: skip
    return replace(row, **changes)


def test_an_analysis_holds_within_three_errors_on_both_sides() -> None:
    """Of 400 samples 5% and 95% have an error of .0109."""
    error = np.sqrt(0.05 * 0.95 / 400)
    assert analysis_row().holds
    assert analysis_row().warning is None
    for off, holds in ((2.99 * error, True), (3.01 * error, False)):
        for sign in (-1, 1):
            for name, nominal in (("error", 0.05), ("coverage", 0.95)):
                row = analysis_row(**{name: Rate(nominal + sign * off, 0.0, 1.0)})
                assert (row.holds, row.warning is None) == (holds, holds)
    wrong_rates = {"error": Rate(0.2, 0.0, 1.0), "coverage": Rate(0.8, 0.0, 1.0)}
    assert analysis_row(**wrong_rates).warning == (
        "click, Welch t, 500 users: false positives 20.0% instead of 5%, coverage 80.0% instead of"
        " 95%"
    )
    for events, rare in ((100.0, False), (99.4, True)):
        said = analysis_row(error=Rate(0.2, 0.0, 1.0), events=events).warning
        assert ("instead of 5% (only about 99 users with events an arm)" in str(said)) is rare
    assert analysis_row(**wrong_rates, undefined=1.0).holds
    assert not analysis_row(**wrong_rates, undefined=0.99).holds
    other = analysis_row(**wrong_rates, level=0.8)
    assert other.holds, "20% and 80% are what is nominal"
    assert analysis_row(level=0.8).warning == (
        "click, Welch t, 500 users: false positives 5.0% instead of 20%, coverage 95.0% instead of"
        " 80%"
    )
    assert analysis_row().alternative == "two-sided"


def reading(test: OneTest, value: float, n: int = 4) -> Reading:
    """Samples whose lifts are -10%, 0, 10% and none, with intervals of .1 around them."""
    treatment = np.array([0.9, 1.0, 1.1, 1.0])[:n] * value
    control = np.array([1.0, 1.0, 1.0, 0.0])[:n] * value
    lift = np.array([-0.1, 0.0, 0.1, 0.0])[:n]
    rejected = np.array([True, False, True, True])[:n]
    return Reading(rejected, lift - 0.1, lift + 0.1, control, treatment,
                   np.array([True, True, True, False])[:n])  # fmt: skip


def test_a_tally_counts_errors_power_coverage_and_bias() -> None:
    test = OneTest(0.9, "greater")
    tally = audits._Tally(test)

    def read(made: Any, how: OneTest) -> Reading:
        assert how is test
        one = reading(how, 2.0)
        return one if made == "effect" else one._replace(rejected=np.array([False, True, False, False]))  # noqa: E501 # fmt: skip

    tally.add(read, ("null", "effect"), 0.1)
    tally.add(read, ("null", "effect"), 0.0)
    counted = (tally.rejected_null, tally.rejected, tally.undefined, tally.total)
    assert counted == (2, 6, 2, 8)
    # Of [-.2, 0], [-.1, .1], [0, .2] and [-.1, .1] those that hold .1, then 0: ends count.
    assert tally.covered == 3 + 4
    errors = np.array([-0.2, -0.1, 0.0, -0.1, 0.0, 0.1])
    bias, error = tally.bias
    assert bias == pytest.approx(errors.mean())
    assert error == pytest.approx(errors.std() / np.sqrt(6))
    empty = audits._Tally(test)
    assert np.isnan(empty_bias(empty)).all()


def empty_bias(tally: audits._Tally) -> tuple[float, float]:
    """Of samples none of which has a lift."""
    tally.errors.append(np.zeros(0))
    return tally.bias


def people(n: int = 30) -> Outcomes:
    random = np.random.default_rng(1)
    c, t = random.poisson(1.0, n) * 1.0, random.poisson(1.3, n) * 1.0
    return Outcomes("click", "b", (c,), (t,), (c[:, None],), (t[:, None],), None)


def never(*_: Any) -> Any:
    raise AssertionError


def test_rounding_at_the_ends_of_an_interval_is_no_lack_of_coverage() -> None:
    for truth in (0.5, -3.0):
        for slack, covers in ((0.9e-9, 1), (1.1e-9, 0)):
            for sign in (1, -1):
                end = truth + sign * slack * (1 + abs(truth))
                low, high = (end, 1e9) if sign > 0 else (-1e9, end)
                nothing = np.full(1, np.nan)
                one = Reading(
                    nothing > 0, np.array([low]), np.array([high]), nothing, nothing, nothing > 0
                )
                tally = audits._Tally(OneTest())
                tally.add(lambda made, test, one=one: one, ("null", "effect"), truth)
                assert tally.covered == covers, (truth, slack, sign)


def test_a_row_of_a_tally_has_its_rates_its_truth_and_its_events() -> None:
    tally = audits._Tally(OneTest(0.9, "greater"))
    tally.add(lambda made, test: reading(test, 2.0), ("null", "effect"), 0.1)
    o = people()
    doubled = replace(o, treatment=(2 * o.treatment[0],))
    plain = Analysis("mine", "split", never, never, verdict=True, prepare=lambda _: doubled)
    row = tally.row(o, plain, 12)
    share = (o.control[0] != 0).mean()
    assert row == audits.AuditedAnalysis(
        "click", "b", "split", "mine", 12, 4, Rate.of(3, 4), Rate.of(3, 4), Rate.of(3, 4),
        *tally.bias, doubled.lift, 0.25, share * 6, True, 0.9, "greater",
    )  # fmt: skip
    ranks = tally.row(o, replace(plain, truth=None, design="paired", verdict=False), 12)
    assert np.isnan([ranks.coverage.value, ranks.lift]).all()
    assert (ranks.events, ranks.default, ranks.error) == (share * 12, False, Rate.of(3, 4))


def test_a_planted_lift_is_recovered_from_the_means_of_all_samples() -> None:
    a = Analysis("Welch t, Fieller", "split", never, never)
    tally = audits._Tally(OneTest())
    tally.add(lambda made, test: reading(test, 2.0), ("null", "effect"), 0.005)
    tally.add(lambda made, test: reading(test, 3.0, 3), ("null", "effect"), 0.005)
    found = audits._planted("click", a, 12, tally)
    c = np.array([2.0, 2, 2, 0, 3, 3, 3])
    t = np.array([1.8, 2, 2.2, 2, 2.7, 3, 3.3])
    ratio = t.mean() / c.mean()
    cov = np.cov(c, t) / 7
    variance = (cov[1, 1] - 2 * ratio * cov[0, 1] + ratio**2 * cov[0, 0]) / c.mean() ** 2
    expected = audits.Planted(
        "click", "split", 12, 0.005, 0.0, ratio - 1, np.sqrt(variance), Rate.of(tally.covered, 7),
        Rate.of(5, 7),
    )  # fmt: skip
    for name in ("metric", "design", "n", "planted", "coverage", "power"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.mean == pytest.approx(np.mean([-0.1, 0, 0.1] * 2))
    assert (found.pooled, found.error) == pytest.approx((expected.pooled, expected.error))
    assert audits.PLANTED == 0.005


def fake(name: str, made: list[Any], **more: Any) -> Analysis:
    """An analysis that notes what it is given, and rejects nothing."""

    def make(o: Outcomes, heads: np.ndarray, tails: np.ndarray) -> tuple[Any, Any]:
        made.append((name, o.metric, o.arm, heads.sum(axis=1)[0] + tails.sum(axis=1)[0], len(heads),
                     round(o.lift, 9)))  # fmt: skip
        return len(heads), len(heads)

    def read(n: int, test: OneTest) -> Reading:
        zero = np.zeros(n)
        return Reading(zero > 0, zero - 9, zero + 9, zero + 1, zero + 1, zero == 0)

    return Analysis(name, "paired", make, read, **more)


def user_days(n: int = 100) -> UserDays:
    """Three arms; of the metrics one is always 0, one a quantile, and one has no data."""
    random = np.random.default_rng(2)
    names = ("click", "like", "watch_time", "comment", "long_view")
    quantiles_of = {"watch_time": Declared(quantile=0.5), "long_view": Declared(quantile=0.9)}
    of = declared({m.name: m for m in units.chosen(list(names))}, quantiles_of)
    terms = {
        "click": random.poisson(3.0, (3, n, 2)) * 1.0,
        "like": np.zeros((3, n, 2)),
        "watch_time": random.gamma(2.0, 1.0, (3, n, 2)),
    }
    terms |= {t.name: terms["watch_time"] for t in of["watch_time"].terms}
    return UserDays(("a", "b", "c"), n, 2, of, terms, {})


def test_an_audit_counts_each_analysis_at_its_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    analyses = (
        fake("paired t, Fieller", made),
        fake("ranks", made, slow=True, truth=None),
        fake("quantile", made, slow=True, smooth=True),
        fake("few", made, samples=5),
        fake("never", made, fits=lambda o, n: False),
    )
    asked: dict[str, Any] = {}

    def noted(name: str) -> Any:
        def call(*args: Any, **more: Any) -> tuple[()]:
            asked[name] = (args[1:], more)
            return ()

        return call

    for name in ("fit_audit", "decision_audit", "wrong_analyses", "looking"):
        monkeypatch.setattr(audits, name, noted(name))
    monkeypatch.setattr(audits, "ANALYSES", analyses)
    monkeypatch.setattr(randomise, "CELLS", 2 * 100 * 4)  # chunks of 4 samples
    calls: list[Any] = []

    def progress(*one: Any) -> None:
        calls.append(one)

    days, rule = user_days(), Rule(0.9)
    found = audits.audit(
        days, "a", arms=("c",), repetitions=6, sizes=(30, 25, 40), seed=4, fits=(3,),
        fit_repetitions=7, decision_repetitions=8, rule=rule, progress=progress,
    )  # fmt: skip
    # 25 users leave room for 4 times as many in the run's 100; 40 is the largest size.
    assert [(row.analysis, row.n, row.repetitions, row.metric, row.arm) for row in found.rows] == [
        (name, n, 5 if name == "few" else 6, "click", "c")
        for n, names in (
            (30, ("paired t, Fieller", "few")),
            (25, ("paired t, Fieller", "quantile", "few")),
            (40, ("paired t, Fieller", "ranks", "few")),
        )
        for name in names
    ]
    truth = round(randomise.outcomes(days, "a", "c", "click").lift, 9)
    at_30 = [one for one in made if one[3] == 30]
    assert at_30 == [
        ("paired t, Fieller", "click", "c", 30.0, 4, truth), ("few", "click", "c", 30.0, 4, truth),
        ("paired t, Fieller", "click", "c", 30.0, 2, truth), ("few", "click", "c", 30.0, 1, truth),
    ]  # fmt: skip
    planted = [one for one in made if one[5] == audits.PLANTED]
    assert [one[0:4] for one in planted] == [("paired t, Fieller", "click", "c", 40.0)] * 2
    assert [(one.metric, one.n, one.design) for one in found.planted] == [("click", 40, "paired")]
    assert calls == [
        ("audit", done, 18, {}) for done in (4, 6, 10, 12, 16, 18)
    ]  # fmt: skip
    assert (found.control, found.repetitions, found.n_users, found.rule) == ("a", 6, 100, rule)
    assert found.left_out == {
        "a quantile or a figure of choice": ("watch_time", "long_view"),
        "no data": ("comment",),
        "no relative lift, for the control's mean is 0, or a ratio divides by nothing": ("like",),
    }
    common = {"seed": 4, "rule": rule, "progress": progress, "arms": ("c",)}
    assert asked["fit_audit"] == (
        ("a",), {**common, "repetitions": 7, "sizes": (3,), "n": 25, "analyses": ()}
    )  # fmt: skip
    assert asked["decision_audit"] == (
        ("a",), {**common, "repetitions": 8, "n": 40, "fits": (3,), "fit_n": 25}
    )  # fmt: skip
    alpha = pytest.approx(0.1)
    assert asked["wrong_analyses"] == asked["looking"] == (("a", 6, 4, alpha), {})
    assert {(row.level, row.alternative) for row in found.rows} == {(0.9, "two-sided")}
    # Of some analyses that are named, nothing else is counted.
    made.clear()
    asked.clear()
    some = audits.audit(days, "a", repetitions=3, sizes=(99, 30), analyses=["ranks", "few"])
    assert [(row.analysis, row.n, row.arm) for row in some.rows] == [
        ("ranks", 99, "b"), ("few", 99, "b"), ("ranks", 99, "c"), ("few", 99, "c"),
        ("few", 30, "b"), ("few", 30, "c"),
    ]  # fmt: skip
    assert (some.planted, some.wrong, some.looking) == ((), (), ())
    assert asked.keys() == {"fit_audit"}
    # No size leaves room: the smallest is taken.
    assert asked["fit_audit"][1]["n"] == 30
    with pytest.raises(TableError) as refusal:
        audits.audit(days, "a", analyses=["x", "y"])
    assert str(refusal.value) == (
        "no analysis is called 'x' or 'y'; there are 'paired t, Fieller', 'ranks', 'quantile',"
        " 'few', 'never'; 'methods', in a run of twins who live with every fit; and 'decision', in"
        " a run with a success metric"
    )


def test_resampling_and_predictions_are_there_where_they_are_asked_for() -> None:
    days = user_days()
    for more, there in (
        ({}, ()),
        ({"resamples": 100}, ("permutation", "BCa")),
        ({"predictions": 100}, ("MLRATE",)),
    ):
        with pytest.raises(TableError) as refusal:
            audits.audit(days, "a", analyses=["no such"], **more)  # type: ignore[arg-type]
        for name in ("permutation", "BCa", "MLRATE"):
            assert (name in str(refusal.value)) is (name in there)


def test_a_run_of_20_users_is_enough_and_of_more_than_most_some_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(audits, "ANALYSES", (fake("one", made),))
    days = user_days().users(np.arange(20))
    assert audits.audit(days, "a", repetitions=1, sizes=(5,), analyses=["one"]).n_users == 20
    assert audits.audit(days, "a", repetitions=1, sizes=(5,), analyses=["one"], most=20).rows
    some = audits.audit(days, "a", repetitions=1, sizes=(5,), analyses=["one"], most=19, seed=3)
    assert some.n_users == 19
    kept = np.sort(np.random.default_rng(3).permutation(20)[:19])
    truth = randomise.outcomes(days.users(kept), "a", "b", "click").lift
    assert some.rows[0].lift == pytest.approx(truth)


def test_nothing_is_planted_in_an_arm_that_had_nothing(paired_days: UserDays) -> None:
    shown, clicked = (paired_days.terms[name] for name in ("impressions", "click"))
    nothing = replace(
        paired_days, terms={"impressions": shown, "click": clicked * [[[1]], [[0]]]}
    ).of_metrics(("click",))
    found = audits.audit(nothing, "a", repetitions=100, sizes=(50,), decision_repetitions=10)
    assert -1.0 in {row.lift for row in found.rows}
    assert found.planted == ()


def test_a_ratio_to_nothing_is_left_out_without_a_warning(paired_days: UserDays) -> None:
    nothing = {name: cube * [[[1]], [[0]]] for name, cube in paired_days.terms.items()}
    days = replace(paired_days, terms=nothing).of_metrics(("click_rate",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = audits.audit(days, "a", repetitions=100, sizes=(50,), decision_repetitions=10)
    assert ("click_rate",) in found.left_out.values()
