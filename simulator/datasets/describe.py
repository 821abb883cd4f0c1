"""What a table of interactions is likely to hold: a guess for each column and why, what is odd
about the rows, and the `data:` section that reads it.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from simulator.datasets import table_cells as cells
from simulator.datasets.batches import TableBatch, Tabular, plain, tabular
from simulator.datasets.delimited import DataError
from simulator.datasets.table import Interactions
from simulator.datasets.table_cells import Cells, flattened
from simulator.log.kinds import FEEDBACK
from simulator.scenario.parts import Data
from simulator.scenario.tables import READY, ColumnSpec, TextLayout

NAMES: dict[str, Sequence[str]] = {
    "user": ("user", "userid", "uid", "who", "visitor", "visitorid", "customer", "customerid",
             "member", "memberid", "reviewerid", "viewerid", "deviceid"),
    "item": ("item", "itemid", "iid", "what", "movie", "movieid", "video", "videoid", "photoid",
             "product", "productid", "article", "articleid", "news", "newsid", "asin", "book",
             "bookid", "track", "trackid", "song", "songid", "businessid", "parentasin", "campaign",
             "adid", "sku"),
    "time": ("time", "timestamp", "ts", "when", "datetime", "eventtime", "eventtimestamp",
             "createdat", "date", "unixreviewtime", "impressiontime", "eventat", "clicktime"),
    "click": ("click", "clicked", "isclick", "yes", "label", "rating", "stars", "score", "overall",
              "watchratio", "preference"),
    "watch": ("watch", "watchtime", "playtime", "playduration", "dwell", "dwelltime", "readtime",
              "listentime", "msplayed"),
    "duration": ("duration", "videoduration", "length", "tracklength"),
    "session": ("session", "sessionid", "visit", "visitid"),
    "request": ("request", "requestid", "impressionid", "slate", "slateid", "listid", "pageid"),
    "position": ("position", "pos", "place", "rank", "slot"),
    "propensity": ("propensity", "propensityscore", "prob", "probability", "pscore"),
    "tab": ("tab", "surface"),
    "like": ("islike", "liked"), "comment": ("iscomment", "commented"),
    "forward": ("isforward", "share", "shared", "isshare", "forwarded"),
    "follow": ("isfollow", "followed"), "hate": ("ishate", "dislike", "hated"),
    "profile_enter": ("isprofileenter", "profileenter"), "long_view": ("islongview", "longview"),
}  # fmt: skip
"""What columns are called, in letters and digits only; every role also goes by its own name."""

DELIMITERS = (",", "\t", "::", ";", "|")

SCALE = 0.8
"""Of a scale of ratings, the part from which on one is taken for a click: 4 of 5, 8 of 10."""

FEW = 0.005
"""A log of which so small a part is of its last days is not cut by days."""


@dataclass(frozen=True)
class ColumnGuess:
    """What a column is taken for.

    Attributes:
        name: of the column.
        type: as the table has it.
        examples: its first values.
        role: as `data.columns` calls it; None where nothing is to be done with it.
        spec: how its cells are read then.
        why: one reason.
    """

    name: str
    type: str
    examples: tuple[Any, ...]
    role: str | None
    spec: ColumnSpec | None
    why: str


@dataclass(frozen=True)
class TableDescription:
    """A table of interactions described.

    Attributes:
        format: the published data set that it is, or None.
        columns: a guess for each.
        counts: what was counted, in words.
        odd: what is odd about the rows, in words, with its count.
        section: the `data:` section that reads it, as plain values; empty where user or item is
            not to be guessed.
        why: why the section says how the A/B is cut.
    """

    format: str | None
    columns: list[ColumnGuess]
    counts: dict[str, str]
    odd: dict[str, int]
    section: dict[str, Any]
    why: str


def describe(
    source: Any, now: datetime | None = None, roles: Mapping[str, str] = MappingProxyType({})
) -> TableDescription:
    """Describe a table: a path, or an object with `__arrow_c_stream__` that can be read twice.

    Args:
        source: as `batches.tabular` takes it.
        now: times after it are in the future; the clock's if left out.
        roles: columns by role that need no guess.

    Raises:
        DataError: what cannot be read as a table; a column of `roles` that it does not have, or
            whose values cannot be that.
    """
    path = Path(source) if isinstance(source, (str, Path)) else None
    name = _format_of(path) if path and not roles else None
    if name is not None:
        assert path is not None
        stated: dict[str, Any] = {"source": "table", "path": str(path), "format": name}
        data = Data.model_validate(stated)
        table = tabular(source, data.text, data.files)
        guesses = _stated(table, data, name)
    else:
        layout = _layout(path) if path else TextLayout()
        table = tabular(source, layout)
        guesses = _guesses(table, roles)
        stated = {"source": "table", "path": str(path) if path else "TABLE.parquet"}
        text = layout.model_dump(exclude_defaults=True)
        stated |= {"text": text} if text else {}
        stated["columns"] = {
            guess.role: _short(guess.spec) for guess in guesses if guess.role and guess.spec
        }
        if any(guess.why.endswith(NO_ZONE) for guess in guesses):
            stated["zone"] = "UTC"
    if "columns" in stated and not {"user", "item"} <= stated["columns"].keys():
        return TableDescription(None, guesses, {}, {}, {}, "")
    data = Data.model_validate(stated)
    again = tabular(source, data.text, data.files)
    rows = Interactions.of(again, data.model_copy(update={"missing": "drop"}))
    counts, odd, late = _counted(rows, data, now or datetime.now(UTC))
    if any(words.startswith("rows without") for words in odd) and data.missing == "refuse":
        stated["missing"] = "drop"
    why = "the last click of every user is held out, since there are no times"
    if "time" in data.columns:
        why = f"the last {data.test_days} days are the A/B; they have {late:.1%} of the rows"
        if not FEW <= late < 1:
            stated["split"] = "last"
            why = f"the last click of every user is held out, since the last {data.test_days} days"
            why += f" have {late:.1%} of the rows"
    return TableDescription(name, guesses, counts, odd, stated, why)


def _format_of(path: Path) -> str | None:
    """The published data set whose file this is, by its name where it has no header, else by its
    columns.
    """
    for name, keys in READY.items():
        wanted = {
            one if isinstance(one, str) else one["column"] for one in keys["columns"].values()
        }
        pattern = keys.get("files")
        layout = TextLayout.model_validate(keys.get("text", {}))
        if layout.names:
            if pattern and ((path.is_dir() and any(path.glob(pattern))) or _is(path, pattern)):
                return name
            continue
        if path.is_dir() and not (pattern and any(path.glob(pattern))):
            continue
        if path.is_file() and _layout(path).delimiter:
            continue
        if wanted <= set(tabular(path, layout, pattern).names):
            return name
    return None


def _is(path: Path, pattern: str) -> bool:
    return path.is_file() and fnmatch.fnmatch(path.name, pattern)


def _layout(path: Path) -> TextLayout:
    """The delimiter of a text file where it is not the one of its ending, and names where its first
    line has none.
    """
    try:
        names = tabular(path).names
    except DataError as error:
        if "two columns are called" not in str(error):
            raise
        names = ["0"]  # numbers, twice the same
    layout: dict[str, Any] = {}
    if len(names) == 1:
        delimiter = next((one for one in DELIMITERS if one in names[0]), None)
        if delimiter is not None:
            layout["delimiter"] = delimiter
            names = names[0].split(delimiter)
    if all(re.fullmatch(cells.NUMBER, name) for name in names):
        layout["names"] = tuple(f"column_{place}" for place in range(1, len(names) + 1))
    return TextLayout.model_validate(layout)


def _head(table: Tabular) -> TableBatch:
    for batch in table.batches([name for name in table.names if name]):
        return batch
    raise DataError(f"{table.name}: no interactions there")


def _stated(table: Tabular, data: Data, name: str) -> list[ColumnGuess]:
    """The columns as a format says them."""
    batch = _head(table)
    why = f"format {name}"
    guesses = []
    for column in batch.table.column_names:
        roles = [role for role, spec in data.columns.items() if spec.column == column]
        spec = data.columns[roles[0]] if roles else None
        role = " and ".join(roles) if roles else None
        guesses.append(_guess(batch, column, role, spec, why if roles else ""))
    return guesses


def _guess(
    batch: TableBatch, column: str, role: str | None, spec: ColumnSpec | None, why: str
) -> ColumnGuess:
    values = batch.table[column]
    first = [cells.in_python(value) for value in values.drop_null().slice(0, 100)]
    examples = tuple({str(value): value for value in first}.values())[:3]
    return ColumnGuess(column, str(values.type), examples, role, spec, why)


def _guesses(table: Tabular, roles: Mapping[str, str]) -> list[ColumnGuess]:
    """A guess for each column, by its name and then by its values; a role goes to its column in
    `roles`, else to the first one that fits.
    """
    for role, column in roles.items():
        if column not in table.names:
            there = ", ".join(name for name in table.names if name)
            raise DataError(f"{table.name}: no column {column!r} for {role}; it has {there}")
    given = {column: role for role, column in roles.items()}
    batch = _head(table)
    taken: dict[str, ColumnGuess] = {}
    guesses = []
    for column in batch.table.column_names:
        named = given.get(column) or _role_called(column)
        if named is not None and named in roles and column not in given:
            why = f"{roles[named]} is the {named}"
            guesses.append(_guess(batch, column, None, None, why))
            continue
        if named is None:
            guesses.append(_guess(batch, column, None, None, "its name says nothing"))
            continue
        if named in taken:
            why = f"{taken[named].name} is the {named} already"
            guesses.append(_guess(batch, column, None, None, why))
            continue
        values = flattened(plain(batch.table[column]))
        cell = Cells(named, ColumnSpec(column=column), values, batch.place)
        try:
            spec, why = _spec(named, cell)
        except DataError as error:
            if column in given:
                raise
            reason = str(error).partition(" must be ")[2] or str(error)
            why = f"called like a {named}, which must be {reason}"
            guesses.append(_guess(batch, column, None, None, why))
            continue
        taken[named] = _guess(batch, column, named, spec, why)
        guesses.append(taken[named])
    return guesses


def _role_called(column: str) -> str | None:
    """The role whose name a column has, written in whatever way and with or without its unit."""
    plain = re.sub(r"[^a-z0-9]", "", column.lower())
    for role, names in NAMES.items():
        spellings = (role.replace("_", ""), *names)
        if {plain, plain.removesuffix("ms"), plain.removesuffix("seconds")} & {*spellings}:
            return role
    return None


NO_ZONE = "without a zone, taken for UTC"


def _spec(role: str, column: Cells) -> tuple[ColumnSpec, str]:
    """How the cells of a column are read that is called like `role`, and why.

    Raises:
        DataError: its values cannot be that.
    """
    if role in ("user", "item", "session", "request"):
        distinct = len(pc.unique(cells.ids(column)))
        return column.spec, f"its name; {distinct:,} different in the first {len(column.values):,}"
    if role == "time":
        return _time(column)
    if role in ("watch", "duration"):
        return _length(column)
    if role == "click" or role in FEEDBACK:
        return _answer(role, column)
    reader = {"position": cells.positions, "propensity": cells.shares, "tab": cells.surfaces}[role]
    reader(column)
    return column.spec, "its name, and every value can be that"


def _time(column: Cells) -> tuple[ColumnSpec, str]:
    read = cells.TimeReader(None)
    why = "its name, and every value is a time"
    try:
        first = read(column)
    except DataError as error:
        if "time without a zone" in str(error):
            first, why = cells.TimeReader("UTC")(column), f"its name; times {NO_ZONE}"
        elif "are no times since 1970" in str(error):
            spec = column.spec.model_copy(update={"unit": "s"})
            cells.TimeReader(None)(_with(column, spec))
            return spec, "its name; numbers from no known date, taken for s"
        else:
            raise
    if read.unit is not None:
        spec = column.spec.model_copy(update={"unit": read.unit})
        there = datetime.fromtimestamp(int(first[0]) / 1e6, UTC)
        return spec, f"its name; in {read.unit} since 1970 the first is of {there:%Y-%m-%d}"
    return column.spec, why


def _length(column: Cells) -> tuple[ColumnSpec, str]:
    value = cells.lengths(column)
    in_ms = re.search(r"ms|milli", column.spec.column.lower())
    half = float(np.nanmedian(value)) if np.isfinite(value).any() else 0.0
    if in_ms or half > 1000:
        why = "its name says ms" if in_ms else f"half are above {half:,.0f}: ms"
        return column.spec.model_copy(update={"unit": "ms"}), why
    return column.spec, f"its name; half are above {half:,.3g}: s"


def _answer(role: str, column: Cells) -> tuple[ColumnSpec, str]:
    try:
        share = cells.answers(column)
    except DataError:
        value = cells.numbers(column)
        high = float(np.nanmax(value))
        limit = round(SCALE * high, 6)
        spec = column.spec.model_copy(update={"at_least": limit})
        scale = f"{np.nanmin(value):g} to {high:g}"
        return spec, f"its name; a scale of {scale}: from {limit:g} on taken for a {role}"
    answered = int((share >= 0).sum())
    return column.spec, f"its name; 0 or 1, {(share == 1).sum() / max(answered, 1):.1%} are 1"


def _with(column: Cells, spec: ColumnSpec) -> Cells:
    return Cells(column.role, spec, column.values, column.place)


def _short(spec: ColumnSpec) -> Any:
    """A column as one writes it: its name where that says all."""
    keys = spec.model_dump(exclude_defaults=True)
    return keys["column"] if len(keys) == 1 else keys


def _counted(
    rows: Interactions, data: Data, now: datetime
) -> tuple[dict[str, str], dict[str, int], float]:
    """What there is, what is odd, and the share of rows of the last `data.test_days` days."""
    timed = "time" in data.columns
    start = cells.midnight(rows.last, data.zone, data.test_days) if rows.n_rows else 0
    unsorted = repeated = future = late = clicks = answered = 0
    first = rows.last
    one_click = 0
    for row, columns in rows.rows.groups(rows.counts) if rows.n_rows else ():
        order = np.lexsort((row, columns["user"]))
        user, us = columns["user"][order], columns["us"][order]
        click = columns.get("click", np.ones(len(user), dtype=np.int8))
        per_user = np.bincount(columns["user"][click == 1], minlength=len(rows.counts))
        one_click += int((per_user == 1).sum())
        clicks += int((click == 1).sum())
        answered += int((click >= 0).sum())
        if not timed:
            continue
        unsorted += int(((np.diff(us) < 0) & (np.diff(user) == 0)).sum())
        repeated += int(pd.DataFrame(columns).duplicated().sum())
        future += int((us > now.timestamp() * 1e6).sum())
        late += int((us >= start).sum())
        first = min(first, int(us.min()))
    counts = {
        "rows": f"{rows.notes['rows read']:,}",
        "users": f"{len(rows.users.of):,}",
        "items": f"{len(rows.items.of):,}",
        "clicks": f"{clicks:,} ({clicks / max(answered, 1):.1%} of the answers)",
    }
    if timed and rows.n_rows:
        begin, end = (pd.Timestamp(us, unit="us") for us in (first, rows.last))
        counts["time (UTC)"] = f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
    odd = {
        **{words: count for words, count in rows.notes.items() if words.startswith("rows without")},
        "rows that say the same as another": repeated,
        "rows of a user that are earlier than the one above": unsorted,
        "rows in the future": future,
        "users with one click only": one_click,
    }
    counted = {words.removesuffix(", dropped"): count for words, count in odd.items() if count}
    return counts, counted, late / max(rows.n_rows, 1)
