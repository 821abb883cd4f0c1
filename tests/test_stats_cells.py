"""Moments of cells put together, against the users themselves; looks and tables of moments at their
limits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulator.log.metrics import metric
from simulator.stats import moments, sequential
from simulator.stats.aggregates import Aggregates, CellMoments, by_variance, shares_of
from simulator.stats.moment_sheets import are_moments, from_moments
from simulator.stats.rows import as_rows
from simulator.stats.unit_table import TableError

VARIABLES = ("x", "y", "past")
ARMS, LOOKS, CELLS, P = 2, 3, 3, 3
SIZES = np.array([[6, 1, 9], [4, 8, 0]])
"""Users of each arm and cell; one cell has one of them, and one nobody."""


def people() -> list[list[np.ndarray]]:
    """By arm and cell, what users have so far `[looks, users, variables]`."""
    random = np.random.default_rng(5)
    return [
        [np.cumsum(random.normal(2.0, 1.0, (LOOKS, n, P)), axis=0) for n in of_arm]
        for of_arm in SIZES
    ]


def cov(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sample covariances `[p, p]` of the columns of a with those of b; NaN of one user."""
    if len(a) < 2:
        return np.full((P, P), np.nan)
    return (a - a.mean(axis=0)).T @ (b - b.mean(axis=0)) / (len(a) - 1)


def moments_of(groups: list[list[np.ndarray]]) -> CellMoments:
    """Moments `[arms, looks, cells]` of users by arm and cell."""
    shape = (len(groups), LOOKS, len(groups[0]))
    n, mean = np.zeros((*shape, P)), np.full((*shape, P), np.nan)
    own, previous = (np.full((*shape, P, P), np.nan) for _ in range(2))
    for arm, cells in enumerate(groups):
        for cell, users in enumerate(cells):
            for look, values in enumerate(users):
                n[arm, look, cell] = len(values)
                if len(values):
                    mean[arm, look, cell] = values.mean(axis=0)
                own[arm, look, cell] = cov(values, values)
                if look:
                    previous[arm, look, cell] = cov(values, users[look - 1])
    return CellMoments(n, mean, own, previous)


def test_cells_together_are_the_sample_of_their_users() -> None:
    groups = people()
    whole = [[np.concatenate(cells, axis=1)] for cells in groups]
    expected, found = moments_of(whole), moments_of(groups).together()
    assert found.twins is None
    for name in ("n", "mean", "cov", "previous"):
        value = getattr(expected, name)[:, :, 0]
        assert getattr(found, name) == pytest.approx(value, nan_ok=True), name
    assert np.isnan(found.previous[:, 0]).all()
    alone = moments_of([[groups[0][1]]]).together()
    assert np.isnan(alone.cov).all()
    assert (alone.n == 1).all()


def twins() -> tuple[list[np.ndarray], CellMoments]:
    """By cell, what the same users have in two arms at one look `[arms, users, 3]`."""
    random = np.random.default_rng(6)
    users = [random.normal(2.0, 1.0, (2, n, P)) + random.normal(size=(1, n, P)) for n in (6, 1, 4)]
    n = np.tile(np.array([6.0, 1.0, 4.0])[:, None], (2, 1, 1, P))
    mean = np.stack([[[cell[arm].mean(axis=0) for cell in users]] for arm in (0, 1)])
    own = np.stack([[[cov(cell[arm], cell[arm]) for cell in users]] for arm in (0, 1)])
    between = np.stack(
        [[[[cov(cell[a], cell[b]) for b in (0, 1)] for cell in users]] for a in (0, 1)]
    )
    return users, CellMoments(n, mean, own, np.full_like(own, np.nan), between)


def test_twins_of_cells_together_are_the_sample_of_their_pairs() -> None:
    users, cells = twins()
    found = cells.together()
    whole = np.concatenate(users, axis=1)
    assert found.twins is not None
    for a in (0, 1):
        for b in (0, 1):
            assert found.twins[a, 0, b] == pytest.approx(cov(whole[a], whole[b]))
    lost = replace(cells, twins=np.where(np.arange(P) == 1, np.nan, cells.twins)).together()  # type: ignore[arg-type]
    assert lost.twins is not None
    assert np.isnan(lost.twins[..., 1]).all()
    assert np.isfinite(lost.twins[..., [0, 2]]).all()


def aggregates(cells: CellMoments, **more: Any) -> Aggregates:
    of = {"x": metric("click"), "rate": metric("click_rate")}
    given: dict[str, Any] = {
        "parts": {"x": ("x", None), "rate": ("x", "y")}, "covariates": {"x": ("past",)},
        "looks": ("1", "2", "4"), "shares": np.array([0.25, 0.5, 1.0]),
    } | more  # fmt: skip
    return Aggregates(("a", "b"), of, VARIABLES, cells=cells, **given)


def whole() -> tuple[list[np.ndarray], Aggregates]:
    """Users of both arms `[looks, users, variables]`, and their moments."""
    groups = [np.concatenate(cells, axis=1) for cells in people()]
    return groups, aggregates(moments_of([[one] for one in groups]).together())


def same(found: moments.Moments | None, expected: moments.Moments) -> None:
    assert found is not None
    for name in moments.Moments.__slots__:
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name


def test_comparisons_are_those_of_the_users() -> None:
    groups, of = whole()
    assert of.n_users == {"a": 16, "b": 12}
    assert not of.paired
    for look in (0, 1, -1):
        a, b = ([one[look][:, i] for i in range(P)] for one in groups)
        same(of.moments("x", "a", "b", look), moments.split(a[0], b[0]))
        ratio = moments.split_moments(moments.sample(a[:2]), moments.sample(b[:2]), 0, 1)
        same(of.moments("rate", "a", "b", look), ratio)
        adjusted = moments.split_moments(
            moments.sample([a[0], a[2]]), moments.sample([b[0], b[2]]), 0, None, [1]
        )
        same(of.moments("x", "a", "b", look, adjusted=True), adjusted)
        same(of.moments("rate", "a", "b", look, adjusted=True), ratio)
    same(of.moments("x", "b", "a"), moments.split(groups[1][-1][:, 0], groups[0][-1][:, 0]))
    with pytest.raises(TableError) as refusal:
        of.arm("c")
    assert str(refusal.value) == "no arm 'c' among ['a', 'b']"


def test_a_moment_that_is_not_known_leaves_its_comparison_out() -> None:
    _, of = whole()
    lost = of.cells.cov.copy()
    lost[1, -1, 0, 2] = np.nan
    gone = replace(of, cells=replace(of.cells, cov=lost))
    assert gone.moments("x", "a", "b", adjusted=True) is None
    assert gone.moments("x", "a", "b") is not None
    n = of.cells.n.copy()
    n[0, -1, 1] += 1
    unequal = replace(of, cells=replace(of.cells, n=n))
    assert unequal.moments("rate", "a", "b") is None
    assert unequal.moments("x", "a", "b") is not None
    assert unequal.n_users["a"] == 17


def test_levels_of_segments_are_adjusted_with_slopes_of_their_own() -> None:
    groups, of = whole()
    some = [one[-1][:9] for one in groups]
    samples = [moments.sample([one[:, i] for i in range(P)]) for one in some]
    cells = CellMoments(
        np.array([[9.0] * P] * 2), np.stack([s.mean for s in samples]),
        np.stack([s.cov for s in samples]), np.full((2, P, P), np.nan),
    )  # fmt: skip
    with_groups = replace(of, groups={"g": {"u": cells}})
    expected = moments.split_moments(*(s.pick([0, 2]) for s in samples), 0, None, [1])
    same(with_groups.in_segment("g", "u", "x", "a", "b"), expected)


def test_the_past_correlates_with_the_linearised_value() -> None:
    groups, of = whole()
    for arm, values in zip(("a", "b"), groups, strict=True):
        x, y, past = values[-1].T
        assert of.correlation("x", arm) == pytest.approx(abs(np.corrcoef(x, past)[0, 1]))
        assert of.correlation("rate", arm) is None
        both = replace(of, covariates={"rate": ("past",), "x": ("past", "y")})
        z = x - x.sum() / y.sum() * y
        assert both.correlation("rate", arm) == pytest.approx(abs(np.corrcoef(z, past)[0, 1]))
        design = np.stack([np.ones(len(x)), past, y], axis=1)
        left = x - design @ np.linalg.lstsq(design, x, rcond=None)[0]
        multiple = np.sqrt(1 - left.var() / x.var())
        assert both.correlation("x", arm) == pytest.approx(multiple)
    still = of.cells.cov.copy()
    still[0, -1, 0] = still[0, -1, :, 0] = 0.0
    assert replace(of, cells=replace(of.cells, cov=still)).correlation("x", "a") is None
    still[0, -1, 0, 2] = np.nan
    assert replace(of, cells=replace(of.cells, cov=still)).correlation("x", "a") is None


def test_looks_go_together_as_users_do_or_as_independent_increments() -> None:
    groups, of = whole()
    assert of.crossed == {"x": True, "rate": True}
    found = {(one.metric, one.arm): one for one in of.peeks("a", 0.2)}
    assert list(found) == [("x", "b"), ("rate", "b")]
    for m in ("x", "rate"):
        series = [of.moments(m, "a", "b", look) for look in range(LOOKS)]
        correlations = []
        for look in range(1, LOOKS):
            between, own = 0.0, [0.0, 0.0]
            for values in groups:
                z = []
                for at in (look - 1, look):
                    x, y, _ = values[at].T
                    z.append(x if m == "x" else (x - x.sum() / y.sum() * y) / y.mean())
                c = np.cov(z, bias=True) / len(z[0])
                between += c[0, 1]
                own = [own[0] + c[0, 0], own[1] + c[1, 1]]
            correlations.append(between / np.sqrt(own[0] * own[1]))
        expected = sequential.looks(series, np.array(correlations), of.shares, 0.2)  # type: ignore[arg-type]
        for one, other in zip(found[m, "b"].looks, expected, strict=True):
            assert vars(one) == pytest.approx(vars(other))
    unknown = of.cells.previous.copy()
    unknown[1, 2, 1, 1] = np.nan
    some = replace(of, cells=replace(of.cells, previous=unknown))
    assert some.crossed == {"x": True, "rate": False}
    (_, rate) = some.peeks("a")
    series = [of.moments("rate", "a", "b", look) for look in range(LOOKS)]
    variance = np.array([m.variance for m in series if m is not None])
    plain = sequential.looks(series, by_variance(variance), of.shares)  # type: ignore[arg-type]
    assert list(map(repr, rate.looks)) == list(map(repr, plain))
    # A look whose moments are not known leaves the metric out; one look is no series.
    lost = of.cells.cov.copy()
    lost[0, 1, 1, 1] = np.nan
    assert [one.metric for one in replace(of, cells=replace(of.cells, cov=lost)).peeks("a")] == [
        "x"
    ]
    assert replace(of, looks=("1",)).peeks("a") == []
    assert {one.arm for one in of.peeks("b")} == {"a"}
    default = of.peeks("a")
    assert list(map(repr, default)) == list(map(repr, of.peeks("a", 0.05)))


def test_twins_are_compared_from_either_side() -> None:
    users, cells = twins()
    together = cells.together()
    of = aggregates(together, looks=("1",), shares=np.ones(1))
    assert of.paired
    assert of.crossed == {"x": False, "rate": False}
    pair = np.concatenate(users, axis=1)
    a, b = pair[0], pair[1]
    expected = moments.paired(a[:, 0], b[:, 0])
    same(of.moments("x", "a", "b"), expected)
    both = moments.sample([a[:, 0], a[:, 1], b[:, 0], b[:, 1]])
    ratio = moments.paired_moments(both, (0, 1), (2, 3))
    same(of.moments("rate", "a", "b"), ratio)
    assert together.twins is not None
    for side in (0, 1):
        half = together.twins.copy()
        half[side, 0, 1 - side] = np.nan
        one = replace(of, cells=replace(together, twins=half))
        same(one.moments("rate", "a", "b"), ratio)
    nothing = np.full_like(together.twins, np.nan)
    assert replace(of, cells=replace(together, twins=nothing)).moments("x", "a", "b") is None
    lost = together.cov.copy()
    lost[0, 0, 0, 0] = np.nan
    assert replace(of, cells=replace(together, cov=lost)).moments("x", "a", "b") is None


def test_information_is_one_over_the_variance_and_never_falls() -> None:
    found = by_variance(np.array([[4.0, 1.0, 2.0, 0.5]]))
    assert found == pytest.approx(np.array([[0.5, 1.0, 0.5]]))
    assert np.isnan(by_variance(np.array([0.0, 0.0]))).all()


def test_shares_count_whole_days_from_the_first_and_other_times_from_0() -> None:
    assert shares_of(np.array([3.0, 4.0, 6.0])) == pytest.approx([0.25, 0.5, 1.0])
    assert shares_of(np.array([0.5, 1.0, 2.0])) == pytest.approx([0.25, 0.5, 1.0])
    many = shares_of(np.array([[1.0, 2.0, np.nan], [0.1, 0.2, 0.4]]))
    assert many == pytest.approx(np.array([[0.5, 1.0, np.nan], [0.25, 0.5, 1.0]]), nan_ok=True)
    assert shares_of(np.array([7.0])).tolist() == [1.0]


@pytest.mark.parametrize(
    ("columns", "are"),
    [
        ("arm n x_sum x_sum_squares", True),
        ("arm users x_mean x_variance", True),
        ("arm count x_mean x_sum_squares", False),
        ("arm n x_sum", False),
        ("arm x_sum x_sum_squares", False),
        ("user arm n x_sum x_sum_squares", False),
        ("arm n _sum _sum_squares", False),
        ("arm n metric mean variance", True),
        ("arm n metric sum sum_squares", True),
        ("arm n metric mean sum_squares", False),
        ("arm n metric x_sum x_sum_squares", False),
    ],
)
def test_tables_of_moments_are_known_by_their_columns(columns: str, are: bool) -> None:
    assert are_moments(columns.split()) is are
    assert not are_moments(columns.split(), user="arm")


def test_sums_and_products_become_covariances() -> None:
    """Two arms of 3 and 4 users: x, y and the sum of their products by hand."""
    x = {"a": np.array([1.0, 2, 6]), "b": np.array([0.0, 3, 3, 4])}
    y = {"a": np.array([2.0, 2, 5]), "b": np.array([1.0, 1, 5, 9])}
    rows = [
        {
            "arm": arm, "n": len(x[arm]),
            "x_sum": x[arm].sum(), "x_sum_squares": (x[arm] ** 2).sum(),
            "y_mean": y[arm].mean(), "y_variance": y[arm].var(ddof=1),
            "x_y_sum_product": (x[arm] * y[arm]).sum(), "x_max": 6.0, "x_min": 0.0,
        }
        for arm in ("a", "b")
    ]  # fmt: skip
    of = from_moments(as_rows(pd.DataFrame(rows)), metrics={"r": ("x", "y"), "x": "x"})
    for i, arm in enumerate(("a", "b")):
        assert of.cells.mean[i, 0] == pytest.approx([x[arm].mean(), y[arm].mean()])
        assert of.cells.cov[i, 0] == pytest.approx(np.cov(x[arm], y[arm]))
    assert {use.column: use.role for use in of.columns}["x_min"] == "moments"
    assert of.n_users == {"a": 3, "b": 4}


def test_a_product_of_two_pairs_is_refused() -> None:
    names = ("a", "b", "a_b", "b_c", "c")
    frame = pd.DataFrame({"arm": ["u", "v"], "n": 5})
    for name in names:
        frame[f"{name}_mean"], frame[f"{name}_variance"] = 1.0, 1.0
    frame["a_b_c_covariance"] = 0.5
    with pytest.raises(TableError) as refusal:
        from_moments(as_rows(frame))
    assert str(refusal.value).endswith(
        "column 'a_b_c_covariance' may be the product of a and b_c or of a_b and c; name the"
        " variables otherwise"
    )
    frame = frame.drop(columns=["b_c_mean", "b_c_variance"])
    of = from_moments(as_rows(frame), metrics=["a"])
    at = [of.variables.index(name) for name in ("a_b", "c")]
    assert of.cells.cov[0, 0][at[0], at[1]] == of.cells.cov[0, 0][at[1], at[0]] == 0.5


def test_a_metric_that_is_there_twice_is_named_with_both_rows() -> None:
    frame = pd.DataFrame(
        {"arm": ["u", "v", "u", "v"], "metric": ["m", "m", "k", "m"], "n": 5, "mean": 1.0,
         "variance": 1.0}
    )  # fmt: skip
    with pytest.raises(TableError) as refusal:
        from_moments(as_rows(frame))
    assert (
        "row 3: metric 'm' of an arm, look and cell of the segments is there twice (row 1): give"
        " one row for each"
    ) in str(refusal.value)


def exported(kind: str) -> pd.DataFrame:
    """A row for each arm, look and country, of the users of `people` with two cells that both arms
    have, products with the look before as sums or as covariances.
    """
    frame = []
    for arm, cells in zip("ab", people(), strict=True):
        for look in range(LOOKS):
            for country, users in zip(("de", "jp"), cells[:2], strict=True):
                now, n = users[look], len(users[look])
                row: dict[str, Any] = {"arm": arm, "day": look + 1, "country": country, "n": n}
                for i, v in enumerate(VARIABLES):
                    row[f"{v}_mean"] = now[:, i].mean()
                    row[f"{v}_variance"] = now[:, i].var(ddof=1) if n > 1 else ""
                for i, v in enumerate(VARIABLES):
                    for j, w in enumerate(VARIABLES):
                        before = users[look - 1] if look else np.full_like(now, np.nan)
                        for mark, other in (("", now), ("_previous", before)):
                            if not mark and i >= j:
                                continue
                            value = cov(now, other)[i, j]
                            if kind == "sums":
                                value = (now[:, i] * other[:, j]).sum()
                            name = "sum_product" if kind == "sums" else "covariance"
                            row[f"{v}_{w}{mark}_{name}"] = "" if np.isnan(value) else value
                frame.append(row)
    return pd.DataFrame(frame)


@pytest.mark.parametrize("kind", ["sums", "covariances"])
def test_a_table_of_products_is_read_as_its_users(kind: str) -> None:
    of = from_moments(
        as_rows(exported(kind)), metrics={"x": "x", "r": ("x", "y")}, covariates=["past"]
    )
    cells = moments_of([list(of_arm[:2]) for of_arm in people()])
    expected = cells.together()
    order = [of.variables.index(v) for v in VARIABLES]
    assert (of.looks, of.arms) == (("1", "2", "3"), ("a", "b"))
    assert of.shares == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert of.cells.n[..., order] == pytest.approx(expected.n)
    assert of.cells.mean[..., order] == pytest.approx(expected.mean)
    assert of.cells.cov[..., order, :][..., order] == pytest.approx(expected.cov)
    previous = of.cells.previous[..., order, :][..., order]
    assert previous == pytest.approx(expected.previous, nan_ok=True)
    assert of.cells.twins is None
    assert list(of.groups["country"]) == ["de", "jp"]
    of_de = of.groups["country"]["de"]
    assert of_de.mean[..., order] == pytest.approx(cells.mean[:, -1, 0])
    assert of_de.cov[..., order, :][..., order] == pytest.approx(cells.cov[:, -1, 0])


def pairs(**columns: Any) -> pd.DataFrame:
    """Twins: 5 users in both of two arms."""
    plain = {"arm": ["a", "b"], "n": 5, "x_mean": [1.0, 2.0], "x_variance": [4.0, 9.0]}
    return pd.DataFrame(plain | columns)


def test_products_with_another_arm_make_twins() -> None:
    of = from_moments(as_rows(pairs(x_x_in_b_covariance=[3.0, np.nan])))
    assert of.cells.twins is not None
    assert of.cells.twins[0, 0, 1, 0, 0] == pytest.approx(3.0)
    assert np.isnan(of.cells.twins[1, 0, 0]).all()
    m = of.moments("x", "a", "b")
    assert m is not None
    assert (m.cov, m.paired, m.n_control) == (pytest.approx(0.6), True, 5)
    sums = from_moments(as_rows(pairs(x_x_in_b_sum_product=[5 * 1.0 * 2.0 + 4 * 3.0, np.nan])))
    other = sums.moments("x", "a", "b")
    assert other is not None
    assert other.cov == pytest.approx(0.6)
    # The product of both deviations is 6, and 1e-9 of it is rounding.
    for value, is_fine in ((6.0, True), (6.0 * (1 + 5e-10), True), (6.001, False)):
        for sign in (1.0, -1.0):
            frame = as_rows(pairs(x_x_in_b_covariance=[sign * value, np.nan]))
            if is_fine:
                assert from_moments(frame).paired
                continue
            with pytest.raises(TableError, match="it makes x and x in b correlated beyond 1"):
                from_moments(frame)


def test_a_single_user_has_no_variance_and_two_must_have_one() -> None:
    frame = pairs(n=[1, 2], x_variance=["", 9.0])
    of = from_moments(as_rows(frame))
    assert np.isnan(of.cells.cov[0, 0, 0, 0])
    for n in ([2, 2], [1, 2]):
        bad = pairs(n=n, x_variance=["", 9.0] if n == [2, 2] else [4.0, ""])
        with pytest.raises(TableError, match="two users and more have a variance"):
            from_moments(as_rows(bad))


def test_products_with_the_look_before_need_the_same_users() -> None:
    frame = exported("covariances")
    frame = frame[frame["country"] == "de"].drop(columns="country")
    frame.loc[frame["day"] == 3, "n"] += 1
    with pytest.raises(TableError) as refusal:
        from_moments(as_rows(frame), metrics=["x"])
    assert "products with the look before need the same users at every look" in str(refusal.value)
    assert "count every assigned user from the first look on, with 0 until they come" in str(
        refusal.value
    )


def test_one_metric_a_row_has_counts_of_its_own() -> None:
    frame = pd.DataFrame(
        {
            "arm": ["a", "b", "a", "b"], "metric": ["m", "m", "k", "k"], "n": [5, 6, 3, 4],
            "sum": [10.0, 12.0, 9.0, 8.0], "sum_squares": [30.0, 40.0, 50.0, 60.0],
        }
    )  # fmt: skip
    of = from_moments(as_rows(frame))
    at = [of.variables.index(name) for name in ("m", "k")]
    assert of.cells.n[:, 0][:, at].tolist() == [[5.0, 3.0], [6.0, 4.0]]
    assert of.cells.mean[:, 0][:, at].tolist() == [[2.0, 3.0], [2.0, 2.0]]
    variances = [[(30 - 20) / 4, (50 - 27) / 2], [(40 - 24) / 5, (60 - 16) / 3]]
    for arm in (0, 1):
        found = [of.cells.cov[arm, 0, i, i] for i in at]
        assert found == pytest.approx(variances[arm])
    assert np.isnan(of.cells.cov[0, 0, at[0], at[1]])
    assert of.n_users == {"a": 5, "b": 6}
    m = of.moments("k", "a", "b")
    assert m is not None
    assert (m.n_control, m.n_treatment, m.difference) == (3, 4, pytest.approx(-1.0))
    assert {use.column: use.role for use in of.columns}["metric"] == "metric"
    assert {use.column: use.role for use in of.columns}["sum"] == "moments"
