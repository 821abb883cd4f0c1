"""What an event log says of itself: typed, and held to its rules whoever has written it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le, Len
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from policies.base import IntArray
from policies.rules import rule_of
from simulator.designs.base import Design, DesignError
from simulator.designs.fits import MOST, FitsSpec
from simulator.designs.registry import DesignSpec

SCHEMA_VERSION = 1

FITTED_ONCE = "fitted once"
"""The note that names the arms whose fits are all the same: their policies draw nothing."""

KEY = ("arm", "user", "session", "request", "position")
"""The sort order and the identity of a row (but see `Metadata.key`)."""

FIT = "fit"
"""Optional column (u8): which of an arm's models served, from 0. A log without it is of one fit."""

HISTORY = "history"
"""The arm that holds what happened before the A/B; always index 0 of a run's log."""

MOST_USERS = 2**32
"""Ids of users and items are stored as u32."""

MOST_DAYS = 3660

PLAUSIBLE = {"n_users": (1_000_000, 100), "n_items": (10_000_000, 1000)}
"""So many users and items may be without a single row, and so many more for each row of the log."""

Propensity = Literal["conditional", "marginal", "unknown"]

Name = Annotated[str, Len(1, 200)]


class LogError(ValueError):
    """A log that breaks a rule of the schema; the message names file, row, column, rule and
    value.
    """


def arm_names(names: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """The arms of a run's log: `history`, then the scenario's arms in the order of their *names*.

    Sorted, because the index of an arm is a column of the log and decides the order of its rows: if
    it followed the scenario file, exchanging two arms there would change every byte of a log in
    which nothing happened differently.

    Raises:
        LogError: an arm is called `history`.
    """
    if HISTORY in names:
        raise LogError(
            f"arms.{HISTORY}: this name is kept for what happened before the A/B; give the arm"
            " another name"
        )
    return (HISTORY, *sorted(names))


@dataclass(frozen=True)
class Metadata:
    """What a log says of itself, kept as JSON in the Parquet schema.

    Attributes:
        arms: names, by arm index. A pure history has the one arm `history`.
        n_users: users are 0..n_users-1, whether or not they have rows.
        n_items: items are 1..n_items.
        propensity: what the propensity column means: `conditional` on the items above, `marginal`,
            or `unknown`.
        control: name of the control arm, or None.
        days: days of the A/B, from t = 0; 0 for a pure history.
        channels: names of the recall channels besides the arm's own policy, from index 1.
        scenario: the resolved scenario without its `engine` section, or {}.
        versions: of abtest, Python and the libraries that decide bytes.
        notes: counts a reader or a run wants to keep with the log (duplicates dropped, ...).
    """

    arms: Annotated[tuple[Name, ...], Len(1, 256)]
    n_users: Annotated[int, Ge(0), Le(MOST_USERS)]
    n_items: Annotated[int, Ge(0), Le(MOST_USERS - 1)]
    propensity: Propensity = "unknown"
    control: Name | None = None
    days: Annotated[int, Ge(0), Le(MOST_DAYS)] = 0
    channels: Annotated[tuple[Name, ...], Len(0, 255)] = ()
    scenario: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def compared(self) -> tuple[str, ...]:
        """The arms of the A/B: all but the history."""
        return tuple(name for name in self.arms if name != HISTORY)

    @property
    def design(self) -> Design:
        """The design of the A/B, as the scenario says it; paired where none does."""
        spec = _Design.model_validate(self.scenario.get("design", {}))
        return spec.over(self.compared, self.scenario.get("seed"), self.days)

    @property
    def fits(self) -> FitsSpec:
        """How often each method was trained, as the scenario says it; once where it does not."""
        return FitsSpec.model_validate(self.scenario.get("fits", {}))

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that identify a row, in the order of the log: KEY, and where users live with
        every fit, the fit after the arm.
        """
        return (KEY[0], FIT, *KEY[1:]) if self.fits.crossed else KEY

    def fits_of_arm(self) -> IntArray:
        """How many fits each arm has, `[arms]`: one in the history, and where the arm says so."""
        arms = self.scenario.get("arms", {})
        own = [arms.get(name, {}).get("fits") or self.fits.number for name in self.arms]
        once = [name == HISTORY for name in self.arms]
        return np.where(once, 1, np.array(own, dtype=np.int64))

    def arm_of_user(self) -> IntArray | None:
        """The arm of each user of the A/B, `[n_users]` index into `arms`, or None where every user
        was in every arm: in any design but a split, and in a pure history.

        Raises:
            LogError: the users were split, and nothing says by which seed.
        """
        try:
            arm = self.design.arm_of_user(self.n_users)
        except DesignError as error:
            raise LogError(str(error)) from error
        if arm is None:
            return None
        return np.array([self.arms.index(name) for name in self.compared], dtype=np.int64)[arm]

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA_VERSION, **self.__dict__}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Metadata:
        """Read what `to_json` wrote, or another program.

        Raises:
            LogError: not JSON, another schema version, or a key that is missing, unknown, of a
                wrong type or out of its range; names the key and the value.
        """
        try:
            stored = json.loads(text, parse_constant=_number, parse_float=_number)
        except (ValueError, RecursionError) as error:
            raise LogError(f"the metadata is not JSON: {error}") from error
        if not isinstance(stored, dict):
            raise LogError(f"the metadata must be a JSON object; got {_short(stored)}")
        version = stored.pop("schema", None)
        if type(version) is not int or version != SCHEMA_VERSION:
            raise LogError(
                f"event log of schema {_short(version)}; this abtest reads schema {SCHEMA_VERSION}"
            )
        unknown = sorted(stored.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            raise LogError(
                f"metadata.{unknown[0]}: unknown key; an event log says"
                f" {', '.join(cls.__dataclass_fields__)}"
            )
        try:
            read = _reader().validate_json(json.dumps(stored), strict=True)
            _Scenario.model_validate_json(json.dumps(read.scenario), strict=True)
            _Notes.model_validate_json(json.dumps(read.notes), strict=True)
        except ValidationError as error:
            raise LogError(_complaint(error)) from error
        read.agree()
        return read

    def agree(self) -> None:
        """Hold the keys to one another.

        Raises:
            LogError: two that do not agree.
        """
        for key, names in (("arms", self.arms), ("channels", self.channels)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                rule = "each has a name of its own"
                raise LogError(f"metadata.{key}: {twice[0]!r} stands there twice; {rule}")
        if self.control is not None and self.control not in self.arms:
            raise LogError(
                f"metadata.control must be one of the arms {list(self.arms)}; got {self.control!r}"
            )
        if self.control == HISTORY and len(self.arms) > 1:
            raise LogError(
                f"metadata.control must be an arm of the A/B; got {HISTORY!r}, which is what"
                " happened before it"
            )

        for name, arm in self.scenario.get("arms", {}).items():
            wrong = self.fits.disagreement(arm.get("fits"))
            if wrong is not None:
                raise LogError(f"metadata.scenario.arms.{name}.fits: {wrong}")

    def plausible(self, rows: int) -> None:
        """Hold the number of users and of items to the size of the log: tables are made with a cell
        for each.

        Raises:
            LogError: far more of them than rows.
        """
        for name, (always, for_each) in PLAUSIBLE.items():
            n, limit = getattr(self, name), max(always, for_each * rows)
            if n > limit:
                rule = f"must be at most {limit:,} in a log of {rows:,} rows"
                raise LogError(f"metadata.{name} {rule}; got {n:,}")


class _Told(BaseModel):
    """Part of the metadata that is read by name; what else stands there is only shown."""

    model_config = ConfigDict(extra="allow")


class _Kind(_Told):
    kind: str | None = None


class _Data(_Told):
    source: str | None = None


class _Design(DesignSpec):
    """As a scenario has it; further keys are only shown."""

    model_config = ConfigDict(extra="ignore")


class _Serving(_Told):
    refit: str | None = None
    refit_on: str | None = None


class _Arm(_Told):
    fits: Annotated[int, Ge(1), Le(MOST)] | None = None


class _Scenario(_Told):
    """The keys of a log's scenario that are read again."""

    name: Name | None = None
    description: str | None = None
    seed: Annotated[int, Ge(0), Le(2**64 - 1)] = 0
    design: _Design = _Design()
    fits: FitsSpec = FitsSpec()
    metrics: list[str | dict[str, Any]] | None = None
    users: _Kind = _Kind()
    data: _Data = _Data()
    serving: _Serving = _Serving()
    arms: dict[str, _Arm] = {}
    published: dict[str, float] = {}
    worlds: dict[str, Any] = {}


class _Marginal(_Told):
    name: str
    target: float
    simulated: float
    ratio: float | None
    within: bool


class _Calibration(_Told):
    basis: str
    tolerance: float
    rows: list[_Marginal]


class _Notes(_Told):
    """The notes of a log that are read again."""

    calibration: _Calibration | None = None
    fitted_once: list[str] = Field(default=[], alias="fitted once")


@lru_cache(maxsize=1)
def _reader() -> TypeAdapter[Metadata]:
    return TypeAdapter(Metadata)


def _number(text: str) -> float:
    """A JSON number; what no float can hold, and NaN, are no numbers."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _complaint(error: ValidationError) -> str:
    """The first broken rule, with key path, rule and value."""
    first = error.errors()[0]
    part = {"_Scenario": "scenario.", "_Notes": "notes."}.get(error.title, "")
    path = ".".join(str(key) for key in first["loc"])
    rule = rule_of(first)
    if first["type"] == "missing":
        return f"metadata.{part}{path} is missing"
    return f"metadata.{part}{path} {rule}; got {_short(first['input'])}"


def _short(value: Any) -> str:
    """A value, cut for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
