"""Where fits are computed: decided once, given to every fit, refused where it is not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from policies.device import DeviceError, device
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario, ScenarioError

RECORDER = """
import numpy as np
from policies.popularity import Popularity

class Recorder(Popularity):
    def fit(self, sequences, catalogue, fitting):
        self.device_ = fitting.device
        return super().fit(sequences, catalogue, fitting)

    def state(self):
        return {**super().state(), "device": np.array(self.device_)}
"""


@pytest.fixture(autouse=True)
def device_as_before() -> Iterator[None]:
    """torch chooses its kernels for the other tests as it did."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_auto_is_cuda_where_torch_sees_one(
    wanted: Any, there: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device(wanted) == found


def test_torch_is_not_loaded_for_policies_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # an import would raise
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr("builtins.__import__", lambda name, *_: pytest.fail(f"{name} imported"))
    found = device("auto")
    monkeypatch.undo()
    assert found == "cpu"


def _run(folder: Path, wanted: str) -> Path:
    (folder / "mine.py").write_text(RECORDER)
    content = {
        "name": "tiny",
        "data": {"source": "synthetic", "history_days": 1},
        "users": {"kind": "choice", "n_users": 20, "n_items": 40},
        "days": 1,
        "serving": {"slate": 4, "recall": 8, "history": 8},
        "arms": {"mine": {"policy": "mine.py:Recorder"}, "b": {"policy": "random"}},
        "engine": {"executor": "serial", "device": wanted},
    }
    (folder / "scenario.yaml").write_text(yaml.safe_dump(content))
    return simulate(Scenario.load(folder / "scenario.yaml"), folder / wanted, folder=folder).root


def test_every_fit_is_given_the_scenarios_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for wanted, found in (("auto", "cuda"), ("cpu", "cpu")):
        (state,) = _run(tmp_path, wanted).glob("models/recorder-*/state.npz")
        with np.load(state) as stored:
            assert str(stored["device"]) == found


def test_cuda_without_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    missing = r"is 'cuda', but torch .* sees no CUDA device here: set it to auto or cpu"
    with pytest.raises(ScenarioError, match=r"scenario\.yaml:\d+: engine\.device: it " + missing):
        _run(tmp_path, "cuda")
    assert not (tmp_path / "cuda").exists()  # before anything is written
    with pytest.raises(DeviceError, match=r"engine\.device " + missing):
        device("cuda")
