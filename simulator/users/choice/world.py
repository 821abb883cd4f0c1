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
        n_users: users are 0..n_users-1.
        n_items: videos are 1..n_items.
        duration: `[n_items + 1]` s; row 0 is padding in all columns of videos.
        author: `[n_items + 1]` int64 from 0.
        tag: `[n_items + 1]` int64 from 0.
        place: `[n_items + 1, D]` latent vectors of length 1.
        appeal: `[n_items + 1]` the video's own part of the click's logit: quality and duration.
        centres: `[tags, D]` the tags' centres, of length 1.
        tag_cdf: `[tags]` cumulative popularity of tags among interests.
    """

    n_users: int
    n_items: int
    duration: DoubleArray
    author: IntArray
    tag: IntArray
    place: DoubleArray
    appeal: DoubleArray
    centres: DoubleArray
    tag_cdf: DoubleArray

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
        return cls(
            choice.n_users,
            n,
            _pad(duration),
            _pad(author),
            _pad(tag),
            _pad(unit(centres[tag] + deviation[author] + own)),
            _pad(appeal),
            centres,
            tag_cdf,
        )

    def catalogue(self) -> Catalogue:
        """The columns that a real log shows."""
        columns: dict[str, npt.NDArray[Any]] = {
            "duration": self.duration.astype(np.float32),
            "author": self.author,
            "tag": self.tag,
        }
        return Catalogue(self.n_users, self.n_items, columns)


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
