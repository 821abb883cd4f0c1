"""Both stages of training: pre-training on the clicks (eq. 4) and prompt-tuning on the dialogues
(eq. 5). No recall lives here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from policies.base import Fitting, IntArray, Sequences, right_aligned
from policies.losses import Objective
from policies.retrieval import Index
from policies.sequence import Windows, pieces
from policies.stretches import stretches
from policies.train import Training, TrainingState, train
from recgpt.model import GENERATED, GPT, REAL, Layer
from recgpt.prompts import Dialogues, Prompts, PromptSearch, Talk, converse
from recgpt.rows import hidden_at


class Lessons:
    """Training windows of at most `length` tokens over dialogues. The tokens from a user's last
    click on have no target and are left out.

    `last`: the last tokens of each user. `all`: consecutive pieces, cut from the end, so that every
        target is predicted once.
    """

    def __init__(
        self,
        users: IntArray,
        dialogues: Dialogues,
        length: int,
        cut: Literal["last", "all"],
        everywhere: bool,
    ) -> None:
        """Cut the dialogues.

        Args:
            users: `[U]` of the dialogues.
            dialogues: items with the prompts between them.
            length: tokens of a window, at most.
            cut: which windows.
            everywhere: whether the next real item is also predicted from prompts.
        """
        self.dialogues = dialogues
        self._users, self._length = users, length
        self._target = dialogues.following() if everywhere else dialogues.target
        begin, size = dialogues.offsets[:-1], np.zeros(len(dialogues), dtype=np.int64)
        for some, place in stretches(dialogues.offsets):
            places = np.flatnonzero(self._target[place]) + place.start
            count = np.searchsorted(places, dialogues.offsets[some.start : some.stop + 1])
            has_target = np.diff(count) > 0
            last = places[count[1:][has_target] - 1]
            size[some][has_target] = last + 1 - begin[some][has_target]
        self.row, after, self.lengths = pieces(size, length, cut)
        self._end = (begin + size)[self.row] - after
        self.targets = np.zeros_like(self.lengths)
        for some, place in stretches(dialogues.offsets):
            mine = slice(*np.searchsorted(self.row, (some.start, some.stop)))
            running = np.concatenate(([0], np.cumsum(self._target[place] != 0)))
            end = self._end[mine] - place.start
            self.targets[mine] = running[end] - running[end - self.lengths[mine]]

    def batch(self, index: IntArray, full: bool, device: str) -> tuple[Tensor, ...]:
        """Tokens, segments, targets `[B, L]`, rows and users `[B]` of the windows at `index`; L is
        the longest's, or `length` if `full`.
        """
        row, end, n = self.row[index], self._end[index], self.lengths[index]
        width = self._length if full else None
        columns = self.dialogues.tokens, self.dialogues.prompt, self._target
        tokens, prompt, target = (right_aligned(column, end, n, width) for column in columns)
        segments = np.where(prompt, GENERATED, REAL)
        arrays = tokens, segments, target, row, self._users[row]
        return tuple(torch.from_numpy(array).to(device) for array in arrays)


def mean_loss(
    objective: Objective,
    model: GPT,
    layer: Layer,
    batch: tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor],
) -> Tensor:
    """The mean of the objective over the positions of a batch that have a target."""
    tokens, segments, targets, row, users = batch
    is_target = targets != 0
    hidden = model.query(hidden_at(model, tokens, users, segments, is_target), layer)
    user_row = row[:, None].expand_as(targets)[is_target]
    return objective(hidden, model.vectors(layer), targets[is_target], user_row)


def pretrain(
    model: GPT,
    clicks: Sequences,
    objective: Objective,
    training: Training,
    fitting: Fitting,
    cut: Literal["last", "all"],
    validate: Callable[[], float] | None,
) -> None:
    """Next-item prediction on the clicks alone, from the item embedding (eq. 4), in place."""
    windows = Windows(clicks, model.shape.length, cut)
    width = None if model.shape.masked else model.shape.length

    def step(index: IntArray) -> Tensor:
        batch = windows.batch(index, fitting.device, width)
        lesson = batch.items, None, batch.targets, batch.row, batch.user - 1
        return mean_loss(objective, model, "items", lesson)

    train(
        model,
        step,
        windows.lengths,
        training,
        fitting,
        stage="pre-train",
        validate=validate,
        targets=windows.targets,
    )
    model.start_output()


def tune(
    model: GPT,
    log: Sequences,
    prompts: Prompts,
    source: str,
    objective: Objective,
    training: Training,
    fitting: Fitting,
    cut: Literal["last", "all"],
    validate: Callable[[], float] | None,
    index: Index | None = None,
) -> TrainingState:
    """Prompt-tuning (4.3): the next real item from the dialogue, through the output layer (eq. 5),
    in place. Returns how it went.

    Prompts are generated once, before the first epoch; with `anew`, again before every epoch, by
    the model as it then is. An `index` over its items finds them, where it is given.
    """
    dialogues = converse(model, log, prompts, source, "items", index=index)
    lessons = Lessons(log.user, dialogues, model.shape.length, cut, prompts.everywhere)

    def generate_anew() -> None:
        model.eval()
        dialogues.tokens[:] = converse(model, log, prompts, source, "output").tokens

    def step(index: IntArray) -> Tensor:
        full = not model.shape.masked
        tokens, segments, targets, row, users = lessons.batch(index, full, fitting.device)
        if prompts.form == "tail" and prompts.window:
            tokens, segments = _replace_tail(model, tokens, segments, users, prompts.window)
        return mean_loss(objective, model, "output", (tokens, segments, targets, row, users))

    is_anew = prompts.anew and prompts.between > 0 and source != "exposed"
    return train(
        model,
        step,
        lessons.lengths,
        training,
        fitting,
        stage="tune",
        validate=validate,
        targets=lessons.targets,
        before_epoch=generate_anew if is_anew else None,
    )


@torch.no_grad()
def _replace_tail(
    model: GPT, tokens: Tensor, segments: Tensor, users: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """The last `window` inputs `[B, L]` replaced by generated ones; a user's first item stays."""
    window = min(window, tokens.shape[1] - 1)
    if window < 1:
        return tokens, segments
    model.eval()
    search = PromptSearch(model, "output")
    is_item = tokens != 0
    is_first = is_item & (is_item.cumsum(1) == 1)
    talk = Talk(model, users, tokens[:, :-window], window)
    for place in range(tokens.shape[1] - window, tokens.shape[1]):
        stays = is_first[:, place] | ~is_item[:, place]
        talk.append(torch.where(stays, tokens[:, place], search.best(talk.hidden)), GENERATED)
    model.train()
    out = talk.tokens[:, -tokens.shape[1] :]
    return out, torch.where((out != tokens) & (out != 0), GENERATED, segments)
