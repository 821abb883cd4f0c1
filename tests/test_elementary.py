"""Elementary functions: as near to the truth as they say, and the very same bits on every machine
that runs these tests.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from policies import elementary

DRAWS = np.random.default_rng(0)
ANY, SHARE = DRAWS.normal(0, 20, 5000), DRAWS.random(5000)
WIDE = np.exp(DRAWS.normal(0, 100, 5000))


def off(values: np.ndarray, expected: np.ndarray) -> float:
    """The largest error in units of the last place."""
    return float(np.max(np.abs(values - expected) / np.spacing(np.abs(expected))))


def test_a_power_beyond_all_numbers_is_infinite_without_a_word() -> None:
    assert elementary.powers(10.0, 1e308) == math.inf
    assert elementary.powers([0.0, 0.0, 2.0], [0.0, 2.0, 0.0]).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("values", "expected", "most"),
    [
        (elementary.exps(ANY), [math.exp(x) for x in ANY], 1),
        (elementary.exp2s(ANY), [2.0**x for x in ANY], 2),
        (elementary.logs(WIDE), [math.log(x) for x in WIDE], 1),
        (elementary.logs(SHARE), [math.log(x) for x in SHARE], 1),
        (elementary.logs2(SHARE), [math.log2(x) for x in SHARE], 2),
        (elementary.logs1p(-SHARE), [math.log1p(-x) for x in SHARE], 2),
        (elementary.logs1p(1e-9 * ANY), [math.log1p(1e-9 * x) for x in ANY], 2),
        (elementary.powers(SHARE, 0.7), [x**0.7 for x in SHARE], 10),
        (elementary.normal_quantiles(SHARE), special.ndtri(SHARE), 20),
        (
            elementary.normal_quantiles(1e-300 + 1e-9 * SHARE),
            special.ndtri(1e-300 + 1e-9 * SHARE),
            20,
        ),
    ],
    ids=[
        "exp",
        "exp2",
        "log",
        "log-share",
        "log2",
        "log1p",
        "log1p-small",
        "power",
        "normal",
        "normal-tail",
    ],
)
def test_values_are_as_near_as_they_say(
    values: np.ndarray, expected: np.ndarray, most: int
) -> None:
    assert off(values, np.array(expected)) <= most


def circles(turns: np.ndarray) -> np.ndarray:
    return np.array([elementary.circle(x) for x in turns])


def tanhs(x: np.ndarray) -> np.ndarray:
    return np.array([elementary.tanh(each) for each in x])


def test_what_may_be_0_is_off_by_so_much_at_most() -> None:
    assert np.abs(tanhs(ANY / 20) - np.tanh(ANY / 20)).max() <= 2.0**-52
    angle = 2 * np.pi * SHARE
    assert (
        np.abs(circles(SHARE) - np.stack([np.cos(angle), np.sin(angle)], axis=1)).max() < 2e-15
    )  # the angle itself is off by 9e-16
    shapes = SHARE * 50
    assert np.abs([elementary.log_gamma(a) for a in shapes] - special.gammaln(shapes)).max() < 1e-13


@pytest.mark.parametrize("shape", [0.05, 0.5, 1.0, 1.6, 9.0, 300.0])
def test_a_gamma_quantile_is_where_the_probability_is_reached(shape: float) -> None:
    x = elementary.gamma_quantiles(shape, SHARE)
    np.testing.assert_allclose(
        special.gammainc(shape, x), SHARE, rtol=0, atol=1e-15 * (10 + shape * math.log(shape + 2))
    )
    np.testing.assert_allclose(x, special.gammaincinv(shape, SHARE), rtol=1e-8)
    assert elementary.gamma_quantile(shape, 0.0) == 0.0
    assert elementary.gamma_quantile(shape, 1.0) == math.inf


def test_a_gamma_quantile_of_any_shape_comes_at_once() -> None:
    np.testing.assert_allclose(
        elementary.gamma_quantiles(2e6, SHARE), special.gammaincinv(2e6, SHARE), rtol=1e-9
    )
    assert elementary.gamma_quantile(1e308, 0.3) == pytest.approx(1e308)
    assert elementary.gamma_quantile(1e-300, 0.3) == 0.0


def test_the_ends_of_the_line() -> None:
    exp, log = elementary.exp, elementary.log
    assert [exp(x) for x in (-math.inf, -1e9, -745.0, 0.0)] == [0.0, 0.0, 5e-324, 1.0]
    assert [exp(x) for x in (709.0, 710.0, math.inf)] == [8.218407461554972e307, math.inf, math.inf]
    assert [log(x) for x in (0.0, 1.0, 5e-324, math.inf)] == [
        -math.inf,
        0.0,
        math.log(5e-324),
        math.inf,
    ]
    assert [elementary.exp2(float(k)) for k in (-1074, -1, 0, 10, 1023)] == [
        2.0**k for k in (-1074, -1, 0, 10, 1023)
    ]
    assert [elementary.log2(2.0**k) for k in (-1074, -1, 0, 10, 1023)] == [-1074, -1, 0, 10, 1023]
    assert [elementary.normal_quantile(p) for p in (0.0, 0.5, 1.0)] == [-math.inf, 0.0, math.inf]
    assert elementary.log1p(-1.0) == -math.inf
    assert elementary.power(0.0, 2.0) == 0.0
    assert elementary.power(5.0, 0.0) == 1.0
    assert elementary.circle(0.25) == (0.0, 1.0)
    assert math.isnan(elementary.circle(math.nan)[0])
    for function in (
        exp,
        log,
        elementary.exp2,
        elementary.log2,
        elementary.log1p,
        elementary.tanh,
        elementary.normal_quantile,
    ):
        assert math.isnan(function(math.nan)), function
    for function in (log, elementary.log2, elementary.normal_quantile):
        assert math.isnan(function(-1.0)), function


@pytest.mark.parametrize("extreme", [(), (-720.0, 5e-324, math.inf), (800.0, -1.0, math.nan)])
@pytest.mark.parametrize("n", [0, 1, 7, 5000])
def test_columns_have_the_bits_of_the_scalars(n: int, extreme: tuple[float, ...]) -> None:
    def same(column: np.ndarray, scalar: Callable[[float], float], *given: np.ndarray) -> None:
        expected = np.array([scalar(float(x)) for x in given[0][:n]])
        assert column[:n].tobytes() == expected.tobytes()
        assert column[n:].tobytes() == given[0][n:].tobytes()  # beyond n nothing is touched

    for values in (ANY, WIDE, SHARE):
        x = np.concatenate((extreme, values))
        with np.errstate(invalid="ignore"):
            logarithms, powers = np.abs(x), np.abs(x)
        exponentials, tangents = x.copy(), x.copy()
        elementary.exp_all(exponentials, n)
        same(exponentials, elementary.exp, x)
        elementary.log_all(logarithms, n)
        same(logarithms, elementary.log, np.abs(x))
        elementary.power_all(powers, 0.7, n)
        same(powers, lambda value: elementary.power(value, 0.7), np.abs(x))
        elementary.tanh_all(tangents, n, np.empty_like(x))
        same(tangents, elementary.tanh, x)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (elementary.exps, "f7039c4c0739445f"),
        (elementary.exp2s, "a77ed95862642c25"),
        (lambda x: elementary.logs(np.abs(x)), "87db4f4c1fb61665"),
        (lambda x: elementary.logs2(np.abs(x)), "f3df27ae5e211157"),
        (lambda x: elementary.logs1p(np.abs(x)), "c1457368c479cc4c"),
        (lambda x: elementary.powers(np.abs(x), 1.6), "51568cce68d079bb"),
        (tanhs, "0f142d32fd013123"),
        (circles, "3efce117237cf501"),
        (lambda x: elementary.normal_quantiles(np.abs(x) / 50), "06135c555af63abe"),
        (lambda x: elementary.gamma_quantiles(1.6, np.abs(x) / 50), "6a3de18777117422"),
    ],
    ids=["exp", "exp2", "log", "log2", "log1p", "power", "tanh", "circle", "normal", "gamma"],
)
def test_the_bits_are_those_of_every_other_machine(
    function: Callable[[np.ndarray], np.ndarray], expected: str
) -> None:
    grid = np.arange(-4999, 4999, 2) / 128.0  # exact numbers, none of them 0
    assert hashlib.sha256(function(grid).tobytes()).hexdigest()[:16] == expected
