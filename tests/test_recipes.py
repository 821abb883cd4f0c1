"""The recipes for models of other packages keep the promises of the contract, run beside those
packages in an environment of its own (`make peers`).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.pages import ROOT, blocks

PYTHON = ROOT / ".venv-recommenders/bin/python"
RECIPES = ROOT / "docs/recipes.md"

CHECK = """
from policies.check import check_policy

for policy in (RecToolsEASE(), LensKitALS(), TorchRecTower()):
    broken = {r.name: r.detail for r in check_policy(policy) if not (r.kept or r.skipped)}
    assert not broken, (type(policy).__name__, broken)
    print(type(policy).__name__)
"""

FOLD_IN = """
from lenskit.data import ItemList
from policies.examples import mixed

example = mixed(0)
clicks = example.sequences.clicks()
kept = []
train = lenskit.als.ImplicitMFScorer.train

def keep(self, *arguments):
    train(self, *arguments)
    kept.append(self)

lenskit.als.ImplicitMFScorer.train = keep
policy = LensKitALS().fit(example.sequences, example.catalogue, Fitting())
asked = example.requests()
queries = policy.queries(asked)[:, 0]
for row, clicked in enumerate(asked.clicks(policy.length)[:20]):
    items = np.unique(clicked[clicked > 0])
    if len(items):
        theirs, _ = kept[0].new_user_embedding(None, ItemList(item_ids=items))
        assert np.allclose(queries[row], theirs, rtol=1e-3, atol=1e-4), (queries[row], theirs)
print("the same")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    if not PYTHON.is_file():
        pytest.skip("the environment with RecTools, LensKit and TorchRec is not there: make peers")
    recipes = "\n".join(body for language, body in blocks(RECIPES) if language == "py")

    def _run(code: str) -> str:
        file: Path = tmp_path_factory.mktemp("recipes") / "recipes.py"
        file.write_text(f"{recipes}\n{code}", encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([PYTHON, file], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return _run


def test_they_keep_all_promises(run):
    assert run(CHECK).split() == ["RecToolsEASE", "LensKitALS", "TorchRecTower"]


def test_a_user_is_folded_in_as_lenskit_does(run):
    assert run(FOLD_IN).strip() == "the same"
