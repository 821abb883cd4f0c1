"""`World`: the hidden truth of a synthetic world, drawn once from a seed; what happens to its users
over time is in `people`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import Catalogue, DoubleArray, IntArray
from policies.streams import Purpose, uniform
from simulator.users.choice.parameters import ChoiceParameters

(
    _TAG_CENTRE,
    _AUTHOR_TAG,
    _AUTHOR_PLACE,
    _ITEM_AUTHOR,
    _ITEM_TAG,
    _ITEM_OFF,
    _ITEM_PLACE,
    _ITEM_QUALITY,
    _ITEM_DURATION,
) = range(1, 10)
_USER_LEVEL, _USER_RATE = range(20, 22)
"""What a world number decides: the `step` of `uniform(seed, Purpose.WORLD, index, step, lane)`."""

SELDOM = 1e-9
"""Sessions per day of who does not come: a small `arrival.shape` gives rates that are 0 in every
bit, and waits that no clock holds.
"""


@dataclass(frozen=True)
class World:
    """The truth that no policy under test sees, except for the columns that `catalogue` gives out.

    Attributes:
        video: `[n_items + 1, >= D + 2]` of each video (1..n_items; row 0 is padding in all columns
            of videos) its place, appeal and duration: side by side, because an impression reads
            them all. Rows are whole cache lines.
        author: `[n_items + 1]` int64 from 0.
        tag: `[n_items + 1]` int64 from 0.
        centres: `[tags, D]` the tags' centres, of length 1.
        tag_cdf: `[tags]` cumulative popularity of tags among interests.
        onward: `[n_items + 1, D]` where a click on each video leads, of length 1, in a world of
            successions; else None.
    """

    video: DoubleArray
    author: IntArray
    tag: IntArray
    centres: DoubleArray
    tag_cdf: DoubleArray
    onward: DoubleArray | None = None

    @property
    def n_items(self) -> int:
        return len(self.author) - 1

    @property
    def dimensions(self) -> int:
        """D, of the latent space."""
        return int(self.centres.shape[1])

    @property
    def place(self) -> DoubleArray:
        """`[n_items + 1, D]` latent vectors of length 1."""
        return self.video[:, : self.dimensions]

    @property
    def appeal(self) -> DoubleArray:
        """`[n_items + 1]` the video's own part of the click's logit: quality and duration."""
        return self.video[:, self.dimensions]

    @property
    def duration(self) -> DoubleArray:
        """`[n_items + 1]` s."""
        return self.video[:, self.dimensions + 1]

    def truth(self) -> dict[str, npt.NDArray[Any]]:
        """Its arrays by name, of which `World(**truth)` is made again."""
        return {name: array for name, array in vars(self).items() if array is not None}

    @classmethod
    def draw(cls, choice: ChoiceParameters, seed: int) -> World:
        """The world of these parameters and this seed; every number is keyed by what it decides."""
        from policies import elementary

        videos = choice.videos
        affinity = choice.affinity
        n = choice.n_items
        d = choice.interests.dimensions
        item = np.arange(1, n + 1)
        tag_cdf = _zipf_cdf(videos.tags, videos.tag_zipf)
        author_cdf = _zipf_cdf(videos.authors, videos.author_zipf)
        centres = unit(normal(seed, np.arange(videos.tags), _TAG_CENTRE, d))
        main_tag = _pick(tag_cdf, seed, np.arange(videos.authors), _AUTHOR_TAG)
        deviation = (
            unit(normal(seed, np.arange(videos.authors), _AUTHOR_PLACE, d)) * videos.author_spread
        )
        author = _pick(author_cdf, seed, item, _ITEM_AUTHOR)
        off = uniform(seed, Purpose.WORLD, item, _ITEM_OFF) < videos.off_tag
        tag = np.where(off, _pick(tag_cdf, seed, item, _ITEM_TAG), main_tag[author])
        own = unit(normal(seed, item, _ITEM_PLACE, d)) * videos.spread
        quantiles = dict(sorted(videos.duration.items()))
        rank = uniform(seed, Purpose.WORLD, item, _ITEM_DURATION)
        duration = elementary.exps(
            np.interp(rank, list(quantiles), elementary.logs(np.array([*quantiles.values()])))
        )
        offsets = dict(sorted(affinity.duration.items()))
        appeal = affinity.quality * normal(seed, item, _ITEM_QUALITY, 1)[:, 0]
        appeal += np.interp(
            elementary.logs(duration), elementary.logs(np.array([*offsets])), list(offsets.values())
        )
        video = np.zeros((n + 1, -(-(d + 2) // 8) * 8))
        video[1:, :d] = unit(centres[tag] + deviation[author] + own)
        video[1:, d], video[1:, d + 1] = appeal, duration
        return cls(video, _pad(author), _pad(tag), centres, tag_cdf)

    def catalogue(self, n_users: int) -> Catalogue:
        """The columns that a real log shows."""
        columns: dict[str, npt.NDArray[Any]] = {
            "duration": self.duration.astype(np.float32),
            "author": self.author,
            "tag": self.tag,
        }
        return Catalogue(n_users, self.n_items, columns)


def people(choice: ChoiceParameters, seed: int, user: IntArray) -> tuple[DoubleArray, DoubleArray]:
    """(the user's own part of the click's logit, base included; sessions per day) of users, `[n]`
    each: active users are pickier where `affinity.activity` is negative.
    """
    from policies.elementary import gamma_quantiles, normal_quantiles

    arrival, affinity = choice.arrival, choice.affinity
    rank = uniform(seed, Purpose.WORLD, user, _USER_RATE) + 2.0**-54
    rate = gamma_quantiles(arrival.shape, rank) * (arrival.per_day / arrival.shape)
    level = (
        affinity.base
        + affinity.user * normal(seed, user, _USER_LEVEL, 1)[:, 0]
        + affinity.activity * normal_quantiles(rank)
    )
    return level, np.clip(rate, SELDOM, arrival.busiest)


def _zipf_cdf(n: int, exponent: float) -> DoubleArray:
    """Cumulative shares `[n]` of the ranks 1..n, each in proportion to rank^-exponent."""
    from policies.elementary import powers

    weight = powers(np.arange(1, n + 1, dtype=np.float64), -exponent)
    return np.asarray(np.cumsum(weight) / weight.sum())


def _pick(cdf: DoubleArray, seed: int, index: IntArray, what: int) -> IntArray:
    return np.minimum(
        np.searchsorted(cdf, uniform(seed, Purpose.WORLD, index, what), side="right"), len(cdf) - 1
    )


def normal(seed: int, index: IntArray, what: int, d: int) -> DoubleArray:
    """Standard normal `[n, d]`."""
    from policies.elementary import normal_quantiles

    return np.asarray(
        normal_quantiles(
            uniform(seed, Purpose.WORLD, index[:, None], what, np.arange(d)) + 2.0**-54
        )
    )


def unit(vectors: DoubleArray) -> DoubleArray:
    return np.asarray(vectors / np.sqrt((vectors * vectors).sum(axis=1, keepdims=True)))


def _pad(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The column with a first row of zeros for the padding id."""
    return np.concatenate((np.zeros_like(column[:1]), column))
