"""Sequential boundaries against published tables, against simulation, and against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from policies.elementary import normal_tail
from simulator.stats import sequential, spending, units
from simulator.stats.moments import linearised
from simulator.stats.user_days import UserDays
from tests.worlds import paired_log

FIFTHS = [0.2, 0.4, 0.6, 0.8, 1.0]


def exit_probability(bounds: Sequence[float], informations: Sequence[float]) -> float:
    """The chance that |Z| crosses one of `bounds` at the given `informations`, without an
    effect.
    """
    return float(spending.crossing(bounds, informations).sum())


def test_spending_boundaries_match_the_published_tables() -> None:
    """Five equal looks, two-sided 5% (2.5% a side): the tables of the programs of Reboussin,
    DeMets, Kim & Lan (1992, 2000).
    """
    assert spending.boundaries("obrien-fleming", FIFTHS) == pytest.approx(
        [4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4
    )
    assert spending.boundaries("pocock", FIFTHS) == pytest.approx(
        [2.4380, 2.4268, 2.4101, 2.3966, 2.3859], abs=2e-4
    )


@pytest.mark.parametrize(
    ("looks", "pocock", "obrien_fleming"),
    [
        (2, 2.178, 1.977),
        (3, 2.289, 2.004),
        (4, 2.361, 2.024),
        (5, 2.413, 2.040),
        (10, 2.555, 2.087),
    ],
)
def test_integration_gives_the_classical_constants(
    looks: int, pocock: float, obrien_fleming: float
) -> None:
    """Jennison & Turnbull (2000), tables 2.1 and 2.3, two-sided 5%: bounds C and C sqrt(K / k) are
    crossed with probability .05.
    """
    times = [(k + 1) / looks for k in range(looks)]
    half = 0.0005
    for bounds in (
        [[c] * looks for c in (pocock - half, pocock + half)],
        [[c / np.sqrt(t) for t in times] for c in (obrien_fleming - half, obrien_fleming + half)],
    ):
        above, below = (exit_probability(b, times) for b in bounds)
        assert below < 0.05 < above


def test_five_unadjusted_looks_reject_14_percent() -> None:
    assert exit_probability([1.959964] * 5, FIFTHS) == pytest.approx(0.142, abs=5e-4)


def test_one_look_is_the_fixed_test() -> None:
    assert spending.boundaries("pocock", [1.0]) == pytest.approx([1.959964], abs=1e-6)
    assert spending.boundaries("obrien-fleming", [1.0]) == pytest.approx([1.959964], abs=1e-6)


def test_spending_ends_at_alpha() -> None:
    for shape in ("obrien-fleming", "pocock"):
        assert spending.spent(shape, 1.0) == pytest.approx(0.025)  # type: ignore[arg-type]
        uneven, clock = [0.3, 0.5, 1.0], [1.0, 4.0, 5.0]
        bounds = spending.boundaries(shape, uneven, clock)  # type: ignore[arg-type]
        assert exit_probability(bounds.tolist(), clock) == pytest.approx(0.05, abs=1e-6)


DAYS = {
    "independent": lambda rng, n, looks: rng.normal(size=(n, looks)),
    "alike": lambda rng, n, looks: rng.normal(size=(n, 1)) + rng.normal(size=(n, looks)),
    "made up for": (
        lambda rng, n, looks: (
            np.diff(rng.normal(size=(n, looks + 1)), axis=1) + 0.4 * rng.normal(size=(n, looks))
        )
    ),
    "ever louder": lambda rng, n, looks: rng.normal(size=(n, looks)) * np.arange(1, looks + 1),
}
"""How a user's days go together: what one day has too much the next has too little ("made up for"),
differences grow ("ever louder").
"""


@pytest.mark.parametrize("kind", DAYS)
def test_looking_every_day_is_honest(kind: str) -> None:
    """6,000 A/A tests of 400 users, 8 looks; the clock is that of one further sample."""
    rng = np.random.default_rng(0)
    looks, n, tests = 8, 400, 6000
    crossed = dict.fromkeys(("always", "obrien-fleming", "pocock", "fixed"), 0)
    share = (np.arange(1, looks + 1) / looks).tolist()
    r = np.corrcoef(np.cumsum(DAYS[kind](rng, 20 * n, looks), axis=1).T)
    information = sequential.clock(np.diagonal(r, 1))
    bounds = {
        s: spending.boundaries(s, share, information.tolist()) for s in ("obrien-fleming", "pocock")
    }  # type: ignore[arg-type]
    bounds |= {
        "always": sequential.mixture_boundary(information, 1.0),
        "fixed": np.full(looks, 1.96),
    }
    for _ in range(tests):
        x = np.cumsum(DAYS[kind](rng, n, looks), axis=1)
        z = x.mean(axis=0) / (x.std(axis=0, ddof=1) / np.sqrt(n))
        for name, bound in bounds.items():
            crossed[name] += bool((np.abs(z) > bound).any())
    rate = {name: count / tests for name, count in crossed.items()}
    error = 3.5 * np.sqrt(0.05 * 0.95 / tests)
    assert rate["obrien-fleming"] == pytest.approx(0.05, abs=error)
    assert rate["pocock"] == pytest.approx(0.05, abs=error)
    assert rate["always"] < 0.05
    assert rate["fixed"] > 0.08


def test_the_clock_of_equal_independent_days_is_their_number() -> None:
    r = np.sqrt(np.arange(1, 5) / np.arange(2, 6))
    assert sequential.clock(r) == pytest.approx(np.arange(1, 6) / 5)
    assert sequential.clock(np.array([1.0, 0.5])).tolist() == [0.25, 0.25, 1.0]


def test_correlations_of_looks_are_those_of_the_users_totals() -> None:
    days = units.read(paired_log(), ("click", "click_rate"))
    tables = [days.by("user", until=d) for d in range(1, 6)]
    a, b = (np.cumsum(days.terms["click"][arm], axis=1) for arm in (0, 1))
    twins = np.corrcoef((b - a).T)
    assert sequential.successive(tables, "click", "a", "b") == pytest.approx(np.diagonal(twins, 1))
    heads = np.arange(400) % 2
    chosen = heads, np.arange(400)
    split = [
        replace(
            t, numerators={"click": t.numerators["click"][chosen]}, denominators={}, assigned=heads
        )
        for t in tables
    ]
    cov = np.cov(a[::2].T) + np.cov(b[1::2].T)
    correlation = cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    assert sequential.successive(split, "click", "a", "b") == pytest.approx(
        np.diagonal(correlation, 1)
    )
    values = [[linearised(*t.sums("click_rate", arm)) for t in tables] for arm in ("a", "b")]  # type: ignore[arg-type]
    assert sequential.successive(tables, "click_rate", "a", "b") == pytest.approx(
        np.diagonal(np.corrcoef(np.subtract(*values)), 1)
    )


def test_always_valid_p_crosses_with_its_boundary() -> None:
    information = np.array([1.0, 2.0, 3.0])
    bound = sequential.mixture_boundary(information, 3.0)
    for k in range(3):
        for scale, below in ((0.999, False), (1.001, True)):
            z = np.zeros(3)
            z[k] = bound[k] * scale
            assert (sequential.always_valid_p(z, information, 3.0)[-1] < 0.05) == below


def test_the_mixture_boundary_is_where_the_integrated_likelihood_ratio_is_one_over_alpha() -> None:
    """The likelihood ratio of drift theta against 0, exp(theta S - theta^2 I / 2), averaged by
    scipy over theta ~ N(0, 1 / r).
    """
    for information, planned, alpha in ((0.3, 1.0, 0.05), (1.0, 1.0, 0.05), (4.0, 2.0, 0.01)):
        r = planned / (-2 * np.log(alpha) + np.log1p(-2 * np.log(alpha)))
        s = float(sequential.mixture_boundary(information, planned, alpha)) * np.sqrt(information)

        def ratio(x: float, s: float, information: float, r: float) -> float:
            return np.exp(x * s - x**2 * information / 2) * norm.pdf(x, scale=r**-0.5)

        found, _ = quad(ratio, -60, 60, args=(s, information, r), points=[s / information])
        assert found == pytest.approx(1 / alpha, rel=1e-6)


def test_peeks_of_a_log() -> None:
    days = units.read(paired_log(), ("click", "click_rate", "like", "return"))
    found = {p.metric: p for p in sequential.peeks(days, "a")}
    assert set(found) == {"click", "click_rate", "return"}
    click = found["click"]
    assert len(click.looks) == 5
    for look in click.looks:
        assert look.sequence_low < look.low < look.lift < look.high < look.sequence_high
        assert (abs(look.t) > look.always_valid) == (
            look.sequence_low > 0 or look.sequence_high < 0
        )
    assert all(
        later.p <= earlier.p for earlier, later in zip(click.looks, click.looks[1:], strict=False)
    )
    for rule in ("always_valid", "obrien_fleming", "pocock"):
        day = click.stop(rule)  # type: ignore[arg-type]
        assert day is None or abs(click.looks[day - 1].t) > getattr(click.looks[day - 1], rule)
    assert click.stop("pocock") is not None


def test_identical_arms_never_stop() -> None:
    days = units.read(paired_log(), ("click",))
    alike: UserDays = replace(days, terms={n: v[[0, 0]] for n, v in days.terms.items()})
    (only,) = sequential.peeks(alike, "a")
    assert only.stop("pocock") is None
    assert {look.lift for look in only.looks} == {0.0}
    assert {look.sequence_high for look in only.looks} == {0.0}


def test_a_day_that_adds_nothing_is_no_new_look() -> None:
    plain = spending.boundaries("pocock", [1 / 4, 3 / 4, 1.0], [1.0, 2.0, 3.0])
    still = spending.boundaries("pocock", [1 / 4, 2 / 4, 3 / 4, 1.0], [1.0, 1.0, 2.0, 3.0])
    assert still[1] == still[0]
    assert still[[0, 2, 3]] == pytest.approx(plain, abs=1e-9), (
        "the error of the empty day is spent on the next one"
    )


def test_a_single_look_has_all_the_information() -> None:
    """The only look of a test, or the only one with a variance: nothing came before it."""
    assert sequential.clock(np.zeros(0)).tolist() == [1.0]
    assert sequential.clock(np.zeros((3, 0))).tolist() == [[1.0]] * 3


def test_thousands_of_series_stop_where_each_alone_does() -> None:
    """With looks that say nothing, days without anything new, and information of any pace."""
    rng = np.random.default_rng(5)
    n, looks = 400, 12
    z = np.cumsum(rng.normal(0.15, 1.0, (n, looks)), axis=1) / np.sqrt(np.arange(1, looks + 1))
    information = np.cumsum(rng.gamma(0.5, 1.0, (n, looks)) + 1e-4, axis=1)
    information /= information[:, -1:]
    z[rng.random(z.shape) < 0.1] = np.nan
    share = np.broadcast_to(np.arange(1, looks + 1) / looks, z.shape)
    for shape in ("obrien-fleming", "pocock"):
        found = spending.first_crossings(shape, z, share, information)  # type: ignore[arg-type]
        assert 0.05 < (found >= 0).mean() < 0.4
        for row, first in enumerate(found):
            known = np.flatnonzero(np.isfinite(z[row]))
            bounds = spending.boundaries(  # type: ignore[arg-type]
                shape, share[row, known].tolist(), information[row, known].tolist()
            )
            beyond = known[np.abs(z[row, known]) > bounds]
            assert first == (beyond[0] if len(beyond) else -1)


def test_the_normal_tail_is_scipys_from_far_below_to_far_out() -> None:
    x = np.linspace(-9.0, 37.0, 2001)
    ours = np.array([normal_tail(one) for one in x])
    assert ours == pytest.approx(norm.sf(x), rel=1e-12)
