"""From a history to a calibrated `Response`: split by time, train, calibrate, fold into tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from policies.base import DoubleArray, FloatArray, IntArray, Progress
from policies.streams import Purpose, uniform
from simulator.log.answered import answered
from simulator.users.base import Source, UsersError
from simulator.users.learned.hyperparameters import Hyperparameters
from simulator.users.learned.inputs import DURATIONS, AnsweredImpressions, Features, HistoryEvidence
from simulator.users.learned.network import (
    Inputs,
    ResponseNetwork,
    ResponseShape,
    ResponseTraining,
    duration_class,
    duration_limits,
    train,
    watch_edges,
)
from simulator.users.learned.posthoc import margins, scale, shift
from simulator.users.learned.response import Response


@dataclass(frozen=True)
class HeadCalibration:
    """Scale and shift of the click head and of each further kind `[K]`, and shifts
    `[durations, 2 (bins + 1)]` of the watch head.
    """

    click: tuple[float, float]
    kinds: tuple[tuple[float, float], ...]
    watch: FloatArray


def fit(config: Hyperparameters, source: Source, seed: int, progress: Progress) -> Response:
    """Fit the response model of `config` on the history of `source`.

    Raises:
        UsersError: no history, or fewer than two days of complete answers.
    """
    if source.history is None:
        raise UsersError(
            "users.kind learned needs a history to learn from: data.source must be a real log"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fit(config, source, seed, progress)
    finally:
        torch.set_num_threads(threads)


def _fit(config: Hyperparameters, source: Source, seed: int, progress: Progress) -> Response:
    assert source.history is not None
    catalogue = source.catalogue
    history = source.history.sequences("history")
    observed = answered(source.history, history)
    duration = np.asarray(
        catalogue.items.get("duration", np.zeros(catalogue.n_items + 1)), dtype=np.float32
    )
    answers = AnsweredImpressions.of(history, observed, duration)
    days = np.unique(answers.day)
    if len(days) < 2:
        raise UsersError(
            "a response model needs at least two days with answers in the history; it has"
            f" {len(days)}"
        )
    if answers.click.all():
        raise UsersError(
            "a response model needs impressions that were not clicked; in this log every one is a"
            " click, so its users would click on anything"
        )
    evidence = HistoryEvidence(history, observed, catalogue.n_items)
    edges = watch_edges(answers.watch, config.bins)
    limits = duration_limits(answers.duration, DURATIONS)
    rows = Inputs.of(answers, evidence, edges, limits, _weights(answers, config.bootstrap, seed))
    shape = ResponseShape(
        catalogue.n_users,
        catalogue.n_items,
        config.dim,
        config.hidden,
        tuple(answers.kinds),
        len(edges) - 1,
        len(limits) + 2,
        evidence.width,
    )
    users = Features.of(dict(catalogue.users), catalogue.n_users)
    items = Features.of(dict(catalogue.items), catalogue.n_items + 1)
    plan = ResponseTraining(
        config.epochs, config.rate, config.vector_rate, config.batch, config.decay, config.dropout
    )
    age = days[-1] - answers.day
    held = torch.from_numpy(age == 0)
    network = ResponseNetwork(shape, users, items)
    train(
        network,
        rows.rows(~held),
        rows.rows(held),
        plan,
        seed,
        lambda n, f: progress("response model", n, config.epochs, f),
    )
    calibration = _calibrate(network, rows, age)
    return _fold(network, evidence, calibration, edges, duration, limits)


def _weights(answers: AnsweredImpressions, bootstrap: int, seed: int) -> FloatArray:
    """Each user's weight in the loss: 1, or Exponential(1) in a bootstrap world (the Bayesian
    bootstrap, Rubin 1981).
    """
    if bootstrap == 0:
        return np.ones(len(answers), dtype=np.float32)
    drawn = -np.log1p(-uniform(seed, Purpose.RESPONSE, answers.user, bootstrap))
    return np.asarray(drawn, dtype=np.float32)


def _calibrate(network: ResponseNetwork, rows: Inputs, age: IntArray) -> HeadCalibration:
    """How steep a head may be is learned on the day that the training has not seen, how high it
    stands on all days, each counting half as much as the day after it.

    So the last day counts about as much as all others together: the level of days that were trained
    on is a little too good, and a single day has a mood of its own and few rare answers. Of those
    others the late ones count, because levels drift.

    Args:
        network: trained.
        rows: all impressions.
        age: `[N]` days before the last day, 0 on it.
    """
    with torch.no_grad():
        encoded = network.encode(rows)
        click, _, kinds = (logits.double().numpy() for logits in network.heads(rows, encoded))
        both = network.watch_logits(rows, encoded).double().numpy()
    y, weight, last = rows.click.double().numpy(), rows.weight.double().numpy(), age == 0
    level = weight * 0.5**age

    def two(logits: DoubleArray, answer: DoubleArray, spread: float) -> tuple[float, float]:
        known = answer >= 0
        a = scale(logits[known & last], answer[known & last], weight[known & last], spread)
        return a, shift(a * logits[known], answer[known], level[known])

    bins, answers = rows.watch_bin.numpy(), rows.kinds.double().numpy()
    scales = tuple(two(kinds[:, k], answers[:, k], 0.5) for k in range(kinds.shape[1]))
    watch = np.zeros((network.shape.durations, *both.shape[1:]), dtype=np.float32)
    for side in (0, 1):
        for of_class in range(len(watch)):
            of = (y == side) & (rows.duration.numpy() == of_class)
            watch[of_class, side] = margins(both[of, side], bins[of], level[of])
    return HeadCalibration(two(click, y, 0.25), scales, watch.reshape(len(watch), -1))


def _fold(
    network: ResponseNetwork,
    evidence: HistoryEvidence,
    calibration: HeadCalibration,
    edges: FloatArray,
    duration: FloatArray,
    limits: FloatArray,
) -> Response:
    """Everything that depends on the user alone or the item alone, computed once; calibration goes
    into the heads.
    """
    shape = network.shape
    user = np.arange(shape.n_users, dtype=np.int64)
    item = np.arange(shape.n_items + 1, dtype=np.int64)
    with torch.no_grad():
        bag = torch.from_numpy(evidence.bags(user, None))
        user_first, user_vector = network.user_part(
            torch.from_numpy(user), torch.from_numpy(evidence.of_users(user, None)), bag
        )
        item_first, item_vector = network.item_part(
            torch.from_numpy(item), torch.from_numpy(evidence.of_items(item, None))
        )
    steep, level = calibration.click
    kind_scale = np.array([pair[0] for pair in calibration.kinds], dtype=np.float32)
    kind_shift = np.array([pair[1] for pair in calibration.kinds], dtype=np.float32)
    return Response(
        user_first=_table(user_first),
        user_vector=_table(user_vector),
        item_first=_table(item_first),
        item_vector=_table(item_vector),
        tab=_table(network.tab.weight),
        hour=_table(network.hour.weight),
        position=_table(network.position.weight),
        product=_table(network.from_product.weight.T),
        second=_table(network.second.weight.T),
        second_bias=_table(network.second.bias),
        click=_table(network.click.weight[0]) * np.float32(steep),
        click_bias=_table(network.click.bias) * np.float32(steep) + np.float32(level),
        watch=_table(network.watch.weight.T),
        watch_bias=_table(network.watch_duration.weight) + calibration.watch,
        edges=edges,
        hidden=_table(network.kinds_hidden.weight.T),
        hidden_bias=_table(network.kinds_hidden.bias),
        kinds=_table(network.kinds.weight.T) * kind_scale,
        kinds_bias=_table(network.kinds.bias) * kind_scale + kind_shift,
        duration=duration,
        duration_class=duration_class(duration, limits),
        names=shape.kinds,
    )


def _table(values: torch.Tensor) -> FloatArray:
    return np.ascontiguousarray(values.detach().numpy(), dtype=np.float32)
