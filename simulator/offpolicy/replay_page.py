"""A replay as a document: the page, its Markdown and what the terminal shows. Every number comes
from the gathered content.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simulator.log.files import write_texts
from simulator.offpolicy.result import COVERED_OFTEN, headline
from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    Fold,
    Gate,
    Heading,
    Multiples,
    Points,
    Section,
    Status,
    Table,
    Words,
    columns,
    plain,
)
from simulator.page.figures import Scale, Series, axis, numbers, over_steps, strip
from simulator.page.html import page
from simulator.page.markdown import markdown
from simulator.page.words import between, number, percent, probability, two, whole

Row = Mapping[str, Any]

TONES = {"trustworthy": "good", "weak": "open", "unusable": "bad", None: "open"}
SIGNS = {"trustworthy": "●", "weak": "◐", "unusable": "○", None: "·"}
LIGHTS: dict[str | None, Status] = {"trustworthy": "green", "weak": "amber", "unusable": "red"}

READING = (
    "● trustworthy, ◐ weak, ○ unusable. Intervals are by bootstrap over users; replay.json has the"
    " others. Every estimator's assumption stands in docs/offpolicy.md."
)


def document(results: Sequence[Row]) -> Document:
    """All replays of a command, a section for each."""
    first = results[0]["title"]
    several = "What would these policies have got?"
    return Document(
        title=f"Offline replay: {first}",
        kicker="Offline replay",
        heading=first if len(results) == 1 else several,
        about="",
        facts=Facts([]),
        gates=[],
        sections=[
            _section(i, result, bare=len(results) == 1) for i, result in enumerate(results, 1)
        ],
        closing=READING,
    )


def save(results: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write replay.json, replay.md and replay.html, each by rename; returns the page."""

    stored = json.dumps(list(results), indent=1, allow_nan=False) + "\n"
    shown = document(results)
    write_texts(
        folder, {"replay.json": stored, "replay.md": markdown(shown), "replay.html": page(shown)}
    )
    return folder / "replay.html"


def _section(i: int, c: Row, bare: bool) -> Section:
    title = f"{c['title']} ({c['reward']})"
    blocks: list[Block] = [_facts(c)]
    if c["unobserved"]:
        note = f"{whole(c['unobserved'])} rounds left out: their reward was not observed."
        blocks.append(Words(note, note=True))
    if len(c["policies"]) > 1:
        blocks.append(_headlines(c["policies"]))
    for policy in c["policies"]:
        blocks += _policy(policy, c["logged"]["value"])
    if c["orders"]:
        blocks += [Heading("Order of what was shown"), _orders(c["orders"])]
    if c["notes"]:
        notes = [(name, _listed(value)) for name, value in c["notes"].items()]
        blocks.append(Fold("What the reader of the data says", [Facts(notes)]))
    return Section(f"replay-{i}", title, blocks, title, bare)


def _facts(c: Row) -> Facts:
    own = c["logged"]
    return Facts(
        [
            ("Reward", c["reward"]),
            ("Rounds", whole(c["rounds"])),
            ("Impressions", whole(c["impressions"])),
            ("Written by", c["arm"]),
            ("Propensities", c["propensity"]),
            ("The log's own value per request", _with_interval(own)),
        ]
    )


def _with_interval(row: Row) -> str:
    """`.31 [.30, .32]`: a value and the ends of its 95% interval."""
    return f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]"


def _interval(row: Row) -> Cell:
    return plain(between(row["low"], row["high"], number))


def _verdict(verdict: str | None, **more: Any) -> Cell:
    return Cell(verdict or "no verdict", kind=f"verdict {TONES[verdict]}", **more)


def _headlines(policies: Sequence[Row]) -> Table:
    rows = []
    for policy in policies:
        row = headline(policy)
        rows.append(
            (
                plain(policy["policy"]),
                plain(row["estimator"]),
                Cell(f"{number(row['value'])} per {row['unit']}", row["value"]),
                _interval(row),
                _verdict(policy["verdict"]),
            )
        )
    heads = columns("Policy", "By", "Value", "95% interval", text=2)
    name = "The estimate to read first of each policy"
    return Table(name, [*heads, Column("May one believe it?")], rows, caption=name)


def _policy(policy: Row, logged: float) -> Iterator[Block]:
    estimates = [row for row in policy["estimates"] if not row["refused"]]
    refused = [row for row in policy["estimates"] if row["refused"]]
    verdict, truth = policy["verdict"], policy["truth"]
    yield Heading(policy["policy"])
    why = f": {'; '.join(policy['reasons'])}" if policy["reasons"] else ""
    yield Gate(
        LIGHTS.get(verdict, "amber"), verdict or "no verdict", f"by {policy['headline']}{why}."
    )
    if truth:
        error = percent(truth["relative_error"], 1, sign=False)
        yield Words(
            f"Truth: {number(truth['value'])} by its own log of the same time"
            f" ({whole(truth['rounds'])} rounds, standard error {error} of it), the band behind"
            f" the intervals; {COVERED_OFTEN}."
        )
    yield _estimates(policy, estimates, _scale(estimates, truth, logged))
    if refused:
        reasons = [
            ("–", f"{row['estimator']} ({row['paper']}): {row['refused']}.") for row in refused
        ]
        number_of = f"{len(refused)} estimator{'s' if len(refused) > 1 else ''}"
        yield Fold(f"{number_of} did not run", [Points(reasons)])
    yield Fold("Why: reasons, diagnostics, sensitivity", list(_why(policy, estimates)))


def _scale(estimates: Sequence[Row], truth: Row | None, logged: float) -> Scale:
    """From the middle three quarters of all ends of intervals on, the truth and the log's own value
    inside; the widest intervals end in an arrow.
    """
    every = (row[key] for row in estimates for key in ("low", "high", "value"))
    ends = sorted(value for value in every if value is not None)
    inner = ends[len(ends) // 8 : len(ends) - len(ends) // 8] or [logged]
    if truth:
        inner = [*inner, truth["low"], truth["high"]]
    low, high = min([*inner, logged]), max([*inner, logged])
    margin = (high - low or abs(high) or 1.0) * 0.08
    return Scale(low - margin, high + margin, 2, 98)


def _estimates(policy: Row, estimates: Sequence[Row], scale: Scale) -> Table:
    """A forest plot of all estimators; the truth's interval is a band behind them."""
    truth = policy["truth"]
    region = (truth["low"], truth["high"]) if truth else None
    rows = []
    for row in estimates:
        tone = TONES[row["verdict"]]
        label = f"{row['estimator']}: {number(row['value'])}, 95% interval {_interval(row).text}"
        name = row["estimator"]
        if row["threshold"] is not None:
            name += f" ({_threshold(row['threshold'])})"
        matched = ""
        if row["unit"] != "request":
            matched = f"per {row['unit']}, {whole(row['count'])} matched"
        cells = [
            Cell(name, sign=SIGNS[row["verdict"]], kind=tone, under=matched),
            Cell(number(row["value"]), row["value"], kind="lift"),
            Cell(figure=strip(row, scale, tone, label, key="value", region=region)),
            _interval(row),
        ]
        if truth:
            covered = {True: "yes", False: "no", None: "n/a"}[row["covered"]]
            cells += [plain(covered), Cell(two(row["z"]), row["z"])]
        rows.append((*cells, _verdict(row["verdict"], hint="; ".join(row["reasons"]))))
    heads = [
        Column("Estimator"),
        Column("Value", number=True),
        Column("Forest plot", figure=True, sorts=False),
        Column("95% interval", number=True, sorts=False),
    ]
    if truth:
        heads += [Column("Covered", label="covered"), Column("z", number=True, label="z")]
    return Table(
        f"Estimates of {policy['policy']}",
        [*heads, Column("May one believe it?")],
        rows,
        kind="forest",
        foot=axis(scale, numbers),
    )


def _why(policy: Row, estimates: Sequence[Row]) -> Iterator[Block]:
    reasons = [
        (SIGNS[row["verdict"]], f"{row['estimator']}: {'; '.join(row['reasons'])}.")
        for row in estimates
        if row["reasons"]
    ]
    if reasons:
        yield Points(reasons)
    diagnostics = policy["diagnostics"]
    rows = [(plain(name), plain(value)) for name, value in _diagnostics(diagnostics)]
    yield Table("Diagnostics", columns("Diagnostic", "Value", text=2), rows, sortable=False)
    yield _days(diagnostics["days"])
    curves = [
        (f"{row['estimator']} by threshold", _curve(row))
        for row in estimates
        if any(point["value"] is not None for point in row["curve"])
    ]
    if curves:
        yield Multiples([(name, figure) for name, (figure, _) in curves])
        note = "Value and one standard error; the chosen threshold is the large mark."
        yield Words(note, note=True)
        for name, (_, table) in curves:
            yield Fold(f"{name} as a table", [table], screen=True)


def _diagnostics(d: Row) -> Iterator[tuple[str, str]]:
    def share(value: float | None) -> str:
        return percent(value, 1, sign=False)

    w = d["weights"]
    if w is not None:
        of_rounds = share(w["effective_share"])
        yield (
            "Effective sample size",
            f"{number(w['effective_sample'])} ({of_rounds} of the rounds)",
        )
        if w["effective_by_place"]:
            yield "Down to each place", ", ".join(map(number, w["effective_by_place"]))
        events = f"{whole(w['events'])} of them with a reward"
        yield "Whole slates with a weight", f"{share(w['matched_rounds'])}; {events}"
        mean = {"value": w["mean"], "low": w["low"], "high": w["high"]}
        yield "Mean weight (should be 1)", _with_interval(mean)
        if w["largest"]:
            largest = (f"{number(top['weight'])} ({top['row']})" for top in w["largest"][:5])
            yield "Largest weights (row of the log)", ", ".join(largest)
            yield "The largest, of the sum of all", share(w["largest"][0]["share"])
    yield "Impressions that match", share(d["matched_impressions"])
    yield "The log shows", f"{share(d['coverage'])} of what the target shows"
    drift = d["drift"]
    chi = f"chi-square {number(drift['chi_square'])}, p {probability(drift['p'])}"
    yield "Drift of the daily reward", chi


def _days(days: Sequence[Row]) -> Table:
    heads = columns("Day", "Rounds", "Logged reward", "Mean weight", "Self-normalised")
    rows = [
        (
            plain(day["day"], day["day"]),
            Cell(whole(day["rounds"]), day["rounds"]),
            *(Cell(number(day[key]), day[key]) for key in ("logged", "mean_weight", "snips")),
        )
        for day in days
    ]
    return Table("By day", heads, rows, caption="By day")


def _curve(row: Row) -> tuple[Any, Table]:
    """The value with one standard error to either side, by threshold, as a figure and as a
    table.
    """
    points = [point for point in row["curve"] if point["value"] is not None]
    places, rows, chosen = [], [], None
    for i, point in enumerate(points):
        value, error = point["value"], point["error"]
        low, high = (None, None) if error is None else (value - error, value + error)
        threshold = _threshold(point["threshold"])
        tip = (
            f"threshold {threshold}: {number(value)}, standard error {number(error)}, bias"
            f" {number(_finite(point['bias']))}"
        )
        places.append((i, value, low, high, tip))
        shown = (plain(number(_finite(point[key]))) for key in ("value", "error", "bias"))
        rows.append((plain(threshold), *shown))
        if point["threshold"] == row["threshold"]:
            chosen = i
    name = f"{row['estimator']} by threshold"
    series = Series(row["estimator"], 1, places, large=chosen)
    names = [_threshold(point["threshold"]) for point in points]
    heads = columns("Threshold", "Value", "Standard error", "Bias")
    return over_steps([series], names, name), Table(name, heads, rows)


def _finite(value: float | str | None) -> float | None:
    """A number of the content, where JSON has a word for what is infinite."""
    return math.inf if isinstance(value, str) else value


def _threshold(threshold: float | str) -> str:
    """A threshold in few characters: 30, 1k, 1M, ∞."""
    if isinstance(threshold, str):
        return "∞"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if threshold >= size:
            return f"{threshold / size:.4g}{letter}"
    return f"{threshold:.4g}"


def _orders(orders: Sequence[Row]) -> Table:
    caption = (
        "How each policy's scores order the clicks above the unclicks of the same session, scored"
        " from what came before the session."
    )
    rows = []
    for order in orders:
        if order["refused"]:
            figures = [plain(order["refused"]), *[plain("")] * 3]
        else:
            names = ("auc", "gauc", "ndcg")
            figures = [Cell(_with_interval(order[name]), order[name]["value"]) for name in names]
            figures.append(Cell(whole(order["sessions"]), order["sessions"]))
        rows.append((plain(order["policy"]), *figures))
    heads = columns("Policy", "AUC", "Grouped AUC", "NDCG", "Sessions")
    return Table("Order of what was shown", heads, rows, caption=caption)


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
