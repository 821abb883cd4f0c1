"""Which parameter of the world a lift depends on: a ranking over an ensemble of worlds.

The share of a parameter is its first-order index, Var(E[lift | parameter]) / Var(lift) (Saltelli et
al., "Global sensitivity analysis: the primer", 2008; for worlds whose parameters are not
independent it is the correlation ratio, which counts what goes with the parameter as well). E[lift
| parameter] is a regression on the parameter's rank with a bend (a parabola), weighted by what is
known of each world's lift. An F test says whether the share is more than chance, corrected by Holm
over all that are ranked together, and inverting the noncentral F gives the share its interval
(Steiger, "Beyond the F test", Psychological Methods 2004).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulator.stats.moments import Floats
from simulator.stats.tests import adjust

FEWEST = 12
"""Worlds below which no parameter is ranked: a parabola through fewer explains 95% of nothing in
one of twenty.
"""

ENDS = (0.1, 0.9)
"""Ranks at which the ends of a parameter's effect are told."""


@dataclass(frozen=True, slots=True)
class Influence:
    """What a lift has to do with one parameter of the world.

    Attributes:
        metric, arm: of the lift.
        parameter: dotted key in the scenario.
        share: of the variance of the lifts between worlds, adjusted for chance, at least 0.
        low, high: its 95% interval.
        p: of no share at all; `p_adjusted`: by Holm.
        at_low, at_high: the lift that the regression expects where a tenth of the worlds have
            smaller, and where a tenth have greater values.
        smaller, greater: these values.
        flip: the value between them at which the expected lift changes its sign; NaN: at none.
    """

    metric: str
    arm: str
    parameter: str
    share: float
    low: float
    high: float
    p: float
    p_adjusted: float
    at_low: float
    at_high: float
    smaller: float
    greater: float
    flip: float

    @property
    def is_shown(self) -> bool:
        """Whether the share is more than chance."""
        return self.p_adjusted < 0.05

    @property
    def flips(self) -> bool:
        """Whether the parameter is shown to move the lift, and across 0."""
        return self.is_shown and not math.isnan(self.flip)


def influences(
    metric: str,
    arm: str,
    parameters: Mapping[str, Floats],
    lifts: Floats,
    weights: Floats,
) -> list[Influence]:
    """One lift against every parameter that varies, largest share first; p is not yet corrected.

    Args:
        metric, arm: of the lift.
        parameters: by dotted key, the value in each world `[k]`.
        lifts: in each world `[k]`.
        weights: of the worlds `[k]`, in proportion to one over the variance of a lift in one world
            among all.
    """
    if len(lifts) < FEWEST:
        return []
    rows = [
        _influence(metric, arm, key, values, lifts, weights / weights.mean())
        for key, values in parameters.items()
        if len(np.unique(values)) >= 3
    ]
    return sorted(rows, key=lambda row: (-row.share, row.p))


def ranked(rows: Sequence[Influence]) -> list[Influence]:
    """The rows with p corrected for all of them."""
    adjusted = adjust(np.array([row.p for row in rows]), "holm")
    return [replace(row, p_adjusted=float(p)) for row, p in zip(rows, adjusted, strict=True)]


def _influence(
    metric: str, arm: str, key: str, values: Floats, lifts: Floats, weights: Floats
) -> Influence:
    from scipy.special import fdtrc
    from scipy.stats import rankdata

    k = len(lifts)
    rank = (rankdata(values) - 0.5) / k
    design, root = _parabola(rank), np.sqrt(weights)
    coefficients = np.linalg.lstsq(design * root[:, None], lifts * root, rcond=None)[0]
    mean = np.average(lifts, weights=weights)
    total = float(weights @ np.square(lifts - mean))
    left = float(weights @ np.square(lifts - design @ coefficients))
    share = 1.0 - left / total if total > 0 else 0.0
    df = k - 3
    f = math.inf if left <= 0 else (total - left) / 2.0 / (left / df)
    p = float(fdtrc(2, df, f)) if total > 0 else 1.0
    low, high = (_of_noncentral(f, df, k, x) for x in (0.975, 0.025))
    at = _parabola(np.linspace(*ENDS, 81)) @ coefficients
    grid = np.quantile(values, np.linspace(*ENDS, 81))
    crossing = np.flatnonzero(np.sign(at[1:]) != np.sign(at[:-1]))
    flip = float(grid[crossing[0]]) if len(crossing) else math.nan
    return Influence(
        metric,
        arm,
        key,
        max(0.0, 1.0 - (1.0 - share) * (k - 1) / df),
        low,
        high,
        p,
        p,
        float(at[0]),
        float(at[-1]),
        float(grid[0]),
        float(grid[-1]),
        flip,
    )


def _parabola(rank: Floats) -> Floats:
    """Constant, line and bend of a rank in 0..1, `[n, 3]`."""
    x = 2.0 * rank - 1.0
    return np.stack([np.ones_like(x), x, np.square(x)], axis=1)


def _of_noncentral(f: float, df: int, k: int, share: float) -> float:
    """The share of variance x / (x + k) whose noncentral F(2, df, x) has `share` of its mass below
    f; 0 where even x = 0 has less.
    """
    from scipy.special import ncfdtrinc

    if not math.isfinite(f):
        return 1.0
    at = float(ncfdtrinc(2, df, share, f))
    return at / (at + k)
