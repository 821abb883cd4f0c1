"""Clusters, quantities of choice, freshness, columns beside others: by hand on a few rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.log.metrics import FRESH_DAYS, Declared, declared, metric
from simulator.stats import derived
from simulator.stats.clustering import clustered, first_rows
from simulator.stats.freshness import Freshness, ShareEstimate
from simulator.stats.quantities import (
    GROUPS,
    LEAST_GROUPS,
    ArmFigure,
    Quantity,
    jackknife,
    moments_of,
)
from simulator.stats.unit_table import TableError, UnitTable, keys_of

CLUSTER = np.array(["y", "x", "y", "z", "x"])


def rows(**changes: object) -> UnitTable:
    of = declared({m: metric(m) for m in ("click", "click_rate")}, {"click": Declared()})
    given: dict[str, object] = {
        "numerators": {"click": np.array([1.0, 2, 4, 8, 16]), "click_rate": np.arange(5.0)},
        "denominators": {"click_rate": np.array([1.0, 1, 2, 3, 5])},
        "assigned": np.array([0, 1, 0, 0, 1]),
        "cluster": CLUSTER,
        "covariates": {"past": np.array([1.0, 2, 3, 4, 6])},
        "groups": {"kept": np.array([7, 8, 7, 7, 8]), "torn": np.array([1, 1, 2, 1, 1])},
        "features": {
            "age": np.array([1.0, math.nan, 3.0, math.nan, math.nan]),
            "city": np.array(["a", "b", "a", "c", "b"]),
            "shirt": np.array(["a", "b", "b", "c", "b"]),
        },
    } | changes
    return UnitTable("user-day", ("old", "new"), of, **given)  # type: ignore[arg-type]


def test_rows_of_a_cluster_become_one_unit() -> None:
    one = clustered(rows())
    assert (one.unit, one.cluster) == ("user", None)
    # x, y, z: in alphabetical order.
    assert {n: v.tolist() for n, v in one.numerators.items()} == {
        "click": [18.0, 5.0, 8.0], "click_rate": [5.0, 2.0, 3.0]
    }  # fmt: skip
    assert {n: v.tolist() for n, v in one.denominators.items()} == {
        "click": [2.0, 2.0, 1.0], "click_rate": [6.0, 3.0, 3.0]
    }  # fmt: skip
    assert one.assigned is not None
    assert one.assigned.tolist() == [1, 0, 0]
    assert one.covariates["past"].tolist() == [4.0, 2.0, 4.0]
    assert {n: v.tolist() for n, v in one.groups.items()} == {"kept": [8, 7, 7]}
    assert one.features.keys() == {"age", "city"}
    assert one.features["age"].tolist() == pytest.approx([math.nan, 2.0, math.nan], nan_ok=True)
    assert one.features["city"].tolist() == ["b", "a", "c"]
    assert (one.keys == keys_of(["x", "y", "z"])).all()
    assert clustered(rows(features={})).keys is None


def test_twins_of_a_cluster_are_summed_in_each_arm() -> None:
    both = np.array([[1.0, 2, 4, 8, 16], [1.0, 1, 1, 1, 1]])
    tables = {"numerators": {"click": both}, "denominators": {}, "assigned": None, "features": {}}
    one = clustered(rows(**tables))
    assert one.numerators["click"].tolist() == [[18.0, 5.0, 8.0], [2.0, 2.0, 1.0]]
    assert one.denominators["click"].tolist() == [[2.0, 2.0, 1.0]] * 2
    assert one.assigned is None


def test_what_is_no_cluster_is_refused() -> None:
    with pytest.raises(TableError, match="these units are independent"):
        clustered(rows(cluster=None))
    with pytest.raises(TableError) as refusal:
        clustered(rows(assigned=np.array([0, 1, 0, 0, 0])))
    assert str(refusal.value) == "cluster 'x' is in several arms; each cluster must be in one"
    index, names = np.array([1, 0, 1, 2, 0]), np.array(["x", "y", "z"], dtype=object)
    assert first_rows(rows(), names, index, "shop").tolist() == [1, 0, 3]
    torn = rows(assigned=np.array([0, 1, 1, 0, 1]))
    with pytest.raises(TableError, match="shop 'y' is in several arms; each shop"):
        first_rows(torn, names, index, "shop")


def test_a_quantile_of_rows_goes_on_with_the_rows_of_its_clusters() -> None:
    of = declared(
        {m: metric(m) for m in ("click", "click_rate")}, {"click": Declared(quantile=0.5)}
    )
    one = clustered(UnitTable("user-day", ("old", "new"), of, rows().numerators, {},
                              rows().assigned, CLUSTER))  # fmt: skip
    assert list(one.details) == ["click"]
    details = one.details["click"]
    assert details.values[0].tolist() == [2.0, 16.0, 1.0, 4.0, 8.0]
    assert details.unit is not None
    assert details.unit.tolist() == [0, 0, 1, 1, 2]


def test_the_jackknife_leaves_out_its_groups_one_after_the_other() -> None:
    random = np.random.default_rng(1)
    for n, g in ((LEAST_GROUPS, LEAST_GROUPS), (GROUPS, GROUPS), (GROUPS + 7, GROUPS)):
        x, y = random.normal(size=(2, n))

        def slope(a: np.ndarray, b: np.ndarray) -> float:
            return float(np.mean(a * b) / np.mean(a * a))

        group = np.random.default_rng(0).permutation(n) % g
        without = np.array([slope(x[group != j], y[group != j]) for j in range(g)])
        found = jackknife(slope, [x, y])
        assert (found.value, found.n, found.df, found.note) == (slope(x, y), n, g - 1, "")
        assert found.influence == pytest.approx((g - 1) / g * (without.mean() - without))
        expected = (g - 1) / g * ((without - without.mean()) ** 2).sum()
        assert found.variance == pytest.approx(expected)
    few = jackknife(lambda a: float(a.mean()), [np.arange(9.0)])
    assert (few.value, few.n, few.note) == (4.0, 9, "fewer than 10 units in an arm")
    assert len(few.influence) == 9
    assert np.isnan([few.df, few.variance]).all()


def test_rows_of_a_unit_are_left_out_together_in_their_order() -> None:
    units = np.repeat(np.arange(12), 3)
    values = np.random.default_rng(2).normal(size=36)
    seen: list[np.ndarray] = []

    def mean(x: np.ndarray) -> float:
        seen.append(x)
        return float(x.mean())

    found = jackknife(mean, [values], units)
    assert (found.n, found.df) == (12, 11.0)
    group = np.random.default_rng(0).permutation(12)
    for j, kept in enumerate(seen[1:]):
        assert (kept == values[group[units] != j]).all()
    assert jackknife(lambda x: float(len(x)), [values[:0]], units[:0]).n == 0


def test_figures_of_arms_are_compared_as_means_are() -> None:
    a = ArmFigure(2.0, np.array([0.1, -0.3, 0.2]), 2.0, 30)
    b = ArmFigure(3.0, np.array([0.4, -0.2, -0.2]), 2.0, 40, "odd")
    assert (a.factor, a.variance) == (1.5, pytest.approx(1.5 * 0.14))
    twins = moments_of(a, b, paired=True)
    assert twins.cov == pytest.approx(1.5 * (0.04 + 0.06 - 0.04))
    assert (twins.control, twins.treatment, twins.df, twins.paired) == (2.0, 3.0, 2.0, True)
    assert (twins.var_control, twins.var_treatment) == (a.variance, b.variance)
    assert (twins.n_control, twins.n_treatment, twins.note) == (30, 40, "odd")
    apart = moments_of(b, a, paired=False)
    v, w = b.variance, a.variance
    assert apart.df == pytest.approx((v + w) ** 2 / (v**2 / 2 + w**2 / 2))
    assert (apart.cov, apart.note) == (0.0, "odd")
    endless = ArmFigure(2.0, a.influence, np.inf, 30)
    assert moments_of(endless, endless, paired=False).df == np.inf
    assert np.isnan(ArmFigure(1.0, np.zeros(1), 0.0, 1).factor)
    assert ArmFigure(1.0, np.zeros(2), 1.0, 2).factor == 2.0


def test_a_quantity_needs_columns_and_a_number() -> None:
    with pytest.raises(TableError, match="name at least one column"):
        Quantity(np.mean)
    assert Quantity(np.mean, "a", "b").columns == ("a", "b")
    with pytest.raises(TableError) as refusal:
        jackknife(nothing, [np.zeros(1200)])
    assert str(refusal.value) == (
        "quantity nothing: is nan of 1,200 rows; it must be a finite number of any sample, also"
        " without some of the units"
    )
    with pytest.raises(TableError, match="quantity several: must return one number; it says: "):
        jackknife(several, [np.zeros(3)])


def nothing(x: np.ndarray) -> float:
    return math.nan


def several(x: np.ndarray) -> list[float]:
    return [1.0]


def log(columns: dict[str, list[float]], n_items: int = 3, days: int = 2) -> EventLog:
    n = len(columns["t"])
    arm = np.array(columns["arm"])
    given = {
        "session": np.arange(n), "request": np.arange(n), "position": np.zeros(n, dtype=int),
        "click": np.zeros(n, dtype=int),
    } | {name: np.array(v) for name, v in columns.items()}  # fmt: skip
    assert (np.diff(arm) >= 0).all()
    return EventLog.from_columns(given, Metadata(("history", "a", "b"), 2, n_items, days=days))


def test_fresh_is_what_was_uploaded_at_most_seven_days_before() -> None:
    columns: dict[str, list[float]] = {
        "arm": [0, 1, 1, 1, 1, 1, 1, 2, 2],
        "user": [0, 0, 0, 0, 0, 0, 1, 0, 1],
        "item": [1, 1, 2, 2, 1, 3, 3, 3, 1],
        "t": [-5, 0, 10, 2 * DAY - 1, DAY, DAY + 1, DAY, 5, 2 * DAY],
    }  # fmt: skip
    # Item 1 is as old at the start of the second day as fresh may be; 2 comes at 10; 3 is unknown.
    uploaded = np.array([np.nan, DAY - FRESH_DAYS * DAY, 10.0, np.nan])
    found = Freshness.of(log(columns), uploaded)
    assert found.shown.tolist() == [[[2, 3], [0, 1]], [[1, 0], [0, 0]]]
    assert found.fresh.tolist() == [[[2, 2], [0, 0]], [[0, 0], [0, 0]]]
    uploaded[1] -= 1
    assert Freshness.of(log(columns), uploaded).fresh[0, 0].tolist() == [2, 1]
    uploaded[1], uploaded[2] = DAY, 11.0
    assert Freshness.of(log(columns), uploaded).fresh[0, 0].tolist() == [0, 2]


def test_a_share_of_some_days_is_a_ratio_of_sums_with_its_influences() -> None:
    fresh = np.array(
        [[[9.0, 1, 2], [9.0, 3, 0], [9.0, 0, 0]], [[9.0, 1, 1], [9.0, 1, 1], [9, 0, 0]]]
    )
    shown = np.array(
        [[[9.0, 2, 3], [9.0, 4, 1], [9.0, 0, 0]], [[9.0, 2, 2], [9.0, 2, 2], [9, 0, 0]]]
    )
    of = Freshness(fresh, shown)
    share, influence = of.share(0, 1, 3)
    assert share == 0.6
    assert influence == pytest.approx(np.array([3 - 0.6 * 5, 3 - 0.6 * 5, 0.0]) / 10)
    share, influence = of.share(0, 1, 2)
    assert influence == pytest.approx(np.array([1 - 2 * 4 / 6, 3 - 4 * 4 / 6, 0.0]) / 6)
    assert of.share(1, 0, 2)[0] == pytest.approx(29 / 31)
    share, influence = of.share(1, 3, 3)
    assert np.isnan(share)
    assert np.isnan(influence).all()
    assert len(influence) == 3


def test_a_figure_has_students_interval_of_its_influences() -> None:
    influence = np.array([0.1, -0.3, 0.2])
    half = stats.t.ppf(0.95, 2) * np.sqrt(0.14 * 3 / 2)
    assert ShareEstimate.of(0.4, influence, 0.9) == ShareEstimate(
        0.4, pytest.approx(0.4 - half), pytest.approx(0.4 + half)
    )
    two = ShareEstimate.of(0.4, influence[:2], 0.9)
    assert np.isfinite([two.low, two.high]).all()
    one = ShareEstimate.of(0.4, influence[:1], 0.9)
    assert one.value == 0.4
    assert np.isnan([one.low, one.high]).all()


def pairs_by_hand(
    group: list[int], opens: list[bool], above: list[int]
) -> tuple[list[int], list[int], list[int]]:
    slate, pairs, unlike = list(above), [], []
    for one, first in zip(group, opens, strict=True):
        if first:
            slate = []
        pairs.append(sum(other >= 0 for other in slate) if one >= 0 else 0)
        unlike.append(sum(other >= 0 and other != one for other in slate) if one >= 0 else 0)
        slate.append(one)
    return pairs, unlike, slate


@pytest.mark.parametrize("above", [[], [0], [2, 2, -1, 0]])
@pytest.mark.parametrize("goes_on", [True, False])
def test_pairs_of_a_slate_are_counted_across_batches(above: list[int], goes_on: bool) -> None:
    random = np.random.default_rng(len(above))
    group = random.integers(-1, 3, 40)
    opens = random.random(40) < 0.25
    opens[0] = not goes_on
    found = derived._pairs(group, opens, np.array(above, dtype=np.int64))
    expected = pairs_by_hand(group.tolist(), opens.tolist(), above if goes_on else [])
    assert [part.tolist() for part in found] == [list(map(float, part)) for part in expected]


def test_a_batch_without_rows_leaves_the_slate_open() -> None:
    nothing_more = np.zeros(0, dtype=np.int64)
    found = derived._pairs(nothing_more, np.zeros(0, dtype=bool), np.array([1, 2]))
    assert [part.tolist() for part in found] == [[], [], [1, 2]]
    empty = derived._pairs(nothing_more, np.zeros(0, dtype=bool), nothing_more)
    assert [part.tolist() for part in empty] == [[], [], []]


def test_the_history_counts_known_items_before_the_start() -> None:
    columns: dict[str, list[float]] = {
        "arm": [0, 0, 0, 1, 1], "user": [0, 0, 1, 0, 0], "item": [1, 3, 1, 2, 1],
        "t": [-9, -1, -5, 0, 5],
    }  # fmt: skip
    assert derived._history(log(columns)).tolist() == [0, 2, 0, 1]
    asked = derived.DerivedColumns(log(columns), {"information", "tag_pairs"})
    assert asked.available == {"information"}
    rows_of: dict[str, np.ndarray] = {"item": np.array([1, 2, 3, 1], dtype=np.int32)}
    asked.add(rows_of)
    # Shares 3, 1 and 2 of 6 impressions, each item with one more than it has.
    assert rows_of["information"] == pytest.approx(-np.log2(np.array([3, 1, 2, 3]) / 6))
    none = derived.DerivedColumns(log(columns), {"click"})
    assert none.available == frozenset()
    before = dict(rows_of)
    none.add(rows_of)
    assert rows_of.keys() == before.keys()


def test_without_a_history_no_item_is_known_to_be_rare() -> None:
    columns: dict[str, list[float]] = {"arm": [1, 1], "user": [0, 1], "item": [1, 2], "t": [0, 5]}
    asked = derived.DerivedColumns(log(columns), {"information", "click"})
    assert asked.available == frozenset()
    rows_of: dict[str, np.ndarray] = {"item": np.array([1, 2])}
    asked.add(rows_of)
    assert rows_of.keys() == {"item"}


def test_a_log_without_days_is_one_day_of_freshness() -> None:
    columns: dict[str, list[float]] = {
        "arm": [1, 1, 1], "user": [0, 0, 1], "item": [1, 1, 1], "t": [0, DAY - 1, DAY],
    }  # fmt: skip
    found = Freshness.of(log(columns, days=0), np.array([np.nan, 0.0, 0.0, 0.0]))
    assert found.shown.tolist() == [[[2.0], [0.0]], [[0.0], [0.0]]]
    assert (found.fresh == found.shown).all()
