"""Exported: a policy that is a model file, ONNX or TorchScript / torch.export, with stated inputs.

The model maps `items` int64 `[B, L]` (clicked items, oldest first, right-aligned, 0 = padding) to
scores float `[B, n_items + 1]` (column 0 is padding and ignored). Training it is its owner's
business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from policies.base import Catalogue, Fitting, FloatArray, Histories, IntArray, Sequences
from policies.blocks import ROWS
from policies.scored import Scored

FORMATS = {".onnx": "ONNX", ".pt": "TorchScript", ".pt2": "torch.export"}


class ExportedError(ValueError):
    """A model file that cannot be read or does not keep the stated inputs and outputs."""


@dataclass
class Exported(Scored):
    """A model file served as a policy.

    Attributes:
        file: `.onnx` (needs the extra `abtest[onnx]`), `.pt` (TorchScript) or `.pt2`
            (torch.export).
        length: `L`, clicked items that the model is given.
        input: name of the ONNX input.
        output: name of the ONNX output.
    """

    file: str = ""
    length: Annotated[int, Field(ge=1)] = 50
    input: str = "items"
    output: str = "scores"

    draws_in_fit: ClassVar[bool] = False
    learns: ClassVar[tuple[str, ...]] = ()

    def files(self) -> tuple[Path, ...]:
        return (Path(self.file),)

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Load the model and try it on empty histories.

        Raises:
            ExportedError: the file is missing, of an unknown kind or unreadable, or scores have the
                wrong shape.
        """
        self.n_items_ = catalogue.n_items
        self._ask(np.zeros((ROWS, self.length), dtype=np.int64))
        return self

    def scores(self, histories: Histories) -> FloatArray:
        """What the model gives for the last `length` clicks, `[B, n_items + 1]`."""
        return self._ask(histories.clicks(self.length))

    @cached_property
    def _model(self) -> Callable[[IntArray], FloatArray]:
        path = Path(self.file)
        if path.suffix not in FORMATS:
            endings = ", ".join(f"{suffix} ({name})" for suffix, name in FORMATS.items())
            raise ExportedError(f"exported policy: file must end in {endings}; got {self.file!r}")
        if not path.is_file():
            raise ExportedError(f"exported policy: no model file {self.file!r}")
        try:
            return _onnx(path, self.input, self.output) if path.suffix == ".onnx" else _torch(path)
        except ImportError as error:
            raise ExportedError(
                f"exported policy {self.file}: needs `pip install 'abtest[onnx]'`: {error}"
            ) from error
        except ExportedError:
            raise
        except Exception as error:  # whatever the runtime raises on a broken file
            raise ExportedError(
                f"exported policy {self.file}: not a readable {FORMATS[path.suffix]} model: {error}"
            ) from error

    def _ask(self, items: IntArray) -> FloatArray:
        scores = self._model(items)
        expected = (len(items), self.n_items_ + 1)
        if scores.shape != expected:
            raise ExportedError(
                f"exported policy {self.file}: scores must be {expected} (rows, n_items + 1); got"
                f" {scores.shape}"
            )
        if np.isnan(scores).any():
            raise ExportedError(f"exported policy {self.file}: the model gave NaN scores")
        return scores

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return {"n_items": np.array(self.n_items_)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        self.n_items_ = int(state["n_items"])
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_model"}


def _onnx(path: Path, source: str, target: str) -> Callable[[IntArray], FloatArray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = [each.name for each in session.get_inputs()]
    outputs = [each.name for each in session.get_outputs()]
    for kind, name, names in [("input", source, inputs), ("output", target, outputs)]:
        if name not in names:
            raise ExportedError(
                f"exported policy {path}: the model has no {kind} {name!r}; its {kind}s are {names}"
            )

    def call(items: IntArray) -> FloatArray:
        return np.asarray(session.run([target], {source: items})[0], dtype=np.float32)

    return call


def _torch(path: Path) -> Callable[[IntArray], FloatArray]:
    import torch

    if path.suffix == ".pt":
        read: Callable[..., Any] = torch.jit.load
        model = read(str(path), map_location="cpu").eval()
    else:
        model = torch.export.load(str(path)).module()

    def call(items: IntArray) -> FloatArray:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(items)).float().numpy())

    return call
