"""RecBole: a checkpoint of a RecBole `SequentialRecommender` as a policy.

RecBole needs older numpy and pandas than most environments have, so the model runs in a worker
process of the interpreter that has RecBole (`python`), and answers over a pipe. Where the extra
`abtest[recbole]` is installed, that is this interpreter.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from policies import recbole_worker
from policies.base import Catalogue, Fitting, FloatArray, Histories, IntArray, Sequences
from policies.scored import Scored


class RecBoleError(ValueError):
    """A checkpoint, interpreter or catalogue that RecBole cannot serve."""


@dataclass
class RecBole(Scored):
    """A checkpoint of a RecBole `SequentialRecommender`, served as it is; `fit` only loads it and
    matches the items.

    RecBole's item tokens are matched with `catalogue.items["id"]` where the data has original ids,
    else with 1..n_items. Items that the checkpoint does not know are never recalled. The data set
    of the checkpoint must be where its configuration says, relative to `folder`.

    Attributes:
        checkpoint: the `.pth` file that RecBole saved.
        python: the interpreter that has RecBole; empty: this one.
        folder: working directory of the worker.
    """

    checkpoint: str = ""
    python: str = ""
    folder: str = "."

    learns: ClassVar[tuple[str, ...]] = ()

    def files(self) -> tuple[Path, ...]:
        return (Path(self.folder, self.checkpoint),)

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Start the worker and match its items with the catalogue.

        Raises:
            RecBoleError: no such checkpoint or interpreter, RecBole cannot load it, or no item
                matches.
        """
        self.n_items_ = catalogue.n_items
        ids = np.arange(1, catalogue.n_items + 1)
        if "id" in catalogue.items:
            ids = np.asarray(catalogue.items["id"][1:])
        self.names_ = np.concatenate(([""], ids.astype(np.str_)))
        if not (self._worker().ids > 0).any():
            examples = f"{self._worker().tokens[1:4].tolist()} and {self.names_[1:4].tolist()}"
            raise RecBoleError(
                f"recbole policy {self.checkpoint}: no item token is an id of the catalogue, e.g."
                f" {examples}"
            )
        return self

    def scores(self, histories: Histories) -> FloatArray:
        """What the model gives for all clicks that it can read, `[B, n_items + 1]`; -inf where the
        checkpoint does not know the item.
        """
        worker = self._worker()
        clicks = histories.clicks(histories.items.shape[1])
        question = np.zeros((len(clicks), worker.longest + 1), dtype=np.int64)
        for row, ids in enumerate(worker.ids[clicks]):
            recent = ids[ids > 0][-worker.longest :]  # RecBole's ids; 0 = padding or unknown to it
            question[row, 0] = max(len(recent), 1)  # an empty history is asked as one padding item
            question[row, 1 : 1 + len(recent)] = recent
        scores = worker.ask(question)[:, worker.ids]
        scores[:, worker.ids == 0] = -np.inf
        return scores

    def _worker(self) -> _Worker:
        worker: _Worker | None = self.__dict__.get("_running")
        if worker is None or worker.process.poll() is not None:
            worker = self.__dict__["_running"] = _Worker(
                self.checkpoint, self.python or sys.executable, self.folder, self.names_
            )
        return worker

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return {"names": self.names_}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        self.names_ = state["names"]
        self.n_items_ = len(self.names_) - 1
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_running"}


class _Worker:
    """The worker process, and RecBole's id of each item of ours (0 = unknown)."""

    def __init__(self, checkpoint: str, python: str, folder: str, names: npt.NDArray[Any]) -> None:
        self.whose = f"recbole policy {checkpoint}"
        if not Path(folder, checkpoint).is_file():
            raise RecBoleError(f"{self.whose}: no such checkpoint in {folder!r}")
        script = str(Path(recbole_worker.__file__).resolve())
        command = [python, script, checkpoint]
        try:
            self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker; a pipe nobody reads would fill up and stop the worker
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=self.stderr, cwd=folder
            )
        except OSError as error:
            self.stderr.close()
            raise RecBoleError(
                f"{self.whose}: interpreter {python!r} cannot be started: {error.strerror}"
            ) from error
        self.tokens = self._receive()
        self.longest = int(self._receive()[0])
        place = {token: i for i, token in enumerate(self.tokens.tolist())}
        self.ids = np.array(
            [0, *(place.get(name, 0) for name in names[1:].tolist())], dtype=np.int64
        )

    def ask(self, question: IntArray) -> FloatArray:
        """Scores of all RecBole's items for each row of `question`."""
        assert self.process.stdin is not None
        recbole_worker.send(self.process.stdin, question)  # type: ignore[arg-type]
        return np.array(self._receive())

    def _receive(self) -> npt.NDArray[Any]:
        assert self.process.stdout is not None
        answer = recbole_worker.receive(self.process.stdout)  # type: ignore[arg-type]
        if answer is None:
            self.process.wait()
            self.stderr.seek(0)
            lines = self.stderr.read().decode(errors="replace").strip().splitlines()
            last = lines[-1] if lines else "it wrote nothing"
            raise RecBoleError(
                f"{self.whose}: the worker ended: {last}; is RecBole installed there?"
            )
        return np.asarray(answer)

    def __del__(self) -> None:
        process = self.__dict__.get("process")
        if process is not None:
            for stream in (process.stdin, process.stdout, self.stderr):
                stream.close()
            process.kill()
            process.wait()
