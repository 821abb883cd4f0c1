"""How a table of interactions is read: which column is what, and the ready maps of published data
sets.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field

from policies.similar import suggest
from simulator.config.document import near
from simulator.config.section import ConfigSection
from simulator.log.kinds import FEEDBACK

Text = Annotated[str, Field(min_length=1, max_length=1000)]

ROLES: dict[str, str] = {
    "user": "id of the user, of any type",
    "item": "id of the item, of any type; a list where a row is a whole slate",
    "time": "when it was shown; without it, the order of the rows is the order of time",
    "click": "0 or 1, or `at_least`; without it, every row is a click",
    "watch": "watch time, in s or `unit`",
    "duration": "length of the item, in s or `unit`",
    "session": "id of the session; without it, a pause of `session_gap` ends one",
    "request": "id of the slate; without it, rows of a user with one time came together",
    "position": "place in the slate, from 0",
    "propensity": "probability with which it was shown there",
    "tab": "surface of the app, a whole number of 0 to 254",
    **{name: f"{kind.counts}: 0 or 1, or `at_least`" for name, kind in FEEDBACK.items()},
}
"""What a column of a table of interactions can be, as the event log calls it."""

Unit = Literal["s", "ms", "us", "ns"]

PER_SECOND: dict[Unit, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def _as_column(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


def _one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"must have one group, as (.+)-[01] has; it has {groups}")
    return pattern


class ColumnSpec(ConfigSection):
    """A column of a table, and how its cells are read; its name alone is enough where they are as
    the event log has them.
    """

    column: Text = Field(description="its name in the table")
    unit: Unit | None = Field(
        default=None, description="of times and lengths; a time says it where it could be several"
    )
    format: Text | None = Field(
        default=None, description="of a time that is text and not ISO 8601, as strptime has it"
    )
    at_least: float | None = Field(
        default=None, description="of an answer: numbers from here on are a yes (ratings)"
    )
    separator: Text | None = Field(
        default=None, description="between the values of a cell that holds several"
    )
    pattern: Annotated[Text, AfterValidator(_one_group)] | None = Field(
        default=None,
        description="regular expression (RE2) of a value: its one group is what counts",
    )


Column = Annotated[ColumnSpec, BeforeValidator(_as_column)]


def _roles(columns: Mapping[str, ColumnSpec]) -> Mapping[str, ColumnSpec]:
    for role in columns:
        if role not in ROLES:
            raise ValueError(f"a column of interactions cannot be {role!r}; {near(role, ROLES)}")
    return columns


Columns = Annotated[dict[str, Column], AfterValidator(_roles)]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        example = "Asia/Shanghai is one"
        hint = suggest(name, sorted(available_timezones()), example)
        raise ValueError(f"no time zone of the IANA data base; {hint}") from error
    return name


Zone = Annotated[str, AfterValidator(_zone)]


def _codec(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError as error:
        rule = "must be an encoding that Python knows, such as utf-8 or latin-1"
        raise ValueError(rule) from error


class TextLayout(ConfigSection):
    """How a text file is cut into cells."""

    delimiter: Annotated[str, Field(min_length=1, max_length=8)] | None = Field(
        default=None, description="between cells; a comma, in `.tsv` a tab"
    )
    names: tuple[Text, ...] = Field(
        default=(), description="of the columns of a file whose first line does not say them"
    )
    encoding: Annotated[Text, AfterValidator(_codec)] = Field(
        default="utf-8", description="of the text"
    )


class FeatureTable(ConfigSection):
    """A table of items or users beside the interactions, a row each."""

    path: Text = Field(
        description="file, relative to the folder of the interactions; `*` stands for any letters"
    )
    id: Text = Field(description="column of the ids, as the interactions have them")
    duration: Column | None = Field(default=None, description="items: length, in s or `unit`")
    attributes: Column | None = Field(
        default=None, description="items: column whose cells hold several values (`separator`)"
    )
    optional: bool = Field(default=False, description="read only where it is there")
    text: TextLayout = Field(default=TextLayout(), description="how a text file is cut")


_KUAIRAND_KINDS = ("like", "comment", "forward", "follow", "hate", "profile_enter")

READY: dict[str, dict[str, Any]] = {
    "movielens": {  # ratings.csv of ml-latest, ml-25m, ml-32m
        "columns": {
            "user": "userId",
            "item": "movieId",
            "time": {"column": "timestamp", "unit": "s"},
            "click": {"column": "rating", "at_least": 4},
        },
        "files": "ratings.csv*",
        "items": {
            "path": "movies.csv*",
            "id": "movieId",
            "attributes": {"column": "genres", "separator": "|"},
            "optional": True,
        },
    },
    "movielens-100k": {  # u.data
        "columns": {
            "user": "user",
            "item": "item",
            "time": {"column": "timestamp", "unit": "s"},
            "click": {"column": "rating", "at_least": 4},
        },
        "files": "u.data*",
        "text": {"delimiter": "\t", "names": ["user", "item", "rating", "timestamp"]},
        "users": {
            "path": "u.user*",
            "id": "user",
            "optional": True,
            "text": {"delimiter": "|", "names": ["user", "age", "gender", "occupation", "zip"]},
        },
    },
    "movielens-1m": {  # ratings.dat, also of ml-10m
        "columns": {
            "user": "user",
            "item": "item",
            "time": {"column": "timestamp", "unit": "s"},
            "click": {"column": "rating", "at_least": 4},
        },
        "files": "ratings.dat*",
        "text": {"delimiter": "::", "names": ["user", "item", "rating", "timestamp"]},
        "items": {
            "path": "movies.dat*",
            "id": "item",
            "attributes": {"column": "genres", "separator": "|"},
            "optional": True,
            "text": {
                "delimiter": "::",
                "names": ["item", "title", "genres"],
                "encoding": "latin-1",
            },
        },
        "users": {
            "path": "users.dat*",
            "id": "user",
            "optional": True,
            "text": {"delimiter": "::", "names": ["user", "gender", "age", "occupation", "zip"]},
        },
    },
    "kuairec": {  # small_matrix.csv or big_matrix.csv
        "columns": {
            "user": "user_id",
            "item": "video_id",
            "time": {"column": "timestamp", "unit": "s"},
            "click": {"column": "watch_ratio", "at_least": 2},
            "watch": {"column": "play_duration", "unit": "ms"},
            "duration": {"column": "video_duration", "unit": "ms"},
        },
        "files": "big_matrix.csv*",
        "zone": "Asia/Shanghai",
        "missing": "drop",  # of small_matrix.csv, some rows have no time
        "items": {
            "path": "item_categories.csv*",
            "id": "video_id",
            "attributes": {  # "[27, 9]"
                "column": "feat",
                "separator": ",",
                "pattern": r"\[? *([0-9]+) *\]?",
            },
            "optional": True,
        },
        "users": {"path": "user_features.csv*", "id": "user_id", "optional": True},
    },
    "kuairand": {  # log_*.csv of Pure, 1K and 27K
        "columns": {
            "user": "user_id",
            "item": "video_id",
            "time": {"column": "time_ms", "unit": "ms"},
            "click": "is_click",
            "watch": {"column": "play_time_ms", "unit": "ms"},
            "duration": {"column": "duration_ms", "unit": "ms"},
            "tab": "tab",
            "long_view": "long_view",
            **{kind: f"is_{kind}" for kind in _KUAIRAND_KINDS},
        },
        "files": "log_*.csv*",
        "zone": "Asia/Shanghai",
        "items": {
            "path": "video_features_basic_*.csv*",
            "id": "video_id",
            "duration": {"column": "video_duration", "unit": "ms"},
            "attributes": {"column": "tag", "separator": ","},
            "optional": True,
        },
        "users": {"path": "user_features_*.csv*", "id": "user_id", "optional": True},
    },
    "mind": {  # behaviors.tsv
        "columns": {
            "user": "user",
            "item": {"column": "impressions", "separator": " ", "pattern": "(.+)-[01]"},
            "click": {"column": "impressions", "separator": " ", "pattern": ".+-([01])"},
            "time": {"column": "time", "format": "%m/%d/%Y %I:%M:%S %p"},
            "request": "impression",
        },
        "files": "behaviors.tsv*",
        "zone": "UTC",  # the publishers do not say the zone
        "text": {
            "delimiter": "\t",
            "names": ["impression", "user", "time", "history", "impressions"],
        },
        "items": {
            "path": "news.tsv*",
            "id": "news",
            "optional": True,
            "text": {
                "delimiter": "\t",
                "names": [
                    *("news", "category", "subcategory", "title", "abstract", "url"),
                    *("title_entities", "abstract_entities"),
                ],
            },
        },
    },
    "tenrec": {  # QK-video.csv, QB-video.csv, ctr_data_1M.csv; without times
        "columns": {
            "user": "user_id",
            "item": "item_id",
            "click": "click",
            "follow": "follow",
            "like": "like",
            "forward": "share",
        },
    },
    "criteo-attribution": {  # criteo_attribution_dataset.tsv.gz: s from the first impression
        "columns": {
            "user": "uid",
            "item": "campaign",
            "time": {"column": "timestamp", "unit": "s"},
            "click": "click",
        },
    },
}
"""The `data:` keys of published data sets, by name: what `format` stands for (docs/data.md has the
sources).
"""

Ready = Annotated[str, Field(json_schema_extra={"enum": list(READY)})]


def spelled_out(values: Any) -> Any:
    """A `data:` section whose `format` is replaced by the keys that it stands for; the section's
    own keys win, and a column that is set to null is left out.

    Raises:
        ValueError: no such format.
    """
    if not isinstance(values, Mapping) or values.get("format") is None:
        return values
    name = values["format"]
    if name not in READY:
        raise ValueError(f"format {name!r} is not known; {near(str(name), READY)}")
    own = {key: value for key, value in values.items() if key != "format"}
    columns = own.get("columns")
    merged = {**READY[name], **own}
    if isinstance(columns, Mapping):
        every = {**READY[name]["columns"], **columns}
        merged["columns"] = {role: column for role, column in every.items() if column is not None}
    return merged
