"""Post-hoc calibration of a head on held-out answers: scale, shift, and the margins of a
distribution. No network lives here.
"""

from __future__ import annotations

import numpy as np

from policies.base import DoubleArray, IntArray


def scale(logits: DoubleArray, y: DoubleArray, weight: DoubleArray, spread: float = 0.25) -> float:
    """The factor a of the calibrated logit a * logit + b (Platt 1999) on answers that the fit has
    not seen, by Newton's method.

    A rare kind of feedback says little of a: it has the prior Normal(1, spread^2).

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
        across = (curve * logits).sum()
        hessian = np.array(
            [[(curve * logits**2).sum() + spread**-2, across], [across, curve.sum() + 1.0]]
        )
        step = np.linalg.solve(hessian, gradient)
        a, b = float(a - step[0]), float(b - step[1])
        if np.abs(step).max() < 1e-8:
            break
    return a


def shift(logits: DoubleArray, y: DoubleArray, weight: DoubleArray) -> float:
    """The b with which 1s are expected as often as they occurred: sum of sigmoid(logits + b) = sum
    of y, by Newton's method.

    Half an occurrence is added to either answer, so that a kind that never occurred keeps a finite
    b.
    """
    b = 0.0
    total = weight.sum()
    goal = ((weight * y).sum() + 0.5) / (total + 1) * total
    for _ in range(100):
        p = 1 / (1 + np.exp(-(logits + b)))
        # Far from the goal the curve is flat, and a whole Newton step would leave for infinity.
        step = np.clip((goal - (weight * p).sum()) / max((weight * p * (1 - p)).sum(), 1e-9), -1, 1)
        b += float(step)
        if abs(step) < 1e-9:
            break
    return b


def margins(
    logits: DoubleArray, y: IntArray, weight: DoubleArray, prior: float = 5.0
) -> DoubleArray:
    """Shifts `[C]` of `logits` `[N, C]` after which each class of `y` `[N]` is expected as often as
    it occurred.

    The bias half of vector scaling (Guo et al. 2017), by iterative proportional fitting; `prior`
    occurrences are added to what was expected and to what occurred, so that a class that is hardly
    ever seen is hardly ever moved.
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
