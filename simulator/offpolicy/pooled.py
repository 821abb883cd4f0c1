"""The lift of an A/B test both of whose policies can be asked what they would have shown in every
request: where they would have shown the same, nothing can differ, and nothing is left to chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from policies.base import DoubleArray, IntArray, Progress, silent
from simulator.offpolicy.diagnostics import Word
from simulator.offpolicy.rounds import Rounds, Stream
from simulator.offpolicy.settings import ReplayError
from simulator.offpolicy.survey import observed
from simulator.offpolicy.target import Target, Targets
from simulator.stats import intervals, moments
from simulator.stats.moments import Moments, Sample
from simulator.stats.randomise import Rate, draws
from simulator.stats.tests import t_test

Level = Literal["life", "slate", "cascade", "place"]

_LATER = "that what an arm showed before changes nothing later"
_UNTESTED: dict[Level, str] = {
    "cascade": "that an answer depends on the items above, not on those below",
    "place": "that an answer depends on no other item of the slate",
}

LEVELS: dict[Level, str] = {
    "life": "nothing",
    "slate": _LATER,
    **{level: f"{_LATER}, and {also}" for level, also in _UNTESTED.items()},
}
"""What is assumed, the least first; said after `assumes`. What counts as one decision: all that a
user was shown until the request's end, the request's slate, its items down to the place, or the
item at the place.
"""

WHAT: dict[Level, str] = {
    "life": "requests, all before them included",
    "slate": "requests",
    "cascade": "places, all above them included",
    "place": "places",
}
"""The decisions of each level, in words."""

ADJUSTED = (0, 0, 3)
"""Of the columns of `ArmSums`: a split estimate that is adjusted by requests, as if the policies
decided nothing alike.
"""

WORTH = 1.1
"""A gain below this is none."""

OWN = 0.99
"""Share of an arm's requests that its policy must be able to have served, as the log says."""

CARRIED = 0.01
"""The arms carry over where answers to what both would have shown differ at this level."""


@dataclass(frozen=True)
class ArmSums:
    """Sums of the users of one arm, `[n]` each.

    Attributes:
        users: their numbers.
        reward: what they gave.
        differing: by level, their reward times the weight of its decision: 0 where both policies
            would have decided alike, 1 where only their own would (deterministic policies).
        decisions: the same of a reward of 1 for each slate. Where what was shown before changes
            nothing later, its expectation is the same in both arms.
        requests: how many.
        unlike: by level, total variation of the two policies, summed over requests.
        own: requests that the arm's policy may have served as the log says.
    """

    users: IntArray
    reward: DoubleArray
    differing: dict[Level, DoubleArray]
    decisions: dict[Level, DoubleArray]
    requests: DoubleArray
    unlike: dict[Level, DoubleArray]
    own: DoubleArray

    def rows(self, index: IntArray) -> ArmSums:
        """The users at `index`."""
        return ArmSums(
            self.users[index],
            self.reward[index],
            {level: one[index] for level, one in self.differing.items()},
            {level: one[index] for level, one in self.decisions.items()},
            self.requests[index],
            {level: one[index] for level, one in self.unlike.items()},
            self.own[index],
        )

    def columns(self, level: Level) -> list[DoubleArray]:
        """What an estimate is made of: reward, differing, decisions, requests."""
        return [self.reward, self.differing[level], self.decisions[level], self.requests]


@dataclass(frozen=True)
class PooledLift:
    """The lift of reward per user by the pooled estimator, beside that of the split test.

    Attributes:
        control, treatment: the arms.
        level: what is assumed (LEVELS).
        moments, split: of the pooled estimator, and of the plain comparison of the arms.
        low, high, split_low, split_high: Fieller intervals of both lifts.
        p: two-sided, of no difference; NaN where the policies decide alike everywhere.
        gain: variance of the plain split difference over that of the pooled one.
        alike: the part of the gain that deciding alike brings: variance of a split difference that
            is adjusted by the number of requests, as the pooled one is by that of decisions.
        variation: mean total variation of the two policies in a request.
        carry: p of the tests that what an arm showed before changes nothing later (`carry_over`).
        word, reasons: may it be believed, and is it worth reading?
    """

    control: str
    treatment: str
    level: Level
    moments: Moments
    split: Moments
    low: float
    high: float
    split_low: float
    split_high: float
    p: float
    gain: float
    alike: float
    variation: float
    carry: float
    word: Word
    reasons: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What it is worth, in words."""
        share = f"the policies decide alike in {1 - self.variation:.0%} of the {WHAT[self.level]}"
        if np.isinf(self.gain):
            return f"There is no difference at all: {share}."
        if self.alike < WORTH:
            return f"Nothing is gained by asking both policies: {share}; read the split estimate."
        by = ""
        if self.alike < 0.95 * self.gain:
            by = f", {self.alike:.1f} of them by deciding alike, the rest by the number of requests"
        return f"As sure as a split test of {self.gain:.1f} times as many users{by}: {share}."


def arm_sums(
    stream: Stream,
    control: Targets,
    treatment: Targets,
    shares: tuple[float, float],
    users: IntArray,
    progress: Progress = silent,
) -> ArmSums:
    """Ask both policies about every request of an arm.

    Args:
        stream: the requests of the arm, with the histories that policies are given.
        control, treatment: the two policies; the arm is that of the one with `stream.arm` as name.
        shares: of the users who are assigned to the two.
        users: who is in the arm, with or without requests.
        progress: told of requests.

    Raises:
        ReplayError: the arm is of neither policy.
    """
    names = control.name, treatment.name
    if stream.arm not in names:
        raise ReplayError(f"the arm {stream.arm!r} is of neither policy: {', '.join(names)}")
    own = names.index(stream.arm)
    sign = (-shares[0], shares[1])[own]
    n = stream.log.metadata.n_users
    sums: dict[str, DoubleArray] = {}

    def add(name: str, user: IntArray, values: DoubleArray) -> None:
        total: DoubleArray = np.bincount(user, weights=values, minlength=n).astype(np.float64)
        sums[name] = sums[name] + total if name in sums else total

    def weigh(level: Level, user: IntArray, chances: Chances, reward: DoubleArray) -> None:
        """Add decisions `[R, K]` with the chances that both policies make them."""
        first, second = chances
        mixed = shares[0] * first + shares[1] * second
        weight = np.divide(second - first, mixed, out=np.zeros(mixed.shape), where=mixed > 0)
        for kind, values in (
            ("differing", sign * (weight * reward).sum(axis=1)),
            ("decisions", sign * weight.mean(axis=1)),
            # Half the mean size of the weight over what both arms show is the total variation.
            ("unlike", 0.5 * np.abs(weight).mean(axis=1)),
        ):
            add(f"{kind} {level}", user, np.asarray(values))

    done, lives = 0, _Lives()
    for rounds in observed(stream):
        asked = control(rounds), treatment(rounds)
        total: DoubleArray = np.asarray(rounds.reward.sum(axis=1))
        add("reward", rounds.user, total)
        add("requests", rounds.user, np.ones(len(rounds)))
        mine = (asked[own].probability > 0).all(axis=1)
        add("own", rounds.user, np.asarray(mine, dtype=np.float64))
        for level in LEVELS:
            if level != "life":
                first, second = (_chances(one, level) for one in asked)
                weigh(level, rounds.user, (first, second), rounds.reward)
        first, second = (_chances(one, "slate")[:, 0] for one in asked)
        lives.add(rounds, total, first, second)
        done += len(rounds)
        progress(f"ask about {stream.arm}", done, 0, {})
    for user, reward, first, second in lives.by_request():
        weigh("life", user, (first[:, None], second[:, None]), reward[:, None])
    empty = np.zeros(n)
    got = {name: sums.get(name, empty)[users] for name in ("reward", "requests", "own")}
    differing, decisions, unlike = (
        {level: sums.get(f"{kind} {level}", empty)[users] for level in LEVELS}
        for kind in ("differing", "decisions", "unlike")
    )
    return ArmSums(users, got["reward"], differing, decisions, got["requests"], unlike, got["own"])


Chances = tuple[DoubleArray, DoubleArray]
"""The probabilities with which the control and the treatment make the logged decisions."""


class _Lives:
    """The requests of all users, to be multiplied along each user's life."""

    def __init__(self) -> None:
        self.parts: list[tuple[IntArray, IntArray, DoubleArray, DoubleArray, DoubleArray]] = []

    def add(
        self, rounds: Rounds, reward: DoubleArray, first: DoubleArray, second: DoubleArray
    ) -> None:
        assert rounds.histories is not None
        self.parts.append((rounds.user, rounds.histories.step, reward, first, second))

    def by_request(self) -> Iterator[tuple[IntArray, DoubleArray, DoubleArray, DoubleArray]]:
        """The first requests of all users, then the second ones, ...: user, reward, and the chances
        of all that the user was shown until then, over their larger one.
        """
        if not self.parts:
            return
        user, step, reward, first, second = map(np.concatenate, zip(*self.parts, strict=True))
        order = np.lexsort((step, user))
        user, reward, first, second = (one[order] for one in (user, reward, first, second))
        opens = np.append(True, user[1:] != user[:-1])
        starts = np.flatnonzero(opens)
        rank = np.arange(len(user)) - np.repeat(starts, np.diff(np.append(starts, len(user))))
        both = np.ones((int(user.max()) + 1, 2))
        turn = np.argsort(rank, kind="stable")
        for at in np.split(turn, np.cumsum(np.bincount(rank))[:-1]):
            moved = both[user[at]] * np.stack((first[at], second[at]), axis=1)
            # Only their ratio counts: scaled, so that a long life does not underflow.
            largest = moved.max(axis=1, keepdims=True)
            both[user[at]] = np.divide(moved, largest, out=moved, where=largest > 0)
            yield user[at], reward[at], both[user[at], 0], both[user[at], 1]


def _chances(target: Target, level: Level) -> DoubleArray:
    """The probability with which a target makes the logged decision that a place's answer rests on,
    `[R, K]`.
    """
    if level == "place":
        return target.probability
    running: DoubleArray = np.multiply.accumulate(target.probability, axis=1)
    if level == "cascade":
        return running
    return np.broadcast_to(running[:, -1:], running.shape)


def pooled_moments(control: Sample, treatment: Sample, adjusted: bool = True) -> Moments:
    """Moments of the control's mean and of that plus the pooled difference; leading axes are many
    samples at once.

    The difference is mean_t(Y) - mean_c(Y) with Y what each arm's users gave to decisions that only
    one of the policies makes: of both arms' requests together it is the mean of (pi_t - pi_c) /
    (mixture of both) times the reward, which is unbiased for the effect of the decisions (multiple
    importance sampling with the balance heuristic: Veach & Guibas, SIGGRAPH 1995; for A/B tests
    Sakhi, Gilotte & Rohde, KDD 2026, arXiv 2506.10677).

    Args:
        control, treatment: samples of (reward, differing, decisions, ...).
        adjusted: by the number N of such decisions with the slope of least variance, where its
            expectation is the same in both arms.
    """
    n, m = np.asarray(control.n, dtype=float), np.asarray(treatment.n, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = control.cov[..., 1, 2] / n + treatment.cov[..., 1, 2] / m
        spread = control.cov[..., 2, 2] / n + treatment.cov[..., 2, 2] / m
        slope = np.where((spread > 0) & adjusted, cross / spread, 0.0)
    here = np.zeros((*slope.shape, control.mean.shape[-1]))
    here[..., 1], here[..., 2] = 1.0, -slope
    base = np.zeros_like(here)
    base[..., 0] = 1.0
    moved = base - here
    v, w = control.variance(here), treatment.variance(here)
    means = [np.einsum("...i,...i->...", here, s.mean) for s in (control, treatment)]
    level = control.mean[..., 0]
    return Moments(
        level,
        level + means[1] - means[0],
        control.variance(base),
        control.variance(moved) + w,
        control.covariance(base, moved),
        moments.welch_df(v, w, n, m, int(adjusted)),
        n,
        m,
        False,
    )


def pooled_lift(
    names: tuple[str, str],
    control: ArmSums,
    treatment: ArmSums,
    level: Level,
    carry: float | None = None,
) -> PooledLift:
    """The lift of the users of two arms, with what speaks against it.

    Args:
        names: of the control and the treatment.
        control, treatment: the users of the arms, each user in one of them.
        level: what is assumed.
        carry: p of `carry_over`, where it is known of more users than these; None: of these.

    Raises:
        ReplayError: fewer than three users in an arm.
    """
    if min(len(control.users), len(treatment.users)) < 3:
        raise ReplayError("a pooled lift needs at least three users in each arm")
    both = [moments.sample(arm.columns(level)) for arm in (control, treatment)]
    found = pooled_moments(both[0], both[1], level != "life")
    split = moments.split_moments(both[0], both[1], 0, None)
    own, plain = intervals.fieller(found), intervals.fieller(split)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = float(np.divide(split.variance, found.variance))
    by_requests = split
    if level != "life":
        by_requests = pooled_moments(both[0].pick(ADJUSTED), both[1].pick(ADJUSTED))
    with np.errstate(divide="ignore", invalid="ignore"):
        alike = float(np.divide(by_requests.variance, found.variance))
    requests = control.requests.sum() + treatment.requests.sum()
    unlike = control.unlike[level].sum() + treatment.unlike[level].sum()
    variation = float(unlike / requests) if requests else float("nan")
    if carry is None:
        carry = carry_over(control, treatment, level)
    word, reasons = _judge(names, (control, treatment), alike, carry, level)
    return PooledLift(
        *names,
        level,
        found,
        split,
        float(own.low),
        float(own.high),
        float(plain.low),
        float(plain.high),
        float(t_test(found).p),
        gain,
        alike,
        variation,
        carry,
        word,
        reasons,
    )


def carry_over(control: ArmSums, treatment: ArmSums, level: Level) -> float:
    """p of the tests that what an arm showed before changes nothing later (Bonferroni): its users
    ask as often as the other's, are as often shown what the other policy would not have shown, and
    answer alike to what both would have. NaN for whole lives, which need none of it.

    Args:
        control, treatment: users of both arms; twins are compared pair by pair.
        level: of the decisions.
    """
    if level == "life":
        return float("nan")
    twins = np.array_equal(control.users, treatment.users)
    how = moments.paired if twins else moments.split
    pairs = [
        (arm.requests, arm.decisions[level], arm.reward - arm.differing[level])
        for arm in (control, treatment)
    ]
    p = [float(t_test(how(c, t)).p) for c, t in zip(*pairs, strict=True)]
    known = [one for one in p if np.isfinite(one)]
    return min(1.0, len(p) * min(known)) if known else 1.0


def _judge(
    names: tuple[str, str],
    arms: tuple[ArmSums, ArmSums],
    alike: float,
    carry: float,
    level: Level,
) -> tuple[Word, tuple[str, ...]]:
    """May it be believed, and is it worth reading?"""
    bad, poor = [], []
    for name, arm in zip(names, arms, strict=True):
        share = arm.own.sum() / max(arm.requests.sum(), 1.0)
        if share < OWN:
            bad.append(
                f"the policy of {name} would not have shown what the log says in {1 - share:.0%} of"
                " its requests: another version, seed, history or ranking stage?"
            )
    if carry < CARRIED:
        bad.append(
            f"what an arm showed before changes what comes later (p = {carry:.1g}: how often users"
            " ask, how often the policies differ, or answers to what both would have shown), and"
            " this estimate leaves that out"
        )
    if alike < WORTH:
        poor.append(f"deciding alike gains nothing (variance ratio {alike:.2f})")
    if level in _UNTESTED:
        poor.append(f"nothing here tests {_UNTESTED[level]}")
    word: Word = "trustworthy"
    if bad or poor:
        word = "unusable" if bad else "weak"
    return word, (*bad, *poor)


@dataclass(frozen=True)
class PooledAudit:
    """What the pooled estimator does where the truth is known: twins, who live in both arms.

    Attributes:
        level: what is assumed.
        n: users in each sample.
        error, split_error: false positives where both arms answer alike.
        coverage, split_coverage: of the twins' true lift.
        gain: mean variance of the split difference over the mean of the pooled one.
        alike: the same over a split difference that is adjusted by the number of requests.
        bias: mean pooled lift less the true lift.
        lift: the true lift.
    """

    level: Level
    n: int
    repetitions: int
    error: Rate
    split_error: Rate
    coverage: Rate
    split_coverage: Rate
    gain: float
    alike: float
    bias: float
    lift: float


@dataclass
class _Counts:
    """What a sample after the other said."""

    errors: list[DoubleArray] = field(default_factory=list)
    held: list[DoubleArray] = field(default_factory=list)
    variances: list[DoubleArray] = field(default_factory=list)
    lifts: list[DoubleArray] = field(default_factory=list)

    def add(self, null: Moments, effect: Moments, truth: float) -> None:
        p = t_test(null).p
        ends = intervals.fieller(effect)
        self.errors.append(np.asarray(p < 0.05))
        self.held.append(np.asarray((ends.low <= truth) & (truth <= ends.high)))
        self.variances.append(np.asarray(effect.variance))
        self.lifts.append(np.asarray(effect.lift))

    def rate(self, name: str) -> Rate:
        every = np.concatenate(getattr(self, name))
        return Rate.of(int(every.sum()), len(every))


def pooled_audit(
    control: ArmSums,
    treatment: ArmSums,
    n: int,
    repetitions: int = 2000,
    seed: int = 0,
    levels: Sequence[Level] = tuple(LEVELS),
) -> Iterator[PooledAudit]:
    """Re-randomise twins: `n` users are drawn with replacement, a coin gives each an arm.

    Under the null both arms answer as the control's users did.

    Args:
        control, treatment: sums of the same users in both arms, made with equal shares.
        n: users in a sample.
        repetitions: samples.
        seed: of the samples.
        levels: to audit.

    Raises:
        ReplayError: the arms are not twins.
    """
    if not np.array_equal(control.users, treatment.users):
        raise ReplayError("an audit needs twins: the same users in both arms")
    truth = float(moments.relative(control.reward.mean(), treatment.reward.mean()))
    for level in levels:
        pooled, split, adjusted = _Counts(), _Counts(), []
        for heads, tails in draws(len(control.users), n, repetitions, seed):
            here = moments.weighted(control.columns(level), heads)
            null, effect = (
                moments.weighted(arm.columns(level), tails) for arm in (control, treatment)
            )
            short = level != "life"
            pooled.add(
                pooled_moments(here, null, short), pooled_moments(here, effect, short), truth
            )
            by_requests = pooled_moments(here.pick(ADJUSTED), effect.pick(ADJUSTED), short)
            adjusted.append(np.asarray(by_requests.variance))
            split.add(
                moments.split_moments(here, null, 0, None),
                moments.split_moments(here, effect, 0, None),
                truth,
            )
        ours, theirs = (np.concatenate(one.variances) for one in (pooled, split))
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = float(np.divide(theirs.mean(), ours.mean()))
            alike = float(np.divide(np.concatenate(adjusted).mean(), ours.mean()))
        yield PooledAudit(
            level,
            n,
            repetitions,
            pooled.rate("errors"),
            split.rate("errors"),
            pooled.rate("held"),
            split.rate("held"),
            gain,
            alike,
            float(np.concatenate(pooled.lifts).mean() - truth),
            truth,
        )


def halves(control: ArmSums, treatment: ArmSums, seed: int) -> tuple[ArmSums, ArmSums]:
    """Twins as a split test: each user in one of the arms, by a coin."""
    heads = np.random.default_rng(seed).random(len(control.users)) < 0.5
    return control.rows(np.flatnonzero(heads)), treatment.rows(np.flatnonzero(~heads))
