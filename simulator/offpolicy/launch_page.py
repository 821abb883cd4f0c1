"""The launches report as a document: the page, its Markdown, what the terminal shows."""

from __future__ import annotations

import json
from pathlib import Path

from simulator.log.files import write_texts
from simulator.offpolicy.past_launches import LaunchPair, LaunchResult, MetricLaunches
from simulator.page.blocks import (
    Block,
    Document,
    Facts,
    Multiples,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.figures import Spot, Whiskers, scatter
from simulator.page.html import page
from simulator.page.markdown import markdown
from simulator.page.words import between, interval, percent, title, two
from simulator.report.stored import encode
from simulator.stats.launches import Estimated

HEIGHT = 240
"""Of a scatter figure, px."""

VERDICTS = {
    "foretells": "the simulator foretells real lifts of {metric}",
    "foretells the opposite": "the simulator foretells the opposite of real lifts of {metric}",
    "wrong": (
        "the simulator is wrong about {metric}: that its lifts, as they are or shrunk, explain half"
        " of how real ones vary is excluded"
    ),
    "not known": (
        "whether the simulator foretells real lifts of {metric} is not known: these launches are"
        " too few or too noisy"
    ),
}


def document(content: LaunchResult) -> Document:
    """The report: the answer for each metric, forecasts, launches."""
    heading = f"Does the simulator foretell real tests? {content.scenario}"
    sections = [
        Section(metric.metric, title(metric.metric), _blocks(content, metric), title(metric.metric))
        for metric in content.metrics
    ]
    return Document(
        title=heading,
        kicker="Launches",
        heading=heading,
        about=" ".join(f"{answer(metric)}" for metric in content.metrics),
        facts=Facts([]),
        gates=[],
        sections=sections,
    )


def answer(metric: MetricLaunches) -> str:
    """What the launches say of the simulator for one metric, in words."""
    name = title(metric.metric).lower()
    relation = metric.relation
    if relation is None:
        return f"{title(metric.metric)}: {metric.why}."
    told = VERDICTS[relation.verdict].format(metric=name)
    n = relation.launches
    return (
        f"{told[0].upper()}{told[1:]}. Of {n} launches {_share(relation.signs)} have"
        f" the same sign; for 1% in the simulator reality has {_times(relation.slope)}; rank"
        f" correlation {_with(relation.rank)}. It explains {_share(relation.skill)} of how real"
        f" lifts vary; beyond that they vary by {percent(relation.spread.value, 1, False)}."
    )


def _share(share: Estimated) -> str:
    low, high = percent(share.low, 0, False), percent(share.high, 0, False)
    return f"{percent(share.value, 0, False)} ({low} to {high})"


def _times(slope: Estimated) -> str:
    return f"{two(slope.value)}% ({two(slope.low)} to {two(slope.high)})"


def _with(one: Estimated) -> str:
    return f"{two(one.value)} ({between(one.low, one.high, two)})"


NOTE = (
    "Intervals of what is said of the simulator are at 95%. Slope and spread: a line with errors in"
    " both lifts, with the priors of docs/offpolicy.md. A forecast is the simulated lift shrunk by"
    " what the launches say it is worth; its interval knows the noise of both, the spread, and what"
    " is not known of the line."
)


def _blocks(content: LaunchResult, metric: MetricLaunches) -> list[Block]:
    blocks: list[Block] = [Words(answer(metric))]
    if metric.forecasts:
        blocks += [Words(NOTE, note=True), _forecasts(content, metric)]
    label = "simulated lifts across, real lifts up"
    spots = [_spot(i, pair) for i, pair in enumerate(metric.pairs, 1)]
    blocks += [Multiples([(label, scatter(spots, label, HEIGHT))]), _pairs(metric)]
    return blocks


def _spot(i: int, pair: LaunchPair) -> Spot:
    real, simulated = pair.real, pair.simulated
    tip = f"{pair.test}: simulated {percent(simulated.value, 1)}, real {percent(real.value, 1)}"
    across = Whiskers(simulated.value, simulated.low, simulated.high)
    return Spot(across, Whiskers(real.value, real.low, real.high), str(i), tip)


def _forecasts(content: LaunchResult, metric: MetricLaunches) -> Table:
    """A row for each arm that was not launched."""
    rows = [
        (
            plain(one.arm),
            numeric(percent, one.simulated.value, 2),
            numeric(percent, one.real.value, 2),
            plain(interval(one.real.low, one.real.high, 2)),
            plain(percent(one.real.better, 0, False)),
        )
        for one in metric.forecasts
    ]
    level = percent(content.level, 0, False)
    heads = columns(
        f"Not launched, over {content.control}",
        "Simulated lift",
        "Forecast of the real lift",
        f"{level} interval",
        "Real lift is above 0",
    )
    return Table("Forecasts", heads, rows)


def _pairs(metric: MetricLaunches) -> Table:
    """A row for each launch, in the order of the file."""
    rows = [
        (
            plain(i, i),
            plain(pair.test),
            numeric(percent, pair.real.value, 2),
            plain(interval(pair.real.low, pair.real.high, 2)),
            numeric(percent, pair.simulated.value, 2),
            plain(interval(pair.simulated.low, pair.simulated.high, 2)),
        )
        for i, pair in enumerate(metric.pairs, 1)
    ]
    heads = columns(
        "Mark", "Launch", "Real lift", "95% interval", "Simulated", "95% interval", text=2
    )
    return Table("Launches", heads, rows)


def save(content: LaunchResult, folder: Path) -> Path:
    """Write launches.json, .md and .html, each by rename; returns the page."""
    shown = document(content)
    texts = {
        "launches.json": json.dumps(encode(content), indent=1, allow_nan=False) + "\n",
        "launches.md": markdown(shown),
        "launches.html": page(shown),
    }
    write_texts(folder, texts)
    return folder / "launches.html"
