"""Popularity by the hour of the day: what is clicked in the morning is not what is clicked at
night.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from policies.base import Catalogue, DoubleArray, Fitting, FloatArray, Histories, Sequences
from policies.elementary import exps
from policies.popularity import weighted_clicks
from policies.products import matmul
from policies.scored import Scored
from policies.time import DAY, HOUR

HOURS = DAY // HOUR


@dataclass
class Hourly(Scored):
    """The most clicked items at the hour of the request (contextual pre-filtering: Adomavicius &
    Tuzhilin, Recommender Systems Handbook, 2011), the same for everybody who asks at that hour.

    p(j | hour) is in proportion to n_j(hour) + shrink p_j: clicks near the hour, smoothed by the
    popularity p_j at all hours (Dirichlet prior: Zhai & Lafferty, TOIS 2004). A click d hours away,
    round the clock, counts exp(-(d / spread)^2 / 2), and one of an age 2^(-age / half_life).

    Attributes:
        spread: hours.
        half_life: days after which a click counts half; 0 = all clicks count the same.
        shrink: clicks near the hour that the popularity at all hours weighs as much as.
    """

    spread: Annotated[float, Field(gt=0)] = 1.0
    half_life: Annotated[float, Field(ge=0)] = 0.0
    shrink: Annotated[float, Field(ge=0)] = 10.0

    asks_for: ClassVar[tuple[str, ...]] = ("time",)
    learns: ClassVar[tuple[str, ...]] = ("hours",)
    draws_in_fit: ClassVar[bool] = False

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Count clicks by hour."""
        counts = np.zeros((HOURS, catalogue.n_items + 1))
        for clicks, weight in weighted_clicks(sequences, self.half_life):
            np.add.at(counts, (hour_of(clicks.t), clicks.items), weight)
        near = matmul(_kernel(self.spread), counts)
        share = counts.sum(axis=0) / max(counts.sum(), 1.0)
        self.counts_ = (near + self.shrink * share).astype(np.float32)
        return self

    def scores(self, histories: Histories) -> FloatArray:
        """Clicks of every item near the hour of each request, smoothed, `[B, n_items + 1]`."""
        assert histories.time is not None
        scores: FloatArray = self.counts_[hour_of(histories.time)]
        return scores

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The smoothed clicks of each hour and item, `[24, n_items + 1]`."""
        return {"counts": self.counts_}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over the smoothed clicks."""
        self.counts_ = np.asarray(state["counts"], dtype=np.float32)
        return self


def hour_of(t: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The hour of the day, 0..23, of times (ms from a midnight, before it too)."""
    return t % DAY // HOUR


def _kernel(spread: float) -> DoubleArray:
    """What a click at one hour counts at another, `[24, 24]`."""
    away = np.abs(np.arange(HOURS)[:, None] - np.arange(HOURS))
    distance = np.minimum(away, HOURS - away) / spread
    return np.asarray(exps(-0.5 * distance**2))
