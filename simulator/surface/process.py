"""A Gaussian process over the cells of a map: what runs at some cells say of the lift at all of
them, how far that can be wrong everywhere at once, and where the next run says most.

The lift of a run is f(x) + d + e: f is the surface, d what is peculiar to the run's seed (its
world, its users, its fits), e the error of the verdict, whose standard deviation is known of each
run. f has an unknown constant mean and Matern 5/2 covariance (Rasmussen & Williams, "Gaussian
processes for machine learning", 2006: chapter 4.2, the constant of 2.7, the likelihood of 5.4.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LENGTHS = (0.25, 0.4, 0.7, 1.2, 2.5)
"""Over which the surface changes, in lengths of an axis: from a quarter of it to nearly a plane."""
HEIGHTS = (0.1, 0.3, 0.6, 1.0, 1.5)
"""Standard deviation of the surface, in that of the lifts observed."""
BETWEEN_SEEDS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Standard deviation of d, in the usual standard error of a run."""
KEPT = 0.98
"""What weighs less than all but this share of the hyper-parameters is left out: it moves no end of
a band by a twentieth of its width.
"""
WIDTH = 2.8
"""Standard deviations to either side of a band, as a rule, where the next run is chosen: a band of
95% has from 2.5 to 3.
"""
DRAWS = 4000
"""Surfaces drawn for a band: the level that it holds has a standard error of .3%."""


@dataclass(frozen=True)
class Observations:
    """The runs so far.

    Attributes:
        cell: `[n]` index of the cell of each.
        value: `[n]` lift, a fraction.
        error: `[n]` its standard error.
        seed: `[n]` runs of one seed share what is peculiar to it.
    """

    cell: Ints
    value: Floats
    error: Floats
    seed: Ints

    @property
    def usual_error(self) -> float:
        """The root of the mean squared error: cells in which both arms are the same have none."""
        return float(np.sqrt(np.square(self.error).mean()))


@dataclass(frozen=True)
class Component:
    """The surface under one set of hyper-parameters.

    Attributes:
        weight: its posterior probability.
        mean: `[m]` of the lift at each cell.
        cov: `[m, m]`.
        between_seeds: standard deviation of d.
    """

    weight: float
    mean: Floats
    cov: Floats
    between_seeds: float


@dataclass(frozen=True)
class Surface:
    """What the runs say of the surface, hyper-parameters integrated out.

    Attributes:
        mean: `[m]` of the lift at each cell, a fraction.
        cov: `[m, m]`.
        between_seeds: standard deviation of the lifts of one cell over seeds, besides the errors
            of the runs (root of its mean square).
        components: what it is a mixture of.
    """

    mean: Floats
    cov: Floats
    between_seeds: float
    components: tuple[Component, ...]

    @property
    def sd(self) -> Floats:
        """`[m]` standard deviation of the lift at each cell."""
        return np.sqrt(np.diagonal(self.cov))


def posterior(places: Floats, runs: Observations) -> Surface:
    """The surface given some runs.

    Hyper-parameters are summed over a grid, with equal weight before the runs: with a dozen runs
    the one best set of them would make every band too narrow.

    Args:
        places: `[m, d]` of the cells, each axis from 0 to 1.
        runs: two at least.
    """
    parts = list(_weighed(places, runs))
    total = sum(part.weight for part in parts)
    mean = sum((part.weight / total * part.mean for part in parts), np.zeros(len(places)))
    cov = np.zeros((len(places), len(places)))
    for part in parts:
        away = part.mean - mean
        cov += part.weight / total * (part.cov + np.multiply.outer(away, away))
    square = sum(part.weight * part.between_seeds**2 for part in parts) / total
    return Surface(mean, cov, float(np.sqrt(square)), tuple(parts))


def _weighed(places: Floats, runs: Observations) -> Iterator[Component]:
    """The surface under each set of hyper-parameters that matters."""
    n, usual = len(runs.value), runs.usual_error
    unit = max(float(runs.value.std()), usual, 1e-6)
    heights = np.array(HEIGHTS)[:, None, None, None] * unit
    between = np.array(BETWEEN_SEEDS)[:, None, None] * usual
    # The last term keeps runs of one cell apart where arms are identical and nothing is noise.
    noise = np.diag(runs.error**2 + (1e-3 * unit) ** 2)
    noise = between**2 * (runs.seed[:, None] == runs.seed) + noise
    one, evidence, alike = np.ones(n), [], dict[tuple[float, ...], Floats]()
    lengths = list(product(LENGTHS, repeat=places.shape[1]))
    for length in lengths:
        alike[length] = matern(places, places, length)
        of_runs = alike[length][runs.cell].take(runs.cell, axis=1)
        factor = np.linalg.cholesky(heights**2 * of_runs + noise)
        right = np.broadcast_to(np.stack([one, runs.value], 1), (*factor.shape[:-1], 2))
        solved = np.linalg.solve(factor, right)
        flat, observed = solved[..., 0], solved[..., 1]
        certain = (flat**2).sum(-1)
        rest = (observed**2).sum(-1) - (flat * observed).sum(-1) ** 2 / certain
        determinant = np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
        evidence.append(-0.5 * rest - determinant - 0.5 * np.log(certain))
    weight = np.exp(np.array(evidence) - np.max(evidence))
    order = np.argsort(-weight, axis=None, kind="stable")
    share = np.cumsum(weight.ravel()[order]) / weight.sum()
    for place in order[: int(np.searchsorted(share, KEPT)) + 1]:
        i, j, k = np.unravel_index(place, weight.shape)
        height, length = float(heights[j, 0, 0, 0]), lengths[int(i)]
        mean, cov = _conditional(alike[length], runs, height, noise[k])
        yield Component(float(weight[i, j, k]), mean, cov, float(between[k, 0, 0]))


def _conditional(
    alike: Floats, runs: Observations, height: float, noise: Floats
) -> tuple[Floats, Floats]:
    """Mean `[m]` and covariance `[m, m]` at the cells, of which `alike` `[m, m]` has the
    correlations (Rasmussen & Williams 2006, 2.41 and 2.42, with the constant as the only basis
    function and nothing known of it before).
    """
    across = height**2 * alike.take(runs.cell, axis=1)
    inverse = np.linalg.inv(across[runs.cell] + noise)
    sums = inverse.sum(axis=0)
    certain = sums.sum()
    constant = float(sums @ runs.value / certain)
    gain = across @ inverse
    mean = constant + gain @ (runs.value - constant)
    unknown = 1.0 - gain.sum(axis=1)
    cov = height**2 * alike - gain @ across.T
    cov += np.multiply.outer(unknown, unknown) / certain
    return mean, (cov + cov.T) / 2.0


def matern(one: Floats, other: Floats, length: tuple[float, ...]) -> Floats:
    """Matern 5/2 correlations `[n, m]` of two sets of places."""
    apart = (one[:, None, :] - other[None, :, :]) / np.array(length)
    r = np.sqrt(5.0 * (apart**2).sum(axis=-1))
    correlation: Floats = (1.0 + r + r**2 / 3.0) * np.exp(-r)
    return correlation


def band(surface: Surface, level: float, seed: int) -> tuple[Floats, Floats]:
    """Ends `[m]` of a band that holds the surface at all cells at once with probability `level`.

    The mean and q standard deviations to either side: q is the quantile at `level` of the greatest
    |f - mean| / sd over the cells, by surfaces drawn from the posterior, hyper-parameters
    included.
    """
    rng = np.random.default_rng(seed)
    weights = np.array([part.weight for part in surface.components])
    numbers = rng.multinomial(DRAWS, weights / weights.sum())
    sd = surface.sd
    greatest = []
    for part, number in zip(surface.components, numbers, strict=True):
        if number:
            variance, direction = np.linalg.eigh(part.cov)
            root = direction * np.sqrt(np.maximum(variance, 0.0))
            drawn = part.mean + rng.standard_normal((number, len(sd))) @ root.T
            greatest.append((np.abs(drawn - surface.mean) / sd).max(axis=1))
    q = float(np.quantile(np.concatenate(greatest), level))
    return surface.mean - q * sd, surface.mean + q * sd


def next_cell(surface: Surface, error: float, is_open: Bools) -> int:
    """The cell at which one more run leaves the fewest signs undecided, to be expected.

    Stepwise uncertainty reduction for a level set (Bect et al., Statistics and Computing 2012;
    Chevalier et al., Technometrics 2014), the level being 0. A sign is undecided where the mean is
    within WIDTH standard deviations of 0 (as cells are classified by Gotovos et al., IJCAI 2013);
    a run moves the mean of a cell by a normal amount, and makes its standard deviation less by one
    that is known. A cell that was run may be run again.

    Args:
        surface: so far.
        error: standard error that the run is expected to have.
        is_open: `[m]` whether a cell may be chosen; one at least may.
    """
    from scipy.special import ndtr

    variance, mean = np.diagonal(surface.cov), surface.mean[:, None]
    of_run = variance + error**2 + surface.between_seeds**2
    moves = np.abs(surface.cov) / np.sqrt(of_run)  # [cell, candidate]
    moves = np.maximum(moves, 1e-9 * surface.sd[:, None])
    reach = WIDTH * np.sqrt(np.maximum(variance[:, None] - moves**2, 0.0))
    undecided = (ndtr((reach - mean) / moves) - ndtr((-reach - mean) / moves)).sum(axis=0)
    undecided = np.where(is_open, np.round(undecided, 9), np.inf)
    return int(np.argmin(undecided))  # rounded: equal cells are taken in their order


def spread(places: Floats, number: int) -> Ints:
    """The cells of the first runs: the middle, then always the cell that is farthest from all
    before it (maximin: Johnson, Moore & Ylvisaker, Journal of Statistical Planning and Inference
    1990).
    """
    chosen = [int(np.argmin(((places - 0.5) ** 2).sum(axis=1).round(9)))]
    nearest = np.full(len(places), np.inf)
    while len(chosen) < min(number, len(places)):
        last = ((places - places[chosen[-1]]) ** 2).sum(axis=1)
        nearest = np.minimum(nearest, last.round(9))
        chosen.append(int(np.argmax(nearest)))
    return np.array(chosen)
