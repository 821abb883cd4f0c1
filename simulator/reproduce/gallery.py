"""The gallery of built-in policies: paper, parameters, measured cost and accuracy. docs/policies.md
is its output and nothing else.
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from policies.base import Catalogue, Fitting, Params, Policy, Sequences, WorldBound
from policies.registry import available, make, resolve
from policies.validation import discount

BRINGS_A_MODEL = ("exported", "implicit", "recbole", "remote")
"""Policies that serve a model from elsewhere: described, not measured."""

SCENARIO = {
    "name": "gallery",
    "seed": 1,
    "users": {"kind": "choice", "n_users": 1000, "n_items": 1500},
    "data": {"source": "synthetic", "history_days": 7},
    "days": 1,
    "arms": {"random": {"policy": "random"}, "popularity": {"policy": "popularity"}},
    "engine": {"executor": "serial", "shards": 1},
}
"""The synthetic history that everything is measured on."""

HEAD = """\
# The built-in policies

Written by `abtest policies gallery`. Measured on the history of a synthetic world ({users:,} users,
{items:,} items, {clicks:,} clicks, seed 1), with default parameters, on one core: *fit* is CPU
seconds, *requests* are requests per CPU second in blocks of 1,024, 60 candidates each; *HR@10* and
*NDCG@10* are of each user's last click (one held-out item a user, all items ranked, items seen
before excluded), with the 95% interval over users. They say what a policy does with clicks from a
feed of that size; the paper's tables are in [results](results.md). Machine: {machine}.
"""


@dataclass(frozen=True)
class Measured:
    """One policy on the gallery's history: CPU s of the fit, requests per CPU s, HR@10 and NDCG@10
    with their 95% half-widths.
    """

    fit: float
    requests: float
    hit_rate: tuple[float, float]
    ndcg: tuple[float, float]


def history() -> tuple[Sequences, Catalogue]:
    """The logged history of the gallery's world."""
    from simulator.log.eventlog import EventLog
    from simulator.run.pipeline import run
    from simulator.scenario.model import Scenario

    with tempfile.TemporaryDirectory() as folder:
        run(Scenario.model_validate(SCENARIO), Path(folder))
        log = EventLog.open(Path(folder) / "log")
        sequences = log.sequences("history")
    return sequences, Catalogue(log.metadata.n_users, log.metadata.n_items)


def measure(
    policy: Policy, sequences: Sequences, catalogue: Catalogue, k: int = 10, candidates: int = 60
) -> Measured:
    """Fit on all but each user's last click and what follows it; rank everything for that click."""
    known, users, target = _leave_last_click(sequences)
    began = time.process_time()
    policy.fit(known, catalogue, Fitting(seed=1))
    fitted = time.process_time() - began
    requests = known.last(128).rows(users)
    policy.recall(requests.rows(slice(0, 64)), candidates, 1)
    ranked = np.zeros((len(users), candidates), dtype=np.int64)
    began = time.process_time()
    for start in range(0, len(users), 1024):
        ranked[start : start + 1024] = policy.recall(
            requests.rows(slice(start, start + 1024)), candidates, 1
        ).items
    served = time.process_time() - began
    found = ranked[:, :k] == target[:, None]
    gain = (found * discount(np.arange(k))).sum(axis=1)
    half = 1.96 / np.sqrt(len(users))
    hit = found.any(axis=1)
    return Measured(
        fitted,
        len(users) / served,
        (hit.mean(), half * hit.std()),
        (gain.mean(), half * gain.std()),
    )


def _leave_last_click(sequences: Sequences) -> tuple[Sequences, Any, Any]:
    """The log before each user's last click, and that click where the user had not clicked the item
    before.
    """
    place = np.arange(len(sequences.items))
    row = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    last = np.full(len(sequences), -1)
    np.maximum.at(last, row[sequences.clicked], place[sequences.clicked])
    known = sequences.where(place < last[row])
    seen = known.last(128).items
    target = np.where(last >= 0, sequences.items[last], 0)
    users = np.flatnonzero(
        (target > 0) & ~(seen == target[:, None]).any(axis=1) & (seen > 0).any(axis=1)
    )
    return known, users, target[users]


def page(progress: Callable[[str], None] = lambda name: None) -> str:
    """The whole page as Markdown; `progress` is told each policy's name before it is measured."""
    sequences, catalogue = history()
    rows, sections = [], []
    for name in sorted(
        entry.name for entry in available().values() if entry.distribution == "abtest"
    ):
        found = resolve(name)
        if name not in BRINGS_A_MODEL and not issubclass(found, WorldBound):
            progress(name)
            one = measure(make(name), sequences, catalogue)
            hit, gain = (
                f"{100 * mean:.2f} ± {100 * half:.2f}" for mean, half in (one.hit_rate, one.ndcg)
            )
            rows.append(
                (
                    one.hit_rate[0],
                    f"| `{name}` | {one.fit:.1f} | {one.requests:,.0f} | {hit} | {gain} |",
                )
            )
        sections.append(_section(name, found))
    table = [
        "| policy | fit, s | requests, 1/s | HR@10, % | NDCG@10, % |",
        "|---|---:|---:|---:|---:|",
    ]
    table += [row for _, row in sorted(rows, reverse=True)]
    clicks = int(sequences.clicked.sum())
    head = HEAD.format(
        users=catalogue.n_users, items=catalogue.n_items, clicks=clicks, machine=_machine()
    )
    return "\n".join([head, *table, "", *sections])


def _section(name: str, found: type[Policy]) -> str:
    module = sys.modules[found.__module__]
    source = " ".join((inspect.getdoc(module) or "").split("\n\n")[0].split())
    text = " ".join((inspect.getdoc(found) or "").split("\n\nAttributes:")[0].split())
    lines = [f"## {name}", "", text, "", f"*{found.__module__}*: {source}", ""]
    said = _attributes(found)
    if fields(found):
        lines += ["| parameter | default | meaning |", "|---|---|---|"]
        lines += [
            f"| `{f.name}` | {_default(f)} | {said.get(f.name, '').replace('|', chr(92) + '|')} |"
            for f in fields(found)
        ]
        lines.append("")
    return "\n".join(lines)


def _attributes(found: type[Any]) -> dict[str, str]:
    """What the `Attributes:` parts of a class and its bases say of each field."""
    said: dict[str, str] = {}
    for cls in reversed(found.__mro__):
        _, _, text = (inspect.cleandoc(cls.__doc__) if cls.__doc__ else "").partition(
            "Attributes:\n"
        )
        for name, meaning in re.findall(r"^ {4}(\w+): (.+(?:\n {8,}.+)*)", text, re.MULTILINE):
            said[name] = " ".join(meaning.split())
    return said


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        value = field.default
    else:
        value = field.default_factory() if field.default_factory is not MISSING else "required"
    if isinstance(value, Params):
        changed = {f.name: getattr(value, f.name) for f in fields(value)}
        return (
            "`"
            + ", ".join(
                f"{key}: {one}" for key, one in changed.items() if not isinstance(one, Params)
            )
            + "`"
        )
    return f"`{value!r}`"


def _machine() -> str:
    import platform

    return f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}"


def names(text: str) -> Iterator[str]:
    """The policies that a page describes."""
    yield from re.findall(r"^## (\w+)$", text, re.MULTILINE)
