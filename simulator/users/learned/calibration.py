"""Post-hoc calibration of a head on held-out answers: Platt scaling, and the margins of a distribution. No network lives here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def platt(logits: F64, y: F64, weight: F64, spread: float = 0.25) -> tuple[float, float]:
    """Scale a and shift b of the calibrated logit a * logit + b (Platt 1999), by Newton's method.

    A rare kind of feedback cannot support two free numbers: a has the prior Normal(1, spread^2), b Normal(0, 1).

    Args:
        logits: `[N]` of the head.
        y: `[N]` 0 or 1.
        weight: `[N]`.
        spread: prior standard deviation of a.
    """
    a, b = 1.0, 0.0
    for _ in range(50):
        p = 1 / (1 + np.exp(-(a * logits + b)))
        error, curve = weight * (p - y), weight * p * (1 - p)
        gradient = np.array([(error * logits).sum() + (a - 1) / spread**2, error.sum() + b])
        hessian = np.array([[(curve * logits**2).sum() + spread**-2, (curve * logits).sum()], [(curve * logits).sum(), curve.sum() + 1.0]])
        step = np.linalg.solve(hessian, gradient)
        a, b = float(a - step[0]), float(b - step[1])
        if np.abs(step).max() < 1e-8:
            break
    return a, b


def margins(logits: F64, y: npt.NDArray[np.int64], weight: F64, prior: float = 20.0) -> F64:
    """Shifts `[C]` of `logits` `[N, C]` after which each class of `y` `[N]` is expected as often as it occurred.

    The bias half of vector scaling (Guo et al. 2017), by iterative proportional fitting; `prior` occurrences are added to what was
    expected and to what occurred, so that a class that is hardly ever seen is hardly ever moved.
    """
    size = logits.shape[1]
    shift = np.zeros(size)
    occurred = np.bincount(y, weights=weight, minlength=size) + prior
    for _ in range(100 if len(y) else 0):
        scaled = logits + shift
        p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        expected = (weight[:, None] * p / p.sum(axis=1, keepdims=True)).sum(axis=0) + prior
        step = np.log(occurred / expected)
        shift += step
        if np.abs(step).max() < 1e-6:
            break
    return shift
