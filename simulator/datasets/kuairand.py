"""KuaiRand (Gao et al., CIKM 2022): the published files as they are -> `Source`. Times are China
time; no other data set lives here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from policies.base import BoolArray, Catalogue, IntArray
from policies.time import DAY, HOUR
from simulator.datasets.beside import coverage, presence
from simulator.datasets.delimited import (
    TEXT,
    ColumnRule,
    DataError,
    codes,
    feature,
    missing,
    numbers,
    once,
    read_all,
    read_csv,
    spread,
)
from simulator.datasets.numbering import Numbering
from simulator.datasets.sessions import sessions
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.scenario.parts import Data
from simulator.users.base import Source

CHINA = 8 * HOUR
"""China time is UTC + 8 h; days of the data start at its midnight (ms)."""
POOL = 7_583
"""Videos from which the impressions with is_rand = 1 were drawn uniformly, in every version of the
data (Gao et al. 2022, section 3).
"""

_ID = ColumnRule(pa.int64(), low=0)
_FLAG = ColumnRule(pa.int64(), low=0, high=1)
_MS = ColumnRule(pa.int64(), low=0)

LOG = {
    "user_id": _ID,
    "video_id": _ID,
    "date": ColumnRule(pa.int64(), low=19_700_101, high=99_991_231),
    "hourmin": ColumnRule(pa.int64(), low=0, high=2359),
    "time_ms": ColumnRule(pa.int64(), low=1_000_000_000_000, high=9_999_999_999_999),
    **dict.fromkeys(
        ("is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view"),
        _FLAG,
    ),
    "play_time_ms": _MS,
    "duration_ms": _MS,
    "profile_stay_time": _MS,
    "comment_stay_time": _MS,
    "is_profile_enter": _FLAG,
    "is_rand": _FLAG,
    "tab": ColumnRule(pa.int64(), low=0, high=254),
}
"""The 19 columns of a log file and their rules."""

KINDS = {
    "long_view": "long_view",
    "like": "is_like",
    "comment": "is_comment",
    "forward": "is_forward",
    "follow": "is_follow",
    "hate": "is_hate",
    "profile_enter": "is_profile_enter",
}
"""Feedback column of the event log -> column of the file."""

_KEY = ColumnRule(pa.int64(), low=0, unique=True)
_COUNT = ColumnRule(pa.float32(), null=True)
USERS = {
    "user_id": _KEY,
    **dict.fromkeys(
        ("follow_user_num", "fans_user_num", "friend_user_num", "register_days"), _COUNT
    ),
}
_TEXT = ColumnRule(TEXT, null=True)
SIDES = {
    "user_features": r"user_features_.*\.csv(\.gz)?",
    "video_features_basic": r"video_features_basic_.*\.csv(\.gz)?",
    "user_sequences": r"user_sequences_.*\.parquet",
}
"""What may lie beside the logs, and how its files are called."""
SEQUENCES = ("watch_seq", "like_seq", "long_watch_seq")
"""List columns of the sequences: exposures, likes, long views."""
VIDEOS = {
    "video_id": _KEY,
    "author_id": _TEXT,
    "upload_dt": _TEXT,
    "video_duration": ColumnRule(pa.float64(), low=0, null=True),
    "tag": _TEXT,
}


def read(data: Data, path: Path) -> Source:
    """Read KuaiRand's files.

    Args:
        data: the scenario's section: `test_days`, `session_gap`.
        path: a folder with any number of `log_standard_*.csv[.gz]` and `log_random_*.csv[.gz]`, and
            optionally `user_features_*`, `video_features_basic_*` and `user_sequences_*.parquet`;
            or one log file, with the others beside it.

    Returns:
        `Source`. The last `test_days` China days of the log are `future`; what came before, the
        sequences first, is `history`. Items of channel 1 (`random`) were shown at random.

    Raises:
        DataError: a file missing or broken.
    """
    folder, logs = _files(path)
    log, duplicates = _read_logs(logs)
    sides = {name: _matching(folder, pattern) for name, pattern in SIDES.items()}
    users = read_all(sides["user_features"], USERS) if sides["user_features"] else None
    videos = None
    if sides["video_features_basic"]:
        videos = read_all(sides["video_features_basic"], VIDEOS)
    exposures, found = _read_sequences(sides["user_sequences"], log)
    user_of = Numbering.by_appearance(log["user_id"], exposures["user"], base=0)
    known = [] if videos is None else [videos["video_id"].to_numpy()]
    item_of = Numbering.by_appearance(log["video_id"], exposures["item"], *known, base=1)
    last = int(log["time_ms"].max())
    start = (last + CHINA) // DAY * DAY - CHINA - (data.test_days - 1) * DAY
    if start <= int(log["time_ms"].min()) and not len(exposures["user"]):
        days = (last - int(log["time_ms"].min())) / DAY
        raise DataError(
            f"{path}: data.test_days = {data.test_days} leaves no history: the log spans {days:.1f}"
            " days"
        )
    catalogue = _catalogue(log, users, videos, user_of, item_of, start)
    durations = catalogue.items["duration"]
    channels = ("random",) if log["is_rand"].any() else ()
    notes: dict[str, Any] = {
        "files": [file.name for file in logs],
        "impressions read": len(log["user_id"]) + duplicates,
        "exact duplicates dropped": duplicates,
        **presence(
            [file for files in sides.values() for file in files],
            [name for name, files in sides.items() if not files],
        ),
        **found,
    }
    if users is not None:
        if "id" in users.column_names:
            raise DataError(
                f"{sides['user_features'][0]}: line 1: no column may be called 'id', as the"
                " catalogue's user_id is; rename it"
            )
        listed = users["user_id"].to_pylist()
        notes |= coverage("users", "user_features", listed, user_of.original.tolist(), "left out")
    if videos is not None:
        shown = np.union1d(log["video_id"], exposures["item"]).tolist()
        notes |= coverage(
            "items",
            "video_features_basic",
            videos["video_id"].to_pylist(),
            shown,
            "in the catalogue",
        )
        no_date = pc.and_(pc.is_null(_dates(videos["upload_dt"])), pc.is_valid(videos["upload_dt"]))
        if pc.any(no_date).as_py():
            notes["videos whose upload_dt is not YYYY-MM-DD, taken as unknown"] = pc.sum(
                no_date
            ).as_py()
    metadata = Metadata(
        ("history",), len(user_of), len(item_of), "unknown", channels=channels, notes=notes
    )
    parts = []
    for chosen in (log["time_ms"] < start, log["time_ms"] >= start):
        rows = {name: column[chosen] for name, column in log.items()}
        parts.append(
            _columns(
                rows,
                user_of(rows["user_id"]),
                item_of(rows["video_id"]),
                durations,
                start,
                data.session_gap,
            )
        )
    before = _exposure_columns(
        exposures, user_of(exposures["user"]), item_of(exposures["item"]), durations, start
    )
    history = _after(before, parts[0], len(user_of))
    return Source(
        catalogue,
        EventLog.from_columns(history, metadata),
        EventLog.from_columns(parts[1], metadata),
        notes,
    )


def _files(path: Path) -> tuple[Path, list[Path]]:
    """The folder, and its log files in the order of their names."""
    if not path.exists():
        raise DataError(missing(path))
    if path.is_file():
        return path.parent, [path]
    found = _matching(path, r"log_.*\.csv(\.gz)?")
    if not found:
        raise DataError(
            f"{path}: no log there: expected files named log_*_pure.csv or log_*_pure.csv.gz"
        )
    return path, found


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The files of `folder` whose names match, in the order of their names.

    Raises:
        DataError: one is there both plain and packed, which would be read twice.
    """
    found = sorted(file for file in folder.iterdir() if re.fullmatch(pattern, file.name))
    for file in found:
        if file.with_name(f"{file.name}.gz") in found:
            raise DataError(
                f"{folder}: {file.name} and {file.name}.gz are both there: take one away, so that"
                " it is clear which is meant"
            )
    return found


def _read_logs(files: Sequence[Path]) -> tuple[dict[str, np.ndarray], int]:
    """All rows of `files` by column, without exact duplicates, by user and time; and how many
    duplicates there were.
    """
    table = pa.concat_tables([read_csv(file, LOG, others=False) for file in files])
    if not table.num_rows:
        raise DataError(f"{', '.join(map(str, files))}: no impressions there, only a header")
    numbered = table.append_column("row", pa.array(np.arange(table.num_rows)))
    firsts = numbered.group_by(list(LOG)).aggregate([("row", "min")])["row_min"].to_numpy()
    first_appearance = np.sort(firsts)
    columns = {name: table[name].to_numpy()[first_appearance] for name in LOG}
    order = np.lexsort((columns["time_ms"], columns["user_id"]))
    return {name: column[order] for name, column in columns.items()}, table.num_rows - len(firsts)


def _read_sequences(
    files: Sequence[Path], log: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The exposures before the log, `user`, `item`, `time_ms`, `like`, `long_view` by row in time
    order; and what was found.

    The sequences have the time of their last exposure only: the others are set one minute apart
    before it. A sequence that reaches into the user's part of the log is left out: its exposures
    are in the log already.
    """
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("user", "item", "time_ms", "like", "long_view")
    }
    found = {"sequence users": 0, "sequence users left out, they reach into the log": 0}
    first_user, first_row = np.unique(log["user_id"], return_index=True)
    owners: dict[int, Path] = {}
    for file in files:
        stored = _sequence_table(file)
        user = stored["user_id"].to_numpy()
        for one in user.tolist():
            if owners.setdefault(one, file) is not file:
                raise DataError(
                    f"{file}: user_id must be unique; {one} stands in {owners[one].name}, too"
                )
        place = np.minimum(np.searchsorted(first_user, user), len(first_user) - 1)
        starts = np.where(
            first_user[place] == user, log["time_ms"][first_row[place]], np.iinfo(np.int64).max
        )
        if "last_time_ms" in stored.column_names:
            last = stored["last_time_ms"].to_numpy()
        else:
            last = np.full(len(user), log["time_ms"].min() - 1)
        keep = last < starts
        found["sequence users"] += len(user)
        found["sequence users left out, they reach into the log"] += int((~keep).sum())
        stored, user, last = stored.filter(pa.array(keep)), user[keep], last[keep]
        owner, item = _flat(stored["watch_seq"], user)
        counts = np.bincount(np.searchsorted(user, owner), minlength=len(user))
        to_go = np.repeat(np.cumsum(counts), counts) - 1 - np.arange(len(owner))
        columns["user"].append(owner)
        columns["item"].append(item)
        columns["time_ms"].append(np.repeat(last, counts) - 60_000 * to_go)
        for name, source in (("like", "like_seq"), ("long_view", "long_watch_seq")):
            columns[name].append(_is_among((owner, item), _flat(stored[source], user)))
    flat = {
        name: np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        for name, parts in columns.items()
    }
    return flat, found if files else {}


def _sequence_table(file: Path) -> pa.Table:
    """The sequences of one file by user, every value held to the rules that the logs have.

    Raises:
        DataError: not Parquet; a column missing, twice, of another type or with a value that is not
            allowed.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            once(file, parquet.schema_arrow.names)
            stored = parquet.read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file: {error}") from error
    columns = {}
    for name in ("user_id", *SEQUENCES, "last_time_ms"):
        if name in stored.column_names:
            columns[name] = (_lists if name in SEQUENCES else _whole)(file, name, stored[name])
        elif name != "last_time_ms":
            raise DataError(f"{file}: no column {name!r}; it has {', '.join(stored.column_names)}")
    if "last_time_ms" in columns:
        rule = LOG["time_ms"]
        time = columns["last_time_ms"].to_numpy()
        bad = np.flatnonzero((time < rule.low) | (time > rule.high))
        if len(bad):
            raise DataError(
                f"{file}: row {bad[0]}: last_time_ms must be {rule.rule}, ms since 1970; got"
                f" {time[bad[0]]}"
            )
    user = columns["user_id"].to_numpy()
    order = np.argsort(user, kind="stable")
    twice = np.flatnonzero(np.diff(user[order]) == 0)
    if len(twice):
        first, again = order[twice[0]], order[twice[0] + 1]
        raise DataError(
            f"{file}: row {again}: user_id must be unique; {user[again]} stands in row {first}"
            " already"
        )
    return pa.table(columns).take(pa.array(order))


def _whole(file: Path, name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of whole numbers from 0 on as int64."""
    if not pa.types.is_integer(values.type) or values.null_count:
        got = f"{values.null_count} empty values" if values.null_count else str(values.type)
        raise DataError(f"{file}: {name} must be whole numbers, none of them empty; got {got}")
    try:
        whole = pc.cast(values, pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(f"{file}: {name} must be an integer in [0, 2^63 - 1]: {error}") from error
    if len(whole) and pc.min(whole).as_py() < 0:
        raise DataError(
            f"{file}: {name} must be an integer in [0, 2^63 - 1]; got {pc.min(whole).as_py()}"
        )
    return whole


def _lists(file: Path, name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of lists of whole numbers from 0 on as lists of int64; an empty cell is an empty
    list.
    """
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        if pa.types.is_null(values.type):
            return pa.chunked_array([pa.nulls(len(values), pa.list_(pa.int64()))])
        raise DataError(f"{file}: {name} must be lists of whole numbers; got {values.type}")
    if not pa.types.is_null(values.type.value_type):
        _whole(file, name, pc.list_flatten(values))
    return pc.cast(values, pa.list_(pa.int64()))


def _flat(lists: pa.ChunkedArray, user: np.ndarray) -> tuple[IntArray, IntArray]:
    """(owner `[M]`, item `[M]`) of a list column of `user` `[U]`."""
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    items = pc.list_flatten(lists).to_numpy()
    return np.repeat(user, counts), np.asarray(items, dtype=np.int64)


def _is_among(pairs: tuple[IntArray, IntArray], chosen: tuple[IntArray, IntArray]) -> BoolArray:
    """Which (user, item) of `pairs` `[M]` are among `chosen`."""
    n = len(pairs[0])
    user, item = (
        np.unique(np.concatenate(both), return_inverse=True)[1]
        for both in zip(pairs, chosen, strict=True)
    )
    key = user * (int(item.max(initial=0)) + 1) + item
    return np.isin(key[:n], key[n:])


def _catalogue(
    log: dict[str, np.ndarray],
    users: pa.Table | None,
    videos: pa.Table | None,
    user_of: Numbering,
    item_of: Numbering,
    start: int,
) -> Catalogue:
    """Users and items with their features; `id` is the original id."""
    by_item: dict[str, np.ndarray] = {"id": np.concatenate(([-1], item_of.original))}
    by_user: dict[str, np.ndarray] = {"id": user_of.original}
    length = _log_durations(log, item_of)
    attributes = None
    if videos is not None:
        row = item_of(videos["video_id"].to_numpy())
        stated = np.asarray(videos["video_duration"].to_numpy(), dtype=np.float64) / 1000
        length[row] = np.where(np.isnan(stated) | (stated <= 0), length[row], stated)
        tags = pc.fill_null(videos["tag"], "")
        attributes = _tags(tags, row, len(item_of))
        first = pc.struct_field(pc.extract_regex(tags, r"^(?P<first>[^,]*)"), "first")
        named = {
            "author": feature(numbers(videos["author_id"])),
            "tag": feature(pc.if_else(pc.equal(first, ""), None, first)),
        }
        for name in ("video_type", "upload_type", "music_id", "music_type"):
            if name in videos.column_names:
                named[name.removesuffix("_id")] = codes(videos[name])[0]
        named["uploaded"] = _days_before(videos["upload_dt"], start)
        by_item |= {name: spread(values, row, len(item_of) + 1) for name, values in named.items()}
    by_item["duration"] = length.astype(np.float32)
    if users is not None:
        chosen = np.isin(users["user_id"].to_numpy(), user_of.original)
        row = user_of(users["user_id"].to_numpy()[chosen])
        for name in users.column_names:
            if name != "user_id":
                by_user[name] = spread(feature(users[name])[chosen], row, len(user_of))
    return Catalogue(len(user_of), len(item_of), by_item, by_user, attributes)


def _log_durations(log: dict[str, np.ndarray], item_of: Numbering) -> np.ndarray:
    """The longest duration that the log states for each item, s, `[n_items + 1]`; 0 where it states
    none.
    """
    length = np.zeros(len(item_of) + 1)
    np.maximum.at(length, item_of(log["video_id"]), log["duration_ms"] / 1000)
    return length


def _tags(tags: pa.ChunkedArray, row: IntArray, n_items: int) -> tuple[IntArray, IntArray]:
    """The tags of every item, ragged: offsets `[n_items + 2]` and ids from 1 on."""
    lists = pc.split_pattern(tags, ",")
    flat = pc.list_flatten(lists)
    owner = np.repeat(row, pc.list_value_length(lists).to_numpy())
    real = pc.not_equal(flat, "").to_numpy()
    ids = feature(flat.filter(pa.array(real)))
    owner = owner[real]
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=n_items + 1)
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64), ids[order]


def _dates(dates: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.strptime(dates, format="%Y-%m-%d", unit="ms", error_is_null=True)


def _days_before(dates: pa.ChunkedArray, start: int) -> np.ndarray:
    """Days from an ISO date to `start`, float32; NaN where there is no date."""
    t = pc.cast(_dates(dates), pa.int64())
    days = (start + CHINA - np.asarray(t.to_numpy(), dtype=np.float64)) / DAY
    return np.asarray(days, dtype=np.float32)


def _columns(
    rows: dict[str, np.ndarray],
    user: IntArray,
    item: IntArray,
    durations: np.ndarray,
    start: int,
    gap: float,
) -> dict[str, np.ndarray]:
    """Event-log columns of log rows."""
    order = np.lexsort((rows["time_ms"], user))
    rows = {name: column[order] for name, column in rows.items()}
    user = user[order]
    item = item[order]
    session, request, position = sessions(user, rows["time_ms"], gap)
    stated = rows["duration_ms"] / 1000
    return {
        "user": user,
        "session": session,
        "request": request,
        "position": position,
        "t": rows["time_ms"] - start,
        "item": item,
        "click": rows["is_click"].astype(np.int8),
        "watch": (rows["play_time_ms"] / 1000).astype(np.float32),
        "duration": np.where(stated > 0, stated, durations[item]).astype(np.float32),
        "channel": rows["is_rand"].astype(np.uint8),
        "logged": np.ones(len(user), dtype=bool),
        "tab": rows["tab"].astype(np.int16),
        **{name: rows[column].astype(np.int8) for name, column in KINDS.items()},
    }


def _exposure_columns(
    exposures: dict[str, np.ndarray],
    user: IntArray,
    item: IntArray,
    durations: np.ndarray,
    start: int,
) -> dict[str, np.ndarray]:
    """Event-log columns of the sequences: one session of one-item requests. A long view is a click,
    else the click is not observed.
    """
    order = np.lexsort((np.arange(len(user)), exposures["time_ms"], user))
    user, item = user[order], item[order]
    n = len(user)
    long_view = exposures["long_view"][order].astype(np.int8)
    unknown = np.full(n, -1, dtype=np.int8)
    first = np.searchsorted(user, user)
    return {
        "user": user,
        "session": np.zeros(n, dtype=np.int64),
        "request": np.arange(n) - first,
        "position": np.zeros(n, dtype=np.int64),
        "t": exposures["time_ms"][order] - start,
        "item": item,
        "click": np.where(long_view == 1, long_view, unknown),
        "watch": np.full(n, np.nan, dtype=np.float32),
        "duration": durations[item],
        "channel": np.zeros(n, dtype=np.uint8),
        "logged": np.ones(n, dtype=bool),
        "tab": np.full(n, -1, dtype=np.int16),
        **dict.fromkeys(KINDS, unknown),
        "long_view": long_view,
        "like": exposures["like"][order].astype(np.int8),
    }


def _after(
    before: dict[str, np.ndarray], rows: dict[str, np.ndarray], n_users: int
) -> dict[str, np.ndarray]:
    """`before`, then `rows`: the sessions of users who have one before are numbered on from it."""
    has = np.zeros(n_users, dtype=np.int64)
    has[before["user"]] = 1
    shifted = rows | {"session": rows["session"] + has[rows["user"]]}
    return {name: np.concatenate((before[name], shifted[name])) for name in rows}
