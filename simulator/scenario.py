"""The scenario: the only configuration there is. One YAML file, one claim; unknown keys are errors.

Here live the models, their reading from YAML with file, line and key path in every complaint, the JSON schema, and the
resolved form that a log carries. Nothing is run here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, PrivateAttr, SerializeAsAny, ValidationError, field_validator, model_validator

from simulator.device import Device
from simulator.document import Document, Keys, ScenarioError, complaint, disagreement, dotted, near
from simulator.section import Section

__all__ = ["METRICS", "Scenario", "ScenarioError", "json_schema"]

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

    policy: str = Field(default="production", description="whose scores it explores; a stochastic policy logs by its own propensities")
    temperature: Annotated[float, Field(gt=0)] = Field(default=1.0, description="of the softmax over the scores; higher explores more")
    epsilon: Annotated[float, Field(ge=0, le=1)] = Field(default=0.05, description="share of uniform exploration: every item has support")


class Data(Section):
    """Where the history comes from."""

    source: Literal["synthetic", "kuairand", "open_bandit", "s3rec", "inter", "log"] = Field(
        default="synthetic", description="`synthetic`: made by the users; else the reader of a real log (docs/data.md)"
    )
    path: str | None = Field(default=None, description="file or folder; relative to ABTEST_DATA, the scenario's folder or ../shared/data")
    history_days: Annotated[int, Field(ge=1)] = Field(default=14, description="synthetic: days of history before the A/B")
    logging: Logging = Field(default=Logging(), description="synthetic: who wrote the history")
    test_days: Annotated[int, Field(ge=1)] = Field(default=2, description="real logs: the last days become the A/B; the rest is history")
    hold_out: Annotated[int, Field(ge=1)] = Field(
        default=1, description="s3rec, inter: clicks at the end of each user's sequence that are held out"
    )
    session_gap: Annotated[float, Field(gt=0)] = Field(default=1800.0, description="real logs: seconds of silence that end a session")


class Channel(PolicySpec):
    """A recall channel beside the tested one, the same for all arms."""

    name: str = Field(description="what the report calls it")
    quota: Annotated[int, Field(ge=1)] = Field(description="candidates of a request")


class Ranking(Section):
    """The stage between recall and the slate, fitted on the history, the same for all arms."""

    kind: Literal["pointwise", "recall"] = Field(default="pointwise", description="fitted pointwise ranker, or the recall order as it is")
    watch_weight: Annotated[float, Field(ge=0)] = Field(default=1.0, description="weight of the expected watch time beside the click")


class Serving(Section):
    """How a request is served."""

    slate: Annotated[int, Field(ge=1, le=1000)] = Field(default=6, description="positions of a request")
    recall: Annotated[int, Field(ge=1)] = Field(default=60, description="candidates that the arm's policy gives for a request")
    history: Annotated[int, Field(ge=1)] = Field(default=128, description="impressions of the past that a policy is given")
    seen: Annotated[int, Field(ge=1)] | None = Field(default=None, description="impressions not recalled again; `history` if left out")
    channels: tuple[Channel, ...] = Field(default=(), description="further recall channels, the same for all arms")
    ranking: Ranking = Field(default=Ranking(), description="the stage between recall and the slate")
    refit: Literal["never", "daily"] = Field(default="never", description="`daily`: every arm is fitted anew at the day's end")
    refit_on: Literal["own", "pooled"] = Field(default="own", description="whose log a refit learns from: the arm's, or all arms'")


class Design(Section):
    """Who gets which arm, and who is compared with whom."""

    kind: Literal["paired", "split", "switchback", "interleave"] = Field(
        default="paired",
        description="every user in every arm; users split by hash; arms that change by day; two arms drafting one slate",
    )
    control: str | None = Field(default=None, description="name of the control arm; the first arm if left out")


class Engine(Section):
    """Speed only: nothing in here may change a byte of the log, but for the last bits that a fit has from its kind of processor."""

    tick: Annotated[float, Field(gt=0)] = Field(default=86_400.0, description="simulated seconds whose requests are served together")
    block: Annotated[int, Field(ge=1)] = Field(default=2048, description="requests in one call of a policy")
    shards: Annotated[int, Field(ge=1)] = Field(default=2, description="parts that the users are cut into")
    executor: Literal["serial", "processes", "ray"] = Field(default="processes", description="where the work is done")
    device: Device = Field(
        default="auto",
        description="where policies are fitted: auto = cuda where torch has one, else cpu; a fit ends with other last bits on another kind "
        "of processor, as on another CPU; requests are served on the CPU",
    )
    time_limit: Annotated[float, Field(ge=0)] = Field(default=300.0, description="seconds that one call of a policy may take; 0 = any")
    fit_limit: Annotated[float, Field(ge=0)] = Field(default=43_200.0, description="seconds that one fit of a policy may take; 0 = any")


class World(Section):
    """One more world for the same arms."""

    users: SerializeAsAny[Section]
    data: Data | None = Field(default=None, description="its own data; the scenario's if left out")

    @field_validator("users", mode="before")
    @classmethod
    def _population(cls, value: Any) -> Section:
        return population(value)


class Scenario(Section):
    """A scenario, resolved: everything that decides the log, plus `engine`, which may not."""

    name: str = Field(min_length=1, description="of the run's folder and the report's title")
    description: str = Field(default="", description="one sentence for the report")
    seed: Annotated[int, Field(ge=0, lt=2**64)] = Field(default=0, description="decides every random number, below 2^64")
    data: Data = Field(default=Data(), description="where the history comes from")
    users: SerializeAsAny[Section] = Field(description="who answers; `kind` decides which further keys there are")
    days: Annotated[int, Field(ge=1, le=3660)] = Field(default=5, description="length of the A/B")
    serving: Serving = Field(default=Serving(), description="how a request is served")
    arms: dict[Annotated[str, Field(min_length=1, max_length=80)], Arm] = Field(
        min_length=1, max_length=255, description="name -> policy under test"
    )
    design: Design = Field(default=Design(), description="who gets which arm")
    metrics: tuple[str | dict[str, Literal["higher", "lower"]], ...] = Field(
        default=METRICS, description="what the verdict is about, in the order of print; `{name: lower}` also says that less is better"
    )
    worlds: dict[str, World] = Field(default_factory=dict, description="further worlds in which the same arms are run")
    engine: Engine = Field(default=Engine(), description="speed only: may not change a byte of the log")
    published: dict[str, float] = Field(default_factory=dict, description="published lifts by metric, shown beside ours (a fraction)")

    @field_validator("users", mode="before")
    @classmethod
    def _population(cls, value: Any) -> Section:
        return population(value)

    @model_validator(mode="after")
    def _agree(self) -> Scenario:
        if self.design.control is not None and self.design.control not in self.arms:
            raise disagreement(("design", "control"), f"no arm {self.design.control!r}; {near(self.design.control, self.arms)}")
        if self.serving.recall < self.serving.slate:
            rule = f"must be at least serving.slate ({self.serving.slate}); got {self.serving.recall}"
            raise disagreement(("serving", "recall"), rule)
        if self.design.kind == "interleave" and len(self.arms) != 2:
            rule = f"interleave mixes exactly 2 arms in one slate; got {len(self.arms)}: {', '.join(self.arms)}"
            raise disagreement(("design", "kind"), rule)
        return self

    _document: Document | None = PrivateAttr(None)

    def __eq__(self, other: object) -> bool:
        """Equal settings; where they were read from does not matter."""
        return isinstance(other, Scenario) and self.resolved() == other.resolved()

    __hash__ = None  # type: ignore[assignment]

    def where(self, keys: Keys) -> str:
        """Where a key stands, for complaints: file, line and key path, or the key path alone where there is no file."""
        return dotted(keys) if self._document is None else self._document.where(keys)

    def policies(self) -> Iterator[tuple[Keys, PolicySpec]]:
        """Every policy of the scenario with its key path: arms, channels, and the logging policy of a synthetic history."""
        yield from ((("arms", name), arm) for name, arm in self.arms.items())
        yield from ((("serving", "channels", i), channel) for i, channel in enumerate(self.serving.channels))
        if self.data.source == "synthetic":
            yield ("data", "logging"), self.data.logging

    @property
    def control(self) -> str:
        """Name of the control arm."""
        return self.design.control or next(iter(self.arms))

    def resolved(self) -> dict[str, Any]:
        """All keys with their values, as plain JSON types."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """`resolved` without `engine`: what the log carries, since `engine` may not change a byte."""
        return {key: value for key, value in self.resolved().items() if key != "engine"}

    def to_yaml(self) -> str:
        """The resolved scenario as a YAML file that `load` reads back to an equal scenario."""
        return yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True, width=120)

    @classmethod
    def load(cls, path: Path | str, overrides: Mapping[str, Any] | None = None) -> Scenario:
        """Read, override and check a scenario file. No plug-in is imported.

        Args:
            path: of the YAML file; a shipped scenario (`scenarios/kuaishou_like.yaml`) is found from any folder.
            overrides: dotted keys and values from the command line, e.g. `{"seed": 3, "engine.tick": 60.0}`; None values are skipped.

        Raises:
            ScenarioError: all broken rules at once, one a line, each with file, line and key path, the rule and the value.
        """
        document = Document.read(find(path))
        for key, value in (overrides or {}).items():
            if value is not None:
                document.put(key.split("."), value, f"--{key}")
        return cls.check(document)

    @classmethod
    def check(cls, document: Document) -> Scenario:
        """The scenario that a document describes.

        Raises:
            ScenarioError: as `load`.
        """
        values, wrong = dict(document.values), []
        for keys in [("users",), *(("worlds", name, "users") for name in _keys(values.get("worlds")))]:
            wrong += _check_population(document, values, keys)
        try:
            scenario = cls.model_validate(values)
        except ValidationError as error:
            broken = {tuple(line[0]) for line in wrong}
            for issue in error.errors():
                if not any(issue["loc"][: len(keys)] == keys for keys in broken):
                    wrong.append((issue["loc"], complaint(document, issue, _known(cls, issue["loc"]))))
        if not wrong:
            wrong += [(keys, f"{document.where(keys)}: {rule}") for keys, rule in _check_names(scenario, Path(document.file).parent)]
        if wrong:
            raise ScenarioError("\n".join(line for _, line in wrong))
        scenario._document = document
        return scenario


def find(path: Path | str) -> Path:
    """The scenario file at `path`, else the shipped one of that name.

    Raises:
        ScenarioError: neither is there.
    """
    from importlib.resources import files

    path = Path(path)
    if path.is_file():
        return path
    shipped = Path(str(files("scenarios")))
    if path.parent in (Path(), Path("scenarios")) and (shipped / path.name).is_file():
        return shipped / path.name
    what = "is a folder" if path.is_dir() else "no such file"
    names = [entry.name for entry in sorted(shipped.glob("*.yaml"))]
    raise ScenarioError(f"{path}: {what}; a scenario is a YAML file, and these are shipped: {near(path.name, names)}")


def json_schema() -> dict[str, Any]:
    """The JSON schema of a scenario file, for editors; `users` is a choice by `kind`."""
    whole = Scenario.model_json_schema()
    definitions = whole.setdefault("$defs", {})
    choices = []
    for kind in POPULATIONS:
        part = population_class(kind).model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(part.pop("$defs", {}))
        definitions[part["title"]] = part
        choices.append({"$ref": f"#/$defs/{part['title']}"})
    for section in (whole, definitions["World"]):
        section["properties"]["users"] = {"oneOf": choices, "description": "who answers; `kind` decides which further keys there are"}
    definitions.pop("Section", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


POPULATIONS: dict[str, str] = {
    "choice": "simulator.users.choice:Choice",
    "markov": "simulator.users.markov:Markov",
    "learned": "simulator.users.learned:Learned",
    "logged": "simulator.users.logged:Logged",
    "held_out": "simulator.users.held_out:HeldOut",
}
"""Kinds of users -> the section that configures them; imported only when a scenario names them."""


def population_class(kind: str) -> type[Section]:
    """The section class of a kind of users."""
    module, name = POPULATIONS[kind].split(":")
    found: type[Section] = getattr(importlib.import_module(module), name)
    return found


def population(value: Any) -> Section:
    """The users section from its plain values; an instance passes through.

    Raises:
        ValueError: not a mapping, no or an unknown `kind`, or what the section itself complains of.
    """
    if isinstance(value, Section):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("users must be a mapping with the key `kind`")
    if value.get("kind") not in POPULATIONS:
        raise ValueError(f"users.kind: no kind {value.get('kind')!r}; {near(str(value.get('kind')), POPULATIONS)}")
    return population_class(value["kind"]).model_validate(dict(value))


def _keys(value: Any) -> list[str]:
    return list(value) if isinstance(value, dict) else []


def _check_population(document: Document, values: dict[str, Any], keys: Keys) -> list[tuple[Keys, str]]:
    """Check one `users` section under its own class, so that its complaints carry its own key paths."""
    here: Any = values
    for key in keys:
        if not isinstance(here, dict) or key not in here:
            return []
        here = here[key]
    if not isinstance(here, dict):
        return [(keys, f"{document.where(keys)}: must be a mapping with the key `kind`; got {here!r}")]
    if here.get("kind") not in POPULATIONS:
        return [(keys, f"{document.where((*keys, 'kind'))}: no kind {here.get('kind')!r}; {near(str(here.get('kind')), POPULATIONS)}")]
    cls = population_class(str(here["kind"]))
    try:
        cls.model_validate(here)
    except ValidationError as error:
        return [(keys, complaint(document, issue, _known(cls, issue["loc"]), keys)) for issue in error.errors()]
    return []


def _known(cls: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The keys that the section around `path` may have."""
    section: Any = cls
    for part in path[:-1]:
        if not (isinstance(section, type) and issubclass(section, BaseModel)) or part not in section.model_fields:
            return list(Arm.model_fields) if "arms" in path else []
        section = _section_in(section.model_fields[str(part)].annotation)
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _section_in(annotation: Any) -> Any:
    """The section class inside `X | None`, `tuple[X, ...]`, `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for found in map(_section_in, get_args(annotation)) if found is not None), None)


def _check_names(scenario: Scenario, folder: Path) -> list[tuple[Keys, str]]:
    """Names that stand for code: policies (registry and files, without importing any) and metrics."""
    from policies.registry import PolicyError, locate
    from simulator.metrics import MetricError, chosen

    wrong: list[tuple[Keys, str]] = []
    for keys, spec in scenario.policies():
        try:
            locate(spec.policy, folder)
        except PolicyError as error:
            wrong.append(((*keys, "policy"), str(error)))
    for i, metric in enumerate(scenario.metrics):
        try:
            chosen((metric,))
        except MetricError as error:
            wrong.append((("metrics", i), str(error)))
    return wrong
