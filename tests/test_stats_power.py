"""Power against statsmodels, against simulation, and against the audit's samples."""

from __future__ import annotations

import json
import math
import re
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from click.testing import CliRunner
from scipy import stats
from scipy.stats import ttest_ind
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import TTestIndPower, TTestPower

from simulator.cli.power import power as command
from simulator.stats import durations, power, units, verdict
from simulator.stats.frames import from_frame, metric_of
from simulator.stats.power import Pilot, PowerError
from simulator.stats.quantities import Quantity
from simulator.stats.randomise import Rate, draws, split_pair
from simulator.stats.unit_table import UnitTable
from simulator.stats.user_days import UserDays
from tests.worlds import paired_log

PILOT = Pilot("x", mean=20.0, sd=10.0, sd_difference=4.0, correlation=0.6)


@pytest.mark.parametrize("lift", [0.02, 0.1, 0.3])
def test_split_power_is_statsmodels(lift: float) -> None:
    for n in (20, 200, 500):
        theirs = TTestIndPower().power(effect_size=lift * 20 / 10, nobs1=n / 2, alpha=0.05)
        assert power.power(PILOT, lift, n, "split") == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("lift", [0.02, 0.1, 0.15])
def test_paired_power_is_statsmodels(lift: float) -> None:
    for n in (8, 40, 100):
        theirs = TTestPower().power(effect_size=lift * 20 / 4, nobs=n, alpha=0.05)
        assert power.power(PILOT, lift, n, "paired") == pytest.approx(theirs, abs=1e-6)


def test_power_far_out_is_one() -> None:
    assert power.power(PILOT, 5.0, 5000, "paired") == pytest.approx(1.0)


def test_users_needed_is_statsmodels_and_inverts_detectable() -> None:
    theirs = float(
        np.squeeze(TTestIndPower().solve_power(effect_size=0.02 * 20 / 10, alpha=0.05, power=0.8))
    )
    need = power.users_needed(PILOT, 0.02, "split")
    assert need == pytest.approx(2 * theirs, abs=2)
    for design in PILOT.designs:
        n = int(power.users_needed(PILOT, 0.013, design))
        assert power.detectable(PILOT, n, design) <= 0.013 < power.detectable(PILOT, n - 2, design)
        assert power.power(PILOT, 0.013, n, design) == pytest.approx(0.8, abs=0.01)


def test_cuped_saves_the_explained_share_and_twins_their_own() -> None:
    need = {d: power.users_needed(PILOT, 0.005, d) for d in PILOT.designs}
    assert need["cuped"] / need["split"] == pytest.approx(1 - 0.6**2, rel=0.001)
    assert need["paired"] / need["split"] == pytest.approx(16 / (4 * 100), rel=0.001)


def test_a_million_billions_is_infinite() -> None:
    assert math.isinf(power.users_needed(PILOT, 1e-9, "split"))


@pytest.mark.parametrize(
    ("figures", "message"),
    [((0.0, 1.0), "mean"), ((1.0, 0.0), "standard deviation"), ((float("nan"), 1.0), "mean")],
)
def test_bad_pilots(figures: tuple[float, float], message: str) -> None:
    with pytest.raises(PowerError, match=message):
        Pilot("x", *figures)


def test_simulation_agrees_with_the_formula_on_a_log() -> None:
    days = units.read(paired_log(), ("click", "click_rate"))
    for metric in ("click", "click_rate"):
        p = power.pilot(days.by("user"), metric, "a", "b")
        population = power.population(days.by("user"), metric, "a", "b")
        for design in p.designs:
            n = int(power.users_needed(p, 0.05, design))
            drawn = power.simulate(population, 0.05, n, design, repetitions=800)
            assert drawn.value == pytest.approx(0.8, abs=0.06), (metric, design, n)


def test_a_curve_is_simulated_at_a_quarter_a_half_and_all_of_the_users_needed() -> None:
    need = power.users_needed(PILOT, 0.2, "split")
    shown = power.curve(PILOT, 0.2, "split", population=power.imagined(PILOT), repetitions=20)
    assert [n for n, _ in shown.simulated] == [int(need * share) for share in (0.25, 0.5, 1.0)]


def test_imagined_users_have_the_moments_and_the_power_of_the_pilot() -> None:
    p = Pilot("x", 7.0, 9.0, 4.0, 0.7)
    o = power.imagined(p)
    control, treatment = o.control[0], o.treatment[0]
    assert o.before is not None
    assert (control.mean(), control.std(), (treatment - control).std()) == pytest.approx(
        (7.0, 9.0, 4.0), rel=1e-9
    )
    assert np.corrcoef(control, o.before)[0, 1] == pytest.approx(0.7)
    assert control.min() > -0.1
    assert ((control - 7.0) ** 3).mean() / 9.0**3 > 1.5, "skewed"
    for design in p.designs:
        n = int(power.users_needed(p, 0.01, design))
        assert power.simulate(o, 0.01, n, design, repetitions=800).value == pytest.approx(
            0.8, abs=0.06
        ), design


def test_simulation_of_a_split_table_uses_the_controls_users() -> None:
    rng = np.random.default_rng(3)
    arm = np.arange(4000) % 2
    frame = pd.DataFrame(
        {
            "user": range(4000),
            "arm": np.where(arm, "b", "a"),
            "x": rng.gamma(2, 3, 4000) * (1 + arm),
        }
    )
    table = from_frame(frame.assign(x_before=frame.x * rng.gamma(9, 1 / 9, 4000)))
    o = power.population(table, "x", "a", "b")
    assert np.array_equal(o.control[0], frame.x[arm == 0])
    assert np.array_equal(o.treatment[0], o.control[0])
    assert o.before is not None
    assert len(o.before) == 2000


def user_days(cube: np.ndarray) -> UserDays:
    """Twins whose clicks on each day are `[2, n, D]`."""
    metrics = {m.name: m for m in units.chosen(["click"])}
    return UserDays(("a", "b"), cube.shape[1], cube.shape[2], metrics, {"click": cube}, {})


def test_days_of_a_known_process() -> None:
    """Between sd 3, within sd 2, mean 10: variances 4 x 9 / 100 and 4 x 4 / 100 of a split test."""
    rng = np.random.default_rng(0)
    cube = (10 + rng.normal(0, 3, (20_000, 1)) + rng.normal(0, 2, (20_000, 6)))[None].repeat(
        2, axis=0
    )
    duration = durations.durations(user_days(cube), "click", "a", "b")["split"]
    assert duration.spread[0] == pytest.approx(0.36 + 0.16 / 6, rel=0.05)
    assert duration.spread[0] * duration.lasting[0] == pytest.approx(0.36, rel=0.05)
    assert duration.needed(100, 0.05) == durations.DaysNeeded(math.inf, math.inf, math.inf)
    n, lift = 5000, 0.0275
    need = duration.needed(n, lift)
    assert need.low <= need.days <= need.high
    error = math.sqrt((0.36 + 0.16 / need.days) / n)
    assert 2.8 * error <= lift * 1.02
    assert duration.needed(10 * n, lift).days == 1


def test_days_of_an_adjusted_split_are_those_of_what_the_past_does_not_tell() -> None:
    """Between sd 3, of which a past with sd 2 tells 2; within sd 4: what lasts is 3^2 - 2^2."""
    rng = np.random.default_rng(1)
    n, width = 40_000, 5
    past = rng.normal(0, 2, n)
    lasting = past + rng.normal(0, math.sqrt(5), n)
    cube = (10 + lasting[:, None] + rng.normal(0, 4, (n, width)))[None].repeat(2, axis=0)
    days = replace(user_days(cube), before={"click": past})
    found = durations.durations(days, "click", "a", "b")
    plain, adjusted = found["split"], found["cuped"]
    assert adjusted.spread[0] == pytest.approx(4 * (5 + 16 / width) / 100, rel=0.03)
    assert adjusted.spread[0] * adjusted.lasting[0] == pytest.approx(4 * 5 / 100, rel=0.03)
    assert plain.spread[0] * plain.lasting[0] == pytest.approx(4 * 9 / 100, rel=0.03)
    # 4 (5 + 16 / d) / 100 / 5,000 is (1.87% / 2.8)^2 after some 28 days.
    need = adjusted.needed(5_000, 0.0187)
    error = math.sqrt(4 * (5 + 16 / need.days) / 100 / 5_000)
    assert 2.8 * error == pytest.approx(0.0187, rel=0.02)
    assert plain.needed(5_000, 0.0187).days == math.inf
    pilot = power.pilot(days.by("user"), "click", "a", "b")
    assert adjusted.spread[0] == pytest.approx(pilot.relative_error("cuped", 1) ** 2, rel=1e-6)


def test_days_are_those_of_the_analysis_of_variance() -> None:
    """Against statsmodels, twins and a split of unequal arms; the ends against draws anew."""
    rng = np.random.default_rng(4)
    n, width = 50, 4
    users = 5 + rng.normal(0, 1, (n, 1))
    cube = np.stack([users + rng.normal(0, 1, (n, width)), users + rng.normal(1, 2, (n, width))])
    arms = power.Arms(0.25, 0.75)
    found = durations.durations(user_days(cube), "click", "a", "b", arms)
    mean = cube[0].mean()
    user = np.repeat(np.arange(n), width)
    for design, values, factor in (
        ("split", cube[0], arms.factor),
        ("paired", cube[1] - cube[0], 1.0),
    ):
        fit = ols("x ~ C(user)", pd.DataFrame({"x": values.ravel(), "user": user})).fit()
        table = anova_lm(fit)["mean_sq"]
        between, within = table["C(user)"] / width, table["Residual"] / width
        one = found[design]
        assert one.spread[0] == pytest.approx(factor * between / mean**2)
        assert one.lasting[0] == pytest.approx(max(0.0, 1 - within / between))
        assert (one.days, one.design) == (width, design)
    assert found["split"].spread[1:].mean() == pytest.approx(found["split"].spread[0], rel=0.05)
    variance = cube[0].mean(axis=1).var(ddof=1)
    # Of a variance, by its fourth moment; that of the mean adds next to nothing.
    fourth = ((cube[0].mean(axis=1) - mean) ** 4).mean()
    error = math.sqrt((fourth - variance**2) / n) / variance
    drawn = found["split"].spread[1:].std() / found["split"].spread[0]
    assert drawn == pytest.approx(math.hypot(error, 2 * math.sqrt(variance / n) / mean), rel=0.2)


def test_days_needed_solve_what_they_promise() -> None:
    """spread (lasting + (1 - lasting) D / d) / n is the error that finds the lift."""
    one = durations.Duration(np.array([2.0, 2.0, 3.0]), np.array([0.25, 0.1, 0.25]), 4, "paired")
    n, lift = 3_000, 0.08
    room = (lift / verdict.noncentrality(n - 1, 0.9, 0.99)) ** 2 * n
    days = [
        math.ceil((1 - lasting) * 4 / (room / spread - lasting))
        for spread, lasting in zip(one.spread, one.lasting, strict=True)
    ]
    assert len(set(days)) == 3
    need = one.needed(n, lift, 0.9, 0.99)
    assert (need.days, need.low, need.high) == (days[0], *sorted(days[1:]))
    assert one.needed(n, 10.0).days == 1.0
    other = durations.Duration(np.array([4.0, 1.0]), np.array([0.5, 0.5]), 4, "paired")
    least = durations.Duration(np.array([2.0, 2.0]), np.array([0.9, 0.1]), 4, "split").at_least(
        other
    )
    # No less than the lasting part and the rest of the other, where its whole is larger.
    assert least.spread.tolist() == [4.0, 2.0]
    assert least.lasting == pytest.approx([0.5, 0.25])
    assert least.design == "split"


def test_days_that_cannot_be_planned_say_why() -> None:
    days = user_days(np.ones((2, 5, 1)))
    assert durations.without_duration(days, "click") == "the log has one day"
    with pytest.raises(PowerError, match="click: days cannot be planned: the log has one day"):
        durations.durations(days, "click", "a", "b")
    two = user_days(np.ones((2, 5, 2)))
    assert durations.without_duration(two, "click") == ""
    assert durations.durations(two, "click", "a", "b") == {}
    switched = replace(two, switched=np.array([0, 1]))
    assert "switchback" in durations.without_duration(switched, "click")
    returning = {m.name: m for m in units.chosen(["return"])}
    assert "depends on other days" in durations.without_duration(
        replace(two, metrics=returning), "return"
    )


@pytest.mark.parametrize("lasting", [0.0, 0.3, 3.0])
def test_numbers_of_a_plan_never_contradict_one_another(lasting: float) -> None:
    """Of many small pilots, whose users differ by chance more or less than their days do: twins
    never need more users or days than a split, nor do the ends of their intervals; and with the
    users that a lift needs, days suffice that the pilot had, while with fewer they do not.
    """
    rng = np.random.default_rng(5)
    for trial in range(40):
        n, width = 60, int(rng.integers(2, 8))
        users = rng.normal(0, 1, (1, n, 1)) + rng.normal(0, lasting, (2, n, 1))
        scale = np.array([1.0, rng.choice([1.0, 6.0])])[:, None, None]
        cube = 10 + scale * (lasting * users + rng.normal(0, 3, (2, n, width)))
        before = {"click": users[0, :, 0] + rng.normal(0, 1, n)}
        days = replace(user_days(cube), before=before)
        pilot = power.pilot(days.by("user"), "click", "a", "b")
        found = durations.durations(days, "click", "a", "b")
        assert set(found) == {"paired", "split", "cuped"}
        for lift in (0.3, 0.05, 0.01):
            users_of = {d: power.users_needed(pilot, lift, d) for d in found}
            assert users_of["paired"] <= users_of["cuped"] <= users_of["split"] + 2, trial
            for n_users in (40, 1_000, 20_000):
                needs = {d: one.needed(n_users, lift) for d, one in found.items()}
                # Twins have one degree of freedom more: of 40, a day may turn on it.
                for design in ("split", "cuped"):
                    for one, other in zip(
                        astuple(needs["paired"]), astuple(needs[design]), strict=True
                    ):
                        assert one <= other, (trial, lift, n_users, design)
            for design, need in users_of.items():
                duration = found[design]
                assert duration.needed(int(need), lift).days <= width
                fewer = int(need) - (1 if design == "paired" else 2)
                if fewer >= 8:
                    assert duration.needed(fewer, lift).days > width or math.isclose(
                        duration.lasting[0], 1.0
                    )


def test_intervals_of_days_hold_the_true_days_as_often_as_they_say() -> None:
    """Of 200 pilots of 400 users; between sd 2, within sd 4, mean 10."""
    rng = np.random.default_rng(2)
    held = 0
    true = durations.Duration(
        np.array([0.16 + 0.64 / 5] * 2), np.array([0.16 / (0.16 + 0.64 / 5)] * 2), 5, "split"
    ).needed(3_000, 0.024)
    assert 3 < true.days < 60
    for _ in range(200):
        cube = 10 + rng.normal(0, 2, (400, 1)) + rng.normal(0, 4, (400, 5))
        days = user_days(np.stack([cube, cube + rng.normal(0, 1, cube.shape)]))
        need = durations.durations(days, "click", "a", "b")["split"].needed(3_000, 0.024)
        held += need.low <= true.days <= need.high
    assert held / 200 == pytest.approx(0.95, abs=0.045)


def test_days_of_a_ratio_are_tied_to_its_users() -> None:
    days = units.read(paired_log(), ("click", "click_rate"))
    pilot = power.pilot(days.by("user"), "click_rate", "a", "b")
    found = durations.durations(days, "click_rate", "a", "b")
    assert {"paired", "split"} <= set(found)
    for design, duration in found.items():
        spread = pilot.relative_error(design, 1) ** 2
        assert duration.spread[0] == pytest.approx(spread, rel=1e-9), design


@pytest.mark.parametrize(("ratio", "df"), [((1.0, 1.0), None), ((9.0, 1.0), "welch")])
def test_unequal_arms_need_the_users_that_find_the_lift(
    ratio: tuple[float, float], df: str | None
) -> None:
    """Against scipy's Welch test of normal users in arms of these sizes."""
    arms = power.Arms.of(("a", "b"), "a", "b", dict(zip("ab", ratio, strict=True)))
    pilot = Pilot("x", 10.0, 4.0, arms=arms)
    need = int(power.users_needed(pilot, 0.15, "split"))
    sizes = [round(need * share) for share in (arms.control, arms.treatment)]
    rng = np.random.default_rng(4)
    control, treatment = (
        rng.normal(mean, 4.0, (4000, size)) for mean, size in zip((10.0, 11.5), sizes, strict=True)
    )
    p = ttest_ind(treatment, control, axis=1, equal_var=df is None).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.025)
    halves = power.users_needed(Pilot("x", 10.0, 4.0), 0.15, "split")
    assert need / halves == pytest.approx(1.0 if df is None else 1 / (4 * 0.9 * 0.1), rel=0.05)


def test_simulation_of_unequal_arms_agrees_with_the_formula() -> None:
    arms = power.Arms(0.6, 0.2)
    pilot = Pilot("x", 7.0, 9.0, None, 0.7, arms=arms)
    people = power.imagined(pilot)
    for design in pilot.designs:
        n = int(power.users_needed(pilot, 0.05, design))
        found = power.simulate(people, 0.05, n, design, repetitions=800, arms=arms)
        assert found.value == pytest.approx(0.8, abs=0.06), design


def test_one_side_needs_fewer_users_and_finds_on_its_side_only() -> None:
    level = 0.9  # of which one side is a test at 5%
    need = int(power.users_needed(PILOT, 0.05, "split", level=level))
    theirs = TTestIndPower().power(0.05 * 20 / 10, need / 2, 0.05, alternative="larger")
    own = power.power(PILOT, 0.05, need, "split", level, one_sided=True)
    assert own == pytest.approx(theirs, abs=1e-4)
    assert power.power(PILOT, 1e-9, need, "split", level, one_sided=True) == pytest.approx(0.05)
    found = power.simulate(
        power.imagined(PILOT), -0.05, need, "split", 800, level=level, one_sided=True
    )
    assert found.value == pytest.approx(own, abs=0.05)


@pytest.mark.parametrize("paired", [True, False])
def test_the_users_that_a_lift_needs_are_known_as_well_as_the_pilot_tells(paired: bool) -> None:
    """Of 300 pilots the logarithm of the need spreads as each says of itself."""
    rng = np.random.default_rng(6)
    n = 300
    needs: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    for _ in range(300):
        before = rng.gamma(8.0, 1.25, n)
        own = before * rng.gamma(16.0, 1 / 16, n)
        other = own + rng.normal(0, 2.0, n)
        table = UnitTable(
            "user",
            ("a", "b"),
            {m.name: m for m in units.chosen(["click"])},
            {"click": np.stack([own, other]) if paired else own},
            assigned=None if paired else np.zeros(n, dtype=int),
            covariates={"click": before},
        )
        pilot = power.pilot(table, "click", "a", "b")
        for design in ("paired", "cuped") if paired else ("split", "cuped"):
            needs.setdefault(design, []).append(2 * np.log(pilot.relative_error(design, 1)))
            errors.setdefault(design, []).append(pilot.log_errors[design])
    for design, logs in needs.items():
        assert np.median(errors[design]) == pytest.approx(np.std(logs), rel=0.2), design


SIMULATED = re.compile(r"^(?:paired|split|cuped) +[\d,]+ +[\d.]+% +[\d.]+% to", re.MULTILINE)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["--replay", "--level", "90%"], "--level is not for plans with --replay"),
        (["--replay", "--lift", "1%"], "--lift is not for plans with --replay"),
        (["--lift", "1%", "--width", "2%"], "--width is for --replay only"),
    ],
)
def test_options_of_the_other_kind_of_plan_are_refused(asked: list[str], says: str) -> None:
    done = CliRunner().invoke(command, ["log.parquet", *asked])
    assert done.exit_code == 2
    assert says in done.output


def test_command_by_hand_and_on_a_log(tmp_path: Path) -> None:
    run = CliRunner().invoke
    by_hand = run(
        command, ["--metric", "watch_time", "--mean", "7500", "--sd", "6000", "--lift", "0.017%"]
    )
    assert by_hand.exit_code == 0, by_hand.output
    assert "To see the paper's +0.017% watch time you would need" in by_hand.output
    expected = 4 * (0.8 / 0.00017) ** 2 * (1.959964 + 0.841621) ** 2
    figure = int(by_hand.output.split("would need ")[1].split()[0].replace(",", ""))
    assert figure == pytest.approx(expected, rel=1e-3)
    assert "at 20%" in " ".join(by_hand.output.split())
    drawn = run(
        command,
        [
            "--mean",
            "10",
            "--sd",
            "5",
            "--sd-difference",
            "2",
            "--correlation",
            "0.5",
            "--lift",
            "5%",
            "--simulate",
            "400",
        ],
    )
    assert len(SIMULATED.findall(drawn.output)) == 9
    table = pd.DataFrame(
        {
            "user": range(400),
            "arm": ["control", "b"] * 200,
            "x": np.random.default_rng(0).gamma(2, 2, 400),
        }
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    on_table = run(command, [str(tmp_path / "t.csv"), "--lift", "20%", "--simulate", "400"])
    assert len(SIMULATED.findall(on_table.output)) == 3
    paired_log(n_users=80).write(tmp_path / "log" / "part.parquet")
    on_log = run(
        command,
        [
            str(tmp_path),
            "--metric",
            "click",
            "--lift",
            "5%",
            "--simulate",
            "100",
            "--out",
            str(tmp_path / "p.json"),
        ],
    )
    assert on_log.exit_code == 0, on_log.output
    stored = json.loads((tmp_path / "p.json").read_text())
    assert set(stored[0]["designs"]) == {"paired", "split", "cuped"}
    assert len(stored[0]["designs"]["split"]["curve"]["simulated"]) == 3
    for bad in (
        [],
        ["--mean", "3"],
        [str(tmp_path), "--lift", "x"],
        [str(tmp_path), "--metric", "clik"],
        [str(tmp_path), "--sd", "2"],
    ):
        assert run(command, bad).exit_code == 2


def test_users_without_a_denominator_count_among_those_needed() -> None:
    """Of a ratio that 60% of users have no denominator for: what is planned at 80% is found four
    times in five.
    """
    rng = np.random.default_rng(8)
    n = 4000
    sessions = np.where(rng.random(n) < 0.6, 0, rng.geometric(0.3, n)).astype(float)
    revenue = rng.poisson(2.0 * sessions).astype(float)
    frame = pd.DataFrame(
        {"user": range(n), "arm": ["a", "b"] * (n // 2), "revenue": revenue, "sessions": sessions}
    )
    table = from_frame(frame, metrics={"arpv": ("revenue", "sessions")})
    pilot = power.pilot(table, "arpv", "a")
    assert pilot.n_users == n // 2
    need = int(power.users_needed(pilot, 0.08, "split"))
    found = power.simulate(
        power.population(table, "arpv", "a", "b"), 0.08, need, "split", repetitions=1500, seed=1
    )
    assert found.value == pytest.approx(0.8, abs=0.04)


def test_the_plan_is_for_the_corrected_verdict(tmp_path: Path) -> None:
    """Nine comparisons under Holm: the need is that of a test at .05 / 9, for statsmodels too;
    `none` leaves it at .05.
    """

    def need(*more: str) -> float:
        out = tmp_path / "plan.json"
        result = CliRunner().invoke(
            command, ["--mean", "20", "--sd", "10", "--lift", "2%", "--out", str(out), *more]
        )
        assert result.exit_code == 0, result.output
        (plan,) = json.loads(out.read_text())
        return float(plan["designs"]["split"]["users_needed"])

    theirs = {
        alpha: TTestIndPower().solve_power(0.02 * 20 / 10, alpha=alpha, power=0.8)
        for alpha in (0.05, 0.05 / 9)
    }
    assert need() == pytest.approx(2 * float(np.squeeze(theirs[0.05])), abs=2)
    assert need("--comparisons", "9") == pytest.approx(
        2 * float(np.squeeze(theirs[0.05 / 9])), abs=2
    )
    assert need("--comparisons", "9", "--correction", "none") == need()


def test_each_metric_is_planned_for_the_test_of_its_decision(tmp_path: Path) -> None:
    """Of two arms: a success at 5% / 2 and not over all metrics, a guardrail one-sided against its
    margin, both with the power that a decision of both needs.
    """
    rng = np.random.default_rng(9)
    n = 3000
    frame = pd.DataFrame(
        {
            "user": range(n),
            "arm": np.array(["control", "b", "c"])[np.arange(n) % 3],
            "revenue": rng.gamma(2.0, 3.0, n),
            "latency": rng.normal(100.0, 20.0, n),
            "clicks": rng.poisson(5.0, n),
        }
    )
    file, out = tmp_path / "users.csv", tmp_path / "plan.json"
    frame.to_csv(file, index=False)
    options = ["--success", "revenue", "--guardrail", "latency=2%", "--lift", "3%"]
    done = CliRunner().invoke(command, [str(file), *options, "--out", str(out)])
    assert done.exit_code == 0, done.output
    plans = {(plan["arm"], plan["metric"]): plan for plan in json.loads(out.read_text())}
    assert set(plans) == {(a, m) for a in "bc" for m in ("revenue", "latency", "clicks")}
    for arm in "bc":
        revenue, latency, clicks = (
            plans[arm, metric] for metric in ("revenue", "latency", "clicks")
        )
        assert (revenue["level"], revenue["target"]) == pytest.approx((0.975, 0.9))
        assert (latency["level"], latency["target"], latency["lift"]) == pytest.approx(
            (0.9, 0.9, 0.02)
        )
        assert (clicks["level"], clicks["target"]) == pytest.approx((0.975, 0.8))
        third = power.Arms(1 / 3, 1 / 3)
        p = Pilot("revenue", revenue["mean"], revenue["sd"], arms=third)
        need = power.users_needed(p, 0.03, "split", 0.9, 0.975)
        assert revenue["designs"]["split"]["users_needed"] == need
    said = " ".join(done.output.split())
    assert "Latency of b: a loss of 2.000% excluded" in said
    assert "one-sided at 5.0% against its margin, power 90.0%" in said
    done = CliRunner().invoke(command, [str(file), "--guardrail", "revenue=x"])
    assert done.exit_code == 2
    assert "a margin is written METRIC=2%" in " ".join(done.output.split())


def test_a_guardrail_is_found_safe_with_the_power_that_was_planned() -> None:
    """By simulation: users from the plan, no true difference, non-inferiority by its margin."""
    from simulator.stats.margins import non_inferiority
    from simulator.stats.moments import split

    rng = np.random.default_rng(10)
    need = int(power.users_needed(Pilot("x", 10.0, 5.0), 0.05, "split", 0.8, 0.9))
    safe = 0
    for _ in range(1000):
        control, treatment = rng.normal(10.0, 5.0, (2, need // 2))
        safe += non_inferiority(split(control, treatment), 0.05) < 0.05
    assert safe / 1000 == pytest.approx(0.8, abs=0.045)


def test_a_plan_follows_the_level_the_side_and_the_metrics_of_a_file(tmp_path: Path) -> None:
    """Metrics of a file, one-sided at 1%; quantiles and constants are left out by name."""
    rng = np.random.default_rng(9)
    n = 600
    frame = pd.DataFrame(
        {
            "user": range(n),
            "arm": ["control", "b"] * (n // 2),
            "revenue": rng.gamma(2.0, 3.0, n),
            "latency": rng.normal(100.0, 20.0, n),
            "flat": np.ones(n),
        }
    )
    file, metrics, out = (tmp_path / name for name in ("users.csv", "metrics.yaml", "plan.json"))
    frame.to_csv(file, index=False)
    metrics.write_text(
        "metrics:\n- revenue: {role: success}\n- latency: lower\n"
        "- p90: {of: latency, quantile: 0.9}\n- flat\n"
    )
    options = ["--metrics", str(metrics), "--level", "99%", "--alternative", "better"]
    ratio = ["--ratio", "control=9", "--ratio", "b=1", "--lift", "5%", "--out", str(out)]
    done = CliRunner().invoke(command, [str(file), *options, *ratio])
    assert done.exit_code == 0, done.output
    plans = {plan["metric"]: plan for plan in json.loads(out.read_text())}
    assert set(plans) == {"revenue", "latency"}
    assert (plans["revenue"]["side"], plans["revenue"]["lift"]) == ("greater", 0.05)
    assert (plans["latency"]["side"], plans["latency"]["lift"]) == ("less", -0.05)
    assert plans["revenue"]["level"] == pytest.approx(0.98)
    pilot = Pilot(
        "revenue", plans["revenue"]["mean"], plans["revenue"]["sd"], arms=power.Arms(0.9, 0.1)
    )
    need = power.users_needed(pilot, 0.05, "split", 0.8, 0.98)
    assert plans["revenue"]["designs"]["split"]["users_needed"] == need
    said = " ".join(done.output.split())
    assert "Not planned: P90: tests are planned for means and ratios; it is a quantile." in said
    assert "Not planned: Flat: the standard deviation must be above 0" in said
    assert "Splits divide them by control 9, b 1." in said
    for bad in (["--ratio", "control=9"], ["--ratio", "x=1", "--ratio", "b=2"]):
        assert CliRunner().invoke(command, [str(file), *bad]).exit_code == 2
    by_hand = ["--mean", "20", "--sd", "10", "--lift", "2%", "--alternative", "better"]
    done = CliRunner().invoke(command, [*by_hand, "--out", str(out)])
    theirs = TTestIndPower().solve_power(0.04, alpha=0.05, power=0.8, alternative="larger")
    (plan,) = json.loads(out.read_text())
    need = plan["designs"]["split"]["users_needed"]
    assert need == pytest.approx(2 * float(np.squeeze(theirs)), abs=2)
    assert "One-sided test at 5%" in done.output


ONE = power.Pilot("x", 4.0, 8.0, 3.0, 0.6)
"""A pilot by hand: of users of both arms sd 8, of twins' differences 3."""


def test_shares_of_two_arms_of_a_test() -> None:
    assert (power.EQUAL_ARMS.control, power.EQUAL_ARMS.treatment) == (0.5, 0.5)
    assert power.Arms.of(["a", "b", "c"], "a", "c", None) == power.Arms(1 / 3, 1 / 3)
    given = {"a": 2.0, "b": 1.0, "c": 5.0}
    arms = power.Arms.of(["a", "b", "c"], "b", "c", given)
    assert arms == power.Arms(0.125, 0.625)
    assert (arms.factor, arms.step) == (8 + 1.6, 1)
    assert (power.Arms(1 / 3, 1 / 3).step, power.Arms(0.25, 0.25).step) == (3, 4)


def test_degrees_of_freedom_are_welchs() -> None:
    assert power.EQUAL_ARMS.df(10) == 8.0
    assert power.Arms(0.25, 0.25).df(40) == 18.0
    arms = power.Arms(0.2, 0.6)
    v, w = 1 / 8, 1 / 24
    assert arms.df(40) == pytest.approx((v + w) ** 2 / (v**2 / 7 + w**2 / 23))
    assert arms.df(5) == power.Arms(0.6, 0.2).df(5) == 0.0, "one user in an arm"
    assert arms.df(5.01) > 0.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0.0, 1.0), "mean must be a number other than 0 to speak of a relative lift; got 0.0"),
        ((np.inf, 1.0), "mean must be a number other than 0 to speak of a relative lift; got inf"),
        ((1.0, 0.0), "standard deviation must be above 0; got 0.0"),
        ((1.0, np.nan), "standard deviation must be above 0; got nan"),
        ((1.0, 1.0, None, 1.0), "correlation with the pre-period must be in (-1, 1); got 1.0"),
        ((1.0, 1.0, None, -1.0), "correlation with the pre-period must be in (-1, 1); got -1.0"),
    ],
)
def test_pilots_that_cannot_be_are_named(given: tuple[float, ...], message: str) -> None:
    with pytest.raises(power.PowerError) as error:
        power.Pilot("x", *given)  # type: ignore[arg-type]
    assert str(error.value) == f"x: the {message}"
    assert power.Pilot("x", -1.0, 1e-9, None, -0.999).designs == ("split", "cuped")


def test_errors_of_designs_by_hand() -> None:
    assert ONE.designs == ("paired", "split", "cuped")
    assert ONE.relative_error("paired", 25) == pytest.approx(3 / 4 / 5)
    assert ONE.relative_error("split", 25) == pytest.approx(16 / 4 / 5)
    assert ONE.relative_error("cuped", 25) == pytest.approx(16 * 0.8 / 4 / 5)
    far = replace(ONE, mean=-4.0, sd_difference=20.0)
    assert far.relative_error("split", 25) == far.relative_error("cuped", 25) == 1.0
    unequal = replace(ONE, arms=power.Arms(0.1, 0.4))
    assert unequal.relative_error("split", 25) == pytest.approx(np.sqrt(12.5) * 8 / 4 / 5)
    for pilot, design, why in (
        (replace(ONE, sd_difference=None), "paired",
         "x: without twins the paired design's variance is not known"),
        (replace(ONE, correlation=None), "cuped",
         "x: without a pre-period the adjusted design's variance is not known"),
    ):  # fmt: skip
        with pytest.raises(power.PowerError) as error:
            pilot.relative_error(design, 25)  # type: ignore[arg-type]
        assert str(error.value) == why
        assert design not in pilot.designs


def test_plans_have_their_degrees_of_freedom() -> None:
    arms = power.Arms(0.25, 0.25)
    found = {name: (p.df(40, arms), p.step(arms), p.divides) for name, p in power.PLANS.items()}
    assert found == {"paired": (39, 1, False), "split": (18, 4, True), "cuped": (17, 4, True)}
    assert [plan.df(2, power.EQUAL_ARMS) for plan in power.PLANS.values()] == [1, 1, 1]


def exact_power(pilot: power.Pilot, lift: float, n: int, design: Any, level: float) -> float:
    df = power.PLANS[design].df(n, pilot.arms)
    shift, q = lift / pilot.relative_error(design, n), stats.t.ppf(0.5 + level / 2, df)
    return float(stats.nct.sf(q, df, shift) + stats.nct.cdf(-q, df, shift))


@pytest.mark.parametrize("design", ["paired", "split", "cuped"])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_power_is_that_of_the_noncentral_t(design: Any, level: float) -> None:
    found = power.power(ONE, 0.3, 40, design, level)
    assert found == pytest.approx(exact_power(ONE, 0.3, 40, design, level), rel=1e-5)
    assert power.power(ONE, -0.3, 40, design, level) == found
    # One side has what both have less the wrong one, which a small lift shows.
    df = power.PLANS[design].df(40, ONE.arms)
    q, shift = stats.t.ppf(0.5 + level / 2, df), 0.02 / ONE.relative_error(design, 40)
    one = power.power(ONE, 0.02, 40, design, level, one_sided=True)
    assert one == pytest.approx(stats.nct.sf(q, df, shift), rel=1e-5)


@pytest.mark.parametrize("lift", [0.05, -0.3, 2.0, 4.0])
@pytest.mark.parametrize("design", ["paired", "split"])
def test_users_needed_are_the_fewest(lift: float, design: Any) -> None:
    """In multiples of the arms; twins one by one."""
    for pilot in (ONE, replace(ONE, arms=power.Arms(0.25, 0.25))):
        step = power.PLANS[design].step(pilot.arms)
        need = power.users_needed(pilot, lift, design, 0.7, 0.9)
        assert need % step == 0
        assert power.detectable(pilot, int(need), design, 0.7, 0.9) <= abs(lift)
        if need > 8:
            fewer = int(need) - step
            assert power.detectable(pilot, fewer, design, 0.7, 0.9) > abs(lift)


def test_no_number_of_users_finds_nothing() -> None:
    with pytest.raises(power.PowerError) as error:
        power.users_needed(ONE, 0.0, "split")
    assert str(error.value) == "x: a lift of 0 cannot be found by any number of users"
    # What 2^49 users show is within a million billions; what 2^50 show is beyond.
    within, beyond = (power.detectable(ONE, 2**k, "split") for k in (49, 50))
    assert power.users_needed(ONE, within * 1.0001, "split") == pytest.approx(2**49, rel=1e-3)
    assert power.users_needed(ONE, within * 0.9999, "split") == np.inf
    assert power.users_needed(ONE, beyond, "split") == np.inf


def past_table(paired: bool, **covariates: np.ndarray) -> UnitTable:
    """Forty units whose values have something to do with their past."""
    random = np.random.default_rng(6)
    x = random.gamma(2.0, 3.0, (2, 40))
    metrics = {name: metric_of(name, name) for name in ("x", "y")}
    pasts = {"x": x[0] + random.normal(0, 2, 40), "other": random.normal(size=40), **covariates}
    if paired:
        return UnitTable("user", ("a", "b"), metrics, {"x": x, "y": x + 1}, covariates=pasts)
    arm = np.arange(40) % 2
    tops = {"x": x[0], "y": x[1]}
    return UnitTable("user", ("a", "b"), metrics, tops, assigned=arm, covariates=pasts)


def test_a_pilot_of_twins_by_numpy() -> None:
    table = past_table(True)
    a, b = table.numerators["x"]
    found = power.pilot(table, "x", "a")
    past = table.covariates["x"]
    r = np.corrcoef(a, past)[0, 1]
    assert (found.mean, found.sd, found.sd_difference, found.correlation) == pytest.approx(
        (a.mean(), a.std(ddof=1), (b - a).std(ddof=1), r)
    )
    assert (found.metric, found.n_users) == ("x", 40)

    def error(spread: np.ndarray) -> float:
        own = np.square(spread) / np.square(spread).mean() - 1 - 2 * (a - a.mean()) / a.mean()
        return float(own.std(ddof=1) / np.sqrt(40))

    z, w = (a - a.mean()) / a.std(), (past - past.mean()) / past.std()
    assert found.log_errors == pytest.approx(
        {
            "split": error(a - a.mean()),
            "paired": error(b - a - (b - a).mean()),
            "cuped": error(z - r * w),
        }
    )
    assert power.pilot(table, "y", "b").mean == pytest.approx(table.numerators["y"][1].mean())


def test_a_pilot_of_a_split_is_of_its_control() -> None:
    table = past_table(False)
    for arm, index in (("a", 0), ("b", 1)):
        own = table.assigned == index
        x = table.numerators["x"][own]
        found = power.pilot(table, "x", arm)
        pasts = np.column_stack([table.covariates[name][own] for name in ("x", "other")])
        fit = sm.OLS(x, sm.add_constant(pasts)).fit()
        assert (found.mean, found.sd, found.sd_difference, found.n_users) == pytest.approx(
            (x.mean(), x.std(ddof=1), None, 20)
        )
        assert found.correlation == pytest.approx(np.sqrt(fit.rsquared))
        assert set(found.log_errors) == {"split", "cuped"}


def test_a_past_that_tells_nothing_is_none() -> None:
    base = past_table(True).numerators["x"][0]

    def past(table: UnitTable, metric: str = "x") -> np.ndarray | None:
        found = power.past_of(table, metric, "a", table.mapped, lambda _: base)
        return None if found is None else found(table)

    for covariates in ({"x": np.ones(40)}, {"x": np.ones(40), "other": np.ones(40)}):
        flat = past_table(True, **covariates)
        assert past(flat) is None
        assert power.pilot(flat, "x", "a").correlation is None
    declared = past_table(True)
    metric = replace(declared.metrics["x"], covariates=("other", "gone"))
    declared = replace(declared, metrics={**declared.metrics, "x": metric})
    found = past(declared)
    assert found is not None
    assert found.tolist() == declared.covariates["other"].tolist()
    nothing = replace(metric, covariates=())
    none = replace(declared, metrics={**declared.metrics, "x": nothing})
    assert past(none) is None
    assert past(past_table(True), "y") is None
    # A past that is the value itself leaves a little for a plan to divide by.
    same = power.pilot(past_table(True, x=base), "x", "a")
    assert same.correlation == 0.999999
    assert power.pilot(past_table(True, x=-base), "x", "a").correlation == -0.999999


def test_what_cannot_be_planned_is_named() -> None:
    table = past_table(True)
    p90 = replace(metric_of("p90", "x"), name="p90", quantile=0.9)
    figure = metric_of("q", Quantity(np.max, "x"))
    table = replace(
        table, metrics={**table.metrics, "p90": p90, "q": figure, "z": metric_of("z", "z")}
    )
    for metric, message in (
        ("gone", "gone: no such metric; there are x, y, p90, q, z"),
        ("p90", "p90: tests are planned for means and ratios; it is a quantile"),
        ("q", "q: tests are planned for means and ratios; it is a figure of choice"),
        ("z", "z: no data"),
    ):
        with pytest.raises(power.PowerError) as error:
            power.pilot(table, metric, "a")
        assert str(error.value) == message


def test_samples_are_of_the_users_of_the_two_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of n users in all those of other arms are not drawn, and tails are the treatment's share."""
    o = power.population(past_table(True), "x", "a", "b")
    asked = []

    def drawn(*given: Any) -> Any:
        asked.append(given)
        return iter([])

    monkeypatch.setattr(power, "draws", drawn)
    arms = power.Arms(0.1, 0.3)
    power.simulate(o, 0.1, 101, "split", 7, 3, arms=arms)
    power.simulate(o, 0.1, 101, "paired", 7, 3, arms=arms)
    assert asked == [(40, 40, 7, 3, pytest.approx(0.75)), (40, 101, 7, 3, 0.5)]


@pytest.mark.parametrize(("lift", "one_sided"), [(0.3, False), (0.3, True), (-0.3, True)])
def test_simulated_tests_are_counted(lift: float, one_sided: bool) -> None:
    o = power.population(past_table(True), "x", "a", "b")
    rate = power.simulate(o, lift, 30, "split", 50, 3, 0.8, one_sided=one_sided)
    ((heads, tails),) = draws(40, 30, 50, 3)
    m = split_pair(o.planted(lift), heads, tails)[1]
    t = (m.treatment - m.control) / np.sqrt(m.var_control + m.var_treatment)
    tail = stats.t.sf(np.abs(t) if not one_sided else np.sign(lift) * t, m.df)
    assert rate == Rate.of(int((tail < 0.1).sum()), 50)


def test_the_users_of_a_split_are_the_controls() -> None:
    table = past_table(False)
    o = power.population(table, "x", "b", "a")
    own = table.numerators["x"][table.assigned == 1]
    assert (o.metric, o.arm) == ("x", "a")
    assert o.control[0].tolist() == o.treatment[0].tolist() == own.tolist()
    assert o.control_days[0].tolist() == own[:, None].tolist()
    twins = power.population(past_table(True), "x", "b", "a")
    assert twins.treatment[0].tolist() == past_table(True).numerators["x"][0].tolist()
    assert twins.before is not None
    assert twins.before.tolist() == past_table(True).covariates["x"].tolist()


def test_a_curve_has_twenty_five_sizes_around_the_need() -> None:
    need = power.users_needed(ONE, 0.1, "split")
    curve = power.curve(ONE, 0.1, "split")
    assert (len(curve.users), curve.design, curve.simulated) == (25, "split", ())
    assert (curve.users[0], curve.users[-1]) == (int(need / 20), pytest.approx(need * 4, abs=1))
    steps = np.diff(np.log(curve.users))
    assert steps == pytest.approx(np.full(24, np.log(80) / 24), abs=0.01)
    assert curve.formula == pytest.approx([power.power(ONE, 0.1, n, "split") for n in curve.users])
    few = power.curve(ONE, 50.0, "paired")
    assert min(few.users) == 8
    assert power.curve(ONE, 1e-12, "split").users[-1] == 4 * 10**15


def test_imagined_users_are_skewed_as_gamma_and_the_rest_is_noise() -> None:
    for pilot in (ONE, replace(ONE, mean=-4.0), power.Pilot("y", 2.0, 1.0)):
        o = power.imagined(pilot)
        value, twin = o.control[0], o.treatment[0]
        assert (len(value), o.metric, o.arm) == (2000, pilot.metric, "treatment")
        assert (value.mean(), value.std()) == pytest.approx((pilot.mean, pilot.sd))
        ranks = (np.arange(2000) + 0.5) / 2000
        law = stats.gamma.ppf(ranks, (pilot.mean / pilot.sd) ** 2)
        shape = (law - law.mean()) / law.std()
        assert np.sort((value - pilot.mean) / pilot.sd * np.sign(pilot.mean)) == pytest.approx(
            shape
        )
        if pilot.sd_difference is None:
            assert (twin == value).all()
            assert o.before is None
            continue
        gap = twin - value
        assert (gap.mean(), gap.std()) == pytest.approx((0.0, 3.0), abs=1e-9)
        assert o.before is not None
        together = np.corrcoef([value, o.before, gap])
        sign = np.sign(pilot.mean)
        assert together[0, 1] == pytest.approx(0.6 * sign)
        assert (together[0, 2], together[1, 2]) == pytest.approx((0.0, 0.0), abs=1e-9)
        assert o.before.std() == pytest.approx(1.0)


def test_plans_are_for_eight_in_ten_at_95_percent_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert power.users_needed(ONE, 0.3, "split") == power.users_needed(ONE, 0.3, "split", 0.8, 0.95)
    assert power.detectable(ONE, 50, "split") == power.detectable(ONE, 50, "split", 0.8, 0.95)
    assert power.power(ONE, 0.3, 50, "split") == power.power(ONE, 0.3, 50, "split", 0.95)
    o = power.population(past_table(True), "x", "a", "b")
    asked = []
    plain = power.simulate
    monkeypatch.setattr(power, "draws", lambda *given: asked.append(given) or iter([]))
    power.simulate(o, 0.3, 40, "split")
    assert asked == [(40, 40, 2000, 0, 0.5)]

    def simulated(*given: Any, **more: Any) -> Rate:
        asked.append((given[1:], more))
        return plain(*given, **more)

    monkeypatch.setattr(power, "simulate", simulated)
    need = power.users_needed(ONE, 0.3, "split")
    curve = power.curve(ONE, 0.3, "split", population=o)
    sizes = [max(int(need * share), 8) for share in (0.25, 0.5, 1.0)]
    assert [n for n, _ in curve.simulated] == sizes
    more = {"level": 0.95, "arms": power.EQUAL_ARMS, "one_sided": False}
    assert [one for one in asked if len(one) == 2] == [
        ((0.3, n, "split", 1000), more) for n in sizes
    ]


def test_a_proportion_goes_with_its_past() -> None:
    table = past_table(True)
    bought = (table.numerators["x"] > 5).astype(float)
    found = power.pilot(replace(table, numerators={"x": bought}), "x", "a")
    assert found.correlation == pytest.approx(np.corrcoef(bought[0], table.covariates["x"])[0, 1])
    one = replace(table, numerators={"x": np.ones((2, 40))})
    with pytest.raises(power.PowerError, match="standard deviation must be above 0"):
        power.pilot(one, "x", "a")


def test_published_lifts_are_those_of_the_paper() -> None:
    """arXiv 2404.08675, section 5.5."""
    published = {"comment": 0.772, "forward": 0.336, "play": 0.143, "follow": 0.027,
                 "watch_time": 0.017}  # fmt: skip
    known = {name: share * 100 for name, share in power.PUBLISHED.items()}
    assert known == pytest.approx(published)
