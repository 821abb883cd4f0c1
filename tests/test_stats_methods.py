"""Verdicts on methods and comparisons of tables: what enters them, in which order, and what not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from simulator.log.metrics import Declared, Metric, declared, metric
from simulator.stats import contrasts, methods, moments, replication, verdict
from simulator.stats.contrasts import TableMoments, compare, influences
from simulator.stats.intervals import quantile
from simulator.stats.margins import Margins, answer_compared
from simulator.stats.methods import FitTables, MethodLift, method_lifts, unknown
from simulator.stats.moments import Moments
from simulator.stats.replication import Components, Replicated
from simulator.stats.rule import Rule
from simulator.stats.unit_table import TableError, UnitTable
from simulator.stats.user_days import UserDays

ARMS = ("a", "b", "c")
N = 24


def lived(n_fits: int = 3, assigned: bool = False, **changes: Any) -> UserDays:
    """Users who live with every fit, in all arms or in one; one metric is a quantile, one has no
    data.
    """
    random = np.random.default_rng(4)
    of = declared(
        {m: metric(m) for m in ("watch_time", "click", "like", "click_rate")},
        {"watch_time": Declared(quantile=0.5)},
    )
    own = random.gamma(4.0, 1.0, (1, 1, N, 1))
    fits = random.normal(0.0, 0.5, (n_fits, 3, 1, 1))
    click = own + fits + random.normal(5.0, 1.0, (n_fits, 3, N, 1))
    shown = 3 * own + random.normal(9.0, 1.0, (n_fits, 3, N, 1))
    who = np.arange(N) % 3 if assigned else None

    def days(clicks: np.ndarray, views: np.ndarray) -> UserDays:
        terms = {"click": clicks, "impressions": views, "watch_time": clicks, "watch": clicks}
        return UserDays(ARMS, N, 1, of, terms, {}, who)

    lives = tuple(days(click[f], shown[f]) for f in range(n_fits))
    whole = days(click.mean(axis=0), shown.mean(axis=0))
    return replace(whole, fits=(n_fits,) * 3, lives=lives, **changes)


def divided(days: UserDays) -> UserDays:
    fits = np.arange(N) % 3
    terms = {
        name: np.stack([np.stack([days.lives[fits[u]].terms[name][arm, u] for u in range(N)])
                        for arm in range(3)])
        for name in days.terms
    }  # fmt: skip
    return replace(days, terms=terms, lives=(), fit_of_user=fits)


def by_hand(days: UserDays, m: str, arm: str) -> Replicated:
    """The comparison of an arm with a, from the sums of every life."""
    tables = [life.by("user") for life in days.lives]
    pooled = compare(days.by("user"), m, "a", arm)
    is_ratio = m == "click_rate"

    def variables(name: str) -> list[np.ndarray]:
        parts = [table.sums(m, name) for table in tables]
        return [half for both in parts for half in both if half is not None]

    width = 2 if is_ratio else 1
    columns = [(width * f, width * f + 1 if is_ratio else None) for f in range(len(tables))]
    if days.assigned is None:
        both = moments.sample(variables("a") + variables(arm))
        shift = width * len(tables)
        then = [(c + shift, None if d is None else d + shift) for c, d in columns]
        return replication.crossed_pairs(pooled, both, columns, then)
    sides = [(moments.sample(variables(name)), columns) for name in ("a", arm)]
    return replication.crossed_split(pooled, *sides)


@pytest.mark.parametrize("assigned", [False, True])
def test_methods_are_compared_arm_by_arm_in_every_mean_that_has_data(assigned: bool) -> None:
    days = lived(assigned=assigned)
    rule = Rule(0.9)
    found = method_lifts(days, "a", rule=rule, correction="dunnett")
    kinds = [(m, arm) for arm in ("b", "c") for m in ("click", "click_rate")]
    results = [by_hand(days, m, arm) for m, arm in kinds]
    rows = verdict.in_families(
        [verdict.Uncorrected(m, arm, "user", one.methods)
         for (m, arm), one in zip(kinds, results, strict=True)],
        days.metrics, "fieller", "bonferroni", rule,
    )  # fmt: skip
    assert [repr(one.lift) for one in found] == [repr(row) for row in rows]
    assert [one.components for one in found] == [one.components for one in results]
    alone = method_lifts(days, "a", interval="delta")
    assert alone[0].lift.low != method_lifts(days, "a")[0].lift.low


def test_divided_users_are_compared_fit_by_fit() -> None:
    days = divided(lived())
    read = FitTables.read(days, "user")
    assert (read.crossed, len(read.each)) == (False, 3)
    own = [days.users(np.flatnonzero(days.fit_of_user == f)).by("user") for f in range(3)]
    parts = [compare(table, "click", "a", "b") for table in own]
    expected = replication.divided(compare(days.by("user"), "click", "a", "b"), parts)
    assert read.replicated("click", "a", "b") == expected
    nobody = replace(days, fit_of_user=np.where(days.fit_of_user == 1, 0, days.fit_of_user))
    assert len(FitTables.read(nobody, "user").each) == 2, "a fit that nobody lives with is none"


def test_arms_of_one_fit_say_nothing_unless_all_fits_are_the_same() -> None:
    days = lived()
    assert unknown(days, "a", "b") is None
    one = replace(days, fits=(3, 1, 3))
    assert unknown(one, "a", "b") == "one fit of b"
    assert unknown(one, "b", "c") == "one fit of b"
    assert unknown(one, "a", "c") is None
    assert unknown(replace(one, fits=(1, 1, 3)), "a", "b") == "one fit"
    assert unknown(replace(one, fits=()), "a", "b") == "one fit"
    assert unknown(replace(one, fitted_once=frozenset({"b"})), "a", "b") is None
    assert {row.lift.arm for row in method_lifts(one, "a")} == {"c"}
    assert method_lifts(replace(days, fits=(1, 3, 3)), "a") == []
    same = replace(days, fitted_once=frozenset({"a", "b"}))
    read = FitTables.read(same, "user").replicated("click", "a", "b")
    assert read == replication.same_model(compare(same.by("user"), "click", "a", "b"), 3)
    other = FitTables.read(same, "user").replicated("click", "a", "c")
    assert other == by_hand(days, "click", "c")


@dataclass
class Supply:
    """Comparisons by author, with a role or without."""

    metrics: dict[str, Metric]
    unit: str = "author"

    def moments(self, metric: str, control: str, arm: str) -> Moments | None:
        return None

    def replicated(self, metric: str, control: str, arm: str) -> Replicated | None:
        if metric == "no data":
            return None
        m = Moments(1.0, 1.2, 0.01, 0.01, 0.0, 9.0, 10, 10, False)
        parts = None if metric == "one fit" else Components(1.0, 0.1, 0.0, 10.0, 3)
        return Replicated(m, None if parts is None else replace(m, treatment=1.1), parts)


def supply() -> Supply:
    names = ("gini", "fresh", "no data", "one fit")
    of = {m: replace(metric("click"), name=m) for m in names}
    of["fresh"] = replace(of["fresh"], role="success")
    of["no data"] = replace(of["no data"], role="success")
    return Supply(of)


def test_other_units_join_by_their_role() -> None:
    days, further = lived(), supply()
    with_role = method_lifts(days, "a", further=further)  # type: ignore[arg-type]
    added = [row.lift for row in with_role if row.lift.unit == "author"]
    assert [(row.metric, row.arm, row.treatment_mean) for row in added] == [
        ("fresh", "b", 1.1), ("fresh", "c", 1.1)
    ]  # fmt: skip
    assert len(with_role) == 6
    without = methods.further_method_lifts(further, "a", ["b"], rule=Rule(0.8))  # type: ignore[arg-type]
    assert [(one.lift.metric, one.lift.arm, one.lift.confidence) for one in without] == [
        ("gini", "b", 0.8)
    ]
    assert without[0].components == Components(1.0, 0.1, 0.0, 10.0, 3)
    assert isinstance(without[0], MethodLift)
    for one in ("holm", "bh", "none", "bonferroni"):
        assert methods.correction_of_methods(one) == one  # type: ignore[arg-type]
    assert methods.correction_of_methods("dunnett") == "bonferroni"


def test_margins_of_methods_are_those_of_their_moments() -> None:
    days, further = lived(), supply()
    alike = dict.fromkeys(("click_rate", "like", "watch_time", "no data", "one fit"), 0.2)
    asked = Margins({"click": 0.1, "fresh": 0.1}, alike)
    found = methods.method_margins(days, "a", asked, further=further, alpha=0.1)  # type: ignore[arg-type]

    def moments_of(m: str, arm: str) -> Moments | None:
        if m in ("click", "click_rate"):
            return by_hand(days, m, arm).methods
        if m in ("like", "watch_time", "no data"):
            return None
        result = further.replicated(m, "a", arm)
        return None if result is None else result.methods

    metrics = {**further.metrics, **days.metrics}
    assert list(map(repr, found)) == list(
        map(repr, answer_compared(moments_of, ["b", "c"], metrics, asked, 0.1))
    )
    assert {one.answer for one in found if one.metric in ("like", "watch_time", "one fit")} == {
        "no data"
    }
    assert methods.method_margins(replace(days, fits=(1, 1, 1)), "a", asked) == []


def test_mixed_degrees_of_freedom_lie_between_their_parts() -> None:
    for variances, df in (((1.0, 3.0), (2.0, 40.0)), ((5.0, 0.5), (3.0, np.inf))):
        mean = sum(v * quantile(f, 0.95) for v, f in zip(variances, df, strict=True))
        found = replication.mixed_df(variances, df)
        assert stats.t.ppf(0.975, found) == pytest.approx(mean / sum(variances), rel=1e-6)
    assert replication.mixed_df((1.0, 0.0), (2.0, 40.0)) == pytest.approx(2.0)
    assert replication.mixed_df((0.0, 1.0), (2.0, 40.0)) == pytest.approx(40.0)
    assert replication.mixed_df((0.0, 0.0), (2.0, 40.0)) == 2.0


def test_parts_of_the_mean_are_cut_at_0_and_shared() -> None:
    one = Components(users=8.0, fits=3.0, interaction=6.0, n_users=4.0, n_fits=3)
    assert one.of_the_mean == (8 / 4 + 6 / 12, 1.0)
    assert one.share_of_fits == pytest.approx(1 / 3.5)
    assert replace(one, interaction=np.nan).of_the_mean == (2.0, 1.0)
    assert replace(one, users=-9.0).of_the_mean == (0.0, 1.0)
    assert replace(one, users=-9.0).share_of_fits == 1.0
    assert replace(one, fits=-3.0).of_the_mean == (2.5, 0.0)
    assert replace(one, fits=-3.0).share_of_fits == 0.0
    assert np.isnan(replace(one, users=-9.0, fits=0.0).share_of_fits)


def split_table(n: int = 30) -> UnitTable:
    random = np.random.default_rng(6)
    click, shown = random.gamma(2.0, 1.0, n), random.gamma(5.0, 1.0, n)
    past = click + random.normal(0, 0.5, n)
    of = {m: metric(m) for m in ("click", "click_rate", "like")}
    return UnitTable(
        "user", ARMS, of, {"click": click, "click_rate": click, "like": shown},
        {"click_rate": shown}, np.arange(n) % 3, covariates={"click": past, "age": shown},
    )  # fmt: skip


def test_covariates_adjust_the_metrics_that_name_them_alone() -> None:
    table = split_table()
    adjusted = TableMoments(table, {"click": ["own"], "like": []})
    of_arm = [
        moments.sample([v[table.assigned == i] for v in (table.numerators["click"],
                       table.covariates["click"])]) for i in (0, 1)
    ]  # fmt: skip
    expected = moments.split_moments(*of_arm, 0, None, [1])
    found = adjusted.moments("click", "a", "b")
    assert found.difference == pytest.approx(expected.difference)
    assert found.variance == pytest.approx(expected.variance)
    assert adjusted.moments("like", "a", "b") == compare(table, "like", "a", "b")
    assert found != compare(table, "click", "a", "b")
    assert compare(table, "click", "a", "b", ["own"]) == found
    predicted = replace(table, predicted={"click": ("click",)})
    interacted = TableMoments(predicted, {"click": ["click"]}).moments("click", "a", "b")
    assert interacted.variance == pytest.approx(
        moments.interacted_moments(*of_arm, 0, None, [1]).variance
    )
    assert interacted.variance != found.variance
    with pytest.raises(TableError) as refusal:
        TableMoments(table, {"click": ["income"]})
    assert str(refusal.value) == "no covariate 'income' in this table; it has ['click', 'age']"


def test_influences_add_up_to_the_variance_of_the_difference() -> None:
    table = split_table()
    for m in ("click", "click_rate"):
        own = influences(table, m, "a", "b")
        one = compare(table, m, "a", "b")
        # Divided by n and not n - 1 in each arm of 10.
        assert np.square(own).sum() == pytest.approx(one.variance * 9 / 10)
        sides = []
        for arm in ("a", "b"):
            top, bottom = table.sums(m, arm)
            below = np.ones(10) if bottom is None else bottom
            sides.append((top - top.sum() / below.sum() * below) / below.sum())
        assert own == pytest.approx(np.concatenate((-sides[0], sides[1])))
    nothing = replace(table, denominators={"click_rate": np.zeros(30)})
    assert (influences(nothing, "click_rate", "a", "b") == 0).all()


def test_correlations_of_comparisons_are_those_of_their_influences() -> None:
    table = split_table()
    asked = [("click", "a", "b"), ("click", "a", "c"), ("click_rate", "a", "b"), ("like", "b", "c")]
    vectors = []
    for m, control, treatment in asked:
        by_arm = {arm: np.zeros(10) for arm in ARMS}
        own = influences(table, m, control, treatment)
        by_arm[control], by_arm[treatment] = own[:10], own[10:]
        vectors.append(np.concatenate(list(by_arm.values())))
    expected = np.corrcoef(vectors)
    found = TableMoments(table, {}).correlations(asked)
    assert found == pytest.approx(expected)
    assert abs(found[0, 3]) > 0.01


def test_a_covariance_is_scaled_to_one_and_what_does_not_vary_goes_with_nothing() -> None:
    cov = np.array([[4.0, 3.0, 0.0], [3.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    assert contrasts.scaled_to_one(cov) == pytest.approx(
        np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
    )


def test_values_of_ratios_are_linearised_by_each_arm_or_by_both_together() -> None:
    table = split_table()
    assert [v.tolist() for v in contrasts.values(table, "click", "a", "b")] == [
        table.sums("click", arm)[0].tolist() for arm in ("a", "b")
    ]
    (top_a, below_a), (top_b, below_b) = (table.sums("click_rate", arm) for arm in ("a", "b"))
    own = contrasts.values(table, "click_rate", "a", "b")
    assert own[0] == pytest.approx(moments.linearised(top_a, below_a))
    assert own[1] == pytest.approx(moments.linearised(top_b, below_b))
    alike = contrasts.alike(table, "click_rate", "a", "b")
    expected = moments.linearised_alike((top_a, below_a), (top_b, below_b))
    assert [v.tolist() for v in alike] == [v.tolist() for v in expected]
    plain = contrasts.alike(table, "like", "a", "b")
    assert plain[1].tolist() == table.sums("like", "b")[0].tolist()


def test_days_on_which_neither_arm_has_a_denominator_are_no_units() -> None:
    top = np.array([[1.0, 2, 3, 4], [2.0, 1, 4, 4], [9.0, 9, 9, 9]])
    below = np.array([[1.0, 0, 2, 0], [2.0, 0, 3, 1], [1.0, 1, 1, 1]])
    of = {"click_rate": metric("click_rate")}
    twins = UnitTable("day", ARMS, of, {"click_rate": top}, {"click_rate": below})
    found = TableMoments(twins, {}).moments("click_rate", "a", "b")
    assert found == compare(
        twins.where(np.array([True, False, True, True])), "click_rate", "a", "b"
    )
    assert found.n_units == 3
    users = replace(twins, unit="user")
    assert TableMoments(users, {}).moments("click_rate", "a", "b").n_units == 4
