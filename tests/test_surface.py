"""The process behind a map: against the joint normal law, against closed forms, and on surfaces
that are known.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import multivariate_normal

from simulator.page.maps import zero_line
from simulator.surface import process
from simulator.surface.process import (
    Observations,
    band,
    matern,
    next_cell,
    posterior,
    spread,
)

Floats = npt.NDArray[np.float64]


def line(n: int) -> Floats:
    return np.linspace(0.0, 1.0, n)[:, None]


def six_runs(seeds: list[int]) -> Observations:
    rng = np.random.default_rng(2)
    return Observations(
        np.array([0, 2, 2, 5, 7, 8]),
        rng.normal(0.02, 0.05, 6),
        rng.uniform(0.01, 0.03, 6),
        np.array(seeds),
    )


def test_correlations_are_of_the_closed_form() -> None:
    """At distance r in lengths: (1 + a + a^2 / 3) exp(-a), a = 5^.5 r."""
    two = np.array([[0.0, 0.0], [0.3, 0.4]])
    assert matern(two, two, (0.3, 0.2))[0, 1] == pytest.approx(
        (1 + 5 + 25 / 3) * np.exp(-5.0), rel=1e-12
    )
    np.testing.assert_array_equal(np.diag(matern(two, two, (1.0, 1.0))), 1.0)


@pytest.mark.parametrize("seeds", [[1, 2, 3, 4, 5, 6], [1, 2, 1, 2, 1, 2]], ids=["own", "shared"])
def test_a_surface_is_the_joint_normal_law_given_the_runs(
    seeds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one set of hyper-parameters; the constant is a normal variable of huge variance there.
    Two sets are weighed as their densities of the runs are.
    """
    monkeypatch.setattr(process, "LENGTHS", (0.4,))
    monkeypatch.setattr(process, "HEIGHTS", (1.0, 3.0))
    monkeypatch.setattr(process, "BETWEEN_SEEDS", (0.5,))
    monkeypatch.setattr(process, "KEPT", 1.0)
    places, runs, vague = line(9), six_runs(seeds), 100.0
    unit, between = runs.value.std(), 0.5 * runs.usual_error
    parts = posterior(places, runs).components
    assert len(parts) == 2
    noise = np.diag(runs.error**2 + (1e-3 * unit) ** 2)
    noise += between**2 * (runs.seed[:, None] == runs.seed)
    densities, means = [], []
    for height in (unit, 3 * unit):
        prior = height**2 * matern(places, places, (0.4,)) + vague**2
        of_runs = prior[np.ix_(runs.cell, runs.cell)] + noise
        gain = np.linalg.solve(of_runs, prior[runs.cell]).T
        means.append(gain @ runs.value)
        densities.append(multivariate_normal(cov=of_runs).pdf(runs.value))
        left = prior - gain @ prior[runs.cell]
        nearest = min(parts, key=lambda part: np.abs(part.mean - means[-1]).max())
        np.testing.assert_allclose(nearest.mean, means[-1], atol=2e-6)
        np.testing.assert_allclose(nearest.cov, left, atol=2e-6)
    weights = sorted(part.weight / parts[0].weight for part in parts)
    densities = sorted(density / max(densities) for density in densities)
    np.testing.assert_allclose(weights, densities, rtol=1e-4)


def test_the_mixture_has_the_moments_of_its_draws() -> None:
    surface = posterior(line(9), six_runs([1, 2, 3, 4, 5, 6]))
    rng = np.random.default_rng(0)
    weights = np.array([part.weight for part in surface.components])
    which = rng.choice(len(weights), 40_000, p=weights / weights.sum())
    drawn = np.concatenate(
        [
            rng.multivariate_normal(part.mean, part.cov, int((which == i).sum()))
            for i, part in enumerate(surface.components)
        ]
    )
    error = surface.sd / 200
    assert (np.abs(drawn.mean(axis=0) - surface.mean) < 4.5 * error).all()
    np.testing.assert_allclose(np.cov(drawn.T), surface.cov, atol=0.05 * surface.cov.max())


def test_runs_of_one_seed_say_less_than_runs_of_their_own() -> None:
    """What the seed brings is not averaged away by more runs of it."""
    rng = np.random.default_rng(3)
    cell = np.repeat(np.arange(5), 4)
    own = rng.normal(0.0, 0.03, 20)
    errors = np.full(20, 0.01)
    apart = posterior(line(5), Observations(cell, own, errors, np.arange(20)))
    one = posterior(line(5), Observations(cell, own, errors, np.zeros(20, dtype=int)))
    assert apart.between_seeds > 0.01
    assert (one.sd > 1.2 * apart.sd).all()


def test_identical_arms_are_a_flat_surface_of_nothing() -> None:
    runs = Observations(np.array([0, 1, 1, 4]), np.zeros(4), np.zeros(4), np.arange(4))
    surface = posterior(line(5), runs)
    low, high = band(surface, 0.95, 0)
    assert (np.abs(surface.mean) < 1e-12).all()
    assert ((low < 0) & (high > 0) & (high - low < 1e-4)).all()


def test_the_first_runs_are_spread_over_the_cells() -> None:
    assert spread(line(9), 5).tolist() == [4, 0, 8, 2, 6]
    square = np.array([(x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0)])
    assert spread(square, 5).tolist() == [4, 0, 2, 6, 8]
    assert sorted(spread(square, 99).tolist()) == list(range(9))


def test_the_next_run_is_where_the_sign_is_open() -> None:
    """Far above zero to the left, far below to the right: near the crossing between."""
    places = line(17)
    cells = np.array([0, 4, 8, 12, 16])
    runs = Observations(cells, 0.4 - 0.6 * cells / 16.0, np.full(5, 0.02), np.arange(5))
    surface, is_open = posterior(places, runs), np.ones(17, dtype=bool)
    chosen = next_cell(surface, 0.02, is_open)
    assert 8 <= chosen <= 14
    is_open[chosen] = False
    assert next_cell(surface, 0.02, is_open) in (chosen - 1, chosen + 1)


def wavy(rng: np.random.Generator, places: Floats) -> Floats:
    """A smooth surface (a sum of 200 waves) of a length from .25 to 1 about a random level."""
    wave = rng.normal(size=(200, places.shape[1])) / rng.uniform(0.25, 1.0, places.shape[1])
    heights = rng.normal(size=200) * 0.05 * np.sqrt(2.0 / 200)
    return np.cos(places @ wave.T + rng.uniform(0, 2 * np.pi, 200)) @ heights + rng.normal(0, 0.03)


def mapped(case: int, places: Floats, n_runs: int, *, placed: bool) -> tuple[bool, float, float]:
    """Of a known surface: whether the band of `n_runs` runs holds it everywhere, the share of cells
    whose sign it decides, and the share that it decides wrongly. Runs err by their standard errors,
    which differ, and by their seeds; they are placed one after another, or over and over all cells.
    """
    truth = wavy(np.random.default_rng(case), places)
    rng = np.random.default_rng([case, 1])
    error = rng.uniform(0.007, 0.014, n_runs)
    noise = error * rng.normal(size=n_runs) + 0.005 * rng.normal(size=n_runs)

    def runs(cells: list[int]) -> Observations:
        n = len(cells)
        return Observations(np.array(cells), truth[cells] + noise[:n], error[:n], np.arange(n))

    everywhere = np.resize(spread(places, len(places)), n_runs).tolist()
    cells = everywhere[:5] if placed else everywhere
    while len(cells) < n_runs:
        surface = posterior(places, runs(cells))
        cells.append(next_cell(surface, float(error.mean()), np.ones(len(places), dtype=bool)))
    surface = posterior(places, runs(cells))
    low, high = band(surface, 0.95, case)
    holds = bool(((low <= truth) & (truth <= high)).all())
    decided = (low > 0) | (high < 0)
    wrong = decided & ((low > 0) != (truth > 0))
    return holds, float(decided.mean()), float(wrong.mean())


def test_bands_hold_everywhere_and_placed_runs_decide_more_signs() -> None:
    """Of 200 surfaces, 180 to 194 lie within their 95% bands at all cells; of the same surfaces and
    as many runs, those placed by what is known decide more signs than a grid, and a hundredth at
    most of what is decided is wrong.
    """
    placed = np.array([mapped(case, line(17), 20, placed=True) for case in range(200)])
    grid = np.array([mapped(case, line(17), 20, placed=False) for case in range(200)])
    assert 180 <= placed[:, 0].sum() <= 194
    more = (placed - grid)[:, 1]
    assert more.mean() > 3 * more.std() / np.sqrt(len(more))
    assert placed[:, 2].mean() < 0.01


def test_the_zero_line_of_a_plane_is_straight() -> None:
    """Of x + 2 y - 3.3 over 5 x 4 cells: every end lies on it, each segment within a square."""
    values = [[x + 2.0 * y - 3.3 for x in range(5)] for y in range(4)]
    segments = zero_line(values)
    assert len(segments) == 5
    for a, b, c, d in segments:
        assert a + 2 * b == pytest.approx(3.3)
        assert c + 2 * d == pytest.approx(3.3)
        assert max(abs(a - c), abs(b - d)) <= 1
    assert zero_line([[1.0, 2.0], [3.0, 4.0]]) == []
