"""Design checks: silent on sound data, and each fires on the fault that it is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from simulator.log.metrics import Metric, Term
from simulator.stats import checks, moments, units, verdict
from simulator.stats.unit_table import UnitTable
from simulator.stats.user_days import UserDays
from tests.worlds import paired_log, switchback_log


def metric(name: str) -> Metric:
    return Metric(name, name, "", Term(name, (name,), lambda rows: rows[name]))


@pytest.fixture(scope="module")
def paired_days() -> UserDays:
    return units.read(paired_log(), ("watch_time", "click"))


@pytest.fixture(scope="module")
def split_days(paired_days: UserDays) -> UserDays:
    return replace(
        paired_days,
        assigned=np.random.default_rng(3).permutation(np.arange(paired_days.n_users) % 2),
    )


def test_sound_data_is_green(paired_days: UserDays, split_days: UserDays) -> None:
    for source in (paired_days, split_days):
        found = checks.checks(source, "a")
        assert [c.status for c in found] == ["green"] * len(found), found
        assert len({c.name for c in found}) == len(found)
        (a_a,) = [c for c in found if c.name == "A/A"]
        assert a_a.value.startswith("400 A/A tests a metric")  # as docs/statistics.md says


def test_sample_ratio_is_chi_square(split_days: UserDays) -> None:
    skewed = replace(split_days, assigned=(np.arange(split_days.n_users) % 5 == 0).astype(int)).by(
        "user"
    )
    found = checks.sample_ratio(skewed)
    assert found.status == "red"
    assert f"{stats.chisquare([320, 80]).pvalue:.3g}" in found.value
    assert checks.sample_ratio(skewed, [0.8, 0.2]).status == "green"


@pytest.mark.parametrize(("lost", "status"), [(0, "green"), (10, "amber"), (30, "red")])
@pytest.mark.parametrize("crossed", [False, True])
def test_users_missing_of_one_fit_are_found(
    paired_days: UserDays, lost: int, status: str, crossed: bool
) -> None:
    """Two fits in both arms, divided or crossed; of the second fit of arm b, `lost` never came."""
    fit = np.arange(paired_days.n_users) % 2
    everybody = np.ones_like(paired_days.terms["impressions"])
    fewer = everybody.copy()
    fewer[1, np.flatnonzero(fit == 1)[:lost]] = 0
    whole = replace(paired_days, terms={**paired_days.terms, "impressions": everybody})
    damaged = replace(paired_days, terms={**paired_days.terms, "impressions": fewer})
    if crossed:
        days = replace(whole, fits=(2, 2), lives=(whole, damaged))
    else:
        days = replace(damaged, fits=(2, 2), fit_of_user=fit)
    found = checks.fits_ratio(days)
    n = paired_days.n_users if crossed else paired_days.n_users // 2
    p = 1.0
    if lost:
        p = 2 * float(stats.chi2_contingency([[n, n - lost], [0, lost]]).pvalue)
    assert found.status == status
    assert ("users of a fit are missing" in found.meaning) == bool(lost)
    assert f"{n} : {n - lost} in b; chi-square p = {p:.3g}" in found.value


def test_segments_are_held_against_the_arms_of_a_split_table_that_has_any(
    paired_days: UserDays, split_days: UserDays
) -> None:
    groups = {"country": np.arange(split_days.n_users) % 3}
    for table, expected in (
        (replace(split_days.by("user"), groups={}), False),
        (replace(split_days.by("user"), groups=groups), True),
        (replace(paired_days.by("user"), groups=groups), False),
    ):
        names = [check.name for check in checks.checks(table, "a")]
        assert ("segment balance" in names) == expected


def test_log_bayes_factor_is_a_martingale_under_the_null() -> None:
    """Its exponential has mean 1 whatever the number of users: here over all outcomes of 6 users in
    3 arms.
    """
    total = 0.0
    for first in range(7):
        for second in range(7 - first):
            counts = np.array([first, second, 6 - first - second])
            total += stats.multinomial.pmf(counts, 6, [1 / 3] * 3) * np.exp(
                checks.log_bayes_factor(counts[:, None].astype(float), 3.0)[0]
            )
    assert total == pytest.approx(1.0)


def test_users_lost_in_one_arm_are_found_by_day(split_days: UserDays) -> None:
    lost = {name: v.copy() for name, v in split_days.terms.items()}
    lost["impressions"][1, 100:] = 0
    assert checks.sequential_sample_ratio(replace(split_days, terms=lost)).status == "red"


@pytest.mark.parametrize(
    ("come", "status"), [((100, 100), "green"), ((100, 47), "amber"), ((100, 40), "red")]
)
def test_users_who_never_come_are_nobodys_arrivals(come: tuple[int, int], status: str) -> None:
    """Of 5000 users an arm a few come, every day."""
    impressions = np.zeros((2, 10_000, 3))
    for arm, n in enumerate(come):
        impressions[arm, 5000 * arm : 5000 * arm + n] = 1
    assigned = np.repeat([0, 1], 5000)
    days = UserDays(("a", "b"), 10_000, 3, {}, {"impressions": impressions}, {}, assigned=assigned)
    assert checks.sequential_sample_ratio(days).status == status


def test_unlike_arms_are_found(split_days: UserDays) -> None:
    order = np.argsort(split_days.before["click"])
    assigned = np.zeros(split_days.n_users, dtype=int)
    assigned[order[split_days.n_users // 2 :]] = 1
    unlike = replace(split_days, assigned=assigned)
    assert checks.balance(unlike.by("user"), "a").status == "red"
    assert checks.carry_over(unlike, checks.balance(unlike.by("user"), "a")).status == "red"


def test_the_past_is_compared_as_by_scipy(split_days: UserDays) -> None:
    table = split_days.by("user")
    p, sizes = {}, {}
    for name, past in table.covariates.items():
        sides = [past[table.assigned == arm] for arm in (0, 1)]
        p[name] = stats.ttest_ind(*sides, equal_var=False).pvalue
        sizes[name] = abs(sides[1].mean() - sides[0].mean()) / past.std()
    found, (name, size) = checks.balance(table, "a"), max(sizes.items(), key=lambda one: one[1])
    least = min(multipletests(list(p.values()), method="holm")[1])
    assert len(p) > 1
    assert found.value == (
        f"largest standardised difference {size:.3f} ({name} in b), smallest Holm p = {least:.3g}"
    )
    for p_value, status, words in (
        (0.051, "green", "were alike before the test"),
        (0.049, "amber", "differed before the test"),
        (0.0009, "red", "differed before the test"),
    ):
        t = stats.norm.isf(p_value / 2)
        m = moments.Moments(0.0, t, 0.5, 0.5, 0.0, np.inf, 9, 9, False)
        one = checks.balance_of([("x", m, 0.0)])
        assert (one.status, words in one.meaning) == (status, True)
        assert "difference 0.000 (x)" in one.value
    assert checks.balance_of([]).status == "amber"


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_shift_by_one_user_is_that_of_leaving_each_out(paired: bool, seed: int) -> None:
    """Of a few users: every one left out in turn, and the whole row computed again."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(0.5, 1.0, (2, 16)) if paired else rng.gamma(0.5, 1.0, 32)
    assigned = None if paired else np.repeat([0, 1], 16)
    table = UnitTable("user", ("a", "b"), {"m": metric("m")}, {"m": values}, assigned=assigned)
    row = verdict.lift(table, "m", "a", "b")
    width = sum(abs(end - row.lift) for end in (row.low, row.high) if np.isfinite(end))
    without = [
        verdict.lift(table.where(np.delete(np.arange(table.n_units), user)), "m", "a", "b")
        for user in range(table.n_units)
    ]
    shift = max(abs(one.lift - row.lift) for one in without) / max(width, 1e-300)
    found = checks.outliers(table, "a")
    if np.isfinite(width) and width > 0:
        assert f"{shift:.0%} of its interval's width (m in b)" in found.value
    decides = any((one.p < 0.05) != (row.p < 0.05) for one in without)
    assert (found.status == "amber") == decides == ("m in b;" in found.meaning)


def test_a_trend_is_tested_by_each_users_line_over_the_days(paired_days: UserDays) -> None:
    cubes = {
        name: paired_days.terms[one.numerator.name].astype(float)
        for name, one in paired_days.metrics.items()
    }
    line = np.arange(paired_days.days) - (paired_days.days - 1) / 2
    p = [stats.ttest_1samp((one[1] - one[0]) @ line, 0).pvalue for one in cubes.values()]
    adjusted = multipletests(p, method="holm")[1]
    least, name = adjusted.min(), list(cubes)[int(adjusted.argmin())]
    found = checks.novelty(paired_days, "a")
    assert found.value == f"strongest trend: {name} in b, Holm p = {least:.3g}"
    assert found.status == ("amber" if least < 0.05 else "green")
    two = replace(paired_days, days=2, terms={n: v[..., :2] for n, v in paired_days.terms.items()})
    assert checks.novelty(two, "a").value == "2 days"
    same = {n: v[[0, 0]] for n, v in paired_days.terms.items()}
    assert checks.novelty(replace(paired_days, terms=same), "a").value == "no variation"


def test_rare_events(paired_days: UserDays) -> None:
    rare = {
        **paired_days.terms,
        "click": paired_days.terms["click"] * (np.arange(paired_days.n_users) < 20)[None, :, None],
    }
    found = checks.rare_events(replace(paired_days, terms=rare).by("user"))
    assert found.status == "amber"
    least = int((rare["click"] != 0).any(axis=2).sum(axis=1).min())
    assert found.value == f"fewer than 100 users with events: click ({least})"
    some = np.zeros((2, 200, 1))
    for n, status in ((100, "green"), (99, "amber")):
        some[:, :n] = 1.0
        some[:, n:] = 0.0
        days = UserDays(("a", "b"), 200, 1, {"click": paired_days.metrics["click"]},
                        {"click": some}, {})  # fmt: skip
        assert checks.rare_events(days.by("user")).status == status


def test_one_user_who_decides_is_found(paired_days: UserDays) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(10, 1, paired_days.n_users)
    treatment = base + rng.normal(0, 0.1, paired_days.n_users)
    treatment -= treatment.mean() - base.mean() - 0.008
    cube = np.zeros((2, paired_days.n_users, paired_days.days))
    cube[0, :, 0], cube[1, :, 0] = base, treatment
    quiet = replace(
        paired_days,
        metrics={"click": paired_days.metrics["click"]},
        terms={**paired_days.terms, "click": cube},
    ).by("user")
    assert checks.outliers(quiet, "a").status == "green"
    cube[1, 7, 0] += 1.2
    assert checks.outliers(quiet.where(slice(None)), "a").status in {"green", "amber"}
    loud = replace(
        paired_days,
        metrics={"click": paired_days.metrics["click"]},
        terms={**paired_days.terms, "click": cube},
    ).by("user")
    assert checks.outliers(loud, "a").status == "amber"


def test_leaving_one_out_is_exact() -> None:
    rng = np.random.default_rng(1)
    columns = [rng.gamma(1, 1, 50) for _ in range(3)]
    left = moments.sample(columns).without(np.array([c[17] for c in columns]))
    direct = moments.sample([np.delete(c, 17) for c in columns])
    assert left.mean == pytest.approx(direct.mean)
    assert left.cov == pytest.approx(direct.cov)


def test_a_fading_effect_is_found(paired_days: UserDays) -> None:
    fading = paired_days.terms["click"].astype(float).copy()
    fading[1] = fading[0] * (1 + np.array([0.6, 0.3, 0.15, 0.05, 0.0]))
    found = checks.novelty(replace(paired_days, terms={**paired_days.terms, "click": fading}), "a")
    assert found.status == "amber"
    assert "fades" in found.meaning
    worse = fading[[1, 0]]  # the same of an arm that is worse: it falls behind by less and less
    assert (
        "fades"
        in checks.novelty(
            replace(paired_days, terms={**paired_days.terms, "click": worse}), "a"
        ).meaning
    )
    growing = fading[..., ::-1]
    assert (
        "grows"
        in checks.novelty(
            replace(paired_days, terms={**paired_days.terms, "click": growing}), "a"
        ).meaning
    )


def test_shared_training_data_is_said() -> None:
    assert (
        checks.interference({"serving": {"refit": "daily", "refit_on": "pooled"}}).status == "amber"
    )
    assert checks.interference({"serving": {"refit": "daily", "refit_on": "own"}}).status == "green"


def test_a_sound_switchback_has_no_false_alarm() -> None:
    plays = np.random.default_rng(0).poisson(6, (300, 6))
    days = units.read(
        switchback_log([0, 1, 1, 0, 0, 1], plays), ("watch_time", "click_rate", "return")
    )
    status = {
        c.name: c.status
        for c in checks.checks(days, "a", scenario={"design": {"kind": "switchback"}})
    }
    assert {name for name, colour in status.items() if colour != "green"} == {"carry-over"}


def test_switchback_carries_over(paired_days: UserDays) -> None:
    switched = replace(paired_days, switched=np.arange(paired_days.days) % 2)
    assert checks.carry_over(switched, checks.balance(switched.by("user"), "a")).status == "amber"
