"""Ratio metrics: sums over sums of everybody, users without a denominator included, by every way
that makes a lift.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.report import user_table as tables
from simulator.stats import adjustment, moments, power, segments, sequential, tests, units, verdict
from simulator.stats.contrasts import compare, influences, values
from simulator.stats.frames import from_frame
from simulator.stats.moments import Moments
from simulator.stats.randomise import outcomes, paired_pair, split_pair
from simulator.stats.unit_table import TableError, UnitTable

METRICS = {"arpv": ("revenue", "sessions")}


def shop(n: int = 1_500, seed: int = 0) -> pd.DataFrame:
    """Users of whom many have no session, and a third of these revenue all the same (a renewal)."""
    random = np.random.default_rng(seed)
    arm = np.arange(2 * n) % 2
    sessions = random.poisson(0.7 + 0.3 * arm)
    revenue = (
        np.where(random.random(2 * n) < 0.35, random.gamma(2.0, 5.0, 2 * n), 0.0) + 2.0 * sessions
    )
    return pd.DataFrame(
        {
            "user": np.arange(2 * n),
            "arm": np.where(arm == 1, "new", "control"),
            "revenue": revenue,
            "sessions": sessions,
            "past_before": revenue + random.normal(0.0, 3.0, 2 * n),
            "country": random.choice(["de", "jp"], 2 * n),
        }
    )


def of_sums(frame: pd.DataFrame) -> float:
    sums = frame.groupby("arm")[["revenue", "sessions"]].sum()
    ratio = sums["revenue"] / sums["sessions"]
    return float(ratio["new"] / ratio["control"] - 1)


def table_of(frame: pd.DataFrame, **more: object) -> UnitTable:
    return from_frame(frame, metrics=METRICS, **{"covariates": (), **more})  # type: ignore[arg-type]


def by_hand(frame: pd.DataFrame, arm: str) -> tuple[float, float]:
    """The ratio of an arm and its variance: Cochran 1977, 6.4, over all users."""
    mine = frame[frame["arm"] == arm]
    n, d = mine["revenue"].to_numpy(), mine["sessions"].to_numpy(float)
    ratio = n.sum() / d.sum()
    return ratio, (n - ratio * d).var(ddof=1) / len(mine) / d.mean() ** 2


def test_a_split_is_sums_over_sums_with_the_delta_method_over_all_users() -> None:
    frame = shop()
    m = compare(table_of(frame), "arpv", "control", "new")
    for arm, mean, variance in (
        ("control", m.control, m.var_control),
        ("new", m.treatment, m.var_treatment),
    ):
        assert (mean, variance) == pytest.approx(by_hand(frame, arm))
    assert (m.lift, m.n_units) == (pytest.approx(of_sums(frame)), 3_000)
    assert of_sums(frame[frame["sessions"] > 0]) != pytest.approx(m.lift, abs=0.01), (
        "what leaving users out would say"
    )


def test_twins_are_sums_over_sums() -> None:
    """The variance of the difference against the jackknife over users."""
    frame = shop().assign(user=np.arange(3_000) // 2)
    m = compare(table_of(frame), "arpv", "control", "new")
    assert (m.lift, m.n_units) == (pytest.approx(of_sums(frame)), 1_500)
    wide = frame.pivot(index="user", columns="arm", values=["revenue", "sessions"])
    without = wide.sum() - wide
    differences = (
        without["revenue"]["new"] / without["sessions"]["new"]
        - without["revenue"]["control"] / without["sessions"]["control"]
    )
    jackknife = 1_499 / 1_500 * np.square(differences - differences.mean()).sum()
    assert m.variance == pytest.approx(jackknife, rel=0.01)


def test_clusters_are_sums_over_sums() -> None:
    """Each arm's variance against statsmodels' CR1 of that arm's weighted mean, and Welch's df from
    the numbers of clusters.
    """
    frame = shop().assign(shop=lambda f: f["user"] // 8 * 2 + f["user"] % 2)
    for metrics in (METRICS, {"mean": "revenue"}):
        name = next(iter(metrics))
        m = compare(
            from_frame(frame, metrics=metrics, covariates=(), groups=(), cluster="shop"),
            name,
            "control",
            "new",
        )
        found, clusters = [], []
        for arm in ("control", "new"):
            mine = frame[frame["arm"] == arm]
            weight = mine["sessions"].to_numpy(float) if name == "arpv" else np.ones(len(mine))
            ratio = mine["revenue"].sum() / weight.sum()
            score = (
                mine["revenue"].to_numpy() - ratio * weight
            ) / weight.mean()  # its mean is 0, its CR1 error that of the ratio
            ols = sm.OLS(score, np.ones(len(mine))).fit(
                cov_type="cluster", cov_kwds={"groups": mine["shop"].to_numpy()}
            )
            found.append((ratio, ols.bse[0] ** 2))
            clusters.append(mine["shop"].nunique())
        assert [(m.control, m.var_control), (m.treatment, m.var_treatment)] == [
            pytest.approx(one) for one in found
        ]
        (_, v), (_, w) = found
        welch = (v + w) ** 2 / (v**2 / (clusters[0] - 1) + w**2 / (clusters[1] - 1))
        assert m.df == pytest.approx(welch)


def test_adjusting_uses_everybody() -> None:
    """CUPED by hand on the linearised values of all users; leaving out who has no session would
    select users by an outcome.
    """
    frame = shop()
    m = compare(table_of(frame, covariates=["past_before"]), "arpv", "control", "new", ["past"])
    z, x = np.zeros(len(frame)), frame["past_before"].to_numpy()
    arms = [(frame["arm"] == arm).to_numpy() for arm in ("control", "new")]
    for at in arms:
        n, d = frame.loc[at, "revenue"], frame.loc[at, "sessions"]
        z[at] = n.sum() / d.sum() + (n - n.sum() / d.sum() * d) / d.mean()
    pooled = sum(np.cov(z[at], x[at]) for at in arms)
    adjusted = z - pooled[0, 1] / pooled[1, 1] * (x - x.mean())
    theirs = stats.ttest_ind(adjusted[arms[1]], adjusted[arms[0]], equal_var=False)
    assert tests.t_test(m).statistic == pytest.approx(
        theirs.statistic, rel=2 / len(frame)
    )  # of the slope's own cost
    assert (m.control, m.treatment) == pytest.approx(tuple(adjusted[at].mean() for at in arms))


def test_post_stratified_ratios_are_ratios_of_post_stratified_means() -> None:
    frame = shop(400)
    m = adjustment.post_stratified(table_of(frame), "arpv", "control", "new", "country")
    share = frame["country"].value_counts(normalize=True)

    def ratio(of: pd.DataFrame) -> float:
        means = of.groupby("country")[["revenue", "sessions"]].mean().mul(share, axis=0).sum()
        return float(means["revenue"] / means["sessions"])

    sides = [frame[frame["arm"] == arm] for arm in ("control", "new")]
    assert (m.control, m.treatment) == pytest.approx(tuple(map(ratio, sides)))
    for side, variance in zip(sides, (m.var_control, m.var_treatment), strict=True):
        jackknife = 0.0
        for country in share.index:
            mine = side[side["country"] == country]
            left = np.array([ratio(side.drop(index=i)) for i in mine.index])
            jackknife += (len(mine) - 1) / len(mine) * np.square(left - left.mean()).sum()
        assert variance == pytest.approx(jackknife, rel=0.02)


def test_whatever_stands_beside_a_verdict_has_its_lift(tmp_path: Path) -> None:
    frame = shop(400).drop(columns="past_before")
    content = tables.write(frame, tmp_path, metrics=METRICS, choices=tables.Choices(resamples=200))
    for row in content.otherwise:
        if row.lift is not None and not row.method.startswith("post-stratified"):
            assert row.lift == pytest.approx(of_sums(frame)), row
    assert {row.method for row in content.otherwise if row.low is not None} == {
        "as in the verdict",
        "log-delta interval",
        "delta interval",
        "post-stratified by country",
        "BCa bootstrap",
    }
    assert content.segments is not None
    for segment in content.segments.rows:
        mine = frame[frame["country"] == segment.level]
        assert (segment.row.lift, segment.row.n_units) == (pytest.approx(of_sums(mine)), len(mine))


def test_values_and_influences_are_those_of_all_users() -> None:
    frame = shop(300)
    table = table_of(frame)
    m = compare(table, "arpv", "control", "new")
    base, other = values(table, "arpv", "control", "new")
    assert (len(base), len(other)) == (300, 300)
    assert (base.mean(), base.var(ddof=1) / 300) == pytest.approx((m.control, m.var_control))
    assert np.square(influences(table, "arpv", "control", "new")).sum() == pytest.approx(
        m.variance * 299 / 300
    )
    assert power.pilot(table, "arpv", "control", "new").n_users == 300


def test_negative_denominators_are_sums_like_any_other() -> None:
    frame = shop(300).assign(sessions=lambda f: -f["sessions"])
    m = compare(table_of(frame), "arpv", "control", "new")
    assert m.lift == pytest.approx(-of_sums(frame)), (
        "means of -revenue per session, and the lift's sign is the difference's"
    )
    assert segments.heterogeneity([m, m])[0] == pytest.approx(0.0, abs=1e-9)


def log(paired: bool = True) -> EventLog:
    """Two days of 60 users; some like without a click, some click on the second day only; nobody is
    there on the third.
    """
    random = np.random.default_rng(2)
    n = 480
    user, arm = np.arange(n) % 60, np.arange(n) // 240 + 1
    kept = np.ones(n, dtype=bool) if paired else (user % 2 + 1 == arm)
    order = np.lexsort((np.arange(n) % 240 // 60, user, arm))
    order = order[kept[order]]
    number = (np.arange(n) % 240 // 60)[order]
    columns = {
        "arm": arm[order],
        "user": user[order],
        "session": number,
        "request": number,
        "position": np.zeros(len(order), dtype=int),
        "t": number // 2 * units.DAY + number,
        "item": np.ones(len(order), dtype=int),
        "click": random.random(len(order)) < 0.25,
        "like": random.random(len(order)) < 0.4,
    }
    design = {} if paired else {"scenario": {"design": {"kind": "split"}}}
    return EventLog.from_columns(
        columns, Metadata(("history", "a", "b"), 60, 1, days=3, control="a", **design)
    )


def of_log(frame: pd.DataFrame) -> float:
    sums = frame.groupby("arm")[["like", "click"]].sum()
    return float(sums["like"][2] / sums["click"][2] / (sums["like"][1] / sums["click"][1]) - 1)


def test_ratios_of_a_log_are_those_of_its_rows() -> None:
    """By user, by day, so far and of each day alone: against the log's own rows in pandas."""
    source = log()
    frame = source.table.to_pandas()
    days = units.read(source, ("like/click", "return"))
    row = verdict.lifts(days.by("user"), "a", metrics=["like/click"])[0]
    assert (row.lift, row.n_units) == (pytest.approx(of_log(frame)), 60)
    assert (days.by("user").denominators["like/click"] == 0).any()
    by_day = verdict.lifts(days.by("day"), "a", metrics=["like/click"])[0]
    assert (by_day.lift, by_day.n_units, by_day.df) == (
        pytest.approx(of_log(frame)),
        2,
        1,
    ), "nobody has a click on the third day"
    for peek in sequential.peeks(days, "a"):
        if peek.metric == "like/click":
            for look in peek.looks:
                assert look.lift == pytest.approx(of_log(frame[frame["t"] < look.day * units.DAY]))
    alone = {day: rows[0] for day, rows in verdict.by_day(days, "a")}
    assert alone[1].lift == pytest.approx(of_log(frame[frame["t"] // units.DAY == 1]))
    assert (alone[2].words, alone[2].n_units) == ("no data", 0)


def test_a_ratio_without_any_denominator_is_no_data_and_one_of_one_arm_no_test() -> None:
    frame = shop(100)
    none = verdict.lifts(table_of(frame.assign(sessions=0)), "control")[0]
    assert (none.words, none.n_units) == ("no data", 0)
    one = verdict.lifts(
        table_of(frame.assign(sessions=np.where(frame["arm"] == "new", 0, 1))), "control"
    )[0]
    assert (one.words, one.n_units) == ("not computable", 200)
    assert np.isnan([one.lift, one.p, one.treatment_mean]).all()


def test_the_audit_draws_what_the_verdict_computes() -> None:
    """One sample that is the run itself: paired and split moments of an audit are those of the
    table.
    """
    days = units.read(log(), ("like/click",))
    o = outcomes(days, "a", "b", "like/click")
    heads = (np.arange(60) % 2 == 0).astype(float)[None]
    twins = paired_pair(o, heads, 1 - heads)[1]
    _same(twins, compare(days.by("user"), "like/click", "a", "b"))
    table = days.by("user")
    split = UnitTable(
        "user",
        table.arms,
        table.metrics,
        *(
            {n: np.where(heads[0] == 1, v[0], v[1]) for n, v in sums.items()}
            for sums in (table.numerators, table.denominators)
        ),
        assigned=(1 - heads[0]).astype(int),
    )
    _same(split_pair(o, heads, 1 - heads)[1], compare(split, "like/click", "a", "b"))


def _same(many: Moments, one: Moments) -> None:
    for key in ("control", "treatment", "var_control", "var_treatment", "df"):
        assert float(np.ravel(getattr(many, key))[0]) == pytest.approx(getattr(one, key)), key


def test_ratios_hold_their_level_where_most_users_have_no_denominator() -> None:
    random = np.random.default_rng(9)
    rejected = 0
    for _ in range(1_500):
        d = random.poisson(0.3, (2, 400)).astype(float)
        n = random.gamma(1.0, 1.0, (2, 400)) * (random.random((2, 400)) < 0.3) + d
        sides = [moments.sample([n[i], d[i]]) for i in (0, 1)]
        rejected += bool(tests.t_test(moments.split_moments(*sides, 0, 1)).p < 0.05)
    assert rejected / 1_500 == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / 1_500))


def test_a_stratum_without_two_units_is_still_refused() -> None:
    frame = shop(50).assign(country=lambda f: np.where(f["user"] == 3, "li", "de"))
    with pytest.raises(TableError, match="fewer than 2"):
        adjustment.post_stratified(table_of(frame), "arpv", "control", "new", "country")


@pytest.mark.parametrize(
    "named",
    [
        {"metrics": ["revenue"], "groups": ["revenue"]},
        {"metrics": {"arpv": ("revenue", "sessions")}, "groups": ["sessions"]},
        {"metrics": ["revenue", "sessions"], "covariates": ["sessions"]},
    ],
)
def test_an_outcome_is_never_conditioned_on(named: dict[str, Any]) -> None:
    with pytest.raises(TableError, match="must be known before the test"):
        from_frame(shop(100), **named)
    asked = {key: value for key, value in named.items() if key != "metrics"}
    table = from_frame(shop(100), **asked)
    taken = [column for columns in asked.values() for column in columns]
    assert not set(taken) & set(table.metrics), "named as known before the test, it is no metric"
