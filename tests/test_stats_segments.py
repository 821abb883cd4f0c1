"""Segments on small tables: who is in them, when they are shown, and whether lifts differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from simulator.log.metrics import metric
from simulator.stats import verdict
from simulator.stats.contrasts import compare
from simulator.stats.moments import Moments, split
from simulator.stats.segments import (
    LEAST,
    Interaction,
    _smallest,
    dependence,
    heterogeneity,
    of_comparisons,
    segments,
)
from simulator.stats.unit_table import UnitTable


def table(sizes: dict[str, tuple[int, int]], seed: int = 0) -> UnitTable:
    """Users of levels with so many in either arm; one more who is in none."""
    random = np.random.default_rng(seed)
    level = np.repeat([*sizes, "b"], [*(a + b for a, b in sizes.values()), 1])
    arms = [np.repeat([0, 1], both) for both in sizes.values()]
    assigned = np.concatenate([*arms, [-1]])
    clicks, watch = random.poisson(4, len(level)), random.gamma(2.0, 3.0, len(level))
    metrics = {m: metric(m) for m in ("click", "watch_time")}
    shuffled = random.permutation(len(level))
    return UnitTable(
        "user",
        ("old", "new"),
        metrics,
        {"click": clicks[shuffled], "watch_time": watch[shuffled]},
        assigned=assigned[shuffled],
        groups={"level": level[shuffled]},
    )


def test_a_segment_needs_30_units_in_each_arm() -> None:
    assert LEAST == 30
    for size, names in ((30, ["a", "b", "c"]), (29, ["a", "c"])):
        found, tests = segments(table({"c": (40, 50), "b": (60, size), "a": (31, 30)}), "old")
        assert [one.level for one in found] == names * 2
        assert [one.row.metric for one in found] == [
            *["click"] * len(names), *["watch_time"] * len(names)
        ]  # fmt: skip
        assert [test.df for test in tests] == [len(names) - 1] * 2
    # One segment alone is no segment.
    assert segments(table({"a": (40, 40), "b": (29, 40)}), "old") == ([], [])


def test_rows_are_the_verdicts_of_each_level_and_q_is_cochrans() -> None:
    whole = table({"a": (40, 50), "b": (35, 45)})
    found, tests = segments(whole, "old", level=0.9)
    comparisons = []
    for name in ("click", "watch_time"):
        for level in ("a", "b"):
            part = whole.where(np.flatnonzero(whole.groups["level"] == level))
            m = compare(part, name, "old", "new")
            comparisons.append(verdict.Uncorrected(name, "new", "user", m))
    assert [one.row for one in found] == verdict.in_family(comparisons, level=0.9)
    assert {(one.group, one.row.confidence) for one in found} == {("level", 0.9)}
    p_values = []
    for test, pair in zip(tests, (comparisons[:2], comparisons[2:]), strict=True):
        logs, variances = [], []
        for one in pair:
            m = one.moments
            logs.append(math.log(m.treatment / m.control))
            variances.append(m.var_treatment / m.treatment**2 + m.var_control / m.control**2)
        w = 1 / np.array(variances)
        q = float((w * (logs - (w @ logs) / w.sum()) ** 2).sum())
        p_values.append(stats.chi2.sf(q, 1))
        assert (test.group, test.arm, test.df) == ("level", "new", 1)
        assert (test.q, test.p) == pytest.approx((q, p_values[-1]))
    holm = multipletests(p_values, method="holm")[1]
    assert [test.p_adjusted for test in tests] == pytest.approx(holm)
    default = segments(whole, "old")[0]
    assert {one.row.confidence for one in default} == {0.95}


def one(control: float, treatment: float, variance: float = 0.01) -> Moments:
    return Moments(control, treatment, variance, variance, 0.0, 50.0, 40, 40, False)


def q_of(effects: list[float], variances: list[float]) -> tuple[float, int, float]:
    w = 1 / np.array(variances)
    q = float((w * (np.array(effects) - (w @ effects) / w.sum()) ** 2).sum())
    return pytest.approx((q, len(effects) - 1, stats.chi2.sf(q, len(effects) - 1)))


def test_effects_are_logs_where_all_means_have_one_sign_and_lifts_where_not() -> None:
    def log_variance(m: Moments) -> float:
        return m.var_treatment / m.treatment**2 + m.var_control / m.control**2

    def lift_variance(m: Moments) -> float:
        return (m.var_treatment + (m.treatment / m.control) ** 2 * m.var_control) / m.control**2

    for sign in (1.0, -1.0):
        parts = [one(sign * 2.0, sign * 3.0), one(sign * 4.0, sign * 4.2), one(sign, sign * 1.1)]
        logs = [math.log(m.treatment / m.control) for m in parts]
        assert heterogeneity(parts) == q_of(logs, [log_variance(m) for m in parts])
    mixed = [one(2.0, 3.0), one(-4.0, -4.2)]
    assert heterogeneity(mixed) == q_of([0.5, -0.05], [lift_variance(m) for m in mixed])
    crossing = [one(2.0, 3.0), one(2.0, -1.0)]
    assert heterogeneity(crossing) == q_of([0.5, -1.5], [lift_variance(m) for m in crossing])


def test_levels_that_say_nothing_are_left_out_of_the_test() -> None:
    sound, none = [one(2.0, 3.0), one(4.0, 4.1)], (pytest.approx(math.nan, nan_ok=True), 0)
    for silent in (one(0.0, 3.0), one(2.0, 3.0, variance=0.0), one(math.nan, 1.0, math.nan)):
        assert heterogeneity([*sound, silent]) == heterogeneity(sound)
        assert heterogeneity([sound[0], silent])[:2] == none
        assert math.isnan(heterogeneity([sound[0], silent])[2])
    assert heterogeneity([])[1] == 0
    # An arm of zeros has a difference that varies, but a lift of -1 for sure.
    lost = split(np.array([1.0, 2.0, 3.0]), np.zeros(3))
    assert heterogeneity([*sound, lost])[1] == 1
    assert heterogeneity([sound[0], lost])[:2] == none


def test_an_interaction_that_has_no_test_is_not_counted_among_them() -> None:
    sound = {"a": one(2.0, 3.0), "b": one(2.0, 2.1)}
    rows, tests = of_comparisons(
        [("g", "m", "new", sound), ("h", "m", "new", {"x": one(2.0, 3.0), "y": one(0.0, 1.0)})],
        "user",
    )
    assert [(row.group, row.level, row.row.unit) for row in rows] == [
        ("g", "a", "user"), ("g", "b", "user"), ("h", "x", "user"), ("h", "y", "user")
    ]  # fmt: skip
    q, df, p = heterogeneity(list(sound.values()))
    assert tests[0] == Interaction("g", "m", "new", q, df, p, p)
    assert math.isnan(tests[1].p_adjusted)
    assert of_comparisons([], "user") == ([], [])


def test_the_smallest_arm_counts_users_of_arms_alone() -> None:
    whole = table({"a": (40, 33)})
    assert _smallest(whole) == 33
    twins = UnitTable("user", ("a", "b"), {}, {"m": np.zeros((2, 7))})
    assert _smallest(twins) == 7


def groups(columns: dict[str, np.ndarray], assigned: np.ndarray | None) -> UnitTable:
    n = len(next(iter(columns.values())))
    return UnitTable(
        "user", ("a", "b"), {}, {"m": np.zeros(n)}, assigned=assigned, groups=columns
    )  # fmt: skip


def test_dependence_is_chi_square_with_rare_levels_as_one() -> None:
    def of(counts: list[tuple[int, int]], names: str) -> tuple[np.ndarray, np.ndarray]:
        level = np.repeat(list(names), [a + b for a, b in counts])
        return level, np.concatenate([np.repeat([0, 1], pair) for pair in counts])

    counts = [(40, 60), (70, 30), (10, 19), (12, 2)]
    level, assigned = of(counts, "pqrs")
    expected = stats.chi2_contingency([[40, 60], [70, 30], [22, 21]], correction=False).pvalue
    extra = np.concatenate((assigned, [-1, -1]))  # who is in no arm does not count
    both = np.concatenate((level, ["q", "t"]))
    assert dependence(groups({"g": both}, extra)) == {"g": pytest.approx(expected)}
    # 30 units are enough for a level of their own; 29 of one level are pooled with nothing.
    level, assigned = of([(40, 60), (20, 10)], "pq")
    expected = stats.chi2_contingency([[40, 60], [20, 10]], correction=False).pvalue
    assert dependence(groups({"g": level}, assigned))["g"] == pytest.approx(expected)
    level, assigned = of([(40, 60), (19, 10)], "pq")
    expected = stats.chi2_contingency([[40, 60], [19, 10]], correction=False).pvalue
    assert dependence(groups({"g": level}, assigned))["g"] == pytest.approx(expected)
    # A group with one level, or a table with one arm, depends on nothing.
    assert dependence(groups({"g": np.full(80, "x")}, np.arange(80) % 2)) == {"g": 1.0}
    assert dependence(groups({"g": np.arange(80) % 2}, np.zeros(80, dtype=int))) == {"g": 1.0}
    assert dependence(groups({"g": np.arange(80) % 2}, None)) == {}


def test_dependence_of_several_groups_is_corrected_by_holm() -> None:
    random = np.random.default_rng(5)
    assigned = np.arange(400) % 2
    columns = {"x": random.integers(0, 2, 400), "y": (assigned + random.integers(0, 2, 400)) > 1}
    alone = [dependence(groups({n: v}, assigned))[n] for n, v in columns.items()]
    together = dependence(groups(columns, assigned))
    assert list(together) == ["x", "y"]
    assert list(together.values()) == pytest.approx(multipletests(alone, method="holm")[1])
