"""Rollout: what a policy would get if it served the replayed days itself: each user meets it again
and again, and what it has shown is not there to be shown again.

Estimators that weigh a log judge a policy on the histories that the logging policy has made. A feed
that does not repeat itself exhausts its own good items, not the log's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import Catalogue, DoubleArray, Histories, IntArray, Progress, Sequences, silent
from policies.context import is_of_request
from policies.streams import Purpose, uniform
from simulator.engine.lives import ShardLives
from simulator.offpolicy.answers import AnswerModel, AnswerRows, ModelEvidence
from simulator.offpolicy.diagnostics import (
    COVERAGE,
    ENOUGH_SAMPLE,
    LEAST_SAMPLE,
    EstimateVerdict,
    Findings,
    Weights,
    Word,
    weighted,
)
from simulator.offpolicy.evidence import Evidence, ReplayFacts
from simulator.offpolicy.jobs import target
from simulator.offpolicy.replay import Estimate
from simulator.offpolicy.rounds import Rounds, Stream
from simulator.offpolicy.settings import BY_SERVING, ROLLOUT, ROLLOUT_DR, ReplaySettings
from simulator.offpolicy.sums import UnitSums
from simulator.offpolicy.survey import observed
from simulator.offpolicy.uncertainty import (
    EstimateInterval,
    Ratios,
    bootstrap,
    delta,
    percentile,
)
from simulator.serving.desk import Desk
from simulator.users.base import Feedback


@dataclass(frozen=True)
class Requests:
    """The requests of the replayed days, in the order of user and time.

    Attributes:
        user, step, length: `[R]` who, the number of the request in the user's life, impressions.
        turn: `[R]` its number among the user's requests of these days, from 0.
        t: `[R]` ms.
        context: `[R]` by path, what policies ask for of the requests themselves.
    """

    user: IntArray
    step: IntArray
    length: IntArray
    turn: IntArray
    t: IntArray
    context: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def of(cls, chunks: Iterable[Rounds]) -> Requests:
        """Those of rounds with histories."""
        parts = []
        for rounds in chunks:
            assert rounds.histories is not None, "rounds with histories: Stream(history=...)"
            length, context = np.full(len(rounds), rounds.length), rounds.histories.context()
            told = {path: context[path] for path in context if is_of_request(path)}
            parts.append(
                {"user": rounds.user, "step": rounds.histories.step, "length": length}
                | {"t": rounds.t, **told}
            )
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.lexsort((whole["step"], whole["user"]))
        whole = {name: values[order] for name, values in whole.items()}
        user, step, length, t = (whole.pop(name) for name in ("user", "step", "length", "t"))
        first = np.flatnonzero(np.diff(user, prepend=-1))
        turn = np.arange(len(user)) - np.repeat(first, np.diff(np.append(first, len(user))))
        return cls(user, step, length, turn, t, whole)

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Course:
    """What came of one policy.

    Attributes:
        total: `[n_users]` expected reward of all requests of each user.
        without: `[folds]` expected reward of all requests by the model without each fold.
        plain: the same by the model's scores alone.
        known: share of what was shown that the log has shown to anybody.
    """

    total: DoubleArray
    without: DoubleArray
    plain: float
    known: float


@dataclass(frozen=True)
class Rollout:
    """The replayed days, to be lived through by one policy after the other: the direct method of
    off-policy evaluation, by simulation in a model of the log.

    Answers are drawn from the model of clicks (they make the histories), with random numbers keyed
    by user, request and item, so that policies that show the same get the same; what is added up is
    the expected reward. The model is of the log alone, and no world is asked.

    Attributes:
        stream: the rounds of these days, with the histories that policies are given.
        past: every user's impressions before these days.
        requests: of these days, as the log has them: how often a user comes and how much is shown
            are taken as they were.
        click: a fitted model of clicks.
        reward: a fitted model of what is counted.
        seed: of the answers.
    """

    stream: Stream
    past: Sequences
    requests: Requests
    click: AnswerModel
    reward: AnswerModel
    seed: int

    @classmethod
    def of(
        cls, stream: Stream, past: Sequences, catalogue: Catalogue, seed: int, progress: Progress
    ) -> Rollout:
        """The days of a stream, with models fitted to the whole log of its arm, these days
        included: what users answered to others is what is asked.

        Args:
            stream: the rounds, with the histories that policies are given.
            past: every user's impressions before them.
            catalogue: groups of items.
            seed: of the models and the answers.
            progress: told of the fits.
        """
        whole = replace(stream, since=None, history=1, seen=None, contexts=1)
        models = {}
        for name in dict.fromkeys(("click", stream.reward)):
            rows = AnswerRows.of(replace(whole, reward=name))
            models[name] = AnswerModel(catalogue, seed).fit(rows, progress)
        days = Requests.of(replace(stream, history=1, seen=None, contexts=1))
        click, reward = models["click"], models[stream.reward]
        return cls(stream, past, days, click, reward, seed)

    def run(self, desks: Sequence[Desk], progress: Progress = silent) -> Course:
        """Let a policy serve all requests: by one desk, or by one for each of its fits, with which
        users live as the stream says.

        Raises:
            ServingError: the policy raised or broke its contract.
        """
        asked, n_users = self.requests, len(self.past)
        total, without, shows = np.zeros(n_users), np.zeros(self.reward.folds), np.zeros(2)
        plain = 0.0
        everyone, never = np.arange(n_users), np.zeros(n_users, dtype=np.int64)
        history = self.stream.history
        seen = history if self.stream.seen is None else self.stream.seen
        asks = self.stream.context
        lives = ShardLives.born(everyone, never, max(history, seen), asks)
        lives = lives.with_past(self.past)
        turns = int(asked.turn.max(initial=-1)) + 1
        for turn in range(turns):
            at = np.flatnonzero(asked.turn == turn)
            who, step, length = asked.user[at], asked.step[at], asked.length[at]
            lives.step[who] = step
            k = int(length.max())
            request = {path: values[at] for path, values in asked.context.items()}
            slates = self._serve(desks, who, lives.histories(who, history, seen, request), k)
            items = np.where(np.arange(k) < length[:, None], slates, 0)
            t = asked.t[at]
            expected = self.reward.expect(who, items, t)
            total[who] += expected.reward.sum(axis=1)
            without += expected.without.sum(axis=(1, 2))
            plain += float(expected.plain.sum())
            shows += self.reward.evidence.shown[items].sum(), (items > 0).sum()
            chance = expected.reward
            if self.click is not self.reward:
                chance = self.click.expect(who, items, t).reward
            noise = uniform(self.seed, Purpose.CLICK, who[:, None], step[:, None], items)
            click = (noise < chance).astype(np.int8)
            filled = (items > 0).sum(axis=1).astype(np.int64)
            unknown = np.full(click.shape, np.nan, dtype=np.float32)
            ends = np.zeros(len(who), dtype=np.bool_)
            lives.remember(who, items, Feedback(click, unknown, filled, t, ends), t)
            progress(f"roll out {desks[0].arm}", turn + 1, turns, {})
        return Course(total, without, plain, float(shows[0] / max(shows[1], 1.0)))

    def _serve(
        self, desks: Sequence[Desk], who: IntArray, histories: Histories, k: int
    ) -> IntArray:
        """The slates `[B, k]` of users by the desk of each."""
        if len(desks) == 1:
            return desks[0].filling(k).serve(histories, k).slates.items
        assert self.stream.fit_of_user is not None, "several fits: the stream says whose users"
        fit, items = self.stream.fit_of_user[who], np.zeros((len(who), k), dtype=np.int64)
        for one, desk in enumerate(desks):
            mine = fit == one
            items[mine] = desk.filling(k).serve(histories.rows(mine), k).slates.items
        return items

    def correction(self, name: str, desks: Sequence[Desk], settings: ReplaySettings) -> Correction:
        """How far the model is from the logged rewards of what the policy would show, too.

        Args:
            name: of the policy.
            desks: ask it, one or one for each fit.
            settings: of the units.
        """
        ask, weights = target(name, desks), Weights(self.reward.catalogue.n_items)
        sums = UnitSums(len(self.past), settings.units)
        facts = None
        for rounds in observed(self.stream):
            if not len(rounds):
                continue
            e = Evidence(rounds, ask(rounds))
            facts = facts or ReplayFacts(rounds.kind, rounds.length)
            missed = e.item_weight * (rounds.reward - self.reward.expect_logged(rounds))
            weights.add(e, e.mean_item_weight)
            columns = {"missed": missed.sum(axis=1), "weight": e.mean_item_weight}
            columns["rounds"] = np.ones(len(rounds))
            sums.add(sums.unit(rounds.user), columns)
        assert facts is not None, "the requests were read from these rounds"
        return Correction(facts, weights, sums)

    def estimates(
        self,
        name: str,
        desks: Sequence[Desk],
        settings: ReplaySettings,
        progress: Progress = silent,
    ) -> list[Estimate]:
        """The policy's reward per request as the model has it, and corrected by the log.

        Three errors are counted: that these users are a sample; that the model is fitted, by
        leaving out each fold of its requests (delete-a-group jackknife: Kott, Journal of Official
        Statistics 2001); and that it is one model among several, by how far the estimate is from
        that of its scores alone: what one more step of modelling has moved, another may move. Not
        counted is what no such model can express. The corrected estimate does not rest on it where
        the log's weights do; there, too, the correction is that of the log's histories, for the
        policy's own.

        Args:
            name: of the policy.
            desks: ask it, one or one for each fit.
            settings: resamples, level, seed, units.
            progress: told of every turn.
        """
        course, n_users = self.run(desks, progress), len(self.past)
        sums = UnitSums(n_users, settings.units)
        counts = np.bincount(self.requests.user, minlength=n_users).astype(np.float64)
        sums.add(sums.unit(np.arange(n_users)), {"reward": course.total, "requests": counts})
        asked = sums["requests"] > 0
        reward, requests = sums["reward"][asked], sums["requests"][asked]
        # The folds stand beside the users as units of their own: their effects add up to nothing,
        # and the sum of their squares is the variance of the jackknife.
        # So does the step from the scores alone, as two units whose effects add up to nothing:
        # policies that it moves alike are told apart as well as before.
        folds = len(course.without)
        moved = (course.without - course.without.mean()) * np.sqrt((folds - 1) / folds)
        step = (course.plain - course.total.sum()) / np.sqrt(2)
        moved = np.concatenate((moved, [step, -step]))
        plain = Ratios(
            np.concatenate((reward, moved))[:, None],
            np.concatenate((requests, np.zeros(len(moved))))[:, None],
        )
        verdict = judge(self.reward.evidence, course.known)
        found = [self._made(name, ROLLOUT, plain, verdict, settings)]
        if not self.reward.evidence.drawn:
            why = "the log's propensities are unknown"
            return [*found, refused(name, ROLLOUT_DR, why)]
        said = self.correction(name, desks, settings)
        both = Ratios(
            np.stack((reward, said.sums["missed"][asked]), axis=1),
            np.stack((requests, said.sums["rounds"][asked]), axis=1),
        )
        own, column = delta(both, settings.level), said.sums["weight"][asked][:, None]
        mean_weight = delta(Ratios(column, both.denominators[:, 1:]), settings.level)
        nothing = EstimateInterval("delta", float("nan"), float("nan"))
        findings = Findings(
            said.facts, said.weights, mean_weight, nothing, own, float(len(self.requests))
        )
        verdict = weighted(findings, self_normalised=False)
        return [*found, self._made(name, ROLLOUT_DR, both, verdict, settings)]

    def _made(
        self,
        name: str,
        estimator: str,
        ratios: Ratios,
        verdict: EstimateVerdict,
        settings: ReplaySettings,
    ) -> Estimate:
        (resampled,) = bootstrap([ratios], settings.resamples, settings.seed)
        intervals = percentile(resampled, settings.level), delta(ratios, settings.level)
        figures = (ratios.value, float(len(self.requests)), ratios.error(), intervals)
        return Estimate(
            name,
            estimator,
            BY_SERVING[estimator],
            "request",
            *figures,
            verdict=verdict,
            first_order=(ratios.first_order(),),
        )


@dataclass(frozen=True)
class Correction:
    """What the log says of a model on the slates of one policy.

    Attributes:
        facts: of the log.
        weights: summary of the weights of items.
        sums: by unit: `missed`, the weighted residuals (Des Raj 1956); `weight`, the mean weight;
            `rounds`.
    """

    facts: ReplayFacts
    weights: Weights
    sums: UnitSums


def refused(policy: str, estimator: str, why: str) -> Estimate:
    """An estimate that rests on the serving and was not made, and why."""
    return Estimate(policy, estimator, BY_SERVING[estimator], "request", refused=why)


def judge(evidence: ModelEvidence, known: float) -> EstimateVerdict:
    """May a rollout be believed? At best it is weak, as all that rests on a model.

    Args:
        evidence: what the log says of the model.
        known: share of what the policy shows that the log has shown to anybody.
    """
    bad, poor = [], []
    off = f"{evidence.error:+.0%} ± {1.96 * evidence.deviation:.0%}"
    if not evidence.drawn:
        bad.append("the log's propensities are unknown: nothing corrects the model for its choices")
    elif evidence.effective < LEAST_SAMPLE:
        bad.append(f"impressions drawn by chance are worth {evidence.effective:.0f} only")
    elif evidence.effective < ENOUGH_SAMPLE:
        poor.append(f"impressions drawn by chance are worth {evidence.effective:.0f} only")
    if abs(evidence.error) > 1.96 * evidence.deviation:
        bad.append(f"the log contradicts the model: off by {off} where it promises most")
    else:
        poor.append(f"as good as its model, which is off by {off} where it promises most")
    if known < COVERAGE:
        poor.append(f"the log shows only {known:.0%} of what the target shows")
    word: Word = "unusable" if bad else "weak"
    return EstimateVerdict(word, (*bad, *poor))
