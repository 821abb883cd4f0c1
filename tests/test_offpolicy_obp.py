"""The same rounds through abtest and through the packaged obp: equal to 1e-9 for the estimators
that both have.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simulator.offpolicy.estimators import (
    IPS,
    SNIPS,
    ClippedIPS,
    DirectMethod,
    DoublyRobust,
    Estimator,
    Matching,
    SelfNormalisedDR,
    ShrunkDR,
    SwitchDR,
)
from simulator.offpolicy.evidence import Evidence
from simulator.offpolicy.reward_model import RewardTable
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.target import Target
from simulator.offpolicy.uncertainty import Ratios

ACTIONS, COUNT = 7, 1500


@pytest.fixture(scope="module")
def interpreter() -> str:
    """A Python that has obp: ABTEST_OBP, the one of `make peers` (obp 0.5.7 wants numpy < 2), or
    this one.
    """
    named = os.environ.get("ABTEST_OBP")
    if named:
        return named
    peer = Path(__file__).resolve().parents[1] / ".venv-obp/bin/python"
    if peer.exists():
        return str(peer)
    if importlib.util.find_spec("obp") is None:
        pytest.skip(
            "obp is not here: run `make peers`, or set ABTEST_OBP to a Python that has obp 0.5.7"
            " (it needs numpy < 2)"
        )
    return sys.executable


def _value(estimator: Estimator, e: Evidence) -> float:
    ratios = estimator.ratios(e)
    ones = np.ones(len(e))
    return Ratios(
        np.stack([a for a, _ in ratios], axis=1),
        np.stack([ones if b is None else b for _, b in ratios], axis=1),
    ).value


def test_equal_to_obp(interpreter: str, tmp_path: Path) -> None:
    random = np.random.Generator(np.random.Philox(key=11))
    log, law = random.dirichlet(np.ones(ACTIONS), COUNT), random.dirichlet(np.ones(ACTIONS), COUNT)
    action = (
        (random.uniform(size=(COUNT, 1)) > log.cumsum(axis=1)).sum(axis=1).clip(max=ACTIONS - 1)
    )
    reward = (random.uniform(size=COUNT) < 0.1 + 0.08 * action).astype(float)
    best = law.argmax(axis=1)
    one = np.eye(ACTIONS)[best]
    row, zero = np.arange(COUNT), np.zeros(COUNT, dtype=np.int64)
    propensity = log[row, action]
    rounds = Rounds(
        row,
        zero,
        zero,
        row,
        zero[:, None],
        action[:, None] + 1,
        reward[:, None],
        propensity[:, None],
        "marginal",
        zero,
    )
    model = RewardTable(ACTIONS)
    model.add(rounds)
    model.settle()
    predicted = model.table[model.fold(row), 0, 0, 1:]
    given = np.concatenate((np.zeros((COUNT, 1)), law), axis=1)[:, None, :]
    target = Target(law[row, action][:, None], best[:, None, None] + 1, None, given)
    fixed = Target(one[row, action][:, None], best[:, None, None] + 1, deterministic=True)
    e = Evidence(rounds, target, model)
    estimators = (
        IPS(),
        ClippedIPS(3.0),
        SNIPS(),
        DirectMethod(),
        DoublyRobust(),
        SelfNormalisedDR(),
        SwitchDR(3.0),
        ShrunkDR(3.0),
    )
    ours = {estimator.name: _value(estimator, e) for estimator in estimators}
    ours["matching"] = _value(Matching(), Evidence(rounds, fixed))

    file = tmp_path / "rounds.npz"
    np.savez(
        file,
        reward=reward,
        action=action,
        propensity=propensity,
        law=law,
        one=one,
        predicted=predicted,
    )
    peer = Path(__file__).with_name("obp_peer.py")
    done = subprocess.run(
        [interpreter, "-W", "ignore", str(peer), str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(theirs) == set(ours)
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], abs=1e-9), name
