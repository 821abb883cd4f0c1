"""The gallery of built-in policies: paper, parameters, measured cost and accuracy. docs/policies.md
is its output and nothing else.
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from policies.base import Catalogue, Fitting, Params, Policy, Sequences, WorldBound
from policies.registry import available, make, resolve
from policies.validation import discount
from simulator.page.blocks import (
    Block,
    Document,
    Facts,
    Prose,
    Section,
    Table,
    Words,
    columns,
    plain,
)
from simulator.page.markdown import markdown
from simulator.page.words import whole

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

TOP, SET = 10, 60
"""The items of a slate, and of the set that a ranker is given."""

HEAD = (
    "Written by `abtest policies gallery`. Measured on the history of a synthetic world ({users:,}"
    " users, {items:,} items, {clicks:,} clicks, seed 1), with default parameters, on one core: fit"
    " is CPU seconds, requests are requests per CPU second in blocks of 1,024, 60 candidates each;"
    " HR@10, NDCG@10 and HR@60 (whether it is in the set that a ranker is given) are of each user's"
    " last click (one held-out item a user, all items ranked, items seen before excluded), with the"
    " 95% interval over users. They say what a policy does with clicks from a feed of that size;"
    " the paper's tables are in [results](results.md). Machine: {machine}."
)


@dataclass(frozen=True)
class Measured:
    """One policy on the gallery's history: CPU s of the fit, requests per CPU s; HR@10, NDCG@10 and
    HR@60, each with its 95% half-width.
    """

    fit: float
    requests: float
    hit_rate: tuple[float, float]
    ndcg: tuple[float, float]
    set_hit_rate: tuple[float, float]


def history() -> tuple[Sequences, Catalogue]:
    """The logged history of the gallery's world, and its catalogue."""
    from simulator.log.eventlog import EventLog
    from simulator.log.workspace import Workspace, load_catalogue
    from simulator.run.pipeline import run
    from simulator.scenario.model import Scenario

    with tempfile.TemporaryDirectory() as folder:
        where = Workspace(Path(folder))
        run(Scenario.model_validate(SCENARIO), where.root)
        sequences = EventLog.open(where.log).sequences("history")
        return sequences, load_catalogue(where.models / "catalogue.npz")


def measure(policy: Policy, sequences: Sequences, catalogue: Catalogue) -> Measured:
    """Fit on all but each user's last click and what follows it; rank everything for that click."""
    training, users, last = _leave_last_click(sequences)
    target = sequences.items[last]
    began = time.process_time()
    policy.fit(training, catalogue, Fitting(seed=1))
    fitted = time.process_time() - began
    asked = policy.asked_context()
    requests = training.last(128, asked).rows(users)
    requests = requests.with_context(requests.context() | sequences.context_at(last, asked))
    policy.recall(requests.rows(slice(0, 64)), SET, 1)
    ranked = np.zeros((len(users), SET), dtype=np.int64)
    began = time.process_time()
    for start in range(0, len(users), 1024):
        ranked[start : start + 1024] = policy.recall(
            requests.rows(slice(start, start + 1024)), SET, 1
        ).items
    served = time.process_time() - began
    is_hit = ranked == target[:, None]
    gain = (is_hit[:, :TOP] * discount(np.arange(TOP))).sum(axis=1)
    figures = is_hit[:, :TOP].any(axis=1), gain, is_hit.any(axis=1)
    half = 1.96 / np.sqrt(len(users))
    shares = ((each.mean(), half * each.std()) for each in figures)
    return Measured(fitted, len(users) / served, *shares)


def _leave_last_click(sequences: Sequences) -> tuple[Sequences, Any, Any]:
    """The log before each user's last click, the users who had not seen that item before, and the
    row of their last click in the whole log.
    """
    place = np.arange(len(sequences.items))
    row = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    last = np.full(len(sequences), -1)
    np.maximum.at(last, row[sequences.clicked], place[sequences.clicked])
    training = sequences.where(place < last[row])
    seen = training.last(128).items
    target = np.where(last >= 0, sequences.items[last], 0)
    users = np.flatnonzero(
        (target > 0) & ~(seen == target[:, None]).any(axis=1) & (seen > 0).any(axis=1)
    )
    return training, users, last[users]


def page(progress: Callable[[str], None] = lambda name: None) -> str:
    """The whole page as Markdown; `progress` is told each policy's name before it is measured."""
    sequences, catalogue = history()
    measured, names = {}, []
    for name in sorted(
        entry.name for entry in available().values() if entry.distribution == "abtest"
    ):
        names.append(name)
        if name not in BRINGS_A_MODEL and not issubclass(resolve(name), WorldBound):
            progress(name)
            measured[name] = measure(make(name), sequences, catalogue)
    head = HEAD.format(
        users=catalogue.n_users,
        items=catalogue.n_items,
        clicks=int(sequences.clicked.sum()),
        machine=_machine(),
    )
    return markdown(document(head, measured, names))


def document(head: str, measured: Mapping[str, Measured], names: Sequence[str]) -> Document:
    """The gallery: what was measured, the best first, and what each policy says of itself."""
    order = sorted(measured.items(), key=lambda pair: pair[1].hit_rate[0], reverse=True)
    rows = []
    for name, one in order:
        measures = (one.hit_rate, one.ndcg, one.set_hit_rate)
        shares = (f"{100 * mean:.2f} ± {100 * half:.2f}" for mean, half in measures)
        cells = (Prose(f"`{name}`"), f"{one.fit:.1f}", whole(one.requests), *shares)
        rows.append([plain(cell) for cell in cells])
    heads = columns(
        "policy", "fit, s", "requests, 1/s", f"HR@{TOP}, %", f"NDCG@{TOP}, %", f"HR@{SET}, %"
    )
    figures = Section("measured", "What was measured", [Table("Measured", heads, rows)])
    return Document(
        title="The built-in policies",
        kicker="Policies",
        heading="The built-in policies",
        about=Prose(head),
        facts=Facts([]),
        gates=[],
        sections=[figures, *(_section(name, resolve(name)) for name in names)],
    )


def _section(name: str, policy: type[Policy]) -> Section:
    module = sys.modules[policy.__module__]
    source = (inspect.getdoc(module) or "").split("\n\n")[0]
    text = (inspect.getdoc(policy) or "").split("\n\nAttributes:")[0]
    blocks: list[Block] = [
        Words(Prose(text)),
        Words(Prose(source), note=True, lead=f"{policy.__module__}:"),
    ]
    meanings = _attributes(policy)
    rows = []
    for field in fields(policy):
        cells = (f"`{field.name}`", _default(field), meanings.get(field.name, ""))
        rows.append([plain(Prose(cell)) for cell in cells])
    if rows:
        heads = columns("parameter", "default", "meaning", text=3)
        blocks.append(Table(f"Parameters of {name}", heads, rows))
    return Section(name, name, blocks)


def _attributes(policy: type[Any]) -> dict[str, str]:
    """What the `Attributes:` parts of a class and its bases say of each field."""
    meanings: dict[str, str] = {}
    for cls in reversed(policy.__mro__):
        _, _, text = (inspect.cleandoc(cls.__doc__) if cls.__doc__ else "").partition(
            "Attributes:\n"
        )
        for name, meaning in re.findall(r"^ {4}(\w+): (.+(?:\n {8,}.+)*)", text, re.MULTILINE):
            meanings[name] = " ".join(meaning.split())
    return meanings


def _default(field: Field[Any]) -> str:
    """The default of a hyper-parameter as code; of a section its own hyper-parameters."""
    value = field.default
    if field.default_factory is not MISSING:
        value = field.default_factory()
    if value is MISSING:
        return "required"
    if not isinstance(value, Params):
        return f"`{value!r}`"
    own = {inner.name: getattr(value, inner.name) for inner in fields(value)}
    shown = [f"{key}: {one}" for key, one in own.items() if not isinstance(one, Params)]
    return f"`{', '.join(shown)}`"


def _machine() -> str:
    import platform

    return f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}"


def names(text: str) -> Iterator[str]:
    """The policies that a page describes."""
    yield from re.findall(r"^## (\w+)$", text, re.MULTILINE)
