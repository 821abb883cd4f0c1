"""One replay: rounds x target policies x estimators -> estimates with intervals, diagnostics and
verdicts.

Three passes over the log at most, a chunk at a time: a survey (and the reward model), the targets,
the model's own error.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from policies.base import DoubleArray, IntArray, Progress
from simulator.offpolicy.diagnostics import EstimateVerdict, Findings, Weights, Word
from simulator.offpolicy.estimators import Estimator, Scope
from simulator.offpolicy.evidence import Evidence, ReplayFacts
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.settings import DEFAULT, ESTIMATORS, ReplayError, ReplaySettings
from simulator.offpolicy.sums import UnitSums
from simulator.offpolicy.survey import Survey, observed, survey
from simulator.offpolicy.target import Targets
from simulator.offpolicy.uncertainty import (
    EstimateInterval,
    FirstOrder,
    Ratios,
    bernstein,
    bootstrap,
    delta,
    percentile,
)

__all__ = ["ESTIMATORS", "Estimate", "Evaluation", "ReplayError", "ReplaySettings", "evaluate"]


class CurvePoint(NamedTuple):
    """An estimate at one threshold of its family: value, standard error, bound on the bias."""

    threshold: float
    value: float
    error: float
    bias: float


@dataclass(frozen=True)
class Estimate:
    """One estimator's answer for one policy, or why it gave none.

    Attributes:
        policy, estimator: names.
        value: reward per `unit` (request or impression); NaN where nothing matched or the estimator
            refused.
        count: what the value rests on: matched impressions (0: the value is NaN), or rounds.
        error: standard error, clustered by user.
        intervals: `delta`, `bootstrap` and, where it applies, `bernstein`.
        threshold: chosen by the least estimated mean squared error, for estimators that have one.
        bias: bound on the estimator's own bias at that threshold, which widens its intervals.
        curve: the same for every threshold: the sensitivity to it.
        verdict: may I believe this?
        refused: why the estimator did not run, or None.
        first_order: the estimate by its units, and of one with a threshold also the unbiased
            member's; what lifts are made of.
        variate: the estimator's control variate by its units, whose expectation is 0; None: it has
            none.
    """

    policy: str
    estimator: str
    paper: str
    unit: str
    value: float = float("nan")
    count: float = 0.0
    error: float = float("nan")
    intervals: tuple[EstimateInterval, ...] = ()
    threshold: float | None = None
    bias: float = 0.0
    curve: tuple[CurvePoint, ...] = ()
    verdict: EstimateVerdict | None = None
    refused: str | None = None
    first_order: tuple[FirstOrder, ...] = field(default=(), repr=False, compare=False)
    variate: FirstOrder | None = field(default=None, repr=False, compare=False)

    @property
    def word(self) -> Word | None:
        """The verdict in a word; None where nothing was estimated."""
        return None if self.verdict is None else self.verdict.word

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is no better."""
        return () if self.verdict is None else self.verdict.reasons

    def interval(self, method: str = "bootstrap") -> EstimateInterval:
        return next(
            (i for i in self.intervals if i.method == method),
            EstimateInterval(method, float("nan"), float("nan")),
        )


@dataclass(frozen=True)
class Evaluation:
    """What a replay found of one policy.

    Attributes:
        policy: its name.
        facts: what decided which estimators ran.
        estimates: in the order asked for.
        weights: summary of its weights.
        mean_weight: mean weight of whole slates, should be 1, with its interval.
        logged: the log's own reward per request, with its interval: the value of the policy that
            wrote the log.
        unobserved: rounds left out because a reward was not observed.
        own: the log's own mean reward by its units, per `request` and per `impression`.
    """

    policy: str
    facts: ReplayFacts
    estimates: tuple[Estimate, ...]
    weights: Weights
    mean_weight: EstimateInterval
    logged: Estimate
    unobserved: int
    own: Mapping[str, FirstOrder] = field(default_factory=dict, repr=False, compare=False)

    def beside(self, more: Iterable[Estimate]) -> Evaluation:
        """With further estimates, after the others."""
        return replace(self, estimates=(*self.estimates, *more))

    def __getitem__(self, estimator: str) -> Estimate:
        return next(e for e in self.estimates if e.estimator == estimator)

    @property
    def precedence(self) -> tuple[str, ...]:
        """The estimators that ran, the one to read first first, by a fixed order: doubly robust for
        the log's kind of slate, then weights, then matching; without propensities the doubly robust
        estimate by clicks, where it is not unusable, then matching. Others are not among them.
        """
        order = ("dr", "ips") if self.facts.length == 1 else ("cascade_dr", "rips", "iips")
        last: tuple[str, ...] = ("matching", "recalled")
        if self.facts.kind == "unknown":
            believed = any(
                e.estimator == "cdr" and e.word not in (None, "unusable") for e in self.estimates
            )
            last = ("cdr", "recalled", "matching") if believed else ("recalled", "matching")
        ran = {e.estimator for e in self.estimates if e.refused is None}
        return tuple(name for name in (*order, *last) if name in ran)

    @property
    def headline(self) -> Estimate:
        """The estimate to read first (`precedence`)."""
        return self[self.precedence[0]] if self.precedence else self.estimates[0]


def evaluate(
    rounds: Iterable[Rounds],
    targets: Sequence[Targets],
    n_users: int,
    n_items: int,
    settings: ReplaySettings = DEFAULT,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Estimate the value of every target on the same rounds.

    Args:
        rounds: can be iterated more than once (a `Stream`, a list).
        targets: the policies, asked chunk by chunk.
        n_users: users are 0..n_users-1.
        n_items: items are 1..n_items.
        settings: estimators, resamples, folds.
        progress: called after every chunk as (stage, rounds done, rounds in all, {}).

    Returns:
        One `Evaluation` for each target, in order.

    Raises:
        LogError: a broken row. ReplayError: no rounds.
    """
    known = survey(rounds, n_items, settings, progress)
    cases = [_Case(target, known, n_users, settings) for target in targets]
    done = 0
    for chunk in observed(rounds):
        if len(chunk):
            for case in cases:
                case.add(chunk)
            done += len(chunk)
            if progress is not None:
                progress("replay", done, known.rounds, {})
    owing = [case for case in cases if case.shown or case.kind_mass]
    done = 0
    for chunk in observed(rounds) if owing else ():
        for case in owing:
            case.add_influence(chunk)
        done += len(chunk)
        if progress is not None:
            progress("model error", done, known.rounds, {})
    return [case.finish() for case in cases]


class _Case:
    """One target under way: sums over units of every estimator's terms."""

    def __init__(
        self, target: Targets, known: Survey, n_users: int, settings: ReplaySettings
    ) -> None:
        self.target, self.known, self.settings = target, known, settings
        self.sums = UnitSums(n_users, settings.units)
        self.weights = Weights(known.model.n_items)
        self.by_scope: dict[Scope, Weights] = {}
        self.facts: ReplayFacts | None = None
        self.refused: dict[str, str] = {}
        self.running: list[Estimator] = []
        self.mass: DoubleArray | None = None
        self.shown: dict[str, DoubleArray] = {}
        self.kind_mass: dict[str, DoubleArray] = {}
        self.terms: dict[str, int] = {}
        self.checks: dict[str, tuple[str, ...]] = {}

    def add(self, chunk: Rounds) -> None:
        """Ask the target about a chunk, and add every estimator's terms."""
        known = self.known
        e = Evidence(chunk, self.target(chunk), known.model, known.kinds, self.settings.clusters)
        if self.facts is None:
            self._decide(e)
        unit = self.sums.unit(chunk.user)
        weight = self._slate_weight(e)
        self.weights.add(e, weight)
        self.sums.add(
            unit,
            {
                "rounds": np.ones(len(chunk)),
                "impressions": np.full(len(chunk), float(chunk.length)),
                "reward": e.total,
                "weight": np.nan_to_num(weight),
            },
        )
        self._add_scopes(unit, e)
        self._add_asides(unit, e)
        for estimator in self.running:
            for i, (above, below) in enumerate(estimator.ratios(e)):
                label = estimator.label
                self.terms[label] = i + 1
                self.sums.add(
                    unit,
                    {(label, "above", i): above}
                    | ({} if below is None else {(label, "below", i): below}),
                )
        self._add_gradients(e)
        if self.settings.modelled and chunk.kind != "unknown":
            self.sums.add(unit, {"residual": weight * e.residual})

    def _add_scopes(self, unit: IntArray, e: Evidence) -> None:
        """Add the weights of whatever the estimators weigh beside whole slates."""
        for scope in sorted({estimator.scope for estimator in self.running} - {"slates"}):
            mean = e.mean_item_weight if scope == "items" else e.mean_cluster_weight
            self.by_scope.setdefault(scope, Weights(self.known.model.n_items)).add(e, mean)
            self.sums.add(unit, {("mean weight", scope): mean})

    def _add_asides(self, unit: IntArray, e: Evidence) -> None:
        """Add the control variate of every estimator that has one, and what it is judged by."""
        for name in self.settings.estimators:
            if name in self.refused:
                continue
            first = self.settings.family(name)[0]
            variate = first.control_variate(e)
            if variate is not None:
                self.sums.add(unit, {(name, "variate"): variate})
            columns = first.checks(e)
            self.checks[name] = tuple(columns)
            self.sums.add(unit, {(name, "check", key): value for key, value in columns.items()})

    def _add_gradients(self, e: Evidence) -> None:
        """Add how often the target shows each cell of the model, and with which weight each
        estimator corrects it.
        """
        for level in {one.level for one in self.running if one.level is not None}:
            kinds = self.known.kinds[level]
            shows = kinds.table.mass(kinds.rounds(e.rounds), kinds.target(e.target))
            self.kind_mass[level] = self.kind_mass.get(level, 0.0) + shows
        model = self.known.model
        modelled = [one for one in self.running if one.model and one.moves_with_model]
        if not modelled:
            return
        mass = model.mass(e.rounds, e.target)
        self.mass = mass if self.mass is None else self.mass + mass
        for estimator in modelled:
            self.shown[estimator.label] = self.shown.get(estimator.label, 0.0) + model.shown(
                e.rounds, estimator.trust(e)
            )

    def _gradient(self, label: str) -> DoubleArray:
        """Derivative of an estimator's total with respect to each cell of the model."""
        assert self.mass is not None
        normalised = next(
            estimator.normalised for estimator in self.running if estimator.label == label
        )
        scale = 1.0
        if normalised:
            weight = self.sums[label, "below", self.terms[label] - 1].sum()
            scale = self.sums["rounds"].sum() / weight if weight > 0 else 1.0
        moved: DoubleArray = self.mass - scale * self.shown[label]
        return moved

    def _slate_weight(self, e: Evidence) -> DoubleArray:
        """Weight of the whole slate; the mean weight of its places where only marginal propensities
        are known.
        """
        if e.rounds.kind == "marginal" and e.rounds.length > 1:
            mean: DoubleArray = e.step.mean(axis=1)
            return mean
        return e.weight

    def _decide(self, e: Evidence) -> None:
        """Which estimators are right for this log and target."""
        t, known = e.target, self.known
        self.facts = ReplayFacts(
            known.kind,
            known.length,
            known.uniform,
            t.foretells,
            t.recalled is not None,
            self.settings.clusters is not None,
        )
        for name in self.settings.estimators:
            members = self.settings.family(name)
            why = members[0].refuses(self.facts)
            if why is None:
                self.running.extend(members)
            else:
                self.refused[name] = why

    def add_influence(self, chunk: Rounds) -> None:
        """Add what each round does to the fitted model, and by it to the estimates."""
        unit = self.sums.unit(chunk.user)
        if self.shown:
            moved = self.known.model.influence(chunk, self._gradients)
            self.sums.add(
                unit,
                {(label, "shift", 0): row for label, row in zip(self.shown, moved, strict=True)},
            )
        for estimator in self.running:
            if estimator.level is not None:
                kinds, mass = self.known.kinds[estimator.level], self.kind_mass[estimator.level]
                (row,) = kinds.table.influence(kinds.rounds(chunk), mass[None])
                self.sums.add(unit, {(estimator.label, "shift", 0): row})

    @cached_property
    def _gradients(self) -> DoubleArray:
        """The derivative of every modelled estimator's total, once the targets have been asked
        about all rounds.
        """
        return np.stack([self._gradient(label) for label in self.shown])

    def finish(self) -> Evaluation:
        """Intervals and verdicts from the sums."""
        assert self.facts is not None
        self.present = self.sums["rounds"] > 0
        ratios = {estimator.label: self._ratios(estimator) for estimator in self.running}
        chosen = {
            name: self._choose(name, ratios)
            for name in self.settings.estimators
            if name not in self.refused
        }
        own = Ratios(self._column("reward"), self._column("rounds"))
        wanted = [one for pick in chosen.values() for one in pick.both()]
        resampled = bootstrap([*wanted, own], self.settings.resamples, self.settings.seed)
        mean_weight = self._mean_weight("weight")
        by_scope = {"slates": (self.weights, mean_weight)} | {
            scope: (weights, self._mean_weight(("mean weight", scope)))
            for scope, weights in self.by_scope.items()
        }
        residual = self._residual()
        estimates, at = [], 0
        for name in self.settings.estimators:
            first = self.settings.family(name)[0]
            if name in self.refused:
                estimates.append(
                    Estimate(
                        self.target.name, name, first.paper, first.unit, refused=self.refused[name]
                    )
                )
                continue
            pick = chosen[name]
            own_interval = delta(pick.ratios, self.settings.level)
            count = float(pick.ratios.denominators.sum())
            checks = {key: self._column((name, "check", key))[:, 0] for key in self.checks[name]}
            weights = by_scope[pick.estimator.scope]
            verdict = pick.estimator.judge(
                Findings(self.facts, *weights, residual, own_interval, count, checks)
            )
            estimates.append(
                self._estimate(name, pick, resampled[at : at + len(pick.both())], verdict)
            )
            at += len(pick.both())
        intervals = (
            percentile(resampled[-1], self.settings.level),
            delta(own, self.settings.level),
        )
        logged = Estimate(
            "log",
            "mean",
            "",
            "request",
            own.value,
            float(own.denominators.sum()),
            own.error(),
            intervals,
        )
        return Evaluation(
            self.target.name,
            self.facts,
            tuple(estimates),
            self.weights,
            mean_weight,
            logged,
            self.known.unobserved,
            {
                "request": own.first_order(),
                "impression": Ratios(
                    self._column("reward"), self._column("impressions")
                ).first_order(),
            },
        )

    def _mean_weight(self, name: Hashable) -> EstimateInterval:
        """The mean of a round's weight, which should be 1."""
        return delta(Ratios(self._column(name), self._column("rounds")), self.settings.level)

    def _column(self, name: Any) -> DoubleArray:
        return self.sums[name][self.present][:, None]

    def _ratios(self, estimator: Estimator) -> Ratios:
        label, count = estimator.label, self.terms[estimator.label]
        above = [self._column((label, "above", i)) for i in range(count)]
        below = [
            self._column((label, "below", i) if (label, "below", i) in self.sums else "rounds")
            for i in range(count)
        ]
        moved = (label, "shift", 0)
        shift = self._column(moved)[:, 0] if moved in self.sums else None
        return Ratios(np.concatenate(above, axis=1), np.concatenate(below, axis=1), shift)

    def _choose(self, name: str, ratios: Mapping[str, Ratios]) -> _Pick:
        """The member with the least estimated mean squared error: variance + a bound from above on
        the squared bias.

        The bias is the distance from the unbiased member; its bound adds the variance of that
        distance, so the choice leans towards the unbiased member (Wang, Agarwal & Dudík 2017,
        section 4, bound the bias from above too).
        """
        members = self.settings.family(name)
        if len(members) == 1:
            return _Pick(members[0], ratios[members[0].label])
        last = ratios[members[-1].label]
        if np.isinf(members[0].threshold):
            return _Pick(members[0], ratios[members[0].label], last)
        curve, errors = [], []
        for member in members:
            one = ratios[member.label]
            bound = float(np.hypot(one.value - last.value, one.distance_error(last)))
            curve.append(CurvePoint(member.threshold, one.value, one.error(), bound))
            errors.append(one.error() ** 2 + bound**2)
        best = int(np.argmin(errors))
        threshold, _, _, bound = curve[best]
        return _Pick(
            members[best], ratios[members[best].label], last, threshold, bound, tuple(curve)
        )

    def _residual(self) -> EstimateInterval:
        """Of the mean weighted residual of the reward model; NaN where there is none."""
        if "residual" not in self.sums:
            return EstimateInterval("delta", float("nan"), float("nan"))
        return delta(Ratios(self._column("residual"), self._column("rounds")), self.settings.level)

    def _estimate(
        self, name: str, pick: _Pick, resampled: DoubleArray, verdict: EstimateVerdict
    ) -> Estimate:
        value, error, intervals = pick.ratios.value, float("nan"), tuple[EstimateInterval, ...]()
        if np.isfinite(value) and len(pick.ratios.numerators) > 1:
            error = pick.ratios.error()
            intervals = pick.intervals(resampled, self.settings.level)
        e, count = pick.estimator, float(pick.ratios.denominators[:, 0].sum())
        figures = (value, count, error, intervals, pick.threshold, pick.bound, pick.curve, verdict)
        return Estimate(
            self.target.name,
            name,
            e.paper,
            e.unit,
            *figures,
            first_order=tuple(one.first_order() for one in pick.both()),
            variate=self._variate(name),
        )

    def _variate(self, name: str) -> FirstOrder | None:
        """The control variate of an estimator, less its expectation."""
        if (name, "variate") not in self.sums:
            return None
        mean = Ratios(self._column((name, "variate")), self._column("rounds"))
        return FirstOrder(mean.value - 1.0, mean.influence())


@dataclass(frozen=True)
class _Pick:
    """The member of a family that was chosen, and the unbiased member that judged it."""

    estimator: Estimator
    ratios: Ratios
    judge: Ratios | None = None
    threshold: float | None = None
    bound: float = 0.0
    curve: tuple[CurvePoint, ...] = ()

    def both(self) -> list[Ratios]:
        return [self.ratios] if self.judge is None else [self.ratios, self.judge]

    def intervals(self, resampled: DoubleArray, level: float) -> tuple[EstimateInterval, ...]:
        """By bootstrap (from `resampled` `[1 or 2, B]`), delta method and empirical Bernstein.

        A threshold was chosen on the same log that it is applied to, so the intervals of the chosen
        member alone cover less often than they say (90% in a world whose truth is known): the hull
        with those of the unbiased member is given.
        """
        each = [
            (percentile(r, level), delta(one, level), bernstein(one, level))
            for one, r in zip(self.both(), resampled, strict=True)
        ]
        if len(each) > 1:
            return tuple(own.hull(*rest) for own, *rest in zip(*each, strict=True))
        return each[0]
