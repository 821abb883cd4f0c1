"""The RecBole wrapper, against the real package in an interpreter of its own (`make peers` makes
one).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policies.base import Fitting
from policies.check import check_policy
from policies.examples import mixed
from policies.recbole import RecBole, RecBoleError
from policies.registry import make

ROOT = Path(__file__).resolve().parents[1]

TRAIN = """
import os, sys
os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
from recbole.quick_start import run_recbole
result = run_recbole(model="SASRec", dataset="tiny", saved=True, config_dict={
    "data_path": "data", "checkpoint_dir": "saved", "epochs": 2, "train_neg_sample_args": None,
    "show_progress": False, "use_gpu": False, "hidden_size": 16, "inner_size": 16, "n_layers": 1,
    "n_heads": 1, "MAX_ITEM_LIST_LENGTH": 12, "worker": 0, "reproducibility": True,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user",
                  "mode": "full"},
    "state": "CRITICAL"})
"""

SCORES = """
import os, sys, glob
os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
import numpy as np, torch
from recbole.quick_start import load_data_and_model
from recbole.data.interaction import Interaction
config, model, dataset, *_ = load_data_and_model(sys.argv[1])
model.eval()
rows = np.load("rows.npy", allow_pickle=False)
out = np.full((len(rows), rows.max() + 1), np.nan, dtype=np.float32)
names = dataset.field2id_token["item_id"]
for i, row in enumerate(rows):
    used = [dataset.token2id("item_id", str(item)) for item in row if item > 0]
    ids = torch.zeros((1, 12), dtype=torch.int64)
    ids[0, : len(used)] = torch.tensor(used)
    asked = Interaction({"item_id_list": ids, "item_length": torch.tensor([len(used)]),
                         "user_id": torch.tensor([1])})
    with torch.no_grad():
        scores = model.full_sort_predict(asked).ravel().numpy()
    for place in range(1, len(names)):
        out[i, int(names[place])] = scores[place]
np.save("scores.npy", out)
"""


def interpreter() -> str | None:
    """One that has RecBole: ABTEST_RECBOLE_PYTHON, the one of `make peers`, or this one."""
    for python in (
        os.environ.get("ABTEST_RECBOLE_PYTHON"),
        str(ROOT / ".venv-recbole/bin/python"),
        sys.executable,
    ):
        if python and Path(python).exists():
            question = "import importlib.util as u; print(bool(u.find_spec('recbole')))"
            found = subprocess.run([python, "-c", question], capture_output=True, text=True)
            if found.stdout.strip() == "True":
                return python
    return None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Folder, interpreter and checkpoint of a SASRec that RecBole trained on the example log."""
    python = interpreter()
    if python is None:
        pytest.skip("no interpreter with RecBole: run `make peers`, or set ABTEST_RECBOLE_PYTHON")
    folder = tmp_path_factory.mktemp("recbole")
    (folder / "data/tiny").mkdir(parents=True)
    clicks = mixed().sequences.clicks()
    owner = np.repeat(clicks.user, np.diff(clicks.offsets))
    lines = [
        f"{u}\t{i}\t{t}"
        for u, i, t in zip(owner, clicks.items, clicks.t - clicks.t.min(), strict=True)
    ]
    (folder / "data/tiny/tiny.inter").write_text(
        "user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(lines) + "\n"
    )
    done = subprocess.run([python, "-c", TRAIN], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (checkpoint,) = folder.glob("saved/*.pth")
    return folder, python, str(checkpoint.relative_to(folder))


def test_scores_are_recbole_s_own(trained: tuple[Path, str, str]) -> None:
    folder, python, checkpoint = trained
    example = mixed()
    policy = RecBole(checkpoint, python, str(folder)).fit(
        example.sequences, example.catalogue, Fitting()
    )
    requests = example.requests(12)
    rows = requests.clicks(12)
    some = (rows > 0).any(axis=1)
    np.save(folder / "rows.npy", rows[some])
    done = subprocess.run(
        [python, "-c", SCORES, checkpoint], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = np.load(folder / "scores.npy")
    every = np.tile(np.arange(1, expected.shape[1]), (int(some.sum()), 1))
    got = policy.score(requests.rows(some), every)
    known = ~np.isnan(expected[:, 1:])
    assert known.mean() > 0.9
    np.testing.assert_allclose(got[known], expected[:, 1:][known], rtol=1e-4, atol=1e-5)
    assert np.isneginf(got[~known]).all()


def test_it_keeps_the_promises_of_a_policy(trained: tuple[Path, str, str]) -> None:
    folder, python, checkpoint = trained
    policy = make("recbole", {"checkpoint": checkpoint, "python": python, "folder": str(folder)})
    promises = [
        "shapes",
        "seen_items",
        "determinism",
        "purity",
        "batch_invariance",
        "cold_users",
        "save_load",
        "no_look_ahead",
    ]
    results = list(check_policy(policy, only=promises))
    assert {r.name: r.detail for r in results if not r.kept} == {}


def test_what_cannot_be_served_is_named(tmp_path: Path) -> None:
    example = mixed()
    (tmp_path / "x.pth").write_bytes(b"no checkpoint")
    for policy, message in [
        (RecBole("y.pth", "", str(tmp_path)), "no such checkpoint"),
        (RecBole("x.pth", "no-python", str(tmp_path)), "interpreter 'no-python' cannot be started"),
        (
            RecBole("x.pth", sys.executable, str(tmp_path)),
            r"the worker ended: .*; is RecBole installed there\?",
        ),
    ]:
        with pytest.raises(RecBoleError, match=message):
            policy.fit(example.sequences, example.catalogue, Fitting())
