"""The paper's claims as comparisons of two systems: over all users, and where the difference comes
from. Nothing is run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.page.blocks import (
    Block,
    Cell,
    Heading,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.words import between, probability, score, signed_score, two, whole
from simulator.reproduce.experiment import Dataset, Floats, Results
from simulator.reproduce.result_tables import interval, paired_t
from simulator.stats import intervals
from simulator.stats.moments import Moments, paired
from simulator.stats.segments import heterogeneity
from simulator.stats.tests import adjust, t_test

Groups = dict[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Claim:
    """One system is said to be better than another.

    Attributes:
        says: where the paper says it.
        worse: system.
        better: system.
    """

    says: str
    worse: str
    better: str


CLAIMS = (
    Claim("Table 2: tuning helps", "Pre-train", "Fine-tuning"),
    Claim("Table 2: prompts help", "Fine-tuning", "RecGPT K=1 10_0"),
    Claim("Table 2: a second step helps", "RecGPT K=1 10_0", "RecGPT K=1 9_1"),
    Claim("Table 2: all of it helps", "Pre-train", "RecGPT K=1 9_1"),
    Claim("Table 3: two steps hurt without tuning", "Pre-train 9_1", "Pre-train"),
    Claim("Fig. 5, 6: 9:1 is better than 5:5", "RecGPT K=1 5_5", "RecGPT K=1 9_1"),
    Claim("network alone: ours is better than SASRec", "SASRec sampled", "Best pre-train network"),
    Claim("pooled: ours is better than SASRec", "SASRec pooled", "Best pre-train"),
    Claim("committee: ours is better than SASRec's", "SASRec committee", "Best committee"),
    Claim(
        "committee: a second step in expectation helps", "Best committee", "Best committee marginal"
    ),
    Claim("committee: the pool helps", "Best committee network", "Best committee"),
    Claim("best network: the pool helps", "Best pre-train network", "Best pre-train"),
    Claim("best network: tuning helps", "Best pre-train", "Best fine-tuning"),
    Claim("best network: prompts help", "Best fine-tuning", "Best RecGPT 10_0"),
    Claim("best network: a second step helps", "Best RecGPT 10_0", "Best RecGPT 9_1"),
    Claim("best network: steps that compete help", "Best RecGPT 10_0", "Best RecGPT pool"),
    Claim(
        "best network: a second step in expectation helps, untuned",
        "Best pre-train",
        "Best pre-train marginal",
    ),
    Claim(
        "best network: a second step in expectation helps",
        "Best RecGPT 10_0",
        "Best RecGPT marginal",
    ),
    Claim(
        "best network: an expectation is better than one item",
        "Best RecGPT 9_1",
        "Best RecGPT marginal",
    ),
    Claim(
        "best network: prompts of fresh items help", "Best fine-tuning", "Best RecGPT fresh 10_0"
    ),
    Claim("best network: prompts it is sure of help", "Best fine-tuning", "Best RecGPT sure 10_0"),
    Claim(
        "best network: prompts for short histories help",
        "Best fine-tuning",
        "Best RecGPT short 10_0",
    ),
    Claim(
        "best network: prompts for long histories help", "Best fine-tuning", "Best RecGPT long 10_0"
    ),
    Claim("best network: prompts made anew help", "Best fine-tuning", "Best RecGPT anew 10_0"),
)
"""What sections 5.2 to 5.4 say, of the networks as written; and the same of our best one, with
prompts that have a better chance.
"""

METRICS = ("hit_rate@10", "ndcg@10")


class Fits(NamedTuple):
    """The fits behind an answer: as the fields of `Answer`."""

    seeds: int
    seeds_low: float = float("nan")
    seeds_high: float = float("nan")
    seeds_p: float = float("nan")
    worse_tuned: int | None = None
    better_tuned: int | None = None

    def over_seeds(self, worse: Floats, better: Floats) -> Fits:
        """With the difference of two systems over their fits `[S]`, which are paired by seed."""
        if len(worse) != len(better) or len(worse) < 2:
            return self
        low, high = interval(better - worse)
        return self._replace(seeds_low=low, seeds_high=high, seeds_p=paired_t(better, worse)[1])


@dataclass(frozen=True, slots=True)
class Answer:
    """A claim on a data set by a metric, over all users or a group of them.

    Attributes:
        dataset: short name.
        says: of the claim.
        worse, better: its systems.
        metric: `hit_rate@k` or `ndcg@k`.
        group: "" = all users.
        users: how many.
        seeds: fits that each user's value is the mean of.
        seeds_low, seeds_high, seeds_p: 95% interval of the difference over seeds, and the p of its
            paired t-test: of the method, whose fits are as random as its users. NaN for a group, or
            fewer than two seeds of either.
        worse_tuned, better_tuned: in how many of them tuning found better weights than its start;
            None for a system that is not tuned.
        control: mean of the worse system.
        difference: better - worse.
        low, high: 95% interval of the difference over users (paired t).
        t, p: of the paired t-test over users.
        p_adjusted: Holm, over all claims and metrics of the data set; of a group: over all groups
            of the data set.
        interaction: p of Cochran's Q that the groups of one kind have the same lift; NaN over all
            users.
    """

    dataset: str
    says: str
    worse: str
    better: str
    metric: str
    group: str
    users: int
    seeds: int
    seeds_low: float
    seeds_high: float
    seeds_p: float
    worse_tuned: int | None
    better_tuned: int | None
    control: float
    difference: float
    low: float
    high: float
    t: float
    p: float
    p_adjusted: float
    interaction: float

    @property
    def verdict(self) -> Literal["holds", "contradicted", "undecided", "identical"]:
        """What the adjusted test says of the claim."""
        if np.isnan(self.p):
            return "identical"
        if not self.p_adjusted < 0.05:
            return "undecided"
        return "holds" if self.difference > 0 else "contradicted"


def groups(dataset: Dataset) -> dict[str, Groups]:
    """Users with a held-out item by the length of their history and by how often others clicked
    that item: kind -> group -> its users.

    Halves would hide the tails and tenths have no hits: four groups of about equally many users,
    from the lowest on.
    """
    lengths, popularity = dataset.held
    return {
        "history": _quarters(lengths, "clicks before"),
        "item": _quarters(popularity, "clicks of the item"),
    }


def _quarters(values: npt.NDArray[np.int64], unit: str) -> Groups:
    place = np.searchsorted(
        np.unique(np.quantile(values, [0.25, 0.5, 0.75]).astype(np.int64)), values
    )
    quarters = {}
    for i in np.unique(place):
        low, high = values[place == i].min(), values[place == i].max()
        quarters[f"{low} {unit}" if low == high else f"{low}-{high} {unit}"] = place == i
    return quarters


def answers(
    results: Results,
    datasets: Sequence[Dataset],
    claims: Sequence[Claim],
    further: Sequence[str] = (),
) -> list[Answer]:
    """Every claim whose two systems were run, by METRICS and `further` ones, for all users and then
    by group.
    """
    every: list[Answer] = []
    for dataset in datasets:
        everyone, parts = [], []
        kinds = groups(dataset)
        for claim in claims:
            pair = [(dataset.name, system) for system in (claim.worse, claim.better)]
            if not all(key in results.places for key in pair):
                continue
            n_seeds = min(len(results.places[key]) for key in pair)
            tuned = [results.n_tuned(*key) for key in pair]
            fits = Fits(n_seeds, worse_tuned=tuned[0], better_tuned=tuned[1])
            for metric in (*METRICS, *further):
                control, treatment = (results.users(*key, metric) for key in pair)
                moments = paired(control, treatment)
                means = (results.seeds(*key, metric) for key in pair)
                by_seed = fits.over_seeds(*means)
                everyone.append(answer(dataset.name, claim, metric, moments, by_seed))
                for kind in kinds.values():
                    of_groups = {
                        name: paired(control[users], treatment[users])
                        for name, users in kind.items()
                    }
                    same = heterogeneity(list(of_groups.values()))[2]
                    parts += [
                        answer(dataset.name, claim, metric, m, fits, name, same)
                        for name, m in of_groups.items()
                    ]
        every += corrected(everyone) + corrected(parts)
    return every


def answer(
    dataset: str,
    claim: Claim,
    metric: str,
    m: Moments,
    fits: Fits,
    group: str = "",
    interaction: float = float("nan"),
) -> Answer:
    """A comparison as an answer; its p value is not adjusted yet."""
    test, span = t_test(m), intervals.difference(m)
    control, difference, low, high, t, p = (
        float(v) for v in (m.control, m.difference, span.low, span.high, test.statistic, test.p)
    )
    names = (dataset, claim.says, claim.worse, claim.better, metric, group)
    return Answer(
        *names,
        int(m.n_units),
        *fits,
        control,
        difference,
        low,
        high,
        t,
        p,
        p_adjusted=float("nan"),
        interaction=interaction,
    )


def corrected(rows: list[Answer]) -> list[Answer]:
    """The rows with their p values adjusted as one family (Holm)."""
    return [
        replace(row, p_adjusted=float(p))
        for row, p in zip(rows, adjust(np.array([row.p for row in rows])), strict=True)
    ]


def sections(rows: Sequence[Answer]) -> list[Section]:
    """The answers of each data set: all users, then groups of them."""
    shown_sections = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        here = [row for row in rows if row.dataset == dataset]
        everyone = [
            (
                plain(row.says),
                _systems(row),
                *_figures(row),
                plain(_over_seeds(row)),
                numeric(probability, row.seeds_p),
                plain(_tuned(row)),
                _verdict(row),
            )
            for row in here
            if not row.group
        ]
        heads = columns("Claim", "Better > worse", "Metric", *FIGURES, text=3)
        heads += columns("95% over seeds", "p over seeds", text=0)
        heads += columns("Tuned", "Answer", text=2)
        blocks: list[Block] = [Table("All users", heads, everyone)]
        if any(_tuned(row) for row in here):
            blocks.append(Words(TUNED, note=True))
        parts = [
            (
                _systems(row),
                plain(row.group),
                numeric(whole, row.users),
                *_figures(row),
                numeric(probability, row.interaction),
            )
            for row in here
            if row.group
        ]
        if parts:
            note = "Same: the p-value that the lifts are equal in all groups of a kind."
            heads = [
                *columns("Better > worse", "Group", "Users", text=2),
                *columns("Metric", *FIGURES, "Same, p"),
            ]
            blocks += [Heading("By group"), Words(note, note=True), Table("By group", heads, parts)]
        shown_sections.append(Section(dataset, dataset, blocks, dataset))
    return shown_sections


FIGURES = ("Worse", "Difference", "95% interval", "t", "Holm p")


TUNED = (
    "Tuned: in how many of the seeds tuning found better weights than those it started from. In the"
    " others it kept its start, and the system is the network before tuning."
)


def _tuned(row: Answer) -> str:
    """In how many seeds either system was tuned at all, the better one first."""
    counts = (row.better_tuned, row.worse_tuned)
    shown = ["-" if count is None else f"{count} of {row.seeds}" for count in counts]
    return "" if counts == (None, None) else " > ".join(shown)


def _over_seeds(row: Answer) -> str:
    return (
        "n/a" if np.isnan(row.seeds_low) else between(row.seeds_low, row.seeds_high, signed_score)
    )


def _systems(row: Answer) -> Cell:
    return plain(f"{row.better} > {row.worse}")


def _figures(row: Answer) -> tuple[Cell, ...]:
    within = "n/a" if np.isnan(row.low) else between(row.low, row.high, signed_score)
    return (
        plain(row.metric),
        numeric(score, row.control),
        numeric(signed_score, row.difference),
        plain(within),
        numeric(two, row.t),
        numeric(probability, row.p_adjusted),
    )


TONES = {"holds": "good", "contradicted": "bad", "undecided": "open", "identical": "open"}
"""Colours of the verdicts."""


def _verdict(row: Answer) -> Cell:
    return Cell(row.verdict, kind=TONES[row.verdict])


def record(row: Answer) -> dict[str, Any]:
    """As a row of JSON or Parquet."""
    return asdict(row) | {"verdict": row.verdict}
