"""`LivingCatalogue`: a catalogue from midnight to midnight - what is there, what comes, what goes,
and who still makes something.

All that is random is keyed by the item (`Purpose.UPLOAD`): when it would be uploaded, and how much
of an audience its creator wants for it. So arms share both, and differ in what they did to the
creators alone. What a day did is known when all users have lived through it, wherever they were
simulated; so creators answer, and items are removed, at midnight, and uploads of the day are
decided then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from policies.base import BoolArray, Catalogue, DoubleArray, IntArray
from policies.streams import Purpose, uniform
from policies.time import DAY
from simulator.living.creators import Items

_WHEN, _WANTED = range(2)
"""What a number decides: the `step` of `uniform(seed, Purpose.UPLOAD, item, step)`."""

NEVER = int(np.iinfo(np.int64).max)
"""The day on which somebody stops who does not."""

STOPPED, UPLOADED, REMOVED, PRESENT = range(4)
"""Columns of `LivingCatalogue.record`: creators who have stopped, items that appeared on the day,
items that were removed at its beginning, items that could be shown at its end.
"""


@dataclass(frozen=True)
class Uploads:
    """What no arm changes: when each item would be uploaded, and by whom.

    Attributes:
        items: the section.
        first_day: of the history, at most 0.
        release: `[n_items + 1]` ms at which each item would appear; that of the padding is 0.
        author: `[n_items + 1]` from 0.
        wanted: `[n_items + 1]` in [0, 1): it is uploaded where the creator's readiness is above.
    """

    items: Items
    first_day: int
    release: IntArray
    author: IntArray
    wanted: DoubleArray

    @classmethod
    def draw(cls, items: Items, author: IntArray, seed: int, first_day: int) -> Self:
        """The uploads of a world; `author` `[n_items + 1]`, of its catalogue."""
        number = np.arange(1, len(author))
        when = number - 1 - items.at_start + uniform(seed, Purpose.UPLOAD, number, _WHEN)
        step = DAY // items.releases
        release = np.ceil((first_day + when / items.uploads) * items.releases).astype(np.int64)
        wanted = uniform(seed, Purpose.UPLOAD, number, _WANTED)
        return cls(
            items,
            first_day,
            np.concatenate(([0], release * step)),
            np.asarray(author, dtype=np.int64),
            np.concatenate(([1.0], wanted)),
        )

    @property
    def n_creators(self) -> int:
        """Creators are numbered 0..n_creators-1; some may have no item."""
        return int(self.author[1:].max(initial=-1)) + 1

    @cached_property
    def is_creator(self) -> BoolArray:
        """`[n_creators]` who has at least one item."""
        return np.bincount(self.author[1:], minlength=self.n_creators) > 0

    def ages(self, day: int) -> IntArray:
        """`[n_items + 1]` whole days from the day of upload to `day`."""
        return day - self.release // DAY

    def fading(self, day: int) -> DoubleArray:
        """`[n_items + 1]` what is added to the logit of a click on each item on `day`."""
        return -self.items.decay * np.maximum(self.ages(day), 0)

    def columns(self, base: Catalogue) -> Catalogue:
        """The catalogue with `uploaded`: days before the start of the A/B."""
        uploaded = -self.release / DAY
        return replace(base, items={**base.items, "uploaded": uploaded})

    def told(self, base: Catalogue, known: BoolArray, removed: BoolArray) -> Catalogue:
        """The catalogue of those who know of the items `known` `[n_items + 1]` alone: the others
        have the columns of padding.

        Args:
            base: the whole catalogue.
            known: what has appeared.
            removed: what may not be shown any more.
        """
        columns = {name: _where(known, values) for name, values in base.items.items()}
        columns["uploaded"] = np.where(known, -self.release / DAY, np.nan)
        return replace(base, items=columns, available=known & ~removed)

    def born(self) -> LivingCatalogue:
        """The catalogue as the history begins: the stock, without what is too old, and the first
        day's uploads.
        """
        n, day = len(self.release), self.first_day
        is_item = np.arange(n) > 0
        uploaded = is_item & (self.release < (day + 1) * DAY)
        removed = uploaded & (self.ages(day) >= self.items.remove_after)
        life = LivingCatalogue(
            day,
            uploaded,
            removed,
            np.zeros(n, dtype=np.int64),
            np.zeros((self.items.creators.window, self.n_creators), dtype=np.int64),
            np.full(self.n_creators, NEVER),
            np.zeros((0, 4), dtype=np.int64),
        )
        came = int((uploaded & (self.release >= day * DAY)).sum())
        return life.recorded(came, int(removed.sum()))


@dataclass(frozen=True)
class LivingCatalogue:
    """A catalogue on one day.

    Attributes:
        day: number of the day; that of the A/B's start is 0.
        uploaded: `[n_items + 1]` what has appeared by the end of the day.
        removed: `[n_items + 1]` what was removed by its beginning.
        clicks: `[n_items + 1]` clicks before the day.
        recent: `[window, creators]` impressions (clicks) of each creator on the days before, the
            last one last.
        stopped_on: `[creators]` the day from which on each uploads no more; NEVER: still does.
        record: `[days, 4]` counts of each day from the first of the history on (STOPPED, ...).
    """

    day: int
    uploaded: BoolArray
    removed: BoolArray
    clicks: IntArray
    recent: IntArray
    stopped_on: IntArray
    record: IntArray

    def recorded(self, came: int, went: int) -> LivingCatalogue:
        """The same with the counts of its day."""
        present = int((self.uploaded & ~self.removed).sum())
        counts = [[int((self.stopped_on <= self.day).sum()), came, went, present]]
        return replace(self, record=np.concatenate((self.record, np.array(counts))))

    def known(self, uploads: Uploads, t: int) -> BoolArray:
        """`[n_items + 1]` what has appeared by `t` (ms), within the day."""
        return self.uploaded & (uploads.release <= t)

    def available(self, uploads: Uploads, t: int) -> BoolArray:
        """`[n_items + 1]` what may be shown at `t` (ms), within the day."""
        return self.known(uploads, t) & ~self.removed

    def releases(self, uploads: Uploads) -> list[int]:
        """The times (ms) after midnight at which something appears, ascending."""
        midnight = self.day * DAY
        later = self.uploaded & (uploads.release > midnight)
        return [int(t) for t in np.unique(uploads.release[later])]

    def catalogue(self, uploads: Uploads, base: Catalogue, t: int) -> Catalogue:
        """What may be known at `t`: the columns of what has appeared, those of padding for the
        rest.

        Args:
            uploads: of the world.
            base: the whole catalogue.
            t: ms, within the day.
        """
        return uploads.told(base, self.known(uploads, t), self.removed)

    def after(self, uploads: Uploads, shown: IntArray, clicked: IntArray) -> LivingCatalogue:
        """The catalogue on the next day.

        Args:
            uploads: of the world.
            shown, clicked: `[n_items + 1]` impressions and clicks of the day, of all users.
        """
        items, day, author = uploads.items, self.day + 1, uploads.author
        creators, clicks = items.creators, self.clicks + clicked
        counted = shown if creators.reacts_to == "impressions" else clicked
        today = np.bincount(author[1:], counted[1:], uploads.n_creators).astype(np.int64)
        recent = np.concatenate((self.recent[1:], today[None]))
        audience = recent.sum(axis=0)
        begun = np.full(uploads.n_creators, NEVER)
        np.minimum.at(begun, author[self.uploaded], uploads.release[self.uploaded])
        since = max(uploads.first_day, day - creators.window) * DAY
        is_seen = (audience >= creators.least) | (begun > since)
        is_whole = day - uploads.first_day >= creators.window
        stops = ~is_seen & is_whole & (self.stopped_on == NEVER)
        stopped_on = np.where(stops, day, self.stopped_on)
        stopped = stopped_on <= day
        ages = uploads.ages(day)
        expired = ages >= items.remove_after
        new_here = uploads.release >= uploads.first_day * DAY
        expired |= new_here & (ages >= items.trial_days) & (clicks < items.trial_clicks)
        removed = self.removed | (self.uploaded & expired)
        comes = (ages == 0) & (np.arange(len(ages)) > 0) & ~stopped[author]
        comes &= uploads.wanted < _readiness(audience, begun, stopped, uploads)[author]
        next_day = LivingCatalogue(
            day, self.uploaded | comes, removed, clicks, recent, stopped_on, self.record
        )
        return next_day.recorded(int(comes.sum()), int((removed & ~self.removed).sum()))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All fields as arrays."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def restore(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The catalogue whose `state` was given."""
        columns: dict[str, Any] = {f.name: np.array(state[f.name]) for f in fields(cls)}
        return cls(**{**columns, "day": int(state["day"])})


def _readiness(
    audience: IntArray, begun: IntArray, stopped: BoolArray, uploads: Uploads
) -> DoubleArray:
    """The share of his uploads that each creator makes, `[creators]`: r / (r + half), r being the
    audience as a share of the mean of those who have uploaded something and have not stopped; 1 of
    one who has uploaded nothing yet.
    """
    has_begun = begun < NEVER
    counts = has_begun & ~stopped
    mean = audience[counts].sum() / max(int(counts.sum()), 1)
    half = uploads.items.creators.half * mean
    with_audience = audience / np.maximum(audience + half, np.finfo(np.float64).tiny)
    ready: DoubleArray = np.where(has_begun & (half > 0), with_audience, 1.0)
    return ready


def _where(known: BoolArray, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values of what is known, zero elsewhere."""
    out = np.zeros_like(values)
    out[known] = values[known]
    return out
