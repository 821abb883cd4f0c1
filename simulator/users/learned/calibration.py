"""Post-hoc calibration of a head on held-out answers: Platt scaling and temperature. No network lives here."""

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
        hessian = np.array(
            [[(curve * logits**2).sum() + spread**-2, (curve * logits).sum()], [(curve * logits).sum(), curve.sum() + 1.0]]
        )
        step = np.linalg.solve(hessian, gradient)
        a, b = float(a - step[0]), float(b - step[1])
        if np.abs(step).max() < 1e-8:
            break
    return a, b


def temperature(logits: F64, y: npt.NDArray[np.int64], weight: F64) -> float:
    """The factor of `logits` `[N, C]` that makes the classes `y` `[N]` most likely (Guo et al. 2017), by golden section on [1/4, 4]."""
    if not len(y):
        return 1.0
    low, high = np.log(0.25), np.log(4.0)
    ratio = (np.sqrt(5) - 1) / 2

    def loss(log_scale: float) -> float:
        scaled = logits * np.exp(log_scale)
        top = scaled.max(axis=1)
        norm = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((weight * (norm - scaled[np.arange(len(y)), y])).sum())

    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))
