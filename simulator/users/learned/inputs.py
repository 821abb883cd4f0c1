"""A history and a catalogue -> the inputs of the response model. No input of an impression comes
from its own day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policies.base import BoolArray, DoubleArray, FloatArray, IntArray, Sequences
from policies.time import DAY, HOUR
from simulator.log.kinds import FEEDBACK
from simulator.log.schema import TAB

BINS = 20
"""Quantile bins of a numeric feature; one more holds the missing values."""
RARE = 5
"""Categories with fewer users or items than this share one category: nothing can be learned of
them.
"""
DURATIONS = 24
"""Classes of duration."""
BAG = 32
"""How many of a user's latest clicks make the summary of the user's taste."""
POSITIONS = 12
"""Later positions of a request share the last one's number."""
TABS = 32
"""Numbers of surfaces that are told apart; 0 = unknown."""


@dataclass(frozen=True)
class AnsweredImpressions:
    """Impressions whose answer is complete (`simulator.log.answered`), in the order of the
    history.

    Attributes:
        user: `[N]`.
        item: `[N]`.
        day: `[N]` whole days from t = 0, negative in the history.
        hour: `[N]` 0..23.
        tab: `[N]` 0 = unknown, else 1 + the log's number.
        position: `[N]` in the request.
        click: `[N]` bool.
        watch: `[N]` s, NaN throughout where the log knows none.
        duration: `[N]` s, 0 = unknown.
        kinds: further feedback by name, `[N]` int8, -1 = not observed.
    """

    user: IntArray
    item: IntArray
    day: IntArray
    hour: IntArray
    tab: IntArray
    position: IntArray
    click: BoolArray
    watch: FloatArray
    duration: FloatArray
    kinds: dict[str, npt.NDArray[np.int8]]

    @classmethod
    def of(
        cls, history: Sequences, observed: BoolArray, duration: FloatArray
    ) -> AnsweredImpressions:
        """The impressions at `observed` `[N]`; `duration` `[n_items + 1]` stands in where the log
        has none.
        """
        columns = history.columns
        user = np.repeat(history.user, np.diff(history.offsets))[observed]
        item, t = history.items[observed], history.t[observed]
        stated = columns["duration"][observed].astype(np.float32)
        if TAB in columns:
            tab = np.nan_to_num(columns[TAB][observed], nan=-1)
        else:
            tab = np.full(len(user), -1)
        return cls(
            user,
            item,
            t // DAY,
            t % DAY // HOUR,
            surface(tab.astype(np.int64)),
            np.minimum(columns["position"][observed].astype(np.int64), POSITIONS - 1),
            history.clicked[observed],
            columns["watch"][observed].astype(np.float32),
            np.where(stated > 0, stated, duration[item]).astype(np.float32),
            {name: columns[name][observed].astype(np.int8) for name in FEEDBACK if name in columns},
        )

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, index: npt.NDArray[np.generic]) -> AnsweredImpressions:
        """The impressions at `index`."""
        fields = {
            name: getattr(self, name)[index]
            for name in self.__dataclass_fields__
            if name != "kinds"
        }
        return AnsweredImpressions(
            **fields, kinds={name: values[index] for name, values in self.kinds.items()}
        )


def surface(tab: IntArray) -> IntArray:
    """The log's `tab` (-1 = unknown) as the model's number, 0..TABS - 1."""
    return np.clip(tab + 1, 0, TABS - 1)


@dataclass(frozen=True)
class Categories:
    """Features as categories: `codes` `[n, F]`, each column already shifted so that all share one
    table of `size` rows.
    """

    codes: IntArray
    size: int

    @classmethod
    def of(cls, columns: dict[str, npt.NDArray[np.generic]], n: int) -> Categories:
        """Whole numbers are categories, floats are cut at their quantiles; ids and constants say
        nothing and are left out.
        """
        parts, size = [], 0
        for name, values in sorted(columns.items()):
            if name == "id" or values.ndim != 1:
                continue
            codes = _cut(values.astype(np.float64)) if values.dtype.kind == "f" else _common(values)
            if len(codes) and codes.min() < codes.max():
                parts.append(codes + size)
                size += int(codes.max()) + 1
        return cls(np.stack(parts, axis=1) if parts else np.zeros((n, 0), dtype=np.int64), size)


@dataclass(frozen=True)
class Features:
    """What is known of users or of items apart from the log: `categories`, and the numbers among
    them as `numbers` `[n, F]`.
    """

    categories: Categories
    numbers: FloatArray

    @classmethod
    def of(cls, columns: dict[str, npt.NDArray[np.generic]], n: int) -> Features:
        """The features in the columns of a `Catalogue`."""
        return cls(Categories.of(columns, n), _numbers(columns, n))


def _numbers(columns: dict[str, npt.NDArray[np.generic]], n: int) -> FloatArray:
    """The float columns as inputs `[n, F]`: signed ln(1 + |x|), mean 0, standard deviation 1,
    missing = 0.
    """
    parts = []
    for name, values in sorted(columns.items()):
        if name != "id" and values.ndim == 1 and values.dtype.kind == "f":
            x = np.sign(values) * np.log1p(np.abs(values.astype(np.float64)))
            # A column that never varies becomes 0, and not 0 / 0.
            x = (x - np.nanmean(x)) / max(float(np.nanstd(x)), 1e-6) if np.isfinite(x).any() else x
            parts.append(np.nan_to_num(x))
    if parts:
        return np.stack(parts, axis=1).astype(np.float32)
    return np.zeros((n, 0), dtype=np.float32)


def _cut(values: DoubleArray) -> IntArray:
    finite = values[np.isfinite(values)]
    if len(finite):
        edges = np.unique(np.quantile(finite, np.linspace(0, 1, BINS + 1)[1:-1]))
    else:
        edges = np.zeros(0)
    return np.where(
        np.isfinite(values), np.searchsorted(edges, values, side="right") + 1, 0
    ).astype(np.int64)


def _common(values: npt.NDArray[np.generic]) -> IntArray:
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    kept = counts >= RARE
    number = np.where(kept, np.cumsum(kept), 0)
    return number[codes].astype(np.int64)


class HistoryEvidence:
    """What the history says of users and items, seen from any of its days: rates, volumes, and each
    user's latest clicks.

    Of each user and of each item: impressions, clicks, ln(1 + watch) and long views of complete
    answers, and exposures and clicks of the others (a log may know of early exposures only which
    were clicked), and every kind of further feedback where it was observed. The asked day itself is
    never counted: an impression's inputs must not hold its answer. The other days of the history
    are, later ones
    too: on each day of the fit the model is then given as much as it will be given from t = 0 on.
    (Only days before: it learns from users of whom little is known yet, and takes ten impressions
    to be many.) The last day, which calibrates, has earlier days only.

    Attributes:
        width: numbers for a user or an item.
    """

    def __init__(self, history: Sequences, observed: BoolArray, n_items: int) -> None:
        self.user = np.repeat(history.user, np.diff(history.offsets))
        self.item, self.day, self.clicked = history.items, history.t // DAY, history.clicked
        self.n_users, self.n_items = int(history.user.max(initial=-1)) + 1, n_items
        watch = np.where(observed, np.log1p(np.nan_to_num(history.columns["watch"])), 0.0)
        self.values = np.stack(
            [observed, observed & self.clicked, watch, ~observed, ~observed & self.clicked],
            axis=1,
            dtype=np.float64,
            casting="unsafe",
        )
        kinds = [history.columns[name] for name in FEEDBACK if name in history.columns]
        self.values = np.concatenate(
            (
                self.values,
                *(np.stack([kind >= 0, kind == 1], axis=1).astype(np.float64) for kind in kinds),
            ),
            axis=1,
        )
        self.width = 7 + len(kinds)
        self.first_day = int(self.day[observed].min(initial=-1))
        total = self.values.sum(axis=0)
        self.kind_rates = (total[6::2] + 0.5) / (total[5::2] + 1)
        self.click_rate = (total[1] + 1) / (total[0] + 2)
        self.watch_mean = total[2] / max(total[0], 1)
        self.early_rate = (total[4] + 1) / (total[3] + 2)

    def of_users(self, user: IntArray, day: IntArray | None) -> FloatArray:
        """Numbers `[B, width]` of each user on all days but `day` `[B]` (None: on all days)."""
        return self._summary(self._sums(self.user, user, day), day)

    def of_items(self, item: IntArray, day: IntArray | None) -> FloatArray:
        """Numbers `[B, width]` of each item on all days but `day` `[B]` (None: on all days)."""
        return self._summary(self._sums(self.item, item, day), day)

    def _sums(self, entity: IntArray, asked: IntArray, day: IntArray | None) -> DoubleArray:
        order = np.lexsort((self.day, entity))
        running = np.concatenate(
            (np.zeros((1, self.values.shape[1])), np.cumsum(self.values[order], axis=0))
        )
        start = np.searchsorted(entity[order], asked, side="left")
        end, today = np.searchsorted(entity[order], asked, side="right"), np.zeros(1)
        if day is not None:
            low = min(int(self.day.min(initial=0)), int(day.min(initial=0)))
            span = max(int(self.day.max(initial=0)), int(day.max(initial=0))) - low + 1
            keys, wanted = entity[order] * span + self.day[order] - low, asked * span + day - low
            today = (
                running[np.searchsorted(keys, wanted, side="right")]
                - running[np.searchsorted(keys, wanted, side="left")]
            )
        found: DoubleArray = running[end] - running[start] - today
        return found

    def _summary(self, sums: DoubleArray, day: IntArray | None) -> FloatArray:
        """Rates as log-odds or differences, and ln(1 + volumes); the volume of complete answers is
        per day.

        A rate is shrunk towards the whole history's by a prior of 5 impressions, that of a kind of
        further feedback by 50.
        """
        n, clicks, watch, early, early_clicks = sums.T[:5]
        prior = 5.0
        rate = (clicks + prior * self.click_rate) / (n + prior)
        early_rate = (early_clicks + prior * self.early_rate) / (early + prior)
        columns = [
            _logit(rate) - _logit(np.array(self.click_rate)),
            (watch + prior * self.watch_mean) / (n + prior) - self.watch_mean,
            _logit(early_rate) - _logit(np.array(self.early_rate)),
            np.log1p(n / max(-self.first_day - (day is not None), 1)),
            np.log1p(early) / 3,
            n / (n + prior),
            early / (early + prior),
        ]
        for k, rate in enumerate(self.kind_rates):
            shrunk = (sums[:, 6 + 2 * k] + 50 * rate) / (sums[:, 5 + 2 * k] + 50)
            columns.append(_logit(shrunk) - _logit(np.array(rate)))
        return np.stack(columns, axis=1).astype(np.float32)

    def bags(self, user: IntArray, day: IntArray | None) -> IntArray:
        """The last BAG items that each user clicked before `day`, `[B, BAG]`, 0 = fewer."""
        owner = self.user[self.clicked]
        day_of = self.day[self.clicked]
        item = self.item[self.clicked]
        start = np.searchsorted(owner, user, side="left")
        if day is None:
            end = np.searchsorted(owner, user, side="right")
        else:
            low = min(int(self.day.min(initial=0)), int(day.min(initial=0)))
            span = max(int(self.day.max(initial=0)), int(day.max(initial=0))) - low + 1
            end = np.searchsorted(owner * span + day_of - low, user * span + day - low, side="left")
        place = end[:, None] - BAG + np.arange(BAG)
        real = place >= start[:, None]
        return np.where(real, item[np.where(real, place, 0)] if len(item) else 0, 0)


def _logit(p: DoubleArray) -> DoubleArray:
    return np.log(p) - np.log1p(-p)
