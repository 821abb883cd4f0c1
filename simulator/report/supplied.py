"""The supply side of a report: what was counted of items and authors, as rows with verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from simulator.log.metrics import Metric
from simulator.report.content import ItemShown, MetricNote, Supply, Verdict
from simulator.report.sentences import verdict_sentence
from simulator.stats.choices import Choices
from simulator.stats.exposures import Exposures
from simulator.stats.methods import MethodLift, further_method_lifts, unknown
from simulator.stats.supply import SupplySide, supply_side
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import FAMILIES, Lift, compared_further, in_families


def side_of(
    exposures: Exposures | None,
    metrics: Mapping[str, Metric],
    arms: Sequence[str],
    reason: str | None,
) -> SupplySide:
    """What was counted, of the metrics of the supply side among `metrics`; all of them are absent
    for a `reason` where nothing could be.
    """
    own = {name: metric for name, metric in metrics.items() if metric.supply is not None}
    if exposures is None:
        return SupplySide.unknown(own, arms, reason or "nothing was counted")
    return supply_side(exposures, own, arms)


MOST_SHOWN = 5
"""Items of an arm that a report names."""


def most_shown(exposures: Exposures | None, arms: Sequence[str]) -> tuple[ItemShown, ...]:
    """The items that each arm shows most, by their own ids where the run knows these.

    Args:
        exposures: of the log; None where nothing was counted.
        arms: in the order of the report.
    """
    if exposures is None:
        return ()
    found = []
    for arm in arms:
        index = exposures.meta.compared.index(arm)
        shown, clicked = (
            counts[index].sum(axis=0) for counts in (exposures.shown, exposures.clicked)
        )
        for item in np.argsort(-shown, kind="stable")[:MOST_SHOWN].tolist():
            if shown[item]:
                ids = exposures.items.ids
                rate = float(clicked[item] / shown[item]) if exposures.knows_clicks else None
                found.append(
                    ItemShown(
                        arm,
                        item,
                        None if ids is None else str(ids[item]),
                        int(shown[item]),
                        float(shown[item] / shown.sum()),
                        rate,
                    )
                )
    return tuple(found)


def supply(
    side: SupplySide,
    control: str,
    arms: Sequence[str],
    notes: Mapping[str, MetricNote],
    with_role: Sequence[Lift],
    methods_with_role: Sequence[MethodLift],
    days: UserDays,
    choices: Choices,
    most: tuple[ItemShown, ...],
) -> Supply:
    """The supply side of a report.

    Args:
        side: what was counted.
        control, arms: the control arm, and all arms, the control first.
        notes: what each metric is.
        with_role: the rows of metrics that have a role, corrected with those of users.
        methods_with_role: the same of methods.
        days: which arms have fits.
        choices: how lifts are computed.
        most: the items that each arm shows most.
    """
    treatments = [arm for arm in arms if arm != control]
    others = compared_further(side, control, treatments, with_role=False)
    rows = in_families(
        others,
        side.metrics,
        choices.interval,
        choices.correction,
        choices.rule,
        lambda some: side.correlations([(one.metric, one.control, one.arm) for one in some]),
    )
    rows += with_role
    names, order = list(side.metrics), list(arms)
    rows.sort(key=lambda row: (order.index(row.arm), names.index(row.metric)))
    rows = [row for row in rows if row in with_role or row.metric not in side.absent]
    known = [arm for arm in treatments if unknown(days, control, arm) is None]
    methods: list[MethodLift] = []
    if len(days.fits) > 0:
        methods = [
            *methods_with_role,
            *further_method_lifts(
                side, control, known, choices.interval, choices.correction, choices.rule
            ),
        ]
        methods.sort(key=lambda one: (order.index(one.lift.arm), names.index(one.lift.metric)))
    levels = [side.level(name, arm, choices.level) for name in side.metrics for arm in arms]
    return Supply(
        unknown=side.reason,
        metrics={name: notes[name] for name in side.metrics},
        levels=tuple(level for level in levels if level is not None),
        rows=tuple(rows),
        verdicts=tuple(_verdicts(rows, control, side.metrics)),
        methods=tuple(methods),
        absent=dict(side.absent),
        users={arm: side.users[arm] for arm in arms if arm in side.users},
        items=side.n_items,
        authors=side.n_authors,
        most_shown=most,
    )


def _verdicts(rows: Sequence[Lift], control: str, metrics: Mapping[str, Metric]) -> list[Verdict]:
    """Verdict and sentence of each row."""
    families = [FAMILIES[metrics[row.metric].role] for row in rows]
    verdicts = []
    for row, family in zip(rows, families, strict=True):
        tested = sum(
            own == family and not math.isnan(other.p)
            for own, other in zip(families, rows, strict=True)
        )
        direction = metrics[row.metric].higher_is_better
        sentence = verdict_sentence(row, control, tested, direction)
        verdicts.append(Verdict(row.metric, row.arm, row.unit, row.words, sentence))
    return verdicts


def of_users(rows: Sequence[Lift]) -> tuple[list[Lift], list[Lift]]:
    """Rows of users (and days), and those of the supply side."""
    supplied = [row for row in rows if row.unit in ("item", "author")]
    return [row for row in rows if row.unit not in ("item", "author")], supplied
