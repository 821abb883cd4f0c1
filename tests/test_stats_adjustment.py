"""Stated choices about a comparison: which past adjusts what, strata, looks by day; and sequential
looks and rules at their limits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from simulator.log.metrics import Declared, declared, metric
from simulator.stats import adjustment, intervals, moments, sequential, spending
from simulator.stats.adjustment import MISSING, imputed, pre_periods, stratified
from simulator.stats.choices import Choices
from simulator.stats.moments import Moments
from simulator.stats.rule import OneTest, Rule
from simulator.stats.sequential import Look, Peeks, clock, looks
from simulator.stats.unit_table import TableError, UnitTable

N = 40


def table(
    covariates: dict[str, Any], entries: dict[str, Declared] | None = None, **more: Any
) -> UnitTable:
    random = np.random.default_rng(1)
    names = ("click", "click_rate", "like")
    of = declared({m: metric(m) for m in names}, entries or {})
    top = {m: random.gamma(2.0, 1.0, N) for m in names}
    columns = {
        name: np.full(N, 3.0) if still is None else random.normal(size=N)
        for name, still in covariates.items()
    }
    given: dict[str, Any] = {
        "numerators": top, "denominators": {"click_rate": random.gamma(9.0, 1.0, N)},
        "assigned": np.arange(N) % 2, "covariates": columns,
    } | more  # fmt: skip
    return UnitTable("user", ("a", "b"), of, **given)


@pytest.mark.parametrize(
    ("covariates", "chosen"),
    [
        ({"click": 1}, {"click": ("click",), "click_rate": ("click",)}),
        (
            {"click": 1, "impressions": 1},
            {"click": ("click",), "click_rate": ("click", "impressions")},
        ),
        (
            {"click": 1, "click_rate": 1},
            {"click": ("click",), "click_rate": ("click_rate",)},
        ),
        (
            {"age": 1, "click": 1},
            {"click": ("age", "click"), "click_rate": ("age", "click"), "like": ("age",)},
        ),
        ({"age": None}, {}),
        ({}, {}),
        (
            {"age": 1, "age" + MISSING: 1},
            dict.fromkeys(("click", "click_rate", "like"), ("age", "age" + MISSING)),
        ),
        (
            {"age": 1, "click" + MISSING: 1},
            dict.fromkeys(("click", "click_rate", "like"), ("age",)),
        ),
    ],
)
def test_a_column_of_a_metrics_name_is_of_that_metric_and_any_other_of_all(
    covariates: dict[str, Any], chosen: dict[str, tuple[str, ...]]
) -> None:
    assert pre_periods(table(covariates)) == chosen
    twins = table(covariates, numerators={"click": np.ones((2, N))}, denominators={}, assigned=None)
    assert pre_periods(twins) == {}


def test_what_is_declared_or_predicted_is_adjusted_for_alone() -> None:
    entries = {"click": Declared(covariates=("age",)), "like": Declared(covariates=())}
    given = {"age": 1, "age" + MISSING: 1, "income": 1}
    own = ("age", "age" + MISSING)
    # What is declared of one metric is of that one.
    assert pre_periods(table(given, entries)) == {"click": own, "click_rate": ("income",)}
    assert adjustment.declared_periods(table(given, entries)) == {"click": own}
    with pytest.raises(TableError) as refusal:
        pre_periods(table({"income": 1}, entries))
    assert str(refusal.value) == (
        "metric 'click': no pre-period column 'age' to adjust it for; there are ['income']"
    )
    made = {"age": 1, "predicted click": 1}
    predicted = table(made, predicted={"click": ("predicted click",)})
    assert pre_periods(predicted) == {
        "click": ("predicted click",), "click_rate": ("age",), "like": ("age",)
    }  # fmt: skip


def test_missing_values_become_the_mean_and_a_flag() -> None:
    values, flags = imputed(np.array([1.0, np.nan, 5.0, np.nan]))
    assert values.tolist() == [1.0, 3.0, 5.0, 3.0]
    assert flags.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert flags.dtype == np.float64


def test_strata_are_weighted_by_both_arms_with_satterthwaites_degrees_of_freedom() -> None:
    random = np.random.default_rng(3)
    values = [[random.gamma(3.0, 1.0, n) for n in side] for side in ((5, 9), (7, 4))]
    share = np.array([12, 13]) / 25
    m = stratified(*([moments.sample([v]) for v in side] for side in values))
    parts = []
    for side, mean, variance in zip(
        values, (m.control, m.treatment), (m.var_control, m.var_treatment), strict=True
    ):
        assert mean == pytest.approx(share @ [v.mean() for v in side])
        own = [w**2 * v.var(ddof=1) / len(v) for w, v in zip(share, side, strict=True)]
        assert variance == pytest.approx(sum(own))
        parts += [(part, len(v) - 1) for part, v in zip(own, side, strict=True)]
    total = sum(part for part, _ in parts)
    assert m.df == pytest.approx(total**2 / sum(part**2 / df for part, df in parts))
    assert (m.n_control, m.n_treatment, m.cov, m.paired) == (14, 11, 0.0, False)
    # Without variance the degrees of freedom are those of the units; a stratum of nobody is none.
    still = stratified(*([moments.sample([np.ones(n)]) for n in side] for side in ((5, 9), (7, 4))))
    assert still.df == 14 + 11 - 4
    empty = moments.Sample(0, np.zeros(1), np.zeros((1, 1)))
    nobody = stratified(*([*(moments.sample([v]) for v in side), empty] for side in values))
    assert nobody == m
    alone = moments.Sample(1, np.ones(1), np.full((1, 1), np.nan))
    whole = [moments.sample([v]) for v in values[1]]
    lost = stratified([moments.sample([values[0][0]]), alone], whole)
    assert np.isnan(lost.var_control)


def test_strata_need_two_units_in_each_arm() -> None:
    whole = table({}, groups={"g": np.array(["x"] * 36 + ["y"] * 4)})
    found = adjustment.post_stratified(whole, "click", "a", "b", "g")
    assert (found.n_control, found.n_treatment) == (20, 20)
    for kept, label in ((37, "y"), (39, "y")):
        with pytest.raises(TableError) as refusal:
            adjustment.post_stratified(whole.where(np.arange(kept)), "click", "a", "b", "g")
        assert str(refusal.value) == (
            f"post-stratification: stratum {label!r} of 'g' has fewer than 2 units in an arm"
        )
    with pytest.raises(TableError, match=r"no group 'h' in this table; it has \['g'\]"):
        adjustment.post_stratified(whole, "click", "a", "b", "h")
    twins = replace(whole, numerators={"click": np.ones((2, N))}, denominators={}, assigned=None)
    with pytest.raises(TableError, match="a paired table needs none"):
        adjustment.post_stratified(twins, "click", "a", "b", "g")


def test_sums_so_far_are_those_of_the_rows_up_to_a_day() -> None:
    day = np.array([0, 0, 1, 2, 2, 1])
    rows = UnitTable(
        "user-day", ("a", "b"), {m: metric(m) for m in ("click", "click_rate")},
        {"click": np.array([1.0, 2, 4, 8, 16, 32]), "click_rate": np.arange(6.0)},
        {"click_rate": np.ones(6)}, np.array([0, 1, 0, 1, 0, 0]),
        np.array(["u", "v", "u", "v", "u", "w"]), {"past": np.array([1.0, 5, 3, 7, 5, 2])},
        {"kept": np.array([1, 2, 1, 2, 1, 3]), "torn": np.array([1, 2, 2, 2, 1, 3])},
    )  # fmt: skip
    first, second, last = adjustment.users_so_far(rows, day)
    assert first.numerators["click"].tolist() == [1.0, 2.0, 0.0]
    assert second.numerators["click"].tolist() == [5.0, 2.0, 32.0]
    assert last.numerators["click"].tolist() == [21.0, 10.0, 32.0]
    assert second.denominators["click_rate"].tolist() == [2.0, 1.0, 1.0]
    for look in (first, second, last):
        assert look.assigned is not None
        assert look.assigned.tolist() == [0, 1, 0]
        assert (look.unit, look.cluster) == ("user", None)
        assert look.covariates["past"].tolist() == [3.0, 6.0, 2.0]
        assert {n: v.tolist() for n, v in look.groups.items()} == {"kept": [1, 2, 3]}


def test_information_is_the_product_of_the_steps_to_come() -> None:
    r = np.array([0.5, 0.8, 0.9])
    assert clock(r) == pytest.approx([(0.5 * 0.8 * 0.9) ** 2, (0.8 * 0.9) ** 2, 0.81, 1.0])
    many = clock(np.stack([r, r[::-1]]))
    assert many[1] == pytest.approx(clock(r[::-1]))
    # Looks that go together by less than .02, or the wrong way, are taken as hardly so.
    assert clock(np.array([0.01, -0.5, 0.02])) == pytest.approx([0.02**6, 0.02**4, 0.02**2, 1.0])
    assert clock(np.array([1.5])).tolist() == [1.0, 1.0]


def test_the_mixture_is_that_of_robbins() -> None:
    information = np.array([0.1, 0.5, 1.0])
    for alpha, planned in ((0.05, 1.0), (0.2, 0.5)):
        a = -2 * np.log(alpha)
        r = planned / (a + np.log(1 + a))
        bound = np.sqrt((1 + r / information) * (np.log(1 + information / r) + a))
        found = sequential.mixture_boundary(information, planned, alpha)
        assert found == pytest.approx(bound)
        z = np.array([0.5, 3.0, 1.0])
        ratio = np.sqrt(r / (information + r)) * np.exp(z**2 * information / (information + r) / 2)
        once = np.minimum(1 / ratio, 1.0)
        assert sequential.inverse_likelihood_ratio(z, information, planned, alpha) == (
            pytest.approx(once)
        )
        p = sequential.always_valid_p(z, information, planned, alpha)
        assert p == pytest.approx(np.minimum.accumulate(once))
    z = np.ones(3)
    for of, given in (
        (sequential.mixture_boundary, (information, 1.0)),
        (sequential.always_valid_p, (z, information, 1.0)),
        (sequential.inverse_likelihood_ratio, (z, information, 1.0)),
    ):
        assert of(*given).tolist() == of(*given, 0.05).tolist()


def series() -> list[Moments]:
    """Five looks, of which the first and the third have no variance."""
    sound = Moments(10.0, 11.0, 0.1, 0.1, 0.02, 30.0, 40, 40, True)
    still = replace(sound, var_control=0.0, var_treatment=0.0, cov=0.0)
    alike = replace(still, treatment=10.0)
    return [alike, sound, still, sound, replace(sound, treatment=12.0)]


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_looks_begin_where_all_that_follow_have_a_variance(alpha: float) -> None:
    r = np.array([np.nan, np.nan, np.nan, 0.7])
    shares = np.array([0.1, 0.2, 0.4, 0.5, 1.0])
    for given in (None, shares):
        found = looks(series(), r, given, alpha)
        information = np.array([0.49, 1.0])
        share = [0.8, 1.0] if given is None else [0.5, 1.0]
        z = np.array([1 / 0.4, 2 / 0.4])
        bounds = {
            "always_valid": sequential.mixture_boundary(information, 1.0, alpha),
            "obrien_fleming": spending.boundaries("obrien-fleming", share, information, alpha),
            "pocock": spending.boundaries("pocock", share, information, alpha),
        }
        p = sequential.always_valid_p(z, information, 1.0, alpha)
        for i in (3, 4):
            one, m = found[i], series()[i]
            low, high = intervals.fieller(m, 1 - alpha)
            wide = intervals.fieller(m, critical=bounds["always_valid"][i - 3])
            expected = Look(i + 1, m.lift, low, high, *wide, z[i - 3], p[i - 3],
                            *(bound[i - 3] for bound in bounds.values()))  # fmt: skip
            assert vars(one) == pytest.approx(vars(expected))
        for i in range(3):
            one = found[i]
            assert one.always_valid == one.obrien_fleming == one.pocock == np.inf
            assert np.isnan(one.p)
        alike = found[0]
        assert (alike.lift, alike.low, alike.high, alike.sequence_low, alike.sequence_high) == (
            0.0, 0.0, 0.0, 0.0, 0.0
        )  # fmt: skip
        assert (found[1].sequence_low, found[1].sequence_high) == (-np.inf, np.inf)
        assert found[2].lift == pytest.approx(0.1)
    plain = looks(series(), r)
    assert list(map(repr, plain)) == list(map(repr, looks(series(), r, None, 0.05)))
    # Where the last look has no variance, no look knows anything.
    nothing = looks(series()[:3], r[:2])
    assert {one.pocock for one in nothing} == {np.inf}
    everything = looks(series()[3:], np.array([0.7]))
    assert np.isfinite([one.pocock for one in everything]).all()


def test_a_rule_stops_beyond_its_boundary_and_on_no_day_at_it() -> None:
    base = Look(1, 0.1, 0, 0, 0, 0, 2.0, 0.5, 2.0, 1.9, 3.0)
    later = replace(base, day=2, t=-3.5)
    peeks = Peeks("m", "b", (base, later))
    assert (peeks.stop("always_valid"), peeks.stop("obrien_fleming"), peeks.stop("pocock")) == (
        2, 1, 2
    )  # fmt: skip
    assert Peeks("m", "b", (base,)).stop("always_valid") is None


def test_a_rule_has_its_level_its_side_and_its_limits() -> None:
    for level in (0.5, 1.0, 0.2, 95.0):
        with pytest.raises(TableError) as refusal:
            Rule(level)
        assert str(refusal.value) == (
            f"level: must be above 50% and below 100%, e.g. 95%; got {level:.6g}"
        )
    assert Rule(0.5001).alpha == pytest.approx(0.4999)
    assert Rule() == Rule(0.95, "two-sided")
    with pytest.raises(TableError) as refusal:
        Rule(0.9, "worse")  # type: ignore[arg-type]
    assert str(refusal.value) == "alternative: must be one of two-sided, better; got 'worse'"
    one = Rule(0.9, "better").test(metric("click"))
    assert one == OneTest(0.9, "greater")
    assert (one.alpha, one.two_sided_level) == (pytest.approx(0.1), pytest.approx(0.8))
    assert OneTest() == OneTest(0.95, "two-sided")
    assert OneTest(0.9).two_sided_level == 0.9


RESAMPLES = "resamples: from 100 to 1,000,000, or 0 for none"


def test_choices_that_cannot_be_are_refused_at_their_limits() -> None:
    assert Choices() == Choices("fieller", "holm", 0.001, 0, 0, 0.95, "two-sided", False)
    assert Choices(level=0.9, alternative="better").rule == Rule(0.9, "better")
    for fine in ({"winsorise": 0.0}, {"winsorise": 0.4999}, {"resamples": 100},
                 {"resamples": 1_000_000}):  # fmt: skip
        assert Choices(**fine)  # type: ignore[arg-type]
    for bad, message in (
        ({"interval": "t"}, "interval: must be one of fieller, log, delta, newcombe; got 't'"),
        ({"correction": "x"},
         "correction: must be one of holm, bonferroni, hochberg, bh, dunnett, none; got 'x'"),
        ({"winsorise": 0.5}, "winsorise: the share must be in [0, 0.5); got 0.5"),
        ({"winsorise": -0.1}, "winsorise: the share must be in [0, 0.5); got -0.1"),
        ({"resamples": 99}, f"{RESAMPLES}; got 99"),
        ({"resamples": 1_000_001}, f"{RESAMPLES}; got 1,000,001"),
    ):  # fmt: skip
        with pytest.raises(TableError) as refusal:
            Choices(**bad)  # type: ignore[arg-type]
        assert str(refusal.value) == message


def test_students_quantile_is_scipys() -> None:
    assert intervals.quantile(7, 0.9) == pytest.approx(stats.t.ppf(0.95, 7))
