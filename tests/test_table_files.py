"""Files of per-user tables as people have them: text and nothing but text, lines that are right,
folders of parts.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from simulator.cli import main
from simulator.report import ReportError
from simulator.report import user_table as tables
from simulator.report.table_files import read
from simulator.stats.frames import from_frame
from simulator.stats.unit_table import UnitTable

N = 40
FRAME = pd.DataFrame(
    {
        "user": [f"{i:03d}" for i in range(N)],
        "arm": ["control", "new"] * (N // 2),
        "clicks": np.random.default_rng(2).poisson(5, N),
        "country": ["de", "NA"] * 10 + ["fr", ""] * 10,
    }
)
TEXT = FRAME.to_csv(index=False)
LINES = TEXT.splitlines()


def table_of(path: Path, content: bytes | str) -> UnitTable:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return from_frame(read(path))


def same(table: UnitTable) -> bool:
    """Whether it is the table of FRAME."""
    clicks, country = table.numerators["clicks"].tolist(), table.groups["country"].tolist()
    return (clicks, country, table.arms) == (
        FRAME.clicks.tolist(),
        [c or "(blank)" for c in FRAME.country],
        ("control", "new"),
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", TEXT),
        ("t.CSV", TEXT),
        ("t.csv", "\ufeff" + TEXT),
        ("t.csv", TEXT.replace("\n", "\r\n")),
        ("t.csv", TEXT.replace("\n", "\r")),
        ("t.csv", TEXT.encode("utf-16")),
        ("t.csv", FRAME.to_csv(index=False, quoting=1)),
        ("t.csv", TEXT.rstrip("\n")),
        ("t.csv", TEXT.replace("\n", "\n\n") + ",,,\n"),
        ("t.csv", TEXT.replace("user,arm", " user , arm", 1)),
        ("t.tsv", FRAME.to_csv(index=False, sep="\t")),
        ("t.csv.gz", gzip.compress(TEXT.encode())),
        ("t.csv.gz", gzip.compress(TEXT[:300].encode()) + gzip.compress(TEXT[300:].encode())),
        ("t.csv", "\n".join(line + "," for line in LINES)),
        ("t.csv", FRAME.to_csv()),
    ],
)
def test_the_same_table_however_it_is_written(
    tmp_path: Path, name: str, content: bytes | str
) -> None:
    assert same(table_of(tmp_path / name, content))


def test_text_is_read_as_it_stands(tmp_path: Path) -> None:
    """No cell is guessed: not by its look, not by what other blocks of the file hold, and only an
    empty one is blank.
    """
    k = 300_000
    ids = [*(str(100_000 + i) for i in range(k - 6)), "007", "7", "7e3", "NA", "nan", "null"]
    arms = ["1", "01"] * (k // 2)
    path = tmp_path / "big.csv"
    path.write_text(
        "user,arm,x\n"
        + "".join(
            f"{who},{arm},{i % 7}\n" for i, (who, arm) in enumerate(zip(ids, arms, strict=True))
        )
    )
    table = from_frame(read(path))
    assert (table.paired, table.n_units, table.arms) == (False, k, ("1", "01"))
    with path.open("a") as file:
        file.write("007,1,3\n")
    with pytest.raises(
        ValueError, match=rf"user 007 has several rows \(line {k + 2} is not the first\)"
    ):
        from_frame(read(path))


def test_lines_are_right_where_cells_have_several(tmp_path: Path) -> None:
    """A line is that of an editor, with line breaks in cells, empty lines and lines of commas above
    it.
    """
    rows = [
        "user,arm,x,note",
        '0,control,1,"one\ntwo\nthree"',
        "",
        ",,,",
        '1,new,2,"a ""quote"""',
        ",new,3,x",
    ]
    path = tmp_path / "t.csv"
    path.write_text("\r\n".join(rows))
    with pytest.raises(ValueError, match="line 8: column 'user' has no value"):
        from_frame(read(path))


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("t.csv", "", "it is empty; its first line names the columns"),
        ("t.csv", "user,arm,x\n\n,,\n", "has a head and no rows"),
        (
            "t.csv",
            "\n".join([*LINES[:9], "9,new,1", *LINES[9:]]),
            "line 10: a row has fewer values than line 1 has names: 3, not 4",
        ),
        (
            "t.csv",
            "\n".join([*LINES[:9], "9,new,1,2,3", *LINES[9:]]),
            "line 10: a row has more values",
        ),
        (
            "t.csv",
            "\n".join([*LINES[:9], '9,"new,1,2', *LINES[9:]]),
            "line 10: a row has fewer values",
        ),
        (
            "t.csv",
            "\n".join([*LINES[:5], "5,caf\u00e9,1,x", *LINES[5:]]).encode("latin-1"),
            "line 6: is not UTF-8 text",
        ),
        ("t.csv", "\n".join([*LINES[:5], "5\0,new,1,x", *LINES[5:]]), "line 6: has a NUL byte"),
        (
            "t.csv",
            TEXT.encode("utf-16-le"),
            "line 1: has a NUL byte: no text, or UTF-16 without its mark",
        ),
        ("t.csv", TEXT.replace(",", ";"), "must be separated by commas, and not by semicolons"),
        ("t.csv", TEXT.replace(",", "\t"), "must be separated by commas, and not by tabs"),
        ("t.tsv", TEXT, "must be separated by tabs, and not by commas"),
        ("t.csv", TEXT.replace("clicks", "arm", 1), "line 1: two columns are called 'arm'"),
        ("t.csv", gzip.compress(TEXT.encode()), "is gzipped, and no text"),
        ("t.csv.gz", TEXT, "is no whole gzip file"),
        ("t.csv.gz", gzip.compress(TEXT.encode())[:-20], "is no whole gzip file"),
        ("t.csv", b"PAR1", "is a Parquet file, and no text"),
        ("t.parquet", TEXT, "is not a readable Parquet file"),
        (
            "t.csv.zst",
            TEXT,
            (
                "a per-user table is a file of .csv, .csv.gz, .tsv, .tsv.gz, .parquet, or a folder"
                " of Parquet parts"
            ),
        ),
        ("t.xlsx", TEXT, "a per-user table is a file of .csv"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_the_line(
    tmp_path: Path, name: str, content: bytes | str, rule: str
) -> None:
    with pytest.raises(ReportError) as refusal:
        table_of(tmp_path / name, content)
    assert str(refusal.value).startswith(f"{tmp_path / name}: ")
    assert rule in str(refusal.value)


def test_columns_without_a_name_never_meet(tmp_path: Path) -> None:
    """A table that pandas wrote with its index, and wrote again, has a column called `Unnamed: 0`
    beside one without a name.
    """
    FRAME.to_csv(tmp_path / "once.csv")
    pd.read_csv(tmp_path / "once.csv", dtype=str).to_csv(tmp_path / "twice.csv")
    table = from_frame(read(tmp_path / "twice.csv"))
    assert list(table.numerators) == ["clicks"]
    assert {use.column: use.role for use in table.columns if use.note == "it has no name"} == {
        "Unnamed: 0.1": "left out",
        "Unnamed: 0": "left out",
    }


def parts(folder: Path, tables_by_path: dict[str, pd.DataFrame | pa.Table | bytes]) -> Path:
    for inside, part in tables_by_path.items():
        path = folder / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(part, pd.DataFrame):
            part.to_parquet(path)
        elif isinstance(part, bytes):
            path.write_bytes(part)
        else:
            pq.write_table(part, path)
    return folder


HALVES = (FRAME[:16], FRAME[16:])


@pytest.mark.parametrize(
    "by_path",
    [
        {
            "p0.parquet": HALVES[0],
            "p1.parquet": HALVES[1],
            "_SUCCESS": b"",
            "_temporary/p9.parquet": HALVES[0],
        },
        {
            "p0.parquet": HALVES[0].astype({"country": "category"}),
            "p1.parquet": HALVES[1].astype({"clicks": "int32"}),
        },
        {"p0.parquet": HALVES[0], "p1.parquet": HALVES[1][["country", "clicks", "arm", "user"]]},
        {"p0.parquet": HALVES[0].set_index("user"), "p1.parquet": HALVES[1].set_index("user")},
        {"p0.parquet": FRAME, "p1.parquet": FRAME[:0]},
    ],
)
def test_a_folder_of_parts_is_one_table(tmp_path: Path, by_path: dict[str, Any]) -> None:
    assert same(from_frame(read(parts(tmp_path / "parts", by_path))))
    assert not tables.is_log(tmp_path / "parts")


def test_a_part_without_rows_may_have_the_column_of_its_folder(tmp_path: Path) -> None:
    by_arm = {
        f"arm={arm}/p.parquet": part.reset_index(drop=True) for arm, part in FRAME.groupby("arm")
    }
    table = from_frame(read(parts(tmp_path, {**by_arm, "arm=new/q.parquet": FRAME[:0]})))
    assert (table.arms, len(table.numerators["clicks"])) == (("control", "new"), N)


def test_columns_of_folders_are_text_and_no_metric(tmp_path: Path) -> None:
    by_path = {
        f"arm={arm}/bucket={bucket}/p.parquet": part.drop(columns="arm")
        for (arm, bucket), part in FRAME.groupby(
            ["arm", np.where(np.arange(N) % 4 < 2, "007", "7")]
        )
    }
    table = from_frame(read(parts(tmp_path, by_path)))
    assert (table.arms, list(table.numerators)) == (("control", "new"), ["clicks"])
    assert set(table.groups["bucket"]) == {"007", "7"}
    blank = {
        f"region={name}/p.parquet": part
        for name, part in (("a%20b", FRAME[:20]), ("__HIVE_DEFAULT_PARTITION__", FRAME[20:]))
    }
    assert set(from_frame(read(parts(tmp_path / "blank", blank))).groups["region"]) == {
        "a b",
        "(blank)",
    }


@pytest.mark.parametrize(
    ("by_path", "rule"),
    [
        ({}, "has no .parquet parts, and so neither an event log nor a table"),
        ({"p0.csv": TEXT.encode()}, "has no .parquet parts"),
        (
            {"p0.parquet": HALVES[0], "p1.parquet": HALVES[1].drop(columns="clicks")},
            "p1.parquet: column 'clicks' is not there, and int64 in p0",
        ),
        (
            {"p0.parquet": HALVES[0], "p1.parquet": HALVES[1].astype({"clicks": float})},
            "column 'clicks' is double, and int64 in p0.parquet",
        ),
        ({"arm=x/p.parquet": FRAME}, "column 'arm' has other values than the 'x' of its folder"),
        ({"p0.parquet": b"no"}, "p0.parquet: is not a readable Parquet file"),
        ({"p0.parquet": FRAME, "_delta_log/0.json": b"{}"}, "is a Delta table"),
    ],
)
def test_folders_that_are_no_table_are_named(
    tmp_path: Path, by_path: dict[str, Any], rule: str
) -> None:
    (tmp_path / "parts").mkdir()
    result = CliRunner().invoke(
        main,
        [
            "report",
            str(parts(tmp_path / "parts", by_path)),
            "--control",
            "control",
            "--out",
            str(tmp_path / "out"),
        ],
    )
    assert (result.exit_code, (tmp_path / "out").exists()) == (2, False)
    assert rule in result.output


def test_a_part_and_its_row_are_named(tmp_path: Path) -> None:
    parts(
        tmp_path,
        {"a.parquet": HALVES[0], "b.parquet": HALVES[1].assign(user=[None, *HALVES[1].user[1:]])},
    )
    with pytest.raises(ValueError, match=r"b.parquet: row 0: column 'user' has no value"):
        from_frame(read(tmp_path))


@pytest.mark.parametrize(
    ("name", "write"),
    [("t.csv", lambda f, p: f.to_csv(p, index=False)), ("t.parquet", lambda f, p: f.to_parquet(p))],
)
def test_what_columns_were_taken_for_is_printed_and_in_every_file(
    tmp_path: Path, name: str, write: Callable[..., None]
) -> None:
    frame = FRAME.assign(
        spent=[f"{i + 1000:,}.50 €" for i in range(N)], device=[f"d{i}" for i in range(N)], same="x"
    )
    frame = pd.concat(
        [frame.assign(user=frame.user + f"-{k}", device=frame.device + f"-{k}") for k in range(8)]
    )
    write(frame.reset_index(drop=True), tmp_path / name)
    result = CliRunner().invoke(
        main, ["report", str(tmp_path / name), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    uses = {use["column"]: (use["role"], use["note"]) for use in content["columns"]}
    assert uses == {
        "user": ("user", ""),
        "arm": ("arm", ""),
        "clicks": ("metric", ""),
        "country": ("segment", "4 levels: (blank), NA, de, fr"),
        "spent": ("metric", "read without €, with ',' between thousands"),
        "device": ("left out", "has 320 levels, such as 'd0-0'; a segment has at most 250"),
        "same": ("left out", "it is 'x' in every row"),
    }
    printed = " ".join(result.output.split())
    assert "country: taken for a segment, 4 levels: (blank), NA, de, fr" in printed
    assert "device: left out, has 320 levels" in printed
    for file in ("report.md", "report.html"):
        page = (tmp_path / "out" / file).read_text()
        assert "Columns of the table" in page
        assert "in every row" in page
    asked = CliRunner().invoke(main, ["power", str(tmp_path / name), "--lift", "5%"])
    assert (asked.exit_code, "spent: taken for a metric, read without €" in asked.output) == (
        0,
        True,
    ), asked.output
    shutil.rmtree(tmp_path / "out")
