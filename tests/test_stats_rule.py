"""The rule of a test (level, one-sided tests), the joint law of several, Newcombe's interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from statsmodels.stats.proportion import proportion_confint

from simulator.log.metrics import Metric, Term
from simulator.stats import intervals, tests, verdict
from simulator.stats.choices import Choices
from simulator.stats.contrasts import TableMoments, influences
from simulator.stats.decision import decide, evidence
from simulator.stats.intervals import Side
from simulator.stats.joint import JointLaw
from simulator.stats.margins import Margins, answer_margins
from simulator.stats.methods import correction_of_methods
from simulator.stats.moments import Moments, paired, split
from simulator.stats.rule import Rule
from simulator.stats.unit_table import TableError, UnitTable


def metric(name: str, **more: object) -> Metric:
    term = Term(name, (name,), lambda rows: rows[name])
    return Metric(name, name, "", term, **more)  # type: ignore[arg-type]


def table(values: dict[str, np.ndarray], assigned: np.ndarray, **metrics: Metric) -> UnitTable:
    arms = tuple("abcdefgh"[: int(assigned.max()) + 1])
    known = {name: metrics.get(name, metric(name)) for name in values}
    return UnitTable("user", arms, known, values, assigned=assigned)


@pytest.mark.parametrize("side", ["greater", "less"])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_a_one_sided_row_is_scipys_test_with_its_interval(side: Side, level: float) -> None:
    random = np.random.default_rng(4)
    c, t = random.gamma(4.0, 2.0, 90), random.gamma(4.0, 2.2, 70)
    row = verdict.row(split(c, t), "m", "b", "user", "fieller", level, side)
    theirs = stats.ttest_ind(t, c, equal_var=False, alternative=side)
    assert row.p == pytest.approx(theirs.pvalue, rel=1e-12)
    ends = theirs.confidence_interval(level)
    assert row.difference_low == pytest.approx(ends.low)
    assert row.difference_high == pytest.approx(ends.high)
    assert np.isinf(row.high if side == "greater" else row.low)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("alternative", ["two-sided", "better"])
def test_interval_p_and_word_agree_at_every_level(level: float, alternative: str) -> None:
    """Over many tables of three arms and two metrics, one of which is better low."""
    random, decided = np.random.default_rng(1), 0
    rule = Rule(level, alternative)  # type: ignore[arg-type]
    for _ in range(30):
        assigned = random.integers(0, 3, 150)
        values = {
            "money": random.normal(5.0, 1.0, 150) + 0.7 * (assigned == 1),
            "latency": random.normal(9.0, 1.0, 150) - 0.7 * (assigned == 2),
        }
        one = table(values, assigned, latency=metric("latency", higher_is_better=False))
        for row in verdict.lifts(one, "a", rule=rule, correction="bonferroni"):
            is_shown = row.words in ("up", "down")
            decided += is_shown
            assert is_shown == (row.low_adjusted > 0 or row.high_adjusted < 0)
            ends = row.difference_low_adjusted, row.difference_high_adjusted
            assert is_shown == (ends[0] > 0 or ends[1] < 0)
            assert row.confidence == level
            if alternative == "better":
                assert row.words != ("down" if row.metric == "money" else "up")
    assert decided > 10


def test_the_detectable_lift_is_found_four_times_in_five_by_the_rule() -> None:
    """One-sided at 90%: the mde of a large sample, planted, is found in 80% of tests."""
    random, rule = np.random.default_rng(2), Rule(0.9, "better")
    assigned = np.repeat([0, 1], 200)
    base = table({"m": random.normal(10.0, 1.0, 400)}, assigned)
    mde = verdict.lifts(base, "a", rule=rule)[0].mde
    assert mde < verdict.lifts(base, "a", rule=Rule(0.9))[0].mde
    found = 0
    for _ in range(400):
        values = random.normal(10.0, 1.0, 400) + 10.0 * mde * assigned
        found += verdict.lifts(table({"m": values}, assigned), "a", rule=rule)[0].words == "up"
    assert found / 400 == pytest.approx(0.8, abs=0.08)


def test_sides_follow_from_roles_and_directions() -> None:
    rule = Rule(alternative="better")
    low = {"higher_is_better": False}
    assert rule.side(metric("m")) == "greater"
    assert rule.side(metric("m", **low)) == "less"
    assert rule.side(metric("m", role="success")) == "greater"
    assert rule.side(metric("m", role="guardrail", margin=0.1)) == "less"
    assert rule.side(metric("m", role="deterioration", **low)) == "greater"
    assert rule.side(metric("m", role="quality")) == "two-sided"
    assert rule.side(metric("m", higher_is_better=None)) == "two-sided"


def test_a_level_that_cannot_be_is_refused() -> None:
    with pytest.raises(TableError, match="above 50%"):
        Choices(level=0.5)
    with pytest.raises(TableError, match="alternative"):
        Rule(alternative="worse")  # type: ignore[arg-type]


@pytest.mark.parametrize(("alternative", "most"), [("two-sided", 0.05), ("better", 0.1)])
def test_a_decision_ships_as_often_as_its_rule_promises(alternative: str, most: float) -> None:
    """Two success metrics and two arms that do not differ, at 90%: at most alpha / 2, or alpha."""
    random, n = np.random.default_rng(3), 300
    tables = []
    for _ in range(n):
        assigned = random.integers(0, 3, 90)
        values = {"x": random.normal(5.0, 1.0, 90), "y": random.normal(5.0, 1.0, 90)}
        tables.append(table(values, assigned, x=metric("x", role="success"),
                            y=metric("y", role="success")))  # fmt: skip
    choices = Choices(level=0.9, alternative=alternative)  # type: ignore[arg-type]
    shipped = 0
    for one in tables:
        decision = decide(*evidence(one, "a", choices=choices))
        assert decision is not None
        shipped += any(arm.answer == "ship" for arm in decision.arms)
    error = 3 * np.sqrt(most * (1 - most) / n)
    assert most - error < shipped / n < most + error


def test_margins_are_answered_at_the_level_that_is_chosen() -> None:
    random = np.random.default_rng(8)
    assigned = np.repeat([0, 1], 500)
    one = table({"m": random.normal(10.0, 2.0, 1000)}, assigned)
    for level in (0.9, 0.99):
        (answer,) = answer_margins(one, "a", Margins({"m": 0.03}), alpha=1 - level)
        assert answer.level == pytest.approx(2 * level - 1)
        assert (answer.answer == "safe") == (answer.low > -0.03)
        assert (answer.answer == "safe") == (answer.p < 1 - level)
    _, answers, _ = evidence(one, "a", Margins({"m": 0.03}), Choices(level=0.99))
    assert answers[0].level == pytest.approx(0.98)


def test_the_joint_law_is_dunnetts() -> None:
    """Against scipy's Dunnett test: equal sizes and variances, four arms against a control."""
    random = np.random.default_rng(5)
    raw = [stats.zscore(random.normal(0.0, 1.0, 200), ddof=1) for _ in range(5)]
    samples = [10.0 + 0.07 * i + values for i, values in enumerate(raw)]
    theirs = stats.dunnett(*samples[1:], control=samples[0], rng=np.random.default_rng(1))
    assigned = np.repeat(np.arange(5), 200)
    rows = verdict.lifts(table({"m": np.concatenate(samples)}, assigned), "a", correction="dunnett")
    ours = [row.p_adjusted for row in rows]
    assert ours == pytest.approx(theirs.pvalue, abs=0.004)
    for row in rows:
        assert row.p <= row.p_adjusted <= 4 * row.p
        assert (row.p_adjusted < 0.05) == (row.low_adjusted > 0)


@pytest.mark.parametrize("k", [2, 5, 9])
def test_the_joint_law_of_independent_tests_is_sidaks(k: int) -> None:
    law = JointLaw.of(np.eye(k), np.inf, ["two-sided"] * k)
    assert law.threshold(0.05) == pytest.approx(1 - 0.95 ** (1 / k), abs=0.0003)
    p = np.array([0.001, 0.01, 0.05])
    assert law.adjusted(p) == pytest.approx(1 - (1 - p) ** k, abs=0.002)
    # Where next to no points are: nearly Bonferroni's, and never p itself.
    tiny = np.array([1e-12, 1e-7, 1e-5])
    assert law.adjusted(tiny) == pytest.approx(1 - (1 - tiny) ** k, rel=0.01, abs=1e-16)
    steps = law.adjusted(np.geomspace(1e-6, 0.5, 400))
    assert (np.diff(steps) >= 0).all()
    alone = JointLaw.of(np.ones((k, k)), 7.0, ["greater"] * k)
    assert alone.adjusted(p) == pytest.approx(p, abs=0.0003)


def test_all_pairs_are_tukeys() -> None:
    random = np.random.default_rng(6)
    samples = [random.normal(10.0 + shift, 1.0, 150) for shift in (0.0, 0.2, 0.3)]
    theirs = stats.tukey_hsd(*samples)
    values = {"m": np.concatenate(samples)}
    pairs = verdict.pairs(table(values, np.repeat(np.arange(3), 150)), "a", correction="dunnett")
    assert [(over, row.arm) for over, row in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    expected = [theirs.pvalue[0, 1], theirs.pvalue[0, 2], theirs.pvalue[1, 2]]
    assert [row.p_adjusted for _, row in pairs] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("paired", [False, True])
def test_comparisons_go_together_as_the_influences_of_their_units_do(paired: bool) -> None:
    """Three arms, two metrics and a ratio of them, against sums over units."""
    random = np.random.default_rng(7)
    x = random.normal(9.0, 1.0, (3, 60) if paired else 180)
    y = x + random.normal(0.0, 0.5, x.shape)
    metrics = {name: metric(name) for name in ("x", "y", "ratio")}
    assigned = None if paired else random.integers(0, 3, 180)
    one = UnitTable(
        "user", ("a", "b", "c"), metrics, {"x": x, "y": y, "ratio": x}, {"ratio": y}, assigned
    )
    comparisons = [(name, "a", arm) for name in metrics for arm in ("b", "c")]
    found = TableMoments(one, {}).correlations(comparisons)
    vectors = []
    for name, control, arm in comparisons:
        moved = influences(one, name, control, arm)
        if assigned is not None:  # the control's units and the arm's, in their places among all
            whole = np.zeros(180)
            whole[
                np.concatenate([np.flatnonzero(assigned == "abc".index(i)) for i in "a" + arm])
            ] = moved
            moved = whole
        vectors.append(moved)
    expected = np.corrcoef(vectors)
    assert found == pytest.approx(expected, abs=0.02)
    assert found[0, 1] == pytest.approx(0.5, abs=0.1)


def test_few_fits_do_not_tell_the_joint_law_of_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal methods, 18 comparisons that go together by .3, and the correlations of 4 fits in place
    of the true ones: called different far more often than in 5%, while Bonferroni holds.
    """
    monkeypatch.setattr("simulator.stats.joint.POWER_OF_TWO", 12)
    random = np.random.default_rng(8)
    k, n_fits, repetitions = 18, 4, 150
    root = np.linalg.cholesky(np.full((k, k), 0.3) + 0.7 * np.eye(k))
    joint = apart = 0
    for _ in range(repetitions):
        fits = random.standard_normal((n_fits, k)) @ root.T
        p = stats.ttest_1samp(fits, 0.0).pvalue
        law = JointLaw.of(np.corrcoef(fits.T), n_fits - 1.0, ["two-sided"] * k)
        joint += (law.adjusted(p) < 0.05).any()
        apart += (tests.adjust(p, "bonferroni") < 0.05).any()
    assert joint / repetitions > 0.12
    assert apart / repetitions < 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
    assert correction_of_methods("dunnett") == "bonferroni"
    assert correction_of_methods("holm") == "holm"


def test_dunnett_needs_the_units() -> None:
    with pytest.raises(TableError, match="needs their units"):
        tests.adjust(np.array([0.01]), "dunnett")


def proportions(x: int, n: int, y: int, m: int) -> Moments:
    c, t = np.zeros(n), np.zeros(m)
    c[:x] = t[:y] = 1.0
    return split(c, t)


def test_newcombes_interval_is_the_published_one() -> None:
    """56/70 and 48/80: .0524 to .3339 (Newcombe 1998, table II, method 10); and 9/10, 3/10."""
    for (x, n, y, m), ends in {
        (48, 80, 56, 70): (0.0524, 0.3339),
        (3, 10, 9, 10): (0.1705, 0.8090),
        (0, 10, 10, 10): (0.6075, 1.0000),
    }.items():
        found = intervals.difference_by(proportions(x, n, y, m), "newcombe")
        assert found == pytest.approx(ends, abs=6e-5)


@pytest.mark.parametrize("twins", [False, True])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_ends_of_newcombes_lift_are_where_the_difference_begins_to_hold_0(
    twins: bool, level: float
) -> None:
    """By search: treatment - theta control with Wilson's ends of both, by statsmodels."""

    def beyond(theta: float, one: Moments, correlation: float, own: float, other: float) -> float:
        both = own**2 + (theta * other) ** 2 - 2 * correlation * own * theta * other
        return (one.treatment - theta * one.control) ** 2 - both

    random = np.random.default_rng(10)
    z = stats.norm.ppf((1 + level) / 2)
    for _ in range(20):
        n, m = (60, 60) if twins else random.integers(30, 90, 2).tolist()
        c, t = (random.random(n) < 0.5) * 1.0, (random.random(m) < 0.6) * 1.0
        one = paired(c, np.where(random.random(n) < 0.5, c, t)) if twins else split(c, t)
        correlation = one.cov / np.sqrt(one.var_control * one.var_treatment) if twins else 0.0
        ends = [
            proportion_confint(round(p * size), size, 1 - level, method="wilson")
            for p, size in ((one.control, n), (one.treatment, m))
        ]
        # From each proportion to its lower and its upper end.
        down_c, up_c = np.abs(np.array(ends[0]) - one.control)
        down_t, up_t = np.abs(np.array(ends[1]) - one.treatment)

        low = brentq(
            beyond, 0.0, one.treatment / one.control, args=(one, correlation, down_t, up_c)
        )
        high = brentq(
            beyond, one.treatment / one.control, 60.0, args=(one, correlation, up_t, down_c)
        )
        found = intervals.newcombe(one, level)
        assert found == pytest.approx((low - 1, high - 1), rel=1e-6)
        differences = intervals.difference_by(one, "newcombe", level)
        whole = [
            np.sqrt(a**2 + b**2 - 2 * correlation * a * b)
            for a, b in ((down_t, up_c), (up_t, down_c))
        ]
        assert differences == pytest.approx(
            (one.difference - whole[0], one.difference + whole[1]), rel=1e-6
        )
        assert intervals.wilson(one.control, n, z) == pytest.approx(ends[0])


def test_newcombes_lift_over_a_control_of_zeros_is_unbounded() -> None:
    nothing = intervals.newcombe(proportions(0, 30, 9, 30))
    assert nothing == (-np.inf, np.inf)
    # 2 of 30: the interval of the control's proportion ends above 0, at Wilson's end.
    assert np.isfinite(intervals.newcombe(proportions(2, 30, 9, 30)).high)


def test_what_is_no_proportion_is_known_by_its_variance() -> None:
    flags = np.array([0.0, 1, 1, 0, 1])
    for control, treatment, expected in (
        (flags, flags[::-1], True),
        (flags, np.array([0.0, 1, 2, 0, 1]), False),
        (np.array([0.0, 0.5, 1, 1, 0]), flags, False),
        (-flags, flags, False),
        (np.zeros(4), flags, True),
    ):
        assert bool(intervals.is_proportion(split(control, treatment))) is expected


def test_delta_intervals_are_those_of_their_formulas() -> None:
    """By hand: means 10 and 12, variances of the means .25 and .36, covariance .1."""
    one = Moments(10.0, 12.0, 0.25, 0.36, 0.1, np.inf, 50, 50, True)
    variance = (0.36 - 2 * 1.2 * 0.1 + 1.44 * 0.25) / 100
    half = stats.norm.ppf(0.95) * np.sqrt(variance)
    assert intervals.delta(one, 0.9) == pytest.approx((0.2 - half, 0.2 + half))
    log_half = stats.norm.ppf(0.95) * np.sqrt(0.36 / 144 + 0.25 / 100 - 2 * 0.1 / 120)
    ends = 1.2 * np.exp([-log_half, log_half]) - 1
    assert intervals.log_delta(one, 0.9) == pytest.approx(tuple(ends))
    assert np.isnan(intervals.log_delta(replace(one, control=-10.0), 0.9)).all()
    # Both below 0: a smaller loss is a lift.
    lost = intervals.log_delta(replace(one, control=-10.0, treatment=-12.0), 0.9)
    assert lost == pytest.approx(tuple(-ends[::-1]))
    assert intervals.difference(one, 0.9) == pytest.approx(
        (2 - stats.norm.ppf(0.95) * np.sqrt(0.41), 2 + stats.norm.ppf(0.95) * np.sqrt(0.41))
    )


@pytest.mark.parametrize("df", [5.0, np.inf])
def test_the_joint_law_of_sides_that_differ_is_that_of_draws(df: float) -> None:
    """Two sides, above and below, correlated: the smallest p of a multivariate t, by scipy."""
    correlation = np.array([[1.0, 0.6, 0.2], [0.6, 1.0, -0.4], [0.2, -0.4, 1.0]])
    law = JointLaw.of(correlation, df, ["two-sided", "greater", "less"])
    shape = 1e9 if np.isinf(df) else df
    drawn = stats.multivariate_t(shape=correlation, df=shape, seed=1).rvs(200_000)
    tail = stats.norm.sf if np.isinf(df) else stats.t(df).sf
    smallest = np.min(
        [2 * tail(np.abs(drawn[:, 0])), tail(drawn[:, 1]), tail(-drawn[:, 2])], axis=0
    )
    p = np.array([0.01, 0.05, 0.2])
    expected = [(smallest <= one).mean() for one in p]
    assert law.adjusted(p) == pytest.approx(expected, abs=0.004)
    for alpha in (0.01, 0.1):
        assert law.threshold(alpha) == pytest.approx(np.quantile(smallest, alpha), rel=0.04)


def test_newcombes_lift_difference_and_p_agree() -> None:
    random = np.random.default_rng(9)
    for _ in range(60):
        n, m = random.integers(20, 200, 2)
        one = proportions(int(random.integers(1, n)), int(n), int(random.integers(1, m)), int(m))
        row = verdict.row(one, "m", "b", "user", "newcombe")
        is_shown = row.low > 0 or row.high < 0
        assert is_shown == (row.difference_low > 0 or row.difference_high < 0) == (row.p < 0.05)
        if row.p < 1e-9:
            continue
        at_p = intervals.newcombe(one, 1 - row.p)
        assert min(abs(at_p.low), abs(at_p.high)) == pytest.approx(0.0, abs=1e-6)
    other = split(random.normal(0.0, 1.0, 50), random.normal(1.0, 1.0, 50))
    assert intervals.newcombe(other) == intervals.fieller(other)


def test_newcombes_interval_covers_as_it_says() -> None:
    """.1 and .3 of 30 an arm: exact coverage of the difference, by enumeration of both counts."""
    n = 30
    control, treatment = (stats.binom.pmf(np.arange(n + 1), n, p) for p in (0.1, 0.3))
    covered = 0.0
    for x in np.flatnonzero(control > 1e-5):
        for y in np.flatnonzero(treatment > 1e-5):
            low, high = intervals.difference_by(proportions(int(x), n, int(y), n), "newcombe")
            covered += control[x] * treatment[y] * (low <= 0.2 <= high)
    assert 0.945 < covered < 0.97
