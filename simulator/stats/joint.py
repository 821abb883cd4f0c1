"""The joint law of several comparisons: what the smallest of their p values is where nothing
differs, when they share a control, users, or both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.products import matmul
from simulator.stats.intervals import Side
from simulator.stats.moments import Floats

POWER_OF_TWO = 16
"""Sobol points, as a power of two: a corrected p of .05 is right to .0005 (in the tests)."""

SINGULAR = 1e-10
"""Share of a variance below which the rest of it is rounding: a contrast that others make up."""

FEW_POINTS = 20
"""Points below which a share of them has an error of a fifth and more."""

CHUNK = 1 << 12


@dataclass(frozen=True)
class JointLaw:
    """The law of the smallest p of correlated t tests (single-step; Dunnett, "A multiple comparison
    procedure for comparing several treatments with a control", JASA 1955; for any correlations
    Hothorn, Bretz & Westfall, "Simultaneous inference in general parametric models", Biometrical
    Journal 2008, section 3).

    Attributes:
        smallest: p, ascending, at quasi-random points of the multivariate t distribution.
        comparisons: how many there are.
    """

    smallest: Floats
    comparisons: int

    @classmethod
    def of(cls, correlation: Floats, df: float, sides: Sequence[Side]) -> JointLaw:
        """The law of tests with `correlation` `[k, k]`, `df` degrees of freedom in common (the
        least that one of them has: on the safe side) and `sides` `[k]`.
        """
        from scipy.special import chdtri, ndtri, stdtr
        from scipy.stats import qmc

        k = len(correlation)
        root = _root(correlation)
        points = qmc.Sobol(k + 1, scramble=True, seed=0).random_base2(POWER_OF_TWO)
        turned = np.array([{"less": -1.0}.get(side, 1.0) for side in sides])
        is_two_sided = np.array([side == "two-sided" for side in sides])
        smallest = np.empty(len(points))
        for start in range(0, len(points), CHUNK):
            part = points[start : start + CHUNK]
            z = matmul(ndtri(part[:, :k]), root.T) * turned
            # `chdtri` inverts the upper tail; no df at all is the normal law.
            scale = np.sqrt(chdtri(df, part[:, k]) / df) if np.isfinite(df) else 1.0
            largest = np.where(is_two_sided, np.abs(z), z) / np.reshape(scale, (-1, 1))
            tails = stdtr(df, -largest.max(axis=1, where=is_two_sided, initial=0.0)) * 2.0
            beside = stdtr(df, -largest.max(axis=1, where=~is_two_sided, initial=-np.inf))
            smallest[start : start + CHUNK] = np.minimum(
                tails if is_two_sided.any() else 1.0, beside if not is_two_sided.all() else 1.0
            )
        return cls(np.sort(smallest), k)

    def adjusted(self, p: Floats) -> Floats:
        """How often the smallest p of all is at most each of `p`; never below p itself, nor above
        Bonferroni's, which hold whatever the number of points. Where too few points are to tell,
        it is Bonferroni's, which is nearly exact for so small a p.
        """
        count = np.searchsorted(self.smallest, p, side="right")
        share = np.maximum(count, FEW_POINTS) / len(self.smallest)
        return np.asarray(np.clip(share, p, np.minimum(self.comparisons * p, 1.0)))

    def threshold(self, alpha: float) -> float:
        """The p below which `adjusted` is below `alpha`."""
        place = int(np.ceil(alpha * len(self.smallest))) - 1
        return float(np.clip(self.smallest[place], alpha / self.comparisons, alpha))


def _root(correlation: Floats) -> Floats:
    """A lower triangular matrix whose square is `correlation` `[k, k]` (Cholesky; columns of
    contrasts that the ones before them make up are 0, as of all pairs of three arms).
    """
    k = len(correlation)
    root = np.zeros((k, k))
    for j in range(k):
        rest = correlation[j:, j] - matmul(root[j:, :j], root[j, :j])
        if rest[0] > SINGULAR:
            root[j:, j] = rest / np.sqrt(rest[0])
    return root
