"""The parameters of the synthetic world `choice`, one documented block a mechanism; no randomness
and no arithmetic here.

Blocks with `enabled` are switched off by `enabled: false`, which leaves the plain textbook case
that their docstring names; what no world can do without (videos, interests, affinity, watch time,
arrivals) has neutral values, which its docstring names, too. The defaults are calibrated on the
published figures of Kuaishou's logs (Gao et al., KuaiRand, CIKM 2022); `abtest calibrate` checks
them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from simulator.config.section import MAX_IDS, ConfigSection, DistinctNumbers

Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=MAX_IDS)]
Logit = Annotated[float, Field(ge=-100, le=100)]
"""A part of a logit, or a factor within an exponential: beyond 100, chances are 0 and 1 in every
bit.
"""
Spread = Annotated[float, Field(ge=0, le=100)]
"""The standard deviation, length or weight of a part of a logit."""
Exponent = Annotated[float, Field(ge=0, le=20)]
"""The exponent of a law of rank: at 20, the second of a list has a millionth of the first."""
Pull = Annotated[float, Field(ge=-10, le=10)]
"""A factor within an exponential of a rate or of odds: 10 is a change by 22,000."""
Seconds = Annotated[float, Field(ge=0.001, le=86_400)]
"""A length of time that is drawn in ms, at most a day."""
Shape = Annotated[float, Field(ge=0.05, le=20)]
"""The shape of a Weibull, log-logistic or gamma law: outside, its draws leave what 64 bits hold."""

HOURS = (
    *(3.65, 2.28, 1.48, 0.94, 0.78, 0.98, 1.77, 2.66, 3.38, 4.02, 4.60, 5.15),
    *(5.86, 5.59, 5.08, 5.24, 5.57, 5.99, 5.62, 5.47, 5.65, 6.06, 6.41, 5.78),
)
"""Share of impressions by hour of day, 0..23 h, %: measured on KuaiRand."""


VALID_PLAY = 7.0
"""s: a play of at least this, or of the whole video if it is shorter, is a click (the rule that
KuaiRand's logs follow).
"""

LONG_VIEW = 18.0
"""s: a play of at least this, or of the whole video if it is shorter, is a long view (the rule that
KuaiRand's logs follow).
"""


class Mechanism(ConfigSection):
    """Base of the blocks that can be switched off."""

    enabled: bool = Field(
        default=True, description="false: the plain case named in the block's description"
    )


class Videos(ConfigSection):
    """The catalogue: a video has one author, one visible tag, a duration, and a hidden place among
    latent topics.

    Tags and authors are Zipf-distributed (Cha et al., "I tube, you tube, everybody tubes", IMC
    2007). A latent vector is the tag's centre + the author's deviation + its own, scaled to unit
    length. Durations are drawn from the published quantiles. Without structure: exponents and
    lengths 0 (all tags and authors equally frequent, every video at its tag's centre).
    """

    authors: Count = 800
    tags: Count = 40
    tag_zipf: Exponent = 0.8
    author_zipf: Exponent = 0.7
    author_spread: Spread = Field(
        default=0.5, description="length of the author's deviation from the tag's centre"
    )
    spread: Spread = Field(default=0.35, description="length of a video's own deviation")
    off_tag: Share = Field(
        default=0.15, description="share of videos outside their author's main tag"
    )
    duration: Annotated[dict[Share, Seconds], DistinctNumbers] = Field(
        default={0.0: 6.0, 0.1: 14.6, 0.25: 32.0, 0.5: 81.0, 0.75: 148.0, 0.9: 238.0, 1.0: 520.0},
        min_length=1,
        description="quantiles, s; linear in the logarithm between them",
    )


class Interests(ConfigSection):
    """Several interests per user, each a direction in the latent space near a tag's centre, with
    weights.

    What user u finds in video i is `sum_m w_m max(0, <p_m, v_i>)^2`, where the largest weight is 1:
    an item is liked through the interests that it lies near, not through their mean (Weston, Weiss
    & Yee, "Nonlinear latent factorization", RecSys 2013). The plain case: `per_user: 1`.
    """

    per_user: Annotated[int, Field(ge=1, le=16)] = 4
    dimensions: Annotated[int, Field(ge=2, le=64)] = 12
    spread: Spread = Field(
        default=0.4, description="length of an interest's deviation from its tag's centre"
    )
    concentration: Spread = Field(
        default=1.0, description="sd of the logits of the weights; 0: all interests weigh the same"
    )


class Affinity(ConfigSection):
    """The logit of a valid play of an examined video: base + user + activity + quality + match +
    author + taste + duration.

    A logit response over a sum of utilities is the random-utility model (McFadden 1974). Each term
    is off at 0; with all of them off, clicks are independent coins.
    """

    base: Logit = -3.31
    user: Spread = Field(default=1.5, description="sd between users")
    activity: Logit = Field(
        default=-0.31,
        description=(
            "change per normal score of activity: KuaiRand's full-active users click 42%, its low"
            " ones 57%"
        ),
    )
    quality: Spread = Field(default=1.3, description="sd between videos")
    match: Spread = Field(default=6.65, description="weight of the interest match")
    author: Spread = Field(default=0.4, description="sd of a user's own liking for an author")
    taste: Spread = Field(
        default=0.6, description="sd of what no feature explains, fixed per (user, video)"
    )
    duration: Annotated[dict[Seconds, Logit], DistinctNumbers] = Field(
        default={10.0: -0.15, 22.0: 0.0, 45.0: 0.17, 90.0: 0.32, 240.0: -0.27},
        min_length=1,
        description="offset at durations (s), linear in the logarithm between",
    )


class Examination(Mechanism):
    """A video at place p (from 0) is looked at with probability `first * decay^p`; unexamined:
    swiped by, 0 s.

    The position-based model (Richardson, Dominowska & Ragno, WWW 2007). Off: everything shown is
    examined.
    """

    first: Annotated[float, Field(gt=0, le=1)] = 0.93
    decay: Annotated[float, Field(gt=0, le=1)] = 0.99


class Cascade(Mechanism):
    """After each video the user puts the app away with this hazard; what follows in the slate is
    not shown.

    Top-down cascade (Craswell et al., WSDM 2008) with a hazard that depends on the click, as in the
    dynamic Bayesian network model (Chapelle & Zhang, WWW 2009). Off: the whole slate is shown.
    """

    after_click: Share = 0.01
    after_unclick: Share = 0.03


class Watch(ConfigSection):
    """Watch time has two humps: a skip after a second or two (Weibull, below the click threshold)
    or real watching.

    Attention of a clicked video is log-logistic with median `attention * exp(affinity * g)` s, cut
    to at least the click's threshold; g = tanh(y / 2) in -1..1 says how well the video suits, y
    being the click's logit with the user's own level set to `base`. Who reaches the end leaves with
    probability `stop`, else loops for `loop` of the remaining attention. Skips: Weibull (Liu, White
    & Dumais, SIGIR 2010, on dwell times). Neutral: `affinity: 0` (what suits is watched no longer),
    `stop: 1` (nobody loops).
    """

    skip_scale: Seconds = Field(default=2.84, description="s")
    skip_shape: Shape = 1.629
    attention: Seconds = Field(default=13.2, description="s")
    affinity: Annotated[float, Field(ge=0, le=10)] = 2.5
    shape: Annotated[float, Field(gt=0.5, le=20)] = 1.46
    stop: Share = 0.8
    loop: Share = 0.052


class Reaction(Mechanism):
    """One kind of feedback. Given a click: logit = logit(rate) + affinity * g; without a click
    `unclicked` times that chance.

    g in -1..1 says how well the video suits, as in `Watch`. Off: never given.
    """

    rate: Probability
    affinity: Logit
    unclicked: Annotated[float, Field(ge=0, le=1000)]


class Reactions(ConfigSection):
    """Feedback beside click and watch time, conditional on the click (conditional rates:
    KuaiRand).
    """

    # Another kind is one more line, at the end (the order decides the random words), and a column
    # of the log (`simulator.log.kinds.FEEDBACK`).

    like: Reaction = Reaction(rate=0.01443, affinity=1.7, unclicked=0.52)
    comment: Reaction = Reaction(rate=0.00058, affinity=3.47, unclicked=0.028)
    forward: Reaction = Reaction(rate=0.00143, affinity=0.74, unclicked=0.21)
    follow: Reaction = Reaction(rate=0.00102, affinity=1.28, unclicked=0.36)
    hate: Reaction = Reaction(rate=0.00021, affinity=-1.82, unclicked=1.44)
    profile_enter: Reaction = Reaction(rate=0.0282, affinity=1.34, unclicked=0.06)

    @property
    def kinds(self) -> tuple[str, ...]:
        """All feedback beside click and watch time: what follows from the watch time, then the
        reactions.
        """
        return ("long_view", *type(self).model_fields)


class Satiation(Mechanism):
    """Near-duplicates of what was just shown tire: logit - strength * max(0, <memory, v>).

    `memory` is the sum of the latent vectors shown, fading by `fade` per impression and with
    half-life `recovery` between requests (Kapoor et al., "Just in time recommendations: modeling
    the dynamics of boredom", WSDM 2015). Off: no memory.
    """

    strength: Spread = 0.12
    fade: Share = 0.9
    recovery: Annotated[float, Field(ge=0.001, le=100_000)] = Field(
        default=6.0, description="h: half-life of the memory"
    )


class Drift(Mechanism):
    """Interests change from day to day, whatever is shown: weights by a stationary AR(1) on their
    logits; some are replaced.

    After Koren, "Collaborative filtering with temporal dynamics", KDD 2009 (drifting user factors).
    Off: interests stay.
    """

    persistence: Share = Field(
        default=0.9, description="autocorrelation of the weights' logits from one day to the next"
    )
    renewal: Share = Field(
        default=0.01, description="chance per interest and day to be replaced by a new one"
    )


class Focus(Mechanism):
    """A session leans to one interest, drawn by weight: the other weights are multiplied by 1 -
    `strength`.

    Short-term intent within sessions (Jannach, Lerche & Jugovac, RecSys 2015). Off: all sessions
    use the same weights.
    """

    strength: Share = 0.4


class Patience(Mechanism):
    """After a request, a session ends with logit = logit(`leave`) - `satisfaction` * (s -
    `reference`), s the share of long views.

    Off: leaving has the constant probability `leave`, so that a session has a geometric number of
    requests with mean 1/leave. Session lengths are not published: `leave` is free.
    """

    leave: Probability = 0.4
    satisfaction: Annotated[float, Field(ge=0, le=10)] = 0.8
    reference: Share = 0.33


class Arrival(ConfigSection):
    """Sessions start as a Poisson process whose rate follows the hour of the day; users differ by a
    gamma-distributed rate.

    Poisson-gamma buying behaviour: Ehrenberg 1959. `shape` is fitted to the app's DAU / MAU of
    59.2% (Kuaishou, 2022 Q2). The larger `shape`, the more alike are the users.
    """

    per_day: Annotated[float, Field(gt=0, le=10_000)] = Field(
        default=1.3, description="mean number of sessions a user starts per day"
    )
    shape: Annotated[float, Field(ge=0.05, le=1e9)] = Field(
        default=1.6,
        description=(
            "of the gamma distribution between users: variance of the rate = mean^2 / shape"
        ),
    )
    busiest: Annotated[float, Field(gt=0, le=1440)] = Field(
        default=4.0, description="rates are cut at this many per day: no user runs out of videos"
    )
    gap: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=1.0, description="s between the end of a video and what comes next"
    )

    @property
    def most_sessions(self) -> float:
        """At most so many sessions a user starts per day on average."""
        return min(self.per_day, self.busiest)


class Diurnal(Mechanism):
    """The hour curve of arrivals. Off: all hours are the same."""

    hours: tuple[Annotated[float, Field(ge=0, le=1e9)], ...] = Field(
        default=HOURS, min_length=24, max_length=24, description="weights of the hours 0..23"
    )

    @field_validator("hours")
    @classmethod
    def _some(cls, hours: tuple[float, ...]) -> tuple[float, ...]:
        if sum(hours) < 1e-9:
            raise ValueError("one of the hours must have a weight")
        return hours


class Returning(Mechanism):
    """Satisfied users come back sooner: rate * exp(`satisfaction` * (S - `reference`)), S the
    fading mean share of long views.

    Return as the hazard that recommenders move: Du et al., "Time-sensitive recommendation from
    recurrent user activities", NIPS 2015. Off: coming back does not depend on what was shown.
    """

    satisfaction: Pull = 1.0
    reference: Share = 0.33
    memory: Share = Field(default=0.8, description="weight of the past at each request in S")


class ChoiceParameters(ConfigSection):
    """The keys of the `users:` section of kind `choice`."""

    kind: Literal["choice"] = "choice"
    n_users: Annotated[int, Field(ge=1)] = 3000
    n_items: Annotated[int, Field(ge=1)] = 4000
    videos: Videos = Videos()
    interests: Interests = Interests()
    affinity: Affinity = Affinity()
    examination: Examination = Examination()
    cascade: Cascade = Cascade()
    watch: Watch = Watch()
    reactions: Reactions = Reactions()
    satiation: Satiation = Satiation()
    drift: Drift = Drift()
    focus: Focus = Focus()
    patience: Patience = Patience()
    arrival: Arrival = Arrival()
    diurnal: Diurnal = Diurnal()
    returning: Returning = Returning()
