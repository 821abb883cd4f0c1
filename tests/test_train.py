"""The trainer: early stopping, averaging, checkpoints, resuming, and stopping with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from policies.adam import Adam
from policies.base import Fitting, IntArray
from policies.train import RISE, Training, TrainingState, mean_weights, train


class Line(nn.Module):
    """y = a x, with dropout so that random numbers matter."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(3))
        self.dropout = nn.Dropout(0.2)


DATA = torch.from_numpy(np.random.default_rng(0).standard_normal((60, 3))).float()
LENGTHS = np.ones(60, dtype=np.int64)


def step_of(model: Line) -> Callable[[IntArray], Tensor]:
    truth = torch.tensor([1.0, -2.0, 0.5])

    def step(rows: IntArray) -> Tensor:
        x = model.dropout(DATA[torch.from_numpy(rows)])
        return ((x @ model.a - x @ truth) ** 2).mean()

    return step


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_resumed_training_ends_as_an_uninterrupted_one(
    tmp_path: Path, schedule: Literal["constant", "linear"]
) -> None:
    whole, broken = Line(), Line()
    training = Training(epochs=12, batch=16, rate=0.05, schedule=schedule, average=3, patience=0)
    train(whole, step_of(whole), LENGTHS, training, Fitting(seed=3))

    class StopHere(Exception):  # noqa: N818 (it is no error)
        pass

    def stop_after_five(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if done == 10:
            raise StopHere

    with pytest.raises(StopHere):
        train(
            broken,
            step_of(broken),
            LENGTHS,
            training,
            Fitting(seed=3, folder=tmp_path, progress=stop_after_five),
        )
    resumed = Line()
    done = train(
        resumed, step_of(resumed), LENGTHS, training, Fitting(seed=3, folder=tmp_path, resume=True)
    )
    assert torch.equal(resumed.a, whole.a)
    assert done.epoch == 12
    assert len(done.losses) == 12
    others = Fitting(seed=4), Fitting(seed=3, identity="of another policy")
    for other in (replace(fitting, folder=tmp_path, resume=True) for fitting in others):
        with pytest.raises(ValueError, match="is of another training"):
            train(Line(), step_of(resumed), LENGTHS, training, other)
    with pytest.raises(ValueError, match="is of another training"):
        train(
            Line(),
            step_of(resumed),
            LENGTHS,
            training,
            Fitting(seed=3, folder=tmp_path, resume=True),
            targets=LENGTHS + 1,
        )


def test_early_stopping_restores_the_best_weights() -> None:
    done, result, weights = validated([0.05, 0.1, 0.3, 0.2, 0.25, 0.28])
    assert done.epoch == 5
    assert torch.equal(result, weights[2])
    assert done.chosen == (2,)
    assert done.figures == {0: 0.05, 1: 0.1, 2: 0.3, 3: 0.2, 4: 0.25, 5: 0.28}


def validated(scores: list[float], average: int = 1) -> tuple[TrainingState, Tensor, list[Tensor]]:
    """A training whose validations find these scores, the first before any epoch: its course, its
    result, the weights at each.
    """
    model, weights, found = Line(), [], iter(scores)

    def validate() -> float:
        weights.append(model.a.detach().clone())
        return next(found)

    done = train(
        model,
        step_of(model),
        LENGTHS,
        Training(epochs=50, batch=16, patience=3, average=average),
        Fitting(),
        validate=validate,
    )
    assert next(found, None) is None
    return done, model.a.detach(), weights


def test_a_training_that_only_harms_ends_where_it_started() -> None:
    done, result, weights = validated([0.3, 0.2, 0.1, 0.2])
    assert done.epoch == 3
    assert done.chosen == (0,)
    assert torch.equal(result, weights[0])


def test_averaging_takes_the_best_epochs_where_their_mean_is_no_worse() -> None:
    done, result, weights = validated([0.0, 0.1, 0.3, 0.2, 0.25, 0.28, 0.3], average=2)
    torch.testing.assert_close(result, (weights[2] + weights[5]) / 2)
    assert done.chosen == (2, 5)
    done, result, weights = validated([0.0, 0.1, 0.3, 0.2, 0.25, 0.28, 0.29], average=2)
    assert torch.equal(result, weights[2])
    assert done.chosen == (2,)
    assert mean_weights([{"n": torch.tensor(3)}, {"n": torch.tensor(5)}]) == {"n": torch.tensor(3)}


def test_a_loss_that_is_not_finite_stops_with_the_reason() -> None:
    model = Line()

    def step(rows: IntArray) -> Tensor:
        return (model.a * torch.inf).sum()

    with pytest.raises(
        ValueError,
        match=(
            r"pre: the loss must be finite; got nan in epoch 1, batch 1 of 4: lower the learning"
            r" rate \(now 0.5\)"
        ),
    ):
        train(
            model,
            step,
            LENGTHS,
            Training(epochs=2, batch=16, rate=0.5, patience=0),
            Fitting(),
            stage="pre",
        )


def test_nothing_to_train_on_is_said() -> None:
    model = Line()
    with pytest.raises(ValueError, match="nothing to train on"):
        train(model, step_of(model), LENGTHS[:0], Training(), Fitting())


def test_progress_is_called_after_every_epoch() -> None:
    calls = []
    model = Line()
    fitting = Fitting(progress=lambda *call: calls.append(call))
    train(
        model,
        step_of(model),
        LENGTHS,
        Training(epochs=2, patience=5),
        fitting,
        validate=lambda: 0.5,
    )
    assert [call[:3] for call in calls] == [("fit", 1, 2), ("fit", 2, 2)]
    assert set(calls[0][3]) == {"loss", "ndcg@10"}


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", -1), ("batch", 0), ("every", 0), ("average", 0), ("rate", 0.0)]
)
def test_bad_trainings_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"the '{name}' of a training must be"):
        Training(**{name: value})  # type: ignore[arg-type]


def test_a_linear_rate_rises_shortly_and_falls_to_nothing() -> None:
    training = Training(rate=2.0, schedule="linear")
    assert training.rate_at(0) == training.rate_at(1) == 0
    assert training.rate_at(RISE) == training.rate == 2
    assert training.rate_at(RISE / 2) == pytest.approx(1)
    assert training.rate_at((1 + RISE) / 2) == pytest.approx(1)
    assert Training(rate=2.0).rate_at(0) == Training(rate=2.0).rate_at(1) == 2


def test_a_training_takes_the_rates_of_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all epochs together, whatever the epoch."""
    rates: list[float] = []
    step = Adam.step

    def noting(self: Adam) -> None:
        rates.append(self.rate)
        step(self)

    monkeypatch.setattr(Adam, "step", noting)
    model = nn.Linear(1, 1)
    training = Training(epochs=3, batch=2, rate=1.0, schedule="linear", patience=0)
    lengths = np.ones(8, dtype=np.int64)
    train(model, lambda rows: model(torch.ones(1)).sum(), lengths, training, Fitting())
    assert rates == pytest.approx([training.rate_at((i + 0.5) / 12) for i in range(12)])
