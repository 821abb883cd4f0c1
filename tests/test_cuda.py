"""Neural policies on a GPU: they keep their promises when they are fitted there. Skipped where
torch sees none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policies.base import Fitting
from policies.check import CHECKS, check_policy
from policies.device import device
from policies.examples import chain
from policies.registry import make
from policies.train import Training
from recgpt.model import GPT, Shape
from recgpt.prompts import Prompts, generate

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no CUDA device here"
)

NEURAL: dict[str, dict[str, Any]] = {
    "bpr": {},
    "stamp": {},
    "gru4rec": {},
    "narm": {},
    "sasrec": {},
    "s3rec": {},
    "bert4rec": {},
    "comirec": {},
    "pretrain": {},
    "finetune": {},
    "recgpt": {"prompts": {"window": 2, "source": "model"}},
    "recgpt1": {},
}
RELEASED = {
    "shape": {"width": 32, "attention": "flow", "masked": False, "output": "biased"},
    "prompts": {"form": "tail"},
}
FLOATING = 1e-4
"""What sums of some hundred products in float32 may differ by when they are added in another order.
"""


@pytest.mark.parametrize("name", NEURAL)
def test_fitted_there_it_keeps_its_promises(name: str) -> None:
    results = list(check_policy(make(name, NEURAL[name]), device=device("cuda")))
    assert [r.name for r in results] == list(CHECKS)
    assert {r.name: r.detail for r in results if not (r.kept or r.skipped)} == {}


@pytest.mark.parametrize("name", NEURAL)
def test_answering_there_it_keeps_its_promises(name: str) -> None:
    results = list(check_policy(make(name, {**NEURAL[name], "device": "cuda"})))
    assert {r.name: r.detail for r in results if not (r.kept or r.skipped)} == {}


@pytest.mark.parametrize(("name", "params"), [*NEURAL.items(), ("recgpt1", RELEASED)])
@pytest.mark.parametrize("kind", ["bce", "softmax", "sampled"])
def test_two_fits_are_the_same(name: str, params: dict[str, Any], kind: str) -> None:
    example, few = chain(), Training(epochs=2, patience=0, batch=32)
    stages = (
        {"training": few}
        if hasattr(make(name), "training")
        else {"pretraining": few, "pretraining_loss": {"kind": kind}}
    )
    stages |= {"tuning": few} if hasattr(make(name), "tuning") else {}
    stages |= {"loss": {"kind": kind}} if "training" in stages and name != "bpr" else {}
    fits = [
        make(name, {**params, **stages})
        .fit(example.sequences, example.catalogue, Fitting(3, device("cuda")))
        .state()
        for _ in range(2)
    ]
    assert fits[0].keys() == fits[1].keys()
    assert all(np.array_equal(fits[0][part], fits[1][part]) for part in fits[0])


@pytest.mark.parametrize(
    "shape", [Shape(), Shape.written(), Shape.released(), Shape(relative=True, trace=True)]
)
def test_the_network_gives_the_same_there(shape: Shape) -> None:
    device("cuda")
    draw = np.random.default_rng(0)
    tokens = torch.from_numpy(
        draw.integers(1, 41, (16, 30)) * (np.arange(30) >= draw.integers(0, 29, 16)[:, None])
    )
    model = GPT(40, 16, shape).initialise(torch.Generator().manual_seed(1)).eval()
    with torch.inference_mode():
        here = model(tokens, torch.arange(16))
        there = model.cuda()(tokens.cuda(), torch.arange(16).cuda()).cpu()
    real = tokens != 0
    assert torch.allclose(here[real], there[real], atol=FLOATING)


def test_prompts_are_the_same_there() -> None:
    device("cuda")
    example = chain()
    clicks = example.sequences.clicks()
    model = GPT(40, 200, Shape()).initialise(torch.Generator().manual_seed(1)).eval()
    nothing = np.zeros((len(clicks.items), 2), dtype=np.int64)
    here = generate(model, clicks, nothing, Prompts(2))
    there = generate(model.cuda(), clicks, nothing, Prompts(2))
    assert (here == there).mean() > 0.999  # equal scores but for the order of addition
