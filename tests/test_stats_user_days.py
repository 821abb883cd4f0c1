"""User-days by hand: three users, two or three days, in every layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulator.log.metrics import chosen
from simulator.stats.unit_table import TableError
from simulator.stats.user_days import UserDays

CLICK = np.array(
    [
        [[1, 0, 2], [0, 3, 1], [4, 1, 0]],
        [[2, 2, 0], [1, 0, 0], [0, 5, 1]],
    ]
)
SEEN = CLICK + np.array([[[1], [2], [0]]])
NAMES = ("click", "click_rate", "return", "like")
NAN = float("nan")


def days(**more: Any) -> UserDays:
    given = {
        "terms": {"click": CLICK, "impressions": SEEN, "returned": SEEN, "active_days": SEEN},
        "before": {"click": np.array([2, 0, 3]), "impressions": np.array([4, 0, 8])},
    }
    metrics = {metric.name: metric for metric in chosen(NAMES)}
    return UserDays(("a", "b"), 3, 3, metrics, **given | more)


def listed(columns: Any) -> dict[str, Any]:
    return {name: np.asarray(column).tolist() for name, column in columns.items()}


def test_what_the_log_has_no_data_for_is_missing() -> None:
    assert days().missing == ("like",)
    assert set(days().by("user").numerators) == {"click", "click_rate", "return"}


def test_users_have_their_sums_and_their_past() -> None:
    table = days().by("user")
    assert listed(table.numerators)["click"] == [[3, 4, 5], [4, 1, 6]]
    assert listed(table.denominators)["click_rate"] == [[6, 10, 5], [7, 7, 6]]
    assert table.numerators["click"].dtype == np.int8
    # Nobody looked at what user 1 saw before: everybody's rate stands for theirs.
    assert listed(table.covariates) == {
        "click": [2.0, 0.0, 3.0],
        "click_rate": [0.5, 5 / 12, 0.375],
    }
    assert listed(table.groups) == {
        "activity": ["low", "none", "high"],
        "newness": ["known", "new", "known"],
    }
    assert (table.unit, table.assigned, table.cluster) == ("user", None, None)


def test_a_past_without_impressions_has_no_rate_and_no_groups() -> None:
    none = {"click": np.zeros(3, dtype=int), "impressions": np.zeros(3, dtype=int)}
    table = days(before=none).by("user")
    assert listed(table.covariates) == {"click": [0, 0, 0], "click_rate": [0, 0, 0]}
    assert table.groups == {}
    once = {"click": np.array([1, 0, 0]), "impressions": np.array([1, 0, 0])}
    assert days(before=once).by("user").covariates["click_rate"].tolist() == [1, 1, 1]
    assert days(before={"click": np.ones(3)}).by("user").groups == {}
    assert set(days(before={"click": np.ones(3)}).by("user").covariates) == {"click"}


def test_activity_is_cut_at_thirds_of_those_who_were_there() -> None:
    seen = np.array([0, 1, 2, 3, 4, 5, 6, 7])
    table = replace(days(), before={"impressions": seen})
    assert table.groups["activity"].tolist() == [
        "none", "low", "low", "low", "middle", "middle", "high", "high",
    ]  # fmt: skip


def test_days_are_means_per_user() -> None:
    table = days().by("day")
    assert listed(table.numerators)["click"] == [[5 / 3, 4 / 3, 1.0], [1.0, 7 / 3, 1 / 3]]
    assert listed(table.denominators)["click_rate"] == [[8 / 3, 7 / 3, 2.0], [2.0, 10 / 3, 4 / 3]]
    assert (table.unit, table.covariates, table.groups, table.cluster) == ("day", {}, {}, None)


def test_user_days_belong_to_their_users() -> None:
    table = days().by("user-day")
    assert listed(table.numerators)["click"] == CLICK.reshape(2, 9).tolist()
    assert table.numerators["click"].dtype == np.float64
    assert table.cluster is not None
    assert table.cluster.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert table.covariates["click"].tolist() == [2, 2, 2, 0, 0, 0, 3, 3, 3]
    assert table.groups["newness"].tolist() == ["known"] * 3 + ["new"] * 3 + ["known"] * 3
    some = days().by("user-day", first=1)
    assert some.numerators["click"].tolist() == CLICK[:, :, 1:].reshape(2, 6).tolist()
    assert some.covariates["click"].tolist() == [2, 2, 0, 0, 3, 3]


def test_some_days_only() -> None:
    source = days()
    assert source.by("user", first=1).numerators["click"].tolist() == [[2, 4, 1], [2, 0, 6]]
    assert source.by("user", until=2).numerators["click"].tolist() == [[1, 3, 5], [4, 1, 5]]
    one = source.by("user", first=1, until=2).numerators["click"]
    assert one.tolist() == [[0, 3, 1], [2, 0, 5]]
    # A user comes back on the day after; the last day has none.
    assert source.by("user", until=1).numerators["return"].tolist() == [[0] * 3] * 2
    followed = ((SEEN[:, :, :2] > 0) & (SEEN[:, :, 1:] > 0)).sum(axis=2)
    assert source.by("user").numerators["return"].tolist() == followed.tolist()


def test_tables_of_all_days_and_of_the_first_are_made_once() -> None:
    source = days()
    assert source.by("user") is source.by("user", until=3)
    assert source.by("day", until=1) is source.by("day", until=1)
    assert source.by("user") is not source.by("day")
    assert source.by("user", until=2) is not source.by("user", until=2)
    assert source.by("user", first=1) is not source.by("user", first=1)
    assert source.by("user", first=1).numerators["click"].tolist() != (
        source.by("user").numerators["click"].tolist()
    )


def test_users_in_one_arm_each() -> None:
    source = days(assigned=np.array([1, 0, -1]))
    table = source.by("user")
    assert table.assigned is not None
    assert table.assigned.tolist() == [1, 0, -1]
    assert table.numerators["click"].tolist() == [4, 4, 5]
    by_day = source.by("day").numerators["click"]
    assert by_day.tolist() == CLICK.sum(axis=1).tolist(), "one user in each arm"
    two = days(assigned=np.array([1, 0, 1])).by("day").numerators["click"]
    assert two[1].tolist() == (CLICK[1].sum(axis=0) / 2).tolist()
    each = source.by("user-day")
    assert each.numerators["click"].tolist() == [2, 2, 0, 0, 3, 1, 4, 1, 0]
    assert each.assigned is not None
    assert each.assigned.tolist() == [1, 1, 1, 0, 0, 0, -1, -1, -1]
    nobody = {name: cube * [[[1]], [[0]]] for name, cube in source.terms.items()}
    alone = days(assigned=np.array([0, 0, 0]), terms=nobody).by("day").numerators["click"]
    assert np.isnan(alone[1]).all()


def test_a_switchback_serves_one_arm_a_day() -> None:
    """Arm a on days 0 and 2, b on day 1."""
    served = np.zeros((2, 3, 3), dtype=int)
    served[0, :, [0, 2]] = CLICK[0, :, [0, 2]]
    served[1, :, 1] = CLICK[1, :, 1]
    terms = {"click": served, "impressions": served * 2}
    source = days(terms=terms, switched=np.array([0, 1, 0]))
    by_day = source.by("day")
    assert by_day.numerators["click"].tolist() == [5 / 3, 7 / 3, 1.0]
    assert by_day.assigned is not None
    assert by_day.assigned.tolist() == [0, 1, 0]
    users = source.by("user")
    # A mean per day that the arm was served; a ratio has sums.
    assert users.numerators["click"].tolist() == [[1.5, 0.5, 2.0], [2.0, 0.0, 5.0]]
    assert users.numerators["click_rate"].tolist() == [[3, 1, 4], [2, 0, 5]]
    assert users.denominators["click_rate"].tolist() == [[6, 2, 8], [4, 0, 10]]
    first = source.by("user", until=1)
    assert first.numerators["click"][0].tolist() == [1, 0, 4]
    assert np.isnan(first.numerators["click"][1]).all()
    later = source.by("day", first=1)
    assert later.assigned is not None
    assert later.assigned.tolist() == [1, 0]
    each = source.by("user-day")
    assert each.numerators["click"].tolist() == [1, 2, 2, 0, 0, 1, 4, 5, 0]
    assert each.assigned is not None
    assert each.assigned.tolist() == [0, 1, 0] * 3


def test_users_who_were_assigned_together_are_one_unit() -> None:
    source = days(cluster=np.array([7, 5, 7]))
    table = source.by("user")
    assert table.numerators["click"].tolist() == [[4, 8], [1, 10]]
    assert table.denominators["click"].tolist() == [[1, 2], [1, 2]]
    each = source.by("user-day").cluster
    assert each is not None
    assert each.tolist() == [7, 7, 7, 5, 5, 5, 7, 7, 7]


def test_large_users_are_cut_as_declared_and_days_are_not() -> None:
    source = days()
    cut = {**source.metrics, "click": replace(source.metrics["click"], winsorise=0.34)}
    source = replace(source, metrics=cut)
    assert source.by("user").numerators["click"].tolist() == [[3, 4, 4], [4, 1, 4]]
    assert source.by("day").numerators["click"][0, 0] == pytest.approx(5 / 3)
    grouped = replace(source, cluster=np.array([1, 1, 2]))
    assert grouped.by("user").numerators["click"].tolist() == [[7, 4], [5, 4]]


def lived(**more: Any) -> UserDays:
    """Two lives of every user; their means are the terms."""
    lives = (days(), days(terms={name: cube * 3 for name, cube in days().terms.items()}))
    return days(lives=lives, fits=(2, 1), fit_of_user=np.array([1, 0, 1]), **more)


def test_what_users_had_with_each_fit_is_averaged() -> None:
    table = lived().by("user")
    assert table.numerators["click"].tolist() == (2 * CLICK.sum(axis=2)).tolist()


def test_some_users_in_another_order() -> None:
    source = replace(lived(), assigned=np.array([0, 1, -1]), cluster=np.array([4, 5, 6])).users(
        np.array([2, 0])
    )
    assert source.n_users == 2
    assert source.terms["click"].tolist() == CLICK[:, [2, 0]].tolist()
    assert source.lives[1].terms["click"].tolist() == (3 * CLICK[:, [2, 0]]).tolist()
    assert listed(source.before) == {"click": [3, 2], "impressions": [8, 4]}
    for found, expected in (
        (source.assigned, [-1, 0]),
        (source.cluster, [6, 4]),
        (source.fit_of_user, [1, 1]),
    ):
        assert found is not None
        assert found.tolist() == expected
    alone = days().users(np.array([0])).by("user")
    assert alone.numerators["click"].tolist() == [[3], [4]]
    nobody = days(assigned=np.array([0, 1, -1])).users(np.zeros(0, dtype=int))
    assert nobody.by("user").numerators["click"].shape == (0,)
    plain = days().users(np.array([1]))
    assert (plain.assigned, plain.cluster, plain.fit_of_user, plain.lives) == (None,) * 3 + ((),)


def test_some_arms_in_another_order() -> None:
    three = days(
        terms={"click": np.concatenate((CLICK, CLICK[:1] + 9))},
        assigned=np.array([2, 0, 1]),
        switched=np.array([1, 2, 1]),
        fits=(1, 2, 3),
    )
    three = replace(three, arms=("a", "b", "c"), lives=(replace(three, arms=("a", "b", "c")),))
    some = three.of_arms(np.array([2, 1]))
    assert (some.arms, some.fits, some.lives[0].arms) == (("c", "b"), (3, 2), ("c", "b"))
    assert some.terms["click"].tolist() == [(CLICK[0] + 9).tolist(), CLICK[1].tolist()]
    assert some.assigned is not None
    assert some.assigned.tolist() == [0, -1, 1]
    assert some.switched is not None
    assert some.switched.tolist() == [1, 0, 1]
    assert days(assigned=np.array([-1, 1, 0])).of_arms(np.array([1])).assigned.tolist() == [
        -1,
        0,
        -1,
    ]  # type: ignore[union-attr]
    assert days().of_arms(np.array([1])).fits == ()
    ordered = three.in_order(("x", "c", "a"))
    assert ordered.arms == ("c", "a", "b")
    assert ordered.terms["click"][0].tolist() == (CLICK[0] + 9).tolist()
    assert three.in_order(("a", "b", "x", "c")) is three
    turned = replace(three, arms=("c", "b", "a"), lives=()).in_order(("a", "b"))
    assert turned.arms == ("a", "b", "c")
    assert turned.terms["click"][2].tolist() == CLICK[0].tolist()


def test_some_metrics_and_other_sums() -> None:
    some = lived().of_metrics(("return", "click"))
    assert list(some.metrics) == list(some.lives[0].metrics) == ["click", "return"]
    with pytest.raises(TableError, match="no metric 'clicks'; there are click, click_rate, ret"):
        days().of_metrics(("click", "clicks"))
    other = lived().pooled({"click": CLICK})
    assert (other.fits, other.fit_of_user, other.lives) == ((), None, ())
    assert list(other.terms) == ["click"]
