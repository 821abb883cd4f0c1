"""Gauss-Legendre quadrature against numpy's and against integrals that are known."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.stats.quadrature import legendre


@pytest.mark.parametrize("n", [1, 2, 5, 64, 400])
def test_nodes_and_weights_are_numpys_and_integrate_polynomials(n: int) -> None:
    node, weight = legendre(n)
    expected = np.polynomial.legendre.leggauss(n)
    np.testing.assert_allclose(node, expected[0], rtol=0, atol=1e-15)
    np.testing.assert_allclose(weight, expected[1], rtol=0, atol=1e-13)
    for degree in range(min(2 * n, 12)):
        assert (weight * node**degree).sum() == pytest.approx(
            0.0 if degree % 2 else 2 / (degree + 1), abs=1e-13
        )
