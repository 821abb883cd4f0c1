"""Offline figures and estimates beside the online lift: what `abtest fidelity` and `abtest replay`
have said of the same arms, if they were asked. Nothing is estimated here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulator.log.files import read_json
from simulator.report import ReportError

PLACE = Path("replay") / "replay.json"
"""Where a run's folder keeps its replay: `abtest replay RUN --out RUN/replay`."""


FORETOLD = Path("fidelity") / "fidelity.json"
"""Where a run's folder keeps it: `abtest fidelity SCENARIO --out RUN/fidelity`."""


def foretold(folder: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every offline figure of the run's arms (hit rate, NDCG, off-policy estimates on held-out
    days), and how well the figure foretells.

    Returns:
        Rows with `figure`, `arm`, `value`, `control` (the control's value), `online` (the arm's
        true lift there, in `reward`), `rho` (rank correlation of the figure with the online lift
        over all policies) and `ordered` (share of pairs of policies that it orders right).
    """
    file = folder / FORETOLD
    if not file.is_file():
        return []
    try:
        stored = read_json(file)
        names = [policy["policy"] for policy in stored["policies"]]
        at = {arm: names.index(arm) for arm in content["arms"] if arm in names}
        base = at.get(content["control"])
        return [
            {
                "figure": figure["figure"],
                "reward": stored["reward"],
                "arm": arm,
                "value": figure["points"][i]["value"],
                "control": None if base is None else figure["points"][base]["value"],
                "online": stored["policies"][i]["lift"],
                "rho": figure["rho"],
                "ordered": figure["ordered"],
            }
            for figure in stored["figures"]
            for arm, i in at.items()
            if arm != content["control"]
        ]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ReportError(
            f"{file}: not what abtest fidelity writes ({error}); make it anew, or remove it"
        ) from error


def beside(folder: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline estimate of every policy that was replayed on the log of a run, beside the lift
    of the arm that it is.

    Args:
        folder: of the run.
        content: gathered report of the run; names arms, their policies and lifts.

    Returns:
        Rows with `policy`, `reward`, `estimator`, `value`, `low`, `high` (per impression), `logged`
        (the logging policy's own value), `verdict` (trustworthy, weak, unusable), `reasons`, and
        `arm`, `online` (its lift in that reward; None where the policy is no arm).
    """
    file = folder / PLACE
    if not file.is_file():
        return []
    stored = read_json(file)
    try:
        return _estimates(stored, content)
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ReportError(
            f"{file}: not what abtest replay writes ({error}); make it anew, or remove it"
        ) from error


def _estimates(stored: Any, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    arms = {
        spec.get("policy"): arm
        for arm, spec in content["settings"].get("arms", {}).items()
        if not spec.get("params")
    }
    online = {
        (row["arm"], row["metric"]): row["lift"]
        for row in content["lifts"]
        if row["unit"] == "user"
    }
    rows = []
    for replay in stored:
        metric = {"watch": "watch_time"}.get(replay["reward"], replay["reward"])
        for policy in replay["policies"]:
            arm = (
                policy["policy"]
                if policy["policy"] in content["arms"]
                else arms.get(policy["policy"])
            )
            estimate = next(e for e in policy["estimates"] if e["estimator"] == policy["headline"])
            rows.append(
                {
                    **{key: policy[key] for key in ("policy", "verdict", "reasons")},
                    **{key: estimate[key] for key in ("estimator", "value", "low", "high")},
                    "reward": metric,
                    "logged": replay["logged"]["value"],
                    "arm": arm,
                    "online": online.get((arm, metric)),
                }
            )
    return rows
