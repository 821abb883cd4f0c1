"""Aggregates: moments of users by arm, look and cell of the segments, from which the same verdict
follows as from the users' rows. How a table of them is read is in `moment_sheets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.products import matmul, pseudo_inverse
from simulator.log.metrics import Metric
from simulator.stats import sequential
from simulator.stats.moments import Floats, Moments, Sample, paired_moments, ratio, split_moments
from simulator.stats.sequential import Peeks
from simulator.stats.spending import ALPHA
from simulator.stats.unit_table import TableError, Use

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CellMoments:
    """Moments of the users of some cells, in arrays with like leading axes `[...]`.

    Attributes:
        n: users, by variable `[..., p]` (all the same where one row holds all variables).
        mean: `[..., p]`.
        cov: `[..., p, p]` sample covariances; NaN where a product is not known.
        previous: `[..., p, p]` sample covariances of each variable with each at the look before.
        twins: `[..., arms, p, p]` sample covariances of each variable with each of the same users
            in every arm, NaN where they are not known; None of users who are in one arm each.
    """

    n: Floats
    mean: Floats
    cov: Floats
    previous: Floats
    twins: Floats | None = None

    def together(self) -> CellMoments:
        """The users of all cells of the last leading axis as one sample (Chan, Golub & LeVeque, The
        American Statistician 1983).
        """
        n = self.n.sum(axis=-2)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(self.n > 0, self.n * self.mean, 0.0).sum(axis=-2) / n
            away = np.where(self.n > 0, self.mean - mean[..., None, :], 0.0)
            earlier = self._before(self.mean)
            before = self._before(mean)
            away_before = np.where(self.n > 0, earlier - before[..., None, :], 0.0)
            return CellMoments(
                n,
                mean,
                self._pooled(self.cov, away, away, n),
                self._pooled(self.previous, away, away_before, n),
                self._pooled_twins(away, n),
            )

    def _pooled_twins(self, away: Floats, n: Floats) -> Floats | None:
        """The covariances between arms (the first axis) of the users of all cells (the third)."""
        if self.twins is None:
            return None
        size = self.n[..., None, :, None]
        # A cell in which nobody is yet adds nothing; one whose product is not known leaves a NaN.
        within = np.where(size > 1, (size - 1.0) * self.twins, 0.0).sum(axis=2)
        between = np.einsum("alci,blcj->albij", self.n * away, away)
        whole = n[..., None, :, None]
        return np.asarray((within + between) / np.where(whole > 1, whole - 1.0, np.nan))

    @staticmethod
    def _before(of_looks: Floats) -> Floats:
        """What stood at the look before (the first axis after the arms is that of looks)."""
        return np.concatenate((np.full_like(of_looks[:, :1], np.nan), of_looks[:, :-1]), axis=1)

    def _pooled(self, cov: Floats, away: Floats, other: Floats, n: Floats) -> Floats:
        size = self.n[..., :, None]
        within = np.where(size > 1, (size - 1.0) * cov, 0.0).sum(axis=-3)
        between = np.where(size > 0, size * away[..., :, None] * other[..., None, :], 0.0).sum(
            axis=-3
        )
        whole = n[..., :, None]
        return np.asarray((within + between) / np.where(whole > 1, whole - 1.0, np.nan))


@dataclass(frozen=True)
class Aggregates:
    """The moments of a test by arm, look and segment.

    Attributes:
        arms: names, in the order of their first row.
        metrics: by name.
        variables: names, in the order of the last axes of `cells`.
        parts: by metric, the variables of its numerator and denominator (None of a mean).
        covariates: by metric, the variables that its lift is adjusted for.
        looks: names of the looks, in order; one where the table has none.
        shares: `[looks]` of the test that is over by each.
        cells: moments `[arms, looks]` of all users.
        groups: by segment and level, moments `[arms]` at the last look.
        columns: what each column was taken for.
    """

    arms: tuple[str, ...]
    metrics: Mapping[str, Metric]
    variables: tuple[str, ...]
    parts: Mapping[str, tuple[str, str | None]]
    covariates: Mapping[str, tuple[str, ...]]
    looks: tuple[str, ...]
    shares: Floats
    cells: CellMoments
    groups: Mapping[str, Mapping[str, CellMoments]] = field(default_factory=dict)
    columns: tuple[Use, ...] = ()

    @property
    def n_users(self) -> dict[str, int]:
        """Users of each arm at the last look (of the metric with most)."""
        counts = self.cells.n[:, -1].max(axis=-1)
        return {arm: int(count) for arm, count in zip(self.arms, counts, strict=True)}

    @property
    def paired(self) -> bool:
        """Whether every user is in every arm: the table has products between arms."""
        return self.cells.twins is not None

    @cached_property
    def crossed(self) -> dict[str, bool]:
        """By metric, whether products with the look before are there at every look but the
        first. Those of twins would need products between the arms, too.
        """
        if self.paired:
            return dict.fromkeys(self.parts, False)
        known = {}
        for metric, (top, bottom) in self.parts.items():
            at = [self.variables.index(name) for name in (top, bottom) if name is not None]
            own = self.cells.previous[:, 1:][..., at, :][..., at]
            known[metric] = bool(own.size and np.isfinite(own).all())
        return known

    def arm(self, name: str) -> int:
        """Index of an arm.

        Raises:
            TableError: there is none of this name.
        """
        if name not in self.arms:
            raise TableError(f"no arm {name!r} among {list(self.arms)}")
        return self.arms.index(name)

    def moments(
        self, metric: str, control: str, treatment: str, look: int = -1, *, adjusted: bool = False
    ) -> Moments | None:
        """The moments of one comparison at a look; None where a moment of it is not there."""
        return self._compared(self.cells, (look,), metric, (control, treatment), adjusted=adjusted)

    def in_segment(
        self, group: str, level: str, metric: str, control: str, treatment: str
    ) -> Moments | None:
        """The same of the users of one level of a segment, at the last look, adjusted as the whole
        is, with a slope of its own.
        """
        cells = self.groups[group][level]
        return self._compared(cells, (), metric, (control, treatment), adjusted=True)

    def _compared(
        self,
        cells: CellMoments,
        at: tuple[int, ...],
        metric: str,
        arms: tuple[str, str],
        *,
        adjusted: bool = False,
    ) -> Moments | None:
        top, bottom = self.parts[metric]
        names = [top, *([] if bottom is None else [bottom])]
        if cells.twins is not None:
            return self._of_twins(cells, at, [self.variables.index(name) for name in names], arms)
        past = list(self.covariates.get(metric, ())) if adjusted else []
        columns = [self.variables.index(name) for name in (*names, *past)]
        samples = []
        for arm in arms:
            where = (self.arm(arm), *at)
            n = cells.n[where][columns]
            cov = cells.cov[where][np.ix_(columns, columns)]
            if not (np.isfinite(cov).all() and (n == n[0]).all()):
                return None
            samples.append(Sample(int(n[0]), cells.mean[where][columns], cov))
        return split_moments(
            samples[0],
            samples[1],
            0,
            None if bottom is None else 1,
            range(len(names), len(columns)),
        )

    def correlation(self, metric: str, arm: str) -> float | None:
        """Of a user's (linearised) value with what it is adjusted for, in an arm at the last look
        (of several columns the multiple one); None without covariates, or where nothing varies.
        """
        past = list(self.covariates.get(metric, ()))
        top, bottom = self.parts[metric]
        names = [top, *([] if bottom is None else [bottom])]
        columns = [self.variables.index(name) for name in (*names, *past)]
        where = (self.arm(arm), -1)
        _, at = ratio(self.cells.mean[where][columns], 0, None if bottom is None else 1)
        cov = self.cells.cov[where][np.ix_(columns, columns)]
        if not past or not np.isfinite(cov).all():
            return None
        k = len(names)
        own = matmul(at, matmul(cov, at))
        shared = matmul(cov, at)[k:]
        explained = matmul(shared, matmul(pseudo_inverse(cov[k:, k:]), shared))
        return float(np.sqrt(np.clip(explained / own, 0.0, 0.999999))) if own > 0 else None

    def _of_twins(
        self, cells: CellMoments, at: tuple[int, ...], columns: list[int], arms: tuple[str, str]
    ) -> Moments | None:
        """The moments of two arms with the same users, who are one sample with the variables of
        both.
        """
        assert cells.twins is not None
        first, then = map(self.arm, arms)
        square = np.ix_(columns, columns)
        between = cells.twins[(first, *at, then)][square]
        if not np.isfinite(between).all():
            between = cells.twins[(then, *at, first)][square].T
        own = [cells.cov[(arm, *at)][square] for arm in (first, then)]
        cov = np.block([[own[0], between], [between.T, own[1]]])
        if not np.isfinite(cov).all():
            return None
        mean = np.concatenate([cells.mean[(arm, *at)][columns] for arm in (first, then)])
        k = len(columns)
        places = [(start, start + 1 if k == 2 else None) for start in (0, k)]
        n = int(cells.n[(first, *at)][columns[0]])
        return paired_moments(Sample(n, mean, cov), *places)

    def peeks(self, control: str, alpha: float = ALPHA) -> list[Peeks]:
        """Looks at every metric of every arm, planned for all looks of the table; () with one look
        only.

        How Z at one look goes with Z at the next is read from the products with the look before,
        as from the rows of users. Where these are not there it is read from the variances, by
        which each look is the sum of the one before and of something independent of it (information
        as 1 / variance: Jennison & Turnbull 2000, section 3.1): users who have come since, or days
        of the same user that do not depend on one another.
        """
        if len(self.looks) < 2:
            return []
        found = []
        for arm in self.arms:
            for metric in self.metrics if arm != control else ():
                moments = [
                    self.moments(metric, control, arm, look) for look in range(len(self.looks))
                ]
                known = [m for m in moments if m is not None]
                if len(known) < len(moments):
                    continue
                if self.crossed[metric]:
                    correlations = self._successive(metric, (control, arm))
                else:
                    correlations = by_variance(np.array([[m.variance for m in known]]))[0]
                looks = sequential.looks(known, correlations, self.shares, alpha)
                found.append(Peeks(metric, arm, looks))
        return found

    def _successive(self, metric: str, arms: tuple[str, str]) -> Floats:
        """Correlations `[looks - 1]` of a comparison's estimate at successive looks, as
        `sequential.successive` has them from rows.
        """
        top, bottom = self.parts[metric]
        at = [self.variables.index(name) for name in (top, bottom) if name is not None]
        both, own = np.zeros(len(self.looks) - 1), np.zeros(len(self.looks))
        for arm in map(self.arm, arms):
            n = self.cells.n[arm][:, at[0]]
            _, gradient = ratio(self.cells.mean[arm][:, at], 0, None if bottom is None else 1)
            gradient = np.nan_to_num(gradient)
            scale = (n - 1.0) / np.square(n)
            cov = self.cells.cov[arm][:, at][:, :, at]
            own += scale * np.einsum("li,lij,lj->l", gradient, cov, gradient)
            previous = self.cells.previous[arm][1:, at][:, :, at]
            both += scale[1:] * np.einsum("li,lij,lj->l", gradient[1:], previous, gradient[:-1])
        with np.errstate(divide="ignore", invalid="ignore"):
            return both / np.sqrt(own[1:] * own[:-1])


def by_variance(variances: Floats) -> Floats:
    """Correlations `[..., looks - 1]` of estimates at successive looks of which each is the one
    before and something independent: sqrt(I_i / I_{i+1}) with I = 1 / variance; NaN without.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(np.minimum(variances[..., 1:] / variances[..., :-1], 1.0))


def shares_of(times: Floats) -> Floats:
    """How much of the test is over at each of its looks `[..., looks]`, the last one all of it.

    Whole days count from the first, which is one day long; times that are no whole numbers are
    times since the start.
    """
    whole = np.isnan(times) | (times == np.floor(times))
    with np.errstate(invalid="ignore"):
        days = times - np.nanmin(times, axis=-1, keepdims=True) + 1.0
        day = np.where(whole.all(axis=-1, keepdims=True), days, times)
        return np.asarray(day / np.nanmax(day, axis=-1, keepdims=True))
