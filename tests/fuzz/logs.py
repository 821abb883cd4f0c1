"""Event logs: flipped, cut and lost bytes; metadata of other types; rows and columns lost, doubled,
moved and changed.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from tests.fuzz import mutations
from tests.fuzz.harness import WrongEndError, command

COUNT = 1000

DAY = 86_400_000
USERS, ITEMS, DAYS = 40, 30, 2


def case(chance: random.Random, folder: Path) -> str:
    """A mutated log is refused by `abtest report`, or says what the whole one says; changed
    metadata may say something else.
    """
    kind = chance.choice(["bytes", "metadata", "rows", "columns", "order"])
    path = folder / "log.parquet"
    if kind == "bytes":
        path.write_bytes(_broken(chance, _log_bytes()))
    elif kind == "metadata":
        text = _metadata_text(chance)
        pq.write_table(_log().table.replace_schema_metadata({b"abtest": text}), path)
    else:
        table = {"rows": _other_rows, "columns": _other_columns, "order": _other_order}[kind](
            chance, _log().table
        )
        pq.write_table(table.replace_schema_metadata(_stored_metadata()), path)
    if not command("report", path, "--quiet", "--out", folder / "out"):
        return f"{kind} refused"
    if kind == "metadata":
        return "metadata read"
    if (folder / "out" / "report.json").read_text(encoding="utf-8") != _reference(folder):
        raise WrongEndError(f"{kind}: another report of a log that is not refused")
    return f"{kind} right"


@cache
def _log() -> EventLog:
    rng = np.random.default_rng(0)
    axes = np.meshgrid(range(3), range(USERS), range(DAYS), range(2), range(3), indexing="ij")
    arm, user, session, request, position = (axis.ravel() for axis in axes)
    n = len(arm)
    t = (session - np.where(arm == 0, DAYS, 0)) * DAY + request * 1000
    columns: dict[str, Any] = {
        "arm": arm,
        "user": user,
        "session": session,
        "request": request,
        "position": position,
        "t": t,
        "item": rng.integers(1, ITEMS, n),
        "click": rng.integers(-1, 2, n).astype(np.int8),
        "watch": np.where(rng.random(n) < 0.2, np.nan, rng.random(n) * 20),
        "duration": rng.random(n) * 30,
        "propensity": rng.random(n) * 0.9 + 0.05,
        "like": rng.integers(0, 2, n).astype(np.int8),
    }
    scenario = {
        "name": "x",
        "seed": 3,
        "design": {"kind": "paired"},
        "metrics": ["click", "watch_time"],
        "users": {"kind": "choice"},
        "data": {"source": "log"},
        "arms": {"a": {"policy": "popularity"}, "b": {"policy": "random"}},
    }
    metadata = Metadata(
        ("history", "a", "b"),
        USERS,
        ITEMS,
        days=DAYS,
        control="a",
        scenario=scenario,
        versions={"abtest": "1"},
        notes={"n": 3},
    )
    return EventLog.from_columns(columns, metadata)


_KEPT: dict[str, Any] = {}


def _written(folder: Path) -> Path:
    path = folder / "whole.parquet"
    _log().write(path)
    return path


def _log_bytes() -> bytes:
    if "bytes" not in _KEPT:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            _KEPT["bytes"] = _written(Path(folder)).read_bytes()
    kept: bytes = _KEPT["bytes"]
    return kept


def _stored_metadata() -> dict[bytes, bytes]:
    return {b"abtest": _log().metadata.to_json().encode()}


def _reference(folder: Path) -> str:
    """The report of the whole log."""
    if "report" not in _KEPT:
        assert command("report", _written(folder), "--quiet", "--out", folder / "reference")
        _KEPT["report"] = (folder / "reference" / "report.json").read_text(encoding="utf-8")
    kept: str = _KEPT["report"]
    return kept


def _broken(chance: random.Random, content: bytes) -> bytes:
    mutated = bytearray(content)
    at = chance.randrange(len(mutated))
    kind = chance.random()
    if kind < 0.6:
        mutated[at] ^= 1 << chance.randrange(8)
    elif kind < 0.75:
        del mutated[at:]
    elif kind < 0.85:
        del mutated[at : at + chance.randrange(1, 200)]
    else:
        mutated[at : at + 8] = chance.randbytes(8)
    return bytes(mutated)


def _metadata_text(chance: random.Random) -> bytes:
    tree = json.loads(_log().metadata.to_json())
    if chance.random() < 0.15:
        whole = json.dumps(tree)
        return chance.choice(
            [
                b"",
                b"{",
                b"[]",
                b"null",
                b"3",
                b'"x"',
                b"{}",
                b"[" * 100_000,
                whole[:-1].encode(),
                b"\xff" + whole.encode(),
            ]
        )
    return json.dumps(mutations.of_tree(chance, tree)).encode("utf-8", "surrogatepass")


def _other_rows(chance: random.Random, table: pa.Table) -> pa.Table:
    """Rows lost (a log may well be shorter: then only a row twice or moved), doubled, or moved."""
    at, n = chance.randrange(table.num_rows), table.num_rows
    rows = list(range(n))
    if chance.random() < 0.5:
        rows.insert(chance.randrange(n), at)
    else:
        rows.append(rows.pop(at if at < n - 1 else 0))
    return table.take(pa.array(rows))


def _other_columns(chance: random.Random, table: pa.Table) -> pa.Table:
    """A column lost, of another type, with a null or a value that no rule allows; or one that
    nobody knows.
    """
    name = chance.choice(table.column_names)
    place = table.column_names.index(name)
    kind = chance.randrange(4)
    if kind == 0 and name not in ("like",):
        return table.drop_columns([name])
    if kind == 1:
        return table.set_column(place, name, table[name].cast(pa.string()))
    if kind == 2:
        return table.append_column("colour", pa.array(range(table.num_rows)))
    field = table.schema.field(name)
    values = table[name].to_pylist()
    bad: dict[str, Any] = {
        "arm": 9,
        "user": USERS + 5,
        "t": 10**15,
        "item": 0,
        "propensity": 1.5,
        "click": None,
        "watch": -1.0,
        "duration": float("inf"),
        "channel": 9,
        "logged": None,
        "like": None,
    }
    if name in ("click", "like"):
        return table.drop_columns(["item"])  # a null is an answer that was not observed
    at = chance.randrange(1, table.num_rows - 1)
    if name in ("session", "request", "position"):
        values[at - 1], values[at] = 8, 7  # out of order here, or before the next row
    else:
        values[at] = bad[name]
    return table.set_column(place, field.with_nullable(True), pa.array(values, field.type))


def _other_order(chance: random.Random, table: pa.Table) -> pa.Table:
    """Columns, or row groups of rows, in another order: the same content."""
    names = table.column_names
    chance.shuffle(names)
    return table.select(names)
