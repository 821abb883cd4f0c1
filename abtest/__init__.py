"""abtest for Python: everything that its pages use, under one name (docs/api.md).

Nothing is defined here. A name is imported when it is first used, so that `import abtest` loads
neither torch nor numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import policies  # noqa: F401 (chooses how numba and MKL work, before anything loads them)

if TYPE_CHECKING:
    from policies.base import (
        Admitting,
        Catalogue,
        Expectant,
        Fitting,
        Histories,
        Policy,
        Progress,
        Retriever,
        Scorer,
        Sequences,
        Slates,
        Stochastic,
        Updatable,
        WorldBound,
    )
    from policies.check import CHECKS, check_one, check_policy
    from policies.nearest import Nearest
    from policies.products import matmul
    from policies.registry import PolicyError, available, make
    from policies.retrieval import top_k
    from policies.scored import Scored
    from policies.streams import Purpose, uniform
    from policies.vectors import Batch, Network, Samples, VectorPolicy
    from simulator.config.document import ScenarioError
    from simulator.datasets.batches import write_table
    from simulator.datasets.delimited import DataError
    from simulator.datasets.describe import TableDescription
    from simulator.datasets.describe import describe as describe_table
    from simulator.log.eventlog import EventLog
    from simulator.log.metadata import LogError, Metadata
    from simulator.log.metrics import Absolute, Declared
    from simulator.log.workspace import RunError
    from simulator.offpolicy.choice import choose as choose_policy
    from simulator.offpolicy.fidelity import fidelity
    from simulator.offpolicy.jobs import ReplayOptions
    from simulator.offpolicy.lifts import off_policy_lifts
    from simulator.offpolicy.pooled import arm_sums, pooled_lift
    from simulator.offpolicy.replay import ESTIMATORS, ReplayError, ReplaySettings, evaluate
    from simulator.offpolicy.rounds import Rounds, Stream
    from simulator.offpolicy.sources import replay
    from simulator.offpolicy.target import PolicyTargets, Target
    from simulator.report import ReportError
    from simulator.report import load as load_report
    from simulator.report import write as report
    from simulator.report.comparison import read as compare
    from simulator.report.content import Content
    from simulator.report.earlier import read_priors
    from simulator.report.metric_sensitivity import sensitivity
    from simulator.report.tracking import Record, track
    from simulator.report.user_table import decide, lifts, winners
    from simulator.report.user_table import write as report_table
    from simulator.run.pipeline import Outcome, run, simulate
    from simulator.scenario.model import Scenario
    from simulator.stats.choices import Choices
    from simulator.stats.decision import Decision
    from simulator.stats.margins import Margins
    from simulator.stats.priors import Prior
    from simulator.stats.quantities import Quantity
    from simulator.stats.unit_table import TableError
    from simulator.surface.axes import MapError
    from simulator.surface.bias import BiasError, BiasResult, design_bias
    from simulator.surface.mapping import LiftMap, map_lift
    from simulator.users.base import NEVER, DescribesRequests, Feedback, Source, Users
    from simulator.users.check import check_users
    from simulator.users.choice import Choice
    from simulator.users.plugins import UserModel, UserModelError

_NAMES = {
    "simulator.run.pipeline": "Outcome run simulate",
    "simulator.scenario.model": "Scenario",
    "simulator.config.document": "ScenarioError",
    "simulator.datasets.batches": "write_table",
    "simulator.datasets.delimited": "DataError",
    "simulator.datasets.describe": "TableDescription describe:describe_table",
    "simulator.log.workspace": "RunError",
    "simulator.log.eventlog": "EventLog",
    "simulator.log.metadata": "LogError Metadata",
    "simulator.report": "ReportError load:load_report write:report",
    "simulator.report.content": "Content",
    "simulator.report.earlier": "read_priors",
    "simulator.report.tracking": "Record track",
    "simulator.report.user_table": "decide lifts winners write:report_table",
    "simulator.report.comparison": "read:compare",
    "simulator.report.metric_sensitivity": "sensitivity",
    "simulator.stats.choices": "Choices",
    "simulator.stats.decision": "Decision",
    "simulator.stats.margins": "Margins",
    "simulator.stats.priors": "Prior",
    "simulator.log.metrics": "Absolute Declared",
    "simulator.stats.quantities": "Quantity",
    "simulator.stats.unit_table": "TableError",
    "simulator.offpolicy.sources": "replay",
    "simulator.offpolicy.jobs": "ReplayOptions",
    "simulator.offpolicy.choice": "choose:choose_policy",
    "simulator.offpolicy.fidelity": "fidelity",
    "simulator.offpolicy.lifts": "off_policy_lifts",
    "simulator.offpolicy.replay": "ESTIMATORS ReplayError ReplaySettings evaluate",
    "simulator.offpolicy.pooled": "arm_sums pooled_lift",
    "simulator.offpolicy.rounds": "Rounds Stream",
    "simulator.offpolicy.target": "PolicyTargets Target",
    "simulator.surface.axes": "MapError",
    "simulator.surface.bias": "BiasError BiasResult design_bias",
    "simulator.surface.mapping": "LiftMap map_lift",
    "simulator.users.base": "NEVER DescribesRequests Feedback Source Users",
    "simulator.users.check": "check_users",
    "simulator.users.choice": "Choice",
    "simulator.users.plugins": "UserModel UserModelError",
    "policies.base": "Admitting Catalogue Expectant Fitting Histories"
    " Policy Progress Retriever Scorer Sequences Slates Stochastic Updatable WorldBound",
    "policies.scored": "Scored",
    "policies.nearest": "Nearest",
    "policies.vectors": "Batch Network Samples VectorPolicy",
    "policies.registry": "PolicyError available make",
    "policies.check": "CHECKS check_one check_policy",
    "policies.retrieval": "top_k",
    "policies.products": "matmul",
    "policies.streams": "Purpose uniform",
}
"""Module -> the names it gives, `its name:our name` where they differ. The imports above are the
same for type checkers (tests/test_api.py holds both equal).
"""

_PLACES = {
    pair.rpartition(":")[2]: (module, pair.partition(":")[0])
    for module, names in _NAMES.items()
    for pair in names.split()
}

__all__ = [
    "CHECKS",
    "ESTIMATORS",
    "NEVER",
    "Absolute",
    "Admitting",
    "Batch",
    "BiasError",
    "BiasResult",
    "Catalogue",
    "Choice",
    "Choices",
    "Content",
    "DataError",
    "Decision",
    "Declared",
    "DescribesRequests",
    "EventLog",
    "Expectant",
    "Feedback",
    "Fitting",
    "Histories",
    "LiftMap",
    "LogError",
    "MapError",
    "Margins",
    "Metadata",
    "Nearest",
    "Network",
    "Outcome",
    "Policy",
    "PolicyError",
    "PolicyTargets",
    "Prior",
    "Progress",
    "Purpose",
    "Quantity",
    "Record",
    "ReplayError",
    "ReplayOptions",
    "ReplaySettings",
    "ReportError",
    "Retriever",
    "Rounds",
    "RunError",
    "Samples",
    "Scenario",
    "ScenarioError",
    "Scored",
    "Scorer",
    "Sequences",
    "Slates",
    "Source",
    "Stochastic",
    "Stream",
    "TableDescription",
    "TableError",
    "Target",
    "Updatable",
    "UserModel",
    "UserModelError",
    "Users",
    "VectorPolicy",
    "WorldBound",
    "arm_sums",
    "available",
    "check_one",
    "check_policy",
    "check_users",
    "choose_policy",
    "compare",
    "decide",
    "describe_table",
    "design_bias",
    "evaluate",
    "fidelity",
    "lifts",
    "load_report",
    "make",
    "map_lift",
    "matmul",
    "off_policy_lifts",
    "pooled_lift",
    "read_priors",
    "replay",
    "report",
    "report_table",
    "run",
    "sensitivity",
    "simulate",
    "top_k",
    "track",
    "uniform",
    "winners",
    "write_table",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'abtest' has no attribute {name!r}; docs/api.md lists all")
    module, attribute = _PLACES[name]
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
