"""Weighted training: a log of all arms with each impression as likely as it is one arm's.

Where arms learn from one another's data, an arm of a test is not what it would be if it served
everybody. Weighting undoes this: of the log of all arms, an impression counts as much as it is
likely to be from a world in which the arm alone serves (Si, "Tackling interference induced by data
training loops in A/B tests: a weighted training approach", arXiv 2310.17496: the weight of a data
point is the probability that it is of the arm).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from policies.base import BoolArray, DoubleArray, Sequences
from policies.elementary import exps, logs
from policies.products import matmul
from policies.streams import Purpose, uniform
from simulator.serving.ranking import PRIOR, impression_features, logistic

if TYPE_CHECKING:
    from simulator.run.context import Context

MOST = 0.99
"""Probabilities above this quantile of theirs count as much as it: one impression that is surely
the arm's would else halve what is kept of all others.
"""


def thinned(run: Context, log: Sequences, arm: str, seed: int) -> Sequences:
    """The log with each impression of the A/B kept in proportion to its weight for an arm.

    A policy takes a log, and no weights; so weights are probabilities of being in it. What was
    before the A/B is kept whole: it would have been the same if the arm alone had served.

    Args:
        run: whose users are each in one arm (`Design.divides_users`).
        log: the history and the days of all arms so far.
        arm: towards which the log is weighted.
        seed: of the training, which the choice of impressions is a part of.

    Returns:
        The same users with fewer impressions, in their order.
    """
    members = run.design.arm_of_user(run.catalogue.n_users)
    assert members is not None  # the scenario holds it
    user = np.repeat(log.user, np.diff(log.offsets))
    new = np.flatnonzero(log.t >= 0)
    if not len(new):
        return log
    is_arms: BoolArray = members[user[new]] == run.design.arms.index(arm)
    x = impression_features(
        log, new, log.where(log.t < 0), run.catalogue, run.scenario.serving.history
    )
    fold = uniform(seed, Purpose.SPLIT, user[new], 1) < 0.5
    weight = probability(x, log.items[new], is_arms, fold, run.catalogue.n_items)
    limit = float(np.quantile(weight, MOST))
    noise = uniform(seed, Purpose.WEIGHT, user[new], new - log.offsets[:-1][user[new]])
    keep = np.ones(len(user), dtype=bool)
    keep[new] = noise < weight / limit
    return log.where(keep)


def probability(
    x: DoubleArray, item: np.ndarray, is_arms: BoolArray, fold: BoolArray, n_items: int
) -> DoubleArray:
    """How likely each impression is the arm's, `[R]`.

    A ridge logistic regression on the features of the request and the item, and on how often the
    item was the arm's among impressions of other users; each half of the users by the other half.

    Args:
        x: `[R, F]` features, column 0 constant.
        item: `[R]`.
        is_arms: `[R]` whether it was the arm's.
        fold: `[R]` which half of the users it is of.
        n_items: items are 1..n_items.
    """
    overall = (is_arms.sum() + 0.5) / (len(is_arms) + 1.0)
    share = np.empty(len(item))
    for half in (False, True):
        other = fold != half
        shown = np.bincount(item[other], minlength=n_items + 1)
        own = np.bincount(item[other], weights=is_arms[other], minlength=n_items + 1)
        share[~other] = ((own + PRIOR * overall) / (shown + PRIOR))[item[~other]]
    features = np.concatenate((x, logs(share / (1.0 - share))[:, None]), axis=1)
    out = np.empty(len(item))
    for half in (False, True):
        here = fold == half
        if here.all() or not here.any():
            out[here] = overall  # one user, or hardly more: nothing is learned of others
            continue
        learned = logistic(features[~here], is_arms[~here].astype(np.float64))
        logit = matmul(features[here], learned[:, None])[:, 0]
        out[here] = 1.0 / (1.0 + exps(-np.clip(logit, -30.0, 30.0)))
    return out
