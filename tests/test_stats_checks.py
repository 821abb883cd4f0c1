"""Design checks: silent on sound data, and each fires on the fault that it is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from simulator.stats import checks, moments, units
from simulator.stats.user_days import UserDays
from tests.worlds import paired_log, switchback_log


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


def test_rare_events(paired_days: UserDays) -> None:
    rare = {
        **paired_days.terms,
        "click": paired_days.terms["click"] * (np.arange(paired_days.n_users) < 20)[None, :, None],
    }
    found = checks.rare_events(replace(paired_days, terms=rare).by("user"))
    assert found.status == "amber"
    assert "click (" in found.value


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
