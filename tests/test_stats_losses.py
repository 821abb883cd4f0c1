"""Negative means: lifts are shares of the size of the control's mean, everywhere, so that a metric
and its negative mirror each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from simulator.page import figures
from simulator.report import user_table as tables
from simulator.report.content import Distribution
from simulator.stats import (
    adjustment,
    intervals,
    margins,
    moments,
    resampling,
    segments,
    sequential,
    units,
    verdict,
)
from simulator.stats import efficiency as designs
from simulator.stats.contrasts import compare
from simulator.stats.frames import from_frame
from simulator.stats.moments import Moments
from simulator.stats.randomise import outcomes
from tests.worlds import paired_log


def losses(mean: float = -10.0, shift: float = 0.0, n: int = 3_000, seed: int = 0) -> pd.DataFrame:
    """Profit of users who cost money on average; `shift`: what the new arm adds to each."""
    random = np.random.default_rng(seed)
    arm = np.arange(2 * n) % 2
    frame = pd.DataFrame({"user": np.arange(2 * n), "arm": np.where(arm == 1, "new", "control")})
    profit = random.normal(mean, 3.0, 2 * n)
    frame["profit"], frame["profit_before"] = (
        profit + shift * arm,
        profit + random.normal(0.0, 2.0, 2 * n),
    )
    frame["country"] = random.choice(["de", "jp", "us"], 2 * n)
    return frame


def mirrored(interval: tuple[Any, Any]) -> tuple[Any, Any]:
    return -interval[1], -interval[0]


def test_an_a_a_test_of_a_loss_is_safe() -> None:
    """The true means are equal; against scipy's one-sided Welch tests on new - (1 + 0.05) control,
    both sides.
    """
    frame = losses()
    old, new = (frame.loc[frame["arm"] == arm, "profit"].to_numpy() for arm in ("control", "new"))
    guard, same = margins.answer_margins(
        from_frame(frame, covariates=()),
        "control",
        margins.Margins({"profit": 0.05}, {"profit": 0.05}),
    )
    lower, upper = (stats.ttest_ind(new, theta * old, equal_var=False, alternative=side).pvalue
                    for theta, side in ((1.05, "greater"), (0.95, "less")))  # fmt: skip
    assert guard.p == pytest.approx(lower)
    assert same.p == pytest.approx(max(lower, upper))
    assert (guard.answer, same.answer) == ("safe", "equivalent")
    assert guard.lift == pytest.approx((new.mean() - old.mean()) / abs(old.mean()))


@pytest.mark.parametrize(
    ("shift", "answer", "words"),
    [(-1.0, "harmed", "down"), (1.0, "safe", "up"), (-0.45, "not shown", "down")],
)
def test_a_larger_loss_is_worse(shift: float, answer: str, words: str) -> None:
    table = from_frame(losses(shift=shift), covariates=())
    row = verdict.lifts(table, "control")[0]
    assert (row.words, np.sign(row.lift)) == (words, np.sign(shift))
    assert row.low < row.lift < row.high
    assert (row.low > 0 or row.high < 0) == (row.p < 0.05)
    guard = margins.answer_margins(table, "control", margins.Margins({"profit": 0.05}))[0]
    assert guard.answer == answer
    assert (guard.low > -0.05) == (answer == "safe")


def test_a_loss_has_the_fieller_set_of_its_definition() -> None:
    """The ends by root finding on the t test of new - control - lift |control|, as the definition
    reads.
    """
    frame = losses(shift=0.4)
    m = compare(from_frame(frame), "profit", "control", "new")
    q = stats.t.ppf(0.975, m.df)

    def excess(lift: float) -> float:
        theta = (
            1.0 - lift
        )  # new - control - lift |control| = new - (1 - lift) control, as the control is negative
        return (m.treatment - theta * m.control) ** 2 - q**2 * (
            m.var_treatment + theta**2 * m.var_control
        )

    middle = (m.treatment - m.control) / abs(m.control)
    ends = [optimize.brentq(excess, *sorted((middle, middle + d)), xtol=1e-14) for d in (-0.5, 0.5)]
    assert intervals.fieller(m) == pytest.approx(tuple(ends))


FUNCTIONS: dict[str, Callable[[Moments], tuple[Any, Any]]] = {
    "fieller": intervals.fieller,
    "delta": intervals.delta,
    "log": intervals.log_delta,
    "difference": intervals.difference,
}


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_metric_and_its_negative_mirror_each_other(name: str, paired: bool) -> None:
    random = np.random.default_rng(3)
    c = random.gamma(4.0, 2.0, 300)
    t = 1.1 * c + random.normal(0.0, 1.0, 300)
    make = moments.paired if paired else moments.split
    plain, turned = make(c, t), make(-c, -t)
    assert turned.lift == pytest.approx(-plain.lift)
    assert FUNCTIONS[name](turned) == pytest.approx(mirrored(FUNCTIONS[name](plain)))
    assert verdict.smallest_detectable(turned) == pytest.approx(verdict.smallest_detectable(plain))
    for bound in (-0.05, 0.0, 0.05, 0.2):
        for above in (True, False):
            assert margins.one_sided(turned, -bound, above=not above) == pytest.approx(
                margins.one_sided(plain, bound, above=above)
            )


@pytest.mark.parametrize("paired", [True, False])
def test_the_bootstrap_of_a_loss_mirrors_too(paired: bool) -> None:
    random = np.random.default_rng(4)
    c = random.gamma(4.0, 2.0, 200)
    t = 1.5 * c + random.normal(0.0, 1.0, 200)
    plain, turned = (
        resampling.bootstrap(s * c, s * t, paired=paired, repetitions=1000, seed=1) for s in (1, -1)
    )
    assert turned == pytest.approx(
        mirrored(plain), abs=0.003
    )  # quantiles of a sample differ by side
    assert turned.low < moments.split(-c, -t).lift < turned.high < 0


def test_every_number_of_a_report_mirrors(tmp_path: Path) -> None:
    """A split table with a pre-period and segments, and its negative, of which less is better."""
    frame = losses(-10.0, 0.3, 1_500)
    turned = frame.assign(profit=-frame["profit"], profit_before=-frame["profit_before"])
    contents = [
        tables.write(
            given,
            tmp_path / way,
            margins=margins.Margins({"profit": 0.05}, {"profit": 0.05}),
            better={"profit": way},
        )
        for given, way in ((frame, "higher"), (turned, "lower"))
    ]

    def ends(row: Any) -> list[Any]:
        return [row.lift, row.low, row.high]

    def pairs() -> Any:
        first, second = contents
        yield from zip(first.lifts, second.lifts, strict=True)
        yield from zip(first.margins, second.margins, strict=True)
        assert first.segments is not None
        assert second.segments is not None
        segments = (first.segments.rows, second.segments.rows)
        yield from ((one.row, other.row) for one, other in zip(*segments, strict=True))
        for one, other in zip(first.otherwise, second.otherwise, strict=True):
            looks_at_the_top_only = one.method.startswith(("winsorised", "ninth"))
            if one.lift is not None and not looks_at_the_top_only:
                yield one, other

    seen = 0
    for one, other in pairs():
        lift, low, high = ends(other)
        assert ends(one) == pytest.approx([-lift, -high, -low], rel=1e-6), one
        seen += 1
    assert seen >= 10
    assert (
        [m.answer for m in contents[0].margins]
        == [m.answer for m in contents[1].margins]
        == ["safe", "equivalent"]
    )
    interactions = [c.segments.interactions for c in contents if c.segments is not None]
    for one, other in zip(*interactions, strict=True):
        assert one.q == pytest.approx(other.q)
    assert contents[0].power[0].users == contents[1].power[0].users
    assert "lower" in contents[1].headlines[0].sentence
    assert "higher on profit" in contents[0].headlines[0].sentence


def test_looks_designs_and_planted_lifts_of_a_loss() -> None:
    days = units.read(paired_log(300, 4), ("watch_time",))
    turned = replace(days, terms={**days.terms, "watch": -days.terms["watch"]}, before={})
    for one, other in zip(
        *(sequential.peeks(source, "a")[0].looks for source in (days, turned)), strict=True
    ):
        assert other.lift == pytest.approx(-one.lift)
        assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
        assert (other.sequence_low, other.sequence_high) == pytest.approx(
            (-one.sequence_high, -one.sequence_low)
        )
    needed = [
        designs.sensitivity(replace(source, before={}), "watch_time", "a", "b")
        for source in (days, turned)
    ]
    for ours, theirs in zip(*needed, strict=True):
        assert (ours.design, ours.users_needed, ours.relative_error) == (
            theirs.design,
            theirs.users_needed,
            theirs.relative_error,
        )
        assert ours.effect == pytest.approx(-theirs.effect)
    for source in (days, turned):
        o = outcomes(source, "a", "b", "watch_time").planted(0.02)
        c, t = o.means
        assert o.lift == pytest.approx(0.02)
        assert (t - c) / abs(c) == pytest.approx(0.02)


def test_interactions_are_tested_where_means_differ_in_sign() -> None:
    """A group that loses and one that gains, with the same relative lift: no interaction; and with
    opposite lifts.
    """
    random = np.random.default_rng(8)

    def part(mean: float, lift: float) -> Moments:
        return moments.split(
            random.normal(mean, 2, 4000), random.normal(mean + lift * abs(mean), 2, 4000)
        )

    same, other = (
        segments.heterogeneity([part(-10, 0.05), part(10, lift)]) for lift in (0.05, -0.05)
    )
    assert (same[1], other[1]) == (1, 1)
    assert same[2] > 0.01
    assert other[2] < 1e-6
    q = [segments.heterogeneity([part(-10, 0.05), part(10, 0.05)])[2] for _ in range(400)]
    assert stats.kstest(q, "uniform").pvalue > 0.001


def test_a_mean_of_unknown_sign_has_no_relative_margin() -> None:
    """Whatever the sign of the control's mean: the larger p of both; what is excluded is excluded
    for both.
    """
    m = Moments(0.05, 0.04, 0.01, 0.01, 0.0, 500.0, 250, 250, False)
    by_sign = [
        margins.one_sided(replace(m, var_control=0.0, control=sign * 0.05), -0.05, above=True)
        for sign in (1, -1)
    ]
    assert by_sign[0] != pytest.approx(by_sign[1])
    both = [
        stats.t.sf((m.treatment - theta * m.control) / np.sqrt(0.01 + theta**2 * 0.01), 500)
        for theta in (0.95, 1.05)
    ]
    assert margins.one_sided(m, -0.05, above=True) == pytest.approx(max(both))
    assert margins.equivalence(m, 0.05) > 0.5
    assert margins.one_sided(replace(m, control=-0.05), -0.05, above=True) == pytest.approx(
        max(
            stats.t.sf((m.treatment + theta * 0.05) / np.sqrt(0.01 + theta**2 * 0.01), 500)
            for theta in (0.95, 1.05)
        )
    )
    rays = Moments(-0.1, 9.0, 1.0, 1.0, 0.0, 20.0, 11, 11, False)
    assert intervals.fieller(rays) == (-np.inf, np.inf)
    said = intervals.unbounded(rays) or ""
    excluded = float(said.split("between -")[1].split("%")[0]) / 100
    q = stats.t.ppf(0.975, 20)
    for lift in (-0.99 * excluded, 0.0, 0.99 * excluded):
        for theta in (1 + lift, 1 - lift):
            assert abs(rays.treatment - theta * rays.control) / np.sqrt(1 + theta**2) > q
    beyond = 1.01 * excluded
    assert (
        min(
            abs(rays.treatment - theta * rays.control) / np.sqrt(1 + theta**2)
            for theta in (1 + beyond, 1 - beyond)
        )
        < q
    )


def test_an_interval_by_logarithm_needs_one_sign() -> None:
    opposite = Moments(-5.0, 5.0, 0.1, 0.1, 0.0, 100.0, 51, 51, False)
    assert np.isnan(intervals.log_delta(opposite)).all()
    assert "do not have one sign" in verdict.row(opposite, "profit", "new", "user", "log").note
    assert verdict.row(opposite, "profit", "new", "user").note == ""
    assert verdict.row(replace(opposite, treatment=-5.0), "profit", "new", "user", "log").note == ""


def test_false_answers_of_guardrails_are_five_percent_at_the_margin() -> None:
    """The true loss is the margin: `safe` in at most 5%, for a mean far from 0 exactly; of a mean
    at 0 seldom.
    """
    random = np.random.default_rng(11)
    for mean, least, most in ((-10.0, 0.035, 0.065), (0.0, 0.0, 0.065)):
        old = random.normal(mean, 3.0, (2000, 200))
        new = random.normal(mean - 0.05 * abs(mean), 3.0, (2000, 200))
        safe = [
            margins.non_inferiority(moments.split(c, t), 0.05) < 0.05
            for c, t in zip(old, new, strict=True)
        ]
        assert least <= np.mean(safe) <= most


def test_post_stratified_and_clustered_losses() -> None:
    frame = losses(shift=0.4)
    frame["shop"] = frame["user"] // 4 * 2 + frame["user"] % 2  # two users of one arm
    for table in (
        from_frame(frame, covariates=()),
        from_frame(frame.drop(columns="country"), covariates=(), cluster="shop"),
    ):
        assert verdict.lifts(table, "control")[0].lift == pytest.approx(
            (lambda by: (by["new"] - by["control"]) / abs(by["control"]))(
                frame.groupby("arm")["profit"].mean()
            )
        )
    m = adjustment.post_stratified(from_frame(frame), "profit", "control", "new", "country")
    assert np.sign(m.lift) == np.sign(m.difference) == 1


def test_figures_of_losses_have_their_zero_at_the_end() -> None:
    quantiles = (-9.0, -7.0, -5.0, -3.0, -2.0, -1.0)
    row = Distribution("profit", "control", 6, -5.0, 0.0, quantiles, -1.0)
    zero = figures.Scale(-9.0, 0.0, 1, 99)
    drawn = figures.boxes([row], "", [""])
    assert f'x1="{zero.at(0.0)}"' in drawn
    assert f'x1="{zero.at(-5.0)}"' in drawn


def test_a_level_where_an_arm_has_no_event_weighs_nothing() -> None:
    """Its lift is -100% with no variance by the delta method: that was a division by zero."""
    rng = np.random.default_rng(3)
    parts = [moments.split(rng.gamma(2, 5, 60), rng.gamma(2, 5, 60)) for _ in range(2)]
    nobody = moments.split(rng.gamma(2, 5, 60), np.zeros(60))
    q, df, p = segments.heterogeneity([*parts, nobody])
    assert (df, np.isfinite(q), 0 < p <= 1) == (1, True, True)
    assert np.isnan(segments.heterogeneity([parts[0], nobody])[2])
