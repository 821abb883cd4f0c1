"""The rows of a report for other programs: every list of report.json as a CSV file, with the same
keys and all digits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.log.files import csv_text, write_texts
from simulator.report.stored import encode

if TYPE_CHECKING:
    from simulator.report.content import Content

Row = dict[str, Any]

NAMES = ("metric", "arm", "unit", "group", "level", "method", "figure", "policy", "name")
"""Keys that say what a row is about; the rows within it are given them, too."""


def tables(content: Content) -> dict[str, list[Row]]:
    """The tables of a report by name: each list of rows in report.json.

    A row of `lifts` has its `verdict` and `sentence` with it. What lies within a row stands under
    dotted keys; a list of rows within a row is a table of its own (`methods.rows`).
    """
    stored = encode(content)
    verdicts = stored.pop("verdicts")
    for row, verdict in zip(stored["lifts"], verdicts, strict=True):
        row |= {key: verdict[key] for key in ("verdict", "sentence")}
    found: dict[str, list[Row]] = {}
    for key in ("settings", "choices", "notes", "runtime", "versions"):
        stored.pop(key)
    for name, rows in _within(stored, ""):
        found.setdefault(name, []).extend(rows)
    return found


def _within(value: Mapping[str, Any], place: str) -> Iterator[tuple[str, list[Row]]]:
    """The lists of rows within an object, by name."""
    about = {key: value[key] for key in NAMES if key in value and place}
    for key, inner in value.items():
        name = f"{place}.{key}".lstrip(".")
        if isinstance(inner, Mapping):
            yield from _within(inner, name)
        elif isinstance(inner, list) and any(isinstance(row, Mapping) for row in inner):
            yield name, [{**about, **_flat(row)} for row in inner]
            for row in inner:
                yield from _within(row, name)


def _flat(row: Mapping[str, Any]) -> Row:
    """The plain values of a row, those within it under dotted keys."""
    flat: Row = {}
    for key, value in row.items():
        inner: Mapping[str, Any] | None = None
        if isinstance(value, Mapping):
            inner = value
        elif isinstance(value, list):
            if any(isinstance(one, Mapping) for one in value):
                continue
            inner = {str(i): one for i, one in enumerate(value)}
        if inner is None:
            flat[key] = value
        else:
            flat |= {f"{key}.{name}": one for name, one in _flat(inner).items()}
    return flat


def as_csv(rows: list[Row]) -> str:
    """Rows as CSV (RFC 4180): columns in the order in which the rows have them, what is not known
    empty.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return csv_text([columns, *([row.get(column) for column in columns] for row in rows)])


def write(content: Content, folder: Path) -> Path:
    """Write a file `NAME.csv` for each table of a report into `folder`/csv. Of a table that only an
    earlier report had an empty file is left, so that no row stands beside those of another report.

    Returns:
        That folder.
    """
    home = folder / "csv"
    texts = {f"{name}.csv": as_csv(rows) for name, rows in tables(content).items()}
    own = {one.name for one in dataclasses.fields(content)}
    for file in home.glob("*.csv"):
        if file.name.partition(".")[0] in own:
            texts.setdefault(file.name, "")
    write_texts(home, texts)
    return home
