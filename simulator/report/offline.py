"""Offline figures and estimates beside the online lift: what `abtest fidelity` and `abtest replay`
have said of the same arms, if they were asked. Nothing is estimated here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simulator.log.files import read_json
from simulator.report.content import Content, HeadlineEstimate, OfflineFigure
from simulator.report.errors import ReportError

PLACE = Path("replay") / "replay.json"
"""Where a run's folder keeps its replay: `abtest replay RUN --out RUN/replay`."""


FORETOLD = Path("fidelity") / "fidelity.json"
"""Where a run's folder keeps it: `abtest fidelity SCENARIO --out RUN/fidelity`."""


def foretold(folder: Path, content: Content) -> tuple[OfflineFigure, ...]:
    """Every offline figure of the run's arms (hit rate, NDCG, off-policy estimates on held-out
    days), and how well the figure foretells.

    Raises:
        ReportError: the file is not what `abtest fidelity` writes.
    """
    file = folder / FORETOLD
    if not file.is_file():
        return ()
    try:
        return _figures(read_json(file), content)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ReportError(
            f"{file}: not what abtest fidelity writes ({error}); make it anew, or remove it"
        ) from error


def _figures(stored: Any, content: Content) -> tuple[OfflineFigure, ...]:
    names = [policy["policy"] for policy in stored["policies"]]
    place = {arm: names.index(arm) for arm in content.arms if arm in names}
    base = place.pop(content.control, None)
    rows = []
    for figure in stored["figures"]:
        points = figure["points"]
        for arm, i in place.items():
            rows.append(
                OfflineFigure(
                    figure=figure["figure"],
                    reward=stored["reward"],
                    arm=arm,
                    value=points[i]["value"],
                    control=None if base is None else points[base]["value"],
                    online=stored["policies"][i]["lift"],
                    rho=figure["rho"],
                    ordered=figure["ordered"],
                )
            )
    return tuple(rows)


def beside(folder: Path, content: Content) -> tuple[HeadlineEstimate, ...]:
    """The headline estimate of every policy that was replayed on the log of a run, beside the lift
    of the arm that it is.

    Args:
        folder: of the run.
        content: gathered report of the run; names arms, their policies and lifts.

    Raises:
        ReportError: the file is not what `abtest replay` writes.
    """
    file = folder / PLACE
    if not file.is_file():
        return ()
    stored = read_json(file)
    try:
        return _estimates(stored, content)
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ReportError(
            f"{file}: not what abtest replay writes ({error}); make it anew, or remove it"
        ) from error


def _estimates(stored: Any, content: Content) -> tuple[HeadlineEstimate, ...]:
    arm_of = {
        spec.get("policy"): arm
        for arm, spec in content.settings.get("arms", {}).items()
        if not spec.get("params")
    }
    online = {(row.arm, row.metric): row.lift for row in content.lifts if row.unit == "user"}
    rows = []
    for replay in stored:
        metric = {"watch": "watch_time"}.get(replay["reward"], replay["reward"])
        for policy in replay["policies"]:
            name = policy["policy"]
            arm = name if name in content.arms else arm_of.get(name)
            estimate = next(e for e in policy["estimates"] if e["estimator"] == policy["headline"])
            rows.append(
                HeadlineEstimate(
                    policy=name,
                    verdict=policy["verdict"],
                    reasons=tuple(policy["reasons"]),
                    estimator=estimate["estimator"],
                    value=estimate["value"],
                    low=estimate["low"],
                    high=estimate["high"],
                    reward=metric,
                    logged=replay["logged"]["value"],
                    arm=arm,
                    online=None if arm is None else online.get((arm, metric)),
                )
            )
    return tuple(rows)
