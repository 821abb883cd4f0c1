"""Randomising again: rates against scipy, samples against the generator they are drawn by, and
answers by hand.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from scipy import stats

from simulator.log.metrics import chosen
from simulator.stats import moments, randomise
from simulator.stats.randomise import Outcomes, Rate, draws, outcomes
from simulator.stats.unit_table import TableError, keys_of
from simulator.stats.user_days import UserDays

NAN = float("nan")


@pytest.mark.parametrize(("count", "total"), [(0, 20), (1, 20), (7, 20), (19, 20), (20, 20)])
def test_a_rate_has_the_interval_of_clopper_and_pearson(count: int, total: int) -> None:
    theirs = stats.binomtest(count, total).proportion_ci(method="exact")
    assert astuple(Rate.of(count, total)) == pytest.approx((count / total, theirs.low, theirs.high))


def test_a_rate_of_nothing_is_not_off() -> None:
    none = Rate.of(0, 0)
    assert np.isnan(astuple(none)).all()
    assert none.near(0.05, 400)


@pytest.mark.parametrize("further", [0.0, 0.02])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_rate_is_near_within_three_errors(further: float, side: int) -> None:
    error = np.sqrt(0.1 * 0.9 / 400 + further**2)
    assert Rate(0.1 + side * 2.999 * error, 0, 1).near(0.1, 400, further)
    assert not Rate(0.1 + side * 3.001 * error, 0, 1).near(0.1, 400, further)
    assert Rate(0.25, 0, 1).near(0.25, 10**9)


def of(control: Any, treatment: Any, **more: Any) -> Outcomes:
    """Outcomes of answers `[1 or 2][users, days]`."""
    whole = [
        tuple(np.array(v, dtype=float).sum(axis=1) for v in side) for side in (control, treatment)
    ]
    days = [tuple(np.array(v, dtype=float) for v in side) for side in (control, treatment)]
    return Outcomes("x", "b", *whole, *days, None, **more)


C, T = [[1, 1], [3, 1], [0, 0]], [[2, 2], [3, 1], [0, 1]]
N = [[1, 1], [2, 2], [1, 1]]


def test_means_and_lifts_of_both_answers() -> None:
    mean, rate = of([C], [T]), of([C, N], [T, N])
    assert (mean.means, mean.lift, mean.bottom) == ((2.0, 3.0), 0.5, None)
    assert (rate.means, rate.lift, rate.bottom) == ((0.75, 1.125), 0.5, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_lift_is_exactly_that(sign: int) -> None:
    o = of([sign * np.array(C), N], [sign * np.array(T), N]).planted(0.2)
    assert o.lift == pytest.approx(0.2)
    assert o.means == pytest.approx((0.75 * sign, (0.9 if sign > 0 else -0.6)))
    scale = o.treatment[0][0] / (4 * sign)
    assert o.treatment_days[0] == pytest.approx(np.array(T) * sign * scale)
    assert o.treatment[1].tolist() == [2, 4, 2]
    assert o.control[0].tolist() == [2 * sign, 4 * sign, 0]


@pytest.mark.parametrize(
    ("share", "bound"), [(0.0, 9.0), (0.1, 9.0), (1 / 6, 8.0), (0.34, 7.0), (0.5, 5.0)]
)
def test_the_largest_answers_of_both_arms_are_cut_to_one_bound(share: float, bound: float) -> None:
    values = np.array([[1.0, 9.0, 5.0], [7.0, 3.0, 8.0]])[:, :, None]
    o = of([values[0], values[0]], [values[1], values[1]])
    cut = o.winsorised(share)
    assert cut.control[0].tolist() == np.minimum([1, 9, 5], bound).tolist()
    assert cut.treatment[0].tolist() == np.minimum([7, 3, 8], bound).tolist()
    assert (cut.control[1].tolist(), cut.treatment[1].tolist()) == ([1, 9, 5], [7, 3, 8])


def days(**more: Any) -> UserDays:
    """Four users, three days, arms a and b and another."""
    random = np.random.default_rng(5)
    click = random.integers(0, 4, (3, 4, 3))
    seen = click + 1
    seen[:, :, 1] = click[:, :, 1] = 0
    before = {"click": np.array([3, 0, 2, 1]), "impressions": np.array([9, 0, 4, 5])}
    metrics = chosen(("click", "click_rate"))
    named = {metric.name: metric for metric in metrics}
    given = {"terms": {"click": click, "impressions": seen}, "before": before} | more
    return UserDays(("a", "b", "c"), 4, 3, named, **given)


def test_both_answers_of_every_user() -> None:
    source = days()
    click, seen = source.terms["click"], source.terms["impressions"]
    o = outcomes(source, "a", "c", "click")
    assert (o.metric, o.arm, o.bottom) == ("click", "c", None)
    assert (o.control[0].tolist(), o.treatment[0].tolist()) == (
        click[0].sum(axis=1).tolist(),
        click[2].sum(axis=1).tolist(),
    )
    assert o.control_days[0].tolist() == click[0].tolist()
    assert o.before is not None
    assert o.before.tolist() == [3, 0, 2, 1]
    assert o.strata is not None
    levels = source.by("user").groups["activity"]
    assert [sorted(set(levels.tolist()))[code] for code in o.strata] == levels.tolist()
    assert o.features is not None
    table = source.by("user")
    expected = [table.covariates[name] for name in ("click", "click_rate")]
    assert o.features.tolist() == np.column_stack(expected).tolist()
    rate = outcomes(source, "a", "c", "click_rate")
    # Nobody sees anything on the second day.
    assert rate.treatment_days[1].tolist() == seen[2][:, [0, 2]].tolist()
    assert rate.control_days[0].tolist() == click[0][:, [0, 2]].tolist()


def test_a_day_counts_where_one_arm_has_a_denominator() -> None:
    seen = np.ones((3, 4, 3), dtype=int)
    seen[0, :, 0] = seen[2, :, 1] = 0
    seen[[0, 2], :, 2] = 0
    rate = outcomes(days(terms={"click": seen, "impressions": seen}), "a", "c", "click_rate")
    assert rate.control_days[1].tolist() == [[0, 1]] * 4
    assert rate.treatment_days[1].tolist() == [[1, 0]] * 4


def test_a_past_that_does_not_vary_is_none() -> None:
    flat = {"click": np.ones(4, dtype=int), "impressions": np.zeros(4, dtype=int)}
    o = outcomes(days(before=flat), "a", "b", "click")
    assert (o.before, o.strata, o.features) == (None, None, None)
    o = outcomes(days(before={}), "a", "b", "click")
    assert (o.before, o.strata, o.features) == (None, None, None)


@pytest.mark.parametrize("more", [{"assigned": np.zeros(4, int)}, {"switched": np.zeros(3, int)}])
def test_one_answer_of_each_user_is_not_enough(more: dict[str, Any]) -> None:
    with pytest.raises(TableError, match="needs both answers of every user"):
        outcomes(days(**more), "a", "b", "click")


def test_samples_are_drawn_user_by_user_and_large_ones_as_counts() -> None:
    """Sixteen users a cell are the limit; the same seed has the same bytes."""
    for size in (96, 97):
        generator = np.random.default_rng([7, size])
        if size == 96:
            cells = generator.integers(0, 6, (5, size), dtype=np.int64)
            counts = np.stack([np.bincount(row, minlength=6) for row in cells])
        else:
            counts = generator.multinomial(size, np.full(6, 1 / 6), 5)
        ((heads, tails),) = draws(3, size, 5, 7)
        assert (heads.tolist(), tails.tolist()) == (counts[:, :3].tolist(), counts[:, 3:].tolist())
        assert heads.dtype == tails.dtype == np.float64


def test_an_unfair_coin() -> None:
    generator = np.random.default_rng([7, 40])
    counts = generator.multinomial(40, np.repeat([0.25, 0.05], 3) / np.float64(0.9), 5)
    ((heads, tails),) = draws(3, 40, 5, 7, 1 / 6)
    assert (heads.shape, tails.shape) == ((5, 3), (5, 3))
    assert ((heads + tails).sum(axis=1) == 40).all()
    many = list(draws(3, 40, 4000, 7, 1 / 6))
    share = np.concatenate([t for _, t in many]).sum(axis=1).mean() / 40
    assert share == pytest.approx(1 / 6, abs=4 * np.sqrt(5 / 36 / 160_000))
    assert counts.shape == (5, 6)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_samples_come_in_chunks_of_bounded_size(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cells, sizes in ((6, [1] * 5), (12, [2, 2, 1]), (17, [2, 2, 1]), (30, [5]), (1, [1] * 5)):
        monkeypatch.setattr(randomise, "CELLS", cells)
        assert [len(heads) for heads, _ in draws(3, 4, 5, 0, share)] == sizes


def drawn() -> tuple[Outcomes, np.ndarray, np.ndarray]:
    """Ten users with both answers to a ratio metric over three days, and counts of two samples."""
    random = np.random.default_rng(1)
    below = random.integers(1, 4, (2, 10, 3))
    above = random.poisson(below * 1.5)
    o = of([above[0], below[0]], [above[1] + 1, below[1]], features=random.normal(size=(10, 2)))
    heads, tails = random.integers(0, 3, (2, 2, 10)).astype(float)
    return o, heads, tails


def test_days_of_samples_by_hand() -> None:
    o, heads, tails = drawn()
    for ratio in (True, False):
        own = o if ratio else of([o.control_days[0]], [o.treatment_days[0]])
        c, t = own.control_days, own.treatment_days
        for r, (up, down) in enumerate(zip(heads, tails, strict=True)):
            n, m = up.sum(), down.sum()
            sides = {
                "null": ([up @ a + down @ b for a, b in zip(c, t, strict=True)],
                         [up @ b + down @ a for a, b in zip(c, t, strict=True)]),
                "effect": ([(up + down) @ a for a in c], [(up + down) @ b for b in t]),
                "split null": ([up @ a / n for a in c], [down @ a / m for a in c]),
                "split effect": ([up @ a / n for a in c], [down @ b / m for b in t]),
            }  # fmt: skip
            found = (
                *randomise.day_pair(own, heads, tails),
                *randomise.split_day_pair(own, heads, tails),
            )
            for many, (first, then) in zip(found, sides.values(), strict=True):
                z = [moments.linearised(*side) if ratio else side[0] for side in (first, then)]
                one = moments.paired(*z)
                for name in ("control", "treatment", "var_control", "var_treatment", "cov"):
                    assert getattr(many, name)[r] == pytest.approx(getattr(one, name)), name
                assert (many.df[r], many.paired) == (2, True)


def test_samples_are_predicted_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numerators and denominators have predictions of their own; users count as often as drawn."""
    o, heads, tails = drawn()
    assert o.features is not None
    features, everybody = o.features, keys_of(map(str, range(10)))

    def model(
        matrix: np.ndarray, categorical: list[bool], target: np.ndarray, keys: Any, weights: Any
    ) -> np.ndarray:
        users = [everybody.tolist().index(key) for key in keys]
        assert (categorical, matrix.tolist()) == ([False, False], features[users].tolist())
        return matrix[:, 0] * float(weights @ target) + matrix[:, 1]

    monkeypatch.setattr(randomise, "cross_fitted", model)
    pair = randomise.predicted_pair(o, heads, tails)
    for many, answers in zip(pair, (o.control, o.treatment), strict=True):
        for r, (up, down) in enumerate(zip(heads, tails, strict=True)):
            columns = [
                features[:, 0] * (up @ own + down @ other) + features[:, 1]
                for own, other in zip(o.control, answers, strict=True)
            ]
            sides = [
                moments.sample([np.repeat(v, n.astype(int)) for v in (*own, *columns)])
                for own, n in ((o.control, up), (answers, down))
            ]
            one = moments.interacted_moments(sides[0], sides[1], 0, 1, (2, 3))
            for name in ("control", "treatment", "var_control", "var_treatment", "cov", "df"):
                assert getattr(many, name)[r] == pytest.approx(getattr(one, name), rel=1e-6), name
        assert (many.n_control.tolist(), many.paired) == (heads.sum(axis=1).tolist(), False)
