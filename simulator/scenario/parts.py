"""The parts of a scenario that stand on their own: policies, data, serving, engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from policies.device import Device
from simulator.config.section import MAX_DAYS, MAX_IDS, ConfigSection, Name, Params
from simulator.designs.fits import MOST
from simulator.log.metrics import MARGIN, MetricRole, margin_of, share_of
from simulator.scenario.tables import (
    ROLES,
    Columns,
    FeatureTable,
    Ready,
    Text,
    TextLayout,
    Zone,
    spelled_out,
)

Count = Annotated[int, Field(ge=1, le=MAX_IDS)]

Reference = Annotated[str, Field(min_length=1, max_length=1000)]
"""What stands for something else: a policy, a file."""


class PolicySpec(ConfigSection):
    """A policy by name, with its hyper-parameters."""

    policy: Reference = Field(
        description="a registered name (`abtest policies list`), `module:Class` or `file.py:Class`"
    )
    params: Params = Field(
        default_factory=dict,
        description="hyper-parameters, checked against the policy's dataclass fields",
    )

    @property
    def on_gpu(self) -> list[tuple[str, ...]]:
        """Where its parameters, or those of a policy within it, say `device: cuda`: the keys that
        lead there. Such a policy answers requests on a GPU.
        """
        return list(_on_gpu(self.params))


def _on_gpu(params: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in params.items():
        if (key, value) == ("device", "cuda"):
            yield (key,)
        elif isinstance(value, Mapping):
            yield from ((key, *keys) for keys in _on_gpu(value))


class Arm(PolicySpec):
    """An arm: a policy under test."""

    fits: Annotated[int, Field(ge=1, le=MOST)] | None = Field(
        default=None, description="how often it is trained: 1, or as often as `fits.number` says"
    )


class Logging(PolicySpec):
    """The stochastic logging policy that wrote the history of a synthetic world: a policy within
    `explore`.
    """

    policy: Reference = Field(
        default="production",
        description="whose scores it explores; a stochastic policy logs by its own propensities",
    )
    temperature: Annotated[float, Field(gt=0, le=1e6)] = Field(
        default=1.0, description="of the softmax over the scores; higher explores more"
    )
    epsilon: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.05, description="share of uniform exploration: every item has support"
    )


OF_TABLES = ("columns", "files", "text", "items", "users", "zone", "missing", "split", "parts")
"""Keys of `data` that only `source: table` has."""


def _margin(value: Any) -> Any:
    """A margin as it is written, once it can be read."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be {MARGIN}")
    try:
        margin_of(value)
    except ValueError as error:
        raise ValueError(f"must be {MARGIN}") from error
    return value


def metric_list(value: Any) -> Any:
    """The entries of `metrics`: a mapping of them is what people write first."""
    if isinstance(value, Mapping):
        raise ValueError("must be a list, a metric a line: `- click: {role: success}`")
    return value


def one_metric(value: Any) -> Any:
    """An entry of `metrics`, before its type is looked at: one complaint, and not one for each type
    that it might have had.
    """
    is_name = isinstance(value, str) and len(value) <= 100
    is_one = isinstance(value, Mapping) and len(value) == 1
    declared = next(iter(value.values())) if is_one else None
    if not (is_name or declared in ("higher", "lower") or isinstance(declared, Mapping)):
        raise ValueError(
            "must be a metric's name, or {name: higher} or {name: lower}, or {name: {role: ...}}"
        )
    return value


def _share(most: float) -> BeforeValidator:
    """A share as it is written, once it can be read."""
    rule = f"must be a share above 0 and below {most:.0%} (1% or 0.01)"

    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(rule)
        try:
            share_of(value, most)
        except ValueError as error:
            raise ValueError(rule) from error
        return value

    return BeforeValidator(check)


class MetricSpec(ConfigSection):
    """What is declared of a metric: which values are better, what it is for in the decision, and
    how it is analysed.
    """

    better: Literal["higher", "lower"] | None = Field(
        default=None, description="its direction, where the metric does not have one or another"
    )
    role: MetricRole | None = Field(
        default=None,
        description="`success`: what must get better; `guardrail`: must be shown not to lose its"
        " margin; `deterioration`: must not be shown to get worse; `quality`: must not differ;"
        " `exploratory`: for information",
    )
    margin: Annotated[float | str, BeforeValidator(_margin)] | None = Field(
        default=None,
        description="of a guardrail: `1%` or `0.01` of the control's mean, or `20 abs` in units",
    )
    covariate: Reference | Annotated[tuple[Reference, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="what it is adjusted for (CUPED), known before the test: a metric of the"
        " history (of a table: a column), a list of them, or `none`; split designs only",
    )
    winsorise: Annotated[float | str, _share(0.5)] | None = Field(
        default=None,
        description="share of the largest users' sums that is cut, for all arms alike: `0.1%`",
    )
    quantile: Annotated[float | str, _share(1.0)] | None = Field(
        default=None,
        description="compare this quantile of users' sums (`90%`), not their mean",
    )


class PriorSpec(ConfigSection):
    """What earlier tests say of a metric's lift: a Student law (`abtest prior` fits one)."""

    mean: float = Field(default=0.0, description="centre of the lifts, a fraction: `0.01` is 1%")
    scale: Annotated[float, Field(gt=0)] = Field(description="their scale, a fraction")
    df: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="degrees of freedom: few are fat tails; a normal law if left out"
    )


class DecisionSpec(ConfigSection):
    """On what the decision rests."""

    on: Literal["models", "methods"] | None = Field(
        default=None,
        description="the models that were trained, or the methods (with one fit: hold, not known);"
        " methods where there are several fits, if left out",
    )
    prior: dict[str, PriorSpec] | None = Field(
        default=None,
        description="by metric, what earlier tests say of its lift; or the name of a file that says"
        " so (`abtest prior`), beside the scenario",
    )


class Data(ConfigSection):
    """Where the history comes from."""

    source: Literal["synthetic", "table", "kuairand", "open_bandit", "s3rec", "inter", "log"] = (
        Field(
            default="synthetic",
            description="`synthetic`: made by the users; else a kind of real log (docs/data.md)",
        )
    )
    path: Reference | None = Field(
        default=None,
        description=(
            "file or folder; relative to ABTEST_DATA, the scenario's folder or ../shared/data; or"
            " an address, such as s3://bucket/log"
        ),
    )
    history_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] = Field(
        default=14, description="synthetic: days of history before the A/B"
    )
    logging: Logging = Field(default=Logging(), description="synthetic: who wrote the history")
    test_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] = Field(
        default=2, description="real logs: the last days become the A/B; the rest is history"
    )
    hold_out: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1,
        description="s3rec, inter, table: clicks at the end of each sequence that are held out",
    )
    session_gap: Annotated[float, Field(gt=0, le=1e9)] = Field(
        default=1800.0, description="real logs: seconds of silence that end a session"
    )
    format: Ready | None = Field(
        default=None,
        description="table: the keys below of a published data set, by name; own keys win",
    )
    columns: Columns = Field(
        default={},
        description=f"table: which column is what ({', '.join(ROLES)}); user and item are needed",
    )
    files: Text | None = Field(
        default=None, description="table: which files of a folder are read, as `log_*.csv`"
    )
    text: TextLayout = Field(default=TextLayout(), description="table: how a text file is cut")
    items: FeatureTable | None = Field(default=None, description="table: features of the items")
    users: FeatureTable | None = Field(default=None, description="table: features of the users")
    zone: Zone | None = Field(
        default=None,
        description="table: of times that say none, and of midnight, where days begin; else UTC",
    )
    missing: Literal["refuse", "drop"] = Field(
        default="refuse", description="table: what becomes of rows without user, item or time"
    )
    split: Literal["days", "last", "parts"] | None = Field(
        default=None,
        description=(
            "table: the A/B is the last `test_days`, or the last `hold_out` clicks of each user, or"
            " the last `test_days` of `parts`; if left out, days where there are times"
        ),
    )
    parts: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=10,
        description=(
            "table, `split: parts`: pieces of the same size that each user's rows are cut into, in"
            " their order; they stand for days"
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, values: Any) -> Any:
        return spelled_out(values)

    @model_validator(mode="after")
    def _hold_tables(self) -> Self:
        own = [key for key in OF_TABLES if key in self.model_fields_set]
        if self.source != "table":
            if own:
                raise ValueError(f"{own[0]} goes with source: table only")
            return self
        absent = [role for role in ("user", "item") if role not in self.columns]
        if absent:
            raise ValueError(
                f"source: table needs columns.{absent[0]}: the name of its column"
                " (`abtest data describe FILE` guesses all), or a format"
            )
        if self.split == "days" and "time" not in self.columns:
            raise ValueError("split: days needs columns.time")
        if self.split == "parts" and self.test_days >= self.parts:
            raise ValueError(
                f"split: parts needs parts ({self.parts}) for the history: test_days must be"
                f" smaller; got {self.test_days}"
            )
        return self

    @property
    def by_days(self) -> bool:
        """Whether the A/B is the last `test_days` of a real log, and not the last clicks."""
        if self.source == "table":
            return self.split in ("days", "parts") or (
                self.split is None and "time" in self.columns
            )
        return self.source in ("kuairand", "open_bandit")

    @model_serializer(mode="wrap")
    def _of_its_source(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The keys of other sources than tables are what they always were."""
        values: dict[str, Any] = handler(self)
        del values["format"]  # spelled out
        if self.source != "table":
            for key in OF_TABLES:
                del values[key]
        elif self.split != "parts":
            del values["parts"]
        return values


class ChannelSpec(PolicySpec):
    """A recall channel beside the tested one, the same for all arms."""

    name: Name = Field(description="what the report calls it")
    quota: Count = Field(description="candidates of a request")


class Ranking(ConfigSection):
    """The stage between recall and the slate, fitted on the history, the same for all arms."""

    kind: Literal["pointwise", "recall"] = Field(
        default="pointwise", description="fitted pointwise ranker, or the recall order as it is"
    )
    watch_weight: Annotated[float, Field(ge=0, le=1e6)] = Field(
        default=1.0, description="weight of the expected watch time beside the click"
    )


class Serving(ConfigSection):
    """How a request is served."""

    slate: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=6, description="positions of a request"
    )
    recall: Count = Field(
        default=60, description="candidates that the arm's policy gives for a request"
    )
    history: Count = Field(
        default=128, description="impressions of the past that a policy is given"
    )
    seen: Count | None = Field(
        default=None, description="impressions not recalled again; `history` if left out"
    )
    channels: Annotated[tuple[ChannelSpec, ...], Field(max_length=255)] = Field(
        default=(), description="further recall channels, the same for all arms"
    )
    ranking: Ranking = Field(
        default=Ranking(), description="the stage between recall and the slate"
    )
    refit: Literal["never", "daily"] = Field(
        default="never", description="`daily`: every arm is fitted anew at the day's end"
    )
    refit_on: Literal["own", "pooled", "weighted"] = Field(
        default="own",
        description=(
            "whose log a refit learns from: the arm's, all arms', or all arms' with each impression"
            " weighted by how likely it is the arm's (docs/bias.md)"
        ),
    )


class EngineSpec(ConfigSection):
    """Speed only: nothing in here may change a byte of the log, but for the last bits that a fit
    has from its kind of processor.
    """

    tick: Annotated[float, Field(gt=0, le=86_400 * MAX_DAYS)] = Field(
        default=86_400.0,
        description="simulated seconds whose requests are served together; a day at most",
    )
    block: Count = Field(default=2048, description="requests in one call of a policy")
    shards: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=2, description="parts that the users are cut into"
    )
    executor: Literal["serial", "processes", "ray"] = Field(
        default="processes", description="where the work is done"
    )
    device: Device = Field(
        default="auto",
        description=(
            "where policies are fitted: auto = cuda where torch has one, else cpu; a fit ends with"
            " other last bits on another kind of processor, as on another CPU; where requests are"
            " answered a policy's own `device` says"
        ),
    )
    time_limit: Annotated[float, Field(ge=0, le=1e8)] = Field(
        default=300.0,
        description=(
            "seconds that one call of a policy may take, kernels that it compiles not counted;"
            " 0 = any"
        ),
    )
    fit_limit: Annotated[float, Field(ge=0, le=1e8)] = Field(
        default=43_200.0, description="seconds that one fit of a policy may take; 0 = any"
    )
    fit_processes: Literal[1, 2, 4, 8, 16] = Field(
        default=1,
        description=(
            "processes that train one network together, on GPUs each by one of its own; a fit takes"
            " at most as many as its `training` has `microbatches`, and ends with the same bytes"
        ),
    )
    memory_limit: Annotated[float, Field(gt=0, le=1e9)] = Field(
        default=64.0,
        description="GiB that a process may be estimated to need, before anything is simulated",
    )
