"""Design checks: silent on sound data, and each fires on the fault that it is for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from simulator.log.metrics import Metric, Term
from simulator.stats import checks, moments, tests, units, verdict
from simulator.stats.contrasts import compare
from simulator.stats.randomise import draws, outcomes, split_pair
from simulator.stats.unit_table import TableError, UnitTable
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


def told(found: checks.Check) -> tuple[str, str, str]:
    return found.name, found.status, found.value


@pytest.mark.parametrize(
    ("counts", "shares", "status"),
    [
        ([500, 581], None, "green"),
        ([500, 590], None, "amber"),
        ([500, 620], None, "red"),
        ([500, 1000], [1 / 3, 2 / 3], "green"),
    ],
)
def test_the_sizes_of_arms_in_words(
    counts: list[int], shares: list[float] | None, status: str
) -> None:
    expected = np.sum(counts) * np.array(shares or [0.5, 0.5])
    p = stats.chisquare(counts, expected).pvalue
    found = checks.ratio_of(np.array(counts), shares)
    assert told(found) == (
        "sample ratio", status, f"{counts[0]} : {counts[1]:,}, chi-square p = {p:.3g}",
    )  # fmt: skip
    assert (
        found.meaning
        == {
            "green": "the arms' sizes fit the intended ratio",
            "amber": "the arms' sizes are unlikely but possible: look for users lost in one arm",
            "red": "the arms' sizes are not those intended: users were lost or assigned wrongly;"
            " believe no lift before that is found",
        }[status]
    )


def test_sizes_of_nobody_and_of_twins() -> None:
    assert told(checks.ratio_of(np.zeros(2, dtype=int)))[1:] == (
        "green",
        "0 : 0, chi-square p = nan",
    )
    sizes = {"x": np.zeros((2, 1234))}
    twins = UnitTable("user", ("a", "b"), {"x": metric("x")}, sizes)
    assert told(checks.sample_ratio(twins))[1:] == ("green", "1,234 users in every arm")
    split = UnitTable("user", ("a", "b", "c"), {"x": metric("x")}, {"x": np.zeros(7)},
                      assigned=np.array([0, 1, 1, -1, 0, 1, -1]))  # fmt: skip
    assert checks.sample_ratio(split).value.startswith("2 : 3 : 0, chi-square p = ")


@pytest.mark.parametrize(
    ("p", "status"),
    [(0.01, "green"), (0.0099, "amber"), (0.001, "amber"), (0.00099, "red"), (np.nan, "green")],
)
def test_colours_begin_below_their_limits(p: float, status: str) -> None:
    assert checks._status(p, 0.01, 0.001) == status
    meaning = checks._ratio_meaning(p)
    assert ("believe no lift" in meaning) == (status == "red")
    assert ("unlikely but possible" in meaning) == (status == "amber" or np.isnan(p))


def test_intended_shares_have_the_sum_one() -> None:
    assert checks.intended(["a", "b"], None) is None
    assert checks.intended(["a", "b"], {"b": 3.0, "a": 1.0}) == [0.25, 0.75]
    for bad in ({"a": 1.0}, {"a": 1.0, "b": 0.0}, {"a": 1.0, "b": np.inf},
                {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": np.nan}):  # fmt: skip
        with pytest.raises(TableError) as error:
            checks.intended(["a", "b"], bad)
        assert str(error.value) == (
            f"sample ratio: give one positive number for each of the arms ['a', 'b']; got {bad}"
        )


@pytest.mark.parametrize("given", [None, np.array([0.2, 0.3, 0.5])])
def test_the_bayes_factor_by_its_product(given: Any) -> None:
    """Dirichlet's law one user at a time: (a_i + so far of i) / (sum a + so far) over the share."""
    shares = np.full(3, 1 / 3) if given is None else given
    factor, seen = 1.0, np.zeros(3)
    for user in (0, 2, 2, 1, 2):
        factor *= (7 * shares + seen)[user] / (7 + seen.sum()) / shares[user]
        seen[user] += 1
    counts = np.stack([np.zeros(3), seen], axis=1)
    found = checks.log_bayes_factor(counts, 7.0, given)
    assert found.tolist() == pytest.approx([0.0, np.log(factor)], abs=1e-12)


@pytest.mark.parametrize(("lost", "status"), [(0, "green"), (120, "amber"), (150, "red")])
def test_new_users_by_day(lost: int, status: str) -> None:
    new = np.array([[500.0, 20.0, 0.0], [500.0 - lost, 20.0, lost]])
    shares = np.array([0.5, 0.5])
    so_far = np.cumsum(new, axis=1)
    p = 1 / max(1.0, np.exp(checks.log_bayes_factor(so_far, 100.0, shares).max()))
    found = checks.sample_ratio_of_new(new, shares)
    assert told(found) == (
        "sample ratio by day", status, f"new users by day, always-valid p = {p:.3g}",
    )  # fmt: skip
    said = "on no day did the arrivals in the arms leave the intended ratio"
    if lost:
        said = "arrivals left the intended ratio on some day"
    assert found.meaning == (
        f"{said} (users who come at all; a policy that brings people back changes it too)"
    )


def test_who_is_new_is_so_on_the_first_day_with_an_impression(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = np.zeros((3, 5, 3), dtype=int)
    for arm, user, day in ((0, 0, 1), (0, 0, 2), (1, 1, 0), (1, 2, 2), (2, 3, 2)):
        seen[arm, user, day] = 4
    days = UserDays(("a", "b", "c"), 5, 3, {}, {"impressions": seen}, {},
                    assigned=np.array([0, 1, 1, 2, 2]))  # fmt: skip
    asked = []
    monkeypatch.setattr(checks, "sample_ratio_of_new", lambda *given: asked.append(given))
    checks.sequential_sample_ratio(days)
    ((new, shares),) = asked
    assert new.tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 1]]
    assert shares.tolist() == [1 / 3] * 3
    monkeypatch.undo()
    for other in (replace(days, terms={}), replace(days, assigned=None)):
        assert told(checks.sequential_sample_ratio(other))[1:] == ("green", "not applicable")


def test_the_largest_difference_of_the_past_is_named() -> None:
    def past(mean: float, spread: float) -> tuple[str, moments.Moments, float]:
        m = moments.Moments(1.0, 1.0 + mean, 0.01, 0.02, 0.0, 50.0, 9, 9, False)
        return f"of {mean}", m, spread

    found = checks.balance_of([past(0.1, 2.0), past(-0.3, 3.0), past(0.2, 0.0)])
    p = [2 * stats.t.sf(abs(d) / np.sqrt(0.03), 50) for d in (0.1, 0.3, 0.2)]
    least = multipletests(p, method="holm")[1].min()
    assert found.value == (
        f"largest standardised difference 0.100 (of -0.3), smallest Holm p = {least:.3g}"
    )
    assert checks.balance_of([("x", replace(past(0.0, 1.0)[1], cov=0.015), 1.0)]).value == (
        "largest standardised difference 0.000 (x), smallest Holm p = nan"
    )
    twins = UnitTable("user", ("a", "b"), {"x": metric("x")}, {"x": np.zeros((2, 9))})
    assert told(checks.balance(twins, "a")) == ("covariate balance", "green", "same users")
    assert told(checks.balance_of([])) == ("covariate balance", "amber", "no pre-period")


def test_every_arm_is_compared_with_the_control() -> None:
    random = np.random.default_rng(2)
    arm, past = np.arange(60) % 3, random.normal(size=60)
    table = UnitTable("user", ("a", "b", "c"), {"x": metric("x")}, {"x": past},
                      assigned=arm, covariates={"x": past})  # fmt: skip
    for control in ("a", "b"):
        base = past[arm == table.arm(control)]
        sizes = {
            name: abs(past[arm == i].mean() - base.mean()) / past.std()
            for i, name in enumerate("abc") if name != control
        }  # fmt: skip
        name, size = max(sizes.items(), key=lambda one: one[1])
        found = checks.balance(table, control).value
        assert found.startswith(f"largest standardised difference {size:.3f} (x in {name}),")


def test_rare_metrics_are_all_named() -> None:
    values = {name: np.zeros((2, 300)) for name in ("often", "rare", "never")}
    values["often"][:, :100] = values["rare"][0, :200] = values["rare"][1, :99] = -1.0
    table = UnitTable("user", ("a", "b"), {n: metric(n) for n in values}, values)
    found = checks.rare_events(table)
    assert told(found) == (
        "rare events", "amber", "fewer than 100 users with events: rare (99), never (0)",
    )  # fmt: skip
    often = replace(table, numerators={"often": values["often"]})
    assert told(checks.rare_events(often)) == (
        "rare events", "green", "at least 100 users with events in every arm and metric",
    )  # fmt: skip


def test_the_ten_most_influential_are_left_out() -> None:
    score = np.random.default_rng(0).permutation(40).astype(float)
    assert sorted(checks._largest(score)) == sorted(np.argsort(score)[-10:].tolist())
    assert sorted(checks._largest(score[:7])) == [0, 1, 2, 3, 4, 5, 6]
    assert sorted(checks._largest(score[:4])) == [0, 1, 2, 3]
    assert checks._largest(score[:3]) == []


def test_one_user_left_out_of_an_adjusted_row() -> None:
    """Every (lift, p) against the row made anew without that user."""
    random = np.random.default_rng(7)
    past = random.normal(size=(2, 30))
    x = random.gamma(2.0, 2.0, 30) + past[0]
    table = UnitTable("user", ("a", "b", "c"), {"x": metric("x")}, {"x": x},
                      assigned=np.arange(30) % 3,
                      covariates={"p": past[0], "q": past[1]})  # fmt: skip
    pasts = {"x": ("p", "q")}
    (row, _) = verdict.lifts(table, "a", covariates=pasts)
    found = list(checks._without_one(table, row, "a", ("p", "q")))
    assert len(found) == 20
    expected = []
    for side, arm in (("a", 0), ("b", 1)):
        own = np.flatnonzero(table.assigned == arm)
        for i in checks._largest(np.abs(x[own] - x[own].mean())):
            left = table.where(np.delete(np.arange(30), own[i]))
            again = verdict.row(compare(left, "x", "a", "b", ("p", "q")), "x", "b", "user")
            expected.append((again.lift, again.p))
        assert side in table.arms
    assert np.array(found) == pytest.approx(np.array(expected))


def influenced(rows: list[verdict.Lift], **more: object) -> checks.Check:
    x = np.array([[5.0, 6, 7, 8, 9, 10, 11, 12], [5.5, 6.1, 7.9, 8.2, 9.1, 10.8, 11.3, 17]])
    metrics = {"x": metric("x"), "f": replace(metric("f"), quantile=0.5)}
    table = UnitTable("user", ("a", "b"), metrics, {"x": x, "f": x}, **more)  # type: ignore[arg-type]
    return checks.outliers(table, "a", rows)


def test_the_shift_is_told_in_widths_of_the_interval() -> None:
    x = np.array([[5.0, 6, 7, 8, 9, 10, 11, 12], [5.5, 6.1, 7.9, 8.2, 9.1, 10.8, 11.3, 17]])
    table = UnitTable("user", ("a", "b"), {"x": metric("x")}, {"x": x})
    row = verdict.lift(table, "x", "a", "b")
    lifts, ps = [], []
    for user in range(8):
        keep = np.delete(np.arange(8), user)
        lifts.append(x[1, keep].mean() / x[0, keep].mean() - 1)
        ps.append(stats.ttest_rel(x[1, keep], x[0, keep]).pvalue)
    shift = max(abs(one - row.lift) for one in lifts)
    for low, high, width in ((-0.1, 0.3, 0.4), (row.lift - 0.1, np.inf, 0.2),
                             (-np.inf, row.lift + 0.15, 0.3)):  # fmt: skip
        found = influenced([replace(row, low=low, high=high)])
        assert found.value == (
            f"largest shift of a lift by one user: {shift / width:.0%} of its interval's width"
            " (x in b)"
        )
    endless = influenced([replace(row, low=-np.inf, high=np.inf)])
    none = "largest shift of a lift by one user: 0% of its interval's width"
    assert endless.value == none
    figure = replace(row, metric="f")
    for rows in ([], [replace(row, p=np.nan)], [figure]):
        assert told(influenced(rows)) == ("outlier influence", "green", none)
    # p is held against the level that the correction asks of it.
    inside = (row.p + max(ps)) / 2, (row.p + min(ps)) / 2
    outside = min(ps) * 0.99, max(ps) * 1.01
    for alpha in (*inside, *outside):
        turned = alpha in inside
        own = replace(row, level_adjusted=1 - alpha)
        found = influenced([own, own])
        assert found.status == ("amber" if turned else "green")
        if turned:
            assert found.meaning == (
                "one user decides whether p is as small as the verdict asks: x in b; winsorise and"
                " compare"
            )


@pytest.mark.parametrize(("users", "known"), [(49, False), (50, True)])
def test_the_control_against_itself_needs_fifty_users(users: int, known: bool) -> None:
    random = np.random.default_rng(3)
    click = random.poisson(2.0, (2, users, 1))
    metrics = {"gone": metric("gone"), "click": metric("click")}
    days = UserDays(("a", "b"), users, 1, metrics, {"click": click}, {})
    found = checks.a_a(days, "b")
    if not known:
        assert told(found) == ("A/A", "amber", "too few users")
        return
    o = outcomes(replace(days, terms={"click": click[[1, 1]]}), "a", "b", "click")
    p = np.concatenate(
        [tests.t_test(split_pair(o, up, down)[0]).p for up, down in draws(50, 50, 400, 0)]
    )
    rate = np.count_nonzero(p < 0.05) / 400
    assert found.value == (
        f"400 A/A tests a metric; false positives furthest from 5%: click {rate:.1%}"
    )
    assert found.status == (
        "amber" if abs(rate - 0.05) > 3.5 * np.sqrt(0.05 * 0.95 / 400) else "green"
    )


def test_a_metric_of_which_one_user_has_all_does_not_hold_its_level() -> None:
    click = np.zeros((2, 200, 1))
    click[:, 0] = 1.0
    terms = {"click": click, "well": np.random.default_rng(0).normal(9, 1, (2, 200, 1))}
    metrics = {name: metric(name) for name in terms}
    found = checks.a_a(UserDays(("a", "b"), 200, 1, metrics, terms, {}), "a")
    assert (found.status, "false positives furthest from 5%: click" in found.value) == (
        "amber", True,
    )  # fmt: skip
    assert found.meaning == (
        "the test does not hold its 5% here on click: read its p with care, run `abtest audit`"
    )


def test_the_control_of_a_split_is_compared_by_its_own_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    click = np.random.default_rng(3).poisson(2.0, (2, 300, 2))
    days = UserDays(("a", "b"), 300, 2, {"click": metric("click")}, {"click": click}, {},
                    assigned=np.arange(300) % 3 % 2)  # fmt: skip
    asked = []

    def noted(source: UserDays, *names: str) -> Any:
        asked.append((source, names))
        return outcomes(source, *names)

    monkeypatch.setattr(checks, "outcomes", noted)
    checks.a_a(days, "b")
    monkeypatch.setattr(checks, "DRAWN", 60)
    checks.a_a(days, "b")
    checks.a_a(replace(days, assigned=None, switched=np.array([1, 0])), "a")
    own = np.flatnonzero(np.arange(300) % 3 == 1)
    (first, names), (second, _), (third, _) = asked
    assert names == ("b", "again", "click")
    assert first.terms["click"].tolist() == click[[1, 1]][:, own].tolist()
    assert second.terms["click"].tolist() == click[[1, 1]][:, own[:60]].tolist()
    # Of a switchback, the days of the arm.
    assert third.terms["click"].tolist() == click[[0, 0]][:, :60, 1:].tolist()
    assert (third.days, third.switched, third.assigned, third.arms) == (
        1,
        None,
        None,
        ("a", "again"),
    )


def test_what_needs_the_day_after_is_not_asked_of_a_switchback() -> None:
    plays = np.random.default_rng(0).poisson(6, (30, 4))
    days = units.read(switchback_log([0, 1, 1, 0], plays), ("watch_time", "return"))
    served = checks._served_by(days, "b")
    assert (set(served.metrics), served.days, served.switched) == ({"watch_time"}, 2, None)
    assert served.terms["watch"].tolist() == days.terms["watch"][:, :, [1, 2]].tolist()
    plain = replace(days, switched=None)
    assert checks._served_by(plain, "b") is plain


def test_trends_need_three_days_and_an_arm_that_is_served_on_each(paired_days: UserDays) -> None:
    few = replace(paired_days, days=2)
    assert told(checks.novelty(few, "a")) == ("novelty", "green", "2 days")
    switched = replace(paired_days, switched=np.arange(paired_days.days) % 2)
    assert told(checks.novelty(switched, "a")) == ("novelty", "green", "not applicable")
    three = replace(
        paired_days, days=3, terms={n: v[..., :3] for n, v in paired_days.terms.items()}
    )
    assert checks.novelty(three, "a").value.startswith("strongest trend: ")


def test_what_was_before_leaks_or_not(paired_days: UserDays, split_days: UserDays) -> None:
    green = checks.Check("covariate balance", "green", "small", "alike")
    amber = replace(green, status="amber", meaning="unlike")
    assert told(checks.carry_over(paired_days, amber)) == (
        "carry-over", "green", "same state at the start",
    )  # fmt: skip
    for before, meaning in (
        (green, "no difference between the arms was there before the start"), (amber, "unlike"),
    ):  # fmt: skip
        found = checks.carry_over(split_days, before)
        assert (*told(found), found.meaning) == ("carry-over", before.status, "small", meaning)


@pytest.mark.parametrize(
    ("serving", "status", "value"),
    [
        ({}, "green", "no arm is retrained"),
        ({"refit_on": "pooled"}, "green", "no arm is retrained"),
        ({"refit": "never", "refit_on": "pooled"}, "green", "no arm is retrained"),
        ({"refit": "daily"}, "green", "each arm is retrained on its own log only"),
        ({"refit": "daily", "refit_on": "own"}, "green",
         "each arm is retrained on its own log only"),
        ({"refit": "daily", "refit_on": "pooled"}, "amber", "arms share training data"),
    ],
)  # fmt: skip
def test_arms_teach_each_other_or_not(serving: dict[str, str], status: str, value: str) -> None:
    assert told(checks.interference({"serving": serving})) == ("interference", status, value)
    assert told(checks.interference({}))[1:] == ("green", "no arm is retrained")


def test_every_source_has_its_checks(paired_days: UserDays, split_days: UserDays) -> None:
    def names(source: UserDays | UnitTable, **more: Any) -> list[str]:
        return [check.name for check in checks.checks(source, "a", **more)]

    of_table = ["sample ratio", "covariate balance", "rare events", "outlier influence"]
    table = replace(split_days.by("user"), groups={})
    assert names(table) == of_table
    grouped = replace(table, groups={"c": np.array(["k", "l"] * 200)})
    new = np.array([[3.0, 4.0], [4.0, 3.0]])
    assert names(grouped, new=new) == [
        "sample ratio", "sample ratio by day", "covariate balance", "segment balance",
        "rare events", "outlier influence",
    ]  # fmt: skip
    assert (
        names(replace(paired_days.by("user"), groups={"c": np.array(["k", "l"] * 200)})) == of_table
    )
    shares = {"a": 1.0, "b": 3.0}
    by_name = {one.name: one for one in checks.checks(grouped, "a", new=new, shares=shares)}
    assert by_name["sample ratio by day"] == checks.sample_ratio_of_new(new, np.array([0.25, 0.75]))
    assert by_name["sample ratio"] == checks.sample_ratio(grouped, [0.25, 0.75])
    equal = {one.name: one for one in checks.checks(grouped, "a", new=new)}
    assert equal["sample ratio by day"] == checks.sample_ratio_of_new(new, np.array([0.5, 0.5]))
    of_log = ["A/A", "novelty", "carry-over", "interference"]
    found = names(paired_days)
    assert found == [
        "sample ratio", "sample ratio by day", *of_table[1:], *of_log,
    ]  # fmt: skip
    fits = replace(split_days, fits=(1, 2), fit_of_user=np.arange(400) % 2)
    assert names(fits)[2] == "users by fit"
    assert "users by fit" not in names(replace(split_days, fits=(1, 1)))


def test_users_of_fits_are_those_of_their_arm() -> None:
    """Three users of arm a, four of b with two fits of which one is dealt to nobody in it."""
    seen = np.zeros((2, 7, 2))
    seen[1, [3, 4, 5], [0, 1, 1]] = 2
    seen[0, :3] = 1
    days = UserDays(("a", "b"), 7, 2, {}, {"impressions": seen}, {}, fits=(1, 3),
                    assigned=np.array([0, 0, 0, 1, 1, 1, 1]),
                    fit_of_user=np.array([1, 1, 2, 0, 0, 2, 2]))  # fmt: skip
    came, users = checks._users_by_fit(days, 1)
    assert (came.tolist(), users.tolist()) == ([2.0, 1.0], [2.0, 2.0])
    came, users = checks._users_by_fit(replace(days, assigned=None), 1)
    assert (came.tolist(), users.tolist()) == ([2.0, 0.0, 1.0], [2.0, 2.0, 3.0])
    lives = (days, replace(days, terms={"impressions": seen[::-1]}))
    came, users = checks._users_by_fit(replace(days, lives=lives), 1)
    assert (came.tolist(), users.tolist()) == ([3.0, 0.0], [4.0, 4.0])
    found = checks.fits_ratio(days)
    p = min(1.0, float(stats.chi2_contingency([[2, 1], [0, 1]]).pvalue))
    assert told(found) == (
        "users by fit", "green", f"who came: 2 : 1 in b; chi-square p = {p:.3g}",
    )  # fmt: skip
