"""The scenario: the only configuration there is. One YAML file, one claim; unknown keys are errors.

Here live the models, their reading from YAML with file, line and key path in every complaint, the
JSON schema, and the resolved form that a log carries. Nothing is run here.
"""

from __future__ import annotations

import copy
import unicodedata
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from policies.booleans import counted_booleans
from policies.rules import rule_of
from simulator.config.document import (
    Keys,
    ScenarioError,
    YamlDocument,
    complaints,
    disagreement,
    dotted,
    near,
    shown,
)
from simulator.config.section import MAX_DAYS, MAX_IDS, ConfigSection, Name, Title
from simulator.designs.base import Design
from simulator.designs.fits import FitsSpec, as_section
from simulator.designs.registry import DesignSpec
from simulator.living.creators import Items
from simulator.log.files import looked_up
from simulator.log.metrics import DEFAULT_METRICS, covariates_of
from simulator.scenario import memory
from simulator.scenario.changes import changed
from simulator.scenario.held_to import CalibrationSpec, as_calibration
from simulator.scenario.parts import (
    Arm,
    Data,
    DecisionSpec,
    EngineSpec,
    MetricSpec,
    PolicySpec,
    Serving,
    metric_list,
    one_metric,
)
from simulator.scenario.populations import (
    POPULATIONS,
    SYNTHETIC,
    YARDSTICKS,
    PluginUsers,
    Users,
    is_synthetic,
    population,
    population_class,
)

__all__ = ["Scenario", "ScenarioError", "json_schema"]


class WorldSpec(ConfigSection):
    """One more world for the same arms: a world of its own with `users` (and `data`); or one that
    is *drawn*, the scenario's own world with another `seed` and some numbers changed.
    """

    users: Users | None = Field(
        default=None, description="who answers; `kind` decides which further keys there are"
    )
    data: Data | None = Field(default=None, description="its own data; the scenario's if left out")
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None = Field(
        default=None, description="of a drawn world; the scenario's if left out"
    )
    changes: dict[str, int | float] = Field(
        default_factory=dict,
        description="of a drawn world: dotted keys of the scenario (`users.drift.renewal`)",
    )

    @property
    def is_drawn(self) -> bool:
        """Whether it is a draw of what the scenario's own world may be."""
        return self.users is None


class Scenario(ConfigSection):
    """A scenario, resolved: everything that decides the log, plus `engine`, which may not."""

    name: Title = Field(description="of the run's folder and the report's title")
    description: str = Field(default="", description="one sentence for the report")
    seed: Annotated[int, Field(ge=0, lt=2**64)] = Field(
        default=0, description="decides every random number, below 2^64"
    )
    data: Data = Field(default=Data(), description="where the history comes from")
    users: Users = Field(description="who answers; `kind` decides which further keys there are")
    items: Items | None = Field(
        default=None, description="a catalogue that lives; every video is there always if left out"
    )
    days: Annotated[int, Field(ge=1, le=MAX_DAYS)] = Field(
        default=5,
        description="length of the A/B; at most `data.test_days` on a real log, if left out, too",
    )
    serving: Serving = Field(default=Serving(), description="how a request is served")
    arms: dict[Name, Arm] = Field(
        min_length=1, max_length=255, description="name -> policy under test"
    )
    design: DesignSpec = Field(default=DesignSpec(), description="who gets which arm")
    fits: Annotated[FitsSpec, BeforeValidator(as_section)] = Field(
        default=FitsSpec(), description="how often each method is trained; a number, or a section"
    )
    metrics: Annotated[
        tuple[
            Annotated[
                str | dict[str, Literal["higher", "lower"] | MetricSpec],
                BeforeValidator(one_metric),
            ],
            ...,
        ],
        BeforeValidator(metric_list),
    ] = Field(
        default=DEFAULT_METRICS,
        description=(
            "what the verdict is about, in the order of print; `{name: lower}` also says that less"
            " is better, `{name: {role: success}}` what it is for"
        ),
    )
    decision: DecisionSpec = Field(
        default=DecisionSpec(), description="ship, hold or drop: where a metric is a success"
    )
    worlds: dict[Name, WorldSpec] = Field(
        default_factory=dict,
        max_length=255,
        description=(
            "further worlds in which the same arms are run; or the name of a file that has them"
            " (`abtest calibrate --ensemble`), beside the scenario"
        ),
    )
    calibration: Annotated[CalibrationSpec, BeforeValidator(as_calibration)] = Field(
        default=CalibrationSpec(),
        description="what a synthetic world is held to: `kuaishou`, `none`, or a section",
    )
    engine: EngineSpec = Field(
        default=EngineSpec(), description="speed only: may not change a byte of the log"
    )
    published: dict[Name, Annotated[float, Field(gt=-1, le=1000)]] = Field(
        default_factory=dict,
        description="published lifts by metric, shown beside ours (a fraction)",
    )

    @model_validator(mode="after")
    def _live_as_long_as_the_log(self) -> Scenario:
        """Days that are left out are not more than the log has for the A/B."""
        users: Any = self.users
        if "days" not in self.model_fields_set and _lives_in_log(users.kind, self.data):
            self.__dict__["days"] = min(self.days, self.data.test_days)
        return self

    @model_validator(mode="after")
    def _agree(self) -> Scenario:
        broken = list(_disagreements(self))
        if broken:
            raise disagreement(broken)
        return self

    _document: YamlDocument | None = PrivateAttr(None)

    def __eq__(self, other: object) -> bool:
        """Equal settings; where they were read from does not matter."""
        return isinstance(other, Scenario) and self.resolved() == other.resolved()

    __hash__ = None  # type: ignore[assignment]

    def where(self, keys: Keys) -> str:
        """Where a key stands, for complaints: file, line and key path, or the key path alone where
        there is no file.
        """
        return dotted(keys) if self._document is None else self._document.where(keys)

    def policies(self) -> Iterator[tuple[Keys, PolicySpec]]:
        """Every policy of the scenario with its key path: arms, channels, and the logging policies
        of synthetic histories.
        """
        for name, arm in self.arms.items():
            yield ("arms", name), arm
        for i, channel in enumerate(self.serving.channels):
            yield ("serving", "channels", i), channel
        if self.data.source == "synthetic":
            yield ("data", "logging"), self.data.logging
        for name, world in self.worlds.items():
            if world.data is not None and world.data.source == "synthetic":
                yield ("worlds", name, "data", "logging"), world.data.logging

    def user_models(self) -> Iterator[tuple[Keys, PluginUsers]]:
        """The users that are not abtest's own, each with its key path."""
        if isinstance(self.users, PluginUsers):
            yield ("users",), self.users
        for name, world in self.worlds.items():
            if isinstance(world.users, PluginUsers):
                yield ("worlds", name, "users"), world.users

    def within(self, world: str) -> Scenario:
        """The same arms in one of the further worlds, as a scenario of its own.

        Raises:
            ValueError: a drawn world changes a key that there is not, or to a number that the key
                does not take.
        """
        other = self.worlds[world]
        users, data = other.users, self.data if other.data is None else other.data
        if users is None:
            own = self.model_dump(mode="json", include={"users", "data"})
            numbers = changed(own, other.changes)
            users = population(numbers["users"])
            data = Data.model_validate(numbers["data"])
        changes = {
            "name": _within(self.name, world),
            "seed": self.seed if other.seed is None else other.seed,
            "users": users,
            "data": data,
            "worlds": {},
        }
        return self.model_copy(update=changes)

    @property
    def drawn(self) -> list[str]:
        """The further worlds that are drawn, by name."""
        return [name for name, world in self.worlds.items() if world.is_drawn]

    @property
    def metric_names(self) -> list[str]:
        """The metrics by name, in the order of print."""
        return [one if isinstance(one, str) else next(iter(one)) for one in self.metrics]

    @property
    def control(self) -> str:
        """Name of the control arm."""
        return self.design.control or next(iter(self.arms))

    @property
    def assignment(self) -> Design:
        """Who gets which arm: the design over the arms, in the order of the log."""
        return self.design.over(tuple(sorted(self.arms)), self.seed, self.days)

    def fits_of(self, arm: str) -> int:
        """How often the policy of an arm is trained."""
        return self.arms[arm].fits or self.fits.number

    def resolved(self) -> dict[str, Any]:
        """All keys with their values, as plain JSON types; `fits`, `decision`, `calibration`,
        `items`, what is declared of a metric, and the keys of the other kind of world, only where
        they say something, so that older scenarios keep their bytes.
        """
        values = self.model_dump(mode="json")
        if self.decision == DecisionSpec():
            del values["decision"]
        elif self.decision.prior is None:
            del values["decision"]["prior"]
        if self.items is None:
            del values["items"]
        values["metrics"] = [_without_none(entry) for entry in values["metrics"]]
        if self.calibration == CalibrationSpec():
            del values["calibration"]
        if self.fits == FitsSpec():
            del values["fits"]
        elif self.fits.users is None:
            del values["fits"]["users"]
        for arm in values["arms"].values():
            if arm["fits"] is None:
                del arm["fits"]
        for world in values["worlds"].values():
            left_out = ("users", "data") if world["users"] is None else ("seed", "changes")
            for key in left_out:
                del world[key]
        return values

    def identity(self) -> dict[str, Any]:
        """`resolved` without `engine`: what the log carries, since `engine` may not change a
        byte.
        """
        return {key: value for key, value in self.resolved().items() if key != "engine"}

    def to_yaml(self) -> str:
        """The resolved scenario as a YAML file that `load` reads back to an equal scenario."""
        return yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True, width=120)

    def changed(self, values: Mapping[str, Any], flag: str) -> Scenario:
        """The scenario with other values at some dotted keys, checked as a file is.

        Args:
            values: by key, e.g. `{"users.drift.renewal": 0.1}`.
            flag: what sets them; complaints of such a value begin with it and its key.

        Raises:
            ScenarioError: as `load`; or a key that lies within what is no section.
        """
        document = copy.deepcopy(self._document)
        if document is None or type(self).model_validate(document.values) != self:
            document = YamlDocument(self.name, self.resolved(), {(): 1})  # it was copied or made
        for key, value in values.items():
            keys = tuple(key.split("."))
            document.put(keys, value, f"{flag} {key}")
            if keys not in document.flags:
                raise ScenarioError(f"{flag} {key}: lies within a list or a value, not a section")
        return type(self).check(document)

    @classmethod
    def load(
        cls,
        path: Path | str,
        overrides: Mapping[str, Any] | None = None,
        flags: Mapping[str, str] | None = None,
    ) -> Scenario:
        """Read, override and check a scenario file. No plug-in is imported.

        Args:
            path: of the YAML file; a shipped scenario (`scenarios/kuaishou_like.yaml`) is found
                from any folder.
            overrides: dotted keys and values from the command line, e.g.
                `{"seed": 3, "engine.tick": 60.0}`; None values are skipped.
            flags: what sets an override, by its key, where that is not `--` and the key.

        Raises:
            ScenarioError: all broken rules at once, one a line, each with file, line and key path,
                the rule and the value.
        """
        document = YamlDocument.read(find(path))
        _read_parts(document)
        for key, value in (overrides or {}).items():
            if value is not None:
                document.put(key.split("."), value, (flags or {}).get(key, f"--{key}"))
        return cls.check(document)

    @classmethod
    def check(cls, document: YamlDocument) -> Scenario:
        """The scenario that a document describes.

        Raises:
            ScenarioError: as `load`.
        """
        try:
            scenario = cls.model_validate(document.values)
        except ValidationError as error:
            keys_around = partial(_keys_around, document.values)
            raise ScenarioError(complaints(document, error, keys_around)) from error
        numbers = counted_booleans(document.values, scenario)
        wrong = [(keys, f"must be a number; got {found}") for keys, found in numbers]
        wrong += _check_names(scenario, Path(document.file).parent)
        if wrong:
            lines = [f"{document.where(keys)}: {rule}" for keys, rule in wrong]
            raise ScenarioError("\n".join(lines))
        scenario._document = document
        return scenario


PARTS = {"worlds": "worlds", "prior": "priors"}
"""What a scenario's keys may have from a file of their own, in words."""


def _read_parts(document: YamlDocument) -> None:
    """Put what other files say, worlds and a prior, in the place of their names.

    Raises:
        ScenarioError: a file cannot be read, or has other keys than the one it is named at.
    """
    decision = document.values.get("decision")
    places: list[tuple[Keys, Any]] = [
        (("worlds",), document.values),
        (("decision", "prior"), decision),
    ]
    for keys, section in places:
        key = str(keys[-1])
        name = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict) and isinstance(name, str):
            section[key] = _read_part(document, keys, name)


def _read_part(document: YamlDocument, keys: Keys, name: str) -> Any:
    """The value of the one key of another file, the last of `keys`, at which its name stands."""
    key = str(keys[-1])
    try:
        other = YamlDocument.read(Path(document.file).parent / name)
    except ScenarioError as error:
        raise ScenarioError(f"{document.where(keys)}: {error}") from error
    if list(other.values) != [key]:
        rule = f"a file of {PARTS[key]} has the key `{key}` alone"
        rule = f"{rule}; got {shown(list(other.values))}"
        raise ScenarioError(f"{document.where(keys)}: {other.file}: {rule}")
    return other.values[key]


def shipped() -> dict[str, Path]:
    """The scenarios that come with abtest, by name."""
    from importlib.resources import files

    folder = Path(str(files("scenarios")))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _without_none(entry: Any) -> Any:
    """An entry of `metrics` without the keys that are left out."""
    if isinstance(entry, str):
        return entry
    return {
        name: what if isinstance(what, str) else {k: v for k, v in what.items() if v is not None}
        for name, what in entry.items()
    }


def find(path: Path | str) -> Path:
    """The scenario file at `path`, else the shipped one of that name (`kuaishou_like`,
    `kuaishou_like.yaml`, `scenarios/kuaishou_like.yaml`).

    Raises:
        ScenarioError: neither is there.
    """
    path = Path(path)
    ours = shipped()
    try:
        if path.is_file():
            return path
        name = path.name.removesuffix(".yaml")
        if path.parent in (Path(), Path("scenarios")) and name in ours:
            return ours[name]
        what = f"no such file{looked_up(path)}"
        if path.exists():
            what = "is a folder" if path.is_dir() else "is no regular file"
    except OSError as error:  # a name that no file system takes, a folder that may not be entered
        raise ScenarioError(f"{shown(str(path))}: cannot be read: {error.strerror}") from error
    raise ScenarioError(
        f"{path}: {what}; a scenario is a YAML file; of those that are shipped:"
        f" {near(name, ours)} (`abtest scenario list`)"
    )


def json_schema() -> dict[str, Any]:
    """The JSON schema of a scenario file, for editors; `users` is a choice by `kind`."""
    whole = Scenario.model_json_schema()
    definitions = whole.setdefault("$defs", {})
    choices = []
    sections: list[type[ConfigSection]] = [*map(population_class, POPULATIONS), PluginUsers]
    for section in sections:
        part = section.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(part.pop("$defs", {}))
        definitions[part["title"]] = part
        choices.append({"$ref": f"#/$defs/{part['title']}"})
    who = {
        "oneOf": choices,
        "description": "who answers; `kind` decides which further keys there are",
    }
    whole["properties"]["users"] = who
    definitions["WorldSpec"]["properties"]["users"] = {**who, "default": None}
    worlds = whole["properties"]["worlds"]
    described = {key: worlds.pop(key) for key in ("description", "title")}
    whole["properties"]["worlds"] = {"anyOf": [worlds, {"type": "string"}], **described}
    calibration = whole["properties"]["calibration"]
    described = {key: calibration.pop(key) for key in ("description", "default")}
    names = {"enum": ["none", "kuaishou"]}
    whole["properties"]["calibration"] = {"anyOf": [calibration, names], **described}
    definitions["DecisionSpec"]["properties"]["prior"]["anyOf"].append({"type": "string"})
    definitions.pop("ConfigSection", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def _keys_around(values: Mapping[str, Any], path: tuple[str | int, ...]) -> list[str]:
    """The keys that the section around the unknown key `path` may have."""
    section: Any = Scenario
    here: Any = values
    for part in path[:-1]:
        here = here[part]
        if part == "users":
            section = population_class(here["kind"])
        elif isinstance(part, str) and part in section.model_fields:
            section = _section_in(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_in(annotation: Any) -> Any:
    """The section class inside `X | None`, `tuple[X, ...]`, `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    sections = map(_section_in, get_args(annotation))
    return next((section for section in sections if section is not None), None)


def _check_names(scenario: Scenario, folder: Path) -> list[tuple[Keys, str]]:
    """Names that stand for code: policies (registry and files, without importing any) and
    metrics.
    """
    from policies.registry import PolicyError, locate
    from simulator.log.metrics import MetricError, chosen
    from simulator.users.plugins import USER_MODELS, UserModelError

    wrong: list[tuple[Keys, str]] = []
    for keys, spec in scenario.policies():
        try:
            locate(spec.policy, folder)
        except PolicyError as error:
            wrong.append(((*keys, "policy"), str(error)))
    for keys, section in scenario.user_models():
        try:
            USER_MODELS.locate(section.kind, folder)
        except UserModelError as error:
            wrong.append(((*keys, "kind"), str(error)))
    metrics: dict[Keys, Any] = {
        ("metrics", i): one for i, one in enumerate(scenario.resolved()["metrics"])
    }
    metrics |= {("published", one): one for one in scenario.published}
    of_users = 0
    for keys, metric in metrics.items():
        try:
            (found,) = chosen((metric,))
        except MetricError as error:
            wrong.append((keys, str(error)))
            of_users += 1  # whatever it was meant to be
            continue
        is_of_users = found.supply is None
        of_users += is_of_users and keys[0] == "metrics"
        if keys[0] == "published" and not is_of_users:
            wrong.append(
                (keys, f"{found.name!r} is of the supply side; published lifts are of users")
            )
    if metrics and not of_users:
        wrong.append((("metrics",), "must name at least one metric of users, e.g. click"))
    return wrong


def _disagreements(scenario: Scenario) -> Iterator[tuple[Keys, str]]:
    """What is wrong although every key alone is right, with the key to point at."""
    serving, design, arms = scenario.serving, scenario.design, scenario.arms
    if design.control is not None and design.control not in arms:
        yield ("design", "control"), f"no arm {shown(design.control)}; {near(design.control, arms)}"
    if serving.recall < serving.slate:
        rule = f"must be at least serving.slate ({serving.slate}); got {serving.recall}"
        yield ("serving", "recall"), rule
    for key, rule in scenario.assignment.disagreements():
        yield ("design", key), rule
    yield from _design_broken(scenario)
    for name, arm in arms.items():
        wrong = scenario.fits.disagreement(arm.fits)
        if wrong is not None:
            yield ("arms", name, "fits"), wrong
    if not scenario.metrics:
        yield ("metrics",), "must name at least one metric"
    yield from _unfit_analyses(scenario)
    yield from _names_clash(scenario)
    own: Any = scenario.users
    yield from _world_broken(scenario, ("users",), ("data",), own.kind)
    for name, world in scenario.worlds.items():
        if world.is_drawn:
            yield from _draw_broken(scenario, name, world)
            continue
        if world.changes or world.seed is not None:
            rule = "a world with `users` of its own says everything there"
            yield ("worlds", name), f"{rule}: leave out `changes` and `seed`, or `users`"
        users: Any = world.users
        data = ("data",) if world.data is None else ("worlds", name, "data")
        yield from _world_broken(scenario.within(name), ("worlds", name, "users"), data, users.kind)


def _design_broken(scenario: Scenario) -> Iterator[tuple[Keys, str]]:
    """Whether the design goes with the number of users and with what refits learn from."""
    assignment, n_users = scenario.assignment, getattr(scenario.users, "n_users", None)
    wrong = None if n_users is None else assignment.misfit(n_users)
    if wrong is not None:
        yield ("design",), wrong
    wrong = None if n_users is None else scenario.fits.misfit(n_users)
    if wrong is not None:
        yield ("fits", "users"), wrong
    if scenario.serving.refit_on == "weighted" and not assignment.divides_users:
        rule = "`weighted` tells the arms' impressions apart by user, so each user must be in one"
        yield ("serving", "refit_on"), f"{rule} arm: design.kind split or clusters"


def _unfit_analyses(scenario: Scenario) -> Iterator[tuple[Keys, str]]:
    """Analyses of metrics that the design or the fits of the scenario do not allow."""
    names = scenario.metric_names
    of_methods = scenario.fits.number > 1 and scenario.decision.on != "models"
    for i, (name, entry) in enumerate(zip(names, scenario.metrics, strict=True)):
        what = entry[name] if isinstance(entry, dict) else None
        if not isinstance(what, MetricSpec):
            continue
        if what.quantile is not None and what.role not in (None, "exploratory") and of_methods:
            rule = "no quantile of methods is known, and the decision is on them"
            yield ("metrics", i, name, "quantile"), f"{rule}; say decision: {{on: models}}"
        covariates = () if what.covariate is None else covariates_of(what.covariate)
        if covariates and scenario.assignment.arm_of_user(1) is None:
            rule = "in this design every user is in every arm, and the past cancels"
            yield ("metrics", i, name, "covariate"), f"{rule}; leave it out"
        for covariate in covariates:
            if covariate not in names:
                rule = f"no metric {shown(covariate)}; {near(covariate, names)}"
                yield ("metrics", i, name, "covariate"), rule


def _draw_broken(scenario: Scenario, name: str, world: WorldSpec) -> Iterator[tuple[Keys, str]]:
    """What is wrong with a drawn world."""
    here: Keys = ("worlds", name)
    if world.data is not None:
        yield (*here, "data"), "data of its own go with `users` of its own; give these, too"
        return
    if not world.changes and world.seed is None:
        yield here, "must have `users`, or differ from the scenario's own world: `seed`, `changes`"
    outside = [key for key in world.changes if not key.startswith(("users.", "data."))]
    for key in outside:
        yield (*here, "changes", key), "a world may change keys of `users` and `data` only"
    if outside:
        return
    try:
        alone = scenario.within(name)
    except ValidationError as error:
        for issue in error.errors():
            where = dotted(issue["loc"])
            keys = [key for key in world.changes if key.endswith(f".{where}")]
            rule = rule_of(issue)
            yield (*here, "changes", *keys[:1]), f"{where}: {rule}; got {shown(issue.get('input'))}"
    except ValueError as error:
        yield (*here, "changes"), str(error)
    else:
        users: Any = alone.users
        yield from _world_broken(alone, (*here, "changes"), (*here, "changes"), users.kind)


def _names_clash(scenario: Scenario) -> Iterator[tuple[Keys, str]]:
    """Names that others have or that the report needs for itself."""
    users: Any = scenario.users
    past = {"history": "what happened before the A/B"}
    own_world = {users.kind: "the scenario's own world, which the report calls by its kind"}
    own_channel = {"tested policy": "the channel of the arm's own policy"}
    yield from _alike({("arms", name): name for name in scenario.arms}, past)
    yield from _alike({("worlds", name): name for name in scenario.worlds}, own_world)
    channels: dict[Keys, str] = {
        ("serving", "channels", i): one.name for i, one in enumerate(scenario.serving.channels)
    }
    yield from _alike(channels, own_channel)
    metrics: dict[Keys, str] = {
        ("metrics", i): name for i, name in enumerate(scenario.metric_names)
    }
    yield from _alike(metrics, {})
    for world in scenario.worlds:
        name = _within(scenario.name, world)
        if len(name) > 200:
            rule = "with the world's name it must be at most 200 characters"
            yield ("name",), f"{rule}: {shown(name)}"


def _alike(names: Mapping[Keys, str], reserved: Mapping[str, str]) -> Iterator[tuple[Keys, str]]:
    """Those of the names, by their keys, that are reserved (for what) or that one before them has,
    but for case and form of Unicode.
    """
    first: dict[str, str] = {}
    for keys, name in names.items():
        folded = unicodedata.normalize("NFKC", name).casefold()
        if name in reserved:
            yield keys, f"the name {name!r} is kept for {reserved[name]}; give another"
        elif first.get(folded) == name:
            yield keys, f"{name!r} is there twice; give another name"
        elif folded in first:
            how = f"differs from {first[folded]!r} only in how it is written"
            yield keys, f"{name!r} {how}; give another name"
        first.setdefault(folded, name)


def _within(name: str, world: str) -> str:
    return f"{name} in {world}"


def _world_broken(
    scenario: Scenario, users: Keys, data: Keys, kind: str
) -> Iterator[tuple[Keys, str]]:
    """Whether the users of a world can live on its data, and its arrays in memory; `users` and
    `data` are where these stand.
    """
    source, synthetic = scenario.data.source, is_synthetic(scenario.users)
    if scenario.items is not None and not synthetic:
        rule = f"a catalogue lives with users of kind {' or '.join(SYNTHETIC)} only"
        yield ("items",), f"{rule}; leave it out with users of kind {shown(kind)}"
    if isinstance(scenario.users, PluginUsers):
        yield from _plugin_broken(scenario, users, data, scenario.users)
    elif (source == "synthetic") != synthetic:
        kinds = " or ".join(name for name in POPULATIONS if (name in SYNTHETIC) != synthetic)
        path = "" if scenario.data.path is None else f" ({shown(scenario.data.path)})"
        rule = f"{kind} users do not go with data.source {source}{path}"
        yield (*users, "kind"), f"{rule}; it has users of kind {kinds}"
    elif synthetic:
        yield from _too_large(scenario, users, data)
        yield from _too_few_items(scenario, users)
    elif _lives_in_log(kind, scenario.data):
        test_days = scenario.data.test_days
        if scenario.days > test_days:
            rule = f"must be at most {dotted((*data, 'test_days'))} ({test_days})"
            yield ("days",), f"{rule}; got {scenario.days}"


def _lives_in_log(kind: str, data: Data) -> bool:
    """Whether users of a kind come when a log says."""
    return kind in ("learned", "logged") and data.by_days


def _plugin_broken(
    scenario: Scenario, users: Keys, data: Keys, section: PluginUsers
) -> Iterator[tuple[Keys, str]]:
    """Whether the numbers of users and items are said once: here, or by the data."""
    sizes = {"n_users": section.n_users, "n_items": section.n_items}
    source = scenario.data.source
    for key, size in sizes.items():
        if source == "synthetic" and size is None:
            yield (*users, key), "must be given where data.source is synthetic"
        elif source != "synthetic" and size is not None:
            yield (*users, key), f"must be left out: data.source {source} says it; got {size}"
    if source == "synthetic" and None not in sizes.values():
        yield from _too_large(scenario, users, data)
    logging = scenario.data.logging.policy
    if source == "synthetic" and logging in YARDSTICKS:
        rule = f"{logging!r} reads the truth of choice and markov users"
        yield (*data, "logging", "policy"), f"{rule}; give another, e.g. random or popularity"


def _too_few_items(scenario: Scenario, users: Keys) -> Iterator[tuple[Keys, str]]:
    """Whether a catalogue that lives has a video for every upload."""
    items, world = scenario.items, scenario.users
    if items is None:
        return
    days = scenario.data.history_days + scenario.days
    needed, n_items = items.needed(days), getattr(world, "n_items", 0)
    if n_items < needed:
        rule = f"must be at least {needed:,}: {items.at_start:,} at the start (items.stock) and"
        rule = f"{rule} {items.uploads:g} uploads on each of {days} days (items.uploads)"
        yield (*users, "n_items"), f"{rule}; got {n_items:,}"


def _too_large(scenario: Scenario, users: Keys, data: Keys) -> Iterator[tuple[Keys, str]]:
    """Whether a synthetic world needs more memory than allowed, or more ids than a log has."""
    world: Any = scenario.users
    too_much = memory.excess(scenario, world.n_users, world.n_items)
    if too_much is not None:
        keys, rule = too_much
        here = {"users": users, "data": data}.get(str(keys[0]), keys[:1])
        yield (*here, *keys[1:]), rule
        return
    for key in ("n_users", "n_items"):
        n = getattr(world, key)
        if n > MAX_IDS:
            rule = f"must be at most {MAX_IDS:,}: a log numbers them in 32 bits"
            yield (*users, key), f"{rule}; got {n:,}"
