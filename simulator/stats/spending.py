"""Alpha spending: how much error a look may use, and the boundaries of |Z| that use it, of one test
or of thousands at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from policies.elementary import exp, log, logs1p, normal_tail
from policies.jit import njit
from simulator.stats.moments import Floats, Number
from simulator.stats.quadrature import legendre

Shape = Literal["obrien-fleming", "pocock"]

ALPHA = 0.05

STILL = 0.01
"""Relative growth of information below which a look is no new one (and the integral from look to
look too steep for the nodes).
"""

NODES = (12, 16, 24, 32, 48, 64, 96, 128)
"""Numbers of Gauss-Legendre nodes of half a continuation region, from which each look takes what it
needs.
"""

LEAST_NODES, PER_SPREAD = 6.0, 1.3
"""Nodes of a look: so many, and for each standard deviation of the steepest step that half a region
is wide. With these boundaries are right to 1e-7 (tests/test_stats_sequential.py).
"""

NEGLIGIBLE = 30.0
"""Parts of a chance that are e to the minus this smaller than the error of a look are left out."""

FAR, HIGHEST = 9.0, 38.0
"""Beyond this |Z| there is nothing to integrate, and a boundary that nothing crosses."""

CLOSE = 1e-10
"""A step of Newton's method below which a boundary is found: what is left is the square of it."""

_RULES = [legendre(n) for n in NODES]
_NODE, _WEIGHT = (np.zeros((len(NODES), NODES[-1])) for _ in range(2))
for _i, (_x, _w) in enumerate(_RULES):
    _NODE[_i, : len(_x)], _WEIGHT[_i, : len(_w)] = (_x + 1.0) / 2.0, _w / 2.0
_COUNT = np.array(NODES)


def spent(shape: Shape, fraction: Number, alpha: float = ALPHA) -> Number:
    """One-sided error spent by a `fraction` of the test, two-sided level `alpha` (Lan & DeMets,
    Biometrika 1983).

    O'Brien-Fleming like: 2 - 2 Phi(z / sqrt(t)), Pocock like: a log(1 + (e - 1) t), each with a =
    alpha / 2 a side.
    """
    from scipy.special import ndtr, ndtri

    a = alpha / 2.0
    if shape == "pocock":
        return a * logs1p((np.e - 1.0) * np.asarray(fraction, dtype=np.float64))
    return 2.0 * ndtr(ndtri(a / 2.0) / np.sqrt(fraction))


def boundaries(
    shape: Shape,
    fractions: Sequence[float],
    informations: Sequence[float] | None = None,
    alpha: float = ALPHA,
) -> Floats:
    """Two-sided boundaries of |Z| at each look by alpha spending.

    Args:
        shape: spending function.
        fractions: share of the planned test at each look, increasing, at most 1: how much error is
            spent.
        informations: information at each look (`sequential.clock`), increasing: how Z at the looks
            is correlated; the fractions if left out.
        alpha: two-sided level.

    Returns:
        `[looks]`, by recursive numerical integration (Armitage, McPherson & Rowe 1969; Jennison &
        Turnbull 2000, chapter 19).
    """
    share = np.asarray(fractions, dtype=np.float64)
    clock = share if informations is None else np.asarray(informations, dtype=np.float64)
    bounds = np.empty(len(share))
    budget = np.diff(np.asarray(spent(shape, share, alpha)), prepend=0.0)
    _integrate(clock, budget, bounds, bounds, False, _NODE, _WEIGHT, _COUNT)
    return bounds


def crossing(bounds: Sequence[float], informations: Sequence[float]) -> Floats:
    """The chance `[looks]` that |Z| first crosses one of the `bounds` at each look, without an
    effect.
    """
    bound = np.asarray(bounds, dtype=np.float64)
    chances = np.empty(len(bound))
    clock = np.asarray(informations, dtype=np.float64)
    _integrate(clock, chances, bound, bound, True, _NODE, _WEIGHT, _COUNT)
    return 2.0 * chances


def first_crossings(
    shape: Shape, z: Floats, fractions: Floats, informations: Floats
) -> npt.NDArray[np.int64]:
    """The first look at which |Z| is at or beyond its boundary, of many tests at once; -1 where
    none is. The same as by `boundaries` of each.

    A boundary lies between two that need no integration: it is crossed no more often than its look
    may add to the error, and no less often than all looks so far may, were they one. Most tests
    stay below the lower of these at every look, or leave the upper one at once; only of the others
    the boundaries are computed, up to the look that decides.

    Args:
        shape: spending function.
        z: `[tests, looks]`; NaN where a look says nothing: it is none.
        fractions: `[tests, looks]` share of the planned test.
        informations: `[tests, looks]`, rising to 1.
    """
    from scipy.special import ndtri

    known = np.isfinite(z)
    total = np.asarray(spent(shape, np.where(known, fractions, 1.0)))
    total = np.where(known, total, np.nan)
    used, added = _of_last_new_look(known, np.where(known, informations, np.nan), total)
    size = np.where(known, np.abs(z), 0.0)
    low, high = (np.where(known, -ndtri(error), np.inf) for error in (used, added))
    # What is within 1e-9 of a bound is walked through, too: both are right to less.
    may, must = size > low - 1e-9, size > high + 1e-9
    first = np.full(len(z), -1)
    for row in np.flatnonzero(may.any(axis=1)):
        look = int(may[row].argmax())
        if must[row, look]:
            first[row] = look
            continue
        sure = int(must[row].argmax()) if must[row].any() else int(np.flatnonzero(may[row])[-1])
        here = np.flatnonzero(known[row, : sure + 1])
        bounds, budget = np.empty(len(here)), np.diff(total[row, here], prepend=0.0)
        _integrate(
            informations[row, here], budget, bounds, size[row, here], False, _NODE, _WEIGHT, _COUNT
        )
        crossed = np.flatnonzero(size[row, here] > bounds)
        first[row] = here[crossed[0]] if len(crossed) else -1
    return first


def _of_last_new_look(
    known: npt.NDArray[np.bool_], informations: Floats, total: Floats
) -> tuple[Floats, Floats]:
    """The error that is spent, and what of it was added, by the last look so far that knew
    something new `[tests, looks]`.
    """
    used, added = (np.full(known.shape, np.nan) for _ in range(2))
    reached, so_far, more = np.full(len(known), -np.inf), *np.zeros((2, len(known)))
    for look in range(known.shape[1]):
        is_new = known[:, look] & ~(informations[:, look] < reached * (1.0 + STILL))
        more = np.where(is_new, total[:, look] - so_far, more)
        so_far = np.where(is_new, total[:, look], so_far)
        reached = np.where(is_new, informations[:, look], reached)
        used[:, look], added[:, look] = so_far, more
    return used, added


@njit()
def _integrate(
    clock: Floats,
    error: Floats,
    bounds: Floats,
    size: Floats,
    given: bool,
    node: Floats,
    weight: Floats,
    count: npt.NDArray[np.int64],
) -> None:
    """Z from look to look among the tests that go on, whose density is symmetric about 0 and kept
    at nodes of its upper half.

    Args:
        clock: information `[looks]`.
        error: `[looks]` one-sided error that each look may add; where bounds are `given` it is
            filled in.
        bounds: `[looks]`, filled in unless `given`.
        size: `[looks]` |Z|: nothing is computed after the first look that it crosses (`bounds`
            itself: to the end).
        node, weight, count: rules of `NODES` on (0, 1).
    """
    looks = len(clock)
    m, guess = 1, 2.5
    z, mass, new_mass = np.zeros(node.shape[1]), np.zeros(node.shape[1]), np.zeros(node.shape[1])
    mass[0] = 0.5
    before, left, all_error = 0.0, 0.0, 0.0
    for look in range(looks):
        if look > 0 and clock[look] < before * (1.0 + STILL):
            # Nothing new is known: no new look, its error is spent at the next one.
            if given:
                error[look] = 0.0
            else:
                bounds[look] = bounds[look - 1]
                left += error[look]
            continue
        kept = math.sqrt(before / clock[look])
        spread = math.sqrt(1.0 - before / clock[look])
        if given:
            error[look] = _exceeds(bounds[look], kept, spread, z, mass, m)[0]
        else:
            left += error[look]
            guess = _bound(guess, left, kept, spread, z, mass, m)
            bounds[look] = guess
            left = 0.0
            if size is not bounds and size[look] > bounds[look]:
                for rest in range(look + 1, looks):
                    bounds[rest] = np.inf
                return
        all_error += error[look]
        before_that, before = before, clock[look]
        # What is integrated over this look's Z next is as steep as this step, or as the next one.
        following = look + 1
        while following < looks and clock[following] < before * (1.0 + STILL):
            following += 1
        if following == looks:
            for rest in range(look + 1, looks):
                if given:
                    error[rest] = 0.0
                else:
                    bounds[rest] = bounds[look]
            return
        share = before / clock[following]
        steepest = min(spread if before_that > 0.0 else 1.0, math.sqrt(1.0 / share - 1.0))
        reach = min(bounds[look], FAR)
        wanted = LEAST_NODES + PER_SPREAD * reach / steepest
        rule = 0
        while rule < len(count) - 1 and count[rule] < wanted:
            rule += 1
        n = count[rule]
        furthest = 2.0 * (NEGLIGIBLE - log(max(all_error, 1e-300)))
        scale = 1.0 / (spread * math.sqrt(2.0 * math.pi))
        for j in range(n):
            at = reach * node[rule, j]
            total = 0.0
            for i in range(m):
                near, far = (at - kept * z[i]) / spread, (at + kept * z[i]) / spread
                total += mass[i] * (_bell(near, furthest) + _bell(far, furthest))
            new_mass[j] = reach * weight[rule, j] * scale * total
        for j in range(n):
            z[j], mass[j] = reach * node[rule, j], new_mass[j]
        m = n


@njit()
def _bell(x: float, furthest: float) -> float:
    square = x * x
    return exp(-0.5 * square) if square < furthest else 0.0


@njit()
def _exceeds(
    c: float, kept: float, spread: float, z: Floats, mass: Floats, m: int
) -> tuple[float, float]:
    """The one-sided chance that the next Z exceeds c, and its density there."""
    tail = density = 0.0
    for i in range(m):
        near, far = (c - kept * z[i]) / spread, (c + kept * z[i]) / spread
        tail += mass[i] * normal_tail(near)
        density += mass[i] * exp(-0.5 * near * near)
        if far * far - near * near < 2.0 * NEGLIGIBLE:
            tail += mass[i] * normal_tail(far)
            density += mass[i] * exp(-0.5 * far * far)
    return tail, density / (spread * math.sqrt(2.0 * math.pi))


@njit()
def _bound(
    c: float, error: float, kept: float, spread: float, z: Floats, mass: Floats, m: int
) -> float:
    """The bound that the next Z exceeds with chance `error`, from a guess `c`, by Newton's method
    on the logarithm, kept between what is known to be too little and too much.
    """
    low, high = 0.0, HIGHEST
    for _ in range(200):
        tail, density = _exceeds(c, kept, spread, z, mass, m)
        if tail > error:
            low = c
        else:
            high = c
        following = 0.5 * (low + high)
        if density > 0.0 and tail > 0.0 and error > 0.0:
            step = tail / density * (log(tail) - log(error))
            if abs(step) < CLOSE:
                return c + step
            if low < c + step < high:
                following = c + step
        if high - low < CLOSE:
            return following
        c = following
    return c
