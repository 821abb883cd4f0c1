"""Boundaries by the numbers that they must spend, and the parts of their integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from simulator.stats import spending
from simulator.stats.spending import boundaries, crossing, first_crossings, spent

FIFTHS = [0.2, 0.4, 0.6, 0.8, 1.0]


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_what_is_spent_is_that_of_the_two_functions(alpha: float) -> None:
    t = np.array([0.1, 0.5, 1.0])
    pocock = alpha / 2 * np.log(1 + (math.e - 1) * t)
    assert spent("pocock", t, alpha) == pytest.approx(pocock, rel=1e-13)
    z = stats.norm.ppf(1 - alpha / 4)
    assert spent("obrien-fleming", t, alpha) == pytest.approx(2 * stats.norm.sf(z / np.sqrt(t)))
    assert spent("pocock", 1.0) == spent("pocock", 1.0, 0.05)
    assert spent("obrien-fleming", 1.0) == spent("obrien-fleming", 1.0, 0.05)


def two_looks(c: float, d: float, share: float) -> tuple[float, float]:
    """One-sided chances to cross first at c, then at d, of looks with this share of information:
    scipy's bivariate normal.
    """
    r = math.sqrt(share)
    law = stats.multivariate_normal([0, 0], [[1, r], [r, 1]])

    def box(a: float, b: float) -> float:
        return float(law.cdf([a, b], lower_limit=[-a, -b]))

    inside = box(c, d)
    return stats.norm.sf(c), (2 * stats.norm.cdf(c) - 1 - inside) / 2


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.985])
def test_chances_of_two_looks_are_those_of_the_bivariate_normal(share: float) -> None:
    for c, d in ((2.5, 2.0), (1.0, 2.2), (3.0, 1.0), (9.5, 1.96)):
        found = crossing([c, d], [share, 1.0])
        assert found == pytest.approx(2 * np.array(two_looks(c, d, share)), abs=2e-6)


@pytest.mark.parametrize("shape", ["obrien-fleming", "pocock"])
@pytest.mark.parametrize(
    "information",
    [FIFTHS, [0.05, 0.06, 0.5, 0.98, 1.0], [0.001, 0.01, 0.1, 0.3, 1.0]],
    ids=["even", "in steps", "by leaps"],
)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_boundaries_spend_at_each_look_what_they_may(
    shape: str, information: list[float], alpha: float
) -> None:
    share = [0.1, 0.35, 0.5, 0.9, 1.0]
    bounds = boundaries(shape, share, information, alpha)  # type: ignore[arg-type]
    wished = np.diff(spent(shape, np.array(share), alpha), prepend=0.0)  # type: ignore[arg-type]
    assert crossing(bounds.tolist(), information) == pytest.approx(2 * wished, abs=1e-8)
    same = boundaries(shape, share, alpha=alpha)  # type: ignore[arg-type]
    assert same.tolist() == boundaries(shape, share, share, alpha).tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize("information", [FIFTHS, [0.02, 0.1, 0.12, 0.9, 1.0], [0.5, 0.52, 0.54, 1]])
def test_boundaries_are_right_to_1e_7(
    information: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a rule of 300 nodes for each look."""
    looks = len(information)
    share = np.arange(1, looks + 1) / looks
    for shape in ("obrien-fleming", "pocock"):
        found = boundaries(shape, share, information)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            x, w = np.polynomial.legendre.leggauss(300)
            patch.setattr(spending, "_NODE", (x[None] + 1) / 2)
            patch.setattr(spending, "_WEIGHT", w[None] / 2)
            patch.setattr(spending, "_COUNT", np.array([300]))
            exact = boundaries(shape, share, information)  # type: ignore[arg-type]
        assert found == pytest.approx(exact, abs=1e-7)
        assert (found != exact).any()


def test_looks_that_add_less_than_a_hundredth_are_none_and_leave_their_error_to_the_next() -> None:
    share = [0.25, 0.5, 0.75, 1.0]
    for growth, is_new in ((1.0099, False), (1.0101, True)):
        information = [0.4, 0.4 * growth, 0.7, 1.0]
        bounds = boundaries("pocock", share, information)
        assert (bounds[1] != bounds[0]) is np.bool_(is_new)
        chances = crossing(bounds.tolist(), information)
        wished = 2 * np.diff(spent("pocock", np.array(share)), prepend=0.0)
        if not is_new:
            wished[1], wished[2] = 0.0, wished[1] + wished[2]
        assert chances == pytest.approx(wished, abs=1e-8)
    # Nothing new at the end: there is no further look, and what is left is not spent.
    last = boundaries("pocock", share, [0.4, 0.6, 0.6, 0.6])
    assert last[2] == last[3] == last[1]
    assert crossing(last.tolist(), [0.4, 0.6, 0.6, 0.6])[2:].tolist() == [0.0, 0.0]


def test_a_look_that_may_spend_nothing_has_a_boundary_that_nothing_crosses() -> None:
    bounds = boundaries("obrien-fleming", [1e-4, 0.5, 1.0])
    assert bounds[0] == pytest.approx(spending.HIGHEST, abs=1e-6)
    assert bounds[1:] == pytest.approx(boundaries("obrien-fleming", [0.5, 1.0]), abs=1e-7)


def test_a_bound_is_where_the_next_z_exceeds_it_with_the_given_chance() -> None:
    """Of a start at 0 alone: the normal quantile, from any guess; of two nodes by the mixture."""
    zero, half = np.zeros(4), np.array([0.5, 0.0, 0.0, 0.0])
    for error in (0.4, 0.025, 1e-9):
        for guess in (0.1, 2.5, 30.0):
            found = spending._bound(guess, error, 0.0, 1.0, zero, half, 1)
            assert found == pytest.approx(stats.norm.isf(error), abs=1e-8)
    z, mass = np.array([0.3, 1.2]), np.array([0.2, 0.15])
    kept, spread, c = 0.8, 0.6, 1.7
    parts = [(c + side * kept * x) / spread for x in z for side in (-1, 1)]
    weight = np.repeat(mass, 2)
    tail, density = spending._exceeds(c, kept, spread, z, mass, 2)
    assert tail == pytest.approx(float((weight * stats.norm.sf(parts)).sum()))
    assert density == pytest.approx(float((weight * stats.norm.pdf(parts)).sum()) / spread)
    assert spending._bound(0.5, tail, kept, spread, z, mass, 2) == pytest.approx(c, abs=1e-8)
    assert spending._exceeds(c, kept, spread, z, mass, 1)[0] < tail


def test_first_crossings_are_those_of_each_tests_own_boundaries() -> None:
    share = np.array([0.25, 0.5, 0.75, 1.0])
    bounds = boundaries("pocock", share.tolist())
    none, nan = np.full(4, 0.5), np.nan
    rows = [none]
    for look in range(4):
        for factor in (1 - 1e-6, 1 + 1e-6):
            row = none.copy()
            row[look] = -bounds[look] * factor
            rows.append(row)
    rows += [np.full(4, 9.0), np.full(4, nan), np.array([nan, 9.0, nan, nan])]
    z = np.array(rows)
    full = np.broadcast_to(share, z.shape)
    found = first_crossings("pocock", z, full, full)
    assert found.tolist() == [-1, -1, 0, -1, 1, -1, 2, -1, 3, 0, -1, 1]
    assert first_crossings("pocock", np.full((2, 4), nan), full[:2], full[:2]).tolist() == [-1, -1]


def test_what_is_spent_by_the_last_new_look_is_told_look_by_look() -> None:
    known = np.array([[True, True, False, True], [False, True, True, True]])
    information = np.array([[0.4, 0.402, np.nan, 1.0], [np.nan, 0.2, 0.2021, 0.203]])
    total = np.array([[0.1, 0.2, np.nan, 0.5], [np.nan, 0.3, 0.4, 0.6]])
    used, added = spending._of_last_new_look(known, information, total)
    assert used == pytest.approx(np.array([[0.1, 0.1, 0.1, 0.5], [0.0, 0.3, 0.4, 0.4]]))
    assert added == pytest.approx(np.array([[0.1, 0.1, 0.1, 0.4], [0.0, 0.3, 0.1, 0.1]]))


@pytest.mark.parametrize("shape", ["obrien-fleming", "pocock"])
def test_a_boundary_spends_its_error_to_the_last_digits(shape: spending.Shape) -> None:
    """Also where a step of Newton's method hits the root, as it does for some of these."""
    random = np.random.default_rng(0)
    for looks in (2, 5):
        share = np.arange(1, looks + 1) / looks
        for _ in range(50):
            clock = np.sort(random.uniform(0.1, 1.0, looks))
            clock = np.append(clock[:-1], 1.0)
            if (np.diff(np.log(clock)) < spending.STILL).any():
                continue
            bounds = boundaries(shape, share.tolist(), clock.tolist())
            error = 2.0 * np.diff(np.asarray(spent(shape, share)), prepend=0.0)
            found = crossing(bounds.tolist(), clock.tolist())
            np.testing.assert_allclose(found, error, 1e-12)
