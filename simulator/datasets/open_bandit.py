"""Open Bandit (Saito, Aihara, Matsutani & Narita, NeurIPS 2021): a real A/B test with propensities,
as published -> an event log.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from policies.base import Catalogue
from policies.time import DAY
from simulator.datasets.beside import coverage, packed_or_plain, presence
from simulator.datasets.delimited import (
    TEXT,
    ColumnRule,
    DataError,
    feature,
    line_of,
    missing,
    numbers,
    read_csv,
    spread,
)
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.scenario.parts import Data
from simulator.users.base import Source

ARMS = ("random", "bts")
"""The two policies that served at the same time: uniform, and Bernoulli Thompson sampling."""

_ITEM = ColumnRule(pa.int64(), low=0, high=1_000_000)
LOG = {
    "timestamp": ColumnRule(TEXT),
    "item_id": _ITEM,
    "position": ColumnRule(pa.int64(), low=1, high=3),
    "click": ColumnRule(pa.int64(), low=0, high=1),
    "propensity_score": ColumnRule(pa.float64(), low=np.nextafter(0, 1), high=1),
}
"""The columns of a log file that are read, and their rules."""

CONTEXT = {"item_id": replace(_ITEM, unique=True)}
"""The column that `item_context.csv` needs, and its rule."""

STAMP = (
    r"^(?P<date>\d{4}-\d{2}-\d{2})[ T](?P<clock>\d{2}:\d{2}:\d{2})(?:[.,]\d+)?(?:"
    r" ?(?:Z|UTC|(?P<zone>[+-]\d{2}:?\d{2})))?$"
)
"""A time stamp: without a zone it is UTC."""


@dataclass(frozen=True)
class Campaign:
    """One campaign: both policies' impressions as one log with the arms `random` and `bts`.

    The source has no user ids and no page views: every impression is its own user, session and
    request. Days start at midnight UTC of the first day. Propensities are marginal: of the item at
    its place. Rows need not be in order; a row whose time stamp (to the last digit), item,
    position, click and propensity stand in the file before is a repetition, dropped and counted in
    `notes`. The catalogue has every item up to the largest id of the logs and of
    `item_context.csv`, which may list items never shown.
    """

    name: str
    log: EventLog
    catalogue: Catalogue


def campaigns(root: Path) -> list[Path]:
    """The campaigns under a folder that has `random/` and `bts/`: the folders of `random/` whose
    name `bts/` has too, in order.
    """
    if not all((root / arm).is_dir() for arm in ARMS):
        return []
    return [
        folder
        for folder in sorted((root / "random").iterdir())
        if folder.is_dir() and (root / "bts" / folder.name).is_dir()
    ]


def campaign(path: Path) -> Campaign:
    """Read one campaign.

    Args:
        path: `.../random/NAME` or `.../bts/NAME`, or a folder with `random/` and `bts/` that has
            one campaign.

    Raises:
        DataError: no campaign or several there, or a broken file, by name, line and column.
    """
    here = _one(path)
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("arm", "position", "t", "item", "click", "propensity")
    }
    files, repeated = [], 0
    for arm, policy in enumerate(ARMS):
        file = _file(here.parents[1] / policy / here.name)
        files.append(str(file.relative_to(here.parents[1])))
        rows, dropped = _rows(file)
        repeated += dropped
        for name, values in rows.items():
            columns[name].append(values)
        columns["arm"].append(np.full(len(rows["t"]), arm, dtype=np.uint8))
    flat = {name: np.concatenate(columns.pop(name)) for name in list(columns)}
    order = np.lexsort((flat["t"], flat["arm"]))
    flat = {name: values[order] for name, values in flat.items()}
    n = len(order)
    first_day = int(flat["t"].min() // DAY)
    flat["t"] -= first_day * DAY
    flat["user"] = np.arange(n, dtype=np.uint32)
    flat["session"], flat["request"] = np.zeros(n, dtype=np.uint32), np.zeros(n, dtype=np.uint16)
    days = int(flat["t"].max() // DAY) + 1
    context = _context(here)
    features, n_items, listed = _items(context, int(flat["item"].max()))
    first, last = (str(np.datetime64(int(t), "D")) for t in (first_day, first_day + days - 1))
    notes = {
        "files": files,
        "impressions": n,
        "exact duplicates dropped": repeated,
        "first and last day (UTC)": f"{first}, {last}",
        **presence([context] if context else [], [] if context else ["item_context.csv"]),
    }
    if context is not None:
        notes |= coverage(
            "items", context.name, listed, np.unique(flat["item"]).tolist(), "in the catalogue"
        )
    metadata = Metadata(ARMS, n, n_items, "marginal", control="random", days=days, notes=notes)
    log = EventLog.from_columns({**flat, "logged": np.ones(n, dtype=bool)}, metadata, sort=False)
    return Campaign(here.name, log, Catalogue(n, n_items, features))


def read(data: Data, path: Path) -> Source:
    """One policy's impressions of a campaign as a scenario's data: the last `data.test_days` are
    the future.

    Args:
        data: the scenario's section.
        path: as `campaign`; `.../bts/NAME` takes the impressions of Thompson sampling, anything
            else those of the random policy.
    """
    found = campaign(path)
    arm = "bts" if path.parent.name == "bts" else "random"
    table = found.log.table.filter(pc.equal(found.log.table["arm"], ARMS.index(arm)))
    table = table.set_column(
        0, table.schema.field("arm"), pa.array(np.zeros(table.num_rows, dtype=np.uint8))
    )
    shift = (found.log.metadata.days - data.test_days) * DAY
    t = table["t"].to_numpy() - shift
    table = table.set_column(
        table.schema.get_field_index("t"), table.schema.field("t"), pa.array(t, pa.int64())
    )
    notes = {**found.log.metadata.notes, "campaign": found.name, "policy": arm}
    metadata = Metadata(
        ("history",), found.catalogue.n_users, found.catalogue.n_items, "marginal", notes=notes
    )
    if not (t < 0).any():
        raise DataError(
            f"{path}: data.test_days = {data.test_days} leaves no history: the log spans"
            f" {found.log.metadata.days} days"
        )
    history, future = (
        EventLog(metadata, table.filter(pa.array(chosen))) for chosen in (t < 0, t >= 0)
    )
    return Source(found.catalogue, history, future, notes)


def _one(path: Path) -> Path:
    """The folder of `random/` or `bts/` that names the campaign."""
    if not path.exists():
        raise DataError(missing(path))
    if path.parent.name in ARMS:
        absent = [policy for policy in ARMS if not (path.parents[1] / policy / path.name).is_dir()]
        if absent:
            raise DataError(
                f"{path}: the other policy's log is missing: no folder"
                f" {path.parents[1] / absent[0] / path.name}"
            )
        return path
    found = campaigns(path)
    if not found:
        raise DataError(f"{path}: no campaign there: expected folders random/NAME and bts/NAME")
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise DataError(
            f"{path}: several campaigns there ({names}); give the path of one, such as {found[0]}"
        )
    return found[0]


def _file(folder: Path) -> Path:
    found = packed_or_plain(folder, f"{folder.name}.csv")
    if found is None:
        raise DataError(
            f"{folder}: no log there: expected {folder.name}.csv or {folder.name}.csv.gz"
        )
    return found


def _rows(file: Path) -> tuple[dict[str, np.ndarray], int]:
    """Event-log columns of one file in its order (item from 1, position from 0, t in ms since
    1970), and how many repetitions it had.
    """
    table = read_csv(file, LOG, others=False)
    if not table.num_rows:
        raise DataError(f"{file}: no impressions there, only a header")
    columns = {
        "position": table["position"].to_numpy().astype(np.uint16) - np.uint16(1),
        "t": _times(file, table["timestamp"]),
        "item": table["item_id"].to_numpy().astype(np.uint32) + np.uint32(1),
        "click": table["click"].to_numpy().astype(np.int8),
        "propensity": table["propensity_score"].to_numpy().astype(np.float32),
    }
    first = _first_of_each(table["timestamp"], columns)
    return {name: values[first] for name, values in columns.items()}, table.num_rows - int(
        first.sum()
    )


def _times(file: Path, stamps: pa.ChunkedArray) -> np.ndarray:
    """Time stamps as whole seconds since 1970 (UTC), in ms `[N]`."""
    parts = pc.extract_regex(stamps, STAMP)
    date, clock, zone = (pc.struct_field(parts, name) for name in ("date", "clock", "zone"))
    text = pc.binary_join_element_wise(date, clock, " ")
    moment = pc.strptime(text, format="%Y-%m-%d %H:%M:%S", unit="ms", error_is_null=True)
    # strptime takes 30 February for 2 March: what is written again must be what was read
    good = pc.fill_null(pc.equal(pc.strftime(moment, format="%Y-%m-%d"), date), False).to_numpy()
    if not good.all():
        bad = int(np.argmin(good))
        raise DataError(
            f"{file}: line {line_of(file, bad)}: timestamp must be YYYY-MM-DD HH:MM:SS... in UTC,"
            f" or with its zone such as +09:00; got {stamps[bad].as_py()!r}"
        )
    offset = np.zeros(len(good), dtype=np.int64)
    for name in pc.unique(zone).drop_null().to_pylist():
        if name:
            minutes = int(name[1:3]) * 60 + int(name[-2:])
            there = pc.fill_null(pc.equal(zone, name), False).to_numpy()
            offset[there] = (-1 if name[0] == "-" else 1) * minutes * 60_000
    t: np.ndarray = pc.cast(moment, pa.int64()).to_numpy() - offset
    return t


def _first_of_each(text: pa.ChunkedArray, columns: dict[str, np.ndarray]) -> np.ndarray:
    """Which rows are not repetitions, `[N]`: the text of the time stamp is compared only where all
    else is the same.
    """
    names = ("t", "item", "position", "click", "propensity")
    order = np.lexsort([columns[name] for name in names])
    same = np.logical_and.reduce(
        [columns[name][order][1:] == columns[name][order][:-1] for name in names]
    )
    doubtful = np.sort(np.unique(np.concatenate((order[1:][same], order[:-1][same]))))
    keep = np.ones(len(order), dtype=bool)
    if len(doubtful):
        rows = pa.table(
            {name: columns[name][doubtful] for name in names}
            | {"text": text.take(doubtful), "row": doubtful}
        )
        keep[doubtful] = False
        keep[rows.group_by([*names, "text"]).aggregate([("row", "min")])["row_min"].to_numpy()] = (
            True
        )
    return keep


def _context(here: Path) -> Path | None:
    """The `item_context.csv` of a campaign, plain or packed; where the folder has none, that of the
    other policy's folder.
    """
    folders = [here, *(here.parents[1] / arm / here.name for arm in ARMS)]
    return next(
        (file for folder in folders if (file := packed_or_plain(folder, "item_context.csv"))), None
    )


def _items(context: Path | None, shown: int) -> tuple[dict[str, np.ndarray], int, list[int]]:
    """Item features by name, `[n_items + 1]`; how many items there are; and those that the file
    lists.

    Args:
        context: the file of the features; without it there are none.
        shown: the largest item of the logs.
    """
    if context is None:
        return {}, shown, []
    table = read_csv(context, CONTEXT)
    row = table["item_id"].to_numpy() + 1
    n_items = max(shown, int(row.max(initial=0)))
    out = {}
    for name in table.column_names:
        if name.startswith("item_feature"):
            out[name] = spread(feature(numbers(table[name])), row, n_items + 1)
    return out, n_items, row.tolist()
