"""What a slate finds of a user's next several clicks, how novel and diverse it is: what the paper
argues two-step recall for (4.4).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import Progress
from simulator.log.eventlog import EventLog
from simulator.log.metadata import HISTORY
from simulator.reproduce.claims import Answer, Claim, Fits, answer, corrected
from simulator.reproduce.experiment import ExperimentPlan, Floats, ReproduceError
from simulator.reproduce.systems import FAMILIES
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


def answers(plan: ExperimentPlan, progress: Progress, workers: int) -> list[Answer]:
    """Two steps against one, m:n by m:n, for every family of the plan; run now what was not run
    before.

    Raises:
        ReproduceError: a family that recalls in one way only, before anything is run.
    """
    for asked in plan.families:
        if not asked.has_steps:
            several = ", ".join(name for name, each in FAMILIES.items() if each.has_steps)
            raise ReproduceError(
                f"ahead compares two steps of a network with one, but {asked.name} has one step"
                f" only; there are {several}"
            )
    measured: dict[tuple[str, str], list[dict[str, dict[str, Floats]]]] = {}
    for experiment in plan.finish(progress, workers):
        log = EventLog.open(experiment.folder(plan.out) / "log")
        measured.setdefault((experiment.dataset.name, experiment.family.name), []).append(
            measures(log, plan.ahead)
        )
    rows = []
    for (dataset, family), seeds in measured.items():
        one, *others = FAMILIES[family].systems()
        means = {
            arm: {
                metric: np.mean([seed[arm][metric] for seed in seeds], axis=0) for metric in METRICS
            }
            for arm in seeds[0]
        }
        for other in others:
            claim = Claim(f"{family}: two steps", one, other)
            rows += [
                answer(
                    dataset,
                    claim,
                    metric,
                    paired(means[one][metric], means[other][metric]),
                    Fits(len(seeds)),
                )
                for metric in METRICS
            ]
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
