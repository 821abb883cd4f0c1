"""KuaiRand (Gao et al., CIKM 2022): the published files as they are -> `Source`. Times are China time; no other data set lives here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from policies.base import Catalogue, IntArray
from simulator.datasets.numbering import Numbering
from simulator.datasets.sessions import sessions
from simulator.datasets.tables import Column, DataError, feature, read_csv
from simulator.eventlog import EventLog, Metadata
from simulator.scenario import Data
from simulator.users.base import Source

DAY = 86_400_000
CHINA = 8 * 3_600_000
"""China time is UTC + 8 h; days of the data start at its midnight (ms)."""
POOL = 7_583
"""Videos from which the impressions with is_rand = 1 were drawn uniformly, in every version of the data (Gao et al. 2022, section 3)."""

_ID = Column(pa.int64(), low=0)
_FLAG = Column(pa.int64(), low=0, high=1)
_MS = Column(pa.int64(), low=0)

LOG = {
    "user_id": _ID,
    "video_id": _ID,
    "date": Column(pa.int64(), low=19_700_101, high=99_991_231),
    "hourmin": Column(pa.int64(), low=0, high=2359),
    "time_ms": Column(pa.int64(), low=1_000_000_000_000, high=9_999_999_999_999),
    **dict.fromkeys(("is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view"), _FLAG),
    "play_time_ms": _MS,
    "duration_ms": _MS,
    "profile_stay_time": _MS,
    "comment_stay_time": _MS,
    "is_profile_enter": _FLAG,
    "is_rand": _FLAG,
    "tab": Column(pa.int64(), low=0, high=254),
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

_COUNT = Column(pa.float32(), null=True)
USERS = {"user_id": _ID, **dict.fromkeys(("follow_user_num", "fans_user_num", "friend_user_num", "register_days"), _COUNT)}
_TEXT = Column(pa.string(), null=True)
VIDEOS = {
    "video_id": _ID,
    "author_id": _ID,
    "upload_dt": _TEXT,
    "video_duration": Column(pa.float64(), low=0, null=True),
    "tag": _TEXT,
}


def read(data: Data, path: Path) -> Source:
    """Read KuaiRand's files.

    Args:
        data: the scenario's section: `test_days`, `session_gap`.
        path: a folder with any number of `log_standard_*.csv[.gz]` and `log_random_*.csv[.gz]`, and optionally `user_features_*`,
            `video_features_basic_*` and `user_sequences_*.parquet`; or one log file, with the others beside it.

    Returns:
        `Source`. The last `test_days` China days of the log are `future`; what came before, the sequences first, is `history`.
        Items of channel 1 (`random`) were shown at random.

    Raises:
        DataError: a file missing or broken.
    """
    folder, logs = _files(path)
    log, duplicates = _read_logs(logs)
    users = _optional(folder, r"user_features_.*\.csv(\.gz)?", USERS, "user_id")
    videos = _optional(folder, r"video_features_basic_.*\.csv(\.gz)?", VIDEOS, "video_id")
    exposures, found = _read_sequences(folder, log)
    user_of = Numbering.by_appearance(log["user_id"], exposures["user"], base=0)
    known = [] if videos is None else [videos["video_id"].to_numpy()]
    item_of = Numbering.by_appearance(log["video_id"], exposures["item"], *known, base=1)
    last = int(log["time_ms"].max())
    start = (last + CHINA) // DAY * DAY - CHINA - (data.test_days - 1) * DAY
    if start <= int(log["time_ms"].min()) and not len(exposures["user"]):
        days = (last - int(log["time_ms"].min())) / DAY
        raise DataError(f"{path}: data.test_days = {data.test_days} leaves no history: the log spans {days:.1f} days")
    catalogue = _catalogue(log, users, videos, user_of, item_of, start)
    durations = catalogue.items["duration"]
    channels = ("random",) if log["is_rand"].any() else ()
    notes: dict[str, Any] = {
        "files": [file.name for file in logs],
        "impressions read": len(log["user_id"]) + duplicates,
        "exact duplicates dropped": duplicates,
        **found,
        "users with features only, left out": 0 if users is None else int((~np.isin(users["user_id"].to_numpy(), user_of.original)).sum()),
    }
    metadata = Metadata(("history",), len(user_of), len(item_of), "unknown", channels=channels, notes=notes)
    parts = []
    for chosen in (log["time_ms"] < start, log["time_ms"] >= start):
        rows = {name: column[chosen] for name, column in log.items()}
        parts.append(_columns(rows, user_of(rows["user_id"]), item_of(rows["video_id"]), durations, start, data.session_gap))
    before = _exposure_columns(exposures, user_of(exposures["user"]), item_of(exposures["item"]), durations, start)
    history = _after(before, parts[0], len(user_of))
    return Source(catalogue, EventLog.from_columns(history, metadata), EventLog.from_columns(parts[1], metadata), notes)


def _files(path: Path) -> tuple[Path, list[Path]]:
    """The folder, and its log files in the order of their names."""
    if path.is_file():
        return path.parent, [path]
    pattern = re.compile(r"log_.*\.csv(\.gz)?")
    found = sorted(file for file in path.iterdir() if pattern.fullmatch(file.name))
    if not found:
        raise DataError(f"{path}: no log there: expected files named log_*_pure.csv or log_*_pure.csv.gz")
    return path, found


def _read_logs(files: Sequence[Path]) -> tuple[dict[str, np.ndarray], int]:
    """All rows of `files` by column, without exact duplicates, by user and time; and how many duplicates there were."""
    table = pa.concat_tables([read_csv(file, LOG).select(list(LOG)) for file in files])
    if not table.num_rows:
        raise DataError(f"{', '.join(map(str, files))}: no impressions there, only a header")
    numbered = table.append_column("row", pa.array(np.arange(table.num_rows)))
    firsts = numbered.group_by(list(LOG)).aggregate([("row", "min")])["row_min"].to_numpy()
    first_appearance = np.sort(firsts)
    columns = {name: table[name].to_numpy()[first_appearance] for name in LOG}
    order = np.lexsort((columns["time_ms"], columns["user_id"]))
    return {name: column[order] for name, column in columns.items()}, table.num_rows - len(firsts)


def _optional(folder: Path, pattern: str, rules: dict[str, Column], key: str) -> pa.Table | None:
    """The feature tables of that name in `folder` as one; None where there are none."""
    files = sorted(file for file in folder.iterdir() if re.fullmatch(pattern, file.name))
    if not files:
        return None
    table = pa.concat_tables([read_csv(file, rules) for file in files], promote_options="permissive")
    ids = table[key].to_numpy()
    if len(np.unique(ids)) < len(ids):
        values, counts = np.unique(ids, return_counts=True)
        raise DataError(f"{files[0]}: {key} must be unique; {int(values[counts.argmax()])} stands there {int(counts.max())} times")
    return table


def _read_sequences(folder: Path, log: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The exposures before the log, `user`, `item`, `time_ms`, `like`, `long_view` by row in time order; and what was found.

    The sequences have the time of their last exposure only: the others are set one minute apart before it. A sequence that
    reaches into the user's part of the log is left out: its exposures are in the log already.
    """
    files = sorted(folder.glob("user_sequences_*.parquet"))
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("user", "item", "time_ms", "like", "long_view")}
    found = {"sequence users": 0, "sequence users left out, they reach into the log": 0}
    first_user, first_row = np.unique(log["user_id"], return_index=True)
    for file in files:
        stored = _sequence_table(file)
        user = stored["user_id"].to_numpy()
        place = np.minimum(np.searchsorted(first_user, user), len(first_user) - 1)
        starts = np.where(first_user[place] == user, log["time_ms"][first_row[place]], np.iinfo(np.int64).max)
        last = stored["last_time_ms"].to_numpy() if "last_time_ms" in stored.column_names else np.full(len(user), log["time_ms"].min() - 1)
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
            chosen_user, chosen_item = _flat(stored[source], user)
            columns[name].append(np.isin(_pair(owner, item), _pair(chosen_user, chosen_item)))
    flat = {name: np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64) for name, parts in columns.items()}
    return flat, found if files else {}


def _sequence_table(file: Path) -> pa.Table:
    try:
        stored = pq.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file: {error}") from error
    for name in ("user_id", "watch_seq", "like_seq", "long_watch_seq"):
        if name not in stored.column_names:
            raise DataError(f"{file}: no column {name!r}; it has {', '.join(stored.column_names)}")
    stored = stored.sort_by("user_id")
    user = stored["user_id"].to_numpy()
    twice = np.flatnonzero(np.diff(user) == 0)
    if len(twice):
        raise DataError(f"{file}: user_id must be unique; {user[twice[0]]} stands there twice")
    return stored


def _flat(lists: pa.ChunkedArray, user: np.ndarray) -> tuple[IntArray, IntArray]:
    """(owner `[M]`, item `[M]`) of a list column of `user` `[U]`."""
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    items = pc.cast(pc.list_flatten(lists), pa.int64()).to_numpy()
    return np.repeat(user, counts), np.asarray(items, dtype=np.int64)


def _pair(user: IntArray, item: IntArray) -> IntArray:
    return user * (1 << 32) + item


def _catalogue(
    log: dict[str, np.ndarray], users: pa.Table | None, videos: pa.Table | None, user_of: Numbering, item_of: Numbering, start: int
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
        named = {"author": feature(videos["author_id"]), "tag": feature(pc.if_else(pc.equal(first, ""), None, first))}
        for name in ("video_type", "upload_type", "music_id", "music_type"):
            if name in videos.column_names:
                named[name.removesuffix("_id")] = feature(pc.cast(videos[name], pa.string()))
        named["uploaded"] = _days_before(videos["upload_dt"], start)
        by_item |= {name: _spread(values, row, len(item_of) + 1) for name, values in named.items()}
    by_item["duration"] = length.astype(np.float32)
    if users is not None:
        chosen = np.isin(users["user_id"].to_numpy(), user_of.original)
        row = user_of(users["user_id"].to_numpy()[chosen])
        for name in users.column_names:
            if name != "user_id":
                column = users[name] if name in USERS else pc.cast(users[name], pa.string())
                by_user[name] = _spread(feature(column)[chosen], row, len(user_of))
    return Catalogue(len(user_of), len(item_of), by_item, by_user, attributes)


def _spread(values: np.ndarray, row: IntArray, n: int) -> np.ndarray:
    """`values` at `row` of `n`; 0 for codes and NaN for numbers elsewhere."""
    out = np.full(n, np.nan if values.dtype.kind == "f" else 0, dtype=values.dtype)
    out[row] = values
    return out


def _log_durations(log: dict[str, np.ndarray], item_of: Numbering) -> np.ndarray:
    """The longest duration that the log states for each item, s, `[n_items + 1]`; 0 where it states none."""
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


def _days_before(dates: pa.ChunkedArray, start: int) -> np.ndarray:
    """Days from an ISO date to `start`, float32; NaN where there is no date."""
    parsed = pc.strptime(dates, format="%Y-%m-%d", unit="ms", error_is_null=True)
    t = pc.cast(parsed, pa.int64())
    days = (start + CHINA - np.asarray(t.to_numpy(), dtype=np.float64)) / DAY
    return np.asarray(days, dtype=np.float32)


def _columns(
    rows: dict[str, np.ndarray], user: IntArray, item: IntArray, durations: np.ndarray, start: int, gap: float
) -> dict[str, np.ndarray]:
    """Event-log columns of log rows."""
    order = np.lexsort((rows["time_ms"], user))
    rows, user, item = {name: column[order] for name, column in rows.items()}, user[order], item[order]
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
    exposures: dict[str, np.ndarray], user: IntArray, item: IntArray, durations: np.ndarray, start: int
) -> dict[str, np.ndarray]:
    """Event-log columns of the sequences: one session of one-item requests. A long view is a click, else the click is not observed."""
    order = np.lexsort((np.arange(len(user)), exposures["time_ms"], user))
    user, item = user[order], item[order]
    n = len(user)
    long_view, unknown = exposures["long_view"][order].astype(np.int8), np.full(n, -1, dtype=np.int8)
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


def _after(before: dict[str, np.ndarray], rows: dict[str, np.ndarray], n_users: int) -> dict[str, np.ndarray]:
    """`before`, then `rows`: the sessions of users who have one before are numbered on from it."""
    has = np.zeros(n_users, dtype=np.int64)
    has[before["user"]] = 1
    shifted = rows | {"session": rows["session"] + has[rows["user"]]}
    return {name: np.concatenate((before[name], shifted[name])) for name in rows}
