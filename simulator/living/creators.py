"""The `items:` section of a scenario: how items come, age and go, and when creators stop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from simulator.config.section import MAX_DAYS, MAX_IDS, ConfigSection


class Creators(ConfigSection):
    """Who makes the items, and what an audience does to them.

    A creator's *audience* is what his items got in the last `window` days, over the mean of the
    creators who have not stopped: 1 is a fair share.
    """

    reacts_to: Literal["impressions", "clicks"] = Field(
        default="impressions", description="what an audience is counted in"
    )
    window: Annotated[int, Field(ge=1, le=MAX_DAYS)] = Field(
        default=7, description="days of an audience"
    )
    half: Annotated[float, Field(ge=0, le=1e6)] = Field(
        default=0.1,
        description=(
            "the audience at which a creator makes every second upload of his (the first is made"
            " for certain); 0: all are made"
        ),
    )
    least: Annotated[int, Field(ge=0)] = Field(
        default=1,
        description=(
            "a creator with fewer impressions (clicks) than this in a whole window stops for good;"
            " 0: nobody stops"
        ),
    )


class Items(ConfigSection):
    """A catalogue that lives, in a scenario of `choice` or `markov` users: `users.n_items` are all
    videos that may ever be uploaded, numbered in the order of upload.

    Videos 1..`stock` are there when the history begins, as if they had been uploaded at the same
    rate before; the others follow, `uploads` a day. In the catalogue of an arm each appears only if
    its creator still uploads there.
    """

    uploads: Annotated[float, Field(gt=0, le=MAX_IDS)] = Field(
        description="a day, if every creator makes all of his"
    )
    stock: Annotated[int, Field(ge=0, le=MAX_IDS)] | None = Field(
        default=None,
        description="there when the history begins; `uploads` times `remove_after` if left out",
    )
    releases: Literal[1, 2, 3, 4, 6, 8, 12, 24] = Field(
        default=4, description="times a day at which uploads appear, the first at midnight"
    )
    decay: Annotated[float, Field(ge=0, le=100)] = Field(
        default=0.02, description="what a day of age takes from the logit of a click"
    )
    remove_after: Annotated[int, Field(ge=1, le=MAX_DAYS)] = Field(
        default=30, description="days after which an item is removed, at midnight"
    )
    trial_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] = Field(
        default=3, description="days after which one with too few clicks is removed"
    )
    trial_clicks: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="clicks that an item needs by then; 0: none is removed for its clicks",
    )
    creators: Creators = Field(default=Creators(), description="who makes the items")
    catalogue: Literal["own", "pooled"] = Field(
        default="own",
        description=(
            "`own`: every arm has a catalogue of its own, whose creators see that arm alone;"
            " `pooled`: all arms have one, whose creators see all of them"
        ),
    )

    @property
    def at_start(self) -> int:
        """Videos that are there when the history begins."""
        return round(self.uploads * self.remove_after) if self.stock is None else self.stock

    def needed(self, days: int) -> int:
        """Videos that there are in all, over `days` days of history and A/B."""
        return self.at_start + int(-(-self.uploads * days // 1))
