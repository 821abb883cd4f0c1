"""Gauss-Legendre quadrature, the same bytes on every processor. Nothing is integrated here."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from policies.elementary import circle
from simulator.stats.moments import Floats


@lru_cache(maxsize=16)
def legendre(n: int) -> tuple[Floats, Floats]:
    """Nodes in (-1, 1), ascending, and weights `[n]`, exact for polynomials of degree 2 n - 1.

    The roots of P_n by Newton's method from cos(pi (i - 1/4) / (n + 1/2)), P_n and its derivative
    by their recursion (Abramowitz & Stegun 1964, 22.7.10 and 25.4.29). numpy's are eigenvalues,
    whose last bits depend on the processor's LAPACK.
    """
    cosine_and_sine: Any = circle
    # As Python's: a few numbers are not worth a kernel
    x = np.array(
        [-cosine_and_sine.py_func((i - 0.25) / (2.0 * n + 1.0))[0] for i in range(1, n + 1)]
    )
    slope = np.empty(n)
    for _ in range(6):
        before, value = np.ones(n), x
        for k in range(2, n + 1):
            before, value = value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k
        slope = n * (before - x * value) / (1.0 - x * x)
        x = x - value / slope
    return x, 2.0 / ((1.0 - x * x) * slope * slope)
