"""Metrics: what a log is asked, each a (numerator, denominator) per unit declared over log columns.

A metric knows no unit, no arm and no test; `simulator.stats.units` sums it, the other modules of
`simulator.stats` compare it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from policies.similar import suggest
from simulator.log.kinds import FEEDBACK

Array = npt.NDArray[Any]
Rows = Mapping[str, Array]
"""Log columns of a stretch of rows, each `[rows]`: bools as int8 with -1 for null, floats with NaN
for null, and the two derived bool columns `opens_session` and `opens_request` (the first impression
of each)."""
Better = Literal["higher", "lower"]
"""A direction as it is declared: which values of a metric are better for the product."""
MetricRole = Literal["success", "guardrail", "deterioration", "quality", "exploratory"]
"""What a metric is for in the decision on a test (`simulator.stats.decision`)."""
ROLES: dict[MetricRole, str] = {
    "success": "what the change is made for: it must get better",
    "guardrail": "must be shown not to get worse by its margin",
    "deterioration": "must not be shown to get worse",
    "quality": "must not differ at all, else the test itself is in doubt",
    "exploratory": "for information; no decision rests on it",
}
"""The roles, in the order of print."""


class Absolute(float):
    """A margin in the metric's own units (seconds, euros), where others are shares of the control's
    mean.
    """


def margin_of(written: str | float) -> float:
    """A margin as it is written: `1%` or `0.01`, a share of the control's mean, or `20 abs`, in the
    metric's own units (`Absolute`).

    Raises:
        ValueError: it is none (`is_margin`).
    """
    text = str(written).strip()
    in_units, is_share = text.endswith("abs"), text.endswith("%")
    amount = float(text.removesuffix("abs").removesuffix("%"))
    margin = Absolute(amount) if in_units else amount / 100.0 if is_share else amount
    if not is_margin(margin):
        raise ValueError(MARGIN)
    return margin


MARGIN = (
    "a share of the control's mean, above 0 and below 100% (2% or 0.02), or an amount in the"
    " metric's own units (2abs)"
)
"""What a margin must be."""


def is_margin(margin: float) -> bool:
    """Whether a margin can be meant: a share of 100% or more is a 2 that was written for 2%, and
    would call every arm safe.
    """
    return 0.0 < margin < (float("inf") if isinstance(margin, Absolute) else 1.0)


def share_of(written: str | float, most: float) -> float:
    """A share as it is written, `1%` or `0.01`.

    Raises:
        ValueError: no number above 0 and below `most`.
    """
    text = str(written).strip()
    share = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    if not 0.0 < share < most:
        raise ValueError(f"must be above 0 and below {most:.0%}")
    return share


class MetricError(ValueError):
    """A metric that does not exist; the message names it, the rule and the near miss."""


@dataclass(frozen=True)
class Term:
    """A sum over impressions, the half of a metric.

    Attributes:
        name: its identity: terms of one name are summed once.
        columns: the log columns it needs; a log without them has no data for it.
        of: `[rows]` bool or float contribution of each impression; can be pickled.
        days: a step from the sums of all days `[..., days]` to the term's own value for each day
            `[..., days]`, or None: the sums themselves. A day that has no value (the last one has
            no successor) is 0 there.
        visit: whether it counts the user's coming and not what an item got: two policies that share
            a slate share it, too.
    """

    name: str
    columns: tuple[str, ...]
    of: Callable[[Rows], Array]
    days: Callable[[Array], Array] | None = None
    visit: bool = False


Supplied = Literal["item", "author"]
"""The units of the supply side."""


@dataclass(frozen=True)
class SupplyAsked:
    """What a metric of the supply side asks of the sums per item or author.

    Attributes:
        unit: whose sums.
        asks: `share`: of the units with a sum of `least` or more; `gini`: the Gini coefficient of
            the sums (0 = all alike); `fresh`: the share of the sums that items have which were
            uploaded at most FRESH_DAYS before they were shown; `cold`: that items have which the
            history does not show.
        least: of a share.
    """

    unit: Supplied
    asks: Literal["share", "gini", "fresh", "cold"]
    least: int = 1


FRESH_DAYS = 7
"""An item is fresh for so long after its upload."""


@dataclass(frozen=True)
class Metric:
    """A metric of a log.

    Attributes:
        name: as in `scenario.metrics` and in `Lift.metric`.
        description: one sentence for the report.
        measure: unit of measure of a unit's value, e.g. "s" or "comments".
        numerator: summed per unit.
        denominator: summed per unit: a ratio metric; None: the value is the unit's sum itself (a
            mean per unit).
        higher_is_better: the direction that is good for the product; None: not known. Nothing is
            called better or worse then.
        known_by: how the direction of a user's own metric is known: `name` (`direction_of`),
            `declared` (`declared`); "": by definition.
        role: in the decision. No metric has another one by default: what a change is made for is
            its owner's to say, and a success that is chosen afterwards has no error rate.
        margin: of a guardrail: the loss that must be excluded, as a share of the control's mean
            or `Absolute`; None: of other roles.
        supply: what a metric of the supply side asks of the sums of `numerator` by item or author;
            None: a metric of users.
        covariates: the pre-period columns that it is adjusted for, (): none; None: as found.
        winsorise: share of the largest sums that is cut (`UnitTable.winsorised`).
        quantile: of which quantile of units' sums it is, or of rows where these are clustered;
            None: it is a mean or a ratio.
        quantity: the figure of an arm's units that it is (`stats.quantities`); None: no other one.
    """

    name: str
    description: str
    measure: str
    numerator: Term
    denominator: Term | None = None
    higher_is_better: bool | None = True
    known_by: Literal["", "name", "declared"] = ""
    role: MetricRole = "exploratory"
    margin: float | None = None
    supply: SupplyAsked | None = None
    covariates: tuple[str, ...] | None = None
    winsorise: float = 0.0
    quantile: float | None = None
    quantity: Callable[..., float] | None = None

    @property
    def is_figure(self) -> bool:
        """Whether it is a figure of its own, and neither a mean nor a ratio of units' sums."""
        return self.quantile is not None or self.quantity is not None

    @property
    def terms(self) -> tuple[Term, ...]:
        """The one or two terms that must be summed."""
        return (self.numerator,) if self.denominator is None else (self.numerator, self.denominator)


def _flag(column: str) -> Term:
    return Term(column, (column,), partial(_yes, column))


def _yes(column: str, rows: Rows) -> Array:
    return np.asarray(rows[column] == 1)


def _feedback(name: str) -> Metric:
    kind = FEEDBACK[name]
    return Metric(name, kind.counts, kind.unit, _flag(name), higher_is_better=kind.higher_is_better)


def _sum_of(column: str) -> Term:
    """The sum of a column that is derived for every row (`stats.derived`)."""
    return Term(column, (column,), itemgetter(column))


def _ones(rows: Rows) -> Array:
    return np.ones(len(rows["t"]), dtype=bool)


def _followed(impressions: Array) -> Array:
    active = impressions > 0
    result = np.zeros(active.shape)
    result[..., :-1] = active[..., :-1] & active[..., 1:]
    return result


def _with_successor(impressions: Array) -> Array:
    result = (impressions > 0).astype(np.float64)
    result[..., -1] = 0
    return result


def _watched(rows: Rows) -> Array:
    return np.nan_to_num(rows["watch"].astype(np.float64))


def _played(rows: Rows) -> Array:
    return np.asarray(rows["watch"] > 0)


IMPRESSIONS = Term("impressions", ("t",), _ones)
REQUESTS = Term("requests", ("t",), itemgetter("opens_request"), visit=True)
SESSIONS = Term("sessions", ("t",), itemgetter("opens_session"), visit=True)
WATCH = Term("watch", ("watch",), _watched)
PLAYS = Term("plays", ("watch",), _played)
CLICKS = _flag("click")
RETURNED = Term("returned", ("t",), _ones, _followed, visit=True)
ACTIVE_DAYS = Term("active_days", ("t",), _ones, _with_successor, visit=True)


def _register(metrics: Iterable[Metric]) -> dict[str, Metric]:
    return {m.name: m for m in metrics}


DEFAULT_METRICS = (
    "comment",
    "forward",
    "play",
    "follow",
    "watch_time",
    "click",
    "like",
    "sessions",
    "return",
)
"""The default metrics, in the order of print: the paper's five first (section 5.5)."""

METRICS: dict[str, Metric] = _register(
    (
        _feedback("comment"),
        _feedback("forward"),
        Metric("play", "videos that started (watch time above zero)", "plays", PLAYS),
        _feedback("follow"),
        Metric("watch_time", "time watched", "s", WATCH),
        Metric("click", "clicks (on single-column feeds: valid plays)", "clicks", CLICKS),
        _feedback("like"),
        Metric("sessions", "sessions opened", "sessions", SESSIONS),
        Metric(
            "return",
            "share of active days that are followed by an active day",
            "share",
            RETURNED,
            ACTIVE_DAYS,
        ),
        Metric("click_rate", "clicks per impression", "share", CLICKS, IMPRESSIONS),
        *map(_feedback, [kind for kind in FEEDBACK if kind not in DEFAULT_METRICS]),
        Metric(
            "diversity",
            "share of a slate's pairs of videos that are of different categories",
            "share",
            _sum_of("tag_unlike"),
            _sum_of("tag_pairs"),
        ),
        Metric(
            "author_diversity",
            "share of a slate's pairs of videos that are of different authors",
            "share",
            _sum_of("author_unlike"),
            _sum_of("author_pairs"),
        ),
        Metric(
            "novelty",
            "self-information of the videos shown: -log2 of a video's share of the history",
            "bits",
            _sum_of("information"),
            IMPRESSIONS,
        ),
        Metric("impressions", "videos shown", "impressions", IMPRESSIONS),
        Metric("requests", "slates asked for", "requests", REQUESTS),
    )
)
"""The metrics by name, the paper's five (section 5.5) first. `metric` knows three further forms:
`hit_rate@k`, `ndcg@k` and `a/b`.
"""


def hit_rate(k: int) -> Metric:
    """Hits in the first `k` positions per request; with one held-out item per request this is HR@k
    (recall@k).
    """
    hits = Term(f"hits@{k}", ("click", "position"), partial(_hits, k))
    return Metric(
        f"hit_rate@{k}", f"clicks in the first {k} positions per request", "share", hits, REQUESTS
    )


def _hits(k: int, rows: Rows) -> Array:
    return np.asarray((rows["click"] == 1) & (rows["position"] < k))


def ndcg(k: int) -> Metric:
    """Discounted hits in the first `k` positions per request.

    A click counts the `policies.validation.discount` of its position. With one held-out item per
    request the ideal gain is 1, so this is NDCG@k.
    """
    term = Term(f"ndcg@{k}", ("click", "position"), partial(_gain, k))
    return Metric(
        f"ndcg@{k}",
        f"discounted clicks in the first {k} positions per request",
        "share",
        term,
        REQUESTS,
    )


def _gain(k: int, rows: Rows) -> Array:
    from policies.validation import discount

    return np.where(_hits(k, rows), discount(rows["position"]), 0.0)


_SHOWN = {"shown": (IMPRESSIONS, "impression", "exposure"), "clicked": (CLICKS, "click", "click")}
"""By event of the supply side: what is summed, one of it, and the word for it in names."""


def _reached(unit: Supplied, event: str) -> Callable[[int], Metric]:
    """The share of units that an arm gives `least` impressions (clicks) or more."""

    def share(least: int) -> Metric:
        term, one, _ = _SHOWN[event]
        amount = f"an {one}" if one[0] == "i" else f"a {one}"
        amount = amount if least == 1 else f"{least:,} {one}s or more"
        whole = {"item": "the catalogue", "author": "its authors"}[unit]
        at = "" if least == 1 else f"@{least}"
        return Metric(
            f"{unit}s_{event}{at}",
            f"share of {whole} with {amount}",
            "share",
            term,
            supply=SupplyAsked(unit, "share", least),
        )

    return share


def _gini(unit: Supplied, event: str) -> Metric:
    term, one, word = _SHOWN[event]
    return Metric(
        f"{unit}_{word}_gini",
        f"Gini coefficient of {one}s over {unit}s: 0 where all have as many, 1 where one has all",
        "share",
        term,
        higher_is_better=False,
        supply=SupplyAsked(unit, "gini"),
    )


def _young(asks: Literal["fresh", "cold"], event: str) -> Metric:
    term, one, word = _SHOWN[event]
    what = {
        "fresh": f"that were uploaded at most {FRESH_DAYS} days before they were shown",
        "cold": "that nobody was shown before the test",
    }[asks]
    return Metric(
        f"{asks}_{word}_share",
        f"share of {one}s of items {what}",
        "share",
        term,
        term,
        supply=SupplyAsked("item", asks),
    )


AUDIENCE = 100
"""Impressions that an author counts as having an audience with, where nothing else is asked."""

SUPPLY_METRICS: dict[str, Metric] = _register(
    one
    for event in _SHOWN
    for one in (
        _reached("item", event)(1),
        _reached("author", event)(1),
        _reached("author", event)(AUDIENCE),
        _gini("item", event),
        _gini("author", event),
        _young("fresh", event),
        _young("cold", event),
    )
)
"""The metrics of the supply side that a report shows, by name, in the order of print. `metric`
knows `items_shown@n` and its like for any n."""

_AT_K: dict[str, Callable[[int], Metric]] = {
    "hit_rate": hit_rate,
    "ndcg": ndcg,
    **{f"items_{event}": _reached("item", event) for event in _SHOWN},
    **{f"authors_{event}": _reached("author", event) for event in _SHOWN},
}


def metric(name: str) -> Metric:
    """The metric called `name`: one of `METRICS` or `SUPPLY_METRICS`, `hit_rate@k`, `ndcg@k`,
    `items_shown@n` and its like, or `a/b`, the ratio of two metrics of `METRICS` that are sums.

    Raises:
        MetricError: there is no such metric.
    """
    if name in METRICS:
        return METRICS[name]
    if name in SUPPLY_METRICS:
        return SUPPLY_METRICS[name]
    stem, at, k = name.partition("@")
    if at and stem in _AT_K:
        if not re.fullmatch(r"[1-9][0-9]{0,4}", k):
            of = "a slate's places" if stem in ("hit_rate", "ndcg") else "impressions or clicks"
            raise MetricError(
                f"metric {name!r}: {stem}@k needs a whole number k >= 1 of {of}; got {k!r}"
            )
        return _AT_K[stem](int(k))
    above, slash, below = name.partition("/")
    if slash:
        top, bottom = _sum(name, above), _sum(name, below)
        measure = f"{top.measure} per {below}"
        better = top.higher_is_better if above not in EXPOSURES or below in EXPOSURES else None
        return Metric(
            name,
            f"{top.description}, per {below}",
            measure,
            top.numerator,
            bottom.numerator,
            better,
        )
    every = (
        f"there are {list(METRICS)}, hit_rate@k, ndcg@k and a/b for two of them, and of the supply"
        f" side {list(SUPPLY_METRICS)}"
    )
    raise MetricError(
        f"no metric {name!r}; {suggest(name, [*METRICS, *SUPPLY_METRICS, *_AT_K], every)}"
    )


def _sum(name: str, part: str) -> Metric:
    if part not in METRICS or METRICS[part].denominator is not None:
        sums = [one for one, metric in METRICS.items() if metric.denominator is None]
        rule = f"{part!r} is not a metric that is a sum"
        raise MetricError(f"metric {name!r}: {rule}; {suggest(part, sums, f'there are {sums}')}")
    return METRICS[part]


@dataclass(frozen=True)
class Declared:
    """What is declared of a metric beyond its definition.

    Attributes:
        better: its direction; None: as it is known.
        role: in the decision; None: guardrail where a margin is declared, else exploratory.
        margin: of a guardrail, above 0.
        covariates: the pre-period columns that it is adjusted for, (): none; None: as found.
        winsorise: share of the largest values that is cut, below 50%.
        quantile: the quantile of which it is, between 0 and 1.
    """

    better: Better | None = None
    role: MetricRole | None = None
    margin: float | None = None
    covariates: tuple[str, ...] | None = None
    winsorise: float | None = None
    quantile: float | None = None

    @classmethod
    def of(cls, entry: Better | Mapping[str, Any]) -> Declared:
        """As it is written in a scenario: `lower`, or `{role: guardrail, margin: 1%}`."""
        if isinstance(entry, str):
            return cls(better=entry)
        margin, covariate = entry.get("margin"), entry.get("covariate")
        winsorise, quantile = entry.get("winsorise"), entry.get("quantile")
        return cls(
            entry.get("better"),
            entry.get("role"),
            None if margin is None else margin_of(margin),
            None if covariate is None else covariates_of(covariate),
            None if winsorise is None else share_of(winsorise, 0.5),
            None if quantile is None else share_of(quantile, 1.0),
        )


def covariates_of(written: str | Iterable[str]) -> tuple[str, ...]:
    """Pre-period columns as they are written: a name, a list of names, or `none`."""
    if isinstance(written, str):
        return () if written == "none" else (written,)
    return tuple(written)


def chosen(names: Iterable[str | Mapping[str, Better | Mapping[str, Any]]]) -> tuple[Metric, ...]:
    """The metrics called `names`, in that order, each once; an entry `{name: "lower"}` also
    declares its direction, an entry `{name: {"role": "success"}}` its role.

    Raises:
        MetricError: one of them does not exist, or what is declared of it cannot be.
    """
    metrics: dict[str, Metric] = {}
    for entry in names:
        if isinstance(entry, str):
            metrics[entry] = metric(entry)
            continue
        for name, what in entry.items():
            metrics |= declared({name: metric(name)}, {name: Declared.of(what)})
    return tuple(metrics.values())


def declarations(
    better: Mapping[str, Better] | None,
    roles: Mapping[str, MetricRole] | None,
    entries: Mapping[str, Declared] | None = None,
) -> dict[str, Declared]:
    """Directions, roles and whole `entries` by metric as one declaration of each; a direction or a
    role beside an entry wins.
    """
    better, roles, entries = better or {}, roles or {}, entries or {}
    together = {}
    for name in dict.fromkeys((*entries, *better, *roles)):
        entry = entries.get(name, Declared())
        role = roles.get(name, entry.role)
        is_kept = role == entry.role
        together[name] = replace(
            entry,
            better=better.get(name, entry.better),
            role=role,
            margin=entry.margin if is_kept else None,
        )
    return together


def declared(metrics: Mapping[str, Metric], entries: Mapping[str, Declared]) -> dict[str, Metric]:
    """The metrics with what is declared of some of them.

    Raises:
        MetricError: no such metric or direction; no such role, or one that needs a direction or a
            margin that the metric does not have.
    """
    result = dict(metrics)
    for name, entry in entries.items():
        if entry.better is not None:
            if name not in metrics:
                raise MetricError(f"better: no metric {name!r}; there are {list(metrics)}")
            if entry.better not in ("higher", "lower"):
                raise MetricError(
                    f"better: {name!r} is declared {entry.better!r}; it must be 'higher' or 'lower'"
                )
            is_higher = entry.better == "higher"
            result[name] = replace(result[name], higher_is_better=is_higher, known_by="declared")
        if entry.role is not None or entry.margin is not None:
            if name not in metrics:
                raise MetricError(f"role: no metric {name!r}; there are {list(metrics)}")
            result[name] = _in_role(result[name], entry)
        if (entry.covariates, entry.winsorise, entry.quantile) != (None, None, None):
            if name not in metrics:
                raise MetricError(f"metric {name!r}: there is none; there are {list(metrics)}")
            result[name] = _analysed(result[name], entry)
    return result


def _analysed(metric: Metric, entry: Declared) -> Metric:
    """The metric, analysed as an entry declares."""
    name, is_ratio = metric.name, metric.denominator is not None
    for key, value in (("winsorise", entry.winsorise), ("quantile", entry.quantile)):
        if value is not None and is_ratio:
            raise MetricError(
                f"{key}: {name!r} is a ratio of sums, which has none; declare it of a mean"
            )
        if value is not None and metric.quantity is not None:
            raise MetricError(f"{key}: {name!r} is a quantity of your own, which has none")
    quantile = metric.quantile if entry.quantile is None else entry.quantile
    winsorise = metric.winsorise if entry.winsorise is None else entry.winsorise
    covariates = metric.covariates if entry.covariates is None else entry.covariates
    is_figure = quantile is not None or metric.quantity is not None
    if is_figure and (winsorise or covariates):
        raise MetricError(
            f"metric {name!r} is no mean: it is neither winsorised nor adjusted for a covariate;"
            " leave that out"
        )
    return replace(
        metric,
        quantile=quantile,
        winsorise=winsorise,
        covariates=() if is_figure else covariates,
    )


UNDIRECTED = (
    "is more of {0!r} better, or less? Its name does not tell. Declare it: --better {0}=lower (or"
    " =higher); in Python better={{{0!r}: 'lower'}}; in a scenario, metrics: [{{{0}: lower}}]"
)
"""How the direction of a metric is declared."""


def _in_role(metric: Metric, entry: Declared) -> Metric:
    """The metric in the role that an entry declares."""
    role: MetricRole = entry.role or "guardrail"
    name, margin = metric.name, entry.margin
    if role not in ROLES:
        raise MetricError(f"role: {name!r} is declared {role!r}; it must be one of {list(ROLES)}")
    if metric.role not in ("exploratory", role):
        raise MetricError(f"role: {name!r} is declared {metric.role} and {role}; it can have one")
    if role == "guardrail":
        if margin is None:
            raise MetricError(
                f"guardrail: by how much may {name!r} get worse? Declare a margin: --guardrail"
                f" {name}=1%; in a scenario, metrics: [{{{name}: {{role: guardrail, margin:"
                " 0.01}}]"
            )
        if not is_margin(margin):
            raise MetricError(
                f"guardrail: the margin of {name!r} must be {MARGIN}; got {float(margin):g}"
            )
    elif margin is not None:
        raise MetricError(f"margin: for guardrails; {name!r} is declared {role}")
    if role in ("success", "guardrail", "deterioration") and metric.higher_is_better is None:
        raise MetricError(f"{role}: {UNDIRECTED.format(name)}")
    return replace(metric, role=role, margin=margin)


EXPOSURES = frozenset({"impressions", "requests", "sessions"})
"""Sums that say how much was shown or come for: per click or per order, less of them is better as
likely as more.
"""

_MORE = """
aov arpu arpv booking click clicked comment conversion converted ctr cvr earning engagement
favorite favourite follow forward gmv income install like ltv margin minute money nps order play
profit purchase purchased rating retained retention revenue sale satisfaction session share shared
signup subscribe subscribed subscription upvote view viewed visit watch watched
"""
_LESS = """
abandon abandoned abandonment anr bounce bounced bug cancel canceled cancellation cancelled
chargeback churn churned complaint cost crash crashed defect delay delayed dislike disliked downtime
downvote error escalation exception expense fail failed failure fraud freeze hang hate incident jank
lag latency outage rebuffer rebuffering refund refunded reject rejected rejection spam
stall stalled timeout ttfb unfollow unfollowed uninstall uninstalled unsubscribe unsubscribed
unsubscription violation wait waiting
"""
_TURNS = """
after avoid avoided before call free idle late lost missed no non not prevented reduced reduction
save saved saving since support to until without
"""
_BETTER = {**dict.fromkeys(_MORE.split(), True), **dict.fromkeys(_LESS.split(), False)}
_TURNING = frozenset(_TURNS.split())
_LESS_TIME = re.compile(
    r"(load|loading|response|render|startup)_?(time|ms|seconds|duration)|opt_?out|drop_?off",
    re.IGNORECASE,
)


def direction_of(
    name: str, numerator: str | None = None, denominator: str | None = None
) -> bool | None:
    """Whether more of a user's own metric is better, as far as its name tells, and of a ratio that
    of its numerator; None: it does not.

    Names are told by their words: `latency_ms`, `crashes`, `errorRate` and `refunds` are better
    low, `revenue` and `watch_time` high. A name whose words disagree (`cancelled_orders`), or with
    a word that may turn it about (`lost_revenue`, `crash_free_users`), does not
    tell: to be silent costs a declaration, to be wrong a verdict.
    """
    told = {_told(part) for part in (name, numerator) if part is not None} - {None}
    if numerator in EXPOSURES and denominator not in EXPOSURES:
        told = {_told(name)}
    return told.pop() if len(told) == 1 else None


def _told(name: str) -> bool | None:
    """What the words of a name say, up to a `per`."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    words = words[: words.index("per")] if "per" in words[1:] else words
    if _TURNING & set(words):
        return None
    stems = {
        stem
        for word in words
        for stem in (
            word,
            word.removesuffix("s"),
            word.removesuffix("es"),
            re.sub("ies$", "y", word),
        )
    }
    votes = {_BETTER[stem] for stem in stems if stem in _BETTER}
    if _LESS_TIME.search("_".join(words)):
        votes.add(False)
    return votes.pop() if len(votes) == 1 else None
