"""The scenario: the only configuration there is. One YAML file, one claim; unknown keys are errors.

Here live the models, their reading from YAML with file, line and key path in every complaint, the JSON schema, and the
resolved form that a log carries. Nothing is run here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from simulator.section import Section

METRICS = ("comment", "forward", "play", "follow", "watch_time", "click", "like", "sessions", "return")
"""The default metrics, in the order of print: the paper's five first (section 5.5)."""


class PolicySpec(Section):
    """A policy by name, with its hyper-parameters."""

    policy: str = Field(description="a registered name (`abtest policies list`), `module:Class` or `file.py:Class`")
    params: dict[str, Any] = Field(default_factory=dict, description="hyper-parameters, checked against the policy's dataclass fields")


class Arm(PolicySpec):
    """An arm: a policy under test."""


class Logging(PolicySpec):
    """The stochastic logging policy that wrote the history of a synthetic world: a policy within `explore`."""

    policy: str = "production"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    epsilon: Annotated[float, Field(ge=0, le=1)] = 0.05


class Data(Section):
    """Where the history comes from."""

    source: Literal["synthetic", "kuairand", "open_bandit", "s3rec", "inter", "log"] = "synthetic"
    path: str | None = Field(default=None, description="file or folder; relative to ABTEST_DATA, the scenario's folder or ../shared/data")
    history_days: Annotated[int, Field(ge=1)] = 14
    logging: Logging = Logging()


class Channel(PolicySpec):
    """A recall channel beside the tested one, the same for all arms."""

    name: str
    quota: Annotated[int, Field(ge=1)]


class Ranking(Section):
    """The stage between recall and the slate, fitted on the history, the same for all arms."""

    kind: Literal["pointwise", "recall"] = Field(default="pointwise", description="fitted pointwise ranker, or the recall order as it is")
    watch_weight: Annotated[float, Field(ge=0)] = 1.0


class Serving(Section):
    """How a request is served."""

    slate: Annotated[int, Field(ge=1, le=1000)] = 6
    recall: Annotated[int, Field(ge=1)] = 60
    history: Annotated[int, Field(ge=1)] = Field(default=128, description="impressions of the past that a policy is given")
    channels: tuple[Channel, ...] = ()
    ranking: Ranking = Ranking()
    refit: Literal["never", "daily"] = "never"
    refit_on: Literal["own", "pooled"] = "own"


class Design(Section):
    """Who gets which arm, and who is compared with whom."""

    kind: Literal["paired", "split", "switchback", "interleave"] = "paired"
    control: str | None = Field(default=None, description="name of the control arm; the first arm if left out")


class Engine(Section):
    """Speed only: nothing in here may change a byte of the log."""

    tick: Annotated[float, Field(gt=0)] = Field(default=3600.0, description="simulated seconds whose requests are served together")
    block: Annotated[int, Field(ge=1)] = 2048
    shards: Annotated[int, Field(ge=1)] = 2
    executor: Literal["serial", "processes", "ray"] = "processes"


class Scenario(Section):
    """A scenario, resolved: everything that decides the log, plus `engine`, which may not."""

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    data: Data = Data()
    users: Any
    days: Annotated[int, Field(ge=0)] = 5
    serving: Serving = Serving()
    arms: dict[str, Arm]
    design: Design = Design()
    metrics: tuple[str, ...] = METRICS
    engine: Engine = Engine()
    published: dict[str, Any] = Field(default_factory=dict)
