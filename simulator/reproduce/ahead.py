"""What a slate finds of a user's next several clicks, how novel and diverse it is: what the paper
argues two-step recall for (4.4), asked of its steps and of the systems of its claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import Progress
from simulator.log.eventlog import EventLog
from simulator.log.metadata import HISTORY
from simulator.reproduce.claims import CLAIMS, Answer, Claim, Fits, answer, corrected
from simulator.reproduce.experiment import ExperimentPlan, Floats, ReproduceError
from simulator.reproduce.systems import FAMILIES, Family
from simulator.stats.moments import paired

AHEAD = 3
"""Clicks at each user's end that are held out."""

METRICS = ("hit", "found", "novelty", "diversity")
ROWS = 1024


def measures(log: EventLog, ahead: int = AHEAD) -> dict[str, dict[str, Floats]]:
    """Arm -> metric -> value of each user who asked, users ascending.

    `hit`: whether any of the user's next `ahead` clicks is in the slate (the hit rate over users).
    `found`: the share of them that is there (recall). `novelty`: mean of -log2 of the share of
    users who had clicked the item (Zhou et al., PNAS 2010, self-information; add-one where nobody
    had). `diversity`: 1 - the mean cosine of two items of the slate, an item being the set of the
    users who had clicked it (intra-list dissimilarity: Ziegler et al., WWW 2005; distance as in
    Vargas & Castells, RecSys 2011, section 4.3).
    """
    from scipy import sparse

    history = log.sequences(HISTORY).clicks()
    n_users, n_items = log.metadata.n_users, log.metadata.n_items
    row = np.repeat(history.user, np.diff(history.offsets))
    owns = sparse.csr_array(
        (np.ones(len(row), np.float32), (row, history.items)), shape=(n_users, n_items + 1)
    )
    owns.sum_duplicates()
    owns.data[:] = 1
    owners = np.bincount(owns.indices, minlength=n_items + 1)
    surprise = -np.log2((owners + 1) / (n_users + 1))
    cosine = sparse.csr_array(owns / np.sqrt(np.maximum(owners, 1)))
    similar = sparse.csr_array(cosine.T @ cosine)
    by_arm = {}
    for arm, (items, hits) in slates(log).items():
        pairs = np.concatenate(
            [_alike(items[start : start + ROWS], similar) for start in range(0, len(items), ROWS)]
        )
        by_arm[arm] = {
            "hit": hits.any(axis=1).astype(np.float64),
            "found": hits.sum(axis=1) / ahead,
            "novelty": surprise[items].mean(axis=1),
            "diversity": 1 - pairs,
        }
    return by_arm


def asked(families: Sequence[Family]) -> list[Claim]:
    """What is compared: within every family with two steps each system with the first one, and the
    two systems of every claim of `CLAIMS` that are among those of the families.

    Raises:
        ReproduceError: a family of which nothing is compared.
    """
    pairs: dict[frozenset[str], Claim] = {}
    for family in families:
        if family.has_steps:
            one, *others = family.systems()
            for other in others:
                pairs[frozenset((one, other))] = Claim(f"{family.name}: two steps", one, other)
    systems = {system for family in families for system in family.systems()}
    for claim in CLAIMS:
        pair = frozenset((claim.worse, claim.better))
        if pair <= systems:
            pairs.setdefault(pair, claim)
    compared = frozenset().union(*pairs)
    for family in families:
        if compared.isdisjoint(family.systems()):
            several = ", ".join(name for name, each in FAMILIES.items() if each.has_steps)
            raise ReproduceError(
                "ahead compares two steps of a network with one, and systems of the paper's claims"
                f" that are asked for together, but {family.name} has one step only; there are"
                f" {several}"
            )
    return list(pairs.values())


def answers(plan: ExperimentPlan, progress: Progress, workers: int) -> list[Answer]:
    """What is `asked` of the families of the plan, each user's value averaged over the seeds; run
    now what was not run before.

    Raises:
        ReproduceError: a family of which nothing is compared, before anything is run.
    """
    claims = asked(plan.families)
    measured: dict[tuple[str, str], list[dict[str, Floats]]] = {}
    tuned: dict[tuple[str, str], int | None] = {}
    for experiment in plan.finish(progress, workers):
        log = EventLog.open(experiment.folder(plan.out) / "log")
        epochs = experiment.tuned(plan.out)
        for system, found in measures(log, plan.ahead).items():
            key = experiment.dataset.name, system
            measured.setdefault(key, []).append(found)
            tuned[key] = None if epochs is None else (tuned.get(key) or 0) + (epochs != (0,))
    rows = []
    for dataset, claim in product((dataset.name for dataset in plan.datasets), claims):
        pair = [(dataset, system) for system in (claim.worse, claim.better)]
        n_seeds = min(len(measured[key]) for key in pair)
        fits = Fits(n_seeds, worse_tuned=tuned[pair[0]], better_tuned=tuned[pair[1]])
        for metric in METRICS:
            worse, better = (np.array([one[metric] for one in measured[key]]) for key in pair)
            moments = paired(worse.mean(axis=0), better.mean(axis=0))
            by_seed = fits.over_seeds(worse.mean(axis=1), better.mean(axis=1))
            rows.append(answer(dataset, claim, metric, moments, by_seed))
    return corrected(rows)


def slates(log: EventLog) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
    """Arm -> the one slate `[users, k]` of each user who asked, and which of it was clicked, users
    ascending.
    """
    arms = log.metadata.arms
    columns: dict[str, list[npt.NDArray[Any]]] = {
        name: [] for name in ("arm", "user", "position", "item", "click")
    }
    for batch in log.batches(["arm", "user", "position", "item", "click", "t"]):
        asked = batch.column("t").to_numpy() >= 0
        for name, parts in columns.items():
            parts.append(
                batch.column(name)
                .fill_null(False if name == "click" else 0)
                .to_numpy(zero_copy_only=False)[asked]
            )
    arm, user, position, item, click = (np.concatenate(parts) for parts in columns.values())
    by_arm = {}
    for number, name in enumerate(arms):
        here = np.flatnonzero(arm == number)
        if name == HISTORY or not len(here):
            continue
        here = here[np.lexsort((position[here], user[here]))]
        k = int(position[here].max()) + 1
        by_arm[name] = (
            item[here].astype(np.int64).reshape(-1, k),
            click[here].astype(bool).reshape(-1, k),
        )
    return by_arm


def _alike(items: npt.NDArray[np.int64], similar: Any) -> Floats:
    """The mean of `similar` over all pairs of different places of each slate `[B, k]`."""
    from scipy import sparse

    k = items.shape[1]
    places = (np.ones(items.size, np.float32), items.ravel(), np.arange(len(items) + 1) * k)
    chosen = sparse.csr_array(places, shape=(len(items), similar.shape[0]))
    total = np.asarray((chosen @ similar).multiply(chosen).sum(axis=1)).ravel()
    own = similar.diagonal()[items].sum(axis=1)
    return np.asarray((total - own) / (k * (k - 1)), dtype=np.float64)
