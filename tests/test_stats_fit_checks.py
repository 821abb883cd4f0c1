"""Fits beside one another and the floor, on a few users: every figure and sentence by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from simulator.log.fit_values import FitValues
from simulator.stats.checks import Check
from simulator.stats.fit_checks import (
    FitFigure,
    _outliers,
    check_fits,
    failures_not_excluded,
    fits_of,
    judge_fits,
    unseen_failures,
)

CLICKS = np.array([2.0, 4.0, 2.0, 8.0])


def values(arms: tuple[str, ...], gains: list[list[float]]) -> FitValues:
    top = np.array(gains)
    fits = tuple(arms[:i].count(arm) for i, arm in enumerate(arms))
    names = tuple(f"{arm or 'floor'} policy {fit}" for arm, fit in zip(arms, fits, strict=True))
    return FitValues(10, arms, names, fits, CLICKS, top * 2, top)


def test_figures_are_ratios_over_clicks_with_their_linearised_errors() -> None:
    gains = [[1.0, 2.0, 0.0, 5.0], [0.5, 1.0, 0.5, 2.0], [0.0, 1.0, 0.0, 1.0]]
    found = judge_fits(values(("a", "", ""), gains))
    assert [(one.arm, one.policy, one.fit) for one in found] == [
        ("a", "a policy 0", 0),
        ("", "floor policy 0", 0),
        ("", "floor policy 1", 1),
    ]
    for one, top in zip(found, np.array(gains), strict=True):
        ratio = top.sum() / 16
        assert (one.ndcg, one.hit_rate) == pytest.approx((ratio, 2 * ratio))
        assert one.se == pytest.approx(np.sqrt(np.var(top - ratio * CLICKS, ddof=1) * 4) / 16)
    # Against the floor that finds least, by the paired t over users.
    d = np.array(gains[0]) - np.array(gains[2])
    below = stats.ttest_1samp(d, 0.0, alternative="less")
    assert found[0].p_below == pytest.approx(below.pvalue)
    assert np.isnan([found[0].p_outlier, found[1].p_below, found[2].p_below]).all()
    assert [one.fault for one in found] == ["", "", ""]


def test_a_single_user_has_no_error_and_calls_nothing_wrong() -> None:
    one = FitValues(
        10, ("a", ""), ("p", "floor"), (0, 0), np.array([2.0]), *np.array([[[0.0], [2.0]]] * 2)
    )
    found = judge_fits(one)
    assert [row.se for row in found] == [0.0, 0.0]
    assert found[0].p_below == 1.0
    # So does one whose every user differs from the floor by the same.
    alike = judge_fits(values(("a", ""), [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    assert alike[0].p_below == 1.0


def pair(p: float, n: int = 40) -> np.ndarray:
    """Differences `[n]` of users whose one-sided paired t has this p."""
    x = np.linspace(-1, 1, n)
    error = x.std(ddof=1) / np.sqrt(n)
    return x + stats.t.ppf(p, n - 1) * error


def judged(differences: list[np.ndarray], arms: tuple[str, ...]) -> list[FitFigure]:
    floor = np.full(40, 5.0)
    gains = np.stack([*(floor + d for d in differences), floor])
    names = tuple(f"p{i}" for i in range(len(gains)))
    numbers = tuple(range(len(gains)))
    return judge_fits(FitValues(10, (*arms, ""), names, numbers, np.full(40, 9.0), gains, gains))


@pytest.mark.parametrize("n_fits", [1, 2])
def test_below_the_floor_is_half_of_5_percent_over_all_fits(n_fits: int) -> None:
    limit = 0.025 / n_fits
    for factor, fault in ((0.999, "below the floor"), (1.001, "")):
        # Each by itself: fits of two arms have no fellows.
        found = judged([pair(limit * factor)] * n_fits, ("a", "b")[:n_fits])
        assert found[0].p_below == pytest.approx(limit * factor)
        assert [one.fault for one in found] == [*[fault] * n_fits, ""]


def by_esd(means: list[float]) -> list[tuple[int, float]]:
    """Rosner's steps: each time the lowest against those above it, Grubbs' p by t."""
    order = np.argsort(means)
    found = []
    for step in range((len(means) - 1) // 2):
        others = np.array(means)[order[step + 1 :]]
        n = len(others) + 1
        t = (others.mean() - means[order[step]]) / (others.std(ddof=1) * np.sqrt(n / (n - 1)))
        found.append((int(order[step]), min(n * stats.t.sf(t, n - 2), 1.0)))
    return found


def steady(means: list[float]) -> np.ndarray:
    """Gains `[F, 50]` of fits with these means, whose users hardly differ."""
    noise = 1e-4 * np.random.default_rng(1).normal(size=(len(means), 50))
    noise -= noise.mean(axis=1, keepdims=True)
    return np.array(means)[:, None] + noise


@pytest.mark.parametrize(
    "means",
    [
        [1.0, 1.1, 0.2],
        [1.0, 1.1, 1.05, 0.2],
        [0.3, 1.0, 1.1, 1.05, 0.2],
        [1.0, 1.02, 1.01, 0.2, 0.9, 1.03, 0.1],
    ],
)
def test_steps_of_outliers_are_rosners(means: list[float]) -> None:
    level = 0.025
    found = list(_outliers(steady(means), level))
    expected = by_esd(means)
    assert [row for row, *_ in found] == [row for row, _ in expected]
    assert [p for _, p, _ in found] == pytest.approx([p for _, p in expected], rel=1e-6)
    steps = len(expected)
    last = max((s + 1 for s, (_, p) in enumerate(expected) if p <= level / steps), default=0)
    assert [is_out for *_, is_out in found] == [s < last for s in range(steps)]


def test_a_level_of_steps_is_kept_at_its_limit() -> None:
    means = [1.0, 1.1, 1.05, 0.95, 0.2]
    p = by_esd(means)[0][1]
    for factor, is_out in ((1.001, True), (0.999, False)):
        assert next(_outliers(steady(means), 2 * p * factor))[2] is is_out


def test_fits_that_are_alike_to_the_last_digit_have_no_spread() -> None:
    same = np.tile(np.linspace(0, 1, 50), (4, 1))
    (row,) = _outliers(same, 0.025)
    assert row == (0, 1.0, False), "no gap"
    lower = same.copy()
    lower[2] -= np.linspace(0.1, 0.2, 50)
    (row,) = _outliers(lower, 0.025)
    assert (row[0], row[2]) == (2, True)
    assert row[1] < 1e-9


def test_a_gap_within_the_noise_of_users_is_none() -> None:
    random = np.random.default_rng(2)
    means = np.array([1.0, 1.001, 0.999, 0.9])
    noise = random.normal(size=(4, 30))
    noise -= noise.mean(axis=1, keepdims=True)
    ((row, p, is_out),) = _outliers(means[:, None] + 3 * noise, 0.025)
    assert row == 3
    assert p < 0.01, "beside the other fits it is far out"
    assert not is_out
    assert next(_outliers(means[:, None] + 0.01 * noise, 0.025))[2]


def test_outliers_share_the_level_over_arms_of_three_fits_or_more() -> None:
    """Two arms with three fits and one with two: each of the two is tested at half."""
    means = [1.0, 1.1, 0.2]
    high = [50.0 + one for one in means]
    p = by_esd(means)[0][1]
    arms = ("a", "a", "a", "b", "b", "b", "c", "c")
    gains = steady([*high, 52.0, 52.1, 52.2, 55.0, 51.0, 1.0])
    names = tuple(map(str, range(9)))
    shown = FitValues(10, (*arms, ""), names, tuple(range(9)), np.full(50, 99.0), gains, gains)
    found = judge_fits(shown)
    assert found[2].p_outlier == pytest.approx(p, rel=1e-6)
    assert [not np.isnan(one.p_outlier) for one in found] == [place in (2, 3) for place in range(9)]
    assert found[2].fault == ("outlier" if p <= 0.0125 else "")
    # Below the floor and out of its fellows: the first is said.
    lost = steady([50.0, 50.01, 50.02, 50.03, 0.1, 1.0])
    both = judge_fits(
        FitValues(10, (*"aaaaa", ""), names[:6], tuple(range(6)), np.full(50, 99.0), lost, lost)
    )
    assert both[4].p_outlier < 0.0001
    assert both[4].fault == "below the floor"
    out = steady([50.0, 50.01, 50.02, 50.03, 40.0, 1.0])
    assert (
        judge_fits(
            FitValues(10, (*"aaaaa", ""), names[:6], tuple(range(6)), np.full(50, 99.0), out, out)
        )[4].fault
        == "outlier"
    )


def figure(arm: str, fit: int = 0, ndcg: float = 0.5, **more: object) -> FitFigure:
    return FitFigure(arm, f"policy {arm}", fit, 0.6, ndcg, 0.01, **more)  # type: ignore[arg-type]


FLOOR = [figure("", 0, 0.2), figure("", 1, 0.1)]


def test_sound_fits_are_green_and_say_what_they_exclude() -> None:
    none = "none finds less of what users click among random slates than policy  (0.1000 NDCG)"
    sound = "No training went so wrong that its candidates show it."
    alone = check_fits([figure("a"), *FLOOR])
    assert alone == Check(
        "fits",
        "green",
        f"1 fit of 1 arm: {none}",
        f"{sound} No fit failed: 1 of an arm excludes, with 95%, only a training that fails more"
        " often than in 95%; what rarer failures cost is in no interval. It takes 3 fits of an arm"
        " to see that one falls out of them.",
    )
    several = check_fits([*(figure("a", i) for i in range(3)), *FLOOR])
    assert several.value == f"3 fits of 1 arm: {none}, and none falls out of the fits of its arm"
    assert several.meaning == (
        f"{sound} No fit failed: 3 of an arm exclude, with 95%, only a training that fails more"
        " often than in 63%; what rarer failures cost is in no interval."
    )
    mixed = check_fits(
        [*(figure(arm, i) for arm in "ba" for i in range(3)), figure("c"), figure("c", 1), *FLOOR]
    )
    assert mixed.value == f"8 fits of 3 arms: {none}, and none of a, b falls out of its like"
    assert "2 of an arm exclude" in mixed.meaning
    assert mixed.meaning.endswith("It takes 3 fits of an arm to see that one falls out of them.")


def test_what_went_wrong_is_said_with_its_figures() -> None:
    wrong = check_fits(
        [
            figure("a", 0, 0.05, fault="below the floor"),
            figure("b", 0, 0.31, fault="outlier"),
            figure("b", 1, 0.5),
            figure("b", 2, 0.7),
            figure("b", 3, 0.02, fault="below the floor"),
            *FLOOR,
        ]
    )
    assert (wrong.name, wrong.status) == ("fits", "red")
    assert wrong.value == (
        "the fit of a finds less of what users click (0.0500 NDCG) than policy , which only counts"
        " (0.1000); fit 0 of b finds less of what users click (0.3100 NDCG) than the other fits of"
        " its arm (0.5000 to 0.7000); fit 3 of b finds less of what users click (0.0200 NDCG) than"
        " policy , which only counts (0.1000)"
    )
    assert "do not act on it" in wrong.meaning


def test_what_no_fit_has_shown_is_not_excluded() -> None:
    assert failures_not_excluded(1) == pytest.approx(0.95)
    assert failures_not_excluded(4) == pytest.approx(1 - 0.05**0.25)
    assert unseen_failures(FLOOR) is None
    assert unseen_failures([figure("a", fault="outlier"), figure("b"), *FLOOR]) is None
    rows = [figure("a"), figure("b"), figure("b", 1), *FLOOR]
    assert (fits_of("a", rows), fits_of("b", rows), fits_of("c", rows)) == (1, 2, 0)
    assert "1 of an arm excludes" in str(unseen_failures(rows))
    assert replace(rows[0], fault="outlier").fault == "outlier"
