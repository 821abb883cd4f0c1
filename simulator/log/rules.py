"""The rules of an event log, in one place: `EventLog.validate`, `abtest report` and `abtest replay`
read a log through `inspected`, which holds every row to them.

- A row's key (arm, user, session, request, position) comes after the key of the row above, so no
    key comes twice.
- `arm`, `user`, `item` and `channel` are within what the metadata says there is.
- Within an arm, a user's time does not go back from row to row: sessions and requests are numbered
  in the order of time. Rows of equal time are allowed (the impressions of one request have one
  time, and clocks of services are coarse).
- In a log with `days`, rows of the arm `history` have t < 0, all others 0 <= t < days. A log
  without days (a history, or sessions that are not cut into an A/B) may have any time within TIME
  of t = 0.
- `watch` and `duration` are finite and not negative, `propensity` is in (0, 1]. Where nothing is
    known stands null, never NaN.
- In a log that was split by users, as its scenario says, rows are in the arm that the scenario's
    seed gives their user.
- In a log of several fits, rows are of the fit that the scenario's seed gives their user (where
    users are divided over them), and every fit of an arm has rows where it has users.
- Only NULLABLE columns have nulls.
- A part that carries a seal has the rows, the values and the metadata that were written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from policies.time import DAY
from simulator.log.metadata import FIT, HISTORY, KEY, LogError, Metadata
from simulator.log.schema import NULLABLE, LogRows

Array = npt.NDArray[Any]

TIME = 200 * 365 * DAY
"""ms. Farther from t = 0 no row lies; a time in microseconds does."""

LOST = 1e-6
"""No row of a fit is taken for loss where the chance that none of its users came is below this."""

INSPECTED = (*KEY, "t", "item", "propensity", "watch", "duration", "channel")
"""The columns that rules speak of."""


def _other_unit(t: int, end: int) -> str:
    """In what other unit a time that lies outside 0..`end` ms would make sense, in words; "" where
    in none.
    """
    for unit, a_second in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        if SINCE_1970[0] <= t / a_second <= SINCE_1970[1]:
            return f", which looks like {unit} since 1970"
    for unit, a_millisecond in (("us", 10**3), ("ns", 10**6)):
        if 10 * end <= t < end * a_millisecond:  # less is rather a day after the last
            return f", which looks like {unit}"
    return ""


SINCE_1970 = (10**9, 4 * 10**9)
"""s: times since 1970 of the years 2001 to 2096."""


class Inspector:
    """Holds the rows of a log, batch after batch, to the rules."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._history = metadata.arms.index(HISTORY) if HISTORY in metadata.arms else -1
        self._arm_of_user = metadata.arm_of_user()
        self._fits = metadata.fits
        self._fits_of_arm = metadata.fits_of_arm()
        lives = self._fits.number if self._fits.crossed else 1
        shape = (len(metadata.arms), lives, metadata.n_users)
        self._came = np.zeros(shape if self._fits.number > 1 else 0, dtype=bool)

    def inspect(self, place: str, row: int, rows: LogRows) -> None:
        """Check one stretch that follows the last one.

        Args:
            place: the part, for messages.
            row: of the part: the stretch's first.
            rows: with the columns INSPECTED at least.

        Raises:
            LogError: the first row that breaks a rule.
        """
        if not rows.n_rows:
            return
        table = rows.batch
        self._nulls(place, row, table)
        values = {name: rows[name] for name in INSPECTED}
        values[FIT] = self._fit(place, rows)
        broken = [
            (int(np.argmin(good)), name, rule)
            for name, good, rule in self._rules(values)
            if not good.all()
        ]
        broken += self._nan(table, values)
        if broken:
            bad, name, rule = min(broken, key=lambda one: one[0])
            value = table[name][bad].as_py()
            hint = _other_unit(value, self._metadata.days * DAY) if name == "t" else ""
            raise LogError(f"{place}: row {row + bad}: {name} must be {rule}; got {value!r}{hint}")
        self._split(place, row, values)
        self._divided(place, row, values)
        self._order(place, row, rows)
        if self._fits.number > 1:
            life = values[FIT] if self._fits.crossed else 0
            self._came[values["arm"], life, values["user"]] = True

    def finish(self) -> None:
        """Check what can be told when all rows are known.

        Raises:
            LogError: a fit without rows.
        """
        if self._fits.number == 1:
            return
        for arm, name in enumerate(self._metadata.arms):
            if self._fits_of_arm[arm] == 1:
                continue
            came, users = self._by_fit(arm)
            for fit in np.flatnonzero((came == 0) & (users > 0)):
                others = (came.sum() - came[fit]) / max(users.sum() - users[fit], 1)
                if (1.0 - others) ** users[fit] < LOST:
                    raise LogError(
                        f"the arm {name!r} has no row of fit {fit}, with which {users[fit]:,} users"
                        f" live, though {others:.0%} of the users of its other fits came: rows are"
                        " missing; give the whole log"
                    )

    def _by_fit(self, arm: int) -> tuple[Array, Array]:
        """Of each fit of an arm, how many users have rows, and how many live with it."""
        number = int(self._fits_of_arm[arm])
        user = np.arange(self._metadata.n_users)
        if self._arm_of_user is not None:
            user = user[self._arm_of_user == arm]
        came = self._came[arm][:, user]
        if self._fits.crossed:
            return came[:number].sum(axis=1), np.full(number, len(user))
        fit = self._fits.fit_of_user(self._metadata.scenario.get("seed", 0), user, number)
        return np.bincount(fit[came[0]], minlength=number), np.bincount(fit, minlength=number)

    def _nulls(self, place: str, row: int, table: pa.RecordBatch) -> None:
        for name in table.schema.names:
            if table[name].null_count and name not in NULLABLE:
                bad = int(np.flatnonzero(np.asarray(table[name].is_null()))[0])
                raise LogError(f"{place}: row {row + bad}: {name} must not be null")

    def _nan(
        self, table: pa.RecordBatch, values: dict[str, Array]
    ) -> Iterator[tuple[int, str, str]]:
        """NaN that is not null, in columns that may be null."""
        for name, rule in (
            ("watch", "seconds >= 0 or null"),
            ("propensity", "a probability in (0, 1] or null"),
        ):
            unknown = np.isnan(values[name])
            if int(unknown.sum()) > table[name].null_count:
                yield (
                    int(np.flatnonzero(unknown & np.asarray(table[name].is_valid()))[0]),
                    name,
                    rule,
                )

    def _rules(self, values: dict[str, Array]) -> Iterator[tuple[str, Array, str]]:
        """(column, whether each row keeps the rule, the rule)."""
        m = self._metadata
        p, w, d, t = values["propensity"], values["watch"], values["duration"], values["t"]
        yield "arm", values["arm"] < len(m.arms), f"an index below {len(m.arms)}"
        yield "user", values["user"] < m.n_users, f"a user of 0..{m.n_users - 1}"
        yield (
            "item",
            (values["item"] >= 1) & (values["item"] <= m.n_items),
            f"an item of 1..{m.n_items}",
        )
        yield "channel", values["channel"] <= len(m.channels), f"a channel of 0..{len(m.channels)}"
        yield "duration", np.isfinite(d) & (d >= 0), "seconds >= 0"
        with np.errstate(invalid="ignore"):
            yield "watch", np.isnan(w) | ((w >= 0) & np.isfinite(w)), "seconds >= 0 or null"
            yield (
                "propensity",
                np.isnan(p) | ((p > 0) & (p <= 1)),
                "a probability in (0, 1] or null",
            )
        if not m.days:
            yield "t", (t >= -TIME) & (t <= TIME), "ms, at most 200 years from the start (t = 0)"
            return
        past = values["arm"] == self._history
        yield (
            "t",
            ~past | ((t < 0) & (t >= -TIME)),
            f"ms before the start, below 0, in the arm {HISTORY!r}",
        )
        end = m.days * DAY
        rule = (
            f"ms within the {m.days} days of the A/B, 0..{end - 1} (from its start, not from 1970)"
        )
        yield "t", past | ((t >= 0) & (t < end)), rule

    def _split(self, place: str, row: int, values: dict[str, Array]) -> None:
        """Rows of the A/B are in the arm of their user."""
        if self._arm_of_user is None:
            return
        arm, user = values["arm"], values["user"]
        strange = (arm != self._history) & (arm != self._arm_of_user[user])
        if strange.any():
            bad = int(np.argmax(strange))
            arms, theirs = self._metadata.arms, int(self._arm_of_user[user[bad]])
            raise LogError(
                f"{place}: row {row + bad}: arm must be that of its user: the scenario's seed gives"
                f" user {user[bad]} the arm {arms[theirs]!r}; got {arms[int(arm[bad])]!r}"
            )

    def _fit(self, place: str, rows: LogRows) -> Array:
        """The fit of each row; 0 in a log without the column, which must be of one fit."""
        if FIT in rows.batch.schema.names:
            return rows[FIT]
        if self._fits.number > 1:
            raise LogError(
                f"{place}: column {FIT!r} is missing: the scenario has {self._fits.number} fits"
            )
        return np.zeros(rows.n_rows, dtype=np.uint8)

    def _divided(self, place: str, row: int, values: dict[str, Array]) -> None:
        """Each fit is one that its arm has, and of a user whom the fits divide, the user's."""
        arm, user, fit = values["arm"], values["user"], values[FIT]
        number = self._fits_of_arm[arm]
        seed = self._metadata.scenario.get("seed")
        theirs = fit
        if self._fits.number > 1 and not self._fits.crossed and seed is not None:
            theirs = self._fits.fit_of_user(seed, user.astype(np.int64), number)
        strange = (fit >= number) | (fit != theirs)
        if strange.any():
            bad = int(np.argmax(strange))
            name = self._metadata.arms[int(arm[bad])]
            rule = f"below {number[bad]}, the number of fits of the arm {name!r}"
            if fit[bad] < number[bad]:
                rule = f"that of its user: the scenario's seed gives user {user[bad]} the fit"
                rule = f"{rule} {theirs[bad]} of the arm {name!r}"
            raise LogError(f"{place}: row {row + bad}: {FIT} must be {rule}; got {int(fit[bad])}")

    def _order(self, place: str, row: int, rows: LogRows) -> None:
        """Keys ascend, and a user's time does not go back, from the last stretch on."""
        strange = rows.falls(rows.key) | ~rows.begins[rows.key[-1]]
        if strange.any():
            bad = int(np.argmax(strange))
            above, here = (tuple(rows.value(name, i) for name in rows.key) for i in (bad - 1, bad))
            raise LogError(
                f"{place}: row {row + bad}: key {rows.key} = {here} must come after {above}:"
                " unsorted or twice"
            )
        back = rows.beside_above("t", np.less) & ~rows.begins["user"]
        if back.any():
            bad = int(np.argmax(back))
            raise LogError(
                f"{place}: row {row + bad}: t = {rows.value('t', bad)} ms is before that of the row"
                f" above ({rows.value('t', bad - 1)} ms): sessions and requests of user"
                f" {rows.value('user', bad)} must be numbered in the order of time"
            )
