"""Data sets: every reader with one of its files mutated byte by byte or packed; refused, or a log
that keeps every rule.
"""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from simulator import datasets
from simulator.datasets.describe import describe
from simulator.datasets.prepare import FORMATS, prepare, write
from simulator.scenario.parts import Data
from tests import made_files
from tests.fuzz import mutations
from tests.fuzz.harness import Case, refused


@dataclass(frozen=True)
class Reader:
    """The cases of one reader."""

    case: Case
    COUNT: int = 500


def _of_source(source: str, chance: random.Random, folder: Path) -> str:
    files, named = made_files.SETS[source]
    made_files.write(folder, files)
    path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    path.write_bytes(mutations.of_bytes(chance, path.read_bytes()))
    where = folder / named
    if chance.random() < 0.1 and path.suffix != ".json":
        packed = gzip.compress(path.read_bytes())
        path.unlink()
        there = path.with_name(path.name + ".gz")
        there.write_bytes(mutations.of_bytes(chance, packed) if chance.random() < 0.7 else packed)
        where = there if where == path else where

    def read() -> None:
        found = datasets.read(
            Data.model_validate({"source": source, "path": str(where), "test_days": 1}), Path()
        )
        for log in (found.history, found.future):
            assert log is not None
            log.validate()
        json.dumps(dict(found.notes), allow_nan=False)

    return "refused" if refused(read) else "read"


def _of_reviews(kind: str, chance: random.Random, folder: Path) -> str:
    if kind == "movielens":
        lines = made_files.TABLES["movielens-1m"]["ratings.dat"]
    else:
        review = {"amazon": made_files.amazon, "yelp": made_files.yelp}[kind]
        rows = [review(f"u{i % 3}", f"i{i % 2}", i, text="hi", reviewText="ho") for i in range(6)]
        lines = [json.dumps(row) for row in rows]
    dump = folder / "d.json"
    dump.write_bytes(mutations.of_bytes(chance, "".join(f"{line}\n" for line in lines).encode()))

    def read() -> None:
        write(prepare(dump, FORMATS[kind], core=1), folder / "out", "N", {})

    return "refused" if refused(read) else "read"


def _of_table(name: str, chance: random.Random, folder: Path) -> str:
    """A table by its format, and described; every other time as Parquet."""
    files = made_files.TABLES[name]
    made_files.write(folder, files)
    path = folder / chance.choice(list(files))
    path.write_bytes(mutations.of_bytes(chance, path.read_bytes()))
    given, columns = folder, {}
    if chance.random() < 0.5:
        given, columns = folder / "t.parquet", made_files.TABLE_COLUMNS
        rows = {one: [1, 2, 1] for one in columns.values()}
        pq.write_table(pa.table({**rows, "when": [1_500_000_000, 10**9, 10**9]}), given)
        given.write_bytes(mutations.of_bytes(chance, given.read_bytes()))
    section = {"source": "table", "path": str(given), "test_days": 1}
    section |= {"columns": columns} if columns else {"format": name}

    def read() -> None:
        source = datasets.read(Data.model_validate(section), Path())
        for log in (source.history, source.future):
            assert log is not None
            log.validate()
        json.dumps(dict(source.notes), allow_nan=False)

    def guess() -> None:
        describe(path if given == folder else given)

    outcomes = {refused(read), refused(guess)}
    return "refused" if outcomes == {True} else "read"


KINDS = {source: Reader(partial(_of_source, source)) for source in made_files.SETS}
KINDS |= {f"table-{name}": Reader(partial(_of_table, name)) for name in made_files.TABLES}
KINDS |= {kind: Reader(partial(_of_reviews, kind)) for kind in FORMATS}
