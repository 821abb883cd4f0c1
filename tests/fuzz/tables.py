"""Tables of users: one content in many dresses has one verdict; what is damaged is refused or read,
never with a traceback.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.fuzz import mutations
from tests.fuzz.harness import WrongEndError, command

COUNT = 1000


def case(chance: random.Random, folder: Path) -> str:
    """The verdict of a table in another dress is that of the table; a mutated one ends refused or
    read.
    """
    frame = _frame(chance)
    if chance.random() < 0.5:
        plain, dressed = folder / "plain.csv", _dressed(chance, frame, folder)
        frame.to_csv(plain, index=False)
        if _lifts(plain, folder / "a") != _lifts(dressed, folder / "b"):
            raise WrongEndError(f"{dressed.name}: another verdict in another dress")
        return "the same in another dress"
    path = folder / "t.csv"
    path.write_bytes(mutations.of_bytes(chance, frame.to_csv(index=False).encode()))
    return (
        "mutated, read"
        if command("report", path, "--control", "control", "--quiet", "--out", folder / "out")
        else "mutated, refused"
    )


def _frame(chance: random.Random) -> pd.DataFrame:
    rng = np.random.default_rng(chance.randrange(2**32))
    n = chance.choice([8, 30, 60])
    users = chance.choice(
        [[f"{i:04}" for i in range(n)], [f"u{i}" for i in range(n)], list(range(10**6, 10**6 + n))]
    )
    columns: dict[str, Any] = {
        "user": users,
        "arm": ["control", "new"] * (n // 2),
        "clicks": rng.poisson(4, n),
        "minutes": rng.gamma(2, 5, n).round(3),
        "country": rng.choice(["DE", "FR", "pl, and so on"], n),
    }
    if chance.random() < 0.5:
        columns["minutes_before"] = rng.gamma(2, 5, n).round(3)
    if chance.random() < 0.5:
        columns["bought"] = rng.random(n) < 0.3
    if chance.random() < 0.3:
        columns["profit"] = rng.normal(-3, 5, n).round(2)
    return pd.DataFrame(columns)


def _dressed(chance: random.Random, frame: pd.DataFrame, folder: Path) -> Path:
    kind = chance.choice(
        ["tsv", "gz", "bom", "crlf", "quoted", "parquet", "folder", "index", "columns"]
    )
    if kind in ("parquet", "index"):
        path = folder / f"{kind}.parquet"
        (frame.set_index("user") if kind == "index" else frame).to_parquet(
            path, index=kind == "index"
        )
        return path
    if kind == "folder":
        path = folder / "parts"
        path.mkdir()
        half = len(frame) // 2
        frame.iloc[:half].to_parquet(path / "0.parquet", index=False)
        frame.iloc[half:].to_parquet(path / "1.parquet", index=False)
        return path
    path = folder / {"tsv": "t.tsv", "gz": "t.csv.gz"}.get(kind, f"{kind}.csv")
    if kind == "columns":
        names = list(frame.columns)
        chance.shuffle(names)
        kept = [name for name in frame.columns if name in ("clicks", "minutes", "bought", "profit")]
        rest = [name for name in names if name not in kept]
        frame = frame[rest + kept]  # metrics are printed in the order of the table
    text = frame.to_csv(
        index=False, sep="\t" if kind == "tsv" else ",", quoting=1 if kind == "quoted" else 0
    )
    content = {"bom": "\ufeff" + text, "crlf": text.replace("\n", "\r\n")}.get(kind, text).encode()
    path.write_bytes(gzip.compress(content) if kind == "gz" else content)
    return path


def _lifts(path: Path, out: Path) -> list[tuple[Any, ...]]:
    assert command("report", path, "--control", "control", "--quiet", "--out", out), path
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return [tuple(_rounded(row[key]) for key in sorted(row)) for row in content["lifts"]]


def _rounded(value: Any) -> Any:
    return float(f"{value:.12g}") if isinstance(value, float) and math.isfinite(value) else value
