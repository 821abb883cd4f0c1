"""Moments: the same verdict, segments and looks as from the rows that they are made of, and a name
for what cannot be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from simulator.cli.report import report as command
from simulator.report import of_moments, user_table
from simulator.report.gather import gather_table
from simulator.stats import segments, sequential, verdict, winners
from simulator.stats.adjustment import pre_periods
from simulator.stats.aggregates import Aggregates
from simulator.stats.choices import Choices
from simulator.stats.frames import from_frame
from simulator.stats.moment_sheets import are_moments, from_moments
from simulator.stats.rows import as_rows
from simulator.stats.unit_table import TableError

METRICS: dict[str, Any] = {
    "clicks": "clicks",
    "minutes": "minutes",
    "ctr": ("clicks", "impressions"),
}
ARMS = ("old", "new", "other")
DAYS = 4


def people(n: int = 1500) -> pd.DataFrame:
    rng = np.random.default_rng(11)
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "arm": np.array(ARMS)[np.concatenate((np.arange(3), rng.integers(0, 3, n - 3)))],
            "country": rng.choice(["de", "jp", "us"], n),
            "clicks_before": rng.poisson(5.0, n),
            "ctr_before": rng.normal(size=n),
        }
    )


def events(users: pd.DataFrame) -> pd.DataFrame:
    """A row for each user and day; users come on a day of their own, and a day depends on the
    next.
    """
    rng = np.random.default_rng(12)
    n = len(users)
    first, taste = rng.integers(0, 3, n), rng.gamma(2.0, 1.0, n)
    parts = []
    for day in range(DAYS):
        here = first <= day
        impressions = rng.poisson(6.0 * taste) + 1
        rate = 0.3 + 0.08 * (users.arm == "new") + 0.01 * (users.clicks_before - 5)
        parts.append(
            pd.DataFrame(
                {
                    "user": users.user,
                    "day": day + 1,
                    "impressions": impressions,
                    "clicks": rng.binomial(impressions, np.clip(rate, 0.05, 0.9)),
                    "minutes": taste * rng.gamma(2.0, 0.5, n),
                }
            )[here]
        )
    return pd.concat(parts, ignore_index=True)


SQL = re.search(r"```sql\n(.*?)```", Path("docs/report.md").read_text(encoding="utf-8"), re.S)


def exported(users: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """What the SQL text of docs/report.md makes of people and events."""
    assert SQL is not None
    with duckdb.connect() as database:
        database.register("users", users)
        database.register("events", rows)
        return database.sql(SQL.group(1)).df()


def so_far(users: pd.DataFrame, rows: pd.DataFrame, day: int) -> pd.DataFrame:
    totals = rows[rows.day <= day].groupby("user")[["impressions", "clicks", "minutes"]].sum()
    return users.join(totals, on="user").fillna(dict.fromkeys(totals, 0.0))


USERS = people()
EVENTS = events(USERS)
MOMENTS = exported(USERS, EVENTS)


def aggregates(table: pd.DataFrame = MOMENTS, **more: Any) -> Aggregates:
    return from_moments(as_rows(table), metrics=METRICS, **more)


def test_the_verdict_is_that_of_the_rows() -> None:
    table = from_frame(so_far(USERS, EVENTS, DAYS), metrics=METRICS)
    past = pre_periods(table)
    assert set(past) == {"clicks", "ctr"}
    theirs = verdict.lifts(table, "old", covariates=past)
    found = aggregates()
    ours = of_moments.lifts(found, "old", Choices())
    assert len(ours) == len(theirs) == 6
    _alike(ours, theirs)
    plain = of_moments.lifts(found, "old", Choices(), adjusted=False)
    _alike(plain, verdict.lifts(table, "old"))


def test_the_best_arm_and_the_users_needed_are_those_of_the_rows() -> None:
    """Adjusted for the pre-period, as the verdict is."""
    rows = so_far(USERS, EVENTS, DAYS)
    theirs = gather_table(from_frame(rows, metrics=METRICS), "old", "rows")
    ours = of_moments.gather_moments(aggregates(), "old", "moments")
    assert theirs.winners
    best = {one.metric: one for one in ours.winners}
    for one in theirs.winners:
        mine = best[one.metric]
        assert mine.arm == one.arm
        assert (mine.lift, mine.estimate, mine.low, mine.high) == pytest.approx(
            (one.lift, one.estimate, one.low, one.high), rel=1e-9
        )
    needed = {(need.arm, need.metric): need.users for need in ours.power}
    for need in theirs.power:
        assert need.users == needed[need.arm, need.metric]
    assert any("cuped" in need.users for need in theirs.power)


def _alike(ours: list[verdict.Lift], theirs: list[verdict.Lift]) -> None:
    mine = {(row.arm, row.metric): row for row in ours}
    for row in theirs:
        own = mine[row.arm, row.metric]
        for name in verdict.ROW:
            value = getattr(row, name)
            if isinstance(value, float):
                assert getattr(own, name) == pytest.approx(value, rel=1e-12, abs=1e-13), name
            else:
                assert getattr(own, name) == value


def test_segments_are_those_of_the_rows() -> None:
    table = from_frame(so_far(USERS, EVENTS, DAYS), metrics=METRICS, groups=["country"])
    past = pre_periods(table)
    assert past
    rows, interactions = segments.segments(table, "old", covariates=past)
    found = of_moments.gather_moments(aggregates(), "old", "moments").segments
    assert found is not None
    theirs = {(s.level, s.row.arm, s.row.metric): s.row for s in rows}
    for segment in found.rows:
        _alike([segment.row], [theirs.pop((segment.level, segment.row.arm, segment.row.metric))])
    assert not theirs
    q = {(i.metric, i.arm): i.q for i in interactions}
    assert {(i.metric, i.arm): i.q for i in found.interactions} == pytest.approx(q, rel=1e-12)


def test_looks_are_those_of_the_rows() -> None:
    tables = [from_frame(so_far(USERS, EVENTS, d), metrics=METRICS) for d in range(1, DAYS + 1)]
    found = aggregates()
    assert all(found.crossed.values())
    peeks = {(peek.arm, peek.metric): peek for peek in found.peeks("old")}
    assert len(peeks) == 6
    for (arm, metric), peek in peeks.items():
        moments = [verdict.compare(table, metric, "old", arm) for table in tables]
        looks = sequential.looks(moments, sequential.successive(tables, metric, "old", arm))
        for mine, theirs in zip(peek.looks, looks, strict=True):
            assert vars_of(mine) == pytest.approx(vars_of(theirs), rel=1e-10, abs=1e-12)


def twins() -> pd.DataFrame:
    """Every user in every arm, with segments: a row for each user and arm."""
    rng = np.random.default_rng(21)
    n = 900
    taste, country = rng.gamma(3.0, 2.0, n), rng.choice(["de", "jp", "us"], n)
    parts = []
    for place, arm in enumerate(ARMS):
        impressions = rng.poisson(5.0 * taste) + 1
        clicks = rng.binomial(impressions, 0.3 + 0.01 * place)
        minutes = taste * rng.gamma(9.0, 0.1, n) * (1.0 + 0.02 * place)
        own = {"impressions": impressions, "clicks": clicks, "minutes": minutes}
        parts.append(pd.DataFrame({"user": range(n), "arm": arm, "country": country, **own}))
    return pd.concat(parts, ignore_index=True)


def exported_twins(rows: pd.DataFrame, *, sums: bool = False) -> pd.DataFrame:
    """Moments of each arm and cell, and its products with every other arm."""
    names = ["impressions", "clicks", "minutes"]
    wide = rows.pivot(index="user", columns="arm", values=names)
    cell = rows.drop_duplicates("user").set_index("user").country
    found = []
    for arm in ARMS:
        for level, users in cell.groupby(cell):
            part = wide.loc[users.index].astype(float)
            row: dict[str, Any] = {"arm": arm, "country": level, "n": len(users)}
            for name in names:
                x = part[name, arm]
                row |= {f"{name}_mean": x.mean(), f"{name}_variance": x.var()}
            row["clicks_impressions_covariance"] = part["clicks", arm].cov(part["impressions", arm])
            pairs = [(a, a) for a in names] + [("clicks", "impressions"), ("impressions", "clicks")]
            for (a, b), other in product(pairs, ARMS):
                if other == arm:
                    continue
                x, y = part[a, arm], part[b, other]
                if sums:
                    row[f"{a}_{b}_in_{other}_sum_product"] = (x * y).sum()
                else:
                    row[f"{a}_{b}_in_{other}_covariance"] = x.cov(y)
            found.append(row)
    return pd.DataFrame(found)


@pytest.mark.parametrize("sums", [False, True])
def test_the_verdict_on_twins_is_that_of_the_rows(sums: bool) -> None:
    rows = twins()
    found = aggregates(exported_twins(rows, sums=sums))
    table = from_frame(rows, metrics=METRICS, groups=["country"])
    assert found.paired
    assert table.paired
    ours = of_moments.lifts(found, "old", Choices())
    _alike(ours, verdict.lifts(table, "old"))
    content = of_moments.gather_moments(found, "old", "twins")
    assert (content.design, content.paired, content.size.users) == ("paired", True, 900)
    assert {check.name for check in content.checks} == {"Single users"}
    theirs, interactions = segments.segments(table, "old")
    assert content.segments is not None
    by_level = {(s.level, s.row.arm, s.row.metric): s.row for s in content.segments.rows}
    assert len(by_level) == len(theirs) == 18
    for one in theirs:
        _alike([by_level[one.level, one.row.arm, one.row.metric]], [one.row])
    q = {(i.metric, i.arm): i.q for i in interactions}
    assert {(i.metric, i.arm): i.q for i in content.segments.interactions} == pytest.approx(q)
    best = {w.metric: w for w in content.winners}
    for one in winners.of_models(table, "old"):
        mine = best[one.metric]
        assert mine.arm == one.arm
        assert (mine.estimate, mine.low) == pytest.approx((one.estimate, one.low), rel=1e-9)


def test_products_with_the_control_alone_tell_the_verdict_but_not_the_best() -> None:
    rows = twins()
    moments = exported_twins(rows)
    kept = [c for c in moments if "_in_new_" not in c and "_in_other_" not in c]
    found = aggregates(moments[kept])
    _alike(
        of_moments.lifts(found, "old", Choices()),
        verdict.lifts(from_frame(rows, metrics=METRICS), "old"),
    )
    assert not of_moments.gather_moments(found, "old", "twins").winners
    fewer = moments.copy()
    fewer.loc[fewer.arm == "new", "n"] -= 1
    with pytest.raises(TableError, match="products between arms are of users who are in every arm"):
        aggregates(fewer)
    beyond = moments.copy()
    beyond["minutes_minutes_in_old_covariance"] *= 10
    with pytest.raises(TableError, match="minutes and minutes in old correlated beyond 1"):
        aggregates(beyond)


def vars_of(look: sequential.Look) -> list[float]:
    return [getattr(look, name) for name in look.__dataclass_fields__]


def test_sums_and_means_say_the_same() -> None:
    table = MOMENTS.copy()
    n = table.n
    for column in [c for c in table if c.endswith("_variance")]:
        name = column.removesuffix("_variance")
        total = table.pop(f"{name}_mean") * n
        table[f"{name}_sum"] = total
        table[f"{name}_sum_squares"] = table.pop(column) * (n - 1) + total**2 / n
    ours = of_moments.lifts(aggregates(table), "old", Choices())
    theirs = of_moments.lifts(aggregates(), "old", Choices())
    for a, b in zip(ours, theirs, strict=True):
        assert (a.lift, a.t, a.low) == pytest.approx((b.lift, b.t, b.low), rel=1e-11)


def test_without_products_a_look_adds_something_independent() -> None:
    """Users come and have their value at once: 1 / variance is then right, and so is the clock."""
    rng = np.random.default_rng(4)
    n = 6000
    arm, came = rng.choice(["control", "new"], n), rng.integers(1, 6, n)
    x = rng.gamma(2.0, 1.0, n) + 0.1 * (arm == "new")
    parts = []
    for day in range(1, 6):
        here = pd.DataFrame({"arm": arm, "x": x})[came <= day]
        by_arm = here.groupby("arm").x.agg(["size", "mean", "var"]).reset_index()
        parts.append(by_arm.set_axis(["arm", "n", "x_mean", "x_variance"], axis=1).assign(day=day))
    found = from_moments(as_rows(pd.concat(parts)))
    assert found.crossed == {"x": False}
    (peek,) = found.peeks("control")
    known = np.array([look.t for look in peek.looks])
    assert np.isfinite(known).all()
    information = [1 / found.moments("x", "control", "new", day).variance for day in range(5)]  # type: ignore[union-attr]
    expected = sequential.mixture_boundary(np.array(information) / information[-1], 1.0)
    assert [look.always_valid for look in peek.looks] == pytest.approx(expected)
    check = next(c for c in of_moments._looked(found))
    assert check.status == "amber"


def long_table() -> pd.DataFrame:
    return pd.DataFrame(
        [
            (arm, metric, day, 100 * day, 1.0 + (arm == "new") * 0.1, 2.0)
            for arm in ("control", "new")
            for metric in ("money", "visits")
            for day in (1, 2, 3)
        ],
        columns=["arm", "metric", "day", "n", "mean", "variance"],
    )


def test_one_metric_a_row() -> None:
    found = from_moments(as_rows(long_table()))
    assert tuple(found.metrics) == ("money", "visits")
    m = found.moments("visits", "control", "new")
    assert m is not None
    assert (m.control, m.treatment, m.var_control, m.n_control) == (1.0, 1.1, 2.0 / 300, 300)


Change = Callable[[pd.DataFrame], Any]


def change(column: str, row: int, value: Any) -> Change:
    def made(table: pd.DataFrame) -> None:
        table[column] = table[column].astype(object)
        table.loc[row, column] = value

    return made


@pytest.mark.parametrize(
    ("of", "made", "message"),
    [
        ("wide", change("clicks_variance", 7, -0.5), r"line 9: column 'clicks_variance' is -0.5: a"
         " variance is 0 or more"),
        ("wide", change("n", 7, 12.5), r"line 9: column 'n' is 12.5: users are a whole number"),
        ("wide", change("clicks_impressions_covariance", 20, 1e9),
         r"line 22: column 'clicks_impressions_covariance' is .*correlated beyond 1"),
        ("wide", change("clicks_mean", 3, ""), r"line 5: column 'clicks_mean' has no value"),
        ("wide", change("clicks_mean", 3, "many"), r"line 5: column 'clicks_mean'"),
        ("wide", change("country", 1, "de"), r"line 3: arm 'new' at 1 in de is there twice"),
        ("long", change("n", 5, 150), r"line 7: column 'n' falls from 200 to 150 in arm 'control'"
         " at 3"),
        ("long", change("day", 4, "soon"), r"looks are numbers"),
        ("long", lambda t: t.__setitem__("max", 1.05), r"line 8: column 'max' is 1.05: the mean of"
         " the metric is above it"),
        ("long", lambda t: (t.__setitem__("min", 0.0), t.__setitem__("max", 2.0)),
         r"line 2: column 'max' is 2.0: with min and the mean it leaves the metric less variance"),
        ("long", change("metric", 2, "other"), r"metric 'money' of arm 'control' at 3 has no row"),
        ("wide", change("n", 0, "many"), r"line 2: column 'n' is 'many'"),
        ("wide", change("clicks_mean", 3, 1e200), r"column 'clicks_mean' is .*between 1e-60"),
        ("wide", change("day", 6, 9), r"arm 'new' at 9 in de has no row, but one at the look"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(tmp_path: Path, of: str, made: Change, message: str) -> None:
    table = (MOMENTS if of == "wide" else long_table()).copy()
    made(table)
    file = tmp_path / "m.csv"
    table.to_csv(file, index=False)
    control = "old" if of == "wide" else "control"
    result = CliRunner().invoke(
        command, [str(file), "--control", control, "--out", str(tmp_path / "r")]
    )
    assert result.exit_code == 2, result.output
    said = " ".join(result.output.split())
    assert f"{file}: " in said
    assert re.search(message, said), said
    assert not (tmp_path / "r").exists()


def test_dates_that_are_not_named_are_not_put_together() -> None:
    dated = MOMENTS.assign(date=[f"2026-05-{day + 1:02d}" for day in MOMENTS.day])
    dated = dated.drop(columns="day")
    with pytest.raises(TableError, match=r"'date' holds dates, .*--day date.*--segment date"):
        from_moments(as_rows(dated))
    assert len(from_moments(as_rows(dated), look="date").looks) == DAYS
    with pytest.raises(TableError, match="no column 'day'"):
        from_moments(as_rows(dated), look="day")


@pytest.mark.parametrize(
    "option", [["--resamples", "400"], ["--winsorise", "1%"], ["--user", "id"]]
)
def test_what_needs_rows_is_refused(tmp_path: Path, option: list[str]) -> None:
    MOMENTS.to_csv(tmp_path / "m.csv", index=False)
    asked = [str(tmp_path / "m.csv"), "--control", "old", "--out", str(tmp_path / "r"), *option]
    result = CliRunner().invoke(command, asked)
    assert result.exit_code == 2, result.output
    assert f"of moments has no {option[0][2:]}" in result.output


@pytest.mark.parametrize("column", ["arm", "day", "n"])
def test_who_and_where_is_no_segment(column: str) -> None:
    with pytest.raises(TableError, match=f"'{column}' is named as a segment, and is the column"):
        from_moments(as_rows(MOMENTS), groups=[column])


def test_a_sum_of_squares_that_is_too_small() -> None:
    table = pd.DataFrame({"arm": ["control", "new"], "n": 10, "x_sum": 100.0})
    table["x_sum_squares"] = [1100.0, 999.0]
    with pytest.raises(TableError, match=r"row 1: .*'x_sum_squares' is 999.0: a sum of squares is"):
        from_moments(as_rows(table))
    table.loc[1, "x_sum_squares"] = 1000.0 + 1e-8
    with pytest.raises(TableError, match=r"too few digits.*export x_mean and x_variance"):
        from_moments(as_rows(table))


def test_what_is_missing_is_asked_for() -> None:
    with pytest.raises(TableError, match="give a column minutes_impressions_sum_product"):
        from_moments(as_rows(MOMENTS), metrics={"rate": ("minutes", "impressions")})
    with pytest.raises(TableError, match=r"no variable 'likes' in this table; it has \['"):
        from_moments(as_rows(MOMENTS), metrics=["likes"])
    with pytest.raises(TableError, match="covariate 'ctr_before' has no product with 'minutes'"):
        from_moments(as_rows(MOMENTS), metrics=["minutes"], covariates=["ctr_before"])
    grown = MOMENTS.assign(n=MOMENTS.n + MOMENTS.day)
    with pytest.raises(TableError, match="the same users at every look"):
        from_moments(as_rows(grown), metrics=METRICS)


def test_a_table_of_users_is_none_of_moments() -> None:
    assert are_moments(MOMENTS.columns)
    assert not are_moments(["user", "arm", "n", "x_sum", "x_sum_squares"])
    assert not are_moments(["id", "arm", "n", "x_sum"])


def test_the_report_of_moments_decides(tmp_path: Path) -> None:
    content = user_table.write(
        MOMENTS, tmp_path, control="old", metrics=METRICS, roles={"clicks": "success"}
    )
    assert content.decision is not None
    assert [arm.answer for arm in content.decision.arms] == ["ship", "hold"]
    assert content.adjusted == ("clicks", "ctr")
    assert {check.name for check in content.checks} >= {
        "Sample ratio",
        "Covariate balance",
        "Looks",
    }
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "When one could have stopped" in page
    frame = user_table.lifts(MOMENTS, control="old", metrics=METRICS)
    assert list(frame.p_adjusted) == [row.p_adjusted for row in of_moments.lifts(
        aggregates(), "old", Choices())]  # fmt: skip
