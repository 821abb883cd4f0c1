"""Power against statsmodels, against simulation, and against the audit's samples."""

from __future__ import annotations

import json
import math
import re
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.stats import ttest_ind
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import TTestIndPower, TTestPower

from simulator.cli.power import power as command
from simulator.stats import durations, power, units, verdict
from simulator.stats.frames import from_frame
from simulator.stats.power import Pilot, PowerError
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
