"""Quantities of choice: any figure of the units of an arm, estimated in each arm and compared as
means are; its variance by the jackknife.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policies.products import matmul
from simulator.stats.moments import Floats, Moments, welch_df
from simulator.stats.unit_table import Details, TableError

GROUPS = 200
"""Groups of units that are left out in turn; each unit alone where there are no more units."""

LEAST_GROUPS = 10


@dataclass(frozen=True)
class Quantity:
    """A figure of the units of an arm, as a metric of a table: `{"gini": Quantity(gini,
    "revenue")}`.

    Attributes:
        of: the figure: a function of one array `[units]` for each of `columns` (with clusters:
            `[rows]`), the units of one arm, in any order. Units are exchangeable: it may not depend
            on their order, and must be smooth in them (a mean, a variance, a Gini coefficient, a
            correlation; a quantile is not, and is declared as one).
        columns: names of the columns.
    """

    of: Callable[..., float]
    columns: tuple[str, ...]

    def __init__(self, of: Callable[..., float], *columns: str) -> None:
        object.__setattr__(self, "of", of)
        object.__setattr__(self, "columns", columns)
        if not columns:
            raise TableError("quantity: name at least one column that it is computed from")


@dataclass(frozen=True)
class ArmFigure:
    """A figure of one arm that is no mean.

    Attributes:
        value: of the figure.
        influence: `[g]` how much each unit, or group of units, moves it: g / (g - 1) times the sum
            of their squares is the variance.
        df: degrees of freedom of the variance.
        n: units.
        note: why no influence is known, in words.
    """

    value: float
    influence: Floats
    df: float
    n: int
    note: str = ""

    @property
    def factor(self) -> float:
        g = len(self.influence)
        return g / (g - 1.0) if g > 1 else np.nan

    @property
    def variance(self) -> float:
        return self.factor * float(matmul(self.influence, self.influence))


def jackknife(
    of: Callable[..., float], columns: Sequence[Floats], units: npt.NDArray[np.int64] | None = None
) -> ArmFigure:
    """A figure and its variance by leaving out groups of units in turn.

    With g groups, theta_j without group j and their mean m: variance = (g - 1) / g sum (theta_j -
    m)^2 (Efron & Stein, Annals of Statistics 1981; groups of many: Shao & Wu, Annals of Statistics
    1989), with g - 1 degrees of freedom. Units are dealt to groups at random, by a fixed seed.

    Args:
        of: the figure.
        columns: `[rows]` each.
        units: `[rows]` the unit of each row, 0..n-1; None: each row its own.

    Raises:
        TableError: the figure is no number.
    """
    n_rows = len(columns[0])
    n = n_rows if units is None else int(units.max(initial=-1)) + 1
    value = _number(of, columns)
    if n < LEAST_GROUPS:
        why = f"fewer than {LEAST_GROUPS} units in an arm"
        return ArmFigure(value, np.full(n, np.nan), np.nan, n, why)
    g = min(n, GROUPS)
    group = np.random.default_rng(0).permutation(n) % g
    of_row = group if units is None else group[units]
    order = np.argsort(of_row, kind="stable")
    ends = np.searchsorted(of_row[order], np.arange(g + 1))
    without = np.empty(g)
    for j in range(g):
        kept = np.concatenate((order[: ends[j]], order[ends[j + 1] :]))
        kept.sort()
        without[j] = _number(of, [column[kept] for column in columns])
    return ArmFigure(value, (g - 1.0) / g * (without.mean() - without), g - 1.0, n)


def _number(of: Callable[..., float], columns: Sequence[Floats]) -> float:
    name = getattr(of, "__name__", repr(of))
    try:
        value = float(of(*columns))
    except (TypeError, ValueError) as error:
        raise TableError(f"quantity {name}: must return one number; it says: {error}") from error
    if not np.isfinite(value):
        raise TableError(
            f"quantity {name}: is {value} of {len(columns[0]):,} rows; it must be a finite number"
            " of any sample, also without some of the units"
        )
    return value


def estimated(details: Details, arm: int, of: Callable[..., float]) -> ArmFigure:
    """The figure of one arm of a table."""
    columns, units = details.of_arm(arm)
    return jackknife(of, columns, units)


def moments_of(control: ArmFigure, treatment: ArmFigure, *, paired: bool) -> Moments:
    """The moments of two figures, of twins with the covariance of what each group moves."""
    v, w = control.variance, treatment.variance
    cov = 0.0
    if paired:
        cov = control.factor * float(matmul(control.influence, treatment.influence))
        df = control.df
    elif np.isinf(control.df):
        df = np.inf
    else:
        df = float(welch_df(v, w, control.df + 1.0, treatment.df + 1.0))
    note = control.note or treatment.note
    return Moments(
        control.value, treatment.value, v, w, cov, df, control.n, treatment.n, paired, note
    )
