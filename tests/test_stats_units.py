"""Sums of a log against loops over its rows: arms, fits, users, days and the history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.metadata import FIT, Metadata
from simulator.log.metrics import DEFAULT_METRICS, MetricError
from simulator.stats.unit_table import TableError
from simulator.stats.units import GrowingCells, UserSums, read

N_USERS, DAYS, FITS = 4, 3, 2
ARMS = ("history", "a", "b")


def rows(crossed: bool) -> dict[str, np.ndarray]:
    """Some hundred impressions, of which some come after the last day; in the order of the key."""
    random = np.random.default_rng(3)
    n = 300
    user, arm = random.integers(0, N_USERS, n), random.integers(0, 3, n)
    fit = random.integers(0, FITS, n) if crossed else user % FITS
    day = np.where(arm == 0, random.integers(-2, 0, n), random.integers(0, DAYS + 1, n))
    t = day * DAY + random.integers(0, 1000, n)
    order = np.lexsort((t, user, np.where(arm == 0, 0, fit), arm))
    columns = {
        "arm": arm, "fit": np.where(arm == 0, 0, fit), "user": user, "t": t,
        "click": random.integers(-1, 2, n).astype(np.int8), "watch": random.gamma(1.0, 9.0, n),
    }  # fmt: skip
    columns = {name: values[order] for name, values in columns.items()}
    number = np.arange(n)
    return columns | {
        "session": number, "request": number, "position": number * 0, "item": number * 0 + 1
    }  # fmt: skip


def log(kind: str, **changes: Any) -> EventLog:
    columns = rows(kind == "crossed")
    fit = columns.pop("fit")
    scenario: dict[str, Any] = {"seed": 0, "arms": {"a": {}, "b": {}}} | changes
    if kind != "one":
        scenario["fits"] = {"number": FITS} | ({"design": "crossed"} if kind == "crossed" else {})
    meta = Metadata(ARMS, N_USERS, 1, days=DAYS, control="a", scenario=scenario)
    return EventLog.from_columns(columns if kind == "one" else columns | {FIT: fit}, meta)


def counted(crossed: bool) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Sums `[2 arms, fits, users, days]`, and of the history `[users]`, row by row."""
    of = rows(crossed)
    names = ("impressions", "click", "watch")
    cubes = {name: np.zeros((2, FITS, N_USERS, DAYS)) for name in names}
    before = {name: np.zeros(N_USERS) for name in names}
    for arm, fit, user, t, click, watch in zip(
        *(of[name] for name in ("arm", "fit", "user", "t", "click", "watch")), strict=True
    ):
        values = {"impressions": 1, "click": click == 1, "watch": watch}
        for name, value in values.items():
            if arm == 0:
                before[name][user] += value
            elif t < DAYS * DAY:
                cubes[name][arm - 1, fit, user, t // DAY] += value
    return cubes, before


WANTED = ("click", "watch_time", "impressions")


def test_sums_are_those_of_the_rows_by_arm_user_and_day() -> None:
    days = read(log("one"), WANTED)
    cubes, before = counted(False)
    assert (days.arms, days.n_users, days.days, days.lives, days.fits) == (
        ("a", "b"), N_USERS, DAYS, (), ()
    )  # fmt: skip
    assert list(days.metrics) == list(WANTED)
    for name, cube in cubes.items():
        term = next(one for one in days.terms if one in (name, f"{name}_time"))
        assert days.terms[term] == pytest.approx(cube.sum(axis=1))
        assert days.before[term] == pytest.approx(before[name])
    assert days.assigned is None
    assert days.fit_of_user is None


def test_crossed_users_have_a_life_with_each_fit_and_the_means_of_all() -> None:
    days = read(log("crossed"), WANTED)
    cubes, before = counted(True)
    assert (days.fits, len(days.lives), days.fit_of_user) == ((FITS, FITS), FITS, None)
    for name in ("impressions", "click"):
        assert days.terms[name] == pytest.approx(cubes[name].mean(axis=1))
        for fit, life in enumerate(days.lives):
            assert life.terms[name] == pytest.approx(cubes[name][:, fit])
            assert life.before[name] == pytest.approx(before[name])
            assert (life.arms, life.n_users, life.days) == (("a", "b"), N_USERS, DAYS)


def test_divided_users_have_the_fit_that_their_name_says() -> None:
    source = log("divided")
    days = read(source, WANTED)
    cubes, _ = counted(False)
    assert days.lives == ()
    assert days.fits == (FITS, FITS)
    theirs = source.metadata.fits.fit_of_user(0, np.arange(N_USERS), FITS)
    assert days.fit_of_user is not None
    assert days.fit_of_user.tolist() == theirs.tolist()
    assert days.terms["click"] == pytest.approx(cubes["click"].sum(axis=1))


def test_metrics_are_those_asked_for_of_the_scenario_or_the_default_ones() -> None:
    assert list(read(log("one")).metrics) == list(DEFAULT_METRICS)
    assert list(read(log("one", metrics=["click", "return"])).metrics) == ["click", "return"]
    assert list(read(log("one", metrics=["click"]), ["watch_time"]).metrics) == ["watch_time"]
    with pytest.raises(MetricError):
        read(log("one"), ["clicks"])


def test_a_log_is_read_in_stretches_that_do_not_show() -> None:
    source = log("crossed")
    whole = read(source, WANTED)
    for size in (1, 7, 300):
        sums = UserSums(source, WANTED)
        for part in source.stretches(sums.columns, size):
            sums.add(part)
        cut = sums.user_days()
        for name, cube in whole.terms.items():
            assert cut.terms[name] == pytest.approx(cube)
    assert UserSums(source, ["click"]).columns == sorted({*source.metadata.key, "t", "click"})


def test_an_arm_that_comes_twice_and_a_key_that_falls_are_out_of_order() -> None:
    source = log("one")
    arm = source.table["arm"].to_numpy()
    second, third = (np.flatnonzero(arm == i) for i in (1, 2))
    history = np.flatnonzero(arm == 0)
    good = np.concatenate((history, third, second))
    assert read(EventLog(source.metadata, source.table.take(good)), WANTED).arms == ("a", "b")
    for order in (
        np.concatenate((history, second[:9], third, second[9:])),
        np.concatenate((history, second[::-1], third)),
    ):
        with pytest.raises(TableError) as refusal:
            read(EventLog(source.metadata, source.table.take(order)), WANTED)
        assert str(refusal.value) == (
            "the log is not in the order (arm, user, session, request): use `log.sorted()`"
        )


def test_cells_grow_from_a_byte_as_far_as_sums_ask() -> None:
    cells = GrowingCells(4)
    assert (cells.values.dtype, cells.values.tolist()) == (np.int8, [0, 0, 0, 0])
    cells.add(1, np.array([100, 27]))
    cells.add(2, np.array([100, 1]))
    assert (cells.values.dtype, cells.values.tolist()) == (np.int8, [0, 100, 127, 1])
    cells.add(0, np.array([1, 28]))
    assert (cells.values.dtype, cells.values.tolist()) == (np.int16, [1, 128, 127, 1])
    cells.add(3, np.array([0.5]))
    assert (cells.values.dtype, cells.values.tolist()) == (np.float64, [1, 128, 127, 1.5])
